//! The answer (`protocol.md` 4.6).

use legation_channel::answer::{AnswerInitiator, AnswerRefused, AnswerResponder, AnswerVerdict};
use legation_channel::channel::Profile;
use legation_channel::error::ApiMisuse;
use legation_channel::first_flight::FIRST_FLIGHT_BYTES_MAX;
use legation_channel::knock::{KnockInitiator, KnockMemory, KnockResponder, KnockSettings, KnockVerdict};
use legation_channel::plain::PlainChannel;
use legation_proto::identity::{NetworkKey, RealmId};
use proptest::prelude::*;

use crate::pair::waiting;

const OPENING: &[u8] = b"all that came before";

fn network() -> NetworkKey {
    NetworkKey::new([7; 32])
}

fn answer(flight: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    AnswerResponder::new(network(), Profile::Plain, OPENING).encode(flight, &mut out).unwrap();
    out
}

fn verdict(bytes: &[u8]) -> AnswerVerdict {
    AnswerInitiator::new(network(), Profile::Plain, OPENING).handle_bytes(bytes)
}

fn accepted(flight: &[u8], consumed: usize) -> AnswerVerdict {
    AnswerVerdict::Accepted { first_flight: flight.to_vec(), consumed }
}

const BAD_MAC: AnswerVerdict = AnswerVerdict::Refused(AnswerRefused::BadMac);

#[test]
fn an_answer_is_laid_out_as_the_specification_draws_it() {
    let mut input = b"legation/1/answer\0\x03".to_vec();
    input.extend(blake3::hash(OPENING).as_bytes());
    input.extend([6, 0]);
    input.extend(b"flight");
    let mac = blake3::keyed_hash(&[7; 32], &input);
    assert_eq!(answer(b"flight"), [mac.as_bytes(), &[6, 0][..], b"flight"].concat());
    assert_eq!(verdict(&answer(b"flight")), accepted(b"flight", 40));
}

#[test]
fn without_a_network_key_the_key_is_zeros() {
    let mut out = Vec::new();
    AnswerResponder::new(NetworkKey::none(), Profile::Tls, OPENING).encode(b"flight", &mut out).unwrap();
    let mut zeros = AnswerInitiator::new(NetworkKey::new([0; 32]), Profile::Tls, OPENING);
    assert_eq!(zeros.handle_bytes(&out), accepted(b"flight", out.len()));
    assert_eq!(verdict(&out), BAD_MAC);
}

#[test]
fn another_network_profile_or_opening_is_refused() {
    let responders = [
        AnswerResponder::new(NetworkKey::new([8; 32]), Profile::Plain, OPENING),
        AnswerResponder::new(network(), Profile::Tls, OPENING),
        AnswerResponder::new(network(), Profile::Plain, &OPENING[1..]),
        AnswerResponder::new(network(), Profile::Plain, b""),
    ];
    for responder in responders {
        let mut out = Vec::new();
        responder.encode(b"flight", &mut out).unwrap();
        assert_eq!(verdict(&out), BAD_MAC);
    }
}

#[test]
fn a_change_to_any_byte_is_refused() {
    let good = answer(&[5; 64]);
    for at in (0..good.len()).filter(|at| !(32..34).contains(at)) {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            assert_eq!(verdict(&changed), BAD_MAC, "bit {bit} of {at}");
        }
    }
    // A shorter flight of the same bytes, and a longer one.
    let mut shorter = good.clone();
    shorter[32] -= 1;
    assert_eq!(verdict(&shorter), BAD_MAC);
    let mut longer = [&good[..], &[5]].concat();
    longer[32] += 1;
    assert_eq!(verdict(&longer), BAD_MAC);
}

#[test]
fn a_flight_of_the_largest_size_passes_and_one_past_it_is_refused_by_its_header() {
    let largest = vec![3; FIRST_FLIGHT_BYTES_MAX];
    assert_eq!(verdict(&answer(&largest)), accepted(&largest, 34 + FIRST_FLIGHT_BYTES_MAX));
    let header = |length: u16| [&[0; 32][..], &length.to_le_bytes()].concat();
    for length in [0, 4_097, u16::MAX] {
        assert_eq!(verdict(&header(length)), AnswerVerdict::Refused(AnswerRefused::Length(length)));
    }
    // At the limit all of it is taken, and no more is needed to see that it is wrong.
    let mut reader = AnswerInitiator::new(network(), Profile::Plain, OPENING);
    assert_eq!(reader.handle_bytes(&header(4_096)), AnswerVerdict::NeedMore);
    assert_eq!(reader.handle_bytes(&[0; 4_095]), AnswerVerdict::NeedMore);
    assert_eq!(reader.handle_bytes(&[0]), BAD_MAC);

    let responder = AnswerResponder::new(network(), Profile::Plain, OPENING);
    for bytes in [0, FIRST_FLIGHT_BYTES_MAX + 1] {
        let limit = FIRST_FLIGHT_BYTES_MAX;
        let refused = responder.encode(&vec![0; bytes], &mut Vec::new());
        assert_eq!(refused, Err(ApiMisuse::FirstFlightLength { bytes, limit }));
    }
}

#[test]
fn a_knock_is_no_answer_and_an_answer_no_knock() {
    // The same key, as long a flight, and the bytes of one where the other's are.
    let bob = RealmId([0xb0; 32]);
    let flight = waiting(&mut PlainChannel::initiator([1; 32], [2; 32]));
    let mut knock = Vec::new();
    KnockInitiator::new(network(), bob).encode(Profile::Plain, &flight, 1_000_000, [9; 16], &mut knock).unwrap();
    let mut reader = AnswerInitiator::new(network(), Profile::Plain, &knock);
    assert!(matches!(reader.handle_bytes(&knock), AnswerVerdict::Refused(_)));
    // Its MAC and what is behind it, as an answer is laid out.
    let mut reader = AnswerInitiator::new(network(), Profile::Plain, &knock);
    assert_eq!(reader.handle_bytes(&knock[26..]), BAD_MAC);

    let mut forged = knock.clone();
    forged[26..].copy_from_slice(&answer(&flight));
    let mut memory = KnockMemory::new(KnockSettings::default(), 0);
    let verdict = KnockResponder::new(network(), vec![bob]).handle_bytes(&forged, &mut memory, 1_000_000);
    assert!(matches!(verdict, KnockVerdict::Refused(_)));
}

#[test]
fn a_reader_that_has_given_its_verdict_takes_nothing_more() {
    let good = answer(b"flight");
    let mut reader = AnswerInitiator::new(network(), Profile::Plain, OPENING);
    assert!(matches!(reader.handle_bytes(&good), AnswerVerdict::Accepted { .. }));
    assert!(matches!(reader.handle_bytes(&good), AnswerVerdict::Refused(_)));
    let mut reader = AnswerInitiator::new(network(), Profile::Plain, OPENING);
    assert_eq!(reader.handle_bytes(&[0; 64]), AnswerVerdict::Refused(AnswerRefused::Length(0)));
    assert_eq!(reader.handle_bytes(&good), AnswerVerdict::Refused(AnswerRefused::Length(0)));
}

proptest! {
    #[test]
    fn every_cut_of_an_answer_gives_the_same(cuts in prop::collection::vec(1..70_usize, 1..20), tail in 0..300_usize) {
        let flight = [4; 600];
        let bytes = [answer(&flight), vec![1; tail]].concat();
        let mut reader = AnswerInitiator::new(network(), Profile::Plain, OPENING);
        let (mut at, mut taken) = (0, 0);
        let first_flight = loop {
            let piece = &bytes[at..(at + cuts[taken % cuts.len()]).min(bytes.len())];
            taken += 1;
            match reader.handle_bytes(piece) {
                AnswerVerdict::NeedMore => at += piece.len(),
                AnswerVerdict::Accepted { first_flight, consumed } => {
                    at += consumed;
                    break first_flight;
                }
                AnswerVerdict::Refused(refused) => panic!("{refused}"),
            }
        };
        prop_assert_eq!(first_flight, flight);
        prop_assert_eq!(at, bytes.len() - tail);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_are_never_accepted(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        length in prop::option::of(1..64_u16),
    ) {
        let mut reader = AnswerInitiator::new(network(), Profile::Plain, OPENING);
        let header = length.map_or(Vec::new(), |length| [&[6; 32][..], &length.to_le_bytes()].concat());
        for piece in std::iter::once(&header).chain(&pieces) {
            match reader.handle_bytes(piece) {
                AnswerVerdict::NeedMore => {}
                AnswerVerdict::Refused(_) => break,
                AnswerVerdict::Accepted { .. } => prop_assert!(false, "accepted"),
            }
        }
    }
}
