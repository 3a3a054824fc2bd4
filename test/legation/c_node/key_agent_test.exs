defmodule Legation.CNode.KeyAgentTest do
  use ExUnit.Case, async: true

  alias Legation.CNode.KeyAgent
  alias Legation.{Blake3, Native, Options}

  @moduletag :capture_log

  defmodule Holder do
    @behaviour Legation.Keyholder

    @impl true
    def init(:refuse_to_open), do: {:error, :no_hsm}

    def init(test) do
      {public, private} = :crypto.generate_key(:eddsa, :ed25519)
      {:ok, %{test: test, public: public, private: private, signed: 0}}
    end

    @impl true
    def public_key(state), do: state.public

    @impl true
    def sign(:forget, _request, state), do: {:error, :not_today, state}
    def sign(:learn, _request, state), do: {:error, {:pin, "secret"}, state}
    def sign(:cert, _request, _state), do: raise("secret")

    def sign(purpose, request, state) do
      send(state.test, {:signed, purpose, request})

      {:ok, :crypto.sign(:eddsa, :none, request.input, [state.private, :ed25519]), %{state | signed: state.signed + 1}}
    end
  end

  setup do
    config = :ets.new(:config, [:public])
    name = :"Elixir.Agent#{System.unique_integer([:positive])}"
    options = Options.new!(name: name, realm: "alice", key: {:keyholder, Holder, self()}, transport: {:c_node, []})
    agent = start_supervised!({KeyAgent, {options, config}})
    %{agent: agent, path: KeyAgent.path(config), config: config, options: options}
  end

  defp connect(path) do
    {:ok, socket} = :gen_tcp.connect({:local, path}, 0, [:binary, :local, packet: 4, active: false])
    socket
  end

  defp ask(socket, version \\ 1, type, id, content) do
    :ok = :gen_tcp.send(socket, <<version, type, id::64, content::binary>>)
    :gen_tcp.recv(socket, 0, 5_000)
  end

  @network <<9::256>>

  test "the frames are as documented, and what is signed is built of purpose, network and body", %{path: path} do
    socket = connect(path)
    assert {:ok, <<1, 129, 7::64, public::binary-32>>} = ask(socket, 1, 7, "")
    body = :crypto.strong_rand_bytes(3_000)

    for {number, purpose} <- [{1, :link}, {2, :hello}] do
      assert {:ok, <<1, 130, 8::64, signature::binary-64>>} =
               ask(socket, 2, 8, <<number, @network::binary, body::binary>>)

      assert_receive {:signed, ^purpose, %{body: ^body, network_id: @network, input: input}}
      assert input == "legation/1/#{purpose}" <> <<0>> <> @network <> Native.blake3(body)
      assert :crypto.verify(:eddsa, :none, input, signature, [public, :ed25519])
    end
  end

  test "the input is that of the native library" do
    for bytes <- [0, 1, 64, 65, 1_024, 1_025, 4_096] do
      body = :crypto.strong_rand_bytes(bytes)
      {:ok, network} = Native.network_load(nil)
      input = Native.signing_input(network, :hello, body)
      assert KeyAgent.signing_input(:hello, Native.network_id(network), body) == input
    end

    assert Blake3.hash("") == Native.blake3("")
  end

  test "who doesn't sign says so, in a word where it has one, and goes on", %{path: path} do
    socket = connect(path)
    sign = fn number -> ask(socket, 2, 1, <<number, @network::binary, "body">>) end
    assert sign.(5) == {:ok, <<1, 255, 1::64, 4, "not_today">>}
    # Nothing of what it is about.
    assert sign.(4) == {:ok, <<1, 255, 1::64, 4>>}
    assert sign.(3) == {:ok, <<1, 255, 1::64, 4, "keyholder">>}
    # A batch's, or none at all.
    assert sign.(6) == {:ok, <<1, 255, 1::64, 2>>}
    assert sign.(0) == {:ok, <<1, 255, 1::64, 2>>}
    assert {:ok, <<1, 130, _rest::binary>>} = sign.(1)
  end

  test "what is no request is refused by its id, and what has none ends the connection", %{path: path} do
    socket = connect(path)
    assert ask(socket, 2, 1, 3, "") == {:ok, <<1, 255, 3::64, 1>>}
    assert ask(socket, 99, 3, "") == {:ok, <<1, 255, 3::64, 1>>}
    assert ask(socket, 2, 3, <<1, 2, 3>>) == {:ok, <<1, 255, 3::64, 1>>}
    :ok = :gen_tcp.send(socket, <<1, 2, 3>>)
    assert :gen_tcp.recv(socket, 0, 5_000) == {:error, :closed}
  end

  test "a frame is taken at its bound and ends the connection one past it", %{path: path} do
    socket = connect(path)
    head = 1 + 1 + 8 + 1 + 32
    assert {:ok, <<1, 130, _rest::binary>>} = ask(socket, 2, 1, <<1, @network::binary, 0::size((8_192 - head) * 8)>>)
    assert {:error, _closed} = ask(socket, 2, 1, <<1, @network::binary, 0::size((8_193 - head) * 8)>>)
    assert {:ok, <<1, 129, _rest::binary>>} = ask(connect(path), 1, 1, "")
  end

  test "as many get in as there are places, and one that leaves makes room", %{path: path} do
    sockets = for _n <- 1..8, do: connect(path)
    for socket <- sockets, do: assert({:ok, <<1, 129, _rest::binary>>} = ask(socket, 1, 1, ""))
    ninth = connect(path)
    assert {:error, :closed} = :gen_tcp.recv(ninth, 0, 5_000)
    :gen_tcp.close(hd(sockets))
    assert answered?(path)
  end

  # That one has left is known a moment later.
  defp answered?(path) do
    socket = connect(path)
    :gen_tcp.send(socket, <<1, 1, 1::64>>)
    match?({:ok, _answer}, :gen_tcp.recv(socket, 0, 5_000)) or answered?(path)
  end

  test "nobody else may enter its directory, and that goes with it", %{path: path} do
    directory = Path.dirname(path)
    assert Bitwise.band(File.stat!(directory).mode, 0o777) == 0o700
    socket = connect(path)
    assert {:ok, _key} = ask(socket, 1, 1, "")
    stop_supervised!(KeyAgent)
    refute File.exists?(directory)
    assert :gen_tcp.recv(socket, 0, 5_000) == {:error, :closed}
  end

  test "one that can't be opened says why", %{options: options} do
    Process.flag(:trap_exit, true)
    options = %{options | name: :OtherAgent, key: {:keyholder, Holder, fn -> :refuse_to_open end}}
    assert {:error, {:shutdown, :no_hsm}} = KeyAgent.start_link({options, :ets.new(:config, [:public])})
  end

  test "its state is not shown", %{agent: agent} do
    refute inspect(:sys.get_status(agent)) =~ "private"
  end
end
