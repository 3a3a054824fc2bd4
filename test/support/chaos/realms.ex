defmodule Legation.Chaos.Realms do
  @moduledoc """
  The two realms of a run: alice's nodes a1 and a2 in network A, bob's b1 and b2 in network B (`Legation.Networks`). The first of each has
  the instance, or starts the daemon; all four have engines and senders.
  """

  import Legation.Case, only: [peer: 2, realm_options: 2]

  alias Legation.{CNode, Networks, TestVM}
  alias Legation.Chaos.{Journal, Load}

  # As one would set them where links go often and an outage of three seconds is one.
  @limits [
    ping_ms: 250,
    connect_ms: 100,
    handshake_ms: 1_000,
    grace_ms: 3_000,
    reconnect_min_ms: 10,
    reconnect_max_ms: 100,
    knock_boot_ms: 0,
    failed_handshakes_per_s: 1_000
  ]
  @port 4_040
  @nodes ["a1", "a2", "b1", "b2"]

  # modes: side => :embedded | :c_node. dials: which sides. cables, links: how many. senders: of each node to each engine.
  # nodes: name => %{vm, life}.
  defstruct [
    :dir,
    :cookie,
    :journal,
    modes: %{},
    dials: [:a, :b],
    cables: 1,
    links: 1,
    senders: 2,
    nodes: %{},
    stopped: []
  ]

  def start(%__MODULE__{} = realms) do
    realms = %{
      realms
      | cookie: Base.encode16(:crypto.strong_rand_bytes(10)),
        journal: Journal.open(realms.dir, :chaos, "chaos", "chaos")
    }

    Enum.reduce(@nodes, realms, &start_node(&2, &1))
  end

  def nodes, do: @nodes

  @doc "Whom a signal can be sent to: nodes, and `NODE/daemon`."
  def victims(realms),
    do: @nodes ++ for(node <- ["a1", "b1"], realms.modes[side(node)] == :c_node, do: node <> "/daemon")

  @doc "`kill -9`. A daemon is started again by its node, a node by `start_node/2`."
  def kill(realms, victim) do
    Journal.write(realms.journal, "killed #{victim} #{Journal.now_us()}")

    case String.split(victim, "/") do
      [node] -> TestVM.kill(realms.nodes[node].vm)
      [_node, "daemon"] -> signal_daemon(realms, victim, "KILL")
    end

    realms
  end

  @doc "`kill -STOP`, and what undoes it."
  def stop(realms, victim) do
    case String.split(victim, "/") do
      [node] ->
        vm = realms.nodes[node].vm
        TestVM.signal(vm, "STOP")
        fn -> TestVM.signal(vm, "CONT") end

      [_node, "daemon"] ->
        os_pid = signal_daemon(realms, victim, "STOP")
        fn -> if os_pid, do: System.cmd("kill", ["-CONT", "#{os_pid}"], stderr_to_stdout: true) end
    end
  end

  # It may be between two of them.
  defp signal_daemon(realms, victim, name) do
    [node, _daemon] = String.split(victim, "/")
    os_pid = TestVM.call(realms.nodes[node].vm, CNode.Daemon, :os_pid, [instance(side(node))])
    if os_pid, do: System.cmd("kill", ["-#{name}", "#{os_pid}"], stderr_to_stdout: true)
    os_pid
  end

  @doc "A node, the first or the next of this name, with all that it has to do."
  def start_node(realms, node) do
    side = side(node)
    life = if realms.nodes[node], do: realms.nodes[node].life + 1, else: 1

    args = [
      "-name",
      node <> "@127.0.0.1",
      "-setcookie",
      realms.cookie,
      "-kernel",
      "inet_dist_use_interface",
      "{127,0,0,1}"
    ]

    # Six processes on a few cores have nothing to gain by spinning.
    args = args ++ ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]
    vm = TestVM.start!(netns: Networks.namespace(side), args: args)
    if first?(node), do: start_instance(vm, options(realms, side), 500)

    load = %Load{
      dir: realms.dir,
      node: node,
      life: life,
      instance: if(first?(node), do: instance(side)),
      door: if(not first?(node), do: :"#{first(side)}@127.0.0.1"),
      engines: engines(node),
      targets: targets(side),
      senders: realms.senders
    }

    :ok = TestVM.here(vm, Load, :start, [load])
    %{realms | nodes: Map.put(realms.nodes, node, %{vm: vm, life: life})}
  end

  # The daemon of a VM that was killed may have its port for a moment.
  defp start_instance(vm, options, tries) do
    case TestVM.here(vm, Legation, :start_link, [options]) do
      {:ok, _pid} -> :ok
      {:error, _in_use} when tries > 0 -> Load.pause(20, fn -> start_instance(vm, options, tries - 1) end)
    end
  end

  defp options(realms, side) do
    listen = for cable <- cables(realms), do: {:tcp, port: @port, ip: Networks.address(side, cable)}
    connect = for cable <- cables(realms), do: {:tcp, host: Networks.address(other(side), cable), port: @port}
    connect = if side in realms.dials, do: connect, else: []

    transport =
      if realms.modes[side] == :embedded, do: :embedded, else: {:c_node, node: "legation_#{realm(side)}@127.0.0.1"}

    realm_options(realm(side),
      name: instance(side),
      listen: listen,
      peers: [peer(realm(other(side)), connect: connect, links: realms.links)],
      global: true,
      atoms: [Load],
      transport: transport,
      limits: @limits
    )
  end

  def cables(realms), do: Enum.to_list(0..(realms.cables - 1))

  @doc "Waits until each realm reaches an engine of the other. Microseconds when, or why it doesn't."
  def settle(realms, patience_us) do
    deadline = Journal.now_us() + patience_us

    for side <- [:a, :b] do
      node = first(side)
      [target | _] = targets(side)
      TestVM.call(realms.nodes[node].vm, Load, :probe, [instance(side), target, deadline])
    end
    |> Enum.reduce({:ok, 0}, fn
      {:ok, at}, {:ok, latest} -> {:ok, max(at, latest)}
      {:error, why}, _before -> {:error, why}
      {:ok, _at}, error -> error
    end)
  end

  @doc "All stop: senders first, behind an answered call, then engines, and who watches them. `:ok`, or who has not."
  def finish(realms) do
    with :ok <- finish(realms, :stop_senders),
         :ok <- finish(realms, :stop_watchers) do
      Journal.write(realms.journal, "end")
    end
  end

  defp finish(realms, what) do
    count = Enum.sum(for node <- @nodes, do: TestVM.here(realms.nodes[node].vm, Load, what, []))
    if what == :stop_watchers, do: for(node <- @nodes, do: TestVM.here(realms.nodes[node].vm, Load, :stop_engines, []))
    vms = Map.new(realms.nodes, fn {node, %{vm: vm}} -> {vm, node} end)
    await_stopped(count, vms, what)
  end

  defp await_stopped(0, _vms, _what), do: :ok

  defp await_stopped(left, vms, what) do
    receive do
      {:vm, vm, {:stopped, _id}} when is_map_key(vms, vm) -> await_stopped(left - 1, vms, what)
    after
      60_000 -> {:error, {what, left}}
    end
  end

  defp side("a" <> _), do: :a
  defp side("b" <> _), do: :b
  defp other(:a), do: :b
  defp other(:b), do: :a
  defp first(side), do: "#{side}1"
  defp first?(node), do: String.ends_with?(node, "1")
  defp realm(:a), do: "alice"
  defp realm(:b), do: "bob"
  defp instance(:a), do: Legation.Chaos.Alice
  defp instance(:b), do: Legation.Chaos.Bob
  defp engines(node), do: ["#{node}-one", "#{node}-two"]
  # The first node's first.
  defp targets(side),
    do: for(number <- 1..2, name <- engines("#{other(side)}#{number}"), do: "#{name}@#{realm(other(side))}")
end
