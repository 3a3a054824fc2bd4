defmodule Demo.Hostile do
  @moduledoc false
  # The hostile peer: rust_tests/src/bin/hostile.rs.

  @end_ms 20_000

  @enforce_keys [:port, :dir, :os_pid, :command]
  defstruct @enforce_keys

  @doc "Starts it: `key` is a file in `dir`, `port` the victim's."
  def start!(program, dir, port, opts) do
    args =
      ~w(--connect 127.0.0.1:#{port} --profile tls --key #{opts[:key]} --network network.key) ++
        ~w(--peer #{opts[:peer]} --attack #{opts[:attack]} --engine #{opts[:engine]})

    port =
      Port.open({:spawn_executable, program}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 1_000,
        cd: dir,
        args: args
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    Demo.Processes.started(dir, os_pid)
    command = "hostile --attack #{opts[:attack]} --engine #{opts[:engine]} --key #{opts[:key]} …"
    %__MODULE__{port: port, dir: dir, os_pid: os_pid, command: command}
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
end
