//! Credit, lanes, overflow, expiry, and callers that wait for room.

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::frame::batch::Refusal;
use legation_proto::frame::forget::ForgetReason;
use legation_proto::frame::FrameType;
use legation_proto::limits::{Limits, Overflow};
use legation_proto::session::{PushError, Room};
use proptest::prelude::*;
use rust_tests::pair::{Pair, PairConfig, Seen};
use rust_tests::raw_batch::RawMessage;
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::term;

const WINDOW: u32 = 10_000;
/// What a message takes besides its payload.
const COST: u32 = 64;

fn limits() -> Limits {
    Limits { credit_bytes: WINDOW, ..Limits::default() }
}

/// Bob grants nothing by himself.
fn up(limits: Limits) -> Pair {
    let mut pair = Pair::up(PairConfig { limits: [limits.clone(), limits], ..PairConfig::of(Profile::Local) });
    pair.bob.stingy = true;
    pair
}

/// Messages of a thousand bytes with their cost: ten use up the window.
fn thousand(mark: u32) -> Vec<u8> {
    let mut payload = term::of_size(1_000 - COST as usize);
    let end = payload.len();
    payload[end - 4..].copy_from_slice(&mark.to_be_bytes());
    payload
}

fn casts(pair: &mut Pair, destination: &str, marks: std::ops::Range<u32>) {
    marks.for_each(|mark| pair.alice.cast("a", destination, &thousand(mark)).unwrap());
}

fn marks(payloads: Vec<Vec<u8>>) -> Vec<u32> {
    payloads.into_iter().map(|payload| u32::from_be_bytes(payload[payload.len() - 4..].try_into().unwrap())).collect()
}

fn grant(pair: &mut Pair, destination: &str, left: u64) {
    let wake = pair.bob.session().grant(destination, left);
    pair.bob.woken(wake);
    pair.settle();
}

fn debts(pair: &Pair) -> Vec<(String, u64)> {
    let mut debts = Vec::new();
    pair.bob.session().debts(|destination, messages| debts.push((destination.to_owned(), messages)));
    debts
}

#[test]
fn an_engine_that_takes_nothing_stops_its_own_messages_and_no_others() {
    let mut pair = up(limits());
    casts(&mut pair, "b", 0..30);
    casts(&mut pair, "c", 100..105);
    pair.settle();
    assert_eq!(marks(pair.bob.take_payloads()), [(0..10).collect::<Vec<_>>(), (100..105).collect()].concat());
    assert_eq!(pair.alice.count("lanes_held"), 20);
    casts(&mut pair, "c", 105..109);
    pair.settle();
    assert_eq!(marks(pair.bob.take_payloads()), (105..109).collect::<Vec<_>>());
    // Its mailbox lets go of four, of seven, of the rest.
    assert_eq!(debts(&pair), [("b".to_owned(), 10), ("c".to_owned(), 9)]);
    grant(&mut pair, "b", 6);
    assert_eq!(marks(pair.bob.take_payloads()), (10..14).collect::<Vec<_>>());
    grant(&mut pair, "b", 3);
    assert_eq!(marks(pair.bob.take_payloads()), (14..21).collect::<Vec<_>>());
    grant(&mut pair, "b", 0);
    assert_eq!(marks(pair.bob.take_payloads()), (21..30).collect::<Vec<_>>());
    assert_eq!((pair.alice.count("lanes_held"), pair.alice.count("queue_bytes")), (0, 0));
}

#[test]
fn a_message_larger_than_the_window_goes_when_a_byte_of_it_is_left() {
    let mut pair = up(limits());
    casts(&mut pair, "b", 0..9);
    pair.alice.cast("a", "b", &term::of_size(500_000)).unwrap();
    casts(&mut pair, "b", 9..10);
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), 10);
    assert_eq!(debts(&pair).len(), 1);
    grant(&mut pair, "b", 0);
    assert_eq!(marks(pair.bob.take_payloads()), [9]);
}

#[test]
fn calls_take_credit_and_answers_and_refusals_need_none() {
    let mut pair = up(limits());
    for number in 0..15 {
        pair.alice.call(pair.now, "b", b"process", &[number], &thousand(number.into())).unwrap();
    }
    pair.settle();
    let calls: Vec<u64> = pair
        .bob
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Seen::Call { call_id, .. } => Some(call_id),
            _ => None,
        })
        .collect();
    assert_eq!(calls.len(), 10);
    calls.iter().for_each(|call_id| pair.bob.reply(*call_id, &term::of_size(60_000)).unwrap());
    pair.settle();
    assert_eq!(pair.alice.take_events().len(), 10);
    grant(&mut pair, "b", 0);
    assert_eq!(pair.bob.take_payloads().len(), 5);
}

#[test]
fn a_call_that_is_given_up_while_it_waits_is_never_heard_of() {
    let mut pair = up(limits());
    casts(&mut pair, "b", 0..10);
    let [cancelled, other] =
        [b"1", b"2"].map(|caller| pair.alice.call(pair.now, "b", caller, caller, &thousand(11)).unwrap());
    let orphan = pair.alice.call(pair.now, "b", b"3", b"3", &thousand(12)).unwrap();
    pair.settle();
    pair.bob.take_events();
    let session = pair.alice.session();
    let ended = session.export_ended(orphan.exported[0].number, ForgetReason::Normal, None);
    pair.alice.woken(session.cancel(cancelled.call_id) | ended.wake);
    pair.settle();
    assert!(matches!(pair.bob.take_events()[..], [Seen::HandleEnded { .. }]), "of its caller, that it has ended");
    grant(&mut pair, "b", 0);
    let events = pair.bob.take_events();
    let caller_of_other = other.exported[0].number;
    assert!(matches!(events[..], [Seen::Call { caller, .. }] if caller == caller_of_other), "{events:?}");
    assert_eq!((pair.bob.count("calls_served"), pair.alice.count("queue_bytes")), (1, 0));
    // The window has what they would have used.
    casts(&mut pair, "b", 20..29);
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), 9);
}

#[test]
fn each_side_keeps_to_the_others_window_and_none_asks_for_nothing() {
    for (window, arrives) in [(5_000, 5), (0, 40)] {
        let other = Limits { credit_bytes: window, ..limits() };
        let mut pair = Pair::up(PairConfig { limits: [limits(), other], ..PairConfig::of(Profile::Tls) });
        (pair.alice.stingy, pair.bob.stingy) = (true, true);
        casts(&mut pair, "b", 0..40);
        (0..40).for_each(|mark| pair.bob.cast("b", "a", &thousand(mark)).unwrap());
        pair.settle();
        assert_eq!((pair.bob.take_payloads().len(), pair.alice.take_payloads().len()), (arrives, 10));
    }
}

#[test]
fn credit_that_was_lost_with_its_link_comes_on_the_next() {
    let config = PairConfig { limits: [limits(), limits()], ..PairConfig::of(Profile::Plain) };
    let mut pair = Pair::up(config.clone());
    (pair.alice.stingy, pair.bob.stingy) = (true, true);
    casts(&mut pair, "b", 0..20);
    pair.settle();
    let session = pair.bob.session();
    assert!(session.grant("b", 0));
    pair.bob.woken(true);
    pair.bob.flush();
    let before = pair.bob.take_payloads();
    pair.lose();
    let mut pair = pair.another(&config, false);
    pair.settle();
    assert_eq!(marks([before, pair.bob.take_payloads()].concat()), (0..20).collect::<Vec<_>>());
}

#[test]
fn the_oldest_give_way_also_where_they_wait_for_credit() {
    let one = 1_000 + 2 - COST as usize + 64;
    let limits = Limits { overflow: Overflow::Oldest, queue_bytes_max: 30 * one, ..limits() };
    let mut pair = up(limits);
    casts(&mut pair, "b", 0..10);
    pair.settle();
    pair.bob.take_payloads();
    for mark in 10..1_000 {
        casts(&mut pair, "b", mark..mark + 1);
        pair.settle();
    }
    assert_eq!((pair.alice.count("lanes_held"), pair.alice.count("dropped_oldest")), (30, 960));
    let mut got = Vec::new();
    while pair.alice.count("lanes_held") > 0 {
        grant(&mut pair, "b", 0);
        got.extend(marks(pair.bob.take_payloads()));
    }
    assert_eq!(got, (970..1_000).collect::<Vec<_>>());
}

#[test]
fn an_engines_bound_holds_for_what_waits_for_credit_and_leaves_room_for_others() {
    let one = 1_000 + 2 - COST as usize + 64;
    for overflow in [Overflow::Newest, Overflow::Oldest] {
        let limits = Limits { overflow, engine_queue_bytes_max: Some(5 * one), ..limits() };
        let mut pair = up(limits);
        casts(&mut pair, "b", 0..5);
        pair.settle();
        casts(&mut pair, "b", 5..10);
        pair.settle();
        casts(&mut pair, "b", 10..15);
        pair.settle();
        let pushed = pair.alice.cast("a", "b", &thousand(15));
        assert_eq!(pushed, if overflow == Overflow::Newest { Err(PushError::Overload) } else { Ok(()) });
        assert_eq!(pair.alice.count("engine_queue_over_limit"), 1);
        casts(&mut pair, "c", 100..105);
        pair.settle();
        pair.bob.take_payloads();
        grant(&mut pair, "b", 0);
        let first = if overflow == Overflow::Newest { 10 } else { 11 };
        assert_eq!(marks(pair.bob.take_payloads()), (first..first + 5).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_queue_ends_the_link_where_that_is_configured() {
    let one = 1_000 + 2 - COST as usize + 64;
    let mut pair = up(Limits { overflow: Overflow::Disconnect, queue_bytes_max: 3 * one, ..limits() });
    casts(&mut pair, "b", 0..3);
    assert_eq!(pair.alice.cast("a", "b", &thousand(3)), Err(PushError::Disconnect));
    let call = pair.alice.call(pair.now, "b", b"p", b"1", &thousand(3));
    assert_eq!(call.err(), Some(PushError::Disconnect));
    assert_eq!(pair.alice.count("calls_pending"), 0);
    pair.alice.close(CloseCode::Overload, "the queue is full");
    pair.settle();
    assert_eq!(pair.bob.told().map(|(code, _)| code), Some(CloseCode::Overload));
}

/// Time passes, with a tick every 100 ms. The contexts of calls that expire.
fn pass(pair: &mut Pair, ms: u64) -> Vec<Vec<u8>> {
    let mut refused = Vec::new();
    let end = pair.now + ms;
    loop {
        pair.alice.session().tick(pair.now, &mut |event| match Seen::from(event) {
            Seen::Refused { context, refusal: Refusal::Expired } => refused.push(context),
            other => panic!("{other:?}"),
        });
        if pair.now == end {
            return refused;
        }
        pair.now = (pair.now + 100).min(end);
    }
}

#[test]
fn what_waits_too_long_is_dropped_wherever_it_waits_and_callers_are_told() {
    let mut pair = up(Limits { message_ttl_ms: Some(1_000), ..limits() });
    pass(&mut pair, 100);
    casts(&mut pair, "b", 0..12);
    pair.alice.call(pair.now, "b", b"p", b"in a lane", &thousand(12)).unwrap();
    pair.settle();
    // Nobody flushes any more: these wait in the queue.
    casts(&mut pair, "b", 13..15);
    pair.alice.call(pair.now, "b", b"p", b"in the queue", &thousand(15)).unwrap();
    assert!(pass(&mut pair, 900).is_empty());
    casts(&mut pair, "b", 20..21);
    let mut contexts = pass(&mut pair, 300);
    contexts.sort();
    assert_eq!(contexts, [b"in a lane".to_vec(), b"in the queue".to_vec()]);
    assert_eq!((pair.alice.count("expired"), pair.alice.count("calls_pending")), (6, 0));
    pair.settle();
    pair.bob.take_payloads();
    grant(&mut pair, "b", 0);
    assert_eq!(marks(pair.bob.take_payloads()), [20]);
    assert_eq!(pair.alice.count("queue_bytes"), 0);
}

#[test]
fn what_waits_for_a_link_expires_and_answers_do_not() {
    let mut pair = up(Limits { message_ttl_ms: Some(1_000), ..limits() });
    pair.bob.call(pair.now, "a", b"p", b"1", &term::text("?")).unwrap();
    pair.settle();
    let Some(Seen::Call { call_id, .. }) = pair.alice.take_events().pop() else { panic!("no call") };
    pass(&mut pair, 100);
    pair.alice.reply(call_id, &term::text("!")).unwrap();
    casts(&mut pair, "b", 0..5);
    assert!(pass(&mut pair, 5_000).is_empty());
    assert_eq!(pair.alice.count("expired"), 5);
    pair.settle();
    assert!(pair.bob.take_payloads().is_empty());
    assert_eq!(pair.bob.count("calls_pending"), 0);
}

#[test]
fn who_waits_for_room_is_told_when_there_is_some_and_not_before() {
    let one = 1_000 + 2 - COST as usize + 64;
    let limits = Limits { queue_bytes_max: 20 * one, engine_queue_bytes_max: Some(10 * one), ..limits() };
    let mut pair = up(Limits { room_waiters_max: 2, ..limits });
    let session = pair.alice.session();
    assert_eq!(session.wait_room("b", 1_000, 1), Room::Now);
    casts(&mut pair, "b", 0..10);
    assert_eq!(pair.alice.cast("a", "b", &thousand(10)), Err(PushError::Overload));
    assert_eq!(session.wait_room("b", 936, 1), Room::Later);
    assert_eq!(session.wait_room("c", 936, 2), Room::Now, "another engine's");
    assert_eq!(session.wait_room("b", 936, 2), Room::Later);
    assert_eq!(session.wait_room("b", 936, 3), Room::Full, "one past `room_waiters_max`");
    assert_eq!(pair.alice.count("room_waiters_over_limit"), 1);
    assert_eq!(session.take_room(), []);
    session.cancel_room(1);
    pair.settle();
    assert_eq!(session.take_room(), [2]);
    assert_eq!(session.take_room(), []);

    // In a lane as well.
    casts(&mut pair, "b", 10..20);
    pair.settle();
    assert_eq!(session.wait_room("b", 936, 4), Room::Later);
    pair.settle();
    assert_eq!(session.take_room(), []);
    grant(&mut pair, "b", 0);
    assert_eq!(session.take_room(), [4]);
    assert_eq!(session.wait_room("b", 1 << 30, 5), Room::Full, "more than the queue may ever hold");

    casts(&mut pair, "b", 20..30);
    assert_eq!(session.wait_room("b", 936, 6), Room::Later);
    session.end();
    assert_eq!(session.take_room(), [6], "all are told when the session ends");
    assert_eq!(session.wait_room("b", 936, 7), Room::Now);
}

// Against peers that don't keep the rules.

fn versus() -> Versus {
    let mut versus = Versus::up_with(RawPeerConfig::dialling(Profile::Local), limits());
    versus.side.stingy = true;
    versus
}

#[test]
fn a_message_past_the_window_is_dropped_and_a_call_past_it_refused() {
    let mut versus = versus();
    let exactly = RawMessage::cast("b", &term::of_size((WINDOW - 2 * COST - 1) as usize));
    versus.peer.send("e1", vec![exactly]);
    versus.peer.send("e1", vec![RawMessage::cast("b", &[131, 106])]);
    versus.settle();
    assert_eq!((versus.side.take_payloads().len(), versus.side.count("credit_exceeded")), (2, 0));
    versus.peer.send("e1", vec![RawMessage::cast("b", &[131, 106]), RawMessage::call("b", 1, 1, &[131, 106])]);
    versus.peer.send("e1", vec![RawMessage::cast("another", &[131, 106])]);
    versus.settle();
    assert_eq!((versus.side.take_payloads().len(), versus.side.count("credit_exceeded")), (1, 2));
    assert_eq!(versus.peer.refusals(), [(1, Refusal::Overload as u8)]);
    assert!(versus.side.is_up());
    let wake = versus.side.session().grant("b", 0);
    versus.side.woken(wake);
    versus.peer.cast("e1", "b", &[131, 106]);
    versus.settle();
    assert_eq!(versus.side.take_payloads().len(), 1);
}

#[test]
fn batches_that_were_dropped_have_used_credit_and_get_it_back() {
    let mut versus = versus();
    let batch = versus.peer.batch("e1", vec![RawMessage::cast("b", &term::of_size(6_000))]);
    let mut body = versus.peer.sealed(&batch, "e1");
    let end = body.len();
    body[end - 1] ^= 1;
    versus.peer.write_frame(FrameType::Batch, &body);
    versus.settle();
    assert_eq!(versus.side.count("bad_signature"), 1);
    let mut due = Vec::new();
    assert!(versus.side.session().debts(|destination, messages| due.push((destination.to_owned(), messages))));
    assert_eq!(due, [("b".to_owned(), 1)]);
}

#[test]
fn credit_that_nobody_has_used_counts_for_nothing() {
    let mut versus = versus();
    let mut body = vec![2, 0];
    for (name, bytes) in [("nobody", u32::MAX), ("b", 1)] {
        body.push(name.len() as u8);
        body.extend(name.as_bytes());
        body.extend(bytes.to_le_bytes());
    }
    versus.peer.write_frame(FrameType::Credit, &body);
    versus.settle();
    versus.assert_alive();
    versus.peer.write_frame(FrameType::Credit, &[0, 0]);
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However mailboxes are emptied: nothing is lost, nothing past a window, each engine's in order, and nobody waits for ever.
    #[test]
    fn what_is_offered_arrives_in_order_whatever_engines_do(
        steps in prop::collection::vec((0u8..3, 0usize..3_000, prop::option::of(0u64..10)), 1..120),
    ) {
        let mut pair = up(limits());
        let mut got = Vec::new();
        for (number, (engine, bytes, left)) in steps.iter().enumerate() {
            let mut payload = term::of_size(*bytes + 20);
            let end = payload.len();
            payload[end - 4..].copy_from_slice(&(number as u32).to_be_bytes());
            pair.alice.cast("a", &engine.to_string(), &payload).unwrap();
            if number % 4 == 0 {
                pair.settle();
            }
            if let Some(left) = left {
                grant(&mut pair, &engine.to_string(), *left);
            }
            got.extend(pair.bob.take_payloads());
        }
        pair.settle();
        for _ in 0..1_000 {
            let due = debts(&pair);
            if due.is_empty() {
                break;
            }
            due.iter().for_each(|(destination, messages)| grant(&mut pair, destination, messages / 2));
        }
        got.extend(pair.bob.take_payloads());
        prop_assert_eq!((pair.bob.count("credit_exceeded"), pair.alice.count("lanes_held")), (0, 0));
        let got = marks(got);
        prop_assert_eq!(got.len(), steps.len());
        for engine in 0..3 {
            let order: Vec<u32> = got.iter().copied().filter(|mark| steps[*mark as usize].0 == engine).collect();
            prop_assert!(order.is_sorted());
        }
    }
}
