defmodule Legation.Carriers.Memory.Hub do
  @moduledoc false
  # Who listens under which name in this VM, and what was set for a name. Started by whoever needs it first; it belongs
  # to nobody, so that names reach across instances and tests.

  use GenServer

  alias Legation.Carriers.Memory.Pipe

  @backlog_max 1_024

  def call(request) do
    GenServer.call(server(), request, :infinity)
  end

  defp server do
    with nil <- Process.whereis(__MODULE__) do
      case GenServer.start(__MODULE__, nil, name: __MODULE__) do
        {:ok, pid} -> pid
        {:error, {:already_started, pid}} -> pid
      end
    end
  end

  # listeners: ref => %{name, owner's monitor, backlog: pipes, waiting: acceptors}. names: name => ref.
  # pipes: monitor => {name, pid}. settings: name => what Pipe takes.
  @impl true
  def init(nil) do
    # Not of the test that happened to come first.
    Process.group_leader(self(), Process.whereis(:init))
    {:ok, %{listeners: %{}, names: %{}, pipes: %{}, settings: %{}}}
  end

  @impl true
  def handle_call({:listen, name, _settings}, _from, state) when is_map_key(state.names, name),
    do: {:reply, {:error, :eaddrinuse}, state}

  def handle_call({:listen, name, settings}, {owner, _tag}, state) do
    ref = Process.monitor(owner)
    listener = %{name: name, backlog: :queue.new(), waiting: :queue.new()}

    state = %{
      state
      | listeners: Map.put(state.listeners, ref, listener),
        names: Map.put(state.names, name, ref)
    }

    {:reply, {:ok, ref}, set(state, name, settings)}
  end

  def handle_call({:close, ref}, _from, state) do
    Process.demonitor(ref, [:flush])
    {:reply, :ok, close(state, ref)}
  end

  def handle_call({:connect, name, settings}, {dialler, _tag}, state) do
    with {:ok, ref} <- Map.fetch(state.names, name),
         listener = Map.fetch!(state.listeners, ref),
         true <- :queue.len(listener.backlog) < @backlog_max do
      state = set(state, name, settings)
      {:ok, pipe} = Pipe.start(dialler, Map.get(state.settings, name, %{}))
      listener = pair(%{listener | backlog: :queue.in(pipe, listener.backlog)})
      pipes = Map.put(state.pipes, Process.monitor(pipe), {name, pipe})
      {:reply, {:ok, pipe}, %{state | listeners: Map.put(state.listeners, ref, listener), pipes: pipes}}
    else
      _nobody_listens_or_full -> {:reply, {:error, :econnrefused}, state}
    end
  end

  def handle_call({:accept, ref, timeout_ms}, {acceptor, _tag} = from, state) do
    case state.listeners do
      %{^ref => listener} ->
        if timeout_ms != :infinity, do: Process.send_after(self(), {:accept_timeout, ref, from}, timeout_ms)
        monitor = Process.monitor(acceptor)
        listener = pair(%{listener | waiting: :queue.in({from, monitor}, listener.waiting)})
        {:noreply, put_in(state.listeners[ref], listener)}

      _closed ->
        {:reply, {:error, :closed}, state}
    end
  end

  def handle_call({:set, name, settings}, _from, state), do: {:reply, :ok, set(state, name, settings)}
  def handle_call({:pipes, name}, _from, state), do: {:reply, pipes(state, name), state}

  @impl true
  def handle_info({:accept_timeout, ref, from}, state) do
    case state.listeners do
      %{^ref => listener} ->
        # Not there any more if it has got a connection.
        if :queue.any(fn {waiting, _monitor} -> waiting == from end, listener.waiting),
          do: GenServer.reply(from, {:error, :timeout})

        {:noreply, put_in(state.listeners[ref], stop_waiting(listener, fn {waiting, _} -> waiting == from end))}

      _closed ->
        {:noreply, state}
    end
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) when is_map_key(state.listeners, monitor),
    do: {:noreply, close(state, monitor)}

  # A pipe, or somebody who waited in accept.
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    listeners =
      Map.new(state.listeners, fn {ref, listener} ->
        {ref, stop_waiting(listener, fn {_from, waiting} -> waiting == monitor end)}
      end)

    {:noreply, %{state | pipes: Map.delete(state.pipes, monitor), listeners: listeners}}
  end

  defp pair(listener) do
    with {{:value, pipe}, backlog} <- :queue.out(listener.backlog),
         {{:value, {from, monitor}}, waiting} <- :queue.out(listener.waiting) do
      Process.demonitor(monitor, [:flush])
      GenServer.reply(from, {:ok, pipe})
      pair(%{listener | backlog: backlog, waiting: waiting})
    else
      _somebody_waits -> listener
    end
  end

  defp stop_waiting(listener, who?),
    do: %{listener | waiting: :queue.filter(fn waiting -> not who?.(waiting) end, listener.waiting)}

  defp close(state, ref) do
    case Map.pop(state.listeners, ref) do
      {nil, _listeners} ->
        state

      {listener, listeners} ->
        for {from, monitor} <- :queue.to_list(listener.waiting) do
          Process.demonitor(monitor, [:flush])
          GenServer.reply(from, {:error, :closed})
        end

        Enum.each(:queue.to_list(listener.backlog), &Pipe.cut/1)
        %{state | listeners: listeners, names: Map.delete(state.names, listener.name)}
    end
  end

  defp set(state, _name, settings) when settings == %{}, do: state

  defp set(state, name, settings) do
    settings = Map.merge(Map.get(state.settings, name, %{}), settings)
    Enum.each(pipes(state, name), &Pipe.set(&1, settings))
    put_in(state.settings[name], settings)
  end

  defp pipes(state, name), do: for({_monitor, {^name, pipe}} <- state.pipes, do: pipe)
end
