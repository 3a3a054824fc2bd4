defmodule Legation.Options.CNode do
  @moduledoc """
  The options of the daemon: what stands in `transport: {:c_node, options}`.

      {Legation,
       realm: "alice", key: "alice.pem",
       transport: {:c_node, port: 9100},
       listen: [tcp: [port: 4040]],
       peers: [[realm: "bob", key: "ed25519:…", export: ["ping"]]]}

  Then the realm's key, sockets and signatures are in a program of their own, `legation`, a hidden node beside this one, on which each
  foreign engine is a process. All else is as with the embedded transport: the same options, functions, names and
  errors. What differs:

    * this node must have a name (`--name` or `--sname`): the daemon talks to it by Erlang distribution
    * carriers are `:tcp` and `:unix`; those of the user's own, and `:memory`, need the embedded transport
    * the pids of foreign engines are of the daemon's node, so `Process.alive?/1` and `Process.info/1` raise for them, and a call that
      loses its session exits with `{:nodedown, node}` of the daemon

  The daemon ends when this VM does, even by `kill -9`. When it ends by itself it is started again, and told what was
  published, connected and listened on since.

    * `:node` - the name of the daemon's node (default `legation_<realm>@<host of node()>`, where what isn't a letter, digit, `-` or `_`
      becomes `_`)
    * `:binary` - the path of the program (default: the environment's `LEGATION_NODE_PATH`, or the one that was built with this library, see below)
    * `:cookie` - of the cluster (default `Node.get_cookie/0`)
    * `:ip` - the address on which other nodes of the cluster reach the daemon (default: the one of the host in the daemon's name, which is loopback
      for `legation@127.0.0.1`). The cookie is all that protects it, as it is for this VM
    * `:port` - and the port (default 0: any)
    * `:epmd` - `true` (default): the daemon is registered in EPMD, where the other nodes of the cluster find it; a number: in the EPMD on that port;
      `false`: in none. This node and those in `:connect` are dialled by the daemon in any case
    * `:connect` - more nodes that the daemon dials: names, or `{name, port}` where no EPMD is to be asked. Default `[]`
    * `:control_socket` - a path for the command line: `legation status --socket …`. Default: none
    * `:threads` - of the daemon (default 1)
    * `:start_ms` - how long it may take to be ready (default 10,000)
    * `:limits` - bounds that only the daemon has, see below

  ## The program

  It is built from this library's sources by `mix compile`, in release mode, and stands in `priv/native/legation`, if

    * the configuration says `config :legation, c_node: true` (in `config/config.exs`, as it is needed at compile time), or
    * the environment says `LEGATION_C_NODE=1`, or
    * `LEGATION_NODE_PATH` has the path of one that was built elsewhere: that is copied, and nothing is built.

  By default it isn't: it takes minutes, and those who use the embedded transport have no need of it.

  ## Limits of the daemon

  All have defaults, which `docs/c-node.md` tells. What the daemon logs comes to Logger; the variable `LEGATION_LOG` of the
  environment says how much (`info`).

  | limit | |
  |---|---|
  | `beam_queue_bytes_max` | bytes that may wait for one BEAM node |
  | `beam_nodes_max`, `beam_handshakes_max` | BEAM nodes connected at once, and of those in their handshake |
  | `beam_fragmented_max`, `beam_fragmented_bytes_max` | large messages of one node that are being put together, and their bytes |
  | `beam_monitors_max` | monitors and links of one node |
  | `known_atoms_max` | atoms of one node that are remembered as known there |
  | `held_messages_max`, `held_bytes_max` | messages of one peer that wait until a node has said whether it knows their atoms |
  | `control_connections_max` | connections to the control socket |
  """

  import Legation.Options.Check

  # Reports of supervisors print options, and no environment of a fun: that is where the cookie is.
  @derive {Inspect, except: [:cookie]}
  defstruct [
    :node,
    :binary,
    :cookie,
    :control_socket,
    :ip,
    port: 0,
    epmd: true,
    connect: [],
    threads: 1,
    start_ms: 10_000,
    limits: []
  ]

  @typedoc "Valid options of the daemon."
  @type t :: %__MODULE__{}

  @keys [:node, :binary, :cookie, :ip, :port, :epmd, :connect, :control_socket, :threads, :start_ms, :limits]
  @limits [
    :beam_queue_bytes_max,
    :beam_nodes_max,
    :beam_handshakes_max,
    :beam_fragmented_max,
    :beam_fragmented_bytes_max,
    :beam_monitors_max,
    :known_atoms_max,
    :held_messages_max,
    :held_bytes_max,
    :control_connections_max
  ]
  @place " in transport"

  @doc false
  # Throws for what can't be meant, as all of Legation.Options does.
  def build(opts) do
    keys!(opts, @keys, @place)

    %__MODULE__{
      node:
        opts |> get!(:node, nil, &(&1 == nil or node?(&1)), "a node's name like \"legation@host\"", @place) |> name(),
      binary: path(opts, :binary, &path?/1, "a path"),
      cookie: cookie(opts),
      ip: if(opts[:ip], do: opts[:ip] |> ip!(@place) |> ip()),
      port: get!(opts, :port, 0, &limit?({0, 65_535}, &1), limit_words({0, 65_535}), @place),
      epmd: get!(opts, :epmd, true, &epmd?/1, "true, false or a port", @place),
      connect: connect(opts),
      control_socket: path(opts, :control_socket, &socket_path?/1, "a path of at most 107 bytes"),
      threads: get!(opts, :threads, 1, &limit?({1, 1_024}, &1), limit_words({1, 1_024}), @place),
      start_ms: get!(opts, :start_ms, 10_000, &limit?({1, ms_max()}, &1), limit_words({1, ms_max()}), @place),
      limits: limits(Keyword.get(opts, :limits, []))
    }
  end

  defp cookie(opts) do
    case Keyword.get(opts, :cookie) do
      nil -> nil
      cookie when is_atom(cookie) -> fn -> cookie end
      cookie when is_binary(cookie) and cookie != "" -> fn -> cookie end
      _other -> secret!(:cookie, "an atom or text", @place)
    end
  end

  defp path(opts, key, valid?, words) do
    path = get!(opts, key, nil, &(&1 == nil or valid?.(&1)), words, @place)
    path && Path.expand(path)
  end

  # Text of an address, or the address.
  defp ip(ip) when is_tuple(ip), do: ip

  defp ip(text) do
    {:ok, ip} = ip?(text)
    ip
  end

  defp epmd?(epmd), do: is_boolean(epmd) or limit?({1, 65_535}, epmd)

  defp connect(opts) do
    connect = Keyword.get(opts, :connect, [])
    words = "a list of nodes: names, or {name, port}"
    if not is_list(connect), do: expected!(:connect, words, connect, @place)

    for address <- connect do
      case address do
        {node, port} -> if node?(node) and limit?({1, 65_535}, port), do: {name(node), port}
        node -> if node?(node), do: name(node)
      end || expected!(:connect, words, address, @place)
    end
  end

  defp limits(given) do
    keys!(given, @limits, @place <> ": limits")

    for {key, value} <- given,
        not limit?(:positive, value),
        do: expected!(key, limit_words(:positive), value, @place <> ": limits")

    given
  end

  defp node?(node) when is_atom(node) and node not in [nil, true, false], do: node?(Atom.to_string(node))

  defp node?(node) do
    is_binary(node) and byte_size(node) <= 255 and String.valid?(node) and not (node =~ ~r/[\p{Cc}\p{Z}]/u) and
      match?([<<_, _::binary>>, <<_, _::binary>>], String.split(node, "@"))
  end

  defp name(nil), do: nil
  defp name(node), do: to_string(node)
end
