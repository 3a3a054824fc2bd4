//! How much of what has come one call works off, where whoever calls must not be held for long: a scheduler of the BEAM, which
//! is to be back within a millisecond.
//!
//! Frames are handled whole, so the work that one will be is estimated before it is begun. Estimates are in nanoseconds of a
//! processor of 2024, a good deal too high rather than too low; a driver that leaves a wide margin is right on slower ones, too.

use crate::frame::FrameType;

/// A signature to verify, with what else there is to do once for a batch or an announcement.
const SIGNATURE_NS: u64 = 25_000;
/// A message to be looked at, decoded and put into an event.
const MESSAGE_NS: u64 = 400;
/// A kilobyte of small messages, which are scanned and decoded term by term.
const SMALL_KB_NS: u64 = 2_000;
/// A kilobyte that is hashed and copied, into memory that may be new to the process.
const LARGE_KB_NS: u64 = 750;
/// Payloads of this size on average are taken for binaries, for the most part.
const LARGE_BYTES: u64 = 16 * 1024;

/// What a call may do, and has left of it.
#[derive(Debug)]
pub struct Slice {
    whole_ns: u64,
    left_ns: u64,
}

/// What a call has left undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: all frames that have come whole were handled.
    Nothing,
    /// Another slice is needed.
    More,
    /// The next frame is more than a whole slice: it is for a caller that has the time.
    Large,
}

impl Slice {
    /// So much work, by estimate.
    pub fn of_ns(whole_ns: u64) -> Slice {
        Slice { whole_ns, left_ns: whole_ns }
    }

    /// All there is.
    pub fn unbounded() -> Slice {
        Slice::of_ns(u64::MAX)
    }

    /// How much of it was used, in hundredths, rounded up.
    pub fn used_percent(&self) -> u8 {
        let used = self.whole_ns - self.left_ns;
        u8::try_from((u128::from(used) * 100).div_ceil(u128::from(self.whole_ns.max(1)))).unwrap_or(100)
    }

    /// Takes what a frame will be off the slice; if there isn't that much left nothing, and says what remains to be done.
    pub(crate) fn take(&mut self, kind: FrameType, body: &[u8]) -> Rest {
        let ns = work_ns(kind, body);
        if ns <= self.left_ns {
            self.left_ns -= ns;
            return Rest::Nothing;
        }
        match ns > self.whole_ns {
            true => Rest::Large,
            false => Rest::More,
        }
    }
}

fn work_ns(kind: FrameType, body: &[u8]) -> u64 {
    let kb = (body.len() as u64).div_ceil(1024);
    match kind {
        FrameType::Batch => {
            let (messages, bytes) = extent(body);
            let per_kb = if bytes / messages.max(1) >= LARGE_BYTES { LARGE_KB_NS } else { SMALL_KB_NS };
            SIGNATURE_NS + messages * MESSAGE_NS + bytes.div_ceil(1024) * per_kb
        }
        // Entries of nine bytes and more, each a look at a table or two.
        FrameType::HandleRelease | FrameType::Credit => body.len() as u64 * 20,
        FrameType::Fragment => kb * LARGE_KB_NS,
        FrameType::Ack | FrameType::Ping | FrameType::Pong | FrameType::Resume | FrameType::Close => MESSAGE_NS,
        _ => SIGNATURE_NS + kb * SMALL_KB_NS,
    }
}

/// Messages of a batch and its bytes, of which those of a staged one came ahead of it. What stands there is the peer's word, and not
/// checked yet; for a frame that is malformed anything is right.
fn extent(body: &[u8]) -> (u64, u64) {
    let name_bytes = body.get(107).copied().map_or(0, usize::from);
    let count = body.get(104..106).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes);
    let payloads =
        body.get(112 + name_bytes..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_le_bytes);
    (count.into(), u64::from(payloads).max(body.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::batch::{self, kind, Header};
    use crate::frame::staged::Piece;
    use crate::frame::HEADER_BYTES;
    use crate::identity::RealmId;
    use crate::signing::Mode;

    fn header(engine: &str) -> Header<'_> {
        Header {
            session: [1; 32],
            source: RealmId([2; 32]),
            destination: RealmId([3; 32]),
            first_sequence: 9,
            mode: Mode::Engine,
            engine,
        }
    }

    fn message(payload: &[u8]) -> batch::Message<'_> {
        let aligned = false;
        batch::Message {
            kind: kind::CAST,
            aligned,
            call_id: 0,
            caller: 0,
            detail: 0,
            source: "",
            destination: "pong",
            payload,
        }
    }

    fn body_of(messages: usize, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        batch::encode(&header("ping"), (0..messages).map(|_| message(payload)), |_| [7; 64], &mut out);
        out.split_off(HEADER_BYTES)
    }

    #[test]
    fn a_batch_is_known_by_its_messages_and_bytes_and_a_staged_one_by_what_came_ahead_of_it() {
        let body = body_of(7, &[0; 100]);
        assert_eq!(extent(&body), (7, body.len() as u64));
        let mut out = Vec::new();
        Piece::of(&[0; 100_000]).encode(&header("ping"), &message(b""), 5, |_| [7; 64], &mut out);
        assert_eq!(extent(&out[HEADER_BYTES..]), (1, 100_000));
        assert_eq!(extent(b"cut"), (0, 3));
    }

    #[test]
    fn what_fits_is_taken_what_does_not_waits_for_another_slice_and_what_never_will_for_a_caller_with_time() {
        let one = body_of(1, b"");
        let ns = work_ns(FrameType::Batch, &one);
        let mut slice = Slice::of_ns(2 * ns);
        assert_eq!(slice.take(FrameType::Batch, &one), Rest::Nothing);
        assert_eq!(slice.used_percent(), 50);
        assert_eq!(slice.take(FrameType::Batch, &one), Rest::Nothing, "exactly");
        assert_eq!((slice.take(FrameType::Batch, &one), slice.used_percent()), (Rest::More, 100));
        let mut slice = Slice::of_ns(ns - 1);
        assert_eq!((slice.take(FrameType::Batch, &one), slice.used_percent()), (Rest::Large, 0));
        let mut slice = Slice::unbounded();
        assert_eq!(slice.take(FrameType::Batch, &body_of(4_096, &[0; 1_000])), Rest::Nothing);
    }
    #[test]
    fn half_a_millisecond_is_enough_for_a_message_of_half_a_megabyte_and_not_for_one_of_a_whole() {
        for (bytes, rest) in [(512 * 1024, Rest::Nothing), (640 * 1024, Rest::Large), (1024 * 1024, Rest::Large)] {
            let mut out = Vec::new();
            Piece::of(&vec![0; bytes]).encode(&header("ping"), &message(b""), 5, |_| [7; 64], &mut out);
            let mut slice = Slice::of_ns(500_000);
            assert_eq!(slice.take(FrameType::Batch, &out[HEADER_BYTES..]), rest, "{bytes}");
        }
    }
}
