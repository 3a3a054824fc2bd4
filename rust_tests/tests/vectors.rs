//! The vector files against the core, and against what can be computed here without it.

use curve25519_dalek::montgomery::MontgomeryPoint;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use legation_channel::answer::{AnswerInitiator, AnswerVerdict};
use legation_channel::channel::{Channel, Profile};
use legation_channel::knock::{KnockMemory, KnockResponder, KnockSettings, KnockVerdict};
use legation_channel::plain::PlainChannel;
use legation_proto::error::{CloseCode, LinkError};
use legation_proto::etf::{disguise, scan, scan_wire, Owner, TermLimits, Wire};
use legation_proto::frame::batch::Batch;
use legation_proto::frame::cert::Cert;
use legation_proto::frame::checkpoint::Checkpoint;
use legation_proto::frame::close::Close;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::fragment::Fragment;
use legation_proto::frame::handle_release::{self, Release};
use legation_proto::frame::hello::Hello;
use legation_proto::frame::learn::Learn;
use legation_proto::frame::resume::Resume;
use legation_proto::frame::staged::{Piece, StagedBatch};
use legation_proto::frame::{self, ack, credit, ping, FrameType, Head};
use legation_proto::identity::{check_public_key, NetworkKey, RealmId};
use legation_proto::keyring::Keyring;
use legation_proto::limits::Limits;
use legation_proto::receipt;
use legation_proto::rotation::{follow_chain, Revocation, Rotation};
use legation_proto::signing::Mode;
use rust_tests::vectors::{self, files, parse, Record};

fn read(name: &str) -> Vec<Record> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../test/vectors/").to_owned() + name;
    parse(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")))
}

fn record(name: &str, record: &str) -> Record {
    read(name).into_iter().find(|known| known.name == record).unwrap_or_else(|| panic!("{name} has no {record}"))
}

/// The body of the one frame that `bytes` is.
fn body(bytes: &[u8]) -> (FrameType, Vec<u8>) {
    match frame::head(bytes, &Limits::default()) {
        Ok(Head::Frame { kind, body, bytes: whole }) if whole == bytes.len() => (kind, body.to_vec()),
        other => panic!("{other:?}"),
    }
}

/// Strictly, and without the core.
fn verify(key: &[u8], purpose: &str, network: &[u8], body: &[u8], signature: &[u8]) {
    let input = [format!("legation/1/{purpose}\0").as_bytes(), network, blake3::hash(body).as_bytes()].concat();
    let key = VerifyingKey::from_bytes(key.try_into().unwrap()).unwrap();
    key.verify_strict(&input, &Signature::from_slice(signature).unwrap()).unwrap();
}

fn alice_key() -> Vec<u8> {
    record("identity.txt", "alice").get("public_key").to_vec()
}

fn network_id() -> Vec<u8> {
    record("identity.txt", "network").get("network_id").to_vec()
}

#[test]
fn the_files_are_what_the_generator_writes() {
    for (name, content) in files() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../test/vectors/").to_owned() + name;
        assert!(std::fs::read_to_string(&path).unwrap() == content, "{name}: cargo run -p rust_tests --bin vectors");
    }
}

#[test]
fn identities_and_networks() {
    for name in ["alice", "bob"] {
        let record = record("identity.txt", name);
        let seed = record.array("seed");
        let public = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        assert_eq!(record.get("public_key"), public);
        assert_eq!(record.get("realm_id"), blake3::hash(&public).as_bytes());
        let keyring = Keyring::new(&seed, &record.array("online_seed"));
        assert_eq!((keyring.public(), keyring.realm_id()), (&public, RealmId(record.array("realm_id"))));
        assert_eq!(record.get("online_public_key"), keyring.online_public());
        assert_eq!(record.get("engine_public_key"), keyring.engine_public("ping"));
        assert!(check_public_key(&public).is_ok());
        assert_eq!(record.get("text").len(), 8 + 43);
    }
    let network = record("identity.txt", "network");
    let key = network.array("network_key");
    assert_eq!(network.get("network_id"), blake3::derive_key("legation/1/network-id", &key));
    assert_eq!(NetworkKey::new(key).id().0, network.array("network_id"));
    assert_eq!(record("identity.txt", "network none").get("network_id"), [0; 32]);
    let refused: Vec<Record> =
        read("identity.txt").into_iter().filter(|record| record.name.starts_with("refused")).collect();
    assert_eq!(refused.len(), 5);
    for record in refused {
        assert!(check_public_key(&record.array("public_key")).is_err(), "{}", record.name);
    }
}

#[test]
fn signatures() {
    let records = read("signatures.txt");
    assert_eq!(records.len(), 9);
    for record in records {
        let purpose = record.name.split(' ').next().unwrap();
        let (key, network, body) = (record.get("public_key"), record.get("network_id"), record.get("body"));
        verify(key, purpose, network, body, record.get("signature"));
        assert!(record.get("signing_input").starts_with(format!("legation/1/{purpose}\0").as_bytes()));
        assert!(record.get("signing_input").ends_with(blake3::hash(body).as_bytes()));
    }
    let alice = SigningKey::from_bytes(&record("identity.txt", "alice").array("seed"));
    let learn = record("signatures.txt", "learn");
    assert_eq!(alice.sign(learn.get("signing_input")).to_bytes(), learn.get("signature"));
}

#[test]
fn announcements() {
    for record in read("announcements.txt") {
        let (kind, bytes) = body(record.get("frame"));
        let (unsigned, signature) = bytes.split_at(bytes.len() - 64);
        assert_eq!(record.get("body"), unsigned);
        verify(&alice_key(), &record.name, &network_id(), unsigned, signature);
        match record.name.as_str() {
            "learn" => {
                assert_eq!(kind, FrameType::Learn);
                let (learn, _) = Learn::decode(&bytes).unwrap();
                assert_eq!((learn.realm.0, learn.key), (record.array("realm_id"), record.array("key")));
                assert_eq!(learn.engine.as_bytes(), record.get("name"));
                assert_eq!((learn.serial, learn.not_before), (record.number("serial"), record.number("not_before")));
                assert_eq!(
                    (learn.not_after, learn.version.into()),
                    (record.number("not_after"), record.number("version"))
                );
                assert_eq!(u64::from(learn.operations), record.number("ops"));
                assert_eq!([u8::from(learn.delegate)], record.get("delegate"));
                assert_eq!(learn.body(), unsigned);
            }
            "forget" => {
                assert_eq!(kind, FrameType::Forget);
                let (forget, _) = Forget::decode(&bytes).unwrap();
                assert_eq!((forget.engine.as_bytes(), forget.serial), (record.get("name"), record.number("serial")));
                assert_eq!(forget.reason as u64, record.number("reason"));
                assert_eq!(forget.body(), unsigned);
            }
            _ => {
                assert_eq!((kind, record.name.as_str()), (FrameType::Cert, "cert"));
                let (cert, _) = Cert::decode(&bytes).unwrap();
                assert_eq!((cert.key, cert.serial), (record.array("key"), record.number("serial")));
                assert_eq!(
                    (cert.not_before, cert.not_after),
                    (record.number("not_before"), record.number("not_after"))
                );
                assert_eq!(cert.body(), unsigned);
            }
        }
    }
}

#[test]
fn knocks() {
    for record in read("knock.txt") {
        let realm: [u8; 32] = record.array("responder_realm_id");
        let flight = record.get("first_flight");
        let length = (flight.len() as u16).to_le_bytes();
        let (time, random) = (record.get("time"), record.get("random"));
        let input = [b"legation/1/knock\0", &[3][..], time, random, &realm, &length, flight].concat();
        let mac = blake3::keyed_hash(&record.array("network_key"), &input);
        assert_eq!(record.get("mac"), mac.as_bytes());
        assert_eq!(record.get("knock"), [&[1, 3], time, random, mac.as_bytes(), &length, flight].concat());

        let network = match record.name.as_str() {
            "no network key" => NetworkKey::none(),
            _ => NetworkKey::new(record.array("network_key")),
        };
        let time = record.number("time");
        let mut memory = KnockMemory::new(KnockSettings::default(), time - 60_000);
        let mut responder = KnockResponder::new(network, vec![RealmId(realm)]);
        match responder.handle_bytes(record.get("knock"), &mut memory, time) {
            KnockVerdict::Accepted(accepted) => {
                assert_eq!((accepted.profile, &accepted.first_flight[..]), (Profile::Plain, flight));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn answers() {
    for record in read("answer.txt") {
        let profile = Profile::try_from(record.get("profile")[0]).unwrap();
        let (opening, flight) = (record.get("opening"), record.get("first_flight"));
        let length = (flight.len() as u16).to_le_bytes();
        let hash = blake3::hash(opening);
        let input = [b"legation/1/answer\0", &[profile as u8][..], hash.as_bytes(), &length, flight].concat();
        let mac = blake3::keyed_hash(&record.array("network_key"), &input);
        assert_eq!(record.get("mac"), mac.as_bytes());
        assert_eq!(record.get("answer"), [mac.as_bytes(), &length[..], flight].concat());

        let mut reader = AnswerInitiator::new(NetworkKey::new(record.array("network_key")), profile, opening);
        let verdict = reader.handle_bytes(record.get("answer"));
        let consumed = record.get("answer").len();
        assert_eq!(verdict, AnswerVerdict::Accepted { first_flight: flight.to_vec(), consumed });
    }
}

#[test]
fn plain_and_local_channels() {
    let keys = record("plain.txt", "plain keys");
    let secret = |name| keys.array::<32>(name);
    let initiator_public = MontgomeryPoint::mul_base_clamped(secret("initiator_secret")).to_bytes();
    let responder_public = MontgomeryPoint::mul_base_clamped(secret("responder_secret")).to_bytes();
    assert_eq!(keys.array("initiator_ephemeral"), initiator_public);
    assert_eq!(keys.array("responder_ephemeral"), responder_public);
    let shared = MontgomeryPoint(initiator_public).mul_clamped(secret("responder_secret")).to_bytes();
    assert_eq!(keys.array("shared"), shared);
    let nonces = [keys.array::<32>("initiator_nonce"), keys.array("responder_nonce")];
    let bound = [&[3], &nonces.concat()[..], &initiator_public, &responder_public].concat();
    assert_eq!(keys.get("binding"), blake3::hash(&bound).as_bytes());
    let material = [shared, keys.array("binding")].concat();

    let mut initiator = PlainChannel::initiator(nonces[0], secret("initiator_secret"));
    let mut responder = PlainChannel::responder(nonces[1], secret("responder_secret"));
    let handshake = |from: &mut PlainChannel, to: &mut PlainChannel| {
        let mut bytes = Vec::new();
        from.poll_transmit(&mut bytes);
        to.handle_bytes(&bytes, &mut Vec::new()).unwrap();
    };
    handshake(&mut initiator, &mut responder);
    handshake(&mut responder, &mut initiator);
    assert_eq!(initiator.established().unwrap().binding, keys.array("binding"));
    for (name, side, counter) in [
        ("record 0 of the initiator", "initiator", 0u64),
        ("record 1 of the initiator", "initiator", 1),
        ("record 0 of the responder", "responder", 0),
    ] {
        let record = record("plain.txt", name);
        let content = record.get("content");
        let key = blake3::derive_key(&format!("legation/1/plain {side}"), &material);
        assert_eq!(keys.get(&format!("{side}_key")), key);
        let length = (content.len() as u32).to_le_bytes();
        let mac = blake3::keyed_hash(&key, &[&counter.to_le_bytes(), &length[..], content].concat());
        assert_eq!(record.get("bytes"), [&length, content, mac.as_bytes()].concat());
        let receiver = if side == "initiator" { &mut responder } else { &mut initiator };
        let mut plaintext = Vec::new();
        receiver.handle_bytes(record.get("bytes"), &mut plaintext).unwrap();
        assert_eq!(plaintext, content);
    }
    let local = record("plain.txt", "local");
    let bound = [&[2], local.get("initiator_nonce"), local.get("responder_nonce"), &[0; 64]].concat();
    assert_eq!(local.get("binding"), blake3::hash(&bound).as_bytes());
}

#[test]
fn hellos_and_the_session_id() {
    for name in ["plain", "tls", "resume"] {
        let record = record("hello.txt", name);
        let (kind, bytes) = body(record.get("frame"));
        let (hello, signature, signed) = Hello::decode(&bytes).unwrap();
        assert_eq!((kind, &bytes[..signed]), (FrameType::Hello, record.get("body")));
        verify(&alice_key(), "hello", &network_id(), &bytes[..signed], &signature);
        assert_eq!((hello.own.0, hello.peer.0), (record.array("own_realm_id"), record.array("peer_realm_id")));
        assert_eq!((hello.binding, hello.random), (record.array("binding"), record.array("random")));
        assert_eq!(hello.link.is_some(), name == "tls");
        assert_eq!(hello.resume.is_some(), name == "resume");
        assert_eq!(hello.credit_bytes.is_some(), name == "tls");
        if let Some(bytes) = hello.credit_bytes {
            assert_eq!(u64::from(bytes.get()), record.number("credit"));
        }
        if let Some(offer) = hello.resume {
            assert_eq!((&offer.session[..], offer.additional), (record.get("session_id"), record.get("flags") == [1]));
        }
        if let Some(link) = hello.link {
            verify(&alice_key(), "link", &network_id(), record.get("link_body"), &link.signature);
            assert_eq!((link.key, link.not_after), (record.array("link_key"), record.number("link_not_after")));
        }
    }
    let session = record("hello.txt", "session");
    let parts = ["initiator_realm_id", "responder_realm_id", "initiator_random", "responder_random"];
    let material = parts.map(|part| session.get(part)).concat();
    assert_eq!(session.get("session_id"), blake3::derive_key("legation/1/session", &material));
    assert_eq!(session.array("session_id"), vectors::session_id());
}

#[test]
fn rotations() {
    let (mut chain, mut good, mut refused) = (Vec::new(), 0, 0);
    let (network, start) = (NetworkKey::new([0x4E; 32]).id(), 1_800_000_000_000);
    for record in read("rotations.txt") {
        match record.name.as_str() {
            "rotation 1" | "rotation 2" => {
                let rotation = Rotation::decode(&body(record.get("frame")).1).unwrap();
                let old = SigningKey::from_bytes(&record.array("old_seed")).verifying_key().to_bytes();
                assert_eq!((rotation.old, old), (record.array("old"), record.array("old")));
                assert_eq!((rotation.new, rotation.serial), (record.array("new"), record.number("serial")));
                assert_eq!(rotation.not_before, record.number("not_before"));
                assert_eq!(
                    (body(record.get("frame")).0, &rotation.body()[..]),
                    (FrameType::Rotate, record.get("body"))
                );
                verify(&old, "rotate", &network_id(), record.get("body"), record.get("signature"));
                chain.push(rotation);
            }
            "revocation" => {
                let revocation = Revocation::decode(&body(record.get("frame")).1).unwrap();
                assert_eq!((revocation.key, revocation.serial), (chain[1].new, 3));
                assert_eq!(
                    (body(record.get("frame")).0, &revocation.body()[..]),
                    (FrameType::Revoke, record.get("body"))
                );
                verify(&chain[1].new, "revoke", &network_id(), record.get("body"), record.get("signature"));
            }
            "hello" | "hello revoked" => {
                let bytes = body(record.get("frame")).1;
                let (hello, signature, signed) = Hello::decode(&bytes).unwrap();
                assert_eq!((&bytes[..signed], &hello.chain), (record.get("body"), &chain));
                assert_eq!(hello.own, RealmId::of(&chain[0].old));
                assert_eq!(hello.revocation.is_some(), record.name == "hello revoked");
                verify(&chain[1].new, "hello", &network_id(), &bytes[..signed], &signature);
            }
            "receipt" => {
                let verified =
                    receipt::verify(record.get("receipt"), &record.array("first_key"), &record.array("network_id"));
                assert_eq!(verified.unwrap().payload, record.get("payload"));
            }
            name => {
                let records: Vec<Rotation> =
                    record.get("chain").chunks(Rotation::BYTES).map(|bytes| Rotation::decode(bytes).unwrap()).collect();
                let (realm, head) = (RealmId(record.array("realm_id")), record.array("identity_key"));
                match follow_chain(&realm, &head, &records, &[], &network, start, &check_public_key) {
                    Ok(key) => assert_eq!((name.starts_with("good"), key.to_bytes()), (true, head)),
                    Err(error) => {
                        let code = CloseCode::from(&LinkError::from(error)).name();
                        assert!(name.starts_with(&format!("refused {code}:")), "{name}: {code}");
                        refused += 1;
                    }
                }
                good += u32::from(name.starts_with("good"));
            }
        }
    }
    assert_eq!((chain.len(), good, refused), (2, 3, 9));
}

#[test]
fn control_frames() {
    let limits = Limits::default();
    let mut piece = Piece::with_room_for(0);
    for record in read("frames.txt") {
        let bytes = record.get("frame");
        let frame = || body(bytes);
        match record.name.split_once(' ').map_or(record.name.as_str(), |(first, _)| first) {
            "ack" => assert_eq!((frame().0, ack::decode(&frame().1)), (FrameType::Ack, Ok(record.number("sequence")))),
            "ping" => assert_eq!((frame().0, ping::decode(&frame().1)), (FrameType::Ping, Ok(record.number("token")))),
            "pong" => assert_eq!((frame().0, ping::decode(&frame().1)), (FrameType::Pong, Ok(record.number("token")))),
            "resume" => {
                let (session, numbers) =
                    (record.array("session_id"), ["received", "next"].map(|name| record.number(name)));
                let resume = Resume { session, received: numbers[0], next: numbers[1] };
                assert_eq!((frame().0, Resume::decode(&frame().1)), (FrameType::Resume, Ok(resume)));
            }
            "close" => {
                let close = Close::decode(&frame().1).unwrap();
                assert_eq!((close.code as u64, close.text.as_bytes()), (record.number("code"), record.get("text")));
                assert!(record.name.ends_with(close.code.name()));
            }
            "handle" => {
                let reason = ForgetReason::ALL[record.number("reason") as usize];
                let expected = vec![
                    Release::Ended { number: record.number("ended"), reason },
                    Release::Call(record.number("call")),
                    Release::Dropped { number: record.number("dropped"), count: record.number("dropped_count") },
                    Release::DroppedReference {
                        number: record.number("reference"),
                        count: record.number("reference_count"),
                    },
                ];
                assert_eq!(handle_release::decode(&frame().1), Ok(expected));
            }
            "credit" => {
                let mut grants = Vec::new();
                credit::decode(&frame().1, |destination, bytes| grants.push((destination.to_owned(), bytes))).unwrap();
                let expected = ["0", "1"].map(|number| {
                    let destination = record.get(&format!("destination_{number}")).to_vec();
                    (String::from_utf8(destination).unwrap(), record.number(&format!("bytes_{number}")) as u32)
                });
                assert_eq!((frame().0, &grants[..]), (FrameType::Credit, &expected[..]));
            }
            "fragment" => {
                let (kind, body) = frame();
                let fragment = Fragment::decode(&body).unwrap();
                let numbers = (u64::from(fragment.transfer), u64::from(fragment.total));
                assert_eq!(numbers, (record.number("transfer"), record.number("total")));
                assert_eq!((kind, fragment.bytes), (FrameType::Fragment, record.get("bytes")));
                piece.extend(fragment.bytes);
            }
            "staged" => {
                let (kind, body) = frame();
                let batch = StagedBatch::parse(&body).unwrap().unwrap();
                assert_eq!((kind, u64::from(batch.transfer)), (FrameType::Batch, record.number("transfer")));
                let whole = piece.clone().close(&batch).unwrap();
                let batch = Batch::parse(whole.body()).unwrap();
                let signature = batch.signature.unwrap();
                assert_eq!((batch.signed, &signature[..]), (record.get("signed"), record.get("signature")));
                assert_eq!(batch.messages().next().unwrap().payload, record.get("payload"));
                let key = self::record("identity.txt", "alice").get("engine_public_key").to_vec();
                verify(&key, "batch", &network_id(), batch.signed, signature);
            }
            "checkpoint" => {
                let bodies = ["batch_0", "batch_1"].map(|name| body(record.get(name)).1);
                let begin = [record.get("session_id"), record.get("source")].concat();
                let begin = blake3::derive_key("legation/1/checkpoint", &begin);
                let chain = bodies.iter().fold(begin, |chain, body| {
                    let batch = Batch::parse(body).unwrap();
                    assert_eq!((batch.header.mode, batch.signature, batch.signed), (Mode::Checkpoint, None, &body[..]));
                    *blake3::hash(&[chain, *blake3::hash(body).as_bytes()].concat()).as_bytes()
                });
                let expected = Checkpoint { first: record.number("first"), last: record.number("last"), chain };
                let (kind, body) = frame();
                let (checkpoint, signature) = Checkpoint::decode(&body).unwrap();
                assert_eq!(
                    (kind, checkpoint, &signature[..]),
                    (FrameType::Checkpoint, expected, record.get("signature"))
                );
                let [source, destination] = ["source", "destination"].map(|name| RealmId(record.array(name)));
                let signed = checkpoint.body(&record.array("session_id"), &source, &destination);
                assert_eq!(signed, record.get("signed"));
                verify(record.get("public_key"), "checkpoint", &network_id(), &signed, &signature);
            }
            "skipped" => assert_eq!(frame::head(bytes, &limits), Ok(Head::Skip { bytes: bytes.len() })),
            _ => {
                let error = frame::head(bytes, &limits).unwrap_err();
                let code = legation_proto::error::CloseCode::from(&error).name();
                assert_eq!(record.name, format!("refused {code}"));
            }
        }
    }
}

#[test]
fn batches() {
    let records = read("batches.txt");
    assert_eq!(records.len(), 6);
    for record in records {
        let (kind, bytes) = body(record.get("frame"));
        assert_eq!(kind, FrameType::Batch);
        let batch = Batch::parse(&bytes).unwrap();
        assert_eq!(batch.header.engine.as_bytes(), record.get("engine"));
        assert_eq!([batch.header.mode as u8], record.get("mode"));
        assert_eq!(batch.header.first_sequence, record.number("first_sequence"));
        assert_eq!(batch.header.session, record.array("session_id"));
        assert_eq!(u64::from(batch.count), record.number("count"));
        assert_eq!(record.get("root"), blake3::hash(batch.signed).as_bytes());
        let signer = if record.get("engine").is_empty() { "online_public_key" } else { "engine_public_key" };
        let key = self::record("identity.txt", "alice").get(signer).to_vec();
        verify(&key, "batch", &network_id(), batch.signed, record.get("signature"));
        assert_eq!(batch.signature.unwrap(), record.get("signature"));
        for (number, item) in batch.messages().enumerate() {
            let field = |name: &str| record.get(&format!("{name}_{number}"));
            assert_eq!((item.row.destination.as_bytes(), item.payload), (field("destination"), field("payload")));
            assert_eq!((item.row.kind, item.row.detail), (field("kind")[0], field("detail")[0]));
            assert_eq!(item.row.aligned, field("flags") == [0x10]);
            assert_eq!(item.row.source.as_bytes(), field("source"));
            assert_eq!(item.row.call_id, record.number(&format!("call_id_{number}")));
            assert_eq!(item.row.caller, record.number(&format!("caller_{number}")));
        }
    }
}

#[test]
fn receipts() {
    let records = read("receipts.txt");
    assert_eq!(records.len(), 20);
    for record in records {
        let verify = |bytes: &[u8]| receipt::verify(bytes, &record.array("identity_key"), &record.array("network_id"));
        let verified = verify(record.get("receipt")).unwrap();
        assert_eq!(verified.source_engine.as_bytes(), record.get("engine"));
        assert_eq!(verified.destination_engine.as_bytes(), record.get("destination"));
        assert_eq!((verified.sequence, &verified.payload[..]), (record.number("sequence"), record.get("payload")));
        let mut wrong = record.get("receipt").to_vec();
        let last = wrong.len() - 1;
        wrong[last] ^= 1;
        assert!(verify(&wrong).is_err());
    }
}

#[test]
fn terms() {
    for record in read("terms.txt") {
        let term = record.get("term");
        let scanned = scan(term, &TermLimits::default());
        match record.name.split_once(':').unwrap().0 {
            "accepted" => assert_eq!((scanned, disguise(term, &|_| false)), (Ok(()), None), "{}", record.name),
            "disguised" => assert!(scanned.is_ok() && disguise(term, &|_| false).is_some(), "{}", record.name),
            "handle" => {
                assert!(scanned.unwrap_err().is_identifiers(), "{}", record.name);
                assert_eq!(scan_wire(term, &TermLimits::default()), Ok(true), "{}", record.name);
                let number = || record.number("number");
                let expected = match record.name.split_once(": ").unwrap().1 {
                    "pid of the sender" => Wire::Pid { number: number(), owner: Owner::Sender },
                    "pid of the receiver" => Wire::Pid { number: number(), owner: Owner::Receiver },
                    "engine of the receiver" => Wire::Engine(std::str::from_utf8(record.get("engine")).unwrap()),
                    "reference of the sender" => Wire::Reference { number: number(), owner: Owner::Sender },
                    "reference of the receiver" => Wire::Reference { number: number(), owner: Owner::Receiver },
                    other => panic!("{other}"),
                };
                assert_eq!(Wire::parse(&term[1..]), Some(expected));
            }
            "answer" => {
                let given = record.number("number");
                assert_eq!(scan_wire(term, &TermLimits::default()), Ok(true), "{}", record.name);
                assert!(disguise(term, &|number| number == given).is_none(), "{}", record.name);
                assert!(disguise(term, &|_| false).is_some(), "{}", record.name);
            }
            "refused identifiers" => {
                assert!(scanned.unwrap_err().is_identifiers(), "{}", record.name);
                assert!(scan_wire(term, &TermLimits::default()).unwrap_err().is_identifiers(), "{}", record.name);
            }
            "refused bad_term" => assert!(!scanned.unwrap_err().is_identifiers(), "{}", record.name),
            other => panic!("{other}"),
        }
    }
}
