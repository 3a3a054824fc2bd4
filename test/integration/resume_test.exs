defmodule Legation.ResumeTest do
  # Rows 32-35, 50-52: what a broken cable costs: nobody a message, as long as the session lives; and what is told when it doesn't.
  use Legation.Case, async: true

  alias Legation.Cable

  # bob dials alice over a cable, and has an engine of hers.
  defp realms(opts \\ []) do
    alice = start_realm("alice", Keyword.take(opts, [:limits]))
    bob = start_realm("bob", Keyword.take(opts, [:limits]))
    cable = Cable.start()
    link(alice, bob, Keyword.get(opts, :carrier, :tcp_tls), through: cable)
    {:ok, echo} = Echo.start_link(owner: self())
    proxy = publish(alice, "echo", echo, [bob])
    %{alice: alice, bob: bob, cable: cable, proxy: proxy, watch: watch(bob), watch_alice: watch(alice)}
  end

  defp session_id(instance, realm) do
    [id] = for(%{realm: ^realm, session_id: id} <- Legation.connections(instance), do: id) |> Enum.uniq()
    id
  end

  # Of each link.
  defp session_ids(instance), do: for(%{session_id: id} <- Legation.connections(instance), do: id)

  # Returns what the first call that gets through after everything before it has replied.
  defp settled(name), do: GenServer.call(name, {:echo, :settled}, 60_000)

  for carrier <- [:tcp_tls, :tcp_plain] do
    @tag timeout: 180_000
    test "100,000 casts and 1,000 calls through many cuts are there once and in order (#{carrier})" do
      %{alice: alice, bob: bob, cable: cable, watch: watch, proxy: proxy} = realms(carrier: unquote(carrier))
      {:ok, sequence} = Sequence.start_link([])
      to = publish(alice, "sequence", sequence, [bob])
      session = session_id(bob, "alice")
      test = self()

      caster =
        spawn_link(fn ->
          # Paced by its own calls, so that the casts last as long as the cuts.
          for n <- 0..99_999 do
            GenServer.cast(to, n)
            if rem(n, 1_000) == 999, do: ^n = GenServer.call(to, {:echo, n}, :infinity)
          end

          send(test, :cast)
        end)

      callers =
        for caller <- 1..9 do
          Task.async(fn ->
            for n <- 1..100, do: {^caller, ^n} = GenServer.call(proxy, {:echo, {caller, n}}, :infinity)
          end)
        end

      cut(cable, 5_000, 12)
      Task.await_many(callers, 120_000)
      assert_receive :cast, 120_000
      refute Process.alive?(caster)
      assert GenServer.call(to, :taken, :infinity) == {100_000, []}
      assert session_id(bob, "alice") == session
      assert Legation.whereis("sequence@alice", bob) == to
      refute_received {:legation, _ref, {:peer_down, _realm, _reason}}
      refute_received {:legation, _ref, {:gap, _realm, _n}}
      unwatch(watch)
    end
  end

  # In the middle of whatever is on its way, each time a little later, in turns in one direction and the other.
  defp cut(_cable, _bytes, 0), do: :ok

  defp cut(cable, bytes, times) do
    direction = if rem(times, 2) == 0, do: :to_listener, else: :to_dialler
    Cable.cut_after(cable, direction, if(direction == :to_listener, do: 10 * bytes, else: div(bytes, 4)))
    Cable.await_cut(cable)
    cut(cable, bytes + 317, times - 1)
  end

  test "nothing is said to anybody while the session has no link, and it goes on where it was" do
    %{alice: alice, bob: bob, cable: cable, proxy: proxy, watch: watch, watch_alice: watch_alice} = realms()
    session = session_id(bob, "alice")
    monitor = monitor(proxy)
    held = async_call(proxy, {:hold, 1})
    assert_receive {:held, 1, from}
    borrower = Process.monitor(elem(from, 0))

    assert Cable.cut(cable, :down) == 1
    await(watch, {:peer_lost, "alice"})
    await(watch_alice, {:peer_lost, "bob"})
    assert [%{state: :lost, links: []}] = Legation.peers(bob)
    assert [%{state: :lost}] = Legation.peers(alice)
    assert Legation.connections(bob) == []
    assert %{snapshot: %{peers: %{"alice" => %{state: :lost}}, engines: %{"echo@alice" => %{pid: ^proxy}}}} = watch(bob)
    assert Legation.whereis("echo@alice", bob) == proxy

    # All of it waits: casts, sends, a call, its reply, and the reply to the one from before.
    GenServer.cast(proxy, :cast)
    send(proxy, :sent)
    waiting = async_call(proxy, {:echo, :waited})
    GenServer.reply(from, :answered)
    {:ok, counter} = Counter.start_link(3)
    :ok = Legation.publish("counter", counter, [], alice)
    refute_received {:legation, _ref, {:peer_down, _realm, _reason}}
    refute_received {:DOWN, _monitor, :process, _pid, _reason}

    :ok = Cable.mend(cable)
    assert await_call(held) == {:reply, :answered}
    assert await_call(waiting) == {:reply, :waited}
    assert_receive {:cast, :cast}
    assert_receive {:info, :sent}
    assert %{session_id: ^session} = await(watch, {:peer_resumed, "alice"})
    await(watch_alice, {:peer_resumed, "bob"})
    assert await_engine(bob, "counter@alice") |> GenServer.call(:get) == 3
    assert [%{state: :up, links: [%{state: :active}]}] = Legation.peers(bob)
    refute_received {:DOWN, ^monitor, :process, _pid, _reason}
    # Its caller has ended meanwhile.
    assert_receive {:DOWN, ^borrower, :process, _pid, :normal}
    refute_received {:legation, _ref, {:peer_down, _realm, _reason}}
    assert session_id(bob, "alice") == session
  end

  test "when the grace is over calls exit, monitors fire, and who is subscribed hears what may be lost" do
    %{bob: bob, cable: cable, proxy: proxy, watch: watch, watch_alice: watch_alice} = realms(limits: [grace_ms: 300])
    session = session_id(bob, "alice")
    monitor = monitor(proxy)
    held = async_call(proxy, {:hold, 1})
    assert_receive {:held, 1, {stand_in, _tag}}
    borrower = Process.monitor(stand_in)
    # Alice has it all by now; of what follows nobody on this side can know.
    settled(proxy)
    Cable.stall(cable)
    GenServer.cast(proxy, :unknown)
    until_sent(bob)

    Cable.cut(cable, :down)
    await(watch, {:peer_lost, "alice"})
    assert {:exit, {lost, _call}} = await_call(held)
    assert lost == lost(bob)
    assert_receive {:DOWN, ^monitor, :process, ^proxy, :noconnection}
    assert_receive {:DOWN, ^borrower, :process, ^stand_in, :noconnection}
    assert await(watch, {:engine_forgotten, "echo@alice"}) == :noconnection
    assert await(watch, {:gap, "alice"}) >= 1
    assert {:carrier, _reason} = await(watch, {:peer_down, "alice"})
    assert {:carrier, _reason} = await(watch_alice, {:peer_down, "bob"})
    assert Legation.whereis("echo@alice", bob) == nil

    Cable.go_on(cable)
    Cable.mend(cable)
    assert %{session_id: other} = await(watch, {:peer_up, "alice"})
    assert other != session
    again = await_engine(bob, "echo@alice")
    assert again != proxy
    assert GenServer.call(via(bob, "echo@alice"), {:echo, 1}) == 1
    refute_received {:cast, :unknown}
  end

  # Until what was pushed has been signed: from then on it is the peer's to acknowledge.
  defp until_sent(bob),
    do: until(match?(%{queue_bytes: 0, resume_bytes: sent} when sent > 0, Legation.counters(bob).sessions["alice"]))

  test "what waited unsigned when a session ended goes out in the next" do
    # A grace that is longer than it takes to hand over what is to wait.
    %{bob: bob, cable: cable, proxy: proxy, watch: watch} = realms(limits: [grace_ms: 2_000])
    Cable.cut(cable, :down)
    await(watch, {:peer_lost, "alice"})
    for n <- 1..100, do: GenServer.cast(proxy, {:kept, n})
    await(watch, {:peer_down, "alice"})
    refute_received {:legation, _ref, {:gap, "alice", _n}}
    Cable.mend(cable)
    await(watch, {:peer_up, "alice"})
    for n <- 1..100, do: assert_receive({:cast, {:kept, ^n}})
    assert session_counter(bob, "alice", :adopted) == 100
  end

  test "without grace a link's end is the session's" do
    %{bob: bob, cable: cable, proxy: proxy, watch: watch} = realms(limits: [grace_ms: 0])
    monitor = monitor(proxy)
    held = async_call(proxy, {:hold, 1})
    assert_receive {:held, 1, _from}
    Cable.cut(cable)
    assert {:exit, {lost, _call}} = await_call(held)
    assert lost == lost(bob)
    assert_receive {:DOWN, ^monitor, :process, ^proxy, :noconnection}
    assert {:carrier, _reason} = await(watch, {:peer_down, "alice"})
    await(watch, {:peer_up, "alice"})
    refute_received {:legation, _ref, {:peer_lost, _realm, _reason}}
  end

  test "so is it where nothing is kept to be sent again" do
    %{cable: cable, watch: watch} = realms(limits: [resume_bytes_max: 0])
    Cable.cut(cable)
    await(watch, {:peer_down, "alice"})
    await(watch, {:peer_up, "alice"})
  end

  test "a goodbye ends it at once, and both sides know that it was one" do
    %{alice: alice, proxy: proxy, watch: watch, watch_alice: watch_alice} = realms()
    monitor = monitor(proxy)
    :ok = Legation.disconnect("bob", alice)
    assert_receive {:DOWN, ^monitor, :process, ^proxy, :noconnection}
    assert {:closed, :normal, _text} = await(watch, {:peer_down, "alice"})
    assert {:local, :normal} = await(watch_alice, {:peer_down, "bob"})
    refute_received {:legation, _ref, {:peer_lost, _realm, _reason}}
  end

  test "a realm that has started again has another session, and the old one ends" do
    %{alice: alice, cable: cable, proxy: proxy, watch: watch} = realms()
    monitor = monitor(proxy)
    options = [name: alice, listen: [], peers: [peer("bob")]]
    # As if it had been killed: nobody says goodbye.
    Cable.cut(cable, :down)
    await(watch, {:peer_lost, "alice"})
    stop_realm(alice)
    ^alice = start_realm("alice", options)
    Cable.lead(cable, listen(alice, :tcp_tls))
    refute_received {:DOWN, ^monitor, :process, _pid, _reason}
    Cable.mend(cable)
    assert_receive {:DOWN, ^monitor, :process, ^proxy, :noconnection}
    await(watch, {:peer_down, "alice"})
    await(watch, {:peer_up, "alice"})
  end

  test "both dial at once: one link remains, and no call is lost" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    {cable_a, to_alice} = Cable.between(listen(alice, :tcp_tls))
    {cable_b, to_bob} = Cable.between(listen(bob, :tcp_tls))
    {watch, watch_alice} = {watch(bob), watch(alice)}
    :ok = Legation.connect(peer("bob", connect: [to_bob]), alice)
    :ok = Legation.connect(peer("alice", connect: [to_alice]), bob)
    await(watch, {:peer_up, "alice"})
    await(watch_alice, {:peer_up, "bob"})
    {:ok, echo} = Echo.start_link(owner: self())
    :ok = Legation.publish("echo", echo, [], alice)
    proxy = await_engine(bob, "echo@alice")

    for n <- 1..10 do
      call = async_call(proxy, {:echo, n})
      for cable <- [cable_a, cable_b], do: Cable.cut(cable)
      assert await_call(call) == {:reply, n}
    end

    # Sooner or later one has been settled upon.
    settled(proxy)
    until(match?({[id], [id]}, {session_ids(alice), session_ids(bob)}))
    assert Legation.whereis("echo@alice", bob) in [proxy, await_engine(bob, "echo@alice")]
  end

  for direction <- [:both, :to_listener, :to_dialler] do
    test "a link that is half open (#{direction}) is found out by its silence, and the session goes on over the next" do
      %{bob: bob, cable: cable, proxy: proxy, watch: watch} = realms(limits: [ping_ms: 200])
      session = session_id(bob, "alice")
      Cable.stall(cable, unquote(direction))
      call = async_call(proxy, {:echo, 1})

      # Whichever end finds out first closes, and the other hears why, unless it only hears that it is closed. Nothing else ends the link.
      assert elem(await(watch, {:peer_lost, "alice"}), 1) in [:timeout, :closed]
      # What is dialled meanwhile is stalled as well.
      Cable.go_on(cable, unquote(direction))
      Cable.cut(cable)
      assert await_call(call) == {:reply, 1}
      await(watch, {:peer_resumed, "alice"})
      assert session_id(bob, "alice") == session
    end
  end

  test "a round trip can be read, of each link" do
    %{bob: bob} = realms(limits: [ping_ms: 50])
    until(match?([%{rtt_ms: rtt_ms}] when rtt_ms in 0..5_000, Legation.connections(bob)))
    assert [%{links: [%{rtt_ms: _}]}] = Legation.peers(bob)
  end

  describe "bounds" do
    test "what waits for a link does so within queue_bytes_max: past it calls are refused, casts dropped and counted" do
      %{bob: bob, cable: cable, proxy: proxy, watch: watch} = realms(limits: [queue_bytes_max: 20_000])
      Cable.cut(cable, :down)
      await(watch, {:peer_lost, "alice"})
      kilobyte = :binary.copy("x", 1_000)
      for n <- 1..50, do: GenServer.cast(proxy, {n, kilobyte})
      assert GenServer.call(proxy, {:echo, kilobyte}) == {:error, {:legation, :overload}}
      dropped = session_counter(bob, "alice", :overload_out) - 1
      assert dropped > 0
      assert session_counter(bob, "alice", :queue_bytes) <= 20_000
      Cable.mend(cable)
      kept = 50 - dropped
      for n <- 1..kept, do: assert_receive({:cast, {^n, ^kilobyte}})
      settled(proxy)
      refute_received {:cast, {_n, ^kilobyte}}
    end

    test "no more is sent than resume_bytes_max until the peer has acknowledged it, and then all of it" do
      %{bob: bob, cable: cable, proxy: proxy} = realms(limits: [resume_bytes_max: 30_000])
      Cable.stall(cable, :to_dialler)
      kilobyte = :binary.copy("x", 1_000)
      for n <- 1..40, do: GenServer.cast(proxy, {n, kilobyte})
      until(session_counter(bob, "alice", :resume_bytes) >= 30_000)
      # What is over the bound waits, unsigned.
      for n <- 41..200, do: GenServer.cast(proxy, {n, kilobyte})
      # Refused on this side, behind them.
      assert GenServer.call(proxy, fn -> :no end) == {:error, {:legation, :identifiers}}
      assert session_counter(bob, "alice", :resume_bytes) < 60_000
      assert session_counter(bob, "alice", :messages_out) <= 40
      Cable.go_on(cable, :to_dialler)
      for n <- 1..200, do: assert_receive({:cast, {^n, ^kilobyte}})
      until(session_counter(bob, "alice", :resume_bytes) == 0)
    end
  end
end
