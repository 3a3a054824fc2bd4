defmodule Legation.Providers do
  @moduledoc false
  # Which processes a name can stand for, and which of several is taken.
  #
  #   "store@bob"                            that engine
  #   {"store@bob", version: 4}              that engine, if its version is 4 or later
  #   {:any, "store", version: 4, …}         an engine of that name, whoever has it, this realm included
  #
  # Looked up in the tables of Legation.Instance, in the process that asks. `foreign` is ordered by `engine@realm`, and no engine's
  # name holds an `@`: all providers of one name stand in a row. Only `:least_pending` asks somebody: the sessions, or the daemon.

  alias Legation.{Directory, Instance}

  defmodule Provider do
    @moduledoc false
    defstruct [:name, :engine, :realm, :pid, :version, local: false, up: true]
  end

  @type name :: binary | {binary, keyword} | {:any, binary, keyword}

  # Whose turn it is, for each name and what is asked of it; those that share a number only share their turns. No more memory
  # than this, whatever is asked for.
  @turns 1_024

  @version_max 0xFFFFFFFF
  @picks [:first, :round_robin, :least_pending]

  def new_turns, do: :atomics.new(@turns, signed: false)

  @doc "The process behind a name, and whether it is one of ours; or nil. Raises for options that can't be meant."
  @spec locate(Instance.t(), name) :: {:own | :foreign, pid} | nil
  # What most sends and calls go through: nothing is made but the answer.
  def locate(%Instance{foreign: foreign} = instance, name) when is_binary(name) do
    case :ets.lookup(foreign, name) do
      [{_name, pid, _realm, _engine, _counts, _info}] -> {:foreign, pid}
      [] -> if pid = own_pid(instance, own_engine(instance, name)), do: {:own, pid}
    end
  end

  def locate(instance, name) do
    case find(instance, name) do
      %Provider{local: true, pid: pid} -> {:own, pid}
      %Provider{pid: pid} -> {:foreign, pid}
      nil -> nil
    end
  end

  defp find(instance, {name, opts}) when is_binary(name) and is_list(opts) do
    %{version: wanted} = options!(opts, [:version])
    provider = lookup(instance, name)
    if provider && fits?(provider, wanted), do: provider
  end

  defp find(instance, {:any, engine, opts}) when is_binary(engine) and is_list(opts) do
    opts = options!(opts, [:version, :realms, :pick])

    case list(instance, engine, opts) do
      [] -> nil
      [provider] -> provider
      several -> several |> reachable() |> pick(opts, instance, engine)
    end
  end

  # A name as Erlang may give it.
  defp find(_instance, _no_name), do: nil

  @doc "All that fit, this realm's first, then by realm; or in the order of `:realms`."
  @spec all(Instance.t(), binary, keyword) :: [%Provider{}]
  def all(instance, engine, opts), do: list(instance, engine, options!(opts, [:version, :realms]))

  ## Options

  defp options!(opts, known) do
    opts = Keyword.validate!(opts, known)

    %{
      version: version!(opts[:version]),
      realms: realms!(opts[:realms]),
      pick: pick!(Keyword.get(opts, :pick, :first))
    }
  end

  defp version!(nil), do: {0, @version_max}
  defp version!(min) when is_integer(min) and min >= 0, do: {min, @version_max}
  defp version!(%Range{first: min, last: max, step: 1}) when min >= 0, do: {min, max}
  defp version!({min, max}) when is_integer(min) and is_integer(max) and min >= 0, do: {min, max}
  defp version!(other), do: refuse!(:version, "a number, a range or {from, to}", other)

  defp realms!(nil), do: nil

  defp realms!(realms) do
    if is_list(realms) and Enum.all?(realms, &is_binary/1),
      do: Enum.uniq(realms),
      else: refuse!(:realms, "a list of realms", realms)
  end

  defp pick!(pick) when pick in @picks, do: pick
  defp pick!(other), do: refuse!(:pick, "one of #{inspect(@picks)}", other)

  defp refuse!(key, expected, got),
    do: raise(ArgumentError, "expected :#{key} to be #{expected}, got: #{inspect(got)}")

  defp fits?(%Provider{version: version}, {min, max}), do: version >= min and version <= max

  ## Looking up

  defp lookup(%Instance{foreign: foreign} = instance, full_name) do
    case :ets.lookup(foreign, full_name) do
      [row] -> foreign(row)
      [] -> own(instance, own_engine(instance, full_name))
    end
  end

  defp foreign({full_name, pid, realm, engine, _counts, info}),
    do: %Provider{name: full_name, engine: engine, realm: realm, pid: pid, version: info.version}

  defp own(instance, engine) do
    if pid = own_pid(instance, engine) do
      %Provider{
        name: Instance.full_name(instance, engine),
        engine: engine,
        realm: instance.options.realm,
        pid: pid,
        version: own_version(instance, engine),
        local: true
      }
    end
  end

  defp own_pid(%Instance{published: published}, engine) do
    case :ets.lookup(published, engine) do
      [{_name, target, _to, _receipts}] -> target |> Directory.resolve() |> alive()
      [] -> nil
    end
  end

  defp own_version(%Instance{details: details}, engine) do
    case :ets.lookup(details, engine) do
      [{_engine, %{version: version}}] when is_integer(version) -> version
      _unsaid -> 0
    end
  end

  # One that has just died, which the Directory doesn't know yet: its supervisor could not start it again by its `:via` name.
  defp alive(pid) when is_pid(pid) and node(pid) == node(), do: if(Process.alive?(pid), do: pid)
  defp alive(pid_or_nil), do: pid_or_nil

  @doc "`ping@alice` is `ping` at alice."
  def own_engine(%Instance{options: %{realm: realm}}, name), do: String.replace_suffix(name, "@" <> realm, "")

  ## Several

  defp list(instance, engine, %{realms: nil} = opts) do
    own = own(instance, engine)
    foreign = instance.foreign |> row(engine <> "@", engine <> "@") |> Enum.flat_map(&:ets.lookup(instance.foreign, &1))
    providers = if(own, do: [own], else: []) ++ Enum.map(foreign, &foreign/1)
    providers |> Enum.filter(&fits?(&1, opts.version)) |> with_links(instance)
  end

  defp list(instance, engine, %{realms: realms} = opts) do
    providers = for realm <- realms, provider = lookup(instance, engine <> "@" <> realm), do: provider
    providers |> Enum.filter(&fits?(&1, opts.version)) |> with_links(instance)
  end

  # The names that follow `name` and begin with `prefix`.
  defp row(table, name, prefix) do
    case :ets.next(table, name) do
      next when is_binary(next) ->
        if String.starts_with?(next, prefix), do: [next | row(table, next, prefix)], else: []

      :"$end_of_table" ->
        []
    end
  end

  defp with_links([], _instance), do: []

  defp with_links(providers, instance) do
    up = for [realm] <- :ets.match(instance.sessions, {:"$1", :_, :_, %{state: :up}}), into: MapSet.new(), do: realm
    for provider <- providers, do: %{provider | up: provider.local or provider.realm in up}
  end

  # What goes to a realm whose link is lost waits for it.
  defp reachable(providers) do
    case Enum.filter(providers, & &1.up) do
      [] -> providers
      up -> up
    end
  end

  defp pick([provider], _opts, _instance, _engine), do: provider
  defp pick(providers, %{pick: :first}, _instance, _engine), do: hd(providers)

  defp pick(providers, %{pick: :round_robin} = opts, instance, engine),
    do: Enum.at(providers, turn(instance, {engine, opts.version, opts.realms}, length(providers)))

  # Of those that have equally little to do, one after the other.
  defp pick(providers, %{pick: :least_pending} = opts, instance, engine) do
    pending = instance.transport.pending(instance, providers)
    least = Enum.min(pending)
    idle = for {provider, ^least} <- Enum.zip(providers, pending), do: provider
    pick(idle, %{opts | pick: :round_robin}, instance, engine)
  end

  defp turn(%Instance{turns: turns}, key, count),
    do: rem(:atomics.add_get(turns, :erlang.phash2(key, @turns) + 1, 1) - 1, count)

  ## Pending

  @doc """
  How many messages wait at a process of our own system. `:infinity` when it can't be known, which is more than any number.
  """
  @spec mailbox(pid) :: non_neg_integer | :infinity
  def mailbox(pid) when node(pid) == node() do
    case Process.info(pid, :message_queue_len) do
      {:message_queue_len, waiting} -> waiting
      nil -> :infinity
    end
  end

  def mailbox(pid) do
    {:message_queue_len, waiting} = :erpc.call(node(pid), :erlang, :process_info, [pid, :message_queue_len], 1_000)
    waiting
  catch
    _kind, _gone_or_unreachable -> :infinity
  end
end
