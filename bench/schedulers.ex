defmodule Bench.Schedulers do
  @moduledoc """
  How long a call of the native library holds a normal scheduler: from the call until it returns, or until its process is scheduled
  out because the work goes on elsewhere (a dirty scheduler), as the trace has it.

  Two clocks tell the time: the wall's, and that of the thread, which stands still while the thread has no processor (`bench/tracer.c`).
  A thread that the operating system takes the processor from in the middle of a call looks as if the call had lasted; nothing of ours
  is held then, and what counts is what the thread's clock says. A thread that has given its processor away by itself waits, for a
  lock or for memory: then the wall's clock counts, and so it does if the operating system makes that longer, for the lock is ours.

  Both VMs run with a real-time priority meanwhile (`chrt`), where that is allowed, so that little of the first kind is seen; `priority`
  says whether they did. `control` is a function that never lasts, timed in the same way and about as often.
  """

  alias Bench.{Load, Paths, Program, Tracer, VM}

  @loads [
    %{kind: :cast, bytes: 64, senders: 8, engines: 100, from: :engines},
    %{kind: :cast, bytes: 256, senders: 1, engines: 1, from: :engines},
    %{kind: :cast, bytes: 16_384, senders: 1, engines: 1, from: :engines},
    %{kind: :cast, bytes: 65_536, senders: 1, engines: 1, from: :engines},
    %{kind: :cast, bytes: 1_048_576, senders: 1, engines: 1, from: :engines},
    %{kind: :call, bytes: 64, callers: 256},
    %{kind: :call, bytes: 16_384, callers: 16}
  ]
  # Linux takes the processor from real-time threads that have had it for 950 ms of a second.
  @millis 600
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
    most = fn list, key -> list |> Enum.map(& &1[key]) |> Enum.max() end

    %{
      name: "schedulers",
      calls: sum.(native, :calls),
      longest_ms: longest.longest_us / 1_000,
      longest_function: longest.function,
      longest_load: longest.load,
      over_1ms: sum.(native, :over_1ms),
      waits_over_1ms: sum.(native, :waits_over_1ms),
      wall_over_1ms: sum.(native, :wall_over_1ms),
      wall_longest_ms: most.(native, :wall_us) / 1_000,
      control_calls: sum.(control, :calls),
      control_over_1ms: sum.(control, :wall_over_1ms),
      control_longest_ms: most.(control, :wall_us) / 1_000,
      functions: Enum.sort_by(native, &(-&1.longest_us)) |> Enum.take(20)
    }
  end

  ## In the VMs

  def watch do
    Enum.each([Legation.Native, Tracer], &Code.ensure_loaded!/1)
    Tracer.take()
    Process.put(:control, spawn(fn -> control(:binary.copy(<<0>>, @control_bytes)) end))
    timed = [{:_, [], [{:return_trace}]}]
    :erlang.trace_pattern({Legation.Native, :_, :_}, timed, [])
    :erlang.trace_pattern({:erlang, :md5, 1}, timed, [])
    :erlang.trace(:processes, true, [:call, :running, {:tracer, Tracer, []}])
    :ok
  end

  @doc "By function: how many calls, microseconds of the longest by each clock, how many of more than a millisecond."
  def seen do
    :erlang.trace(:all, false, [:all])
    Process.exit(Process.get(:control), :kill)

    for {module, function, arity, [calls, wall, held, processor, walls_over, held_over, waits_over]} <- Tracer.take() do
      %{
        function: if(module == Legation.Native, do: "#{function}/#{arity}", else: :control),
        calls: calls,
        longest_us: held / 1_000,
        processor_us: processor / 1_000,
        wall_us: wall / 1_000,
        over_1ms: held_over,
        waits_over_1ms: waits_over,
        wall_over_1ms: walls_over
      }
    end
  end

  defp control(bytes) do
    for _ <- 1..@control_calls, do: :erlang.md5(bytes)
    Process.sleep(@control_pause_ms)
    control(bytes)
  end
end
