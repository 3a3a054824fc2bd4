//! Over a whole term, however it is nested, in one loop.
//!
//! What is still to come is one number:
//!
//! ```text
//!  {a, [1, 2]}      1 ─► tuple: 2 ─► a: 1 ─► list: 0 + 3 ─► 1: 2 ─► 2: 1 ─► tail: 0
//! ```
//!
//! Each term takes at least one byte, so more terms to come than bytes left is refused where a count is read. Nothing is
//! therefore walked for longer than it has bytes, whatever its counts say.

use super::{tag, take_atom, Atom};

/// What follows the first term. `None`: it isn't well-formed, is cut short, or is of a kind that no BEAM sends us (compressed, textual float, record, atom cache, local).
///
/// Identifiers and funs are accepted. Atoms are not checked to be UTF-8, floats not to be finite.
pub fn skip(terms: &[u8]) -> Option<&[u8]> {
    walk(terms, &mut |_| ())
}

/// Shows every atom of the first term, and gives what follows it. Names of nodes in identifiers are not shown.
///
/// `None` as with [`skip`]; some atoms may have been shown by then.
pub fn for_each_atom<'a>(terms: &'a [u8], see: &mut impl FnMut(Atom<'a>)) -> Option<&'a [u8]> {
    walk(terms, see)
}

#[inline(always)]
fn walk<'a>(terms: &'a [u8], see: &mut impl FnMut(Atom<'a>)) -> Option<&'a [u8]> {
    let mut rest = terms;
    // Terms still to come.
    let mut pending = 1usize;
    while let Some(others) = pending.checked_sub(1) {
        pending = others;
        let (&tag, after) = rest.split_first()?;
        // Terms inside this one.
        let mut inside = 0usize;
        rest = match tag {
            tag::SMALL_ATOM_UTF8 | tag::ATOM_UTF8 | tag::SMALL_ATOM | tag::ATOM => {
                let (atom, rest) = take_atom(rest)?;
                see(atom);
                rest
            }
            tag::SMALL_INTEGER => past(after, 1)?,
            tag::INTEGER => past(after, 4)?,
            tag::NEW_FLOAT => past(after, 8)?,
            tag::SMALL_TUPLE => {
                let (&arity, rest) = after.split_first()?;
                inside = usize::from(arity);
                rest
            }
            tag::LARGE_TUPLE => {
                let (arity, rest) = count(after)?;
                inside = arity;
                rest
            }
            tag::NIL => after,
            tag::LIST => {
                let (length, rest) = count(after)?;
                // A list of none is a second spelling of its tail; nobody writes it.
                inside = if length == 0 { return None } else { length.checked_add(1)? };
                rest
            }
            tag::MAP => {
                let (pairs, rest) = count(after)?;
                inside = pairs.checked_mul(2)?;
                rest
            }
            tag::STRING => {
                let (length, rest) = after.split_first_chunk()?;
                past(rest, usize::from(u16::from_be_bytes(*length)))?
            }
            tag::BINARY => {
                let (length, rest) = count(after)?;
                past(rest, length)?
            }
            tag::BIT_BINARY => {
                let (length, rest) = count(after)?;
                let (&bits, rest) = rest.split_first()?;
                // Bits of the last byte, of which there is none in the empty one: as a BEAM has it, and the scan.
                if (length == 0) != (bits == 0) || bits > 8 {
                    return None;
                }
                past(rest, length)?
            }
            tag::SMALL_BIG => {
                let (&length, rest) = after.split_first()?;
                past(rest, 1 + usize::from(length))?
            }
            tag::LARGE_BIG => {
                let (length, rest) = count(after)?;
                past(rest, length.checked_add(1)?)?
            }
            tag::NEW_PID => identifier(after, 12)?,
            tag::PID => identifier(after, 9)?,
            tag::V4_PORT => identifier(after, 12)?,
            tag::NEW_PORT => identifier(after, 8)?,
            tag::PORT | tag::REFERENCE => identifier(after, 5)?,
            tag::NEWER_REFERENCE => {
                let (words, rest) = after.split_first_chunk()?;
                identifier(rest, 4 + 4 * usize::from(u16::from_be_bytes(*words)))?
            }
            tag::NEW_REFERENCE => {
                let (words, rest) = after.split_first_chunk()?;
                identifier(rest, 1 + 4 * usize::from(u16::from_be_bytes(*words)))?
            }
            tag::NEW_FUN => {
                // size:4 arity:1 unique:16 index:4 free:4, then module, index, unique, creator, and the free variables.
                // ERTS, too, goes by their number and not by the size.
                let (free, rest) = count(past(after, 25)?)?;
                inside = free.checked_add(4)?;
                rest
            }
            // Module, function, arity.
            tag::EXPORT => {
                inside = 3;
                after
            }
            _ => return None,
        };
        pending = pending.checked_add(inside)?;
        if pending > rest.len() {
            return None;
        }
    }
    Some(rest)
}

fn past(bytes: &[u8], length: usize) -> Option<&[u8]> {
    bytes.get(length..)
}

/// The node's name, and the numbers behind it.
fn identifier(bytes: &[u8], numbers: usize) -> Option<&[u8]> {
    let (_, rest) = take_atom(bytes)?;
    past(rest, numbers)
}

fn count(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((usize::try_from(u32::from_be_bytes(*number)).ok()?, rest))
}
