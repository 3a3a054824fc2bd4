defmodule Demo.Hostile do
  @moduledoc false
  # The hostile peer (rust_tests/src/bin/hostile.rs), and a relay that it is connected through: when the program has ended its
  # connection stays open, so that the other side can be looked at while the link is up.

  @end_ms 20_000

  @enforce_keys [:port, :relay, :dir, :os_pid, :command]
  defstruct @enforce_keys

  @doc "Starts it: `key` is a file in `dir`, `port` the victim's."
  def start!(program, dir, port, opts) do
    {relay, relay_port} = start_relay(port)

    args =
      ~w(--connect 127.0.0.1:#{relay_port} --profile tls --key #{opts[:key]} --network network.key) ++
        ~w(--peer #{opts[:peer]} --attack #{opts[:attack]} --engine #{opts[:engine]})

    port =
      Port.open({:spawn_executable, program}, [:binary, :exit_status, :stderr_to_stdout, line: 1_000, cd: dir, args: args])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    Demo.Processes.started(dir, os_pid)
    command = "hostile --attack #{opts[:attack]} --engine #{opts[:engine]} --key #{opts[:key]} …"
    %__MODULE__{port: port, relay: relay, dir: dir, os_pid: os_pid, command: command}
  end

  @doc "The lines that it printed, and its exit status."
  def await_end(hostile), do: await_end(hostile, [])

  defp await_end(%{port: port} = hostile, lines) do
    receive do
      {^port, {:data, {_eol, line}}} ->
        await_end(hostile, [line | lines])

      {^port, {:exit_status, status}} ->
        Demo.Processes.ended(hostile.dir, hostile.os_pid)
        {Enum.reverse(lines), status}
    after
      @end_ms -> raise Demo.Failed, "the hostile peer did not end within #{@end_ms} ms; it said #{inspect(lines)}"
    end
  end

  @doc "Closes the connection that is still open behind it."
  def hang_up(%{relay: relay}), do: send(relay, :hang_up)

  defp start_relay(port) do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: true, nodelay: true, ip: {127, 0, 0, 1}])
    {:ok, relay_port} = :inet.port(listener)

    relay =
      spawn_link(fn ->
        {:ok, near} = :gen_tcp.accept(listener, @end_ms)
        {:ok, far} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: true, nodelay: true])
        relay(near, far)
      end)

    # Sockets close with their owner.
    :ok = :gen_tcp.controlling_process(listener, relay)
    {relay, relay_port}
  end

  defp relay(near, far) do
    receive do
      {:tcp, ^near, bytes} -> pass(far, bytes, near, far)
      {:tcp, ^far, bytes} -> pass(near, bytes, near, far)
      # The program has ended; the connection has not.
      {:tcp_closed, ^near} -> relay(near, far)
      {:tcp_error, ^near, _reason} -> relay(near, far)
      {:tcp_closed, ^far} -> :gen_tcp.close(near)
      :hang_up -> :ok
    end
  end

  # Whoever can't be written to has gone.
  defp pass(socket, bytes, near, far) do
    _sent = :gen_tcp.send(socket, bytes)
    relay(near, far)
  end
end
