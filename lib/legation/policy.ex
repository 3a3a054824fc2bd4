defmodule Legation.Policy do
  @moduledoc false
  # What a peer may do here: which engines it may reach, by which operations, with which contents. Pure; compiled once
  # per peer and looked at for each message.
  #
  # Nothing is allowed that is not said: no engine is exported by default, and of the operations only call, cast and
  # send. `:sys` (system messages: state, suspend, terminate) and `:event` (gen_event's labelled calls) are asked for by name.

  require Logger
  import Bitwise
  alias Legation.Telemetry

  @enforce_keys [:realm, :all, :engines]
  defstruct [:realm, :all, :engines]

  @operations [:call, :cast, :send, :sys, :event]
  # protocol.md 11.1
  @bits %{call: 1, cast: 2, send: 4, monitor: 8, link: 16, exit: 32, sys: 64, event: 128}
  # These run code of the caller's choice in the event manager.
  @manage_handlers [:add_handler, :add_sup_handler, :delete_handler, :swap_handler, :swap_sup_handler]

  def operations, do: @operations

  @doc "From the peer's options."
  def compile(%{realm: realm, export: export, allow: allow, filter: filter}) do
    default = {MapSet.new(allow), filter}

    {all, engines} =
      case export do
        :all -> {default, %{}}
        list -> {nil, Map.new(list, &engine(&1, allow, filter))}
      end

    %__MODULE__{realm: realm, all: all, engines: engines}
  end

  defp engine({name, opts}, allow, filter),
    do: {name, {MapSet.new(Keyword.get(opts, :allow, allow)), Keyword.get(opts, :filter, filter)}}

  defp engine(name, allow, filter), do: {name, {MapSet.new(allow), filter}}

  @doc "Whether the peer may know of this engine, which was published `to` these realms."
  def exported?(%__MODULE__{} = policy, engine, to), do: published_to?(policy.realm, to) and rule(policy, engine) != nil

  defp published_to?(_realm, :all), do: true
  defp published_to?(realm, realms), do: realm in realms

  @doc """
  Whether this message may pass. `info` gives what a filter sees, `%{realm:, engine:, source:, op:, message:}`, and is
  called only when it is needed.
  """
  def allowed(%__MODULE__{} = policy, engine, operation, info) do
    case rule(policy, engine) do
      nil ->
        {:refuse, :forbidden}

      {allow, filter} ->
        if operation in allow and handlers_allowed?(operation, allow, info) do
          filtered(filter, info, policy.realm)
        else
          {:refuse, :forbidden}
        end
    end
  end

  defp rule(%{all: nil, engines: engines}, engine), do: Map.get(engines, engine)
  defp rule(%{all: rule}, _engine), do: rule

  defp handlers_allowed?(:event, allow, info) do
    :sys in allow or
      case info.().message do
        :stop -> false
        request when is_tuple(request) and tuple_size(request) > 0 -> elem(request, 0) not in @manage_handlers
        _request -> true
      end
  end

  defp handlers_allowed?(_operation, _allow, _info), do: true

  defp filtered(nil, _info, _realm), do: :ok

  defp filtered(filter, info, realm) do
    if run(filter, info.()) == true, do: :ok, else: {:refuse, :filtered}
  catch
    kind, reason ->
      # A filter that fails has not said yes.
      Telemetry.log(
        :error,
        {:filter, realm},
        "the filter for #{realm} failed: #{Exception.format_banner(kind, reason)}"
      )

      {:refuse, :filtered}
  end

  defp run({module, function}, info), do: apply(module, function, [info])
  defp run(filter, info), do: filter.(info)

  @doc "Operations as the bits that announcements carry."
  def ops_bits(operations), do: Enum.reduce(operations, 0, &(Map.fetch!(@bits, &1) ||| &2))

  @doc "And back."
  def ops_list(bits), do: for({operation, bit} <- @bits, (bits &&& bit) != 0, do: operation) |> Enum.sort()
end
