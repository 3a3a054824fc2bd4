defmodule Legation.Connection do
  @moduledoc false
  # A link to a peer: two processes. The Reader owns the carrier, decrypts, verifies and delivers, and never sends. The
  # Writer asks for what is to be sent, sends it, and asks again. One process for both would deadlock against its twin at
  # the other end when both directions are full.
  #
  # This module is the supervisor of all links of an instance. Links are `:temporary`: whether there is to be another
  # one is the Peer's business.
  #
  #   Peer ──start──► Reader ◄──bytes── carrier          Listener's acceptor ──start──► Reader
  #     ▲  hello?, up   │ └─link── Writer ──bytes──► carrier
  #     └───────────────┘

  alias Legation.Instance

  @enforce_keys [:name, :role, :carrier, :opts, :tag]
  defstruct [
    :name,
    :role,
    :carrier,
    :opts,
    :tag,
    :peer,
    :realm,
    :key,
    :limits,
    :index,
    :resume,
    :listener,
    additional: false
  ]

  @typedoc """
  What a Reader is started with. `role`: `:initiator` knows its peer (`realm`, `key`, `limits`, and the Peer's pid in `peer`), which of its
  addresses this is (`index`), and the session that it has already (`resume`; `additional`: beside its other links);
  `:responder` gets its connection from `listener`.
  """
  @type t :: %__MODULE__{}

  def child_spec(options) do
    %{
      id: __MODULE__,
      type: :supervisor,
      start: {__MODULE__, :start_link, [options]},
      shutdown: :infinity
    }
  end

  def start_link(options) do
    DynamicSupervisor.start_link(strategy: :one_for_one, name: Instance.process(options.name, ConnectionSupervisor))
  end

  @doc "Starts a link's Reader. Returns at once; what comes of it the Peer or Listener hears from the Reader."
  def start(%__MODULE__{} = connection) do
    child = %{
      id: __MODULE__.Reader,
      start: {__MODULE__.Reader, :start_link, [connection]},
      restart: :temporary,
      shutdown: Instance.limit(Instance.fetch!(connection.name), :shutdown_ms)
    }

    DynamicSupervisor.start_child(Instance.process(connection.name, ConnectionSupervisor), child)
  catch
    # The instance is stopping.
    :exit, _reason -> {:error, :stopping}
  end
end
