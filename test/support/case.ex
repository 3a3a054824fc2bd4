defmodule Legation.Case do
  @moduledoc """
  For tests with running realms: keys, instances under the test's supervision, links between them, and waiting for what
  is to come by messages.

      use Legation.Case

      alice = start_realm("alice")
      bob = start_realm("bob")
      link(alice, bob, :tcp_tls)
      publish(alice, "ping", pid)
      GenServer.call(via(bob, "ping@alice"), :ping)

  A realm that was started here is known by its instance, an atom of its own for each test. Unless a test says otherwise
  instances keep out of `:global`, where two realms in one VM would be after the same names.

  Which transport a realm has is said by `Legation.TestTransport`; `transport/1` tells. Tests that only make sense over the embedded one
  are tagged `:embedded`.
  """

  use ExUnit.CaseTemplate

  alias Legation.{CNode, Instance, Native, Options, TestTransport}

  # Generous, for a machine with other work, and never waited for in full: what is waited for is a message.
  @patience_ms 20_000

  using do
    quote do
      # Shown when a test fails.
      @moduletag :capture_log
      require Legation
      import Legation.Case
      alias Legation.TestEngines.{Counter, Echo, Pool, Recorder, Sequence, Switch}
    end
  end

  # The default of 100 ms is too little for a machine with other work.
  setup_all do
    ExUnit.configure(assert_receive_timeout: @patience_ms)
  end

  @doc "The carriers that suites run over: two profiles of tcp, a Unix socket, and memory, which no daemon has."
  def carriers,
    do: if(TestTransport.daemons?(), do: [:tcp_tls, :tcp_plain, :unix], else: [:tcp_tls, :tcp_plain, :unix, :memory])

  ## Keys

  @doc "A directory for the keys and sockets of this run, removed when the VM ends. Socket paths must be short."
  def dir do
    case :persistent_term.get({__MODULE__, :dir}, nil) do
      nil -> :global.trans({{__MODULE__, :dir}, self()}, &make_dir/0, [node()])
      dir -> dir
    end
  end

  defp make_dir do
    with nil <- :persistent_term.get({__MODULE__, :dir}, nil) do
      dir = Path.join(System.tmp_dir!(), "legation-#{System.pid()}-#{System.unique_integer([:positive])}")
      File.mkdir!(dir)
      File.chmod!(dir, 0o700)
      network_key = Path.join(dir, "net.key")
      File.write!(network_key, Base.encode16(:crypto.strong_rand_bytes(32), case: :lower))
      File.chmod!(network_key, 0o600)
      System.at_exit(fn _status -> File.rm_rf!(dir) end)
      :persistent_term.put({__MODULE__, :dir}, dir)
      dir
    end
  end

  @doc "The path of a realm's identity, made when it is first asked for."
  def key_file(realm) do
    path = Path.join(dir(), realm <> ".pem")

    case Native.keyring_generate(path) do
      {:ok, _public} -> path
      {:error, {:key_file, :exists}} -> path
    end
  end

  @doc "A realm's public key as text."
  def public_key(realm) do
    {:ok, keyring} = Native.keyring_load(key_file(realm))
    keyring |> Native.keyring_public() |> Options.format_key()
  end

  def network_key_file, do: Path.join(dir(), "net.key")

  @doc "A path for a Unix socket that nobody else uses."
  def socket_path, do: Path.join(dir(), "#{System.unique_integer([:positive])}.sock")

  ## Realms

  @doc "The options that `start_realm/2` starts with."
  def realm_options(realm, opts \\ []) do
    {limits, opts} = Keyword.pop(opts, :limits, [])

    Keyword.merge(
      [
        name: :"Elixir.#{String.capitalize(realm)}#{System.unique_integer([:positive])}",
        realm: realm,
        key: key_file(realm),
        network_key: network_key_file(),
        global: :off,
        transport: Keyword.get_lazy(opts, :transport, fn -> TestTransport.option(realm) end),
        limits: Keyword.merge([knock_boot_ms: 0, reconnect_min_ms: 10, reconnect_max_ms: 100], limits)
      ],
      opts
    )
  end

  @doc "Starts an instance that ends with the test. Returns its name."
  def start_realm(realm, opts \\ []) do
    options = realm_options(realm, opts)
    ExUnit.Callbacks.start_supervised!({Legation, options}, id: options[:name])
    options[:name]
  end

  def stop_realm(instance), do: ExUnit.Callbacks.stop_supervised!(instance)

  @doc "Who does an instance's work: `:embedded` or `:c_node`."
  def transport(instance) do
    case Instance.fetch!(instance).transport do
      Legation.Transport.Embedded -> :embedded
      Legation.Transport.CNode -> :c_node
    end
  end

  @doc "With what a call without a timeout, and by pid, exits when its session ends (`docs/callers.md`)."
  def lost(instance) do
    case Instance.fetch!(instance) do
      %{transport: Legation.Transport.Embedded} -> :noconnection
      %{options: %{transport: %{node: node}}} -> {:nodedown, node}
    end
  end

  @doc "The number of the daemon's process in the operating system."
  def daemon_pid(instance), do: CNode.Daemon.os_pid(instance)

  @doc "What an instance calls itself."
  def realm(instance), do: Instance.fetch!(instance).options.realm

  @doc """
  Bob dials alice over the carrier; returns when both have the session. What bob may do at alice's is said by `export:`, `allow:` and
  `filter:` (everything is exported by default), what alice may do at bob's by the same under `back:`. `through:` has the
  `Legation.Cable` between them, of a carrier over tcp.
  """
  def link(alice, bob, carrier, opts \\ []) do
    {back, opts} = Keyword.pop(opts, :back, [])
    {cable, opts} = Keyword.pop(opts, :through)
    address = listen(alice, carrier)
    address = if cable, do: Legation.Cable.lead(cable, address), else: address
    watch_alice = watch(alice)
    watch_bob = watch(bob)
    :ok = Legation.connect(peer(realm(bob), opts), alice)
    :ok = Legation.connect(peer(realm(alice), [connect: [address]] ++ back), bob)
    await_up(watch_alice, realm(bob))
    await_up(watch_bob, realm(alice))
    unwatch(watch_alice)
    unwatch(watch_bob)
    address
  end

  @doc "A peer's options, with its key and everything exported."
  def peer(realm, opts \\ []), do: Keyword.merge([realm: realm, key: public_key(realm), export: :all], opts)

  @doc "Listens on an address of the kernel's choice. Returns what is dialled, for `connect:`."
  def listen(instance, carrier), do: carrier |> listen_address() |> listen_on(instance)

  @doc "What `listen:` is given for a carrier."
  def listen_address(:tcp_tls), do: {:tcp, port: 0, ip: {127, 0, 0, 1}}
  def listen_address(:tcp_plain), do: {:tcp, port: 0, ip: {127, 0, 0, 1}, profile: :plain}
  def listen_address(:unix), do: {:unix, path: socket_path()}
  def listen_address(:memory), do: {:memory, name: System.unique_integer([:positive])}

  defp listen_on({carrier, opts}, instance) do
    {:ok, %{address: address}} = Legation.add_listener({carrier, opts}, instance)
    dial_address({carrier, opts}, address)
  end

  @doc "From what was listened on, and the address that was bound, to what is dialled."
  def dial_address({:tcp, opts}, address),
    do: {:tcp, [host: "127.0.0.1", port: address[:port]] ++ Keyword.take(opts, [:profile])}

  def dial_address(address, _bound), do: address

  @doc "The profile that a carrier of `carriers/0` has."
  def profile(:tcp_tls), do: :tls
  def profile(:tcp_plain), do: :plain
  def profile(local) when local in [:unix, :memory], do: :local

  @doc "The name of an engine as one instance reaches it."
  def via(instance, name), do: {:via, Legation, {instance, name}}

  @doc "Publishes, and waits until each of the instances has learned it. Returns the proxy at the first of them."
  def publish(at, name, target, learners \\ [], opts \\ []) do
    :ok = Legation.publish(name, target, opts, at)
    full_name = name <> "@" <> realm(at)
    learners |> Enum.map(&await_engine(&1, full_name)) |> List.first()
  end

  ## Waiting

  @doc "Subscribes to an instance's peers and engines."
  def watch(instance) do
    {:ok, ref, snapshot} = Legation.monitor_peers(instance)
    %{instance: instance, ref: ref, snapshot: snapshot}
  end

  def unwatch(%{instance: instance, ref: ref}) do
    Legation.demonitor_peers(ref, instance)
    flush(ref)
  end

  defp flush(ref) do
    receive do
      {:legation, ^ref, _event} -> flush(ref)
    after
      0 -> :ok
    end
  end

  @doc "Waits until the peer is up, from the subscription's beginning on."
  def await_up(%{snapshot: %{peers: peers}} = watch, realm) do
    if is_map_key(peers, realm), do: peers[realm], else: await(watch, {:peer_up, realm})
  end

  @doc "Waits for `{:peer_up, realm}`, `{:peer_down, realm}`, `{:engine_learned, name}` or `{:engine_forgotten, name}`; returns what it says."
  def await(%{ref: ref, instance: instance}, {what, who}) do
    receive do
      {:legation, ^ref, {^what, ^who, detail}} -> detail
    after
      @patience_ms ->
        ExUnit.Assertions.flunk(
          "#{inspect(instance)} did not see #{what} of #{who}; its peers: #{inspect(Legation.peers(instance), pretty: true)}"
        )
    end
  end

  @doc "Waits until an engine can be reached. Returns its proxy."
  def await_engine(instance, full_name) do
    watch = watch(instance)

    info =
      case watch.snapshot.engines do
        %{^full_name => info} -> info
        _not_yet -> await(watch, {:engine_learned, full_name})
      end

    unwatch(watch)
    info.pid
  end

  @doc "Waits until an engine is gone."
  def await_forgotten(instance, full_name) do
    watch = watch(instance)
    if is_map_key(watch.snapshot.engines, full_name), do: await(watch, {:engine_forgotten, full_name})
    unwatch(watch)
  end

  @doc """
  For what nobody is told of: waits until the expression is true, and returns its value. If it does not come to that, the test fails
  as by `assert`, with what it is by then.
  """
  defmacro until(expression) do
    quote do
      Legation.Case.__until__(fn -> unquote(expression) end) || ExUnit.Assertions.assert(unquote(expression))
    end
  end

  @doc false
  def __until__(fun, deadline_ms \\ System.monotonic_time(:millisecond) + @patience_ms) do
    cond do
      value = fun.() ->
        value

      System.monotonic_time(:millisecond) > deadline_ms ->
        nil

      true ->
        receive do
        after
          5 -> __until__(fun, deadline_ms)
        end
    end
  end

  @doc "Returns when the instance has registered in `:global` what it has learned by now."
  def settle_global(instance) do
    if transport(instance) == :c_node, do: CNode.Directory.settle(instance)
    Legation.GlobalNames.info(instance)
  end

  @doc """
  Waits until so many dials of an instance to a realm have failed. Returns why the last did; `Legation.peers/1` says it by
  then, too.
  """
  def await_dial_failures(instance, realm, count \\ 1) do
    case transport(instance) do
      :embedded -> await_traced_failures(instance, realm, count)
      :c_node -> await_counted_failures(instance, realm, count, attempts(instance, realm), @patience_ms)
    end
  end

  defp await_traced_failures(instance, realm, count) do
    peer = peer_process(instance, realm)
    :erlang.trace(peer, true, [:receive])
    why = for(_n <- 1..count, do: await_ended(peer, instance)) |> List.last()
    :erlang.trace(peer, false, [:receive])
    # It has dealt with it, and the Directory with what it was told.
    :sys.get_state(peer)
    :sys.get_state(Instance.process(instance, Directory))
    why
  end

  # The daemon tells nobody of a dial in vain, so it is asked.
  defp await_counted_failures(instance, _realm, _count, _before, left_ms) when left_ms <= 0,
    do: ExUnit.Assertions.flunk("no dial has failed: #{inspect(Legation.peers(instance), pretty: true)}")

  defp await_counted_failures(instance, realm, count, before, left_ms) do
    case daemons_peer(instance, realm) do
      # The last of them may be under way.
      %{attempts: attempts, last_error: why, state: state}
      when why != nil and (attempts > before + count or (attempts == before + count and state == :waiting)) ->
        why

      _not_yet ->
        receive do
        after
          10 -> await_counted_failures(instance, realm, count, before, left_ms - 10)
        end
    end
  end

  # One that had begun before we asked counts, too.
  defp attempts(instance, realm), do: max(daemons_peer(instance, realm).attempts - 1, 0)

  defp daemons_peer(instance, realm) do
    {:ok, peers} = CNode.Control.call(Instance.fetch!(instance), :peers)
    Enum.find(peers, &(&1.realm == realm))
  end

  defp await_ended(peer, instance) do
    receive do
      {:trace, ^peer, :receive, {tag, :ended, why}} when is_reference(tag) -> why
    after
      @patience_ms -> ExUnit.Assertions.flunk("no dial has failed: #{inspect(Legation.peers(instance), pretty: true)}")
    end
  end

  @doc "Monitors a proxy. On another node a monitor is there when what follows it has been answered."
  def monitor(proxy) do
    monitor = Process.monitor(proxy)
    if node(proxy) != node(), do: Node.ping(node(proxy))
    monitor
  end

  @doc "A call's exit reason; fails when it doesn't exit."
  def catch_exit_of(fun) do
    ExUnit.Assertions.flunk("expected an exit, got: #{inspect(fun.())}")
  catch
    :exit, reason -> reason
  end

  @doc "A call made by a process of its own. `{:called, pid, result}` comes with the reply or `{:exit, reason}`."
  def async_call(name, request, timeout \\ :infinity) do
    test = self()

    spawn(fn ->
      result =
        try do
          {:reply, GenServer.call(name, request, timeout)}
        catch
          :exit, reason -> {:exit, reason}
        end

      send(test, {:called, self(), result})
    end)
  end

  @doc "What an `async_call/3` came to."
  def await_call(pid) do
    receive do
      {:called, ^pid, result} -> result
    after
      @patience_ms -> ExUnit.Assertions.flunk("the call has not ended")
    end
  end

  @doc "The Peer process of one instance for a realm."
  def peer_process(instance, realm) do
    {_id, pid, _type, _modules} =
      instance |> Instance.process(PeerSupervisor) |> Supervisor.which_children() |> List.keyfind!({:peer, realm}, 0)

    pid
  end

  @doc "Reader, Writer and session of the link that is sent on."
  def link_processes(instance, realm) do
    %{links: links, active: active} = :sys.get_state(peer_process(instance, realm))
    links[active]
  end

  @doc "What the Directory of an instance knows of the session with a realm."
  def session(instance, realm) do
    %{sessions: sessions, current: current} = :sys.get_state(Instance.process(instance, Directory))
    sessions[current[realm]]
  end

  @doc "A counter of the session with a realm."
  def session_counter(instance, realm, name), do: Legation.counters(instance).sessions[realm][name]
end
