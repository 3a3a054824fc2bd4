//! Who dialled us and was not connected: what a status shows and a log says once.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dist::handshake::NodeName;

use super::dial::ConnectError;

/// The latest are remembered: for people, who look after one or two nodes at a time.
const REMEMBERED: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As it says.
    pub node: NodeName,
    pub error: ConnectError,
    /// How often in a row.
    pub times: u64,
}

#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<VecDeque<Refusal>>);

impl Refusals {
    /// True: this is new.
    pub(super) fn add(&self, node: &NodeName, error: &ConnectError) -> bool {
        let mut refusals = self.refusals();
        let same = |refusal: &&mut Refusal| refusal.node == *node && refusal.error == *error;
        if let Some(refusal) = refusals.iter_mut().find(same) {
            refusal.times += 1;
            return false;
        }
        if refusals.len() == REMEMBERED {
            refusals.pop_front();
        }
        refusals.push_back(Refusal { node: node.clone(), error: error.clone(), times: 1 });
        true
    }

    /// The node is connected.
    pub(super) fn forget(&self, node: &NodeName) {
        self.refusals().retain(|refusal| refusal.node != *node);
    }

    pub(super) fn read(&self) -> Vec<Refusal> {
        self.refusals().iter().cloned().collect()
    }

    fn refusals(&self) -> MutexGuard<'_, VecDeque<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_what_is_said_again_is_counted() {
        let refusals = Refusals::default();
        let node = |number: usize| NodeName::parse(&format!("n{number}@127.0.0.1")).expect("a good name");
        for number in 0..=REMEMBERED {
            assert!(refusals.add(&node(number), &ConnectError::TimedOut));
        }
        assert!(!refusals.add(&node(1), &ConnectError::TimedOut));
        assert!(refusals.add(&node(1), &ConnectError::NodesFull));
        let read = refusals.read();
        assert_eq!(read.len(), REMEMBERED);
        assert_eq!((&read[0].node, read[0].times), (&node(2), 1));
        refusals.forget(&node(1));
        assert!(refusals.read().iter().all(|refusal| refusal.node != node(1)));
    }
}
