defmodule Legation.ClusterTest do
  # Row 4, and as much of 23 as there is: a sender on a node without the library, clustered with one that has it. Three
  # systems: alice (this VM), bob's two nodes.
  use Legation.Case, async: true

  alias Legation.{TestCluster, TestVM}

  setup do
    alice = start_realm("alice", peers: [peer("bob")], listen: [listen_address(:tcp_tls)])
    [%{address: address}] = Legation.listeners(alice)
    dial = {:tcp, host: "127.0.0.1", port: address[:port]}

    cluster = TestCluster.start!()
    vm = TestVM.start!(TestCluster.vm_options(cluster, "bob"))
    {plain, node} = TestCluster.start_plain!(cluster, "plain")

    bob = realm_options("bob", name: Bob, global: true, peers: [peer("alice", connect: [dial])])
    {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [bob])
    %{alice: alice, vm: vm, plain: plain, node: node, options: bob, cluster: cluster, dial: dial}
  end

  defp join(%{vm: vm, plain: plain, node: node}) do
    assert TestVM.call(vm, :net_kernel, :connect_node, [node]) == true
    :ok = :peer.call(plain, :global, :sync, [])
  end

  defp learned(%{vm: vm}, name) do
    TestVM.here(vm, TestVM, :await_engine, [Bob, name])
    TestVM.call(vm, Legation.Case, :settle_global, [Bob])
  end

  test "a node without the library calls, casts and sends to a foreign engine by its global name", context do
    %{alice: alice, plain: plain} = context
    {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
    :ok = Legation.publish("echo", echo, [], alice)
    learned(context, "echo@alice")
    join(context)

    assert :peer.call(plain, :code, :which, [Legation]) == :non_existing
    assert :peer.call(plain, :code, :which, [Kernel]) == :non_existing
    name = {:global, "echo@alice"}
    assert :peer.call(plain, :gen_server, :call, [name, {:echo, [1, "two"]}]) == [1, "two"]
    :peer.call(plain, :gen_server, :cast, [name, {:hello, 1}])
    assert_receive {:cast, {:hello, 1}}
    :peer.call(plain, :global, :send, ["echo@alice", {:hello, 2}])
    assert_receive {:info, {:hello, 2}}
    # A daemon lets no node have atoms that it doesn't know already, and these it may not.
    :peer.call(plain, :erlang, :length, [[:remote, :realm, :engine, :key]])
    assert {:remote, %{realm: "bob", engine: ""}} = :peer.call(plain, :gen_server, :call, [name, :who])

    # By pid, over distribution.
    proxy = :peer.call(plain, :global, :whereis_name, ["echo@alice"])

    if TestVM.call(context.vm, Legation.Case, :transport, [Bob]) == :embedded,
      do: assert(node(proxy) == :"bob@127.0.0.1")

    assert :peer.call(plain, :gen_server, :call, [proxy, {:echo, 1}]) == 1
  end

  @tag :embedded
  test "a message to a process on a node without Elixir is asked after, and one that hangs holds up nobody else",
       context do
    %{alice: alice, plain: plain, vm: vm} = context
    join(context)
    pid = :peer.call(plain, :erlang, :spawn, [:timer, :sleep, [:infinity]])
    :ok = TestVM.call(vm, Legation, :publish, ["sleeper", pid, [], Bob])
    TestVM.here(vm, TestVM, :publish_echo, [Bob, "echo"])
    await_engine(alice, "sleeper@bob")
    echo = await_engine(alice, "echo@bob")
    received = [received: 30_000, instance: alice]
    assert Legation.cast("sleeper@bob", :hello, received) == :ok
    assert :peer.call(plain, :erlang, :process_info, [pid, :messages]) == {:messages, [{:"$gen_cast", :hello}]}

    os_pid = :peer.call(plain, :os, :getpid, []) |> to_string()
    {"", 0} = System.cmd("kill", ["-STOP", os_pid])
    # As many as are asked after at once, and one past that.
    casts = for n <- 1..65, do: Task.async(fn -> Legation.cast("sleeper@bob", n, received) end)
    answered = for {task, result} <- Task.yield_many(casts, 2_000), result != nil, do: {task, result}
    assert [{refused, {:ok, {:error, {:legation, :overload}}}}] = answered
    assert GenServer.call(echo, {:echo, 1}) == 1
    {"", 0} = System.cmd("kill", ["-CONT", os_pid])
    assert (casts -- [refused]) |> Task.await_many(30_000) |> Enum.uniq() == [:ok]

    :peer.call(plain, :erlang, :exit, [pid, :kill])
    # Whether it is found dead or forgotten already.
    assert {:error, _gone} = Legation.cast("sleeper@bob", :hello, received)
  end

  test "a name that comes, goes and comes again does so for the whole cluster", context do
    %{alice: alice, vm: vm, plain: plain} = context
    join(context)
    {:ok, counter} = Counter.start_link(1)
    :ok = Legation.publish("counter", counter, [], alice)
    learned(context, "counter@alice")
    assert :peer.call(plain, :gen_server, :call, [{:global, "counter@alice"}, :get]) == 1

    watch = TestVM.here(vm, Legation, :monitor_peers, [Bob])
    assert {:ok, _ref, _snapshot} = watch
    :ok = Legation.withdraw("counter", alice)
    assert_receive {:vm, ^vm, {:legation, _ref, {:engine_forgotten, "counter@alice", :withdrawn}}}
    TestVM.call(vm, Legation.Case, :settle_global, [Bob])
    assert {:noproc, _call} = catch_exit_of_plain(plain, [{:global, "counter@alice"}, :get, :infinity])

    :ok = Legation.publish("counter", counter, [], alice)
    assert_receive {:vm, ^vm, {:legation, _ref, {:engine_learned, "counter@alice", _info}}}
    TestVM.call(vm, Legation.Case, :settle_global, [Bob])
    assert :peer.call(plain, :gen_server, :call, [{:global, "counter@alice"}, :get]) == 1
  end

  test "an engine of ours on another node of the cluster is published by that node's pid", context do
    %{alice: alice, vm: vm, plain: plain} = context
    join(context)
    # Terms with other nodes' pids come through this VM unharmed, though it is no node.
    pid = :peer.call(plain, :erlang, :spawn, [:timer, :sleep, [:infinity]])
    :ok = TestVM.call(vm, Legation, :publish, ["far", pid, [], Bob])
    proxy = await_engine(alice, "far@bob")
    monitor = monitor(proxy)
    :peer.call(plain, :erlang, :exit, [pid, :kill])
    assert_receive {:DOWN, ^monitor, :process, ^proxy, :killed}
  end

  test "two nodes that learn of one engine and then meet keep one name; the other stands by, and takes over", context do
    %{alice: alice, vm: vm} = context
    {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
    :ok = Legation.publish("echo", echo, [], alice)
    learned(context, "echo@alice")

    :ok = Legation.connect(peer("dora"), alice)
    other = TestVM.start!(TestCluster.vm_options(context.cluster, "dora"))
    dora = realm_options("dora", name: Dora, global: true, peers: [peer("alice", connect: [context.dial])])
    {:ok, _pid} = TestVM.here(other, Legation, :start_link, [dora])
    TestVM.here(other, TestVM, :await_engine, [Dora, "echo@alice"])
    TestVM.call(other, Legation.Case, :settle_global, [Dora])

    instances = %{vm => Bob, other => Dora}

    proxies =
      for {vm, name} <- instances, into: %{}, do: {TestVM.call(vm, Legation, :whereis, ["echo@alice", name]), vm}

    assert TestVM.call(vm, :net_kernel, :connect_node, [TestVM.call(other, :erlang, :node, [])]) == true
    whereis = fn vm -> TestVM.call(vm, :global, :whereis_name, ["echo@alice"]) end
    held = fn vm -> TestVM.call(vm, Legation.GlobalNames, :info, [instances[vm]]) end
    one_holds = Enum.sort([%{held: 1, standby: 0}, %{held: 0, standby: 1}])
    until(whereis.(vm) == whereis.(other) and Enum.sort([held.(vm), held.(other)]) == one_holds)

    kept = whereis.(vm)
    winner = Map.fetch!(proxies, kept)
    [{mine, loser}] = Map.to_list(Map.delete(proxies, kept))
    # `:global` asks the node of a pid which of two is to stay. A daemon has no answer, and then the other one does.
    if Enum.all?([vm, other], &(transport_there(&1, instances) == :embedded)), do: assert(node(kept) < node(mine))
    # By :via each has its own.
    assert TestVM.call(loser, GenServer, :call, [via(instances[loser], "echo@alice"), {:echo, 1}]) == 1

    TestVM.kill(winner)
    until(whereis.(loser) == mine)
    assert TestVM.call(loser, GenServer, :call, [{:global, "echo@alice"}, {:echo, 1}]) == 1
  end

  defp transport_there(vm, instances), do: TestVM.call(vm, Legation.Case, :transport, [instances[vm]])

  @tag :c_node
  test "a node that the daemon reaches only after it has heard of a name gets it back", context do
    %{cluster: cluster, alice: alice} = context
    :ok = Legation.connect(peer("dora"), alice)
    {:ok, counter} = Counter.start_link(1)
    :ok = Legation.publish("counter", counter, [], alice)
    port = TestCluster.free_port()
    vm = TestVM.start!(TestCluster.vm_options(cluster, "dora"))
    # Nobody finds it, and it dials who isn't there yet.
    {:c_node, opts} = Legation.TestTransport.option_of(:c_node, "dora")
    transport = {:c_node, opts ++ [epmd: false, connect: [{"late@127.0.0.1", port}]]}

    dora =
      realm_options("dora",
        name: Dora,
        global: true,
        transport: transport,
        peers: [peer("alice", connect: [context.dial])]
      )

    {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [dora])
    TestVM.here(vm, TestVM, :await_engine, [Dora, "counter@alice"])
    TestVM.call(vm, Legation.Case, :settle_global, [Dora])

    range = ["-kernel", "inet_dist_listen_min", "#{port}", "-kernel", "inet_dist_listen_max", "#{port}"]
    {late, node} = TestCluster.start_plain!(cluster, "late", range)
    assert TestVM.call(vm, :net_kernel, :connect_node, [node]) == true
    # It may have it for a moment, before it has seen that it has no way there.
    until(called?(late, [{:global, "counter@alice"}, :get]))
    :peer.call(late, :global, :sync, [])
    assert :peer.call(late, :gen_server, :call, [{:global, "counter@alice"}, :get]) == 1
  end

  defp called?(plain, args) do
    :peer.call(plain, :gen_server, :call, args) == 1
  catch
    :exit, {:noproc, _call} -> false
  end

  defp catch_exit_of_plain(plain, args) do
    :peer.call(plain, :gen_server, :call, args)
    flunk("it returned")
  catch
    :exit, reason -> reason
  end
end
