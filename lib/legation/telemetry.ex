defmodule Legation.Telemetry do
  @moduledoc """
  What Legation tells the host application. Events go to `:telemetry` when the host has it, and nowhere otherwise;
  Legation does not depend on it.

  | event | measurements | metadata |
  |---|---|---|
  | `[:legation, :connection, :opened]` | `count` | `instance`, `role`, `profile`, `address` |
  | `[:legation, :connection, :closed]` | `count` | the same, `reason` |
  | `[:legation, :handshake, :failed]` | `count` | the same, `reason` |
  | `[:legation, :peer, :up]` | `count` | `instance`, `realm` |
  | `[:legation, :peer, :down]` | `count` | `instance`, `realm`, `reason` |
  | `[:legation, :engine, :learned]` | `count` | `instance`, `engine` |
  | `[:legation, :engine, :forgotten]` | `count` | `instance`, `engine`, `reason` |
  | `[:legation, :message, :dropped]` | `count` | `instance`, `direction` (`:in`, `:out`), `realm`, `engine`, `kind`, `reason` |

  Logging is done here and nowhere else: one line per cause and ten seconds, with the number of those held back, so that
  a hostile peer can't fill a disk.
  """

  require Logger

  @line_every_ms 10_000
  # Causes that are told apart; past that they share a line.
  @causes_max 1_000
  @table __MODULE__

  @doc "Emits an event, if anybody can listen."
  @spec execute([atom], map, map) :: :ok
  def execute(event, measurements, metadata) do
    if available?(), do: apply(:telemetry, :execute, [event, measurements, metadata])
    :ok
  end

  defp available? do
    case :persistent_term.get(@table, nil) do
      nil ->
        available = Code.ensure_loaded?(:telemetry) and function_exported?(:telemetry, :execute, 3)
        :persistent_term.put(@table, available)
        available

      available ->
        available
    end
  end

  @doc "Makes the table of causes. Called once when the application starts, by its supervisor."
  def start do
    if :ets.whereis(@table) == :undefined,
      do: :ets.new(@table, [:named_table, :public, :set, write_concurrency: true])

    :ok
  end

  @doc "Logs `text` unless the same `cause` was logged within the last ten seconds."
  @spec log(Logger.level(), term, String.t()) :: :ok
  def log(level, cause, text) do
    now = System.monotonic_time(:millisecond)
    cause = if known?(cause) or :ets.info(@table, :size) < @causes_max, do: cause, else: :others

    case :ets.lookup(@table, cause) do
      [{_cause, at, _held}] when now - at < @line_every_ms ->
        :ets.update_counter(@table, cause, {3, 1}, {cause, at, 0})

      [{_cause, _at, held}] ->
        :ets.insert(@table, {cause, now, 0})

        Logger.log(
          level,
          if(held > 0, do: "legation: #{text} (and #{held} times since the last line)", else: "legation: #{text}")
        )

      [] ->
        :ets.insert(@table, {cause, now, 0})
        Logger.log(level, "legation: " <> text)
    end

    :ok
  rescue
    # The application is stopping and the table is gone.
    ArgumentError -> :ok
  end

  defp known?(cause), do: :ets.member(@table, cause)
end
