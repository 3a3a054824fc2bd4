defmodule Legation.Chaos.Load do
  @moduledoc """
  What runs in the VMs of `make chaos`: engines, senders that never rest, watchers of proxies, and the owner of the instance. Each writes
  down what it does before it does it and what it gets before it answers, in a `Legation.Chaos.Journal`.

  A realm has two nodes. The first has the instance; the second knows the peer's engines by their global names, and has its own published
  by the first. Started by `start/1` in the lasting process of a `Legation.TestVM`.
  """

  alias Legation.Chaos.Journal

  # Of ten messages the last is a call; so what is under way has a bound.
  @burst 10

  defstruct [:dir, :node, :life, :instance, :door, engines: [], targets: [], senders: 1, test: nil]

  @doc "What a number is: a call, or a cast or plain message. Who asks whether the queue has taken it only casts."
  def kind(sender, number) do
    case rem(number, @burst) do
      9 -> :call
      rest when rest in [3, 6] -> if String.ends_with?(sender, "accepted"), do: :cast, else: :send
      _rest -> :cast
    end
  end

  @doc "What a sender's message holds: its own alone, mostly short, now and then in fragments."
  def content(sender, number) do
    hash = :erlang.phash2({sender, number}, 4_294_967_296)

    copies =
      cond do
        rem(hash, 4_001) == 0 -> 40_000
        rem(hash, 211) == 0 -> 4_000
        true -> rem(hash, 60)
      end

    :binary.copy(<<hash::32, number::32>>, copies)
  end

  @doc "A proxy as journals name it: no other process has the same, on whatever node."
  def proxy_id(pid), do: pid |> :erlang.term_to_binary() |> :erlang.crc32() |> Integer.to_string(36)

  def start(%__MODULE__{} = config) do
    config = %{config | test: self()}
    engines = for name <- config.engines, do: {name, __MODULE__.Engine.start(config, name)}
    spawn_link(fn -> __MODULE__.Publisher.run(config, engines) end)
    if config.instance, do: spawn_link(fn -> __MODULE__.Owner.run(config) end)

    workers =
      for {target, at} <- Enum.with_index(config.targets), number <- 1..config.senders do
        way = way(config, number)
        id = "#{config.node}.#{config.life}.#{at}.#{number}.#{way}"
        spawn_link(fn -> __MODULE__.Sender.run(config, id, target, way) end)
      end

    watchers = for target <- config.targets, do: spawn_link(fn -> __MODULE__.Watcher.run(config, target) end)
    Process.put(__MODULE__, {workers, watchers, engines})
    :ok
  end

  defp way(%{instance: nil}, _number), do: :global
  defp way(_config, number), do: Enum.at([:accepted, :via, :pid], rem(number - 1, 3))

  @doc "Senders stop, each behind a call that was answered; the test is told `{:stopped, id}` by each. Returns how many there are."
  def stop_senders do
    {workers, _watchers, _engines} = Process.get(__MODULE__)
    for pid <- workers, do: send(pid, :stop)
    length(workers)
  end

  @doc "Each watcher says `{:stopped, id}` when what it watches has gone, for good."
  def stop_watchers do
    {_workers, watchers, _engines} = Process.get(__MODULE__)
    for pid <- watchers, do: send(pid, :stop)
    length(watchers)
  end

  @doc "All engines of this node are withdrawn, by their ends."
  def stop_engines do
    {_workers, _watchers, engines} = Process.get(__MODULE__)
    for {_name, pid} <- engines, do: Process.exit(pid, :kill)
    :ok
  end

  @doc "Where the peer's engine is reached at this moment, or nil."
  def whereis(%{instance: nil}, target) do
    with :undefined <- :global.whereis_name(target), do: nil
  end

  def whereis(%{instance: instance}, target), do: Legation.whereis(target, instance)

  @doc "Whether a call gets to an engine of the peer's and back; waits until one does. For the test."
  def probe(instance, target, deadline_us) do
    answer =
      try do
        GenServer.call({:via, Legation, {instance, target}}, :probe, 20_000)
      catch
        :exit, _reason -> :gone
      end

    cond do
      answer == :probed -> {:ok, Journal.now_us()}
      Journal.now_us() > deadline_us -> {:error, Legation.peers(instance)}
      true -> pause(5, fn -> probe(instance, target, deadline_us) end)
    end
  end

  @doc false
  def pause(ms, fun) do
    receive do
    after
      ms -> fun.()
    end
  end

  ## Called by the second node's publisher at the first

  @doc false
  def publish(instance, name, pid) do
    with {:error, {:already_published, ^pid}} <- Legation.publish(name, pid, [], instance), do: :ok
  end

  defmodule Publisher do
    @moduledoc "Has the node's engines published for as long as they live: the second node's, whenever the first is there again."
    alias Legation.Chaos.Load

    def run(config, engines), do: keep(config, engines)

    defp keep(%{instance: nil, door: door} = config, engines) do
      monitor = Process.monitor({Legation.Chaos.Door, door})
      instance = at_door(config, :instance, [])

      # One of an earlier life of ours may not be known to have gone.
      if instance && Enum.all?(engines, fn {name, pid} -> at_door(config, :publish, [instance, name, pid]) == :ok end) do
        await_gone(config, engines, monitor)
      else
        Process.demonitor(monitor, [:flush])
        Load.pause(20, fn -> keep(config, engines) end)
      end
    end

    defp keep(config, engines) do
      Process.register(self(), Legation.Chaos.Door)
      :persistent_term.put(Legation.Chaos.Door, config.instance)
      for {name, pid} <- engines, do: :ok = Load.publish(config.instance, name, pid)
      await_gone(config, engines, nil)
    end

    defp await_gone(config, engines, monitor) do
      receive do
        {:DOWN, ^monitor, :process, _door, _reason} -> keep(config, engines)
        _other -> await_gone(config, engines, monitor)
      end
    end

    defp at_door(%{door: door}, function, args) do
      :erpc.call(door, Load, function, args, 5_000)
    catch
      _class, _reason -> nil
    end
  end

  @doc false
  def instance, do: :persistent_term.get(Legation.Chaos.Door, nil)

  defmodule Engine do
    @moduledoc "Takes entries, looks at each, writes many at once, and answers calls behind that."
    use GenServer

    alias Legation.Chaos.{Journal, Load}

    @flush 200

    def start(config, name) do
      {:ok, pid} = GenServer.start_link(__MODULE__, {config, name})
      pid
    end

    @impl true
    def init({config, name}) do
      id = "#{config.node}.#{config.life}.#{name}"
      file = Journal.open(config.dir, :engine, id, "#{id} #{config.node} #{name} #{Journal.now_us()}")
      {:ok, %{file: file, name: name, runs: %{}, lines: [], calls: [], count: 0}}
    end

    @impl true
    def handle_call(:probe, _from, state), do: {:reply, :probed, state, 0}

    def handle_call(message, from, state), do: state |> take(:call, message, from) |> next()
    @impl true
    def handle_cast(message, state), do: state |> take(:cast, message, nil) |> next()
    @impl true
    def handle_info(:timeout, state), do: {:noreply, flush(state)}
    def handle_info(message, state), do: state |> take(:send, message, nil) |> next()

    defp next(%{count: count} = state) when count >= @flush, do: {:noreply, flush(state)}
    defp next(state), do: {:noreply, state, 0}

    defp take(%{name: name} = state, kind, {:load, sender, name, number, content} = message, from)
         when is_binary(sender) and is_integer(number) do
      if kind == Load.kind(sender, number) and content == Load.content(sender, number),
        do: run(state, sender, number, from),
        else: wrong(state, kind, message)
    end

    defp take(state, kind, message, _from), do: wrong(state, kind, message)

    defp run(state, sender, number, from) do
      {lines, run} =
        case state.runs do
          %{^sender => {first, last}} when number == last + 1 -> {state.lines, {first, number}}
          %{^sender => run} -> {[line(sender, run) | state.lines], {number, number}}
          _none -> {state.lines, {number, number}}
        end

      calls = if from, do: [{from, number} | state.calls], else: state.calls
      %{state | runs: Map.put(state.runs, sender, run), lines: lines, calls: calls, count: state.count + 1}
    end

    # Nothing is answered to it.
    defp wrong(state, kind, message) do
      text = inspect({kind, message}, limit: 20, printable_limit: 100)

      {sender, number} =
        case message do
          {:load, sender, _name, number, _content} when is_binary(sender) and is_integer(number) -> {sender, number}
          _other -> {"?", "?"}
        end

      %{
        state
        | lines: ["w #{sender} #{number} #{String.replace(text, ~r/\s+/, "_")}" | state.lines],
          count: state.count + 1
      }
    end

    defp flush(%{count: 0} = state), do: state

    defp flush(state) do
      last = for {sender, run} <- state.runs, do: line(sender, run)
      Journal.write(state.file, Enum.intersperse(Enum.reverse(state.lines, last), "\n"))

      for {{pid, _tag} = from, number} <- Enum.reverse(state.calls) do
        send(pid, {:told, state.name, number})
        GenServer.reply(from, {:taken, state.name, number})
      end

      %{state | runs: %{}, lines: [], calls: [], count: 0}
    end

    defp line(sender, {first, last}), do: "d #{sender} #{first} #{last}"
  end

  defmodule Sender do
    @moduledoc "Nine messages and a call, again and again, to one engine, until told to stop; then until a call has been answered."
    alias Legation.Chaos.{Journal, Load}

    @burst 10
    # One in so many calls has a time that may be too short.
    @timed 7
    @timeout_ms 1_000

    def run(config, id, target, way) do
      file = Journal.open(config.dir, :sender, id, "#{id} #{config.node} #{target} #{way}")
      engine = target |> String.split("@") |> hd()

      loop(%{
        config: config,
        id: id,
        target: target,
        engine: engine,
        way: way,
        file: file,
        next: 0,
        stop: false,
        pid: nil
      })
    end

    defp loop(state) do
      state = look(state, 0)

      case proxy(state) do
        nil ->
          state |> look(5) |> loop()

        pid ->
          {outcome, state} = burst(%{state | pid: pid})

          if state.stop and outcome == :ok do
            Journal.write(state.file, "end")
            send(state.config.test, {:stopped, state.id})
            after_end(state)
          else
            loop(state)
          end
      end
    end

    # `:pid` keeps to what it has until that has ended.
    defp proxy(%{way: :pid, pid: pid}) when pid != nil, do: pid
    defp proxy(%{config: config, target: target}), do: Load.whereis(config, target)

    defp burst(%{next: from, pid: pid} = state) do
      to = from + @burst - 1
      Journal.write(state.file, "b #{from} #{to} #{Load.proxy_id(pid)} #{Journal.now_us()}")

      case cast_all(state, from, to - 1) do
        :ok ->
          started = Journal.now_us()
          outcome = call(state, to)
          ms = div(Journal.now_us() - started, 1_000)
          now = with pid when is_pid(pid) <- Load.whereis(state.config, state.target), do: Load.proxy_id(pid)
          Journal.write(state.file, "r #{to} #{words(outcome)} #{now || "-"} #{ms}")
          pid = if outcome == :ok or outcome == :timeout, do: pid
          {outcome, look(%{state | next: to + 1, pid: pid}, 0)}

        # Nobody has taken the rest, and nobody was called.
        {:error, _reason} ->
          Journal.write(state.file, "g #{from}")
          {:error, %{state | next: to + 1, pid: nil}}
      end
    end

    defp cast_all(%{way: :accepted} = state, from, to) do
      %{config: %{instance: instance}, target: target, file: file} = state

      {accepted, result} =
        Enum.reduce_while(from..to, {from - 1, :ok}, fn number, {_last, :ok} ->
          message = message(state, number)

          sent = Legation.cast(target, message, block: 20_000, instance: instance)

          if sent == :ok, do: {:cont, {number, :ok}}, else: {:halt, {number - 1, sent}}
        end)

      if accepted >= from, do: Journal.write(file, "k #{from} #{accepted}")
      result
    end

    defp cast_all(state, from, to) do
      for number <- from..to do
        message = message(state, number)

        case {state.way, Load.kind(state.id, number)} do
          {:via, :cast} -> GenServer.cast(name(state), message)
          {_way, :cast} -> GenServer.cast(state.pid, message)
          {_way, :send} -> send(state.pid, message)
        end
      end

      :ok
    end

    defp name(%{config: %{instance: instance}, target: target}), do: {:via, Legation, {instance, target}}

    defp call(state, number) do
      timeout = if rem(div(number, @burst), @timed) == 0, do: @timeout_ms, else: :infinity
      to = if state.way == :via, do: name(state), else: state.pid

      case GenServer.call(to, message(state, number), timeout) do
        {:taken, engine, ^number} when engine == state.engine -> :ok
        {:error, {:legation, reason}} -> {:refused, reason}
        _other -> :wrong
      end
    catch
      :exit, {:timeout, _call} -> :timeout
      :exit, {{:nodedown, _node}, _call} -> {:exit, :nodedown}
      :exit, {reason, _call} -> {:exit, reason}
    end

    defp message(state, number), do: {:load, state.id, state.engine, number, Load.content(state.id, number)}

    defp words(outcome) when is_atom(outcome), do: Atom.to_string(outcome)
    defp words({what, reason}), do: "#{what}:#{reason |> inspect() |> String.replace(~r/\s+/, "_")}"

    # What there is in the mailbox: what the engine tells, and the word to stop.
    defp look(%{engine: engine, file: file} = state, wait_ms) do
      receive do
        {:told, ^engine, number} ->
          Journal.write(file, "e #{number}")
          look(state, 0)

        :stop ->
          look(%{state | stop: true}, 0)

        stray ->
          Journal.write(file, "x #{stray |> inspect(limit: 20) |> String.replace(~r/\s+/, "_")}")
          look(state, 0)
      after
        wait_ms -> state
      end
    end

    # What comes late is looked at, too.
    defp after_end(state), do: after_end(look(state, :infinity))
  end

  defmodule Watcher do
    @moduledoc "Monitors an engine's proxy, and the next one when that has ended; until the last has."
    alias Legation.Chaos.{Journal, Load}

    def run(config, target) do
      id = "#{config.node}.#{config.life}.#{target}"

      loop(%{
        config: config,
        target: target,
        id: id,
        file: Journal.open(config.dir, :watch, id, "#{id} #{config.node} #{target}"),
        seen: nil,
        ref: nil,
        stop: false,
        number: 0
      })
    end

    defp loop(%{ref: nil} = state) do
      case Load.whereis(state.config, state.target) do
        pid when is_pid(pid) and pid != state.seen ->
          number = state.number + 1
          Journal.write(state.file, "m #{number} #{Load.proxy_id(pid)}")
          loop(%{state | ref: Process.monitor(pid), seen: pid, number: number})

        _nobody_new ->
          if state.stop, do: stopped(state), else: state |> wait(10) |> loop()
      end
    end

    defp loop(state), do: state |> wait(:infinity) |> loop()

    defp stopped(state) do
      Journal.write(state.file, "end")
      send(state.config.test, {:stopped, state.id})
      # One that fires twice is seen by the line behind the end.
      wait(state, :infinity) |> stopped_for_good()
    end

    defp stopped_for_good(state), do: state |> wait(:infinity) |> stopped_for_good()

    defp wait(%{ref: ref} = state, ms) do
      receive do
        {:DOWN, ^ref, :process, _pid, reason} ->
          Journal.write(
            state.file,
            "d #{state.number} #{reason |> inspect() |> String.replace(~r/\s+/, "_")} #{Journal.now_us()}"
          )

          %{state | ref: nil}

        :stop ->
          %{state | stop: true}

        stray ->
          Journal.write(state.file, "x #{stray |> inspect() |> String.replace(~r/\s+/, "_")}")
          state
      after
        ms -> state
      end
    end
  end

  defmodule Owner do
    @moduledoc "Writes down what the instance tells of its peer, and tells the test."
    alias Legation.Chaos.{Journal, Load}

    def run(config) do
      id = "#{config.node}.#{config.life}"
      file = Journal.open(config.dir, :owner, id, "#{id} #{config.node} #{Journal.now_us()}")
      {:ok, ref, snapshot} = Legation.monitor_peers(config.instance)
      for {_realm, _info} <- snapshot.peers, do: say(config, file, :up, [])
      for {name, info} <- snapshot.engines, do: say(config, file, :learned, [name, Load.proxy_id(info.pid)])
      loop(config, file, ref)
    end

    defp loop(config, file, ref) do
      receive do
        {:legation, ^ref, event} -> tell(config, file, event)
      end

      loop(config, file, ref)
    end

    defp tell(config, file, {:peer_up, _realm, _info}), do: say(config, file, :up, [])
    defp tell(config, file, {:peer_lost, _realm, _reason}), do: say(config, file, :lost, [])
    defp tell(config, file, {:peer_resumed, _realm, _info}), do: say(config, file, :resumed, [])
    defp tell(config, file, {:peer_down, _realm, _reason}), do: say(config, file, :down, [])
    defp tell(config, file, {:gap, _realm, n}), do: say(config, file, :gap, [n])

    defp tell(config, file, {:engine_learned, name, info}),
      do: say(config, file, :learned, [name, Load.proxy_id(info.pid)])

    defp tell(config, file, {:engine_forgotten, name, _reason}), do: say(config, file, :forgotten, [name, "-"])
    defp tell(_config, _file, _other), do: :ok

    defp say(config, file, what, words) do
      now = Journal.now_us()
      Journal.write(file, Enum.join([what | words] ++ [now], " "))
      if what in [:up, :lost, :resumed, :down], do: send(config.test, {:owner, config.node, what, now})
    end
  end
end
