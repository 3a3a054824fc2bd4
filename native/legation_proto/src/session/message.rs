//! Messages on their way from a push to a flush.
//!
//! Names and small payloads stand in an arena that all messages of a queue share, so that a push allocates nothing by itself;
//! large payloads come in pieces of their own.

use crate::etf::{identifiers, Owner, Wire};
use crate::frame::batch::{kind, Address, ALIGNMENT};
use crate::frame::handle_release::Release;
use crate::frame::staged::Piece;
use crate::frame::FrameType;
use crate::session::lanes::{Class, Facts, Held};
use crate::session::queue::Queue;

/// Payloads above this come as a piece of their own instead of being copied into the arena.
pub(crate) const BOXED_ABOVE: usize = 64 * 1024;

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
    pub source_bytes: u8,
    pub destination_bytes: u8,
    pub payload_bytes: u32,
    pub call_id: u64,
    pub caller: u64,
    pub start: usize,
    pub piece: Option<Box<Piece>>,
    /// When it was pushed, by the session's coarse clock.
    pub since: u32,
    /// Whom it counts against, and the next in that engine's chain.
    pub share: u32,
    pub next: u32,
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
    pub fn to(&self, arena: &[u8]) -> u64 {
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
    pub fn is_droppable(&self) -> bool {
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

    pub fn cost(&self) -> usize {
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
pub(crate) fn owned(copy: Wire<'_>) -> Option<Wire<'static>> {
    match copy {
        Wire::Pid { number, owner } => Some(Wire::Pid { number, owner }),
        Wire::Reference { number, owner } => Some(Wire::Reference { number, owner }),
        Wire::Engine(_) => None,
    }
}

/// What counts against the queue's bound: payload and names.
pub(crate) fn cost_of(payload_bytes: usize, source_bytes: usize, destination_bytes: usize) -> usize {
    payload_bytes + source_bytes + destination_bytes + ENTRY_COST
}

/// A message of no bytes still costs its entry.
pub(crate) const ENTRY_COST: usize = 64;

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

    pub fn cost(&self) -> usize {
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

    pub fn len(&self) -> usize {
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
    /// How often the source changes from one message to the next: there are no more signatures to make than one more than that, but
    /// for those that the order of messages asks for.
    pub source_changes: usize,
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
