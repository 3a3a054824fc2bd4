//! The knock (`protocol.md` 4).

use legation_channel::channel::{Channel, Profile, UnixMs};
use legation_channel::error::{ApiMisuse, ChannelError};
use legation_channel::first_flight::FIRST_FLIGHT_BYTES_MAX;
use legation_channel::knock::{
    Accepted, KnockInitiator, KnockMemory, KnockRefused, KnockResponder, KnockSettings, KnockVerdict,
};
use legation_channel::local::LocalChannel;
use legation_channel::plain::PlainChannel;
use legation_proto::identity::{NetworkKey, RealmId};
use proptest::prelude::*;

use crate::pair::{deliver, tls_initiator, tls_responder, waiting, Pair};

const BOOT: UnixMs = 1_700_000_000_000;
const NOW: UnixMs = BOOT + 600_000;
const SETTINGS: KnockSettings = KnockSettings { window_ms: 30_000, boot_ms: 1_000, entries_max: 4 };
const REALMS: [RealmId; 3] = [RealmId([0xa1; 32]), RealmId([0xa2; 32]), RealmId([0xa3; 32])];

fn network() -> NetworkKey {
    NetworkKey::new([0x4e; 32])
}

fn responder() -> KnockResponder {
    KnockResponder::new(network(), REALMS)
}

fn memory() -> KnockMemory {
    KnockMemory::new(SETTINGS, BOOT)
}

/// A knock on `plain` for the second realm.
fn knock(time: UnixMs, random: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut channel = PlainChannel::initiator([1; 32], [2; 32]);
    KnockInitiator::new(network(), REALMS[1]).wrap(&mut channel, time, [random; 16], &mut bytes).unwrap();
    bytes
}

fn verdict(bytes: &[u8], memory: &mut KnockMemory, now: UnixMs) -> KnockVerdict {
    responder().handle_bytes(bytes, memory, now)
}

fn is_accepted(verdict: &KnockVerdict) -> bool {
    matches!(verdict, KnockVerdict::Accepted(_))
}

fn refused(why: KnockRefused) -> KnockVerdict {
    KnockVerdict::Refused(why)
}

#[test]
fn a_knock_selects_realm_and_profile_and_hands_over_the_first_flight() {
    let bytes = knock(NOW, 9);
    let expected = Accepted {
        realm_index: 1,
        profile: Profile::Plain,
        first_flight: waiting(&mut PlainChannel::initiator([1; 32], [2; 32])),
        hash: *blake3::hash(&bytes).as_bytes(),
        consumed: bytes.len(),
    };
    assert_eq!(verdict(&bytes, &mut memory(), NOW), KnockVerdict::Accepted(expected));
}

#[test]
fn a_knock_is_laid_out_as_the_specification_draws_it() {
    let flight = waiting(&mut PlainChannel::initiator([1; 32], [2; 32]));
    let bytes = knock(NOW, 9);
    assert_eq!(bytes[..2], [1, 3]);
    assert_eq!(bytes[2..10], NOW.to_le_bytes());
    assert_eq!(bytes[10..26], [9; 16]);
    assert_eq!(bytes[58..60], [64, 0]);
    assert_eq!(bytes[60..], flight);
    let authenticated =
        [b"legation/1/knock\0", &[3][..], &NOW.to_le_bytes(), &[9; 16], &REALMS[1].0, &[64, 0], &flight].concat();
    assert_eq!(bytes[26..58], *blake3::keyed_hash(&[0x4e; 32], &authenticated).as_bytes());
}

#[test]
fn tls_and_plain_handshake_behind_a_knock() {
    for profile in [Profile::Tls, Profile::Plain] {
        let mut pair = Pair::new(profile, 0);
        let mut bytes = Vec::new();
        KnockInitiator::new(network(), REALMS[2]).wrap(&mut *pair.initiator, NOW, [0; 16], &mut bytes).unwrap();
        assert_eq!(bytes[1], profile as u8);
        let KnockVerdict::Accepted(accepted) = verdict(&bytes, &mut memory(), NOW) else {
            panic!("refused");
        };
        assert_eq!((accepted.realm_index, accepted.profile), (2, profile));
        deliver(&mut *pair.responder, &accepted.first_flight, &mut pair.at_responder, |rest| rest).unwrap();
        pair.settle(usize::MAX).unwrap();
        assert!(pair.is_established());
    }
}

#[test]
fn the_client_hello_is_one_small_record() {
    let hello = waiting(&mut tls_initiator());
    assert_eq!(hello[0], 22);
    assert_eq!(usize::from(u16::from_be_bytes([hello[3], hello[4]])), hello.len() - 5);
    assert!(hello.len() < 512, "{}", hello.len());
}

#[test]
fn without_a_network_key_the_key_is_zeros() {
    let mut bytes = Vec::new();
    let mut channel = PlainChannel::initiator([1; 32], [2; 32]);
    KnockInitiator::new(NetworkKey::none(), REALMS[0]).wrap(&mut channel, NOW, [0; 16], &mut bytes).unwrap();
    let verdict = KnockResponder::new(NetworkKey::none(), REALMS).handle_bytes(&bytes, &mut memory(), NOW);
    assert!(is_accepted(&verdict));
}

#[test]
fn another_network_or_another_realm_is_refused() {
    let mut memory = memory();
    for (network, realm) in
        [(NetworkKey::new([0x4f; 32]), REALMS[0]), (NetworkKey::none(), REALMS[0]), (network(), RealmId([0xa4; 32]))]
    {
        let mut bytes = Vec::new();
        let mut channel = PlainChannel::initiator([1; 32], [2; 32]);
        KnockInitiator::new(network, realm).wrap(&mut channel, NOW, [0; 16], &mut bytes).unwrap();
        assert_eq!(verdict(&bytes, &mut memory, NOW), refused(KnockRefused::BadMac));
    }
    assert!(memory.is_empty(), "what was refused is remembered");
    assert_eq!(
        KnockResponder::new(network(), []).handle_bytes(&knock(NOW, 0), &mut memory, NOW),
        refused(KnockRefused::BadMac)
    );
}

#[test]
fn a_change_to_any_byte_is_refused() {
    let bytes = knock(NOW, 0);
    let mut memory = memory();
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= bit;
            // A longer length waits for more.
            changed.resize(60 + FIRST_FLIGHT_BYTES_MAX, 0);
            assert!(matches!(verdict(&changed, &mut memory, NOW), KnockVerdict::Refused(_)), "byte {at}");
        }
    }
    assert!(memory.is_empty());
    assert!(is_accepted(&verdict(&bytes, &mut memory, NOW)));
}

#[test]
fn a_knock_is_good_up_to_the_edges_of_the_window_and_not_past_them() {
    for (time, good) in
        [(NOW - 30_000, true), (NOW - 30_001, false), (NOW + 30_000, true), (NOW + 30_001, false), (u64::MAX, false)]
    {
        let verdict = verdict(&knock(time, 0), &mut memory(), NOW);
        assert_eq!(is_accepted(&verdict), good, "{verdict:?}");
        assert!(good || verdict == refused(KnockRefused::OutsideWindow));
    }
}

#[test]
fn a_knock_from_before_the_start_and_a_second_is_refused() {
    let now = BOOT + 2_000;
    assert!(is_accepted(&verdict(&knock(BOOT + 1_000, 0), &mut memory(), now)));
    for time in [BOOT + 999, BOOT, BOOT - 1, 0] {
        assert_eq!(verdict(&knock(time, 0), &mut memory(), now), refused(KnockRefused::TooEarly));
    }
}

#[test]
fn a_knock_is_good_once() {
    let mut memory = memory();
    let bytes = knock(NOW, 0);
    assert!(is_accepted(&verdict(&bytes, &mut memory, NOW)));
    assert_eq!(verdict(&bytes, &mut memory, NOW), refused(KnockRefused::Replayed));
    assert_eq!(verdict(&bytes, &mut memory, NOW + 30_000), refused(KnockRefused::Replayed));
    assert_eq!(verdict(&bytes, &mut memory, NOW + 30_001), refused(KnockRefused::OutsideWindow));
    assert!(is_accepted(&verdict(&knock(NOW, 1), &mut memory, NOW)), "another random is another knock");
    assert!(is_accepted(&verdict(&knock(NOW + 1, 0), &mut memory, NOW)), "another time is another knock");
}

#[test]
fn a_full_memory_refuses_until_what_it_holds_has_run_out() {
    let mut memory = memory();
    for random in 0..4 {
        assert!(is_accepted(&verdict(&knock(NOW + u64::from(random), random), &mut memory, NOW)));
    }
    assert_eq!(memory.len(), 4);
    assert_eq!(verdict(&knock(NOW, 9), &mut memory, NOW), refused(KnockRefused::MemoryFull));
    assert_eq!(verdict(&knock(NOW, 0), &mut memory, NOW), refused(KnockRefused::Replayed));
    assert_eq!(memory.len(), 4);

    let later = NOW + 30_000;
    assert_eq!(verdict(&knock(later, 9), &mut memory, later), refused(KnockRefused::MemoryFull));
    assert!(is_accepted(&verdict(&knock(later, 9), &mut memory, later + 1)), "the oldest has run out");
    assert_eq!(memory.len(), 4);
    assert!(is_accepted(&verdict(&knock(later + 60_000, 9), &mut memory, later + 60_000)));
    assert_eq!(memory.len(), 1);
}

#[test]
fn a_memory_of_no_entries_refuses_all() {
    let mut memory = KnockMemory::new(KnockSettings { entries_max: 0, ..SETTINGS }, BOOT);
    assert_eq!(verdict(&knock(NOW, 0), &mut memory, NOW), refused(KnockRefused::MemoryFull));
}

#[test]
fn a_clock_set_back_makes_no_old_knock_good_again() {
    let mut memory = memory();
    let old = knock(NOW, 0);
    assert!(is_accepted(&verdict(&old, &mut memory, NOW)));
    assert!(is_accepted(&verdict(&knock(NOW + 40_000, 1), &mut memory, NOW + 40_000)));
    assert_eq!(memory.len(), 1);
    assert_eq!(verdict(&old, &mut memory, NOW), refused(KnockRefused::OutsideWindow));
    assert!(is_accepted(&verdict(&knock(NOW + 1, 2), &mut memory, NOW)), "new ones are good");
}

#[test]
fn a_first_flight_of_another_form_is_refused() {
    let hello = waiting(&mut tls_initiator());
    let mut two_records = hello.clone();
    two_records.extend_from_slice(&[20, 3, 3, 0, 1, 1]);
    let mut no_handshake = hello.clone();
    no_handshake[0] = 23;
    let mut no_client_hello = hello.clone();
    no_client_hello[5] = 2;
    let mut part_of_a_hello = hello.clone();
    part_of_a_hello[8] += 1;
    let cut = &hello[..hello.len() - 1];
    let bad_tls =
        [&two_records, &no_handshake, &no_client_hello, &part_of_a_hello, cut, &hello[..5], &[22], b"GET / HTTP/1.1"];
    let bad_plain = [&[0; 63][..], &[0; 65], &hello];
    let cases = bad_tls
        .map(|flight| (Profile::Tls, flight))
        .into_iter()
        .chain(bad_plain.map(|flight| (Profile::Plain, flight)));
    for (profile, flight) in cases {
        // Our own initiator refuses to make it ...
        let initiator = KnockInitiator::new(network(), REALMS[0]);
        let error = initiator.encode(profile, flight, NOW, [0; 16], &mut Vec::new()).unwrap_err();
        assert_eq!(error, ChannelError::ApiMisuse(ApiMisuse::FirstFlightForm));
        // ... and the responder to take it, well authenticated as it is.
        let mut memory = memory();
        let bytes = forged(profile as u8, flight);
        assert_eq!(verdict(&bytes, &mut memory, NOW), refused(KnockRefused::Malformed));
        assert!(memory.is_empty());
    }
    assert!(is_accepted(&verdict(&forged(1, &hello), &mut memory(), NOW)));
}

#[test]
fn a_first_flight_of_the_largest_size_passes_and_one_past_it_is_refused_by_its_header() {
    let mut memory = memory();
    let mut flight = vec![22, 3, 1, 0, 0, 1, 0, 0, 0];
    flight.resize(FIRST_FLIGHT_BYTES_MAX, 0);
    flight[3..5].copy_from_slice(&(FIRST_FLIGHT_BYTES_MAX as u16 - 5).to_be_bytes());
    flight[7..9].copy_from_slice(&(FIRST_FLIGHT_BYTES_MAX as u16 - 9).to_be_bytes());
    let mut bytes = Vec::new();
    let initiator = KnockInitiator::new(network(), REALMS[0]);
    initiator.encode(Profile::Tls, &flight, NOW, [0; 16], &mut bytes).unwrap();
    assert!(is_accepted(&verdict(&bytes, &mut memory, NOW)));

    flight.push(0);
    for flight in [&flight[..], &[]] {
        let error = initiator.encode(Profile::Tls, flight, NOW, [0; 16], &mut Vec::new()).unwrap_err();
        let limit = FIRST_FLIGHT_BYTES_MAX;
        assert_eq!(error, ChannelError::ApiMisuse(ApiMisuse::FirstFlightLength { bytes: flight.len(), limit }));
        let header = &forged(1, flight)[..60];
        assert_eq!(verdict(header, &mut memory, NOW), refused(KnockRefused::Malformed));
    }
}

#[test]
fn local_has_no_knock_and_unknown_versions_and_profiles_are_refused() {
    let mut channel = LocalChannel::initiator([0; 32]);
    let initiator = KnockInitiator::new(network(), REALMS[0]);
    let error = initiator.wrap(&mut channel, NOW, [0; 16], &mut Vec::new()).unwrap_err();
    assert_eq!(error, ChannelError::ApiMisuse(ApiMisuse::NoKnock(Profile::Local)));
    for profile in [0, 2, 4, 255] {
        assert_eq!(verdict(&forged(profile, &[0; 64]), &mut memory(), NOW), refused(KnockRefused::Malformed));
    }
    // The first byte is enough.
    for version in [0, 2, 22] {
        assert_eq!(verdict(&[version], &mut memory(), NOW), refused(KnockRefused::Malformed));
    }
}

#[test]
fn a_responder_that_has_given_its_verdict_takes_nothing_more() {
    let mut memory = memory();
    let mut accepted = responder();
    assert!(is_accepted(&accepted.handle_bytes(&knock(NOW, 0), &mut memory, NOW)));
    assert!(matches!(accepted.handle_bytes(&knock(NOW, 1), &mut memory, NOW), KnockVerdict::Refused(_)));
    let mut refusing = responder();
    assert_eq!(refusing.handle_bytes(&[9], &mut memory, NOW), refused(KnockRefused::Malformed));
    assert_eq!(refusing.handle_bytes(&knock(NOW, 1), &mut memory, NOW), refused(KnockRefused::Malformed));
}

#[test]
fn a_replayed_client_hello_alone_gets_no_further() {
    // The knock is what stops a replay before a byte is sent; without one (another carrier) TLS answers, and no more.
    let mut first = tls_initiator();
    let hello = waiting(&mut first);
    let [mut one, mut other] = [tls_responder(), tls_responder()];
    one.handle_bytes(&hello, &mut Vec::new()).unwrap();
    other.handle_bytes(&hello, &mut Vec::new()).unwrap();
    first.handle_bytes(&waiting(&mut one), &mut Vec::new()).unwrap();
    let last_flight = waiting(&mut first);
    assert!(other.handle_bytes(&last_flight, &mut Vec::new()).is_err());
    assert!(other.established().is_none());
}

/// A knock for the first realm whose MAC fits whatever stands in it.
fn forged(profile: u8, flight: &[u8]) -> Vec<u8> {
    let length = (flight.len() as u16).to_le_bytes();
    let authenticated =
        [b"legation/1/knock\0", &[profile][..], &NOW.to_le_bytes(), &[0; 16], &REALMS[0].0, &length, flight].concat();
    let mac = blake3::keyed_hash(&[0x4e; 32], &authenticated);
    [&[1, profile][..], &NOW.to_le_bytes(), &[0; 16], mac.as_bytes(), &length, flight].concat()
}

proptest! {
    #[test]
    fn every_cut_of_a_knock_gives_the_same(cuts in prop::collection::vec(1..70_usize, 1..20), tail in 0..300_usize) {
        let bytes = knock(NOW, 0);
        let mut stream = bytes.clone();
        stream.resize(bytes.len() + tail, 0xee);
        let mut cuts = cuts.into_iter().cycle();
        let (mut responder, mut memory) = (responder(), memory());
        let mut given = 0;
        loop {
            let piece = &stream[given..(given + cuts.next().unwrap()).min(stream.len())];
            given += piece.len();
            match responder.handle_bytes(piece, &mut memory, NOW) {
                KnockVerdict::NeedMore => prop_assert!(given < bytes.len()),
                KnockVerdict::Accepted(accepted) => {
                    prop_assert_eq!(given - piece.len() + accepted.consumed, bytes.len());
                    prop_assert_eq!(accepted.first_flight, &bytes[60..]);
                    break;
                }
                KnockVerdict::Refused(why) => prop_assert!(false, "{}", why),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_are_never_accepted(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2_000), 0..8),
        good_header in any::<bool>(),
    ) {
        let (mut responder, mut memory) = (responder(), memory());
        if good_header {
            responder.handle_bytes(&knock(NOW, 0)[..59], &mut memory, NOW);
        }
        for piece in pieces {
            prop_assert!(!is_accepted(&responder.handle_bytes(&piece, &mut memory, NOW)));
        }
        prop_assert!(memory.is_empty());
    }
}
