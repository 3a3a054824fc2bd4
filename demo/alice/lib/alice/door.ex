defmodule Alice.Door do
  @moduledoc "Tells callers who they are, as its `from` says so; and calls on others."

  use GenServer

  def start_link(_opts), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Has the door call another process."
  def call(server, request), do: GenServer.call(__MODULE__, {:call, server, request})

  @impl true
  def init(nil), do: {:ok, nil}

  # The engine is "" when a process calls that isn't published.
  @impl true
  def handle_call(:who_am_i, {_pid, {:"$legation", _call, realm, engine}}, nil), do: {:reply, {realm, engine}, nil}
  def handle_call(:who_am_i, _from, nil), do: {:reply, :local, nil}
  def handle_call({:call, server, request}, _from, nil), do: {:reply, GenServer.call(server, request), nil}
end
