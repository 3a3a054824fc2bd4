defmodule Legation.Policy do
  @moduledoc false
  # What a peer may do with which of our engines. Pure; compiled once per peer and asked for every message.
  #
  # `allow:` of an engine replaces the peer's, `filter:` of an engine comes after the peer's: both must agree.

  import Bitwise

  alias Legation.Options.Peer
  alias Legation.Telemetry

  @enforce_keys [:realm, :rules, :rule]
  defstruct [:realm, :rules, :rule]

  @typedoc "Operations: what `allow:` lists."
  @type op :: :call | :cast | :send | :monitor | :link | :exit | :sys | :event

  @ops [:call, :cast, :send, :monitor, :link, :exit, :sys, :event]

  @doc "All operations."
  def ops, do: @ops

  # rules: :all, or by engine; rule: for all. A rule is {operations, filters}.
  @opaque t :: %__MODULE__{}

  # protocol.md 11.1
  @bits %{call: 1, cast: 2, send: 4, monitor: 8, link: 16, exit: 32, sys: 64, event: 128}

  # What changes or ends an event manager, as `:sys` does any process. By the head alone: more or fewer elements don't
  # make it harmless.
  @event_changes [
    :add_handler,
    :add_sup_handler,
    :delete_handler,
    :swap_handler,
    :swap_sup_handler,
    :stop
  ]

  @spec compile(Peer.t()) :: t
  def compile(%Peer{} = peer) do
    rule = {peer.allow, filters([peer.filter])}

    rules =
      case peer.export do
        :all -> :all
        engines -> Map.new(engines, fn {name, opts} -> {name, rule(opts, peer)} end)
      end

    %__MODULE__{realm: peer.realm, rules: rules, rule: rule}
  end

  defp rule(opts, peer), do: {opts[:allow] || peer.allow, filters([peer.filter, opts[:filter]])}

  defp filters(filters) do
    Enum.flat_map(filters, fn
      nil -> []
      {module, function} -> [Function.capture(module, function, 1)]
      fun when is_function(fun, 1) -> [fun]
    end)
  end

  @doc "May this peer know of the engine? `to`: what the engine's `publish` said, `:all` or a list of realms."
  @spec exported?(t, binary, :all | [binary]) :: boolean
  def exported?(%__MODULE__{rules: :all}, _engine, :all), do: true
  def exported?(%__MODULE__{rules: :all, realm: realm}, _engine, to), do: realm in to
  def exported?(%__MODULE__{rules: rules}, engine, :all), do: is_map_key(rules, engine)
  def exported?(%__MODULE__{rules: rules, realm: realm}, engine, to), do: is_map_key(rules, engine) and realm in to

  @doc """
  May this message be delivered? `message.()` makes what filters are given, with the decoded term under `:message`; it is
  called only where somebody must look at it.
  """
  @spec allowed(t, binary, op, (() -> map)) :: :ok | {:refuse, :forbidden | :filtered}
  def allowed(%__MODULE__{} = policy, engine, op, message) do
    case rule_of(policy, engine) do
      {ops, filters} -> if op in ops, do: agreed(policy, ops, filters, op, message), else: {:refuse, :forbidden}
      nil -> {:refuse, :forbidden}
    end
  end

  @doc "The same of a process whose pid was given to the peer: what stands for all engines holds for it."
  @spec allowed_process(t, op, (() -> map)) :: :ok | {:refuse, :forbidden | :filtered}
  def allowed_process(%__MODULE__{rule: {ops, filters}} = policy, op, message),
    do: if(op in ops, do: agreed(policy, ops, filters, op, message), else: {:refuse, :forbidden})

  @doc "May the peer hear how the engine, or with nil a process that it was given, has ended? Otherwise only that it is gone."
  @spec watched?(t, binary | nil) :: boolean
  def watched?(%__MODULE__{rule: {ops, _filters}}, nil), do: :monitor in ops

  def watched?(%__MODULE__{} = policy, engine) do
    case rule_of(policy, engine) do
      {ops, _filters} -> :monitor in ops
      nil -> false
    end
  end

  defp rule_of(%__MODULE__{rules: :all, rule: rule}, _engine), do: rule

  defp rule_of(%__MODULE__{rules: rules}, engine) do
    case rules do
      %{^engine => rule} -> rule
      _not_exported -> nil
    end
  end

  defp agreed(policy, ops, filters, :event, message) do
    message = message.()

    if event_change?(message.message) and :sys not in ops,
      do: {:refuse, :forbidden},
      else: filtered(filters, policy, message)
  end

  defp agreed(_policy, _ops, [], _op, _message), do: :ok
  defp agreed(policy, _ops, filters, _op, message), do: filtered(filters, policy, message.())

  defp event_change?(request) when is_tuple(request) and tuple_size(request) > 0,
    do: elem(request, 0) in @event_changes

  defp event_change?(request), do: request in @event_changes

  defp filtered([], _policy, _message), do: :ok

  defp filtered([filter | filters], policy, message) do
    if true == ask(filter, policy, message), do: filtered(filters, policy, message), else: {:refuse, :filtered}
  end

  # A filter that fails has not agreed. It runs in the Reader, so it must not take the link with it. What it failed on came from
  # the peer, so only the kind of failure is logged.
  defp ask(filter, policy, message) do
    filter.(message)
  catch
    kind, reason ->
      Telemetry.log(
        :error,
        {:filter, policy.realm, message.engine},
        "the filter for #{policy.realm} and #{message.engine} failed, so the message was refused: #{failure(kind, reason)}"
      )

      :failed
  end

  defp failure(:error, reason), do: inspect(Exception.normalize(:error, reason).__struct__)
  defp failure(kind, _reason), do: Atom.to_string(kind)

  @doc "Operations as the number that a LEARN carries."
  @spec ops_bits([op]) :: 0..0xFFFF
  def ops_bits(ops), do: Enum.reduce(ops, 0, &bor(Map.fetch!(@bits, &1), &2))

  @doc "And back."
  @spec ops_list(0..0xFFFF) :: [atom]
  def ops_list(bits), do: for({op, bit} <- @bits, band(bit, bits) != 0, do: op)
end
