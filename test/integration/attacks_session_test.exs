defmodule Legation.AttacksSessionTest do
  # A listed peer with a good key that turns hostile once its session is up. Not async: processes, atoms and nodes are counted.
  use Legation.AttackCase

  alias Legation.Native

  defp counted(victim, names), do: victim |> Victim.counted() |> Map.take(names)

  describe "batches" do
    for profile <- [:tls, :plain, :local] do
      @tag rows: [57, 58]
      test "a tampered one is dropped and counted, and those around it arrive (#{profile})" do
        victim = Victim.start()
        report = Victim.attack(victim, "tampered-batch", profile: unquote(profile))
        assert %{"sent" => 3, "link" => "alive"} = report
        assert Victim.told(victim) == [cast: "good 1", cast: "good 2"]
        assert counted(victim, [:bad_signature, :messages_in]) == %{bad_signature: 1, messages_in: 2}
        Victim.assert_well(victim)
      end
    end

    @tag rows: [58]
    test "nine tampered ones within the minute leave the link alive and the tenth closes it" do
      victim = Victim.start()
      assert %{"link" => "closed:abuse"} = Victim.attack(victim, "ten-tampered")
      assert Victim.told(victim) == []
      assert counted(victim, [:bad_signature, :messages_in]) == %{bad_signature: 10, messages_in: 0}
      Victim.assert_well(victim)
    end

    @tag rows: [58]
    test "how many may be bad is a setting: of eleven ten are not too many" do
      victim = Victim.start(limits: [failures_max: 11])
      assert %{"link" => "alive"} = Victim.attack(victim, "ten-tampered")
      assert counted(victim, [:bad_signature]) == %{bad_signature: 10}
      Victim.assert_well(victim)
    end

    @tag rows: [60, 104]
    test "one that is sent twice is delivered once" do
      victim = Victim.start()
      assert %{"link" => "alive"} = Victim.attack(victim, "replayed-batch")
      assert Victim.told(victim) == [cast: "once"]
      assert counted(victim, [:duplicate, :messages_in]) == %{duplicate: 2, messages_in: 1}
      Victim.assert_well(victim)
    end

    @tag rows: [60, 104]
    test "one of another session is not delivered" do
      victim = Victim.start()
      assert %{"link" => "alive", "sent" => 1} = Victim.attack(victim, "other-session")
      assert Victim.told(victim) == []
      await(victim.watch, {:peer_down, "mallory"})

      assert counted(victim, [:stale_session, :messages_in, :sessions]) == %{
               stale_session: 1,
               messages_in: 0,
               sessions: 2
             }

      Victim.assert_well(victim)
    end

    @tag rows: [105]
    test "one engine's is not taken for another's" do
      victim = Victim.start()
      assert %{"link" => "alive", "sent" => 2} = Victim.attack(victim, "rewrapped")
      assert Victim.told(victim) == []
      assert counted(victim, [:bad_signature, :messages_in]) == %{bad_signature: 2, messages_in: 0}
      Victim.assert_well(victim)
    end

    @tag rows: [57, 105]
    test "an engine that signs for itself is never spoken for by its realm" do
      victim = Victim.start()
      assert %{"link" => "alive", "replies" => 0} = Victim.attack(victim, "spoken-for")
      assert Victim.told(victim) == [cast: "one", cast: "two", cast: "three", cast: "four"]

      assert counted(victim, [:not_delegated, :bad_signature, :mode_refused]) == %{
               not_delegated: 3,
               bad_signature: 0,
               mode_refused: 0
             }

      Victim.assert_well(victim)
    end

    @tag rows: [57]
    test "one that the realm signs is not taken from a peer of which that is not said, and ten close the link" do
      victim = Victim.start(mallory: [export: ["engine", "count"], accept_signing: [:engine]])
      assert %{"link" => "closed:abuse"} = Victim.attack(victim, "delegated", count: 10)
      assert Victim.told(victim) == []
      assert counted(victim, [:mode_refused, :messages_in]) == %{mode_refused: 10, messages_in: 0}
      Victim.assert_well(victim)
    end

    @tag rows: [105]
    test "none is spliced or reordered" do
      victim = Victim.start()
      assert %{"link" => "alive", "sent" => 2} = Victim.attack(victim, "spliced")
      assert Victim.told(victim) == []
      assert counted(victim, [:bad_signature, :messages_in]) == %{bad_signature: 2, messages_in: 0}
      Victim.assert_well(victim)
    end

    @tag rows: [105, 120]
    test "a gap in the sequence closes the link" do
      victim = Victim.start()
      assert %{"link" => "closed:protocol"} = Victim.attack(victim, "gap")
      assert Victim.told(victim) == []
      assert counted(victim, [:messages_in]) == %{messages_in: 0}
      Victim.assert_well(victim)
    end
  end

  describe "targets" do
    @tag rows: [66, 106]
    test "nothing that isn't exported can be reached, whatever its name" do
      victim = Victim.start()
      report = Victim.attack(victim, "reserved-targets")
      # Each by cast, send and call.
      calls = div(report["sent"], 3)
      assert calls >= 15
      assert %{"link" => "alive", "replies" => 0, "errors" => %{"noproc" => ^calls}} = report
      assert Victim.told(victim) == []
      assert %{dropped_noproc: dropped, calls_refused: ^calls} = Legation.counters(victim.alice)
      assert dropped == 2 * calls
      Victim.assert_well(victim)
    end

    @tag rows: [66]
    test "an engine that is exported to others only looks like one that isn't there" do
      victim = Victim.start()
      assert %{"link" => "alive"} = Victim.attack(victim, "none", engine: "private")
      assert %{"errors" => %{"noproc" => 1}} = Victim.attack(victim, "call", engine: "private")
      assert %{"errors" => %{"noproc" => 1}} = Victim.attack(victim, "call", engine: "nowhere")
      assert Victim.told(victim) == []
      assert %{dropped_noproc: 1, calls_refused: 2} = Legation.counters(victim.alice)
      Victim.assert_well(victim)
    end

    @tag rows: [67]
    test "what policy forbids does not happen" do
      victim = Victim.start(mallory: [export: :all, allow: [:send]])
      assert %{"errors" => %{"forbidden" => 1}, "replies" => 0} = Victim.attack(victim, "call")
      Victim.attack(victim, "none")
      assert Victim.told(victim) == []
      assert %{dropped_forbidden: 1, calls_refused: 1} = Legation.counters(victim.alice)
      Victim.assert_well(victim)
    end

    @tag rows: [67]
    test "nobody is killed by who may send exits" do
      victim = Victim.start(mallory: [export: ["engine"], allow: [:cast, :exit]])
      assert %{"link" => "alive"} = Victim.attack(victim, "kill")

      # The daemon lets none of it through; embedded it is an exit signal like any other.
      if transport(victim.alice) == :c_node,
        do: until(match?(%{exits_refused: 1}, Legation.counters(victim.alice))),
        else: assert_receive({:told, {:info, {:EXIT, _stand_in, :killed}}}, 20_000)

      Victim.attack(victim, "none")
      assert Victim.told(victim) == [cast: "hello"]
      Victim.assert_well(victim)
    end

    test "what is exported and allowed arrives, so that these tests could fail" do
      victim = Victim.start()
      assert %{"replies" => 1, "errors" => errors} = Victim.attack(victim, "call")
      assert errors == %{}
      Victim.attack(victim, "none")
      assert Victim.told(victim) == [call: "hello", cast: "hello"]
    end
  end

  describe "messages" do
    @tag rows: [107]
    test "in disguise are dropped and counted, and reach no engine" do
      victim = Victim.start()
      report = Victim.attack(victim, "disguised-sends", node: node())
      assert report["link"] == "alive"
      assert report["sent"] > 15
      assert Victim.told(victim) == []
      counted = Victim.counted(victim)
      # A real reference does not even come that far.
      assert counted.disguised + counted.identifiers == report["sent"]
      assert counted.disguised > 15
      Victim.assert_well(victim)
    end

    @tag rows: [69, 112]
    test "with a hundred thousand new atoms make none" do
      # Mallory does as if there were no credit.
      victim = Victim.start(limits: [credit_bytes: 0])
      # Once, so that all code is loaded.
      Victim.attack(victim, "new-atoms", count: 10)
      await(victim.watch, {:peer_down, "mallory"})
      Victim.assert_well(victim)
      atoms = :erlang.system_info(:atom_count)
      report = Victim.attack(victim, "new-atoms", count: 100_000)
      Victim.assert_no_atoms(report, 100_000, transport(victim.alice))
      counted = Victim.counted(victim)
      assert :erlang.system_info(:atom_count) == atoms
      assert Victim.told(victim) == []
      # 5 and 5 were of the first run.
      if transport(victim.alice) == :embedded, do: assert(counted.undecodable == 100_010)
      Victim.assert_well(victim)
    end

    @tag rows: [70, 112, 114]
    test "with identifiers are refused, and no node becomes known" do
      victim = Victim.start()
      # Once, so that all code is loaded.
      %{"sent" => before} = Victim.attack(victim, "pids", node: node())
      assert Victim.counted(victim).identifiers == before
      Victim.assert_well(victim)
      known = Node.list(:known)
      atoms = :erlang.system_info(:atom_count)
      report = Victim.attack(victim, "pids", node: node())
      calls = div(report["sent"], 3)
      assert %{"link" => "alive", "replies" => 0, "errors" => %{"identifiers" => ^calls}} = report
      counted = Victim.counted(victim)
      assert Victim.told(victim) == []
      assert counted.identifiers == before + report["sent"]
      # Of those before, some may be forgotten meanwhile.
      assert Node.list(:known) -- known == []
      assert :erlang.system_info(:atom_count) == atoms
      Victim.assert_well(victim)
    end

    @tag rows: [71, 72, 113]
    test "that are no terms are refused before anything is allocated for them" do
      victim = Victim.start()
      memory = :erlang.memory(:total)
      report = Victim.attack(victim, "bad-terms")
      calls = div(report["sent"], 3)
      assert %{"link" => "alive", "replies" => 0, "errors" => %{"undecodable" => ^calls}} = report
      counted = Victim.counted(victim)
      assert Victim.told(victim) == []
      assert counted.bad_term == report["sent"]
      # Some of these claim 4 GiB.
      assert :erlang.memory(:total) - memory < 64 * 1024 * 1024
      Victim.assert_well(victim)
    end
  end

  describe "announcements" do
    @tag rows: [63, 115]
    test "of names that aren't its own are refused, and nothing has changed" do
      victim = Victim.start()
      before = for engine <- Legation.engines(victim.alice), do: Map.take(engine, [:name, :pid, :local])
      assert %{"sent" => 4, "link" => "alive"} = Victim.attack(victim, "theft")
      assert counted(victim, [:bad_announcement]) == %{bad_announcement: 4}
      assert for(engine <- Legation.engines(victim.alice), do: Map.take(engine, [:name, :pid, :local])) == before
      assert Legation.whereis("engine@alice", victim.alice) == victim.engine
      Victim.assert_well(victim)
    end

    for {past, max} <- [{"at the limit", 100}, {"one past it", 99}] do
      @tag rows: [77, 115]
      test "are bounded: #{past} (#{max} of 100)" do
        # Two engines are always announced.
        victim = Victim.start(limits: [engines_max: unquote(max) + 2])
        assert %{"link" => "alive"} = Victim.attack(victim, "many-engines", count: 100)
        assert counted(victim, [:engines_over_limit]) == %{engines_over_limit: 100 - unquote(max)}
        Victim.assert_well(victim)
      end
    end

    @tag rows: [77, 115]
    test "by the ten thousand past the bound cost nothing" do
      victim = Victim.start(limits: [engines_max: 10])
      processes = length(Process.list())
      assert %{"link" => "alive"} = Victim.attack(victim, "many-engines", count: 10_000)
      assert counted(victim, [:engines_over_limit]) == %{engines_over_limit: 9_992}
      until(length(Process.list()) <= processes)
      assert for(%{realm: "mallory"} = engine <- Legation.engines(victim.alice), do: engine) == []
      Victim.assert_well(victim)
    end
  end

  describe "frames" do
    @tag rows: [111]
    test "of unknown types are skipped, and close the link when they are critical" do
      victim = Victim.start()
      report = Victim.attack(victim, "unknown-frames")
      assert %{"uncritical" => "alive", "link" => "closed:unknown_frame"} = report
      assert counted(victim, [:skipped_frames]) == %{skipped_frames: report["sent"] - 1}
      Victim.assert_well(victim)
    end

    for profile <- [:tls, :plain, :local] do
      @tag rows: [110, 111, 120]
      test "of garbage harm their own link only (#{profile})" do
        victim = Victim.start()

        for seed <- 1..20 do
          report = Victim.attack(victim, "garbage", seed: seed, count: 50, profile: unquote(profile))

          # Somebody is there who says what is wrong, or has nothing to say against it.
          assert report["link"] == "alive" or
                   report["link"] =~ ~r/^closed:(protocol|unknown_frame|too_large|abuse|version|normal)$/

          await(victim.watch, {:peer_down, "mallory"})
        end

        assert Victim.told(victim) == []
        assert Legation.counters(victim.alice).ended["mallory"].messages_in == 0
        Victim.assert_well(victim)
      end
    end
  end

  test "the counters of a session that is over are added to those before it, and gauges are not" do
    victim = Victim.start()
    for _ <- 1..2, do: Victim.attack(victim, "none") && await(victim.watch, {:peer_down, "mallory"})
    assert %{sessions: 2, messages_in: 2} = ended = Legation.counters(victim.alice).ended["mallory"]
    refute is_map_key(ended, :rtt_ms)
    assert is_binary(Native.blake3("alive"))
  end
end
