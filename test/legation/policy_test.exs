defmodule Legation.PolicyTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias Legation.Options.Peer
  alias Legation.Policy

  defp policy(opts), do: Policy.compile(struct!(%Peer{realm: "bob", key: <<1::256>>}, opts))

  defp engine(name, opts \\ []), do: {name, Keyword.merge([allow: nil, filter: nil], opts)}

  defp allowed(policy, engine, op, message \\ :hello) do
    Policy.allowed(policy, engine, op, fn ->
      %{realm: "bob", engine: engine, source: "caller", op: op, message: message}
    end)
  end

  def even?(%{message: number}), do: rem(number, 2) == 0

  test "only exported engines are known, and only where their publisher wants it" do
    policy = policy(export: [engine("ping")])
    assert Policy.exported?(policy, "ping", :all)
    assert Policy.exported?(policy, "ping", ["carol", "bob"])
    refute Policy.exported?(policy, "ping", ["carol"])
    refute Policy.exported?(policy, "pong", :all)
    refute Policy.exported?(policy, "pong", ["bob"])
    refute Policy.exported?(policy([]), "ping", :all)
  end

  test "export :all is all engines that their publishers want there" do
    policy = policy(export: :all)
    assert Policy.exported?(policy, "anything", :all)
    assert Policy.exported?(policy, "anything", ["bob"])
    refute Policy.exported?(policy, "anything", ["carol"])
  end

  test "call, cast and send are allowed at first, the rest is not" do
    policy = policy(export: :all)
    for op <- [:call, :cast, :send], do: assert(allowed(policy, "ping", op) == :ok)
    for op <- [:sys, :event], do: assert(allowed(policy, "ping", op) == {:refuse, :forbidden})
  end

  test "an engine that isn't exported is forbidden" do
    assert allowed(policy(export: [engine("ping")]), "pong", :call) == {:refuse, :forbidden}
  end

  test "an engine's own allow replaces the peer's" do
    policy =
      policy(allow: [:cast], export: [engine("ping"), engine("store", allow: [:call, :sys]), engine("deaf", allow: [])])

    assert allowed(policy, "ping", :cast) == :ok
    assert allowed(policy, "ping", :call) == {:refuse, :forbidden}
    assert allowed(policy, "store", :call) == :ok
    assert allowed(policy, "store", :sys) == :ok
    assert allowed(policy, "store", :cast) == {:refuse, :forbidden}
    assert allowed(policy, "deaf", :cast) == {:refuse, :forbidden}
  end

  test "without a filter nobody looks at the message" do
    assert Policy.allowed(policy(export: :all), "ping", :call, fn -> flunk("looked") end) == :ok
  end

  test "what is not allowed never reaches a filter" do
    policy = policy(export: :all, filter: fn _message -> flunk("asked") end)
    assert allowed(policy, "ping", :sys) == {:refuse, :forbidden}
  end

  test "a filter gets all there is to know and lets pass what it answers with true" do
    test = self()

    filter = fn message ->
      send(test, message)
      message.message
    end

    policy = policy(export: :all, filter: filter)
    assert allowed(policy, "ping", :cast, true) == :ok
    assert_received %{realm: "bob", engine: "ping", source: "caller", op: :cast, message: true}
    for answer <- [false, nil, :ok, 1], do: assert(allowed(policy, "ping", :cast, answer) == {:refuse, :filtered})
  end

  test "the peer's filter and the engine's must both agree" do
    policy = policy(filter: {__MODULE__, :even?}, export: [engine("big", filter: &(&1.message > 10)), engine("any")])
    assert allowed(policy, "big", :call, 12) == :ok
    assert allowed(policy, "big", :call, 13) == {:refuse, :filtered}
    assert allowed(policy, "big", :call, 2) == {:refuse, :filtered}
    assert allowed(policy, "any", :call, 2) == :ok
  end

  test "a filter that fails has refused, and its log line holds nothing of the message" do
    failures = [
      fn %{message: message} -> raise message end,
      fn %{message: message} -> throw(message) end,
      fn %{message: message} -> exit(message) end,
      fn %{engine: :no} -> true end
    ]

    for {filter, index} <- Enum.with_index(failures) do
      engine = "failing#{index}"

      log =
        capture_log(fn ->
          assert allowed(policy(export: :all, filter: filter), engine, :call, "content") == {:refuse, :filtered}
        end)

      assert log =~ "the filter for bob and #{engine} failed"
      refute log =~ "content"
    end
  end

  test "requests that change an event manager need sys as well" do
    events = policy(export: :all, allow: [:event])
    both = policy(export: :all, allow: [:event, :sys])

    for request <- [{:call, H, :q}, {:sync_notify, :e}, :which_handlers],
        do: assert(allowed(events, "log", :event, request) == :ok)

    changes = [
      {:add_handler, H, []},
      {:add_sup_handler, H, [], :pid},
      {:delete_handler, H, []},
      {:swap_handler, H, [], I, []},
      {:swap_sup_handler, H, [], I, [], :pid},
      {:add_handler},
      :stop,
      {:stop, :normal}
    ]

    for request <- changes do
      assert allowed(events, "log", :event, request) == {:refuse, :forbidden}
      assert allowed(both, "log", :event, request) == :ok
    end
  end

  test "a filter is asked about events, too" do
    policy = policy(export: :all, allow: [:event], filter: &(&1.message == :which_handlers))
    assert allowed(policy, "log", :event, :which_handlers) == :ok
    assert allowed(policy, "log", :event, {:sync_notify, :e}) == {:refuse, :filtered}
  end

  test "operations have the bits of the protocol" do
    assert Policy.ops_bits([]) == 0
    assert Policy.ops_bits([:call, :cast, :send]) == 7
    assert Policy.ops_bits([:sys, :event, :event]) == 192
  end
end
