defmodule Legation.Carriers.Unix do
  @moduledoc """
  Unix sockets. `path:` names the socket (at most 107 bytes). The kernel vouches for the user at the other end: `uids:`
  lists those that may be there, `:any` lets all in; the default is our own user. Both sides check.

  A listener takes the place of a socket file that nobody listens on any more, and removes its own when it closes.
  """

  @behaviour Legation.Carrier

  @buffer_bytes 256 * 1024
  # SOL_SOCKET, SO_PEERCRED, and struct ucred {pid, uid, gid} on Linux.
  @peer_credentials {:raw, 1, 17, 12}

  @impl true
  def connect(opts, timeout_ms) do
    with {:ok, path} <- path(opts), do: :gen_tcp.connect({:local, path}, 0, [:local | socket_options(opts)], timeout_ms)
  end

  @impl true
  def listen(opts) do
    with {:ok, path} <- path(opts),
         :ok <- remove_stale(path),
         {:ok, listener} <- :gen_tcp.listen(0, [:local, ifaddr: {:local, path}, backlog: 1_024] ++ socket_options(opts)) do
      {:ok, {listener, path}, [path: path]}
    end
  end

  @impl true
  def accept({listener, _path}, timeout_ms), do: :gen_tcp.accept(listener, timeout_ms)

  @impl true
  def close_listener({listener, path}) do
    :gen_tcp.close(listener)
    _ = File.rm(path)
    :ok
  end

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
    case uid(socket) do
      {:ok, uid} -> {:uid, uid}
      {:error, _reason} -> :unknown
    end
  end

  @impl true
  def check_peer(socket, opts) do
    case opts[:uids] do
      :any ->
        :ok

      uids ->
        with {:ok, uid} <- uid(socket) do
          if uid in (uids || [own_uid()]), do: :ok, else: {:error, {:uid_not_allowed, uid}}
        end
    end
  end

  @impl true
  def default_profile, do: :local
  @impl true
  def knock?, do: false

  defp path(opts) do
    path = opts |> Keyword.fetch!(:path) |> Path.expand()
    if byte_size(path) <= 107, do: {:ok, path}, else: {:error, {:path_too_long, path}}
  end

  # A file that somebody listens on is not ours to take.
  defp remove_stale(path) do
    case File.lstat(path) do
      {:error, :enoent} ->
        :ok

      {:ok, %File.Stat{type: :other}} ->
        case :gen_tcp.connect({:local, path}, 0, [:local], 1_000) do
          {:ok, socket} ->
            :gen_tcp.close(socket)
            {:error, :eaddrinuse}

          {:error, :econnrefused} ->
            File.rm(path)

          {:error, reason} ->
            {:error, reason}
        end

      {:ok, _something_else} ->
        {:error, :eexist}

      {:error, reason} ->
        {:error, reason}
    end
  end

  defp uid(socket) do
    case :inet.getopts(socket, [@peer_credentials]) do
      {:ok, [{:raw, 1, 17, <<_pid::native-32, uid::native-32, _gid::native-32>>}]} -> {:ok, uid}
      _not_linux -> {:error, :no_peer_credentials}
    end
  end

  defp own_uid, do: File.stat!("/proc/self").uid

  defp socket_options(opts) do
    [
      :binary,
      packet: :raw,
      active: false,
      send_timeout: opts[:send_timeout_ms] || 15_000,
      send_timeout_close: true,
      buffer: @buffer_bytes,
      recbuf: @buffer_bytes,
      sndbuf: @buffer_bytes
    ]
  end
end
