//! CHECKPOINT: one signature for all batches of mode `checkpoint` since the one before (`protocol.md` 12.7).
//!
//! ```text
//!  0 first u64        number of the first message that it covers, not 0
//!  8 last u64         and of the last
//! 16 chain (32)       over the batches of the session up to here
//! 48 signature (64)   of the online key
//! ```

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::{self, FrameType};
use crate::identity::RealmId;

/// Bytes of the body.
pub const BYTES: usize = 112;

/// What is signed of it, between whom.
const SIGNED_BYTES: usize = 3 * 32 + 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub first: u64,
    pub last: u64,
    pub chain: [u8; 32],
}

impl Checkpoint {
    /// The bytes that are signed.
    pub fn body(&self, session: &[u8; 32], source: &RealmId, destination: &RealmId) -> Vec<u8> {
        let mut body = Vec::with_capacity(SIGNED_BYTES);
        body.put(session);
        body.put(&source.0);
        body.put(&destination.0);
        self.put(&mut body);
        body
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.first);
        out.put_u64(self.last);
        out.put(&self.chain);
    }

    /// Appends the frame.
    pub fn encode(&self, signature: &[u8; 64], out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(BYTES);
        self.put(&mut body);
        body.put(signature);
        frame::encode(FrameType::Checkpoint, &body, out);
    }

    /// Says nothing about the signature's worth.
    ///
    /// # Errors
    /// When it is not exactly this long, or what it covers is no range of messages.
    pub fn decode(bytes: &[u8]) -> Result<(Checkpoint, [u8; 64]), InvalidFrame> {
        let mut reader = Reader::new(bytes);
        let checkpoint = Checkpoint {
            first: reader.u64("checkpoint first")?,
            last: reader.u64("checkpoint last")?,
            chain: reader.array("checkpoint chain")?,
        };
        let signature = reader.array("checkpoint signature")?;
        reader.finish("checkpoint")?;
        match checkpoint.first == 0 || checkpoint.first > checkpoint.last {
            true => Err(InvalidFrame::Value("checkpoint range")),
            false => Ok((checkpoint, signature)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(checkpoint: &Checkpoint, signature: &[u8; 64]) -> Vec<u8> {
        let mut out = Vec::new();
        checkpoint.encode(signature, &mut out);
        out.split_off(frame::HEADER_BYTES)
    }

    #[test]
    fn every_cut_and_every_byte_more_is_malformed() {
        let body = encoded(&Checkpoint { first: 3, last: 9, chain: [7; 32] }, &[8; 64]);
        assert_eq!(body.len(), BYTES);
        for cut in 0..BYTES {
            assert!(Checkpoint::decode(&body[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Checkpoint::decode(&[&body[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_range_without_a_message_is_malformed() {
        for (first, last) in [(0, 0), (0, 5), (6, 5), (u64::MAX, 1)] {
            let body = encoded(&Checkpoint { first, last, chain: [7; 32] }, &[8; 64]);
            assert_eq!(Checkpoint::decode(&body), Err(InvalidFrame::Value("checkpoint range")), "{first} to {last}");
        }
    }

    #[test]
    fn what_is_signed_names_the_session_and_both_realms() {
        let checkpoint = Checkpoint { first: 1, last: 2, chain: [3; 32] };
        let body = checkpoint.body(&[4; 32], &RealmId([5; 32]), &RealmId([6; 32]));
        assert_eq!(body.len(), SIGNED_BYTES);
        assert_eq!((&body[..32], &body[32..64], &body[64..96]), (&[4; 32][..], &[5; 32][..], &[6; 32][..]));
        assert_eq!(&body[96..], &encoded(&checkpoint, &[0; 64])[..48]);
    }

    proptest! {
        #[test]
        fn a_checkpoint_reads_as_it_was_written(
            first in 1u64..,
            more in 0u64..1_000_000,
            chain: [u8; 32],
            signature in prop::collection::vec(any::<u8>(), 64),
        ) {
            let checkpoint = Checkpoint { first, last: first.saturating_add(more), chain };
            let signature: [u8; 64] = signature.try_into().unwrap();
            prop_assert_eq!(Checkpoint::decode(&encoded(&checkpoint, &signature)), Ok((checkpoint, signature)));
        }

        #[test]
        fn arbitrary_bytes_are_a_checkpoint_or_an_error(body in prop::collection::vec(any::<u8>(), 100..120)) {
            if let Ok((checkpoint, signature)) = Checkpoint::decode(&body) {
                prop_assert_eq!(encoded(&checkpoint, &signature), body);
            }
        }
    }
}
