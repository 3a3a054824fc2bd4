defmodule Legation.Proxy do
  @moduledoc false
  # The local process that stands for one foreign engine. Whatever it gets goes over the wire: `:"$gen_call"`,
  # `:"$gen_cast"`, `:system` and any other term are for the engine, which is why this is no GenServer.
  #
  # It never waits: what it pushes is queued in the session (a NIF), and the answer reaches the caller from the Reader.
  # So its mailbox is always drained, and no sender is held up by a slow link.
  #
  # For itself it takes only `{:EXIT, parent, _}` and `{ref, control}` with the instance's own reference:
  #
  #   {ref, {:send_as, src, message}}   from Legation.send/2: signed as the sender's engine
  #   {ref, {:stop, reason}}            forgotten, or the session has ended
  #
  # One proxy belongs to one session, whatever links that has, and dies with it; monitors and links get a real signal. `tag` is
  # the session's.

  alias Legation.{Counters, Native, Telemetry}

  @enforce_keys [
    :ref,
    :parent,
    :instance,
    :name,
    :engine,
    :realm,
    :tag,
    :session,
    :peer,
    :pids,
    :counts,
    :drops
  ]
  defstruct @enforce_keys

  # Encoding and hashing more than this takes longer than a normal scheduler should be held.
  @dirty_bytes 20_480
  # An idle proxy shrinks to about 1.4 KB.
  @idle_ms 1_000

  # Indexes into `counts`.
  @calls 1
  @casts 2
  @sends 3
  @dropped 4

  def new_counts, do: :counters.new(4, [])

  def counts(counts) do
    %{
      calls: :counters.get(counts, @calls),
      casts: :counters.get(counts, @casts),
      sends: :counters.get(counts, @sends),
      dropped: :counters.get(counts, @dropped)
    }
  end

  def spawn_link(%__MODULE__{} = state), do: :erlang.spawn_link(__MODULE__, :init, [state])

  def stop(pid, ref, reason), do: send(pid, {ref, {:stop, reason}})

  def init(state) do
    Process.flag(:trap_exit, true)
    loop(state)
  end

  # Called by its full name each time round, so that a proxy is never more than a message away from new code.
  def loop(%__MODULE__{ref: ref, parent: parent} = state) do
    receive do
      {:"$gen_call", {pid, _tag} = from, request} when is_pid(pid) ->
        call(state, 1, from, pid, request)

      {:"$gen_cast", message} ->
        push(state, :cast, "", message)

      {^ref, {:send_as, src, {:"$gen_cast", message}}} ->
        push(state, :cast, src, message)

      {^ref, {:send_as, src, message}} ->
        push(state, :send, src, message)

      {^ref, {:stop, reason}} ->
        exit(reason)

      {:EXIT, ^parent, _reason} ->
        exit(:shutdown)

      # Somebody linked to us and died. Links don't cross yet.
      {:EXIT, _other, _reason} ->
        Counters.add(state.drops, :links_ignored)

      {:system, {pid, _tag} = from, request} when is_pid(pid) ->
        call(state, 2, from, pid, request)

      # gen_event labels a call with the caller's own pid.
      {pid, {pid, _tag} = from, request} when is_pid(pid) ->
        call(state, 4, from, pid, request)

      message ->
        push(state, :send, "", message)
    after
      @idle_ms -> :erlang.hibernate(__MODULE__, :loop, [state])
    end

    __MODULE__.loop(state)
  end

  defp call(%{session: session, engine: engine} = state, label, from, pid, request) do
    :counters.add(state.counts, @calls, 1)
    payload = :erlang.term_to_binary(request, minor_version: 2)
    src = published_as(state.pids, pid)

    result =
      if byte_size(payload) > @dirty_bytes,
        do: Native.session_push_call_dirty(session, engine, label, src, from, payload),
        else: Native.session_push_call(session, engine, label, src, from, payload)

    case result do
      {:ok, nil} -> :ok
      {:ok, caller} -> send(state.peer, {state.ref, :caller, state.tag, pid, caller})
      # The session is over, and so are we in a moment: then the caller gets a real signal.
      {:error, :ended} -> :ok
      {:error, reason} -> GenServer.reply(from, {:error, {:legation, reason}})
    end
  end

  defp push(%{session: session, engine: engine} = state, kind, src, message) do
    :counters.add(state.counts, if(kind == :cast, do: @casts, else: @sends), 1)
    payload = :erlang.term_to_binary(message, minor_version: 2)

    result =
      if byte_size(payload) > @dirty_bytes,
        do: Native.session_push_dirty(session, engine, kind, src, payload),
        else: Native.session_push(session, engine, kind, src, payload)

    case result do
      :ok -> :ok
      {:error, reason} -> dropped(state, kind, reason)
    end
  end

  # Under which of our names the caller signs, if it has one.
  defp published_as(pids, pid) do
    case :ets.lookup(pids, pid) do
      [{_pid, name}] -> name
      [] -> ""
    end
  end

  defp dropped(state, kind, reason) do
    :counters.add(state.counts, @dropped, 1)
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
