//! BATCH: messages of one source engine under one signature (`protocol.md` 9).
//!
//! ```text
//!   0 session id (32), 32 source realm id (32), 64 destination realm id (32)
//!  96 first sequence u64, 104 count u16, 106 mode u8
//! 107 source engine name, str8
//!   . length of table u32, length of payloads u32
//!   . table:  kind u8, flags u8, call id u64, caller u64, length u32, detail u8, destination str8
//!   . payloads
//!     signature (64)
//! ```
//!
//! Everything before the signature is one contiguous piece, hashed in one go as it was sent.

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::{FrameType, FLAG_CRITICAL, HEADER_BYTES};
use crate::identity::{is_engine_name, RealmId};
use crate::limits::BATCH_MESSAGES_MAX;
use crate::signing::Mode;

/// A row without its destination's name.
pub const ROW_BYTES: usize = 24;
/// Aligned payloads begin and end at multiples of a BLAKE3 chunk.
pub const ALIGNMENT: usize = 1_024;

const FLAG_ALIGNED: u8 = 2;
const FLAG_STAGED: u8 = 4;

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
    let body = begin(out);
    let lengths = put_header(header, out);
    let table = out.len();
    let mut count = 0;
    let mut pad_before = false;
    for message in messages.clone() {
        count += 1;
        pad_before |= message.aligned;
        put_row(&message.row(false), out);
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
    let signature = sign(&out[body..]);
    out.put(&signature);
    finish(body, out);
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

pub(super) fn put_row(row: &Row<'_>, out: &mut Vec<u8>) {
    out.put_u8(row.kind);
    out.put_u8((u8::from(row.aligned) * FLAG_ALIGNED) | (u8::from(row.staged) * FLAG_STAGED));
    out.put_u64(row.call_id);
    out.put_u64(row.caller);
    out.put_u32(row.payload_bytes);
    out.put_u8(row.detail);
    out.put_str8(row.destination);
}

pub(super) fn gap_to_alignment(offset: usize) -> usize {
    offset.next_multiple_of(ALIGNMENT) - offset
}

/// A batch as it came: checked for form, not for its signature.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub header: Header<'a>,
    pub count: u16,
    /// What the signature is over.
    pub signed: &'a [u8],
    pub signature: &'a [u8; 64],
    /// Where the table ends and the payloads begin, from the start of `signed`.
    pub table_end: usize,
    table: &'a [u8],
    any_aligned: bool,
    /// All rows have been read once.
    checked: bool,
}

impl<'a> Batch<'a> {
    /// Checks everything that can be checked without a key: all lengths, all names, the gaps. A body from the wire is
    /// first given to [`crate::frame::staged::StagedBatch::parse`]: the payload of a staged one is not in it.
    pub fn parse(body: &'a [u8]) -> Result<Batch<'a>, InvalidFrame> {
        let (signed, signature) = body.split_last_chunk::<64>().ok_or(InvalidFrame::Missing("batch signature"))?;
        let mut batch = Batch::parse_header(signed, signature)?;
        batch.any_aligned = any_aligned(batch.table, batch.count)?;
        // One pass over the rows: what is delivered later can then rely on offsets and names.
        let mut messages = batch.messages();
        for _ in 0..batch.count {
            messages.next().ok_or(InvalidFrame::Missing("batch row"))??;
        }
        messages.finish()?;
        batch.checked = true;
        batch.header.engine = check_engine(batch.header.engine)?;
        Ok(batch)
    }

    /// Header and bounds of the table; the rows are still to be looked at.
    fn parse_header(signed: &'a [u8], signature: &'a [u8; 64]) -> Result<Batch<'a>, InvalidFrame> {
        let mut reader = Reader::new(signed);
        let (header, count) = read_header(&mut reader)?;
        let table_bytes = reader.u32("batch table length")? as usize;
        let payload_bytes = reader.u32("batch payload length")? as usize;
        let table = reader.take(table_bytes, "batch table")?;
        let table_end = reader.offset();
        if reader.remaining() != payload_bytes {
            return Err(InvalidFrame::Value("batch payload length"));
        }
        Ok(Batch { header, count, signed, signature, table_end, table, any_aligned: false, checked: false })
    }

    /// The messages in order. After [`Batch::parse`] every item is `Ok`.
    pub fn messages(&self) -> Messages<'a> {
        Messages {
            table: Reader::new(self.table),
            signed: self.signed,
            offset: self.table_end,
            pad_before: self.any_aligned,
            left: self.count,
            checked: self.checked,
        }
    }
}

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

fn check_count(first_sequence: u64, count: u16) -> Result<u16, InvalidFrame> {
    if count == 0 || usize::from(count) > BATCH_MESSAGES_MAX {
        return Err(InvalidFrame::Value("batch count"));
    }
    if first_sequence == 0 || first_sequence.checked_add(u64::from(count)).is_none() {
        return Err(InvalidFrame::Value("batch sequence"));
    }
    Ok(count)
}

/// Whether a row asks for alignment: the first payload then stands apart from the table, too. Nothing but flags and lengths is
/// looked at; whoever reads the rows checks the rest.
fn any_aligned(table: &[u8], count: u16) -> Result<bool, InvalidFrame> {
    let mut any = 0;
    let mut rest = table;
    for _ in 0..count {
        let (row, behind) = rest.split_at_checked(ROW_BYTES).ok_or(InvalidFrame::Missing("batch row"))?;
        any |= row[1];
        rest = behind.get(usize::from(row[ROW_BYTES - 1])..).ok_or(InvalidFrame::Missing("row destination"))?;
    }
    // A staged message has a batch of its own.
    if any & FLAG_STAGED != 0 && count != 1 {
        return Err(InvalidFrame::Value("row flags"));
    }
    match rest.is_empty() {
        true => Ok(any & FLAG_ALIGNED != 0),
        false => Err(InvalidFrame::Trailing("batch table")),
    }
}

fn check_engine(name: &str) -> Result<&str, InvalidFrame> {
    match name.is_empty() || is_engine_name(name) {
        true => Ok(name),
        false => Err(InvalidFrame::Value("engine name")),
    }
}

/// Walks table and payloads side by side.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    table: Reader<'a>,
    signed: &'a [u8],
    offset: usize,
    pad_before: bool,
    left: u16,
    checked: bool,
}

/// A row, its payload, and where that stands in what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub row: Row<'a>,
    pub payload: &'a [u8],
    pub offset: usize,
}

impl<'a> Messages<'a> {
    fn read(&mut self) -> Result<Item<'a>, InvalidFrame> {
        let row = read_fields(&mut self.table)?;
        if !self.checked {
            check_row(&row)?;
        }
        if row.aligned || self.pad_before {
            self.skip_gap()?;
        }
        self.pad_before = row.aligned;
        let end = self
            .offset
            .checked_add(row.payload_bytes as usize)
            .filter(|end| *end <= self.signed.len())
            .ok_or(InvalidFrame::Missing("payload"))?;
        let item = Item { row, payload: &self.signed[self.offset..end], offset: self.offset };
        self.offset = end;
        Ok(item)
    }

    fn skip_gap(&mut self) -> Result<(), InvalidFrame> {
        let end = self.offset + gap_to_alignment(self.offset);
        let gap = self.signed.get(self.offset..end).ok_or(InvalidFrame::Missing("alignment"))?;
        if gap.iter().any(|byte| *byte != 0) {
            return Err(InvalidFrame::Value("alignment"));
        }
        self.offset = end;
        Ok(())
    }

    /// Table and payloads must be used up.
    fn finish(mut self) -> Result<(), InvalidFrame> {
        if self.pad_before {
            self.skip_gap()?;
        }
        self.table.finish("batch table")?;
        match self.offset == self.signed.len() {
            true => Ok(()),
            false => Err(InvalidFrame::Trailing("batch payloads")),
        }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Item<'a>, InvalidFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(self.read())
    }
}

fn read_row<'a>(reader: &mut Reader<'a>) -> Result<Row<'a>, InvalidFrame> {
    let row = read_fields(reader)?;
    check_row(&row)?;
    Ok(row)
}

fn read_fields<'a>(reader: &mut Reader<'a>) -> Result<Row<'a>, InvalidFrame> {
    let kind = reader.u8("row kind")?;
    let flags = reader.u8("row flags")?;
    if flags & !(FLAG_ALIGNED | FLAG_STAGED) != 0 {
        return Err(InvalidFrame::Value("row flags"));
    }
    Ok(Row {
        kind,
        aligned: flags & FLAG_ALIGNED != 0,
        staged: flags & FLAG_STAGED != 0,
        call_id: reader.u64("row call id")?,
        caller: reader.u64("row caller")?,
        payload_bytes: reader.u32("row length")?,
        detail: reader.u8("row detail")?,
        destination: reader.str8("row destination")?,
    })
}

/// The row of a table that has but one.
pub(super) fn read_single_row(table: &[u8]) -> Result<Row<'_>, InvalidFrame> {
    let mut reader = Reader::new(table);
    let row = read_row(&mut reader)?;
    reader.finish("batch table")?;
    Ok(row)
}

/// The fields that `protocol.md` 10.1 fixes for each kind. Unknown kinds may have any.
fn check_row(row: &Row<'_>) -> Result<(), InvalidFrame> {
    let addressed = Address::parse(row.destination).is_some();
    let fits = match row.kind {
        kind::SEND | kind::CAST => row.call_id == 0 && row.caller == 0 && row.detail == 0 && addressed,
        kind::GENCALL => row.call_id != 0 && row.caller != 0 && addressed,
        kind::EXIT => row.call_id == 0 && row.caller != 0 && addressed,
        kind::DOWN => row.call_id == 0 && row.detail == 0 && row.destination.is_empty(),
        kind::REPLY => row.call_id != 0 && row.caller == 0 && row.detail == 0 && row.destination.is_empty(),
        kind::ERROR => row.call_id != 0 && row.caller == 0 && row.destination.is_empty() && row.payload_bytes == 0,
        _ => true,
    };
    match fits {
        true => Ok(()),
        false => Err(InvalidFrame::Value("row")),
    }
}

/// Header and rows from the first `table_end` bytes of a batch alone, for receipts: the row at `index` and the offset
/// of its payload. `total_bytes` is the length of the whole signed piece.
pub fn locate(prefix: &[u8], total_bytes: usize, index: u16) -> Result<(Header<'_>, Row<'_>, usize), InvalidFrame> {
    let mut reader = Reader::new(prefix);
    let (header, count) = read_header(&mut reader)?;
    check_engine(header.engine)?;
    let table_bytes = reader.u32("batch table length")? as usize;
    let payload_bytes = reader.u32("batch payload length")? as usize;
    reader.take(table_bytes, "batch table")?;
    let table_end = reader.offset();
    reader.finish("batch prefix")?;
    if table_end.checked_add(payload_bytes) != Some(total_bytes) {
        return Err(InvalidFrame::Value("batch payload length"));
    }
    let table = &prefix[table_end - table_bytes..];
    let mut pad_before = any_aligned(table, count)?;
    let mut table = Reader::new(table);
    let mut offset = table_end;
    let mut found = None;
    for at in 0..count {
        let row = read_row(&mut table)?;
        if row.aligned || pad_before {
            offset += gap_to_alignment(offset);
        }
        pad_before = row.aligned;
        let end = offset.checked_add(row.payload_bytes as usize).filter(|end| *end <= total_bytes);
        let end = end.ok_or(InvalidFrame::Missing("payload"))?;
        if at == index {
            found = Some((header, row, offset));
        }
        offset = end;
    }
    if pad_before {
        offset += gap_to_alignment(offset);
    }
    match offset == total_bytes {
        true => found.ok_or(InvalidFrame::Value("message index")),
        false => Err(InvalidFrame::Trailing("batch payloads")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn message(destination: &'static str, payload: &'static [u8], aligned: bool) -> Message<'static> {
        Message { kind: kind::CAST, aligned, call_id: 0, caller: 0, detail: 0, destination, payload }
    }

    fn encoded(messages: &[Message<'static>]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&header("ping"), messages.iter().copied(), |_| [7; 64], &mut out);
        out
    }

    #[test]
    fn a_batch_reads_as_it_was_written() {
        let messages = [message("a", b"one", false), message("b", b"", false), message("c", b"three", true)];
        let bytes = encoded(&messages);
        let batch = Batch::parse(&bytes[HEADER_BYTES..]).unwrap();
        assert_eq!(batch.header, header("ping"));
        assert_eq!(batch.signature, &[7; 64]);
        let items: Vec<_> = batch.messages().map(Result::unwrap).collect();
        for (item, message) in items.iter().zip(&messages) {
            assert_eq!((item.row.destination, item.payload), (message.destination, message.payload));
        }
        assert_eq!(items[2].offset % ALIGNMENT, 0);
        assert_eq!(batch.signed.len() % ALIGNMENT, 0);
        for (index, item) in items.iter().enumerate() {
            let (_, row, offset) = locate(&batch.signed[..batch.table_end], batch.signed.len(), index as u16).unwrap();
            assert_eq!((row, offset), (item.row, item.offset));
        }
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for number in [1, 15, 16, 0xdead_beef, u64::MAX] {
            assert_eq!(Address::parse(&Address::of_handle(number)), Some(Address::Handle(number)));
        }
        assert_eq!(Address::parse("ping"), Some(Address::Engine("ping")));
        assert_eq!(Address::parse("ping@bob"), None);
        assert_eq!(Address::parse(""), None);
    }

    #[test]
    fn every_cut_of_a_batch_is_malformed() {
        let bytes = encoded(&[message("a", b"one", true), message("b", b"two", false)]);
        let body = &bytes[HEADER_BYTES..];
        for cut in 0..body.len() {
            assert!(Batch::parse(&body[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_gap_that_is_not_zero_is_malformed() {
        let bytes = encoded(&[message("a", b"one", true)]);
        let mut body = bytes[HEADER_BYTES..].to_vec();
        let last = body.len() - 65;
        body[last] = 1;
        assert_eq!(Batch::parse(&body).unwrap_err(), InvalidFrame::Value("alignment"));
    }

    #[test]
    fn lengths_that_lie_are_malformed_at_every_place() {
        let bytes = encoded(&[message("a", b"one", false)]);
        let body = &bytes[HEADER_BYTES..];
        // count, table length, payload length, the row's length
        for place in [104, 112, 116, 120 + 18] {
            for value in [0u32, 1, 3, 1 << 31, u32::MAX] {
                let mut altered = body.to_vec();
                altered[place..place + 4].copy_from_slice(&value.to_le_bytes());
                if altered != body {
                    assert!(Batch::parse(&altered).is_err(), "{value} at {place}");
                }
            }
        }
    }

    #[test]
    fn fields_that_a_kind_does_not_have_are_malformed() {
        for (kind, call_id, caller, destination) in [
            (kind::SEND, 1, 0, "a"),
            (kind::CAST, 0, 1, "a"),
            (kind::CAST, 0, 0, ""),
            (kind::CAST, 0, 0, "a@b"),
            (kind::GENCALL, 0, 1, "a"),
            (kind::GENCALL, 1, 0, "a"),
            (kind::REPLY, 0, 0, ""),
            (kind::REPLY, 1, 0, "a"),
            (kind::ERROR, 1, 1, ""),
            (kind::SEND, 0, 0, "@"),
            (kind::SEND, 0, 0, "@0"),
            (kind::SEND, 0, 0, "@01"),
            (kind::SEND, 0, 0, "@1F"),
            (kind::SEND, 0, 0, "@1g"),
            (kind::SEND, 0, 0, "@+1"),
            (kind::SEND, 0, 0, "@11111111111111111"),
            (kind::EXIT, 0, 0, "a"),
            (kind::EXIT, 1, 1, "a"),
            (kind::EXIT, 0, 1, ""),
            (kind::DOWN, 0, 1, "a"),
            (kind::DOWN, 1, 1, ""),
        ] {
            let message = Message { kind, aligned: false, call_id, caller, detail: 0, destination, payload: b"" };
            let mut out = Vec::new();
            encode(&header("ping"), [message].into_iter(), |_| [7; 64], &mut out);
            assert!(Batch::parse(&out[HEADER_BYTES..]).is_err(), "{message:?}");
        }
    }
}
