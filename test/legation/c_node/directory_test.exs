defmodule Legation.CNode.DirectoryTest do
  # Against a control engine that only says what a daemon would say.
  use ExUnit.Case, async: false

  alias Legation.{CNode, FakeDaemon, Instance}
  alias Legation.TestEngines.Counter

  @moduletag :capture_log

  @bob <<9::256>>
  @link %{
    realm: "bob",
    key: @bob,
    profile: :tls,
    role: :initiator,
    version: 1,
    session_id: <<1::256>>,
    carrier: :tcp,
    address: "10.0.0.7:4040",
    since: 1_700_000_000_000,
    counters: %{}
  }

  setup do
    ExUnit.configure(assert_receive_timeout: 5_000)
    :ok
  end

  # All of an instance but the process of the daemon, which is said to be ready.
  defp start(opts \\ [], fake_opts \\ []) do
    fake = FakeDaemon.start!(fake_opts)
    options = FakeDaemon.options([realm: "alice", peers: [[realm: "bob", key: @bob]]] ++ opts)
    config = FakeDaemon.config(options)

    for child <- [
          {CNode.Directory, {options, config}},
          {Legation.GlobalNames, options},
          {CNode.Gate, options}
        ],
        do: start_supervised!(child)

    :ok = CNode.Directory.daemon_ready(options.name, 1)
    %{fake: fake, name: options.name, config: config}
  end

  defp learned(pid), do: %{pid: pid, key: <<3::256>>, version: 7, ops: [:call], counters: %{calls: 1}, local: false}

  test "a link begins with the gate, what is published, and a subscription, in this order" do
    engine = self()
    %{name: name} = start()
    assert_received {:asked, :public_key}
    assert_received {:asked, {:gate, gate}}
    assert gate == CNode.Gate.pid(name)
    assert_received {:asked, :monitor_peers}
    assert Legation.public_key(name) == Legation.Options.format_key(FakeDaemon.key())

    :ok = Legation.publish("ping", engine, [to: ["bob"], version: 3], name)
    assert_received {:asked, {:publish, "ping", ^engine, opts}}
    assert Enum.sort(opts) == [to: ["bob"], version: 3]

    # A new daemon is told all of it again, before the subscription.
    CNode.Directory.daemon_ended(name)
    :ok = CNode.Directory.daemon_ready(name, 1)
    assert {:messages, messages} = Process.info(self(), :messages)

    assert [:public_key, {:gate, ^gate}, :peers, {:connect, _bob}, :listeners, publish, :monitor_peers] =
             messages |> Enum.drop_while(&(&1 != {:asked, :public_key})) |> Enum.map(&elem(&1, 1)) |> reorder()

    assert publish == {:publish, "ping", engine, opts}
  end

  # Peers are caught up with after both questions.
  defp reorder([key, gate, :peers, :listeners, connect | rest]), do: [key, gate, :peers, connect, :listeners | rest]

  test "peers and engines are mirrored, and subscribers told, in the shapes of the embedded transport" do
    %{fake: fake, name: name} = start([], snapshot: %{peers: %{"bob" => @link}, engines: %{}})
    assert {:ok, ref, %{peers: %{"bob" => status}, engines: %{}}} = Legation.monitor_peers(name)
    assert %{realm: "bob", key: @bob, profile: :tls, role: :initiator, version: 1, session_id: <<1::256>>} = status
    assert status.carrier == Legation.Carriers.Tcp
    assert status.address == {{10, 0, 0, 7}, 4040}
    assert status.since == ~U[2023-11-14 22:13:20.000Z]

    {:ok, pid} = Counter.start_link(5)
    FakeDaemon.event(fake, {:engine_learned, "count@bob", learned(pid)})
    assert_receive {:legation, ^ref, {:engine_learned, "count@bob", info}}
    assert info == %{pid: pid, key: <<3::256>>, version: 7, ops: [:call]}
    assert Legation.whereis("count@bob", name) == pid
    assert GenServer.call({:via, Legation, {name, "count@bob"}}, :get) == 5
    assert :ok = Legation.cast("count@bob", {:add, 1}, name)
    assert Legation.send({name, "count@bob"}, :one_more) == pid
    assert Legation.call("count@bob", :get, 5_000, name) == 7
    assert {:ok, %{key: <<3::256>>}} = Legation.sender({pid, {:"$legation", 1, "bob", "count"}}, name)
    assert {:ok, %{key: @bob}} = Legation.sender({pid, {:"$legation", 1, "bob", ""}}, name)

    # Announced again: no news.
    FakeDaemon.event(fake, {:engine_learned, "count@bob", %{learned(pid) | version: 8}})
    CNode.Directory.settle(name)
    refute_received {:legation, ^ref, _event}
    assert {:ok, _ref, %{engines: %{"count@bob" => %{version: 8}}}} = Legation.monitor_peers(name)

    FakeDaemon.event(fake, {:engine_forgotten, "count@bob", :crashed})
    assert_receive {:legation, ^ref, {:engine_forgotten, "count@bob", :crashed}}
    assert Legation.whereis("count@bob", name) == nil
    FakeDaemon.event(fake, {:peer_down, "bob", {:closed, :shutdown, ""}})
    assert_receive {:legation, ^ref, {:peer_down, "bob", {:closed, :shutdown, ""}}}
    assert {:ok, _ref, %{peers: none}} = Legation.monitor_peers(name)
    assert none == %{}
  end

  test "a peer that goes takes its engines along, before it is said to be down" do
    %{fake: fake, name: name} = start([], snapshot: %{peers: %{"bob" => @link}, engines: %{"a@bob" => learned(self())}})
    {:ok, ref, _snapshot} = Legation.monitor_peers(name)
    FakeDaemon.event(fake, {:peer_down, "bob", :no_answer})
    assert_receive {:legation, ^ref, {:peer_down, "bob", :no_answer}}
    assert {:messages, messages} = Process.info(self(), :messages)
    assert {:legation, ref, {:engine_forgotten, "a@bob", :noconnection}} in messages
  end

  test "when the control engine is gone, so is everybody behind it, and all comes back with it" do
    snapshot = %{peers: %{"bob" => @link}, engines: %{"a@bob" => learned(self())}}
    %{name: name} = start([], snapshot: snapshot)
    {:ok, ref, _snapshot} = Legation.monitor_peers(name)
    engine = start_supervised!({Counter, 1})
    :ok = Legation.publish("mine", engine, [], name)
    stop_supervised!(FakeDaemon)
    assert_receive {:legation, ^ref, {:engine_forgotten, "a@bob", :noconnection}}
    assert_receive {:legation, ^ref, {:peer_down, "bob", {:daemon, :down}}}
    assert Legation.whereis("a@bob", name) == nil

    # What is ours stays, and more of it may come and go.
    assert Legation.whereis("mine", name) == engine
    assert :ok = Legation.publish("later", engine, [], name)
    assert :ok = Legation.publish("not_for_long", engine, [], name)
    assert :ok = Legation.withdraw("not_for_long", name)
    assert Legation.publish("mine", self(), [], name) == {:error, {:already_published, engine}}
    assert [%{name: "later@alice", local: true, state: :published}, %{name: "mine@alice"}] = Legation.engines(name)
    assert [%{realm: "bob", state: :waiting, last_error: "the daemon isn't running right now"}] = Legation.peers(name)
    assert Legation.connections(name) == [] and Legation.listeners(name) == []
    assert %{global_names_taken: 0, sessions: %{}, ended: %{}} = Legation.counters(name)
    assert Legation.drain(0, name) == {:ok, []}
    assert Legation.verify_receipt("x", <<1::256>>, name) == {:error, {:daemon, :down}}
    assert Legation.add_listener({:unix, path: "/tmp/x.sock"}, name) == {:error, {:daemon, :down}}
    assert Legation.connect([realm: "new", key: <<5::256>>], name) == {:error, {:daemon, :down}}

    # Nobody's fault, and worth another try.
    assert Legation.Error.retry?({:error, {:daemon, :down}})

    FakeDaemon.start!(snapshot: snapshot)
    :ok = CNode.Directory.daemon_ready(name, 1)
    assert_receive {:legation, ^ref, {:peer_up, "bob", %{realm: "bob"}}}
    assert_receive {:legation, ^ref, {:engine_learned, "a@bob", %{pid: pid}}}
    assert pid == self()
    assert_received {:asked, {:publish, "mine", ^engine, []}}
    assert_received {:asked, {:publish, "later", ^engine, []}}
    refute_received {:asked, {:publish, "not_for_long", _engine, _opts}}
  end

  test "what the daemon refuses is not published" do
    %{name: name} = start([], publish: {:error, {:keyholder, :no}})
    assert Legation.publish("ping", self(), [], name) == {:error, {:keyholder, :no}}
    assert Legation.whereis("ping", name) == nil
    assert Legation.withdraw("ping", name) == {:error, :not_published}
    assert Legation.publish("a@b", self(), [], name) == {:error, :bad_name}
    assert Legation.publish("nobody", :nobody_is_called_so, [], name) == {:error, :noproc}
  end

  test "an engine's next life is published as soon as the daemon has heard of the end of the last one" do
    test = self()
    heard_after = :counters.new(1, [])

    # As long as it has not, it says who has the name.
    publish = fn {:publish, "mortal", pid, _opts} ->
      send(test, {:publishes, pid})
      before = :persistent_term.get({__MODULE__, :first}, pid)
      :counters.add(heard_after, 1, 1)

      cond do
        before == pid -> :ok
        :counters.get(heard_after, 1) < 5 -> {:error, {:already_published, before}}
        true -> :ok
      end
    end

    %{name: name} = start([], publish: publish)
    {:ok, first} = GenServer.start(Counter, 1)
    :persistent_term.put({__MODULE__, :first}, first)
    on_exit(fn -> :persistent_term.erase({__MODULE__, :first}) end)
    :ok = Legation.publish("mortal", first, [], name)
    Process.exit(first, :kill)
    {:ok, second} = GenServer.start(Counter, 2)
    assert Legation.publish("mortal", second, [], name) == :ok
    assert Legation.whereis("mortal", name) == second
    assert :counters.get(heard_after, 1) == 5
    Process.exit(second, :kill)
  end

  test "one that is published by name is published again when that has a new process" do
    %{name: name} = start()
    {:ok, one} = GenServer.start(Counter, 1)
    Process.register(one, :a_name_of_directory_test)
    :ok = Legation.publish("named", :a_name_of_directory_test, [], name)
    assert_received {:asked, {:publish, "named", :a_name_of_directory_test, []}}
    Process.exit(one, :kill)
    {:ok, two} = start_again(one)
    assert_receive {:asked, {:publish, "named", :a_name_of_directory_test, []}}
    CNode.Directory.settle(name)
    assert Legation.whereis("named", name) == two
    Process.exit(two, :kill)
  end

  defp start_again(one) do
    monitor = Process.monitor(one)
    assert_receive {:DOWN, ^monitor, :process, ^one, _reason}
    {:ok, two} = GenServer.start(Counter, 2)
    Process.register(two, :a_name_of_directory_test)
    {:ok, two}
  end

  test "peers are connected and disconnected, and what was missed is made up for" do
    %{fake: fake, name: name, config: config} = start()
    assert Legation.connect("carol", name) == {:error, :unknown_realm}
    assert Legation.connect("bob", name) == :ok
    assert Legation.connect([realm: "bob", key: @bob], name) == {:error, {:already_connected, "bob"}}

    filter = fn _message -> true end
    carol = [realm: "carol", key: <<5::256>>, export: ["a", {"b", allow: [:call], filter: filter}], filter: filter]
    assert Legation.connect(carol ++ [connect: [tcp: [host: "::1", port: 1], unix: [path: "/x"]]], name) == :ok
    assert_received {:asked, {:connect, [{:realm, "carol"} | _] = peer}}
    assert peer[:key] == <<5::256>>
    assert peer[:export] == ["a", {"b", [allow: [:call], filter: true]}]
    assert peer[:filter] == true and peer[:allow] == [:call, :cast, :send, :monitor]
    assert [{:tcp, tcp}, {:unix, unix}] = peer[:connect]
    assert {tcp[:host], tcp[:port], tcp[:profile]} == {"::1", 1, :tls}
    assert {unix[:path], unix[:profile]} == {"/x", :local}

    FakeDaemon.answer(fake, :connect, {:error, :own_key})
    assert Legation.connect([realm: "me", key: FakeDaemon.key()], name) == {:error, :own_key}
    assert Legation.connect("me", name) == {:error, :unknown_realm}
    FakeDaemon.answer(fake, :connect, :ok)

    assert Legation.disconnect("nobody", name) == {:error, :unknown_realm}
    assert Legation.disconnect("carol", name) == :ok
    assert_received {:asked, {:disconnect, "carol"}}

    # A daemon that was started when carol was still on the list, and bob was not.
    FakeDaemon.answer(fake, :peers, [%{realm: "carol", key: <<5::256>>, state: :connecting}])
    CNode.Directory.daemon_ended(name)
    :ok = CNode.Directory.daemon_ready(name, 1)
    assert_received {:asked, {:disconnect, "carol"}}
    assert_received {:asked, {:connect, [{:realm, "bob"} | _]}}
    assert [{_key, %{realm: "carol"}, :disconnected}] = :ets.lookup(config, {:peer, "carol"})
  end

  test "peers are shown as the embedded transport shows them" do
    %{fake: fake, name: name} = start()

    FakeDaemon.answer(fake, :peers, [
      Map.merge(@link, %{key: Legation.Options.format_key(@bob), state: :up, attempts: 0, last_error: nil}),
      %{
        realm: "carol",
        key: <<5::256>>,
        state: :waiting,
        attempts: 3,
        last_error: {:connect, :econnrefused},
        counters: %{}
      }
    ])

    assert [bob, carol] = Legation.peers(name)

    assert %{state: :up, key: "ed25519:" <> _, carrier: Legation.Carriers.Tcp, last_error: nil, since: %DateTime{}} =
             bob

    refute Map.has_key?(bob, :session_id)
    assert carol.last_error == "could not connect: nobody listens there"
    assert carol.key == Legation.Options.format_key(<<5::256>>)
    refute Map.has_key?(carol, :carrier)
  end

  test "listeners have the ids that the user gave them" do
    %{fake: fake, name: name, config: config} = start(listen: [tcp: [port: 0], unix: [path: "/x.sock", id: :unix]])

    FakeDaemon.answer(fake, :add_listener, fn {:add_listener, {:tcp, opts}} ->
      {:ok, %{id: opts[:id], carrier: :tcp, profile: opts[:profile], address: %{port: 4711}}}
    end)

    assert {:ok, %{id: id, carrier: Legation.Carriers.Tcp, profile: :plain, address: [port: 4711]} = info} =
             Legation.add_listener({:tcp, port: 0, ip: {127, 0, 0, 1}, profile: :plain}, name)

    assert is_reference(id)
    assert %{pending: 0, handshakes: 0} = info
    assert_received {:asked, {:add_listener, {:tcp, opts}}}
    assert opts[:ip] == "127.0.0.1" and is_binary(opts[:id])
    assert {:error, {:already_listening, :unix}} = Legation.add_listener({:tcp, port: 0, id: :unix}, name)

    texts = for id <- [0, :unix, id], do: CNode.Listeners.text(id)

    listeners =
      for {text, port} <- Enum.zip(texts, [1, 2, 3]),
          do: %{id: text, carrier: :tcp, profile: :tls, address: %{port: port}, pending: 1}

    others = [%{id: "somebody's", carrier: :unix, profile: :local, address: [path: "/y"]}]
    FakeDaemon.answer(fake, :listeners, listeners ++ others)
    assert [0, :unix, ^id, "somebody's"] = name |> Legation.listeners() |> Enum.map(& &1.id)

    :ok = Legation.remove_listener(:unix, name)
    text = CNode.Listeners.text(:unix)
    assert_received {:asked, {:remove_listener, ^text}}
    FakeDaemon.answer(fake, :remove_listener, {:error, :not_found})
    assert Legation.remove_listener(:unix, name) == {:error, :not_found}
    assert_received {:asked, {:remove_listener, ^text}}

    # The next daemon listens where this one does; what was stopped meanwhile is stopped there, too, and what is others' is not.
    CNode.Directory.daemon_ended(name)
    :ok = CNode.Directory.daemon_ready(name, 1)
    assert_received {:asked, {:remove_listener, ^text}}
    refute_received {:asked, {:remove_listener, _others}}

    ports = fn bound? ->
      for {text, _carrier, opts} <- CNode.Listeners.configured(config, bound?), do: {text, opts[:port]}
    end

    assert Enum.sort(ports.(true)) == Enum.sort([{CNode.Listeners.text(0), 1}, {CNode.Listeners.text(id), 3}])
    assert Enum.sort(ports.(false)) == Enum.sort([{CNode.Listeners.text(0), 0}, {CNode.Listeners.text(id), 0}])
  end

  test "a daemon of another kind is no daemon of ours" do
    FakeDaemon.start!(public_key: {:error, :bad_request})
    options = FakeDaemon.options(realm: "alice")
    config = FakeDaemon.config(options)
    start_supervised!({CNode.Directory, {options, config}})
    start_supervised!({CNode.Gate, options})
    assert {:error, {:daemon, {:answer, _answer}}} = CNode.Directory.daemon_ready(options.name, 1)
    assert Instance.lookup(options.name) != nil
  end

  test "without a node there is no link, and whoever waits hears so" do
    options = FakeDaemon.options(realm: "alice", transport: [start_ms: 2])
    options = put_in(options.transport.node, :"nobody@127.0.0.1")
    start_supervised!({CNode.Directory, {options, FakeDaemon.config(options)}})
    assert CNode.Directory.daemon_ready(options.name, 1) == {:error, {:daemon, :no_link}}
    assert Legation.Error.message({:daemon, :no_link}) =~ "another cookie?"
  end
end
