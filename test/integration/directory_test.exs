defmodule Legation.IntegrationDirectoryTest do
  # Rows 8, 12, 13, 18: many engines, subscriptions, and what is kept for a call.
  use Legation.Case, async: true

  @many 10_000

  test "10,000 engines published before the link are all callable by :via, and the right ones" do
    alice = start_realm("alice")

    for n <- 1..@many do
      {:ok, counter} = Counter.start_link(n)
      :ok = Legation.publish("counter#{n}", counter, [], alice)
    end

    bob = start_realm("bob")
    watch = watch(bob)
    assert watch.snapshot == %{peers: %{}, engines: %{}}
    link(alice, bob, :tcp_tls)
    # In whatever order they come.
    for _n <- 1..@many, do: assert_receive({:legation, _ref, {:engine_learned, _name, _info}})

    for n <- Enum.shuffle(1..@many), do: assert(GenServer.call(via(bob, "counter#{n}@alice"), :get) == n)
    assert length(Legation.engines(bob)) == @many
    assert @many == bob |> Legation.engines() |> Enum.uniq_by(& &1.pid) |> length()
    # Before the engines end with this test: alice would tell bob of each.
    stop_realm(alice)
  end

  test "a subscriber hears of engines in the order in which they were published" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :tcp_tls)
    watch(bob)
    {:ok, engine} = Counter.start_link(0)
    # More than one read, and by no order of their names.
    names = for n <- 1..200, do: "engine#{rem(n * 77, 201)}"
    for name <- names, do: :ok = Legation.publish(name, engine, [], alice)
    told = for _name <- names, do: assert_receive({:legation, _ref, {:engine_learned, _name, _info}})
    assert for({_, _, {_, name, _info}} <- told, do: name) == for(name <- names, do: name <> "@alice")
  end

  test "a subscriber gets a snapshot first, and then every change, with no gap" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :tcp_tls)
    {:ok, engine} = Counter.start_link(0)

    # Engines come and go all the while.
    storm =
      Task.async(fn ->
        for n <- 1..1_000 do
          :ok = Legation.publish("e#{n}", engine, [], alice)
          if rem(n, 3) == 0, do: :ok = Legation.withdraw("e#{n - 1}", alice)
        end
      end)

    watches =
      for n <- 100..900//100 do
        watch = watch(bob)
        if not is_map_key(watch.snapshot.engines, "e#{n}@alice"), do: await_seen(bob, n)
        watch
      end

    Task.await(storm, :infinity)
    :ok = Legation.publish("last", engine, [], alice)
    await_engine(bob, "last@alice")
    is = for %{name: name} <- Legation.engines(bob), into: MapSet.new(), do: name
    assert MapSet.size(is) == 1_000 - 333 + 1

    for watch <- watches do
      assert ["alice"] = Map.keys(watch.snapshot.peers)
      assert replay(watch, watch.snapshot.engines |> Map.keys() |> MapSet.new()) == is
    end

    # Snapshots that were all taken before or after the storm would show nothing.
    assert watches |> Enum.map(&map_size(&1.snapshot.engines)) |> Enum.uniq() |> length() > 2
  end

  # By a subscription of its own, so that the others keep their messages. It may have come and gone.
  defp await_seen(bob, n) do
    Task.await(
      Task.async(fn ->
        watch = watch(bob)
        seen? = fn name -> String.replace(name, ["e", "@alice"], "") |> Integer.parse() |> elem(0) >= n end
        if not Enum.any?(Map.keys(watch.snapshot.engines), seen?), do: await_learned(watch.ref, seen?)
      end),
      :infinity
    )
  end

  defp await_learned(ref, seen?) do
    assert_receive {:legation, ^ref, {:engine_learned, name, _info}}
    if not seen?.(name), do: await_learned(ref, seen?)
  end

  # An engine that is learned twice, or forgotten without having been there, is a gap, too.
  defp replay(%{ref: ref} = watch, engines) do
    receive do
      {:legation, ^ref, {:engine_learned, "last@alice", _info}} ->
        MapSet.put(engines, "last@alice")

      {:legation, ^ref, {:engine_learned, name, _info}} ->
        refute name in engines
        replay(watch, MapSet.put(engines, name))

      {:legation, ^ref, {:engine_forgotten, name, _reason}} ->
        assert name in engines
        replay(watch, MapSet.delete(engines, name))
    after
      5_000 -> flunk("the subscription has a gap")
    end
  end

  test "a subscription sees peers come and go, and ends when it is ended" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    watch = watch(bob)
    assert watch.snapshot == %{peers: %{}, engines: %{}}
    link(alice, bob, :unix)
    assert %{realm: "alice", profile: :local, role: :initiator} = await(watch, {:peer_up, "alice"})
    assert %{"alice" => %{profile: :local}} = watch(bob).snapshot.peers
    :ok = Legation.disconnect("alice", bob)
    assert await(watch, {:peer_down, "alice"})
    :ok = Legation.demonitor_peers(watch.ref, bob)
    ref = watch.ref
    :ok = Legation.connect("alice", bob)
    await_up(watch(bob), "alice")
    refute_received {:legation, ^ref, _event}
  end

  # By a sweep. A daemon is told by the caller's node.
  @tag :embedded
  test "the entry of a call that timed out and is never answered is freed after call_age_ms" do
    alice = start_realm("alice")
    bob = start_realm("bob", limits: [call_age_ms: 1])
    link(alice, bob, :tcp_tls)
    {:ok, echo} = Echo.start_link(owner: self())
    proxy = publish(alice, "echo", echo, [bob])
    waiting = async_call(proxy, {:hold, :patient})
    assert_receive {:held, :patient, patient}
    assert {:timeout, _call} = catch_exit_of(fn -> GenServer.call(proxy, {:hold, :gone}, 2) end)
    assert_receive {:held, :gone, from}

    # A sweep that began after this has seen the call, whether it is the timer's or this one in its place.
    peer = peer_process(bob, "alice")
    %{sweep: timer} = :sys.get_state(peer)
    send(peer, {:timeout, timer, :sweep})
    :sys.get_state(peer)
    # The patient caller's is still there.
    assert session_counter(bob, "alice", :calls_pending) == 1

    # Alice was told that nobody waits, before this call.
    assert GenServer.call(proxy, {:echo, 1}) == 1
    assert session_counter(alice, "bob", :calls_served) == 1
    GenServer.reply(from, "nobody waits")
    GenServer.reply(patient, "somebody waits")
    assert await_call(waiting) == {:reply, "somebody waits"}
    assert session_counter(bob, "alice", :late_reply) == 0
    assert session_counter(bob, "alice", :calls_pending) == 0
  end

  test "an instance that isn't there is named by every function that is asked for it" do
    for ask <- [
          fn -> Legation.publish("x", self(), instance: Nobody) end,
          fn -> Legation.withdraw("x", Nobody) end,
          fn -> Legation.monitor_peers(Nobody) end,
          fn -> Legation.peers(Nobody) end
        ] do
      assert_raise ArgumentError, ~r/no Legation named Nobody is running/, ask
    end
  end

  @tag :embedded
  test "an engine is learned with no copy of those that are known already" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :memory)
    {:ok, engine} = Counter.start_link(0)
    watch = watch(bob)
    supervisor = Process.whereis(Legation.Instance.process(bob, ProxySupervisor))

    words = fn name ->
      :erlang.trace(supervisor, true, [:receive])
      :ok = Legation.publish(name, engine, [], alice)
      await(watch, {:engine_learned, name <> "@alice"})
      :erlang.trace(supervisor, false, [:receive])
      assert_receive {:trace, ^supervisor, :receive, {:"$gen_call", _from, asked}}
      :erts_debug.flat_size(asked)
    end

    first = words.("first")
    for n <- 1..200, do: :ok = Legation.publish("e#{n}", engine, [], alice)
    for n <- 1..200, do: await(watch, {:engine_learned, "e#{n}@alice"})
    assert words.("lasts") == first
  end

  @tag :embedded
  test "a peer that announces faster than the directory takes it is not read any more, and nothing is lost" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :memory)
    directory = Process.whereis(Legation.Instance.process(bob, Directory))
    watch = watch(bob)
    %{reader: reader} = link_processes(bob, "alice")
    :sys.suspend(directory)
    {:ok, engine} = Counter.start_link(0)
    publish = fn n -> :ok = Legation.publish("e#{n}", engine, [], alice) end

    # What one read brings counts once, so it takes at least 64 announcements.
    paused = Enum.find(1..20_000, fn n -> publish.(n) && :sys.get_state(reader).paused end)
    assert paused >= 64
    assert {:message_queue_len, waiting} = Process.info(directory, :message_queue_len)
    for n <- (paused + 1)..(paused + 500), do: publish.(n)
    :sys.get_state(reader)
    # What the carrier had been allowed to deliver, and no more, however many are published.
    assert {:message_queue_len, later} = Process.info(directory, :message_queue_len)
    assert later - waiting <= 32

    :sys.resume(directory)
    for n <- 1..(paused + 500), do: await(watch, {:engine_learned, "e#{n}@alice"})
    refute :sys.get_state(reader).paused
    stop_realm(alice)
  end
end
