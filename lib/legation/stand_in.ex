defmodule Legation.StandIn do
  @moduledoc false
  # The local process that stands for one remote caller: what `from` names at the engine that is called. Replies that
  # reach it go back over the session. It lives as long as the remote caller is known to live, so that pools and others
  # who monitor `from` are served. Whichever Reader brings the caller's first call makes it.
  #
  # It belongs to one session, whatever links that has, and is linked to its Peer: if it is killed, its Peer has the calls
  # refused that it was to answer. A reply that comes after the session finds no process and is lost, as it must be.

  alias Legation.{Counters, Native}

  @enforce_keys [:ref, :peer, :session, :drops]
  defstruct @enforce_keys

  @dirty_bytes 20_480
  @idle_ms 1_000
  # What a peer can be told (protocol.md 10.4) when a reply can't be sent.
  @reasons [:overload, :too_large, :identifiers, :undecodable]

  def spawn(%__MODULE__{} = state), do: :erlang.spawn(__MODULE__, :init, [state])

  @doc "The remote caller has ended (`:normal`), or the session has (`:noconnection`)."
  def stop(pid, ref, reason), do: send(pid, {ref, {:stop, reason}})

  # The Peer links to us, too, as soon as it hears of us: whoever of the two ends first, the other is told.
  def init(%__MODULE__{peer: peer} = state) do
    Process.flag(:trap_exit, true)
    Process.link(peer)
    loop(state)
  end

  def loop(%__MODULE__{ref: ref, peer: peer} = state) do
    receive do
      {{:"$legation", call_id, _realm, _engine}, reply} when is_integer(call_id) -> reply(state, call_id, reply)
      {^ref, {:stop, reason}} -> exit(reason)
      {:EXIT, ^peer, _reason} -> exit(:noconnection)
      # A remote caller can't be told of links and plain messages yet.
      _stray -> Counters.add(state.drops, :stand_in_strays)
    after
      @idle_ms -> :erlang.hibernate(__MODULE__, :loop, [state])
    end

    __MODULE__.loop(state)
  end

  defp reply(%{session: session} = state, call_id, reply) do
    payload = :erlang.term_to_binary(reply, minor_version: 2)

    result =
      if byte_size(payload) > @dirty_bytes,
        do: Native.session_reply_dirty(session, call_id, payload),
        else: Native.session_reply(session, call_id, payload)

    case result do
      :ok -> :ok
      # Answered already, or nobody waits for it any more, or the session is over.
      {:error, reason} when reason in [:unknown_call, :ended] -> :ok
      {:error, reason} -> refuse(state, call_id, if(reason in @reasons, do: reason, else: :undecodable))
    end
  end

  defp refuse(state, call_id, reason) do
    Counters.dropped(state.drops, reason)
    Native.session_refuse(state.session, call_id, reason)
  end
end
