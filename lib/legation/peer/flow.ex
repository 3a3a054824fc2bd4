defmodule Legation.Peer.Flow do
  @moduledoc false
  # How much of what a peer has sent to our engines has been worked off there, by the length of their mailboxes; and
  # messages of ours that have waited for too long.
  #
  #   half of an engine's window has come ─► length of its mailbox ─► the peer may send what isn't waiting there
  #                      ▲                                                │
  #                      └────── at once, then after 1 ms to 1 s, while something is owed ◄─┘
  #
  # The first look is the Reader's, once per read; what follows is the Peer's, whose timers outlive links. Its first comes without a
  # timer: behind the engine, which the messages have just made runnable, in the scheduler's queue.

  alias Legation.{Directory, Instance, Native}
  alias Legation.Connection.Delivery

  @again_min_ms 1
  @again_max_ms 1_000
  # A message may wait for a tenth longer than it should, and nothing is looked at more often or less than this.
  @tick_min_ms 10
  @tick_max_ms 1_000

  @doc "Looks at the mailboxes of those that owe. Whether somebody still does."
  @spec look(Instance.t(), Native.session()) :: boolean
  def look(%Instance{} = instance, session) do
    case Native.session_debts(session) do
      [] ->
        false

      due ->
        # What comes while we look, a Reader or the Peer beside another, is taken to be waiting.
        for {destination, mark} <- due,
            do: Native.session_grant(session, destination, length(instance, session, destination), mark)

        Native.session_debts(session) != []
    end
  end

  # Of a process on another node it isn't known, and of none there is nothing to wait for.
  defp length(instance, session, destination) do
    with pid when is_pid(pid) and node(pid) == node() <- process(instance, session, destination),
         {:message_queue_len, length} <- Process.info(pid, :message_queue_len) do
      length
    else
      _none -> 0
    end
  end

  # A process that the peer was given, or an engine.
  defp process(_instance, session, "@" <> digits), do: Native.session_export_pid(session, String.to_integer(digits, 16))

  defp process(%Instance{published: published}, _session, engine) do
    with [{_engine, target, _to, _receipts}] <- :ets.lookup(published, engine), do: Directory.resolve(target)
  end

  ## The Peer's

  @doc "A Reader says that somebody owes."
  def owes(tag, %{session: %{tag: tag, resource: session}, looks: nil} = state),
    do: if(look(state.instance, session), do: look_again(@again_min_ms, state), else: state)

  def owes(_tag, state), do: state

  @doc "The timer of the next look."
  def look_due(%{session: nil} = state), do: %{state | looks: nil}

  def look_due(%{session: %{resource: session}, looks: {_timer, after_ms}} = state) do
    if look(state.instance, session),
      do: look_again(min(2 * after_ms, @again_max_ms), state),
      else: %{state | looks: nil}
  end

  defp look_again(after_ms, state), do: %{state | looks: {:erlang.start_timer(after_ms, self(), :look), after_ms}}

  @doc "A session begins: its messages may get old."
  def begin(%{limits: %{message_ttl_ms: :infinity}} = state), do: state
  def begin(%{tick: nil} = state), do: tick_due(state)
  def begin(state), do: state

  @doc "The timer by which they do."
  def tick_due(%{session: nil} = state), do: %{state | tick: nil}

  def tick_due(%{session: %{resource: session}, limits: %{message_ttl_ms: ttl_ms}} = state) do
    for {from, reason} <- Native.session_tick(session, Instance.now_ms()), do: Delivery.refused(from, reason)
    every_ms = ttl_ms |> div(10) |> max(@tick_min_ms) |> min(@tick_max_ms)
    %{state | tick: :erlang.start_timer(every_ms, self(), :tick)}
  end
end
