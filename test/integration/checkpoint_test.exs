defmodule Legation.CheckpointTest do
  # Messages that are delivered before they are signed for: on real links, between realms that want it so, and against one that was
  # trusted to sign later.
  use Legation.Case, async: false

  alias Legation.{Cable, Hostile, Victim}

  @checkpoint [signing: :checkpoint, accept_signing: [:engine, :checkpoint]]

  setup_all do
    Hostile.build!()
    :ok
  end

  # Bob dials alice, who has an engine that echoes; so has bob.
  defp realms(carrier, opts) do
    alice = start_realm("alice", Keyword.get(opts, :alice, @checkpoint))
    bob = start_realm("bob", Keyword.get(opts, :bob, @checkpoint))
    link(alice, bob, carrier, Keyword.take(opts, [:through]))
    {:ok, echo} = Echo.start_link(owner: self())
    {:ok, other} = Echo.start_link(owner: self())
    proxy = publish(alice, "echo", echo, [bob])
    back = publish(bob, "other", other, [alice])
    %{alice: alice, bob: bob, proxy: proxy, back: back, watch: watch(alice), watch_bob: watch(bob)}
  end

  defp proven?(instance, realm) do
    counters = Legation.counters(instance).sessions[realm]
    counters.checkpoints_in > 0 and counters.unproven_now == 0
  end

  defp signing(instance), do: for(%{signing: mode} <- Legation.peers(instance), do: mode)

  for carrier <- [:tcp_tls, :unix] do
    test "calls and casts cross without a signature each, and are proven though nothing follows (#{carrier})" do
      # Seldom enough that a slow machine does not sign for each call, either.
      seldom = [bob: @checkpoint ++ [limits: [checkpoint_ms: 100]]]

      %{alice: alice, bob: bob, proxy: proxy, back: back, watch: watch, watch_bob: watch_bob} =
        realms(unquote(carrier), seldom)

      assert {signing(alice), signing(bob)} == {[:checkpoint], [:checkpoint]}
      before = session_counter(bob, "alice", :signed)
      for n <- 1..500, do: assert(GenServer.call(proxy, {:echo, n}) == n)
      GenServer.cast(proxy, :last)
      assert_receive {:cast, :last}
      # One in so many milliseconds, and not one for each.
      assert session_counter(bob, "alice", :signed) - before < 400
      until(proven?(alice, "bob"))

      for n <- 1..100, do: assert(GenServer.call(back, {:echo, n}) == n)
      until(proven?(bob, "alice"))
      assert session_counter(alice, "bob", :mode_refused) == 0
      refute_received {:legation, _ref, {:peer_down, _realm, _reason}}

      # A goodbye leaves nothing unproven behind.
      GenServer.cast(proxy, :before_goodbye)
      assert_receive {:cast, :before_goodbye}
      :ok = Legation.disconnect("alice", bob)
      await(watch, {:peer_down, "bob"})
      await(watch_bob, {:peer_down, "alice"})
      refute_received {:legation, _ref, {:unproven, _realm, _first, _last}}
      assert Legation.counters(alice).ended["bob"].unproven == 0
    end
  end

  test "over a channel that is plain, and with a peer that does not want it, everything is signed for at once" do
    for {carrier, alice_opts} <- [tcp_plain: @checkpoint, tcp_tls: []] do
      %{alice: alice, bob: bob, proxy: proxy} = realms(carrier, alice: alice_opts)
      assert signing(bob) == [:engine]
      for n <- 1..10, do: assert(GenServer.call(proxy, {:echo, n}) == n)
      assert session_counter(bob, "alice", :checkpoints_out) == 0
      assert session_counter(alice, "bob", :mode_refused) == 0
      stop_realm(alice)
      stop_realm(bob)
    end
  end

  test "what was not proven when a link broke is proven on the next, once" do
    cable = Cable.start()
    %{alice: alice, proxy: proxy, watch: watch, watch_bob: watch_bob} = realms(:tcp_tls, through: cable)

    for round <- 1..10 do
      for n <- 1..50, do: GenServer.cast(proxy, {round, n})
      assert_receive {:cast, {^round, 1}}
      Cable.cut(cable)
      await(watch_bob, {:peer_resumed, "alice"})
      for n <- 2..50, do: assert_receive({:cast, {^round, ^n}})
    end

    assert GenServer.call(proxy, {:echo, :end}) == :end
    until(proven?(alice, "bob"))
    refute_received {:cast, _again}
    refute_received {:legation, _ref, {:unproven, _realm, _first, _last}}
    refute_received {:legation, _ref, {:peer_down, _realm, _reason}}
    unwatch(watch)
    assert session_counter(alice, "bob", :bad_signature) == 0
  end

  describe "a peer that was trusted to sign later" do
    defp trusting(opts \\ []), do: Victim.start([alice: [accept_signing: [:engine, :checkpoint]]] ++ opts)

    for profile <- [:tls, :local] do
      test "and does is like any other (#{profile})" do
        victim = trusting()
        assert %{"link" => "alive", "sent" => 2} = Victim.attack(victim, "proven", profile: unquote(profile))
        assert Victim.told(victim) == [cast: "on trust 1", cast: "on trust 2"]

        assert %{checkpoints_in: 1, unproven: 0, messages_in: 2} = Victim.counted(victim)
        refute_received {:legation, _ref, {:unproven, _realm, _first, _last}}
        Victim.assert_well(victim)
      end
    end

    # What there was to hear of it up to its end, in order.
    defp heard(ref) do
      assert_receive {:legation, ^ref, event}

      case event do
        {:peer_down, "mallory", _reason} -> [event]
        {:unproven, _realm, _first, _last} -> [event | heard(ref)]
        _other -> heard(ref)
      end
    end

    for {attack, limits} <- [{"unproven", [checkpoint_patience_ms: 200]}, {"wrongly-proven", []}] do
      test "and is #{attack} is let go, and whose messages were delivered is known before its end is" do
        victim = trusting(limits: unquote(limits))
        %{watch: %{ref: ref}} = victim
        assert %{"link" => "closed:unproven"} = Victim.attack(victim, unquote(attack))
        assert Victim.told(victim) == [cast: "on trust 1", cast: "on trust 2"]
        assert [{:unproven, "mallory", first, last}, {:peer_down, "mallory", reason}] = heard(ref)
        assert last == first + 1
        assert {:fault, :unproven, text} = reason
        assert text =~ "not proven"
        assert Legation.Error.message(reason) =~ "not proven"
        assert %{unproven: 2, checkpoints_in: 0} = Legation.counters(victim.alice).ended["mallory"]
        Victim.assert_well(victim)
      end
    end

    test "and sends more than may wait is let go with the first message too many" do
      victim = trusting(limits: [unproven_messages_max: 1])
      assert %{"link" => "closed:unproven"} = Victim.attack(victim, "unproven")
      assert Victim.told(victim) == [cast: "on trust 1"]
      assert %{unproven: 1} = Victim.counted(victim)
      Victim.assert_well(victim)
    end
  end

  test "a peer that was not trusted to sign later is not heard" do
    for {alice, profile} <- [{[], :tls}, {[accept_signing: [:engine, :checkpoint]], :plain}] do
      victim = Victim.start(alice: alice)
      assert %{"link" => "alive"} = Victim.attack(victim, "proven", profile: profile)
      assert Victim.told(victim) == []
      # Two batches, and what was to prove them.
      assert %{mode_refused: 3, messages_in: 0, unproven: 0} = Victim.counted(victim)
      refute_received {:legation, _ref, {:unproven, _realm, _first, _last}}
      Victim.assert_well(victim)
      stop_realm(victim.alice)
      stop_realm(victim.bob)
    end
  end
end
