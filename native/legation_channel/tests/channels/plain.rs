//! `plain`, byte by byte (`protocol.md` 5.6 to 5.9).

use curve25519_dalek::montgomery::MontgomeryPoint;
use legation_channel::channel::{Channel, Profile};
use legation_channel::error::{ChannelError, Malformed, Misbehaved};
use legation_channel::plain::{PlainChannel, RECORD_CONTENT_BYTES_MAX};

use crate::pair::{sealed, waiting, Pair};

/// A peer written from the specification alone.
struct Peer {
    key: [u8; 32],
}

impl Peer {
    fn record(&self, counter: u64, content: &[u8]) -> Vec<u8> {
        let mut record = (content.len() as u32).to_le_bytes().to_vec();
        record.extend_from_slice(content);
        let mac = blake3::keyed_hash(&self.key, &[&counter.to_le_bytes()[..], &record].concat());
        record.extend_from_slice(mac.as_bytes());
        record
    }
}

/// A responder of ours that has shaken hands with a peer by the specification: it, what the peer sends with, what the
/// responder should send with.
fn with_a_peer() -> (PlainChannel, Peer, Peer) {
    let (nonce, secret) = ([7; 32], [8; 32]);
    let ephemeral = MontgomeryPoint::mul_base_clamped(secret).to_bytes();
    let mut channel = PlainChannel::responder([1; 32], [2; 32]);
    channel.handle_bytes(&[nonce, ephemeral].concat(), &mut Vec::new()).unwrap();
    let answer = waiting(&mut channel);
    let (their_nonce, their_ephemeral) = answer.split_at(32);
    assert_eq!(their_nonce, [1; 32]);

    let shared = MontgomeryPoint(their_ephemeral.try_into().unwrap()).mul_clamped(secret);
    let binding = blake3::hash(&[&[3][..], &nonce, their_nonce, &ephemeral, their_ephemeral].concat());
    assert_eq!(channel.established().unwrap().binding, *binding.as_bytes());
    let material = [&shared.to_bytes()[..], binding.as_bytes()].concat();
    let initiator = Peer { key: blake3::derive_key("legation/1/plain initiator", &material) };
    let responder = Peer { key: blake3::derive_key("legation/1/plain responder", &material) };
    (channel, initiator, responder)
}

#[test]
fn a_peer_by_the_specification_is_understood_and_understands() {
    let (mut channel, initiator, responder) = with_a_peer();
    let mut plaintext = Vec::new();
    channel.handle_bytes(&initiator.record(0, b"hello "), &mut plaintext).unwrap();
    channel.handle_bytes(&initiator.record(1, b"there"), &mut plaintext).unwrap();
    assert_eq!(plaintext, b"hello there");
    assert_eq!(sealed(&mut channel, b"one"), responder.record(0, b"one"));
    assert_eq!(sealed(&mut channel, b"two"), responder.record(1, b"two"));
}

#[test]
fn a_wrong_counter_fails() {
    for counter in [1, u64::MAX] {
        let (mut channel, initiator, _) = with_a_peer();
        let error = channel.handle_bytes(&initiator.record(counter, b"x"), &mut Vec::new()).unwrap_err();
        assert_eq!(error, ChannelError::Misbehaved(Misbehaved::BadMac { counter: 0 }));
    }
}

#[test]
fn the_other_directions_key_fails() {
    let (mut channel, _, responder) = with_a_peer();
    let error = channel.handle_bytes(&responder.record(0, b"x"), &mut Vec::new()).unwrap_err();
    assert_eq!(error, ChannelError::Misbehaved(Misbehaved::BadMac { counter: 0 }));
}

#[test]
fn what_is_reflected_from_the_first_byte_on_is_not_understood() {
    let mut channel = PlainChannel::initiator([1; 32], [2; 32]);
    let own = waiting(&mut channel);
    channel.handle_bytes(&own, &mut Vec::new()).unwrap();
    let record = sealed(&mut channel, b"echo");
    assert!(channel.handle_bytes(&record, &mut Vec::new()).is_err());
}

#[test]
fn a_record_of_the_largest_content_passes_and_one_past_it_is_refused_by_its_header() {
    let (mut channel, initiator, _) = with_a_peer();
    let mut plaintext = Vec::new();
    let content = vec![5; RECORD_CONTENT_BYTES_MAX];
    channel.handle_bytes(&initiator.record(0, &content), &mut plaintext).unwrap();
    assert!(plaintext == content);

    for length in [0, RECORD_CONTENT_BYTES_MAX as u32 + 1, u32::MAX] {
        let (mut channel, _, _) = with_a_peer();
        let header = length.to_le_bytes();
        channel.handle_bytes(&header[..3], &mut Vec::new()).unwrap();
        let error = channel.handle_bytes(&header[3..], &mut Vec::new()).unwrap_err();
        let limit = RECORD_CONTENT_BYTES_MAX as u32;
        assert_eq!(error, ChannelError::Malformed(Malformed::RecordLength { bytes: length, limit }));
    }
}

#[test]
fn what_is_longer_than_a_record_is_split() {
    let (mut channel, _, responder) = with_a_peer();
    let long = vec![9; RECORD_CONTENT_BYTES_MAX + 1];
    let expected = [responder.record(0, &long[1..]), responder.record(1, &long[..1])].concat();
    assert!(sealed(&mut channel, &long) == expected);
}

#[test]
fn an_ephemeral_that_gives_zero_is_refused() {
    // The points of small order (RFC 7748 6.1 and the two that aren't reduced).
    let mut points = vec![[0; 32], [0; 32]];
    points[1][0] = 1;
    for first in [0xec, 0xed, 0xee] {
        let mut point = [0xff; 32];
        (point[0], point[31]) = (first, 0x7f);
        points.push(point);
    }
    for point in points {
        let mut channel = PlainChannel::responder([1; 32], [2; 32]);
        let error = channel.handle_bytes(&[[7; 32], point].concat(), &mut Vec::new()).unwrap_err();
        assert_eq!(error, ChannelError::Misbehaved(Misbehaved::ZeroSharedSecret));
        assert!(channel.established().is_none());
        assert!(waiting(&mut channel).is_empty());
    }
}

#[test]
fn data_that_comes_with_the_first_message_is_read() {
    let mut pair = Pair::new(Profile::Plain, 0);
    let hello = waiting(&mut *pair.initiator);
    pair.responder.handle_bytes(&hello, &mut Vec::new()).unwrap();
    let answer_and_data = sealed(&mut *pair.responder, b"data");
    pair.initiator.handle_bytes(&answer_and_data, &mut pair.at_initiator).unwrap();
    assert_eq!(pair.at_initiator, b"data");
}
