defmodule Demo.Daemon do
  @moduledoc false
  # `legation run`: an operating-system process at the other end of two pipes. By one it says that it is ready; when the other
  # ends it does, so that it does not outlive us.

  alias Demo.Processes

  @start_ms 20_000
  # More than it waits for open calls.
  @stop_ms 10_000
  @line_bytes 4_096

  @enforce_keys [:realm, :port, :os_pid, :dir, :node]
  defstruct @enforce_keys

  @doc "Starts it with `<realm>/legation.toml`. What it logs goes into `<realm>-daemon.log`. Returns when it is ready."
  def start!(program, realm, dir, env) do
    command = ~S(exec "$1" run --supervised --log-format text --config legation.toml 2>>"$2")

    port =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        :exit_status,
        line: @line_bytes,
        cd: Path.join(dir, realm),
        args: ["-c", command, "sh", program, Path.join(dir, "#{realm}-daemon.log")],
        env: for({name, value} <- env, do: {to_charlist(name), to_charlist(value)})
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    Processes.started(dir, os_pid)
    daemon = %__MODULE__{realm: "#{realm}'s daemon", port: port, os_pid: os_pid, dir: dir, node: nil}
    Process.put(port, daemon)
    %{daemon | node: await_ready(daemon)}
  end

  defp await_ready(%{port: port} = daemon) do
    receive do
      {^port, {:data, {:eol, line}}} ->
        ["legation", "ready", node, _port] = String.split(line)
        node

      {^port, {:exit_status, status}} ->
        Processes.ended(daemon.dir, daemon.os_pid)
        raise Demo.Failed, "#{daemon.realm} ended with exit status #{status} at its start"
    after
      @start_ms -> raise Demo.Failed, "#{daemon.realm} was not ready within #{@start_ms} ms"
    end
  end

  @doc "Ends it as `kill -9` does."
  def kill(daemon), do: Processes.kill(daemon)

  def terminate(daemon), do: Processes.signal(daemon.os_pid, "TERM")

  def await_end(daemon), do: Processes.await_end(daemon, @stop_ms)
end

defmodule Demo.Epmd do
  @moduledoc false
  # An EPMD of our own on a free port of this machine, so that nobody else's is used and nothing is left behind.

  alias Demo.Processes

  @start_ms 10_000

  def start!(dir) do
    [tcp_port] = free_ports(1)
    start!(dir, tcp_port)
  end

  def start!(dir, tcp_port) do
    port =
      Port.open({:spawn_executable, program()}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        args: ["-port", "#{tcp_port}", "-address", "127.0.0.1"]
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    Processes.started(dir, os_pid)
    epmd = %{realm: "epmd", port: port, os_pid: os_pid, dir: dir, tcp_port: tcp_port}
    Process.put(port, epmd)
    await_listening(epmd, Demo.Steps.now_ms() + @start_ms)
    epmd
  end

  defdelegate stop(epmd), to: Processes, as: :kill

  @doc "TCP ports of this machine that are free now."
  def free_ports(count) do
    sockets = for _ <- 1..count, do: with({:ok, socket} <- :gen_tcp.listen(0, ip: {127, 0, 0, 1}), do: socket)

    for socket <- sockets do
      {:ok, port} = :inet.port(socket)
      :gen_tcp.close(socket)
      port
    end
  end

  # Somebody may have taken the port meanwhile: then it has ended.
  defp await_listening(%{port: port} = epmd, until_ms) do
    receive do
      {^port, {:exit_status, status}} ->
        Processes.ended(epmd.dir, epmd.os_pid)
        raise Demo.Failed, "epmd ended with exit status #{status}"
    after
      10 ->
        case :gen_tcp.connect({127, 0, 0, 1}, epmd.tcp_port, []) do
          {:ok, socket} -> :gen_tcp.close(socket)
          {:error, :econnrefused} -> until_ms > Demo.Steps.now_ms() && await_listening(epmd, until_ms)
        end || raise Demo.Failed, "epmd does not listen on port #{epmd.tcp_port}"
    end
  end

  # Some installations have it beside the VM only.
  defp program do
    System.find_executable("epmd") ||
      Path.join([:code.root_dir(), "erts-#{:erlang.system_info(:version)}", "bin", "epmd"])
  end
end
