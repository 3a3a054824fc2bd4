defmodule Legation.TestCluster do
  @moduledoc """
  Nodes of one Erlang cluster on loopback, with an epmd of their own, so that they meet no other cluster of the machine.

      cluster = TestCluster.start!()
      vm = TestVM.start!(TestCluster.vm_options(cluster, "bob"))      a node with the library
      {peer, node} = TestCluster.start_plain!(cluster, "plain")       one without it
  """

  use GenServer

  @patience_ms 30_000

  @doc "Starts epmd on a free port. It ends with the test."
  def start! do
    pid = ExUnit.Callbacks.start_supervised!({__MODULE__, self()}, id: make_ref())

    %{port: await_ready(pid), cookie: Base.encode16(:crypto.strong_rand_bytes(10))}
  end

  @default_port 4369

  @doc "An epmd for this VM and all of the tests: who listens on its port, or one of ours. That ends with this VM."
  def ensure_epmd! do
    port =
      case :init.get_argument(:epmd_port) do
        {:ok, [[text | _rest] | _more]} -> List.to_integer(text)
        :error -> @default_port
      end

    case :gen_tcp.connect({127, 0, 0, 1}, port, [], @patience_ms) do
      {:ok, socket} ->
        :gen_tcp.close(socket)

      {:error, _nobody} ->
        {:ok, pid} = GenServer.start(__MODULE__, {self(), port})
        System.at_exit(fn _status -> GenServer.stop(pid) end)
        await_ready(pid)
    end

    :ok
  end

  defp await_ready(pid) do
    receive do
      {^pid, :ready, port} -> port
    after
      @patience_ms -> raise "epmd does not start"
    end
  end

  @doc "For `Legation.TestVM.start!/1`."
  def vm_options(cluster, name) do
    [args: ["-name", "#{name}@127.0.0.1" | node_args(cluster)], env: env(cluster)]
  end

  @doc "A node that has Erlang/OTP and nothing else. It ends with the test."
  def start_plain!(cluster, name, args \\ []) do
    options = %{
      name: to_charlist(name),
      host: ~c"127.0.0.1",
      longnames: true,
      connection: :standard_io,
      args: Enum.map(node_args(cluster) ++ args, &to_charlist/1),
      env: for({name, value} <- env(cluster), do: {to_charlist(name), to_charlist(value)})
    }

    {:ok, peer, node} = :peer.start(options)
    os_pid = :peer.call(peer, :os, :getpid, [])

    ExUnit.Callbacks.on_exit(fn ->
      # It has its standard input from us and ends when that does. Should it not, it is ended by its number.
      :peer.stop(peer)
      System.cmd("kill", ["-KILL", to_string(os_pid)], stderr_to_stdout: true)
    end)

    {peer, node}
  end

  defp node_args(cluster) do
    ["-setcookie", cluster.cookie, "-kernel", "inet_dist_use_interface", "{127,0,0,1}"]
  end

  # ERL_LIBS could bring the library in.
  defp env(cluster), do: [{"ERL_EPMD_PORT", "#{cluster.port}"}, {"ERL_EPMD_ADDRESS", "127.0.0.1"}, {"ERL_LIBS", ""}]

  ## epmd

  def start_link(owner), do: GenServer.start_link(__MODULE__, owner)

  @doc "A port that was free when we asked: the kernel gives it again only after all others."
  def free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, number} = :inet.port(socket)
    :gen_tcp.close(socket)
    number
  end

  @impl true
  def init(owner) when is_pid(owner), do: init({owner, free_port()})

  def init({owner, number}) do
    Process.flag(:trap_exit, true)

    # -d twice has it say when it listens, and keeps it in the foreground.
    args = ["-d", "-d", "-address", "127.0.0.1", "-port", Integer.to_string(number)]
    epmd = System.find_executable("epmd") || Path.join([:code.root_dir(), "bin", "epmd"])
    port = Port.open({:spawn_executable, epmd}, [:binary, :stderr_to_stdout, :exit_status, args: args])
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    {:ok, %{port: port, os_pid: os_pid, owner: owner, number: number, said: ""}}
  end

  @impl true
  def handle_info({port, {:data, text}}, %{port: port, owner: owner} = state) do
    said = state.said <> text

    if owner && said =~ "select() loop" do
      send(owner, {self(), :ready, state.number})
      {:noreply, %{state | owner: nil, said: ""}}
    else
      # Only until it is ready.
      {:noreply, if(owner, do: %{state | said: said}, else: state)}
    end
  end

  def handle_info({port, {:exit_status, _status}}, %{port: port} = state), do: {:noreply, %{state | os_pid: nil}}
  def handle_info(_stray, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{os_pid: nil}), do: :ok
  def terminate(_reason, %{os_pid: os_pid}), do: System.cmd("kill", ["-KILL", "#{os_pid}"], stderr_to_stdout: true)
end
