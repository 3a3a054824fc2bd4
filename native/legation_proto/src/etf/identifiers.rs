//! Pids and references inside payloads: where they stand, and what stands for them on the wire (`protocol.md` 13.4).
//!
//! An identifier means something only inside the Erlang system that it comes from. On its way out each one is replaced by
//! a number that both sides keep a table of, and on its way in by a pid or reference of the receiver's own; the rest of the
//! payload is copied as it stands. So the numbers are spelled as identifiers, too, in one form each:
//!
//! ```text
//!  pid of the sender        88, 119 0,        number u64 big-endian, 0 0 0 1
//!  pid of the receiver      88, 119 0,        number,                0 0 0 2     comes home
//!  engine of the receiver   88, 119 len name, 0 0 0 0 0 0 0 0,       0 0 0 3     pid of the proxy that stands for it
//!  reference of the sender    90, 0 2, 119 0, 0 0 0 1, number
//!  reference of the receiver  90, 0 2, 119 0, 0 0 0 2, number                    comes home
//! ```
//!
//! Only what has passed the scan comes here, but for [`length`] and [`Wire::parse`], which are how the scan looks at it.

use super::scan::IdentifierKind;
use super::shape::{own_bytes, skip};
use super::{tag, VERSION};
use crate::identity::is_engine_name;

/// Whose an identifier on the wire is, seen from who sends the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    Sender,
    /// It comes home.
    Receiver,
}

/// An identifier as it stands in a payload on the wire. Numbers are never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire<'a> {
    Pid {
        number: u64,
        owner: Owner,
    },
    /// The process of the receiver's that is published under this name.
    Engine(&'a str),
    Reference {
        number: u64,
        owner: Owner,
    },
}

/// The empty atom.
const NO_NODE: [u8; 2] = [tag::SMALL_ATOM_UTF8, 0];

impl<'a> Wire<'a> {
    /// All of `raw`, in the one form that it has on the wire.
    pub fn parse(raw: &'a [u8]) -> Option<Wire<'a>> {
        match *raw {
            [tag::NEW_PID, tag::SMALL_ATOM_UTF8, 0, a, b, c, d, e, f, g, h, 0, 0, 0, creation] => {
                let number = numbered([a, b, c, d, e, f, g, h])?;
                Some(Wire::Pid { number, owner: owner(creation)? })
            }
            [tag::NEW_PID, tag::SMALL_ATOM_UTF8, length, ref rest @ ..] => {
                let (name, rest) = rest.split_at_checked(usize::from(length))?;
                let name = std::str::from_utf8(name).ok()?;
                (is_engine_name(name) && rest == ENGINE_TAIL).then_some(Wire::Engine(name))
            }
            [tag::NEWER_REFERENCE, 0, 2, tag::SMALL_ATOM_UTF8, 0, 0, 0, 0, creation, a, b, c, d, e, f, g, h] => {
                let number = numbered([a, b, c, d, e, f, g, h])?;
                Some(Wire::Reference { number, owner: owner(creation)? })
            }
            _ => None,
        }
    }

    /// Pids of nobody, or references that match nothing: none is ever given one of the largest numbers. Another for each `nth`.
    pub fn nobody(kind: IdentifierKind, nth: usize) -> Wire<'static> {
        let number = u64::MAX - nth as u64;
        match kind {
            IdentifierKind::Pid => Wire::Pid { number, owner: Owner::Receiver },
            _ => Wire::Reference { number, owner: Owner::Receiver },
        }
    }

    /// Appends its one form.
    pub fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Wire::Pid { number, owner } => {
                out.push(tag::NEW_PID);
                out.extend_from_slice(&NO_NODE);
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&creation(owner));
            }
            Wire::Engine(name) => {
                out.push(tag::NEW_PID);
                // Engine names are at most 255 bytes.
                out.extend_from_slice(&[tag::SMALL_ATOM_UTF8, name.len() as u8]);
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(&ENGINE_TAIL);
            }
            Wire::Reference { number, owner } => {
                out.extend_from_slice(&[tag::NEWER_REFERENCE, 0, 2]);
                out.extend_from_slice(&NO_NODE);
                out.extend_from_slice(&creation(owner));
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }
}

const ENGINE_TAIL: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];

fn numbered(bytes: [u8; 8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes)).filter(|number| *number != 0)
}

fn owner(creation: u8) -> Option<Owner> {
    match creation {
        1 => Some(Owner::Sender),
        2 => Some(Owner::Receiver),
        _ => None,
    }
}

fn creation(owner: Owner) -> [u8; 4] {
    match owner {
        Owner::Sender => [0, 0, 0, 1],
        Owner::Receiver => [0, 0, 0, 2],
    }
}

/// What kind of identifier a tag begins.
pub(super) fn kind_of(tag: u8) -> Option<IdentifierKind> {
    match tag {
        tag::PID | tag::NEW_PID => Some(IdentifierKind::Pid),
        tag::PORT | tag::NEW_PORT | tag::V4_PORT => Some(IdentifierKind::Port),
        tag::REFERENCE | tag::NEW_REFERENCE | tag::NEWER_REFERENCE => Some(IdentifierKind::Reference),
        tag::FUN | tag::NEW_FUN | tag::EXPORT => Some(IdentifierKind::Fun),
        _ => None,
    }
}

/// An identifier taken apart: what every spelling of it says.
pub(super) struct Parts<'a> {
    pub kind: IdentifierKind,
    /// The atom that names the node, as a term.
    pub node: &'a [u8],
    pub creation: u32,
    /// Of a pid its id and serial.
    pub ids: &'a [u8],
    pub bytes: usize,
}

/// The pid or reference at the head of `term`, whoever's it is. Ports, funs and the reference of one word (101), which
/// nobody has written for decades, are none.
pub(super) fn parts(term: &[u8]) -> Option<Parts<'_>> {
    let (&tag, body) = term.split_first()?;
    let (kind, ids_bytes, wide, body) = match tag {
        tag::NEW_PID => (IdentifierKind::Pid, 8, true, body),
        tag::PID => (IdentifierKind::Pid, 8, false, body),
        tag::NEWER_REFERENCE | tag::NEW_REFERENCE => {
            let (words, body) = body.split_first_chunk::<2>()?;
            let words = u16::from_be_bytes(*words);
            // No BEAM has references of more words.
            let most = if tag == tag::NEWER_REFERENCE { 5 } else { 3 };
            if words == 0 || words > most {
                return None;
            }
            (IdentifierKind::Reference, 4 * usize::from(words), tag == tag::NEWER_REFERENCE, body)
        }
        _ => return None,
    };
    if !matches!(body.first(), Some(&(tag::SMALL_ATOM_UTF8 | tag::ATOM_UTF8 | tag::SMALL_ATOM | tag::ATOM))) {
        return None;
    }
    let rest = skip(body)?;
    let node = &body[..body.len() - rest.len()];
    let creation_bytes = if wide { 4 } else { 1 };
    let fields = rest.get(..ids_bytes + creation_bytes)?;
    let (ids, creation) = match kind {
        IdentifierKind::Pid => fields.split_at(ids_bytes),
        _ => {
            let (creation, ids) = fields.split_at(creation_bytes);
            (ids, creation)
        }
    };
    let creation = creation.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    Some(Parts { kind, node, creation, ids, bytes: term.len() - rest.len() + fields.len() })
}

/// Bytes of the pid or reference at the head of `term`.
pub(super) fn length(term: &[u8]) -> Option<usize> {
    parts(term).map(|parts| parts.bytes)
}

/// The pids and references of a payload that has passed the scan, in the order of its bytes.
///
/// Terms follow each other without a gap, so containers need no attention but for their headers.
pub fn identifiers(payload: &[u8]) -> Identifiers<'_> {
    let at = usize::from(payload.first() == Some(&VERSION));
    Identifiers { payload, at }
}

/// See [`identifiers`].
#[derive(Clone, Debug)]
pub struct Identifiers<'a> {
    payload: &'a [u8],
    at: usize,
}

/// An identifier and where in its payload it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub at: usize,
    /// External term format without the leading 131.
    pub raw: &'a [u8],
    pub kind: IdentifierKind,
}

impl<'a> Iterator for Identifiers<'a> {
    type Item = Place<'a>;

    fn next(&mut self) -> Option<Place<'a>> {
        loop {
            let rest = self.payload.get(self.at..)?;
            let bytes = match own_bytes(rest) {
                Some((bytes, _)) => bytes,
                // Not a term: there is nothing to be found any more.
                None => {
                    self.at = self.payload.len();
                    return None;
                }
            };
            let at = self.at;
            self.at += bytes;
            if let Some(kind) = kind_of(rest[0]) {
                return Some(Place { at, raw: rest.get(..bytes)?, kind });
            }
        }
    }
}

/// The payload with something else in each place, which `replace` appends. The places are in order and don't overlap.
pub fn rewrite<'a, E>(
    payload: &[u8],
    places: impl Iterator<Item = Place<'a>>,
    mut replace: impl FnMut(Place<'a>, &mut Vec<u8>) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let mut out = Vec::with_capacity(payload.len() + payload.len() / 8);
    let mut copied = 0;
    for place in places {
        out.extend_from_slice(&payload[copied..place.at]);
        copied = place.at + place.raw.len();
        replace(place, &mut out)?;
    }
    out.extend_from_slice(&payload[copied..]);
    Ok(out)
}

#[cfg(test)]
mod tests;
