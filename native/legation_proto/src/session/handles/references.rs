//! References that cross: they end with the session, or when there are too many, the longest unused first.
//!
//! **Invariants.** `by_age` has each number once, under its reference's age; ages are given once, and using a reference
//! gives it the next.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::MoreThanSent;

/// References of one side.
#[derive(Debug, Default)]
pub(super) struct References {
    last: u64,
    /// Of ours only: theirs are found among the locals.
    pub by_raw: HashMap<Arc<[u8]>, u64>,
    pub by_number: HashMap<u64, Reference>,
    by_age: BTreeMap<u64, u64>,
    next_age: u64,
}

#[derive(Debug)]
pub(super) struct Reference {
    pub raw: Arc<[u8]>,
    /// Sent or received.
    pub count: u64,
    age: u64,
}

impl References {
    /// Counts a copy of ours that goes out, and gives its number.
    pub fn count_own(&mut self, raw: &[u8]) -> u64 {
        if let Some(number) = self.by_raw.get(raw).copied() {
            if let Some(reference) = self.by_number.get_mut(&number) {
                reference.count += 1;
            }
            self.touch(number);
            return number;
        }
        self.last += 1;
        let raw: Arc<[u8]> = raw.into();
        self.by_raw.insert(raw.clone(), self.last);
        self.insert(self.last, raw, 1);
        self.last
    }

    pub fn insert(&mut self, number: u64, raw: Arc<[u8]>, count: u64) {
        self.next_age += 1;
        self.by_age.insert(self.next_age, number);
        self.by_number.insert(number, Reference { raw, count, age: self.next_age });
    }

    pub fn touch(&mut self, number: u64) {
        if let Some(reference) = self.by_number.get_mut(&number) {
            self.by_age.remove(&reference.age);
            self.next_age += 1;
            reference.age = self.next_age;
            self.by_age.insert(reference.age, number);
        }
    }

    pub fn subtract(&mut self, number: u64, count: u64) -> Result<(), MoreThanSent> {
        let Some(reference) = self.by_number.get_mut(&number) else { return Ok(()) };
        reference.count = reference.count.checked_sub(count).ok_or(MoreThanSent)?;
        if reference.count == 0 {
            self.remove(number);
        }
        Ok(())
    }

    pub fn remove(&mut self, number: u64) -> Option<Reference> {
        let reference = self.by_number.remove(&number)?;
        self.by_age.remove(&reference.age);
        self.by_raw.remove(&reference.raw);
        Some(reference)
    }

    /// The one that is one too many.
    pub fn evict(&mut self, most: usize) -> Option<(u64, Reference)> {
        if self.by_number.len() <= most {
            return None;
        }
        let (_, number) = self.by_age.pop_first()?;
        Some((number, self.remove(number)?))
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_raw.is_empty() && self.by_number.is_empty() && self.by_age.is_empty()
    }
}
