defmodule Legation.NetnsScenarios do
  # Rows 32-35, 51, 118: two systems on two networks. Run by test/netns/run, in the network namespace of bob's.
  #
  # What is done to the network is done to it by the kernel, so nobody is told: neither end gets a FIN or a RST.
  use Legation.Case, async: false

  alias Legation.{Networks, TestVM}

  @moduletag timeout: 60_000

  # Short enough for a test, and the grace longer than any of them.
  @limits [ping_ms: 200, handshake_ms: 1_000, grace_ms: 30_000, reconnect_max_ms: 50]
  @a "10.77.0.1"
  @b "10.77.0.2"

  ## The network

  defp cable(state), do: Networks.cable(0, state, [:a])
  defp deafen(side), do: Networks.deafen(side, 0)
  defp hear(side), do: Networks.hear(side, 0)
  defp namespace(side), do: Networks.namespace(side)

  setup do
    on_exit(fn -> Networks.mend(0) end)
  end

  ## The realms

  # `dials`: which of the two.
  defp pair(dials) do
    vm = TestVM.start!(netns: namespace(:b))
    {bob_listens, alice_listens} = if dials == :bob, do: {[], [listen(@b)]}, else: {[listen(@a)], []}
    bob = start_realm("bob", listen: bob_listens, limits: @limits)
    pair = %{vm: vm, bob: bob, dials: dials, listens: alice_listens, watch: watch(bob)}
    if dials == :alice, do: :ok = Legation.connect(peer("alice"), bob)
    pair = start_alice(pair)
    await_engine(bob, "echo@alice")
    pair
  end

  defp listen(address) do
    {:ok, ip} = address |> String.to_charlist() |> :inet.parse_address()
    {:tcp, port: 0, ip: ip}
  end

  defp start_alice(%{vm: vm} = pair) do
    peers =
      if pair.dials == :alice do
        [%{address: address}] = Legation.listeners(pair.bob)
        [peer("bob", connect: [tcp: [host: @a, port: address[:port]]])]
      else
        [peer("bob")]
      end

    options =
      realm_options("alice", name: Alice, listen: pair.listens, peers: peers, limits: [knock_boot_ms: 0] ++ @limits)

    {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [options])
    TestVM.here(vm, TestVM, :publish_echo, [Alice, "echo"])

    if pair.dials == :bob do
      [%{address: address}] = TestVM.call(vm, Legation, :listeners, [Alice])
      connect = [tcp: [host: @b, port: address[:port]]]

      case Legation.connect(peer("alice", connect: connect), pair.bob) do
        :ok ->
          :ok

        {:error, {:already_connected, "alice"}} ->
          :ok = Legation.disconnect("alice", pair.bob)
          :ok = Legation.connect(peer("alice", connect: connect), pair.bob)
      end
    end

    pair
  end

  defp echo(pair), do: via(pair.bob, "echo@alice")
  defp casts(pair, numbers), do: for(n <- numbers, do: :ok = GenServer.cast(echo(pair), n))

  # What the engine has got, behind a call that is behind all of it.
  defp log(pair) do
    assert GenServer.call(echo(pair), {:echo, 1}, 30_000) == 1
    %{log: log} = TestVM.call(pair.vm, :sys, :get_state, [via(Alice, "echo")])
    Enum.reverse(log)
  end

  defp hold(%{vm: vm} = pair) do
    call = async_call(echo(pair), {:hold, 1})
    assert_receive {:vm, ^vm, {:held, 1, from}}, 10_000
    {call, from}
  end

  # A hundred casts, a call in flight and one that is made in between: whatever is done to the network and mended within the grace, each
  # arrives, once and in order, and bob's proxy is the same.
  defp survives(pair, break, mend) do
    proxy = Legation.whereis("echo@alice", pair.bob)
    monitor = monitor(proxy)
    {held, from} = hold(pair)
    casts(pair, 1..50)
    break.()
    casts(pair, 51..75)
    await(pair.watch, {:peer_lost, "alice"})
    casts(pair, 76..100)
    made = async_call(echo(pair), {:note, 1})
    mend.()
    await(pair.watch, {:peer_resumed, "alice"})
    assert await_call(made) == {:reply, :ok}
    log = log(pair)
    assert for({:cast, n} <- log, do: n) == Enum.to_list(1..100)
    assert for({:call, note} <- log, do: note) == [1]
    TestVM.call(pair.vm, GenServer, :reply, [from, :ok])
    assert await_call(held) == {:reply, :ok}
    refute_received {:DOWN, ^monitor, :process, _pid, _reason}
    assert Legation.whereis("echo@alice", pair.bob) == proxy
    # What came twice was passed over: nothing was dropped for it at either end.
    for counters <- [Legation.counters(pair.bob), TestVM.call(pair.vm, Legation, :counters, [Alice])],
        name <- [:dropped_noproc, :dropped_overload, :dropped_ended],
        do: assert({name, counters[name]} == {name, 0})
  end

  for dials <- [:bob, :alice] do
    describe "#{dials} dials:" do
      setup do: %{pair: pair(unquote(dials))}

      test "a cable that is down for longer than the heartbeat loses nothing", %{pair: pair} do
        survives(pair, fn -> cable(:down) end, fn -> cable(:up) end)
      end

      test "a network that loses what bob sends, and nothing else", %{pair: pair} do
        survives(pair, fn -> deafen(:a) end, fn -> hear(:a) end)
      end

      test "a network that loses what alice sends, and nothing else", %{pair: pair} do
        survives(pair, fn -> deafen(:b) end, fn -> hear(:b) end)
      end

      test "alice hangs (SIGSTOP) and goes on", %{pair: pair} do
        signal = signaller(pair)
        survives(pair, fn -> signal.("STOP") end, fn -> signal.("CONT") end)
      end

      test "a short outage that TCP repairs is none", %{pair: pair} do
        casts(pair, 1..50)
        cable(:down)
        casts(pair, 51..100)
        cable(:up)
        assert for({:cast, n} <- log(pair), do: n) == Enum.to_list(1..100)
        refute_received {:legation, _ref, {:peer_down, _realm, _reason}}
      end

      test "alice is killed (SIGKILL) and started again: calls end, nothing comes twice or late", %{pair: pair} do
        proxy = Legation.whereis("echo@alice", pair.bob)
        monitor = monitor(proxy)
        {held, _from} = hold(pair)
        casts(pair, 1..50)
        assert length(log(pair)) == 50
        # A daemon that outlived its VM for a moment would say that the engine has crashed.
        if daemon = daemon(pair), do: kill(daemon, "KILL")
        TestVM.kill(pair.vm)
        casts_by_pid = for n <- 51..100, do: GenServer.cast(proxy, n)
        assert Enum.uniq(casts_by_pid) == [:ok]
        pair = start_alice(%{pair | vm: TestVM.start!(netns: namespace(:b))})
        assert {:exit, {_lost, _call}} = await_call(held)
        assert_receive {:DOWN, ^monitor, :process, ^proxy, :noconnection}, 20_000
        await(pair.watch, {:peer_down, "alice"})
        await_engine(pair.bob, "echo@alice")
        casts(pair, 101..110)
        numbers = for {:cast, n} <- log(pair), do: n
        # Those of before were another process's; of the ones in between nobody knows, but in order, and once.
        assert numbers == Enum.sort(Enum.uniq(numbers))
        assert Enum.all?(numbers, &(&1 > 50))
        assert Enum.take(numbers, -10) == Enum.to_list(101..110)
      end

      @tag :c_node
      test "alice's daemon is killed (SIGKILL), and another takes its place", %{pair: pair} do
        monitor = monitor(Legation.whereis("echo@alice", pair.bob))
        {held, _from} = hold(pair)
        casts(pair, 1..50)
        assert length(log(pair)) == 50
        kill(daemon(pair), "KILL")
        assert {:exit, {_lost, _call}} = await_call(held)
        assert_receive {:DOWN, ^monitor, :process, _pid, :noconnection}, 20_000
        await(pair.watch, {:peer_down, "alice"})
        await_engine(pair.bob, "echo@alice")
        # The same process, which has had each of them.
        casts(pair, 51..60)
        assert for({:cast, n} <- log(pair), do: n) == Enum.to_list(1..60)
      end
    end
  end

  # To the daemon, or the VM where there is none; known before it hangs.
  defp signaller(pair) do
    case daemon(pair) do
      nil -> fn name -> TestVM.signal(pair.vm, name) end
      pid -> fn name -> kill(pid, name) end
    end
  end

  defp kill(pid, signal), do: {"", 0} = System.cmd("kill", ["-" <> signal, Integer.to_string(pid)])

  defp daemon(pair) do
    if Legation.TestTransport.daemons?(), do: TestVM.call(pair.vm, Legation.CNode.Daemon, :os_pid, [Alice])
  end
end
