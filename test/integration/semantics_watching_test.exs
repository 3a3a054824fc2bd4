defmodule Legation.SemanticsWatchingTest do
  # docs/semantics.md: monitors, links and exits in each state of a link.
  use Legation.Semantics, sections: ["Watching", "Exits"]

  import Legation.Semantics.Pair

  ## Watching

  # Both have fired; or neither has, up to now.
  defp fires_both(pair), do: [fires(pair), link_fires(pair)]

  defp fired_both(pair) do
    synchronize(pair)
    [fired(pair), link_fired(pair)]
  end

  scenario("watch_lost", do: pair() |> lose() |> resume() |> fired_both())

  scenario "watch_made_lost" do
    pair = lose(pair())
    late = Process.monitor(pair.proxy)
    linked = linked(pair.proxy)
    resume(pair)
    synchronize(pair)
    Process.exit(pair.echo, :kill)
    assert fires_both(pair) == [[:killed], [:killed]]
    [fires(%{monitor: late}), link_fires(%{link: linked})]
  end

  scenario("watch_grace_over", do: pair(limits: [grace_ms: 1]) |> grace_over() |> fires_both())

  scenario "watch_goodbye" do
    pair = pair()
    goodbye(pair)
    fires_both(pair)
  end

  scenario "watch_disconnect" do
    pair = pair()
    :ok = Legation.disconnect("alice", pair.bob)
    fires_both(pair)
  end

  scenario "watch_restarted" do
    pair = far_pair()
    restart(pair)
    fires_both(pair)
  end

  scenario "watch_withdrawn" do
    pair = pair()
    :ok = Legation.withdraw("echo", pair.alice)
    fires_both(pair)
  end

  scenario "watch_withdrawn_lost" do
    pair = lose(pair())
    :ok = Legation.withdraw("echo", pair.alice)
    [monitor, link] = [fired(pair), link_fired(pair)]
    resume(pair)
    [{monitor, fires(pair)}, {link, link_fires(pair)}]
  end

  scenario("watch_killed", do: ended_by(fn echo -> Process.exit(echo, :kill) end))
  scenario("watch_crashed", do: ended_by(fn echo -> GenServer.cast(echo, {:exit, :oops}) end))
  scenario("watch_shut_down", do: ended_by(fn echo -> GenServer.cast(echo, {:exit, {:shutdown, :secret}}) end))
  scenario("watch_normal", do: ended_by(fn echo -> GenServer.cast(echo, {:exit, :normal}) end))

  defp ended_by(fun) do
    pair = pair()
    fun.(pair.echo)
    fires_both(pair)
  end

  scenario "watch_again_lost" do
    pair = lose(pair())
    :ok = Legation.withdraw("echo", pair.alice)
    :ok = Legation.publish("echo", pair.echo, [], pair.alice)
    resume(pair)
    [monitor, link] = fires_both(pair)
    await_engine(pair.bob, "echo@alice")
    {:reply, reply} = called(via(pair.bob, "echo@alice"), {:note, 1})
    [{monitor, reply}, {link, reply}]
  end

  scenario "watch_gone" do
    pair = pair()
    :ok = Legation.withdraw("echo", pair.alice)
    [[:noproc], [:noproc]] = fires_both(pair)
    [fires(%{monitor: monitor(pair.proxy)}), link_fires(%{link: linked(pair.proxy)})]
  end

  ## Exits

  defp after_exit(pair, fired) do
    lives = if Process.alive?(pair.echo), do: :lives, else: :ended
    [lives, fired, called(via(pair.bob, "echo@alice"), {:note, 1})]
  end

  scenario "exit_normal" do
    pair = pair()
    Process.exit(pair.proxy, :normal)
    synchronize(pair)
    after_exit(pair, fired(pair))
  end

  scenario "exit_reason" do
    pair = pair()
    Process.exit(pair.proxy, :oops)
    synchronize(pair)
    after_exit(pair, fired(pair))
  end

  scenario "exit_kill" do
    pair = pair()
    Process.exit(pair.proxy, :kill)

    if transport(pair.bob) == :embedded do
      fired = fires(pair)
      until(Legation.whereis("echo@alice", pair.bob) not in [nil, pair.proxy])
      after_exit(pair, fired)
    else
      synchronize(pair)
      after_exit(pair, fired(pair))
    end
  end

  scenario "exit_linked_dies" do
    pair = pair()
    linked = linked(pair.proxy)
    monitor = Process.monitor(linked)
    Process.exit(linked, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^linked, :killed}
    synchronize(pair)
    after_exit(pair, fired(pair))
  end
end
