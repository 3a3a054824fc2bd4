defmodule Bench.JSON do
  @moduledoc "As much of JSON as results need. Keys are written in order, rows one a line, so that two files can be compared."

  def encode(value), do: IO.iodata_to_binary([write(value), ?\n])

  defp write(map) when is_map(map) do
    members = map |> Enum.map(fn {key, value} -> {to_string(key), value} end) |> Enum.sort()
    ["{", Enum.map_intersperse(members, ", ", fn {key, value} -> [text(key), ": ", write(value)] end), "}"]
  end

  defp write([first | _] = list) when is_map(first), do: ["[\n  ", Enum.map_intersperse(list, ",\n  ", &write/1), "\n]"]
  defp write(list) when is_list(list), do: ["[", Enum.map_intersperse(list, ", ", &write/1), "]"]
  defp write(value) when is_float(value), do: :erlang.float_to_binary(value, [:compact, decimals: 3])
  defp write(value) when is_integer(value), do: Integer.to_string(value)
  defp write(value) when value in [nil, true, false], do: if(value == nil, do: "null", else: to_string(value))
  defp write(value) when is_binary(value) or is_atom(value), do: value |> to_string() |> text()

  # What inspect/1 escapes JSON escapes alike, of what stands in results.
  defp text(value), do: inspect(value, binaries: :as_strings, printable_limit: :infinity)

  @doc "What `encode/1` wrote, with text as keys."
  def decode(text) do
    {value, rest} = value(skip(text))
    "" = skip(rest)
    value
  end

  defp value("{" <> rest), do: members(skip(rest), %{})
  defp value("[" <> rest), do: elements(skip(rest), [])
  defp value("\"" <> rest), do: string(rest, [])
  defp value("null" <> rest), do: {nil, rest}
  defp value("true" <> rest), do: {true, rest}
  defp value("false" <> rest), do: {false, rest}

  defp value(text) do
    case Float.parse(text) do
      {float, rest} ->
        digits = binary_part(text, 0, byte_size(text) - byte_size(rest))
        if digits =~ ~r/[.eE]/, do: {float, rest}, else: {String.to_integer(digits), rest}
    end
  end

  defp members("}" <> rest, map), do: {map, rest}

  defp members(text, map) do
    {key, rest} = value(text)
    ":" <> rest = skip(rest)
    {value, rest} = value(skip(rest))
    map = Map.put(map, key, value)

    case skip(rest) do
      "," <> rest -> members(skip(rest), map)
      "}" <> rest -> {map, rest}
    end
  end

  defp elements("]" <> rest, list), do: {Enum.reverse(list), rest}

  defp elements(text, list) do
    {value, rest} = value(text)

    case skip(rest) do
      "," <> rest -> elements(skip(rest), [value | list])
      "]" <> rest -> {Enum.reverse([value | list]), rest}
    end
  end

  defp string("\"" <> rest, characters), do: {characters |> Enum.reverse() |> List.to_string(), rest}
  defp string("\\n" <> rest, characters), do: string(rest, [?\n | characters])
  defp string(<<?\\, escaped::utf8, rest::binary>>, characters), do: string(rest, [escaped | characters])
  defp string(<<character::utf8, rest::binary>>, characters), do: string(rest, [character | characters])

  defp skip(<<space, rest::binary>>) when space in ~c" \n\r\t", do: skip(rest)
  defp skip(text), do: text
end
