defmodule Legation.Peer.Callers do
  @moduledoc false
  # What a session knows of processes: those of ours that the peer was given, as callers or in messages, whose ends it is told;
  # stand-ins of the peer's, whose ends mean that calls can't be answered; and calls that nobody waits for any more.
  # Part of the Peer, in its process and on its state. All of it belongs to the session, whatever links that has, and
  # goes with it.

  alias Legation.{Handle, Instance, Native, Policy, StandIn}
  alias Legation.Connection.Handles

  @doc "A push has given the peer processes of ours that it did not know."
  def exported(tag, exported, %{session: %{tag: tag}} = state) do
    state =
      Enum.reduce(exported, state, fn {number, pid}, state ->
        # The peer may have forgotten it before we heard of it.
        if Native.session_export_pid(state.session.resource, number) do
          monitor = Process.monitor(pid)
          monitors = Map.put(state.monitors, monitor, {:export, number})
          %{state | monitors: monitors, exports: Map.put(state.exports, number, monitor)}
        else
          state
        end
      end)

    start_sweep(state)
  end

  def exported(_ended, _exported, state), do: state

  @doc "The peer has forgotten one."
  def unexported(tag, number, %{session: %{tag: tag}} = state) do
    case Map.pop(state.exports, number) do
      {nil, _exports} ->
        state

      {monitor, exports} ->
        Process.demonitor(monitor, [:flush])
        %{state | exports: exports, monitors: Map.delete(state.monitors, monitor)}
    end
  end

  def unexported(_ended, _number, state), do: state

  @doc "It has ended."
  def died(number, reason, state) do
    state = %{state | exports: Map.delete(state.exports, number)}
    if state.session, do: ended(number, reason, state), else: state
  end

  # A peer that may not monitor hears that it is gone and no more.
  defp ended(number, reason, %{session: session} = state) do
    {class, term} =
      case {Policy.watched?(state.policy, nil), state.peer.reasons} do
        {false, _reasons} -> {:withdrawn, nil}
        {true, :class} -> {Handle.class(reason), nil}
        {true, :full} -> {Handle.class(reason), :erlang.term_to_binary(Handle.reason(:full, reason), minor_version: 2)}
      end

    {:ok, exported} = Native.session_export_ended(session.resource, number, class, term)
    exported(session.tag, exported, state)
  end

  @doc "A stand-in has found that nobody needs it."
  def idle(tag, pid, number, %{instance: instance, session: %{tag: tag, resource: session}}) do
    idle_ms = Instance.limit(instance, :handle_idle_ms)

    case :ets.lookup(instance.stand_ins, {tag, number}) do
      # It has called since.
      [{_key, ^pid, used}] -> now_ms() - used >= idle_ms and drop_idle(instance, session, tag, number, pid)
      _another -> drop_idle(instance, session, tag, number, pid)
    end
  end

  def idle(_ended, _pid, _number, _state), do: false

  defp drop_idle(instance, session, tag, number, pid),
    do: Handles.drop_idle(instance, session, self(), tag, number, pid)

  defp now_ms, do: System.monotonic_time(:millisecond)

  @doc "A Reader has made a stand-in."
  def stand_in(tag, pid, number, %{session: %{tag: tag}} = state) do
    Process.link(pid)
    %{state | stand_ins: Map.put(state.stand_ins, pid, number)}
  end

  def stand_in(tag, pid, number, %{instance: instance} = state) do
    :ets.delete(instance.stand_ins, {tag, number})
    StandIn.stop(pid, instance.ref, :noconnection)
    state
  end

  @doc """
  A stand-in has ended. If somebody killed it, the calls that it was to answer are refused, so that nobody waits for ever; the
  remote caller's next call makes a new one.
  """
  def stand_in_ended(pid, state) do
    case Map.pop(state.stand_ins, pid) do
      {nil, _stand_ins} ->
        state

      {number, stand_ins} ->
        killed(number, pid, state)
        %{state | stand_ins: stand_ins}
    end
  end

  # Its row is another's, or gone, if it ended because it was told to.
  defp killed(number, pid, %{instance: instance, session: session}) do
    case :ets.lookup(instance.stand_ins, {session.tag, number}) do
      [{_key, ^pid, _used}] ->
        Native.session_abandon(session.resource, number)

        # With nothing in flight it can be forgotten. The peer's next call, or the next message that has it, makes another.
        Native.session_drop_import(session.resource, number)
        :ets.delete(instance.stand_ins, {session.tag, number})

      _another ->
        :ok
    end
  end

  @doc "They were of a session that is over."
  def forget(%{instance: instance, session: session} = state) do
    {exports, links} = Enum.split_with(state.monitors, fn {_monitor, what} -> match?({:export, _number}, what) end)
    for {monitor, _export} <- exports, do: Process.demonitor(monitor, [:flush])

    for {pid, number} <- state.stand_ins do
      :ets.delete(instance.stand_ins, {session.tag, number})
      StandIn.stop(pid, instance.ref, :noconnection)
    end

    %{state | monitors: Map.new(links), exports: %{}, stand_ins: %{}}
  end

  @doc "The timer of the sweep."
  def sweep_due(state) do
    if state.session, do: sweep(state, Instance.limit(state.instance, :call_age_ms))
    start_sweep(%{state | sweep: nil})
  end

  # While the peer has no process of ours, none has called, and there is nothing to look for.
  defp start_sweep(%{sweep: nil, exports: exports} = state) when exports != %{},
    do: %{state | sweep: :erlang.start_timer(Instance.limit(state.instance, :call_age_ms), self(), :sweep)}

  defp start_sweep(state), do: state

  @doc """
  A caller that waits monitors the proxy. One that doesn't any more has timed out, and its call is freed. Returns the
  calls that are waited for, as `{engine, caller}`.
  """
  def sweep(%{session: %{resource: session}} = state, age_ms) do
    old = Native.session_sweep(session, age_ms)

    for {engine, calls} <- Enum.group_by(old, &elem(&1, 1)),
        waiting = waiting(engine, state),
        {call_id, _engine, caller} <- calls,
        MapSet.member?(waiting, caller) or cancel(session, call_id) do
      {engine, caller}
    end
  end

  defp cancel(session, call_id) do
    Native.session_cancel(session, call_id)
    false
  end

  defp waiting(engine, state) do
    with pid when is_pid(pid) <- called(engine, state),
         {:monitored_by, pids} <- Process.info(pid, :monitored_by) do
      MapSet.new(pids)
    else
      _gone -> MapSet.new()
    end
  end

  # A process of the peer's that it gave to us, or an engine.
  defp called("@" <> digits, %{instance: instance, session: session}) do
    with [{_key, pid, _used}] <- :ets.lookup(instance.stand_ins, {session.tag, String.to_integer(digits, 16)}), do: pid
  end

  defp called(engine, %{instance: instance, peer: peer}) do
    with [{_name, proxy, _realm, _engine, _counts, _info}] <-
           :ets.lookup(instance.foreign, engine <> "@" <> peer.realm),
         do: proxy
  end
end
