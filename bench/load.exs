# What both benchmarks put on a transport, and the engine that takes it.

defmodule Bench.Echo do
  use GenServer

  def init(_), do: {:ok, 0}
  def handle_call(:count, _from, count), do: {:reply, count, count}
  def handle_call(request, _from, count), do: {:reply, request, count}
  def handle_cast(_message, count), do: {:noreply, count + 1}
end

defmodule Bench.Load do
  # Casts in flight before the sender waits for an answer, so that no transport's queue overflows: bytes and count.
  @window_bytes 2 * 1024 * 1024
  @window_casts 4_000

  @doc "Round trips from `callers` processes for so long: how many, and their median and 99th percentile in microseconds."
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
    rate = count * 1.0e6 / elapsed
    %{count: count, per_second: rate, p50_us: percentile(sorted, count, 0.5), p99_us: percentile(sorted, count, 0.99)}
  end

  defp call_until(target, payload, finish, times) do
    before = System.monotonic_time(:nanosecond)
    ^payload = GenServer.call(target, payload, :infinity)
    later = System.monotonic_time(:nanosecond)
    times = [(later - before) / 1_000 | times]
    if div(later, 1_000_000) < finish, do: call_until(target, payload, finish, times), else: times
  end

  defp percentile(sorted, count, share), do: elem(sorted, min(count - 1, trunc(count * share)))

  @doc "Casts that `senders` processes bring to the engine within so long, and a little more for the last ones."
  def casts(target, bytes, senders, millis) do
    payload = :crypto.strong_rand_bytes(bytes)
    chunk = @window_bytes |> div(bytes) |> min(@window_casts) |> div(senders) |> max(1)
    finish = System.monotonic_time(:millisecond) + millis
    before = GenServer.call(target, :count, :infinity)
    started = System.monotonic_time(:microsecond)

    sent =
      1..senders
      |> Enum.map(fn _ -> Task.async(fn -> cast_until(target, {:payload, payload}, chunk, finish, nil, 0) end) end)
      |> Enum.map(&Task.await(&1, :infinity))
      |> Enum.sum()

    # Behind all casts. An engine that only echoes has read them at least.
    count = GenServer.call(target, :count, :infinity)
    elapsed = System.monotonic_time(:microsecond) - started
    if is_integer(count) and count - before != sent, do: raise("#{sent} casts sent, #{count - before} arrived")
    %{count: sent, per_second: sent * 1.0e6 / elapsed}
  end

  # Two chunks are under way at a time.
  defp cast_until(target, message, chunk, finish, last, sent) do
    for _ <- 1..chunk, do: GenServer.cast(target, message)
    request = :gen_server.send_request(target, :sync)
    if last, do: {:reply, _} = :gen_server.wait_response(last, 60_000)

    if System.monotonic_time(:millisecond) < finish do
      cast_until(target, message, chunk, finish, request, sent + chunk)
    else
      {:reply, _} = :gen_server.wait_response(request, 60_000)
      sent + chunk
    end
  end

  @doc "Calls of one process while another casts messages of `bytes` as fast as it may, and how many bytes a second these were."
  def pings_behind(target, bytes, millis) do
    message = {:payload, :crypto.strong_rand_bytes(bytes)}
    counter = :counters.new(1, [])
    started = System.monotonic_time(:microsecond)
    flood = spawn(fn -> flood(target, message, counter) end)
    calls = calls(target, 64, 1, millis)
    casts = :counters.get(counter, 1)
    elapsed = System.monotonic_time(:microsecond) - started
    Process.exit(flood, :kill)
    # What is still on its way is no burden of the next measurement.
    GenServer.call(target, :count, :infinity)
    Map.put(calls, :casts_bytes_per_second, casts * bytes * 1.0e6 / elapsed)
  end

  defp flood(target, message, counter) do
    GenServer.cast(target, message)
    :counters.add(counter, 1, 1)
    flood(target, message, counter)
  end
end
