defmodule Legation.CNode.Toml do
  @moduledoc false
  # Writes TOML 1.0, as much as the daemon's configuration needs: text, integers, booleans, lists, tables and lists of
  # tables. Given as keyword lists, so that it comes out in the order in which it was written down.
  #
  #   encode(realm: "alice", node: [epmd: true], peers: [[realm: "bob"]])
  #
  #   realm = "alice"
  #
  #   [node]
  #   epmd = true
  #
  #   [[peers]]
  #   realm = "bob"
  #
  # Keys are ours and need no quotes. Text is anybody's: whatever is in it, it stays one string on one line, and no zero byte
  # comes out, which is what ends a configuration on the daemon's standard input.

  @type value :: binary | integer | boolean | [value] | keyword

  @doc "A document. `nil` stands for a key that isn't there. Raises `ArgumentError` for what TOML can't say."
  @spec encode(keyword) :: binary
  def encode(document) do
    document = present(document)
    {tables, values} = Enum.split_with(document, fn {_key, value} -> table?(value) or tables?(value) end)
    IO.iodata_to_binary([lines(values), Enum.map(tables, &section/1)])
  end

  defp section({key, [{_key, _value} | _rest] = table}), do: ["\n[", key(key), "]\n", table |> present() |> lines()]

  defp section({key, tables}) do
    for table <- tables, do: ["\n[[", key(key), "]]\n", table |> present() |> lines()]
  end

  defp lines(pairs), do: for({key, value} <- pairs, do: [key(key), " = ", value(value), "\n"])

  defp value(text) when is_binary(text), do: string(text)
  defp value(number) when is_integer(number), do: integer(number)
  defp value(boolean) when is_boolean(boolean), do: Atom.to_string(boolean)
  defp value([]), do: "[]"

  defp value([{key, _value} | _rest] = table) when is_atom(key) do
    ["{ ", table |> present() |> Enum.map(fn {key, value} -> [key(key), " = ", value(value)] end) |> commas(), " }"]
  end

  defp value(list) when is_list(list), do: ["[", list |> Enum.map(&value/1) |> commas(), "]"]
  defp value(other), do: raise(ArgumentError, "TOML has no word for #{inspect(other)}")

  defp commas(parts), do: Enum.intersperse(parts, ", ")

  # 64 bits, and no more.
  defp integer(number) when number in -0x8000000000000000..0x7FFFFFFFFFFFFFFF, do: Integer.to_string(number)
  defp integer(number), do: raise(ArgumentError, "TOML has no integer as large as #{number}")

  defp string(text) do
    if not String.valid?(text), do: raise(ArgumentError, "TOML has only text in UTF-8")
    ["\"", for(<<char::utf8 <- text>>, do: character(char)), "\""]
  end

  defp character(?"), do: "\\\""
  defp character(?\\), do: "\\\\"
  # Control characters of ASCII may not stand there; others, and what some take for the end of a line, need not.
  defp character(char) when char < 0x20 or char in 0x7F..0x9F or char in [0x2028, 0x2029, 0xFEFF], do: escaped(char)
  defp character(char), do: <<char::utf8>>

  defp escaped(char), do: ["\\u", char |> Integer.to_string(16) |> String.pad_leading(4, "0")]

  defp key(key) do
    text = Atom.to_string(key)
    if text =~ ~r/\A[A-Za-z0-9_-]+\z/, do: text, else: raise(ArgumentError, "#{inspect(key)} is no bare key")
  end

  defp present(pairs), do: Enum.reject(pairs, fn {_key, value} -> value == nil end)

  defp table?([{key, _value} | _rest]) when is_atom(key), do: true
  defp table?(_value), do: false

  defp tables?([_ | _] = list), do: Enum.all?(list, &table?/1)
  defp tables?(_value), do: false
end
