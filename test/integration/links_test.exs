defmodule Legation.LinksTest do
  # Row 49: several addresses of a peer, and several links to it at once; and row 50's bound on them.
  use Legation.Case, async: true

  alias Legation.Cable

  # alice listens twice, and bob dials both addresses, each through a cable of its own.
  defp realms(opts) do
    {limits, opts} = Keyword.pop(opts, :limits, [])
    alice = start_realm("alice", limits: limits)
    bob = start_realm("bob", limits: limits)
    {first, to_first} = Cable.between(listen(alice, :tcp_tls))
    {second, to_second} = Cable.between(listen(alice, :tcp_plain))
    if opts[:down], do: Cable.cut(first, :down)
    {watch, watch_alice} = {watch(bob), watch(alice)}
    :ok = Legation.connect(peer("bob"), alice)
    :ok = Legation.connect(peer("alice", connect: [to_first, to_second], links: opts[:links] || 1), bob)
    await(watch, {:peer_up, "alice"})
    await(watch_alice, {:peer_up, "bob"})
    {:ok, echo} = Echo.start_link(owner: self())
    :ok = Legation.publish("echo", echo, [], alice)
    proxy = await_engine(bob, "echo@alice")
    %{alice: alice, bob: bob, first: first, second: second, proxy: proxy, watch: watch, watch_alice: watch_alice}
  end

  # As `{profile, state}`.
  defp links(instance),
    do: Enum.sort(for %{links: links} <- Legation.peers(instance), link <- links, do: {link.profile, link.state})

  defp until_links(instance, links), do: until(links(instance) == Enum.sort(links))

  defp session_ids(instance), do: Enum.uniq(for(%{session_id: id} <- Legation.connections(instance), do: id))

  test "the next address is dialled when one fails, and the first again when the link is lost" do
    %{bob: bob, first: first, second: second, proxy: proxy, watch: watch} = realms(down: true)
    assert links(bob) == [plain: :active]
    session = session_ids(bob)
    Cable.mend(first)
    Cable.cut(second)
    await(watch, {:peer_lost, "alice"})
    await(watch, {:peer_resumed, "alice"})
    assert links(bob) == [tls: :active]
    assert session_ids(bob) == session
    assert GenServer.call(proxy, {:echo, 1}) == 1
  end

  test "a link stands by, takes over without a word, and steps back when the better one is there again" do
    %{alice: alice, bob: bob, first: first, second: second, proxy: proxy} = realms(links: 2)
    until_links(bob, tls: :active, plain: :standby)
    until_links(alice, tls: :active, plain: :standby)
    session = session_ids(bob)
    assert [_one_of_both_links] = session
    assert session_ids(alice) == session

    held = async_call(proxy, {:hold, 1})
    assert_receive {:held, 1, from}
    Cable.stall(first)
    for n <- 1..100, do: GenServer.cast(proxy, n)
    # They are on their way into nowhere.
    Cable.cut(first, :down)
    for n <- 1..100, do: assert_receive({:cast, ^n})
    until_links(bob, plain: :active)
    until_links(alice, plain: :active)
    GenServer.reply(from, :over_the_other)
    assert await_call(held) == {:reply, :over_the_other}

    Cable.go_on(first)
    Cable.mend(first)
    until_links(bob, tls: :active, plain: :standby)
    before = Cable.passed(first).to_listener
    for n <- 1..100, do: GenServer.cast(proxy, {n, :binary.copy("x", 100)})
    for n <- 1..100, do: assert_receive({:cast, {^n, _x}})
    # What has passed is counted a moment later.
    until(Cable.passed(first).to_listener - before > 10_000)

    # And without it, what alice has to say takes the other, whatever she has sent on until now.
    assert GenServer.call(proxy, {:echo, 1}) == 1
    Cable.cut(second, :down)
    assert GenServer.call(proxy, {:echo, 2}) == 2
    assert session_ids(bob) == session
    refute_received {:legation, _ref, {:peer_lost, _realm, _reason}}
    refute_received {:cast, _again}
  end

  @tag timeout: 180_000
  test "100,000 casts are there once and in order while the links fail in turns" do
    %{alice: alice, bob: bob, first: first, second: second, watch: watch} = realms(links: 2)
    {:ok, sequence} = Sequence.start_link([])
    to = publish(alice, "sequence", sequence, [bob])
    until_links(bob, tls: :active, plain: :standby)
    test = self()

    spawn_link(fn ->
      for n <- 0..99_999 do
        GenServer.cast(to, n)
        if rem(n, 1_000) == 999, do: ^n = GenServer.call(to, {:echo, n}, :infinity)
      end

      send(test, :cast)
    end)

    for n <- 1..10 do
      cable = if rem(n, 2) == 1, do: first, else: second
      Cable.cut(cable)
      # As soon as both are there again.
      until_links(bob, tls: :active, plain: :standby)
    end

    assert_receive :cast, 120_000
    assert GenServer.call(to, :taken) == {100_000, []}
    refute_received {:legation, _ref, {:peer_down, _realm, _reason}}
    unwatch(watch)
  end

  @tag :embedded
  test "a peer has four links of a session and no fifth" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    addresses = for _ <- 1..5, do: listen(alice, :tcp_plain)
    :ok = Legation.connect(peer("bob"), alice)
    watch = watch(bob)
    :ok = Legation.connect(peer("alice", connect: addresses, links: 4), bob)
    await(watch, {:peer_up, "alice"})
    until_links(bob, [plain: :active] ++ List.duplicate({:plain, :standby}, 3))
    peer = peer_process(bob, "alice")
    # It was never told that it may not: now it wants one more.
    :sys.replace_state(peer, &Legation.Peer.Dialling.keep_standby(%{&1 | wanted: 5}))
    until_refused(alice)
    assert length(Legation.connections(alice)) == 4
  end

  defp until_refused(alice), do: until(Legation.counters(alice).hellos_duplicate > 0)

  test "a peer's own limits hold for it alone" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    carol = start_realm("carol")
    {cable, address} = Cable.between(listen(alice, :tcp_tls))
    watches = for one <- [bob, carol], do: watch(one)
    # Alice's side has no patience with bob; his would have.
    :ok = Legation.connect(peer("bob", limits: [grace_ms: 0, resume_bytes_max: 0]), alice)
    :ok = Legation.connect(peer("carol"), alice)
    for one <- [bob, carol], do: :ok = Legation.connect(peer("alice", connect: [address]), one)
    for watch <- watches, do: await(watch, {:peer_up, "alice"})
    watch = watch(alice)
    Cable.cut(cable)
    assert {:carrier, _reason} = await(watch, {:peer_down, "bob"})
    await(watch, {:peer_lost, "carol"})
    await(watch, {:peer_resumed, "carol"})
    await(watch, {:peer_up, "bob"})
    refute_received {:legation, _ref, {:peer_down, "carol", _reason}}
  end

  test "a drain refuses new calls both ways, waits for those that are open, and says goodbye" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :tcp_tls)
    {:ok, echo} = Echo.start_link(owner: self())
    to_alice = publish(alice, "echo", echo, [bob])
    to_bob = publish(bob, "echo", echo, [alice])
    open = async_call(to_bob, {:hold, 1})
    assert_receive {:held, 1, from}
    {watch, watch_alice} = {watch(bob), watch(alice)}
    drain = Task.async(fn -> Legation.drain(30_000, alice) end)
    until_draining(to_alice)
    assert GenServer.call(to_bob, {:echo, 1}) == {:error, {:legation, :draining}}
    GenServer.reply(from, :answered)
    assert await_call(open) == {:reply, :answered}
    assert Task.await(drain) == {:ok, []}
    assert {:closed, :shutdown, _text} = await(watch, {:peer_down, "alice"})
    assert {:local, :shutdown} = await(watch_alice, {:peer_down, "bob"})
    assert Legation.Error.retry?({:error, {:legation, :draining}})
  end

  test "a drain says which calls it has cut" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :tcp_tls)
    {:ok, echo} = Echo.start_link(owner: self())
    proxy = publish(alice, "echo", echo, [bob])
    call = async_call(proxy, {:hold, 1})
    assert_receive {:held, 1, _from}
    watch = watch(bob)
    assert Legation.drain(50, bob) == {:ok, [{"echo@alice", call}]}
    await(watch, {:peer_down, "alice"})
    assert {:exit, {lost, _call}} = await_call(call)
    assert lost == lost(bob)
    assert [%{state: :drained}] = Legation.peers(bob)
    assert Legation.listeners(bob) == []
  end

  @tag :embedded
  test "two links to a peer that keeps nothing to be sent again are one link and one session" do
    alice = start_realm("alice", limits: [resume_bytes_max: 0])
    bob = start_realm("bob")
    addresses = [listen(alice, :tcp_tls), listen(alice, :tcp_plain)]
    :ok = Legation.connect(peer("bob"), alice)
    {watch, watch_alice} = {watch(bob), watch(alice)}
    :ok = Legation.connect(peer("alice", connect: addresses, links: 2), bob)
    await(watch, {:peer_up, "alice"})
    await(watch_alice, {:peer_up, "bob"})
    session = session_ids(bob)
    # The second was dialled, and refused.
    until_refused(alice)
    assert links(bob) == [tls: :active]
    assert session_ids(bob) == session
    assert session_ids(alice) == session
    refute_received {:legation, _ref, {:peer_down, _realm, _reason}}
  end

  @tag :embedded
  test "who keeps nothing to be sent again dials no second link" do
    alice = start_realm("alice")
    bob = start_realm("bob", limits: [resume_bytes_max: 0])
    addresses = [listen(alice, :tcp_tls), listen(alice, :tcp_plain)]
    :ok = Legation.connect(peer("bob"), alice)
    watch = watch(bob)
    :ok = Legation.connect(peer("alice", connect: addresses, links: 2), bob)
    await(watch, {:peer_up, "alice"})
    state = :sys.get_state(peer_process(bob, "alice"))
    assert map_size(state.links) == 1
    assert state.standby |> Map.values() |> Enum.all?(&(&1.reader == nil and &1.timer == nil))
  end

  @tag :embedded
  test "a link that was to stand by and comes up as a new session stays" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    {first, to_first} = Cable.between(listen(alice, :tcp_tls))
    {second, to_second} = Cable.between(listen(alice, :tcp_plain))
    Cable.cut(second, :down)
    :ok = Legation.connect(peer("bob"), alice)
    watch = watch(bob)
    :ok = Legation.connect(peer("alice", connect: [to_first, to_second], links: 2), bob)
    await(watch, {:peer_up, "alice"})
    old = session_ids(bob)
    # Alice has ended the session, and what she says of it does not arrive.
    Cable.stall(first)
    :ok = Legation.disconnect("bob", alice)
    :ok = Legation.connect(peer("bob"), alice)
    Cable.mend(second)
    await(watch, {:peer_up, "alice"})
    assert [new] = session_ids(bob)
    assert [new] != old
    until_links(bob, plain: :active)
    Cable.go_on(first)
    Cable.cut(first)
    # The better one comes beside it.
    until_links(bob, tls: :active, plain: :standby)
    assert session_ids(bob) == [new]
  end

  test "two drains at once both return" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :tcp_tls)
    {:ok, echo} = Echo.start_link(owner: self())
    to_alice = publish(alice, "echo", echo, [bob])
    open = async_call(to_alice, {:hold, 1})
    assert_receive {:held, 1, from}
    drains = for _ <- 1..2, do: Task.async(fn -> Legation.drain(30_000, alice) end)
    until_draining(to_alice)
    GenServer.reply(from, :answered)
    assert await_call(open) == {:reply, :answered}
    assert Task.await_many(drains) == [{:ok, []}, {:ok, []}]
  end

  @tag :embedded
  test "a goodbye overtakes nothing that waits on the link that is sent on" do
    %{alice: alice, bob: bob, first: first, proxy: proxy} = realms(links: 2, limits: [goodbye_ms: 60_000])
    until_links(bob, tls: :active, plain: :standby)
    until_links(alice, tls: :active, plain: :standby)
    Cable.slow(first, 500_000)
    for n <- 1..600, do: GenServer.cast(proxy, {n, :binary.copy("x", 1_000)})
    # They have all left the proxy, whose end is the session's.
    until(Process.info(proxy, :message_queue_len) == {:message_queue_len, 0})
    :ok = Legation.disconnect("alice", bob)
    for n <- 1..600, do: assert_receive({:cast, {^n, _x}})
    assert Legation.counters(bob).goodbyes_cut == 0
  end

  # More than the kernels and the cable take, so some of it waits.
  @waits 20_000_000
  @large 1_000_000

  defp leave_stalled(goodbye_ms) do
    # All of it may wait, by whatever else bounds that.
    bounds = for bound <- [:queue_bytes_max, :engine_queue_bytes_max, :resume_bytes_max], do: {bound, 2 * @waits}
    limits = [goodbye_ms: goodbye_ms, send_timeout_ms: 600_000, credit_bytes: 0] ++ bounds
    %{bob: bob, first: first, proxy: proxy} = realms = realms(limits: limits)
    Cable.stall(first, :to_listener)
    for n <- 1..div(@waits, @large), do: GenServer.cast(proxy, {n, :binary.copy("x", @large)})
    # All have left the proxy; no more than what the kernels take is on its way.
    until(waiting(Legation.counters(bob).sessions["alice"]) > @waits)
    :ok = Legation.disconnect("alice", bob)
    realms
  end

  defp waiting(session), do: session.queue_bytes + session.resume_bytes

  test "a peer that takes what waits for it before a goodbye's time is over gets it all" do
    %{bob: bob, first: first} = leave_stalled(600_000)
    Cable.go_on(first)
    for n <- 1..div(@waits, @large), do: assert_receive({:cast, {^n, _x}})
    Cable.await_disconnected(first)
    assert Legation.counters(bob).goodbyes_cut == 0
  end

  test "a peer that has not is left, and it is counted" do
    %{bob: bob} = leave_stalled(1)
    until(Legation.counters(bob).goodbyes_cut == 1)
  end

  @tag :embedded
  test "the reader of a link that was let go may be killed: the session ends, and nobody waits for its turn" do
    %{alice: alice, bob: bob, first: first, watch: watch, watch_alice: watch_alice} = realms([])
    assert [%{reader: reader}] = Map.values(:sys.get_state(peer_process(alice, "bob")).links)
    # It does not notice that its link is cut, and bob comes by another.
    :erlang.suspend_process(reader)
    Cable.cut(first)
    await(watch, {:peer_resumed, "alice"})
    Process.exit(reader, :kill)
    assert await(watch_alice, {:peer_down, "bob"}) == {:local, :crashed}
    await(watch_alice, {:peer_up, "bob"})
    await(watch, {:engine_learned, "echo@alice"})
    assert GenServer.call(await_engine(bob, "echo@alice"), {:echo, 1}) == 1
  end

  test "a drain is for good: who connects afterwards is told so" do
    %{bob: bob} = realms([])
    assert Legation.drain(1_000, bob) == {:ok, []}
    assert Legation.connect("alice", bob) == {:error, :draining}
  end

  defp until_draining(proxy), do: until(GenServer.call(proxy, {:echo, 1}) == {:error, {:legation, :draining}})
end
