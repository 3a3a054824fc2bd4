defmodule Legation.CNode.KeyAgent do
  @moduledoc false
  # A user's keyholder (Legation.Keyholder) for the daemon: an agent on a Unix socket, as `docs/key-agent.md` has it. The
  # socket is in a directory that nobody else may enter, and only the user that we run as gets through.
  #
  #   frames of {packet, 4}:   version 1 │ type │ id (8) │ content
  #
  #     1 public key?                                129 public key (32)
  #     2 sign: purpose │ network id (32) │ body     130 signature (64)      255 refused: reason │ text
  #
  # What is signed is built here, of purpose, network and body, and the user's module is given both.

  use GenServer

  alias Legation.{Blake3, Instance, Keyholder, Telemetry}
  alias Legation.Carriers.Unix
  alias Legation.CNode.KeyAgent.Connection

  # The daemon has one, and two while it is started again.
  @connections_max 8
  @accept_pause_ms 100
  # Characters of at most 4 bytes, in at most 255.
  @text_max 63

  @purposes %{1 => :link, 2 => :hello, 3 => :cert, 4 => :learn, 5 => :forget}

  def start_link({options, config}),
    do: GenServer.start_link(__MODULE__, {options, config}, name: Instance.process(options.name, KeyAgent))

  @doc "The agent's socket, or nil where the daemon has the key in a file."
  def path(config) do
    case :ets.lookup(config, :agent) do
      [{:agent, path}] -> path
      [] -> nil
    end
  end

  ## What connections ask

  @doc false
  def public_key(agent), do: GenServer.call(agent, :public_key, :infinity)

  @doc false
  @spec sign(pid, purpose :: 1..5, <<_::256>>, binary) :: {:ok, <<_::512>>} | {:error, :purpose | {:failed, binary}}
  def sign(agent, purpose, network_id, body) do
    case @purposes do
      %{^purpose => purpose} -> GenServer.call(agent, {:sign, purpose, network_id, body}, :infinity)
      _unknown -> {:error, :purpose}
    end
  end

  @doc false
  # protocol.md 3.1
  def signing_input(purpose, network_id, body),
    do: "legation/1/#{purpose}" <> <<0>> <> network_id <> Blake3.hash(body)

  ## The process

  @impl true
  def init({%{key: {:keyholder, module, args}} = options, config}) do
    Process.flag(:trap_exit, true)

    with {:ok, held} <- module.init(args.()),
         {:ok, directory} <- private_directory(),
         path = Path.join(directory, "agent.sock"),
         {:ok, socket} <- Connection.listen(path) do
      :ets.insert(config, {:agent, path})
      agent = self()

      {:ok,
       %{
         name: options.name,
         holder: {module, held},
         key: module.public_key(held),
         directory: directory,
         socket: socket,
         acceptor: spawn_link(fn -> accept(socket, agent, 0) end)
       }}
    else
      {:error, reason} -> {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_call(:public_key, _from, state), do: {:reply, state.key, state}

  def handle_call({:sign, purpose, network_id, body}, _from, state) do
    request = %{network_id: network_id, body: body, input: signing_input(purpose, network_id, body)}
    {result, holder} = Keyholder.ask(state.name, state.holder, purpose, request)
    {:reply, with({:error, reason} <- result, do: {:error, {:failed, words(reason)}}), %{state | holder: holder}}
  end

  @impl true
  def handle_info({:EXIT, acceptor, reason}, %{acceptor: acceptor} = state), do: {:stop, reason, state}
  # A user's keyholder may leave answers behind that it no longer waits for.
  def handle_info(_stray, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state) do
    :gen_tcp.close(state.socket)
    File.rm_rf(state.directory)
  end

  # Nothing of the user's state is shown.
  @impl true
  def format_status(_reason, [_dictionary, state]), do: [data: [{~c"State", %{name: state.name, secrets: :hidden}}]]

  # A term may hold what must not be logged elsewhere.
  defp words(reason) when is_atom(reason), do: reason |> Atom.to_string() |> String.slice(0, @text_max)
  defp words(_reason), do: ""

  # Made with its mode, by a name that nobody can have taken before.
  defp private_directory do
    name = "legation-agent-" <> Base.encode16(:crypto.strong_rand_bytes(8), case: :lower)
    directory = Path.join(System.tmp_dir!(), name)
    with :ok <- File.mkdir(directory), :ok <- File.chmod(directory, 0o700), do: {:ok, directory}
  end

  ## Accepting, in a process of its own

  defp accept(socket, agent, open) do
    case :gen_tcp.accept(socket) do
      {:ok, connection} ->
        accept(socket, agent, serve(connection, agent, gone(open)))

      {:error, :closed} ->
        :ok

      {:error, reason} ->
        Telemetry.log(:warning, {:key_agent, agent}, "the key agent can't accept: #{Legation.Error.message(reason)}")
        # Until there are files again, say.
        Process.sleep(@accept_pause_ms)
        accept(socket, agent, open)
    end
  end

  defp serve(connection, agent, open) do
    if open < @connections_max and Unix.check_peer(connection, []) in [:ok, {:error, :no_peer_credentials}] do
      {pid, _monitor} = spawn_monitor(Connection, :serve, [agent, connection])
      :ok = :gen_tcp.controlling_process(connection, pid)
      send(pid, {:go, connection})
      open + 1
    else
      :gen_tcp.close(connection)
      open
    end
  end

  # Those that have closed since the last one came.
  defp gone(open) do
    receive do
      {:DOWN, _monitor, :process, _connection, _reason} -> gone(open - 1)
    after
      0 -> open
    end
  end
end

defmodule Legation.CNode.KeyAgent.Connection do
  @moduledoc false
  # One connection to the key agent. Requests are answered in turn, so who doesn't read its answers holds up nobody else.

  alias Legation.CNode.KeyAgent

  # A HELLO, the largest body that is signed, has at most 4 KiB.
  @request_bytes_max 8_192
  # Of a Unix socket that has none left a dialler hears nothing.
  @backlog 128
  @hand_over_ms 5_000
  @send_timeout_ms 5_000

  @version 1
  @malformed 1
  @bad_purpose 2
  @failed 4

  def listen(path) do
    :gen_tcp.listen(0, [
      :binary,
      :local,
      ifaddr: {:local, path},
      backlog: @backlog,
      active: false,
      packet: 4,
      packet_size: @request_bytes_max,
      send_timeout: @send_timeout_ms,
      send_timeout_close: true
    ])
  end

  def serve(agent, socket) do
    # It ends with the agent, and with its socket.
    monitor = Process.monitor(agent)

    receive do
      {:go, ^socket} -> loop(agent, socket, monitor)
      {:DOWN, ^monitor, :process, _agent, _reason} -> :ok
    after
      @hand_over_ms -> :ok
    end
  end

  defp loop(agent, socket, monitor) do
    with :ok <- :inet.setopts(socket, active: :once),
         {:ok, frame} <- next(socket, monitor),
         {:ok, answer} <- answer(agent, frame),
         :ok <- :gen_tcp.send(socket, answer) do
      loop(agent, socket, monitor)
    else
      _closed_or_garbage -> :gen_tcp.close(socket)
    end
  end

  defp next(socket, monitor) do
    receive do
      {:tcp, ^socket, frame} -> {:ok, frame}
      {:tcp_closed, ^socket} -> :closed
      # A frame over the bound, too.
      {:tcp_error, ^socket, _reason} -> :closed
      {:DOWN, ^monitor, :process, _agent, _reason} -> :closed
    end
  end

  @doc "The answer to a frame, or `:garbage` for one that hasn't even an id."
  def answer(agent, <<version, kind, id::binary-size(8), content::binary>>),
    do: {:ok, [<<@version>>, head(version, kind, content, agent, id)]}

  def answer(_agent, _frame), do: :garbage

  defp head(@version, 1, "", agent, id), do: [<<129>>, id, KeyAgent.public_key(agent)]

  defp head(@version, 2, <<purpose, network_id::binary-size(32), body::binary>>, agent, id) do
    case KeyAgent.sign(agent, purpose, network_id, body) do
      {:ok, signature} -> [<<130>>, id, signature]
      {:error, :purpose} -> [<<255>>, id, @bad_purpose]
      {:error, {:failed, text}} -> [<<255>>, id, @failed, text]
    end
  end

  defp head(_version, _kind, _content, _agent, id), do: [<<255>>, id, @malformed]
end
