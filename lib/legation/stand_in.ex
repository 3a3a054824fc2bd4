defmodule Legation.StandIn do
  @moduledoc false
  # The local process that stands for one remote caller: what `from` names at the engine that is called. Replies that
  # reach it go back over the session. It lives as long as the remote caller is known to live, so that pools and others
  # who monitor `from` are served. Its Reader makes it on the caller's first call and is linked to it.
  #
  # It belongs to one session; a reply that comes after the session finds no process and is lost, as it must be.

  alias Legation.{Counters, Native}

  @enforce_keys [:ref, :reader, :session, :writer, :drops]
  defstruct @enforce_keys

  @dirty_bytes 20_480
  @idle_ms 1_000
  # What a peer can be told (protocol.md 10.4) when a reply can't be sent.
  @reasons [:overload, :too_large, :identifiers, :undecodable]

  def spawn_link(%__MODULE__{} = state), do: :erlang.spawn_link(__MODULE__, :init, [state])

  @doc "The remote caller has ended."
  def release(pid, ref), do: send(pid, {ref, :release})

  def init(state) do
    Process.flag(:trap_exit, true)
    loop(state)
  end

  def loop(%__MODULE__{ref: ref, reader: reader} = state) do
    receive do
      {{:"$legation", call_id, _realm, _engine}, reply} when is_integer(call_id) -> reply(state, call_id, reply)
      {^ref, :release} -> exit(:normal)
      {:EXIT, ^reader, _reason} -> exit(:noconnection)
      # A remote caller can't be told of links and plain messages yet.
      _stray -> Counters.add(state.drops, :stand_in_strays)
    after
      @idle_ms -> :erlang.hibernate(__MODULE__, :loop, [state])
    end

    __MODULE__.loop(state)
  end

  defp reply(%{session: session, writer: writer} = state, call_id, reply) do
    payload = :erlang.term_to_binary(reply, minor_version: 2)

    result =
      if byte_size(payload) > @dirty_bytes,
        do: Native.session_reply_dirty(session, call_id, payload),
        else: Native.session_reply(session, call_id, payload)

    case result do
      :ok -> :ok
      :wake -> send(writer, :wake)
      # Answered already, or nobody waits for it any more, or the session is over.
      {:error, reason} when reason in [:unknown_call, :ended] -> :ok
      {:error, reason} -> refuse(state, call_id, if(reason in @reasons, do: reason, else: :undecodable))
    end
  end

  defp refuse(state, call_id, reason) do
    Counters.dropped(state.drops, reason)
    if Native.session_refuse(state.session, call_id, reason) == :wake, do: send(state.writer, :wake)
  end
end
