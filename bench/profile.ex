defmodule Bench.Profile do
  @moduledoc """
  Where the time goes, embedded over tcp with `tls`: microseconds of processor time for one message, by stage.

  How it is measured:

    * push, encode, sign, seal, open, verify, parse: by the Rust program, over whole batches, as large as those of the load were
    * what a process runs altogether: from the trace of when it is scheduled in and out. Of that go off the stages that run
      in it, and what is left is the process's own: proxy, writer, reader (which delivers), stand-in, engine
    * socket: what the emulator's accounting has for ports, at both ends
    * decode: `binary_to_term/2` of the message, over and over
    * not accounted: what the operating system has for both VMs beyond that, or, of a lone call, what its round trip takes
      beyond that: processes and threads that are woken, the kernel's way through the socket
  """

  alias Bench.{Cores, Load, Paths, Program, Results, VM}

  @cast %{kind: :cast, bytes: 256, senders: 1, engines: 1, from: :engines}
  @call %{kind: :call, bytes: 64, callers: 1}
  @millis 2_000
  @decodes 20_000

  def stages(setup, config) do
    paths = Paths.start(setup, [:embedded_tls])
    path = Enum.find(paths, &(&1.name == :embedded_tls))
    facts = for load <- [@cast, @call], do: stages_of(load, path, setup, config)
    Program.stop_all()
    facts
  end

  defp stages_of(load, %{client: client, behind: [server]} = path, setup, config) do
    target = path.target.(:e1)
    function = if load.kind == :cast, do: :casts, else: :calls
    VM.call(client, Load, function, [[target], load, 200])
    for vm <- [client, server], do: VM.call(vm, __MODULE__, :watch, [])
    cpu = Program.processor_ns([client, server])
    figures = VM.call(client, Load, function, [[target], load, @millis])
    cpu = (Program.processor_ns([client, server]) - cpu) / 1_000 / figures.count
    [there, here] = for vm <- [server, client], do: VM.call(vm, __MODULE__, :seen, [])
    batch = if load.kind == :cast, do: round(here.messages_per_batch), else: 1
    core = for {stage, ns} <- Cores.stages(setup, config, load.bytes, max(batch, 1)), into: %{}, do: {stage, ns / 1_000}
    decode = VM.call(server, __MODULE__, :decode_us, [load.bytes])
    each = fn seen, process -> Map.get(seen.processes, process, 0.0) / figures.count end
    socket = fn seen -> seen.port_us / figures.count end
    parts = parts(load.kind, %{here: here, there: there, core: core, decode: decode, each: each, socket: socket})
    whole = if load.kind == :cast, do: cpu, else: figures.p50_us
    parts = parts ++ [{"not accounted", whole - (parts |> Enum.map(&elem(&1, 1)) |> Enum.sum())}]
    values = for {{stage, us}, place} <- Enum.with_index(parts), do: %{stage: stage, us: max(us, 0.0), place: place}
    %{name: "profile", load: load.kind, bytes: load.bytes, batch: batch, whole_us: whole, stages: values}
  end

  defp parts(:cast, %{here: here, there: there, core: core, decode: decode, each: each, socket: socket}) do
    [
      {"sender", each.(here, :source)},
      {"proxy", each.(here, :proxy) - core.push},
      {"push", core.push},
      {"encode", core.encode},
      {"sign", core.sign},
      {"seal", core.seal},
      {"writer", each.(here, :writer) - core.encode - core.sign - core.seal - socket.(here)},
      {"write", socket.(here)},
      {"read", socket.(there)},
      {"open", core.open},
      {"verify", core.verify},
      {"parse", core.decode},
      {"decode", decode},
      {"deliver", each.(there, :reader) - core.open - core.verify - core.decode - decode},
      {"engine", each.(there, :engine)}
    ]
  end

  # There and back.
  defp parts(:call, %{here: here, there: there, core: core, decode: decode, each: each, socket: socket}) do
    flush = core.encode + core.sign + core.seal
    handle = core.open + core.verify + core.decode

    [
      {"caller", each.(here, :source)},
      {"proxy, stand-in", each.(here, :proxy) + each.(there, :stand_in) - 2 * core.push},
      {"push", 2 * core.push},
      {"encode", 2 * core.encode},
      {"sign", 2 * core.sign},
      {"seal", 2 * core.seal},
      {"writers", each.(here, :writer) + each.(there, :writer) - 2 * flush - socket.(here) - socket.(there)},
      {"sockets", socket.(here) + socket.(there)},
      {"open", 2 * core.open},
      {"verify", 2 * core.verify},
      {"parse", 2 * core.decode},
      {"decode", 2 * decode},
      {"deliver", each.(here, :reader) + each.(there, :reader) - 2 * handle - 2 * decode},
      {"engine", each.(there, :engine)}
    ]
  end

  @doc "For `Bench.Plot.bars/1`."
  def bars(results) do
    for fact <- Results.facts(results, "profile") do
      {describe(fact), for(%{"stage" => stage, "us" => us} <- fact["stages"], us > 0, do: {stage, us})}
    end
  end

  def describe(%{"load" => "cast"} = fact),
    do: "a cast of #{fact["bytes"]} B, #{fact["batch"]} in a batch, processor time at both ends"

  def describe(fact), do: "a lone call of #{fact["bytes"]} B, there and back, median round trip"

  ## In the VMs

  @doc "From now on. One at a time."
  def watch do
    parent = self()
    names = for pid <- Process.list(), into: %{}, do: {pid, kind(pid)}
    tracer = spawn(fn -> tracer(parent, names) end)
    Process.put(:tracer, tracer)
    Process.put(:batches, batches())
    flags = [:running, :monotonic_timestamp, {:tracer, tracer}]
    for {pid, kind} <- names, kind != :other, do: :erlang.trace(pid, true, flags)
    :erlang.trace(:new_processes, true, flags)
    :erlang.system_flag(:microstate_accounting, :reset)
    :erlang.system_flag(:microstate_accounting, true)
    :ok
  end

  @doc "Microseconds since, of processes by kind and of ports; and how many messages went in a batch."
  def seen do
    accounting = :erlang.statistics(:microstate_accounting)
    :erlang.system_flag(:microstate_accounting, false)
    :erlang.trace(:all, false, [:all])
    port = Enum.sum(for %{counters: %{port: port}} <- accounting, do: port)
    send(Process.get(:tracer), :done)

    processes =
      receive do
        {:ran, processes} -> processes
      end

    {messages, batches} = batches()
    {messages_before, batches_before} = Process.get(:batches)

    %{
      processes: processes,
      port_us: :erlang.convert_time_unit(port, :perf_counter, :microsecond) / 1,
      messages_per_batch: (messages - messages_before) / max(batches - batches_before, 1)
    }
  end

  defp batches do
    [%{counters: counters}] = Legation.peers(:embedded_tls) |> Enum.filter(&(&1[:realm] in ["server", "client"]))
    {counters.messages_out, counters.batches_out}
  end

  defp tracer(parent, names, since \\ %{}, ran \\ %{}) do
    receive do
      {:trace_ts, pid, :in, function, at} ->
        tracer(parent, Map.put_new_lazy(names, pid, fn -> kind_of(function) end), Map.put(since, pid, at), ran)

      {:trace_ts, pid, :out, _function, at} ->
        {before, since} = Map.pop(since, pid, at)
        us = :erlang.convert_time_unit(at - before, :native, :nanosecond) / 1_000
        tracer(parent, names, since, Map.update(ran, Map.get(names, pid, :other), us, &(&1 + us)))

      :done ->
        send(parent, {:ran, ran})

      _other_event ->
        tracer(parent, names, since, ran)
    end
  end

  defp kind(pid) do
    with [_ | _] = info <- Process.info(pid, [:registered_name, :initial_call, :dictionary]) do
      case info[:registered_name] do
        :s1 -> :source
        :e1 -> :engine
        _other -> kind_of(info[:dictionary][:"$initial_call"] || info[:initial_call])
      end
    else
      nil -> :other
    end
  end

  # A caller is a task, made for the load.
  defp kind_of({module, _function, _arity}) do
    case module do
      Legation.Proxy -> :proxy
      Legation.StandIn -> :stand_in
      Legation.Connection.Writer -> :writer
      Legation.Connection.Reader -> :reader
      module when module in [Task.Supervised, :proc_lib] -> :source
      _other -> :other
    end
  end

  defp kind_of(_unknown), do: :other

  def decode_us(bytes) do
    term = :erlang.term_to_binary({:payload, :binary.copy(<<0>>, bytes)})
    {us, _} = :timer.tc(fn -> for _ <- 1..@decodes, do: :erlang.binary_to_term(term, [:safe]) end)
    us / @decodes
  end
end
