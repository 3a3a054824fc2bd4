defmodule Legation.Directory.Announcement do
  @moduledoc false
  # LEARN and FORGET of our engines, signed; and the reasons for which an engine ends, here and there (protocol.md 11.2).

  alias Legation.{Handle, Instance, Keyholder, Native, Policy}

  @default_ops [:call, :cast, :send]
  # protocol.md 11.1
  @operations [{1, :call}, {2, :cast}, {4, :send}, {8, :monitor}, {16, :link}, {32, :exit}, {64, :sys}, {128, :event}]

  @doc "The options of `Legation.publish/4`, checked in the caller, so that what is wrong with them is its own crash."
  def validate!(opts) do
    opts = Keyword.validate!(opts, [:to, :version, :ops, :delegate, :receipts])

    for {key, value} <- opts, not valid?(key, value) do
      raise ArgumentError, "expected :#{key} to be #{expected(key)}, got: #{inspect(value)}"
    end

    opts
  end

  defp valid?(:to, to), do: to == :all or (is_list(to) and Enum.all?(to, &is_binary/1))
  defp valid?(:version, version), do: version == nil or version in 0..0xFFFFFFFF
  defp valid?(:ops, ops), do: is_list(ops) and ops -- Policy.ops() == []
  defp valid?(:delegate, delegate), do: is_boolean(delegate)
  defp valid?(:receipts, receipts), do: receipts == nil or is_pid(receipts)

  defp expected(:to), do: ":all or a list of realms"
  defp expected(:version), do: "an integer from 0 to 4294967295"
  defp expected(:ops), do: "a list of " <> Enum.map_join(Policy.ops(), ", ", &inspect/1)
  defp expected(:delegate), do: "true or false"
  defp expected(:receipts), do: "a pid"

  @spec learn(Instance.t(), binary, pos_integer, keyword) :: {:ok, key :: binary, binary} | {:error, term}
  def learn(%Instance{identity: identity} = instance, engine, serial, opts) do
    key = Native.keyring_engine_public(identity.keyring, engine)

    body =
      Native.announcement(:learn, %{
        realm_id: identity.realm_id,
        name: engine,
        key: key,
        serial: serial,
        not_before: 0,
        not_after: 0,
        version: opts[:version] || 0,
        ops: Policy.ops_bits(opts[:ops] || @default_ops),
        delegate: Keyword.get(opts, :delegate, true)
      })

    with {:ok, signature} <- Keyholder.sign(instance, :learn, body), do: {:ok, key, body <> signature}
  end

  @doc "An exit reason as a FORGET has it."
  @spec reason(term) :: atom
  def reason(reason), do: Handle.class(reason)

  @spec forget(Instance.t(), binary, pos_integer, atom) :: {:ok, binary} | {:error, term}
  def forget(%Instance{identity: identity} = instance, engine, serial, reason) do
    body = Native.announcement(:forget, %{realm_id: identity.realm_id, name: engine, serial: serial, reason: reason})
    with {:ok, signature} <- Keyholder.sign(instance, :forget, body), do: {:ok, body <> signature}
  end

  @doc "What an engine can do, from the bits of its LEARN. Bits of a later version mean nothing yet."
  def operations(bits) do
    for {bit, operation} <- @operations, Bitwise.band(bits, bit) != 0, do: operation
  end
end
