//! A realm that has another key, or none any more: in hellos, in sessions, and over links that come and go.

use std::sync::Arc;

use legation_channel::channel::Profile;
use legation_proto::error::CloseCode;
use legation_proto::frame::FrameType;
use legation_proto::hello::SignRequest;
use legation_proto::identity::Purpose;
use legation_proto::keyring::Keyring;
use legation_proto::limits::{CLOCK_SKEW_MS, OLD_KEY_MS, ROTATIONS_MAX};
use legation_proto::receipt;
use legation_proto::rotation::Rotation;
use legation_proto::UnixMs;
use rust_tests::pair::{End, Pair, PairConfig, Seen, PROFILES};
use rust_tests::realm::{network, Realm, START};
use rust_tests::term;

fn key(number: u8) -> Keyring {
    Keyring::new(&[0xC0 + number; 32], &[0; 32])
}

/// The realm's key is number `number` from now on.
fn rotate_at(realm: &Realm, number: u8, now: UnixMs) -> Rotation {
    let next = key(number);
    let rotation = realm.keyring.sign_rotation(next.public(), &network().id(), now).unwrap();
    realm.keyring.rotate(&next, rotation.clone()).unwrap();
    rotation
}

fn rotate(realm: &Realm, number: u8) -> Rotation {
    rotate_at(realm, number, START)
}

/// The realm has had so many keys more.
fn rotate_times(realm: &Realm, count: u8) {
    for number in 1..=count {
        rotate(realm, number);
    }
}

/// The realm as a process has it that was started with the key it had so many rotations ago: a thief's, say.
fn with_rotations(realm: &Realm, seed: [u8; 32], count: usize) -> Realm {
    let chain = realm.keyring.identity().chain()[..count].to_vec();
    Realm::of(Keyring::new(&seed, &[7; 32]).with_chain(chain, None).unwrap(), [9; 32])
}

fn revoke(realm: &Realm) {
    let revocation = realm.keyring.sign_revocation(&network().id()).unwrap();
    realm.keyring.revoke(revocation).unwrap();
}

/// Alice's announcements, anew.
fn announce_again(pair: &mut Pair) {
    let now = pair.now;
    pair.alice.certify(now);
    pair.alice.export("a");
}

fn cast(pair: &mut Pair, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        let source = if number % 2 == 0 { "a" } else { "" };
        pair.alice.cast(source, "b", &term::number(number)).unwrap();
    }
}

fn numbers(payloads: Vec<Vec<u8>>) -> Vec<u32> {
    payloads.iter().map(|payload| u32::from_be_bytes(payload[2..6].try_into().unwrap())).collect()
}

fn up(config: &PairConfig) -> Pair {
    let mut pair = Pair::new(config.clone());
    pair.settle();
    pair
}

#[test]
fn a_realm_that_has_rotated_is_known_by_its_first_key() {
    for profile in PROFILES {
        for (alices, bobs) in [(1, 0), (0, 1), (3, 2), (ROTATIONS_MAX as u8, ROTATIONS_MAX as u8)] {
            let config = PairConfig::of(profile);
            rotate_times(&config.realms[0], alices);
            rotate_times(&config.realms[1], bobs);
            let mut pair = Pair::up(config);
            cast(&mut pair, 0..4);
            pair.settle();
            assert_eq!(numbers(pair.bob.take_payloads()), [0, 1, 2, 3]);
            let agreed = pair.bob.session().agreed().clone();
            assert_eq!(agreed.peer_realm_key(), &Realm::alice().key());
            assert_eq!(agreed.peer_chain.len(), usize::from(alices));
        }
    }
}

#[test]
fn a_session_goes_on_through_a_rotation_and_loses_nothing() {
    for profile in PROFILES {
        let mut pair = Pair::up(PairConfig::of(profile));
        let mut next = 0..;
        let mut some = |pair: &mut Pair| cast(pair, next.by_ref().take(10));
        for number in 1..=3 {
            some(&mut pair);
            let rotation = rotate(&pair.alice.realm, number);
            // Signed by the key that the peer knows, whatever has become of it here.
            some(&mut pair);
            announce_again(&mut pair);
            some(&mut pair);
            pair.settle();
            let events = pair.bob.events.clone();
            assert!(events.contains(&Seen::Rotated { serial: number.into(), key: rotation.new }), "{events:?}");
            assert!(events
                .iter()
                .any(|event| matches!(event, Seen::Learned(learn) if learn.key == key(number).engine_public("a"))));
        }
        some(&mut pair);
        pair.settle();
        assert_eq!(numbers(pair.bob.take_payloads()), (0..100).collect::<Vec<_>>());
        for counter in ["bad_signature", "bad_announcement", "stale_announcement"] {
            assert_eq!(pair.bob.count(counter), 0, "{counter}");
        }
        assert_eq!(pair.bob.count("rotations"), 3);
    }
}

#[test]
fn a_rotation_is_told_before_anything_that_the_new_key_signs_and_once() {
    let mut pair = Pair::up(PairConfig::of(Profile::Local));
    rotate(&pair.alice.realm, 1);
    pair.alice.export("c");
    let wake = pair.alice.session().tell_identity();
    assert!(!wake, "it is on its way");
    pair.settle();
    assert!(matches!(pair.bob.events[..], [Seen::Rotated { serial: 1, .. }, Seen::Learned(_)]));
    // By itself, when there is nothing to announce.
    rotate(&pair.alice.realm, 2);
    let wake = pair.alice.session().tell_identity();
    pair.alice.woken(wake);
    pair.settle();
    assert_eq!(pair.bob.count("rotations"), 2);
}

#[test]
fn what_was_rotated_while_the_hello_was_on_its_way_is_told_in_the_session() {
    for rotator in End::BOTH {
        let mut pair = Pair::new(PairConfig::of(Profile::Local));
        // The hello of the one is sent, that of the other not yet.
        let (alice, bob) = (pair.alice.realm.clone(), pair.bob.realm.clone());
        pair.advance(11);
        rotate(if rotator == End::Alice { &alice } else { &bob }, 1);
        pair.settle();
        for end in End::BOTH {
            let now = pair.now;
            pair[end].certify(now);
            pair[end].export("a");
        }
        pair.settle();
        for end in End::BOTH {
            assert!(pair[end].is_up());
            assert!(pair[end].events.iter().any(|event| matches!(event, Seen::Learned(_))), "{rotator:?} {end:?}");
            assert_eq!(pair[end].count("bad_announcement"), 0);
        }
    }
}

#[test]
fn a_rotation_that_was_lost_with_its_link_comes_on_the_next() {
    let config = PairConfig::of(Profile::Plain);
    let mut pair = Pair::up(config.clone());
    cast(&mut pair, 0..5);
    pair.settle();
    rotate(&pair.alice.realm, 1);
    announce_again(&mut pair);
    cast(&mut pair, 5..10);
    pair.alice.flush();
    pair.lose();
    rotate(&pair.alice.realm, 2);
    announce_again(&mut pair);
    cast(&mut pair, 10..15);
    let mut received = numbers(pair.bob.take_payloads());
    // The new hello tells of both, and then they come again in their places.
    let mut pair = pair.another(&config, false);
    pair.settle();
    assert!(pair.bob.is_up() && pair.bob.session().agreed().peer_chain.is_empty(), "it is the same session");
    received.extend(numbers(pair.bob.take_payloads()));
    assert_eq!(received, (0..15).collect::<Vec<_>>());
    assert_eq!((pair.bob.count("rotations"), pair.bob.count("bad_announcement")), (2, 0));
}

#[test]
fn an_announcement_by_the_key_before_is_taken_for_a_minute() {
    let mut pair = Pair::up(PairConfig::of(Profile::Local));
    let before = pair.alice.realm.keyring.identity();
    let by_old = |pair: &mut Pair, engine: &str| {
        let learn = legation_proto::frame::learn::Learn {
            realm: pair.alice.realm.id(),
            engine: engine.to_owned(),
            key: [1; 32],
            serial: pair.alice.next_serial(),
            not_before: 0,
            not_after: 0,
            version: 0,
            operations: 7,
            delegate: true,
        };
        let mut body = learn.body();
        body.extend_from_slice(&before.sign(Purpose::Learn, &network().id(), &learn.body()).unwrap());
        let wake = pair.alice.session().announce(FrameType::Learn, &body);
        pair.alice.woken(wake);
        pair.settle();
    };
    rotate(&pair.alice.realm, 1);
    by_old(&mut pair, "late");
    assert!(pair.bob.take_events().iter().any(|event| matches!(event, Seen::Learned(_))));
    pair.advance(OLD_KEY_MS - 20);
    by_old(&mut pair, "later");
    assert!(pair.bob.take_events().iter().any(|event| matches!(event, Seen::Learned(_))));
    pair.advance(20);
    by_old(&mut pair, "too late");
    assert_eq!(pair.bob.take_events(), []);
    assert_eq!(pair.bob.count("bad_announcement"), 1);
    // Two rotations ago is too old at any time.
    rotate(&pair.alice.realm, 2);
    by_old(&mut pair, "much too late");
    assert_eq!(pair.bob.count("bad_announcement"), 2);
}

#[test]
fn a_key_that_was_seen_to_be_replaced_gets_in_nowhere() {
    for profile in PROFILES {
        let config = PairConfig::of(profile);
        let (alice, bob) = (config.realms[0].clone(), config.realms[1].clone());
        let mut pair = Pair::up(config.clone());
        rotate(&alice, 1);
        rotate(&bob, 2);
        for end in End::BOTH {
            let wake = pair[end].session().tell_identity();
            pair[end].woken(wake);
        }
        pair.settle();
        pair.lose();
        // Whoever has the old key, as the one who dials and as the one who is dialled.
        let thief = with_rotations(&alice, [1; 32], 0);
        let refused = up(&PairConfig { realms: [thief, bob.clone()], run: 1, ..config.clone() });
        assert_eq!(refused.alice.told().map(|(code, _)| code), Some(CloseCode::StaleKey));
        assert_eq!(refused.bob.fault_code(), Some(CloseCode::StaleKey));
        assert!(!refused.bob.events.iter().any(|event| matches!(event, Seen::Decide { .. })));
        let thief = with_rotations(&bob, [2; 32], 0);
        let refused = up(&PairConfig { realms: [alice.clone(), thief], run: 2, ..config.clone() });
        assert_eq!(refused.alice.fault_code(), Some(CloseCode::StaleKey));
        // The owners do.
        assert!(up(&PairConfig { run: 3, ..config }).bob.is_up());
    }
}

#[test]
fn a_chain_that_parts_from_the_one_that_was_seen_is_refused() {
    let config = PairConfig::of(Profile::Local);
    let (alice, bob) = (config.realms[0].clone(), config.realms[1].clone());
    rotate(&alice, 1);
    assert!(up(&config).bob.is_up());
    // The thief of the first key goes another way, however far.
    let thief = Realm::alice();
    rotate(&thief, 8);
    rotate(&thief, 9);
    let refused = up(&PairConfig { realms: [thief.clone(), bob.clone()], run: 1, ..config.clone() });
    assert_eq!(refused.bob.fault_code(), Some(CloseCode::StaleKey));
    // In a session, too: whoever has made one with the first key before.
    let config = PairConfig { realms: [Realm::alice(), bob.clone()], run: 2, ..config };
    let fresh = Realm::bob();
    let mut pair = Pair::up(PairConfig { realms: [config.realms[0].clone(), fresh.clone()], ..config.clone() });
    assert!(fresh.keyring.heads().advance(&alice.id(), alice.keyring.identity().chain()).unwrap());
    rotate(&pair.alice.realm, 8);
    let wake = pair.alice.session().tell_identity();
    pair.alice.woken(wake);
    pair.settle();
    assert_eq!(pair.bob.fault_code(), Some(CloseCode::StaleKey));
}

#[test]
fn heads_that_were_written_down_hold_after_a_restart() {
    let config = PairConfig::of(Profile::Local);
    let alice = config.realms[0].clone();
    rotate(&alice, 1);
    assert!(up(&config).bob.is_up());
    let written = config.realms[1].keyring.heads().take_changed();
    let thief = with_rotations(&alice, [1; 32], 0);
    let restarted = |restore: bool| {
        let bob = Realm::bob();
        for (_, head) in written.iter().filter(|_| restore) {
            bob.keyring.heads().restore(head).unwrap();
        }
        up(&PairConfig { realms: [thief.clone(), bob], run: 1, ..config.clone() })
    };
    assert_eq!(restarted(true).bob.fault_code(), Some(CloseCode::StaleKey));
    assert!(restarted(false).bob.is_up(), "who remembers nothing can't know");
}

#[test]
fn a_rotation_is_not_in_force_before_its_time() {
    let config = PairConfig::of(Profile::Local);
    rotate_at(&config.realms[0], 1, START + CLOCK_SKEW_MS + 100);
    let refused = up(&config);
    assert_eq!(refused.bob.fault_code(), Some(CloseCode::Expired));
    assert!(up(&PairConfig { run: 1, now: START + 100, ..config }).bob.is_up());

    let mut pair = Pair::up(PairConfig::of(Profile::Local));
    let now = pair.now;
    rotate_at(&pair.alice.realm, 1, now + 10 + CLOCK_SKEW_MS + 1);
    let wake = pair.alice.session().tell_identity();
    pair.alice.woken(wake);
    pair.settle();
    assert_eq!(pair.bob.fault_code(), Some(CloseCode::Expired));
}

#[test]
fn an_own_revocation_ends_each_session_and_holds_for_whoever_comes_later() {
    for profile in PROFILES {
        let config = PairConfig::of(profile);
        let mut pair = Pair::up(config.clone());
        revoke(&pair.alice.realm);
        let wake = pair.alice.session().tell_identity();
        pair.alice.woken(wake);
        pair.settle();
        assert_eq!(pair.bob.fault_code(), Some(CloseCode::Revoked));
        assert_eq!(pair.alice.told().map(|(code, _)| code), Some(CloseCode::Revoked));
        // Neither the key nor one that it would sign.
        for rotations in 0..2 {
            let alice = Realm::alice();
            rotate_times(&alice, rotations);
            let realms = [alice, pair.bob.realm.clone()];
            let refused = up(&PairConfig { realms, run: 1 + u32::from(rotations), ..config.clone() });
            assert_eq!(refused.alice.told().map(|(code, _)| code), Some(CloseCode::Revoked));
        }
    }
}

#[test]
fn who_was_not_there_hears_of_the_revocation_by_the_next_hello() {
    for revoked in End::BOTH {
        for rotations in 0..2 {
            let config = PairConfig::of(Profile::Plain);
            let realm = &config.realms[revoked as usize];
            rotate_times(realm, rotations);
            revoke(realm);
            let id = realm.id();
            let refused = up(&config);
            let (told, other) = (&refused[revoked], &refused[revoked.other()]);
            assert_eq!(told.told().map(|(code, _)| code), Some(CloseCode::Revoked));
            assert_eq!(other.fault_code(), Some(CloseCode::Revoked));
            assert!(other.realm.keyring.heads().is_revoked(&id));
        }
    }
}

#[test]
fn a_stranger_can_neither_fill_the_memory_of_heads_nor_revoke_for_others() {
    let mut config = PairConfig::of(Profile::Local);
    config.admit = rust_tests::pair::Admit::Refuse(CloseCode::Unlisted);
    rotate(&config.realms[0], 1);
    revoke(&config.realms[0]);
    let refused = up(&config);
    assert_eq!(refused.alice.told().map(|(code, _)| code), Some(CloseCode::Unlisted));
    assert!(config.realms[1].keyring.heads().take_changed().is_empty());

    // A revocation that the old key makes, once the new one is known.
    let mut pair = Pair::up(PairConfig::of(Profile::Local));
    let old = pair.alice.realm.keyring.sign_revocation(&network().id()).unwrap();
    rotate(&pair.alice.realm, 1);
    let session = pair.alice.session();
    let wake = session.tell_identity() | session.announce(FrameType::Revoke, &old.encode());
    pair.alice.woken(wake);
    pair.settle();
    assert_eq!(pair.bob.fault_code(), Some(CloseCode::BadSignature));
    assert!(!pair.bob.realm.keyring.heads().is_revoked(&pair.alice.realm.id()));
}

#[test]
fn whom_we_have_revoked_is_neither_let_in_nor_dialled_with_success() {
    let config = PairConfig::of(Profile::Local);
    let [alice, bob] = config.realms.clone();
    bob.keyring.heads().revoke(&alice.id());
    let refused = up(&config);
    assert_eq!(refused.alice.told().map(|(code, _)| code), Some(CloseCode::Revoked));
    let config = PairConfig { realms: [bob, alice.clone()], dialled: alice.key(), run: 1, ..config };
    assert_eq!(up(&config).alice.fault_code(), Some(CloseCode::Revoked));
}

#[test]
fn a_receipt_leads_from_the_first_key_to_the_one_that_signed() {
    let config = PairConfig::of(Profile::Local);
    let first = config.realms[0].key();
    let mut pair = Pair::up(config);
    pair.bob.session().make_receipts_for(std::iter::once("b".into()));
    let mut keys = vec![first];
    for number in 0..3 {
        if number > 0 {
            keys.push(rotate(&pair.alice.realm, number).new);
            announce_again(&mut pair);
        }
        for source in ["a", ""] {
            pair.alice.cast(source, "b", &term::number(u32::from(number))).unwrap();
            pair.settle();
            let receipts: Vec<Vec<u8>> = pair
                .bob
                .take_events()
                .into_iter()
                .filter_map(|event| match event {
                    Seen::Deliver { receipt, .. } => receipt,
                    _ => None,
                })
                .collect();
            let [receipt] = &receipts[..] else { panic!("{} receipts", receipts.len()) };
            assert_eq!(receipt[0], if number == 0 { 1 } else { 2 });
            for known in &keys {
                let verified = receipt::verify(receipt, known, &network().id().0).unwrap();
                assert_eq!((&*verified.source_engine, verified.source), (source, pair.alice.realm.id()));
            }
            assert!(receipt::verify(receipt, key(9).public(), &network().id().0).is_err());
            if number > 0 {
                // Each byte of the first rotation counts, and so does their number.
                for at in [171, 173, 173 + 40, 173 + 70, 173 + 96, 173 + 104, 173 + 112] {
                    let mut wrong = receipt.clone();
                    wrong[at] ^= 1;
                    assert!(receipt::verify(&wrong, &first, &network().id().0).is_err(), "{at}");
                }
                let mut none = receipt.clone();
                none[171] = 0;
                assert!(receipt::verify(&none, &first, &network().id().0).is_err());
            }
        }
    }
}

#[test]
fn an_agent_that_signs_for_the_hello_is_asked_as_before() {
    let config = PairConfig { external: true, ..PairConfig::of(Profile::Local) };
    let pair = up(&config);
    assert!(pair.bob.is_up());
    let asked = |event: &Seen| matches!(event, Seen::Sign(SignRequest { purpose: Purpose::Hello, .. }));
    assert!(pair.alice.events.iter().any(asked));
    assert!(Arc::clone(pair.alice.signer.as_ref().unwrap()).holds_identity());
}
