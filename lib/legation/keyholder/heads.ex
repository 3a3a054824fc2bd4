defmodule Legation.Keyholder.Heads do
  @moduledoc false
  # What peers have shown of their keys, over restarts: a file for each realm that has rotated its key, or is revoked, in the
  # directory of the option `:state_dir`. Without one it is forgotten when the instance stops.
  #
  # A file is there whole or as it was before. Nobody but us writes there.

  alias Legation.Native

  @extension ".head"

  @doc "At the start. A file that can't be read stops it: with less than was known, a stolen key could get in."
  @spec restore(Path.t() | nil, Native.keyring()) :: :ok | {:error, {:state_dir, atom}}
  def restore(nil, _keyring), do: :ok

  def restore(dir, keyring) do
    with :ok <- File.mkdir_p(dir),
         {:ok, names} <- File.ls(dir) do
      names
      |> Enum.filter(&String.ends_with?(&1, @extension))
      |> Enum.find_value(:ok, fn name ->
        with {:ok, head} <- File.read(Path.join(dir, name)),
             :ok <- Native.heads_restore(keyring, head) do
          nil
        else
          {:error, {_kind, reason}} -> {:error, {:state_dir, reason}}
          {:error, reason} -> {:error, {:state_dir, reason}}
        end
      end)
    else
      {:error, reason} -> {:error, {:state_dir, reason}}
    end
  end

  @doc "Writes what has changed since the last time."
  @spec keep(Path.t(), Native.keyring()) :: :ok | {:error, {:state_dir, atom}}
  def keep(dir, keyring) do
    keyring
    |> Native.heads_changed()
    |> Enum.find_value(:ok, fn {realm_id, head} ->
      path = Path.join(dir, Base.encode16(realm_id, case: :lower) <> @extension)
      with {:error, reason} <- write(path, head), do: {:error, {:state_dir, reason}}, else: (:ok -> nil)
    end)
  end

  defp write(path, head) do
    with :ok <- File.write(path <> ".new", head, [:sync]), do: File.rename(path <> ".new", path)
  end
end
