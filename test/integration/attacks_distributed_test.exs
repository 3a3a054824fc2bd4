defmodule Legation.AttacksDistributedTest do
  # The victim is a node of its own, so that pids, references and names of nodes mean something to it, and its own are there to be forged.
  use Legation.AttackCase

  alias Legation.{TestTransport, TestVM}

  # It listens for no other node, so that no epmd is needed or left behind.
  @distributed ["-sname", "legation_victim", "-dist_listen", "false", "-setcookie", "nobody_knows"]

  setup do
    # Behind a daemon it is one that listens.
    vm = if TestTransport.daemons?(), do: TestVM.start!(), else: TestVM.start!(args: @distributed)
    node = TestVM.call(vm, :erlang, :node, [])
    assert TestVM.call(vm, :erlang, :is_alive, [])
    # There the limits of a name are others: an atom of ours must exist.
    options =
      realm_options("alice",
        listen: [tcp: [port: 0, ip: {127, 0, 0, 1}]],
        peers: [peer("mallory"), peer("bob")],
        # Mallory does as if there were no credit.
        limits: [grace_ms: 0, credit_bytes: 0]
      )

    {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [options])
    [%{address: [port: port]}] = TestVM.call(vm, Legation, :listeners, [options[:name]])
    engine = TestVM.here(vm, Victim, :publish_engine, [options[:name], "engine"])
    bob = start_realm("bob", peers: [peer("alice", connect: [tcp: [host: "127.0.0.1", port: port]])])
    await_engine(bob, "engine@alice")
    transport = TestVM.call(vm, Legation.Case, :transport, [options[:name]])
    %{vm: vm, node: node, transport: transport, name: options[:name], port: port, engine: engine, bob: bob}
  end

  defp attack(context, attack, opts \\ []) do
    defaults = [
      connect: context.port,
      profile: :tls,
      key: key_file("mallory"),
      network: network_key_file(),
      peer: public_key("alice"),
      engine: "engine",
      node: context.node
    ]

    Hostile.run(attack, Keyword.merge(defaults, opts))
  end

  # What must not change: atoms, and nodes that are known.
  defp known(%{vm: vm}) do
    %{
      nodes: vm |> TestVM.call(:erlang, :nodes, [:known]) |> Enum.sort(),
      atoms: TestVM.call(vm, :erlang, :system_info, [:atom_count])
    }
  end

  # Its counters, once mallory has gone there.
  defp counted(%{vm: vm, name: name} = context) do
    case TestVM.call(vm, Legation, :counters, [name]) do
      %{sessions: %{"mallory" => _still_there}} -> counted(context)
      %{ended: %{"mallory" => counted}} -> counted
      %{ended: _not_yet} -> counted(context)
    end
  end

  defp well(%{bob: bob, vm: vm}) do
    assert GenServer.call(via(bob, "engine@alice"), :hello) == :ok
    assert_receive {:vm, ^vm, {:told, {:call, :hello}}}
  end

  # Before anything is counted all code has to be loaded.
  defp warm_up(context) do
    {:ok, modules} = :application.get_key(:legation, :modules)
    :ok = TestVM.call(context.vm, :code, :ensure_modules_loaded, [modules])
    attacks = ["none", "call", "pids", "new-atoms", "disguised-sends", "reserved-targets"]
    for attack <- attacks, do: attack(context, attack, count: 10)
    attack(context, "call", engine: "an@other")
    sessions(context, 7)
    well(context)
    flush(context)
  end

  defp sessions(context, number), do: counted(context).sessions == number || sessions(context, number)

  defp flush(%{vm: vm} = context) do
    receive do
      {:vm, ^vm, {:told, _message}} -> flush(context)
    after
      0 -> :ok
    end
  end

  @tag rows: [70, 112, 114]
  test "pids, references and ports of its own node, and of one that nobody knows, are refused", context do
    warm_up(context)
    before = known(context)
    counted = counted(context)
    report = attack(context, "pids")
    calls = div(report["sent"], 3)
    assert %{"link" => "alive", "replies" => 0, "errors" => %{"identifiers" => ^calls}} = report
    sessions(context, 8)
    assert counted(context).identifiers - counted.identifiers == report["sent"]
    assert known(context) == before
    well(context)
    refute_received {:vm, _vm, {:told, _message}}
  end

  @tag rows: [69, 112]
  test "a hundred thousand new atoms make none", context do
    warm_up(context)
    before = known(context)
    report = attack(context, "new-atoms", count: 100_000)
    Victim.assert_no_atoms(report, 100_000, context.transport)
    sessions(context, 8)
    assert known(context) == before
    well(context)
    refute_received {:vm, _vm, {:told, _message}}
  end

  @tag rows: [66, 106, 107]
  test "nothing of the node itself is reached, by name or by a message in disguise", context do
    warm_up(context)
    before = known(context)
    status = TestVM.call(context.vm, :init, :get_status, [])
    report = attack(context, "reserved-targets")
    calls = div(report["sent"], 3)
    assert %{"link" => "alive", "errors" => %{"noproc" => ^calls}} = report
    assert %{"link" => "alive"} = attack(context, "disguised-sends")
    # An engine's name may look like a process. It is a name; and none has an "@".
    for name <- ["{init, node()}", "net_kernel", "<0.0.0>"],
        do: assert(%{"errors" => %{"noproc" => 1}} = attack(context, "call", engine: name))

    assert %{"link" => "closed:protocol", "replies" => 0} = attack(context, "call", engine: "init@#{context.node}")

    sessions(context, 13)
    assert known(context) == before
    assert TestVM.call(context.vm, :init, :get_status, []) == status
    well(context)
    refute_received {:vm, _vm, {:told, _message}}
  end
end
