defmodule Alice.Ledger do
  @moduledoc "Numbered entries, and whether each came once and in its place."

  use GenServer

  def start_link(_opts), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "How many entries there are, how many of them were out of place, and how many questions were answered."
  def state, do: GenServer.call(__MODULE__, :state)

  @impl true
  def init(nil), do: {:ok, %{entries: 0, out_of_place: 0, questions: 0}}

  @impl true
  def handle_cast({:entry, number}, %{entries: entries} = state) do
    wrong = if number == entries + 1, do: 0, else: 1
    {:noreply, %{state | entries: entries + 1, out_of_place: state.out_of_place + wrong}}
  end

  @impl true
  def handle_call({:double, number}, _from, state), do: {:reply, 2 * number, %{state | questions: state.questions + 1}}
  def handle_call(:state, _from, state), do: {:reply, state, state}
end
