defmodule Legation.Directory.Foreign do
  @moduledoc false
  # Engines of others: a proxy for each, from the moment a session learns it until it is forgotten or the session ends.
  # Part of the Directory, in its process and on its state.

  alias Legation.{GlobalNames, Handle, Native, Proxy, ProxySupervisor}
  alias Legation.Directory.{Announcement, Events}

  @doc "A run of news of one kind, in the order in which they came."
  def take([{:learn, _, _} | _] = learns, %{tag: tag} = session, %{instance: instance} = state) do
    # Of an engine announced twice in one read the later counts.
    {known, new} =
      learns
      |> Enum.reverse()
      |> Enum.uniq_by(fn {:learn, engine, _info} -> engine end)
      |> Enum.reverse()
      |> Enum.map(fn {:learn, engine, info} -> {engine, %{info | ops: Announcement.operations(info.ops)}} end)
      |> Enum.split_with(fn {engine, _info} -> :ets.member(instance.foreign, engine <> "@" <> session.realm) end)

    for {engine, info} <- known, do: :ets.update_element(instance.foreign, engine <> "@" <> session.realm, {6, info})

    proxies = start_proxies(Enum.map(new, &elem(&1, 0)), session, state)

    new
    |> Enum.zip(proxies)
    |> Enum.reduce(state, fn {{engine, info}, {pid, counts}}, state ->
      full_name = engine <> "@" <> session.realm
      :ets.insert(instance.foreign, {full_name, pid, session.realm, engine, counts, info})
      GlobalNames.learned(state.name, full_name, pid)
      state = Events.notify({:engine_learned, full_name, Map.put(info, :pid, pid)}, state)
      %{state | proxies: Map.put(state.proxies, pid, full_name)}
    end)
    |> update_in([:sessions, tag, :engines], fn engines -> Enum.into(new, engines, &elem(&1, 0)) end)
  end

  def take([{:forget, _, _} | _] = forgets, %{tag: tag} = session, state) do
    Enum.reduce(forgets, state, fn {:forget, engine, {reason, exit_reason}}, state ->
      state = drop(engine, session, exit_reason, reason, state)
      update_in(state, [:sessions, tag, :engines], &MapSet.delete(&1, engine))
    end)
  end

  def drop(engine, session, exit_reason, reason, %{instance: instance} = state) do
    full_name = engine <> "@" <> session.realm

    case :ets.take(instance.foreign, full_name) do
      [{_full_name, pid, _realm, _engine, _counts, _info}] ->
        Proxy.stop(pid, instance.ref, exit_reason)
        Native.session_unbind(session.session, Handle.raw(pid))
        GlobalNames.drop(state.name, full_name, pid)
        Events.notify({:engine_forgotten, full_name, reason}, %{state | proxies: Map.delete(state.proxies, pid)})

      [] ->
        state
    end
  end

  # Somebody killed it. The engine is still there, so a new proxy takes its place.
  def replace_proxy(pid, %{instance: instance} = state) do
    with {full_name, proxies} when full_name != nil <- Map.pop(state.proxies, pid),
         [{_full_name, ^pid, realm, engine, _counts, info}] <- :ets.lookup(instance.foreign, full_name),
         %{^realm => tag} <- state.current,
         %{^tag => session} <- state.sessions do
      Native.session_unbind(session.session, Handle.raw(pid))
      [{new, counts}] = start_proxies([engine], session, state)
      :ets.insert(instance.foreign, {full_name, new, realm, engine, counts, info})
      GlobalNames.drop(state.name, full_name, pid)
      GlobalNames.learned(state.name, full_name, new)
      %{state | proxies: Map.put(proxies, new, full_name)}
    else
      _stopped_by_us -> %{state | proxies: Map.delete(state.proxies, pid)}
    end
  end

  # What the session has already is not copied to the supervisor with each of them.
  defp start_proxies(engines, session, state),
    do: ProxySupervisor.start_proxies(state.name, Map.delete(session, :engines), engines)
end
