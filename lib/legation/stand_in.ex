defmodule Legation.StandIn do
  @moduledoc false
  # The local process that stands for a process of a peer's: who has called an engine of ours, and what `from` names then; or
  # whose pid came in a message. It is used as any pid: what reaches it goes to that process, monitors and links of it
  # fire when that ends, a reply that reaches it answers the call.
  #
  # It belongs to one session, whatever links that has, and is linked to its Peer: if it is killed, its Peer has the calls
  # refused that it was to answer. It goes when the process has ended, with the session, or when for `handle_idle_ms` nobody has used,
  # monitored or linked it: then its Peer forgets it, and so does the other side.
  #
  # For itself it takes only `{:EXIT, peer, _}`, its own timer, and `{ref, control}` with the instance's own reference:
  #
  #   {ref, {:stop, reason}}            the process has ended, or the session has
  #   {ref, {:link, pid, reason}}       it was linked to a process of ours, and has ended
  #   {ref, {:exit, pid, reason}}       it has called `Process.exit/2` on a process of ours
  #   {ref, {:settle, alias}}           somebody waits until what came before is done

  alias Legation.{Handle, Outgoing}

  # number: the peer's for it.   used: whether something has reached it since the timer's last time.
  @enforce_keys [:ref, :peer, :tag, :session, :number, :realm, :instance, :pids, :table, :drops, :reasons, :idle_ms]
  defstruct @enforce_keys ++ [:engine, :name, :timer, used: true]

  @idle_ms 1_000

  # As a proxy's, its mailbox is off the heap.
  def spawn(%__MODULE__{} = state),
    do: :erlang.spawn_opt(__MODULE__, :init, [state], message_queue_data: :off_heap)

  @doc "The remote process has ended, or the session has (`:noconnection`)."
  def stop(pid, ref, reason), do: send(pid, {ref, {:stop, reason}})

  @doc """
  Returns when these have done what had reached them before. It is not much that they do for each, and none of them waits for anything; if
  they have not done it in this time, it returns all the same.
  """
  # By a process with a mailbox of its own: ours may be long, and would be looked through for each.
  def settle([], _ref, _within_ms), do: :ok

  def settle(pids, ref, within_ms) do
    monitor = Process.monitor(Kernel.spawn(fn -> await_all(pids, ref, within_ms) end))

    receive do
      {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
    end
  end

  defp await_all(pids, ref, within_ms) do
    until_ms = System.monotonic_time(:millisecond) + within_ms

    asked =
      for pid <- pids do
        monitor = :erlang.monitor(:process, pid, alias: :reply_demonitor)
        send(pid, {ref, {:settle, monitor}})
        monitor
      end

    Enum.all?(asked, &settled?(&1, until_ms))
  end

  defp settled?(monitor, until_ms) do
    receive do
      {^monitor, :settled} -> true
      {:DOWN, ^monitor, :process, _pid, _gone} -> true
    after
      max(until_ms - System.monotonic_time(:millisecond), 0) -> false
    end
  end

  @doc "Takes its row out of the table, unless it is another's by now, or the table is gone with the instance."
  def withdraw(table, tag, number, pid) do
    :ets.select_delete(table, [{{{tag, number}, pid, :_}, [], [true]}])
  rescue
    ArgumentError -> 0
  end

  # The Peer links to us, too, as soon as it hears of us: whoever of the two ends first, the other is told.
  def init(%__MODULE__{peer: peer} = state) do
    Process.flag(:trap_exit, true)
    Process.link(peer)
    address = Handle.address(state.number)
    loop(start_timer(%{state | engine: address, name: address <> "@" <> state.realm}))
  end

  defp start_timer(state), do: %{state | used: false, timer: :erlang.start_timer(state.idle_ms, self(), :idle)}

  def loop(%__MODULE__{ref: ref, peer: peer, realm: realm, timer: timer} = state) do
    receive do
      # To a call of this realm's. Any other is of another session, and a message like any.
      {{:"$legation", call_id, ^realm, _engine}, reply} when is_integer(call_id) ->
        Outgoing.reply(state, call_id, reply)
        used(state)

      {^ref, control} ->
        control(control, state)

      {:EXIT, ^peer, _reason} ->
        withdraw(state.table, state.tag, state.number, self())
        exit(:noconnection)

      {:timeout, ^timer, :idle} ->
        if not state.used and alone?(self(), peer), do: send(peer, {ref, :idle, state.tag, self(), state.number})
        __MODULE__.loop(start_timer(state))

      message ->
        message(message, state)
        used(state)
    after
      @idle_ms -> :erlang.hibernate(__MODULE__, :loop, [state])
    end
  end

  # When the table of handles is full the one goes first that was used last the longest ago.
  defp used(%{table: table, tag: tag, number: number} = state) do
    :ets.update_element(table, {tag, number}, {3, System.monotonic_time(:millisecond)})
    __MODULE__.loop(%{state | used: true})
  end

  defp control({:stop, reason}, _state), do: exit(reason)

  # As it would be if the two were linked: this process's end is the other's signal.
  defp control({:link, pid, reason}, _state) do
    Process.link(pid)
    exit(reason)
  end

  defp control({:exit, pid, reason}, state) do
    Process.exit(pid, reason)
    __MODULE__.loop(state)
  end

  defp control({:settle, alias}, state) do
    send(alias, {alias, :settled})
    __MODULE__.loop(state)
  end

  defp message({:"$gen_call", {pid, _tag} = from, request}, state) when is_pid(pid),
    do: Outgoing.call(state, 1, from, request)

  defp message({:"$gen_cast", message}, state), do: Outgoing.push(state, :cast, "", message)
  defp message({:EXIT, pid, reason}, state) when is_pid(pid), do: Outgoing.exit(state, pid, reason)
  # A port: none crosses.
  defp message({:EXIT, _port, _reason}, _state), do: :ok

  defp message({:system, {pid, _tag} = from, request}, state) when is_pid(pid),
    do: Outgoing.call(state, 2, from, request)

  # Asked after, as a Proxy is.
  defp message({:"$legation_cast", {pid, _tag} = from, message}, state) when is_pid(pid),
    do: Outgoing.call(state, 5, from, message)

  defp message({:"$legation_send", {pid, _tag} = from, message}, state) when is_pid(pid),
    do: Outgoing.call(state, 6, from, message)

  # gen_event labels a call with the caller's own pid.
  defp message({pid, {pid, _tag} = from, request}, state) when is_pid(pid), do: Outgoing.call(state, 4, from, request)
  defp message(message, state), do: Outgoing.push(state, :send, "", message)

  @doc "Whether nobody but its Peer monitors it or is linked to it, and nothing waits in its mailbox."
  def alone?(pid, peer) do
    case Process.info(pid, [:monitored_by, :links, :message_queue_len]) do
      [monitored_by: [], links: links, message_queue_len: 0] -> links -- [peer] == []
      nil -> true
      _in_use -> false
    end
  end
end
