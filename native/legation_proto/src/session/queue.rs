//! The outbound queue: what waits for the next flush.
//!
//! A push appends to an arena and a list and is done; no payload-sized allocation happens under the lock but the
//! arena's own growth, and large payloads come in pieces that were made before. A flush swaps the lot out.
//!
//! What a flush has taken and not sent counts against the bounds, wherever it is: so do messages in lanes. What gives way
//! is taken from the lanes first: nothing here is older.

use std::sync::Mutex;

use crate::etf::{identifiers, Owner, Wire};
use crate::frame::batch::{kind, Address, ALIGNMENT};
use crate::frame::handle_release::Release;
use crate::frame::staged::Piece;
use crate::frame::FrameType;
use crate::limits::{Overflow, RELEASES_MAX};
use crate::session::counters::Counters;
use crate::session::lanes::{Class, Facts, Held, Lanes};
use crate::session::lock;
use crate::session::room::{Room, Waiters};
use crate::session::shares::{Shares, END, NO_SHARE};

/// Payloads above this come as a piece of their own instead of being copied into the arena.
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
    /// There are handles in its payload, or it is to one.
    pub handles: bool,
    /// Not here any more: it has given way, expired, or gone to a lane.
    pub dropped: bool,
    source_bytes: u8,
    destination_bytes: u8,
    payload_bytes: u32,
    pub call_id: u64,
    pub caller: u64,
    start: usize,
    pub piece: Option<Box<Piece>>,
    /// When it was pushed, by the session's coarse clock.
    since: u32,
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
        match &self.piece {
            Some(piece) => piece.payload(),
            None => {
                let start = self.start + usize::from(self.source_bytes) + usize::from(self.destination_bytes);
                &arena[start..start + self.payload_bytes as usize]
            }
        }
    }

    /// What of the tables of handles goes over with it: counted when it was pushed.
    pub fn copies<'a>(&'a self, arena: &'a [u8]) -> impl Iterator<Item = Wire<'a>> {
        let payload = if self.handles { self.payload(arena) } else { &[] };
        copies(self.kind, self.caller, self.to(arena), payload)
    }

    /// The peer's process that it is for, if it is one; 0: it is not.
    fn to(&self, arena: &[u8]) -> u64 {
        match self.handles.then(|| Address::parse(self.destination(arena))) {
            Some(Some(Address::Handle(number))) => number,
            _ => 0,
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
        self.class() == Class::Droppable
    }

    /// What has no destination is an answer, or what else goes to a process that waits.
    pub fn class(&self) -> Class {
        match (self.destination_bytes, self.call_id) {
            (0, _) => Class::Answer,
            (_, 0) => Class::Droppable,
            _ => Class::Kept,
        }
    }

    /// Leaves for a lane, or for its way out in fragments. Its cost stays with it.
    pub fn leave(&mut self, arena: &[u8], large: bool) -> Held {
        let facts = Facts {
            kind: self.kind,
            detail: self.detail,
            aligned: self.aligned,
            large,
            handles: self.handles,
            to: self.to(arena),
            class: self.class(),
            since: self.since,
            share: self.share,
            call_id: self.call_id,
            caller: self.caller,
            cost: self.cost(),
        };
        let piece = self.piece.take();
        let payload = if piece.is_some() { &[] } else { self.payload(arena) };
        let held = Held::new(facts, self.source(arena), payload, piece);
        self.dropped = true;
        held
    }

    fn cost(&self) -> usize {
        cost_of(self.payload_bytes(), usize::from(self.source_bytes), usize::from(self.destination_bytes))
    }
}

/// The copies that a message takes along: who it is from, where it has to say so; whom it is to; and what is in its payload,
/// if that holds handles.
pub(crate) fn copies(message_kind: u8, caller: u64, to: u64, payload: &[u8]) -> impl Iterator<Item = Wire<'_>> {
    // An answer only keeps its place by its caller, and the number in a DOWN gives nothing away.
    let from = if matches!(message_kind, kind::GENCALL | kind::EXIT) { caller } else { 0 };
    let pids = [(from, Owner::Sender), (to, Owner::Receiver)].into_iter().filter(|(number, _)| *number != 0);
    pids.map(|(number, owner)| Wire::Pid { number, owner })
        .chain(identifiers(payload).filter_map(|place| Wire::parse(place.raw)))
}

/// Without the names of engines, of which nothing is kept.
fn owned(copy: Wire<'_>) -> Option<Wire<'static>> {
    match copy {
        Wire::Pid { number, owner } => Some(Wire::Pid { number, owner }),
        Wire::Reference { number, owner } => Some(Wire::Reference { number, owner }),
        Wire::Engine(_) => None,
    }
}

/// What counts against the queue's bound: payload and names.
fn cost_of(payload_bytes: usize, source_bytes: usize, destination_bytes: usize) -> usize {
    payload_bytes + source_bytes + destination_bytes + ENTRY_COST
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
    /// See [`Message::handles`].
    pub handles: bool,
    pub call_id: u64,
    pub caller: u64,
    pub source: &'a str,
    pub destination: &'a str,
    pub payload: NewPayload<'a>,
}

impl<'a> NewMessage<'a> {
    /// Without what its kind adds.
    pub fn new(source: &'a str, destination: &'a str, payload: NewPayload<'a>) -> NewMessage<'a> {
        NewMessage {
            kind: kind::SEND,
            detail: 0,
            aligned: false,
            handles: false,
            call_id: 0,
            caller: 0,
            source,
            destination,
            payload,
        }
    }

    /// The same but for the payload, of which there is none, and for handles.
    pub fn like(other: &NewMessage<'a>) -> NewMessage<'a> {
        let NewMessage { kind, detail, aligned, call_id, caller, .. } = *other;
        let empty = NewMessage::new(other.source, other.destination, NewPayload::Slice(&[]));
        NewMessage { kind, detail, aligned, call_id, caller, ..empty }
    }

    fn cost(&self) -> usize {
        cost_of(self.payload.len(), self.source.len(), self.destination.len())
    }
}

pub(crate) enum NewPayload<'a> {
    Slice(&'a [u8]),
    Piece(Box<Piece>),
}

impl<'a> NewPayload<'a> {
    /// Copies what is too large for the arena, or is to go in fragments. To be called before the lock is taken.
    pub fn of(bytes: &'a [u8], fragment_bytes: usize) -> NewPayload<'a> {
        match bytes.len() > BOXED_ABOVE.min(fragment_bytes) {
            true => NewPayload::Piece(Box::new(Piece::of(bytes))),
            false => NewPayload::Slice(bytes),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            NewPayload::Slice(bytes) => bytes,
            NewPayload::Piece(piece) => piece.payload(),
        }
    }

    fn len(&self) -> usize {
        self.bytes().len()
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
    /// The session's coarse clock, ms.
    pub clock: u32,
    /// Where to look for the next that has waited for too long.
    expired: usize,
    pub waiters: Waiters,
    /// Handles of messages that were dropped, to be taken off the tables.
    lost: Vec<Wire<'static>>,
}

/// Nothing was queued; it has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Refused,
    /// And the link is to be closed for it.
    Disconnect,
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
            clock: 0,
            expired: 0,
            waiters: Waiters::default(),
            lost: Vec::new(),
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

    /// Casts and sends that wait, in their order.
    pub fn drain_unsigned(&mut self, each: impl FnMut(NewMessage<'_>)) {
        self.waiting.drain_unsigned(0, each);
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages without a call give way under [`Overflow::Oldest`]; `always` ones (replies) may exceed the bound by as
    /// much again, because a lost reply would leave a caller waiting, and refusals by once more. Neither counts against an
    /// engine. `Ok(true)`: wake the Writer.
    pub fn push(
        &mut self,
        message: NewMessage<'_>,
        always: bool,
        lanes: &Mutex<Lanes>,
        counters: &Counters,
    ) -> Result<bool, Full> {
        let cost = message.cost();
        let share = match always || self.shares.is_none() {
            true => NO_SHARE,
            false => self.share_with_room(message.destination, cost, lanes, counters)?,
        };
        self.make_room(message.kind, cost, always, lanes, counters)?;
        let start = self.waiting.arena.len();
        self.waiting.arena.extend_from_slice(message.source.as_bytes());
        self.waiting.arena.extend_from_slice(message.destination.as_bytes());
        let payload_bytes = message.payload.len() as u32;
        let piece = match message.payload {
            NewPayload::Slice(bytes) => {
                self.waiting.arena.extend_from_slice(bytes);
                None
            }
            NewPayload::Piece(piece) => Some(piece),
        };
        self.bytes += cost;
        self.waiting.entries.push(Entry::Message(Message {
            kind: message.kind,
            detail: message.detail,
            aligned: message.aligned,
            handles: message.handles,
            dropped: false,
            source_bytes: message.source.len() as u8,
            destination_bytes: message.destination.len() as u8,
            payload_bytes,
            call_id: message.call_id,
            caller: message.caller,
            start,
            piece,
            since: self.clock,
            share,
            next: END,
        }));
        if share != NO_SHARE {
            self.count_for_engine(share, cost);
        }
        Ok(self.wake())
    }

    pub fn announce(&mut self, kind: FrameType, signed: Box<[u8]>) -> bool {
        self.waiting.entries.push(Entry::Announcement(kind, signed));
        self.wake()
    }

    pub fn release(&mut self, release: Release) -> bool {
        self.waiting.releases.push(release);
        self.wake()
    }

    /// What the tables of handles have to say. True: wake the Writer.
    pub fn release_all(&mut self, releases: &mut Vec<Release>, counters: &Counters) -> bool {
        for release in releases.drain(..) {
            let unbounded = matches!(release, Release::Dropped { .. } | Release::DroppedReference { .. });
            match unbounded && self.waiting.releases.len() >= RELEASES_MAX {
                true => counters.releases_over_limit.one(),
                false => self.waiting.releases.push(release),
            }
        }
        self.wake()
    }

    /// A message was dropped, with these.
    pub fn lose<'w>(&mut self, copies: impl Iterator<Item = Wire<'w>>) {
        self.lost.extend(copies.filter_map(owned));
    }

    /// What the messages that were dropped since the last time held.
    pub fn take_lost(&mut self) -> Vec<Wire<'static>> {
        std::mem::take(&mut self.lost)
    }

    fn make_room(
        &mut self,
        kind: u8,
        cost: usize,
        always: bool,
        lanes: &Mutex<Lanes>,
        counters: &Counters,
    ) -> Result<(), Full> {
        let limit = match kind {
            kind::ERROR => 3 * self.bytes_max,
            _ if always => 2 * self.bytes_max,
            _ => self.bytes_max,
        };
        if self.bytes + cost <= limit {
            return Ok(());
        }
        if self.overflow == Overflow::Oldest && !always {
            counters.dropped_oldest.add(self.drop_oldest(cost, &mut lock(lanes)));
        }
        if self.bytes + cost <= limit {
            return Ok(());
        }
        counters.overload_out.one();
        Err(self.full(always))
    }

    fn full(&self, always: bool) -> Full {
        match self.overflow == Overflow::Disconnect && !always {
            true => Full::Disconnect,
            false => Full::Refused,
        }
    }

    fn drop_oldest(&mut self, needed: usize, lanes: &mut Lanes) -> u64 {
        let mut dropped = 0;
        while self.bytes + needed > self.bytes_max {
            let Some(held) = lanes.drop_oldest() else { break };
            self.lose(held.copies());
            self.gone(held.share, held.cost);
            dropped += 1;
        }
        while self.bytes + needed > self.bytes_max && self.oldest < self.waiting.entries.len() {
            dropped += u64::from(self.drop_entry(self.oldest));
            self.oldest += 1;
        }
        self.compact_if_worth_it();
        dropped
    }

    /// The share of an engine, where `cost` fits by now.
    fn share_with_room(
        &mut self,
        engine: &str,
        cost: usize,
        lanes: &Mutex<Lanes>,
        counters: &Counters,
    ) -> Result<u32, Full> {
        let Some(shares) = &mut self.shares else { return Ok(NO_SHARE) };
        let share = shares.of(engine);
        if shares.has_room(share, cost) {
            return Ok(share);
        }
        if self.overflow == Overflow::Oldest {
            let dropped = self.drop_oldest_of(engine, share, cost, &mut lock(lanes));
            counters.dropped_oldest.add(dropped);
            counters.engine_queue_over_limit.add(dropped);
        }
        match &self.shares {
            Some(shares) if shares.has_room(share, cost) => Ok(share),
            _ => {
                counters.overload_out.one();
                counters.engine_queue_over_limit.one();
                Err(self.full(false))
            }
        }
    }

    fn drop_oldest_of(&mut self, engine: &str, share: u32, needed: usize, lanes: &mut Lanes) -> u64 {
        let mut dropped = 0;
        while self.shares.as_ref().is_some_and(|shares| !shares.has_room(share, needed)) {
            let Some(held) = lanes.drop_oldest_of(engine) else { break };
            self.lose(held.copies());
            self.gone(held.share, held.cost);
            dropped += 1;
        }
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

    /// The last entry is a message of this share.
    fn count_for_engine(&mut self, share: u32, cost: usize) {
        if let Some(shares) = &mut self.shares {
            shares.takes(share, cost);
        }
        self.link(self.waiting.entries.len() - 1);
    }

    /// False for what stays: calls and answers, whose callers wait, and announcements.
    fn drop_entry(&mut self, index: usize) -> bool {
        match &self.waiting.entries[index] {
            Entry::Message(message) if !message.dropped && message.is_droppable() => self.take_out(index),
            _ => return false,
        }
        true
    }

    fn take_out(&mut self, index: usize) {
        let Entry::Message(message) = &mut self.waiting.entries[index] else { return };
        self.lost.extend(message.copies(&self.waiting.arena).filter_map(owned));
        let (cost, share) = (message.cost(), message.share);
        message.dropped = true;
        message.piece = None;
        self.dropped_bytes += cost;
        self.gone(share, cost);
    }

    /// A message has been sent, or dropped wherever it was.
    pub fn gone(&mut self, share: u32, cost: usize) {
        self.bytes = self.bytes.saturating_sub(cost);
        if let Some(shares) = &mut self.shares {
            shares.gives_back(share, cost);
        }
    }

    /// Takes out what has waited for longer than `ttl_ms`, but for answers. `calls` is given their numbers. Returns how many
    /// others there were.
    pub fn expire(&mut self, ttl_ms: u32, calls: &mut Vec<u64>) -> u64 {
        let mut expired = 0;
        while let Some(entry) = self.waiting.entries.get(self.expired) {
            if let Entry::Message(message) = entry {
                if self.clock.wrapping_sub(message.since) < ttl_ms {
                    break;
                }
                if !message.dropped && message.class() != Class::Answer {
                    expired += note_expired(message.call_id, calls);
                    self.take_out(self.expired);
                }
            }
            self.expired += 1;
        }
        self.compact_if_worth_it();
        expired
    }

    /// Those who wait for room, as far as there is some.
    pub fn serve_waiters(&mut self) {
        let (bytes, bytes_max, shares) = (self.bytes, self.bytes_max, &mut self.shares);
        self.waiters.serve(bytes, bytes_max, |destination, cost| match shares {
            Some(shares) => {
                let share = shares.of(destination);
                shares.has_room(share, cost)
            }
            None => true,
        });
    }

    /// Waits until a message of so many bytes would be taken. The longest source is reckoned with.
    pub fn wait_room(&mut self, destination: &str, payload_bytes: usize, token: u64, waiters_max: usize) -> Room {
        let cost = cost_of(payload_bytes, 255, destination.len());
        let fits = self.shares.as_mut().is_none_or(|shares| {
            let share = shares.of(destination);
            shares.has_room(share, cost)
        });
        if fits && self.bytes + cost <= self.bytes_max {
            return Room::Now;
        }
        if cost > self.bytes_max || self.waiters.len() >= waiters_max {
            return Room::Full;
        }
        self.waiters.wait(token, destination, cost);
        Room::Later
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
        let (mut kept_before_expired, expired) = (0, self.expired);
        let mut index = 0;
        self.waiting.entries.retain_mut(|entry| {
            let keep = match entry {
                Entry::Message(message) if message.dropped => false,
                Entry::Message(message) => {
                    let names = usize::from(message.source_bytes) + usize::from(message.destination_bytes);
                    let inline = if message.piece.is_some() { 0 } else { message.payload_bytes as usize };
                    let start = arena.len();
                    arena.extend_from_slice(&old[message.start..message.start + names + inline]);
                    message.start = start;
                    true
                }
                Entry::Announcement(..) => true,
            };
            kept_before_oldest += usize::from(keep && index < oldest);
            kept_before_expired += usize::from(keep && index < expired);
            index += 1;
            keep
        });
        self.oldest = kept_before_oldest;
        self.expired = kept_before_expired;
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
        self.expired = 0;
        self.dropped_bytes = 0;
        if let Some(shares) = &mut self.shares {
            shares.next_round();
        }
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
        self.waiting.entries.is_empty() && self.waiting.releases.is_empty()
    }

    /// Nothing waits: the next push has to wake the Writer. False when something came in between.
    pub fn settle(&mut self) -> bool {
        // An acknowledgement that came while the flush was at work has woken nobody.
        let empty = self.is_empty() && self.ack.is_none();
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

impl Taken {
    /// Casts and sends from `at` on: they may go out in another session.
    pub fn drain_unsigned(&mut self, at: usize, mut each: impl FnMut(NewMessage<'_>)) {
        let Taken { entries, arena, .. } = self;
        for entry in &mut entries[at..] {
            let Entry::Message(message) = entry else { continue };
            if message.dropped || message.class() != Class::Droppable {
                continue;
            }
            message.dropped = true;
            let piece = message.piece.take();
            each(NewMessage {
                kind: message.kind,
                detail: message.detail,
                aligned: message.aligned,
                handles: message.handles,
                call_id: 0,
                caller: message.caller,
                source: message.source(arena),
                destination: message.destination(arena),
                payload: match piece {
                    Some(piece) => NewPayload::Piece(piece),
                    None => NewPayload::Slice(message.payload(arena)),
                },
            });
        }
    }

    /// As [`Queue::expire`], of what a flush has taken and not come to: from `at`. What they took is given back to the queue.
    pub fn expire(&mut self, at: usize, over: impl Fn(u32) -> bool, calls: &mut Vec<u64>, queue: &mut Queue) -> u64 {
        let Taken { entries, arena, .. } = self;
        let mut expired = 0;
        for entry in &mut entries[at..] {
            let Entry::Message(message) = entry else { continue };
            if !over(message.since) {
                break;
            }
            if !message.dropped && message.class() != Class::Answer {
                expired += note_expired(message.call_id, calls);
                queue.gone(message.share, message.cost());
                queue.lose(message.copies(arena));
                message.dropped = true;
                message.piece = None;
            }
        }
        expired
    }
}

/// 1 for what nobody is told of.
pub(crate) fn note_expired(call_id: u64, calls: &mut Vec<u64>) -> u64 {
    match call_id {
        0 => 1,
        _ => {
            calls.push(call_id);
            0
        }
    }
}

#[cfg(test)]
mod tests;
