defmodule ConformanceElixir do
  @moduledoc false
  # What Elixir words in its own way: GenServer, Process, Node, Agent. See conf_main.erl for what a row is.

  import :conf_lib, only: [ended: 1, within: 2, same: 1, barrier: 0, kill: 1, finish: 2, next: 0, nothing_left: 0]

  def rows do
    rows = [
      elixir_call: &call/1,
      elixir_call_missing: &call_missing/1,
      elixir_call_dead_pid: &call_dead_pid/1,
      elixir_call_times_out: &call_times_out/1,
      elixir_call_ends: &call_ends/1,
      elixir_cast: &cast/1,
      elixir_reply: &reply/1,
      elixir_multi_call: &multi_call/1,
      elixir_abcast: &abcast/1,
      elixir_whereis: &whereis/1,
      elixir_stop: &stop/1,
      elixir_process_alive: fn engine -> ended(fn -> Process.alive?(engine.pid) end) |> exception() end,
      elixir_process_info: fn engine -> ended(fn -> Process.info(engine.pid) end) |> exception() end,
      elixir_monitor: &monitor/1,
      elixir_monitor_by_name: &monitor_by_name/1,
      elixir_demonitor: &demonitor/1,
      elixir_link: &link/1,
      elixir_unlink: &unlink/1,
      elixir_send: &send_all/1,
      elixir_send_after: fn engine -> ended(fn -> Process.send_after(engine.pid, :hello, 1) end) |> exception() end,
      elixir_global_whereis: fn engine -> :global.whereis_name(engine.full) == engine.pid end,
      elixir_node_ping: fn engine -> Node.ping(engine.node) end,
      elixir_node_spawn: fn engine -> within(5_000, fn -> node_spawn(engine) end) end
    ]

    changing = [elixir_node_monitor: &node_monitor/1, elixir_call_disconnected: &call_disconnected/1]

    for({name, fun} <- rows, do: {name, fun}) ++
      for({name, fun} <- changing, do: {name, %{disconnects: true}, fun}) ++
      [
        {:elixir_stop_allowed, %{module: :conf_counter, realm: "carol"}, &stop/1},
        {:elixir_agent, %{module: :conf_agent}, &agent/1},
        {:elixir_agent_fun, %{module: :conf_agent}, &agent_fun/1},
        {:elixir_process_exit, %{module: :conf_plain, args: [:trap_exit]}, &process_exit/1}
      ]
  end

  defp ways(engine), do: [engine.name, engine.pid, engine.global, {:via, :global, engine.full}]

  # An ArgumentError, to Elixir.
  defp exception({:raises, :badarg}), do: {:raises, :badarg}
  defp exception(other), do: other

  defp call(engine), do: same(for way <- ways(engine), timeout <- [5_000, :infinity], do: GenServer.call(way, {:echo, 1}, timeout))

  defp call_missing(engine) do
    for server <- [{:nobody@alice, engine.node}, {:global, "nobody@alice"}], timeout <- [5_000, :infinity] do
      ended(fn -> GenServer.call(server, {:echo, 1}, timeout) end)
    end
    |> same()
  end

  defp call_dead_pid(engine) do
    kill(engine)
    same(for timeout <- [5_000, :infinity], do: ended(fn -> GenServer.call(engine.pid, {:echo, 1}, timeout) end))
  end

  defp call_times_out(engine) do
    ended = same(for way <- ways(engine), do: ended(fn -> GenServer.call(way, {:hold, 1}, 20) end))
    :conf_lib.holds(engine, 1)
    GenServer.call(engine.pid, {:release, 1, :late})
    barrier()
    {ended, nothing_left()}
  end

  defp call_ends(engine), do: ended(fn -> GenServer.call(engine.name, {:stop, {:shutdown, :secret}}) end)

  defp cast(engine) do
    told = same(for way <- ways(engine), do: GenServer.cast(way, :hello))
    {told, GenServer.cast({:nobody@alice, engine.node}, :hello), :conf_target.at(:conf_engine, :log, [engine.id, 4])}
  end

  # GenServer.reply/2 there, from another process.
  defp reply(engine), do: GenServer.call(engine.name, {:delegate, :done})

  defp multi_call(engine) do
    {GenServer.multi_call([engine.node], engine.id, {:echo, 1}, 10_000),
     GenServer.multi_call([engine.node], :nobody@alice, {:echo, 1}, 10_000)}
  end

  defp abcast(engine), do: {GenServer.abcast([engine.node], engine.id, :hello), :conf_target.at(:conf_engine, :log, [engine.id, 1])}

  defp whereis(engine) do
    {GenServer.whereis(engine.global) == engine.pid, GenServer.whereis(engine.name) == engine.name,
     GenServer.whereis(engine.pid) == engine.pid, GenServer.whereis({:global, "nobody@alice"})}
  end

  defp stop(engine), do: {:conf_sys.plain(ended(fn -> GenServer.stop(engine.pid, :shutdown, 10_000) end)), :conf_lib.lives(engine)}

  defp monitor(engine) do
    ref = Process.monitor(engine.pid)
    finish(engine, {:shutdown, :secret})
    pid = engine.pid
    {:DOWN, ^ref, :process, ^pid, _reason} = next()
  end

  defp monitor_by_name(engine) do
    ref = Process.monitor(engine.name)
    finish(engine, :shutdown)
    name = engine.name
    {:DOWN, ^ref, :process, ^name, _reason} = next()
  end

  defp demonitor(engine) do
    ref = Process.monitor(engine.pid)
    seen = Process.demonitor(ref, [:flush, :info])
    kill(engine)
    barrier()
    {seen, nothing_left()}
  end

  defp link(engine) do
    Process.flag(:trap_exit, true)
    Process.link(engine.pid)
    finish(engine, :shutdown)
    next()
  end

  defp unlink(engine) do
    Process.flag(:trap_exit, true)
    Process.link(engine.pid)
    seen = Process.unlink(engine.pid)
    kill(engine)
    barrier()
    {seen, nothing_left()}
  end

  defp send_all(engine) do
    sent = [send(engine.pid, 1), send(engine.name, 2), Process.send(engine.pid, 3, [:noconnect]), Process.send(engine.name, 4, [:nosuspend])]
    {sent, :conf_target.at(:conf_engine, :log, [engine.id, 4])}
  end

  defp node_monitor(engine) do
    Node.monitor(engine.node, true)
    Node.disconnect(engine.node)
    seen = next()
    {seen, Node.connect(engine.node), engine.node in Node.list(:connected), engine.node in Node.list(:known)}
  end

  defp node_spawn(engine) do
    ended(fn ->
      {pid, ref} = :erlang.spawn_monitor(engine.node, :erlang, :node, [])
      {:DOWN, ^ref, :process, ^pid, reason} = next()
      reason
    end)
  end

  defp call_disconnected(engine) do
    row = self()
    spawn_link(fn -> send(row, ended(fn -> GenServer.call(engine.name, {:hold, 1}) end)) end)
    :conf_lib.holds(engine, 1)
    Node.disconnect(engine.node)
    {next(), GenServer.call(engine.name, {:echo, 1})}
  end

  # Functions by name cross, funs don't.
  defp agent(engine) do
    {Agent.get(engine.name, Map, :fetch!, [:a]), Agent.update(engine.pid, Map, :put, [:b, 2]), Agent.get(engine.global, Map, :fetch!, [:b])}
  end

  defp agent_fun(engine), do: Agent.get(engine.name, &:erlang.map_size/1)

  defp process_exit(engine) do
    seen = Process.exit(engine.pid, :oops)
    {seen, GenServer.call(engine.pid, {:echo, 1}), :conf_target.at(:conf_plain, :log, [engine.id])}
  end
end
