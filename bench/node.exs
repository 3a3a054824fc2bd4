# What a BEAM node sees of an engine behind Legation's daemon, beside the same engine on a second BEAM node and on a C-node
# made with `ei`: calls, casts, and a ping behind large casts, in interleaved rounds of one run. Then end to end.
#
#   (a) BEAM - BEAM                        the measure: x is the ratio to it in the same round
#   (b) BEAM - ei node                     no monitors across distribution, so two frames a call less
#   (c) BEAM - daemon                      the daemon answers itself, as it answers for engines of others: monitors and all
#   (d) BEAM - daemon - daemon - BEAM      signed, encrypted, over tcp
#   (e) BEAM - daemon - embedded BEAM      the same
#
#   scripts/bench node [ROUNDS] [MILLISECONDS PER MEASUREMENT]

Code.require_file("load.exs", __DIR__)
Code.require_file("results.exs", __DIR__)

defmodule Bench.Node do
  alias Bench.{Load, Results}

  @targets [
    beam: "a second BEAM node",
    ei: "ei node",
    daemon: "daemon",
    daemons: "daemon, daemon, BEAM",
    embedded: "daemon, embedded BEAM"
  ]

  # Kind, bytes, processes at it.
  @calls for callers <- [1, 16, 64, 256], do: {:call, 64, callers}
  @casts for bytes <- [64, 256, 65_536], senders <- [1, 16], do: {:cast, bytes, senders}
  @pings [{:ping, 1_048_576, 1}]
  @cases @calls ++ @casts ++ @pings

  @patience_ms 20_000

  def main([dir, ei_node, daemon, results, rounds, millis]) do
    {rounds, millis} = {String.to_integer(rounds), String.to_integer(millis)}
    {:ok, _} = Node.start(:"client@127.0.0.1", :longnames)
    Node.set_cookie(:bench)
    targets = start(dir, ei_node, daemon)
    # Once through, unmeasured: code loaded, connections up, buffers grown.
    for case <- @cases, {name, target} <- targets, measured?(case, name), do: measure(target, case, min(millis, 50))

    measured = Enum.flat_map(1..rounds, &round(&1, rounds, targets, millis))
    measured = Enum.group_by(measured, &elem(&1, 0), &elem(&1, 1))
    rows = for case <- @cases, {name, _} <- targets, measured?(case, name), do: row(measured, case, name)
    report(rows, rounds, millis)
    if results != "-", do: Results.write(results, "node", %{rounds: rounds, milliseconds: millis, rows: rows})
  end

  defp round(round, rounds, targets, millis) do
    IO.puts(:stderr, "round #{round} of #{rounds}")

    for case <- @cases, {name, target} <- rotated(targets, round), measured?(case, name) do
      {{case, name}, measure(target, case, millis)}
    end
  end

  # A peer's bound is met on purpose there: what comes through says nothing about time.
  defp measured?({:ping, _, _}, name), do: name in [:beam, :ei, :daemon]
  defp measured?(_case, _name), do: true

  # Nobody always comes after the same neighbour.
  defp rotated(targets, round) do
    {first, rest} = Enum.split(targets, rem(round, length(targets)))
    rest ++ first
  end

  defp measure(target, {kind, bytes, processes}, millis) do
    :erlang.garbage_collect()

    case kind do
      :call ->
        {rate, p50, p99} = Load.calls(target, bytes, processes, millis)
        %{per_second: rate, p50_us: p50, p99_us: p99}

      :cast ->
        %{per_second: Load.casts(target, bytes, processes, millis)}

      :ping ->
        {background, p50, p99} = Load.pings_behind(target, bytes, 2 * millis)
        %{p50_us: p50, p99_us: p99, background_bytes_per_second: background}
    end
  end

  # The targets.

  defp start(dir, ei_node, daemon) do
    start_vm("beam", ["server", "dist", dir])
    start_program(ei_node, ["ei", "bench"], "READY")
    for name <- ["beam", "ei"], do: true = Node.connect(:"#{name}@127.0.0.1")
    [beam: {:bench, :"beam@127.0.0.1"}, ei: {:bench, :"ei@127.0.0.1"}] ++ start_daemons(dir, daemon)
  end

  # Ours is the realm "client", with two peers: one daemon with a BEAM node behind it, one BEAM node with the library.
  defp start_daemons(_dir, "-"), do: []

  defp start_daemons(dir, daemon) do
    embedded = start_vm("embedded", ["server", "tcp", dir])
    far = free_port()

    start_daemon(dir, daemon, "far", """
    [[listen]]
    tcp = "127.0.0.1:#{far}"
    [[peers]]
    realm = "client"
    key = "#{key(dir, "client")}"
    export = "all"
    """)

    start_daemon(dir, daemon, "client", """
    [[peers]]
    realm = "far"
    key = "#{key(dir, "far")}"
    connect = ["tcp://127.0.0.1:#{far}"]
    [[peers]]
    realm = "server"
    key = "#{key(dir, "server")}"
    connect = ["tcp://127.0.0.1:#{embedded}"]
    """)

    start_vm("far_beam", ["server", "dist", dir])
    # By the node that has it.
    publish = [{:legation, :"far_daemon@127.0.0.1"}, {:publish, "bench", :bench, []}]
    :ok = :erpc.call(:"far_beam@127.0.0.1", GenServer, :call, publish)
    client = :"client_daemon@127.0.0.1"
    for name <- ["bench@far", "bench@server"], do: await_engine(client, name, deadline())

    [
      daemon: {:legation_echo, client},
      daemons: {:bench@far, client},
      embedded: {:bench@server, client}
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

    start_program(daemon, ["run", "--supervised", "--config", path], "legation")
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

  # Ends with its standard input, which is ours to hold. Returns what stands behind `word`.
  defp start_program(program, args, word) do
    port = Port.open({:spawn_executable, program}, [:binary, :exit_status, {:line, 4_096}, args: args])
    wait(port, program, word)
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

  # The figures.

  defp row(measured, {kind, bytes, processes} = case, name) do
    rounds = measured[{case, name}]
    base = measured[{case, :beam}]

    figures =
      for figure <- Map.keys(hd(rounds)), into: %{} do
        {figure, Results.summary(Enum.map(rounds, & &1[figure]), Enum.map(base, & &1[figure]))}
      end

    Map.merge(figures, %{kind: kind, bytes: bytes, processes: processes, target: name})
  end

  defp report(rows, rounds, millis) do
    IO.puts("\nMedians of #{rounds} interleaved rounds of #{millis} ms, lowest - highest, and x: the ratio to a second")
    IO.puts("BEAM node in the same round, median of the rounds.")

    table(rows, :call, "gen_server:call, 64 bytes there and back", {"callers", & &1.processes}, [
      {"per second", :per_second},
      {"p50 us", :p50_us},
      {"p99 us", :p99_us}
    ])

    table(rows, :cast, "casts", {"bytes, senders", &"#{&1.bytes}, #{&1.processes}"}, [{"per second", :per_second}])

    table(
      rows,
      :ping,
      "one call at a time, while another process casts as fast as it may",
      {"casts of", &"#{&1.bytes}"},
      [
        {"p50 us", :p50_us},
        {"p99 us", :p99_us},
        {"casts' bytes/s", :background_bytes_per_second}
      ]
    )
  end

  defp table(rows, kind, title, {first, label}, columns) do
    IO.puts("\n#{title}\n")
    head = for {name, _key} <- columns, do: [String.pad_leading(name, 15), String.duplicate(" ", 19), "     x"]
    IO.puts([String.pad_trailing(first, 15), String.pad_trailing("engine on", 22), head])

    for %{kind: ^kind} = row <- rows do
      figures = for {_name, key} <- columns, do: figure(row[key])
      IO.puts([String.pad_trailing("#{label.(row)}", 15), String.pad_trailing(@targets[row.target], 22), figures])
    end
  end

  defp figure(%{median: median, min: min, max: max, x: x}) do
    spread = "  #{Results.number(min)} - #{Results.number(max)}"

    [
      String.pad_leading(Results.number(median), 15),
      String.pad_trailing(spread, 19),
      String.pad_leading(Results.ratio(x), 6)
    ]
  end
end

Bench.Node.main(System.argv())
