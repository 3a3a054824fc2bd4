defmodule Demo.VM do
  @moduledoc false
  # A VM: an operating-system process that runs an application, with a console at the other end of two pipes. There is
  # nothing else between it and us.

  @start_ms 20_000
  @answer_ms 10_000
  # Longer than an instance takes to say goodbye.
  @stop_ms 10_000

  @enforce_keys [:realm, :language, :port, :os_pid, :dir]
  defstruct @enforce_keys

  @doc "Starts `demo/<realm>`, with demo/console.exs. What it prints goes into `<realm>.log`."
  def start!(realm, dir, env),
    do:
      start!(realm, :elixir, dir, env, "mix run --no-compile --no-deps-check ../console.exs", Path.join(__DIR__, realm))

  @doc "The same of any command that starts a console for this language, in the directory `cd`."
  def start!(realm, language, dir, env, command, cd) do
    # `exec` all the way, so that the shell's number is the VM's.
    command = ~s(exec #{command} </dev/null >>"$DEMO_DIR/$0.log" 2>&1)

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        :nouse_stdio,
        :exit_status,
        packet: 4,
        cd: cd,
        args: ["-c", command, realm],
        env: for({name, value} <- [{"DEMO_DIR", dir} | env], do: {to_charlist(name), to_charlist(value)})
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    vm = %__MODULE__{realm: realm, language: language, port: port, os_pid: os_pid, dir: dir}
    Demo.Processes.started(dir, os_pid)
    Process.put(port, vm)
    :ready = answer(vm, "be ready", @start_ms)
    vm
  end

  @doc "Evaluates code there: `{:value, term}` or `{:exit, reason, text}`."
  def eval(vm, code) do
    command(vm, {:eval, code})

    case answer(vm, "evaluate #{code}", @answer_ms) do
      {:crash, text} -> raise Demo.Failed, "in #{vm.realm}'s VM #{code} raised\n#{text}"
      result -> result
    end
  end

  @doc "Waits until Legation has told of it: `{kind, name, info}`. Returns `info`. An event is given out once."
  def await(vm, kind, name) do
    command(vm, {:await, kind, name})
    {:event, info} = answer(vm, "learn of #{kind} #{name}", @answer_ms)
    info
  end

  @doc "Ends it in order. Returns its exit status."
  def stop(vm) do
    command(vm, :stop)
    Demo.Processes.await_end(vm, @stop_ms)
  end

  @doc "Ends it as `kill -9` does."
  def kill(vm), do: Demo.Processes.kill(vm)

  defp command(vm, term), do: Port.command(vm.port, :erlang.term_to_binary(term))

  defp answer(%{port: port} = vm, what, timeout_ms) do
    receive do
      {^port, {:data, packet}} ->
        :erlang.binary_to_term(packet)

      # Of this one, or of any other: then there is no use in waiting.
      {ended, {:exit_status, status}} ->
        %{realm: realm, dir: dir, os_pid: os_pid} = Process.get(ended)
        Demo.Processes.ended(dir, os_pid)
        raise Demo.Failed, "#{realm} ended with exit status #{status}, while #{vm.realm}'s VM was to #{what}"
    after
      timeout_ms -> raise Demo.Failed, "#{vm.realm}'s VM did not #{what} within #{timeout_ms} ms"
    end
  end
end

defmodule Demo.Processes do
  @moduledoc false
  # The operating system's numbers of what we have started and what has not ended yet: a file each, so that scripts/demo
  # finds them if we are killed.

  @end_ms 30_000
  @kill_ms 5_000

  def started(dir, os_pid), do: dir |> file(os_pid) |> File.write!("")
  def ended(dir, os_pid), do: dir |> file(os_pid) |> File.rm!()

  def kill_all(dir) do
    for file <- dir |> file("*") |> Path.wildcard() do
      "." <> os_pid = Path.extname(file)
      signal(os_pid, "KILL")
      File.rm(file)
    end
  end

  @doc "Sends a signal to one process."
  # By the shell's own: there may be no program `kill`.
  def signal(os_pid, name), do: System.cmd("sh", ["-c", "kill -#{name} $0", "#{os_pid}"], stderr_to_stdout: true)

  @doc "Ends what runs at a port as `kill -9` does."
  def kill(%{os_pid: os_pid} = process) do
    signal(os_pid, "KILL")
    await_end(process, @kill_ms)
  end

  @doc "Waits until what runs at a port has ended. Returns the exit status."
  def await_end(%{realm: realm, port: port, os_pid: os_pid, dir: dir}, within_ms) do
    receive do
      {^port, {:exit_status, status}} ->
        ended(dir, os_pid)
        status
    after
      within_ms -> raise Demo.Failed, "#{realm} did not end within #{within_ms} ms"
    end
  end

  @doc "Runs a program in the directory `cd` to its end. Returns the lines that it printed, and its exit status."
  def run(program, args, cd, dir) do
    path = System.find_executable(program) || raise Demo.Failed, "there is no program #{program}"
    options = [:binary, :exit_status, :stderr_to_stdout, args: args, cd: cd]
    port = Port.open({:spawn_executable, path}, options)
    # A short one may have ended already.
    os_pid = with {:os_pid, os_pid} <- Port.info(port, :os_pid), do: os_pid
    if os_pid, do: started(dir, os_pid)
    {output, status} = output(port, program, "")
    if os_pid, do: ended(dir, os_pid)
    {String.split(output, "\n", trim: true), status}
  end

  defp output(port, program, output) do
    receive do
      {^port, {:data, more}} -> output(port, program, output <> more)
      {^port, {:exit_status, status}} -> {output, status}
    after
      @end_ms -> raise Demo.Failed, "#{program} said nothing for #{@end_ms} ms, and before:\n#{output}"
    end
  end

  defp file(dir, os_pid), do: Path.join(dir, "process.#{os_pid}")
end

defmodule Demo.Failed do
  @moduledoc false
  defexception [:message]
end
