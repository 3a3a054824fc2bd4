defmodule Legation.Telemetry do
  @moduledoc """
  What Legation tells those who watch it: `:telemetry` events, if the host has that library, and log lines at a limited rate.

  All events have `%{count: 1}` as their measurements, and `:instance` (the `:name` of the instance) in their metadata. Counters for
  what happens too often for events, such as delivered messages, are in `Legation.counters/1`.

  | event | metadata | when |
  |---|---|---|
  | `[:legation, :peer, :up]` | `:realm`, `:profile`, `:role` | a session with a peer has begun |
  | `[:legation, :peer, :lost]` | `:realm`, `:reason` | its last link has gone, and it waits for another; `Legation.Error.message/1` has words for the reason |
  | `[:legation, :peer, :resumed]` | `:realm`, `:profile`, `:role` | it goes on over another link |
  | `[:legation, :peer, :down]` | `:realm`, `:reason` | it has ended |
  | `[:legation, :peer, :gap]` | `:realm`, `:messages` | so many messages of ours were on their way then, and nobody knows whether they have arrived |
  | `[:legation, :peer, :unproven]` | `:realm`, `:first`, `:last` | the messages of these numbers were delivered on the channel's word (`accept_signing: [:checkpoint, …]`), and the session has ended before the peer had signed for them |
  | `[:legation, :engine, :learned]` | `:engine` (`"ping@bob"`), `:info` | a peer's engine can be reached |
  | `[:legation, :engine, :forgotten]` | `:engine`, `:reason` | it can't be any more |
  | `[:legation, :message, :dropped]` | `:direction` (`:in`, `:out`), `:realm`, `:engine`, `:kind` (`:cast`, `:send`), `:reason` | a message that nobody waits for did not get through |
  | `[:legation, :handshake, :failed]` | as for `:connection`, and `:reason` | a connection ended before its session was up |
  | `[:legation, :connection, :opened]` | `:realm` (`nil` as long as it isn't known), `:role`, `:carrier`, `:profile`, `:address` | a carrier stands and its handshake begins |
  | `[:legation, :connection, :closed]` | the same, and `:reason` | it is gone |

  Where a daemon does the work it has the connections, and logs what happens to them; of the events there are then those of `:peer` and
  `:engine`, and of `:message` those that a filter or a full mailbox has refused here.

  A handler runs in the process where the event happens, often one that all messages of a link go through: it should be quick.
  """

  require Logger

  # Legation does not depend on it.
  @compile {:no_warn_undefined, :telemetry}

  @log_interval_ms 10_000
  # Keys are hashed into so many places. Two that share one share its rate, too; memory is bounded whatever the keys.
  @log_places 4_096

  @doc false
  @spec execute([atom, ...], map, map) :: :ok
  def execute(event, measurements, metadata) do
    if available?() do
      try do
        :telemetry.execute(event, measurements, metadata)
      rescue
        # Loaded, but its application isn't running: nobody can be listening.
        ArgumentError -> :ok
      end
    end

    :ok
  end

  # Looking for a module that isn't there goes through the code server, so it's done once. A term that is new to
  # persistent_term costs no garbage collection.
  defp available? do
    case :persistent_term.get({__MODULE__, :available}, nil) do
      nil ->
        available = Code.ensure_loaded?(:telemetry) and function_exported?(:telemetry, :execute, 3)
        :persistent_term.put({__MODULE__, :available}, available)
        available

      available ->
        available
    end
  end

  @doc false
  # One line per key in 10 s, which says how many of them were held back since the one before. Held back for good are those
  # after which nothing more comes; the counters have them.
  #
  # `text` must hold nothing that a peer can make look like something else: names are free of control characters, all
  # else goes through inspect.
  @spec log(Logger.level(), term, binary | (() -> binary)) :: :ok
  def log(level, key, text) do
    log(level, key, text, System.monotonic_time(:millisecond))
  end

  @doc false
  # A line of a daemon's log, whose rate is limited there and by the process that reads it.
  @spec pass_on(Logger.level(), binary) :: :ok
  def pass_on(level, text), do: Logger.log(level, fn -> ["Legation: daemon: ", text] end)

  @doc false
  def log(level, key, text, now_ms) do
    places = places()
    place = 2 * :erlang.phash2(key, @log_places)
    last_ms = :atomics.get(places, place + 1)

    # 0: never. Whoever exchanges it first has the line.
    if (last_ms == 0 or now_ms - last_ms >= @log_interval_ms) and
         :atomics.compare_exchange(places, place + 1, last_ms, now_ms) == :ok do
      held_back = :atomics.exchange(places, place + 2, 0)
      Logger.log(level, fn -> ["Legation: ", text(text), held_back(held_back, now_ms - last_ms)] end)
    else
      :atomics.add(places, place + 2, 1)
    end

    :ok
  end

  defp text(text) when is_binary(text), do: text
  defp text(text) when is_function(text, 0), do: text.()

  defp held_back(0, _since_ms), do: ""
  defp held_back(count, since_ms), do: " (and #{count} more in #{div(since_ms, 1000)} s)"

  defp places do
    case :persistent_term.get({__MODULE__, :places}, nil) do
      nil ->
        # Two that come here at once make two; some lines more, no more than that.
        places = :atomics.new(2 * @log_places, signed: true)
        :persistent_term.put({__MODULE__, :places}, places)
        places

      places ->
        places
    end
  end
end
