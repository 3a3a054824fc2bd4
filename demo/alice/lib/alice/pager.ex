defmodule Alice.Pager do
  @moduledoc "Pages whoever asks for it, by the pid that it is given, and watches that pid until it ends."

  use GenServer

  def start_link(_opts), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Of the pids that it has paged, those that have ended, with the reason; the last one first."
  def ended, do: GenServer.call(__MODULE__, :ended)

  @impl true
  def init(nil), do: {:ok, %{paged: %{}, ended: []}}

  @impl true
  def handle_call(:number, _from, state), do: {:reply, map_size(state.paged), state}
  def handle_call(:ended, _from, state), do: {:reply, state.ended, state}

  @impl true
  def handle_cast({:page, pid, ref}, state) do
    send(pid, {:paged, ref, self()})
    {:noreply, put_in(state.paged[Process.monitor(pid)], pid)}
  end

  @impl true
  def handle_info({:DOWN, monitor, :process, pid, reason}, state) do
    {^pid, paged} = Map.pop!(state.paged, monitor)
    {:noreply, %{state | paged: paged, ended: [{pid, reason} | state.ended]}}
  end
end
