defmodule Legation.Cable do
  @moduledoc """
  The cable between two realms: a proxy for TCP connections on this machine, in the test's VM, that a test can cut, stall and slow down.

      address = listen(alice, :tcp_tls)
      {cable, address} = Cable.between(address)         # {:tcp, host: "127.0.0.1", port: cable.port}
      :ok = Legation.connect(peer("alice", connect: [address]), bob)
      Cable.await_connected(cable)
      Cable.cut(cable)

  or, with a cable that is there before it leads anywhere, `cable = Cable.start()` and
  `Legation.Case.link(alice, bob, :tcp_tls, through: cable)`.

  It takes any number of connections, one behind the other or at once, and what is done to the cable is done to all of them.

  | | what both ends see |
  |---|---|
  | `cut/1` | all connections close, at once (FIN; RST where an end had not read everything); new ones are taken |
  | `cut/2` with `:down` | the same, and new ones are closed (RST) until `mend/1` |
  | `reset/1` | RST both ways; new ones are taken |
  | `stall/2` | nothing passes any more, in one or both directions, not even an end; until `go_on/1`. Half-open: the kernel takes what fits, and nobody answers |
  | `slow/2` | so many bytes per second and direction and connection |
  | `cut_after/3` | passes exactly so many more bytes in one direction, then cuts |

  When a function has returned it has happened: not one byte passes a stalled cable afterwards. Who started the cable is told
  `{:cable, pid, :connected}` for each connection that is through to the listener, and `{:cable, pid, :disconnected}` for each
  that has ended; see `await_connected/1`. It ends with who started it.

  Directions are `:to_listener` (from who dialled) and `:to_dialler`.
  """

  use GenServer

  alias Legation.Cable.Strand

  @enforce_keys [:pid, :port]
  defstruct [:pid, :port]

  @type t :: %__MODULE__{pid: pid, port: :inet.port_number()}
  @type direction :: :to_listener | :to_dialler

  # Generous, and never waited for in full: what is waited for is a message.
  @patience_ms 10_000
  @directions [:to_listener, :to_dialler]
  @loopback {127, 0, 0, 1}

  ## In the test

  @doc "A cable to a port of this machine; without one, to be laid by `lead/2` before the first connection."
  @spec start(:inet.port_number() | nil) :: t
  def start(to_port \\ nil) do
    {:ok, pid} = GenServer.start_link(__MODULE__, {self(), to_port})
    %__MODULE__{pid: pid, port: GenServer.call(pid, :port)}
  end

  @doc "From what `Legation.Case.listen/2` returns for a carrier over tcp: a cable to there, and what is dialled in its place."
  @spec between({:tcp, keyword}) :: {t, {:tcp, keyword}}
  def between({:tcp, opts}) do
    cable = start(opts[:port])
    {cable, address(cable, {:tcp, opts})}
  end

  @doc "Where the cable leads, for connections to come. Returns what is dialled in place of the address."
  @spec lead(t, {:tcp, keyword}) :: {:tcp, keyword}
  def lead(cable, {:tcp, opts} = address) do
    :ok = GenServer.call(cable.pid, {:lead, opts[:port]})
    address(cable, address)
  end

  defp address(cable, {:tcp, opts}), do: {:tcp, Keyword.merge(opts, host: "127.0.0.1", port: cable.port)}

  @doc "Waits for a connection that this was not yet said of. Those that come and go are counted one by one."
  @spec await_connected(t) :: :ok
  def await_connected(cable), do: await(cable, :connected)

  @doc "Waits for the end of a connection, whoever ended it."
  @spec await_disconnected(t) :: :ok
  def await_disconnected(cable), do: await(cable, :disconnected)

  defp await(%{pid: pid}, what) do
    receive do
      {:cable, ^pid, ^what} -> :ok
    after
      @patience_ms -> ExUnit.Assertions.flunk("the cable has seen no connection #{what}; #{inspect(info(pid))}")
    end
  end

  defp info(pid), do: GenServer.call(pid, :info)

  @doc "How many connections there are."
  @spec connections(t) :: non_neg_integer
  def connections(cable), do: info(cable.pid).connections

  @doc "Bytes that have passed since the cable began, of all connections: `%{to_listener: 17, to_dialler: 4}`."
  @spec passed(t) :: %{direction => non_neg_integer}
  def passed(cable), do: info(cable.pid).passed

  @doc "Closes all connections. `:down`: and new ones until `mend/1`. Returns how many there were."
  @spec cut(t, :up | :down) :: non_neg_integer
  def cut(cable, then \\ :up) when then in [:up, :down], do: GenServer.call(cable.pid, {:cut, then, :close})

  @doc "Resets all connections, as `cut/2` closes them."
  @spec reset(t, :up | :down) :: non_neg_integer
  def reset(cable, then \\ :up) when then in [:up, :down], do: GenServer.call(cable.pid, {:cut, then, :reset})

  @doc "Takes connections again."
  @spec mend(t) :: :ok
  def mend(cable), do: GenServer.call(cable.pid, :mend)

  @doc "Nothing passes any more, in both directions or one; new connections are stalled, too."
  @spec stall(t, :both | direction) :: :ok
  def stall(cable, direction \\ :both), do: set(cable, direction, :stalled, true)

  @doc "What was stalled passes, what waited first."
  @spec go_on(t, :both | direction) :: :ok
  def go_on(cable, direction \\ :both), do: set(cable, direction, :stalled, false)

  @doc "Bytes per second, `:infinity` at first."
  @spec slow(t, pos_integer | :infinity, :both | direction) :: :ok
  def slow(cable, rate, direction \\ :both), do: set(cable, direction, :rate, rate)

  @doc """
  Passes so many more bytes in a direction, not one more if there is one connection, then cuts. `{:cable, pid, :cut}` tells when
  it has; new connections are taken unless `:down` is given.
  """
  @spec cut_after(t, direction, pos_integer, :up | :down) :: :ok
  def cut_after(cable, direction, bytes, then \\ :up) when direction in @directions and bytes > 0,
    do: GenServer.call(cable.pid, {:cut_after, direction, bytes, then})

  @doc "Waits for the cut of `cut_after/4`."
  @spec await_cut(t) :: :ok
  def await_cut(cable), do: await(cable, :cut)

  @doc "Ends the cable before its test does."
  @spec stop(t) :: :ok
  def stop(cable), do: GenServer.stop(cable.pid)

  defp set(cable, :both, key, value), do: GenServer.call(cable.pid, {:set, @directions, key, value})
  defp set(cable, direction, key, value), do: GenServer.call(cable.pid, {:set, [direction], key, value})

  ## The process
  # Each connection is a Strand, a process of its own that never blocks, so it does at once what it is told.
  # strands: pid => whether it is through to the listener.   passed: a `:counters` with an index for each direction.
  # settings: for each direction; `left` is there, an `:atomics`, while something is to be cut after so many bytes.

  @impl true
  def init({owner, to_port}) do
    Process.flag(:trap_exit, true)
    {:ok, listener} = :socket.open(:inet, :stream, :tcp)
    # What the kernel would take in our place is no part of the cable: a slow one has to be slow from its beginning.
    :ok = :socket.setopt(listener, {:socket, :rcvbuf}, 65_536)
    :ok = :socket.bind(listener, %{family: :inet, addr: @loopback, port: 0})
    :ok = :socket.listen(listener, 128)
    {:ok, %{port: port}} = :socket.sockname(listener)

    state = %{
      owner: owner,
      listener: listener,
      port: port,
      to: to_port,
      accepts: true,
      strands: %{},
      settings: Map.new(@directions, &{&1, %{stalled: false, rate: :infinity}}),
      passed: :counters.new(2, []),
      # Set by `cut_after`: what happens when a strand says that its bytes have passed.
      then: :up
    }

    {:ok, accept(state)}
  end

  @impl true
  def handle_call(:port, _from, state), do: {:reply, state.port, state}
  def handle_call({:lead, port}, _from, state), do: {:reply, :ok, %{state | to: port}}

  def handle_call(:info, _from, state) do
    passed =
      for {direction, index} <- Enum.with_index(@directions, 1),
          into: %{},
          do: {direction, :counters.get(state.passed, index)}

    {:reply, %{connections: length(connected(state)), passed: passed, accepts: state.accepts}, state}
  end

  def handle_call({:cut, then, how}, _from, state) do
    {count, state} = cut(how, then, state)
    {:reply, count, state}
  end

  def handle_call(:mend, _from, state), do: {:reply, :ok, %{state | accepts: true}}

  def handle_call({:set, directions, key, value}, _from, state) do
    settings = Enum.reduce(directions, state.settings, &put_in(&2, [&1, key], value))
    for {strand, _connected} <- state.strands, do: Strand.tell(strand, {:set, settings})
    {:reply, :ok, %{state | settings: settings}}
  end

  def handle_call({:cut_after, direction, bytes, then}, _from, state) do
    left = :atomics.new(1, signed: true)
    :atomics.put(left, 1, bytes)
    settings = put_in(state.settings, [direction, :left], left)
    for {strand, _connected} <- state.strands, do: Strand.tell(strand, {:set, settings})
    {:reply, :ok, %{state | settings: settings, then: then}}
  end

  @impl true
  def handle_info({:"$socket", listener, :select, _ref}, %{listener: listener} = state), do: {:noreply, accept(state)}

  def handle_info({:connected, strand}, state) do
    if is_map_key(state.strands, strand) do
      send(state.owner, {:cable, self(), :connected})
      {:noreply, put_in(state.strands[strand], true)}
    else
      {:noreply, state}
    end
  end

  # The bytes of `cut_after` have passed.
  def handle_info({:spent, _strand}, state) do
    if Enum.any?(state.settings, fn {_direction, setting} -> setting[:left] end) do
      settings = Map.new(state.settings, fn {direction, setting} -> {direction, Map.delete(setting, :left)} end)
      {_count, state} = cut(:close, state.then, %{state | settings: settings})
      send(state.owner, {:cable, self(), :cut})
      {:noreply, state}
    else
      {:noreply, state}
    end
  end

  def handle_info({:EXIT, strand, reason}, state) do
    cond do
      not is_map_key(state.strands, strand) -> {:noreply, state}
      reason == :normal -> {:noreply, gone(strand, state)}
      true -> {:stop, {:strand, reason}, state}
    end
  end

  def handle_info(_abort_of_a_closed_socket, state), do: {:noreply, state}

  # The listener is closed while we are alive: OTP 25 was seen to hang where the owner of a socket ended just as it was closed.
  @impl true
  def terminate(_reason, state) do
    for {strand, _connected} <- state.strands, do: Process.exit(strand, :kill)
    :socket.close(state.listener)
  end

  defp accept(state) do
    case :socket.accept(state.listener, :nowait) do
      {:ok, socket} -> socket |> take(state) |> accept()
      {:select, _info} -> state
      # The dialler was gone before we came to it.
      {:error, _gone} -> accept(state)
    end
  end

  defp take(socket, %{accepts: true} = state) do
    {:ok, strand} = Strand.start_link({self(), socket, {@loopback, state.to}, state.settings, state.passed})
    # It goes with its strand, which may have closed it already.
    :socket.setopt(socket, {:otp, :controlling_process}, strand)
    put_in(state.strands[strand], false)
  end

  defp take(socket, state) do
    Strand.close(socket, :reset)
    state
  end

  defp cut(how, then, state) do
    for {strand, _connected} <- state.strands, do: Strand.tell(strand, {:end, how})
    count = length(connected(state))
    {count, Enum.reduce(Map.keys(state.strands), %{state | accepts: then == :up}, &gone/2)}
  end

  defp connected(state), do: for({strand, true} <- state.strands, do: strand)

  defp gone(strand, state) do
    {connected, strands} = Map.pop!(state.strands, strand)
    if connected, do: send(state.owner, {:cable, self(), :disconnected})
    %{state | strands: strands}
  end
end

defmodule Legation.Cable.Strand do
  @moduledoc false
  # One connection of a Legation.Cable: two sockets, and for each direction what was read and not yet written. It waits for
  # its sockets by select messages alone. A direction that is stalled isn't read, so its sender's window fills in the end.
  #
  #   dialler ──► in.to_listener ──► held ──► out.to_listener ──► listener

  use GenServer

  # Small enough that a rate is felt as one, and that the other direction has its turn.
  @chunk_bytes 65_536
  @slices_per_s 50

  def start_link(args), do: GenServer.start_link(__MODULE__, args)

  # It may be ending by itself.
  def tell(strand, what) do
    GenServer.call(strand, what)
  catch
    :exit, _gone -> :ok
  end

  def close(socket, how) do
    if how == :reset, do: :socket.setopt(socket, {:socket, :linger}, %{onoff: true, linger: 0})
    :socket.close(socket)
  end

  @impl true
  def init({cable, dialler, to, settings, passed}) do
    {:ok, %{cable: cable, dialler: dialler, passed: passed, settings: settings, directions: %{}}, {:continue, to}}
  end

  @impl true
  def handle_continue({ip, port}, state) do
    {:ok, listener} = :socket.open(:inet, :stream, :tcp)

    case :socket.connect(listener, %{family: :inet, addr: ip, port: port}, 5_000) do
      :ok ->
        for socket <- [state.dialler, listener], do: :ok = :socket.setopt(socket, {:tcp, :nodelay}, true)
        send(state.cable, {:connected, self()})
        {:noreply, start(listener, state)}

      {:error, _nobody_there} ->
        close(state.dialler, :reset)
        close(listener, :reset)
        {:stop, :normal, state}
    end
  end

  defp start(listener, %{dialler: dialler} = state) do
    ways = [{:to_listener, 1, dialler, listener}, {:to_dialler, 2, listener, dialler}]

    directions =
      for {name, index, from, to} <- ways, into: %{} do
        send(self(), {:go, name})

        # waits: for the socket to read or to write on, for a timer (of `rate`), or for nothing any more, as its end was passed on
        {name, %{index: index, from: from, to: to, held: "", ended: false, waits: nil}}
      end

    %{state | directions: directions}
  end

  @impl true
  def handle_call({:set, settings}, _from, state) do
    for name <- Map.keys(state.directions), do: send(self(), {:go, name})
    {:reply, :ok, %{state | settings: settings}}
  end

  def handle_call({:end, how}, _from, state) do
    end_all(how, state)
    {:stop, :normal, :ok, state}
  end

  @impl true
  def handle_info({:"$socket", _socket, :select, ref}, state) do
    case Enum.find(state.directions, fn {_name, direction} -> direction.waits == {:select, ref} end) do
      {name, _direction} -> name |> ready(state) |> go(name)
      nil -> {:noreply, state}
    end
  end

  def handle_info({:timeout, timer, name}, state) do
    if state.directions[name].waits == {:timer, timer}, do: name |> ready(state) |> go(name), else: {:noreply, state}
  end

  def handle_info({:go, name}, state), do: go(state, name)
  def handle_info(_abort, state), do: {:noreply, state}

  defp ready(name, state), do: put_in(state.directions[name].waits, nil)

  # One step of a direction, if it can take one.
  defp go(state, name) do
    direction = state.directions[name]
    setting = state.settings[name]

    cond do
      setting.stalled or direction.waits != nil -> {:noreply, state}
      direction.held != "" -> write(direction, setting, name, state)
      direction.ended -> pass_end(direction, name, state)
      true -> read(direction, name, state)
    end
  end

  defp read(direction, name, state) do
    case :socket.recv(direction.from, 0, [], :nowait) do
      {:ok, bytes} -> again(%{direction | held: bytes}, name, state)
      {:select, {:select_info, _what, ref}} -> wait(direction, {:select, ref}, name, state)
      {:error, :closed} -> again(%{direction | ended: true}, name, state)
      {:error, _reset} -> finish(state)
    end
  end

  defp write(direction, setting, name, state) do
    case budget(byte_size(direction.held), setting) do
      0 ->
        # To be cut, which the cable does; until then nothing passes.
        send(state.cable, {:spent, self()})
        wait(direction, :cut, name, state)

      bytes ->
        <<chunk::binary-size(bytes), rest::binary>> = direction.held

        case :socket.send(direction.to, chunk, [], :nowait) do
          :ok ->
            sent(bytes, rest, nil, direction, name, state)

          {:ok, left} ->
            sent(bytes - byte_size(left), left <> rest, nil, direction, name, state)

          {:select, {{:select_info, _what, ref}, left}} ->
            sent(bytes - byte_size(left), left <> rest, ref, direction, name, state)

          {:select, {:select_info, _what, ref}} ->
            sent(0, direction.held, ref, direction, name, state)

          {:error, _closed} ->
            finish(state)
        end
    end
  end

  defp budget(held, setting) do
    per_slice = if setting.rate == :infinity, do: @chunk_bytes, else: max(div(setting.rate, @slices_per_s), 1)
    left = if setting[:left], do: max(:atomics.get(setting.left, 1), 0), else: held
    held |> min(@chunk_bytes) |> min(per_slice) |> min(left)
  end

  defp sent(bytes, held, ref, direction, name, state) do
    setting = state.settings[name]
    :counters.add(state.passed, direction.index, bytes)
    direction = %{direction | held: held}
    spent = setting[:left] != nil and :atomics.sub_get(setting.left, 1, bytes) <= 0

    cond do
      # At once, not when more comes.
      spent ->
        send(state.cable, {:spent, self()})
        wait(direction, :cut, name, state)

      ref != nil ->
        wait(direction, {:select, ref}, name, state)

      setting.rate != :infinity ->
        timer = :erlang.start_timer(max(div(bytes * 1_000, setting.rate), 1), self(), name)
        wait(direction, {:timer, timer}, name, state)

      true ->
        again(direction, name, state)
    end
  end

  # By a message, so that the other direction and the cable have their turn.
  defp again(direction, name, state) do
    send(self(), {:go, name})
    {:noreply, put_in(state.directions[name], direction)}
  end

  defp wait(direction, what, name, state), do: {:noreply, put_in(state.directions[name], %{direction | waits: what})}

  # The other direction goes on: closing it, too, would be a reset for whoever still says something, and take along what is on its way there.
  defp pass_end(direction, name, state) do
    :socket.shutdown(direction.to, :write)
    ended? = Enum.all?(state.directions, fn {other, %{waits: waits}} -> other == name or waits == :ended end)
    if ended?, do: finish(state), else: wait(direction, :ended, name, state)
  end

  defp finish(state) do
    end_all(:close, state)
    {:stop, :normal, state}
  end

  defp end_all(how, state) do
    close(state.dialler, how)
    with %{to_listener: %{to: listener}} <- state.directions, do: close(listener, how)
  end
end
