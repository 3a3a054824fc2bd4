//! FRAGMENT: a piece of a large payload, ahead of the BATCH that it belongs to (`protocol.md` 12.5).
//!
//! ```text
//!  0 transfer u32   the sender's number for it, free again after its BATCH
//!  4 total u32      length of the whole payload, the same in each
//!  8 bytes          the next ones (1 to 65,536)
//! ```

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::{FrameType, FLAG_CRITICAL};

/// Most bytes of payload in one fragment: small messages get their turn after each.
pub const BYTES_MAX: usize = 64 * 1024;

/// What stands before the bytes.
pub const OVERHEAD: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    pub transfer: u32,
    pub total: u32,
    pub bytes: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// # Panics
    /// With no bytes or more than [`BYTES_MAX`]: the session cuts them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!((1..=BYTES_MAX).contains(&self.bytes.len()), "a fragment holds 1 to 65,536 bytes");
        out.put_u8(FrameType::Fragment as u8);
        out.put_u8(FLAG_CRITICAL);
        out.put_u32((OVERHEAD + self.bytes.len()) as u32);
        out.put_u32(self.transfer);
        out.put_u32(self.total);
        out.put(self.bytes);
    }

    /// # Errors
    /// When it is cut short, holds nothing or more than it says there is in all.
    pub fn decode(body: &'a [u8]) -> Result<Fragment<'a>, InvalidFrame> {
        let mut reader = Reader::new(body);
        let transfer = reader.u32("fragment transfer")?;
        let total = reader.u32("fragment total")?;
        let bytes = reader.take(reader.remaining(), "fragment bytes")?;
        if bytes.is_empty() {
            return Err(InvalidFrame::Missing("fragment bytes"));
        }
        if bytes.len() > BYTES_MAX || bytes.len() > total as usize {
            return Err(InvalidFrame::Value("fragment bytes"));
        }
        Ok(Fragment { transfer, total, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HEADER_BYTES;
    use proptest::prelude::*;

    fn encoded(fragment: Fragment<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        fragment.encode(&mut out);
        out
    }

    #[test]
    fn a_fragment_cut_before_its_first_byte_is_malformed() {
        let bytes = encoded(Fragment { transfer: 7, total: 1, bytes: b"x" });
        for cut in HEADER_BYTES..bytes.len() {
            assert!(Fragment::decode(&bytes[HEADER_BYTES..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_fragment_of_more_than_the_whole_or_more_than_a_fragment_is_malformed() {
        let mut body = vec![0; OVERHEAD + BYTES_MAX];
        body[4..8].copy_from_slice(&(BYTES_MAX as u32).to_le_bytes());
        assert!(Fragment::decode(&body).is_ok());
        body[4..8].copy_from_slice(&(BYTES_MAX as u32 - 1).to_le_bytes());
        assert!(Fragment::decode(&body).is_err());
        body[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        body.push(0);
        assert!(Fragment::decode(&body).is_err());
    }

    proptest! {
        #[test]
        fn a_fragment_reads_as_it_was_written(
            transfer: u32,
            more in 0u32..1_000_000,
            bytes in prop::collection::vec(any::<u8>(), 1..300),
        ) {
            let fragment = Fragment { transfer, total: bytes.len() as u32 + more, bytes: &bytes };
            let frame = encoded(fragment);
            prop_assert_eq!(Fragment::decode(&frame[HEADER_BYTES..]), Ok(fragment));
        }

        #[test]
        fn arbitrary_bytes_are_a_fragment_or_an_error(body in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(fragment) = Fragment::decode(&body) {
                prop_assert_eq!(&encoded(fragment)[HEADER_BYTES..], &body[..]);
            }
        }
    }
}
