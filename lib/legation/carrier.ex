defmodule Legation.Carrier do
  @moduledoc """
  A pipe of bytes between two realms. Legation brings TCP, Unix sockets and an in-memory pipe; a user's own module
  with these callbacks can be named in `listen:` and `connect:` in their place: `{MyCarrier, opts}`.

  A carrier knows nothing of keys: what it carries has been protected by the channel (`profile:`), and what it delivers
  is verified.

  Bytes arrive as messages in the owner's mailbox, as many as `c:activate/2` asked for; `c:stream/2` says what a message
  means. `c:send/2` may be called by any process and blocks until the carrier has taken the bytes.
  """

  @typedoc "An open pipe."
  @type conn :: term
  @type listener :: term

  @doc "Dials. The caller becomes the owner; nothing is delivered before `c:activate/2`."
  @callback connect(opts :: keyword, timeout_ms :: pos_integer) :: {:ok, conn} | {:error, reason :: term}

  @doc "Listens. `address` is what was bound: `[port: 40123]`, `[path: \"/run/x.sock\"]`."
  @callback listen(opts :: keyword) :: {:ok, listener, address :: keyword} | {:error, reason :: term}

  @doc "Waits for one connection; the caller becomes its owner."
  @callback accept(listener, timeout_ms :: timeout) :: {:ok, conn} | {:error, reason :: term}

  @callback close_listener(listener) :: :ok

  @doc "Hands the connection to another owner. Called by the owner, before activation."
  @callback controlling_process(conn, pid) :: :ok | {:error, reason :: term}

  @doc "Lets `count` more messages of bytes come to the owner; then one that `c:stream/2` calls `:passive`."
  @callback activate(conn, count :: pos_integer) :: :ok | {:error, reason :: term}

  @doc "What a message of the owner's mailbox means for this connection."
  @callback stream(conn, message :: term) :: {:data, binary} | :passive | :closed | {:error, reason :: term} | :unknown

  @callback send(conn, iodata) :: :ok | {:error, reason :: term}
  @callback close(conn) :: :ok

  @doc "Who is at the other end, as far as the carrier knows: an address, `{:uid, n}`."
  @callback peer_label(conn) :: term

  @doc "Whether the other end may be there at all, before a byte is read: a Unix socket checks the peer's user id."
  @callback check_peer(conn, opts :: keyword) :: :ok | {:error, reason :: term}

  @doc "The channel's profile where the options name none."
  @callback default_profile() :: :tls | :local | :plain

  @doc "Whether strangers can reach it, so that it wants a knock."
  @callback knock?() :: boolean
end
