defmodule Legation.Carrier do
  @moduledoc """
  A pipe of bytes between two realms, as a behaviour: what a module must do so that Legation can talk over it.

  Legation comes with three: `:tcp` (`Legation.Carriers.Tcp`), `:unix` (`Legation.Carriers.Unix`) and, for tests, `:memory`
  (`Legation.Carriers.Memory`). One of your own stands in `listen:` and `connect:` under its module's name:

      listen: [{MyApp.Serial, device: "/dev/ttyS0"}]
      peers: [[realm: "bob", key: "ed25519:…", connect: [{MyApp.Serial, device: "/dev/ttyS1"}]]]

  A carrier need not keep secrets nor prove who is at the other end: that is the channel's work (the profile `:tls`). It must keep the order of
  bytes and lose none; when it can't, it closes. Where it cuts the stream into pieces doesn't matter, but that
  of a handshake in more of them than `handshake_reads` (of the limits, 16) one is read every 250 ms: a carrier of small pieces needs more there.

  ## Two processes

  A connection has one *owner*, which gets what arrives as messages, and one process that sends. They differ, so that two
  ends that both send at full speed don't wait for each other for ever. `c:send/2` may therefore be called by any process. It
  blocks while the other end does not keep up, but for no longer than the option `:send_timeout_ms`; after that the connection is unusable.

  A new connection is passive. `c:activate/2` allows so many messages to the owner; after the last of them the owner gets one
  that `c:stream/2` calls `:passive`, and no other until it activates again. So a fast peer fills no mailbox.

  ## Options

  Callbacks get the options as the user wrote them, with `:profile` and `:send_timeout_ms` added. Legation does not look at
  the others.
  """

  @type conn :: term
  @type listener :: term
  @type reason :: term

  @typedoc "What protects the bytes, see `docs/protocol.md` 5."
  @type profile :: :tls | :local | :plain

  @doc """
  Dials. The caller becomes the owner of a passive connection.

  Waits at most `timeout_ms`.
  """
  @callback connect(opts :: keyword, timeout_ms :: pos_integer) :: {:ok, conn} | {:error, reason}

  @doc """
  Listens. `address` is what was bound: `[port: 40123]` for `port: 0`, `[path: …]`.

  Merged into `opts` it must lead to the same address again. The listener ends with the process that called this.
  """
  @callback listen(opts :: keyword) :: {:ok, listener, address :: keyword} | {:error, reason}

  @doc """
  Waits for a connection. The caller, which need not be the process that listened, becomes the owner of a passive connection.

  `{:error, :closed}` when the listener was closed.
  """
  @callback accept(listener, timeout_ms :: pos_integer | :infinity) :: {:ok, conn} | {:error, reason}

  @doc "Stops listening. Connections that were accepted stay."
  @callback close_listener(listener) :: :ok

  @doc "Makes another process the owner. Called by the owner, while the connection is passive."
  @callback controlling_process(conn, pid) :: :ok | {:error, reason}

  @doc "Lets `count` more messages go to the owner."
  @callback activate(conn, count :: pos_integer) :: :ok | {:error, reason}

  @doc """
  The same before the session is up: a connection of which nothing has come yet, or no longer comes, should hold no memory, as strangers can have
  very many of them. Optional; without it `c:activate/2` is asked.
  """
  @callback activate_stranger(conn, count :: pos_integer) :: :ok | {:error, reason}

  @doc """
  Says what a message in the owner's mailbox means. Called for each one, so it should be no more than a pattern match.

  `:unknown` for whatever is not from this connection. After `:closed` and `{:error, reason}` nothing follows.
  """
  @callback stream(conn, message :: term) :: {:data, binary} | :passive | :closed | {:error, reason} | :unknown

  @doc "Sends all of it, or fails. One process at a time."
  @callback send(conn, iodata) :: :ok | {:error, reason}

  @doc "Closes. What was sent before still arrives if it can. Closing twice is no error."
  @callback close(conn) :: :ok

  @doc """
  Who is at the other end as far as the carrier knows, for the status: `{ip, port}`, `{:uid, 1000}`.

  Places for connections that have not yet proven who they are are shared out by it; of `{ip, port}` only the ip counts.
  """
  @callback peer_label(conn) :: term

  @doc "Asked before anything else is done with a connection, at both ends. A carrier that can't tell says `:ok`."
  @callback check_peer(conn, opts :: keyword) :: :ok | {:error, reason}

  @doc """
  The profile where the user names none.

  `:local` says that the operating system vouches for the other end; only then may a user ask for `:local`, too.
  """
  @callback default_profile() :: profile

  @doc "The session is up: what was kept small for strangers, read buffers say, may grow now. Optional."
  @callback established(conn) :: term

  @doc "Closes at once: what was sent and has not left is thrown away, because the other end takes nothing. Optional."
  @callback abort(conn) :: term

  @doc """
  Nothing more will be sent, which the other end sees as `:closed` behind what was; what it sends still comes. Optional.

  It is for carriers where `c:close/1` throws away what is on its way when the other end has sent something that was not read,
  as TCP does.
  """
  @callback shutdown(conn) :: :ok | {:error, reason}
  @optional_callbacks activate_stranger: 2, established: 1, abort: 1, shutdown: 1

  @doc "Whether strangers can reach it, so that the initiator must knock first (`docs/protocol.md` 4)."
  @callback knock?() :: boolean
end
