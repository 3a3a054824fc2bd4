//! What `test/vectors/*.txt` is made of: the same bytes each time, from fixed keys.
//!
//! ```text
//! # a comment
//! record = name of the first record
//! key = hexadecimal digits
//!
//! record = name of the next
//! ```

use std::num::NonZeroU32;

use curve25519_dalek::montgomery::MontgomeryPoint;
use legation_channel::answer::AnswerResponder;
use legation_channel::channel::{Channel, Profile};
use legation_channel::knock::KnockInitiator;
use legation_channel::local::LocalChannel;
use legation_channel::plain::PlainChannel;
use legation_proto::certificate::LinkCertificate;
use legation_proto::error::CloseCode;
use legation_proto::etf::{Owner, Wire};
use legation_proto::frame::batch::{exit, kind};
use legation_proto::frame::cert::Cert;
use legation_proto::frame::checkpoint::Checkpoint;
use legation_proto::frame::close::Close;
use legation_proto::frame::credit;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::handle_release::{self, Release};
use legation_proto::frame::hello::{Hello, Offer};
use legation_proto::frame::learn::Learn;
use legation_proto::frame::resume::Resume;
use legation_proto::frame::{self, ack, ping, FrameType};
use legation_proto::identity::{signing_input, NetworkKey, Purpose};
use legation_proto::keyring::Keyring;
use legation_proto::receipt::{ReceiptMaker, ReceiptParts};
use legation_proto::signing::Mode;

use crate::edge_signatures;
use crate::raw_batch::{fragment, staged, RawBatch, RawMessage, ALIGNED, STAGED};
use crate::term;

mod rotations;

pub use rotations::{carol, CAROL_SEEDS};

/// Signs what the vectors hold; bob is whom it is for.
pub const ALICE_SEED: [u8; 32] = [0xA1; 32];
pub const ALICE_ONLINE_SEED: [u8; 32] = [0xA2; 32];
pub const BOB_SEED: [u8; 32] = [0xB1; 32];
pub const BOB_ONLINE_SEED: [u8; 32] = [0xB2; 32];
pub const NETWORK_KEY: [u8; 32] = [0x4E; 32];
pub const TIME: u64 = 1_800_000_000_000;
const NONCES: [[u8; 32]; 2] = [[0x11; 32], [0x12; 32]];
const SECRETS: [[u8; 32]; 2] = [[0x21; 32], [0x22; 32]];
const RANDOMS: [[u8; 32]; 2] = [[0x31; 32], [0x32; 32]];

pub fn alice() -> Keyring {
    Keyring::new(&ALICE_SEED, &ALICE_ONLINE_SEED)
}

pub fn bob() -> Keyring {
    Keyring::new(&BOB_SEED, &BOB_ONLINE_SEED)
}

pub fn network() -> NetworkKey {
    NetworkKey::new(NETWORK_KEY)
}

/// Name and content of each file.
pub fn files() -> Vec<(&'static str, String)> {
    vec![
        ("identity.txt", identity()),
        ("signatures.txt", signatures()),
        ("announcements.txt", announcements()),
        ("knock.txt", knock()),
        ("answer.txt", answer()),
        ("plain.txt", plain()),
        ("hello.txt", hello()),
        ("rotations.txt", rotations::rotations()),
        ("frames.txt", frames()),
        ("batches.txt", batches()),
        ("receipts.txt", receipts()),
        ("terms.txt", terms()),
        ("published/cctv_ed25519.txt", edge_signatures()),
    ]
}

/// A record as it is read: its name, and its keys with their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// # Panics
    /// When the record has no such key.
    pub fn get(&self, key: &str) -> &[u8] {
        let field = self.fields.iter().find(|(known, _)| known == key);
        &field.unwrap_or_else(|| panic!("{} has no {key}", self.name)).1
    }

    /// # Panics
    /// When the key is missing, or of another length.
    pub fn array<const N: usize>(&self, key: &str) -> [u8; N] {
        self.get(key).try_into().unwrap_or_else(|_| panic!("{} of {} is not {N} bytes", key, self.name))
    }

    pub fn number(&self, key: &str) -> u64 {
        self.get(key).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// # Panics
/// When the text is no vector file.
pub fn parse(text: &str) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once(" =").expect("key = value");
        let value = value.trim_start();
        match records.last_mut() {
            _ if key == "record" => records.push(Record { name: value.to_owned(), fields: Vec::new() }),
            Some(record) => record.fields.push((key.to_owned(), from_hex(value).expect("hexadecimal digits"))),
            None => panic!("the first line of a record is its name"),
        }
    }
    records
}

pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// A file that is being written.
struct File(String);

impl File {
    fn new(comment: &str) -> File {
        let comment = comment.lines().map(|line| format!("# {line}\n")).collect();
        File(comment)
    }

    fn record(&mut self, name: &str) -> &mut File {
        self.0 += &format!("\nrecord = {name}\n");
        self
    }

    fn put(&mut self, key: &str, bytes: &[u8]) -> &mut File {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0 += format!("{key} = {digits}").trim_end();
        self.0.push('\n');
        self
    }
}

/// `protocol.md` 2.2.
pub fn text_form(key: &[u8; 32]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: Vec<u8> = key.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let digit = |six: &[u8]| (0..6).fold(0, |value, bit| value << 1 | usize::from(*six.get(bit).unwrap_or(&0)));
    format!("ed25519:{}", bits.chunks(6).map(|six| char::from(ALPHABET[digit(six)])).collect::<String>())
}

fn signed(purpose: Purpose, mut body: Vec<u8>) -> Vec<u8> {
    let signature = alice().sign(purpose, &network().id(), &body).expect("the identity is here");
    body.extend_from_slice(&signature);
    body
}

fn framed(kind: FrameType, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(kind, body, &mut out);
    out
}

fn identity() -> String {
    let mut file = File::new(
        "Identities and networks (protocol.md 2). `text` is the text form in ASCII.\n\
         Engine keys are what the default keyring derives for engine `ping`: no part of the protocol.",
    );
    for (name, seed, online_seed, keyring) in
        [("alice", ALICE_SEED, ALICE_ONLINE_SEED, alice()), ("bob", BOB_SEED, BOB_ONLINE_SEED, bob())]
    {
        file.record(name)
            .put("seed", &seed)
            .put("public_key", keyring.public())
            .put("text", text_form(keyring.public()).as_bytes())
            .put("realm_id", &keyring.realm_id().0)
            .put("online_seed", &online_seed)
            .put("online_public_key", &keyring.online_public())
            .put("engine_public_key", &keyring.engine_public("ping"));
    }
    file.record("network").put("network_key", &NETWORK_KEY).put("network_id", &network().id().0);
    file.record("network none").put("network_id", &NetworkKey::none().id().0);
    let mut small_order = [0; 32];
    small_order[0] = 1;
    let mut not_canonical = [0xff; 32];
    (not_canonical[0], not_canonical[31]) = (0xee, 0x7f);
    file.record("refused weak").put("public_key", &small_order);
    file.record("refused weak").put("public_key", &[0; 32]);
    file.record("refused not canonical").put("public_key", &not_canonical);
    file.record("refused not a point").put("public_key", &[2; 32]);
    let torsioned = {
        // Alice's key plus a point of order 2, which is (0, -1).
        use curve25519_dalek::constants::EIGHT_TORSION;
        use curve25519_dalek::edwards::CompressedEdwardsY;
        let key = CompressedEdwardsY(*alice().public()).decompress().expect("a point");
        (key + EIGHT_TORSION[4]).compress().0
    };
    file.record("refused torsion").put("public_key", &torsioned);
    file.0
}

fn signatures() -> String {
    let mut file = File::new(
        "What is signed, and signatures (protocol.md 3). By alice's identity; `batch` by her engine `ping`,\n\
         `batch realm` by her online key.",
    );
    let keyring = alice();
    let body = b"the body of a signature".as_slice();
    use Purpose::{Cert, Forget, Hello, Learn, Link, Revoke, Rotate};
    for purpose in [Link, Hello, Cert, Learn, Forget, Rotate, Revoke] {
        let name = purpose.domain().rsplit('/').next().unwrap_or_default();
        file.record(name)
            .put("public_key", keyring.public())
            .put("network_id", &network().id().0)
            .put("body", body)
            .put("signing_input", &signing_input(purpose, &network().id(), body))
            .put("signature", &keyring.sign(purpose, &network().id(), body).expect("the identity is here"));
    }
    for (name, engine, key) in
        [("batch", "ping", keyring.engine_public("ping")), ("batch realm", "", keyring.online_public())]
    {
        file.record(name)
            .put("public_key", &key)
            .put("network_id", &network().id().0)
            .put("body", body)
            .put("signing_input", &signing_input(Purpose::Batch, &network().id(), body))
            .put("signature", &keyring.sign_batch(engine, &network().id(), body));
    }
    file.0
}

pub fn learn() -> Learn {
    learn_of("ping")
}

fn learn_of(engine: &str) -> Learn {
    Learn {
        realm: alice().realm_id(),
        engine: engine.into(),
        key: alice().engine_public(engine),
        serial: TIME * 1000,
        not_before: TIME,
        not_after: 0,
        version: 3,
        operations: 7,
        delegate: true,
    }
}

pub fn cert() -> Cert {
    Cert {
        realm: alice().realm_id(),
        key: alice().online_public(),
        not_before: TIME,
        not_after: TIME + 86_400_000,
        serial: TIME * 1000,
    }
}

fn announcements() -> String {
    let mut file =
        File::new("Announcements of alice's (protocol.md 11): fields, body, frame. Numbers are little-endian.");
    let learn = learn();
    file.record("learn")
        .put("realm_id", &learn.realm.0)
        .put("name", learn.engine.as_bytes())
        .put("key", &learn.key)
        .put("serial", &learn.serial.to_le_bytes())
        .put("not_before", &learn.not_before.to_le_bytes())
        .put("not_after", &learn.not_after.to_le_bytes())
        .put("version", &learn.version.to_le_bytes())
        .put("ops", &learn.operations.to_le_bytes())
        .put("delegate", &[u8::from(learn.delegate)])
        .put("body", &learn.body())
        .put("frame", &framed(FrameType::Learn, &signed(Purpose::Learn, learn.body())));
    let name = "größe 1";
    let reason = ForgetReason::Killed;
    let forget = Forget { realm: alice().realm_id(), engine: name.into(), serial: TIME * 1000 + 1, reason };
    file.record("forget")
        .put("realm_id", &forget.realm.0)
        .put("name", name.as_bytes())
        .put("serial", &forget.serial.to_le_bytes())
        .put("reason", &[reason as u8])
        .put("body", &forget.body())
        .put("frame", &framed(FrameType::Forget, &signed(Purpose::Forget, forget.body())));
    let cert = cert();
    file.record("cert")
        .put("realm_id", &cert.realm.0)
        .put("key", &cert.key)
        .put("not_before", &cert.not_before.to_le_bytes())
        .put("not_after", &cert.not_after.to_le_bytes())
        .put("serial", &cert.serial.to_le_bytes())
        .put("body", &cert.body())
        .put("frame", &framed(FrameType::Cert, &signed(Purpose::Cert, cert.body())));
    file.0
}

fn knock() -> String {
    let mut file = File::new("A knock for bob on profile `plain` (protocol.md 4), with and without a network key.");
    let mut first_flight = Vec::new();
    PlainChannel::initiator(NONCES[0], SECRETS[0]).poll_transmit(&mut first_flight);
    for (name, network) in [("network key", network()), ("no network key", NetworkKey::none())] {
        let mut knock = Vec::new();
        let initiator = KnockInitiator::new(network.clone(), bob().realm_id());
        initiator.encode(Profile::Plain, &first_flight, TIME, [0x6B; 16], &mut knock).expect("a good first flight");
        file.record(name)
            .put("network_key", &network.expose())
            .put("responder_realm_id", &bob().realm_id().0)
            .put("time", &TIME.to_le_bytes())
            .put("random", &[0x6B; 16])
            .put("first_flight", &first_flight)
            .put("mac", &knock[26..58])
            .put("knock", &knock);
    }
    file.0
}

fn answer() -> String {
    let mut file = File::new(
        "Bob's answers (protocol.md 4.6). `opening`: what they are to, a knock of knock.txt or, where there is none, a first flight.",
    );
    let first_flight = |channel: &mut dyn Channel, opening: &[u8]| {
        let mut flight = Vec::new();
        channel.handle_bytes(opening, &mut Vec::new()).expect("a good first flight");
        channel.poll_transmit(&mut flight);
        flight
    };
    let mut plain = Vec::new();
    PlainChannel::initiator(NONCES[0], SECRETS[0]).poll_transmit(&mut plain);
    let plain_flight = first_flight(&mut PlainChannel::responder(NONCES[1], SECRETS[1]), &plain);
    let knocked = |network: &NetworkKey| {
        let mut knock = Vec::new();
        let initiator = KnockInitiator::new(network.clone(), bob().realm_id());
        initiator.encode(Profile::Plain, &plain, TIME, [0x6B; 16], &mut knock).expect("a good first flight");
        knock
    };
    let local_flight = first_flight(&mut LocalChannel::responder(NONCES[1]), &NONCES[0]);
    for (name, network, profile, opening, flight) in [
        ("plain", network(), Profile::Plain, knocked(&network()), &plain_flight),
        ("plain no network key", NetworkKey::none(), Profile::Plain, knocked(&NetworkKey::none()), &plain_flight),
        ("plain no knock", network(), Profile::Plain, plain.clone(), &plain_flight),
        ("local", network(), Profile::Local, NONCES[0].to_vec(), &local_flight),
    ] {
        let mut answer = Vec::new();
        let responder = AnswerResponder::new(network.clone(), profile, &opening);
        responder.encode(flight, &mut answer).expect("a good first flight");
        file.record(name)
            .put("network_key", &network.expose())
            .put("profile", &[profile as u8])
            .put("opening", &opening)
            .put("first_flight", flight)
            .put("mac", &answer[..32])
            .put("answer", &answer);
    }
    file.0
}

/// Both ends of a plain channel, established.
fn plain_channels() -> [PlainChannel; 2] {
    let mut initiator = PlainChannel::initiator(NONCES[0], SECRETS[0]);
    let mut responder = PlainChannel::responder(NONCES[1], SECRETS[1]);
    let mut bytes = Vec::new();
    initiator.poll_transmit(&mut bytes);
    responder.handle_bytes(&bytes, &mut Vec::new()).expect("a good first message");
    bytes.clear();
    responder.poll_transmit(&mut bytes);
    initiator.handle_bytes(&bytes, &mut Vec::new()).expect("a good first message");
    [initiator, responder]
}

fn plain() -> String {
    let mut file = File::new(
        "The channels `plain` and `local` (protocol.md 5.5 to 5.9). Each record is the only one or follows the one above.",
    );
    let [mut initiator, mut responder] = plain_channels();
    let binding = initiator.established().expect("it stands").binding;
    let publics = SECRETS.map(|secret| MontgomeryPoint::mul_base_clamped(secret).to_bytes());
    let shared = MontgomeryPoint(publics[1]).mul_clamped(SECRETS[0]).to_bytes();
    let material = [shared, binding].concat();
    file.record("plain keys")
        .put("initiator_nonce", &NONCES[0])
        .put("responder_nonce", &NONCES[1])
        .put("initiator_secret", &SECRETS[0])
        .put("responder_secret", &SECRETS[1])
        .put("initiator_ephemeral", &publics[0])
        .put("responder_ephemeral", &publics[1])
        .put("shared", &shared)
        .put("binding", &binding)
        .put("initiator_key", &blake3::derive_key("legation/1/plain initiator", &material))
        .put("responder_key", &blake3::derive_key("legation/1/plain responder", &material));
    let sealed = |channel: &mut PlainChannel, content: &[u8]| {
        let mut out = Vec::new();
        channel.seal(content, &mut out).expect("it stands");
        out
    };
    for (name, content) in [("record 0 of the initiator", &b"first"[..]), ("record 1 of the initiator", b"second")] {
        file.record(name).put("content", content).put("bytes", &sealed(&mut initiator, content));
    }
    let content = b"an answer";
    file.record("record 0 of the responder").put("content", content).put("bytes", &sealed(&mut responder, content));
    let local = [&[2][..], &NONCES[0], &NONCES[1], &[0; 64]].concat();
    file.record("local").put("initiator_nonce", &NONCES[0]).put("responder_nonce", &NONCES[1]);
    file.put("binding", blake3::hash(&local).as_bytes());
    file.0
}

/// Alice's hello to bob, on plain or on tls.
pub fn alices_hello(tls: bool) -> Hello {
    let binding = plain_channels()[0].established().expect("it stands").binding;
    let link_key = Keyring::new(&[0x1C; 32], &[0; 32]);
    let (own, peer) = (alice().realm_id(), bob().realm_id());
    let not_after = TIME + 86_400_000;
    let body = LinkCertificate::body(&own, &peer, link_key.public(), not_after);
    let signature = alice().sign(Purpose::Link, &network().id(), &body).expect("the identity is here");
    Hello {
        role: 1,
        profile: if tls { 1 } else { 3 },
        version_min: 1,
        version_max: 1,
        features: 0,
        own,
        peer,
        identity_key: *alice().public(),
        binding: if tls { [0x77; 32] } else { binding },
        random: RANDOMS[0],
        message_bytes_max: 8 * 1024 * 1024,
        engines_max: 65_536,
        chain: Vec::new(),
        revocation: None,
        link: tls.then_some(LinkCertificate { key: *link_key.public(), not_after, signature }),
        resume: None,
        credit_bytes: None,
    }
}

/// `protocol.md` 8.1.
pub fn session_id() -> [u8; 32] {
    let material = [alice().realm_id().0, bob().realm_id().0, RANDOMS[0], RANDOMS[1]].concat();
    blake3::derive_key("legation/1/session", &material)
}

fn hello() -> String {
    let mut file = File::new("Alice's hello to bob (protocol.md 7), and the session id (8.1).");
    let offer = Offer { session: session_id(), additional: true };
    let window = NonZeroU32::new(262_144);
    let hellos = [("plain", false, None, None), ("tls", true, None, window), ("resume", false, Some(offer), None)];
    for (name, tls, resume, credit_bytes) in hellos {
        let hello = Hello { resume, credit_bytes, ..alices_hello(tls) };
        file.record(name)
            .put("own_realm_id", &hello.own.0)
            .put("peer_realm_id", &hello.peer.0)
            .put("identity_key", &hello.identity_key)
            .put("binding", &hello.binding)
            .put("random", &hello.random);
        if let Some(link) = &hello.link {
            let body = LinkCertificate::body(&hello.own, &hello.peer, &link.key, link.not_after);
            file.put("link_key", &link.key)
                .put("link_not_after", &link.not_after.to_le_bytes())
                .put("link_body", &body)
                .put("link_signature", &link.signature);
        }
        if let Some(offer) = &hello.resume {
            file.put("session_id", &offer.session).put("flags", &[1]);
        }
        if let Some(bytes) = hello.credit_bytes {
            file.put("credit", &bytes.get().to_le_bytes());
        }
        file.put("body", &hello.body());
        file.put("frame", &framed(FrameType::Hello, &signed(Purpose::Hello, hello.body())));
    }
    file.record("session")
        .put("initiator_realm_id", &alice().realm_id().0)
        .put("responder_realm_id", &bob().realm_id().0)
        .put("initiator_random", &RANDOMS[0])
        .put("responder_random", &RANDOMS[1])
        .put("session_id", &session_id());
    file.0
}

fn frames() -> String {
    let mut file = File::new("Control frames (protocol.md 12). Numbers are little-endian.");
    let number = 0x0102_0304_0506_0708_u64;
    let written = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let le = number.to_le_bytes();
    file.record("ack").put("sequence", &le).put("frame", &written(&|out| ack::encode(number, out)));
    file.record("ping").put("token", &le).put("frame", &written(&|out| ping::encode_ping(number, out)));
    file.record("pong").put("token", &le).put("frame", &written(&|out| ping::encode_pong(number, out)));
    let resume = Resume { session: session_id(), received: number, next: 7 };
    file.record("resume")
        .put("session_id", &resume.session)
        .put("received", &le)
        .put("next", &7u64.to_le_bytes())
        .put("frame", &written(&|out| resume.encode(out)));
    for code in CloseCode::ALL {
        let close = Close { code, text: format!("because of {}", code.name()) };
        file.record(&format!("close {}", code.name()))
            .put("code", &(code as u16).to_le_bytes())
            .put("text", close.text.as_bytes())
            .put("frame", &written(&|out| close.encode(out)));
    }
    let releases = [
        Release::Ended { number: 7, reason: ForgetReason::Killed },
        Release::Call(number),
        Release::Dropped { number: 8, count: 3 },
        Release::DroppedReference { number: 9, count: 1 },
    ];
    file.record("handle release")
        .put("ended", &7u64.to_le_bytes())
        .put("reason", &[ForgetReason::Killed as u8])
        .put("call", &le)
        .put("dropped", &8u64.to_le_bytes())
        .put("dropped_count", &3u64.to_le_bytes())
        .put("reference", &9u64.to_le_bytes())
        .put("reference_count", &1u64.to_le_bytes())
        .put("frame", &written(&|out| handle_release::encode(&releases, out)));
    let grants = [("ping", 4_096), ("@1f", u32::MAX)];
    file.record("credit")
        .put("destination_0", grants[0].0.as_bytes())
        .put("bytes_0", &grants[0].1.to_le_bytes())
        .put("destination_1", grants[1].0.as_bytes())
        .put("bytes_1", &grants[1].1.to_le_bytes())
        .put("frame", &written(&|out| assert_eq!(credit::encode(&grants, out), 1)));
    staged_message(&mut file);
    checkpoint(&mut file);
    file.record("skipped").put("frame", &[0x40, 0, 2, 0, 0, 0, 9, 9]);
    file.record("refused unknown_frame").put("frame", &[0x40, 1, 0, 0, 0, 0]);
    file.record("refused protocol").put("frame", &[0x14, 0, 8, 0, 0, 0]);
    file.record("refused too_large").put("frame", &[0x14, 1, 9, 0, 0, 0]);
    file.0
}

/// A cast of alice's engine `ping` whose payload goes ahead of it in two fragments.
fn staged_message(file: &mut File) {
    let (transfer, payload) = (5u32, term::text("hello"));
    let whole = batch(Mode::Engine, "ping", vec![RawMessage { flags: STAGED, ..RawMessage::cast("pong", &payload) }]);
    let (signed, signature) = whole.split_at(whole.len() - 64);
    for (number, bytes) in payload.chunks(7).enumerate() {
        file.record(&format!("fragment {number}"))
            .put("transfer", &transfer.to_le_bytes())
            .put("total", &(payload.len() as u32).to_le_bytes())
            .put("bytes", bytes)
            .put("frame", &framed(FrameType::Fragment, &fragment(transfer, payload.len(), bytes)));
    }
    file.record("staged batch")
        .put("engine", b"ping")
        .put("transfer", &transfer.to_le_bytes())
        .put("payload", &payload)
        .put("signed", signed)
        .put("signature", signature)
        .put("frame", &framed(FrameType::Batch, &staged(&whole, transfer)));
}

/// Two batches of the realm's without a signature, the first ones of a session, and the checkpoint that covers them.
fn checkpoint(file: &mut File) {
    let (own, peer) = (alice().realm_id(), bob().realm_id());
    let messages =
        [vec![RawMessage::cast("pong", &term::text("hello"))], vec![RawMessage::send("pong", &term::number(1)); 2]];
    let mut first = 41;
    let bodies = messages.map(|messages| {
        let count = messages.len() as u64;
        let body = RawBatch { first_sequence: first, ..raw_batch(Mode::Checkpoint, "", messages) }.body();
        first += count;
        body
    });
    let begin = blake3::derive_key("legation/1/checkpoint", &[session_id(), own.0].concat());
    let chain = bodies
        .iter()
        .fold(begin, |chain, body| *blake3::hash(&[chain, *blake3::hash(body).as_bytes()].concat()).as_bytes());
    let checkpoint = Checkpoint { first: 41, last: 43, chain };
    let body = checkpoint.body(&session_id(), &own, &peer);
    let signature = alice().sign_checkpoint(&network().id(), &body);
    let mut frame = Vec::new();
    checkpoint.encode(&signature, &mut frame);
    file.record("checkpoint")
        .put("public_key", &alice().online_public())
        .put("session_id", &session_id())
        .put("source", &own.0)
        .put("destination", &peer.0)
        .put("batch_0", &framed(FrameType::Batch, &bodies[0]))
        .put("batch_1", &framed(FrameType::Batch, &bodies[1]))
        .put("begin", &begin)
        .put("first", &checkpoint.first.to_le_bytes())
        .put("last", &checkpoint.last.to_le_bytes())
        .put("chain", &chain)
        .put("signed", &body)
        .put("signature", &signature)
        .put("frame", &frame);
}

/// One of the batches in batches.txt.
struct Sample {
    name: &'static str,
    mode: Mode,
    /// Of the header.
    engine: &'static str,
    messages: Vec<RawMessage>,
}

impl Sample {
    fn source<'a>(&'a self, message: &'a RawMessage) -> &'a [u8] {
        match self.mode {
            Mode::Engine => self.engine.as_bytes(),
            _ => &message.source,
        }
    }

    fn body(&self) -> Vec<u8> {
        batch(self.mode, self.engine, self.messages.clone())
    }
}

fn samples() -> Vec<Sample> {
    let by_engines = batch_list().into_iter();
    let mut samples: Vec<_> =
        by_engines.map(|(name, engine, messages)| Sample { name, mode: Mode::Engine, engine, messages }).collect();
    let from = |source: &str, message: RawMessage| RawMessage { source: source.into(), ..message };
    let hello = term::text("hello");
    let messages = vec![
        from("ping", RawMessage::cast("pong", &hello)),
        from("pong", RawMessage::call("ping", 300, 2, &hello)),
        from("", RawMessage::send("pong", &term::number(1))),
        from("ping", RawMessage::reply(9, &term::payload(&term::atom("ok")))),
    ];
    samples.push(Sample { name: "delegated", mode: Mode::Delegated, engine: "", messages });
    samples
}

/// Name, source engine and messages of each batch that an engine signs.
fn batch_list() -> Vec<(&'static str, &'static str, Vec<RawMessage>)> {
    let hello = term::text("hello");
    let reason = term::payload(&term::atom("shutdown"));
    let aligned = |message: RawMessage| RawMessage { flags: ALIGNED, ..message };
    vec![
        ("one", "ping", vec![RawMessage::cast("pong", &hello)]),
        ("realm", "", vec![RawMessage::send("pong", &hello)]),
        (
            "many",
            "ping",
            vec![
                RawMessage::send("pong", &term::number(1)),
                RawMessage::cast("größe 1", &hello),
                RawMessage::call("pong", 5, 2, &hello),
                RawMessage::reply(9, &term::payload(&term::atom("ok"))),
                RawMessage::error(10, 4),
            ],
        ),
        (
            "aligned",
            "ping",
            vec![
                RawMessage::cast("pong", &term::number(1)),
                aligned(RawMessage::cast("pong", &hello)),
                aligned(RawMessage::cast("pong", &term::of_size(1_500))),
                RawMessage::cast("pong", &term::number(2)),
            ],
        ),
        (
            "handles",
            "ping",
            vec![
                RawMessage::send("@1f", &wire(Wire::Pid { number: 5, owner: Owner::Sender })),
                RawMessage::call("@abcdef0123456789", 6, 5, &wire(Wire::Engine("pong"))),
                RawMessage { kind: kind::EXIT, caller: 5, detail: exit::LINKED, ..RawMessage::send("pong", &reason) },
                RawMessage { kind: kind::DOWN, caller: 5, ..RawMessage::send("", &reason) },
                RawMessage { kind: kind::DOWN, ..RawMessage::send("", &reason) },
            ],
        ),
    ]
}

/// The payload of one identifier.
fn wire(wire: Wire<'_>) -> Vec<u8> {
    let mut payload = vec![131];
    wire.put(&mut payload);
    payload
}

fn raw_batch(mode: Mode, engine: &str, messages: Vec<RawMessage>) -> RawBatch {
    RawBatch {
        session: session_id(),
        source: alice().realm_id().0,
        destination: bob().realm_id().0,
        first_sequence: 41,
        count: None,
        mode: mode as u8,
        engine: engine.into(),
        table_length: None,
        payloads_length: None,
        messages,
        trailing: Vec::new(),
        table: None,
    }
}

fn batch(mode: Mode, engine: &str, messages: Vec<RawMessage>) -> Vec<u8> {
    let mut body = raw_batch(mode, engine, messages).body();
    let signature = alice().sign_batch(engine, &network().id(), &body);
    body.extend_from_slice(&signature);
    body
}

fn batches() -> String {
    let mut file = File::new(
        "Batches of alice's (protocol.md 9), from sequence number 41. Per message n: kind_n, flags_n (of the row's\n\
         head), call_id_n, caller_n, detail_n, source_n, destination_n, payload_n. `root` is hash(body without signature).",
    );
    for sample in samples() {
        let (body, messages) = (sample.body(), &sample.messages);
        let (signed, signature) = body.split_at(body.len() - 64);
        file.record(sample.name).put("mode", &[sample.mode as u8]).put("engine", sample.engine.as_bytes());
        file.put("session_id", &session_id());
        file.put("first_sequence", &41u64.to_le_bytes()).put("count", &(messages.len() as u16).to_le_bytes());
        for (number, message) in messages.iter().enumerate() {
            file.put(&format!("kind_{number}"), &[message.kind])
                .put(&format!("flags_{number}"), &[message.flags])
                .put(&format!("call_id_{number}"), &message.call_id.to_le_bytes())
                .put(&format!("caller_{number}"), &message.caller.to_le_bytes())
                .put(&format!("detail_{number}"), &[message.detail])
                .put(&format!("source_{number}"), sample.source(message))
                .put(&format!("destination_{number}"), &message.destination)
                .put(&format!("payload_{number}"), &message.payload);
        }
        file.put("root", blake3::hash(signed).as_bytes()).put("signature", signature);
        file.put("frame", &framed(FrameType::Batch, &body));
    }
    file.0
}

fn receipts() -> String {
    let mut file = File::new("Receipts for messages of the batches in batches.txt (protocol.md 14).");
    let (alice, network) = (alice(), network().id());
    for sample in samples() {
        let announcement = match sample.engine {
            "" => signed(Purpose::Cert, cert().body()),
            _ => signed(Purpose::Learn, learn().body()),
        };
        let body = sample.body();
        let maker = ReceiptMaker::new(ReceiptParts {
            network_id: &network.0,
            identity_key: alice.public(),
            rotations: &[],
            announcement: &announcement,
            batch: &body,
        });
        let maker = maker.expect("a good batch");
        for (index, message) in sample.messages.iter().enumerate() {
            let source = sample.source(message);
            let name = std::str::from_utf8(source).expect("a name");
            let receipt = maker.make(index as u16, &signed(Purpose::Learn, learn_of(name).body()));
            file.record(&format!("{} {index}", sample.name))
                .put("identity_key", alice.public())
                .put("network_id", &network.0)
                .put("engine", source)
                .put("sequence", &(41 + index as u64).to_le_bytes())
                .put("destination", &message.destination)
                .put("payload", &message.payload)
                .put("receipt", &receipt.expect("a good batch"));
        }
    }
    file.0
}

fn edge_signatures() -> String {
    let mut file = File::new(
        "The vectors of C2SP CCTV for Ed25519, by their numbers and flags (README.md). `message` is text; `flags` stands in\n\
         the name of the record.",
    );
    for (number, edge) in edge_signatures::edge_signatures().iter().enumerate() {
        file.record([&[number.to_string().as_str()], &edge.flags[..]].concat().join(" ").as_str());
        file.put("public_key", &edge.key).put("message", edge.message.as_bytes()).put("signature", &edge.signature);
    }
    file.0
}

fn terms() -> String {
    let mut file = File::new(
        "Payloads (protocol.md 13, 10.5). `accepted`; `refused` with its reason; `disguised`: a term that is accepted in a\n\
         cast, but not as a plain message; `handle`: an identifier with its number (13.4); `answer`: accepted as a plain\n\
         message from whom this reference was given.",
    );
    let deep = |depth| [vec![131], [104, 1].repeat(depth), vec![106]].concat();
    let accepted: [(&str, Vec<u8>); 22] = [
        ("nil", vec![131, 106]),
        ("small integer", vec![131, 97, 255]),
        ("integer", vec![131, 98, 255, 255, 255, 255]),
        ("float", [&[131, 70], &1.5f64.to_be_bytes()[..]].concat()),
        ("atom, 119", term::payload(&term::atom("ok"))),
        ("atom, 118", vec![131, 118, 0, 2, b'o', b'k']),
        ("atom, 115", vec![131, 115, 2, b'o', b'k']),
        ("atom, 100", vec![131, 100, 0, 2, b'o', b'k']),
        ("binary", term::text("hello")),
        ("empty binary", term::text("")),
        ("bit string", vec![131, 77, 0, 0, 0, 1, 3, 0xE0]),
        ("string", vec![131, 107, 0, 2, 1, 2]),
        ("list", term::payload(&term::list(&[term::small(1)], &[106]))),
        ("improper list", term::payload(&term::list(&[term::small(1)], &term::small(2)))),
        ("tuple", term::payload(&term::tuple(&[term::small(1), term::atom("a")]))),
        ("empty tuple", vec![131, 104, 0]),
        ("large tuple", vec![131, 105, 0, 0, 0, 1, 106]),
        ("map", vec![131, 116, 0, 0, 0, 1, 97, 1, 97, 2]),
        ("big integer", vec![131, 110, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("large big integer", [&[131, 111, 0, 0, 1, 0, 0][..], &[9; 256]].concat()),
        ("depth 256", deep(256)),
        ("atom of 255", [&[131, 119, 255][..], &[b'x'; 255]].concat()),
    ];
    for (name, bytes) in accepted {
        file.record(&format!("accepted: {name}")).put("term", &bytes);
    }
    let malformed: [(&str, Vec<u8>); 26] = [
        ("nothing", vec![]),
        ("version alone", vec![131]),
        ("another version", vec![130, 106]),
        ("trailing byte", vec![131, 106, 0]),
        ("depth 257", deep(257)),
        ("list of 2^32-1", vec![131, 108, 255, 255, 255, 255]),
        ("list of none", vec![131, 108, 0, 0, 0, 0, 106]),
        ("tuple of 2^32-1", vec![131, 105, 255, 255, 255, 255]),
        ("map of 2^31", vec![131, 116, 128, 0, 0, 0]),
        ("map with a key twice", vec![131, 116, 0, 0, 0, 2, 97, 1, 97, 1, 97, 1, 97, 2]),
        ("map with a key twice, spelled differently", vec![131, 116, 0, 0, 0, 2, 97, 1, 97, 1, 98, 0, 0, 0, 1, 97, 2]),
        ("binary of 2^32-1", vec![131, 109, 255, 255, 255, 255, 0]),
        ("binary cut short", vec![131, 109, 0, 0, 0, 2, 0]),
        ("big integer of 2^32-1 bytes", vec![131, 111, 255, 255, 255, 255, 0]),
        ("atom of 256 characters", [&[131, 118, 1, 0][..], &[b'x'; 256]].concat()),
        ("atom not UTF-8", vec![131, 119, 1, 0xff]),
        ("float that is not a number", vec![131, 70, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]),
        ("bit string of 9 bits", vec![131, 77, 0, 0, 0, 1, 9, 0]),
        ("compressed", vec![131, 80, 0, 0, 0, 1, 0x78, 0x9c, 0x63, 0, 0]),
        ("distribution header 68", vec![131, 68, 0]),
        ("distribution header 67", vec![131, 67, 0]),
        ("atom cache 82", vec![131, 82, 0]),
        ("textual float 99", [&[131, 99][..], &[b'0'; 31]].concat()),
        ("local 121", vec![131, 121, 0]),
        ("unknown tag 0", vec![131, 0]),
        ("unknown tag 255", vec![131, 255]),
    ];
    for (name, bytes) in malformed {
        file.record(&format!("refused bad_term: {name}")).put("term", &bytes);
    }
    let identifiers: [(&str, Vec<u8>); 14] = [
        ("pid 88", term::pid("a@b", 1)),
        ("pid 103", [vec![103], term::atom("a@b"), vec![0; 9]].concat()),
        ("port 89", term::port("a@b", 1)),
        ("port 102", [vec![102], term::atom("a@b"), vec![0; 5]].concat()),
        ("port 120", [vec![120], term::atom("a@b"), vec![0; 12]].concat()),
        ("reference 90", term::reference("a@b", 1)),
        ("reference 101", [vec![101], term::atom("a@b"), vec![0; 5]].concat()),
        ("fun 112", [vec![112, 0, 0, 0, 30], vec![7; 26]].concat()),
        ("fun 113", term::export("erlang", "halt", 0)),
        ("pid of nobody", [vec![88], term::atom(""), vec![0; 8], vec![0, 0, 0, 1]].concat()),
        ("pid of a creation that there isn't", [vec![88], term::atom(""), vec![1; 8], vec![0, 0, 0, 3]].concat()),
        ("engine that can't be", [vec![88], term::atom("a@b"), vec![0; 8], vec![0, 0, 0, 3]].concat()),
        ("reference of one word", [vec![90, 0, 1], term::atom(""), vec![0, 0, 0, 1, 0, 0, 0, 1]].concat()),
        ("pid within", term::tuple(&[term::small(1), term::list(&[term::pid("a@b", 1)], &[106])])),
    ];
    for (name, element) in identifiers {
        file.record(&format!("refused identifiers: {name}")).put("term", &term::payload(&element));
    }
    let number = 0x0102_0304_0506_0708;
    for (owner, of) in [(Owner::Sender, "sender"), (Owner::Receiver, "receiver")] {
        for (what, handle) in [("pid", Wire::Pid { number, owner }), ("reference", Wire::Reference { number, owner })] {
            file.record(&format!("handle: {what} of the {of}"));
            file.put("number", &number.to_le_bytes()).put("term", &wire(handle));
        }
    }
    file.record("handle: engine of the receiver").put("engine", "größe 1".as_bytes());
    file.put("term", &wire(Wire::Engine("größe 1")));
    let given = wire(Wire::Reference { number, owner: Owner::Receiver })[1..].to_vec();
    let alias = term::list(&[term::atom("alias")], &given);
    let nested = term::list(std::slice::from_ref(&alias), &given);
    for (name, tag) in [("reference", given), ("alias", alias), ("alias, nested", nested)] {
        file.record(&format!("answer: {name}")).put("number", &number.to_le_bytes());
        file.put("term", &term::payload(&term::tuple(&[tag, term::small(1)])));
    }
    for (name, bytes) in term::disguises() {
        file.record(&format!("disguised: {name}")).put("term", &bytes);
    }
    file.0
}
