defmodule Legation.CNode.Directory do
  @moduledoc false
  # Who is there, when a daemon does the work: owner of the tables of Legation.Instance, so that looking up a name asks
  # nobody; and the one that tells the daemon what is published, again whenever there is a new one or the way to it was lost.
  #
  # It has a *link* while it is subscribed to the daemon's peers and engines, and mirrors them (Legation.CNode.Mirror).
  # Without one our engines are published all the same, foreign ones are gone.
  #
  #   the Daemon says it is ready ──► its node is connected ──► link: gate, our engines, subscription
  #                                             ▲                  │ its control engine is down
  #                                             └──────────────────┘ (the daemon dials this node again)

  use GenServer

  alias Legation.{Counters, GlobalNames, Instance, Providers, Telemetry}
  alias Legation.CNode.{CatchUp, Control, Daemon, Gate, Mirror, Shape}
  alias Legation.Directory.{Events, Subscribers}

  # A registered name whose process died is looked up once more after this: its supervisor is starting it again now.
  @restart_grace_ms 100
  # The daemon hears of a death over the wire, and we beside it. This many questions later it has heard.
  @hear_of_death 1_000

  ## What others ask and tell

  def start_link({options, config}),
    do: GenServer.start_link(__MODULE__, {options, config}, name: server(options.name))

  def publish(name, engine, target, opts),
    do: GenServer.call(server(name), {:publish, engine, target, opts}, :infinity)

  def withdraw(name, engine), do: GenServer.call(server(name), {:withdraw, engine}, :infinity)
  def subscribe(name), do: GenServer.call(server(name), :subscribe, :infinity)
  def unsubscribe(name, ref), do: GenServer.call(server(name), {:unsubscribe, ref}, :infinity)

  @doc "The key of a foreign engine, or nil. The news of it may be on its way to us."
  def key(%Instance{name: name} = instance, full_name) do
    Mirror.key(instance, full_name) || GenServer.call(server(name), {:key, full_name}, :infinity)
  end

  @doc "A daemon has been started and is ready on this port. Returns when there is a link to it, or why there is none."
  def daemon_ready(name, port), do: GenServer.call(server(name), {:daemon_ready, port}, :infinity)

  @doc "The same without waiting, where nobody does."
  def daemon_came_back(name, port), do: GenServer.cast(server(name), {:daemon_ready, port})

  def daemon_ended(name), do: GenServer.cast(server(name), :daemon_ended)

  @doc "Everything that came from the daemon before this has been taken."
  def settle(name), do: GenServer.call(server(name), :settle, :infinity)

  defp server(name), do: Instance.process(name, Directory)

  ## The process
  # engines: ours, engine => publication.      monitors: monitor => engine
  # links: realm => %{realm:, status:}, peers that are up at the daemon's.
  # port: of the daemon that runs, or nil.     waiting: who waits for the link.
  # link: nil, or the monitor of its control engine and the reference of our subscription.

  @impl true
  def init({options, config}) do
    Process.flag(:trap_exit, true)
    table = fn kind -> :ets.new(:legation, [kind, :protected, read_concurrency: true]) end

    instance = %Instance{
      name: options.name,
      transport: Legation.Transport.CNode,
      ref: make_ref(),
      options: options,
      config: config,
      identity: %{key: nil},
      foreign: table.(:ordered_set),
      published: table.(:set),
      details: table.(:set),
      sessions: table.(:set),
      links: table.(:set),
      turns: Providers.new_turns(),
      counters: Counters.new()
    }

    Instance.put(instance)
    :ok = :net_kernel.monitor_nodes(true, node_type: :all)

    state = %{
      instance: instance,
      name: options.name,
      node: options.transport.node,
      engines: %{},
      monitors: %{},
      links: %{},
      port: nil,
      waiting: [],
      timer: nil,
      link: nil,
      subscribers: Subscribers.new()
    }

    {:ok, state, {:continue, :restore}}
  end

  # What was published before a crash of this process.
  @impl true
  def handle_continue(:restore, state) do
    published = :ets.match(state.instance.config, {{:published, :"$1"}, :"$2", :"$3"})

    {:noreply,
     Enum.reduce(published, state, fn [engine, target, opts], state -> republish(engine, target, opts, state) end)}
  end

  @impl true
  def terminate(_reason, state), do: Instance.erase(state.name)

  @impl true
  def handle_call({:publish, engine, target, opts}, _from, state) do
    state = bury(engine, state)

    with {:ok, pid} <- publishable(engine, target, state),
         {:ok, state} <- do_publish(engine, target, pid, opts, state) do
      {:reply, :ok, state}
    else
      {:error, reason} -> {:reply, {:error, reason}, state}
    end
  end

  def handle_call({:withdraw, engine}, _from, state) do
    case state.engines do
      %{^engine => _publication} ->
        state = drop_own(engine, state)
        if state.link, do: Control.request(state.node, {:withdraw, engine})
        {:reply, :ok, state}

      _not_ours ->
        :ets.delete(state.instance.config, {:published, engine})
        {:reply, {:error, :not_published}, state}
    end
  end

  def handle_call({:key, full_name}, _from, state), do: {:reply, Mirror.key(state.instance, full_name), state}

  def handle_call(:subscribe, {pid, _tag}, state) do
    {ref, subscribers} = Subscribers.add(state.subscribers, pid)
    {:reply, {:ok, ref, Events.snapshot(state)}, %{state | subscribers: subscribers}}
  end

  def handle_call({:unsubscribe, ref}, _from, state),
    do: {:reply, :ok, %{state | subscribers: Subscribers.remove(state.subscribers, ref)}}

  # Behind an answer of the daemon's is everything that it told us before.
  def handle_call(:settle, _from, state) do
    if state.link, do: Control.call(state.node, :info)
    {:reply, :ok, take_what_waits(state)}
  end

  def handle_call({:daemon_ready, port}, from, state),
    do: {:noreply, ready(port, %{state | waiting: [from | state.waiting]})}

  @impl true
  def handle_cast({:daemon_ready, port}, state), do: {:noreply, ready(port, state)}
  def handle_cast(:daemon_ended, state), do: {:noreply, state |> unlink() |> not_ready()}

  @impl true
  def handle_info({:legation, events, event}, %{link: %{events: events}} = state),
    do: {:noreply, Mirror.take(event, state)}

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{link: %{monitor: monitor}} = state),
    do: {:noreply, state |> unlink() |> try_link()}

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    case Map.pop(state.monitors, monitor) do
      {nil, _monitors} -> {:noreply, %{state | subscribers: Subscribers.remove(state.subscribers, monitor)}}
      {engine, monitors} -> {:noreply, engine_died(engine, %{state | monitors: monitors})}
    end
  end

  # The one second look at a registered name.
  def handle_info({:again, engine, target, opts}, state) do
    if Map.has_key?(state.engines, engine),
      do: {:noreply, state},
      else: {:noreply, republish(engine, target, opts, state)}
  end

  def handle_info({:nodeup, node, _info}, %{node: node} = state), do: {:noreply, try_link(state)}

  def handle_info({:timeout, timer, step}, %{timer: timer} = state),
    do: {:noreply, patience(step, %{state | timer: nil})}

  def handle_info(_stray, state), do: {:noreply, state}

  ## The link

  defp ready(port, state), do: %{unlink(state) | port: port} |> start_timer(:dial) |> try_link()

  defp not_ready(state), do: answer({:error, {:daemon, :down}}, %{cancel_timer(state) | port: nil})

  # It dials us. Where that leads nowhere, it may be found in EPMD; where that doesn't either, there is no way.
  defp patience(:dial, state) do
    if state.instance.options.transport.epmd != false, do: spawn(:net_kernel, :connect_node, [state.node])
    start_timer(state, :give_up)
  end

  defp patience(:give_up, state) do
    Telemetry.log(
      :error,
      {:no_link, state.name},
      "the daemon runs, but its node #{state.node} and this one don't connect (another cookie? another kind of node name?)"
    )

    answer({:error, {:daemon, :no_link}}, state)
  end

  defp start_timer(state, step) do
    half = max(1, div(state.instance.options.transport.start_ms, 2))
    %{cancel_timer(state) | timer: :erlang.start_timer(half, self(), step)}
  end

  defp cancel_timer(%{timer: nil} = state), do: state

  defp cancel_timer(%{timer: timer} = state) do
    :erlang.cancel_timer(timer)
    %{state | timer: nil}
  end

  defp answer(result, state) do
    for from <- state.waiting, do: GenServer.reply(from, result)
    %{state | waiting: []}
  end

  defp try_link(%{port: port, link: nil} = state) when port != nil do
    if connected?(state.node), do: link(state), else: state
  end

  defp try_link(state), do: state

  defp connected?(node), do: node == node() or node in Node.list(:connected)

  defp link(%{node: node} = state) do
    monitor = Process.monitor(Control.server(node))

    with {:ok, %{port: port}} <- Control.call(node, :info),
         {:port, true} <- {:port, port == state.port},
         {:ok, key} when is_binary(key) <- Control.call(node, :public_key),
         :ok <- Control.request(node, {:gate, Gate.pid(state.name)}),
         state = %{identified(Shape.raw_key(key), state) | link: %{monitor: monitor, events: nil}},
         :ok <- CatchUp.run(node, state.name, state.instance.config),
         state = publish_again(state),
         {:ok, {:ok, events, snapshot}} <- Control.call(node, :monitor_peers) do
      state = Mirror.restore(snapshot, %{state | link: %{monitor: monitor, events: events}})
      Daemon.linked(state.name)
      answer(:ok, cancel_timer(state))
    else
      failed ->
        Process.demonitor(monitor, [:flush])
        reason = reason(failed, node)
        Telemetry.log(:error, {:link, state.name}, Legation.Error.message(reason))
        answer({:error, reason}, %{state | link: nil})
    end
  end

  # Somebody else's daemon has the name of ours.
  defp reason({:port, false}, node), do: {:daemon, {:name_taken, node}}
  defp reason({:error, reason}, _node), do: reason
  defp reason(answer, _node), do: {:daemon, {:answer, answer}}

  # The same each time, unless somebody has changed the key file.
  defp identified(key, %{instance: %{identity: %{key: key}}} = state), do: state

  defp identified(key, state) do
    instance = %{state.instance | identity: %{key: key}}
    Instance.put(instance)
    %{state | instance: instance}
  end

  defp unlink(%{link: nil} = state), do: state

  defp unlink(%{link: %{monitor: monitor}} = state) do
    Process.demonitor(monitor, [:flush])
    Daemon.unlinked(state.name)
    Mirror.clear(%{state | link: nil})
  end

  defp take_what_waits(%{link: %{events: events}} = state) do
    receive do
      {:legation, ^events, event} -> event |> Mirror.take(state) |> take_what_waits()
    after
      0 -> state
    end
  end

  defp take_what_waits(state), do: state

  ## Our engines

  # A supervisor hears of a death before we do, and its next child wants the name: what is on its way to us comes first.
  defp bury(engine, state) do
    with %{pid: pid, monitor: monitor} when node(pid) == node() <- state.engines[engine],
         false <- Process.alive?(pid) do
      receive do
        {:DOWN, ^monitor, :process, ^pid, _reason} = down ->
          {:noreply, state} = handle_info(down, state)
          state
      end
    else
      _alive_or_none -> state
    end
  end

  defp publishable(engine, target, state) do
    case {state.engines, Legation.Directory.resolve(target)} do
      {_engines, nil} -> {:error, :noproc}
      {%{^engine => %{pid: pid}}, pid} -> {:ok, pid}
      {%{^engine => %{pid: other}}, _pid} -> {:error, {:already_published, other}}
      {_engines, pid} -> {:ok, pid}
    end
  end

  defp do_publish(engine, target, pid, opts, %{instance: instance} = state) do
    with :ok <- tell_published(engine, target, opts, state) do
      before = state.engines[engine]
      if before, do: Process.demonitor(before.monitor, [:flush])
      monitor = Process.monitor(pid)
      to = opts[:to] || :all
      :ets.insert(instance.config, {{:published, engine}, target, opts})
      # In this order: who finds it finds its version.
      :ets.insert(instance.details, {engine, %{pid: pid, to: to, version: opts[:version], ops: opts[:ops]}})
      :ets.insert(instance.published, {engine, target, to, opts[:receipts]})
      if before == nil, do: GlobalNames.published(state.name, Instance.full_name(instance, engine), pid)

      {:ok,
       %{
         state
         | engines: Map.put(state.engines, engine, %{target: target, pid: pid, monitor: monitor, opts: opts}),
           monitors: state.monitors |> Map.delete(before && before.monitor) |> Map.put(monitor, engine)
       }}
    end
  end

  # Without a link it is told when there is one.
  defp tell_published(_engine, _target, _opts, %{link: nil}), do: :ok

  defp tell_published(engine, target, opts, state) do
    request = {:publish, engine, target, Enum.reject(opts, fn {_key, value} -> value == nil end)}

    case ask_to_publish(state.node, request, @hear_of_death) do
      # It is on its way out; the next one is told all.
      {:error, {:daemon, :down}} -> :ok
      result -> result
    end
  end

  # One that has just died, whose place this one takes: the daemon hears of it in a moment.
  defp ask_to_publish(node, {:publish, engine, _target, _opts} = request, tries) do
    case Control.request(node, request) do
      {:error, {:already_published, pid}} = taken when is_pid(pid) and node(pid) == node() ->
        cond do
          Process.alive?(pid) ->
            taken

          tries > 0 ->
            ask_to_publish(node, request, tries - 1)

          true ->
            Control.request(node, {:withdraw, engine})
            Control.request(node, request)
        end

      answer ->
        answer
    end
  end

  defp republish(engine, target, opts, state) do
    with {:ok, pid} <- publishable(engine, target, state),
         {:ok, state} <- do_publish(engine, target, pid, opts, state) do
      state
    else
      # Its process has not come back, or the keyholder does not sign: then it is withdrawn.
      _not_there ->
        :ets.delete(state.instance.config, {:published, engine})
        state
    end
  end

  # To a new daemon, or to one that has lost us.
  defp publish_again(state) do
    Enum.reduce(state.engines, state, fn {engine, %{target: target, opts: opts}}, state ->
      case tell_published(engine, target, opts, state) do
        :ok ->
          state

        {:error, reason} ->
          Telemetry.log(
            :error,
            {:publish_again, state.name},
            "#{engine} could not be published again: #{Legation.Error.message(reason)}"
          )

          drop_own(engine, state)
      end
    end)
  end

  # The daemon sees to the rest.
  defp drop_own(engine, %{instance: instance} = state) do
    {%{pid: pid, monitor: monitor}, engines} = Map.pop!(state.engines, engine)
    Process.demonitor(monitor, [:flush])
    :ets.delete(instance.config, {:published, engine})
    :ets.delete(instance.published, engine)
    :ets.delete(instance.details, engine)
    GlobalNames.drop(state.name, Instance.full_name(instance, engine), pid)
    %{state | engines: engines, monitors: Map.delete(state.monitors, monitor)}
  end

  # The daemon watches it, too, and tells peers its reason's class.
  defp engine_died(engine, state) do
    %{target: target, opts: opts} = Map.fetch!(state.engines, engine)
    state = drop_own(engine, state)

    case is_atom(target) and Legation.Directory.resolve(target) do
      false ->
        state

      nil ->
        Process.send_after(self(), {:again, engine, target, opts}, @restart_grace_ms)
        state

      _restarted ->
        republish(engine, target, opts, state)
    end
  end
end
