defmodule Legation.Directory.Events do
  @moduledoc false
  # What subscribers and telemetry are told of peers and engines. Part of the Directory, in its process: that is what puts
  # all of it into one order, with a snapshot at its beginning.

  alias Legation.Directory.Subscribers
  alias Legation.Telemetry

  @doc "How it is now, for a new subscriber."
  def snapshot(%{instance: instance} = state) do
    engines = :ets.select(instance.foreign, [{{:"$1", :"$2", :_, :_, :_, :"$3"}, [], [{{:"$1", :"$2", :"$3"}}]}])

    %{
      peers: for({_tag, link} <- state.links, into: %{}, do: {link.realm, link.status}),
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
  defp telemetry({:engine_learned, _, _}), do: [:legation, :engine, :learned]
  defp telemetry({:engine_forgotten, _, _}), do: [:legation, :engine, :forgotten]

  defp metadata({:peer_up, realm, info}, state),
    do: %{instance: state.name, realm: realm, profile: info.profile, role: info.role}

  defp metadata({:peer_down, realm, reason}, state), do: %{instance: state.name, realm: realm, reason: reason}
  defp metadata({:engine_learned, name, info}, state), do: %{instance: state.name, engine: name, info: info}
  defp metadata({:engine_forgotten, name, reason}, state), do: %{instance: state.name, engine: name, reason: reason}
end
