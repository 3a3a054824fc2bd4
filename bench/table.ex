defmodule Bench.Table do
  @moduledoc "The results as Markdown that can also be read as it is."

  alias Bench.{Paths, Results, Targets}

  @doc "All of it."
  def render(results) do
    [
      head(results),
      section("Targets", targets(results)),
      section("Calls: round trips of 64 B", calls(results)),
      casts(results),
      missing(results)
    ]
    |> List.flatten()
    |> Enum.intersperse("\n")
  end

  defp head(%{"machine" => machine} = results) do
    """
    #{results["date"]}, #{machine["cores"]} cores of #{machine["processor"]}, #{machine["os"]}, OTP #{machine["otp"]}. Both ends on this
    machine; medians of #{results["rounds"]} interleaved rounds of #{results["milliseconds"]} ms, lowest – highest. "×" is the ratio to plain distribution, "× TLS"
    that to distribution over TLS, in the same round. cpu: microseconds of processor time each, the caller's VM's + that of all programs behind.
    """
  end

  @doc "The table of targets."
  def targets(results) do
    # What nobody asked for isn't missed.
    measured? = &(results["complete"] or &1.measured != nil)

    rows =
      for t <- Targets.evaluate(results), measured?.(t), do: [t.what, t.target, t.floor, t.measured, t.spread, t.mark]

    table(["what", "target", "floor", "measured", "rounds", ""], rows)
  end

  defp calls(results) do
    rows =
      for %{"kind" => "call"} = row <- results["rows"] do
        [row["callers"], label(row)] ++
          rate(results, row) ++ latency(results, row, "p50_us") ++ latency(results, row, "p99_us") ++ [cpu(row)]
      end

    columns = [
      "callers",
      "path",
      "calls/s",
      "rounds",
      "×",
      "× TLS",
      "p50 µs",
      "×",
      "× TLS",
      "p99 µs",
      "×",
      "× TLS",
      "cpu µs"
    ]

    table(columns, rows)
  end

  # A table for each constellation.
  defp casts(results) do
    for {key, rows} <- Enum.group_by(casts_of(results), &constellation/1) |> Enum.sort() do
      rows = for row <- rows, do: [Results.bytes(row["bytes"]), label(row)] ++ rate(results, row) ++ [cpu(row)]
      section("Casts: " <> describe(key), table(["size", "path", "casts/s", "rounds", "×", "× TLS", "cpu µs"], rows))
    end
  end

  defp casts_of(results), do: Enum.filter(results["rows"], &(&1["kind"] == "cast"))

  # At 1 MiB fewer senders stand for 8.
  defp constellation(row), do: {row["from"], row["engines"], if(row["senders"] in 2..8, do: 8, else: row["senders"])}

  defp describe({from, engines, senders}) do
    what = if from == "engines", do: "source engine", else: "process that is no engine"
    "#{count(senders, what)} to #{count(engines, "engine")}#{if senders == 8, do: " (4 at 1 MiB)"}"
  end

  defp count(1, what), do: "1 #{what}"
  defp count(number, "process that is no engine"), do: "#{number} processes that are no engines"
  defp count(number, what), do: "#{number} #{what}s"

  defp rate(results, row) do
    values = row["rounds"]["per_second"]
    {low, high} = Enum.min_max(values)
    spread = "#{Results.number(low)} – #{Results.number(high)}"
    [Results.number(Results.median(values)), spread | ratios(results, row, "per_second")]
  end

  defp latency(results, row, figure),
    do: [Results.number(Results.median(row["rounds"][figure])) | ratios(results, row, figure)]

  defp ratios(results, row, figure) do
    load = for {key, value} <- row, key not in ["path", "rounds"], do: {key, value}

    for base <- ["dist", "dist_tls"] do
      base = Results.values(results, [{"path", base} | load], figure)
      with [_ | _] = ratios <- Results.ratios(row["rounds"][figure], base), do: ratio(Results.median(ratios))
    end
  end

  defp ratio(value), do: :erlang.float_to_binary(value / 1, decimals: 2)

  defp cpu(row) do
    [own, behind] = for figure <- ["client_cpu_us", "behind_cpu_us"], do: Results.median(row["rounds"][figure])
    "#{Results.number(own)} + #{Results.number(behind)}"
  end

  defp label(row), do: Paths.label(String.to_existing_atom(row["path"]))

  defp missing(%{"missing" => []}), do: []

  defp missing(%{"missing" => missing}) do
    for %{"path" => path, "why" => why} <- missing,
        into: "",
        do: "#{Paths.label(String.to_existing_atom(path))}: #{why}.\n"
  end

  defp section(_title, []), do: []
  defp section(title, table), do: IO.iodata_to_binary(["## ", title, "\n\n", table])

  @doc "A Markdown table with columns as wide as they have to be; nothing without rows."
  def table(_columns, []), do: []

  def table(columns, rows) do
    rows = for row <- rows, do: Enum.map(row, &to_string/1)
    widths = Enum.zip_with([columns | rows], fn cells -> cells |> Enum.map(&String.length/1) |> Enum.max() end)

    line = fn cells ->
      ["| ", cells |> Enum.zip_with(widths, &String.pad_trailing/2) |> Enum.intersperse(" | "), " |\n"]
    end

    rule = ["|", Enum.map(widths, &[String.duplicate("-", &1 + 2), "|"]), "\n"]
    [line.(columns), rule | Enum.map(rows, line)]
  end
end
