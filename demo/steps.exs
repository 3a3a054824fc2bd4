defmodule Demo.Steps do
  @moduledoc false
  # What every demonstration does in the VMs that it has started, and how it ends.

  import Demo.Report

  alias Demo.{Processes, VM}

  # How long something may take of which nobody is told, and how often we look.
  @patience_ms 10_000
  @look_ms 10

  @doc "Shown, and evaluated."
  def value(vm, code) do
    code(vm.realm, code)
    quiet(vm, code)
  end

  @doc "Shown, evaluated, and compared with what it must be. Returns the value."
  def expect(vm, code, expected, text) do
    value = value(vm, code)
    check("#{text}: #{show(vm, value)}", value, expected)
    value
  end

  @doc "The same where not all of the value is known before."
  def expect_like(vm, code, like, good?, text) do
    value = value(vm, code)
    check_that("#{text}: #{show(vm, value)}", good?.(value), value, like)
    value
  end

  @doc "A value as they write it there."
  def show(%{language: :elixir}, value), do: inspect(value)
  def show(%{language: :erlang}, value), do: ~c"~0tp" |> :io_lib.format([value]) |> to_string()

  def quiet(vm, code) do
    case VM.eval(vm, code) do
      {:value, value} -> value
      {:exit, _reason, text} -> raise Demo.Failed, "in #{vm.realm}'s VM #{code} exited: #{text}"
    end
  end

  @doc "Shown, and evaluated: it must exit. Returns the reason."
  def exit_reason(vm, code) do
    case VM.eval(vm, code) do
      {:exit, reason, text} ->
        code(vm.realm, code, [text |> String.split("\n") |> Enum.map_join(" ", &String.trim/1)])
        reason

      {:value, value} ->
        raise Demo.Failed, "in #{vm.realm}'s VM #{code} was to exit, and returned #{inspect(value)}"
    end
  end

  @doc "Evaluates until the value is good, and returns it."
  def await_value(vm, code, good?),
    do: await("in #{vm.realm}'s VM #{code}", fn -> quiet(vm, code) end, good?)

  @doc "The same of anything."
  def await(what, look, good?, until_ms \\ now_ms() + @patience_ms) do
    value = look.()

    cond do
      good?.(value) ->
        value

      now_ms() < until_ms ->
        receive do
        after
          @look_ms -> await(what, look, good?, until_ms)
        end

      true ->
        raise Demo.Failed, "#{what} is still #{inspect(value)} after #{@patience_ms} ms"
    end
  end

  def now_ms, do: System.monotonic_time(:millisecond)

  ## From the start to the end

  @doc "Runs `demonstration` with the arguments, of which the first is the directory for everything, and ends the VM if it failed."
  def run([dir | _rest] = args, demonstration) do
    started_ms = now_ms()

    case attempt(args, demonstration) do
      :ok ->
        IO.puts("\nAll of it was as it must be. It took #{Float.round((now_ms() - started_ms) / 1000, 1)} s.")
        # Whoever is told to stop ends with 0 as well; this says that we have come to the end.
        dir |> Path.join("finished") |> File.write!("")

      {:failed, text} ->
        Processes.kill_all(dir)
        failure(text)
        dir |> Path.join("*.log") |> Path.wildcard() |> Enum.each(&show_end/1)
        IO.puts(:stderr, "\nThe demonstration has FAILED. What it had started was killed.")
        System.halt(1)
    end
  end

  defp attempt(args, demonstration) do
    demonstration.(args)
    :ok
  rescue
    failed in Demo.Failed -> {:failed, failed.message}
    error -> {:failed, Exception.format(:error, error, __STACKTRACE__)}
  catch
    kind, reason -> {:failed, Exception.format(kind, reason, __STACKTRACE__)}
  end

  defp show_end(log) do
    case log |> File.read!() |> String.split("\n", trim: true) do
      [] ->
        :ok

      lines ->
        IO.puts(:stderr, "\n  The end of #{Path.basename(log)}:")
        for line <- Enum.take(lines, -20), do: IO.puts(:stderr, "    " <> line)
    end
  end
end
