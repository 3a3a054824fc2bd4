//! What each engine of the peer's has waiting, where one may not take all of the outbound queue.
//!
//! A share belongs to one destination and is found by name once per push; messages keep its number, so giving back what
//! was sent costs no look-up. Shares of engines for which nothing waits stay (most engines are written to again) until
//! there are many, and then go all at once.
//!
//! Under [`crate::limits::Overflow::Oldest`] the droppable messages of an engine form a chain through the waiting entries, so
//! that the oldest is found without a look at other engines' messages. A chain holds for one round: a flush that takes
//! the entries begins the next.

use crate::session::named::Named;

/// A message that counts against no engine.
pub(crate) const NO_SHARE: u32 = u32::MAX;

/// The end of a chain.
pub(crate) const END: u32 = u32::MAX;

/// Shares that are kept without a look at which are in use.
const KEPT: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Shares {
    bytes_max: usize,
    shares: Named<Share>,
    sweep_at: usize,
    round: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Waiting, or taken by a flush that has not sent them yet.
    bytes: usize,
    /// The chain, as indices of entries; meaningless but in its round.
    oldest: u32,
    newest: u32,
    round: u64,
}

impl Shares {
    pub fn new(bytes_max: usize) -> Shares {
        // A new share's round is 0: its chain is empty.
        Shares { bytes_max, shares: Named::default(), sweep_at: KEPT, round: 1 }
    }

    /// The share of an engine.
    pub fn of(&mut self, engine: &str) -> u32 {
        if let Some(share) = self.shares.find(engine) {
            return share;
        }
        if self.shares.len() >= self.sweep_at {
            self.sweep();
        }
        self.shares.find_or_insert(engine, Share::default)
    }

    /// A message larger than the bound may go if nothing of its engine waits: otherwise it never could.
    pub fn has_room(&self, share: u32, cost: usize) -> bool {
        let waiting = self.shares.get(share).map_or(0, |share| share.bytes);
        waiting == 0 || waiting + cost <= self.bytes_max
    }

    pub fn takes(&mut self, share: u32, cost: usize) {
        if let Some(share) = self.shares.get_mut(share) {
            share.bytes += cost;
        }
    }

    /// Sent or dropped.
    pub fn gives_back(&mut self, share: u32, cost: usize) {
        if let Some(share) = self.shares.get_mut(share) {
            share.bytes = share.bytes.saturating_sub(cost);
        }
    }

    /// All chains are empty from now on.
    pub fn next_round(&mut self) {
        self.round += 1;
    }

    /// The first of the chain, or [`END`].
    pub fn oldest(&self, share: u32) -> u32 {
        match self.shares.get(share) {
            Some(share) if share.round == self.round => share.oldest,
            _ => END,
        }
    }

    pub fn set_oldest(&mut self, share: u32, index: u32) {
        if let Some(share) = self.shares.get_mut(share) {
            share.oldest = index;
        }
    }

    /// Puts an entry at the chain's end. Returns the one before it, which has to point to it.
    pub fn append(&mut self, share: u32, index: u32) -> Option<u32> {
        let empty = self.oldest(share) == END;
        let round = self.round;
        let share = self.shares.get_mut(share)?;
        let before = (!empty).then_some(share.newest);
        *share = Share { oldest: if empty { index } else { share.oldest }, newest: index, round, ..*share };
        before
    }

    fn sweep(&mut self) {
        let unused = self.shares.iter().filter(|(_, _, share)| share.bytes == 0);
        let unused: Vec<u32> = unused.map(|(number, _, _)| number).collect();
        for number in unused {
            self.shares.remove(number);
        }
        // At most every other share is looked at again without having been used.
        self.sweep_at = KEPT.max(2 * self.shares.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_engines_for_which_nothing_waits_go_when_there_are_many() {
        let mut shares = Shares::new(100);
        let busy = shares.of("busy");
        shares.takes(busy, 64);
        for number in 0..10 * KEPT {
            let share = shares.of(&number.to_string());
            shares.takes(share, 64);
            shares.gives_back(share, 64);
            assert!(shares.shares.len() <= KEPT);
        }
        assert_eq!(shares.of("busy"), busy);
        assert!(!shares.has_room(busy, 37));
        assert!(shares.has_room(busy, 36));
    }

    #[test]
    fn shares_in_use_are_all_kept() {
        let mut shares = Shares::new(100);
        for number in 0..3 * KEPT {
            let share = shares.of(&number.to_string());
            shares.takes(share, 64);
        }
        assert_eq!(shares.shares.len(), 3 * KEPT);
        assert!((0..3 * KEPT).all(|number| {
            let share = shares.of(&number.to_string());
            !shares.has_room(share, 64)
        }));
    }
}
