defmodule Legation.Peer.Dialling do
  @moduledoc false
  # Which of a peer's addresses are dialled when. Part of the Peer, in its process and on its state.
  #
  # As long as there is no link one address is dialled at a time, in their order, each once, then after a back-off again: `dial`,
  # `timer`. If the peer has a session with us the dial offers it.
  #
  # Once there is one, and more are wanted (`links:`), who began the session dials the other addresses beside it (`standby`,
  # by index), each with a back-off of its own: those before which, in the list, fewer are up than are wanted. So the
  # first ones of the list are come back to.

  alias Legation.{Backoff, Connection, Instance, Native}
  alias Legation.Connection.Reader

  # Between dials while a session is lost, at most.
  @lost_max_ms 1_000

  @doc "Dials, unless a link is up or on its way, or there is no address: then the peer dials us."
  def dial(%{dial: nil, links: links, addresses: addresses} = state) when links == %{} and addresses != {} do
    if may_dial?(state) do
      session = state.session && state.session.resource
      state = %{state | attempts: state.attempts + 1}

      case start(state.index, session, false, state) do
        {:ok, tag, reader, state} ->
          {carrier, opts} = elem(addresses, state.index)

          %{
            state
            | dial: %{tag: tag, reader: reader, started_ms: now_ms(), connected?: false, carrier: carrier, opts: opts}
          }

        :stopping ->
          redial(state)
      end
    else
      state
    end
  end

  def dial(state), do: state

  # While it drains only the session's open calls are a reason.
  defp may_dial?(%{revoked: true}), do: false
  defp may_dial?(%{drain: nil}), do: true
  defp may_dial?(%{drain: :drained}), do: false
  defp may_dial?(%{session: session}), do: session != nil

  @doc "The dial has failed. Each address is tried once, one right after the other; then we back off."
  def redial(%{addresses: {}} = state), do: state

  def redial(%{addresses: addresses} = state) do
    if may_dial?(state) do
      size = tuple_size(addresses)
      tried = state.tried + 1
      state = %{cancel(state) | index: rem(state.index + 1, size)}

      if tried < size do
        start_timer(0, %{state | tried: tried})
      else
        {delay_ms, backoff} = Backoff.next(state.backoff)
        start_timer(pause_ms(delay_ms, state), %{state | tried: 0, backoff: backoff})
      end
    else
      state
    end
  end

  # While a session waits to be taken up its grace runs: what is mended in time has to be found in time.
  defp pause_ms(delay_ms, %{session: session}) when session != nil and delay_ms > @lost_max_ms,
    do: :rand.uniform(@lost_max_ms)

  defp pause_ms(delay_ms, _state), do: delay_ms

  @doc """
  The last link has ended. At once, from the first address on; but one that goes as soon as it is up must not be dialled again
  at once each time.
  """
  def lost(state, up_ms) do
    state = stop_standby(%{state | index: 0, tried: 0})

    if now_ms() - up_ms >= Instance.limit(state.instance, :handshake_ms) do
      dial(%{cancel(state) | backoff: Backoff.reset(state.backoff)})
    else
      # The last address, as it were: the next is the first.
      redial(%{state | index: max(tuple_size(state.addresses) - 1, 0), tried: tuple_size(state.addresses)})
    end
  end

  @doc "A link is up: no dial for another, unless it is one of those that are wanted beside it."
  def stop(state, tag) do
    state = cancel(state)

    case state.dial do
      nil ->
        %{state | tried: 0, attempts: 0}

      %{tag: ^tag} ->
        %{state | dial: nil, tried: 0, attempts: 0}

      another ->
        Reader.close(another.reader, another.tag, :duplicate)
        %{state | dial: nil, tried: 0, attempts: 0}
    end
  end

  def cancel(%{timer: nil} = state), do: state

  def cancel(%{timer: timer} = state) do
    :erlang.cancel_timer(timer)
    %{state | timer: nil}
  end

  defp start_timer(delay_ms, state), do: %{state | timer: :erlang.start_timer(delay_ms, self(), :dial)}

  ## Beside the link that is up

  @doc "After any change: dials what is wanted, and no more of what isn't."
  def keep_standby(%{wanted: 1} = state), do: state

  def keep_standby(%{addresses: addresses} = state) do
    if addresses != {} and state.links != %{} and state.session.initiator? and state.drain == nil and
         Native.session_can_resume(state.session.resource) do
      up = for {_tag, %{index: index}} when index != nil <- state.links, do: index
      Enum.reduce(0..(tuple_size(addresses) - 1), state, &keep_standby(&1, up, &2))
    else
      stop_standby(state)
    end
  end

  defp keep_standby(index, up, state) do
    cond do
      index in up -> stop_standby(index, state)
      Enum.count(up, &(&1 < index)) >= state.wanted -> stop_standby(index, state)
      match?(%{tag: nil, timer: nil}, slot(index, state)) -> dial_standby(index, state)
      true -> state
    end
  end

  defp dial_standby(index, state) do
    case start(index, state.session.resource, true, state) do
      {:ok, tag, reader, state} -> put_slot(index, %{slot(index, state) | tag: tag, reader: reader}, state)
      :stopping -> back_off(index, state)
    end
  end

  @doc "A dial or a link by this tag has ended: whose was it? Its address is dialled again, after its back-off if it failed."
  def standby_ended(index, lived_ms, state) do
    slot = %{slot(index, state) | tag: nil, reader: nil}

    if lived_ms != nil and lived_ms >= Instance.limit(state.instance, :handshake_ms),
      do: put_slot(index, %{slot | backoff: Backoff.reset(slot.backoff)}, state),
      else: back_off(index, put_slot(index, slot, state))
  end

  @doc "The index of the address that is being dialled by this tag, or nil."
  def standby_index(%{standby: standby}, tag),
    do: Enum.find_value(standby, fn {index, slot} -> if slot.tag == tag, do: index end)

  @doc "It is up."
  def standby_up(index, state), do: put_slot(index, %{slot(index, state) | tag: nil, reader: nil}, state)

  @doc "The timer of one of them."
  def standby_due(index, state), do: keep_standby(put_slot(index, %{slot(index, state) | timer: nil}, state))

  defp back_off(index, state) do
    slot = slot(index, state)
    {delay_ms, backoff} = Backoff.next(slot.backoff)
    timer = :erlang.start_timer(delay_ms, self(), {:standby, index})
    put_slot(index, %{slot | backoff: backoff, timer: timer}, state)
  end

  @doc "No more dials beside a link."
  def stop_standby(state), do: Enum.reduce(Map.keys(state.standby), state, &stop_standby/2)

  defp stop_standby(index, state) do
    slot = slot(index, state)
    if slot.timer, do: :erlang.cancel_timer(slot.timer)
    if slot.reader, do: Reader.close(slot.reader, slot.tag, :duplicate)
    put_slot(index, %{slot | timer: nil, tag: nil, reader: nil}, state)
  end

  defp slot(index, %{standby: standby, backoff: backoff}),
    do: standby[index] || %{backoff: Backoff.reset(backoff), timer: nil, tag: nil, reader: nil}

  defp put_slot(index, slot, state), do: %{state | standby: Map.put(state.standby, index, slot)}

  defp start(index, session, additional?, state) do
    {carrier, opts} = elem(state.addresses, index)

    connection = %Connection{
      name: state.name,
      role: :initiator,
      carrier: carrier,
      opts: Keyword.put_new(opts, :send_timeout_ms, Instance.limit(state.instance, :send_timeout_ms)),
      tag: make_ref(),
      peer: self(),
      realm: state.peer.realm,
      key: state.peer.key,
      limits: state.limits,
      index: index,
      resume: session,
      additional: additional?
    }

    case Connection.start(connection) do
      {:ok, reader} -> {:ok, connection.tag, reader, watch(reader, connection.tag, state)}
      {:error, _stopping} -> :stopping
    end
  end

  @doc "Whatever becomes of a Reader, its Peer hears of its end."
  def watch(reader, tag, state),
    do: %{state | monitors: Map.put(state.monitors, Process.monitor(reader), {:link, tag})}

  defp now_ms, do: System.monotonic_time(:millisecond)
end
