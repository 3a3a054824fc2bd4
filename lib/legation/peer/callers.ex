defmodule Legation.Peer.Callers do
  @moduledoc false
  # What a session knows of processes: those of ours that have called, whose ends the peer is told; stand-ins of the peer's,
  # whose ends mean that calls can't be answered; and calls that nobody waits for any more. Part of the Peer, in its
  # process and on its state. All of it belongs to the session, whatever links that has, and goes with it.

  alias Legation.{Instance, Native, StandIn}

  @doc "A proxy has pushed the first call of a process of ours."
  def called(tag, pid, number, %{session: %{tag: tag}} = state) do
    monitors = Map.put(state.monitors, Process.monitor(pid), {:caller, number})
    start_sweep(%{state | monitors: monitors, callers: state.callers + 1})
  end

  def called(_ended, _pid, _number, state), do: state

  @doc "It has ended."
  def died(number, state) do
    if state.session, do: Native.session_release(state.session.resource, number)
    %{state | callers: state.callers - 1}
  end

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
        :ets.delete_object(state.instance.stand_ins, {{state.session.tag, number}, pid})
        Native.session_abandon(state.session.resource, number)
        %{state | stand_ins: stand_ins}
    end
  end

  @doc "They were of a session that is over."
  def forget(%{instance: instance, session: session} = state) do
    {callers, links} = Enum.split_with(state.monitors, fn {_monitor, what} -> match?({:caller, _number}, what) end)
    for {monitor, _caller} <- callers, do: Process.demonitor(monitor, [:flush])

    for {pid, number} <- state.stand_ins do
      :ets.delete(instance.stand_ins, {session.tag, number})
      StandIn.stop(pid, instance.ref, :noconnection)
    end

    %{state | monitors: Map.new(links), callers: 0, stand_ins: %{}}
  end

  @doc "The timer of the sweep."
  def sweep_due(state) do
    if state.session, do: sweep(state, Instance.limit(state.instance, :call_age_ms))
    start_sweep(%{state | sweep: nil})
  end

  # While no process of ours has called, there is nothing to look for.
  defp start_sweep(%{sweep: nil, callers: callers} = state) when callers > 0,
    do: %{state | sweep: :erlang.start_timer(Instance.limit(state.instance, :call_age_ms), self(), :sweep)}

  defp start_sweep(state), do: state

  @doc """
  A caller that waits monitors the proxy. One that doesn't any more has timed out, and its call is freed. Returns the
  calls that are waited for, as `{engine, caller}`.
  """
  def sweep(%{session: %{resource: session}, instance: instance} = state, age_ms) do
    old = Native.session_sweep(session, age_ms)

    for {engine, calls} <- Enum.group_by(old, &elem(&1, 1)),
        waiting = waiting(instance, engine <> "@" <> state.peer.realm),
        {call_id, _engine, caller} <- calls,
        MapSet.member?(waiting, caller) or cancel(session, call_id) do
      {engine, caller}
    end
  end

  defp cancel(session, call_id) do
    Native.session_cancel(session, call_id)
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
end
