defmodule Legation.Peer.DiallingTest do
  use ExUnit.Case, async: true

  alias Legation.{Backoff, Peer}
  alias Legation.Peer.Dialling

  # After so many dials in vain the back-off is at its ceiling, or nearly.
  defp pauses(session) do
    peer = %Peer{addresses: {:one}, session: session, backoff: Backoff.new(30_000, 30_000)}

    for _n <- 1..200 do
      %{timer: timer} = Dialling.redial(peer)
      left_ms = :erlang.cancel_timer(timer)
      assert is_integer(left_ms)
      left_ms
    end
  end

  test "while a session is lost the next dial is a second away at most, whatever the back-off says" do
    assert Enum.all?(pauses(%{tag: make_ref()}), &(&1 <= 1_000))
  end

  test "without a session it is as far away as the back-off says" do
    assert Enum.all?(pauses(nil), &(&1 > 1_000))
  end
end
