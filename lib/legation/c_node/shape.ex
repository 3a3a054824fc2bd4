defmodule Legation.CNode.Shape do
  @moduledoc false
  # What the daemon answers, in the shapes that the embedded transport has: carriers are modules, times `DateTime`s, keys 32
  # bytes or text as they are elsewhere. What an older or newer daemon leaves out is left out.

  alias Legation.Carriers.{Tcp, Unix}
  alias Legation.Options

  @carriers %{tcp: Tcp, unix: Unix}
  @link [:realm, :key, :profile, :role, :version, :signing, :session_id, :carrier, :address, :since]
  @peer [:profile, :role, :version, :signing, :carrier, :address, :since]

  @doc "A link that is up, as in `Legation.connections/1` (without counters) and `{:peer_up, realm, info}`."
  def link(info) do
    info = info |> present() |> Map.take(@link)
    info |> update(:key, &raw_key/1) |> carried()
  end

  @doc "The same with what it is among the links of its session, as in `Legation.connections/1`."
  def connection(info), do: Map.merge(link(info), Map.take(info, [:state, :rtt_ms]))

  @doc "A peer, as in `Legation.peers/1`."
  def peer(info) do
    link = if info[:state] == :up, do: info |> present() |> Map.take(@peer) |> carried(), else: %{}

    Map.merge(link, %{
      realm: info.realm,
      key: text_key(info.key),
      state: info.state,
      attempts: Map.get(info, :attempts, 0),
      last_error: words(info[:last_error]),
      counters: info[:counters] || %{},
      links: Enum.map(info[:links] || [], &connection/1)
    })
  end

  @doc "A listener, as in `Legation.listeners/1`, under the id that the user knows."
  def listener(info, id) do
    %{
      id: id,
      carrier: Map.get(@carriers, info.carrier, info.carrier),
      profile: info.profile,
      address: address_options(info.address),
      pending: Map.get(info, :pending, 0),
      handshakes: Map.get(info, :handshakes, 0)
    }
  end

  @doc "An engine, as in `Legation.engines/1`."
  def engine(info) do
    [engine, realm] = String.split(info.name, "@", parts: 2)

    info
    |> Map.take([:name, :pid, :key, :version, :ops, :to])
    |> Map.merge(%{engine: engine, realm: realm, local: info.local == true, state: info.state})
    |> Map.merge(if info.local == true, do: %{}, else: %{counters: info.counters})
  end

  @doc "What is kept of a foreign engine, and told with `{:engine_learned, name, info}`."
  def engine_info(info), do: info |> Map.take([:key, :serial, :version, :ops]) |> update(:key, &raw_key/1)

  @doc "A key in either form as 32 bytes."
  def raw_key(<<key::binary-size(32)>>), do: key
  def raw_key(text) when is_binary(text), do: Options.parse_key!(text)

  defp text_key(<<key::binary-size(32)>>), do: Options.format_key(key)
  defp text_key(text), do: text

  defp words(nil), do: nil
  defp words(text) when is_binary(text), do: text
  defp words(reason), do: Legation.Error.message(reason)

  defp carried(info) do
    info
    |> update(:carrier, &Map.get(@carriers, &1, &1))
    |> update(:address, &address/1)
    |> update(:since, &since/1)
  end

  defp since(ms) when is_integer(ms), do: DateTime.from_unix!(ms, :millisecond)
  defp since(other), do: other

  # "10.0.0.7:4040" and "[fe80::1]:4040" are `{ip, port}`; the rest is what it is.
  defp address(text) when is_binary(text) do
    with [_all, host, port] <- Regex.run(~r/\A(?|\[([^\]]+)\]|([^:]+)):(\d{1,5})\z/, text),
         {:ok, ip} <- :inet.parse_strict_address(to_charlist(host)) do
      {ip, String.to_integer(port)}
    else
      _no_address -> uid(text)
    end
  end

  defp address(other), do: other

  defp uid(text) do
    case Regex.run(~r/\Auid[ :=]?(\d{1,10})\z/, text) do
      [_all, uid] -> {:uid, String.to_integer(uid)}
      nil -> text
    end
  end

  @doc "What was bound, as `[port: 4040]` or `[path: path]`."
  def address_options(address) when is_map(address), do: address |> Map.to_list() |> address_options()
  def address_options(address), do: Keyword.take(address, [:port, :path])

  defp update(map, key, fun) do
    case map do
      %{^key => value} when value != nil -> %{map | key => fun.(value)}
      _without -> map
    end
  end

  defp present(map), do: for({key, value} <- map, value != nil, into: %{}, do: {key, value})
end
