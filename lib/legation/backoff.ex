defmodule Legation.Backoff do
  @moduledoc false
  # How long to wait before the next dial: random between `min_ms` and a ceiling that doubles from failure to failure up to
  # `max_ms`. Random all the way from the bottom ("full jitter"): many that lost one peer at once don't come back at once.

  @enforce_keys [:min_ms, :max_ms, :ceiling_ms]
  defstruct [:min_ms, :max_ms, :ceiling_ms]

  @type t :: %__MODULE__{min_ms: pos_integer, max_ms: pos_integer, ceiling_ms: pos_integer}

  @spec new(pos_integer, pos_integer) :: t
  def new(min_ms, max_ms) when min_ms > 0 and max_ms >= min_ms,
    do: reset(%__MODULE__{min_ms: min_ms, max_ms: max_ms, ceiling_ms: min_ms})

  @doc "The next delay. `uniform.(n)` is a random integer from 1 to n."
  @spec next(t, (pos_integer -> pos_integer)) :: {delay_ms :: pos_integer, t}
  def next(%__MODULE__{min_ms: min, max_ms: max, ceiling_ms: ceiling} = backoff, uniform \\ &:rand.uniform/1) do
    {min + uniform.(ceiling - min + 1) - 1, %{backoff | ceiling_ms: min(ceiling * 2, max)}}
  end

  @doc "After a success. The first ceiling is already twice the minimum, or the first delay would not be random."
  @spec reset(t) :: t
  def reset(%__MODULE__{min_ms: min, max_ms: max} = backoff), do: %{backoff | ceiling_ms: min(min * 2, max)}
end
