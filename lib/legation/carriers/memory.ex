defmodule Legation.Carriers.Memory do
  @moduledoc """
  The carrier `:memory`, for tests: a connection inside this VM that can be slow, stall, break, and be listened in on.

      listen: [memory: [name: :wire]]
      connect: [memory: [name: :wire]]

  A name is any term. What is set for one holds for the connections that were made under it and for those to come:

      Memory.set(:wire, delay_ms: 20)       each piece arrives so much later
      Memory.set(:wire, stall: true)        nothing arrives, and senders wait once 256 KiB are on their way
      Memory.set(:wire, stall: false)
      Memory.cut(:wire)                     all connections break, and both ends see it
      Memory.tap(:wire, fn direction, bytes -> bytes end)

  It keeps the order of bytes, as a carrier must, so nothing is reordered.
  """

  @behaviour Legation.Carrier

  alias Legation.Carriers.Memory.{Hub, Pipe}

  @send_timeout_ms 15_000

  @doc "Sets `delay_ms:` and `stall:` for a name. What isn't mentioned stays."
  @spec set(term, keyword) :: :ok
  def set(name, settings), do: Hub.call({:set, name, settings |> Keyword.validate!([:delay_ms, :stall]) |> Map.new()})

  @doc """
  Gives all that is sent to `fun.(direction, bytes)`, direction `:to_listener` or `:to_dialler`, and delivers what it
  returns: the same, other bytes, or `nil` for none. It runs in the connection's process. `nil` takes the function away.
  """
  @spec tap(term, (:to_listener | :to_dialler, binary -> iodata | nil) | nil) :: :ok
  def tap(name, fun) when fun == nil or is_function(fun, 2), do: Hub.call({:set, name, %{tap: fun}})

  @doc "Breaks all connections of a name: owners get an error, and what was on its way is lost. Returns how many there were."
  @spec cut(term) :: non_neg_integer
  def cut(name), do: {:pipes, name} |> Hub.call() |> Enum.map(&Pipe.cut/1) |> length()

  # A connection is {pipe, which end we are, send timeout}.

  @impl true
  def connect(opts, _timeout_ms) do
    with {:ok, pipe} <- Hub.call({:connect, opts[:name], settings(opts)}), do: {:ok, conn(pipe, :dialler, opts)}
  end

  @impl true
  def listen(opts) do
    with {:ok, ref} <- Hub.call({:listen, opts[:name], settings(opts)}), do: {:ok, {ref, opts}, [name: opts[:name]]}
  end

  defp settings(opts), do: opts |> Keyword.take([:delay_ms]) |> Map.new()
  defp conn(pipe, side, opts), do: {pipe, side, Keyword.get(opts, :send_timeout_ms, @send_timeout_ms)}

  @impl true
  def accept({ref, opts}, timeout_ms) do
    with {:ok, pipe} <- Hub.call({:accept, ref, timeout_ms}) do
      case Pipe.own(pipe, :listener, self()) do
        :ok -> {:ok, conn(pipe, :listener, opts)}
        {:error, :closed} -> {:error, :econnaborted}
      end
    end
  end

  @impl true
  def close_listener({ref, _opts}), do: Hub.call({:close, ref})

  @impl true
  def controlling_process({pipe, side, _timeout_ms}, pid), do: Pipe.own(pipe, side, pid)

  @impl true
  def activate({pipe, side, _timeout_ms}, count), do: Pipe.activate(pipe, side, count)

  @impl true
  def stream({pipe, side, _timeout_ms}, {:memory, pipe, side, event}), do: event
  def stream(_conn, _message), do: :unknown

  @impl true
  def send({pipe, side, timeout_ms} = conn, iodata) do
    with {:error, :timeout} <- Pipe.send_bytes(pipe, side, IO.iodata_to_binary(iodata), timeout_ms) do
      # Nobody knows how much of it has gone, so nothing may follow.
      close(conn)
      {:error, :timeout}
    end
  end

  @impl true
  def close({pipe, side, _timeout_ms}) do
    _closed_or_gone = Pipe.close(pipe, side)
    :ok
  end

  @impl true
  def peer_label(_conn), do: :memory

  @impl true
  def check_peer(_conn, _opts), do: :ok

  @impl true
  def default_profile, do: :local

  @impl true
  def knock?, do: false
end
