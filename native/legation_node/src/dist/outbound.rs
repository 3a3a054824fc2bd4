//! From messages to a stream of bytes.
//!
//! ```text
//!  push, small ───────────────────────────► ready ──┐
//!  push, large ─► lane of its key: 1 2 3 4 ─────────┼─► take ─► one write
//!  push, small, same key ──────────► 5 ─┘           │
//!                 lane of another key: 1 2 ─────────┘   a fragment of each in turn
//! ```
//!
//! Frames are written out when they are pushed, once: `ready` is one buffer, and taking it is a swap. A message over 64 KiB is cut into
//! fragments and gets a *lane*, from which each [`take`](Outbound::take) carries off a few frames, so that messages of other keys pass
//! between them. Whatever has the key of a lane goes to its end: messages of one key never overtake each other.
//!
//! The key is the caller's. A BEAM guarantees order from one process to another; the hash of the receiver keeps that, and more.

use std::collections::{HashMap, VecDeque};

use thiserror::Error;

use super::term::VERSION;

/// Bounds, and what the handshake decided.
#[derive(Clone, Copy, Debug)]
pub struct OutboundConfig {
    /// Both sides offered [`FRAGMENTS`](super::flags::FRAGMENTS). Otherwise messages are never cut.
    pub header: bool,
    /// Bytes that may wait.
    pub queue_bytes_max: usize,
}

/// More waits than may; nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too much waits for the node")]
pub struct Full;

/// What went, since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboundCounters {
    /// Accepted.
    pub messages: u64,
    /// Of these, those that were cut into fragments.
    pub fragmented: u64,
    /// Refused as [`Full`].
    pub refused: u64,
}

/// What [`Outbound::push_signal`] may go past the bound, as a factor.
const SIGNALS_FACTOR: usize = 4;

/// What a fragment holds of control message and payload, as in ERTS.
const FRAGMENT_BYTES: usize = 64 * 1024;

/// A buffer that has grown over this is not kept when it is empty.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// What waits to go to one node.
#[derive(Debug)]
pub struct Outbound {
    config: OutboundConfig,
    /// Whole frames that nothing must wait for.
    ready: Vec<u8>,
    lanes: HashMap<u64, Lane>,
    /// Whose lane gives the next frame.
    turns: VecDeque<u64>,
    /// Bytes in all lanes.
    lane_bytes: usize,
    sequence: u64,
    counters: OutboundCounters,
}

/// Whole frames of one key, in order.
#[derive(Debug)]
struct Lane {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that have been taken.
    taken: usize,
}

/// Memory that is given back as soon as its last frame has been taken.
#[derive(Debug)]
struct Piece {
    frames: Vec<u8>,
    /// The fragments of one message: nothing is appended.
    cut: bool,
}

impl Outbound {
    pub fn new(config: OutboundConfig) -> Outbound {
        Outbound {
            config,
            ready: Vec::new(),
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            lane_bytes: 0,
            sequence: 0,
            counters: OutboundCounters::default(),
        }
    }

    pub fn counters(&self) -> &OutboundCounters {
        &self.counters
    }

    /// Bytes that wait, as they will be written.
    pub fn bytes(&self) -> usize {
        self.ready.len() + self.lane_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Appends a message. `control`: one term without version byte ([`encode`](super::control::encode)). `payload`: one, too, in pieces
    /// that follow each other; no pieces, no payload.
    ///
    /// # Errors
    /// [`Full`]: with it more than `queue_bytes_max` would wait.
    pub fn push(&mut self, key: u64, control: &[u8], payload: &[&[u8]]) -> Result<(), Full> {
        self.push_within(self.config.queue_bytes_max, key, control, payload)
    }

    /// Appends what must not be lost: the end of a process, the answer to an unlink. Goes four times as far as [`push`](Self::push).
    ///
    /// # Errors
    /// [`Full`]: the node doesn't read. Close the connection, or processes over there wait for ever.
    pub fn push_signal(&mut self, key: u64, control: &[u8], payload: &[&[u8]]) -> Result<(), Full> {
        self.push_within(self.config.queue_bytes_max.saturating_mul(SIGNALS_FACTOR), key, control, payload)
    }

    /// Appends a tick: we are alive.
    pub fn tick(&mut self) {
        self.ready.extend_from_slice(&[0; 4]);
    }

    /// Moves frames to the end of `into`: all that are ready, and of those in lanes about as many as bring it to `target_bytes`, but
    /// at least one, lest those that are ready keep them waiting. True: more waits.
    ///
    /// An empty `into` is swapped; pass the same buffer again and again, and nothing is allocated.
    pub fn take(&mut self, into: &mut Vec<u8>, target_bytes: usize) -> bool {
        if into.is_empty() {
            std::mem::swap(into, &mut self.ready);
        } else {
            into.append(&mut self.ready);
        }
        self.ready.shrink_to(KEPT_BYTES_MAX);
        let mut at_least_one = true;
        while at_least_one || into.len() < target_bytes {
            let Some(key) = self.turns.pop_front() else {
                return false;
            };
            at_least_one = false;
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            self.lane_bytes -= lane.take_frames(into);
            if lane.pieces.is_empty() {
                self.lanes.remove(&key);
            } else {
                self.turns.push_back(key);
            }
        }
        !self.turns.is_empty()
    }

    fn push_within(&mut self, bytes_max: usize, key: u64, control: &[u8], payload: &[&[u8]]) -> Result<(), Full> {
        let body = payload.iter().fold(control.len(), |bytes, piece| bytes.saturating_add(piece.len()));
        let cut = self.config.header && body > FRAGMENT_BYTES;
        let header = self.config.header;
        let frames = if cut { cut_bytes(control.len(), body) } else { whole_bytes(header, body, !payload.is_empty()) };
        if frames > bytes_max.saturating_sub(self.bytes()) || (!cut && frames - 4 > u32::MAX as usize) {
            self.counters.refused += 1;
            return Err(Full);
        }
        self.counters.messages += 1;
        let lane = if self.lanes.is_empty() { None } else { self.lanes.get_mut(&key) };
        if cut {
            self.counters.fragmented += 1;
            self.sequence += 1;
            let piece = Piece { frames: cut_frames(self.sequence, control, payload, body, frames), cut };
            match lane {
                Some(lane) => lane.pieces.push_back(piece),
                None => {
                    self.lanes.insert(key, Lane { pieces: VecDeque::from([piece]), taken: 0 });
                    self.turns.push_back(key);
                }
            }
            self.lane_bytes += frames;
        } else if let Some(lane) = lane {
            put_whole(lane.end(), header, frames, control, payload);
            self.lane_bytes += frames;
        } else {
            put_whole(&mut self.ready, header, frames, control, payload);
        }
        Ok(())
    }
}

impl Lane {
    /// Where small frames are appended.
    fn end(&mut self) -> &mut Vec<u8> {
        if self.pieces.back().is_none_or(|piece| piece.cut || piece.frames.len() >= FRAGMENT_BYTES) {
            self.pieces.push_back(Piece { frames: Vec::new(), cut: false });
        }
        let last = self.pieces.len() - 1;
        &mut self.pieces[last].frames
    }

    /// Moves one fragment, or small frames up to the size of one; how many bytes these are.
    fn take_frames(&mut self, into: &mut Vec<u8>) -> usize {
        let Some(piece) = self.pieces.front() else {
            return 0;
        };
        let frames = &piece.frames[self.taken..];
        let mut bytes = 0;
        while let Some(length) = frames[bytes..].first_chunk() {
            let end = bytes + 4 + u32::from_be_bytes(*length) as usize;
            if bytes > 0 && end > FRAGMENT_BYTES {
                break;
            }
            bytes = end;
        }
        into.extend_from_slice(&frames[..bytes]);
        self.taken += bytes;
        if self.taken == piece.frames.len() {
            self.pieces.pop_front();
            self.taken = 0;
        }
        bytes
    }
}

/// Bytes of a frame that holds a whole message.
fn whole_bytes(header: bool, body: usize, payload: bool) -> usize {
    let head = if header { 3 } else { 2 + usize::from(payload) };
    body.saturating_add(4 + head)
}

/// Appends a frame of so many bytes that holds a whole message.
fn put_whole(out: &mut Vec<u8>, header: bool, frame_bytes: usize, control: &[u8], payload: &[&[u8]]) {
    out.reserve(frame_bytes);
    out.extend_from_slice(&((frame_bytes - 4) as u32).to_be_bytes());
    out.extend_from_slice(if header { &[VERSION, 68, 0] } else { &[112, VERSION] });
    out.extend_from_slice(control);
    if !header && !payload.is_empty() {
        out.push(VERSION);
    }
    for piece in payload {
        out.extend_from_slice(piece);
    }
}

/// What the first fragment holds: the control message must be whole.
fn first_bytes(control: usize, body: usize) -> usize {
    FRAGMENT_BYTES.max(control).min(body)
}

fn fragments(control: usize, body: usize) -> usize {
    1 + (body - first_bytes(control, body)).div_ceil(FRAGMENT_BYTES)
}

/// Bytes of all frames of a message that is cut.
fn cut_bytes(control: usize, body: usize) -> usize {
    // Each has a length, tag and two numbers; the first an empty list of atoms as well.
    body.saturating_add(1 + 22 * fragments(control, body))
}

/// All frames of a message that is cut.
fn cut_frames(sequence: u64, control: &[u8], payload: &[&[u8]], body: usize, frames_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames_bytes);
    let mut pieces = std::iter::once(control).chain(payload.iter().copied());
    let mut piece: &[u8] = &[];
    let mut left = body;
    let mut room = first_bytes(control.len(), body);
    for number in (1..=fragments(control.len(), body) as u64).rev() {
        let first = left == body;
        left -= room;
        let length = room + if first { 19 } else { 18 };
        out.extend_from_slice(&(length as u32).to_be_bytes());
        out.extend_from_slice(&[VERSION, if first { 69 } else { 70 }]);
        out.extend_from_slice(&sequence.to_be_bytes());
        out.extend_from_slice(&number.to_be_bytes());
        if first {
            out.push(0);
        }
        while room > 0 {
            if piece.is_empty() {
                let Some(next) = pieces.next() else {
                    break;
                };
                piece = next;
                continue;
            }
            let (now, later) = piece.split_at(piece.len().min(room));
            out.extend_from_slice(now);
            room -= now.len();
            piece = later;
        }
        room = FRAGMENT_BYTES.min(left);
    }
    out
}
