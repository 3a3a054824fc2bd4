defmodule Bench.Schedulers do
  @moduledoc """
  How long a call of the native library holds a normal scheduler: from the call until it returns, or until its process is scheduled
  out because the work goes on elsewhere (a dirty scheduler), as the trace has it.

  The clock is the wall's: a thread that the operating system takes the processor from in the middle of a call looks as if the call had
  lasted. So both VMs run with a real-time priority meanwhile (`chrt`), where that is allowed; where it isn't, `priority` says so, and the
  longest call says nothing. `control` is a function that never lasts, timed in the same way and about as often.

  A call that waits for a lock holds its scheduler as well; and who has the lock may wait for a processor, of which two VMs on a small
  machine have too few. That is counted, too: the operating system makes it longer, but the lock is ours.
  """

  alias Bench.{Load, Paths, Program, VM}

  @loads [
    %{kind: :cast, bytes: 64, senders: 8, engines: 100, from: :engines},
    %{kind: :cast, bytes: 256, senders: 1, engines: 1, from: :engines},
    %{kind: :cast, bytes: 16_384, senders: 1, engines: 1, from: :engines},
    %{kind: :cast, bytes: 65_536, senders: 1, engines: 1, from: :engines},
    %{kind: :cast, bytes: 1_048_576, senders: 1, engines: 1, from: :engines},
    %{kind: :call, bytes: 64, callers: 256},
    %{kind: :call, bytes: 16_384, callers: 16}
  ]
  # The trace of more would fill the memory.
  @millis 400
  # Linux takes the processor from real-time threads that have had it for 950 ms of a second.
  @rest_ms 1_000
  # As many as there are of the others, about.
  @control_bytes 2_000
  @control_calls 60
  @control_pause_ms 1

  def held(setup, _config) do
    paths = Paths.start(setup, [:embedded_tls])
    path = Enum.find(paths, &(&1.name == :embedded_tls))
    priority = for program <- [path.client | path.behind], do: raise_priority(program)
    seen = for load <- @loads, seen <- held_under(load, path), do: seen
    Program.stop_all()
    {control, native} = Enum.split_with(seen, &(&1.function == :control))
    [native |> fact(control) |> Map.put(:priority, if(:normal in priority, do: :normal, else: :real_time))]
  end

  # First in, first out, of all its threads: nobody but the kernel interrupts them.
  defp raise_priority(%Program{process: process}) do
    case System.cmd("sh", ["-c", "chrt --all-tasks --fifo --pid 10 #{process}"], stderr_to_stdout: true) do
      {_output, 0} -> :real_time
      {_not_allowed, _status} -> :normal
    end
  end

  defp held_under(load, %{client: client, behind: [server]} = path) do
    targets = for number <- 1..Map.get(load, :engines, 1), do: path.target.(:"e#{number}")
    function = if load.kind == :cast, do: :casts, else: :calls
    VM.call(client, Load, function, [targets, load, 100])
    for vm <- [client, server], do: VM.call(vm, __MODULE__, :watch, [])
    Process.sleep(@rest_ms)
    VM.call(client, Load, function, [targets, load, @millis])
    for vm <- [client, server], seen <- VM.call(vm, __MODULE__, :seen, []), do: Map.put(seen, :load, describe(load))
  end

  defp describe(%{kind: :call} = load), do: "#{load.callers} callers, #{load.bytes} B"
  defp describe(load), do: "casts of #{load.bytes} B from #{load.senders} to #{load.engines}"

  defp fact(native, control) do
    sum = fn list, key -> list |> Enum.map(& &1[key]) |> Enum.sum() end
    longest = Enum.max_by(native, & &1.longest_us)

    %{
      name: "schedulers",
      calls: sum.(native, :calls),
      longest_ms: longest.longest_us / 1_000,
      longest_function: longest.function,
      longest_load: longest.load,
      over_1ms: sum.(native, :over_1ms),
      control_calls: sum.(control, :calls),
      control_over_1ms: sum.(control, :over_1ms),
      control_longest_ms: (control |> Enum.map(& &1.longest_us) |> Enum.max()) / 1_000,
      functions: Enum.sort_by(native, &(-&1.longest_us)) |> Enum.take(20)
    }
  end

  ## In the VMs

  def watch do
    parent = self()
    Code.ensure_loaded!(Legation.Native)
    tracer = spawn(fn -> tracer(parent, %{}, %{}) end)
    control = spawn(fn -> control(:binary.copy(<<0>>, @control_bytes)) end)
    Process.put(:watching, {tracer, control})
    timed = [{:_, [], [{:return_trace}]}]
    :erlang.trace_pattern({Legation.Native, :_, :_}, timed, [])
    :erlang.trace_pattern({:erlang, :md5, 1}, timed, [])
    :erlang.trace(:processes, true, [:call, :running, :monotonic_timestamp, {:tracer, tracer}])
    :ok
  end

  @doc "By function: how many calls, microseconds of the longest, how many of more than a millisecond."
  def seen do
    :erlang.trace(:all, false, [:all])
    {tracer, control} = Process.get(:watching)
    Process.exit(control, :kill)
    send(tracer, :done)

    receive do
      {:held, held} -> for {function, seen} <- held, do: Map.put(seen, :function, function)
    end
  end

  defp control(bytes) do
    for _ <- 1..@control_calls, do: :erlang.md5(bytes)
    Process.sleep(@control_pause_ms)
    control(bytes)
  end

  # `open`: the function that a process is in, and since when.
  defp tracer(parent, open, held) do
    receive do
      {:trace_ts, pid, :call, {_module, function, args}, at} ->
        function = if function == :md5, do: :control, else: "#{function}/#{length(args)}"
        tracer(parent, Map.put(open, pid, {function, at}), held)

      {:trace_ts, pid, :return_from, _function, _value, at} ->
        {open, held} = close(pid, at, open, held)
        tracer(parent, open, held)

      {:trace_ts, pid, :out, _function, at} ->
        {open, held} = close(pid, at, open, held)
        tracer(parent, open, held)

      :done ->
        send(parent, {:held, held})

      _other_event ->
        tracer(parent, open, held)
    end
  end

  defp close(pid, at, open, held) do
    case Map.pop(open, pid) do
      {nil, open} ->
        {open, held}

      {{function, since}, open} ->
        us = :erlang.convert_time_unit(at - since, :native, :nanosecond) / 1_000
        over = if us > 1_000, do: 1, else: 0
        first = %{calls: 1, longest_us: us, over_1ms: over}

        more = fn seen ->
          %{calls: seen.calls + 1, longest_us: max(seen.longest_us, us), over_1ms: seen.over_1ms + over}
        end

        {open, Map.update(held, function, first, more)}
    end
  end
end
