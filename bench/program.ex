defmodule Bench.Program do
  @moduledoc """
  A program of the benchmark's in a process of the operating system. It says lines, is told lines, and ends with its standard
  input, which we hold: so nothing is left behind when we are gone.
  """

  @enforce_keys [:name, :port, :process]
  defstruct [:name, :port, :process]

  @type t :: %__MODULE__{}

  # A line that is longer comes in pieces, and no answer may.
  @line_bytes 16_777_216
  @ready_ms 30_000
  @end_ms 10_000

  @doc "Starts it. `await/3` for the word that it says when it is ready; others can be started meanwhile."
  @spec start(binary, Path.t(), [binary]) :: t
  def start(name, executable, args) do
    options = [:binary, :exit_status, {:line, @line_bytes}, args: args]
    port = Port.open({:spawn_executable, executable}, options)
    {:os_pid, process} = Port.info(port, :os_pid)
    program = %__MODULE__{name: name, port: port, process: process}
    Process.put({__MODULE__, port}, program)
    program
  end

  @doc "What stands behind one of these words, with the word. Other lines are shown."
  @spec await(t, [binary], timeout) :: {word :: binary, rest :: binary}
  def await(%__MODULE__{port: port} = program, words, timeout \\ @ready_ms) do
    receive do
      {^port, {:data, {:eol, line}}} ->
        [word | rest] = String.split(line, " ", parts: 2)

        if word in words do
          {word, Enum.join(rest)}
        else
          IO.puts(:stderr, "#{program.name}: #{line}")
          await(program, words, timeout)
        end

      {^port, {:exit_status, status}} ->
        raise "#{program.name} ended with status #{status}"
    after
      timeout ->
        # What it says later would be taken for the answer to something else.
        stop(program)
        raise "#{program.name} did not say #{Enum.join(words, " or ")} within #{timeout} ms"
    end
  end

  @doc "The figures behind the next RESULT: names and values in turn."
  @spec figures(t) :: %{atom => float}
  def figures(%__MODULE__{} = program) do
    {"RESULT", text} = await(program, ["RESULT"])

    for [name, value] <- text |> String.split() |> Enum.chunk_every(2),
        into: %{},
        do: {String.to_atom(name), String.to_float(value)}
  end

  @spec tell(t, iodata) :: true
  def tell(%__MODULE__{port: port}, line), do: Port.command(port, [line, ?\n])

  @doc "Ends all that were started and have not been stopped."
  @spec stop_all() :: :ok
  def stop_all do
    programs = for {{__MODULE__, _port}, program} <- Process.get(), do: program
    Enum.each(programs, &stop/1)
  end

  @doc "Waits until a program has ended that ends by itself."
  @spec await_end(t) :: :ok
  def await_end(%__MODULE__{port: port, name: name}) do
    receive do
      {^port, {:exit_status, 0}} -> :ok
      {^port, {:exit_status, status}} -> raise "#{name} ended with status #{status}"
    after
      @end_ms -> raise "#{name} did not end"
    end
  end

  @doc "Ends it, and waits until it has ended."
  @spec stop(t) :: :ok
  def stop(%__MODULE__{port: port} = program) do
    Process.delete({__MODULE__, port})
    if Port.info(port), do: Port.close(port)
    gone(program, System.monotonic_time(:millisecond) + @end_ms)
  end

  defp gone(%__MODULE__{process: process} = program, deadline) do
    case System.cmd("kill", ["-0", "#{process}"], stderr_to_stdout: true) do
      {_output, 0} ->
        if System.monotonic_time(:millisecond) > deadline, do: System.cmd("kill", ["-KILL", "#{process}"])
        Process.sleep(20)
        gone(program, deadline)

      {_no_such_process, _status} ->
        :ok
    end
  end

  @doc "Time that all threads of these programs have had on processors. 0 where the system doesn't tell as Linux does."
  @spec processor_ns([t]) :: non_neg_integer
  def processor_ns(programs) do
    for %{process: process} <- programs, task <- Path.wildcard("/proc/#{process}/task/*/schedstat"), reduce: 0 do
      sum ->
        # A thread may end meanwhile.
        with {:ok, text} <- File.read(task),
             [nanoseconds | _] <- String.split(text),
             do: sum + String.to_integer(nanoseconds),
             else: (_ -> sum)
    end
  end
end
