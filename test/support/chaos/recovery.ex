defmodule Legation.Chaos.Recovery do
  @moduledoc """
  How long it took until both realms had a link again, from the moment at which the last thing was mended, by the journals.

  An episode of which neither owner heard that a link was lost was ridden out: TCP repaired it, or another link took over. One in which a process was killed is counted
  apart: it begins with the restart. Where connections were only reset nothing had to be mended: there it begins with the loss.
  """

  @doc "`[%{what:, kind: :link | :kill, us: time or nil}]` of all episodes; nil: ridden out, or back while something was still broken."
  def of(journals) do
    events =
      for {"owner", _words, entries} <- journals,
          do: for([what, t] <- entries, what in ~w(up lost resumed down), do: {what, String.to_integer(t)})

    for {"chaos", _words, entries} <- journals, ["episode", what, begun, mended, settled] <- entries do
      [begun, mended, settled] = Enum.map([begun, mended, settled], &String.to_integer/1)
      backs = for events <- events, times = back(events, begun, settled), do: times
      %{what: what, kind: if(what =~ "kill", do: :kill, else: :link), us: latest(what, backs, mended)}
    end
  end

  # When this owner lost its link and when it had it back for good; nil if it never was without.
  defp back(events, begun, settled) do
    during = for {what, t} <- events, t >= begun and t <= settled, do: {what, t}
    backs = for {what, t} <- during, what in ["up", "resumed"], do: t
    losses = for {what, t} <- during, what in ["lost", "down"], do: t

    case {losses, backs} do
      {_losses, []} -> nil
      {[], [only]} -> if match?([{"up", _t}], during), do: {begun, only}
      {[lost | _more], backs} -> {lost, List.last(backs)}
    end
  end

  defp latest(_what, [], _mended), do: nil

  defp latest("reset", backs, _mended) do
    {lost, back} = {backs |> Enum.map(&elem(&1, 0)) |> Enum.min(), backs |> Enum.map(&elem(&1, 1)) |> Enum.max()}
    back - lost
  end

  defp latest(_what, backs, mended) do
    back = backs |> Enum.map(&elem(&1, 1)) |> Enum.max()
    if back > mended, do: back - mended
  end

  @doc "The p-th of a hundred, of a list of numbers, or nil."
  def percentile([], _p), do: nil
  def percentile(list, p), do: list |> Enum.sort() |> Enum.at(min(div(length(list) * p, 100), length(list) - 1))
end
