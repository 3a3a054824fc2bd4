//! What is written is read back, by generated values; and a stream means the same however it is cut.

use legation_channel::channel::Profile;
use legation_proto::certificate::LinkCertificate;
use legation_proto::error::CloseCode;
use legation_proto::frame::batch::{self, kind, Batch, Header};
use legation_proto::frame::cert::Cert;
use legation_proto::frame::close::Close;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::handle_release::{self, Release};
use legation_proto::frame::hello::{Hello, Offer};
use legation_proto::frame::learn::Learn;
use legation_proto::frame::{ack, ping, FrameType};
use legation_proto::identity::RealmId;
use legation_proto::limits::{Limits, ROTATIONS_MAX};
use legation_proto::rotation::{Revocation, Rotation};
use legation_proto::signing::Mode;
use proptest::prelude::*;
use rust_tests::pair::Seen;
use rust_tests::raw_batch::{RawBatch, RawMessage, ALIGNED};
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::term;

fn name() -> impl Strategy<Value = String> {
    "[^@\\p{Cc}]{1,60}".prop_filter("255 bytes", |name| name.len() <= 255)
}

/// Kind, flags, call id, caller, detail, destination, payload: as the kind allows.
fn message() -> impl Strategy<Value = RawMessage> {
    let payload = prop::collection::vec(any::<u8>(), 0..2_000);
    (1..6u8, any::<bool>(), 1..u64::MAX, 1..u64::MAX, any::<u8>(), name(), payload).prop_map(
        |(kind, aligned, call_id, caller, detail, destination, payload)| {
            let message = match kind {
                kind::SEND => RawMessage::send(&destination, &payload),
                kind::CAST => RawMessage::cast(&destination, &payload),
                kind::GENCALL => RawMessage { detail, ..RawMessage::call(&destination, call_id, caller, &payload) },
                kind::REPLY => RawMessage::reply(call_id, &payload),
                _ => RawMessage::error(call_id, detail),
            };
            RawMessage { flags: if aligned { ALIGNED } else { 0 }, ..message }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_hello_reads_as_it_was_written(
        bytes in prop::collection::vec(any::<[u8; 32]>(), 6),
        numbers in any::<(u8, u8, u16, u16, u64, u32, u32, u64)>(),
        link in any::<bool>(),
        resume in any::<Option<([u8; 32], bool)>>(),
        chain in prop::collection::vec(any::<([u8; 32], u64)>(), 0..=ROTATIONS_MAX),
        revoked in any::<bool>(),
        credit_bytes in any::<Option<std::num::NonZeroU32>>(),
        signature in any::<[u8; 32]>(),
    ) {
        let (role, profile, version_min, version_max, features, message_bytes_max, engines_max, not_after) = numbers;
        let signature = [signature, signature].concat().try_into().unwrap();
        let hello = Hello {
            role, profile, version_min, version_max, features, message_bytes_max, engines_max,
            own: RealmId(bytes[0]), peer: RealmId(bytes[1]), identity_key: bytes[2], binding: bytes[3], random: bytes[4],
            link: link.then_some(LinkCertificate { key: bytes[5], not_after: not_after.max(1), signature }),
            chain: chain.iter().enumerate().map(|(index, (key, not_before))| Rotation {
                realm: RealmId(bytes[0]), old: bytes[2], new: *key, serial: index as u64, not_before: *not_before, signature,
            }).collect(),
            revocation: revoked.then_some(Revocation { realm: RealmId(bytes[0]), key: bytes[2], serial: features, signature }),
            resume: resume.map(|(session, additional)| Offer { session, additional }),
            credit_bytes,
        };
        let body = hello.body();
        prop_assert!(body.len() + 64 <= 4096 - 512, "there is room for extensions");
        let whole = [&body[..], &signature].concat();
        prop_assert_eq!(Hello::decode(&whole).unwrap(), (hello, signature, body.len()));
    }

    #[test]
    fn announcements_read_as_they_were_written(
        realm in any::<[u8; 32]>(), key in any::<[u8; 32]>(), engine in name(),
        numbers in any::<(u64, u64, u64, u32, u16)>(), reason in 0..5usize, delegate: bool,
    ) {
        let (serial, not_before, not_after, version, operations) = numbers;
        let realm = RealmId(realm);
        let learn = Learn { realm, engine: engine.clone(), key, serial, not_before, not_after, version, operations, delegate };
        prop_assert_eq!(Learn::decode(&[&learn.body()[..], &[7; 64]].concat()).unwrap(), (learn, [7; 64]));
        let forget = Forget { realm, engine, serial, reason: ForgetReason::ALL[reason] };
        prop_assert_eq!(Forget::decode(&[&forget.body()[..], &[8; 64]].concat()).unwrap(), (forget, [8; 64]));
        let cert = Cert { realm, key, not_before, not_after, serial };
        prop_assert_eq!(Cert::decode(&[&cert.body()[..], &[9; 64]].concat()).unwrap(), (cert, [9; 64]));
    }

    #[test]
    fn control_frames_read_as_they_were_written(
        number in any::<u64>(), code in 0..CloseCode::ALL.len(), text in "\\PC{0,60}", entries in prop::collection::vec((0..4u8, any::<u64>(), 1..=u64::MAX), 0..100),
    ) {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            assert_eq!(u32::from_le_bytes(out[2..6].try_into().unwrap()) as usize, out.len() - 6);
            out
        };
        let out = written(&|out| ack::encode(number, out));
        prop_assert_eq!((out[0], ack::decode(&out[6..])), (FrameType::Ack as u8, Ok(number)));
        let out = written(&|out| ping::encode_ping(number, out));
        prop_assert_eq!((out[0], ping::decode(&out[6..])), (FrameType::Ping as u8, Ok(number)));
        let out = written(&|out| ping::encode_pong(number, out));
        prop_assert_eq!((out[0], ping::decode(&out[6..])), (FrameType::Pong as u8, Ok(number)));
        let close = Close { code: CloseCode::ALL[code], text };
        let out = written(&|out| close.encode(out));
        prop_assert_eq!((out[0], Close::decode(&out[6..])), (FrameType::Close as u8, Ok(close)));
        let entries: Vec<Release> =
            entries.into_iter().map(|(what, number, count)| match what {
                0 => Release::Ended { number, reason: ForgetReason::ALL[(count % 8) as usize] },
                1 => Release::Call(number),
                2 => Release::Dropped { number, count },
                _ => Release::DroppedReference { number, count },
            }).collect();
        let out = written(&|out| handle_release::encode(&entries, out));
        prop_assert_eq!((out[0], handle_release::decode(&out[6..])), (FrameType::HandleRelease as u8, Ok(entries)));
    }

    /// Two writers of the same specification: the core's and the one by hand.
    #[test]
    fn a_batch_is_written_as_the_specification_says_and_reads_back(
        messages in prop::collection::vec(message(), 1..12), engine in prop_oneof![name(), Just(String::new())],
        first_sequence in 1..1_000_000u64, ids in any::<[[u8; 32]; 3]>(),
    ) {
        let raw = RawBatch {
            session: ids[0], source: ids[1], destination: ids[2], first_sequence, count: None, mode: 1,
            engine: engine.clone().into_bytes(), table_length: None, payloads_length: None,
            messages: messages.clone(), trailing: Vec::new(),
            table: None,
        };
        let header = Header {
            session: ids[0], source: RealmId(ids[1]), destination: RealmId(ids[2]), first_sequence,
            mode: Mode::Engine, engine: &engine,
        };
        let core = messages.iter().map(|message| batch::Message {
            kind: message.kind,
            aligned: message.flags == ALIGNED,
            call_id: message.call_id,
            caller: message.caller,
            detail: message.detail,
            source: "",
            destination: std::str::from_utf8(&message.destination).unwrap(),
            payload: &message.payload,
        });
        let mut out = Vec::new();
        batch::encode(&header, core, |_| [5; 64], &mut out);
        prop_assert_eq!(&out[6..out.len() - 64], &raw.body()[..]);
        let parsed = Batch::parse(&out[6..]).unwrap();
        prop_assert_eq!(parsed.header, header);
        for (item, message) in parsed.messages().zip(&messages) {
            prop_assert_eq!(item.payload, &message.payload[..]);
            prop_assert_eq!((item.row.kind, item.row.call_id, item.row.caller), (message.kind, message.call_id, message.caller));
            prop_assert_eq!((item.row.detail, item.row.destination.as_bytes()), (message.detail, &message.destination[..]));
            prop_assert!(message.flags != ALIGNED || item.offset % 1024 == 0);
        }
    }

    #[test]
    fn a_stream_of_frames_means_the_same_however_it_is_cut(
        sizes in prop::collection::vec(1..400usize, 1..30), profile in prop::sample::select(vec![Profile::Local, Profile::Plain]),
    ) {
        let run = |sizes: &[usize]| -> (Vec<Seen>, Vec<(&'static str, u64)>) {
            let mut versus = Versus::up_with(RawPeerConfig::dialling(profile), Limits::default());
            for number in 0..20u32 {
                versus.peer.cast("e1", "b", &term::number(number));
                versus.peer.ping(7);
                versus.peer.write(&[0x40, 0, 3, 0, 0, 0, 1, 2, 3]);
                versus.peer.send("", vec![RawMessage::call("b", u64::from(number) + 1, 1, &term::of_size(500))]);
                let learn = versus.peer.learn(&format!("n{number}"));
                versus.peer.write_learn(&learn);
            }
            let stream = versus.peer.take_out();
            let (mut rest, mut at) = (&stream[..], 0);
            while !rest.is_empty() {
                let size = sizes[at % sizes.len()].min(rest.len());
                versus.side.handle(versus.now, &rest[..size]);
                rest = &rest[size..];
                at += 1;
            }
            let counters = versus.side.session().counters().all();
            (versus.side.take_events(), counters)
        };
        let whole = run(&[usize::MAX]);
        prop_assert_eq!(whole.0.len(), 60);
        prop_assert_eq!(run(&sizes), whole);
    }
}

#[test]
fn one_byte_at_a_time_means_the_same_as_all_at_once() {
    let mut versus = Versus::up(Profile::Tls);
    versus.peer.send("e1", vec![RawMessage::cast("b", &term::of_size(20_000)); 3]);
    for byte in versus.peer.take_out() {
        versus.side.handle(versus.now, &[byte]);
    }
    assert_eq!(versus.side.take_payloads(), vec![term::of_size(20_000); 3]);
}
