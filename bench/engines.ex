defmodule Bench.Echo do
  @moduledoc "The engine that all loads are for: it answers a call with its request and counts casts."
  use GenServer

  def init(_), do: {:ok, 0}
  def handle_call(:count, _from, count), do: {:reply, count, count}
  def handle_call(request, _from, count), do: {:reply, request, count}
  def handle_cast(_message, count), do: {:noreply, count + 1}
end

defmodule Bench.Engines do
  @moduledoc """
  The processes at both ends of all paths, in their VMs: engines that are called and cast to, registered as `e1`, `e2`, …, and
  *sources*, engines that cast, `s1`, `s2`, …; and the instances of Legation that they are published in.
  """

  @up_ms 20_000

  @doc "So many echoes."
  def start_echoes(count) do
    for number <- 1..count, do: {:ok, _pid} = GenServer.start(Bench.Echo, nil, name: :"e#{number}")
    :ok
  end

  @doc "So many sources, for `work/2`."
  def start_sources(count) do
    for number <- 1..count, do: true = Process.register(spawn(&source/0), :"s#{number}")
    :ok
  end

  defp source do
    receive do
      {:work, from, ref, fun} -> send(from, {ref, fun.()})
    end

    source()
  end

  @doc "Has the first so many sources each do this at the same time. What came of it, in order."
  def work(sources, fun) do
    refs =
      for number <- 1..sources do
        ref = make_ref()
        send(:"s#{number}", {:work, self(), ref, fun})
        ref
      end

    for ref <- refs do
      receive do
        {^ref, result} -> result
      end
    end
  end

  @doc "An instance of Legation. Returns what its listeners are bound to."
  def start_instance(name, options) do
    {:ok, _} = Application.ensure_all_started(:legation)
    # Not linked: it is to outlive the command that starts it.
    {:ok, supervisor} = [name: name, global: :off, import: :none] |> Keyword.merge(options) |> Legation.start_link()
    Process.unlink(supervisor)
    Enum.map(Legation.listeners(name), & &1.address)
  end

  @doc "Publishes processes by the names that they are registered under, in an instance or a daemon (its node)."
  def publish({:instance, instance}, names) do
    for name <- names, do: :ok = Legation.publish("#{name}", Process.whereis(name), [], instance)
    :ok
  end

  def publish({:daemon, node}, names) do
    for name <- names, do: :ok = GenServer.call({:legation, node}, {:publish, "#{name}", Process.whereis(name), []})
    :ok
  end

  @doc "Waits until an instance or a daemon has learned these engines."
  def await_learned(where, names), do: Enum.each(names, &await(fn -> learned?(where, &1) end, "#{&1} was not learned"))

  defp learned?({:instance, instance}, name), do: Legation.whereis(name, instance) != nil
  defp learned?({:daemon, node}, name), do: is_pid(GenServer.call({:legation, node}, {:whereis, name}))

  @doc "Tries again for a while. Not for what is measured."
  def await(fun, complaint), do: await(fun, complaint, System.monotonic_time(:millisecond) + @up_ms)

  defp await(fun, complaint, deadline) do
    cond do
      fun.() ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        raise complaint

      true ->
        Process.sleep(10)
        await(fun, complaint, deadline)
    end
  end

  def connect(node), do: true = Node.connect(node)
end
