# Processes that tests publish: ordinary OTP processes, most of which have never heard of Legation. They stand here, and not in
# the tests, because Legation.TestVM runs them in other operating-system processes, too.

defmodule Legation.TestEngines.Counter do
  @moduledoc "A number: `:get`, `{:add, n}` as a cast, and any plain message counts one."
  use GenServer

  def start_link(n), do: GenServer.start_link(__MODULE__, n)

  @impl true
  def init(n), do: {:ok, n}
  @impl true
  def handle_call(:get, _from, n), do: {:reply, n, n}
  def handle_call({:add, k}, _from, n), do: {:reply, n + k, n + k}
  @impl true
  def handle_cast({:add, k}, n), do: {:noreply, n + k}
  @impl true
  def handle_info(_message, n), do: {:noreply, n + 1}
end

defmodule Legation.TestEngines.Echo do
  @moduledoc """
  Does what calls say, and tells `owner` what comes in.

    * `{:echo, term}` replies it
    * `:who` replies what `Legation.is_remote/1` and `Legation.sender/2` say of the caller
    * `{:hold, key}` keeps the caller waiting and tells `{:held, key, from}`; `{:release, key, reply}` answers it
    * `{:delegate, reply}` lets another process answer
    * `{:fresh_atom, name}` replies an atom that this VM alone has
    * `:own_pid` replies its pid, `:own_fun` what can't cross
    * `{:bytes, n}` replies so many
    * `{:exit, reason}` ends with it
    * `{:note, term}` replies `:ok`; its state's `log` has these, casts and messages, the last first
    * casts and other messages are told as `{:cast, term}` and `{:info, term}`
  """
  use GenServer
  require Legation

  def start_link(opts), do: GenServer.start_link(__MODULE__, opts, Keyword.take(opts, [:name]))
  def start(opts), do: GenServer.start(__MODULE__, opts, Keyword.take(opts, [:name]))

  @impl true
  def init(opts), do: {:ok, %{owner: opts[:owner], instance: opts[:instance], held: %{}, log: []}}

  @impl true
  def handle_call({:echo, term}, _from, state), do: {:reply, term, state}

  def handle_call(:who, from, state) when Legation.is_remote(from) do
    {:ok, sender} = Legation.sender(from, state.instance)
    {:reply, {:remote, sender}, state}
  end

  def handle_call(:who, _from, state), do: {:reply, :local, state}

  def handle_call({:hold, key}, from, state) do
    tell(state, {:held, key, from})
    {:noreply, %{state | held: Map.put(state.held, key, from)}}
  end

  def handle_call({:release, key, reply}, _from, state) do
    {from, held} = Map.pop!(state.held, key)
    GenServer.reply(from, reply)
    {:reply, :ok, %{state | held: held}}
  end

  def handle_call({:delegate, reply}, from, state) do
    spawn_link(fn -> GenServer.reply(from, reply) end)
    {:noreply, state}
  end

  # The test's own VM must not know it, so it comes as text.
  def handle_call({:fresh_atom, name}, _from, state), do: {:reply, String.to_atom(name), state}
  def handle_call(:own_pid, _from, state), do: {:reply, self(), state}
  def handle_call(:own_fun, _from, state), do: {:reply, fn -> :ok end, state}
  def handle_call({:bytes, n}, _from, state), do: {:reply, :binary.copy("x", n), state}
  def handle_call({:exit, reason}, _from, state), do: {:stop, reason, state}
  def handle_call({:note, term}, _from, state), do: {:reply, :ok, note(state, {:call, term})}

  @impl true
  def handle_cast({:exit, reason}, state), do: {:stop, reason, state}

  def handle_cast(message, state) do
    tell(state, {:cast, message})
    {:noreply, note(state, {:cast, message})}
  end

  @impl true
  def handle_info(message, state) do
    tell(state, {:info, message})
    {:noreply, note(state, {:info, message})}
  end

  defp note(state, entry), do: %{state | log: [entry | state.log]}
  defp tell(%{owner: nil}, _message), do: :ok
  defp tell(%{owner: owner}, message), do: send(owner, message)
end

defmodule Legation.TestEngines.Switch do
  @moduledoc "A `:gen_statem` that is on or off: `:state`, and `:flip` as a call or a cast."
  @behaviour :gen_statem

  def start_link(state), do: :gen_statem.start_link(__MODULE__, state, [])

  @impl true
  def callback_mode, do: :handle_event_function
  @impl true
  def init(state), do: {:ok, state, nil}

  @impl true
  def handle_event({:call, from}, :state, state, _data), do: {:keep_state_and_data, [{:reply, from, state}]}

  def handle_event({:call, from}, :flip, state, data),
    do: {:next_state, flip(state), data, [{:reply, from, flip(state)}]}

  def handle_event(:cast, :flip, state, data), do: {:next_state, flip(state), data}

  defp flip(:on), do: :off
  defp flip(:off), do: :on
end

defmodule Legation.TestEngines.Recorder do
  @moduledoc "A `:gen_event` handler that keeps its events: `:events`."
  @behaviour :gen_event

  @impl true
  def init(_args), do: {:ok, []}
  @impl true
  def handle_event(event, events), do: {:ok, [event | events]}
  @impl true
  def handle_call(:events, events), do: {:ok, Enum.reverse(events), events}
end

defmodule Legation.TestEngines.Pool do
  @moduledoc """
  Lends out numbers, as pools lend workers: `:checkout` replies one and monitors the borrower, `{:checkin, n}` takes it
  back, and so does the borrower's end, of which `owner` is told `{:returned, n, reason}`. `:free` replies what is left.
  """
  use GenServer

  def start_link({numbers, owner}), do: GenServer.start_link(__MODULE__, {numbers, owner})

  @impl true
  def init({numbers, owner}), do: {:ok, %{free: numbers, lent: %{}, owner: owner}}

  @impl true
  def handle_call(:checkout, {pid, _tag}, %{free: [number | free]} = state) do
    {:reply, number, %{state | free: free, lent: Map.put(state.lent, Process.monitor(pid), number)}}
  end

  def handle_call({:checkin, number}, _from, state) do
    {[{monitor, ^number}], lent} = Enum.split_with(state.lent, fn {_monitor, lent} -> lent == number end)
    Process.demonitor(monitor, [:flush])
    {:reply, :ok, %{state | free: [number | state.free], lent: Map.new(lent)}}
  end

  def handle_call(:free, _from, state), do: {:reply, state.free, state}

  @impl true
  def handle_info({:DOWN, monitor, :process, _pid, reason}, state) do
    {number, lent} = Map.pop!(state.lent, monitor)
    send(state.owner, {:returned, number, reason})
    {:noreply, %{state | free: [number | state.free], lent: lent}}
  end
end

defmodule Legation.TestEngines.Barrier do
  @moduledoc "Keeps all callers waiting until `count` of them are there, then answers each `{:echo, request}`, in random order."
  use GenServer

  def start_link(count), do: GenServer.start_link(__MODULE__, count)

  @impl true
  def init(count), do: {:ok, {count, []}}

  @impl true
  def handle_call(request, from, {1, held}) do
    for {from, request} <- Enum.shuffle([{from, request} | held]), do: GenServer.reply(from, {:echo, request})
    {:noreply, {1, []}}
  end

  def handle_call(request, from, {count, held}), do: {:noreply, {count - 1, [{from, request} | held]}}
end

defmodule Legation.TestEngines.Sequence do
  @moduledoc """
  Casts that are the next number are counted, from 0 on; any other is an error: `:taken` replies `{count, errors}`.
  `{:echo, term}` replies it.
  """
  use GenServer

  def start_link(_args), do: GenServer.start_link(__MODULE__, {0, []})

  @impl true
  def init(state), do: {:ok, state}
  @impl true
  def handle_call(:taken, _from, state), do: {:reply, state, state}
  def handle_call({:echo, term}, _from, state), do: {:reply, term, state}
  @impl true
  def handle_cast(n, {n, errors}), do: {:noreply, {n + 1, errors}}
  def handle_cast(n, {next, errors}), do: {:noreply, {next, [{n, next} | errors]}}
end
