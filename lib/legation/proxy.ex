defmodule Legation.Proxy do
  @moduledoc false
  # The local process that stands for one foreign engine. Whatever it gets goes over the wire: `:"$gen_call"`,
  # `:"$gen_cast"`, `:system` and any other term are for the engine, which is why this is no GenServer.
  #
  # For itself it takes only `{:EXIT, parent, _}` and `{ref, control}` with the instance's own reference:
  #
  #   {ref, {:send_as, src, message}}   from Legation.send/2: signed as the sender's engine
  #   {ref, {:push, from, src, cast}}   from Legation.cast/3 with `block:`: the same, and what has become of it goes back
  #   {ref, {:stop, reason}}            forgotten, or the session has ended
  #
  # One proxy belongs to one session, whatever links that has, and dies with it; monitors and links get a real signal. `tag` is
  # the session's.

  alias Legation.Outgoing

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
    :drops,
    :reasons
  ]
  defstruct @enforce_keys

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

  # Off the heap: the collector takes binaries of messages that wait for ours, and lets as much again of what was encoded and refused lie about.
  def spawn_link(%__MODULE__{} = state),
    do: :erlang.spawn_opt(__MODULE__, :init, [state], [:link, message_queue_data: :off_heap])

  def stop(pid, ref, reason), do: send(pid, {ref, {:stop, reason}})

  def init(state) do
    Process.flag(:trap_exit, true)
    loop(state)
  end

  # Called by its full name each time round, so that a proxy is never more than a message away from new code.
  def loop(%__MODULE__{ref: ref, parent: parent} = state) do
    receive do
      {:"$gen_call", {pid, _tag} = from, request} when is_pid(pid) ->
        call(state, 1, from, request)

      {:"$gen_cast", message} ->
        push(state, :cast, "", message)

      {^ref, {:send_as, src, {:"$gen_cast", message}}} ->
        push(state, :cast, src, message)

      {^ref, {:send_as, src, message}} ->
        push(state, :send, src, message)

      {^ref, {:push, {pid, monitor}, src, {:"$gen_cast", message}}} ->
        :counters.add(state.counts, @casts, 1)
        send(pid, {monitor, Outgoing.try_push(state, :cast, src, message)})

      {^ref, {:stop, reason}} ->
        exit(reason)

      {:EXIT, ^parent, _reason} ->
        exit(:shutdown)

      {:EXIT, pid, reason} when is_pid(pid) ->
        Outgoing.exit(state, pid, reason)

      # A port: none crosses.
      {:EXIT, _port, _reason} ->
        :ok

      {:system, {pid, _tag} = from, request} when is_pid(pid) ->
        call(state, 2, from, request)

      # Asked after: gen:call with these labels, by Legation.cast/3 and by who likes to.
      {:"$legation_cast", {pid, _tag} = from, message} when is_pid(pid) ->
        call(state, 5, from, message)

      {:"$legation_send", {pid, _tag} = from, message} when is_pid(pid) ->
        call(state, 6, from, message)

      # gen_event labels a call with the caller's own pid.
      {pid, {pid, _tag} = from, request} when is_pid(pid) ->
        call(state, 4, from, request)

      message ->
        push(state, :send, "", message)
    after
      @idle_ms -> :erlang.hibernate(__MODULE__, :loop, [state])
    end

    __MODULE__.loop(state)
  end

  defp call(state, label, from, request) do
    :counters.add(state.counts, @calls, 1)
    Outgoing.call(state, label, from, request)
  end

  defp push(state, kind, src, message) do
    :counters.add(state.counts, if(kind == :cast, do: @casts, else: @sends), 1)
    with {:error, _reason} <- Outgoing.push(state, kind, src, message), do: :counters.add(state.counts, @dropped, 1)
  end
end
