defmodule Legation.FlowTest do
  # Rows 34, 75, 76, 116: what a slow engine, a slow link and a long wait cost, and whom.
  use Legation.Case, async: true

  alias Legation.{Cable, Instance}

  @kilobyte :binary.copy("x", 1_000)

  # bob dials alice over a cable, and has two engines of hers.
  defp realms(opts \\ []) do
    limits = Keyword.get(opts, :limits, [])
    alice = start_realm("alice", limits: Keyword.get(opts, :alice, limits))
    bob = start_realm("bob", limits: limits)
    cable = Cable.start()
    link(alice, bob, :tcp_plain, through: cable)
    {:ok, slow} = Echo.start_link(owner: self())
    {:ok, quick} = Echo.start_link([])
    to_slow = publish(alice, "slow", slow, [bob])
    to_quick = publish(alice, "quick", quick, [bob])

    %{
      alice: alice,
      bob: bob,
      cable: cable,
      slow: slow,
      to_slow: to_slow,
      to_quick: to_quick,
      watch: watch(bob)
    }
  end

  # A call that is refused on its way out is answered behind everything before it.
  defp pushed(proxy), do: {:error, {:legation, _reason}} = GenServer.call(proxy, fn -> :no end)

  test "a stalled engine gets its window and no more, holds up nobody else, and in the end all that was sent to it" do
    limits = [credit_bytes: 20_000, message_bytes_max: 100_000]
    %{bob: bob, slow: slow, to_slow: to_slow, to_quick: to_quick} = realms(limits: limits)
    :sys.suspend(slow)
    for n <- 1..500, do: GenServer.cast(to_slow, {n, @kilobyte})
    pushed(to_slow)
    for n <- 1..200, do: assert(GenServer.call(to_quick, {:echo, n}) == n)
    # One may be over it, as it was let go before the window was full.
    assert {:message_queue_len, waiting} = Process.info(slow, :message_queue_len)
    assert waiting in 10..25
    assert session_counter(bob, "alice", :queue_bytes) > 400_000
    :sys.resume(slow)
    for n <- 1..500, do: assert_receive({:cast, {^n, @kilobyte}})
    until(session_counter(bob, "alice", :queue_bytes) == 0)
  end

  # Something waits for a stalled engine of alice's.
  defp waiting(limits) do
    # Nobody asks whether the other is there, by which what waits might be sent, too.
    limits = limits ++ [credit_bytes: 20_000, message_bytes_max: 100_000, ping_ms: 600_000]
    %{slow: slow, to_slow: to_slow} = realms = realms(limits: limits)
    :sys.suspend(slow)
    for n <- 1..100, do: GenServer.cast(to_slow, {n, @kilobyte})
    pushed(to_slow)
    realms
  end

  defp leave(goodbye_ms) do
    realms = waiting(goodbye_ms: goodbye_ms)
    :ok = Legation.disconnect("alice", realms.bob)
    realms
  end

  test "what waits for a stalled engine has a goodbye's time when its peer is left" do
    %{alice: alice, bob: bob, slow: slow} = leave(120_000)
    watch_alice = watch(alice)
    :sys.resume(slow)
    for n <- 1..100, do: assert_receive({:cast, {^n, @kilobyte}})
    # The goodbye is behind it.
    assert {:closed, :normal, _text} = await(watch_alice, {:peer_down, "bob"})
    assert Legation.counters(bob).goodbyes_cut == 0
  end

  @tag :embedded
  test "who loses the Directory says goodbye all the same" do
    %{alice: alice, bob: bob} = realms()
    watch_alice = watch(alice)
    bob |> Instance.process(Directory) |> Process.whereis() |> Process.exit(:kill)
    assert {:closed, :shutdown, _text} = await(watch_alice, {:peer_down, "bob"})
  end

  test "a realm that stops does not keep its goodbye for what waits for a stalled engine" do
    %{alice: alice, bob: bob} = waiting(shutdown_ms: 4_000)
    watch_alice = watch(alice)
    stop_realm(bob)
    assert {:closed, _code, _text} = await(watch_alice, {:peer_down, "bob"})
  end

  test "and when that is over it is lost, and counted" do
    %{bob: bob} = leave(50)
    until(Legation.counters(bob).goodbyes_cut == 1)
  end

  test "credit outlives the link that it was used on" do
    limits = [credit_bytes: 20_000, message_bytes_max: 100_000]
    %{cable: cable, slow: slow, to_slow: to_slow, to_quick: to_quick, watch: watch} = realms(limits: limits)
    :sys.suspend(slow)
    for n <- 1..100, do: GenServer.cast(to_slow, {n, @kilobyte})
    assert GenServer.call(to_quick, {:echo, 1}) == 1
    Cable.cut(cable)
    await(watch, {:peer_resumed, "alice"})

    # Nothing more comes over the new link, as there is no credit; who looks at the mailbox is not the Reader of the old.
    :sys.resume(slow)
    for n <- 1..100, do: assert_receive({:cast, {^n, @kilobyte}})
  end

  test "a large message doesn't hold up small ones" do
    %{cable: cable, to_slow: to_slow, to_quick: to_quick} = realms()
    large = :binary.copy("x", 4_000_000)
    # 40 s for all of it.
    Cable.slow(cable, 100_000, :to_listener)
    GenServer.cast(to_slow, large)
    before = Cable.passed(cable).to_listener
    assert GenServer.call(to_quick, {:echo, 1}, 20_000) == 1
    assert Cable.passed(cable).to_listener - before < 2_000_000
    refute_received {:cast, ^large}
    Cable.slow(cable, :infinity)
    assert_receive {:cast, ^large}
  end

  test "what waits for longer than message_ttl_ms goes: calls are refused, casts dropped and counted" do
    %{bob: bob, cable: cable, to_slow: to_slow, watch: watch} = realms(limits: [message_ttl_ms: 100])
    Cable.cut(cable, :down)
    await(watch, {:peer_lost, "alice"})
    GenServer.cast(to_slow, :old)
    assert GenServer.call(to_slow, {:echo, 1}) == {:error, {:legation, :expired}}
    assert session_counter(bob, "alice", :expired) == 2
    assert Legation.Error.retry?({:error, {:legation, :expired}})
    Cable.mend(cable)
    await(watch, {:peer_resumed, "alice"})
    assert GenServer.call(to_slow, {:echo, 2}) == 2
    refute_received {:cast, :old}
  end

  test "overflow: :oldest keeps the newest" do
    %{bob: bob, cable: cable, to_slow: to_slow, watch: watch} =
      realms(limits: [queue_bytes_max: 20_000, overflow: :oldest])

    Cable.cut(cable, :down)
    await(watch, {:peer_lost, "alice"})
    for n <- 1..50, do: GenServer.cast(to_slow, {n, @kilobyte})
    pushed(to_slow)
    dropped = session_counter(bob, "alice", :dropped_oldest)
    assert dropped in 25..45
    Cable.mend(cable)
    for n <- (dropped + 1)..50, do: assert_receive({:cast, {^n, @kilobyte}})
    refute_received {:cast, {^dropped, _kilobyte}}
  end

  test "overflow: :disconnect ends the session of a peer that takes too little, and it comes back" do
    limits = [queue_bytes_max: 20_000, overflow: :disconnect]
    %{bob: bob, slow: slow, to_slow: to_slow, watch: watch} = realms(limits: limits, alice: [credit_bytes: 1])
    :sys.suspend(slow)
    monitor = monitor(to_slow)
    for n <- 1..50, do: GenServer.cast(to_slow, {n, @kilobyte})
    assert_receive {:DOWN, ^monitor, :process, ^to_slow, :noconnection}
    assert {:local, :overload} = await(watch, {:peer_down, "alice"})
    await(watch, {:peer_up, "alice"})
    assert Legation.counters(bob).sessions_overflowed >= 1
    :sys.resume(slow)
  end

  describe "who would rather wait" do
    test "casts one after the other, and nothing is lost for want of room" do
      %{bob: bob, cable: cable, watch: watch} = realms(limits: [queue_bytes_max: 20_000])
      Cable.cut(cable, :down)
      await(watch, {:peer_lost, "alice"})
      test = self()

      casters =
        for caster <- 1..5 do
          spawn_link(fn ->
            for n <- 1..50,
                do: :ok = Legation.cast("slow@alice", {caster, n, @kilobyte}, block: :infinity, instance: bob)

            send(test, {:done, self()})
          end)
        end

      refute_receive {:done, _caster}, 100
      Cable.mend(cable)
      for pid <- casters, do: assert_receive({:done, ^pid})
      for caster <- 1..5, n <- 1..50, do: assert_receive({:cast, {^caster, ^n, _kilobyte}})
    end

    test "calls, and is refused when its time is over" do
      %{bob: bob, cable: cable, to_slow: to_slow, watch: watch} = realms(limits: [queue_bytes_max: 20_000])
      Cable.cut(cable, :down)
      await(watch, {:peer_lost, "alice"})
      for n <- 1..50, do: GenServer.cast(to_slow, {n, @kilobyte})
      opts = [block: 50, instance: bob]
      overload = {:error, {:legation, :overload}}
      assert Legation.call("slow@alice", {:echo, @kilobyte}, 5_000, opts) == overload
      assert Legation.cast("slow@alice", {:late, @kilobyte}, opts) == overload
      assert Legation.call("slow@alice", {:echo, @kilobyte}, 5_000, bob) == overload

      waiting =
        Task.async(fn -> Legation.call("slow@alice", {:echo, @kilobyte}, 5_000, block: 10_000, instance: bob) end)

      Cable.mend(cable)
      assert Task.await(waiting, 20_000) == @kilobyte
      assert Legation.cast("nobody@alice", 1, opts) == {:error, :noproc}
      assert_raise ArgumentError, fn -> Legation.cast("slow@alice", 1, block: -1) end
      refute_received {:cast, {:late, _kilobyte}}
    end

    test "is told when the session has ended" do
      %{bob: bob, cable: cable, watch: watch, to_slow: to_slow} =
        realms(limits: [queue_bytes_max: 20_000, grace_ms: 300])

      Cable.cut(cable, :down)
      await(watch, {:peer_lost, "alice"})
      for n <- 1..50, do: GenServer.cast(to_slow, {n, @kilobyte})
      opts = [block: :infinity, instance: bob]
      assert Legation.cast("slow@alice", @kilobyte, opts) == {:error, :noproc}
    end
  end
end
