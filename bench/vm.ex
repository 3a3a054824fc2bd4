defmodule Bench.VM do
  @moduledoc """
  A BEAM of the benchmark's, both sides of it: who measures starts one and has functions called there; `main/0` runs in it.

  Functions and their results are terms, one a line.
  """

  alias Bench.Program

  @doc """
  Starts one. `node:` its distribution, `nil` (none), `:plain` or `:tls`; `erl:` more of the emulator's flags.

  It is ready after `await/1`.
  """
  def start(name, setup, options \\ []) do
    Program.start(name, System.find_executable("elixir"), arguments(name, setup, options))
  end

  def await(%Program{} = vm) do
    Program.await(vm, ["READY"])
    vm
  end

  @doc "Calls a function there. What it raises is raised here."
  def call(%Program{} = vm, module, function, args, timeout \\ 120_000) do
    Program.tell(vm, text({module, function, args}))

    case Program.await(vm, ["RESULT", "ERROR"], timeout) do
      {"RESULT", result} -> term(result)
      {"ERROR", result} -> raise "#{vm.name}: #{term(result)}"
    end
  end

  def node_name(name), do: :"#{name}@127.0.0.1"

  defp arguments(name, setup, options) do
    distribution =
      case options[:node] do
        nil -> []
        :plain -> ["--name", "#{node_name(name)}", "--cookie", "bench"]
        :tls -> ["--name", "#{node_name(name)}", "--cookie", "bench", "--erl", tls(setup)]
      end

    flags = if options[:erl], do: ["--erl", options[:erl]], else: []
    paths = for path <- :code.get_path(), path = to_string(path), path =~ "/legation/" or path =~ "/bench", do: path
    distribution ++ flags ++ Enum.flat_map(paths, &["-pa", &1]) ++ ["-e", "Bench.VM.main()"]
  end

  defp tls(setup), do: "-proto_dist inet_tls -ssl_dist_optfile #{Path.join(setup.dir, "ssl_dist.conf")}"

  ## In the VM

  def main do
    # A module's atoms are known when it is loaded.
    Enum.each([Bench.Engines, Bench.Load], &Code.ensure_loaded!/1)
    main = self()
    spawn_link(fn -> listen(main) end)
    IO.puts("READY")
    serve()
  end

  # Who started us is gone when the input ends, whatever we are waiting for then.
  defp listen(main) do
    case IO.gets("") do
      line when is_binary(line) ->
        send(main, {:command, line})
        listen(main)

      _end_of_input ->
        :erlang.halt(0, flush: false)
    end
  end

  defp serve do
    receive do
      {:command, line} ->
        {module, function, args} = line |> String.trim() |> term()
        IO.puts(answer(module, function, args))
    end

    serve()
  end

  defp answer(module, function, args) do
    ["RESULT ", text(apply(module, function, args))]
  rescue
    error -> ["ERROR ", text(Exception.format(:error, error, __STACKTRACE__))]
  catch
    kind, reason -> ["ERROR ", text(Exception.format(kind, reason, __STACKTRACE__))]
  end

  defp text(term), do: term |> :erlang.term_to_binary() |> Base.encode64()
  defp term(text), do: text |> Base.decode64!() |> :erlang.binary_to_term()
end
