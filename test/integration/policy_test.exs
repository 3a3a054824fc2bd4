defmodule Legation.IntegrationPolicyTest do
  # Rows 66-69, 71, 72, 74: what a peer can reach, what it may do there, and what a message may be.
  use Legation.Case, async: true

  alias Legation.TestVM

  @message_bytes_max 100_000

  defp linked(opts) do
    alice = start_realm("alice", limits: [message_bytes_max: @message_bytes_max])
    bob = start_realm("bob", limits: [message_bytes_max: 2 * @message_bytes_max])
    link(alice, bob, :tcp_tls, opts)
    {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
    %{alice: alice, bob: bob, echo: echo}
  end

  defp dropped(instance, reason), do: Legation.counters(instance)[:"dropped_#{reason}"]
  defp refused(reason), do: {:error, {:legation, reason}}

  test "only exported engines are learned and reached, each peer its own" do
    %{alice: alice, bob: bob, echo: echo} = linked(export: ["a", :b])
    carol = start_realm("carol")
    link(alice, carol, :unix, export: ["b", "c"])
    for name <- ["hidden", "a", "b", "c"], do: :ok = Legation.publish(name, echo, [], alice)

    for {who, names} <- [{bob, ["a", "b"]}, {carol, ["b", "c"]}] do
      for name <- names, do: await_engine(who, name <> "@alice")
      assert who |> Legation.engines() |> Enum.map(& &1.engine) == names
    end

    # To one of those who may, and to nobody.
    :ok = Legation.withdraw("b", alice)
    :ok = Legation.publish("b", echo, [to: ["carol"]], alice)
    publish(alice, "c", echo, [carol])
    await_forgotten(bob, "b@alice")
    assert await_engine(carol, "b@alice")
    assert bob |> Legation.engines() |> Enum.map(& &1.engine) == ["a"]
  end

  # A sender that is wrongly believed to have learned an engine: the proxy is made by hand.
  @tag :embedded
  test "nothing but published engines is reached, whatever a peer asks for" do
    %{alice: alice, bob: bob, echo: echo} = linked(export: :all)
    Process.register(echo, :local_server_of_alice)
    publish(alice, "real", echo, [bob])
    session = session(bob, "alice")
    names = ["init", "rex", "net_kernel", "code_server", "local_server_of_alice", "Elixir.Logger"]
    names = names ++ for(part <- [Supervisor, Directory, Keyholder], do: inspect(Module.concat(alice, part)))
    proxies = Legation.ProxySupervisor.start_proxies(bob, session, names)

    for {{proxy, _counts}, name} <- Enum.zip(proxies, names) do
      assert {name, GenServer.call(proxy, {:echo, 1})} == {name, refused(:noproc)}
      GenServer.cast(proxy, :hello)
      send(proxy, :hello)
    end

    # All have been there before this.
    assert GenServer.call(via(bob, "real@alice"), {:echo, 1}) == 1
    assert dropped(alice, :noproc) == 2 * length(names)
    refute_received {:cast, :hello}
    refute_received {:info, :hello}
    assert [%{state: :up}] = Legation.peers(bob)
  end

  test "operations are allowed per peer and per engine" do
    %{alice: alice, bob: bob, echo: echo} =
      linked(allow: [:call], export: ["calls", {"casts", allow: [:cast]}, {"sends", allow: [:send]}])

    for name <- ["calls", "casts", "sends"], do: publish(alice, name, echo, [bob])

    for name <- ["calls", "casts", "sends"] do
      proxy = via(bob, name <> "@alice")
      reply = GenServer.call(proxy, {:echo, name})
      assert reply == if(name == "calls", do: name, else: refused(:forbidden))
      GenServer.cast(proxy, {:via, name})
      Legation.send({bob, name <> "@alice"}, {:via, name})
    end

    assert GenServer.call(via(bob, "calls@alice"), {:echo, 1}) == 1
    assert_received {:cast, {:via, "casts"}}
    assert_received {:info, {:via, "sends"}}
    refute_received {:cast, _other}
    refute_received {:info, _other}
    assert dropped(alice, :forbidden) == 4
  end

  test "sys, stop and exits do nothing where they are not allowed" do
    %{alice: alice, bob: bob, echo: echo} = linked([])
    proxy = publish(alice, "echo", echo, [bob])
    # proc_lib:stop/3 has no clause for an answer that isn't one of its own.
    assert {:try_clause, refusal} = catch_error(:proc_lib.stop(proxy, :normal, 30_000))
    assert refusal == refused(:forbidden)
    assert :sys.suspend(proxy) == refused(:forbidden)
    Process.exit(proxy, :some_reason)
    assert GenServer.call(proxy, {:echo, 1}) == 1
    assert Process.alive?(echo)
    refute_received {:info, _exit}
  end

  # Rows 67 and 107: a plain message that is made to look like another kind.
  test "a plain message does not become what is forbidden" do
    %{alice: alice, bob: bob, echo: echo} = linked(allow: [:send])
    proxy = publish(alice, "echo", echo, [bob])

    disguised = [
      {:"$gen_call", {:not_a_pid, 1}, {:echo, 1}},
      {:"$gen_cast_not", 1},
      {:system, :from, :suspend},
      {:DOWN, 1, :process, 2, 3},
      {:io_request, 1, 2, 3},
      {:nodedown, :a@b},
      {1, 2, :stop}
    ]

    for message <- disguised, do: send(proxy, message)
    send(proxy, :plain)
    assert_receive {:info, :plain}
    refute_received {:info, _disguised}
    assert session_counter(alice, "bob", :disguised) == length(disguised)
  end

  test "a filter is asked about each message, with who sends what to whom, and is of the peer or of the engine" do
    test = self()

    even = fn %{message: message} = asked ->
      send(test, {:asked, asked}) && match?({:echo, n} when rem(n, 2) == 0, message)
    end

    small = fn %{message: {:echo, n}} -> n < 10 end

    %{alice: alice, bob: bob, echo: echo} = linked(filter: even, export: ["echo", {"small", filter: small}])
    proxy = publish(alice, "echo", echo, [bob])
    both = publish(alice, "small", echo, [bob])
    assert GenServer.call(proxy, {:echo, 2}) == 2
    assert_received {:asked, %{realm: "bob", engine: "echo", source: "", op: :call, message: {:echo, 2}}}
    assert GenServer.call(proxy, {:echo, 3}) == refused(:filtered)
    assert GenServer.call(both, {:echo, 2}) == 2
    assert GenServer.call(both, {:echo, 12}) == refused(:filtered)
    assert GenServer.call(both, {:echo, 3}) == refused(:filtered)

    GenServer.cast(proxy, {:echo, 4})
    GenServer.cast(proxy, {:echo, 5})
    assert GenServer.call(proxy, {:echo, 6}) == 6
    assert_received {:asked, %{op: :cast, message: {:echo, 4}}}
    assert_received {:cast, {:echo, 4}}
    refute_received {:cast, {:echo, 5}}
    assert dropped(alice, :filtered) == 1
  end

  test "a filter that fails, or answers anything but true, has not agreed" do
    filter = fn
      %{message: {:echo, :raise}} -> raise "secret"
      %{message: {:echo, :throw}} -> throw(:secret)
      %{message: {:echo, :exit}} -> exit(:secret)
      %{message: {:echo, answer}} -> answer
    end

    %{alice: alice, bob: bob, echo: echo} = linked(filter: filter)
    proxy = publish(alice, "echo", echo, [bob])

    log =
      ExUnit.CaptureLog.capture_log(fn ->
        for message <- [:raise, :throw, :exit, nil, :ok, "true", false],
            do: assert(GenServer.call(proxy, {:echo, message}) == refused(:filtered))
      end)

    assert GenServer.call(proxy, {:echo, true}) == true
    refute log =~ "secret"
  end

  test "an unknown atom is an error to a caller and a counted drop for a cast; the link lives and no atom is made" do
    vm = TestVM.start!()
    {carrier, opts} = listen_address(:tcp_tls)
    options = realm_options("alice", name: Alice, listen: [{carrier, opts}], peers: [peer("bob")])
    {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [options])
    [%{address: address}] = TestVM.call(vm, Legation, :listeners, [Alice])
    bob = start_realm("bob", peers: [peer("alice", connect: [dial_address({carrier, opts}, address)])])
    TestVM.here(vm, TestVM, :publish_echo, [Alice, "echo"])
    proxy = await_engine(bob, "echo@alice")
    assert GenServer.call(proxy, {:echo, 1}) == 1
    session = Legation.connections(bob)
    name = fn n -> "unknown_#{n}_#{System.pid()}" end
    undecodable = fn n -> {:echo, String.to_atom(name.(n))} end
    large = fn n -> {n, undecodable.(n), :binary.copy("over 16 KiB", 2_000)} end

    for n <- 0..100 do
      assert GenServer.call(proxy, undecodable.(n)) == refused(:undecodable)
      GenServer.cast(proxy, undecodable.(n))
      send(proxy, large.(n))
    end

    assert GenServer.call(proxy, {:echo, 1}) == 1

    # That they are not there is asked by their text: what a VM loads meanwhile makes atoms, too, so their number says nothing.
    assert TestVM.call(vm, TestVM, :atoms_of, [["echo" | Enum.map(0..100, name)]]) == [:echo]
    counters = TestVM.call(vm, Legation, :counters, [Alice])

    if TestVM.call(vm, Legation.Case, :transport, [Alice]) == :embedded do
      # Calls are counted, too, where the core decodes them: 101 small ones; large ones are decoded in Elixir.
      assert {counters.sessions["bob"].undecodable, counters.dropped_undecodable} == {2 * 101, 2 * 101}
    else
      assert {counters.calls_refused, counters.dropped_undecodable} == {101, 2 * 101}
    end

    assert Enum.map(Legation.connections(bob), & &1.session_id) == Enum.map(session, & &1.session_id)
    refute Legation.Error.retry?(refused(:undecodable))
  end

  test "what can't cross is refused, and a cast with it is dropped and counted at the sender" do
    %{alice: alice, bob: bob, echo: echo} = linked([])
    proxy = publish(alice, "echo", echo, [bob])

    for term <- [fn -> :ok end, &String.upcase/1, hd(Port.list())] do
      assert GenServer.call(proxy, {:echo, %{deep: [term]}}) == refused(:identifiers)
      GenServer.cast(proxy, {term})
    end

    deep = Enum.reduce(1..300, [], fn _n, list -> [list] end)
    assert {:error, {:legation, _reason}} = GenServer.call(proxy, {:echo, deep})
    assert GenServer.call(proxy, {:echo, 1}) == 1
    refute_received {:cast, _term}
    assert dropped(bob, :identifiers) == 3
    assert [%{counters: %{casts: 3, dropped: 3}}] = Legation.engines(bob)
  end

  test "a message at the limit is delivered and one byte over it is refused" do
    %{alice: alice, bob: bob, echo: echo} = linked([])
    proxy = publish(alice, "echo", echo, [bob])
    at = payload(@message_bytes_max)
    over = payload(@message_bytes_max + 1 + shorter_atoms(bob))
    assert byte_size(:erlang.term_to_binary({:echo, at}, minor_version: 2)) == @message_bytes_max

    # The smaller of both sides' limits counts, and bob accepts more than alice.
    assert GenServer.call(proxy, {:echo, at}) == at
    assert GenServer.call(proxy, {:echo, over}) == refused(:too_large)
    refute Legation.Error.retry?(refused(:too_large))

    GenServer.cast(proxy, {:echo, over})
    GenServer.cast(proxy, {:echo, at})
    assert_receive {:cast, {:echo, ^at}}
    refute_received {:cast, {:echo, ^over}}
    assert dropped(bob, :too_large) == 1

    # So it does for replies. 6 bytes are a binary's head in a message of its own.
    assert byte_size(GenServer.call(proxy, {:bytes, @message_bytes_max - 6})) == @message_bytes_max - 6
    assert GenServer.call(proxy, {:bytes, @message_bytes_max - 5}) == refused(:too_large)
    assert GenServer.call(proxy, {:echo, 1}) == 1
  end

  # A daemon gets messages as one node sends them to another, where an atom's text takes 2 bytes more; in
  # `term_to_binary/2` of OTP 25 it takes 3.
  defp shorter_atoms(sender) do
    <<131, 104, 2, tag, _rest::binary>> = :erlang.term_to_binary({:echo, ""}, minor_version: 2)
    if transport(sender) == :c_node and tag == 100, do: 1, else: 0
  end

  # So that `{:echo, payload}` is that many bytes in external term format.
  defp payload(bytes), do: :binary.copy("x", bytes - byte_size(:erlang.term_to_binary({:echo, ""}, minor_version: 2)))

  test "the default limit is 8 MiB" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :unix)
    {:ok, echo} = Echo.start_link(owner: nil)
    proxy = publish(alice, "echo", echo, [bob])
    at = payload(8 * 1024 * 1024)
    assert GenServer.call(proxy, {:echo, at}, 60_000) == at
    over = at <> :binary.copy("x", 1 + shorter_atoms(bob))
    assert GenServer.call(proxy, {:echo, over}) == refused(:too_large)
  end
end
