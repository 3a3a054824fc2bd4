//! Handshakes and data between two honest ends.

use legation_channel::channel::Profile;
use legation_channel::error::{ApiMisuse, ChannelError};
use proptest::prelude::*;

use crate::pair::{contexts, deliver, sealed, waiting, Pair, PROFILES};

#[test]
fn both_ends_of_every_profile_establish_the_same_binding() {
    for profile in PROFILES {
        let pair = Pair::established(profile, 0);
        let initiator = pair.initiator.established().unwrap();
        assert_eq!(initiator.binding, pair.responder.established().unwrap().binding);
        assert_ne!(initiator.binding, [0; 32]);
        assert_eq!(pair.initiator.profile(), profile);
        assert_eq!(pair.responder.profile(), profile);
        assert!(pair.at_initiator.is_empty() && pair.at_responder.is_empty());
    }
}

#[test]
fn each_run_has_a_binding_of_its_own() {
    for profile in PROFILES {
        let [first, second] =
            [0, 1].map(|run| Pair::established(profile, run).initiator.established().unwrap().binding);
        assert_ne!(first, second, "{profile:?}");
    }
}

#[test]
fn tls_shows_each_end_the_others_link_key() {
    let pair = Pair::established(Profile::Tls, 0);
    let [initiators, responders] = contexts().each_ref().map(|context| Some(*context.link_key()));
    let (initiator, responder) = (pair.initiator.established().unwrap(), pair.responder.established().unwrap());
    assert_eq!((initiator.own_link_key, initiator.peer_link_key), (initiators, responders));
    assert_eq!((responder.own_link_key, responder.peer_link_key), (responders, initiators));
}

#[test]
fn local_and_plain_have_no_link_keys() {
    for profile in [Profile::Local, Profile::Plain] {
        let established = *Pair::established(profile, 0).initiator.established().unwrap();
        assert_eq!((established.own_link_key, established.peer_link_key), (None, None));
    }
}

#[test]
fn the_initiator_speaks_first() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile, 0);
        assert!(waiting(&mut *pair.responder).is_empty(), "{profile:?}");
        assert!(!waiting(&mut *pair.initiator).is_empty(), "{profile:?}");
    }
}

#[test]
fn handshakes_and_data_pass_one_byte_at_a_time() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile, 0);
        pair.settle(1).unwrap();
        assert!(pair.is_established());
        exchange(&mut pair, b"there", b"and back", |_| 1);
    }
}

#[test]
fn what_is_larger_than_any_record_passes_both_ways() {
    let large: Vec<u8> = (0..1_000_000_u32).map(|number| (number.wrapping_mul(number) >> 7) as u8).collect();
    for profile in PROFILES {
        let mut pair = Pair::established(profile, 0);
        exchange(&mut pair, &large, &large[..300_001], |rest| rest);
        exchange(&mut pair, &large[..70_000], &large[..65_537], |_| 4_097);
    }
}

#[test]
fn bytes_wait_for_the_handshake_and_nothing_is_sealed_before_it() {
    for profile in PROFILES {
        for channel in [&mut Pair::new(profile, 0).initiator, &mut Pair::new(profile, 0).responder] {
            let mut out = Vec::new();
            assert_eq!(channel.seal(b"early", &mut out), Err(ChannelError::ApiMisuse(ApiMisuse::NotEstablished)));
            assert!(out.is_empty());
        }
    }
}

#[test]
fn a_seal_takes_the_waiting_handshake_bytes_along_in_order() {
    for profile in PROFILES {
        let mut pair = Pair::new(profile, 0);
        let hello = waiting(&mut *pair.initiator);
        deliver(&mut *pair.responder, &hello, &mut pair.at_responder, |rest| rest).unwrap();
        if pair.responder.established().is_some() {
            // local, plain: the responder may send at once.
            let flight = sealed(&mut *pair.responder, b"first");
            deliver(&mut *pair.initiator, &flight, &mut pair.at_initiator, |rest| rest).unwrap();
            assert_eq!(pair.at_initiator, b"first");
        } else {
            // tls: the initiator sends with its last flight.
            let flight = waiting(&mut *pair.responder);
            deliver(&mut *pair.initiator, &flight, &mut pair.at_initiator, |rest| rest).unwrap();
            let flight = sealed(&mut *pair.initiator, b"first");
            deliver(&mut *pair.responder, &flight, &mut pair.at_responder, |rest| rest).unwrap();
            assert_eq!(pair.at_responder, b"first");
        }
    }
}

#[test]
fn nothing_is_sealed_after_close_and_the_peer_gets_what_was_before() {
    for profile in PROFILES {
        let mut pair = Pair::established(profile, 0);
        let mut bytes = sealed(&mut *pair.initiator, b"last words");
        pair.initiator.close(&mut bytes);
        let before = bytes.len();
        assert_eq!(pair.initiator.seal(b"more", &mut bytes), Err(ChannelError::ApiMisuse(ApiMisuse::Closed)));
        assert_eq!(bytes.len(), before);
        deliver(&mut *pair.responder, &bytes, &mut pair.at_responder, |rest| rest).unwrap();
        assert_eq!(pair.at_responder, b"last words");
    }
}

#[test]
fn what_follows_a_close_notify_is_ignored() {
    let mut pair = Pair::established(Profile::Tls, 0);
    let mut bytes = Vec::new();
    pair.initiator.close(&mut bytes);
    bytes.extend_from_slice(&[0xff; 40_000]);
    pair.responder.handle_bytes(&bytes, &mut pair.at_responder).unwrap();
    pair.responder.handle_bytes(&[0xff; 40_000], &mut pair.at_responder).unwrap();
    assert!(pair.at_responder.is_empty());
}

#[test]
fn sealing_nothing_sends_nothing() {
    for profile in PROFILES {
        let mut pair = Pair::established(profile, 0);
        assert!(sealed(&mut *pair.initiator, b"").is_empty());
    }
}

#[test]
fn channels_of_different_profiles_do_not_establish_the_same_binding() {
    for (one, other) in
        [(Profile::Local, Profile::Plain), (Profile::Tls, Profile::Plain), (Profile::Tls, Profile::Local)]
    {
        let mut pair = Pair::new(one, 0);
        pair.responder = Pair::new(other, 0).responder;
        let _ = pair.settle(usize::MAX);
        if let (Some(initiator), Some(responder)) = (pair.initiator.established(), pair.responder.established()) {
            assert_ne!(initiator.binding, responder.binding);
        }
    }
}

fn exchange(pair: &mut Pair, there: &[u8], back: &[u8], cut: impl FnMut(usize) -> usize + Copy) {
    pair.at_responder.clear();
    pair.at_initiator.clear();
    let bytes = sealed(&mut *pair.initiator, there);
    deliver(&mut *pair.responder, &bytes, &mut pair.at_responder, cut).unwrap();
    let bytes = sealed(&mut *pair.responder, back);
    deliver(&mut *pair.initiator, &bytes, &mut pair.at_initiator, cut).unwrap();
    assert!(pair.at_responder == there && pair.at_initiator == back);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_cut_of_the_stream_gives_the_same(
        profile in prop::sample::select(&PROFILES[..]),
        cuts in prop::collection::vec(prop_oneof![1..40_usize, 1..5_000_usize, 1..70_000_usize], 1..40),
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20_000), 1..6),
    ) {
        let mut cycle = cuts.iter().copied().cycle();
        let mut pair = Pair::new(profile, 0);
        pair.settle_with(|_| cycle.next().unwrap()).unwrap();
        prop_assert!(pair.is_established());

        let (mut there, mut back) = (Vec::new(), Vec::new());
        for message in &messages {
            pair.initiator.seal(message, &mut there).unwrap();
            pair.responder.seal(message, &mut back).unwrap();
        }
        deliver(&mut *pair.responder, &there, &mut pair.at_responder, |_| cycle.next().unwrap()).unwrap();
        deliver(&mut *pair.initiator, &back, &mut pair.at_initiator, |_| cycle.next().unwrap()).unwrap();
        prop_assert!(pair.at_responder == messages.concat());
        prop_assert!(pair.at_initiator == messages.concat());
    }
}
