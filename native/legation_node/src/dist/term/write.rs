//! Writing terms: each function appends one, or the head of one whose elements the caller writes next.

use super::tag;

/// Characters in an atom.
pub const ATOM_CHARACTERS_MAX: usize = 255;

/// There is no atom of more than [`ATOM_CHARACTERS_MAX`] characters; of a longer text the beginning is written, since a BEAM drops the
/// connection over anything else.
pub fn put_atom(out: &mut Vec<u8>, name: &str) {
    let end = name.char_indices().nth(ATOM_CHARACTERS_MAX).map_or(name.len(), |(at, _)| at);
    let text = &name.as_bytes()[..end];
    match u8::try_from(text.len()) {
        Ok(length) => out.extend_from_slice(&[tag::SMALL_ATOM_UTF8, length]),
        // At most 4 × 255.
        Err(_) => {
            out.push(tag::ATOM_UTF8);
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

/// `node` is an atom, encoded.
pub fn put_pid(out: &mut Vec<u8>, node: &[u8], id: u32, serial: u32, creation: u32) {
    out.push(tag::NEW_PID);
    out.extend_from_slice(node);
    for number in [id, serial, creation] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// `node` is an atom, encoded.
pub fn put_reference(out: &mut Vec<u8>, node: &[u8], creation: u32, words: [u32; 3]) {
    out.extend_from_slice(&[tag::NEWER_REFERENCE, 0, 3]);
    out.extend_from_slice(node);
    out.extend_from_slice(&creation.to_be_bytes());
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

pub fn put_u64(out: &mut Vec<u8>, number: u64) {
    put_integer(out, number, false);
}

pub fn put_i64(out: &mut Vec<u8>, number: i64) {
    put_integer(out, number.unsigned_abs(), number < 0);
}

fn put_integer(out: &mut Vec<u8>, magnitude: u64, negative: bool) {
    let signed = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    if let Ok(byte) = u8::try_from(signed) {
        out.extend_from_slice(&[tag::SMALL_INTEGER, byte]);
    } else if let Ok(number) = i32::try_from(signed) {
        out.push(tag::INTEGER);
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        let digits = magnitude.to_le_bytes();
        let count = digits.len() - (magnitude.leading_zeros() / 8) as usize;
        out.extend_from_slice(&[tag::SMALL_BIG, count as u8, u8::from(negative)]);
        out.extend_from_slice(&digits[..count]);
    }
}

/// A binary of up to 4 GiB; of more, the beginning.
pub fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.push(tag::BINARY);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&bytes[..length as usize]);
}

pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    put_atom(out, if value { "true" } else { "false" });
}

/// `arity` elements follow.
pub fn put_tuple_header(out: &mut Vec<u8>, arity: u32) {
    match u8::try_from(arity) {
        Ok(arity) => out.extend_from_slice(&[tag::SMALL_TUPLE, arity]),
        Err(_) => {
            out.push(tag::LARGE_TUPLE);
            out.extend_from_slice(&arity.to_be_bytes());
        }
    }
}

/// `length` elements and the tail (mostly [`put_nil`]) follow. A list of none is its tail alone: then nothing is written.
pub fn put_list_header(out: &mut Vec<u8>, length: u32) {
    if length > 0 {
        out.push(tag::LIST);
        out.extend_from_slice(&length.to_be_bytes());
    }
}

pub fn put_nil(out: &mut Vec<u8>) {
    out.push(tag::NIL);
}

/// `pairs` keys with their values follow.
pub fn put_map_header(out: &mut Vec<u8>, pairs: u32) {
    out.push(tag::MAP);
    out.extend_from_slice(&pairs.to_be_bytes());
}
