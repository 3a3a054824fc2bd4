defmodule Legation.Instance do
  @moduledoc false
  # What every process of one running Legation needs, found by its name through `:persistent_term`: tables, identity,
  # options. Written by the Directory alone, once per start, since a change makes the VM look through all heaps.
  #
  # Tables (owned by the Directory and written by it alone, but for `stand_ins`; read by all):
  #   foreign    {full_name, proxy, realm, engine, counters, info}     engines of others, in the order of their names
  #   published  {engine, pid | registered name, to, receipts_pid}     our engines: what a peer can reach, and nothing else
  #   details    {engine, info}                                        the rest about our engines, off the hot path
  #   pids       {pid, engine}                                         under which name a process of ours signs
  #   realm_ids  {realm_id, realm, peer_pid}                           who may connect
  #   peers      {realm, status}
  #   sessions   {realm, tag, session, info}                           sessions, whether a link is up or not (`state: :up | :lost`)
  #   links      {tag, realm, channel, session, status}                links that are up
  #   stand_ins  {{session tag, number}, pid, used ms}                 of peers' processes; written by Readers, Peers and themselves
  #
  # `turns` has whose turn it is among several providers of one name (Legation.Providers).
  #
  # `ref` marks control messages to proxies and the like. References can't come over the wire, and this one is given
  # to nobody outside, so no message of a user or a peer is ever taken for a control message.

  # Crash reports show processes' states, and most hold this.
  @derive {Inspect, only: [:name]}
  @enforce_keys [:name, :transport, :ref, :options, :identity, :config]
  defstruct [
    :name,
    # A Legation.Transport.
    :transport,
    :ref,
    :options,
    :identity,
    :config,
    :foreign,
    :published,
    :details,
    :pids,
    :realm_ids,
    :peers,
    :sessions,
    :links,
    :turns,
    :stand_ins,
    :counters
  ]

  @type t :: %__MODULE__{}

  def put(%__MODULE__{name: name} = instance), do: :persistent_term.put({Legation, name}, instance)
  def erase(name), do: :persistent_term.erase({Legation, name})
  def lookup(name), do: :persistent_term.get({Legation, name}, nil)

  def fetch!(name) do
    case lookup(name) do
      nil -> raise ArgumentError, "no Legation named #{inspect(name)} is running"
      instance -> instance
    end
  end

  @doc "Every instance in this VM. Walks all persistent terms: for rare occasions."
  def all do
    for {{Legation, _name}, %__MODULE__{} = instance} <- :persistent_term.get(), do: instance
  end

  @doc "The registered name of a part of an instance. Made from names that the user and we wrote, never from the wire."
  def process(name, part), do: Module.concat(name, part)

  def limit(%__MODULE__{options: options}, key), do: options.limits[key]

  def full_name(%__MODULE__{options: options}, engine), do: engine <> "@" <> options.realm

  def now_ms, do: System.system_time(:millisecond)
end
