//! What the links of one realm count, apart from what each session counts (`docs/counters.md`).

use std::sync::atomic::{AtomicU64, Ordering};

use legation_proto::session::Counter;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub struct PeersCounters { $($(#[$doc])* pub $name: Counter),* }

        impl PeersCounters {
            /// Name and value of each.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get())),*]
            }
        }
    };
}

counters! {
    connections_accepted,
    /// Gave way before their knock.
    connections_evicted,
    /// From an address that fails too often.
    connections_refused,
    /// Behind their knock, for want of a place.
    handshakes_refused,
    /// Ended before they were up, ours and others'; the next four are among them.
    handshakes_failed,
    knocks_refused,
    knock_memory_full,
    answers_refused,
    handshakes_timed_out,
    hellos_unlisted,
    hellos_duplicate,
    /// Keys that have been replaced; keys that were revoked.
    hellos_stale_key,
    hellos_revoked,
    /// In more than `handshake_reads` pieces.
    handshakes_slowed,
    accept_errors,
    /// Links that were silent; sessions that were abused.
    links_silent,
    links_abused,
    /// Links that we closed before all that waited, and the goodbye, had left, or before the peer had closed behind it (`goodbye_ms`).
    goodbyes_cut,
    /// Sessions that were lost; of those: taken up again, and not in time.
    sessions_lost,
    sessions_resumed,
    sessions_not_resumed,
}

/// One line of log in so long, whatever somebody does to us.
const LOG_INTERVAL_MS: u64 = 10_000;

/// Holds log lines back that strangers can cause at any rate.
#[derive(Debug, Default)]
pub struct LogLimit {
    /// When the next may go.
    next_ms: AtomicU64,
    held_back: AtomicU64,
}

impl LogLimit {
    /// Whether a line may be written now, and then how many were held back since the one before.
    pub fn line(&self, now_ms: u64) -> Option<u64> {
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let taken = now_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(next_ms, now_ms.saturating_add(LOG_INTERVAL_MS), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if taken {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_listed_by_their_names() {
        let counters = PeersCounters::default();
        counters.links_silent.one();
        assert!(counters.all().contains(&("links_silent", 1)));
        assert!(counters.all().contains(&("connections_accepted", 0)));
    }

    #[test]
    fn one_line_goes_and_says_how_many_did_not() {
        let limit = LogLimit::default();
        assert_eq!(limit.line(0), Some(0));
        assert_eq!(limit.line(1), None);
        assert_eq!(limit.line(LOG_INTERVAL_MS - 1), None);
        assert_eq!(limit.line(LOG_INTERVAL_MS), Some(2));
        assert_eq!(limit.line(LOG_INTERVAL_MS + 1), None);
    }
}
