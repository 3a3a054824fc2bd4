//! BATCH: messages under one signature (`protocol.md` 9).
//!
//! ```text
//!   0 session id (32), 32 source realm id (32), 64 destination realm id (32)
//!  96 first sequence u64, 104 count u16, 106 mode u8
//! 107 source engine name, str8
//!   . length of table u32, length of payloads u32
//!   . table, see [`table`]
//!   . payloads
//!     signature (64)
//! ```
//!
//! Everything before the signature is one contiguous piece, hashed in one go as it was sent.

mod table;
#[cfg(test)]
mod tests;

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::{FrameType, FLAG_CRITICAL, HEADER_BYTES};
use crate::identity::{is_engine_name, RealmId};
use crate::limits::BATCH_MESSAGES_MAX;
use crate::signing::Mode;

pub use table::{ROW_BYTES, ROW_BYTES_MAX};

pub(crate) use table::same;
use table::{Place, Table};
pub(super) use table::{TableWriter, STAGED};

/// Aligned payloads begin and end at multiples of a BLAKE3 chunk.
pub const ALIGNMENT: usize = 1_024;

/// Where the header has its mode.
const MODE_AT: usize = 106;

/// Kinds of message (`protocol.md` 10.1). 7 to 10 and 12 are reserved: MONITOR, DEMONITOR, LINK, UNLINK, EVENT.
pub mod kind {
    pub const SEND: u8 = 1;
    pub const CAST: u8 = 2;
    pub const GENCALL: u8 = 3;
    pub const REPLY: u8 = 4;
    pub const ERROR: u8 = 5;
    pub const DOWN: u8 = 6;
    pub const EXIT: u8 = 11;
}

/// What an EXIT stands for (`protocol.md` 10.7).
pub mod exit {
    /// A process that was linked to the destination has ended.
    pub const LINKED: u8 = 1;
    /// `exit/2`.
    pub const SENT: u8 = 2;
}

/// Where a message goes (`protocol.md` 10.8): an engine by its name, or a process that its receiver has given to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address<'a> {
    Engine(&'a str),
    /// The receiver's number for it.
    Handle(u64),
}

impl<'a> Address<'a> {
    /// `@` and the number in lowercase hexadecimal without leading zeros, or a name that an engine can have.
    pub fn parse(text: &'a str) -> Option<Address<'a>> {
        let Some(digits) = text.strip_prefix('@') else {
            return is_engine_name(text).then_some(Address::Engine(text));
        };
        let hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        let canonical = (1..=16).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(hex);
        match canonical {
            true => u64::from_str_radix(digits, 16).ok().map(Address::Handle),
            false => None,
        }
    }

    /// The text of a process's address.
    pub fn of_handle(number: u64) -> String {
        format!("@{number:x}")
    }
}

/// Labels of GENCALL (`protocol.md` 10.2).
pub mod label {
    pub const GEN_CALL: u8 = 1;
    pub const SYSTEM: u8 = 2;
    pub const CALLER: u8 = 4;
    /// A cast and a plain message of which the caller is told that they are in the engine's mailbox.
    pub const CAST: u8 = 5;
    pub const SEND: u8 = 6;
}

/// Why a single call was refused (`protocol.md` 10.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    Forbidden = 1,
    Filtered = 2,
    Undecodable = 3,
    Overload = 4,
    Noproc = 5,
    TooLarge = 6,
    Identifiers = 7,
    /// What was to answer has lost the way back to the caller.
    Abandoned = 8,
    /// It waited for too long on its way out.
    Expired = 9,
    /// The realm is about to stop.
    Draining = 10,
}

impl Refusal {
    pub const ALL: [Refusal; 10] = [
        Refusal::Forbidden,
        Refusal::Filtered,
        Refusal::Undecodable,
        Refusal::Overload,
        Refusal::Noproc,
        Refusal::TooLarge,
        Refusal::Identifiers,
        Refusal::Abandoned,
        Refusal::Expired,
        Refusal::Draining,
    ];

    pub fn from_wire(number: u8) -> Option<Refusal> {
        Self::ALL.into_iter().find(|refusal| *refusal as u8 == number)
    }

    pub fn name(self) -> &'static str {
        match self {
            Refusal::Forbidden => "forbidden",
            Refusal::Filtered => "filtered",
            Refusal::Undecodable => "undecodable",
            Refusal::Overload => "overload",
            Refusal::Noproc => "noproc",
            Refusal::TooLarge => "too_large",
            Refusal::Identifiers => "identifiers",
            Refusal::Abandoned => "abandoned",
            Refusal::Expired => "expired",
            Refusal::Draining => "draining",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    pub kind: u8,
    pub aligned: bool,
    /// The payload came ahead of the batch: see [`crate::frame::staged`].
    pub staged: bool,
    pub call_id: u64,
    pub caller: u64,
    pub payload_bytes: u32,
    pub detail: u8,
    /// Empty for the realm itself.
    pub source: &'a str,
    /// The place of its name among those of the batch ([`Batch::names`]); 0 where the batch has one source.
    pub source_place: u16,
    pub destination: &'a str,
}

/// A message as it goes into a batch.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub kind: u8,
    pub aligned: bool,
    pub call_id: u64,
    pub caller: u64,
    pub detail: u8,
    /// Not looked at in the mode of engines, where the header has it.
    pub source: &'a str,
    pub destination: &'a str,
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// # Panics
    /// When the payload is longer than any message limit.
    pub(crate) fn row(&self, staged: bool) -> Row<'a> {
        Row {
            kind: self.kind,
            aligned: self.aligned,
            staged,
            call_id: self.call_id,
            caller: self.caller,
            payload_bytes: u32::try_from(self.payload.len()).expect("a payload is bounded by the message limit"),
            detail: self.detail,
            source: self.source,
            source_place: 0,
            destination: self.destination,
        }
    }
}

/// What a batch's header says besides its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    pub session: [u8; 32],
    pub source: RealmId,
    pub destination: RealmId,
    pub first_sequence: u64,
    pub mode: Mode,
    /// Whose batch it is, in the mode of engines; empty for the realm itself, and in all others.
    pub engine: &'a str,
}

/// Appends a whole BATCH frame; `sign` is given the body without its signature.
///
/// # Panics
/// When there are no messages or more than [`BATCH_MESSAGES_MAX`]: the session cuts its batches.
pub fn encode<'m>(
    header: &Header<'_>,
    messages: impl Iterator<Item = Message<'m>> + Clone,
    sign: impl FnOnce(&[u8]) -> [u8; 64],
    out: &mut Vec<u8>,
) {
    let body = put_body(header, messages, out);
    let signature = sign(&out[body..]);
    out.put(&signature);
    finish(body, out);
}

/// Appends a whole BATCH frame of the mode `checkpoint`, which has no signature. Returns where its body begins in `out`.
///
/// # Panics
/// As [`encode`].
pub fn encode_unsigned<'m>(
    header: &Header<'_>,
    messages: impl Iterator<Item = Message<'m>> + Clone,
    out: &mut Vec<u8>,
) -> usize {
    debug_assert_eq!(header.mode, Mode::Checkpoint, "all others are signed");
    let body = put_body(header, messages, out);
    finish(body, out);
    body
}

/// What is signed. Returns where it begins.
fn put_body<'m>(header: &Header<'_>, messages: impl Iterator<Item = Message<'m>> + Clone, out: &mut Vec<u8>) -> usize {
    let body = begin(out);
    let lengths = put_header(header, out);
    let table = out.len();
    let mut rows = TableWriter::new(header.mode);
    let mut count = 0;
    let mut pad_before = false;
    for message in messages.clone() {
        count += 1;
        pad_before |= message.aligned;
        rows.put(&message.row(false), out);
    }
    assert!((1..=BATCH_MESSAGES_MAX).contains(&count), "a batch holds 1 to 4,096 messages");

    let payloads = out.len();
    for message in messages {
        if message.aligned || pad_before {
            let gap = gap_to_alignment(out.len() - body);
            out.resize(out.len() + gap, 0);
        }
        out.put(message.payload);
        pad_before = message.aligned;
    }
    if pad_before {
        let gap = gap_to_alignment(out.len() - body);
        out.resize(out.len() + gap, 0);
    }

    let end = out.len();
    put_lengths(body, lengths, count as u16, payloads - table, end - payloads, out);
    body
}

/// The frame's header, its length still to be told. Returns where the body begins.
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    out.put_u8(FrameType::Batch as u8);
    out.put_u8(FLAG_CRITICAL);
    out.put_u32(0);
    out.len()
}

pub(super) fn finish(body: usize, out: &mut [u8]) {
    let length = (out.len() - body) as u32;
    out[body - HEADER_BYTES + 2..body].copy_from_slice(&length.to_le_bytes());
}

/// Everything before the table, but for count and lengths. Returns where the lengths go.
pub(super) fn put_header(header: &Header<'_>, out: &mut Vec<u8>) -> usize {
    out.put(&header.session);
    out.put(&header.source.0);
    out.put(&header.destination.0);
    out.put_u64(header.first_sequence);
    out.put_u16(0);
    out.put_u8(header.mode as u8);
    out.put_str8(header.engine);
    let lengths = out.len();
    out.put(&[0; 8]);
    lengths
}

/// What [`put_header`] left open, in a body that begins at `body`.
pub(super) fn put_lengths(body: usize, at: usize, count: u16, table: usize, payloads: usize, out: &mut [u8]) {
    out[body + 104..body + 106].copy_from_slice(&count.to_le_bytes());
    out[at..at + 4].copy_from_slice(&(table as u32).to_le_bytes());
    out[at + 4..at + 8].copy_from_slice(&(payloads as u32).to_le_bytes());
}

pub(super) fn gap_to_alignment(offset: usize) -> usize {
    offset.next_multiple_of(ALIGNMENT) - offset
}

/// A batch as it came: checked for form, not for its signature.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    pub header: Header<'a>,
    pub count: u16,
    /// What the signature is over.
    pub signed: &'a [u8],
    /// None in the mode `checkpoint`.
    pub signature: Option<&'a [u8; 64]>,
    /// Where the table ends and the payloads begin, from the start of `signed`.
    pub table_end: usize,
    table: Table<'a>,
}

/// A row, its payload, and where that stands in what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub row: Row<'a>,
    pub payload: &'a [u8],
    pub offset: usize,
}

impl<'a> Batch<'a> {
    /// Checks everything that can be checked without a key: all lengths, all names, the gaps. A body from the wire is
    /// first given to [`crate::frame::staged::StagedBatch::parse`]: the payload of a staged one is not in it.
    pub fn parse(body: &'a [u8]) -> Result<Batch<'a>, InvalidFrame> {
        Batch::parse_into(body, Rows::default())
    }

    /// The same, with the room of a batch before.
    pub fn parse_into(body: &'a [u8], rows: Rows) -> Result<Batch<'a>, InvalidFrame> {
        let (signed, signature) = match body.get(MODE_AT) {
            Some(mode) if *mode == Mode::Checkpoint as u8 => (body, None),
            _ => {
                let split = body.split_last_chunk::<64>().ok_or(InvalidFrame::Missing("batch signature"))?;
                (split.0, Some(split.1))
            }
        };
        let mut reader = Reader::new(signed);
        let (header, count) = read_header(&mut reader)?;
        let (table, payloads_bytes) = read_table_bytes(&mut reader)?;
        let table_end = reader.offset();
        if reader.remaining() != payloads_bytes {
            return Err(InvalidFrame::Value("batch payload length"));
        }
        let place = Place { mode: header.mode, count, table_end, payloads_end: signed.len() };
        let table = Table::read(table, place, rows.0)?;
        table.check_gaps(signed, table_end)?;
        check_engine(header.engine)?;
        Ok(Batch { header, count, signed, signature, table_end, table })
    }

    /// In their order.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = Item<'a>> + '_ {
        (0..self.table.len()).map(|index| self.item(index))
    }

    /// The message at this place.
    pub fn message(&self, index: u16) -> Option<Item<'a>> {
        (usize::from(index) < self.table.len()).then(|| self.item(index.into()))
    }

    fn item(&self, index: usize) -> Item<'a> {
        let (row, offset) = self.table.row(index, &self.header);
        Item { row, payload: &self.signed[offset..offset + row.payload_bytes as usize], offset }
    }

    /// How many names there are: more than any [`Row::source_place`].
    pub fn names(&self) -> usize {
        self.table.names()
    }

    /// For [`Batch::parse_into`].
    pub fn into_rows(self) -> Rows {
        Rows(self.table.into_rows())
    }
}

/// Room for the rows of a batch.
#[derive(Debug, Default)]
pub struct Rows(Vec<table::Entry>);

/// Everything before the lengths; the engine's name is still to be checked.
pub(super) fn read_header<'a>(reader: &mut Reader<'a>) -> Result<(Header<'a>, u16), InvalidFrame> {
    let session = reader.array("batch session")?;
    let source = RealmId(reader.array("batch source")?);
    let destination = RealmId(reader.array("batch destination")?);
    let first_sequence = reader.u64("batch sequence")?;
    let count = check_count(first_sequence, reader.u16("batch count")?)?;
    let mode = Mode::from_wire(reader.u8("batch mode")?).ok_or(InvalidFrame::Value("batch mode"))?;
    let engine = reader.str8("batch engine")?;
    if mode != Mode::Engine && !engine.is_empty() {
        return Err(InvalidFrame::Value("batch engine"));
    }
    Ok((Header { session, source, destination, first_sequence, mode, engine }, count))
}

/// The table, and how many bytes of payloads follow.
fn read_table_bytes<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], usize), InvalidFrame> {
    let table_bytes = reader.u32("batch table length")? as usize;
    let payloads_bytes = reader.u32("batch payload length")? as usize;
    Ok((reader.take(table_bytes, "batch table")?, payloads_bytes))
}

fn check_count(first_sequence: u64, count: u16) -> Result<u16, InvalidFrame> {
    if count == 0 || usize::from(count) > BATCH_MESSAGES_MAX {
        return Err(InvalidFrame::Value("batch count"));
    }
    if first_sequence == 0 || first_sequence.checked_add(u64::from(count)).is_none() {
        return Err(InvalidFrame::Value("batch sequence"));
    }
    Ok(count)
}

fn check_engine(name: &str) -> Result<(), InvalidFrame> {
    match name.is_empty() || is_engine_name(name) {
        true => Ok(()),
        false => Err(InvalidFrame::Value("engine name")),
    }
}

/// Header and row of a batch of one message whose payload is elsewhere. `reader` is behind the table then.
pub(super) fn read_single<'a>(reader: &mut Reader<'a>) -> Result<(Header<'a>, Row<'a>), InvalidFrame> {
    let (header, count) = read_header(reader)?;
    let (table, payloads_bytes) = read_table_bytes(reader)?;
    let table_end = reader.offset();
    let payloads_end = table_end.saturating_add(payloads_bytes);
    let table = Table::read(table, Place { mode: header.mode, count, table_end, payloads_end }, Vec::new())?;
    Ok((header, table.row(0, &header).0))
}

/// Header and rows from the first `table_end` bytes of a batch alone, for receipts: the row at `index` and the offset
/// of its payload. `total_bytes` is the length of the whole signed piece.
pub fn locate(prefix: &[u8], total_bytes: usize, index: u16) -> Result<(Header<'_>, Row<'_>, usize), InvalidFrame> {
    let mut reader = Reader::new(prefix);
    let (header, count) = read_header(&mut reader)?;
    check_engine(header.engine)?;
    let (table, payloads_bytes) = read_table_bytes(&mut reader)?;
    let table_end = reader.offset();
    reader.finish("batch prefix")?;
    if table_end.checked_add(payloads_bytes) != Some(total_bytes) {
        return Err(InvalidFrame::Value("batch payload length"));
    }
    let place = Place { mode: header.mode, count, table_end, payloads_end: total_bytes };
    let table = Table::read(table, place, Vec::new())?;
    if index >= count {
        return Err(InvalidFrame::Value("message index"));
    }
    let (row, offset) = table.row(index.into(), &header);
    Ok((header, row, offset))
}
