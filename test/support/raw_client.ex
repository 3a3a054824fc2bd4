defmodule Legation.RawClient do
  @moduledoc """
  One end of a link by hand: the native channel and a passive socket, with nobody who does what its events say. It can stop
  anywhere in the handshake, and what it sends can be somebody else's bytes.

      client = RawClient.open(port: port, profile: :tls, key: pem, network: file, peer: "ed25519:…", bytes: 100)
      {:stalled, client} = RawClient.handshake(client)
  """

  alias Legation.{Native, Options}

  defstruct [:socket, :channel, :session, bytes: :infinity, sent: 0, bytes_back: 0]

  @patience_ms 10_000

  @limits %{
    message_bytes_max: 1_048_576,
    engines_max: 1_000,
    queue_bytes_max: 1_048_576,
    resume_bytes_max: 0,
    credit_bytes: 0,
    fragment_bytes: 65_536,
    message_ttl_ms: :infinity,
    room_waiters_max: 16,
    engine_queue_bytes_max: :infinity,
    calls_max: 1_000,
    callers_max: 1_000,
    handles_max: 1_000,
    references_max: 1_000,
    handshake_ms: 60_000,
    ping_ms: 60_000,
    failures_max: 10,
    depth_max: 256,
    failures_window_ms: 60_000,
    overflow: :newest,
    checkpoint_ms: 5,
    checkpoint_patience_ms: 1_000,
    unproven_messages_max: 1_000,
    unproven_bytes_max: 1_048_576,
    signing: :engine,
    accept_signing: [:engine, :delegated]
  }

  @doc "`:port` or `:unix`, `:profile`, `:key` and `:network` (paths), `:peer` (text); `:bytes`: no more than these leave."
  def open(opts) do
    {:ok, keyring} = Native.keyring_load(opts[:key])
    {:ok, network} = Native.network_load(opts[:network])
    knock = opts[:unix] == nil and opts[:profile] != :local
    limits = Map.put(@limits, :knock, knock)
    peer = Options.parse_key!(opts[:peer])
    {:ok, channel} = Native.channel_connect(opts[:profile], keyring, network, peer, limits, now_ms(), nil, false)
    %__MODULE__{socket: connect(opts), channel: channel, bytes: opts[:bytes] || :infinity}
  end

  @doc "A socket to a `:port` of this machine or a `:unix` path."
  def connect(opts) do
    {address, port, options} =
      case opts[:unix] do
        nil -> {{127, 0, 0, 1}, opts[:port], [nodelay: true]}
        path -> {{:local, path}, 0, [:local]}
      end

    {:ok, socket} = :gen_tcp.connect(address, port, options ++ [:binary, active: false], @patience_ms)
    socket
  end

  @doc """
  As far as it goes: `:up`, `:stalled` (no more bytes may leave), `{:closed, code}` (the other side's words), `{:fault, code}` (ours) or
  `:closed_silently`.
  """
  def handshake(client) do
    case flush(client) do
      {:ok, client} -> receive_more(client)
      {:stalled, client} -> {:stalled, client}
      {:closed, client} -> {:closed_silently, client}
    end
  end

  defp receive_more(client) do
    case :gen_tcp.recv(client.socket, 0, @patience_ms) do
      {:ok, bytes} ->
        client = %{client | bytes_back: client.bytes_back + byte_size(bytes)}
        {events, _wake, :done} = Native.channel_handle_bytes(client.channel, bytes, now_ms())
        done(events, client)

      {:error, _closed} ->
        {:closed_silently, client}
    end
  end

  defp done(events, client) do
    Enum.find_value(events, fn
      {:up, session, _facts} -> {:up, %{client | session: session}}
      {:closed, code, _text} -> {{:closed, code}, client}
      {:fault, code, _detail} -> {{:fault, code}, client}
      _other -> nil
    end) || handshake(client)
  end

  @doc "Sends what waits, as far as it may."
  def flush(client) do
    {bytes, _more, nil} = Native.channel_flush(client.channel, now_ms())
    send_bytes(client, bytes)
  end

  defp send_bytes(%{bytes: :infinity} = client, bytes), do: do_send(client, bytes, :ok)

  defp send_bytes(%{bytes: left} = client, bytes) when byte_size(bytes) < left,
    do: do_send(%{client | bytes: left - byte_size(bytes)}, bytes, :ok)

  defp send_bytes(%{bytes: left} = client, bytes),
    do: do_send(%{client | bytes: 0}, binary_part(bytes, 0, left), :stalled)

  defp do_send(client, bytes, result) do
    case :gen_tcp.send(client.socket, bytes) do
      :ok -> {result, %{client | sent: client.sent + byte_size(bytes)}}
      {:error, _closed} -> {:closed, client}
    end
  end

  @doc "All that comes until the other side closes."
  def read_to_end(socket, read \\ "") do
    case :gen_tcp.recv(socket, 0, @patience_ms) do
      {:ok, bytes} -> read_to_end(socket, read <> bytes)
      {:error, :timeout} -> raise "the other side neither closes nor says anything"
      {:error, _closed} -> read
    end
  end

  @doc "Sends bytes as they are on a connection of its own and returns all that comes back until the other side closes."
  def say(address, bytes) do
    socket = connect(address)
    _gone_already = :gen_tcp.send(socket, bytes)
    back = read_to_end(socket)
    :gen_tcp.close(socket)
    back
  end

  def close(client), do: :gen_tcp.close(client.socket)

  defp now_ms, do: System.system_time(:millisecond)
end

defmodule Legation.Relay do
  @moduledoc """
  Stands between a dialler and a listener on this machine, cuts the bytes into pieces as it likes, and writes down what the
  dialler has sent. It serves one connection after the other.
  """

  use GenServer

  @doc "`cut.(bytes)` gives the pieces in which they are passed on, each by a send of its own."
  def start_link({port, cut}), do: GenServer.start_link(__MODULE__, {port, cut})

  def port(relay), do: GenServer.call(relay, :port)

  @doc "What diallers have sent, a list of pieces for each connection, the first one first."
  def heard(relay), do: GenServer.call(relay, :heard)

  @impl true
  def init({port, cut}) do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, nodelay: true, ip: {127, 0, 0, 1}])
    {:ok, own_port} = :inet.port(listener)
    relay = self()
    spawn_link(fn -> accept(listener, relay) end)
    {:ok, %{listener: listener, port: own_port, target: port, cut: cut, other: %{}, heard: []}}
  end

  defp accept(listener, relay) do
    {:ok, socket} = :gen_tcp.accept(listener)
    :ok = :gen_tcp.controlling_process(socket, relay)
    send(relay, {:accepted, socket})
    accept(listener, relay)
  end

  @impl true
  def handle_call(:port, _from, state), do: {:reply, state.port, state}

  def handle_call(:heard, _from, state),
    do: {:reply, for({_socket, pieces} <- Enum.reverse(state.heard), do: Enum.reverse(pieces)), state}

  @impl true
  def handle_info({:accepted, socket}, state) do
    {:ok, to} = :gen_tcp.connect({127, 0, 0, 1}, state.target, [:binary, active: true, nodelay: true])
    :ok = :inet.setopts(socket, active: true)

    {:noreply,
     %{state | other: Map.merge(state.other, %{socket => to, to => socket}), heard: [{socket, []} | state.heard]}}
  end

  def handle_info({:tcp, socket, bytes}, state) do
    for piece <- state.cut.(bytes), do: :gen_tcp.send(state.other[socket], piece)

    heard =
      Enum.map(state.heard, fn
        {^socket, pieces} -> {socket, [bytes | pieces]}
        another -> another
      end)

    {:noreply, %{state | heard: heard}}
  end

  def handle_info({:tcp_closed, socket}, state) do
    {other, rest} = Map.pop(state.other, socket)
    if other, do: :gen_tcp.close(other)
    {:noreply, %{state | other: Map.delete(rest, other)}}
  end

  def handle_info({:tcp_error, _socket, _reason}, state), do: {:noreply, state}
end
