defmodule Legation.AttacksDialledTest do
  # The hostile one is dialled: alice knows the key of who is meant, and somebody else, or somebody else's, is there.
  use Legation.AttackCase

  @moduletag rows: [59]

  # Carol is who alice dials; her key is in the hostile peer's hands only where the test says so.
  defp dialled(attack, profile) do
    victim = Victim.start()
    {victim, dial(victim, attack, profile)}
  end

  defp dial(victim, attack, profile, opts \\ []) do
    keys = [profile: profile, key: key_file("carol"), network: network_key_file(), peer: public_key("alice")]
    path = if profile == :local, do: [unix: socket_path()], else: []
    {_port, said} = held = Hostile.hold(attack, keys ++ path ++ opts)
    Neighbours.attacked(victim.neighbours)

    address =
      case path do
        [] -> {:tcp, host: "127.0.0.1", port: said["port"], profile: profile}
        [unix: path] -> {:unix, path: path}
      end

    :ok = Legation.connect(peer("carol", connect: [address]), victim.alice)
    held
  end

  defp last_error(victim), do: Enum.find(Legation.peers(victim.alice), &(&1.realm == "carol")).last_error

  for profile <- [:tls, :plain] do
    test "who has the key that is meant is let in, so that these tests could fail (#{profile})" do
      {victim, held} = dialled("listen-properly", unquote(profile))
      await(victim.watch, {:peer_up, "carol"})
      Hostile.release(held)
      Victim.assert_well(victim)
    end

    for {attack, words, error} <- [
          {"listen-as-another", "has another key", ~r/other realm/},
          {"listen-forged", "can't sign", ~r/signature/},
          {"listen-reflecting", "says what was said to it", ~r/./},
          {"listen-other-version", "speaks another version", ~r/version/},
          {"listen-garbage", "says anything", ~r/./}
        ] do
      test "who #{words} is not taken for it, and the dialler is told why (#{profile})" do
        {victim, held} = dialled(unquote(attack), unquote(profile))
        await_dial_failures(victim.alice, "carol", 3)
        assert last_error(victim) =~ unquote(Macro.escape(error))
        assert %{"sent" => served} = tried(Hostile.release(held))
        assert served >= 2
        refute_received {:legation, _ref, {:peer_up, "carol", _info}}
        assert :ok = Legation.disconnect("carol", victim.alice)
        Victim.assert_well(victim)
      end
    end

    test "who says nothing is given up in time (#{profile})" do
      {victim, held} = dialled("listen-mute", unquote(profile))
      await_dial_failures(victim.alice, "carol")
      assert last_error(victim) =~ ~r/time|late|silent|answer/
      :ok = Legation.disconnect("carol", victim.alice)
      Hostile.release(held)
      Victim.assert_well(victim)
    end
  end

  # What lacks the network key: what it answers, how often alice has to have tried, and what she is told.
  @unproven ~r/has not shown our network key/
  @late ~r/took too long/
  @impostors [
    {"listen-other-network", [], 2, @unproven},
    {"listen-no-network", [], 1, @unproven},
    {"listen-answer-reflected", [], 1, ~r/has not shown our network key|took too long/},
    # The first one gets no answer, and the next ones that which it would have been.
    {"listen-answer-recorded", [], 2, @unproven},
    {"listen-answer-garbage", [byte: 100_000], 2, @unproven},
    {"listen-answer-long", [byte: 4_096], 1, @unproven},
    {"listen-answer-long", [byte: 4_097], 1, @unproven},
    {"listen-answer-cut", [byte: 33], 1, @late},
    {"listen-silent", [], 1, @late}
  ]

  for profile <- [:tls, :plain, :local] do
    test "who lacks the network key hears nothing of who dials, whatever it answers (#{profile})" do
      victim = Victim.start(limits: [handshake_ms: 1_000])

      for {attack, opts, failures, error} <- @impostors do
        held = dial(victim, attack, unquote(profile), opts)
        await_dial_failures(victim.alice, "carol", failures)
        until(last_error(victim) =~ error)
        assert :ok = Legation.disconnect("carol", victim.alice)
        assert %{"behind" => 0, "sent" => served} = tried(Hostile.release(held))
        # Who is late may be so before it has taken the connection.
        assert served >= failures or error == @late
      end

      # Of each but those that were too late.
      assert Legation.counters(victim.alice).answers_refused >= 8
      refute_received {:legation, _ref, {:peer_up, "carol", _info}}
      Victim.assert_well(victim)
    end
  end

  # Whoever is heard says so: the same program, with the key.
  test "who has it does hear, so that these tests could fail" do
    {victim, held} = dialled("listen-forged", :tls)
    await_dial_failures(victim.alice, "carol", 2)
    assert :ok = Legation.disconnect("carol", victim.alice)
    assert %{"behind" => heard} = Hostile.release(held)
    assert heard > 300
  end
end
