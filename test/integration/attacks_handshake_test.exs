defmodule Legation.AttacksHandshakeTest do
  # Those who are not let in, or never finish. Not async: processes, ports and tables are counted.
  use Legation.AttackCase

  alias Legation.Carriers.Memory
  alias Legation.{Native, Relay}

  # A TLS 1.3 ClientHello as OTP makes one, with its record.
  defp client_hello do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listener)
    spawn(fn -> :ssl.connect({127, 0, 0, 1}, port, [versions: [:"tlsv1.3"], verify: :verify_none], 5_000) end)
    {:ok, socket} = :gen_tcp.accept(listener, 5_000)
    {:ok, <<22, _version::16, length::16>> = head} = :gen_tcp.recv(socket, 5, 5_000)
    {:ok, rest} = :gen_tcp.recv(socket, length, 5_000)
    Enum.each([socket, listener], &:gen_tcp.close/1)
    head <> rest
  end

  # What mallory sends first: knock and first flight.
  defp first_flight(victim, profile) do
    client = RawClient.open(Victim.raw(victim, profile))
    RawClient.close(client)
    {bytes, :idle, nil} = Native.channel_flush(client.channel, System.system_time(:millisecond))
    bytes
  end

  defp flip(bytes, at) do
    <<head::binary-size(at), byte, rest::binary>> = bytes
    <<head::binary, Bitwise.bxor(byte, 1), rest::binary>>
  end

  describe "who lacks the network key gets not one byte" do
    @describetag rows: [61, 103]

    for profile <- [:tls, :plain] do
      test "whatever is said (#{profile})" do
        {:ok, _started} = Application.ensure_all_started(:ssl)
        victim = Victim.start(limits: [handshake_ms: 200])
        at = [port: victim.ports[unquote(profile)]]
        knock = first_flight(victim, unquote(profile))
        <<header::binary-size(58), _length::16, flight::binary>> = knock

        said = [
          "",
          "GET / HTTP/1.1\r\n\r\n",
          <<1>>,
          binary_part(knock, 0, 59),
          binary_part(knock, 0, byte_size(knock) - 1),
          :crypto.strong_rand_bytes(64),
          <<1>> <> :crypto.strong_rand_bytes(4_200),
          :binary.copy(<<0>>, 100_000),
          client_hello(),
          flight,
          # Lengths of the first flight that can't be, with what they promise.
          header <> <<0::little-16>>,
          header <> <<4_097::little-16>> <> :binary.copy(<<22>>, 4_097),
          header <> <<65_535::little-16>> <> :binary.copy(<<22>>, 65_535)
        ]

        for bytes <- said, do: assert({bytes, RawClient.say(at, bytes)} == {bytes, ""})
        until(Legation.counters(victim.alice).knocks_refused >= 8)
        Victim.assert_well(victim)
      end

      test "nor who changes a byte of a knock, any byte (#{profile})" do
        victim = Victim.start()
        at = [port: victim.ports[unquote(profile)]]
        knock = first_flight(victim, unquote(profile))
        # A longer first flight is waited for.
        changed = for byte <- 0..(byte_size(knock) - 1), byte not in 58..59, do: flip(knock, byte)
        for bytes <- changed, do: assert(RawClient.say(at, bytes) == "")
        until(Legation.counters(victim.alice).knocks_refused == length(changed))
        Victim.assert_well(victim)
      end

      test "nor who replays a first flight, or a whole handshake (#{profile})" do
        victim = Victim.start()
        relay = start_supervised!({Relay, {victim.ports[unquote(profile)], &[&1]}})
        client = RawClient.open(Victim.raw(victim, unquote(profile), port: Relay.port(relay)))
        assert {:up, client} = RawClient.handshake(client)
        await(victim.watch, {:peer_up, "mallory"})
        RawClient.close(client)
        await(victim.watch, {:peer_down, "mallory"})
        [[first | _rest] = whole] = Relay.heard(relay)

        for bytes <- [first, IO.iodata_to_binary(whole)],
            do: assert(RawClient.say([port: victim.ports[unquote(profile)]], bytes) == "")

        until(Legation.counters(victim.alice).knocks_refused == 2)
        # A knock says which profile it is for.
        other = if unquote(profile) == :tls, do: :plain, else: :tls
        assert RawClient.say([port: victim.ports[other]], first) == ""
        Victim.assert_well(victim)
      end

      test "nor who replays it after a restart (#{profile})" do
        victim = Victim.start()
        knock = first_flight(victim, unquote(profile))
        stop_realm(victim.alice)
        again = Victim.start()
        assert RawClient.say([port: again.ports[unquote(profile)]], knock) == ""
        until(Legation.counters(again.alice).knocks_refused == 1)
      end

      test "the hostile peer without the network key gets none, either (#{profile})" do
        victim = Victim.start()
        report = Victim.attack(victim, "wrong-network", profile: unquote(profile))
        assert %{"bytes_back" => 0, "link" => "closed-silently"} = report
        report = Victim.attack(victim, "replay-knock", profile: unquote(profile))
        assert %{"first" => "answered", "bytes_back" => 0, "link" => "closed-silently"} = report
        Victim.assert_well(victim)
      end
    end

    test "nor who knocks at another realm's door" do
      victim = Victim.start()
      client = RawClient.open(Victim.raw(victim, :tls, peer: public_key("carol")))
      assert {:closed_silently, %{bytes_back: 0}} = RawClient.handshake(client)
      Victim.assert_well(victim)
    end
  end

  @tag :embedded
  @tag rows: [60, 104]
  test "a recorded session delivers nothing again, in the clear on a local carrier, before and after a restart" do
    {:ok, engine} = Victim.Engine.start_link(self())
    test = self()
    options = realm_options("alice", listen: [memory: [name: :recorded]], peers: [peer("bob")])
    start_supervised!({Legation, options}, id: :alice)
    publish(options[:name], "engine", engine)
    Memory.tap(:recorded, fn direction, bytes -> send(test, {direction, bytes}) && bytes end)

    bob = start_realm("bob", peers: [peer("alice", connect: [memory: [name: :recorded]])])
    await_engine(bob, "engine@alice")
    assert GenServer.call(via(bob, "engine@alice"), :once) == :ok
    assert_received {:told, {:call, :once}}
    stop_realm(bob)
    await_down(options[:name])

    recorded = recorded([])
    assert byte_size(IO.iodata_to_binary(recorded)) > 500
    Memory.tap(:recorded, nil)

    replay(recorded)
    refute_received {:told, _again}
    stop_supervised!(:alice)
    start_supervised!({Legation, options}, id: :alice)
    publish(options[:name], "engine", engine)
    replay(recorded)
    refute_received {:told, _again}
    assert Legation.counters(options[:name]).sessions == %{}
  end

  defp await_down(instance) do
    watch = watch(instance)
    if is_map_key(watch.snapshot.peers, "bob"), do: await(watch, {:peer_down, "bob"})
    unwatch(watch)
  end

  defp recorded(pieces) do
    receive do
      {:to_listener, bytes} -> recorded([bytes | pieces])
      {:to_dialler, _bytes} -> recorded(pieces)
    after
      0 -> Enum.reverse(pieces)
    end
  end

  defp replay(pieces) do
    {:ok, conn} = Memory.connect([name: :recorded], 5_000)
    for piece <- pieces, do: Memory.send(conn, piece)
    Memory.activate(conn, 100)
    await_close(conn)
  end

  defp await_close(conn) do
    receive do
      message ->
        case Memory.stream(conn, message) do
          end? when end? == :closed or elem(end?, 0) == :error -> :ok
          _bytes -> await_close(conn)
        end
    after
      10_000 -> flunk("the replay was not closed")
    end
  end

  describe "keys" do
    for profile <- [:tls, :plain, :local] do
      @tag rows: [61]
      test "that are on no list are turned away with a word, when they have proven themselves (#{profile})" do
        victim = Victim.start()
        report = Victim.attack(victim, "none", profile: unquote(profile), realm: "stranger")
        assert %{"link" => "closed:unlisted", "sent" => 0} = report
        until(match?(%{hellos_unlisted: 1, handshakes_failed: 1}, Legation.counters(victim.alice)))
        assert Victim.told(victim) == []
        Victim.assert_well(victim)
      end
    end

    @tag rows: [108]
    test "wrong ones a thousand times do not keep the right one out" do
      victim = Victim.start(limits: [failed_handshakes_per_s: 10_000])
      snapshot = Victim.snapshot()
      report = Victim.attack(victim, "wrong-keys", count: 1_000)
      assert %{"unlisted" => 1_000, "link" => "alive"} = report
      await(victim.watch, {:peer_down, "mallory"})
      until(Legation.counters(victim.alice).hellos_unlisted == 1_000)
      Victim.assert_nothing_left(snapshot)
      Victim.assert_well(victim)
    end
  end

  describe "a handshake that is not finished" do
    for profile <- [:tls, :plain, :local] do
      @tag rows: [109]
      test "but cut at any byte leaves nothing behind (#{profile})" do
        victim = Victim.start(limits: [failed_handshakes_per_s: 100_000])
        snapshot = Victim.snapshot()
        report = Victim.attack(victim, "cut-everywhere", profile: unquote(profile))
        assert %{"whole" => whole, "sent" => whole} = report
        assert whole > 300
        Victim.assert_nothing_left(snapshot)
        assert_one_session(victim)
        Victim.assert_well(victim)
      end

      @tag rows: [109]
      test "but stalled at any byte ends within its time (#{profile})" do
        limits = [
          failed_handshakes_per_s: 100_000,
          handshakes_max: 10_000,
          pending_connections_max: 10_000,
          handshake_ms: 1_000
        ]

        victim = Victim.start(limits: limits)
        snapshot = Victim.snapshot()
        report = Victim.attack(victim, "stall-everywhere", profile: unquote(profile))
        assert %{"whole" => whole, "sent" => whole, "left_open" => 0} = report
        Victim.assert_nothing_left(snapshot)
        assert_one_session(victim)
        Victim.assert_well(victim)
      end
    end

    # The one with which the hostile peer finds out how long a handshake is.
    defp assert_one_session(victim) do
      assert %{sessions: 1, messages_in: 0} = Victim.counted(victim)
      assert Victim.told(victim) == []
    end

    test "the hostile peer's, stalled behind its knock, is closed when its time is over" do
      victim = Victim.start(limits: [handshake_ms: 300])
      assert %{"link" => link, "waited_ms" => waited_ms} = Victim.attack(victim, "stall-at", byte: 300)
      assert link in ["closed-silently", "closed:timeout"]
      assert waited_ms in 250..5_000
      assert %{"link" => "cut"} = Victim.attack(victim, "cut-at", byte: 300)
      Victim.assert_well(victim)
    end
  end

  describe "bytes" do
    for profile <- [:tls, :plain],
        {words, cut} <- [{"one by one", 1}, {"in threes", 3}, {"in pieces of 1,000", 1_000}] do
      @tag rows: [73]
      test "mean the same #{words} (#{profile})" do
        victim = Victim.start()
        cut = fn bytes -> for <<piece::binary-size(unquote(cut)) <- bytes>>, do: piece end
        rest = fn bytes -> binary_part(bytes, byte_size(bytes), -rem(byte_size(bytes), unquote(cut))) end
        relay = start_supervised!({Relay, {victim.ports[unquote(profile)], &(cut.(&1) ++ [rest.(&1)])}})
        carol = start_realm("carol")
        :ok = Legation.connect(peer("carol"), victim.alice)
        address = {:tcp, host: "127.0.0.1", port: Relay.port(relay), profile: unquote(profile)}
        :ok = Legation.connect(peer("alice", connect: [address]), carol)
        await_engine(carol, "engine@alice")
        large = :crypto.strong_rand_bytes(5_000)
        for message <- [1, large, [2]], do: assert(GenServer.call(via(carol, "engine@alice"), message) == :ok)
        assert Victim.told(victim) == [call: 1, call: large, call: [2]]
      end
    end

    @tag rows: [110]
    test "of a length that can't be, anywhere in a frame, harm their own link only, and memory is bounded" do
      victim = Victim.start()
      {:ok, link} = local(victim)
      :ok = push(link, "as it should be")
      {frame, :idle, nil} = Native.channel_flush(link.channel, System.system_time(:millisecond))
      assert <<3, 1, length::little-32, body::binary-size(length)>> = frame
      # Header, counts, lengths, the row; the payload and the signature behind them are no numbers.
      numbers = 6 + byte_size(body) - 64 - 17
      memory = :erlang.memory(:total)

      for at <- 2..numbers, number <- [0, 1, 3, 0x80000000, 0xFFFFFFFF] do
        {:ok, link} = local(victim)
        :ok = push(link, "as it should be")
        {frame, :idle, nil} = Native.channel_flush(link.channel, System.system_time(:millisecond))
        <<head::binary-size(at), _number::32, rest::binary>> = frame
        :ok = :gen_tcp.send(link.socket, <<head::binary, number::little-32, rest::binary>>)
        RawClient.close(link)
        await(victim.watch, {:peer_down, "mallory"})
      end

      assert Victim.told(victim) == []
      assert Legation.counters(victim.alice).ended["mallory"].messages_in == 0
      assert :erlang.memory(:total) - memory < 64 * 1024 * 1024
      Victim.assert_well(victim)
    end

    # On this profile frames are bytes on the wire. Mallory's own certificate isn't there, so that not even the unchanged frame counts.
    defp local(victim) do
      {:up, client} = RawClient.handshake(RawClient.open(Victim.raw(victim, :local)))
      await(victim.watch, {:peer_up, "mallory"})
      {:ok, client}
    end

    defp push(client, message) do
      with {:ok, []} <- Native.session_push(client.session, "engine", :cast, "", :erlang.term_to_binary(message)),
           do: :ok
    end
  end
end
