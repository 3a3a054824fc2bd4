defmodule Legation.TestFailures do
  @moduledoc """
  An ExUnit formatter beside the usual one: at the very end of a run it says once more which tests have failed, each in a few
  lines, where the usual report has the whole story, with logs of daemons that are longer than what most people see of a
  run's output. When all pass it says nothing.
  """

  use GenServer

  # Of one test: its name, where it is, and what begins the explanation.
  @lines_max 14
  @bytes_max 300
  # So many are told of in short; if more fail it is one cause as a rule.
  @failures_max 20

  @impl true
  def init(_opts), do: {:ok, []}

  @impl true
  def handle_cast({:test_finished, %ExUnit.Test{state: {:failed, failures}} = test}, failed),
    do: {:noreply, [{test, failures} | failed]}

  # Its tests did not run: `setup_all` has failed.
  def handle_cast({:module_finished, %ExUnit.TestModule{state: {:failed, failures}} = module}, failed),
    do: {:noreply, [{module, failures} | failed]}

  # What is said after the suite comes behind what the other formatters say of its end.
  def handle_cast({:suite_finished, _times_us}, failed) do
    if failed != [], do: ExUnit.after_suite(fn _result -> IO.write(digest(Enum.reverse(failed))) end)
    {:noreply, []}
  end

  def handle_cast(_other, failed), do: {:noreply, failed}

  @doc "What is said of `[{test or module, failures}]`."
  def digest(failed) do
    {told, left_out} = Enum.split(failed, @failures_max)
    told = for {one, number} <- Enum.with_index(told, 1), do: [?\n, in_short(one, number)]
    more = if left_out == [], do: [], else: "\n  and #{length(left_out)} more\n"
    IO.iodata_to_binary(["\nFailed, in short:\n", told, more])
  end

  defp in_short({%ExUnit.Test{} = test, failures}, number),
    do: test |> ExUnit.Formatter.format_test_failure(failures, number, 120, &plain/2) |> shortened()

  defp in_short({%ExUnit.TestModule{} = module, failures}, number),
    do: module |> ExUnit.Formatter.format_test_all_failure(failures, number, 120, &plain/2) |> shortened()

  defp plain(:diff_enabled?, _default), do: false
  defp plain(_key, text), do: text

  defp shortened(text) do
    lines = text |> String.split("\n") |> Enum.reject(&(String.trim(&1) == ""))
    for line <- Enum.take(lines, @lines_max), do: [short(line), ?\n]
  end

  defp short(line) when byte_size(line) <= @bytes_max, do: line
  defp short(line), do: String.slice(line, 0, @bytes_max) <> "…"
end
