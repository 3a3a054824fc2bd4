defmodule Bench.Targets do
  @moduledoc """
  What Legation is to reach, each with a target and a floor, and what was measured.

  "best" is the better of both kinds of distribution in the same round. A measured ratio is the median of the rounds' ratios.
  """

  alias Bench.Results

  @doc """
  For each: `what`, `target` and `floor` (text; either may be nil), `measured` (text), `spread` (lowest and highest round), `mark`.
  """
  def evaluate(results), do: Enum.map(all(results), &evaluate_one/1)

  # {what, direction, target, floor, values or nil, unit}
  defp all(results) do
    cast = fn path, bytes, senders ->
      load = [kind: :cast, path: path, bytes: bytes, senders: senders, engines: 1, from: :engines]
      Results.values(results, load, "per_second")
    end

    call = fn path, callers, figure ->
      Results.values(results, [kind: :call, path: path, callers: callers], figure)
    end

    p50 = &call.(&1, 1, "p50_us")
    rate = &call.(&1, &2, "per_second")
    best_cast = &Results.higher(cast.(:dist, &1, 1), cast.(:dist_tls, &1, 1))
    best_rate = Results.higher(rate.(:dist, 256), rate.(:dist_tls, 256))

    fact = fn name, fields, key ->
      with value when value != nil <- Results.fact(results, [{"name", name} | fields], key), do: [value]
    end

    announced = &fact.(&1, [{"number", &2}], &3)
    x = &Results.ratios/2

    Enum.concat([
      for bytes <- [64, 256] do
        {"casts of #{bytes} B, embedded, signed + encrypted, 1 source engine, vs best", :least, 1.0, 0.7,
         x.(cast.(:embedded_tls, bytes, 1), best_cast.(bytes)), :ratio}
      end,
      for bytes <- [64, 256] do
        {"the same, #{bytes} B, vs plain distribution", :least, nil, 1.0,
         x.(cast.(:embedded_tls, bytes, 1), cast.(:dist, bytes, 1)), :ratio}
      end,
      for bytes <- [64, 256] do
        {"#{bytes} B from 100 source engines, `delegated`, vs 1 source", :least, 0.9, 0.6,
         x.(cast.(:embedded_delegated, bytes, 100), cast.(:embedded_tls, bytes, 1)), :ratio}
      end,
      for bytes <- [64, 256] do
        {"#{bytes} B from 100 source engines, `engine`", :least, 20_000, 15_000, cast.(:embedded_tls, bytes, 100),
         :rate}
      end,
      for bytes <- [65_536, 1_048_576] do
        {"casts of #{Results.bytes(bytes)}, embedded, vs distribution over TLS", :least, 7.0, 4.0,
         x.(cast.(:embedded_tls, bytes, 1), cast.(:dist_tls, bytes, 1)), :ratio}
      end,
      [
        {"call p50, 1 caller, `checkpoint`, vs distribution over TLS", :most, 1.0, 1.5,
         x.(p50.(:embedded_checkpoint), p50.(:dist_tls)), :ratio},
        {"call p50, 1 caller, `engine`, vs plain distribution", :most, 3.0, 4.0, x.(p50.(:embedded_tls), p50.(:dist)),
         :ratio},
        {"calls/s, 256 callers, `engine`, vs best", :least, 1.0, 0.7, x.(rate.(:embedded_tls, 256), best_rate), :ratio},
        {"Rust core ↔ Rust core, 256 B signed + encrypted", :least, 1.5e6, 0.8e6, cast.(:core_tls, 256, 1), :rate}
      ],
      for callers <- [16, 64, 256] do
        {"BEAM ↔ daemon echo, #{callers} callers, vs a second BEAM node", :least, 1.2, 0.95,
         x.(rate.(:daemon, callers), rate.(:dist, callers)), :ratio}
      end,
      [
        {"BEAM → daemon casts of 64 B, vs `ei`", :least, 1.2, 1.0, x.(cast.(:daemon, 64, 1), cast.(:ei, 64, 1)),
         :ratio},
        {"call p50, BEAM–daemon–daemon–BEAM, vs plain distribution", :most, 4.0, 6.0, x.(p50.(:daemons), p50.(:dist)),
         :ratio},
        {"wire overhead per message in a batch of 64", :most, 12, 20, fact.("wire", [], "overhead_bytes"), :bytes},
        {"announced to callable: 10,000 engines by `:via`", :most, 0.3, 1.0,
         announced.("engines", 10_000, "callable_s"), :seconds},
        {"announced to callable: 1,000 by `:global`, one node", :most, 0.15, 0.5,
         fact.("global", [{"nodes", 1}], "callable_s"), :seconds},
        {"announced to callable: 1,000 by `:global`, two nodes", :most, 0.6, 2.0,
         fact.("global", [{"nodes", 2}], "callable_s"), :seconds},
        {"handshakes per second, mutual, both ends on one core", :least, 2_500, 1_500,
         fact.("handshakes", [], "both_per_second"), :rate},
        {"idle proxy, embedded", :most, 3_072, 5_120, announced.("engines", 10_000, "proxy_bytes"), :bytes},
        {"scheduler held by a NIF call", :most, 1.0, nil, fact.("schedulers", [], "longest_ms"), :milliseconds}
      ]
    ])
  end

  defp evaluate_one({what, direction, target, floor, values, unit}) do
    sign = if direction == :least, do: "≥", else: "≤"
    bound = &if(&1, do: "#{sign} #{show(&1, unit)}")
    common = %{what: what, target: bound.(target), floor: bound.(floor)}

    if values do
      value = Results.median(values)
      {low, high} = Enum.min_max(values)
      reached? = &(&1 != nil and if(direction == :least, do: value >= &1, else: value <= &1))

      mark =
        cond do
          reached?.(target) -> "met"
          reached?.(floor) -> "floor met"
          true -> "missed"
        end

      spread = if length(values) > 1, do: "#{show(low, unit)} – #{show(high, unit)}"
      Map.merge(common, %{measured: show(value, unit), spread: spread, mark: mark})
    else
      Map.merge(common, %{measured: nil, spread: nil, mark: "not measured"})
    end
  end

  defp show(value, :ratio), do: :erlang.float_to_binary(value / 1, decimals: 2)
  defp show(value, :rate), do: Results.number(value) <> "/s"
  defp show(value, :bytes), do: "#{Results.number(value)} B"
  defp show(value, :seconds), do: "#{Results.number(value)} s"
  defp show(value, :milliseconds), do: "#{Results.number(value)} ms"
end
