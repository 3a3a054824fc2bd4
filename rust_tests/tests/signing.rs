//! Signing modes (`protocol.md` 9.8): who signs for whom, what is taken, and that nobody is spoken for who has not said so.

use std::collections::HashMap;

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::frame::batch::{Batch, Refusal};
use legation_proto::frame::forget::ForgetReason;
use legation_proto::frame::FrameType;
use legation_proto::limits::Limits;
use legation_proto::receipt;
use legation_proto::session::Delivery;
use legation_proto::signing::{Mode, Modes};
use proptest::prelude::*;
use rust_tests::pair::{Pair, PairConfig, Seen, Side, PROFILES};
use rust_tests::raw_batch::{RawMessage, STAGED};
use rust_tests::raw_peer::{RawPeerConfig, Versus};
use rust_tests::realm::{network, Realm};
use rust_tests::term;

fn signing(mode: Mode) -> Limits {
    Limits { signing: mode, ..Limits::default() }
}

/// Alice signs in delegated mode, bob by engines.
fn delegating(profile: Profile) -> Pair {
    Pair::up(PairConfig { limits: [signing(Mode::Delegated), Limits::default()], ..PairConfig::of(profile) })
}

/// Source and payload of each message.
fn delivered(side: &mut Side) -> Vec<(String, Vec<u8>)> {
    let one = |event| match event {
        Seen::Deliver { source, payload, .. } => Some((source, payload)),
        _ => None,
    };
    side.take_events().into_iter().filter_map(one).collect()
}

#[test]
fn a_hundred_engines_share_a_signature_and_each_message_has_its_own_source() {
    for profile in PROFILES {
        let mut pair = delegating(profile);
        assert_eq!(pair.alice.session().signing(), Mode::Delegated);
        let names: Vec<String> = (0..100).map(|number| format!("engine {number}")).collect();
        names.iter().for_each(|name| pair.alice.export(name));
        pair.settle();
        pair.bob.take_events();
        let (batches, verified) = (pair.alice.count("batches_out"), pair.bob.count("verified"));
        let mut sent = Vec::new();
        for round in 0..3u32 {
            for (name, number) in names.iter().zip(0u32..) {
                let payload = term::number(round * 100 + number);
                pair.alice.cast(name, "b", &payload).unwrap();
                sent.push((name.clone(), payload));
            }
        }
        pair.alice.cast("", "b", &term::text("the realm")).unwrap();
        pair.alice.cast("nobody", "b", &term::text("not announced")).unwrap();
        sent.push((String::new(), term::text("the realm")));
        sent.push((String::new(), term::text("not announced")));
        pair.settle();
        assert_eq!(delivered(&mut pair.bob), sent);
        assert_eq!(pair.alice.count("batches_out") - batches, 1);
        assert_eq!(pair.bob.count("verified") - verified, 1);
        assert_eq!((pair.bob.count("not_delegated"), pair.bob.count("mode_refused")), (0, 0));
    }
}

#[test]
fn an_engine_that_signs_for_itself_goes_on_doing_so_and_the_order_stays() {
    let mut pair = delegating(Profile::Local);
    pair.alice.export_with("own", false);
    pair.settle();
    pair.bob.take_events();
    let before = pair.alice.count("batches_out");
    let mut sent = Vec::new();
    for (number, source) in ["a", "own", "", "own", "own", "a"].into_iter().enumerate() {
        let payload = term::number(number as u32);
        pair.alice.cast(source, "b", &payload).unwrap();
        sent.push((source.to_owned(), payload));
    }
    pair.settle();
    assert_eq!(delivered(&mut pair.bob), sent);
    // One destination: a message that comes after a batch of another signer begins a new one.
    assert_eq!(pair.alice.count("batches_out") - before, 5);
}

#[test]
fn calls_and_answers_are_the_engines_own() {
    let limits = [signing(Mode::Delegated), signing(Mode::Delegated)];
    let mut pair = Pair::up(PairConfig { limits, ..PairConfig::of(Profile::Tls) });
    let now = pair.now;
    pair.alice.export("c");
    pair.settle();
    pair.bob.take_events();
    pair.alice.call(now, "b", b"pid", b"context", &term::text("question")).unwrap();
    pair.settle();
    let events = pair.bob.take_events();
    let [Seen::Call { call_id, destination, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(destination, "b");
    pair.bob.reply(*call_id, &term::text("answer")).unwrap();
    pair.settle();
    let answer = Seen::Reply { context: b"context".to_vec(), payload: term::text("answer") };
    assert_eq!(pair.alice.take_events(), [answer]);
    // And of two calls one each.
    pair.bob.call(now, "a", b"pid", b"1", &term::text("x")).unwrap();
    pair.bob.call(now, "c", b"pid", b"2", &term::text("x")).unwrap();
    pair.settle();
    let calls = pair.alice.take_events().into_iter().filter_map(|event| match event {
        Seen::Call { call_id, .. } => Some(call_id),
        _ => None,
    });
    for call_id in calls.collect::<Vec<_>>() {
        pair.alice.refuse(call_id, Refusal::Filtered);
    }
    pair.settle();
    let refused = pair.bob.take_events().into_iter().filter(|event| matches!(event, Seen::Refused { .. })).count();
    assert_eq!((refused, pair.bob.count("foreign_reply")), (2, 0));
}

#[test]
fn a_large_message_is_delegated_like_others() {
    let mut pair = delegating(Profile::Plain);
    pair.alice.export_with("own", false);
    pair.settle();
    pair.bob.take_events();
    let large = term::of_size(500_000);
    for source in ["a", "own", ""] {
        pair.alice.cast(source, "b", &large).unwrap();
    }
    pair.settle();
    let sources: Vec<_> =
        delivered(&mut pair.bob).into_iter().map(|(source, payload)| (source, payload == large)).collect();
    let expected = ["a", "own", ""].map(|source| (source.to_owned(), true));
    assert_eq!(sources, expected);
}

#[test]
fn a_peer_that_takes_nothing_else_is_sent_what_engines_sign() {
    let strict = Limits { accept_signing: Modes::of([]), ..Limits::default() };
    let config = PairConfig { limits: [signing(Mode::Delegated), strict], ..PairConfig::of(Profile::Tls) };
    let mut pair = Pair::up(config);
    assert_eq!(pair.alice.session().signing(), Mode::Engine);
    pair.alice.cast("a", "b", &term::text("x")).unwrap();
    pair.settle();
    assert_eq!(delivered(&mut pair.bob), [("a".to_owned(), term::text("x"))]);
    assert_eq!(pair.bob.count("mode_refused"), 0);
}

#[test]
fn what_may_be_without_a_signature_is_a_question_of_the_channel_too() {
    for profile in PROFILES {
        let all = Limits { signing: Mode::Checkpoint, accept_signing: Modes::of(Mode::ALL), ..Limits::default() };
        let pair = Pair::up(PairConfig { limits: [all.clone(), all], ..PairConfig::of(profile) });
        let expected = if profile == Profile::Plain { Mode::Engine } else { Mode::Checkpoint };
        assert_eq!(pair.alice.session().signing(), expected, "{profile:?}");
    }
}

#[test]
fn a_receipt_of_a_delegated_message_proves_its_engine() {
    let mut pair = delegating(Profile::Local);
    pair.bob.session().make_receipts_for(["b".into()].into_iter());
    for source in ["a", ""] {
        let session = pair.alice.session();
        let pushed = session.push(Delivery::Cast, source, "b", &term::text("proof"), true).unwrap();
        pair.alice.pushed(pushed);
    }
    pair.settle();
    let mut sources = Vec::new();
    for event in pair.bob.take_events() {
        let Seen::Deliver { source, payload, receipt, .. } = event else { panic!("{event:?}") };
        let verified = receipt::verify(&receipt.unwrap(), &Realm::alice().key(), &network().id().0).unwrap();
        assert_eq!((&verified.source_engine, &verified.payload), (&source, &payload));
        sources.push(source);
    }
    assert_eq!(sources, ["a", ""]);
}

// What a peer does that keeps no rules.

fn from(source: &str, text: &str) -> RawMessage {
    RawMessage { source: source.into(), ..RawMessage::cast("b", &term::text(text)) }
}

/// A batch of delegated mode, by the key of this engine; by the online key for the empty name.
fn delegated(versus: &mut Versus, messages: Vec<RawMessage>, signer: &str) {
    let mut batch = versus.peer.batch("", messages);
    batch.mode = 2;
    let body = versus.peer.sealed(&batch, signer);
    versus.peer.write_frame(FrameType::Batch, &body);
    versus.settle();
}

#[test]
fn an_engine_that_signs_for_itself_is_never_spoken_for() {
    let mut versus = Versus::up(Profile::Plain);
    let own = legation_proto::frame::learn::Learn { delegate: false, ..versus.peer.learn("own") };
    versus.peer.write_learn(&own);
    let forget = versus.peer.forget("e2");
    versus.peer.write_forget(&forget);
    versus.settle();
    versus.side.take_events();
    let messages = vec![
        from("e1", "one"),
        from("own", "forged"),
        from("e2", "forgotten"),
        from("unknown", "not announced"),
        RawMessage { source: b"own".to_vec(), ..RawMessage::call("b", 1, 1, &term::text("forged")) },
        from("", "two"),
        from("e1", "three"),
    ];
    delegated(&mut versus, messages, "");
    let expected = [("e1", "one"), ("", "two"), ("e1", "three")];
    let expected = expected.map(|(source, text)| (source.to_owned(), term::text(text)));
    assert_eq!(delivered(&mut versus.side), expected);
    assert_eq!((versus.side.count("not_delegated"), versus.side.count("bad_signature")), (4, 0));
    // What it says itself counts, and from then on what it has said it wants.
    versus.peer.send("own", vec![RawMessage::cast("b", &term::text("mine"))]);
    let learn = versus.peer.learn("own");
    versus.peer.write_learn(&learn);
    delegated(&mut versus, vec![from("own", "ours")], "");
    let expected = ["mine", "ours"].map(|text| ("own".to_owned(), term::text(text)));
    assert_eq!(delivered(&mut versus.side), expected);
    // And back.
    let own = legation_proto::frame::learn::Learn { delegate: false, ..versus.peer.learn("own") };
    versus.peer.write_learn(&own);
    delegated(&mut versus, vec![from("own", "forged")], "");
    assert_eq!((delivered(&mut versus.side), versus.side.count("not_delegated")), (vec![], 5));
    versus.assert_alive();
}

#[test]
fn an_answer_in_another_engines_name_is_none() {
    let mut versus = Versus::up(Profile::Local);
    let now = versus.now;
    let call = versus.side.call(now, "e1", b"p", b"c", &term::text("x")).unwrap();
    versus.settle();
    let reply =
        |source: &str| RawMessage { source: source.into(), ..RawMessage::reply(call.call_id, &term::text("y")) };
    delegated(&mut versus, vec![reply("e2"), reply("e1")], "");
    assert_eq!(versus.side.count("foreign_reply"), 1);
    assert_eq!(versus.side.take_events(), [Seen::Reply { context: b"c".to_vec(), payload: term::text("y") }]);
}

#[test]
fn a_delegated_batch_is_the_online_keys_and_no_engines() {
    let mut versus = Versus::up(Profile::Plain);
    delegated(&mut versus, vec![from("e1", "forged")], "e1");
    assert_eq!((delivered(&mut versus.side), versus.side.count("bad_signature")), (vec![], 1));
    let mut batch = versus.peer.batch("e1", vec![from("e1", "x")]);
    batch.mode = 2;
    let body = versus.peer.sealed(&batch, "e1");
    versus.peer.write_frame(FrameType::Batch, &body);
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);
}

#[test]
fn a_batch_in_a_mode_that_is_not_taken_is_dropped_and_ten_end_the_link() {
    let strict = Limits { accept_signing: Modes::of([]), credit_bytes: 0, ..Limits::default() };
    let mut versus = Versus::up_with(RawPeerConfig::dialling(Profile::Tls), strict);
    for number in 1..10 {
        delegated(&mut versus, vec![from("e1", "x")], "");
        assert_eq!((delivered(&mut versus.side), versus.side.count("mode_refused")), (vec![], number));
    }
    // Its numbers are used up: what comes next is in order.
    versus.assert_alive();
    delegated(&mut versus, vec![from("e1", "x")], "");
    versus.assert_closed(CloseCode::Abuse);
}

#[test]
fn a_staged_message_in_delegated_mode_needs_its_engines_word_as_well() {
    let mut versus = Versus::up(Profile::Local);
    let own = legation_proto::frame::learn::Learn { delegate: false, ..versus.peer.learn("own") };
    versus.peer.write_learn(&own);
    let payload = term::text("staged");
    for (transfer, source) in [(1, "own"), (2, "e1")] {
        let fragment = rust_tests::raw_batch::fragment(transfer, payload.len(), &payload);
        versus.peer.write_frame(FrameType::Fragment, &fragment);
        let message = RawMessage { flags: STAGED, source: source.into(), ..RawMessage::cast("b", &payload) };
        let mut batch = versus.peer.batch("", vec![message]);
        batch.mode = 2;
        let whole = versus.peer.sealed(&batch, "");
        assert!(Batch::parse(&whole).is_ok());
        versus.peer.write_frame(FrameType::Batch, &rust_tests::raw_batch::staged(&whole, transfer));
    }
    versus.settle();
    let expected = [("e1".to_owned(), payload)];
    let got: Vec<_> = delivered(&mut versus.side);
    assert_eq!(got, expected, "{:?}", versus.side.fault);
    assert_eq!(versus.side.count("not_delegated"), 1);
}

/// What a random run does.
#[derive(Clone, Debug)]
enum Do {
    Push { source: usize, destination: usize, bytes: usize },
    Settle,
    Announce { source: usize, delegate: bool },
    Withdraw(usize),
}

fn any_do() -> impl Strategy<Value = Do> {
    prop_oneof![
        20 => (0..5usize, 0..4usize, prop_oneof![20 => 10..40usize, 1 => 60_000..200_000usize])
            .prop_map(|(source, destination, bytes)| Do::Push { source, destination, bytes }),
        1 => Just(Do::Settle),
        2 => (0..4usize, any::<bool>()).prop_map(|(source, delegate)| Do::Announce { source, delegate }),
        1 => (0..4usize).prop_map(Do::Withdraw),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// `protocol.md` 9.6 across modes: per destination all messages arrive once and in their order, and nobody is misspoken for.
    #[test]
    fn the_order_to_one_engine_stays_whoever_signs(steps in prop::collection::vec(any_do(), 1..150)) {
        const SOURCES: [&str; 5] = ["a", "s1", "s2", "s3", ""];
        const DESTINATIONS: [&str; 4] = ["b", "d1", "d2", "d3"];
        let mut pair = delegating(Profile::Local);
        let mut pushed: HashMap<String, Vec<(String, Vec<u8>)>> = HashMap::new();
        let mut known = vec!["a"];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Do::Push { source, destination, bytes } => {
                    let mut payload = term::of_size(bytes);
                    payload[6..10].copy_from_slice(&(number as u32).to_le_bytes());
                    let (source, destination) = (SOURCES[source], DESTINATIONS[destination]);
                    pair.alice.cast(source, destination, &payload).unwrap();
                    pushed.entry(destination.into()).or_default().push((source.into(), payload));
                }
                Do::Settle => pair.settle(),
                Do::Announce { source, delegate } => {
                    pair.alice.export_with(SOURCES[source], delegate);
                    known.push(SOURCES[source]);
                }
                Do::Withdraw(source) => pair.alice.withdraw(SOURCES[source], ForgetReason::Withdrawn),
            }
        }
        pair.settle();
        prop_assert!(pair.alice.is_up() && pair.bob.is_up(), "{:?}", pair.bob.fault);
        let mut arrived: HashMap<String, Vec<(String, Vec<u8>)>> = HashMap::new();
        for event in pair.bob.take_events() {
            if let Seen::Deliver { destination, source, payload, .. } = event {
                arrived.entry(destination).or_default().push((source, payload));
            }
        }
        prop_assert_eq!(arrived.len(), pushed.len());
        for (destination, sent) in pushed {
            let got = &arrived[&destination];
            prop_assert_eq!(got.len(), sent.len());
            for ((source, payload), (sender, original)) in got.iter().zip(&sent) {
                prop_assert_eq!(payload, original);
                // As itself, or as the realm where it is not announced.
                prop_assert!(source == sender || source.is_empty(), "{} for {}", source, sender);
                prop_assert!(source.is_empty() || known.contains(&source.as_str()));
            }
        }
        for counter in ["not_delegated", "mode_refused", "bad_signature"] {
            prop_assert_eq!(pair.bob.count(counter), 0);
        }
    }
}
