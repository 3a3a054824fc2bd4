defmodule Legation.ChaosCheckerTest do
  # What `make chaos` stands on: a checker that finds nothing is only worth something if it finds what is there. A good run is
  # written down here, and each test has something happen to it that must not.
  use ExUnit.Case, async: true

  alias Legation.Chaos.{Checker, Journal, Plan, Recovery}

  # bob's b1 sends to an engine of alice's on a1, over two sessions; the first has ended by an outage, and took 12 to 14 along, of which two had been sent and
  # one was called. A second sender is on b2, and killed.
  @sender """
  sender b1.1.0.1.accepted b1 one@alice accepted
  b 0 9 P1 100
  k 0 8
  e 9
  r 9 ok P1 3
  b 10 19 P1 200
  k 10 13
  g 10
  b 20 29 P2 400
  k 20 28
  r 29 timeout P2 1000
  b 30 39 P2 500
  e 29
  k 30 38
  r 39 ok P2 2
  e 39
  b 40 49 P2 600
  k 40 48
  e 49
  r 49 ok P2 2
  end
  """
  @killed """
  sender b2.1.0.1.global b2 one@alice global
  b 0 9 P9 110
  e 9
  r 9 ok P9 4
  b 10 19 P9 130
  """
  @engine """
  engine a1.1.one a1 one 50
  d b1.1.0.1.accepted 0 9
  d b2.1.0.1.global 0 9
  d b1.1.0.1.accepted 10 11
  d b2.1.0.1.global 10 14
  d b1.1.0.1.accepted 20 29
  d b1.1.0.1.accepted 30 49
  """
  @watch """
  watch b1.1.one@alice b1 one@alice
  m 1 P1
  d 1 :noconnection 310
  m 2 P2
  d 2 :killed 700
  end
  """
  @owner """
  owner b1.1 b1 60
  up 70
  learned one@alice P1 71
  lost 210
  gap 2 305
  down 306
  up 390
  learned one@alice P2 391
  lost 450
  resumed 455
  """
  @chaos """
  chaos chaos
  did [{:stall,0,[:a],4000}] 205
  episode stall 205 380 395
  did [{:kill,"b2",0}] 640
  killed b2 640
  episode kill 640 660 680
  episode cut 440 452 460
  episode reset 440 458 460
  end
  """
  @good [sender: @sender, killed: @killed, engine: @engine, watch: @watch, owner: @owner, chaos: @chaos]

  defp check(journals) do
    journals |> parse() |> Checker.check()
  end

  defp parse(journals) do
    for {_name, text} <- journals, {:ok, journal} <- [Journal.parse(text)], do: journal
  end

  # In one journal something stands in the place of something else; what the checker says to that.
  defp with_change(which, from, to) do
    assert @good[which] =~ from
    changed = Keyword.update!(@good, which, &String.replace(&1, from, to, global: false))
    changed |> check() |> Map.fetch!(:violations) |> Enum.map(&elem(&1, 0)) |> Enum.uniq()
  end

  test "a run in which all was as it should be has nothing to it, and its figures are those of its journals" do
    assert %{violations: [], figures: figures} = check(@good)

    assert %{
             sent: 70,
             delivered: 57,
             calls: 7,
             answered: 4,
             told: 5,
             fired: 2,
             sessions: 2,
             lost: 2,
             resumed: 1,
             gap: 2
           } = figures
  end

  test "what was delivered twice is found, in one process of the engine and in two" do
    assert with_change(:engine, "accepted 20 29", "accepted 20 29\nd b1.1.0.1.accepted 25 25") == [:twice]
    again = [again: "engine a1.2.one a1 one 900\nd b1.1.0.1.accepted 49 49\n"]
    assert [{:twice, _}] = check(@good ++ again).violations
  end

  test "what came in another order is found" do
    swapped = "d b1.1.0.1.accepted 31 31\nd b1.1.0.1.accepted 30 30\nd b1.1.0.1.accepted 32 49"
    assert with_change(:engine, "d b1.1.0.1.accepted 30 49", swapped) == [:order]
    late = "engine a1.2.one a1 one 900\nd b1.1.0.1.accepted 8 9\n"
    journals = Keyword.update!(@good, :engine, &String.replace(&1, "accepted 0 9", "accepted 0 7")) ++ [late: late]
    assert :order in Enum.map(check(journals).violations, &elem(&1, 0))
  end

  test "what is missing in a session that went on is found, even if it is one message" do
    assert with_change(:engine, "accepted 30 49", "accepted 30 36\nd b1.1.0.1.accepted 38 49") == [:lost]
    # Before a call that took too long, and after which another was answered.
    assert with_change(:engine, "accepted 20 29", "accepted 22 29") == [:lost]
  end

  test "a call that was answered and never came is found" do
    assert :lost in with_change(:engine, "d b2.1.0.1.global 0 9", "d b2.1.0.1.global 0 8")
  end

  test "what a session's end has lost beyond what its owner was told is found" do
    assert with_change(:owner, "gap 2 305\n", "gap 1 305\n") == [:untold]
    assert with_change(:owner, "gap 2 305\n", "") == [:untold]
  end

  test "and is not held against anybody if a process was killed in that session" do
    journals = Keyword.update!(@good, :chaos, &String.replace(&1, "end\n", "killed a2 300\nend\n"))
    assert check(Keyword.update!(journals, :owner, &String.replace(&1, "gap 2 305\n", ""))).violations == []
  end

  test "what nobody has sent is found, and what came to another engine, and what its engine did not recognise" do
    assert with_change(:engine, "accepted 30 49", "accepted 30 52") == [:wrong]
    assert with_change(:engine, "d b2.1.0.1.global 10 14", "d nobody 10 14") == [:wrong]
    assert :wrong in with_change(:engine, "a1 one 50", "a1 two 50")

    assert with_change(
             :engine,
             "d b1.1.0.1.accepted 20 29",
             "w b1.1.0.1.accepted 19 {:cast,_:x}\nd b1.1.0.1.accepted 20 29"
           ) == [:wrong]

    assert with_change(:sender, "r 39 ok P2 2", "r 39 wrong P2 2") == [:wrong]
  end

  test "a call that has not ended is found, and one that has ended as none may; not that of who was killed" do
    assert with_change(:sender, "r 29 timeout P2 1000\n", "") == [:call]
    assert with_change(:sender, "r 49 ok P2 2\n", "") == [:call]
    assert with_change(:sender, "r 29 timeout P2 1000", "r 29 exit:{:badarg,_[]} P2 1000") == [:call]
    assert with_change(:sender, "r 29 timeout P2 1000", "r 29 refused::forbidden P2 1000") == [:call]
  end

  test "a sender or watcher that has stopped and was not killed is found" do
    assert with_change(:sender, "\nend\n", "\n") == [:journal]
    assert :journal in with_change(:chaos, "killed b2 640\n", "")
    assert with_change(:watch, "d 2 :killed 700\nend\n", "") == [:monitor]
  end

  test "a monitor that has not fired is found, and one that has twice, and one that was none" do
    assert with_change(:watch, "d 1 :noconnection 310\n", "") == [:monitor]
    assert with_change(:watch, "d 2 :killed 700\n", "") == [:monitor]
    assert with_change(:watch, "d 1 :noconnection 310\n", "d 1 :noconnection 310\nd 1 :noproc 311\n") == [:monitor]
    assert with_change(:watch, "m 1 P1\n", "") == [:monitor]
  end

  test "what the engine tells the caller's pid is found when it comes twice, out of order, of nothing, or not at all" do
    assert with_change(:sender, "e 39\n", "e 39\ne 39\n") == [:twice]
    assert :order in with_change(:sender, "e 29\n", "e 39\ne 29\n")
    assert :wrong in with_change(:sender, "e 29\n", "e 28\n")
    assert with_change(:sender, "e 39\n", "") == [:lost]
  end

  test "what nobody should have got is found" do
    assert with_change(:sender, "e 39\n", "e 39\nx {:DOWN,_1}\n") == [:stray]
    assert with_change(:watch, "m 2 P2\n", "m 2 P2\nx {:DOWN,_1}\n") == [:stray]
  end

  test "an entry that was cut off by a kill is none, nor is a journal without a whole line" do
    assert {:ok, {"engine", ["a", "b"], [["d", "s", "1", "2"]]}} = Journal.parse("engine a b\nd s 1 2\nd s 3")
    assert Journal.parse("engine a") == :empty
  end

  test "a link's recovery is from the mending to the last that had it back, and of one that was never gone there is none" do
    other = [alice: "owner a1.1 a1 60\nup 72\ndown 307\nup 385\n"]
    assert [stall, kill, cut, reset] = Recovery.of(parse(@good ++ other))
    assert %{what: "stall", kind: :link, us: 10} = stall
    assert %{kind: :kill, us: nil} = kill
    assert %{kind: :link, us: 3} = cut
    # Nothing was broken: from the loss on.
    assert %{kind: :link, us: 5} = reset
    assert Recovery.percentile([30, 10, 20], 50) == 20
    assert Recovery.percentile([], 50) == nil
  end

  test "a seed draws the same things again, and each victim is killed and stopped in turn" do
    draw = fn seed ->
      {episodes, _plan} =
        Enum.map_reduce(1..200, Plan.new(seed, [0, 1], ["a1", "b1", "b1/daemon"]), fn _n, plan -> Plan.draw(plan) end)

      episodes
    end

    assert draw.(7) == draw.(7)
    assert draw.(7) != draw.(8)
    faults = List.flatten(draw.(7))
    assert faults |> Enum.map(&elem(&1, 0)) |> Enum.uniq() |> Enum.sort() == [:cut, :kill, :reset, :slow, :stall, :stop]
    turns = for {kind, victim, _ms} <- faults, kind in [:kill, :stop], do: {kind, victim}
    counts = turns |> Enum.frequencies() |> Map.values()
    assert length(counts) == 6 and Enum.max(counts) - Enum.min(counts) <= 1
  end
end
