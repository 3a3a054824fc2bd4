defmodule Legation.Carriers.Tcp do
  @moduledoc """
  TCP. Options to connect: `host:` (name, text or tuple) and `port:`; to listen: `port:` (0: the kernel's choice) and
  `ip:` (default: all addresses). `send_timeout_ms:` bounds a blocked send; the connection is closed when it passes.
  """

  @behaviour Legation.Carrier

  # One read takes what a flush of the other side makes; the kernel's buffers hold a few of them.
  @buffer_bytes 256 * 1024

  @impl true
  def connect(opts, timeout_ms) do
    with {:ok, host} <- host(opts[:host]) do
      family = if match?({_, _, _, _, _, _, _, _}, host), do: [:inet6], else: []
      :gen_tcp.connect(host, Keyword.fetch!(opts, :port), family ++ socket_options(opts), timeout_ms)
    end
  end

  @impl true
  def listen(opts) do
    ip =
      case opts[:ip] do
        nil -> []
        {_, _, _, _} = ip -> [ip: ip]
        ip -> [:inet6, ip: ip]
      end

    with {:ok, listener} <-
           :gen_tcp.listen(opts[:port] || 0, ip ++ [reuseaddr: true, backlog: 1_024] ++ socket_options(opts)),
         {:ok, {ip, port}} <- :inet.sockname(listener) do
      {:ok, listener, [ip: ip, port: port]}
    end
  end

  @impl true
  def accept(listener, timeout_ms), do: :gen_tcp.accept(listener, timeout_ms)
  @impl true
  def close_listener(listener), do: :gen_tcp.close(listener)
  @impl true
  def controlling_process(socket, pid), do: :gen_tcp.controlling_process(socket, pid)
  @impl true
  def activate(socket, count), do: :inet.setopts(socket, active: count)

  @impl true
  def stream(socket, {:tcp, socket, bytes}), do: {:data, bytes}
  def stream(socket, {:tcp_passive, socket}), do: :passive
  def stream(socket, {:tcp_closed, socket}), do: :closed
  def stream(socket, {:tcp_error, socket, reason}), do: {:error, reason}
  def stream(_socket, _message), do: :unknown

  @impl true
  def send(socket, bytes), do: :gen_tcp.send(socket, bytes)
  @impl true
  def close(socket), do: :gen_tcp.close(socket)

  @impl true
  def peer_label(socket) do
    case :inet.peername(socket) do
      {:ok, address} -> address
      {:error, _closed} -> :unknown
    end
  end

  @impl true
  def check_peer(_socket, _opts), do: :ok
  @impl true
  def default_profile, do: :tls
  @impl true
  def knock?, do: true

  defp host(host) when is_tuple(host), do: {:ok, host}

  defp host(host) when is_binary(host) do
    case :inet.parse_strict_address(String.to_charlist(host)) do
      {:ok, address} -> {:ok, address}
      {:error, :einval} -> {:ok, String.to_charlist(host)}
    end
  end

  defp host(_host), do: {:error, :einval}

  defp socket_options(opts) do
    [
      :binary,
      packet: :raw,
      active: false,
      nodelay: true,
      keepalive: true,
      send_timeout: opts[:send_timeout_ms] || 15_000,
      send_timeout_close: true,
      buffer: @buffer_bytes,
      recbuf: @buffer_bytes,
      sndbuf: @buffer_bytes
    ]
  end
end
