defmodule Legation.CNode.Daemon do
  @moduledoc false
  # Owner of the daemon's process: starts it, gives it its configuration, waits for its ready line, hands its log on to Logger,
  # and starts it again when it ends.
  #
  #   us ── configuration, NUL ──► standard input       a second NUL: stop; its end: our VM is gone, stop
  #   us ◄── `legation ready NODE PORT` ── standard output
  #   us ◄── `LEVEL text` ── standard error
  #
  # The daemon watches its standard input, so it ends with this VM whatever happens to it. What it is told anew each time is in
  # the `config` table: who was connected and where it listened until now. What is published the Directory tells it.
  #
  # phase: :starting -> :ready, or :waiting for its next start.

  use GenServer

  alias Legation.{Backoff, Instance, Telemetry}
  alias Legation.CNode.{Config, Directory, KeyAgent, Listeners}

  # A line of the log that is longer comes in pieces.
  @line_bytes 4_096
  # For its end, beside what it has for goodbyes.
  @end_ms 1_000

  # What systemd is told is the business of the service, which is our VM's.
  @environment for name <- [~c"NOTIFY_SOCKET", ~c"WATCHDOG_USEC", ~c"WATCHDOG_PID"], do: {name, false}

  # Lines that are handed on, at most, and within what time. A daemon that logs more tells nothing new.
  @lines_max 1_000
  @lines_window_ms 10_000

  @levels %{"ERROR" => :error, "WARN" => :warning, "INFO" => :info, "DEBUG" => :debug, "TRACE" => :debug}

  # The configuration that it is given holds the cookie.
  @derive {Inspect, only: [:name, :phase, :os_pid]}
  @enforce_keys [:name, :options, :config, :backoff]
  defstruct [
    :name,
    :options,
    :config,
    :backoff,
    :port,
    :os_pid,
    :timer,
    :started_ms,
    # Where BEAM nodes dial it.
    :node_port,
    # The last error in its log, and how it ended.
    :said,
    :why,
    phase: :waiting,
    line: "",
    # Since when lines are counted, and how many there were.
    window_ms: nil,
    lines: 0,
    first?: true,
    # Whether it is to listen where it listened before, rather than where it was told to.
    bound?: true
  ]

  def start_link({options, config}),
    do: GenServer.start_link(__MODULE__, {options, config}, name: server(options.name))

  def child_spec({options, _config} = args) do
    %{
      id: __MODULE__,
      start: {__MODULE__, :start_link, [args]},
      # Its own goodbyes, ours to it, and then it is killed.
      shutdown: options.limits.shutdown_ms + 2 * @end_ms
    }
  end

  @doc "The Directory has a link to it, or has lost it."
  def linked(name), do: GenServer.cast(server(name), :linked)
  def unlinked(name), do: GenServer.cast(server(name), :unlinked)

  @doc "The number of its process, or nil."
  def os_pid(name), do: GenServer.call(server(name), :os_pid)

  defp server(name), do: Instance.process(name, Daemon)

  # The first time whoever starts the instance waits, and hears why it can't be.
  @impl true
  def init({options, config}) do
    Process.flag(:trap_exit, true)
    limits = options.limits

    state = %__MODULE__{
      name: options.name,
      options: options,
      config: config,
      backoff: Backoff.new(limits.reconnect_min_ms, limits.reconnect_max_ms)
    }

    if :ets.member(config, :daemon_started),
      do: {:ok, %{state | first?: false}, {:continue, :start}},
      else: first_start(state)
  end

  defp first_start(state) do
    with {:ok, state} <- state |> start() |> await_ready(),
         :ok <- await_link(state) do
      :ets.insert(state.config, {:daemon_started, true})
      {:ok, %{state | first?: false}}
    else
      {:error, reason} -> {:stop, {:shutdown, reason}}
    end
  end

  defp await_link(state) do
    with {:error, reason} <- Directory.daemon_ready(state.name, state.node_port) do
      stop(state)
      {:error, reason}
    end
  end

  # Its timer sees to it that this ends.
  defp await_ready(%{phase: :ready} = state), do: {:ok, state}
  defp await_ready(%{phase: :waiting} = state), do: {:error, {:daemon, state.why}}

  defp await_ready(%{phase: :starting, port: port, timer: timer} = state) do
    receive do
      {^port, message} -> message |> from_port(state) |> await_ready()
      {:EXIT, ^port, reason} -> state |> ended({:port, reason}) |> await_ready()
      {:timeout, ^timer, :ready} -> state |> ended(:timeout) |> await_ready()
    end
  end

  @impl true
  def handle_continue(:start, state), do: {:noreply, start(state)}

  @impl true
  def handle_call(:os_pid, _from, state), do: {:reply, state.os_pid, state}

  @impl true
  def handle_cast(:linked, %{phase: :ready} = state), do: {:noreply, cancel_timer(state)}

  # It runs and doesn't talk to us: it has as long as for its start. What hangs won't end by itself, either.
  def handle_cast(:unlinked, %{phase: :ready} = state), do: {:noreply, start_timer(:link, start_ms(state), state)}
  def handle_cast(_late, state), do: {:noreply, state}

  @impl true
  def handle_info({port, message}, %{port: port} = state) when port != nil do
    before = state.phase
    state = from_port(message, state)
    if before == :starting and state.phase == :ready, do: Directory.daemon_came_back(state.name, state.node_port)
    {:noreply, state}
  end

  def handle_info({:timeout, timer, :start}, %{timer: timer} = state), do: {:noreply, start(%{state | timer: nil})}
  def handle_info({:timeout, timer, _what}, %{timer: timer} = state), do: {:noreply, ended(state, :timeout)}
  # It takes nothing on its standard input any more.
  def handle_info({:EXIT, port, reason}, %{port: port} = state), do: {:noreply, ended(state, {:port, reason})}
  # Ports that have told how they ended; late timers.
  def handle_info(_stray, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state) do
    Directory.daemon_ended(state.name)
    stop(state)
  end

  ## Starting

  defp start(state) do
    state = %{state | started_ms: now_ms(), said: nil, why: nil, line: ""}

    port =
      Port.open({:spawn_executable, state.options.transport.binary}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        :hide,
        line: @line_bytes,
        args: ["run", "--config", "-", "--supervised"],
        env: @environment
      ])

    os_pid = with {:os_pid, os_pid} <- Port.info(port, :os_pid), do: os_pid
    Port.command(port, [configuration(state), 0])
    start_timer(:ready, start_ms(state), %{state | port: port, os_pid: os_pid, phase: :starting})
  rescue
    # It can't be run.
    error in ErlangError -> ended(state, {:program, state.options.transport.binary, error.original})
  end

  defp configuration(%{options: options, config: config} = state) do
    peers = for [peer] <- :ets.match(config, {{:peer, :_}, :"$1", :connected}), do: peer
    Config.encode(options, peers, Listeners.configured(config, state.bound?), KeyAgent.path(config))
  end

  ## What it says

  defp from_port({:data, {:noeol, part}}, state), do: %{state | line: part_of_line(state.line, part)}
  defp from_port({:data, {:eol, part}}, state), do: line(state.line <> part, %{state | line: ""})
  defp from_port({:exit_status, status}, state), do: ended(%{state | port: nil}, {:exit, status, state.said || ""})
  defp from_port(_other, state), do: state

  # Of a line without end the beginning is enough.
  defp part_of_line(line, part) when byte_size(line) < 4 * @line_bytes, do: line <> part
  defp part_of_line(line, _part), do: line

  defp line("legation ready " <> node_and_port = line, %{phase: :starting} = state) do
    with [_node, port] <- String.split(node_and_port, " "),
         {port, ""} <- Integer.parse(port) do
      cancel_timer(%{state | phase: :ready, bound?: true, node_port: port})
    else
      _no_port -> logged(line, state)
    end
  end

  defp line(line, state), do: logged(line, state)

  defp logged(line, state) do
    {level, text} = level(line)
    text = printable(text)
    state = counted(state)
    if state.lines <= @lines_max, do: Telemetry.pass_on(level, text)
    if level == :error, do: %{state | said: text}, else: state
  end

  defp counted(%{window_ms: since_ms, lines: lines} = state) do
    now_ms = now_ms()

    if since_ms != nil and now_ms - since_ms < @lines_window_ms do
      %{state | lines: lines + 1}
    else
      if lines > @lines_max, do: Telemetry.pass_on(:warning, "#{lines - @lines_max} lines of its log were left out")
      %{state | window_ms: now_ms, lines: 1}
    end
  end

  defp level(line) do
    with [word, text] <- String.split(line, " ", parts: 2),
         %{^word => level} <- @levels do
      {level, text}
    else
      # A panic's words, or those of the system's loader.
      _no_level -> {:error, line}
    end
  end

  # What peers have said may be in it.
  defp printable(text), do: if(String.printable?(text) and not (text =~ ~r/\p{Cc}/u), do: text, else: inspect(text))

  ## Its end

  # It is started again, unless somebody waits for its first start, who hears why there was none.
  defp ended(state, why) do
    kill(state)
    if state.phase == :ready, do: Directory.daemon_ended(state.name)

    state = %{
      cancel_timer(state)
      | phase: :waiting,
        port: nil,
        os_pid: nil,
        why: why,
        # Somebody else may have its ports by now, so each second time it listens where it was told to at first.
        bound?: state.phase == :ready or not state.bound?
    }

    if state.first?, do: state, else: start_again(state)
  end

  defp start_again(state) do
    Telemetry.log(
      :error,
      {:daemon_ended, state.name},
      fn -> Legation.Error.message({:daemon, state.why}) <> "; it is started again" end
    )

    # One that ends as soon as it is up must not be started at once each time.
    lasted_ms = now_ms() - state.started_ms
    backoff = if lasted_ms >= start_ms(state), do: Backoff.reset(state.backoff), else: state.backoff
    {delay_ms, backoff} = Backoff.next(backoff)
    start_timer(:start, delay_ms, %{state | backoff: backoff})
  end

  # A second NUL asks it to stop; we stay until it has, as the next one wants its node's name and its ports.
  defp stop(%{port: nil}), do: :ok

  defp stop(%{port: port} = state) do
    Port.command(port, <<0>>)
    timer = :erlang.start_timer(state.options.limits.shutdown_ms + @end_ms, self(), :stopped)
    await_end(%{state | timer: timer})
  rescue
    # It has ended.
    ArgumentError -> :ok
  end

  defp await_end(%{port: port, timer: timer} = state) do
    receive do
      {^port, {:exit_status, _status}} -> :ok
      {^port, message} -> message |> from_port(state) |> await_end()
      {:timeout, ^timer, :stopped} -> kill(state)
    end
  end

  # The end of its input is enough for one that is alive, and all that there is for one that has no number.
  defp kill(%{port: nil}), do: :ok

  defp kill(%{port: port, os_pid: os_pid}) do
    # Its number is its own as long as the port is open: nobody has waited for it yet.
    if os_pid && Port.info(port), do: System.cmd("kill", ["-KILL", Integer.to_string(os_pid)], stderr_to_stdout: true)
    Port.close(port)
  rescue
    # It is closed already; or there is no `kill`.
    ArgumentError -> :ok
    ErlangError -> :ok
  end

  ## Timers

  defp start_timer(what, ms, state), do: %{cancel_timer(state) | timer: :erlang.start_timer(ms, self(), what)}

  defp cancel_timer(%{timer: nil} = state), do: state

  defp cancel_timer(%{timer: timer} = state) do
    :erlang.cancel_timer(timer)
    %{state | timer: nil}
  end

  defp start_ms(state), do: state.options.transport.start_ms
  defp now_ms, do: System.monotonic_time(:millisecond)
end
