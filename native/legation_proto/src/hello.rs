//! The handshake inside a channel: both sides prove their identity on this very channel (`protocol.md` 7).
//!
//! ```text
//! initiator: start ─ sign link ─ sign hello ─ send ─────────────► wait ─ check ─ done
//! responder: start ─ wait ─ check ─ decide (allow-list) ─ sign link ─ sign hello ─ send ─ done
//! ```
//!
//! Signatures are asked for, not made: a [`SignRequest`] names purpose and body, and the handshake goes on when
//! [`Handshake::handle_signature`] brings it. So an identity may sit in a device that takes its time.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;

use crate::acquaintances::SignedLink;
use crate::certificate::LinkCertificate;
use crate::error::{HelloRefused, InvalidFrame, LinkError, PeerMisbehaved};
use crate::frame::hello::{Hello, Offer};
use crate::frame::{self, FrameType};
use crate::identity::{verify, NetworkId, Purpose, RealmId};
use crate::keyring::{Identity, Keyring};
use crate::limits::{Limits, CLOCK_SKEW_MS, LINK_CERTIFICATE_MS, VERSION_MAX, VERSION_MIN};
use crate::rotation::{follow_chain, Revocation, Rotation};
use crate::signing::Modes;
use crate::UnixMs;

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    Initiator = 1,
    Responder = 2,
}

/// What the channel has to say once it stands.
#[derive(Clone, Copy, Debug)]
pub struct ChannelFacts {
    /// 1 tls, 2 local, 3 plain.
    pub profile: u8,
    pub binding: [u8; 32],
    pub own_link_key: Option<[u8; 32]>,
    pub peer_link_key: Option<[u8; 32]>,
}

#[derive(Clone)]
pub struct HandshakeConfig {
    pub role: Role,
    pub network: NetworkId,
    /// Who we are, and what we know of others' keys.
    pub keyring: Arc<Keyring>,
    /// Whom the initiator dialled. The responder has none.
    pub expected_peer: Option<RealmId>,
    /// 32 fresh random bytes, our half of the session id.
    pub random: [u8; 32],
    /// Initiator: the session that the link is to be one of, if the peer has it, too.
    pub resume: Option<Offer>,
    pub limits: Limits,
}

/// A signature that the identity is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignRequest {
    pub id: u64,
    pub purpose: Purpose,
    pub body: Vec<u8>,
}

/// What comes out, in order.
#[derive(Clone, Debug)]
pub enum Step {
    Sign(SignRequest),
    /// A whole frame for the peer.
    Send(Vec<u8>),
    /// Responder: the peer has proven who it is. Is it welcome?
    Decide {
        peer: RealmId,
        key: [u8; 32],
        resume: Option<Offer>,
    },
    Done(Box<Agreed>),
}

/// What both sides know when the hellos are through.
#[derive(Clone, Debug)]
pub struct Agreed {
    pub role: Role,
    pub profile: u8,
    pub version: u16,
    pub network: NetworkId,
    pub session: [u8; 32],
    /// The session is not new; for the initiator and the responder alike.
    pub resumed: bool,
    /// The initiator asked for the links that there are to stay.
    pub additional: bool,
    pub own: RealmId,
    pub peer: RealmId,
    /// The identity keys in force when the hellos were said.
    pub own_key: [u8; 32],
    /// Fit for use.
    pub peer_key: VerifyingKey,
    /// How many rotations our hello told of; a session tells of later ones.
    pub own_rotations: usize,
    pub peer_chain: Vec<Rotation>,
    /// The peer's limits: what we may send it.
    pub peer_message_bytes_max: u32,
    pub peer_engines_max: u32,
    /// The window for each of its engines; 0: it asks for no credit.
    pub peer_credit_bytes: u32,
    /// How what we send it may be signed.
    pub peer_accepts: Modes,
}

impl Agreed {
    /// The peer's first identity key, by which it is known.
    pub fn peer_realm_key(&self) -> &[u8; 32] {
        self.peer_chain.first().map_or(self.peer_key.as_bytes(), |first| &first.old)
    }
}

enum State {
    Idle,
    LinkSignature { id: u64, not_after: UnixMs },
    HelloSignature { id: u64, body: Vec<u8> },
    AwaitPeer,
    AwaitDecision,
    Done,
}

/// What the peer has said and proven.
struct Proven {
    hello: Hello,
    identity: VerifyingKey,
    link: Option<SignedLink>,
}

pub struct Handshake {
    config: HandshakeConfig,
    own: RealmId,
    /// What our hello speaks for, from its first signature on.
    identity: Arc<Identity>,
    facts: Option<ChannelFacts>,
    peer: Option<Proven>,
    state: State,
    next_id: u64,
    now: UnixMs,
    steps: VecDeque<Step>,
}

impl Handshake {
    pub fn new(config: HandshakeConfig) -> Handshake {
        Handshake {
            own: config.keyring.realm_id(),
            identity: config.keyring.identity(),
            config,
            facts: None,
            peer: None,
            state: State::Idle,
            next_id: 1,
            now: 0,
            steps: VecDeque::new(),
        }
    }

    /// Steps that wait to be taken. Poll after each of the calls below.
    pub fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// The channel stands.
    pub fn handle_channel(&mut self, now: UnixMs, facts: ChannelFacts) {
        self.now = now;
        self.facts = Some(facts);
        match self.config.role {
            Role::Initiator => self.begin_own_hello(),
            Role::Responder => self.state = State::AwaitPeer,
        }
    }

    /// Whose signatures [`Step::Sign`] asks for.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The answer to a [`SignRequest`]. Answers to other requests than the open one are ignored.
    pub fn handle_signature(&mut self, id: u64, signature: &[u8; 64]) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::LinkSignature { id: open, not_after } if open == id => {
                let key = self.facts.and_then(|facts| facts.own_link_key).unwrap_or([0; 32]);
                let certificate = LinkCertificate { key, not_after, signature: *signature };
                let (network, from, to) = (self.config.network, self.own, self.peer_id());
                self.identity.keep_link(SignedLink { network, from, to, certificate: certificate.clone() });
                self.sign_hello(Some(certificate));
            }
            State::HelloSignature { id: open, mut body } if open == id => {
                body.extend_from_slice(signature);
                let mut bytes = Vec::with_capacity(body.len() + frame::HEADER_BYTES);
                frame::encode(FrameType::Hello, &body, &mut bytes);
                self.steps.push_back(Step::Send(bytes));
                match self.config.role {
                    Role::Initiator => self.state = State::AwaitPeer,
                    Role::Responder => self.finish(),
                }
            }
            other => self.state = other,
        }
    }

    /// The peer's HELLO, without its frame header.
    ///
    /// # Errors
    /// Whatever `protocol.md` 7.4 lists; the link ends.
    pub fn handle_hello(&mut self, now: UnixMs, body: &[u8]) -> Result<(), LinkError> {
        self.now = now;
        if !matches!(self.state, State::AwaitPeer) {
            return Err(PeerMisbehaved::UnexpectedFrame(FrameType::Hello as u8).into());
        }
        let proven = self.check(body)?;
        let hello = &proven.hello;
        let (peer, key, resume) = (hello.own, *hello.realm_key(), hello.resume);
        self.peer = Some(proven);
        match self.config.role {
            Role::Initiator => {
                self.note_head()?;
                self.finish();
            }
            Role::Responder => {
                self.state = State::AwaitDecision;
                self.steps.push_back(Step::Decide { peer, key, resume });
            }
        }
        Ok(())
    }

    /// The responder's answer to [`Step::Decide`]. A refusal is the caller's to send. `resume`: we have the session that the peer
    /// asks for; without such a question there is nothing to resume. `limits`: those that our hello tells
    /// this peer of, where it has its own.
    ///
    /// # Errors
    /// When the peer's key has been replaced or revoked, perhaps by this very hello; the link ends.
    pub fn accept(&mut self, resume: bool, limits: Option<&Limits>) -> Result<(), LinkError> {
        if matches!(self.state, State::AwaitDecision) {
            self.note_head()?;
            if let Some(limits) = limits {
                self.config.limits = limits.clone();
            }
            let asked = self.peer.as_ref().and_then(|peer| peer.hello.resume);
            self.config.resume = asked.filter(|_| resume);
            self.begin_own_hello();
        }
        Ok(())
    }

    /// The peer is one of ours, and its hello is verified: from now on its key doesn't go back behind this.
    fn note_head(&self) -> Result<(), LinkError> {
        let Some(Proven { hello, identity, link }) = &self.peer else { return Ok(()) };
        let heads = self.config.keyring.heads();
        heads.advance(&hello.own, &hello.chain)?;
        if hello.revocation.is_some() {
            heads.revoke(&hello.own);
            return Err(HelloRefused::Revoked.into());
        }
        self.config.keyring.acquaintances().keep(*identity, link.clone());
        Ok(())
    }

    /// Whether a session is one with this peer, and the one that its hello asks for.
    pub fn asks_for(&self, session: &Agreed) -> bool {
        let asked = |hello: &Hello| hello.resume.is_some_and(|offer| offer.session == session.session);
        self.peer.as_ref().is_some_and(|peer| peer.hello.own == session.peer && asked(&peer.hello))
    }

    fn peer_id(&self) -> RealmId {
        match (&self.peer, self.config.expected_peer) {
            (Some(peer), _) => peer.hello.own,
            (None, Some(expected)) => expected,
            (None, None) => RealmId([0; 32]),
        }
    }

    fn begin_own_hello(&mut self) {
        self.identity = self.config.keyring.identity();
        match self.facts.and_then(|facts| facts.own_link_key) {
            Some(key) => {
                if let Some(link) = self.identity.link(&self.config.network, &self.peer_id(), &key, self.now) {
                    return self.sign_hello(Some(link));
                }
                let not_after = self.now.saturating_add(LINK_CERTIFICATE_MS);
                let body = LinkCertificate::body(&self.own, &self.peer_id(), &key, not_after);
                let id = self.request(Purpose::Link, body);
                self.state = State::LinkSignature { id, not_after };
            }
            None => self.sign_hello(None),
        }
    }

    fn sign_hello(&mut self, link: Option<LinkCertificate>) {
        let Some(facts) = self.facts else { return };
        let hello = Hello {
            role: self.config.role as u8,
            profile: facts.profile,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: self.config.limits.accept_signing.features(),
            own: self.own,
            peer: self.peer_id(),
            identity_key: *self.identity.public(),
            binding: facts.binding,
            random: self.config.random,
            message_bytes_max: self.config.limits.message_bytes_max,
            engines_max: self.config.limits.engines_max,
            chain: self.identity.chain().to_vec(),
            link,
            revocation: self.identity.revocation().cloned(),
            resume: self.config.resume,
            credit_bytes: NonZeroU32::new(self.config.limits.credit_bytes),
        };
        let body = hello.body();
        let id = self.request(Purpose::Hello, body.clone());
        self.state = State::HelloSignature { id, body };
    }

    fn request(&mut self, purpose: Purpose, body: Vec<u8>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.steps.push_back(Step::Sign(SignRequest { id, purpose, body }));
        id
    }

    /// In the order of `protocol.md` 7.4: what is cheap first, signatures last.
    fn check(&self, body: &[u8]) -> Result<Proven, LinkError> {
        let facts = self.facts.ok_or(PeerMisbehaved::UnexpectedFrame(FrameType::Hello as u8))?;
        let (hello, signature, signed) = Hello::decode(body)?;
        let other_role = match self.config.role {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        if hello.role != other_role as u8 {
            return Err(InvalidFrame::Value("hello role").into());
        }
        if hello.profile != facts.profile {
            return Err(InvalidFrame::Value("hello profile").into());
        }
        if hello.binding != facts.binding {
            return Err(HelloRefused::WrongChannel.into());
        }
        let dialled_another = self.config.expected_peer.is_some_and(|expected| expected != hello.own);
        if hello.peer != self.own || dialled_another || hello.own != RealmId::of(hello.realm_key()) {
            return Err(HelloRefused::WrongRealm.into());
        }
        if hello.version_min > VERSION_MAX || hello.version_max < VERSION_MIN || hello.version_min > hello.version_max {
            return Err(HelloRefused::Version {
                min: hello.version_min,
                max: hello.version_max,
                own_min: VERSION_MIN,
                own_max: VERSION_MAX,
            }
            .into());
        }
        let (network, now) = (&self.config.network, self.now);
        let (heads, acquaintances) = (self.config.keyring.heads(), self.config.keyring.acquaintances());
        let known = heads.check(&hello.own, &hello.chain)?;
        let check = |key: &[u8; 32]| acquaintances.check_public_key(key);
        let identity = follow_chain(&hello.own, &hello.identity_key, &hello.chain, &known, network, now, &check)?;
        let signed_link = |certificate: &LinkCertificate| {
            let (network, from, to) = (*network, hello.own, hello.peer);
            SignedLink { network, from, to, certificate: certificate.clone() }
        };
        let link = hello.link.as_ref().map(signed_link);
        match (&link, facts.peer_link_key) {
            (None, None) => {}
            (Some(link), Some(shown)) if link.certificate.key == shown => {
                if link.certificate.not_after.saturating_add(CLOCK_SKEW_MS) < self.now {
                    return Err(HelloRefused::Expired.into());
                }
                if !acquaintances.verify_link(&identity, link) {
                    return Err(HelloRefused::BadSignature.into());
                }
            }
            _ => return Err(HelloRefused::WrongChannel.into()),
        }
        // A responder can only say yes to what it was asked.
        if self.config.role == Role::Initiator && hello.resume.is_some() && hello.resume != self.config.resume {
            return Err(InvalidFrame::Value("hello session").into());
        }
        if !verify(&identity, Purpose::Hello, network, &body[..signed], &signature) {
            return Err(HelloRefused::BadSignature.into());
        }
        let ends = |revocation: &Revocation| revocation.ends(&hello.own, hello.chain.len(), &identity, network);
        if !hello.revocation.as_ref().is_none_or(ends) {
            return Err(HelloRefused::BadSignature.into());
        }
        Ok(Proven { hello, identity, link })
    }

    fn finish(&mut self) {
        let (Some(facts), Some(Proven { hello: peer, identity: peer_key, .. })) = (self.facts, &self.peer) else {
            return;
        };
        let (initiator, responder) = match self.config.role {
            Role::Initiator => ((self.own, self.config.random), (peer.own, peer.random)),
            Role::Responder => ((peer.own, peer.random), (self.own, self.config.random)),
        };
        let mut material = [0; 128];
        material[..32].copy_from_slice(&initiator.0 .0);
        material[32..64].copy_from_slice(&responder.0 .0);
        material[64..96].copy_from_slice(&initiator.1);
        material[96..].copy_from_slice(&responder.1);
        // The responder's word, which is both sides'.
        let resumed = match self.config.role {
            Role::Initiator => peer.resume,
            Role::Responder => self.config.resume,
        };
        let session = match resumed {
            Some(offer) => offer.session,
            None => blake3::derive_key("legation/1/session", &material),
        };
        self.steps.push_back(Step::Done(Box::new(Agreed {
            role: self.config.role,
            profile: facts.profile,
            version: VERSION_MAX.min(peer.version_max),
            network: self.config.network,
            session,
            resumed: resumed.is_some(),
            additional: resumed.is_some_and(|offer| offer.additional),
            own: self.own,
            peer: peer.own,
            own_key: *self.identity.public(),
            peer_key: *peer_key,
            own_rotations: self.identity.chain().len(),
            peer_chain: peer.chain.clone(),
            peer_message_bytes_max: peer.message_bytes_max,
            peer_engines_max: peer.engines_max,
            peer_credit_bytes: peer.credit_bytes.map_or(0, NonZeroU32::get),
            peer_accepts: Modes::from_features(peer.features),
        })));
        self.state = State::Done;
    }
}
