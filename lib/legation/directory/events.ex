defmodule Legation.Directory.Events do
  @moduledoc false
  # What subscribers and telemetry are told of peers and engines. Part of the Directory, in its process: that is what puts
  # all of it into one order, with a snapshot at its beginning.

  alias Legation.Directory.Subscribers
  alias Legation.Telemetry

  @doc "How it is now, for a new subscriber."
  def snapshot(%{instance: instance}) do
    engines = :ets.select(instance.foreign, [{{:"$1", :"$2", :_, :_, :_, :"$3"}, [], [{{:"$1", :"$2", :"$3"}}]}])

    %{
      peers: for({realm, _tag, _session, info} <- :ets.tab2list(instance.sessions), into: %{}, do: {realm, info}),
      engines: for({full_name, pid, info} <- engines, into: %{}, do: {full_name, Map.put(info, :pid, pid)})
    }
  end

  def notify(event, state) do
    Subscribers.tell(state.subscribers, event)
    Telemetry.execute(telemetry(event), %{count: 1}, metadata(event, state))
    state
  end

  defp telemetry({:peer_up, _, _}), do: [:legation, :peer, :up]
  defp telemetry({:peer_down, _, _}), do: [:legation, :peer, :down]
  defp telemetry({:peer_lost, _, _}), do: [:legation, :peer, :lost]
  defp telemetry({:peer_resumed, _, _}), do: [:legation, :peer, :resumed]
  defp telemetry({:gap, _, _}), do: [:legation, :peer, :gap]
  defp telemetry({:unproven, _, _, _}), do: [:legation, :peer, :unproven]
  defp telemetry({:engine_learned, _, _}), do: [:legation, :engine, :learned]
  defp telemetry({:engine_forgotten, _, _}), do: [:legation, :engine, :forgotten]

  defp metadata({up, realm, info}, state) when up in [:peer_up, :peer_resumed],
    do: %{instance: state.name, realm: realm, profile: info.profile, role: info.role}

  defp metadata({down, realm, reason}, state) when down in [:peer_down, :peer_lost],
    do: %{instance: state.name, realm: realm, reason: reason}

  defp metadata({:gap, realm, lost}, state), do: %{instance: state.name, realm: realm, messages: lost}

  defp metadata({:unproven, realm, first, last}, state),
    do: %{instance: state.name, realm: realm, first: first, last: last}

  defp metadata({:engine_learned, name, info}, state), do: %{instance: state.name, engine: name, info: info}
  defp metadata({:engine_forgotten, name, reason}, state), do: %{instance: state.name, engine: name, reason: reason}
end
