//! CREDIT: how much more may be sent to single engines (`protocol.md` 12.6).
//!
//! ```text
//!  0 count u16 (not 0)
//!    count times: destination str8, bytes u32 (not 0)
//! ```

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::{self, FrameType};

/// The longest body, bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// A destination (an engine's name, or a handle's address) and the bytes that it has room for again.
pub type Grant<N> = (N, u32);

/// Appends as many frames as `grants` take.
///
/// # Panics
/// When a destination is longer than 255 bytes: it came in a `str8`.
pub fn encode<N: AsRef<str>>(grants: &[Grant<N>], out: &mut Vec<u8>) -> usize {
    let mut frames = 0;
    let mut body = vec![0; 2];
    let mut count: u16 = 0;
    for (destination, bytes) in grants {
        let destination = destination.as_ref();
        if body.len() + 1 + destination.len() + 4 > BODY_BYTES_MAX {
            finish(&mut body, &mut count, out);
            frames += 1;
        }
        body.put_str8(destination);
        body.put_u32(*bytes);
        count += 1;
    }
    if count > 0 {
        finish(&mut body, &mut count, out);
        frames += 1;
    }
    frames
}

fn finish(body: &mut Vec<u8>, count: &mut u16, out: &mut Vec<u8>) {
    body[..2].copy_from_slice(&count.to_le_bytes());
    frame::encode(FrameType::Credit, body, out);
    body.truncate(2);
    *count = 0;
}

/// Gives each entry to `each`, when all of them are as they should be.
///
/// # Errors
/// When a length lies, or an entry has no destination or no bytes.
pub fn decode(body: &[u8], mut each: impl FnMut(&str, u32)) -> Result<(), InvalidFrame> {
    walk(body, &mut |_, _| {})?;
    walk(body, &mut each)
}

fn walk(body: &[u8], each: &mut impl FnMut(&str, u32)) -> Result<(), InvalidFrame> {
    let mut reader = Reader::new(body);
    let count = reader.u16("credit count")?;
    if count == 0 {
        return Err(InvalidFrame::Value("credit count"));
    }
    for _ in 0..count {
        let destination = reader.str8("credit destination")?;
        let bytes = reader.u32("credit bytes")?;
        if destination.is_empty() || bytes == 0 {
            return Err(InvalidFrame::Value("credit"));
        }
        each(destination, bytes);
    }
    reader.finish("credit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HEADER_BYTES;
    use proptest::prelude::*;

    fn read(body: &[u8]) -> Result<Vec<Grant<String>>, InvalidFrame> {
        let mut grants = Vec::new();
        decode(body, |destination, bytes| grants.push((destination.to_owned(), bytes))).map(|()| grants)
    }

    /// The bodies of the frames in `bytes`.
    fn bodies(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut bodies = Vec::new();
        while !bytes.is_empty() {
            let length = u32::from_le_bytes(bytes[2..6].try_into().unwrap()) as usize;
            assert!(length <= BODY_BYTES_MAX);
            bodies.push(&bytes[HEADER_BYTES..HEADER_BYTES + length]);
            bytes = &bytes[HEADER_BYTES + length..];
        }
        bodies
    }

    #[test]
    fn every_cut_of_a_credit_is_malformed_and_gives_nothing() {
        let mut out = Vec::new();
        assert_eq!(encode(&[("ping", 7), ("@1f", u32::MAX)], &mut out), 1);
        for cut in HEADER_BYTES..out.len() {
            let result = decode(&out[HEADER_BYTES..cut], |_, _| panic!("an entry of a cut frame"));
            assert!(result.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn entries_without_destination_or_bytes_and_frames_without_entries_are_malformed() {
        for body in [&[0, 0][..], &[1, 0, 0, 1, 0, 0, 0], &[1, 0, 1, b'a', 0, 0, 0, 0], &[1, 0, 1, b'a', 1, 0, 0, 0, 9]]
        {
            assert!(read(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn more_grants_than_fit_a_frame_are_several() {
        let grants: Vec<Grant<String>> = (0..2_000).map(|number| (format!("{number:0>100}"), 1)).collect();
        let mut out = Vec::new();
        let frames = encode(&grants, &mut out);
        let bodies = bodies(&out);
        assert_eq!((frames, bodies.len()), (4, 4));
        assert_eq!(bodies.into_iter().flat_map(|body| read(body).unwrap()).collect::<Vec<_>>(), grants);
    }

    proptest! {
        #[test]
        fn credit_reads_as_it_was_written(grants in prop::collection::vec(("[a-z@é]{1,60}", 1u32..), 1..50)) {
            let mut out = Vec::new();
            prop_assert_eq!(encode(&grants, &mut out), 1);
            prop_assert_eq!(read(&out[HEADER_BYTES..]), Ok(grants));
        }

        #[test]
        fn arbitrary_bytes_are_credit_or_an_error(body in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(grants) = read(&body) {
                let mut out = Vec::new();
                encode(&grants, &mut out);
                prop_assert_eq!(&out[HEADER_BYTES..], &body[..]);
            }
        }
    }
}
