//! Which atoms a BEAM node has, as far as we know: a message from a peer must not make one there.
//!
//! An atom is known when the node has sent it to us, when it was configured, or when the node was asked and said so. Atoms
//! are never given back on the BEAM, so what is known stays known until the node restarts.
//!
//! ```text
//!  message from a peer ──► all atoms known? ──► to the engine
//!                              │ no
//!                              ▼
//!                      held; binary_to_term(Atoms, [safe]) by the node's `rex`
//!                              │ yes: known from now on           │ no: refused, `undecodable`
//! ```

use std::collections::{HashMap, HashSet};

use legation_proto::UnixMs;

use crate::dist::term;

/// What a refused atom is remembered for, in ms: a module that brings it may be loaded any time.
const UNKNOWN_FOR_MS: u64 = 1_000;

/// Refused atoms that are remembered.
const UNKNOWN_MAX: usize = 4_096;

/// More unknown atoms than this in one message are not asked for.
pub const ASKED_MAX: usize = 1_024;

/// These are in every emulator from its start (`erts/emulator/beam/atom.names`), and our own: what we use in every call, and what a
/// call can be refused with.
const EVERYWHERE: [&str; 45] = [
    "$legation",
    "legation",
    "forbidden",
    "filtered",
    "undecodable",
    "overload",
    "too_large",
    "identifiers",
    "abandoned",
    "draining",
    "expired",
    "bad_term",
    "ended",
    "unknown_call",
    "true",
    "false",
    "undefined",
    "ok",
    "error",
    "nil",
    "normal",
    "killed",
    "kill",
    "noproc",
    "noconnection",
    "badarg",
    "infinity",
    "timeout",
    "shutdown",
    "system",
    "EXIT",
    "DOWN",
    "process",
    "$gen_call",
    "$gen_cast",
    "reply",
    "noreply",
    "stop",
    "value",
    "exit",
    "throw",
    "badmatch",
    "function_clause",
    "undef",
    "system_limit",
];

/// The atoms of one node in one incarnation.
#[derive(Debug)]
pub struct KnownAtoms {
    max: usize,
    known: HashSet<Box<str>>,
    /// Text, and until when.
    unknown: HashMap<Box<str>, UnixMs>,
    /// Atoms that were not remembered because there were too many.
    pub over_limit: u64,
}

/// What a message asks of a node's atoms.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Known,
    /// The node has to be asked for these, as text.
    Ask(Vec<Box<str>>),
    /// The node has said a moment ago that it doesn't know one of them, or there are too many.
    Unknown,
}

impl KnownAtoms {
    pub fn new(max: usize, configured: impl Iterator<Item = Box<str>>) -> KnownAtoms {
        let everywhere = EVERYWHERE.iter().map(|text| Box::from(*text));
        KnownAtoms { max, known: everywhere.chain(configured).collect(), unknown: HashMap::new(), over_limit: 0 }
    }

    /// The node has sent this message (version byte first), so it has its atoms.
    pub fn learn(&mut self, message: &[u8]) {
        let Some(content) = message.get(1..) else {
            return;
        };
        term::for_each_atom(content, &mut |atom| match atom.to_text() {
            Some(text) if !self.known.contains(&*text) => self.add(text.into()),
            _ => {}
        });
    }

    /// The node was asked, and has these.
    pub fn add(&mut self, text: Box<str>) {
        if self.known.len() >= self.max {
            self.over_limit += 1;
            return;
        }
        self.unknown.remove(&text);
        self.known.insert(text);
    }

    /// The node was asked, and lacks one of these.
    pub fn refuse(&mut self, texts: Vec<Box<str>>, now: UnixMs) {
        // Which of several is missing isn't known.
        let [text] = &texts[..] else {
            return;
        };
        if self.unknown.len() >= UNKNOWN_MAX {
            self.unknown.retain(|_, until| *until > now);
        }
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.insert(text.clone(), now + UNKNOWN_FOR_MS);
        }
    }

    pub fn judge(&self, message: &[u8], now: UnixMs) -> Verdict {
        let Some(content) = message.get(1..) else {
            return Verdict::Known;
        };
        let mut missing: HashSet<Box<str>> = HashSet::new();
        let mut refused = false;
        let walked = term::for_each_atom(content, &mut |atom| {
            let Some(text) = atom.to_text() else {
                refused = true;
                return;
            };
            if !refused && !self.known.contains(&*text) && !missing.contains(&*text) {
                refused = self.unknown.get(&*text).is_some_and(|until| *until > now) || missing.len() >= ASKED_MAX;
                missing.insert(text.into());
            }
        });
        refused |= walked.is_none();
        match (refused, missing.is_empty()) {
            (true, _) => Verdict::Unknown,
            (false, true) => Verdict::Known,
            (false, false) => Verdict::Ask(missing.into_iter().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use legation_proto::frame::batch::Refusal;

    use super::*;

    fn message(atoms: &[&str]) -> Vec<u8> {
        let mut bytes = vec![131, 104, atoms.len() as u8];
        for atom in atoms {
            term::put_atom(&mut bytes, atom);
        }
        bytes
    }

    fn texts(atoms: &[&str]) -> Vec<Box<str>> {
        atoms.iter().map(|atom| Box::from(*atom)).collect()
    }

    #[test]
    fn what_the_node_has_sent_is_known_there() {
        let mut atoms = KnownAtoms::new(100, std::iter::empty());
        assert_eq!(atoms.judge(&message(&["ok", "true"]), 0), Verdict::Known);
        assert_eq!(atoms.judge(&message(&["ok", "ping", "ping"]), 0), Verdict::Ask(texts(&["ping"])));
        atoms.learn(&message(&["ping"]));
        assert_eq!(atoms.judge(&message(&["ok", "ping"]), 0), Verdict::Known);
    }

    #[test]
    fn what_a_call_can_be_refused_with_is_known_everywhere() {
        let atoms = KnownAtoms::new(100, std::iter::empty());
        for refusal in Refusal::ALL {
            assert_eq!(atoms.judge(&message(&["error", "legation", refusal.name()]), 0), Verdict::Known, "{refusal:?}");
        }
    }

    #[test]
    fn a_refused_atom_is_not_asked_for_again_for_a_second() {
        let mut atoms = KnownAtoms::new(100, std::iter::empty());
        atoms.refuse(texts(&["evil"]), 1_000);
        assert_eq!(atoms.judge(&message(&["evil"]), 1_999), Verdict::Unknown);
        assert_eq!(atoms.judge(&message(&["evil"]), 2_000), Verdict::Ask(texts(&["evil"])));
        atoms.add("evil".into());
        assert_eq!(atoms.judge(&message(&["evil"]), 1_000), Verdict::Known);
    }

    #[test]
    fn no_more_atoms_are_remembered_than_configured() {
        let mut atoms = KnownAtoms::new(EVERYWHERE.len() + 1, std::iter::empty());
        atoms.learn(&message(&["one"]));
        atoms.learn(&message(&["two"]));
        assert_eq!(atoms.judge(&message(&["one"]), 0), Verdict::Known);
        assert_eq!(atoms.judge(&message(&["two"]), 0), Verdict::Ask(texts(&["two"])));
        assert_eq!(atoms.over_limit, 1);
    }

    #[test]
    fn refused_atoms_take_bounded_memory() {
        let mut atoms = KnownAtoms::new(100, std::iter::empty());
        for number in 0..2 * UNKNOWN_MAX {
            atoms.refuse(texts(&[&format!("a{number}")]), 0);
        }
        assert_eq!(atoms.unknown.len(), UNKNOWN_MAX);
        atoms.refuse(texts(&["late"]), UNKNOWN_FOR_MS);
        assert_eq!(atoms.unknown.len(), 1, "the old ones have made room");
    }

    #[test]
    fn a_message_of_very_many_unknown_atoms_is_not_asked_about() {
        let atoms = KnownAtoms::new(100, std::iter::empty());
        let names: Vec<_> = (0..=ASKED_MAX).map(|number| format!("a{number}")).collect();
        let mut bytes = vec![131, 105];
        bytes.extend((names.len() as u32).to_be_bytes());
        names.iter().for_each(|name| term::put_atom(&mut bytes, name));
        assert_eq!(atoms.judge(&bytes, 0), Verdict::Unknown);
    }
}
