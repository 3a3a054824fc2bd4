defmodule Legation.Peer.Links do
  @moduledoc false
  # Two realms may dial each other at once, and a restarted peer dials while its old link still seems alive. Both sides
  # decide by the same facts, so that one link remains: pure functions, asked when a peer says hello to us and when a
  # link is up. And, of a session's links: which is sent on, which are too many, what the end of one means.
  #
  #   initiator?   who dialled: we (true) or the peer
  #   lower?       whether our realm id is the lower of the two; the lower one's dial counts
  #   young        the link we have came up within the time of a handshake, so the other was on its way at the same time
  #   index        which of our addresses a link goes to, nil where the peer dialled

  # A dial that has not come about within this must not keep the peer's dial out: who answered may not be the peer.
  @dialling_ms 1_000

  @type current :: nil | %{initiator: boolean, up_ms: integer}

  @doc "The peer dialled and said hello. `dial_ms`: since when we are dialling it, or nil, which it also is until somebody has answered."
  @spec hello(current, nil | integer, boolean, integer, pos_integer) :: :accept | {:refuse, :duplicate}
  def hello(%{initiator: true} = current, _dial_ms, true, now_ms, handshake_ms) do
    if young?(current, now_ms, handshake_ms), do: {:refuse, :duplicate}, else: :accept
  end

  def hello(nil, dial_ms, true, now_ms, _handshake_ms) when dial_ms != nil and now_ms - dial_ms < @dialling_ms,
    do: {:refuse, :duplicate}

  def hello(_current, _dial_ms, _lower?, _now_ms, _handshake_ms), do: :accept

  @doc "A link is up. Does it replace the one we have?"
  @spec up(current, boolean, boolean, integer, pos_integer) :: :take | :keep_old
  def up(nil, _initiator?, _lower?, _now_ms, _handshake_ms), do: :take

  # The same side dialled again: it knows better than we that the old link is gone.
  def up(%{initiator: initiator?}, initiator?, _lower?, _now_ms, _handshake_ms), do: :take

  def up(current, initiator?, lower?, now_ms, handshake_ms) do
    if young?(current, now_ms, handshake_ms) and initiator? != lower?, do: :keep_old, else: :take
  end

  defp young?(current, now_ms, handshake_ms), do: now_ms - current.up_ms < handshake_ms

  @doc """
  The link to send on, of several. Who began the session has an order of addresses; the other side stays with what it has, and
  then takes the one that has been there for longest.
  """
  @spec best([map], active :: reference | nil, orders? :: boolean) :: map | nil
  def best([], _active, _orders?), do: nil
  def best(links, _active, true), do: Enum.min_by(links, &{&1.index || :none, &1.up_ms})
  def best(links, active, false), do: Enum.find(links, &(&1.tag == active)) || Enum.min_by(links, & &1.up_ms)

  @doc "Those beyond the first `wanted`, in the order of addresses."
  @spec surplus([map], pos_integer) :: [map]
  def surplus(links, wanted), do: links |> Enum.sort_by(&{&1.index || :none, &1.up_ms}) |> Enum.drop(wanted)

  @doc "Whether a session outlives a link that ends so (protocol.md 16): by accident, or to make way for another."
  @spec keeps_session?(term) :: boolean
  def keeps_session?({:carrier, _reason}), do: true
  # What arrives is not what was sent, or not all of it: a broken carrier as well.
  def keeps_session?({:fault, code, _detail}) when code in [:answer, :channel], do: true
  def keeps_session?({kind, code, _text}) when kind in [:closed, :fault], do: keeps?(code)
  def keeps_session?({:local, code}), do: keeps?(code)
  def keeps_session?(_crash), do: false

  defp keeps?(code), do: code in [:duplicate, :replaced, :timeout]
end
