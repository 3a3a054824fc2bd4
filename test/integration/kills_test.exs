defmodule Legation.KillsTest do
  # Both sides are other operating-system processes, and are killed in turn by `kill -9`, at no particular moment, with messages under
  # way: VMs, and the daemons beside them where there are some.
  use Legation.Case, async: true

  alias Legation.{TestJournal, TestVM}

  # LEGATION_KILLS=1000 for a long run.
  @kills String.to_integer(System.get_env("LEGATION_KILLS", "20"))

  @tag timeout: :infinity
  test "#{@kills} kills: nothing wrong is delivered and nothing twice, and no caller waits in vain" do
    path = Path.join(dir(), "journal-#{System.unique_integer([:positive])}")
    alice = start_vm(:alice, listen_address(:tcp_tls), 0)
    [%{address: bound}] = TestVM.call(alice, Legation, :listeners, [Alice])
    address = dial_address(listen_address(:tcp_tls), bound)
    listen = {:tcp, port: bound[:port], ip: {127, 0, 0, 1}}
    state = %{path: path, address: address, listen: listen, alice: alice, bob: start_vm(:bob, address, 0), begun: 0}
    state = state |> publish() |> send_on()

    state = Enum.reduce(1..@kills, state, fn number, state -> state |> progress() |> kill_one(number) end)
    progress(state)

    journal = TestJournal.read(path)
    by_sender = Enum.group_by(journal, &elem(&1, 1), &elem(&1, 2))
    # Who was killed before its first entry arrived has none.
    assert map_size(by_sender) > 1

    for {sender, numbers} <- by_sender do
      assert sender in for(n <- 1..state.begun, do: "s#{n}")
      assert numbers == Enum.sort(numbers), "#{sender}'s entries are out of order"
      assert numbers == Enum.uniq(numbers), "#{sender}'s entries were delivered twice"
    end

    # Nine are cast and the tenth is called.
    assert Enum.all?(journal, fn {kind, _sender, number} -> kind == if(rem(number, 10) == 0, do: :call, else: :cast) end)
  end

  # Until two more reports of entries have come since now; what else has come is looked at.
  defp progress(state, reports \\ 2)
  defp progress(state, 0), do: state

  defp progress(%{alice: alice, bob: bob} = state, reports) do
    receive do
      {:vm, ^alice, {:journal, _written}} -> progress(state, reports - 1)
      {:vm, ^bob, {:wrong, what}} -> flunk("a call has ended with #{inspect(what)}")
      {:vm, ^bob, {:lost, _reason}} -> progress(state, reports)
    after
      60_000 -> flunk("nothing arrives any more: #{inspect(TestVM.call(bob, Legation, :peers, [Bob]))}")
    end
  end

  defp kill_one(state, number) do
    victims = [:alice, :bob] ++ for side <- [:alice, :bob], transport_of(side) != :embedded, do: {:daemon, side}

    state |> forget_reports() |> kill_this(Enum.at(victims, rem(number, length(victims))))
  end

  defp kill_this(%{alice: alice} = state, :alice) do
    assert TestVM.kill(alice) == 128 + 9
    publish(%{state | alice: start_vm(:alice, state.listen, 500)})
  end

  defp kill_this(%{bob: bob} = state, :bob) do
    assert TestVM.kill(bob) == 128 + 9
    send_on(%{state | bob: start_vm(:bob, state.address, 500)})
  end

  # The VM lives on, and starts another.
  defp kill_this(state, {:daemon, side}) do
    os_pid = TestVM.call(state[side], Legation.Case, :daemon_pid, [instance(side)])
    # It may be between two daemons.
    if os_pid, do: System.cmd("kill", ["-KILL", "#{os_pid}"], stderr_to_stdout: true)
    state
  end

  defp forget_reports(%{alice: alice} = state) do
    receive do
      {:vm, ^alice, {:journal, _written}} -> forget_reports(state)
    after
      0 -> state
    end
  end

  defp publish(state) do
    :ok = TestVM.here(state.alice, TestJournal, :publish_writer, [Alice, "journal", state.path, 50])
    state
  end

  defp send_on(%{bob: bob, begun: begun} = state) do
    :ok = TestVM.here(bob, TestJournal, :start_sender, [Bob, "journal@alice", "s#{begun + 1}"])
    %{state | begun: begun + 1}
  end

  defp transport_of(side), do: if(Legation.TestTransport.option("#{side}") == :embedded, do: :embedded, else: :c_node)

  defp instance(:alice), do: Alice
  defp instance(:bob), do: Bob

  defp start_vm(side, address, tries) do
    vm = TestVM.start!()

    options =
      case side do
        :alice -> realm_options("alice", name: Alice, listen: [address], peers: [peer("bob")])
        :bob -> realm_options("bob", name: Bob, peers: [peer("alice", connect: [address])])
      end

    start(vm, options, tries)
    vm
  end

  # The daemon of a VM that was killed may have its port for a moment.
  defp start(vm, options, tries) do
    case TestVM.here(vm, Legation, :start_link, [options]) do
      {:ok, _pid} ->
        :ok

      {:error, _in_use} when tries > 0 ->
        receive do
        after
          20 -> start(vm, options, tries - 1)
        end
    end
  end
end
