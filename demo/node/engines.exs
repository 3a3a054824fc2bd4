defmodule Demo.Engines do
  @moduledoc false
  # What plain Erlang does with the engines of others, and they with its own.

  import Demo.Report
  import Demo.Steps

  alias Demo.{Systems, VM}

  # A caller who has to wait for an answer waits 5 s. This is "at once", also on a busy machine.
  @at_once_us 1_000_000

  @by_global ~S|{global, <<"counter@alice">>}|
  @by_node ~S|{'counter@alice', 'legation@127.0.0.1'}|

  @last_from "element(2, gen_server:call(ping, last_from))"

  ## 3

  def out_of_a_plain_node(%{alice: alice, bob: bob}) do
    section("3  A plain node calls", "To bob's node alice's engines are processes of the daemon's node, with names.")
    number = quiet(alice, "GenServer.call(Alice.Counter, :get)")
    expect(bob, "gen_server:call(#{@by_global}, get)", number, "a call, by its global name")
    expect(bob, "gen_server:call(#{@by_node}, get)", number, "and by its name at the node")
    value(bob, "gen_server:cast(#{@by_global}, {add, 7})")
    value(bob, "gen_server:cast(#{@by_node}, {add, 1})")
    expect(bob, "gen_server:call(#{@by_global}, get)", number + 8, "two casts, and it is 8 more")
    value(bob, ~S|global:send(<<"counter@alice">>, tick)|)
    value(bob, "#{@by_node} ! tick")
    number = number + 10
    expect(bob, "gen_server:call(#{@by_node}, get)", number, "two bare messages, and it is 2 more")
    expect(alice, "GenServer.call(Alice.Counter, :get)", number, "alice's own processes see the same number")

    subsection("Who asks")
    door = ~S|{global, <<"door@alice">>}|
    expect(bob, "gen_server:call(#{door}, who_am_i)", {"bob", ""}, "alice's door is told that it is bob")
    text = "a published engine of bob's has a key of its own, and it signs for itself"
    expect(bob, "gen_server:call(ping, {ask, #{door}, who_am_i})", {"bob", "ping"}, text)

    late_replies(alice, bob, number)

    subsection("An engine that isn't there")
    gone(bob, ~S|{global, <<"nobody@alice">>}|, "there never was one")
    gone(bob, ~S|{'nobody@alice', 'legation@127.0.0.1'}|, "by name at the node it is the daemon that says so")
    gone(bob, ~S|{'diary@alice', 'legation@127.0.0.1'}|, "there is one, but not for bob, and it looks the same")
    value(bob, ~S|Nobody = monitor(process, {'nobody@alice', 'legation@127.0.0.1'})|)

    value(
      bob,
      "Down = fun(Monitor) -> receive {'DOWN', Monitor, process, Who, Reason} -> {Who, Reason} after 5000 -> nothing end end"
    )

    expect(
      bob,
      "Down(Nobody)",
      {{:nobody@alice, :"legation@127.0.0.1"}, :noproc},
      "a monitor is told the same"
    )

    ends(alice, bob)
  end

  defp late_replies(alice, bob, number) do
    subsection("Replies that come late")
    exit = exit_reason(bob, ~S|gen_server:call({global, <<"desk@alice">>}, {ask, <<"Which way?">>}, 100)|)
    timeout = "{timeout, {gen_server, call, _}}"
    check_that("nobody answered within 100 ms", match?({:timeout, {:gen_server, :call, _}}, exit), exit, timeout)
    expect(alice, ~S|Alice.Clerk.answer("To the left")|, "Which way?", "now alice's clerk answers that question")
    # The caller's later call is answered behind its late reply, so that has come when this has.
    expect(bob, "gen_server:call(#{@by_global}, get)", number, "a later call of the same caller is answered")
    expect(bob, "process_info(self(), messages)", {:messages, []}, "and the late reply has reached nobody")

    value(bob, ~S|Question = gen_server:send_request({'desk@alice', Daemon}, {ask, <<"How far?">>})|)
    text = "the clerk, another process than the desk that was asked, replies later"
    expect(alice, ~S|Alice.Clerk.answer("Two miles")|, "How far?", text)
    good? = &match?({:reply, "Two miles (answered by #PID" <> _}, &1)
    expect_like(bob, "gen_server:receive_response(Question, 5000)", "two miles", good?, "it arrives")
  end

  def gone(vm, server, words), do: exits_at_once(vm, server, :noproc, words)

  @doc "A call to the server must exit with this reason, and not wait."
  def exits_at_once(vm, server, reason, words) do
    call = "gen_server:call(#{server}, get)"
    code(vm.realm, call)
    # By then the call's code is loaded; what is measured is the call.
    {us, exit} = quiet(vm, "timer:tc(fun() -> try #{call} catch exit:{Reason, _Call} -> Reason end end)")

    check_that(
      "#{words}: exits #{show(vm, exit)} after #{us} µs",
      exit == reason and us < @at_once_us,
      {us, exit},
      "#{show(vm, reason)} in under #{@at_once_us} µs"
    )
  end

  defp ends(alice, bob) do
    subsection("An engine ends")
    value(bob, "Counter = monitor(process, #{@by_node})")
    value(bob, ~S|Before = global:whereis_name(<<"desk@alice">>), Desk = monitor(process, Before)|)
    # A monitor has no answer. A call behind it has, and comes later.
    quiet(bob, "gen_server:call(#{@by_node}, get)")
    value(alice, "GenServer.stop(Alice.Counter, :shutdown)")
    expected = {{:counter@alice, :"legation@127.0.0.1"}, :shutdown}
    expect(bob, "Down(Counter)", expected, "bob is told, with the reason")

    ask = ~S|gen_server:call({global, <<"desk@alice">>}, {ask, <<"Why?">>})|
    value(bob, "{_, Caller} = spawn_monitor(fun() -> #{ask} end)")
    Systems.await_question(alice)
    value(alice, "Process.exit(Process.whereis(Alice.Desk), :a_long_story)")
    text = "a crash, and no more than that is told: stack traces stay at home"
    expect(bob, "element(2, Down(Desk))", {:remote_exit, :crashed}, text)

    expect(
      bob,
      "element(1, element(2, Down(Caller)))",
      {:remote_exit, :crashed},
      "the call that was open exits with it"
    )

    code =
      ~S|[Pid =/= Before andalso is_pid(Pid) \|\| Pid <- [global:whereis_name(<<"counter@alice">>), global:whereis_name(<<"desk@alice">>)]]|

    await_value(bob, code, &(&1 == [true, true]))
    text = "alice's supervisor has started both again, and they are back under their names"
    expect(bob, "gen_server:call(#{@by_global}, get)", 5, text)
    # To nobody, by now.
    quiet(alice, ~S|Alice.Clerk.answer("Never mind")|)
  end

  ## 4

  def into_a_plain_node(%{alice: alice, bob: bob}) do
    section(
      "4  A plain node is called",
      "ping is an ordinary gen_server. Another process of bob's, publisher, has told the daemon of it."
    )

    expect(alice, ~S|{:pong, _} = GenServer.call({:global, "ping@bob"}, :ping)|, {:pong, 1}, "alice calls bob's ping")
    good? = &match?({:"$legation", number, "alice", ""} when is_integer(number), &1)
    expect_like(bob, @last_from, "'$legation', and alice", good?, "in ping's From stands who it was, verified")
    expect(alice, ~S|Alice.Door.call({:global, "ping@bob"}, :ping)|, {:pong, 2}, "an engine of alice's calls it")
    good? = &match?({:"$legation", number, "alice", "door"} when is_integer(number), &1)
    expect_like(bob, @last_from, "'$legation', and alice's door", good?, "and that stands there, too")
    value(alice, ~S|GenServer.cast({:global, "ping@bob"}, {:note, "a cast"})|)
    value(alice, ~S|send(Legation.whereis("ping@bob"), "a bare message")|)
    quiet(alice, ~S|GenServer.call({:global, "ping@bob"}, :ping)|)
    notes = ["a cast", "a bare message"]
    expect(bob, "gen_server:call(ping, notes)", notes, "a cast and a bare message have arrived, in this order")

    subsection("Published by hand")
    value(bob, "{ok, Notes} = ping:start_link(notes)")
    publish = ~S|gen_server:call({legation, Daemon}, {publish, <<"notes">>, notes, []})|
    expect(bob, publish, :ok, "one more")
    check("alice is told", VM.await(alice, :engine_learned, "notes@bob").ops, [:call, :cast, :send])
    # :global has it a little later, and until then a cast to nobody.
    await_value(alice, ~S|is_pid(:global.whereis_name("notes@bob"))|, & &1)
    value(alice, ~S|GenServer.cast({:global, "notes@bob"}, {:note, "to be or not"})|)
    await_value(bob, "gen_server:call(notes, notes)", &(&1 != []))
    expect(bob, "gen_server:call(notes, notes)", ["to be or not"], "and can use it")
    good? = &match?({:error, {:already_published, pid}} when is_pid(pid), &1)
    publish = String.replace(publish, "notes, []", "self(), []")
    expect_like(bob, publish, "{error, {already_published, Pid}}", good?, "what can't be done is answered in words")
  end

  ## 5

  def from_a_cluster(%{alice: alice} = systems) do
    section(
      "5  A cluster",
      "A second node joins bob's, long after all names were given. It is in nobody's configuration."
    )

    bob2 = Systems.start_node(systems, "bob2", "bob", nil)
    expect(bob2, "nodes(connected)", [], "it knows nobody yet")
    value(bob2, "net_kernel:connect_node('bob@127.0.0.1')")
    Systems.await_global(bob2, "counter@alice")
    number = quiet(alice, "GenServer.call(Alice.Counter, :get)")
    expect(bob2, "gen_server:call(#{@by_global}, get)", number, "it calls, by the global name")
    value(bob2, "gen_server:cast(#{@by_node}, {add, 100})")
    expect(bob2, "gen_server:call(#{@by_node}, get)", number + 100, "and casts and calls, by name at the node")
    expect(bob2, "nodes(hidden)", [:"legation@127.0.0.1"], "by a connection of its own with the daemon")
    quiet(bob2, "Daemon = 'legation@127.0.0.1'")
    nodes = "lists:sort(maps:get(nodes, gen_server:call({legation, Daemon}, info)))"
    await_value(bob2, nodes, &(length(&1) == 2))
    expect(bob2, nodes, [:"bob2@127.0.0.1", :"bob@127.0.0.1"], "which has two now")
    Systems.await_global(bob2, "ping@bob")
    whereis = ~S|node(global:whereis_name(<<"ping@bob">>))|
    expect(bob2, whereis, :"bob@127.0.0.1", "bob's own engines have such names, too, and need no daemon here")
    Map.put(systems, :bob2, bob2)
  end

  ## 6

  def daemon_to_daemon(%{bob: bob} = systems) do
    section(
      "6  Daemon to daemon",
      "carol is plain Erlang as well. Its daemon dials bob's by a Unix socket, and does without EPMD."
    )

    %{carol: carol} = systems = Systems.start_carol(systems)
    for {vm, engine} <- [{carol, "ping@bob"}, {bob, "ping@carol"}], do: Systems.await_global(vm, engine)
    call = ~S|gen_server:call({global, <<"ping@bob">>}, ping)|
    expect_like(carol, call, "{pong, _}", &match?({:pong, _}, &1), "carol calls bob")
    expect(bob, "element(3, #{@last_from})", "carol", "and bob sees that it was")
    expect(bob, ~S|gen_server:call({'ping@carol', Daemon}, ping)|, {:pong, 1}, "bob calls carol")
    expect(carol, "element(3, #{@last_from})", "bob", "and carol sees that it was")
    value(carol, "Mebibyte = crypto:strong_rand_bytes(1048576), byte_size(Mebibyte)")
    echo = ~S|gen_server:call({global, <<"ping@bob">>}, {echo, Mebibyte}) =:= Mebibyte|
    expect(carol, echo, true, "a mebibyte goes there, and comes back as it was")
    names = "[maps:get(name, E) || E <- gen_server:call({legation, Daemon}, engines), not maps:get(local, E)]"
    expect(carol, names, ["ping@bob"], "carol is told of what bob exports to carol, and of no more")
    systems
  end
end
