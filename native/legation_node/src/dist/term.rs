//! External terms as far as distribution needs them: walked where they lie, never decoded into a tree.
//!
//! Terms here stand as they do inside a frame, without a version byte. Every reader takes a slice that is exactly one term
//! and gives `None` for anything else; those called `take_…` take a slice that begins with one and give what follows it, too.
//!
//! ```text
//!  elements::<3>(…)      104 3 │ 97 22 │ 88 119 3 b@h … │ 88 119 3 a@h … │       three slices, nothing copied
//! ```
//!
//! No reader allocates (but [`text`], for what isn't UTF-8 already), recurses or goes past its slice, whatever the bytes are.

mod walk;
mod write;

use std::borrow::Cow;

pub use walk::{for_each_atom, skip};
pub use write::{
    put_atom, put_binary, put_bool, put_i64, put_list_header, put_map_header, put_nil, put_pid, put_reference,
    put_tuple_header, put_u64, ATOM_CHARACTERS_MAX,
};

/// The first byte of a term that stands alone: of each payload that [`Incoming`](super::inbound::Incoming) hands out.
pub const VERSION: u8 = 131;

/// The tags that a BEAM of OTP 25 to 29 sends to whom offers [our flags](super::flags::OFFERED), and their older forms.
///
/// Not here, and so refused: 67 (records of OTP 29), 80 (compressed), 82 (atom cache), 99 (the textual float), 117 (funs before OTP 23),
/// 121 (local).
pub(crate) mod tag {
    pub const NEW_FLOAT: u8 = 70;
    pub const BIT_BINARY: u8 = 77;
    pub const NEW_PID: u8 = 88;
    pub const NEW_PORT: u8 = 89;
    pub const NEWER_REFERENCE: u8 = 90;
    pub const SMALL_INTEGER: u8 = 97;
    pub const INTEGER: u8 = 98;
    pub const ATOM: u8 = 100;
    pub const REFERENCE: u8 = 101;
    pub const PORT: u8 = 102;
    pub const PID: u8 = 103;
    pub const SMALL_TUPLE: u8 = 104;
    pub const LARGE_TUPLE: u8 = 105;
    pub const NIL: u8 = 106;
    pub const STRING: u8 = 107;
    pub const LIST: u8 = 108;
    pub const BINARY: u8 = 109;
    pub const SMALL_BIG: u8 = 110;
    pub const LARGE_BIG: u8 = 111;
    pub const NEW_FUN: u8 = 112;
    pub const EXPORT: u8 = 113;
    pub const NEW_REFERENCE: u8 = 114;
    pub const SMALL_ATOM: u8 = 115;
    pub const MAP: u8 = 116;
    pub const ATOM_UTF8: u8 = 118;
    pub const SMALL_ATOM_UTF8: u8 = 119;
    pub const V4_PORT: u8 = 120;
}

/// An atom's text, as it stands in the term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atom<'a> {
    pub text: &'a [u8],
    /// One byte per character, not UTF-8: the older tags.
    pub latin1: bool,
}

/// A pid as it stands in a frame. `raw` is its whole encoding, tag included, without a version byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid<'a> {
    pub raw: &'a [u8],
    /// The node's name, as text (UTF-8).
    pub node: &'a [u8],
    pub id: u32,
    pub serial: u32,
    pub creation: u32,
}

/// A reference, likewise. Up to five words; unused ones are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    pub raw: &'a [u8],
    pub node: &'a [u8],
    pub creation: u32,
    pub words: [u32; 5],
    pub count: u8,
}

impl<'a> Atom<'a> {
    /// Whether this is the atom of that name.
    pub fn eq_str(&self, name: &str) -> bool {
        if self.latin1 && !self.text.is_ascii() {
            self.text.iter().map(|&byte| char::from(byte)).eq(name.chars())
        } else {
            self.text == name.as_bytes()
        }
    }

    /// The text as it stands there, if that is UTF-8 already. A BEAM writes nothing else to whom offers `UTF8_ATOMS`.
    pub fn utf8(&self) -> Option<&'a str> {
        if self.latin1 && !self.text.is_ascii() {
            return None;
        }
        std::str::from_utf8(self.text).ok()
    }

    /// Likewise, as bytes: most names are ASCII, which is quickly seen.
    pub(crate) fn utf8_bytes(&self) -> Option<&'a [u8]> {
        if self.text.is_ascii() {
            return Some(self.text);
        }
        self.utf8().map(str::as_bytes)
    }

    /// The text, whatever it stands in. `None`: it says to be UTF-8 and isn't.
    pub fn to_text(&self) -> Option<Cow<'a, str>> {
        match self.utf8() {
            Some(text) => Some(Cow::Borrowed(text)),
            None if self.latin1 => Some(Cow::Owned(self.text.iter().map(|&byte| char::from(byte)).collect())),
            None => None,
        }
    }
}

/// The arity of a tuple, and its elements one after the other (and what follows the tuple).
pub fn tuple(term: &[u8]) -> Option<(u32, &[u8])> {
    match *term {
        [tag::SMALL_TUPLE, arity, ref rest @ ..] => Some((u32::from(arity), rest)),
        [tag::LARGE_TUPLE, a, b, c, d, ref rest @ ..] => Some((u32::from_be_bytes([a, b, c, d]), rest)),
        _ => None,
    }
}

/// The elements of a tuple of exactly `N`. Each slice is exactly one term.
pub fn elements<const N: usize>(term: &[u8]) -> Option<[&[u8]; N]> {
    let (arity, mut rest) = tuple(term)?;
    if usize::try_from(arity) != Ok(N) {
        return None;
    }
    let mut slots = [&[][..]; N];
    for slot in &mut slots {
        (*slot, rest) = take(rest)?;
    }
    rest.is_empty().then_some(slots)
}

/// The first term, and what follows it.
pub fn take(terms: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = skip(terms)?;
    Some((before(terms, rest), rest))
}

pub fn atom(term: &[u8]) -> Option<Atom<'_>> {
    whole(take_atom(term)?)
}

/// `None` as well when the node's name is no UTF-8.
pub fn pid(term: &[u8]) -> Option<Pid<'_>> {
    whole(take_pid(term)?)
}

/// `None` as well when the node's name is no UTF-8.
pub fn reference(term: &[u8]) -> Option<Reference<'_>> {
    whole(take_reference(term)?)
}

pub fn take_atom(terms: &[u8]) -> Option<(Atom<'_>, &[u8])> {
    let (length, rest, latin1) = match *terms {
        [tag::SMALL_ATOM_UTF8, length, ref rest @ ..] => (usize::from(length), rest, false),
        [tag::ATOM_UTF8, a, b, ref rest @ ..] => (usize::from(u16::from_be_bytes([a, b])), rest, false),
        [tag::SMALL_ATOM, length, ref rest @ ..] => (usize::from(length), rest, true),
        [tag::ATOM, a, b, ref rest @ ..] => (usize::from(u16::from_be_bytes([a, b])), rest, true),
        _ => return None,
    };
    let bytes_max = if latin1 { ATOM_CHARACTERS_MAX } else { 4 * ATOM_CHARACTERS_MAX };
    if length > bytes_max {
        return None;
    }
    let (text, rest) = rest.split_at_checked(length)?;
    Some((Atom { text, latin1 }, rest))
}

pub fn take_pid(terms: &[u8]) -> Option<(Pid<'_>, &[u8])> {
    let (&tag, rest) = terms.split_first()?;
    if tag != tag::NEW_PID && tag != tag::PID {
        return None;
    }
    let (node, rest) = take_node(rest)?;
    let (id, rest) = take_u32(rest)?;
    let (serial, rest) = take_u32(rest)?;
    let (creation, rest) = take_creation(rest, tag == tag::NEW_PID)?;
    Some((Pid { raw: before(terms, rest), node, id, serial, creation }, rest))
}

pub fn take_reference(terms: &[u8]) -> Option<(Reference<'_>, &[u8])> {
    let [tag @ (tag::NEWER_REFERENCE | tag::NEW_REFERENCE), a, b, ref rest @ ..] = *terms else {
        return None;
    };
    let mut words = [0; 5];
    let used = words.get_mut(..usize::from(u16::from_be_bytes([a, b])))?;
    let count = used.len() as u8;
    let (node, rest) = take_node(rest)?;
    let (creation, mut rest) = take_creation(rest, tag == tag::NEWER_REFERENCE)?;
    for word in used {
        (*word, rest) = take_u32(rest)?;
    }
    Some((Reference { raw: before(terms, rest), node, creation, words, count }, rest))
}

/// An integer that fits.
pub fn unsigned(term: &[u8]) -> Option<u64> {
    u64::try_from(wide(term)?).ok()
}

/// An integer that fits.
pub fn integer(term: &[u8]) -> Option<i64> {
    i64::try_from(wide(term)?).ok()
}

fn wide(term: &[u8]) -> Option<i128> {
    match *term {
        [tag::SMALL_INTEGER, value] => Some(i128::from(value)),
        [tag::INTEGER, a, b, c, d] => Some(i128::from(i32::from_be_bytes([a, b, c, d]))),
        [tag::SMALL_BIG, count, sign, ref digits @ ..] if digits.len() == usize::from(count) && digits.len() <= 8 => {
            let magnitude = digits.iter().rev().fold(0, |number, &digit| number << 8 | i128::from(digit));
            Some(if sign == 0 { magnitude } else { -magnitude })
        }
        _ => None,
    }
}

/// The bytes of a binary (of whole bytes).
pub fn binary(term: &[u8]) -> Option<&[u8]> {
    match *term {
        [tag::BINARY, a, b, c, d, ref bytes @ ..] => {
            (usize::try_from(u32::from_be_bytes([a, b, c, d])) == Ok(bytes.len())).then_some(bytes)
        }
        _ => None,
    }
}

/// The bytes of a list of bytes, as `STRING_EXT` has them.
pub fn string(term: &[u8]) -> Option<&[u8]> {
    match *term {
        [tag::STRING, a, b, ref bytes @ ..] => {
            (usize::from(u16::from_be_bytes([a, b])) == bytes.len()).then_some(bytes)
        }
        _ => None,
    }
}

/// `true` and `false`.
pub fn boolean(term: &[u8]) -> Option<bool> {
    match atom(term)?.text {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// Text in any of the ways in which Erlang has it: a UTF-8 binary, or a list of characters.
pub fn text(term: &[u8]) -> Option<Cow<'_, str>> {
    if let Some(bytes) = binary(term) {
        return std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
    }
    if let Some(bytes) = string(term) {
        return Some(Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()));
    }
    let characters = list(term)?.map(|item| char::from_u32(u32::try_from(unsigned(item)?).ok()?));
    characters.collect::<Option<String>>().map(Cow::Owned)
}

/// The elements of a proper list. A list of bytes alone comes as a [`string`] and isn't one here.
pub fn list(term: &[u8]) -> Option<Items<'_>> {
    match *term {
        [tag::NIL] => Some(Items { left: 0, rest: &[] }),
        [tag::LIST, a, b, c, d, ref rest @ ..] => {
            let items = Items { left: u64::from(u32::from_be_bytes([a, b, c, d])), rest };
            (items.left > 0 && items.end()? == [tag::NIL]).then_some(items)
        }
        _ => None,
    }
}

/// Keys and values of a map, in the order in which they stand there.
pub fn map(term: &[u8]) -> Option<Pairs<'_>> {
    match *term {
        [tag::MAP, a, b, c, d, ref rest @ ..] => {
            let items = Items { left: 2 * u64::from(u32::from_be_bytes([a, b, c, d])), rest };
            items.end()?.is_empty().then_some(Pairs(items))
        }
        _ => None,
    }
}

/// Terms one after the other, each exactly one slice.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    left: u64,
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    /// What follows the last. Ends at once when there are fewer bytes than terms.
    fn end(&self) -> Option<&'a [u8]> {
        let mut rest = self.rest;
        for _ in 0..self.left {
            rest = skip(rest)?;
        }
        Some(rest)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (item, rest) = take(self.rest)?;
        self.rest = rest;
        Some(item)
    }
}

/// Keys with their values.
#[derive(Clone, Debug)]
pub struct Pairs<'a>(Items<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

/// The node that we are: what our own pids and references are made from.
#[derive(Clone, Debug)]
pub struct OwnNode {
    name: Box<str>,
    /// The name, encoded.
    atom: Box<[u8]>,
    creation: u32,
}

impl OwnNode {
    pub fn new(name: &str, creation: u32) -> OwnNode {
        let mut atom = Vec::new();
        put_atom(&mut atom, name);
        OwnNode { name: name.into(), atom: atom.into(), creation }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn creation(&self) -> u32 {
        self.creation
    }

    /// The name as a term.
    pub fn atom(&self) -> &[u8] {
        &self.atom
    }

    /// Writes the pid of one of our processes.
    pub fn pid(&self, out: &mut Vec<u8>, id: u32, serial: u32) {
        put_pid(out, &self.atom, id, serial, self.creation);
    }

    /// Writes a reference of ours.
    pub fn reference(&self, out: &mut Vec<u8>, words: [u32; 3]) {
        put_reference(out, &self.atom, self.creation, words);
    }

    /// Whether that is a pid of this incarnation of ours.
    pub fn owns(&self, pid: &Pid<'_>) -> bool {
        pid.creation == self.creation && self.is_named(pid.node)
    }

    /// Whether that is a reference of this incarnation of ours.
    pub fn owns_reference(&self, reference: &Reference<'_>) -> bool {
        reference.creation == self.creation && self.is_named(reference.node)
    }

    /// Whether identifiers with this node name are ours, or were those of an earlier incarnation.
    pub fn is_named(&self, node: &[u8]) -> bool {
        node == self.name.as_bytes()
    }
}

fn take_node(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (atom, rest) = take_atom(bytes)?;
    Some((atom.utf8_bytes()?, rest))
}

/// Four bytes in the newer identifiers, one in the older.
fn take_creation(bytes: &[u8], newer: bool) -> Option<(u32, &[u8])> {
    if newer {
        return take_u32(bytes);
    }
    let (&creation, rest) = bytes.split_first()?;
    Some((u32::from(creation), rest))
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// The part of `all` before `rest`, which is its end.
fn before<'a>(all: &'a [u8], rest: &[u8]) -> &'a [u8] {
    &all[..all.len() - rest.len()]
}

fn whole<T>((value, rest): (T, &[u8])) -> Option<T> {
    rest.is_empty().then_some(value)
}
