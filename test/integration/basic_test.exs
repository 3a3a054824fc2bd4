defmodule Legation.BasicTest do
  # What a sender and an engine see, the same over every carrier. Two instances in one VM; alice has the engines, bob calls.
  use Legation.Case, async: true

  @large :binary.copy("large", 10_000)

  # An Echo that tells the test what it gets.
  defp echo(alice, bob, name \\ "echo") do
    engine = start_supervised!({Echo, owner: self(), instance: alice}, id: name)
    {engine, publish(alice, name, engine, [bob])}
  end

  # Everything that was sent to the engine before this has been delivered when it returns.
  defp round_trip(proxy), do: assert(GenServer.call(proxy, {:echo, :done}) == :done)

  defp number({n, @large}), do: n
  defp number(n), do: n

  for carrier <- carriers() do
    describe "over #{carrier}" do
      @describetag carrier: carrier

      setup %{carrier: carrier} do
        alice = start_realm("alice")
        bob = start_realm("bob")
        link(alice, bob, carrier)
        %{alice: alice, bob: bob}
      end

      test "the link has the carrier's profile and both ends know each other's key", context do
        profile = profile(context.carrier)
        alice_key = Legation.public_key(context.alice)
        assert [%{realm: "alice", profile: ^profile, role: :initiator, version: 1}] = Legation.connections(context.bob)
        assert [%{realm: "bob", profile: ^profile, role: :responder, version: 1}] = Legation.connections(context.alice)
        assert [%{state: :up, key: ^alice_key}] = Legation.peers(context.bob)
      end

      test "a call returns the engine's reply", %{alice: alice, bob: bob} do
        {_engine, proxy} = echo(alice, bob)

        for term <- [
              1,
              -1.5,
              "text",
              :atom,
              [],
              [1 | 2],
              %{"k" => {1, [nil]}},
              <<1::3>>,
              Bitwise.bsl(1, 200),
              ~c"latin",
              {}
            ] do
          assert GenServer.call(proxy, {:echo, term}) === term
        end

        big = :crypto.strong_rand_bytes(1_000_000)
        assert GenServer.call(proxy, {:echo, {big, [big]}}) == {big, [big]}
      end

      test "a cast arrives in handle_cast and a plain message in handle_info", %{alice: alice, bob: bob} do
        {_engine, proxy} = echo(alice, bob)
        GenServer.cast(proxy, {:hello, 1})
        assert_receive {:cast, {:hello, 1}}
        send(proxy, {:hello, 2})
        assert_receive {:info, {:hello, 2}}
      end

      test "a foreign engine and a local one are called by the same code", %{alice: alice, bob: bob} do
        {engine, proxy} = echo(alice, bob)

        for server <- [engine, proxy, via(alice, "echo"), via(alice, "echo@alice"), via(bob, "echo@alice")] do
          assert GenServer.call(server, {:echo, 1}) == 1
          assert :ok = GenServer.cast(server, :hello)
          assert_receive {:cast, :hello}
        end
      end

      test "there is one proxy per foreign engine, listed with realm, key, state and counters", %{
        alice: alice,
        bob: bob
      } do
        {engine, proxy} = echo(alice, bob)
        round_trip(proxy)
        GenServer.cast(proxy, :a)
        send(proxy, :b)
        round_trip(proxy)

        assert [%{name: "echo@alice", engine: "echo", realm: "alice", local: false, pid: ^proxy, state: :up} = info] =
                 Legation.engines(bob)

        assert info.counters == %{calls: 2, casts: 1, sends: 1, dropped: 0}
        assert [%{name: "echo@alice", local: true, pid: ^engine, state: :published, key: key}] = Legation.engines(alice)
        assert info.key == key and byte_size(key) == 32
      end

      test "an engine that is announced twice keeps its one proxy", %{alice: alice, bob: bob} do
        {engine, proxy} = echo(alice, bob)
        watch = watch(bob)
        :ok = Legation.publish("echo", engine, [version: 7], alice)
        # Announcements are in order, so the second one of echo has come when this one has.
        publish(alice, "other", engine, [bob])
        assert %{pid: other} = await(watch, {:engine_learned, "other@alice"})
        refute_received {:legation, _ref, {:engine_learned, "echo@alice", _info}}
        assert Legation.whereis("echo@alice", bob) == proxy
        assert other != proxy
        assert [%{version: 7}] = for(%{name: "echo@alice"} = info <- Legation.engines(bob), do: info)
      end

      test "an engine published later is learned at once, and reached by :via at once", %{alice: alice, bob: bob} do
        watch = watch(bob)
        assert Legation.whereis_name({bob, "late@alice"}) == :undefined
        {:ok, counter} = Counter.start_link(1)
        :ok = Legation.publish("late", counter, [], alice)
        await(watch, {:engine_learned, "late@alice"})
        assert GenServer.call(via(bob, "late@alice"), :get) == 1
        assert Legation.call("late@alice", :get, 5_000, bob) == 1
      end

      test "an engine that is withdrawn is forgotten", %{alice: alice, bob: bob} do
        {_engine, proxy} = echo(alice, bob)
        watch = watch(bob)
        monitor = monitor(proxy)
        :ok = Legation.withdraw("echo", alice)
        assert await(watch, {:engine_forgotten, "echo@alice"}) == :withdrawn
        assert_receive {:DOWN, ^monitor, :process, ^proxy, :noproc}
        assert Legation.whereis("echo@alice", bob) == nil
        assert Legation.engines(bob) == []
        assert {:noproc, _call} = catch_exit_of(fn -> GenServer.call(proxy, :get, :infinity) end)
        assert {:noproc, _call} = catch_exit_of(fn -> GenServer.call(via(bob, "echo@alice"), :get, :infinity) end)
      end

      for {how, reason, class, seen} <- [
            {"crashes", :oops, :crashed, {:remote_exit, :crashed}},
            {"is shut down", {:shutdown, :secret}, :shutdown, :shutdown},
            {"ends", :normal, :normal, :normal}
          ] do
        test "an engine that #{how} is forgotten, with its reason's class and no more", %{alice: alice, bob: bob} do
          {:ok, engine} = Echo.start(owner: nil)
          proxy = publish(alice, "mortal", engine, [bob])
          watch = watch(bob)
          monitor = Process.monitor(proxy)

          ExUnit.CaptureLog.capture_log(fn ->
            GenServer.cast(proxy, {:exit, unquote(Macro.escape(reason))})
            assert await(watch, {:engine_forgotten, "mortal@alice"}) == unquote(class)
          end)

          assert_receive {:DOWN, ^monitor, :process, ^proxy, unquote(Macro.escape(seen))}
          assert Legation.whereis("mortal@alice", bob) == nil
          assert {:noproc, _call} = catch_exit_of(fn -> GenServer.call(via(bob, "mortal@alice"), :get, :infinity) end)
        end
      end

      test "an engine that is killed is forgotten as killed", %{alice: alice, bob: bob} do
        {:ok, engine} = Echo.start(owner: nil)
        proxy = publish(alice, "mortal", engine, [bob])
        monitor = monitor(proxy)
        Process.exit(engine, :kill)
        assert_receive {:DOWN, ^monitor, :process, ^proxy, :killed}
      end

      test "a call to a name that nobody has exits at once", %{bob: bob} do
        for name <- ["nobody@alice", "nobody@nowhere", "nobody", ""] do
          assert {:noproc, {GenServer, :call, [_name, :get, :infinity]}} =
                   catch_exit_of(fn -> GenServer.call(via(bob, name), :get, :infinity) end)
        end

        assert Legation.cast("nobody@alice", :hello, bob) == {:error, :noproc}
        assert {:badarg, _message} = catch_exit_of(fn -> Legation.send({bob, "nobody@alice"}, :hello) end)
      end

      test "engines are looked up by name and listed", %{alice: alice, bob: bob} do
        {_engine, one} = echo(alice, bob, "one")
        {_engine, two} = echo(alice, bob, "two")
        assert Legation.whereis("one@alice", bob) == one
        assert Legation.whereis_name({bob, "two@alice"}) == two
        assert Legation.whereis("three@alice", bob) == nil
        assert ["one@alice", "two@alice"] = bob |> Legation.engines() |> Enum.map(& &1.name)
        assert [%{realm: "alice"}] = Legation.peers(bob)
        assert [%{realm: "alice", counters: %{}}] = Legation.connections(bob)
      end

      test "the engine can ask who calls, in a guard, too", %{alice: alice, bob: bob} do
        {_engine, proxy} = echo(alice, bob)
        bob_identity = Legation.Options.parse_key!(Legation.public_key(bob))
        # Not an engine: the realm itself.
        assert {:remote, %{realm: "bob", engine: "", key: ^bob_identity}} = GenServer.call(proxy, :who)
        assert GenServer.call(via(alice, "echo"), :who) == :local

        # Now it is one.
        publish(bob, "caller", self(), [alice])
        [%{key: key}] = for(%{name: "caller@bob"} = info <- Legation.engines(alice), do: info)
        assert {:remote, %{realm: "bob", engine: "caller", key: ^key}} = GenServer.call(proxy, :who)
        assert {:remote, %{engine: "caller"}} = GenServer.call(via(bob, "echo@alice"), :who)
      end

      test "the reply may come later, and from another process", %{alice: alice, bob: bob} do
        {_engine, proxy} = echo(alice, bob)
        assert GenServer.call(proxy, {:delegate, "from another"}) == "from another"

        call = async_call(proxy, {:hold, 1})
        assert_receive {:held, 1, from}
        # From this process, which is none of the engine's.
        GenServer.reply(from, "later")
        assert await_call(call) == {:reply, "later"}
      end

      test "a slow call does not delay a fast one", %{alice: alice, bob: bob} do
        {_engine, proxy} = echo(alice, bob)
        slow = async_call(proxy, {:hold, :slow})
        assert_receive {:held, :slow, _from}
        assert GenServer.call(proxy, {:echo, :fast}) == :fast
        # And so at another engine that is busy: this one does not get to its mailbox at all.
        {busy, busy_proxy} = echo(alice, bob, "busy")
        :sys.suspend(busy)
        waits = async_call(busy_proxy, {:echo, :waited})
        assert GenServer.call(proxy, {:echo, :fast}) == :fast
        :sys.resume(busy)
        assert await_call(waits) == {:reply, :waited}
        assert GenServer.call(proxy, {:release, :slow, :slow}) == :ok
        assert await_call(slow) == {:reply, :slow}
      end

      test "of a call that timed out nothing is left, whether its reply comes or not", %{alice: alice, bob: bob} do
        {_engine, proxy} = echo(alice, bob)
        assert {:timeout, _call} = catch_exit_of(fn -> GenServer.call(proxy, {:hold, 1}, 1) end)
        assert_receive {:held, 1, from}
        # A daemon is told at once that nobody waits any more.
        if transport(bob) == :embedded,
          do: assert(session_counter(bob, "alice", :calls_pending) == 1),
          else: until(session_counter(bob, "alice", :calls_pending) == 0)

        GenServer.reply(from, :late)
        # Replies come in order, so the late one has been here.
        round_trip(proxy)
        assert session_counter(bob, "alice", :calls_pending) == 0
        assert session_counter(alice, "bob", :calls_served) == 0
        refute_received {_tag, :late}
      end

      test "the order of one sender's calls, casts and messages to one engine is kept", %{alice: alice, bob: bob} do
        {:ok, engine} = Echo.start_link(owner: nil)
        proxy = publish(alice, "log", engine, [bob])
        name = via(bob, "log@alice")
        # As a published engine the sender signs some of these with its own key and some with the realm's.
        publish(bob, "sender", self(), [alice])

        expected =
          for n <- 1..2_000 do
            case :rand.uniform(7) do
              1 -> GenServer.cast(proxy, n) && {:cast, n}
              2 -> send(proxy, n) && {:info, n}
              3 -> GenServer.cast(name, n) && {:cast, n}
              4 -> Legation.send({bob, "log@alice"}, n) && {:info, n}
              5 -> Legation.cast("log@alice", n, bob) && {:cast, n}
              # Another way through the proxy: over the size that a normal scheduler hashes.
              6 -> send(proxy, {n, @large}) && {:info, n}
              7 -> GenServer.call(name, {:note, n}) && {:call, n}
            end
          end

        round_trip(name)
        log = for {kind, what} <- Enum.reverse(:sys.get_state(engine).log), do: {kind, number(what)}
        assert log == expected
      end
    end
  end
end
