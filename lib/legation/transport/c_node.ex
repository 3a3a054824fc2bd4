defmodule Legation.Transport.CNode do
  @moduledoc false
  # A daemon beside this VM does the work: a hidden node on which each foreign engine is a process. It has the key, the sockets
  # and the sessions; here are the names, the filters, and what is published, connected and listened on, so that a new daemon
  # can be told.
  #
  #   KeyAgent · Directory · GlobalNames · Gate · Daemon
  #
  # Nothing here needs the native library.

  @behaviour Legation.Transport

  alias Legation.{Counters, Instance, Options, Providers}
  alias Legation.CNode.{Config, Control, Daemon, Directory, Gate, KeyAgent, Listeners, Shape}

  # What may be in a node's name without a second thought; and not all of a realm's name has to be in it.
  @realm_bytes_max 64

  @impl true
  def prepare(%Options{transport: transport} = options) do
    with :ok <- distributed(),
         {:ok, binary} <- binary(transport) do
      node = node_name(options)
      prepared = %{transport | binary: binary, node: node, cookie: cookie(transport), ip: transport.ip || ip(node)}
      {:ok, %{options | transport: prepared}}
    end
  end

  defp distributed, do: if(Node.alive?(), do: :ok, else: {:error, {:not_distributed, node()}})

  defp binary(%{binary: given}) do
    path = given || environment() || Path.join(priv(), "native/legation")
    if File.regular?(path), do: {:ok, path}, else: {:error, {:daemon, {:program, path, :enoent}}}
  end

  defp environment do
    case System.get_env("LEGATION_NODE_PATH", "") do
      "" -> nil
      path -> path
    end
  end

  defp priv do
    case :code.priv_dir(:legation) do
      {:error, :bad_name} -> __MODULE__ |> :code.which() |> Path.dirname() |> Path.join("../priv")
      priv -> to_string(priv)
    end
  end

  # Names that users wrote; the wire has no part in it.
  defp node_name(%Options{transport: %{node: node}}) when is_atom(node) and node != nil, do: node
  defp node_name(%Options{transport: %{node: node}}) when is_binary(node), do: String.to_atom(node)

  defp node_name(%Options{realm: realm}) do
    [_name, host] = node() |> Atom.to_string() |> String.split("@")
    plain = realm |> String.replace(~r/[^A-Za-z0-9_-]/u, "_") |> String.slice(0, @realm_bytes_max)
    String.to_atom("legation_#{plain}@#{host}")
  end

  # Where other nodes look for one of this name. Of a host that nobody knows it is loopback.
  defp ip(node) do
    [_name, host] = node |> Atom.to_string() |> String.split("@")

    case :inet.getaddr(to_charlist(host), :inet) do
      {:ok, ip} -> ip
      {:error, _unknown} -> {127, 0, 0, 1}
    end
  end

  defp cookie(%{cookie: nil}) do
    cookie = Node.get_cookie()
    fn -> cookie end
  end

  defp cookie(%{cookie: cookie}), do: cookie

  @impl true
  def children(%Options{} = options, config) do
    agent = if match?({:keyholder, _module, _args}, options.key), do: [{KeyAgent, {options, config}}], else: []

    agent ++
      [
        {Directory, {options, config}},
        {Legation.GlobalNames, options},
        {Gate, options},
        {Daemon, {options, config}}
      ]
  end

  ## Our engines

  @impl true
  def publish(instance, engine, target, opts), do: Directory.publish(instance.name, engine, target, opts)

  @impl true
  def withdraw(instance, engine), do: Directory.withdraw(instance.name, engine)

  ## Looking around

  @impl true
  def engines(%Instance{} = instance) do
    case Control.call(instance, :engines) do
      {:ok, engines} -> for engine <- engines, do: engine |> Shape.engine() |> with_details(instance)
      {:error, _reason} -> for {engine, info} <- :ets.tab2list(instance.details), do: own(engine, info, instance)
    end
  end

  # As it was published, rather than as the daemon puts it.
  defp with_details(%{local: true, engine: engine} = info, instance) do
    case :ets.lookup(instance.details, engine) do
      [{_engine, details}] -> Map.merge(info, details)
      [] -> info
    end
  end

  defp with_details(info, _instance), do: info

  defp own(engine, info, instance) do
    Map.merge(info, %{
      name: Instance.full_name(instance, engine),
      engine: engine,
      realm: instance.options.realm,
      local: true,
      key: nil,
      state: :published
    })
  end

  @impl true
  def peers(%Instance{config: config} = instance) do
    listed =
      for [peer, state] <- :ets.match(config, {{:peer, :_}, :"$1", :"$2"}), into: %{}, do: {peer.realm, {peer, state}}

    {known, why} =
      case Control.call(instance, :peers) do
        {:ok, peers} -> {Enum.map(peers, &Shape.peer/1), nil}
        {:error, reason} -> {[], Legation.Error.message(reason)}
      end

    # A daemon that was started since knows nothing of those that were disconnected before.
    missing =
      for {realm, {peer, state}} <- listed, not Enum.any?(known, &(&1.realm == realm)) do
        state = if state in [:disconnected, :revoked], do: state, else: :waiting
        error = if state == :waiting, do: why

        %{
          realm: realm,
          key: Options.format_key(peer.key),
          state: state,
          attempts: 0,
          last_error: error,
          counters: %{},
          links: []
        }
      end

    Enum.sort_by(known ++ missing, & &1.realm)
  end

  @impl true
  def connections(instance) do
    case Control.call(instance, :connections) do
      {:ok, links} ->
        for link <- links, do: link |> Shape.connection() |> Map.put(:counters, Map.get(link, :counters, %{}))

      {:error, _reason} ->
        []
    end
  end

  @impl true
  def listeners(%Instance{config: config} = instance) do
    case Control.call(instance, :listeners) do
      {:ok, listeners} ->
        ids = Listeners.by_text(config)
        for listener <- listeners, do: Shape.listener(listener, Map.get(ids, listener.id, listener.id))

      {:error, _reason} ->
        []
    end
  end

  # What is counted in this VM (names that are taken) comes on top of what the daemon counts.
  @impl true
  def counters(instance) do
    ours = Counters.to_map(instance.counters)

    case Control.call(instance, :counters) do
      {:ok, counters} -> %{sessions: %{}, ended: %{}} |> Map.merge(counters) |> Map.merge(ours, &sum/3)
      {:error, _reason} -> Map.merge(ours, %{sessions: %{}, ended: %{}})
    end
  end

  defp sum(_name, one, other), do: one + other

  @impl true
  def verify_receipt(instance, receipt, key), do: Control.request(instance, {:verify_receipt, receipt, key})

  ## Peers

  @impl true
  def connect(instance, realm) when is_binary(realm) do
    case :ets.lookup(instance.config, {:peer, realm}) do
      [{_key, _peer, :connected}] -> dial_now(instance, realm)
      [{_key, peer, :disconnected}] -> start_peer(instance, peer)
      [{_key, _peer, :revoked}] -> {:error, :revoked}
      [] -> {:error, :unknown_realm}
    end
  end

  def connect(instance, %Options.Peer{} = peer) do
    case :ets.lookup(instance.config, {:peer, peer.realm}) do
      [{_key, _peer, :connected}] -> {:error, {:already_connected, peer.realm}}
      [{_key, %{key: key}, :revoked}] when key == peer.key -> {:error, :revoked}
      _new_or_disconnected -> start_peer(instance, peer)
    end
  end

  # It is on the list. A daemon that is down, or catches up, dials it when it is there.
  defp dial_now(instance, realm) do
    case Control.request(instance, {:connect, realm}) do
      {:error, :draining} -> {:error, :draining}
      _on_the_list -> :ok
    end
  end

  # Its filters are there before its first message can be.
  defp start_peer(%Instance{config: config} = instance, peer) do
    before = :ets.lookup(config, {:peer, peer.realm})
    :ets.insert(config, {{:peer, peer.realm}, peer, :connected})
    Gate.peer_changed(instance.name, peer.realm)

    case Control.request(instance, {:connect, Config.peer_term(peer)}) do
      :ok ->
        :ok

      # Taken up again: the next daemon finds it on the list. One that is new has to be checked first.
      {:error, {:daemon, :down}} when before != [] ->
        :ok

      {:error, reason} ->
        :ets.delete(config, {:peer, peer.realm})
        :ets.insert(config, before)
        Gate.peer_changed(instance.name, peer.realm)
        {:error, reason}
    end
  end

  @impl true
  def disconnect(instance, realm) do
    if :ets.update_element(instance.config, {:peer, realm}, {3, :disconnected}) do
      Control.request(instance, {:disconnect, realm})
      # Who asked for it sees it done.
      Directory.settle(instance.name)
      :ok
    else
      {:error, :unknown_realm}
    end
  end

  # The daemon reads the file, and writes the ones beside it.
  @impl true
  def rotate_key(instance, path), do: Control.request(instance, {:rotate_key, path})

  @impl true
  def revoke_own_key(instance), do: Control.request(instance, :revoke_own_key)

  @impl true
  def revoke(instance, realm) do
    if :ets.update_element(instance.config, {:peer, realm}, {3, :revoked}) do
      # A daemon that is down won't have it on its list when it comes back.
      Control.request(instance, {:revoke, realm})
      Directory.settle(instance.name)
      :ok
    else
      {:error, :unknown_realm}
    end
  end

  @impl true
  def drain(instance, timeout_ms) do
    case Control.request(instance, {:drain, timeout_ms}, timeout_ms + Instance.limit(instance, :shutdown_ms) + 5_000) do
      {:ok, cut} -> {:ok, cut}
      {:error, _no_daemon} -> {:ok, []}
    end
  end

  @impl true
  def subscribe(instance), do: Directory.subscribe(instance.name)

  @impl true
  def unsubscribe(instance, ref), do: Directory.unsubscribe(instance.name, ref)

  ## Listeners

  @impl true
  def add_listener(%Instance{config: config} = instance, id, carrier, opts) do
    with false <- Listeners.member?(config, id),
         {:ok, info} <-
           Control.request(instance, {:add_listener, Config.listener_term(Listeners.text(id), carrier, opts)}) do
      info = Shape.listener(info, id)
      Listeners.add(config, id, carrier, opts, info.address)
      {:ok, info}
    else
      true -> {:error, {:already_listening, id}}
      {:error, reason} -> {:error, reason}
    end
  end

  @impl true
  def remove_listener(%Instance{config: config} = instance, id) do
    known? = Listeners.member?(config, id)
    Listeners.remove(config, id)
    # One that somebody else has added has a text for its id.
    text = if is_binary(id) and not known?, do: id, else: Listeners.text(id)

    case Control.request(instance, {:remove_listener, text}) do
      :ok -> :ok
      {:error, _not_there} -> if known?, do: :ok, else: {:error, :not_found}
    end
  end

  ## Messages

  @impl true
  def pending(instance, [%{engine: engine} | _] = providers) do
    realms = for %{local: false, realm: realm} <- providers, do: realm

    foreign =
      case Control.call(instance, {:providers, engine, [realms: realms]}) do
        {:ok, known} when is_list(known) -> for %{name: name, pending: pending} <- known, into: %{}, do: {name, pending}
        _no_daemon -> %{}
      end

    for provider <- providers,
        do: if(provider.local, do: Providers.mailbox(provider.pid), else: Map.get(foreign, provider.name, :infinity))
  end

  @impl true
  def key(instance, full_name), do: Directory.key(instance, full_name)

  # The daemon knows who sent it.
  @impl true
  def send_from_caller(_instance, pid, message), do: send(pid, message)

  @impl true
  def wait_room(instance, full_name, bytes, timeout) do
    case Control.request(instance, {:wait_room, full_name, bytes}, timeout) do
      {:error, {:daemon, :timeout}} -> {:error, :timeout}
      # It has no session any more, as after this.
      {:error, {:daemon, _down}} -> :ok
      answer -> answer
    end
  end

  @impl true
  def push(instance, pid, message) do
    case Control.request(instance, {:push, pid, :erlang.term_to_binary(message, minor_version: 2)}) do
      {:error, {:daemon, _down}} -> {:error, :ended}
      answer -> answer
    end
  end
end
