defmodule Bob.Greeter do
  @moduledoc "Greets, and counts how often."

  use GenServer

  def start_link(_opts), do: GenServer.start_link(__MODULE__, 0, name: __MODULE__)

  @impl true
  def init(count), do: {:ok, count}

  @impl true
  def handle_call({:greet, name}, _from, count), do: {:reply, "Good morning, #{name}! (#{count + 1})", count + 1}
end
