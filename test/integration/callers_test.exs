defmodule Legation.CallersTest do
  # docs/callers.md, cell by cell: alice's engines are in another operating-system process, bob's callers here. A cell that
  # Legation doesn't do as it is written, and a row that is missing, fails.
  use Legation.Case, async: true

  alias Legation.{Instance, StandIn, TestVM}

  @page Path.expand("../../docs/callers.md", __DIR__)
  @external_resource @page

  @realm "alice_for_callers"
  @message_bytes_max 100_000
  @queue_max 100
  # In the table of callers a number of ms; here short where it is waited for.
  @soon_ms 1
  @timeout_ms 30_000

  # What is done to an engine, or asked of it, for each "what happens". {:held, fun}: done while a call waits.
  @calls %{
    "there is no such engine, or no more" => :missing,
    "the engine is withdrawn meanwhile" => {:held, :withdraw},
    "the engine crashes meanwhile" => {:held, {:exit, :oops}},
    "the engine ends `:normal` meanwhile" => {:held, {:exit, :normal}},
    "the engine is shut down meanwhile" => {:held, {:exit, {:shutdown, :secret}}},
    "the engine is killed meanwhile" => {:held, :kill},
    "the session is lost meanwhile" => {:held, :lose_session},
    "nobody answers" => :nobody_answers,
    "the peer's policy forbids it" => {:ask, "casts_only", {:echo, 1}},
    "the peer's filter refuses it" => {:ask, "filtered", {:echo, 1}},
    "the engine's mailbox is over its bound" => {:ask, "stuck", {:echo, 1}},
    "the request holds an atom that the peer lacks" => {:ask, "echo", :fresh_atom},
    "the reply holds an atom that we lack" => {:ask, "echo", :fresh_name},
    "the request holds a fun" => {:ask, "echo", :fun},
    "the reply holds a fun" => {:ask, "echo", :own_fun},
    "the request is over the message limit" => {:ask, "echo", {:echo, :binary.copy("x", @message_bytes_max)}},
    "the reply is over the message limit" => {:ask, "echo", {:bytes, @message_bytes_max}}
  }

  @watches %{
    "the engine is withdrawn" => :withdraw,
    "the engine crashes" => {:exit, :oops},
    "the engine ends `:normal`" => {:exit, :normal},
    "the engine is shut down" => {:exit, {:shutdown, :secret}},
    "the engine is killed" => :kill,
    "the session is lost" => :lose_session,
    "somebody here kills the proxy" => :kill_proxy,
    "the proxy has been gone before" => :gone
  }

  setup do
    vm = TestVM.start!()
    {carrier, opts} = listen_address(:tcp_tls)

    export = ["echo", "stuck", {"casts_only", allow: [:cast]}, {"filtered", filter: {TestVM, :refuse}}]
    limits = [message_bytes_max: @message_bytes_max, engine_queue_max: @queue_max]
    peers = [peer("bob", export: export)]
    alice = realm_options(@realm, name: Alice, listen: [{carrier, opts}], peers: peers, limits: limits)
    {:ok, _pid} = TestVM.here(vm, Legation, :start_link, [alice])
    [%{address: address}] = TestVM.call(vm, Legation, :listeners, [Alice])

    bob =
      start_realm("bob",
        # So that no other test's bob is after these names in :global.
        global: true,
        limits: [message_bytes_max: @message_bytes_max],
        peers: [peer(@realm, connect: [dial_address({carrier, opts}, address)])]
      )

    for name <- ["casts_only", "filtered"], do: TestVM.here(vm, TestVM, :publish_echo, [Alice, name])
    :ok = TestVM.here(vm, TestVM, :publish_stuck, [Alice, "stuck", @queue_max])
    %{vm: vm, bob: bob}
  end

  for {heading, language} <- ["Calls from Elixir": :elixir, "Calls from Erlang": :erlang] do
    @tag timeout: 300_000
    test "#{heading}: every cell of the table is so", context do
      rows = rows(unquote(to_string(heading)), context.bob)

      for [what, timeout | cells] <- rows, {way, cell} <- Enum.zip([:pid, :global, :via], cells) do
        happening = Map.fetch!(@calls, elixir(what))
        infinite? = String.trim_leading(timeout, "`") =~ ~r/^:?infinity/
        seen = call(happening, unquote(language), way, infinite?, context)
        assert {what, timeout, way, seen} == {what, timeout, way, cell}
      end

      expected = for what <- Map.keys(@calls), timeout <- ["ms", "infinity"], do: {what, timeout}
      there = for [what, timeout | _cells] <- rows, do: {elixir(what), String.replace(timeout, ["`", ":"], "")}
      assert Enum.sort(there) == Enum.sort(expected)
    end
  end

  test "Monitors and links: every cell of the table is so", context do
    rows = rows("Monitors and links", context.bob)

    for [what | cells] <- rows,
        {{language, means}, cell} <-
          Enum.zip([elixir: :monitor, elixir: :link, erlang: :monitor, erlang: :link], cells) do
      reason = watch_end(Map.fetch!(@watches, what), means, context)
      seen = if reason == :no_signal, do: "no signal", else: "`" <> text(reason, language) <> "`"
      assert {what, means, seen} == {what, means, cell}
    end

    assert Enum.sort(for [what | _cells] <- rows, do: what) == Enum.sort(Map.keys(@watches))
  end

  ## Calls

  defp call(:missing, language, way, infinite?, %{vm: vm, bob: bob} = context) do
    server = server(way, "echo", language, context)
    TestVM.call(vm, Legation, :withdraw, ["echo", Alice])
    await_forgotten(bob, "echo@" <> @realm)
    settle_global(bob)

    start_call(language, server, {:echo, 1}, timeout(infinite?))
    |> ended(language, server, {:echo, 1}, timeout(infinite?))
  end

  defp call({:held, event}, language, way, infinite?, %{vm: vm} = context) do
    server = server(way, "echo", language, context)
    pid = start_call(language, server, {:hold, 1}, timeout(infinite?))
    assert_receive {:vm, ^vm, {:held, 1, _from}}
    happen(event, context)
    ended(pid, language, server, {:hold, 1}, timeout(infinite?))
  end

  defp call(:nobody_answers, language, way, true, %{vm: vm} = context) do
    server = server(way, "echo", language, context)
    pid = start_call(language, server, {:hold, 1}, :infinity)
    assert_receive {:vm, ^vm, {:held, 1, _from}}
    # Somebody else's call has come and gone meanwhile.
    assert GenServer.call(server, {:echo, 1}) == 1
    assert Process.alive?(pid)
    assert GenServer.call(server, {:release, 1, "at last"}) == :ok
    assert ended(pid, language, server, {:hold, 1}, :infinity) =~ "at last"
    "waits"
  end

  defp call(:nobody_answers, language, way, false, context) do
    server = server(way, "stuck_not", language, context)
    pid = start_call(language, server, {:hold, 1}, @soon_ms)
    ended(pid, language, server, {:hold, 1}, @soon_ms)
  end

  defp call({:ask, engine, request}, language, way, infinite?, context) do
    request = request(request)
    server = server(way, engine, language, context)
    pid = start_call(language, server, request, timeout(infinite?))
    ended(pid, language, server, request, timeout(infinite?))
  end

  defp timeout(true), do: :infinity
  defp timeout(false), do: @timeout_ms

  # Atoms that one VM has and the other has not, new for each cell.
  defp request(:fresh_atom), do: {:echo, String.to_atom("fresh_#{System.os_time()}_#{System.unique_integer()}")}
  defp request(:fresh_name), do: {:fresh_atom, "fresh_#{System.os_time()}_#{System.unique_integer()}"}
  defp request(:fun), do: {:echo, fn -> :ok end}
  defp request(request), do: request

  defp start_call(language, server, request, timeout) do
    test = self()

    spawn(fn ->
      result =
        try do
          case language do
            :elixir -> {:reply, GenServer.call(server, request, timeout)}
            :erlang -> {:reply, :gen_server.call(server, request, timeout)}
          end
        catch
          :exit, reason -> {:exit, reason}
        end

      send(test, {:called, self(), result})
    end)
  end

  # As the cell has it.
  defp ended(pid, language, server, request, timeout) do
    case {language, await_call(pid)} do
      {_language, {:reply, reply}} ->
        "returns `" <> text(reply, language) <> "`"

      {:elixir, {:exit, {reason, {GenServer, :call, [^server, ^request, ^timeout]}}}} ->
        exits(reason, "call", language)

      {:erlang, {:exit, {reason, {:gen_server, :call, [^server, ^request, ^timeout]}}}} ->
        exits(reason, "Call", language)

      {_language, {:exit, other}} ->
        "exits `" <> text(other, language) <> "`"
    end
  end

  # Whichever node the test runs on, or its daemon.
  defp exits({:nodedown, node}, call, language) when node != :this do
    words = if node == node(), do: "node()", else: "node(pid)"
    String.replace(exits({:nodedown, :this}, call, language), ~r/:?this/, words)
  end

  defp exits(reason, call, language), do: "exits `{" <> text(reason, language) <> ", " <> call <> "}`"

  defp text(term, :elixir), do: inspect(term)
  defp text(term, :erlang), do: :io_lib.format("~0p", [term]) |> IO.iodata_to_binary()

  ## Monitors and links

  defp watch_end(:gone, means, %{bob: bob} = context) do
    proxy = server(:pid, "echo", :elixir, context)
    happen(:withdraw, context)
    await_forgotten(bob, "echo@" <> @realm)
    monitor = Process.monitor(proxy)
    assert_receive {:DOWN, ^monitor, :process, ^proxy, _reason}
    watched(means, proxy)
  end

  defp watch_end(event, means, %{bob: bob} = context) do
    # The same process, whoever is asked.
    proxy = server(:pid, "echo", :elixir, context)
    assert :global.whereis_name("echo@" <> @realm) == proxy
    assert GenServer.whereis(server(:via, "echo", :elixir, context)) == proxy

    cond do
      event != :kill_proxy ->
        # On another node a monitor or link is there when what follows it is.
        watched(means, proxy, fn -> GenServer.call(proxy, {:echo, 1}) && happen(event, context) end)

      transport(bob) == :embedded ->
        watched(means, proxy, fn -> Process.exit(proxy, :kill) end)

      true ->
        unharmed(means, proxy)
    end
  end

  # The call is behind the exit, and its reply behind what would come of that.
  defp unharmed(means, proxy) do
    if means == :link, do: Process.link(proxy), else: Process.monitor(proxy)
    Process.exit(proxy, :kill)
    assert GenServer.call(proxy, {:echo, 1}) == 1
    refute_received {_down_or_exit, _ref, :process, ^proxy, _reason}
    refute_received {:EXIT, ^proxy, _reason}
    Process.unlink(proxy)
    :no_signal
  end

  defp watched(means, proxy, happen \\ fn -> :ok end)

  defp watched(:monitor, proxy, happen) do
    ref = :erlang.monitor(:process, proxy)
    happen.()
    assert_receive {:DOWN, ^ref, :process, ^proxy, reason}
    reason
  end

  defp watched(:link, proxy, happen) do
    Process.flag(:trap_exit, true)
    Process.link(proxy)
    happen.()
    assert_receive {:EXIT, ^proxy, reason}
    reason
  end

  ## What happens at alice's

  defp happen(:withdraw, %{vm: vm}), do: :ok = TestVM.call(vm, Legation, :withdraw, ["echo", Alice])

  defp happen({:exit, reason}, %{vm: vm}),
    do: TestVM.call(vm, GenServer, :cast, [via(Alice, "echo"), {:exit, reason}])

  defp happen(:kill, %{vm: vm}), do: TestVM.call(vm, TestVM, :kill_engine, [Alice, "echo"])

  defp happen(:lose_session, %{vm: vm}) do
    :ok = TestVM.call(vm, Legation, :disconnect, ["bob", Alice])
    :ok = TestVM.call(vm, Legation, :connect, ["bob", Alice])
  end

  ## Names

  # An engine that is there, as this kind of caller names it. "echo" is made anew where it has come to its end.
  defp server(way, engine, language, %{vm: vm, bob: bob}) do
    engine = if engine == "stuck_not", do: "echo", else: engine
    if engine == "echo", do: TestVM.here(vm, TestVM, :ensure_echo, [Alice, "echo"])
    full_name = engine <> "@" <> @realm
    proxy = await_alive(bob, full_name)
    settle_global(bob)

    case way do
      :pid -> proxy
      :global -> {:global, full_name}
      :via when language == :elixir -> {:via, Legation, {bob, full_name}}
      :via -> {:via, :legation, {bob, String.to_atom(full_name)}}
    end
  end

  # What is in the directory may be on its way out.
  defp await_alive(bob, full_name) do
    proxy = await_engine(bob, full_name)

    try do
      assert GenServer.call(proxy, {:echo, 1}) != nil
      proxy
    catch
      :exit, _gone -> await_alive(bob, full_name)
    end
  end

  ## The page

  # Of a table, with those in which a daemon's callers see something else.
  defp rows(heading, bob) do
    others = if transport(bob) == :c_node, do: table(heading <> ", behind a daemon"), else: []

    # By their beginning: what happens, and within what time where that is in the table.
    head = fn row -> Enum.take(row, if(heading =~ "Calls", do: 2, else: 1)) end
    for row <- table(heading), do: Enum.find(others, row, &(head.(&1) == head.(row)))
  end

  defp table(heading) do
    [_before, section] = @page |> File.read!() |> String.split("## " <> heading <> "\n", parts: 2)

    [_head, _rule | rows] =
      section
      |> String.split("\n## ")
      |> hd()
      |> String.split("\n")
      |> Enum.filter(&String.starts_with?(&1, "|"))

    for row <- rows do
      row |> String.trim("|") |> String.split("|") |> Enum.map(&String.trim/1)
    end
  end

  # The first column in Erlang's words has no colon before an atom.
  defp elixir(what), do: String.replace(what, "`normal`", "`:normal`")

  @tag :embedded
  test "an answer that comes when who was called has ended reaches nobody" do
    [alice, bob] = [start_realm("alice"), start_realm("bob")]
    link(alice, bob, :tcp_tls)
    {:ok, first} = Echo.start_link([])
    proxy = publish(alice, "echo", first, [bob])
    name = via(bob, "echo@alice")

    # What comes to it from now on it finds when its engine is another.
    :erlang.suspend_process(proxy)
    test = self()

    caller =
      spawn_link(fn ->
        reason = catch_exit_of(fn -> GenServer.call(proxy, {:echo, 1}, :infinity) end)
        send(test, {:ended, reason})
        receive(do: (message -> send(test, {:got, message})))
      end)

    until(Process.info(proxy, :message_queue_len) == {:message_queue_len, 1})
    :ok = Legation.withdraw("echo", alice)
    await_forgotten(bob, "echo@alice")
    {:ok, second} = Echo.start_link(owner: test)
    publish(alice, "echo", second, [bob])
    :erlang.resume_process(proxy)
    assert_receive {:ended, {:noproc, _call}}
    # Behind the call, if it has gone there, and behind its answer.
    assert GenServer.call(name, {:echo, 2}) == 2
    send(caller, :nothing_else)
    assert_receive {:got, :nothing_else}
  end

  # A call of bob's to an engine of alice's that has it and has not answered.
  defp held_call do
    [alice, bob] = [start_realm("alice"), start_realm("bob")]
    link(alice, bob, :tcp_tls)
    {:ok, echo} = Echo.start_link(owner: self())
    call = async_call(publish(alice, "echo", echo, [bob]), {:hold, 1})
    assert_receive {:held, 1, from}
    %{alice: alice, bob: bob, echo: echo, call: call, from: from}
  end

  @tag :embedded
  test "an answer that an engine has given goes before its end" do
    %{alice: alice, bob: bob, echo: echo, call: call, from: {stand_in, _tag} = from} = held_call()

    # It has no time for the answer until the engine has ended.
    :erlang.suspend_process(stand_in)
    GenServer.reply(from, :answered)
    :ok = GenServer.stop(echo)
    directory = Process.whereis(Instance.process(alice, Directory))
    until(Process.info(directory, :current_function) == {:current_function, {StandIn, :settle, 3}})
    :erlang.resume_process(stand_in)
    assert await_call(call) == {:reply, :answered}
    await_forgotten(bob, "echo@alice")
  end

  @tag :embedded
  test "an end waits for no answer that its engine has not given" do
    %{echo: echo, call: call} = held_call()
    :ok = GenServer.stop(echo)
    assert {:exit, {:normal, _call}} = await_call(call)
  end
end
