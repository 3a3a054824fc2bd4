//! The handshake between nodes, version 6, both sides (`erl_dist_protocol`, "Distribution Handshake"). The steps, the digests and
//! their randomness are `erl_dist`'s; what it doesn't look after is ours.
//!
//! ```text
//!  initiator                                                            acceptor
//!     "N" flags:64 creation:32 length:16 name          ──►
//!                                                      ◄──  "s" "ok" | "ok_simultaneous" | "nok" | "not_allowed" | "alive"
//!     "s" "true" | "false"                             ──►                                     (after "alive" alone)
//!                                                      ◄──  "N" flags:64 challenge:32 creation:32 length:16 name
//!     "r" challenge:32 md5(cookie, their challenge)    ──►
//!                                                      ◄──  "a" md5(cookie, their challenge)
//!  each with a length:16 in front. From here on both sides send messages.
//! ```
//!
//! What `erl_dist` 0.8 leaves open, and where it is closed:
//! * the answer to `alive` is never sent by its client and never read by its server: here, over the pipe;
//! * the other side's flags are not looked at: [`flags::REQUIRED`], refused with `not_allowed` and said by name;
//! * names are hardly checked, and not against the one that was dialled: here, before it sees them;
//! * it allocates what a length field says: it is given whole frames of at most [`FRAME_BYTES_MAX`] bytes.

mod name;
mod pipe;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use erl_dist::handshake::{ClientSideHandshake, HandshakeError as ErlDistError, HandshakeStatus, ServerSideHandshake};
use erl_dist::node::{Creation, LocalNode as ErlDistLocal, PeerNode};
use erl_dist::{DistributionFlags, LOWEST_DISTRIBUTION_PROTOCOL_VERSION};

use super::flags;

pub use name::{InvalidName, NodeName, NODE_NAME_BYTES_MAX};
use pipe::{Pipe, Question};

/// The longest frame of a handshake that is accepted: the longest name is 255 bytes, the fields before it are 19, and what a later
/// version may append is to be skipped.
pub const FRAME_BYTES_MAX: usize = 1_024;

/// Not a capability: the caller wants a name from us.
const NAME_ME: u64 = 1 << 33;

/// Ourselves, as the other side gets to know us.
#[derive(Clone)]
pub struct LocalNode {
    pub name: NodeName,
    pub creation: u32,
    /// What we offer.
    pub flags: u64,
    pub cookie: zeroize::Zeroizing<String>,
}

impl fmt::Debug for LocalNode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LocalNode { name, creation, flags, cookie: _ } = self;
        write!(formatter, "LocalNode {{ name: {name}, creation: {creation}, flags: {flags:#x} }}")
    }
}

/// The acceptor's answer to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// Go on; our own attempt to reach that node ends.
    OkSimultaneous,
    /// Our own attempt goes on instead.
    Nok,
    NotAllowed,
    /// We have a connection to that node. If it wants to go on, it knows of none.
    Alive,
}

/// What a handshake comes to, and what it asks on the way.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acceptor: this node calls. To be answered with [`Handshake::answer`].
    Caller(NodeName),
    /// Initiator: the node believes that it is connected to us. To be answered with [`Handshake::answer_alive`].
    Alive,
    /// Done. What [`Handshake::poll_transmit`] still has is the last of the handshake.
    Up(Established),
    /// Over. [`Handshake::poll_transmit`] may still have a refusal.
    Failed(HandshakeError),
}

/// The other node, which knows the cookie.
#[derive(Debug, PartialEq, Eq)]
pub struct Established {
    pub name: NodeName,
    pub creation: u32,
    /// What it offers; the digest of OTP 25 stands for its flags no more.
    pub flags: u64,
    /// What came after the handshake.
    pub rest: Vec<u8>,
}

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    #[error("{0} is malformed")]
    Malformed(&'static str),
    #[error("a frame of {bytes} bytes, where {FRAME_BYTES_MAX} may come")]
    TooLarge { bytes: usize },
    #[error("the connection was closed while we awaited {0}")]
    Closed(&'static str),
    /// The other side proved that its cookie is another one.
    #[error("the cookies differ")]
    Cookie,
    /// The other side closed on our proof.
    #[error("the node closed the connection on our answer to its challenge: the cookies differ")]
    CookieRefused,
    #[error("node {node} lacks what is required: {}", missing.join(", "))]
    MissingFlags { node: String, missing: Vec<&'static str> },
    #[error("{0}")]
    Name(#[from] InvalidName),
    #[error("node {node} has a {} name, ours is {}", length(*long), length(!*long))]
    NameLength { node: NodeName, long: bool },
    #[error("a node that wants to be given a name is not served")]
    NameWanted,
    #[error("node {0} has our own name")]
    OwnName(NodeName),
    #[error("node {found} answers where {expected} was dialled")]
    OtherNode { expected: NodeName, found: NodeName },
    /// The other side said so.
    #[error("the node doesn't allow the connection")]
    NotAllowed,
    #[error("the node is connecting to us, and its attempt goes on")]
    Busy,
    /// Acceptor: the verdict was no.
    #[error("refused")]
    Refused(Verdict),
    /// The other side, told that we are connected, gave up; or we did.
    #[error("the nodes are connected already")]
    Connected,
}

fn length(long: bool) -> &'static str {
    if long {
        "long"
    } else {
        "short"
    }
}

/// What comes next from the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaiting {
    Name,
    Verdict,
    AliveAnswer,
    Complement,
    Reply,
    Status,
    GoOn,
    Challenge,
    Acknowledgement,
    Nothing,
}

impl Awaiting {
    fn describe(self) -> &'static str {
        match self {
            Awaiting::Name => "a name",
            Awaiting::AliveAnswer => "the answer to `alive`",
            Awaiting::Complement => "the complement of a name",
            Awaiting::Reply => "the answer to our challenge",
            Awaiting::Status => "the status",
            Awaiting::Challenge => "the challenge",
            Awaiting::Acknowledgement => "the acknowledgement",
            Awaiting::Verdict | Awaiting::GoOn | Awaiting::Nothing => "nothing",
        }
    }
}

type Steps = Pin<Box<dyn Future<Output = Result<PeerNode, ErlDistError>> + Send>>;

/// One handshake. In: [`handle_bytes`](Self::handle_bytes), [`handle_end`](Self::handle_end), [`answer`](Self::answer),
/// [`answer_alive`](Self::answer_alive). Out, after each of these: [`poll_transmit`](Self::poll_transmit), then
/// [`poll_outcome`](Self::poll_outcome), until it has none.
pub struct Handshake {
    local: LocalNode,
    /// Initiator: whom we dialled.
    dialled: Option<NodeName>,
    /// The other side, once it has said who it is.
    peer: Option<NodeName>,
    awaiting: Awaiting,
    old_name: bool,
    pipe: Pipe,
    steps: Option<Steps>,
    raw: Vec<u8>,
    outcome: Option<Outcome>,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Handshake {{ peer: {:?}, awaiting: {:?} }}", self.peer, self.awaiting)
    }
}

impl Handshake {
    /// We dialled `node`.
    pub fn initiator(local: LocalNode, node: NodeName) -> Handshake {
        let pipe = Pipe::default();
        let failure = HandshakeError::NameLength { node: node.clone(), long: node.is_long() };
        let fits = node.is_long() == local.name.is_long();
        let mut handshake = match erl_dist_local(&local) {
            Ok(ours) => {
                let steps = Box::pin(initiate(pipe.clone(), ours, local.cookie.to_string()));
                Handshake::new(local, Awaiting::Status, pipe, steps)
            }
            Err(error) => return Handshake::stillborn(local, pipe, error.into()),
        };
        handshake.dialled = Some(node);
        if fits {
            handshake.poll_steps();
        } else {
            handshake.fail(failure);
        }
        handshake
    }

    /// Somebody dialled us.
    pub fn acceptor(local: LocalNode) -> Handshake {
        let pipe = Pipe::default();
        match erl_dist_local(&local) {
            Ok(ours) => {
                let steps = Box::pin(accept(pipe.clone(), ours, local.cookie.to_string()));
                let mut handshake = Handshake::new(local, Awaiting::Name, pipe, steps);
                handshake.poll_steps();
                handshake
            }
            Err(error) => Handshake::stillborn(local, pipe, error.into()),
        }
    }

    fn new(local: LocalNode, awaiting: Awaiting, pipe: Pipe, steps: Steps) -> Handshake {
        Handshake {
            local,
            dialled: None,
            peer: None,
            awaiting,
            old_name: false,
            pipe,
            steps: Some(steps),
            raw: Vec::new(),
            outcome: None,
        }
    }

    fn stillborn(local: LocalNode, pipe: Pipe, error: HandshakeError) -> Handshake {
        let mut handshake = Handshake::new(local, Awaiting::Nothing, pipe, Box::pin(std::future::pending()));
        handshake.fail(error);
        handshake
    }

    /// Bytes of the other side, cut anyhow. After the outcome they are the connection's, not the handshake's.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        if self.over() && !matches!(self.outcome, Some(Outcome::Up(_))) {
            return;
        }
        self.raw.extend_from_slice(bytes);
        self.advance();
    }

    /// The other side has closed.
    pub fn handle_end(&mut self) {
        if self.over() {
            return;
        }
        self.fail(match self.awaiting {
            // A BEAM that finds our digest to be wrong says nothing.
            Awaiting::Acknowledgement => HandshakeError::CookieRefused,
            awaiting => HandshakeError::Closed(awaiting.describe()),
        });
    }

    /// Answers [`Outcome::Caller`].
    pub fn answer(&mut self, verdict: Verdict) {
        if self.awaiting != Awaiting::Verdict {
            return;
        }
        self.awaiting = match verdict {
            Verdict::Alive => Awaiting::AliveAnswer,
            _ => self.after_status(),
        };
        self.pipe.answer(verdict);
        self.poll_steps();
        self.advance();
    }

    /// Answers [`Outcome::Alive`].
    pub fn answer_alive(&mut self, go_on: bool) {
        if self.awaiting != Awaiting::GoOn {
            return;
        }
        self.awaiting = Awaiting::Challenge;
        self.pipe.answer_alive(go_on);
        self.poll_steps();
        self.advance();
    }

    /// Appends what is to be sent.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) {
        self.pipe.drain(out);
    }

    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        let mut outcome = self.outcome.take();
        if let Some(Outcome::Up(established)) = &mut outcome {
            established.rest = std::mem::take(&mut self.raw);
        }
        outcome
    }

    /// The node at the other end: as it says, or as we dialled it.
    pub fn peer(&self) -> Option<&NodeName> {
        self.peer.as_ref().or(self.dialled.as_ref())
    }

    fn over(&self) -> bool {
        self.steps.is_none()
    }

    /// Hands whole frames to `erl_dist`, one at a time, as long as it wants one.
    fn advance(&mut self) {
        while !self.over() && !matches!(self.awaiting, Awaiting::Verdict | Awaiting::GoOn) {
            let frame = match take_frame(&mut self.raw) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => return self.fail(error),
            };
            if let Err(error) = self.handle_frame(frame) {
                return self.refuse(error);
            }
        }
        if !self.over() && self.raw.len() > FRAME_BYTES_MAX {
            // Nobody has anything to say before we have answered.
            self.fail(HandshakeError::TooLarge { bytes: self.raw.len() });
        }
    }

    fn handle_frame(&mut self, mut frame: Vec<u8>) -> Result<(), HandshakeError> {
        let awaited = self.awaiting;
        match awaited {
            Awaiting::Name => self.handle_name(&mut frame[2..])?,
            Awaiting::Challenge => self.handle_challenge(&frame[2..])?,
            Awaiting::AliveAnswer => {
                self.awaiting = self.after_status();
                match &frame[2..] {
                    b"strue" => self.pipe.resume(),
                    b"sfalse" => return Err(HandshakeError::Connected),
                    _ => return Err(HandshakeError::Malformed("the answer to `alive`")),
                }
                self.poll_steps();
                return Ok(());
            }
            _ => {}
        }
        self.awaiting = match awaited {
            Awaiting::Name => Awaiting::Verdict,
            Awaiting::Complement => Awaiting::Reply,
            Awaiting::Status => Awaiting::Challenge,
            Awaiting::Challenge => Awaiting::Acknowledgement,
            _ => Awaiting::Nothing,
        };
        self.pipe.feed(&frame);
        self.poll_steps();
        Ok(())
    }

    fn handle_name(&mut self, frame: &mut [u8]) -> Result<(), HandshakeError> {
        let name = parse_name(frame, 0).ok_or(HandshakeError::Malformed("the name"))?;
        if name.flags & NAME_ME != 0 {
            return Err(HandshakeError::NameWanted);
        }
        self.old_name = name.old;
        self.check_peer(&name)?;
        if !name.old {
            // `erl_dist` looks for HANDSHAKE_23 by itself, which the digest of OTP 25 stands for.
            let flags = expand(name.flags).to_be_bytes();
            frame[1..9].copy_from_slice(&flags);
        }
        Ok(())
    }

    fn handle_challenge(&mut self, frame: &[u8]) -> Result<(), HandshakeError> {
        let name = parse_name(frame, 4).ok_or(HandshakeError::Malformed("the challenge"))?;
        self.check_peer(&name)
    }

    fn check_peer(&mut self, said: &Said<'_>) -> Result<(), HandshakeError> {
        let node = NodeName::from_wire(said.name)?;
        self.peer = Some(node.clone());
        if let Some(dialled) = self.dialled.as_ref().filter(|dialled| **dialled != node) {
            return Err(HandshakeError::OtherNode { expected: dialled.clone(), found: node });
        }
        if node == self.local.name {
            return Err(HandshakeError::OwnName(node));
        }
        let long = node.is_long();
        if long != self.local.name.is_long() {
            return Err(HandshakeError::NameLength { node, long });
        }
        // Of an old name the upper half comes with the complement.
        let come = if said.old { u64::from(u32::MAX) } else { u64::MAX };
        check_flags(&node, said.flags, come)
    }

    fn after_status(&self) -> Awaiting {
        if self.old_name {
            Awaiting::Complement
        } else {
            Awaiting::Reply
        }
    }

    fn poll_steps(&mut self) {
        let Some(steps) = &mut self.steps else { return };
        match steps.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => match self.pipe.question() {
                Some(Question::Verdict) => self.outcome = self.peer.clone().map(Outcome::Caller),
                Some(Question::Alive) => {
                    self.awaiting = Awaiting::GoOn;
                    self.outcome = Some(Outcome::Alive);
                }
                None => {}
            },
            Poll::Ready(Ok(peer)) => match self.finish(&peer) {
                Ok(established) => {
                    self.steps = None;
                    self.outcome = Some(Outcome::Up(established));
                }
                Err(error) => {
                    // Our acknowledgement must not leave.
                    self.pipe.drain(&mut Vec::new());
                    self.fail(error);
                }
            },
            Poll::Ready(Err(error)) => self.fail(self.explain(error)),
        }
    }

    fn finish(&self, peer: &PeerNode) -> Result<Established, HandshakeError> {
        let (Some(name), Some(creation)) = (self.peer.clone(), peer.creation) else {
            return Err(HandshakeError::Malformed("the creation"));
        };
        let flags = expand(peer.flags.bits());
        check_flags(&name, flags, u64::MAX)?;
        Ok(Established { name, creation: creation.get(), flags, rest: Vec::new() })
    }

    fn explain(&self, error: ErlDistError) -> HandshakeError {
        let initiator = self.dialled.is_some();
        match error {
            ErlDistError::OngoingHandshake if initiator => HandshakeError::Busy,
            ErlDistError::OngoingHandshake => HandshakeError::Refused(Verdict::Nok),
            ErlDistError::NotAllowed if initiator => HandshakeError::NotAllowed,
            ErlDistError::NotAllowed => HandshakeError::Refused(Verdict::NotAllowed),
            ErlDistError::AlreadyActive => HandshakeError::Connected,
            ErlDistError::CookieMismatch => HandshakeError::Cookie,
            // It has had a whole frame: the end that it ran into is the frame's.
            _ => HandshakeError::Malformed(match self.awaiting {
                Awaiting::Challenge => "the status",
                Awaiting::Acknowledgement => "the challenge",
                Awaiting::Verdict => "the name",
                Awaiting::Reply => "the complement of a name",
                Awaiting::Nothing if initiator => "the acknowledgement",
                _ => "the answer to our challenge",
            }),
        }
    }

    /// Says so where the protocol lets us: as acceptor, in place of the status.
    fn refuse(&mut self, error: HandshakeError) {
        if self.awaiting == Awaiting::Name {
            self.pipe.put(b"\0\x0csnot_allowed");
        }
        self.fail(error);
    }

    fn fail(&mut self, error: HandshakeError) {
        self.steps = None;
        self.raw = Vec::new();
        self.awaiting = Awaiting::Nothing;
        self.outcome = Some(Outcome::Failed(error));
    }
}

async fn initiate(mut pipe: Pipe, local: ErlDistLocal, cookie: String) -> Result<PeerNode, ErlDistError> {
    let mut client = ClientSideHandshake::new(pipe.clone(), local, &cookie);
    let go_on = match client.execute_send_name(LOWEST_DISTRIBUTION_PROTOCOL_VERSION).await? {
        HandshakeStatus::Alive => {
            let go_on = pipe.go_on().await;
            // The client builds this answer and forgets to send it.
            let answer: &[u8] = if go_on { b"\0\x05strue" } else { b"\0\x06sfalse" };
            futures::io::AsyncWriteExt::write_all(&mut pipe, answer).await?;
            go_on
        }
        HandshakeStatus::Named { name, .. } => return Err(ErlDistError::UnknownStatus { status: name }),
        _ => true,
    };
    Ok(client.execute_rest(go_on).await?.1)
}

async fn accept(pipe: Pipe, local: ErlDistLocal, cookie: String) -> Result<PeerNode, ErlDistError> {
    let mut server = ServerSideHandshake::new(pipe.clone(), local, &cookie);
    server.execute_recv_name().await?;
    let status = match pipe.verdict().await {
        Verdict::Ok => HandshakeStatus::Ok,
        Verdict::OkSimultaneous => HandshakeStatus::OkSimultaneous,
        Verdict::Nok => HandshakeStatus::Nok,
        Verdict::NotAllowed => HandshakeStatus::NotAllowed,
        Verdict::Alive => HandshakeStatus::Alive,
    };
    Ok(server.execute_rest(status).await?.1)
}

fn erl_dist_local(local: &LocalNode) -> Result<ErlDistLocal, InvalidName> {
    let name = erl_dist::node::NodeName::new(local.name.name(), local.name.host()).map_err(|_| InvalidName::Form)?;
    // Keeps bits that it has no names for, so ours go out as they are.
    let flags = DistributionFlags::from_bits_truncate(local.flags);
    Ok(ErlDistLocal { name, flags, creation: Creation::new(local.creation) })
}

/// One frame with its length, if it is there.
fn take_frame(raw: &mut Vec<u8>) -> Result<Option<Vec<u8>>, HandshakeError> {
    let Some(&[high, low]) = raw.first_chunk() else { return Ok(None) };
    let bytes = usize::from(u16::from_be_bytes([high, low]));
    match bytes {
        0 => Err(HandshakeError::Malformed("an empty frame")),
        bytes if bytes > FRAME_BYTES_MAX => Err(HandshakeError::TooLarge { bytes }),
        bytes if raw.len() < 2 + bytes => Ok(None),
        bytes => Ok(Some(raw.drain(..2 + bytes).collect())),
    }
}

/// What the other side says of itself.
struct Said<'a> {
    /// In the form of version 5, as sent by who doesn't know what we are.
    old: bool,
    flags: u64,
    name: &'a [u8],
}

/// A name frame, or a challenge: then `challenge` is 4, the bytes between flags and what follows.
fn parse_name(frame: &[u8], challenge: usize) -> Option<Said<'_>> {
    match frame.split_first()? {
        (b'N', rest) => {
            let (flags, rest) = rest.split_first_chunk()?;
            let (length, rest) = rest.get(challenge + 4..)?.split_first_chunk()?;
            let name = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
            Some(Said { old: false, flags: u64::from_be_bytes(*flags), name })
        }
        (b'n', rest) => {
            let (flags, rest) = rest.get(2..)?.split_first_chunk()?;
            Some(Said { old: true, flags: u64::from(u32::from_be_bytes(*flags)), name: rest.get(challenge..)? })
        }
        _ => None,
    }
}

fn expand(flags: u64) -> u64 {
    if flags & flags::MANDATORY_25_DIGEST != 0 {
        flags | flags::MANDATORY_25
    } else {
        flags
    }
}

/// `come`: the flags that have been said so far.
fn check_flags(node: &NodeName, flags: u64, come: u64) -> Result<(), HandshakeError> {
    match flags::missing(flags | !come) {
        0 => Ok(()),
        missing => {
            Err(HandshakeError::MissingFlags { node: node.to_string(), missing: flags::names(missing).collect() })
        }
    }
}
