# Builds the native library with cargo and puts it where `Legation.Native` looks for it. It stands in this file, not
# under lib, because it has to exist before anything of the project is compiled, also in a project that depends on ours.
defmodule Mix.Tasks.Compile.LegationNif do
  @moduledoc false
  # Whether there is anything to build cargo knows best, so it is asked each time; its answer "nothing" takes a twentieth
  # of a second. The target directory is cargo's own, one for all environments and all dependants.

  use Mix.Task.Compiler

  # Not the working directory: that is another one when somebody depends on us.
  @root Path.dirname(__ENV__.file)
  @crate "legation_nif"
  @installed Path.join(@root, "priv/native/#{@crate}.so")
  @rust_min "1.91.0"

  # A cargo line that is longer comes in pieces.
  @line_bytes 65_536

  @impl true
  def run(_args) do
    library = prebuilt() || build()
    result = install(library)
    # Links priv into the build directory, where it may not have been until now.
    Mix.Project.build_structure()
    {result, []}
  end

  @impl true
  def clean do
    File.rm(@installed)
    :ok
  end

  defp prebuilt do
    case System.get_env("LEGATION_NIF_PATH", "") do
      "" ->
        nil

      path ->
        # A relative path would mean something else in a dependency, which is compiled in its own directory.
        if Path.type(path) != :absolute, do: fail("LEGATION_NIF_PATH has to be an absolute path, got: #{path}")
        if not File.regular?(path), do: fail("LEGATION_NIF_PATH is #{path}, and there is no such file")
        path
    end
  end

  defp build do
    name = System.get_env("CARGO", "cargo")
    cargo = System.find_executable(name) || fail(cargo_missing(name))

    args = ~w(build --release --locked -p #{@crate} --message-format=json-render-diagnostics)

    case run_cargo(cargo, args) do
      {0, output} -> library(output.artifacts) || fail("cargo built no library for the crate #{@crate}")
      {status, output} -> fail(reason(cargo, status, Enum.join(output.shown, "\n")))
    end
  end

  # cargo runs in the root, so that .cargo/config.toml applies. Its progress and rustc's errors come as text and are shown
  # as they come; what it built comes as JSON, and says where, whatever target directory or triple is configured.
  defp run_cargo(cargo, args) do
    port =
      Port.open({:spawn_executable, cargo}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        :hide,
        line: @line_bytes,
        cd: @root,
        args: args,
        env: colour()
      ])

    cargo_output(port, "", %{shown: [], artifacts: []})
  end

  defp cargo_output(port, line, output) do
    receive do
      {^port, {:data, {:noeol, part}}} -> cargo_output(port, line <> part, output)
      {^port, {:data, {:eol, part}}} -> cargo_output(port, "", cargo_line(line <> part, output))
      {^port, {:exit_status, status}} -> {status, %{output | shown: Enum.reverse(output.shown)}}
    end
  end

  defp cargo_line(~s({"reason":"compiler-artifact") <> _ = line, output),
    do: %{output | artifacts: [line | output.artifacts]}

  defp cargo_line(~s({"reason":) <> _, output), do: output

  defp cargo_line(line, output) do
    # "Finished" after nothing was done would be there on every `mix compile`.
    if output.shown == [] and line =~ "Finished" do
      output
    else
      Mix.shell().info(line)
      %{output | shown: [line | output.shown]}
    end
  end

  defp colour do
    if IO.ANSI.enabled?() and System.get_env("CARGO_TERM_COLOR") == nil,
      do: [{'CARGO_TERM_COLOR', 'always'}],
      else: []
  end

  defp library(artifacts) do
    Enum.find_value(artifacts, fn line ->
      with [_, file] <- Regex.run(~r/"((?:[^"\\]|\\.)*\/lib#{@crate}\.(?:so|dylib))"/, line),
           do: String.replace(file, ~r/\\(.)/, "\\1")
    end)
  end

  # Never written over: a running VM has the old file mapped, and would crash. It is compared by content, because a
  # prebuilt library may have come in between.
  defp install(library) do
    if same?(library, @installed) do
      :noop
    else
      File.mkdir_p!(Path.dirname(@installed))
      new = "#{@installed}.#{System.pid()}.new"
      File.cp!(library, new)
      File.rename!(new, @installed)
      :ok
    end
  end

  defp same?(one, other) do
    with {:ok, %{size: size}} <- File.stat(one),
         {:ok, %{size: ^size}} <- File.stat(other),
         do: File.read(one) == File.read(other),
         else: (_different -> false)
  end

  defp reason(cargo, status, shown) do
    cond do
      shown =~ ~r/linker `[^`]*` not found|failed to find tool|is `[^`]*(cc|gcc|clang)[^`]*` installed/ ->
        """
        There is no C compiler. Legation's native library needs one to link and for its cryptography.
        On Debian and Ubuntu:  apt-get install gcc libc6-dev
        """

      old = too_old(cargo) ->
        "#{cargo} is version #{old}, and Legation's native library needs Rust #{@rust_min} or later.\n" <> get_rust()

      true ->
        "cargo failed with exit status #{status}; its messages are above.\n"
    end <> alternative()
  end

  defp too_old(cargo) do
    with {output, 0} <- System.cmd(cargo, ["--version"], cd: @root, stderr_to_stdout: true),
         [_, found] <- Regex.run(~r/^cargo (\d+\.\d+\.\d+)/, output),
         :lt <- Version.compare(found, @rust_min),
         do: found,
         else: (_new_enough_or_unknown -> nil)
  end

  defp cargo_missing(name) do
    "There is no `#{name}`. Legation's native library is built from source by cargo, which comes with Rust.\n" <>
      get_rust() <> alternative()
  end

  defp get_rust do
    """
    Get Rust #{@rust_min} or later with rustup: see https://rustup.rs. (The packages rustc and cargo of Debian 12 are too
    old; on newer systems `apt-get install cargo` may do. A C compiler is needed as well: `apt-get install gcc libc6-dev`.)
    If cargo is not in PATH, set CARGO to where it is.
    """
  end

  defp alternative do
    """

    Or set LEGATION_NIF_PATH to the absolute path of a library that was built elsewhere, for this operating system and
    processor: then no cargo is needed.
    """
  end

  defp fail(text), do: Mix.raise("Could not build Legation's native library.\n\n" <> String.trim_trailing(text))
end

defmodule Legation.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :legation,
      version: @version,
      elixir: "~> 1.14",
      compilers: [:legation_nif] ++ Mix.compilers(),
      elixirc_paths: elixirc_paths(Mix.env()),
      erlc_paths: ["src"],
      erlc_options: [:debug_info, :warnings_as_errors],
      start_permanent: false,
      deps: [],
      name: "Legation",
      description: "Ordinary GenServer calls, casts and sends between Erlang systems that do not trust each other",
      package: package(),
      docs: docs()
    ]
  end

  # There is no application callback: instances are started by those who use them, in their own supervision trees.
  def application, do: [extra_applications: [:logger, :crypto]]

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  defp package do
    [
      licenses: ["Apache-2.0"],
      links: %{},
      files: ~w(lib src native rust_tests .cargo Cargo.toml Cargo.lock docs mix.exs .formatter.exs README.md LICENSE)
    ]
  end

  defp docs do
    [
      main: "Legation",
      extras: Enum.filter(["README.md" | Path.wildcard("docs/*.md")], &File.exists?/1),
      source_ref: "v#{@version}"
    ]
  end
end
