defmodule Alice.Guestbook do
  @moduledoc "Whatever is cast to it stands in it."

  use GenServer

  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init(entries), do: {:ok, entries}

  @impl true
  def handle_call(:read, _from, entries), do: {:reply, Enum.reverse(entries), entries}

  @impl true
  def handle_cast(entry, entries), do: {:noreply, [entry | entries]}
end
