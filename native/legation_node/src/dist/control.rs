//! Control messages (`erl_dist_protocol`, "Protocol between Connected Nodes"): tuples that say what a message does, and to whom.
//!
//! ```text
//!  104 3 │ 97 22 │ from: pid │ to: pid │          SEND_SENDER; the message follows as a term of its own
//! ```
//!
//! | op | | op | | op | |
//! |---|---|---|---|---|---|
//! | 1 | LINK | 16 | REG_SEND_TT | 27 | PAYLOAD_EXIT2_TT |
//! | 2 | SEND | 18 | EXIT2_TT | 28 | PAYLOAD_MONITOR_P_EXIT |
//! | 3 | EXIT | 19 | MONITOR_P | 29, 30 | SPAWN_REQUEST, _TT |
//! | 4 | UNLINK | 20 | DEMONITOR_P | 31, 32 | SPAWN_REPLY, _TT |
//! | 6 | REG_SEND | 21 | MONITOR_P_EXIT | 33, 34 | ALIAS_SEND, _TT |
//! | 7 | GROUP_LEADER | 22, 23 | SEND_SENDER, _TT | 35 | UNLINK_ID |
//! | 8 | EXIT2 | 24, 25 | PAYLOAD_EXIT, _TT | 36 | UNLINK_ID_ACK |
//! | 12, 13 | SEND_TT, EXIT_TT | 26 | PAYLOAD_EXIT2 | 37 | ALTACT_SIG_SEND |
//!
//! A BEAM chooses among them by the flags of the handshake, but what it encoded before it knew them comes in the older form.
//! Hence all are read. 5 (NODE_LINK) has not been sent for twenty years and is an unknown one here, like 9 to 11, 14, 15 and 17, which never were.

pub mod encode;

use thiserror::Error;

use super::term::{self, Pid, Reference};

/// Whom a monitor or a `DOWN` speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Pid(Pid<'a>),
    /// A registered name, as text (UTF-8).
    Name(&'a [u8]),
}

/// One control message. Traced variants come as their plain ones, the token dropped. A reason that stands in the control tuple
/// (the older forms) is given as a payload: the term, with a version byte in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control<'a> {
    Link {
        from: Pid<'a>,
        to: Pid<'a>,
    },
    /// SEND, SEND_SENDER. Payload: the message.
    Send {
        from: Option<Pid<'a>>,
        to: Pid<'a>,
    },
    /// REG_SEND. Payload: the message.
    RegSend {
        from: Pid<'a>,
        name: &'a [u8],
    },
    /// ALIAS_SEND. Payload: the message.
    AliasSend {
        from: Pid<'a>,
        alias: Reference<'a>,
    },
    /// A linked process has ended. Payload: the reason.
    Exit {
        from: Pid<'a>,
        to: Pid<'a>,
    },
    /// `exit/2`. Payload: the reason.
    Exit2 {
        from: Pid<'a>,
        to: Pid<'a>,
    },
    /// The old one, without an id.
    Unlink {
        from: Pid<'a>,
        to: Pid<'a>,
    },
    /// `id` is the raw term, to be repeated in the acknowledgement.
    UnlinkId {
        id: &'a [u8],
        from: Pid<'a>,
        to: Pid<'a>,
    },
    UnlinkIdAck {
        id: &'a [u8],
        from: Pid<'a>,
        to: Pid<'a>,
    },
    GroupLeader {
        from: Pid<'a>,
        to: Pid<'a>,
    },
    MonitorP {
        from: Pid<'a>,
        target: Target<'a>,
        reference: Reference<'a>,
    },
    DemonitorP {
        from: Pid<'a>,
        target: Target<'a>,
        reference: Reference<'a>,
    },
    /// The `DOWN`. Payload: the reason.
    MonitorPExit {
        from: Target<'a>,
        to: Pid<'a>,
        reference: Reference<'a>,
    },
    /// Payload: the arguments.
    SpawnRequest {
        id: Reference<'a>,
        from: Pid<'a>,
    },
    SpawnReply {
        id: Reference<'a>,
        to: Pid<'a>,
    },
}

impl Control<'_> {
    /// Whether a term belongs to it: the message, the reason, the arguments.
    pub fn has_payload(&self) -> bool {
        match self {
            Control::Send { .. }
            | Control::RegSend { .. }
            | Control::AliasSend { .. }
            | Control::Exit { .. }
            | Control::Exit2 { .. }
            | Control::MonitorPExit { .. }
            | Control::SpawnRequest { .. } => true,
            Control::Link { .. }
            | Control::Unlink { .. }
            | Control::UnlinkId { .. }
            | Control::UnlinkIdAck { .. }
            | Control::GroupLeader { .. }
            | Control::MonitorP { .. }
            | Control::DemonitorP { .. }
            | Control::SpawnReply { .. } => false,
        }
    }
}

/// Why bytes are not a control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// Not a term, or cut short: what follows can't be found.
    #[error("the control message is no well-formed term")]
    Malformed,
    #[error("the control message is no tuple with a number at its front")]
    NoTuple,
    #[error("{0} is no control message that is known")]
    Unknown(u64),
    /// Not as many elements as it has, or other ones.
    #[error("control message {0} has unexpected elements")]
    Elements(u64),
    #[error("bytes are left after the control message")]
    Trailing,
}

/// Reads a control message: exactly one term, without a version byte. The second value is the reason, if it stands in the tuple.
///
/// # Errors
/// [`ControlError`]; after all but [`Malformed`](ControlError::Malformed) the message can be left out and the next one read.
pub fn decode(bytes: &[u8]) -> Result<(Control<'_>, Option<&[u8]>), ControlError> {
    let decoded = decode_first(bytes)?;
    if decoded.rest.is_empty() {
        Ok((decoded.control, decoded.reason))
    } else {
        Err(ControlError::Trailing)
    }
}

/// A control message with what follows it.
pub(super) struct Decoded<'a> {
    pub control: Control<'a>,
    /// The last element of the tuple, where that is the reason.
    pub reason: Option<&'a [u8]>,
    pub rest: &'a [u8],
}

/// Reads the control message at the front of `bytes`.
pub(super) fn decode_first(bytes: &[u8]) -> Result<Decoded<'_>, ControlError> {
    read(bytes, Reason::Read).ok_or_else(|| what_is_wrong(bytes))
}

/// Reads a control message again whose reason, if it stood in the tuple, has been cut off.
pub(super) fn decode_without_reason(bytes: &[u8]) -> Option<Control<'_>> {
    read(bytes, Reason::Absent).map(|decoded| decoded.control)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    Read,
    Absent,
}

/// Bits of ALTACT_SIG_SEND.
mod altact {
    pub const TOKEN: u64 = 2;
    pub const ALIAS: u64 = 4;
    pub const NAME: u64 = 8;
    pub const EXIT: u64 = 16;
}

#[inline(always)]
fn read(bytes: &[u8], reason_is: Reason) -> Option<Decoded<'_>> {
    let (arity, rest) = term::tuple(bytes)?;
    let (op, rest) = take_op(rest)?;
    let mut rest = Elements { rest };
    let mut reason = None;
    let control = match (op, arity) {
        (1, 3) => Control::Link { from: rest.pid()?, to: rest.pid()? },
        // The first element was a cookie once.
        (2, 3) | (12, 4) => {
            rest.any()?;
            let to = rest.pid()?;
            rest.token(arity == 4)?;
            Control::Send { from: None, to }
        }
        (3, 4) | (13, 5) => {
            let (from, to) = (rest.pid()?, rest.pid()?);
            rest.token(arity == 5)?;
            reason = rest.reason(reason_is)?;
            Control::Exit { from, to }
        }
        (4, 3) => Control::Unlink { from: rest.pid()?, to: rest.pid()? },
        (6, 4) | (16, 5) => {
            let from = rest.pid()?;
            rest.any()?;
            let name = rest.name()?;
            rest.token(arity == 5)?;
            Control::RegSend { from, name }
        }
        (7, 3) => Control::GroupLeader { from: rest.pid()?, to: rest.pid()? },
        (8, 4) | (18, 5) => {
            let (from, to) = (rest.pid()?, rest.pid()?);
            rest.token(arity == 5)?;
            reason = rest.reason(reason_is)?;
            Control::Exit2 { from, to }
        }
        (19, 4) => Control::MonitorP { from: rest.pid()?, target: rest.target()?, reference: rest.reference()? },
        (20, 4) => Control::DemonitorP { from: rest.pid()?, target: rest.target()?, reference: rest.reference()? },
        (21, 5) | (28, 4) => {
            let (from, to, reference) = (rest.target()?, rest.pid()?, rest.reference()?);
            if op == 21 {
                reason = rest.reason(reason_is)?;
            }
            Control::MonitorPExit { from, to, reference }
        }
        (22, 3) | (23, 4) => {
            let (from, to) = (Some(rest.pid()?), rest.pid()?);
            rest.token(arity == 4)?;
            Control::Send { from, to }
        }
        (24, 3) | (25, 4) => {
            let (from, to) = (rest.pid()?, rest.pid()?);
            rest.token(arity == 4)?;
            Control::Exit { from, to }
        }
        (26, 3) | (27, 4) => {
            let (from, to) = (rest.pid()?, rest.pid()?);
            rest.token(arity == 4)?;
            Control::Exit2 { from, to }
        }
        // Behind the pid: group leader, function, options.
        (29, 6) | (30, 7) => {
            let (id, from) = (rest.reference()?, rest.pid()?);
            rest.any_of(3)?;
            rest.token(arity == 7)?;
            Control::SpawnRequest { id, from }
        }
        // Behind the pid: flags, and the process or what went wrong.
        (31, 5) | (32, 6) => {
            let (id, to) = (rest.reference()?, rest.pid()?);
            rest.any_of(2)?;
            rest.token(arity == 6)?;
            Control::SpawnReply { id, to }
        }
        (33, 3) | (34, 4) => {
            let (from, alias) = (rest.pid()?, rest.reference()?);
            rest.token(arity == 4)?;
            Control::AliasSend { from, alias }
        }
        (35, 4) => Control::UnlinkId { id: rest.unlink_id()?, from: rest.pid()?, to: rest.pid()? },
        (36, 4) => Control::UnlinkIdAck { id: rest.unlink_id()?, from: rest.pid()?, to: rest.pid()? },
        (37, 4) | (37, 5) => {
            let flags = term::unsigned(rest.any()?)?;
            let from = rest.pid()?;
            let control = match flags & (altact::ALIAS | altact::NAME | altact::EXIT) {
                0 => Control::Send { from: Some(from), to: rest.pid()? },
                altact::ALIAS => Control::AliasSend { from, alias: rest.reference()? },
                altact::NAME => Control::RegSend { from, name: rest.name()? },
                altact::EXIT => Control::Exit2 { from, to: rest.pid()? },
                _ => return None,
            };
            if (flags & altact::TOKEN != 0) != (arity == 5) {
                return None;
            }
            rest.token(arity == 5)?;
            control
        }
        _ => return None,
    };
    Some(Decoded { control, reason, rest: rest.rest })
}

/// A number of at most a byte; the writers of all of these write it as one.
fn take_op(bytes: &[u8]) -> Option<(u8, &[u8])> {
    match *bytes {
        [term::tag::SMALL_INTEGER, op, ref rest @ ..] => Some((op, rest)),
        _ => None,
    }
}

#[cold]
fn what_is_wrong(bytes: &[u8]) -> ControlError {
    if term::skip(bytes).is_none() {
        return ControlError::Malformed;
    }
    let op =
        term::tuple(bytes).filter(|&(arity, _)| arity > 0).and_then(|(_, rest)| term::unsigned(term::take(rest)?.0));
    match op {
        None => ControlError::NoTuple,
        Some(op @ (1..=4 | 6..=8 | 12 | 13 | 16 | 18..=37)) => ControlError::Elements(op),
        Some(op) => ControlError::Unknown(op),
    }
}

/// What is left of a tuple.
struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    fn pid(&mut self) -> Option<Pid<'a>> {
        let (pid, rest) = term::take_pid(self.rest)?;
        self.rest = rest;
        Some(pid)
    }

    fn reference(&mut self) -> Option<Reference<'a>> {
        let (reference, rest) = term::take_reference(self.rest)?;
        self.rest = rest;
        Some(reference)
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let (atom, rest) = term::take_atom(self.rest)?;
        self.rest = rest;
        atom.utf8_bytes()
    }

    fn target(&mut self) -> Option<Target<'a>> {
        if matches!(self.rest.first(), Some(&(term::tag::NEW_PID | term::tag::PID))) {
            self.pid().map(Target::Pid)
        } else {
            self.name().map(Target::Name)
        }
    }

    /// A number that is not negative, up to 64 bits.
    fn unlink_id(&mut self) -> Option<&'a [u8]> {
        let id = self.any()?;
        term::unsigned(id).map(|_| id)
    }

    fn any(&mut self) -> Option<&'a [u8]> {
        let (any, rest) = term::take(self.rest)?;
        self.rest = rest;
        Some(any)
    }

    fn any_of(&mut self, count: usize) -> Option<()> {
        for _ in 0..count {
            self.any()?;
        }
        Some(())
    }

    fn token(&mut self, traced: bool) -> Option<()> {
        if traced {
            self.any()?;
        }
        Some(())
    }

    fn reason(&mut self, reason: Reason) -> Option<Option<&'a [u8]>> {
        match reason {
            Reason::Read => self.any().map(Some),
            Reason::Absent => Some(None),
        }
    }
}
