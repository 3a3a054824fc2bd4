//! Requests to the control engine and answers of it as Erlang terms, by `eetf`.
//!
//! What comes is from a BEAM node of our own realm, but `eetf` panics, aborts or allocates without bound on some well-formed
//! terms, so bytes are looked at before it sees them ([`decode`]). Nothing on the hot path comes here.

use erl_dist::term::{Atom, Binary, FixInteger, List, Map, Pid, Reference, Term, Tuple};

use crate::dist::term;

/// A request may be nested so deep, and be so long: `eetf` recurses.
const DEPTH_MAX: usize = 32;
const BYTES_MAX: usize = 1024 * 1024;

/// A term as it stands in a message, without version byte. None for what `eetf` must not see, or can't read.
pub fn decode(bytes: &[u8]) -> Option<Term> {
    if bytes.len() > BYTES_MAX || !is_plain(bytes) {
        return None;
    }
    let mut whole = Vec::with_capacity(bytes.len() + 1);
    whole.push(term::VERSION);
    whole.extend_from_slice(bytes);
    Term::decode(&whole[..]).ok()
}

/// Whether this is exactly one term, not nested too deeply, and made of what `eetf` reads without harm.
fn is_plain(bytes: &[u8]) -> bool {
    use term::tag;
    // What `skip` accepts is complete, and its counts are no larger than what is there.
    if term::skip(bytes).is_none_or(|rest| !rest.is_empty()) {
        return false;
    }
    // Terms still to come in each open container.
    let mut open = vec![1u64];
    let mut rest = bytes;
    while let Some(pending) = open.last_mut() {
        if *pending == 0 {
            open.pop();
            continue;
        }
        *pending -= 1;
        let (inside, after) = match *rest {
            [tag::SMALL_TUPLE, arity, ref after @ ..] => (u64::from(arity), after),
            [tag::LARGE_TUPLE, a, b, c, d, ref after @ ..] => (u64::from(u32::from_be_bytes([a, b, c, d])), after),
            [tag::LIST, a, b, c, d, ref after @ ..] => (u64::from(u32::from_be_bytes([a, b, c, d])) + 1, after),
            [tag::MAP, a, b, c, d, ref after @ ..] => (2 * u64::from(u32::from_be_bytes([a, b, c, d])), after),
            [tag::BIT_BINARY
            | tag::NEW_FLOAT
            | tag::NEW_FUN
            | tag::EXPORT
            | tag::V4_PORT
            | tag::NEW_PORT
            | tag::PORT, ..] => return false,
            _ => match term::skip(rest) {
                Some(after) => (0, after),
                None => return false,
            },
        };
        rest = after;
        if inside > 0 {
            if open.len() >= DEPTH_MAX {
                return false;
            }
            open.push(inside);
        }
    }
    rest.is_empty()
}

/// Appends a term, without version byte.
pub fn put(out: &mut Vec<u8>, value: &Term) {
    let start = out.len();
    if value.encode(&mut *out).is_ok() {
        out.remove(start);
    } else {
        // Nothing that we build fails to encode; a caller must not wait for an answer all the same.
        out.truncate(start);
        term::put_atom(out, "error");
    }
}

pub fn atom(name: &str) -> Term {
    Atom::from(name).into()
}

pub fn binary(bytes: impl AsRef<[u8]>) -> Term {
    Binary { bytes: bytes.as_ref().to_vec() }.into()
}

pub fn integer(value: u64) -> Term {
    match i32::try_from(value) {
        Ok(value) => FixInteger { value }.into(),
        Err(_) => erl_dist::term::BigInteger::from(value).into(),
    }
}

pub fn boolean(value: bool) -> Term {
    atom(if value { "true" } else { "false" })
}

pub fn tuple(elements: Vec<Term>) -> Term {
    Tuple { elements }.into()
}

pub fn list(elements: Vec<Term>) -> Term {
    List { elements }.into()
}

pub fn map(entries: impl IntoIterator<Item = (&'static str, Term)>) -> Term {
    Map { map: entries.into_iter().map(|(key, value)| (atom(key), value)).collect() }.into()
}

/// A map whose keys are binaries.
pub fn map_by_name(entries: impl IntoIterator<Item = (String, Term)>) -> Term {
    Map { map: entries.into_iter().map(|(key, value)| (binary(key), value)).collect() }.into()
}

pub fn ok(value: Term) -> Term {
    tuple(vec![atom("ok"), value])
}

pub fn error(reason: Term) -> Term {
    tuple(vec![atom("error"), reason])
}

/// `nil` in Elixir, and an atom of that name in Erlang.
pub fn nil_or(value: Option<Term>) -> Term {
    value.unwrap_or_else(|| atom("nil"))
}

/// From a raw pid.
pub fn pid(raw: &[u8]) -> Term {
    match term::pid(raw) {
        Some(pid) => {
            let node = Atom::from(String::from_utf8_lossy(pid.node).into_owned());
            Pid { node, id: pid.id, serial: pid.serial, creation: pid.creation }.into()
        }
        None => atom("undefined"),
    }
}

pub fn reference(node: &str, creation: u32, words: [u32; 3]) -> Term {
    Term::Reference(Box::new(Reference { node: Atom::from(node), id: words.to_vec(), creation }))
}

// What comes in.

pub fn as_atom(value: &Term) -> Option<&str> {
    match value {
        Term::Atom(atom) => Some(&atom.name),
        _ => None,
    }
}

/// Text: a binary, a charlist, or an atom that is no `nil`, `true` or `false`.
pub fn as_text(value: &Term) -> Option<String> {
    match value {
        Term::Binary(binary) => String::from_utf8(binary.bytes.clone()).ok(),
        Term::ByteList(list) => Some(list.bytes.iter().map(|byte| char::from(*byte)).collect()),
        Term::List(list) if list.elements.is_empty() => Some(String::new()),
        Term::List(list) => list
            .elements
            .iter()
            .map(|element| match element {
                Term::FixInteger(character) => u32::try_from(character.value).ok().and_then(char::from_u32),
                _ => None,
            })
            .collect(),
        Term::Atom(atom) if !matches!(atom.name.as_str(), "nil" | "true" | "false" | "undefined") => {
            Some(atom.name.clone())
        }
        _ => None,
    }
}

pub fn as_bytes(value: &Term) -> Option<&[u8]> {
    match value {
        Term::Binary(binary) => Some(&binary.bytes),
        _ => None,
    }
}

pub fn as_unsigned(value: &Term) -> Option<u64> {
    match value {
        Term::FixInteger(integer) => u64::try_from(integer.value).ok(),
        Term::BigInteger(integer) => integer.to_string().parse().ok(),
        _ => None,
    }
}

pub fn as_boolean(value: &Term) -> Option<bool> {
    match as_atom(value)? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Elements of a proper list. A list of small integers comes as bytes, and is none of ours.
pub fn as_list(value: &Term) -> Option<&[Term]> {
    match value {
        Term::List(list) => Some(&list.elements),
        _ => None,
    }
}

pub fn as_tuple(value: &Term) -> Option<&[Term]> {
    match value {
        Term::Tuple(tuple) => Some(&tuple.elements),
        _ => None,
    }
}

/// A pid, raw again.
pub fn as_pid(value: &Term) -> Option<Box<[u8]>> {
    let Term::Pid(pid) = value else {
        return None;
    };
    let mut node = Vec::with_capacity(40);
    term::put_atom(&mut node, &pid.node.name);
    let mut raw = Vec::with_capacity(56);
    term::put_pid(&mut raw, &node, pid.id, pid.serial, pid.creation);
    Some(raw.into())
}

/// Options: a property list (bare atoms stand for `true`) or a map, keys being atoms.
pub struct Options<'a>(Vec<(&'a str, Option<&'a Term>)>);

impl<'a> Options<'a> {
    /// None when it is neither.
    pub fn of(value: &'a Term) -> Option<Options<'a>> {
        let entries = match value {
            Term::Map(map) => map.map.iter().map(|(key, value)| Some((as_atom(key)?, Some(value)))).collect(),
            Term::List(list) => list
                .elements
                .iter()
                .map(|element| match as_tuple(element) {
                    Some([key, value]) => Some((as_atom(key)?, Some(value))),
                    _ => Some((as_atom(element)?, None)),
                })
                .collect(),
            _ => None,
        };
        entries.map(Options)
    }

    /// The first of that name, as in a property list. `nil` and `undefined` are as good as none.
    pub fn get(&self, name: &str) -> Option<&'a Term> {
        let (_, value) = self.0.iter().find(|(key, _)| *key == name)?;
        value.filter(|value| !matches!(as_atom(value), Some("nil" | "undefined")))
    }

    /// The first key that is none of these.
    pub fn unknown(&self, known: &[&str]) -> Option<&'a str> {
        self.0.iter().map(|(key, _)| *key).find(|key| !known.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(value: Term) -> Term {
        let mut bytes = Vec::new();
        put(&mut bytes, &value);
        decode(&bytes).unwrap()
    }

    #[test]
    fn what_we_answer_can_be_read_again() {
        let value = map([
            ("name", binary("ping@bob")),
            ("big", integer(1 << 40)),
            ("pids", list(vec![reference("n@h", 7, [1, 2, 3]), boolean(true)])),
        ]);
        assert_eq!(round_trip(value.clone()), value);
    }

    #[test]
    fn text_is_a_binary_a_charlist_or_an_atom() {
        assert_eq!(as_text(&binary("ping")), Some("ping".into()));
        assert_eq!(as_text(&atom("ping")), Some("ping".into()));
        assert_eq!(as_text(&decode(b"k\x00\x04ping").unwrap()), Some("ping".into()));
        assert_eq!(as_text(&atom("nil")), None);
        assert_eq!(as_text(&integer(1)), None);
        assert_eq!(as_text(&binary(b"\xff")), None);
    }

    #[test]
    fn options_are_a_list_or_a_map() {
        let entries = list(vec![tuple(vec![atom("a"), integer(1)]), atom("b"), tuple(vec![atom("c"), atom("nil")])]);
        let options = Options::of(&entries).unwrap();
        assert_eq!(options.get("a").and_then(as_unsigned), Some(1));
        assert_eq!(options.get("b"), None);
        assert_eq!(options.get("c"), None);
        assert_eq!(options.unknown(&["a", "c"]), Some("b"));
        let entries = map([("a", integer(2))]);
        assert_eq!(Options::of(&entries).unwrap().get("a").and_then(as_unsigned), Some(2));
        assert!(Options::of(&integer(1)).is_none());
        assert!(Options::of(&list(vec![integer(1)])).is_none());
    }

    #[test]
    fn what_eetf_fails_on_never_reaches_it() {
        let nested = [&b"h\x01".repeat(200_000)[..], b"j"].concat();
        let endless = b"l\xff\xff\xff\xffj";
        let cached = b"R\x00";
        let compressed = b"P\x00\x00\x00\x01x";
        let bits = b"M\x00\x00\x00\x01\x09\xff";
        for bytes in [&nested[..], endless, cached, compressed, bits, b"", b"h\x02a\x01"] {
            assert!(decode(bytes).is_none());
        }
    }
}
