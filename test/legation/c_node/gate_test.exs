defmodule Legation.CNode.GateTest do
  # What the daemon sends to the gate is made here by hand, and so is its control engine.
  use ExUnit.Case, async: false

  alias Legation.CNode.{Directory, Gate}
  alias Legation.FakeDaemon
  alias Legation.TestEngines.Counter

  @moduletag :capture_log

  defp start(opts) do
    fake = FakeDaemon.start!()
    options = FakeDaemon.options([realm: "alice"] ++ opts)
    config = FakeDaemon.config(options)
    start_supervised!({Directory, {options, config}})
    start_supervised!({Legation.GlobalNames, options})
    gate = start_supervised!({Gate, options})
    :ok = Directory.daemon_ready(options.name, 1)
    %{fake: fake, name: options.name, gate: gate}
  end

  defp bob(opts), do: [peers: [[realm: "bob", key: <<1::256>>] ++ opts]]

  defp message(id, target, kind, term, more \\ []) do
    meta = %{realm: more[:realm] || "bob", engine: more[:engine] || "ping", source: "pong", op: more[:op] || kind}
    payload = if more[:raw], do: term, else: :erlang.term_to_binary(term)
    {:legation_gate, id, target, kind, more[:label] || 0, more[:from] || :none, meta, payload}
  end

  defp verdicts(count, verdicts \\ [])
  defp verdicts(count, verdicts) when length(verdicts) >= count, do: verdicts

  defp verdicts(count, verdicts) do
    assert_receive {:told, {:gate, more}}, 5_000
    verdicts(count, verdicts ++ more)
  end

  test "what is agreed to is delivered as a plain message, of each kind" do
    %{gate: gate} = start(bob(export: :all, allow: [:call, :cast, :send, :sys, :event]))
    stand_in = spawn(fn -> :ok end)
    from = {stand_in, {:"$legation", 5, "bob", "pong"}}
    send(gate, message(1, self(), :send, {:plain, 1}))
    send(gate, message(2, self(), :cast, :hello))
    send(gate, message(3, self(), :call, :get, label: 1, from: from))
    send(gate, message(4, self(), :call, :get_state, label: 2, from: from, op: :sys))
    send(gate, message(5, self(), :call, :which_handlers, label: 4, from: from, op: :event))
    assert verdicts(5) == for(id <- 1..5, do: {id, :ok})
    assert_received {:plain, 1}
    assert_received {:"$gen_cast", :hello}
    assert_received {:"$gen_call", ^from, :get}
    assert_received {:system, ^from, :get_state}
    assert_received {^stand_in, ^from, :which_handlers}
  end

  test "a registered name is looked up for each message" do
    %{gate: gate} = start(bob(export: :all))
    Process.register(self(), :a_name_of_gate_test)
    send(gate, message(1, :a_name_of_gate_test, :send, :found))
    send(gate, message(2, :nobody_is_called_so, :send, :lost))
    assert verdicts(2) == [{1, :ok}, {2, {:refuse, :noproc}}]
    assert_received :found
  end

  test "the filters of the peer and of the engine are asked, and both must agree" do
    test = self()
    filter = fn message -> send(test, {:asked_filter, message}) && message.message != :bad end
    small = fn %{message: message} -> is_atom(message) end
    %{gate: gate} = start(bob(filter: filter, export: ["ping", {"small", filter: small}]))
    send(gate, message(1, self(), :send, :good))
    send(gate, message(2, self(), :send, :bad))
    send(gate, message(3, self(), :send, :good, engine: "small"))
    send(gate, message(4, self(), :send, "good", engine: "small"))
    send(gate, message(5, self(), :send, :good, engine: "not exported"))

    assert verdicts(5) == [
             {1, :ok},
             {2, {:refuse, :filtered}},
             {3, :ok},
             {4, {:refuse, :filtered}},
             {5, {:refuse, :forbidden}}
           ]

    assert_received {:asked_filter, %{realm: "bob", engine: "ping", source: "pong", op: :send, message: :good}}
    assert_received :good
    refute_received :bad
  end

  test "a filter that fails has not agreed, and the gate goes on" do
    filter = fn
      %{message: :raise} -> raise "no"
      %{message: :exit} -> exit(:no)
      %{message: answer} -> answer
    end

    %{gate: gate} = start(bob(export: :all, filter: filter))
    for {term, id} <- Enum.with_index([:raise, :exit, :ok, true]), do: send(gate, message(id, self(), :cast, term))
    filtered = {:refuse, :filtered}
    assert verdicts(4) == [{0, filtered}, {1, filtered}, {2, filtered}, {3, :ok}]
    assert_received {:"$gen_cast", true}
    refute_received {:"$gen_cast", _other}
  end

  test "no atom is made of what a peer sends, and what can't be decoded is refused" do
    %{gate: gate} = start(bob(export: :all))
    unknown = "never_seen_#{System.unique_integer([:positive])}_#{System.os_time()}"
    payload = <<131, 119, byte_size(unknown), unknown::binary>>
    send(gate, message(1, self(), :send, payload, raw: true))
    send(gate, message(2, self(), :send, <<131, 255>>, raw: true))
    send(gate, message(3, self(), :send, :known))
    undecodable = {:refuse, :undecodable}
    assert verdicts(3) == [{1, undecodable}, {2, undecodable}, {3, :ok}]
    assert_raise ArgumentError, fn -> String.to_existing_atom(unknown) end
  end

  test "a mailbox takes as many as the limit says, and no more" do
    %{gate: gate} = start(bob(export: :all) ++ [limits: [engine_queue_max: 3]])
    stuck = start_supervised!({Counter, 0})
    :sys.suspend(stuck)
    for id <- 1..5, do: send(gate, message(id, stuck, :cast, {:add, 1}))
    overload = {:refuse, :overload}
    assert verdicts(5) == [{1, :ok}, {2, :ok}, {3, :ok}, {4, overload}, {5, overload}]
    :sys.resume(stuck)
    assert GenServer.call(stuck, :get) == 3
    dead = spawn(fn -> :ok end)
    monitor = Process.monitor(dead)
    assert_receive {:DOWN, ^monitor, :process, ^dead, _reason}
    send(gate, message(6, dead, :send, 1))
    assert verdicts(1) == [{6, {:refuse, :noproc}}]
  end

  test "what waits is dealt with in its order, and told in few messages" do
    %{gate: gate} = start(bob(export: :all))
    :sys.suspend(gate)
    for id <- 1..600, do: send(gate, message(id, self(), :send, {:number, id}))
    :sys.resume(gate)
    assert verdicts(600) == for(id <- 1..600, do: {id, :ok})
    refute_received {:told, _more}
    for id <- 1..600, do: assert_received({:number, ^id})
    assert {:messages, []} = Process.info(self(), :messages) |> without_questions()
  end

  defp without_questions({:messages, messages}), do: {:messages, Enum.reject(messages, &match?({:asked, _}, &1))}

  test "other settings of a peer hold from its next message on" do
    %{gate: gate, name: name} = start(bob(export: :all, filter: fn _message -> false end))
    send(gate, message(1, self(), :send, :a))
    assert verdicts(1) == [{1, {:refuse, :filtered}}]
    :ok = Legation.disconnect("bob", name)
    :ok = Legation.connect([realm: "bob", key: <<1::256>>, export: :all], name)
    send(gate, message(2, self(), :send, :b))
    assert verdicts(1) == [{2, :ok}]
    # Another program has told the daemon of this one, and has said what it may do.
    send(gate, message(3, self(), :send, :c, realm: "somebody else's"))
    assert verdicts(1) == [{3, :ok}]
  end
end
