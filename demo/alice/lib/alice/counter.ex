defmodule Alice.Counter do
  @moduledoc "A number. It can be asked for, added to, and each plain `:tick` makes it one more."

  use GenServer

  def start_link(_opts), do: GenServer.start_link(__MODULE__, 5, name: __MODULE__)

  @impl true
  def init(number), do: {:ok, number}

  @impl true
  def handle_call(:get, _from, number), do: {:reply, number, number}

  @impl true
  def handle_cast({:add, more}, number), do: {:noreply, number + more}

  @impl true
  def handle_info(:tick, number), do: {:noreply, number + 1}
end
