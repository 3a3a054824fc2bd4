//! Hello, frames and announcements (`protocol.md` 6, 7, 9, 11), as they should be or otherwise.

use std::collections::BTreeMap;

use crate::batch::{kind, RawBatch, RawMessage, CALL};
use crate::channel::{Channel, Profile, Role};
use crate::frame::{self, critical, str8};
use crate::keys::{realm_id, sign, Keys, Network};
use crate::random::fresh;

/// Changes our hello, before it is signed or after.
pub type Twist = Box<dyn FnOnce(&mut Vec<u8>)>;

pub struct Config {
    pub keys: Keys,
    pub network: Network,
    pub profile: Profile,
    pub role: Role,
    /// Of a responder: it is knocked at.
    pub knock: bool,
    /// The identity key of who is meant.
    pub peer: [u8; 32],
    pub now: u64,
}

/// An announcement of ours (11.1).
#[derive(Clone)]
pub struct Learn {
    pub realm: [u8; 32],
    pub engine: Vec<u8>,
    pub key: [u8; 32],
    pub serial: u64,
    pub operations: u16,
    pub attributes: Vec<u8>,
}

/// Attribute 1 of no bytes: the online key may sign for this engine.
pub const DELEGATE: [u8; 4] = [1, 0, 0, 0];

impl Learn {
    pub fn body(&self) -> Vec<u8> {
        let mut body = [&self.realm[..], &str8(&self.engine), &self.key, &self.serial.to_le_bytes()].concat();
        // No validity, no version.
        body.extend([0; 20]);
        body.extend(self.operations.to_le_bytes());
        body.extend((self.attributes.len() as u16).to_le_bytes());
        body.extend(&self.attributes);
        body
    }
}

pub struct Peer {
    pub keys: Keys,
    pub network: Network,
    pub profile: Profile,
    pub role: Role,
    pub channel: Channel,
    pub twist: Option<Twist>,
    pub twist_signed: Option<Twist>,
    /// No hello is sent.
    pub mute: bool,
    /// The realm that answers, or that is meant.
    pub peer_realm: [u8; 32],
    /// The session's id, once both hellos are there.
    pub session: Option<[u8; 32]>,
    pub hello_sent: Vec<u8>,
    pub hello_received: Option<Vec<u8>>,
    pub next_sequence: u64,
    pub serial: u64,
    // What came.
    pub told: Option<(u16, String)>,
    pub pongs: Vec<u64>,
    pub certified: bool,
    pub replies: usize,
    pub errors: BTreeMap<&'static str, usize>,
    pub batches: usize,
    pub learned: Vec<String>,
    pub failure: Option<String>,
    random: [u8; 32],
    now: u64,
}

impl Peer {
    /// # Errors
    /// What the channel doesn't like.
    pub fn new(config: Config) -> Result<Peer, String> {
        let channel = match config.role {
            Role::Initiator => {
                let knock_at = config.knock.then_some((&config.peer, config.now));
                Channel::dialling(config.profile, &config.network, knock_at)?
            }
            Role::Responder => Channel::dialled(config.profile, &config.network, config.knock)?,
        };
        Ok(Peer {
            keys: config.keys,
            network: config.network,
            profile: config.profile,
            role: config.role,
            channel,
            twist: None,
            twist_signed: None,
            mute: false,
            peer_realm: realm_id(&config.peer),
            session: None,
            hello_sent: Vec::new(),
            hello_received: None,
            next_sequence: 1,
            serial: config.now * 1000,
            told: None,
            pongs: Vec::new(),
            certified: false,
            replies: 0,
            errors: BTreeMap::new(),
            batches: 0,
            learned: Vec::new(),
            failure: None,
            random: fresh(),
            now: config.now,
        })
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        if let Err(failure) = self.channel.receive(bytes) {
            self.failure.get_or_insert(failure);
        }
        // The responder's answers the initiator's.
        if self.role == Role::Initiator {
            self.say_hello();
        }
        while let Some((kind, body)) = self.next_frame() {
            self.handle(kind, &body);
        }
    }

    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (header, rest) = self.channel.plaintext.split_first_chunk::<6>()?;
        let [kind, _flags, length @ ..] = *header;
        let length = u32::from_le_bytes(length) as usize;
        let body = rest.get(..length)?.to_vec();
        self.channel.plaintext.drain(..6 + length);
        Some((kind, body))
    }

    fn handle(&mut self, kind: u8, body: &[u8]) {
        match kind {
            frame::HELLO if body.len() >= 174 => {
                self.hello_received.get_or_insert_with(|| body.to_vec());
                if self.role == Role::Responder {
                    self.peer_realm = body[14..46].try_into().expect("32 bytes");
                    self.say_hello();
                }
                let theirs: [u8; 32] = body[142..174].try_into().expect("32 bytes");
                let own = (self.keys.realm(), self.random);
                let other = (self.peer_realm, theirs);
                let (initiator, responder) = if self.role == Role::Initiator { (own, other) } else { (other, own) };
                let input = [initiator.0, responder.0, initiator.1, responder.1].concat();
                self.session = Some(blake3::derive_key("legation/1/session", &input));
            }
            frame::BATCH => {
                self.batches += 1;
                self.note_answers(body);
            }
            frame::CERT => self.certified = true,
            frame::LEARN => {
                let name = body.get(33..33 + usize::from(*body.get(32).unwrap_or(&0))).unwrap_or_default();
                self.learned.push(String::from_utf8_lossy(name).into_owned());
            }
            frame::PONG if body.len() == 8 => {
                self.pongs.push(u64::from_le_bytes(body.try_into().expect("8 bytes")));
            }
            frame::CLOSE if body.len() >= 2 => {
                let text = String::from_utf8_lossy(body.get(3..).unwrap_or_default()).into_owned();
                self.told.get_or_insert((u16::from_le_bytes([body[0], body[1]]), text));
            }
            _ => {}
        }
    }

    /// Once, when the channel stands.
    fn say_hello(&mut self) {
        let (Some(facts), true, false) = (self.channel.facts, self.hello_sent.is_empty(), self.mute) else {
            return;
        };
        let mut body = vec![self.role as u8, self.profile as u8, 1, 0, 1, 0];
        body.extend(3u64.to_le_bytes());
        body.extend([self.keys.realm(), self.peer_realm, self.keys.public(), facts.binding, self.random].concat());
        // The largest messages and as many engines as there are by default, no rotations.
        body.extend((8u32 << 20).to_le_bytes());
        body.extend(65_536u32.to_le_bytes());
        body.extend([0, 0]);
        if self.profile == Profile::Tls {
            let not_after = (self.now + 3_600_000).to_le_bytes();
            let link = [&self.keys.realm()[..], &self.peer_realm, &facts.link_key, &not_after].concat();
            body.extend([&facts.link_key[..], &not_after, &self.signed_link(&link)].concat());
        } else {
            body.extend([0; 104]);
        }
        body.extend([0, 0]);
        if let Some(twist) = self.twist.take() {
            twist(&mut body);
        }
        let signature = sign(&self.keys.identity, "hello", &self.network, &body);
        body.extend(signature);
        if let Some(twist) = self.twist_signed.take() {
            twist(&mut body);
        }
        self.write(&critical(frame::HELLO, &body));
        self.hello_sent = body;
    }

    fn signed_link(&self, body: &[u8]) -> [u8; 64] {
        sign(&self.keys.identity, "link", &self.network, body)
    }

    // Frames.

    /// Bytes into the channel.
    pub fn write(&mut self, bytes: &[u8]) {
        self.channel.seal(bytes);
    }

    /// One that takes a sequence number by its place takes it; a batch has said which it takes.
    pub fn write_frame(&mut self, kind: u8, body: &[u8]) {
        self.next_sequence += u64::from(frame::is_sequenced(kind) && kind != frame::BATCH);
        self.write(&critical(kind, body));
    }

    pub fn ping(&mut self, token: u64) {
        self.write_frame(frame::PING, &token.to_le_bytes());
    }

    // Announcements.

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub fn learn(&mut self, engine: &str) -> Learn {
        Learn {
            realm: self.keys.realm(),
            engine: engine.into(),
            key: self.keys.of(engine).verifying_key().to_bytes(),
            serial: self.next_serial(),
            operations: 7,
            attributes: DELEGATE.to_vec(),
        }
    }

    pub fn forget(&mut self, realm: &[u8; 32], engine: &str) -> Vec<u8> {
        [&realm[..], &str8(engine.as_bytes()), &self.next_serial().to_le_bytes(), &[0]].concat()
    }

    /// 11.3
    pub fn cert(&mut self) -> Vec<u8> {
        let online = self.keys.online.verifying_key().to_bytes();
        let (from, to) = (self.now.to_le_bytes(), (self.now + 3_600_000).to_le_bytes());
        [&[1][..], &self.keys.realm(), &online, &from, &to, &self.next_serial().to_le_bytes()].concat()
    }

    /// With the identity's signature.
    pub fn signed(&self, purpose: &str, body: &[u8]) -> Vec<u8> {
        [body, &sign(&self.keys.identity, purpose, &self.network, body)].concat()
    }

    pub fn write_learn(&mut self, learn: &Learn) {
        let signed = self.signed("learn", &learn.body());
        self.write_frame(frame::LEARN, &signed);
    }

    /// Our CERT and a LEARN for each engine, as they should be.
    pub fn announce(&mut self, engines: &[&str]) {
        let cert = self.cert();
        let signed = self.signed("cert", &cert);
        self.write_frame(frame::CERT, &signed);
        for engine in engines {
            let learn = self.learn(engine);
            self.write_learn(&learn);
        }
    }

    // Batches.

    /// A proper batch with the next sequence numbers, which are used up by it.
    pub fn batch(&mut self, engine: &str, messages: Vec<RawMessage>) -> RawBatch {
        let first_sequence = self.next_sequence;
        self.next_sequence += messages.len() as u64;
        RawBatch {
            session: self.session.unwrap_or_default(),
            source: self.keys.realm(),
            destination: self.peer_realm,
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
    pub fn sealed(&mut self, batch: &RawBatch, signer: &str) -> Vec<u8> {
        let mut body = batch.body();
        let network = self.network;
        let signature = sign(self.keys.of(signer), "batch", &network, &body);
        body.extend_from_slice(&signature);
        body
    }

    /// A proper batch, sent. Returns the frame's body.
    pub fn send(&mut self, engine: &str, messages: Vec<RawMessage>) -> Vec<u8> {
        let batch = self.batch(engine, messages);
        let body = self.sealed(&batch, engine);
        self.write_frame(frame::BATCH, &body);
        body
    }

    pub fn cast(&mut self, engine: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
        self.send(engine, vec![RawMessage::cast(destination, payload)])
    }

    // What came.

    pub fn answers(&self) -> usize {
        self.replies + self.errors.values().sum::<usize>()
    }

    /// Replies and errors in a batch of the other side's. None when it isn't laid out by 9.1 and 9.2.
    fn note_answers(&mut self, body: &[u8]) -> Option<()> {
        let count = u16::from_le_bytes(body.get(104..106)?.try_into().ok()?);
        let mode = *body.get(106)?;
        let table_at = 108 + usize::from(*body.get(107)?) + 8;
        let mut rest = body.get(table_at..)?;
        for _ in 0..count {
            let (head, after) = rest.split_first()?;
            rest = after;
            for _ in 0..if mode == 1 { 1 } else { 2 } {
                if varint(&mut rest)? == 1 {
                    let length = usize::from(*rest.first()?);
                    rest = rest.get(1 + length..)?;
                }
            }
            varint(&mut rest)?;
            let mut detail = 0;
            if head & CALL != 0 {
                varint(&mut rest)?;
                varint(&mut rest)?;
                detail = *rest.first()?;
                rest = rest.get(1..)?;
            }
            match head & 15 {
                kind::REPLY => self.replies += 1,
                kind::ERROR => *self.errors.entry(frame::refusal_name(detail)).or_insert(0) += 1,
                _ => {}
            }
        }
        Some(())
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..10 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 127) << (7 * place);
        if byte & 128 == 0 {
            return Some(number);
        }
    }
    None
}
