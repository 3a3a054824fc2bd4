defmodule Legation.Peer.LinksTest do
  use ExUnit.Case, async: true

  alias Legation.Peer.Links

  @handshake_ms 5_000

  defp link(tag, index, up_ms \\ 0), do: %{tag: tag, index: index, up_ms: up_ms, initiator: index != nil}

  describe "of two realms that dial each other at once" do
    test "the lower one's dial counts, to both" do
      # The lower one turns the other's hello away as long as its own dial is on its way, or has just come about.
      assert Links.hello(nil, 0, true, 10, @handshake_ms) == {:refuse, :duplicate}
      assert Links.hello(nil, 0, true, 1_000, @handshake_ms) == :accept
      assert Links.hello(nil, 0, false, 10, @handshake_ms) == :accept
      assert Links.hello(link(:ours, 0), nil, true, 10, @handshake_ms) == {:refuse, :duplicate}
      assert Links.hello(link(:ours, 0), nil, true, @handshake_ms, @handshake_ms) == :accept
      # Both up: the lower one's stays.
      assert Links.up(link(:ours, 0), false, true, 10, @handshake_ms) == :keep_old
      assert Links.up(link(:theirs, nil), true, true, 10, @handshake_ms) == :take
      assert Links.up(link(:ours, 0), false, false, 10, @handshake_ms) == :take
    end

    test "who dials again knows better that the old link has gone" do
      assert Links.up(link(:theirs, nil), false, true, 10, @handshake_ms) == :take
      assert Links.up(link(:theirs, nil), false, false, 10, @handshake_ms) == :take
    end
  end

  test "who began the session sends on the first of its addresses, the other side on what it has" do
    links = [link(:second, 1, 1), link(:dialled_by_peer, nil, 2), link(:first, 0, 3)]
    assert Links.best(links, :second, true).tag == :first
    assert Links.best(links, :second, false).tag == :second
    # The one that it had has gone.
    assert Links.best(links, :gone, false).tag == :second
    assert Links.best([], :gone, true) == nil
  end

  test "those past the wanted number go, the last of the list first" do
    links = [link(:third, 2), link(:dialled_by_peer, nil), link(:first, 0), link(:second, 1)]
    assert Enum.map(Links.surplus(links, 2), & &1.tag) == [:third, :dialled_by_peer]
    assert Links.surplus(links, 4) == []
  end

  test "a session outlives accidents and changes of links, and nothing that somebody meant" do
    for why <- [
          {:carrier, :closed},
          {:carrier, :econnreset},
          {:fault, :channel, "a record is broken"},
          {:fault, :timeout, "silent"},
          {:closed, :timeout, ""},
          {:closed, :duplicate, ""},
          {:closed, :replaced, ""},
          {:local, :replaced},
          {:local, :duplicate}
        ],
        do: assert(Links.keeps_session?(why), inspect(why))

    for why <- [
          {:closed, :normal, ""},
          {:closed, :shutdown, ""},
          {:closed, :revoked, ""},
          {:fault, :protocol, ""},
          {:fault, :abuse, ""},
          {:local, :normal},
          {:local, :overload},
          {:local, :crashed},
          :whatever
        ],
        do: refute(Links.keeps_session?(why), inspect(why))
  end
end
