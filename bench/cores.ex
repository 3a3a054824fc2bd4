defmodule Bench.Cores do
  @moduledoc "What the Rust program measures by itself (native/legation_bench): handshakes, bytes on the wire, stages."

  alias Bench.{Program, Results}

  @message_bytes 256
  @batch 64
  # Fewer milliseconds would be too few handshakes.
  @handshakes_ms 400

  @doc "Whole handshakes, mutual: knock, TLS, hellos, session."
  def handshakes(setup, config) do
    millis = max(config.millis, @handshakes_ms)
    rounds = for _ <- 1..config.rounds, do: ask(setup, ["handshakes", "#{millis}"])
    [fact("handshakes", medians(rounds))]
  end

  @doc "Bytes beyond the payloads, TLS included."
  def wire(setup, _config), do: [fact("wire", ask(setup, ["wire", "#{@message_bytes}", "#{@batch}"]))]

  @doc "Nanoseconds that each stage takes for one message, in a batch of so many."
  def stages(setup, config, bytes, batch) do
    medians(for _ <- 1..config.rounds, do: ask(setup, ["stages", "#{bytes}", "#{batch}"]))
  end

  defp ask(setup, args) do
    program = Program.start("core", setup.core, args)
    figures = Program.figures(program)
    Program.await_end(program)
    figures
  end

  defp medians(rounds) do
    for name <- rounds |> hd() |> Map.keys(), into: %{}, do: {name, Results.median(Enum.map(rounds, & &1[name]))}
  end

  defp fact(name, values), do: Map.put(values, :name, name)
end
