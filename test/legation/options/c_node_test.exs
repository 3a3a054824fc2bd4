defmodule Legation.Options.CNodeTest do
  use ExUnit.Case, async: true

  alias Legation.Options
  alias Legation.Options.CNode

  defp options(transport, opts \\ []),
    do: Options.validate([realm: "alice", key: "alice.pem", transport: transport] ++ opts)

  defp daemon(opts) do
    {:ok, %Options{transport: %CNode{} = transport}} = options({:c_node, opts})
    transport
  end

  defp refused(opts, more \\ []) do
    {:error, message} = options({:c_node, opts}, more)
    message
  end

  test "the embedded transport is the default, and the daemon needs no options" do
    assert {:ok, %Options{transport: :embedded}} = Options.validate(realm: "alice", key: "alice.pem")
    assert {:ok, %Options{transport: :embedded}} = options(:embedded)

    assert %CNode{node: nil, binary: nil, cookie: nil, ip: nil, port: 0, epmd: true, connect: []} = daemon([])
  end

  test "what was checked once passes as it is" do
    {:ok, options} = options({:c_node, node: "l@host"})
    assert Options.new!(options) == options
    # As it is for what is added at run time.
    assert {:ok, %Options{transport: transport}} = options(options.transport)
    assert transport == options.transport
  end

  test "nodes are given by their names" do
    assert daemon(node: :"legation@127.0.0.1").node == "legation@127.0.0.1"
    assert daemon(node: "größe@host.example").node == "größe@host.example"
    assert daemon(connect: [:a@b, "c@d", {:e@f, 9_001}]).connect == ["a@b", "c@d", {"e@f", 9_001}]

    for bad <- ["legation", "@host", "a@", "a@b@c", "a b@c", "a@b\n", :nonode, 5] do
      assert refused(node: bad) =~ "expected :node to be a node's name like \"legation@host\", got: #{inspect(bad)}"
      assert refused(connect: [bad]) =~ "expected :connect to be a list of nodes"
    end

    assert refused(connect: [{:a@b, 0}]) =~ "expected :connect"
    assert refused(connect: :a@b) =~ "expected :connect"
  end

  test "what can't be meant is refused with its place" do
    assert refused(nod: :a@b) =~ "unknown option :nod in transport; known are :node, :binary"
    assert refused(port: 65_536) == "expected :port to be an integer from 0 to 65535, got: 65536 (in transport)"
    assert refused(ip: "localhost") =~ "expected :ip to be an IP address"
    assert daemon(ip: "::1").ip == {0, 0, 0, 0, 0, 0, 0, 1}
    assert refused(epmd: :no) =~ "expected :epmd to be true, false or a port"
    assert daemon(epmd: 4_369).epmd == 4_369
    assert refused(threads: 0) =~ "expected :threads"
    assert refused(binary: "") =~ "expected :binary to be a path"
    assert daemon(binary: "x/legation").binary == Path.expand("x/legation")
    assert refused(control_socket: "/" <> String.duplicate("x", 107)) =~ "at most 107 bytes"
    assert refused(start_ms: 0) =~ "expected :start_ms"
    assert refused(limits: [beam_nodes: 1]) =~ "unknown option :beam_nodes in transport: limits"
    assert refused(limits: [beam_nodes_max: 0]) =~ "expected :beam_nodes_max to be a positive integer"
    assert daemon(limits: [beam_nodes_max: 3]).limits == [beam_nodes_max: 3]
    assert {:error, "expected :transport to be :embedded or {:c_node, options}, got: :c_node"} = options(:c_node)
  end

  test "the cookie is not shown" do
    for cookie <- [:secret, "secret"] do
      {:ok, options} = options({:c_node, cookie: cookie})
      assert options.transport.cookie.() == cookie
      refute inspect(options) =~ "secret"
      refute inspect(options, structs: false) =~ "secret"
    end

    message = refused(cookie: ~c"secret")
    assert message =~ "expected :cookie to be an atom or text"
    refute message =~ "secret"
    spec = Legation.child_spec(realm: "alice", key: "a.pem", transport: {:c_node, cookie: :secret})
    refute to_string(:io_lib.format("~p", [spec])) =~ "secret"
  end

  test "carriers that the daemon doesn't have are named" do
    words = "as the daemon has no other carriers"

    assert refused([], listen: [memory: [name: 1]]) =~
             "expected :listen to be a list of :tcp and :unix addresses, #{words}"

    peer = [realm: "bob", key: <<1::256>>, connect: [tcp: [host: "x", port: 1], memory: [name: 1]]]
    assert refused([], peers: [peer]) =~ ~r/expected :connect to be .* got: :memory \(in peer "bob"\)/
    assert {:ok, _options} = options({:c_node, []}, listen: [tcp: [port: 0], unix: [path: "/x"]])
    assert {:ok, _options} = options(:embedded, listen: [memory: [name: 1]])
  end

  # Not where the suite runs in a node of its own.
  @tag :not_distributed
  test "a VM without a name can't have a daemon beside it, and is told so" do
    refute Node.alive?()

    assert {:error, {:not_distributed, :nonode@nohost}} =
             Legation.start_link(realm: "a", key: "a.pem", transport: {:c_node, []})

    assert Legation.Error.message({:not_distributed, node()}) =~ "start it with --name or --sname"
  end

  test "from Erlang its options are strings and atoms" do
    transport =
      {:c_node, node: ~c"l@host", binary: ~c"/bin/legation", ip: ~c"127.0.0.1", connect: [~c"a@b", {:c@d, 1}], port: 1}

    %{start: {Legation, :start_link, [options]}} =
      :legation.child_spec(realm: ~c"alice", key: ~c"a.pem", transport: transport)

    assert %{node: "l@host", binary: "/bin/legation", ip: {127, 0, 0, 1}, port: 1} = options.transport
    assert options.transport.connect == ["a@b", {"c@d", 1}]
  end
end
