//! What may not be left of a session, and what it never counts, between realms that keep the rules. The simulator and the model
//! hold their sessions to it.

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
