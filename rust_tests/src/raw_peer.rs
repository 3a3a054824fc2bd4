//! A peer with real keys that keeps the rules as far as a test wants it to.
//!
//! ```text
//!  Entry, Channel, Handshake ─► agreed ─► any frame, any bytes inside the channel, any bytes on the carrier
//! ```
//!
//! It holds no socket: [`RawPeer::receive`] and [`RawPeer::take_out`] are bytes; [`Versus`] runs it against a
//! [`legation_channel::link::Link`] in memory, [`Carrier`] over anything that reads and writes.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ed25519_dalek::{Signature, VerifyingKey};
use legation_channel::channel::{Channel, Profile};
use legation_channel::error::ChannelError;
use legation_channel::knock::KnockMemory;
use legation_channel::link::{Link, LinkConfig, LinkRandom};
use legation_channel::local::LocalChannel;
use legation_channel::plain::PlainChannel;
use legation_channel::tls::TlsChannel;
use legation_proto::error::{CloseCode, LinkError};
use legation_proto::frame::batch::{kind, Batch};
use legation_proto::frame::cert::Cert;
use legation_proto::frame::close::Close;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::hello::Hello;
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::hello::{Agreed, ChannelFacts, Handshake, HandshakeConfig, Role, Step};
use legation_proto::identity::{NetworkKey, Purpose, RealmId};
use legation_proto::limits::Limits;
use legation_proto::UnixMs;

use crate::entry::Entry;
use crate::pair::{fresh_memory, Side};
use crate::raw_batch::{critical, RawBatch, RawMessage};
use crate::realm::{fixed_random, network, Realm, START};

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub kind: u8,
    pub flags: u8,
    pub body: Vec<u8>,
}

/// A message that came, in a batch whose signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub kind: u8,
    pub call_id: u64,
    pub caller: u64,
    pub detail: u8,
    pub source: String,
    pub destination: String,
    pub payload: Vec<u8>,
    pub sequence: u64,
}

#[derive(Clone)]
pub struct RawPeerConfig {
    pub realm: Realm,
    pub network: NetworkKey,
    pub profile: Profile,
    pub role: Role,
    /// Of a responder: it is knocked at.
    pub knock: bool,
    /// The identity key of the other side; a responder doesn't look at it.
    pub peer: [u8; 32],
    pub limits: Limits,
    pub random: LinkRandom,
    pub now: UnixMs,
}

impl RawPeerConfig {
    /// Alice, who dials bob.
    pub fn dialling(profile: Profile) -> RawPeerConfig {
        RawPeerConfig {
            realm: Realm::alice(),
            network: network(),
            profile,
            role: Role::Initiator,
            knock: profile != Profile::Local,
            peer: Realm::bob().key(),
            // It asks for no credit.
            limits: Limits { credit_bytes: 0, ..Limits::default() },
            random: fixed_random(1000, 0),
            now: START,
        }
    }

    /// Bob, who is dialled by alice.
    pub fn dialled(profile: Profile) -> RawPeerConfig {
        RawPeerConfig {
            realm: Realm::bob(),
            role: Role::Responder,
            knock: false,
            peer: Realm::alice().key(),
            random: fixed_random(1000, 1),
            ..RawPeerConfig::dialling(profile)
        }
    }
}

/// Changes our hello before it is signed.
pub type HelloTwist = Box<dyn FnMut(&mut Hello)>;
/// Changes our hello's body after it was signed; what it leaves is sent in a HELLO frame.
pub type BodyTwist = Box<dyn FnMut(&mut Vec<u8>)>;

/// See the module's documentation.
pub struct RawPeer {
    pub realm: Realm,
    pub network: NetworkKey,
    pub now: UnixMs,
    pub hello_twist: Option<HelloTwist>,
    pub body_twist: Option<BodyTwist>,
    /// Our hello is not sent.
    pub keep_hello: bool,
    /// What the other side's hello says, once it has been accepted.
    pub agreed: Option<Agreed>,
    /// Our hello as it was sent.
    pub hello_sent: Vec<u8>,
    /// The other side's hello, accepted or not.
    pub hello_received: Vec<u8>,
    /// All frames that came but that hello.
    pub frames: Vec<RawFrame>,
    pub hello_error: Option<LinkError>,
    pub channel_error: Option<ChannelError>,
    /// Knock and answer.
    pub entry: Entry,
    pub next_sequence: u64,
    pub serial: u64,
    /// Carrier bytes that came.
    pub bytes_in: usize,
    channel: Box<dyn Channel>,
    handshake: Handshake,
    facts_told: bool,
    plaintext: Vec<u8>,
    out: Vec<u8>,
    /// The other side's keys, from its LEARNs and CERTs.
    keys: HashMap<String, [u8; 32]>,
}

impl RawPeer {
    /// # Panics
    /// When TLS has no randomness.
    pub fn new(config: RawPeerConfig) -> RawPeer {
        let RawPeerConfig { realm, network, profile, role, .. } = config;
        let LinkRandom { nonce, ephemeral, session, knock } = config.random;
        let mut channel: Box<dyn Channel> = match (profile, role) {
            (Profile::Tls, Role::Initiator) => Box::new(TlsChannel::initiator(realm.tls.clone()).unwrap()),
            (Profile::Tls, Role::Responder) => Box::new(TlsChannel::responder(realm.tls.clone()).unwrap()),
            (Profile::Local, Role::Initiator) => Box::new(LocalChannel::initiator(nonce)),
            (Profile::Local, Role::Responder) => Box::new(LocalChannel::responder(nonce)),
            (Profile::Plain, Role::Initiator) => Box::new(PlainChannel::initiator(nonce, ephemeral)),
            (Profile::Plain, Role::Responder) => Box::new(PlainChannel::responder(nonce, ephemeral)),
        };
        let peer = RealmId::of(&config.peer);
        let (entry, out) = match role {
            Role::Initiator => {
                let knock = config.knock.then_some((peer, knock, config.now));
                Entry::initiator(channel.as_mut(), network.clone(), knock)
            }
            Role::Responder => (Entry::responder(profile, network.clone(), config.knock), Vec::new()),
        };
        let handshake = Handshake::new(HandshakeConfig {
            role,
            network: network.id(),
            keyring: realm.keyring.clone(),
            expected_peer: (role == Role::Initiator).then_some(peer),
            random: session,
            resume: None,
            limits: config.limits,
        });
        RawPeer {
            realm,
            network,
            now: config.now,
            hello_twist: None,
            body_twist: None,
            keep_hello: false,
            agreed: None,
            hello_sent: Vec::new(),
            hello_received: Vec::new(),
            frames: Vec::new(),
            hello_error: None,
            channel_error: None,
            entry,
            next_sequence: 1,
            serial: config.now * 1000,
            bytes_in: 0,
            channel,
            handshake,
            facts_told: false,
            plaintext: Vec::new(),
            out,
            keys: HashMap::new(),
        }
    }

    // Carrier.

    /// Carrier bytes that came.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.bytes_in += bytes.len();
        let bytes = self.entry.receive(bytes);
        if let Err(error) = self.channel.handle_bytes(&bytes, &mut self.plaintext) {
            self.channel_error.get_or_insert(error);
        }
        let mut said = Vec::new();
        self.channel.poll_transmit(&mut said);
        self.entry.send(&said, &mut self.out);
        if let (false, Some(established)) = (self.facts_told, self.channel.established()) {
            self.facts_told = true;
            let facts = ChannelFacts {
                profile: self.channel.profile() as u8,
                binding: established.binding,
                own_link_key: established.own_link_key,
                peer_link_key: established.peer_link_key,
            };
            self.handshake.handle_channel(self.now, facts);
        }
        self.step();
        while let Some(frame) = self.next_frame() {
            if frame.kind == FrameType::Hello as u8 && self.agreed.is_none() {
                self.hello_received = frame.body.clone();
                if let Err(error) = self.handshake.handle_hello(self.now, &frame.body) {
                    self.hello_error.get_or_insert(error);
                }
                self.step();
            } else {
                self.note_keys(&frame);
                self.frames.push(frame);
            }
        }
    }

    /// What waits for the carrier.
    pub fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Puts bytes on the carrier as they are, around the channel.
    pub fn write_carrier(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Puts bytes into the channel: frames, or anything.
    ///
    /// # Panics
    /// Before the channel stands.
    pub fn write(&mut self, bytes: &[u8]) {
        self.channel.seal(bytes, &mut self.out).expect("the channel stands");
    }

    /// One that takes a sequence number by its place takes it; a batch has said which it takes.
    pub fn write_frame(&mut self, kind: FrameType, body: &[u8]) {
        self.next_sequence += u64::from(kind.is_sequenced() && kind != FrameType::Batch);
        self.write(&critical(kind, body));
    }

    pub fn binding(&self) -> Option<[u8; 32]> {
        self.channel.established().map(|established| established.binding)
    }

    fn step(&mut self) {
        while let Some(step) = self.handshake.poll_step() {
            match step {
                Step::Sign(request) => {
                    let signature = self.realm.keyring.sign(request.purpose, &self.network.id(), &request.body);
                    self.handshake.handle_signature(request.id, &signature.expect("the identity is here"));
                }
                Step::Send(_) if self.keep_hello => {}
                Step::Send(frame) => {
                    let body = self.twisted(&frame[6..]);
                    self.write_frame(FrameType::Hello, &body);
                    self.hello_sent = body;
                }
                Step::Decide { .. } => self.handshake.accept(false, None).expect("a raw peer has seen no other key"),
                Step::Done(agreed) => self.agreed = Some(*agreed),
            }
        }
    }

    fn twisted(&mut self, body: &[u8]) -> Vec<u8> {
        let mut body = body.to_vec();
        if let Some(twist) = &mut self.hello_twist {
            let (mut hello, _, _) = Hello::decode(&body).expect("our own hello");
            twist(&mut hello);
            body = hello.body();
            let signature = self.realm.keyring.sign(Purpose::Hello, &self.network.id(), &body).unwrap();
            body.extend_from_slice(&signature);
        }
        if let Some(twist) = &mut self.body_twist {
            twist(&mut body);
        }
        body
    }

    fn next_frame(&mut self) -> Option<RawFrame> {
        let (header, rest) = self.plaintext.split_first_chunk::<6>()?;
        let [kind, flags, length @ ..] = *header;
        let length = u32::from_le_bytes(length) as usize;
        let body = rest.get(..length)?.to_vec();
        self.plaintext.drain(..6 + length);
        Some(RawFrame { kind, flags, body })
    }

    fn note_keys(&mut self, frame: &RawFrame) {
        if frame.kind == FrameType::Learn as u8 {
            let (learn, _) = Learn::decode(&frame.body).expect("a LEARN of the other side");
            self.keys.insert(learn.engine, learn.key);
        } else if frame.kind == FrameType::Cert as u8 {
            let (cert, _) = Cert::decode(&frame.body).expect("a CERT of the other side");
            self.keys.insert(String::new(), cert.key);
        }
    }

    // Announcements.

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// `body` with the identity's signature.
    pub fn signed(&self, purpose: Purpose, mut body: Vec<u8>) -> Vec<u8> {
        let signature = self.realm.keyring.sign(purpose, &self.network.id(), &body).expect("the identity is here");
        body.extend_from_slice(&signature);
        body
    }

    pub fn cert(&mut self) -> Cert {
        Cert {
            realm: self.realm.id(),
            key: self.realm.keyring.online_public(),
            not_before: self.now,
            not_after: self.now + 3_600_000,
            serial: self.next_serial(),
        }
    }

    pub fn learn(&mut self, engine: &str) -> Learn {
        Learn {
            realm: self.realm.id(),
            engine: engine.to_owned(),
            key: self.realm.keyring.engine_public(engine),
            serial: self.next_serial(),
            not_before: 0,
            not_after: 0,
            version: 0,
            operations: 7,
            delegate: true,
        }
    }

    pub fn forget(&mut self, engine: &str) -> Forget {
        let serial = self.next_serial();
        Forget { realm: self.realm.id(), engine: engine.to_owned(), serial, reason: ForgetReason::Withdrawn }
    }

    pub fn write_cert(&mut self, cert: &Cert) {
        let signed = self.signed(Purpose::Cert, cert.body());
        self.write_frame(FrameType::Cert, &signed);
    }

    pub fn write_learn(&mut self, learn: &Learn) {
        let signed = self.signed(Purpose::Learn, learn.body());
        self.write_frame(FrameType::Learn, &signed);
    }

    pub fn write_forget(&mut self, forget: &Forget) {
        let signed = self.signed(Purpose::Forget, forget.body());
        self.write_frame(FrameType::Forget, &signed);
    }

    /// Our CERT and a LEARN for each engine, as they should be.
    pub fn announce(&mut self, engines: &[&str]) {
        let cert = self.cert();
        self.write_cert(&cert);
        for engine in engines {
            let learn = self.learn(engine);
            self.write_learn(&learn);
        }
    }

    // Batches.

    /// A proper batch with the next sequence numbers, which are used up by it.
    ///
    /// # Panics
    /// Before the hellos are through.
    pub fn batch(&mut self, engine: &str, messages: Vec<RawMessage>) -> RawBatch {
        let agreed = self.agreed.as_ref().expect("the hellos are through");
        let first_sequence = self.next_sequence;
        self.next_sequence += messages.len() as u64;
        RawBatch {
            session: agreed.session,
            source: agreed.own.0,
            destination: agreed.peer.0,
            first_sequence,
            count: None,
            mode: 1,
            engine: engine.into(),
            table_length: None,
            payloads_length: None,
            messages,
            trailing: Vec::new(),
            table: None,
        }
    }

    /// The frame's body: `batch` and the signature of our engine `signer`, or of the realm for the empty name.
    pub fn sealed(&self, batch: &RawBatch, signer: &str) -> Vec<u8> {
        let mut body = batch.body();
        let signature = self.realm.keyring.sign_batch(signer, &self.network.id(), &body);
        body.extend_from_slice(&signature);
        body
    }

    /// A proper batch, sent. Returns the frame's body.
    pub fn send(&mut self, engine: &str, messages: Vec<RawMessage>) -> Vec<u8> {
        let batch = self.batch(engine, messages);
        let body = self.sealed(&batch, engine);
        self.write_frame(FrameType::Batch, &body);
        body
    }

    pub fn cast(&mut self, engine: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
        self.send(engine, vec![RawMessage::cast(destination, payload)])
    }

    pub fn ping(&mut self, token: u64) {
        self.write_frame(FrameType::Ping, &token.to_le_bytes());
    }

    // What came.

    pub fn told(&self) -> Option<Close> {
        let close = self.frames.iter().find(|frame| frame.kind == FrameType::Close as u8)?;
        Some(Close::decode(&close.body).expect("a CLOSE of the other side"))
    }

    pub fn told_code(&self) -> Option<CloseCode> {
        self.told().map(|close| close.code)
    }

    pub fn pongs(&self) -> Vec<u64> {
        self.numbers(FrameType::Pong)
    }

    pub fn acks(&self) -> Vec<u64> {
        self.numbers(FrameType::Ack)
    }

    fn numbers(&self, kind: FrameType) -> Vec<u64> {
        let frames = self.frames.iter().filter(|frame| frame.kind == kind as u8);
        frames.map(|frame| u64::from_le_bytes(frame.body[..].try_into().expect("eight bytes"))).collect()
    }

    /// Messages that came, in order. Each batch's signature is checked here, without the core.
    ///
    /// # Panics
    /// On a batch that doesn't keep the rules.
    pub fn got(&self) -> Vec<Got> {
        let agreed = self.agreed.as_ref().expect("the hellos are through");
        let mut expected = 1;
        let mut got = Vec::new();
        for frame in &self.frames {
            let kind = FrameType::known(frame.kind).filter(|kind| kind.is_sequenced());
            if kind != Some(FrameType::Batch) {
                expected += u64::from(kind.is_some());
                continue;
            }
            let batch = Batch::parse(&frame.body).expect("a batch of the other side");
            let key = self.keys.get(batch.header.engine).expect("the source was announced");
            let mut input = b"legation/1/batch\0".to_vec();
            input.extend(self.network.id().0);
            input.extend(blake3::hash(batch.signed).as_bytes());
            let key = VerifyingKey::from_bytes(key).expect("a key");
            let signature = batch.signature.expect("of the mode of engines");
            key.verify_strict(&input, &Signature::from_bytes(signature)).expect("a good signature");
            assert_eq!(batch.header.first_sequence, expected, "sequence numbers without a gap");
            assert_eq!((batch.header.source, batch.header.destination), (agreed.peer, agreed.own));
            assert_eq!(batch.header.session, agreed.session);
            for item in batch.messages() {
                got.push(Got {
                    kind: item.row.kind,
                    call_id: item.row.call_id,
                    caller: item.row.caller,
                    detail: item.row.detail,
                    source: item.row.source.to_owned(),
                    destination: item.row.destination.to_owned(),
                    payload: item.payload.to_vec(),
                    sequence: expected,
                });
                expected += 1;
            }
        }
        got
    }

    /// Refusals that came: call id and reason.
    pub fn refusals(&self) -> Vec<(u64, u8)> {
        let errors = self.got().into_iter().filter(|got| got.kind == kind::ERROR);
        errors.map(|got| (got.call_id, got.detail)).collect()
    }
}

/// A raw peer against a link, in memory and without latency.
pub struct Versus {
    pub side: Side,
    pub peer: RawPeer,
    pub now: UnixMs,
}

impl Versus {
    /// The raw peer is alice and dials bob, a link.
    pub fn dialling(config: RawPeerConfig, limits: Limits) -> Versus {
        let memory = config.knock.then(|| fresh_memory(config.now));
        Versus::dialling_with(config, limits, memory)
    }

    pub fn dialling_with(config: RawPeerConfig, limits: Limits, memory: Option<Arc<Mutex<KnockMemory>>>) -> Versus {
        let bob = Realm::bob();
        let link_config = link_config(&bob, config.profile, config.now, limits, 1);
        let link = Link::accept_from(link_config, memory).unwrap();
        Versus::of(link, bob, config)
    }

    /// The raw peer is bob, and is dialled by alice, a link, without a knock.
    pub fn dialled(config: RawPeerConfig, limits: Limits) -> Versus {
        let alice = Realm::alice();
        let link_config = link_config(&alice, config.profile, config.now, limits, 0);
        let link = Link::connect(link_config, &Realm::bob().key(), false, None).unwrap();
        Versus::of(link, alice, config)
    }

    fn of(link: Link, realm: Realm, config: RawPeerConfig) -> Versus {
        let now = config.now;
        let mut side = Side::new(link, realm, network());
        side.tick(now);
        Versus { side, peer: RawPeer::new(config), now }
    }

    /// Up, with the raw peer's engines `e1` and `e2` announced and the link's engine `b`. The peer needs no credit.
    pub fn up(profile: Profile) -> Versus {
        Versus::up_with(RawPeerConfig::dialling(profile), Limits { credit_bytes: 0, ..Limits::default() })
    }

    pub fn up_with(config: RawPeerConfig, limits: Limits) -> Versus {
        let mut versus = Versus::dialling(config, limits);
        versus.settle();
        assert!(versus.side.is_up() && versus.peer.agreed.is_some(), "{:?}", versus.side.events);
        versus.peer.announce(&["e1", "e2"]);
        versus.side.certify(versus.now);
        versus.side.export("b");
        versus.settle();
        versus.side.events.clear();
        versus
    }

    /// Moves bytes until there are none.
    pub fn settle(&mut self) {
        loop {
            self.side.now = self.now;
            let from_link = self.side.flush();
            self.peer.now = self.now;
            if !from_link.is_empty() {
                self.peer.receive(&from_link);
            }
            let from_peer = self.peer.take_out();
            if from_link.is_empty() && from_peer.is_empty() {
                break;
            }
            self.side.handle(self.now, &from_peer);
        }
    }

    /// Lets time pass on the link's side.
    pub fn advance(&mut self, ms: u64) {
        let target = self.now + ms;
        while let Some(at) = self.side.timer.filter(|at| *at <= target && !self.side.is_over()) {
            self.now = self.now.max(at);
            self.side.tick(self.now);
            self.settle();
        }
        self.now = target;
    }

    /// A proper cast gets through: the link lives and is in order.
    pub fn assert_alive(&mut self) {
        self.side.events.clear();
        let hello = crate::term::text("alive?");
        self.peer.cast("e1", "b", &hello);
        self.settle();
        assert_eq!(self.side.take_payloads(), [hello], "{:?}", self.side.fault);
    }

    /// The link has closed, and both sides say why.
    pub fn assert_closed(&mut self, code: CloseCode) {
        assert_eq!(self.side.fault_code(), Some(code), "{:?}", self.side.fault);
        assert_eq!(self.peer.told_code(), Some(code));
    }
}

fn link_config(realm: &Realm, profile: Profile, now: UnixMs, limits: Limits, end: u8) -> LinkConfig {
    LinkConfig {
        profile,
        keyring: realm.keyring.clone(),
        network: network(),
        tls: realm.tls.clone(),
        limits,
        random: fixed_random(2000, end),
        now,
    }
}

/// A raw peer on a real carrier whose reads time out.
pub struct Carrier<T> {
    pub io: T,
    pub peer: RawPeer,
    pub closed: bool,
}

impl<T: Read + Write> Carrier<T> {
    pub fn new(io: T, peer: RawPeer) -> Carrier<T> {
        Carrier { io, peer, closed: false }
    }

    /// Writes what waits. A carrier that is closed under it is no error.
    pub fn flush(&mut self) {
        let out = self.peer.take_out();
        if self.closed || out.is_empty() {
            return;
        }
        if self.io.write_all(&out).and_then(|()| self.io.flush()).is_err() {
            // What the other side said before may still be readable; the next read finds the end.
        }
    }

    /// Reads and answers until `done`, the end of the carrier, or `wait` has passed. True: `done`.
    pub fn run(&mut self, wait: Duration, mut done: impl FnMut(&RawPeer) -> bool) -> bool {
        let deadline = Instant::now() + wait;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            self.flush();
            if done(&self.peer) {
                return true;
            }
            if self.closed || Instant::now() >= deadline {
                return false;
            }
            match self.io.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(count) => self.peer.receive(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.closed = true,
            }
        }
    }
}
