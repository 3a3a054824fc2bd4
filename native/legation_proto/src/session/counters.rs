//! What a session counts. Atomics: read at any time without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter),* }

        impl Counters {
            pub(super) fn over(&self, bound: super::calls::Bound) {
                match bound {
                    super::calls::Bound::Calls => self.calls_over_limit.one(),
                    super::calls::Bound::Callers => self.callers_over_limit.one(),
                    // The tables of handles count it.
                    super::calls::Bound::Handles => {}
                }
            }

            /// Name and value of each.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get())),*]
            }
        }
    };
}

/// A number that goes up (or, for gauges, is set).
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
    pub fn one(&self) {
        self.add(1);
    }
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters! {
    messages_in, messages_out, batches_in, batches_out, payload_bytes_in, payload_bytes_out,
    /// Signatures made and checked for batches.
    signed, verified,
    /// Gauges: payload bytes that wait, messages of these that wait for their own destination, bytes kept until they are acknowledged, bytes of large
    /// payloads that are coming in, calls of ours and of theirs in flight, last
    /// round trip in ms, highest sequence that the peer has acknowledged.
    queue_bytes, lanes_held, resume_bytes, staged_bytes, calls_pending, calls_served, rtt_ms, acknowledged,
    /// Frames that came again after a change of links, and were passed over.
    replayed,
    /// Messages taken over from the session before, which had not signed them.
    adopted,
    /// Dropped on arrival, by reason (`protocol.md` names them).
    stale_session, duplicate, bad_signature, unknown_kind, disguised, late_reply, foreign_reply, stale_announcement, bad_announcement,
    engines_over_limit, bad_term, identifiers, too_large, undecodable, overload_in, duplicate_call, unknown_forget,
    /// Checkpoints, and messages of the peer's that were delivered and never proven.
    checkpoints_in, checkpoints_out, unproven,
    /// A gauge: messages that were delivered and are not proven yet.
    unproven_now,
    /// Fragments of large payloads, either way.
    fragments_in, fragments_out,
    /// Messages past the window of their destination, which were dropped or refused.
    credit_exceeded,
    /// Batches signed in a way that is not taken from this peer.
    mode_refused,
    /// Messages of a batch of the realm's online key from an engine for which it may not speak.
    not_delegated,
    /// Skipped frames of unknown, uncritical types.
    skipped_frames,
    /// New identity keys of the peer's.
    rotations,
    /// Which bound a refused call met, either way; they count in `overload_in` and `overload_out`, too.
    calls_over_limit, callers_over_limit,
    /// Gauges: processes and references of ours that the peer has, and of theirs that we have.
    handles_exported, handles_imported, references_exported, references_imported,
    /// How often there was no room for another process, and references that gave way to newer ones.
    handles_over_limit, references_evicted,
    /// Messages to a process that is not known (any more), either way.
    unknown_handle,
    /// Reason terms and releases that were left away.
    reasons_over_limit, releases_over_limit,
    /// Receipts that were not made, their messages being delivered without.
    receipts_over_limit,
    /// Callers that could not wait for room.
    room_waiters_over_limit,
    /// Of what was refused or dropped on the way out: what met the bound of its engine.
    engine_queue_over_limit,
    /// Refused or dropped on the way out.
    overload_out, dropped_oldest, expired, too_large_out, identifiers_out, bad_term_out,
}
