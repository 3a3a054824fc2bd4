defmodule Legation.Counters do
  @moduledoc false
  # What one instance counts in Elixir. (What a session counts is in `Native.session_counters/1`.)

  @names [
    # Messages that were not delivered or not sent, by reason.
    :dropped_noproc,
    :dropped_forbidden,
    :dropped_filtered,
    :dropped_undecodable,
    :dropped_overload,
    :dropped_too_large,
    :dropped_identifiers,
    :dropped_bad_term,
    :dropped_ended,
    :dropped_other,
    # Calls of peers that were refused, whatever the reason.
    :calls_refused,
    # Links that failed before they were up, ours and others'.
    :handshakes_failed,
    # Of those: knocks that did not fit, and those for which there was no memory left; whom we dialled and who did not show the network key.
    :knocks_refused,
    :knock_memory_full,
    :answers_refused,
    :handshakes_timed_out,
    :hellos_unlisted,
    :hellos_duplicate,
    # Of those that failed: keys that have been replaced, and revoked ones.
    :hellos_stale_key,
    :hellos_revoked,
    :connections_accepted,
    :connections_evicted,
    # From an address that fails too often; and behind their knock, for want of a place.
    :connections_refused,
    :handshakes_refused,
    # Said in more than `handshake_reads` pieces.
    :handshakes_slowed,
    :accept_errors,
    # Links that we ended because the peer was silent, or too much from it failed verification.
    :links_silent,
    :links_abused,
    # Links that we closed before all that waited, and the goodbye, had left, or before the peer had closed behind it (`goodbye_ms`).
    :goodbyes_cut,
    # Sessions that we ended because the peer took too little (`overflow: :disconnect`).
    :sessions_overflowed,
    :global_names_taken,
    # Exit signals: of peers that policy refused, and ours that could not go.
    :exits_refused,
    :exits_dropped
  ]
  @index @names |> Enum.with_index(1) |> Map.new()

  # Peers choose neither names nor reasons: an unknown reason counts as `dropped_other`.
  @dropped for reason <- ~w(noproc forbidden filtered undecodable overload too_large identifiers bad_term ended)a,
               into: %{},
               do: {reason, Map.fetch!(@index, :"dropped_#{reason}")}

  def new, do: :counters.new(length(@names), [])

  def add(counters, name), do: :counters.add(counters, Map.fetch!(@index, name), 1)

  def dropped(counters, reason),
    do: :counters.add(counters, Map.get(@dropped, reason, Map.fetch!(@index, :dropped_other)), 1)

  # Of a session that is over these say nothing.
  @gauges ~w(queue_bytes resume_bytes lanes_held staged_bytes calls_pending calls_served rtt_ms acknowledged
             handles_exported handles_imported references_exported references_imported unproven_now)a

  @doc "Adds what a session has counted, now that it is over, to those before it."
  def add_session(before, counters) do
    Map.merge(before, counters |> Map.drop(@gauges) |> Map.put(:sessions, 1), fn _name, one, other -> one + other end)
  end

  def to_map(counters), do: Map.new(@index, fn {name, index} -> {name, :counters.get(counters, index)} end)
end
