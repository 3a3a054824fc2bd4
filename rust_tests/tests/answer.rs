//! The answer (`protocol.md` 4.6 to 4.9) as who dials sees it: who can't make one learns nothing but that somebody dials.

use legation_channel::answer::AnswerRefused;
use legation_channel::channel::Profile;
use legation_channel::link::{Link, LinkConfig, LinkFault};
use legation_proto::error::{CloseCode, HelloRefused, LinkError};
use legation_proto::identity::NetworkKey;
use legation_proto::limits::Limits;
use proptest::prelude::*;
use rust_tests::pair::{End, Pair, PairConfig, Seen, Side, PROFILES};
use rust_tests::raw_peer::{RawPeer, RawPeerConfig, Versus};
use rust_tests::realm::{fixed_random, network, Realm, START};

/// Knock or not: what a link can be dialled with.
fn ways() -> Vec<(Profile, bool)> {
    let both = |profile| [(profile, true), (profile, false)];
    [&both(Profile::Tls)[..], &both(Profile::Plain), &[(Profile::Local, false)]].concat()
}

/// Alice, who dials bob; `run` tells her randomness from that of another link.
fn alice_dials(profile: Profile, knock: bool, run: u32) -> Side {
    let alice = Realm::alice();
    let config = LinkConfig {
        profile,
        keyring: alice.keyring.clone(),
        network: network(),
        tls: alice.tls.clone(),
        limits: Limits::default(),
        random: fixed_random(run, 0),
        now: START,
    };
    let link = Link::connect(config, &Realm::bob().key(), knock, None).unwrap();
    let mut side = Side::new(link, alice, network());
    side.tick(START);
    side
}

fn bob_answers(profile: Profile, knock: bool) -> RawPeer {
    RawPeer::new(RawPeerConfig { knock, ..RawPeerConfig::dialled(profile) })
}

/// Bytes to and fro until there are none.
fn settle(side: &mut Side, peer: &mut RawPeer) {
    loop {
        let there = side.flush();
        if !there.is_empty() {
            peer.receive(&there);
        }
        let back = peer.take_out();
        if there.is_empty() && back.is_empty() {
            return;
        }
        side.handle(START, &back);
    }
}

/// Her opening, and not a byte of hers behind it, whatever happens.
fn said_nothing(mut side: Side, opening: &[u8], fault: Option<&LinkFault>) {
    assert_eq!(side.fault.as_ref(), fault);
    side.flush();
    side.tick(START + 5_000);
    side.flush();
    assert!(side.sent == opening, "{} bytes behind the opening", side.sent.len() - opening.len());
    assert!(side.link.session().is_none());
    assert!(side.fault.is_some(), "it ends in time");
}

const BAD_MAC: LinkFault = LinkFault::Answer(AnswerRefused::BadMac);

#[test]
fn who_answers_with_the_network_key_is_told_who_dials_so_that_these_tests_could_fail() {
    for (profile, knock) in ways() {
        let (mut alice, mut bob) = (alice_dials(profile, knock, 1), bob_answers(profile, knock));
        settle(&mut alice, &mut bob);
        assert!(alice.is_up() && bob.agreed.is_some(), "{profile:?}");
        assert!(!bob.hello_received.is_empty());
    }
}

#[test]
fn who_answers_in_a_responders_place_without_the_network_key_sees_nobody() {
    for (profile, knock) in ways() {
        for wrong in [NetworkKey::new([10; 32]), NetworkKey::none()] {
            // And without anybody's identity.
            let config =
                RawPeerConfig { network: wrong, realm: Realm::number(66), knock, ..RawPeerConfig::dialled(profile) };
            let (mut alice, mut impostor) = (alice_dials(profile, knock, 1), RawPeer::new(config));
            let opening = alice.flush();
            impostor.receive(&opening);
            alice.handle(START, &impostor.take_out());
            impostor.receive(&alice.flush());
            assert!(impostor.hello_received.is_empty() && impostor.frames.is_empty(), "{profile:?}");
            assert_eq!(impostor.bytes_in, opening.len());
            assert_eq!(alice.events, [Seen::Fault(BAD_MAC)]);
            said_nothing(alice, &opening, Some(&BAD_MAC));
        }
    }
}

#[test]
fn who_dials_learns_by_whose_fault_it_is() {
    let mut pair =
        Pair::new(PairConfig { networks: [network(), NetworkKey::none()], ..PairConfig::of(Profile::Local) });
    pair.settle();
    assert_eq!(pair.alice.fault, Some(BAD_MAC));
    assert_eq!(
        pair.alice.fault.unwrap().to_string(),
        "its MAC is wrong: another network key, or it isn't the answer to us"
    );
    assert!(pair.bob.fault.is_none() && !pair.bob.is_up(), "he hears no more");
}

#[test]
fn where_there_is_no_network_key_everybody_answers() {
    for (profile, knock) in ways() {
        let networks = [NetworkKey::none(), NetworkKey::none()];
        let mut pair = Pair::new(PairConfig { networks, knock, ..PairConfig::of(profile) });
        pair.settle();
        assert!(pair.alice.is_up() && pair.bob.is_up(), "{profile:?}");
    }
}

#[test]
fn an_answer_to_another_opening_is_refused() {
    for (profile, knock) in ways() {
        let (mut first, mut bob) = (alice_dials(profile, knock, 1), bob_answers(profile, knock));
        bob.receive(&first.flush());
        let recorded = bob.take_out();
        first.handle(START, &recorded);
        assert!(first.fault.is_none(), "it is good where it belongs");

        let mut second = alice_dials(profile, knock, 2);
        let opening = second.flush();
        second.handle(START, &recorded);
        said_nothing(second, &opening, Some(&BAD_MAC));
    }
}

#[test]
fn the_opening_is_no_answer_nor_is_another_initiators() {
    for (profile, knock) in ways() {
        let mut other = alice_dials(profile, knock, 2);
        let others = other.flush();
        let mut alice = alice_dials(profile, knock, 1);
        let opening = alice.flush();
        for said in [&opening, &others] {
            let mut alice = alice_dials(profile, knock, 1);
            // TLS draws its own randomness.
            let opening = alice.flush();
            for _ in 0..100 {
                alice.handle(START, said);
            }
            let fault = alice.fault.clone();
            assert!(matches!(fault, Some(LinkFault::Answer(_))), "{profile:?} {fault:?}");
            said_nothing(alice, &opening, fault.as_ref());
        }
        // What they say to each other.
        for _ in 0..100 {
            alice.handle(START, &others);
            other.handle(START, &opening);
        }
        said_nothing(alice, &opening, Some(&LinkFault::Answer(refused_of(&others))));
        said_nothing(other, &others, Some(&LinkFault::Answer(refused_of(&opening))));
    }
}

/// What an opening said again and again is as an answer.
fn refused_of(opening: &[u8]) -> AnswerRefused {
    let again = opening.repeat(4);
    match u16::from_le_bytes([again[32], again[33]]) {
        1..=4_096 => AnswerRefused::BadMac,
        length => AnswerRefused::Length(length),
    }
}

#[test]
fn of_an_answer_4096_bytes_are_taken_and_one_more_is_refused_by_its_header() {
    for (profile, knock) in ways() {
        let header = |length: u16| [&[1; 32][..], &length.to_le_bytes()].concat();
        let mut alice = alice_dials(profile, knock, 1);
        let opening = alice.flush();
        alice.handle(START, &header(4_096));
        alice.handle(START, &[0; 4_095]);
        assert!(alice.fault.is_none());
        alice.handle(START, &[0]);
        said_nothing(alice, &opening, Some(&BAD_MAC));

        let mut alice = alice_dials(profile, knock, 1);
        let opening = alice.flush();
        alice.handle(START, &header(4_097));
        said_nothing(alice, &opening, Some(&LinkFault::Answer(AnswerRefused::Length(4_097))));
    }
}

#[test]
fn a_responder_that_stops_anywhere_in_its_answer_hears_no_more_and_is_given_up_in_time() {
    let timed_out = LinkFault::Protocol(LinkError::Refused(HelloRefused::TimedOut));
    for profile in PROFILES {
        let whole = {
            let (mut alice, mut bob) = (alice_dials(profile, false, 1), bob_answers(profile, false));
            bob.receive(&alice.flush());
            bob.take_out().len()
        };
        for limit in 0..whole {
            let (mut alice, mut bob) = (alice_dials(profile, false, 1), bob_answers(profile, false));
            let opening = alice.flush();
            bob.receive(&opening);
            // TLS's key exchange and signature are other ones each time, and no other in length.
            alice.handle(START, &bob.take_out()[..limit]);
            assert!(alice.fault.is_none() && alice.flush().is_empty());
            alice.tick(START + 4_999);
            assert!(alice.fault.is_none());
            alice.tick(START + 5_000);
            assert_eq!(alice.fault, Some(timed_out.clone()));
            said_nothing(alice, &opening, Some(&timed_out));
        }
    }
}

#[test]
fn any_flipped_byte_of_an_answer_keeps_the_hello_back() {
    for (profile, knock) in ways() {
        let mut at = 0;
        loop {
            let (mut alice, mut bob) = (alice_dials(profile, knock, 1), bob_answers(profile, knock));
            let opening = alice.flush();
            bob.receive(&opening);
            let mut answer = bob.take_out();
            let Some(byte) = answer.get_mut(at) else { break };
            *byte ^= 1;
            alice.handle(START, &answer);
            let fault = alice.fault.clone();
            assert!(matches!(fault, Some(LinkFault::Answer(_)) | None), "{fault:?}");
            alice.flush();
            assert_eq!(alice.sent, opening, "{profile:?} at {at}");
            at += 1;
        }
        assert!(at > 34);
    }
}

#[test]
fn who_dials_and_does_not_look_at_the_answer_still_has_to_sign_for_the_network() {
    for profile in [Profile::Local, Profile::Tls] {
        let config =
            RawPeerConfig { network: NetworkKey::new([10; 32]), knock: false, ..RawPeerConfig::dialling(profile) };
        let mut versus = Versus::dialling(config, Limits::default());
        versus.peer.entry.trusting = true;
        versus.settle();
        versus.assert_closed(CloseCode::BadSignature);
    }
}

/// A limit that the protocol states (17.11), held here so that nobody takes it for a promise: what `plain` and `local` don't keep
/// secret is not secret to who passes it on, and on `tls` it is.
#[test]
fn who_passes_knock_and_answer_on_reads_what_the_profile_does_not_hide() {
    let alice = Realm::alice().key();
    for (profile, knock) in ways() {
        let mut pair = Pair::new(PairConfig { knock, ..PairConfig::of(profile) });
        pair.settle();
        assert!(pair.alice.is_up());
        let read = pair[End::Alice].sent.windows(32).any(|bytes| bytes == alice);
        assert_eq!(read, profile != Profile::Tls, "{profile:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn arbitrary_bytes_in_the_answers_place_bring_no_byte_of_ours(
        way in 0usize..5,
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..30),
        length in prop::option::of(1u16..600),
    ) {
        let (profile, knock) = ways()[way];
        let mut alice = alice_dials(profile, knock, 1);
        let opening = alice.flush();
        if let Some(length) = length {
            alice.handle(START, &[&[3; 32][..], &length.to_le_bytes()].concat());
        }
        for piece in &pieces {
            alice.handle(START, piece);
        }
        let fault = alice.fault.clone();
        prop_assert!(matches!(fault, Some(LinkFault::Answer(_)) | None));
        let late = LinkFault::Protocol(LinkError::Refused(HelloRefused::TimedOut));
        alice.tick(START + 5_000);
        said_nothing(alice, &opening, Some(&fault.unwrap_or(late)));
    }
}
