defmodule Legation.Hostile do
  @moduledoc """
  The hostile peer of `rust_tests/hostile`, as a process of the operating system: real keys, a proper
  handshake, and then what no honest peer does.

      Hostile.build!()                                                    in setup_all: cargo may take a minute
      Hostile.run("tampered-batch", connect: port, profile: :tls, key: pem, network: file, peer: text)
      # => %{"sent" => 3, "link" => "alive", "replies" => 0, "errors" => %{}, "bytes_back" => 812}

  `LEGATION_HOSTILE` names one that is built already.
  """

  @root Path.expand("../..", __DIR__)

  @doc "The path of the program, which cargo has brought up to date."
  def build! do
    case :persistent_term.get(__MODULE__, nil) do
      nil -> :global.trans({__MODULE__, self()}, &build_once/0, [node()])
      path -> path
    end
  end

  defp build_once do
    with nil <- :persistent_term.get(__MODULE__, nil) do
      path = System.get_env("LEGATION_HOSTILE") || cargo_build()
      :persistent_term.put(__MODULE__, path)
      path
    end
  end

  # Where it lies depends on CARGO_TARGET_DIR and cargo's configuration; cargo says where.
  defp cargo_build do
    args = ~w(build --locked --quiet -p hostile --bin hostile --message-format=json-render-diagnostics)
    {output, status} = System.cmd(System.get_env("CARGO", "cargo"), args, cd: @root)

    with 0 <- status,
         [_, path] <- Regex.run(~r/"executable":"([^"]*\/hostile)"/, output) do
      path
    else
      _failed -> raise "cargo could not build the hostile peer"
    end
  end

  @doc """
  Lets it attack and returns what it has printed.

  `:connect` (a port of this machine) or `:unix` (a path); `:profile`, `:key`, `:network` (paths), `:peer` (text); of `:engine`, `:count`,
  `:seed`, `:byte`, `:node` and `:file` what the attack uses. `idle: true`: it runs when nobody else would (see `behind_everybody/1`).
  """
  def run(attack, opts) do
    {idle, opts} = Keyword.pop(opts, :idle, false)
    [program | args] = behind_everybody(idle) ++ [build!() | arguments(attack, Map.new(opts))]

    case System.cmd(program, args, stderr_to_stdout: true) do
      {output, 0} -> parse(output)
      {output, status} -> raise "hostile --attack #{attack} ended with #{status}: #{output}"
    end
  end

  # What it costs itself is no part of the attack: on a network it would have a processor of its own. Who has the lowest priority still keeps
  # others from a processor until the scheduler's next tick (4 ms on many kernels), but for a policy that Linux has for that. Who is run by
  # it may get nothing on a busy machine, so that is for measurements.
  defp behind_everybody(idle) do
    chrt = idle && System.find_executable("chrt")
    if chrt, do: [chrt, "--idle", "0"], else: ["nice", "-n", "19"]
  end

  defp arguments(attack, opts) do
    address =
      case opts do
        %{unix: path} -> ["--unix", path]
        %{connect: port} -> ["--connect", "127.0.0.1:#{port}"]
        _dialled -> []
      end

    options =
      for name <- [:profile, :key, :network, :peer, :engine, :count, :seed, :byte, :node, :file],
          value = opts[name],
          text <- ["--#{name}", to_string(value)],
          do: text

    address ++ options ++ ["--attack", attack]
  end

  @doc """
  Lets it attack, and returns when it says that it is ready: `{held, what it has said by then}`. It goes on until `release/1`, and ends with
  the test in any case. It may open as many files as there may be.
  """
  def hold(attack, opts) do
    {idle, opts} = Keyword.pop(opts, :idle, false)
    shell = ~S[ulimit -n "$(ulimit -H -n)"; exec "$0" "$@"]
    args = ["-c", shell | behind_everybody(idle)] ++ [build!() | arguments(attack, Map.new(opts))]
    # It ends when its input does.
    port =
      Port.open({:spawn_executable, System.find_executable("sh")}, [:binary, :exit_status, line: 4_096, args: args])

    {port, port |> said([]) |> parse()}
  end

  @doc "Ends what `hold/2` has begun. Returns what it has printed since."
  def release({port, _said}) do
    Port.command(port, "\n")
    port |> said([]) |> parse()
  end

  # Until it is ready or has ended.
  defp said(port, lines) do
    receive do
      {^port, {:data, {:eol, "ready"}}} -> said_by(lines)
      {^port, {:data, {:eol, line}}} -> said(port, [line | lines])
      {^port, {:exit_status, 0}} -> said_by(lines)
      {^port, {:exit_status, status}} -> raise "hostile ended with #{status}: #{said_by(lines)}"
    after
      120_000 -> raise "hostile says nothing more: #{said_by(lines)}"
    end
  end

  defp said_by(lines), do: lines |> Enum.reverse() |> Enum.join("\n")

  defp parse(output) do
    for word <- String.split(output), [name, value] <- [String.split(word, "=", parts: 2)], into: %{} do
      {name, value(name, value)}
    end
  end

  defp value("errors", value) do
    for part <- String.split(value, ",", trim: true), [name, count] = String.split(part, ":"), into: %{} do
      {name, String.to_integer(count)}
    end
  end

  defp value(_name, value) do
    case Integer.parse(value) do
      {number, ""} -> number
      _text -> value
    end
  end
end
