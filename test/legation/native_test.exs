defmodule Legation.NativeTest do
  use ExUnit.Case, async: true

  alias Legation.Native

  @network_id "legation/1/network-id"

  setup do
    dir = Path.join(System.tmp_dir!(), "legation-native-#{System.pid()}-#{System.unique_integer([:positive])}")
    File.mkdir!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)
    %{dir: dir}
  end

  defp path(%{dir: dir}, name), do: Path.join(dir, name)

  defp keyring(context, name \\ "a.pem") do
    {:ok, _public} = Native.keyring_generate(path(context, name))
    {:ok, keyring} = Native.keyring_load(path(context, name))
    keyring
  end

  defp no_network do
    {:ok, network} = Native.network_load(nil)
    network
  end

  @settings %{
    knock: false,
    message_bytes_max: 1_024,
    engines_max: 8,
    queue_bytes_max: 4_096,
    resume_bytes_max: 4_096,
    credit_bytes: 65_536,
    fragment_bytes: 65_536,
    message_ttl_ms: :infinity,
    room_waiters_max: 16,
    engine_queue_bytes_max: :infinity,
    calls_max: 8,
    callers_max: 8,
    handles_max: 8,
    references_max: 8,
    handshake_ms: 1_000,
    ping_ms: 1_000,
    failures_max: 10,
    depth_max: 256,
    failures_window_ms: 1_000,
    overflow: :newest,
    checkpoint_ms: 5,
    checkpoint_patience_ms: 1_000,
    unproven_messages_max: 1_000,
    unproven_bytes_max: 1_048_576,
    signing: :engine,
    accept_signing: [:engine, :delegated]
  }

  # What the border refuses is an error of the caller, in one of two forms.
  defp refused(fun) do
    flunk("expected an error, got: #{inspect(fun.())}")
  rescue
    error in [ArgumentError, ErlangError] -> error
  end

  # PKCS#8 of an Ed25519 key (RFC 8410), up to the 32 bytes of the seed.
  @pkcs8 <<0x302E020100300506032B657004220420::128>>
  defp pem(der), do: "-----BEGIN PRIVATE KEY-----\n#{Base.encode64(der)}\n-----END PRIVATE KEY-----\n"

  describe "keyring_generate" do
    test "makes a file that only we can read, with a key that is another each time", context do
      assert {:ok, <<one::binary-size(32)>>} = Native.keyring_generate(path(context, "a.pem"))
      assert {:ok, <<other::binary-size(32)>>} = Native.keyring_generate(path(context, "b.pem"))
      assert one != other
      assert Bitwise.band(File.stat!(path(context, "a.pem")).mode, 0o777) == 0o600
      {:ok, keyring} = Native.keyring_load(path(context, "a.pem"))
      assert Native.keyring_public(keyring) == one
    end

    test "never writes over a file, nor through a link to none", context do
      file = path(context, "a.pem")
      File.write!(file, "something dear")
      assert Native.keyring_generate(file) == {:error, {:key_file, :exists}}
      assert File.read!(file) == "something dear"

      File.ln_s!(path(context, "elsewhere.pem"), path(context, "link.pem"))
      assert Native.keyring_generate(path(context, "link.pem")) == {:error, {:key_file, :exists}}
      refute File.exists?(path(context, "elsewhere.pem"))
      assert Native.keyring_generate(context.dir) == {:error, {:key_file, :exists}}
    end

    test "says what is wrong with a place", context do
      assert Native.keyring_generate(path(context, "no/where.pem")) == {:error, {:key_file, :enoent}}
      assert Native.keyring_generate("") == {:error, {:key_file, :enoent}}
      assert {:error, {:key_file, _io}} = Native.keyring_generate("a\0b")
    end

    test "writes what OpenSSL reads, and reads what OpenSSL writes", context do
      openssl = System.find_executable("openssl") || flunk("openssl is not installed")

      {:ok, ours} = Native.keyring_generate(path(context, "ours.pem"))
      {der, 0} = System.cmd(openssl, ["pkey", "-in", path(context, "ours.pem"), "-pubout", "-outform", "DER"])
      assert binary_part(der, byte_size(der) - 32, 32) == ours

      theirs = path(context, "theirs.pem")
      {_, 0} = System.cmd(openssl, ["genpkey", "-algorithm", "ed25519", "-out", theirs])
      {der, 0} = System.cmd(openssl, ["pkey", "-in", theirs, "-pubout", "-outform", "DER"])
      assert {:ok, keyring} = Native.keyring_load(theirs)
      assert Native.keyring_public(keyring) == binary_part(der, byte_size(der) - 32, 32)
    end
  end

  describe "keyring_load" do
    test "reads the key of the published example", context do
      # RFC 8410, 10.3
      File.write!(path(context, "rfc.pem"), """
      -----BEGIN PRIVATE KEY-----
      MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
      -----END PRIVATE KEY-----
      """)

      assert {:ok, keyring} = Native.keyring_load(path(context, "rfc.pem"))
      public = Native.keyring_public(keyring)
      assert Base.encode16(public) == "19BF44096984CDFE8541BAC167DC3B96C85086AA30B6B6CB0C5C38AD703166E1"

      assert {^public, _seed} =
               :crypto.generate_key(
                 :eddsa,
                 :ed25519,
                 Base.decode16!("D4EE72DBF913584AD5B6D8F1F769F8AD3AFE7C28CBF1D4FBE097A88F44755842")
               )
    end

    test "refuses what is no such key and shows nothing of it", context do
      file = path(context, "bad.pem")
      seed = :binary.copy(<<7>>, 32)

      for bad <- [
            "",
            "not a key",
            <<0, 255, 200>>,
            :crypto.strong_rand_bytes(1_000),
            seed,
            pem(<<>>),
            pem(seed),
            pem(@pkcs8),
            pem(@pkcs8 <> binary_part(seed, 0, 31)),
            pem(@pkcs8 <> seed <> <<0>>),
            # X25519 instead of Ed25519: OID 1.3.101.110
            pem(<<0x302E020100300506032B656E04220420::128>> <> seed),
            String.replace(pem(@pkcs8 <> seed), "PRIVATE", "PUBLIC"),
            String.duplicate("-----BEGIN PRIVATE KEY-----\n", 1_000)
          ] do
        File.write!(file, bad)

        assert Native.keyring_load(file) == {:error, {:key_file, :not_pkcs8_ed25519}} or
                 match?({:error, {:key_file, :io}}, Native.keyring_load(file))
      end

      File.write!(file, pem(@pkcs8 <> seed))
      assert {:ok, _keyring} = Native.keyring_load(file)
    end

    test "says what is wrong with a file", context do
      assert Native.keyring_load(path(context, "none.pem")) == {:error, {:key_file, :enoent}}
      assert {:error, {:key_file, :io}} = Native.keyring_load(context.dir)
      assert {:error, {:key_file, _io}} = Native.keyring_load("a\0b")
    end
  end

  describe "signatures" do
    test "are Ed25519 over the protocol's bytes, for each purpose", context do
      keyring = keyring(context)
      File.write!(path(context, "net.key"), :binary.copy(<<9>>, 32))
      {:ok, network} = Native.network_load(path(context, "net.key"))

      for purpose <- [:link, :hello, :cert, :learn, :forget], body <- ["", "body", :binary.copy("b", 100_000)] do
        input = Native.signing_input(network, purpose, body)
        # protocol.md 3.1
        assert input == "legation/1/#{purpose}" <> <<0>> <> Native.network_id(network) <> Native.blake3(body)
        assert {:ok, signature} = Native.keyring_sign(keyring, network, purpose, body)
        assert :crypto.verify(:eddsa, :none, input, signature, [Native.keyring_public(keyring), :ed25519])
      end
    end

    test "are made for no other purpose", context do
      keyring = keyring(context)

      for purpose <- [:batch, :rotate, :other, nil, "link", 1],
          do: refused(fn -> Native.keyring_sign(keyring, no_network(), purpose, "body") end)
    end

    test "are not made by who holds no key, and the purpose is said", context do
      public = Native.keyring_public(keyring(context))
      assert {:ok, external} = Native.keyring_external(public)
      assert Native.keyring_public(external) == public
      assert Native.keyring_sign(external, no_network(), :hello, "body") == {:error, {:external, :hello}}
    end
  end

  describe "engine keys" do
    test "are one per name and others after a restart", context do
      keyring = keyring(context)
      {:ok, again} = Native.keyring_load(path(context, "a.pem"))
      ping = Native.keyring_engine_public(keyring, "ping")
      assert Native.keyring_engine_public(keyring, "ping") == ping
      assert Native.keyring_engine_public(keyring, "pong") != ping
      assert Native.keyring_online_public(keyring) == Native.keyring_online_public(keyring)

      keys = [
        ping,
        Native.keyring_online_public(keyring),
        Native.keyring_public(keyring),
        Native.keyring_online_public(again)
      ]

      assert Enum.uniq(keys) == keys
      for key <- keys, do: assert(Native.key_check(key) == :ok)
    end
  end

  describe "networks" do
    test "are 32 bytes or 64 digits in either case and perhaps a newline", context do
      key = Enum.into(0xA0..0xBF, <<>>, &<<&1>>)
      digits = Base.encode16(key)

      ids =
        for content <- [key, digits, String.downcase(digits), digits <> "\n", digits <> "\r\n"] do
          File.write!(path(context, "net.key"), content)
          assert {:ok, network} = Native.network_load(path(context, "net.key"))
          Native.network_id(network)
        end

      assert [id] = Enum.uniq(ids)
      assert byte_size(id) == 32
      assert id != Native.network_id(no_network())
      assert Native.network_id(no_network()) == <<0::256>>
      # Derived, and not merely hashed.
      assert id != Native.blake3(@network_id <> key)
    end

    test "are nothing else", context do
      digits = String.duplicate("0", 64)

      for bad <- [
            "",
            <<0::248>>,
            <<0::264>>,
            digits <> "0",
            String.slice(digits, 1, 63),
            String.duplicate("g", 64),
            " " <> digits,
            "+" <> String.slice(digits, 1, 63)
          ] do
        File.write!(path(context, "net.key"), bad)
        assert Native.network_load(path(context, "net.key")) == {:error, {:network_key_file, :not_a_network_key}}
      end

      assert Native.network_load(path(context, "none")) == {:error, {:network_key_file, :enoent}}
    end
  end

  describe "key_check" do
    test "accepts a key and refuses what 2.6 does", context do
      assert Native.key_check(Native.keyring_public(keyring(context))) == :ok
      # The neutral element, the point of order 2, and points of order 4 and 8.
      order_8 = Base.decode16!("26E8958FC2B227B045C3F489F2EF98F0D5DFAC05D3C63339B13802886D53FC05")

      for weak <- [<<1, 0::248>>, <<0xEC, :binary.copy(<<0xFF>>, 30)::binary, 0x7F>>, <<0::256>>, order_8],
          do: assert({:error, {:bad_key, _reason}} = Native.key_check(weak))

      # y = p + 1, another spelling of 1; and a y that is on no point.
      assert {:error, {:bad_key, _reason}} = Native.key_check(<<0xEE, :binary.copy(<<0xFF>>, 30)::binary, 0x7F>>)
      assert {:error, {:bad_key, :not_a_point}} = Native.key_check(<<2, 0::248>>)
    end
  end

  describe "announcements" do
    @realm_id :binary.copy(<<1>>, 32)
    @key :binary.copy(<<2>>, 32)
    @learn %{
      realm_id: @realm_id,
      name: "ping",
      key: @key,
      serial: 3,
      not_before: 4,
      not_after: 5,
      version: 6,
      ops: 7,
      delegate: false
    }

    test "of an engine are the bytes of 11.1" do
      fields =
        @realm_id <>
          <<4>> <>
          "ping" <> @key <> <<3::little-64, 4::little-64, 5::little-64, 6::little-32, 7::little-16>>

      assert Native.announcement(:learn, @learn) == fields <> <<0::16>>
      assert Native.announcement(:learn, %{@learn | delegate: true}) == fields <> <<4::little-16, 1::little-16, 0::16>>
    end

    test "of its end are the bytes of 11.2, with each reason" do
      for {reason, number} <- [withdrawn: 0, normal: 1, shutdown: 2, killed: 3, crashed: 4] do
        assert Native.announcement(:forget, %{realm_id: @realm_id, name: "ping", serial: 3, reason: reason}) ==
                 @realm_id <> <<4>> <> "ping" <> <<3::little-64, number>>
      end
    end

    test "of the online key are the bytes of 11.3" do
      assert Native.announcement(:cert, %{realm_id: @realm_id, key: @key, serial: 3, not_before: 4, not_after: 5}) ==
               <<1>> <> @realm_id <> @key <> <<4::little-64, 5::little-64, 3::little-64>>
    end

    test "hold names of 1 to 255 bytes without @ and control characters" do
      for good <- ["p", String.duplicate("p", 255), String.duplicate("é", 127)] do
        body = Native.announcement(:learn, %{@learn | name: good})
        assert binary_part(body, 32, 1 + byte_size(good)) == <<byte_size(good)>> <> good
      end

      for bad <- [
            "",
            String.duplicate("p", 256),
            String.duplicate("é", 128),
            "a@b",
            "a\nb",
            "a\u0085b",
            <<255>>,
            :ping,
            nil
          ],
          do: refused(fn -> Native.announcement(:learn, %{@learn | name: bad}) end)
    end

    test "have all their fields, in their bounds" do
      for {field, value} <- [
            serial: 0xFFFFFFFFFFFFFFFF,
            version: 0xFFFFFFFF,
            ops: 0xFFFF,
            not_after: 0xFFFFFFFFFFFFFFFF
          ] do
        assert is_binary(Native.announcement(:learn, %{@learn | field => value}))

        for bad <- [value + 1, -1, 1.5, nil, "1"],
            do: refused(fn -> Native.announcement(:learn, %{@learn | field => bad}) end)
      end

      for field <- Map.keys(@learn),
          do: refused(fn -> Native.announcement(:learn, Map.delete(@learn, field)) end)

      for bad <- [:rotate, "learn", nil], do: refused(fn -> Native.announcement(bad, @learn) end)
      refused(fn -> Native.announcement(:learn, %{@learn | realm_id: <<1::248>>}) end)

      refused(fn ->
        Native.announcement(:forget, %{realm_id: @realm_id, name: "p", serial: 1, reason: :bored})
      end)
    end
  end

  describe "scan" do
    test "accepts what is data" do
      for term <- [
            1,
            -1,
            1.5,
            :atom,
            "bin",
            [],
            [1 | 2],
            ~c"text",
            {},
            {1, 2},
            %{a: 1},
            <<1::3>>,
            2 ** 200,
            Enum.to_list(1..1_000)
          ] do
        # A bit string has a tag of its own (77), and is data, too.
        assert Native.scan(:erlang.term_to_binary(term)) == :ok, inspect(term)
      end
    end

    test "refuses identifiers, wherever they are" do
      for term <- [
            self(),
            make_ref(),
            hd(Port.list()),
            &is_atom/1,
            fn -> :ok end,
            {1, [self()]},
            %{self() => 1},
            %{1 => make_ref()}
          ],
          do: assert({:error, {:identifiers, _offset}} = Native.scan(:erlang.term_to_binary(term)))
    end

    test "refuses what is compressed, cut short, or longer than it says" do
      term = :erlang.term_to_binary({"ping", [1, 2, 3], %{a: 1.5}})

      for bytes <- 0..(byte_size(term) - 1),
          do: assert({:error, {:bad_term, _}} = Native.scan(binary_part(term, 0, bytes)))

      assert {:error, {:bad_term, _}} = Native.scan(term <> <<0>>)
      compressed = :erlang.term_to_binary(:binary.copy("a", 10_000), [:compressed])
      assert <<131, 80, _::binary>> = compressed
      assert {:error, {:bad_term, _}} = Native.scan(compressed)
    end

    test "refuses counts that nothing stands behind" do
      # List, tuple, map, binary, big integer: of 2^32 - 1.
      for tag <- [108, 105, 116, 109, 111],
          count <- [0xFFFFFFFF, 0x80000000, 1_000_000],
          do: assert({:error, {:bad_term, _}} = Native.scan(<<131, tag, count::32>>))
    end

    test "goes as deep as 256 and no deeper" do
      nested = fn depth -> Enum.reduce(1..depth, 1, fn _, inner -> {inner} end) |> :erlang.term_to_binary() end
      depths = for depth <- 250..260, Native.scan(nested.(depth)) == :ok, do: depth
      assert List.last(depths) in [255, 256]
      assert depths == Enum.to_list(250..List.last(depths))
      assert {:error, {:bad_term, _}} = Native.scan(nested.(200_000))
    end

    test "never fails otherwise, whatever it is given" do
      for _ <- 1..2_000 do
        bytes = <<131>> <> :crypto.strong_rand_bytes(:rand.uniform(64))

        case Native.scan(bytes) do
          :ok -> :erlang.binary_to_term(bytes)
          {:error, {kind, offset}} -> assert kind in [:bad_term, :identifiers] and offset <= byte_size(bytes)
        end
      end
    end
  end

  describe "bad arguments" do
    @rubbish [nil, :atom, "text", 1, -1, 1.5, [], {}, %{}, ~c"list"]

    test "are an error of the caller in every function, and the VM lives", context do
      keyring = keyring(context)

      {:ok, channel} =
        Native.channel_connect(:local, keyring, no_network(), Native.keyring_public(keyring), @settings, 0, nil, false)

      functions =
        for {name, arity} <- Native.__info__(:functions), arity > 0, name not in [:keyring_generate], do: {name, arity}

      assert length(functions) > 35
      resources = [keyring, no_network(), channel, make_ref(), self()]

      for {name, arity} <- functions, rubbish <- @rubbish ++ resources do
        args = List.duplicate(rubbish, arity)
        # A path, a payload or bytes may be any text; whatever is taken answers with a value.
        try do
          apply(Native, name, args)
        rescue
          _error in [ArgumentError, ErlangError] -> :refused
        end
      end

      # One argument right, the others not.
      for {name, arity} <- functions, arity > 1, first <- [keyring, channel], rubbish <- @rubbish do
        try do
          apply(Native, name, [first | List.duplicate(rubbish, arity - 1)])
        rescue
          _error in [ArgumentError, ErlangError] -> :refused
        end
      end

      assert <<_::256>> = Native.blake3("alive")
    end

    test "are keys that aren't 32 bytes" do
      for bytes <- [0, 31, 33, 64],
          function <- [:key_check, :realm_id, :keyring_external],
          do: refused(fn -> apply(Native, function, [:binary.copy(<<1>>, bytes)]) end)
    end

    test "are settings that lack one or have one past its type", context do
      keyring = keyring(context)

      connect = fn settings ->
        Native.channel_connect(:local, keyring, no_network(), Native.keyring_public(keyring), settings, 0, nil, false)
      end

      assert {:ok, _channel} = connect.(@settings)
      for name <- Map.keys(@settings), do: refused(fn -> connect.(Map.delete(@settings, name)) end)

      assert {:ok, _channel} = connect.(%{@settings | engine_queue_bytes_max: 1})

      for {name, bad} <- [
            message_bytes_max: 0x100000000,
            engines_max: -1,
            engine_queue_bytes_max: -1,
            engine_queue_bytes_max: :none,
            overflow: :block,
            knock: 1,
            ping_ms: -1
          ],
          do: refused(fn -> connect.(%{@settings | name => bad}) end)
    end

    test "are profiles that there aren't, and a knock on one that has none", context do
      keyring = keyring(context)
      public = Native.keyring_public(keyring)

      for bad <- [:quic, nil, "tls"],
          do:
            refused(fn ->
              Native.channel_connect(bad, keyring, no_network(), public, @settings, 0, nil, false)
            end)

      assert {:error, {:channel, _}} =
               Native.channel_connect(:local, keyring, no_network(), public, %{@settings | knock: true}, 0, nil, false)

      assert {:error, {:channel, :knock_required}} =
               Native.channel_accept(:tls, keyring, no_network(), nil, %{@settings | knock: true}, 0)
    end

    test "are slices that are larger than one is", context do
      keyring = keyring(context)
      {:ok, channel} = Native.channel_accept(:local, keyring, no_network(), nil, @settings, 0)
      assert Native.channel_handle_slice(channel, :binary.copy(<<0>>, 65_536), 0) == :dirty
      refused(fn -> Native.channel_handle_slice(channel, :binary.copy(<<0>>, 65_537), 0) end)
    end

    test "are receipts that prove nothing", context do
      public = Native.keyring_public(keyring(context))

      for receipt <- ["", <<1>>, <<0::8_000>>, :crypto.strong_rand_bytes(1_000)],
          do:
            assert({:error, {:receipt, words}} = Native.verify_receipt(receipt, public, <<0::256>>)) &&
              assert(is_binary(words))
    end
  end

  describe "channels" do
    test "that are given rubbish fault and say no more", context do
      keyring = keyring(context)

      for profile <- [:tls, :local, :plain] do
        {:ok, channel} = Native.channel_accept(profile, keyring, no_network(), nil, @settings, 0)
        {events, _wake, :done} = Native.channel_handle_bytes(channel, :binary.copy(<<255>>, 10_000), 0)
        assert Enum.any?(events, &match?({:fault, _code, _detail}, &1)), "#{profile}: #{inspect(events)}"
        assert {[], _wake, :done} = Native.channel_handle_bytes(channel, :binary.copy(<<255>>, 10_000), 0)
      end
    end

    test "give up after their time, at the limit and not before", context do
      keyring = keyring(context)

      for profile <- [:tls, :local, :plain] do
        {:ok, channel} = Native.channel_accept(profile, keyring, no_network(), nil, @settings, 5_000)
        assert {[], _wake, 1_000} = Native.channel_timeout(channel, 5_000)
        assert {[], _wake, 1} = Native.channel_timeout(channel, 5_999)
        assert {[{:fault, :timeout, _detail}], _wake, nil} = Native.channel_timeout(channel, 6_000)
        assert {[], _wake, nil} = Native.channel_timeout(channel, 6_001)
      end
    end

    test "can be used from many processes at once", context do
      keyring = keyring(context)
      {:ok, channel} = Native.channel_accept(:local, keyring, no_network(), nil, @settings, 0)

      1..20
      |> Enum.map(fn n ->
        Task.async(fn ->
          for _ <- 1..50 do
            Native.channel_handle_bytes(channel, <<n>>, 0)
            Native.channel_flush(channel, 0)
            Native.channel_timeout(channel, 0)
            Native.channel_close(channel, :normal, "")
          end
        end)
      end)
      |> Task.await_many()
    end
  end
end
