defmodule Legation.RotationTest do
  # Row 64: a key is replaced without a lost message; a revocation acts within a second, on every link.
  use Legation.Case, async: true

  alias Legation.{Native, Options}

  # Generous for what is told on a link, and less than the second in which a revocation is to act.
  @second_ms 1_000

  # A key of this test alone: what is written beside it is nobody else's business.
  defp new_key do
    path = Path.join(dir(), "rotation-#{System.unique_integer([:positive])}.pem")
    {:ok, public} = Native.keyring_generate(path)
    {path, Options.format_key(public)}
  end

  # The same private key without what was written beside it: what a thief has.
  defp stolen({path, public}) do
    copy = path <> ".stolen"
    File.cp!(path, copy)
    {copy, public}
  end

  defp start(realm, {path, _public}, opts \\ []), do: start_realm(realm, [key: path] ++ opts)

  defp linked(carrier, opts \\ []) do
    {alice_key, bob_key} = {new_key(), new_key()}
    {alice, bob} = {start("alice", alice_key, opts), start("bob", bob_key, opts)}
    address = link(alice, bob, carrier, key: elem(bob_key, 1), back: [key: elem(alice_key, 1)])
    %{alice: alice, bob: bob, alice_key: alice_key, bob_key: bob_key, address: address}
  end

  # What must stay the same.
  defp links(instance), do: for(link <- Legation.connections(instance), do: Map.take(link, [:session_id, :since, :key]))

  defp rotate(instance) do
    {path, public} = key = new_key()
    assert Legation.rotate_key(path, instance) == {:ok, public}
    key
  end

  # Casts from 1 to `count`, in the order in which they came.
  defp casts(count), do: for(_n <- 1..count, do: receive_cast())

  defp receive_cast do
    receive do
      {:cast, number} -> number
    after
      10_000 -> flunk("a cast is missing")
    end
  end

  # Sends numbers until it is told to stop; then how many there were.
  defp flood(name) do
    spawn(fn -> flood(name, 1) end)
  end

  defp flood(name, number) do
    receive do
      {:stop, pid} -> send(pid, {:flooded, number - 1})
    after
      0 ->
        GenServer.cast(name, number)
        # As fast as it is answered: the queue is bounded, and what it drops is no loss by rotation.
        if rem(number, 50) == 0, do: GenServer.call(name, {:echo, number}, :infinity)
        flood(name, number + 1)
    end
  end

  defp stop_flood(pid) do
    send(pid, {:stop, self()})
    assert_receive {:flooded, count}
    count
  end

  describe "a key that is replaced" do
    for carrier <- [:tcp_tls, :tcp_plain, :unix] do
      test "under load loses no message, and links and sessions stay, over #{carrier}" do
        %{alice: alice, bob: bob} = linked(unquote(carrier))
        {:ok, at_alice} = Echo.start_link(owner: self(), instance: alice)
        {:ok, at_bob} = Echo.start_link(instance: bob)
        proxy = publish(alice, "echo", at_alice, [bob])
        publish(bob, "echo", at_bob, [alice])
        before = {links(alice), links(bob)}
        %{key: engine_key} = Enum.find(Legation.engines(bob), &(&1.name == "echo@alice"))

        pid = flood(via(bob, "echo@alice"))
        held = async_call(via(bob, "echo@alice"), {:hold, :long})
        assert_receive {:held, :long, _from}

        for round <- 1..3 do
          rotate(alice)
          assert GenServer.call(via(bob, "echo@alice"), {:echo, round}) == round
          rotate(bob)
          assert GenServer.call(via(alice, "echo@bob"), {:echo, round}) == round
        end

        count = stop_flood(pid)
        assert casts(count) == Enum.to_list(1..count)
        assert GenServer.call(via(bob, "echo@alice"), {:release, :long, :done}) == :ok
        assert await_call(held) == {:reply, :done}

        assert {links(alice), links(bob)} == before
        assert Legation.whereis("echo@alice", bob) == proxy
        # The engine's key is another one, and signs.
        %{key: new_engine_key} = Enum.find(Legation.engines(bob), &(&1.name == "echo@alice"))
        assert new_engine_key != engine_key
        assert %{key: ^new_engine_key} = Enum.find(Legation.engines(alice), &(&1.name == "echo@alice"))

        for {instance, realm} <- [{alice, "bob"}, {bob, "alice"}] do
          assert session_counter(instance, realm, :rotations) == 3
          for counter <- [:bad_signature, :bad_announcement], do: assert(session_counter(instance, realm, counter) == 0)
        end
      end
    end

    test "is known by the first one, at the realm itself and at its peers" do
      %{alice: alice, bob: bob, alice_key: {_path, first}} = linked(:tcp_tls)
      rotate(alice)
      assert Legation.public_key(alice) == first
      assert [%{realm: "alice", key: ^first}] = Legation.peers(bob)
      {:ok, echo} = Echo.start_link(instance: alice)
      publish(alice, "echo", echo, [bob])
      {:remote, %{key: key}} = GenServer.call(via(bob, "echo@alice"), :who)
      assert Options.format_key(key) == Legation.public_key(bob)
    end

    test "holds over a new link, whoever dials" do
      %{alice: alice, bob: bob, alice_key: alice_key, bob_key: bob_key} = linked(:tcp_tls)
      rotate(alice)
      rotate(bob)
      for {instance, realm} <- [{alice, "bob"}, {bob, "alice"}], do: :ok = Legation.disconnect(realm, instance)
      link_again(bob, alice, alice_key, bob_key)
      assert {[%{session_id: id}], [%{session_id: id}]} = {Legation.connections(alice), Legation.connections(bob)}
    end

    test "holds after a restart, with the old file in the configuration or the new one" do
      %{alice: alice, bob: bob, alice_key: first, bob_key: bob_key} = linked(:tcp_tls)
      second = rotate(alice)
      third = rotate(alice)

      for file <- [first, second, third], reduce: alice do
        alice ->
          watch = watch(bob)
          stop_realm(alice)
          await(watch, {:peer_down, "alice"})
          :ok = Legation.disconnect("alice", bob)
          alice = start("alice", file)
          assert Legation.public_key(alice) == elem(first, 1)
          link_again(alice, bob, bob_key, first)
          alice
      end

      # And one that has never heard of the first.
      carol_key = new_key()
      carol = start("carol", carol_key)
      dave = start("alice", third)
      link(dave, carol, :tcp_tls, key: elem(carol_key, 1), back: [key: elem(first, 1)])
      assert Legation.counters(carol).hellos_stale_key == 0
    end

    test "is told to a peer that was not there by the next hello" do
      {alice_key, bob_key} = {new_key(), new_key()}
      alice = start("alice", alice_key)
      rotate(alice)
      bob = start("bob", bob_key)
      link(alice, bob, :tcp_tls, key: elem(bob_key, 1), back: [key: elem(alice_key, 1)])
      {:ok, echo} = Echo.start_link(instance: alice)
      assert GenServer.call(publish(alice, "echo", echo, [bob]), {:echo, 1}) == 1
    end

    test "can't get in any more, nor be dialled, once a peer has heard of it" do
      %{alice: alice, bob: bob, alice_key: first, bob_key: {_path, bob_public}} = linked(:tcp_tls)
      rotate(alice)
      {:ok, echo} = Echo.start_link(instance: alice)
      publish(alice, "echo", echo, [bob])
      stop_realm(alice)

      thief = start("alice", stolen(first))
      address = listen(bob, :tcp_tls)
      :ok = Legation.connect([realm: "bob", key: bob_public, connect: [address]], thief)
      await_dial_failures(thief, "bob")
      [%{state: state, last_error: error}] = Legation.peers(thief)
      assert state != :up and error =~ "the identity key was replaced"
      assert Legation.counters(bob).hellos_stale_key >= 1
      :ok = Legation.disconnect("bob", thief)

      :ok = Legation.connect([realm: "bob", key: bob_public], thief)
      :ok = Legation.disconnect("alice", bob)
      connect = [listen(thief, :tcp_tls)]
      :ok = Legation.connect([realm: "alice", key: elem(first, 1), connect: connect], bob)
      await_dial_failures(bob, "alice")
      [%{last_error: error}] = Legation.peers(bob)
      assert error =~ "the identity key was replaced"
    end

    test "is remembered over a restart of the peer with a directory for it, and not without" do
      for {state_dir, expected} <- [
            {nil, :up},
            {Path.join(dir(), "state-#{System.unique_integer([:positive])}"), :refused}
          ] do
        {alice_key, bob_key} = {new_key(), new_key()}
        {alice, bob} = {start("alice", alice_key), start("bob", bob_key, state_dir: state_dir)}
        link(alice, bob, :tcp_tls, key: elem(bob_key, 1), back: [key: elem(alice_key, 1)])
        rotate(alice)
        {:ok, echo} = Echo.start_link(instance: alice)
        publish(alice, "echo", echo, [bob])
        if state_dir, do: await_file(state_dir)
        stop_realm(alice)
        stop_realm(bob)

        {thief, bob} = {start("alice", stolen(alice_key)), start("bob", bob_key, state_dir: state_dir)}
        address = listen(bob, :tcp_tls)
        :ok = Legation.connect([realm: "alice", key: elem(alice_key, 1)], bob)
        :ok = Legation.connect([realm: "bob", key: elem(bob_key, 1), connect: [address]], thief)

        case expected do
          :up -> await_up(watch(bob), "alice")
          :refused -> await_dial_failures(thief, "bob")
        end

        assert Legation.counters(bob).hellos_stale_key > 0 == (expected == :refused)
        for instance <- [thief, bob], do: stop_realm(instance)
      end
    end

    test "must be one that can be used, and otherwise everything is as before" do
      %{alice: alice, bob: bob, alice_key: {path, _public}} = linked(:tcp_tls)
      before = links(bob)
      assert Legation.rotate_key(path, alice) == {:error, {:rotation, :used_before}}
      assert Legation.rotate_key(path <> ".nowhere", alice) == {:error, {:key_file, :enoent}}
      assert Legation.rotate_key(network_key_file(), alice) == {:error, {:key_file, :not_pkcs8_ed25519}}

      for {:error, reason} <- [Legation.rotate_key(path, alice)],
          do: assert(Legation.Error.message(reason) =~ "already")

      assert links(bob) == before
      assert session_counter(bob, "alice", :rotations) == 0
    end

    test "is replaced at most sixteen times" do
      %{alice: alice, bob: bob} = linked(:unix)
      for _round <- 1..16, do: rotate(alice)
      {path, _public} = new_key()
      assert Legation.rotate_key(path, alice) == {:error, {:rotation, :too_many}}
      {:ok, echo} = Echo.start_link(instance: alice)
      assert GenServer.call(publish(alice, "echo", echo, [bob]), {:echo, 1}) == 1
      assert session_counter(bob, "alice", :rotations) == 16
    end

    test "is not one that is with a keyholder" do
      {public, private} = :crypto.generate_key(:eddsa, :ed25519)
      alice = start_realm("alice", key: {:keyholder, __MODULE__.Holder, {public, private}})
      {path, _public} = new_key()
      assert Legation.rotate_key(path, alice) == {:error, {:rotation, :external}}
      assert Legation.revoke_own_key(alice) == {:error, {:rotation, :external}}
      assert Legation.Error.message({:rotation, :external}) =~ "keyholder"
    end
  end

  describe "a peer that is revoked" do
    for carrier <- [:tcp_tls, :tcp_plain, :unix] do
      test "has no link and no session within a second, and gets none, over #{carrier}" do
        %{alice: alice, bob: bob, alice_key: alice_key, address: address} = linked(unquote(carrier))
        {:ok, at_alice} = Echo.start_link(owner: self(), instance: alice)
        {:ok, at_bob} = Echo.start_link(instance: bob)
        proxies = [publish(alice, "echo", at_alice, [bob]), publish(bob, "echo", at_bob, [alice])]
        held = async_call(via(bob, "echo@alice"), {:hold, :long})
        assert_receive {:held, :long, _from}
        monitors = Enum.map(proxies, &monitor/1)
        watches = [{watch(alice), "bob"}, {watch(bob), "alice"}]

        assert Legation.revoke("bob", alice) == :ok
        for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, _, _, :noconnection}, @second_ms)
        for {watch, realm} <- watches, do: await(watch, {:peer_down, realm})
        assert {:exit, _reason} = await_call(held)
        assert Legation.connections(alice) == []
        assert [%{realm: "bob", state: :revoked}] = Legation.peers(alice)

        # It dials again, and hears why not.
        await_dial_failures(bob, "alice")
        [%{state: state, last_error: error}] = Legation.peers(bob)
        assert state != :up and error =~ "revoked"
        assert Legation.counters(alice).hellos_revoked >= 1
        assert Legation.connect("bob", alice) == {:error, :revoked}
        bob_public = Legation.public_key(bob)
        assert Legation.connect([realm: "bob", key: bob_public], alice) == {:error, :revoked}
        assert Legation.revoke("carol", alice) == {:error, :unknown_realm}

        # With another key, that the operator lists, it is another realm.
        stop_realm(bob)
        new = new_key()
        bob = start("bob", new)
        :ok = Legation.connect([realm: "bob", key: elem(new, 1), export: :all], alice)
        watch = watch(alice)
        :ok = Legation.connect([realm: "alice", key: elem(alice_key, 1), connect: [address]], bob)
        await_up(watch, "bob")
      end
    end

    test "does not get in by a rotation" do
      %{alice: alice, bob: bob} = linked(:tcp_tls)
      rotate(bob)
      watch = watch(bob)
      :ok = Legation.revoke("bob", alice)
      await(watch, {:peer_down, "alice"})
      rotate(bob)
      await_dial_failures(bob, "alice", 2)
      [%{last_error: error}] = Legation.peers(bob)
      assert error =~ "revoked"
    end

    @tag :embedded
    test "does not get in by a link that was on its way" do
      alice = start_realm("alice")
      bob = start_realm("bob")
      address = listen(alice, :tcp_tls)
      :ok = Legation.connect(peer("bob"), alice)
      peer = peer_process(alice, "bob")
      # As it is between the hello and the link, whatever the keyring says by then.
      :sys.replace_state(peer, &%{&1 | revoked: true})
      assert {:reply, {:close, :revoked}, _state} = Legation.Peer.handle_call({:up, %{}}, self(), :sys.get_state(peer))
      :ok = Legation.connect(peer("alice", connect: [address]), bob)
      until(Legation.counters(alice).hellos_revoked > 0)
      assert Legation.connections(alice) == []
    end

    test "loses each of its links" do
      {alice_key, bob_key} = {new_key(), new_key()}
      {alice, bob} = {start("alice", alice_key), start("bob", bob_key)}
      addresses = for _n <- 1..2, do: listen(alice, :tcp_tls)
      :ok = Legation.connect([realm: "bob", key: elem(bob_key, 1), export: :all], alice)
      peer = [realm: "alice", key: elem(alice_key, 1), connect: addresses, links: 2, export: :all]
      :ok = Legation.connect(peer, bob)
      await_up(watch(alice), "bob")
      await_links(alice, 2)
      watch = watch(bob)
      started = System.monotonic_time(:millisecond)
      :ok = Legation.revoke("bob", alice)
      await(watch, {:peer_down, "alice"})
      assert System.monotonic_time(:millisecond) - started < @second_ms
      await_links(bob, 0)
      assert Legation.connections(alice) == []
    end
  end

  describe "a realm that revokes its own key" do
    for carrier <- [:tcp_tls, :tcp_plain, :unix] do
      test "is refused by all its peers within a second, whatever key it comes with, over #{carrier}" do
        {alice_key, bob_key, carol_key} = {new_key(), new_key(), new_key()}
        alice = start("alice", alice_key)
        peers = for {realm, key} <- [{"bob", bob_key}, {"carol", carol_key}], do: {realm, key, start(realm, key)}

        for {_realm, {_path, public}, peer} <- peers,
            do: link(alice, peer, unquote(carrier), key: public, back: [key: elem(alice_key, 1)])

        {:ok, echo} = Echo.start_link(instance: alice)
        proxies = for {_realm, _key, peer} <- peers, do: publish(alice, "echo", echo, [peer])
        monitors = Enum.map(proxies, &monitor/1)
        watches = for {_realm, _key, peer} <- peers, do: watch(peer)

        assert Legation.revoke_own_key(alice) == :ok
        for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, _, _, :noconnection}, @second_ms)
        for watch <- watches, do: assert({:fault, :revoked, _text} = await(watch, {:peer_down, "alice"}))

        for {_realm, _key, peer} <- peers do
          assert [%{realm: "alice", state: :revoked}] = Legation.peers(peer)
          assert Legation.connect("alice", peer) == {:error, :revoked}
        end

        {path, _public} = new_key()
        assert Legation.rotate_key(path, alice) == {:error, {:rotation, :revoked}}
        assert Legation.revoke_own_key(alice) == {:error, {:rotation, :revoked}}

        # Whoever else has the key.
        thief = start("thief", stolen(alice_key))
        {_realm, {_path, bob_public}, bob} = hd(peers)
        address = listen(bob, unquote(carrier))
        :ok = Legation.connect([realm: "bob", key: bob_public, connect: [address]], thief)
        await_dial_failures(thief, "bob")
        [%{last_error: error}] = Legation.peers(thief)
        assert error =~ "revoked"
      end
    end

    test "tells those who come later, also after a restart" do
      {alice_key, bob_key} = {new_key(), new_key()}
      alice = start("alice", alice_key)
      :ok = Legation.revoke_own_key(alice)
      stop_realm(alice)
      alice = start("alice", alice_key)
      address = listen(alice, :tcp_tls)
      :ok = Legation.connect([realm: "bob", key: elem(bob_key, 1)], alice)
      bob = start("bob", bob_key)
      :ok = Legation.connect([realm: "alice", key: elem(alice_key, 1), connect: [address]], bob)
      await_state(bob, "alice", :revoked)
      assert [%{last_error: error}] = Legation.peers(bob)
      assert error =~ "revoked"
    end
  end

  defmodule Holder do
    @behaviour Legation.Keyholder

    @impl true
    def init(keys), do: {:ok, keys}
    @impl true
    def public_key({public, _private}), do: public

    @impl true
    def sign(_purpose, %{input: input}, {_public, private} = keys),
      do: {:ok, :crypto.sign(:eddsa, :none, input, [private, :ed25519]), keys}
  end

  # The first listens, the second dials.
  defp link_again(listener, dialler, {_, dialler_key}, {_, listener_key}) do
    address = listen(listener, :tcp_tls)
    :ok = reconnect([realm: realm(dialler), key: dialler_key, export: :all], listener)
    watches = {watch(listener), watch(dialler)}
    :ok = reconnect([realm: realm(listener), key: listener_key, export: :all, connect: [address]], dialler)
    await_up(elem(watches, 0), realm(dialler))
    await_up(elem(watches, 1), realm(listener))
  end

  defp reconnect(peer, instance) do
    _known_or_not = Legation.disconnect(peer[:realm], instance)
    Legation.connect(peer, instance)
  end

  # What nobody is told of is asked for until it is so.
  defp await_links(instance, count), do: until(length(Legation.connections(instance)) == count)

  defp await_state(instance, realm, state),
    do: until(Enum.any?(Legation.peers(instance), &(&1.realm == realm and &1.state == state)))

  defp await_file(dir) do
    until(match?({:ok, [_ | _]}, File.ls(dir)))
    until(not Enum.any?(File.ls!(dir), &String.ends_with?(&1, ".new")))
  end
end
