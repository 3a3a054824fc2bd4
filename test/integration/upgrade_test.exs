defmodule Legation.UpgradeTest do
  # Row 38: the code of the library is loaded anew under a link that is up, twice, so that nobody can go on in the old one.
  use Legation.Case, async: true

  alias Legation.{TestUpgrade, TestVM}

  @moduletag :embedded

  test "a hot upgrade keeps links, sessions, proxies and calls in flight" do
    vm = TestVM.start!()
    alice = realm_options("alice", name: Alice, listen: [listen_address(:tcp_tls)], peers: [peer("bob")])
    {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [alice])
    TestVM.here(vm, TestVM, :publish_echo, [Alice, "echo"])
    [%{address: bound}] = TestVM.call(vm, Legation, :listeners, [Alice])

    bob = start_realm("bob", peers: [peer("alice", connect: [dial_address(listen_address(:tcp_tls), bound)])])
    {:ok, mine} = Echo.start_link(owner: self(), instance: bob)
    publish(bob, "mine", mine)
    proxy = await_engine(bob, "echo@alice")
    TestVM.here(vm, TestVM, :await_engine, [Alice, "mine@bob"])
    theirs = TestVM.call(vm, Legation, :whereis, ["mine@bob", Alice])
    [%{since: since}] = TestVM.call(vm, Legation, :connections, [Alice])
    watch = watch(bob)

    # In flight all the time, each way.
    call = async_call(proxy, {:hold, 1})
    assert_receive {:vm, ^vm, {:held, 1, from}}
    back = Task.async(fn -> TestVM.call(vm, GenServer, :call, [theirs, {:hold, 2}, :infinity]) end)
    assert_receive {:held, 2, back_from}

    for round <- 1..2 do
      modules = TestVM.call(vm, TestUpgrade, :run, [])
      assert length(modules) > 40
      # Whoever waits is a message away from the new code.
      assert GenServer.call(proxy, {:echo, round}) == round
      assert TestVM.call(vm, GenServer, :call, [theirs, {:echo, round}]) == round
    end

    TestVM.call(vm, GenServer, :reply, [from, :at_last])
    assert await_call(call) == {:reply, :at_last}
    GenServer.reply(back_from, "here, too")
    assert Task.await(back) == "here, too"

    assert [%{since: ^since}] = TestVM.call(vm, Legation, :connections, [Alice])
    assert TestVM.call(vm, Legation, :whereis, ["mine@bob", Alice]) == theirs
    refute_received {:legation, _ref, _event}
    unwatch(watch)
  end
end
