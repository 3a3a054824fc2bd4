//! Large messages, which go in fragments, and what goes between them (`protocol.md` 9.7, 12.5).

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::frame::forget::ForgetReason;
use legation_proto::frame::FrameType;
use legation_proto::limits::Limits;
use legation_proto::receipt;
use legation_proto::session::Delivery;
use proptest::prelude::*;
use rust_tests::pair::{Pair, PairConfig, Seen, PROFILES};
use rust_tests::raw_batch::{fragment, staged, RawMessage, STAGED};
use rust_tests::raw_peer::Versus;
use rust_tests::term;

/// These links begin to cut here, as a fragment is never longer.
const FRAGMENT: usize = 64 * 1024;
const LARGE: usize = 1_000_000;

fn without_credit() -> Limits {
    Limits { credit_bytes: 0, fragment_bytes: FRAGMENT, ..Limits::default() }
}

fn config(profile: Profile) -> PairConfig {
    PairConfig { limits: [without_credit(), without_credit()], ..PairConfig::of(profile) }
}

fn up() -> Pair {
    Pair::up(config(Profile::Local))
}

/// A term of so many bytes that is unlike any other of the same size.
fn payload(bytes: usize, mark: u8) -> Vec<u8> {
    let mut payload = term::of_size(bytes);
    let last = payload.len() - 1;
    payload[last] = mark;
    payload
}

/// Destination and mark of what was delivered, in order.
fn marks(events: Vec<Seen>) -> Vec<(String, u8)> {
    let mark = |event| match event {
        Seen::Deliver { destination, payload, .. } | Seen::Call { destination, payload, .. } => {
            Some((destination, *payload.last().unwrap()))
        }
        _ => None,
    };
    events.into_iter().filter_map(mark).collect()
}

fn expected<const N: usize>(marks: [(&str, u8); N]) -> Vec<(String, u8)> {
    marks.into_iter().map(|(destination, mark)| (destination.to_owned(), mark)).collect()
}

/// One flush of alice's arrives.
fn one_flush(pair: &mut Pair) -> bool {
    let mut out = Vec::new();
    let more = pair.alice.link.flush(&mut out).unwrap();
    pair.bob.handle(pair.now, &out);
    more
}

#[test]
fn large_messages_arrive_whole_on_every_profile() {
    for profile in PROFILES {
        let mut pair = Pair::up(config(profile));
        let sizes = [8 * 1024 * 1024, 65_537, 3_000_000, 200_000, 1_000_000, 2_500_000, 70_000];
        for (mark, size) in sizes.into_iter().enumerate() {
            pair.alice.cast("a", &format!("to {mark}"), &payload(size, mark as u8)).unwrap();
        }
        pair.settle();
        let mut got = pair.bob.take_payloads();
        got.sort_by_key(|payload| *payload.last().unwrap());
        let all: Vec<_> = sizes.into_iter().enumerate().map(|(mark, size)| payload(size, mark as u8)).collect();
        assert!(got == all, "{:?}", pair.bob.fault);
        assert_eq!((pair.bob.count("staged_bytes"), pair.alice.count("queue_bytes")), (0, 0));
        assert_eq!(pair.alice.count("messages_out"), sizes.len() as u64);
    }
}

#[test]
fn a_payload_of_a_fragment_goes_in_its_batch_and_one_byte_more_does_not() {
    for (size, fragments) in [(FRAGMENT, 0), (FRAGMENT + 1, 2), (2 * FRAGMENT, 2), (2 * FRAGMENT + 1, 3)] {
        let mut pair = up();
        pair.alice.cast("a", "b", &payload(size, 7)).unwrap();
        pair.settle();
        assert_eq!(pair.alice.count("fragments_out"), fragments, "{size}");
        assert_eq!(pair.bob.count("fragments_in"), fragments);
        assert!(pair.bob.take_payloads() == [payload(size, 7)]);
    }
}

#[test]
fn small_messages_to_others_overtake_a_large_one_and_those_to_its_engine_wait() {
    let mut pair = up();
    pair.alice.cast("a", "b", &payload(4 * LARGE, 1)).unwrap();
    pair.alice.cast("a", "b", &term::number(2)).unwrap();
    pair.alice.cast("a", "c", &term::number(3)).unwrap();
    assert!(one_flush(&mut pair));
    assert_eq!(marks(pair.bob.take_events()), expected([("c", 3)]));
    pair.alice.cast("a", "b", &term::number(4)).unwrap();
    pair.alice.cast("a", "c", &term::number(5)).unwrap();
    assert!(one_flush(&mut pair));
    assert_eq!(marks(pair.bob.take_events()), expected([("c", 5)]));
    assert_eq!(pair.alice.count("lanes_held"), 2);
    pair.settle();
    assert_eq!(marks(pair.bob.take_events()), expected([("b", 1), ("b", 2), ("b", 4)]));
    assert_eq!(pair.alice.count("lanes_held"), 0);
}

#[test]
fn large_messages_get_on_however_many_small_ones_there_are() {
    let mut pair = up();
    pair.alice.cast("a", "b", &payload(5 * FRAGMENT, 1)).unwrap();
    for _ in 0..5 {
        // As much as a flush takes.
        (0..20).for_each(|_| pair.alice.cast("a", "c", &term::of_size(30_000)).unwrap());
        one_flush(&mut pair);
    }
    assert!(marks(pair.bob.take_events()).contains(&("b".to_owned(), 1)));
}

#[test]
fn a_shorter_one_is_there_before_a_longer_one_that_began_before_it() {
    let mut pair = up();
    pair.alice.cast("a", "b", &payload(4 * LARGE, 1)).unwrap();
    pair.alice.cast("a", "c", &payload(LARGE, 2)).unwrap();
    pair.settle();
    assert_eq!(marks(pair.bob.take_events()), expected([("c", 2), ("b", 1)]));
}

#[test]
fn answers_to_one_caller_keep_their_order_and_come_before_the_end_of_their_engine() {
    let mut pair = up();
    for context in [b"1", b"2"] {
        pair.alice.call(pair.now, "b", b"process", context, &term::text("?")).unwrap();
    }
    pair.alice.call(pair.now, "b", b"another", b"3", &term::text("?")).unwrap();
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
    pair.bob.reply(calls[0], &payload(4 * LARGE, 1)).unwrap();
    pair.bob.reply(calls[1], &term::number(2)).unwrap();
    pair.bob.reply(calls[2], &term::number(3)).unwrap();
    pair.bob.withdraw("b", ForgetReason::Normal);
    pair.bob.export("c");
    pair.settle();
    let seen: Vec<String> = pair
        .alice
        .take_events()
        .into_iter()
        .map(|event| match event {
            Seen::Reply { context, .. } => String::from_utf8(context).unwrap(),
            Seen::Forgotten { engine, .. } => format!("end of {engine}"),
            Seen::Learned(learn) => learn.engine,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, ["3", "1", "2", "end of b", "c"]);
}

#[test]
fn a_transfer_goes_on_where_it_was_when_the_carrier_breaks() {
    for flushes in 1..6 {
        let config = config(Profile::Tls);
        let mut pair = Pair::up(config.clone());
        pair.alice.cast("a", "b", &payload(2 * LARGE, 1)).unwrap();
        pair.alice.cast("a", "b", &term::number(2)).unwrap();
        for _ in 0..flushes {
            one_flush(&mut pair);
        }
        // This one is lost.
        pair.alice.link.flush(&mut Vec::new()).unwrap();
        let before = marks(pair.bob.take_events());
        pair.lose();
        let mut pair = pair.another(&config, false);
        pair.settle();
        let all = [before, marks(pair.bob.take_events())].concat();
        assert_eq!(all, expected([("b", 1), ("b", 2)]), "after {flushes}");
        assert_eq!(pair.bob.count("staged_bytes"), 0);
    }
}

#[test]
fn what_is_under_way_or_waits_behind_it_goes_into_the_next_session() {
    let mut pair = up();
    pair.alice.cast("a", "b", &payload(2 * LARGE, 1)).unwrap();
    pair.alice.cast("a", "b", &term::number(2)).unwrap();
    one_flush(&mut pair);
    pair.alice.cast("a", "b", &term::number(3)).unwrap();
    let old = pair.alice.session();
    old.end();
    let mut pair = up();
    assert_eq!(pair.alice.session().adopt(&old).0, 3);
    pair.alice.woken(true);
    pair.settle();
    assert_eq!(marks(pair.bob.take_events()), expected([("b", 1), ("b", 2), ("b", 3)]));
}

#[test]
fn a_receipt_of_a_large_message_proves_it() {
    for aligned in [false, true] {
        let mut pair = up();
        pair.bob.session().make_receipts_for(["b".into()].into_iter());
        let sent = payload(LARGE, 9);
        let pushed = pair.alice.session().push(Delivery::Cast, "a", "b", &sent, aligned).unwrap();
        pair.alice.pushed(pushed);
        pair.settle();
        let events = pair.bob.take_events();
        let Some(Seen::Deliver { receipt: Some(bytes), .. }) = events.first() else { panic!("no receipt") };
        let alice = pair.alice.realm.key();
        let proved = receipt::verify(bytes, &alice, &pair.alice.network.id().0).unwrap();
        assert_eq!((&*proved.source_engine, &*proved.destination_engine), ("a", "b"));
        assert!(proved.payload == sent);
    }
}

#[test]
fn a_large_call_that_is_given_up_on_its_way_leaves_nothing_behind() {
    for caller_ends in [false, true] {
        let mut pair = up();
        let call = pair.alice.call(pair.now, "b", b"process", b"1", &payload(2 * LARGE, 1)).unwrap();
        one_flush(&mut pair);
        let session = pair.alice.session();
        let wake = match caller_ends {
            true => session.export_ended(call.exported[0].number, ForgetReason::Crashed, None).wake,
            false => session.cancel(call.call_id),
        };
        pair.alice.woken(wake);
        pair.settle();
        assert_eq!(pair.bob.count("calls_served"), 0);
        let released = pair.bob.take_events().iter().any(|event| matches!(event, Seen::HandleEnded { .. }));
        assert_eq!(released, caller_ends);
    }
}

// Against peers that don't keep the rules.

fn versus() -> Versus {
    Versus::up(Profile::Local)
}

/// The whole body of a batch of one large cast of `e1` to `b`, and its payload.
fn large_cast(versus: &mut Versus, bytes: usize, sequence: u64) -> (Vec<u8>, Vec<u8>) {
    let payload = payload(bytes, 1);
    let message = RawMessage { flags: STAGED, ..RawMessage::cast("b", &payload) };
    let mut batch = versus.peer.batch("e1", vec![message]);
    batch.first_sequence += sequence;
    (versus.peer.sealed(&batch, "e1"), payload)
}

#[test]
fn a_large_message_that_was_written_by_hand_is_delivered() {
    let mut versus = versus();
    let (body, payload) = large_cast(&mut versus, 150_000, 3);
    for bytes in payload.chunks(FRAGMENT) {
        versus.peer.write_frame(FrameType::Fragment, &fragment(5, payload.len(), bytes));
    }
    versus.peer.write_frame(FrameType::Batch, &staged(&body, 5));
    versus.settle();
    assert!(versus.side.take_payloads() == [payload], "{:?}", versus.side.fault);
    versus.assert_alive();
}

#[test]
fn a_payload_that_was_changed_on_its_way_has_the_message_dropped() {
    let mut versus = versus();
    let (body, mut payload) = large_cast(&mut versus, 1_000, 1);
    payload[500] ^= 1;
    versus.peer.write_frame(FrameType::Fragment, &fragment(1, payload.len(), &payload));
    versus.peer.write_frame(FrameType::Batch, &staged(&body, 1));
    versus.settle();
    assert!(versus.side.take_payloads().is_empty());
    assert_eq!((versus.side.count("bad_signature"), versus.side.count("staged_bytes")), (1, 0));
    versus.assert_alive();
}

#[test]
fn a_staged_batch_without_its_payload_or_with_another_closes_the_link() {
    for (transfer, bytes) in [(2, 1_000), (1, 999)] {
        let mut versus = versus();
        let (body, payload) = large_cast(&mut versus, 1_000, 1);
        versus.peer.write_frame(FrameType::Fragment, &fragment(1, bytes, &payload[..bytes]));
        versus.peer.write_frame(FrameType::Batch, &staged(&body, transfer));
        versus.settle();
        versus.assert_closed(CloseCode::Protocol);
    }
}

#[test]
fn a_staged_batch_that_holds_its_payload_closes_the_link() {
    let mut versus = versus();
    let (body, _) = large_cast(&mut versus, 1_000, 0);
    versus.peer.write_frame(FrameType::Batch, &body);
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);
}

#[test]
fn payloads_in_fragments_are_bounded_in_number_and_in_bytes_at_the_limit_and_one_past_it() {
    let begin = |transfers: &[(u32, usize)]| {
        let mut versus = versus();
        for (transfer, total) in transfers {
            versus.peer.write_frame(FrameType::Fragment, &fragment(*transfer, *total, b"x"));
        }
        versus.settle();
        versus
    };
    begin(&[(1, 9), (2, 9), (3, 9), (4, 9)]).assert_alive();
    begin(&[(1, 9), (2, 9), (3, 9), (4, 9), (5, 9)]).assert_closed(CloseCode::Protocol);
    let max = 8 * 1024 * 1024 + 1024 * 1024;
    begin(&[(1, max - 1), (2, 1)]).assert_alive();
    begin(&[(1, max - 1), (2, 2)]).assert_closed(CloseCode::TooLarge);
    begin(&[(1, max + 1)]).assert_closed(CloseCode::TooLarge);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the sizes are, however the carrier cuts and whenever it breaks.
    #[test]
    fn every_message_arrives_once_and_each_engines_in_order(
        messages in prop::collection::vec((0u8..3, prop_oneof![10usize..500, 60_000usize..400_000]), 1..40),
        fragment_bytes in 1_000usize..70_000,
        breaks in prop::collection::vec(0usize..40, 0..3),
    ) {
        let limits = Limits { fragment_bytes, ..without_credit() };
        let config = PairConfig { limits: [limits.clone(), limits], ..PairConfig::of(Profile::Local) };
        let mut pair = Pair::up(config.clone());
        let mut got = Vec::new();
        for (number, (engine, bytes)) in messages.iter().enumerate() {
            pair.alice.cast("a", &engine.to_string(), &payload(*bytes, number as u8)).unwrap();
            if number % 3 == 0 {
                one_flush(&mut pair);
            }
            if breaks.contains(&number) {
                pair.alice.link.flush(&mut Vec::new()).unwrap();
                got.extend(marks(pair.bob.take_events()));
                pair.lose();
                pair = pair.another(&config, false);
                while pair.alice.link.session().is_none() || pair.bob.link.session().is_none() {
                    pair.advance(pair.latency_ms);
                }
                pair.settle();
            }
        }
        pair.settle();
        got.extend(marks(pair.bob.take_events()));
        prop_assert_eq!(got.len(), messages.len());
        for engine in 0u8..3 {
            let of_engine = |(destination, _): &&(String, u8)| *destination == engine.to_string();
            let order: Vec<u8> = got.iter().filter(of_engine).map(|(_, mark)| *mark).collect();
            let sent = messages.iter().enumerate().filter(|(_, (to, _))| *to == engine);
            prop_assert_eq!(order, sent.map(|(number, _)| number as u8).collect::<Vec<_>>());
        }
    }
}
