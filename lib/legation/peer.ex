defmodule Legation.Peer do
  @moduledoc false
  # One peer that is on the list: dials it, decides which links live, backs off, and looks after the session, which
  # outlives its links.
  #
  #   no session ──up──► up ──last link lost──► lost ──resumed──► up
  #        ▲              │ goodbye, fault        │ grace over, the peer comes with a new session
  #        └──────────────┴───────────────────────┘ ended: proxies, calls and stand-ins end with it
  #
  # It never waits for anything. Dialling is done by the Reader that it starts; what came of it arrives as a message.
  # What is decided is in Links, which addresses are dialled in Dialling, processes that a session knows in Callers.

  use GenServer

  alias Legation.{Backoff, Directory, Instance, Keyholder, Native, Options, Policy}
  alias Legation.Connection.{Handshake, Reader}
  alias Legation.Peer.{Callers, Dialling, Flow, Links, Status}

  # Links of one session that a peer may have with us at once.
  @links_max 4

  # monitors: monitor => {:link, tag} | {:export, number}, for links whatever has become of them.
  # session: %{tag, resource, id, initiator?, lost}: known to proxies and stand-ins by its tag. initiator?: we dialled its first
  #   link. lost: how its last link ended, if it has none.
  # links: tag => link that is up, all of the one session; active: the tag of the one that we send on.
  # leaving: tag => {channel, tag of the session}, of links that we have let go and whose Readers are still there; nil: it has said so.
  # grace: the timer of a session that has lost its links.   ended: a session that is over, whose unsigned messages wait for the next.
  # dial, timer, standby, index, tried, backoff, wanted, attempts: see Dialling.
  # exports: number => monitor, of processes of ours that the peer was given.   stand_ins: pid => number, of those it gave us.
  # looks, tick: timers of Flow.
  # lost: how the last link or dial ended, for the status.
  @derive {Inspect, only: [:instance, :addresses, :lost, :attempts]}
  defstruct [
    :name,
    :instance,
    :peer,
    :policy,
    :limits,
    :addresses,
    :backoff,
    :session,
    :active,
    :grace,
    :ended,
    :dial,
    :timer,
    :sweep,
    :looks,
    :tick,
    :drain,
    :lost,
    :lower?,
    # None of the peer's keys is accepted any more.
    revoked: false,
    wanted: 1,
    links: %{},
    leaving: %{},
    standby: %{},
    monitors: %{},
    stand_ins: %{},
    exports: %{},
    tried: 0,
    attempts: 0,
    index: 0
  ]

  def child_spec({_name, peer} = args),
    do: %{id: {:peer, peer.realm}, start: {__MODULE__, :start_link, [args]}, restart: :permanent}

  def start_link(args), do: GenServer.start_link(__MODULE__, args)

  @doc """
  Refuses new calls, waits for those that are open, then closes. `{:ok, cut}`: the calls of ours that were still open,
  `[{engine, caller}]`.
  """
  def drain(pid, timeout_ms), do: GenServer.call(pid, {:drain, timeout_ms}, :infinity)

  @doc "Its key is revoked: it has no session and no link any more, and gets none."
  def revoke(pid), do: GenServer.call(pid, :revoke, :infinity)

  @doc "Our own key is revoked: all peers are told so, and have no session with us any more."
  def own_key_revoked(pid), do: GenServer.cast(pid, :own_key_revoked)

  @impl true
  def init({name, peer}) do
    Process.flag(:trap_exit, true)
    instance = Instance.fetch!(name)
    limits = Options.of_session(instance.options, peer)
    peer = %{peer | realm_id: Native.realm_id(peer.key)}

    with :ok <- Native.key_check(peer.key),
         :ok <- foreign(peer, instance),
         :ok <- Directory.peer_started(name, peer) do
      state = %__MODULE__{
        name: name,
        instance: instance,
        peer: peer,
        policy: Policy.compile(peer),
        limits: limits,
        wanted: peer.links,
        addresses: List.to_tuple(peer.connect),
        backoff: Backoff.new(limits[:reconnect_min_ms], limits[:reconnect_max_ms]),
        lower?: instance.identity.realm_id < peer.realm_id,
        revoked: Native.realm_revoked(instance.identity.keyring, peer.realm_id)
      }

      {:ok, state, {:continue, :dial}}
    else
      {:error, reason} -> {:stop, {:shutdown, {:peer, peer.realm, reason}}}
    end
  end

  @impl true
  def handle_continue(:dial, state), do: {:noreply, state |> Dialling.dial() |> publish_status()}

  ## What Readers ask

  # What was on its way when its key was revoked.
  @impl true
  def handle_call({:hello, _tag, _reader, _offer}, _from, %{revoked: true} = state) do
    Legation.Counters.add(state.instance.counters, :hellos_revoked)
    {:reply, {:refuse, :revoked}, state}
  end

  def handle_call({:up, _link}, _from, %{revoked: true} = state), do: {:reply, {:close, :revoked}, state}

  def handle_call({:hello, tag, reader, offer}, _from, state) do
    case hello(offer, resumable(offer, state), state) do
      {:accept, session} ->
        {:reply, {:accept, session, Handshake.limits(state.limits)}, Dialling.watch(reader, tag, state)}

      {:refuse, _code} = refusal ->
        Legation.Counters.add(state.instance.counters, :hellos_duplicate)
        {:reply, refusal, state}
    end
  end

  # A dial that was on its way when the drain began.
  def handle_call({:up, %{resumed: false}}, _from, %{drain: drain} = state) when drain != nil,
    do: {:reply, {:close, :shutdown}, state}

  def handle_call({:up, link}, _from, state) do
    case up(link, state) do
      :attach ->
        state = attach(link, state)
        {:reply, {:ok, state.session.tag, state.policy, state.peer.reasons}, state}

      :begin ->
        state = begin_session(link, state)
        {:reply, {:ok, state.session.tag, state.policy, state.peer.reasons}, state}

      {:close, code} ->
        {:reply, {:close, code}, state}
    end
  end

  def handle_call(:revoke, _from, state), do: {:reply, :ok, revoked({:local, :revoked}, state)}

  def handle_call({:drain, _timeout_ms}, _from, %{session: nil} = state),
    do: {:reply, {:ok, []}, publish_status(%{Dialling.cancel(state) | drain: :drained})}

  # It drains already: whoever is in more of a hurry says until when.
  def handle_call({:drain, timeout_ms}, from, %{drain: {froms, timer}} = state) do
    left_ms = :erlang.read_timer(timer)

    if left_ms != false and timeout_ms < left_ms do
      :erlang.cancel_timer(timer)
      {:noreply, %{state | drain: {[from | froms], :erlang.start_timer(timeout_ms, self(), :drain)}}}
    else
      {:noreply, %{state | drain: {[from | froms], timer}}}
    end
  end

  def handle_call({:drain, timeout_ms}, from, state) do
    timer = :erlang.start_timer(timeout_ms, self(), :drain)
    Native.session_drain(state.session.resource)
    # Calls that nobody waits for any more are no reason to stay.
    Callers.sweep(state, 0)
    for {tag, link} <- state.links, do: Reader.drain(link.reader, tag, self())
    {:noreply, publish_status(%{Dialling.stop_standby(state) | drain: {[from], timer}})}
  end

  # The session that a hello offers, if we have it, too, and it can go on.
  defp resumable({id, _additional?}, %{session: %{id: id, resource: session}}),
    do: if(Native.session_can_resume(session), do: session)

  defp resumable(_offer, _state), do: nil

  defp hello(_offer, _session, %{drain: :drained}), do: {:refuse, :shutdown}
  defp hello(_offer, nil, %{drain: drain}) when drain != nil, do: {:refuse, :shutdown}

  defp hello({_id, true}, session, state) when session != nil,
    do: if(map_size(state.links) < @links_max, do: {:accept, session}, else: {:refuse, :duplicate})

  # One more link of a session that we don't have, or that can't have more: it must not replace the link that is up.
  defp hello({_id, true}, nil, %{links: links}) when links != %{}, do: {:refuse, :duplicate}

  defp hello(_offer, session, state) do
    # One that nobody has answered may lead nowhere, and who came to us has found a way.
    dial_ms = if state.dial && state.dial.connected?, do: state.dial.started_ms

    with :accept <- Links.hello(current(state), dial_ms, state.lower?, now_ms(), handshake_ms(state)),
         do: {:accept, session}
  end

  # The session that was resumed has ended meanwhile: the peer has to be told.
  defp up(%{resumed: true, session_id: id}, %{session: session}) when session == nil or session.id != id,
    do: {:close, :normal}

  defp up(%{resumed: true, additional: true}, state),
    do: if(map_size(state.links) < @links_max, do: :attach, else: {:close, :duplicate})

  # It was to be one more link of a session that is over; a new one has begun on another meanwhile. (If it is the one that we have
  # the peer has it no more: then that is over, too, whatever its links look like.)
  defp up(%{resumed: false, beside: beside}, %{session: session, links: links})
       when beside != nil and links != %{} and beside != session.resource,
       do: {:close, :duplicate}

  defp up(link, state) do
    case Links.up(current(state), link.initiator, state.lower?, now_ms(), handshake_ms(state)) do
      :take -> if link.resumed, do: :attach, else: :begin
      :keep_old -> {:close, :duplicate}
    end
  end

  # Our REVOKE is queued on the link that we send on, and the goodbye goes behind it.
  @impl true
  def handle_cast(:own_key_revoked, state),
    do: {:noreply, state |> end_session({:local, :revoked}) |> Dialling.redial() |> publish_status()}

  ## What happens

  @impl true
  def handle_info({:DOWN, monitor, :process, _pid, reason}, state) do
    case Map.pop(state.monitors, monitor) do
      {{:export, number}, monitors} -> {:noreply, Callers.died(number, reason, %{state | monitors: monitors})}
      {{:link, tag}, monitors} -> {:noreply, reader_ended(tag, Status.why(reason), %{state | monitors: monitors})}
      {nil, _monitors} -> {:noreply, state}
    end
  end

  # A Reader on its way out; its last bytes may take a while.
  def handle_info({tag, :ended, why}, state) when is_reference(tag),
    do: {:noreply, link_ended(tag, Status.why(why), said_so(tag, state))}

  def handle_info({tag, :connected}, %{dial: %{tag: tag}} = state),
    do: {:noreply, %{state | dial: %{state.dial | connected?: true}}}

  def handle_info({ref, :exported, tag, exported}, %{instance: %{ref: ref}} = state),
    do: {:noreply, Callers.exported(tag, exported, state)}

  def handle_info({ref, :unexported, tag, number}, %{instance: %{ref: ref}} = state),
    do: {:noreply, Callers.unexported(tag, number, state)}

  def handle_info({ref, :idle, tag, pid, number}, %{instance: %{ref: ref}} = state) do
    Callers.idle(tag, pid, number, state)
    {:noreply, state}
  end

  def handle_info({ref, :stand_in, tag, pid, number}, %{instance: %{ref: ref}} = state),
    do: {:noreply, Callers.stand_in(tag, pid, number, state)}

  def handle_info({:EXIT, pid, _reason}, state), do: {:noreply, Callers.stand_in_ended(pid, state)}

  def handle_info({:timeout, timer, :dial}, %{timer: timer} = state),
    do: {:noreply, %{state | timer: nil} |> Dialling.dial() |> publish_status()}

  def handle_info({:timeout, timer, {:standby, index}}, state) do
    case state.standby do
      %{^index => %{timer: ^timer}} -> {:noreply, Dialling.standby_due(index, state)}
      _cancelled_too_late -> {:noreply, state}
    end
  end

  def handle_info({:timeout, timer, :grace}, %{grace: timer} = state),
    do: {:noreply, state |> end_session(state.session.lost) |> publish_status()}

  def handle_info({:timeout, timer, :sweep}, %{sweep: timer} = state), do: {:noreply, Callers.sweep_due(state)}

  def handle_info({ref, :owes, tag}, %{instance: %{ref: ref}} = state), do: {:noreply, Flow.owes(tag, state)}
  def handle_info({:timeout, timer, :look}, %{looks: {timer, _ms}} = state), do: {:noreply, Flow.look_due(state)}
  def handle_info({:timeout, timer, :tick}, %{tick: timer} = state), do: {:noreply, Flow.tick_due(state)}

  # `overflow: :disconnect`: the peer takes less than we have for it.
  def handle_info({ref, :overflow, tag}, %{instance: %{ref: ref}, session: %{tag: tag}} = state) do
    Legation.Counters.add(state.instance.counters, :sessions_overflowed)
    up_ms = for({_tag, link} <- state.links, do: link.up_ms) |> Enum.max(fn -> now_ms() end)
    state = end_session(state, {:local, :overload})
    {:noreply, state |> Dialling.lost(up_ms) |> publish_status()}
  end

  def handle_info({tag, :drained}, %{drain: {_froms, _timer}} = state) when is_map_key(state.links, tag),
    do: {:noreply, drained([], state)}

  def handle_info({:timeout, timer, :drain}, %{drain: {_froms, timer}} = state),
    do: {:noreply, drained(Callers.sweep(state, 0), state)}

  # Timers that were cancelled too late.
  def handle_info(_stray, state), do: {:noreply, state}

  # Disconnected, or the instance stops. The Directory sees to the rest: it hears of our end however it comes.
  @impl true
  def terminate(reason, state) do
    if state.session do
      Native.session_end(state.session.resource)
      why = with {:local, :shutdown} <- Status.why(reason), do: {:local, :normal}
      Directory.session_ended(state.name, state.session.tag, why)
      publish_links(%{state | links: %{}})
    end

    if state.dial, do: Reader.close(state.dial.reader, state.dial.tag, :normal)
    Dialling.stop_standby(state)
    for {link, code} <- goodbyes(:normal, state), do: Reader.close(link.reader, link.tag, code)
  end

  ## A session's life

  defp begin_session(link, state) do
    # It may have been meant to stand by. Other dials of that kind offer a session that is over.
    index = Dialling.standby_index(state, link.tag)
    state = if index, do: Dialling.standby_up(index, state), else: state
    state = state |> Dialling.stop(link.tag) |> Dialling.stop_standby() |> end_session({:local, :replaced})
    session = %{tag: make_ref(), resource: link.session, id: link.session_id, initiator?: link.initiator, lost: nil}
    state = activate(add(link, %{state | session: session, lost: nil}))
    # The hello may have told of another key of the peer's.
    Keyholder.heads_changed(state.instance)

    # First the status and the links: who hears that the peer is up looks there.
    state = publish_links(publish_status(state))

    Directory.session_up(state.name, %{
      tag: session.tag,
      realm: state.peer.realm,
      session: session.resource,
      peer: self(),
      policy: state.policy,
      reasons: state.peer.reasons,
      info: link.status,
      adopt: state.ended
    })

    Dialling.keep_standby(Flow.begin(%{state | ended: nil}))
  end

  # Another link of the session that we have: the only one from now on, or one more.
  defp attach(link, state) do
    others = state.links
    lost? = others == %{}
    Keyholder.heads_changed(state.instance)
    index = Dialling.standby_index(state, link.tag)
    state = if index, do: Dialling.standby_up(index, state), else: Dialling.stop(state, link.tag)
    state = add(link, %{cancel_grace(state) | lost: nil})
    state = if link.additional, do: state, else: %{state | links: %{link.tag => state.links[link.tag]}}
    state = activate(state)
    state = if link.additional, do: state, else: let_go(Map.values(others), :replaced, state)
    if state.drain, do: Reader.drain(link.reader, link.tag, self())
    state = state |> drop_surplus() |> publish_status() |> publish_links()
    if lost?, do: Directory.session_resumed(state.name, state.session.tag, link.status)
    Dialling.keep_standby(state)
  end

  defp add(link, state), do: %{state | links: Map.put(state.links, link.tag, Map.put(link, :up_ms, now_ms()))}

  # We send on the best of them.
  defp activate(state) do
    case Links.best(Map.values(state.links), state.active, state.session.initiator?) do
      nil ->
        %{state | active: nil}

      %{tag: tag} when tag == state.active ->
        state

      best ->
        Native.channel_activate(best.channel, best.writer)
        %{state | active: best.tag}
    end
  end

  # A better one has come back: the last in our order is one too many.
  defp drop_surplus(%{session: %{initiator?: true}} = state) do
    surplus = Links.surplus(Map.values(state.links), state.wanted)
    state = let_go(surplus, :duplicate, state)
    %{state | links: Map.drop(state.links, Enum.map(surplus, & &1.tag))}
  end

  defp drop_surplus(state), do: state

  # Whether its Reader gives back the turn that it may have is seen when it has ended.
  defp let_go(links, code, %{session: session} = state) do
    for link <- links, do: Reader.close(link.reader, link.tag, code)
    leaving = Map.new(links, &{&1.tag, {&1.channel, session.tag}})
    %{state | leaving: Map.merge(state.leaving, leaving)}
  end

  defp said_so(tag, %{leaving: leaving} = state) do
    case leaving do
      %{^tag => {channel, _session}} -> %{state | leaving: %{leaving | tag => {channel, nil}}}
      _not_let_go -> state
    end
  end

  defp reader_ended(tag, why, state) do
    case Map.pop(state.leaving, tag) do
      {nil, _leaving} -> link_ended(tag, why, state)
      {{channel, session}, leaving} -> let_go_ended(channel, session, why, %{state | leaving: leaving})
    end
  end

  # Killed: its turn goes to the others, but what it had taken has not been delivered, and won't be.
  defp let_go_ended(channel, session, {:local, :crashed} = why, state) do
    Native.channel_detach(channel)

    if state.session && state.session.tag == session,
      do: state |> end_session(why) |> Dialling.lost(now_ms()) |> publish_status(),
      else: state
  end

  defp let_go_ended(_channel, _session, _why, state), do: state

  # The peer has said so, in its hello or since; or we have decided so meanwhile.
  defp link_ended(tag, {:fault, :revoked, _text} = why, state) do
    if Native.realm_revoked(state.instance.identity.keyring, state.peer.realm_id),
      do: revoked(why, %{state | links: Map.delete(state.links, tag)}),
      else: dial_failed(why, state)
  end

  defp link_ended(tag, why, state) do
    cond do
      is_map_key(state.links, tag) ->
        session_link_ended(tag, why, state)

      match?(%{tag: ^tag}, state.dial) ->
        dial_failed(why, %{state | dial: nil})

      index = Dialling.standby_index(state, tag) ->
        index |> Dialling.standby_ended(nil, state) |> Dialling.keep_standby()

      # A link that we had let go already.
      true ->
        state
    end
  end

  defp session_link_ended(tag, why, state) do
    {link, links} = Map.pop!(state.links, tag)
    # If its Reader was killed nobody else says so; otherwise it does when its last bytes have left.
    if why == {:local, :crashed}, do: Native.channel_detach(link.channel)
    state = %{state | links: links}

    cond do
      not Links.keeps_session?(why) -> state |> end_session(why) |> Dialling.lost(link.up_ms) |> publish_status()
      links == %{} -> lose(link, why, state)
      true -> take_over(link, state)
    end
  end

  defp take_over(%{index: index} = link, state) do
    state = if index, do: Dialling.standby_ended(index, now_ms() - link.up_ms, state), else: state
    state |> activate() |> Dialling.keep_standby() |> publish_status() |> publish_links()
  end

  # The last link has gone by accident. Nothing is said to anybody as long as the session may go on.
  defp lose(link, why, %{session: session, limits: %{grace_ms: grace_ms}} = state) do
    state =
      if grace_ms > 0 and Native.session_can_resume(session.resource) do
        timer = :erlang.start_timer(grace_ms, self(), :grace)
        state = %{state | active: nil, grace: timer, session: %{session | lost: why}, lost: why}
        # Before anybody hears of it, as above.
        state = publish_links(publish_status(state))
        Directory.session_lost(state.name, session.tag, why)
        state
      else
        end_session(state, why)
      end

    %{state | lost: why} |> Dialling.lost(link.up_ms) |> publish_status()
  end

  defp end_session(%{session: nil} = state, _why), do: state

  # Nothing is left to wait for.
  defp end_session(%{drain: {froms, timer}} = state, why) do
    :erlang.cancel_timer(timer)
    cut = Callers.sweep(state, 0)
    for from <- froms, do: GenServer.reply(from, {:ok, cut})
    end_session(%{state | drain: :drained}, why)
  end

  defp end_session(%{session: session} = state, why) do
    Native.session_end(session.resource)
    publish_links(%{state | links: %{}})
    Directory.session_ended(state.name, session.tag, why)
    state = Enum.reduce(goodbyes(goodbye(why), state), state, fn {link, code}, state -> let_go([link], code, state) end)

    %{
      Callers.forget(cancel_grace(state))
      | session: nil,
        links: %{},
        active: nil,
        ended: session.resource,
        lost: why
    }
  end

  # The goodbye comes behind all that we have to say, on the link that we send on: on another it would overtake that.
  defp goodbyes(code, %{links: links, active: active}) do
    for {tag, link} <- links do
      last? = tag == active or not is_map_key(links, active)
      {link, if(last?, do: code, else: :replaced)}
    end
  end

  defp goodbye({:local, code}) when code in [:shutdown, :replaced, :overload, :revoked], do: code
  defp goodbye({:fault, :revoked, _text}), do: :revoked
  defp goodbye(_why), do: :normal

  defp revoked(why, state) do
    Keyholder.heads_changed(state.instance)
    :ets.update_element(state.instance.config, {:peer, state.peer.realm}, {3, :revoked})
    state = Dialling.stop_standby(Dialling.cancel(%{state | revoked: true}))
    if state.dial, do: Reader.close(state.dial.reader, state.dial.tag, :revoked)
    publish_status(%{end_session(%{state | dial: nil}, why) | lost: why})
  end

  defp cancel_grace(%{grace: nil} = state), do: state

  defp cancel_grace(%{grace: timer} = state) do
    :erlang.cancel_timer(timer)
    %{state | grace: nil}
  end

  defp dial_failed(why, state) do
    # Turned away because there is a link, or the peer's own dial is on its way: no error.
    state = if match?({:closed, :duplicate, _text}, why), do: state, else: %{state | lost: Status.dial_failed(why)}
    state = if state.links == %{}, do: Dialling.redial(state), else: state
    publish_status(state)
  end

  defp drained(cut, %{drain: {froms, timer}} = state) do
    :erlang.cancel_timer(timer)
    for from <- froms, do: GenServer.reply(from, {:ok, cut})
    %{state | drain: :drained} |> end_session({:local, :shutdown}) |> Dialling.cancel() |> publish_status()
  end

  defp current(%{active: tag, links: links}), do: links[tag]

  ## Status

  defp publish_status(state) do
    Directory.peer_status(state.name, state.peer.realm, Status.of(state))
    state
  end

  defp publish_links(state) do
    Directory.links(state.name, state.peer.realm, Status.links(state))
    state
  end

  defp foreign(%{realm_id: realm_id}, %{identity: %{realm_id: realm_id}}), do: {:error, :own_key}
  defp foreign(_peer, _instance), do: :ok

  defp handshake_ms(state), do: Instance.limit(state.instance, :handshake_ms)
  defp now_ms, do: System.monotonic_time(:millisecond)
end
