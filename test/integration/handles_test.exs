defmodule Legation.HandlesTest do
  # Rows 26-31: a pid or reference in a message is one on the other side, and what is done to it is done to the process there.
  use Legation.Case, async: true

  # bob reaches alice's echo, and alice's what bob's messages bring. Whose `allow:` is said is alice's for bob.
  defp realms(opts \\ []) do
    {limits, opts} = Keyword.pop(opts, :limits, [])
    {back, opts} = Keyword.pop(opts, :back, [])
    alice = start_realm("alice", limits: limits)
    bob = start_realm("bob", limits: limits)
    link(alice, bob, :tcp_tls, [back: back] ++ opts)
    {:ok, echo} = Echo.start(owner: self())
    proxy = publish(alice, "echo", echo, [bob])
    Process.put(:bob, bob)
    %{alice: alice, bob: bob, echo: echo, proxy: proxy}
  end

  # What alice's side has in the place of a process of bob's.
  defp given(proxy, pid) do
    GenServer.cast(proxy, {:given, pid})
    assert_receive {:cast, {:given, stand_in}}
    bob = Process.get(:bob)

    # It is watched from then on: whoever does has been told before this is answered. Of one that has ended before that nobody knows
    # how.
    GenServer.call(proxy, {:echo, 1})
    if transport(bob) == :embedded, do: :sys.get_state(peer_process(bob, "alice"))
    stand_in
  end

  # A process that tells the test what it gets, and ends when it is told to.
  defp process(opts \\ []) do
    test = self()

    spawn(fn ->
      if opts[:trap], do: Process.flag(:trap_exit, true)
      tell(test)
    end)
  end

  defp tell(test) do
    receive do
      {:end, reason} -> exit(reason)
      {:do, fun} -> fun.()
      message -> send(test, {:told, self(), message})
    end

    tell(test)
  end

  defp handles(instance, realm) do
    counters = Legation.counters(instance).sessions[realm]
    {counters.handles_exported, counters.handles_imported}
  end

  test "a pid in a message, at any depth, is used as any pid" do
    %{proxy: proxy} = realms()
    {:ok, counter} = Counter.start_link(3)
    GenServer.cast(proxy, {:deep, [%{at: {1, [counter]}}], self()})
    assert_receive {:cast, {:deep, [%{at: {1, [there]}}], me}}
    assert there not in [counter, self()]
    assert GenServer.call(there, :get) == 3
    GenServer.cast(there, {:add, 4})
    send(there, :counts_one)
    assert GenServer.call(there, :get) == 8
    send(me, :hello)
    assert_receive :hello
  end

  test "one that comes home is itself again, in whatever it comes" do
    %{proxy: proxy, echo: echo} = realms()
    pid = process()
    assert GenServer.call(proxy, {:echo, {self(), [pid, %{pid => self()}]}}) == {self(), [pid, %{pid => self()}]}
    large = {:binary.copy("x", 100_000), pid}
    assert GenServer.call(proxy, {:echo, large}) == large
    # A proxy is the engine that it stands for.
    assert given(proxy, proxy) == echo
    # And the same pid is the same one there, each time.
    assert given(proxy, pid) == given(proxy, pid)
  end

  test "who has called is the same process as the one whose pid it sent" do
    %{proxy: proxy} = realms()
    call = async_call(proxy, {:hold, 1})
    assert_receive {:held, 1, {from, _tag}}
    assert given(proxy, call) == from
    GenServer.call(proxy, {:release, 1, :ok})
  end

  @tag :embedded
  test "nobody answers another realm's calls, even with the caller's pid in his hands" do
    %{alice: alice, bob: bob, proxy: proxy} = realms()
    carol = start_realm("carol")
    link(alice, carol, :unix)
    {:ok, desk} = Echo.start_link(owner: self())
    at_carol = publish(carol, "desk", desk, [alice])
    call = async_call(proxy, {:hold, 1})
    assert_receive {:held, 1, from}
    # Alice's engine hands the caller on to carol's, who answers in its place.
    GenServer.cast(at_carol, {:answer, from})
    assert_receive {:cast, {:answer, {caller, tag}}}
    send(caller, {tag, :forged})
    until(Legation.counters(alice).dropped_forbidden == 1)
    GenServer.call(via(bob, "echo@alice"), {:release, 1, :honest})
    assert await_call(call) == {:reply, :honest}
  end

  test "references survive the round trip, and mean nothing to anybody else" do
    %{proxy: proxy} = realms()
    refs = [make_ref(), make_ref()]
    assert GenServer.call(proxy, {:echo, refs}) == refs
    [ref | _other] = refs
    GenServer.cast(proxy, {:a_reference, ref})
    assert_receive {:cast, {:a_reference, there}}
    assert is_reference(there) and there not in refs
  end

  test "ports and funs don't cross: an error to a caller, a counted drop of a cast" do
    %{bob: bob, proxy: proxy} = realms()
    port = Port.open({:spawn, "cat"}, [])
    before = Legation.counters(bob).dropped_identifiers

    for what <- [fn -> :fun end, port, {:deep, [&String.length/1]}] do
      assert GenServer.call(proxy, {:echo, what}) == {:error, {:legation, :identifiers}}
      GenServer.cast(proxy, what)
    end

    assert GenServer.call(proxy, {:echo, 1}) == 1
    if transport(bob) == :embedded, do: assert(Legation.counters(bob).dropped_identifiers == before + 3)
    refute_received {:cast, _what}
  end

  test "a reply may hold pids, too" do
    %{bob: bob, alice: alice, proxy: proxy, echo: echo} = realms()
    there = GenServer.call(proxy, :own_pid)
    assert there not in [echo, proxy]
    assert GenServer.call(there, {:echo, 1}) == 1
    # Alice's engines, too, are processes that bob may hear of.
    publish(alice, "again", echo, [bob])
    assert given(there, there) == echo
  end

  describe "a monitor" do
    for {reason, told} <- [
          {:normal, :normal},
          {:shutdown, :shutdown},
          {{:shutdown, :detail}, :shutdown},
          {:killed, :killed},
          {:timeout, :timeout},
          {{:oops, [1]}, {:remote_exit, :crashed}}
        ] do
      test "fires with the class of #{inspect(reason)}" do
        %{proxy: proxy} = realms()
        pid = process()
        there = given(proxy, pid)
        monitor = monitor(there)
        send(pid, {:end, unquote(Macro.escape(reason))})
        told = unquote(Macro.escape(told))
        assert_receive {:DOWN, ^monitor, :process, ^there, ^told}
      end
    end

    test "has the whole reason where the realm that it is from says so" do
      %{proxy: proxy, echo: echo} = realms(reasons: :full, back: [reasons: :full])
      pid = process()
      there = given(proxy, pid)
      monitors = {monitor(there), monitor(proxy)}
      send(pid, {:end, {:oops, [1], pid}})
      {monitor, of_proxy} = monitors
      assert_receive {:DOWN, ^monitor, :process, ^there, {:oops, [1], _itself}}
      GenServer.cast(echo, {:exit, {:why, :not}})
      assert_receive {:DOWN, ^of_proxy, :process, ^proxy, {:why, :not}}
    end

    test "of one that has ended before fires at once" do
      %{proxy: proxy} = realms()
      pid = process()
      there = given(proxy, pid)
      send(pid, {:end, :normal})
      until(not Process.alive?(pid))
      again = given(proxy, pid)
      monitor = monitor(again)
      assert_receive {:DOWN, ^monitor, :process, ^again, reason}
      assert reason in [:noproc, :normal]
      assert is_pid(there)
    end

    test "says no more than that it is gone to a peer that may not monitor" do
      allow = [:call, :cast, :send]
      %{proxy: proxy, echo: echo} = realms(allow: allow, back: [allow: allow])
      pid = process()
      there = given(proxy, pid)
      monitors = {monitor(there), monitor(proxy)}
      send(pid, {:end, :shutdown})
      {monitor, of_proxy} = monitors
      assert_receive {:DOWN, ^monitor, :process, ^there, :noproc}
      GenServer.cast(echo, {:exit, :shutdown})
      assert_receive {:DOWN, ^of_proxy, :process, ^proxy, :noproc}
    end

    test "fires when the session has ended" do
      %{bob: bob, proxy: proxy} = realms()
      there = given(proxy, process())
      monitor = monitor(there)
      :ok = Legation.disconnect("alice", bob)
      assert_receive {:DOWN, ^monitor, :process, ^there, :noconnection}
    end
  end

  describe "a link" do
    @all [:call, :cast, :send, :monitor, :link, :exit]

    test "carries the end of a process of ours to theirs" do
      %{proxy: proxy} = realms(back: [allow: @all])
      theirs = process(trap: true)
      # Alice's side links what stands for bob's process, and dies.
      there = given(proxy, theirs)
      ours = process()
      send(ours, {:do, fn -> Process.link(there) end})
      send(ours, {:end, :shutdown})
      assert_receive {:told, ^theirs, {:EXIT, _who, :shutdown}}
    end

    test "carries the end of theirs to a process of ours" do
      %{proxy: proxy} = realms()
      theirs = process()
      there = given(proxy, theirs)
      ours = process(trap: true)

      # What has come over behind it says that the link is there.
      send(ours, {:do, fn -> Process.link(there) && send(there, :linked) end})
      assert_receive {:told, ^theirs, :linked}
      send(theirs, {:end, :oops})
      assert_receive {:told, ^ours, {:EXIT, ^there, {:remote_exit, :crashed}}}
    end

    test "to an engine ends it, where that is allowed" do
      %{proxy: proxy, echo: echo} = realms(allow: @all)
      monitor = monitor(echo)
      ours = process()
      send(ours, {:do, fn -> Process.link(proxy) end})
      send(ours, {:end, :oops})
      assert_receive {:DOWN, ^monitor, :process, ^echo, {:remote_exit, :crashed}}
    end

    test "to an engine does nothing, where it isn't" do
      %{alice: alice, proxy: proxy, echo: echo} = realms()
      ours = process()
      send(ours, {:do, fn -> Process.link(proxy) end})
      send(ours, {:end, :oops})
      until(Legation.counters(alice).exits_refused == 1)
      assert Process.alive?(echo)
      assert GenServer.call(proxy, {:echo, 1}) == 1
    end
  end

  describe "Process.exit/2" do
    test "reaches the process, where that is allowed, and the proxy lives" do
      %{proxy: proxy, echo: echo} = realms(allow: [:call, :cast, :exit, :monitor])
      monitor = monitor(echo)
      Process.exit(proxy, :shutdown)
      assert_receive {:DOWN, ^monitor, :process, ^echo, :shutdown}
    end

    test "does nothing where it isn't" do
      %{alice: alice, proxy: proxy, echo: echo} = realms()
      Process.exit(proxy, :shutdown)
      until(Legation.counters(alice).exits_refused == 1)
      assert GenServer.call(proxy, {:echo, 1}) == 1
      assert Process.alive?(echo)
    end

    @tag :embedded
    test "kills nobody's: an embedded proxy can't keep it off, and that is all" do
      %{bob: bob, proxy: proxy, echo: echo} = realms(allow: [:call, :cast, :exit])
      Process.exit(proxy, :kill)
      until(Legation.whereis("echo@alice", bob) not in [nil, proxy])
      assert GenServer.call(via(bob, "echo@alice"), {:echo, 1}) == 1
      assert Process.alive?(echo)
    end
  end

  describe "what a session has of pids" do
    test "goes when the processes end" do
      %{alice: alice, bob: bob, proxy: proxy} = realms()
      pids = for _ <- 1..100, do: process()
      GenServer.cast(proxy, {:many, pids})
      assert_receive {:cast, {:many, there}}
      # They are watched from then on.
      if transport(bob) == :embedded, do: :sys.get_state(peer_process(bob, "alice"))
      monitors = for pid <- there, do: monitor(pid)
      assert {100, 0} = handles(bob, "alice")
      assert {0, 100} = handles(alice, "bob")
      for pid <- pids, do: send(pid, {:end, :normal})
      for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, :process, _pid, :normal})
      until(handles(bob, "alice") == {0, 0})
      until(handles(alice, "bob") == {0, 0})
    end

    test "goes when nobody uses it any more, on both sides" do
      %{alice: alice, bob: bob, proxy: proxy} = realms(limits: [handle_idle_ms: 100])
      pids = for _ <- 1..100, do: process()
      GenServer.cast(proxy, {:many, [self() | pids]})
      assert_receive {:cast, {:many, [me | there]}}
      # Whoever is watched stays.
      [watched | _others] = there
      monitor = monitor(watched)
      until(handles(bob, "alice") == {1, 0})
      until(handles(alice, "bob") == {0, 1})
      refute_received {:DOWN, ^monitor, :process, _pid, _reason}
      # It is another one from then on.
      again = given(proxy, self())
      if transport(alice) == :embedded, do: assert(again != me)
      send(again, :hello)
      assert_receive :hello
    end

    test "is bounded: the one goes that was not used for longest, and when all are in use a message is refused" do
      %{alice: alice, proxy: proxy} = realms(limits: [handles_max: 20])
      pids = for _ <- 1..15, do: process()
      GenServer.cast(proxy, {:many, pids})
      assert_receive {:cast, {:many, there}}
      monitors = for pid <- there, do: monitor(pid)
      # Whoever watches them for bob has begun to.
      assert GenServer.call(proxy, {:echo, 1}) == 1
      # Their processes have not ended, so bob has them still; alice forgets those that she doesn't need.
      for pid <- pids, do: send(pid, {:end, :normal})
      # On a busy machine who watches them may come too late for the reason.
      for monitor <- monitors do
        assert_receive {:DOWN, ^monitor, :process, _pid, reason}
        assert reason in [:normal, :noproc]
      end

      more = for _ <- 1..20, do: process()
      until(match?({:many, _echoed}, GenServer.call(proxy, {:echo, {:many, Enum.take(more, 10)}})))
      assert {_exported, imported} = handles(alice, "bob")
      assert imported <= 20
      assert GenServer.call(proxy, {:echo, more ++ [self()]}) == {:error, {:legation, :overload}}
    end

    @tag timeout: 120_000
    test "is nothing after a hundred thousand" do
      %{alice: alice, bob: bob, proxy: proxy} = realms()
      # Stand-ins are linked to their Peer as long as they live.
      links = if transport(alice) == :embedded, do: links(peer_process(alice, "bob"))

      # Who calls is one of them, and ends, too.
      calls =
        Task.async(fn ->
          for _ <- 1..100 do
            pids = for _ <- 1..1_000, do: spawn(fn -> receive(do: (:end -> :ok)) end)
            ^pids = GenServer.call(proxy, {:echo, pids}, 30_000)
            for pid <- pids, do: send(pid, :end)
          end
        end)

      Task.await(calls, 100_000)
      until(handles(bob, "alice") == {0, 0})
      until(handles(alice, "bob") == {0, 0})

      # Each ends by a message of its own, after its handle is free, and its Peer hears of it by the next.
      if transport(alice) == :embedded do
        until(:sys.get_state(peer_process(alice, "bob")).stand_ins == %{})
        assert links(peer_process(alice, "bob")) == links
        assert :ets.info(Legation.Instance.fetch!(alice).stand_ins, :size) == 0
      end

      if transport(bob) == :embedded do
        until(:sys.get_state(peer_process(bob, "alice")).exports == %{})
        # Its Reader, and nobody else.
        assert {:monitors, [_reader]} = Process.info(peer_process(bob, "alice"), :monitors)
      end
    end

    defp links(pid), do: pid |> Process.info(:links) |> elem(1) |> Enum.sort()

    @tag :embedded
    test "is nothing in the table when the peer is not ours any more, or its process has crashed" do
      %{alice: alice, proxy: proxy} = realms()
      table = Legation.Instance.fetch!(alice).stand_ins
      given(proxy, process())
      assert :ets.info(table, :size) > 0
      watch = watch(alice)
      Process.exit(peer_process(alice, "bob"), :kill)
      await(watch, {:peer_down, "bob"})
      await(watch, {:peer_up, "bob"})
      until(:ets.info(table, :size) == 0)
      proxy = await_engine(Process.get(:bob), "echo@alice")
      given(proxy, process())
      assert :ets.info(table, :size) > 0
      :ok = Legation.disconnect("bob", alice)
      assert :ets.info(table, :size) == 0
    end

    @tag :embedded
    test "is nothing in the table where its Reader was still delivering when the peer went" do
      %{alice: alice, proxy: proxy} = realms()
      table = Legation.Instance.fetch!(alice).stand_ins
      given(proxy, process())
      assert [%{reader: reader}] = Map.values(:sys.get_state(peer_process(alice, "bob")).links)
      %{delivery: delivery} = :sys.get_state(reader)
      :ok = Legation.disconnect("bob", alice)
      made = for number <- 1_001..1_100, do: Legation.Connection.Handles.stand_in(delivery, number)
      # Some of them end before they have a row, and some of them after.
      for {:ok, pid} <- made do
        monitor = Process.monitor(pid)
        assert_receive {:DOWN, ^monitor, :process, ^pid, _noconnection}
      end

      assert :ets.info(table, :size) == 0
    end

    @tag :embedded
    test "is not watched where the peer has forgotten it before its Peer has heard of it" do
      %{bob: bob} = realms()
      peer = peer_process(bob, "alice")
      %{session: %{tag: tag}, exports: exports} = :sys.get_state(peer)
      send(peer, {Legation.Instance.fetch!(bob).ref, :exported, tag, [{1_000_000, process()}]})
      assert :sys.get_state(peer).exports == exports
    end

    @tag :embedded
    test "is nothing when the session has ended" do
      %{alice: alice, bob: bob, proxy: proxy} = realms()
      pids = for _ <- 1..1_000, do: process()
      GenServer.cast(proxy, {:many, pids})
      assert_receive {:cast, {:many, there}}
      monitors = for pid <- there, do: Process.monitor(pid)
      watch = watch(alice)
      :ok = Legation.disconnect("alice", bob)
      for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, :process, _pid, :noconnection})
      await(watch, {:peer_down, "bob"})

      until(:ets.info(Legation.Instance.fetch!(alice).stand_ins, :size) == 0)

      for pid <- pids, do: send(pid, {:end, :normal})
    end
  end
end
