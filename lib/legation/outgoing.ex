defmodule Legation.Outgoing do
  @moduledoc false
  # From what a local process gets that stands for a foreign one, to what is pushed into the session: for Proxy and StandIn,
  # in their processes and on their states. `engine` is the address there: a name, or `"@1f"` for a process that the peer gave us.
  #
  # It never waits: what is pushed is queued (a NIF), and answers reach their callers from the Readers. So the process's mailbox
  # is always drained, and no sender is held up by a slow link.

  alias Legation.{Counters, Handle, Native, Telemetry}

  # Scanning and copying more than this may take longer than a normal scheduler should be held.
  @dirty_bytes 131_072

  @doc "A call. What can't go is answered at once."
  def call(%{session: session, engine: engine} = state, label, {pid, _tag} = from, request) do
    payload = :erlang.term_to_binary(request, minor_version: 2)
    src = published_as(state.pids, pid)
    caller = Handle.raw(pid)

    case push_call(session, engine, label, src, kept(from), caller, payload) do
      {:ok, exported} -> exported(state, exported)
      # The session is over, and so are we in a moment: then the caller gets a real signal. The same of a process that has ended.
      {:error, reason} when reason in [:ended, :unknown_handle] -> :ok
      {:error, :disconnect} -> overflow(state)
      {:error, reason} -> GenServer.reply(from, {:error, {:legation, reason}})
    end
  end

  # Who calls a process of its own node without a time waits for a bare reference, and an answer that comes when the process has ended
  # would stay in its mailbox: nothing else keeps it out. A call that came here after its engine was forgotten, and before
  # we were told, may get one. So it is kept who was called.
  defp kept({pid, tag}) when is_reference(tag), do: {pid, {self(), tag}}
  defp kept(from), do: from

  @doc "The answer to a call of ours, for `from` as it was kept. Nobody waits for it if who was called has ended."
  def answer({pid, {called, tag}}, reply) when is_pid(called) do
    if Process.alive?(called), do: GenServer.reply({pid, tag}, reply)
    :ok
  end

  def answer(from, reply), do: GenServer.reply(from, reply)

  @doc "A cast or a plain message. What can't go is dropped and counted."
  def push(state, kind, src, message) do
    with {:error, reason} <- try_push(state, kind, src, message) do
      dropped(state, kind, reason)
      {:error, reason}
    end
  end

  @doc "The same, without a word if it can't go."
  def try_push(%{session: session, engine: engine} = state, kind, src, message) do
    payload = :erlang.term_to_binary(message, minor_version: 2)

    case push_message(session, engine, kind, src, payload) do
      {:ok, exported} ->
        exported(state, exported)

      {:error, :disconnect} ->
        overflow(state)
        {:error, :overload}

      {:error, reason} ->
        {:error, reason}
    end
  end

  @doc """
  An exit signal that reached us is for whom we stand for: of a process that was linked to us and has ended, or by
  `Process.exit/2`. Which of the two nobody says, so we look; of a process on another node it is taken for the first.
  """
  def exit(%{session: session, engine: engine} = state, from, reason) do
    kind = if node(from) == node() and Process.alive?(from), do: :sent, else: :linked
    src = published_as(state.pids, from)
    raw = Handle.raw(from)

    # A reason that can't go is told by its class.
    result =
      with {:error, _cant} <- push_exit(session, engine, src, raw, kind, Handle.reason(state.reasons, reason)),
           do: push_exit(session, engine, src, raw, kind, Handle.reason(:class, reason))

    case result do
      {:ok, exported} ->
        exported(state, exported)

      {:error, :disconnect} ->
        overflow(state)
        Counters.add(state.drops, :exits_dropped)

      {:error, _cant} ->
        Counters.add(state.drops, :exits_dropped)
    end
  end

  defp push_exit(session, engine, src, raw, kind, reason),
    do: Native.session_push_exit(session, engine, src, raw, kind, :erlang.term_to_binary(reason, minor_version: 2))

  @doc "A reply to a call of the peer's."
  def reply(%{session: session} = state, call_id, reply) do
    payload = :erlang.term_to_binary(reply, minor_version: 2)

    case push_reply(session, call_id, payload) do
      {:ok, exported} -> exported(state, exported)
      # Answered already, or nobody waits for it any more, or the session is over.
      {:error, _reason} -> :ok
    end
  end

  # `:busy`: another thread is at work on the session, and whoever waits for it does so on a dirty scheduler. Meanwhile the process
  # takes no other message, so its order stays.

  defp push_call(session, engine, label, src, from, caller, payload) when byte_size(payload) > @dirty_bytes,
    do: Native.session_push_call_dirty(session, engine, label, src, from, caller, payload)

  defp push_call(session, engine, label, src, from, caller, payload) do
    with :busy <- Native.session_push_call(session, engine, label, src, from, caller, payload),
         do: Native.session_push_call_dirty(session, engine, label, src, from, caller, payload)
  end

  defp push_message(session, engine, kind, src, payload) when byte_size(payload) > @dirty_bytes,
    do: Native.session_push_dirty(session, engine, kind, src, payload)

  defp push_message(session, engine, kind, src, payload) do
    with :busy <- Native.session_push(session, engine, kind, src, payload),
         do: Native.session_push_dirty(session, engine, kind, src, payload)
  end

  @doc "A reply as it goes over: an external term."
  def push_reply(session, call_id, payload) when byte_size(payload) > @dirty_bytes,
    do: Native.session_reply_dirty(session, call_id, payload)

  def push_reply(session, call_id, payload) do
    with :busy <- Native.session_reply(session, call_id, payload),
         do: Native.session_reply_dirty(session, call_id, payload)
  end

  # The peer has been given these for the first time: they are watched.
  defp exported(_state, []), do: :ok

  defp exported(state, exported) do
    send(state.peer, {state.ref, :exported, state.tag, exported})
    :ok
  end

  defp overflow(state), do: send(state.peer, {state.ref, :overflow, state.tag})

  # Under which of our names the caller signs, if it has one.
  defp published_as(pids, pid) do
    case :ets.lookup(pids, pid) do
      [{_pid, name}] -> name
      [] -> ""
    end
  end

  defp dropped(state, kind, reason) do
    Counters.dropped(state.drops, reason)

    Telemetry.execute([:legation, :message, :dropped], %{count: 1}, %{
      instance: state.instance,
      direction: :out,
      realm: state.realm,
      engine: state.engine,
      kind: kind,
      reason: reason
    })

    Telemetry.log(
      :warning,
      {:dropped, state.instance, state.realm, reason},
      fn -> "a #{kind} to #{state.name} was dropped: #{Legation.Error.message(reason)}" end
    )
  end
end
