defmodule Demo.Systems do
  @moduledoc false
  # What runs in this demonstration, from its keys to its end.
  #
  #   DIR/bob, DIR/carol    what is on a realm's machine: HOME of its nodes, cookie, configuration, key, sockets
  #   DIR                   alice's key, the network's key, ebin of the plain nodes, logs

  import Demo.Report
  import Demo.Steps

  alias Demo.{Daemon, Epmd, Processes, VM}

  @bobs_daemon "legation@127.0.0.1"
  @carols_daemon "legation-carol@127.0.0.1"

  ## 1: keys

  def keys(dir, program) do
    section("1  Keys", "The daemon's program makes them. A realm is known to others by its public key.")
    for realm <- ["bob", "carol"], do: dir |> Path.join(realm) |> File.mkdir!()
    systems = %{dir: dir, program: program}

    keys =
      for {who, file} <- [alice: "alice.pem", bob: "bob/bob.pem", carol: "carol/carol.pem"], into: %{} do
        [key] = legation(systems, ["key", "new", file])
        check("#{who}'s, by which others know it", legation_quiet(systems, ["key", "show", file]), {[key], 0})
        {who, key}
      end

    legation(systems, ["key", "network", "network.key"])
    modes = for file <- ["alice.pem", "network.key"], do: Bitwise.band(File.stat!(Path.join(dir, file)).mode, 0o777)
    check("the files can be read by their owner alone (mode 0600)", modes, [0o600, 0o600])
    Map.put(systems, :keys, keys)
  end

  ## 2: alice and bob

  def start(%{dir: dir, keys: keys} = systems) do
    section(
      "2  A plain node, and a daemon beside it",
      "That is bob. alice is an Elixir application with the embedded transport, in another VM."
    )

    ebin = compile(dir)
    epmd = Epmd.start!(dir)
    alice = VM.start!("alice", dir, [{"DEMO_BOB_KEY", keys.bob}])
    alice_port = quiet(alice, "Enum.find_value(Legation.listeners(), & &1.address[:port])")
    # Between alice and the daemons, so that it can be cut.
    cable = Legation.Cable.start(alice_port)
    systems = Map.merge(systems, %{alice: alice, alice_port: cable.port, cable: cable, epmd: epmd, ebin: ebin})

    write_cookie(dir, "bob")
    configure(systems, "bob", bobs_configuration(systems))

    systems
    |> legation(["check", "--config", "bob/legation.toml"])
    |> told(~r/ok .*realm bob/, "nothing is wrong with it")

    wrong_configuration(systems)

    subsection("It does not matter which of the two starts first; here the daemon does")
    systems = systems |> start_bobs_daemon() |> start_bob()
    nothing_of_legation(systems)
    linked(systems)
    systems
  end

  # Plain Erlang: no build tool, and nothing but what OTP has.
  defp compile(dir) do
    ebin = Path.join(dir, "ebin")
    File.mkdir!(ebin)

    for file <- __DIR__ |> Path.join("src/*.erl") |> Path.wildcard() do
      options = [:warnings_as_errors, :report, outdir: to_charlist(ebin)]
      {:ok, _module} = :compile.file(to_charlist(file), options)
    end

    ebin
  end

  # Where a node looks for it, and the daemon is told to.
  defp write_cookie(dir, realm) do
    file = Path.join([dir, realm, ".erlang.cookie"])
    File.write!(file, Base.encode16(:crypto.strong_rand_bytes(16)))
    File.chmod!(file, 0o400)
  end

  defp configure(%{dir: dir}, realm, text) do
    file = Path.join(realm, "legation.toml")
    dir |> Path.join(file) |> File.write!(text)
    code("$", "cat #{file}", text |> String.trim() |> String.split("\n"))
  end

  defp bobs_configuration(%{keys: keys, alice_port: alice_port}) do
    """
    realm = "bob"
    key = "bob.pem"
    network_key = "../network.key"
    control_socket = "control.sock"

    [node]
    name = "#{@bobs_daemon}"
    cookie_file = ".erlang.cookie"
    connect = ["bob@127.0.0.1"]

    [[listen]]
    unix = "legation.sock"

    [[peers]]
    realm = "alice"
    key = "#{keys.alice}"
    connect = ["tcp://127.0.0.1:#{alice_port}"]
    export = ["ping", { name = "notes", allow = ["cast"] }]

    [[peers]]
    realm = "carol"
    key = "#{keys.carol}"
    export = ["ping"]

    # What waits for one engine while a cable is cut: the ledger's 100,000 entries are 8.5 million bytes.
    [limits]
    engine_queue_bytes_max = 16777216
    """
  end

  defp wrong_configuration(%{dir: dir} = systems) do
    right = File.read!(Path.join(dir, "bob/legation.toml"))
    File.write!(Path.join(dir, "bob/wrong.toml"), String.replace(right, ~s(export = ["ping"]), ~s(exprot = ["ping"])))
    args = ["check", "--config", "bob/wrong.toml"]
    {lines, status} = legation_quiet(systems, args)
    code("$", "legation #{Enum.join(args, " ")}", lines)
    told(lines, ~r/^bob\/wrong\.toml:\d+:\d+: .*"exprot"/, "a mistake is found by line and column")
    check("and the exit status is 2", status, 2)
  end

  # It dials the node.
  def start_bob(systems) do
    bob = start_node(systems, "bob", "bob", @bobs_daemon)
    quiet(bob, "Daemon = '#{@bobs_daemon}'")
    await_value(bob, "nodes(hidden)", &(&1 == [:"legation@127.0.0.1"]))
    expect(bob, "nodes(hidden)", [:"legation@127.0.0.1"], "the daemon has found it, and is a hidden node there")
    Map.put(systems, :bob, bob)
  end

  def start_bobs_daemon(systems), do: start_daemon(systems, :bobs_daemon, "bob", @bobs_daemon)

  defp start_daemon(systems, as, realm, node) do
    code("$", "cd #{realm}; legation run --supervised --config legation.toml &")
    daemon = Daemon.start!(systems.program, realm, systems.dir, environment(systems, realm))
    check("it is ready: process #{daemon.os_pid}, node #{daemon.node}", daemon.node, node)
    Map.put(systems, as, daemon)
  end

  @doc "Starts a plain node; with the application, if there is a daemon to publish at."
  def start_node(systems, name, realm, daemon, flags \\ "") do
    application = if daemon, do: " -s release start #{daemon}"
    command = "erl -noinput -name #{name}@127.0.0.1#{flags} -pa ../ebin -s console#{application}"
    code("$", "cd #{realm}; #{command} &")
    vm = VM.start!(name, :erlang, systems.dir, environment(systems, realm), command, Path.join(systems.dir, realm))
    check("it is process #{vm.os_pid}, node #{quiet(vm, "node()")}", quiet(vm, "os:getpid()"), '#{vm.os_pid}')
    vm
  end

  # Everything of a realm is in its directory and on this machine, and nobody's flags have a part in it. An EPMD is for bob only.
  defp environment(%{dir: dir, epmd: epmd}, realm) do
    [
      {"HOME", Path.join(dir, realm)},
      {"ERL_EPMD_PORT", if(realm == "bob", do: "#{epmd.tcp_port}", else: "1")},
      {"ERL_AFLAGS", "+Bd -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"},
      {"ERL_FLAGS", ""},
      {"ERL_ZFLAGS", ""}
    ]
  end

  defp nothing_of_legation(%{alice: alice, bob: bob, keys: keys}) do
    subsection("Who is what")
    code = "{code:which(legation), code:which('Elixir.Legation'), code:which(release)}"
    good? = &match?({:non_existing, :non_existing, [_ | _]}, &1)
    expect_like(bob, code, "nothing but its own", good?, "bob's node has no module of Legation's")
    text = "alice has no distribution: no node name, no cookie"
    expect(alice, "{node(), Node.get_cookie()}", {:nonode@nohost, :nocookie}, text)
    expect(alice, "Legation.public_key()", keys.alice, "but a key")
  end

  # Both sides have the link, and have learned what the other exports to them.
  defp linked(%{alice: alice, bob: bob}) do
    subsection("The link between the two realms")
    info = VM.await(alice, :peer_up, "bob")
    text = "bob's daemon has dialled alice; the link is protected by #{inspect(info.profile)}"
    check(text, {info.role, info.profile}, {:responder, :tls})
    await_value(bob, foreign("alice"), &(length(&1) == 5))
    for engine <- ["counter", "desk", "door", "pager", "ledger"], do: await_global(bob, "#{engine}@alice")

    code = ~S'[{R, T} || #{realm := R, state := up, profile := T} <- gen_server:call({legation, Daemon}, peers)]'

    expect(bob, code, [{"alice", :tls}], "bob's node asks the daemon's control engine")
    engines = ["counter@alice", "desk@alice", "door@alice", "ledger@alice", "pager@alice"]
    expect(bob, foreign("alice"), engines, "of alice's diary, which isn't exported, it is told nothing")
    VM.await(alice, :engine_learned, "ping@bob")
    code = "for %{local: false} = engine <- Legation.engines(), do: engine.name"
    expect(alice, code, ["ping@bob"], "alice has learned of bob's ping")
  end

  defp foreign(realm),
    do: ~s'lists:sort([N || \#{name := N, realm := <<"#{realm}">>} <- gen_server:call({legation, Daemon}, engines)])'

  @doc "`:global` is told a moment after the engine was learned."
  def await_global(vm, engine), do: await_value(vm, ~s|is_pid(global:whereis_name(<<"#{engine}">>))|, & &1)

  @doc "Until a question waits at alice's desk."
  def await_question(alice), do: await_value(alice, ":queue.len(:sys.get_state(Alice.Clerk).questions)", &(&1 == 1))

  ## 6: carol, without EPMD, on known ports

  def start_carol(%{dir: dir, keys: keys, alice_port: alice_port} = systems) do
    write_cookie(dir, "carol")
    [node_port, daemon_port] = Epmd.free_ports(2)

    configure(systems, "carol", """
    realm = "carol"
    key = "carol.pem"
    network_key = "../network.key"
    control_socket = "control.sock"

    [node]
    name = "#{@carols_daemon}"
    cookie_file = ".erlang.cookie"
    epmd = false
    listen = "127.0.0.1:#{daemon_port}"
    connect = [{ node = "carol@127.0.0.1", port = #{node_port} }]

    [[peers]]
    realm = "bob"
    key = "#{keys.bob}"
    connect = [{ unix = "../bob/legation.sock" }]
    export = ["ping"]

    [[peers]]
    realm = "alice"
    key = "#{keys.alice}"
    connect = ["tcp://127.0.0.1:#{alice_port}"]
    """)

    carol = start_node(systems, "carol", "carol", @carols_daemon, " -erl_epmd_port #{node_port}")
    quiet(carol, "Daemon = '#{@carols_daemon}'")
    systems |> Map.put(:carol, carol) |> start_daemon(:carols_daemon, "carol", @carols_daemon)
  end

  ## The program

  @doc "Runs it in the directory of the demonstration, and shows that. It has to succeed. Returns the lines that it printed."
  def legation(systems, args) do
    {lines, status} = legation_quiet(systems, args)
    code("$", "legation #{Enum.join(args, " ")}", lines)
    if status != 0, do: raise(Demo.Failed, "legation #{Enum.join(args, " ")} ended with exit status #{status}")
    lines
  end

  def legation_quiet(%{program: program, dir: dir}, args), do: Processes.run(program, args, dir, dir)

  def told(lines, pattern, text),
    do: check_that(text, Enum.any?(lines, &(&1 =~ pattern)), lines, "a line that matches #{inspect(pattern)}")

  ## 11 and 12: the end

  def overview(systems) do
    section("11  How it stands at the end", "As the daemon's program tells it, from the control socket.")
    socket = ["--socket", "bob/control.sock"]
    systems |> legation(["status" | socket]) |> told(~r/^realm +bob$/, "it is bob's")
    peers = legation(systems, ["peers" | socket])
    told(peers, ~r/^alice +up +tls +engine +initiator/, "linked with alice, over TLS")
    told(peers, ~r/^carol +up +local +engine +responder/, "and with carol, over a Unix socket")
    engines = legation(systems, ["engines" | socket])
    told(engines, ~r/^counter@alice +up/, "alice's counter is among the engines")
    told(engines, ~r/^ping@bob +published/, "and so is bob's ping")
  end

  def stop(%{alice: alice, bob: bob, bob2: bob2, carol: carol} = systems) do
    section("12  Good-bye", "SIGTERM: the daemon takes nothing new, waits for calls that are open, and ends.")
    value(bob, ~S|Question = gen_server:send_request({'desk@alice', Daemon}, {ask, <<"Still there?">>})|)
    await_question(alice)
    code("$", "kill -TERM #{systems.bobs_daemon.os_pid}")
    Daemon.terminate(systems.bobs_daemon)
    log = Path.join(systems.dir, "bob-daemon.log")
    await("the daemon's log", fn -> File.read!(log) end, &(&1 =~ "waiting for open calls"))
    expect(alice, ~S|Alice.Clerk.answer("Just about")|, "Still there?", "it waits, and alice's clerk answers now")
    good? = &match?({:reply, "Just about (" <> _}, &1)
    expect_like(bob, "gen_server:receive_response(Question, 5000)", "just about", good?, "bob has the answer")
    check("and the daemon has ended, with exit status 0", Daemon.await_end(systems.bobs_daemon), 0)

    code("$", "kill -TERM #{systems.carols_daemon.os_pid}")
    Daemon.terminate(systems.carols_daemon)
    check("carol's, too", Daemon.await_end(systems.carols_daemon), 0)
    for vm <- [bob2, bob, carol, alice], do: check("#{vm.realm}'s VM has stopped in order", VM.stop(vm), 0)
    Epmd.stop(systems.epmd)
    check("nothing of it runs any more", Path.wildcard(Path.join(systems.dir, "process.*")), [])
  end
end
