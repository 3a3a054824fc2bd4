defmodule Legation.Connection.Reader do
  @moduledoc false
  # Owns one carrier connection: dials or is given it, feeds what arrives to the channel, and does what the channel's
  # events say. Never sends; the Writer does (see Legation.Connection).
  #
  # phase: :opening (no channel yet) -> :handshake -> :up, or :refused. All ends are orderly: the reason of its exit is
  # `{:shutdown, why}`, with `why` one of
  #
  #   {:connect, reason}          the carrier did not come about
  #   {:closed, code, text}       the peer said goodbye
  #   {:fault, code, detail}      we must close: the peer broke a rule, or is silent
  #   {:carrier, reason}          the carrier broke
  #   {:local, code}              we want to close: another link is kept, disconnect, ...
  #   {:keyholder, reason}        our keyholder did not sign
  #
  # Everybody who is told of this link knows it by `tag`. What came of the session is its Peer's business: it may have other
  # links, and live on without any.
  #
  # Links of one session take turns: as long as what one brought is being delivered the others' Readers hold what they have
  # read, so that it stays in order.

  use GenServer

  alias Legation.{Counters, Directory, Instance, Keyholder, Native, Telemetry}
  alias Legation.Connection.{Delivery, Goodbye, Handles, Handshake, Writer}
  alias Legation.Peer.{Flow, Links}

  # Messages of the carrier that may wait in our mailbox before it waits for us.
  @active 32
  # Who says a handshake in more than `handshake_reads` pieces is read once in so long from then on: by the thousands, a byte at a time,
  # they would have us do nothing else. A handshake that is meant comes in a few.
  @slow_read_ms 250
  # What is decrypted at once, on a normal scheduler (`SLICE_BYTES` of the NIF).
  @slice_bytes 65_536
  # A peer that announces faster than the Directory takes it is not read any more, so that no mailbox grows.
  @news_open_max 64

  @derive {Inspect, only: [:instance, :carrier, :profile, :realm, :phase]}
  defstruct [
    :instance,
    :connection,
    :carrier,
    :conn,
    :channel,
    :profile,
    :writer,
    :timer,
    :peer,
    :peer_monitor,
    :realm,
    :delivery,
    :drainer,
    # Bytes that wait for another link's turn to end; why the carrier ended behind them.
    :held,
    :gone,
    # Until when the peer is told what was delivered.
    :ack_timer,
    phase: :opening,
    knocked: false,
    # Of the handshake: reads that are left of those that come at once, not asked for yet; nil: it is read slowly.
    reads_left: 0,
    # The session is up, and nothing of it was handled yet.
    begins: false,
    # Messages of news that the Directory has not taken yet, and whether the carrier waits for it or for our turn.
    news_open: 0,
    paused: false
  ]

  def start_link(connection), do: GenServer.start_link(__MODULE__, connection)

  @doc "To a responder: the connection is yours."
  def hand_over(pid, conn), do: send(pid, {:go, conn})

  @doc "Say goodbye with this code, and end."
  def close(pid, tag, code), do: send(pid, {tag, :close, code})

  @doc "Tell `pid` `{tag, :drained}` as soon as no call is open in either direction."
  def drain(pid, tag, drainer), do: send(pid, {tag, :drain, drainer})

  @doc "The Peer's policy has changed."
  def policy(pid, tag, policy), do: send(pid, {tag, :policy, policy})

  @impl true
  def init(connection) do
    Process.flag(:trap_exit, true)
    instance = Instance.fetch!(connection.name)

    state = %__MODULE__{
      instance: instance,
      connection: connection,
      carrier: connection.carrier,
      peer: connection.peer,
      realm: connection.realm
    }

    case connection.role do
      :initiator -> {:ok, watch_peer(state), {:continue, :connect}}
      :responder -> {:ok, state, Instance.limit(instance, :handshake_ms)}
    end
  end

  @impl true
  def handle_continue(:connect, %{connection: connection, instance: instance} = state) do
    case state.carrier.connect(connection.opts, Instance.limit(instance, :connect_ms)) do
      {:ok, conn} ->
        send(state.peer, {connection.tag, :connected})
        open(%{state | conn: conn})

      {:error, reason} ->
        stop({:connect, reason}, state)
    end
  end

  @impl true
  def handle_info({:go, conn}, %{phase: :opening} = state), do: open(%{state | conn: conn})
  # Whoever accepted the connection did not hand it over.
  def handle_info(:timeout, %{phase: :opening} = state), do: stop({:carrier, :not_handed_over}, state)

  def handle_info({:timeout, timer, :channel}, %{timer: timer} = state), do: timeout(%{state | timer: nil})

  # A timer that was cancelled too late.
  def handle_info({:timeout, _timer, :channel}, state), do: {:noreply, state}

  def handle_info({:EXIT, writer, reason}, %{writer: writer} = state) do
    state = %{state | writer: nil}

    case reason do
      {:shutdown, {:send, reason}} -> stop({:carrier, reason}, state)
      _crash -> stop({:carrier, :writer}, state)
    end
  end

  def handle_info({:EXIT, _pid, _reason}, state), do: {:noreply, state}

  # Without its Peer nobody would care for this link.
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{peer_monitor: monitor} = state),
    do: stop({:local, :shutdown}, state)

  def handle_info({tag, :close, code}, %{connection: %{tag: tag}} = state), do: stop({:local, code}, state)

  # From the Listener: the place is needed. Too late once the session is up.
  def handle_info(:evict, %{phase: :up} = state), do: {:noreply, state}
  def handle_info(:evict, state), do: stop({:carrier, :evicted}, state)

  def handle_info({tag, :policy, policy}, %{connection: %{tag: tag}, delivery: delivery} = state) when delivery != nil,
    do: {:noreply, %{state | delivery: %{delivery | policy: policy}}}

  def handle_info({tag, :news_taken}, %{connection: %{tag: tag}} = state),
    do: resume(%{state | news_open: state.news_open - 1})

  # From the native library: it is our turn.
  def handle_info(:free, %{held: held} = state) when held != nil do
    with {:noreply, state} <- feed(IO.iodata_to_binary(held), %{state | held: nil}) do
      case state do
        %{held: nil, gone: why} when why != nil -> stop(why, state)
        _goes_on -> resume(state)
      end
    end
  end

  def handle_info({tag, :read_on}, %{connection: %{tag: tag}} = state), do: resume(state)

  def handle_info({:timeout, timer, :acknowledge}, %{ack_timer: timer} = state) do
    Native.session_acknowledge(state.delivery.session)
    {:noreply, %{state | ack_timer: nil}}
  end

  def handle_info({tag, :drain, drainer}, %{connection: %{tag: tag}, phase: :up} = state) do
    send(state.writer, {:watch, self(), {tag, :check_drained}})
    {:noreply, check_drained(%{state | drainer: drainer, delivery: %{state.delivery | draining: true}})}
  end

  def handle_info({tag, :check_drained}, %{connection: %{tag: tag}} = state), do: {:noreply, check_drained(state)}

  # Not open yet, or no longer: what the carrier says has no meaning.
  def handle_info(_stray, %{channel: nil} = state), do: {:noreply, state}

  def handle_info(message, %{carrier: carrier, conn: conn} = state) do
    case carrier.stream(conn, message) do
      {:data, bytes} ->
        feed(bytes, state)

      :passive when state.phase == :handshake ->
        read_on(state)

      :passive ->
        resume(%{state | paused: true})

      :closed ->
        gone({:carrier, :closed}, state)

      {:error, reason} ->
        gone({:carrier, reason}, state)

      :unknown ->
        {:noreply, state}
    end
  end

  defp feed(bytes, %{held: nil} = state), do: feed(bytes, :more, state)

  # Few: the carrier is not asked for more before it is our turn.
  defp feed(bytes, state), do: {:noreply, %{state | held: [state.held | bytes]}}

  # A slice at a time: what one has brought is delivered before the next.
  defp feed(<<slice::binary-size(@slice_bytes), rest::binary>>, how, state) when rest != "" do
    with {:noreply, %{held: nil} = state} <- feed(slice, how, state) do
      feed(rest, :more, state)
    else
      {:noreply, %{held: held} = state} -> {:noreply, %{state | held: [held | rest]}}
      stop -> stop
    end
  end

  defp feed(bytes, how, state) do
    case handle_bytes(state, bytes, how) do
      :busy ->
        {:noreply, %{state | held: bytes}}

      {events, wake, :done} ->
        run(events, wake, knocked(state, wake))

      {events, wake, more_or_large} ->
        with {:noreply, state} <- run(events, wake, state), do: feed("", more_or_large, state)
    end
  end

  # A slice is worked off here in the time in which a dirty scheduler is reached.
  defp handle_bytes(%{channel: channel, phase: :up}, bytes, :more) do
    now = Instance.now_ms()

    with :dirty <- Native.channel_handle_slice(channel, bytes, now),
         do: Native.channel_handle_bytes(channel, bytes, now)
  end

  defp handle_bytes(%{channel: channel}, bytes, _how),
    do: Native.channel_handle_bytes(channel, bytes, Instance.now_ms())

  ## Opening

  defp open(%{connection: connection, carrier: carrier, conn: conn, instance: instance} = state) do
    profile = connection.opts[:profile] || carrier.default_profile()
    state = %{state | profile: profile}

    with :ok <- carrier.check_peer(conn, connection.opts),
         {:ok, channel} <- Handshake.channel(profile, connection, instance) do
      Telemetry.execute([:legation, :connection, :opened], %{count: 1}, metadata(state))
      {events, wake, next_ms} = Native.channel_timeout(channel, Instance.now_ms())

      state = %{
        start_timer(state, next_ms)
        | channel: channel,
          phase: :handshake,
          writer: Writer.start_link(channel, carrier, conn)
      }

      reads = Instance.limit(instance, :handshake_reads)
      with {:noreply, state} <- read_on(%{state | reads_left: reads}), do: run(events, wake, state)
    else
      {:error, reason} -> stop({:connect, reason}, state)
    end
  end

  # What came before the end may be a goodbye.
  defp gone(why, %{held: nil} = state), do: stop(why, state)
  defp gone(why, state), do: {:noreply, %{state | gone: why}}

  # The carrier may bring more, once nothing is in the way.
  defp resume(%{paused: true, held: nil, news_open: open} = state) when open < @news_open_max,
    do: activate(%{state | paused: false})

  defp resume(state), do: {:noreply, state}

  # Of a handshake.
  defp read_on(%{reads_left: left} = state) when left in [0, nil] do
    if left == 0, do: Counters.add(state.instance.counters, :handshakes_slowed)
    Process.send_after(self(), {state.connection.tag, :read_on}, @slow_read_ms)
    {:noreply, %{state | reads_left: nil, paused: true}}
  end

  defp read_on(%{reads_left: left} = state) do
    count = min(left, @active)
    activate(count, %{state | reads_left: left - count})
  end

  defp activate(%{phase: :handshake} = state), do: activate(1, state)
  defp activate(state), do: activate(@active, state)

  defp activate(count, %{carrier: carrier, conn: conn, phase: phase} = state) do
    stranger? = phase == :handshake and function_exported?(carrier, :activate_stranger, 2)

    case if(stranger?, do: carrier.activate_stranger(conn, count), else: carrier.activate(conn, count)) do
      :ok -> {:noreply, state}
      {:error, reason} -> stop({:carrier, reason}, state)
    end
  end

  # A responder that has something to say has accepted the knock.
  defp knocked(%{knocked: false, phase: :handshake, connection: %{role: :responder} = connection} = state, true) do
    send(connection.listener, {:knocked, self()})
    %{state | knocked: true}
  end

  defp knocked(state, _wake), do: state

  ## Events

  # All of one read; then the Writer is woken once.
  defp run(events, wake, state) do
    case handle_events(events, state, wake, []) do
      {:ok, state, wake, news} ->
        state = delivered(tell(news, state))
        if wake, do: send(state.writer, :wake)
        state = if state.drainer, do: check_drained(state), else: state
        if state.begins, do: begin(%{state | begins: false}), else: {:noreply, state}

      {:stop, why, state} ->
        stop(why, state)
    end
  end

  # The timer was the handshake's. Then what came right behind the hello: it waits for its turn, too.
  defp begin(state) do
    if state.timer, do: :erlang.cancel_timer(state.timer)
    with {:noreply, state} <- timeout(%{state | timer: nil}), do: feed("", state)
  end

  defp timeout(state) do
    {events, wake, next_ms} = Native.channel_timeout(state.channel, Instance.now_ms())
    run(events, wake, start_timer(state, next_ms))
  end

  defp delivered(%{phase: :up, instance: instance, delivery: %{session: session} = delivery} = state) do
    acknowledge = Native.channel_delivered(state.channel)
    if Flow.look(instance, session), do: send(state.peer, {instance.ref, :owes, delivery.tag})

    case acknowledge do
      :later when state.ack_timer == nil ->
        %{state | ack_timer: :erlang.start_timer(Instance.limit(state.instance, :ack_ms), self(), :acknowledge)}

      _told_or_will_be ->
        state
    end
  end

  defp delivered(state), do: state

  defp handle_events([], state, wake, news), do: {:ok, state, wake, news}

  # Announcements in a row are one message to the Directory, which has it before any message that follows them: who gets
  # that can ask who sent it.
  defp handle_events([event | _] = events, state, wake, [_ | _] = news) when elem(event, 0) not in [:learn, :forget] do
    handle_events(events, tell(news, state), wake, [])
  end

  defp handle_events([event | events], state, wake, news) do
    case event do
      {kind, dst, src, payload, receipt} when kind in [:cast, :send] ->
        Delivery.message(state.delivery, kind, dst, src, payload, receipt)
        handle_events(events, state, wake, news)

      {:call, dst, src, label, call_id, caller, payload, receipt} ->
        Delivery.call(state.delivery, dst, src, label, call_id, caller, payload, receipt)
        handle_events(events, state, wake, news)

      {:reply, from, payload} ->
        Delivery.reply(state.delivery, from, payload)
        handle_events(events, state, wake, news)

      {:refused, from, reason} ->
        Delivery.refused(from, reason)
        handle_events(events, state, wake, news)

      {:exit, kind, from, dst, src, payload} ->
        Delivery.exit(state.delivery, kind, from, dst, src, payload)
        handle_events(events, state, wake, news)

      {:handle_ended, number, reason, term} ->
        Handles.ended(state.delivery, number, reason, term)
        handle_events(events, state, wake, news)

      # A peer that proves later what it sends now is looked after sooner.
      {:timeout_in, ms} ->
        if state.timer, do: :erlang.cancel_timer(state.timer)
        handle_events(events, start_timer(state, ms), wake, news)

      {:unexported, number} ->
        send(state.peer, {state.instance.ref, :unexported, state.delivery.tag, number})
        handle_events(events, state, wake, news)

      {:rotated, _serial, _key} ->
        Keyholder.heads_changed(state.instance)
        handle_events(events, state, wake, news)

      {:learn, _engine, _info} = learn ->
        handle_events(events, state, wake, [learn | news])

      {:forget, engine, reason, term} ->
        forget = {:forget, engine, {reason, Handles.reason(state.delivery, reason, term)}}
        handle_events(events, state, wake, [forget | news])

      {:hello, realm_id, key, offer} ->
        {verdict, peer, realm} = Handshake.hello(state.instance, state.connection, realm_id, key, offer)
        state = if peer, do: watch_peer(%{state | peer: peer, realm: realm}), else: state
        {more, woken} = Native.channel_decide(state.channel, verdict, Instance.now_ms())

        case verdict do
          {:accept, _session, _limits} -> handle_events(more ++ events, state, wake or woken, news)
          # Its CLOSE is queued.
          {:refuse, code} -> {:stop, {:local, code}, %{state | phase: :refused}}
        end

      {:sign, id, purpose, body} ->
        case Keyholder.sign(state.instance, purpose, body) do
          {:ok, signature} ->
            {more, woken} = Native.channel_signature(state.channel, id, signature, Instance.now_ms())
            handle_events(more ++ events, state, wake or woken, news)

          {:error, reason} ->
            {:stop, {:keyholder, reason}, state}
        end

      {:up, session, info} ->
        with {:ok, state} <- up(session, info, state), do: handle_events(events, state, wake, news)

      {:closed, code, text} ->
        {:stop, {:closed, code, text}, state}

      {:fault, code, detail} ->
        {:stop, {:fault, code, detail}, state}
    end
  end

  # The Peer is told before the Directory gets any of this link's engines.
  defp up(session, info, %{instance: instance, connection: connection} = state) do
    link = %{
      tag: connection.tag,
      reader: self(),
      writer: state.writer,
      channel: state.channel,
      session: session,
      session_id: info.session_id,
      resumed: info.resumed,
      additional: info.additional,
      # The session that this was to be one more link of.
      beside: if(connection.additional, do: connection.resume),
      initiator: connection.role == :initiator,
      index: connection.index,
      status: %{
        realm: state.realm,
        key: info.key,
        profile: info.profile,
        role: info.role,
        version: info.version,
        signing: info.signing,
        session_id: info.session_id,
        carrier: state.carrier,
        address: label(state),
        since: DateTime.utc_now()
      }
    }

    case Handshake.up(state.peer, link) do
      {:ok, session_tag, policy, reasons} ->
        if connection.listener, do: send(connection.listener, {:up, self()})
        if function_exported?(state.carrier, :established, 1), do: state.carrier.established(state.conn)

        delivery = %Delivery{
          instance: instance,
          peer: state.peer,
          realm: state.realm,
          policy: policy,
          reasons: reasons,
          queue_max: Instance.limit(instance, :engine_queue_max) || :infinity,
          session: session,
          tag: session_tag,
          asking: :atomics.new(1, [])
        }

        {:ok, %{state | delivery: delivery, phase: :up, begins: true}}

      {:close, code} ->
        {:stop, {:local, code}, state}
    end
  end

  defp tell([], state), do: state

  defp tell(news, state) do
    Directory.news(state.instance.name, state.delivery.tag, {self(), state.connection.tag}, Enum.reverse(news))
    %{state | news_open: state.news_open + 1}
  end

  defp watch_peer(%{peer_monitor: nil, peer: peer} = state), do: %{state | peer_monitor: Process.monitor(peer)}
  defp watch_peer(state), do: state

  defp check_drained(%{drainer: nil} = state), do: state

  defp check_drained(state) do
    counters = Native.session_counters(state.delivery.session)

    if counters.calls_pending == 0 and counters.calls_served == 0 do
      send(state.drainer, {state.connection.tag, :drained})
      %{state | drainer: nil}
    else
      state
    end
  end

  defp start_timer(state, nil), do: state
  defp start_timer(state, next_ms), do: %{state | timer: :erlang.start_timer(max(next_ms, 1), self(), :channel)}

  ## The end

  defp stop(why, state), do: {:stop, {:shutdown, why}, state}

  @impl true
  def terminate(reason, state) do
    why = with {:shutdown, why} <- reason, do: why

    # If the session goes on, what it has to say is for another link, from before anybody hears of the end of this one.
    if state.channel && Links.keeps_session?(why), do: Native.channel_detach(state.channel)

    # Then those who wait: if the session ends, their calls end now, not when the last bytes have left, and the Peer can
    # dial again.
    if state.peer, do: send(state.peer, {state.connection.tag, :ended, why})

    # Before the peer hears of it: who looks then finds it counted.
    if state.phase == :up, do: link_failed(why, state), else: handshake_failed(why, state)

    cond do
      state.channel -> Goodbye.say(why, state)
      state.conn -> state.carrier.close(state.conn)
      true -> :ok
    end

    if state.channel,
      do: Telemetry.execute([:legation, :connection, :closed], %{count: 1}, Map.put(metadata(state), :reason, why))
  end

  defp link_failed({:fault, :timeout, _detail}, state),
    do: Counters.add(state.instance.counters, :links_silent)

  defp link_failed({:fault, :abuse, _detail}, state), do: Counters.add(state.instance.counters, :links_abused)
  defp link_failed(_why, _state), do: :ok

  defp handshake_failed({:local, _code}, %{phase: phase}) when phase != :refused, do: :ok
  defp handshake_failed(:shutdown, _state), do: :ok

  defp handshake_failed(why, state) do
    Counters.add(state.instance.counters, :handshakes_failed)

    case why do
      {:fault, :knock, _detail} -> Counters.add(state.instance.counters, :knocks_refused)
      {:fault, :knock_memory_full, _detail} -> Counters.add(state.instance.counters, :knock_memory_full)
      {:fault, :answer, _detail} -> Counters.add(state.instance.counters, :answers_refused)
      {:fault, :timeout, _detail} -> Counters.add(state.instance.counters, :handshakes_timed_out)
      {:fault, :stale_key, detail} -> stale_key(detail, state)
      {:fault, :revoked, _detail} -> Counters.add(state.instance.counters, :hellos_revoked)
      _another -> :ok
    end

    Telemetry.execute([:legation, :handshake, :failed], %{count: 1}, Map.put(metadata(state), :reason, why))
  end

  # Somebody has a key that its realm has replaced. Of a thief its owner wants to know.
  defp stale_key(detail, state) do
    Counters.add(state.instance.counters, :hellos_stale_key)
    who = if state.realm, do: "the peer #{inspect(state.realm)}", else: "a realm that dialled us"
    Telemetry.log(:warning, {:stale_key, state.instance.name}, fn -> "#{who} was refused: #{detail}" end)
  end

  defp metadata(state) do
    %{
      instance: state.instance.name,
      realm: state.realm,
      role: state.connection.role,
      carrier: state.carrier,
      profile: state.profile,
      address: label(state)
    }
  end

  defp label(%{conn: nil}), do: nil
  defp label(%{carrier: carrier, conn: conn}), do: carrier.peer_label(conn)
end
