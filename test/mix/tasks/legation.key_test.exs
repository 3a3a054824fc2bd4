defmodule Mix.Tasks.Legation.KeyTest do
  # The task's shell is the VM's.
  use ExUnit.Case, async: false

  import Bitwise
  import ExUnit.CaptureIO

  alias Mix.Tasks.Legation.Key

  setup do
    directory = Path.join(System.tmp_dir!(), "legation-key-#{System.pid()}-#{System.unique_integer([:positive])}")
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    %{pem: Path.join(directory, "alice.pem"), network: Path.join(directory, "net.key")}
  end

  test "makes an identity and prints its public key, and shows the same key again", %{pem: pem} do
    made = run([pem])
    assert made =~ ~r/\Aed25519:[0-9a-zA-Z+\/=_-]+\n\z/
    assert mode(pem) == 0o600
    # The first version of the format, as openssl makes it: it doesn't read the second one.
    assert File.read!(pem) =~
             ~r{\A-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI[\w+/=]+\n-----END PRIVATE KEY-----\n\z}

    assert run(["--show", pem]) == made
  end

  test "makes a network key of 64 hexadecimal digits, for its owner's eyes only", %{network: network} do
    run(["--network", network])
    assert File.read!(network) =~ ~r/\A[0-9a-f]{64}\n\z/
    assert mode(network) == 0o600
    assert {:ok, _key} = Legation.Native.network_load(network)
  end

  test "never writes over a file", %{pem: pem, network: network} do
    for {path, args} <- [{pem, [pem]}, {network, ["--network", network]}] do
      File.write!(path, "mine")
      assert_raise Mix.Error, ~r/there is a file of that name/, fn -> run(args) end
      assert File.read!(path) == "mine"
    end
  end

  test "says what is wrong with a file", %{pem: pem} do
    assert_raise Mix.Error, ~r/no such file/, fn -> run(["--show", pem]) end
    File.write!(pem, "not a key")
    assert_raise Mix.Error, ~r/not a PKCS#8 PEM/, fn -> run(["--show", pem]) end
    assert_raise Mix.Error, ~r/no such file/, fn -> run([Path.join(pem <> ".d", "alice.pem")]) end
  end

  test "says how it is used when it is used otherwise", %{pem: pem} do
    assert_raise Mix.Error, ~r/no file was named/, fn -> run([]) end
    assert_raise Mix.Error, ~r/unknown option --shw/, fn -> run(["--shw", pem]) end
    assert_raise Mix.Error, ~r/one thing at a time/, fn -> run(["--show", "--network", pem]) end
    assert_raise Mix.Error, ~r/more than one file/, fn -> run([pem, pem]) end
    refute File.exists?(pem)
    assert run(["--help"]) =~ "mix legation.key --show"
  end

  defp run(args), do: capture_io(fn -> Key.run(args) end)
  defp mode(path), do: File.stat!(path).mode &&& 0o777
end
