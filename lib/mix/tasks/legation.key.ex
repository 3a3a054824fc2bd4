defmodule Mix.Tasks.Legation.Key do
  @shortdoc "Makes a realm's key or a network key, and shows public keys"

  @moduledoc """
  Makes the keys that Legation needs, and shows the public half of one.

      mix legation.key alice.pem              makes a realm's identity and prints its public key
      mix legation.key --show alice.pem       prints the public key of an identity that is there
      mix legation.key --network net.key      makes a network key

  The identity is an Ed25519 private key in PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` makes it. What is printed,
  `ed25519:` and 43 characters, is what a peer writes after `key:` in its list of peers. It is no secret, but it has to reach
  the peer unaltered.

  The network key is 32 random bytes in hexadecimal digits. All realms that talk over tcp hold the same one; a listener
  doesn't answer whoever lacks it.

  Of a key that has taken the place of another (`Legation.rotate_key/2`) `--show` prints the realm's first one: that is what peers have.

  Files are made with mode 0600, and a file that exists is never written over. No instance of Legation has to run.
  """

  use Mix.Task

  alias Legation.{Native, Options}

  @switches [show: :boolean, network: :boolean, help: :boolean]

  @impl true
  def run(args) do
    case OptionParser.parse(args, strict: @switches, aliases: [h: :help]) do
      {[help: true], _paths, []} -> Mix.shell().info(@moduledoc)
      {[], [path], []} -> identity(path)
      {[show: true], [path], []} -> show(path)
      {[network: true], [path], []} -> network(path)
      {_options, _paths, [{unknown, _value} | _rest]} -> usage("unknown option #{unknown}")
      {options, _paths, []} when length(options) > 1 -> usage("one thing at a time: #{switches(options)}")
      {_options, [], []} -> usage("no file was named")
      {_options, _paths, []} -> usage("more than one file was named")
    end
  end

  defp identity(path) do
    load()

    case Native.keyring_generate(path) do
      {:ok, public} -> Mix.shell().info(Options.format_key(public))
      {:error, {:key_file, reason}} -> Mix.raise("Could not make #{path}: #{words(reason)}")
    end
  end

  defp show(path) do
    load()

    case Native.keyring_load(path) do
      {:ok, keyring} -> keyring |> Native.keyring_public() |> Options.format_key() |> Mix.shell().info()
      {:error, {:key_file, reason}} -> Mix.raise("Could not read #{path}: #{words(reason)}")
    end
  end

  defp network(path) do
    digits = 32 |> :crypto.strong_rand_bytes() |> Base.encode16(case: :lower)

    with :ok <- create(path),
         :ok <- File.write(path, [digits, ?\n]) do
      Mix.shell().info("#{path}: give this file to every realm of the network, over a channel that you trust")
    else
      {:error, reason} -> Mix.raise("Could not make #{path}: #{words(reason)}")
    end
  end

  # The file has its mode before it has its content, and is made only if there is none. Erlang can do one or the other.
  defp create(path) do
    case System.cmd("sh", ["-c", ~S(umask 077 && set -C && : > "$1"), "sh", path], stderr_to_stdout: true) do
      {_output, 0} -> :ok
      {output, _status} -> {:error, if(File.exists?(path), do: :exists, else: String.trim(output))}
    end
  end

  # In a project that depends on Legation only the dependencies are needed: its own code may not compile, or not start,
  # before there is a key.
  defp load do
    Mix.Task.run("loadpaths")
    if Mix.Project.config()[:app] == :legation, do: Mix.Task.run("compile")

    with {:error, reason} <- Code.ensure_loaded(Native),
         do: Mix.raise("Legation's native library could not be loaded (#{reason}); the log above says why")
  end

  defp words(:exists), do: "there is a file of that name, and it is not written over"
  defp words(:enoent), do: "no such file or directory"
  defp words(:eacces), do: "permission denied"
  defp words(:not_pkcs8_ed25519), do: "it is not a PKCS#8 PEM with an Ed25519 private key"
  defp words(:bad_chain), do: "the file beside it (.chain) does not lead to it"
  defp words(:io), do: "it could not be read or written"
  defp words(reason) when is_atom(reason), do: reason |> :file.format_error() |> to_string()
  defp words(text), do: text

  defp switches(options), do: Enum.map_join(options, " ", fn {name, _value} -> "--#{name}" end)

  defp usage(problem) do
    Mix.raise("""
    #{problem}

        mix legation.key FILE.pem             make a realm's identity, print its public key
        mix legation.key --show FILE.pem      print the public key of an identity
        mix legation.key --network FILE       make a network key
        mix legation.key --help               more about these\
    """)
  end
end
