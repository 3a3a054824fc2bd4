defmodule Legation.SecurityPageTest do
  # Each promise of docs/security.md, each attack of docs/attacks.md and each mistake of docs/findings.md names the tests that
  # show it, and each of them exists.
  use ExUnit.Case, async: true

  @root Path.expand("../..", __DIR__)
  @page File.read!(Path.join(@root, "docs/security.md"))

  defp cited(text) do
    for [_all, file, name] <- Regex.scan(~r/`((?:rust_tests|native|test)\/[\w.\/]+\.(?:rs|exs))#([^`]+)`/, text),
        uniq: true,
        do: {file, name}
  end

  # A title may have something computed behind the words that are cited.
  defp there?({file, name}) do
    case File.read(Path.join(@root, file)) do
      {:ok, text} -> text =~ pattern(Path.extname(file), Regex.escape(name))
      {:error, _reason} -> false
    end
  end

  defp pattern(".rs", name), do: Regex.compile!("#\\[(tokio::)?test[^\\n]*\\]\\s+(async )?fn #{name}\\(")
  defp pattern(".exs", name), do: Regex.compile!("test \"#{name}( \\(|\"| \#{)")

  test "each test that the page names exists" do
    cited = cited(@page)
    assert length(cited) > 100
    assert Enum.reject(cited, &there?/1) == []
  end

  test "each promise has a test" do
    tables =
      for block <- String.split(@page, "\n\n"),
          [head, _line | rows] <- [String.split(block, "\n", trim: true)],
          String.ends_with?(head, "shown by |"),
          do: rows

    promises = Enum.concat(tables)
    assert {length(tables), length(promises) > 40} == {11, true}
    assert Enum.filter(promises, &(cited(&1) == [])) == []
  end

  test "each attack has a test that exists, and each row of the table of attacks is there" do
    page = File.read!(Path.join(@root, "docs/attacks.md"))
    assert Enum.reject(cited(page), &there?/1) == []
    attacks = for [_all, numbers, rest] <- Regex.scan(~r/^\| ([\d, ]+) \| (.*)$/m, page), do: {numbers, rest}
    assert Enum.filter(attacks, fn {_numbers, rest} -> cited(rest) == [] end) == []

    named = for {numbers, _rest} <- attacks, number <- String.split(numbers, ", "), do: String.to_integer(number)
    wanted = Enum.concat([58..63, 66..72, [77], 103..120])
    assert wanted -- named == []
    # Tests say which they show by `@tag rows:`.
    for file <- Path.wildcard(Path.join(@root, "test/integration/attacks_*_test.exs")),
        [_all, rows] <- Regex.scan(~r/tag rows: \[([\d, ]+)\]/, File.read!(file)),
        row <- String.split(rows, ", "),
        do: assert(String.to_integer(row) in (named ++ [57, 74, 79]), "row #{row} of #{file} is not on the page")
  end

  test "each finding has a test that exists" do
    rows = for [row] <- Regex.scan(~r/^\| [A-Z].*$/m, File.read!(Path.join(@root, "docs/findings.md"))), do: cited(row)
    assert length(rows) > 10
    assert Enum.reject(rows, &(&1 != [] and Enum.all?(&1, fn test -> there?(test) end))) == []
  end

  test "a test that isn't there would be missed" do
    refute there?({"rust_tests/tests/attacks.rs", "a_test_of_nothing"})
    refute there?({"rust_tests/tests/attacks.rs", "changed"})
    refute there?({"test/legation/security_page_test.exs", "each promise has a"})
    refute there?({"test/legation/none_test.exs", "each promise has a test"})
  end
end
