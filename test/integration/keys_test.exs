defmodule Legation.KeysTest do
  # Rows 56, 57, 58, 62, 63: whose keys sign what, who holds them, and what can be proved with them later.
  use Legation.Case, async: true

  alias Legation.Carriers.Memory
  alias Legation.{Native, Options, TestVM}

  # A keyholder of a user's: here the key is a term, which the user chose. It tells who asked it for what.
  defmodule Holder do
    @behaviour Legation.Keyholder

    @impl true
    def init({_test, :refuse_to_open}), do: {:error, :no_hsm}

    def init({test, refused}) do
      {public, private} = :crypto.generate_key(:eddsa, :ed25519)
      {:ok, %{test: test, refused: refused, public: public, private: private}}
    end

    @impl true
    def public_key(state), do: state.public

    @impl true
    def sign(purpose, %{network_id: <<_::256>>, body: body, input: input}, state) do
      refuses = purpose in refused(state.refused)
      send(state.test, {:signed, purpose})
      # What is asked for is what is signed: protocol.md 3.1.
      ^input = "legation/1/#{purpose}" <> <<0>> <> binary_part(input, byte_size(input) - 64, 32) <> Native.blake3(body)

      if refuses,
        do: {:error, :no, state},
        else: {:ok, :crypto.sign(:eddsa, :none, input, [state.private, :ed25519]), state}
    end

    # Purposes, or who knows which there are now.
    defp refused(agent) when is_pid(agent), do: Agent.get(agent, & &1)
    defp refused(purposes), do: purposes
  end

  defp with_holder(refused) do
    start_realm("alice", key: {:keyholder, Holder, {self(), refused}})
  end

  # What the holder refuses can be changed.
  defp linked_with_holder do
    {:ok, refused} = Agent.start_link(fn -> [] end)
    alice = with_holder(refused)
    bob = start_realm("bob")
    :ok = Legation.connect([realm: "alice", key: Legation.public_key(alice), export: :all], bob)
    :ok = Legation.connect(peer("bob", connect: [listen(bob, :unix)]), alice)
    %{alice: alice, bob: bob, refused: refused}
  end

  describe "a keyholder of the user's" do
    for carrier <- [:tcp_tls, :tcp_plain, :unix] do
      test "signs for the realm, over #{carrier}" do
        alice = with_holder([])
        bob = start_realm("bob")
        key = Legation.public_key(alice)
        :ok = Legation.connect(peer("bob"), alice)
        address = listen(alice, unquote(carrier))
        :ok = Legation.connect([realm: "alice", key: key, connect: [address], export: :all], bob)
        {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
        proxy = publish(alice, "echo", echo, [bob])
        assert GenServer.call(proxy, {:echo, 1}) == 1
        {:ok, counter} = Counter.start_link(1)
        publish(bob, "counter", counter, [alice])
        assert GenServer.call(via(alice, "counter@bob"), :get) == 1
        :ok = Legation.withdraw("echo", alice)
        await_forgotten(bob, "echo@alice")
        for purpose <- [:cert, :hello, :learn, :forget], do: assert_received({:signed, ^purpose})
        if unquote(carrier) == :tcp_tls, do: assert_received({:signed, :link})
        # Messages are signed by keys that these certify: thousands don't ask for anything.
        refute_received {:signed, _more}
      end
    end

    test "that dials is asked, too" do
      alice = with_holder([])
      bob = start_realm("bob")
      address = listen(bob, :tcp_tls)
      :ok = Legation.connect([realm: "alice", key: Legation.public_key(alice), export: :all], bob)
      :ok = Legation.connect(peer("bob", connect: [address]), alice)
      await_up(watch(alice), "bob")
      assert_received {:signed, :link}
      assert_received {:signed, :hello}
    end

    test "that can't be opened stops the start, and says why" do
      options = realm_options("alice", key: {:keyholder, Holder, {self(), :refuse_to_open}})
      Process.flag(:trap_exit, true)
      assert Legation.start_link(options) == {:error, :no_hsm}
    end

    test "that refuses a signature: no certificate, no start; no hello, no link; no announcement, no engine" do
      Process.flag(:trap_exit, true)
      options = realm_options("alice", key: {:keyholder, Holder, {self(), [:cert]}})
      assert {:error, _reason} = Legation.start_link(options)

      alice = with_holder([:learn, :hello])
      assert {:error, _reason} = Legation.publish("echo", self(), [], alice)
      assert Legation.engines(alice) == []
      bob = start_realm("bob")
      :ok = Legation.connect(peer("bob", connect: [listen(bob, :unix)]), alice)
      :ok = Legation.connect([realm: "alice", key: Legation.public_key(alice)], bob)
      assert {:keyholder, _reason} = await_dial_failures(alice, "bob")
      assert [%{last_error: "the keyholder did not sign" <> _rest}] = Legation.peers(alice)
    end

    test "that does not sign for a while withdraws no engine that is started again meanwhile" do
      %{alice: alice, bob: bob, refused: refused} = linked_with_holder()
      name = :"echo_#{System.unique_integer([:positive])}"
      {:ok, first} = Echo.start(owner: nil)
      Process.register(first, name)
      proxy = publish(alice, "echo", name, [bob])
      monitor = Process.monitor(proxy)
      Agent.update(refused, fn _none -> [:forget, :learn] end)
      # There before the first is gone, so that nothing hangs on how soon it is looked for.
      Process.unregister(name)
      {:ok, second} = Echo.start_link(owner: nil)
      Process.register(second, name)
      Process.exit(first, :kill)
      # For the end, and once more for who takes the name: both in vain.
      assert_receive {:signed, :forget}
      assert_receive {:signed, :forget}
      Agent.update(refused, fn _some -> [] end)
      assert_receive {:DOWN, ^monitor, :process, ^proxy, _reason}
      # Behind a daemon the end of the first is heard of before it is out of the directory.
      until(Legation.whereis("echo@alice", bob) not in [nil, proxy])
      assert GenServer.call(via(bob, "echo@alice"), {:echo, 2}) == 2
    end

    test "that refuses to sign the end of an engine is asked again, and the name is nobody's before" do
      %{alice: alice, bob: bob, refused: refused} = linked_with_holder()
      {:ok, echo} = Echo.start_link(owner: nil)
      proxy = publish(alice, "echo", echo, [bob])
      monitor = Process.monitor(proxy)
      Agent.update(refused, fn _none -> [:forget] end)
      :ok = Legation.withdraw("echo", alice)
      assert_receive {:signed, :forget}
      {:ok, another} = Echo.start_link(owner: nil)
      assert {:error, reason} = Legation.publish("echo", another, [], alice)
      assert reason != :noproc and not match?({:already_published, _pid}, reason)
      refute_received {:DOWN, ^monitor, :process, ^proxy, _reason}
      Agent.update(refused, fn _some -> [] end)
      await_forgotten(bob, "echo@alice")
      assert_receive {:DOWN, ^monitor, :process, ^proxy, _reason}
      assert GenServer.call(publish(alice, "echo", another, [bob]), {:echo, 1}) == 1
    end
  end

  describe "private keys" do
    setup do
      seed = seed(key_file("alice"))
      # The key of the file, or the tests below would look for nothing.
      {public, _private} = :crypto.generate_key(:eddsa, :ed25519, seed)
      assert Options.format_key(public) == public_key("alice")
      %{seed: seed}
    end

    test "are in no process, table or persistent term of the VM", %{seed: seed} do
      alice = start_realm("alice")
      bob = start_realm("bob")
      link(alice, bob, :tcp_tls)
      {:ok, echo} = Echo.start_link(owner: nil)
      publish(alice, "echo", echo, [bob])
      assert GenServer.call(via(bob, "echo@alice"), {:echo, 1}) == 1

      parts =
        for part <- [Keyholder, Directory, GlobalNames, ProxySupervisor, Gate, Daemon], do: Module.concat(alice, part)

      processes = for part <- parts, pid = Process.whereis(part), do: pid

      link =
        if transport(alice) == :embedded,
          do: [peer_process(alice, "bob"), link_processes(alice, "bob").reader],
          else: []

      assert length(processes) == 4

      for pid <- processes ++ link do
        refute holds?(:sys.get_state(pid), seed)
        refute holds?(:sys.get_status(pid), seed)
        refute holds?(Process.info(pid, [:dictionary, :messages]), seed)
      end

      # Whatever can be read of the others, and of all tables.
      me = self()
      others = for pid <- Process.list(), pid != me, info = Process.info(pid, [:dictionary, :messages]), do: info
      refute holds?(others, seed)

      for table <- :ets.all(), :ets.info(table, :protection) != :private do
        refute holds?(contents(table), seed)
      end

      refute holds?(:persistent_term.get(), seed)
      # The search finds what is there.
      assert holds?(%{deep: [{:in, "x" <> seed}]}, seed)
    end

    test "are not in a crash dump", %{seed: seed} do
      vm = TestVM.start!(quiet: true)
      dump = Path.join(dir(), "crash-#{System.unique_integer([:positive])}.dump")
      alice = realm_options("alice", name: Alice, peers: [peer("bob")])
      {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [alice])
      TestVM.here(vm, TestVM, :publish_echo, [Alice, "echo"])
      # One that is in there, to see that it is found.
      planted = :crypto.strong_rand_bytes(32)
      TestVM.here(vm, Process, :put, [:planted, planted])
      TestVM.call(vm, System, :put_env, ["ERL_CRASH_DUMP", dump])
      assert {:ended, _output} = ended(fn -> TestVM.call(vm, :erlang, :halt, [~c"the test says so"]) end)
      dumped = File.read!(dump)
      assert dumped =~ "the test says so"
      assert dumped?(dumped, planted)
      refute dumped?(dumped, seed)
    end
  end

  defp ended(fun) do
    fun.()
  catch
    :exit, :ended -> {:ended, nil}
  end

  # PKCS#8 of an Ed25519 key ends with the 32 bytes.
  defp seed(pem_file) do
    [{_type, der, _cipher}] = pem_file |> File.read!() |> :public_key.pem_decode()
    binary_part(der, byte_size(der) - 32, 32)
  end

  # External term format has binaries as they are.
  defp holds?(term, seed), do: :binary.match(:erlang.term_to_binary(term), seed) != :nomatch

  defp contents(table) do
    :ets.tab2list(table)
  rescue
    # Gone since.
    ArgumentError -> []
  end

  # A dump has binaries in hexadecimal digits or in base64, there at any of three places in a group.
  defp dumped?(dump, bytes) do
    base64 = for skip <- 0..2, do: bytes |> binary_part(skip, 30) |> Base.encode64()

    Enum.any?(
      [bytes, Base.encode16(bytes), Base.encode16(bytes, case: :lower) | base64],
      &(:binary.match(dump, &1) != :nomatch)
    )
  end

  test "each engine has a key of its own, which is not the realm's" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :tcp_tls)
    {:ok, echo} = Echo.start_link(owner: nil)
    for name <- ["one", "two"], do: publish(alice, name, echo, [bob])
    keys = for %{key: key} <- Legation.engines(bob), do: key
    assert [<<one::binary-32>>, <<two::binary-32>>] = keys
    assert one != two
    assert Options.parse_key!(Legation.public_key(alice)) not in keys
  end

  describe "a receipt" do
    test "proves to a third party who signed what, and nothing that was altered" do
      alice = start_realm("alice")
      bob = start_realm("bob")
      link(alice, bob, :tcp_tls)
      publish(bob, "sender", self(), [alice])
      {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
      publish(alice, "echo", echo, [bob], receipts: self())
      :ok = Legation.cast("echo@alice", {:pay, 100}, bob)
      assert_receive {:cast, {:pay, 100}}
      assert_receive {:legation_receipt, "echo", %{realm: "bob", source: "sender", receipt: receipt}}

      # carol has heard of neither, and is of the same network.
      carol = start_realm("carol")
      bob_key = public_key("bob")
      assert {:ok, proof} = Legation.verify_receipt(receipt, bob_key, carol)
      assert :erlang.binary_to_term(proof.payload) == {:pay, 100}
      assert inspect(proof) =~ "sender" and inspect(proof) =~ "echo"

      assert {:error, {:receipt, _why}} = Legation.verify_receipt(receipt, public_key("alice"), carol)
      assert {:error, {:receipt, _why}} = Legation.verify_receipt(receipt <> <<0>>, bob_key, carol)

      for place <- 0..(byte_size(receipt) - 1) do
        <<head::binary-size(place), byte, tail::binary>> = receipt
        altered = <<head::binary, Bitwise.bxor(byte, 1), tail::binary>>
        assert {^place, {:error, {:receipt, _why}}} = {place, Legation.verify_receipt(altered, bob_key, carol)}
      end

      # A call's, signed by the engine it comes from, and one of the realm itself.
      assert GenServer.call(via(bob, "echo@alice"), {:echo, 1}) == 1
      assert_receive {:legation_receipt, "echo", %{source: "sender", receipt: _receipt}}
      spawn_link(fn -> GenServer.cast(via(bob, "echo@alice"), :anonymous) end)
      assert_receive {:legation_receipt, "echo", %{source: "", receipt: receipt}}
      assert {:ok, _proof} = Legation.verify_receipt(receipt, bob_key, carol)
    end
  end

  describe "a bad signature" do
    @describetag :embedded

    # Over `local` nothing but the signature protects a batch, so one can be altered on the way.
    setup do
      alice = start_realm("alice")
      bob = start_realm("bob")
      {:memory, name: name} = link(alice, bob, :memory)
      {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
      proxy = publish(alice, "echo", echo, [bob])
      # Link, names and keys are settled when this is through.
      assert GenServer.call(proxy, {:echo, 1}) == 1

      test = self()

      # Whoever is told has the batch behind it: what comes next is in another.
      Memory.tap(name, fn
        :to_listener, bytes -> String.replace(bytes, "pay 100", fn _ -> send(test, :altered) && "pay 999" end)
        :to_dialler, bytes -> bytes
      end)

      %{alice: alice, bob: bob, proxy: proxy}
    end

    test "is dropped in silence and counted, and the link lives", %{alice: alice, bob: bob, proxy: proxy} do
      sessions = for %{session_id: id} <- Legation.connections(bob), do: id

      for _n <- 1..3 do
        GenServer.cast(proxy, "pay 100")
        assert_receive :altered
        assert GenServer.call(proxy, {:echo, 1}) == 1
      end

      refute_received {:cast, _pay}
      assert session_counter(alice, "bob", :bad_signature) == 3
      assert sessions == for(%{session_id: id} <- Legation.connections(bob), do: id)
      assert GenServer.cast(proxy, "pay 1") == :ok
      assert_receive {:cast, "pay 1"}
    end

    test "closes the link when there are ten within a minute", %{alice: alice, bob: bob, proxy: proxy} do
      watch = watch(bob)
      watch_alice = watch(alice)

      for n <- 1..10 do
        GenServer.cast(proxy, "pay 100")
        assert_receive :altered
        if n < 10, do: assert(GenServer.call(proxy, {:echo, n}) == n)
      end

      assert {:closed, :abuse, _text} = await(watch, {:peer_down, "alice"})
      assert {:fault, :abuse, _detail} = await(watch_alice, {:peer_down, "bob"})
      refute_received {:cast, _pay}
      # And it comes back: an accident must not part two for ever.
      await(watch, {:peer_up, "alice"})
    end
  end

  test "a global name that somebody has stays theirs, and is taken up when they are gone" do
    alice = start_realm("alice")
    bob = start_realm("bob", global: true)
    link(alice, bob, :unix)
    holder = spawn(fn -> receive do: (:end -> :ok) end)
    :yes = :global.register_name("stolen@alice", holder)
    {:ok, counter} = Counter.start_link(1)
    proxy = publish(alice, "stolen", counter, [bob])
    settle_global(bob)
    assert :global.whereis_name("stolen@alice") == holder
    assert Legation.counters(bob).global_names_taken == 1
    # By :via it is there.
    assert GenServer.call(via(bob, "stolen@alice"), :get) == 1

    names = Process.whereis(Module.concat(bob, GlobalNames))
    :erlang.trace(names, true, [:receive])
    send(holder, :end)
    assert_receive {:trace, ^names, :receive, {:DOWN, _monitor, :process, ^holder, _reason}}
    settle_global(bob)
    assert :global.whereis_name("stolen@alice") == proxy
  end
end
