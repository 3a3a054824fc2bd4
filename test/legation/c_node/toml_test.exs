defmodule Legation.CNode.TomlTest do
  use ExUnit.Case, async: true

  alias Legation.CNode.Toml

  test "values, tables and lists of tables come in their order" do
    document = [
      realm: "alice",
      threads: 1,
      network_key: nil,
      listen: [[tcp: "0.0.0.0:4040", profile: "tls"], [unix: "/run/a.sock", uids: [0, 1000]]],
      import: ["ping@bob", [name: "pong@bob", as: "pong"]],
      node: [name: "legation@127.0.0.1", epmd: true, epmd_port: nil],
      peers: [[realm: "bob", export: [[name: "store", allow: ["call"], filter: true], "ping"], connect: []]]
    ]

    assert Toml.encode(document) == """
           realm = "alice"
           threads = 1
           import = ["ping@bob", { name = "pong@bob", as = "pong" }]

           [[listen]]
           tcp = "0.0.0.0:4040"
           profile = "tls"

           [[listen]]
           unix = "/run/a.sock"
           uids = [0, 1000]

           [node]
           name = "legation@127.0.0.1"
           epmd = true

           [[peers]]
           realm = "bob"
           export = [{ name = "store", allow = ["call"], filter = true }, "ping"]
           connect = []
           """
  end

  test "whatever a text holds, it stays one string on one line, and no zero byte comes out" do
    assert Toml.encode(a: ~s(x"\nrealm = "mallory"\n[node]\\)) ==
             ~S(a = "x\"\u000Arealm = \"mallory\"\u000A[node]\\") <> "\n"

    assert Toml.encode(a: "\0") == ~S(a = "\u0000") <> "\n"
    assert Toml.encode(a: "\u007f\u0085\u2028\uFEFF") == ~S(a = "\u007F\u0085\u2028\uFEFF") <> "\n"
    assert Toml.encode(a: "é漢😀'#={}[]") == ~s(a = "é漢😀'#={}[]"\n)
    assert Toml.encode(a: "") == ~s(a = ""\n)

    for char <- 0..0x10FFFF, char not in 0xD800..0xDFFF, rem(char, 7) == 0 or char < 0x3000 do
      encoded = Toml.encode(a: <<char::utf8>>)
      assert [~s(a = ") <> _string, ""] = String.split(encoded, ["\n", "\r", "\u2028", "\u0085"])
      assert decoded(encoded) == <<char::utf8>>
    end
  end

  test "random text comes back as it was" do
    for _n <- 1..500 do
      text = for _m <- 1..:rand.uniform(40), into: "", do: <<Enum.random(alphabet())::utf8>>
      assert decoded(Toml.encode(a: text)) == text
    end
  end

  test "what TOML can't say is an error of the caller's" do
    assert_raise ArgumentError, ~r/UTF-8/, fn -> Toml.encode(a: <<255>>) end
    assert_raise ArgumentError, ~r/no integer as large/, fn -> Toml.encode(a: 0x8000000000000000) end
    assert Toml.encode(a: 0x7FFFFFFFFFFFFFFF) == "a = 9223372036854775807\n"
    assert_raise ArgumentError, ~r/no word for 1.5/, fn -> Toml.encode(a: 1.5) end
    assert_raise ArgumentError, ~r/no word for :atom/, fn -> Toml.encode(a: [:atom]) end
    assert_raise ArgumentError, ~r/no bare key/, fn -> Toml.encode("a b": 1) end
  end

  defp alphabet, do: [?", ?\\, ?\n, ?\r, ?\t, ?\b, 0, 0x7F, ?u, ?U, ?0, ?#, ?=, ?[, ?], ?{, ?}, ?', ?é, 0x1F600]

  # By the grammar of basic strings: escapes, and nothing that has to be one.
  defp decoded(encoded) do
    [_all, string] = Regex.run(~r/\Aa = "((?:[^"\\\x{0}-\x{1F}\x{7F}]|\\u[0-9A-F]{4}|\\["\\])*)"\n\z/u, encoded)

    Regex.replace(~r/\\(?:u([0-9A-F]{4})|(["\\]))/, string, fn
      _all, "", char -> char
      _all, digits, "" -> <<String.to_integer(digits, 16)::utf8>>
    end)
  end
end
