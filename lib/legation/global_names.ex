defmodule Legation.GlobalNames do
  @moduledoc false
  # Registers and drops names in `:global` and, for `import: [{name, as: atom}]`, local names. `:global` is slow and the
  # slower the more it holds, so it waits here, off everybody's path: `{:via, Legation, name}` works before.
  #
  # How many names go there is what `import:` says. A name that somebody else holds stays theirs; ours stands by and is
  # registered when theirs goes. The same on two nodes of a cluster that have just met: the lower node keeps the name.

  use GenServer

  alias Legation.{Counters, Instance, Telemetry}
  alias Legation.GlobalNames.LocalName

  # :global takes 27 µs a name at first and over 1 ms at 12,000.
  @default_max 1_000

  def start_link(options), do: GenServer.start_link(__MODULE__, options, name: server(options.name))

  @doc "A foreign engine was learned and has this proxy."
  def learned(name, full_name, pid), do: GenServer.cast(server(name), {:learned, full_name, pid})

  @doc "An engine of ours was published."
  def published(name, full_name, pid), do: GenServer.cast(server(name), {:published, full_name, pid})

  @doc "Forgotten, withdrawn, or the process has changed."
  def drop(name, full_name, pid), do: GenServer.cast(server(name), {:drop, full_name, pid})

  @doc "Sends `message` to `pid` when everything before it has been done."
  def relay(name, pid, message), do: GenServer.cast(server(name), {:relay, pid, message})

  @doc "How many names are held, and how many stand by."
  def info(name), do: GenServer.call(server(name), :info)

  @doc """
  Two nodes that meet hold one name: `:global` asks who keeps it. The lower node's name wins; the loser is told and stands by.

  Runs in a process of `:global` on one of the two, and must not fail or wait. Where that would be a daemon's node, which runs
  nothing, `:global` keeps the other's name, and we find out by `register_again/1`.
  """
  def resolve(full_name, pid1, pid2) do
    {winner, loser} = if {node(pid1), pid1} <= {node(pid2), pid2}, do: {pid1, pid2}, else: {pid2, pid1}

    # A daemon's node runs no functions, but takes the message by which `:global` itself tells of a conflict, and hands it on.
    if node(loser) in [node() | Node.list()],
      do: :erpc.cast(node(loser), __MODULE__, :lost, [full_name, winner]),
      else: send(loser, {:global_name_conflict, full_name, winner})

    winner
  end

  @doc "Called on the loser's node."
  def lost(full_name, winner) do
    for %Instance{name: name} <- Instance.all(), do: lost(name, full_name, winner)
  end

  @doc "The same, of one instance: its daemon says so."
  def lost(name, full_name, winner), do: GenServer.cast(server(name), {:lost, full_name, winner})

  @doc "A node of the cluster may have thrown names away, as it had no way to the daemon whose pids have them."
  def register_again(name), do: GenServer.cast(server(name), :register_again)

  defp server(name), do: Instance.process(name, GlobalNames)

  ## The process
  # held: full name => pid, in :global by us. standby: full name => {pid, monitor of the holder}.
  # holders: the same monitors => full name. imported: the foreign ones among `held` and `standby`.
  # daemon?: foreign engines are on another node, which some node of the cluster may not reach. again: nil, or :waiting for
  # `:global` to be in step with the nodes that are there, or :more, when meanwhile others have come.

  @impl true
  def init(options) do
    state = %{
      name: options.name,
      import: options.import,
      suffix: suffix(options.global),
      held: %{},
      standby: %{},
      holders: %{},
      imported: MapSet.new(),
      local: %{},
      daemon?: options.transport != :embedded,
      again: nil
    }

    if state.daemon?, do: :net_kernel.monitor_nodes(true, node_type: :visible)
    # After a crash of this process or the Directory: what stands in the tables is registered again.
    {:ok, state, {:continue, :catch_up}}
  end

  @impl true
  def handle_continue(:catch_up, state) do
    instance = Instance.fetch!(state.name)
    for {full_name, pid} <- Legation.Directory.foreign(instance), do: learned(state.name, full_name, pid)
    for {full_name, pid} <- Legation.Directory.own(instance), do: published(state.name, full_name, pid)
    {:noreply, state}
  end

  @impl true
  def handle_call(:info, _from, state) do
    {:reply, %{held: map_size(state.held), standby: map_size(state.standby)}, state}
  end

  @impl true
  def handle_cast({:relay, pid, message}, state) do
    send(pid, message)
    {:noreply, state}
  end

  # The proxy before it is dropped first, so a name is registered or stands by once.
  def handle_cast({:learned, full_name, pid}, state) do
    state = register_locally(full_name, pid, state)

    if state.suffix != :off and imported?(full_name, state),
      do: {:noreply, register(full_name, pid, %{state | imported: MapSet.put(state.imported, full_name)})},
      else: {:noreply, state}
  end

  def handle_cast({:published, full_name, pid}, state) do
    own = map_size(state.held) - MapSet.size(state.imported)

    # A pid can have one global name; the one it has is its own.
    if state.suffix == :off or (own >= @default_max and state.import != :all) or named?(pid),
      do: {:noreply, state},
      else: {:noreply, register(full_name, pid, state)}
  end

  def handle_cast({:drop, full_name, pid}, state) do
    state = unregister_locally(full_name, state)

    case state do
      %{held: %{^full_name => ^pid}} ->
        # Only if it is still ours: since then somebody else may have got it.
        if :global.whereis_name(global_name(full_name, state)) == pid,
          do: :global.unregister_name(global_name(full_name, state))

        {:noreply,
         %{state | held: Map.delete(state.held, full_name), imported: MapSet.delete(state.imported, full_name)}}

      %{standby: %{^full_name => {^pid, monitor}}} ->
        Process.demonitor(monitor, [:flush])

        {:noreply,
         %{
           state
           | standby: Map.delete(state.standby, full_name),
             holders: Map.delete(state.holders, monitor),
             imported: MapSet.delete(state.imported, full_name)
         }}

      _not_ours ->
        {:noreply, state}
    end
  end

  def handle_cast({:lost, global_name, winner}, state) do
    full_name = local_name(global_name, state)

    case state.held do
      %{^full_name => pid} ->
        # Registered again while the nodes met, ours has come over the winner's, and `:global` asks nobody then.
        if :global.whereis_name(global_name) == pid,
          do: :global.re_register_name(global_name, winner, &__MODULE__.resolve/3)

        {:noreply, stand_by(full_name, pid, winner, %{state | held: Map.delete(state.held, full_name)})}

      _not_ours ->
        {:noreply, state}
    end
  end

  def handle_cast(:register_again, state), do: {:noreply, after_sync(state)}

  @impl true
  def handle_info({:nodeup, _node, _info}, state), do: {:noreply, after_sync(state)}
  def handle_info(:in_step, %{again: :more} = state), do: {:noreply, after_sync(%{state | again: nil})}
  def handle_info(:in_step, state), do: {:noreply, register_again_all(%{state | again: nil})}

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    case Map.pop(state.holders, monitor) do
      {nil, _holders} ->
        {:noreply, state}

      {full_name, holders} ->
        {{pid, ^monitor}, standby} = Map.pop!(state.standby, full_name)
        {:noreply, register(full_name, pid, %{state | holders: holders, standby: standby})}
    end
  end

  def handle_info(_stray, state), do: {:noreply, state}

  defp register(full_name, pid, state) do
    global_name = global_name(full_name, state)

    case :global.register_name(global_name, pid, &__MODULE__.resolve/3) do
      :yes ->
        %{state | held: Map.put(state.held, full_name, pid)}

      :no ->
        case :global.whereis_name(global_name) do
          ^pid -> %{state | held: Map.put(state.held, full_name, pid)}
          :undefined -> take_over(full_name, pid, state)
          holder -> stand_by(full_name, pid, holder, state)
        end
    end
  end

  # Somebody else waits for `:global`, which may take its time.
  defp after_sync(%{again: nil} = state) do
    names = self()
    spawn(fn -> :global.sync() && send(names, :in_step) end)
    %{state | again: :waiting}
  end

  defp after_sync(state), do: %{state | again: :more}

  # On a node that had no way to the daemon when it heard of a name, the name is gone, without a word. It is registered again
  # everywhere; where it is there this changes nothing.
  defp register_again_all(state) do
    Enum.reduce(state.held, state, fn
      {full_name, pid}, state when node(pid) != node() -> register_again(full_name, pid, state)
      _own, state -> state
    end)
  end

  defp register_again(full_name, pid, state) do
    case :global.whereis_name(global_name(full_name, state)) do
      ^pid -> take_over(full_name, pid, state)
      :undefined -> take_over(full_name, pid, state)
      winner -> stand_by(full_name, pid, winner, %{state | held: Map.delete(state.held, full_name)})
    end
  end

  # The holder has died and :global is about to notice: the name is nobody's.
  defp take_over(full_name, pid, state) do
    case :global.re_register_name(global_name(full_name, state), pid, &__MODULE__.resolve/3) do
      :yes -> %{state | held: Map.put(state.held, full_name, pid)}
      :no -> state
    end
  end

  defp stand_by(full_name, pid, holder, state) do
    Counters.add(Instance.fetch!(state.name).counters, :global_names_taken)

    Telemetry.log(
      :warning,
      {:global_name_taken, state.name},
      "the global name #{inspect(full_name)} belongs to #{inspect(holder)} and stays there; ours stands by"
    )

    monitor = Process.monitor(holder)

    %{
      state
      | standby: Map.put(state.standby, full_name, {pid, monitor}),
        holders: Map.put(state.holders, monitor, full_name)
    }
  end

  defp imported?(_full_name, %{import: :all}), do: true
  defp imported?(_full_name, %{import: :none}), do: false

  defp imported?(full_name, %{import: :default} = state),
    do: MapSet.member?(state.imported, full_name) or MapSet.size(state.imported) < @default_max

  defp imported?(full_name, %{import: list}) do
    Enum.any?(list, fn
      {name, _opts} -> name == full_name
      name -> name == full_name
    end)
  end

  defp register_locally(full_name, pid, %{import: list} = state) when is_list(list) do
    Enum.reduce(list, state, fn
      {^full_name, as: atom}, state -> register_locally(full_name, pid, atom, state)
      _another, state -> state
    end)
  end

  defp register_locally(_full_name, _pid, state), do: state

  defp register_locally(full_name, pid, atom, state) do
    local = if node(pid) == node(), do: pid, else: LocalName.start(pid, self())
    Process.register(local, atom)
    %{state | local: Map.put(state.local, full_name, {atom, local})}
  rescue
    # Taken, or the proxy is gone already.
    ArgumentError ->
      Counters.add(Instance.fetch!(state.name).counters, :global_names_taken)

      Telemetry.log(
        :warning,
        {:local_name_taken, state.name},
        "#{inspect(atom)} is taken; #{full_name} is not imported as it"
      )

      state
  end

  # The next process may come before this one is gone.
  defp unregister_locally(full_name, state) do
    case Map.pop(state.local, full_name) do
      {{atom, local}, names} ->
        if Process.whereis(atom) == local, do: Process.unregister(atom)
        %{state | local: names}

      {nil, _names} ->
        state
    end
  end

  defp named?(pid), do: Enum.any?(:global.registered_names(), &(:global.whereis_name(&1) == pid))

  defp suffix(true), do: ""
  defp suffix(:off), do: :off
  defp suffix({:suffix, suffix}), do: suffix

  defp global_name(full_name, %{suffix: suffix}), do: full_name <> suffix

  defp local_name(global_name, %{suffix: suffix}) when is_binary(global_name) and is_binary(suffix),
    do: String.replace_suffix(global_name, suffix, "")

  defp local_name(global_name, _state), do: global_name
end
