//! A link: knock, answer, channel, hello and session as one machine. Carrier bytes in, carrier bytes and events out.
//!
//! ```text
//!  carrier ──► [knock or answer] ──► channel ──► hello ──► session ──► events
//!  carrier ◄── [knock or answer] ◄── channel ◄── hello ◄── session ◄── pushes
//! ```
//!
//! The session may be one that had other links before, or has others beside this: see [`LinkEvent::Up`].
//!
//! Two callers at a time at most: a reader ([`Link::handle_bytes`], [`Link::handle_signature`], [`Link::accept`], …) and a
//! writer ([`Link::flush`]). Whatever leaves bytes to send says so: wake the writer. Locks, in the order in which
//! they are taken: handshake, then those of the session, then channel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use legation_proto::error::{CloseCode, HelloRefused, LinkError, PeerMisbehaved};
use legation_proto::frame::close::Close;
use legation_proto::frame::hello::Offer;
use legation_proto::frame::{self, FrameType, Head};
use legation_proto::hello::{Agreed, ChannelFacts, Handshake, HandshakeConfig, Role, SignRequest, Step};
use legation_proto::identity::{NetworkKey, RealmId};
use legation_proto::keyring::Keyring;
use legation_proto::limits::{Limits, FLUSH_TARGET};
use legation_proto::session::{Attachment, Event, Rest, Session, Slice, Wake};
use legation_proto::sync::{lock, lock_soon};

use crate::answer::AnswerRefused;
use crate::channel::{Channel, Profile, UnixMs};
use crate::error::ChannelError;
use crate::knock::{KnockMemory, KnockRefused};
use crate::local::LocalChannel;
use crate::plain::PlainChannel;
use crate::tls::{TlsChannel, TlsContext};
use crate::wire::Wire;

/// Fresh randomness for one link.
#[derive(Clone)]
pub struct LinkRandom {
    pub knock: [u8; 16],
    pub nonce: [u8; 32],
    pub ephemeral: [u8; 32],
    pub session: [u8; 32],
}

/// What one end of a link is made of.
#[derive(Clone)]
pub struct LinkConfig {
    pub profile: Profile,
    pub keyring: Arc<Keyring>,
    pub network: NetworkKey,
    pub tls: Arc<TlsContext>,
    pub limits: Limits,
    pub random: LinkRandom,
    pub now: UnixMs,
}

/// The session that a dialled link is to be one of, if the peer has it, too.
#[derive(Clone, Debug)]
pub struct Resume {
    pub session: Arc<Session>,
    /// Beside the links that there are, not in the place of one.
    pub additional: bool,
}

/// What comes out of a link, in order.
#[derive(Debug)]
pub enum LinkEvent<'a> {
    /// The identity is held elsewhere: answer with [`Link::handle_signature`].
    Sign(SignRequest),
    /// Responder: the peer has proven who it is; answer with [`Link::accept`] or [`Link::close`].
    Decide {
        peer: RealmId,
        key: [u8; 32],
        /// The session that it has with us.
        resume: Option<Offer>,
    },
    /// The link stands. A new session is sent on it from now on; one that was `resumed` only after [`Link::activate`].
    Up {
        session: Arc<Session>,
        resumed: bool,
        /// The dialler asked for the links that there are to stay.
        additional: bool,
    },
    Session(Event<'a>),
    /// We must close: flush once more, then close the carrier.
    Fault(LinkFault),
}

/// Why a link ends from our side.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkFault {
    /// The knock was refused: not a byte is sent.
    Knock(KnockRefused),
    /// Who answered has not shown the network key: not a byte more is sent.
    Answer(AnswerRefused),
    Channel(ChannelError),
    Protocol(LinkError),
}

impl LinkFault {
    /// Whether the session outlives the link: the peer broke no rule, but what is between us did, or is silent.
    pub fn keeps_session(&self) -> bool {
        match self {
            LinkFault::Answer(_) | LinkFault::Channel(_) => true,
            LinkFault::Protocol(error) => CloseCode::from(error).keeps_session(),
            LinkFault::Knock(_) => false,
        }
    }
}

impl std::fmt::Display for LinkFault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LinkFault::Knock(refused) => refused.fmt(formatter),
            LinkFault::Answer(refused) => refused.fmt(formatter),
            LinkFault::Channel(error) => error.fmt(formatter),
            LinkFault::Protocol(error) => error.fmt(formatter),
        }
    }
}

impl From<LinkError> for LinkFault {
    fn from(error: LinkError) -> Self {
        LinkFault::Protocol(error)
    }
}

impl From<ChannelError> for LinkFault {
    fn from(error: ChannelError) -> Self {
        LinkFault::Channel(error)
    }
}

pub struct Link {
    profile: Profile,
    role: Role,
    keyring: Arc<Keyring>,
    limits: Limits,
    deadline: UnixMs,
    handshake: Mutex<Opening>,
    attached: OnceLock<Attached>,
    channel: Mutex<Wire>,
    scratch: Mutex<Vec<u8>>,
    /// See [`Link::deferring`].
    defers: bool,
    /// What came behind the hello is still to be handled.
    deferred: AtomicBool,
}

/// The session, and what of it belongs to this link.
struct Attached {
    session: Arc<Session>,
    link: Arc<Attachment>,
}

/// Until the session stands.
struct Opening {
    handshake: Handshake,
    network: NetworkKey,
    /// What it goes on, if both sides have it.
    resume: Option<Arc<Session>>,
    /// Of a new session.
    limits: Limits,
    /// Plaintext that waits to be a frame.
    buffer: Vec<u8>,
    channel_reported: bool,
    over: bool,
}

impl Link {
    /// Dials `peer`, whose identity key is known. `knock`: the carrier wants one.
    ///
    /// # Errors
    /// [`ChannelError`] when there is no randomness for TLS, or the profile has no knock.
    pub fn connect(
        config: LinkConfig,
        peer: &[u8; 32],
        knock: bool,
        resume: Option<Resume>,
    ) -> Result<Link, ChannelError> {
        let peer = RealmId::of(peer);
        let LinkRandom { nonce, ephemeral, .. } = config.random;
        let channel: Box<dyn Channel> = match config.profile {
            Profile::Tls => Box::new(TlsChannel::initiator(config.tls.clone())?),
            Profile::Local => Box::new(LocalChannel::initiator(nonce)),
            Profile::Plain => Box::new(PlainChannel::initiator(nonce, ephemeral)),
        };
        let knock = knock.then_some((peer, config.random.knock, config.now));
        let wire = Wire::initiator(channel, config.network.clone(), knock)?;
        Ok(Link::new(config, Role::Initiator, Some(peer), resume, wire))
    }

    /// Answers whoever dialled. `memory`: the carrier wants a knock, remembered there.
    ///
    /// # Errors
    /// [`ChannelError`] when there is no randomness for TLS.
    pub fn accept_from(config: LinkConfig, memory: Option<Arc<Mutex<KnockMemory>>>) -> Result<Link, ChannelError> {
        let LinkRandom { nonce, ephemeral, .. } = config.random;
        let channel: Box<dyn Channel> = match config.profile {
            Profile::Tls => Box::new(TlsChannel::responder(config.tls.clone())?),
            Profile::Local => Box::new(LocalChannel::responder(nonce)),
            Profile::Plain => Box::new(PlainChannel::responder(nonce, ephemeral)),
        };
        let knock = memory.map(|memory| (config.keyring.realm_id(), memory));
        let wire = Wire::responder(channel, config.network.clone(), knock);
        Ok(Link::new(config, Role::Responder, None, None, wire))
    }

    fn new(config: LinkConfig, role: Role, expected_peer: Option<RealmId>, resume: Option<Resume>, wire: Wire) -> Link {
        let offer = resume
            .as_ref()
            .map(|resume| Offer { session: resume.session.agreed().session, additional: resume.additional });
        let handshake = Handshake::new(HandshakeConfig {
            role,
            network: config.network.id(),
            keyring: config.keyring.clone(),
            expected_peer,
            random: config.random.session,
            resume: offer,
            limits: config.limits.clone(),
        });
        Link {
            profile: config.profile,
            role,
            keyring: config.keyring,
            deadline: config.now.saturating_add(config.limits.handshake_ms),
            handshake: Mutex::new(Opening {
                handshake,
                network: config.network,
                resume: resume.map(|resume| resume.session),
                limits: config.limits.clone(),
                buffer: Vec::new(),
                channel_reported: false,
                over: false,
            }),
            limits: config.limits,
            attached: OnceLock::new(),
            channel: Mutex::new(wire),
            scratch: Mutex::new(Vec::new()),
            defers: false,
            deferred: AtomicBool::new(false),
        }
    }

    /// What comes right behind the peer's hello, of the session already, is left for the next [`Link::handle_bytes`], which may be one
    /// without bytes: so a driver that delivers later than it is told can do so behind what other links brought.
    #[must_use]
    pub fn deferring(self) -> Link {
        Link { defers: true, ..self }
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// None until the hellos are through.
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.attached.get().map(|attached| &attached.session)
    }

    /// The last round trip of a PING on this link, ms. None before the first.
    pub fn rtt_ms(&self) -> Option<u64> {
        self.attached.get().and_then(|attached| attached.link.rtt_ms())
    }

    /// From now on our side of the session is sent on this link: true, wake its writer. False when it is already, when there is no
    /// session yet, or the link has been detached.
    pub fn activate(&self) -> bool {
        self.attached.get().is_some_and(|attached| attached.session.activate(&attached.link))
    }

    /// Whether our side of the session is sent on this link.
    pub fn is_active(&self) -> bool {
        self.attached.get().is_some_and(|attached| attached.session.is_active(&attached.link))
    }

    /// The link has ended, and its session goes on without it: nothing is handled any more, and sent only what the link has to say
    /// for itself. Waits for what is being handled. True: the session was sent on it.
    pub fn detach(&self) -> bool {
        self.attached.get().is_some_and(|attached| attached.session.detach(&attached.link))
    }

    /// Carrier bytes.
    pub fn handle_bytes(&self, now: UnixMs, input: &[u8], sink: &mut dyn FnMut(LinkEvent<'_>)) -> Wake {
        self.handle_slice(now, input, &mut Slice::unbounded(), sink).0
    }

    /// The same as far as `slice` goes, once there is a session ([`Link::session`]); a handshake is not cut up. Unless [`Rest::Nothing`]
    /// is left it has to be called again, when what it has brought has been delivered; it may be without bytes.
    pub fn handle_slice(
        &self,
        now: UnixMs,
        input: &[u8],
        slice: &mut Slice,
        sink: &mut dyn FnMut(LinkEvent<'_>),
    ) -> (Wake, Rest) {
        if let Some(attached) = self.attached.get() {
            let rest = match self.deferred.swap(false, Ordering::AcqRel) {
                true => std::mem::take(&mut lock(&self.handshake).buffer),
                false => Vec::new(),
            };
            return self.handle_session_bytes(attached, now, &rest, input, slice, sink);
        }
        (self.handle_handshake(now, input, sink), Rest::Nothing)
    }

    /// Nobody seals or decrypts for longer than a moment: [`Link::handle_slice`] won't have to wait.
    pub fn is_free(&self) -> bool {
        lock_soon(&self.channel).is_some()
    }

    fn handle_handshake(&self, now: UnixMs, input: &[u8], sink: &mut dyn FnMut(LinkEvent<'_>)) -> Wake {
        let mut opening = lock(&self.handshake);
        if opening.over {
            return Wake::default();
        }
        match self.read_channel(&mut opening, now, input) {
            Ok(answered) => {
                let mut wake = self.advance(&mut opening, now, sink);
                wake.link |= answered;
                wake
            }
            Err(fault) => own(self.fail(&mut opening, fault, sink)),
        }
    }

    /// The answer to [`LinkEvent::Sign`].
    pub fn handle_signature(
        &self,
        now: UnixMs,
        id: u64,
        signature: &[u8; 64],
        sink: &mut dyn FnMut(LinkEvent<'_>),
    ) -> Wake {
        let mut opening = lock(&self.handshake);
        // It has ended while somebody signed.
        if opening.over {
            return own(false);
        }
        opening.handshake.handle_signature(id, signature);
        self.advance(&mut opening, now, sink)
    }

    /// The peer of [`LinkEvent::Decide`] is welcome. `resume`: the session that it asked for, where we have it; another is not
    /// resumed. `limits`: those of a new session, where this peer has its own.
    pub fn accept(
        &self,
        now: UnixMs,
        resume: Option<Arc<Session>>,
        limits: Option<Limits>,
        sink: &mut dyn FnMut(LinkEvent<'_>),
    ) -> Wake {
        let mut opening = lock(&self.handshake);
        // The same read may have brought what ended it.
        if opening.over {
            return own(false);
        }
        let resume = resume.filter(|session| opening.handshake.asks_for(session.agreed()));
        if let Err(error) = opening.handshake.accept(resume.is_some(), limits.as_ref()) {
            return own(self.fail(&mut opening, error.into(), sink));
        }
        opening.resume = resume;
        opening.limits = limits.unwrap_or_else(|| self.limits.clone());
        self.advance(&mut opening, now, sink)
    }

    /// Ends the link, in words that the peer is told when it can be: before the hellos are through as well as after.
    pub fn close(&self, code: CloseCode, text: &str) -> bool {
        if let Some(Attached { session, link }) = self.attached.get() {
            return session.close(link, code, text);
        }
        let mut opening = lock(&self.handshake);
        // The handshake may have come through while we waited.
        if let Some(Attached { session, link }) = self.attached.get() {
            return session.close(link, code, text);
        }
        opening.over = true;
        self.seal_close(code, text)
    }

    /// What is to be sent, appended to `out`. True: more waits; flush again when this has been sent.
    ///
    /// # Errors
    /// When the channel can't protect any more: close the carrier.
    pub fn flush(&self, out: &mut Vec<u8>) -> Result<bool, ChannelError> {
        self.flush_to(FLUSH_TARGET, out)
    }

    /// The same, of about `target` bytes and no more, but for a single message that is larger.
    ///
    /// # Errors
    /// As [`Link::flush`].
    pub fn flush_to(&self, target: usize, out: &mut Vec<u8>) -> Result<bool, ChannelError> {
        let Some(Attached { session, link }) = self.attached.get() else {
            out.append(&mut lock(&self.channel).out);
            return Ok(false);
        };
        let mut plaintext = lock(&self.scratch);
        plaintext.clear();
        let more = session.flush_to(target, link, &mut plaintext);
        let mut wire = lock(&self.channel);
        out.append(&mut wire.out);
        wire.channel.poll_transmit(out);
        if !plaintext.is_empty() {
            // At once what it will take: growing by doubling would copy large flushes again and again.
            out.reserve(plaintext.len() + plaintext.len() / 256 + 1_024);
            wire.channel.seal(&plaintext, out)?;
        }
        if plaintext.capacity() > 1024 * 1024 {
            *plaintext = Vec::new();
        }
        Ok(more)
    }

    /// Handshake time-out and heartbeat. Returns the wake, and when to come again.
    pub fn handle_timeout(&self, now: UnixMs, sink: &mut dyn FnMut(LinkEvent<'_>)) -> (bool, Option<UnixMs>) {
        if let Some(attached) = self.attached.get() {
            return match attached.session.handle_timeout(&attached.link, now) {
                Ok((wake, next)) => (wake, Some(next)),
                Err(error) => (self.fail_session(attached, error.into(), sink), None),
            };
        }
        let mut opening = lock(&self.handshake);
        if opening.over {
            return (false, None);
        }
        if now < self.deadline {
            // The initiator's first flight waits from the start, before any byte has come.
            return (!lock(&self.channel).out.is_empty(), Some(self.deadline));
        }
        let timed_out = LinkError::from(HelloRefused::TimedOut);
        (self.fail(&mut opening, timed_out.into(), sink), None)
    }

    fn handle_session_bytes(
        &self,
        attached: &Attached,
        now: UnixMs,
        rest: &[u8],
        input: &[u8],
        slice: &mut Slice,
        sink: &mut dyn FnMut(LinkEvent<'_>),
    ) -> (Wake, Rest) {
        let decrypt = |plaintext: &mut Vec<u8>| {
            plaintext.extend_from_slice(rest);
            lock(&self.channel).channel.handle_bytes(input, plaintext).map_err(LinkFault::from)
        };
        let Attached { session, link } = attached;
        let mut each = |event: Event<'_>| sink(LinkEvent::Session(event));
        let (mut wake, result) = session.handle_slice(link, now, decrypt, slice, &mut each);
        match result {
            Ok(rest) => (wake, rest),
            Err(fault) => {
                wake.link |= self.fail_session(attached, fault, sink);
                (wake, Rest::Nothing)
            }
        }
    }

    fn fail_session(&self, attached: &Attached, fault: LinkFault, sink: &mut dyn FnMut(LinkEvent<'_>)) -> bool {
        let wake = match &fault {
            LinkFault::Protocol(error) => attached.session.close(&attached.link, error.into(), &error.to_string()),
            LinkFault::Channel(_) | LinkFault::Knock(_) | LinkFault::Answer(_) => false,
        };
        sink(LinkEvent::Fault(fault));
        wake
    }

    /// Through knock, answer and channel into the handshake's buffer. True when the channel has answered, even if the writer takes
    /// the answer before anybody looks: a responder is told by it that the knock was good.
    fn read_channel(&self, opening: &mut Opening, now: UnixMs, input: &[u8]) -> Result<bool, LinkFault> {
        let mut wire = lock(&self.channel);
        let wire = &mut *wire;
        let waiting = wire.out.len();
        wire.handle_bytes(now, input, &mut opening.buffer)?;
        if let (false, Some(established)) = (opening.channel_reported, wire.channel.established()) {
            opening.channel_reported = true;
            let facts = ChannelFacts {
                profile: self.profile as u8,
                binding: established.binding,
                own_link_key: established.own_link_key,
                peer_link_key: established.peer_link_key,
            };
            opening.handshake.handle_channel(now, facts);
        }
        Ok(wire.out.len() > waiting)
    }

    /// Takes the handshake's steps and the frames that wait, again while something moves.
    fn advance(&self, opening: &mut Opening, now: UnixMs, sink: &mut dyn FnMut(LinkEvent<'_>)) -> Wake {
        loop {
            match opening.handshake.poll_step() {
                Some(Step::Sign(request)) => {
                    let identity = opening.handshake.identity();
                    match identity.sign(request.purpose, &opening.network.id(), &request.body) {
                        Ok(signature) => opening.handshake.handle_signature(request.id, &signature),
                        Err(_) => sink(LinkEvent::Sign(request)),
                    }
                    continue;
                }
                Some(Step::Send(bytes)) => {
                    // Who fails looks at the wire, too.
                    let sealed = {
                        let mut wire = lock(&self.channel);
                        let wire = &mut *wire;
                        wire.channel.seal(&bytes, &mut wire.out)
                    };
                    if let Err(error) = sealed {
                        return own(self.fail(opening, error.into(), sink));
                    }
                    continue;
                }
                Some(Step::Decide { peer, key, resume }) => {
                    sink(LinkEvent::Decide { peer, key, resume });
                    continue;
                }
                Some(Step::Done(agreed)) => {
                    return self.begin_session(opening, *agreed, now, sink);
                }
                None => {}
            }
            // Before the hellos only these may come, and nothing else is buffered for (`protocol.md` 6.4).
            match opening.buffer.first() {
                None => break,
                Some(kind) if *kind == FrameType::Hello as u8 || *kind == FrameType::Close as u8 => {}
                Some(kind) => {
                    let fault = LinkError::from(PeerMisbehaved::UnexpectedFrame(*kind));
                    return own(self.fail(opening, fault.into(), sink));
                }
            }
            let (taken, outcome) = match frame::head(&opening.buffer, &self.limits) {
                Ok(Head::Partial) => break,
                Ok(Head::Skip { bytes }) => (bytes, Ok(true)),
                Ok(Head::Frame { kind: FrameType::Hello, body, bytes }) => {
                    (bytes, opening.handshake.handle_hello(now, body).map(|()| true))
                }
                Ok(Head::Frame { kind: FrameType::Close, body, bytes }) => {
                    let closed = Close::decode(body).map(|close| {
                        sink(LinkEvent::Session(Event::Closed { code: close.code, text: close.text }));
                        false
                    });
                    (bytes, closed.map_err(LinkError::from))
                }
                Ok(Head::Frame { kind, .. }) => (0, Err(PeerMisbehaved::UnexpectedFrame(kind as u8).into())),
                Err(error) => (0, Err(error)),
            };
            opening.buffer.drain(..taken);
            match outcome {
                Ok(true) => {}
                Ok(false) => {
                    opening.over = true;
                    break;
                }
                Err(error) => return own(self.fail(opening, error.into(), sink)),
            }
        }
        own(!lock(&self.channel).out.is_empty())
    }

    fn begin_session(
        &self,
        opening: &mut Opening,
        agreed: Agreed,
        now: UnixMs,
        sink: &mut dyn FnMut(LinkEvent<'_>),
    ) -> Wake {
        let (resumed, additional, profile) = (agreed.resumed, agreed.additional, agreed.profile);
        let session = match opening.resume.take() {
            Some(session) if resumed => session,
            _ => Arc::new(Session::new(agreed, opening.limits.clone(), self.keyring.clone())),
        };
        opening.over = true;
        let link = session.attach(!resumed, profile, now);
        // Before anybody hears of it: who does may want to activate it.
        let attached = self.attached.get_or_init(|| Attached { session: session.clone(), link });
        // Before that, too: it may be handed to another thread.
        self.deferred.store(self.defers, Ordering::Release);
        sink(LinkEvent::Up { session, resumed, additional });
        if self.defers {
            return own(!lock(&self.channel).out.is_empty());
        }
        let rest = std::mem::take(&mut opening.buffer);
        // What came behind the peer's hello belongs to the session already.
        let take_rest = |plaintext: &mut Vec<u8>| {
            plaintext.extend_from_slice(&rest);
            Ok::<(), LinkFault>(())
        };
        let Attached { session, link } = attached;
        let (mut wake, result) =
            session.handle_bytes(link, now, take_rest, &mut |event| sink(LinkEvent::Session(event)));
        if let Err(fault) = result {
            wake.link |= self.fail_session(attached, fault, sink);
        }
        wake.link |= !lock(&self.channel).out.is_empty();
        wake
    }

    fn fail(&self, opening: &mut Opening, fault: LinkFault, sink: &mut dyn FnMut(LinkEvent<'_>)) -> bool {
        opening.over = true;
        let wake = match &fault {
            LinkFault::Knock(_) | LinkFault::Answer(_) => false,
            LinkFault::Channel(_) => !lock(&self.channel).out.is_empty(),
            LinkFault::Protocol(error) => self.seal_close(error.into(), &error.to_string()),
        };
        sink(LinkEvent::Fault(fault));
        wake
    }

    /// A CLOSE outside of a session: possible once the channel stands. Who is not through the knock gets nothing.
    fn seal_close(&self, code: CloseCode, text: &str) -> bool {
        let mut wire = lock(&self.channel);
        let wire = &mut *wire;
        if wire.channel.established().is_none() {
            return false;
        }
        let mut bytes = Vec::new();
        Close { code, text: text.to_owned() }.encode(&mut bytes);
        let sealed = wire.channel.seal(&bytes, &mut wire.out).is_ok();
        wire.channel.close(&mut wire.out);
        sealed
    }
}

fn own(link: bool) -> Wake {
    Wake { link, session: false }
}
