//! What was sent and is not acknowledged: kept as it was sent, for the next link.
//!
//! ```text
//!  acknowledged │ first kept ................. │ next to send │ ................. last signed │
//!               └ dropped    └ sent on this link              └ again, after a change of links
//! ```
//!
//! Invariants: kept frames follow each other without a gap, and the last one's end is the session's last sent number;
//! `next` is at most their count; `bytes` is the sum of theirs. Signatures cover session and sequence, so what is sent
//! again is byte for byte what was sent before, and a receiver knows it by its number.
//!
//! The bound is a window: at it nothing new is signed until an acknowledgement comes. So nothing that was sent is ever
//! given up while its session lives, and a peer that takes everything and acknowledges nothing costs the bound.

use std::collections::VecDeque;

/// Where nothing is kept: so many frames are counted one by one, and those beyond together with the last of them.
const COUNTED_MAX: usize = 1_024;

#[derive(Debug)]
struct Kept {
    first: u64,
    /// Sequence numbers that it takes.
    count: u64,
    /// Of these, messages.
    messages: u64,
    bytes: Box<[u8]>,
}

#[derive(Debug)]
pub(crate) struct Replay {
    kept: VecDeque<Kept>,
    /// Index of the first that is to be sent on the link at hand.
    next: usize,
    bytes: usize,
    bytes_max: usize,
    acknowledged: u64,
    /// A flush has found the window closed.
    waited: bool,
    /// What the link at hand was told comes next was acknowledged before it was sent there.
    moved: bool,
}

impl Replay {
    /// `bytes_max` 0: nothing is kept but how many messages there were, and there is no window.
    pub fn new(bytes_max: usize) -> Replay {
        Replay { kept: VecDeque::new(), next: 0, bytes: 0, bytes_max, acknowledged: 0, waited: false, moved: false }
    }

    /// A frame with header, as it is being sent now.
    pub fn keep(&mut self, first: u64, count: u64, messages: u64, frame: &[u8]) {
        if self.bytes_max == 0 {
            return self.count_only(first, count, messages);
        }
        debug_assert_eq!(self.next, self.kept.len(), "what is to be sent again goes first");
        self.bytes += frame.len();
        self.kept.push_back(Kept { first, count, messages, bytes: frame.into() });
        self.next = self.kept.len();
    }

    /// Whoever owns the session is told how many messages may be lost with it, also where none can be sent again.
    fn count_only(&mut self, first: u64, count: u64, messages: u64) {
        match self.kept.back_mut().filter(|_| self.next >= COUNTED_MAX) {
            Some(last) => {
                last.count += count;
                last.messages += messages;
            }
            None => self.kept.push_back(Kept { first, count, messages, bytes: Box::default() }),
        }
        self.next = self.kept.len();
    }

    /// The window is closed: no new frame until [`Replay::acknowledge`] says so.
    pub fn must_wait(&mut self) -> bool {
        self.waited = self.bytes_max > 0 && self.bytes >= self.bytes_max;
        self.waited
    }

    /// All up to `sequence` was received. True: a flush that had to wait may go on.
    pub fn acknowledge(&mut self, sequence: u64) -> bool {
        self.acknowledged = self.acknowledged.max(sequence);
        while self.kept.front().is_some_and(|kept| kept.first + kept.count - 1 <= self.acknowledged) {
            if let Some(kept) = self.kept.pop_front() {
                self.bytes -= kept.bytes.len();
                self.moved |= self.next == 0;
                self.next = self.next.saturating_sub(1);
            }
        }
        let goes_on = self.waited && self.bytes < self.bytes_max;
        self.waited &= !goes_on;
        goes_on
    }

    /// Whether the peer has to be told anew which number comes next: it had more than was sent again.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Another link: everything is to be sent again. Returns the number of the first frame, or None when nothing is kept.
    pub fn rewind(&mut self) -> Option<u64> {
        if self.bytes_max == 0 {
            return None;
        }
        self.next = 0;
        self.kept.front().map(|kept| kept.first)
    }

    /// Appends what is to be sent again until `out` has `target` bytes. True: there is more.
    pub fn send(&mut self, out: &mut Vec<u8>, target: usize) -> bool {
        while let Some(kept) = self.kept.get(self.next) {
            if out.len() >= target {
                return true;
            }
            out.extend_from_slice(&kept.bytes);
            self.next += 1;
        }
        false
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages of which nobody knows whether they have arrived.
    pub fn messages(&self) -> u64 {
        self.kept.iter().map(|kept| kept.messages).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(replay: &mut Replay) -> Vec<u8> {
        let mut out = Vec::new();
        while replay.send(&mut out, usize::MAX) {}
        out
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_in_order() {
        let mut replay = Replay::new(100);
        replay.keep(1, 2, 2, b"ab");
        replay.keep(3, 1, 0, b"c");
        replay.keep(4, 3, 3, b"def");
        assert_eq!(sent(&mut replay), b"", "it has just been sent");
        replay.acknowledge(2);
        assert_eq!(replay.rewind(), Some(3));
        assert_eq!(sent(&mut replay), b"cdef");
        assert_eq!(replay.messages(), 3);
        replay.acknowledge(6);
        assert_eq!((replay.rewind(), replay.bytes(), replay.messages()), (None, 0, 0));
    }

    #[test]
    fn a_frame_is_kept_until_its_last_message_is_acknowledged() {
        let mut replay = Replay::new(100);
        replay.keep(1, 3, 3, b"abc");
        replay.keep(4, 1, 1, b"d");
        for part in [1, 2] {
            replay.acknowledge(part);
            assert_eq!((replay.rewind(), replay.bytes()), (Some(1), 4));
            assert_eq!(sent(&mut replay), b"abcd");
        }
        replay.acknowledge(3);
        assert_eq!((replay.rewind(), replay.bytes()), (Some(4), 1));
    }

    #[test]
    fn an_acknowledgement_while_it_is_sent_again_keeps_the_place() {
        let mut replay = Replay::new(100);
        for (number, frame) in [b"a", b"b", b"c", b"d"].into_iter().enumerate() {
            replay.keep(number as u64 + 1, 1, 1, frame);
        }
        replay.rewind();
        let mut out = Vec::new();
        assert!(replay.send(&mut out, 2));
        assert_eq!(out, b"ab");
        replay.acknowledge(1);
        assert_eq!(sent(&mut replay), b"cd");
        assert!(!replay.take_moved());
        // The peer had more than we have sent again.
        replay.rewind();
        replay.acknowledge(3);
        assert!(replay.take_moved());
        assert_eq!(replay.rewind(), Some(4));
        assert_eq!(sent(&mut replay), b"d");
        assert!(!replay.take_moved());
    }

    #[test]
    fn where_nothing_is_kept_it_is_counted_how_much_may_be_lost() {
        let mut replay = Replay::new(0);
        replay.keep(1, 2, 2, b"ab");
        replay.keep(3, 1, 0, b"c");
        assert_eq!((replay.messages(), replay.bytes(), replay.must_wait()), (2, 0, false));
        replay.acknowledge(3);
        assert_eq!(replay.messages(), 0);
        // Past a bound it is what it may be at most.
        let frames = COUNTED_MAX as u64 + 10;
        (4..4 + frames).for_each(|first| replay.keep(first, 1, 1, b"d"));
        assert_eq!((replay.messages(), replay.kept.len()), (frames, COUNTED_MAX));
        replay.acknowledge(4 + COUNTED_MAX as u64);
        assert_eq!(replay.messages(), 11, "none of the last has been acknowledged as far as is known");
        replay.acknowledge(3 + frames);
        assert_eq!(replay.messages(), 0);
    }

    #[test]
    fn the_window_closes_at_the_bound_and_opens_with_an_acknowledgement() {
        let mut replay = Replay::new(3);
        replay.keep(1, 1, 1, b"ab");
        assert!(!replay.must_wait());
        assert!(!replay.acknowledge(0));
        replay.keep(2, 1, 1, b"c");
        assert!(replay.must_wait());
        assert!(!replay.acknowledge(0));
        assert!(replay.acknowledge(1));
        assert!(!replay.acknowledge(1), "once");
        assert!(!replay.must_wait());
    }

    #[test]
    fn where_nothing_is_kept_nothing_waits() {
        let mut replay = Replay::new(0);
        replay.keep(1, 1, 1, b"ab");
        assert!(!replay.must_wait());
        assert_eq!((replay.rewind(), replay.bytes()), (None, 0));
    }
}
