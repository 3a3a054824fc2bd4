defmodule Legation.Peer do
  @moduledoc false
  # One peer that is on the list: dials it, decides which link lives, backs off, and looks after what belongs to the
  # session but to no single link process: whose callers have died, which calls nobody waits for any more.
  #
  # It never waits for anything. Dialling is done by the Reader that it starts; what came of it arrives as a message.

  use GenServer

  alias Legation.{Backoff, Connection, Directory, Instance, Native, Policy}
  alias Legation.Connection.Reader
  alias Legation.Peer.{Links, Status}

  # monitors: monitor => {:link, tag} | {:caller, number}, for links whatever has become of them.
  # dial: the link that we are trying; link: the one that is up.
  # tried: how many addresses were tried since the last back-off.
  # lost: how the last link or dial ended, for the status.
  @derive {Inspect, only: [:instance, :addresses, :lost, :callers, :attempts]}
  defstruct [
    :name,
    :instance,
    :peer,
    :policy,
    :addresses,
    :backoff,
    :dial,
    :link,
    :timer,
    :sweep,
    :drain,
    :lost,
    :lower?,
    monitors: %{},
    callers: 0,
    tried: 0,
    attempts: 0,
    index: 0
  ]

  def child_spec({_name, peer} = args),
    do: %{id: {:peer, peer.realm}, start: {__MODULE__, :start_link, [args]}, restart: :permanent}

  def start_link(args), do: GenServer.start_link(__MODULE__, args)

  @doc "Waits for open calls, then closes. `{:ok, cut}`: the calls of ours that were still open, `[{engine, caller}]`."
  def drain(pid, timeout_ms), do: GenServer.call(pid, {:drain, timeout_ms}, :infinity)

  @impl true
  def init({name, peer}) do
    Process.flag(:trap_exit, true)
    instance = Instance.fetch!(name)
    limits = instance.options.limits
    peer = %{peer | realm_id: Native.realm_id(peer.key)}

    with :ok <- Native.key_check(peer.key),
         :ok <- foreign(peer, instance),
         :ok <- Directory.peer_started(name, peer) do
      state = %__MODULE__{
        name: name,
        instance: instance,
        peer: peer,
        policy: Policy.compile(peer),
        addresses: List.to_tuple(peer.connect),
        backoff: Backoff.new(limits[:reconnect_min_ms], limits[:reconnect_max_ms]),
        lower?: instance.identity.realm_id < peer.realm_id
      }

      {:ok, state, {:continue, :dial}}
    else
      {:error, reason} -> {:stop, {:shutdown, {:peer, peer.realm, reason}}}
    end
  end

  @impl true
  def handle_continue(:dial, state), do: {:noreply, state |> dial() |> publish_status()}

  ## What Readers ask

  @impl true
  def handle_call({:hello, _tag, _reader}, _from, %{drain: drain} = state) when drain != nil,
    do: {:reply, {:refuse, :shutdown}, state}

  def handle_call({:hello, tag, reader}, _from, state) do
    dial_ms = state.dial && state.dial.started_ms

    case Links.hello(current(state), dial_ms, state.lower?, now_ms(), handshake_ms(state)) do
      :accept ->
        {:reply, :accept, monitor_link(reader, tag, state)}

      refusal ->
        Legation.Counters.add(state.instance.counters, :hellos_duplicate)
        {:reply, refusal, state}
    end
  end

  # A dial that was on its way when the drain began.
  def handle_call({:up, _link}, _from, %{drain: drain} = state) when drain != nil,
    do: {:reply, {:close, :shutdown}, state}

  def handle_call({:up, link}, _from, state) do
    case Links.up(current(state), link.initiator, state.lower?, now_ms(), handshake_ms(state)) do
      :take -> {:reply, {:ok, state.policy}, take(link, state)}
      :keep_old -> {:reply, {:close, :duplicate}, state}
    end
  end

  def handle_call({:drain, _timeout_ms}, _from, %{link: nil} = state),
    do: {:reply, {:ok, []}, %{cancel_timer(state) | drain: :drained}}

  def handle_call({:drain, timeout_ms}, from, %{link: link} = state) do
    timer = :erlang.start_timer(timeout_ms, self(), :drain)
    # Calls that nobody waits for any more are no reason to stay.
    sweep(state, 0)
    Reader.drain(link.reader, link.tag, self())
    {:noreply, %{cancel_timer(state) | drain: {from, timer}}}
  end

  ## What happens

  @impl true
  def handle_info({:DOWN, monitor, :process, _pid, reason}, state) do
    case Map.pop(state.monitors, monitor) do
      {{:caller, number}, monitors} -> {:noreply, caller_died(number, %{state | monitors: monitors})}
      {{:link, tag}, monitors} -> {:noreply, link_ended(tag, Status.why(reason), %{state | monitors: monitors})}
      {nil, _monitors} -> {:noreply, state}
    end
  end

  # A Reader on its way out; its last bytes may take a while.
  def handle_info({tag, :ended, why}, state) when is_reference(tag), do: {:noreply, link_ended(tag, why, state)}

  # A proxy pushed the first call of a process of ours.
  def handle_info({ref, :caller, tag, pid, number}, %{instance: %{ref: ref}} = state) do
    case state.link do
      %{tag: ^tag} ->
        monitors = Map.put(state.monitors, Process.monitor(pid), {:caller, number})
        {:noreply, start_sweep(%{state | monitors: monitors, callers: state.callers + 1})}

      _an_ended_session ->
        {:noreply, state}
    end
  end

  def handle_info({:timeout, timer, :dial}, %{timer: timer} = state),
    do: {:noreply, %{state | timer: nil} |> dial() |> publish_status()}

  def handle_info({:timeout, timer, :sweep}, %{sweep: timer} = state) do
    if state.link, do: sweep(state, Instance.limit(state.instance, :call_age_ms))
    {:noreply, start_sweep(%{state | sweep: nil})}
  end

  def handle_info({tag, :drained}, %{link: %{tag: tag}, drain: {_from, _timer}} = state),
    do: {:noreply, drained([], state)}

  def handle_info({:timeout, timer, :drain}, %{drain: {_from, timer}} = state) do
    cut = if state.link, do: sweep(state, 0), else: []
    {:noreply, drained(cut, state)}
  end

  # Timers that were cancelled too late.
  def handle_info(_stray, state), do: {:noreply, state}

  # Disconnected, or the instance stops.
  @impl true
  def terminate(_reason, state) do
    for link <- [state.link, state.dial], link != nil, do: Reader.close(link.reader, link.tag, :normal)
  end

  ## Dialling

  defp dial(%{link: nil, dial: nil, drain: nil, addresses: addresses} = state) when addresses != {} do
    {carrier, opts} = elem(addresses, state.index)

    connection = %Connection{
      name: state.name,
      role: :initiator,
      carrier: carrier,
      opts: Keyword.put_new(opts, :send_timeout_ms, Instance.limit(state.instance, :send_timeout_ms)),
      tag: make_ref(),
      peer: self(),
      realm: state.peer.realm,
      key: state.peer.key
    }

    case Connection.start(connection) do
      {:ok, reader} ->
        dial = %{tag: connection.tag, reader: reader, started_ms: now_ms(), carrier: carrier, opts: opts}
        monitor_link(reader, connection.tag, %{state | dial: dial, attempts: state.attempts + 1})

      {:error, _stopping} ->
        redial(state)
    end
  end

  # A link is up or on its way, or there is no address: the peer dials us.
  defp dial(state), do: state

  # Each address is tried once, one right after the other; then we back off.
  defp redial(%{addresses: {}} = state), do: state
  defp redial(%{drain: drain} = state) when drain != nil, do: state

  defp redial(state) do
    size = tuple_size(state.addresses)
    tried = state.tried + 1
    state = %{cancel_timer(state) | index: rem(state.index + 1, size)}

    if tried < size do
      start_dial_timer(0, %{state | tried: tried})
    else
      {delay_ms, backoff} = Backoff.next(state.backoff)
      start_dial_timer(delay_ms, %{state | tried: 0, backoff: backoff})
    end
  end

  defp start_dial_timer(delay_ms, state), do: %{state | timer: :erlang.start_timer(delay_ms, self(), :dial)}

  defp cancel_timer(%{timer: nil} = state), do: state

  defp cancel_timer(%{timer: timer} = state) do
    :erlang.cancel_timer(timer)
    %{state | timer: nil}
  end

  ## Links

  defp take(link, state) do
    state = if state.link, do: leave(state, :replaced), else: state
    state = cancel_timer(state)

    state =
      case state.dial do
        %{tag: tag} when tag != link.tag ->
          Reader.close(state.dial.reader, tag, :duplicate)
          %{state | dial: nil}

        _none_or_this ->
          %{state | dial: nil}
      end

    # First the status: who hears that the peer is up looks there.
    state = publish_status(%{state | link: Map.put(link, :up_ms, now_ms()), lost: nil, tried: 0, attempts: 0})
    Directory.session_up(state.name, Map.put(link, :policy, state.policy))
    state
  end

  defp leave(%{link: link} = state, code) do
    Reader.close(link.reader, link.tag, code)
    forget_callers(%{state | link: nil})
  end

  defp link_ended(tag, why, %{link: %{tag: tag} = link} = state) do
    Directory.session_ended(state.name, tag, why)
    # One that goes as soon as it is up must not be dialled again at once each time.
    backoff = if now_ms() - link.up_ms >= handshake_ms(state), do: Backoff.reset(state.backoff), else: state.backoff
    state = forget_callers(%{state | link: nil, lost: why, backoff: backoff, tried: tuple_size(state.addresses)})
    state = if match?({_from, _timer}, state.drain), do: drained([], state), else: state
    state |> redial() |> publish_status()
  end

  defp link_ended(tag, why, %{dial: %{tag: tag}} = state) do
    state = %{state | dial: nil}
    # Turned away because there is a link, or the peer's own dial is on its way: no error.
    state = if match?({:closed, :duplicate, _text}, why), do: state, else: %{state | lost: Status.dial_failed(why)}
    state = if state.link, do: state, else: redial(state)
    publish_status(state)
  end

  # A link that we had let go already.
  defp link_ended(_tag, _why, state), do: state

  defp monitor_link(reader, tag, state),
    do: %{state | monitors: Map.put(state.monitors, Process.monitor(reader), {:link, tag})}

  defp current(%{link: nil}), do: nil
  defp current(%{link: link}), do: link

  defp drained(cut, %{drain: {from, timer}} = state) do
    :erlang.cancel_timer(timer)
    GenServer.reply(from, {:ok, cut})
    state = if state.link, do: leave(state, :shutdown), else: state
    publish_status(%{state | drain: :drained})
  end

  ## Callers

  defp caller_died(number, state) do
    if state.link && Native.session_release(state.link.session, number) == :wake, do: send(state.link.writer, :wake)
    %{state | callers: state.callers - 1}
  end

  # They were of a session that is over.
  defp forget_callers(state) do
    {callers, links} = Enum.split_with(state.monitors, fn {_monitor, what} -> match?({:caller, _number}, what) end)
    for {monitor, _caller} <- callers, do: Process.demonitor(monitor, [:flush])
    %{state | monitors: Map.new(links), callers: 0}
  end

  # While no process of ours has called, there is nothing to look for.
  defp start_sweep(%{sweep: nil, callers: callers} = state) when callers > 0,
    do: %{state | sweep: :erlang.start_timer(Instance.limit(state.instance, :call_age_ms), self(), :sweep)}

  defp start_sweep(state), do: state

  # A caller that waits monitors the proxy. One that doesn't any more has timed out, and its call is freed. Returns the
  # calls that are waited for, as `{engine, caller}`.
  defp sweep(%{link: link, instance: instance} = state, age_ms) do
    old = Native.session_sweep(link.session, age_ms)

    for {engine, calls} <- Enum.group_by(old, &elem(&1, 1)),
        waiting = waiting(instance, engine <> "@" <> state.peer.realm),
        {call_id, _engine, caller} <- calls,
        MapSet.member?(waiting, caller) or cancel(link, call_id) do
      {engine, caller}
    end
  end

  defp cancel(link, call_id) do
    if Native.session_cancel(link.session, call_id) == :wake, do: send(link.writer, :wake)
    false
  end

  defp waiting(instance, full_name) do
    with [{_name, proxy, _realm, _engine, _counts, _info}] <- :ets.lookup(instance.foreign, full_name),
         {:monitored_by, pids} <- Process.info(proxy, :monitored_by) do
      MapSet.new(pids)
    else
      _gone -> MapSet.new()
    end
  end

  ## Status

  defp publish_status(state) do
    Directory.peer_status(state.name, state.peer.realm, Status.of(state))
    state
  end

  defp foreign(%{realm_id: realm_id}, %{identity: %{realm_id: realm_id}}), do: {:error, :own_key}
  defp foreign(_peer, _instance), do: :ok

  defp handshake_ms(state), do: Instance.limit(state.instance, :handshake_ms)
  defp now_ms, do: System.monotonic_time(:millisecond)
end
