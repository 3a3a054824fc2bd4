//! The table of a batch: a row for each message, and each name once (`protocol.md` 9.2).
//!
//! ```text
//!  row   head u8 ┼ source ┼ destination ┼ length of payload varint ┼ call id varint, caller varint, detail u8
//!                  └ not in mode 1                                   └ if the head says so: where one of them is not 0
//!  head  bits 0 to 3 kind, 4 aligned, 5 staged, 6 call fields, 7 zero
//!  name  varint: 0 the empty one; 1 a new one, str8, which gets the next number, from 2 on; else the one of that number
//! ```

use std::collections::HashMap;

use crate::codec::{Reader, Writer};
use crate::error::InvalidFrame;
use crate::frame::batch::{gap_to_alignment, kind, Address, Header, Row};
use crate::identity::is_engine_name;
use crate::recent::Recent;
use crate::signing::Mode;

/// What a row takes, about: a name that is not new, and no more of a call than most have.
pub const ROW_BYTES: usize = 8;

/// A row with two new names of 255 bytes and all there is of a call.
pub const ROW_BYTES_MAX: usize = 1 + 2 * (1 + 1 + 255) + 5 + 10 + 10 + 1;

const KIND: u8 = 0x0F;
const ALIGNED: u8 = 0x10;
pub(in crate::frame) const STAGED: u8 = 0x20;
const CALL: u8 = 0x40;
const RESERVED: u8 = 0x80;

/// The number that says that a name follows; the first name's own is one more.
const NEW: u64 = 1;

/// So few names are looked through one by one.
const FEW: usize = 8;

/// A row as it is kept: its names by their places in the list. Lists of them can be used again ([`super::Batch::into_rows`]).
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    head: u8,
    detail: u8,
    source: u16,
    destination: u16,
    payload_bytes: u32,
    /// Of the payload, from the start of the body.
    offset: u32,
    call_id: u64,
    caller: u64,
}

impl Entry {
    fn is_aligned(&self) -> bool {
        self.head & ALIGNED != 0
    }

    fn offset(&self) -> usize {
        self.offset as usize
    }

    fn end(&self) -> usize {
        self.offset() + self.payload_bytes as usize
    }

    /// The fields that `protocol.md` 10.1 fixes for each kind. Unknown kinds may have any.
    fn fits(&self, destination: &Name<'_>) -> bool {
        let Entry { call_id, caller, detail, .. } = *self;
        match self.head & KIND {
            kind::SEND | kind::CAST => call_id == 0 && caller == 0 && detail == 0 && destination.is_address,
            kind::GENCALL => call_id != 0 && caller != 0 && destination.is_address,
            kind::EXIT => call_id == 0 && caller != 0 && destination.is_address,
            kind::DOWN => call_id == 0 && detail == 0 && destination.text.is_empty(),
            kind::REPLY => call_id != 0 && caller == 0 && detail == 0 && destination.text.is_empty(),
            kind::ERROR => call_id != 0 && caller == 0 && destination.text.is_empty() && self.payload_bytes == 0,
            _ => true,
        }
    }
}

/// A name of the list, and what it can stand for.
#[derive(Clone, Copy, Debug)]
struct Name<'a> {
    text: &'a str,
    is_source: bool,
    is_address: bool,
}

/// A table that has been read and checked.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    /// The first is the empty one.
    names: Vec<Name<'a>>,
    rows: Vec<Entry>,
}

/// Where a table stands.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub mode: Mode,
    pub count: u16,
    /// The end of the table and of the payloads, from the start of the body.
    pub table_end: usize,
    pub payloads_end: usize,
}

impl<'a> Table<'a> {
    /// All rows, each checked; payloads fill their place exactly. `rows`: a list that is not needed any more.
    pub fn read(table: &'a [u8], place: Place, mut rows: Vec<Entry>) -> Result<Table<'a>, InvalidFrame> {
        let mut reader = Reader::new(table);
        let mut names = vec![Name { text: "", is_source: true, is_address: false }];
        let mut heads = 0;
        let mut offset = place.table_end;
        rows.clear();
        rows.reserve_exact(place.count.into());
        for _ in 0..place.count {
            let mut row = read_row(&mut reader, place.mode, &mut names)?;
            heads |= row.head;
            row.offset = within(offset, place.payloads_end)?;
            offset = row.end();
            rows.push(row);
        }
        reader.finish("batch table")?;
        // A staged message has a batch of its own.
        if heads & RESERVED != 0 || heads & STAGED != 0 && place.count != 1 {
            return Err(InvalidFrame::Value("row head"));
        }
        check_different(&names)?;
        if heads & ALIGNED != 0 {
            offset = align(&mut rows, place)?;
        }
        match offset.cmp(&place.payloads_end) {
            std::cmp::Ordering::Less => Err(InvalidFrame::Trailing("batch payloads")),
            std::cmp::Ordering::Equal => Ok(Table { names, rows }),
            std::cmp::Ordering::Greater => Err(InvalidFrame::Missing("payload")),
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Names of the batch: what [`Row::source_place`] counts.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    pub fn into_rows(self) -> Vec<Entry> {
        self.rows
    }

    /// The row at this place, and the offset of its payload.
    pub fn row(&self, index: usize, header: &Header<'a>) -> (Row<'a>, usize) {
        let entry = &self.rows[index];
        let row = Row {
            kind: entry.head & KIND,
            aligned: entry.is_aligned(),
            staged: entry.head & STAGED != 0,
            call_id: entry.call_id,
            caller: entry.caller,
            payload_bytes: entry.payload_bytes,
            detail: entry.detail,
            source: match header.mode {
                Mode::Engine => header.engine,
                _ => self.names[usize::from(entry.source)].text,
            },
            source_place: entry.source,
            destination: self.names[usize::from(entry.destination)].text,
        };
        (row, entry.offset())
    }

    /// What stands between payloads is nothing.
    pub fn check_gaps(&self, body: &[u8], table_end: usize) -> Result<(), InvalidFrame> {
        if !self.rows.iter().any(Entry::is_aligned) {
            return Ok(());
        }
        let ends = std::iter::once(table_end).chain(self.rows.iter().map(Entry::end));
        let begins = self.rows.iter().map(Entry::offset).chain(std::iter::once(body.len()));
        match ends.zip(begins).all(|(end, begin)| body[end..begin].iter().all(|byte| *byte == 0)) {
            true => Ok(()),
            false => Err(InvalidFrame::Value("alignment")),
        }
    }
}

fn within(offset: usize, end: usize) -> Result<u32, InvalidFrame> {
    u32::try_from(offset).ok().filter(|_| offset <= end).ok_or(InvalidFrame::Missing("payload"))
}

fn read_row<'a>(reader: &mut Reader<'a>, mode: Mode, names: &mut Vec<Name<'a>>) -> Result<Entry, InvalidFrame> {
    let head = reader.u8("row head")?;
    let source = match mode {
        Mode::Engine => 0,
        _ => read_name(reader, names)?,
    };
    let destination = read_name(reader, names)?;
    let payload_bytes = u32::try_from(reader.varint("row length")?).map_err(|_| InvalidFrame::Value("row length"))?;
    let mut row = Entry { head, detail: 0, source, destination, payload_bytes, offset: 0, call_id: 0, caller: 0 };
    if head & CALL != 0 {
        row.call_id = reader.varint("row call id")?;
        row.caller = reader.varint("row caller")?;
        row.detail = reader.u8("row detail")?;
        // One row has one form.
        if (row.call_id, row.caller, row.detail) == (0, 0, 0) {
            return Err(InvalidFrame::Value("row head"));
        }
    }
    match names[usize::from(source)].is_source && row.fits(&names[usize::from(destination)]) {
        true => Ok(row),
        false => Err(InvalidFrame::Value("row")),
    }
}

/// The place of a name in the list, which has it from then on.
fn read_name<'a>(reader: &mut Reader<'a>, names: &mut Vec<Name<'a>>) -> Result<u16, InvalidFrame> {
    let number = reader.varint("row name")?;
    if number == NEW {
        let text = reader.str8("row name")?;
        if text.is_empty() {
            return Err(InvalidFrame::Value("row name"));
        }
        let is_source = is_engine_name(text);
        let is_address = is_source || Address::parse(text).is_some();
        names.push(Name { text, is_source, is_address });
        // Two in each of 4,096 rows.
        return Ok((names.len() - 1) as u16);
    }
    let place = number.saturating_sub(NEW);
    match usize::try_from(place).is_ok_and(|place| place < names.len()) {
        true => Ok(place as u16),
        false => Err(InvalidFrame::Value("row name")),
    }
}

/// A name has one number.
fn check_different(names: &[Name<'_>]) -> Result<(), InvalidFrame> {
    let twice = match names {
        [] | [_] | [_, _] => false,
        _ => {
            let mut sorted: Vec<&str> = names.iter().map(|name| name.text).collect();
            sorted.sort_unstable();
            sorted.windows(2).any(|pair| pair[0] == pair[1])
        }
    };
    match twice {
        true => Err(InvalidFrame::Value("row name (twice)")),
        false => Ok(()),
    }
}

/// Offsets anew, with the gaps around aligned payloads. Returns where the last one's ends.
fn align(rows: &mut [Entry], place: Place) -> Result<usize, InvalidFrame> {
    let mut offset = place.table_end;
    let mut pad_before = true;
    for row in rows {
        if row.is_aligned() || pad_before {
            offset += gap_to_alignment(offset);
        }
        row.offset = within(offset, place.payloads_end)?;
        pad_before = row.is_aligned();
        offset = row.end();
    }
    if pad_before {
        offset += gap_to_alignment(offset);
    }
    Ok(offset)
}

/// Writes rows, and gives names their numbers.
pub(in crate::frame) struct TableWriter<'m> {
    mode: Mode,
    names: Vec<&'m str>,
    /// Of all names, once they are more than a few, and of those that came last.
    numbers: HashMap<&'m str, usize>,
    recent: Recent<'m, usize>,
    /// Of the row before: most have the same.
    source: (&'m str, usize),
    destination: (&'m str, usize),
}

impl<'m> TableWriter<'m> {
    pub fn new(mode: Mode) -> TableWriter<'m> {
        TableWriter {
            mode,
            names: Vec::new(),
            numbers: HashMap::new(),
            recent: Recent::new(),
            source: ("", 0),
            destination: ("", 0),
        }
    }

    pub fn put(&mut self, row: &Row<'m>, out: &mut Vec<u8>) {
        let call = row.call_id != 0 || row.caller != 0 || row.detail != 0;
        debug_assert!(row.kind <= KIND, "kinds have four bits");
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.put_u8(row.kind | flag(row.aligned, ALIGNED) | flag(row.staged, STAGED) | flag(call, CALL));
        if self.mode != Mode::Engine {
            self.source = self.put_name(self.source, row.source, out);
        }
        self.destination = self.put_name(self.destination, row.destination, out);
        out.put_varint(row.payload_bytes.into());
        if call {
            out.put_varint(row.call_id);
            out.put_varint(row.caller);
            out.put_u8(row.detail);
        }
    }

    fn put_name(&mut self, before: (&'m str, usize), name: &'m str, out: &mut Vec<u8>) -> (&'m str, usize) {
        if same(name, before.0) {
            out.put_varint(before.1 as u64);
            return before;
        }
        if name.is_empty() {
            out.put_u8(0);
            return ("", 0);
        }
        let number = match self.number(name) {
            Some(number) => {
                out.put_varint(number as u64);
                number
            }
            None => {
                out.put_varint(NEW);
                out.put_str8(name);
                self.add(name)
            }
        };
        (name, number)
    }

    fn number(&mut self, name: &'m str) -> Option<usize> {
        if self.names.len() <= FEW {
            return self.names.iter().position(|known| same(known, name)).map(|place| place + 2);
        }
        if let Some(number) = self.recent.get(name) {
            return Some(number);
        }
        let number = self.numbers.get(name).copied()?;
        self.recent.keep(name, number);
        Some(number)
    }

    fn add(&mut self, name: &'m str) -> usize {
        self.names.push(name);
        let number = self.names.len() + 1;
        if self.names.len() == FEW + 1 {
            self.numbers = self.names.iter().zip(2..).map(|(name, number)| (*name, number)).collect();
        } else if self.names.len() > FEW {
            self.numbers.insert(name, number);
        }
        number
    }
}

/// `memcmp` of no bytes at an address that is none takes a processor longer than all else that is done for a message.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}
