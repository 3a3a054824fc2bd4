defmodule Legation.Carriers.Unix do
  @moduledoc """
  The carrier `:unix`: a Unix domain socket, for realms on one machine.

      listen: [unix: [path: "/run/alice.sock"]]
      connect: [unix: [path: "/run/alice.sock"]]

  Both ends ask the system which user is at the other end, and close unless it is one of `:uids`; by default the one that we run as. The
  socket file has mode 0600 then, and 0666 with other `:uids`: who may connect is the system's answer and not the file's mode.

  A file that a listener of before has left behind is removed, unless somebody listens on it. So is ours when we stop listening.

  Which user is at the other end can be told on Linux only. Elsewhere every connection is refused, but for `uids: :any`.
  """

  @behaviour Legation.Carrier

  alias Legation.Carriers.Tcp

  # getsockopt(SOL_SOCKET, SO_PEERCRED, struct ucred), Linux.
  @peer_credentials {:raw, 1, 17, 12}
  @backlog 1_024
  # Whether somebody listens on a socket of this machine is known at once.
  @probe_ms 1_000

  @impl true
  def connect(opts, timeout_ms),
    do: :gen_tcp.connect({:local, opts[:path]}, 0, [:local | Tcp.options(opts)], timeout_ms)

  @impl true
  def listen(opts) do
    path = opts[:path]

    with {:ok, socket} <- bind(path, opts) do
      File.chmod(path, mode(opts))
      {:ok, %{socket: socket, path: path, file: file(path)}, [path: path]}
    end
  end

  defp bind(path, opts) do
    options = [:local, {:ifaddr, {:local, path}}, {:backlog, @backlog} | Tcp.options(opts)]

    with {:error, :eaddrinuse} <- :gen_tcp.listen(0, options),
         :stale <- state(path) do
      File.rm(path)
      :gen_tcp.listen(0, options)
    else
      {:ok, socket} -> {:ok, socket}
      {:error, reason} -> {:error, reason}
      :in_use -> {:error, :eaddrinuse}
    end
  end

  # What isn't a socket refuses connections, too, and is not ours to remove.
  defp state(path) do
    with {:ok, %{type: :other}} <- File.lstat(path),
         {:error, :econnrefused} <- :gen_tcp.connect({:local, path}, 0, [:local, active: false], @probe_ms) do
      :stale
    else
      {:ok, socket} when is_port(socket) ->
        :gen_tcp.close(socket)
        :in_use

      _not_a_socket_or_not_ours ->
        :in_use
    end
  end

  defp mode(opts), do: if(opts[:uids] in [nil, [own_uid()]], do: 0o600, else: 0o666)

  @impl true
  def accept(%{socket: socket}, timeout_ms), do: :gen_tcp.accept(socket, timeout_ms)

  # Somebody may have put another file there.
  @impl true
  def close_listener(%{socket: socket, path: path, file: file}) do
    if file != nil and file(path) == file, do: File.rm(path)
    :gen_tcp.close(socket)
  end

  defp file(path) do
    case File.lstat(path) do
      {:ok, %{major_device: device, inode: inode}} -> {device, inode}
      {:error, _gone} -> nil
    end
  end

  @impl true
  defdelegate controlling_process(conn, pid), to: Tcp

  @impl true
  defdelegate activate(conn, count), to: Tcp
  @impl true
  defdelegate activate_stranger(conn, count), to: Tcp

  @impl true
  defdelegate established(conn), to: Tcp

  @impl true
  defdelegate abort(conn), to: Tcp

  @impl true
  defdelegate stream(conn, message), to: Tcp

  @impl true
  defdelegate send(conn, iodata), to: Tcp

  @impl true
  defdelegate shutdown(conn), to: Tcp

  @impl true
  defdelegate close(conn), to: Tcp

  @impl true
  def peer_label(conn) do
    case peer_uid(conn) do
      {:ok, uid} -> {:uid, uid}
      {:error, _reason} -> :unknown
    end
  end

  @impl true
  def check_peer(conn, opts) do
    case Keyword.get(opts, :uids) do
      :any ->
        :ok

      uids ->
        with {:ok, uid} <- peer_uid(conn) do
          if uid in (uids || [own_uid()]), do: :ok, else: {:error, {:uid_not_allowed, uid}}
        end
    end
  end

  defp peer_uid(conn) do
    with {:unix, :linux} <- :os.type(),
         {:ok, [{:raw, 1, 17, credentials}]} <- :inet.getopts(conn, [@peer_credentials]),
         <<_pid::native-32, uid::native-32, _gid::native-32>> <- credentials do
      {:ok, uid}
    else
      _unknown -> {:error, :no_peer_credentials}
    end
  end

  defp own_uid do
    case File.stat("/proc/self") do
      {:ok, %{uid: uid}} -> uid
      {:error, _not_linux} -> nil
    end
  end

  @impl true
  def default_profile, do: :local

  @impl true
  def knock?, do: false
end
