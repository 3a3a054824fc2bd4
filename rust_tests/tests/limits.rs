//! Every bound at the limit and one past it (`protocol.md` 15).

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::frame::batch::Refusal;
use legation_proto::frame::FrameType;
use legation_proto::limits::{Limits, Overflow, BATCH_MESSAGES_MAX};
use legation_proto::session::{Delivery, PushError};
use rust_tests::pair::{Pair, PairConfig, Seen, PROFILES};
use rust_tests::raw_batch::{frame, RawMessage};
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::term;

fn versus(limits: Limits) -> Versus {
    Versus::up_with(RawPeerConfig::dialling(Profile::Local), limits)
}

fn pair(limits: [Limits; 2]) -> Pair {
    Pair::up(PairConfig { limits, ..PairConfig::of(Profile::Local) })
}

#[test]
fn engines_are_learned_up_to_the_limit_and_not_past_it() {
    // `e1` and `e2` are known already.
    let mut versus = versus(Limits { engines_max: 4, ..Limits::default() });
    for (engine, learned) in [("e3", 1), ("e4", 1), ("e5", 0), ("e4", 1)] {
        let learn = versus.peer.learn(engine);
        versus.peer.write_learn(&learn);
        versus.settle();
        assert_eq!(versus.side.take_events().len(), learned, "{engine}");
    }
    assert_eq!(versus.side.count("engines_over_limit"), 1);
    versus.peer.cast("e5", "b", &term::text("x"));
    versus.settle();
    assert_eq!(versus.side.take_payloads().len(), 0);
    let forget = versus.peer.forget("e3");
    versus.peer.write_forget(&forget);
    let learn = versus.peer.learn("e5");
    versus.peer.write_learn(&learn);
    versus.settle();
    assert!(versus.side.take_events().contains(&Seen::Learned(learn)));
    versus.assert_alive();
}

#[test]
fn a_message_at_the_limit_arrives_and_one_byte_past_it_does_not() {
    let mut versus = versus(Limits { message_bytes_max: 10_000, ..Limits::default() });
    let messages = vec![
        RawMessage::cast("b", &term::of_size(10_000)),
        RawMessage::send("b", &term::of_size(10_001)),
        RawMessage::call("b", 1, 1, &term::of_size(10_001)),
        RawMessage::call("b", 2, 1, &term::of_size(10_000)),
    ];
    versus.peer.send("e1", messages);
    versus.settle();
    assert_eq!(versus.side.take_payloads(), vec![term::of_size(10_000); 2]);
    assert_eq!(versus.side.count("too_large"), 2);
    assert_eq!(versus.peer.refusals(), [(1, Refusal::TooLarge as u8)]);
    versus.assert_alive();
}

#[test]
fn what_is_too_large_for_either_side_is_not_pushed() {
    let limits = |own, peer| {
        let limits = |message_bytes_max| Limits { message_bytes_max, ..Limits::default() };
        [limits(own), limits(peer)]
    };
    for limits in [limits(1_000, 2_000), limits(2_000, 1_000)] {
        let mut pair = pair(limits);
        let now = pair.now;
        assert_eq!(pair.alice.cast("a", "b", &term::of_size(1_001)), Err(PushError::TooLarge));
        assert_eq!(pair.alice.call(now, "b", b"p", b"c", &term::of_size(1_001)), Err(PushError::TooLarge));
        pair.alice.cast("a", "b", &term::of_size(1_000)).unwrap();
        pair.settle();
        assert_eq!(pair.bob.take_payloads(), [term::of_size(1_000)]);
        assert_eq!(pair.alice.count("too_large_out"), 2);
    }
}

#[test]
fn an_answer_that_is_too_large_is_a_refusal_and_nobody_waits() {
    let limits = Limits { message_bytes_max: 1_000, ..Limits::default() };
    let mut pair = pair([limits.clone(), limits]);
    let now = pair.now;
    let call = pair.alice.call(now, "b", b"p", b"c", &term::text("x")).unwrap();
    pair.settle();
    pair.bob.reply(call.call_id, &term::of_size(1_001)).unwrap();
    pair.settle();
    assert_eq!(pair.alice.take_events(), [Seen::Refused { context: b"c".to_vec(), refusal: Refusal::TooLarge }]);
}

#[test]
fn eight_mebibytes_arrive_on_every_profile() {
    for profile in PROFILES {
        let mut pair = Pair::up(PairConfig::of(profile));
        let payload = term::of_size(8 * 1024 * 1024);
        pair.alice.cast("a", "b", &term::text("before")).unwrap();
        pair.alice.cast("a", "b", &payload).unwrap();
        pair.alice.cast("a", "b", &term::text("after")).unwrap();
        let mut one_more = payload.clone();
        one_more.push(0);
        assert_eq!(pair.alice.cast("a", "b", &one_more), Err(PushError::TooLarge));
        pair.settle();
        let got = pair.bob.take_payloads();
        assert!(got == [term::text("before"), payload, term::text("after")], "{profile:?}");
    }
}

#[test]
fn a_batch_longer_than_any_may_be_closes_the_link_by_its_header_alone() {
    let limits = Limits { message_bytes_max: 10_000, ..Limits::default() };
    let longest = FrameType::Batch.body_bytes_max(&limits) as u32;
    for (length, closed) in [(longest, false), (longest + 1, true), (1 << 31, true), (u32::MAX, true)] {
        let mut versus = versus(limits.clone());
        versus.peer.write(&frame(3, 1, length, &[]));
        versus.settle();
        assert_eq!(versus.side.is_over(), closed, "{length}");
        if closed {
            versus.assert_closed(CloseCode::TooLarge);
        }
    }
}

#[test]
fn the_fullest_batch_of_ours_is_one_that_the_peer_takes() {
    // The smallest message limit, the longest names, as many rows as fit.
    let small = Limits { message_bytes_max: 64, queue_bytes_max: 1 << 30, ..Limits::default() };
    let mut pair = pair([small.clone(), small]);
    let name = "n".repeat(255);
    for _ in 0..2 * BATCH_MESSAGES_MAX {
        pair.alice.cast("a", &name, &term::of_size(64)).unwrap();
    }
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), 2 * BATCH_MESSAGES_MAX, "{:?}", pair.bob.fault);
}

#[test]
fn a_batch_of_many_aligned_messages_is_one_that_the_peer_takes() {
    let small = Limits { message_bytes_max: 64, ..Limits::default() };
    let mut pair = pair([small.clone(), small]);
    for _ in 0..BATCH_MESSAGES_MAX {
        let pushed = pair.alice.session().push(Delivery::Cast, "a", "b", &term::of_size(64), true).unwrap();
        pair.alice.pushed(pushed);
    }
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), BATCH_MESSAGES_MAX, "{:?}", pair.bob.fault);
}

#[test]
fn a_batch_of_4096_messages_is_taken_and_none_or_more_is_malformed() {
    for (count, good) in [(0, false), (1, true), (4_096, true), (4_097, false)] {
        let mut versus = versus(Limits { credit_bytes: 0, ..Limits::default() });
        versus.peer.send("e1", vec![RawMessage::cast("b", &term::number(1)); count]);
        versus.settle();
        match good {
            true => assert_eq!(versus.side.take_payloads().len(), count),
            false => versus.assert_closed(CloseCode::Protocol),
        }
    }
}

#[test]
fn the_outbound_queue_takes_what_fits_and_has_room_again_after_a_flush() {
    let limits = Limits { queue_bytes_max: 10_000, ..Limits::default() };
    let mut pair = pair([limits.clone(), limits]);
    let mut pushed = 0;
    while pair.alice.cast("a", "b", &term::of_size(100)).is_ok() {
        pushed += 1;
    }
    // A message costs its names and an entry on top of its payload.
    assert!((50..=100).contains(&pushed), "{pushed}");
    let now = pair.now;
    assert_eq!(pair.alice.cast("a", "b", &term::of_size(100)), Err(PushError::Overload));
    assert_eq!(pair.alice.call(now, "b", b"p", b"c", &term::of_size(100)), Err(PushError::Overload));
    assert_eq!((pair.alice.count("overload_out"), pair.alice.count("calls_pending")), (3, 0));
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), pushed);
    assert_eq!(pair.alice.count("queue_bytes"), 0);
    pair.alice.cast("a", "b", &term::of_size(100)).unwrap();
}

#[test]
fn an_engine_that_is_flooded_leaves_room_for_others_and_has_room_again_after_a_flush() {
    let limits = Limits { engine_queue_bytes_max: Some(2_000), ..Limits::default() };
    let mut pair = pair([limits.clone(), limits]);
    let mut pushed = 0;
    while pair.alice.cast("a", "b", &term::of_size(100)).is_ok() {
        pushed += 1;
    }
    assert!((10..=20).contains(&pushed), "{pushed}");
    let now = pair.now;
    assert_eq!(pair.alice.call(now, "b", b"p", b"c", &term::of_size(100)), Err(PushError::Overload));
    assert_eq!((pair.alice.count("overload_out"), pair.alice.count("engine_queue_over_limit")), (2, 2));
    assert_eq!(pair.alice.count("calls_pending"), 0);
    pair.alice.cast("a", "other", &term::of_size(100)).unwrap();
    pair.alice.call(now, "other", b"p", b"c", &term::of_size(100)).unwrap();
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), pushed + 2);
    assert_eq!(pair.alice.count("queue_bytes"), 0);
    // Larger than the bound, but nothing else waits.
    pair.alice.cast("a", "b", &term::of_size(5_000)).unwrap();
    assert_eq!(pair.alice.cast("a", "b", &term::of_size(6)), Err(PushError::Overload));
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), 1);
}

#[test]
fn the_oldest_casts_of_a_flooded_engine_give_way_and_no_other_engines() {
    let limits = Limits { engine_queue_bytes_max: Some(2_000), overflow: Overflow::Oldest, ..Limits::default() };
    let mut pair = pair([limits.clone(), limits]);
    pair.alice.cast("a", "other", &term::text("first")).unwrap();
    for number in 0..1_000 {
        pair.alice.cast("a", "b", &term::number(number)).unwrap();
    }
    let dropped = pair.alice.count("dropped_oldest") as u32;
    assert_eq!(pair.alice.count("engine_queue_over_limit"), dropped.into());
    assert_eq!(pair.alice.count("overload_out"), 0);
    assert!(dropped > 950);
    pair.settle();
    let expected = std::iter::once(term::text("first")).chain((dropped..1_000).map(term::number));
    assert_eq!(pair.bob.take_payloads(), expected.collect::<Vec<_>>());
}

#[test]
fn a_full_queue_still_takes_answers_and_refuses_those_past_twice_its_bound() {
    let limits = Limits { queue_bytes_max: 10_000, ..Limits::default() };
    let mut pair = pair([Limits::default(), limits]);
    let now = pair.now;
    for number in 0..150u32 {
        pair.alice.call(now, "b", b"p", &number.to_le_bytes(), &term::number(number)).unwrap();
    }
    pair.settle();
    while pair.bob.cast("b", "a", &term::of_size(100)).is_ok() {}
    for call_id in 1..=150 {
        pair.bob.reply(call_id, &term::of_size(100)).unwrap();
    }
    pair.settle();
    let events = pair.alice.take_events();
    let count = |test: fn(&Seen) -> bool| events.iter().filter(|event| test(event)).count();
    let answered = count(|event| matches!(event, Seen::Reply { .. }));
    let refused = count(|event| matches!(event, Seen::Refused { refusal: Refusal::Overload, .. }));
    assert!(answered >= 50 && refused >= 50, "{answered} {refused}");
    assert_eq!(answered + refused, 150, "nobody is left waiting");
}

#[test]
fn the_oldest_casts_give_way_where_that_is_configured() {
    let limits = Limits { queue_bytes_max: 10_000, overflow: Overflow::Oldest, ..Limits::default() };
    let mut pair = pair([limits.clone(), limits]);
    for number in 0..1_000 {
        pair.alice.cast("a", "b", &term::number(number)).unwrap();
    }
    let dropped = pair.alice.count("dropped_oldest") as u32;
    pair.settle();
    assert_eq!(pair.bob.take_payloads(), (dropped..1_000).map(term::number).collect::<Vec<_>>());
    assert!(dropped > 800);
}

#[test]
fn calls_in_flight_are_bounded_on_both_sides() {
    let mut pair = pair([Limits { calls_max: 3, ..Limits::default() }, Limits { calls_max: 2, ..Limits::default() }]);
    let now = pair.now;
    for _ in 0..3 {
        pair.alice.call(now, "b", b"p", b"c", &term::text("x")).unwrap();
    }
    assert_eq!(pair.alice.call(now, "b", b"p", b"c", &term::text("x")), Err(PushError::Overload));
    pair.settle();
    assert_eq!((pair.bob.take_payloads().len(), pair.bob.count("overload_in")), (2, 1));
    assert_eq!(pair.alice.take_events(), [Seen::Refused { context: b"c".to_vec(), refusal: Refusal::Overload }]);
    pair.alice.call(now, "b", b"p", b"c", &term::text("x")).unwrap();
}

#[test]
fn callers_are_bounded_on_both_sides() {
    let mut versus = versus(Limits { callers_max: 2, ..Limits::default() });
    let call = |id, caller| RawMessage::call("b", id, caller, &term::text("x"));
    versus.peer.send("e1", vec![call(1, 1), call(2, 2), call(3, 3), call(4, 2)]);
    versus.settle();
    assert_eq!(versus.side.take_payloads().len(), 3);
    assert_eq!(versus.peer.refusals(), [(3, Refusal::Overload as u8)]);
    // A caller that is released makes room.
    versus.peer.write_frame(FrameType::HandleRelease, &[&[1, 0, 1][..], &1u64.to_le_bytes(), &[1]].concat());
    versus.peer.send("e1", vec![call(5, 3)]);
    versus.settle();
    assert_eq!(versus.side.take_payloads().len(), 1);

    let now = versus.now;
    for caller in [b"1", b"2", b"1"] {
        versus.side.call(now, "e1", caller, b"c", &term::text("x")).unwrap();
    }
    assert_eq!(versus.side.call(now, "e1", b"3", b"c", &term::text("x")), Err(PushError::Overload));
}

#[test]
fn names_of_255_bytes_work_and_other_names_are_never_sent() {
    let mut pair = pair([Limits::default(), Limits::default()]);
    let now = pair.now;
    let long = "ü".repeat(127) + "x";
    pair.alice.export(&long);
    pair.alice.cast(&long, &long, &term::text("x")).unwrap();
    pair.settle();
    assert!(matches!(&pair.bob.take_events()[1], Seen::Deliver { source, destination, .. }
        if *source == long && *destination == long));
    for bad in ["", "a@b", "line\nbreak", &"x".repeat(256)] {
        assert_eq!(pair.alice.cast("a", bad, &term::text("x")), Err(PushError::BadName), "{bad:?}");
        assert_eq!(pair.alice.call(now, bad, b"p", b"c", &term::text("x")), Err(PushError::BadName));
    }
    pair.settle();
    assert!(pair.bob.is_up());
}

#[test]
fn what_the_peer_would_refuse_is_not_pushed() {
    let mut pair = pair([Limits::default(), Limits::default()]);
    let now = pair.now;
    assert_eq!(pair.alice.send("a", "b", &term::payload(&term::pid("n@h", 1))), Err(PushError::Identifiers));
    assert_eq!(pair.alice.cast("a", "b", &[131]), Err(PushError::BadTerm));
    assert_eq!(pair.alice.call(now, "b", b"p", b"c", &[]), Err(PushError::BadTerm));
    let deepest = |depth| [vec![131], [104, 1].repeat(depth), vec![106]].concat();
    assert_eq!(pair.alice.cast("a", "b", &deepest(257)), Err(PushError::BadTerm));
    pair.alice.cast("a", "b", &deepest(256)).unwrap();
    pair.settle();
    assert_eq!(pair.bob.take_payloads(), [deepest(256)]);
    let call = pair.alice.call(now, "b", b"p", b"c", &term::text("x")).unwrap();
    pair.settle();
    pair.bob.reply(call.call_id, &term::payload(&term::pid("n@h", 1))).unwrap();
    pair.alice.events.clear();
    pair.settle();
    assert_eq!(pair.alice.take_events(), [Seen::Refused { context: b"c".to_vec(), refusal: Refusal::Identifiers }]);
}

#[test]
fn a_flood_of_pings_is_answered_in_bounded_space() {
    let mut versus = versus(Limits::default());
    for token in 0..10_000 {
        versus.peer.ping(token);
    }
    versus.settle();
    assert_eq!(versus.peer.pongs().last(), Some(&9_999));
    assert!(versus.peer.pongs().len() <= 10_000);
    versus.assert_alive();
}
