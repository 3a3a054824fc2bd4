defmodule Legation.Directory do
  @moduledoc false
  # Who is there: our engines, the engines of others, the sessions and peers. Owns the tables (see Legation.Instance) and
  # is the only one that writes them; everybody reads them without asking.
  #
  # It announces: each published engine is signed once and told to every session whose peer may have it. It keeps a proxy
  # for each engine that a session has learned, and tells subscribers of all of it, in one order, after a snapshot.
  #
  # Sessions are known by a `tag`, a reference made by the Peer, so that what an old session left in the mailbox can't touch the
  # one that took its place. Which links a session has is shown to users and of no concern otherwise.

  use GenServer

  alias Legation.{Counters, GlobalNames, Handle, Instance, Keyholder, Native, Policy, Providers, StandIn, Telemetry}
  alias Legation.Peer.Status
  alias Legation.Directory.{Announcement, Ends, Events, Foreign, Identity, Subscribers}

  # A registered name whose process died is looked up once more after this: its supervisor is starting it again now.
  @restart_grace_ms 100
  # After this one that the keyholder did not sign for.
  @unsigned_again_ms 1_000
  # For answers that an engine has given before its end. More than it takes: nothing that they go through waits for anybody.
  @answers_ms 5_000

  ## What others read

  def foreign(%Instance{foreign: table}),
    do: :ets.select(table, [{{:"$1", :"$2", :_, :_, :_, :_}, [], [{{:"$1", :"$2"}}]}])

  def own(%Instance{published: table} = instance) do
    for [engine, target] <- :ets.match(table, {:"$1", :"$2", :_, :_}),
        pid = resolve(target),
        do: {Instance.full_name(instance, engine), pid}
  end

  @doc """
  The key of a foreign engine, or nil. Its first message may come right behind its LEARN, which is on its way to us then.
  """
  def key(%Instance{name: name, foreign: foreign}, full_name) do
    key_in(foreign, full_name) || GenServer.call(server(name), {:key, full_name}, :infinity)
  end

  defp key_in(foreign, full_name) do
    case :ets.lookup(foreign, full_name) do
      [{_name, _pid, _realm, _engine, _counts, %{key: key}}] -> key
      [] -> nil
    end
  end

  @doc "The process behind a published engine. A registered name is looked up each time, so a restart is seen at once."
  def resolve(pid) when is_pid(pid), do: pid
  def resolve(name) when is_atom(name), do: Process.whereis(name)

  ## What others ask and tell

  def start_link({options, config}),
    do: GenServer.start_link(__MODULE__, {options, config}, name: server(options.name))

  def publish(name, engine, target, opts),
    do: GenServer.call(running!(name), {:publish, engine, target, opts}, :infinity)

  def rotate_key(name, path), do: GenServer.call(running!(name), {:rotate_key, path}, :infinity)
  def revoke_own_key(name), do: GenServer.call(running!(name), :revoke_own_key, :infinity)

  @doc "Returns when what it was told before is done."
  def settle(name), do: GenServer.call(server(name), :settle, :infinity)

  def withdraw(name, engine), do: GenServer.call(running!(name), {:withdraw, engine}, :infinity)
  def subscribe(name), do: GenServer.call(running!(name), :subscribe, :infinity)
  def unsubscribe(name, ref), do: GenServer.call(running!(name), {:unsubscribe, ref}, :infinity)

  @doc "A Peer starts: from now on its key may connect."
  def peer_started(name, peer), do: GenServer.call(server(name), {:peer_started, self(), peer}, :infinity)

  @doc "A Peer has gone on purpose: from now on its key may not connect."
  def peer_stopped(name, realm), do: GenServer.call(server(name), {:peer_stopped, realm}, :infinity)

  def peer_status(name, realm, status), do: GenServer.cast(server(name), {:peer_status, realm, status})

  @doc """
  A session has begun: `%{tag, realm, session, peer, policy, info, adopt}`. `adopt`: the one before it, whose unsigned messages it
  takes over behind the announcements.
  """
  def session_up(name, session), do: GenServer.cast(server(name), {:session_up, session})

  @doc "Its last link has gone, and it waits for another."
  def session_lost(name, tag, reason), do: GenServer.cast(server(name), {:session_lost, tag, reason})

  @doc "And here is one."
  def session_resumed(name, tag, info), do: GenServer.cast(server(name), {:session_resumed, tag, info})
  def session_ended(name, tag, reason), do: GenServer.cast(server(name), {:session_ended, tag, reason})

  @doc "The links of a realm, all of them: `{link tag, channel, session, status}`."
  def links(name, realm, links), do: GenServer.cast(server(name), {:links, realm, links})

  @doc "What one read brought, in order: `{:learn, engine, info}` and `{:forget, engine, reason}`."
  # The Reader hears `{its link's tag, :news_taken}` when it is done.
  def news(name, tag, {_reader, _link_tag} = from, news), do: GenServer.cast(server(name), {:news, tag, from, news})

  def proxy_exited(name, pid), do: GenServer.cast(server(name), {:proxy_exited, pid})
  def certificate(name, certificate), do: GenServer.cast(server(name), {:certificate, certificate})

  defp server(name), do: Instance.process(name, Directory)

  # For the API: says which instance isn't there, where an exit would name a process that the user doesn't know.
  defp running!(name), do: name |> Instance.fetch!() |> then(&server(&1.name))

  ## The process
  # engines: ours, engine => publication.      monitors: monitor => {:engine, engine} | :peer
  # sessions: tag => session.                  current: realm => tag
  # proxies: pid => full name, to tell a killed proxy from one that we stopped.
  # names: pid => %{engine => true}, under which of our names a process is published.

  @impl true
  def init({options, config}) do
    Process.flag(:trap_exit, true)
    table = fn kind -> :ets.new(:legation, [kind, :protected, read_concurrency: true]) end

    instance = %Instance{
      name: options.name,
      transport: Legation.Transport.Embedded,
      ref: make_ref(),
      options: options,
      config: config,
      identity: Keyholder.identity(options.name),
      foreign: table.(:ordered_set),
      published: table.(:set),
      details: table.(:set),
      pids: table.(:set),
      realm_ids: table.(:set),
      peers: table.(:ordered_set),
      sessions: table.(:set),
      links: table.(:set),
      turns: Providers.new_turns(),
      stand_ins: :ets.new(:legation, [:set, :public, read_concurrency: true, write_concurrency: true]),
      counters: Counters.new()
    }

    Instance.put(instance)

    state = %{
      instance: instance,
      name: options.name,
      certificate: Keyholder.certificate(options.name),
      serial: 0,
      engines: %{},
      names: %{},
      monitors: %{},
      unsigned: [],
      asking: false,
      sessions: %{},
      current: %{},
      proxies: %{},
      subscribers: Subscribers.new()
    }

    {:ok, state, {:continue, :restore}}
  end

  # What was published before a crash of this process.
  @impl true
  def handle_continue(:restore, state) do
    published = :ets.match(state.instance.config, {{:published, :"$1"}, :"$2", :"$3"})

    {:noreply,
     Enum.reduce(published, state, fn [engine, target, opts], state -> republish(engine, target, opts, state) end)}
  end

  @impl true
  def terminate(_reason, state), do: Instance.erase(state.name)

  @impl true
  def handle_call({:publish, engine, target, opts}, _from, state) do
    state = bury(engine, state)

    case publishable(engine, target, state) do
      {:ok, pid} ->
        {result, state} = do_publish(engine, target, pid, opts, state)
        {:reply, result, state}

      {:error, reason} ->
        {:reply, {:error, reason}, state}
    end
  end

  def handle_call({:withdraw, engine}, _from, state) do
    case state.engines do
      %{^engine => _publication} ->
        {:reply, :ok, do_withdraw(engine, :withdrawn, state)}

      _not_ours ->
        :ets.delete(state.instance.config, {:published, engine})
        {:reply, {:error, :not_published}, state}
    end
  end

  def handle_call({:rotate_key, path}, _from, state) do
    {result, state} = Identity.rotate(path, state, &announce/3)
    {:reply, result, state}
  end

  def handle_call(:revoke_own_key, _from, state), do: {:reply, Identity.revoke(state), state}
  def handle_call(:settle, _from, state), do: {:reply, :ok, state}

  def handle_call({:key, full_name}, _from, state), do: {:reply, key_in(state.instance.foreign, full_name), state}

  def handle_call(:subscribe, {pid, _tag}, state) do
    {ref, subscribers} = Subscribers.add(state.subscribers, pid)
    {:reply, {:ok, ref, Events.snapshot(state)}, %{state | subscribers: subscribers}}
  end

  def handle_call({:unsubscribe, ref}, _from, state),
    do: {:reply, :ok, %{state | subscribers: Subscribers.remove(state.subscribers, ref)}}

  def handle_call({:peer_started, pid, peer}, _from, %{instance: instance} = state) do
    case :ets.lookup(instance.realm_ids, peer.realm_id) do
      [{_id, other, _pid}] when other != peer.realm ->
        {:reply, {:error, {:same_key, other}}, state}

      _free_or_restarted ->
        :ets.insert(instance.realm_ids, {peer.realm_id, peer.realm, pid})
        {:reply, :ok, monitor(pid, :peer, state)}
    end
  end

  def handle_call({:peer_stopped, realm}, _from, state) do
    :ets.match_delete(state.instance.realm_ids, {:_, realm, :_})

    with [{_realm, status}] <- :ets.lookup(state.instance.peers, realm) do
      status = status |> Map.take([:realm, :key]) |> Map.merge(%{state: :disconnected, attempts: 0, last_error: nil})
      :ets.insert(state.instance.peers, {realm, status})
    end

    # Its Readers are on their way out; who asked for the disconnect sees it done.
    {:reply, :ok, end_current(realm, {:local, :normal}, state)}
  end

  @impl true
  def handle_cast({:news, tag, {reader, link_tag}, news}, state) do
    state =
      case state.sessions do
        %{^tag => session} -> news |> Enum.chunk_by(&elem(&1, 0)) |> Enum.reduce(state, &Foreign.take(&1, session, &2))
        _ended -> state
      end

    # By way of GlobalNames, behind what these news bring it: its mailbox is bounded by the same window.
    GlobalNames.relay(state.name, reader, {link_tag, :news_taken})
    {:noreply, state}
  end

  def handle_cast({:session_up, session}, state), do: {:noreply, do_session_up(session, state)}
  def handle_cast({:session_ended, tag, reason}, state), do: {:noreply, do_session_ended(tag, reason, state)}

  def handle_cast({:session_lost, tag, reason}, state) do
    case state.sessions do
      %{^tag => %{realm: realm, info: info}} ->
        :ets.update_element(state.instance.sessions, realm, {4, Map.put(info, :state, :lost)})
        {:noreply, Events.notify({:peer_lost, realm, reason}, state)}

      _ended ->
        {:noreply, state}
    end
  end

  def handle_cast({:session_resumed, tag, info}, state) do
    case state.sessions do
      %{^tag => %{realm: realm}} ->
        :ets.update_element(state.instance.sessions, realm, {4, Map.put(info, :state, :up)})
        {:noreply, Events.notify({:peer_resumed, realm, info}, put_in(state.sessions[tag].info, info))}

      _ended ->
        {:noreply, state}
    end
  end

  def handle_cast({:links, realm, links}, %{instance: instance} = state) do
    :ets.match_delete(instance.links, {:_, realm, :_, :_, :_})

    for {tag, channel, session, status} <- links,
        do: :ets.insert(instance.links, {tag, realm, channel, session, status})

    {:noreply, state}
  end

  def handle_cast({:peer_status, realm, status}, state) do
    :ets.insert(state.instance.peers, {realm, status})
    {:noreply, state}
  end

  def handle_cast({:proxy_exited, pid}, state), do: {:noreply, Foreign.replace_proxy(pid, state)}

  def handle_cast({:certificate, certificate}, state) do
    for {_tag, session} <- state.sessions, do: announce(session, :cert, certificate)
    {:noreply, %{state | certificate: certificate}}
  end

  @impl true
  def handle_info({:DOWN, monitor, :process, pid, reason}, state) do
    case Map.pop(state.monitors, monitor) do
      {{:engine, engine}, monitors} -> {:noreply, engine_died(engine, reason, %{state | monitors: monitors})}
      {:peer, monitors} -> {:noreply, peer_died(pid, reason, %{state | monitors: monitors})}
      {nil, _monitors} -> {:noreply, %{state | subscribers: Subscribers.remove(state.subscribers, monitor)}}
    end
  end

  # The second look at a registered name; not if somebody has published or withdrawn it meanwhile.
  def handle_info({:again, engine, target, opts}, state) do
    if Map.has_key?(state.engines, engine) or :ets.lookup(state.instance.config, {:published, engine}) == [],
      do: {:noreply, state},
      else: {:noreply, republish(engine, target, opts, state)}
  end

  def handle_info({:sign_ends, wait_ms}, state), do: {:noreply, Ends.ask_again(wait_ms, state)}

  def handle_info({:end_signed, ended, answer, wait_ms}, state),
    do: {:noreply, Ends.handle_answer(ended, answer, wait_ms, state, &announce/3)}

  def handle_info(_stray, state), do: {:noreply, state}

  ## Our engines

  # A supervisor hears of a death before we do, and its next child wants the name: what is on its way to us comes first.
  defp bury(engine, state) do
    with %{pid: pid, monitor: monitor} when node(pid) == node() <- state.engines[engine],
         false <- Process.alive?(pid) do
      receive do
        {:DOWN, ^monitor, :process, ^pid, _reason} = down ->
          {:noreply, state} = handle_info(down, state)
          state
      end
    else
      _alive_or_none -> state
    end
  end

  defp publishable(engine, target, state) do
    case {state.engines, resolve(target)} do
      {_engines, nil} -> {:error, :noproc}
      {%{^engine => %{pid: pid}}, pid} -> {:ok, pid}
      {%{^engine => %{pid: other}}, _pid} -> {:error, {:already_published, other}}
      {_engines, pid} -> {:ok, pid}
    end
  end

  defp do_publish(engine, target, pid, opts, state) do
    with {:ok, state} <- Ends.settle(engine, state, &announce/3), do: enter(engine, target, pid, opts, state)
  end

  defp enter(engine, target, pid, opts, %{instance: instance} = state) do
    serial = next_serial(state)
    before = state.engines[engine]

    case Announcement.learn(instance, engine, serial, opts) do
      {:ok, key, signed} ->
        state = if before, do: demonitor(before.monitor, state), else: state
        monitor = Process.monitor(pid)
        to = opts[:to] || :all
        publication = %{target: target, pid: pid, monitor: monitor, to: to, opts: opts, signed: signed}

        :ets.insert(instance.config, {{:published, engine}, target, opts})
        # In this order: who finds it finds its version.
        :ets.insert(instance.details, {engine, %{key: key, pid: pid, to: to, version: opts[:version], ops: opts[:ops]}})
        :ets.insert(instance.published, {engine, target, to, opts[:receipts]})
        :ets.insert_new(instance.pids, {pid, engine})

        {told, others} = Enum.split_with(Map.values(state.sessions), &Policy.exported?(&1.policy, engine, to))

        for session <- told do
          if opts[:receipts], do: Native.session_receipts(session.session, [engine])
          announce(session, :learn, signed)
        end

        # It was there for these peers, and with the new `to:` it is no more.
        untold = if before, do: Enum.filter(others, &Policy.exported?(&1.policy, engine, before.to)), else: []
        state = Ends.tell(engine, :withdrawn, serial + 1, untold, state, &announce/3)

        if before == nil, do: GlobalNames.published(state.name, Instance.full_name(instance, engine), pid)

        {:ok,
         %{
           state
           | serial: serial + 1,
             engines: Map.put(state.engines, engine, publication),
             names: Map.update(state.names, pid, %{engine => true}, &Map.put(&1, engine, true)),
             monitors: Map.put(state.monitors, monitor, {:engine, engine})
         }}

      {:error, reason} ->
        {{:error, reason}, state}
    end
  end

  defp republish(engine, target, opts, state) do
    with {:ok, pid} <- publishable(engine, target, state) do
      case do_publish(engine, target, pid, opts, state) do
        {:ok, state} ->
          state

        # The keyholder does not sign, which need not last: what has a name is looked at again.
        {{:error, error}, state} when is_atom(target) ->
          words = "the engine #{engine} is there again and could not be published: #{inspect(error)}"
          Telemetry.log(:error, {:learn, state.name}, words)
          look_again(engine, target, opts, @unsigned_again_ms, state)

        {_error, state} ->
          withdrawn(engine, state)
      end
    else
      # Its process has not come back.
      {:error, _reason} -> withdrawn(engine, state)
    end
  end

  # Until then it counts as published, so that it can be withdrawn.
  defp look_again(engine, target, opts, wait_ms, state) do
    :ets.insert(state.instance.config, {{:published, engine}, target, opts})
    Process.send_after(self(), {:again, engine, target, opts}, wait_ms)
    state
  end

  defp withdrawn(engine, state) do
    :ets.delete(state.instance.config, {:published, engine})
    state
  end

  defp do_withdraw(engine, reason, %{instance: instance} = state) do
    {publication, engines} = Map.pop!(state.engines, engine)
    state = demonitor(publication.monitor, %{state | engines: engines})
    :ets.delete(instance.config, {:published, engine})
    :ets.delete(instance.published, engine)
    :ets.delete(instance.details, engine)
    :ets.delete_object(instance.pids, {publication.pid, engine})

    state = forget_name(engine, publication.pid, state)

    GlobalNames.drop(state.name, Instance.full_name(instance, engine), publication.pid)
    told = for {_tag, session} <- state.sessions, Policy.exported?(session.policy, engine, publication.to), do: session
    answered(engine, told, instance)
    # A peer that may not monitor it hears that it is gone and no more.
    {watching, others} = Enum.split_with(told, &Policy.watched?(&1.policy, engine))
    serial = next_serial(state)
    for %{reasons: :full} = session <- watching, reason != :withdrawn, do: push_reason(engine, reason, session, state)
    class = if reason == :withdrawn, do: reason, else: Announcement.reason(reason)
    state = Ends.tell(engine, class, serial, watching, state, &announce/3)
    state = Ends.tell(engine, :withdrawn, serial, others, state, &announce/3)
    %{state | serial: serial}
  end

  # What it has answered goes before its end: its answers are with who stands for its callers, and a call that is answered must not end
  # with it.
  defp answered(engine, sessions, instance) do
    stand_ins =
      for %{tag: tag, session: session} <- sessions,
          caller <- Native.session_callers_at(session, engine),
          [{_key, pid, _used}] <- [:ets.lookup(instance.stand_ins, {tag, caller})],
          do: pid

    StandIn.settle(stand_ins, instance.ref, @answers_ms)
  end

  # The process may be published under another name, too, and signs under that from now on.
  defp forget_name(engine, pid, state) do
    others = state.names |> Map.fetch!(pid) |> Map.delete(engine)

    case :maps.next(:maps.iterator(others)) do
      {other, true, _rest} ->
        :ets.insert_new(state.instance.pids, {pid, other})
        %{state | names: Map.put(state.names, pid, others)}

      :none ->
        %{state | names: Map.delete(state.names, pid)}
    end
  end

  defp push_reason(engine, reason, session, state) do
    reason = :erlang.term_to_binary(Handle.reason(:full, reason), minor_version: 2)
    told(Native.session_push_reason(session.session, engine, reason), session, state)
  end

  # What was pushed may have given away processes of ours.
  defp told({:ok, []}, _session, _state), do: :ok

  defp told({:ok, exported}, session, state),
    do: send(session.peer, {state.instance.ref, :exported, session.tag, exported})

  # It can't go, and the peer hears the class alone.
  defp told({:error, _reason}, _session, _state), do: :ok

  defp engine_died(engine, reason, state) do
    %{target: target, opts: opts} = Map.fetch!(state.engines, engine)
    state = do_withdraw(engine, reason, state)

    case is_atom(target) and resolve(target) do
      false ->
        state

      nil ->
        look_again(engine, target, opts, @restart_grace_ms, state)

      _restarted ->
        republish(engine, target, opts, state)
    end
  end

  # Serials rise across restarts (protocol.md 11.4).
  defp next_serial(state), do: max(System.system_time(:microsecond), state.serial + 1)

  # A session that has no link at the moment sends it when it has one.
  defp announce(%{session: session}, kind, signed), do: Native.session_announce(session, kind, signed)

  ## Sessions

  defp do_session_up(%{realm: realm, session: resource, policy: policy} = session, state) do
    # A newer session of the same peer ends the older.
    state = end_current(realm, {:local, :replaced}, state)
    announce(session, :cert, state.certificate)

    exported =
      for {engine, engine_info} <- state.engines,
          Policy.exported?(policy, engine, engine_info.to),
          do: {engine, engine_info}

    receipts = for {engine, %{opts: opts}} <- exported, opts[:receipts], do: engine
    if receipts != [], do: Native.session_receipts(resource, receipts)
    for {_engine, %{signed: signed}} <- exported, do: announce(session, :learn, signed)
    # The peer knows by now who signs them.
    if session.adopt, do: told(Native.session_adopt(resource, session.adopt), session, state)

    :ets.insert(state.instance.sessions, {realm, session.tag, resource, Map.put(session.info, :state, :up)})
    state = Events.notify({:peer_up, realm, session.info}, state)
    session = session |> Map.delete(:adopt) |> Map.put(:engines, MapSet.new())

    %{
      state
      | sessions: Map.put(state.sessions, session.tag, session),
        current: Map.put(state.current, realm, session.tag)
    }
  end

  defp end_current(realm, reason, state) do
    case state.current do
      %{^realm => tag} -> do_session_ended(tag, reason, state)
      _no_session -> state
    end
  end

  defp do_session_ended(tag, reason, state) do
    case Map.pop(state.sessions, tag) do
      {nil, _sessions} ->
        state

      {%{realm: realm} = session, sessions} ->
        Native.session_end(session.session)
        :ets.delete(state.instance.sessions, realm)
        # Its Peer may have had no time for that.
        :ets.match_delete(state.instance.stand_ins, {{tag, :_}, :_, :_})
        keep_counters(session, state)
        state = %{state | sessions: sessions, current: Map.delete(state.current, realm)}
        state = Enum.reduce(session.engines, state, &Foreign.drop(&1, session, :noconnection, :noconnection, &2))
        lost = Native.session_gap(session.session)
        state = if lost > 0, do: Events.notify({:gap, realm, lost}, state), else: state
        state = unproven(Native.session_unproven(session.session), realm, state)
        Events.notify({:peer_down, realm, reason}, state)
    end
  end

  defp unproven(nil, _realm, state), do: state

  # Some of it may have been acted upon already.
  defp unproven({first, last}, realm, state) do
    Telemetry.log(:warning, {:unproven, state.name, realm}, fn ->
      "messages #{first} to #{last} of #{inspect(realm)} were delivered, and it has not proven that it sent them"
    end)

    Events.notify({:unproven, realm, first, last}, state)
  end

  # What a session has counted outlives it: an attack that closes its link must not take the evidence along.
  defp keep_counters(session, %{instance: %{config: config}}) do
    key = {:ended, session.realm}
    before = with [{_key, counters}] <- :ets.lookup(config, key), do: counters, else: ([] -> %{})
    :ets.insert(config, {key, Counters.add_session(before, Native.session_counters(session.session))})
  end

  # Its Readers watch it too and go, and its session can't go on without it. The supervisor may have started it again already,
  # but it has no session then: no link came up before this.
  defp peer_died(pid, reason, %{instance: instance} = state) do
    for {realm_id, realm, ^pid} <- :ets.match_object(instance.realm_ids, {:_, :_, pid}) do
      :ets.delete(instance.realm_ids, realm_id)
      :ets.match_delete(instance.links, {:_, realm, :_, :_, :_})
    end

    Enum.reduce(Map.values(state.sessions), state, fn
      %{peer: ^pid, tag: tag}, state -> do_session_ended(tag, Status.why(reason), state)
      _anothers, state -> state
    end)
  end

  ## Monitors

  defp monitor(pid, what, state), do: %{state | monitors: Map.put(state.monitors, Process.monitor(pid), what)}

  defp demonitor(monitor, state) do
    Process.demonitor(monitor, [:flush])
    %{state | monitors: Map.delete(state.monitors, monitor)}
  end
end
