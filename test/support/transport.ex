defmodule Legation.TestTransport do
  @moduledoc """
  Over which transport the realms of a test run: one suite, several deployments.

      mix test                                             all realms embedded
      LEGATION_TRANSPORT=c_node mix test                   all behind daemons
      LEGATION_TRANSPORT=embedded+c_node mix test          a test's first realm embedded, its second behind a daemon, and so on
      LEGATION_TRANSPORT=c_node+embedded mix test          the other way round

  Tests that look into the processes of the embedded transport are tagged `:embedded`, those about the daemon `:c_node`, those that
  need a VM without a name `:not_distributed`; `configure!/0`, called by `test_helper.exs`, leaves out what makes no sense.

  Where there is a daemon, this VM is a node, with a cookie of its own, and so is each `Legation.TestVM`. They need an EPMD: the
  one of this machine, or for the time of the tests one of ours in its place (`ERL_EPMD_PORT` says on which port).
  """

  alias Legation.TestCluster

  @variable "LEGATION_TRANSPORT"

  @doc "The transports of a test's realms, in turn."
  def modes do
    case System.get_env(@variable, "") do
      "" -> [:embedded]
      text -> text |> String.split("+") |> Enum.map(&mode/1)
    end
  end

  defp mode("embedded"), do: :embedded
  defp mode("c_node"), do: :c_node
  defp mode(other), do: raise("#{@variable} is made of `embedded` and `c_node`, with a `+` between them; got: #{other}")

  @doc "Whether there are daemons."
  def daemons?, do: :c_node in modes()

  @doc "What `ExUnit.start/1` is given."
  def configure! do
    if daemons?(), do: distribute!()

    case modes() do
      [:embedded] -> [exclude: [:c_node]]
      [:c_node] -> [exclude: [:embedded, :not_distributed]]
      _pairs -> [exclude: [:embedded, :c_node, :not_distributed]]
    end
  end

  defp distribute! do
    TestCluster.ensure_epmd!()
    Application.put_env(:kernel, :inet_dist_use_interface, {127, 0, 0, 1})
    {:ok, _pid} = :net_kernel.start([:"legation_test_#{System.pid()}@127.0.0.1", :longnames])
    Node.set_cookie(String.to_atom(cookie()))
  end

  defp cookie, do: Base.encode16(:crypto.strong_rand_bytes(10))

  @doc "The option `:transport` for a test's realm: the same for the same name, so that it comes back as what it was."
  def option(realm) do
    realms = Process.get(__MODULE__, %{})
    modes = modes()

    case realms do
      %{^realm => mode} ->
        option_of(mode, realm)

      _new ->
        mode = Enum.at(modes, rem(map_size(realms), length(modes)))
        Process.put(__MODULE__, Map.put(realms, realm, mode))
        option_of(mode, realm)
    end
  end

  # No two daemons of this machine have one name, whatever tests run at the same time.
  @doc "The option for one transport."
  def option_of(:embedded, _realm), do: :embedded

  def option_of(:c_node, realm) do
    number = "#{System.pid()}_#{System.unique_integer([:positive])}"
    {:c_node, node: "legation_#{String.replace(realm, ~r/\W/, "_")}_#{number}@127.0.0.1"}
  end

  @doc "Arguments for a VM whose realms may be behind a daemon: a node, which nobody else's cookie fits."
  def vm_args do
    if daemons?(), do: node_args("legation_vm_#{System.pid()}_#{System.unique_integer([:positive])}"), else: []
  end

  @doc "Arguments for a node of this name."
  def node_args(name),
    do: ["-name", name <> "@127.0.0.1", "-setcookie", cookie(), "-kernel", "inet_dist_use_interface", "{127,0,0,1}"]
end
