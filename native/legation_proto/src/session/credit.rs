//! Credit: how much may be on its way to one engine, or wait in its mailbox (`protocol.md` 12.6).
//!
//! ```text
//!  sender, per destination                receiver, per destination
//!  Window: sent and not granted back  ──► Debts: received and not granted back
//!                                     ◄── CREDIT, when the mailbox has been looked at
//! ```
//!
//! **Invariants.** A message may go while less than the window is used, whatever it costs: so a message larger than the
//! window can go, and a sender that waits has used the whole window, of which at least half is owed by the receiver as soon as
//! it has come, which is when it looks. Both sides count the same messages at the same cost, also those that the receiver
//! drops, and what the sender counts is never less than what the receiver does. Where nothing is owed there is no entry.

use std::sync::Arc;

use crate::limits::DESTINATIONS_MAX;
use crate::session::named::Named;

/// A message of no bytes takes room in a mailbox, too.
const MESSAGE_COST: u64 = 64;

/// Debtors that are kept without a look at those that owe little.
const KEPT: usize = 1_024;

/// What a message takes of its destination's window.
pub(crate) fn cost(payload_bytes: usize) -> u64 {
    payload_bytes as u64 + MESSAGE_COST
}

/// The sender's half, of one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    used: u64,
}

impl Window {
    /// Whether a message may go.
    pub fn is_open(self, window: u64) -> bool {
        self.used < window
    }

    pub fn is_unused(self) -> bool {
        self.used == 0
    }

    pub fn charge(&mut self, cost: u64) {
        self.used += cost;
    }

    /// More than is used counts for nothing.
    pub fn granted(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }
}

/// The receiver's half.
#[derive(Debug)]
pub(crate) struct Debts {
    /// 0: no credit is asked for, and nothing kept.
    window: u64,
    debtors: Named<Debt>,
    /// Those that owe half a window or more,
    /// and perhaps some that did: they are sorted out when the list is gone through.
    due: Vec<u32>,
    /// Those whose grants have not gone out.
    granted: Vec<u32>,
    /// When there are so many debtors, those that owe little are looked at, too.
    sweep_at: usize,
    /// All messages that have come.
    received: u64,
    /// How often all of them have been handed to mailboxes.
    delivered: u64,
}

#[derive(Debug, Default)]
struct Debt {
    bytes: u64,
    messages: u64,
    /// To go out with the next CREDIT.
    granted: u64,
    /// In the list of those.
    due: bool,
    /// The last message's number: of all that have come before the first, and from there on of its own.
    last: u64,
    /// Of its messages, those that came since so many deliveries; no mailbox may have them yet.
    fresh: (u64, u64),
}

impl Debt {
    /// Up to which message they are in the mailbox, or were.
    fn mark(&self, deliveries: u64) -> u64 {
        match self.fresh {
            (since, messages) if since == deliveries => self.last - messages,
            _ => self.last,
        }
    }
}

impl Debts {
    pub fn new(window: u32) -> Debts {
        Debts {
            window: window.into(),
            debtors: Named::default(),
            due: Vec::new(),
            granted: Vec::new(),
            sweep_at: KEPT,
            received: 0,
            delivered: 0,
        }
    }

    /// What is left of a destination's window: a message may come while it isn't 0.
    pub fn left(&mut self, destination: &str) -> u64 {
        let known = self.debtors.find(destination).and_then(|number| self.debtors.get(number));
        match known {
            Some(debt) => self.window.saturating_sub(debt.bytes),
            None if self.debtors.len() >= DESTINATIONS_MAX => 0,
            None => self.window,
        }
    }

    /// So many messages have come, of so many bytes with what each costs; those past the window, too, whose senders have counted
    /// them as well.
    pub fn received(&mut self, destination: &str, messages: u64, bytes: u64) {
        let number = match self.debtors.find(destination) {
            Some(number) => number,
            None if self.debtors.len() >= DESTINATIONS_MAX => return,
            // Its numbers are above those of a debt that it had before: a mark of that one's says little of this one.
            None => {
                let last = self.received;
                self.debtors.find_or_insert(destination, || Debt { last, ..Debt::default() })
            }
        };
        let Some(debt) = self.debtors.get_mut(number) else { return };
        self.received += messages;
        debt.bytes += bytes;
        debt.messages += messages;
        debt.last += messages;
        debt.fresh = match debt.fresh {
            (since, fresh) if since == self.delivered => (since, fresh + messages),
            _ => (self.delivered, messages),
        };
        if !debt.due && 2 * debt.bytes >= self.window {
            debt.due = true;
            self.due.push(number);
        }
    }

    /// Mailboxes have all that has come.
    pub fn delivered(&mut self) {
        self.delivered += 1;
    }

    pub fn any_due(&self) -> bool {
        !self.due.is_empty() || self.debtors.len() >= self.sweep_at
    }

    /// Gives destination and messages of those whose mailboxes are to be looked at. True when there were any.
    pub fn each_due(&mut self, mut each: impl FnMut(&str, u64)) -> bool {
        if self.debtors.len() >= self.sweep_at {
            // At the bound it is always time: nothing new is taken until some have gone.
            self.sweep_at = (2 * self.debtors.len()).min(DESTINATIONS_MAX);
            for (_, name, debt) in self.debtors.iter().filter(|(_, _, debt)| debt.messages > 0) {
                each(name, debt.messages);
            }
            return true;
        }
        self.sweep_at = self.sweep_at.min((2 * self.debtors.len()).max(KEPT));
        let Debts { due, debtors, window, .. } = self;
        due.retain(|number| {
            let Some(debt) = debtors.get_mut(*number) else { return false };
            debt.due = 2 * debt.bytes >= *window;
            let (due, messages, over) = (debt.due, debt.messages, debt.messages == 0 && debt.granted == 0);
            if due {
                if let Some(name) = debtors.name(*number) {
                    each(name, messages);
                }
            } else if over {
                debtors.remove(*number);
            }
            due
        });
        !due.is_empty()
    }

    /// Up to which of a destination's messages its mailbox has them, or has had them.
    pub fn mark(&mut self, destination: &str) -> u64 {
        let debt = self.debtors.find(destination).and_then(|number| self.debtors.get(number));
        debt.map_or(self.received, |debt| debt.mark(self.delivered))
    }

    /// At most `left` of a destination's messages up to this mark are waiting still: the share of the others is granted. True
    /// when there is something to send.
    pub fn grant(&mut self, destination: &str, left: u64, mark: u64) -> bool {
        let Some(number) = self.debtors.find(destination) else { return false };
        let Some(debt) = self.debtors.get_mut(number) else { return false };
        // What has come since then may wait, all of it.
        let left = left.saturating_add(debt.last.saturating_sub(mark)).min(debt.messages);
        let processed = debt.messages - left;
        if processed == 0 {
            return false;
        }
        let bytes = match left {
            0 => debt.bytes,
            _ => (u128::from(debt.bytes) * u128::from(processed) / u128::from(debt.messages)) as u64,
        };
        debt.messages = left;
        debt.bytes -= bytes;
        if debt.granted == 0 {
            self.granted.push(number);
        }
        debt.granted += bytes;
        true
    }

    /// What is to be sent now.
    pub fn take_grants(&mut self) -> Vec<(Arc<str>, u32)> {
        let mut grants = Vec::with_capacity(self.granted.len());
        for number in std::mem::take(&mut self.granted) {
            let Some(name) = self.debtors.name(number).cloned() else { continue };
            let Some(debt) = self.debtors.get_mut(number) else { continue };
            let mut bytes = std::mem::take(&mut debt.granted);
            // One that is listed is taken off the list first.
            let owes_nothing = debt.messages == 0 && !debt.due;
            while bytes > 0 {
                let granted = u32::try_from(bytes).unwrap_or(u32::MAX);
                grants.push((name.clone(), granted));
                bytes -= u64::from(granted);
            }
            if owes_nothing {
                self.debtors.remove(number);
            }
        }
        grants
    }

    pub fn any_granted(&self) -> bool {
        !self.granted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const WINDOW: u32 = 10_000;

    /// Whether there was credit for it.
    fn receive(debts: &mut Debts, destination: &str, payload_bytes: usize) -> bool {
        let within = debts.left(destination) > 0;
        debts.received(destination, 1, cost(payload_bytes));
        within
    }

    fn due(debts: &mut Debts) -> Vec<(String, u64)> {
        let mut due = Vec::new();
        debts.each_due(|name, messages| due.push((name.to_owned(), messages)));
        due
    }

    fn taken(debts: &mut Debts) -> Vec<(String, u32)> {
        debts.take_grants().into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect()
    }

    #[test]
    fn a_destination_is_due_at_half_a_window_and_no_sooner() {
        let mut debts = Debts::new(WINDOW);
        assert!(receive(&mut debts, "ping", 4_999 - 64));
        assert!(!debts.any_due() && due(&mut debts).is_empty());
        let mut debts = Debts::new(WINDOW);
        assert!(receive(&mut debts, "ping", 5_000 - 64));
        assert!(debts.any_due());
        assert_eq!(due(&mut debts), [("ping".to_owned(), 1)]);
    }

    #[test]
    fn a_sender_goes_on_while_a_byte_of_the_window_is_left_and_no_further() {
        let mut window = Window::default();
        window.charge(u64::from(WINDOW) - 1);
        assert!(window.is_open(WINDOW.into()));
        window.charge(1);
        assert!(!window.is_open(WINDOW.into()));
        window.granted(1);
        assert!(window.is_open(WINDOW.into()));
    }

    #[test]
    fn a_message_within_the_window_is_taken_and_the_next_past_it_is_not() {
        let mut debts = Debts::new(WINDOW);
        assert!(receive(&mut debts, "ping", 9_999 - 64));
        assert!(receive(&mut debts, "ping", 1_000_000), "a byte of the window was left");
        assert!(!receive(&mut debts, "ping", 0));
        assert!(receive(&mut debts, "pong", 0), "another's");
    }

    #[test]
    fn what_a_mailbox_has_let_go_is_granted_in_proportion_and_the_rest_when_it_is_empty() {
        let mut debts = Debts::new(WINDOW);
        for _ in 0..10 {
            receive(&mut debts, "ping", 936);
        }
        for (name, left) in [("ping", 10), ("ping", 11), ("pong", 0)] {
            assert!(!debts.grant(name, left, u64::MAX));
        }
        assert!(debts.grant("ping", 7, u64::MAX));
        assert_eq!(taken(&mut debts), [("ping".to_owned(), 3_000)]);
        assert_eq!(due(&mut debts), [("ping".to_owned(), 7)], "still more than half");
        assert!(debts.grant("ping", 2, u64::MAX) && debts.grant("ping", 0, u64::MAX));
        assert_eq!(taken(&mut debts), [("ping".to_owned(), 7_000)]);
        assert!(due(&mut debts).is_empty() && debts.debtors.len() == 0);
    }

    #[test]
    fn what_comes_while_a_mailbox_is_looked_at_is_not_taken_to_be_worked_off() {
        let mut debts = Debts::new(WINDOW);
        for _ in 0..6 {
            receive(&mut debts, "ping", 936);
        }
        // Two are still on their way to the mailbox.
        debts.delivered();
        receive(&mut debts, "ping", 936);
        receive(&mut debts, "ping", 936);
        assert_eq!(debts.mark("ping"), 6);
        debts.delivered();
        // The answer is from before they got there, and before two more came.
        receive(&mut debts, "ping", 936);
        assert!(!debts.grant("ping", 6, 6));
        assert_eq!(debts.mark("ping"), 8, "one is not there yet");
        assert!(debts.grant("ping", 6, 8), "two are worked off");
        assert_eq!(taken(&mut debts), [("ping".to_owned(), 2_000)]);
    }

    #[test]
    fn a_mark_of_before_a_debt_was_forgotten_grants_nothing_of_the_next() {
        let mut debts = Debts::new(WINDOW);
        (0..6).for_each(|_| assert!(receive(&mut debts, "ping", 936)));
        debts.delivered();
        assert!(debts.grant("ping", 0, 6));
        taken(&mut debts);
        due(&mut debts);
        assert_eq!(debts.debtors.len(), 0);
        (0..6).for_each(|_| assert!(receive(&mut debts, "ping", 936)));
        debts.delivered();
        assert!(!debts.grant("ping", 0, 6));
        assert!(debts.grant("ping", 0, 12));
    }

    #[test]
    fn many_that_owe_little_are_looked_at_once_there_are_many() {
        let mut debts = Debts::new(WINDOW);
        for number in 0..KEPT - 1 {
            receive(&mut debts, &number.to_string(), 1);
        }
        assert!(!debts.any_due());
        receive(&mut debts, "one more", 1);
        assert!(debts.any_due());
        let all = due(&mut debts);
        assert_eq!(all.len(), KEPT);
        assert!(!debts.any_due(), "not again before there are twice as many");
        all.iter().for_each(|(name, _)| assert!(debts.grant(name, 0, u64::MAX)));
        assert_eq!(taken(&mut debts).len(), KEPT);
        assert_eq!(debts.debtors.len(), 0);
        due(&mut debts);
        assert_eq!(debts.sweep_at, KEPT);
    }

    #[test]
    fn debtors_are_bounded_at_the_limit_and_one_past_it() {
        let mut debts = Debts::new(WINDOW);
        assert!((0..DESTINATIONS_MAX).all(|number| receive(&mut debts, &number.to_string(), 1)));
        assert!(!receive(&mut debts, "one more", 1));
        assert!(receive(&mut debts, "0", 1), "one that is known");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Send(u8, usize),
        Look(u8, u64),
        Flush,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..3, 0usize..4_000).prop_map(|(name, bytes)| Step::Send(name, bytes)),
            2 => (0u8..3, 0u64..12).prop_map(|(name, left)| Step::Look(name, left)),
            1 => Just(Step::Flush),
        ]
    }

    proptest! {
        /// A sender that keeps to its window is never past it at the receiver, and never waits for ever.
        #[test]
        fn both_halves_agree(steps in prop::collection::vec(step(), 1..200)) {
            let mut debts = Debts::new(WINDOW);
            let mut windows: HashMap<String, Window> = HashMap::new();
            for step in steps {
                match step {
                    Step::Send(name, bytes) => {
                        let window = windows.entry(name.to_string()).or_default();
                        if window.is_open(WINDOW.into()) {
                            window.charge(cost(bytes));
                            prop_assert!(receive(&mut debts, &name.to_string(), bytes));
                        } else if !debts.any_granted() {
                            let due = due(&mut debts);
                            prop_assert!(due.iter().any(|(due, _)| *due == name.to_string()), "waits, and is not due");
                        }
                    }
                    Step::Look(name, left) => {
                        debts.grant(&name.to_string(), left, u64::MAX);
                    }
                    Step::Flush => {
                        for (name, bytes) in taken(&mut debts) {
                            windows.get_mut(&name).unwrap().granted(bytes.into());
                        }
                    }
                }
            }
            for name in windows.keys() {
                debts.grant(name, 0, u64::MAX);
            }
            for (name, bytes) in taken(&mut debts) {
                windows.get_mut(&name).unwrap().granted(bytes.into());
            }
            prop_assert!(windows.values().all(|window| window.is_unused()));
            prop_assert!(due(&mut debts).is_empty());
            prop_assert_eq!(debts.debtors.len(), 0);
        }
    }
}
