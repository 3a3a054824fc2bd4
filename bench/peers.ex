defmodule Bench.Peers do
  @moduledoc """
  Many peers: how many can be dialled in a second, what one costs, and what callers see of so many. A client, embedded or a
  daemon, dials realms that all live in one VM, each with an engine, over tcp with `tls`.
  """

  alias Bench.{Engines, Load, Paths, Program, VM}
  alias Legation.{Native, Options}

  @numbers [1, 10, 100]
  @up_ms 60_000
  @settle_ms 500
  @millis 500

  def dialled(setup, _config) do
    for number <- @numbers, client <- [:embedded, :daemon], do: measure(setup, number, client)
  end

  defp measure(setup, number, kind) do
    [server, client] = for name <- ["many", "asker"], do: VM.start(name, setup, node: :plain)
    Enum.each([server, client], &VM.await/1)
    VM.call(server, Engines, :start_echoes, [number + 1])
    # The last one is dialled first, and not measured: code is loaded then.
    peers =
      for n <- 1..(number + 1), do: start_realm(setup, server, n, if(kind == :embedded, do: "client", else: "near"))

    {where, daemons} = start_client(setup, client, kind)
    {first, peers} = List.pop_at(peers, -1)
    VM.call(client, __MODULE__, :dial, [where, [first]])
    before = VM.call(client, __MODULE__, :memory, [])
    seconds = VM.call(client, __MODULE__, :dial, [where, peers])
    Process.sleep(@settle_ms)
    after_all = VM.call(client, __MODULE__, :memory, [])
    targets = for peer <- peers, do: target(where, peer.engine)
    calls = VM.call(client, Load, :calls, [targets, %{bytes: 64, callers: 100}, @millis])
    casts = VM.call(client, Load, :casts, [targets, %{bytes: 256, senders: 1, from: :processes}, @millis])
    Enum.each([client | daemons] ++ [server], &Program.stop/1)

    %{
      name: "peers",
      number: number,
      client: kind,
      up_s: seconds,
      connects_per_second: number / seconds,
      calls_per_second: calls.per_second,
      call_p50_us: calls.p50_us,
      casts_per_second: casts.per_second
    }
    |> Map.merge(if kind == :embedded, do: %{bytes: (after_all - before) / number}, else: %{})
  end

  # As its client dials it.
  defp start_realm(setup, server, number, client) do
    name = :"r#{number}"
    key = Path.join(setup.dir, "#{name}.pem")
    if not File.exists?(key), do: {:ok, _public} = Native.keyring_generate(key)
    {:ok, keyring} = Native.keyring_load(key)
    peers = [[realm: client, key: setup.key[client], export: :all]]
    options = Paths.realm(setup, "#{name}") ++ [listen: [tcp: [port: 0, ip: {127, 0, 0, 1}]], peers: peers]
    [address] = VM.call(server, Engines, :start_instance, [name, options])
    VM.call(server, Engines, :publish, [{:instance, name}, [:"e#{number}"]])
    public = keyring |> Native.keyring_public() |> Options.format_key()
    options = [realm: "#{name}", key: public, connect: [tcp: [host: "127.0.0.1", port: address[:port]]]]
    %{realm: "#{name}", engine: "e#{number}@#{name}", options: options}
  end

  defp start_client(setup, client, :embedded) do
    VM.call(client, Engines, :start_instance, [:dialler, Paths.realm(setup, "client")])
    {{:instance, :dialler}, []}
  end

  defp start_client(setup, _client, :daemon) do
    {daemon, node} = Paths.start_daemon(setup, "near", [], [], "dialler")
    {{:daemon, node}, [daemon]}
  end

  defp target({:instance, instance}, name), do: {:via, Legation, {instance, name}}
  defp target({:daemon, node}, name), do: {:"#{name}", node}

  ## In the client

  def memory do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    :erlang.memory(:total)
  end

  @doc "Seconds until all are up."
  def dial(where, peers) do
    ref = subscribe(where)
    before = System.monotonic_time(:microsecond)
    for %{options: options} <- peers, do: :ok = connect(where, options)

    for %{realm: realm} <- peers do
      receive do
        {:legation, ^ref, {:peer_up, ^realm, _info}} -> :ok
      after
        @up_ms -> raise "not all peers are up"
      end
    end

    seconds = (System.monotonic_time(:microsecond) - before) / 1.0e6
    Engines.await_learned(where, Enum.map(peers, & &1.engine))
    seconds
  end

  defp subscribe({:instance, instance}) do
    {:ok, ref, _nothing} = Legation.monitor_peers(instance)
    ref
  end

  defp subscribe({:daemon, node}) do
    {:ok, ref, _nothing} = GenServer.call({:legation, node}, :monitor_peers)
    ref
  end

  defp connect({:instance, instance}, peer), do: Legation.connect(peer, instance)
  defp connect({:daemon, node}, peer), do: GenServer.call({:legation, node}, {:connect, peer})
end
