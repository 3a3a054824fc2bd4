//! The outbound queue: what waits for the next flush.
//!
//! A push appends to an arena and a list and is done; no payload-sized allocation happens under the lock but the
//! arena's own growth, and large payloads come in pieces that were made before. A flush swaps the lot out.
//!
//! What a flush has taken and not sent counts against the bounds, wherever it is: so do messages in lanes. What gives way
//! is taken from the lanes first: nothing here is older.

use std::sync::Mutex;

use crate::etf::Wire;
use crate::frame::batch::kind;
use crate::frame::batch::same;
use crate::frame::handle_release::Release;
use crate::frame::FrameType;
use crate::limits::{Overflow, RELEASES_MAX};
use crate::session::counters::Counters;
use crate::session::lanes::{Class, Lanes};
use crate::session::lock;
use crate::session::message::{cost_of, note_expired, owned, Entry, Message, NewMessage, NewPayload, Taken};
use crate::session::room::{Room, Waiters};
use crate::session::shares::{Shares, END, NO_SHARE};

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

    /// How often the source changes in what waits.
    pub fn source_changes(&self) -> usize {
        self.waiting.source_changes
    }

    pub fn releases(&self) -> usize {
        self.waiting.releases.len()
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
        self.note_source(message.source);
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

    fn note_source(&mut self, source: &str) {
        if let Some(Entry::Message(last)) = self.waiting.entries.last() {
            self.waiting.source_changes += usize::from(!same(last.source(&self.waiting.arena), source));
        }
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

#[cfg(test)]
mod tests;
