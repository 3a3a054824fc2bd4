defmodule Legation.OtpTest do
  # Row 20: what OTP and its users do with a server, they can do with a foreign engine.
  use Legation.Case, async: true

  setup do
    alice = start_realm("alice")
    # Unique in this VM, as local names are.
    import = [{"counter@alice", as: :imported_counter}]
    bob = start_realm("bob", import: import)
    link(alice, bob, :tcp_tls, allow: [:call, :cast, :send, :event])
    %{alice: alice, bob: bob}
  end

  test "a gen_statem is called and cast to", %{alice: alice, bob: bob} do
    {:ok, switch} = Switch.start_link(:off)
    proxy = publish(alice, "switch", switch, [bob])

    for name <- [proxy, via(bob, "switch@alice")] do
      assert :gen_statem.call(name, :state) == :off
      assert :gen_statem.call(name, :flip, 5_000) == :on
      assert :gen_statem.cast(name, :flip) == :ok
      assert :gen_statem.call(name, :state, {:clean_timeout, 5_000}) == :off
    end
  end

  test "a supervisor starts an engine again that published itself by its :via name", %{alice: alice, bob: bob} do
    options = [name: via(alice, "counter")]
    child = %{id: :counter, start: {GenServer, :start_link, [Counter, 0, options]}}

    # It is told of a death before the Directory is: each time the name has to be free already.
    for _ <- 1..50 do
      {:ok, supervisor} = Supervisor.start_link([child], strategy: :one_for_one, max_restarts: 1)
      Process.unlink(supervisor)
      monitor = Process.monitor(supervisor)
      Process.exit(Legation.whereis("counter", alice), :kill)
      refute_receive {:DOWN, ^monitor, :process, _supervisor, _reason}, 20
      :ok = Supervisor.stop(supervisor)
    end

    # Under a name that has not come and gone before.
    child = %{child | start: {GenServer, :start_link, [Counter, 0, [name: via(alice, "last")]]}}
    {:ok, _} = Supervisor.start_link([child], strategy: :one_for_one)
    assert GenServer.call(await_engine(bob, "last@alice"), :get) == 0
  end

  test "a gen_event is notified, waited for and called", %{alice: alice, bob: bob} do
    {:ok, manager} = :gen_event.start_link()
    :ok = :gen_event.add_handler(manager, Recorder, [])
    proxy = publish(alice, "events", manager, [bob])

    for name <- [proxy, via(bob, "events@alice")] do
      assert :gen_event.notify(name, {:one, name == proxy}) == :ok
      assert :gen_event.sync_notify(name, {:two, name == proxy}) == :ok
    end

    seen = [{:one, true}, {:two, true}, {:one, false}, {:two, false}]
    assert :gen_event.call(proxy, Recorder, :events) == seen
    assert :gen_event.which_handlers(proxy) == [Recorder]
  end

  test "a gen_event's handlers can't be changed from afar, unless sys is allowed", %{alice: alice, bob: bob} do
    {:ok, manager} = :gen_event.start_link()
    :ok = :gen_event.add_handler(manager, Recorder, [])
    proxy = publish(alice, "events", manager, [bob])
    forbidden = {:error, {:legation, :forbidden}}
    assert :gen_event.add_handler(proxy, {Recorder, 2}, []) == forbidden
    assert :gen_event.delete_handler(proxy, Recorder, []) == forbidden
    assert :gen_event.which_handlers(manager) == [Recorder]
  end

  test "an agent is used by module, function and arguments", %{alice: alice, bob: bob} do
    {:ok, agent} = Agent.start_link(fn -> %{a: 1} end)
    proxy = publish(alice, "agent", agent, [bob])
    assert Agent.get(proxy, Map, :fetch!, [:a]) == 1
    assert Agent.update(proxy, Map, :put, [:b, 2]) == :ok
    assert Agent.get_and_update(via(bob, "agent@alice"), Map, :pop, [:a]) == 1
    assert Agent.cast(proxy, Map, :put, [:c, 3]) == :ok
    assert Enum.sort(Agent.get(proxy, Map, :keys, [])) == [:b, :c]
    # A fun can't cross.
    assert Agent.get(proxy, fn state -> state end) == {:error, {:legation, :identifiers}}
  end

  test "a pool takes back what a borrower that died had", %{alice: alice, bob: bob} do
    {:ok, pool} = Pool.start_link({[1, 2], self()})
    proxy = publish(alice, "pool", pool, [bob])
    test = self()

    borrower =
      spawn(fn ->
        send(test, {:borrowed, GenServer.call(proxy, :checkout)})
        receive do: (:end -> exit(:oops))
      end)

    assert_receive {:borrowed, 1}
    assert GenServer.call(proxy, :checkout) == 2
    assert GenServer.call(proxy, {:checkin, 2}) == :ok
    assert GenServer.call(proxy, :free) == [2]
    refute_received {:returned, _number, _reason}
    send(borrower, :end)
    assert_receive {:returned, 1, _reason}
    assert GenServer.call(proxy, :free) == [1, 2]
  end

  test "what a lost link's callers had borrowed is taken back", %{alice: alice, bob: bob} do
    {:ok, pool} = Pool.start_link({[1], self()})
    proxy = publish(alice, "pool", pool, [bob])
    assert GenServer.call(proxy, :checkout) == 1
    :ok = Legation.disconnect("bob", alice)
    assert_receive {:returned, 1, :noconnection}
  end

  test "replies come by alias, by reference and by whatever else a caller's tag is", %{alice: alice, bob: bob} do
    {:ok, echo} = Echo.start_link(owner: nil)
    proxy = publish(alice, "echo", echo, [bob])

    # With an alias, as gen makes them since OTP 24.
    request = :gen_server.send_request(proxy, {:echo, 1})
    assert :gen_server.receive_response(request, 5_000) == {:reply, 1}
    # Many at a time.
    requests =
      for n <- 1..10, reduce: :gen_server.reqids_new() do
        requests -> :gen_server.send_request(proxy, {:echo, n}, n, requests)
      end

    for _n <- 1..10, reduce: requests do
      requests ->
        assert {{:reply, n}, n, requests} = :gen_server.receive_response(requests, 5_000, true)
        requests
    end

    # By hand: the alias goes after the first message, so the second reaches nobody.
    tag = :erlang.alias([:reply])
    send(proxy, {:"$gen_call", {self(), [:alias | tag]}, {:echo, :aliased}})
    assert_receive {[:alias | ^tag], :aliased}
    # And any term at all.
    for tag <- [make_ref(), {:my, "tag"}, 17] do
      send(proxy, {:"$gen_call", {self(), tag}, {:echo, :tagged}})
      assert_receive {^tag, :tagged}
    end
  end

  test "an engine imported under a local name is there for multi_call and abcast", %{alice: alice, bob: bob} do
    {:ok, counter} = Counter.start_link(1)
    proxy = publish(alice, "counter", counter, [bob])
    settle_global(bob)
    # One process has the name, which is the proxy where that is one of this node.
    assert Process.whereis(:imported_counter) == proxy == (transport(bob) == :embedded)
    assert GenServer.call(:imported_counter, :get) == 1
    assert GenServer.multi_call([node()], :imported_counter, :get, 5_000) == {[{node(), 1}], []}
    assert GenServer.multi_call(:imported_counter, {:add, 1}) == {[{node(), 2}], []}
    assert GenServer.abcast([node()], :imported_counter, {:add, 5}) == :abcast
    assert GenServer.call(:imported_counter, :get) == 7
    assert GenServer.call({:imported_counter, node()}, :get) == 7

    :ok = Legation.withdraw("counter", alice)
    await_forgotten(bob, "counter@alice")
    monitor = Process.monitor(proxy)
    assert_receive {:DOWN, ^monitor, :process, ^proxy, _reason}
    assert GenServer.multi_call([node()], :imported_counter, :get, 5_000) == {[], [node()]}
  end

  test "from Erlang, hosts and addresses may be strings", %{bob: bob} do
    assert {:ok, %{address: [port: port]}} = :legation.add_listener({:tcp, [ip: ~c"127.0.0.1", port: 0]}, bob)
    peer = [realm: ~c"dora", key: public_key("dora"), connect: [tcp: [host: ~c"127.0.0.1", port: port]]]
    assert :legation.connect(peer, bob) == :ok
  end

  test "sys messages go through where they are allowed", %{alice: alice, bob: bob} do
    {:ok, counter} = Counter.start_link(1)
    carol = start_realm("carol")
    link(alice, carol, :unix, allow: [:sys])
    publish(alice, "counter", counter, [bob, carol])
    assert :sys.get_state(via(carol, "counter@alice")) == 1
    # OTP makes an exception of the refusal.
    assert_raise ErlangError, ~r/{:legation, :forbidden}/, fn -> :sys.get_state(via(bob, "counter@alice")) end
    assert :sys.suspend(via(bob, "counter@alice")) == {:error, {:legation, :forbidden}}
    assert GenServer.call(via(bob, "counter@alice"), :get) == 1
  end
end
