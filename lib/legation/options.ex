defmodule Legation.Options do
  @moduledoc """
  The options of an instance: what stands after `Legation` in a supervisor.

  Unknown keys and values that can't be meant raise `ArgumentError` before anything starts; `validate/1` only says so.

    * `:name` - the instance (default `Legation`). Several can run in one VM
    * `:realm` - required. What this realm calls itself: `"alice"`. Never sent; peers have a name of their own for us. Not empty, no `@`,
      no control characters, at most 255 bytes
    * `:key` - required. The path of the realm's private key (`mix legation.key`), or `{:keyholder, module, args}`, see `Legation.Keyholder`
    * `:network_key` - the path of the network's key, or `nil` (default): none, and then whoever knows our public key gets an answer, if no more.
      The same at all realms of a network
    * `:state_dir` - a directory for what is to be known after a restart: which keys of peers have been replaced or revoked
      (`docs/protocol.md` 2.8). Default `nil`: it is forgotten, and a key that was stolen and replaced gets in again, until its owner comes first
    * `:listen` - addresses to listen on, see below. Default `[]`: we only dial
    * `:peers` - the realms that we talk to, see below. Nobody else gets in
    * `:import` - which engines of others get a global name:
        * `:default` - the first 1,000 that are learned
        * a list of `"ping@bob"` and `{"ping@bob", as: :ping_bob}`; the latter registers the local name, too
        * `:all` or `:none`
    * `:global` - `true` (default); `:off`: nothing is registered in `:global`; `{:suffix, "@here"}`: names there end so, where several
      instances of one cluster would want the same ones
    * `:atoms` - modules that are loaded when the instance starts. Messages are decoded without making an atom: those that a
      module brings are unknown until it is loaded, which outside of a release is when it is first called
    * `:signing` - how what we send is signed, where a peer does not say otherwise, see below. Default `:engine`
    * `:accept_signing` - and what we take from peers. Default `[:engine, :delegated]`
    * `:limits` - see below
    * `:transport` - who does the work: `:embedded` (default), this VM with the native library; or `{:c_node, options}`, a daemon beside it, see
      `Legation.Options.CNode`

  ## Addresses

  `listen:` and a peer's `connect:` are lists of `{carrier, options}`. All take `:profile`, what protects the bytes
  (`docs/protocol.md` 5), and `:send_timeout_ms`; in `listen:` all take `:id`, by which `Legation.remove_listener/2` knows it.

    * `tcp: [port: 4040]` - profile `:tls` (default) or `:plain`. To listen: `:port` (0, the default: any), `:ip` (a tuple or text; default: all of this machine's
      IPv4). To connect: `:host` (a name, an address or a tuple), `:port`
    * `unix: [path: "/run/alice.sock"]` - profile `:local` (default), `:tls` or `:plain`. `:uids`: which users may be at the
      other end, a list of numbers or `:any`; default: the one that we run as
    * `memory: [name: :test]` - within this VM, for tests: `Legation.Carriers.Memory`
    * `{MyCarrier, options}` - a `Legation.Carrier`

  The last two need the embedded transport.

  ## Peers

  Each is a keyword list:

    * `:realm` - required. What we call this peer; its engines are `"ping@" <> realm` here. Rules as for our own
    * `:key` - required. Its public key: `"ed25519:…"` or 32 bytes
    * `:connect` - addresses to dial, tried in turn. Default `[]`: it dials us
    * `:links` - to how many of these addresses links are kept at once, 1 (default) to 4. What we send goes over the one whose address stands
      first; the others stand by, and take over without a message lost. One that has gone is dialled again
    * `:limits` - of the limits below, for this peer alone: `grace_ms`, `resume_bytes_max`, `queue_bytes_max`, `engine_queue_bytes_max`, `overflow`,
      `message_ttl_ms`
    * `:export` - which of our published engines it may know of and reach: `:all`, or a list of names and
      `{name, allow: [...], filter: filter}`. Default `[]`
    * `:allow` - what it may do with them: of `:call`, `:cast`, `:send`; `:monitor`: hear how they end (otherwise only that they are gone);
      `:link`: have them hear of the ends of its linked processes; `:exit`: `Process.exit/2`, though never `:kill`; `:sys` (`:sys.get_state/1`,
      `GenServer.stop/1`, …) and `:event` (`:gen_event`). Default `[:call, :cast, :send, :monitor]`. An engine's own `allow:` replaces it. What
      stands for the peer holds for processes, too, whose pids were sent to it
    * `:filter` - asked about each message that is allowed so far: a function of one argument, or `{module, function}`. It gets
      `%{realm:, engine:, source:, op:, message:}`; what is not answered with `true` is refused. An engine's own filter is asked after this one
    * `:reasons` - `:class` (default): of why a process ended, the peer is told only the class (`:normal`, `:shutdown`, `:killed`, `:noproc`,
      `:noconnection`, `:timeout`, or `{:remote_exit, :crashed}`); `:full`: the reason itself
    * `:signing`, `:accept_signing` - of this peer alone; default: those of the instance

  ## Signing

  `:signing` is how we sign what we send. The modes differ in speed, and the last one in when something is proven:

    * `:engine` - each engine's messages by its own key, in batches of their own
    * `:delegated` - messages of all engines together, by the key with which the realm signs for itself: one signature for as many engines as
      have something to say at the same time. Only for engines that were published with `delegate: true` (the default); others sign for themselves
    * `:checkpoint` - as `:delegated`, but messages are delivered before they are signed for: one signature for all of them follows within `checkpoint_ms`, so that a lone
      call waits for none. Until then what was sent is ours by the word of the channel alone. Over TLS and Unix sockets; over `:plain`, and for
      messages that ask for a receipt, it is `:engine`

  `:accept_signing` is a list of those that we take from a peer. `:engine` is always in it. A peer is told of it, and signs by `:engine` where
  we don't take anything else; what comes all the same is dropped, counted (`mode_refused`), and ends the link when it goes on.

  With `:checkpoint` in it a peer is trusted for `checkpoint_patience_ms`, and for no more than `unproven_messages_max` and `unproven_bytes_max`. Who
  doesn't sign in that time, or for something else than it sent, is left: the session ends (`unproven`), and `Legation.monitor_peers/1` tells
  `{:unproven, realm, first, last}` before `:peer_down`. The messages of these numbers *were* delivered, and nobody can prove who sent them.

  ## Limits

  Bytes, milliseconds or numbers. Those *per peer* hold for each session.

  A session outlives its links: as long as it is `lost`, for `grace_ms` at most, nobody is told anything, calls wait, and what is sent is
  queued. When a link is up again it goes on where it was.

  | limit | default | |
  |---|---|---|
  | `message_bytes_max` | 8 MiB | the largest message that we accept |
  | `depth_max` | 256 | how deep a message's terms may be nested, at most 256 |
  | `engines_max` | 65,536 | engines learned, per peer |
  | `queue_bytes_max` | 16 MiB | waiting to be sent, per peer. Beyond it calls are refused `:overload`, casts and sends dropped |
  | `engine_queue_bytes_max` | 8 MiB | of that, for one engine of the peer, so that a flooded one leaves room for others. A larger message goes if nothing else waits for its engine |
  | `overflow` | `:newest` | which of these are dropped: `:newest`, or `:oldest` of those that have not begun to go out; or none, and the peer that takes so little is left (`:disconnect`): its session ends |
  | `message_ttl_ms` | `:infinity` | how long a message may wait to be sent, to about a tenth. Then casts and sends are dropped, calls refused `:expired` |
  | `credit_bytes` | 1 MiB | how much a peer may have sent to one engine of ours that is not worked off there, by the length of its mailbox. What is more waits at the peer. 0: no bound |
  | `fragment_bytes` | 128 KiB | larger messages are sent in pieces, between which others go |
  | `room_waiters_max` | 16,384 | callers of `Legation.call/4` and `Legation.cast/3` that wait for room (`block:`), per peer |
  | `checkpoint_ms` | 5 | how long what we send in mode `:checkpoint` may wait for our signature |
  | `checkpoint_patience_ms` | 1,000 | how long what a peer sends in it may wait for the peer's. Then the session ends. Carriers of less than about 2 Mbit/s need more |
  | `unproven_messages_max`, `unproven_bytes_max` | 65,536, 16 MiB | of that, how much may wait, per peer; one message alone may be larger. Beyond it the session ends |
  | `grace_ms` | 60,000 | how long a session without a link waits for another. Then, or if it is 0 at once, it has ended: calls exit, monitors fire |
  | `resume_bytes_max` | 16 MiB | sent and kept until the peer has acknowledged it, per peer. At it nothing more is sent until then; the last half megabyte may go past it. 0: nothing is kept, and the session ends with its link |
  | `ack_ms` | 50 | how long an acknowledgement waits for something to go with |
  | `calls_max` | 65,536 | calls in flight, per peer |
  | `callers_max` | 65,536 | processes of the peer that call us, per peer |
  | `handles_max` | 65,536 | pids that were given to the peer, and as many that it gave to us. Past it the one of the peer's goes that was not used for longest; if all are in use, messages with more are refused `:overload` |
  | `references_max` | 65,536 | the same of references. Past it the oldest goes, and one that comes home is another then |
  | `handle_idle_ms` | 600,000 | after this a pid of the peer's is forgotten that nobody here has used, monitored or linked |
  | `engine_queue_max` | `:infinity` | messages in an engine's mailbox above which it gets no more from peers |
  | `call_age_ms` | 30,000 | after this we look whether the caller still waits |
  | `handshake_ms` | 5,000 | from the connection to the session |
  | `connect_ms` | 5,000 | for a connection, before that: then the next address is dialled, or the same again. A host that nothing reaches, not even a refusal, costs so long; the system asks again after 1, 3, 7 s |
  | `handshake_reads` | 16 | pieces in which a handshake may come; after them one is read every 250 ms. It comes in three or four, unless somebody says a byte at a time to keep us busy |
  | `ping_ms` | 15,000 | silence after which the peer is asked, and again until it is given up |
  | `failures_max`, `failures_window_ms` | 10, 60,000 | bad batches within so long that close a link |
  | `pending_connections_max` | 1,024 | connections before their knock, per listener |
  | `handshakes_max` | 100 | connections after it and before their session, per listener |
  | `failed_handshakes_per_s` | 20 | per address |
  | `knock_window_ms` | 30,000 | how far a knock's time may be from our clock |
  | `knock_boot_ms` | 1,000 | knocks from before our start and this long after it are refused, as replays from before a restart |
  | `knock_entries_max` | 65,536 | knocks remembered |
  | `send_timeout_ms` | 15,000 | how long a peer may not take our bytes |
  | `goodbye_ms` | 5,000 | for what waits for a peer that is left (`disconnect`, `drain`), and the goodbye behind it; a second at most where the peer is to blame for that, or is on another link. Half of that is for what waits until the peer works off what it has. As long again the peer has to take it and close. What is not done by then may be lost, and is counted (`goodbyes_cut`). 0: nobody is waited for |
  | `shutdown_ms` | 5,000 | for goodbyes when the instance stops |
  | `reconnect_min_ms`, `reconnect_max_ms` | 50, 30,000 | between dials; at most a second while a session is lost |
  """

  defmodule Peer do
    @moduledoc false
    # key: 32 bytes. realm_id: filled in by the Peer process, which may call the native library. limits: only those that differ
    # from the instance's.
    # connect: [{carrier module, opts}]. export: :all | [{engine name, allow: ops | nil, filter: filter | nil}].
    @enforce_keys [:realm, :key]
    defstruct [
      :realm,
      :key,
      :realm_id,
      :filter,
      connect: [],
      links: 1,
      limits: %{},
      export: [],
      allow: [:call, :cast, :send, :monitor],
      reasons: :class,
      # nil: as for all peers.
      signing: nil,
      accept_signing: nil
    ]

    @type t :: %__MODULE__{}
  end

  import Legation.Options.Check

  alias Legation.Options.{Check, CNode}

  @carriers %{tcp: Legation.Carriers.Tcp, unix: Legation.Carriers.Unix, memory: Legation.Carriers.Memory}

  # As Legation.Policy has them.
  @ops [:call, :cast, :send, :monitor, :link, :exit, :sys, :event]

  @signing [:engine, :delegated, :checkpoint]

  @ms_max Check.ms_max()
  @mib 1_048_576
  # A frame's length and its overhead are a u32 (protocol.md 6.1, 6.2); a gibibyte in one piece is beyond what anybody wants.
  @message_bytes_max 1_024 * @mib
  # More than a machine has, as `:positive` has it.
  @bytes_max 0xFFFFFFFFFFFF

  # name: {default, what it must be}
  @limits [
    message_bytes_max: {8 * @mib, {1, @message_bytes_max}},
    depth_max: {256, {1, 256}},
    engines_max: {65_536, {1, 4_294_967_295}},
    queue_bytes_max: {16 * @mib, :positive},
    engine_queue_bytes_max: {8 * @mib, :positive_or_infinity},
    grace_ms: {60_000, {0, @ms_max}},
    resume_bytes_max: {16 * @mib, {0, @bytes_max}},
    ack_ms: {50, {1, @ms_max}},
    calls_max: {65_536, :positive},
    callers_max: {65_536, :positive},
    handles_max: {65_536, :positive},
    references_max: {65_536, :positive},
    handle_idle_ms: {600_000, {1, @ms_max}},
    handshake_ms: {5_000, {1, @ms_max}},
    connect_ms: {5_000, {1, @ms_max}},
    handshake_reads: {16, {1, 10_000}},
    ping_ms: {15_000, {1, @ms_max}},
    failures_max: {10, {1, 4_294_967_295}},
    failures_window_ms: {60_000, {1, @ms_max}},
    overflow: {:newest, [:newest, :oldest, :disconnect]},
    message_ttl_ms: {:infinity, :positive_or_infinity},
    credit_bytes: {1 * @mib, {0, @ms_max}},
    fragment_bytes: {128 * 1_024, {1, @bytes_max}},
    room_waiters_max: {16_384, :positive},
    checkpoint_ms: {5, {1, @ms_max}},
    checkpoint_patience_ms: {1_000, {1, @ms_max}},
    unproven_messages_max: {65_536, :positive},
    unproven_bytes_max: {16 * @mib, :positive},
    pending_connections_max: {1_024, :positive},
    handshakes_max: {100, :positive},
    failed_handshakes_per_s: {20, :positive},
    knock_window_ms: {30_000, {1, @ms_max}},
    knock_boot_ms: {1_000, {0, @ms_max}},
    knock_entries_max: {65_536, :positive},
    send_timeout_ms: {15_000, {1, @ms_max}},
    goodbye_ms: {5_000, {0, @ms_max}},
    shutdown_ms: {5_000, {0, @ms_max}},
    reconnect_min_ms: {50, {1, @ms_max}},
    reconnect_max_ms: {30_000, {1, @ms_max}},
    call_age_ms: {30_000, {1, @ms_max}},
    engine_queue_max: {:infinity, :positive_or_infinity}
  ]

  # Those that a peer may have of its own.
  @peer_limits [
    :grace_ms,
    :resume_bytes_max,
    :queue_bytes_max,
    :engine_queue_bytes_max,
    :overflow,
    :message_ttl_ms
  ]

  # A keyholder's args may be a secret, and which file has the key is nobody's business in a log either.
  @derive {Inspect, except: [:key]}
  @enforce_keys [:realm, :key]
  defstruct [
    :realm,
    :key,
    :network_key,
    :state_dir,
    name: Legation,
    listen: [],
    peers: [],
    import: :default,
    global: true,
    atoms: [],
    signing: :engine,
    accept_signing: [:engine, :delegated],
    transport: :embedded,
    limits: Map.new(@limits, fn {name, {default, _expected}} -> {name, default} end)
  ]

  @typedoc "Valid options. `limits` is a map of all of them, `listen` and a peer's `connect` are lists of `{module, options}`."
  @type t :: %__MODULE__{}

  @doc "The options as a struct with all defaults. Raises `ArgumentError`."
  @spec new!(keyword | t) :: t
  def new!(%__MODULE__{} = options), do: options

  def new!(opts) do
    case validate(opts) do
      {:ok, options} -> options
      {:error, message} -> raise ArgumentError, message
    end
  end

  @doc "The same without raising. `{:error, text}` says what is wrong."
  @spec validate(keyword) :: {:ok, t} | {:error, binary}
  def validate(opts) do
    {:ok, build(opts)}
  catch
    {:invalid_option, text} -> {:error, text}
  end

  @doc """
  The 32 bytes of a public key in text form. Raises `ArgumentError`.

  Whether they are a good key is for the native library to say.
  """
  @spec parse_key!(binary) :: <<_::256>>
  def parse_key!(text) do
    case parse_key(text) do
      {:ok, key} ->
        key

      :error ->
        raise ArgumentError, "expected a key like \"ed25519:\" and 43 characters of base64, got: #{inspect(text)}"
    end
  end

  @doc "A public key as text: `\"ed25519:\"` and 43 characters (`docs/protocol.md` 2.2)."
  @spec format_key(<<_::256>>) :: binary
  def format_key(<<key::binary-size(32)>>), do: "ed25519:" <> Base.url_encode64(key, padding: false)

  # One key has one text: the two bits left over in the last character are zero.
  defp parse_key("ed25519:" <> digits) do
    with {:ok, <<key::binary-size(32)>>} <- Base.url_decode64(digits, padding: false),
         true <- Base.url_encode64(key, padding: false) == digits do
      {:ok, key}
    else
      _malformed -> :error
    end
  end

  defp parse_key(_text), do: :error

  @doc false
  # The limits of a peer's sessions, and how they are signed: its own, where it has any.
  def of_session(%__MODULE__{} = options, %Peer{} = peer) do
    options.limits
    |> Map.merge(peer.limits)
    |> Map.merge(%{
      signing: peer.signing || options.signing,
      accept_signing: peer.accept_signing || options.accept_signing
    })
  end

  @doc false
  # Of one whose peer is not known yet.
  def of_session(%__MODULE__{} = options),
    do: Map.merge(options.limits, Map.take(options, [:signing, :accept_signing]))

  ## The instance

  defp build(opts) do
    keys!(
      opts,
      ~w(name realm key network_key state_dir listen peers import global atoms signing accept_signing limits transport)a,
      ""
    )

    limits = limits(Keyword.get(opts, :limits, []))
    realm = required!(opts, :realm, &name?/1, realm_words(), "")

    options = %__MODULE__{
      name: get!(opts, :name, Legation, &(is_atom(&1) and &1 not in [nil, true, false]), "an atom", ""),
      realm: realm,
      key: key(opts),
      network_key: network_key(opts),
      state_dir: get!(opts, :state_dir, nil, &(&1 == nil or path?(&1)), "a path or nil", ""),
      listen: listen(Keyword.get(opts, :listen, []), limits),
      peers: peers(Keyword.get(opts, :peers, []), realm, limits),
      import: imports(Keyword.get(opts, :import, :default)),
      global: get!(opts, :global, true, &global?/1, "true, :off or {:suffix, text}", ""),
      atoms: get!(opts, :atoms, [], &modules?/1, "a list of modules", ""),
      signing: signing(opts, :engine, ""),
      accept_signing: accept_signing(opts, [:engine, :delegated], ""),
      limits: limits,
      transport: transport(Keyword.get(opts, :transport, :embedded))
    }

    carried!(options)
    options
  end

  defp transport(:embedded), do: :embedded
  defp transport(%CNode{} = transport), do: transport
  defp transport({:c_node, opts}), do: CNode.build(opts)
  defp transport(other), do: expected!(:transport, ":embedded or {:c_node, options}", other, "")

  # The daemon has carriers of its own.
  defp carried!(%__MODULE__{transport: :embedded}), do: :ok

  defp carried!(%__MODULE__{} = options) do
    carried!(options.listen, :listen, "")
    for peer <- options.peers, do: carried!(peer.connect, :connect, " in peer #{inspect(peer.realm)}")
  end

  defp carried!(addresses, direction, place) do
    for {module, _opts} <- addresses, module not in [@carriers.tcp, @carriers.unix] do
      carrier = Enum.find_value(@carriers, module, fn {name, known} -> known == module && name end)
      expected!(direction, "a list of :tcp and :unix addresses, as the daemon has no other carriers", carrier, place)
    end
  end

  # What was given is not shown: it may be the key itself.
  defp key(opts) do
    case Keyword.fetch(opts, :key) do
      # Behind a fun: reports of supervisors print options, and no environment of a fun.
      {:ok, {:keyholder, module, args}} when is_atom(module) -> {:keyholder, module, fn -> args end}
      {:ok, path} -> if path?(path), do: path, else: secret!(:key, "a path or {:keyholder, module, args}")
      :error -> invalid!("required option :key is missing")
    end
  end

  defp network_key(opts) do
    path = Keyword.get(opts, :network_key)
    if path == nil or path?(path), do: path, else: secret!(:network_key, "a path or nil")
  end

  defp global?({:suffix, suffix}), do: is_binary(suffix) and suffix != "" and String.valid?(suffix)
  defp global?(global), do: global in [true, :off]

  defp modules?(modules), do: is_list(modules) and Enum.all?(modules, &is_atom/1)

  defp imports(names) when names in [:default, :all, :none], do: names

  defp imports(names) when is_list(names) do
    for entry <- names do
      case entry do
        {name, [as: atom]} when is_atom(atom) and atom not in [nil, true, false, :undefined] ->
          {full_name!(name), [as: atom]}

        name ->
          full_name!(name)
      end
    end
  end

  defp imports(other), do: expected!(:import, ":default, :all, :none or a list of names", other, "")

  defp full_name!(name) do
    with true <- is_binary(name),
         [engine, realm] <- String.split(name, "@"),
         true <- name?(engine) and name?(realm) do
      name
    else
      _not_a_name -> expected!(:import, "a list of names like \"ping@bob\" or {\"ping@bob\", as: :atom}", name, "")
    end
  end

  ## Limits

  # A map, too, so that the limits of a running instance can be passed on.
  defp limits(given) when is_map(given), do: limits(Map.to_list(given))

  defp limits(given) do
    keys!(given, Keyword.keys(@limits), " in limits")

    limits =
      for {name, {default, _expected}} <- @limits, into: %{} do
        {name, limit!(name, Keyword.get(given, name, default), " in limits")}
      end

    if limits.reconnect_max_ms < limits.reconnect_min_ms,
      do: expected!(:reconnect_max_ms, "at least :reconnect_min_ms", limits.reconnect_max_ms, " in limits")

    limits
  end

  defp limit!(name, value, place) do
    {_default, expected} = @limits[name]
    if limit?(expected, value), do: value, else: expected!(name, limit_words(expected), value, place)
  end

  ## Addresses

  defp listen(addresses, limits) do
    listen = addresses(addresses, :listen, limits, "")
    ids = for {{_carrier, opts}, index} <- Enum.with_index(listen), do: Keyword.get(opts, :id, index)

    case ids -- Enum.uniq(ids) do
      [] -> listen
      [twice | _rest] -> invalid!("expected each :id in listen: to be there once, got twice: #{inspect(twice)}")
    end
  end

  defp addresses(addresses, direction, limits, place) do
    if not is_list(addresses), do: expected!(direction, "a list of {carrier, options}", addresses, place)

    for address <- addresses do
      case address do
        {carrier, opts} when is_atom(carrier) and is_list(opts) ->
          module = carrier!(carrier, direction, place)
          place = " in #{direction}: #{inspect(carrier)}" <> place
          if not Keyword.keyword?(opts), do: invalid!("expected a keyword list, got: #{inspect(opts)}#{place}")
          opts = opts |> Keyword.put_new(:send_timeout_ms, limits.send_timeout_ms) |> profile(module, place)
          if not limit?({1, @ms_max}, opts[:send_timeout_ms]), do: send_timeout!(opts, place)
          {module, address(carrier, direction, opts, place)}

        other ->
          expected!(direction, "a list of {carrier, options}", other, place)
      end
    end
  end

  defp send_timeout!(opts, place),
    do: expected!(:send_timeout_ms, limit_words({1, @ms_max}), opts[:send_timeout_ms], place)

  defp carrier!(carrier, direction, place) do
    module = Map.get(@carriers, carrier, carrier)

    if Code.ensure_loaded?(module) and function_exported?(module, :default_profile, 0),
      do: module,
      else:
        expected!(direction, "a carrier: :tcp, :unix, :memory or a module that is a Legation.Carrier", carrier, place)
  end

  # Only where the operating system vouches for the other end are bytes left as they are.
  defp profile(opts, module, place) do
    default = module.default_profile()
    profiles = Enum.uniq([default, :tls, :plain])
    profile = get!(opts, :profile, default, &(&1 in profiles), limit_words(profiles), place)
    Keyword.put(opts, :profile, profile)
  end

  defp address(:tcp, :listen, opts, place) do
    keys!(opts, [:port, :ip, :id, :profile, :send_timeout_ms], place)
    port = get!(opts, :port, 0, &limit?({0, 65_535}, &1), limit_words({0, 65_535}), place)
    opts = Keyword.put(opts, :port, port)

    case Keyword.fetch(opts, :ip) do
      {:ok, ip} -> Keyword.put(opts, :ip, ip!(ip, place))
      :error -> opts
    end
  end

  defp address(:tcp, :connect, opts, place) do
    keys!(opts, [:host, :port, :profile, :send_timeout_ms], place)
    required!(opts, :port, &limit?({1, 65_535}, &1), limit_words({1, 65_535}), place)
    host = required!(opts, :host, &host?/1, "a name or an address", place)
    Keyword.put(opts, :host, host(host))
  end

  defp address(:unix, direction, opts, place) do
    keys!(opts, [:path, :uids, :profile, :send_timeout_ms] ++ id(direction), place)
    path = required!(opts, :path, &socket_path?/1, "a path of at most 107 bytes", place)
    get!(opts, :uids, :any, &uids?/1, ":any or a list of user ids", place)
    Keyword.put(opts, :path, Path.expand(path))
  end

  defp address(:memory, direction, opts, place) do
    keys!(opts, [:name, :delay_ms, :profile, :send_timeout_ms] ++ id(direction), place)
    if not Keyword.has_key?(opts, :name), do: invalid!("required option :name is missing#{place}")
    get!(opts, :delay_ms, 0, &limit?({0, @ms_max}, &1), limit_words({0, @ms_max}), place)
    opts
  end

  # A user's carrier knows its options itself.
  defp address(_module, _direction, opts, _place), do: opts

  defp id(:listen), do: [:id]
  defp id(:connect), do: []

  defp host?(host) when is_tuple(host), do: ip?(host) == true
  defp host?(host) when is_binary(host), do: host != "" and String.printable?(host) and not String.contains?(host, " ")
  defp host?(_host), do: false

  # An address stays one; a name is looked up at each dial.
  defp host(host) when is_tuple(host), do: host

  defp host(host) do
    case ip?(host) do
      {:ok, ip} -> ip
      _a_name -> host
    end
  end

  defp uids?(:any), do: true
  defp uids?(uids), do: is_list(uids) and Enum.all?(uids, &limit?({0, 4_294_967_295}, &1))

  ## Peers

  defp peers(peers, own_realm, limits) do
    if not is_list(peers), do: expected!(:peers, "a list of keyword lists", peers, "")
    peers = Enum.map(peers, &peer(&1, limits))

    for %Peer{realm: ^own_realm} <- peers,
        do: invalid!("expected a peer's :realm not to be our own, got: #{inspect(own_realm)}")

    for {key, words} <- [realm: "realm", key: "key"] do
      values = Enum.map(peers, &Map.fetch!(&1, key))

      case values -- Enum.uniq(values) do
        [] ->
          :ok

        [twice | _rest] ->
          realms = for peer <- peers, Map.fetch!(peer, key) == twice, do: peer.realm

          invalid!(
            "expected peers to differ in their #{words}, got the same for: #{Enum.map_join(realms, ", ", &inspect/1)}"
          )
      end
    end

    peers
  end

  defp peer(opts, limits) do
    keys!(
      opts,
      ~w(realm key connect links limits export allow filter reasons signing accept_signing)a,
      " in peers"
    )

    realm = required!(opts, :realm, &name?/1, realm_words(), " in peers")
    place = " in peer #{inspect(realm)}"

    %Peer{
      realm: realm,
      key: peer_key(opts, place),
      connect: addresses(Keyword.get(opts, :connect, []), :connect, limits, place),
      links: get!(opts, :links, 1, &limit?({1, 4}, &1), limit_words({1, 4}), place),
      limits: peer_limits(Keyword.get(opts, :limits, []), " in limits" <> place),
      export: export(Keyword.get(opts, :export, []), place),
      allow: get!(opts, :allow, [:call, :cast, :send, :monitor], &ops?/1, ops_words(), place),
      reasons: get!(opts, :reasons, :class, &(&1 in [:class, :full]), limit_words([:class, :full]), place),
      signing: signing(opts, nil, place),
      accept_signing: accept_signing(opts, nil, place),
      filter: get!(opts, :filter, nil, &filter?/1, filter_words(), place)
    }
  end

  defp signing(opts, default, place),
    do: get!(opts, :signing, default, &(&1 in [default | @signing]), limit_words(@signing), place)

  defp accept_signing(opts, default, place),
    do: get!(opts, :accept_signing, default, &(&1 == default or accepted?(&1)), accepted_words(), place)

  # What is always taken is said, so that a list means what it says.
  defp accepted?(modes), do: is_list(modes) and :engine in modes and Enum.all?(modes, &(&1 in @signing))

  defp accepted_words,
    do: "a list of :engine, which is always in it, and #{Enum.map_join(@signing -- [:engine], ", ", &inspect/1)}"

  defp peer_limits(given, place) do
    keys!(given, @peer_limits, place)
    for {name, value} <- given, into: %{}, do: {name, limit!(name, value, place)}
  end

  defp peer_key(opts, place) do
    case Keyword.fetch(opts, :key) do
      {:ok, <<key::binary-size(32)>>} ->
        key

      {:ok, text} ->
        with :error <- parse_key(text),
             do: expected!(:key, "\"ed25519:…\" (43 characters of base64) or 32 bytes", text, place),
             else: ({:ok, key} -> key)

      :error ->
        invalid!("required option :key is missing#{place}")
    end
  end

  defp export(:all, _place), do: :all

  defp export(engines, place) when is_list(engines) do
    engines = Enum.map(engines, &exported(&1, place))
    names = Enum.map(engines, &elem(&1, 0))

    case names -- Enum.uniq(names) do
      [] ->
        engines

      [twice | _rest] ->
        invalid!("expected each engine in export: to be there once, got twice: #{inspect(twice)}#{place}")
    end
  end

  defp export(other, place), do: expected!(:export, ":all or a list of engines", other, place)

  defp exported({name, opts}, place) do
    name = engine!(name, place)
    place = " in export: #{inspect(name)}" <> place
    keys!(opts, [:allow, :filter], place)

    {name,
     allow: get!(opts, :allow, nil, &(&1 == nil or ops?(&1)), ops_words(), place),
     filter: get!(opts, :filter, nil, &filter?/1, filter_words(), place)}
  end

  defp exported(name, place), do: {engine!(name, place), allow: nil, filter: nil}

  # An engine may have been published under an atom.
  defp engine!(name, place) when is_atom(name) and name not in [nil, true, false],
    do: name |> Atom.to_string() |> engine!(place)

  defp engine!(name, place) do
    if name?(name),
      do: name,
      else: expected!(:export, "a list of engines: names, or {name, allow: [...], filter: filter}", name, place)
  end

  defp ops?(ops), do: is_list(ops) and Enum.all?(ops, &(&1 in @ops))
  defp ops_words, do: "a list of #{Enum.map_join(@ops, ", ", &inspect/1)}"

  defp filter?(nil), do: true
  defp filter?({module, function}), do: is_atom(module) and is_atom(function)
  defp filter?(filter), do: is_function(filter, 1)
  defp filter_words, do: "nil, a function of one argument or {module, function}"

  defp realm_words, do: "a name of 1 to 255 bytes without \"@\" and control characters"
end
