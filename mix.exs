# What is written in Rust is built by cargo and put where the rest looks for it: the native library for `Legation.Native`, the
# daemon for `transport: {:c_node, options}`. It stands in this file, not under lib, because it has to exist before anything of
# the project is compiled, also in a project that depends on ours.
defmodule Legation.MixCargo do
  @moduledoc false
  # Whether there is anything to build cargo knows best, so it is asked each time; its answer "nothing" takes a twentieth
  # of a second. The target directory is cargo's own, one for all environments and all dependants.
  #
  # A product is a map: `crate`, `installed` (where it is put), `path` (the variable of the environment that names one which was
  # built elsewhere), `what` (in messages), `file` (what cargo calls it, as a regular expression).

  # Not the working directory: that is another one when somebody depends on us.
  @root Path.dirname(__ENV__.file)
  @rust_min "1.91.0"

  # A cargo line that is longer comes in pieces.
  @line_bytes 65_536

  def installed(name), do: Path.join([@root, "priv/native", name])

  @doc "The file that the environment names, or nil."
  def prebuilt(product) do
    case System.get_env(product.path, "") do
      "" ->
        nil

      path ->
        # A relative path would mean something else in a dependency, which is compiled in its own directory.
        if Path.type(path) != :absolute, do: fail(product, "#{product.path} has to be an absolute path, got: #{path}")
        if not File.regular?(path), do: fail(product, "#{product.path} is #{path}, and there is no such file")
        path
    end
  end

  @doc "The file that cargo has built."
  def build(product) do
    name = System.get_env("CARGO", "cargo")
    cargo = System.find_executable(name) || fail(product, cargo_missing(product, name))

    args = ~w(build --release --locked -p #{product.crate} --message-format=json-render-diagnostics)

    case run_cargo(cargo, args) do
      {0, output} ->
        built(output.artifacts, product) ||
          fail(product, "cargo built no #{product.what} of the crate #{product.crate}")

      {status, output} ->
        fail(product, reason(product, cargo, status, Enum.join(output.shown, "\n")))
    end
  end

  # Never written over: a running VM has the old file mapped, and would crash. It is compared by content, because one that was
  # built elsewhere may have come in between.
  def install(file, %{installed: installed}) do
    result =
      if same?(file, installed) do
        :noop
      else
        File.mkdir_p!(Path.dirname(installed))
        new = "#{installed}.#{System.pid()}.new"
        File.cp!(file, new)
        File.rename!(new, installed)
        :ok
      end

    # Links priv into the build directory, where it may not have been until now.
    Mix.Project.build_structure()
    {result, []}
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
      do: [{~c"CARGO_TERM_COLOR", ~c"always"}],
      else: []
  end

  defp built(artifacts, product) do
    Enum.find_value(artifacts, fn line ->
      with [_, file] <- Regex.run(~r/"((?:[^"\\]|\\.)*\/#{product.file})"/, line),
           do: String.replace(file, ~r/\\(.)/, "\\1")
    end)
  end

  defp same?(one, other) do
    with {:ok, %{size: size}} <- File.stat(one),
         {:ok, %{size: ^size}} <- File.stat(other),
         do: File.read(one) == File.read(other),
         else: (_different -> false)
  end

  defp reason(product, cargo, status, shown) do
    cond do
      shown =~ ~r/linker `[^`]*` not found|failed to find tool|is `[^`]*(cc|gcc|clang)[^`]*` installed/ ->
        """
        There is no C compiler. Legation's #{product.what} needs one to link and for its cryptography.
        On Debian and Ubuntu:  apt-get install gcc libc6-dev
        """

      old = too_old(cargo) ->
        "#{cargo} is version #{old}, and Legation's #{product.what} needs Rust #{@rust_min} or later.\n" <> get_rust()

      true ->
        "cargo failed with exit status #{status}; its messages are above.\n"
    end <> alternative(product)
  end

  defp too_old(cargo) do
    with {output, 0} <- System.cmd(cargo, ["--version"], cd: @root, stderr_to_stdout: true),
         [_, found] <- Regex.run(~r/^cargo (\d+\.\d+\.\d+)/, output),
         :lt <- Version.compare(found, @rust_min),
         do: found,
         else: (_new_enough_or_unknown -> nil)
  end

  defp cargo_missing(product, name) do
    "There is no `#{name}`. Legation's #{product.what} is built from source by cargo, which comes with Rust.\n" <>
      get_rust() <> alternative(product)
  end

  defp get_rust do
    """
    Get Rust #{@rust_min} or later with rustup: see https://rustup.rs. (The packages rustc and cargo of Debian 12 are too
    old; on newer systems `apt-get install cargo` may do. A C compiler is needed as well: `apt-get install gcc libc6-dev`.)
    If cargo is not in PATH, set CARGO to where it is.
    """
  end

  defp alternative(product) do
    """

    Or set #{product.path} to the absolute path of one that was built elsewhere, for this operating system and
    processor: then no cargo is needed.
    """
  end

  defp fail(product, text),
    do: Mix.raise("Could not build Legation's #{product.what}.\n\n" <> String.trim_trailing(text))
end

defmodule Mix.Tasks.Compile.LegationNif do
  @moduledoc false
  # The native library, which the embedded transport and `mix legation.key` need.

  use Mix.Task.Compiler

  alias Legation.MixCargo

  @impl true
  def run(_args) do
    file = MixCargo.prebuilt(product()) || MixCargo.build(product())
    MixCargo.install(file, product())
  end

  @impl true
  def clean do
    File.rm(product().installed)
    :ok
  end

  defp product do
    %{
      crate: "legation_nif",
      what: "native library",
      path: "LEGATION_NIF_PATH",
      installed: MixCargo.installed("legation_nif.so"),
      file: ~S"liblegation_nif\.(?:so|dylib)"
    }
  end
end

defmodule Mix.Tasks.Compile.LegationNode do
  @moduledoc false
  # The daemon. It takes minutes to build, and who uses the embedded transport has no need of it; so only where somebody says
  # so: `config :legation, c_node: true`, or LEGATION_C_NODE=1 in the environment. This library's own tests need it;
  # LEGATION_C_NODE=0 does without.

  use Mix.Task.Compiler

  alias Legation.MixCargo

  @impl true
  def run(_args) do
    file = MixCargo.prebuilt(product()) || (wanted?() && MixCargo.build(product()))
    if file, do: MixCargo.install(file, product()), else: {:noop, []}
  end

  @impl true
  def clean do
    File.rm(product().installed)
    :ok
  end

  # As somebody's dependency we are compiled for `:prod`, whatever is compiled for.
  defp wanted? do
    case System.get_env("LEGATION_C_NODE", "") do
      "" -> Application.get_env(:legation, :c_node, Mix.env() == :test) == true
      said -> said in ["1", "true"]
    end
  end

  defp product do
    %{
      crate: "legation_node",
      what: "daemon",
      path: "LEGATION_NODE_PATH",
      installed: MixCargo.installed("legation"),
      file: "legation"
    }
  end
end

defmodule Legation.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :legation,
      version: @version,
      elixir: "~> 1.14",
      compilers: [:legation_nif, :legation_node] ++ Mix.compilers(),
      elixirc_paths: elixirc_paths(Mix.env()),
      erlc_paths: ["src"],
      erlc_options: [:debug_info, :warnings_as_errors],
      start_permanent: false,
      # Of Elixir 1.19: what is below test and is none.
      test_ignore_filters: [
        &String.starts_with?(&1, [
          "test/support/",
          "test/consumer/",
          "test/conformance/",
          "test/netns/",
          "test/chaos/",
          "test/attacks/"
        ])
      ],
      deps: [],
      name: "Legation",
      description: "Ordinary GenServer calls, casts and sends between Erlang systems that do not trust each other",
      package: package(),
      docs: docs()
    ]
  end

  # There is no application callback: instances are started by those who use them, in their own supervision trees.
  def application, do: [extra_applications: [:logger, :crypto] ++ test_applications(Mix.env())]

  # Since Elixir 1.15 what isn't listed isn't found.
  defp test_applications(:test), do: [:public_key, :ssl]
  defp test_applications(_env), do: []

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
