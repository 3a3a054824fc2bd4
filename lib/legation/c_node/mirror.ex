defmodule Legation.CNode.Mirror do
  @moduledoc false
  # The daemon's peers and foreign engines, as tables and subscribers of this VM know them. Part of the CNode.Directory, in
  # its process and on its state: that is what puts all of it into one order, with a snapshot at its beginning.

  alias Legation.{GlobalNames, Instance}
  alias Legation.CNode.Shape
  alias Legation.Directory.Events

  @doc "The key of a foreign engine, or nil."
  def key(%Instance{foreign: foreign}, full_name) do
    case :ets.lookup(foreign, full_name) do
      [{_name, _pid, _realm, _engine, _counts, %{key: key}}] -> key
      _none -> nil
    end
  end

  @doc "How it is when the link begins: told as if it had happened now."
  def restore(%{peers: peers, engines: engines}, state) do
    state =
      Enum.reduce(peers, state, fn {realm, info}, state ->
        state = take({:peer_up, realm, info}, state)
        # Its session was there before we were, and has no link at present.
        if info[:state] == :lost, do: take({:peer_lost, realm, :noconnection}, state), else: state
      end)

    Enum.reduce(engines, state, fn {name, info}, state -> take({:engine_learned, name, info}, state) end)
  end

  @doc "There is no daemon any more, and so nobody behind it."
  def clear(state) do
    state = Enum.reduce(state.links, state, fn {realm, _link}, state -> down(realm, {:daemon, :down}, state) end)
    names = :ets.select(state.instance.foreign, [{{:"$1", :_, :_, :_, :_, :_}, [], [:"$1"]}])
    Enum.reduce(names, state, &forget(&1, :noconnection, &2))
  end

  @doc "One event of the daemon's."
  def take({:peer_up, realm, info}, %{instance: instance} = state) do
    state = if is_map_key(state.links, realm), do: down(realm, :replaced, state), else: state
    status = info |> Map.put(:realm, realm) |> Shape.link()
    :ets.insert(instance.sessions, {realm, realm, nil, Map.put(status, :state, :up)})
    state = %{state | links: Map.put(state.links, realm, %{realm: realm, status: status})}
    Events.notify({:peer_up, realm, status}, state)
  end

  # The last link has gone, the session has not.
  def take({:peer_lost, realm, reason}, state) do
    case state.links do
      %{^realm => %{status: status}} ->
        :ets.update_element(state.instance.sessions, realm, {4, Map.put(status, :state, :lost)})
        Events.notify({:peer_lost, realm, reason}, state)

      _unknown ->
        state
    end
  end

  def take({:peer_resumed, realm, info}, %{instance: instance} = state) when is_map_key(state.links, realm) do
    status = info |> Map.put(:realm, realm) |> Shape.link()
    :ets.update_element(instance.sessions, realm, {4, Map.put(status, :state, :up)})
    Events.notify({:peer_resumed, realm, status}, put_in(state.links[realm].status, status))
  end

  def take({:gap, realm, messages}, state), do: Events.notify({:gap, realm, messages}, state)

  def take({:unproven, realm, first, last}, state), do: Events.notify({:unproven, realm, first, last}, state)

  def take({:peer_down, realm, reason}, state) do
    # By its own word, or ours.
    if match?({:fault, :revoked, _text}, reason),
      do: :ets.update_element(state.instance.config, {:peer, realm}, {3, :revoked})

    if is_map_key(state.links, realm), do: down(realm, reason, state), else: state
  end

  def take({:engine_learned, full_name, %{pid: pid} = info}, %{instance: instance} = state) do
    case :ets.lookup(instance.foreign, full_name) do
      # Announced again.
      [{_name, ^pid, _realm, _engine, _counts, _info}] ->
        :ets.update_element(instance.foreign, full_name, {6, Shape.engine_info(info)})
        state

      [{_name, _another, _realm, _engine, _counts, _info}] ->
        replace(full_name, info, state)

      [] ->
        insert(full_name, info, state)
        Events.notify({:engine_learned, full_name, info |> Shape.engine_info() |> Map.put(:pid, pid)}, state)
    end
  end

  def take({:engine_forgotten, full_name, reason}, state), do: forget(full_name, reason, state)

  # Another node of the cluster has the name, and keeps it.
  def take({:name_lost, global_name, winner}, state) do
    GlobalNames.lost(state.name, global_name, winner)
    state
  end

  # A BEAM node has a way to the daemon now, and may have thrown away names that it had no way to.
  def take({:node_up, _node}, state) do
    GlobalNames.register_again(state.name)
    state
  end

  # Of a later version.
  def take(_unknown, state), do: state

  # Its process is another one, for whatever reason: who asks by name reaches that from now on.
  defp replace(full_name, info, state) do
    [{_name, old, _realm, _engine, _counts, _info}] = :ets.lookup(state.instance.foreign, full_name)
    GlobalNames.drop(state.name, full_name, old)
    insert(full_name, info, state)
    state
  end

  defp insert(full_name, %{pid: pid} = info, %{instance: instance} = state) do
    [engine, realm] = String.split(full_name, "@", parts: 2)
    :ets.insert(instance.foreign, {full_name, pid, realm, engine, nil, Shape.engine_info(info)})
    GlobalNames.learned(state.name, full_name, pid)
  end

  defp forget(full_name, reason, %{instance: instance} = state) do
    case :ets.take(instance.foreign, full_name) do
      [{_full_name, pid, _realm, _engine, _counts, _info}] ->
        GlobalNames.drop(state.name, full_name, pid)
        Events.notify({:engine_forgotten, full_name, reason}, state)

      [] ->
        state
    end
  end

  # With what is left of its engines first, as a subscriber of the embedded transport sees it.
  defp down(realm, reason, %{instance: instance} = state) do
    :ets.delete(instance.sessions, realm)
    names = :ets.select(instance.foreign, [{{:"$1", :_, realm, :_, :_, :_}, [], [:"$1"]}])
    state = Enum.reduce(names, state, &forget(&1, :noconnection, &2))
    Events.notify({:peer_down, realm, reason}, %{state | links: Map.delete(state.links, realm)})
  end
end
