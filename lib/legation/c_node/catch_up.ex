defmodule Legation.CNode.CatchUp do
  @moduledoc false
  # Between the moment at which a daemon reads its configuration and the one at which it can be asked, users go on connecting
  # and disconnecting. When it can be asked it is told of what it has missed.

  alias Legation.{Options, Telemetry}
  alias Legation.CNode.{Config, Control, Listeners}

  @spec run(node, atom, :ets.tid()) :: :ok
  def run(node, name, config) do
    with {:ok, peers} when is_list(peers) <- Control.call(node, :peers),
         {:ok, listeners} when is_list(listeners) <- Control.call(node, :listeners) do
      peers(node, name, config, Map.new(peers, &{&1.realm, &1.state}))
      listeners(node, config, listeners)
    end

    :ok
  end

  defp peers(node, name, config, known) do
    for [peer, wanted] <- :ets.match(config, {{:peer, :_}, :"$1", :"$2"}) do
      case {wanted, Map.get(known, peer.realm, :disconnected)} do
        {:connected, :disconnected} -> connect(node, name, peer)
        # One that it doesn't know it doesn't let in.
        {:revoked, state} when state not in [:disconnected, :revoked] -> Control.request(node, {:revoke, peer.realm})
        {:disconnected, state} when state != :disconnected -> Control.request(node, {:disconnect, peer.realm})
        _as_it_should_be -> :ok
      end
    end
  end

  defp connect(node, name, %Options.Peer{} = peer) do
    with {:error, reason} <- Control.request(node, {:connect, Config.peer_term(peer)}) do
      Telemetry.log(
        :error,
        {:connect_again, name, peer.realm},
        "the peer #{peer.realm} could not be connected again: #{Legation.Error.message(reason)}"
      )
    end
  end

  # Those that were stopped; and where the others listen, as the next daemon has to listen there, too.
  defp listeners(node, config, listeners) do
    ids = Listeners.by_text(config)

    for %{id: text, address: address} <- listeners do
      case ids do
        %{^text => id} -> Listeners.bind(config, id, Legation.CNode.Shape.address_options(address))
        _stopped -> if Listeners.ours?(text), do: Control.request(node, {:remove_listener, text})
      end
    end
  end
end
