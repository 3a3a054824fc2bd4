//! Lanes: what waits for one destination, while others' messages go on.
//!
//! A message waits when its destination has used its window (see [`crate::session::credit`]), when a large message
//! to it is on its way in fragments, or when messages wait already. What may go never comes here: it stays in the queue's arena.
//!
//! ```text
//!  a message of the queue ── admit ──► may go: its window is charged
//!                               └────► waits: hold ──► granted, large_done ──► let_go
//! ```
//!
//! A lane has three files, since not all of its messages may go at the same time, or give way: casts and sends, which may be
//! dropped; calls, which may not; answers, which need no credit, since a caller that waits for one looks at nothing else.
//! Answers have a lane by the address of their caller's handle, so that they are in one with what else is sent to it.
//!
//! **Invariants.** Messages to one destination go in the order in which they came, but that answers don't wait for credit.
//! A lane is listed (`ready` or `parked`) whenever its first message may go. Messages are numbered over all lanes, so the oldest
//! of all that may give way is the first of some lane's first file. A destination with nothing used, waiting or on its way
//! has no entry.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::etf::Wire;
use crate::frame::staged::Piece;
use crate::limits::DESTINATIONS_MAX;
use crate::session::credit::{self, Window};
use crate::session::message::copies;
use crate::session::named::Named;

/// What one lane may send before the next has its turn, bytes.
const TURN_BYTES: usize = 64 * 1024;

/// A message that waits, with all that it needs in its own memory.
#[derive(Debug)]
pub(crate) struct Held {
    pub kind: u8,
    pub detail: u8,
    pub aligned: bool,
    /// Its payload goes in fragments.
    pub large: bool,
    /// There are handles in its payload, or it is to one.
    pub handles: bool,
    pub class: Class,
    source_bytes: u8,
    /// When it was pushed, by the session's coarse clock.
    pub since: u32,
    pub share: u32,
    pub call_id: u64,
    pub caller: u64,
    /// The peer's process that it is for; 0: it is to an engine.
    to: u64,
    /// What it takes of the queue's bound.
    pub cost: usize,
    number: u64,
    /// The source's name and the payload, if that is not in the piece.
    bytes: Box<[u8]>,
    pub piece: Option<Box<Piece>>,
}

/// Which file of a lane a message stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Gives way, is lost without anybody being told.
    Droppable = 0,
    /// A call: its caller waits.
    Kept = 1,
    /// Needs no credit.
    Answer = 2,
}

/// What is held, but for names and payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub kind: u8,
    pub detail: u8,
    pub aligned: bool,
    pub large: bool,
    pub handles: bool,
    pub to: u64,
    pub class: Class,
    pub since: u32,
    pub share: u32,
    pub call_id: u64,
    pub caller: u64,
    pub cost: usize,
}

impl Held {
    /// Copies the names, and the payload where it is not in a piece.
    pub fn new(facts: Facts, source: &str, payload: &[u8], piece: Option<Box<Piece>>) -> Held {
        let payload = if piece.is_some() { &[] } else { payload };
        let mut bytes = Vec::with_capacity(source.len() + payload.len());
        bytes.extend_from_slice(source.as_bytes());
        bytes.extend_from_slice(payload);
        let Facts { kind, detail, aligned, large, handles, to, class, since, share, call_id, caller, cost } = facts;
        Held {
            kind,
            detail,
            aligned,
            large,
            handles,
            class,
            source_bytes: source.len() as u8,
            since,
            share,
            call_id,
            caller,
            to,
            cost,
            number: 0,
            bytes: bytes.into(),
            piece,
        }
    }

    pub fn source(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.source_bytes)]).unwrap_or("")
    }

    /// See [`super::queue::Message::copies`].
    pub fn copies(&self) -> impl Iterator<Item = Wire<'_>> {
        self.copies_with(self.payload())
    }

    /// With a payload that has been taken out.
    pub fn copies_with<'a>(&self, payload: &'a [u8]) -> impl Iterator<Item = Wire<'a>> {
        copies(self.kind, self.caller, self.to, if self.handles { payload } else { &[] })
    }

    pub fn payload(&self) -> &[u8] {
        match &self.piece {
            Some(piece) => piece.payload(),
            None => &self.bytes[usize::from(self.source_bytes)..],
        }
    }
}

/// What a message asks of its lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub class: Class,
    pub large: bool,
    pub payload_bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Named<Lane>,
    /// The peer's, for each destination; 0: it asks for none.
    window: u64,
    /// Destinations whose window is in use.
    charged: usize,
    /// Destinations that a large message is on its way to.
    busy: usize,
    held: usize,
    answers: usize,
    /// How often the source of what came to wait was another than before, since nothing waited.
    source_changes: usize,
    ready: VecDeque<u32>,
    /// Those whose first message waits for others' large messages, or for another destination's credit.
    parked: Vec<u32>,
    /// The first of each lane's first file by number, where the oldest gives way.
    heads: Option<BTreeSet<(u64, u32)>>,
    next_number: u64,
    last_source: Box<str>,
}

#[derive(Debug, Default)]
struct Lane {
    window: Window,
    large_under_way: bool,
    /// In `ready` or in `parked`.
    listed: bool,
    files: Option<Box<[VecDeque<Held>; 3]>>,
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.window.is_unused() && !self.large_under_way && !self.listed && self.files.is_none()
    }

    fn front(&self, class: Class) -> Option<&Held> {
        self.files.as_ref()?[class as usize].front()
    }

    /// The number of the first of a file.
    fn first(&self, class: Class) -> Option<u64> {
        self.front(class).map(|held| held.number)
    }

    /// Whether there is credit, here and for one more destination.
    fn is_open(&self, class: Class, window: u64, charged: usize) -> bool {
        let others = charged < DESTINATIONS_MAX || !self.window.is_unused();
        window == 0 || class == Class::Answer || (self.window.is_open(window) && others)
    }

    /// Which file's first is the next to go; none when nothing may. Whether other destinations leave credit for it is still
    /// to be looked at.
    fn next_class(&self, window: u64) -> Option<Class> {
        if self.large_under_way || self.files.is_none() {
            return None;
        }
        let has_credit = window == 0 || self.window.is_open(window);
        let classes = [Class::Droppable, Class::Kept, Class::Answer];
        let may_go = classes.into_iter().filter(|class| has_credit || *class == Class::Answer);
        may_go
            .filter_map(|class| Some((self.first(class)?, class)))
            .min_by_key(|(first, _)| *first)
            .map(|(_, class)| class)
    }

    fn goes(&mut self, want: Want, window: u64, charged: &mut usize, busy: &mut usize) {
        if window > 0 && want.class != Class::Answer {
            *charged += usize::from(self.window.is_unused());
            self.window.charge(credit::cost(want.payload_bytes));
        }
        if want.large {
            self.large_under_way = true;
            *busy += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.files.as_ref().is_none_or(|files| files.iter().all(VecDeque::is_empty))
    }
}

/// What becomes of a lane's place among those that are ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    Parked,
    Later,
}

impl Lanes {
    /// `oldest`: the oldest may have to give way.
    pub fn new(window: u32, oldest: bool) -> Lanes {
        Lanes {
            lanes: Named::default(),
            window: window.into(),
            charged: 0,
            busy: 0,
            held: 0,
            answers: 0,
            source_changes: 0,
            last_source: Box::default(),
            ready: VecDeque::new(),
            parked: Vec::new(),
            heads: oldest.then(BTreeSet::new),
            next_number: 0,
        }
    }

    /// See [`crate::session::message::Taken::source_changes`], of what waits here.
    pub fn source_changes(&self) -> usize {
        self.source_changes
    }

    /// Messages that wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Destinations with credit in use, messages waiting or on their way.
    #[cfg(test)]
    pub fn destinations(&self) -> usize {
        self.lanes.len()
    }

    pub fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn any_answers(&self) -> bool {
        self.answers > 0
    }

    /// Every small message of this class may go: there is nothing to ask for.
    pub fn is_quiet_for(&self, class: Class) -> bool {
        self.busy == 0 && self.held == 0 && (self.window == 0 || class == Class::Answer)
    }

    /// Whether a message may go now, in which case its window is charged, and its lane waits for it if it is large.
    /// `room`: a large one may begin.
    pub fn admit(&mut self, destination: &str, want: Want, room: bool) -> bool {
        let needs_credit = self.window > 0 && want.class != Class::Answer;
        let number = match needs_credit || want.large {
            true => self.lanes.find_or_insert(destination, Lane::default),
            false => match self.lanes.find(destination) {
                Some(number) => number,
                None => return true,
            },
        };
        let Lanes { lanes, window, charged, busy, .. } = self;
        let Some(lane) = lanes.get_mut(number) else { return false };
        let behind = match (want.class, &lane.files) {
            (_, None) => false,
            (Class::Answer, Some(_)) => lane.first(Class::Answer).is_some(),
            (_, Some(_)) => true,
        };
        if lane.large_under_way || behind || !lane.is_open(want.class, *window, *charged) || (want.large && !room) {
            return false;
        }
        lane.goes(want, *window, charged, busy);
        true
    }

    /// What [`Lanes::admit`] did not let go. A destination's lane keeps its order.
    pub fn hold(&mut self, destination: &str, mut held: Held) {
        let number = self.lanes.find_or_insert(destination, Lane::default);
        let Some(lane) = self.lanes.get_mut(number) else { return };
        if self.held == 0 {
            self.source_changes = 0;
        }
        if *self.last_source != *held.source() {
            self.last_source = held.source().into();
            self.source_changes += 1;
        }
        self.next_number += 1;
        held.number = self.next_number;
        let class = held.class;
        let file = &mut lane.files.get_or_insert_with(Box::default)[class as usize];
        if let (Some(heads), Class::Droppable, true) = (&mut self.heads, class, file.is_empty()) {
            heads.insert((held.number, number));
        }
        file.push_back(held);
        self.held += 1;
        self.answers += usize::from(class == Class::Answer);
        self.list(number);
    }

    /// Appends messages that may go now, their windows charged, with their destinations: until they come to `budget` bytes, or a
    /// large one is among them, which is the last then. `room_for` says whether a large one of so many bytes may begin.
    pub fn let_go(&mut self, mut budget: usize, room_for: impl Fn(usize) -> bool, out: &mut Vec<(Arc<str>, Held)>) {
        while let Some(number) = self.ready.front().copied() {
            let Some(name) = self.lanes.name(number).cloned() else {
                self.ready.pop_front();
                continue;
            };
            // Out of the table for as long as it is looked at.
            let Some(mut lane) = self.lanes.get_mut(number).map(std::mem::take) else { return };
            let mut turn = TURN_BYTES;
            let next = loop {
                let Some(class) = lane.next_class(self.window) else { break Next::Nothing };
                let fits = lane.front(class).is_some_and(|held| !held.large || room_for(held.payload().len()));
                if !fits || !lane.is_open(class, self.window, self.charged) {
                    break Next::Parked;
                }
                if turn == 0 || budget == 0 {
                    break Next::Later;
                }
                let Some(held) = self.take(&mut lane, number, class) else { break Next::Nothing };
                let want = Want { class, large: held.large, payload_bytes: held.payload().len() };
                lane.goes(want, self.window, &mut self.charged, &mut self.busy);
                turn = turn.saturating_sub(held.cost);
                budget = budget.saturating_sub(held.cost);
                if want.large {
                    budget = 0;
                }
                out.push((name.clone(), held));
            };
            lane.listed = next != Next::Nothing;
            let idle = lane.is_idle();
            if let Some(place) = self.lanes.get_mut(number) {
                *place = lane;
            }
            self.ready.pop_front();
            match next {
                Next::Nothing if idle => drop(self.lanes.remove(number)),
                Next::Nothing => {}
                Next::Parked => self.parked.push(number),
                Next::Later => self.ready.push_back(number),
            }
            if budget == 0 {
                return;
            }
        }
    }

    /// The peer has room again for so many bytes. True when something may go that could not before.
    pub fn granted(&mut self, destination: &str, bytes: u64) -> bool {
        let Some(number) = self.lanes.find(destination) else { return false };
        let Some(lane) = self.lanes.get_mut(number) else { return false };
        let used = !lane.window.is_unused();
        lane.window.granted(bytes);
        if used && lane.window.is_unused() {
            self.charged -= 1;
            if self.charged + 1 >= DESTINATIONS_MAX {
                self.unpark();
            }
        }
        self.list(number);
        self.drop_if_idle(number);
        self.any_ready()
    }

    /// A small message that was let go doesn't go.
    pub fn refund(&mut self, destination: &str, payload_bytes: usize) {
        if self.window > 0 {
            self.granted(destination, credit::cost(payload_bytes));
        }
    }

    /// The large message to this destination has gone out.
    pub fn large_done(&mut self, destination: &str) {
        let Some(number) = self.lanes.find(destination) else { return };
        if let Some(lane) = self.lanes.get_mut(number) {
            self.busy -= usize::from(std::mem::take(&mut lane.large_under_way));
        }
        self.unpark();
        self.list(number);
        self.drop_if_idle(number);
    }

    /// Whether an answer of this engine waits.
    pub fn answer_waits(&self, source: &str) -> bool {
        self.answers > 0
            && self.lanes.iter().any(|(_, _, lane)| {
                let files = lane.files.as_ref();
                files.is_some_and(|files| files[Class::Answer as usize].iter().any(|held| held.source() == source))
            })
    }

    /// Takes the oldest of all messages that give way.
    pub fn drop_oldest(&mut self) -> Option<Held> {
        let (_, number) = *self.heads.as_ref()?.first()?;
        self.take_from(number, Class::Droppable)
    }

    /// Takes the oldest message to a destination that gives way.
    pub fn drop_oldest_of(&mut self, destination: &str) -> Option<Held> {
        let number = self.lanes.find(destination)?;
        self.lanes.get(number)?.first(Class::Droppable)?;
        self.take_from(number, Class::Droppable)
    }

    /// Takes all casts, sends and calls of which `is_over` says that they have waited for too long.
    pub fn expire(&mut self, is_over: impl Fn(u32) -> bool, mut each: impl FnMut(Held)) {
        if self.held == self.answers {
            return;
        }
        let waiting = self.lanes.iter().filter(|(_, _, lane)| lane.files.is_some());
        let numbers: Vec<u32> = waiting.map(|(number, _, _)| number).collect();
        for number in numbers {
            for class in [Class::Droppable, Class::Kept] {
                let first_since = |lane: &Lane| lane.front(class).map(|held| held.since);
                while self.lanes.get(number).and_then(first_since).is_some_and(&is_over) {
                    match self.take_from(number, class) {
                        Some(held) => each(held),
                        None => break,
                    }
                }
            }
        }
    }

    /// Everything that waits, in the order in which it came, with its destination.
    pub fn drain(&mut self) -> Vec<(Arc<str>, Held)> {
        let mut all = Vec::with_capacity(self.held);
        for (name, mut lane) in self.lanes.drain() {
            let files = lane.files.take().map(|files| *files).unwrap_or_default();
            all.extend(files.into_iter().flatten().map(|held| (name.clone(), held)));
        }
        all.sort_by_key(|(_, held)| held.number);
        let (window, oldest) = (self.window as u32, self.heads.is_some());
        *self = Lanes::new(window, oldest);
        all
    }

    fn take(&mut self, lane: &mut Lane, number: u32, class: Class) -> Option<Held> {
        let file = &mut lane.files.as_mut()?[class as usize];
        let held = file.pop_front()?;
        if let (Some(heads), Class::Droppable) = (&mut self.heads, class) {
            heads.remove(&(held.number, number));
            if let Some(next) = file.front() {
                heads.insert((next.number, number));
            }
        }
        if lane.is_empty() {
            lane.files = None;
        }
        self.held -= 1;
        self.answers -= usize::from(class == Class::Answer);
        Some(held)
    }

    /// As [`Lanes::take`], of a lane in its place, which goes if nothing is left of it.
    fn take_from(&mut self, number: u32, class: Class) -> Option<Held> {
        let mut lane = self.lanes.get_mut(number).map(std::mem::take)?;
        let held = self.take(&mut lane, number, class);
        if let Some(place) = self.lanes.get_mut(number) {
            *place = lane;
        }
        self.drop_if_idle(number);
        held
    }

    fn list(&mut self, number: u32) {
        let window = self.window;
        if let Some(lane) = self.lanes.get_mut(number).filter(|lane| lane.next_class(window).is_some()) {
            if !std::mem::replace(&mut lane.listed, true) {
                self.ready.push_back(number);
            }
        }
    }

    fn unpark(&mut self) {
        self.ready.extend(self.parked.drain(..));
    }

    fn drop_if_idle(&mut self, number: u32) {
        if self.lanes.get(number).is_some_and(Lane::is_idle) {
            self.lanes.remove(number);
        }
    }
}

#[cfg(test)]
mod tests;
