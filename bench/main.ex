defmodule Bench.Main do
  @moduledoc false
  # See scripts/bench, which calls this with what it has built.

  alias Bench.{Announced, Cores, JSON, Loads, Paths, Peers, Profile, Program, Report, Results, Schedulers, Table}
  alias Legation.{Native, Options}

  @realms ["client", "server", "near", "far"]
  # Of loads, in interleaved rounds on all paths; and what is measured by itself.
  @load_parts [:calls, :casts, :sources]
  @fact_parts [
    wire: {Cores, :wire},
    handshakes: {Cores, :handshakes},
    engines: {Announced, :via},
    global: {Announced, :global},
    peers: {Peers, :dialled},
    schedulers: {Schedulers, :held},
    profile: {Profile, :stages}
  ]
  @parts @load_parts ++ Keyword.keys(@fact_parts)
  # Of these a target asks for nothing.
  @not_quick [:peers, :profile]

  @results "bench/results"
  @readme "README.md"

  def main(["readme"]), do: Report.render(@results, @readme)

  def main([dir, daemon, ei_node, core | args]) do
    config = config(args)
    setup = setup(%{dir: dir, daemon: daemon, ei_node: ei_node, core: core})
    {rows, missing} = loads(setup, config)
    facts = for {part, what} <- @fact_parts, part in config.parts, fact <- facts(part, what, setup, config), do: fact
    {failed, facts} = Enum.split_with(facts, &is_map_key(&1, :why))
    measured = %{rows: rows, facts: facts, missing: missing ++ failed, complete: config.complete}
    json = config |> Results.header() |> Map.merge(measured) |> JSON.encode()
    config.progress.("")
    json |> JSON.decode() |> Table.render() |> IO.write()
    # A part of it would take the place of all of it.
    if config.complete, do: Report.write(json, @results, @readme)
  end

  defp loads(setup, config) do
    loads = for part <- @load_parts, part in config.parts, load <- Loads.of(part, config.extent), do: load
    if loads == [], do: {[], []}, else: loads(setup, config, loads)
  end

  defp loads(setup, config, loads) do
    paths = Paths.start(setup, config.only)
    {rows, failed} = Loads.measure(loads, paths, config)
    Program.stop_all()
    {rows, for(%{client: nil} = path <- paths, do: %{path: path.name, why: path.missing}) ++ failed}
  end

  # As with paths: the others are measured all the same.
  defp facts(part, {module, function}, setup, config) do
    config.progress.("#{part}")
    apply(module, function, [setup, config])
  rescue
    error ->
      Program.stop_all()
      [%{path: part, why: error |> Exception.message() |> String.split("\n") |> hd()}]
  end

  # `quick`, parts, paths or groups of them, rounds, milliseconds: in any order, numbers in theirs.
  defp config(args) do
    {numbers, words} = Enum.split_with(args, &(&1 =~ ~r/^\d+$/))
    words = Enum.map(words, &word/1)
    {quick, words} = Enum.split_with(words, &(&1 == :quick))
    {parts, only} = Enum.split_with(words, &(&1 in @parts))
    {rounds, millis} = if quick == [], do: {5, 400}, else: {3, 200}

    [rounds, millis] =
      numbers |> Enum.map(&String.to_integer/1) |> Kernel.++(Enum.drop([rounds, millis], length(numbers)))

    %{
      parts: if(parts == [], do: default_parts(quick), else: parts),
      only: if(only == [], do: Paths.names(), else: only),
      complete: words == [] and quick == [],
      extent: if(quick == [], do: :all, else: :quick),
      rounds: rounds,
      millis: millis,
      progress: progress()
    }
  end

  defp default_parts([]), do: @parts
  defp default_parts([:quick]), do: @parts -- @not_quick

  # Where somebody watches.
  defp progress do
    case :io.columns(:standard_error) do
      {:ok, _columns} -> &IO.write(:stderr, ["\r\e[K", &1])
      {:error, _no_terminal} -> fn _words -> :ok end
    end
  end

  defp word(text) do
    known = [:quick | @parts] ++ Paths.names()

    Enum.find(known, &(to_string(&1) == text)) ||
      raise(ArgumentError, "#{text} is none of #{Enum.join(known, ", ")}")
  end

  defp setup(setup) do
    keys =
      for realm <- @realms, into: %{} do
        {:ok, public} = Native.keyring_generate(Path.join(setup.dir, "#{realm}.pem"))
        {realm, Options.format_key(public)}
      end

    Map.put(setup, :key, keys)
  end
end
