defmodule Legation.Blake3 do
  @moduledoc false
  # BLAKE3 as its paper has it, in its three modes, slow and simple. It is for those few kilobytes that a user's keyholder
  # signs where there is no native library (Legation.CNode.KeyAgent); and in tests, so that what Rust computes is checked by
  # something that isn't Rust.

  import Bitwise

  @iv {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19}
  @permutation [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
  @chunk_start 1
  @chunk_end 2
  @parent 4
  @root 8
  @keyed_hash 16
  @derive_key_context 32
  @derive_key_material 64
  @mask 0xFFFFFFFF

  def hash(bytes), do: digest(bytes, @iv, 0)
  def keyed_hash(key, bytes), do: digest(bytes, words8(key), @keyed_hash)

  def derive_key(context, material),
    do: digest(material, words8(digest(context, @iv, @derive_key_context)), @derive_key_material)

  defp digest(bytes, key, flags) do
    {chaining, block, counter, length, last_flags} = node(bytes, 0, key, flags)
    output = compress(chaining, block, counter, length, bor(last_flags, @root))
    for word <- Enum.take(output, 8), into: <<>>, do: <<word::little-32>>
  end

  # What is left to compress of a subtree whose first chunk has this number.
  defp node(bytes, chunk, key, flags) when byte_size(bytes) <= 1024,
    do: chunk(bytes, chunk, key, flags, key, @chunk_start)

  defp node(bytes, chunk, key, flags) do
    left_chunks = left_chunks(div(byte_size(bytes) + 1023, 1024), 1)
    {left, right} = :erlang.split_binary(bytes, left_chunks * 1024)
    block = chaining(node(left, chunk, key, flags)) ++ chaining(node(right, chunk + left_chunks, key, flags))
    {key, block, 0, 64, bor(flags, @parent)}
  end

  # The largest power of two that leaves something for the right.
  defp left_chunks(chunks, power) when power * 2 >= chunks, do: power
  defp left_chunks(chunks, power), do: left_chunks(chunks, power * 2)

  defp chunk(<<block::binary-size(64), rest::binary>>, number, key, flags, chaining, start) when rest != "" do
    chaining = compress(chaining, words(block), number, 64, bor(flags, start)) |> Enum.take(8) |> List.to_tuple()
    chunk(rest, number, key, flags, chaining, 0)
  end

  defp chunk(block, number, _key, flags, chaining, start) do
    padded = block <> :binary.copy(<<0>>, 64 - byte_size(block))
    {chaining, words(padded), number, byte_size(block), flags |> bor(start) |> bor(@chunk_end)}
  end

  defp chaining({chaining, block, counter, length, flags}),
    do: Enum.take(compress(chaining, block, counter, length, flags), 8)

  defp compress(chaining, block, counter, length, flags) do
    {iv0, iv1, iv2, iv3, _, _, _, _} = @iv
    state = Tuple.to_list(chaining) ++ [iv0, iv1, iv2, iv3, band(counter, @mask), counter >>> 32, length, flags]

    {state, _block} =
      Enum.reduce(1..7, {List.to_tuple(state), block}, fn _, {state, block} -> {round(state, block), permute(block)} end)

    {low, high} = state |> Tuple.to_list() |> Enum.split(8)

    Enum.map(Enum.zip(low, high), fn {one, other} -> bxor(one, other) end) ++
      Enum.map(Enum.zip(high, Tuple.to_list(chaining)), fn {one, other} -> bxor(one, other) end)
  end

  @columns_and_diagonals [
    {0, 4, 8, 12},
    {1, 5, 9, 13},
    {2, 6, 10, 14},
    {3, 7, 11, 15},
    {0, 5, 10, 15},
    {1, 6, 11, 12},
    {2, 7, 8, 13},
    {3, 4, 9, 14}
  ]

  defp round(state, block) do
    @columns_and_diagonals
    |> Enum.zip(Enum.chunk_every(block, 2))
    |> Enum.reduce(state, fn {{a, b, c, d}, [x, y]}, state ->
      state |> half(a, b, c, d, x, 16, 12) |> half(a, b, c, d, y, 8, 7)
    end)
  end

  defp half(state, a, b, c, d, word, right_d, right_b) do
    state = put_elem(state, a, band(elem(state, a) + elem(state, b) + word, @mask))
    state = put_elem(state, d, rotate(bxor(elem(state, d), elem(state, a)), right_d))
    state = put_elem(state, c, band(elem(state, c) + elem(state, d), @mask))
    put_elem(state, b, rotate(bxor(elem(state, b), elem(state, c)), right_b))
  end

  defp rotate(word, right), do: bor(word >>> right, band(word <<< (32 - right), @mask))

  defp permute(block) do
    block = List.to_tuple(block)
    Enum.map(@permutation, &elem(block, &1))
  end

  defp words(bytes), do: for(<<word::little-32 <- bytes>>, do: word)
  defp words8(bytes), do: bytes |> words() |> List.to_tuple()
end
