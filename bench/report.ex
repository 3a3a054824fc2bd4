defmodule Bench.Report do
  @moduledoc "Files: the figures, the tables and plots that are made of them, and the README's table of targets."

  alias Bench.{JSON, Plots, Table}

  @json "latest.json"
  @table "table.md"
  @from "<!-- bench: from here, by scripts/bench readme -->\n"
  @to "<!-- bench: to here -->\n"

  @doc "Keeps the figures, and makes everything else of them."
  def write(json, dir, readme) do
    File.mkdir_p!(dir)
    File.write!(Path.join(dir, @json), json)
    render(dir, readme)
  end

  @doc "Makes everything else of the figures that are there."
  def render(dir, readme) do
    results = dir |> Path.join(@json) |> File.read!() |> JSON.decode()
    File.write!(Path.join(dir, @table), Table.render(results))
    for old <- Path.wildcard(Path.join(dir, "*.svg")), do: File.rm!(old)
    for {file, svg} <- Plots.render(results), do: File.write!(Path.join(dir, file), svg)
    between_markers(readme, [table(results), "\n", note(results, dir)])
    IO.puts("\nwritten to #{dir} and #{readme}")
  end

  # As a reader of the README wants it: the spread is in the results.
  defp table(results), do: Table.targets(results, [:what, :target, :floor, :measured, :mark])

  defp note(%{"machine" => machine} = results, dir) do
    """
    #{String.slice(results["date"], 0, 10)}, both ends on one machine with #{machine["cores"]} cores (#{machine["processor"]}), OTP #{machine["otp"]}; medians of #{results["rounds"]} interleaved rounds.
    "Best" is the better of plain distribution and distribution over TLS in the same round. Everything else is in [#{dir}](#{dir}/#{@table}).
    """
  end

  defp between_markers(file, content) do
    text = File.read!(file)

    with [before, rest] <- String.split(text, @from, parts: 2),
         [_old, behind] <- String.split(rest, @to, parts: 2) do
      File.write!(file, [before, @from, "\n", content, "\n", @to, behind])
    else
      _no_markers -> raise "#{file} has no place for the benchmark's table"
    end
  end
end
