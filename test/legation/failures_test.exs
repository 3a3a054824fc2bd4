defmodule Legation.FailuresTest do
  # What a run says at its end of the tests that have failed. Runs of their own, as their failures are not this one's.
  use ExUnit.Case, async: true

  alias Legation.TestFailures

  defp run(tests) do
    script = """
    ExUnit.start(formatters: [ExUnit.CLIFormatter, Legation.TestFailures], seed: 0, colors: [enabled: false])

    defmodule SomeTest do
      use ExUnit.Case
      #{tests}
    end
    """

    elixir = System.find_executable("elixir")
    System.cmd(elixir, ["-pa", Path.dirname(:code.which(TestFailures)), "-e", script], stderr_to_stdout: true)
  end

  defp digest(output), do: output |> String.split("Failed, in short:\n") |> List.last()

  test "those that have failed come last, with where they are and why, without their logs" do
    {output, status} =
      run("""
        test "that passes", do: :ok

        @tag :capture_log
        test "that compares", do: (require(Logger); Logger.error("a line of a log"); assert 1 + 1 == 3)

        test "that raises", do: raise("a reason")
      """)

    assert status != 0
    assert output =~ "a line of a log"
    assert output =~ "3 tests, 2 failures"
    digest = digest(output)
    assert digest != output
    assert digest =~ ~r/1\) test that compares \(SomeTest\)\n +nofile:\d+\n/
    assert digest =~ ~r/code: +assert 1 \+ 1 == 3\n +left: +2\n +right: 3\n/
    assert digest =~ "2) test that raises (SomeTest)"
    assert digest =~ "(RuntimeError) a reason"
    refute digest =~ "a line of a log"
    refute digest =~ "that passes"
    refute digest =~ "Finished in"
  end

  test "a long reason is cut, and so is a long list" do
    {output, _status} =
      run("""
        for n <- 1..25 do
          @tag n: n
          test "number \#{n}", %{n: n}, do: assert(Enum.to_list(1..n * 1_000) == String.duplicate("x", 9_000))
        end
      """)

    digest = digest(output)
    assert digest =~ ~r/\n  and 5 more\n\z/
    assert byte_size(digest) < 25_000
  end

  test "a setup that has failed is told of once" do
    {output, _status} =
      run("""
        setup_all do: raise("no such luck")
        test "one", do: :ok
        test "another", do: :ok
      """)

    digest = digest(output)
    assert digest =~ "SomeTest: failure on setup_all callback, all tests have been invalidated"
    assert length(String.split(digest, "no such luck")) == 2
  end

  test "when all pass nothing is said" do
    {output, 0} = run("test \"that passes\", do: :ok")
    assert output =~ "1 test, 0 failures"
    refute output =~ "in short"
  end
end
