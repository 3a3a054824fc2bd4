defmodule Legation.BackoffTest do
  use ExUnit.Case, async: true

  alias Legation.Backoff

  @highest &Function.identity/1

  defp delays(backoff, count, uniform) do
    {delays, backoff} = Enum.map_reduce(1..count, backoff, fn _failure, backoff -> Backoff.next(backoff, uniform) end)
    {delays, backoff}
  end

  test "the ceiling doubles from failure to failure up to the maximum" do
    {delays, _backoff} = delays(Backoff.new(50, 1_000), 7, @highest)
    assert delays == [100, 200, 400, 800, 1_000, 1_000, 1_000]
  end

  test "a delay may be as short as the minimum, however often it failed" do
    {delays, _backoff} = delays(Backoff.new(50, 1_000), 7, fn _n -> 1 end)
    assert delays == List.duplicate(50, 7)
  end

  test "success starts it over" do
    {_delays, backoff} = delays(Backoff.new(50, 30_000), 5, @highest)
    assert {100, _backoff} = backoff |> Backoff.reset() |> Backoff.next(@highest)
  end

  test "delays are spread between minimum and ceiling" do
    {_delays, backoff} = delays(Backoff.new(50, 30_000), 20, @highest)
    delays = for _ <- 1..200, {delay_ms, _backoff} = Backoff.next(backoff), do: delay_ms
    assert Enum.all?(delays, &(&1 in 50..30_000))
    assert Enum.min(delays) < 10_000 and Enum.max(delays) > 20_000
  end

  test "a minimum that is the maximum is the delay" do
    {delays, _backoff} = delays(Backoff.new(10, 10), 3, &:rand.uniform/1)
    assert delays == [10, 10, 10]
  end
end
