defmodule Legation.PublishedTest do
  # What others have published of Ed25519 and BLAKE3 (test/vectors/published/README.md), through the native library; BLAKE3 through
  # the one of our own as well. The core and the same files: rust_tests/tests/published.rs.
  use ExUnit.Case, async: true

  alias Legation.{Blake3, Native}

  @dir Path.expand("../vectors/published", __DIR__)

  defp records(file) do
    for text <- @dir |> Path.join(file) |> File.read!() |> String.split("\n\n"),
        ["record = " <> name | fields] <- [
          text |> String.split("\n", trim: true) |> Enum.drop_while(&match?("#" <> _, &1))
        ],
        do: {name, Map.new(fields, &field/1)}
  end

  defp field(line) do
    [name, value] = String.split(line, "=", parts: 2)
    {String.trim(name), value |> String.trim() |> Base.decode16!(case: :lower)}
  end

  defp holds?({_name, fields}), do: Native.verify(fields["public_key"], fields["message"], fields["signature"])
  defp key({_name, fields}), do: Native.key_check(fields["public_key"])
  defp names(records), do: Enum.map(records, &elem(&1, 0))

  test "Wycheproof is taken where it is valid and nowhere else" do
    records = records("wycheproof_ed25519.txt")
    valid = Enum.filter(records, fn {name, _fields} -> name =~ " valid " end)
    assert {length(records), length(valid)} == {151, 88}
    assert names(Enum.filter(records, &holds?/1)) == names(valid)
    for record <- valid, do: assert(key(record) == :ok)
  end

  test "of CCTV the strict 43 are taken, and the key of one of them" do
    records = records("cctv_ed25519.txt")

    strict =
      for {name, _fields} = record <- records,
          [_number | flags] = String.split(name, " "),
          flags -- ["low_order_component_A", "low_order_component_R"] == [],
          do: record

    assert {length(records), length(strict)} == {914, 43}
    assert names(Enum.filter(records, &holds?/1)) == names(strict)
    {good, mixed} = Enum.split_with(strict, &(key(&1) == :ok))
    assert {length(good), length(mixed)} == {1, 42}
    for record <- mixed, do: assert(key(record) == {:error, {:bad_key, :torsion}})
  end

  test "of speccheck number 3 is taken, and no key" do
    records = records("speccheck.txt")
    assert length(records) == 12
    assert [{"3", _fields} = third] = Enum.filter(records, &holds?/1)
    assert key(third) == {:error, {:bad_key, :torsion}}
  end

  test "RFC 8032 is taken" do
    records = records("rfc8032.txt")
    assert length(records) == 5

    for {_name, fields} = record <- records do
      assert holds?(record) and key(record) == :ok
      refute Native.verify(fields["public_key"], fields["message"] <> <<0>>, fields["signature"])
      refute Native.verify(fields["public_key"], fields["message"], fields["signature"] <> <<0>>)
    end
  end

  test "BLAKE3 is what its authors say" do
    records = records("blake3.txt")
    assert length(records) == 22

    for {length, fields} <- records do
      bytes = String.to_integer(length)
      input = binary_part(:binary.copy(:binary.list_to_bin(Enum.to_list(0..250)), div(bytes, 251) + 1), 0, bytes)
      first = &binary_part(fields[&1], 0, 32)
      assert Native.blake3(input) == first.("hash")

      # Ours is slow; what it has to show it shows at these lengths.
      if bytes <= 8_193 do
        assert Blake3.hash(input) == first.("hash")
        assert Blake3.keyed_hash(fields["key"], input) == first.("keyed_hash")
        assert Blake3.derive_key("BLAKE3 2019-12-27 16:29:52 test vectors context", input) == first.("derive_key")
      end
    end
  end
end
