defmodule Bench.Main do
  @moduledoc false
  # See scripts/bench, which calls this with what it has built.

  alias Bench.{JSON, Loads, Paths, Program, Results, Table}
  alias Legation.{Native, Options}

  @realms ["client", "server", "near", "far"]
  @load_parts [:calls, :casts, :sources]
  @parts @load_parts

  def main(argv) do
    [dir, daemon, ei_node, core | args] = argv
    config = config(args)
    setup = setup(%{dir: dir, daemon: daemon, ei_node: ei_node, core: core})
    paths = Paths.start(setup, config.only)
    loads = for part <- @load_parts, part in config.parts, load <- Loads.of(part, config.extent), do: load
    rows = Loads.measure(loads, paths, config)
    paths |> Enum.flat_map(&[&1.client | &1.behind]) |> Enum.uniq() |> Enum.each(&(&1 && Program.stop(&1)))
    missing = for %{client: nil} = path <- paths, do: %{path: path.name, why: path.missing}

    results =
      config |> Results.header() |> Map.merge(%{rows: rows, facts: [], missing: missing, complete: config.complete})

    json = JSON.encode(results)
    IO.write(["\n", json |> JSON.decode() |> Table.render()])
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
      parts: if(parts == [], do: @parts, else: parts),
      only: if(only == [], do: Paths.names(), else: only),
      complete: words == [],
      extent: if(quick == [], do: :all, else: :quick),
      rounds: rounds,
      millis: millis,
      progress: progress()
    }
  end

  # Where somebody watches.
  defp progress do
    case :io.columns(:standard_error) do
      {:ok, _columns} -> &IO.write(:stderr, ["\r\e[K", &1])
      {:error, _no_terminal} -> fn _words -> :ok end
    end
  end

  defp word(text) do
    known = [:quick, :all | @parts] ++ Paths.names()

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
