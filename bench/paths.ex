defmodule Bench.Path do
  @moduledoc """
  A way from a caller to the engines.

    * `name`, `label` - how it is called in results, and for people
    * `client` - the program that calls and casts: a `Bench.VM`, or a Rust core
    * `target` - from an engine's name to what the client calls; `nil` for a Rust core
    * `engines` - how many can be reached
    * `behind` - the programs that it takes besides
    * `main` - everything is measured on it, not only the first case of each kind
    * `missing` - why it is not there
  """
  @enforce_keys [:name, :label]
  defstruct [:name, :label, :client, :target, :missing, engines: 100, behind: [], main: false]
end

defmodule Bench.Paths do
  @moduledoc """
  Starts all paths, each once. Two VMs are at the ends of most of them, and two for distribution over TLS:

      client ─── distribution, Legation's instances, sockets ──────────────────── server
      client ─── daemon "near" ─────────────────────────────────────────────────── server (embedded)
      client ─── daemon "near" ───────────────────────────── daemon "far" ──────── server
      client ─── ei node
      core ────────────────────────────────────────────────────────────────────── core
  """

  alias Bench.{Engines, Program, Sockets, VM}

  @engines 100
  @sources 100
  @ready_ms 30_000

  # name: {label, group, whether everything is measured on it}
  @known [
    dist: {"distribution", :dist, true},
    dist_tls: {"distribution over TLS", :dist, true},
    embedded_tls: {"embedded, tcp tls", :embedded, true},
    embedded_delegated: {"embedded, tcp tls, delegated", :embedded, true},
    embedded_checkpoint: {"embedded, tcp tls, checkpoint", :embedded, true},
    embedded_local: {"embedded, unix local", :embedded, false},
    embedded_plain: {"embedded, tcp plain", :embedded, false},
    daemons: {"daemon, daemon", :daemon, true},
    daemon_embedded: {"daemon, embedded", :daemon, false},
    daemon: {"daemon alone", :daemon, false},
    ei: {"ei C-node", :daemon, false},
    core_tls: {"Rust cores, tcp tls", :core, false},
    core_local: {"Rust cores, unix local", :core, false},
    raw: {"gen_tcp, term_to_binary", :sockets, false},
    naive: {"naive Elixir, signed", :sockets, false}
  ]

  @instances [
    embedded_tls: {:tcp, :tls, :engine},
    embedded_local: {:unix, :local, :engine},
    embedded_plain: {:tcp, :plain, :engine},
    embedded_delegated: {:tcp, :tls, :delegated},
    embedded_checkpoint: {:tcp, :tls, :checkpoint}
  ]

  @doc "Names of paths and of groups of them."
  def names, do: Enum.uniq(Keyword.keys(@known) ++ for({_name, {_label, group, _main}} <- @known, do: group))

  @doc "Its place among all."
  def number(name), do: Enum.find_index(@known, &(elem(&1, 0) == name))

  @doc "For people. What is no path is called what it is."
  def label(name), do: @known |> Keyword.get(name, {"#{name}"}) |> elem(0)

  @doc """
  Starts those of these names or groups, in order, with both kinds of distribution, which are the measure.

  `setup`: `dir`, `ei_node`, `daemon`, `core` (programs), and `key`, the public keys by realm.
  """
  def start(setup, only) do
    wanted = for {name, {_label, group, _main}} <- @known, group == :dist or name in only or group in only, do: name
    setup = Map.put(setup, :wanted, wanted)
    # All at once, then one after the other.
    ends = for name <- [:server, :client], into: %{}, do: {name, VM.start("#{name}", setup, node: :plain)}
    tls = for name <- [:tls_server, :tls_client], into: %{}, do: {name, VM.start("#{name}", setup, node: :tls)}
    ends = Map.merge(ends, tls)
    for name <- [:server, :tls_server], do: ends[name] |> VM.await() |> VM.call(Engines, :start_echoes, [@engines])
    for name <- [:client, :tls_client], do: ends[name] |> VM.await() |> VM.call(Engines, :start_sources, [@sources])

    # The daemons' path to an embedded one needs the server's instance.
    started =
      for {group, start} <- [
            dist: fn -> start_distribution(ends) end,
            embedded: fn -> start_embedded(setup, ends) end,
            daemon: fn -> start_daemons(setup, ends) ++ start_ei(setup, ends) end,
            core: fn -> start_cores(setup) end,
            sockets: fn -> start_sockets(setup, ends) end
          ],
          path <- start_group(group, start),
          do: path

    for name <- wanted, path = Enum.find(started, &(&1.name == name)), do: path
  end

  # Without distribution there is no measure, without others there are the rest.
  defp start_group(:dist, start), do: start.()

  defp start_group(group, start) do
    start.()
  rescue
    error ->
      why = error |> Exception.message() |> String.split("\n") |> hd()
      for {name, {_label, ^group, _main}} <- @known, do: path(name, missing: why)
  end

  defp sources, do: for(number <- 1..@sources, do: :"s#{number}")
  defp engines, do: for(number <- 1..@engines, do: :"e#{number}")

  defp path(name, fields) do
    {label, _group, main} = Keyword.fetch!(@known, name)
    struct!(%Bench.Path{name: name, label: label, main: main}, fields)
  end

  ## Distribution

  defp start_distribution(ends) do
    for {name, client, server} <- [{:dist, :client, :server}, {:dist_tls, :tls_client, :tls_server}] do
      node = VM.node_name(server)
      VM.call(ends[client], Engines, :connect, [node])
      path(name, client: ends[client], behind: [ends[server]], target: &{&1, node})
    end
  end

  ## Embedded

  # "client" and "server" have an instance for each, named as the path is.
  defp start_embedded(setup, ends) do
    for {name, {carrier, profile, signing}} <- @instances, name in needed_instances(setup.wanted) do
      case signing(signing) do
        {:ok, mode} ->
          start_pair(setup, ends, name, {carrier, profile}, mode)
          path(name, client: ends.client, behind: [ends.server], target: &{:via, Legation, {name, "#{&1}@server"}})

        :error ->
          path(name, missing: "not built")
      end
    end
  end

  # The daemon's path to an embedded one ends at the server's instance on tls.
  defp needed_instances(wanted), do: if(:daemon_embedded in wanted, do: [:embedded_tls | wanted], else: wanted)

  # A peer's options for a signing mode, if there is such a mode.
  defp signing(:engine), do: {:ok, []}

  defp signing(mode) do
    peer = [signing: mode, accept_signing: [:engine, mode]]
    options = [realm: "client", key: "client.pem", peers: [peer ++ [realm: "server", key: <<0::256>>]]]
    with {:ok, _} <- Legation.Options.validate(options), do: {:ok, peer}, else: ({:error, _text} -> :error)
  end

  defp start_pair(setup, ends, name, {carrier, profile}, mode) do
    {listen, connect} =
      case carrier do
        :tcp -> {[port: 0, ip: {127, 0, 0, 1}], &[host: "127.0.0.1", port: &1[:port]]}
        :unix -> {[path: Path.join(setup.dir, "#{name}.sock")], &[path: &1[:path]]}
      end

    peers = for realm <- ["client", "near"], do: [realm: realm, key: setup.key[realm], export: :all] ++ mode
    options = realm(setup, "server") ++ [peers: peers, listen: [{carrier, listen ++ [profile: profile]}]]
    [address] = VM.call(ends.server, Engines, :start_instance, [name, options])
    VM.call(ends.server, Engines, :publish, [{:instance, name}, engines()])

    connect = [{carrier, connect.(address) ++ [profile: profile]}]
    server = [realm: "server", key: setup.key["server"], export: :all, connect: connect] ++ mode
    VM.call(ends.client, Engines, :start_instance, [name, realm(setup, "client") ++ [peers: [server]]])
    VM.call(ends.client, Engines, :publish, [{:instance, name}, sources()])
    await_all(ends, name)
  end

  defp await_all(ends, name) do
    VM.call(ends.client, Engines, :await_learned, [{:instance, name}, Enum.map(engines(), &"#{&1}@server")])
    # Until the other side knows a source, its messages are the realm's.
    VM.call(ends.server, Engines, :await_learned, [{:instance, name}, Enum.map(sources(), &"#{&1}@client")])
  end

  @doc "The options that a realm has in all its instances."
  def realm(setup, realm),
    do: [realm: realm, key: Path.join(setup.dir, "#{realm}.pem"), limits: [knock_boot_ms: 0]]

  ## Daemons

  @daemons [:daemon, :daemons, :daemon_embedded]

  defp start_daemons(%{wanted: wanted} = setup, ends) do
    if Enum.any?(@daemons, &(&1 in wanted)) do
      port = free_port()
      {far, far_node} = start_daemon(setup, "far", ["127.0.0.1:#{port}"], [{"near", nil}])
      embedded = if :daemon_embedded in wanted, do: [{"server", instance_port(ends)}], else: []
      {near, near_node} = start_daemon(setup, "near", [], [{"far", port} | embedded])
      VM.call(ends.server, Engines, :publish, [{:daemon, far_node}, engines()])
      VM.call(ends.client, Engines, :publish, [{:daemon, near_node}, sources()])

      for {realm, _port} <- [{"far", port} | embedded] do
        VM.call(ends.client, Engines, :await_learned, [{:daemon, near_node}, Enum.map(engines(), &"#{&1}@#{realm}")])
      end

      target = fn realm -> &{:"#{&1}@#{realm}", near_node} end
      echo = fn _engine -> {:legation_echo, near_node} end

      [
        path(:daemons, client: ends.client, behind: [near, far, ends.server], target: target.("far")),
        path(:daemon_embedded, client: ends.client, behind: [near, ends.server], target: target.("server")),
        path(:daemon, client: ends.client, behind: [near], target: echo, engines: 1)
      ]
    else
      []
    end
  end

  defp instance_port(ends) do
    [%{address: address}] = VM.call(ends.server, Legation, :listeners, [:embedded_tls])
    address[:port]
  end

  @doc """
  A daemon that answers by itself, too, as `legation_echo`; with its node's name. `peers`: realms, each with the port that it is
  dialled at, or nil.
  """
  def start_daemon(setup, realm, listen, peers, name \\ nil) do
    name = name || "#{realm}_daemon"
    config = Path.join(setup.dir, "#{name}.toml")

    File.write!(config, """
    realm = "#{realm}"
    key = "#{realm}.pem"
    import = "none"
    [node]
    name = "#{name}@127.0.0.1"
    cookie = "bench"
    global = "off"
    echo = true
    #{for address <- listen, do: ~s([[listen]]\ntcp = "#{address}"\n)}
    #{for {peer, port} <- peers, do: daemon_peer(setup, peer, port)}
    [limits]
    knock_boot_ms = 0
    """)

    File.chmod!(config, 0o600)
    daemon = Program.start(name, setup.daemon, ["run", "--supervised", "--config", config])
    Program.await(daemon, ["legation"], @ready_ms)
    {daemon, VM.node_name(name)}
  end

  defp daemon_peer(setup, peer, port) do
    """
    [[peers]]
    realm = "#{peer}"
    key = "#{setup.key[peer]}"
    export = "all"
    #{if port, do: ~s(connect = ["tcp://127.0.0.1:#{port}"])}
    """
  end

  defp free_port do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :gen_tcp.close(socket)
    port
  end

  ## Others

  defp start_cores(%{wanted: wanted} = setup) do
    for {name, profile, address} <- [
          {:core_tls, "tls", "127.0.0.1:0"},
          {:core_local, "local", Path.join(setup.dir, "core.sock")}
        ],
        name in wanted do
      server = Program.start("core server", setup.core, ["serve", profile, address])
      {"READY", bound} = Program.await(server, ["READY"])
      client = Program.start("core client", setup.core, ["client", profile, bound])
      Program.await(client, ["READY"])
      path(name, client: client, behind: [server])
    end
  end

  defp start_ei(%{wanted: wanted} = setup, ends) do
    if :ei in wanted do
      ei = Program.start("ei", setup.ei_node, ["ei", "bench"])
      Program.await(ei, ["READY"])
      VM.call(ends.client, Engines, :connect, [VM.node_name("ei")])
      [path(:ei, client: ends.client, behind: [ei], target: &{&1, VM.node_name("ei")}, engines: 1)]
    else
      []
    end
  end

  defp start_sockets(%{wanted: wanted}, ends) do
    for name <- [:raw, :naive], name in wanted do
      {client, server} = Sockets.keys(name)
      port = VM.call(ends.server, Sockets, :listen, [server])
      proxies = if name == :naive, do: for(engine <- engines(), do: {:"naive_#{engine}", engine}), else: []
      VM.call(ends.client, Sockets, :connect, [name, port, client, proxies])

      case name do
        :raw -> path(:raw, client: ends.client, behind: [ends.server], target: fn _engine -> :raw end, engines: 1)
        :naive -> path(:naive, client: ends.client, behind: [ends.server], target: &:"naive_#{&1}")
      end
    end
  end
end
