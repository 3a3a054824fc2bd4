defmodule Legation.AttacksDialledTest do
  # The hostile one is dialled: alice knows the key of who is meant, and somebody else, or somebody else's, is there.
  use Legation.AttackCase

  @moduletag rows: [59]

  # Carol is who alice dials; her key is in the hostile peer's hands only where the test says so.
  defp dialled(attack, profile) do
    victim = Victim.start()
    opts = [profile: profile, key: key_file("carol"), network: network_key_file(), peer: public_key("alice")]
    {_port, %{"port" => port}} = held = Hostile.hold(attack, opts)
    Neighbours.attacked(victim.neighbours)

    :ok =
      Legation.connect(peer("carol", connect: [{:tcp, host: "127.0.0.1", port: port, profile: profile}]), victim.alice)

    {victim, held}
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
end
