//! Which of two links with one peer lives.
//!
//! Two realms may dial each other at once, and a restarted peer dials while its old link still seems alive. Both sides
//! decide by the same facts, so that one link remains: pure functions, asked when a peer says hello to us and when a
//! link is up.
//!
//! * *initiator*: who dialled, we (true) or the peer.
//! * *lower*: whether our realm id is the lower of the two; the lower one's dial counts.
//! * *young*: the link we have came up within the time of a handshake, so the other was on its way at the same time.

/// A dial that has not come about within this must not keep the peer's dial out: who answered may not be the peer.
const DIALLING_MS: u64 = 1_000;

/// The link that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    pub initiator: bool,
    pub up_ms: u64,
}

/// What both questions look at.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub current: Option<Current>,
    pub lower: bool,
    pub now_ms: u64,
    pub handshake_ms: u64,
}

impl Facts {
    fn young(&self, current: &Current) -> bool {
        self.now_ms.saturating_sub(current.up_ms) < self.handshake_ms
    }
}

/// The peer dialled and said hello: may it come in? `dial_ms`: since when we are dialling it, once somebody has answered.
pub fn hello_is_welcome(facts: &Facts, dial_ms: Option<u64>) -> bool {
    match (&facts.current, dial_ms) {
        (Some(current), _) if current.initiator && facts.lower => !facts.young(current),
        (None, Some(since_ms)) if facts.lower => facts.now_ms.saturating_sub(since_ms) >= DIALLING_MS,
        _ => true,
    }
}

/// A link is up: does it take the place of the one we have?
pub fn takes_over(facts: &Facts, initiator: bool) -> bool {
    match &facts.current {
        None => true,
        // The same side dialled again: it knows better than we that the old link is gone.
        Some(current) if current.initiator == initiator => true,
        Some(current) => !facts.young(current) || initiator == facts.lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 100_000;
    const HANDSHAKE_MS: u64 = 5_000;

    fn facts(current: Option<Current>, lower: bool) -> Facts {
        Facts { current, lower, now_ms: NOW_MS, handshake_ms: HANDSHAKE_MS }
    }

    fn current(initiator: bool, age_ms: u64) -> Option<Current> {
        Some(Current { initiator, up_ms: NOW_MS - age_ms })
    }

    #[test]
    fn a_first_hello_is_welcome() {
        assert!(hello_is_welcome(&facts(None, true), None));
        assert!(hello_is_welcome(&facts(None, false), None));
    }

    #[test]
    fn of_two_dials_at_once_the_lower_realms_counts() {
        let dialling = Some(NOW_MS - 999);
        assert!(!hello_is_welcome(&facts(None, true), dialling));
        assert!(hello_is_welcome(&facts(None, false), dialling));
        // Ours may lead nowhere.
        assert!(hello_is_welcome(&facts(None, true), Some(NOW_MS - 1_000)));
    }

    #[test]
    fn a_hello_beside_a_young_link_of_the_lower_realm_is_turned_away() {
        assert!(!hello_is_welcome(&facts(current(true, HANDSHAKE_MS - 1), true), None));
        assert!(hello_is_welcome(&facts(current(true, HANDSHAKE_MS), true), None));
        // The higher realm's dial, or the peer's own again.
        assert!(hello_is_welcome(&facts(current(true, 0), false), None));
        assert!(hello_is_welcome(&facts(current(false, 0), true), None));
    }

    #[test]
    fn the_first_link_and_the_same_sides_next_one_take_the_place() {
        for (lower, initiator) in [(true, true), (true, false), (false, true), (false, false)] {
            assert!(takes_over(&facts(None, lower), initiator));
            assert!(takes_over(&facts(current(initiator, 0), lower), initiator));
        }
    }

    #[test]
    fn both_sides_keep_the_same_one_of_two_young_links() {
        for young_ms in [0, HANDSHAKE_MS - 1] {
            // The lower realm's dial came up first, or last: it stays. As the lower sees it, and as the higher does.
            assert!(!takes_over(&facts(current(true, young_ms), true), false));
            assert!(!takes_over(&facts(current(false, young_ms), false), true));
            assert!(takes_over(&facts(current(false, young_ms), true), true));
            assert!(takes_over(&facts(current(true, young_ms), false), false));
        }
    }

    #[test]
    fn an_old_link_gives_way_whoever_dialled() {
        for (lower, initiator) in [(true, false), (false, true)] {
            assert!(takes_over(&facts(current(!initiator, HANDSHAKE_MS), lower), initiator));
        }
    }
}
