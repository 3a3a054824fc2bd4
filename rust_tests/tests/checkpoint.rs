//! Messages that are delivered before they are signed for, between two honest peers: when they are proven, what of that outlives a
//! link, and where it isn't done at all. What becomes of who doesn't prove them: `hostile_checkpoint.rs`.

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::limits::Limits;
use legation_proto::session::{Delivery, PushError};
use legation_proto::signing::{Mode, Modes};
use proptest::prelude::*;
use rust_tests::pair::{End, Pair, PairConfig, Seen, Side};
use rust_tests::term;

const PROTECTED: [Profile; 2] = [Profile::Tls, Profile::Local];
const SOURCE: &str = "a";

fn limits() -> Limits {
    Limits { signing: Mode::Checkpoint, accept_signing: Modes::of(Mode::ALL), ..Limits::default() }
}

fn config(profile: Profile) -> PairConfig {
    PairConfig { limits: [limits(), limits()], ..PairConfig::of(profile) }
}

fn cast(pair: &mut Pair, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        pair.alice.cast(SOURCE, "b", &term::number(number)).unwrap();
    }
}

fn numbers(payloads: Vec<Vec<u8>>) -> Vec<u32> {
    payloads.iter().map(|payload| u32::from_be_bytes(payload[2..6].try_into().unwrap())).collect()
}

/// Nothing that came to this side is unproven, and nobody has ended anything.
fn assert_proven(pair: &Pair) {
    for end in End::BOTH {
        assert_eq!((pair[end].session().unproven(), pair[end].fault_code()), (None, None));
        assert_eq!((pair[end].count("unproven_now"), pair[end].count("mode_refused")), (0, 0));
    }
}

/// Signatures of both kinds, and checkpoints among them.
fn signatures(side: &Side) -> (u64, u64) {
    (side.count("signed"), side.count("checkpoints_out"))
}

#[test]
fn a_lone_message_is_delivered_without_a_signature_and_proven_in_time_though_nothing_follows() {
    for profile in PROTECTED {
        let mut pair = Pair::up(config(profile));
        let before = signatures(&pair.alice);
        cast(&mut pair, 0..3);
        pair.settle();
        assert_eq!(numbers(pair.bob.take_payloads()), [0, 1, 2]);
        assert_eq!(signatures(&pair.alice), before, "nothing is signed yet");
        let (first, last) = pair.bob.session().unproven().expect("nothing is proven yet");
        assert_eq!((last - first, pair.bob.count("unproven_now")), (2, 3));
        let sent = pair.now - pair.latency_ms;
        assert_eq!(pair.alice.proves, Some(sent + 4), "a timer that is late by a millisecond is in time");
        pair.advance(20);
        assert_eq!(signatures(&pair.alice), (before.0 + 1, before.1 + 1));
        assert_proven(&pair);
        assert_eq!(pair.bob.count("checkpoints_in"), 1);
        assert_eq!(pair.alice.proves, None, "there is nothing to come back for");
        pair.advance(60_000);
        assert_eq!(signatures(&pair.alice), (before.0 + 1, before.1 + 1), "an idle session is left alone");
        assert_proven(&pair);
    }
}

#[test]
fn calls_and_their_answers_are_proven_both_ways() {
    let mut pair = Pair::up(config(Profile::Tls));
    for round in 0..50u8 {
        pair.alice.call(pair.now, "b", b"p1", &[round], &term::number(round.into())).unwrap();
        pair.settle();
        let Some(Seen::Call { call_id, .. }) = pair.bob.take_events().pop() else { panic!("a call") };
        pair.bob.reply(call_id, &term::number(round.into())).unwrap();
        pair.settle();
        let reply = Seen::Reply { context: vec![round], payload: term::number(round.into()) };
        assert_eq!(pair.alice.take_events().pop(), Some(reply));
        pair.advance(0);
    }
    pair.advance(100);
    assert_proven(&pair);
    assert!(pair.alice.count("checkpoints_out") > 0 && pair.bob.count("checkpoints_out") > 0);
}

#[test]
fn messages_of_all_engines_for_which_the_realm_may_speak_are_proven_together_and_others_sign_for_themselves() {
    let mut pair = Pair::up(config(Profile::Tls));
    pair.alice.export("a2");
    pair.alice.export_with("stubborn", false);
    pair.settle();
    pair.bob.events.clear();
    let before = signatures(&pair.alice);
    for (number, source) in ["a", "a2", "", "stubborn", "a", "stubborn"].into_iter().enumerate() {
        pair.alice.cast(source, "b", &term::number(number as u32)).unwrap();
    }
    pair.settle();
    let events = pair.bob.take_events();
    let sources = events.iter().map(|event| match event {
        Seen::Deliver { source, payload, .. } => (&source[..], payload[5]),
        _ => panic!("{event:?}"),
    });
    let expected = [("a", 0), ("a2", 1), ("", 2), ("stubborn", 3), ("a", 4), ("stubborn", 5)];
    assert_eq!(sources.collect::<Vec<_>>(), expected, "in the order in which they were sent, whoever signs");
    let (signed, checkpoints) = signatures(&pair.alice);
    assert_eq!((signed - before.0, checkpoints), (2, before.1), "each batch of the stubborn one");
    pair.advance(20);
    assert_eq!(signatures(&pair.alice).1, before.1 + 1);
    assert_proven(&pair);
}

#[test]
fn a_steady_flow_is_signed_for_once_in_the_time_and_not_for_each_batch() {
    let mut pair = Pair::up(PairConfig { latency_ms: 0, ..config(Profile::Local) });
    let before = signatures(&pair.alice).0;
    for number in 0..100 {
        cast(&mut pair, [number]);
        pair.settle();
        pair.advance(1);
    }
    pair.advance(20);
    let made = signatures(&pair.alice).0 - before;
    assert!((15..=26).contains(&made), "{made} signatures in 100 ms");
    assert_eq!(pair.bob.take_payloads().len(), 100);
    assert_proven(&pair);
}

#[test]
fn what_is_much_is_signed_for_before_its_time() {
    let mut config = config(Profile::Local);
    config.limits = config.limits.map(|limits| Limits { credit_bytes: 0, ..limits });
    let mut pair = Pair::up(config);
    // Just below, and at, 256 KiB of batches.
    pair.alice.cast(SOURCE, "b", &term::of_size(100_000)).unwrap();
    pair.alice.cast(SOURCE, "b", &term::of_size(100_000)).unwrap();
    pair.settle();
    assert_eq!(pair.alice.count("checkpoints_out"), 0);
    pair.alice.cast(SOURCE, "b", &term::of_size(100_000)).unwrap();
    pair.settle();
    assert_eq!(pair.alice.count("checkpoints_out"), 1);
    assert_proven(&pair);
}

#[test]
fn a_large_message_is_signed_for_by_itself_and_what_went_before_it_is_proven_first() {
    let mut config = config(Profile::Tls);
    config.limits = config.limits.map(|limits| Limits { credit_bytes: 0, ..limits });
    let mut pair = Pair::up(config);
    cast(&mut pair, [1]);
    pair.alice.cast(SOURCE, "b", &term::of_size(2_000_000)).unwrap();
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), 2);
    assert_eq!(pair.alice.count("checkpoints_out"), 1);
    assert_proven(&pair);
}

#[test]
fn a_message_that_asks_for_a_receipt_is_signed_for_by_itself() {
    let mut pair = Pair::up(config(Profile::Local));
    pair.bob.session().make_receipts_for(["b".into()].into_iter());
    let before = signatures(&pair.alice);
    let pushed = pair.alice.session().push(Delivery::Cast, SOURCE, "b", &term::number(1), true).unwrap();
    pair.alice.pushed(pushed);
    pair.settle();
    let events = pair.bob.take_events();
    assert!(matches!(&events[..], [Seen::Deliver { receipt: Some(_), .. }]), "{events:?}");
    assert_eq!(signatures(&pair.alice), (before.0 + 1, before.1));
    // One that doesn't ask is delivered without.
    cast(&mut pair, [2]);
    pair.settle();
    let events = pair.bob.take_events();
    assert!(matches!(&events[..], [Seen::Deliver { receipt: None, .. }]), "{events:?}");
    assert_eq!(pair.bob.count("receipts_over_limit"), 1);
    pair.advance(20);
    assert_proven(&pair);
}

#[test]
fn what_was_said_before_a_goodbye_is_proven_before_it() {
    let mut pair = Pair::up(config(Profile::Tls));
    cast(&mut pair, [1]);
    pair.alice.close(CloseCode::Normal, "");
    pair.settle();
    assert_eq!(pair.bob.told().map(|(code, _)| code), Some(CloseCode::Normal));
    assert_eq!(numbers(pair.bob.take_payloads()), [1]);
    assert_eq!(pair.bob.session().unproven(), None);
    pair.bob.session().end();
    assert_eq!(pair.bob.count("unproven"), 0);
}

#[test]
fn it_is_done_only_where_both_sides_want_it_and_the_channel_is_protected() {
    let with = |signing: Mode, accepted: Modes| {
        let alice = Limits { signing, ..Limits::default() };
        let bob = Limits { accept_signing: accepted, ..Limits::default() };
        [alice, bob]
    };
    let all = Modes::of(Mode::ALL);
    for (profile, limits, mode) in [
        (Profile::Local, with(Mode::Checkpoint, all), Mode::Checkpoint),
        (Profile::Tls, with(Mode::Checkpoint, all), Mode::Checkpoint),
        (Profile::Plain, with(Mode::Checkpoint, all), Mode::Engine),
        (Profile::Tls, with(Mode::Checkpoint, Modes::default()), Mode::Engine),
        (Profile::Tls, with(Mode::Engine, all), Mode::Engine),
    ] {
        let mut pair = Pair::up(PairConfig { limits, ..PairConfig::of(profile) });
        assert_eq!(pair.alice.session().signing(), mode, "{profile:?}");
        cast(&mut pair, [1]);
        pair.settle();
        assert_eq!(numbers(pair.bob.take_payloads()), [1]);
        assert_eq!(pair.bob.session().unproven().is_some(), mode == Mode::Checkpoint, "{profile:?}");
        pair.advance(2_000);
        assert_proven(&pair);
    }
}

#[test]
fn a_checkpoint_that_was_lost_with_its_link_comes_on_the_next_and_a_batch_is_in_the_chain_once() {
    for profile in PROTECTED {
        let config = config(profile);
        let mut pair = Pair::up(config.clone());
        // These arrive, their checkpoint doesn't.
        cast(&mut pair, 0..5);
        pair.settle();
        assert_eq!(numbers(pair.bob.take_payloads()), (0..5).collect::<Vec<_>>());
        // Nor do these.
        cast(&mut pair, 5..8);
        pair.alice.prove();
        pair.alice.flush();
        pair.lose();
        // Half a minute without a link is no time for who has to prove something.
        pair.now += 30_000;
        cast(&mut pair, 8..10);
        let mut pair = pair.another(&config, false);
        pair.settle();
        assert_eq!(numbers(pair.bob.take_payloads()), (5..10).collect::<Vec<_>>());
        pair.advance(1_500);
        assert_proven(&pair);
    }
}

#[test]
fn whose_link_is_lost_before_its_time_came_proves_it_on_the_next() {
    let config = config(Profile::Local);
    let mut pair = Pair::up(config.clone());
    cast(&mut pair, [1]);
    pair.settle();
    pair.lose();
    let mut pair = pair.another(&config, false);
    // Nothing else is said, and the driver's timer went with the link.
    pair.settle();
    pair.advance(1_500);
    assert_proven(&pair);
    assert_eq!(numbers(pair.bob.take_payloads()), [1; 0]);
}

#[test]
fn over_a_plain_link_a_session_goes_on_and_signs_for_everything() {
    let first = config(Profile::Local);
    let mut pair = Pair::up(first.clone());
    cast(&mut pair, [1]);
    pair.settle();
    pair.lose();
    cast(&mut pair, [2]);
    let plain = PairConfig { profile: Profile::Plain, knock: true, ..first };
    let mut pair = pair.another(&plain, false);
    pair.settle();
    assert_eq!(numbers(pair.bob.take_payloads()), [1, 2][..].split_at(1).1);
    assert_proven(&pair);
    let checkpoints = pair.alice.count("checkpoints_out");
    cast(&mut pair, [3]);
    pair.settle();
    pair.advance(100);
    assert_eq!((numbers(pair.bob.take_payloads()), pair.alice.count("checkpoints_out")), (vec![3], checkpoints));
}

#[test]
fn a_window_that_is_closed_does_not_keep_a_checkpoint() {
    let mut config = config(Profile::Local);
    config.limits = config.limits.map(|limits| Limits { resume_bytes_max: 400, ..limits });
    let mut pair = Pair::up(config);
    // The first fills it; bob has no reason to acknowledge anything.
    for number in [1, 2] {
        cast(&mut pair, [number]);
        pair.settle();
    }
    assert_eq!(numbers(pair.bob.take_payloads()), [1]);
    pair.advance(20);
    assert_eq!(pair.bob.count("checkpoints_in"), 1);
    assert_proven(&pair);
}

#[test]
fn what_was_not_proven_when_a_session_ends_is_told_and_counted() {
    let mut pair = Pair::up(config(Profile::Local));
    cast(&mut pair, 0..4);
    pair.settle();
    pair.lose();
    let session = pair.bob.session();
    assert_eq!(pair.bob.count("unproven"), 0, "it may be proven yet");
    session.end();
    session.end();
    let (first, last) = session.unproven().expect("it never will be");
    assert_eq!((last - first, pair.bob.count("unproven")), (3, 4));
    assert!(matches!(pair.bob.cast("b", "a", &term::number(1)), Err(PushError::Ended)));
}

#[test]
fn a_driver_that_is_late_does_not_make_a_peer_guilty_before_its_time() {
    let mut pair = Pair::up(PairConfig { latency_ms: 300, ..config(Profile::Tls) });
    for number in 0..20 {
        cast(&mut pair, [number]);
        pair.advance(137);
    }
    pair.advance(2_000);
    assert_eq!(pair.bob.take_payloads().len(), 20);
    assert_proven(&pair);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_links_all_is_delivered_once_in_order_and_proven(
        steps in prop::collection::vec((1u32..40, 0u64..12, any::<bool>(), 1usize..200), 1..12),
        tls: bool,
    ) {
        let config = config(if tls { Profile::Tls } else { Profile::Local });
        let mut pair = Pair::up(config.clone());
        let (mut sent, mut got) = (0, Vec::new());
        for (count, wait_ms, breaks, piece) in steps {
            pair.cut = Some(Box::new(move |_| piece));
            cast(&mut pair, sent..sent + count);
            sent += count;
            pair.advance(wait_ms);
            got.extend(numbers(pair.bob.take_payloads()));
            if breaks {
                pair.alice.flush();
                pair.lose();
                pair = pair.another(&config, false);
                pair.settle();
            }
        }
        pair.settle();
        pair.advance(1_500);
        got.extend(numbers(pair.bob.take_payloads()));
        prop_assert_eq!(got, (0..sent).collect::<Vec<_>>());
        assert_proven(&pair);
    }
}
