//! What may not be left of a session, and what it never counts, between realms that keep the rules; and what it never keeps more of,
//! whoever its peer is. The simulator, the model and fuzzing hold their sessions to it.

use legation_proto::limits::{Limits, BATCH_PAYLOAD_TARGET, FLUSH_TARGET};
use legation_proto::session::Session;

/// What has to be nothing when nothing moves.
pub const KEPT: [&str; 8] = [
    "queue_bytes",
    "lanes_held",
    "resume_bytes",
    "staged_bytes",
    "calls_pending",
    "calls_served",
    "unproven_now",
    "handles_exported",
];

/// What such realms never have to count of each other, whatever happens to what is between them.
pub const NEVER: [&str; 16] = [
    "stale_session",
    "duplicate",
    "bad_signature",
    "unknown_kind",
    "disguised",
    "foreign_reply",
    "bad_announcement",
    "stale_announcement",
    "bad_term",
    "identifiers",
    "too_large",
    "undecodable",
    "duplicate_call",
    "unknown_forget",
    "credit_exceeded",
    "not_delegated",
];

/// The first of `names` that a session has counted, and how much of it.
pub fn first(session: &Session, names: &[&str]) -> Option<(&'static str, u64)> {
    session.counters().all().into_iter().find(|(name, value)| *value > 0 && names.contains(name))
}

/// What a session keeps more of than it may, in bytes, messages and entries: what, how much, and how much it may be.
pub fn over(session: &Session, limits: &Limits) -> Vec<(&'static str, u64, u64)> {
    let counters = session.counters();
    let message = u64::from(limits.message_bytes_max);
    // Answers always go, and what has begun to go out goes; each of these may be one message past its bound.
    // The window is looked at before a flush: its last batch may be as far past its target as a batch is long.
    let one_flush = (FLUSH_TARGET + BATCH_PAYLOAD_TARGET) as u64 + 2 * message;
    let bounds = [
        ("queue_bytes", &counters.queue_bytes, 3 * limits.queue_bytes_max as u64),
        ("resume_bytes", &counters.resume_bytes, limits.resume_bytes_max as u64 + one_flush),
        ("staged_bytes", &counters.staged_bytes, message + 1024 * 1024),
        ("calls_pending", &counters.calls_pending, limits.calls_max as u64),
        ("calls_served", &counters.calls_served, limits.calls_max as u64),
        ("handles_imported", &counters.handles_imported, (limits.handles_max + limits.callers_max) as u64),
        ("handles_exported", &counters.handles_exported, limits.handles_max as u64),
        ("references_imported", &counters.references_imported, limits.references_max as u64),
        ("references_exported", &counters.references_exported, limits.references_max as u64),
        ("unproven_now", &counters.unproven_now, limits.unproven_messages_max),
    ];
    let all = bounds.iter().map(|(name, counter, bound)| (*name, counter.get(), *bound));
    all.filter(|(_, value, bound)| value > bound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_counter_of_a_session() {
        let counters = legation_proto::session::Counters::default().all();
        for name in KEPT.iter().chain(&NEVER) {
            assert!(counters.iter().any(|(counter, _)| counter == name), "{name}");
        }
    }
}
