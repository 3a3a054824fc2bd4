defmodule Legation.TakeoverTest do
  # Row 23: one realm on two nodes of a cluster, each with a transport. One has the link; when it is killed the other has it. Bob
  # knows both addresses, and is in this VM.
  use Legation.Case, async: true

  alias Legation.{TestCluster, TestVM}

  test "when the node that has the link is killed the other takes over, with the same names" do
    cluster = TestCluster.start!()
    {plain, _node} = TestCluster.start_plain!(cluster, "plain")
    [one, two] = nodes = for name <- ["one", "two"], do: start_alice(cluster, name)
    for %{node: node} <- nodes, do: true = :peer.call(plain, :net_kernel, :connect_node, [node])

    bob = start_realm("bob")
    {:ok, echo} = Echo.start_link(owner: self(), instance: bob)
    publish(bob, "echo", echo)
    watch = watch(bob)
    :ok = Legation.connect(peer("alice", connect: Enum.map(nodes, & &1.address)), bob)
    await(watch, {:engine_learned, "counter@alice"})
    assert GenServer.call(via(bob, "counter@alice"), :get) < 20

    # A node of alice's that has no library reaches bob by whoever has the link.
    learned(one)
    until(echoes?(plain, 1))

    assert TestVM.kill(one.vm) == 128 + 9
    await(watch, {:engine_learned, "counter@alice"})
    # It counts messages, too, and `:global` may have told it of the other.
    assert GenServer.call(via(bob, "counter@alice"), :get) >= 20
    learned(two)
    # It stands by until `:global` has noticed that the other node is gone.
    until(echoes?(plain, 2))
    assert [%{realm: "alice"}] = Legation.connections(bob)
  end

  # What the counter holds tells which of the nodes it is on.
  defp start_alice(cluster, name) do
    vm = TestVM.start!(TestCluster.vm_options(cluster, name))

    options =
      realm_options("alice", name: Alice, global: true, listen: [listen_address(:tcp_tls)], peers: [peer("bob")])

    {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [options])
    [%{address: bound}] = TestVM.call(vm, Legation, :listeners, [Alice])
    number = if name == "one", do: 1, else: 20
    TestVM.here(vm, TestVM, :publish_engine, [Alice, "counter", Counter, number])
    %{vm: vm, node: :"#{name}@127.0.0.1", address: dial_address(listen_address(:tcp_tls), bound)}
  end

  # :global tells other nodes in its own time, and nobody when it has.
  defp echoes?(plain, number) do
    :peer.call(plain, :gen_server, :call, [{:global, "echo@bob"}, {:echo, number}]) == number
  catch
    :exit, {reason, _call} when reason != :timeout -> false
  end

  defp learned(%{vm: vm}) do
    TestVM.here(vm, TestVM, :await_engine, [Alice, "echo@bob"])
    TestVM.call(vm, Legation.Case, :settle_global, [Alice])
  end
end
