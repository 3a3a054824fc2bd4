//! Messages that come in fragments, while they are put together.
//!
//! Senders make all fragments but the last equally large. From its first fragment a message's size is therefore known but for
//! less than one fragment, and whether it is welcome is decided there, before anything is kept. Should a sender do otherwise, the bounds hold all the
//! same: they are looked at again whenever a fragment is added.

use std::collections::HashMap;

use super::{InboundConfig, InboundError};

#[derive(Debug)]
pub(super) struct Fragments {
    count_max: usize,
    bytes_max: usize,
    message_bytes_max: usize,
    /// What all sequences are expected to need.
    bytes: usize,
    sequences: HashMap<u64, Sequence>,
}

#[derive(Debug)]
struct Sequence {
    /// Of the fragment that came last.
    number: u64,
    /// What this one is expected to need.
    expected: usize,
    control_bytes: usize,
    /// A byte to spare, control message, payload.
    bytes: Vec<u8>,
}

/// What became of a first fragment. Unless kept, the fragments that follow it are nobody's.
pub(super) enum Begun {
    Kept,
    /// More than a message may be.
    TooLarge,
    /// There are too many already, or they need too much.
    Refused,
}

/// What became of another one. Bytes: a spare one, control message, payload (so far).
pub(super) enum Added {
    Pending,
    Unknown,
    Complete(Vec<u8>),
    TooLarge(Vec<u8>),
    Refused(Vec<u8>),
}

impl Fragments {
    pub fn new(config: &InboundConfig) -> Fragments {
        Fragments {
            count_max: config.fragmented_max,
            bytes_max: config.fragmented_bytes_max,
            message_bytes_max: config.message_bytes_max,
            bytes: 0,
            sequences: HashMap::new(),
        }
    }

    pub fn contains(&self, sequence: u64) -> bool {
        self.sequences.contains_key(&sequence)
    }

    /// A first fragment, of `number` in all (at least 2). `body`: control message, as long as said, and a part of the payload.
    pub fn begin(&mut self, sequence: u64, number: u64, body: &[u8], control_bytes: usize) -> Begun {
        let body_bytes_max = control_bytes.saturating_add(self.message_bytes_max).saturating_sub(1);
        let others = usize::try_from(number - 1).unwrap_or(usize::MAX);
        // All but the last, and the last has at least a byte.
        let least = body.len().saturating_mul(others).saturating_add(1);
        if least > body_bytes_max || body.len() > body_bytes_max {
            return Begun::TooLarge;
        }
        let expected = body.len().saturating_mul(others.saturating_add(1)).min(body_bytes_max);
        if self.sequences.len() >= self.count_max || self.bytes.saturating_add(expected) > self.bytes_max {
            return Begun::Refused;
        }
        self.bytes += expected;
        let mut bytes = Vec::with_capacity(1 + expected);
        bytes.push(0);
        bytes.extend_from_slice(body);
        self.sequences.insert(sequence, Sequence { number, expected, control_bytes, bytes });
        Begun::Kept
    }

    /// The next fragment. Not `whole`: the beginning of one that is over the limit by itself.
    pub fn add(&mut self, sequence: u64, number: u64, part: &[u8], whole: bool) -> Result<Added, InboundError> {
        let Some(known) = self.sequences.get_mut(&sequence) else {
            return Ok(Added::Unknown);
        };
        let expected = known.number - 1;
        if number != expected {
            return Err(InboundError::FragmentOrder { sequence, expected, number });
        }
        let length = known.bytes.len() - 1 + part.len();
        if !whole || length - known.control_bytes >= self.message_bytes_max {
            return Ok(Added::TooLarge(self.end(sequence)));
        }
        if length > known.expected {
            let more = length - known.expected;
            if self.bytes + more > self.bytes_max {
                return Ok(Added::Refused(self.end(sequence)));
            }
            self.bytes += more;
            known.expected = length;
        }
        known.bytes.extend_from_slice(part);
        known.number = number;
        Ok(if number == 1 { Added::Complete(self.end(sequence)) } else { Added::Pending })
    }

    fn end(&mut self, sequence: u64) -> Vec<u8> {
        self.sequences.remove(&sequence).map_or(Vec::new(), |ended| {
            self.bytes -= ended.expected;
            ended.bytes
        })
    }
}
