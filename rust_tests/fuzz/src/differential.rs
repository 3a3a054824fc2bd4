//! Our scan against a BEAM: the same bytes to [`scan_local`] and to `binary_to_term(Bytes, [safe])`. Both take them or both refuse them, but for
//! what is listed in [`Difference`], each of which says when it is meant.
//!
//! ```text
//!  generator (terms, changed) ─┬─► scan_local ──────────────────┐
//!                              └─► erl, {packet, 4}, in hundreds ┴─► the same, a Difference, or a finding
//! ```

mod beam;
mod generator;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use legation_proto::etf::{identifiers, rewrite, scan_local, TermError, TermErrorKind, TermLimits};

pub use beam::Beam;
pub use generator::generate;

/// What a BEAM says to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// `binary_to_term(Bytes, [safe])`.
    pub safe: bool,
    /// Without `safe`.
    pub plain: bool,
    /// With `safe`, after it was read without: all of its atoms are there now.
    pub safe_again: bool,
    /// How many bytes it has read; 0 if it refuses.
    pub used: usize,
}

/// Where we mean to differ. All but the last two we refuse and a BEAM takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// A port or a fun: they mean nothing to a peer. (Pids and references are numbered, `protocol.md` 13.4.)
    PortOrFun,
    /// A pid or reference in a form that no BEAM of today writes: tag 101, or a reference of more words than there are.
    OddIdentifier,
    /// Tags that are no part of it: compressed (80), the textual float (99), local to a VM (121), records (67).
    Tag,
    /// An atom by its number in the VM's own table (73, 75), which stands in ETS tables: to a BEAM that is given one, `safe` or not, it is whichever
    /// atom that number has.
    AtomIndex,
    /// Nested deeper than 256.
    TooDeep,
    /// A big integer of more bytes than allowed.
    BigTooLarge,
    /// A list of no elements that is not NIL: its tail, to OTP.
    EmptyList,
    /// Bytes behind the term, which `binary_to_term` leaves alone.
    Trailing,
    /// 0.0 and -0.0 as keys of one map: one key until OTP 26, two since.
    Zeros,
    /// What we take: an atom that this BEAM doesn't have. Whoever decodes the payload gives it to `binary_to_term` with `safe`, or knows its atoms.
    UnknownAtom,
    /// What we take: a pid or reference that no BEAM would make, for a node whose name is no atom, or a number that is too large. It is of our own
    /// system, and replaced before another sees it; on the wire there is one form (`scan_wire`). Known by the BEAM taking the rest.
    ForeignIdentifier,
}

impl Difference {
    /// The one that explains it, if any does.
    pub fn explaining(bytes: &[u8], ours: Result<bool, TermError>, theirs: &Opinion) -> Option<Difference> {
        match ours {
            Err(error) => Difference::refused(bytes, error, theirs),
            Ok(_) if !theirs.safe && theirs.plain && theirs.safe_again && theirs.used == bytes.len() => {
                Some(Difference::UnknownAtom)
            }
            Ok(_) => None,
        }
    }

    fn refused(bytes: &[u8], error: TermError, theirs: &Opinion) -> Option<Difference> {
        let tag = bytes.get(error.offset).copied();
        match error.kind {
            TermErrorKind::Identifiers(_) => match tag {
                Some(88 | 103 | 90 | 101 | 114) => Some(Difference::OddIdentifier),
                _ => Some(Difference::PortOrFun),
            },
            TermErrorKind::Tag(67 | 80 | 99 | 121) => Some(Difference::Tag),
            TermErrorKind::Tag(73 | 75) => Some(Difference::AtomIndex),
            TermErrorKind::TooDeep => Some(Difference::TooDeep),
            TermErrorKind::BigTooLarge => Some(Difference::BigTooLarge),
            TermErrorKind::Count if bytes[error.offset..].starts_with(&[108, 0, 0, 0, 0]) => {
                Some(Difference::EmptyList)
            }
            TermErrorKind::Trailing if theirs.used == error.offset => Some(Difference::Trailing),
            TermErrorKind::DuplicateKey if one_zero_less(bytes) => Some(Difference::Zeros),
            _ => None,
        }
    }
}

/// With another float in the place of each -0.0 no key is there twice.
fn one_zero_less(bytes: &[u8]) -> bool {
    let mut changed = bytes.to_vec();
    let negative = [70, 0x80, 0, 0, 0, 0, 0, 0, 0];
    for at in 0..changed.len().saturating_sub(8) {
        if changed[at..].starts_with(&negative) {
            changed[at + 1..at + 9].copy_from_slice(&(1.0e300 + at as f64 * 1.0e290).to_be_bytes());
        }
    }
    changed != bytes && !matches!(scan(&changed), Err(TermError { kind: TermErrorKind::DuplicateKey, .. }))
}

/// With a number in the place of each pid and reference, all of them different.
fn without_identifiers(bytes: &[u8]) -> Vec<u8> {
    let rewritten = rewrite(bytes, identifiers(bytes), |place, out| {
        out.extend([110, 8, 0]);
        out.extend((u64::MAX - place.at as u64).to_le_bytes());
        Ok::<(), ()>(())
    });
    rewritten.unwrap_or_default()
}

fn scan(bytes: &[u8]) -> Result<bool, TermError> {
    scan_local(bytes, &TermLimits::default())
}

/// [`Difference::ForeignIdentifier`], which takes another question.
fn foreign(
    beam: &mut Beam,
    bytes: &[u8],
    ours: Result<bool, TermError>,
    theirs: &Opinion,
) -> io::Result<Option<Difference>> {
    if ours != Ok(true) || theirs.plain {
        return Ok(None);
    }
    let rest = without_identifiers(bytes);
    let opinions = beam.ask(std::slice::from_ref(&rest))?;
    let taken = opinions.iter().all(|opinion| opinion.plain && opinion.used == rest.len());
    Ok(taken.then_some(Difference::ForeignIdentifier))
}

/// What a run has come to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub inputs: u64,
    pub both_take: u64,
    pub both_refuse: u64,
    pub differences: BTreeMap<Difference, u64>,
    /// What no difference explains.
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug)]
pub struct Finding {
    pub bytes: Vec<u8>,
    pub ours: Result<bool, TermError>,
    pub theirs: Opinion,
}

impl Report {
    /// Asks about these.
    ///
    /// # Errors
    /// When the BEAM doesn't answer.
    pub fn ask(&mut self, beam: &mut Beam, inputs: &[Vec<u8>]) -> io::Result<()> {
        for (bytes, theirs) in inputs.iter().zip(beam.ask(inputs)?) {
            self.inputs += 1;
            let ours = scan(bytes);
            let taken = theirs.safe && theirs.used == bytes.len();
            match (ours, taken) {
                (Ok(_), true) => self.both_take += 1,
                (Err(_), false) if !theirs.safe => self.both_refuse += 1,
                _ => match Difference::explaining(bytes, ours, &theirs).or(foreign(beam, bytes, ours, &theirs)?) {
                    Some(difference) => *self.differences.entry(difference).or_default() += 1,
                    None => self.findings.push(Finding { bytes: bytes.clone(), ours, theirs }),
                },
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { inputs, both_take, both_refuse, differences, findings } = self;
        write!(formatter, "{inputs} terms: both take {both_take}, both refuse {both_refuse}; meant:")?;
        for (difference, count) in differences {
            write!(formatter, " {difference:?} {count}")?;
        }
        write!(formatter, "; findings: {}", findings.len())
    }
}
