defmodule Legation.Directory.Identity do
  @moduledoc false
  # Our own key is replaced, or revoked, while sessions go on. Part of the Directory, in its process and on its state: nothing
  # else is announced meanwhile.
  #
  # The core tells each peer of the rotation before the first announcement that the new key signs. With the identity change the
  # engines' keys, so each is announced anew; what was queued before goes out under the keys that the peer knew then.

  alias Legation.{Instance, Keyholder, Native, Peer, Policy, Telemetry}
  alias Legation.Directory.Announcement

  @doc "`{result, state}`; `announce` is the Directory's."
  def rotate(path, state, announce) do
    with {:ok, key, certificate} <- Keyholder.rotate(state.name, path) do
      for {_tag, session} <- state.sessions, do: announce.(session, :cert, certificate)
      state = %{state | certificate: certificate}
      {{:ok, key}, Enum.reduce(state.engines, state, &announce_again(&1, &2, announce))}
    else
      error -> {error, state}
    end
  end

  defp announce_again({engine, publication}, %{instance: instance} = state, announce) do
    serial = max(System.system_time(:microsecond), state.serial + 1)

    case Announcement.learn(instance, engine, serial, publication.opts) do
      {:ok, key, signed} ->
        :ets.update_element(instance.details, engine, {2, Map.put(details(instance, engine), :key, key)})

        for {_tag, session} <- state.sessions,
            Policy.exported?(session.policy, engine, publication.to),
            do: announce.(session, :learn, signed)

        %{state | serial: serial, engines: Map.put(state.engines, engine, %{publication | signed: signed})}

      # Not by a key that was just read from its file. Peers go on with what the key before has signed.
      {:error, reason} ->
        Telemetry.log(:error, {:rotated, state.name}, "#{engine} could not be announced again: #{inspect(reason)}")
        state
    end
  end

  defp details(%Instance{details: table}, engine) do
    [{_engine, details}] = :ets.lookup(table, engine)
    details
  end

  @doc "Peers that have a session hear of it now, others by our next hello."
  def revoke(state) do
    with :ok <- Keyholder.revoke(state.name) do
      for {_tag, session} <- state.sessions do
        Native.session_tell_identity(session.session)
        Peer.own_key_revoked(session.peer)
      end

      :ok
    end
  end
end
