defmodule Legation.Native do
  @moduledoc false
  # The functions of the native library (native/legation_nif), and nothing else. What they do, which of them are dirty,
  # and the order of locks: docs/internals.md.
  #
  # Times are Unix milliseconds. A payload is in external term format. Resources (`keyring`, `network`, `guard`,
  # `channel`, `session`) are opaque references that no other node understands.

  # The library is loaded with the module, so not while the module is being compiled.
  @compile {:autoload, false}
  @on_load :load

  @type resource :: reference
  @type keyring :: resource
  @type network :: resource
  @type guard :: resource
  @type channel :: resource
  @type session :: resource

  @type public_key :: <<_::256>>
  @type realm_id :: <<_::256>>
  @type network_id :: <<_::256>>
  @type signature :: <<_::512>>
  @type unix_ms :: integer

  @type purpose :: :link | :hello | :cert | :learn | :forget
  @type profile :: :tls | :local | :plain
  @type detail :: atom | integer | binary | tuple
  @type error :: {:error, {kind :: atom, detail}}

  @type payload :: binary
  @typedoc "`{:h, binary}`: it holds handles, and goes through `session_translate/3` or `session_discard/2`, exactly once."
  @type payload_in :: {:t, term} | {:b, binary} | {:h, binary} | :undecodable
  @type engine :: binary
  @type label :: 1 | 2 | 4
  @type call_id :: non_neg_integer
  @type caller :: non_neg_integer
  @typedoc "Processes of ours that the peer is given by a push for the first time. They are watched: `session_export_ended/4`."
  @type exported :: [{handle, pid}]
  @type pushed :: {:ok, exported} | push_error
  @type handle :: pos_integer
  @typedoc "A pid or reference in external term format without the version byte, see Legation.Handle."
  @type raw :: binary
  @type push_error ::
          {:error,
           :overload | :disconnect | :too_large | :identifiers | :bad_term | :unknown_handle | :draining | :ended}

  @type guard_opts :: %{window_ms: pos_integer, boot_ms: non_neg_integer, entries_max: pos_integer}
  @type signing :: :engine | :delegated | :checkpoint
  @type channel_opts :: %{
          knock: boolean,
          message_bytes_max: pos_integer,
          engines_max: pos_integer,
          queue_bytes_max: pos_integer,
          resume_bytes_max: non_neg_integer,
          credit_bytes: non_neg_integer,
          fragment_bytes: pos_integer,
          message_ttl_ms: pos_integer | :infinity,
          room_waiters_max: pos_integer,
          signing: signing,
          accept_signing: [signing],
          checkpoint_ms: pos_integer,
          checkpoint_patience_ms: pos_integer,
          unproven_messages_max: pos_integer,
          unproven_bytes_max: pos_integer,
          engine_queue_bytes_max: pos_integer | :infinity,
          calls_max: pos_integer,
          callers_max: pos_integer,
          handles_max: pos_integer,
          references_max: pos_integer,
          handshake_ms: pos_integer,
          ping_ms: pos_integer,
          failures_max: pos_integer,
          failures_window_ms: pos_integer,
          overflow: :newest | :oldest | :disconnect
        }

  @typedoc "A session that the dialler has, and whether the links there are shall stay."
  @type offer :: {session_id :: <<_::256>>, additional? :: boolean}

  @type event ::
          {:hello, realm_id, public_key, offer | nil}
          | {:sign, id :: non_neg_integer, purpose, body :: binary}
          | {:up, session, map}
          | {:learn, engine, map}
          | {:forget, engine, reason :: atom, payload_in | nil}
          | {:send | :cast, dst :: engine | pid, src :: engine, payload_in, receipt :: binary | nil}
          | {:call, dst :: engine | pid, src :: engine, label, call_id, caller, payload_in, receipt :: binary | nil}
          | {:reply, from :: term, payload_in}
          | {:refused, from :: term, reason :: atom}
          | {:exit, :linked | :sent, from :: handle, dst :: engine | pid, src :: engine, payload_in}
          | {:handle_ended, handle, reason :: atom, payload_in | nil}
          | {:timeout_in, ms :: non_neg_integer}
          | {:unexported, handle}
          | {:rotated, serial :: pos_integer, public_key}
          | {:closed | :fault, code :: atom, detail}

  # Keys. Private keys go from file to Rust memory and never become a term.

  @spec keyring_load(Path.t()) :: {:ok, keyring} | error
  def keyring_load(_path), do: not_loaded()

  @spec keyring_external(public_key) :: {:ok, keyring} | error
  def keyring_external(_public_key), do: not_loaded()

  @spec keyring_generate(Path.t()) :: {:ok, public_key} | error
  def keyring_generate(_path), do: not_loaded()

  @spec keyring_public(keyring) :: public_key
  def keyring_public(_keyring), do: not_loaded()

  @spec keyring_sign(keyring, network, purpose, binary) :: {:ok, signature} | error
  def keyring_sign(_keyring, _network, _purpose, _body), do: not_loaded()

  @spec keyring_engine_public(keyring, engine) :: public_key
  def keyring_engine_public(_keyring, _name), do: not_loaded()

  @spec keyring_online_public(keyring) :: public_key
  def keyring_online_public(_keyring), do: not_loaded()

  # Another identity key, and the end of one. What these decide stands in the files before it is true.

  @doc "Whether the peers of this network will accept our rotations."
  @spec keyring_check(keyring, network, unix_ms) :: :ok | error
  def keyring_check(_keyring, _network, _now), do: not_loaded()

  @doc "The identity key in force, how many rotations led to it, and whether it was revoked. `keyring_public/1` is the first one."
  @spec keyring_identity(keyring) :: {public_key, non_neg_integer, revoked? :: boolean}
  def keyring_identity(_keyring), do: not_loaded()

  @spec keyring_rotate(keyring, network, Path.t(), unix_ms) :: {:ok, public_key} | error
  def keyring_rotate(_keyring, _network, _path, _now), do: not_loaded()

  @spec keyring_revoke(keyring, network) :: :ok | error
  def keyring_revoke(_keyring, _network), do: not_loaded()

  # What is known of the keys of others: none of a realm's is accepted any more; what is to be kept over a restart.

  @spec realm_revoke(keyring, realm_id) :: :ok
  def realm_revoke(_keyring, _realm_id), do: not_loaded()

  @spec realm_revoked(keyring, realm_id) :: boolean
  def realm_revoked(_keyring, _realm_id), do: not_loaded()

  @doc "What has changed since it was asked for last."
  @spec heads_changed(keyring) :: [{realm_id, binary}]
  def heads_changed(_keyring), do: not_loaded()

  @spec heads_restore(keyring, binary) :: :ok | error
  def heads_restore(_keyring, _head), do: not_loaded()

  # The network key, and what is derived from it.

  @spec network_load(Path.t() | nil) :: {:ok, network} | error
  def network_load(_path), do: not_loaded()

  @spec network_id(network) :: network_id
  def network_id(_network), do: not_loaded()

  # Announcements, receipts and what is signed.

  @spec signing_input(network, purpose, binary) :: binary
  def signing_input(_network, _purpose, _body), do: not_loaded()

  @spec key_check(public_key) :: :ok | error
  def key_check(_public_key), do: not_loaded()

  @doc "Whether the key has signed exactly these bytes, strictly; not whether the key is one that `key_check/1` accepts."
  @spec verify(public_key, message :: binary, signature) :: boolean
  def verify(_public_key, _message, _signature), do: not_loaded()

  @spec realm_id(public_key) :: realm_id
  def realm_id(_public_key), do: not_loaded()

  @spec announcement(:learn | :forget | :cert, map) :: binary
  def announcement(_kind, _fields), do: not_loaded()

  @spec verify_receipt(binary, public_key, network_id) :: {:ok, map} | error
  def verify_receipt(_receipt, _identity_key, _network_id), do: not_loaded()

  @spec blake3(binary) :: <<_::256>>
  def blake3(_binary), do: not_loaded()

  @spec scan(binary) :: :ok | error
  def scan(_payload), do: not_loaded()

  # What an instance remembers of knocks.

  @spec guard_new(network, guard_opts, unix_ms) :: guard
  def guard_new(_network, _opts, _now), do: not_loaded()

  # Channel: one link, from its first byte to its last. The Reader's and the Writer's.

  @doc "`session`: one that we have with this peer; `additional?`: it keeps its other links."
  @spec channel_connect(
          profile,
          keyring,
          network,
          public_key,
          channel_opts,
          unix_ms,
          session | nil,
          additional? :: boolean
        ) :: {:ok, channel} | error
  def channel_connect(_profile, _keyring, _network, _peer_public_key, _opts, _now, _session, _additional?),
    do: not_loaded()

  @spec channel_accept(profile, keyring, network, guard | nil, channel_opts, unix_ms) :: {:ok, channel} | error
  def channel_accept(_profile, _keyring, _network, _guard, _opts, _now), do: not_loaded()

  @doc "`:busy`: what another link of the session brought is being delivered; `:free` will be sent to the caller, who comes again."
  @spec channel_handle_bytes(channel, binary, unix_ms) :: {[event], wake? :: boolean, :done} | :busy
  def channel_handle_bytes(_channel, _bytes, _now), do: not_loaded()

  @doc """
  The same for at most 65,536 bytes, on the scheduler at hand, as far as half a millisecond goes. When what it has brought has been
  delivered what is left is handled by the next call, with or without bytes: `:more`, by this function; `:large`, by the other.
  """
  @spec channel_handle_slice(channel, binary, unix_ms) ::
          {[event], wake? :: boolean, :done | :more | :large} | :busy | :dirty
  def channel_handle_slice(_channel, _bytes, _now), do: not_loaded()

  @doc "What the last read brought has been handed to mailboxes. `:later`: `session_acknowledge/1` is due in `ack_ms`."
  @spec channel_delivered(channel) :: :ok | :later
  def channel_delivered(_channel), do: not_loaded()

  @doc "What the channel has to send, and whether there is more. `checkpoint_ms`: `channel_checkpoint/1` is due so many ms from now."
  @spec channel_flush_slice(channel, unix_ms) :: {binary, :idle | :more, checkpoint_ms :: pos_integer | nil} | :dirty
  def channel_flush_slice(_channel, _now), do: not_loaded()

  @spec channel_flush(channel, unix_ms) :: {binary, :idle | :more, checkpoint_ms :: pos_integer | nil}
  def channel_flush(_channel, _now), do: not_loaded()

  @doc "The next flush proves what has gone out without a signature. Wakes the Writer."
  @spec channel_checkpoint(channel) :: :ok
  def channel_checkpoint(_channel), do: not_loaded()

  @spec channel_signature(channel, id :: non_neg_integer, signature, unix_ms) :: {[event], wake? :: boolean}
  def channel_signature(_channel, _id, _signature, _now), do: not_loaded()

  @doc "`limits`: those of this peer, where they are not the instance's."
  @spec channel_decide(channel, {:accept, session | nil, channel_opts | nil} | {:refuse, atom}, unix_ms) ::
          {[event], wake? :: boolean}
  def channel_decide(_channel, _verdict, _now), do: not_loaded()

  @spec channel_timeout(channel, unix_ms) :: {[event], wake? :: boolean, next_ms :: non_neg_integer | nil}
  def channel_timeout(_channel, _now), do: not_loaded()

  @spec channel_close(channel, code :: atom, text :: binary) :: wake? :: boolean
  def channel_close(_channel, _code, _text), do: not_loaded()

  @doc "The session is sent on this link from now on; whoever pushes wakes this Writer."
  @spec channel_activate(channel, writer :: pid) :: :ok
  def channel_activate(_channel, _writer), do: not_loaded()

  @doc "The link has ended: nothing is taken from it or sent on it any more."
  @spec channel_detach(channel) :: :ok
  def channel_detach(_channel), do: not_loaded()

  @doc "Whether our side of the session is sent on this link."
  @spec channel_is_active(channel) :: boolean
  def channel_is_active(_channel), do: not_loaded()

  @doc "The last round trip, nil before the first."
  @spec channel_rtt_ms(channel) :: non_neg_integer | nil
  def channel_rtt_ms(_channel), do: not_loaded()

  # Session: what proxies push into and stand-ins answer through. Whatever has to be sent wakes the Writer of the link that
  # is sent on. The `_dirty` ones are for payloads over 128 KiB, and for who was told `:busy`: another thread is at work on the session,
  # and it is waited for there.

  @spec session_push(session, engine, :send | :cast, engine, payload) :: pushed | :busy
  def session_push(_session, _dst, _kind, _src, _payload), do: not_loaded()

  @spec session_push_dirty(session, engine, :send | :cast, engine, payload) :: pushed
  def session_push_dirty(_session, _dst, _kind, _src, _payload), do: not_loaded()

  @spec session_push_call(session, engine, label, engine, GenServer.from(), caller :: raw, payload) :: pushed | :busy
  def session_push_call(_session, _dst, _label, _src, _from, _caller, _payload), do: not_loaded()

  @spec session_push_call_dirty(session, engine, label, engine, GenServer.from(), caller :: raw, payload) :: pushed
  def session_push_call_dirty(_session, _dst, _label, _src, _from, _caller, _payload), do: not_loaded()

  @spec session_reply(session, call_id, payload) :: pushed | :busy | {:error, :unknown_call}
  def session_reply(_session, _call_id, _payload), do: not_loaded()

  @spec session_reply_dirty(session, call_id, payload) :: pushed | {:error, :unknown_call}
  def session_reply_dirty(_session, _call_id, _payload), do: not_loaded()

  @doc "An exit signal from a process of ours: `:linked` to the destination, it has ended, or `:sent` by `Process.exit/2`."
  @spec session_push_exit(session, engine, engine, from :: raw, :linked | :sent, payload) :: pushed
  def session_push_exit(_session, _dst, _src, _from, _kind, _payload), do: not_loaded()

  @doc "Why an engine of ours has ended, for a peer that is told more than the class. Before its FORGET."
  @spec session_push_reason(session, engine, payload) :: pushed
  def session_push_reason(_session, _engine, _payload), do: not_loaded()

  # Handles: processes of ours that the peer has (exports), and of its that we have (imports).

  @spec session_export_ended(session, handle, reason :: atom, payload | nil) :: {:ok, exported}
  def session_export_ended(_session, _number, _reason, _term), do: not_loaded()

  @spec session_export_pid(session, handle) :: pid | nil
  def session_export_pid(_session, _number), do: not_loaded()

  @doc "What `session_translate/3` needs for a payload."
  @spec session_wanted(session, binary) ::
          {[handle], [engine], references :: non_neg_integer, nobodies :: non_neg_integer}
  def session_wanted(_session, _payload), do: not_loaded()

  @spec session_wanted_dirty(session, binary) :: {[handle], [engine], non_neg_integer, non_neg_integer}
  def session_wanted_dirty(_session, _payload), do: not_loaded()

  @doc "`:full`: there is no room for another stand-in, and nothing has happened yet."
  @spec session_translate(session, binary, {[{handle, raw}], [{engine, raw}], references :: [raw], nobodies :: [raw]}) ::
          {:t, term} | {:b, binary} | :full | :undecodable
  def session_translate(_session, _payload, _made), do: not_loaded()

  @spec session_translate_dirty(session, binary, {[{handle, raw}], [{engine, raw}], [raw], [raw]}) ::
          {:t, term} | {:b, binary} | :full | :undecodable
  def session_translate_dirty(_session, _payload, _made), do: not_loaded()

  @doc "A payload with handles that is not delivered."
  @spec session_discard(session, binary) :: :ok
  def session_discard(_session, _payload), do: not_loaded()

  @spec session_bind_import(session, handle, raw) :: :ok | :full
  def session_bind_import(_session, _number, _raw), do: not_loaded()

  @doc "Once for each `:exit` event."
  @spec session_settle_handle(session, handle) :: :ok
  def session_settle_handle(_session, _number), do: not_loaded()

  @spec session_drop_import(session, handle) :: :dropped | :in_use | :unknown
  def session_drop_import(_session, _number), do: not_loaded()

  @doc "A proxy: in a payload it goes home as the engine that it stands for."
  @spec session_bind_engine(session, raw, engine) :: :ok
  def session_bind_engine(_session, _raw, _engine), do: not_loaded()

  @spec session_unbind(session, raw) :: :ok
  def session_unbind(_session, _raw), do: not_loaded()

  @spec session_refuse(session, call_id, reason :: atom) :: :ok
  def session_refuse(_session, _call_id, _reason), do: not_loaded()

  @doc "Nothing can answer this remote caller's open calls any more: they are refused `:abandoned`."
  @spec session_abandon(session, caller :: pos_integer) :: :ok
  def session_abandon(_session, _caller), do: not_loaded()

  @doc "Tells the peer what it doesn't know of our identity key; any announcement does so, too."
  @spec session_tell_identity(session) :: :ok
  def session_tell_identity(_session), do: not_loaded()

  @spec session_announce(session, :learn | :forget | :cert, signed :: binary) :: :ok
  def session_announce(_session, _kind, _signed), do: not_loaded()

  @spec session_pending(session, engine) :: non_neg_integer
  def session_pending(_session, _engine), do: not_loaded()

  @doc "The remote callers whose calls this engine of ours has not answered yet."
  @spec session_callers_at(session, engine) :: [caller :: pos_integer]
  def session_callers_at(_session, _engine), do: not_loaded()

  @spec session_sweep(session, age_ms :: non_neg_integer) :: [{call_id, engine, caller_pid :: term}]
  def session_sweep(_session, _age_ms), do: not_loaded()

  @spec session_cancel(session, call_id) :: :ok
  def session_cancel(_session, _call_id), do: not_loaded()

  @spec session_receipts(session, [engine]) :: :ok
  def session_receipts(_session, _engines), do: not_loaded()

  @doc "Tells the peer what was delivered, if it has not been told."
  @spec session_acknowledge(session) :: :ok
  def session_acknowledge(_session), do: not_loaded()

  @doc "Whether it can go on over another link when its last has ended."
  @spec session_can_resume(session) :: boolean
  def session_can_resume(_session), do: not_loaded()

  @doc "New calls of ours are refused `:draining` from now on."
  @spec session_drain(session) :: :ok
  def session_drain(_session), do: not_loaded()

  @spec session_end(session) :: :ok
  def session_end(_session), do: not_loaded()

  @doc "How many messages of ours were sent and not acknowledged."
  @spec session_gap(session) :: non_neg_integer
  def session_gap(_session), do: not_loaded()

  @doc "Numbers of the first and last message that the peer has sent without a signature and not proven since."
  @spec session_unproven(session) :: {first :: pos_integer, last :: pos_integer} | nil
  def session_unproven(_session), do: not_loaded()

  @doc "Casts and sends that `ended`, a session with the same peer, had not signed yet go into `session`."
  @spec session_adopt(session, ended :: session) :: {:ok, exported}
  def session_adopt(_session, _ended), do: not_loaded()

  @doc "Time passes: what waits for longer than `message_ttl_ms` goes, and calls among it are given back."
  @spec session_tick(session, unix_ms) :: [{GenServer.from(), reason :: atom}]
  def session_tick(_session, _now), do: not_loaded()

  @doc """
  Destinations of ours whose mailboxes are to be looked at, each with a mark of what they have been given until now: answered by
  `session_grant/4` with how much is in them.
  """
  @spec session_debts(session) :: [{binary, mark :: non_neg_integer}]
  def session_debts(_session), do: not_loaded()

  @spec session_grant(session, destination :: binary, left :: non_neg_integer, mark :: non_neg_integer) :: :ok
  def session_grant(_session, _destination, _left, _mark), do: not_loaded()

  @doc "For who was refused `:overload` and would rather wait. After `:later` the caller gets `{:legation_room, token}`, once."
  @spec session_wait_room(session, engine, payload_bytes :: non_neg_integer) ::
          :now | {:later, token :: integer} | :full
  def session_wait_room(_session, _dst, _payload_bytes), do: not_loaded()

  @spec session_cancel_room(session, token :: integer) :: :ok
  def session_cancel_room(_session, _token), do: not_loaded()

  @spec session_counters(session) :: %{atom => integer}
  def session_counters(_session), do: not_loaded()

  # Which shape the functions and events have; the library has the same number (`BORDER`) or is refused.
  @border 8

  @doc false
  # Without the library the module does not load: there is nothing that Legation could do without it. An upgrade in a
  # running system is refused as well, and the old code stays: its resources would mean nothing to the new one.
  def load do
    priv =
      case :code.priv_dir(:legation) do
        {:error, :bad_name} -> __MODULE__ |> :code.which() |> Path.dirname() |> Path.join("../priv") |> to_charlist()
        priv -> priv
      end

    case :erlang.load_nif(:filename.join(priv, ~c"native/legation_nif"), @border) do
      {:error, {:load, _text}} ->
        {:error, {:load, ~c"the native library is of another version of Legation: build it anew"}}

      loaded_or_not ->
        loaded_or_not
    end
  end

  defp not_loaded, do: :erlang.nif_error(:nif_not_loaded)
end
