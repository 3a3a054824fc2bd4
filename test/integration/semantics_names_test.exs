defmodule Legation.SemanticsNamesTest do
  # docs/semantics.md: names, publishing, what subscribers hear, and OTP's other ways, in each state of a link.
  use Legation.Semantics,
    sections: ["Names", "Publishing", "Peers", "Pids and references", "OTP's other ways"]

  import Legation.Semantics.Pair

  alias Legation.Cable

  ## Names

  # No other test's realms are after these in :global.
  defp named(opts \\ []) do
    pair = pair([realm: "alice_of_names", bob: [global: true]] ++ opts)
    settle_global(pair.bob)
    pair
  end

  defp looked_up(pair, call \\ nil) do
    settle_global(pair.bob)
    whereis = who(Legation.whereis(pair.name, pair.bob), pair)
    global = who(:global.whereis_name(pair.name), pair)
    [whereis, call || called(via(pair.bob, pair.name), {:note, 1}), global]
  end

  defp who(pid, %{proxy: pid}), do: :proxy
  defp who(pid, _pair) when is_pid(pid), do: :another
  defp who(nobody, _pair), do: nobody

  scenario("name_up", do: looked_up(named()))

  scenario "name_lost" do
    pair = lose(named())
    [whereis, _call, global] = looked_up(pair, :not_yet)
    call = call(pair, {:note, 1}, via(pair.bob, pair.name))
    resume(pair)
    [whereis, outcome(call), global]
  end

  scenario "name_ended" do
    pair = named()
    goodbye(pair)
    await_forgotten(pair.bob, pair.name)
    looked_up(pair)
  end

  scenario "name_again" do
    pair = named()
    goodbye(pair)
    await_forgotten(pair.bob, pair.name)
    :ok = Legation.connect("bob", pair.alice)
    await_engine(pair.bob, pair.name)
    looked_up(pair)
  end

  scenario "name_withdrawn" do
    pair = named()
    :ok = Legation.withdraw("echo", pair.alice)
    await_forgotten(pair.bob, pair.name)
    looked_up(pair)
  end

  # She has the global name of her own engine where she registers names.
  scenario "name_own" do
    alice = start_realm("alice_of_her_own", global: true, limits: [grace_ms: 60_000])
    bob = start_realm("bob", limits: [grace_ms: 60_000])
    cable = Cable.start()
    link(alice, bob, :tcp_tls, through: cable)
    {:ok, echo} = Echo.start_link(owner: self())
    publish(alice, "echo", echo, [bob])
    watch = watch(alice)
    Cable.cut(cable, :down)
    await(watch, {:peer_lost, "bob"})
    settle_global(alice)
    name = "echo@alice_of_her_own"
    itself = fn pid -> if pid == echo, do: :itself, else: pid end
    call = called(via(alice, name), {:note, 1})
    [itself.(Legation.whereis(name, alice)), call, itself.(:global.whereis_name(name))]
  end

  ## Publishing

  # What bob's subscriber gets of alice's engines, up to a marker that is published behind all else.
  defp news(pair) do
    :ok = Legation.publish("marker", self(), [], pair.alice)
    collect(pair.watch_bob.ref)
  end

  defp collect(ref) do
    assert_receive {:legation, ^ref, event}

    case event do
      {:engine_learned, "marker@alice", _info} -> []
      {what, _name, _detail} when what in [:engine_learned, :engine_forgotten] -> [what | collect(ref)]
      _of_the_peer -> collect(ref)
    end
  end

  scenario "publish_up" do
    pair = pair()
    [Legation.publish("more", pair.echo, [], pair.alice), news(pair)]
  end

  scenario "publish_lost" do
    pair = lose(pair())
    published = Legation.publish("more", pair.echo, [], pair.alice)
    resume(pair)
    [published, news(pair)]
  end

  scenario "publish_ended" do
    pair = pair()
    :ok = Legation.withdraw("echo", pair.alice)
    await(pair.watch_bob, {:engine_forgotten, "echo@alice"})
    goodbye(pair)
    published = Legation.publish("more", pair.echo, [], pair.alice)
    :ok = Legation.connect("bob", pair.alice)
    begin_again(pair)
    [published, news(pair)]
  end

  scenario "withdraw_up" do
    pair = pair()
    [Legation.withdraw("echo", pair.alice), news(pair)]
  end

  scenario "withdraw_lost" do
    pair = lose(pair())
    withdrawn = Legation.withdraw("echo", pair.alice)
    refute_received {:legation, _ref, {:engine_forgotten, _name, _reason}}
    resume(pair)
    [withdrawn, news(pair)]
  end

  scenario "publish_twice" do
    pair = pair()
    [Legation.publish("echo", pair.echo, [version: 2], pair.alice), news(pair)]
  end

  ## Peers

  defp both(pair, last), do: [events(pair.watch_bob, last), events(pair.watch_alice, last)]

  scenario "peer_cut" do
    pair = pair()
    Cable.cut(pair.cable)
    both(pair, :peer_resumed)
  end

  scenario "peer_reset" do
    pair = pair()
    Cable.reset(pair.cable)
    both(pair, :peer_resumed)
  end

  scenario "peer_stalled" do
    # Not so little that a busy machine passes for a silent peer.
    pair = pair(limits: [ping_ms: 300])
    Cable.stall(pair.cable)
    lost = both(pair, :peer_lost)
    Cable.go_on(pair.cable)
    for {before, more} <- Enum.zip(lost, both(pair, :peer_resumed)), do: before ++ more
  end

  scenario "peer_grace_over" do
    pair = pair(limits: [grace_ms: 100])
    Cable.cut(pair.cable, :down)
    ended = both(pair, :peer_down)
    Cable.mend(pair.cable)
    for {before, more} <- Enum.zip(ended, both(pair, :peer_up)), do: before ++ more
  end

  scenario "peer_no_grace" do
    pair = pair(limits: [grace_ms: 0])
    Cable.cut(pair.cable)
    both(pair, :peer_up)
  end

  scenario "peer_disconnect" do
    pair = pair()
    :ok = Legation.disconnect("alice", pair.bob)
    :ok = Legation.connect("alice", pair.bob)
    both(pair, :peer_up)
  end

  scenario "peer_disconnect_lost" do
    pair = pair()
    lost = Cable.cut(pair.cable, :down)
    assert lost == 1
    at_alice = events(pair.watch_alice, :peer_lost)
    before = events(pair.watch_bob, :peer_lost)
    :ok = Legation.disconnect("alice", pair.bob)
    [before ++ events(pair.watch_bob, :peer_down), at_alice]
  end

  scenario "peer_drain" do
    pair = pair()
    {:ok, []} = Legation.drain(1_000, pair.alice)
    both(pair, :peer_down)
  end

  ## Pids and references

  # A process of bob's that tells what it gets, and what alice has of it.
  defp given(pair) do
    test = self()
    pid = spawn(fn -> told(test) end)
    ExUnit.Callbacks.on_exit(fn -> Process.exit(pid, :kill) end)
    GenServer.cast(pair.proxy, {:here_is, pid})
    assert_receive {:cast, {:here_is, stand_in}}
    assert is_pid(stand_in) and stand_in != pid
    # Whoever watches it for bob has begun to: of a process that ends before that nobody can say why.
    assert GenServer.call(pair.proxy, {:echo, 1}) == 1
    if transport(pair.bob) == :embedded, do: :sys.get_state(peer_process(pair.bob, pair.realm))
    {pid, stand_in}
  end

  defp told(test) do
    receive do
      message -> send(test, {:told, self(), message})
    end

    told(test)
  end

  defp info(pid) do
    assert_receive {:told, ^pid, message}
    [info: message]
  end

  scenario "pid_up" do
    {pid, stand_in} = given(pair())
    send(stand_in, 1)
    [info(pid), [:got_a_pid]]
  end

  scenario "pid_home" do
    pair = pair()
    {pid, _stand_in} = given(pair)
    {:reply, home} = called(pair.proxy, {:echo, pid})
    [if(home == pid, do: :the_same, else: home), [:got_a_pid]]
  end

  scenario "pid_lost" do
    pair = pair()
    {pid, stand_in} = given(pair)
    lose(pair)
    send(stand_in, 1)
    resume(pair)
    [info(pid), [:got_a_pid]]
  end

  scenario "pid_owner_dies" do
    {pid, stand_in} = given(pair())
    monitor = monitor(stand_in)
    Process.exit(pid, :kill)
    [:killed, [down: down(monitor)]]
  end

  scenario "pid_owner_dies_lost" do
    pair = pair()
    {pid, stand_in} = given(pair)
    monitor = monitor(stand_in)
    lose(pair)
    Process.exit(pid, :kill)
    resume(pair)
    [:killed, [down: down(monitor)]]
  end

  scenario "pid_grace_over" do
    pair = pair(limits: [grace_ms: 1])
    {pid, stand_in} = given(pair)
    monitor = monitor(stand_in)
    grace_over(pair)
    [if(Process.alive?(pid), do: :lives, else: :ended), [down: down(monitor)]]
  end

  scenario "reference_home" do
    pair = pair()
    reference = make_ref()
    GenServer.cast(pair.proxy, {:here_is, reference})
    assert_receive {:cast, {:here_is, theirs}}
    assert is_reference(theirs) and theirs != reference
    {:reply, home} = called(pair.proxy, {:echo, reference})
    [if(home == reference, do: :the_same, else: home), [:got_a_reference]]
  end

  scenario "port_refused" do
    pair = pair()
    port = Port.open({:spawn_executable, System.find_executable("cat")}, [:binary])
    seen = [called(pair.proxy, {:note, port}), log(pair)]
    Port.close(port)
    seen
  end

  scenario "fun_refused" do
    pair = pair()
    [called(pair.proxy, {:note, fn -> :ok end}), log(pair)]
  end

  scenario "fun_cast" do
    pair = pair()
    sent = GenServer.cast(pair.proxy, fn -> :ok end)
    log = log(pair)
    [counters] = for %{name: "echo@alice", counters: counters} <- Legation.engines(pair.bob), do: counters
    assert counters.dropped == 1
    [sent, log]
  end

  ## OTP's other ways

  defp lives(pair), do: if(Process.alive?(pair.echo), do: :lives, else: :ended)

  scenario "stop_forbidden" do
    pair = pair()

    stopped =
      try do
        GenServer.stop(pair.proxy)
      rescue
        _refused -> :raises
      catch
        :exit, _refused -> :raises
      end

    [stopped, lives(pair)]
  end

  @sys [link: [allow: [:call, :cast, :send, :monitor, :sys]]]

  scenario "stop_allowed" do
    pair = pair(@sys)
    [GenServer.stop(pair.proxy), lives(pair)]
  end

  scenario "stop_lost" do
    pair = lose(pair(@sys))
    stop = Task.async(fn -> GenServer.stop(pair.proxy) end)
    until(Legation.counters(pair.bob).sessions["alice"].calls_pending == 1)
    resume(pair)
    [Task.await(stop), lives(pair)]
  end

  # The local name of a VM can be had once.
  defp imported(name), do: lose(pair(bob: [global: true, import: [{"echo@alice", as: name}]]))

  scenario "multi_call_lost" do
    pair = imported(:echo_for_multi_call)
    settle_global(pair.bob)
    test = Task.async(fn -> GenServer.multi_call([node()], :echo_for_multi_call, {:note, 1}, 10_000) end)
    until(Legation.counters(pair.bob).sessions["alice"].calls_pending == 1)
    resume(pair)
    {replies, []} = Task.await(test, 10_000)
    [Keyword.values(replies), log(pair)]
  end

  scenario "abcast_lost" do
    pair = imported(:echo_for_abcast)
    settle_global(pair.bob)
    sent = GenServer.abcast([node()], :echo_for_abcast, 1)
    resume(pair)
    [sent, log(pair)]
  end
end
