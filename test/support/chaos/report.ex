defmodule Legation.Chaos.Report do
  @moduledoc "What the runs of `make chaos` have come to, in words."

  alias Legation.Chaos.Recovery

  @doc "Keeps a run's report for the summary, which is printed when all tests are over."
  def add(report) do
    :persistent_term.put(__MODULE__, all() ++ [report])
  end

  def all, do: :persistent_term.get(__MODULE__, [])

  @doc "A copy of the journals that is still there afterwards."
  def keep(dir) do
    kept = Path.join(System.tmp_dir!(), "legation-chaos-#{System.pid()}-#{Path.basename(dir)}")
    File.cp_r!(dir, kept)
    kept
  end

  def failure(report, finished, violations, kept) do
    """
    #{report.pair}, #{inspect(report.shape)}: #{length(violations)} violations; #{if finished == :ok, do: "all have stopped", else: "it has not come to its end: #{inspect(finished, pretty: true)}"}
    #{violations |> Enum.frequencies_by(&elem(&1, 0)) |> inspect()}
    #{violations |> Enum.take(30) |> Enum.map_join("\n", fn {name, text} -> "  #{name}  #{text}" end)}
    The journals are in #{kept}; the same again: LEGATION_CHAOS_SEED of this run.
    """
  end

  @doc "How long links took to be there again after everything was mended, in µs: of all episodes in which one was lost and nobody killed."
  def reconnects(reports \\ all()),
    do: for(report <- reports, %{kind: :link, us: us} when us != nil <- report.recovery, do: us)

  def summary(seed, reports \\ all()) do
    sum = fn what -> Enum.sum(for report <- reports, do: Map.get(report.figures, what, 0)) end
    count = fn kind -> Enum.sum(for report <- reports, do: Map.get(report.counts, kind, 0)) end
    episodes = Enum.flat_map(reports, & &1.recovery)
    kills = for %{kind: :kill, us: us} when us != nil <- episodes, do: us
    ridden = for %{us: nil} <- episodes, do: 1

    """

    chaos: seed #{seed}
    #{Enum.map_join(reports, "\n", &line/1)}
    faults      #{count.(:kill)} kills, #{count.(:stop)} stops, #{count.(:cut)} cuts, #{count.(:stall)} stalls, #{count.(:slow)} slow, #{count.(:reset)} resets, in #{length(episodes)} episodes
    messages    #{sum.(:sent)} sent by #{sum.(:pairs)} senders, #{sum.(:delivered)} delivered
    calls       #{sum.(:calls)}, of which #{sum.(:answered)} answered; the longest took #{reports |> Enum.map(& &1.figures.slowest_call_ms) |> Enum.max(fn -> 0 end)} ms
                #{outcomes(reports)}
    told by pid #{sum.(:told)}; monitors fired #{sum.(:fired)}
    sessions    #{sum.(:sessions)} begun, as either side sees it; links lost #{sum.(:lost)}, resumed #{sum.(:resumed)}, ended #{sum.(:down)}; told as perhaps lost (gap) #{sum.(:gap)}
    link back   after #{length(reconnects(reports))} outages: #{percentiles(reconnects(reports))}; #{length(ridden)} more were ridden out
                the slowest: #{slowest(episodes)}
                after #{length(kills)} restarts: #{percentiles(kills)}
    violations  #{Enum.sum(for report <- reports, do: report.violations)}
    """
  end

  defp line(report) do
    back = reconnects([report])

    "#{String.pad_trailing(report.pair, 19)} #{report.seconds} s, #{Enum.join(report.shape[:dials], " and ")} dial, cables #{report.shape[:cables]}: sent #{report.figures.sent}, link back #{percentiles(back)}"
  end

  defp outcomes(reports) do
    reports
    |> Enum.flat_map(&Map.to_list(&1.figures.outcomes))
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.map_join(", ", fn {outcome, counts} -> "#{outcome || "cut off by a kill"} #{Enum.sum(counts)}" end)
  end

  defp slowest(episodes) do
    for(%{kind: :link, us: us, what: what} when us != nil <- episodes, do: {us, what})
    |> Enum.sort(:desc)
    |> Enum.take(8)
    |> Enum.map_join(", ", fn {us, what} -> "#{what} #{div(us, 1_000)} ms" end)
  end

  defp percentiles(us), do: "p50 #{ms(us, 50)}, p99 #{ms(us, 99)}, longest #{ms(us, 100)}"

  defp ms(us, p) do
    case Recovery.percentile(us, p) do
      nil -> "-"
      us -> "#{Float.round(us / 1_000, 1)} ms"
    end
  end
end
