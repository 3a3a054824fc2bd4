//! Knock, channel and hello (`protocol.md` 4 to 7), as both ends and as a prober see them. The answer: `answer.rs`.

use std::sync::{Arc, Mutex};

use legation_channel::channel::Profile;
use legation_channel::knock::{KnockMemory, KnockRefused, KnockSettings};
use legation_channel::link::LinkFault;
use legation_proto::certificate::LinkCertificate;
use legation_proto::error::{CloseCode, HelloRefused, LinkError};
use legation_proto::frame::close::Close;
use legation_proto::frame::hello::Hello;
use legation_proto::frame::FrameType;
use legation_proto::identity::{NetworkKey, Purpose, RealmId};
use legation_proto::limits::Limits;
use proptest::prelude::*;
use rust_tests::pair::{fresh_memory, Admit, End, Pair, PairConfig, Seen, PROFILES};
use rust_tests::raw_batch::frame;
use rust_tests::raw_peer::{RawPeer, RawPeerConfig, Versus};
use rust_tests::realm::{network, Realm, START};

fn refused(error: HelloRefused) -> Option<LinkFault> {
    Some(LinkFault::Protocol(LinkError::Refused(error)))
}

/// A raw alice dials bob with a hello changed by `twist`, properly signed.
fn hello_twisted(profile: Profile, twist: impl FnMut(&mut Hello) + 'static) -> Versus {
    let mut versus = Versus::dialling(RawPeerConfig::dialling(profile), Limits::default());
    versus.peer.hello_twist = Some(Box::new(twist));
    versus.settle();
    versus
}

/// The same, for changes that [`Hello`] can't express: of the body, which is signed again.
fn body_twisted(profile: Profile, mut twist: impl FnMut(&mut Vec<u8>) + 'static) -> Versus {
    let mut versus = Versus::dialling(RawPeerConfig::dialling(profile), Limits::default());
    versus.peer.body_twist = Some(Box::new(move |body| {
        body.truncate(body.len() - 64);
        twist(body);
        let signature = Realm::alice().keyring.sign(Purpose::Hello, &network().id(), body).unwrap();
        body.extend_from_slice(&signature);
    }));
    versus.settle();
    versus
}

/// Length of the extensions, and what stands there.
fn with_extensions(body: &mut Vec<u8>, extensions: &[u8]) {
    body[288..290].copy_from_slice(&(extensions.len() as u16).to_le_bytes());
    body.extend_from_slice(extensions);
}

#[test]
fn every_profile_comes_up_and_both_ends_agree() {
    for profile in PROFILES {
        for external in [false, true] {
            let mut pair = Pair::new(PairConfig { external, ..PairConfig::of(profile) });
            pair.settle();
            let (alice, bob) = (pair.alice.session(), pair.bob.session());
            let (alice, bob) = (alice.agreed(), bob.agreed());
            assert_eq!((alice.session, alice.version), (bob.session, bob.version));
            assert_eq!((alice.peer, bob.peer), (bob.own, alice.own));
            assert_eq!(
                (alice.peer_key.to_bytes(), bob.peer_key.to_bytes()),
                (Realm::bob().key(), Realm::alice().key())
            );
            assert!(pair.bob.events.contains(&Seen::Decide { peer: Realm::alice().id(), resume: None }));
        }
    }
}

#[test]
fn the_session_id_is_the_one_of_the_specification() {
    let mut versus = Versus::dialling(RawPeerConfig::dialling(Profile::Local), Limits::default());
    versus.settle();
    let (ours, _, _) = Hello::decode(&versus.peer.hello_sent).unwrap();
    let (theirs, _, _) = Hello::decode(&versus.peer.hello_received).unwrap();
    let material = [ours.own.0, theirs.own.0, ours.random, theirs.random].concat();
    let expected = blake3::derive_key("legation/1/session", &material);
    assert_eq!(versus.side.session().agreed().session, expected);
    assert_eq!(versus.peer.agreed.unwrap().session, expected);
}

#[test]
fn a_handshake_in_pieces_of_any_size_comes_up() {
    for profile in PROFILES {
        for size in (1..80).chain([100, 200, 300, 400, 500]) {
            let mut pair = Pair::new(PairConfig::of(profile));
            pair.cut = Some(Box::new(move |_| size));
            pair.settle();
            assert!(pair.alice.is_up() && pair.bob.is_up(), "{profile:?} in pieces of {size}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_handshake_and_a_message_cut_at_random_come_through(
        profile in prop::sample::select(&PROFILES),
        sizes in prop::collection::vec(1usize..150, 1..40),
    ) {
        let mut pair = Pair::new(PairConfig::of(profile));
        let mut at = 0;
        pair.cut = Some(Box::new(move |_| { at += 1; sizes[at % sizes.len()] }));
        pair.settle();
        pair.alice.certify(pair.now);
        pair.alice.cast("", "b", &rust_tests::term::text("cut")).unwrap();
        pair.settle();
        prop_assert_eq!(pair.bob.take_payloads(), [rust_tests::term::text("cut")]);
    }
}

#[test]
fn a_dialler_with_the_wrong_network_key_gets_not_a_byte() {
    for profile in [Profile::Tls, Profile::Plain] {
        for wrong in [NetworkKey::new([10; 32]), NetworkKey::none()] {
            let mut pair = Pair::new(PairConfig { networks: [wrong, network()], ..PairConfig::of(profile) });
            pair.settle();
            assert_eq!(pair.bob.fault, Some(LinkFault::Knock(KnockRefused::BadMac)));
            assert!(pair.bob.sent.is_empty());
            assert_eq!(pair.bob.events.len(), 1, "no event but the fault");
        }
    }
}

#[test]
fn whoever_dials_another_realm_than_answers_gets_not_a_byte() {
    for profile in [Profile::Tls, Profile::Plain] {
        let carol = Realm::number(3).key();
        let mut pair = Pair::new(PairConfig { dialled: carol, ..PairConfig::of(profile) });
        pair.settle();
        assert_eq!(pair.bob.fault, Some(LinkFault::Knock(KnockRefused::BadMac)));
        assert!(pair.bob.sent.is_empty());
    }
}

#[test]
fn where_there_is_no_knock_a_hello_for_another_realm_is_told_so() {
    let mut pair = Pair::new(PairConfig { dialled: Realm::number(3).key(), ..PairConfig::of(Profile::Local) });
    pair.settle();
    assert_eq!(pair.bob.fault, refused(HelloRefused::WrongRealm));
    assert_eq!(pair.alice.told().unwrap().0, CloseCode::WrongRealm);
}

#[test]
fn an_unlisted_realm_is_told_that_it_is_and_sees_no_hello() {
    for profile in PROFILES {
        let admit = Admit::Refuse(CloseCode::Unlisted);
        let mut pair = Pair::new(PairConfig { admit, ..PairConfig::of(profile) });
        pair.settle();
        assert_eq!(pair.alice.told().unwrap(), (CloseCode::Unlisted, "unlisted".into()));
        assert!(pair.alice.link.session().is_none() && pair.bob.link.session().is_none());
        assert!(!pair.alice.events.contains(&Seen::Up));
    }
}

#[test]
fn a_responder_that_is_not_the_realm_that_was_dialled_is_refused() {
    for profile in PROFILES {
        let carol = RawPeerConfig { realm: Realm::number(3), ..RawPeerConfig::dialled(profile) };
        let mut versus = Versus::dialled(carol, Limits::default());
        // She doesn't refuse a hello that is for bob.
        versus.settle();
        assert!(versus.peer.hello_error.is_some());
        assert!(!versus.side.is_up());

        // And when she answers as bob would, it is her key that doesn't fit, or her signature.
        for whole in [false, true] {
            let mut versus = Versus::dialled(RawPeerConfig::dialled(profile), Limits::default());
            versus.peer.hello_twist = Some(Box::new(move |hello| {
                hello.identity_key = Realm::number(3).key();
                if whole {
                    hello.own = RealmId::of(&hello.identity_key);
                }
            }));
            versus.settle();
            assert_eq!(versus.side.fault, refused(HelloRefused::WrongRealm));
            assert_eq!(versus.peer.told_code(), Some(CloseCode::WrongRealm));
        }
    }
}

#[test]
fn a_hello_that_claims_another_realm_is_refused() {
    let carol = || Realm::number(3);
    for profile in PROFILES {
        let versus = hello_twisted(profile, move |hello| hello.own = carol().id());
        assert_eq!(versus.side.fault, refused(HelloRefused::WrongRealm));
        let versus = hello_twisted(profile, move |hello| hello.identity_key = carol().key());
        assert_eq!(versus.side.fault, refused(HelloRefused::WrongRealm));
        let versus = hello_twisted(profile, move |hello| hello.peer = carol().id());
        assert_eq!(versus.side.fault, refused(HelloRefused::WrongRealm));
        // All of carol's, but her signature.
        let mut versus = hello_twisted(profile, move |hello| {
            hello.own = carol().id();
            hello.identity_key = carol().key();
        });
        assert_eq!(versus.side.fault, refused(HelloRefused::BadSignature));
        versus.assert_closed(CloseCode::BadSignature);
        assert!(!versus.side.events.iter().any(|event| matches!(event, Seen::Decide { .. })));
    }
}

#[test]
fn a_hello_made_for_another_channel_is_refused() {
    for profile in PROFILES {
        let mut versus = hello_twisted(profile, |hello| hello.binding[31] ^= 1);
        assert_eq!(versus.side.fault, refused(HelloRefused::WrongChannel));
        versus.assert_closed(CloseCode::Protocol);
        versus.settle();
    }
}

#[test]
fn a_hello_relayed_by_somebody_between_is_refused() {
    for profile in PROFILES {
        // Mallory answers alice, and dials bob as alice with alice's own hello.
        let mut to_alice = Versus::dialled(RawPeerConfig::dialled(profile), Limits::default());
        to_alice.settle();
        let stolen = to_alice.peer.hello_received.clone();
        assert_eq!(Hello::decode(&stolen).unwrap().0.own, Realm::alice().id());

        let mallory = RawPeerConfig { realm: Realm::number(66), ..RawPeerConfig::dialling(profile) };
        let mut to_bob = Versus::dialling(mallory, Limits::default());
        to_bob.peer.body_twist = Some(Box::new(move |body| *body = stolen.clone()));
        to_bob.settle();
        assert_eq!(to_bob.side.fault, refused(HelloRefused::WrongChannel));
        assert!(to_bob.side.link.session().is_none());
    }
}

#[test]
fn a_hello_of_an_earlier_link_is_refused() {
    for profile in PROFILES {
        let mut earlier = Versus::dialling(RawPeerConfig::dialling(profile), Limits::default());
        earlier.settle();
        let recorded = earlier.peer.hello_sent.clone();
        // The same randomness on alice's side is the most that a thief could arrange.
        let mut config = RawPeerConfig::dialling(profile);
        config.random.nonce = [77; 32];
        let mut later = Versus::dialling(config, Limits::default());
        later.peer.body_twist = Some(Box::new(move |body| *body = recorded.clone()));
        later.settle();
        assert_eq!(later.side.fault, refused(HelloRefused::WrongChannel));
    }
}

#[test]
fn a_reflected_hello_is_refused() {
    for profile in PROFILES {
        let mut versus = Versus::dialled(RawPeerConfig::dialled(profile), Limits::default());
        let reflected = Arc::new(Mutex::new(Vec::new()));
        let seen = reflected.clone();
        versus.peer.body_twist = Some(Box::new(move |body| *body = seen.lock().unwrap().clone()));
        // A first run tells the hello that this very alice sends: her randomness is fixed, TLS's is not.
        if profile == Profile::Tls {
            let role = |hello: &mut Hello| hello.role = 1;
            versus.peer.body_twist = None;
            versus.peer.hello_twist = Some(Box::new(role));
        } else {
            let mut first = Versus::dialled(RawPeerConfig::dialled(profile), Limits::default());
            first.settle();
            *reflected.lock().unwrap() = first.peer.hello_received;
        }
        versus.settle();
        assert_eq!(versus.side.fault_code(), Some(CloseCode::Protocol), "{:?}", versus.side.fault);
        assert!(versus.side.fault.as_ref().unwrap().to_string().contains("role"));
    }
}

#[test]
fn role_and_profile_are_not_to_be_confused() {
    for profile in PROFILES {
        for role in [0, 2, 3, 255] {
            let versus = hello_twisted(profile, move |hello| hello.role = role);
            versus_said(&versus, "role");
        }
        for other in [0, 1, 2, 3, 4].into_iter().filter(|other| *other != profile as u8) {
            let versus = hello_twisted(profile, move |hello| hello.profile = other);
            versus_said(&versus, "profile");
        }
    }
}

fn versus_said(versus: &Versus, what: &str) {
    assert_eq!(versus.side.fault_code(), Some(CloseCode::Protocol));
    assert!(versus.peer.told().unwrap().text.contains(what));
}

#[test]
fn without_a_common_version_both_sides_are_told_both_ranges() {
    for (min, max) in [(2, 7), (0, 0), (u16::MAX, u16::MAX)] {
        // As the dialled side sees it, and as the dialling side does.
        let twist = move |hello: &mut Hello| (hello.version_min, hello.version_max) = (min, max);
        let dialled = hello_twisted(Profile::Plain, twist);
        let mut dialling = Versus::dialled(RawPeerConfig::dialled(Profile::Plain), Limits::default());
        dialling.peer.hello_twist = Some(Box::new(twist));
        dialling.settle();
        for versus in [dialled, dialling] {
            versus.assert_said(CloseCode::Version, &[&format!("{min} to {max}"), "1 to 1"]);
        }
    }
    let inverted = hello_twisted(Profile::Plain, |hello| (hello.version_min, hello.version_max) = (3, 1));
    assert_eq!(inverted.peer.told_code(), Some(CloseCode::Version));
}

trait Said {
    fn assert_said(&self, code: CloseCode, texts: &[&str]);
}

impl Said for Versus {
    fn assert_said(&self, code: CloseCode, texts: &[&str]) {
        let Close { code: told, text } = self.peer.told().unwrap();
        let own = self.side.fault.as_ref().unwrap().to_string();
        assert_eq!((told, self.side.fault_code()), (code, Some(code)));
        assert!(texts.iter().all(|part| text.contains(part) && own.contains(part)), "{text} / {own}");
    }
}

#[test]
fn a_range_of_versions_that_holds_ours_is_welcome_and_so_are_unknown_features() {
    let versus = hello_twisted(Profile::Plain, |hello| {
        (hello.version_min, hello.version_max, hello.features) = (0, 9, u64::MAX);
    });
    assert_eq!(versus.side.session().agreed().version, 1);
}

#[test]
fn an_expired_link_certificate_is_refused_beyond_the_clocks_difference() {
    for (past_ms, good) in [(0, true), (30_000, true), (30_001, false), (START, false)] {
        let versus = hello_twisted(Profile::Tls, move |hello| {
            let (own, peer) = (hello.own, hello.peer);
            let link = hello.link.as_mut().unwrap();
            link.not_after = START - past_ms;
            let body = LinkCertificate::body(&own, &peer, &link.key, link.not_after);
            link.signature = Realm::alice().keyring.sign(Purpose::Link, &network().id(), &body).unwrap();
        });
        assert_eq!(versus.side.is_up(), good, "{past_ms} ms past");
        if !good {
            assert_eq!(versus.side.fault, refused(HelloRefused::Expired));
            assert_eq!(versus.peer.told_code(), Some(CloseCode::Expired));
        }
    }
}

#[test]
fn a_link_certificate_that_is_not_ours_is_refused() {
    // Its end moved without the identity, made for another peer, for another key, none at all.
    let moved = hello_twisted(Profile::Tls, |hello| hello.link.as_mut().unwrap().not_after += 1);
    assert_eq!(moved.side.fault, refused(HelloRefused::BadSignature));
    let elsewhere = hello_twisted(Profile::Tls, |hello| {
        let (own, carol) = (hello.own, Realm::number(3).id());
        let link = hello.link.as_mut().unwrap();
        let body = LinkCertificate::body(&own, &carol, &link.key, link.not_after);
        link.signature = Realm::alice().keyring.sign(Purpose::Link, &network().id(), &body).unwrap();
    });
    assert_eq!(elsewhere.side.fault, refused(HelloRefused::BadSignature));
    let other_key = hello_twisted(Profile::Tls, |hello| {
        let (own, peer) = (hello.own, hello.peer);
        let link = hello.link.as_mut().unwrap();
        link.key = *Realm::number(3).tls.link_key();
        let body = LinkCertificate::body(&own, &peer, &link.key, link.not_after);
        link.signature = Realm::alice().keyring.sign(Purpose::Link, &network().id(), &body).unwrap();
    });
    assert_eq!(other_key.side.fault, refused(HelloRefused::WrongChannel));
    let none = hello_twisted(Profile::Tls, |hello| hello.link = None);
    assert_eq!(none.side.fault, refused(HelloRefused::WrongChannel));
    let unasked = hello_twisted(Profile::Plain, |hello| {
        hello.link = Some(LinkCertificate { key: [1; 32], not_after: START, signature: [2; 64] });
    });
    assert_eq!(unasked.side.fault, refused(HelloRefused::WrongChannel));
}

#[test]
fn a_weak_identity_key_is_refused() {
    let mut weak = [0; 32];
    weak[0] = 1;
    let versus = hello_twisted(Profile::Local, move |hello| {
        hello.identity_key = weak;
        hello.own = RealmId::of(&weak);
    });
    assert_eq!(versus.side.fault, refused(HelloRefused::BadKey));
}

#[test]
fn any_flipped_byte_of_a_hello_is_refused() {
    let length = {
        let mut versus = Versus::dialling(RawPeerConfig::dialling(Profile::Local), Limits::default());
        versus.settle();
        versus.peer.hello_sent.len()
    };
    for at in 0..length {
        let mut versus = Versus::dialling(RawPeerConfig::dialling(Profile::Local), Limits::default());
        versus.peer.body_twist = Some(Box::new(move |body| body[at] ^= 0x40));
        versus.settle();
        assert!(versus.side.fault.is_some(), "byte {at}");
        assert!(versus.side.link.session().is_none());
    }
}

#[test]
fn unknown_extensions_are_ignored_unless_they_are_critical() {
    let ignored = body_twisted(Profile::Local, |body| with_extensions(body, &[7, 0, 2, 0, 9, 9, 5, 0, 0, 0]));
    assert!(ignored.side.is_up());
    let critical = body_twisted(Profile::Local, |body| with_extensions(body, &[1, 0x80, 0, 0]));
    assert_eq!(critical.peer.told_code(), Some(CloseCode::Protocol));
    for cut in 1..6 {
        let cut = body_twisted(Profile::Local, move |body| with_extensions(body, &[1, 0, 2, 0, 9, 9][..cut]));
        assert!(!cut.side.is_up());
    }
    for count in [1, 16, 255] {
        let rotations = body_twisted(Profile::Local, move |body| body[182] = count);
        let code = if count > 16 { CloseCode::TooLarge } else { CloseCode::Protocol };
        assert_eq!(rotations.peer.told_code(), Some(code));
    }
    let trailing = body_twisted(Profile::Local, |body| body.push(0));
    assert_eq!(trailing.peer.told_code(), Some(CloseCode::Protocol));
}

#[test]
fn a_hello_of_4_kib_is_taken_and_one_byte_more_is_too_large() {
    for (bytes, good) in [(4_096, true), (4_097, false)] {
        let versus = body_twisted(Profile::Plain, move |body| {
            let filler = bytes - body.len() - 64;
            let mut extension = vec![7, 0];
            extension.extend(((filler - 4) as u16).to_le_bytes());
            extension.resize(filler, 0);
            with_extensions(body, &extension);
        });
        assert_eq!(versus.side.is_up(), good);
        assert_eq!(versus.peer.told_code(), (!good).then_some(CloseCode::TooLarge));
    }
}

#[test]
fn before_the_hello_nothing_but_hello_and_close_may_come() {
    for kind in (0..=255u8).filter(|kind| *kind != 0x01 && *kind != 0x16) {
        for flags in [0, 1] {
            let mut versus = channel_only(Profile::Plain);
            // One byte of it is enough: it isn't buffered for.
            versus.peer.write(&frame(kind, flags, 8, &[0; 8])[..1]);
            versus.settle();
            assert_eq!(versus.side.fault_code(), Some(CloseCode::Protocol), "type {kind:#x}");
        }
    }
}

/// A raw peer that keeps its hello back: the channel stands, and no more.
fn channel_only(profile: Profile) -> Versus {
    let mut versus = Versus::dialling(RawPeerConfig::dialling(profile), Limits::default());
    versus.peer.keep_hello = true;
    versus.settle();
    assert!(versus.peer.binding().is_some() && versus.peer.hello_sent.is_empty());
    versus
}

#[test]
fn a_close_before_the_hello_ends_the_handshake() {
    let mut versus = channel_only(Profile::Plain);
    versus.peer.write_frame(FrameType::Close, &[12, 0, 0]);
    versus.settle();
    assert_eq!(versus.side.told(), Some((CloseCode::Shutdown, String::new())));
    assert!(versus.side.fault.is_none());
}

#[test]
fn a_second_hello_closes_the_link() {
    let mut versus = Versus::up(Profile::Plain);
    let hello = versus.peer.hello_sent.clone();
    versus.peer.write_frame(FrameType::Hello, &hello);
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);

    // And so does one that comes while the first is being decided on.
    let mut versus = Versus::dialling(RawPeerConfig::dialling(Profile::Plain), Limits::default());
    versus.side.admit = Admit::Later;
    versus.settle();
    let hello = versus.peer.hello_sent.clone();
    versus.peer.write_frame(FrameType::Hello, &hello);
    versus.settle();
    versus.assert_closed(CloseCode::Protocol);
}

#[test]
fn a_decision_that_comes_when_the_link_is_over_is_nothing() {
    for profile in PROFILES {
        for closed_by_us in [false, true] {
            let mut versus = Versus::dialling(RawPeerConfig::dialling(profile), Limits::default());
            versus.side.admit = Admit::Later;
            versus.settle();
            if closed_by_us {
                versus.side.link.close(CloseCode::Overload, "");
            } else {
                let hello = versus.peer.hello_sent.clone();
                versus.peer.write_frame(FrameType::Hello, &hello);
            }
            versus.settle();
            let mut seen = Vec::new();
            let wake = versus.side.link.accept(START, None, None, &mut |event| seen.push(format!("{event:?}")));
            assert!(!wake.link && !wake.session && seen.is_empty(), "{profile:?}: {seen:?}");
            assert!(versus.side.link.session().is_none());
            let (got, before) = (versus.peer.frames.len(), versus.peer.hello_received.clone());
            versus.settle();
            assert_eq!((versus.peer.frames.len(), versus.peer.hello_received.clone()), (got, before));
        }
    }
}

#[test]
fn a_knock_is_good_for_one_time() {
    for profile in [Profile::Tls, Profile::Plain] {
        let memory = fresh_memory(START);
        let mut first = Pair::new(PairConfig { memory: Some(memory.clone()), ..PairConfig::of(profile) });
        first.settle();
        assert!(first.alice.is_up());
        let recorded = first.alice.sent.clone();

        let mut again = Pair::new(PairConfig { memory: Some(memory), run: 1, ..PairConfig::of(profile) });
        again.bob.handle(again.now, &recorded);
        assert!(again.bob.flush().is_empty());
        assert_eq!(again.bob.fault, Some(LinkFault::Knock(KnockRefused::Replayed)));
    }
}

#[test]
fn after_a_restart_a_recorded_knock_is_from_before_it() {
    for profile in [Profile::Tls, Profile::Plain] {
        let mut first = Pair::new(PairConfig::of(profile));
        first.settle();
        let recorded = first.alice.sent.clone();
        let memory = Arc::new(Mutex::new(KnockMemory::new(KnockSettings::default(), START + 5_000)));
        let config = PairConfig { memory: Some(memory), now: START + 7_000, ..PairConfig::of(profile) };
        let mut restarted = Pair::new(PairConfig { run: 1, ..config });
        restarted.bob.handle(restarted.now, &recorded);
        assert!(restarted.bob.flush().is_empty());
        assert_eq!(restarted.bob.fault, Some(LinkFault::Knock(KnockRefused::TooEarly)));
    }
}

#[test]
fn a_whole_recorded_handshake_gets_nowhere_even_past_the_knock() {
    for profile in PROFILES {
        let mut first = Pair::up(PairConfig::of(profile));
        first.alice.cast("a", "b", &rust_tests::term::text("once")).unwrap();
        first.settle();
        // Another node of the same realm, which doesn't share the memory (17.1).
        let mut other = Pair::new(PairConfig { run: 1, ..PairConfig::of(profile) });
        let recorded = first.alice.sent.clone();
        other.bob.handle(other.now, &recorded);
        assert!(other.bob.fault.is_some(), "{profile:?}");
        assert!(other.bob.link.session().is_none());
        assert!(!other.bob.events.iter().any(|event| matches!(event, Seen::Deliver { .. } | Seen::Decide { .. })));
    }
}

#[test]
fn a_knock_for_another_profile_is_refused_in_silence() {
    let config = RawPeerConfig::dialling(Profile::Plain);
    let mut peer = RawPeer::new(config);
    let mut pair = Pair::new(PairConfig::of(Profile::Tls));
    let first_flight = peer.take_out();
    pair.bob.handle(START, &first_flight);
    assert!(matches!(pair.bob.fault, Some(LinkFault::Knock(_))));
    assert!(pair.bob.flush().is_empty());
}

#[test]
fn a_knock_too_far_from_our_clock_is_refused() {
    for (behind, good) in [(0, true), (30_000, true), (30_001, false)] {
        let mut config = RawPeerConfig::dialling(Profile::Plain);
        let memory = Some(fresh_memory(START - 100_000));
        config.now = START - behind;
        let mut versus = Versus::dialling_with(config, Limits::default(), memory);
        versus.now = START;
        versus.settle();
        assert_eq!(versus.side.is_up(), good, "{behind} ms behind");
    }
}

#[test]
fn a_handshake_that_stalls_is_over_after_five_seconds() {
    for profile in PROFILES {
        for silent in End::BOTH {
            let mut pair = Pair::new(PairConfig::of(profile));
            pair.tamper = Some(Box::new(move |end, bytes| {
                if end == silent {
                    bytes.clear()
                }
            }));
            pair.advance(4_999);
            assert!(pair[silent.other()].fault.is_none());
            pair.advance(1);
            assert_eq!(pair[silent.other()].fault, refused(HelloRefused::TimedOut));
            assert_eq!(pair[silent].fault, refused(HelloRefused::TimedOut));
        }
    }
}

#[test]
fn a_decision_that_never_comes_times_out_and_the_dialler_is_told() {
    for profile in PROFILES {
        let mut pair = Pair::new(PairConfig { admit: Admit::Later, ..PairConfig::of(profile) });
        pair.settle();
        pair.advance(6_000);
        assert_eq!(pair.bob.fault, refused(HelloRefused::TimedOut));
        // Alice's own clock runs out at the same time; the word from bob is on its way then.
        assert!(pair.alice.is_over());
    }
}

#[test]
fn a_handshake_cut_off_at_any_byte_leaves_nothing_and_ends_in_time() {
    for profile in PROFILES {
        let mut whole = Pair::new(PairConfig::of(profile));
        whole.settle();
        let lengths = [whole.alice.sent.len(), whole.bob.sent.len()];
        for end in End::BOTH {
            for limit in 0..lengths[end as usize] {
                let mut pair = Pair::new(PairConfig::of(profile));
                let mut left = limit;
                pair.tamper = Some(Box::new(move |from, bytes| {
                    if from == end {
                        bytes.truncate(left);
                        left -= bytes.len();
                    }
                }));
                pair.settle();
                let other = end.other();
                assert!(!pair[other].events.contains(&Seen::Up), "{profile:?} {end:?} at {limit}");
                assert!(pair[other].fault.is_none(), "a stalled stream is no fault yet");
                pair.advance(5_000);
                assert_eq!(pair[other].fault, refused(HelloRefused::TimedOut));
            }
        }
    }
}

#[test]
fn any_flipped_byte_of_the_carrier_before_the_session_keeps_it_from_standing() {
    // On `local` the operating system vouches for the carrier; what the hello signs is safe there, too.
    for profile in PROFILES {
        let mut whole = Pair::new(PairConfig::of(profile));
        whole.settle();
        let lengths = [whole.alice.sent.len(), whole.bob.sent.len()];
        for end in End::BOTH {
            let ignored = if profile == Profile::Tls { record_versions(end, &whole[end].sent) } else { Vec::new() };
            for flip in (0..lengths[end as usize]).filter(|at| !ignored.contains(at)) {
                let mut pair = Pair::new(PairConfig::of(profile));
                let mut at = flip;
                let mut done = false;
                pair.tamper = Some(Box::new(move |from, bytes| {
                    if from == end && !done {
                        match bytes.get_mut(at) {
                            Some(byte) => {
                                *byte ^= 0x10;
                                done = true;
                            }
                            None => at -= bytes.len(),
                        }
                    }
                }));
                pair.settle();
                pair.advance(5_000);
                assert!(!pair[end.other()].events.contains(&Seen::Up), "{profile:?} {end:?} at {flip}");
            }
        }
    }
}

/// Where the legacy version stands in the header of each TLS record: nobody may look at it (RFC 8446 5.1). What is in knock and answer
/// is under their MACs.
fn record_versions(end: End, sent: &[u8]) -> Vec<usize> {
    let header = if end == End::Alice { 60 } else { 34 };
    let mut at = header + usize::from(u16::from_le_bytes([sent[header - 2], sent[header - 1]]));
    let mut versions = Vec::new();
    while at < sent.len() {
        versions.extend([at + 1, at + 2]);
        at += 5 + usize::from(u16::from_be_bytes([sent[at + 3], sent[at + 4]]));
    }
    versions
}

#[test]
fn the_end_of_a_handshake_can_be_told_from_outside() {
    let mut pair = Pair::new(PairConfig { admit: Admit::Later, ..PairConfig::of(Profile::Tls) });
    pair.settle();
    pair.bob.close(CloseCode::Overload, "too many");
    pair.settle();
    assert_eq!(pair.alice.told(), Some((CloseCode::Overload, "too many".into())));
}
