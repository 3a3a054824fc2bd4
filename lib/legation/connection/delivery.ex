defmodule Legation.Connection.Delivery do
  @moduledoc false
  # From an event of the channel to a plain message in an engine's mailbox, or not. Only what stands in the `published`
  # table, for this peer, can be reached: no registered name, no pid, no `{name, node}`.
  #
  # Runs in the Reader for each message: look-ups and sends, nothing that waits. An engine that the peer may not see
  # looks exactly like one that isn't there.

  alias Legation.{Counters, Directory, Handle, Native, Outgoing, Policy, Telemetry}
  alias Legation.Connection.Handles

  # What answers a message that was asked after.
  @received :erlang.term_to_binary(:ok)
  @ask_ms 5_000
  # Processes on other nodes that are asked after at once, for one link.
  @asking_max 64

  # A destination is a name, or the pid of a process that the peer was given: what it may do with that is what its policy
  # says of it as a whole.
  #
  # `tag` is the session's; `draining`: new calls are refused; `asking`: counts processes on other nodes that are being asked after.
  @enforce_keys [:instance, :peer, :realm, :policy, :reasons, :queue_max, :session, :tag, :asking]
  defstruct @enforce_keys ++ [draining: false]

  @doc "A cast or a plain message. What can't be delivered is dropped and counted."
  def message(d, kind, dst, src, payload, receipt) do
    with {:ok, pid, receipts} <- target(d, dst, payload),
         {:ok, term} <- Handles.payload(d, payload),
         :ok <- no_reply(term),
         :ok <- allowed(d, dst, src, kind, term),
         :ok <- room(d, pid) do
      send(pid, if(kind == :cast, do: {:"$gen_cast", term}, else: term))
      if receipt != nil, do: receipt(d, receipts, dst, src, receipt)
      :ok
    else
      {:refuse, reason} -> dropped(d, kind, dst, reason)
    end
  end

  # A peer that was given the stand-in of another's process could answer that one's calls, whose tags are no secret.
  defp no_reply({{:"$legation", _call_id, _realm, _engine}, _reply}), do: {:refuse, :forbidden}
  defp no_reply(_term), do: :ok

  @doc "A call. What can't be delivered is refused, with the reason."
  def call(%{draining: true} = d, _dst, _src, _label, call_id, _caller, payload, _receipt) do
    Handles.discard(d, payload)
    refuse(d, call_id, :draining)
  end

  # A cast or a plain message that is asked after: it is answered as soon as the mailbox has it.
  def call(d, dst, src, label, call_id, _caller, payload, receipt) when label in [5, 6] do
    with {:ok, pid, receipts} <- target(d, dst, payload),
         {:ok, term} <- Handles.payload(d, payload),
         :ok <- no_reply(term),
         :ok <- allowed(d, dst, src, operation(label), term),
         :ok <- room(d, pid),
         {:ok, received} <- put(d, pid, if(label == 5, do: {:"$gen_cast", term}, else: term), call_id) do
      if receipt != nil, do: receipt(d, receipts, dst, src, receipt)
      if received == :here, do: Outgoing.push_reply(d.session, call_id, @received)
      :ok
    else
      {:refuse, reason} -> refuse(d, call_id, reason)
    end
  end

  def call(d, dst, src, label, call_id, caller, payload, receipt) do
    with {:ok, pid, receipts} <- target(d, dst, payload),
         {:ok, term} <- Handles.payload(d, payload),
         :ok <- allowed(d, dst, src, operation(label), term),
         :ok <- room(d, pid),
         {:ok, stand_in} <- Handles.stand_in(d, caller) do
      from = {stand_in, {:"$legation", call_id, d.realm, src}}
      send(pid, {label(label, stand_in), from, term})
      if receipt != nil, do: receipt(d, receipts, dst, src, receipt)
      :ok
    else
      {:refuse, reason} -> refuse(d, call_id, reason)
    end
  end

  # A signal to a process of this VM is in its mailbox when the next thing that we ask of it has been answered.
  defp put(_d, pid, message, _call_id) when node(pid) == node() do
    send(pid, message)
    if Process.alive?(pid), do: {:ok, :here}, else: {:refuse, :noproc}
  end

  # Behind it, on the same connection; by another process, as that node may hang.
  defp put(d, pid, message, call_id) do
    if :atomics.add_get(d.asking, 1, 1) <= @asking_max do
      send(pid, message)
      spawn(fn -> ask(d, pid, call_id) end)
      {:ok, :asked}
    else
      :atomics.sub(d.asking, 1, 1)
      {:refuse, :overload}
    end
  end

  # No node is asked for more than it has without Elixir.
  defp ask(d, pid, call_id) do
    alive? =
      try do
        :erpc.call(node(pid), :erlang, :is_process_alive, [pid], @ask_ms)
      catch
        _kind, _reason -> false
      end

    :atomics.sub(d.asking, 1, 1)
    if alive?, do: Outgoing.push_reply(d.session, call_id, @received), else: refuse(d, call_id, :noproc)
  end

  defp refuse(d, call_id, reason) do
    Counters.add(d.instance.counters, :calls_refused)
    Native.session_refuse(d.session, call_id, reason)
  end

  @doc "An exit signal: its stand-in does to the destination what the remote process did, if it may."
  def exit(d, kind, from, dst, src, payload) do
    operation = if kind == :linked, do: :link, else: :exit

    with {:ok, pid, _receipts} <- target(d, dst, payload),
         {:ok, reason} <- Handles.payload(d, payload),
         :ok <- allowed(d, dst, src, operation, reason),
         {:ok, stand_in} <- Handles.stand_in(d, from) do
      how = if kind == :linked, do: :link, else: :exit
      send(stand_in, {d.instance.ref, {how, pid, Handle.harmless(reason)}})
    else
      {:refuse, _reason} -> Counters.add(d.instance.counters, :exits_refused)
    end

    Native.session_settle_handle(d.session, from)
  end

  @doc "A reply to a call of ours. One that can't be decoded is an error to the caller, who waits."
  def reply(d, from, payload) do
    case Handles.payload(d, payload) do
      {:ok, term} -> Outgoing.answer(from, term)
      {:refuse, reason} -> refused(from, reason)
    end
  end

  @doc "A call of ours was refused."
  def refused(from, reason), do: Outgoing.answer(from, {:error, {:legation, reason}})

  defp target(_d, pid, _payload) when is_pid(pid), do: {:ok, pid, nil}

  defp target(%{instance: %{published: published}, policy: policy} = d, dst, payload) do
    with [{_dst, target, to, receipts}] <- :ets.lookup(published, dst),
         true <- Policy.exported?(policy, dst, to),
         pid when is_pid(pid) <- Directory.resolve(target) do
      {:ok, pid, receipts}
    else
      _not_there ->
        Handles.discard(d, payload)
        {:refuse, :noproc}
    end
  end

  defp allowed(d, dst, src, operation, term) when is_pid(dst) do
    Policy.allowed_process(d.policy, operation, fn ->
      %{realm: d.realm, engine: dst, source: src, op: operation, message: term}
    end)
  end

  defp allowed(d, dst, src, operation, term) do
    Policy.allowed(d.policy, dst, operation, fn ->
      %{realm: d.realm, engine: dst, source: src, op: operation, message: term}
    end)
  end

  defp room(%{queue_max: :infinity}, _pid), do: :ok
  # The length of a mailbox on another node isn't known here.
  defp room(_d, pid) when node(pid) != node(), do: :ok

  defp room(%{queue_max: max}, pid) do
    case Process.info(pid, :message_queue_len) do
      {:message_queue_len, length} when length < max -> :ok
      {:message_queue_len, _length} -> {:refuse, :overload}
      nil -> {:refuse, :noproc}
    end
  end

  defp operation(1), do: :call
  defp operation(2), do: :sys
  defp operation(4), do: :event
  defp operation(5), do: :cast
  defp operation(6), do: :send

  defp label(1, _stand_in), do: :"$gen_call"
  defp label(2, _stand_in), do: :system
  defp label(4, stand_in), do: stand_in

  defp receipt(_d, nil, _dst, _src, _receipt), do: :ok

  defp receipt(d, pid, dst, src, receipt),
    do: send(pid, {:legation_receipt, dst, %{realm: d.realm, source: src, receipt: receipt}})

  defp dropped(d, kind, dst, reason) do
    Counters.dropped(d.instance.counters, reason)

    Telemetry.execute([:legation, :message, :dropped], %{count: 1}, %{
      instance: d.instance.name,
      direction: :in,
      realm: d.realm,
      engine: dst,
      kind: kind,
      reason: reason
    })

    Telemetry.log(
      :warning,
      {:dropped_in, d.instance.name, d.realm, reason},
      fn -> "a #{kind} from #{d.realm} was dropped: #{Legation.Error.message(reason)}" end
    )
  end
end
