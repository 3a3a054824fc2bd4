defmodule Legation.IdleProxiesTest do
  # Row 37. Alone: an instance that stops takes its persistent term with it, and for that the VM goes through the heaps
  # of all processes, which wakes the sleeping.
  use Legation.Case, async: false

  @moduletag :embedded

  # Processes and tables of 10,000 proxies.
  @idle_bytes_max 30 * 1024 * 1024
  @many 10_000

  test "10,000 idle proxies hibernate and cost under 30 MB" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    {:ok, engine} = Counter.start_link(0)
    before = tables_bytes(bob)

    # Traced from its birth on, each tells when it goes to sleep.
    supervisor = Process.whereis(Module.concat(bob, ProxySupervisor))
    :erlang.trace(supervisor, true, [:set_on_spawn, :running])

    link(alice, bob, :memory)
    for n <- 1..@many, do: :ok = Legation.publish("idle#{n}", engine, [], alice)
    await_engine(bob, "idle#{@many}@alice")
    proxies = for %{pid: pid} <- Legation.engines(bob), do: pid
    assert length(proxies) == @many

    await_hibernation(MapSet.new(proxies))

    # Asked, each answers after it has gone to sleep.
    processes = for(pid <- proxies, {:memory, bytes} = Process.info(pid, :memory), do: bytes) |> Enum.sum()
    assert processes + tables_bytes(bob) - before < @idle_bytes_max

    # Awake again it does its work.
    assert GenServer.call(via(bob, "idle1@alice"), :get) == 0
    stop_realm(alice)
  end

  defp await_hibernation(proxies) do
    if MapSet.size(proxies) > 0 do
      receive do
        {:trace, pid, :out, {:erlang, :hibernate, 3}} -> proxies |> MapSet.delete(pid) |> await_hibernation()
        {:trace, _pid, _in_or_out, _function} -> await_hibernation(proxies)
      after
        30_000 -> flunk("#{MapSet.size(proxies)} proxies have not gone to sleep")
      end
    end
  end

  defp tables_bytes(instance) do
    %{foreign: foreign, config: config} = Legation.Instance.fetch!(instance)
    for(table <- [foreign, config], do: :ets.info(table, :memory) * :erlang.system_info(:wordsize)) |> Enum.sum()
  end
end
