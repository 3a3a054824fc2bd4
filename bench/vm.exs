# One side of one transport, as its own operating-system process. `bench/run.exs` and `bench/node.exs` start these and
# talk to them by lines: commands on standard input, `RESULT ...` on standard output.
#
#   elixir [--name ...] vm.exs server|client TRANSPORT DIR [PEER]

Code.require_file("load.exs", __DIR__)

defmodule Bench.Loop do
  def run(target) do
    case IO.gets("") do
      :eof ->
        System.halt(0)

      line ->
        [kind, bytes, callers, millis] = String.split(line)
        [bytes, callers, millis] = Enum.map([bytes, callers, millis], &String.to_integer/1)

        figures =
          case kind do
            "call" -> Bench.Load.calls(target, bytes, callers, millis)
            "cast" -> Bench.Load.casts(target, bytes, callers, millis)
          end

        IO.puts("RESULT #{figures.per_second} #{figures[:p50_us] || 0.0} #{figures[:p99_us] || 0.0}")
        run(target)
    end
  end
end

[role, transport, dir | rest] = System.argv()
{:ok, echo} = GenServer.start_link(Bench.Echo, nil)

key = fn realm -> File.read!(Path.join(dir, realm <> ".pub")) end

legation = fn realm, extra ->
  {:ok, _} = Application.ensure_all_started(:legation)

  {:ok, _} =
    Legation.start_link([realm: realm, key: Path.join(dir, realm <> ".pem"), limits: [knock_boot_ms: 0]] ++ extra)
end

target =
  case {transport, role} do
    {dist, "server"} when dist in ["dist", "dist_tls"] ->
      Process.register(echo, :bench)
      nil

    {dist, "client"} when dist in ["dist", "dist_tls"] ->
      node = rest |> hd() |> String.to_atom()
      true = Node.connect(node)
      {:bench, node}

    {legation_carrier, "server"} ->
      listen =
        if legation_carrier == "tcp",
          do: [tcp: [port: 0, ip: {127, 0, 0, 1}]],
          else: [unix: [path: Path.join(dir, "bench.sock")]]

      legation.("server", listen: listen, peers: [[realm: "client", key: key.("client"), export: :all]])
      :ok = Legation.publish("bench", echo)
      nil

    {legation_carrier, "client"} ->
      connect =
        if legation_carrier == "tcp",
          do: [tcp: [host: "127.0.0.1", port: String.to_integer(hd(rest))]],
          else: [unix: [path: Path.join(dir, "bench.sock")]]

      legation.("client", peers: [[realm: "server", key: key.("server"), connect: connect]])
      {:ok, ref, snapshot} = Legation.monitor_peers()

      if Legation.whereis("bench@server") == nil do
        receive do
          {:legation, ^ref, {:engine_learned, "bench@server", _info}} -> :ok
        after
          10_000 -> raise "bench@server was not learned: #{inspect(snapshot)}"
        end
      end

      {:via, Legation, "bench@server"}
  end

bound =
  case {transport, role} do
    {"tcp", "server"} -> inspect(Legation.listeners())
    _ -> ""
  end

port =
  if transport == "tcp" and role == "server",
    do: hd(Regex.run(~r/port: (\d+)/, bound, capture: :all_but_first)),
    else: "-"

IO.puts("READY #{port}")
Bench.Loop.run(target)
