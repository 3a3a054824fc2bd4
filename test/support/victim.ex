defmodule Legation.Victim.Engine do
  @moduledoc "Takes whatever comes, tells its owner, and replies `:ok` to calls: an attack can't make it crash."
  use GenServer

  def start_link(owner), do: GenServer.start_link(__MODULE__, owner)

  # Exit signals are messages as well, but for the one that is none.
  @impl true
  def init(owner) do
    Process.flag(:trap_exit, true)
    {:ok, owner}
  end

  @impl true
  def handle_call(request, _from, owner), do: {:reply, :ok, tell(owner, {:call, request})}
  @impl true
  def handle_cast(message, owner), do: {:noreply, tell(owner, {:cast, message})}
  @impl true
  def handle_info(message, owner), do: {:noreply, tell(owner, {:info, message})}

  defp tell(owner, told) do
    send(owner, {:told, told})
    owner
  end
end

defmodule Legation.Victim do
  @moduledoc """
  Alice, who is attacked: an instance in the test's VM with ordinary engines, a listener for each profile, an honest peer
  (bob, in the same VM) and a listed one that turns hostile (mallory, the program of `Legation.Hostile`).

      victim = Victim.start()
      report = Victim.attack(victim, "tampered-batch", profile: :tls)
      Victim.counted(victim)            what mallory's sessions have counted, now that they are over
      Victim.assert_well(victim)
  """

  import ExUnit.Assertions
  import Legation.AttackCase
  import Legation.Case

  alias Legation.{Hostile, Neighbours}
  alias Legation.TestEngines.Counter
  alias Legation.Victim.Engine

  defstruct [:alice, :bob, :listeners, :ports, :path, :engine, :watch, :neighbours, :before]

  @doc """
  Engines: `"engine"`, which tells the test what it gets (see `told/0`), `"count"`, and `"private"`, which mallory may not
  have. Options:

    * `:limits` - alice's; without grace, unless they say so
    * `:mallory` - what stands in alice's options for mallory (default `export: ["engine", "count"]`)
    * `:alice` - more of alice's options
    * `:neighbours` - whether bob calls and casts all the time (default `true`); see `Legation.Neighbours`
  """
  def start(opts \\ []) do
    # Whoever attacks doesn't come back to a session: what its end brings is looked at.
    limits = Keyword.merge([grace_ms: 0], Keyword.get(opts, :limits, []))
    alice = start_realm("alice", [limits: limits] ++ Keyword.get(opts, :alice, []))
    path = socket_path()
    ports = for profile <- [:tls, :plain], into: %{}, do: {profile, listen_tcp(alice, profile)}
    {:ok, _info} = Legation.add_listener({:unix, path: path}, alice)

    :ok = Legation.connect(peer("mallory", Keyword.get(opts, :mallory, export: ["engine", "count"])), alice)
    {:ok, engine} = Engine.start_link(self())
    {:ok, count} = Counter.start_link(0)
    {:ok, private} = Engine.start_link(self())
    publish(alice, "engine", engine)
    publish(alice, "count", count)
    publish(alice, "private", private)

    bob = start_realm("bob")
    :ok = Legation.connect(peer("bob"), alice)
    watch = watch(bob)
    :ok = Legation.connect(peer("alice", connect: [{:tcp, host: "127.0.0.1", port: ports.tls}]), bob)
    await_up(watch, "alice")
    unwatch(watch)
    await_engines(bob)
    neighbours = if Keyword.get(opts, :neighbours, true), do: Neighbours.start(alice, bob)

    %__MODULE__{
      alice: alice,
      bob: bob,
      listeners: listeners(alice),
      ports: ports,
      path: path,
      engine: engine,
      watch: watch(alice),
      neighbours: neighbours,
      before: resources(alice)
    }
  end

  # At the beginning of a session they come in any order.
  defp await_engines(bob), do: for(name <- ["engine", "count", "private"], do: await_engine(bob, name <> "@alice"))

  @doc "An engine at an instance; its owner is who calls this. For `Legation.TestVM.here/4`."
  def publish_engine(instance, name) do
    {:ok, engine} = Engine.start_link(self())
    :ok = Legation.publish(name, engine, [], instance)
    engine
  end

  defp listen_tcp(alice, profile) do
    {:ok, %{address: [port: port]}} =
      Legation.add_listener({:tcp, port: 0, ip: {127, 0, 0, 1}, profile: profile}, alice)

    port
  end

  @doc "Mallory, or who `key:` says, attacks over `profile:` (default `:tls`). Returns what the program has printed."
  def attack(victim, attack, opts \\ []) do
    begun(victim)
    tried(Hostile.run(attack, hostile_options(victim, opts)))
  end

  @doc "The same for attacks that last until `Legation.Hostile.release/1`."
  def hold(victim, attack, opts \\ []) do
    begun(victim)
    Hostile.hold(attack, hostile_options(victim, opts))
  end

  defp hostile_options(victim, opts) do
    {profile, opts} = Keyword.pop(opts, :profile, :tls)
    {realm, opts} = Keyword.pop(opts, :realm, "mallory")
    address = if profile == :local, do: [unix: victim.path], else: [connect: victim.ports[profile]]

    defaults = [
      profile: profile,
      key: key_file(realm),
      network: network_key_file(),
      peer: public_key("alice"),
      engine: "engine"
    ]

    address ++ Keyword.merge(defaults, opts)
  end

  defp begun(%{neighbours: nil}), do: :ok
  defp begun(%{neighbours: neighbours}), do: Neighbours.attacked(neighbours)

  @doc """
  What comes of `count` messages with new atoms, half of them calls, at an instance of this transport. A daemon asks the node
  about atoms, and meanwhile holds no more messages than it may; what it has not refused yet is not in the report.
  """
  def assert_no_atoms(report, count, :embedded) do
    calls = div(count, 2)
    assert %{"link" => "alive", "sent" => ^count, "replies" => 0, "errors" => %{"undecodable" => ^calls}} = report
  end

  def assert_no_atoms(report, count, :c_node) do
    assert %{"link" => "alive", "sent" => ^count, "replies" => 0, "errors" => errors} = report
    assert Map.keys(errors) -- ["overload", "undecodable"] == []
    assert errors["undecodable"] > 0
  end

  @doc "Waits until mallory's session is over; what she has made alice count, in all of them."
  def counted(victim) do
    await(victim.watch, {:peer_down, "mallory"})
    Legation.counters(victim.alice).ended["mallory"]
  end

  @doc """
  Nobody has suffered: all that bob has sent was delivered, once, in order and as it was; he still works, on his old link and on a new one; no
  listener has gone, and what there was of files, sockets, nodes and memory is as it was; but for `:held`, connections that the test holds itself.
  """
  def assert_well(%{alice: alice, bob: bob} = victim, opts \\ []) do
    if victim.neighbours, do: assert_undisturbed(victim, opts)
    name = via(bob, "count@alice")
    before = GenServer.call(name, :get)
    assert GenServer.call(name, {:add, 1}) == before + 1

    :ok = Legation.disconnect("alice", bob)
    watch = watch(bob)
    :ok = Legation.connect("alice", bob)
    await_up(watch, "alice")
    unwatch(watch)
    await_engines(bob)
    assert GenServer.call(name, {:add, 1}) == before + 2
    assert listeners(alice) == victim.listeners

    if victim.neighbours do
      await_engine(bob, "ledger@alice")
      Neighbours.go_on(victim.neighbours)
    end
  end

  # How much more memory anything may have taken while it went on.
  @memory_bytes 64 * 1024 * 1024

  defp assert_undisturbed(%{alice: alice, before: before} = victim, opts) do
    figures = Neighbours.pause(victim.neighbours)
    bound = Keyword.get(opts, :memory_bytes, @memory_bytes)
    assert figures.memory - before.memory < bound, "the VM has taken #{figures.memory - before.memory} bytes"
    # Those of earlier tests may be forgotten meanwhile.
    assert Node.list(:known) -- before.nodes == []

    if transport(alice) == :c_node do
      assert peak_bytes(daemon_pid(alice)) - before.daemon_bytes < bound
      until(files(daemon_pid(alice)) <= before.files + Keyword.get(opts, :held, 0))
    end

    report(transport(alice), figures, refused(alice))
  end

  @doc "What an attack must leave as it was."
  def resources(alice) do
    resources = %{memory: :erlang.memory(:total), nodes: Node.list(:known)}

    case transport(alice) do
      :embedded ->
        resources

      :c_node ->
        pid = daemon_pid(alice)
        Map.merge(resources, %{files: files(pid), daemon_bytes: peak_bytes(pid)})
    end
  end

  # Of a process of the operating system: files and sockets that are open, the most memory that it has had.
  defp files(pid), do: length(File.ls!("/proc/#{pid}/fd"))

  defp peak_bytes(pid) do
    [_, kib] = Regex.run(~r/VmHWM:\s+(\d+) kB/, File.read!("/proc/#{pid}/status"))
    String.to_integer(kib) * 1024
  end

  @refusals_of_instance [
    :dropped_noproc,
    :dropped_forbidden,
    :dropped_filtered,
    :dropped_undecodable,
    :dropped_overload,
    :calls_refused,
    :connections_evicted,
    :connections_refused,
    :handshakes_refused,
    :handshakes_failed,
    :exits_refused
  ]
  @refusals_of_session [
    :bad_signature,
    :stale_session,
    :duplicate,
    :bad_announcement,
    :stale_announcement,
    :engines_over_limit,
    :mode_refused,
    :not_delegated,
    :disguised,
    :identifiers,
    :bad_term,
    :too_large,
    :credit_exceeded,
    :unknown_kind,
    :unknown_handle,
    :skipped_frames,
    :late_reply
  ]

  @doc "How much of what mallory and others did has been refused and counted."
  def refused(alice) do
    counters = Legation.counters(alice)
    sum = fn counted, names -> counted |> Map.take(names) |> Map.values() |> Enum.sum() end
    sum.(counters, @refusals_of_instance) + sum.(counters.ended["mallory"] || %{}, @refusals_of_session)
  end

  # The same ones, and where they are processes of ours the same processes.
  defp listeners(alice) do
    case transport(alice) do
      :embedded -> alice |> Legation.ListenerSupervisor.listeners() |> Enum.sort()
      :c_node -> alice |> Legation.listeners() |> Enum.map(&{&1.id, &1.address}) |> Enum.sort()
    end
  end

  @doc "What alice's engines have got and not yet been asked for, in order: `{:call | :cast | :info, term}`."
  def told(%{engine: engine}) do
    # All that was sent to it before is in its past then.
    :sys.get_state(engine)
    drain([])
  end

  defp drain(told) do
    receive do
      {:told, message} -> drain([message | told])
    after
      0 -> Enum.reverse(told)
    end
  end

  @doc "For `Legation.RawClient`: where alice listens and who knocks, mallory unless `realm:` says another."
  def raw(victim, profile, opts \\ []) do
    begun(victim)
    {realm, opts} = Keyword.pop(opts, :realm, "mallory")
    address = if profile == :local, do: [unix: victim.path], else: [port: victim.ports[profile]]

    [profile: profile, key: key_file(realm), network: network_key_file(), peer: public_key("alice")]
    |> Keyword.merge(address)
    |> Keyword.merge(opts)
  end

  @doc "What there is in this VM now, for `assert_nothing_left/1`."
  def snapshot, do: %{processes: Process.list(), ports: Port.list(), tables: :ets.all()}

  @doc "All processes, ports and tables that came after the snapshot go, and need no more than the time of a handshake for it."
  def assert_nothing_left(snapshot) do
    for pid <- Process.list() -- snapshot.processes do
      monitor = Process.monitor(pid)
      assert_receive {:DOWN, ^monitor, :process, ^pid, _reason}, 10_000, inspect(Process.info(pid))
    end

    for port <- Port.list() -- snapshot.ports, monitor = Port.monitor(port) do
      assert_receive {:DOWN, ^monitor, :port, ^port, _reason}, 10_000
    end

    assert :ets.all() -- snapshot.tables == []
  end

  @doc "How many connections a listener holds that have not proven who they are: `{before the knock, after it}`."
  def places(%{alice: alice, ports: ports}, profile) do
    listener = Enum.find(Legation.listeners(alice), &(&1.address[:port] == ports[profile]))
    {listener.pending, listener.handshakes}
  end
end
