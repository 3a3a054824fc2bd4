defmodule Legation.Semantics do
  @moduledoc """
  Holds `docs/semantics.md` to the code: each row of its tables is a test of its own, by the row's name, and each cell has to be
  what was seen.

      use Legation.Semantics, sections: ["Calls"]

      scenario "call_up", context do
        [{:reply, 1}, [{:call, 1}], []]              what was seen, in the order of the columns
      end

  A row of these sections without a scenario fails, and a scenario without a row does. A cell has the term that is seen, in backticks, as
  `inspect/1` writes it. Where a realm behind a daemon sees another one the cell has that, too: "`:a`; daemon: `:b`". Columns of the engine are its
  realm's, alice's; all others are of bob's, who asks.
  """

  import ExUnit.Assertions, only: [assert: 1]

  @page Path.expand("../../docs/semantics.md", __DIR__)

  defmacro __using__(opts) do
    quote do
      # Before ExUnit's own, which looks at what tests there are.
      @before_compile Legation.Semantics
      use Legation.Case, async: true
      import Legation.Semantics

      @external_resource unquote(@page)
      @sections unquote(opts[:sections])
      @awaiting unquote(opts[:awaiting] || [])
      Module.register_attribute(__MODULE__, :scenarios, accumulate: true)
    end
  end

  defmacro scenario(row, context \\ quote(do: _context), do: body) do
    quote do
      @scenarios unquote(row)
      defp seen(unquote(row), unquote(context)), do: unquote(body)
    end
  end

  defmacro __before_compile__(env) do
    scenarios = Module.get_attribute(env.module, :scenarios)
    awaiting = Module.get_attribute(env.module, :awaiting)
    rows = for section <- Module.get_attribute(env.module, :sections), row <- rows(section), do: row
    names = for %{row: row} <- rows, do: row

    for stray <- scenarios, stray not in names, do: raise("docs/semantics.md has no row #{stray}")
    if names != Enum.uniq(names), do: raise("docs/semantics.md has rows twice: #{inspect(names -- Enum.uniq(names))}")

    tests =
      for row <- rows do
        cond do
          row.row in scenarios ->
            quote do
              test unquote("#{row.row}: #{row.what}"), context do
                check(unquote(Macro.escape(row)), seen(unquote(row.row), context))
              end
            end

          row.row in awaiting ->
            quote do
              @tag skip: "not there yet"
              test(unquote("#{row.row}: #{row.what}"), do: :ok)
            end

          true ->
            raise "the row #{row.row} of docs/semantics.md has no scenario"
        end
      end

    quote(do: (unquote_splicing(tests)))
  end

  @doc "The rows of a section: name, what happens, and the cells by column."
  def rows(heading) do
    [_before, section] = @page |> File.read!() |> String.split("\n## " <> heading <> "\n", parts: 2)
    lines = section |> String.split("\n## ") |> hd() |> String.split("\n") |> Enum.filter(&String.starts_with?(&1, "|"))
    [head, _rule | rows] = Enum.map(lines, &cells/1)

    for ["`" <> _ = row, what | cells] <- rows do
      columns = Enum.drop(head, 2)
      if length(columns) != length(cells), do: raise("a row of docs/semantics.md has too few or many cells: #{row}")
      %{row: String.trim(row, "`"), what: what, cells: Enum.zip(columns, cells)}
    end
  end

  defp cells(line), do: line |> String.trim() |> String.trim("|") |> String.split(" | ") |> Enum.map(&String.trim/1)

  @doc "Compares what was seen, a list, with the cells of a row."
  def check(%{row: row, cells: cells}, seen) do
    transports = Process.get(:semantics_transports, %{})

    expected =
      for {column, cell} <- cells do
        realm = if column =~ "engine", do: "alice", else: "bob"
        {column, expected(cell, transports[realm])}
      end

    found = for {{column, _cell}, term} <- Enum.zip(cells, seen), do: {column, inspect(term, limit: :infinity)}
    assert({row, found} == {row, expected})
  end

  defp expected(cell, transport) do
    case {Regex.scan(~r/`([^`]*)`/, cell), transport} do
      {[[_, _embedded], [_, daemon]], :c_node} -> daemon
      {[[_, term] | _], _transport} -> term
    end
  end

  @doc "Says over which transport a realm of the scenario runs."
  def runs(realm, transport) do
    transports = Process.get(:semantics_transports, %{})
    Process.put(:semantics_transports, Map.put(transports, realm, transport))
  end
end
