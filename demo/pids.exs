defmodule Demo.Pids do
  @moduledoc false
  # Pids in messages: on the other side they are pids.

  import Demo.Report
  import Demo.Steps

  def cross(alice, bob) do
    section(
      "4  Pids",
      "A pid in a message is a pid on the other side: it can be sent to, called, watched. One that comes home is itself again."
    )

    subsection("alice answers to a pid that it was given")
    value(bob, "ref = make_ref(); is_reference(ref)")
    # In one expression: no message makes an atom, so bob has to know this one before it comes.
    page = ~S|GenServer.cast({:global, "pager@alice"}, {:page, self(), ref})|

    pager =
      expect_like(
        bob,
        "#{page}; pager = receive do {:paged, ^ref, pager} -> pager after 5_000 -> :nothing end",
        "a pid",
        &is_pid/1,
        "bob's process was paged; its reference came home, and with it a pid of alice's"
      )

    same? = ~S|pager == Legation.whereis("pager@alice")|
    text = "which bob has not had before (#{inspect(pager)}), other than the engine that it had called"
    expect(bob, same?, false, text)
    expect(bob, "GenServer.call(pager, :number)", 1, "it can be called like any other")

    subsection("It is watched")
    value(bob, "monitor = Process.monitor(pager)")
    # A monitor has no answer; a call behind it has.
    quiet(bob, "GenServer.call(pager, :number)")
    value(alice, "GenServer.stop(Alice.Pager, :shutdown)")
    down = "receive do {:DOWN, ^monitor, :process, ^pager, reason} -> reason after 5_000 -> :nothing end"
    expect(bob, down, :shutdown, "alice's pager has ended, and bob is told why")

    subsection("And the other way round")
    await_value(bob, ~S|Legation.call("pager@alice", :number)|, &(&1 == 0))
    page = ~S|GenServer.call({:via, Legation, "pager@alice"}, :number)|

    code =
      ~s|{one, two} = spawn_monitor(fn -> GenServer.cast({:via, Legation, "pager@alice"}, {:page, self(), nil}); #{page}; exit(:shutdown) end)|

    value(bob, code)
    quiet(bob, "receive do {:DOWN, ^two, :process, ^one, reason} -> reason after 5_000 -> :nothing end")
    ended = await_value(alice, "Alice.Pager.ended()", &(&1 != []))
    code(alice.realm, "Alice.Pager.ended()")
    good? = match?([{pid, :shutdown}] when is_pid(pid), ended)
    check_that("a process of bob's has ended, and alice's pager was told: #{inspect(ended)}", good?, ended, ":shutdown")
  end
end
