defmodule Bench.Table do
  @moduledoc "The results as Markdown that can also be read as it is."

  alias Bench.{Paths, Profile, Results, Targets}

  @doc "All of it."
  def render(results) do
    [
      head(results),
      section("Targets", targets(results)),
      section("Calls: round trips of 64 B", calls(results)),
      casts(results),
      section("Rust cores by themselves", cores(results)),
      section("Engines of a peer", engines(results)),
      section("Engines of a peer, in `:global`", global(results)),
      section("Peers, dialled at once", peers(results)),
      profiles(results),
      schedulers(results),
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

  @target_columns [what: "what", target: "target", floor: "floor", measured: "measured", spread: "rounds", mark: ""]

  @doc "The table of targets, with these of its columns."
  def targets(results, columns \\ Keyword.keys(@target_columns)) do
    # What nobody asked for isn't missed.
    wanted? = &(results["complete"] or &1.measured != nil)
    rows = for target <- Targets.evaluate(results), wanted?.(target), do: Enum.map(columns, &target[&1])
    table(Enum.map(columns, &@target_columns[&1]), rows)
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
      cells = for row <- rows, do: [Results.bytes(row["bytes"]), label(row)] ++ rate(results, row) ++ [cpu(row)]
      columns = ["size", "path", "casts/s", "rounds", "×", "× TLS", "cpu µs"]
      section("Casts: " <> describe(key, rows), table(columns, cells))
    end
  end

  defp casts_of(results), do: Enum.filter(results["rows"], &(&1["kind"] == "cast"))

  # At 1 MiB fewer senders stand for 8.
  defp constellation(row), do: {row["from"], row["engines"], if(row["senders"] in 2..8, do: 8, else: row["senders"])}

  defp describe({from, engines, senders}, rows) do
    what = if from == "engines", do: "source engine", else: "process that is no engine"
    fewer = if senders == 8 and Enum.any?(rows, &(&1["senders"] == 4)), do: " (4 at 1 MiB)", else: ""
    "#{count(senders, what)} to #{count(engines, "engine")}#{fewer}"
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
      with [_ | _] = ratios <- Results.ratios(row["rounds"][figure], base), do: fixed(Results.median(ratios))
    end
  end

  defp fixed(value), do: :erlang.float_to_binary(value / 1, decimals: 2)

  defp cpu(row) do
    [own, behind] = for figure <- ["client_cpu_us", "behind_cpu_us"], do: Results.median(row["rounds"][figure])
    "#{Results.number(own)} + #{Results.number(behind)}"
  end

  defp label(row), do: Paths.label(String.to_existing_atom(row["path"]))

  defp cores(results) do
    wire =
      for fact <- Results.facts(results, "wire") do
        [
          ["bytes a message beyond its payload, in a batch of 64 to 1 engine", Results.number(fact["overhead_bytes"])],
          ["the same, each to another engine", Results.number(fact["overhead_bytes_many_engines"])]
        ]
      end

    handshakes =
      for fact <- Results.facts(results, "handshakes") do
        [
          ["handshakes per second, both ends on one core", Results.number(fact["both_per_second"])],
          ["of that the listener's part, by itself", Results.number(fact["server_per_second"])],
          ["of that the dialler's part, by itself", Results.number(fact["client_per_second"])],
          [
            "handshakes per second, of realms that meet for the first time",
            Results.number(fact["strangers_per_second"])
          ]
        ]
      end

    table(["", ""], Enum.concat(wire ++ handshakes))
  end

  defp engines(results) do
    rows =
      for fact <- Results.facts(results, "engines") do
        keys = ["number", "published_s", "callable_s", "proxy_bytes", "engine_bytes", "call_p50_us", "casts_per_second"]
        Enum.map(keys, &Results.number(fact[&1]))
      end

    table(
      [
        "engines",
        "published, s",
        "link up to callable, s",
        "idle proxy, B",
        "all memory, B each",
        "call p50 µs",
        "casts/s"
      ],
      rows
    )
  end

  defp global(results) do
    rows =
      for fact <- Results.facts(results, "global"),
          do: [fact["number"], fact["nodes"], Results.number(fact["callable_s"])]

    table(["engines", "nodes", "link up to callable, s"], rows)
  end

  defp peers(results) do
    rows =
      for fact <- Results.facts(results, "peers") do
        keys = ["connects_per_second", "bytes", "calls_per_second", "call_p50_us", "casts_per_second"]
        [fact["number"], fact["client"] | Enum.map(keys, &(fact[&1] && Results.number(fact[&1])))]
      end

    table(["peers", "dialler", "connected/s", "memory, B each", "calls/s of 100 callers", "p50 µs", "casts/s"], rows)
  end

  defp profiles(results) do
    for fact <- Results.facts(results, "profile") do
      rows =
        for %{"stage" => stage, "us" => us} <- fact["stages"], do: [stage, fixed(us), percent(us, fact["whole_us"])]

      whole = ["**whole**", fixed(fact["whole_us"]), ""]
      section("Where the time goes: #{Profile.describe(fact)}", table(["stage", "µs", "%"], rows ++ [whole]))
    end
  end

  defp percent(part, whole), do: "#{round(100 * part / whole)}"

  defp schedulers(results) do
    for fact <- Results.facts(results, "schedulers") do
      rows =
        for seen <- fact["functions"] do
          [
            seen["function"],
            seen["load"],
            seen["calls"],
            fixed(seen["longest_us"] / 1_000),
            fixed(seen["processor_us"] / 1_000),
            fixed(seen["wall_us"] / 1_000),
            seen["over_1ms"],
            seen["waits_over_1ms"]
          ]
        end

      """
      #{fact["calls"]} calls of the native library, #{fact["over_1ms"]} of them over 1 ms, of which #{fact["waits_over_1ms"]} waited. By the wall's clock alone, with what the
      operating system took the processor from, #{fact["wall_over_1ms"]} and #{fixed(fact["wall_longest_ms"])} ms at most. #{fact["control_calls"]} calls of a function that never
      lasts: #{fact["control_over_1ms"]} over 1 ms by the wall's clock, the longest #{fixed(fact["control_longest_ms"])} ms. Priority: #{fact["priority"]}. The longest:

      """
      |> then(
        &section("How long the native library holds a scheduler", [
          &1,
          table(
            ["function", "load", "calls", "longest, ms", "on a processor", "by the wall", "over 1 ms", "waited"],
            rows
          )
        ])
      )
    end
  end

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
