# Two Erlang systems that don't trust each other, and what happens between them. Started by scripts/demo:
#
#   elixir demo/run.exs DIR HOSTILE
#
# DIR is an empty directory for keys, sockets and logs; HOSTILE the program of rust_tests/hostile. This is a third VM, which
# starts the other two (demo/alice, demo/bob), has them evaluate what it prints, and compares what comes of it with what it must be.

files = ["vm.exs", "report.exs", "steps.exs", "pids.exs", "../test/support/cable.ex", "cable.exs"]
for file <- files, do: Code.require_file(file, __DIR__)

defmodule Demo do
  import Demo.Report
  import Demo.Steps

  alias Demo.{Processes, VM}

  # A caller who has to wait for an answer waits 5 s. This is "at once", also on a busy machine.
  @at_once_us 1_000_000

  def main([dir, hostile]) do
    keys = make_keys(dir)
    {alice, bob, port, cable} = start(dir, keys)

    section(
      "3  Over TCP, with TLS 1.3",
      "bob's processes use alice's engines as if they were local, and the other way round."
    )

    linked(alice, bob, :tls)
    conversation(alice, bob)

    Demo.Pids.cross(alice, bob)
    Demo.Cable.cut(alice, bob, cable)

    section("6  The same over a Unix socket", "bob hangs up, and dials alice's socket file instead.")
    change_to_unix(alice, bob)
    conversation(alice, bob)

    section("7  Strangers", "Two realms that dial alice and may not come in, run as further instances in bob's VM.")
    wrong_network_key(alice, bob, port)
    unlisted_key(alice, bob, port)

    section(
      "8  A hostile peer",
      "mallory's key is on alice's list. It is no Legation: it shakes hands properly and then writes raw bytes."
    )

    tampered_batch(alice, bob, dir, keys, hostile, port)

    section("9  How it stands at the end")
    overview(alice)
    overview(bob)
    final_checks(alice, bob)

    section("10  Good-bye")
    check("bob's VM stopped in order, with exit status 0", VM.stop(bob), 0)
    check("and so did alice's", VM.stop(alice), 0)
  end

  ## 1 and 2: keys, VMs

  defp make_keys(dir) do
    section(
      "1  Keys",
      "Each realm has an Ed25519 key, and is known to others by its public half. A network shares a secret besides."
    )

    "openssl" |> Processes.run(~w(genpkey -algorithm ed25519 -out bob.pem), dir, dir) |> printed!("openssl genpkey")

    commands = [
      alice: ["alice.pem"],
      bob: ["--show", "bob.pem"],
      carol: ["carol.pem"],
      mallory: ["mallory.pem"],
      network: ["--network", "network.key"],
      other_network: ["--network", "other-network.key"]
    ]

    outputs =
      commands
      |> Task.async_stream(fn {who, args} -> {who, args, legation_key(args, dir)} end, timeout: 60_000)
      |> Map.new(fn {:ok, {who, args, ended}} -> {who, printed!(ended, "mix legation.key #{Enum.join(args, " ")}")} end)

    origins = [
      alice: "mix legation.key alice.pem",
      bob: "openssl genpkey -algorithm ed25519 -out bob.pem",
      mallory: "mix legation.key mallory.pem; on alice's list, and hostile (8)",
      carol: "mix legation.key carol.pem; on nobody's list (7)"
    ]

    keys =
      for {who, origin} <- origins, into: %{} do
        key = List.last(outputs[who])
        text = "#{String.pad_trailing("#{who}", 8)} #{key}  #{origin}"
        check_that(text, key =~ ~r/^ed25519:[A-Za-z0-9_-]{43}$/, outputs[who], "a public key")
        {who, key}
      end

    check("four realms, four keys", keys |> Map.values() |> Enum.uniq() |> length(), 4)

    files = ~w(alice.pem mallory.pem carol.pem network.key other-network.key)
    modes = for file <- files, uniq: true, do: Bitwise.band(File.stat!(Path.join(dir, file)).mode, 0o777)
    check("the files that mix legation.key has made can be read by their owner alone (mode 0600)", modes, [0o600])
    keys
  end

  # As somebody does it in a project that depends on Legation.
  defp legation_key(args, dir) do
    {options, [file]} = Enum.split(args, -1)
    Processes.run("mix", ["legation.key"] ++ options ++ [Path.join(dir, file)], Path.join(__DIR__, "alice"), dir)
  end

  defp printed!({lines, 0}, _command), do: lines

  defp printed!({lines, status}, command),
    do: raise(Demo.Failed, Enum.join(["#{command} ended with exit status #{status}:" | lines], "\n    "))

  defp start(dir, keys) do
    section(
      "2  Two Erlang systems",
      "alice and bob are ordinary applications. Their GenServers don't know Legation; their supervisors start it."
    )

    alice = VM.start!("alice", dir, [{"DEMO_BOB_KEY", keys.bob}, {"DEMO_MALLORY_KEY", keys.mallory}])
    port = quiet(alice, "Enum.find_value(Legation.listeners(), & &1.address[:port])")
    # Between them, so that it can be cut.
    cable = Legation.Cable.start(port)
    bob = VM.start!("bob", dir, [{"DEMO_ALICE_KEY", keys.alice}, {"DEMO_ALICE_PORT", Integer.to_string(cable.port)}])

    pids = [System.pid(), "#{alice.os_pid}", "#{bob.os_pid}"]
    found = [System.pid(), quiet(alice, "System.pid()"), quiet(bob, "System.pid()")]

    text =
      "three operating-system processes: alice is #{alice.os_pid}, bob is #{bob.os_pid}, this script is #{System.pid()}"

    check_that(text, found == pids and Enum.uniq(pids) == pids, found, inspect(pids))

    for vm <- [alice, bob] do
      code = "{node(), Node.alive?(), Node.list(), Node.get_cookie()}"
      value = value(vm, code)

      check(
        "#{vm.realm} has no distribution and no cookie: #{inspect(value)}",
        value,
        {:nonode@nohost, false, [], :nocookie}
      )
    end

    for {vm, key} <- [{alice, keys.alice}, {bob, keys.bob}] do
      check("#{vm.realm} is who its key says: #{key}", value(vm, "Legation.public_key()"), key)
    end

    check(
      "alice listens on TCP port #{port} of this machine, and on #{dir}/alice.sock",
      quiet(alice, "Enum.sort(for l <- Legation.listeners(), do: l.carrier)"),
      [
        Legation.Carriers.Tcp,
        Legation.Carriers.Unix
      ]
    )

    # A name for what is evaluated below.
    quiet(bob, "alice_key = #{inspect(keys.alice)}")
    {alice, bob, port, cable}
  end

  ## 3 and 6: what ordinary processes do

  # Both sides have the link, and have learned what the other exports to them, and nothing else.
  defp linked(alice, bob, profile) do
    for {vm, peer, role} <- [{bob, "alice", :initiator}, {alice, "bob", :responder}] do
      info = VM.await(vm, :peer_up, peer)
      words = if role == :initiator, do: "has dialled #{peer}", else: "was dialled by #{peer}"

      check(
        "#{vm.realm} #{words}; the link is protected by #{inspect(info.profile)}",
        {info.role, info.profile},
        {role, profile}
      )
    end

    for {vm, engine} <- [
          {bob, "counter@alice"},
          {bob, "desk@alice"},
          {bob, "door@alice"},
          {bob, "pager@alice"},
          {bob, "ledger@alice"},
          {alice, "greeter@bob"}
        ] do
      info = VM.await(vm, :engine_learned, engine)
      key = "ed25519:" <> Base.url_encode64(info.key, padding: false)
      await_global(vm, engine)
      check("#{vm.realm} has learned #{engine}, which signs as #{key}", info.ops, [:call, :cast, :send])
    end

    foreign = "Enum.sort(for engine <- Legation.engines(), not engine.local, do: engine.name)"
    expected = ["counter@alice", "desk@alice", "door@alice", "ledger@alice", "pager@alice"]
    check("that is all: bob is not told of alice's diary", value(bob, foreign), expected)
  end

  defp conversation(alice, bob) do
    subsection("Call, cast, send")
    before = quiet(alice, "GenServer.call(Alice.Counter, :get)")

    number = value(bob, ~S|GenServer.call({:global, "counter@alice"}, :get)|)
    check("a call: #{number}, which is what alice's counter holds", number, before)

    value(bob, ~S|GenServer.cast({:global, "counter@alice"}, {:add, 7})|)
    number = value(bob, ~S|GenServer.call({:global, "counter@alice"}, :get)|)
    check("a cast: it was #{before} and is #{number} now", number, before + 7)

    value(bob, ~S|send(:global.whereis_name("counter@alice"), :tick)|)
    number = value(bob, ~S|GenServer.call({:global, "counter@alice"}, :get)|)
    check("a bare send: #{number}", number, before + 8)
    check("alice's own processes see the same number", value(alice, "GenServer.call(Alice.Counter, :get)"), before + 8)

    greeting = value(alice, ~S|GenServer.call({:global, "greeter@bob"}, {:greet, "alice"})|)

    check_that(
      "the other way round, over the same link: #{inspect(greeting)}",
      greeting =~ ~r/^Good morning, alice! \(\d\)$/,
      greeting,
      "a greeting"
    )

    subsection("Replies that come late")
    exit = exit_reason(bob, ~S|GenServer.call({:global, "desk@alice"}, {:ask, "Which way?"}, 100)|)

    check_that(
      "nobody answered within 100 ms, so the call exits as any other: :timeout",
      match?({:timeout, {GenServer, :call, _}}, exit),
      exit,
      "{:timeout, {GenServer, :call, _}}"
    )

    check("now alice's clerk answers that question", value(alice, ~S|Alice.Clerk.answer("To the left")|), "Which way?")
    # The caller's later call is answered behind its late reply, so that has come when this has.
    check(
      "a later call of the same caller is answered",
      value(bob, ~S|GenServer.call({:global, "counter@alice"}, :get)|),
      before + 8
    )

    check(
      "and the late reply has reached nobody: the caller's mailbox is empty",
      value(bob, "Process.info(self(), :messages)"),
      {:messages, []}
    )

    value(bob, ~S|task = Task.async(fn -> GenServer.call({:global, "desk@alice"}, {:ask, "How far?"}) end)|)

    check(
      "alice's clerk, another process than the desk that was called, replies later",
      value(alice, ~S|Alice.Clerk.answer("Two miles")|),
      "How far?"
    )

    [desk, clerk] = quiet(alice, "Enum.map([Alice.Desk, Alice.Clerk], &inspect(Process.whereis(&1)))")
    answer = value(bob, "Task.await(task)")
    check("it arrives: #{inspect(answer)}; the desk is #{desk}", answer, "Two miles (answered by #{clerk})")

    subsection("An engine that isn't there")
    gone(bob, "nobody@alice", "there never was one")
    gone(bob, "diary@alice", "there is one, but not for bob, and it looks the same")

    subsection("Withdrawn and forgotten, and published again")
    proxy = value(bob, ~S|Legation.whereis("counter@alice")|)
    check("alice takes the name back", value(alice, ~S|Legation.withdraw("counter")|), :ok)
    check("bob is told, and forgets it", VM.await(bob, :engine_forgotten, "counter@alice"), :withdrawn)
    check("its proxy is gone", value(bob, ~S|Legation.whereis("counter@alice")|), nil)
    gone(bob, "counter@alice", "it was withdrawn")
    check("alice publishes it again", value(alice, ~S|Legation.publish("counter", Alice.Counter)|), :ok)
    VM.await(bob, :engine_learned, "counter@alice")
    await_global(bob, "counter@alice")
    check("and it can be called again", value(bob, ~S|GenServer.call({:global, "counter@alice"}, :get)|), before + 8)
    again = quiet(bob, ~S|Legation.whereis("counter@alice")|)

    check_that(
      "a new proxy has the name: #{inspect(again)}, before it was #{inspect(proxy)}",
      is_pid(again) and again != proxy,
      again,
      "another pid"
    )
  end

  defp gone(vm, engine, words) do
    call = ~s|GenServer.call({:global, "#{engine}"}, :get)|
    code(vm.realm, call)
    # By then the call's code is loaded; what is measured is the call.
    {us, reason} = quiet(vm, ":timer.tc(fn -> try do #{call} catch :exit, {reason, _call} -> reason end end)")

    check_that(
      "#{words}: exits :noproc after #{us} µs",
      reason == :noproc and us < @at_once_us,
      {us, reason},
      ":noproc in under #{@at_once_us} µs"
    )
  end

  defp change_to_unix(alice, bob) do
    check("bob hangs up", value(bob, ~S|Legation.disconnect("alice")|), :ok)
    check_that("alice is told", true, VM.await(alice, :peer_down, "bob"), nil)
    check("its proxies have ended with the link", value(bob, ~S|Legation.whereis("counter@alice")|), nil)

    for engine <- ["counter", "desk", "door", "pager", "ledger"],
        do: VM.await(bob, :engine_forgotten, engine <> "@alice")

    code =
      ~S|Legation.connect(realm: "alice", key: alice_key, connect: [unix: [path: "alice.sock"]], export: ["greeter"])|

    check("and dials the socket file", value(bob, code), :ok)
    linked(alice, bob, :local)
  end

  ## 7: who may not come in

  defp wrong_network_key(alice, bob, port) do
    subsection("bob's own key, which alice has on its list, but another network key")
    failed = counter(alice, :handshakes_failed)
    told = turned_away(bob, "bob", "bob.pem", "other-network.key", port)
    check_that("the dialler is told: #{inspect(told)}", told =~ "network key", told, "words about the network key")
    after_failed = await_counter(alice, :handshakes_failed, &(&1 > failed))

    check_that(
      "alice has counted it: handshakes_failed was #{failed} and is #{after_failed}",
      after_failed > failed,
      after_failed,
      "more than #{failed}"
    )
  end

  defp unlisted_key(alice, bob, port) do
    subsection("carol: the right network key, but on nobody's list")
    unlisted = counter(alice, :hellos_unlisted)
    told = turned_away(bob, "carol", "carol.pem", "network.key", port)
    check_that("the dialler is told: #{inspect(told)}", told =~ "allow-list", told, "words about the allow-list")
    after_unlisted = await_counter(alice, :hellos_unlisted, &(&1 > unlisted))

    check_that(
      "alice has counted it: hellos_unlisted was #{unlisted} and is #{after_unlisted}",
      after_unlisted > unlisted,
      after_unlisted,
      "more than #{unlisted}"
    )
  end

  # What the dialler is told, in words.
  defp turned_away(bob, realm, key, network_key, port) do
    address = ~s|[tcp: [host: "127.0.0.1", port: #{port}]]|

    [first | rest] =
      lines = [
        "{:ok, stranger} =",
        ~s|  Legation.start_link(name: Stranger, realm: "#{realm}", key: "#{key}", network_key: "#{network_key}",|,
        ~s|    peers: [[realm: "alice", key: alice_key, connect: #{address}]], global: :off)|
      ]

    code(bob.realm, first, rest)
    quiet(bob, Enum.join(lines, "\n"))

    code(bob.realm, "Legation.peers(Stranger)")

    %{state: state, last_error: told} =
      await_value(bob, "hd(Legation.peers(Stranger))", &(&1[:last_error] != nil or &1[:state] == :up))

    check_that(
      "no link came about (the dialler is #{inspect(state)}, and will try again)",
      state in [:waiting, :connecting],
      state,
      "not :up"
    )

    check(
      "and it has learned no engine",
      quiet(bob, "for e <- Legation.engines(Stranger), not e.local, do: e.name"),
      []
    )

    quiet(bob, "Supervisor.stop(stranger)")
    told
  end

  ## 8: raw bytes

  defp tampered_batch(alice, bob, dir, keys, program, port) do
    attack = ~w(--attack tampered-batch --engine guestbook --key mallory.pem)
    who = ~w(--network network.key --peer #{keys.alice} --connect 127.0.0.1:#{port} --profile tls)
    {lines, status} = Processes.run(program, attack ++ who, dir, dir)
    code("mallory", Enum.join(["hostile" | attack], " ") <> " …", lines)
    check("it could do what it meant to (exit status 0)", status, 0)
    info = VM.await(alice, :peer_up, "mallory")
    check("mallory's handshake is right, so its link is up, protected by :tls", info.profile, :tls)

    check(
      "it sent three casts in three signed batches, and changed one byte of the second after signing",
      "sent=3" in lines,
      true
    )

    check("after that alice still answers its PING: the link lives", "link=alive" in lines, true)

    check_that("mallory hangs up when it is done, and alice is told", true, VM.await(alice, :peer_down, "mallory"), nil)
    code = ~S|Map.take(Legation.counters().ended["mallory"], [:sessions, :batches_in, :bad_signature])|
    counted = value(alice, code)
    text = "in its one session alice took two of the batches, and dropped one, and counted it"
    check(text, counted, %{sessions: 1, batches_in: 2, bad_signature: 1})

    entries = value(alice, "GenServer.call(Alice.Guestbook, :read)")
    text = "the one before and the one after stand in alice's guestbook, which mallory may reach: #{inspect(entries)}"
    check(text, entries, ["good 1", "good 2"])

    number = value(bob, ~S|GenServer.call({:global, "counter@alice"}, :get)|)
    check("bob's link has noticed nothing", number, quiet(alice, "GenServer.call(Alice.Counter, :get)"))
  end

  ## 9

  defp overview(vm) do
    %{ended: ended} = counters = quiet(vm, "Legation.counters()")
    subsection("#{vm.realm}: peers, with what this session has counted, and those that are over")

    table(
      ["peer", "state", "over", "profile", "messages in", "out", "signed", "verified", "bad signature"],
      for peer <- quiet(vm, "Legation.peers()"), row <- peer_rows(peer, ended[peer.realm]) do
        row
      end
    )

    subsection("#{vm.realm}: engines")

    table(
      ["engine", "is", "signs as", "calls", "casts", "sends", "dropped"],
      for engine <- quiet(vm, "Legation.engines()") do
        counts = for key <- [:calls, :casts, :sends, :dropped], do: engine[:counters][key] || "-"
        [engine.name, if(engine.local, do: "here", else: "a peer's"), short(engine.key)] ++ counts
      end
    )

    subsection("#{vm.realm}: what else it has counted")
    rows = for {name, count} <- Enum.sort(counters), is_integer(count), count > 0, do: [name, count]
    table(["what", "how often"], if(rows == [], do: [["nothing", "-"]], else: rows))
  end

  defp peer_rows(peer, ended) do
    now = [[peer.realm, peer.state, over(peer[:carrier]), peer[:profile] || "-"] ++ peer_counts(peer.counters)]
    before = if ended, do: [["", "ended: #{ended.sessions}", "", ""] ++ peer_counts(ended)], else: []
    now ++ before
  end

  defp peer_counts(counters) do
    for key <- [:messages_in, :messages_out, :signed, :verified, :bad_signature], do: counters[key] || "-"
  end

  defp over(nil), do: "-"
  defp over(carrier), do: carrier |> Module.split() |> List.last() |> String.downcase()

  defp short(key), do: "ed25519:" <> String.slice(Base.url_encode64(key, padding: false), 0, 8) <> "…"

  defp final_checks(alice, bob) do
    IO.puts("")
    peers = quiet(alice, "for p <- Legation.peers(), into: %{}, do: {p.realm, {p.state, p[:profile]}}")
    check("alice has a link to bob alone", peers, %{"bob" => {:up, :local}, "mallory" => {:listening, nil}})
    [peer] = quiet(bob, "Legation.peers()")
    check("bob has a link to alice", {peer.realm, peer.state, peer.profile}, {"alice", :up, :local})
    check("between these two no signature was bad", {peer.counters.bad_signature, peer.counters.stale_session}, {0, 0})
    counts = quiet(bob, ~S|for e <- Legation.engines(), e.name == "counter@alice", do: e.counters|)

    check("since it was published again, bob has called counter@alice twice", counts, [
      %{calls: 2, casts: 0, sends: 0, dropped: 0}
    ])

    check("bob's mailbox is still empty", quiet(bob, "Process.info(self(), :messages)"), {:messages, []})
  end

  ## In the VMs

  # :global is told off the hot path, a moment after the engine was learned.
  defp await_global(vm, engine), do: await_value(vm, ~s|is_pid(:global.whereis_name("#{engine}"))|, & &1)

  defp counter(vm, name), do: quiet(vm, "Legation.counters().#{name}")
  defp await_counter(vm, name, good?), do: await_value(vm, "Legation.counters().#{name}", good?)
end

Demo.Steps.run(System.argv(), &Demo.main/1)
