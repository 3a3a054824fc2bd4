//! A peer that is allowed in, holds real keys, and breaks the rules (`protocol.md` 8.3, 10, 11).

use legation_channel::channel::Profile;
use legation_proto::error::{CloseCode, LinkError, PeerMisbehaved};
use legation_proto::frame::batch::kind;
use legation_proto::frame::forget::ForgetReason;
use legation_proto::frame::FrameType;
use legation_proto::identity::{NetworkKey, Purpose};
use legation_proto::keyring::Keyring;
use legation_proto::limits::Limits;
use rust_tests::pair::{Seen, PROFILES};
use rust_tests::raw_batch::{RawBatch, RawMessage, ALIGNED};
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::realm::{fixed_random, Realm, START};
use rust_tests::term;

fn up() -> Versus {
    Versus::up(Profile::Local)
}

fn casts(texts: &[&str]) -> Vec<RawMessage> {
    texts.iter().map(|text| RawMessage::cast("b", &term::text(text))).collect()
}

/// Sends the frame's body; nothing of it is delivered, the counter rises by one, and the link lives.
fn assert_dropped(versus: &mut Versus, body: &[u8], counter: &str) {
    let before = versus.side.count(counter);
    versus.side.events.clear();
    versus.peer.write_frame(FrameType::Batch, body);
    versus.settle();
    assert_eq!(versus.side.take_events(), []);
    assert_eq!(versus.side.count(counter), before + 1, "{counter}");
    versus.assert_alive();
}

/// A batch with changes, signed by `signer`.
fn changed(versus: &mut Versus, engine: &str, signer: &str, change: impl FnOnce(&mut RawBatch)) -> Vec<u8> {
    let mut batch = versus.peer.batch(engine, casts(&["one", "two"]));
    change(&mut batch);
    versus.peer.sealed(&batch, signer)
}

#[test]
fn any_byte_of_a_signed_batch_that_is_changed_has_it_dropped_and_the_next_is_delivered() {
    let length = {
        let mut versus = up();
        let batch = versus.peer.batch("e1", casts(&["one", "two"]));
        versus.peer.sealed(&batch, "e1").len()
    };
    let mut dropped = 0;
    for at in 0..length {
        for bit in [0x01, 0x80] {
            let mut versus = up();
            let batch = versus.peer.batch("e1", casts(&["one", "two"]));
            let mut body = versus.peer.sealed(&batch, "e1");
            body[at] ^= bit;
            versus.peer.write_frame(FrameType::Batch, &body);
            versus.settle();
            assert_eq!(versus.side.take_payloads(), Vec::<Vec<u8>>::new(), "byte {at}");
            match &versus.side.fault {
                // What can't be parsed, another realm's, or a gap: closed at once (8.3).
                Some(_) => versus.assert_closed(CloseCode::Protocol),
                None => {
                    let sum = ["bad_signature", "stale_session", "duplicate"].map(|name| versus.side.count(name));
                    assert_eq!(sum.iter().sum::<u64>(), 1, "byte {at}");
                    if sum[0] == 0 {
                        // It has used up no sequence numbers.
                        versus.peer.next_sequence -= 2;
                    }
                    versus.assert_alive();
                    dropped += 1;
                }
            }
        }
    }
    assert!(dropped > 220, "signature, session and payloads at least: {dropped}");
}

#[test]
fn a_batch_signed_by_another_key_of_the_realm_is_dropped() {
    for (engine, signer) in [("e1", "e2"), ("e2", "e1"), ("e1", ""), ("", "e1"), ("e1", "e3")] {
        let mut versus = up();
        let body = changed(&mut versus, engine, signer, |_| {});
        assert_dropped(&mut versus, &body, "bad_signature");
    }
}

#[test]
fn a_batch_that_is_wrapped_again_as_another_engines_is_dropped() {
    let mut versus = up();
    let original = versus.peer.batch("e1", casts(&["one", "two"]));
    let signature = versus.peer.sealed(&original, "e1").split_off(original.body().len());
    let body = [RawBatch { engine: b"e2".to_vec(), ..original }.body(), signature].concat();
    assert_dropped(&mut versus, &body, "bad_signature");
}

#[test]
fn the_identity_key_signs_no_batch() {
    let mut versus = up();
    let batch = versus.peer.batch("e1", casts(&["one"]));
    // The identity's seed, as if it were the online key.
    let impostor = Keyring::new(&[0; 32], &[1; 32]);
    let mut body = batch.body();
    body.extend(impostor.sign_batch("", &versus.peer.network.id(), &batch.body()));
    assert_dropped(&mut versus, &body, "bad_signature");
}

#[test]
fn an_engine_that_was_never_announced_says_nothing() {
    let mut versus = up();
    let body = changed(&mut versus, "e3", "e3", |_| {});
    assert_dropped(&mut versus, &body, "bad_signature");
}

#[test]
fn an_engine_that_was_forgotten_says_nothing_any_more() {
    let mut versus = up();
    let forget = versus.peer.forget("e2");
    versus.peer.write_forget(&forget);
    versus.settle();
    let body = changed(&mut versus, "e2", "e2", |_| {});
    assert_dropped(&mut versus, &body, "bad_signature");
}

#[test]
fn the_realm_itself_says_nothing_before_its_certificate_and_after_its_end() {
    let mut versus = Versus::dialling(RawPeerConfig::dialling(Profile::Local), Limits::default());
    versus.settle();
    versus.peer.send("", casts(&["early"]));
    versus.settle();
    assert_eq!((versus.side.take_payloads().len(), versus.side.count("bad_signature")), (0, 1));

    let cert = versus.peer.cert();
    let end = cert.not_after;
    versus.peer.write_cert(&cert);
    for (now, delivered) in [(START, 1), (end + 30_000, 1), (end + 30_001, 0)] {
        versus.now = now;
        versus.peer.send("", casts(&["x"]));
        versus.settle();
        assert_eq!(versus.side.take_payloads().len(), delivered, "{} ms past its end", now as i64 - end as i64);
    }
}

#[test]
fn an_engine_key_past_its_end_says_nothing() {
    let mut versus = up();
    let mut learn = versus.peer.learn("short");
    learn.not_after = START + 1_000;
    versus.peer.write_learn(&learn);
    for (now, delivered) in [(START + 31_000, 1), (START + 31_001, 0)] {
        versus.now = now;
        versus.peer.cast("short", "b", &term::text("x"));
        versus.settle();
        assert_eq!(versus.side.take_payloads().len(), delivered);
    }
}

#[test]
fn a_spliced_batch_is_dropped() {
    // The header and signature of one batch around the messages of another.
    let mut versus = up();
    let first = versus.peer.batch("e1", casts(&["pay 1", "pay 2"]));
    let signature = versus.peer.sealed(&first, "e1").split_off(first.body().len());
    let spliced = RawBatch { messages: casts(&["pay 9", "pay 2"]), ..first };
    let body = [spliced.body(), signature].concat();
    assert_dropped(&mut versus, &body, "bad_signature");
}

#[test]
fn messages_reordered_left_out_or_doubled_within_a_batch_have_it_dropped() {
    for messages in [casts(&["two", "one"]), casts(&["one"]), casts(&["one", "one"]), casts(&["one", "two", "two"])] {
        let mut versus = up();
        let first = versus.peer.batch("e1", casts(&["one", "two"]));
        let signature = versus.peer.sealed(&first, "e1").split_off(first.body().len());
        versus.peer.next_sequence = first.first_sequence + messages.len() as u64;
        let body = [RawBatch { messages, ..first }.body(), signature].concat();
        assert_dropped(&mut versus, &body, "bad_signature");
    }
}

#[test]
fn two_rows_whose_destinations_are_exchanged_have_the_batch_dropped() {
    let mut versus = up();
    let messages = vec![RawMessage::cast("b", &term::text("x")), RawMessage::cast("c", &term::text("x"))];
    let mut batch = versus.peer.batch("e1", messages);
    let signature = versus.peer.sealed(&batch, "e1").split_off(batch.body().len());
    batch.messages.swap(0, 1);
    let body = [batch.body(), signature].concat();
    assert_dropped(&mut versus, &body, "bad_signature");
}

#[test]
fn a_signature_for_another_network_or_purpose_is_none() {
    let mut versus = up();
    let batch = versus.peer.batch("e1", casts(&["one"]));
    let keyring = versus.peer.realm.keyring.clone();
    let mut body = batch.body();
    body.extend(keyring.sign_batch("e1", &NetworkKey::none().id(), &batch.body()));
    assert_dropped(&mut versus, &body, "bad_signature");

    let learn = versus.peer.learn("e3");
    let mut body = learn.body();
    body.extend(keyring.sign(Purpose::Forget, &versus.peer.network.id(), &learn.body()).unwrap());
    versus.peer.write_frame(FrameType::Learn, &body);
    versus.settle();
    assert_eq!(versus.side.count("bad_announcement"), 1);
    assert_eq!(versus.side.take_events(), []);
}

#[test]
fn a_replayed_batch_is_delivered_no_second_time() {
    for profile in PROFILES {
        let mut versus = Versus::up(profile);
        let body = versus.peer.cast("e1", "b", &term::text("once"));
        versus.settle();
        assert_eq!(versus.side.take_payloads(), [term::text("once")]);
        for _ in 0..3 {
            assert_dropped(&mut versus, &body, "duplicate");
        }
    }
}

#[test]
fn a_batch_of_another_session_is_not_delivered_neither_with_its_numbers_nor_before_them() {
    for profile in PROFILES {
        let mut first = Versus::up(profile);
        let bodies: Vec<_> = (0..4).map(|_| first.peer.cast("e1", "b", &term::text("once"))).collect();
        first.settle();
        assert_eq!(first.side.take_payloads().len(), 4);
        // Another link between the same two, as also after a restart of either: its random numbers are other ones.
        let random = fixed_random(4321, 0);
        let mut second =
            Versus::up_with(RawPeerConfig { random, ..RawPeerConfig::dialling(profile) }, Limits::default());
        for body in &bodies {
            assert_dropped(&mut second, body, "stale_session");
        }
    }
}

#[test]
fn only_one_sides_randomness_need_be_fresh() {
    // The peer restarts with the very same randomness; ours is another each time.
    let mut first = Versus::up(Profile::Local);
    let body = first.peer.cast("e1", "b", &term::text("once"));
    let mut pair = rust_tests::pair::PairConfig::of(Profile::Local);
    pair.run = 99;
    let session = first.peer.agreed.as_ref().unwrap().session;
    let other = rust_tests::pair::Pair::up(pair);
    assert_ne!(other.bob.session().agreed().session, session);
    assert!(body.starts_with(&session));
}

#[test]
fn a_batch_of_other_realms_closes_the_link() {
    for which in 0..2 {
        let mut versus = up();
        let carol = Realm::number(3).id().0;
        let body = changed(&mut versus, "e1", "e1", |batch| match which {
            0 => batch.source = carol,
            _ => batch.destination = carol,
        });
        versus.peer.write_frame(FrameType::Batch, &body);
        versus.settle();
        versus.assert_closed(CloseCode::Protocol);
        assert_eq!(versus.side.fault, Some(LinkError::from(PeerMisbehaved::ForeignBatch).into()));
    }
}

#[test]
fn a_batch_that_we_sent_comes_to_nothing_when_it_is_reflected() {
    let mut versus = up();
    versus.side.cast("b", "e1", &term::text("x")).unwrap();
    versus.settle();
    let body = versus.peer.frames.iter().find(|frame| frame.kind == FrameType::Batch as u8).unwrap().body.clone();
    versus.peer.write_frame(FrameType::Batch, &body);
    versus.settle();
    assert_eq!(versus.side.take_events().len(), 1, "the fault alone");
    versus.assert_closed(CloseCode::Protocol);
}

/// A dropped batch each `apart_ms`; how many it took to have the link closed.
fn failures_until_closed(apart_ms: u64, at_most: usize) -> Option<usize> {
    let mut versus = up();
    for number in 1..=at_most {
        let body = changed(&mut versus, "e1", "e2", |_| {});
        versus.peer.write_frame(FrameType::Batch, &body);
        versus.settle();
        if versus.side.is_over() {
            versus.assert_closed(CloseCode::Abuse);
            return Some(number);
        }
        // Time goes on under a peer that is not silent.
        versus.now += apart_ms;
    }
    None
}

#[test]
fn ten_failures_within_sixty_seconds_close_the_link_nine_do_not() {
    assert_eq!(failures_until_closed(0, 9), None);
    assert_eq!(failures_until_closed(0, 10), Some(10));
    assert_eq!(failures_until_closed(6_000, 10), Some(10), "the tenth after 54 s");
}

#[test]
fn ten_failures_over_more_than_sixty_seconds_do_not_close_the_link() {
    assert_eq!(failures_until_closed(6_667, 100), None, "the tenth after 60.003 s");
    assert_eq!(failures_until_closed(6_666, 100), Some(10), "after 59.994 s");
}

#[test]
fn nine_failures_leave_a_link_that_works() {
    let mut versus = up();
    for _ in 0..9 {
        let body = changed(&mut versus, "e1", "e2", |_| {});
        assert_dropped(&mut versus, &body, "bad_signature");
    }
}

#[test]
fn failures_of_all_kinds_count_together() {
    let mut versus = up();
    let good = versus.peer.cast("e1", "b", &term::text("x"));
    versus.settle();
    for number in 0..10 {
        assert!(versus.side.is_up(), "closed after {number}");
        match number % 4 {
            0 => versus.peer.write_frame(FrameType::Batch, &good),
            1 => {
                let body = changed(&mut versus, "e1", "e2", |_| {});
                versus.peer.write_frame(FrameType::Batch, &body);
            }
            2 => {
                let mut stolen = versus.peer.learn("e9");
                stolen.realm = Realm::number(3).id();
                versus.peer.write_learn(&stolen);
            }
            _ => {
                let mut stale = versus.peer.batch("e1", casts(&["x"]));
                versus.peer.next_sequence -= 1;
                stale.session[0] ^= 1;
                let body = versus.peer.sealed(&stale, "e1");
                versus.peer.write_frame(FrameType::Batch, &body);
            }
        }
        versus.settle();
    }
    versus.assert_closed(CloseCode::Abuse);
    let counted: u64 = ["duplicate", "bad_signature", "bad_announcement", "stale_session"]
        .map(|name| versus.side.count(name))
        .iter()
        .sum();
    assert_eq!(counted, 10);
}

#[test]
fn a_gap_in_the_sequence_closes_the_link() {
    for gap in [1, 2, 1 << 40] {
        let mut versus = up();
        versus.peer.next_sequence += gap;
        versus.peer.cast("e1", "b", &term::text("x"));
        versus.settle();
        versus.assert_closed(CloseCode::Protocol);
        assert!(!versus.side.events.iter().any(|event| matches!(event, Seen::Deliver { .. })));
    }
}

#[test]
fn the_numbers_of_a_dropped_batch_are_used_up_and_acknowledged() {
    let mut versus = up();
    let batch = versus.peer.batch("e1", vec![RawMessage::cast("b", &term::text("x")); 300]);
    let body = versus.peer.sealed(&batch, "e2");
    versus.peer.write_frame(FrameType::Batch, &body);
    versus.settle();
    versus.assert_alive();
    versus.assert_alive();
    assert!(versus.peer.acks().iter().any(|ack| *ack >= 300));
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_closes_the_link() {
    let mut versus = up();
    versus.side.cast("b", "e1", &term::text("x")).unwrap();
    versus.settle();
    // Its CERT, its LEARN, and the message.
    for good in [0, 1, 3, 0] {
        versus.peer.write_frame(FrameType::Ack, &u64::to_le_bytes(good));
        versus.settle();
        assert!(versus.side.is_up());
    }
    assert_eq!(versus.side.count("acknowledged"), 3);
    versus.peer.write_frame(FrameType::Ack, &u64::to_le_bytes(4));
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);
}

#[test]
fn no_disguise_gets_through_as_a_message_and_each_is_counted() {
    let mut versus = up();
    let disguises = term::disguises();
    for (number, (name, payload)) in disguises.iter().enumerate() {
        versus.peer.send("e1", vec![RawMessage::send("b", payload)]);
        versus.settle();
        assert_eq!(versus.side.take_payloads(), Vec::<Vec<u8>>::new(), "{name}");
        assert_eq!(versus.side.count("disguised"), number as u64 + 1, "{name}");
    }
    // As a cast it is wrapped, and harmless.
    versus.peer.send("e1", vec![RawMessage::cast("b", &disguises[0].1)]);
    versus.settle();
    assert_eq!(versus.side.take_payloads().len(), 1);
    versus.assert_alive();
}

#[test]
fn a_disguise_among_messages_takes_no_other_with_it() {
    let mut versus = up();
    let bad = term::payload(&term::tuple(&[term::atom("system"), term::small(1), term::small(2)]));
    let messages = vec![
        RawMessage::send("b", &term::text("1")),
        RawMessage::send("b", &bad),
        RawMessage::send("b", &term::text("2")),
    ];
    versus.peer.send("e1", messages);
    versus.settle();
    assert_eq!(versus.side.take_payloads(), [term::text("1"), term::text("2")]);
}

#[test]
fn identifiers_never_arrive_and_a_caller_is_told() {
    let node = "evil@example.org";
    let fun = [vec![112, 0, 0, 0, 30, 0], vec![7; 40]].concat();
    let identifiers = [
        term::pid(node, 99_999),
        term::reference(node, 1),
        term::port(node, 1),
        term::export("erlang", "halt", 0),
        fun,
        term::list(&[term::small(1), term::tuple(&[term::pid(node, 1)])], &[106]),
    ];
    let mut versus = up();
    for (number, element) in identifiers.iter().enumerate() {
        let (payload, call_id) = (term::payload(element), number as u64 + 1);
        let messages = vec![
            RawMessage::cast("b", &payload),
            RawMessage::send("b", &payload),
            RawMessage::call("b", call_id, 1, &payload),
        ];
        versus.peer.send("e1", messages);
        versus.settle();
        assert_eq!(versus.side.take_events(), [], "{element:?}");
        assert_eq!(versus.side.count("identifiers"), 3 * call_id);
        assert_eq!(versus.peer.refusals().last(), Some(&(call_id, 7)));
    }
    assert_eq!(versus.side.count("calls_served"), 0);
    versus.assert_alive();
}

#[test]
fn terms_that_are_none_are_dropped_and_a_caller_is_told() {
    let deep = [vec![131], [104, 1].repeat(257), vec![106]].concat();
    let bad: Vec<Vec<u8>> = vec![
        vec![],
        vec![131],
        vec![130, 106],
        deep,
        [vec![131], [104, 1].repeat(200_000), vec![106]].concat(),
        vec![131, 108, 255, 255, 255, 255],
        vec![131, 108, 0, 0, 0, 0, 106],
        vec![131, 105, 255, 255, 255, 255],
        vec![131, 116, 127, 255, 255, 255],
        vec![131, 109, 255, 255, 255, 255, 1],
        vec![131, 80, 0, 1, 0, 0, 0x78, 0x9c, 0x4b],
        vec![131, 82, 0],
        vec![131, 99, 0],
        vec![131, 121, 0],
        vec![131, 106, 106],
        vec![131, 119, 5, b'a'],
        vec![131, 118, 1, 0, b'a'],
        vec![131, 119, 1, 0xff],
        vec![131, 111, 0, 1, 0, 1, 0],
    ];
    let mut versus = up();
    for (number, payload) in bad.iter().enumerate() {
        let call_id = number as u64 + 1;
        versus.peer.send("e1", vec![RawMessage::send("b", payload), RawMessage::call("b", call_id, 1, payload)]);
        versus.settle();
        assert_eq!(versus.side.take_events(), [], "{:?}", &payload[..payload.len().min(10)]);
        assert_eq!(versus.side.count("bad_term"), 2 * call_id);
        assert_eq!(versus.peer.refusals().last(), Some(&(call_id, 3)));
    }
    versus.assert_alive();
}

#[test]
fn an_engine_can_t_answer_a_call_that_was_made_to_another() {
    let mut versus = up();
    let now = versus.now;
    let call = versus.side.call(now, "e1", b"p", b"c", &term::text("x")).unwrap();
    versus.settle();
    versus.peer.send("e2", vec![RawMessage::reply(call.call_id, &term::text("forged"))]);
    versus.peer.send("e2", vec![RawMessage::error(call.call_id, 1)]);
    versus.settle();
    assert_eq!((versus.side.take_events().len(), versus.side.count("foreign_reply")), (0, 2));

    versus.peer.send("e1", vec![RawMessage::reply(call.call_id, &term::text("real"))]);
    versus.settle();
    assert_eq!(versus.side.take_events(), [Seen::Reply { context: b"c".to_vec(), payload: term::text("real") }]);
    versus.assert_alive();
}

#[test]
fn answers_to_calls_that_nobody_made_are_late() {
    let mut versus = up();
    versus.peer.send("e1", vec![RawMessage::reply(1, &term::text("x")), RawMessage::error(u64::MAX, 1)]);
    versus.settle();
    assert_eq!((versus.side.take_events().len(), versus.side.count("late_reply")), (0, 2));

    let now = versus.now;
    let call = versus.side.call(now, "e1", b"p", b"c", &term::text("x")).unwrap();
    versus.settle();
    let again =
        vec![RawMessage::reply(call.call_id, &term::text("1")), RawMessage::reply(call.call_id, &term::text("2"))];
    versus.peer.send("e1", again);
    versus.settle();
    assert_eq!(versus.side.take_events(), [Seen::Reply { context: b"c".to_vec(), payload: term::text("1") }]);
    assert_eq!(versus.side.count("late_reply"), 3);
    versus.assert_alive();
}

#[test]
fn an_answer_that_is_no_term_is_a_refusal() {
    for (payload, reason) in [(vec![131], "undecodable"), (term::payload(&term::pid("n@h", 1)), "identifiers")] {
        let mut versus = up();
        let now = versus.now;
        let call = versus.side.call(now, "e1", b"p", b"c", &term::text("x")).unwrap();
        versus.settle();
        versus.peer.send("e1", vec![RawMessage::reply(call.call_id, &payload)]);
        versus.settle();
        let events = versus.side.take_events();
        assert!(matches!(&events[..], [Seen::Refused { refusal, .. }] if refusal.name() == reason), "{events:?}");
    }
}

#[test]
fn a_call_id_in_use_is_not_served_a_second_time() {
    let mut versus = up();
    let call = |text| RawMessage::call("b", 5, 1, &term::text(text));
    versus.peer.send("e1", vec![call("first"), call("second")]);
    versus.settle();
    let events = versus.side.take_events();
    let [Seen::Call { call_id, payload, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((payload, versus.side.count("duplicate_call")), (&term::text("first"), 1));
    versus.side.reply(*call_id, &term::text("answer")).unwrap();
    versus.settle();
    assert!(matches!(&versus.peer.got()[..], [got] if got.call_id == 5));
    versus.assert_alive();
}

#[test]
fn labels_that_nobody_has_are_forbidden() {
    let mut versus = up();
    for (call_id, label) in [(1, 0), (2, 3), (3, 7), (4, 255)] {
        versus
            .peer
            .send("e1", vec![RawMessage { detail: label, ..RawMessage::call("b", call_id, 1, &term::text("x")) }]);
        versus.settle();
        assert_eq!(versus.side.take_events(), []);
        assert_eq!(versus.peer.refusals().last(), Some(&(call_id, 1)));
    }
    for (call_id, label) in [(11, 1), (12, 2), (14, 4), (15, 5), (16, 6)] {
        versus
            .peer
            .send("e1", vec![RawMessage { detail: label, ..RawMessage::call("b", call_id, 1, &term::text("x")) }]);
        versus.settle();
        assert!(matches!(versus.side.take_events()[..], [Seen::Call { label: seen, .. }] if seen == label));
    }
}

#[test]
fn a_disguise_gets_no_further_for_being_asked_after() {
    let mut versus = up();
    let disguised = term::payload(&term::tuple(&[term::atom("system"), term::small(1), term::small(2)]));
    let message = RawMessage { detail: 6, ..RawMessage::call("b", 1, 1, &disguised) };
    versus.peer.send("e1", vec![message]);
    versus.settle();
    assert_eq!(versus.side.take_events(), []);
    assert_eq!(versus.peer.refusals(), [(1, 1)]);
    assert_eq!(versus.side.count("disguised"), 1);
}

#[test]
fn unknown_kinds_use_up_their_number_and_are_counted() {
    let mut versus = up();
    for kind in [0, 7, 8, 9, 10, 12, 13, 15] {
        versus.peer.send("e1", vec![RawMessage { kind, call_id: 7, detail: 9, ..RawMessage::cast("", &[1, 2]) }]);
    }
    versus.settle();
    assert_eq!((versus.side.count("unknown_kind"), versus.side.take_events().len()), (8, 0));
    // An exit of a kind that is not known is none, and its process is given back.
    let exit = RawMessage { kind: kind::EXIT, caller: 5, detail: 3, ..RawMessage::send("b", &term::text("x")) };
    versus.peer.send("e1", vec![exit]);
    versus.settle();
    assert_eq!((versus.side.count("unknown_kind"), versus.side.take_events().len()), (9, 0));
    versus.assert_alive();
}

#[test]
fn a_release_of_what_nobody_has_does_nothing() {
    let mut versus = up();
    let entry = |what: u8, rest: &[u8]| [&[what], &77u64.to_le_bytes()[..], rest].concat();
    let count = 5u64.to_le_bytes();
    let body = [vec![4, 0], entry(1, &[1]), entry(2, &[]), entry(3, &count), entry(4, &count)].concat();
    versus.peer.write_frame(FrameType::HandleRelease, &body);
    versus.settle();
    assert_eq!(versus.side.take_events(), [Seen::HandleEnded { number: 77, reason: ForgetReason::Normal }]);
    versus.assert_alive();
}

#[test]
fn a_release_ends_the_callers_calls_and_is_no_more_when_it_comes_twice() {
    let mut versus = up();
    versus.peer.send("e1", vec![RawMessage::call("b", 1, 9, &term::text("x"))]);
    versus.settle();
    versus.side.events.clear();
    let body = [&[2, 0, 1][..], &9u64.to_le_bytes(), &[4, 1], &9u64.to_le_bytes(), &[1]].concat();
    versus.peer.write_frame(FrameType::HandleRelease, &body);
    versus.settle();
    let ended = |reason| Seen::HandleEnded { number: 9, reason };
    assert_eq!(versus.side.take_events(), [ended(ForgetReason::Crashed), ended(ForgetReason::Normal)]);
    assert!(versus.side.reply(1, &term::text("late")).is_err());
}

// Announcements.

#[test]
fn only_the_realm_that_owns_a_name_can_announce_it() {
    let mut versus = up();
    let mut stolen = versus.peer.learn("c");
    stolen.realm = Realm::number(3).id();
    versus.peer.write_learn(&stolen);
    // Carol's own, signed by her, on alice's link.
    let carol = Realm::number(3).keyring;
    let mut body = stolen.body();
    body.extend(carol.sign(Purpose::Learn, &versus.peer.network.id(), &stolen.body()).unwrap());
    versus.peer.write_frame(FrameType::Learn, &body);
    // Alice's name, not signed by alice.
    let learn = versus.peer.learn("d");
    let mut body = learn.body();
    body.extend(carol.sign(Purpose::Learn, &versus.peer.network.id(), &learn.body()).unwrap());
    versus.peer.write_frame(FrameType::Learn, &body);
    // The same for FORGET and CERT.
    let mut forget = versus.peer.forget("e1");
    forget.realm = Realm::number(3).id();
    versus.peer.write_forget(&forget);
    let forget = versus.peer.forget("e1");
    let mut body = forget.body();
    body.extend([7; 64]);
    versus.peer.write_frame(FrameType::Forget, &body);
    let mut cert = versus.peer.cert();
    cert.realm = Realm::number(3).id();
    versus.peer.write_cert(&cert);
    versus.settle();
    assert_eq!(versus.side.take_events(), []);
    assert_eq!(versus.side.count("bad_announcement"), 6);
    versus.assert_alive();
}

#[test]
fn a_stale_announcement_changes_nothing() {
    let mut versus = up();
    let first = versus.peer.learn("x");
    let second = versus.peer.learn("x");
    versus.peer.write_learn(&second);
    versus.settle();
    assert_eq!(versus.side.take_events().len(), 1);
    for old in [&second, &first] {
        versus.peer.write_learn(old);
    }
    versus.settle();
    assert_eq!((versus.side.take_events(), versus.side.count("stale_announcement")), (vec![], 2));
    versus.assert_alive();
}

#[test]
fn a_learn_from_before_a_forget_does_not_bring_the_engine_back() {
    let mut versus = up();
    let learn = versus.peer.learn("x");
    versus.peer.write_learn(&learn);
    let forget = versus.peer.forget("x");
    versus.peer.write_forget(&forget);
    versus.settle();
    assert_eq!(versus.side.take_events().len(), 2);
    versus.peer.write_learn(&learn);
    versus.peer.write_forget(&forget);
    versus.settle();
    assert_eq!((versus.side.take_events(), versus.side.count("stale_announcement")), (vec![], 2));
    // A newer one does.
    let newer = versus.peer.learn("x");
    versus.peer.write_learn(&newer);
    versus.settle();
    assert_eq!(versus.side.take_events(), [Seen::Learned(newer)]);
}

#[test]
fn old_learns_stay_dead_when_more_is_forgotten_than_is_remembered() {
    let limits = Limits { engines_max: 4, ..Limits::default() };
    let mut versus = Versus::up_with(RawPeerConfig::dialling(Profile::Local), limits);
    let old = versus.peer.learn("x");
    for number in 0..20 {
        let forget = versus.peer.forget(if number == 0 { "x".into() } else { format!("n{number}") }.as_str());
        versus.peer.write_forget(&forget);
    }
    versus.peer.write_learn(&old);
    versus.settle();
    assert_eq!((versus.side.take_events(), versus.side.count("stale_announcement")), (vec![], 1));
    assert_eq!(versus.side.count("unknown_forget"), 20);
    let new = versus.peer.learn("x");
    versus.peer.write_learn(&new);
    versus.settle();
    assert_eq!(versus.side.take_events(), [Seen::Learned(new)]);
}

#[test]
fn announcements_out_of_their_validity_are_stale() {
    for (not_before, not_after, good) in [
        (0, 0, true),
        (START + 30_000, 0, true),
        (START + 30_001, 0, false),
        (0, START - 30_000, true),
        (0, START - 30_001, false),
    ] {
        let mut versus = up();
        let mut learn = versus.peer.learn("x");
        (learn.not_before, learn.not_after) = (not_before, not_after);
        versus.peer.write_learn(&learn);
        versus.settle();
        assert_eq!(versus.side.take_events().len(), usize::from(good));
        assert_eq!(versus.side.count("stale_announcement"), u64::from(!good));
    }
}

#[test]
fn an_online_key_for_longer_than_a_day_is_refused() {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    for (length, good) in [(DAY, true), (DAY + 1, false), (0, false)] {
        let mut versus = Versus::dialling(RawPeerConfig::dialling(Profile::Local), Limits::default());
        versus.settle();
        let mut cert = versus.peer.cert();
        cert.not_after = if length == 0 { 0 } else { cert.not_before + length };
        versus.peer.write_cert(&cert);
        versus.peer.send("", casts(&["x"]));
        versus.settle();
        assert_eq!(versus.side.take_payloads().len(), usize::from(good), "{length} ms");
        assert_eq!(versus.side.count("bad_announcement"), u64::from(!good));
    }
}

#[test]
fn a_weak_engine_key_signs_nothing_though_a_lax_verifier_would_take_it() {
    let mut versus = up();
    let mut learn = versus.peer.learn("x");
    // The identity element: with R the same and S zero, the equation holds for every message.
    learn.key = [0; 32];
    learn.key[0] = 1;
    versus.peer.write_learn(&learn);
    versus.settle();
    let batch = versus.peer.batch("x", casts(&["forged"]));
    let body = [&batch.body()[..], &learn.key, &[0; 32]].concat();
    assert_dropped(&mut versus, &body, "bad_signature");
}

#[test]
fn a_key_that_was_replaced_signs_nothing_any_more() {
    let mut versus = up();
    let mut learn = versus.peer.learn("e1");
    learn.key = versus.peer.realm.keyring.engine_public("another");
    versus.peer.write_learn(&learn);
    versus.settle();
    let old = versus.peer.batch("e1", casts(&["old"]));
    let body = versus.peer.sealed(&old, "e1");
    versus.peer.write_frame(FrameType::Batch, &body);
    let new = versus.peer.batch("e1", casts(&["new"]));
    let body = versus.peer.sealed(&new, "another");
    versus.peer.write_frame(FrameType::Batch, &body);
    versus.settle();
    assert_eq!(versus.side.take_payloads(), [term::text("new")]);
}

#[test]
fn an_aligned_batch_by_hand_is_read_and_its_gaps_must_be_zero() {
    let mut versus = up();
    let aligned = RawMessage { flags: ALIGNED, ..RawMessage::cast("b", &term::text("aligned")) };
    versus.peer.send("e1", vec![aligned.clone(), RawMessage::cast("b", &term::text("next"))]);
    versus.settle();
    assert_eq!(versus.side.take_payloads(), [term::text("aligned"), term::text("next")]);

    let batch = versus.peer.batch("e1", vec![aligned]);
    let mut body = batch.body();
    let last = body.len() - 1;
    body[last] = 1;
    body.extend(versus.peer.realm.keyring.sign_batch("e1", &versus.peer.network.id(), &body.clone()));
    versus.peer.write_frame(FrameType::Batch, &body);
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);
}
