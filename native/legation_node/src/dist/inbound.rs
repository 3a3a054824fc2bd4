//! From a stream of bytes to messages.
//!
//! ```text
//!  frame         length:4 │ …                              length 0: a tick
//!
//!  passed through         │ 112 │ 131 control │ 131 payload
//!  with header            │ 131  68  0 │ control │ payload
//!  first fragment         │ 131  69 │ sequence:8 │ number:8 │ 0 │ control │ a part of the payload
//!  next fragment          │ 131  70 │ sequence:8 │ number:8 │ the next part          numbers count down to 1
//! ```
//!
//! Reading is a circle of three: [`space`](Inbound::space) is where the next bytes go, [`filled`](Inbound::filled) says how many came,
//! [`next`](Inbound::next) gives messages until there are none.
//!
//! **Nothing is copied.** A payload is handed out where it was read, with the version byte in front that a header takes away: the
//! control message is moved one byte to the left, over what has been read of the frame, and 131 is put in the gap. Only fragments are
//! put together elsewhere.
//!
//! **Nothing is believed.** The buffer grows by what has come, and not over the longest frame that is allowed; of a longer one the beginning is
//! kept and the rest thrown away as it comes.

mod fragments;

use std::ops::Range;

use thiserror::Error;

use super::control::{self, Control, ControlError};
use super::term::VERSION;
use fragments::{Added, Begun, Fragments};

/// What a connection brings.
#[derive(Debug)]
pub enum Incoming<'a> {
    Tick,
    /// `payload` is a whole external term, version byte (131) at its front, and may be written to: a message without a payload has
    /// an empty one. It has not been looked into; what it is, its reader finds out.
    Message {
        control: Control<'a>,
        payload: &'a mut [u8],
    },
    /// A message over the limit. What comes of it is thrown away; `head` is its beginning (131 first), as much as had
    /// come at once, so that a caller can be told.
    Oversized {
        control: Control<'a>,
        head: &'a mut [u8],
    },
}

/// Bounds, and what the handshake decided.
#[derive(Clone, Copy, Debug)]
pub struct InboundConfig {
    /// Both sides offered [`FRAGMENTS`](super::flags::FRAGMENTS).
    pub header: bool,
    /// The largest payload that is handed out, version byte included.
    pub message_bytes_max: usize,
    /// Fragmented messages that are being put together at once.
    pub fragmented_max: usize,
    /// The bytes of all these, of each as many as its first fragment lets expect.
    pub fragmented_bytes_max: usize,
}

/// Why the stream can't be read any further. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InboundError {
    #[error("a frame of a kind that was not agreed on")]
    Frame,
    #[error("a frame that refers to an atom cache")]
    AtomCache,
    #[error("a control message that is no well-formed term")]
    Control,
    #[error("fragments of sequence {0} begin again before it is complete")]
    SequenceTwice(u64),
    #[error("fragment {number} of sequence {sequence} where {expected} should come")]
    FragmentOrder { sequence: u64, expected: u64, number: u64 },
}

/// What came, since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboundCounters {
    /// Handed out whole.
    pub messages: u64,
    pub ticks: u64,
    /// Handed out whole, after they had come in fragments.
    pub fragmented: u64,
    /// Handed out as [`Incoming::Oversized`], for whatever bound.
    pub oversized: u64,
    /// Of these, those that more fragmented messages at once, or more bytes of them, would have been than may.
    pub fragmented_refused: u64,
    /// Fragments of messages that are not put together: the rest of what was refused, or nobody's.
    pub fragments_dropped: u64,
    /// Well-formed, but no message that we know of.
    pub undecodable: u64,
}

/// Room to read into; more only while a frame is larger.
const BUFFER_BYTES: usize = 256 * 1024;

/// The unread rest is moved to the front when less room than this is left behind it.
const ROOM_BYTES_MIN: usize = 64 * 1024;

/// What is kept of a frame over the limit. Control messages are much smaller.
const HEAD_BYTES: usize = 64 * 1024;

/// The stream of one connection.
#[derive(Debug)]
pub struct Inbound {
    config: InboundConfig,
    /// Unread bytes are those from `start` to `end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of a frame over the limit that have yet to come, and go.
    skipping: u64,
    fragments: Fragments,
    /// The message put together from fragments that was handed out last.
    lent: Vec<u8>,
    counters: InboundCounters,
}

/// Something to hand out, found in one of the two buffers.
enum Found {
    Tick,
    Message(Place),
    Oversized(Place),
}

/// Where control message and payload of one message are.
struct Place {
    lent: bool,
    control: Range<usize>,
    payload: Range<usize>,
}

impl Inbound {
    pub fn new(config: InboundConfig) -> Inbound {
        Inbound {
            config,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            skipping: 0,
            fragments: Fragments::new(&config),
            lent: Vec::new(),
            counters: InboundCounters::default(),
        }
    }

    pub fn counters(&self) -> &InboundCounters {
        &self.counters
    }

    /// Room for what is read next, never empty. Call [`next`](Self::next) until there is nothing before asking for it: then this is at least
    /// 64 KiB, or all that a larger frame may need at this point.
    pub fn space(&mut self) -> &mut [u8] {
        let unread = self.end - self.start;
        let wanted = self.frame_bytes().max(unread.saturating_add(1));
        if self.buffer.len() > BUFFER_BYTES && wanted.max(unread + ROOM_BYTES_MIN) <= BUFFER_BYTES {
            let mut buffer = vec![0; BUFFER_BYTES];
            buffer[..unread].copy_from_slice(&self.buffer[self.start..self.end]);
            (self.buffer, self.start, self.end) = (buffer, 0, unread);
        } else if self.start + wanted > self.buffer.len() || self.buffer.len() - self.end < ROOM_BYTES_MIN {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, unread);
        }
        if self.end == self.buffer.len() {
            let length = wanted.min(2 * self.buffer.len());
            self.buffer.reserve_exact(length - self.buffer.len());
            self.buffer.resize(length, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// That many bytes of [`space`](Self::space) have been filled.
    pub fn filled(&mut self, bytes: usize) {
        self.end = self.end.saturating_add(bytes).min(self.buffer.len());
    }

    /// The next message. `None`: more bytes are needed.
    ///
    /// # Errors
    /// [`InboundError`]. Nothing that comes after can be trusted; the connection must be closed.
    // It lends, which an iterator can't.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Incoming<'_>>, InboundError> {
        if !self.lent.is_empty() {
            self.lent = Vec::new();
        }
        let (place, oversized) = match self.find()? {
            None => return Ok(None),
            Some(Found::Tick) => {
                self.counters.ticks += 1;
                return Ok(Some(Incoming::Tick));
            }
            Some(Found::Message(place)) => (place, false),
            Some(Found::Oversized(place)) => (place, true),
        };
        *if oversized { &mut self.counters.oversized } else { &mut self.counters.messages } += 1;
        let bytes = if place.lent { &mut self.lent } else { &mut self.buffer };
        let (front, payload) = bytes[..place.payload.end].split_at_mut(place.payload.start);
        // It was read once already, to find its end.
        let control = control::decode_without_reason(&front[place.control]).ok_or(InboundError::Control)?;
        Ok(Some(match oversized {
            false => Incoming::Message { control, payload },
            true => Incoming::Oversized { control, head: payload },
        }))
    }

    /// Reads frames until there is something to hand out, or nothing to read.
    fn find(&mut self) -> Result<Option<Found>, InboundError> {
        loop {
            let unread = self.end - self.start;
            if self.skipping > 0 {
                let skipped = unread.min(usize::try_from(self.skipping).unwrap_or(usize::MAX));
                self.skipping -= skipped as u64;
                self.start += skipped;
                if self.skipping > 0 {
                    return Ok(None);
                }
                continue;
            }
            let Some(length) = self.frame_length() else {
                return Ok(None);
            };
            let kept = self.kept_bytes(length);
            if unread - 4 < kept {
                return Ok(None);
            }
            let frame = self.start + 4..self.start + 4 + kept;
            self.start = frame.end;
            self.skipping = (length - kept) as u64;
            if length == 0 {
                return Ok(Some(Found::Tick));
            }
            if let Some(found) = self.frame(frame, length == kept)? {
                return Ok(Some(found));
            }
        }
    }

    /// What the frame at hand says of its length.
    fn frame_length(&self) -> Option<usize> {
        let length = self.buffer[self.start..self.end].first_chunk()?;
        Some(u32::from_be_bytes(*length) as usize)
    }

    /// How much of a frame of that length is read as one piece: all, if it is within the limit.
    fn kept_bytes(&self, length: usize) -> usize {
        if length > self.config.message_bytes_max.saturating_add(HEAD_BYTES) {
            HEAD_BYTES
        } else {
            length
        }
    }

    /// The bytes that the frame at hand needs, as far as is known.
    fn frame_bytes(&self) -> usize {
        self.frame_length().map_or(4, |length| 4 + self.kept_bytes(length))
    }

    /// One frame, or the beginning of one over the limit.
    fn frame(&mut self, frame: Range<usize>, whole: bool) -> Result<Option<Found>, InboundError> {
        let (kind, head) = kind(&self.buffer[frame.clone()], self.config.header)?;
        let body = frame.start + head..frame.end;
        match kind {
            Kind::Whole => self.message(body, whole),
            Kind::First { sequence, .. } if self.fragments.contains(sequence) => {
                Err(InboundError::SequenceTwice(sequence))
            }
            Kind::First { sequence, number: 0 } => {
                Err(InboundError::FragmentOrder { sequence, expected: 1, number: 0 })
            }
            Kind::First { number: 1, .. } => self.message(body, whole),
            Kind::First { .. } if !whole => self.message(body, false),
            Kind::First { sequence, number } => self.first_fragment(sequence, number, body),
            Kind::Next { sequence, number } => self.next_fragment(sequence, number, body, whole),
        }
    }

    /// A message that needs no other frame.
    fn message(&mut self, body: Range<usize>, whole: bool) -> Result<Option<Found>, InboundError> {
        let placed = place(&mut self.buffer, body, self.config.header, whole)?;
        Ok(self.count(placed).map(|place| {
            if whole && place.payload.len() <= self.config.message_bytes_max {
                Found::Message(place)
            } else {
                Found::Oversized(place)
            }
        }))
    }

    fn first_fragment(
        &mut self,
        sequence: u64,
        number: u64,
        body: Range<usize>,
    ) -> Result<Option<Found>, InboundError> {
        let control_bytes = match control::decode_first(&self.buffer[body.clone()]) {
            Ok(decoded) => body.len() - decoded.rest.len(),
            Err(error) => return self.undecodable(error),
        };
        match self.fragments.begin(sequence, number, &self.buffer[body.clone()], control_bytes) {
            Begun::Kept => return Ok(None),
            Begun::TooLarge => {}
            Begun::Refused => self.counters.fragmented_refused += 1,
        }
        self.message(body, false)
    }

    fn next_fragment(
        &mut self,
        sequence: u64,
        number: u64,
        part: Range<usize>,
        whole: bool,
    ) -> Result<Option<Found>, InboundError> {
        let added = self.fragments.add(sequence, number, &self.buffer[part], whole)?;
        let (bytes, complete) = match added {
            Added::Pending => return Ok(None),
            Added::Unknown => {
                self.counters.fragments_dropped += 1;
                return Ok(None);
            }
            Added::Complete(bytes) => (bytes, true),
            Added::TooLarge(bytes) => (bytes, false),
            Added::Refused(bytes) => {
                self.counters.fragmented_refused += 1;
                (bytes, false)
            }
        };
        self.lent = bytes;
        let body = 1..self.lent.len();
        let placed = place(&mut self.lent, body, true, complete)?;
        let found = self.count(placed).map(|place| Place { lent: true, ..place });
        if !complete {
            return Ok(found.map(Found::Oversized));
        }
        self.counters.fragmented += u64::from(found.is_some());
        Ok(found.map(Found::Message))
    }

    fn count(&mut self, placed: Option<Place>) -> Option<Place> {
        self.counters.undecodable += u64::from(placed.is_none());
        placed
    }

    fn undecodable(&mut self, error: ControlError) -> Result<Option<Found>, InboundError> {
        if error == ControlError::Malformed {
            return Err(InboundError::Control);
        }
        self.counters.undecodable += 1;
        Ok(None)
    }
}

/// What a frame is, by its first bytes.
enum Kind {
    Whole,
    First { sequence: u64, number: u64 },
    Next { sequence: u64, number: u64 },
}

const PASS_THROUGH: u8 = 112;
const NORMAL_HEADER: u8 = 68;
const FRAGMENT_HEADER: u8 = 69;
const FRAGMENT_CONTINUED: u8 = 70;

/// What the frame is, and where its body begins: always at least one byte behind its front.
fn kind(frame: &[u8], header: bool) -> Result<(Kind, usize), InboundError> {
    if !header {
        return match *frame {
            [PASS_THROUGH, VERSION, ..] => Ok((Kind::Whole, 2)),
            _ => Err(InboundError::Frame),
        };
    }
    match *frame {
        [VERSION, NORMAL_HEADER, 0, ..] => Ok((Kind::Whole, 3)),
        [VERSION, NORMAL_HEADER, _, ..] => Err(InboundError::AtomCache),
        [VERSION, tag @ (FRAGMENT_HEADER | FRAGMENT_CONTINUED), ref rest @ ..] => {
            let (sequence, rest) = rest.split_first_chunk().ok_or(InboundError::Frame)?;
            let (number, rest) = rest.split_first_chunk().ok_or(InboundError::Frame)?;
            let (sequence, number) = (u64::from_be_bytes(*sequence), u64::from_be_bytes(*number));
            match (tag, rest.first()) {
                (FRAGMENT_CONTINUED, _) => Ok((Kind::Next { sequence, number }, 18)),
                (_, Some(0)) => Ok((Kind::First { sequence, number }, 19)),
                (_, Some(_)) => Err(InboundError::AtomCache),
                (_, None) => Err(InboundError::Frame),
            }
        }
        _ => Err(InboundError::Frame),
    }
}

/// Finds control message and payload in `body` and puts a version byte in front of the payload.
///
/// ```text
///      │ 0 │ control │ payload │          the byte before the body is free
///      │ control │ 131 payload │
/// ```
///
/// `None`: no message that we know of. If the body isn't whole, whatever stands behind the control message is its head.
fn place(bytes: &mut [u8], body: Range<usize>, header: bool, whole: bool) -> Result<Option<Place>, InboundError> {
    let decoded = match control::decode_first(&bytes[body.clone()]) {
        Ok(decoded) => decoded,
        Err(ControlError::Malformed) if whole => return Err(InboundError::Control),
        Err(_) => return Ok(None),
    };
    let rest = decoded.rest;
    let control = body.start..body.end - rest.len();
    let lent = false;
    if let Some(reason) = decoded.reason {
        if !rest.is_empty() {
            return Ok(None);
        }
        let end = control.end - reason.len();
        return Ok(Some(shift(bytes, control.start..end, body.end)));
    }
    if !decoded.control.has_payload() {
        return Ok(rest.is_empty().then_some(Place { lent, control, payload: body.end..body.end }));
    }
    if rest.is_empty() && whole {
        return Ok(None);
    }
    if header || rest.is_empty() {
        return Ok(Some(shift(bytes, control, body.end)));
    }
    Ok((rest[0] == VERSION).then_some(Place { lent, payload: control.end..body.end, control }))
}

/// Moves the control message one to the left and puts 131 in the gap.
fn shift(bytes: &mut [u8], control: Range<usize>, end: usize) -> Place {
    bytes.copy_within(control.clone(), control.start - 1);
    let gap = control.end - 1;
    bytes[gap] = VERSION;
    Place { lent: false, control: control.start - 1..gap, payload: gap..end }
}
