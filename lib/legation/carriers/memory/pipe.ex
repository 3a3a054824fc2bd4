defmodule Legation.Carriers.Memory.Pipe do
  @moduledoc false
  # One connection: two directions, each a bounded queue with the bytes' due times. Keeps to what a socket does: order,
  # what was sent before a close still arrives, an owner that dies closes its end.

  use GenServer

  # What one direction holds before its sender waits.
  @buffer_bytes 256 * 1024

  def start(dialler, settings), do: GenServer.start(__MODULE__, {dialler, settings})

  def set(pipe, settings), do: send(pipe, {:set, settings})

  # Until it returns the owners have been told.
  def cut(pipe), do: call(pipe, :cut)

  def own(pipe, side, pid), do: call(pipe, {:own, side, pid})
  def activate(pipe, side, count), do: call(pipe, {:activate, side, count})
  def close(pipe, side), do: call(pipe, {:close, side})
  def send_bytes(pipe, side, bytes, timeout_ms), do: call(pipe, {:send, side, bytes}, timeout_ms)

  defp call(pipe, request, timeout_ms \\ :infinity) do
    GenServer.call(pipe, request, timeout_ms)
  catch
    :exit, {:timeout, _call} -> {:error, :timeout}
    :exit, _gone -> {:error, :closed}
  end

  # An end: its owner, how many messages it takes yet, what is on its way to it, and who waits to send more.
  defmodule End do
    @moduledoc false
    defstruct [:owner, :monitor, :timer, active: 0, queue: :queue.new(), bytes: 0, blocked: :queue.new(), open: true]
  end

  @impl true
  def init({dialler, settings}) do
    Process.group_leader(self(), Process.whereis(:init))
    {:ok, %{settings: settings, dialler: own_end(%End{}, dialler), listener: %End{}}}
  end

  defp own_end(%End{} = at, pid) do
    if at.monitor, do: Process.demonitor(at.monitor, [:flush])
    %{at | owner: pid, monitor: Process.monitor(pid)}
  end

  @impl true
  def handle_call(:cut, _from, state), do: {:stop, :normal, :ok, tell_broken(state)}

  def handle_call(request, from, state) do
    side = elem(request, 1)

    if Map.fetch!(state, side).open,
      do: handle(request, from, state),
      else: {:reply, {:error, :closed}, state}
  end

  defp handle({:own, side, pid}, _from, state),
    do: {:reply, :ok, deliver(Map.update!(state, side, &own_end(&1, pid)), side), {:continue, :end?}}

  defp handle({:activate, side, count}, _from, state),
    do: {:reply, :ok, deliver(Map.update!(state, side, &%{&1 | active: &1.active + count}), side), {:continue, :end?}}

  defp handle({:send, side, bytes}, from, state) do
    to = other(side)
    at = Map.fetch!(state, to)

    cond do
      not at.open -> {:reply, {:error, :closed}, state}
      at.bytes < @buffer_bytes -> {:reply, :ok, state |> put(to, bytes) |> deliver(to)}
      true -> {:noreply, Map.put(state, to, %{at | blocked: :queue.in({from, bytes}, at.blocked)})}
    end
  end

  defp handle({:close, side}, _from, state), do: {:reply, :ok, close_end(state, side), {:continue, :end?}}

  @impl true
  def handle_continue(:end?, %{dialler: %{open: false}, listener: %{open: false}} = state), do: {:stop, :normal, state}
  def handle_continue(:end?, state), do: {:noreply, state}

  @impl true
  def handle_info({:set, settings}, state),
    do: {:noreply, %{state | settings: settings} |> deliver(:dialler) |> deliver(:listener), {:continue, :end?}}

  def handle_info({:timeout, timer, side}, state) do
    case Map.fetch!(state, side) do
      %{timer: ^timer} = at -> {:noreply, deliver(Map.put(state, side, %{at | timer: nil}), side), {:continue, :end?}}
      _cancelled -> {:noreply, state}
    end
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    case Enum.find([:dialler, :listener], &(Map.fetch!(state, &1).monitor == monitor)) do
      nil -> {:noreply, state}
      side -> {:noreply, close_end(state, side), {:continue, :end?}}
    end
  end

  # A tap that fails, a mistake of the test's.
  @impl true
  def terminate(:normal, _state), do: :ok
  def terminate(_reason, state), do: tell_broken(state)

  defp put(state, to, bytes) do
    case tapped(state.settings[:tap], to, bytes) do
      "" -> state
      bytes -> enqueue(state, to, bytes)
    end
  end

  defp tapped(nil, _to, bytes), do: bytes

  defp tapped(tap, to, bytes) do
    case tap.(if(to == :listener, do: :to_listener, else: :to_dialler), bytes) do
      nil -> ""
      altered -> IO.iodata_to_binary(altered)
    end
  end

  defp enqueue(state, to, item) do
    due_ms = now_ms() + Map.get(state.settings, :delay_ms, 0)
    Map.update!(state, to, &%{&1 | queue: :queue.in({due_ms, item}, &1.queue), bytes: &1.bytes + size(item)})
  end

  defp size(:closed), do: 0
  defp size(bytes), do: byte_size(bytes)

  defp deliver(%{settings: %{stall: true}} = state, _side), do: state

  defp deliver(state, side) do
    at = Map.fetch!(state, side)

    if at.open and at.active > 0 and at.owner != nil,
      do: deliver(:queue.peek(at.queue), at, side, state),
      else: state
  end

  defp deliver(:empty, _at, _side, state), do: state

  defp deliver({:value, {due_ms, item}}, at, side, state) do
    wait_ms = due_ms - now_ms()

    cond do
      wait_ms > 0 and at.timer != nil -> state
      wait_ms > 0 -> Map.put(state, side, %{at | timer: :erlang.start_timer(wait_ms, self(), side)})
      item == :closed -> Map.put(state, side, tell(%{at | open: false}, side, :closed))
      true -> state |> Map.put(side, deliver_bytes(item, at, side)) |> unblock(side) |> deliver(side)
    end
  end

  defp deliver_bytes(bytes, at, side) do
    tell(at, side, {:data, bytes})
    if at.active == 1, do: tell(at, side, :passive)
    %{at | active: at.active - 1, queue: :queue.drop(at.queue), bytes: at.bytes - byte_size(bytes)}
  end

  # Those who wait longest first.
  defp unblock(state, side) do
    at = Map.fetch!(state, side)

    with true <- at.bytes < @buffer_bytes,
         {{:value, {from, bytes}}, blocked} <- :queue.out(at.blocked) do
      GenServer.reply(from, :ok)
      state |> Map.put(side, %{at | blocked: blocked}) |> put(side, bytes) |> unblock(side)
    else
      _no_room_or_nobody -> state
    end
  end

  # What it had sent goes on its way, and then the news.
  defp close_end(state, side) do
    state = state |> refuse_blocked(side) |> refuse_blocked(other(side))
    state = Map.update!(state, side, &%{&1 | open: false, queue: :queue.new()})
    state |> enqueue(other(side), :closed) |> deliver(other(side))
  end

  defp refuse_blocked(state, to) do
    at = Map.fetch!(state, to)
    for {from, _bytes} <- :queue.to_list(at.blocked), do: GenServer.reply(from, {:error, :closed})
    Map.put(state, to, %{at | blocked: :queue.new()})
  end

  defp tell_broken(state) do
    for side <- [:dialler, :listener], at = Map.fetch!(state, side), at.open, at.owner != nil do
      tell(at, side, {:error, :econnreset})
    end

    state |> refuse_blocked(:dialler) |> refuse_blocked(:listener)
  end

  defp tell(at, side, event) do
    send(at.owner, {:memory, self(), side, event})
    at
  end

  defp other(:dialler), do: :listener
  defp other(:listener), do: :dialler

  defp now_ms, do: System.monotonic_time(:millisecond)
end
