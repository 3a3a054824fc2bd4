defmodule Legation.Transport.Embedded do
  @moduledoc false
  # Everything in this VM: the native library signs and verifies, processes here have the sockets.
  #
  #   Keyholder · Directory · GlobalNames · ProxySupervisor · PeerSupervisor · ConnectionSupervisor · ListenerSupervisor
  #
  # Listeners are last, so they stop first.

  @behaviour Legation.Transport

  alias Legation.{
    Counters,
    Directory,
    Instance,
    Keyholder,
    Listener,
    ListenerSupervisor,
    Native,
    Options,
    Peer,
    PeerSupervisor,
    Providers,
    Proxy
  }

  @impl true
  def prepare(options), do: {:ok, options}

  @impl true
  def children(%Options{name: name} = options, config) do
    [
      {Legation.Keyholder, options},
      {Directory, {options, config}},
      {Legation.GlobalNames, options},
      {Legation.ProxySupervisor, name},
      {PeerSupervisor, {name, config}},
      {Legation.Connection, options},
      {ListenerSupervisor, {name, config}}
    ]
  end

  ## Our engines

  @impl true
  def publish(instance, engine, target, opts), do: Directory.publish(instance.name, engine, target, opts)

  @impl true
  def withdraw(instance, engine), do: Directory.withdraw(instance.name, engine)

  ## Looking around

  @impl true
  def engines(%Instance{options: %{realm: own_realm}} = instance) do
    foreign =
      for {name, pid, realm, engine, counts, info} <- :ets.tab2list(instance.foreign) do
        Map.merge(info, %{
          name: name,
          engine: engine,
          realm: realm,
          local: false,
          pid: pid,
          state: :up,
          counters: Proxy.counts(counts)
        })
      end

    ours =
      for {engine, info} <- :ets.tab2list(instance.details) do
        Map.merge(info, %{
          name: engine <> "@" <> own_realm,
          engine: engine,
          realm: own_realm,
          local: true,
          state: :published
        })
      end

    ours ++ foreign
  end

  @impl true
  def peers(instance) do
    counters = sessions(instance)
    links = Enum.group_by(:ets.tab2list(instance.links), &elem(&1, 1), &link/1)

    for {realm, status} <- :ets.tab2list(instance.peers),
        do: Map.merge(status, %{counters: Map.get(counters, realm, %{}), links: Map.get(links, realm, [])})
  end

  @impl true
  def connections(instance) do
    for {_tag, _realm, _channel, session, _status} = link <- :ets.tab2list(instance.links),
        do: Map.put(link(link), :counters, Native.session_counters(session))
  end

  defp link({_tag, _realm, channel, _session, status}), do: Map.put(status, :rtt_ms, Native.channel_rtt_ms(channel))

  @impl true
  def listeners(instance) do
    for {_id, pid} <- ListenerSupervisor.listeners(instance.name), do: Listener.info(pid)
  end

  @impl true
  def counters(instance) do
    ended =
      for [realm, counters] <- :ets.match(instance.config, {{:ended, :"$1"}, :"$2"}), into: %{}, do: {realm, counters}

    instance.counters |> Counters.to_map() |> Map.merge(%{sessions: sessions(instance), ended: ended})
  end

  defp sessions(instance) do
    for {realm, _tag, session, _info} <- :ets.tab2list(instance.sessions),
        into: %{},
        do: {realm, Native.session_counters(session)}
  end

  @impl true
  def verify_receipt(instance, receipt, key), do: Native.verify_receipt(receipt, key, instance.identity.network_id)

  ## Peers

  @impl true
  def connect(instance, realm) when is_binary(realm) do
    case :ets.lookup(instance.config, {:peer, realm}) do
      [{_key, _peer, :connected}] -> if(drained?(instance, realm), do: {:error, :draining}, else: :ok)
      [{_key, peer, _not_connected}] -> start_peer(instance, peer)
      [] -> {:error, :unknown_realm}
    end
  end

  def connect(instance, %Options.Peer{} = peer) do
    case :ets.lookup(instance.config, {:peer, peer.realm}) do
      [{_key, _peer, :connected}] -> {:error, {:already_connected, peer.realm}}
      _new_or_not_connected -> start_peer(instance, peer)
    end
  end

  # A drain is for good: there is nothing to take up again.
  defp drained?(instance, realm), do: match?([{_realm, %{state: :drained}}], :ets.lookup(instance.peers, realm))

  defp start_peer(%Instance{identity: identity} = instance, peer) do
    if Native.realm_revoked(identity.keyring, Native.realm_id(peer.key)),
      do: {:error, :revoked},
      else: do_start_peer(instance, peer)
  end

  # In the place of one whose key was revoked, perhaps.
  defp do_start_peer(%Instance{config: config} = instance, peer) do
    if match?([{_key, _peer, :revoked}], :ets.lookup(config, {:peer, peer.realm})), do: stop_peer(instance, peer.realm)

    case PeerSupervisor.start_peer(instance.name, peer) do
      {:ok, _pid} ->
        :ets.insert(instance.config, {{:peer, peer.realm}, peer, :connected})
        :ok

      {:error, {:already_started, _pid}} ->
        {:error, {:already_connected, peer.realm}}

      {:error, reason} ->
        {:error, reason}
    end
  end

  @impl true
  def disconnect(instance, realm) do
    if :ets.update_element(instance.config, {:peer, realm}, {3, :disconnected}) do
      stop_peer(instance, realm)
    else
      {:error, :unknown_realm}
    end
  end

  defp stop_peer(instance, realm) do
    PeerSupervisor.stop_peer(instance.name, realm)
    Directory.peer_stopped(instance.name, realm)
  end

  @impl true
  def rotate_key(instance, path), do: Directory.rotate_key(instance.name, path)

  @impl true
  def revoke_own_key(instance), do: Directory.revoke_own_key(instance.name)

  # First it is let in no more, then what there is ends.
  @impl true
  def revoke(%Instance{config: config, identity: identity} = instance, realm) do
    case :ets.lookup(config, {:peer, realm}) do
      [{key, peer, _state}] ->
        Native.realm_revoke(identity.keyring, Native.realm_id(peer.key))
        :ets.insert(config, {key, peer, :revoked})
        for {^realm, pid} <- PeerSupervisor.peers(instance.name), do: Peer.revoke(pid)
        Keyholder.heads_changed(instance)
        Directory.settle(instance.name)

      [] ->
        {:error, :unknown_realm}
    end
  end

  @impl true
  def drain(instance, timeout_ms) do
    for {id, _pid} <- ListenerSupervisor.listeners(instance.name),
        do: ListenerSupervisor.stop_listener(instance.name, id)

    cut =
      instance.name
      |> PeerSupervisor.peers()
      |> Enum.map(fn {realm, pid} -> {realm, Task.async(fn -> Peer.drain(pid, timeout_ms) end)} end)
      |> Enum.flat_map(fn {realm, task} ->
        {:ok, calls} = Task.await(task, :infinity)
        for {engine, caller} <- calls, do: {engine <> "@" <> realm, caller}
      end)

    {:ok, cut}
  end

  @impl true
  def subscribe(instance), do: Directory.subscribe(instance.name)

  @impl true
  def unsubscribe(instance, ref), do: Directory.unsubscribe(instance.name, ref)

  ## Listeners

  @impl true
  def add_listener(instance, id, carrier, opts) do
    case ListenerSupervisor.start_listener(instance.name, id, carrier, opts) do
      {:ok, pid} ->
        :ets.insert(instance.config, {{:listener, id}, carrier, opts})
        {:ok, Listener.info(pid)}

      {:error, {:already_started, _pid}} ->
        {:error, {:already_listening, id}}

      {:error, reason} ->
        {:error, reason}
    end
  end

  @impl true
  def remove_listener(%Instance{config: config} = instance, id) do
    with :ok <- ListenerSupervisor.stop_listener(instance.name, id) do
      for [key, opts] <- :ets.match(config, {{:listener, :"$1"}, :_, :"$2"}),
          (opts[:id] || key) == id,
          do: :ets.delete(config, {:listener, key})

      :ets.delete(config, {:bound, id})
      :ok
    end
  end

  ## Messages

  @impl true
  def pending(instance, providers) do
    sessions =
      for [realm, session] <- :ets.match(instance.sessions, {:"$1", :_, :"$2", :_}), into: %{}, do: {realm, session}

    for provider <- providers do
      cond do
        provider.local -> Providers.mailbox(provider.pid)
        session = sessions[provider.realm] -> Native.session_pending(session, provider.engine)
        true -> :infinity
      end
    end
  end

  @impl true
  def key(instance, full_name), do: Directory.key(instance, full_name)

  # Through the proxy in any case: it keeps the order of what one process sends to one engine.
  @impl true
  def send_from_caller(instance, proxy, message) do
    case :ets.lookup(instance.pids, self()) do
      [{_pid, src}] -> send(proxy, {instance.ref, {:send_as, src, message}})
      [] -> send(proxy, message)
    end
  end

  @impl true
  def wait_room(instance, full_name, bytes, timeout) do
    with [{_name, _pid, realm, engine, _counts, _info}] <- :ets.lookup(instance.foreign, full_name),
         [{_realm, _tag, session, _info}] <- :ets.lookup(instance.sessions, realm) do
      case Native.session_wait_room(session, engine, bytes) do
        :now -> :ok
        :full -> {:error, :overload}
        {:later, token} -> await_room(session, token, timeout)
      end
    else
      [] -> {:error, :noproc}
    end
  end

  defp await_room(session, token, timeout) do
    receive do
      {:legation_room, ^token} -> :ok
    after
      timeout ->
        Native.session_cancel_room(session, token)

        receive do
          {:legation_room, ^token} -> :ok
        after
          0 -> {:error, :timeout}
        end
    end
  end

  @impl true
  def push(instance, proxy, message) do
    src = with [{_pid, src}] <- :ets.lookup(instance.pids, self()), do: src, else: ([] -> "")
    monitor = Process.monitor(proxy)
    send(proxy, {instance.ref, {:push, {self(), monitor}, src, message}})

    receive do
      {^monitor, result} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, _pid, _reason} ->
        {:error, :ended}
    end
  end
end
