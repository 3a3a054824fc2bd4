defmodule Legation.Connection.Goodbye do
  @moduledoc false
  # How a link is left. In the Reader's process, from its `terminate`, and on its state:
  #
  #   wait_for_credit   what waits until the peer works off what it has    half of the time
  #   finish            all that is there, and the goodbye behind it       the rest of it
  #   linger            the peer takes it, and closes                      as long again
  #
  # The time is `goodbye_ms` if it is we who want to leave. When the instance stops, at once or meanwhile, all of it has to be over before whoever
  # stops us loses patience (`shutdown_ms`): who is killed says no goodbye.

  alias Legation.{Counters, Instance, Native}

  # Messages of the carrier that may wait in our mailbox before it waits for us.
  @active 32
  # The longest goodbye where it is not we who want to leave: a peer that is on another link by now, or breaks the rules, or takes too little,
  # must not have us keep many links that it lets hang.
  @hasty_ms 1_000
  # What the Writer has in any case: to be scheduled, and to hand over what there is.
  @flush_ms 100
  # By which we are done before we would be killed.
  @before_kill_ms 200

  @doc "Sends what is to be sent, and closes the connection. `why`: the link's end (`Legation.Peer.Status.why/1`)."
  def say(why, state) do
    {code, leaving?} = code(why, state)
    # until_ms: for what is to leave.   linger_ms: for the peer, behind that.   last_ms: for all of it.
    times = times(why, leaving?, state.instance)
    times = if leaving? and state.phase == :up, do: wait_for_credit(times, state), else: times
    if code, do: Native.channel_close(state.channel, code, "")
    {left, times} = finish(why, times, state)
    waits? = leaving? and state.phase == :up and waits?(state)
    Native.channel_detach(state.channel)
    closed = if left == :all and state.phase == :up, do: linger(why, times, state), else: :closed
    lost? = left != :all or waits? or closed == :late
    if leaving? and state.phase == :up and lost?, do: Counters.add(state.instance.counters, :goodbyes_cut)
    close(if(closed == :late, do: :stuck, else: left), state)
  end

  # What the peer is told, nil where that is queued already or it told us; and whether it is we who want to leave.
  defp code(_why, %{phase: :refused}), do: {nil, false}
  # Another link goes on: a goodbye on this one would come before what waits there.
  defp code(:shutdown, state), do: if(standby?(state), do: {:replaced, false}, else: {:shutdown, true})
  defp code({:local, code}, _state), do: {code, code in [:normal, :shutdown]}
  defp code({:keyholder, _reason}, _state), do: {:overload, false}
  defp code(_closed_already_or_queued, _state), do: {nil, false}

  defp standby?(%{phase: phase, channel: channel}), do: phase == :up and not Native.channel_is_active(channel)

  defp times(why, leaving?, instance) do
    goodbye_ms = Instance.limit(instance, :goodbye_ms)
    time_ms = if leaving?, do: goodbye_ms, else: min(goodbye_ms, @hasty_ms)
    now = now_ms()
    times = %{until_ms: now + time_ms, linger_ms: time_ms, last_ms: now + 2 * time_ms}
    if why == :shutdown, do: hurry(times, instance), else: times
  end

  # The instance stops.
  defp hurry(times, instance) do
    shutdown_ms = Instance.limit(instance, :shutdown_ms)
    last_ms = min(times.last_ms, now_ms() + max(shutdown_ms - @before_kill_ms, div(shutdown_ms, 2)))
    %{times | until_ms: min(times.until_ms, last_ms), last_ms: last_ms}
  end

  ## What waits for credit
  # What else the peer says comes too late.

  defp wait_for_credit(times, %{writer: writer, held: nil, connection: %{tag: tag}} = state) when writer != nil do
    case state.carrier.activate(state.conn, @active) do
      :ok ->
        # It answers at once, and after each flush.
        send(writer, {:watch, self(), {tag, :flushed}})
        await_credit(0, half(times), times, state)

      {:error, _closed} ->
        times
    end
  end

  defp wait_for_credit(times, _state), do: times

  defp half(%{until_ms: until_ms}) do
    now_ms() + div(left_ms(until_ms), 2)
  end

  defp await_credit(flushes, half_ms, times, %{writer: writer, connection: %{tag: tag}} = state) do
    receive do
      {:EXIT, ^writer, reason} ->
        # For `finish`.
        send(self(), {:EXIT, writer, reason})
        times

      {:EXIT, supervisor, :shutdown} when is_pid(supervisor) ->
        times = hurry(times, state.instance)
        await_credit(flushes, min(half_ms, half(times)), times, state)

      # What waits is known when a flush has gone for it.
      {^tag, :flushed} when flushes == 0 ->
        send(writer, :wake)
        await_credit(1, half_ms, times, state)

      {^tag, :flushed} ->
        if waits?(state), do: await_credit(flushes + 1, half_ms, times, state), else: times

      message ->
        heard =
          case state.carrier.stream(state.conn, message) do
            {:data, bytes} -> take_credit(bytes, state)
            :passive -> go_on(half_ms, state)
            :unknown -> :ok
            _ended -> :closed
          end

        if heard == :ok, do: await_credit(flushes, half_ms, times, state), else: times
    after
      left_ms(half_ms) -> times
    end
  end

  defp waits?(state), do: Native.session_counters(state.delivery.session).queue_bytes > 0

  defp take_credit(bytes, state) do
    case Native.channel_handle_bytes(state.channel, bytes, Instance.now_ms()) do
      # Another link's turn, which goes on with the session.
      :busy ->
        :closed

      {events, _wake, how} ->
        send(state.writer, :wake)

        cond do
          Enum.any?(events, &(elem(&1, 0) in [:closed, :fault])) -> :closed
          how == :done -> :ok
          true -> take_credit("", state)
        end
    end
  end

  ## What is there

  # Over a broken carrier nothing leaves any more.
  defp finish({:carrier, _reason}, times, _state), do: {:nothing, times}
  defp finish(_why, times, %{writer: nil}), do: {:nothing, times}

  defp finish(_why, times, state) do
    send(state.writer, :finish)
    await_finished(times, state)
  end

  defp await_finished(times, %{writer: writer} = state) do
    receive do
      {:EXIT, ^writer, :normal} -> {:all, times}
      {:EXIT, ^writer, _broken} -> {:nothing, times}
      {:EXIT, supervisor, :shutdown} when is_pid(supervisor) -> times |> hurry(state.instance) |> await_finished(state)
    after
      max(left_ms(times.until_ms), @flush_ms) ->
        Process.exit(writer, :kill)
        {:stuck, times}
    end
  end

  ## Until the peer has closed
  # Closing over what has come and was not read, or comes later, would be a reset, and take along what is on its way: the goodbye, and
  # messages before it.

  defp linger({:closed, _code, _text}, _times, _state), do: :closed

  defp linger(_why, times, %{carrier: carrier, conn: conn} = state) do
    with true <- function_exported?(carrier, :shutdown, 1),
         :ok <- carrier.shutdown(conn),
         :ok <- carrier.activate(conn, @active) do
      read_to_end(%{times | last_ms: min(times.last_ms, now_ms() + times.linger_ms)}, state)
    else
      _cant_or_closed -> :closed
    end
  end

  defp read_to_end(times, %{carrier: carrier, conn: conn} = state) do
    receive do
      {:EXIT, supervisor, :shutdown} when is_pid(supervisor) ->
        times |> hurry(state.instance) |> read_to_end(state)

      message ->
        heard =
          case carrier.stream(conn, message) do
            {:data, _too_late} -> :ok
            :passive -> go_on(times.last_ms, state)
            :unknown -> :ok
            _ended -> :closed
          end

        if heard == :ok, do: read_to_end(times, state), else: heard
    after
      left_ms(times.last_ms) -> :late
    end
  end

  # However much it sends.
  defp go_on(until_ms, %{carrier: carrier, conn: conn}) do
    cond do
      left_ms(until_ms) == 0 -> :late
      carrier.activate(conn, @active) == :ok -> :ok
      true -> :closed
    end
  end

  # A peer that takes nothing, or does not close, must not keep this process until the carrier has given up on it, too.
  defp close(:stuck, %{carrier: carrier, conn: conn}) do
    if function_exported?(carrier, :abort, 1), do: carrier.abort(conn), else: carrier.close(conn)
  end

  defp close(_left, %{carrier: carrier, conn: conn}), do: carrier.close(conn)

  defp left_ms(until_ms), do: max(until_ms - now_ms(), 0)
  defp now_ms, do: System.monotonic_time(:millisecond)
end
