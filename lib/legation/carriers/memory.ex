defmodule Legation.Carriers.Memory do
  @moduledoc """
  A pipe inside one VM, for tests: bytes go from process to process, late, altered or not at all.

      listen: [memory: [name: :link]]                 connect: [memory: [name: :link]]

  `set/2` delays what is sent from then on, `tap/2` gives every piece to a function that returns what is delivered in
  its place, `cut/1` breaks all connections that were made under the name.
  """

  @behaviour Legation.Carrier
  use GenServer

  # What one direction holds before a sender waits, so that a reader that doesn't read is felt.
  @buffer_bytes 1024 * 1024
  @send_timeout_ms 15_000

  @doc "Options for connections of `name`: `delay_ms:`."
  def set(name, opts), do: :persistent_term.put({__MODULE__, name, :delay_ms}, Keyword.get(opts, :delay_ms, 0))

  @doc "`fun.(direction, bytes)` returns what is delivered; direction is `:to_listener` or `:to_dialler`. `nil` takes it away."
  def tap(name, fun), do: :persistent_term.put({__MODULE__, name, :tap}, fun)

  @doc "Breaks every connection under the name. Returns how many there were."
  def cut(name) do
    pipes = GenServer.call(listener_name(name), :pipes)
    Enum.each(pipes, &Kernel.send(&1, :cut))
    length(pipes)
  end

  ## Carrier

  @impl Legation.Carrier
  def listen(opts) do
    name = Keyword.fetch!(opts, :name)

    case GenServer.start_link(__MODULE__, {:listener, name}, name: listener_name(name)) do
      {:ok, listener} -> {:ok, listener, [name: name]}
      {:error, {:already_started, _pid}} -> {:error, :eaddrinuse}
    end
  end

  @impl Legation.Carrier
  def connect(opts, timeout_ms) do
    GenServer.call(listener_name(Keyword.fetch!(opts, :name)), {:connect, self()}, timeout_ms)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _reason -> {:error, :econnrefused}
  end

  @impl Legation.Carrier
  def accept(listener, timeout_ms) do
    GenServer.call(listener, :accept, timeout_ms)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _reason -> {:error, :closed}
  end

  @impl Legation.Carrier
  def close_listener(listener) do
    GenServer.stop(listener)
  catch
    :exit, _gone -> :ok
  end

  @impl Legation.Carrier
  def controlling_process({pipe, _side} = conn, pid), do: call(pipe, {:owner, conn, pid})
  @impl Legation.Carrier
  def activate({pipe, _side} = conn, count), do: call(pipe, {:activate, conn, count})
  @impl Legation.Carrier
  def send({pipe, _side} = conn, bytes), do: call(pipe, {:send, conn, IO.iodata_to_binary(bytes)}, @send_timeout_ms)

  @impl Legation.Carrier
  def close({pipe, side}) do
    Kernel.send(pipe, {:close, side})
    :ok
  end

  @impl Legation.Carrier
  def stream(conn, {:memory, conn, event}) do
    case event do
      bytes when is_binary(bytes) -> {:data, bytes}
      :passive -> :passive
      :closed -> :closed
    end
  end

  def stream(_conn, _message), do: :unknown

  @impl Legation.Carrier
  def peer_label(_conn), do: :memory
  @impl Legation.Carrier
  def check_peer(_conn, _opts), do: :ok
  @impl Legation.Carrier
  def default_profile, do: :local
  @impl Legation.Carrier
  def knock?, do: false

  defp call(pipe, request, timeout \\ 5_000) do
    GenServer.call(pipe, request, timeout)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _gone -> {:error, :closed}
  end

  defp listener_name(name),
    do: {:global_in_vm, name} |> :erlang.phash2(4_294_967_296) |> then(&:"legation_memory_#{&1}")

  ## Listener and pipe

  @impl GenServer
  def init({:listener, name}) do
    Process.flag(:trap_exit, true)
    {:ok, %{role: :listener, name: name, waiting: :queue.new(), accepting: :queue.new(), pipes: []}}
  end

  # sides: owner, how many messages it takes yet, what waits for it, the senders that wait for room.
  def init({:pipe, name, dialler}) do
    Process.monitor(dialler)
    side = fn owner -> %{owner: owner, active: 0, queue: :queue.new(), bytes: 0, blocked: [], closed: false} end
    {:ok, %{role: :pipe, name: name, sides: %{dialler: side.(dialler), listener: side.(nil)}}}
  end

  @impl GenServer
  def handle_call(:pipes, _from, state),
    do:
      {:reply, Enum.filter(state.pipes, &Process.alive?/1),
       %{state | pipes: Enum.filter(state.pipes, &Process.alive?/1)}}

  def handle_call({:connect, dialler}, from, %{role: :listener} = state) do
    {:ok, pipe} = GenServer.start(__MODULE__, {:pipe, state.name, dialler})
    GenServer.reply(from, {:ok, {pipe, :dialler}})
    {:noreply, pair(%{state | waiting: :queue.in(pipe, state.waiting), pipes: [pipe | state.pipes]})}
  end

  def handle_call(:accept, from, %{role: :listener} = state),
    do: {:noreply, pair(%{state | accepting: :queue.in(from, state.accepting)})}

  def handle_call({:owner, {_pipe, side}, pid}, _from, state) do
    Process.monitor(pid)
    {:reply, :ok, put_in(state.sides[side].owner, pid)}
  end

  def handle_call({:activate, {_pipe, side}, count}, _from, state),
    do: {:reply, :ok, deliver(update_in(state.sides[side].active, &(&1 + count)), side)}

  def handle_call({:send, {_pipe, side}, bytes}, from, state) do
    other = other(side)

    cond do
      state.sides[side].closed or state.sides[other].closed ->
        {:reply, {:error, :closed}, state}

      state.sides[other].bytes >= @buffer_bytes ->
        {:noreply, update_in(state.sides[other].blocked, &[{from, bytes} | &1])}

      true ->
        {:reply, :ok, put(state, other, bytes)}
    end
  end

  @impl GenServer
  def handle_info({:arrived, side, bytes}, state), do: {:noreply, state |> enqueue(side, bytes) |> deliver(side)}

  def handle_info({:close, side}, state),
    do: {:noreply, state |> enqueue(other(side), :closed) |> deliver(other(side)) |> stop_side(side)}

  def handle_info(:cut, state), do: {:stop, :normal, broken(state)}

  # An owner that dies closes its end, like a socket's.
  def handle_info({:DOWN, _monitor, :process, pid, _reason}, %{role: :pipe} = state) do
    case Enum.find(state.sides, fn {_side, %{owner: owner}} -> owner == pid end) do
      nil -> {:noreply, state}
      {side, _} -> handle_info({:close, side}, state)
    end
  end

  def handle_info({:EXIT, _pid, reason}, %{role: :listener} = state), do: {:stop, reason, state}
  def handle_info(_other, state), do: {:noreply, state}

  defp pair(state) do
    with {{:value, pipe}, waiting} <- :queue.out(state.waiting),
         {{:value, {acceptor, _tag} = from}, accepting} <- :queue.out(state.accepting) do
      call(pipe, {:owner, {pipe, :listener}, acceptor})
      GenServer.reply(from, {:ok, {pipe, :listener}})
      pair(%{state | waiting: waiting, accepting: accepting})
    else
      _nobody -> state
    end
  end

  defp put(state, side, bytes) do
    state = update_in(state.sides[side].bytes, &(&1 + byte_size(bytes)))
    tap = :persistent_term.get({__MODULE__, state.name, :tap}, nil)
    altered = if tap, do: tap.(if(side == :listener, do: :to_listener, else: :to_dialler), bytes), else: bytes

    case {altered, :persistent_term.get({__MODULE__, state.name, :delay_ms}, 0)} do
      {nil, _delay} ->
        update_in(state.sides[side].bytes, &(&1 - byte_size(bytes)))

      {altered, 0} ->
        state |> enqueue(side, {altered, byte_size(bytes)}) |> deliver(side)

      {altered, delay_ms} ->
        Process.send_after(self(), {:arrived, side, {altered, byte_size(bytes)}}, delay_ms)
        state
    end
  end

  defp enqueue(state, side, item), do: update_in(state.sides[side].queue, &:queue.in(item, &1))

  defp deliver(state, side) do
    %{owner: owner, active: active, queue: queue} = at = state.sides[side]

    case :queue.peek(queue) do
      {:value, :closed} when owner != nil ->
        Kernel.send(owner, {:memory, {self(), side}, :closed})
        put_in(state.sides[side].queue, :queue.new())

      {:value, {bytes, cost}} when active > 0 and owner != nil ->
        Kernel.send(owner, {:memory, {self(), side}, bytes})
        if active == 1, do: Kernel.send(owner, {:memory, {self(), side}, :passive})
        at = %{at | active: active - 1, queue: :queue.drop(queue), bytes: at.bytes - cost}
        put_in(state.sides[side], at) |> unblock(side) |> deliver(side)

      _nothing ->
        state
    end
  end

  # Senders that waited for room, the first first.
  defp unblock(state, side) do
    case Enum.reverse(state.sides[side].blocked) do
      [{from, bytes} | rest] when is_tuple(from) ->
        if state.sides[side].bytes < @buffer_bytes do
          GenServer.reply(from, :ok)
          put_in(state.sides[side].blocked, Enum.reverse(rest)) |> put(side, bytes)
        else
          state
        end

      [] ->
        state
    end
  end

  defp stop_side(state, side) do
    state = put_in(state.sides[side].closed, true)
    for {from, _bytes} <- state.sides[other(side)].blocked, do: GenServer.reply(from, {:error, :closed})
    state
  end

  defp broken(state) do
    for {side, %{owner: owner}} <- state.sides, owner != nil, do: Kernel.send(owner, {:memory, {self(), side}, :closed})
    state
  end

  defp other(:dialler), do: :listener
  defp other(:listener), do: :dialler
end
