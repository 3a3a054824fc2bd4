defmodule Legation.Supervisor do
  @moduledoc false
  # One instance. rest_for_one: whoever comes later uses those before it. Who they are is the transport's business.
  #
  # The `config` table is owned by this process and so outlives a crash of any child: what was published, connected or
  # listened on at run time is there again after the restart.

  use Supervisor

  alias Legation.{Instance, Transport}

  def start_link(%Legation.Options{} = options) do
    with {:ok, options} <- Transport.module(options).prepare(options), do: start(options)
  end

  defp start(options) do
    case Supervisor.start_link(__MODULE__, options, name: Instance.process(options.name, Supervisor)) do
      {:error, {:already_started, _pid}} = error -> error
      {:error, reason} -> {:error, cause(reason)}
      started -> started
    end
  end

  # What failed, without the supervisors around it: `{:key_file, :enoent}`, `{:listen, carrier, :eaddrinuse}`.
  defp cause({:shutdown, reason}), do: cause(reason)
  defp cause({:failed_to_start_child, _child, reason}), do: cause(reason)
  defp cause(reason), do: reason

  @impl true
  def init(%Legation.Options{} = options) do
    # Raises for what can't be loaded: messages would be refused later, and nobody would know why.
    Enum.each(options.atoms, &Code.ensure_loaded!/1)
    config = :ets.new(:legation_config, [:public, :ordered_set])
    for peer <- options.peers, do: :ets.insert(config, {{:peer, peer.realm}, peer, :connected})

    for {{carrier, opts}, index} <- Enum.with_index(options.listen) do
      :ets.insert(config, {{:listener, index}, carrier, opts})
    end

    options |> Transport.module(options).children(config) |> Supervisor.init(strategy: :rest_for_one)
  end
end

defmodule Legation.PeerSupervisor do
  @moduledoc false
  use Supervisor

  alias Legation.Instance

  def start_link({name, config}),
    do: Supervisor.start_link(__MODULE__, {name, config}, name: Instance.process(name, PeerSupervisor))

  def start_peer(name, peer) do
    supervisor = Instance.process(name, PeerSupervisor)

    case Supervisor.start_child(supervisor, {Legation.Peer, {name, peer}}) do
      # Stopped by stop_peer/2 before, perhaps with other settings: these count.
      {:error, :already_present} ->
        :ok = Supervisor.delete_child(supervisor, {:peer, peer.realm})
        start_peer(name, peer)

      {:error, {{:shutdown, {:peer, _realm, reason}}, _child}} ->
        {:error, reason}

      result ->
        result
    end
  end

  @doc "Those that run, as `{realm, pid}`."
  def peers(name) do
    for {{:peer, realm}, pid, _type, _modules} <- Supervisor.which_children(Instance.process(name, PeerSupervisor)),
        is_pid(pid),
        do: {realm, pid}
  end

  def stop_peer(name, realm) do
    Supervisor.terminate_child(Instance.process(name, PeerSupervisor), {:peer, realm})
  end

  @impl true
  def init({name, config}) do
    # One whose key was revoked is there, and says so.
    peers =
      for [peer, state] <- :ets.match(config, {{:peer, :_}, :"$1", :"$2"}),
          state in [:connected, :revoked],
          do: {Legation.Peer, {name, peer}}

    Supervisor.init(peers, strategy: :one_for_one)
  end
end

defmodule Legation.ListenerSupervisor do
  @moduledoc false
  use Supervisor

  alias Legation.Instance

  def start_link({name, config}),
    do: Supervisor.start_link(__MODULE__, {name, config}, name: Instance.process(name, ListenerSupervisor))

  def start_listener(name, id, carrier, opts) do
    listener = {Legation.Listener, {name, id, carrier, opts}}

    case Supervisor.start_child(Instance.process(name, ListenerSupervisor), listener) do
      {:error, {{:shutdown, {:listen, _carrier, reason}}, _child}} -> {:error, reason}
      result -> result
    end
  end

  def stop_listener(name, id) do
    supervisor = Instance.process(name, ListenerSupervisor)
    with :ok <- Supervisor.terminate_child(supervisor, id), do: Supervisor.delete_child(supervisor, id)
  end

  def listeners(name) do
    for {id, pid, _, _} <- Supervisor.which_children(Instance.process(name, ListenerSupervisor)),
        is_pid(pid),
        do: {id, pid}
  end

  @impl true
  def init({name, config}) do
    listeners =
      for [id, carrier, opts] <- :ets.match(config, {{:listener, :"$1"}, :"$2", :"$3"}),
          do: {Legation.Listener, {name, opts[:id] || id, carrier, opts}}

    Supervisor.init(listeners, strategy: :one_for_one)
  end
end
