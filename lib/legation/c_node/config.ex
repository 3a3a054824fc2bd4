defmodule Legation.CNode.Config do
  @moduledoc false
  # An instance's options as the daemon wants them: as TOML for its standard input when it starts, and as terms for its
  # control engine while it runs. Functions don't cross: where there is a filter, the daemon asks the Gate.

  alias Legation.Carriers.{Tcp, Unix}
  alias Legation.CNode.Toml
  alias Legation.Options

  # A node that hears nothing for `net_ticktime` takes the other for dead, and asks at each quarter of that.
  @tick_ms_max 5_000

  @doc """
  The configuration. `listeners` are `{id, carrier, options}` with the daemon's ids; `agent` is the socket of the key agent, or nil
  where the key is in a file.
  """
  @spec encode(Options.t(), [Options.Peer.t()], [{binary, module, keyword}], Path.t() | nil) :: binary
  def encode(%Options{} = options, peers, listeners, agent) do
    transport = options.transport

    Toml.encode(
      realm: options.realm,
      key: if(agent == nil, do: Path.expand(options.key)),
      agent: agent,
      network_key: options.network_key && Path.expand(options.network_key),
      state_dir: options.state_dir && Path.expand(options.state_dir),
      control_socket: transport.control_socket,
      threads: transport.threads,
      import: imports(options.import),
      signing: text(options.signing),
      accept_signing: text(options.accept_signing),
      node: node_section(transport),
      listen: some(for {id, carrier, opts} <- listeners, do: [id: id] ++ listen(carrier, opts)),
      peers: some(for peer <- peers, do: peer_section(peer)),
      limits: limits(options.limits) ++ transport.limits
    )
  end

  defp some([]), do: nil
  defp some(list), do: list

  # Names in :global are the business of this VM (Legation.GlobalNames).
  defp node_section(transport) do
    [
      name: Atom.to_string(transport.node),
      cookie: to_string(transport.cookie.()),
      listen: ip_and_port(transport.ip, transport.port),
      epmd: transport.epmd != false,
      epmd_port: epmd_port(transport.epmd),
      connect: [own_node() | Enum.map(transport.connect, &beam_node/1)],
      global: "off",
      tick_ms: tick_ms()
    ]
  end

  # The daemon dials us: that way it needs no EPMD, and comes back by itself.
  defp own_node do
    case listening_port() do
      nil -> Atom.to_string(node())
      port -> beam_node({Atom.to_string(node()), port})
    end
  end

  # Where this VM has its own, which need not be in the environment.
  defp epmd_port(true) do
    case :init.get_argument(:epmd_port) do
      {:ok, [[port | _rest] | _more]} -> List.to_integer(port)
      :error -> nil
    end
  end

  defp epmd_port(false), do: nil
  defp epmd_port(port), do: port

  defp beam_node({node, port}), do: [node: node, port: port]
  defp beam_node(node), do: node

  # Nobody but EPMD is told on which port this VM listens for other nodes, and there may be none; net_kernel has it in its
  # state, in the `#net_address{}` of each of its listeners.
  defp listening_port do
    :net_kernel |> :sys.get_state() |> Tuple.to_list() |> Enum.find_value(&listener_port/1)
  catch
    _kind, _reason -> nil
  end

  defp listener_port([_ | _] = listeners) do
    Enum.find_value(listeners, fn
      listener when is_tuple(listener) and elem(listener, 0) == :listen ->
        Enum.find_value(Tuple.to_list(listener), fn
          {:net_address, {_ip, port}, _host, _protocol, _family} when is_integer(port) -> port
          _other -> nil
        end)

      _other ->
        nil
    end)
  end

  defp listener_port(_other), do: nil

  defp tick_ms do
    case :net_kernel.get_net_ticktime() do
      seconds when is_integer(seconds) -> seconds |> Kernel.*(1_000) |> div(5) |> min(@tick_ms_max) |> max(1)
      _ignored_or_changing -> nil
    end
  end

  defp imports(names) when is_atom(names), do: Atom.to_string(names)

  defp imports(names) do
    for name <- names do
      case name do
        {name, [as: atom]} -> [name: name, as: Atom.to_string(atom)]
        name -> name
      end
    end
  end

  defp limits(limits) do
    for {key, value} <- Enum.sort(limits), value != :infinity do
      {key, text(value)}
    end
  end

  defp listen(Tcp, opts),
    do: [tcp: ip_and_port(opts[:ip] || {0, 0, 0, 0}, opts[:port])] ++ carrier(opts)

  defp listen(Unix, opts), do: [unix: opts[:path]] ++ carrier(opts)

  defp connect(Tcp, opts), do: [tcp: host_and_port(opts[:host], opts[:port])] ++ carrier(opts)
  defp connect(Unix, opts), do: [unix: opts[:path]] ++ carrier(opts)

  defp carrier(opts) do
    for {key, value} <- carrier_term(opts), do: {key, text(value)}
  end

  defp ip_and_port(ip, port), do: host_and_port(ip, port)

  defp host_and_port(ip, port) when tuple_size(ip) == 8, do: "[#{:inet.ntoa(ip)}]:#{port}"
  defp host_and_port(ip, port) when is_tuple(ip), do: "#{:inet.ntoa(ip)}:#{port}"
  defp host_and_port(name, port), do: "#{name}:#{port}"

  defp peer_section(%Options.Peer{} = peer) do
    [
      realm: peer.realm,
      key: Options.format_key(peer.key),
      connect: for({carrier, opts} <- peer.connect, do: connect(carrier, opts)),
      export: if(peer.export == :all, do: "all", else: Enum.map(peer.export, &exported_text/1)),
      allow: text(peer.allow),
      filter: peer.filter != nil,
      reasons: text(peer.reasons),
      links: peer.links,
      limits: some(for {key, value} <- Enum.sort(peer.limits), do: {key, text(value)})
    ] ++ for {key, value} <- own(peer), do: {key, text(value)}
  end

  # What is the default is left out.
  defp own(%Options.Peer{} = peer),
    do: peer |> Map.take([:signing, :accept_signing]) |> Enum.reject(&match?({_key, nil}, &1))

  defp exported_text({name, opts}) do
    case exported(opts) do
      [] -> name
      opts -> [name: name] ++ for {key, value} <- opts, do: {key, text(value)}
    end
  end

  # What is the default is left out.
  defp exported(opts) do
    Enum.reject([allow: opts[:allow], filter: opts[:filter] != nil], fn {_key, value} -> value in [nil, false] end)
  end

  # Atoms have no word of their own in TOML.
  defp text(boolean) when is_boolean(boolean), do: boolean
  defp text(atom) when is_atom(atom), do: Atom.to_string(atom)
  defp text(list) when is_list(list), do: Enum.map(list, &text/1)
  defp text(value), do: value

  ## Terms

  @doc "A peer, for the request `{:connect, peer}`."
  def peer_term(%Options.Peer{} = peer) do
    [
      realm: peer.realm,
      key: peer.key,
      connect: for({carrier, opts} <- peer.connect, do: connect_term(carrier, opts)),
      export: exports_term(peer.export),
      allow: peer.allow,
      filter: peer.filter != nil,
      reasons: peer.reasons,
      links: peer.links,
      limits: Enum.sort(peer.limits)
    ] ++ own(peer)
  end

  defp exports_term(:all), do: :all

  defp exports_term(engines) do
    for {name, opts} <- engines do
      case exported(opts) do
        [] -> name
        opts -> {name, opts}
      end
    end
  end

  defp connect_term(Tcp, opts), do: {:tcp, [host: host_text(opts[:host]), port: opts[:port]] ++ carrier_term(opts)}
  defp connect_term(Unix, opts), do: {:unix, [path: opts[:path]] ++ carrier_term(opts)}

  @doc "An address, for the request `{:add_listener, address}`."
  def listener_term(id, Tcp, opts) do
    ip = host_text(opts[:ip] || {0, 0, 0, 0})
    {:tcp, [id: id, ip: ip, port: opts[:port]] ++ carrier_term(opts)}
  end

  def listener_term(id, Unix, opts), do: {:unix, [id: id, path: opts[:path]] ++ carrier_term(opts)}

  defp carrier_term(opts), do: Keyword.take(opts, [:profile, :uids, :send_timeout_ms])

  defp host_text(ip) when is_tuple(ip), do: ip |> :inet.ntoa() |> to_string()
  defp host_text(name), do: name
end
