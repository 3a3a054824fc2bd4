defmodule Bench.Sockets do
  @moduledoc """
  What one would write oneself, for comparison. Two kinds:

    * `:raw` - `gen_tcp` and `term_to_binary`, a process at each end that owns the socket. Nothing else
    * `:naive` - Legation as one would first write it: a proxy for each engine, and every message numbered, signed and verified with
      Ed25519 by `:crypto`, one by one. Nothing is encrypted, bounded, resumed or watched
  """

  @active 100

  @enforce_keys [:socket, :own, :peer]
  defstruct [:socket, :own, :peer, sent: 0, received: 0]

  @doc "The keys of both ends, each with its own and the other's public one; `nil` for raw ones."
  def keys(:raw), do: {nil, nil}

  def keys(:naive) do
    [{a, a_private}, {b, b_private}] = for _ <- 1..2, do: :crypto.generate_key(:eddsa, :ed25519)
    {{a_private, b}, {b_private, a}}
  end

  @doc "Listens in this VM, whose engines are reached by the names that they are registered under. Returns the port."
  def listen(keys) do
    caller = self()

    spawn(fn ->
      {:ok, listener} = :gen_tcp.listen(0, [:binary, packet: 4, active: false, nodelay: true, ip: {127, 0, 0, 1}])
      {:ok, port} = :inet.port(listener)
      send(caller, {:listening, port})
      {:ok, socket} = :gen_tcp.accept(listener)
      link(socket, keys)
    end)

    receive do
      {:listening, port} -> port
    end
  end

  @doc "Dials. What is sent to the process `name` is for the engine `e1`; `proxies` names those for other engines."
  def connect(name, port, keys, proxies \\ []) do
    link =
      spawn(fn ->
        {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, packet: 4, active: false, nodelay: true])

        link(socket, keys)
      end)

    Process.register(link, name)
    for {proxy, engine} <- proxies, do: Process.register(spawn(fn -> proxy(link, engine) end), proxy)
    :ok
  end

  defp proxy(link, engine) do
    receive do
      message -> send(link, {:for, engine, message})
    end

    proxy(link, engine)
  end

  defp link(socket, keys) do
    {own, peer} = keys || {nil, nil}
    :ok = :inet.setopts(socket, active: @active)
    loop(%__MODULE__{socket: socket, own: own, peer: peer})
  end

  defp loop(%{socket: socket} = state) do
    receive do
      {:tcp, ^socket, bytes} -> state |> open(bytes) |> loop()
      {:for, engine, message} -> state |> seal({:for, engine, message}) |> loop()
      {{:remote, from}, reply} -> state |> seal({:back, from, reply}) |> loop()
      {:tcp_passive, ^socket} -> with :ok <- :inet.setopts(socket, active: @active), do: loop(state)
      {:tcp_closed, ^socket} -> :ok
      message -> state |> seal({:for, :e1, message}) |> loop()
    end
  end

  defp deliver({:for, engine, {:"$gen_call", from, request}}),
    do: send(engine, {:"$gen_call", {self(), {:remote, from}}, request})

  defp deliver({:for, engine, message}), do: send(engine, message)
  defp deliver({:back, from, reply}), do: GenServer.reply(from, reply)

  defp seal(%{own: nil} = state, term) do
    :ok = :gen_tcp.send(state.socket, :erlang.term_to_binary(term))
    state
  end

  defp seal(%{own: key, sent: sent} = state, term) do
    body = :erlang.term_to_binary({sent, term})
    :ok = :gen_tcp.send(state.socket, [:crypto.sign(:eddsa, :none, body, [key, :ed25519]), body])
    %{state | sent: sent + 1}
  end

  defp open(%{peer: nil} = state, bytes) do
    bytes |> :erlang.binary_to_term() |> deliver()
    state
  end

  defp open(%{peer: key, received: received} = state, <<signature::binary-size(64), body::binary>>) do
    true = :crypto.verify(:eddsa, :none, body, signature, [key, :ed25519])
    {^received, term} = :erlang.binary_to_term(body, [:safe])
    deliver(term)
    %{state | received: received + 1}
  end
end
