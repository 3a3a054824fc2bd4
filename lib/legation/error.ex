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
  | `:identifiers` | it holds a pid, reference, port or fun | no |
  """

  @retry [:overload, :ended, :timeout]

  @doc """
  Whether the same call may succeed if it is tried again: takes a reply, `{:legation, reason}`, or the bare reason.

      iex> Legation.Error.retry?({:error, {:legation, :overload}})
      true
      iex> Legation.Error.retry?({:error, {:legation, :forbidden}})
      false
  """
  @spec retry?(term) :: boolean
  def retry?({:error, {:legation, reason}}), do: retry?(reason)
  def retry?({:legation, reason}), do: retry?(reason)
  def retry?(reason), do: reason in @retry

  @messages %{
    # refusals of single messages
    forbidden: "the policy for this peer does not allow it",
    filtered: "the filter refused its content",
    undecodable: "it holds an atom that this system does not know, or is no valid term",
    overload: "a bound is reached; try again later",
    noproc: "there is no such engine",
    too_large: "it is over the message limit",
    identifiers: "it holds a pid, reference, port or fun",
    bad_term: "it is no external term within the bounds",
    ended: "the session has ended",
    # close codes
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
    shutdown: "the realm stops",
    replaced: "a newer link took its place",
    # carriers
    closed: "the connection was closed",
    econnrefused: "nobody listens there",
    enoent: "there is no such socket",
    nxdomain: "the host's name is unknown",
    ehostunreach: "the host can't be reached",
    etimedout: "the host did not answer",
    eaddrinuse: "the address is in use",
    no_answer:
      "closed before it answered: another network key, another realm than was dialled, or a clock off by more than 30 s"
  }

  @doc "A reason of Legation's in words. Unknown reasons are inspected."
  @spec message(term) :: String.t()
  def message(reason) when is_atom(reason) and is_map_key(@messages, reason), do: Map.fetch!(@messages, reason)
  def message({:connect, reason}), do: "could not connect: #{message(reason)}"
  def message({:closed, code, ""}), do: "the peer closed: #{message(code)}"
  def message({:closed, code, text}), do: "the peer closed: #{message(code)} (#{text})"
  def message({:fault, :knock, detail}), do: "the knock was refused: #{detail}"
  def message({:fault, _code, detail}), do: "closed by us: #{detail}"
  def message({:carrier, reason}), do: "the connection broke: #{message(reason)}"
  def message({:local, code}), do: "closed by us: #{message(code)}"
  def message({:keyholder, reason}), do: "the keyholder did not sign: #{message(reason)}"
  def message({:uid_not_allowed, uid}), do: "user #{uid} may not be at the other end"
  def message({:path_too_long, path}), do: "the socket's path is over 107 bytes: #{path}"
  def message({:key_file, reason}), do: "the key file can't be used: #{key_file(reason)}"
  def message({:network_key_file, reason}), do: "the network key file can't be used: #{key_file(reason)}"
  def message({:bad_key, reason}), do: "the public key can't be used: #{reason}"
  def message(text) when is_binary(text), do: text
  def message(reason), do: inspect(reason)

  defp key_file(:enoent), do: "there is no such file"
  defp key_file(:eacces), do: "permission denied"
  defp key_file(:exists), do: "there is a file of that name, and it is not overwritten"
  defp key_file(:not_pkcs8_ed25519), do: "it is no PKCS#8 PEM with an Ed25519 private key"
  defp key_file(:not_a_network_key), do: "it holds neither 32 bytes nor 64 hexadecimal digits"
  defp key_file(reason), do: to_string(reason)
end
