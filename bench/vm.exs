# One side of one transport, as its own operating-system process. `bench/run.exs` starts these and talks to them by
# lines: commands on standard input, `RESULT ...` on standard output.
#
#   elixir [--name ...] vm.exs server|client TRANSPORT DIR [PEER]

defmodule Bench.Echo do
  use GenServer

  def init(_), do: {:ok, 0}
  def handle_call({:echo, payload}, _from, count), do: {:reply, payload, count}
  def handle_call(:sync, _from, count), do: {:reply, count, count}
  def handle_cast({:payload, _bytes}, count), do: {:noreply, count + 1}
end

defmodule Bench.Client do
  # Casts in flight before the sender waits for an answer, so that no transport's queue overflows: bytes and count.
  @window_bytes 2 * 1024 * 1024
  @window_casts 4_000

  def calls(target, bytes, callers, millis) do
    payload = :crypto.strong_rand_bytes(bytes)
    finish = System.monotonic_time(:millisecond) + millis
    started = System.monotonic_time(:microsecond)

    times =
      1..callers
      |> Enum.map(fn _ -> Task.async(fn -> call_until(target, payload, finish, []) end) end)
      |> Enum.flat_map(&Task.await(&1, :infinity))

    elapsed = System.monotonic_time(:microsecond) - started
    sorted = times |> Enum.sort() |> List.to_tuple()
    count = tuple_size(sorted)
    {count * 1.0e6 / elapsed, percentile(sorted, count, 0.5), percentile(sorted, count, 0.99)}
  end

  defp call_until(target, payload, finish, times) do
    before = System.monotonic_time(:nanosecond)
    ^payload = GenServer.call(target, {:echo, payload}, :infinity)
    later = System.monotonic_time(:nanosecond)
    times = [(later - before) / 1_000 | times]
    if div(later, 1_000_000) < finish, do: call_until(target, payload, finish, times), else: times
  end

  defp percentile(sorted, count, share), do: elem(sorted, min(count - 1, trunc(count * share)))

  def casts(target, bytes, senders, millis) do
    payload = :crypto.strong_rand_bytes(bytes)
    chunk = @window_bytes |> div(bytes) |> min(@window_casts) |> div(senders) |> max(1)
    finish = System.monotonic_time(:millisecond) + millis
    before = GenServer.call(target, :sync)
    started = System.monotonic_time(:microsecond)

    sent =
      1..senders
      |> Enum.map(fn _ -> Task.async(fn -> cast_until(target, {:payload, payload}, chunk, finish, nil, 0) end) end)
      |> Enum.map(&Task.await(&1, :infinity))
      |> Enum.sum()

    arrived = GenServer.call(target, :sync, :infinity) - before
    elapsed = System.monotonic_time(:microsecond) - started
    if arrived != sent, do: raise("#{sent} casts sent, #{arrived} arrived")
    {arrived * 1.0e6 / elapsed, 0.0, 0.0}
  end

  # Two chunks are under way at a time.
  defp cast_until(target, message, chunk, finish, last, sent) do
    for _ <- 1..chunk, do: GenServer.cast(target, message)
    request = :gen_server.send_request(target(target), :sync)
    if last, do: {:reply, _} = :gen_server.wait_response(last, 60_000)

    if System.monotonic_time(:millisecond) < finish do
      cast_until(target, message, chunk, finish, request, sent + chunk)
    else
      {:reply, _} = :gen_server.wait_response(request, 60_000)
      sent + chunk
    end
  end

  # Elixir's and Erlang's spelling are one, but for the atom.
  defp target(target), do: target
end

defmodule Bench.Loop do
  def run(target) do
    case IO.gets("") do
      :eof ->
        System.halt(0)

      line ->
        [kind, bytes, callers, millis] = String.split(line)
        [bytes, callers, millis] = Enum.map([bytes, callers, millis], &String.to_integer/1)

        {rate, median, p99} =
          case kind do
            "call" -> Bench.Client.calls(target, bytes, callers, millis)
            "cast" -> Bench.Client.casts(target, bytes, callers, millis)
          end

        IO.puts("RESULT #{rate} #{median} #{p99}")
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
