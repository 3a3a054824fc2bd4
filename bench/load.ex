defmodule Bench.Load do
  @moduledoc """
  What is put on a path, in the VM that calls and casts. A target is whatever `GenServer.call/3` takes.

  All paths get the same. How much is under way at a time is bounded so that it fits into any path's queues (Legation's bound
  for one engine is 8 MiB): a sender waits for answers to what it sent before it goes on.
  """

  alias Bench.Engines

  @window_bytes 4 * 1024 * 1024
  @window_casts 8_000

  @doc "How many processes can send casts of so many bytes at the same time without more than that being under way."
  def senders_max(bytes), do: max(1, div(@window_bytes, bytes))

  @doc """
  Round trips from `callers` processes, each to one of the targets, for so long: how many, and their median and 99th percentile in
  microseconds.
  """
  def calls(targets, %{bytes: bytes, callers: callers}, millis) do
    payload = :crypto.strong_rand_bytes(bytes)
    finish = System.monotonic_time(:millisecond) + millis
    started = System.monotonic_time(:microsecond)

    times =
      targets
      |> Stream.cycle()
      |> Enum.take(callers)
      |> Enum.map(&Task.async(fn -> call_until(&1, payload, finish, []) end))
      |> Enum.flat_map(&Task.await(&1, :infinity))

    elapsed = System.monotonic_time(:microsecond) - started
    sorted = times |> Enum.sort() |> List.to_tuple()
    count = tuple_size(sorted)
    rate = count * 1.0e6 / elapsed
    %{count: count, per_second: rate, p50_us: percentile(sorted, 0.5), p99_us: percentile(sorted, 0.99)}
  end

  defp call_until(target, payload, finish, times) do
    before = System.monotonic_time(:nanosecond)
    ^payload = GenServer.call(target, payload, :infinity)
    later = System.monotonic_time(:nanosecond)
    times = [(later - before) / 1_000 | times]
    if div(later, 1_000_000) < finish, do: call_until(target, payload, finish, times), else: times
  end

  defp percentile(sorted, share), do: elem(sorted, min(tuple_size(sorted) - 1, trunc(tuple_size(sorted) * share)))

  @doc """
  Casts that `senders` processes bring to the targets, to each in turn, within so long and a little more for the last ones.

  `from: :engines`: the senders are published; `:processes`: they are not, and where messages are signed the realm signs.
  """
  def casts(targets, %{bytes: bytes, senders: senders, from: from}, millis) do
    message = {:payload, :crypto.strong_rand_bytes(bytes)}
    under_way = @window_bytes |> div(bytes) |> min(@window_casts) |> div(senders) |> max(1)
    # Two halves, where it can be halved: one is on its way while the other is made.
    {chunk, ahead} = if under_way > 1, do: {div(under_way, 2), 1}, else: {1, 0}
    before = counted(targets)
    finish = System.monotonic_time(:millisecond) + millis
    started = System.monotonic_time(:microsecond)
    sender = fn -> cast_until(targets, targets, message, chunk, ahead, finish, :queue.new(), 0) end

    sent =
      case from do
        :engines -> Engines.work(senders, sender)
        :processes -> Enum.map(for(_ <- 1..senders, do: Task.async(sender)), &Task.await(&1, :infinity))
      end

    sent = Enum.sum(sent)
    elapsed = System.monotonic_time(:microsecond) - started
    # An engine that only echoes has read them at least.
    arrived = Enum.zip_with(counted(targets), before, &arrived/2)

    if :unknown not in arrived and Enum.sum(arrived) != sent,
      do: raise("#{sent} casts sent, #{Enum.sum(arrived)} arrived")

    %{count: sent, per_second: sent * 1.0e6 / elapsed}
  end

  defp counted(targets), do: Enum.map(targets, &GenServer.call(&1, :count, :infinity))

  defp arrived(now, before) when is_integer(now), do: now - before
  defp arrived(_echoed, _before), do: :unknown

  # The last one of a chunk is asked for an answer, which comes when everything before has been worked off there.
  defp cast_until(rest, targets, message, chunk, ahead, finish, open, sent) do
    {last, rest} = cast(rest, targets, message, chunk, nil)
    open = :queue.in(:gen_server.send_request(last, :sync), open)
    open = if :queue.len(open) > ahead, do: answered(open), else: open

    if System.monotonic_time(:millisecond) < finish do
      cast_until(rest, targets, message, chunk, ahead, finish, open, sent + chunk)
    else
      # Of all targets: each has its own order.
      targets |> Enum.reduce(open, &:queue.in(:gen_server.send_request(&1, :sync), &2)) |> all_answered()
      sent + chunk
    end
  end

  defp cast(rest, _targets, _message, 0, last), do: {last, rest}
  defp cast([], targets, message, left, last), do: cast(targets, targets, message, left, last)

  defp cast([target | rest], targets, message, left, _last) do
    GenServer.cast(target, message)
    cast(rest, targets, message, left - 1, target)
  end

  defp answered(open) do
    {{:value, request}, open} = :queue.out(open)
    {:reply, _} = :gen_server.wait_response(request, 60_000)
    open
  end

  defp all_answered(open), do: if(:queue.is_empty(open), do: :ok, else: open |> answered() |> all_answered())
end
