//! HANDLE_RELEASE: what the tables of handles have to say to each other (`protocol.md` 12.4).
//!
//! ```text
//!  0 count u16
//!    count times: what u8, number u64, and
//!      1 ended               reason u8    the process behind a number of the sender's
//!      2 call                             nobody waits for the sender's call any more
//!      3 dropped             count u64    a number of the receiver's, which the sender had received so often
//!      4 dropped reference   count u64
//! ```

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::forget::ForgetReason;
use crate::frame::{self, FrameType};

/// Entries that fit one frame, were they all of the longest kind.
pub const ENTRIES_MAX: usize = 3_800;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The process of the sender's behind this number has ended.
    Ended { number: u64, reason: ForgetReason },
    /// Nobody waits for this call of the sender's any more.
    Call(u64),
    /// The sender has forgotten this process of the receiver's, which came to it `count` times since it was last unknown.
    Dropped { number: u64, count: u64 },
    /// The same of a reference.
    DroppedReference { number: u64, count: u64 },
}

/// # Panics
/// With more than [`ENTRIES_MAX`] entries: the session cuts its list first.
pub fn encode(entries: &[Release], out: &mut Vec<u8>) {
    assert!(entries.len() <= ENTRIES_MAX);
    let mut body = Vec::with_capacity(2 + 17 * entries.len());
    body.put_u16(entries.len() as u16);
    for entry in entries {
        let (what, number) = match *entry {
            Release::Ended { number, .. } => (1, number),
            Release::Call(number) => (2, number),
            Release::Dropped { number, .. } => (3, number),
            Release::DroppedReference { number, .. } => (4, number),
        };
        body.put_u8(what);
        body.put_u64(number);
        match *entry {
            Release::Ended { reason, .. } => body.put_u8(reason as u8),
            Release::Call(_) => {}
            Release::Dropped { count, .. } | Release::DroppedReference { count, .. } => body.put_u64(count),
        }
    }
    frame::encode(FrameType::HandleRelease, &body, out);
}

/// # Errors
/// An unknown `what` or reason, a count of 0, an entry that is cut, bytes that are left.
pub fn decode(body: &[u8]) -> Result<Vec<Release>, InvalidFrame> {
    let mut reader = Reader::new(body);
    let count = usize::from(reader.u16("release count")?);
    if count * 9 > reader.remaining() {
        return Err(InvalidFrame::Value("release count"));
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let what = reader.u8("release")?;
        let number = reader.u64("release number")?;
        entries.push(match what {
            1 => Release::Ended { number, reason: ForgetReason::read(&mut reader, "release reason")? },
            2 => Release::Call(number),
            3 => Release::Dropped { number, count: copies(&mut reader)? },
            4 => Release::DroppedReference { number, count: copies(&mut reader)? },
            _ => return Err(InvalidFrame::Value("release kind")),
        });
    }
    reader.finish("releases")?;
    Ok(entries)
}

fn copies(reader: &mut Reader<'_>) -> Result<u64, InvalidFrame> {
    match reader.u64("release copies")? {
        0 => Err(InvalidFrame::Value("release copies")),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HEADER_BYTES;

    #[test]
    fn entries_read_as_they_were_written_and_every_cut_is_malformed() {
        let mut entries = vec![
            Release::Call(7),
            Release::Dropped { number: 8, count: 1 },
            Release::DroppedReference { number: 9, count: u64::MAX },
        ];
        entries.extend(ForgetReason::ALL.map(|reason| Release::Ended { number: 10, reason }));
        let mut bytes = Vec::new();
        encode(&entries, &mut bytes);
        let body = &bytes[HEADER_BYTES..];
        assert_eq!(decode(body), Ok(entries));
        for cut in 0..body.len() {
            assert!(decode(&body[..cut]).is_err(), "{cut}");
        }
        assert_eq!(decode(&[body, &[0]].concat()), Err(InvalidFrame::Trailing("releases")));
    }

    #[test]
    fn unknown_entries_unknown_reasons_and_counts_of_nothing_are_malformed() {
        let entry = |what: u8, rest: &[u8]| decode(&[&[1, 0, what, 5, 0, 0, 0, 0, 0, 0, 0], rest].concat());
        assert!(entry(0, &[]).is_err());
        assert!(entry(5, &[]).is_err());
        assert!(entry(1, &[8]).is_err());
        assert!(entry(1, &[7]).is_ok());
        assert!(entry(3, &[0; 8]).is_err());
        assert!(entry(4, &[0; 8]).is_err());
    }

    #[test]
    fn a_full_frame_of_the_longest_entries_is_within_its_limit() {
        let mut bytes = Vec::new();
        encode(&vec![Release::Dropped { number: u64::MAX, count: 1 }; ENTRIES_MAX], &mut bytes);
        let limit = FrameType::HandleRelease.body_bytes_max(&crate::limits::Limits::default());
        assert!(bytes.len() - HEADER_BYTES <= limit);
    }
}
