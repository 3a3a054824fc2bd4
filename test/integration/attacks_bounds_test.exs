defmodule Legation.AttacksBoundsTest do
  # Each bound of an instance at its limit and one past it, with what is counted. Those of options are in
  # options_limits_test.exs, those of the core alone in rust_tests/tests/limits.rs.
  use Legation.AttackCase

  alias Legation.Carriers.Memory

  defp counters(instance, names), do: instance |> Legation.counters() |> Map.take(names)

  defp await_places(victim, profile, places), do: until(Victim.places(victim, profile) == places)

  defp closed?(socket), do: :gen_tcp.recv(socket, 0, 0) not in [{:error, :timeout}]

  describe "connections" do
    @describetag rows: [77, 117]

    test "before the knock: at the limit all stay, one past it one of all goes" do
      victim = Victim.start(limits: [pending_connections_max: 8, handshake_ms: 60_000])
      at = [port: victim.ports.plain]
      sockets = for _ <- 1..8, do: RawClient.connect(at)
      await_places(victim, :plain, {8, 0})
      assert counters(victim.alice, [:connections_evicted]) == %{connections_evicted: 0}
      refute Enum.any?(sockets, &closed?/1)

      sockets = [RawClient.connect(at) | sockets]
      until(counters(victim.alice, [:connections_evicted]) == %{connections_evicted: 1})
      until(Enum.count(sockets, &closed?/1) == 1)
      await_places(victim, :plain, {8, 0})
      Enum.each(sockets, &:gen_tcp.close/1)
      await_places(victim, :plain, {0, 0})
      Victim.assert_well(victim)
    end

    test "who fills all places evicts mostly itself, and an honest peer gets through" do
      victim = Victim.start(limits: [pending_connections_max: 8, handshake_ms: 60_000])
      sockets = for _ <- 1..200, do: RawClient.connect(port: victim.ports.tls)
      until(counters(victim.alice, [:connections_evicted]).connections_evicted == 192)
      Victim.assert_well(victim, held: 8)
      Enum.each(sockets, &:gen_tcp.close/1)
    end

    # Until the knock is through and no further.
    defp knocking(victim, profile) do
      # The record of a ClientHello has no fixed length: all of what is sent before anything has come back.
      client = RawClient.open(Victim.raw(victim, profile))
      {:ok, client} = RawClient.flush(client)
      client
    end

    test "after the knock: at the limit all stay, the next is turned away" do
      victim = Victim.start(limits: [handshakes_max: 3, handshake_ms: 60_000])
      clients = for _ <- 1..3, do: knocking(victim, :plain)
      await_places(victim, :plain, {0, 3})
      assert counters(victim.alice, [:handshakes_refused]) == %{handshakes_refused: 0}

      next = knocking(victim, :plain)
      until(counters(victim.alice, [:handshakes_refused]) == %{handshakes_refused: 1})
      RawClient.read_to_end(next.socket)
      assert Victim.places(victim, :plain) == {0, 3}
      Enum.each(clients, &RawClient.close/1)
      await_places(victim, :plain, {0, 0})
      Victim.assert_well(victim)
    end

    test "an address that had a session within the hour has as many places again" do
      victim = Victim.start(limits: [handshakes_max: 3, handshake_ms: 60_000])
      # Bob has come in there.
      clients = for _ <- 1..6, do: knocking(victim, :tls)
      await_places(victim, :tls, {0, 6})
      next = knocking(victim, :tls)
      until(counters(victim.alice, [:handshakes_refused]) == %{handshakes_refused: 1})
      RawClient.read_to_end(next.socket)
      Enum.each(clients, &RawClient.close/1)
      await_places(victim, :tls, {0, 0})
      Victim.assert_well(victim)
    end

    test "an address that fails too often within a second is turned away for the rest of it" do
      victim = Victim.start(limits: [failed_handshakes_per_s: 5])
      raw = Victim.raw(victim, :plain, realm: "stranger")

      # A second may end between any two: then there is another.
      results =
        for _ <- 1..100 do
          {result, client} = RawClient.handshake(RawClient.open(raw))
          RawClient.close(client)
          result
        end

      refused = Enum.count(results, &(&1 == :closed_silently))
      assert Enum.uniq(results) -- [{:closed, :unlisted}, :closed_silently] == []
      assert refused > 0

      until(
        counters(victim.alice, [:connections_refused, :hellos_unlisted]) == %{
          connections_refused: refused,
          hellos_unlisted: 100 - refused
        }
      )

      # No five in a row are refused before five have failed.
      assert Enum.take(results, 5) == List.duplicate({:closed, :unlisted}, 5)

      # And who is on the list gets in when the second is over.
      until(match?({:up, _client}, RawClient.handshake(RawClient.open(Victim.raw(victim, :plain)))))
      Victim.assert_well(victim, held: 1)
    end

    test "knocks are remembered up to the limit, and then the answer is no" do
      # Bob's is one of them.
      victim = Victim.start(limits: [knock_entries_max: 3])

      for _ <- 1..2 do
        {:up, client} = RawClient.handshake(RawClient.open(Victim.raw(victim, :tls)))
        RawClient.close(client)
      end

      assert counters(victim.alice, [:knock_memory_full]) == %{knock_memory_full: 0}
      assert {:closed_silently, %{bytes_back: 0}} = RawClient.handshake(RawClient.open(Victim.raw(victim, :tls)))
      until(counters(victim.alice, [:knock_memory_full]) == %{knock_memory_full: 1})
      # The links that are up are none of its business.
      assert GenServer.call(via(victim.bob, "engine@alice"), :still) == :ok
    end

    test "a knock from before our start is refused, however fresh" do
      victim = Victim.start()
      late = start_realm("late", key: key_file("alice"), limits: [knock_boot_ms: 60_000], peers: [peer("mallory")])
      {:tcp, [host: _, port: port]} = listen(late, :tcp_tls)
      raw = Victim.raw(victim, :tls, port: port)
      assert {:closed_silently, %{bytes_back: 0}} = RawClient.handshake(RawClient.open(raw))
      until(counters(late, [:knocks_refused]) == %{knocks_refused: 1})
    end
  end

  describe "calls" do
    @describetag rows: [77]

    test "of a peer are served up to the limit, and the next is refused as overload" do
      victim = Victim.start(neighbours: false, limits: [calls_max: 3])
      :sys.suspend(victim.engine)
      held = for number <- 1..3, do: async_call(via(victim.bob, "engine@alice"), number)
      until(session_counter(victim.alice, "bob", :calls_served) == 3)

      assert GenServer.call(via(victim.bob, "engine@alice"), 4) == {:error, {:legation, :overload}}
      assert session_counter(victim.alice, "bob", :overload_in) == 1
      assert session_counter(victim.alice, "bob", :calls_over_limit) == 1
      assert session_counter(victim.alice, "bob", :callers_over_limit) == 0
      :sys.resume(victim.engine)
      for pid <- held, do: assert(await_call(pid) == {:reply, :ok})
      assert GenServer.call(via(victim.bob, "engine@alice"), 5) == :ok
    end

    test "of ours are in flight up to the limit" do
      victim = Victim.start()
      carol = start_realm("carol", limits: [calls_max: 3])
      link(victim.alice, carol, :unix)
      await_engine(carol, "engine@alice")
      :sys.suspend(victim.engine)
      held = for number <- 1..3, do: async_call(via(carol, "engine@alice"), number)
      until(session_counter(carol, "alice", :calls_pending) == 3)

      assert GenServer.call(via(carol, "engine@alice"), 4) == {:error, {:legation, :overload}}
      assert session_counter(carol, "alice", :overload_out) == 1
      :sys.resume(victim.engine)
      for pid <- held, do: assert(await_call(pid) == {:reply, :ok})
      assert GenServer.call(via(carol, "engine@alice"), 5) == :ok
    end

    test "come from as many processes of a peer as the limit says, until one of them ends" do
      victim = Victim.start(neighbours: false, limits: [callers_max: 3])
      # Callers that stay.
      callers = for _ <- 1..4, do: start_supervised!({Agent, fn -> nil end}, id: make_ref())
      call = fn caller -> Agent.get(caller, fn _ -> GenServer.call(via(victim.bob, "engine@alice"), :hello) end) end
      assert Enum.map(callers, call) == [:ok, :ok, :ok, {:error, {:legation, :overload}}]
      assert session_counter(victim.alice, "bob", :overload_in) == 1
      assert session_counter(victim.alice, "bob", :callers_over_limit) == 1
      # Again, and not once more for the same one.
      assert Enum.map(callers, call) == [:ok, :ok, :ok, {:error, {:legation, :overload}}]

      Agent.stop(hd(callers))
      until(call.(List.last(callers)) == :ok)
    end
  end

  describe "an engine's mailbox" do
    @describetag rows: [76, 77]

    test "takes messages of peers up to the limit; then casts are dropped and calls refused" do
      victim = Victim.start(neighbours: false, limits: [engine_queue_max: 3])
      name = via(victim.bob, "engine@alice")
      :sys.suspend(victim.engine)
      for number <- 1..3, do: GenServer.cast(name, number)
      until(Process.info(victim.engine, :message_queue_len) == {:message_queue_len, 3})
      assert counters(victim.alice, [:dropped_overload]) == %{dropped_overload: 0}

      GenServer.cast(name, 4)
      assert GenServer.call(name, 5) == {:error, {:legation, :overload}}
      assert counters(victim.alice, [:dropped_overload, :calls_refused]) == %{dropped_overload: 1, calls_refused: 1}
      # Others are not held up by it.
      assert GenServer.call(via(victim.bob, "count@alice"), :get) == 0
      :sys.resume(victim.engine)
      assert Victim.told(victim) == [cast: 1, cast: 2, cast: 3]
      assert GenServer.call(name, 6) == :ok
    end
  end

  describe "a message" do
    for {direction, limits} <- [
          {"we accept", {[message_bytes_max: 1_000], []}},
          {"the peer sends", {[], [message_bytes_max: 1_000]}}
        ] do
      @tag rows: [74]
      test "is as large as the limit of what #{direction}, and no larger" do
        {accepts, sends} = unquote(Macro.escape(limits))
        victim = Victim.start(limits: accepts)
        carol = start_realm("carol", limits: sends)
        link(victim.alice, carol, :unix)
        await_engine(carol, "engine@alice")
        name = via(carol, "engine@alice")
        # A binary in external term format has 6 bytes more.
        largest = :binary.copy("x", 994)
        assert GenServer.call(name, largest) == :ok
        assert GenServer.call(name, largest <> "x") == {:error, {:legation, :too_large}}
        GenServer.cast(name, largest <> "x")
        GenServer.cast(name, largest)
        assert GenServer.call(name, :last) == :ok
        assert Victim.told(victim) == [call: largest, cast: largest, call: :last]
        assert session_counter(carol, "alice", :too_large_out) == 2
        assert counters(carol, [:dropped_too_large]) == %{dropped_too_large: 1}
      end
    end
  end

  describe "the terms of a message" do
    @describetag rows: [71]

    test "are nested as deep as the limit says, and no deeper" do
      victim = Victim.start(limits: [depth_max: 10])
      nested = fn depth -> Enum.reduce(1..depth, :ok, fn _level, term -> {term} end) end
      name = via(victim.bob, "engine@alice")
      assert GenServer.call(name, nested.(10)) == :ok
      assert GenServer.call(name, nested.(11)) == {:error, {:legation, :undecodable}}
      assert session_counter(victim.alice, "bob", :bad_term) == 1
      assert Victim.told(victim) == [call: nested.(10)]
    end
  end

  describe "a link" do
    @describetag :embedded

    test "whose peer is silent is ended and counted" do
      wire = {:wire, make_ref()}
      alice = start_realm("alice", limits: [ping_ms: 50], listen: [memory: [name: wire]], peers: [peer("bob")])

      bob = start_realm("bob", peers: [peer("alice", connect: [memory: [name: wire]])])

      watch = watch(alice)
      await(watch, {:peer_up, "bob"})
      Memory.set(wire, stall: true)
      await(watch, {:peer_lost, "bob"})
      assert %{links_silent: 1} = counters(alice, [:links_silent])
      assert is_atom(bob)
    end
  end

  describe "the outbound queue of a peer that takes nothing" do
    @describetag :embedded

    defp stalled(limits) do
      victim = Victim.start()
      wire = {:wire, make_ref()}
      carol = start_realm("carol", limits: limits)
      {:ok, _info} = Legation.add_listener({:memory, name: wire}, victim.alice)
      :ok = Legation.connect(peer("carol"), victim.alice)
      :ok = Legation.connect(peer("alice", connect: [{:memory, name: wire}]), carol)
      await_engine(carol, "engine@alice")
      proxy = Legation.whereis("engine@alice", carol)
      assert GenServer.call(proxy, :first) == :ok
      assert Victim.told(victim) == [call: :first]
      Memory.set(wire, stall: true)
      {victim, carol, proxy, wire, fill(proxy, wire, 0)}
    end

    # Until the carrier takes no more and the Writer waits for it, and then what fills the queue. How many that were.
    defp fill(proxy, wire, filled) do
      cast_and_settle(proxy, {:fill, :binary.copy("x", 10_000)})
      [pipe] = Memory.Hub.call({:pipes, wire})

      if :queue.is_empty(:sys.get_state(pipe).listener.blocked) do
        fill(proxy, wire, filled + 1)
      else
        for _ <- 1..10, do: cast_and_settle(proxy, {:fill, :binary.copy("x", 10_000)})
        filled + 11
      end
    end

    # The proxy has pushed it when it answers. (Its own `:sys` is the engine's, so it is asked for its mailbox.)
    defp cast_and_settle(proxy, message) do
      GenServer.cast(proxy, message)
      until(Process.info(proxy, [:message_queue_len, :status]) == [message_queue_len: 0, status: :waiting])
    end

    test "is bounded; the newest casts are dropped and calls refused, and it goes on afterwards" do
      {victim, carol, proxy, wire, filled} = stalled(queue_bytes_max: 20_000, overflow: :newest)
      before = counters(carol, [:dropped_overload]).dropped_overload
      assert before > 0
      for number <- 1..5, do: cast_and_settle(proxy, {number, :binary.copy("y", 10_000)})
      assert counters(carol, [:dropped_overload]) == %{dropped_overload: before + 5}
      assert session_counter(carol, "alice", :queue_bytes) <= 20_000
      assert GenServer.call(proxy, :binary.copy("z", 10_000)) == {:error, {:legation, :overload}}

      Memory.set(wire, stall: false)
      until(session_counter(carol, "alice", :queue_bytes) == 0)
      assert GenServer.call(proxy, :last) == :ok
      told = Victim.told(victim)
      assert List.last(told) == {:call, :last}
      assert length(told) == 1 + filled - before
      assert Enum.all?(Enum.drop(told, -1), &match?({:cast, {:fill, _}}, &1))
    end

    test "is bounded; the oldest casts are dropped, and the last ones arrive" do
      {victim, carol, proxy, wire, filled} = stalled(queue_bytes_max: 20_000, overflow: :oldest)
      before = session_counter(carol, "alice", :dropped_oldest)
      assert before > 0
      for number <- 1..5, do: cast_and_settle(proxy, {number, :binary.copy("y", 8_000)})
      assert session_counter(carol, "alice", :queue_bytes) <= 20_000

      Memory.set(wire, stall: false)
      until(session_counter(carol, "alice", :queue_bytes) == 0)
      assert GenServer.call(proxy, :last) == :ok
      # Those that were on their way already can't be dropped any more; a new one had to be, now and then.
      newest = counters(carol, [:dropped_overload]).dropped_overload
      dropped = session_counter(carol, "alice", :dropped_oldest) + newest
      told = Victim.told(victim)
      assert [{:cast, {4, _}}, {:cast, {5, _}}, {:call, :last}] = Enum.take(told, -3)
      assert length(told) == 1 + filled + 5 - dropped
      assert newest < filled / 2
    end

    test "is bounded for an engine, and others have room" do
      {victim, carol, proxy, wire, _filled} = stalled(engine_queue_bytes_max: 20_000)
      await_engine(carol, "private@alice")
      other = Legation.whereis("private@alice", carol)
      before = session_counter(carol, "alice", :engine_queue_over_limit)
      assert before > 0
      for number <- 1..5, do: cast_and_settle(proxy, {number, :binary.copy("y", 10_000)})
      assert session_counter(carol, "alice", :engine_queue_over_limit) == before + 5
      assert GenServer.call(proxy, :binary.copy("z", 10_000)) == {:error, {:legation, :overload}}
      cast_and_settle(other, {:other, :binary.copy("y", 10_000)})

      Memory.set(wire, stall: false)
      until(session_counter(carol, "alice", :queue_bytes) == 0)
      assert GenServer.call(other, :last) == :ok
      told = Victim.told(victim)
      assert Enum.any?(told, &match?({:cast, {:other, _}}, &1))
      assert GenServer.call(proxy, :last) == :ok
    end
  end

  describe "time" do
    test "a handshake has as long as the limit says, and a connection before it, too" do
      victim = Victim.start(limits: [handshake_ms: 100])
      # Bob's own may have taken too long.
      before = counters(victim.alice, [:handshakes_failed]).handshakes_failed

      for bytes <- [0, 1, 61, 300] do
        {:stalled, client} = RawClient.handshake(RawClient.open(Victim.raw(victim, :tls, bytes: bytes)))
        started = System.monotonic_time(:millisecond)
        RawClient.read_to_end(client.socket)
        assert System.monotonic_time(:millisecond) - started < 5_000
        RawClient.close(client)
      end

      until(counters(victim.alice, [:handshakes_failed]) == %{handshakes_failed: before + 4})
      Victim.assert_well(victim)
    end

    @tag :embedded
    test "a peer that is silent for twice ping_ms is given up, and its calls end" do
      victim = Victim.start()
      wire = {:wire, make_ref()}
      carol = start_realm("carol", limits: [ping_ms: 100, grace_ms: 0])
      {:ok, _info} = Legation.add_listener({:memory, name: wire}, victim.alice)
      :ok = Legation.connect(peer("carol"), victim.alice)
      :ok = Legation.connect(peer("alice", connect: [{:memory, name: wire}]), carol)
      await_engine(carol, "engine@alice")
      :sys.suspend(victim.engine)
      held = async_call(via(carol, "engine@alice"), :held)
      until(session_counter(victim.alice, "carol", :calls_served) == 1)
      watch = watch(carol)
      Memory.set(wire, stall: true)
      assert {:fault, :timeout, _words} = await(watch, {:peer_down, "alice"})
      assert {:exit, {:noconnection, _call}} = await_call(held)
      :sys.resume(victim.engine)
      Memory.set(wire, stall: false)
    end
  end
end
