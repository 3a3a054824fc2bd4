defmodule Legation.TelemetryTest do
  # Not async: what others log would be captured, too.
  use ExUnit.Case, async: false

  import ExUnit.CaptureLog

  alias Legation.Telemetry

  # Keys of other tests may share a place with ours.
  setup do
    :persistent_term.erase({Telemetry, :places})
    :ok
  end

  defp logged(key, now_ms), do: capture_log(fn -> Telemetry.log(:warning, key, "a line", now_ms) end)

  test "without the library an event goes nowhere" do
    assert Telemetry.execute([:legation, :peer, :up], %{count: 1}, %{realm: "bob"}) == :ok
  end

  test "of one key there is one line in ten seconds, and the next says how many there would have been" do
    key = make_ref()
    assert logged(key, 1_000) =~ "Legation: a line"
    for now_ms <- [1_000, 5_000, 10_999], do: assert(logged(key, now_ms) == "")
    assert logged(key, 16_000) =~ "Legation: a line (and 3 more in 15 s)"
    refute logged(key, 26_000) =~ "more"
  end

  test "a text that isn't logged isn't made" do
    key = make_ref()
    assert capture_log(fn -> Telemetry.log(:error, key, fn -> "made" end, 1) end) =~ "made"
    assert capture_log(fn -> Telemetry.log(:error, key, fn -> flunk("made") end, 2) end) == ""
  end
end
