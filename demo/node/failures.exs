defmodule Demo.Failures do
  @moduledoc false
  # What is refused, and what happens when programs are killed.

  import Demo.Report
  import Demo.Steps

  alias Demo.{Daemon, Engines, Epmd, Systems, VM}

  @strangers 1_000

  ## 9

  def refused(%{alice: alice, bob: bob, carol: carol} = systems) do
    section("9  What is refused", "The configuration says who may do what, and a node is never made to know an atom.")
    subsection("By policy")
    refused = fn vm, code, reason, text -> expect(vm, code, {:error, {:legation, reason}}, text) end
    text = "bob lets alice cast to notes, and no more"
    refused.(alice, ~S|GenServer.call({:global, "notes@bob"}, :notes)|, :forbidden, text)
    text = "nor suspend ping, as :sys does"
    refused.(alice, ~S|:sys.suspend({:global, "ping@bob"})|, :forbidden, text)
    Engines.gone(carol, "{'notes@bob', Daemon}", "to carol it isn't exported, so for carol there is none")
    text = "a fun is code, and does not go"
    refused.(bob, ~S|gen_server:call({global, <<"counter@alice">>}, {get, fun() -> ok end})|, :identifiers, text)

    subsection("Atoms that bob's node doesn't know")
    text = "a call with one"
    refused.(alice, ~S|GenServer.call({:global, "ping@bob"}, {:echo, :never_heard_of_at_bobs})|, :undecodable, text)
    new_atoms(alice, bob)

    subsection("A key that isn't on the list")
    unlisted(systems)
  end

  defp new_atoms(alice, bob) do
    atoms = "erlang:system_info(atom_count)"
    dropped = "maps:get(dropped_undecodable, gen_server:call({legation, Daemon}, counters))"
    # What is asked below is known by then.
    before = %{dropped: quiet(bob, dropped), notes: quiet(bob, "gen_server:call(ping, notes)")}
    count = value(bob, atoms)

    value(
      alice,
      ~s|for n <- 1..#{@strangers}, do: GenServer.cast({:global, "ping@bob"}, {:note, :"stranger_\#{n}"}); :ok|
    )

    await_value(bob, dropped, &(&1 == before.dropped + @strangers))

    expect(
      bob,
      dropped,
      before.dropped + @strangers,
      "#{@strangers} casts, each with another: all dropped, and counted"
    )

    expect(bob, atoms, count, "bob's node has as many atoms as before")
    expect(bob, "gen_server:call(ping, notes)", before.notes, "ping has noticed nothing")

    expect(
      alice,
      ~S|GenServer.call({:global, "ping@bob"}, {:echo, [:ping, :gen_server]})|,
      [:ping, :gen_server],
      "what bob knows goes"
    )
  end

  defp unlisted(%{alice: alice} = systems) do
    args = ["peers", "--socket", "carol/control.sock"]
    told? = fn {lines, _status} -> Enum.any?(lines, &(&1 =~ "allow-list")) end
    await("what carol's daemon says of its peers", fn -> Systems.legation_quiet(systems, args) end, told?)
    text = "carol's daemon dials alice as well, whose list doesn't have carol's key, and it is told so"

    systems
    |> Systems.legation(args)
    |> Systems.told(~r/^alice .* the peer closed: the key is not on the allow-list/, text)

    expect_like(alice, "Legation.counters().hellos_unlisted", "more than none", &(&1 > 0), "alice has counted that")
  end

  ## 10

  def killed(systems) do
    section("10  Killed", "By kill -9, so that nobody can say goodbye.")
    systems |> daemon_killed() |> node_killed() |> epmd_killed()
  end

  defp daemon_killed(%{alice: alice, bob: bob, bob2: bob2} = systems) do
    subsection("The daemon, while a call is open")
    ask = ~S|gen_server:call({'desk@alice', Daemon}, {ask, <<"Anybody?">>}, 60000)|
    value(bob, "{_, Asker} = spawn_monitor(fun() -> #{ask} end)")
    value(bob, "Counter2 = monitor(process, {'counter@alice', Daemon})")
    value(alice, ~S|ping = Process.monitor(Legation.whereis("ping@bob"))|)
    Systems.await_question(alice)
    code("$", "kill -KILL #{systems.bobs_daemon.os_pid}")
    check("it is gone (exit status 137)", Daemon.kill(systems.bobs_daemon), 137)
    expect(bob, "element(1, element(2, Down(Asker)))", {:nodedown, :"legation@127.0.0.1"}, "the caller exits")
    expect(bob, "element(2, Down(Counter2))", :noconnection, "a monitor is told")
    state = ~S|hd(for p <- Legation.peers(), p.realm == "bob", do: p.state)|
    lost? = &(&1 == :lost)
    await_value(alice, state, lost?)
    expect_like(alice, state, ":lost", lost?, "to alice the link is lost; the session might be taken up again")
    reason = {:nodedown, :"legation@127.0.0.1"}
    Engines.exits_at_once(bob, "{'counter@alice', 'legation@127.0.0.1'}", reason, "a call, now")
    Engines.gone(bob, ~S|{global, <<"counter@alice">>}|, "by its global name, which is gone")
    # To nobody, by now.
    quiet(alice, ~S|Alice.Clerk.answer("Too late")|)

    subsection("It is started again")
    systems = Systems.start_bobs_daemon(systems)
    text = "it has lost the session with its memory, and so alice's monitor of bob's ping is told"
    expect(alice, down(), :noconnection, text)
    for vm <- [bob, bob2], do: Systems.await_global(vm, "counter@alice")
    number = quiet(alice, "GenServer.call(Alice.Counter, :get)")
    by_global = ~S|gen_server:call({global, <<"counter@alice">>}, get)|
    expect(bob, by_global, number, "the same names work, the global one")
    expect(bob, ~S|gen_server:call({'counter@alice', Daemon}, get)|, number, "and that at the node")
    expect(bob2, by_global, number, "from the second node as well")
    await_ping(alice)
    ping = ~S|GenServer.call({:global, "ping@bob"}, :ping)|
    text = "bob's publisher has published ping again, and alice calls it"
    expect_like(alice, ping, "{:pong, _}", &match?({:pong, _}, &1), text)
    Systems.await_global(bob, "ping@carol")
    text = "carol's daemon has dialled again by itself"
    expect(bob, ~S|gen_server:call({global, <<"ping@carol">>}, ping)|, {:pong, 2}, text)
    systems
  end

  defp node_killed(%{alice: alice, bob: bob, bob2: bob2} = systems) do
    subsection("bob's node, while the daemon lives on")
    value(alice, ~S|ping = Process.monitor(Legation.whereis("ping@bob"))|)
    code("$", "kill -KILL #{bob.os_pid}")
    check("it is gone (exit status 137)", VM.kill(bob), 137)
    text = "alice's monitor of bob's ping is told, with the reason that there is no way to it any more"
    expect(alice, down(), :noconnection, text)
    number = quiet(alice, "GenServer.call(Alice.Counter, :get)")
    by_global = ~S|gen_server:call({global, <<"counter@alice">>}, get)|
    expect(bob2, by_global, number, "the second node goes on with alice's engines")
    await_value(alice, ~S|Legation.whereis("ping@bob")|, &(&1 == nil))

    subsection("It is started again")
    %{bob: bob} = systems = Systems.start_bob(systems)
    Systems.await_global(bob, "counter@alice")
    expect(bob, by_global, number, "the daemon has dialled it, and the names are there")
    await_ping(alice)
    text = "ping is a new process, was published again, and counts from the start"
    expect(alice, ~S|GenServer.call({:global, "ping@bob"}, :ping)|, {:pong, 1}, text)
    systems
  end

  defp epmd_killed(%{bob: bob, dir: dir, epmd: epmd} = systems) do
    subsection("EPMD, which new nodes ask")
    names = "lists:sort([N || {N, _Port} <- element(2, erl_epmd:names({127,0,0,1}))])"
    code("$", "kill -KILL #{epmd.os_pid}; epmd -port #{epmd.tcp_port} &")
    Epmd.stop(epmd)
    epmd = Epmd.start!(dir, epmd.tcp_port)
    await_value(bob, names, &('legation' in &1))
    names = "[N || {\"legation\" = N, _Port} <- element(2, erl_epmd:names({127,0,0,1}))]"
    expect(bob, names, ['legation'], "the daemon has registered again")
    %{systems | epmd: epmd}
  end

  defp down, do: ~S|receive do {:DOWN, ^ping, :process, _pid, reason} -> reason after 5_000 -> :nothing end|

  defp await_ping(alice), do: await_value(alice, ~S|is_pid(:global.whereis_name("ping@bob"))|, & &1)
end
