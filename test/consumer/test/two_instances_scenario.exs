defmodule TwoInstancesScenario do
  use ExUnit.Case

  import ExUnit.CaptureIO

  defmodule Ping do
    use GenServer

    def start_link(realm), do: GenServer.start_link(__MODULE__, realm)

    @impl true
    def init(realm), do: {:ok, realm}

    @impl true
    def handle_call(:ping, from, realm) do
      {:ok, sender} = Legation.sender(from, Alice)
      {:reply, {:pong, realm, sender.realm}, realm}
    end
  end

  setup do
    directory = Path.join(System.tmp_dir!(), "legation-#{System.pid()}-#{System.unique_integer([:positive])}")
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)

    alice = Path.join(directory, "alice.pem")
    bob = Path.join(directory, "bob.pem")
    %{directory: directory, alice: {alice, make_key([alice])}, bob: {bob, make_key([bob])}}
  end

  test "an engine of one instance is called from another over a unix socket", context do
    path = Path.join(context.directory, "alice.sock")
    start_alice(context, listen: [unix: [path: path]])
    start_bob(context, connect: [unix: [path: path]])
    assert ping() == {:pong, "alice", "bob"}
  end

  test "an engine of one instance is called from another over tcp, with a network key", context do
    network = Path.join(context.directory, "net.key")
    make_key(["--network", network])
    start_alice(context, network_key: network, listen: [tcp: [port: 0, ip: {127, 0, 0, 1}]])
    [%{address: address}] = Legation.listeners(Alice)
    start_bob(context, network_key: network, connect: [tcp: [host: "127.0.0.1", port: address[:port]]])
    assert ping() == {:pong, "alice", "bob"}
  end

  test "Erlang's module does the same", context do
    path = Path.join(context.directory, "alice.sock")
    start_alice(context, listen: [unix: [path: path]])
    start_bob(context, connect: [unix: [path: path]])
    ping()
    assert :gen_server.call({:via, :legation, {Bob, :ping@alice}}, :ping) == {:pong, "alice", "bob"}
    assert :legation.whereis('ping@alice', Bob) == Legation.whereis("ping@alice", Bob)
    assert :legation.whereis("pong@alice", Bob) == :undefined
  end

  # As a user makes them, and prints their public half.
  defp make_key(args) do
    Mix.Task.reenable("legation.key")
    fn -> Mix.Task.run("legation.key", args) end |> capture_io() |> String.trim()
  end

  defp start_alice(%{alice: {key, _public}, bob: {_key, bob}}, options) do
    start_instance(
      [name: Alice, realm: "alice", key: key, peers: [[realm: "bob", key: bob, export: ["ping"]]]] ++ options
    )
  end

  defp start_bob(%{bob: {key, _public}, alice: {_key, alice}}, options) do
    {connect, options} = Keyword.split(options, [:connect])
    start_instance([name: Bob, realm: "bob", key: key, peers: [[realm: "alice", key: alice] ++ connect]] ++ options)
  end

  # Both are in one VM, where "ping@alice" can only be one process for :global.
  defp start_instance(options), do: start_supervised!({Legation, [global: :off] ++ options})

  defp ping do
    {:ok, ref, _before} = Legation.monitor_peers(Bob)
    :ok = Legation.publish("ping", start_supervised!({Ping, "alice"}), [], Alice)
    assert_receive {:legation, ^ref, {:engine_learned, "ping@alice", _info}}, 10_000
    GenServer.call({:via, Legation, {Bob, "ping@alice"}}, :ping)
  end
end
