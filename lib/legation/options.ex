defmodule Legation.Options do
  @moduledoc """
  The options of an instance, checked in one place.

  | option | is | default |
  |---|---|---|
  | `name:` | the instance, an atom | `Legation` |
  | `realm:` | our own short name, `"alice"` | required |
  | `key:` | path of the identity (PKCS#8 PEM), or `{:keyholder, module, args}` (see `Legation.Keyholder`) | required |
  | `network_key:` | path of the network key, or none | `nil` |
  | `listen:` | addresses, a list of `tcp: [...]`, `unix: [...]`, `memory: [...]` or `{MyCarrier, [...]}` | `[]` |
  | `peers:` | see below | `[]` |
  | `import:` | what goes to `:global`: `:default` (the first 1,000 engines learned), `:all`, `:none`, or a list of names and `{name, as: atom}` | `:default` |
  | `global:` | `true`, `:off`, or `{:suffix, text}` | `true` |
  | `limits:` | see below | |

  A peer: `realm:` (our short name for it) and `key:` (`"ed25519:…"`) are required; `connect:` lists addresses to dial; `export:` says which engines it
  may see, `:all` or a list of names and `{name, allow: [...], filter: f}`, default none; `allow:` says which operations
  (of `:call`, `:cast`, `:send`, `:sys`, `:event`, the first three by default); `filter:` is a function of one argument or
  `{module, function}` that gets `%{realm:, engine:, source:, op:, message:}` and lets pass what it answers with `true`.

  Addresses: `tcp: [host:, port:]` to dial, `tcp: [port:, ip:]` to listen, `unix: [path:, uids:]`, `memory: [name:]`; each may have `profile:` (`:tls`,
  `:plain`, `:local`), and a listener an `id:`.

  Limits, each with its first value: #{Enum.map_join([message_bytes_max: "8 MiB", engines_max: "65,536", queue_bytes_max: "16 MiB", calls_max: "65,536", callers_max: "65,536", handshake_ms: "5,000", ping_ms: "15,000", failures_max: "10", failures_window_ms: "60,000", overflow: ":newest (or :oldest)", pending_connections_max: "1,024", handshakes_max: "100", failed_handshakes_per_s: "20", knock_window_ms: "30,000", knock_boot_ms: "1,000", knock_entries_max: "65,536", send_timeout_ms: "15,000", shutdown_ms: "5,000", reconnect_min_ms: "50", reconnect_max_ms: "30,000", call_age_ms: "30,000", engine_queue_max: ":infinity"], "; ", fn {key, value} -> "`#{key}` #{value}" end)}.
  """

  defmodule Peer do
    @moduledoc false
    @enforce_keys [:realm, :key]
    defstruct [
      :realm,
      :key,
      :realm_id,
      connect: [],
      export: [],
      allow: [:call, :cast, :send],
      filter: nil,
      reasons: :class
    ]
  end

  @derive {Inspect, except: [:key]}
  @enforce_keys [:realm, :key]
  defstruct [
    :realm,
    :key,
    :network_key,
    name: Legation,
    listen: [],
    peers: [],
    import: :default,
    global: true,
    limits: %{}
  ]

  @type t :: %__MODULE__{}

  @limits %{
    message_bytes_max: 8 * 1024 * 1024,
    engines_max: 65_536,
    queue_bytes_max: 16 * 1024 * 1024,
    calls_max: 65_536,
    callers_max: 65_536,
    handshake_ms: 5_000,
    ping_ms: 15_000,
    failures_max: 10,
    failures_window_ms: 60_000,
    overflow: :newest,
    pending_connections_max: 1_024,
    handshakes_max: 100,
    failed_handshakes_per_s: 20,
    knock_window_ms: 30_000,
    knock_boot_ms: 1_000,
    knock_entries_max: 65_536,
    send_timeout_ms: 15_000,
    shutdown_ms: 5_000,
    reconnect_min_ms: 50,
    reconnect_max_ms: 30_000,
    call_age_ms: 30_000,
    engine_queue_max: :infinity
  }
  @may_be_zero [:knock_boot_ms]
  # A message goes into one frame, whose length is a u32 and which is held in memory whole.
  @message_bytes_ceiling 1024 * 1024 * 1024

  @carriers %{tcp: Legation.Carriers.Tcp, unix: Legation.Carriers.Unix, memory: Legation.Carriers.Memory}
  @profiles [:tls, :plain, :local]

  @doc "The options as a struct. Raises `ArgumentError` that names what is wrong."
  @spec new!(keyword | t) :: t
  def new!(%__MODULE__{} = options), do: options

  def new!(options) do
    keyword!(options, "the options")

    known!(
      options,
      [:name, :realm, :key, :network_key, :listen, :peers, :import, :global, :limits, :transport],
      "option"
    )

    if options[:transport] not in [nil, :embedded],
      do: raise(ArgumentError, "expected :transport to be :embedded, got: #{inspect(options[:transport])}")

    %__MODULE__{
      name: atom!(Keyword.get(options, :name, Legation), :name),
      realm: realm!(required!(options, :realm)),
      key: key!(required!(options, :key)),
      network_key: path_or_nil!(options[:network_key], :network_key),
      listen: addresses!(Keyword.get(options, :listen, []), :listen),
      peers: options |> Keyword.get(:peers, []) |> list!(:peers) |> Enum.map(&peer!/1) |> distinct!(),
      import: import!(Keyword.get(options, :import, :default)),
      global: global!(Keyword.get(options, :global, true)),
      limits: limits!(Keyword.get(options, :limits, []))
    }
  end

  @doc "Like `new!/1`, without raising."
  @spec validate(keyword) :: {:ok, t} | {:error, String.t()}
  def validate(options) do
    {:ok, new!(options)}
  rescue
    error in ArgumentError -> {:error, error.message}
  end

  @doc "A peer's options as a struct, for one that is added at run time."
  def peer!(%Peer{} = peer), do: peer

  def peer!(options) do
    keyword!(options, "a peer")
    known!(options, [:realm, :key, :connect, :export, :allow, :filter, :reasons], "option of a peer")
    allow = allow!(Keyword.get(options, :allow, [:call, :cast, :send]))

    reasons = Keyword.get(options, :reasons, :class)
    if reasons != :class, do: raise(ArgumentError, "expected :reasons to be :class, got: #{inspect(reasons)}")

    %Peer{
      realm: realm!(required!(options, :realm)),
      key: parse_key!(required!(options, :key)),
      connect: addresses!(Keyword.get(options, :connect, []), :connect),
      export: export!(Keyword.get(options, :export, [])),
      allow: allow,
      filter: filter!(options[:filter]),
      reasons: reasons
    }
  end

  @doc "A public key from its text form, `ed25519:` and 43 characters, or from its 32 bytes."
  @spec parse_key!(binary) :: <<_::256>>
  def parse_key!("ed25519:" <> text = key) do
    case Base.url_decode64(text, padding: false) do
      {:ok, <<bytes::binary-32>>} ->
        bytes

      _other ->
        raise ArgumentError,
              "expected :key to be \"ed25519:\" and 43 characters of URL-safe base64, got: #{inspect(key)}"
    end
  end

  def parse_key!(<<bytes::binary-32>>), do: bytes

  def parse_key!(other),
    do: raise(ArgumentError, "expected :key to be \"ed25519:…\" or 32 bytes, got: #{inspect(other)}")

  @doc "The text form of a public key."
  @spec format_key(<<_::256>>) :: String.t()
  def format_key(<<bytes::binary-32>>), do: "ed25519:" <> Base.url_encode64(bytes, padding: false)

  @doc "Whether a text may be a realm's or an engine's name: 1 to 255 bytes, no `@`, no control characters."
  @spec name?(term) :: boolean
  def name?(name),
    do: is_binary(name) and byte_size(name) in 1..255 and String.valid?(name) and not (name =~ ~r/[@\p{Cc}]/u)

  @doc "The limits with their first values."
  def default_limits, do: @limits

  ## Pieces

  defp realm!(realm) do
    if name?(realm),
      do: realm,
      else:
        raise(
          ArgumentError,
          "expected :realm to be a text of 1 to 255 bytes without \"@\" and control characters, got: #{inspect(realm)}"
        )
  end

  defp key!(path) when is_binary(path), do: path
  defp key!({:keyholder, module, _args} = keyholder) when is_atom(module), do: keyholder

  # What was given may hold a secret: it is not shown.
  defp key!(_other),
    do: raise(ArgumentError, "expected :key to be the path of a PEM file or {:keyholder, module, args}")

  defp path_or_nil!(path, _option) when is_binary(path) or is_nil(path), do: path
  defp path_or_nil!(_other, option), do: raise(ArgumentError, "expected #{inspect(option)} to be the path of a file")

  defp addresses!(addresses, option), do: addresses |> list!(option) |> Enum.map(&address!(&1, option))

  defp address!({carrier, opts}, option) when is_atom(carrier) do
    keyword!(opts, "an address of #{inspect(option)}")
    profile = opts[:profile]

    if profile not in [nil | @profiles],
      do: raise(ArgumentError, "expected :profile to be one of #{inspect(@profiles)}, got: #{inspect(profile)}")

    check_address!(carrier, opts, option)
    {Map.get(@carriers, carrier, carrier), opts}
  end

  defp address!(other, option),
    do:
      raise(
        ArgumentError,
        "expected #{inspect(option)} to be a list of tcp:, unix:, memory: or {carrier, opts}, got: #{inspect(other)}"
      )

  defp check_address!(:tcp, opts, option) do
    known!(opts, [:host, :port, :ip, :profile, :id, :send_timeout_ms], "option of tcp:")

    if option == :connect and is_nil(opts[:host]),
      do: raise(ArgumentError, "expected tcp: to have :host, got: #{inspect(opts)}")

    port = Keyword.get(opts, :port, if(option == :listen, do: 0))
    low = if option == :listen, do: 0, else: 1

    unless is_integer(port) and port in low..65_535,
      do: raise(ArgumentError, "expected :port to be an integer from #{low} to 65535, got: #{inspect(port)}")

    if opts[:profile] == :local, do: raise(ArgumentError, "expected :profile of tcp: to be :tls or :plain, got: :local")
  end

  defp check_address!(:unix, opts, _option) do
    known!(opts, [:path, :uids, :profile, :id, :send_timeout_ms], "option of unix:")
    is_binary(opts[:path]) || raise(ArgumentError, "expected :path of unix: to be a text, got: #{inspect(opts[:path])}")

    unless opts[:uids] in [nil, :any] or (is_list(opts[:uids]) and Enum.all?(opts[:uids], &is_integer/1)),
      do: raise(ArgumentError, "expected :uids to be :any or a list of user ids, got: #{inspect(opts[:uids])}")
  end

  defp check_address!(:memory, opts, _option) do
    if is_nil(opts[:name]), do: raise(ArgumentError, "expected memory: to have :name, got: #{inspect(opts)}")
  end

  defp check_address!(module, _opts, option) do
    (Code.ensure_loaded?(module) and function_exported?(module, :stream, 2)) ||
      raise(
        ArgumentError,
        "expected #{inspect(option)} to name tcp, unix, memory or a module with the callbacks of Legation.Carrier, got: #{inspect(module)}"
      )
  end

  defp export!(:all), do: :all

  defp export!(engines) do
    for engine <- list!(engines, :export) do
      case engine do
        {name, opts} ->
          keyword!(opts, "an engine of :export")
          known!(opts, [:allow, :filter], "option of an exported engine")
          if opts[:allow], do: allow!(opts[:allow])
          filter!(opts[:filter])
          {engine!(name), opts}

        name ->
          engine!(name)
      end
    end
  end

  defp engine!(name) do
    name = if is_atom(name) and name not in [nil, true, false], do: Atom.to_string(name), else: name

    if name?(name),
      do: name,
      else: raise(ArgumentError, "expected :export to be :all or a list of engine names, got: #{inspect(name)}")
  end

  defp allow!(operations) do
    known = Legation.Policy.operations()

    if is_list(operations) and operations -- known == [],
      do: operations,
      else: raise(ArgumentError, "expected :allow to be a list of #{inspect(known)}, got: #{inspect(operations)}")
  end

  defp filter!(nil), do: nil
  defp filter!(filter) when is_function(filter, 1), do: filter
  defp filter!({module, function} = filter) when is_atom(module) and is_atom(function), do: filter

  defp filter!(other),
    do:
      raise(
        ArgumentError,
        "expected :filter to be a function of one argument or {module, function}, got: #{inspect(other)}"
      )

  defp import!(import) when import in [:default, :all, :none], do: import

  defp import!(list) when is_list(list) do
    for entry <- list do
      case entry do
        name when is_binary(name) -> name
        {name, [as: as]} when is_binary(name) and is_atom(as) -> {name, as: as}
        other -> raise ArgumentError, "expected :import to list names and {name, as: atom}, got: #{inspect(other)}"
      end
    end
  end

  defp import!(other),
    do: raise(ArgumentError, "expected :import to be :default, :all, :none or a list, got: #{inspect(other)}")

  defp global!(global) when global in [true, :off], do: global
  defp global!({:suffix, suffix} = global) when is_binary(suffix), do: global

  defp global!(other),
    do: raise(ArgumentError, "expected :global to be true, :off or {:suffix, text}, got: #{inspect(other)}")

  defp limits!(limits) do
    limits = if is_map(limits), do: Map.to_list(limits), else: limits
    keyword!(limits, ":limits")
    known!(limits, Map.keys(@limits), "limit")
    Enum.each(limits, fn {key, value} -> limit!(key, value) end)
    limits = Map.merge(@limits, Map.new(limits))

    if limits.reconnect_max_ms < limits.reconnect_min_ms,
      do:
        raise(
          ArgumentError,
          "expected :reconnect_max_ms to be at least :reconnect_min_ms, got: #{limits.reconnect_max_ms}"
        )

    limits
  end

  defp limit!(:overflow, value) when value in [:newest, :oldest], do: :ok

  defp limit!(:overflow, value),
    do: raise(ArgumentError, "expected :overflow to be :newest or :oldest, got: #{inspect(value)}")

  defp limit!(:engine_queue_max, :infinity), do: :ok

  defp limit!(key, value)
       when key in [:message_bytes_max, :queue_bytes_max] and is_integer(value) and value > @message_bytes_ceiling,
       do: raise(ArgumentError, "expected #{inspect(key)} to be at most #{@message_bytes_ceiling}, got: #{value}")

  defp limit!(_key, value) when is_integer(value) and value in 1..4_294_967_295, do: :ok
  defp limit!(key, 0) when key in @may_be_zero, do: :ok

  defp limit!(key, value),
    do: raise(ArgumentError, "expected #{inspect(key)} to be a positive integer, got: #{inspect(value)}")

  defp distinct!(peers) do
    for {field, what} <- [realm: "name", key: "key"] do
      values = Enum.map(peers, &Map.fetch!(&1, field))
      if Enum.uniq(values) != values, do: raise(ArgumentError, "expected :peers to differ in #{what}: two are the same")
    end

    peers
  end

  defp required!(options, key) do
    case Keyword.fetch(options, key) do
      {:ok, value} -> value
      :error -> raise ArgumentError, "the option #{inspect(key)} is required"
    end
  end

  defp known!(options, known, what) do
    case Keyword.keys(options) -- known do
      [] ->
        :ok

      unknown ->
        raise ArgumentError,
              "unknown #{what}: #{unknown |> Enum.uniq() |> Enum.map_join(", ", &inspect/1)}; known are #{Enum.map_join(known, ", ", &inspect/1)}"
    end
  end

  defp keyword!(options, what) do
    Keyword.keyword?(options) || raise(ArgumentError, "expected #{what} to be a keyword list, got: #{inspect(options)}")
  end

  defp list!(list, _option) when is_list(list), do: list

  defp list!(other, option),
    do: raise(ArgumentError, "expected #{inspect(option)} to be a list, got: #{inspect(other)}")

  defp atom!(name, _option) when is_atom(name) and not is_nil(name), do: name

  defp atom!(other, option),
    do: raise(ArgumentError, "expected #{inspect(option)} to be an atom, got: #{inspect(other)}")
end
