defmodule Legation.EncodingsTest do
  @moduledoc """
  What both languages read and write by code of their own, held against each other with values that are made up: texts of keys, BLAKE3, the daemon's
  configuration, the key agent's frames, pids and references.
  """
  use ExUnit.Case, async: true

  alias Legation.{Blake3, Handle, Options}
  alias Legation.CNode.KeyAgent.Connection
  alias Legation.CNode.Toml

  @root Path.expand("../..", __DIR__)
  @purposes [:link, :hello, :cert, :learn, :forget]

  setup_all do
    args = ~w(build --locked --quiet -p legation_fuzz --bin encodings --message-format=json-render-diagnostics)
    {output, 0} = System.cmd(System.get_env("CARGO", "cargo"), args, cd: @root)
    [_, path] = Regex.run(~r/"executable":"([^"]*\/encodings)"/, output)
    %{path: path}
  end

  setup %{path: path} do
    :rand.seed(:exsss, {1, 2, 3})
    %{rust: Port.open({:spawn_executable, path}, [:binary, packet: 4])}
  end

  # `:none`: there is nothing to be said.
  defp rust(port, what, content) do
    Port.command(port, [what, content])

    receive do
      {^port, {:data, <<1, answer::binary>>}} -> answer
      {^port, {:data, <<0>>}} -> :none
    after
      30_000 -> flunk("no answer")
    end
  end

  defp bytes(size), do: :rand.bytes(size)

  defp text(most), do: for(_n <- 1..:rand.uniform(most), into: "", do: <<char()::utf8>>)

  defp char do
    case :rand.uniform(6) do
      1 -> :rand.uniform(0x20) - 1
      2 -> Enum.random([?", ?\\, ?', ?#, ?=, ?\n, 0x7F, 0x85, 0x2028, 0xFEFF, 0xFFFD, 0x10FFFF])
      3 -> 0xE000 + :rand.uniform(0x1000)
      4 -> 0x80 + :rand.uniform(0x700)
      _ascii -> 0x20 + :rand.uniform(0x5E)
    end
  end

  defp parsed(text) do
    Options.parse_key!(text)
  rescue
    ArgumentError -> :none
  end

  test "a public key has one text, and what is nearly one is none to either", %{rust: rust} do
    for _n <- 1..300 do
      key = bytes(32)
      text = Options.format_key(key)
      assert rust(rust, 2, key) == text
      at = :rand.uniform(byte_size(text)) - 1
      <<before::binary-size(at), _byte, rest::binary>> = text

      for near <- [
            text,
            before <> <<Enum.random(~c"AZaz09-_=+/ \n")>> <> rest,
            before <> rest,
            text <> "A",
            text <> "="
          ] do
        assert rust(rust, 1, near) == parsed(near), inspect(near)
      end
    end
  end

  test "BLAKE3 is the same at all lengths", %{rust: rust} do
    for length <-
          Enum.concat([0..130, [1023, 1024, 1025, 2048, 2049, 3073, 5000], for(_n <- 1..20, do: :rand.uniform(9_000))]) do
      content = bytes(length)
      key = bytes(32)
      assert rust(rust, 3, content) == Blake3.hash(content), "#{length}"
      assert rust(rust, 4, [key, content]) == Blake3.keyed_hash(key, content), "#{length}"
      context = "legation test #{length}"
      assert rust(rust, 5, [byte_size(context), context, content]) == Blake3.derive_key(context, content), "#{length}"
    end
  end

  test "a configuration means what was written down", %{rust: rust} do
    for _n <- 1..300 do
      document = for n <- 0..:rand.uniform(6), do: {:"key_#{n}", value(2)}
      # Tables follow what is none, and a table in a list is one with others like it.
      assert rust(rust, 6, Toml.encode(document)) |> :erlang.binary_to_term() == meant(document)
    end
  end

  defp value(depth) do
    case :rand.uniform(if(depth > 0, do: 7, else: 3)) do
      1 -> text(30)
      2 -> Enum.random([0, -1, 1, 0x7FFFFFFFFFFFFFFF, -0x8000000000000000, :rand.uniform(1_000_000)])
      3 -> :rand.uniform(2) == 1
      4 -> for(_n <- 1..:rand.uniform(4), do: text(20))
      5 -> for(n <- 1..:rand.uniform(3), do: {:"inner_#{n}", value(0)})
      6 -> for(_n <- 1..:rand.uniform(3), do: [a: value(0), b: for(_m <- 1..2, do: [c: value(0)])])
      7 -> []
    end
  end

  defp meant([{key, _value} | _rest] = table) when is_atom(key),
    do: Map.new(table, fn {key, value} -> {Atom.to_string(key), meant(value)} end)

  defp meant(list) when is_list(list), do: Enum.map(list, &meant/1)
  defp meant(value), do: value

  # What a key agent does with a request, without the process that signs.
  defmodule Signer do
    use GenServer

    @impl true
    def init(key), do: {:ok, key}

    @impl true
    def handle_call(:public_key, _from, key), do: {:reply, key, key}

    def handle_call({:sign, purpose, network, body}, _from, key) do
      case purpose do
        :forget -> {:reply, {:error, {:failed, "not today"}}, key}
        _other -> {:reply, {:ok, :crypto.hash(:sha512, [to_string(purpose), network, body])}, key}
      end
    end
  end

  test "the daemon's requests to a key agent are understood, and so are the answers", %{rust: rust} do
    key = bytes(32)
    agent = start_supervised!(%{id: Signer, start: {GenServer, :start_link, [Signer, key]}})

    for _n <- 1..100, {purpose, index} <- Enum.with_index([:public_key | @purposes]) do
      id = bytes(8)
      network = bytes(32)
      body = bytes(:rand.uniform(300))
      frame = rust(rust, 8, [index, id, network, body])
      {:ok, answer} = Connection.answer(agent, frame)

      expected =
        case purpose do
          :public_key -> [129, id, key]
          :forget -> [255, id, 4, "not today"]
          _other -> [130, id, :crypto.hash(:sha512, [to_string(purpose), network, body])]
        end

      assert rust(rust, 9, answer) == IO.iodata_to_binary(expected), "#{purpose}"
    end
  end

  test "what is no request is refused, and the refusal is understood", %{rust: rust} do
    agent = start_supervised!(%{id: Signer, start: {GenServer, :start_link, [Signer, bytes(32)]}})

    for _n <- 1..300 do
      frame = bytes(:rand.uniform(60) - 1)

      case Connection.answer(agent, frame) do
        :garbage -> assert byte_size(frame) < 10
        {:ok, answer} -> assert <<_kind, _id::64, _content::binary>> = rust(rust, 9, answer)
      end
    end
  end

  test "pids and references are read as they are", %{rust: rust} do
    for identifier <-
          [self(), make_ref(), Process.whereis(:init), hd(Process.list())] ++ for(_n <- 1..20, do: make_ref()) do
      raw = Handle.raw(identifier)
      assert rust(rust, 7, raw) == raw
    end

    assert rust(rust, 7, Handle.raw(hd(Process.list())) <> "x") == :none
  end
end
