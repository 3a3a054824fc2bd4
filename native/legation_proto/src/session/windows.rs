//! The messages of a batch as they use up credit: those to one destination that follow each other are counted together.

use std::sync::atomic::Ordering;

use crate::frame::batch::Item;
use crate::session::credit::cost;
use crate::session::{lock, Session};

/// Of one batch. What is left to count is counted when it goes out of scope.
pub(crate) struct Windows<'a> {
    session: &'a Session,
    destination: &'a str,
    /// What was left for it when the first of them came.
    left: u64,
    messages: u64,
    bytes: u64,
}

impl<'a> Windows<'a> {
    pub fn new(session: &'a Session) -> Windows<'a> {
        Windows { session, destination: "", left: 0, messages: 0, bytes: 0 }
    }

    /// Whether there was credit for it. What has no destination needs none.
    pub fn take(&mut self, item: &Item<'a>) -> bool {
        if self.session.shared.limits.credit_bytes == 0 || item.row.destination.is_empty() {
            return true;
        }
        if item.row.destination != self.destination {
            self.note();
            self.destination = item.row.destination;
            self.left = lock(&self.session.debts).left(self.destination);
        }
        let within = self.bytes < self.left;
        self.messages += 1;
        self.bytes += cost(item.payload.len());
        within
    }

    fn note(&mut self) {
        if self.messages == 0 {
            return;
        }
        let mut debts = lock(&self.session.debts);
        debts.received(self.destination, self.messages, self.bytes);
        if debts.any_due() {
            self.session.any_due.store(true, Ordering::Release);
        }
        (self.messages, self.bytes) = (0, 0);
    }
}

impl Drop for Windows<'_> {
    fn drop(&mut self) {
        self.note();
    }
}
