//! What two honest realms have of a session: messages, order, group commit, heartbeat, the end.

use std::collections::HashMap;

use legation_channel::channel::Profile;
use legation_channel::link::LinkEvent;
use legation_proto::error::CloseCode;
use legation_proto::frame::batch::{kind, Refusal};
use legation_proto::frame::forget::ForgetReason;
use legation_proto::frame::FrameType;
use legation_proto::limits::{Limits, RECEIPT_BYTES_MAX};
use legation_proto::receipt;
use legation_proto::session::{Delivery, Event, NewCall, PushError, Rest, Slice};
use proptest::prelude::*;
use rust_tests::pair::{End, Pair, PairConfig, Seen, PROFILES};
use rust_tests::raw_peer::Versus;
use rust_tests::realm::{network, Realm};
use rust_tests::term;

fn up(profile: Profile) -> Pair {
    Pair::up(PairConfig::of(profile))
}

/// Nobody needs credit.
fn up_without_credit(profile: Profile) -> Pair {
    let limits = Limits { credit_bytes: 0, ..Limits::default() };
    Pair::up(PairConfig { limits: [limits.clone(), limits], ..PairConfig::of(profile) })
}

fn calls(events: Vec<Seen>) -> Vec<(u64, u64, Vec<u8>)> {
    let call = |event| match event {
        Seen::Call { call_id, caller, payload, .. } => Some((call_id, caller, payload)),
        _ => None,
    };
    events.into_iter().filter_map(call).collect()
}

#[test]
fn casts_and_messages_arrive_signed_by_their_engine() {
    for profile in PROFILES {
        let mut pair = up(profile);
        pair.alice.cast("a", "b", &term::text("cast")).unwrap();
        pair.alice.send("a", "b", &term::text("message")).unwrap();
        pair.settle();
        let deliver = |delivery, text| Seen::Deliver {
            delivery,
            destination: "b".into(),
            source: "a".into(),
            payload: term::text(text),
            receipt: None,
        };
        assert_eq!(pair.bob.take_events(), [deliver(Delivery::Cast, "cast"), deliver(Delivery::Send, "message")]);
    }
}

#[test]
fn what_an_engine_says_that_was_not_announced_is_said_by_the_realm() {
    let mut pair = up(Profile::Plain);
    pair.alice.cast("secret", "b", &term::text("x")).unwrap();
    pair.settle();
    assert!(matches!(&pair.bob.take_events()[..], [Seen::Deliver { source, .. }] if source.is_empty()));
}

#[test]
fn calls_are_answered_and_refused_both_ways() {
    for profile in PROFILES {
        let mut pair = up(profile);
        for end in End::BOTH {
            let (now, engine) = (pair.now, if end == End::Alice { "b" } else { "a" });
            for (context, payload) in [("one", "1"), ("two", "2")] {
                pair[end].call(now, engine, b"pid", context.as_bytes(), &term::text(payload)).unwrap();
            }
            pair.settle();
            let got = calls(pair[end.other()].take_events());
            assert_eq!(got.len(), 2);
            assert_eq!(got[0].1, got[1].1, "one caller");
            pair[end.other()].refuse(got[0].0, Refusal::Filtered);
            pair[end.other()].reply(got[1].0, &term::text("done")).unwrap();
            pair.settle();
            let answers = pair[end].take_events();
            assert!(answers.contains(&Seen::Refused { context: b"one".to_vec(), refusal: Refusal::Filtered }));
            assert!(answers.contains(&Seen::Reply { context: b"two".to_vec(), payload: term::text("done") }));
            assert_eq!((pair[end].count("calls_pending"), pair[end.other()].count("calls_served")), (0, 0));
        }
    }
}

#[test]
fn a_refused_call_no_longer_counts_as_being_served() {
    let mut pair = up(Profile::Plain);
    let now = pair.now;
    pair.alice.call(now, "b", b"pid", b"", &term::text("x")).unwrap();
    pair.settle();
    assert_eq!(pair.bob.count("calls_served"), 1);
    let (call_id, ..) = calls(pair.bob.take_events())[0];
    pair.bob.refuse(call_id, Refusal::Forbidden);
    assert_eq!(pair.bob.count("calls_served"), 0);
}

#[test]
fn every_reason_of_a_refusal_arrives_as_it_was_given() {
    let mut pair = up(Profile::Plain);
    for reason in Refusal::ALL {
        let now = pair.now;
        pair.alice.call(now, "b", b"pid", b"c", &term::text("x")).unwrap();
        pair.settle();
        let (call_id, ..) = calls(pair.bob.take_events())[0];
        pair.bob.refuse(call_id, reason);
        pair.settle();
        assert_eq!(pair.alice.take_events(), [Seen::Refused { context: b"c".to_vec(), refusal: reason }]);
    }
}

#[test]
fn ten_thousand_calls_in_flight_are_all_answered_and_none_is_crossed() {
    for profile in [Profile::Tls, Profile::Plain] {
        let mut pair = up(profile);
        let now = pair.now;
        for number in 0..10_000u32 {
            let caller = (number % 100).to_le_bytes();
            pair.alice.call(now, "b", &caller, &number.to_le_bytes(), &term::number(number)).unwrap();
        }
        pair.settle();
        let mut got = calls(pair.bob.take_events());
        assert_eq!(got.len(), 10_000);
        // Answered in another order than they came.
        got.sort_by_key(|(call_id, ..)| call_id.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for (call_id, _, payload) in got {
            let number = u32::from_be_bytes(payload[2..].try_into().unwrap());
            pair.bob.reply(call_id, &term::number(number + 1_000_000)).unwrap();
        }
        pair.settle();
        let mut answers = HashMap::new();
        for event in pair.alice.take_events() {
            let Seen::Reply { context, payload } = event else { panic!("{event:?}") };
            let context = u32::from_le_bytes(context.try_into().unwrap());
            assert!(answers.insert(context, payload).is_none(), "answered twice");
        }
        assert_eq!(answers.len(), 10_000);
        assert!(answers.iter().all(|(context, payload)| *payload == term::number(context + 1_000_000)));
        assert_eq!(pair.alice.count("calls_pending"), 0);
    }
}

#[test]
fn a_lone_message_goes_at_once_and_many_share_one_signature() {
    let mut pair = up_without_credit(Profile::Plain);
    let signed = pair.alice.count("signed");
    pair.alice.cast("a", "b", &term::text("lone")).unwrap();
    assert!(pair.alice.will_flush(), "the first push wakes");
    pair.settle();
    assert_eq!(pair.bob.take_payloads(), [term::text("lone")]);
    assert_eq!(pair.alice.count("signed"), signed + 1);

    for number in 0..4_096 {
        pair.alice.cast("a", "b", &term::number(number)).unwrap();
    }
    pair.settle();
    assert_eq!(pair.alice.count("signed"), signed + 2, "one for all 4,096");
    assert_eq!(pair.bob.take_payloads().len(), 4_096);

    for number in 0..4_097 {
        pair.alice.cast("a", "b", &term::number(number)).unwrap();
    }
    pair.settle();
    assert_eq!(pair.alice.count("signed"), signed + 4, "one more than a batch holds");
    assert_eq!(pair.bob.take_payloads().len(), 4_097);
}

#[test]
fn a_push_wakes_the_writer_once_until_it_has_flushed() {
    let pair = up(Profile::Plain);
    let session = pair.alice.session();
    let push = || session.push(Delivery::Cast, "a", "b", &term::text("x"), false).unwrap().wake;
    assert!(push());
    assert!(!push());
    let mut out = Vec::new();
    assert!(!pair.alice.link.flush(&mut out).unwrap());
    assert!(!out.is_empty());
    assert!(push(), "it has settled");
}

#[test]
fn a_batch_of_several_messages_stops_at_its_target_and_nothing_is_lost() {
    let mut pair = up_without_credit(Profile::Tls);
    let payload = term::of_size(30_000);
    for _ in 0..100 {
        pair.alice.cast("a", "b", &payload).unwrap();
    }
    let before = pair.alice.count("batches_out");
    pair.settle();
    assert_eq!(pair.bob.take_payloads(), vec![payload; 100]);
    // 8 of 30,000 bytes fit 256 KiB, and 17 or 18 the 512 KiB of a flush.
    let batches = pair.alice.count("batches_out") - before;
    assert!((100u64.div_ceil(8)..=100u64.div_ceil(17) * 3).contains(&batches), "{batches}");
}

#[test]
fn a_message_pushed_after_an_announcement_is_its_engines() {
    let mut pair = up(Profile::Plain);
    pair.alice.cast("late", "b", &term::text("before")).unwrap();
    pair.alice.export("late");
    pair.alice.cast("late", "b", &term::text("after")).unwrap();
    pair.alice.withdraw("late", ForgetReason::Normal);
    pair.alice.cast("late", "b", &term::text("gone")).unwrap();
    pair.settle();
    let said: Vec<String> = pair
        .bob
        .take_events()
        .into_iter()
        .map(|event| match event {
            Seen::Deliver { source, .. } => source,
            Seen::Learned(learn) => format!("+{}", learn.engine),
            Seen::Forgotten { engine, reason } => format!("-{engine} {}", reason.name()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(said, ["", "+late", "late", "-late normal", ""]);
}

#[test]
fn a_caller_that_ends_is_told_and_its_calls_are_given_up() {
    let mut pair = up(Profile::Plain);
    let now = pair.now;
    let first = pair.alice.call(now, "b", b"pid 1", b"1", &term::text("x")).unwrap();
    let second = pair.alice.call(now, "b", b"pid 1", b"2", &term::text("x")).unwrap();
    let other = pair.alice.call(now, "b", b"pid 2", b"3", &term::text("x")).unwrap();
    let [exported] = &first.exported[..] else { panic!("one caller") };
    let caller = exported.number;
    assert_eq!(*exported.pid, *b"pid 1");
    assert!(second.exported.is_empty() && other.exported.len() == 1);
    pair.settle();
    let got = calls(pair.bob.take_events());
    let pushed = pair.alice.session().export_ended(caller, ForgetReason::Crashed, None);
    pair.alice.pushed(pushed);
    pair.settle();
    assert_eq!(pair.bob.take_events(), [Seen::HandleEnded { number: caller, reason: ForgetReason::Crashed }]);
    assert_eq!(pair.bob.count("calls_served"), 1);
    assert_eq!(pair.bob.reply(got[0].0, &term::text("late")), Err(PushError::UnknownCall));
    pair.bob.reply(got[2].0, &term::text("in time")).unwrap();
    pair.settle();
    assert_eq!(pair.alice.take_events(), [Seen::Reply { context: b"3".to_vec(), payload: term::text("in time") }]);
    assert_eq!(pair.alice.count("calls_pending"), 0);
    // The same process again is a new caller.
    let again = pair.alice.call(now, "b", b"pid 1", b"4", &term::text("x")).unwrap();
    assert!(again.exported.len() == 1 && again.exported[0].number != caller);
}

#[test]
fn a_cancelled_call_is_given_up_on_both_sides() {
    let mut pair = up(Profile::Plain);
    let now = pair.now;
    let call = pair.alice.call(now, "b", b"pid", b"1", &term::text("x")).unwrap();
    pair.settle();
    let wake = pair.alice.session().cancel(call.call_id);
    pair.alice.woken(wake);
    assert!(!pair.alice.session().cancel(call.call_id), "once");
    pair.settle();
    assert_eq!((pair.alice.count("calls_pending"), pair.bob.count("calls_served")), (0, 0));
    assert_eq!(pair.bob.reply(call.call_id, &term::text("late")), Err(PushError::UnknownCall));
}

#[test]
fn a_reply_that_crosses_a_cancellation_is_late_and_counted() {
    let mut pair = up(Profile::Plain);
    let now = pair.now;
    let call = pair.alice.call(now, "b", b"pid", b"1", &term::text("x")).unwrap();
    pair.settle();
    pair.bob.reply(call.call_id, &term::text("late")).unwrap();
    let wake = pair.alice.session().cancel(call.call_id);
    pair.alice.woken(wake);
    pair.alice.events.clear();
    pair.settle();
    assert!(pair.alice.take_events().is_empty());
    assert_eq!(pair.alice.count("late_reply"), 1);
}

#[test]
fn calls_of_an_age_are_found_by_the_sweep() {
    let mut pair = up(Profile::Plain);
    let start = pair.now;
    pair.alice.call(start, "b", b"pid", b"old", &term::text("x")).unwrap();
    pair.alice.call(start + 500, "b", b"pid", b"new", &term::text("x")).unwrap();
    let mut found = Vec::new();
    pair.alice.session().sweep(start + 1_000, 1_000, |_, pending| found.push(pending.context.to_vec()));
    assert_eq!(found, [b"old".to_vec()]);
    let mut all = 0;
    pair.alice.session().sweep(start + 500, 0, |_, _| all += 1);
    assert_eq!(all, 2);
}

#[test]
fn what_would_have_to_wait_for_another_thread_leaves_nothing_behind_and_goes_in_its_turn_when_it_may() {
    let mut pair = up(Profile::Tls);
    let now = pair.now;
    pair.alice.call(now, "b", b"pid", b"1", &term::text("first")).unwrap();
    pair.bob.call(now, "a", b"pid", b"1", &term::text("first")).unwrap();
    pair.settle();
    let [(call_id, ..)] = calls(pair.bob.take_events())[..] else { panic!("one call") };
    pair.alice.take_events();

    let (alice, bob, second) = (pair.alice.session(), pair.bob.session(), term::text("second"));
    let call = NewCall { destination: "b", label: 1, source: "", caller: b"pid", context: b"2", payload: &second };
    // Whoever looks at the calls has their lock meanwhile.
    let mut looked = 0;
    alice.sweep(now, 0, |_, _| {
        looked += 1;
        assert_eq!(alice.push_call_soon(now, &call), Err(PushError::Busy));
        let cast = alice.push_soon(Delivery::Cast, "", "b", &second);
        assert!(cast.is_ok(), "for this the queue is enough");
    });
    bob.sweep(now, 0, |_, _| {
        looked += 1;
        assert_eq!(bob.reply_soon(call_id, &second), Err(PushError::Busy));
    });
    assert_eq!((looked, pair.alice.count("calls_pending"), pair.bob.count("calls_served")), (2, 1, 1));

    let pushed = alice.push_call_soon(now, &call).unwrap();
    assert!(pushed.exported.is_empty(), "the caller is known from the first call");
    pair.alice.woken(true);
    pair.bob.pushed(bob.reply_soon(call_id, &second).unwrap());
    pair.settle();
    assert_eq!(pair.alice.take_events(), [Seen::Reply { context: b"1".to_vec(), payload: second.clone() }]);
    let events = pair.bob.take_events();
    assert!(
        matches!(&events[..], [Seen::Deliver { .. }, Seen::Call { payload, .. }] if *payload == second),
        "{events:?}"
    );
}

#[test]
fn calls_to_an_engine_that_is_forgotten_are_no_longer_in_flight() {
    let mut pair = up(Profile::Plain);
    let now = pair.now;
    pair.alice.call(now, "b", b"pid", b"1", &term::text("x")).unwrap();
    pair.settle();
    pair.bob.withdraw("b", ForgetReason::Crashed);
    pair.settle();
    assert_eq!(pair.alice.take_events(), [Seen::Forgotten { engine: "b".into(), reason: ForgetReason::Crashed }]);
    assert_eq!(pair.alice.count("calls_pending"), 0);
    assert_eq!(pair.bob.count("calls_served"), 0, "nobody waits for their answers any more");
}

#[test]
fn silence_is_met_with_a_ping_and_an_answer_keeps_the_link() {
    for profile in PROFILES {
        let mut pair = up(profile);
        let sent = pair.alice.sent.len();
        pair.advance(10_000);
        assert_eq!(pair.alice.sent.len(), sent, "nothing before its time");
        pair.advance(200_000);
        assert!(pair.alice.is_up() && pair.bob.is_up());
        assert!(pair.alice.sent.len() > sent);
        assert_eq!(pair.alice.count("rtt_ms").max(pair.bob.count("rtt_ms")), 2 * pair.latency_ms);
    }
}

#[test]
fn a_peer_that_is_silent_for_thirty_seconds_is_given_up() {
    let mut pair = up(Profile::Plain);
    let since = pair.now;
    pair.tamper = Some(Box::new(|end, bytes| {
        if end == End::Bob {
            bytes.clear()
        }
    }));
    pair.advance(29_900);
    assert!(pair.alice.is_up());
    pair.advance(200);
    assert_eq!(pair.alice.fault_code(), Some(CloseCode::Timeout), "{} ms", pair.now - since);
    assert_eq!(pair.bob.told().unwrap().0, CloseCode::Timeout);
}

#[test]
fn a_ping_is_answered_with_its_own_bytes() {
    let mut versus = Versus::up(Profile::Plain);
    versus.peer.ping(0x0123_4567_89ab_cdef);
    versus.settle();
    assert_eq!(versus.peer.pongs(), [0x0123_4567_89ab_cdef]);
}

#[test]
fn close_is_the_last_frame_behind_all_that_waited() {
    let mut versus = Versus::up(Profile::Plain);
    versus.side.cast("b", "e1", &term::text("first")).unwrap();
    versus.side.close(CloseCode::Shutdown, "good night");
    versus.side.cast("b", "e1", &term::text("second")).unwrap();
    versus.settle();
    let told = versus.peer.told().unwrap();
    assert_eq!((told.code, told.text.as_str()), (CloseCode::Shutdown, "good night"));
    assert_eq!(versus.peer.frames.last().unwrap().kind, FrameType::Close as u8);
    assert_eq!(versus.peer.got().len(), 2);
    let frames = versus.peer.frames.len();
    let _ = versus.side.cast("b", "e1", &term::text("third"));
    versus.side.woken(true);
    versus.settle();
    assert_eq!(versus.peer.frames.len(), frames);
}

#[test]
fn nothing_that_comes_behind_a_close_is_looked_at() {
    let mut versus = Versus::up(Profile::Plain);
    versus.peer.write_frame(FrameType::Close, &[0, 0, 0]);
    versus.peer.cast("e1", "b", &term::text("late"));
    versus.peer.write(&[0xff; 100]);
    versus.settle();
    assert_eq!(versus.side.take_events(), [Seen::Closed { code: CloseCode::Normal, text: String::new() }]);
}

#[test]
fn after_its_end_a_session_takes_no_more_pushes() {
    let mut pair = up(Profile::Plain);
    let now = pair.now;
    pair.alice.session().end();
    assert_eq!(pair.alice.cast("a", "b", &term::text("x")), Err(PushError::Ended));
    assert_eq!(pair.alice.call(now, "b", b"p", b"c", &term::text("x")), Err(PushError::Ended));
    assert_eq!(pair.alice.reply(1, &term::text("x")), Err(PushError::Ended));
}

#[test]
fn acknowledgements_go_out_after_256_messages_and_say_what_was_delivered() {
    let mut versus = Versus::up(Profile::Plain);
    // Three announcements came before.
    for _ in 0..252 {
        versus.peer.cast("e1", "b", &term::text("x"));
        versus.settle();
    }
    assert_eq!(versus.peer.acks(), []);
    for _ in 0..10 {
        versus.peer.cast("e1", "b", &term::text("x"));
        versus.settle();
    }
    assert_eq!(versus.peer.acks(), [256]);
    // With other frames it goes sooner.
    versus.side.cast("b", "e1", &term::text("y")).unwrap();
    versus.settle();
    assert!(matches!(versus.peer.acks()[..], [256, second] if second >= 264));
}

#[test]
fn what_a_read_has_brought_is_not_acknowledged_before_it_has_been_handed_out() {
    let mut versus = Versus::up(Profile::Plain);
    for _ in 0..300 {
        versus.peer.cast("e1", "b", &term::text("x"));
    }
    let read = versus.peer.take_out();
    versus.side.handle(versus.now, &read);
    // While the driver is still at it something else is sent.
    versus.side.cast("b", "e1", &term::text("y")).unwrap();
    let sent = versus.side.flush();
    versus.peer.receive(&sent);
    assert_eq!(versus.peer.got().len(), 1);
    // Three announcements came before.
    assert!(versus.peer.acks().iter().all(|acknowledged| *acknowledged <= 3), "{:?}", versus.peer.acks());
    assert_eq!(versus.side.take_payloads().len(), 300);
    versus.peer.cast("e1", "b", &term::text("x"));
    versus.settle();
    assert_eq!(versus.peer.acks().last(), Some(&303));
}

#[test]
fn batches_are_written_as_the_specification_says_and_each_signature_holds() {
    let mut versus = Versus::up(Profile::Plain);
    versus.side.cast("b", "e1", &term::text("cast")).unwrap();
    versus.side.send("", "e2", &term::text("message")).unwrap();
    let now = versus.now;
    let session = versus.side.session();
    let payload = term::text("call");
    let call = NewCall { destination: "e1", label: 2, source: "b", caller: b"p", context: b"c", payload: &payload };
    let pushed = session.push_call(now, &call).unwrap();
    versus.settle();
    let got = versus.peer.got();
    let by = |source: &str| got.iter().filter(|got| got.source == source).collect::<Vec<_>>();
    assert_eq!(by("b").len(), 2);
    assert_eq!((by("")[0].kind, by("")[0].destination.as_str()), (kind::SEND, "e2"));
    let call = by("b")[1];
    assert_eq!((call.kind, call.call_id, call.detail), (kind::GENCALL, pushed.call_id, 2));
    assert_ne!(call.caller, 0);
    // The answer counts as the engine's that was called, and reaches its caller.
    versus.peer.send("e1", vec![rust_tests::raw_batch::RawMessage::reply(call.call_id, &term::text("r"))]);
    versus.settle();
    assert_eq!(versus.side.take_events(), [Seen::Reply { context: b"c".to_vec(), payload: term::text("r") }]);
}

#[test]
fn what_a_slice_leaves_the_next_one_brings_in_order_and_what_never_fits_a_caller_with_time() {
    let mut pair = up_without_credit(Profile::Tls);
    let texts: Vec<Vec<u8>> = (0..500).map(|number| term::text(&number.to_string())).collect();
    let mut bytes = Vec::new();
    for text in &texts {
        pair.alice.cast("a", "b", text).unwrap();
        // A batch each.
        bytes.extend(pair.alice.flush());
    }
    let mut got = Vec::new();
    let (now, link) = (pair.now, &pair.bob.link);
    let mut handle = |input: &[u8], slice: &mut Slice| {
        link.handle_slice(now, input, slice, &mut |event| match event {
            LinkEvent::Session(Event::Deliver { payload, .. }) => got.push(payload.to_vec()),
            other => panic!("{other:?}"),
        })
    };
    // No frame fits.
    assert_eq!(handle(&bytes, &mut Slice::of_ns(1)).1, Rest::Large);
    let mut slices = 1;
    while handle(b"", &mut Slice::of_ns(200_000)).1 == Rest::More {
        slices += 1;
    }
    assert!((50..250).contains(&slices), "{slices}");
    assert_eq!(handle(b"", &mut Slice::unbounded()).1, Rest::Nothing);
    assert_eq!(got, texts);
}

#[test]
fn many_sources_in_turn_make_a_flush_no_short_work_wherever_their_messages_wait_and_one_source_with_many_messages_does()
{
    // Credit for one message.
    let limits = Limits { credit_bytes: 1, ..Limits::default() };
    let config = PairConfig { limits: [limits.clone(), limits], ..PairConfig::of(Profile::Plain) };
    let mut pair = Pair::up(config);
    let small = |pair: &Pair| pair.alice.session().next_flush_is_small();
    for _ in 0..1_000 {
        pair.alice.cast("a", "b", &term::text("x")).unwrap();
    }
    assert!(small(&pair));
    pair.alice.flush();
    for number in 0..10 {
        pair.alice.cast(&number.to_string(), "b", &term::text("x")).unwrap();
    }
    assert!(!small(&pair), "in the queue");
    pair.alice.flush();
    assert!(!small(&pair), "for credit");
}

#[test]
fn receipts_of_many_small_messages_are_bounded_and_their_messages_delivered() {
    let mut pair = up_without_credit(Profile::Local);
    pair.bob.session().make_receipts_for(["b".into()].into_iter());
    for _ in 0..8_192 {
        pair.alice.cast("a", "b", &term::text("x")).unwrap();
    }
    pair.settle();
    let receipts = pair.bob.take_events().into_iter().map(|event| match event {
        Seen::Deliver { receipt, .. } => receipt.map_or(0, |receipt| receipt.len()),
        other => panic!("{other:?}"),
    });
    let sizes: Vec<usize> = receipts.collect();
    assert_eq!(sizes.len(), 8_192);
    let bytes: usize = sizes.iter().sum();
    assert!(bytes < RECEIPT_BYTES_MAX + 1024 * 1024, "{bytes}");
    let without = sizes.iter().filter(|size| **size == 0).count();
    assert!(without > 0);
    assert_eq!(pair.bob.count("receipts_over_limit"), without as u64);
}

#[test]
fn receipts_of_delivered_messages_prove_them_to_somebody_else() {
    let mut pair = up(Profile::Tls);
    pair.bob.session().make_receipts_for(["b".into()].into_iter());
    for text in ["one", "two"] {
        pair.alice.cast("a", "b", &term::text(text)).unwrap();
    }
    pair.alice.cast("", "b", &term::text("three")).unwrap();
    pair.alice.cast("a", "other", &term::text("no receipt")).unwrap();
    pair.settle();
    let mut proven = Vec::new();
    for event in pair.bob.take_events() {
        let Seen::Deliver { destination, source, payload, receipt, .. } = event else { panic!() };
        assert_eq!(receipt.is_some(), destination == "b");
        let Some(receipt) = receipt else { continue };
        let verified = receipt::verify(&receipt, &Realm::alice().key(), &network().id().0).unwrap();
        assert_eq!((&verified.source_engine, &verified.payload), (&source, &payload));
        assert_eq!(verified.destination, Realm::bob().id());
        assert!(receipt::verify(&receipt, &Realm::bob().key(), &network().id().0).is_err());
        proven.push(verified.payload);
    }
    proven.sort();
    let mut expected = vec![term::text("one"), term::text("two"), term::text("three")];
    expected.sort();
    assert_eq!(proven, expected);
}

#[test]
fn aligned_messages_arrive_like_others() {
    let mut pair = up(Profile::Plain);
    let session = pair.alice.session();
    for (number, aligned) in [true, false, true, true, false, false].into_iter().enumerate() {
        let pushed = session.push(Delivery::Cast, "a", "b", &term::number(number as u32), aligned).unwrap();
        pair.alice.pushed(pushed);
    }
    pair.settle();
    assert_eq!(pair.bob.take_payloads(), (0..6).map(term::number).collect::<Vec<_>>());
}

/// What a random run does.
#[derive(Clone, Debug)]
enum Do {
    Push { source: usize, destination: usize, bytes: usize, aligned: bool },
    Settle,
    Announce(usize),
}

fn any_do() -> impl Strategy<Value = Do> {
    prop_oneof![
        20 => (0..4usize, 0..4usize, prop_oneof![20 => 10..40usize, 1 => 60_000..200_000usize], prop::bool::weighted(0.05))
            .prop_map(|(source, destination, bytes, aligned)| Do::Push { source, destination, bytes, aligned }),
        1 => Just(Do::Settle),
        1 => (0..4usize).prop_map(Do::Announce),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// `protocol.md` 9.6, and more: per destination all messages arrive once, in the order in which they were pushed,
    /// whoever they are from, over batches and flushes.
    #[test]
    fn messages_to_one_engine_keep_their_order_whatever_they_are_mixed_with(
        steps in prop::collection::vec(any_do(), 1..150),
        piece in 1000..100_000usize,
    ) {
        const SOURCES: [&str; 4] = ["a", "s1", "s2", ""];
        const DESTINATIONS: [&str; 4] = ["b", "d1", "d2", "d3"];
        let mut pair = up(Profile::Local);
        pair.cut = Some(Box::new(move |_| piece));
        let mut pushed: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Do::Push { source, destination, bytes, aligned } => {
                    let mut payload = term::of_size(bytes);
                    payload[6..10].copy_from_slice(&(number as u32).to_le_bytes());
                    let (source, destination) = (SOURCES[source], DESTINATIONS[destination]);
                    let sent = pair.alice.session().push(Delivery::Cast, source, destination, &payload, aligned);
                    pair.alice.pushed(sent.unwrap());
                    pushed.entry(destination.into()).or_default().push(payload);
                }
                Do::Settle => pair.settle(),
                Do::Announce(source) if SOURCES[source].is_empty() => {}
                Do::Announce(source) => pair.alice.export(SOURCES[source]),
            }
        }
        pair.settle();
        prop_assert!(pair.alice.is_up() && pair.bob.is_up(), "{:?}", pair.bob.fault);
        let mut delivered: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
        for event in pair.bob.take_events() {
            if let Seen::Deliver { destination, payload, .. } = event {
                delivered.entry(destination).or_default().push(payload);
            }
        }
        prop_assert!(delivered == pushed);
    }
}
