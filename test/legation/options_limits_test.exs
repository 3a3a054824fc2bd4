defmodule Legation.OptionsLimitsTest do
  use ExUnit.Case, async: true

  alias Legation.Options

  @u32 4_294_967_295
  @u48 0xFFFFFFFFFFFF

  # Lowest and highest of each.
  @limits [
    message_bytes_max: {1, 1_073_741_824},
    engines_max: {1, @u32},
    handshake_ms: {1, @u32},
    connect_ms: {1, @u32},
    handshake_reads: {1, 10_000},
    ping_ms: {1, @u32},
    failures_max: {1, @u32},
    failures_window_ms: {1, @u32},
    depth_max: {1, 256},
    knock_window_ms: {1, @u32},
    knock_boot_ms: {0, @u32},
    send_timeout_ms: {1, @u32},
    goodbye_ms: {0, @u32},
    shutdown_ms: {0, @u32},
    call_age_ms: {1, @u32},
    grace_ms: {0, @u32},
    ack_ms: {1, @u32},
    resume_bytes_max: {0, @u48},
    credit_bytes: {0, @u32},
    fragment_bytes: {1, @u48},
    message_ttl_ms: {1, @u48},
    room_waiters_max: {1, @u48},
    checkpoint_ms: {1, @u32},
    checkpoint_patience_ms: {1, @u32},
    unproven_messages_max: {1, @u48},
    unproven_bytes_max: {1, @u48},
    handles_max: {1, @u48},
    references_max: {1, @u48},
    handle_idle_ms: {1, @u32},
    # One must not be past the other, so each goes to the other's default.
    reconnect_min_ms: {1, 30_000},
    reconnect_max_ms: {50, @u32},
    queue_bytes_max: {1, @u48},
    engine_queue_bytes_max: {1, @u48},
    calls_max: {1, @u48},
    callers_max: {1, @u48},
    pending_connections_max: {1, @u48},
    handshakes_max: {1, @u48},
    failed_handshakes_per_s: {1, @u48},
    knock_entries_max: {1, @u48},
    engine_queue_max: {1, @u48}
  ]

  defp limit(name, value), do: Options.validate(realm: "alice", key: "alice.pem", limits: [{name, value}])

  for {name, {min, max}} <- @limits do
    test "#{name} is accepted from #{min} to #{max} and refused one past either" do
      for good <- [unquote(min), unquote(max)],
          do: assert({:ok, %{limits: %{unquote(name) => ^good}}} = limit(unquote(name), good))

      for bad <- [unquote(min) - 1, unquote(max) + 1, 1.0, "1", nil] do
        assert {:error, text} = limit(unquote(name), bad)
        assert text =~ "in limits"
      end
    end
  end

  test "these are all limits but overflow" do
    {:ok, %{limits: limits}} = Options.validate(realm: "alice", key: "alice.pem")
    assert Enum.sort(Map.keys(limits)) == Enum.sort([:overflow | Keyword.keys(@limits)])
  end
end
