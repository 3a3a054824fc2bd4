defmodule Legation.Keyholder do
  @moduledoc """
  The one holder of a realm's private identity key, as a behaviour, so that the key can be anywhere: an HSM, an agent, a
  machine across the hall.

  Without one of your own (`key: "alice.pem"`) the key goes from its file into Rust memory, is never an Erlang term,
  and is wiped when the instance stops. With `key: {:keyholder, MyKeyholder, args}` Legation calls yours:

      defmodule MyKeyholder do
        @behaviour Legation.Keyholder

        @impl true
        def init(args), do: MyHsm.open(args)

        @impl true
        def public_key(hsm), do: MyHsm.public_key(hsm)

        @impl true
        def sign(_purpose, %{input: input}, hsm), do: {:ok, MyHsm.ed25519(hsm, input), hsm}
      end

  Legation asks for a signature with a *purpose* and the *body* it is about. A careful keyholder reads `body` (see
  `docs/protocol.md` 3, 7 and 11) and builds what it signs from `purpose`, `network_id` and `body` itself;
  `input` is the same bytes, ready made. It is asked for `:link`, `:hello`, `:cert`, `:learn` and `:forget`; messages
  are signed by keys that these certify and that stay in Rust. It is never asked to give the realm another key, nor to end it:
  `Legation.rotate_key/2` and `Legation.revoke_own_key/1` are for keys in files.

  A link that doesn't get its signature doesn't come about, and is tried again; an engine that doesn't is not published. The end of one
  is asked for again until it is signed: peers go on believing in the engine meanwhile, and nobody is published under its name.

  Callbacks run one at a time in the keyholder's own process. One that raises has refused to sign.
  """

  use GenServer

  alias Legation.{Instance, Native, Telemetry}
  alias Legation.Keyholder.Heads

  @type purpose :: :link | :hello | :cert | :learn | :forget
  @type state :: term

  @doc "Opens the key. An error stops the instance's start."
  @callback init(args :: term) :: {:ok, state} | {:error, term}

  @doc "The 32 bytes of the Ed25519 public key."
  @callback public_key(state) :: <<_::256>>

  @doc "The 64 bytes of the Ed25519 signature of `input`."
  @callback sign(purpose, %{network_id: binary, body: binary, input: binary}, state) ::
              {:ok, <<_::512>>, state} | {:error, term, state}

  @certificate_ms 24 * 60 * 60 * 1000
  @renew_ms 12 * 60 * 60 * 1000
  # The certificate has half its life left when a renewal fails, so a minute is soon enough.
  @retry_ms 60_000
  @sign_timeout_ms 5_000

  @doc false
  def start_link(options), do: GenServer.start_link(__MODULE__, options, name: server(options.name))

  @doc false
  # What all parts need: key material as opaque handles, ids, and the memory of knocks, which must outlive listeners.
  def identity(name), do: GenServer.call(server(name), :identity)

  @doc false
  def certificate(name), do: GenServer.call(server(name), :certificate)

  @doc false
  # The key in this file is the identity from now on. The certificate of the online key is by it.
  @spec rotate(atom, Path.t()) :: {:ok, key :: binary, certificate :: binary} | {:error, term}
  def rotate(name, path), do: GenServer.call(server(name), {:rotate, path}, :infinity)

  @doc false
  # No key speaks for this realm from now on.
  @spec revoke(atom) :: :ok | {:error, term}
  def revoke(name), do: GenServer.call(server(name), :revoke, :infinity)

  @doc false
  # Something may have been learned of the keys of others.
  def heads_changed(%Instance{options: %{state_dir: nil}}), do: :ok
  def heads_changed(%Instance{name: name}), do: GenServer.cast(server(name), :heads_changed)

  @doc false
  @spec sign(Instance.t(), purpose, binary) :: {:ok, binary} | {:error, term}
  def sign(%Instance{name: name, identity: identity}, purpose, body) do
    case Native.keyring_sign(identity.keyring, identity.network, purpose, body) do
      {:ok, signature} ->
        {:ok, signature}

      {:error, {:external, _purpose}} ->
        try do
          GenServer.call(server(name), {:sign, purpose, body}, @sign_timeout_ms)
        catch
          :exit, _reason -> {:error, :keyholder}
        end

      {:error, reason} ->
        {:error, reason}
    end
  end

  defp server(name), do: Instance.process(name, Keyholder)

  ## The process

  @impl true
  def init(options) do
    with {:ok, network} <- Native.network_load(options.network_key),
         {:ok, holder, keyring} <- open(options.key),
         :ok <- Native.keyring_check(keyring, network, Instance.now_ms()),
         :ok <- Heads.restore(options.state_dir, keyring) do
      warn_if_revoked(keyring, options.name)
      key = Native.keyring_public(keyring)
      limits = options.limits

      guard =
        Native.guard_new(
          network,
          %{
            window_ms: limits[:knock_window_ms],
            boot_ms: limits[:knock_boot_ms],
            entries_max: limits[:knock_entries_max]
          },
          Instance.now_ms()
        )

      identity = %{
        keyring: keyring,
        network: network,
        network_id: Native.network_id(network),
        key: key,
        realm_id: Native.realm_id(key),
        guard: guard
      }

      certify(%{
        name: options.name,
        holder: holder,
        identity: identity,
        certificate: nil,
        serial: 0,
        timer: nil,
        state_dir: options.state_dir
      })
    else
      {:error, reason} -> {:stop, {:shutdown, reason}}
    end
  end

  @impl true
  def handle_call(:identity, _from, state), do: {:reply, state.identity, state}
  def handle_call(:certificate, _from, state), do: {:reply, state.certificate, state}

  def handle_call({:sign, purpose, body}, _from, state) do
    {result, state} = signature(purpose, body, state)
    {:reply, result, state}
  end

  def handle_call({:rotate, path}, _from, %{identity: %{keyring: keyring, network: network}} = state) do
    with {:ok, key} <- Native.keyring_rotate(keyring, network, path, Instance.now_ms()),
         {:ok, state} <- certify(state) do
      {:reply, {:ok, key, state.certificate}, state}
    else
      {:error, reason} -> {:reply, {:error, reason}, state}
      {:stop, {:shutdown, reason}} -> {:reply, {:error, reason}, state}
    end
  end

  def handle_call(:revoke, _from, %{identity: %{keyring: keyring, network: network}} = state),
    do: {:reply, Native.keyring_revoke(keyring, network), state}

  @impl true
  def handle_cast(:heads_changed, state) do
    with {:error, reason} <- Heads.keep(state.state_dir, state.identity.keyring) do
      Telemetry.log(
        :error,
        {:heads, state.name},
        "what is known of the keys of peers could not be kept: #{Legation.Error.message(reason)}"
      )
    end

    {:noreply, state}
  end

  @impl true
  def handle_info({:timeout, timer, :certify}, %{timer: timer} = state) do
    case certify(state) do
      {:ok, state} ->
        Legation.Directory.certificate(state.name, state.certificate)
        {:noreply, state}

      {:stop, {:shutdown, reason}} ->
        Telemetry.log(:error, {:keyholder, state.name}, "the online key could not be certified: #{inspect(reason)}")
        {:noreply, start_timer(@retry_ms, state)}
    end
  end

  # A user's keyholder may leave answers behind that it no longer waits for.
  def handle_info(_stray, state), do: {:noreply, state}

  defp open({:keyholder, module, args}) do
    with {:ok, held} <- module.init(args.()),
         {:ok, keyring} <- Native.keyring_external(module.public_key(held)),
         do: {:ok, {module, held}, keyring}
  end

  defp open(path) do
    with {:ok, keyring} <- Native.keyring_load(path), do: {:ok, nil, keyring}
  end

  # The online key signs messages that have no source engine, and for engines that say so. The identity certifies it for a day, every half day.
  defp certify(%{identity: identity} = state) do
    now = Instance.now_ms()
    serial = max(System.system_time(:microsecond), state.serial + 1)

    body =
      Native.announcement(:cert, %{
        realm_id: identity.realm_id,
        key: Native.keyring_online_public(identity.keyring),
        not_before: now,
        not_after: now + @certificate_ms,
        serial: serial
      })

    case signature(:cert, body, state) do
      {{:ok, signature}, state} ->
        {:ok, start_timer(@renew_ms, %{state | certificate: body <> signature, serial: serial})}

      {{:error, reason}, _state} ->
        {:stop, {:shutdown, reason}}
    end
  end

  defp start_timer(ms, state) do
    if state.timer, do: :erlang.cancel_timer(state.timer)
    %{state | timer: :erlang.start_timer(ms, self(), :certify)}
  end

  # It runs on all the same: peers that don't know yet are told so.
  defp warn_if_revoked(keyring, name) do
    with {_key, _rotations, true} <- Native.keyring_identity(keyring) do
      Telemetry.log(:warning, {:revoked, name}, "this realm's key was revoked: no peer will let it in")
    end
  end

  defp signature(purpose, body, %{holder: nil, identity: identity} = state),
    do: {Native.keyring_sign(identity.keyring, identity.network, purpose, body), state}

  defp signature(purpose, body, %{holder: holder, identity: identity} = state) do
    request = %{
      network_id: identity.network_id,
      body: body,
      input: Native.signing_input(identity.network, purpose, body)
    }

    {result, holder} = ask(state.name, holder, purpose, request)
    {result, %{state | holder: holder}}
  end

  @doc false
  # A user's module that fails must not take the instance with it: it has refused, no more.
  @spec ask(atom, {module, term}, purpose, map) :: {{:ok, <<_::512>>} | {:error, term}, {module, term}}
  def ask(name, {module, held}, purpose, request) do
    case module.sign(purpose, request, held) do
      {:ok, <<signature::binary-size(64)>>, held} -> {{:ok, signature}, {module, held}}
      {:error, reason, held} -> {{:error, reason}, {module, held}}
    end
  catch
    kind, reason ->
      Telemetry.log(
        :error,
        {:keyholder, name},
        "#{inspect(module)} failed: #{failure(kind, reason)}"
      )

      {{:error, :keyholder}, {module, held}}
  end

  # Its message may hold what must not be logged.
  defp failure(:error, reason), do: inspect(Exception.normalize(:error, reason).__struct__)
  defp failure(kind, _reason), do: Atom.to_string(kind)

  # Crash dumps and :sys.get_status show neither handles nor the user's state.
  @impl true
  def format_status(_reason, [_dictionary, state]), do: [data: [{~c"State", %{name: state.name, secrets: :hidden}}]]
end
