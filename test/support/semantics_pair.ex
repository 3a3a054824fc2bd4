defmodule Legation.Semantics.Pair do
  @moduledoc """
  What the scenarios of `Legation.Semantics` are made of: alice with an engine `echo`, bob who has learned it, a cable between them, and
  the states of a link.
  """

  import ExUnit.Assertions
  import Legation.Case

  alias Legation.{Cable, Semantics, TestEngines, TestVM}

  @patience_ms 10_000
  # Longer than any scenario: who wants the end of it says so.
  @grace_ms 60_000

  @doc """
  Alice and bob, linked.

    * `:limits`, of both
    * `:link` - options of bob's at alice's: what he may do
    * `:realm` - alice's, where another than hers matters in `:global`
    * `:bob` - options of bob's
  """
  def pair(opts \\ []) do
    limits = Keyword.merge([grace_ms: @grace_ms], opts[:limits] || [])
    realm = opts[:realm] || "alice"
    alice = start_realm(realm, limits: limits)
    bob = start_realm("bob", Keyword.merge([limits: limits], opts[:bob] || []))
    Semantics.runs("alice", transport(alice))
    Semantics.runs("bob", transport(bob))
    cable = Cable.start()
    link(alice, bob, :tcp_tls, [through: cable] ++ (opts[:link] || []))
    pair = %{alice: alice, bob: bob, cable: cable, realm: realm, name: "echo@" <> realm}
    watched(Map.merge(pair, %{echo: engine(alice, bob), watch_alice: watch(alice), watch_bob: watch(bob)}))
  end

  # In no link with the test: its end is part of a scenario.
  defp engine(alice, bob) do
    {:ok, echo} = TestEngines.Echo.start(owner: self())
    ExUnit.Callbacks.on_exit(fn -> Process.exit(echo, :kill) end)
    publish(alice, "echo", echo, [bob])
    echo
  end

  @doc "The same with alice in another operating-system process."
  def far_pair do
    vm = TestVM.start!()
    bob = start_realm("bob", limits: [grace_ms: @grace_ms])
    cable = Cable.start()
    # As modes take turns, she is what a test's next realm would be.
    far =
      realm_options("alice",
        name: Alice,
        listen: [listen_address(:tcp_tls)],
        peers: [peer("bob")],
        limits: [grace_ms: @grace_ms]
      )

    Semantics.runs("alice", if(far[:transport] == :embedded, do: :embedded, else: :c_node))
    Semantics.runs("bob", transport(bob))
    pair = start_far(%{vm: vm, far: far, bob: bob, cable: cable, realm: "alice", name: "echo@alice"})
    [{carrier, listen}] = far[:listen]

    :ok =
      Legation.connect(peer("alice", connect: [Cable.lead(cable, dial_address({carrier, listen}, pair.address))]), bob)

    await_engine(bob, "echo@alice")
    watched(Map.put(pair, :watch_bob, watch(bob)))
  end

  defp start_far(%{vm: vm} = pair) do
    {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [pair.far])
    [%{address: address}] = TestVM.call(vm, Legation, :listeners, [Alice])
    TestVM.here(vm, TestVM, :publish_echo, [Alice, "echo"])
    Map.put(pair, :address, address)
  end

  @doc "Kills alice's system, and starts it again: the same realm, and the same cable to it."
  def restart(pair) do
    # A daemon that outlived its VM for a moment would say that the engine has crashed; a VM that outlived its daemon could start another.
    if pair.far[:transport] != :embedded do
      daemon = TestVM.call(pair.vm, Legation.CNode.Daemon, :os_pid, [Alice])
      :ok = TestVM.signal(pair.vm, "STOP")
      {"", 0} = System.cmd("kill", ["-KILL", Integer.to_string(daemon)])
    end

    TestVM.kill(pair.vm)
    pair = start_far(%{pair | vm: TestVM.start!()})
    [{carrier, listen}] = pair.far[:listen]
    Cable.lead(pair.cable, dial_address({carrier, listen}, pair.address))
    pair
  end

  defp watched(pair) do
    proxy = Legation.whereis(pair.name, pair.bob)
    Map.merge(pair, %{proxy: proxy, monitor: monitor(proxy), link: linked(proxy)})
  end

  @doc "A process that is linked to it, and tells how that ends. The link is there when this returns."
  def linked(proxy) do
    test = self()

    pid =
      spawn(fn ->
        Process.flag(:trap_exit, true)
        Process.link(proxy)
        monitor(proxy) |> Process.demonitor([:flush])
        send(test, {:linked, self()})
        receive do: ({:EXIT, ^proxy, reason} -> send(test, {:link_ended, self(), reason}))
      end)

    ExUnit.Callbacks.on_exit(fn -> Process.exit(pid, :kill) end)
    assert_receive {:linked, ^pid}
    pid
  end

  ## States

  @doc "The link is lost, and both know it."
  def lose(pair) do
    assert Cable.cut(pair.cable, :down) == 1
    await(pair.watch_bob, {:peer_lost, pair.realm})
    await(pair.watch_alice, {:peer_lost, "bob"})
    pair
  end

  @doc "A link again: the session goes on."
  def resume(pair) do
    :ok = Cable.mend(pair.cable)
    await(pair.watch_bob, {:peer_resumed, pair.realm})
    await(pair.watch_alice, {:peer_resumed, "bob"})
    pair
  end

  @doc "The grace is over: of a pair whose is short."
  def grace_over(pair) do
    Cable.cut(pair.cable, :down)
    await(pair.watch_bob, {:peer_down, pair.realm})
    await(pair.watch_alice, {:peer_down, "bob"})
    pair
  end

  @doc "A link again, and a session of its own; all that was published before is announced."
  def begin_again(pair) do
    :ok = Cable.mend(pair.cable)
    await(pair.watch_bob, {:peer_up, pair.realm})
    await(pair.watch_alice, {:peer_up, "bob"})
    pair
  end

  @doc "Alice says goodbye."
  def goodbye(pair), do: :ok = Legation.disconnect("bob", pair.alice)

  ## What is seen

  @doc "A call by a process of its own, that the session has taken when this returns."
  def call(pair, request, server \\ nil) do
    before = pending(pair)
    call = async_call(server || pair.proxy, request)
    until(pending(pair) > before)
    call
  end

  @doc "A call that the engine keeps waiting."
  def hold(pair) do
    call = async_call(pair.proxy, {:hold, 1})
    assert_receive {:held, 1, from}
    {call, from}
  end

  defp pending(pair), do: Legation.counters(pair.bob).sessions[pair.realm].calls_pending

  @doc "How a call has ended, without the call that OTP puts into it, and without the node."
  def outcome(call) when is_pid(call), do: call |> await_call() |> outcome()
  def outcome({:exit, {{:nodedown, _node}, _call}}), do: {:exit, :nodedown}
  def outcome({:exit, {reason, _call}}), do: {:exit, reason}
  def outcome({:reply, reply}), do: {:reply, reply}

  @doc "A call that is made, and ends, here."
  def called(server, request), do: server |> async_call(request) |> outcome()

  @doc "What the engine has got, the first thing first, up to what this process has sent it and what was sent before that."
  def log(pair) do
    synchronize(pair)
    pair.echo |> :sys.get_state() |> Map.fetch!(:log) |> Enum.reverse()
  end

  @doc "What was on its way to the engine and back has arrived, if there is a way."
  def synchronize(pair) do
    with %{state: :up} <- pair.bob |> Legation.peers() |> Enum.find(&(&1.realm == pair.realm)),
         proxy when is_pid(proxy) <- Legation.whereis(pair.name, pair.bob),
         do: assert(GenServer.call(proxy, {:echo, 1}) == 1)
  end

  @doc "The reason with which a monitor fires."
  def down(monitor) do
    assert_receive {:DOWN, ^monitor, :process, _pid, reason}, @patience_ms
    reason
  end

  @doc "The monitor of the proxy: its reason, if it has fired; whatever was behind it has come."
  def fired(%{monitor: monitor}) do
    receive do
      {:DOWN, ^monitor, :process, _pid, reason} -> [reason]
    after
      0 -> []
    end
  end

  @doc "The same, of one that has to fire."
  def fires(%{monitor: monitor}) do
    assert_receive {:DOWN, ^monitor, :process, _pid, reason}, @patience_ms
    [reason]
  end

  @doc "How the link to the proxy has ended, if it has."
  def link_fired(%{link: link}) do
    receive do
      {:link_ended, ^link, reason} -> [reason]
    after
      0 -> []
    end
  end

  def link_fires(%{link: link}) do
    assert_receive {:link_ended, ^link, reason}, @patience_ms
    [reason]
  end

  @doc "The kinds of events that a subscriber has got of its peer, up to one of these."
  def events(%{ref: ref}, last) do
    assert_receive {:legation, ^ref, event}, @patience_ms

    case elem(event, 0) do
      ^last -> [last]
      kind when kind in [:peer_up, :peer_lost, :peer_resumed, :peer_down] -> [kind | events(%{ref: ref}, last)]
      _of_engines_or_a_gap -> events(%{ref: ref}, last)
    end
  end
end
