defmodule Legation.Options.Check do
  @moduledoc false
  # Checks of option lists that say what was expected, what came instead and where. What is wrong is thrown, and becomes the
  # text of an `ArgumentError` or of `{:error, text}` in Legation.Options.

  # A timer of the VM can't be longer.
  @ms_max 4_294_967_295

  def ms_max, do: @ms_max

  ## Lists

  def keys!(opts, known, place) do
    if not (is_list(opts) and Keyword.keyword?(opts)),
      do: invalid!("expected a keyword list of options#{place}, with keys #{list(known)}")

    case Enum.uniq(Keyword.keys(opts)) -- known do
      [] -> :ok
      [unknown] -> invalid!("unknown option #{inspect(unknown)}#{place}; known are #{list(known)}")
      unknown -> invalid!("unknown options #{list(unknown)}#{place}; known are #{list(known)}")
    end

    case Keyword.keys(opts) -- Enum.uniq(Keyword.keys(opts)) do
      [] -> :ok
      [twice | _rest] -> invalid!("option #{inspect(twice)} is there twice#{place}")
    end
  end

  def required!(opts, key, valid?, words, place) do
    case Keyword.fetch(opts, key) do
      {:ok, value} -> if valid?.(value), do: value, else: expected!(key, words, value, place)
      :error -> invalid!("required option #{inspect(key)} is missing#{place}")
    end
  end

  def get!(opts, key, default, valid?, words, place) do
    value = Keyword.get(opts, key, default)
    if valid?.(value), do: value, else: expected!(key, words, value, place)
  end

  ## Kinds of values

  def limit?({min, max}, value), do: is_integer(value) and value >= min and value <= max
  def limit?(:positive, value), do: is_integer(value) and value > 0 and value <= 0xFFFFFFFFFFFF
  def limit?(:positive_or_infinity, value), do: value == :infinity or limit?(:positive, value)
  def limit?(atoms, value) when is_list(atoms), do: value in atoms

  def limit_words({min, max}), do: "an integer from #{min} to #{max}"
  def limit_words(:positive), do: "a positive integer"
  def limit_words(:positive_or_infinity), do: "a positive integer or :infinity"
  def limit_words(atoms), do: Enum.map_join(atoms, " or ", &inspect/1)

  # protocol.md 2.4; petnames follow the same rules.
  def name?(name) do
    is_binary(name) and byte_size(name) in 1..255 and String.valid?(name) and not String.contains?(name, "@") and
      not (name =~ ~r/\p{Cc}/u)
  end

  # What has lines is a file's content, and not its path.
  def path?(path), do: is_binary(path) and path != "" and String.valid?(path) and not (path =~ ~r/\p{Cc}/u)

  # sockaddr_un, with its closing zero.
  def socket_path?(path), do: path?(path) and byte_size(Path.expand(path)) <= 107

  def ip!(ip, place) do
    case ip?(ip) do
      true -> ip
      {:ok, ip} -> ip
      _not_one -> expected!(:ip, "an IP address", ip, place)
    end
  end

  # True for an address, `{:ok, address}` for the text of one.
  def ip?(ip) when is_tuple(ip), do: :inet.ntoa(ip) != {:error, :einval}
  def ip?(ip) when is_binary(ip), do: :inet.parse_strict_address(to_charlist(ip))
  def ip?(_ip), do: false

  ## Errors

  @spec expected!(atom, binary, term, binary) :: no_return
  def expected!(key, words, value, place),
    do: invalid!("expected #{inspect(key)} to be #{words}, got: #{inspect(value)}#{place(place)}")

  # What was given may be the secret itself.
  @spec secret!(atom, binary, binary) :: no_return
  def secret!(key, words, place \\ ""),
    do: invalid!("expected :#{key} to be #{words}; what it is instead is not shown here#{place(place)}")

  # The value comes last but for where it stands.
  defp place(""), do: ""
  defp place(" " <> place), do: " (#{place})"

  @spec invalid!(binary) :: no_return
  def invalid!(text), do: throw({:invalid_option, text})

  def list(keys), do: Enum.map_join(keys, ", ", &inspect/1)
end
