//! A batch of one large message, whose payload goes ahead of it in fragments (`protocol.md` 9.7).
//!
//! On the wire the batch ends with its table; what is signed holds the payload, as in any other batch:
//!
//! ```text
//!  body of the BATCH       header ┼ table, one row with the flag `staged` ┼ transfer u32 ┼ signature (64)
//!  what is signed          header ┼ table ┼ (zeros) ┼ payload ┼ (zeros)
//! ```
//!
//! A [`Piece`] is what is signed, built around its payload: there is room for the rest in front of it, so that neither the
//! sender nor the receiver copies a payload a second time.
//!
//! ```text
//!  0        start                    1,024     1,024 + payload
//!  ├ unused ┼ header, table, (zeros) ┼ payload ┼ (zeros) ┼ signature (64)
//! ```
//!
//! **Invariants.** Header and table of one row are at most 912 bytes, so they fit. An aligned payload has `start = 0`: it
//! stands at a multiple of [`ALIGNMENT`] from there. Bytes are appended to a piece before it is sealed or closed, never after.

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::batch::{self, gap_to_alignment, Header, Message, TableWriter, ALIGNMENT};
use crate::signing::Mode;

/// Where the payload begins in a piece.
const HEADROOM: usize = ALIGNMENT;

/// Zeros and signature, behind it.
const TAILROOM: usize = ALIGNMENT + 64;

const _: () = assert!(HEADROOM >= 107 + 256 + 8 + batch::ROW_BYTES_MAX);

/// What is signed of a batch of one large message.
#[derive(Clone, PartialEq, Eq)]
pub struct Piece {
    buffer: Vec<u8>,
    payload_bytes: usize,
    start: usize,
}

impl Piece {
    /// An empty one. The room is asked for at once, and nothing of it is touched before bytes come.
    pub fn with_room_for(payload_bytes: usize) -> Piece {
        let mut buffer = Vec::with_capacity(HEADROOM + payload_bytes + TAILROOM);
        buffer.resize(HEADROOM, 0);
        Piece { buffer, payload_bytes: 0, start: HEADROOM }
    }

    /// Copies a payload: the only time that it is.
    pub fn of(payload: &[u8]) -> Piece {
        let mut piece = Piece::with_room_for(payload.len());
        piece.extend(payload);
        piece
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.buffer.len(), HEADROOM + self.payload_bytes, "the piece has been closed");
        self.buffer.extend_from_slice(bytes);
        self.payload_bytes += bytes.len();
    }

    /// Bytes of payload that have come so far.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    pub fn payload(&self) -> &[u8] {
        &self.buffer[HEADROOM..HEADROOM + self.payload_bytes]
    }

    /// Sets header and table in front of the payload, and the gaps where they belong.
    fn put_in_front(&mut self, prefix: &[u8], aligned: bool) {
        self.start = if aligned { 0 } else { HEADROOM - prefix.len() };
        self.buffer[self.start..self.start + prefix.len()].copy_from_slice(prefix);
        if aligned {
            let gap = gap_to_alignment(self.buffer.len());
            self.buffer.resize(self.buffer.len() + gap, 0);
        }
    }

    /// Appends the BATCH frame of the message that this is the payload of; `message.payload` is not looked at. `sign` is
    /// given what is signed.
    pub fn encode(
        mut self,
        header: &Header<'_>,
        message: &Message<'_>,
        transfer: u32,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
        out: &mut Vec<u8>,
    ) {
        let body = batch::begin(out);
        let lengths = batch::put_header(header, out);
        let table = out.len();
        let row = Message { payload: self.payload(), ..*message }.row(true);
        TableWriter::new(header.mode).put(&row, out);
        let prefix_bytes = out.len() - body;
        let gaps = match message.aligned {
            true => HEADROOM - prefix_bytes + gap_to_alignment(self.payload_bytes),
            false => 0,
        };
        batch::put_lengths(body, lengths, 1, out.len() - table, self.payload_bytes + gaps, out);
        self.put_in_front(&out[body..], message.aligned);
        let signature = sign(&self.buffer[self.start..]);
        out.put_u32(transfer);
        out.put(&signature);
        batch::finish(body, out);
    }

    /// The batch as it would have come in one frame, body and signature: for [`batch::Batch::parse`].
    ///
    /// # Errors
    /// When the payload is not as long as the batch says.
    pub fn close(mut self, batch: &StagedBatch<'_>) -> Result<Whole, InvalidFrame> {
        if self.payload_bytes != batch.payload_bytes as usize {
            return Err(InvalidFrame::Value("staged payload length"));
        }
        self.put_in_front(batch.prefix, batch.aligned);
        self.buffer.extend_from_slice(batch.signature);
        Ok(Whole(self))
    }
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Piece").field("payload_bytes", &self.payload_bytes).finish_non_exhaustive()
    }
}

/// A staged batch, put together.
#[derive(Debug)]
pub struct Whole(Piece);

impl Whole {
    /// The body of a BATCH that holds its payload.
    pub fn body(&self) -> &[u8] {
        &self.0.buffer[self.0.start..]
    }
}

/// The body of a BATCH whose payload came ahead of it. Its names are checked when it has been put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedBatch<'a> {
    pub header: Header<'a>,
    pub transfer: u32,
    pub payload_bytes: u32,
    aligned: bool,
    /// Header and table.
    prefix: &'a [u8],
    signature: &'a [u8; 64],
}

impl<'a> StagedBatch<'a> {
    /// None for a batch that holds its payloads.
    ///
    /// # Errors
    /// When it is a staged one and malformed.
    pub fn parse(body: &'a [u8]) -> Result<Option<StagedBatch<'a>>, InvalidFrame> {
        if !is_staged(body) {
            return Ok(None);
        }
        let (rest, signature) = body.split_last_chunk::<64>().ok_or(InvalidFrame::Missing("batch signature"))?;
        let mut reader = Reader::new(rest);
        let (header, row) = batch::read_single(&mut reader)?;
        // Large messages are few: each is signed.
        if header.mode == Mode::Checkpoint {
            return Err(InvalidFrame::Value("batch mode"));
        }
        let prefix = &rest[..reader.offset()];
        let transfer = reader.u32("batch transfer")?;
        reader.finish("staged batch")?;
        Ok(Some(StagedBatch {
            header,
            transfer,
            payload_bytes: row.payload_bytes,
            aligned: row.aligned,
            prefix,
            signature,
        }))
    }
}

/// Looks at count, and head of the first row, wherever the source's name lets it stand.
fn is_staged(body: &[u8]) -> bool {
    let name_bytes = body.get(107).copied().map_or(0, usize::from);
    body.get(104..106) == Some(&[1, 0]) && body.get(108 + name_bytes + 8).is_some_and(|head| head & batch::STAGED != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::batch::{kind, locate, Batch};
    use crate::frame::HEADER_BYTES;
    use crate::identity::RealmId;
    use proptest::prelude::*;

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

    fn message(destination: &str, aligned: bool) -> Message<'_> {
        Message { kind: kind::CAST, aligned, call_id: 0, caller: 0, detail: 0, source: "", destination, payload: b"" }
    }

    /// The frame's body, and what was given to be signed.
    fn encoded(engine: &str, destination: &str, payload: &[u8], aligned: bool) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut signed) = (Vec::new(), Vec::new());
        let sign = |bytes: &[u8]| {
            signed = bytes.to_vec();
            [7; 64]
        };
        Piece::of(payload).encode(&header(engine), &message(destination, aligned), 5, sign, &mut out);
        (out.split_off(HEADER_BYTES), signed)
    }

    #[test]
    fn every_cut_of_a_staged_batch_is_malformed() {
        let (body, _) = encoded("ping", "pong", b"payload", true);
        for cut in 0..body.len() {
            let whole = match StagedBatch::parse(&body[..cut]) {
                Err(_) => continue,
                Ok(None) => Batch::parse(&body[..cut]).err(),
                Ok(Some(_)) => None,
            };
            assert!(whole.is_some(), "cut at {cut}");
        }
    }

    #[test]
    fn a_staged_row_among_others_is_malformed() {
        let mut out = Vec::new();
        let messages = [message("a", false), message("b", false)];
        batch::encode(&header("ping"), messages.into_iter(), |_| [7; 64], &mut out);
        let mut body = out.split_off(HEADER_BYTES);
        assert!(Batch::parse(&body).is_ok());
        // Behind a head, a new name of one byte and a length.
        let second_row = 108 + 4 + 8 + 5;
        body[second_row] |= batch::STAGED;
        assert_eq!(StagedBatch::parse(&body), Ok(None));
        assert_eq!(Batch::parse(&body).unwrap_err(), InvalidFrame::Value("row head"));
    }

    #[test]
    fn a_payload_of_another_length_than_the_batch_says_is_refused() {
        let (body, _) = encoded("ping", "pong", b"payload", false);
        let batch = StagedBatch::parse(&body).unwrap().unwrap();
        for payload in [&b"payloa"[..], b"payload!"] {
            assert!(Piece::of(payload).close(&batch).is_err());
        }
    }

    #[test]
    fn lengths_that_lie_are_malformed() {
        let (body, _) = encoded("ping", "pong", b"payload", false);
        for place in [112, 116] {
            for value in [0u32, 1, 3, 1 << 31, u32::MAX] {
                let mut altered = body.clone();
                altered[place..place + 4].copy_from_slice(&value.to_le_bytes());
                assert!(StagedBatch::parse(&altered).is_err(), "{value} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_staged_batch_is_what_the_same_batch_in_one_frame_is(
            engine in "[a-z]{0,255}",
            destination in "[a-z]{1,255}",
            payload in prop::collection::vec(any::<u8>(), 1..5_000),
            aligned: bool,
        ) {
            let (body, signed) = encoded(&engine, &destination, &payload, aligned);
            let staged = StagedBatch::parse(&body).unwrap().unwrap();
            prop_assert_eq!((staged.transfer, staged.payload_bytes as usize), (5, payload.len()));
            let mut piece = Piece::with_room_for(payload.len());
            payload.chunks(700).for_each(|bytes| piece.extend(bytes));
            let whole = piece.close(&staged).unwrap();

            let batch = Batch::parse(whole.body()).unwrap();
            prop_assert_eq!(batch.signed, &signed[..]);
            prop_assert_eq!(batch.signature, Some(&[7; 64]));
            prop_assert_eq!(batch.header, header(&engine));
            let item = batch.messages().next().unwrap();
            prop_assert_eq!(item.payload, &payload[..]);
            prop_assert!(item.row.staged && item.row.destination == destination);
            prop_assert!(!aligned || item.offset.is_multiple_of(ALIGNMENT) && signed.len().is_multiple_of(ALIGNMENT));
            let (_, row, offset) = locate(&signed[..batch.table_end], signed.len(), 0).unwrap();
            prop_assert_eq!((row, offset), (item.row, item.offset));

            let mut one_frame = Vec::new();
            let message = Message { payload: &payload, ..message(&destination, aligned) };
            batch::encode(&header(&engine), [message].into_iter(), |_| [7; 64], &mut one_frame);
            let head = HEADER_BYTES + 108 + engine.len() + 8;
            one_frame[head] |= batch::STAGED;
            prop_assert_eq!(&one_frame[HEADER_BYTES..], whole.body());
        }

        #[test]
        fn arbitrary_bytes_are_a_staged_batch_or_not(mut body in prop::collection::vec(any::<u8>(), 0..400)) {
            if body.len() > 117 {
                (body[104], body[105], body[107], body[116]) = (1, 0, 0, batch::STAGED | kind::CAST);
            }
            if let Ok(Some(batch)) = StagedBatch::parse(&body) {
                if batch.payload_bytes < 1_000 {
                    let piece = Piece::of(&vec![0; batch.payload_bytes as usize]);
                    let _ = Batch::parse(piece.close(&batch).unwrap().body());
                }
            }
        }
    }
}
