defmodule Bench.Announced do
  @moduledoc """
  Many engines: how long it takes from the moment when the link is up until all can be called, what each costs, and what each
  costs the others. In VMs of their own, a new pair for each number.
  """

  alias Bench.{Engines, Load, Paths, Program, VM}

  @numbers [10, 100, 1_000, 10_000, 100_000]
  @target_number 10_000
  @global_number 1_000
  # A proxy that nobody uses hibernates after a second.
  @idle_ms 1_500
  @poll_ms 2
  @learned_ms 120_000
  @millis 500

  @doc "By `:via`, with how callers fare and what memory it takes; only the target's number if it is to be quick."
  def via(setup, %{extent: extent}) do
    for number <- if(extent == :quick, do: [@target_number], else: @numbers) do
      {server, client, peer} = start_pair(setup, number, :nonode)
      published = VM.call(server, __MODULE__, :publish, [number])
      {memory, learned} = client |> VM.call(__MODULE__, :learn, [peer, number]) |> Map.pop!(:memory_before)
      cost = VM.call(client, __MODULE__, :cost, [number, memory])
      Enum.each([server, client], &Program.stop/1)
      %{name: "engines", number: number, published_s: published} |> Map.merge(learned) |> Map.merge(cost)
    end
  end

  @doc "By `:global`, in a cluster of one and of two nodes."
  def global(setup, _config) do
    for nodes <- [1, 2] do
      {server, client, peer} = start_pair(setup, @global_number, :plain)
      others = for number <- 2..nodes//1, do: VM.await(VM.start("other#{number}", setup, node: :plain))
      for number <- 2..nodes//1, do: VM.call(client, Engines, :connect, [VM.node_name("other#{number}")])
      VM.call(server, __MODULE__, :publish, [@global_number])
      seconds = VM.call(client, __MODULE__, :learn_global, [peer, @global_number])
      Enum.each([server, client | others], &Program.stop/1)
      %{name: "global", nodes: nodes, number: @global_number, callable_s: seconds}
    end
  end

  # The client doesn't know its peer yet, so that it can look at the clock first.
  defp start_pair(setup, number, kind) do
    node = if kind == :plain, do: :plain
    [server, client] = for name <- ["many", "asker"], do: VM.start(name, setup, node: node)
    Enum.each([server, client], &VM.await/1)
    limits = [knock_boot_ms: 0, engines_max: 2 * number]
    realm = fn realm -> Keyword.put(Paths.realm(setup, realm), :limits, limits) end
    peers = [[realm: "client", key: setup.key["client"], export: :all]]
    listen = [tcp: [port: 0, ip: {127, 0, 0, 1}]]
    VM.call(server, Engines, :start_echoes, [number])
    options = realm.("server") ++ [listen: listen, peers: peers]
    [address] = VM.call(server, Engines, :start_instance, [:many, options])
    global = if kind == :plain, do: [global: true, import: :default], else: []
    VM.call(client, Engines, :start_instance, [:many, Keyword.merge(realm.("client"), global)])
    peer = [realm: "server", key: setup.key["server"], connect: [tcp: [host: "127.0.0.1", port: address[:port]]]]
    {server, client, peer}
  end

  ## In the VMs

  @doc "Seconds."
  def publish(number) do
    seconds(fn -> Engines.publish({:instance, :many}, for(number <- 1..number, do: :"e#{number}")) end)
  end

  def learn(peer, number) do
    memory = :erlang.memory(:total)
    {ref, dialled} = dial(peer)
    up = now_s()

    for _ <- 1..number do
      receive do
        {:legation, ^ref, {:engine_learned, _name, _info}} -> :ok
      after
        @learned_ms -> raise "not all were learned"
      end
    end

    learned = now_s()
    Legation.demonitor_peers(ref, :many)
    # Who is learned is callable: of each, that there is one; of the last one, that it answers.
    for n <- 1..number, do: true = is_pid(Legation.whereis(name(n), :many))
    :there = GenServer.call(target(number), :there)
    %{callable_s: learned - up, dialled_to_callable_s: learned - dialled, memory_before: memory}
  end

  # Returns when the link is up, with the time at which it was dialled.
  defp dial(peer) do
    {:ok, ref, _nothing} = Legation.monitor_peers(:many)
    dialled = now_s()
    :ok = Legation.connect(peer, :many)

    receive do
      {:legation, ^ref, {:peer_up, "server", _info}} -> {ref, dialled}
    after
      @learned_ms -> raise "there is no link"
    end
  end

  @doc "Bytes of an idle proxy by itself, and of all that an engine of another's costs; then what a call and a cast take among so many."
  def cost(number, memory_before) do
    Process.sleep(@idle_ms)
    proxies = for n <- 1..number, do: Legation.whereis(name(n), :many)
    for pid <- Process.list() -- proxies, do: :erlang.garbage_collect(pid)
    proxy = proxies |> Enum.map(&elem(Process.info(&1, :memory), 1)) |> Enum.sum()
    all = :erlang.memory(:total) - memory_before
    calls = Load.calls([target(number)], %{bytes: 64, callers: 1}, @millis)
    casts = Load.casts([target(number)], %{bytes: 256, senders: 1, from: :processes}, @millis)

    %{
      proxy_bytes: proxy / number,
      engine_bytes: all / number,
      call_p50_us: calls.p50_us,
      casts_per_second: casts.per_second
    }
  end

  defp name(number), do: "e#{number}@server"
  defp target(number), do: {:via, Legation, {:many, name(number)}}

  def learn_global(peer, number) do
    nodes = [node() | Node.list()]
    dial(peer)
    seconds(fn -> for node <- nodes, do: await_names(node, number) end)
  end

  defp await_names(node, number) do
    if length(:erpc.call(node, :global, :registered_names, [])) < number do
      Process.sleep(@poll_ms)
      await_names(node, number)
    end
  end

  defp seconds(work) do
    before = now_s()
    work.()
    now_s() - before
  end

  defp now_s, do: System.monotonic_time(:microsecond) / 1.0e6
end
