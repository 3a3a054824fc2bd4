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
mod tests;
