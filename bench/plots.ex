defmodule Bench.Plots do
  @moduledoc "Which plots there are: from results to `[{file, SVG}]`."

  alias Bench.{Paths, Plot, Profile, Results}

  def render(results) do
    Enum.concat([
      loads(
        results,
        "casts-by-size.svg",
        casts(1),
        "bytes",
        "per_second",
        "Casts per second, 1 source engine to 1 engine",
        "size"
      ),
      loads(
        results,
        "casts-many-by-size.svg",
        casts(8),
        "bytes",
        "per_second",
        "Casts per second, 8 source engines to 100 engines",
        "size"
      ),
      loads(
        results,
        "calls-by-callers.svg",
        &call?/1,
        "callers",
        "per_second",
        "Calls per second, 64 B there and back",
        "callers"
      ),
      loads(
        results,
        "latency-by-callers.svg",
        &call?/1,
        "callers",
        "p50_us",
        "Round trip of a call, median, µs",
        "callers"
      ),
      loads(
        results,
        "latency-p99-by-callers.svg",
        &call?/1,
        "callers",
        "p99_us",
        "Round trip of a call, 99th percentile, µs",
        "callers"
      ),
      engines(results),
      peers(results),
      profile(results)
    ])
  end

  defp call?(row), do: row["kind"] == "call"

  defp casts(1), do: &(&1["kind"] == "cast" and &1["senders"] == 1 and &1["engines"] == 1)
  defp casts(8), do: &(&1["kind"] == "cast" and &1["senders"] in 2..8 and &1["engines"] == 100)

  # A line for each path.
  defp loads(results, file, wanted?, by, figure, title, x) do
    series =
      for {path, rows} <- results["rows"] |> Enum.filter(wanted?) |> Enum.group_by(& &1["path"]) do
        points = for row <- rows, do: {row[by], Results.median(row["rounds"][figure])}
        path = String.to_existing_atom(path)
        {Paths.label(path), Paths.number(path), Enum.sort(points)}
      end

    x_text = if by == "bytes", do: &Results.bytes/1, else: &to_string/1
    lines(results, file, title, x, x_text, series)
  end

  defp engines(results) do
    facts = Results.facts(results, "engines")
    points = fn key -> for fact <- facts, do: {fact["number"], fact[key]} end

    Enum.concat([
      lines(results, "engines.svg", "Seconds until all engines of a peer can be called", "engines", &Plot.tick/1, [
        {"published one by one", 0, points.("published_s")},
        {"link up to all callable", 1, points.("callable_s")}
      ]),
      lines(results, "engines-p50.svg", "A call among so many engines, median, µs", "engines", &Plot.tick/1, [
        {"embedded, tcp tls", 2, points.("call_p50_us")}
      ])
    ])
  end

  defp peers(results) do
    series = fn key ->
      for {{client, facts}, colour} <-
            results |> Results.facts("peers") |> Enum.group_by(& &1["client"]) |> Enum.with_index() do
        {"#{client} dials embedded", colour, for(fact <- facts, do: {fact["number"], fact[key]})}
      end
    end

    Enum.concat([
      lines(
        results,
        "peers-connects.svg",
        "Peers connected per second, dialled at once",
        "peers",
        &to_string/1,
        series.("connects_per_second")
      ),
      lines(
        results,
        "peers-calls.svg",
        "Calls per second, 100 callers spread over peers",
        "peers",
        &to_string/1,
        series.("calls_per_second")
      )
    ])
  end

  defp lines(results, file, title, x, x_text, series) do
    series = Enum.reject(series, fn {_label, _colour, points} -> points == [] end)
    plot = %{title: title, under: under(results), x: x, x_text: x_text, series: series}
    if series == [], do: [], else: [{file, Plot.lines(plot)}]
  end

  defp profile(results) do
    case Profile.bars(results) do
      [] ->
        []

      bars ->
        [{"profile.svg", Plot.bars(%{title: "Where the time goes", under: under(results), unit: "µs", bars: bars})}]
    end
  end

  defp under(%{"machine" => machine} = results) do
    date = String.slice(results["date"], 0, 10)
    "#{date}, both ends on #{machine["cores"]} cores of #{machine["processor"]}, OTP #{machine["otp"]}"
  end
end
