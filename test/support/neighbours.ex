defmodule Legation.Neighbours do
  @moduledoc """
  An honest peer beside an attack: bob calls and casts to an engine of alice's throughout, and nothing of it may be lost, come twice, out
  of order or with another content. What memory the VM takes meanwhile is looked at again and again.

      neighbours = Neighbours.start(alice, bob)
      Neighbours.attacked(neighbours)                  from now on it is no longer quiet
      figures = Neighbours.pause(neighbours)           all has arrived, or the test fails
      Neighbours.go_on(neighbours)
  """

  use GenServer

  import ExUnit.Assertions
  import Legation.Case, only: [publish: 4, via: 2]

  defmodule Ledger do
    @moduledoc "Entries have to come in order, each once, as they were made; what does not is kept."
    use GenServer

    alias Legation.Neighbours

    def start_link(_args), do: GenServer.start_link(__MODULE__, nil)

    @impl true
    def init(_args), do: {:ok, {0, []}}
    @impl true
    def handle_call(:taken, _from, state), do: {:reply, state, state}

    def handle_call({:entry, number, _content} = entry, _from, state),
      do: {:reply, {:written, number}, take({:call, entry}, state)}

    @impl true
    def handle_cast(entry, state), do: {:noreply, take({:cast, entry}, state)}
    @impl true
    def handle_info(message, state), do: {:noreply, take({:info, message}, state)}

    defp take({kind, {:entry, next, content}} = entry, {next, wrong}) do
      if kind == Neighbours.kind(next) and content == Neighbours.content(next),
        do: {next + 1, wrong},
        else: {next + 1, [entry | wrong]}
    end

    defp take(entry, {next, wrong}), do: {next, [{:expected, next, entry} | wrong]}
  end

  @casts 5
  @pause_ms 3
  # How many calls are timed before anything else happens.
  @quiet_calls 40

  ## In the test

  @doc "Starts both ends. Returns when calls have been timed in quiet."
  def start(alice, bob) do
    ledger = ExUnit.Callbacks.start_supervised!(Ledger, id: make_ref())
    publish(alice, "ledger", ledger, [bob])
    pid = ExUnit.Callbacks.start_supervised!({__MODULE__, {via(bob, "ledger@alice"), ledger}}, id: make_ref())
    :ok = let_pass(pid, @quiet_calls)
    pid
  end

  def start_link(args), do: GenServer.start_link(__MODULE__, args)

  @doc "Returns when so many more calls have been answered."
  def let_pass(pid, calls), do: :ok = GenServer.call(pid, {:let_pass, calls}, 60_000)

  @doc "What each of the next so many calls takes, in µs."
  def sample(pid, calls), do: GenServer.call(pid, {:sample, calls}, 120_000)

  @doc "What is timed from now on is under attack."
  def attacked(pid), do: GenServer.cast(pid, :attacked)

  @doc "Stops sending; fails if anything has gone wrong. Returns figures since the last time."
  def pause(pid) do
    assert %{wrong: [], failed: []} = figures = GenServer.call(pid, :pause, 30_000)
    assert figures.taken == figures.sent
    figures
  end

  def go_on(pid), do: GenServer.cast(pid, :go_on)

  @doc "Of so many entries this many casts are followed by a call."
  def kind(number), do: if(rem(number, @casts + 1) == @casts, do: :call, else: :cast)

  @doc "What an entry holds: its own, and of other lengths."
  def content(number), do: :binary.copy(<<number::32>>, 1 + rem(number, 50))

  ## In its process

  @impl true
  def init({name, ledger}) do
    send(self(), :send)
    {:ok, reset(%{name: name, ledger: ledger, next: 0, failed: [], waiting: nil, sample: nil, sending: true})}
  end

  defp reset(state),
    do: Map.merge(state, %{phase: :quiet, quiet: [], attack: [], memory: :erlang.memory(:total), from: state.next})

  @impl true
  def handle_call({:let_pass, calls}, from, state), do: {:noreply, %{state | waiting: {from, calls}}}

  def handle_call({:sample, calls}, from, state), do: {:noreply, %{state | sample: {from, calls, []}}}

  def handle_call(:pause, _from, state) do
    {taken, wrong} = GenServer.call(state.ledger, :taken)

    figures = %{
      sent: state.next,
      taken: taken,
      wrong: Enum.reverse(wrong),
      failed: Enum.reverse(state.failed),
      deliveries: state.next - state.from,
      memory: state.memory,
      quiet_p99_us: p99(state.quiet),
      attack_p99_us: p99(state.attack)
    }

    {:reply, figures, %{reset(state) | sending: false}}
  end

  @impl true
  def handle_cast(:attacked, state), do: {:noreply, %{state | phase: :attack}}

  def handle_cast(:go_on, state) do
    unless state.sending, do: send(self(), :send)
    {:noreply, %{state | sending: true}}
  end

  @impl true
  def handle_info(:send, %{sending: false} = state), do: {:noreply, state}

  def handle_info(:send, %{next: next} = state) do
    for number <- next..(next + @casts - 1), do: GenServer.cast(state.name, {:entry, number, content(number)})
    number = next + @casts
    from = System.monotonic_time(:microsecond)
    state = call(number, state)
    took = System.monotonic_time(:microsecond) - from
    state = Map.update!(state, state.phase, &[took | &1])
    Process.send_after(self(), :send, @pause_ms)
    memory = max(state.memory, :erlang.memory(:total))
    {:noreply, %{state | next: number + 1, memory: memory} |> passed() |> sampled(took)}
  end

  defp sampled(%{sample: nil} = state, _took), do: state

  defp sampled(%{sample: {from, left, times}} = state, took) when left > 1,
    do: %{state | sample: {from, left - 1, [took | times]}}

  defp sampled(%{sample: {from, _last, times}} = state, took) do
    GenServer.reply(from, [took | times])
    %{state | sample: nil}
  end

  defp call(number, state) do
    case GenServer.call(state.name, {:entry, number, content(number)}, 30_000) do
      {:written, ^number} -> state
      other -> failed(state, other)
    end
  catch
    :exit, reason -> failed(state, reason)
  end

  # The first ones say it all.
  defp failed(state, reason), do: %{state | failed: Enum.take([reason | state.failed], -10)}

  defp passed(%{waiting: nil} = state), do: state
  defp passed(%{waiting: {from, left}} = state) when left > 1, do: %{state | waiting: {from, left - 1}}

  defp passed(%{waiting: {from, _last}} = state) do
    GenServer.reply(from, :ok)
    %{state | waiting: nil}
  end

  @doc "The value that 99 of 100 are not above; nil of none."
  def p99([]), do: nil
  def p99(values), do: values |> Enum.sort() |> Enum.at(div(length(values) * 99, 100))
end
