defmodule Legation.Carriers.Tcp do
  @moduledoc """
  The carrier `:tcp`: `:gen_tcp`, over IPv4 and IPv6.

      listen: [tcp: [port: 4040]]
      connect: [tcp: [host: "bob.example", port: 4040]]

  A host's name is looked up at each dial, first as IPv4, then as IPv6.
  """

  @behaviour Legation.Carrier

  # Much fits into one read, one decryption, one batch.
  @buffer_bytes 256 * 1024
  # A hello fits.
  @handshake_buffer_bytes 4 * 1024
  @backlog 1_024
  # What the kernel takes and has not sent yet: small messages wait behind it, whatever the session would let overtake. What
  # is on its way is not counted, so a long link is as fast as before.
  @unsent_bytes_max 256 * 1024

  # The connection is the socket itself, so that `stream/2` matches on it and nothing else.
  @typep conn :: :gen_tcp.socket()

  @impl true
  def connect(opts, timeout_ms) do
    host = opts[:host]
    deadline_ms = now_ms() + timeout_ms

    with {:error, reason} when is_binary(host) and reason in [:nxdomain, :enetunreach, :ehostunreach] <-
           dial(host, opts, family(host), timeout_ms),
         left_ms when left_ms > 0 <- deadline_ms - now_ms() do
      with {:error, _no_ipv6_either} <- dial(host, opts, [:inet6], left_ms), do: {:error, reason}
    else
      {:ok, conn} -> {:ok, conn}
      {:error, reason} -> {:error, reason}
      _no_time_left -> {:error, :timeout}
    end
  end

  defp dial(host, opts, family, timeout_ms) do
    host = if is_binary(host), do: String.to_charlist(host), else: host
    :gen_tcp.connect(host, opts[:port], family ++ tcp_options() ++ options(opts), timeout_ms)
  end

  @impl true
  def listen(opts) do
    ip = if opts[:ip], do: [ip: opts[:ip]], else: []
    listening = [reuseaddr: true, backlog: @backlog]

    with {:ok, listener} <-
           :gen_tcp.listen(opts[:port], family(opts[:ip]) ++ ip ++ listening ++ tcp_options() ++ options(opts)),
         {:ok, port} <- :inet.port(listener) do
      {:ok, listener, [port: port]}
    end
  end

  defp family(ip) when tuple_size(ip) == 8, do: [:inet6]
  defp family(_ipv4_or_name), do: [:inet]

  # The kernel's buffers are left to its own tuning: a fixed size would bound what a long link carries.
  defp tcp_options, do: [nodelay: true, keepalive: true] ++ bound_unsent(:os.type())

  # TCP_NOTSENT_LOWAT, which OTP has no name for. Connections inherit it from their listener.
  defp bound_unsent({:unix, :linux}), do: [{:raw, 6, 25, <<@unsent_bytes_max::native-32>>}]
  defp bound_unsent({:unix, :darwin}), do: [{:raw, 6, 0x201, <<@unsent_bytes_max::native-32>>}]
  defp bound_unsent(_has_none), do: []

  @doc false
  # What sockets of all families have, also the Unix carrier's.
  def options(opts) do
    [
      :binary,
      packet: :raw,
      active: false,
      # Strangers get little memory; see established/1.
      buffer: @handshake_buffer_bytes,
      send_timeout: Keyword.get(opts, :send_timeout_ms, 15_000),
      send_timeout_close: true
    ]
  end

  @impl true
  def established(conn), do: :inet.setopts(conn, buffer: @buffer_bytes)

  # `:gen_tcp.close/1` waits for what is queued otherwise, 5 s at a time.
  @impl true
  def abort(conn) do
    :inet.setopts(conn, linger: {true, 0})
    :gen_tcp.close(conn)
  end

  @impl true
  def accept(listener, timeout_ms), do: :gen_tcp.accept(listener, timeout_ms)

  @impl true
  def close_listener(listener), do: :gen_tcp.close(listener)

  @impl true
  def controlling_process(conn, pid), do: :gen_tcp.controlling_process(conn, pid)

  @impl true
  def activate(conn, count), do: :inet.setopts(conn, active: count)

  # A socket that is asked for so many messages is read at once, and as long as there is nothing keeps the buffer that it was to be read into:
  # one from a store that all sockets share, and so mostly as large as those of links that are up. One that is active already is read
  # when something has come. What comes between the two calls is not counted, which is little.
  @impl true
  def activate_stranger(conn, count) do
    with :ok <- :inet.setopts(conn, active: true) do
      case :inet.setopts(conn, active: count) do
        :ok -> :ok
        # It was closed meanwhile, and that is in the mailbox.
        {:error, :einval} -> :ok
        error -> error
      end
    end
  end

  @impl true
  @spec stream(conn, term) :: {:data, binary} | :passive | :closed | {:error, term} | :unknown
  def stream(conn, {:tcp, conn, bytes}), do: {:data, bytes}
  def stream(conn, {:tcp_passive, conn}), do: :passive
  def stream(conn, {:tcp_closed, conn}), do: :closed
  def stream(conn, {:tcp_error, conn, reason}), do: {:error, reason}
  def stream(_conn, _message), do: :unknown

  @impl true
  def send(conn, iodata), do: :gen_tcp.send(conn, iodata)

  @impl true
  def shutdown(conn), do: :gen_tcp.shutdown(conn, :write)

  @impl true
  def close(conn), do: :gen_tcp.close(conn)

  @impl true
  def peer_label(conn) do
    case :inet.peername(conn) do
      {:ok, {ip, port}} -> {ip, port}
      {:error, _gone} -> :unknown
    end
  end

  # Anybody: that is for the handshake to find out.
  @impl true
  def check_peer(_conn, _opts), do: :ok

  @impl true
  def default_profile, do: :tls

  @impl true
  def knock?, do: true

  defp now_ms, do: System.monotonic_time(:millisecond)
end
