defmodule Demo.Report do
  @moduledoc false
  # What is seen of the demonstration: headed sections, what was evaluated where, and a line for each thing that was
  # checked. The first that is not as it must be ends everything.

  @colour System.get_env("DEMO_COLOUR") == "yes"

  def section(title, words \\ nil) do
    IO.puts("\n" <> paint(:bright, title))
    if words, do: IO.puts("   " <> words)
  end

  def subsection(title), do: IO.puts("\n   " <> paint(:underline, title))

  @doc "What was evaluated where, and perhaps the rest of it, or what it printed, in lines of their own."
  def code(realm, code, lines \\ []) do
    IO.puts("   " <> paint(:cyan, String.pad_trailing(realm <> ">", 9)) <> code)
    for line <- lines, do: IO.puts(String.trim_trailing(String.duplicate(" ", 12) <> line))
  end

  def check(text, got, expected), do: check_that(text, got === expected, got, inspect(expected))

  def check_that(text, true, _got, _expected), do: IO.puts("   " <> paint(:green, "✓ ") <> text)

  def check_that(text, false, got, expected) do
    raise Demo.Failed, """
    #{text}
        must be:  #{expected}
        it was:   #{inspect(got, limit: :infinity, printable_limit: :infinity)}\
    """
  end

  @doc "Rows of text below a row of headings, in columns."
  def table(headings, rows) do
    rows = for row <- [headings | rows], do: Enum.map(row, &to_string/1)

    widths =
      rows |> Enum.zip_with(& &1) |> Enum.map(fn column -> column |> Enum.map(&String.length/1) |> Enum.max() end)

    for {row, index} <- Enum.with_index(rows) do
      line = row |> Enum.zip_with(widths, &String.pad_trailing/2) |> Enum.join("  ") |> String.trim_trailing()
      IO.puts("    " <> if(index == 0, do: paint(:faint, line), else: line))
    end
  end

  def failure(text), do: IO.puts(:stderr, "\n   " <> paint(:red, "✗ ") <> text)

  defp paint(style, text), do: IO.iodata_to_binary(IO.ANSI.format([style, text], @colour))
end
