defmodule Legation.ChaosScenarios do
  # Row 118, and 32-35, 50, 51 under load: two realms on two networks, of two nodes each and a daemon where there is one, which talk as fast as they can while
  # everything between them and each of them goes wrong. Run by test/chaos/run, in network namespace A; docs/testing.md.
  use Legation.Case, async: false

  alias Legation.Networks
  alias Legation.Chaos.{Checker, Journal, Plan, Realms, Recovery, Report}

  @moduletag timeout: :infinity

  @patience_us 25_000_000

  setup_all do
    ExUnit.after_suite(fn _result -> IO.puts(Report.summary(setting("SEED"))) end)
    :ok
  end

  for {alice, bob} <- [{:embedded, :embedded}, {:c_node, :c_node}, {:embedded, :c_node}] do
    @tag pair: "#{alice}+#{bob}"
    test "#{alice} and #{bob}" do
      run(unquote(alice), unquote(bob))
    end
  end

  @tag :judge
  test "a link that can be there is there, in a tenth of a second mostly, and in a second nearly always" do
    [p50, p99] = for p <- [50, 99], do: Recovery.percentile(Report.reconnects(), p)
    assert p50 < 100_000, "half of all links needed more than #{div(p50, 1_000)} ms to be there again, and not 100"

    assert p99 < 1_000_000,
           "one in a hundred links needed more than #{div(p99, 1_000)} ms to be there again, and not 1,000"
  end

  defp run(alice, bob) do
    on_exit(fn -> for cable <- 0..1, do: Networks.mend(cable) end)
    seed = setting("SEED") + :erlang.phash2({alice, bob})
    {shape, random} = shape(:rand.seed_s(:exsss, seed))
    {seed_of_plan, _random} = :rand.uniform_s(1_000_000_000, random)
    dir = Path.join(dir(), "chaos-#{alice}-#{bob}")
    File.mkdir_p!(dir)

    realms = Realms.start(struct!(Realms, [dir: dir, modes: %{a: alice, b: bob}] ++ shape))
    {:ok, _at} = Realms.settle(realms, @patience_us)
    plan = Plan.new(seed_of_plan, Realms.cables(realms), Realms.victims(realms), setting("KILLS") > 0)
    started = Journal.now_us()
    until = %{us: started + setting("SECONDS") * 1_000_000, kills: setting("KILLS")}
    {realms, counts, problem} = episodes(realms, plan, until, %{})
    finished = if problem, do: {:error, problem}, else: Realms.finish(realms)

    journals = Journal.read(dir)
    checked = Checker.check(journals)

    report = %{
      pair: "#{alice}+#{bob}",
      shape: shape,
      seconds: div(Journal.now_us() - started, 1_000_000),
      counts: counts,
      figures: checked.figures,
      recovery: Recovery.of(journals),
      violations: length(checked.violations)
    }

    Report.add(report)

    if finished != :ok or checked.violations != [] do
      kept = Report.keep(dir)
      flunk(Report.failure(report, finished, checked.violations, kept))
    end
  end

  # How the realms are laid out.
  defp shape(random) do
    {at, random} = :rand.uniform_s(3, random)
    dials = Enum.at([[:a], [:b], [:a, :b]], at - 1)
    {cables, random} = :rand.uniform_s(2, random)
    {[dials: dials, cables: cables, links: cables, senders: setting("SENDERS")], random}
  end

  defp setting(name), do: "LEGATION_CHAOS_#{name}" |> System.fetch_env!() |> String.to_integer()

  ## One thing after the other

  defp episodes(realms, plan, until, counts) do
    if over?(until, counts) do
      {realms, counts, nil}
    else
      {rest_ms, plan} = Plan.rest(plan)
      Process.sleep(rest_ms)
      {episode, plan} = Plan.draw(plan)
      counts = Enum.reduce(episode, counts, fn fault, counts -> Map.update(counts, elem(fault, 0), 1, &(&1 + 1)) end)
      begun = Journal.now_us()
      Journal.write(realms.journal, "did #{inspect(episode) |> String.replace(" ", "")} #{begun}")
      realms = episode(realms, episode)
      mended = Journal.now_us()

      case Realms.settle(realms, @patience_us) do
        {:ok, settled} ->
          Journal.write(
            realms.journal,
            "episode #{Enum.map_join(episode, "+", &elem(&1, 0))} #{begun} #{mended} #{settled}"
          )

          episodes(realms, plan, until, counts)

        {:error, why} ->
          {realms, counts, {:never_again, episode, why}}
      end
    end
  end

  # So many kills, or so long.
  defp over?(%{kills: kills}, counts) when kills > 0, do: Map.get(counts, :kill, 0) >= kills
  defp over?(%{us: us}, _counts), do: Journal.now_us() >= us

  # All begin at once; each is undone when its time is over.
  defp episode(realms, episode) do
    begun = System.monotonic_time(:millisecond)

    undone = for fault <- Enum.sort_by(episode, &(elem(&1, 0) == :kill)), do: {lasts(fault), begin(realms, fault)}

    undone
    |> Enum.sort_by(&elem(&1, 0))
    |> Enum.reduce(realms, fn {ms, undo}, realms ->
      Process.sleep(max(begun + ms - System.monotonic_time(:millisecond), 0))
      undo.(realms)
    end)
  end

  defp lasts({:reset, _cable, _side}), do: 0
  defp lasts({kind, _victim, ms}) when kind in [:kill, :stop], do: ms
  defp lasts({_kind, _cable, _how, ms}), do: ms

  defp begin(_realms, {:cut, cable, sides, _ms}) do
    Networks.cable(cable, :down, sides)
    mending(fn -> Networks.cable(cable, :up, sides) end)
  end

  defp begin(_realms, {:stall, cable, sides, _ms}) do
    for side <- sides, do: Networks.deafen(side, cable)
    mending(fn -> for side <- sides, do: Networks.hear(side, cable) end)
  end

  defp begin(_realms, {:slow, cable, kbit, _ms}) do
    Networks.slow(cable, kbit: kbit, queue_ms: 200)
    mending(fn -> Networks.fast(cable) end)
  end

  defp begin(_realms, {:reset, cable, side}) do
    Networks.reset(side, cable)
    mending(fn -> :ok end)
  end

  defp begin(realms, {:kill, victim, _ms}) do
    Realms.kill(realms, victim)
    if String.contains?(victim, "/"), do: & &1, else: &Realms.start_node(&1, victim)
  end

  defp begin(realms, {:stop, victim, _ms}), do: mending(Realms.stop(realms, victim))

  defp mending(undo) do
    fn realms ->
      undo.()
      realms
    end
  end
end
