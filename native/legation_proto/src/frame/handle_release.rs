//! HANDLE_RELEASE: numbers that won't be used again (`protocol.md` 12.4).
//!
//! ```text
//!  0 count u16
//!    count times: what u8 (1 caller, 2 call), number u64
//! ```

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::{self, FrameType};

/// Entries that fit one frame.
pub const ENTRIES_MAX: usize = 7_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The process behind a caller number has ended.
    Caller(u64),
    /// Nobody waits for the call any more.
    Call(u64),
}

/// # Panics
/// With more than [`ENTRIES_MAX`] entries: the session cuts its list first.
pub fn encode(entries: &[Release], out: &mut Vec<u8>) {
    assert!(entries.len() <= ENTRIES_MAX);
    let mut body = Vec::with_capacity(2 + 9 * entries.len());
    body.put_u16(entries.len() as u16);
    for entry in entries {
        let (what, number) = match entry {
            Release::Caller(number) => (1, number),
            Release::Call(number) => (2, number),
        };
        body.put_u8(what);
        body.put_u64(*number);
    }
    frame::encode(FrameType::HandleRelease, &body, out);
}

pub fn decode(body: &[u8]) -> Result<Vec<Release>, InvalidFrame> {
    let mut reader = Reader::new(body);
    let count = usize::from(reader.u16("release count")?);
    if count * 9 != reader.remaining() {
        return Err(InvalidFrame::Value("release count"));
    }
    (0..count)
        .map(|_| {
            let what = reader.u8("release")?;
            let number = reader.u64("release number")?;
            match what {
                1 => Ok(Release::Caller(number)),
                2 => Ok(Release::Call(number)),
                _ => Err(InvalidFrame::Value("release kind")),
            }
        })
        .collect()
}
