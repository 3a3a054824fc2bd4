defmodule Legation.Transport do
  @moduledoc false
  # Who does an instance's work: this VM with the native library (Legation.Transport.Embedded), or a daemon beside it
  # (Legation.Transport.CNode). What `Legation`'s functions have in common is there; what differs is here, and callers see
  # the same values and errors from both.
  #
  # Both keep the tables of Legation.Instance, so that looking up a name asks nobody.

  alias Legation.{Instance, Options}

  @doc "Before anything starts: options with what depends on this VM filled in, or why it can't be done here."
  @callback prepare(Options.t()) :: {:ok, Options.t()} | {:error, term}

  @doc "What `Legation.Supervisor` starts, in this order. One of them calls `Instance.put/1`."
  @callback children(Options.t(), config :: :ets.tid()) :: [Supervisor.child_spec() | {module, term}]

  @callback publish(Instance.t(), engine :: binary, pid | atom, keyword) :: :ok | {:error, term}
  @callback withdraw(Instance.t(), engine :: binary) :: :ok | {:error, :not_published}

  @callback engines(Instance.t()) :: [map]
  @callback peers(Instance.t()) :: [map]
  @callback connections(Instance.t()) :: [map]
  @callback listeners(Instance.t()) :: [map]
  @callback counters(Instance.t()) :: map
  @callback verify_receipt(Instance.t(), receipt :: binary, identity_key :: <<_::256>>) :: {:ok, map} | {:error, term}

  @doc "A realm of the list, or a peer that was checked."
  @callback connect(Instance.t(), binary | Options.Peer.t()) :: :ok | {:error, term}
  @doc "The path of a key file. `{:ok, key}`: the identity key from now on."
  @callback rotate_key(Instance.t(), Path.t()) :: {:ok, <<_::256>>} | {:error, term}
  @callback revoke_own_key(Instance.t()) :: :ok | {:error, term}
  @callback revoke(Instance.t(), realm :: binary) :: :ok | {:error, :unknown_realm}

  @callback disconnect(Instance.t(), realm :: binary) :: :ok | {:error, :unknown_realm}
  @callback drain(Instance.t(), timeout_ms :: non_neg_integer) :: {:ok, [{binary, pid}]}

  @callback subscribe(Instance.t()) :: {:ok, reference, %{peers: map, engines: map}}
  @callback unsubscribe(Instance.t(), reference) :: :ok

  @doc "The carrier's options were checked; `id` is free for the transport to refuse."
  @callback add_listener(Instance.t(), id :: term, carrier :: module, keyword) :: {:ok, map} | {:error, term}
  @callback remove_listener(Instance.t(), id :: term) :: :ok | {:error, :not_found}

  @doc "The key of a foreign engine, or nil."
  @callback key(Instance.t(), full_name :: binary) :: binary | nil

  @doc """
  How much each of these providers of one engine name has to do, in their order: calls of ours in flight; of an engine of this
  realm, what waits in its mailbox. `:infinity` where nobody can tell.
  """
  @callback pending(Instance.t(), [%Legation.Providers.Provider{}, ...]) :: [non_neg_integer | :infinity]

  @doc "From a process that may be one of our engines, which is then the source, to the process that stands for a foreign one."
  @callback send_from_caller(Instance.t(), pid, message :: term) :: term

  @doc "Waits until a message of so many bytes to a foreign engine may have room, or its session has ended."
  @callback wait_room(Instance.t(), full_name :: binary, payload_bytes :: non_neg_integer, timeout) ::
              :ok | {:error, :noproc | :overload | :timeout}

  @doc "To the process that stands for a foreign engine, and back with what has become of it, where that can be known."
  @callback push(Instance.t(), pid, message :: term) :: :ok | {:error, reason :: atom}

  @doc "The module behind the option `:transport`."
  @spec module(Options.t()) :: module
  def module(%Options{transport: :embedded}), do: __MODULE__.Embedded
  def module(%Options{transport: %Options.CNode{}}), do: __MODULE__.CNode
end
