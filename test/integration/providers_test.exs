defmodule Legation.ProvidersTest do
  # Rows 24, 25: what version a name means, and whose engine when several have one of that name.
  use Legation.Case, async: true

  # Alice and carol have a peer in common, bob, who asks.
  defp three do
    realms = for name <- ["alice", "bob", "carol"], into: %{}, do: {String.to_atom(name), start_realm(name)}
    link(realms.alice, realms.bob, :unix)
    link(realms.carol, realms.bob, :tcp_tls)
    realms
  end

  defp two do
    realms = for name <- ["alice", "bob"], into: %{}, do: {String.to_atom(name), start_realm(name)}
    link(realms.alice, realms.bob, :unix)
    realms
  end

  # An engine that tells the test what it gets, as `{realm, message}`.
  defp store(at, learners, opts \\ []) do
    {:ok, echo} = Echo.start(owner: relay(realm(at)))
    on_exit(fn -> Process.exit(echo, :kill) end)
    publish(at, "store", echo, learners, opts)
    echo
  end

  defp relay(realm) do
    test = self()
    spawn_link(fn -> pass_on(test, realm) end)
  end

  defp pass_on(test, realm) do
    receive do
      message -> send(test, {realm, message})
    end

    pass_on(test, realm)
  end

  defp any(instance, opts \\ []), do: via(instance, {:any, "store", opts})

  # Who of them answers, by a message of its own.
  defp asked(instance, opts) do
    call = async_call(any(instance, opts), {:hold, System.unique_integer()})
    assert_receive {realm, {:held, _key, from}}
    GenServer.reply(from, :ok)
    assert await_call(call) == {:reply, :ok}
    realm
  end

  # News come in order: when the engine is there, all is that was said before.
  defp settle(at, learner) do
    name = "marker#{System.unique_integer([:positive])}"
    publish(at, name, self(), [learner])
  end

  describe "a version" do
    test "that is asked for is found from there on, and refused below, as one that isn't there" do
      %{alice: alice, bob: bob} = two()
      echo = store(alice, [bob], version: 3)
      assert Legation.whereis({"store@alice", version: 4}, bob) == nil
      call = fn -> GenServer.call(via(bob, {"store@alice", version: 4}), {:echo, 1}) end
      assert {:noproc, {GenServer, :call, _arguments}} = catch_exit_of(call)
      assert Legation.cast({"store@alice", version: 4}, :hello, bob) == {:error, :noproc}

      assert {:badarg, {_name, :hello}} =
               catch_exit_of(fn -> Legation.send({bob, {"store@alice", version: 4}}, :hello) end)

      assert GenServer.call(via(bob, {"store@alice", version: 3}), {:echo, 1}) == 1
      assert GenServer.call(via(bob, "store@alice"), {:echo, 1}) == 1

      # The same engine, of a later version.
      :ok = Legation.publish("store", echo, [version: 7], alice)
      settle(alice, bob)
      assert call.() == 1
      assert Legation.whereis({"store@alice", version: 4}, bob) == Legation.whereis("store@alice", bob)
      assert Legation.whereis({"store@alice", version: 8}, bob) == nil
      assert Legation.call({"store@alice", version: 7}, {:echo, 2}, 5_000, bob) == 2
      assert Legation.cast({"store@alice", version: 4}, :hello, bob) == :ok
      assert_receive {"alice", {:cast, :hello}}
      assert is_pid(Legation.send({bob, {"store@alice", version: 4}}, :hello))
      assert_receive {"alice", {:info, :hello}}
    end

    test "may be a range" do
      %{alice: alice, bob: bob} = two()
      store(alice, [bob], version: 7)
      assert is_pid(Legation.whereis({"store@alice", version: 4..7}, bob))
      assert is_pid(Legation.whereis({"store@alice", version: {7, 9}}, bob))
      assert Legation.whereis({"store@alice", version: 4..6}, bob) == nil
      assert Legation.whereis({"store@alice", version: 8..9}, bob) == nil
    end

    test "of 32 bits is one, and the next one nobody has" do
      %{alice: alice, bob: bob} = two()
      store(alice, [bob], version: 0xFFFFFFFF)
      assert is_pid(Legation.whereis({"store@alice", version: 0xFFFFFFFF}, bob))
      assert Legation.whereis({"store@alice", version: 0x100000000}, bob) == nil
      assert_raise ArgumentError, ~r/:version/, fn -> Legation.publish("x", self(), [version: 0x100000000], alice) end
    end

    test "is 0 where none is said, and an engine of ours has one, too" do
      alice = start_realm("alice")
      store(alice, [])
      assert is_pid(Legation.whereis({"store", version: 0}, alice))
      assert Legation.whereis({"store", version: 1}, alice) == nil
      {:ok, started} = Echo.start_link(name: via(alice, {"other", version: 5}))
      assert Legation.whereis({"other@alice", version: 5}, alice) == started
      assert Legation.whereis({"other@alice", version: 6}, alice) == nil
      assert [%{version: 5}] = for(%{engine: "other"} = engine <- Legation.engines(alice), do: engine)
    end

    test "that can't be meant is the asker's own crash" do
      alice = start_realm("alice")

      for {name, word} <- [
            {{"store@bob", version: -1}, ":version"},
            {{"store@bob", version: "4"}, ":version"},
            {{"store@bob", versoin: 4}, "versoin"},
            {{"store@bob", pick: :first}, "pick"},
            {{:any, "store", pick: :best}, ":pick"},
            {{:any, "store", realms: "bob"}, ":realms"}
          ] do
        assert_raise ArgumentError, ~r/#{word}/, fn -> Legation.whereis(name, alice) end
      end

      assert_raise ArgumentError, ~r/published/, fn -> Legation.register_name({alice, {:any, "store", []}}, self()) end
    end
  end

  describe "of several providers" do
    test "the first is this realm's own, then by realm, or as the realms are named" do
      %{alice: alice, bob: bob, carol: carol} = three()
      assert Legation.providers("store", [], bob) == []
      assert Legation.whereis({:any, "store", []}, bob) == nil
      assert {:noproc, _call} = catch_exit_of(fn -> GenServer.call(any(bob), :hello) end)
      store(carol, [bob], version: 5)
      assert asked(bob, []) == "carol"
      store(alice, [bob], version: 3)
      assert asked(bob, []) == "alice"
      assert asked(bob, version: 4) == "carol"
      own = store(bob, [], version: 7)
      assert asked(bob, []) == "bob"
      assert Legation.whereis({:any, "store", []}, bob) == own
      assert asked(bob, realms: ["carol", "alice", "bob"]) == "carol"
      assert asked(bob, realms: ["dave", "alice", "alice"]) == "alice"
      assert asked(bob, realms: ["alice", "carol"], version: 4..6) == "carol"
      assert Legation.whereis({:any, "store", version: 8}, bob) == nil
      assert Legation.whereis({:any, "store", realms: []}, bob) == nil
      assert Legation.whereis({:any, "stor", []}, bob) == nil
      assert Legation.whereis({:any, "store@alice", []}, bob) == nil

      assert [
               %{
                 name: "store@bob",
                 realm: "bob",
                 engine: "store",
                 local: true,
                 version: 7,
                 up: true,
                 pending: 0,
                 pid: ^own
               },
               %{name: "store@alice", local: false, version: 3, up: true, pending: 0},
               %{name: "store@carol", local: false, version: 5, pid: proxy}
             ] = Legation.providers("store", [], bob)

      assert Legation.whereis("store@carol", bob) == proxy
    end

    test "an engine whose name begins with the same letters is none" do
      %{alice: alice, bob: bob} = two()
      publish(alice, "store2", self(), [bob])
      publish(alice, "stor", self(), [bob])
      publish(alice, "st", self(), [bob])
      assert Legation.providers("store", [], bob) == []
      store(alice, [bob])
      assert [%{name: "store@alice"}] = Legation.providers("store", [], bob)
    end

    test "round robin takes each in turn, over all callers" do
      %{alice: alice, bob: bob, carol: carol} = three()
      for at <- [alice, carol], do: store(at, [bob])
      store(bob, [])
      # `asked/2` calls from a new process each time.
      assert for(_n <- 1..9, do: asked(bob, pick: :round_robin)) ==
               List.flatten(List.duplicate(["bob", "alice", "carol"], 3))

      # What is asked of another selection has turns of its own.
      turns = for _n <- 1..4, do: asked(bob, pick: :round_robin, realms: ["carol", "alice"])
      assert turns == ["carol", "alice", "carol", "alice"]

      # Many at once are spread evenly.
      pids = 1..300 |> Task.async_stream(fn _n -> Legation.whereis({:any, "store", pick: :round_robin}, bob) end)
      assert pids |> Enum.frequencies_by(&elem(&1, 1)) |> Map.values() == [100, 100, 100]
    end

    test "least pending takes who has the fewest calls of ours open, and of equals each in turn" do
      %{alice: alice, bob: bob, carol: carol} = three()
      for at <- [alice, carol], do: store(at, [bob])
      least = [pick: :least_pending]

      # One behind the other: what has not reached the session yet isn't counted.
      hold = fn key ->
        call = async_call(any(bob, least), {:hold, key})
        assert_receive {_realm, {:held, ^key, _from}} = held
        {call, held}
      end

      # One each, two each, whoever is first.
      {calls, held} = 1..4 |> Enum.map(hold) |> Enum.unzip()
      assert held |> Enum.frequencies_by(&elem(&1, 0)) == %{"alice" => 2, "carol" => 2}
      assert [2, 2] = for(provider <- Legation.providers("store", [], bob), do: provider.pending)

      # Alice's are answered: the next two are hers.
      for {"alice", {:held, key, from}} <- held do
        GenServer.reply(from, :done)
        assert await_call(Enum.at(calls, key - 1)) == {:reply, :done}
      end

      assert [0, 2] = for(provider <- Legation.providers("store", [], bob), do: provider.pending)
      assert [{"alice", _held}, {"alice", _another}] = for(n <- 5..6, do: n |> hold.() |> elem(1))
    end

    test "calls of callers that are gone, or have given up, are pending no more" do
      %{alice: alice, bob: bob, carol: carol} = three()
      for at <- [alice, carol], do: store(at, [bob])
      call = async_call(via(bob, "store@alice"), {:hold, 1})
      assert_receive {"alice", {:held, 1, {stand_in, _tag}}}
      assert [1, 0] = for(provider <- Legation.providers("store", [], bob), do: provider.pending)
      # When its stand-in has ended, bob has told alice.
      monitor = Process.monitor(stand_in)
      Process.exit(call, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^stand_in, _reason}
      assert [0, 0] = for(provider <- Legation.providers("store", [], bob), do: provider.pending)
    end

    test "least pending counts what waits in the mailbox of this realm's own" do
      %{alice: alice, bob: bob} = two()
      store(alice, [bob])
      own = store(bob, [])
      :sys.suspend(own)
      for n <- 1..3, do: GenServer.cast(own, n)
      assert [%{pending: 3}, %{pending: 0}] = Legation.providers("store", [], bob)
      for _n <- 1..3, do: assert(asked(bob, pick: :least_pending) == "alice")
      :sys.resume(own)
      for _n <- 1..3, do: assert_receive({"bob", {:cast, _number}})
      turns = for _n <- 1..4, do: asked(bob, pick: :least_pending)
      assert Enum.frequencies(turns) == %{"alice" => 2, "bob" => 2}
    end

    test "all are cast to, and each once" do
      %{alice: alice, bob: bob, carol: carol} = three()
      assert Legation.cast_all("store", :nobody, [], bob) == []
      store(alice, [bob], version: 3)
      store(carol, [bob], version: 5)
      store(bob, [], version: 7)
      assert Legation.cast_all("store", :all, [], bob) == ["store@bob", "store@alice", "store@carol"]
      assert Legation.cast_all("store", :late, [version: 4], bob) == ["store@bob", "store@carol"]
      assert Legation.cast_all("store", :foreign, [realms: ["carol", "alice"]], bob) == ["store@carol", "store@alice"]

      for {realm, casts} <- [{"alice", [:all, :foreign]}, {"bob", [:all, :late]}, {"carol", [:all, :late, :foreign]}],
          cast <- casts,
          do: assert_receive({^realm, {:cast, ^cast}})

      # A reply of each is behind whatever else was on its way there.
      for name <- ["store@alice", "store@carol", "store@bob"],
          do: assert(GenServer.call(via(bob, name), {:echo, 1}) == 1)

      refute_received {_realm, {:cast, _message}}
    end

    test "one that has gone with its realm is chosen no more, and again when it is back" do
      %{alice: alice, bob: bob, carol: carol} = three()
      for at <- [alice, carol], do: store(at, [bob])
      :ok = Legation.disconnect("alice", bob)
      for pick <- [:first, :round_robin, :least_pending], do: assert(asked(bob, pick: pick) == "carol")
      :ok = Legation.connect("alice", bob)
      await_engine(bob, "store@alice")
      assert asked(bob, []) == "alice"
    end

    test "one that dies between choice and call ends the call as any server's would, and the next choice is among the others" do
      %{alice: alice, bob: bob, carol: carol} = three()
      [at_alice, _at_carol] = for at <- [alice, carol], do: store(at, [bob])
      chosen = Legation.whereis({:any, "store", []}, bob)
      assert chosen == Legation.whereis("store@alice", bob)
      Process.exit(at_alice, :kill)
      await_forgotten(bob, "store@alice")
      # It may be on its way out still.
      assert {reason, _call} = catch_exit_of(fn -> GenServer.call(chosen, {:echo, 1}) end)
      assert reason in [:noproc, :killed]
      assert asked(bob, []) == "carol"
    end

    test "while one dies again and again every call is answered, or ends" do
      %{alice: alice, bob: bob, carol: carol} = three()
      store(carol, [bob])

      for _n <- 1..30 do
        at_alice = store(alice, [bob])
        calls = for n <- 1..10, do: async_call(any(bob, pick: :round_robin), {:echo, n}, 10_000)
        Process.exit(at_alice, :kill)
        more = for n <- 11..20, do: async_call(any(bob, pick: :round_robin), {:echo, n}, 10_000)

        for {call, n} <- Enum.with_index(calls ++ more, 1) do
          case await_call(call) do
            # Gone before it: alice may say so to the one call before she says it to all.
            {:reply, reply} -> assert reply in [n, {:error, {:legation, :noproc}}]
            {:exit, {reason, _call}} -> assert reason in [:killed, :noproc]
          end
        end

        await_forgotten(bob, "store@alice")
        assert asked(bob, pick: :round_robin) == "carol"
      end
    end
  end

  test "Erlang asks the same, in its own words" do
    %{alice: alice, bob: bob, carol: carol} = three()
    for {at, version} <- [{alice, 3}, {carol, 5}], do: store(at, [bob], version: version)
    [at_alice, at_carol] = for name <- ["store@alice", "store@carol"], do: Legation.whereis(name, bob)
    assert :legation.whereis({:store@alice, [version: 3]}, bob) == at_alice
    assert :legation.whereis({~c"store@alice", [version: {1, 2}]}, bob) == :undefined
    assert :legation.whereis({:any, :store, []}, bob) == at_alice
    assert :legation.whereis_name({bob, {:any, :store, [version: 4]}}) == at_carol
    assert :legation.whereis_name({bob, {:store@carol, [version: 5]}}) == at_carol
    assert :legation.whereis_name({bob, :store@carol}) == at_carol
    assert :legation.whereis_name({bob, ~c"store@carol"}) == at_carol
    assert :gen_server.call({:via, :legation, {bob, {:any, ~c"store", [realms: [~c"carol"]]}}}, {:echo, 1}) == 1
    assert [%{realm: "alice"}, %{realm: "carol"}] = :legation.providers(:store, [], bob)
    assert :legation.cast({:any, :store, [pick: :round_robin]}, :one, bob) == :ok
    assert_receive {"alice", {:cast, :one}}
    assert :legation.cast_all(:store, :all, [realms: [:carol, "alice"]], bob) == ["store@carol", "store@alice"]
    for realm <- ["alice", "carol"], do: assert_receive({^realm, {:cast, :all}})
    assert :legation.register_name({bob, {:mine, [version: 2, to: [~c"alice"]]}}, self()) == :yes
    await_engine(alice, "mine@bob")
    assert :legation.whereis({:mine, [version: 2]}, bob) == self()
    assert :legation.unregister_name({bob, {:mine, []}}) == :ok
  end
end
