//! Who waits for room in the outbound queue: callers that would rather wait than be refused.
//!
//! **Invariants.** Tokens come back in the order in which they came, but that one whose destination is full doesn't hold up
//! others. No more come back at a time than there is room for; who comes too late for it, because others push as well,
//! waits again.

use std::collections::VecDeque;

/// Whether there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// By now: push again.
    Now,
    /// The token comes back by [`crate::session::Session::take_room`].
    Later,
    /// `room_waiters_max` wait already, or the message is larger than the whole queue.
    Full,
}

#[derive(Debug)]
struct Waiter {
    token: u64,
    destination: Box<str>,
    cost: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: VecDeque<Waiter>,
    served: Vec<u64>,
}

impl Waiters {
    /// Those who have not been served, and those who have and were not told.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.served.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn wait(&mut self, token: u64, destination: &str, cost: usize) {
        self.waiting.push_back(Waiter { token, destination: destination.into(), cost });
    }

    pub fn cancel(&mut self, token: u64) {
        self.waiting.retain(|waiter| waiter.token != token);
        self.served.retain(|served| *served != token);
    }

    /// `fits` tells whether so much more fits a destination.
    pub fn serve(&mut self, bytes: usize, bytes_max: usize, mut fits: impl FnMut(&str, usize) -> bool) {
        let mut left = bytes_max.saturating_sub(bytes);
        let served = &mut self.served;
        self.waiting.retain(|waiter| {
            let has_room = waiter.cost <= left && fits(&waiter.destination, waiter.cost);
            if has_room {
                left -= waiter.cost;
                served.push(waiter.token);
            }
            !has_room
        });
    }

    /// The session has ended: all of them push again, and are told.
    pub fn serve_all(&mut self) {
        self.served.extend(self.waiting.drain(..).map(|waiter| waiter.token));
    }

    pub fn take(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.served)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_in_order_and_no_more_than_there_is_room_for() {
        let mut waiters = Waiters::default();
        (1..=4).for_each(|token| waiters.wait(token, "ping", 10));
        waiters.serve(80, 100, |_, _| true);
        assert_eq!(waiters.take(), [1, 2]);
        waiters.cancel(3);
        waiters.serve(0, 100, |_, _| true);
        assert_eq!((waiters.take(), waiters.len()), (vec![4], 0));
    }

    #[test]
    fn one_whose_destination_is_full_does_not_hold_up_others() {
        let mut waiters = Waiters::default();
        waiters.wait(1, "full", 10);
        waiters.wait(2, "ping", 10);
        waiters.serve(0, 100, |destination, _| destination != "full");
        assert_eq!((waiters.take(), waiters.len()), (vec![2], 1));
        waiters.serve_all();
        assert_eq!(waiters.take(), [1]);
    }
}
