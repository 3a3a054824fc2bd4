# Legation beside Erlang distribution, plain and over TLS, in one run on one machine: medians of interleaved rounds, and
# their ratios to plain distribution. Absolute figures depend on the machine; the ratios are what counts.
#
#   scripts/bench [ROUNDS] [MILLISECONDS PER MEASUREMENT]

defmodule Bench.Run do
  @transports ["dist", "dist_tls", "tcp", "unix"]
  @labels %{
    "dist" => "Erlang distribution",
    "dist_tls" => "distribution over TLS",
    "tcp" => "Legation, tcp tls",
    "unix" => "Legation, unix local"
  }
  @cases for kind <- ["call", "cast"], bytes <- [64, 256, 65_536], callers <- [1, 64], do: {kind, bytes, callers}

  def main([dir, rounds, millis]) do
    {rounds, millis} = {String.to_integer(rounds), String.to_integer(millis)}
    clients = for transport <- @transports, into: %{}, do: {transport, start_pair(transport, dir)}
    # Once through, unmeasured: code loaded, connections up, buffers grown.
    for case <- @cases, transport <- @transports, do: measure(clients[transport], case, 50)

    results =
      for round <- 1..rounds, case <- @cases, transport <- @transports do
        IO.write(:stderr, "\rround #{round} of #{rounds}  ")
        {{case, transport}, measure(clients[transport], case, millis)}
      end

    IO.write(:stderr, "\n")
    report(Enum.group_by(results, &elem(&1, 0), &elem(&1, 1)), rounds, millis)
  end

  defp start_pair(transport, dir) do
    {_server, ready} = start("server", transport, dir, [])
    peer = if transport in ["dist", "dist_tls"], do: "#{transport}_server@127.0.0.1", else: ready
    {client, _} = start("client", transport, dir, [peer])
    client
  end

  defp start(role, transport, dir, rest) do
    elixir = System.find_executable("elixir")
    script = Path.join(__DIR__, "vm.exs")
    ebin = Path.join([__DIR__, "..", "_build", "prod", "lib", "legation", "ebin"])

    name =
      case transport do
        "dist" -> ["--name", "dist_#{role}@127.0.0.1", "--cookie", "bench"]
        "dist_tls" -> ["--name", "dist_tls_#{role}@127.0.0.1", "--cookie", "bench", "--erl", tls_flags(dir)]
        _ -> []
      end

    args = name ++ ["-pa", ebin, script, role, transport, dir | rest]
    port = Port.open({:spawn_executable, elixir}, [:binary, :exit_status, {:line, 4_096}, args: args])
    {port, wait(port, "READY", 30_000)}
  end

  defp tls_flags(dir), do: "-proto_dist inet_tls -ssl_dist_optfile #{Path.join(dir, "ssl_dist.conf")}"

  defp measure(client, {kind, bytes, callers}, millis) do
    Port.command(client, "#{kind} #{bytes} #{callers} #{millis}\n")
    client |> wait("RESULT", 120_000) |> String.split() |> Enum.map(&String.to_float/1) |> List.to_tuple()
  end

  defp wait(port, word, timeout) do
    receive do
      {^port, {:data, {:eol, line}}} ->
        case String.split(line, " ", parts: 2) do
          [^word, rest] ->
            rest

          _ ->
            IO.puts(:stderr, line)
            wait(port, word, timeout)
        end

      {^port, {:exit_status, status}} ->
        raise "a VM of the benchmark ended with status #{status}"
    after
      timeout -> raise "a VM of the benchmark did not say #{word} within #{timeout} ms"
    end
  end

  defp report(results, rounds, millis) do
    IO.puts(
      "\nMedians of #{rounds} interleaved rounds of #{millis} ms; x = ratio to Erlang distribution in the same run."
    )

    for kind <- ["call", "cast"] do
      IO.puts("\n#{if kind == "call", do: "GenServer.call round trips", else: "casts"}\n")
      columns = if kind == "call", do: ["per second", "x", "p50 us", "x", "p99 us"], else: ["per second", "x"]
      row(["bytes", "from", "transport" | columns])

      for {^kind, bytes, callers} = case <- @cases, transport <- @transports do
        {rate, p50, p99} = medians(results[{case, transport}])
        {base_rate, base_p50, _} = medians(results[{case, "dist"}])
        figures = [round(rate), ratio(rate, base_rate)]
        latency = if kind == "call", do: [Float.round(p50, 1), ratio(p50, base_p50), Float.round(p99, 1)], else: []
        row([bytes, callers, @labels[transport]] ++ figures ++ latency)
      end
    end
  end

  defp medians(list), do: {median(list, 0), median(list, 1), median(list, 2)}

  defp median(list, index) do
    sorted = list |> Enum.map(&elem(&1, index)) |> Enum.sort()
    Enum.at(sorted, div(length(sorted), 2))
  end

  defp ratio(_value, base) when base == 0, do: "-"
  defp ratio(value, base), do: Float.round(value / base, 2)

  defp row([bytes, from, transport | figures]) do
    [String.pad_leading("#{bytes}", 7), String.pad_leading("#{from}", 5), "  ", String.pad_trailing(transport, 24)]
    |> Enum.concat(Enum.map(figures, &String.pad_leading("#{&1}", 11)))
    |> IO.puts()
  end
end

Bench.Run.main(System.argv())
