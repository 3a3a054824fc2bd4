//! Bytes that no honest peer sends, in every phase: a defined answer, and never a panic.

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::frame::FrameType;
use legation_proto::identity::Purpose;
use legation_proto::limits::Limits;
use proptest::prelude::*;
use rust_tests::pair::{Pair, PairConfig, Seen, PROFILES};
use rust_tests::raw_batch::{critical, frame, RawMessage, ALIGNED, CALL, RESERVED, STAGED};
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::realm::{network, Realm, START};
use rust_tests::term;

const LENGTHS: [u32; 5] = [0, 1, 3, 1 << 31, u32::MAX];
const KNOWN: [u8; 16] =
    [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0F, 0x14, 0x15, 0x16];

fn up() -> Versus {
    Versus::up(Profile::Local)
}

/// A good body of each frame of a session, and for what it is signed.
fn bodies(versus: &mut Versus) -> Vec<(FrameType, Option<Purpose>, Vec<u8>)> {
    let cert = versus.peer.cert().body();
    let learn = versus.peer.learn("new").body();
    let forget = versus.peer.forget("e2").body();
    let messages = vec![RawMessage::cast("b", &term::text("x")), RawMessage::call("b", 1, 1, &term::text("y"))];
    let batch = versus.peer.batch("e1", messages).body();
    let checkpoint = [&1u64.to_le_bytes()[..], &1u64.to_le_bytes(), &[7; 32]].concat();
    let release = [&[1, 0, 2][..], &7u64.to_le_bytes()].concat();
    vec![
        (FrameType::Cert, Some(Purpose::Cert), cert),
        (FrameType::Learn, Some(Purpose::Learn), learn),
        (FrameType::Forget, Some(Purpose::Forget), forget),
        (FrameType::Batch, Some(Purpose::Batch), batch),
        (FrameType::HandleRelease, None, release),
        (FrameType::Checkpoint, Some(Purpose::Checkpoint), checkpoint),
        (FrameType::Ack, None, 0u64.to_le_bytes().to_vec()),
        (FrameType::Ping, None, 7u64.to_le_bytes().to_vec()),
        (FrameType::Pong, None, 7u64.to_le_bytes().to_vec()),
        (FrameType::Close, None, vec![1, 0, 2, b'o', b'k']),
    ]
}

fn signed(purpose: Option<Purpose>, body: &[u8]) -> Vec<u8> {
    let keyring = Realm::alice().keyring;
    let signature = match purpose {
        None => return body.to_vec(),
        Some(Purpose::Batch) => keyring.sign_batch("e1", &network().id(), body),
        Some(Purpose::Checkpoint) => keyring.sign_checkpoint(&network().id(), body),
        Some(purpose) => keyring.sign(purpose, &network().id(), body).unwrap(),
    };
    [body, &signature].concat()
}

/// Whatever came of it: the link works, or has said why not and has told the peer.
fn assert_defined(versus: &mut Versus, what: &str) {
    if versus.side.fault.is_some() {
        let code = versus.side.fault_code().expect(what);
        assert_eq!(versus.peer.told_code(), Some(code), "{what}");
        assert!([CloseCode::Protocol, CloseCode::TooLarge, CloseCode::UnknownFrame, CloseCode::Abuse].contains(&code));
    } else if versus.side.told().is_none() {
        let sequence = versus.side.count("messages_in");
        assert!(sequence < 1_000, "{what}");
    }
}

#[test]
fn every_length_at_every_place_of_every_frame_is_answered() {
    let count = bodies(&mut up()).len();
    for which in 0..count {
        let body_length = bodies(&mut up())[which].2.len();
        for at in 0..body_length {
            for length in LENGTHS {
                for width in [1, 2, 4] {
                    let mut versus = up();
                    let (kind, purpose, mut body) = bodies(&mut versus).swap_remove(which);
                    let end = (at + width).min(body.len());
                    body[at..end].copy_from_slice(&length.to_le_bytes()[..end - at]);
                    versus.peer.write_frame(kind, &signed(purpose, &body));
                    versus.settle();
                    assert_defined(&mut versus, &format!("{kind:?}: {length} at {at}, {width} wide"));
                }
            }
        }
    }
}

#[test]
fn every_length_at_every_place_of_a_hello_is_answered() {
    for at in 0..290usize {
        for length in LENGTHS {
            for width in [2, 4] {
                let mut versus = Versus::dialling(RawPeerConfig::dialling(Profile::Local), Limits::default());
                versus.peer.body_twist = Some(Box::new(move |body| {
                    body.truncate(body.len() - 64);
                    let end = (at + width).min(body.len());
                    body[at..end].copy_from_slice(&length.to_le_bytes()[..end - at]);
                    *body = signed(Some(Purpose::Hello), body);
                }));
                versus.settle();
                assert!(versus.side.is_up() || versus.side.fault.is_some(), "{length} at {at}");
                assert_eq!(versus.peer.told_code(), versus.side.fault_code());
            }
        }
    }
}

#[test]
fn every_length_in_the_header_of_every_frame_is_answered_before_the_body_has_come() {
    for kind in KNOWN {
        for length in LENGTHS {
            let mut versus = up();
            versus.peer.write(&frame(kind, 1, length, &[]));
            versus.settle();
            let limit = FrameType::known(kind).unwrap().body_bytes_max(&Limits::default());
            if length as usize > limit {
                versus.assert_closed(CloseCode::TooLarge);
            } else if length == 0 {
                versus.assert_closed(CloseCode::Protocol);
            } else {
                assert!(versus.side.is_up(), "waits for {length} bytes");
            }
        }
    }
}

#[test]
fn every_frame_cut_short_or_followed_by_a_byte_closes_the_link() {
    let count = bodies(&mut up()).len();
    for which in 0..count {
        let whole = {
            let (_, purpose, body) = bodies(&mut up()).swap_remove(which);
            signed(purpose, &body).len()
        };
        for length in (0..whole).chain([whole + 1]) {
            let mut versus = up();
            let (kind, purpose, body) = bodies(&mut versus).swap_remove(which);
            let mut bytes = signed(purpose, &body);
            bytes.resize(length, 0);
            versus.peer.write_frame(kind, &bytes);
            versus.settle();
            let code = versus.side.fault_code();
            assert!(matches!(code, Some(CloseCode::Protocol | CloseCode::TooLarge)), "{kind:?} of {length} bytes");
            assert_eq!(versus.peer.told_code(), code);
        }
    }
}

#[test]
fn unknown_frames_close_the_link_if_they_are_critical_and_are_skipped_if_not() {
    for kind in (0..=255u8).filter(|kind| !KNOWN.contains(kind)) {
        let mut versus = up();
        versus.peer.write(&frame(kind, 0, 5, b"hello"));
        versus.peer.write(&frame(kind, 0, 0, b""));
        versus.settle();
        assert_eq!(versus.side.count("skipped_frames"), 2);
        versus.assert_alive();
        versus.peer.write(&frame(kind, 1, 0, b""));
        versus.settle();
        versus.assert_closed(CloseCode::UnknownFrame);
    }
}

#[test]
fn an_uncritical_frame_of_64_kib_is_skipped_and_one_byte_more_is_too_large() {
    let mut versus = up();
    versus.peer.write(&frame(0x40, 0, 65_536, &[0; 65_536]));
    versus.settle();
    versus.assert_alive();
    versus.peer.write(&frame(0x40, 0, 65_537, &[]));
    versus.settle();
    versus.assert_closed(CloseCode::TooLarge);
}

#[test]
fn flags_that_mean_nothing_and_known_frames_without_their_bit_close_the_link() {
    for kind in KNOWN {
        for flags in [0, 2, 3, 0x80, 0x81, 0xff] {
            let mut versus = up();
            versus.peer.write(&frame(kind, flags, 8, &[0; 8]));
            versus.settle();
            versus.assert_closed(CloseCode::Protocol);
        }
    }
}

#[test]
fn a_row_or_header_that_breaks_a_rule_closes_the_link_though_it_is_signed() {
    type Change = fn(&mut rust_tests::raw_batch::RawBatch);
    let changes: [(&str, Change); 20] = [
        ("mode 0", |batch| batch.mode = 0),
        ("delegated", |batch| batch.mode = 2),
        ("checkpoint", |batch| batch.mode = 3),
        ("compressed", |batch| batch.messages[0].flags = RESERVED),
        ("call fields of nothing", |batch| batch.messages[0].flags = CALL),
        ("staged among others", |batch| batch.messages[0].flags = STAGED),
        ("sequence 0", |batch| batch.first_sequence = 0),
        ("count too high", |batch| batch.count = Some(3)),
        ("count too low", |batch| batch.count = Some(1)),
        ("table too long", |batch| batch.table_length = Some(10_000)),
        ("table too short", |batch| batch.table_length = Some(10)),
        ("payloads too long", |batch| batch.payloads_length = Some(u32::MAX)),
        ("payloads too short", |batch| batch.payloads_length = Some(0)),
        ("trailing", |batch| batch.trailing = vec![0]),
        ("engine with @", |batch| batch.engine = b"a@b".to_vec()),
        ("engine not UTF-8", |batch| batch.engine = vec![0xff]),
        ("destination empty", |batch| batch.messages[0].destination.clear()),
        ("destination control", |batch| batch.messages[0].destination = b"a\x07".to_vec()),
        ("cast with a call id", |batch| batch.messages[0].call_id = 1),
        ("a payload that overlaps", |batch| batch.messages[0].length = Some(1)),
    ];
    for (what, change) in changes {
        let mut versus = up();
        let mut batch = versus.peer.batch("e1", vec![RawMessage::cast("b", &term::text("x")); 2]);
        change(&mut batch);
        let body = versus.peer.sealed(&batch, "e1");
        versus.peer.write_frame(FrameType::Batch, &body);
        versus.settle();
        assert_eq!(versus.side.fault_code(), Some(CloseCode::Protocol), "{what}");
        versus.assert_closed(CloseCode::Protocol);
        assert!(!versus.side.events.iter().any(|event| matches!(event, Seen::Deliver { .. })), "{what}");
    }
}

#[test]
fn an_engine_name_that_is_none_closes_the_link_in_every_announcement() {
    for name in ["", "a@b", "new\nline", "\u{7f}", "\u{85}"] {
        let mut versus = up();
        let learn = versus.peer.learn(name);
        versus.peer.write_learn(&learn);
        versus.settle();
        versus.assert_closed(CloseCode::Protocol);
        let mut versus = up();
        let forget = versus.peer.forget(name);
        versus.peer.write_forget(&forget);
        versus.settle();
        versus.assert_closed(CloseCode::Protocol);
    }
}

#[test]
fn unknown_close_codes_and_reasons_have_a_defined_meaning() {
    for (code, meant) in
        [(0, CloseCode::Normal), (14, CloseCode::Replaced), (17, CloseCode::Unproven), (18, CloseCode::Protocol)]
    {
        let mut versus = up();
        versus.peer.write_frame(FrameType::Close, &[code, 0, 3, b'a', 0x1b, b'b']);
        versus.settle();
        assert_eq!(versus.side.told(), Some((meant, "a\u{fffd}b".into())));
    }
    let mut versus = up();
    let now = versus.now;
    let call = versus.side.call(now, "e1", b"p", b"c", &term::text("x")).unwrap();
    versus.peer.send("e1", vec![RawMessage::error(call.call_id, 200)]);
    versus.settle();
    let events = versus.side.take_events();
    assert!(matches!(&events[..], [Seen::Refused { refusal, .. }] if refusal.name() == "forbidden"));
}

#[test]
fn a_tampered_record_ends_the_link_on_the_profiles_that_protect_it() {
    for profile in [Profile::Tls, Profile::Plain] {
        let mut pair = Pair::up(PairConfig::of(profile));
        pair.tamper = Some(Box::new(|_, bytes| {
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
        }));
        pair.alice.cast("a", "b", &term::text("x")).unwrap();
        pair.settle();
        assert!(pair.bob.fault.is_some());
        assert!(!pair.bob.events.iter().any(|event| matches!(event, Seen::Deliver { .. })));
    }
}

/// A frame as a hostile peer with real keys might make it.
#[derive(Clone, Debug)]
enum Hostile {
    Batch { engine: usize, signer: usize, messages: Vec<HostileMessage>, skip: u64, session: bool },
    Announce { kind: usize, name: String, serial: u64, not_after: u64, signed: bool, own: bool },
    Frame { kind: u8, flags: u8, body: Vec<u8>, lie: Option<u32> },
    Raw(Vec<u8>),
    Ack(u64),
    Release(Vec<(u8, u64)>),
    Wait(u64),
}

#[derive(Clone, Debug)]
struct HostileMessage {
    kind: u8,
    flags: u8,
    call_id: u64,
    caller: u64,
    detail: u8,
    destination: usize,
    payload: Vec<u8>,
    length: Option<u32>,
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let disguises: Vec<Vec<u8>> = term::disguises().into_iter().map(|(_, payload)| payload).collect();
    prop_oneof![
        "[a-z]{0,10}".prop_map(|text| term::text(&text)),
        prop::sample::select(disguises),
        prop::collection::vec(any::<u8>(), 0..60),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| term::payload(&bytes)),
        Just(term::payload(&term::pid("a@b", 1))),
    ]
}

fn any_message() -> impl Strategy<Value = HostileMessage> {
    let rare = |value: BoxedStrategy<u64>| prop_oneof![3 => 0..4u64, 1 => value];
    (
        prop_oneof![8 => 1..6u8, 1 => any::<u8>()],
        prop_oneof![20 => Just(0u8), 2 => Just(ALIGNED), 1 => any::<u8>()],
        rare(any::<u64>().boxed()),
        rare(any::<u64>().boxed()),
        0..6u8,
        0..4usize,
        any_payload(),
        prop_oneof![20 => Just(None), 1 => any::<u32>().prop_map(Some)],
    )
        .prop_map(|(kind, flags, call_id, caller, detail, destination, payload, length)| HostileMessage {
            kind,
            flags,
            call_id,
            caller,
            detail,
            destination,
            payload,
            length,
        })
}

fn any_hostile() -> impl Strategy<Value = Hostile> {
    let few = prop_oneof![9 => Just(0u64), 1 => 0..5u64];
    prop_oneof![
        8 => (0..4usize, prop_oneof![5 => Just(9usize), 1 => 0..4usize], prop::collection::vec(any_message(), 1..5), few, prop::bool::weighted(0.9))
            .prop_map(|(engine, signer, messages, skip, session)| Hostile::Batch { engine, signer, messages, skip, session }),
        4 => (0..3usize, "[a-z@]{0,3}", 0..50u64, prop_oneof![Just(0), Just(START), any::<u64>()], prop::bool::weighted(0.9), prop::bool::weighted(0.9))
            .prop_map(|(kind, name, serial, not_after, signed, own)| Hostile::Announce { kind, name, serial, not_after, signed, own }),
        2 => (prop_oneof![0..0x18u8, any::<u8>()], prop_oneof![4 => Just(1u8), 2 => Just(0u8), 1 => any::<u8>()],
              prop::collection::vec(any::<u8>(), 0..100), prop::option::weighted(0.1, any::<u32>()))
            .prop_map(|(kind, flags, body, lie)| Hostile::Frame { kind, flags, body, lie }),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Hostile::Raw),
        1 => (0..4u64).prop_map(Hostile::Ack),
        1 => prop::collection::vec((1..3u8, 0..5u64), 0..4).prop_map(Hostile::Release),
        2 => (0..20_000u64).prop_map(Hostile::Wait),
    ]
}

fn act(versus: &mut Versus, hostile: Hostile) {
    const NAMES: [&str; 4] = ["e1", "e2", "", "unknown"];
    const DESTINATIONS: [&str; 4] = ["b", "b", "init", ""];
    match hostile {
        Hostile::Batch { engine, signer, messages, skip, session } => {
            let messages = messages.into_iter().map(|message| RawMessage {
                kind: message.kind,
                flags: message.flags,
                call_id: message.call_id,
                caller: message.caller,
                detail: message.detail,
                source: Vec::new(),
                destination: DESTINATIONS[message.destination].into(),
                payload: message.payload,
                length: message.length,
            });
            let mut batch = versus.peer.batch(NAMES[engine], messages.collect());
            batch.first_sequence += skip;
            batch.session[0] ^= u8::from(!session);
            let signer = NAMES.get(signer).unwrap_or(&NAMES[engine]);
            let body = versus.peer.sealed(&batch, signer);
            versus.peer.write_frame(FrameType::Batch, &body);
        }
        Hostile::Announce { kind, name, serial, not_after, signed: good, own } => {
            let realm = if own { versus.peer.realm.id() } else { Realm::bob().id() };
            let serial = versus.peer.serial - 10 + serial;
            let (kind, purpose, body) = match kind {
                0 => {
                    let learn = versus.peer.learn(&name);
                    let learn = legation_proto::frame::learn::Learn { realm, serial, not_after, ..learn };
                    (FrameType::Learn, Purpose::Learn, learn.body())
                }
                1 => {
                    let forget = versus.peer.forget(&name);
                    let forget = legation_proto::frame::forget::Forget { realm, serial, ..forget };
                    (FrameType::Forget, Purpose::Forget, forget.body())
                }
                _ => {
                    let cert = versus.peer.cert();
                    let cert = legation_proto::frame::cert::Cert { realm, serial, not_after, ..cert };
                    (FrameType::Cert, Purpose::Cert, cert.body())
                }
            };
            let mut bytes = versus.peer.signed(purpose, body);
            if !good {
                *bytes.last_mut().unwrap() ^= 1;
            }
            versus.peer.write_frame(kind, &bytes);
        }
        Hostile::Frame { kind, flags, body, lie } => {
            versus.peer.write(&frame(kind, flags, lie.unwrap_or(body.len() as u32), &body));
        }
        Hostile::Raw(bytes) => versus.peer.write(&bytes),
        Hostile::Ack(sequence) => versus.peer.write_frame(FrameType::Ack, &sequence.to_le_bytes()),
        Hostile::Release(entries) => {
            let mut body = (entries.len() as u16).to_le_bytes().to_vec();
            for (what, number) in entries {
                body.push(what);
                body.extend(number.to_le_bytes());
            }
            versus.peer.write_frame(FrameType::HandleRelease, &body);
        }
        Hostile::Wait(ms) => versus.now += ms,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Two hostile peers of one realm: whatever the one does, the other's link is none the worse for it.
    #[test]
    fn a_hostile_peer_ends_at_most_its_own_link(steps in prop::collection::vec(any_hostile(), 1..25)) {
        let mut versus = up();
        let mut other = up();
        let mut released = 0;
        for step in steps {
            act(&mut versus, step);
            versus.settle();
            for event in &versus.side.events {
                match event {
                    Seen::Deliver { destination, payload, .. } | Seen::Call { destination, payload, .. } => {
                        prop_assert!(["b", "init"].contains(&destination.as_str()));
                        prop_assert!(legation_proto::etf::scan(payload, &Default::default()).is_ok());
                    }
                    Seen::HandleEnded { .. } => released += 1,
                    _ => {}
                }
            }
            if let Some(fault) = versus.side.fault.clone() {
                prop_assert!(versus.side.fault_code().is_some(), "{fault:?}");
                prop_assert_eq!(versus.peer.told_code(), versus.side.fault_code());
                break;
            }
            // Half of the calls are answered.
            let calls: Vec<u64> = versus.side.take_events().into_iter().filter_map(|event| match event {
                Seen::Call { call_id, .. } if call_id % 2 == 0 => Some(call_id),
                _ => None,
            }).collect();
            for call_id in calls {
                let _ = versus.side.reply(call_id, &term::text("answer"));
            }
        }
        prop_assert!(released < 200);
        // Everything that came back is well-formed and signed.
        let _ = versus.peer.got();
        other.assert_alive();
    }

    #[test]
    fn arbitrary_bytes_on_the_carrier_never_panic_in_any_phase(
        profile in prop::sample::select(&PROFILES),
        knock in any::<bool>(),
        phase in 0..5usize,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        prefix in prop::sample::select(vec![&[][..], &[1], &[1, 1], &[1, 3], &[0x16, 3, 1], &[0x17, 3, 3, 0, 40], &[8, 0, 0, 0]]),
        cut in 1..50usize,
    ) {
        let knock = knock && profile != Profile::Local;
        let mut pair = Pair::new(PairConfig { knock, latency_ms: 1, ..PairConfig::of(profile) });
        // Each millisecond carries one flight.
        pair.advance(phase as u64);
        let bytes = [prefix, &bytes].concat();
        for piece in bytes.chunks(cut) {
            let now = pair.now;
            pair.bob.handle(now, piece);
            pair.alice.handle(now, piece);
        }
        pair.settle();
        pair.advance(40_000);
    }

    #[test]
    fn arbitrary_bytes_inside_the_channel_never_panic(
        profile in prop::sample::select(&PROFILES),
        bytes in prop::collection::vec(prop_oneof![0..4u8, 0..0x18u8, any::<u8>()], 1..300),
        early in any::<bool>(),
    ) {
        let mut versus = if early {
            let mut versus = Versus::dialling(RawPeerConfig::dialling(profile), Limits::default());
            versus.peer.keep_hello = true;
            versus.settle();
            versus
        } else {
            Versus::up(profile)
        };
        versus.peer.write(&bytes);
        versus.settle();
        prop_assert_eq!(versus.side.fault_code(), versus.peer.told_code());
        // Whoever is told nothing yet waits for the rest of a frame.
        versus.advance(40_000);
    }

    #[test]
    fn a_good_frame_with_random_changes_never_panics(
        which in 0..9usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        resign in any::<bool>(),
    ) {
        let mut versus = up();
        let (kind, purpose, mut body) = bodies(&mut versus).swap_remove(which);
        if !resign {
            body = signed(purpose, &body);
        }
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        if resign {
            body = signed(purpose, &body);
        }
        versus.peer.write(&critical(kind, &body));
        versus.settle();
        assert_defined(&mut versus, "random changes");
    }
}
