//! What a message to one of our processes is, found without decoding it.
//!
//! ```text
//!  131, {'$gen_call', {Pid, Tag}, Request}       a call, label 1
//!  131, {system, {Pid, Tag}, Request}            a call, label 2
//!  131, {Pid, {Pid, Tag}, Request}               a call to an event manager, label 4
//!  131, {'$legation_cast', {Pid, Tag}, Message}  a cast that is asked after, label 5
//!  131, {'$legation_send', {Pid, Tag}, Message}  a plain message that is asked after, label 6
//!  131, {'$gen_cast', Message}                   a cast
//!  131, {{'$legation', CallId, _, _}, Reply}     what answers the remote caller that a stand-in stands for
//!  131, {Ref, Reply}                             an answer to a question of our own
//!  131, anything else                            a plain message
//! ```

use std::ops::Range;

use legation_proto::frame::batch::label;

use crate::dist::term;

/// Ranges are of the whole message, its version byte being at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Call { label: u8, pid: Range<usize>, tag: Range<usize>, request: Range<usize> },
    Cast { message: Range<usize> },
    Plain,
}

/// What kind of request a message is. `message`: version byte first, and one term behind it.
pub fn classify(message: &[u8]) -> Request {
    let Some(tuple) = message.get(1..) else {
        return Request::Plain;
    };
    match term::tuple(tuple) {
        Some((2, first)) => {
            let is_cast = term::take_atom(first).is_some_and(|(atom, _)| atom.eq_str("$gen_cast"));
            match term::elements::<2>(tuple) {
                Some([_, content]) if is_cast => Request::Cast { message: range(message, content) },
                _ => Request::Plain,
            }
        }
        Some((3, first)) => call(message, tuple, first).unwrap_or(Request::Plain),
        _ => Request::Plain,
    }
}

fn call(message: &[u8], tuple: &[u8], first: &[u8]) -> Option<Request> {
    let (label, caller) = match term::take_atom(first) {
        Some((atom, _)) if atom.eq_str("$gen_call") => (label::GEN_CALL, None),
        Some((atom, _)) if atom.eq_str("system") => (label::SYSTEM, None),
        Some((atom, _)) if atom.eq_str("$legation_cast") => (label::CAST, None),
        Some((atom, _)) if atom.eq_str("$legation_send") => (label::SEND, None),
        Some(_) => return None,
        None => (label::CALLER, Some(term::take_pid(first)?.0)),
    };
    let [_, from, request] = term::elements::<3>(tuple)?;
    let [pid, tag] = term::elements::<2>(from)?;
    let named = term::pid(pid)?;
    // An event manager's caller names itself twice.
    if caller.is_some_and(|caller| caller != named) {
        return None;
    }
    Some(Request::Call { label, pid: range(message, pid), tag: range(message, tag), request: range(message, request) })
}

/// The call id and the reply in `{{'$legation', CallId, Realm, Engine}, Reply}`.
pub fn stand_in_reply(message: &[u8]) -> Option<(u64, Range<usize>)> {
    let [tag, reply] = term::elements::<2>(message.get(1..)?)?;
    let [name, call_id, _realm, _engine] = term::elements::<4>(tag)?;
    if !term::atom(name)?.eq_str("$legation") {
        return None;
    }
    Some((term::unsigned(call_id)?, range(message, reply)))
}

/// The number of our question, from the reference that we made of it, and the answer.
pub fn own_answer(message: &[u8]) -> Option<(u64, Range<usize>)> {
    let [reference, answer] = term::elements::<2>(message.get(1..)?)?;
    let reference = term::reference(reference)?;
    Some((question_of(&reference.words), range(message, answer)))
}

/// Our references: the number in the first two words, low half first.
pub fn words_of(question: u64) -> [u32; 3] {
    [question as u32, (question >> 32) as u32, 0]
}

pub fn question_of(words: &[u32; 5]) -> u64 {
    u64::from(words[1]) << 32 | u64::from(words[0])
}

/// Where an answer to `{Pid, Tag}` goes: to the alias in the tag, if it has one, or else to the pid. An answer to an alias reaches nobody once
/// nobody waits.
///
/// `[alias | Ref]` since OTP 24; `[[alias | Ref] | Monitor]` for `multi_call` since OTP 26.
pub fn alias_of(tag: &[u8]) -> Option<&[u8]> {
    let (head, tail) = cons(tag)?;
    match term::atom(head) {
        Some(atom) if atom.eq_str("alias") => term::reference(tail).map(|reference| reference.raw),
        Some(_) => None,
        None => alias_of_inner(head),
    }
}

fn alias_of_inner(tag: &[u8]) -> Option<&[u8]> {
    let (head, tail) = cons(tag)?;
    term::atom(head).filter(|atom| atom.eq_str("alias"))?;
    term::reference(tail).map(|reference| reference.raw)
}

/// The references that a caller's monitor of the called process may have, if this is its tag: the same one for all
/// forms of call, the second for `multi_call`.
pub fn monitor_words(tag: &[u8]) -> Option<[u32; 5]> {
    if let Some(reference) = term::reference(tag) {
        return Some(reference.words);
    }
    let (_, tail) = cons(tag)?;
    term::reference(tail).map(|reference| reference.words)
}

/// Head and tail of a list of one element, proper or not.
fn cons(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let [term::tag::LIST, 0, 0, 0, 1, elements @ ..] = list else {
        return None;
    };
    term::take(elements)
}

fn range(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::term::OwnNode;

    fn node() -> OwnNode {
        OwnNode::new("beam@127.0.0.1", 77)
    }

    fn pid(id: u32) -> Vec<u8> {
        let mut pid = Vec::new();
        node().pid(&mut pid, id, 0);
        pid
    }

    fn reference(word: u32) -> Vec<u8> {
        let mut reference = Vec::new();
        node().reference(&mut reference, [word, 2, 3]);
        reference
    }

    fn atom(name: &str) -> Vec<u8> {
        let mut atom = Vec::new();
        term::put_atom(&mut atom, name);
        atom
    }

    fn tuple(elements: &[&[u8]]) -> Vec<u8> {
        [&[104, elements.len() as u8], &elements.concat()[..]].concat()
    }

    fn message(term: &[u8]) -> Vec<u8> {
        [&[131], term].concat()
    }

    fn cons_of(head: &[u8], tail: &[u8]) -> Vec<u8> {
        [&[108, 0, 0, 0, 1], head, tail].concat()
    }

    #[test]
    fn calls_are_recognised_with_their_parts() {
        let from = tuple(&[&pid(5), &cons_of(&atom("alias"), &reference(9))]);
        for (head, expected) in [(atom("$gen_call"), 1), (atom("system"), 2), (pid(5), 4)] {
            let message = message(&tuple(&[&head, &from, b"a\x07"]));
            match classify(&message) {
                Request::Call { label, pid: caller, tag, request } => {
                    assert_eq!(label, expected);
                    assert_eq!(message[caller], pid(5));
                    assert_eq!(message[tag.clone()], cons_of(&atom("alias"), &reference(9)));
                    assert_eq!(message[request], b"a\x07"[..]);
                    assert_eq!(alias_of(&message[tag.clone()]), Some(&reference(9)[..]));
                    assert_eq!(monitor_words(&message[tag]), Some([9, 2, 3, 0, 0]));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn casts_and_plain_messages_are_told_apart() {
        let cast = message(&tuple(&[&atom("$gen_cast"), b"a\x07"]));
        assert!(matches!(classify(&cast), Request::Cast { message } if cast[message.clone()] == b"a\x07"[..]));
        let from = tuple(&[&pid(5), &reference(1)]);
        for plain in [
            b"a\x07".to_vec(),
            atom("hello"),
            tuple(&[]),
            tuple(&[&atom("$gen_cast")]),
            tuple(&[&atom("$gen_call"), &from]),
            tuple(&[&atom("other"), &from, b"a\x07"]),
            tuple(&[&pid(6), &from, b"a\x07"]),
            tuple(&[&atom("$gen_call"), b"a\x07", b"a\x07"]),
            tuple(&[&atom("$gen_call"), &tuple(&[&atom("nobody"), &reference(1)]), b"a\x07"]),
        ] {
            assert_eq!(classify(&message(&plain)), Request::Plain, "{plain:?}");
        }
        assert_eq!(classify(&[]), Request::Plain);
    }

    #[test]
    fn an_answer_goes_to_the_alias_of_every_form_of_tag() {
        let alias = cons_of(&atom("alias"), &reference(9));
        assert_eq!(alias_of(&alias), Some(&reference(9)[..]));
        // multi_call since OTP 26.
        let multi = cons_of(&alias, &reference(4));
        assert_eq!(alias_of(&multi), Some(&reference(9)[..]));
        assert_eq!(monitor_words(&multi), Some([4, 2, 3, 0, 0]));
        assert_eq!(alias_of(&reference(9)), None);
        assert_eq!(monitor_words(&reference(9)), Some([9, 2, 3, 0, 0]));
        assert_eq!(alias_of(&tuple(&[&reference(9), &atom("n@h")])), None, "multi_call of OTP 25");
        assert_eq!(alias_of(&cons_of(&atom("other"), &reference(9))), None);
    }

    #[test]
    fn what_answers_a_remote_caller_names_its_call() {
        let tag = tuple(&[&atom("$legation"), b"a\x2a", b"m\0\0\0\x03bob", b"m\0\0\0\0"]);
        let reply = message(&tuple(&[&tag, b"a\x07"]));
        let (call_id, range) = stand_in_reply(&reply).unwrap();
        assert_eq!((call_id, &reply[range]), (42, &b"a\x07"[..]));
        assert_eq!(stand_in_reply(&message(&tuple(&[&atom("x"), b"a\x07"]))), None);
    }

    #[test]
    fn an_answer_to_a_question_of_ours_names_it() {
        let mut reference = Vec::new();
        node().reference(&mut reference, words_of(1 << 40 | 5));
        let answer = message(&tuple(&[&reference, &atom("yes")]));
        let (question, range) = own_answer(&answer).unwrap();
        assert_eq!((question, &answer[range]), (1 << 40 | 5, &atom("yes")[..]));
    }
}
