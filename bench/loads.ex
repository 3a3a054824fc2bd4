defmodule Bench.Loads do
  @moduledoc """
  Which loads are measured on which paths, in interleaved rounds: in each round every load is put on every path, and the path
  that comes first changes, so that nobody always follows the same neighbour.
  """

  alias Bench.{Load, Program, VM}

  @call_bytes 64
  @callers [1, 16, 64, 256]
  @sizes [16, 64, 256, 1_024, 65_536, 1_048_576]
  @warm_ms 50

  @doc "The loads of a part, all of them or (`:quick`) those that a target asks for."
  def of(:calls, _extent), do: for(callers <- @callers, do: %{kind: :call, bytes: @call_bytes, callers: callers})
  def of(:casts, :quick), do: for(bytes <- [64, 256, 65_536, 1_048_576], do: cast(bytes, 1, 1))

  def of(:casts, :all) do
    for bytes <- @sizes, {senders, engines} <- [{1, 1}, {8, 1}, {1, 100}, {8, 100}] do
      cast(bytes, min(senders, Load.senders_max(bytes)), engines)
    end
  end

  def of(:sources, :quick), do: for(bytes <- [64, 256], do: cast(bytes, 100, 1))
  def of(:sources, :all), do: of(:sources, :quick) ++ [%{cast(256, 8, 1) | from: :processes}]

  defp cast(bytes, senders, engines),
    do: %{kind: :cast, bytes: bytes, senders: senders, engines: engines, from: :engines}

  @doc """
  Measures. Returns a row for each load and path that go together, and for each of these that has failed once why, as
  `%{path:, why:}`: what happens on one path is no reason to lose what was measured on the others.
  """
  def measure(loads, paths, %{rounds: rounds, millis: millis} = config) do
    paths = Enum.filter(paths, & &1.client)
    pairs = for load <- loads, path <- paths, measured?(load, path), do: {load, path}
    # Once through, unmeasured: code loaded, connections up, buffers grown.
    for {load, path} <- pairs, do: attempt(load, path, min(millis, @warm_ms))

    measured =
      for round <- 1..rounds, load <- loads, path <- rotated(paths, round), {load, path} in pairs do
        config.progress.("round #{round} of #{rounds}: #{describe(load)}")
        {{load, path.name}, attempt(load, path, millis)}
      end

    rounds_of = Enum.group_by(measured, &elem(&1, 0), &elem(&1, 1))
    outcomes = for {load, path} <- pairs, do: outcome(load, path, rounds_of[{load, path.name}])
    Enum.split_with(outcomes, &is_map_key(&1, :rounds))
  end

  defp attempt(load, path, millis) do
    measure_once(load, path, millis)
  rescue
    error -> {:failed, "#{describe(load)}: #{error |> Exception.message() |> String.split("\n") |> hd()}"}
  end

  defp outcome(load, path, rounds) do
    case List.keyfind(Enum.filter(rounds, &is_tuple/1), :failed, 0) do
      nil -> row(load, path, rounds)
      {:failed, why} -> %{path: path.name, why: why}
    end
  end

  defp measured?(%{kind: :call}, _path), do: true
  defp measured?(%{engines: engines}, path) when engines > path.engines, do: false
  defp measured?(_load, %{main: true}), do: true
  defp measured?(%{senders: senders, engines: engines}, _path), do: senders == 1 and engines == 1

  defp rotated(paths, round) do
    {first, rest} = Enum.split(paths, rem(round, length(paths)))
    rest ++ first
  end

  defp measure_once(load, path, millis) do
    before = {Program.processor_ns([path.client]), Program.processor_ns(path.behind)}
    {count, figures} = load |> put(path, millis) |> Map.pop!(:count)
    each = &((Program.processor_ns(&1) - &2) / 1_000 / count)
    {own, behind} = before
    Map.merge(figures, %{client_cpu_us: each.([path.client], own), behind_cpu_us: each.(path.behind, behind)})
  end

  # A Rust core takes loads as text.
  defp put(load, %{target: nil, client: client}, millis) do
    words = for key <- [:kind, :bytes, :callers, :senders, :engines], value = load[key], do: "#{value} "
    Program.tell(client, [words, "#{millis}"])
    Program.figures(client)
  end

  defp put(%{kind: kind} = load, path, millis) do
    targets = for number <- 1..Map.get(load, :engines, 1), do: path.target.(:"e#{number}")
    VM.call(path.client, Load, if(kind == :call, do: :calls, else: :casts), [targets, load, millis])
  end

  defp row(load, path, rounds) do
    values = for figure <- rounds |> hd() |> Map.keys(), into: %{}, do: {figure, Enum.map(rounds, & &1[figure])}
    Map.merge(load, %{path: path.name, rounds: values})
  end

  defp describe(%{kind: :call} = load), do: "calls, #{load.callers} callers"
  defp describe(load), do: "casts of #{load.bytes} B, #{load.senders} senders, #{load.engines} engines"
end
