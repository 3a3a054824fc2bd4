//! Whether the keys of every map are different, as the BEAM sees it.
//!
//! A map with a key twice is no term: ERTS refuses it, and a node that gets one over distribution drops the connection. Two keys are the
//! same when `=:=` says so, however they are spelled: `[97, 1]` and `[98, 0,0,0,1]` are one integer. So keys are brought into one form each:
//!
//! ```text
//!  i sign magnitude     any integer, without leading zeros        f bits       -0.0 is 0.0, as it was for `=:=` until OTP 26
//!  a text               any atom, UTF-8                           b bits bytes binaries and bit strings
//!  n                    the empty list                            c head       one cell of a list, its tail behind it
//!  t arity ...          m pairs ...   sorted                      h digest     of what is longer than 64 bytes
//!  p node id creation   r node id creation    pids and references
//! ```
//!
//! Each with its length in front, where it has one. What is long becomes its digest, so that keys in keys in keys cost their size once.
//!
//! Only what has passed the walk of [`scan`](super::scan()) comes here: complete, bounded, nested no deeper than allowed.

use super::identifiers::parts;
use super::scan::IdentifierKind;
use super::shape::skip;
use super::tag;

/// Most maps have fewer keys, and comparing those pair by pair costs less than sorting them.
const FEW: usize = 8;

/// What is kept of a key as it is.
const SHORT: usize = 64;

/// Looks at every map of `terms`' first term. The term with the problem, if there is one: all bytes from there.
pub(super) fn find_twice(terms: &[u8]) -> Option<&[u8]> {
    let mut twice = None;
    visit(terms, &mut twice);
    twice
}

/// What follows the first term. Goes on after a finding: it ends at once, since nothing more is looked at.
fn visit<'a>(term: &'a [u8], twice: &mut Option<&'a [u8]>) -> Option<&'a [u8]> {
    if twice.is_some() {
        return None;
    }
    let (elements, mut rest) = match *term {
        [tag::SMALL_TUPLE, arity, ref rest @ ..] => (u64::from(arity), rest),
        [tag::LARGE_TUPLE, a, b, c, d, ref rest @ ..] => (u64::from(u32::from_be_bytes([a, b, c, d])), rest),
        [tag::LIST, a, b, c, d, ref rest @ ..] => (u64::from(u32::from_be_bytes([a, b, c, d])) + 1, rest),
        [tag::MAP, a, b, c, d, ref rest @ ..] => return visit_map(term, u32::from_be_bytes([a, b, c, d]), rest, twice),
        _ => return skip(term),
    };
    for _ in 0..elements {
        rest = visit(rest, twice)?;
    }
    Some(rest)
}

fn visit_map<'a>(whole: &'a [u8], pairs: u32, mut rest: &'a [u8], twice: &mut Option<&'a [u8]>) -> Option<&'a [u8]> {
    let mut plain: Vec<&[u8]> = Vec::new();
    let mut forms: Vec<Vec<u8>> = Vec::new();
    for _ in 0..pairs {
        // What a BEAM writes for most maps: one spelling each, so that the bytes say it.
        if forms.is_empty() && matches!(rest.first(), Some(&(tag::SMALL_ATOM_UTF8 | tag::SMALL_INTEGER | tag::BINARY)))
        {
            let after = skip(rest)?;
            plain.push(&rest[..rest.len() - after.len()]);
            rest = visit(after, twice)?;
            continue;
        }
        if forms.is_empty() {
            // From here on all are compared by their form.
            for key in &plain {
                let mut form = Vec::with_capacity(key.len() + 8);
                put_form(key, &mut form, twice)?;
                forms.push(form);
            }
        }
        let mut form = Vec::with_capacity(24);
        rest = put_form(rest, &mut form, twice)?;
        forms.push(form);
        rest = visit(rest, twice)?;
    }
    let distinct = match forms.is_empty() {
        true => are_distinct(&mut plain),
        false => are_distinct(&mut forms),
    };
    if !distinct {
        *twice = Some(whole);
        return None;
    }
    Some(rest)
}

fn are_distinct<T: Ord>(keys: &mut [T]) -> bool {
    if keys.len() <= FEW {
        return (1..keys.len()).all(|index| !keys[..index].contains(&keys[index]));
    }
    keys.sort_unstable();
    keys.windows(2).all(|pair| pair[0] != pair[1])
}

/// Appends the one form of the first term, and gives what follows it. Maps inside are looked at, too.
fn put_form<'a>(term: &'a [u8], out: &mut Vec<u8>, twice: &mut Option<&'a [u8]>) -> Option<&'a [u8]> {
    let start = out.len();
    let rest = put_whole_form(term, out, twice)?;
    if out.len() - start > SHORT {
        let digest = blake3::hash(&out[start..]);
        out.truncate(start);
        out.push(b'h');
        out.extend_from_slice(digest.as_bytes());
    }
    Some(rest)
}

fn put_whole_form<'a>(term: &'a [u8], out: &mut Vec<u8>, twice: &mut Option<&'a [u8]>) -> Option<&'a [u8]> {
    match *term {
        [tag::SMALL_INTEGER, byte, ref rest @ ..] => {
            put_integer(out, false, &[byte]);
            Some(rest)
        }
        [tag::INTEGER, a, b, c, d, ref rest @ ..] => {
            let value = i32::from_be_bytes([a, b, c, d]);
            put_integer(out, value < 0, &value.unsigned_abs().to_le_bytes());
            Some(rest)
        }
        [tag::SMALL_BIG, length, sign, ref digits @ ..] => {
            let (digits, rest) = digits.split_at_checked(usize::from(length))?;
            put_integer(out, sign != 0, digits);
            Some(rest)
        }
        [tag::LARGE_BIG, a, b, c, d, sign, ref digits @ ..] => {
            let (digits, rest) = digits.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize)?;
            put_integer(out, sign != 0, digits);
            Some(rest)
        }
        [tag::NEW_FLOAT, ref rest @ ..] => {
            let (bits, rest) = rest.split_first_chunk::<8>()?;
            let value = f64::from_be_bytes(*bits);
            out.push(b'f');
            out.extend_from_slice(&if value == 0.0 { 0.0f64 } else { value }.to_be_bytes());
            Some(rest)
        }
        [tag::SMALL_ATOM_UTF8 | tag::SMALL_ATOM, length, ref rest @ ..] => {
            let (text, rest) = rest.split_at_checked(usize::from(length))?;
            put_atom(out, text, term[0] == tag::SMALL_ATOM);
            Some(rest)
        }
        [tag::ATOM_UTF8 | tag::ATOM, a, b, ref rest @ ..] => {
            let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([a, b])))?;
            put_atom(out, text, term[0] == tag::ATOM);
            Some(rest)
        }
        [tag::BINARY, a, b, c, d, ref rest @ ..] => {
            let (bytes, rest) = rest.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize)?;
            put_bits(out, bytes, 8);
            Some(rest)
        }
        [tag::BIT_BINARY, a, b, c, d, bits, ref rest @ ..] => {
            let (bytes, rest) = rest.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize)?;
            put_bits(out, bytes, bits);
            Some(rest)
        }
        [tag::NIL, ref rest @ ..] => {
            out.push(b'n');
            Some(rest)
        }
        [tag::STRING, a, b, ref rest @ ..] => {
            let (bytes, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([a, b])))?;
            for byte in bytes {
                out.push(b'c');
                put_integer(out, false, &[*byte]);
            }
            out.push(b'n');
            Some(rest)
        }
        [tag::LIST, a, b, c, d, ref rest @ ..] => {
            let mut rest = rest;
            for _ in 0..u32::from_be_bytes([a, b, c, d]) {
                out.push(b'c');
                rest = put_form(rest, out, twice)?;
            }
            // Not shortened: a list that goes on in its tail is one list.
            put_whole_form(rest, out, twice)
        }
        [tag::SMALL_TUPLE, arity, ref rest @ ..] => put_tuple(u32::from(arity), rest, out, twice),
        [tag::LARGE_TUPLE, a, b, c, d, ref rest @ ..] => put_tuple(u32::from_be_bytes([a, b, c, d]), rest, out, twice),
        [tag::MAP, a, b, c, d, ref rest @ ..] => {
            let mut rest = rest;
            let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for _ in 0..u32::from_be_bytes([a, b, c, d]) {
                let (mut key, mut value) = (Vec::new(), Vec::new());
                rest = put_form(rest, &mut key, twice)?;
                rest = put_form(rest, &mut value, twice)?;
                pairs.push((key, value));
            }
            pairs.sort_unstable();
            if pairs.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                *twice = Some(term);
                return None;
            }
            out.push(b'm');
            out.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
            for (key, value) in pairs {
                out.extend_from_slice(&key);
                out.extend_from_slice(&value);
            }
            Some(rest)
        }
        _ => {
            let parts = parts(term)?;
            out.push(if parts.kind == IdentifierKind::Pid { b'p' } else { b'r' });
            put_whole_form(parts.node, out, twice)?;
            out.push(parts.ids.len() as u8);
            out.extend_from_slice(parts.ids);
            out.extend_from_slice(&parts.creation.to_le_bytes());
            term.get(parts.bytes..)
        }
    }
}

fn put_tuple<'a>(arity: u32, mut rest: &'a [u8], out: &mut Vec<u8>, twice: &mut Option<&'a [u8]>) -> Option<&'a [u8]> {
    out.push(b't');
    out.extend_from_slice(&arity.to_le_bytes());
    for _ in 0..arity {
        rest = put_form(rest, out, twice)?;
    }
    Some(rest)
}

/// Digits little-endian. Zero has no sign.
fn put_integer(out: &mut Vec<u8>, negative: bool, digits: &[u8]) {
    let length = digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
    out.push(b'i');
    out.push(u8::from(negative && length > 0));
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&digits[..length]);
}

fn put_atom(out: &mut Vec<u8>, text: &[u8], latin1: bool) {
    out.push(b'a');
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    match latin1 {
        true => {
            for byte in text {
                let mut utf8 = [0; 4];
                out.extend_from_slice(char::from(*byte).encode_utf8(&mut utf8).as_bytes());
            }
        }
        false => out.extend_from_slice(text),
    }
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// `last`: how many bits of the last byte belong to it.
fn put_bits(out: &mut Vec<u8>, bytes: &[u8], last: u8) {
    let whole = bytes.is_empty() || last >= 8;
    out.push(b'b');
    out.push(if whole { 8 } else { last });
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
    if let (false, Some(byte)) = (whole, out.last_mut()) {
        *byte &= 0xff << (8 - last);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{scan, TermErrorKind, TermLimits};

    /// `#{Key => 1, Other => 2}`, and whether the scan takes it.
    fn takes(key: &[u8], other: &[u8]) -> bool {
        let map = [&[131, 116, 0, 0, 0, 2][..], key, &[97, 1], other, &[97, 2]].concat();
        let nested = [&[131, 104, 1][..], &map[1..]].concat();
        let deep = [&[131, 116, 0, 0, 0, 2, 97, 9, 97, 9][..], &map[1..], &[97, 1]].concat();
        let verdicts = [map, nested, deep].map(|bytes| match scan(&bytes, &TermLimits::default()) {
            Ok(()) => true,
            Err(error) if error.kind == TermErrorKind::DuplicateKey => false,
            Err(error) => panic!("{error}: {bytes:?}"),
        });
        assert!(verdicts == [true; 3] || verdicts == [false; 3], "{verdicts:?}");
        verdicts[0]
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_however_it_is_spelled() {
        let twice: &[(&[u8], &[u8])] = &[
            (&[97, 1], &[97, 1]),
            (&[97, 1], &[98, 0, 0, 0, 1]),
            (&[97, 1], &[110, 1, 0, 1]),
            (&[110, 2, 0, 1, 0], &[111, 0, 0, 0, 1, 0, 1]),
            (&[97, 0], &[110, 0, 1]),
            (&[98, 255, 255, 255, 255], &[110, 1, 1, 1]),
            (&[119, 1, b'a'], &[100, 0, 1, b'a']),
            (&[119, 2, 0xc3, 0xa9], &[115, 1, 0xe9]),
            (&[118, 0, 1, b'a'], &[119, 1, b'a']),
            (&[107, 0, 1, 5], &[108, 0, 0, 0, 1, 97, 5, 106]),
            (&[107, 0, 0], &[106]),
            (&[108, 0, 0, 0, 1, 97, 5, 107, 0, 1, 6], &[107, 0, 2, 5, 6]),
            (&[109, 0, 0, 0, 1, 7], &[77, 0, 0, 0, 1, 8, 7]),
            (&[77, 0, 0, 0, 1, 3, 0xff], &[77, 0, 0, 0, 1, 3, 0xe0]),
            (&[70, 0, 0, 0, 0, 0, 0, 0, 0], &[70, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            (&[104, 1, 97, 1], &[105, 0, 0, 0, 1, 98, 0, 0, 0, 1]),
            (&[116, 0, 0, 0, 2, 97, 1, 97, 1, 97, 2, 97, 2], &[116, 0, 0, 0, 2, 97, 2, 97, 2, 97, 1, 97, 1]),
        ];
        for (key, other) in twice {
            assert!(!takes(key, other), "{key:?} {other:?}");
            assert!(!takes(other, key), "{other:?} {key:?}");
        }
        let long = [&[109, 0, 0, 0, 200][..], &[7; 200]].concat();
        assert!(!takes(&long, &long));
        assert!(!takes(&[&[104, 1], &long[..]].concat(), &[&[105, 0, 0, 0, 1], &long[..]].concat()));
    }

    #[test]
    fn different_keys_are_taken() {
        let different: &[(&[u8], &[u8])] = &[
            (&[97, 1], &[97, 2]),
            (&[97, 0], &[70, 0, 0, 0, 0, 0, 0, 0, 0]),
            (&[97, 1], &[98, 255, 255, 255, 255]),
            (&[119, 1, b'a'], &[109, 0, 0, 0, 1, b'a']),
            (&[109, 0, 0, 0, 1, 0xe0], &[77, 0, 0, 0, 1, 3, 0xe0]),
            (&[106], &[104, 0]),
            (&[107, 0, 1, 5], &[108, 0, 0, 0, 1, 97, 5, 97, 1]),
            (&[116, 0, 0, 0, 0], &[104, 0]),
        ];
        for (key, other) in different {
            assert!(takes(key, other), "{key:?} {other:?}");
        }
    }

    #[test]
    fn one_key_of_many_that_stands_twice_is_found() {
        for count in [3u32, 8, 9, 33, 1_000] {
            for complex in [false, true] {
                let key = |number: u32| match complex {
                    false => [&[109, 0, 0, 0, 4][..], &number.to_be_bytes()].concat(),
                    true => [&[104, 1, 98][..], &number.to_be_bytes()].concat(),
                };
                let map = |keys: &mut dyn Iterator<Item = u32>| {
                    let pairs: Vec<u8> = keys.flat_map(|number| [&key(number)[..], &[97, 0]].concat()).collect();
                    [&[131, 116][..], &count.to_be_bytes(), &pairs].concat()
                };
                assert!(scan(&map(&mut (0..count)), &TermLimits::default()).is_ok());
                let twice = map(&mut (0..count - 1).chain([count / 2]));
                assert!(scan(&twice, &TermLimits::default()).is_err(), "{count} {complex}");
            }
        }
    }

    #[test]
    fn keys_in_keys_in_keys_cost_their_size_once() {
        // Each level's key is the map below it and half a megabyte more.
        let mut term = vec![97, 1];
        for _ in 0..100 {
            term = [&[116, 0, 0, 0, 2][..], &term, &[97, 1, 97, 2, 97, 3]].concat();
        }
        let filler = [&[109][..], &(4_000_000u32).to_be_bytes(), &vec![0; 4_000_000]].concat();
        let bytes = [&[131, 116, 0, 0, 0, 2, 104, 2][..], &filler, &term, &[97, 1, 97, 2, 97, 3]].concat();
        assert!(scan(&bytes, &TermLimits::default()).is_ok());
    }
}
