defmodule Legation.TestVM do
  @moduledoc """
  Another BEAM in another operating-system process: the other Erlang system that Legation is for. It has no distribution, unless its
  realms are behind a daemon (`Legation.TestTransport`), and then nobody knows its cookie.

      vm = TestVM.start!()
      TestVM.call(vm, String, :upcase, ["a"])          in a process of its own
      TestVM.here(vm, Legation, :start_link, [opts])   in the VM's one lasting process, which traps exits
      TestVM.kill(vm)                                  kill -9

  Commands and answers are terms over a pair of pipes, packets of 4 bytes' length. Whatever message the lasting process gets, the
  test's process gets as `{:vm, vm, message}`. The VM ends with the test, by its operating-system pid, or when its pipe breaks.
  """

  use GenServer

  @patience_ms 30_000

  ## In the test

  @doc """
  Starts a VM that ends with the test.

    * `:args` - more arguments for `erl`, in place of those that make a node of it
    * `:env` - environment, `[{"NAME", "value"}]`
    * `:quiet` - what it writes to the terminal is thrown away
    * `:netns` - the network namespace that it is in
  """
  def start!(opts \\ []) do
    opts = Keyword.put(opts, :owner, self())
    pid = ExUnit.Callbacks.start_supervised!({__MODULE__, opts}, id: make_ref())
    # Its first answer says that it runs.
    :pong = call(pid, __MODULE__, :ping, [])
    pid
  end

  def start_link(opts), do: GenServer.start_link(__MODULE__, opts)

  @doc "Runs a function there. What it raises, throws or exits with is raised here as an exit."
  def call(vm, module, function, args), do: command(vm, {:call, module, function, args})

  @doc "The same in the lasting process: what is started there with `start_link` stays."
  def here(vm, module, function, args), do: command(vm, {:here, module, function, args})

  defp command(vm, command) do
    case GenServer.call(vm, {:command, command}, @patience_ms) do
      {:ok, result} -> result
      {:exit, reason} -> exit(reason)
    end
  end

  @doc "A signal, `STOP` or `CONT`, say."
  def signal(vm, name), do: GenServer.call(vm, {:signal, name}, @patience_ms)

  @doc "`kill -9`. Returns when the process is gone."
  def kill(vm), do: GenServer.call(vm, :kill, @patience_ms)

  ## The process in the test's VM

  @impl true
  def init(opts) do
    Process.flag(:trap_exit, true)

    paths =
      for app <- [:elixir, :logger, :legation],
          do: app |> :code.lib_dir() |> Path.join("ebin")

    args =
      ["-noshell", "-noinput", "-pa"] ++
        paths ++
        ["-kernel", "logger_level", "critical", "-s", "Elixir.Legation.TestVM", "main"] ++
        Keyword.get_lazy(opts, :args, &Legation.TestTransport.vm_args/0)

    quiet = if opts[:quiet], do: " >/dev/null 2>&1", else: ""

    erl = System.find_executable("erl")
    # `ip` becomes the program, too.
    program = if opts[:netns], do: [System.find_executable("ip"), "netns", "exec", opts[:netns], erl], else: [erl]

    # Descriptors 3 and 4 of the child: what it prints is no answer.
    port =
      Port.open({:spawn_executable, System.find_executable("sh")}, [
        :binary,
        :nouse_stdio,
        :exit_status,
        packet: 4,
        # The shell becomes erl and erl the VM, so that the number is the VM's.
        args: ["-c", ~s(exec "$0" "$@") <> quiet] ++ program ++ args,
        env: for({name, value} <- Keyword.get(opts, :env, []), do: {to_charlist(name), to_charlist(value)})
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    {:ok, %{port: port, os_pid: os_pid, owner: opts[:owner], waiting: %{}, number: 0, ending: []}}
  end

  @impl true
  def handle_call({:command, _command}, _from, %{port: nil} = state), do: {:reply, {:exit, :ended}, state}

  def handle_call({:command, command}, from, state) do
    Port.command(state.port, :erlang.term_to_binary({state.number, command}))
    {:noreply, %{state | waiting: Map.put(state.waiting, state.number, from), number: state.number + 1}}
  end

  def handle_call({:signal, name}, _from, state) do
    {"", 0} = System.cmd("kill", ["-" <> name, Integer.to_string(state.os_pid)])
    {:reply, :ok, state}
  end

  def handle_call(:kill, _from, %{port: nil} = state), do: {:reply, :ended, state}

  def handle_call(:kill, from, state) do
    kill_os(state)
    {:noreply, %{state | ending: [from | state.ending]}}
  end

  @impl true
  def handle_info({port, {:data, packet}}, %{port: port} = state) do
    case :erlang.binary_to_term(packet) do
      {:answer, number, answer} ->
        {from, waiting} = Map.pop!(state.waiting, number)
        GenServer.reply(from, answer)
        {:noreply, %{state | waiting: waiting}}

      {:message, message} ->
        send(state.owner, {:vm, self(), message})
        {:noreply, state}
    end
  end

  def handle_info({port, {:exit_status, status}}, %{port: port} = state) do
    for {_number, from} <- state.waiting, do: GenServer.reply(from, {:exit, :ended})
    for from <- state.ending, do: GenServer.reply(from, status)
    {:noreply, %{state | port: nil, os_pid: nil, waiting: %{}, ending: []}}
  end

  def handle_info(_stray, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state), do: kill_os(state)

  # Its number is its own as long as its port lives: nobody has waited for it yet.
  defp kill_os(%{port: nil}), do: :ok
  defp kill_os(%{os_pid: os_pid}), do: System.cmd("kill", ["-KILL", Integer.to_string(os_pid)], stderr_to_stdout: true)

  ## In the other VM

  def ping, do: :pong

  def start_child(module, args) do
    {:ok, pid} = module.start_link(args)
    pid
  end

  @doc "Publishes a new engine there."
  def publish_engine(instance, name, module, args) do
    pid = start_child(module, args)
    :ok = Legation.publish(name, pid, [], instance)
    pid
  end

  @doc "An engine that tells the lasting process, and so the test, what it gets. Called with `here/4`."
  def publish_echo(instance, name),
    do: publish_engine(instance, name, Legation.TestEngines.Echo, owner: self(), instance: instance)

  @doc "An engine as `publish_echo/2` makes it, if there isn't one."
  def ensure_echo(instance, name) do
    if Legation.whereis(name, instance) == nil, do: publish_echo(instance, name)
    :ok
  end

  def kill_engine(instance, name) do
    pid = Legation.whereis(name, instance)
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    end
  end

  @doc "An engine that tells the lasting process what it gets, and isn't published. Called with `here/4`."
  def start_echo, do: start_child(Legation.TestEngines.Echo, owner: self())

  @doc "Kills one process, anywhere, and says with which reason another ends by that."
  def kill_and_see(killed, watched) do
    monitor = Process.monitor(watched)
    Process.exit(killed, :kill)

    receive do
      {:DOWN, ^monitor, :process, ^watched, reason} -> reason
    end
  end

  @doc "Those of these texts that this VM has as atoms, as such."
  def atoms_of(texts) do
    for text <- texts, atom = existing(text), do: atom
  end

  defp existing(text) do
    String.to_existing_atom(text)
  rescue
    ArgumentError -> nil
  end

  @doc "Publishes a process that never looks at its mailbox, in which there are so many messages."
  def publish_stuck(instance, name, messages) do
    pid = spawn(fn -> receive do: ({^instance, :never} -> :ok) end)
    for n <- 1..messages, do: send(pid, n)
    :ok = Legation.publish(name, pid, [], instance)
  end

  @doc "A filter that agrees to nothing."
  def refuse(%{message: _message}), do: false

  @doc "Ends an instance that was started with `here/4`."
  def stop_realm(instance), do: Supervisor.stop(Module.concat(instance, Supervisor))

  @doc "Waits there until an engine is learned."
  def await_engine(instance, full_name) do
    {:ok, ref, %{engines: engines}} = Legation.monitor_peers(instance)

    if not is_map_key(engines, full_name) do
      receive do
        {:legation, ^ref, {:engine_learned, ^full_name, _info}} -> :ok
      end
    end

    Legation.demonitor_peers(ref, instance)
  end

  def main do
    Process.flag(:trap_exit, true)
    {:ok, _apps} = Application.ensure_all_started(:legation)
    port = Port.open({:fd, 3, 4}, [:binary, :eof, packet: 4])
    serve(port)
  end

  defp serve(port) do
    receive do
      {^port, {:data, packet}} ->
        {number, command} = :erlang.binary_to_term(packet)
        run(port, number, command)

      # Whoever started us is gone.
      {^port, :eof} ->
        System.halt(0)

      {:EXIT, _child, _reason} ->
        :ok

      {:answer, number, answer} ->
        answer(port, {:answer, number, answer})

      message ->
        answer(port, {:message, message})
    end

    serve(port)
  end

  defp run(port, number, {:here, module, function, args}),
    do: answer(port, {:answer, number, result(module, function, args)})

  defp run(_port, number, {:call, module, function, args}) do
    main = self()
    spawn(fn -> send(main, {:answer, number, result(module, function, args)}) end)
  end

  defp result(module, function, args) do
    {:ok, apply(module, function, args)}
  catch
    :exit, reason -> {:exit, reason}
    kind, reason -> {:exit, {kind, reason, __STACKTRACE__}}
  end

  defp answer(port, term), do: Port.command(port, :erlang.term_to_binary(term))
end
