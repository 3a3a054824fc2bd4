defmodule Legation.VectorsTest do
  # test/vectors/*.txt, checked from here: with OTP's crypto, a BLAKE3 of our own, and docs/protocol.md read once more. What Rust
  # says of the same files is in rust_tests/tests/vectors.rs.
  use ExUnit.Case, async: true

  alias Legation.{Blake3, Native, Options}

  @dir Path.expand("../vectors", __DIR__)

  # `name = hex` lines; the first of a record is `record = name`; records are separated by empty lines.
  defp records(file) do
    for text <- @dir |> Path.join(file) |> File.read!() |> String.split(~r/\n\s*\n/),
        lines = text |> String.split("\n", trim: true) |> Enum.reject(&String.starts_with?(&1, "#")),
        lines != [] do
      ["record = " <> name | fields] = lines
      {name, Map.new(fields, &field/1)}
    end
  end

  defp record(file, name), do: file |> records() |> List.keyfind!(name, 0) |> elem(1)

  defp field(line) do
    [name, value] = String.split(line, "=", parts: 2)
    {String.trim(name), value |> String.trim() |> Base.decode16!(case: :lower)}
  end

  defp number(bytes), do: :binary.decode_unsigned(bytes, :little)
  defp tagged(type, flags, body), do: <<type, flags, byte_size(body)::little-32>> <> body
  defp str8(text), do: <<byte_size(text)>> <> text

  # protocol.md 3.1
  defp input(purpose, network_id, body), do: "legation/1/#{purpose}" <> <<0>> <> network_id <> Blake3.hash(body)

  defp signed?(purpose, body, signature, public_key, network_id \\ network_id()),
    do: :crypto.verify(:eddsa, :none, input(purpose, network_id, body), signature, [public_key, :ed25519])

  defp network_id, do: record("identity.txt", "network")["network_id"]
  defp alice, do: record("identity.txt", "alice")

  defp split_signature(bytes),
    do: {binary_part(bytes, 0, byte_size(bytes) - 64), binary_part(bytes, byte_size(bytes), -64)}

  test "there are all files and each has records" do
    files = ~w(announcements answer batches frames hello identity knock plain receipts rotations signatures terms)
    for file <- files, do: assert(records(file <> ".txt") != [])

    assert @dir |> File.ls!() |> Enum.filter(&String.ends_with?(&1, ".txt")) |> Enum.sort() ==
             Enum.map(files, &(&1 <> ".txt"))
  end

  test "our BLAKE3 is BLAKE3" do
    # The first and some others of the official test vectors: bytes 0, 1, 2, … 250, again from 0.
    data = fn bytes -> 0..250 |> Stream.cycle() |> Enum.take(bytes) |> :binary.list_to_bin() end

    assert Base.encode16(Blake3.hash(""), case: :lower) ==
             "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

    for bytes <- [0, 1, 63, 64, 65, 1_023, 1_024, 1_025, 2_048, 2_049, 3_073, 5_000, 8_192],
        do: assert(Blake3.hash(data.(bytes)) == Native.blake3(data.(bytes)))
  end

  describe "identity.txt" do
    test "realms: public keys, their text, their ids" do
      for name <- ["alice", "bob"], realm = record("identity.txt", name) do
        assert {realm["public_key"], realm["seed"]} == :crypto.generate_key(:eddsa, :ed25519, realm["seed"])

        assert {realm["online_public_key"], realm["online_seed"]} ==
                 :crypto.generate_key(:eddsa, :ed25519, realm["online_seed"])

        assert Options.format_key(realm["public_key"]) == realm["text"]
        assert Options.parse_key!(realm["text"]) == realm["public_key"]
        assert Blake3.hash(realm["public_key"]) == realm["realm_id"]
        assert Native.realm_id(realm["public_key"]) == realm["realm_id"]

        for key <- ["public_key", "online_public_key", "engine_public_key"],
            do: assert(Native.key_check(realm[key]) == :ok)
      end
    end

    test "networks: what is derived from their keys" do
      dir = Path.join(System.tmp_dir!(), "legation-vectors-#{System.pid()}-#{System.unique_integer([:positive])}")
      File.mkdir!(dir)
      on_exit(fn -> File.rm_rf!(dir) end)

      %{"network_key" => key, "network_id" => id} = record("identity.txt", "network")
      assert Blake3.derive_key("legation/1/network-id", key) == id
      File.write!(Path.join(dir, "net.key"), key)
      {:ok, network} = Native.network_load(Path.join(dir, "net.key"))
      assert Native.network_id(network) == id

      {:ok, none} = Native.network_load(nil)
      assert Native.network_id(none) == record("identity.txt", "network none")["network_id"]
    end

    test "keys that are refused" do
      refused = for {"refused " <> why, %{"public_key" => key}} <- records("identity.txt"), do: {why, key}
      assert length(refused) >= 4
      # One that is wrong in two ways is refused for either.
      for {why, key} <- refused, do: assert({^why, {:error, {:bad_key, _reason}}} = {why, Native.key_check(key)})
    end
  end

  test "signatures.txt: what is signed, and by whom" do
    for {name, fields} <- records("signatures.txt") do
      purpose = name |> String.split() |> hd()
      assert input(purpose, fields["network_id"], fields["body"]) == fields["signing_input"]
      assert signed?(purpose, fields["body"], fields["signature"], fields["public_key"], fields["network_id"])
      refute signed?(purpose, fields["body"] <> "!", fields["signature"], fields["public_key"], fields["network_id"])
    end
  end

  test "announcements.txt: bodies, and frames that are signed by the realm" do
    for {name, fields} <- records("announcements.txt") do
      kind = String.to_atom(name)

      map =
        for {field, bytes} <- fields, field not in ["body", "frame"], into: %{} do
          value =
            case field do
              text when text in ["name", "realm_id", "key"] -> bytes
              "reason" -> Enum.at([:withdrawn, :normal, :shutdown, :killed, :crashed], number(bytes))
              "delegate" -> bytes == <<1>>
              _number -> number(bytes)
            end

          {String.to_atom(field), value}
        end

      assert Native.announcement(kind, map) == fields["body"]
      type = %{learn: 0x09, forget: 0x0A, cert: 0x0B}[kind]
      assert <<^type, 1, length::little-32, body::binary-size(length)>> = fields["frame"]
      {body, signature} = split_signature(body)
      assert body == fields["body"]
      assert signed?(name, body, signature, alice()["public_key"])
    end
  end

  describe "rotations.txt" do
    # protocol.md 2.7
    defp rotation(
           <<realm_id::binary-32, old::binary-32, new::binary-32, serial::little-64, time::little-64,
             signature::binary-64>>
         ),
         do: %{realm_id: realm_id, old: old, new: new, serial: serial, not_before: time, signature: signature}

    defp chain(bytes), do: for(<<record::binary-size(176) <- bytes>>, do: {record, rotation(record)})

    # protocol.md 7.4, for a chain alone.
    defp lead(realm_id, head, bytes) do
      chain = chain(bytes)
      keys = [first | _] = Enum.map(chain, fn {_record, rotation} -> rotation.old end) ++ [head]
      numbered = Enum.zip(chain, 1..17)

      cond do
        Blake3.hash(first) != realm_id or Enum.any?(chain, fn {_record, one} -> one.realm_id != realm_id end) ->
          :wrong_realm

        Enum.any?(numbered, fn {{_record, one}, n} -> one.serial != n or one.new != Enum.at(keys, n) end) ->
          :protocol

        Enum.uniq(keys) != keys ->
          :protocol

        Enum.any?(chain, fn {_record, one} -> one.not_before > 1_800_000_000_000 + 30_000 end) ->
          :expired

        Enum.any?(chain, fn {record, one} ->
          not signed?("rotate", binary_part(record, 0, 112), one.signature, one.old) or Native.key_check(one.new) != :ok
        end) ->
          :bad_signature

        true ->
          :good
      end
    end

    test "records, and what they are signed by" do
      for number <- 1..2, fields = record("rotations.txt", "rotation #{number}") do
        assert {fields["old"], fields["old_seed"]} == :crypto.generate_key(:eddsa, :ed25519, fields["old_seed"])
        assert fields["frame"] == tagged(0x0C, 1, fields["body"] <> fields["signature"])

        assert rotation(fields["body"] <> fields["signature"]) == %{
                 realm_id: fields["realm_id"],
                 old: fields["old"],
                 new: fields["new"],
                 serial: number,
                 not_before: number(fields["not_before"]),
                 signature: fields["signature"]
               }

        assert signed?("rotate", fields["body"], fields["signature"], fields["old"])
      end

      revocation = record("rotations.txt", "revocation")
      assert revocation["body"] == revocation["realm_id"] <> revocation["key"] <> <<3::little-64>>
      assert revocation["frame"] == tagged(0x0D, 1, revocation["body"] <> revocation["signature"])
      assert signed?("revoke", revocation["body"], revocation["signature"], revocation["key"])
    end

    test "hellos with the rotations, and with the revocation" do
      records = for number <- 1..2, fields = record("rotations.txt", "rotation #{number}"), do: fields
      chain = for fields <- records, into: "", do: fields["body"] <> fields["signature"]
      revocation = record("rotations.txt", "revocation")

      for {name, extensions} <- [
            {"hello", ""},
            {"hello revoked", <<0x8003::little-16, 136::little-16>> <> revocation["body"] <> revocation["signature"]}
          ] do
        fields = record("rotations.txt", name)
        tail = <<byte_size(extensions)::little-16>> <> extensions

        assert <<_head::binary-14, realm_id::binary-32, _peer::binary-32, key::binary-32, _more::binary-72,
                 2::little-16, ^chain::binary-size(352), 0::832, ^tail::binary>> = fields["body"]

        assert {realm_id, key} == {revocation["realm_id"], revocation["key"]}
        assert <<0x01, 1, _length::little-32, body::binary>> = fields["frame"]
        {body, signature} = split_signature(body)
        assert body == fields["body"]
        assert signed?("hello", body, signature, key)
      end
    end

    test "a receipt leads from the first key to the signature" do
      fields = record("rotations.txt", "receipt")
      {:ok, verified} = Native.verify_receipt(fields["receipt"], fields["first_key"], fields["network_id"])
      assert verified.payload == fields["payload"]
      assert <<2, _fixed::binary-size(170), 2::little-16, chain::binary-size(352), _rest::binary>> = fields["receipt"]
      assert lead(verified.source_realm_id, binary_part(fields["receipt"], 33, 32), chain) == :good
    end

    test "chains that are good, and those that are not" do
      chains = for {name, %{"chain" => chain} = fields} <- records("rotations.txt"), do: {name, chain, fields}
      assert length(chains) == 12

      for {name, chain, fields} <- chains do
        found = lead(fields["realm_id"], fields["identity_key"], chain)

        expected =
          if String.starts_with?(name, "good"), do: "good", else: name |> String.split([" ", ":"]) |> Enum.at(1)

        assert {name, Atom.to_string(found)} == {name, expected}
      end
    end
  end

  test "frames.txt: control frames" do
    frames = Map.new(records("frames.txt"))
    assert frames["ack"]["frame"] == tagged(0x06, 1, frames["ack"]["sequence"])
    assert frames["ping"]["frame"] == tagged(0x14, 1, frames["ping"]["token"])
    assert frames["pong"]["frame"] == tagged(0x15, 1, frames["pong"]["token"])
    resume = frames["resume"]
    assert resume["frame"] == tagged(0x02, 1, resume["session_id"] <> resume["received"] <> resume["next"])
    release = frames["handle release"]

    entries = [
      <<1>> <> release["ended"] <> release["reason"],
      <<2>> <> release["call"],
      <<3>> <> release["dropped"] <> release["dropped_count"],
      <<4>> <> release["reference"] <> release["reference_count"]
    ]

    assert release["frame"] == tagged(0x0F, 1, <<4::little-16>> <> IO.iodata_to_binary(entries))

    credit = frames["credit"]
    entries = for n <- 0..1, do: str8(credit["destination_#{n}"]) <> credit["bytes_#{n}"]
    assert credit["frame"] == tagged(0x07, 1, <<2::little-16>> <> IO.iodata_to_binary(entries))

    fragments = for n <- 0..1, do: frames["fragment #{n}"]

    for fragment <- fragments,
        do: assert(fragment["frame"] == tagged(0x05, 1, fragment["transfer"] <> fragment["total"] <> fragment["bytes"]))

    # 9.7: signed with its payload, sent without.
    staged = frames["staged batch"]
    payload = Enum.map_join(fragments, & &1["bytes"])
    assert payload == staged["payload"] and number(hd(fragments)["total"]) == byte_size(payload)
    before_payload = binary_part(staged["signed"], 0, byte_size(staged["signed"]) - byte_size(payload))
    assert staged["signed"] == before_payload <> payload
    assert staged["frame"] == tagged(0x03, 1, before_payload <> staged["transfer"] <> staged["signature"])
    assert signed?("batch", staged["signed"], staged["signature"], alice()["engine_public_key"])
    assert staged["engine"] == "ping"

    # 9.9, 12.7: a chain over batches without a signature, and one over where it has come to.
    checkpoint = frames["checkpoint"]
    session_and_source = checkpoint["session_id"] <> checkpoint["source"]

    chain =
      for n <- 0..1, reduce: Blake3.derive_key("legation/1/checkpoint", session_and_source) do
        chain ->
          assert <<0x03, 1, length::little-32, body::binary-size(length)>> = checkpoint["batch_#{n}"]
          assert binary_part(body, 106, 1) == <<3>>
          Blake3.hash(chain <> Blake3.hash(body))
      end

    covered = checkpoint["first"] <> checkpoint["last"] <> chain
    assert checkpoint["signed"] == session_and_source <> checkpoint["destination"] <> covered
    assert signed?("checkpoint", checkpoint["signed"], checkpoint["signature"], checkpoint["public_key"])
    assert checkpoint["frame"] == tagged(0x04, 1, covered <> checkpoint["signature"])

    codes = ~w(normal protocol version unlisted wrong_realm bad_signature expired duplicate timeout abuse unknown_frame
               too_large shutdown overload replaced revoked stale_key unproven)

    for {name, code} <- Enum.with_index(codes) do
      close = frames["close " <> name]
      assert close["code"] == <<code::little-16>>
      assert close["frame"] == tagged(0x16, 1, close["code"] <> str8(close["text"]))
    end

    # 6.3: an unknown type with the critical bit or without it.
    assert <<type, 0, _rest::binary>> = frames["skipped"]["frame"]
    assert type > 0x16
    assert <<^type, 1, _rest::binary>> = frames["refused unknown_frame"]["frame"]
  end

  describe "hello.txt" do
    test "hellos have their fields where 7.1 says and are signed" do
      for name <- ["plain", "tls", "resume"], hello = record("hello.txt", name) do
        profile = if name == "tls", do: 1, else: 3
        body = hello["body"]

        assert <<1, ^profile, 1::little-16, 1::little-16, 0::little-64, own::binary-size(32), peer::binary-size(32),
                 identity::binary-size(32), binding::binary-size(32), random::binary-size(32), _messages::little-32,
                 _engines::little-32, 0::16, link_key::binary-size(32), link_not_after::binary-size(8),
                 link_signature::binary-size(64), length::little-16, extensions::binary-size(length)>> = body

        # Extension 1: the session that this link is to be one of. Extension 2: the window of each engine.
        expected =
          case hello do
            %{"session_id" => session, "flags" => flags} -> <<1::little-16, 33::little-16>> <> session <> flags
            %{"credit" => window} -> <<2::little-16, 4::little-16>> <> window
            _plain -> ""
          end

        assert extensions == expected

        assert [own, peer, identity, binding, random] ==
                 Enum.map(~w(own_realm_id peer_realm_id identity_key binding random), &hello[&1])

        assert <<1, 1, length::little-32, ^body::binary-size(byte_size(body)), signature::binary-size(64)>> =
                 hello["frame"]

        assert length == byte_size(body) + 64
        assert signed?("hello", body, signature, identity)

        if name == "tls" do
          assert [link_key, link_not_after, link_signature] ==
                   Enum.map(~w(link_key link_not_after link_signature), &hello[&1])

          assert hello["link_body"] == own <> peer <> link_key <> link_not_after
          assert signed?("link", hello["link_body"], link_signature, identity)
        else
          assert {link_key, link_signature} == {<<0::256>>, <<0::512>>}
        end
      end
    end

    test "the session id" do
      session = record("hello.txt", "session")

      material =
        Enum.map_join(~w(initiator_realm_id responder_realm_id initiator_random responder_random), &session[&1])

      assert Blake3.derive_key("legation/1/session", material) == session["session_id"]
    end
  end

  test "knock.txt: knocks and their MAC" do
    for {_name, knock} <- records("knock.txt") do
      length = <<byte_size(knock["first_flight"])::little-16>>
      head = <<1, 3>> <> knock["time"] <> knock["random"]

      authenticated =
        "legation/1/knock" <>
          <<0, 3>> <> knock["time"] <> knock["random"] <> knock["responder_realm_id"] <> length <> knock["first_flight"]

      assert Blake3.keyed_hash(knock["network_key"], authenticated) == knock["mac"]
      assert knock["knock"] == head <> knock["mac"] <> length <> knock["first_flight"]
    end
  end

  test "answer.txt: answers and their MAC" do
    for {_name, answer} <- records("answer.txt") do
      length = <<byte_size(answer["first_flight"])::little-16>>
      head = "legation/1/answer" <> <<0>> <> answer["profile"] <> Blake3.hash(answer["opening"])
      mac = Blake3.keyed_hash(answer["network_key"], head <> length <> answer["first_flight"])
      assert {mac, mac <> length <> answer["first_flight"]} == {answer["mac"], answer["answer"]}
    end

    openings = for {_name, answer} <- records("answer.txt"), do: answer["opening"]
    for {_name, knock} <- records("knock.txt"), do: assert(knock["knock"] in openings)
  end

  test "plain.txt: keys, bindings and records" do
    keys = record("plain.txt", "plain keys")

    for side <- ["initiator", "responder"] do
      assert {keys["#{side}_ephemeral"], keys["#{side}_secret"]} ==
               :crypto.generate_key(:ecdh, :x25519, keys["#{side}_secret"])
    end

    assert :crypto.compute_key(:ecdh, keys["responder_ephemeral"], keys["initiator_secret"], :x25519) == keys["shared"]
    nonces = keys["initiator_nonce"] <> keys["responder_nonce"]
    binding = Blake3.hash(<<3>> <> nonces <> keys["initiator_ephemeral"] <> keys["responder_ephemeral"])
    assert binding == keys["binding"]

    for side <- ["initiator", "responder"],
        do: assert(Blake3.derive_key("legation/1/plain #{side}", keys["shared"] <> binding) == keys["#{side}_key"])

    for {"record " <> name, %{"content" => content, "bytes" => bytes}} <- records("plain.txt") do
      [counter, "of", "the", side] = String.split(name)
      length = <<byte_size(content)::little-32>>
      mac = Blake3.keyed_hash(keys["#{side}_key"], <<String.to_integer(counter)::little-64>> <> length <> content)
      assert bytes == length <> content <> mac
    end

    local = record("plain.txt", "local")
    assert Blake3.hash(<<2>> <> local["initiator_nonce"] <> local["responder_nonce"] <> <<0::512>>) == local["binding"]
  end

  describe "batches.txt" do
    test "batches are laid out as 9 says and signed by their engine" do
      bob = record("identity.txt", "bob")

      for {_name, batch} <- records("batches.txt") do
        messages = for index <- 0..(number(batch["count"]) - 1), do: message(batch, index)
        table = table(messages, batch["mode"])
        head_bytes = 107 + 1 + byte_size(batch["engine"]) + 8
        {payloads, _end} = payloads(messages, head_bytes + byte_size(table))

        body =
          batch["session_id"] <>
            alice()["realm_id"] <>
            bob["realm_id"] <>
            batch["first_sequence"] <>
            batch["count"] <>
            batch["mode"] <>
            str8(batch["engine"]) <>
            <<byte_size(table)::little-32, byte_size(payloads)::little-32>> <> table <> payloads

        assert batch["frame"] == tagged(0x03, 1, body <> batch["signature"])
        assert Blake3.hash(body) == batch["root"]
        key = if batch["engine"] == "", do: "online_public_key", else: "engine_public_key"
        assert signed?("batch", body, batch["signature"], alice()[key])
      end
    end

    defp message(batch, index),
      do:
        for(
          name <- ~w(kind flags call_id caller detail source destination payload),
          into: %{},
          do: {name, batch["#{name}_#{index}"]}
        )

    # 9.2: a name comes once, and by its number from then on.
    defp table(messages, mode) do
      {rows, _names} = Enum.map_reduce(messages, %{}, &row(&1, &2, mode))
      Enum.join(rows)
    end

    defp row(message, names, mode) do
      {source, names} = if mode == <<1>>, do: {"", names}, else: name(message["source"], names)
      {destination, names} = name(message["destination"], names)
      [call_id, caller] = for field <- ~w(call_id caller), do: number(message[field])
      call? = {call_id, caller, message["detail"]} != {0, 0, <<0>>}
      head = number(message["kind"]) + number(message["flags"]) + if(call?, do: 0x40, else: 0)
      call = if call?, do: varint(call_id) <> varint(caller) <> message["detail"], else: ""
      {<<head>> <> source <> destination <> varint(byte_size(message["payload"])) <> call, names}
    end

    defp name("", names), do: {<<0>>, names}
    defp name(name, names) when is_map_key(names, name), do: {varint(names[name]), names}
    defp name(name, names), do: {<<1>> <> str8(name), Map.put(names, name, map_size(names) + 2)}

    defp varint(number) when number < 128, do: <<number>>
    defp varint(number), do: <<1::1, rem(number, 128)::7>> <> varint(div(number, 128))

    defp aligned?(message), do: message["flags"] == <<0x10>>

    # 9.3: where an aligned payload begins and ends there are gaps.
    defp payloads(messages, offset) do
      padded = if Enum.any?(messages, &aligned?/1), do: gap(offset), else: ""

      Enum.reduce(messages, {padded, offset + byte_size(padded)}, fn message, {bytes, offset} ->
        before = if aligned?(message), do: gap(offset), else: ""
        offset = offset + byte_size(before) + byte_size(message["payload"])
        behind = if aligned?(message), do: gap(offset), else: ""
        {bytes <> before <> message["payload"] <> behind, offset + byte_size(behind)}
      end)
    end

    defp gap(offset), do: :binary.copy(<<0>>, rem(1_024 - rem(offset, 1_024), 1_024))
  end

  test "receipts.txt: receipts prove what they say, and no changed byte of one does" do
    for {_name, fields} <- records("receipts.txt") do
      verify = &Native.verify_receipt(&1, fields["identity_key"], fields["network_id"])
      assert {:ok, facts} = verify.(fields["receipt"])
      assert fact(facts, "source_engine") == fields["engine"]
      assert fact(facts, "destination_engine") == fields["destination"]
      assert fact(facts, "sequence") == number(fields["sequence"])
      assert fact(facts, "payload") == fields["payload"]

      # Every byte of the small ones, and some of the rest.
      step = max(1, div(byte_size(fields["receipt"]), 500))

      for at <- Enum.take_every(0..(byte_size(fields["receipt"]) - 1), step) do
        <<head::binary-size(at), byte, rest::binary>> = fields["receipt"]
        # A proof of another message, by its index, would be as good a proof; of this one nothing else is.
        case verify.(head <> <<Bitwise.bxor(byte, 0x10)>> <> rest) do
          {:error, {:receipt, _why}} -> :refused
          {:ok, other} -> flunk("byte #{at} does not matter: #{inspect(other)}")
        end
      end

      for {_name, %{"public_key" => other}} when other != :erlang.map_get("identity_key", fields) <-
            records("identity.txt"),
          byte_size(other) == 32,
          do: assert({:error, {:receipt, _}} = Native.verify_receipt(fields["receipt"], other, fields["network_id"]))

      assert {:error, {:receipt, _}} = Native.verify_receipt(fields["receipt"], fields["identity_key"], <<0::256>>)
    end
  end

  defp fact(facts, name), do: facts[name] || facts[String.to_existing_atom(name)]

  describe "terms.txt" do
    test "what is accepted is what OTP decodes; what is refused is refused for its reason" do
      for {name, %{"term" => term} = fields} <- records("terms.txt") do
        case String.split(name, [": ", " "], parts: 3) do
          ["refused", reason, _what] ->
            assert {:error, {kind, _offset}} = Native.scan(term), name
            assert Atom.to_string(kind) == reason, name

          # 13.4: no term of ours, but in this form.
          ["handle" | _what] ->
            assert {:error, {:identifiers, _offset}} = Native.scan(term), name
            assert term == handle(String.replace_prefix(name, "handle: ", ""), fields), name

          # 10.5: from whom the reference was given.
          ["answer", _what | _rest] ->
            <<number::little-64>> = fields["number"]
            assert {tag, 1} = :erlang.binary_to_term(term)
            reference = :erlang.binary_to_term(<<131, 90, 2::16, 119, 0, 2::32, number::64>>)
            assert tag in [reference, [:alias | reference], [[:alias | reference] | reference]], name

          [accepted, _what | _rest] when accepted in ["accepted", "disguised"] ->
            assert Native.scan(term) == :ok, name
            assert disguised?(:erlang.binary_to_term(term)) == (accepted == "disguised"), name
        end
      end
    end

    defp handle("engine of the receiver", %{"engine" => name}),
      do: <<131, 88, 119, byte_size(name)>> <> name <> <<0::64, 3::32>>

    defp handle("pid of the " <> whose, %{"number" => <<number::little-64>>}),
      do: <<131, 88, 119, 0, number::64, owner(whose)::32>>

    defp handle("reference of the " <> whose, %{"number" => <<number::little-64>>}),
      do: <<131, 90, 2::16, 119, 0, owner(whose)::32, number::64>>

    defp owner("sender"), do: 1
    defp owner("receiver"), do: 2

    @heads [:system, :EXIT, :DOWN, :io_request, :io_reply, :nodedown, :nodeup, :global_name_conflict]
    @requests [
      call: 3,
      add_handler: 3,
      delete_handler: 3,
      sync_notify: 2,
      add_sup_handler: 4,
      swap_handler: 5,
      swap_sup_handler: 6
    ]

    # 10.5, of what can come at all.
    defp disguised?(term) when is_tuple(term) and tuple_size(term) > 0 do
      head = elem(term, 0)

      head in @heads or (is_atom(head) and String.starts_with?(Atom.to_string(head), "$gen_")) or
        (tuple_size(term) == 2 and alias?(head)) or (tuple_size(term) == 3 and request?(elem(term, 2)))
    end

    defp disguised?(_term), do: false

    defp alias?([head | _rest]), do: head == :alias or alias?(head)
    defp alias?(_other), do: false

    defp request?(request) when request in [:stop, :which_handlers, :get_modules], do: true

    defp request?(request) when is_tuple(request) and tuple_size(request) > 0,
      do: @requests[elem(request, 0)] == tuple_size(request)

    defp request?(_other), do: false
  end
end
