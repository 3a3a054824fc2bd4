//! A session under frames that are anything, from a listed peer: framed, numbered and signed by its keys, so that they get past what looks
//! at that first. Links come and go, and RESUMEs (`resume` begins with them).
//!
//! What must hold, whatever comes:
//! * nothing panics; a link that ends says why, and one of the reasons that there are for it;
//! * what is delivered was in a batch that was signed by the key of its source, for this session, from this realm to that; to whom it was sent;
//!   in order and once, also over several links. Messages carry a number by which that is known.
//! * a call of ours ends at most once;
//! * what is kept stays within its settings.

use std::collections::HashMap;

use arbitrary::Arbitrary;
use legation_channel::channel::Profile;
use legation_channel::link::{Link, LinkConfig};
use legation_proto::codec::Writer;
use legation_proto::error::CloseCode;
use legation_proto::etf::{Owner, Wire};
use legation_proto::frame::batch::{Address, Refusal};
use legation_proto::frame::cert::Cert;
use legation_proto::frame::checkpoint::Checkpoint;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::hello::Offer;
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::identity::Purpose;
use legation_proto::limits::Limits;
use legation_proto::rotation::{Revocation, Rotation};
use legation_proto::signing::{Mode, Modes};
use rust_tests::pair::{Admit, Seen, Side};
use rust_tests::raw_batch::{fragment, frame, staged, RawMessage, ALIGNED, STAGED};
use rust_tests::raw_peer::{RawPeer, RawPeerConfig, Versus};
use rust_tests::realm::{fixed_random, network, Realm};
use rust_tests::term;

use super::{elements, script, scripts, Few, Many};
use crate::Target;

pub const TARGET: Target = Target {
    name: "session",
    what: "a session under arbitrary frames, framed and signed",
    run,
    seeds,
    bytes_max: 2_048,
};

/// More than enough to say anything, and an execution ends in milliseconds.
pub(super) const OPERATIONS_MAX: usize = 48;
const LINKS_MAX: usize = 4;

#[derive(Arbitrary, Debug)]
pub(super) struct Script {
    pub bounds: u8,
    pub operations: Many<Operation, OPERATIONS_MAX>,
}

#[derive(Arbitrary, Debug)]
pub(super) enum Operation {
    /// As it is.
    Frame {
        kind: u8,
        flags: u8,
        lie: i8,
        body: Vec<u8>,
    },
    /// Behind a proper header, the body signed by the identity.
    Signed {
        kind: u8,
        body: Vec<u8>,
    },
    Learn {
        engine: u8,
        key: u8,
        serial: i8,
        valid: (i32, i32),
        operations: u16,
        delegate: bool,
        realm: bool,
    },
    Forget {
        engine: u8,
        serial: i8,
        reason: u8,
    },
    Cert {
        key: bool,
        serial: i8,
        valid: (i32, i32),
    },
    Rotate {
        new: u8,
        serial: u8,
        signed: bool,
    },
    Revoke {
        serial: u8,
        signed: bool,
    },
    Batch(Batch),
    Staged {
        transfer: u8,
        ahead: i8,
        pieces: u8,
        batch: Batch,
    },
    Fragment {
        transfer: u8,
        total: u16,
        bytes: Vec<u8>,
    },
    Checkpoint {
        first: i8,
        last: i8,
        chain: bool,
        signed: bool,
    },
    Resume {
        session: bool,
        received: i16,
        next: i16,
    },
    Credit(Vec<(u8, u32)>),
    Ack(i16),
    Release(Vec<(u8, u8, u8)>),
    Ping(u64),
    Close(u8),
    /// Another link of the same realm, for the same session or one that is not there.
    Another {
        additional: bool,
        session: bool,
    },
    /// What follows goes over this one.
    Over(u8),
    /// It breaks.
    Lose,
    Time(u16),
    /// What our own side does meanwhile.
    Export(u8),
    Withdraw(u8),
    Say {
        what: u8,
        engine: u8,
    },
    Call {
        engine: u8,
    },
    Answer {
        which: u8,
        refuse: bool,
    },
    Ended {
        number: u8,
        reason: u8,
    },
    Abandon(u8),
}

#[derive(Arbitrary, Debug)]
pub(super) struct Batch {
    mode: u8,
    engine: u8,
    signer: u8,
    sequence: i8,
    count: Option<u16>,
    /// Bits: another session, source, destination.
    wrong: u8,
    messages: Few<Message, 6>,
}

#[derive(Arbitrary, Debug)]
struct Message {
    kind: u8,
    flags: u8,
    call_id: u8,
    caller: u8,
    detail: u8,
    source: u8,
    destination: u8,
    payload: Payload,
    length: Option<u32>,
}

#[derive(Arbitrary, Debug)]
enum Payload {
    /// By which it is known what was sent.
    Number,
    Element(u8),
    Bytes(Vec<u8>),
    Pid {
        number: u8,
        home: bool,
    },
    Reference {
        number: u8,
        home: bool,
    },
    Engine(u8),
    /// In a tuple, behind an atom of which some mean something.
    Tagged(u8, u8),
}

struct World {
    links: Vec<Versus>,
    current: usize,
    runs: u32,
    limits: Limits,
    numbers: u32,
    /// By number where those in good batches go.
    sent: HashMap<u32, String>,
    /// The last number that was delivered: each link brings what it is given at once, so what is written later has to come later.
    delivered: u32,
    calls: u32,
    ended: HashMap<Vec<u8>, u32>,
    asked: Vec<u64>,
    chain: [u8; 32],
    /// What no checkpoint covers yet.
    open: Option<(u64, u64)>,
}

fn run(input: &[u8]) {
    if let Some(script) = script::<Script>(input) {
        play(&script);
    }
}

pub(super) fn play(script: &Script) {
    let mut world = World::new(script.bounds);
    for operation in &script.operations.0 {
        world.apply(operation);
        world.check();
    }
    world.end();
}

fn engine(number: u8) -> &'static str {
    ["e1", "e2", "new", "b", "", "e1\u{0}", "@1", "eee"][usize::from(number % 8)]
}

/// One that may be announced, or has been.
fn mostly_known(number: u8) -> &'static str {
    if number < 240 {
        engine(number % 3)
    } else {
        engine(number)
    }
}

fn destination(number: u8) -> String {
    match number % 12 {
        5 | 7 if number < 240 => "b".to_owned(),
        0..=3 => "b".to_owned(),
        4 => "c".to_owned(),
        5 => String::new(),
        6 => "nobody".to_owned(),
        7 => "\u{7}".to_owned(),
        number => Address::of_handle(u64::from(number) - 7),
    }
}

impl World {
    fn new(bounds: u8) -> World {
        let mut limits = Limits {
            identifiers: bounds & 1 != 0,
            credit_bytes: if bounds & 2 != 0 { 4_096 } else { 0 },
            accept_signing: Modes::of(Mode::ALL),
            ..Limits::default()
        };
        if bounds & 4 != 0 {
            limits.message_bytes_max = 256;
            limits.engines_max = 3;
            limits.calls_max = 2;
            limits.callers_max = 2;
            limits.handles_max = 3;
            limits.references_max = 2;
            limits.resume_bytes_max = 2_048;
            limits.unproven_messages_max = 4;
            limits.unproven_bytes_max = 2_048;
            limits.queue_bytes_max = 1_024;
        }
        if bounds & 8 != 0 {
            limits.fragment_bytes = 16;
            limits.signing = Mode::ALL[usize::from(bounds >> 4) % 3];
        }
        let config = RawPeerConfig {
            limits: Limits { credit_bytes: 0, accept_signing: Modes::of(Mode::ALL), ..Limits::default() },
            ..RawPeerConfig::dialling(Profile::Local)
        };
        let mut versus = Versus::up_with(config, limits.clone());
        versus.side.stand_ins = bounds & 16 != 0;
        let agreed = versus.peer.agreed.as_ref().expect("it is up");
        let begin = [agreed.session, agreed.own.0].concat();
        World {
            links: vec![versus],
            current: 0,
            runs: 0,
            limits,
            numbers: 0,
            sent: HashMap::new(),
            delivered: 0,
            calls: 0,
            ended: HashMap::new(),
            asked: Vec::new(),
            chain: blake3::derive_key("legation/1/checkpoint", &begin),
            open: None,
        }
    }

    fn link(&mut self) -> &mut Versus {
        &mut self.links[self.current]
    }

    fn write(&mut self, kind: FrameType, body: &[u8]) {
        self.link().peer.write_frame(kind, body);
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            // Most of what follows is as it should be, lest a script is over with its first word.
            Operation::Frame { lie, .. } if lie % 16 != 0 => self.link().peer.ping(1),
            Operation::Signed { kind, .. } if *kind < 240 => self.link().peer.ping(2),
            Operation::Rotate { serial, .. } | Operation::Revoke { serial, .. } if *serial != 1 => {
                self.link().peer.ping(4)
            }
            Operation::Close(code) if code % 8 != 0 => self.link().peer.ping(3),
            Operation::Frame { kind, flags, lie, body } => {
                let length = (body.len() as u32).wrapping_add_signed((*lie / 16).into());
                let flags = if flags % 16 == 0 { flags / 16 } else { 1 };
                let frame = frame(kind % 0x18, flags, length, body);
                self.link().peer.write(&frame);
            }
            Operation::Signed { kind, body } => {
                let (kind, purpose) = [
                    (FrameType::Learn, Purpose::Learn),
                    (FrameType::Forget, Purpose::Forget),
                    (FrameType::Cert, Purpose::Cert),
                    (FrameType::Rotate, Purpose::Rotate),
                    (FrameType::Revoke, Purpose::Revoke),
                    (FrameType::Batch, Purpose::Batch),
                ][usize::from(kind % 6)];
                let peer = &self.link().peer;
                let signed = match purpose {
                    Purpose::Batch => {
                        let signature = peer.realm.keyring.sign_batch("e1", &network().id(), body);
                        [&body[..], &signature].concat()
                    }
                    purpose => peer.signed(purpose, body.clone()),
                };
                self.write(kind, &signed);
            }
            Operation::Learn { engine: name, key, serial, valid, operations, delegate, realm } => {
                let now = self.link().now;
                let peer = &mut self.link().peer;
                peer.serial = peer.serial.saturating_add_signed(rarely(*serial));
                let mut learn =
                    Learn { operations: *operations, delegate: *delegate, ..peer.learn(mostly_known(*name)) };
                if key % 4 == 1 {
                    learn.key = Realm::number(*key).key();
                } else if key % 4 == 2 {
                    learn.key = [*key; 32];
                }
                if !realm && *serial == 5 {
                    learn.realm = Realm::bob().id();
                }
                if *valid != (0, 0) {
                    learn.not_before = now.saturating_add_signed(valid.0.into());
                    learn.not_after = now.saturating_add_signed(valid.1.into());
                }
                peer.write_learn(&learn);
            }
            Operation::Forget { engine: name, serial, reason } => {
                let peer = &mut self.link().peer;
                peer.serial = peer.serial.saturating_add_signed(rarely(*serial));
                let forget =
                    Forget { reason: ForgetReason::ALL[usize::from(reason % 8)], ..peer.forget(mostly_known(*name)) };
                peer.write_forget(&forget);
            }
            Operation::Cert { key, serial, valid } => {
                let peer = &mut self.link().peer;
                peer.serial = peer.serial.saturating_add_signed(rarely(*serial));
                let mut cert: Cert = peer.cert();
                if !key {
                    cert.key = Realm::number(7).key();
                }
                if *valid != (0, 0) {
                    cert.not_before = cert.not_before.saturating_add_signed(valid.0.into());
                    cert.not_after = cert.not_after.saturating_add_signed(valid.1.into());
                }
                peer.write_cert(&cert);
            }
            Operation::Rotate { new, serial, signed } => {
                let peer = &mut self.link().peer;
                let rotation = Rotation {
                    realm: peer.realm.id(),
                    old: peer.realm.key(),
                    new: Realm::number(*new).key(),
                    serial: (*serial).into(),
                    not_before: peer.now,
                    signature: [3; 64],
                };
                let body = match signed {
                    true => peer.signed(Purpose::Rotate, rotation.body()),
                    false => rotation.encode(),
                };
                self.write(FrameType::Rotate, &body);
            }
            Operation::Revoke { serial, signed } => {
                let peer = &mut self.link().peer;
                let revocation = Revocation {
                    realm: peer.realm.id(),
                    key: peer.realm.key(),
                    serial: (*serial).into(),
                    signature: [3; 64],
                };
                let body = match signed {
                    true => peer.signed(Purpose::Revoke, revocation.body()),
                    false => revocation.encode(),
                };
                self.write(FrameType::Revoke, &body);
            }
            Operation::Batch(batch) => {
                let (body, _) = self.batch(batch, None);
                self.write(FrameType::Batch, &body);
            }
            Operation::Staged { transfer, ahead, pieces, batch } => self.staged(*transfer, *ahead, *pieces, batch),
            Operation::Fragment { transfer, total, bytes } => {
                let mut bytes = bytes.clone();
                let mut total = usize::from(*total);
                if !total.is_multiple_of(16) {
                    bytes.push(7);
                    total = total.max(bytes.len());
                }
                let body = fragment((transfer % 4).into(), total, &bytes);
                self.write(FrameType::Fragment, &body);
            }
            Operation::Checkpoint { first, last, chain, signed } => self.checkpoint(*first, *last, *chain, *signed),
            Operation::Resume { session, received, next } => {
                let versus = self.link();
                let id = match *session || next % 8 != 0 {
                    true => versus.side.session().agreed().session,
                    false => [8; 32],
                };
                let next = if next % 4 == 0 { i64::from(*next) / 4 } else { 0 };
                let next = versus.peer.next_sequence.saturating_add_signed(next);
                let mut body = id.to_vec();
                body.put_u64(0u64.saturating_add_signed((*received / 1_024).into()));
                body.put_u64(next);
                versus.peer.next_sequence = next.max(1);
                self.write(FrameType::Resume, &body);
            }
            Operation::Credit(grants) if grants.is_empty() => self.link().peer.ping(5),
            Operation::Credit(grants) => {
                let mut body = (grants.len() as u16).to_le_bytes().to_vec();
                for (name, bytes) in grants {
                    let destination = if name % 2 == 0 { "b".to_owned() } else { destination(*name) };
                    body.put_str8(&destination);
                    body.put_u32(if name % 16 == 0 { *bytes } else { 1 + bytes % 4_096 });
                }
                self.write(FrameType::Credit, &body);
            }
            Operation::Ack(sequence) => {
                let sequence =
                    if sequence % 16 == 0 { 0u64.saturating_add_signed((*sequence / 1_024).into()) } else { 0 };
                self.write(FrameType::Ack, &sequence.to_le_bytes());
            }
            Operation::Release(entries) => {
                let mut body = (entries.len() as u16).to_le_bytes().to_vec();
                for (what, number, count) in entries {
                    let what = if *what < 240 { what % 4 } else { what % 5 };
                    body.push(1 + what);
                    body.put_u64((*number).into());
                    match what {
                        0 => body.push(if *count < 240 { count % 8 } else { *count }),
                        2 | 3 => body.put_u64(if *count < 240 { 1 } else { (*count).into() }),
                        _ => {}
                    }
                }
                self.write(FrameType::HandleRelease, &body);
            }
            Operation::Ping(token) => self.link().peer.ping(*token),
            Operation::Close(code) => {
                let body = [*code, 0, 1, b'x'];
                self.write(FrameType::Close, &body);
            }
            Operation::Another { additional, session } => self.another(*additional, *session),
            Operation::Over(number) => self.current = usize::from(*number) % self.links.len(),
            Operation::Lose => self.link().side.lose(),
            Operation::Time(ms) => {
                let ms = u64::from(*ms);
                for versus in &mut self.links {
                    versus.advance(ms);
                }
            }
            ours => self.ours(ours),
        }
    }

    /// What our own side does.
    fn ours(&mut self, operation: &Operation) {
        let versus = &mut self.links[self.current];
        let side = &mut versus.side;
        match operation {
            Operation::Export(number) => side.export(["b", "c", "d"][usize::from(number % 3)]),
            Operation::Withdraw(number) => {
                side.withdraw(["b", "c", "d"][usize::from(number % 3)], ForgetReason::Normal);
            }
            Operation::Say { what, engine: name } => {
                let payload = term::payload(&elements()[usize::from(*what) % elements().len()]);
                let result = match what % 2 {
                    0 => side.cast("b", engine(*name), &payload),
                    _ => side.send("b", engine(*name), &payload),
                };
                // Refused where there is no such engine, or no room.
                let _ = result;
            }
            Operation::Call { engine: name } => {
                self.calls += 1;
                let context = self.calls.to_le_bytes();
                drop(side.call(versus.now, engine(*name), &[*name % 3], &context, &term::number(self.calls)));
            }
            Operation::Answer { which, refuse } if !self.asked.is_empty() => {
                let call = self.asked[usize::from(*which) % self.asked.len()];
                match refuse {
                    true => side.refuse(call, Refusal::Forbidden),
                    false => drop(side.reply(call, &term::number(1))),
                }
            }
            Operation::Ended { number, reason } => {
                let reason = ForgetReason::ALL[usize::from(reason % 8)];
                let pushed = side.session().export_ended((number % 8).into(), reason, None);
                side.pushed(pushed);
            }
            Operation::Abandon(number) => {
                let wake = side.session().abandon((number % 8).into());
                side.woken(wake);
            }
            _ => {}
        }
    }

    /// A batch, signed; and whether what is in it may be delivered.
    fn batch(&mut self, batch: &Batch, payload: Option<&[u8]>) -> (Vec<u8>, bool) {
        let mode = if batch.mode >= 250 { batch.mode } else { 1 + batch.mode % 3 };
        // Those that are known, more often than not.
        let name = mostly_known(batch.engine);
        let signer = if batch.signer % 8 == 7 { engine(batch.signer / 8) } else { name };
        let mut numbers = Vec::new();
        let messages: Vec<RawMessage> = batch
            .messages
            .0
            .iter()
            .map(|message| {
                let kind = if message.kind < 240 {
                    [1, 2, 3, 2, 4, 5, 1][usize::from(message.kind % 7)]
                } else {
                    message.kind % 13
                };
                // Whether there are call fields.
                let calls = matches!(kind, 3..=5) || message.kind >= 250;
                let payload = match (payload, &message.payload) {
                    (Some(payload), _) => payload.to_vec(),
                    (None, payload) if matches!(payload, Payload::Number) || message.flags.is_multiple_of(2) => {
                        self.numbers += 1;
                        numbers.push((self.numbers, destination(message.destination)));
                        term::number(self.numbers)
                    }
                    (None, other) => bytes_of(other),
                };
                RawMessage {
                    kind,
                    flags: message.flags & (ALIGNED | if message.flags >= 0xe0 { 0xe0 } else { 0 }),
                    call_id: if calls { 1 + u64::from(message.call_id % 8) } else { 0 },
                    caller: if kind == 3 { 1 + u64::from(message.caller % 4) } else { 0 },
                    detail: match kind {
                        3 => 1 + message.detail % 6,
                        5 => 1 + message.detail % 11,
                        _ if calls => message.detail,
                        _ => 0,
                    },
                    source: if message.source < 200 { engine(message.source % 2) } else { engine(message.source) }
                        .into(),
                    destination: if matches!(kind, 4 | 5) { String::new() } else { destination(message.destination) }
                        .into(),
                    payload,
                    length: message.length.filter(|_| message.flags >= 0xf0),
                }
            })
            .collect();
        let peer = &mut self.link().peer;
        peer.next_sequence = peer.next_sequence.saturating_add_signed(rarely(batch.sequence)).max(1);
        let mut raw = peer.batch(if mode == 1 { name } else { "" }, messages);
        raw.mode = mode;
        let wrong = if batch.wrong >= 0xe0 { batch.wrong << 3 } else { 0 };
        raw.count = batch.count.filter(|_| wrong & 8 != 0);
        if wrong & 0x10 != 0 {
            raw.session[0] ^= 1;
        }
        if wrong & 0x20 != 0 {
            raw.source[0] ^= 1;
        }
        if wrong & 0x40 != 0 {
            raw.destination[0] ^= 1;
        }
        let body = match mode {
            1 => peer.sealed(&raw, signer),
            3 => raw.body(),
            _ => peer.sealed(&raw, if batch.signer % 8 == 7 { signer } else { "" }),
        };
        let right = match mode {
            // Engines that were made by this realm have its key for them, whenever they were announced.
            1 => signer == name,
            2 => batch.signer % 8 != 7 || signer.is_empty(),
            3 => true,
            _ => false,
        };
        let good = right && wrong & 0x70 == 0;
        if good {
            for (number, destination) in numbers {
                self.sent.insert(number, destination);
            }
        }
        if mode == 3 {
            let count = raw.messages.len().max(1) as u64;
            let first = self.open.map_or(raw.first_sequence, |(first, _)| first);
            self.open = Some((first, raw.first_sequence + count - 1));
            self.chain = *blake3::hash(&[self.chain, *blake3::hash(&body).as_bytes()].concat()).as_bytes();
        }
        (body, good)
    }

    fn staged(&mut self, transfer: u8, ahead: i8, pieces: u8, batch: &Batch) {
        self.numbers += 1;
        let number = self.numbers;
        let payload = term::payload(&term::tuple(&[term::binary(&[7; 300]), term::number(number)[1..].to_vec()]));
        let mut one = Batch { messages: Few(Vec::new()), ..*batch };
        let Some(message) = batch.messages.0.first() else { return };
        one.messages.0.push(Message {
            flags: message.flags | 0x80,
            length: None,
            payload: Payload::Number,
            ..*message
        });
        one.mode = batch.mode % 2;
        let to = destination(one.messages.0[0].destination);
        let (whole, good) = self.batch(&one, Some(&payload));
        if good {
            self.sent.insert(number, to);
        }
        if one.messages.0[0].flags & STAGED == 0 {
            // Not a staged one after all: it goes as it is.
            self.write(FrameType::Batch, &whole);
            return;
        }
        let transfer = u32::from(transfer % 4);
        let total = payload.len().saturating_add_signed(ahead.into());
        let size = 1 + usize::from(pieces);
        // Fragments take numbers, too: they come before the batch that was numbered already.
        let before = self.link().peer.next_sequence;
        for piece in payload.chunks(size) {
            let body = fragment(transfer, total, piece);
            self.link().peer.write(&frame(FrameType::Fragment as u8, 1, body.len() as u32, &body));
        }
        self.link().peer.next_sequence = before;
        if whole.len() > 200 {
            let body = staged(&whole, transfer);
            self.write(FrameType::Batch, &body);
        }
    }

    fn checkpoint(&mut self, first: i8, last: i8, chain: bool, signed: bool) {
        let wrong = first % 16 == 7;
        let peer = &mut self.links[self.current].peer;
        let checkpoint = match (wrong, self.open.take()) {
            (false, None) => return,
            (false, Some((first, last))) => Checkpoint { first, last, chain: self.chain },
            (true, _) => Checkpoint {
                first: peer.next_sequence.saturating_add_signed(i64::from(first) / 16).max(1),
                last: peer.next_sequence.saturating_add_signed(i64::from(last) / 16),
                chain: if chain { self.chain } else { [5; 32] },
            },
        };
        let signed = signed || !wrong;
        let signature = match signed {
            true => rust_tests::raw_chain::signature(peer, &checkpoint),
            false => [6; 64],
        };
        rust_tests::raw_chain::say(peer, &checkpoint, &signature);
    }

    /// One more link, whose hello asks for the session.
    fn another(&mut self, additional: bool, right: bool) {
        if self.links.len() >= LINKS_MAX {
            return;
        }
        self.runs += 1;
        let first = &self.links[0];
        let session = first.side.session();
        let id = if right { session.agreed().session } else { [1; 32] };
        let bob = Realm::bob();
        let link = LinkConfig {
            profile: Profile::Local,
            keyring: bob.keyring.clone(),
            network: network(),
            tls: bob.tls.clone(),
            limits: self.limits.clone(),
            random: fixed_random(3_000 + self.runs, 1),
            now: first.now,
        };
        let mut side = Side::new(Link::accept_from(link, None).expect("local needs nothing"), bob, network());
        side.stand_ins = first.side.stand_ins;
        side.admit = Admit::Later;
        side.standby = additional;
        side.tick(first.now);
        let mut peer = RawPeer::new(RawPeerConfig {
            random: fixed_random(4_000 + self.runs, 0),
            now: first.now,
            ..RawPeerConfig::dialling(Profile::Local)
        });
        peer.hello_twist = Some(Box::new(move |hello| hello.resume = Some(Offer { session: id, additional })));
        let mut versus = Versus { side, peer, now: first.now };
        versus.settle();
        let mut seen = Vec::new();
        let offered = right.then_some(session);
        let wake = versus.side.link.accept(versus.now, offered, None, &mut |event| seen.push(Seen::from(event)));
        let resumed = matches!(seen[..], [Seen::Resumed { .. }]);
        if resumed && !additional {
            versus.side.link.activate();
        }
        versus.side.events.extend(seen);
        versus.side.woken(wake.any());
        versus.settle();
        // A new session is no part of what is known here.
        if !resumed || !versus.side.is_up() {
            return;
        }
        versus.peer.agreed = first.peer.agreed.clone();
        versus.peer.serial = first.peer.serial + 1_000;
        versus.peer.next_sequence = first.peer.next_sequence;
        self.links.push(versus);
        self.current = self.links.len() - 1;
    }

    fn check(&mut self) {
        for versus in &mut self.links {
            versus.settle();
        }
        for index in 0..self.links.len() {
            let versus = &mut self.links[index];
            if let (Some(code), false) = (versus.side.fault_code(), versus.side.told().is_some()) {
                assert!(!matches!(code, CloseCode::Normal | CloseCode::Shutdown | CloseCode::WrongRealm), "{code:?}");
            }
            for event in versus.side.take_events() {
                self.seen(event);
            }
        }
    }

    fn seen(&mut self, event: Seen) {
        match event {
            Seen::Deliver { destination, payload, .. } => self.delivered(&destination, &payload),
            Seen::Call { destination, payload, call_id, .. } => {
                self.asked.push(call_id);
                self.delivered(&destination, &payload);
            }
            Seen::Exit { destination, payload, .. } => self.delivered(&destination, &payload),
            Seen::Reply { context, .. } | Seen::Refused { context, .. } => {
                let times = self.ended.entry(context).or_default();
                *times += 1;
                assert_eq!(*times, 1, "a call ends once");
            }
            _ => {}
        }
    }

    fn delivered(&mut self, to: &str, payload: &[u8]) {
        let Some(number) = number_of(payload) else { return };
        let Some(destination) = self.sent.get(&number) else { panic!("{number} was in no good batch") };
        assert_eq!(destination, to, "to another");
        assert!(number > self.delivered, "{number} twice, or behind {}", self.delivered);
        self.delivered = number;
    }

    fn end(&mut self) {
        let versus = &mut self.links[0];
        let session = versus.side.session();
        let count = |name: &str| session.counters().all().into_iter().find(|(known, _)| *known == name).map(|(_, n)| n);
        assert!(count("messages_in").unwrap_or(0) <= u64::from(self.numbers) + 6 * OPERATIONS_MAX as u64);
    }
}

fn bytes_of(payload: &Payload) -> Vec<u8> {
    let identifier = |wire: Wire<'_>| {
        let mut raw = vec![131];
        wire.put(&mut raw);
        raw
    };
    let owner = |home: bool| if home { Owner::Receiver } else { Owner::Sender };
    match payload {
        Payload::Number => Vec::new(),
        Payload::Element(number) => {
            let all = elements();
            term::payload(&all[usize::from(*number) % all.len()])
        }
        Payload::Bytes(bytes) => bytes.clone(),
        Payload::Pid { number, home } => identifier(Wire::Pid { number: (number % 6).into(), owner: owner(*home) }),
        Payload::Reference { number, home } => {
            identifier(Wire::Reference { number: (number % 6).into(), owner: owner(*home) })
        }
        Payload::Engine(number) => identifier(Wire::Engine(engine(*number))),
        Payload::Tagged(tag, number) => {
            let tags = ["ok", "$gen_call", "system", "EXIT", "DOWN", "io_request"];
            let second = elements().swap_remove(usize::from(*number) % elements().len());
            term::payload(&term::tuple(&[term::atom(tags[usize::from(tag % 6)]), second, term::small(1)]))
        }
    }
}

/// Nothing, most of the time.
fn rarely(change: i8) -> i64 {
    if change % 16 == 7 {
        i64::from(change) / 16
    } else {
        0
    }
}

/// The number of a message that has one.
fn number_of(payload: &[u8]) -> Option<u32> {
    match payload {
        [131, 98, a, b, c, d] => Some(u32::from_be_bytes([*a, *b, *c, *d])).filter(|number| *number < 1 << 24),
        [131, 104, 2, 109, .., 98, a, b, c, d] if payload.len() > 300 => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

fn seeds() -> Vec<Vec<u8>> {
    scripts("legation fuzz session", 48, 1_500)
}
