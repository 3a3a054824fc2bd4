defmodule Legation.Error do
  @moduledoc """
  Refusals and failures in words, and whether it makes sense to try again.

  A call that the far side (or our own queue) refuses is answered with `{:error, {:legation, reason}}`:

  | reason | means | retry |
  |---|---|---|
  | `:forbidden` | the peer's policy does not allow this operation | no |
  | `:filtered` | the peer's filter refused its content | no |
  | `:undecodable` | it holds an atom that the other VM doesn't know, or is no valid term | no |
  | `:overload` | a queue or table is full | yes |
  | `:noproc` | no such engine (any more) | no |
  | `:too_large` | over the message limit of either side | no |
  | `:identifiers` | it holds a port or fun | no |
  | `:expired` | it waited for longer than `message_ttl_ms` to be sent | yes |
  | `:draining` | this realm, or the peer's, is about to stop | yes, when it is back |
  | `:abandoned` | what was to answer has lost the way back; the call may have been carried out | no |

  Why a link ended, or did not come about, is a term such as `{:closed, :unlisted, ""}` or `{:connect, :econnrefused}`; `peers/1` shows it
  in words, telemetry as it is. Those who raise make an exception of it with `wrap/1`.

  Where a daemon does the work (`transport: {:c_node, options}`) there are two more: `{:not_distributed, node}` when this VM has no name, by which a
  daemon could talk to it, and `{:daemon, why}`: the daemon can't be started (`{:program, path, reason}`, `{:exit, status, text}`, `:timeout`), does not
  connect to this node (`:no_link`), has the name of another one's node (`{:name_taken, node}`), or isn't there right now (`:down`), in which case it is being started again.
  """

  defmodule ProtocolError do
    @moduledoc "The peer, or our own side, broke or refused the protocol: `:reason` is `{:fault, code, detail}` or `{:closed, code, text}`."
    defexception [:reason]

    @impl true
    def message(%{reason: reason}), do: Legation.Error.message(reason)
  end

  defmodule TransportError do
    @moduledoc "The carrier did not come about, or broke: `:reason` is `{:connect, reason}`, `{:carrier, reason}`, or the carrier's own."
    defexception [:reason]

    @impl true
    def message(%{reason: reason}), do: Legation.Error.message(reason)
  end

  @doc "The reason why a link ended as an exception."
  @spec wrap(term) :: Exception.t()
  def wrap({kind, _code, _text} = reason) when kind in [:fault, :closed], do: %ProtocolError{reason: reason}
  def wrap(reason), do: %TransportError{reason: reason}

  # Refusals and close codes after which the same may succeed with nothing changed.
  @retry [
    :overload,
    :draining,
    :ended,
    :timeout,
    :noconnection,
    :normal,
    :duplicate,
    :shutdown,
    :replaced,
    :closed,
    :writer
  ]

  # What is wrong with a carrier until somebody mends it.
  @permanent [:eacces, :enoent, :eperm, :einval, :eafnosupport, :no_peer_credentials]

  @doc """
  Whether the same call may succeed if it is tried again: takes a reply, `{:legation, reason}`, or the bare reason. For
  the reason why a link ended: whether a new one may do better.

      iex> Legation.Error.retry?({:error, {:legation, :overload}})
      true
      iex> Legation.Error.retry?({:error, {:legation, :forbidden}})
      false

  A call whose link ended (`:noconnection`) may have been carried out.
  """
  @spec retry?(term) :: boolean
  def retry?({:error, reason}), do: retry?(reason)
  def retry?({:legation, reason}), do: retry?(reason)
  def retry?(%{__exception__: true, reason: reason}), do: retry?(reason)
  def retry?({kind, code, _text}) when kind in [:fault, :closed], do: code in @retry
  def retry?({:local, code}), do: code in @retry
  def retry?({kind, {:uid_not_allowed, _uid}}) when kind in [:connect, :carrier], do: false
  def retry?({kind, reason}) when kind in [:connect, :carrier], do: reason not in @permanent
  def retry?({:daemon, why}), do: why in [:down, :timeout]
  # Of a message; as a close code it is a certificate's end.
  def retry?(:expired), do: true
  def retry?(reason), do: reason in @retry

  # Refusals of single messages (protocol.md 10.4), and what our own side refuses.
  @refusals %{
    forbidden: "the policy for this peer does not allow it",
    filtered: "the filter refused its content",
    undecodable: "it holds an atom that this system does not know, or is no valid term",
    overload: "a bound is reached; try again later",
    noproc: "there is no such engine",
    too_large: "it is over the message limit",
    identifiers: "it holds a port or fun",
    expired: "it has waited for too long to be sent",
    draining: "the realm is about to stop",
    abandoned: "what was to answer has lost the way back",
    bad_term: "it is no external term within the bounds",
    unknown_call: "nobody waits for this reply any more",
    ended: "the session has ended",
    noconnection: "the session has ended",
    withdrawn: "the engine was withdrawn",
    killed: "it was killed",
    crashed: "it crashed"
  }

  # protocol.md 16
  @codes %{
    normal: "closed",
    protocol: "the protocol was broken",
    version: "no common protocol version",
    unlisted: "the key is not on the allow-list",
    wrong_realm: "another realm was meant",
    bad_signature: "a signature of the hello fails: another network key, or an impostor",
    expired: "the link key's certificate has expired (are the clocks right?)",
    duplicate: "there is a link already",
    timeout: "it took too long",
    abuse: "too many messages failed verification",
    unknown_frame: "an unknown frame came",
    too_large: "a frame was over its limit",
    shutdown: "the realm stops",
    overload: "a bound on connections or memory is reached",
    replaced: "a newer link took its place",
    revoked: "the realm's key was revoked",
    stale_key: "the identity key was replaced by another one",
    unproven: "messages that were delivered on trust were not proven"
  }

  @carrier %{
    closed: "the connection was closed",
    timeout: "there was no answer in time",
    econnrefused: "nobody listens there",
    econnreset: "the connection was reset",
    enoent: "there is no such socket",
    nxdomain: "the host's name is unknown",
    ehostunreach: "the host can't be reached",
    enetunreach: "the network can't be reached",
    etimedout: "the host did not answer",
    eaddrinuse: "the address is in use",
    eaddrnotavail: "this machine has no such address",
    eacces: "permission denied",
    emfile: "too many files are open",
    evicted: "its place was needed before it had said who it is",
    not_handed_over: "it was not handed over",
    writer: "the process that sends failed",
    no_peer_credentials: "the system does not tell which user is at the other end"
  }

  @keys %{
    enoent: "there is no such file",
    eacces: "permission denied",
    exists: "there is a file of that name, and it is not overwritten",
    io: "it can't be read or written",
    bad_chain: "the file beside it (.chain) holds no rotations that lead to this key in this network",
    bad_path: "its path is no text",
    not_pkcs8_ed25519: "it is no PKCS#8 PEM with an Ed25519 private key",
    not_a_network_key: "it holds neither 32 bytes nor 64 hexadecimal digits",
    not_a_point: "it is no point of the curve",
    not_canonical: "it is not in canonical form",
    weak: "it is weak",
    torsion: "it has a torsion component"
  }

  @rotations %{
    external: "it is with a keyholder",
    revoked: "it was revoked",
    too_many: "it was replaced sixteen times, and there is no room for more",
    used_before: "the new one is, or was, this realm's already",
    raced: "somebody else has done so at the same time"
  }

  @doc """
  A reason of Legation's in words. Unknown ones are inspected.

  One line of printable text, whatever a peer has said.
  """
  @spec message(term) :: String.t()
  def message(:no_answer),
    do:
      "closed before it answered: other network key, other realm, other profile, a clock off by more than 30 s, " <>
        "or it has started within the last second"

  def message({:error, reason}), do: message(reason)
  def message({:legation, reason}), do: message(reason)
  def message({:connect, reason}), do: "could not connect: #{carrier(reason)}"
  def message({:carrier, reason}), do: "the connection broke: #{carrier(reason)}"
  def message({:listen, carrier, reason}), do: "#{inspect(carrier)} could not listen: #{carrier(reason)}"
  def message({:closed, code, ""}), do: "the peer closed: #{code(code)}"
  def message({:closed, code, text}), do: "the peer closed: #{code(code)} (#{quoted(text)})"

  def message({:fault, knock, detail}) when knock in [:knock, :knock_memory_full],
    do: "the knock was refused: #{quoted(detail)}"

  def message({:fault, :answer, detail}),
    do: "who answered has not shown our network key: #{quoted(detail)}"

  def message({:fault, code, detail}) when detail in ["", nil], do: "closed by us: #{code(code)}"
  def message({:fault, code, detail}), do: "closed by us: #{code(code)} (#{quoted(detail)})"
  def message({:local, :crashed}), do: "closed by us: the process of the link crashed"
  def message({:local, code}), do: "closed by us: #{code(code)}"
  def message({:keyholder, :keyholder}), do: "the keyholder did not sign"
  def message({:keyholder, reason}), do: "the keyholder did not sign: #{message(reason)}"
  def message({:key_file, reason}), do: "the key file can't be used: #{key(reason)}"
  def message({:network_key_file, reason}), do: "the network key file can't be used: #{key(reason)}"
  def message({:rotation, reason}), do: "the key can't be replaced or revoked: #{word(reason, [@rotations, @keys])}"
  def message({:state_dir, reason}), do: "the directory for state can't be used: #{key(reason)}"
  def message({:bad_key, reason}), do: "the public key can't be used: #{key(reason)}"
  def message({:same_key, realm}), do: "the peer #{quoted(realm)} has the same key"
  def message(:own_key), do: "the key is our own"
  def message(:unknown_realm), do: "there is no such peer"

  def message({:not_distributed, _node}),
    do: "this VM has no name, and the daemon is a node beside it: start it with --name or --sname"

  def message({:daemon, why}), do: daemon(why)
  def message({:already_connected, realm}), do: "the peer #{quoted(realm)} is connected already"
  def message({:already_published, pid}), do: "#{inspect(pid)} is published under that name already"
  def message({:uid_not_allowed, _uid} = reason), do: carrier(reason)
  def message(%{__exception__: true} = error), do: Exception.message(error)
  def message(reason) when is_atom(reason), do: word(reason, [@refusals, @codes, @carrier, @keys])
  def message(reason), do: quoted(reason)

  defp code(code), do: word(code, [@codes])
  defp key(reason), do: word(reason, [@keys])

  defp daemon(:down), do: "the daemon isn't running right now"
  defp daemon(:timeout), do: "the daemon did not answer in time"

  defp daemon(:no_link),
    do: "the daemon runs, but it and this node don't connect (another cookie? another kind of node name?)"

  defp daemon({:name_taken, node}), do: "another daemon is the node #{node}: give one of them another name (`:node`)"

  defp daemon({:program, path, :enoent}),
    do: "there is no program #{quoted(path)} (see Legation.Options.CNode on how to build it)"

  defp daemon({:program, path, reason}), do: "the program #{quoted(path)} can't be run: #{posix(reason)}"
  defp daemon({:exit, status, ""}), do: "the daemon ended with exit status #{status}"
  defp daemon({:exit, status, text}), do: "the daemon ended with exit status #{status}: #{line(text)}"
  defp daemon({:port, reason}), do: "the daemon ended: #{word(reason, [@carrier])}"
  defp daemon(other), do: "the daemon does not answer as it should: #{quoted(other)}"

  # The daemon's words are for people already.
  defp line(text), do: if(String.printable?(text) and not (text =~ ~r/\p{Cc}/u), do: text, else: quoted(text))

  defp carrier({:uid_not_allowed, uid}), do: "user #{uid} may not be at the other end"
  # The channel failed before it began.
  defp carrier({kind, _detail} = reason) when kind in [:bad_key, :key_file], do: message(reason)
  defp carrier(reason), do: word(reason, [@carrier, @codes])

  defp word(reason, tables) do
    Enum.find_value(tables, &Map.get(&1, reason)) || posix(reason)
  end

  # `:inet` has words for the rest of the system's errors.
  defp posix(reason) when is_atom(reason) do
    case :inet.format_error(reason) do
      ~c"unknown POSIX error" ++ _ -> inspect(reason)
      words -> to_string(words)
    end
  end

  defp posix(reason), do: quoted(reason)

  # A peer's text must not look like ours, nor make lines.
  defp quoted(text) when is_binary(text) and byte_size(text) <= 512, do: inspect(text)
  defp quoted(text) when is_binary(text), do: text |> binary_part(0, 512) |> inspect()
  defp quoted(term), do: inspect(term, limit: 20, printable_limit: 512)
end
