# The engines that the node's benchmark measures, and the programs behind them.

defmodule Bench.Targets do
  @moduledoc """
  A target is `%{name:, engine:, programs:}`: an echo that a BEAM node reaches as `engine`, and the operating-system processes
  that it takes besides the caller's, for their time on processors.
  """

  @patience_ms 20_000

  @doc "Starts all of them. The caller's VM has to be a node already. `daemon` is the daemon's program, or \"-\" for none."
  def start(dir, ei_node, daemon) do
    {beam, _} = start_vm("beam", ["server", "dist", dir])
    {ei, _} = start_program(ei_node, ["ei", "bench"], "READY")
    for name <- ["beam", "ei"], do: true = Node.connect(:"#{name}@127.0.0.1")

    [
      %{name: :beam, engine: {:bench, :"beam@127.0.0.1"}, programs: [beam]},
      %{name: :ei, engine: {:bench, :"ei@127.0.0.1"}, programs: [ei]}
      | start_daemons(dir, daemon)
    ]
  end

  # Ours is the realm "client", with two peers: one daemon with a BEAM node behind it, one BEAM node with the library.
  defp start_daemons(_dir, "-"), do: []

  defp start_daemons(dir, daemon) do
    {embedded, port} = start_vm("embedded", ["server", "tcp", dir])
    far = free_port()

    far_daemon =
      start_daemon(dir, daemon, "far", """
      [[listen]]
      tcp = "127.0.0.1:#{far}"
      [[peers]]
      realm = "client"
      key = "#{key(dir, "client")}"
      export = "all"
      """)

    client_daemon =
      start_daemon(dir, daemon, "client", """
      [[peers]]
      realm = "far"
      key = "#{key(dir, "far")}"
      connect = ["tcp://127.0.0.1:#{far}"]
      [[peers]]
      realm = "server"
      key = "#{key(dir, "server")}"
      connect = ["tcp://127.0.0.1:#{port}"]
      """)

    {far_beam, _} = start_vm("far_beam", ["server", "dist", dir])
    # By the node that has it.
    publish = [{:legation, :"far_daemon@127.0.0.1"}, {:publish, "bench", :bench, []}]
    :ok = :erpc.call(:"far_beam@127.0.0.1", GenServer, :call, publish)
    client = :"client_daemon@127.0.0.1"
    for name <- ["bench@far", "bench@server"], do: await_engine(client, name, deadline())

    [
      %{name: :daemon, engine: {:legation_echo, client}, programs: [client_daemon]},
      %{name: :daemons, engine: {:bench@far, client}, programs: [client_daemon, far_daemon, far_beam]},
      %{name: :embedded, engine: {:bench@server, client}, programs: [client_daemon, embedded]}
    ]
  end

  defp start_daemon(dir, daemon, realm, peers) do
    path = Path.join(dir, "#{realm}.toml")

    File.write!(path, """
    realm = "#{realm}"
    key = "#{realm}.pem"
    import = "none"
    [node]
    name = "#{realm}_daemon@127.0.0.1"
    cookie = "bench"
    global = "off"
    echo = true
    #{peers}
    [limits]
    knock_boot_ms = 0
    """)

    {program, _} = start_program(daemon, ["run", "--supervised", "--config", path], "legation")
    program
  end

  defp key(dir, realm), do: File.read!(Path.join(dir, "#{realm}.pub"))

  defp await_engine(daemon, name, deadline) do
    case GenServer.call({:legation, daemon}, {:whereis, name}) do
      pid when is_pid(pid) ->
        :ok

      :undefined ->
        if System.monotonic_time(:millisecond) > deadline, do: raise("#{name} was not learned")
        Process.sleep(20)
        await_engine(daemon, name, deadline)
    end
  end

  defp deadline, do: System.monotonic_time(:millisecond) + @patience_ms

  defp free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :gen_tcp.close(socket)
    port
  end

  defp start_vm(name, args) do
    ebin = Path.join([__DIR__, "..", "_build", System.fetch_env!("MIX_ENV"), "lib", "legation", "ebin"])
    elixir = System.find_executable("elixir")
    named = ["--name", "#{name}@127.0.0.1", "--cookie", "bench", "-pa", ebin, Path.join(__DIR__, "vm.exs")]
    start_program(elixir, named ++ args, "READY")
  end

  # Ends with its standard input, which is ours to hold. Returns its process and what stands behind `word`.
  defp start_program(program, args, word) do
    port = Port.open({:spawn_executable, program}, [:binary, :exit_status, {:line, 4_096}, args: args])
    {:os_pid, process} = Port.info(port, :os_pid)
    {process, wait(port, program, word)}
  end

  defp wait(port, program, word) do
    receive do
      {^port, {:data, {:eol, line}}} ->
        case String.split(line, " ", parts: 2) do
          [^word | rest] ->
            Enum.join(rest)

          _ ->
            IO.puts(:stderr, line)
            wait(port, program, word)
        end

      {^port, {:exit_status, status}} ->
        raise "#{program} ended with status #{status}"
    after
      @patience_ms -> raise "#{program} did not say #{word} within #{@patience_ms} ms"
    end
  end
end
