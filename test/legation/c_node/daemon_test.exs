defmodule Legation.CNode.DaemonTest do
  # A program that behaves like the daemon towards whoever starts it, and a control engine that says what one would say.
  use ExUnit.Case, async: false

  import ExUnit.CaptureLog

  alias Legation.CNode.Daemon
  alias Legation.{FakeDaemon, TestVM}

  @moduletag :capture_log
  # A program that isn't there can't be somebody's node.
  @moduletag :not_distributed
  @ready ~s(echo "legation ready fake@127.0.0.1 1")

  setup do
    ExUnit.configure(assert_receive_timeout: 10_000)
    directory = Path.join(System.tmp_dir!(), "legation-daemon-#{System.pid()}-#{System.unique_integer([:positive])}")
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    %{directory: directory}
  end

  defp options(context, script, opts \\ []) do
    {limits, opts} = Keyword.pop(opts, :limits, [])
    {transport, opts} = Keyword.pop(opts, :transport, [])

    options =
      [realm: "alice", limits: [reconnect_min_ms: 1, reconnect_max_ms: 5] ++ limits, transport: transport]
      |> Keyword.merge(opts)
      |> FakeDaemon.options()

    put_in(options.transport.binary, FakeDaemon.program(context.directory, script))
  end

  defp start(options) do
    fake = FakeDaemon.start!()
    start_supervised!(%{id: :instance, start: {FakeDaemon, :start_instance, [options]}, type: :supervisor})
    fake
  end

  defp not_started(options) do
    FakeDaemon.start!()
    Process.flag(:trap_exit, true)
    {:error, {:shutdown, {:failed_to_start_child, _child, {:shutdown, reason}}}} = FakeDaemon.start_instance(options)
    reason
  end

  # Ends when nobody holds the fifo open any more, and so when the program has ended.
  defp watch(%{directory: directory}) do
    fifo = Path.join(directory, "alive")
    {_output, 0} = System.cmd("mkfifo", [fifo])
    Port.open({:spawn_executable, System.find_executable("cat")}, [:binary, :exit_status, args: [fifo]])
  end

  defp await_end(cat), do: assert_receive({^cat, {:exit_status, 0}})

  defp read(context, file), do: context.directory |> Path.join(file) |> File.read!()

  test "it is given its configuration, is ready, and is linked", context do
    options =
      options(context, @ready,
        key: "/keys/alice.pem",
        listen: [tcp: [port: 4040, ip: "::1"], unix: [path: "/run/a.sock", id: :local, uids: [0]]],
        peers: [[realm: "bob", key: <<1::256>>, export: ["ping", {"store", allow: [:call], filter: {Enum, :all?}}]]],
        import: ["ping@bob", {"pong@bob", as: :pong}],
        transport: [cookie: "c\"ookie\n", epmd: false, connect: [{:other@host, 9_001}, "more@host"], port: 9_100]
      )

    start(options)
    assert read(context, "arguments") == "run --config - --supervised"

    assert read(context, "config.1") =~ """
           realm = "alice"
           key = "/keys/alice.pem"
           threads = 1
           import = ["ping@bob", { name = "pong@bob", as = "pong" }]
           signing = "engine"
           accept_signing = ["engine", "delegated"]

           [node]
           name = "nonode@nohost"
           cookie = "c\\"ookie\\u000A"
           listen = "127.0.0.1:9100"
           epmd = false
           connect = ["nonode@nohost", { node = "other@host", port = 9001 }, "more@host"]
           global = "off"
           """

    assert read(context, "config.1") =~ """
           [[listen]]
           id = "elixir:0"
           tcp = "[::1]:4040"
           profile = "tls"
           send_timeout_ms = 15000

           [[listen]]
           id = "elixir::local"
           unix = "/run/a.sock"
           profile = "local"
           send_timeout_ms = 15000
           uids = [0]

           [[peers]]
           realm = "bob"
           key = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"
           connect = []
           export = ["ping", { name = "store", allow = ["call"], filter = true }]
           allow = ["call", "cast", "send", "monitor"]
           filter = false
           reasons = "class"
           links = 1

           [limits]
           """

    assert read(context, "config.1") =~ "\noverflow = \"newest\"\n"
    refute read(context, "config.1") =~ "engine_queue_max"
    assert_received {:asked, :monitor_peers}
  end

  test "its log is Logger's, with its levels", context do
    script = ~S"""
    echo "DEBUG one" >&2; echo "INFO two" >&2; echo "WARN three" >&2; echo "ERROR four" >&2
    printf 'WARN a peer said \033[31m\n' >&2
    """

    log = capture_log(fn -> start(options(context, script <> @ready)) end)
    assert log =~ ~r/\[debug\] Legation: daemon: one\n/
    assert log =~ ~r/\[info\] Legation: daemon: two\n/
    assert log =~ ~r/\[warning\] Legation: daemon: three\n/
    assert log =~ ~r/\[error\] Legation: daemon: four\n/
    assert log =~ ~S(daemon: "a peer said \e[31m")
    refute log =~ "ready"
  end

  test "a log without end is handed on as far as is good for anybody", context do
    # Bash's own counting, so that it is quick.
    script = "for n in {1..1100}; do echo \"INFO line $n.\" >&2; done; "
    log = capture_log(fn -> start(options(context, script <> @ready)) end)
    assert log =~ "daemon: line 1000.\n"
    refute log =~ "daemon: line 1001.\n"
  end

  test "one that ends instead of being ready says why the instance can't start", context do
    script = ~S(echo "INFO starting" >&2; echo "ERROR key: no such file" >&2; exit 2)
    assert capture_log(fn -> send(self(), not_started(options(context, script))) end) =~ "key: no such file"
    assert_received {:daemon, {:exit, 2, "key: no such file"}} = reason
    assert Legation.Error.message(reason) == "the daemon ended with exit status 2: key: no such file"
    refute Legation.Error.retry?(reason)
  end

  test "one that is not ready in time is ended", context do
    cat = watch(context)
    # A program of a busy machine has begun by then, and holds its fifo open.
    options = options(context, "", transport: [start_ms: 1_000])
    assert {:daemon, :timeout} = not_started(options)
    await_end(cat)
  end

  test "a program that isn't there, or is none, is named", context do
    options = options(context, "")
    missing = put_in(options.transport.binary, "/nowhere/legation")
    assert {:daemon, {:program, "/nowhere/legation", :enoent}} = reason = not_started(missing)
    assert Legation.Error.message(reason) =~ ~s(there is no program "/nowhere/legation")
    stop_supervised!(FakeDaemon)
    File.chmod!(options.transport.binary, 0o644)
    assert {:daemon, {:program, _path, :eacces}} = not_started(options)
    stop_supervised!(FakeDaemon)
    # It takes nothing on its standard input, and may be gone before there is something.
    File.write!(options.transport.binary, "#!/bin/sh\nexit 7\n")
    File.chmod!(options.transport.binary, 0o755)
    assert {:daemon, why} = not_started(options)
    assert why in [{:exit, 7, ""}, {:port, :epipe}]
  end

  test "one that ends is started again, and told of everybody again", context do
    options = options(context, @ready, peers: [[realm: "bob", key: <<1::256>>]], listen: [tcp: [port: 0]])
    fake = start(options)
    name = options.name
    FakeDaemon.answer(fake, :listeners, [%{id: "elixir:0", carrier: :tcp, profile: :tls, address: [port: 4711]}])
    :ok = Legation.publish("ping", self(), [], name)
    :ok = Legation.connect([realm: "carol", key: <<2::256>>], name)
    :ok = Legation.disconnect("bob", name)
    flush()

    kill(name)
    # The port that it had is known since the second link only.
    assert_receive {:asked, :monitor_peers}
    assert_received {:asked, {:publish, "ping", _pid, []}}
    assert read(context, "config.2") =~ ~s(realm = "carol")
    refute read(context, "config.2") =~ ~s(realm = "bob")
    assert read(context, "config.2") =~ "0.0.0.0:0"

    kill(name)
    assert_receive {:asked, :monitor_peers}
    assert read(context, "config.3") =~ "0.0.0.0:4711"
  end

  defp flush do
    receive do
      {:asked, _request} -> flush()
    after
      0 -> :ok
    end
  end

  defp kill(name) do
    {_output, 0} = System.cmd("kill", ["-KILL", name |> Daemon.os_pid() |> Integer.to_string()])
  end

  test "one that can't have its port again for a while listens where it was told to at first", context do
    script = ~S(if [[ "$config" == *:4711* ]]; then echo "ERROR address in use" >&2; exit 1; fi; ) <> @ready
    options = options(context, script, listen: [tcp: [port: 0]], transport: [start_ms: 1_000])
    fake = start(options)
    FakeDaemon.answer(fake, :listeners, [%{id: "elixir:0", carrier: :tcp, profile: :tls, address: [port: 4711]}])
    Legation.CNode.Directory.daemon_ready(options.name, 1)
    flush()
    kill(options.name)
    assert_receive {:asked, :monitor_peers}
    last = context |> read("started") |> String.trim() |> String.to_integer()
    # It may have its port again within the time of a start, and not only once.
    assert last > 3
    assert read(context, "config.2") =~ "0.0.0.0:4711"
    assert read(context, "config.3") =~ "0.0.0.0:4711"
    assert read(context, "config.#{last}") =~ "0.0.0.0:0"
  end

  test "it is asked to stop, and waited for, when the instance stops", context do
    log =
      capture_log(fn ->
        start(options(context, @ready))
        stop_supervised!(:instance)
        assert read(context, "ended") == "asked\n"
      end)

    assert log =~ "stopped"
  end

  test "one that doesn't stop is killed when its time is over", context do
    cat = watch(context)
    start(options(context, @ready <> "; trap '' TERM; exec sleep 1000", limits: [shutdown_ms: 1]))
    stop_supervised!(:instance)
    await_end(cat)
    refute File.exists?(Path.join(context.directory, "ended"))
  end

  test "it ends when the process that owns it is killed, and another is started", context do
    cat = watch(context)
    options = options(context, @ready)
    start(options)
    flush()
    # The next one finds no fifo, and none to read from.
    File.rm!(Path.join(context.directory, "alive"))
    options.name |> Module.concat("Daemon") |> Process.whereis() |> Process.exit(:kill)
    await_end(cat)
    assert_receive {:asked, :monitor_peers}
    assert read(context, "config.2") == read(context, "config.1")
  end

  test "it ends with its VM, even by kill -9", context do
    cat = watch(context)
    vm = TestVM.start!()
    options = options(context, @ready)
    {:ok, _pid} = TestVM.here(vm, FakeDaemon, :start_instance_and_engine, [options])
    assert TestVM.kill(vm) == 128 + 9
    await_end(cat)
    assert read(context, "ended") == "eof\n"
  end

  test "one that runs and has lost the link for as long as a start may take is ended, and another is started",
       context do
    options = options(context, @ready, transport: [start_ms: 1_000])
    start(options)
    flush()
    # Its node is gone, and it does not come back.
    stop_supervised!(FakeDaemon)
    assert options.name |> Daemon.os_pid() |> await_other(options.name)
    FakeDaemon.start!()
    assert_receive {:asked, :monitor_peers}
  end

  defp await_other(os_pid, name) do
    case Daemon.os_pid(name) do
      other when other in [nil, os_pid] -> await_other(os_pid, name)
      other -> other
    end
  end
end
