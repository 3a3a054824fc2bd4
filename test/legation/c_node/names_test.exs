defmodule Legation.CNode.NamesTest do
  # Names of processes on a daemon's node, in a cluster. A hidden BEAM node stands for the daemon's: for `:global` there is no
  # difference.
  use ExUnit.Case, async: false

  import Legation.Case, only: [until: 1]

  alias Legation.{FakeDaemon, GlobalNames, TestCluster, TestVM}
  alias Legation.TestEngines.Counter

  @moduletag :capture_log

  setup do
    ExUnit.configure(assert_receive_timeout: 10_000)
    %{cluster: TestCluster.start!()}
  end

  defp start_vm(cluster, name, args \\ []) do
    [args: node_args, env: env] = TestCluster.vm_options(cluster, name)
    TestVM.start!(args: node_args ++ args, env: env)
  end

  defp hidden(cluster, name, args \\ []), do: start_vm(cluster, name, ["-hidden"] ++ args)

  # An instance whose foreign engines are said to be on another node.
  defp instance(vm, opts \\ []) do
    directory = Path.join(System.tmp_dir!(), "legation-names-#{System.pid()}-#{System.unique_integer([:positive])}")
    File.mkdir_p!(directory)
    # A daemon whose owner was killed may be writing there yet.
    on_exit(fn -> File.rm_rf(directory) end)
    opts = [realm: "bob", name: Bob, global: true] ++ opts
    {:ok, _pid} = TestVM.here(vm, FakeDaemon, :start_instance_there, [opts, FakeDaemon.program(directory)])
  end

  defp node_of(vm), do: TestVM.call(vm, :erlang, :node, [])
  defp connect(vm, other), do: assert(TestVM.call(vm, :net_kernel, :connect_node, [other]) == true)
  defp whereis(vm, name), do: TestVM.call(vm, :global, :whereis_name, [name])

  # Two nodes, each with a daemon on which an echo of alice's is, under the same name. Returns each with its daemon and echo.
  defp not_yet_met(cluster) do
    for name <- ["one", "two"] do
      vm = start_vm(cluster, name)
      daemon = hidden(cluster, "daemon_#{name}")
      echo = TestVM.here(daemon, TestVM, :start_echo, [])
      connect(daemon, node_of(vm))
      instance(vm)
      learned(vm, "echo@alice", echo)
      {vm, daemon, echo}
    end
  end

  defp learned(vm, name, pid) do
    TestVM.call(vm, GlobalNames, :learned, [Bob, name, pid])
    TestVM.call(vm, GlobalNames, :info, [Bob])
  end

  defp sync(vm), do: TestVM.call(vm, :global, :sync, [])

  test "a name comes back on a node that had no way to the daemon when it came", %{cluster: cluster} do
    bob = start_vm(cluster, "bob")
    {plain, plain_node} = TestCluster.start_plain!(cluster, "plain")
    # Nobody can dial it.
    daemon = hidden(cluster, "daemon", ["-dist_listen", "false"])
    counter = TestVM.here(daemon, TestVM, :start_child, [Counter, 1])
    connect(daemon, node_of(bob))
    connect(bob, plain_node)
    sync(bob)
    instance(bob)

    learned(bob, "counter@alice", counter)
    assert whereis(bob, "counter@alice") == counter
    until(:peer.call(plain, :global, :whereis_name, ["counter@alice"]) == :undefined)

    # The daemon dials that one, too, and says so.
    connect(daemon, plain_node)
    TestVM.call(bob, GlobalNames, :register_again, [Bob])
    until(:peer.call(plain, :global, :whereis_name, ["counter@alice"]) == counter)
    assert :peer.call(plain, :gen_server, :call, [{:global, "counter@alice"}, :get]) == 1
  end

  test "names are there for a node that joins later, without the library on it", %{cluster: cluster} do
    bob = start_vm(cluster, "bob")
    daemon = hidden(cluster, "daemon")
    counter = TestVM.here(daemon, TestVM, :start_child, [Counter, 1])
    connect(daemon, node_of(bob))
    instance(bob)
    learned(bob, "counter@alice", counter)

    {plain, plain_node} = TestCluster.start_plain!(cluster, "plain")
    connect(bob, plain_node)
    until(:peer.call(plain, :global, :whereis_name, ["counter@alice"]) == counter)
    assert :peer.call(plain, :gen_server, :call, [{:global, "counter@alice"}, :get]) == 1
    TestVM.call(bob, GlobalNames, :drop, [Bob, "counter@alice", counter])
    until(:peer.call(plain, :global, :whereis_name, ["counter@alice"]) == :undefined)
  end

  test "two nodes that meet keep one name, and the loser's daemon is told by a message", %{cluster: cluster} do
    [{one, one_daemon, one_echo}, {two, two_daemon, two_echo}] = not_yet_met(cluster)

    connect(one, node_of(two))
    # The lower node's stays: daemon_one.
    assert_receive {:vm, ^two_daemon, {:info, {:global_name_conflict, "echo@alice", ^one_echo}}}
    until(whereis(two, "echo@alice") == one_echo)
    assert whereis(one, "echo@alice") == one_echo
    refute_received {:vm, ^one_daemon, {:info, _message}}

    # Which its daemon hands on. Ours stands by, and takes over when theirs goes.
    TestVM.call(two, GlobalNames, :lost, [Bob, "echo@alice", one_echo])
    until(TestVM.call(two, GlobalNames, :info, [Bob]) == %{held: 0, standby: 1})
    TestVM.call(one, GlobalNames, :drop, [Bob, "echo@alice", one_echo])
    TestVM.kill(one_daemon)
    until(whereis(two, "echo@alice") == two_echo)
    until(whereis(one, "echo@alice") == two_echo)
  end

  test "one that nobody has told of its loss finds out when it registers again", %{cluster: cluster} do
    [{one, _one_daemon, one_echo}, {two, _two_daemon, _two_echo}] = not_yet_met(cluster)

    connect(one, node_of(two))
    until(TestVM.call(two, GlobalNames, :info, [Bob]) == %{held: 0, standby: 1})
    assert whereis(two, "echo@alice") == one_echo
  end

  test "one that was registered again just when the nodes met gives the name back", %{cluster: cluster} do
    [{one, _one_daemon, one_echo}, {two, _two_daemon, two_echo}] = not_yet_met(cluster)

    connect(one, node_of(two))
    until(whereis(two, "echo@alice") == one_echo)
    until(TestVM.call(two, GlobalNames, :info, [Bob]) == %{held: 0, standby: 1})
    # As it is when that comes a moment later than the question who has the name.
    TestVM.call(two, GlobalNames, :drop, [Bob, "echo@alice", two_echo])
    assert TestVM.call(two, :global, :re_register_name, ["echo@alice", two_echo]) == :yes
    learned(two, "echo@alice", two_echo)
    until(TestVM.call(two, GlobalNames, :info, [Bob]) == %{held: 1, standby: 0})
    TestVM.call(two, GlobalNames, :lost, [Bob, "echo@alice", one_echo])
    until(TestVM.call(two, GlobalNames, :info, [Bob]) == %{held: 0, standby: 1})
    for vm <- [one, two], do: until(whereis(vm, "echo@alice") == one_echo)
  end

  test "an imported local name is a process here, and ends as the engine's does", %{cluster: cluster} do
    bob = start_vm(cluster, "bob")
    daemon = hidden(cluster, "daemon")
    counter = TestVM.here(daemon, TestVM, :start_child, [Counter, 1])
    connect(daemon, node_of(bob))
    instance(bob, import: [{"counter@alice", as: :imported_counter}])
    learned(bob, "counter@alice", counter)

    assert TestVM.call(bob, GenServer, :call, [:imported_counter, :get]) == 1
    assert TestVM.call(bob, GenServer, :multi_call, [:imported_counter, {:add, 1}]) == {[{node_of(bob), 2}], []}
    assert TestVM.call(bob, GenServer, :abcast, [:imported_counter, {:add, 5}]) == :abcast
    assert TestVM.call(bob, GenServer, :call, [:imported_counter, :get]) == 7
    local = TestVM.call(bob, Process, :whereis, [:imported_counter])
    assert TestVM.call(bob, TestVM, :kill_and_see, [counter, local]) == :killed

    # Another process of the engine's takes the name at once.
    other = TestVM.here(daemon, TestVM, :start_child, [Counter, 9])
    learned(bob, "counter@alice", other)
    assert TestVM.call(bob, GenServer, :call, [:imported_counter, :get]) == 9
    third = TestVM.here(daemon, TestVM, :start_child, [Counter, 10])
    TestVM.call(bob, GlobalNames, :drop, [Bob, "counter@alice", other])
    learned(bob, "counter@alice", third)
    assert TestVM.call(bob, GenServer, :call, [:imported_counter, :get]) == 10
    assert TestVM.call(bob, Legation, :counters, [Bob]).global_names_taken == 0
  end
end
