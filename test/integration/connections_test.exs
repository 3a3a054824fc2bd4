defmodule Legation.ConnectionsTest do
  # Rows 22, 45-48, 53, 61, 65, 79, 96, 100: how links come, go and come back, and what a crash takes with it.
  use Legation.Case, async: true

  alias Legation.Carriers.Memory
  alias Legation.{Cable, Instance, Native}

  # A carrier of a user's: TCP with every byte inverted.
  defmodule Inverted do
    @behaviour Legation.Carrier
    alias Legation.Carriers.Tcp

    @impl true
    defdelegate connect(opts, timeout_ms), to: Tcp
    @impl true
    defdelegate listen(opts), to: Tcp
    @impl true
    defdelegate accept(listener, timeout_ms), to: Tcp
    @impl true
    defdelegate close_listener(listener), to: Tcp
    @impl true
    defdelegate controlling_process(conn, pid), to: Tcp
    @impl true
    defdelegate activate(conn, count), to: Tcp
    @impl true
    defdelegate close(conn), to: Tcp
    @impl true
    def peer_label(conn), do: {:inverted, Tcp.peer_label(conn)}
    @impl true
    def check_peer(_conn, opts), do: if(opts[:refuse], do: {:error, :refused_by_carrier}, else: :ok)
    @impl true
    def default_profile, do: :tls
    @impl true
    def knock?, do: true
    @impl true
    def send(conn, bytes), do: Tcp.send(conn, bytes |> IO.iodata_to_binary() |> invert())

    @impl true
    def stream(conn, message) do
      with {:data, bytes} <- Tcp.stream(conn, message), do: {:data, invert(bytes)}
    end

    defp invert(bytes), do: :crypto.exor(bytes, :binary.copy(<<255>>, byte_size(bytes)))
  end

  defp counter_at(alice, learners, name \\ "counter") do
    counter = start_supervised!({Counter, 1}, id: make_ref())
    publish(alice, name, counter, learners)
  end

  # Nobody takes connections there, and there is no room for another: the kernel passes over who asks for one.
  defp silent_address do
    {:ok, listener} = :gen_tcp.listen(0, backlog: 0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(listener)
    fill(port)
    {:tcp, host: "127.0.0.1", port: port}
  end

  defp fill(port) do
    with {:ok, _socket} <- :gen_tcp.connect({127, 0, 0, 1}, port, [], 500), do: fill(port)
  end

  describe "carriers" do
    @tag :embedded
    test "a user's own is plugged in by its module" do
      alice = start_realm("alice")
      bob = start_realm("bob")
      {:ok, %{address: address}} = Legation.add_listener({Inverted, port: 0, ip: {127, 0, 0, 1}}, alice)
      :ok = Legation.connect(peer("bob"), alice)
      :ok = Legation.connect(peer("alice", connect: [{Inverted, host: "127.0.0.1", port: address[:port]}]), bob)
      counter_at(alice, [bob])
      assert GenServer.call(via(bob, "counter@alice"), :get) == 1

      assert [%{carrier: Inverted, profile: :tls, address: {:inverted, {{127, 0, 0, 1}, _port}}}] =
               Legation.connections(bob)
    end

    @tag :embedded
    test "a carrier's check of the other end is asked first" do
      alice = start_realm("alice")
      bob = start_realm("bob")
      {:ok, %{address: address}} = Legation.add_listener({Inverted, port: 0, ip: {127, 0, 0, 1}}, alice)
      :ok = Legation.connect(peer("bob"), alice)
      dial = [{Inverted, host: "127.0.0.1", port: address[:port], refuse: true}]
      :ok = Legation.connect(peer("alice", connect: dial), bob)
      assert await_dial_failures(bob, "alice") == {:connect, :refused_by_carrier}
    end

    @tag :embedded
    test "the one in memory delays, and when it is cut calls end and the link comes back" do
      alice = start_realm("alice", limits: [grace_ms: 0])
      bob = start_realm("bob", limits: [grace_ms: 0])
      {:memory, name: name} = link(alice, bob, :memory)
      {:ok, echo} = Echo.start_link(owner: self())
      publish(alice, "echo", echo, [bob])
      Memory.set(name, delay_ms: 20)
      {us, 1} = :timer.tc(fn -> GenServer.call(via(bob, "echo@alice"), {:echo, 1}) end)
      assert us >= 40_000
      Memory.set(name, delay_ms: 0)

      watch = watch(bob)
      call = async_call(via(bob, "echo@alice"), {:hold, 1})
      assert_receive {:held, 1, _from}
      assert Memory.cut(name) == 1
      assert {:exit, {:noconnection, _call}} = await_call(call)
      assert {:carrier, _reason} = await(watch, {:peer_down, "alice"})
      await(watch, {:peer_up, "alice"})
      await(watch, {:engine_learned, "echo@alice"})
      assert GenServer.call(via(bob, "echo@alice"), {:echo, 2}) == 2
    end

    @tag :embedded
    test "what is altered on the way ends a link that is protected, and nothing of it is delivered" do
      alice = start_realm("alice", limits: [grace_ms: 0])
      bob = start_realm("bob", limits: [grace_ms: 0])
      name = System.unique_integer([:positive])
      {:ok, _listener} = Legation.add_listener({:memory, name: name, profile: :plain}, alice)
      :ok = Legation.connect(peer("bob"), alice)
      :ok = Legation.connect(peer("alice", connect: [memory: [name: name, profile: :plain]]), bob)
      {:ok, echo} = Echo.start_link(owner: self())
      publish(alice, "echo", echo, [bob])
      watch = watch(bob)

      Memory.tap(name, fn
        :to_listener, bytes -> flip_last_bit(bytes)
        :to_dialler, bytes -> bytes
      end)

      GenServer.cast(via(bob, "echo@alice"), :altered)
      await(watch, {:peer_down, "alice"})
      Memory.tap(name, nil)
      await(watch, {:peer_up, "alice"})
      await(watch, {:engine_learned, "echo@alice"})
      assert GenServer.call(via(bob, "echo@alice"), {:echo, 1}) == 1
      refute_received {:cast, :altered}
    end

    test "a Unix socket's file is its user's alone, unless others may come" do
      alice = start_realm("alice")

      for {uids, mode} <- [{nil, 0o600}, {[4_242], 0o666}] do
        path = socket_path()
        opts = if uids, do: [path: path, uids: uids], else: [path: path]
        {:ok, _listener} = Legation.add_listener({:unix, opts}, alice)
        assert Bitwise.band(File.stat!(path).mode, 0o777) == mode
      end
    end

    test "a Unix socket's other end must be of a user that may be there" do
      alice = start_realm("alice")
      bob = start_realm("bob")
      path = socket_path()
      {:ok, _listener} = Legation.add_listener({:unix, path: path, uids: [4_242]}, alice)
      :ok = Legation.connect(peer("bob"), alice)
      :ok = Legation.connect(peer("alice", connect: [unix: [path: path]]), bob)
      # Closed without a word, which a daemon calls what it may mean.
      assert match?({:carrier, _closed}, await_dial_failures(bob, "alice")) == (transport(bob) == :embedded)
      assert [%{last_error: "closed before it answered: " <> _guesses}] = Legation.peers(bob)
      assert Legation.peers(alice) |> Enum.map(& &1.state) == [:listening]
    end
  end

  defp flip_last_bit(bytes) do
    size = byte_size(bytes) - 1
    <<head::binary-size(size), last>> = bytes
    <<head::binary, Bitwise.bxor(last, 1)>>
  end

  describe "a cable" do
    test "is what the link goes through, and where it is cut the realms dial again through it" do
      alice = start_realm("alice")
      bob = start_realm("bob")
      cable = Cable.start()
      link(alice, bob, :tcp_tls, through: cable)
      :ok = Cable.await_connected(cable)
      counter_at(alice, [bob])
      before = Cable.passed(cable)
      assert GenServer.call(via(bob, "counter@alice"), :get) == 1
      # What has passed is counted a moment later.
      until(Cable.passed(cable).to_listener > before.to_listener)
      until(Cable.passed(cable).to_dialler > before.to_dialler)
      assert Cable.cut(cable) == 1
      :ok = Cable.await_connected(cable)
      assert Cable.connections(cable) == 1
    end
  end

  describe "listeners" do
    test "port 0 is read back, and several are started and stopped alone" do
      alice = start_realm("alice", listen: [listen_address(:tcp_tls), listen_address(:unix)])

      assert [%{address: bound} = first, %{address: [path: path]}] =
               alice |> Legation.listeners() |> Enum.sort_by(& &1.carrier)

      port = bound[:port]
      assert port > 0
      {:ok, %{id: id, address: third}} = Legation.add_listener({:tcp, port: 0, ip: {127, 0, 0, 1}, id: :third}, alice)
      assert id == :third
      assert third[:port] not in [0, port]
      assert {:error, {:already_listening, :third}} = Legation.add_listener({:tcp, port: 0, id: :third}, alice)

      # A link that came in by one stays when that one is stopped.
      bob = start_realm("bob")
      :ok = Legation.connect(peer("bob"), alice)
      :ok = Legation.connect(peer("alice", connect: [tcp: [host: "127.0.0.1", port: third[:port]]]), bob)
      counter_at(alice, [bob])
      assert :ok = Legation.remove_listener(:third, alice)
      assert {:error, :not_found} = Legation.remove_listener(:third, alice)
      assert {:error, :econnrefused} = :gen_tcp.connect({127, 0, 0, 1}, third[:port], [])
      assert GenServer.call(via(bob, "counter@alice"), :get) == 1

      assert {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, [])
      :gen_tcp.close(socket)
      assert :ok = Legation.remove_listener(first.id, alice)
      assert {:error, :econnrefused} = :gen_tcp.connect({127, 0, 0, 1}, port, [])
      assert File.exists?(path)
      assert [%{address: [path: ^path]}] = Legation.listeners(alice)
    end

    test "an address that is taken is an error in words, and the instance goes on" do
      alice = start_realm("alice")
      {:tcp, [host: _host, port: port]} = listen(alice, :tcp_tls)
      assert {:error, :eaddrinuse} = Legation.add_listener({:tcp, port: port, ip: {127, 0, 0, 1}}, alice)
      assert Legation.Error.message(:eaddrinuse) =~ "in use"
      assert [_one] = Legation.listeners(alice)
    end
  end

  describe "at run time" do
    test "peers are connected and disconnected, engines published and withdrawn" do
      alice = start_realm("alice")
      bob = start_realm("bob")
      assert Legation.connect("alice", bob) == {:error, :unknown_realm}
      assert Legation.disconnect("alice", bob) == {:error, :unknown_realm}
      assert Legation.withdraw("counter", alice) == {:error, :not_published}
      watch = watch(bob)
      link(alice, bob, :tcp_tls)
      await(watch, {:peer_up, "alice"})
      assert {:error, {:already_connected, "alice"}} = Legation.connect(peer("alice"), bob)
      assert Legation.connect("alice", bob) == :ok
      proxy = counter_at(alice, [bob])
      await(watch, {:engine_learned, "counter@alice"})
      monitor = monitor(proxy)

      :ok = Legation.disconnect("alice", bob)
      assert_receive {:DOWN, ^monitor, :process, ^proxy, :noconnection}
      await(watch, {:engine_forgotten, "counter@alice"})
      await(watch, {:peer_down, "alice"})
      assert [%{state: :disconnected}] = Legation.peers(bob)
      assert Legation.connections(bob) == []

      # Nor may alice in, until bob says so.
      :ok = Legation.connect("alice", bob)
      await(watch, {:peer_up, "alice"})
      await(watch, {:engine_learned, "counter@alice"})
      :ok = Legation.withdraw("counter", alice)
      await(watch, {:engine_forgotten, "counter@alice"})
    end

    test "what can't be a peer or an engine is refused" do
      alice = start_realm("alice")
      assert Legation.connect(peer("alice") |> Keyword.put(:realm, "me"), alice) == {:error, :own_key}
      :ok = Legation.connect(peer("bob"), alice)
      assert Legation.connect(peer("bob") |> Keyword.put(:realm, "bob2"), alice) == {:error, {:same_key, "bob"}}
      assert {:error, {:bad_key, _why}} = Legation.connect([realm: "weak", key: <<0::256>>], alice)

      for name <- ["a@b", "", "line\n", String.duplicate("x", 256)],
          do: assert(Legation.publish(name, self(), [], alice) == {:error, :bad_name})

      assert Legation.publish("dead", :nobody_is_called_so, [], alice) == {:error, :noproc}
      assert Legation.publish("one", self(), [], alice) == :ok
      other = start_supervised!({Counter, 1})
      assert Legation.publish("one", other, [], alice) == {:error, {:already_published, self()}}
      assert Legation.publish(String.duplicate("x", 255), self(), [], alice) == :ok
    end

    test "several realms live in one VM, each with its own identity and engines" do
      realms = for name <- ["alice", "bob", "carol"], into: %{}, do: {name, start_realm(name)}

      for {one, two} <- [{"alice", "bob"}, {"bob", "carol"}, {"alice", "carol"}],
          do: link(realms[one], realms[two], :tcp_tls)

      keys = for {_name, instance} <- realms, do: Legation.public_key(instance)
      assert keys == Enum.uniq(keys)

      for {{name, instance}, n} <- Enum.with_index(realms) do
        others = Map.values(Map.delete(realms, name))
        {:ok, counter} = Counter.start_link(n)
        publish(instance, "counter", counter, others)
      end

      for {_name, caller} <- realms, {{name, _instance}, n} <- Enum.with_index(realms) do
        assert GenServer.call(via(caller, "counter@" <> name), :get) == n
      end

      stop_realm(realms["bob"])
      assert GenServer.call(via(realms["alice"], "counter@carol"), :get) == 2
    end
  end

  describe "reconnecting" do
    test "a realm that isn't there is dialled again and again, and found when it is there" do
      alice = start_realm("alice")
      address = {:tcp, [host: _host, port: port]} = listen(alice, :tcp_tls)
      stop_realm(alice)

      bob = start_realm("bob", peers: [peer("alice", connect: [address])])
      watch = watch(bob)
      assert {:connect, :econnrefused} = await_dial_failures(bob, "alice", 4)
      assert [%{state: state, attempts: attempts, last_error: error}] = Legation.peers(bob)
      assert state in [:waiting, :connecting] and attempts >= 4
      assert error == "could not connect: nobody listens there"

      start_realm("alice", listen: [tcp: [port: port, ip: {127, 0, 0, 1}]], peers: [peer("bob")])
      await(watch, {:peer_up, "alice"})
      assert [%{state: :up, attempts: 0, last_error: nil}] = Legation.peers(bob)
    end

    test "a dial that nobody answers is given up in its time, and the next address is dialled" do
      alice = start_realm("alice")
      :ok = Legation.connect(peer("bob"), alice)
      bob = start_realm("bob", limits: [connect_ms: 100, handshake_ms: 600_000])
      watch = watch(bob)
      :ok = Legation.connect(peer("alice", connect: [silent_address(), listen(alice, :tcp_tls)]), bob)
      await_up(watch, "alice")
    end

    test "a dial that nobody answers keeps the peer's own out no moment" do
      # Of two dials at once that of the lower realm counts, if it is one.
      [lower, higher] =
        Enum.sort_by(["alice", "bob"], fn realm ->
          {:ok, key} = realm |> key_file() |> Native.keyring_load()
          key |> Native.keyring_public() |> Native.realm_id()
        end)

      one = start_realm(lower, limits: [connect_ms: 600_000])
      other = start_realm(higher)
      watch = watch(one)
      address = listen(one, :tcp_tls)
      :ok = Legation.connect(peer(higher, connect: [silent_address()]), one)
      until(match?([%{state: :connecting}], Legation.peers(one)))
      :ok = Legation.connect(peer(lower, connect: [address]), other)
      await_up(watch, higher)
      assert Legation.counters(one).hellos_duplicate == 0
    end

    @tag :embedded
    test "the wait doubles up to its cap" do
      bob =
        start_realm("bob",
          limits: [reconnect_min_ms: 1, reconnect_max_ms: 8],
          peers: [peer("alice", connect: [unix: [path: socket_path()]])]
        )

      await_dial_failures(bob, "alice", 6)
      assert %Legation.Backoff{min_ms: 1, max_ms: 8, ceiling_ms: 8} = :sys.get_state(peer_process(bob, "alice")).backoff
    end

    test "after a restart a realm has its identity and its names again" do
      bob = start_realm("bob")
      watch = watch(bob)

      options = [
        name: :"Elixir.Alice#{System.unique_integer([:positive])}",
        listen: [listen_address(:unix)],
        peers: [peer("bob")]
      ]

      alice = start_realm("alice", options)
      [%{address: address}] = Legation.listeners(alice)
      :ok = Legation.connect(peer("alice", connect: [unix: address]), bob)
      counter_at(alice, [bob])
      key = Legation.public_key(alice)
      %{session_id: session} = await(watch, {:peer_up, "alice"})
      stop_realm(alice)
      await(watch, {:peer_down, "alice"})
      ^alice = start_realm("alice", options)
      assert Legation.public_key(alice) == key
      # A new session: nothing of the old one is valid in it.
      assert %{session_id: other} = await(watch, {:peer_up, "alice"})
      assert other != session
      counter_at(alice, [bob])
      assert GenServer.call(via(bob, "counter@alice"), :get) == 1
    end
  end

  describe "a handshake" do
    test "that comes in as many pieces as it may is read at once" do
      alice = start_realm("alice", limits: [handshake_reads: 2])
      # The knock with what belongs to it, and the hello.
      link(alice, start_realm("bob"), :tcp_plain)
      assert Legation.counters(alice).handshakes_slowed == 0
    end

    for carrier <- [:tcp_tls, :tcp_plain] do
      test "that comes in very many over #{carrier} is counted, and comes up all the same" do
        # No stall of the machine's is to end it.
        limits = [handshake_reads: 4, handshake_ms: 60_000]
        alice = start_realm("alice", limits: limits)
        bob = start_realm("bob", limits: limits)
        cable = Cable.start()
        :ok = Cable.slow(cable, 2_000)
        link(alice, bob, unquote(carrier), through: cable)
        Cable.go_on(cable)
        counter_at(alice, [bob])
        assert GenServer.call(via(bob, "counter@alice"), :get) == 1
        assert for(realm <- [alice, bob], do: Legation.counters(realm).handshakes_slowed) == [1, 1]
      end
    end
  end

  describe "who dials is told in words" do
    test "that its key is not on the list" do
      alice = start_realm("alice")
      bob = start_realm("bob", peers: [peer("alice", connect: [listen(alice, :tcp_tls)])])
      assert {:closed, :unlisted, _text} = await_dial_failures(bob, "alice")
      assert [%{last_error: "the peer closed: the key is not on the allow-list" <> _rest}] = Legation.peers(bob)
      until(Legation.counters(alice).hellos_unlisted >= 1)
      assert Legation.peers(alice) == []
    end

    test "that nobody answered: another network key" do
      other_key = Path.join(dir(), "other-#{System.unique_integer([:positive])}.key")
      File.write!(other_key, Base.encode16(:crypto.strong_rand_bytes(32)))
      alice = start_realm("alice", network_key: other_key, peers: [peer("bob")])
      bob = start_realm("bob", peers: [peer("alice", connect: [listen(alice, :tcp_tls)])])
      await_dial_failures(bob, "alice")
      assert [%{last_error: "closed before it answered: " <> guesses}] = Legation.peers(bob)
      assert guesses =~ "network key"
      assert Legation.counters(alice).hellos_unlisted == 0
    end

    test "that who answers has another network key, where there is no knock" do
      other_key = Path.join(dir(), "other-#{System.unique_integer([:positive])}.key")
      File.write!(other_key, Base.encode16(:crypto.strong_rand_bytes(32)))
      alice = start_realm("alice", network_key: other_key, peers: [peer("bob")])
      bob = start_realm("bob", peers: [peer("alice", connect: [listen(alice, :unix)])])
      assert {:fault, :answer, _text} = await_dial_failures(bob, "alice")
      assert [%{last_error: "who answered has not shown our network key" <> _rest}] = Legation.peers(bob)
      assert Legation.counters(bob).answers_refused >= 1
      until(Legation.counters(alice).handshakes_failed >= 1)
    end

    for carrier <- [:tcp_tls, :unix] do
      test "that another realm is there than the one it pinned, over #{carrier}" do
        mallory = start_realm("mallory", peers: [peer("bob")])
        address = listen(mallory, unquote(carrier))
        bob = start_realm("bob", peers: [peer("alice", connect: [address])])
        await_dial_failures(bob, "alice")
        assert [%{last_error: error, state: state}] = Legation.peers(bob)
        assert state != :up
        assert error =~ "other realm"
        assert [%{state: :listening}] = Legation.peers(mallory)
      end
    end

    @tag :embedded
    test "that there is no common version, with both ranges" do
      alice = start_realm("alice", peers: [peer("bob")])
      name = System.unique_integer([:positive])
      {:ok, _listener} = Legation.add_listener({:memory, name: name}, alice)

      # protocol.md 6.1 and 7.1: a frame's header of 6 bytes, role, profile, and the range.
      Memory.tap(name, fn
        :to_listener, bytes ->
          Regex.replace(~r/(\x01\x01..\x00\x00\x01\x02)\x01\x00\x01\x00/s, bytes, "\\1\x05\x00\x07\x00")

        :to_dialler, bytes ->
          bytes
      end)

      bob = start_realm("bob", peers: [peer("alice", connect: [memory: [name: name]])])
      assert {:closed, :version, text} = await_dial_failures(bob, "alice")
      assert text =~ "5" and text =~ "7" and text =~ "1"
      assert [%{last_error: "the peer closed: no common protocol version (" <> _ranges}] = Legation.peers(bob)
      Memory.tap(name, nil)
      assert %{version: 1} = await_up(watch(bob), "alice")
    end
  end

  describe "a crash" do
    @describetag :embedded

    # bob has a link to alice and one to carol; alice's is the one that suffers.
    setup do
      alice = start_realm("alice")
      bob = start_realm("bob")
      carol = start_realm("carol")
      link(alice, bob, :tcp_tls)
      link(carol, bob, :tcp_tls)
      counter_at(alice, [bob])
      counter_at(carol, [bob])
      {:ok, counter} = Counter.start_link(7)
      publish(bob, "mine", counter, [alice, carol])
      %{alice: alice, bob: bob, carol: carol}
    end

    # What a Reader had taken may be lost, so its session ends; what a Writer had taken is kept.
    for {part, down, up} <- [{:reader, :peer_down, :peer_up}, {:writer, :peer_lost, :peer_resumed}] do
      test "of a #{part} ends its own connection, which comes back", %{bob: bob} do
        watch = watch(bob)
        session = session_id(bob, "carol")

        ExUnit.CaptureLog.capture_log(fn ->
          Process.exit(link_processes(bob, "alice")[unquote(part)], :kill)
          await(watch, {unquote(down), "alice"})
        end)

        await(watch, {unquote(up), "alice"})
        if unquote(up) == :peer_up, do: await(watch, {:engine_learned, "counter@alice"})
        assert GenServer.call(via(bob, "counter@alice"), :get) == 1
        refute_received {:legation, _ref, {:peer_down, "carol", _reason}}
        assert session_id(bob, "carol") == session
      end
    end

    test "of a Peer ends its own connection, which comes back", %{bob: bob} do
      watch = watch(bob)
      session = session_id(bob, "carol")
      Process.exit(peer_process(bob, "alice"), :kill)
      await(watch, {:peer_down, "alice"})
      await(watch, {:peer_up, "alice"})
      await(watch, {:engine_learned, "counter@alice"})
      assert GenServer.call(via(bob, "counter@alice"), :get) == 1
      assert session_id(bob, "carol") == session
    end

    test "of a proxy is no more than that: another takes its place", %{bob: bob} do
      sessions = {session_id(bob, "alice"), session_id(bob, "carol")}
      proxy = Legation.whereis("counter@alice", bob)
      supervisor = Process.whereis(Instance.process(bob, ProxySupervisor))
      :erlang.trace(supervisor, true, [:receive])
      Process.exit(proxy, :kill)
      assert_receive {:trace, ^supervisor, :receive, {:EXIT, ^proxy, :killed}}
      # It has told the Directory, which has made another.
      :sys.get_state(supervisor)
      :sys.get_state(Instance.process(bob, Directory))
      assert Legation.whereis("counter@alice", bob) not in [nil, proxy]
      assert GenServer.call(via(bob, "counter@alice"), :get) == 1
      assert {session_id(bob, "alice"), session_id(bob, "carol")} == sessions
    end

    test "of a stand-in is no more than that", %{alice: alice, bob: bob} do
      {:ok, echo} = Echo.start_link(owner: self())
      proxy = publish(alice, "echo", echo, [bob])
      session = session_id(bob, "alice")
      caller = Task.async(fn -> GenServer.call(proxy, {:hold, 1}, :infinity) end)
      assert_receive {:held, 1, {stand_in, _tag}}
      Process.exit(stand_in, :kill)
      # Nobody can answer any more, and the caller is told so: it waits for ever otherwise.
      assert Task.await(caller) == {:error, {:legation, :abandoned}}
      assert GenServer.call(proxy, {:echo, 1}) == 1
      assert session_id(bob, "alice") == session
    end

    for part <- [Keyholder, Directory, GlobalNames, ProxySupervisor, PeerSupervisor, ConnectionSupervisor] do
      test "of #{inspect(part)} is survived: peers, listeners and engines are there again", context do
        %{alice: alice, bob: bob, carol: carol} = context
        {:tcp, [host: _host, port: port]} = listen(bob, :tcp_tls)
        watches = for other <- [alice, carol], do: watch(other)

        ExUnit.CaptureLog.capture_log(fn ->
          bob |> Instance.process(unquote(part)) |> Process.whereis() |> Process.exit(:kill)
          for watch <- watches, do: await(watch, {:peer_down, "bob"})
        end)

        for watch <- watches do
          await(watch, {:peer_up, "bob"})
          await(watch, {:engine_learned, "mine@bob"})
        end

        for {other, name} <- [{alice, "alice"}, {carol, "carol"}] do
          assert GenServer.call(via(other, "mine@bob"), :get) == 7
          await_engine(bob, "counter@" <> name)
          assert GenServer.call(via(bob, "counter@" <> name), :get) == 1
        end

        # Listeners start last, but before the Supervisor answers again.
        Supervisor.which_children(Instance.process(bob, Supervisor))
        assert [%{address: address}] = Legation.listeners(bob)
        assert address[:port] == port
      end
    end
  end

  defp session_id(instance, realm) do
    [id] = for %{realm: ^realm, session_id: id} <- Legation.connections(instance), do: id
    id
  end
end
