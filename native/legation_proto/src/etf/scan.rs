//! The bounded scan of a payload, before anything decodes it (`protocol.md` 13).
//!
//! One loop, no recursion, no allocation; pids and references are found on the way. What is still to come is a number per open container:
//!
//! ```text
//!  {a, [1, 2], #{k => v}}       pending 1 ─► tuple: push 0, pending 3 ─► a: 2 ─► list: push 1, pending 2 + tail ...
//! ```
//!
//! **Why counts need no limit of their own.** Every term takes at least one byte, so a container that announces more
//! elements than there are bytes left can't be complete and is refused where its count is read. What has passed the
//! scan therefore has at most as many terms in it as it has bytes, and a decoder that allocates by the counts it reads
//! allocates a fixed multiple of the payload.
//!
//! **What is stricter than OTP.** A list of no elements that is not written as NIL: OTP reads `[108, 0,0,0,0, Term]` as
//! `Term` itself, a second spelling for everything, which would let a tuple pass for a list. Nobody writes it.

use thiserror::Error;

use super::identifiers::{kind_of, parts, Wire};
use super::keys::find_twice;
use super::{tag, VERSION};

/// The deepest nesting that can be configured; the stack of the scan is this large.
pub const DEPTH_MAX: u16 = 256;

/// Nesting that the first attempt has room for. Clearing 256 entries would take as long as scanning a small term, so
/// the rare deep term is scanned a second time instead.
const DEPTH_COMMON: usize = 16;

/// Bounds of a term (`protocol.md` 13.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermLimits {
    /// Containers (tuples, lists, maps that are not empty) that may be open at once. At most [`DEPTH_MAX`], and taken
    /// for that if larger. A list that is the tail of a list counts as one inside it.
    pub depth_max: u16,
    /// Bytes of a big integer. Arithmetic and printing on the far side are quadratic in it.
    pub big_bytes_max: u32,
}

impl Default for TermLimits {
    fn default() -> Self {
        TermLimits { depth_max: DEPTH_MAX, big_bytes_max: 64 * 1024 }
    }
}

/// The first problem of a term, in the order of its bytes. What comes after it was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{kind}, at byte {offset}")]
pub struct TermError {
    pub kind: TermErrorKind,
    /// Where the term with the problem begins; for [`TermErrorKind::Trailing`] the first byte too many.
    pub offset: usize,
}

impl TermError {
    /// Whether the payload is answered `identifiers`, and not as malformed (`protocol.md` 10.4, 13.3).
    pub fn is_identifiers(&self) -> bool {
        matches!(self.kind, TermErrorKind::Identifiers(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TermErrorKind {
    #[error("no external term format, which begins with 131")]
    Version,
    #[error("the term is cut short")]
    Truncated,
    #[error("tag {0} is not allowed")]
    Tag(u8),
    #[error("nested too deeply")]
    TooDeep,
    /// More elements than bytes are left for, or a list of none.
    #[error("an impossible number of elements")]
    Count,
    /// ERTS refuses it, and a node drops the connection over which it came.
    #[error("a map has a key twice")]
    DuplicateKey,
    /// More than 255 characters, or not UTF-8.
    #[error("no atom")]
    Atom,
    #[error("the float is infinite or not a number")]
    Float,
    #[error("the last byte of a bit string has an impossible number of bits")]
    Bits,
    #[error("the integer has too many bytes")]
    BigTooLarge,
    #[error("bytes are left after the term")]
    Trailing,
    /// The term may be well-formed, but a peer can't do anything with it.
    #[error("it holds a {0}")]
    Identifiers(IdentifierKind),
}

/// What means something only inside the Erlang system it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdentifierKind {
    #[error("pid")]
    Pid,
    #[error("port")]
    Port,
    #[error("reference")]
    Reference,
    #[error("fun")]
    Fun,
}

/// Whether `bytes` is exactly one well-formed term within `limits` and without identifiers.
///
/// # Errors
/// The first problem met. [`TermError::is_identifiers`] tells the two answers of `protocol.md` 13.3 apart.
pub fn scan(bytes: &[u8], limits: &TermLimits) -> Result<(), TermError> {
    scan_for(bytes, limits, Allowed::None).map(|_| ())
}

/// The same for a payload of our own Erlang system, which may hold pids and references of any node.
///
/// True: there are some, to be found with [`identifiers`](super::identifiers()).
///
/// # Errors
/// As [`scan`]; ports and funs are [`TermErrorKind::Identifiers`].
pub fn scan_local(bytes: &[u8], limits: &TermLimits) -> Result<bool, TermError> {
    scan_for(bytes, limits, Allowed::Local)
}

/// The same for a payload from a peer, which may hold pids and references in the forms of `protocol.md` 13.4 alone.
///
/// True: there are some, to be found with [`identifiers`](super::identifiers()).
///
/// # Errors
/// As [`scan`]; any other identifier, and any other spelling of these, is [`TermErrorKind::Identifiers`].
pub fn scan_wire(bytes: &[u8], limits: &TermLimits) -> Result<bool, TermError> {
    scan_for(bytes, limits, Allowed::Wire)
}

/// Which identifiers may be there.
#[derive(Clone, Copy, Debug)]
enum Allowed {
    None,
    Local,
    Wire,
}

/// What a walk has met. Both mean that there is more to do, which most terms are spared.
#[derive(Clone, Copy, Debug, Default)]
struct Met {
    /// Maps of more than one key, which may be one key twice.
    maps: bool,
    identifiers: bool,
}

fn scan_for(bytes: &[u8], limits: &TermLimits, allowed: Allowed) -> Result<bool, TermError> {
    let depth_max = limits.depth_max.min(DEPTH_MAX) as usize;
    let met = match walk::<DEPTH_COMMON>(bytes, depth_max, limits.big_bytes_max, allowed) {
        Err(TermError { kind: TermErrorKind::TooDeep, .. }) if depth_max > DEPTH_COMMON => {
            walk_deep(bytes, depth_max, limits.big_bytes_max, allowed)?
        }
        result => result?,
    };
    match met.maps.then(|| find_twice(&bytes[1..])).flatten() {
        Some(map) => fail(bytes, map, TermErrorKind::DuplicateKey),
        None => Ok(met.identifiers),
    }
}

/// Whether a key stands twice in a map of a payload whose identifiers have been replaced: two of them may have become
/// one, where they meant the same process.
pub(crate) fn has_key_twice(bytes: &[u8]) -> bool {
    find_twice(bytes.get(1..).unwrap_or_default()).is_some()
}

#[cold]
#[inline(never)]
fn walk_deep(bytes: &[u8], depth_max: usize, big_bytes_max: u32, allowed: Allowed) -> Result<Met, TermError> {
    walk::<{ DEPTH_MAX as usize }>(bytes, depth_max, big_bytes_max, allowed)
}

/// Terms that are needed inside a container can't be more than the bytes left, which is why `usize` holds them.
#[inline(always)]
fn walk<const DEPTH: usize>(
    bytes: &[u8],
    depth_max: usize,
    big_bytes_max: u32,
    allowed: Allowed,
) -> Result<Met, TermError> {
    use TermErrorKind::{Atom, BigTooLarge, Bits, Count, Float, TooDeep, Trailing, Truncated, Version};

    let depth_max = depth_max.min(DEPTH);
    // Terms still to come in the containers around the current one, outermost first.
    let mut outer = [0usize; DEPTH];
    let mut depth = 0;
    // Terms still to come in the current one.
    let mut pending = 1usize;
    let mut met = Met::default();

    let Some((&VERSION, mut rest)) = bytes.split_first() else {
        return fail(bytes, bytes, if bytes.is_empty() { Truncated } else { Version });
    };

    // Both leave the function, so that `rest` is always what follows the last thing that was in order.
    macro_rules! skip {
        ($at:expr, $from:expr, $count:expr) => {
            match $from.get($count..) {
                Some(after) => after,
                None => return fail(bytes, $at, Truncated),
            }
        };
    }
    macro_rules! field {
        ($at:expr, $from:expr, $count:literal) => {
            match $from.split_first_chunk::<$count>() {
                Some(split) => split,
                None => return fail(bytes, $at, Truncated),
            }
        };
    }

    loop {
        let at = rest;
        let Some((&tag, body)) = at.split_first() else {
            return fail(bytes, at, Truncated);
        };
        pending -= 1;
        // What is behind the tag and the count, and how many terms in it belong to this one.
        let (after, elements) = match tag {
            tag::SMALL_INTEGER => (skip!(at, body, 1), 0),
            tag::INTEGER => (skip!(at, body, 4), 0),
            tag::NIL => (body, 0),
            tag::SMALL_ATOM_UTF8 => {
                let (&[length], text) = field!(at, body, 1);
                let Some((text, after)) = text.split_at_checked(usize::from(length)) else {
                    return fail(bytes, at, Truncated);
                };
                if !is_utf8(text) {
                    return fail(bytes, at, Atom);
                }
                (after, 0)
            }
            tag::SMALL_ATOM => {
                let (&[length], text) = field!(at, body, 1);
                (skip!(at, text, usize::from(length)), 0)
            }
            tag::ATOM => {
                let (&length, text) = field!(at, body, 2);
                let length = usize::from(u16::from_be_bytes(length));
                if length > ATOM_CHARACTERS_MAX {
                    return fail(bytes, at, Atom);
                }
                (skip!(at, text, length), 0)
            }
            tag::ATOM_UTF8 => {
                let (&length, text) = field!(at, body, 2);
                let length = usize::from(u16::from_be_bytes(length));
                if length > 4 * ATOM_CHARACTERS_MAX {
                    return fail(bytes, at, Atom);
                }
                let Some((text, after)) = text.split_at_checked(length) else {
                    return fail(bytes, at, Truncated);
                };
                match std::str::from_utf8(text) {
                    Ok(text) if length <= ATOM_CHARACTERS_MAX || text.chars().count() <= ATOM_CHARACTERS_MAX => {}
                    _ => return fail(bytes, at, Atom),
                }
                (after, 0)
            }
            tag::BINARY => {
                let (&length, data) = field!(at, body, 4);
                (skip!(at, data, u32::from_be_bytes(length) as usize), 0)
            }
            tag::STRING => {
                let (&length, data) = field!(at, body, 2);
                (skip!(at, data, usize::from(u16::from_be_bytes(length))), 0)
            }
            tag::SMALL_TUPLE => {
                let (&[arity], after) = field!(at, body, 1);
                (after, u64::from(arity))
            }
            tag::LARGE_TUPLE => {
                let (&arity, after) = field!(at, body, 4);
                match u32::from_be_bytes(arity) {
                    arity if arity > ARITY_MAX => return fail(bytes, at, Count),
                    arity => (after, u64::from(arity)),
                }
            }
            tag::LIST => {
                let (&length, after) = field!(at, body, 4);
                match u32::from_be_bytes(length) {
                    0 => return fail(bytes, at, Count),
                    // The tail is a term, too, be it NIL or not.
                    length => (after, u64::from(length) + 1),
                }
            }
            tag::MAP => {
                let (&pairs, after) = field!(at, body, 4);
                let pairs = u32::from_be_bytes(pairs);
                met.maps |= pairs > 1;
                (after, 2 * u64::from(pairs))
            }
            tag::NEW_FLOAT => {
                let (&float, after) = field!(at, body, 8);
                if !f64::from_be_bytes(float).is_finite() {
                    return fail(bytes, at, Float);
                }
                (after, 0)
            }
            tag::SMALL_BIG => {
                let (&[length, _sign], digits) = field!(at, body, 2);
                if u32::from(length) > big_bytes_max {
                    return fail(bytes, at, BigTooLarge);
                }
                (skip!(at, digits, usize::from(length)), 0)
            }
            tag::LARGE_BIG => {
                let (&[a, b, c, d, _sign], digits) = field!(at, body, 5);
                let length = u32::from_be_bytes([a, b, c, d]);
                if length > big_bytes_max {
                    return fail(bytes, at, BigTooLarge);
                }
                (skip!(at, digits, length as usize), 0)
            }
            tag::BIT_BINARY => {
                let (&[a, b, c, d, bits], data) = field!(at, body, 5);
                let length = u32::from_be_bytes([a, b, c, d]);
                // Bits of the last byte, of which there is none in the empty one.
                if (length == 0) != (bits == 0) || bits > 8 {
                    return fail(bytes, at, Bits);
                }
                (skip!(at, data, length as usize), 0)
            }
            _ => match identifier(at, allowed) {
                Ok(after) => {
                    met.identifiers = true;
                    (after, 0)
                }
                Err(kind) => return fail(bytes, at, kind),
            },
        };
        rest = after;

        if elements > 0 {
            if elements > rest.len() as u64 {
                return fail(bytes, at, Count);
            }
            if depth >= depth_max {
                return fail(bytes, at, TooDeep);
            }
            outer[depth] = pending;
            depth += 1;
            pending = elements as usize;
            continue;
        }
        // Numbers come in runs, which need none of the above: half the time for a list of them.
        while let ([tag::SMALL_INTEGER, _, after @ ..], 1..) = (rest, pending) {
            rest = after;
            pending -= 1;
        }
        while pending == 0 {
            if depth == 0 {
                return if rest.is_empty() { Ok(met) } else { fail(bytes, rest, Trailing) };
            }
            depth -= 1;
            pending = outer[depth];
        }
    }
}

/// No tuple of the BEAM is larger.
const ARITY_MAX: u32 = 16_777_215;

/// ERTS refuses longer ones with `system_limit`.
const ATOM_CHARACTERS_MAX: usize = 255;

#[inline(always)]
fn is_utf8(text: &[u8]) -> bool {
    text.is_ascii() || std::str::from_utf8(text).is_ok()
}

/// What follows the identifier at the head of `at`, if it may be there.
#[cold]
#[inline(never)]
fn identifier(at: &[u8], allowed: Allowed) -> Result<&[u8], TermErrorKind> {
    let tag = at.first().copied().unwrap_or(0);
    let kind = kind_of(tag).ok_or(TermErrorKind::Tag(tag))?;
    let refused = TermErrorKind::Identifiers(kind);
    if matches!(allowed, Allowed::None) || matches!(kind, IdentifierKind::Port | IdentifierKind::Fun) {
        return Err(refused);
    }
    let bytes = parts(at).map(|parts| parts.bytes).ok_or(refused)?;
    let (raw, after) = at.split_at_checked(bytes).ok_or(refused)?;
    match allowed {
        Allowed::Wire if Wire::parse(raw).is_none() => Err(refused),
        _ => Ok(after),
    }
}

/// `at` is a tail of `bytes`.
#[cold]
fn fail<T>(bytes: &[u8], at: &[u8], kind: TermErrorKind) -> Result<T, TermError> {
    Err(TermError { kind, offset: bytes.len() - at.len() })
}

#[cfg(test)]
mod tests {
    use super::super::generator::{any_term, term_of_depth};
    use super::*;
    use proptest::prelude::*;

    fn scanned(bytes: &[u8]) -> Result<(), TermErrorKind> {
        scan(bytes, &TermLimits::default()).map_err(|error| error.kind)
    }

    #[test]
    fn every_allowed_tag_is_allowed_in_its_shortest_form() {
        let forms: [&[u8]; 17] = [
            &[131, 70, 0, 0, 0, 0, 0, 0, 0, 0],
            &[131, 77, 0, 0, 0, 1, 3, 0b1010_0000],
            &[131, 97, 255],
            &[131, 98, 255, 255, 255, 255],
            &[131, 100, 0, 1, 0xe9],
            &[131, 104, 0],
            &[131, 105, 0, 0, 0, 0],
            &[131, 106],
            &[131, 107, 0, 0],
            &[131, 108, 0, 0, 0, 1, 106, 106],
            &[131, 109, 0, 0, 0, 0],
            &[131, 110, 0, 0],
            &[131, 111, 0, 0, 0, 0, 0],
            &[131, 115, 1, 0xe9],
            &[131, 116, 0, 0, 0, 0],
            &[131, 118, 0, 2, 0xc3, 0xa9],
            &[131, 119, 2, 0xc3, 0xa9],
        ];
        for form in forms {
            assert_eq!(scanned(form), Ok(()), "{form:?}");
        }
    }

    #[test]
    fn every_other_tag_is_refused_and_identifiers_say_what_they_are() {
        let allowed = [70, 77, 97, 98, 100, 104, 105, 106, 107, 108, 109, 110, 111, 115, 116, 118, 119];
        for tag in (0..=255u8).filter(|tag| !allowed.contains(tag)) {
            // Inside a tuple, so that the offset is worth something.
            let error = scan(&[131, 104, 2, 97, 1, tag, 0, 0, 0, 0], &TermLimits::default()).unwrap_err();
            let kind = match tag {
                88 | 103 => TermErrorKind::Identifiers(IdentifierKind::Pid),
                89 | 102 | 120 => TermErrorKind::Identifiers(IdentifierKind::Port),
                90 | 101 | 114 => TermErrorKind::Identifiers(IdentifierKind::Reference),
                112 | 113 | 117 => TermErrorKind::Identifiers(IdentifierKind::Fun),
                _ => TermErrorKind::Tag(tag),
            };
            assert_eq!(error, TermError { kind, offset: 5 });
            assert_eq!(error.is_identifiers(), !matches!(kind, TermErrorKind::Tag(_)));
        }
    }

    #[test]
    fn the_first_problem_in_the_order_of_the_bytes_is_the_one_reported() {
        assert_eq!(scanned(&[131, 104, 2, 88, 80]), Err(TermErrorKind::Identifiers(IdentifierKind::Pid)));
        assert_eq!(scanned(&[131, 104, 2, 80, 88]), Err(TermErrorKind::Tag(80)));
    }

    #[test]
    fn a_term_begins_with_131_and_nothing_follows_it() {
        assert_eq!(scanned(&[]), Err(TermErrorKind::Truncated));
        assert_eq!(scanned(&[131]), Err(TermErrorKind::Truncated));
        assert_eq!(scanned(&[130, 106]), Err(TermErrorKind::Version));
        assert_eq!(scanned(&[131, 131, 106]), Err(TermErrorKind::Tag(131)));
        let error = scan(&[131, 106, 106], &TermLimits::default()).unwrap_err();
        assert_eq!(error, TermError { kind: TermErrorKind::Trailing, offset: 2 });
    }

    #[test]
    fn counts_beyond_the_bytes_are_refused_where_they_are_read() {
        // The first aborts a decoder that reserves room for what it is told.
        for attack in [
            [131, 108, 255, 255, 255, 255, 106].as_slice(),
            &[131, 116, 255, 255, 255, 255, 106],
            &[131, 116, 128, 0, 0, 0, 106, 106],
            &[131, 105, 255, 255, 255, 255, 106],
            &[131, 104, 3, 106, 106],
            &[131, 108, 0, 0, 0, 1, 106],
        ] {
            let error = scan(attack, &TermLimits::default()).unwrap_err();
            assert_eq!(error, TermError { kind: TermErrorKind::Count, offset: 1 }, "{attack:?}");
        }
        for attack in [
            [131, 109, 255, 255, 255, 255, 0].as_slice(),
            &[131, 77, 255, 255, 255, 255, 1, 0],
            &[131, 107, 255, 255, 0],
        ] {
            assert_eq!(scanned(attack), Err(TermErrorKind::Truncated), "{attack:?}");
        }
    }

    #[test]
    fn a_list_of_no_elements_is_refused_because_otp_reads_its_tail_in_its_place() {
        assert_eq!(scanned(&[131, 108, 0, 0, 0, 0, 106]), Err(TermErrorKind::Count));
        assert_eq!(scanned(&[131, 108, 0, 0, 0, 0, 104, 1, 97, 1]), Err(TermErrorKind::Count));
    }

    #[test]
    fn a_list_has_one_tail_and_it_may_be_anything() {
        assert_eq!(scanned(&[131, 108, 0, 0, 0, 1, 97, 1, 97, 2]), Ok(()));
        assert_eq!(scanned(&[131, 108, 0, 0, 0, 1, 97, 1, 116, 0, 0, 0, 1, 97, 2, 97, 3]), Ok(()));
        assert_eq!(scanned(&[131, 108, 0, 0, 0, 1, 97, 1, 106, 106]), Err(TermErrorKind::Trailing));
    }

    #[test]
    fn depth_at_the_limit_is_allowed_and_one_more_is_not() {
        for depth_max in [0, 1, 2, 15, 16, 17, 200, 256] {
            let limits = TermLimits { depth_max, ..TermLimits::default() };
            assert_eq!(scan(&term_of_depth(depth_max.into()), &limits), Ok(()), "{depth_max}");
            let error = scan(&term_of_depth(usize::from(depth_max) + 1), &limits).unwrap_err();
            assert_eq!(error.kind, TermErrorKind::TooDeep, "{depth_max}");
        }
        // Empty containers hold nothing open.
        assert_eq!(scan(&[131, 104, 0], &TermLimits { depth_max: 0, ..TermLimits::default() }), Ok(()));
    }

    #[test]
    fn a_depth_beyond_the_stack_is_taken_for_the_stack() {
        let limits = TermLimits { depth_max: u16::MAX, ..TermLimits::default() };
        assert_eq!(scan(&term_of_depth(256), &limits), Ok(()));
        assert_eq!(scan(&term_of_depth(257), &limits).unwrap_err().kind, TermErrorKind::TooDeep);
    }

    #[test]
    fn two_hundred_thousand_nested_tuples_are_refused() {
        assert_eq!(scanned(&term_of_depth(200_000)), Err(TermErrorKind::TooDeep));
        let mut lists = vec![131];
        for _ in 0..200_000 {
            lists.extend([108, 0, 0, 0, 1, 106]);
        }
        lists.push(106);
        assert_eq!(scanned(&lists), Err(TermErrorKind::TooDeep));
    }

    #[test]
    fn width_is_no_depth() {
        let mut wide = vec![131, 105, 0, 1, 0, 0];
        for _ in 0..65_536 {
            wide.extend([104, 1, 108, 0, 0, 0, 1, 116, 0, 0, 0, 0, 106]);
        }
        assert_eq!(scanned(&wide), Ok(()));
    }

    #[test]
    fn atoms_have_at_most_255_characters() {
        let atom = |tag: u8, length: u16, text: &str| {
            let mut bytes = vec![131, tag];
            bytes.extend(length.to_be_bytes());
            bytes.extend(text.as_bytes());
            bytes
        };
        assert_eq!(scanned(&atom(100, 255, &"x".repeat(255))), Ok(()));
        assert_eq!(scanned(&atom(100, 256, &"x".repeat(256))), Err(TermErrorKind::Atom));
        assert_eq!(scanned(&atom(118, 255, &"x".repeat(255))), Ok(()));
        assert_eq!(scanned(&atom(118, 256, &"x".repeat(256))), Err(TermErrorKind::Atom));
        assert_eq!(scanned(&atom(118, 1020, &"😀".repeat(255))), Ok(()));
        assert_eq!(scanned(&atom(118, 512, &"é".repeat(256))), Err(TermErrorKind::Atom));
        assert_eq!(scanned(&atom(118, 1024, &"😀".repeat(256))), Err(TermErrorKind::Atom));
    }

    #[test]
    fn atoms_that_are_not_utf8_are_refused() {
        // A lone continuation, an overlong zero, a surrogate, a character cut off.
        for text in [&[0x80][..], &[0xc0, 0x80], &[0xed, 0xa0, 0x80], &[0xf0, 0x9f, 0x98]] {
            let small = [&[131, 119, text.len() as u8], text].concat();
            let long = [&[131, 118, 0, text.len() as u8], text].concat();
            assert_eq!(scanned(&small), Err(TermErrorKind::Atom));
            assert_eq!(scanned(&long), Err(TermErrorKind::Atom));
        }
    }

    #[test]
    fn floats_are_finite() {
        for (float, expected) in [
            (1.5, Ok(())),
            (-0.0, Ok(())),
            (f64::MIN_POSITIVE / 2.0, Ok(())),
            (f64::NAN, Err(TermErrorKind::Float)),
            (f64::INFINITY, Err(TermErrorKind::Float)),
            (f64::NEG_INFINITY, Err(TermErrorKind::Float)),
        ] {
            let bytes = [&[131, 70][..], &f64::to_be_bytes(float)].concat();
            assert_eq!(scanned(&bytes), expected, "{float}");
        }
    }

    #[test]
    fn the_last_byte_of_a_bit_string_has_one_to_eight_bits() {
        for bits in 0..=255u8 {
            let empty = scanned(&[131, 77, 0, 0, 0, 0, bits]);
            assert_eq!(empty.is_ok(), bits == 0, "{bits}");
            let one = scanned(&[131, 77, 0, 0, 0, 1, bits, 0xff]);
            assert_eq!(one.is_ok(), (1..=8).contains(&bits), "{bits}");
        }
    }

    #[test]
    fn big_integers_are_bounded() {
        let big = |bytes: u32| {
            let mut term = vec![131, 111];
            term.extend(bytes.to_be_bytes());
            term.push(1);
            term.resize(term.len() + bytes as usize, 7);
            term
        };
        assert_eq!(scanned(&big(65_536)), Ok(()));
        assert_eq!(scanned(&big(65_537)), Err(TermErrorKind::BigTooLarge));
        assert_eq!(scanned(&[131, 111, 255, 255, 255, 255, 0]), Err(TermErrorKind::BigTooLarge));
        let limits = TermLimits { big_bytes_max: 1, ..TermLimits::default() };
        assert_eq!(scan(&[131, 110, 2, 0, 1, 1], &limits).unwrap_err().kind, TermErrorKind::BigTooLarge);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_valid_term_passes_and_every_truncation_of_it_is_an_error(term in any_term()) {
            prop_assert_eq!(scanned(&term), Ok(()));
            for length in 0..term.len() {
                prop_assert!(scanned(&term[..length]).is_err(), "{length}");
            }
        }

        #[test]
        fn a_byte_after_a_valid_term_is_an_error(mut term in any_term(), byte: u8) {
            term.push(byte);
            prop_assert_eq!(scanned(&term), Err(TermErrorKind::Trailing));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = scan(&bytes, &TermLimits::default());
        }

        #[test]
        fn bytes_that_look_like_terms_never_panic(
            tags in prop::collection::vec(prop_oneof![60..125u8, 0..4u8, any::<u8>()], 0..300),
            depth_max: u16,
            big_bytes_max: u32,
        ) {
            let bytes = [&[131], &tags[..]].concat();
            if let Err(error) = scan(&bytes, &TermLimits { depth_max, big_bytes_max }) {
                prop_assert!(error.offset <= bytes.len());
            }
        }

        #[test]
        fn the_small_stack_and_the_large_one_agree(
            tags in prop::collection::vec(prop_oneof![Just(104u8), Just(1), Just(2), Just(106), any::<u8>()], 0..300),
        ) {
            let bytes = [&[131], &tags[..]].concat();
            prop_assert_eq!(
                walk::<DEPTH_COMMON>(&bytes, 256, 65_536, Allowed::None).is_ok(),
                walk_deep(&bytes, 256, 65_536, Allowed::None).is_ok()
            );
        }
    }
}
