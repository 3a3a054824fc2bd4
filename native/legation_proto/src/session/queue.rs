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
use crate::session::shares::{Shares, END, NO_SHARE};

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
    /// Whom it counts against, and the next in that engine's chain.
    share: u32,
    next: u32,
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

    /// Calls and answers are not: their callers wait.
    fn is_droppable(&self) -> bool {
        self.call_id == 0
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
    /// What each engine has of `bytes`, where that is bounded.
    shares: Option<Box<Shares>>,
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
    pub dropped: Dropped,
}

/// Nothing was queued. What was dropped before that showed is gone all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// The engine has what it may have, whatever room the queue has.
    pub of_engine: bool,
    pub dropped: Dropped,
}

/// Messages that gave way to a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub messages: u64,
    /// Those of them that went because their engine had too many.
    pub of_engine: u64,
}

impl Queue {
    pub fn new(bytes_max: usize, engine_bytes_max: Option<usize>, overflow: Overflow) -> Queue {
        Queue {
            waiting: Taken::default(),
            bytes: 0,
            bytes_max,
            overflow,
            shares: engine_bytes_max.map(|bytes_max| Box::new(Shares::new(bytes_max))),
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
    /// bound by as much again, because a lost reply would leave a caller waiting, and refusals by once more. Neither counts
    /// against an engine.
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
            share: NO_SHARE,
            next: END,
        };
        let cost = entry.cost();
        let limit = match message.kind {
            kind::ERROR => 3 * self.bytes_max,
            _ if always => 2 * self.bytes_max,
            _ => self.bytes_max,
        };
        let mut dropped = Dropped::default();
        let share = match always {
            true => NO_SHARE,
            false => self.share_with_room(message.destination, cost, &mut dropped)?,
        };
        if self.bytes + cost > limit {
            if self.overflow == Overflow::Oldest && !always {
                dropped.messages += self.drop_oldest(cost);
            }
            if self.bytes + cost > limit {
                return Err(Full { of_engine: false, dropped });
            }
        }
        // What was dropped may have moved the arena.
        let mut entry = Message { start: self.waiting.arena.len(), share, ..entry };
        self.waiting.arena.extend_from_slice(message.source.as_bytes());
        self.waiting.arena.extend_from_slice(message.destination.as_bytes());
        match message.payload {
            NewPayload::Slice(bytes) => self.waiting.arena.extend_from_slice(bytes),
            NewPayload::Boxed(bytes) => entry.boxed = Some(bytes),
        }
        self.bytes += cost;
        self.waiting.entries.push(Entry::Message(entry));
        if let Some(shares) = &mut self.shares {
            shares.takes(share, cost);
            self.link(self.waiting.entries.len() - 1);
        }
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

    /// The share of an engine once `cost` fits it, or that it doesn't.
    fn share_with_room(&mut self, engine: &str, cost: usize, dropped: &mut Dropped) -> Result<u32, Full> {
        let Some(shares) = &mut self.shares else { return Ok(NO_SHARE) };
        let share = shares.of(engine);
        if !shares.has_room(share, cost) {
            if self.overflow == Overflow::Oldest {
                dropped.of_engine = self.drop_oldest_of(share, cost);
                dropped.messages = dropped.of_engine;
            }
            if !self.shares.as_ref().is_some_and(|shares| shares.has_room(share, cost)) {
                return Err(Full { of_engine: true, dropped: *dropped });
            }
        }
        Ok(share)
    }

    fn drop_oldest(&mut self, needed: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes + needed > self.bytes_max && self.oldest < self.waiting.entries.len() {
            dropped += u64::from(self.drop_entry(self.oldest));
            self.oldest += 1;
        }
        self.compact_if_worth_it();
        dropped
    }

    fn drop_oldest_of(&mut self, share: u32, needed: usize) -> u64 {
        let mut dropped = 0;
        while let Some(shares) = &mut self.shares {
            let index = shares.oldest(share);
            if index == END || shares.has_room(share, needed) {
                break;
            }
            if let Entry::Message(message) = &self.waiting.entries[index as usize] {
                shares.set_oldest(share, message.next);
            }
            dropped += u64::from(self.drop_entry(index as usize));
        }
        self.compact_if_worth_it();
        dropped
    }

    /// False for what stays: calls and answers, whose callers wait, and announcements.
    fn drop_entry(&mut self, index: usize) -> bool {
        let Entry::Message(message) = &mut self.waiting.entries[index] else { return false };
        if message.dropped || !message.is_droppable() {
            return false;
        }
        message.dropped = true;
        message.boxed = None;
        let cost = message.cost();
        self.bytes -= cost;
        self.dropped_bytes += cost;
        if let Some(shares) = &mut self.shares {
            shares.gives_back(message.share, cost);
        }
        true
    }

    /// Makes an entry the newest of its engine's chain, if it may have to give way one day.
    fn link(&mut self, index: usize) {
        let Some(shares) = &mut self.shares else { return };
        let Entry::Message(message) = &mut self.waiting.entries[index] else { return };
        if self.overflow == Overflow::Newest || message.share == NO_SHARE || !message.is_droppable() {
            return;
        }
        message.next = END;
        // So many entries are more than any memory holds; they would only not give way.
        let Ok(number) = u32::try_from(index) else { return };
        if let Some(before) = shares.append(message.share, number) {
            if let Entry::Message(before) = &mut self.waiting.entries[before as usize] {
                before.next = number;
            }
        }
    }

    fn compact_if_worth_it(&mut self) {
        if self.dropped_bytes > self.bytes_max / 2 {
            self.compact();
        }
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
        if let Some(shares) = &mut self.shares {
            shares.next_round();
            for index in 0..self.waiting.entries.len() {
                self.link(index);
            }
        }
    }

    /// Swaps everything that waits for the empty `taken` (whose capacity is used again). `sent` messages' cost is
    /// given back with [`Queue::sent`].
    pub fn take(&mut self, taken: &mut Taken) {
        debug_assert!(taken.entries.is_empty());
        std::mem::swap(&mut self.waiting, taken);
        self.oldest = 0;
        self.dropped_bytes = 0;
        if let Some(shares) = &mut self.shares {
            shares.next_round();
        }
    }

    pub fn take_close(&mut self) -> Option<Close> {
        let close = self.close.take();
        self.closed |= close.is_some();
        close
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Entries that were taken have gone out, `cost` being the sum of theirs.
    pub fn sent(&mut self, entries: &[Entry], cost: usize) {
        self.bytes = self.bytes.saturating_sub(cost);
        if let Some(shares) = &mut self.shares {
            for entry in entries {
                if let Entry::Message(message) = entry {
                    shares.gives_back(message.share, entry.cost());
                }
            }
        }
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

    const FULL: Full = Full { of_engine: false, dropped: Dropped { messages: 0, of_engine: 0 } };
    const ENGINE_FULL: Full = Full { of_engine: true, ..FULL };

    fn to<'a>(destination: &'a str, payload: &'a [u8]) -> NewMessage<'a> {
        NewMessage { destination, ..cast(payload) }
    }

    fn call_to<'a>(destination: &'a str, payload: &'a [u8]) -> NewMessage<'a> {
        NewMessage { kind: kind::GENCALL, call_id: 1, caller: 1, ..to(destination, payload) }
    }

    /// What a flush does.
    fn send_all(queue: &mut Queue) {
        let mut taken = Taken::default();
        queue.take(&mut taken);
        queue.sent(&taken.entries, taken.entries.iter().map(Entry::cost).sum());
    }

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
        let mut queue = Queue::new(1_000, None, Overflow::Newest);
        assert!(queue.push(cast(b"a"), false).unwrap().wake);
        assert!(!queue.push(cast(b"b"), false).unwrap().wake);
        assert!(!queue.settle(), "something waits");
        queue.take(&mut Taken::default());
        assert!(queue.settle());
        assert!(queue.push(cast(b"c"), false).unwrap().wake);
    }

    #[test]
    fn a_queue_takes_what_fits_exactly_and_refuses_one_byte_more() {
        let mut queue = Queue::new(2 * COST, None, Overflow::Newest);
        assert!(queue.push(cast(&[1; 10]), false).is_ok());
        assert_eq!(queue.push(cast(&[2; 11]), false), Err(FULL));
        assert!(queue.push(cast(&[2; 10]), false).is_ok());
        assert_eq!(queue.push(cast(b""), false), Err(FULL));
        queue.sent(&[], COST);
        assert!(queue.push(cast(b""), false).is_ok());
    }

    #[test]
    fn oldest_casts_give_way_when_configured_and_memory_stays_bounded() {
        let mut queue = Queue::new(10 * COST, None, Overflow::Oldest);
        let mut dropped = 0;
        for number in 0..10_000u32 {
            let mut payload = [0; 10];
            payload[..4].copy_from_slice(&number.to_le_bytes());
            dropped += queue.push(cast(&payload), false).unwrap().dropped.messages;
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
        let mut queue = Queue::new(2 * COST, None, Overflow::Oldest);
        for _ in 0..2 {
            queue.push(NewMessage { kind: 3, call_id: 1, caller: 1, ..cast(&[9; 10]) }, false).unwrap();
        }
        assert_eq!(queue.push(cast(&[1; 10]), false), Err(FULL));
        assert_eq!(payloads(&mut queue).len(), 2);
    }

    #[test]
    fn an_engine_has_what_fits_its_bound_exactly_and_not_one_byte_more_and_others_have_theirs() {
        let mut queue = Queue::new(1_000_000, Some(2 * COST), Overflow::Newest);
        assert!(queue.push(to("d", &[1; 10]), false).is_ok());
        assert_eq!(queue.push(to("d", &[2; 11]), false), Err(ENGINE_FULL));
        assert!(queue.push(call_to("d", &[2; 10]), false).is_ok());
        assert_eq!(queue.push(to("d", b""), false), Err(ENGINE_FULL));
        assert_eq!(queue.push(call_to("d", b""), false), Err(ENGINE_FULL));
        assert!(queue.push(to("e", &[3; 10]), false).is_ok());
        // What a flush has taken counts until it is sent.
        let mut taken = Taken::default();
        queue.take(&mut taken);
        assert_eq!(queue.push(to("d", b""), false), Err(ENGINE_FULL));
        queue.sent(&taken.entries[..1], COST);
        assert!(queue.push(to("d", &[4; 10]), false).is_ok());
        assert_eq!(queue.push(to("d", b""), false), Err(ENGINE_FULL));
    }

    #[test]
    fn a_message_larger_than_its_engines_bound_goes_alone() {
        let mut queue = Queue::new(1_000_000, Some(COST), Overflow::Newest);
        assert!(queue.push(to("d", &[1; 5_000]), false).is_ok());
        assert_eq!(queue.push(to("d", b""), false), Err(ENGINE_FULL));
        send_all(&mut queue);
        assert!(queue.push(to("d", b""), false).is_ok());
        assert_eq!(queue.push(to("d", &[1; 5_000]), false), Err(ENGINE_FULL));
    }

    #[test]
    fn answers_count_against_no_engine() {
        let mut queue = Queue::new(1_000_000, Some(COST), Overflow::Newest);
        for kind in [kind::REPLY, kind::ERROR] {
            for _ in 0..10 {
                queue.push(NewMessage { kind, ..call_to("", &[1; 10]) }, true).unwrap();
            }
        }
        assert!(queue.push(to("", &[1; 10]), false).is_ok());
        assert_eq!(queue.push(to("", &[1; 10]), false), Err(ENGINE_FULL));
    }

    #[test]
    fn the_oldest_of_the_same_engine_give_way_and_nobody_elses() {
        let mut queue = Queue::new(1_000_000, Some(3 * COST), Overflow::Oldest);
        queue.push(to("e", &[100; 10]), false).unwrap();
        queue.push(call_to("d", &[101; 10]), false).unwrap();
        let mut dropped = Dropped::default();
        for number in 0..100 {
            let pushed = queue.push(to("d", &[number; 10]), false).unwrap();
            dropped.messages += pushed.dropped.messages;
            dropped.of_engine += pushed.dropped.of_engine;
            queue.push(to(&format!("other {number}"), &[102; 10]), false).unwrap();
        }
        assert_eq!(dropped, Dropped { messages: 98, of_engine: 98 });
        let left = payloads(&mut queue);
        assert_eq!(
            left.iter().filter(|payload| payload[0] < 102).map(|payload| payload[0]).collect::<Vec<_>>(),
            [100, 101, 98, 99]
        );
        assert_eq!(left.len(), 104);
    }

    #[test]
    fn an_engine_with_nothing_but_calls_and_what_is_on_its_way_refuses() {
        let mut queue = Queue::new(1_000_000, Some(2 * COST), Overflow::Oldest);
        queue.push(to("d", &[1; 10]), false).unwrap();
        let mut taken = Taken::default();
        queue.take(&mut taken);
        queue.push(call_to("d", &[2; 10]), false).unwrap();
        assert_eq!(queue.push(to("d", &[3; 10]), false), Err(ENGINE_FULL));
        queue.sent(&taken.entries, COST);
        queue.push(to("d", &[4; 10]), false).unwrap();
        assert_eq!(queue.push(to("d", &[5; 10]), false).unwrap().dropped, Dropped { messages: 1, of_engine: 1 });
        // Too large for what can give way: that is gone, and the refusal says so.
        let dropped = Dropped { messages: 1, of_engine: 1 };
        assert_eq!(queue.push(to("d", &[6; 11]), false), Err(Full { of_engine: true, dropped }));
        assert_eq!(payloads(&mut queue), [[2; 10]]);
    }

    #[test]
    fn both_bounds_hold_and_memory_stays_bounded_whichever_is_met() {
        let mut queue = Queue::new(10 * COST, Some(4 * COST), Overflow::Oldest);
        let mut random = 1u32;
        let (mut pushed, mut dropped) = (0, 0);
        for number in 0..20_000u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let engine = ["a", "b", "c", "d"][(random >> 30) as usize];
            let mut payload = [0; 10];
            payload[..4].copy_from_slice(&number.to_le_bytes());
            let now = queue.push(to(engine, &payload), false).unwrap().dropped;
            assert!(now.messages <= 1 && now.of_engine <= now.messages);
            pushed += 1;
            dropped += now.messages;
            assert!(queue.waiting.arena.len() <= 20 * COST && queue.waiting.entries.len() <= 20);
            assert!(queue.bytes <= 10 * COST);
            if number % 97 == 0 {
                send_all(&mut queue);
                (pushed, dropped) = (0, 0);
            }
            let waiting = |engine: &str| {
                let arena = &queue.waiting.arena;
                let entries = queue.waiting.entries.iter();
                entries.filter(|entry| matches!(entry, Entry::Message(message) if !message.dropped && message.destination(arena) == engine)).count()
            };
            assert!(["a", "b", "c", "d"].into_iter().all(|engine| waiting(engine) <= 4));
            assert_eq!(["a", "b", "c", "d"].into_iter().map(waiting).sum::<usize>() as u64, pushed - dropped);
        }
    }
}
