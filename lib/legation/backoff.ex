defmodule Legation.Backoff do
  @moduledoc false
  # When to dial again: full jitter under an exponentially rising cap, so that peers that lost each other at once don't
  # come back at once. Pure: the Peer owns the timer.

  @enforce_keys [:min_ms, :max_ms]
  defstruct [:min_ms, :max_ms, attempt: 0]

  @type t :: %__MODULE__{min_ms: pos_integer, max_ms: pos_integer, attempt: non_neg_integer}

  @spec new(pos_integer, pos_integer) :: t
  def new(min_ms, max_ms) when min_ms > 0 and max_ms >= min_ms, do: %__MODULE__{min_ms: min_ms, max_ms: max_ms}

  @doc "The next wait in ms, and the back-off after it."
  @spec next(t) :: {pos_integer, t}
  def next(%__MODULE__{} = backoff) do
    cap = cap(backoff)
    # Never 0: a refused connection would become a busy loop.
    {max(div(backoff.min_ms, 2), :rand.uniform(cap)), %{backoff | attempt: backoff.attempt + 1}}
  end

  @doc "After a success."
  @spec reset(t) :: t
  def reset(%__MODULE__{} = backoff), do: %{backoff | attempt: 0}

  # 2^20 times the minimum is past every sensible maximum; the number must not grow for ever.
  defp cap(%{min_ms: min_ms, max_ms: max_ms, attempt: attempt}),
    do: min(max_ms, min_ms * Integer.pow(2, min(attempt, 20)))
end
