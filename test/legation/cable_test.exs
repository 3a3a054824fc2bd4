defmodule Legation.CableTest do
  # The cable that other tests cut: what it does is exact, so that theirs can be.
  use ExUnit.Case, async: true

  import Legation.Case, only: [until: 1]

  alias Legation.Cable

  @patience_ms 10_000

  # A listener here, a cable to it, and a connection through it: both ends.
  setup do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}, nodelay: true])
    {:ok, port} = :inet.port(listener)
    cable = Cable.start(port)
    {dialler, taken} = connect(cable, listener)
    %{listener: listener, cable: cable, dialler: dialler, taken: taken}
  end

  defp connect(cable, listener) do
    {:ok, dialler} = dial(cable)
    {:ok, taken} = :gen_tcp.accept(listener, @patience_ms)
    :ok = Cable.await_connected(cable)
    {dialler, taken}
  end

  defp dial(cable), do: :gen_tcp.connect({127, 0, 0, 1}, cable.port, [:binary, active: false, nodelay: true])
  defp read(socket, bytes), do: :gen_tcp.recv(socket, bytes, @patience_ms)

  test "passes bytes both ways, of any number, and counts them", %{cable: cable, dialler: dialler, taken: taken} do
    :ok = :gen_tcp.send(dialler, "ping")
    assert read(taken, 4) == {:ok, "ping"}
    many = :crypto.strong_rand_bytes(3_000_000)
    writer = Task.async(fn -> :gen_tcp.send(taken, many) end)
    assert read(dialler, 3_000_000) == {:ok, many}
    assert Task.await(writer) == :ok
    until(Cable.passed(cable) == %{to_listener: 4, to_dialler: 3_000_000})
  end

  test "both directions pass at once when both are full", %{dialler: dialler, taken: taken} do
    many = :crypto.strong_rand_bytes(2_000_000)

    tasks =
      for {from, to} <- [{dialler, taken}, {taken, dialler}] do
        sender = Task.async(fn -> :gen_tcp.send(from, many) end)
        [sender, Task.async(fn -> read(to, 2_000_000) == {:ok, many} end)]
      end

    assert tasks |> List.flatten() |> Task.await_many(@patience_ms) == [:ok, true, :ok, true]
  end

  test "an end that closes closes the other, behind what it has sent", %{cable: cable, dialler: dialler, taken: taken} do
    :ok = :gen_tcp.send(dialler, "last words")
    :gen_tcp.close(dialler)
    assert read(taken, 10) == {:ok, "last words"}
    assert read(taken, 0) == {:error, :closed}
    assert Cable.await_disconnected(cable) == :ok
    assert Cable.connections(cable) == 0
  end

  test "a cut closes all connections at once, and new ones are taken", %{listener: listener, cable: cable} = context do
    second = connect(cable, listener)
    assert Cable.cut(cable) == 2

    for {dialler, taken} <- [{context.dialler, context.taken}, second] do
      assert read(dialler, 0) == {:error, :closed}
      assert read(taken, 0) == {:error, :closed}
      assert Cable.await_disconnected(cable) == :ok
    end

    {dialler, taken} = connect(cable, listener)
    :ok = :gen_tcp.send(dialler, "x")
    assert read(taken, 1) == {:ok, "x"}
  end

  test "cut and down, nobody gets through until it is mended", %{listener: listener, cable: cable} do
    assert Cable.cut(cable, :down) == 1

    # The kernel has taken it before we did.
    with {:ok, refused} <- dial(cable), do: assert({:error, _closed_or_reset} = read(refused, 0))
    assert Cable.connections(cable) == 0
    assert :gen_tcp.accept(listener, 0) == {:error, :timeout}
    :ok = Cable.mend(cable)
    connect(cable, listener)
    assert Cable.connections(cable) == 1
  end

  test "a reset is one", %{cable: cable, dialler: dialler, taken: taken} do
    for socket <- [dialler, taken], do: :inet.setopts(socket, show_econnreset: true)
    assert Cable.reset(cable) == 1
    assert read(dialler, 0) == {:error, :econnreset}
    assert read(taken, 0) == {:error, :econnreset}
  end

  test "stalled, not one byte and no end passes; afterwards all of it", context do
    %{cable: cable, dialler: dialler, taken: taken} = context
    :ok = Cable.stall(cable)
    :ok = :gen_tcp.send(dialler, "waits")
    :ok = :gen_tcp.send(taken, "waits, too")
    # New ones are through to the listener, and as silent.
    {second, second_taken} = connect(cable, context.listener)
    :gen_tcp.close(second)
    assert Cable.passed(cable) == %{to_listener: 0, to_dialler: 0}
    assert Cable.connections(cable) == 2
    :ok = Cable.go_on(cable)
    assert read(taken, 5) == {:ok, "waits"}
    assert read(dialler, 10) == {:ok, "waits, too"}
    assert read(second_taken, 0) == {:error, :closed}
    :gen_tcp.close(second_taken)
    assert Cable.await_disconnected(cable) == :ok
  end

  test "who has said all may still be told something", %{cable: cable, dialler: dialler, taken: taken} do
    :ok = :inet.setopts(taken, exit_on_close: false)
    :ok = :gen_tcp.shutdown(dialler, :write)
    assert read(taken, 0) == {:error, :closed}
    :ok = :gen_tcp.send(taken, "still")
    assert read(dialler, 5) == {:ok, "still"}
    assert Cable.connections(cable) == 1
    :gen_tcp.close(taken)
    assert read(dialler, 0) == {:error, :closed}
    assert Cable.await_disconnected(cable) == :ok
  end

  test "stalled one way it passes the other", %{cable: cable, dialler: dialler, taken: taken} do
    :ok = Cable.stall(cable, :to_listener)
    :ok = :gen_tcp.send(dialler, "waits")
    :ok = :gen_tcp.send(taken, "passes")
    assert read(dialler, 6) == {:ok, "passes"}
    until(Cable.passed(cable) == %{to_listener: 0, to_dialler: 6})
    :ok = Cable.go_on(cable, :to_listener)
    assert read(taken, 5) == {:ok, "waits"}
  end

  test "what is sent into a stalled cable fills it, and a cut frees who waits", %{cable: cable, dialler: dialler} do
    :ok = Cable.stall(cable)
    sender = Task.async(fn -> :gen_tcp.send(dialler, :binary.copy("x", 50_000_000)) end)
    assert Task.yield(sender, 50) == nil
    assert Cable.cut(cable) == 1
    # What it had handed over to the kernel may count as sent.
    Task.await(sender)
    assert {:error, _closed} = read(dialler, 0)
  end

  test "a slow cable has its rate, and is as fast as before afterwards", %{cable: cable, dialler: dialler, taken: taken} do
    :ok = Cable.slow(cable, 100_000)
    :ok = :gen_tcp.send(dialler, :binary.copy("x", 20_000))
    {us, {:ok, _bytes}} = :timer.tc(fn -> read(taken, 20_000) end)
    # The first slice waits for nothing.
    assert us > 150_000
    :ok = Cable.slow(cable, :infinity)
    :ok = :gen_tcp.send(dialler, :binary.copy("x", 1_000_000))
    assert {:ok, _bytes} = read(taken, 1_000_000)
  end

  test "it is cut after exactly so many bytes", %{listener: listener, cable: cable, dialler: dialler, taken: taken} do
    :ok = :gen_tcp.send(dialler, "before")
    assert read(taken, 6) == {:ok, "before"}
    :ok = Cable.cut_after(cable, :to_listener, 7)
    :ok = :gen_tcp.send(dialler, "1234567 and more")
    assert read(taken, 7) == {:ok, "1234567"}
    assert {:error, :closed} = read(taken, 0)
    assert Cable.await_cut(cable) == :ok
    assert Cable.passed(cable) == %{to_listener: 13, to_dialler: 0}
    {dialler, taken} = connect(cable, listener)
    :ok = :gen_tcp.send(dialler, "the next one is whole")
    assert read(taken, 21) == {:ok, "the next one is whole"}
  end

  test "where nobody listens who dials is reset", %{listener: listener, cable: cable} do
    :gen_tcp.close(listener)
    with {:ok, refused} <- dial(cable), do: assert({:error, _closed_or_reset} = read(refused, 0))
    assert Cable.connections(cable) == 1
  end

  test "it ends with who started it, and its connections with it", %{cable: cable, listener: listener} do
    test = self()
    {:ok, port} = :inet.port(listener)

    starter =
      spawn(fn ->
        send(test, {:own, Cable.start(port)})
        receive do: (:done -> :ok)
      end)

    assert_receive {:own, own}
    {:ok, dialler} = dial(own)
    {:ok, taken} = :gen_tcp.accept(listener, @patience_ms)
    monitor = Process.monitor(own.pid)
    send(starter, :done)
    assert_receive {:DOWN, ^monitor, :process, _pid, :normal}, @patience_ms
    assert {:error, _closed} = read(dialler, 0)
    assert {:error, _closed} = read(taken, 0)
    assert Cable.connections(cable) == 1
  end
end
