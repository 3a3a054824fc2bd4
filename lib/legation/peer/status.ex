defmodule Legation.Peer.Status do
  @moduledoc false
  # What `Legation.peers/1` shows of a peer, and why a link is not there, in terms that Legation.Error has words for.

  alias Legation.Options

  @doc "The status of a Peer, from its state."
  def of(state) do
    base = %{
      realm: state.peer.realm,
      key: Options.format_key(state.peer.key),
      state: condition(state),
      attempts: state.attempts,
      last_error: state.lost && Legation.Error.message(state.lost)
    }

    case state.links[state.active] do
      nil -> base
      link -> Map.merge(base, Map.take(link.status, [:profile, :role, :version, :signing, :carrier, :address, :since]))
    end
  end

  defp condition(%{revoked: true}), do: :revoked
  defp condition(%{drain: drain}) when drain != nil, do: :drained
  defp condition(%{links: links}) when links != %{}, do: :up
  defp condition(%{session: session}) when session != nil, do: :lost
  defp condition(%{dial: dial}) when dial != nil, do: :connecting
  # Nothing to dial: the peer comes to us.
  defp condition(%{addresses: {}}), do: :listening
  defp condition(_state), do: :waiting

  @doc "What the Directory keeps of each link: `{tag, channel, session, status}`."
  def links(%{links: links, active: active}) do
    for {tag, link} <- links do
      state = if tag == active, do: :active, else: :standby
      {tag, link.channel, link.session, Map.put(link.status, :state, state)}
    end
  end

  @doc "From a Reader's exit reason, or what it said of its end, to the reason in it."
  def why({:shutdown, why}), do: why
  def why(:shutdown), do: {:local, :shutdown}
  def why(:noproc), do: {:local, :shutdown}
  def why({kind, _reason} = why) when kind in [:connect, :carrier, :local, :keyholder], do: why
  def why({kind, _code, _text} = why) when kind in [:closed, :fault], do: why
  def why(_crash), do: {:local, :crashed}

  @doc "Why a dial failed. A responder that doesn't accept us closes without a word (protocol.md 4.4)."
  def dial_failed({:carrier, :closed}), do: :no_answer
  def dial_failed(why), do: why
end
