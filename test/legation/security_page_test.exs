defmodule Legation.SecurityPageTest do
  # Each promise of docs/security.md names the tests that show it, and each of them exists.
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

  test "a test that isn't there would be missed" do
    refute there?({"rust_tests/tests/attacks.rs", "a_test_of_nothing"})
    refute there?({"rust_tests/tests/attacks.rs", "changed"})
    refute there?({"test/legation/security_page_test.exs", "each promise has a"})
    refute there?({"test/legation/none_test.exs", "each promise has a test"})
  end
end
