defmodule Alice.Desk do
  @moduledoc "Takes questions and passes them to the clerk, who answers when it gets to it."

  use GenServer

  def start_link(_opts), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @impl true
  def init(nil), do: {:ok, nil}

  @impl true
  def handle_call({:ask, question}, from, state) do
    GenServer.cast(Alice.Clerk, {:question, question, from})
    {:noreply, state}
  end
end
