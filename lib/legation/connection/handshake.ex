defmodule Legation.Connection.Handshake do
  @moduledoc false
  # The questions that a Reader asks before its link counts: with which settings the channel is made, whether the realm
  # that says hello may come in, and whether the link that is up is to stay.

  alias Legation.{Connection, Counters, Instance, Native, Options, Telemetry}

  @ask_timeout_ms 5_000

  @channel_limits ~w(message_bytes_max depth_max engines_max queue_bytes_max resume_bytes_max credit_bytes fragment_bytes
                     message_ttl_ms room_waiters_max signing accept_signing checkpoint_ms checkpoint_patience_ms
                     unproven_messages_max unproven_bytes_max engine_queue_bytes_max calls_max
                     callers_max handles_max references_max handshake_ms ping_ms failures_max failures_window_ms overflow)a

  @doc "What the native library is told of `Legation.Options.of_session/2`."
  @spec limits(map) :: map
  def limits(limits), do: limits |> Map.take(@channel_limits) |> Map.put(:knock, false)

  @doc "The channel of a new link."
  @spec channel(atom, Connection.t(), Instance.t()) :: {:ok, Native.channel()} | {:error, term}
  def channel(profile, %Connection{} = connection, %Instance{identity: identity} = instance) do
    knock = profile != :local and connection.carrier.knock?()
    %{keyring: keyring, network: network} = identity
    limits = %{limits(connection.limits || Options.of_session(instance.options)) | knock: knock}
    now = Instance.now_ms()

    case connection do
      %{role: :initiator, key: key, resume: session, additional: additional?} ->
        Native.channel_connect(profile, keyring, network, key, limits, now, session, additional?)

      %{role: :responder} ->
        Native.channel_accept(profile, keyring, network, if(knock, do: identity.guard), limits, now)
    end
  end

  @doc """
  A realm says hello: the verdict, and its Peer and petname if it is on the list.

  Who may connect can change at any time, so the table is asked, and then the Peer, which knows of other links and of the
  session that may be offered.
  """
  @spec hello(Instance.t(), Connection.t(), binary, binary, Native.offer() | nil) ::
          {{:accept, Native.session() | nil, map | nil} | {:refuse, atom}, pid | nil, binary | nil}
  def hello(%Instance{} = instance, %Connection{tag: tag}, realm_id, key, offer) do
    case :ets.lookup(instance.realm_ids, realm_id) do
      [{_realm_id, realm, peer}] ->
        {ask(peer, {:hello, tag, self(), offer}, {:refuse, :overload}), peer, realm}

      [] ->
        Counters.add(instance.counters, :hellos_unlisted)

        Telemetry.log(
          :warning,
          {:unlisted, instance.name},
          fn -> "a realm that is not on the list was refused: #{Options.format_key(key)}" end
        )

        {{:refuse, :unlisted}, nil, nil}
    end
  end

  @doc """
  The link is up, and its Peer says whether it stays, and by which tag its session is known. The Peer tells the Directory before any
  engine is learned.
  """
  @spec up(pid, map) :: {:ok, session_tag :: reference, policy :: term, reasons :: :class | :full} | {:close, atom}
  def up(peer, link), do: ask(peer, {:up, link}, {:close, :overload})

  defp ask(peer, question, otherwise) do
    GenServer.call(peer, question, @ask_timeout_ms)
  catch
    :exit, _reason -> otherwise
  end
end
