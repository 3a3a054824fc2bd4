defmodule Legation do
  @moduledoc """
  Lets engines in one Erlang system talk to engines in another that it does not trust, by ordinary
  `GenServer.call`, `cast` and `send`.

  For each engine of another *realm* there is a local proxy, registered as `"engine@realm"`. What a process sends to it is
  signed, carried over and verified, and arrives as a plain Erlang message. The sender does nothing special:

      # In alice's supervision tree
      {Legation,
       realm: "alice",
       key: "alice.pem",
       listen: [tcp: [port: 4040]],
       peers: [[realm: "bob", key: "ed25519:…", export: ["ping"]]]}

      # In bob's
      {Legation,
       realm: "bob",
       key: "bob.pem",
       peers: [[realm: "alice", key: "ed25519:…", connect: [tcp: [host: "10.0.0.7", port: 4040]]]]}

      # alice has an engine: any process
      {:ok, pid} = Ping.start_link([])
      :ok = Legation.publish("ping", pid)

      # bob calls it
      GenServer.call({:global, "ping@alice"}, :ping)
      GenServer.call({:via, Legation, "ping@alice"}, :ping)

  ## Names

    * `{:via, Legation, "ping@alice"}` reaches every engine, from the moment it is learned: an ETS look-up.
      `{:via, Legation, {instance, "ping@alice"}}` with an instance of another name. A cast or a plain `Legation.send/2` by
      this name is signed as the sender's own engine, if it has published itself.
    * `{:global, "ping@alice"}` needs nothing of this library in the sender, nor on its node; `import:` says which
      engines have one, by default the first 1,000.
    * a process that starts with `name: {:via, Legation, "ping"}` publishes itself; with `{:via, Legation, {"ping", version: 2}}`
      it does so with these options of `publish/4`.

  ## Versions and several providers

  A name may say what version it means (`publish/4` has the engine's, 0 if it says none), and may leave open whose engine it is:

      GenServer.call({:via, Legation, {"store@bob", version: 4}}, :get)           # 4 or later; else `:noproc`
      GenServer.call({:via, Legation, {"store@bob", version: 4..6}}, :get)
      GenServer.call({:via, Legation, {:any, "store", [version: 4, pick: :round_robin]}}, :get)
      Legation.cast_all("store", :flush)                                          # to all who have a "store"

  These names can be used wherever a name can: in `call/4`, `cast/3`, `send/2`, `whereis/2`, with an instance as
  `{:via, Legation, {instance, {:any, "store", []}}}`. Providers are this realm's own engine of that name, if there is one, and those of all
  peers; `:realms` names the ones that come into question, in the order of preference. Which of them is taken:

    * `:first` (default) - this realm's own, or else the first by realm; with `:realms` the first of these
    * `:round_robin` - each in turn, over all callers in this VM
    * `:least_pending` - the one that has least to do, as far as this realm can tell: calls of this realm that its engine has not answered yet; of
      the own engine, messages in its mailbox. Those that have equally little take turns. What other realms want of it nobody here
      knows. (Behind a daemon this asks the daemon, once a choice.)

  Where a realm's link is lost at the moment its engine is taken only if there is no other. The choice is made when the name is looked
  up; it is not made again for a call that then fails. When a provider dies between choice and call the call exits `:noproc`,
  as that of any server does, and the next one chooses among those that are left. Whoever must talk to the same one twice keeps
  `whereis/2`'s pid.

  ## What a caller sees

    * The remote engine's reply, or its exit as any local server's: `:noproc` when it was withdrawn, its reason's class when
      it died (`:normal`, `:shutdown`, `:killed`, `{:remote_exit, :crashed}`), `:noconnection` when the session has ended. (OTP
      words the last one differently for calls with a timeout: `{:nodedown, node()}`. `docs/callers.md` has it all in tables.)
    * `{:error, {:legation, reason}}` as the reply when this one call was refused: by the peer's policy
      (`:forbidden`), its filter (`:filtered`), a bound (`:overload`, `:too_large`), or because its content can't cross
      (`:identifiers`: a port or fun; `:undecodable`: an atom that the peer doesn't know).
      `Legation.Error.retry?/1` says whether it makes sense to try again.
    * A pid in a message is a pid on the other side: what is sent to it, called, monitored, linked or told to exit is the process
      here, as far as the peer's `allow:` goes. One that comes home is itself again; so is a reference. A pid of the peer's is forgotten
      with its process, with the session, or when nobody here has used, monitored or linked it for `handle_idle_ms`.
    * Nothing at all when a connection is lost, for `grace_ms`: what is under way waits, and goes on over the next one.

  ## Instances

  One instance is one realm. Several can run in one VM, each with its `:name`; every function here takes it as its last argument.

  ## Where the work is done

  In this VM, with a native library, which is the default; or in a daemon beside it, which has the key and the sockets
  (`transport: {:c_node, []}`, see `Legation.Options.CNode`). Everything here is the same for both.

  ## Options

  See `Legation.Options`.
  """

  alias Legation.{Blocking, Directory, Instance, Options, Providers}

  @typedoc "An engine's name: `\"ping\"` for one of ours, `\"ping@bob\"` for another realm's."
  @type engine :: binary

  @typedoc """
  What stands for a process: an engine's name; with what its version has to be; or, of any realm, an engine of this name without
  its `@realm`. See "Versions and several providers" above.
  """
  @type name :: engine | {engine, version: version} | {:any, engine, [provider_option]}

  @typedoc "The version that is asked for: this one or later, or one of a range."
  @type version :: non_neg_integer | Range.t() | {non_neg_integer, non_neg_integer}

  @type provider_option ::
          {:version, version} | {:realms, [binary]} | {:pick, :first | :round_robin | :least_pending}

  @type instance :: atom

  ## Starting

  @doc "A child specification, for `{Legation, options}` in a supervisor."
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    # Checked here already: what a supervisor prints of its children then holds no keyholder's arguments.
    options = Options.new!(options)
    %{id: options.name, start: {__MODULE__, :start_link, [options]}, type: :supervisor}
  end

  @doc """
  Starts an instance: keyholder, directory, peers, listeners. It has dialled nobody yet when this returns.

  Raises `ArgumentError` for options that can't be meant. `{:error, reason}` when a key can't be read or an address can't be
  listened on.
  """
  @spec start_link(keyword | Options.t()) :: Supervisor.on_start()
  def start_link(options), do: options |> Options.new!() |> Legation.Supervisor.start_link()

  ## Our engines

  @doc """
  Publishes a process under a name: peers whose `export:` has it learn of it at once.

      :ok = Legation.publish("ping", self())
      :ok = Legation.publish("store", MyApp.Store, to: ["bob"], version: 7)

  Given a registered name, messages go to whoever has that name when they arrive. When the process ends, peers are
  told, with its reason's class; if its supervisor has started it again a moment later, it is published again.

  Options:

    * `:to` - `:all` (default), or the realms that may know of it, of those that `export:` it anyway
    * `:version` - a number that peers see, and that names can ask for (default 0)
    * `:ops` - what peers are told it can do (default `[:call, :cast, :send]`); a hint, the policy decides
    * `:delegate` - whether the key with which the realm signs for itself may sign for the engine, too, where `signing: :delegated` says so
      (default `true`). With `false` none but its own key does, whatever the signing
    * `:receipts` - a pid that gets `{:legation_receipt, name, %{realm:, source:, receipt:}}` for each message that was delivered.
      Receipts of thousands of small messages that came as one batch are large: beyond 64 MiB of one read none are made, and `receipts_over_limit` counts
    * `:instance` - the instance, instead of the last argument

  Errors: `{:error, :noproc}`, `{:error, {:already_published, pid}}`, `{:error, :bad_name}`, or the keyholder's.
  """
  @spec publish(engine | atom, pid | atom, keyword, instance) :: :ok | {:error, term}
  def publish(name, pid_or_name, opts \\ [], instance \\ __MODULE__)
      when is_pid(pid_or_name) or (is_atom(pid_or_name) and pid_or_name != nil) do
    {from_opts, opts} = Keyword.pop(opts, :instance)
    opts = Directory.Announcement.validate!(opts)
    name = to_string(name)

    instance = Instance.fetch!(from_opts || instance)
    if engine_name?(name), do: instance.transport.publish(instance, name, pid_or_name, opts), else: {:error, :bad_name}
  end

  @doc "Takes a published name back. Proxies at peers exit with `:noproc`. `{:error, :not_published}` if it isn't there."
  @spec withdraw(engine | atom, instance) :: :ok | {:error, :not_published}
  def withdraw(name, instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.withdraw(instance, to_string(name))
  end

  ## Looking around

  @doc """
  All engines: ours, and those of peers.

      %{name: "ping@bob", engine: "ping", realm: "bob", local: false, pid: proxy, key: <<_::256>>,
        version: 0, ops: [:call, :cast, :send], state: :up, counters: %{calls: 3, casts: 0, sends: 0, dropped: 0}}
  """
  @spec engines(instance) :: [map]
  def engines(instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance |> instance.transport.engines() |> Enum.sort_by(& &1.name)
  end

  @doc """
  All peers on the list, connected or not.

      %{realm: "bob", key: "ed25519:…", state: :up, profile: :tls, role: :initiator, version: 1, signing: :engine,
        carrier: Legation.Carriers.Tcp, address: {{10, 0, 0, 7}, 4040}, since: ~U[…], attempts: 0, last_error: nil, counters: %{…},
        links: [%{state: :active, carrier: Legation.Carriers.Tcp, address: …, role: :initiator, rtt_ms: 3, …}]}

  `state` is `:up`, `:revoked` (its key is), `:lost` (the session waits for a link, for `grace_ms` at most), `:connecting`, `:waiting` (to dial again), `:listening` (it dials us), `:disconnected` or `:drained`. `last_error` says
  in words why there is no link; `signing` how what we send is signed.
  """
  @spec peers(instance) :: [map]
  def peers(instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.peers(instance)
  end

  @doc """
  All links that are up: which peer, since when, over what, whether we send on it (`state: :active`) or it stands by
  (`:standby`), its last round trip (`rtt_ms`, `nil` before the first), and its session's counters.
  """
  @spec connections(instance) :: [map]
  def connections(instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.connections(instance)
  end

  @doc """
  All listeners, with what they are bound to: `address: [port: 40123]` also for `port: 0`; and how many connections
  have not yet proven who they are (`:pending`, `:handshakes`).
  """
  @spec listeners(instance) :: [map]
  def listeners(instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.listeners(instance)
  end

  @doc "The pid behind a name: a proxy for `\"ping@bob\"`, the process itself for an engine of ours. `nil` if there is none."
  @spec whereis(name, instance) :: pid | nil
  def whereis(name, instance \\ __MODULE__), do: find(Instance.fetch!(instance), name)

  @doc """
  Who has an engine of this name, in the order in which `pick: :first` would take them.

      [%{name: "store@alice", engine: "store", realm: "alice", local: true, pid: pid, version: 7, up: true, pending: 0},
       %{name: "store@bob", engine: "store", realm: "bob", local: false, pid: proxy, version: 5, up: true, pending: 3}]

  `up` is false while the realm's link is lost and may come back. `pending` is what `:least_pending` compares, `:infinity` where it
  can't be known. Options: `:version`, `:realms`.
  """
  @spec providers(engine, [{:version, version} | {:realms, [binary]}], instance) :: [map]
  def providers(engine, opts \\ [], instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)

    case Providers.all(instance, engine, opts) do
      [] ->
        []

      providers ->
        for {provider, pending} <- Enum.zip(providers, instance.transport.pending(instance, providers)),
            do: provider |> Map.from_struct() |> Map.put(:pending, pending)
    end
  end

  @doc """
  What the instance has counted: drops by reason, refusals, failed handshakes; each session's counters under `:sessions`,
  and under `:ended` the sums of those that are over, by realm. `docs/counters.md` says what each counts.
  """
  @spec counters(instance) :: map
  def counters(instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.counters(instance)
  end

  @doc """
  This realm's public key, as others write it into their `peers:`. It is the realm's first one, and stays the same when the key
  is replaced (`rotate_key/2`).
  """
  @spec public_key(instance) :: binary
  def public_key(instance \\ __MODULE__), do: Options.format_key(Instance.fetch!(instance).identity.key)

  @doc """
  Checks a receipt (see `publish/4`): that the engine of the realm with this identity key signed the message that it shows.

  Needs no session, and the message need not have come to this instance; the network must be the same. In the map are, of what was
  signed, `:source_engine`, `:destination_engine`, `:payload` (external term format) and more; the numbers are those of
  `docs/protocol.md` 14.
  """
  @spec verify_receipt(binary, binary, instance) :: {:ok, map} | {:error, term}
  def verify_receipt(receipt, identity_key, instance \\ __MODULE__) do
    key = if byte_size(identity_key) == 32, do: identity_key, else: Options.parse_key!(identity_key)
    instance = Instance.fetch!(instance)
    instance.transport.verify_receipt(instance, receipt, key)
  end

  ## Keys

  @doc """
  Replaces this realm's key by the one in a file, while everything goes on.

      # mix legation.key alice-2.pem
      {:ok, "ed25519:…"} = Legation.rotate_key("alice-2.pem")

  The old key signs that the new one takes its place. Peers that have a session with us hear of it at once; links, sessions and calls
  stay, no message is lost, and engines are announced again under the new key. Others hear of it by our next hello. Peers change
  nothing in their configuration: they go on knowing us by our first key (`public_key/1`). From then on they refuse the old
  one, also if somebody else has it.

  Beside each key is a file that says so: `alice-2.pem.chain` has the signed rotations, without which the new key is a
  stranger's; and `alice.pem.chain` names the new file, so that a restart with `key: "alice.pem"` finds it. Afterwards change
  `key:` and destroy the old private key; keep `alice-2.pem.chain` with `alice-2.pem`.

  A realm's key can be replaced sixteen times. Where several instances have one key it has to be replaced at each, in the
  same steps; peers that have heard of it refuse the others until then.

  Errors: `{:error, {:key_file, reason}}`, and `{:error, {:rotation, reason}}` with `:external` (the key is with a
  keyholder, and can't be replaced in a running instance), `:used_before`, `:too_many` or `:revoked`. Nothing has changed then.
  """
  @spec rotate_key(Path.t(), instance) :: {:ok, binary} | {:error, term}
  def rotate_key(path, instance \\ __MODULE__) when is_binary(path) do
    instance = Instance.fetch!(instance)
    with {:ok, key} <- instance.transport.rotate_key(instance, Path.expand(path)), do: {:ok, Options.format_key(key)}
  end

  @doc """
  Ends this realm: its key was stolen, say, and nobody knows which of two is the right one.

  All peers that have a session with us are told so by a signed revocation, end it, and refuse this realm from then on, whatever
  key it comes with. Peers that have none are told by our next hello; so the instance goes on running. There is no way back: a
  new realm needs a new key (`mix legation.key`), on the lists of all peers.

  Errors as of `rotate_key/2`.
  """
  @spec revoke_own_key(instance) :: :ok | {:error, term}
  def revoke_own_key(instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.revoke_own_key(instance)
  end

  @doc """
  Accepts a peer's key no more: all links to it are closed at once, the session ends, its proxies exit `:noconnection`.

      :ok = Legation.revoke("bob")
      {:error, :revoked} = Legation.connect("bob")
      :ok = Legation.connect(realm: "bob", key: "ed25519:…another", …)

  None of the keys that come from this one by rotation gets in, either. Take it out of the configuration, too: without the option
  `state_dir:` the decision is forgotten when the instance stops.
  """
  @spec revoke(binary, instance) :: :ok | {:error, :unknown_realm}
  def revoke(realm, instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.revoke(instance, realm)
  end

  ## Peers

  @doc """
  Puts a peer on the list and dials it, if it has addresses; or takes up a peer again after `disconnect/2`.

      :ok = Legation.connect(realm: "bob", key: "ed25519:…", connect: [tcp: [host: "10.0.0.7", port: 4040]])
      :ok = Legation.connect("bob")

  Returns before there is a link; `monitor_peers/1` tells of that, `peers/1` says why there is none.
  Errors: `{:error, :unknown_realm}`, `{:error, {:already_connected, realm}}`, `{:error, {:same_key, realm}}`,
  `{:error, :own_key}`, `{:error, {:bad_key, reason}}`, and `{:error, :draining}` after `drain/2`, which is for good.
  """
  @spec connect(binary | keyword, instance) :: :ok | {:error, term}
  def connect(realm_or_peer, instance \\ __MODULE__)

  def connect(realm, instance) when is_binary(realm) do
    instance = Instance.fetch!(instance)
    instance.transport.connect(instance, realm)
  end

  def connect(peer_options, instance) when is_list(peer_options) do
    instance = Instance.fetch!(instance)
    %Options{peers: [peer]} = checked(instance, peers: [peer_options])
    instance.transport.connect(instance, peer)
  end

  @doc "Closes the link to a realm, dials it no more and lets it in no more, until `connect/2`. Its proxies exit `:noconnection`."
  @spec disconnect(binary, instance) :: :ok | {:error, :unknown_realm}
  def disconnect(realm, instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.disconnect(instance, realm)
  end

  @doc """
  Prepares to stop: listens no more, refuses new calls in either direction (`{:error, {:legation, :draining}}`), waits until none is open,
  says goodbye to each peer and closes its links.

  `{:ok, cut}` with the calls of ours that were still open after `timeout_ms`, as `{"ping@bob", caller}`: their callers exit `:noconnection`.
  """
  @spec drain(non_neg_integer, instance) :: {:ok, [{engine, pid}]}
  def drain(timeout_ms \\ 5_000, instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.drain(instance, timeout_ms)
  end

  @doc """
  Tells the caller of peers and engines that come and go: first how it is, then every change, with no gap between.

      {:ok, ref, %{peers: %{"bob" => info}, engines: %{"ping@bob" => info}}} = Legation.monitor_peers()

      {:legation, ^ref, {:peer_up, realm, info}}
      {:legation, ^ref, {:peer_lost, realm, reason}}      its last link has gone, the session lives
      {:legation, ^ref, {:peer_resumed, realm, info}}     it goes on over another
      {:legation, ^ref, {:peer_down, realm, reason}}      the session has ended
      {:legation, ^ref, {:gap, realm, n}}                 and so many messages of ours with it, of which nobody knows whether they have arrived
      {:legation, ^ref, {:unproven, realm, first, last}}  the peer has not proven that it sent these, by their numbers; they were delivered
      {:legation, ^ref, {:engine_learned, "ping@bob", info}}
      {:legation, ^ref, {:engine_forgotten, "ping@bob", reason}}
  """
  @spec monitor_peers(instance) :: {:ok, reference, %{peers: map, engines: map}}
  def monitor_peers(instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.subscribe(instance)
  end

  @doc "Ends `monitor_peers/1`. Messages that were sent already may still be in the mailbox."
  @spec demonitor_peers(reference, instance) :: :ok
  def demonitor_peers(ref, instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.unsubscribe(instance, ref)
  end

  ## Listeners

  @doc """
  Listens on one more address, as in the option `listen:`.

      {:ok, %{id: id, address: [port: 40123]}} = Legation.add_listener({:tcp, port: 0})
  """
  @spec add_listener({atom | module, keyword}, instance) :: {:ok, map} | {:error, term}
  def add_listener({carrier, opts}, instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    %Options{listen: [{carrier, opts}]} = checked(instance, listen: [{carrier, opts}])
    instance.transport.add_listener(instance, opts[:id] || make_ref(), carrier, opts)
  end

  @doc "Stops listening on one address, by the `id` in `listeners/1`. Links that came in by it stay."
  @spec remove_listener(term, instance) :: :ok | {:error, :not_found}
  def remove_listener(id, instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)
    instance.transport.remove_listener(instance, id)
  end

  # What is added at run time has the same rules, limits included.
  defp checked(%Instance{options: options}, more) do
    Options.new!([realm: options.realm, key: options.key, limits: options.limits, transport: options.transport] ++ more)
  end

  ## At the receiver

  @doc """
  Whether a `from` names a caller in another realm. A guard, so `import` or `require` it.

      import Legation, only: [is_remote: 1]

      def handle_call(:secret, from, state) when is_remote(from), do: {:reply, {:error, :local_only}, state}
  """
  defguard is_remote(from)
           when is_tuple(from) and tuple_size(from) == 2 and is_tuple(elem(from, 1)) and
                  tuple_size(elem(from, 1)) == 4 and elem(elem(from, 1), 0) == :"$legation"

  @doc """
  Who made a call: `{:ok, %{realm: "bob", engine: "ping", key: key}}`, or `:local`.

  `engine` is `""` for a process of that realm that isn't a published engine. `key` is the key of who called: the engine's, or
  for `""` the realm's; `nil` when it has been forgotten meanwhile.
  """
  @spec sender(GenServer.from(), instance) :: {:ok, %{realm: binary, engine: binary, key: binary | nil}} | :local
  def sender(from, instance \\ __MODULE__)

  def sender({_pid, {:"$legation", _call, realm, ""}}, instance) do
    key =
      case :ets.match(Instance.fetch!(instance).sessions, {realm, :_, :_, :"$1"}) do
        [[%{key: key}]] -> key
        [] -> nil
      end

    {:ok, %{realm: realm, engine: "", key: key}}
  end

  def sender({_pid, {:"$legation", _call, realm, engine}}, instance) do
    instance = Instance.fetch!(instance)
    {:ok, %{realm: realm, engine: engine, key: instance.transport.key(instance, engine <> "@" <> realm)}}
  end

  def sender({_pid, _tag}, _instance), do: :local

  ## Sending

  @doc """
  `GenServer.call/3` by a Legation name.

  Options, or an instance in their place:

    * `:block` - how long to wait for room in the queue towards the peer, in milliseconds or `:infinity`, before the call is refused
      `:overload`. Only then does the timeout begin. Without it that is at once
    * `:instance` - the instance
  """
  @spec call(name, term, timeout, instance | [{:block, timeout} | {:instance, instance}]) :: term
  def call(name, request, timeout \\ 5_000, opts \\ [])

  def call(name, request, timeout, instance) when is_atom(instance) and instance != nil,
    do: GenServer.call({:via, __MODULE__, {instance, name}}, request, timeout)

  def call(name, request, timeout, opts) do
    {block, instance} = Blocking.options!(opts)
    call = fn -> call(name, request, timeout, instance) end
    if block, do: Blocking.call(Instance.fetch!(instance), name, request, block, call), else: call.()
  end

  @doc """
  `GenServer.cast/2` by a Legation name, signed as the caller's engine if it has one. `{:error, :noproc}` for an unknown name.

  Options as in `call/4`: with `:block` it returns when the queue has taken the message, or `{:error, {:legation, reason}}` if it has not.
  Behind a daemon it returns when there was room; somebody else may have taken it.

  With `received: timeout` it waits until the engine's mailbox has the message, and says `:ok`; `{:error, {:legation, reason}}` when
  the peer refused it, and `{:error, :timeout}`, `{:error, :noconnection}` or the reason for which the engine has ended when nobody said. What the engine
  makes of it is another matter. Anybody can ask so, without the library, for a cast or a plain message to a foreign engine's pid:
  `:gen.call(pid, :"$legation_cast", message, timeout)`, or with `:"$legation_send"`; the answer is `{:ok, :ok}`.
  """
  @spec cast(name, term, instance | [{:block, timeout} | {:received, timeout} | {:instance, instance}]) ::
          :ok | {:error, atom | tuple}
  def cast(name, message, opts \\ [])

  def cast(name, message, opts) when is_list(opts) do
    {received, opts} = Keyword.pop(opts, :received)
    {block, instance} = Blocking.options!(opts)
    Blocking.time!(:received, received)

    cond do
      received && block -> raise ArgumentError, "expected :block or :received, got both"
      received -> Blocking.received(Instance.fetch!(instance), name, message, received)
      block -> Blocking.cast(Instance.fetch!(instance), name, message, block)
      true -> cast(name, message, instance)
    end
  end

  def cast(name, message, instance) do
    case deliver(Instance.fetch!(instance), name, {:"$gen_cast", message}) do
      nil -> {:error, :noproc}
      _pid -> :ok
    end
  end

  @doc """
  Casts to all engines of this name, this realm's own among them; as `cast/3` does to each. Returns the names that it was sent to.

      ["store@alice", "store@bob"] = Legation.cast_all("store", :flush, version: 4)

  Options: `:version`, `:realms`. Whether it arrives is each one's own matter, as of any cast.
  """
  @spec cast_all(engine, term, [{:version, version} | {:realms, [binary]}], instance) :: [engine]
  def cast_all(engine, message, opts \\ [], instance \\ __MODULE__) do
    instance = Instance.fetch!(instance)

    for %{name: name, pid: pid, local: local} <- Providers.all(instance, engine, opts) do
      cast = {:"$gen_cast", message}
      if local, do: Kernel.send(pid, cast), else: instance.transport.send_from_caller(instance, pid, cast)
      name
    end
  end

  ## For `{:via, Legation, name}`

  @doc "For `name: {:via, Legation, \"ping\"}`: publishes the process that starts."
  @spec register_name(engine | {engine, keyword} | {instance, engine | {engine, keyword}}, pid) :: :yes | :no
  def register_name(name, pid) do
    {instance, name} = via(name)
    {name, opts} = publication(name)

    case publish(own_name(instance, name), pid, opts, instance) do
      :ok -> :yes
      {:error, _reason} -> :no
    end
  end

  defp publication({name, opts}) when is_binary(name) and is_list(opts), do: {name, opts}
  defp publication(name) when not is_tuple(name), do: {name, []}
  defp publication(other), do: raise(ArgumentError, "nobody can be published as #{inspect(other)}")

  @doc "For `:via`: `withdraw/2`."
  @spec unregister_name(engine | {engine, keyword} | {instance, engine | {engine, keyword}}) :: :ok
  def unregister_name(name) do
    {instance, name} = via(name)
    {name, _opts} = publication(name)
    withdraw(own_name(instance, name), instance)
    :ok
  end

  @doc "For `:via`: the pid behind a name, or `:undefined`."
  @spec whereis_name(name | {instance, name}) :: pid | :undefined
  def whereis_name(name) do
    {instance, name} = via(name)

    with %Instance{} = instance <- Instance.lookup(instance),
         pid when is_pid(pid) <- find(instance, name) do
      pid
    else
      nil -> :undefined
    end
  end

  @doc """
  Sends a message by a Legation name, signed as the caller's engine if the caller has published itself.

  Exits with `{:badarg, {name, message}}` for an unknown name, as `:global.send/2` does.
  """
  @spec send(name | {instance, name}, term) :: pid
  def send(name, message) do
    {instance, engine} = via(name)

    with %Instance{} = instance <- Instance.lookup(instance),
         pid when is_pid(pid) <- deliver(instance, engine, message) do
      pid
    else
      nil -> exit({:badarg, {name, message}})
    end
  end

  defp via({instance, name}) when is_atom(instance), do: {instance, name}
  defp via(name), do: {__MODULE__, name}

  defp deliver(%Instance{} = instance, name, message) do
    case Providers.locate(instance, name) do
      {:foreign, pid} ->
        instance.transport.send_from_caller(instance, pid, message)
        pid

      {:own, pid} ->
        Kernel.send(pid, message)
        pid

      nil ->
        nil
    end
  end

  defp find(instance, name) do
    with {_whose, pid} <- Providers.locate(instance, name), do: pid
  end

  defp own_name(instance, name), do: instance |> Instance.fetch!() |> Providers.own_engine(name)

  # protocol.md 2.4
  defp engine_name?(name) do
    byte_size(name) in 1..255 and String.valid?(name) and not String.contains?(name, "@") and not (name =~ ~r/\p{Cc}/u)
  end
end
