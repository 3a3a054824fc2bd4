defmodule Bench.Tracer do
  @moduledoc """
  How long calls of traced functions hold their scheduler (`bench/tracer.c`): a tracer for `:erlang.trace/3`. `take/0`: what was seen
  since the last time.
  """

  @on_load :load

  def load, do: :erlang.load_nif(:filename.join(:filename.dirname(:code.which(__MODULE__)), ~c"tracer"), 0)

  def enabled(_tag, _state, _tracee), do: :erlang.nif_error(:not_loaded)
  def trace(_tag, _state, _tracee, _term, _options), do: :erlang.nif_error(:not_loaded)
  def take, do: :erlang.nif_error(:not_loaded)
end
