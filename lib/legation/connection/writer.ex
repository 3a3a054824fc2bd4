defmodule Legation.Connection.Writer do
  @moduledoc false
  # Sends. On `:wake` it takes what has collected, signed and encrypted as one batch, and sends it; while that is on its
  # way the next collects. Nothing waits for company: an idle link sends a lone message at once.
  #
  #   :wake                from proxies, stand-ins and the Reader: there is something
  #   :finish              from the Reader: send what is there, then end
  #   {:watch, pid, msg}   from the Reader while draining or leaving: tell it now and after each flush

  alias Legation.{Instance, Native}

  @enforce_keys [:channel, :carrier, :conn]
  defstruct [:channel, :carrier, :conn, :watcher]

  def start_link(channel, carrier, conn) do
    :proc_lib.spawn_link(__MODULE__, :init, [%__MODULE__{channel: channel, carrier: carrier, conn: conn}])
  end

  # The initiator's first flight is waiting.
  def init(state), do: state |> flush() |> loop()

  def loop(state) do
    receive do
      :wake ->
        state |> flush() |> __MODULE__.loop()

      # Behind a flush that named the time.
      {:timeout, _timer, :checkpoint} ->
        Native.channel_checkpoint(state.channel)
        __MODULE__.loop(state)

      :finish ->
        flush(state)

      {:watch, pid, message} ->
        send(pid, message)
        __MODULE__.loop(%{state | watcher: {pid, message}})

      _stray ->
        __MODULE__.loop(state)
    end
  end

  defp flush(state) do
    skip_wakes()

    case next_bytes(state.channel, Instance.now_ms()) do
      {:error, {_kind, reason}} ->
        exit({:shutdown, {:send, reason}})

      {"", :idle, nil} ->
        flushed(state)

      {"", :more, nil} ->
        flush(state)

      {bytes, more, checkpoint_ms} ->
        # What goes out here is proven by then, whether more goes out or not.
        if checkpoint_ms, do: :erlang.start_timer(checkpoint_ms, self(), :checkpoint)

        case state.carrier.send(state.conn, bytes) do
          :ok -> if more == :more, do: flush(state), else: flushed(state)
          {:error, reason} -> exit({:shutdown, {:send, reason}})
        end
    end
  end

  # A slice is signed and sealed here in the time in which a dirty scheduler is reached; many signatures, there.
  defp next_bytes(channel, now) do
    with :dirty <- Native.channel_flush_slice(channel, now), do: Native.channel_flush(channel, now)
  end

  defp flushed(%{watcher: nil} = state), do: state

  defp flushed(%{watcher: {pid, message}} = state) do
    send(pid, message)
    state
  end

  # What they announce is in this flush.
  defp skip_wakes do
    receive do
      :wake -> skip_wakes()
    after
      0 -> :ok
    end
  end
end
