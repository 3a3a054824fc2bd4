defmodule Legation.Handle do
  @moduledoc false
  # Small things about identifiers that cross: their bytes, and why a process has ended, in words that a peer is told.

  @doc "A pid or reference as it stands in payloads, without the version byte."
  @spec raw(pid | reference) :: binary
  def raw(identifier) do
    <<131, raw::binary>> = :erlang.term_to_binary(identifier, minor_version: 2)
    raw
  end

  @doc "An exit reason as it may cross: its class (protocol.md 11.2). What crashed and how is nobody's business."
  @spec class(term) :: :normal | :shutdown | :killed | :noproc | :noconnection | :timeout | :crashed
  def class(:normal), do: :normal
  def class(:shutdown), do: :shutdown
  def class({:shutdown, _detail}), do: :shutdown
  # A process that traps exits can be told to die so, and may do it.
  def class(killed) when killed in [:killed, :kill], do: :killed
  def class(:noproc), do: :noproc
  def class(:noconnection), do: :noconnection
  def class(:timeout), do: :timeout
  def class(_crash), do: :crashed

  @doc "The reason that a peer is told of: of an end, or in an exit signal."
  def reason(:full, :kill), do: :killed
  def reason(:full, reason), do: reason
  def reason(:class, reason), do: exit_reason(class(reason))

  @doc "With which reason a proxy or stand-in exits whose process has ended by this class."
  @spec exit_reason(atom) :: term
  def exit_reason(:withdrawn), do: :noproc
  def exit_reason(:crashed), do: {:remote_exit, :crashed}

  def exit_reason(reason) when reason in [:normal, :shutdown, :killed, :noproc, :noconnection, :timeout],
    do: reason

  # A later version's reason.
  def exit_reason(_unknown), do: {:remote_exit, :crashed}

  @doc "A reason that a peer gave: it may not kill, which nobody can keep off."
  def harmless(:kill), do: :killed
  def harmless(reason), do: reason

  @doc "The address of a process that a peer gave us."
  def address(number), do: "@" <> (number |> Integer.to_string(16) |> String.downcase())
end
