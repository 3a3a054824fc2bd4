//! What becomes of a session when its links break, and others take over.

use legation_channel::channel::Profile;
use legation_proto::error::{CloseCode, LinkError, PeerMisbehaved};
use legation_proto::frame::forget::ForgetReason;
use legation_proto::limits::{Limits, BATCH_PAYLOAD_TARGET, FLUSH_TARGET};
use legation_proto::session::{Acknowledge, PushError};
use proptest::prelude::*;
use rust_tests::pair::{End, Pair, PairConfig, Seen, PROFILES};
use rust_tests::term;

fn numbers(payloads: Vec<Vec<u8>>) -> Vec<u32> {
    payloads.iter().map(|payload| u32::from_be_bytes(payload[2..6].try_into().unwrap())).collect()
}

fn cast(pair: &mut Pair, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        pair.alice.cast("a", "b", &term::number(number)).unwrap();
    }
}

/// A pair whose first link is lost; nothing waits anywhere.
fn lost(config: &PairConfig) -> Pair {
    let mut pair = Pair::up(config.clone());
    pair.lose();
    pair
}

fn resumed(pair: &Pair) -> bool {
    let was = |seen: &Seen| matches!(seen, Seen::Resumed { .. });
    pair.alice.events.iter().any(was) && pair.bob.events.iter().any(was)
}

#[test]
fn what_was_on_its_way_when_the_carrier_broke_arrives_once_and_in_order() {
    for profile in PROFILES {
        let config = PairConfig::of(profile);
        let mut pair = Pair::up(config.clone());
        cast(&mut pair, 0..10);
        pair.settle();
        assert_eq!(numbers(pair.bob.take_payloads()), (0..10).collect::<Vec<_>>());
        // Sent, and lost with the carrier.
        cast(&mut pair, 10..20);
        pair.alice.flush();
        pair.lose();
        // Queued while there is no link.
        cast(&mut pair, 20..30);
        let mut pair = pair.another(&config, false);
        pair.settle();
        assert!(resumed(&pair));
        assert_eq!(numbers(pair.bob.take_payloads()), (10..30).collect::<Vec<_>>());
        assert_eq!(pair.bob.count("duplicate"), 0);
    }
}

#[test]
fn what_had_arrived_but_was_not_acknowledged_is_passed_over() {
    let config = PairConfig::of(Profile::Local);
    let mut pair = Pair::up(config.clone());
    cast(&mut pair, 0..5);
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), 5);
    assert!(pair.alice.session().gap() >= 5, "bob has had no reason to say so");
    pair.lose();
    cast(&mut pair, 5..6);
    let mut pair = pair.another(&config, false);
    pair.settle();
    assert_eq!(numbers(pair.bob.take_payloads()), [5]);
    // Bob's RESUME came with his hello, and said what he has.
    assert_eq!((pair.bob.count("replayed"), pair.bob.count("duplicate")), (0, 0));
}

#[test]
fn an_acknowledgement_that_overtakes_what_is_sent_again_leaves_no_gap() {
    // More than one flush takes, and no credit, so that all of it is under way at once.
    let mut config = PairConfig::of(Profile::Local);
    config.limits = config.limits.map(|limits| Limits { credit_bytes: 0, fragment_bytes: usize::MAX, ..limits });
    let mut pair = Pair::up(config.clone());
    for _ in 0..20 {
        pair.alice.cast("a", "b", &term::of_size(200_000)).unwrap();
    }
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), 20);
    // It has all arrived, and nobody has told alice.
    pair.lose();
    let mut pair = pair.another(&config, false);
    pair.settle();
    cast(&mut pair, 0..1);
    pair.settle();
    assert_eq!(numbers(pair.bob.take_payloads()), [0]);
    assert_eq!((pair.alice.told(), pair.bob.fault_code()), (None, None));
}

#[test]
fn a_call_is_answered_over_the_next_link() {
    for profile in PROFILES {
        let config = PairConfig::of(profile);
        let mut pair = Pair::up(config.clone());
        pair.alice.call(pair.now, "b", b"p1", b"first", &term::text("one")).unwrap();
        pair.settle();
        let [Seen::Call { call_id, .. }] = pair.bob.take_events()[..] else { panic!("one call") };
        // The request of another is lost with the carrier, and the answer to the first is given while there is none.
        pair.alice.call(pair.now, "b", b"p2", b"second", &term::text("two")).unwrap();
        pair.alice.flush();
        pair.lose();
        pair.bob.reply(call_id, &term::text("answer")).unwrap();
        let mut pair = pair.another(&config, false);
        pair.settle();
        let reply = Seen::Reply { context: b"first".to_vec(), payload: term::text("answer") };
        assert!(pair.alice.take_events().contains(&reply));
        let again = pair.bob.take_events();
        assert!(matches!(again.last(), Some(Seen::Call { payload, .. }) if *payload == term::text("two")));
        assert_eq!(again.iter().filter(|event| matches!(event, Seen::Call { .. })).count(), 1);
    }
}

#[test]
fn announcements_and_releases_are_not_lost_with_a_link() {
    let config = PairConfig::of(Profile::Plain);
    let mut pair = Pair::up(config.clone());
    pair.alice.call(pair.now, "b", b"p1", b"c", &term::text("x")).unwrap();
    pair.settle();
    let [Seen::Call { caller, .. }] = pair.bob.take_events()[..] else { panic!("one call") };
    pair.alice.export("late");
    pair.alice.session().export_ended(caller, ForgetReason::Killed, None);
    pair.alice.withdraw("a", ForgetReason::Withdrawn);
    pair.alice.woken(true);
    pair.alice.flush();
    pair.lose();
    let mut pair = pair.another(&config, false);
    pair.settle();
    let events = pair.bob.take_events();
    let learned = |event: &&Seen| matches!(event, Seen::Learned(learn) if learn.engine == "late");
    assert_eq!(events.iter().filter(learned).count(), 1);
    assert_eq!(
        events
            .iter()
            .filter(|event| **event == Seen::HandleEnded { number: caller, reason: ForgetReason::Killed })
            .count(),
        1
    );
    assert!(events.contains(&Seen::Forgotten { engine: "a".into(), reason: ForgetReason::Withdrawn }));
}

#[test]
fn a_peer_that_has_lost_the_session_begins_a_new_one() {
    let config = PairConfig::of(Profile::Local);
    let first = lost(&config);
    let old = first.alice.session();
    let resume = [Some(old.clone()), None];
    let mut pair = Pair::new(PairConfig { resume, now: first.now, run: 1, ..config });
    pair.settle();
    assert!(pair.alice.is_up() && pair.bob.is_up());
    assert!(!resumed(&pair));
    assert_ne!(pair.alice.session().agreed().session, old.agreed().session);
    assert_eq!(pair.alice.session().agreed().session, pair.bob.session().agreed().session);
}

#[test]
fn what_waits_when_the_peer_has_ended_the_session_on_another_link_is_not_signed_in_it_any_more() {
    let config = PairConfig::of(Profile::Local);
    let mut first = Pair::up(config.clone());
    let mut second = first.another(&config, true);
    second.settle();
    assert!(second.alice.is_up() && first.alice.link.is_active());
    cast(&mut first, 0..3);
    second.bob.close(CloseCode::Normal, "");
    second.settle();
    assert!(second.alice.told().is_some());
    let old = first.alice.session();
    old.end();
    let gap = old.gap();
    // Its driver says goodbye on the link that it sends on, too.
    first.alice.close(CloseCode::Normal, "");
    first.settle();
    assert_eq!(numbers(first.bob.take_payloads()), []);
    assert_eq!(old.gap(), gap, "what the owner was told is what there is");
    let mut next = Pair::new(PairConfig { now: first.now, run: 9, ..config });
    next.settle();
    next.alice.certify(next.now);
    next.alice.export("a");
    assert_eq!(next.alice.session().adopt(&old).0, 3);
    next.alice.woken(true);
    next.settle();
    assert_eq!(numbers(next.bob.take_payloads()), [0, 1, 2]);
}

#[test]
fn what_was_not_signed_goes_into_the_next_session_and_the_rest_is_a_gap() {
    let config = PairConfig::of(Profile::Local);
    let mut pair = Pair::up(config.clone());
    cast(&mut pair, 0..3);
    pair.alice.flush();
    pair.lose();
    cast(&mut pair, 3..6);
    pair.alice.call(pair.now, "b", b"p1", b"c", &term::text("x")).unwrap();
    let old = pair.alice.session();
    old.end();
    assert_eq!(
        old.push(legation_proto::session::Delivery::Cast, "a", "b", &term::small(1), false),
        Err(PushError::Ended)
    );
    assert_eq!(old.gap(), 3);
    let mut next = Pair::new(PairConfig { now: pair.now, run: 1, ..config });
    next.settle();
    next.alice.certify(next.now);
    next.alice.export("a");
    assert_eq!(next.alice.session().adopt(&old).0, 3, "the call has ended with its session");
    next.alice.woken(true);
    next.settle();
    assert_eq!(numbers(next.bob.take_payloads()), [3, 4, 5]);
    assert_eq!(next.alice.count("adopted"), 3);
}

#[test]
fn a_link_beside_takes_over_and_gives_back_with_nothing_lost_or_twice() {
    for profile in PROFILES {
        let config = PairConfig::of(profile);
        let mut one = Pair::up(config.clone());
        let mut two = one.another(&config, true);
        two.settle();
        assert!(resumed(&two));
        assert!(one.alice.link.is_active() && !two.alice.link.is_active());
        cast(&mut one, 0..5);
        one.settle();
        assert_eq!(numbers(one.bob.take_payloads()), [0, 1, 2, 3, 4]);
        // Some are on their way on the first when alice goes over to the second.
        cast(&mut one, 5..10);
        let on_the_first = one.alice.flush();
        assert!(two.alice.link.activate());
        assert!(!two.alice.link.activate(), "it is already");
        two.alice.woken(true);
        cast(&mut two, 10..15);
        two.settle();
        assert_eq!(numbers(two.bob.take_payloads()), (5..15).collect::<Vec<_>>());
        let now = two.now;
        one.bob.handle(now, &on_the_first);
        assert_eq!(one.bob.take_payloads().len(), 0);
        assert!(one.bob.fault.is_none());
        // And back.
        assert!(one.alice.link.activate());
        one.alice.woken(true);
        cast(&mut one, 15..20);
        one.settle();
        assert_eq!(numbers(one.bob.take_payloads()), (15..20).collect::<Vec<_>>());
        assert_eq!(one.bob.count("duplicate"), 0);
        // The first is lost; what bob sends has not moved at all.
        one.lose();
        assert!(two.alice.link.activate() && two.bob.link.activate());
        two.alice.woken(true);
        two.bob.woken(true);
        two.bob.cast("b", "a", &term::number(1)).unwrap();
        cast(&mut two, 20..21);
        two.settle();
        assert_eq!(numbers(two.bob.take_payloads()), [20]);
        assert_eq!(numbers(two.alice.take_payloads()), [1]);
    }
}

#[test]
fn the_window_of_what_is_not_acknowledged_is_kept_to_and_opens_again() {
    let limits = Limits { resume_bytes_max: 64 * 1024, ..Limits::default() };
    let config = PairConfig { limits: [limits, Limits::default()], ..PairConfig::of(Profile::Local) };
    let mut pair = Pair::up(config);
    let payload = term::of_size(32 * 1024);
    for _ in 0..2 {
        pair.alice.cast("a", "b", &payload).unwrap();
        pair.alice.flush();
    }
    // Two are out, which is at the limit with their headers; the third waits.
    pair.alice.cast("a", "b", &payload).unwrap();
    assert_eq!(pair.alice.flush(), b"");
    assert_eq!(pair.alice.count("queue_bytes") / payload.len() as u64, 1);
    assert!(pair.alice.count("resume_bytes") >= 64 * 1024);
}

#[test]
fn a_flush_is_the_last_that_goes_past_the_window_however_much_was_taken_with_it() {
    let limits = Limits { resume_bytes_max: 64 * 1024, credit_bytes: 0, ..Limits::default() };
    let config = PairConfig { limits: [limits.clone(), limits], ..PairConfig::of(Profile::Local) };
    let mut pair = Pair::up(config);
    let payload = term::of_size(1_000);
    for _ in 0..4_000 {
        pair.alice.cast("a", "b", &payload).unwrap();
    }
    let bytes = pair.alice.flush();
    let most = 64 * 1024 + FLUSH_TARGET + BATCH_PAYLOAD_TARGET;
    assert!(pair.alice.count("resume_bytes") <= most as u64, "{}", pair.alice.count("resume_bytes"));
    let now = pair.now;
    pair.bob.handle(now, &bytes);
    pair.settle();
    // Less than that is acknowledged when it is time to.
    let mut arrived = pair.bob.take_payloads().len();
    for _ in 0..20 {
        let bob = pair.bob.session();
        let wake = bob.delivered() == Acknowledge::Wake || bob.acknowledge_now();
        pair.bob.woken(wake);
        pair.settle();
        arrived += pair.bob.take_payloads().len();
    }
    assert_eq!(arrived, 4_000);
}

#[test]
fn without_anything_to_resume_by_nothing_is_kept_but_how_much_may_be_lost() {
    let limits = Limits { resume_bytes_max: 0, ..Limits::default() };
    let config = PairConfig { limits: [limits.clone(), limits], ..PairConfig::of(Profile::Local) };
    let mut pair = Pair::up(config);
    cast(&mut pair, 0..100);
    pair.settle();
    assert_eq!(pair.bob.take_payloads().len(), 100);
    assert!(!pair.alice.session().can_resume());
    // Bob has had no reason to say so.
    assert_eq!((pair.alice.session().gap(), pair.alice.count("resume_bytes")), (100, 0));
    let bob = pair.bob.session();
    bob.delivered();
    pair.bob.woken(bob.acknowledge_now());
    pair.settle();
    assert_eq!(pair.alice.session().gap(), 0);
}

#[test]
fn a_quiet_receiver_acknowledges_when_its_driver_says_so() {
    let mut pair = Pair::up(PairConfig::of(Profile::Local));
    pair.bob.session().delivered();
    pair.bob.session().acknowledge_now();
    pair.bob.woken(true);
    pair.settle();
    assert_eq!(pair.alice.session().gap(), 0);
    cast(&mut pair, 0..3);
    pair.settle();
    assert_eq!(pair.alice.session().gap(), 3);
    let bob = pair.bob.session();
    assert_eq!(bob.delivered(), Acknowledge::Later);
    assert_eq!(bob.delivered(), Acknowledge::Nothing, "it is being seen to");
    assert!(bob.acknowledge_now());
    pair.bob.woken(true);
    pair.settle();
    assert_eq!(pair.alice.session().gap(), 0);
    assert!(!bob.acknowledge_now(), "it has been said");
}

#[test]
fn nothing_sequenced_may_come_on_a_link_that_was_not_announced() {
    let config = PairConfig::of(Profile::Local);
    let one = Pair::up(config.clone());
    let mut two = one.another(&config, true);
    two.settle();
    // A batch of the first link's, said on the second.
    let mut one = one;
    cast(&mut one, 0..1);
    let bytes = one.alice.flush();
    let now = two.now;
    two.bob.handle(now, &bytes);
    assert_eq!(two.bob.fault_code(), Some(CloseCode::Protocol));
}

#[test]
fn codes_that_end_a_link_and_not_its_session() {
    let keeps: Vec<_> = CloseCode::ALL.into_iter().filter(|code| code.keeps_session()).collect();
    assert_eq!(keeps, [CloseCode::Duplicate, CloseCode::Timeout, CloseCode::Replaced]);
    let gap = LinkError::from(PeerMisbehaved::SequenceGap { expected: 1, got: 2 });
    assert!(!CloseCode::from(&gap).keeps_session());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Links break at any byte, again and again, in both directions.
    #[test]
    fn however_links_break_everything_arrives_once_and_in_order(
        rounds in prop::collection::vec((1u32..40, 1u32..40, any::<u16>(), any::<u16>(), any::<bool>()), 1..12),
    ) {
        let config = PairConfig::of(Profile::Plain);
        let mut pair = Pair::up(config.clone());
        let (mut said, mut heard) = ([0u32, 0], [Vec::new(), Vec::new()]);
        for (ours, theirs, cut_ours, cut_theirs, acknowledge) in rounds {
            for (end, count) in [(End::Alice, ours), (End::Bob, theirs)] {
                let names = if end == End::Alice { ("a", "b") } else { ("b", "a") };
                for _ in 0..count {
                    pair[end].cast(names.0, names.1, &term::number(said[end as usize])).unwrap();
                    said[end as usize] += 1;
                }
            }
            let now = pair.now;
            for (end, cut) in [(End::Alice, cut_ours), (End::Bob, cut_theirs)] {
                let bytes = pair[end].flush();
                let arrives = usize::from(cut) % (bytes.len() + 1);
                pair[end.other()].handle(now, &bytes[..arrives]);
            }
            for end in End::BOTH {
                heard[end as usize].extend(numbers(pair[end].take_payloads()));
                if acknowledge {
                    pair[end].session().delivered();
                    pair[end].session().acknowledge_now();
                }
            }
            pair.lose();
            pair = pair.another(&config, false);
            pair.settle();
            prop_assert!(resumed(&pair), "{:?} {:?}", pair.alice.events, pair.bob.events);
            for end in End::BOTH {
                heard[end as usize].extend(numbers(pair[end].take_payloads()));
            }
        }
        for end in End::BOTH {
            prop_assert_eq!(&heard[end.other() as usize], &(0..said[end as usize]).collect::<Vec<_>>());
            prop_assert_eq!(pair[end].count("duplicate") + pair[end].count("bad_signature"), 0);
        }
    }
}
