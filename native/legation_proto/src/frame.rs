//! Frames: the units inside a channel (`protocol.md` 6). One file per frame, both directions together.
//!
//! ```text
//!  0      1       2               6
//!  ├ type ┼ flags ┼ length u32    ┼ body ...
//! ```

pub mod ack;
pub mod batch;
pub mod cert;
pub mod checkpoint;
pub mod close;
pub mod credit;
pub mod forget;
pub mod fragment;
pub mod handle_release;
pub mod hello;
pub mod learn;
pub mod ping;
pub mod resume;
pub mod staged;

use crate::codec::Writer;
use crate::error::{InvalidFrame, LinkError, PeerMisbehaved};
use crate::limits::Limits;
use crate::rotation::{Revocation, Rotation};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 6;
/// Only the critical bit is defined.
pub const FLAG_CRITICAL: u8 = 1;

const SKIPPED_BYTES_MAX: usize = 64 * 1024;

/// Every number that is taken, also by frames of later versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    Hello = 0x01,
    Resume = 0x02,
    Batch = 0x03,
    Checkpoint = 0x04,
    Fragment = 0x05,
    Ack = 0x06,
    Credit = 0x07,
    Received = 0x08,
    Learn = 0x09,
    Forget = 0x0A,
    Cert = 0x0B,
    Rotate = 0x0C,
    Revoke = 0x0D,
    Interest = 0x0E,
    HandleRelease = 0x0F,
    ChannelOpen = 0x10,
    ChannelData = 0x11,
    ChannelCredit = 0x12,
    ChannelClose = 0x13,
    Ping = 0x14,
    Pong = 0x15,
    Close = 0x16,
}

impl FrameType {
    /// The types that version 1 gives a meaning. Reserved ones are unknown to it.
    pub fn known(number: u8) -> Option<FrameType> {
        Some(match number {
            0x01 => FrameType::Hello,
            0x02 => FrameType::Resume,
            0x03 => FrameType::Batch,
            0x04 => FrameType::Checkpoint,
            0x05 => FrameType::Fragment,
            0x06 => FrameType::Ack,
            0x07 => FrameType::Credit,
            0x09 => FrameType::Learn,
            0x0A => FrameType::Forget,
            0x0B => FrameType::Cert,
            0x0C => FrameType::Rotate,
            0x0D => FrameType::Revoke,
            0x0F => FrameType::HandleRelease,
            0x14 => FrameType::Ping,
            0x15 => FrameType::Pong,
            0x16 => FrameType::Close,
            _ => return None,
        })
    }

    /// Whether it takes a sequence number (`protocol.md` 8.2); a BATCH takes one for each of its messages.
    pub fn is_sequenced(self) -> bool {
        matches!(
            self,
            FrameType::Batch
                | FrameType::Checkpoint
                | FrameType::Fragment
                | FrameType::Credit
                | FrameType::Learn
                | FrameType::Forget
                | FrameType::Cert
                | FrameType::Rotate
                | FrameType::Revoke
                | FrameType::HandleRelease
        )
    }

    /// The longest body, bytes (`protocol.md` 6.2).
    pub fn body_bytes_max(self, limits: &Limits) -> usize {
        match self {
            FrameType::Batch => limits.batch_bytes_max(),
            FrameType::Fragment => fragment::OVERHEAD + fragment::BYTES_MAX,
            FrameType::Credit => credit::BODY_BYTES_MAX,
            FrameType::Ack | FrameType::Ping | FrameType::Pong => 8,
            FrameType::Resume => resume::BYTES,
            FrameType::Hello | FrameType::Learn | FrameType::Forget | FrameType::Cert => 4 * 1024,
            FrameType::Close => 512,
            FrameType::Checkpoint => checkpoint::BYTES,
            FrameType::Rotate => Rotation::BYTES,
            FrameType::Revoke => Revocation::BYTES,
            _ => SKIPPED_BYTES_MAX,
        }
    }
}

/// What stands at the head of a buffer of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// Not enough bytes yet.
    Partial,
    /// A whole frame of a known type; `bytes` is header and body.
    Frame { kind: FrameType, body: &'a [u8], bytes: usize },
    /// A whole frame that is to be passed over.
    Skip { bytes: usize },
}

/// Looks at the first frame of `buffer`. Bounds are checked on the header, before the body has arrived.
///
/// # Errors
/// What closes the link by `protocol.md` 6.3.
pub fn head<'a>(buffer: &'a [u8], limits: &Limits) -> Result<Head<'a>, LinkError> {
    let Some((header, rest)) = buffer.split_at_checked(HEADER_BYTES) else {
        return Ok(Head::Partial);
    };
    let (number, flags) = (header[0], header[1]);
    let length = u32::from_le_bytes([header[2], header[3], header[4], header[5]]) as usize;
    if flags & !FLAG_CRITICAL != 0 {
        return Err(InvalidFrame::Value("frame flags").into());
    }
    let known = FrameType::known(number);
    let limit = match known {
        Some(_) if flags != FLAG_CRITICAL => return Err(InvalidFrame::Value("frame flags").into()),
        Some(kind) => kind.body_bytes_max(limits),
        None if flags == FLAG_CRITICAL => return Err(PeerMisbehaved::UnknownCriticalFrame(number).into()),
        None => SKIPPED_BYTES_MAX,
    };
    if length > limit {
        return Err(InvalidFrame::TooLarge { what: "frame", bytes: length as u64, limit: limit as u64 }.into());
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Head::Partial);
    };
    let bytes = HEADER_BYTES + length;
    Ok(match known {
        Some(kind) => Head::Frame { kind, body, bytes },
        None => Head::Skip { bytes },
    })
}

/// Appends a frame whose body is at hand.
pub fn encode(kind: FrameType, body: &[u8], out: &mut Vec<u8>) {
    out.put_u8(kind as u8);
    out.put_u8(FLAG_CRITICAL);
    out.put_u32(u32::try_from(body.len()).expect("a frame's body is bounded far below 4 GiB"));
    out.put(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_partial_until_its_last_byte() {
        let mut bytes = Vec::new();
        encode(FrameType::Ping, &[7; 8], &mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(head(&bytes[..cut], &Limits::default()), Ok(Head::Partial));
        }
        assert_eq!(
            head(&bytes, &Limits::default()),
            Ok(Head::Frame { kind: FrameType::Ping, body: &[7; 8], bytes: 14 })
        );
    }

    #[test]
    fn an_unknown_critical_frame_closes_and_an_uncritical_one_is_skipped() {
        let limits = Limits::default();
        for number in [0x00, 0x08, 0x0E, 0x10, 0x13, 0x17, 0xFF] {
            assert_eq!(
                head(&[number, 1, 0, 0, 0, 0], &limits),
                Err(PeerMisbehaved::UnknownCriticalFrame(number).into())
            );
            assert_eq!(head(&[number, 0, 2, 0, 0, 0, 9, 9], &limits), Ok(Head::Skip { bytes: 8 }));
            assert!(head(&[number, 0, 1, 0, 1, 0], &limits).is_err(), "past the limit of what is skipped");
        }
    }

    #[test]
    fn a_body_over_its_limit_is_refused_when_only_its_header_has_come() {
        let limits = Limits::default();
        for number in (0..=0xFF).filter(|number| FrameType::known(*number).is_some()) {
            let limit = FrameType::known(number).unwrap().body_bytes_max(&limits) as u32;
            let header = |length: u32| {
                let mut header = vec![number, 1];
                header.put_u32(length);
                header
            };
            assert_eq!(head(&header(limit), &limits), Ok(Head::Partial));
            for length in [limit + 1, 1 << 31, u32::MAX] {
                assert!(matches!(
                    head(&header(length), &limits),
                    Err(LinkError::Invalid(InvalidFrame::TooLarge { .. }))
                ));
            }
        }
    }

    #[test]
    fn undefined_flags_close_the_link() {
        for flags in [2, 3, 0x80, 0xff] {
            assert!(head(&[0x14, flags, 8, 0, 0, 0], &Limits::default()).is_err());
        }
        assert!(head(&[0x14, 0, 8, 0, 0, 0], &Limits::default()).is_err(), "a known frame without its critical bit");
    }
}
