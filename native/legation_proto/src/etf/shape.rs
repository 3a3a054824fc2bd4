//! Messages that OTP takes for something else than a message (`protocol.md` 10.5).
//!
//! A SEND may be all that policy grants a peer, yet to a process on the BEAM there are only messages: a plain
//! `{'$gen_call', From, Req}` runs `handle_call`, `{system, From, {terminate, _}}` stops a server. The kind on the wire
//! is therefore a hint, and the receiver looks at what the term *is*. What each family listens to without asking for a
//! pid or reference of its own inside:
//!
//! | who | takes from its mailbox |
//! |---|---|
//! | gen_server, gen_statem, supervisor, Agent, Task.Supervisor | `{'$gen_call', ..}`, `{'$gen_cast', ..}` of any arity |
//! | gen_fsm, GenStage, DynamicSupervisor | `{'$gen_event', ..}`, `{'$gen_producer', ..}`, `{'$gen_restart', ..}`: hence `$gen_` as a prefix |
//! | whatever follows the design principles (`sys`, `proc_lib`) | `{system, ..}`, `{'EXIT', ..}` |
//! | gen_event | `{_, Tag, Request}`, where nothing asks that the first is a pid or that `Tag` is a `from` |
//! | I/O servers and their clients | `{io_request, ..}`, `{io_reply, ..}` |
//! | monitors of processes and nodes | `{'DOWN', ..}`, `{nodedown, ..}`, `{nodeup, ..}`, `{global_name_conflict, ..}` |
//! | waiting callers | `{Ref, _}`, `{[alias \| Ref], _}`, `{[[alias \| Ref] \| Mon], _}` |
//!
//! On OTP 25 a plain `{nobody, {nowhere, tag}, {add_handler, Module, Args}}` made an event manager run
//! `Module:init(Args)` of the sender's choice; `{x, y, stop}` stopped it.
//!
//! An answer is let through to who waits for it where every reference in its tag was given to the peer in this session and comes
//! home: it is what a process gets that sends its pid and a reference, and waits for `{Ref, Answer}`.
//!
//! Left alone, on purpose: `{notify, Event}`, the plain message of event managers; `timeout`, which `handle_info` can't
//! tell from its own and mustn't trust; `{timeout, Ref, _}`, `{'$socket', ..}`, `{tcp, Port, _}`, `{ack, Pid, _}` and
//! the like, which mean something only with an identifier in it that the peer was given, or can't have.
//!
//! **One term, many spellings.** An atom has four (tags 100, 115, 118, 119), a tuple two (104, 105), and OTP reads a
//! [list of no elements](super::scan()) as its tail. All of them are recognised.

use super::identifiers::{length, Owner, Wire};
use super::{tag, VERSION};

/// What a plain message would be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disguise {
    /// A tuple that begins with this atom, or, for `$gen_`, with one that begins so.
    Tagged(&'static str),
    /// The answer to a call that waits for one.
    Reply,
    /// A request to an event manager.
    EventRequest,
}

/// What OTP would take a SEND's payload for, if not for a message. `known`: whether a reference of this number was given to
/// the peer, which then may answer with it.
///
/// Total on arbitrary bytes, without allocation. It is meant for payloads that passed [`scan`](super::scan()): what is
/// not a term is not recognised as anything.
pub fn disguise(payload: &[u8], known: &dyn Fn(u64) -> bool) -> Option<Disguise> {
    let (&version, term) = payload.split_first()?;
    if version != VERSION {
        return None;
    }
    let (arity, first) = tuple(term)?;
    if arity == 0 {
        return None;
    }
    if let Some(name) = atom(first) {
        if let Some(name) = TAGS.into_iter().find(|tag| tag.as_bytes() == name) {
            return Some(Disguise::Tagged(name));
        }
        if name.starts_with(GEN_PREFIX.as_bytes()) {
            return Some(Disguise::Tagged(GEN_PREFIX));
        }
    }
    match arity {
        2 if is_call_tag(first) && !is_given_tag(first, known) => Some(Disguise::Reply),
        3 if is_event_request(skip(skip(first)?)?) => Some(Disguise::EventRequest),
        _ => None,
    }
}

/// Atoms at the head of a tuple. `$gen_call` and `$gen_cast` are covered by the prefix, and are here for their names.
const TAGS: [&str; 10] = [
    "$gen_call",
    "$gen_cast",
    "system",
    "EXIT",
    "DOWN",
    "io_request",
    "io_reply",
    "nodedown",
    "nodeup",
    "global_name_conflict",
];

const GEN_PREFIX: &str = "$gen_";

/// A reference, or `[alias | _]`, or a list that begins with such a list.
fn is_call_tag(term: &[u8]) -> bool {
    let mut term = spelled_out(term);
    if matches!(term.first(), Some(&(tag::REFERENCE | tag::NEW_REFERENCE | tag::NEWER_REFERENCE))) {
        return true;
    }
    let mut in_list = false;
    while let Some(first) = list(term) {
        in_list = true;
        term = first;
    }
    in_list && atom(term) == Some(b"alias")
}

/// A reference that we gave, `[alias | _]` with one, or `[[alias | _] | _]` with two, and no other spelling of it.
fn is_given_tag(term: &[u8], known: &dyn Fn(u64) -> bool) -> bool {
    let given = |term| after_given(term, known);
    let in_alias = |term| given(after_alias(term)?);
    given(term).is_some()
        || in_alias(term).is_some()
        || after_list_of_one(term).and_then(|alias| given(in_alias(alias)?)).is_some()
}

fn after_given<'a>(term: &'a [u8], known: &dyn Fn(u64) -> bool) -> Option<&'a [u8]> {
    let (raw, after) = term.split_at_checked(length(term)?)?;
    match Wire::parse(raw) {
        Some(Wire::Reference { number, owner: Owner::Receiver }) if known(number) => Some(after),
        _ => None,
    }
}

/// The tail of a list whose one element is `alias`.
fn after_alias(term: &[u8]) -> Option<&[u8]> {
    let elements = after_list_of_one(term)?;
    (atom(elements)? == b"alias").then(|| skip(elements)).flatten()
}

fn after_list_of_one(term: &[u8]) -> Option<&[u8]> {
    match *term {
        [tag::LIST, 0, 0, 0, 1, ref elements @ ..] => Some(elements),
        _ => None,
    }
}

/// What `gen_event` matches as the third element, with the arities it has from OTP 25 to 29.
fn is_event_request(term: &[u8]) -> bool {
    match tuple(term) {
        None => atom(term).is_some_and(|name| matches!(name, b"stop" | b"which_handlers" | b"get_modules")),
        Some((arity, first)) => atom(first).is_some_and(|name| {
            matches!(
                (arity, name),
                (2, b"sync_notify")
                    | (3, b"call" | b"add_handler" | b"delete_handler")
                    | (4, b"add_sup_handler")
                    | (5, b"swap_handler")
                    | (6, b"swap_sup_handler")
            )
        }),
    }
}

/// Arity, and the bytes from the first element on.
fn tuple(term: &[u8]) -> Option<(u32, &[u8])> {
    match *spelled_out(term) {
        [tag::SMALL_TUPLE, arity, ref elements @ ..] => Some((arity.into(), elements)),
        [tag::LARGE_TUPLE, a, b, c, d, ref elements @ ..] => Some((u32::from_be_bytes([a, b, c, d]), elements)),
        _ => None,
    }
}

/// The bytes from the first element on.
fn list(term: &[u8]) -> Option<&[u8]> {
    match *spelled_out(term) {
        [tag::LIST, _, _, _, _, ref elements @ ..] => Some(elements),
        _ => None,
    }
}

/// An atom's text as written. Latin-1 and UTF-8 are the same for the names looked for.
fn atom(term: &[u8]) -> Option<&[u8]> {
    match *spelled_out(term) {
        [tag::SMALL_ATOM | tag::SMALL_ATOM_UTF8, length, ref text @ ..] => text.get(..usize::from(length)),
        [tag::ATOM | tag::ATOM_UTF8, a, b, ref text @ ..] => text.get(..usize::from(u16::from_be_bytes([a, b]))),
        _ => None,
    }
}

/// Lists of no elements are their tail.
fn spelled_out(mut term: &[u8]) -> &[u8] {
    while let [tag::LIST, 0, 0, 0, 0, tail @ ..] = term {
        term = tail;
    }
    term
}

/// What follows a term of the tags that the scan allows.
pub(super) fn skip(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    let mut pending = 1u64;
    while pending > 0 {
        // No container that is complete announces more than there are bytes, and so nothing overflows.
        if pending > rest.len() as u64 {
            return None;
        }
        let (bytes, elements) = own_bytes(rest)?;
        rest = rest.get(bytes..)?;
        pending = pending - 1 + elements;
    }
    Some(rest)
}

/// What the first term takes without its elements, and how many follow. The bytes may be more than there are.
pub(super) fn own_bytes(term: &[u8]) -> Option<(usize, u64)> {
    let length16 = |body: &[u8]| Some(usize::from(u16::from_be_bytes(*body.first_chunk()?)));
    let length32 = |body: &[u8]| Some(u32::from_be_bytes(*body.first_chunk()?));
    let (&tag, body) = term.split_first()?;
    Some(match tag {
        tag::NIL => (1, 0),
        tag::SMALL_INTEGER => (2, 0),
        tag::INTEGER => (5, 0),
        tag::NEW_FLOAT => (9, 0),
        tag::SMALL_ATOM | tag::SMALL_ATOM_UTF8 => (2 + usize::from(*body.first()?), 0),
        tag::SMALL_BIG => (3 + usize::from(*body.first()?), 0),
        tag::ATOM | tag::ATOM_UTF8 | tag::STRING => (3 + length16(body)?, 0),
        tag::BINARY => (length32(body)? as usize + 5, 0),
        tag::LARGE_BIG | tag::BIT_BINARY => (length32(body)? as usize + 6, 0),
        tag::SMALL_TUPLE => (2, u64::from(*body.first()?)),
        tag::LARGE_TUPLE => (5, u64::from(length32(body)?)),
        tag::LIST => (5, u64::from(length32(body)?) + 1),
        tag::MAP => (5, 2 * u64::from(length32(body)?)),
        _ => (length(term)?, 0),
    })
}

#[cfg(test)]
mod tests {
    use super::super::generator::{any_element, any_term, atom, list, tuple};
    use super::*;
    use proptest::prelude::*;

    const SPELLINGS: [u8; 4] = [100, 115, 118, 119];
    const ONE: [u8; 2] = [97, 1];

    /// As seen of a peer that has no reference of ours.
    fn stranger(payload: &[u8]) -> Option<Disguise> {
        disguise(payload, &|_| false)
    }

    /// The payload in both spellings of the outer tuple, and behind lists of no elements.
    fn seen_as(elements: &[Vec<u8>], expected: Option<Disguise>) {
        for large in [false, true] {
            let bare = tuple(large, elements);
            let hollow = [&[108, 0, 0, 0, 0, 108, 0, 0, 0, 0], &bare[..]].concat();
            let inside: Vec<_> = elements.iter().map(|element| [&[108, 0, 0, 0, 0], &element[..]].concat()).collect();
            for term in [bare, hollow, tuple(large, &inside)] {
                let payload = [&[131], &term[..]].concat();
                assert_eq!(stranger(&payload), expected, "{payload:?}");
            }
        }
    }

    #[test]
    fn every_reserved_atom_is_recognised_in_every_spelling_and_arity() {
        for name in TAGS {
            for spelling in SPELLINGS {
                for arity in 1..6 {
                    let mut elements = vec![ONE.to_vec(); arity];
                    elements[0] = atom(spelling, name);
                    seen_as(&elements, Some(Disguise::Tagged(name)));
                }
            }
        }
    }

    #[test]
    fn all_that_begins_with_gen_belongs_to_a_behaviour() {
        for name in ["$gen_event", "$gen_all_state_event", "$gen_producer", "$gen_restart", "$gen_"] {
            seen_as(&[atom(119, name), ONE.to_vec()], Some(Disguise::Tagged("$gen_")));
        }
    }

    #[test]
    fn similar_atoms_are_messages() {
        for name in ["", "$gen", "gen_call", "System", "exit", "down", "systems", "notify", "timeout", "alias"] {
            for spelling in SPELLINGS {
                seen_as(&[atom(spelling, name), ONE.to_vec()], None);
            }
        }
    }

    #[test]
    fn the_reserved_atoms_elsewhere_are_messages() {
        seen_as(&[ONE.to_vec(), atom(119, "system")], None);
        seen_as(&[tuple(false, &[atom(119, "EXIT")]), ONE.to_vec()], None);
        for spelling in SPELLINGS {
            let payload = [&[131], &atom(spelling, "system")[..]].concat();
            assert_eq!(stranger(&payload), None);
            let payload = [&[131], &list(&[atom(spelling, "system"), ONE.to_vec()], &[106])[..]].concat();
            assert_eq!(stranger(&payload), None);
        }
        assert_eq!(stranger(&[131, 104, 0]), None);
        assert_eq!(stranger(&[131, 105, 0, 0, 0, 0]), None);
    }

    #[test]
    fn a_pair_with_a_reference_is_a_reply() {
        for tag in [90, 101, 114] {
            seen_as(&[vec![tag, 0, 3], ONE.to_vec()], Some(Disguise::Reply));
            // Anything but a pair is not, though the scan refuses all of them.
            seen_as(&[vec![tag, 0, 3]], None);
        }
    }

    #[test]
    fn a_pair_with_an_alias_is_a_reply_however_deep_the_alias_is() {
        for spelling in SPELLINGS {
            let alias = atom(spelling, "alias");
            for tail in [&ONE[..], &[106]] {
                // [alias | ref], and [[alias | ref] | mon] of OTP 26
                let mut call_tag = list(std::slice::from_ref(&alias), tail);
                for _ in 0..5 {
                    seen_as(&[call_tag.clone(), ONE.to_vec()], Some(Disguise::Reply));
                    seen_as(&[call_tag.clone(), ONE.to_vec(), ONE.to_vec()], None);
                    call_tag = list(&[call_tag, ONE.to_vec()], tail);
                }
            }
            seen_as(&[alias.clone(), ONE.to_vec()], None);
            seen_as(&[list(&[ONE.to_vec(), alias], &[106]), ONE.to_vec()], None);
        }
    }

    #[test]
    fn an_answer_passes_where_every_reference_in_its_tag_was_given_and_comes_home() {
        let reference = |number, owner| {
            let mut raw = Vec::new();
            Wire::Reference { number, owner }.put(&mut raw);
            raw
        };
        let verdict = |tag: &[u8]| {
            let payload = [&[131][..], &tuple(false, &[tag.to_vec(), ONE.to_vec()])].concat();
            let ours = disguise(&payload, &|number| number < 10);
            assert_eq!(stranger(&payload), Some(Disguise::Reply), "{tag:?}");
            ours.is_none()
        };
        let (given, other) = (reference(7, Owner::Receiver), reference(8, Owner::Receiver));
        let strange =
            [reference(10, Owner::Receiver), reference(7, Owner::Sender), vec![114, 0, 1, 119, 0, 1, 0, 0, 0, 7]];
        let alias = |tail: &[u8]| list(&[atom(119, "alias")], tail);
        assert!(verdict(&given));
        assert!(verdict(&alias(&given)));
        assert!(verdict(&list(&[alias(&given)], &other)));
        for strange in &strange {
            assert!(!verdict(strange));
            assert!(!verdict(&alias(strange)));
            assert!(!verdict(&list(&[alias(strange)], &other)));
            assert!(!verdict(&list(&[alias(&given)], strange)));
        }
        assert!(!verdict(&alias(&[106])));
        assert!(!verdict(&list(&[alias(&given)], &[106])));
        assert!(!verdict(&list(&[atom(119, "alias"), given.clone()], &other)));
        assert!(!verdict(&list(&[list(&[alias(&given)], &other)], &other)));
        assert!(!verdict(&[&[108, 0, 0, 0, 0], &given[..]].concat()));
    }

    #[test]
    fn requests_to_an_event_manager_are_recognised_whoever_they_name() {
        let request = |name: &str, arity: usize| {
            let mut elements = vec![ONE.to_vec(); arity];
            elements[0] = atom(119, name);
            tuple(false, &elements)
        };
        let froms = [ONE.to_vec(), tuple(false, &[atom(119, "nowhere"), list(&[ONE.to_vec()], &[106])])];
        for from in froms {
            let third = |term| [from.clone(), from.clone(), term];
            for (name, arity) in [
                ("sync_notify", 2),
                ("call", 3),
                ("add_handler", 3),
                ("delete_handler", 3),
                ("add_sup_handler", 4),
                ("swap_handler", 5),
                ("swap_sup_handler", 6),
            ] {
                seen_as(&third(request(name, arity)), Some(Disguise::EventRequest));
                seen_as(&third(request(name, arity + 1)), None);
                seen_as(&[from.clone(), request(name, arity)], None);
            }
            for name in ["stop", "which_handlers", "get_modules"] {
                seen_as(&third(atom(100, name)), Some(Disguise::EventRequest));
            }
            seen_as(&third(atom(119, "start")), None);
        }
    }

    #[test]
    fn what_is_no_term_is_nothing() {
        for bytes in [&[][..], &[131], &[130, 104, 1, 119, 6], &[131, 104, 1, 119, 6, b's'], &[131, 104, 3, 116, 255]] {
            assert_eq!(stranger(bytes), None);
        }
        let lists = [&[131, 104, 2][..], &[108, 255, 255, 255, 255].repeat(100_000)].concat();
        assert_eq!(stranger(&lists), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(prop_oneof![100..120u8, 0..4u8, any::<u8>()], 0..200)) {
            let _ = stranger(&[&[131], &bytes[..]].concat());
        }

        #[test]
        fn a_term_is_skipped_exactly(term in any_element(), behind in prop::collection::vec(any::<u8>(), 0..9)) {
            let bytes = [&term[..], &behind].concat();
            prop_assert_eq!(skip(&bytes), Some(&behind[..]));
        }

        #[test]
        fn what_else_is_in_it_does_not_matter(first in any_element(), second in any_element(), tag in 0..10usize) {
            let head = atom(119, TAGS[tag]);
            seen_as(&[head, first.clone(), second.clone()], Some(Disguise::Tagged(TAGS[tag])));
            seen_as(&[first, second, atom(119, "stop")], Some(Disguise::EventRequest));
        }

        #[test]
        fn a_valid_term_is_looked_at_without_panic(term in any_term()) {
            let _ = stranger(&term);
        }
    }
}
