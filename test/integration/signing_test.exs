defmodule Legation.SigningTest do
  # Who signs for whom (docs/protocol.md 9.8): nothing of it is seen by engines. Bob has the engines that speak, alice the one that hears.
  use Legation.Case, async: true

  @speakers 100
  @rounds 20

  # What `signing` says is bob's, towards alice.
  defp linked(signing, accepted, opts) do
    test = self()
    alice = start_realm("alice")
    bob = start_realm("bob")
    told = fn %{source: source, op: op, message: message} -> send(test, {:told, source, op, message}) && true end
    filter = if opts[:sources], do: [filter: told], else: []
    link(alice, bob, :tcp_tls, filter ++ [accept_signing: accepted, back: [signing: signing]])
    echo = start_supervised!({Echo, owner: self(), instance: alice})
    publish(alice, "echo", echo, [bob], Keyword.take(opts, [:receipts]))
    %{alice: alice, bob: bob}
  end

  # Processes that are engines, and do what they are told. `own`: which of them sign for themselves.
  defp speakers(%{alice: alice, bob: bob}, count, own \\ []) do
    for number <- 1..count do
      name = "speaker #{number}"
      agent = start_supervised!({Agent, fn -> nil end}, id: name)
      publish(bob, name, agent, [alice], delegate: number not in own)
      {name, agent}
    end
  end

  defp speak(speakers, bob, rounds) do
    for {name, agent} <- speakers do
      Agent.cast(agent, fn nil ->
        for n <- 1..rounds, do: :ok = Legation.cast("echo@alice", {name, n}, bob)
        nil
      end)
    end
  end

  # Each source's numbers, in the order in which they were delivered.
  defp heard(count) do
    for _n <- 1..count, reduce: %{} do
      heard ->
        assert_receive {:told, source, :cast, {name, n}}
        assert source == name
        Map.update(heard, source, [n], &[n | &1])
    end
  end

  test "a hundred engines that the realm signs for are heard in order, each as itself" do
    %{alice: alice, bob: bob} = realms = linked(:delegated, [:engine, :delegated], sources: true)
    speakers = speakers(realms, @speakers)
    speak(speakers, bob, @rounds)
    heard = heard(@speakers * @rounds)
    assert map_size(heard) == @speakers
    for {_source, numbers} <- heard, do: assert(Enum.reverse(numbers) == Enum.to_list(1..@rounds))
    for _n <- 1..(@speakers * @rounds), do: assert_receive({:cast, {_name, _n}})

    for {name, agent} <- Enum.take(speakers, 5) do
      assert {:remote, sender} = Agent.get(agent, fn nil -> GenServer.call(via(bob, "echo@alice"), :who) end)
      assert %{realm: "bob", engine: ^name} = sender
    end

    assert session_counter(alice, "bob", :not_delegated) == 0
    assert session_counter(alice, "bob", :batches_in) < @speakers * @rounds
    assert [%{signing: :delegated}] = Legation.peers(bob)
    assert [%{signing: :engine}] = Legation.peers(alice)
    assert [%{signing: :delegated}] = Legation.connections(bob)
  end

  test "an engine that is published with `delegate: false` signs for itself, beside others" do
    %{alice: alice, bob: bob} = realms = linked(:delegated, [:engine, :delegated], sources: true)
    speakers = speakers(realms, 4, [2, 3])
    speak(speakers, bob, @rounds)
    heard = heard(4 * @rounds)
    for {_source, numbers} <- heard, do: assert(Enum.reverse(numbers) == Enum.to_list(1..@rounds))
    assert map_size(heard) == 4
    for counter <- [:not_delegated, :bad_signature], do: assert(session_counter(alice, "bob", counter) == 0)
  end

  test "a peer that takes only what engines sign is sent that" do
    %{alice: alice, bob: bob} = realms = linked(:delegated, [:engine], sources: true)
    assert [%{signing: :engine}] = Legation.peers(bob)
    speakers = speakers(realms, 3)
    speak(speakers, bob, @rounds)
    assert map_size(heard(3 * @rounds)) == 3
    assert session_counter(alice, "bob", :mode_refused) == 0
  end

  test "a receipt of what the realm has signed for an engine proves the engine" do
    %{bob: bob} = realms = linked(:delegated, [:engine, :delegated], receipts: self())
    [{name, _agent}] = speakers = speakers(realms, 1)
    speak(speakers, bob, 1)
    assert_receive {:legation_receipt, "echo", %{realm: "bob", source: ^name, receipt: receipt}}
    carol = start_realm("carol")
    assert {:ok, proof} = Legation.verify_receipt(receipt, public_key("bob"), carol)
    assert :erlang.binary_to_term(proof.payload) == {name, 1}
    assert inspect(proof) =~ name
  end
end
