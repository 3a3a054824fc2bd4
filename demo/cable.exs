defmodule Demo.Cable do
  @moduledoc false
  # A cable that is cut while much is on its way, and mended.

  import Demo.Report
  import Demo.Steps

  alias Demo.VM
  alias Legation.Cable

  @casts 100_000
  @callers 10
  @calls 100
  @cut_ms 2_000

  def cut(alice, bob, cable) do
    section(
      "5  A cable is cut",
      "For #{div(@cut_ms, 1000)} s, while #{@casts} casts and #{@callers * @calls} calls are under way. Nobody is told, and nothing is lost."
    )

    proxy = value(bob, ~S|ledger = Legation.whereis("ledger@alice")|)
    value(bob, "watched = Process.monitor(ledger)")
    casts = "for n <- 1..#{@casts}, do: GenServer.cast(ledger, {:entry, n})"
    value(bob, "casts = Task.async(fn -> #{casts}; :done end); :started")
    calls = "for n <- 1..#{@calls}, do: GenServer.call(ledger, {:double, n}, 30_000)"
    value(bob, "calls = for _ <- 1..#{@callers}, do: Task.async(fn -> #{calls} end); :started")
    await_value(alice, "Alice.Ledger.state().entries", &(&1 > 0))

    code("$", "(the cable between them is cut)")
    Cable.cut(cable, :down)
    cut_ms = now_ms()
    for {vm, peer} <- [{alice, "bob"}, {bob, "alice"}], do: VM.await(vm, :peer_lost, peer)
    state = "hd(for p <- Legation.peers(), p.realm == \"alice\", do: p.state)"
    expect(bob, state, :lost, "bob has noticed: the link is lost, the session is not")
    await("the time that the cable is cut", fn -> now_ms() - cut_ms end, &(&1 >= @cut_ms))
    seen = quiet(alice, "Alice.Ledger.state()")

    text =
      "#{now_ms() - cut_ms} ms later alice has #{seen.entries} of the casts and has answered #{seen.questions} calls"

    check_that(text, seen.entries + seen.questions < @casts + @callers * @calls, seen, "not all of them")
    told = "receive do {:DOWN, ^watched, _, _, reason} -> reason after 0 -> :nothing end"
    expect(bob, told, :nothing, "who watches alice's ledger was told")

    code("$", "(and mended)")
    Cable.mend(cable)
    for {vm, peer} <- [{bob, "alice"}, {alice, "bob"}], do: VM.await(vm, :peer_resumed, peer)
    await_value(bob, "Process.alive?(casts.pid) or Enum.any?(calls, &Process.alive?(&1.pid))", &(&1 == false))
    all = "calls |> Enum.flat_map(&Task.await/1) |> Enum.frequencies() |> Map.to_list() |> Enum.sort()"
    answers = quiet(bob, all)
    code(bob.realm, "Enum.map(calls, &Task.await/1)")
    expected = for n <- 1..@calls, do: {2 * n, @callers}
    check("all #{@callers * @calls} calls were answered, each with its own answer", answers, expected)
    await_value(alice, "Alice.Ledger.state().entries", &(&1 >= @casts))
    all = %{entries: @casts, out_of_place: 0, questions: @callers * @calls}
    expect(alice, "Alice.Ledger.state()", all, "all #{@casts} casts arrived, once, and in order")
    expect(bob, ~S|Legation.whereis("ledger@alice")|, proxy, "alice's ledger is still the same process to bob")
    expect(bob, told, :nothing, "and nobody who watches it was told a thing")
    quiet(bob, "Process.demonitor(watched, [:flush]); Task.await(casts)")
  end
end
