defmodule Legation.AttacksWireTest do
  # Bytes that a peer writes who has read the specification and keeps to it as far as it likes.
  use Legation.AttackCase

  @profiles [:tls, :plain, :local]

  # Each is answered on a link of its own; no other link and no session of anybody else's has anything of it.
  defp counted(victim, names), do: victim |> Victim.counted() |> Map.take(names)

  describe "a handshake" do
    for profile <- @profiles do
      @tag rows: [60, 103]
      test "that is replayed whole delivers nothing again (#{profile})" do
        victim = Victim.start()
        report = Victim.attack(victim, "replay-handshake", profile: unquote(profile))
        assert %{"first" => "alive", "link" => "closed-silently"} = report
        # Where there is no knock it is told that its hello is none, and nothing else.
        if unquote(profile) == :local, do: assert(report["bytes_back"] < 200), else: assert(report["bytes_back"] == 0)
        assert Victim.told(victim) == [cast: "recorded"]
        assert counted(victim, [:sessions, :messages_in]) == %{sessions: 1, messages_in: 1}
        Victim.assert_well(victim)
      end

      @tag rows: [59, 79, 111]
      test "has a defined answer to whatever is wrong with its hello (#{profile})" do
        victim = Victim.start(limits: [failed_handshakes_per_s: 1_000])
        report = Victim.attack(victim, "hellos", profile: unquote(profile))

        assert Map.delete(report, "sent") == %{
                 "as-it-should-be" => "alive",
                 "binding" => "closed:protocol",
                 "cut-short" => "closed:protocol",
                 "other-key" => "closed:wrong_realm",
                 "other-responder" => "closed:wrong_realm",
                 "own-realm" => "closed:wrong_realm",
                 "profile" => "closed:protocol",
                 "revocation-that-is-none" => "closed:bad_signature",
                 "role" => "closed:protocol",
                 "role-0" => "closed:protocol",
                 "rotations-17" => "closed:too_large",
                 "session-that-is-none" => "alive",
                 "signature" => "closed:bad_signature",
                 "too-large" => "closed:too_large",
                 "trailing" => "closed:protocol",
                 "unknown-critical-extension" => "closed:protocol",
                 "unknown-extension" => "alive",
                 "version-0" => "closed:version",
                 "version-backwards" => "closed:version",
                 "version-later" => "closed:version",
                 "version-range" => "alive",
                 "window-of-nothing" => "closed:protocol"
               }

        Victim.assert_well(victim)
      end
    end
  end

  describe "a signed cast that was recorded" do
    @tag rows: [60, 104]
    test "is delivered no second time: in another session, after a restart of its sender, after one of its receiver" do
      file = Path.join(dir(), "recorded-#{System.unique_integer([:positive])}")
      victim = Victim.start()
      assert %{"link" => "alive"} = Victim.attack(victim, "record", file: file)
      assert Victim.told(victim) == [cast: "recorded"]
      assert counted(victim, [:messages_in]) == %{messages_in: 1}

      # Each attack is another process with fresh keys for its engines.
      assert %{"link" => "alive"} = Victim.attack(victim, "replay", file: file, count: 3)
      await(victim.watch, {:peer_up, "mallory"})

      assert counted(victim, [:stale_session, :messages_in, :sessions]) == %{
               stale_session: 3,
               messages_in: 1,
               sessions: 2
             }

      assert Victim.told(victim) == []
      Victim.assert_well(victim)

      stop_realm(victim.alice)
      again = Victim.start()
      assert %{"link" => "alive"} = Victim.attack(again, "replay", file: file, count: 3)
      assert counted(again, [:stale_session, :messages_in]) == %{stale_session: 3, messages_in: 0}
      assert Victim.told(again) == []
      Victim.assert_well(again)
    end
  end

  describe "frames" do
    for profile <- @profiles do
      # 4,735 cases; LEGATION_ATTACK=long has all of them.
      @tag rows: [110], timeout: 600_000
      test "with numbers that can't be, at every place of every one, end their own link at most (#{profile})" do
        victim = Victim.start()
        report = Victim.attack(victim, "lengths", profile: unquote(profile), count: many(150, 0), seed: seed())
        assert %{"link" => "alive", "outcomes" => outcomes} = report
        assert defined?(outcomes), outcomes
        assert Victim.told(victim) == []
        Victim.assert_well(victim)
      end

      @tag rows: [120], timeout: 600_000
      test "that look as they should, in any order and of any content, end their own link at most (#{profile})" do
        victim = Victim.start()
        report = Victim.attack(victim, "plausible", profile: unquote(profile), count: many(300, 20_000), seed: seed())
        assert %{"link" => "alive", "outcomes" => outcomes} = report
        assert defined?(outcomes), outcomes
        assert Victim.told(victim) == []
        assert GenServer.call(via(victim.bob, "count@alice"), :get) == 0
        Victim.assert_well(victim)
      end

      @tag rows: [73, 117]
      test "of which every byte comes alone are as good as others (#{profile})" do
        victim = Victim.start()
        assert %{"link" => "alive"} = Victim.attack(victim, "one-byte", profile: unquote(profile), count: 20)
        assert Victim.told(victim) == for(number <- 0..19, do: {:cast, number})
        Victim.assert_well(victim)
      end
    end

    @tag rows: [111]
    test "have a defined answer to whatever is wrong with them" do
      victim = Victim.start()
      report = Victim.attack(victim, "malformed", profile: :local)
      {answers, %{"sent" => 54}} = Map.split(report, Map.keys(report) -- ["sent"])
      by_answer = answers |> Enum.sort() |> Enum.group_by(&elem(&1, 1), &elem(&1, 0))

      assert Map.delete(by_answer, "closed:protocol") == %{
               "alive" => ["nothing", "unknown-and-uncritical", "unknown-attribute", "unknown-kind"],
               "closed-silently" => ["unknown-close-code"],
               "closed:too_large" => [
                 "ack-too-large",
                 "batch-too-large",
                 "fragment-of-too-much",
                 "trailing-ack",
                 "trailing-ping",
                 "unknown-and-too-large"
               ],
               "closed:unknown_frame" => ["reserved-and-critical", "unknown-and-critical"]
             }

      assert length(by_answer["closed:protocol"]) == 41
      assert Victim.told(victim) == []
      Victim.assert_well(victim)
    end

    # Another one each time; it stands in the report of a failure.
    defp seed, do: System.unique_integer([:positive]) + System.os_time(:second)

    # Whoever sent it hears why it is over, and nobody hangs.
    defp defined?(outcomes) do
      known =
        ~w(protocol unknown_frame too_large abuse version normal bad_signature wrong_realm expired revoked stale_key)

      for outcome <- String.split(outcomes, ",") do
        [state, _count] = String.split(outcome, ":")
        state in ["alive", "closed-silently"] or String.replace_prefix(state, "closed-", "") in known
      end
      |> Enum.all?()
    end
  end

  describe "terms" do
    @tag rows: [71, 72, 113]
    test "that would be larger than they are, or deeper than they may be, are refused before anything is allocated" do
      # 0.4 MB is past a window.
      victim = Victim.start(limits: [credit_bytes: 0])
      zeros = :binary.copy(<<0>>, 10_000_000)
      compressed = :erlang.term_to_binary(zeros, compressed: 9)
      assert byte_size(compressed) * 900 < byte_size(zeros)

      terms = [
        compressed,
        :erlang.term_to_binary([zeros, zeros], compressed: 9),
        <<131, :binary.copy(<<104, 1>>, 200_000)::binary, 106>>,
        <<131, :binary.copy(<<108, 1::32>>, 200_000)::binary, 106>>,
        <<131, :binary.copy(<<116, 1::32, 106>>, 200_000)::binary, 106>>,
        <<131, 108, 0xFFFFFFFF::32>>,
        <<131, 105, 0xFFFFFFFF::32>>,
        <<131, 116, 0xFFFFFFFF::32>>,
        <<131, 109, 0xFFFFFFFF::32>>,
        <<131, 111, 0xFFFFFFFF::32, 0>>,
        <<131, 107, 0xFFFF::16>>,
        <<131, 118, 0xFFFF::16, "a">>,
        <<131, 111, 0x80000000::32, 0, 1>>,
        # Many of few bytes: refused where the first of them is looked at.
        <<131, 105, 16_777_215::32, :binary.copy(<<106>>, 100_000)::binary>>
      ]

      file = Path.join(dir(), "payloads-#{System.unique_integer([:positive])}")
      File.write!(file, for(term <- terms, do: [<<byte_size(term)::little-32>>, term]))
      count = length(terms)
      report = Victim.attack(victim, "payloads", file: file)
      assert %{"link" => "alive", "replies" => 0, "errors" => %{"undecodable" => ^count}} = report
      assert counted(victim, [:bad_term, :messages_in]) == %{bad_term: count, messages_in: count}
      assert Victim.told(victim) == []
      Victim.assert_well(victim)
    end
  end

  describe "keys and signatures" do
    @tag rows: [119]
    test "of small order, or in forms that aren't canonical, sign nothing" do
      victim = Victim.start()
      report = Victim.attack(victim, "weak-keys")
      assert %{"link" => "alive", "sent" => 29, "sessions" => 15, "alive" => 14} = report
      until(match?(%{bad_signature: 29}, Legation.counters(victim.alice).ended["mallory"]))
      assert Victim.told(victim) == []
      Victim.assert_well(victim)
    end
  end
end
