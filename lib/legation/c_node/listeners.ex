defmodule Legation.CNode.Listeners do
  @moduledoc false
  # The addresses of an instance, in its `config` table, and under which name the daemon knows each: it has texts, where users
  # may have any term.
  #
  #   {{:listener, key}, carrier, options}     the id is `options[:id]`, or else the key
  #   {{:bound, id}, address}                  what was bound: the port, where any would do

  @prefix "elixir:"

  @doc "For the daemon's configuration: `{text, carrier, options}`, with the ports that were bound before if `bound?`."
  def configured(config, bound?) do
    for [key, carrier, opts] <- :ets.match(config, {{:listener, :"$1"}, :"$2", :"$3"}) do
      id = opts[:id] || key
      {text(id), carrier, if(bound?, do: Keyword.merge(opts, bound(config, id)), else: opts)}
    end
  end

  # After a crash peers look for us where we were, not at another free port.
  defp bound(config, id) do
    case :ets.lookup(config, {:bound, id}) do
      [{_key, address}] -> address
      [] -> []
    end
  end

  def add(config, id, carrier, opts, address) do
    :ets.insert(config, {{:listener, id}, carrier, opts})
    bind(config, id, address)
  end

  def bind(config, id, address), do: :ets.insert(config, {{:bound, id}, address})

  def member?(config, id), do: id in ids(config)

  def remove(config, id) do
    for [key, opts] <- :ets.match(config, {{:listener, :"$1"}, :_, :"$2"}),
        (opts[:id] || key) == id,
        do: :ets.delete(config, {:listener, key})

    :ets.delete(config, {:bound, id})
    :ok
  end

  @doc "The user's ids by the daemon's."
  def by_text(config), do: Map.new(ids(config), &{text(&1), &1})

  defp ids(config), do: for([key, opts] <- :ets.match(config, {{:listener, :"$1"}, :_, :"$2"}), do: opts[:id] || key)

  @doc "How the daemon calls it. No two terms have one text."
  def text(id), do: @prefix <> inspect(id, limit: :infinity, printable_limit: :infinity)

  @doc "Whether a text of the daemon's is for one of ours: it may have listeners from others."
  def ours?(text), do: String.starts_with?(text, @prefix)
end
