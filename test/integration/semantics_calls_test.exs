defmodule Legation.SemanticsCallsTest do
  # docs/semantics.md: calls, casts and sends in each state of a link, and while a key is replaced.
  use Legation.Semantics,
    sections: ["Calls", "Casts and sends", "Keys"]

  import Legation.Semantics.Pair

  alias Legation.{Cable, TestVM}

  # A call and its watcher are seen behind what else was on its way: first the call's end, then the engine's log.
  defp seen_of(call, pair), do: [outcome(call), log(pair), fired(pair)]

  ## Calls

  scenario "call_up" do
    pair = pair()
    seen_of(async_call(pair.proxy, {:note, 1}), pair)
  end

  scenario "call_made_lost" do
    pair = lose(pair())
    call = call(pair, {:note, 1})
    seen_of(call, resume(pair))
  end

  scenario "call_waits_lost" do
    pair = pair()
    {call, from} = hold(pair)
    pair |> lose() |> resume()
    GenServer.reply(from, :answer)
    [outcome(call), [:held], fired(pair)]
  end

  scenario "call_answered_lost" do
    pair = pair()
    {call, from} = hold(pair)
    lose(pair)
    GenServer.reply(from, :answer)
    resume(pair)
    [outcome(call), [:held], fired(pair)]
  end

  scenario "call_timeout_lost" do
    pair = lose(pair())
    {:timeout, _call} = catch_exit_of(fn -> GenServer.call(pair.proxy, {:note, 1}, 20) end)
    resume(pair)
    log = log(pair)
    # The engine's answer reaches nobody.
    refute_received {_reference, :ok}
    [{:exit, :timeout}, log, fired(pair)]
  end

  scenario "call_overload_lost" do
    pair = full(pair(limits: [queue_bytes_max: 1_000]))
    refused = called(pair.proxy, {:note, :binary.copy("x", 500)})
    resume(pair)
    [refused, log(pair), fired(pair)]
  end

  scenario "call_grace_over" do
    pair = pair(limits: [grace_ms: 1])
    {call, _from} = hold(pair)
    grace_over(pair)
    [outcome(call), [:held], fires(pair)]
  end

  scenario "call_goodbye" do
    pair = pair()
    {call, _from} = hold(pair)
    goodbye(pair)
    [outcome(call), [:held], fires(pair)]
  end

  scenario "call_disconnect" do
    pair = pair()
    {call, _from} = hold(pair)
    :ok = Legation.disconnect("alice", pair.bob)
    [outcome(call), [:held], fires(pair)]
  end

  scenario "call_restarted" do
    pair = far_pair()
    call = async_call(pair.proxy, {:hold, 1})
    %{vm: vm} = pair
    assert_receive {:vm, ^vm, {:held, 1, _from}}
    restart(pair)
    # In a time that is none of the grace.
    [outcome(call), [:held], fires(pair)]
  end

  scenario "call_after_restart" do
    pair = restart(far_pair())
    fires(pair)
    await_engine(pair.bob, "echo@alice")
    outcome = called(via(pair.bob, "echo@alice"), {:note, 1})
    %{log: log} = TestVM.call(pair.vm, :sys, :get_state, [via(Alice, "echo")])
    [outcome, log, fired(pair)]
  end

  scenario "call_forgotten" do
    pair = pair()
    {call, _from} = hold(pair)
    :ok = Legation.withdraw("echo", pair.alice)
    [outcome(call), [:held], fires(pair)]
  end

  scenario "call_forgotten_lost" do
    pair = pair()
    {call, _from} = hold(pair)
    lose(pair)
    :ok = Legation.withdraw("echo", pair.alice)
    resume(pair)
    [outcome(call), [:held], fires(pair)]
  end

  scenario "call_died_lost" do
    pair = pair()
    {call, _from} = hold(pair)
    lose(pair)
    Process.exit(pair.echo, :kill)
    resume(pair)
    [outcome(call), [:held], fires(pair)]
  end

  scenario "call_caller_dies_lost" do
    pair = pair()
    {call, {stand_in, _tag}} = hold(pair)
    monitor = monitor(stand_in)
    lose(pair)
    before = fired(pair)
    Process.exit(call, :kill)
    resume(pair)
    [:killed, [down: down(monitor)], before]
  end

  scenario "call_drained" do
    pair = pair()
    {call, _from} = hold(pair)
    {:ok, cut} = Legation.drain(20, pair.bob)
    assert cut == [{"echo@alice", call}]
    {:exit, _lost} = outcome(call)
    [{:ok, length(cut)}, [:held], fires(pair)]
  end

  scenario "call_made_draining" do
    pair = pair()
    {call, from} = hold(pair)
    drain = Task.async(fn -> Legation.drain(10_000, pair.bob) end)
    until(match?([%{state: :drained}], Legation.peers(pair.bob)))
    refused = called(pair.proxy, {:note, 1})
    before = fired(pair)
    GenServer.reply(from, :ok)
    {:reply, :ok} = outcome(call)
    {:ok, []} = Task.await(drain)
    [refused, [:held], before]
  end

  ## Casts and sends

  scenario "cast_up" do
    pair = pair()
    [casts(pair, 1..3), log(pair), fired(pair)]
  end

  scenario "send_up" do
    pair = pair()
    [sends(pair), log(pair), fired(pair)]
  end

  scenario "cast_made_lost" do
    pair = lose(pair())
    sent = casts(pair, 1..3)
    resume(pair)
    [sent, log(pair), fired(pair)]
  end

  scenario "send_made_lost" do
    pair = lose(pair())
    sent = sends(pair)
    resume(pair)
    [sent, log(pair), fired(pair)]
  end

  scenario "cast_around_loss" do
    pair = pair()

    for {bytes, round} <- Enum.with_index([1, 60, 120, 180, 240]) do
      :ok = Cable.cut_after(pair.cable, :to_listener, bytes)
      casts(pair, (20 * round + 1)..(20 * round + 20))
      :ok = Cable.await_cut(pair.cable)
      resume(pair)
    end

    order = if log(pair) == for(n <- 1..100, do: {:cast, n}), do: :each_once_in_order, else: log(pair)
    [:ok, order, fired(pair)]
  end

  scenario "cast_overload_lost" do
    pair = full(pair(limits: [queue_bytes_max: 1_000]))
    :ok = GenServer.cast(pair.proxy, :binary.copy("x", 500))

    until(dropped(pair, "echo@alice") == 1)

    resume(pair)
    [:ok, log(pair), fired(pair)]
  end

  # A grace that is longer than it takes to cast.
  scenario "cast_grace_over" do
    pair = pair(limits: [grace_ms: 2_000])
    lose(pair)
    sent = GenServer.cast(pair.proxy, 1)
    fired = fires(pair)
    begin_again(pair)
    await_engine(pair.bob, "echo@alice")
    [sent, log(pair), fired]
  end

  scenario "cast_by_name_ended" do
    pair = pair()
    goodbye(pair)
    fired = fires(pair)
    await_forgotten(pair.bob, "echo@alice")
    sent = {GenServer.cast(via(pair.bob, "echo@alice"), 1), Legation.cast("echo@alice", 1, pair.bob)}
    [sent, log(pair), fired]
  end

  scenario "cast_forgotten" do
    pair = pair()
    :ok = Legation.withdraw("echo", pair.alice)
    fired = fires(pair)
    [GenServer.cast(pair.proxy, 1), log(pair), fired]
  end

  scenario "cast_any" do
    pair = pair()
    carol = start_realm("carol")
    link(carol, pair.bob, :unix)
    {:ok, echo} = Echo.start_link(owner: self())
    publish(carol, "echo", echo, [pair.bob])
    lose(pair)
    sent = Legation.cast({:any, "echo", realms: ["alice", "carol"]}, :hello, pair.bob)
    assert_receive {:cast, :hello}
    resume(pair)
    [sent, log(pair), fired(pair)]
  end

  ## Keys

  # A realm whose key is replaced is no other test's.
  defp rotating, do: pair(realm: "alice_#{System.unique_integer([:positive])}")

  defp rotate(pair) do
    path = Path.join(dir(), "#{pair.realm}-2.pem")
    {:ok, _public} = Legation.Native.keyring_generate(path)
    {:ok, _key} = Legation.rotate_key(path, pair.alice)
    pair
  end

  scenario "rotate_up" do
    pair = rotating()
    {call, from} = hold(pair)
    rotate(pair)
    GenServer.reply(from, :answer)
    [outcome(call), log(pair) ++ [:held], fired(pair)]
  end

  scenario "rotate_lost" do
    pair = rotating()
    {call, from} = hold(pair)
    pair |> lose() |> rotate() |> resume()
    GenServer.reply(from, :answer)
    [outcome(call), log(pair) ++ [:held], fired(pair)]
  end

  scenario "rotate_ended" do
    pair = rotating()
    goodbye(pair)
    fired = fires(pair)
    rotate(pair)
    :ok = Legation.connect("bob", pair.alice)
    await_engine(pair.bob, pair.name)
    [called(via(pair.bob, pair.name), {:note, 1}), log(pair), fired]
  end

  scenario "revoke_up" do
    pair = rotating()
    {call, _from} = hold(pair)
    :ok = Legation.revoke_own_key(pair.alice)
    [outcome(call), [:held], fires(pair)]
  end

  defp casts(pair, numbers), do: for(n <- numbers, do: GenServer.cast(pair.proxy, n))

  defp sends(pair) do
    send(pair.proxy, 1)
    Legation.send({pair.bob, "echo@alice"}, 2)
    :sent
  end

  # Lost, and the queue has no room for another 500 bytes. What fills it is for another engine. The first of it may have gone into a
  # link that was lost already, and is kept as sent.
  defp full(pair) do
    filler = publish(pair.alice, "filler", spawn_link(fn -> receive do: (:never -> :ok) end), [pair.bob])
    lose(pair)

    until(GenServer.cast(filler, :binary.copy("x", 800)) == :ok and dropped(pair, "filler@alice") > 0)
    pair
  end

  defp dropped(pair, name) do
    [dropped] = for %{name: ^name, counters: %{dropped: dropped}} <- Legation.engines(pair.bob), do: dropped
    dropped
  end
end
