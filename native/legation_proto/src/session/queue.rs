//! The outbound queue: what waits for the next flush.
//!
//! A push appends to an arena and a list and is done; no payload-sized allocation happens under the lock but the
//! arena's own growth, and large payloads come in boxes that were made before. A flush swaps the lot out.

use crate::error::CloseCode;
use crate::frame::batch::{kind, ALIGNMENT};
use crate::frame::close::Close;
use crate::frame::handle_release::Release;
use crate::frame::FrameType;
use crate::limits::Overflow;

/// Payloads above this come as a box of their own instead of being copied into the arena.
pub(crate) const BOXED_ABOVE: usize = 64 * 1024;

/// A flush of no more than this is short work, whatever the sources are.
const SMALL_ENTRIES: usize = 8;
const SMALL_BYTES: usize = 8 * 1024;

#[derive(Debug)]
pub(crate) enum Entry {
    Message(Message),
    /// LEARN, FORGET or CERT, body and signature. Nothing overtakes it.
    Announcement(FrameType, Box<[u8]>),
}

/// A message whose names and (small) payload stand in the arena: source, destination, payload.
#[derive(Debug)]
pub(crate) struct Message {
    pub kind: u8,
    pub detail: u8,
    pub aligned: bool,
    pub dropped: bool,
    source_bytes: u8,
    destination_bytes: u8,
    payload_bytes: u32,
    pub call_id: u64,
    pub caller: u64,
    start: usize,
    boxed: Option<Box<[u8]>>,
}

impl Message {
    pub fn source<'a>(&self, arena: &'a [u8]) -> &'a str {
        text(&arena[self.start..self.start + usize::from(self.source_bytes)])
    }

    pub fn destination<'a>(&self, arena: &'a [u8]) -> &'a str {
        let start = self.start + usize::from(self.source_bytes);
        text(&arena[start..start + usize::from(self.destination_bytes)])
    }

    pub fn payload<'a>(&'a self, arena: &'a [u8]) -> &'a [u8] {
        match &self.boxed {
            Some(boxed) => boxed,
            None => {
                let start = self.start + usize::from(self.source_bytes) + usize::from(self.destination_bytes);
                &arena[start..start + self.payload_bytes as usize]
            }
        }
    }

    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes as usize
    }

    /// What it takes of a batch at most, gaps included.
    pub fn batch_bytes(&self) -> usize {
        self.payload_bytes() + if self.aligned { 2 * ALIGNMENT } else { 0 }
    }

    /// What counts against the queue's bound: payload and names.
    fn cost(&self) -> usize {
        self.payload_bytes as usize + usize::from(self.source_bytes) + usize::from(self.destination_bytes) + ENTRY_COST
    }
}

/// A message of no bytes still costs its entry.
const ENTRY_COST: usize = 64;

fn text(bytes: &[u8]) -> &str {
    // Only `Queue::push` writes names into the arena, and it was given `&str`.
    std::str::from_utf8(bytes).unwrap_or("")
}

/// What a push brings.
pub(crate) struct NewMessage<'a> {
    pub kind: u8,
    pub detail: u8,
    pub aligned: bool,
    pub call_id: u64,
    pub caller: u64,
    pub source: &'a str,
    pub destination: &'a str,
    pub payload: NewPayload<'a>,
}

pub(crate) enum NewPayload<'a> {
    Slice(&'a [u8]),
    Boxed(Box<[u8]>),
}

impl<'a> NewPayload<'a> {
    /// Copies what is too large for the arena. To be called before the lock is taken.
    pub fn of(bytes: &'a [u8]) -> NewPayload<'a> {
        match bytes.len() > BOXED_ABOVE {
            true => NewPayload::Boxed(bytes.into()),
            false => NewPayload::Slice(bytes),
        }
    }

    fn len(&self) -> usize {
        match self {
            NewPayload::Slice(bytes) => bytes.len(),
            NewPayload::Boxed(bytes) => bytes.len(),
        }
    }
}

/// What a flush takes.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub entries: Vec<Entry>,
    pub arena: Vec<u8>,
    /// Go out after the entries.
    pub releases: Vec<Release>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Taken,
    /// Bytes waiting here and taken by a flush that has not sent them yet.
    bytes: usize,
    bytes_max: usize,
    overflow: Overflow,
    /// Where to look for the next message to drop under [`Overflow::Oldest`].
    oldest: usize,
    dropped_bytes: usize,
    scheduled: bool,
    pub ack: Option<u64>,
    pub ping: Option<u64>,
    pub pong: Option<u64>,
    close: Option<Close>,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub wake: bool,
    /// Messages that were dropped to make room.
    pub dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Queue {
    pub fn new(bytes_max: usize, overflow: Overflow) -> Queue {
        Queue {
            waiting: Taken::default(),
            bytes: 0,
            bytes_max,
            overflow,
            oldest: 0,
            dropped_bytes: 0,
            scheduled: false,
            ack: None,
            ping: None,
            pong: None,
            close: None,
            closed: false,
        }
    }

    /// True when somebody has to tell the Writer: nothing was waiting before.
    pub fn wake(&mut self) -> bool {
        !std::mem::replace(&mut self.scheduled, true)
    }

    /// Few enough entries that signing each takes a fraction of a millisecond. What an earlier flush has left counts, too.
    pub fn is_small(&self) -> bool {
        self.waiting.entries.len() <= SMALL_ENTRIES && self.bytes <= SMALL_BYTES && self.waiting.releases.len() <= 64
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `droppable` messages (casts, sends) give way under [`Overflow::Oldest`]; `always` ones (replies) may exceed the
    /// bound by as much again, because a lost reply would leave a caller waiting, and refusals by once more.
    pub fn push(&mut self, message: NewMessage<'_>, always: bool) -> Result<Pushed, Full> {
        let entry = Message {
            kind: message.kind,
            detail: message.detail,
            aligned: message.aligned,
            dropped: false,
            source_bytes: message.source.len() as u8,
            destination_bytes: message.destination.len() as u8,
            payload_bytes: message.payload.len() as u32,
            call_id: message.call_id,
            caller: message.caller,
            start: self.waiting.arena.len(),
            boxed: None,
        };
        let cost = entry.cost();
        let limit = match message.kind {
            kind::ERROR => 3 * self.bytes_max,
            _ if always => 2 * self.bytes_max,
            _ => self.bytes_max,
        };
        let mut dropped = 0;
        if self.bytes + cost > limit {
            if self.overflow == Overflow::Oldest && !always {
                dropped = self.drop_oldest(cost);
            }
            if self.bytes + cost > limit {
                return Err(Full);
            }
        }
        // `drop_oldest` may have moved the arena.
        let mut entry = Message { start: self.waiting.arena.len(), ..entry };
        self.waiting.arena.extend_from_slice(message.source.as_bytes());
        self.waiting.arena.extend_from_slice(message.destination.as_bytes());
        match message.payload {
            NewPayload::Slice(bytes) => self.waiting.arena.extend_from_slice(bytes),
            NewPayload::Boxed(bytes) => entry.boxed = Some(bytes),
        }
        self.bytes += cost;
        self.waiting.entries.push(Entry::Message(entry));
        Ok(Pushed { wake: self.wake(), dropped })
    }

    pub fn announce(&mut self, kind: FrameType, signed: Box<[u8]>) -> bool {
        self.waiting.entries.push(Entry::Announcement(kind, signed));
        self.wake()
    }

    pub fn release(&mut self, release: Release) -> bool {
        self.waiting.releases.push(release);
        self.wake()
    }

    /// The last frame. Later pushes are ignored by the flush.
    pub fn close(&mut self, code: CloseCode, text: String) -> bool {
        if !self.closed && self.close.is_none() {
            self.close = Some(Close { code, text });
        }
        self.wake()
    }

    fn drop_oldest(&mut self, needed: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes + needed > self.bytes_max && self.oldest < self.waiting.entries.len() {
            if let Entry::Message(message) = &mut self.waiting.entries[self.oldest] {
                // Calls and answers stay: their callers wait.
                let droppable = message.call_id == 0;
                if droppable && !message.dropped {
                    message.dropped = true;
                    message.boxed = None;
                    self.bytes -= message.cost();
                    self.dropped_bytes += message.cost();
                    dropped += 1;
                }
            }
            self.oldest += 1;
        }
        if self.dropped_bytes > self.bytes_max / 2 {
            self.compact();
        }
        dropped
    }

    /// Gives the dropped messages' bytes back: without it a stalled link's arena would grow with every push.
    fn compact(&mut self) {
        let old = std::mem::take(&mut self.waiting.arena);
        let mut arena = Vec::with_capacity(old.len() - old.len().min(self.dropped_bytes));
        let (mut kept_before_oldest, oldest) = (0, self.oldest);
        let mut index = 0;
        self.waiting.entries.retain_mut(|entry| {
            let keep = match entry {
                Entry::Message(message) if message.dropped => false,
                Entry::Message(message) => {
                    let names = usize::from(message.source_bytes) + usize::from(message.destination_bytes);
                    let inline = if message.boxed.is_some() { 0 } else { message.payload_bytes as usize };
                    let start = arena.len();
                    arena.extend_from_slice(&old[message.start..message.start + names + inline]);
                    message.start = start;
                    true
                }
                Entry::Announcement(..) => true,
            };
            kept_before_oldest += usize::from(keep && index < oldest);
            index += 1;
            keep
        });
        self.oldest = kept_before_oldest;
        self.waiting.arena = arena;
        self.dropped_bytes = 0;
    }

    /// Swaps everything that waits for the empty `taken` (whose capacity is used again). `sent` messages' cost is
    /// given back with [`Queue::sent`].
    pub fn take(&mut self, taken: &mut Taken) {
        debug_assert!(taken.entries.is_empty());
        std::mem::swap(&mut self.waiting, taken);
        self.oldest = 0;
        self.dropped_bytes = 0;
    }

    pub fn take_close(&mut self) -> Option<Close> {
        let close = self.close.take();
        self.closed |= close.is_some();
        close
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn sent(&mut self, cost: usize) {
        self.bytes = self.bytes.saturating_sub(cost);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.entries.is_empty()
            && self.waiting.releases.is_empty()
            && self.close.is_none()
            && self.ping.is_none()
            && self.pong.is_none()
    }

    pub fn only_close_waits(&self) -> bool {
        self.close.is_some() && self.waiting.entries.is_empty() && self.waiting.releases.is_empty()
    }

    /// Nothing waits: the next push has to wake the Writer. False when something came in between.
    pub fn settle(&mut self) -> bool {
        let empty = self.is_empty();
        self.scheduled = !empty;
        empty
    }
}

impl Entry {
    pub fn cost(&self) -> usize {
        match self {
            Entry::Message(message) if !message.dropped => message.cost(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast(payload: &[u8]) -> NewMessage<'_> {
        NewMessage {
            kind: 2,
            detail: 0,
            aligned: false,
            call_id: 0,
            caller: 0,
            source: "",
            destination: "d",
            payload: NewPayload::Slice(payload),
        }
    }

    const COST: usize = 10 + 1 + ENTRY_COST;

    fn payloads(queue: &mut Queue) -> Vec<Vec<u8>> {
        let mut taken = Taken::default();
        queue.take(&mut taken);
        let arena = &taken.arena;
        taken
            .entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Message(message) if !message.dropped => Some(message.payload(arena).to_vec()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_first_push_wakes_and_the_next_does_not_until_settled() {
        let mut queue = Queue::new(1_000, Overflow::Newest);
        assert!(queue.push(cast(b"a"), false).unwrap().wake);
        assert!(!queue.push(cast(b"b"), false).unwrap().wake);
        assert!(!queue.settle(), "something waits");
        queue.take(&mut Taken::default());
        assert!(queue.settle());
        assert!(queue.push(cast(b"c"), false).unwrap().wake);
    }

    #[test]
    fn a_queue_takes_what_fits_exactly_and_refuses_one_byte_more() {
        let mut queue = Queue::new(2 * COST, Overflow::Newest);
        assert!(queue.push(cast(&[1; 10]), false).is_ok());
        assert_eq!(queue.push(cast(&[2; 11]), false), Err(Full));
        assert!(queue.push(cast(&[2; 10]), false).is_ok());
        assert_eq!(queue.push(cast(b""), false), Err(Full));
        queue.sent(COST);
        assert!(queue.push(cast(b""), false).is_ok());
    }

    #[test]
    fn oldest_casts_give_way_when_configured_and_memory_stays_bounded() {
        let mut queue = Queue::new(10 * COST, Overflow::Oldest);
        let mut dropped = 0;
        for number in 0..10_000u32 {
            let mut payload = [0; 10];
            payload[..4].copy_from_slice(&number.to_le_bytes());
            dropped += queue.push(cast(&payload), false).unwrap().dropped;
            assert!(queue.waiting.arena.len() <= 20 * COST);
            assert!(queue.waiting.entries.len() <= 20);
        }
        assert_eq!(dropped, 9_990);
        let left: Vec<u32> =
            payloads(&mut queue).iter().map(|p| u32::from_le_bytes([p[0], p[1], p[2], p[3]])).collect();
        assert_eq!(left, (9_990..10_000).collect::<Vec<_>>());
    }

    #[test]
    fn calls_are_never_dropped_for_newer_casts() {
        let mut queue = Queue::new(2 * COST, Overflow::Oldest);
        for _ in 0..2 {
            queue.push(NewMessage { kind: 3, call_id: 1, caller: 1, ..cast(&[9; 10]) }, false).unwrap();
        }
        assert_eq!(queue.push(cast(&[1; 10]), false), Err(Full));
        assert_eq!(payloads(&mut queue).len(), 2);
    }
}
