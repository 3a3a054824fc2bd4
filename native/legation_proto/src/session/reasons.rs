//! Reason terms of the peer's that have come, until the end comes that they belong to (`protocol.md` 10.9).

use std::collections::HashMap;

use crate::limits::{REASONS_MAX, REASON_BYTES_MAX};
use crate::session::ReasonTerm;

/// Whose end it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    Handle(u64),
    Engine(Box<str>),
}

#[derive(Debug)]
pub(crate) struct Reason {
    pub payload: Box<[u8]>,
    pub handles: bool,
}

impl Reason {
    pub fn term(&self) -> ReasonTerm<'_> {
        ReasonTerm { payload: &self.payload, handles: self.handles }
    }
}

/// What has become of a reason.
#[derive(Debug)]
pub(crate) enum Put {
    Kept,
    Replaced(Reason),
    Full(Reason),
}

/// Bounded: what the peer never ends, or ends too much of at once, is told by its class.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    waiting: HashMap<Whose, Reason>,
    bytes: usize,
}

impl Reasons {
    /// Gives back what is not kept: the earlier one of the same, or this one when there is no room.
    pub fn put(&mut self, whose: Whose, reason: Reason) -> Put {
        let earlier = self.waiting.get(&whose);
        let others = self.bytes - earlier.map_or(0, |earlier| earlier.payload.len());
        let full = earlier.is_none() && self.waiting.len() >= REASONS_MAX;
        if full || others + reason.payload.len() > REASON_BYTES_MAX {
            return Put::Full(reason);
        }
        self.bytes = others + reason.payload.len();
        match self.waiting.insert(whose, reason) {
            Some(earlier) => Put::Replaced(earlier),
            None => Put::Kept,
        }
    }

    pub fn take(&mut self, whose: &Whose) -> Option<Reason> {
        let reason = self.waiting.remove(whose)?;
        self.bytes -= reason.payload.len();
        Some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded_by_number_and_by_bytes_and_each_is_taken_once() {
        let mut reasons = Reasons::default();
        let reason = |bytes: usize, handles| Reason { payload: vec![0; bytes].into(), handles };
        let ping = || Whose::Engine("ping".into());
        for number in 0..REASONS_MAX as u64 {
            assert!(matches!(reasons.put(Whose::Handle(number), reason(1, false)), Put::Kept));
        }
        assert!(matches!(reasons.put(ping(), reason(1, false)), Put::Full(_)));
        assert!(reasons.take(&Whose::Handle(1)).is_some());
        assert!(reasons.take(&Whose::Handle(1)).is_none());
        let room = REASON_BYTES_MAX - reasons.bytes;
        assert!(matches!(reasons.put(ping(), reason(room + 1, false)), Put::Full(_)));
        assert!(matches!(reasons.put(ping(), reason(room, true)), Put::Kept));
        assert!(matches!(reasons.put(ping(), reason(room, false)), Put::Replaced(Reason { handles: true, .. })));
        assert_eq!(reasons.bytes, REASON_BYTES_MAX);
    }
}
