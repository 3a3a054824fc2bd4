defmodule Legation.Connection.Handles do
  @moduledoc false
  # Processes and references of a peer's, as they come: stand-ins for them, and payloads with local identifiers in the places
  # of handles. Runs in the Reader that has its turn, so one at a time for a session.
  #
  # A stand-in is made on demand, entered in the table of the instance when nothing can go wrong any more, and from then on
  # its Peer's (Legation.Peer.Callers).

  alias Legation.{Directory, Handle, Native, Policy, StandIn}

  @dirty_bytes 20_480
  # When the table is full so many go at once, as finding them costs a look at all.
  @collected_at_once 1_024

  @doc "A payload with handles: `{:ok, term}`, or why it is refused; then it is settled as well."
  @spec translate(map, binary) :: {:ok, term} | {:refuse, :overload | :undecodable}
  def translate(d, payload), do: translate(d, payload, &collect/1)

  defp translate(d, payload, make_room) do
    {numbers, engines, references, nobodies} = wanted(d.session, payload)
    made = for number <- numbers, do: {number, spawn_stand_in(d, number)}
    found = for name <- engines, pid = engine(d, name), do: {name, Handle.raw(pid)}
    # Engines that aren't there are nobody, too.
    nobodies = nobodies + length(engines) - length(found)

    locals = {
      for({number, pid} <- made, do: {number, Handle.raw(pid)}),
      found,
      for(_n <- 1..references//1, do: Handle.raw(make_ref())),
      for(_n <- 1..nobodies//1, do: nobody())
    }

    case do_translate(d.session, payload, locals) do
      :full ->
        for {_number, pid} <- made, do: StandIn.stop(pid, d.instance.ref, :normal)
        if make_room.(d), do: translate(d, payload, fn _d -> false end), else: full(d, payload)

      :undecodable ->
        for {number, pid} <- made, do: enter(d, number, pid)
        {:refuse, :undecodable}

      {_kind, _term} = translated ->
        for {number, pid} <- made, do: enter(d, number, pid)
        decode(translated)
    end
  end

  defp full(d, payload) do
    Native.session_discard(d.session, payload)
    {:refuse, :overload}
  end

  defp wanted(session, payload) when byte_size(payload) > @dirty_bytes,
    do: Native.session_wanted_dirty(session, payload)

  defp wanted(session, payload), do: Native.session_wanted(session, payload)

  defp do_translate(session, payload, locals) when byte_size(payload) > @dirty_bytes,
    do: Native.session_translate_dirty(session, payload, locals)

  defp do_translate(session, payload, locals), do: Native.session_translate(session, payload, locals)

  @doc "What came from the native library, decoded. `:safe` keeps it from making atoms; it was scanned before."
  def decode({:t, term}), do: {:ok, term}

  def decode({:b, binary}) do
    {:ok, :erlang.binary_to_term(binary, [:safe])}
  rescue
    ArgumentError -> {:refuse, :undecodable}
  end

  defp engine(%{instance: %{published: published}, policy: policy}, name) do
    with [{_name, target, to, _receipts}] <- :ets.lookup(published, name),
         true <- Policy.exported?(policy, name, to) do
      Directory.resolve(target)
    else
      _not_there -> nil
    end
  end

  # One that has ended by the time it is looked at.
  defp nobody, do: Handle.raw(spawn(fn -> :ok end))

  @doc "The stand-in of a process of the peer's: of a call's caller, or who an exit signal is from."
  @spec stand_in(map, pos_integer) :: {:ok, pid} | {:refuse, :overload}
  def stand_in(d, number), do: stand_in(d, number, &collect/1)

  defp stand_in(%{instance: instance, tag: tag} = d, number, make_room) do
    case :ets.lookup(instance.stand_ins, {tag, number}) do
      [{key, pid, _used}] ->
        :ets.update_element(instance.stand_ins, key, {3, System.monotonic_time(:millisecond)})
        {:ok, pid}

      [] ->
        pid = spawn_stand_in(d, number)

        case Native.session_bind_import(d.session, number, Handle.raw(pid)) do
          :ok ->
            enter(d, number, pid)
            {:ok, pid}

          :full ->
            StandIn.stop(pid, instance.ref, :normal)
            if make_room.(d), do: stand_in(d, number, fn _d -> false end), else: {:refuse, :overload}
        end
    end
  end

  defp spawn_stand_in(%{instance: instance} = d, number) do
    StandIn.spawn(%StandIn{
      ref: instance.ref,
      peer: d.peer,
      tag: d.tag,
      session: d.session,
      number: number,
      realm: d.realm,
      instance: instance.name,
      pids: instance.pids,
      table: instance.stand_ins,
      drops: instance.counters,
      reasons: d.reasons,
      idle_ms: instance.options.limits.handle_idle_ms
    })
  end

  defp enter(%{instance: instance, tag: tag, peer: peer}, number, pid) do
    :ets.insert(instance.stand_ins, {{tag, number}, pid, System.monotonic_time(:millisecond)})
    send(peer, {instance.ref, :stand_in, tag, pid, number})
    # With its Peer gone it may have ended before it had a row to withdraw.
    if not Process.alive?(pid), do: StandIn.withdraw(instance.stand_ins, tag, number, pid)
  end

  @doc "The remote process has ended. `term`: why, of a peer that tells more than the class."
  def ended(%{instance: instance, tag: tag} = d, number, reason, term) do
    reason = reason(d, reason, term)
    for {_key, pid, _used} <- :ets.take(instance.stand_ins, {tag, number}), do: StandIn.stop(pid, instance.ref, reason)
    Native.session_drop_import(d.session, number)
  end

  @doc "With which reason what stands for it exits."
  def reason(_d, reason, nil), do: Handle.exit_reason(reason)

  def reason(d, _reason, term) do
    case payload(d, term) do
      {:ok, reason} -> Handle.harmless(reason)
      {:refuse, _undecodable} -> {:remote_exit, :undecodable}
    end
  end

  @doc "Any payload of an event."
  def payload(d, {:h, payload}), do: translate(d, payload)
  def payload(_d, :undecodable), do: {:refuse, :undecodable}
  def payload(_d, payload), do: decode(payload)

  @doc "A payload that nobody gets."
  def discard(d, {:h, payload}), do: Native.session_discard(d.session, payload)
  def discard(_d, _payload), do: :ok

  # Those that were used last the longest ago, and that nobody has now. Whether there was one.
  defp collect(%{instance: instance, tag: tag} = d) do
    instance.stand_ins
    |> :ets.select([{{{tag, :"$1"}, :"$2", :"$3"}, [], [{{:"$3", :"$1", :"$2"}}]}])
    |> Enum.sort()
    |> Enum.take(@collected_at_once)
    |> Enum.count(fn {_used, number, pid} -> drop_idle(instance, d.session, d.peer, tag, number, pid) end)
    |> Kernel.>(0)
  end

  @doc "Forgets a process of the peer's that nobody here needs. Whether it has."
  def drop_idle(instance, session, peer, tag, number, pid) do
    with true <- StandIn.alone?(pid, peer),
         [{key, ^pid, _used} = row] <- :ets.lookup(instance.stand_ins, {tag, number}),
         # First the row: a call that comes once it is forgotten must not find what is about to end.
         1 <- :ets.select_delete(instance.stand_ins, [{{key, pid, :_}, [], [true]}]) do
      dropped? = Native.session_drop_import(session, number) == :dropped
      if dropped?, do: StandIn.stop(pid, instance.ref, :normal), else: put_back(instance, session, number, row)
      dropped?
    else
      # A call that came meanwhile has made another, and nobody has this one.
      [{_key, _another, _used}] ->
        StandIn.stop(pid, instance.ref, :normal)
        false

      _in_use_or_gone ->
        false
    end
  end

  # Something of it is on its way. If it has been killed its Peer did not find the row.
  defp put_back(instance, session, number, {key, pid, _used} = row) do
    cond do
      not :ets.insert_new(instance.stand_ins, row) ->
        StandIn.stop(pid, instance.ref, :normal)

      not Process.alive?(pid) ->
        :ets.select_delete(instance.stand_ins, [{{key, pid, :_}, [], [true]}])
        Native.session_abandon(session, number)

      true ->
        :ok
    end
  end
end
