# What a BEAM node sees of an engine behind Legation's daemon, beside the same engine on a second BEAM node and on a C-node
# made with `ei`: calls, casts, and a ping behind large casts, in interleaved rounds of one run. Then end to end.
#
#   (a) BEAM - BEAM                        the measure: x is the ratio to it in the same round
#   (b) BEAM - ei node                     no monitors across distribution, so two frames a call less
#   (c) BEAM - daemon                      the daemon answers itself, as it answers for engines of others: monitors and all
#   (d) BEAM - daemon - daemon - BEAM      signed, encrypted, over tcp
#   (e) BEAM - daemon - embedded BEAM      the same
#
#   scripts/bench node [ROUNDS] [MILLISECONDS PER MEASUREMENT]

Code.require_file("load.exs", __DIR__)
Code.require_file("results.exs", __DIR__)
Code.require_file("targets.exs", __DIR__)

defmodule Bench.Node do
  alias Bench.{Load, Results, Targets}

  @labels [
    beam: "a second BEAM node",
    ei: "ei node",
    daemon: "daemon",
    daemons: "daemon, daemon, BEAM",
    embedded: "daemon, embedded BEAM"
  ]

  # Kind, bytes, processes at it.
  @calls for callers <- [1, 16, 64, 256], do: {:call, 64, callers}
  @casts for bytes <- [64, 256, 65_536], senders <- [1, 16], do: {:cast, bytes, senders}
  @pings [{:ping, 1_048_576, 1}]
  @cases @calls ++ @casts ++ @pings

  def main([dir, ei_node, daemon, results, rounds, millis]) do
    {rounds, millis} = {String.to_integer(rounds), String.to_integer(millis)}
    {:ok, _} = Node.start(:"client@127.0.0.1", :longnames)
    Node.set_cookie(:bench)
    targets = Targets.start(dir, ei_node, daemon)
    # Once through, unmeasured: code loaded, connections up, buffers grown.
    for case <- @cases, target <- targets, measured?(case, target), do: measure(target, case, min(millis, 50))

    measured = Enum.flat_map(1..rounds, &round(&1, rounds, targets, millis))
    measured = Enum.group_by(measured, &elem(&1, 0), &elem(&1, 1))
    rows = for case <- @cases, target <- targets, measured?(case, target), do: row(measured, case, target.name)
    report(rows, rounds, millis)
    if results != "-", do: Results.write(results, "node", %{rounds: rounds, milliseconds: millis, rows: rows})
  end

  defp round(round, rounds, targets, millis) do
    IO.puts(:stderr, "round #{round} of #{rounds}")

    for case <- @cases, target <- rotated(targets, round), measured?(case, target) do
      {{case, target.name}, measure(target, case, millis)}
    end
  end

  # A peer's bound is met on purpose there: what comes through says nothing about time.
  defp measured?({:ping, _, _}, target), do: target.name in [:beam, :ei, :daemon]
  defp measured?(_case, _target), do: true

  # Nobody always comes after the same neighbour.
  defp rotated(targets, round) do
    {first, rest} = Enum.split(targets, rem(round, length(targets)))
    rest ++ first
  end

  defp measure(%{engine: engine, programs: programs}, {kind, bytes, processes}, millis) do
    :erlang.garbage_collect()
    before = {Results.processor_ns([System.pid()]), Results.processor_ns(programs)}

    figures =
      case kind do
        :call -> Load.calls(engine, bytes, processes, millis)
        :cast -> Load.casts(engine, bytes, processes, millis)
        :ping -> Load.pings_behind(engine, bytes, 2 * millis)
      end

    {own, theirs} = before
    {count, figures} = Map.pop!(figures, :count)
    each = &((Results.processor_ns(&1) - &2) / 1_000 / count)
    Map.merge(figures, %{caller_cpu_us: each.([System.pid()], own), engine_cpu_us: each.(programs, theirs)})
  end

  # The figures.

  defp row(measured, {kind, bytes, processes} = case, name) do
    rounds = measured[{case, name}]
    base = measured[{case, :beam}]

    figures =
      for figure <- Map.keys(hd(rounds)), into: %{} do
        {figure, Results.summary(Enum.map(rounds, & &1[figure]), Enum.map(base, & &1[figure]))}
      end

    Map.merge(figures, %{kind: kind, bytes: bytes, processes: processes, target: name})
  end

  defp report(rows, rounds, millis) do
    IO.puts("""

    Medians of #{rounds} interleaved rounds of #{millis} ms, lowest - highest, and x: the ratio to a second BEAM node in
    the same round, median of the rounds. cpu: microseconds of processor time for each, the caller's VM's, and that of
    all programs behind it.
    """)

    cpu = [{"cpu", :caller_cpu_us, :median}, {"behind", :engine_cpu_us, :median}]
    latency = [{"p50 us", :p50_us, :spread}, {"p99 us", :p99_us, :ratio}]
    rate = {"per second", :per_second, :spread}

    table(rows, :call, "gen_server:call, 64 bytes there and back", {"callers", & &1.processes}, [rate | latency] ++ cpu)
    table(rows, :cast, "casts", {"bytes, senders", &"#{&1.bytes}, #{&1.processes}"}, [rate | cpu])

    title = "one call at a time, while another process casts as fast as it may"
    bytes = {"casts' bytes/s", :casts_bytes_per_second, :ratio}
    table(rows, :ping, title, {"casts of", &"#{&1.bytes}"}, latency ++ [bytes])
  end

  defp table(rows, kind, title, {first, label}, columns) do
    IO.puts(["\n", title, "\n"])
    IO.puts([String.pad_trailing(first, 15), String.pad_trailing("engine on", 22), Enum.map(columns, &head/1)])

    for %{kind: ^kind} = row <- rows do
      figures = for {_name, key, form} <- columns, do: figure(row[key], form)
      IO.puts([String.pad_trailing("#{label.(row)}", 15), String.pad_trailing(@labels[row.target], 22), figures])
    end
  end

  defp head({name, _key, :spread}), do: head({[name, String.duplicate(" ", 19)], nil, :ratio})
  defp head({name, _key, :ratio}), do: [head({name, nil, :median}), "     x"]
  defp head({[name, rest], _key, :median}), do: [String.pad_leading(name, 15), rest]
  defp head({name, _key, :median}), do: String.pad_leading(name, 15)

  defp figure(figure, :spread) do
    spread = "  #{Results.number(figure.min)} - #{Results.number(figure.max)}"
    [figure(figure, :median), String.pad_trailing(spread, 19), String.pad_leading(Results.ratio(figure.x), 6)]
  end

  defp figure(figure, :ratio), do: [figure(figure, :median), String.pad_leading(Results.ratio(figure.x), 6)]
  defp figure(figure, :median), do: String.pad_leading(Results.number(figure.median), 15)
end

Bench.Node.main(System.argv())
