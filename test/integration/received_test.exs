defmodule Legation.ReceivedTest do
  # Row 80: on request a sender is told that the engine's mailbox has its message.
  use Legation.Case, async: true

  for carrier <- carriers() do
    describe "over #{carrier}" do
      setup do
        alice = start_realm("alice")
        bob = start_realm("bob")
        link(alice, bob, unquote(carrier), allow: [:cast, :send])
        {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
        publish(alice, "echo", echo, [bob])
        %{alice: alice, bob: bob, echo: echo}
      end

      test "a cast that is asked after is answered when the mailbox has it, not when it is dealt with", context do
        %{bob: bob, echo: echo} = context
        :sys.suspend(echo)
        assert Legation.cast("echo@alice", {:hello, 1}, received: 10_000, instance: bob) == :ok
        assert {:messages, [{:"$gen_cast", {:hello, 1}}]} = Process.info(echo, :messages)
        :sys.resume(echo)
        assert_receive {:cast, {:hello, 1}}
      end

      test "a plain message as well, by nothing but OTP", %{bob: bob} do
        proxy = Legation.whereis("echo@alice", bob)
        assert :gen.call(proxy, :"$legation_send", {:hello, 2}, 10_000) == {:ok, :ok}
        assert_receive {:info, {:hello, 2}}
      end

      test "what is refused says why", %{bob: bob, alice: alice} do
        {:ok, closed} = Echo.start_link(owner: self(), instance: alice)
        proxy = publish(alice, "closed", closed, [bob])
        # Only casts and plain messages are allowed, and no disguise is a plain message.
        refused = {:ok, {:error, {:legation, :forbidden}}}
        assert :gen.call(proxy, :"$legation_send", {:system, {self(), 1}, :get_state}, 10_000) == refused
        assert GenServer.call(proxy, :hello) == {:error, {:legation, :forbidden}}
        fun = fn -> :ok end
        received = [received: 10_000, instance: bob]
        assert Legation.cast("closed@alice", fun, received) == {:error, {:legation, :identifiers}}
        assert Legation.cast("nobody@alice", :hello, received) == {:error, :noproc}
        refute_received {:cast, _message}
      end

      test "to an engine that is withdrawn, or a peer that is lost, nothing is promised", %{alice: alice, bob: bob} do
        proxy = Legation.whereis("echo@alice", bob)
        :ok = Legation.withdraw("echo", alice)
        await_forgotten(bob, "echo@alice")
        assert catch_exit(:gen.call(proxy, :"$legation_cast", :hello, 10_000)) == :noproc
        assert Legation.cast("echo@alice", :hello, received: 10_000, instance: bob) == {:error, :noproc}
      end
    end
  end

  # What stands for a process of one realm's takes such a message for an answer to its calls; another realm may not give it.
  @tag :embedded
  test "a forged answer gets no further for being asked after" do
    alice = start_realm("alice")
    bob = start_realm("bob")
    link(alice, bob, :tcp_tls)
    {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
    proxy = publish(alice, "echo", echo, [bob])
    forged = {{:"$legation", 1, "carol", ""}, :forged}
    send(proxy, forged)
    assert :gen.call(proxy, :"$legation_send", forged, 10_000) == {:ok, {:error, {:legation, :forbidden}}}
    assert Legation.counters(alice).dropped_forbidden == 1
    refute_received {:info, ^forged}
  end

  test "an engine of our own has it at once" do
    alice = start_realm("alice")
    {:ok, echo} = Echo.start_link(owner: self(), instance: alice)
    publish(alice, "echo", echo)
    assert Legation.cast("echo@alice", {:hello, 3}, received: 10_000, instance: alice) == :ok
    assert_receive {:cast, {:hello, 3}}
    assert_raise ArgumentError, fn -> Legation.cast("echo@alice", :x, received: :soon, instance: alice) end
    assert_raise ArgumentError, fn -> Legation.cast("echo@alice", :x, received: 1, block: 1, instance: alice) end
  end
end
