defmodule Legation.AttacksLatencyScenarios do
  # Rows 109, 116 and 117: what calls of an honest peer take under an attack is under twice what they take in quiet. Run by scripts/attack: it says something
  # only of a machine that does nothing else.
  #
  # Quiet and attack take turns, so that what else the machine does meets both; a pair of turns is one comparison, and what counts is the one in
  # the middle of all. The hostile peer has the lowest priority of the operating system: on a network it would have a processor of its own.
  use Legation.AttackCase

  @moduletag timeout: 600_000

  # By default one address would soon be turned away, and with it the attack.
  @all_let_in [failed_handshakes_per_s: 100_000, handshakes_max: 10_000, pending_connections_max: 10_000]
  @rounds 7
  @calls 400

  @tag rows: [117]
  test "connections by the thousands that never become links" do
    victim = Victim.start()
    judge(victim, fn -> holding(victim, "half-open", count: 10_000) end)
  end

  @tag rows: [117]
  test "connections that say a byte now and then" do
    victim = Victim.start()
    judge(victim, fn -> holding(victim, "slow-loris", count: 1_000) end)
  end

  @tag rows: [109]
  test "handshakes that are cut at every byte" do
    victim = Victim.start(limits: @all_let_in)
    judge(victim, fn -> again_and_again(victim, "cut-everywhere") end)
  end

  @tag rows: [109]
  test "handshakes that stall at every byte" do
    victim = Victim.start(limits: @all_let_in ++ [handshake_ms: 1_000])
    judge(victim, fn -> again_and_again(victim, "stall-everywhere") end)
  end

  @tag rows: [116]
  test "a reader that takes nothing of what it is sent" do
    victim = Victim.start()

    judge(victim, fn ->
      stop = holding(victim, "stalled-reader", [])
      await_engine(victim.alice, "e1@mallory")
      name = via(victim.alice, "e1@mallory")
      piece = :binary.copy("x", 64 * 1024)
      feeder = spawn_link(fn -> feed(name, piece) end)

      fn ->
        Process.unlink(feeder)
        Process.exit(feeder, :kill)
        stop.()
        await(victim.watch, {:peer_down, "mallory"})
      end
    end)
  end

  defp feed(name, piece) do
    for _ <- 1..16, do: GenServer.cast(name, piece)

    receive do
    after
      5 -> feed(name, piece)
    end
  end

  # Begins; what is returned ends it.
  defp holding(victim, attack, opts) do
    held = Victim.hold(victim, attack, opts)
    fn -> Hostile.release(held) end
  end

  defp again_and_again(victim, attack) do
    task = Task.async(fn -> attack_on(victim, attack) end)

    fn ->
      send(task.pid, :enough)
      Task.await(task, 120_000)
    end
  end

  defp attack_on(victim, attack) do
    Victim.attack(victim, attack)

    receive do
      :enough -> :ok
    after
      0 -> attack_on(victim, attack)
    end
  end

  defp judge(victim, begin) do
    rounds =
      for _ <- 1..@rounds do
        quiet = Neighbours.sample(victim.neighbours, @calls)
        stop = begin.()
        attacked = Neighbours.sample(victim.neighbours, @calls)
        stop.()
        until(Victim.places(victim, :tls) == {0, 0})
        {Neighbours.p99(quiet), Neighbours.p99(attacked)}
      end

    {quiet, attacked} = rounds |> Enum.sort_by(fn {quiet, attacked} -> attacked / quiet end) |> Enum.at(div(@rounds, 2))
    judged(transport(victim.alice), quiet, attacked)
    assert attacked < 2 * quiet, "p99 #{attacked} µs under attack, #{quiet} µs in quiet; all rounds: #{inspect(rounds)}"
  end
end
