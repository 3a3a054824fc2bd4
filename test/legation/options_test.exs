defmodule Legation.OptionsTest do
  use ExUnit.Case, async: true

  alias Legation.Carriers.{Memory, Tcp, Unix}
  alias Legation.Options
  alias Legation.Options.Peer

  @key <<1::256>>
  @key_text "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"

  defmodule Carrier do
    def default_profile, do: :tls
  end

  defp options(opts \\ []), do: Options.new!(Keyword.merge([realm: "alice", key: "alice.pem"], opts))
  defp peer(opts), do: hd(options(peers: [Keyword.merge([realm: "bob", key: @key], opts)]).peers)

  defp refused(opts) do
    {:error, message} = Options.validate(Keyword.merge([realm: "alice", key: "alice.pem"], opts))
    message
  end

  defp refused_peer(opts), do: refused(peers: [Keyword.merge([realm: "bob", key: @key], opts)])

  test "a realm and a key are enough, and all else has a default" do
    assert %Options{name: Legation, listen: [], peers: [], import: :default, global: true, network_key: nil} =
             options = options()

    assert %{
             message_bytes_max: 8_388_608,
             overflow: :newest,
             engine_queue_max: :infinity,
             engine_queue_bytes_max: 8_388_608
           } = options.limits

    assert map_size(options.limits) == 41
  end

  test "a peer has the number of its links, and limits of its own where it is said so" do
    peer = fn opts ->
      with {:ok, %{peers: [peer]}} <-
             Options.validate(realm: "alice", key: "a.pem", peers: [[realm: "bob", key: <<1::256>>] ++ opts]),
           do: {:ok, peer}
    end

    assert {:ok, %{links: 1, limits: limits}} = peer.([])
    assert limits == %{}
    for good <- 1..4, do: assert({:ok, %{links: ^good}} = peer.(links: good))
    for bad <- [0, 5, :all, nil], do: assert({:error, "expected :links " <> _} = peer.(links: bad))
    own = [grace_ms: 0, resume_bytes_max: 1, queue_bytes_max: 2, engine_queue_bytes_max: :infinity, overflow: :oldest]
    assert {:ok, %{limits: limits}} = peer.(limits: own)
    assert limits == Map.new(own)
    assert {:error, "expected :grace_ms " <> text} = peer.(limits: [grace_ms: -1])
    assert text =~ "in limits in peer \"bob\""
    assert {:error, text} = peer.(limits: [ping_ms: 1])
    assert text =~ "ping_ms"
  end

  test "how messages are signed, and what is taken, is said for all peers or for one" do
    options = options(peers: [[realm: "bob", key: @key, signing: :delegated]], accept_signing: [:engine])
    assert %{signing: :engine, accept_signing: [:engine], peers: [bob]} = options
    assert %{signing: :delegated, accept_signing: nil} = bob
    assert %{signing: :delegated, accept_signing: [:engine]} = Options.of_session(options, bob)
    assert %{signing: :engine, accept_signing: [:engine]} = Options.of_session(options)
    assert %{signing: :engine, accept_signing: [:engine, :delegated]} = options()
    assert refused(signing: :fast) =~ "expected :signing to be :engine or :delegated or :checkpoint, got: :fast"
    assert refused_peer(signing: :fast) =~ "(in peer \"bob\")"

    for bad <- [:engine, [], [:delegated], [:engine, :fast]],
        do:
          assert(
            refused_peer(accept_signing: bad) =~ "expected :accept_signing to be a list of :engine, which is always"
          )
  end

  test "what is missing, unknown or there twice is named" do
    assert Options.validate([]) == {:error, "required option :realm is missing"}
    assert Options.validate(realm: "alice") == {:error, "required option :key is missing"}
    assert refused(lisen: []) =~ "unknown option :lisen; known are :name, :realm,"
    assert refused(foo: 1, bar: 2) =~ "unknown options :foo, :bar"
    assert refused([{:global, :off}, {:global, true}]) == "option :global is there twice"
    assert {:error, "expected a keyword list" <> _} = Options.validate(%{realm: "alice"})
    assert_raise ArgumentError, ~r/unknown option :lisen/, fn -> options(lisen: []) end
  end

  test "what was checked once passes as it is" do
    assert Options.new!(options()) == options()
  end

  test "a realm's name has the rules of names" do
    for bad <- ["", "a@b", "a\n", "a\u0085", String.duplicate("a", 256), <<255>>, :alice, nil],
        do: assert(refused(realm: bad) =~ "expected :realm to be a name of 1 to 255 bytes")

    assert options(realm: String.duplicate("é", 127)).realm == String.duplicate("é", 127)
    assert refused_peer(realm: "b@b") =~ ~s(got: "b@b" \(in peers\))
  end

  test "a key that was given instead of its path is not shown" do
    pem = "-----BEGIN PRIVATE KEY-----\nsecret\n"

    for bad <- [pem, <<200, 7::248>>, {:keyholder, "Mine", "secret"}],
        key <- [:key, :network_key] do
      message = refused([{key, bad}])
      assert message =~ "expected :#{key} to be a path"
      refute message =~ "secret"
      refute message =~ "200"
    end
  end

  test "a keyholder's arguments are not shown when options are inspected" do
    options = options(key: {:keyholder, MyKeyholder, pin: "secret"})
    assert {:keyholder, MyKeyholder, args} = options.key
    assert args.() == [pin: "secret"]
    refute inspect(options) =~ "secret"
    # Nor as Erlang's own reports print them, nor in a child specification.
    refute inspect(options, structs: false) =~ "secret"
    spec = Legation.child_spec(realm: "alice", key: {:keyholder, MyKeyholder, pin: "secret"})
    refute to_string(:io_lib.format("~p", [spec])) =~ "secret"
  end

  test "modules whose atoms are to be there are loaded when the instance starts" do
    # A module of OTP's that nothing here uses.
    :code.purge(:dets_v9)
    :code.delete(:dets_v9)
    refute :code.is_loaded(:dets_v9)
    dir = Path.join(System.tmp_dir!(), "legation-atoms-#{System.unique_integer([:positive])}")
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)
    key = Path.join(dir, "a.pem")
    {:ok, _public} = Legation.Native.keyring_generate(key)
    start_supervised!({Legation, name: AtomsTest, realm: "alice", key: key, atoms: [:dets_v9]})
    assert :code.is_loaded(:dets_v9)
    assert refused(atoms: :dets_v9) =~ "expected :atoms to be a list of modules"
  end

  test "limits are merged with their defaults, from a list or a map" do
    limits = options(limits: [calls_max: 3]).limits
    assert limits.calls_max == 3 and limits.callers_max == 65_536
    assert options(limits: limits).limits == limits
  end

  test "a limit that can't be meant is refused with what it should be" do
    assert refused(limits: [calls_max: 0]) == "expected :calls_max to be a positive integer, got: 0 (in limits)"
    assert refused(limits: [message_bytes_max: 2_000_000_000]) =~ "an integer from 1 to 1073741824"

    assert refused(limits: [overflow: :oldst]) =~
             "expected :overflow to be :newest or :oldest or :disconnect, got: :oldst"

    assert refused(limits: [engine_queue_max: nil]) =~ "a positive integer or :infinity"
    assert refused(limits: [reconnect_min_ms: 40_000]) =~ "expected :reconnect_max_ms to be at least"
    assert refused(limits: [call_max: 1]) =~ "unknown option :call_max in limits"
    assert refused(limits: 5) =~ "expected a keyword list"
    assert options(limits: [knock_boot_ms: 0]).limits.knock_boot_ms == 0
  end

  test "addresses get their carrier's module, its profile and the send timeout" do
    options =
      options(
        listen: [
          tcp: [port: 0],
          tcp: [port: 1, ip: "127.0.0.1", profile: :plain],
          unix: [path: "/x.sock", uids: [0]],
          memory: [name: {:any, :term}, id: :m],
          "Elixir.Legation.OptionsTest.Carrier": [device: 7]
        ],
        limits: [send_timeout_ms: 77]
      )

    assert [{Tcp, tcp}, {Tcp, plain}, {Unix, unix}, {Memory, memory}, {Carrier, own}] = options.listen
    assert Enum.map([tcp, plain, unix, memory, own], & &1[:profile]) == [:tls, :plain, :local, :local, :tls]
    assert plain[:ip] == {127, 0, 0, 1}
    assert own[:device] == 7
    assert Enum.all?(options.listen, fn {_carrier, opts} -> opts[:send_timeout_ms] == 77 end)
  end

  test "an address that leads nowhere is refused with its place" do
    assert refused(listen: [tcp: [port: 65_536]]) ==
             "expected :port to be an integer from 0 to 65535, got: 65536 (in listen: :tcp)"

    assert refused_peer(connect: [tcp: [host: "x", port: 0]]) =~ ~s(got: 0 \(in connect: :tcp in peer "bob"\))
    assert refused_peer(connect: [tcp: [port: 1]]) =~ "required option :host is missing"
    assert refused_peer(connect: [tcp: [host: "a b", port: 1]]) =~ "expected :host"
    assert refused(listen: [tcp: [prot: 0]]) =~ "unknown option :prot in listen: :tcp"
    assert refused(listen: [tcp: [port: 0, ip: "::1::"]]) =~ "expected :ip to be an IP address"
    assert refused(listen: [tcp: [port: 0, ip: {1, 2, 3}]]) =~ "expected :ip"
    assert refused(listen: [unix: [path: "/" <> String.duplicate("x", 107)]]) =~ "at most 107 bytes"
    assert refused(listen: [unix: [path: "/x", uids: ["root"]]]) =~ "expected :uids to be :any or a list of user ids"
    assert refused(listen: [memory: []]) =~ "required option :name is missing in listen: :memory"
    assert refused(listen: [quic: [port: 1]]) =~ "expected :listen to be a carrier"
    assert refused(listen: [{Enum, []}]) =~ "expected :listen to be a carrier"
    assert refused(listen: [:tcp]) =~ "expected :listen to be a list of {carrier, options}"
    assert refused(listen: :tcp) =~ "expected :listen to be a list of {carrier, options}"
    assert refused(listen: [tcp: [port: 0, send_timeout_ms: 0]]) =~ "expected :send_timeout_ms"
  end

  test "bytes are left as they are only where the system vouches for the other end" do
    assert refused(listen: [tcp: [port: 0, profile: :local]]) =~ "expected :profile to be :tls or :plain, got: :local"
    assert refused(listen: [{Carrier, profile: :local}]) =~ "expected :profile to be :tls or :plain"
    assert options(listen: [unix: [path: "/x", profile: :tls]])
  end

  test "no two listeners have one id, not even a number that stands for a place in the list" do
    assert refused(listen: [tcp: [port: 0, id: :a], tcp: [port: 0, id: :a]]) =~ "got twice: :a"
    assert refused(listen: [tcp: [port: 0], tcp: [port: 0, id: 0]]) =~ "got twice: 0"
  end

  test "a host that is an address is one before it is dialled" do
    assert [{Tcp, opts}] = peer(connect: [tcp: [host: "::1", port: 4040]]).connect
    assert opts[:host] == {0, 0, 0, 0, 0, 0, 0, 1}
    assert [{Tcp, opts}] = peer(connect: [tcp: [host: "bob.example", port: 4040]]).connect
    assert opts[:host] == "bob.example"
  end

  test "a key's text form is read and written" do
    assert Options.format_key(@key) == @key_text
    assert Options.parse_key!(@key_text) == @key
    assert peer(key: @key_text).key == @key
  end

  test "a key in any other form is refused" do
    other_bits = String.replace_suffix(@key_text, "E", "F")

    for bad <- [other_bits, @key_text <> "=", @key_text <> "\n", "ed25519:AAAA", "AAAA", "", nil, 5] do
      assert refused_peer(key: bad) =~ "expected :key to be"
      assert_raise ArgumentError, fn -> Options.parse_key!(bad) end
    end
  end

  test "a peer exports nothing and may call, cast and send unless it is said" do
    assert %Peer{export: [], allow: [:call, :cast, :send, :monitor], filter: nil, connect: [], realm_id: nil} = peer([])
  end

  test "exported engines have what is theirs" do
    filter = fn _message -> true end

    assert peer(export: ["ping", :pong, {"store", allow: [:call], filter: filter}]).export == [
             {"ping", [allow: nil, filter: nil]},
             {"pong", [allow: nil, filter: nil]},
             {"store", [allow: [:call], filter: filter]}
           ]

    assert peer(export: :all).export == :all
  end

  test "a peer's rights are refused when they can't be meant" do
    assert refused_peer(export: ["a@b"]) =~ "expected :export to be a list of engines"
    assert refused_peer(export: ["a", :a]) =~ ~s(got twice: "a")
    assert refused_peer(export: nil) =~ "expected :export to be :all or a list"
    assert refused_peer(export: [{"a", alow: []}]) =~ ~s(unknown option :alow in export: "a" in peer "bob")
    assert refused_peer(export: [{"a", allow: [:kill]}]) =~ "expected :allow to be a list of :call, :cast"
    assert refused_peer(allow: :call) =~ "expected :allow"
    assert refused_peer(filter: fn -> true end) =~ "expected :filter to be nil, a function of one argument"
    assert refused_peer(reasons: :all) =~ "expected :reasons to be :class or :full, got: :all"
    assert peer(reasons: :full).reasons == :full
  end

  test "peers differ in name and key, and none is ourselves" do
    assert refused(peers: [[realm: "alice", key: @key]]) =~ "not to be our own"
    assert refused(peers: [[realm: "b", key: @key], [realm: "b", key: <<2::256>>]]) =~ "differ in their realm"

    assert refused(peers: [[realm: "b", key: @key], [realm: "c", key: @key]]) =~
             ~s(differ in their key, got the same for: "b", "c")
  end

  test "imports are full names" do
    assert options(import: ["ping@bob", {"pong@bob", as: :pong}]).import == ["ping@bob", {"pong@bob", [as: :pong]}]
    for import <- [:all, :none, :default], do: assert(options(import: import).import == import)

    for bad <- [["ping"], ["@bob"], ["a@b@c"], [{"ping@bob", as: nil}], [{"ping@bob", to: :x}], "ping@bob"],
        do: assert(refused(import: bad) =~ "expected :import to be")
  end

  test "global names are on, off, or have a suffix" do
    for global <- [true, :off, {:suffix, "@here"}], do: assert(options(global: global).global == global)

    for bad <- [false, {:suffix, ""}, {:suffix, :x}],
        do: assert(refused(global: bad) =~ "expected :global to be true, :off")
  end
end
