defmodule Demo.Cable do
  @moduledoc false
  # The cable between the daemon and alice is cut while much is on its way, and mended.

  import Demo.Report
  import Demo.Steps

  alias Demo.VM
  alias Legation.Cable

  @casts 100_000
  @callers 10
  @calls 100
  @cut_ms 2_000

  def cut(%{alice: alice, bob: bob, cable: cable}) do
    section(
      "8  A cable is cut",
      "For #{div(@cut_ms, 1000)} s, while #{@casts} casts and #{@callers * @calls} calls are under way. Nobody is told, and nothing is lost."
    )

    ledger = value(bob, ~S|Ledger = global:whereis_name(<<"ledger@alice">>)|)
    value(bob, "Watched = monitor(process, Ledger)")

    cast =
      "spawn_monitor(fun() -> [gen_server:cast(Ledger, {entry, N}) || N <- lists:seq(1, #{@casts})], exit(done) end)"

    value(bob, "{_, Casting} = #{cast}, started")
    calls = "[gen_server:call(Ledger, {double, N}, 30000) || N <- lists:seq(1, #{@calls})]"
    value(bob, "Callers = [spawn_monitor(fun() -> exit(#{calls}) end) || _ <- lists:seq(1, #{@callers})], started")
    await_value(alice, "Alice.Ledger.state().entries", &(&1 > 0))

    code("$", "(the cable between them is cut)")
    Cable.cut(cable, :down)
    cut_ms = now_ms()
    VM.await(alice, :peer_lost, "bob")
    state = ~S'hd([S || #{realm := <<"alice">>, state := S} <- gen_server:call({legation, Daemon}, peers)])'
    await_value(bob, state, &(&1 == :lost))
    expect(bob, state, :lost, "the daemon has noticed: the link is lost, the session is not")
    await("the time that the cable is cut", fn -> now_ms() - cut_ms end, &(&1 >= @cut_ms))
    seen = quiet(alice, "Alice.Ledger.state()")

    text =
      "#{now_ms() - cut_ms} ms later alice has #{seen.entries} of the casts and has answered #{seen.questions} calls"

    check_that(text, seen.entries + seen.questions < @casts + @callers * @calls, seen, "not all of them")
    told = "receive {'DOWN', Watched, _, _, Reason} -> Reason after 0 -> nothing end"
    expect(bob, told, :nothing, "who watches alice's ledger was told")

    code("$", "(and mended)")
    Cable.mend(cable)
    VM.await(alice, :peer_resumed, "bob")
    quiet(bob, "element(2, Down(Casting))")
    answers = "[receive {'DOWN', M, process, _, As} -> As after 8000 -> nothing end || {_, M} <- Callers]"
    code(bob.realm, answers)
    expected = for _ <- 1..@callers, do: Enum.map(1..@calls, &(2 * &1))
    check("all #{@callers * @calls} calls were answered, each with its own answer", quiet(bob, answers), expected)
    await_value(alice, "Alice.Ledger.state().entries", &(&1 >= @casts))
    all = %{entries: @casts, out_of_place: 0, questions: @callers * @calls}
    expect(alice, "Alice.Ledger.state()", all, "all #{@casts} casts arrived, once, and in order")
    whereis = ~S|global:whereis_name(<<"ledger@alice">>)|
    expect(bob, whereis, ledger, "alice's ledger is still the same process to bob")
    expect(bob, told, :nothing, "and nobody who watches it was told a thing")
    quiet(bob, "demonitor(Watched, [flush])")
  end
end
