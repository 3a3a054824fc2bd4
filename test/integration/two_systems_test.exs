defmodule Legation.TwoSystemsTest do
  # The essential rows between two operating-system processes that share nothing: alice's engines run in another VM, bob is in
  # this one. Neither has a node name.
  use Legation.Case, async: true

  alias Legation.TestVM

  for carrier <- [:tcp_tls, :unix] do
    describe "over #{carrier}" do
      setup do
        vm = TestVM.start!()
        {:ok, address} = start_alice(vm, unquote(carrier))

        bob =
          start_realm("bob",
            # The only one in this VM that is after names of this kind.
            global: true,
            limits: [grace_ms: 0],
            peers: [peer("alice#{unquote(carrier)}", connect: [address])]
          )

        # Unique, so that tests that run at the same time don't meet in :global.
        %{vm: vm, bob: bob, realm: "alice#{unquote(carrier)}", address: address}
      end

      @tag :not_distributed
      test "neither system is distributed, and both are told apart", %{vm: vm, bob: bob, realm: realm} do
        assert TestVM.call(vm, Node, :alive?, []) == false
        assert Node.alive?() == false
        assert TestVM.call(vm, System, :pid, []) != System.pid()
        await_up(watch(bob), realm)
        assert [%{profile: profile}] = Legation.connections(bob)
        assert profile == profile(unquote(carrier))
      end

      test "call, cast and send by the global name, without a word of Legation", %{vm: vm, bob: bob, realm: realm} do
        TestVM.here(vm, TestVM, :publish_echo, [Alice, "echo"])
        await_engine(bob, "echo@#{realm}")
        settle_global(bob)
        name = {:global, "echo@#{realm}"}
        assert GenServer.call(name, {:echo, {:any, "term", [1.0]}}) == {:any, "term", [1.0]}
        GenServer.cast(name, {:hello, 1})
        assert_receive {:vm, ^vm, {:cast, {:hello, 1}}}
        send(:global.whereis_name("echo@#{realm}"), {:hello, 2})
        assert_receive {:vm, ^vm, {:info, {:hello, 2}}}
        :global.send("echo@#{realm}", {:hello, 3})
        assert_receive {:vm, ^vm, {:info, {:hello, 3}}}
        assert {:remote, %{realm: "bob", engine: ""}} = GenServer.call(name, :who)
      end

      test "an engine published later is learned, and one withdrawn forgotten", %{vm: vm, bob: bob, realm: realm} do
        watch = watch(bob)
        await_up(watch, realm)
        TestVM.here(vm, TestVM, :publish_engine, [Alice, "late", Counter, 41])
        await(watch, {:engine_learned, "late@#{realm}"})
        assert GenServer.call(via(bob, "late@#{realm}"), {:add, 1}) == 42
        settle_global(bob)
        assert GenServer.call({:global, "late@#{realm}"}, :get) == 42

        :ok = TestVM.call(vm, Legation, :withdraw, ["late", Alice])
        await(watch, {:engine_forgotten, "late@#{realm}"})
        settle_global(bob)
        assert :global.whereis_name("late@#{realm}") == :undefined

        for name <- [via(bob, "late@#{realm}"), {:global, "late@#{realm}"}] do
          assert {:noproc, _call} = catch_exit_of(fn -> GenServer.call(name, :get, :infinity) end)
        end
      end

      test "10,000 calls in flight from as many processes: none is lost, none crossed", context do
        %{vm: vm, bob: bob, realm: realm} = context
        TestVM.here(vm, TestVM, :publish_engine, [Alice, "barrier", Legation.TestEngines.Barrier, 10_000])
        proxy = await_engine(bob, "barrier@#{realm}")
        calls = for n <- 1..10_000, do: {n, async_call(proxy, n)}
        for {n, pid} <- calls, do: assert(await_call(pid) == {:reply, {:echo, n}})
        assert session_counter(bob, realm, :calls_pending) == 0
      end

      test "a late reply reaches nobody and what was kept for the call is freed", %{vm: vm, bob: bob, realm: realm} do
        TestVM.here(vm, TestVM, :publish_echo, [Alice, "echo"])
        proxy = await_engine(bob, "echo@#{realm}")
        assert {:timeout, _call} = catch_exit_of(fn -> GenServer.call(proxy, {:hold, 1}, 1) end)
        # A daemon is told at once that nobody waits any more.
        if transport(bob) == :embedded, do: assert(session_counter(bob, realm, :calls_pending) == 1)
        assert GenServer.call(proxy, {:release, 1, "late"}) == :ok
        refute_received {_tag, "late"}
        assert session_counter(bob, realm, :calls_pending) == 0
        assert TestVM.call(vm, Legation, :counters, [Alice]).sessions["bob"].calls_served == 0
      end

      test "both systems call each other", %{vm: vm, bob: bob, realm: realm} do
        {:ok, counter} = Counter.start_link(1)
        :ok = Legation.publish("counter", counter, [], bob)
        await_up(watch(bob), realm)
        assert TestVM.here(vm, TestVM, :await_engine, [Alice, "counter@bob"]) == :ok
        assert TestVM.call(vm, GenServer, :call, [via(Alice, "counter@bob"), :get]) == 1
      end

      test "after a restart of a realm its identity and names are the same", context do
        %{vm: vm, bob: bob, realm: realm, address: address} = context
        TestVM.here(vm, TestVM, :publish_engine, [Alice, "counter", Counter, 1])
        await_engine(bob, "counter@#{realm}")
        key = TestVM.call(vm, Legation, :public_key, [Alice])
        watch = watch(bob)

        :ok = TestVM.here(vm, TestVM, :stop_realm, [Alice])
        await(watch, {:peer_down, realm})
        assert Legation.whereis("counter@#{realm}", bob) == nil

        {:ok, ^address} = start_alice(vm, unquote(carrier), address)
        assert %{key: raw_key} = await(watch, {:peer_up, realm})
        assert Legation.Options.format_key(raw_key) == key
        assert TestVM.call(vm, Legation, :public_key, [Alice]) == key
        TestVM.here(vm, TestVM, :publish_engine, [Alice, "counter", Counter, 2])
        await_engine(bob, "counter@#{realm}")
        assert GenServer.call(via(bob, "counter@#{realm}"), :get) == 2
      end

      test "after kill -9 calls in flight exit, and when the system is back so are its engines", context do
        %{vm: vm, bob: bob, realm: realm, address: address} = context
        TestVM.here(vm, TestVM, :publish_echo, [Alice, "echo"])
        proxy = await_engine(bob, "echo@#{realm}")
        monitor = Process.monitor(proxy)
        call = async_call(proxy, {:hold, 1})
        assert_receive {:vm, ^vm, {:held, 1, _from}}
        watch = watch(bob)
        daemon? = TestVM.call(vm, Legation.Case, :transport, [Alice]) == :c_node

        assert TestVM.kill(vm) == 128 + 9
        # A daemon of hers outlives her VM by a moment: it may be the engine that has ended first, and then the session.
        crashed = {:remote_exit, :crashed}
        assert {:exit, {lost, _call}} = await_call(call)
        assert lost == lost(bob) or (daemon? and lost == crashed)
        assert_receive {:DOWN, ^monitor, :process, ^proxy, reason}
        assert reason == :noconnection or (daemon? and reason == crashed)
        await(watch, {:peer_down, realm})

        # It is dialled in vain for a while.
        assert {:connect, _reason} = await_dial_failures(bob, realm, 3)
        assert [%{state: state, last_error: "could not connect: " <> _why}] = Legation.peers(bob)
        assert state in [:waiting, :connecting]

        again = TestVM.start!()
        {:ok, ^address} = start_alice(again, unquote(carrier), address)
        TestVM.here(again, TestVM, :publish_echo, [Alice, "echo"])
        await(watch, {:peer_up, realm})
        await(watch, {:engine_learned, "echo@#{realm}"})
        assert GenServer.call(via(bob, "echo@#{realm}"), {:echo, :again}) == :again
      end
    end
  end

  # Alice there, with bob on her list. Returns the address that bob dials.
  defp start_alice(vm, carrier, dialled \\ nil) do
    {kind, opts} = listen = listen_again(carrier, dialled)

    options = realm_options("alice#{carrier}", name: Alice, listen: [listen], peers: [peer("bob")])

    {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [options])
    [%{address: bound}] = TestVM.call(vm, Legation, :listeners, [Alice])
    {:ok, dial_address({kind, opts}, bound)}
  end

  defp listen_again(carrier, nil), do: listen_address(carrier)
  defp listen_again(_carrier, {:tcp, opts}), do: {:tcp, port: opts[:port], ip: {127, 0, 0, 1}}
  defp listen_again(_carrier, unix), do: unix
end
