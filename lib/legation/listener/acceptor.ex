defmodule Legation.Listener.Acceptor do
  @moduledoc false
  # Waits in `accept`, so that the Listener needn't. Each connection becomes a Reader; what fails concerns that connection.
  # An error of `accept` itself (no file descriptors, say) is waited out: 50 ms at first, a second at most.

  alias Legation.{Connection, Instance, Telemetry}
  alias Legation.Connection.Reader

  # Once in a while by way of the newest code: one that waits for ever would hold on to what it was started with, and an
  # upgrade could not go on.
  @accept_ms 5_000
  @backoff_min_ms 50
  @backoff_max_ms 1_000

  def start_link(listener, name, carrier, socket, opts) do
    :proc_lib.spawn_link(__MODULE__, :loop, [
      %{listener: listener, name: name, carrier: carrier, socket: socket, opts: opts},
      @backoff_min_ms
    ])
  end

  def loop(%{carrier: carrier} = state, backoff_ms) do
    case carrier.accept(state.socket, @accept_ms) do
      {:ok, conn} ->
        accepted(conn, state)
        __MODULE__.loop(state, @backoff_min_ms)

      # It was gone before we took it; or nobody came.
      {:error, reason} when reason in [:econnaborted, :timeout] ->
        __MODULE__.loop(state, backoff_ms)

      {:error, :closed} ->
        exit({:shutdown, :closed})

      {:error, reason} ->
        Legation.Counters.add(Instance.fetch!(state.name).counters, :accept_errors)

        Telemetry.log(
          :error,
          {:accept, state.name},
          "a connection could not be accepted: #{Legation.Error.message(reason)}"
        )

        receive do
          # Nobody sends us anything; this is the timer.
        after
          backoff_ms -> __MODULE__.loop(state, min(backoff_ms * 2, @backoff_max_ms))
        end
    end
  end

  defp accepted(conn, %{carrier: carrier, listener: listener} = state) do
    address = address(carrier.peer_label(conn))

    with :ok <- GenServer.call(listener, {:admit, address}, :infinity),
         {:ok, reader} <- Connection.start(connection(state)),
         GenServer.cast(listener, {:opened, reader, address}),
         :ok <- carrier.controlling_process(conn, reader) do
      Reader.hand_over(reader, conn)
    else
      # It has gone already, or there is no place. A Reader that was started ends by itself.
      _refused -> carrier.close(conn)
    end
  end

  defp connection(state) do
    %Connection{
      name: state.name,
      role: :responder,
      carrier: state.carrier,
      opts: state.opts,
      tag: make_ref(),
      listener: state.listener
    }
  end

  # Places are given by address, whatever the port.
  defp address({ip, port}) when is_tuple(ip) and is_integer(port), do: ip
  defp address(label), do: label
end
