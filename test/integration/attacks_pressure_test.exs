defmodule Legation.AttacksPressureTest do
  # Much of everything, from who is let in and who isn't; with LEGATION_ATTACK=long as much as the rows say.
  use Legation.AttackCase

  alias Legation.TestVM

  @moduletag timeout: 600_000

  describe "connections" do
    @tag rows: [117]
    test "by the thousands that never become links cost an honest peer nothing" do
      victim = Victim.start()
      held = Victim.hold(victim, "half-open", count: many(1_500, 10_000))
      Neighbours.let_pass(victim.neighbours, 100)
      %{connections_accepted: accepted} = Legation.counters(victim.alice)
      {pending, handshakes} = Victim.places(victim, :tls)
      assert accepted > 100 and pending <= 1_024 and handshakes <= 200
      tried(Hostile.release(held))
      until(Victim.places(victim, :tls) == {0, 0})
      assert Victim.told(victim) == []
      Victim.assert_well(victim)
    end

    @tag rows: [117]
    test "that say nothing hold no buffer, though the VM would lend them those of our links" do
      victim = Victim.start(limits: [pending_connections_max: 1_000])
      before = :erlang.memory(:binary)

      strangers =
        for _ <- 1..many(400, 1_000) do
          {:ok, stranger} = :gen_tcp.connect({127, 0, 0, 1}, victim.ports.tls, [:binary, active: false])
          # Links read something in between, and give their buffers back.
          Neighbours.let_pass(victim.neighbours, 1)
          stranger
        end

      Neighbours.let_pass(victim.neighbours, 20)
      for pid <- Process.list(), do: :erlang.garbage_collect(pid)
      cost = div(:erlang.memory(:binary) - before, length(strangers))
      assert cost < 16 * 1024, "#{cost} bytes each"
      Enum.each(strangers, &:gen_tcp.close/1)
      until(Victim.places(victim, :tls) == {0, 0})
    end

    @tag rows: [117]
    test "that say a byte now and then, again and again, cost an honest peer nothing" do
      victim = Victim.start()
      held = Victim.hold(victim, "slow-loris", count: many(100, 1_000))
      Neighbours.let_pass(victim.neighbours, many(100, 1_000))
      assert %{"sent" => bytes} = tried(Hostile.release(held))
      assert bytes > 100
      until(Victim.places(victim, :tls) == {0, 0})
      Victim.assert_well(victim)
    end
  end

  describe "a peer that is let in" do
    @tag rows: [116]
    test "and takes nothing of what it is sent costs its bound, and holds up nobody else" do
      victim = Victim.start()
      before = own_bytes()
      held = Victim.hold(victim, "stalled-reader")
      await_engine(victim.alice, "e1@mallory")
      name = via(victim.alice, "e1@mallory")
      piece = :binary.copy("x", 64 * 1024)
      # 512 MiB, or 1 GiB, in the mailbox at once: what of it is encoded and refused must not pile up meanwhile.
      for _ <- 1..many(8_192, 16_384), do: GenServer.cast(name, piece)
      Neighbours.let_pass(victim.neighbours, 50)
      until(Legation.counters(victim.alice).dropped_overload > 0)
      # 64 MiB of its bounds, and as much for what the VM does with the pieces.
      assert own_bytes() - before < 128 * 1024 * 1024
      Hostile.release(held)
      await(victim.watch, {:peer_down, "mallory"})
      Victim.assert_well(victim, memory_bytes: 96 * 1024 * 1024)
    end

    @tag rows: [77]
    test "and calls from more processes than it may is told so" do
      victim = Victim.start(neighbours: false, limits: [callers_max: 50])
      report = Victim.attack(victim, "many-callers", count: 200)
      assert %{"link" => "alive", "replies" => 50, "errors" => %{"overload" => 150}} = report
      assert length(Victim.told(victim)) == 50
      assert %{callers_over_limit: 150} = Victim.counted(victim)
      Victim.assert_well(victim)
    end

    @tag rows: [77, 115]
    test "and announces engines without end has as many as it may" do
      count = many(20_000, 1_000_000)
      victim = Victim.start(limits: [engines_max: 1_000])
      assert %{"link" => "alive"} = Victim.attack(victim, "many-engines", count: count)
      # Two more, first, are its own.
      assert %{engines_over_limit: over} = Victim.counted(victim)
      assert over == count + 2 - 1_000
      until(Enum.all?(Legation.engines(victim.alice), &(&1.realm != "mallory")))
      Victim.assert_well(victim)
    end

    @tag rows: [68]
    test "and sends what a filter refuses is told so, and its casts are dropped" do
      victim = Victim.start(mallory: [export: ["engine"], filter: {TestVM, :refuse}])
      assert %{"errors" => %{"filtered" => 1}, "replies" => 0} = Victim.attack(victim, "call")
      Victim.attack(victim, "none")
      assert Victim.told(victim) == []
      assert %{dropped_filtered: 1, calls_refused: 1} = Legation.counters(victim.alice)
      Victim.assert_well(victim)
    end
  end

  # What this process of the operating system has; the native library's part is nowhere else.
  defp own_bytes do
    [_, kib] = Regex.run(~r/VmRSS:\s+(\d+) kB/, File.read!("/proc/self/status"))
    String.to_integer(kib) * 1024
  end
end
