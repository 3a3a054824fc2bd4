defmodule Legation.CNode.Gate do
  @moduledoc false
  # The door through which those messages of peers come that the daemon can't deliver by itself: it knows no filters, does
  # not see how full a mailbox is, and must not send an atom here that this VM doesn't know. It sends
  #
  #   {:legation_gate, id, target, kind, label, from, meta, payload}
  #
  #     target   pid or registered name of the engine
  #     kind     :call | :cast | :send
  #     label    of a call: 1 `$gen_call`, 2 `system`, 4 the caller's pid (gen_event); 5 a cast and 6 a plain message that are asked after
  #     from     of a call: {pid of the daemon's that stands for the caller, tag}
  #     meta     %{realm:, engine:, source:, op:}
  #     payload  external term format, scanned by the daemon: no identifiers, within the bounds
  #
  # and gets `{:gate, [{id, :ok | {:refuse, reason}}]}`. Counting, refusing and receipts are its own business again.
  #
  # Nothing is waited for but the user's filters. One process for all, so the order of messages is kept.

  use GenServer

  alias Legation.{Directory, Instance, Policy, Telemetry}
  alias Legation.CNode.Control

  # Verdicts that go in one message, at most.
  @batch_max 256

  def start_link(options), do: GenServer.start_link(__MODULE__, options, name: server(options.name))

  @doc "What a peer may do has changed: it is looked up again before its next message."
  def peer_changed(name, realm), do: GenServer.cast(server(name), {:peer_changed, realm})

  @doc "What the daemon is told to send messages to."
  def pid(name), do: Process.whereis(server(name))

  defp server(name), do: Instance.process(name, Gate)

  # policies: realm => compiled policy, as long as it holds.
  @impl true
  def init(options), do: {:ok, %{name: options.name, policies: %{}}}

  @impl true
  def handle_cast({:peer_changed, realm}, state), do: {:noreply, forget(realm, state)}

  @impl true
  def handle_info(message, state) when elem(message, 0) == :legation_gate do
    instance = Instance.fetch!(state.name)
    {verdict, state} = decide(message, instance, state)
    {verdicts, state} = more([verdict], 1, instance, state)
    Control.cast(instance, {:gate, verdicts})
    {:noreply, state}
  end

  def handle_info(_stray, state), do: {:noreply, state}

  # What else waits is dealt with before the daemon is told, in the order in which it came.
  defp more(verdicts, count, instance, state) when count < @batch_max do
    receive do
      message when elem(message, 0) == :legation_gate ->
        {verdict, state} = decide(message, instance, state)
        more([verdict | verdicts], count + 1, instance, state)

      {:"$gen_cast", {:peer_changed, realm}} ->
        more(verdicts, count, instance, forget(realm, state))
    after
      0 -> {Enum.reverse(verdicts), state}
    end
  end

  defp more(verdicts, _count, _instance, state), do: {Enum.reverse(verdicts), state}

  defp decide({:legation_gate, id, target, kind, label, from, meta, payload}, instance, state) do
    # A process that the peer was given has no name; filters see it as it is.
    meta = if meta.engine == "", do: %{meta | engine: target}, else: meta
    {policy, state} = policy(meta.realm, instance, state)

    with {:ok, pid} <- target(target),
         {:ok, term} <- decode(payload),
         :ok <- allowed(policy, meta, term),
         :ok <- room(pid, Instance.limit(instance, :engine_queue_max)) do
      send(pid, message(kind, label, from, term))
      {{id, :ok}, state}
    else
      {:refuse, reason} ->
        refused(kind, meta, reason, state)
        {{id, {:refuse, reason}}, state}
    end
  end

  defp forget(realm, state), do: %{state | policies: Map.delete(state.policies, realm)}

  defp policy(realm, instance, state) do
    case state.policies do
      %{^realm => policy} ->
        {policy, state}

      _not_yet ->
        policy =
          case :ets.lookup(instance.config, {:peer, realm}) do
            [{_key, peer, _state}] -> Policy.compile(peer)
            # Not on our list: somebody else has told the daemon of it, who has no filters.
            [] -> nil
          end

        {policy, %{state | policies: Map.put(state.policies, realm, policy)}}
    end
  end

  defp target(target) do
    case Directory.resolve(target) do
      nil -> {:refuse, :noproc}
      pid -> {:ok, pid}
    end
  end

  defp decode(payload) do
    {:ok, :erlang.binary_to_term(payload, [:safe])}
  rescue
    ArgumentError -> {:refuse, :undecodable}
  end

  defp allowed(nil, _meta, _term), do: :ok

  defp allowed(policy, meta, term) do
    message = fn -> meta |> Map.take([:realm, :engine, :source, :op]) |> Map.put(:message, term) end

    if is_pid(meta.engine),
      do: Policy.allowed_process(policy, meta.op, message),
      else: Policy.allowed(policy, meta.engine, meta.op, message)
  end

  defp room(_pid, :infinity), do: :ok
  # The length of a mailbox on another node isn't known here.
  defp room(pid, _max) when node(pid) != node(), do: :ok

  defp room(pid, max) do
    case Process.info(pid, :message_queue_len) do
      {:message_queue_len, length} when length < max -> :ok
      {:message_queue_len, _length} -> {:refuse, :overload}
      nil -> {:refuse, :noproc}
    end
  end

  defp message(:send, _label, _from, term), do: term
  defp message(:cast, _label, _from, term), do: {:"$gen_cast", term}
  defp message(:call, 1, from, term), do: {:"$gen_call", from, term}
  defp message(:call, 2, from, term), do: {:system, from, term}
  defp message(:call, 4, {stand_in, _tag} = from, term), do: {stand_in, from, term}
  defp message(:call, 5, _from, term), do: {:"$gen_cast", term}
  defp message(:call, 6, _from, term), do: term

  # The daemon counts and logs it.
  defp refused(:call, _meta, _reason, _state), do: :ok

  defp refused(kind, meta, reason, state) do
    Telemetry.execute([:legation, :message, :dropped], %{count: 1}, %{
      instance: state.name,
      direction: :in,
      realm: meta.realm,
      engine: meta.engine,
      kind: kind,
      reason: reason
    })
  end
end
