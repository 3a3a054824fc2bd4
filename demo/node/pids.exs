defmodule Demo.Pids do
  @moduledoc false
  # Pids in messages: on the other side they are pids.

  import Demo.Report
  import Demo.Steps

  alias Demo.Systems

  def cross(%{alice: alice, bob: bob}) do
    section(
      "7  Pids",
      "A pid in a message is a pid on the other side: it can be sent to, called, watched. One that comes home is itself again."
    )

    subsection("alice answers to a pid of plain Erlang's")
    value(bob, "Ref = make_ref(), is_reference(Ref)")
    # In one expression: no message makes an atom, so bob's node has to know this one before it comes.
    page = ~S|gen_server:cast({global, <<"pager@alice">>}, {page, self(), Ref})|
    paged = "#{page}, Pager = receive {paged, Ref, Paging} -> Paging after 5000 -> nothing end"

    text =
      "bob's process was paged; its reference came home, and with it a pid of alice's, which is one of the daemon's node"

    expect_like(bob, paged, "a pid", &is_pid/1, text)
    expect(bob, "node(Pager)", :"legation@127.0.0.1", "as all that is foreign")
    expect(bob, "gen_server:call(Pager, number)", 1, "it can be called like any other")

    subsection("It is watched")
    value(bob, "Watch = monitor(process, Pager)")
    # A monitor has no answer; a call behind it has.
    quiet(bob, "gen_server:call(Pager, number)")
    value(alice, "GenServer.stop(Alice.Pager, :shutdown)")
    expect(bob, "element(2, Down(Watch))", :shutdown, "alice's pager has ended, and bob is told why")

    subsection("And the other way round")
    Systems.await_global(bob, "pager@alice")
    again = ~S|catch gen_server:call({global, <<"pager@alice">>}, number)|
    await_value(bob, again, &(&1 == 0))

    code =
      ~S|{Short, Lived} = spawn_monitor(fun() -> gen_server:cast({global, <<"pager@alice">>}, {page, self(), nil}), receive {paged, nil, _} -> exit(shutdown) end end)|

    value(bob, code)
    quiet(bob, "element(2, Down(Lived))")
    ended = await_value(alice, "Alice.Pager.ended()", &(&1 != []))
    code(alice.realm, "Alice.Pager.ended()")
    good? = match?([{pid, :shutdown}] when is_pid(pid), ended)
    check_that("a process of bob's has ended, and alice's pager was told: #{inspect(ended)}", good?, ended, ":shutdown")
  end
end
