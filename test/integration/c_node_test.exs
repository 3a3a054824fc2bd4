defmodule Legation.CNodeTest do
  # The daemon's life: how it comes, goes and comes back, and what a crash takes with it. What engines and their callers see is
  # in the other files here, which run over this transport, too.
  use Legation.Case, async: true

  alias Legation.{CNode, Instance, TestTransport, TestVM}

  @moduletag :c_node

  defp counter_at(alice, learners, name \\ "counter") do
    counter = start_supervised!({Counter, 1}, id: make_ref())
    publish(alice, name, counter, learners)
  end

  defp kill(os_pid), do: System.cmd("kill", ["-KILL", Integer.to_string(os_pid)])

  describe "a daemon" do
    test "is ready, linked and listening when start_link returns" do
      alice = start_realm("alice", listen: [listen_address(:tcp_tls), listen_address(:unix)])
      assert Legation.public_key(alice) == public_key("alice")

      assert [%{address: [port: port]}, %{address: [path: path]}] =
               alice |> Legation.listeners() |> Enum.sort_by(& &1.id)

      assert {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, [])
      :gen_tcp.close(socket)
      assert File.exists?(path)
      assert File.exists?("/proc/#{daemon_pid(alice)}")
      # Hidden, so that it is no node of the cluster's.
      %{options: %{transport: %{node: node}}} = Instance.fetch!(alice)
      assert node in Node.list(:hidden)
      refute node in Node.list()
    end

    test "stops with its instance, and before that returns" do
      alice = start_realm("alice", listen: [listen_address(:unix)])
      [%{address: [path: path]}] = Legation.listeners(alice)
      os_pid = daemon_pid(alice)
      stop_realm(alice)
      refute File.exists?("/proc/#{os_pid}")
      refute File.exists?(path)
    end

    test "needs no EPMD" do
      number = System.unique_integer([:positive])
      node = "legation_alone_#{System.pid()}_#{number}@127.0.0.1"
      alice = start_realm("alice", transport: {:c_node, node: node, epmd: false})
      bob = start_realm("bob")
      link(alice, bob, :unix)
      counter_at(alice, [bob])
      assert GenServer.call(via(bob, "counter@alice"), :get) == 1
      {:ok, names} = :erl_epmd.names(~c"127.0.0.1")
      refute List.keymember?(names, ~c"legation_alone_#{System.pid()}_#{number}", 0)
    end

    test "says why it can't start" do
      Process.flag(:trap_exit, true)
      missing = realm_options("alice", key: "/nowhere/alice.pem")
      assert {:error, {:daemon, {:exit, _status, text}}} = Legation.start_link(missing)
      assert text =~ "/nowhere/alice.pem"

      alice = start_realm("alice", listen: [listen_address(:tcp_tls)])
      [%{address: [port: port]}] = Legation.listeners(alice)
      taken = realm_options("bob", listen: [tcp: [port: port, ip: {127, 0, 0, 1}]])
      assert {:error, {:daemon, {:exit, 1, text}} = reason} = Legation.start_link(taken)
      assert text =~ "eaddrinuse"
      assert Legation.Error.message(reason) =~ "the daemon ended with exit status 1: "

      # Whose name is taken.
      %{options: %{transport: %{node: node}}} = Instance.fetch!(alice)
      again = realm_options("carol", transport: {:c_node, node: node, start_ms: 5_000})
      assert {:error, {:daemon, {:name_taken, ^node}}} = Legation.start_link(again)
      assert Legation.Error.message({:daemon, {:name_taken, node}}) =~ "give one of them another name"
      assert [%{address: [port: ^port]}] = Legation.listeners(alice)
    end

    test "with another cookie has no link, and the start says so" do
      Process.flag(:trap_exit, true)
      {:c_node, opts} = TestTransport.option_of(:c_node, "alice")
      options = realm_options("alice", transport: {:c_node, opts ++ [cookie: "another", start_ms: 1_000]})
      assert Legation.start_link(options) == {:error, {:daemon, :no_link}}
    end
  end

  describe "a kill -9" do
    # bob has a link to alice and one to carol; it is his daemon that suffers.
    setup do
      alice = start_realm("alice")
      bob = start_realm("bob", listen: [listen_address(:tcp_tls)])
      carol = start_realm("carol")
      link(alice, bob, :tcp_tls)
      link(bob, carol, :tcp_tls)
      {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
      publish(alice, "echo", echo, [bob])
      {:ok, counter} = Counter.start_link(7)
      publish(bob, "mine", counter, [alice, carol])
      %{alice: alice, bob: bob, carol: carol}
    end

    test "of the daemon ends its callers and takes its engines, and all comes back", context do
      %{alice: alice, bob: bob, carol: carol} = context
      {:ok, counter} = Counter.start_link(8)
      :ok = Legation.publish("later", counter, [], bob)
      await_engine(carol, "later@bob")
      {:ok, added} = Legation.add_listener({:unix, path: socket_path(), id: :added}, bob)
      listeners = bob |> Legation.listeners() |> Enum.map(&{&1.id, &1.address}) |> Enum.sort()

      proxy = Legation.whereis("echo@alice", bob)
      monitor = Process.monitor(proxy)
      call = async_call(proxy, {:hold, 1})
      assert_receive {:held, 1, _from}
      watch = watch(bob)
      others = for other <- [alice, carol], do: watch(other)
      os_pid = daemon_pid(bob)
      kill(os_pid)

      lost = lost(bob)
      assert {:exit, {^lost, _call}} = await_call(call)
      assert_receive {:DOWN, ^monitor, :process, ^proxy, :noconnection}
      assert await(watch, {:engine_forgotten, "echo@alice"}) == :noconnection
      assert await(watch, {:peer_down, "alice"}) == {:daemon, :down}
      for other <- others, do: await(other, {:peer_down, "bob"})

      await(watch, {:peer_up, "alice"})
      await(watch, {:engine_learned, "echo@alice"})
      assert GenServer.call(via(bob, "echo@alice"), {:echo, 2}) == 2
      # To carol he listens; she finds him where he was.
      for {other, realm} <- Enum.zip([alice, carol], ["alice", "carol"]) do
        await_engine(other, "mine@bob")
        assert GenServer.call(via(other, "mine@bob"), :get) == 7
        await_engine(other, "later@bob")
        assert GenServer.call(via(other, "later@bob"), :get) == 8
        assert %{state: :up} = Enum.find(Legation.peers(bob), &(&1.realm == realm))
      end

      assert daemon_pid(bob) not in [nil, os_pid]
      assert bob |> Legation.listeners() |> Enum.map(&{&1.id, &1.address}) |> Enum.sort() == listeners
      assert added.id == :added
    end

    test "of the daemon forgets neither who was disconnected nor what was withdrawn meanwhile", context do
      %{bob: bob, carol: carol} = context
      watch = watch(bob)
      :ok = Legation.disconnect("carol", bob)
      kill(daemon_pid(bob))
      await(watch, {:peer_down, "alice"})
      # He has no daemon for a moment, or has one that doesn't know yet.
      :ok = Legation.withdraw("mine", bob)
      assert Legation.withdraw("mine", bob) == {:error, :not_published}
      await(watch, {:peer_up, "alice"})
      assert %{state: :disconnected} = Enum.find(Legation.peers(bob), &(&1.realm == "carol"))
      refute Enum.any?(Legation.engines(bob), &(&1.name == "mine@bob"))
      assert Legation.whereis("mine@bob", carol) == nil
      :ok = Legation.connect("carol", bob)
      await(watch, {:peer_up, "carol"})
    end

    test "of the VM takes the daemon along", %{alice: alice} do
      vm = TestVM.start!()
      options = realm_options("dora", name: Dora, peers: [peer("alice", connect: [listen(alice, :tcp_tls)])])
      assert match?({:c_node, _opts}, options[:transport])
      watch = watch(alice)
      # It may say goodbye, and it may not get to it.
      :ok = Legation.connect(peer("dora", limits: [grace_ms: 0]), alice)
      {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [options])
      await(watch, {:peer_up, "dora"})
      os_pid = TestVM.call(vm, CNode.Daemon, :os_pid, [Dora])
      assert File.exists?("/proc/#{os_pid}")
      assert TestVM.kill(vm) == 128 + 9
      await(watch, {:peer_down, "dora"})
      # The kernel tells nobody but its parent.
      until(not File.exists?("/proc/#{os_pid}"))
    end

    test "of ten daemons, one after the other, harms nobody", %{alice: alice, bob: bob} do
      for _n <- 1..10 do
        watch = watch(bob)
        kill(daemon_pid(bob))
        await(watch, {:peer_down, "alice"})
        unwatch(watch)
        await_engine(bob, "echo@alice")
        await_engine(alice, "mine@bob")
        assert GenServer.call(via(bob, "echo@alice"), {:echo, 1}) == 1
      end
    end
  end

  test "a connection to the daemon that is cut comes back, with everybody behind it" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :tcp_tls)
    counter_at(alice, [bob])
    {:ok, counter} = Counter.start_link(7)
    publish(bob, "mine", counter, [alice])
    os_pid = daemon_pid(bob)
    %{options: %{transport: %{node: node}}} = Instance.fetch!(bob)
    watch = watch(bob)
    true = Node.disconnect(node)
    await(watch, {:peer_down, "alice"})
    await(watch, {:peer_up, "alice"})
    await_engine(bob, "counter@alice")
    assert GenServer.call(via(bob, "counter@alice"), :get) == 1
    # It saw the node that it publishes for go, and come.
    await_engine(alice, "mine@bob")
    assert GenServer.call(via(alice, "mine@bob"), :get) == 7
    assert daemon_pid(bob) == os_pid
  end

  for part <- ["Directory", "GlobalNames", "Gate", "Daemon"] do
    test "a crash of #{part} is survived: peers, listeners and engines are there again" do
      alice = start_realm("alice")
      bob = start_realm("bob")
      link(alice, bob, :tcp_tls)
      counter_at(alice, [bob])
      {:ok, counter} = Counter.start_link(7)
      publish(bob, "mine", counter, [alice])
      {:tcp, [host: _host, port: port]} = listen(bob, :tcp_tls)
      watch = watch(alice)

      bob |> Instance.process(unquote(part)) |> Process.whereis() |> Process.exit(:kill)
      await(watch, {:peer_down, "bob"})
      await(watch, {:peer_up, "bob"})
      await(watch, {:engine_learned, "mine@bob"})
      assert GenServer.call(via(alice, "mine@bob"), :get) == 7
      # It may be a moment before its own table is there.
      Supervisor.which_children(Instance.process(bob, Supervisor))
      await_engine(bob, "counter@alice")
      assert GenServer.call(via(bob, "counter@alice"), :get) == 1
      assert port in for(%{address: address} <- Legation.listeners(bob), do: address[:port])
    end
  end

  test "drain waits for open calls, says which it cut, and closes" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :tcp_tls)
    {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
    proxy = publish(alice, "echo", echo, [bob])
    call = async_call(proxy, {:hold, 1})
    assert_receive {:held, 1, _from}
    watch = watch(bob)
    assert Legation.drain(50, bob) == {:ok, [{"echo@alice", call}]}
    await(watch, {:peer_down, "alice"})
    assert {:exit, _why} = await_call(call)
    assert [%{state: :drained}] = Legation.peers(bob)
    assert Legation.listeners(bob) == []
  end

  test "the command line talks to it, where it has a socket" do
    path = socket_path()
    {:c_node, opts} = TestTransport.option_of(:c_node, "alice")
    alice = start_realm("alice", transport: {:c_node, opts ++ [control_socket: path]})
    counter_at(alice, [])
    %{options: %{transport: %{binary: binary}}} = Instance.fetch!(alice)
    assert {engines, 0} = System.cmd(binary, ["engines", "--socket", path, "--json"])
    assert engines =~ ~s("counter@alice")
  end
end
