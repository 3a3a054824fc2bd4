defmodule Legation.Chaos.Plan do
  @moduledoc """
  What goes wrong, drawn from a seed, an *episode* at a time: one thing or two at once, each for its while.

      {:cut, cable, sides, ms}      unplugged, at one end or both
      {:stall, cable, sides, ms}    what these sides send is lost and nobody is told: half-open, one way or both
      {:slow, cable, kbit, ms}
      {:reset, cable, side}
      {:kill, victim, ms}           and started again after so long
      {:stop, victim, ms}           SIGSTOP, then SIGCONT

  Victims come in turn, each to be killed as often as it is stopped; or, where kills are what is asked for, four times as often, and more
  of the episodes are kills.
  """

  defstruct [:random, :cables, :victims, kills?: false, turn: []]

  def new(seed, cables, victims, kills? \\ false),
    do: %__MODULE__{random: :rand.seed_s(:exsss, seed), cables: cables, victims: victims, kills?: kills?}

  @all [:link, :link, :link, :process, :process, :both, :links]
  @killing [:link, :process, :process, :process, :process, :both, :both]

  @doc "The next episode."
  def draw(plan) do
    {what, plan} = pick(plan, if(plan.kills?, do: @killing, else: @all))

    case what do
      :link -> one(plan, [:link])
      :process -> one(plan, [:process])
      :both -> one(plan, [:link, :process])
      :links -> one(plan, if(match?([_, _ | _], plan.cables), do: [:link, :link], else: [:link]))
    end
  end

  @doc "So long that all may rest before it, in ms."
  def rest(plan), do: number(plan, 20, 400)

  defp one(plan, kinds) do
    {episode, plan} =
      Enum.map_reduce(kinds, plan, fn kind, plan -> if kind == :link, do: link(plan), else: process(plan) end)

    # Two of one cable are one too many.
    {Enum.uniq_by(episode, fn fault -> if elem(fault, 0) in [:kill, :stop], do: :process, else: elem(fault, 1) end),
     plan}
  end

  defp link(plan) do
    {kind, plan} = pick(plan, [:cut, :cut, :stall, :stall, :slow, :reset])
    {cable, plan} = pick(plan, plan.cables)
    {sides, plan} = pick(plan, [[:a], [:b], [:a, :b], [:a, :b]])
    {ms, plan} = while(plan)
    {kbit, plan} = number(plan, 500, 20_000)

    fault =
      case kind do
        :slow -> {:slow, cable, kbit, ms}
        :reset -> {:reset, cable, hd(sides)}
        kind -> {kind, cable, sides, ms}
      end

    {fault, plan}
  end

  defp process(%{turn: []} = plan) do
    kinds = if plan.kills?, do: [:kill, :kill, :kill, :kill, :stop], else: [:kill, :stop]
    {turn, random} = shuffle(for(kind <- kinds, victim <- plan.victims, do: {kind, victim}), plan.random)
    process(%{plan | turn: turn, random: random})
  end

  defp process(%{turn: [{kind, victim} | turn]} = plan) do
    plan = %{plan | turn: turn}
    {ms, plan} = if kind == :kill, do: number(plan, 0, 300), else: while(plan)
    {{kind, victim, ms}, plan}
  end

  # Mostly shorter than it takes to see that a link is gone, often longer, now and then longer than a session lives without one.
  defp while(plan) do
    {how, plan} = pick(plan, [:short, :short, :short, :long, :long, :long, :over])

    case how do
      :short -> number(plan, 30, 500)
      :long -> number(plan, 500, 2_300)
      :over -> number(plan, 3_800, 5_000)
    end
  end

  defp pick(plan, list) do
    {at, plan} = number(plan, 0, length(list) - 1)
    {Enum.at(list, at), plan}
  end

  defp number(plan, least, most) do
    {drawn, random} = :rand.uniform_s(most - least + 1, plan.random)
    {least + drawn - 1, %{plan | random: random}}
  end

  defp shuffle(list, random) do
    {keyed, random} =
      Enum.map_reduce(list, random, fn item, random ->
        with {key, random} <- :rand.uniform_s(random), do: {{key, item}, random}
      end)

    {keyed |> Enum.sort() |> Enum.map(&elem(&1, 1)), random}
  end
end
