//! Who may take up a place while it has not proven who it is. Pure: the listener does what it says.
//!
//! Before the knock a place costs next to nothing, so there are many, and when they are full a random one is taken back:
//! whoever fills them all mostly evicts itself. After the knock it costs a key exchange: few places, and the newcomer is
//! turned away, unless its address had a session within the hour, for which as many places again are kept. An address
//! that fails too often within a second is turned away for the rest of that second.
//!
//! Connections are known by their tags. Time is whole seconds of any clock that doesn't go back.

use std::collections::HashMap;

use super::carrier::Place;

/// Addresses that are remembered. Beyond these an old friend is a stranger, no more.
const FRIENDS_MAX: usize = 1_024;
const FRIEND_S: u64 = 3_600;
/// Addresses that can fail within one second and be told apart. Beyond these nobody is turned away for it.
const FAILING_MAX: usize = 65_536;

#[derive(Debug)]
pub struct Admission {
    pending_max: usize,
    handshakes_max: usize,
    failures_per_s: u32,
    links: HashMap<u64, (Stage, Place)>,
    /// Tags of those before their knock, so that a random one is found at once.
    pending: Vec<u64>,
    handshakes: usize,
    second: u64,
    failures: HashMap<Place, u32>,
    /// When an address last had a session.
    friends: HashMap<Place, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// With its index in `pending`.
    Pending(usize),
    Handshake,
}

impl Admission {
    pub fn new(pending_max: usize, handshakes_max: usize, failures_per_s: u32) -> Admission {
        Admission {
            pending_max: pending_max.max(1),
            handshakes_max,
            failures_per_s,
            links: HashMap::new(),
            pending: Vec::new(),
            handshakes: 0,
            second: 0,
            failures: HashMap::new(),
            friends: HashMap::new(),
        }
    }

    /// May this address have a connection now?
    pub fn admits(&self, place: &Place, now_s: u64) -> bool {
        self.second != now_s || self.failures.get(place).is_none_or(|failures| *failures < self.failures_per_s)
    }

    /// It has one. Returns the tag of the connection that must go for it. `random` is any number.
    pub fn opened(&mut self, tag: u64, place: Place, random: u64) -> Option<u64> {
        let evicted = (self.pending.len() >= self.pending_max).then(|| self.evict(random)).flatten();
        self.links.insert(tag, (Stage::Pending(self.pending.len()), place));
        self.pending.push(tag);
        evicted
    }

    /// Its knock was accepted, or its first bytes were good. False when the places for handshakes are taken.
    pub fn knocked(&mut self, tag: u64, now_s: u64) -> bool {
        let Some((Stage::Pending(index), place)) = self.links.get(&tag).cloned() else {
            return true;
        };
        self.free(index);
        let max = match self.is_friend(&place, now_s) {
            true => self.handshakes_max.saturating_mul(2),
            false => self.handshakes_max,
        };
        if self.handshakes >= max {
            self.links.remove(&tag);
            return false;
        }
        self.handshakes += 1;
        self.links.insert(tag, (Stage::Handshake, place));
        true
    }

    /// Its session is up: it takes no place any more.
    pub fn up(&mut self, tag: u64, now_s: u64) {
        if let Some((stage, place)) = self.links.remove(&tag) {
            self.leave(stage);
            self.befriend(place, now_s);
        }
    }

    /// It has ended. If its session was never up it has failed.
    pub fn ended(&mut self, tag: u64, now_s: u64) {
        if let Some((stage, place)) = self.links.remove(&tag) {
            self.leave(stage);
            if stage == Stage::Handshake {
                self.failed(place, now_s);
            }
        }
    }

    /// Places taken before the knock.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// And behind it.
    pub fn handshakes(&self) -> usize {
        self.handshakes
    }

    fn evict(&mut self, random: u64) -> Option<u64> {
        // The remainder is below the number of places.
        let index = (random % self.pending.len().max(1) as u64) as usize;
        let tag = *self.pending.get(index)?;
        self.links.remove(&tag);
        self.free(index);
        Some(tag)
    }

    /// The last takes the place that becomes free.
    fn free(&mut self, index: usize) {
        self.pending.swap_remove(index);
        if let Some((stage, _)) = self.pending.get(index).and_then(|moved| self.links.get_mut(moved)) {
            *stage = Stage::Pending(index);
        }
    }

    fn leave(&mut self, stage: Stage) {
        match stage {
            Stage::Pending(index) => self.free(index),
            Stage::Handshake => self.handshakes -= 1,
        }
    }

    fn failed(&mut self, place: Place, now_s: u64) {
        if self.second != now_s {
            self.second = now_s;
            self.failures.clear();
        }
        if self.failures.len() < FAILING_MAX || self.failures.contains_key(&place) {
            *self.failures.entry(place).or_default() += 1;
        }
    }

    fn is_friend(&self, place: &Place, now_s: u64) -> bool {
        self.friends.get(place).is_some_and(|seen_s| now_s.saturating_sub(*seen_s) < FRIEND_S)
    }

    fn befriend(&mut self, place: Place, now_s: u64) {
        if self.friends.len() >= FRIENDS_MAX && !self.friends.contains_key(&place) {
            self.friends.retain(|_, seen_s| now_s.saturating_sub(*seen_s) < FRIEND_S);
        }
        if self.friends.len() < FRIENDS_MAX || self.friends.contains_key(&place) {
            self.friends.insert(place, now_s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Place = Place::Uid(1);
    const B: Place = Place::Uid(2);

    fn open(admission: &mut Admission, tags: std::ops::RangeInclusive<u64>) {
        tags.for_each(|tag| assert_eq!(admission.opened(tag, A, 0), None));
    }

    fn counts(admission: &Admission) -> (usize, usize) {
        (admission.pending(), admission.handshakes())
    }

    #[test]
    fn before_the_knock_all_stay_at_the_limit_and_one_past_it_one_goes() {
        let mut admission = Admission::new(3, 1, 1);
        assert_eq!([1, 2, 3].map(|tag| admission.opened(tag, A, 1)), [None; 3]);
        assert_eq!(admission.opened(4, A, 1), Some(2));
        assert_eq!(counts(&admission), (3, 0));
        // Whoever was moved into the freed place is found there.
        admission.ended(3, 0);
        assert_eq!(counts(&admission), (2, 0));
        assert!(admission.knocked(4, 0));
        admission.ended(1, 0);
        assert_eq!(counts(&admission), (0, 1));
        // Of the one that went nothing is left.
        admission.ended(2, 0);
        assert!(admission.knocked(2, 0));
        assert_eq!(counts(&admission), (0, 1));
    }

    #[test]
    fn any_may_be_the_one_that_goes() {
        let gone: Vec<Option<u64>> = (0..3)
            .map(|random| {
                let mut admission = Admission::new(3, 1, 1);
                open(&mut admission, 1..=3);
                admission.opened(4, A, random)
            })
            .collect();
        assert_eq!(gone, [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn behind_the_knock_the_newcomer_is_turned_away() {
        let mut admission = Admission::new(10, 2, 10);
        open(&mut admission, 1..=3);
        assert!(admission.knocked(1, 0));
        assert!(admission.knocked(2, 0));
        assert!(!admission.knocked(3, 0));
        assert_eq!(counts(&admission), (0, 2));
        // It has no place to lose.
        admission.ended(3, 0);
        assert_eq!(counts(&admission), (0, 2));
        admission.ended(1, 0);
        admission.opened(4, A, 0);
        assert!(admission.knocked(4, 0));
    }

    #[test]
    fn an_address_with_a_session_within_the_hour_has_as_many_places_again() {
        let mut admission = Admission::new(10, 1, 10);
        admission.opened(1, A, 0);
        assert!(admission.knocked(1, 0));
        admission.up(1, 0);
        assert_eq!(counts(&admission), (0, 0));
        open(&mut admission, 2..=3);
        admission.opened(4, B, 0);
        open(&mut admission, 5..=6);
        assert!(admission.knocked(2, FRIEND_S - 1));
        assert!(!admission.knocked(4, FRIEND_S - 1), "a stranger");
        assert!(admission.knocked(3, FRIEND_S - 1));
        assert!(!admission.knocked(5, FRIEND_S - 1), "one too many");
        admission.ended(3, FRIEND_S);
        assert!(!admission.knocked(6, FRIEND_S), "an hour later it is a stranger");
    }

    #[test]
    fn an_address_that_fails_too_often_is_turned_away_for_the_rest_of_the_second() {
        let mut admission = Admission::new(10, 10, 2);
        for tag in 1..=2 {
            assert!(admission.admits(&A, 7));
            admission.opened(tag, A, 0);
            admission.knocked(tag, 7);
            admission.ended(tag, 7);
        }
        assert!(!admission.admits(&A, 7));
        assert!(admission.admits(&B, 7));
        assert!(admission.admits(&A, 8));
    }

    #[test]
    fn who_goes_before_its_knock_has_not_failed() {
        let mut admission = Admission::new(10, 10, 1);
        for tag in 1..=5 {
            admission.opened(tag, A, 0);
            admission.ended(tag, 7);
        }
        assert!(admission.admits(&A, 7));
    }

    #[test]
    fn friends_and_failing_addresses_are_bounded_at_the_limit_and_one_past_it() {
        let mut admission = Admission::new(1, usize::MAX, 1);
        let places = |count: usize| (0..count as u32).map(Place::Uid);
        for (tag, place) in places(FRIENDS_MAX + 1).enumerate() {
            admission.opened(tag as u64, place, 0);
            admission.up(tag as u64, 10);
        }
        assert!(admission.is_friend(&Place::Uid(FRIENDS_MAX as u32 - 1), 10));
        assert!(!admission.is_friend(&Place::Uid(FRIENDS_MAX as u32), 10));
        // When the hour is over there is room again.
        admission.befriend(Place::Uid(FRIENDS_MAX as u32), 10 + FRIEND_S);
        assert!(admission.is_friend(&Place::Uid(FRIENDS_MAX as u32), 10 + FRIEND_S));

        places(FAILING_MAX + 1).for_each(|place| admission.failed(place, 7));
        assert!(!admission.admits(&Place::Uid(FAILING_MAX as u32 - 1), 7));
        assert!(admission.admits(&Place::Uid(FAILING_MAX as u32), 7));
    }
}
