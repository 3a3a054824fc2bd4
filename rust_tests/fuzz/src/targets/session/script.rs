//! What a script says, read from bytes.

use arbitrary::{Arbitrary, Unstructured};

use super::steps::Valid;
use crate::targets::{Few, Many};

/// More than enough to say anything, and an execution ends in milliseconds.
pub(crate) const OPERATIONS_MAX: usize = 48;

#[derive(Arbitrary, Debug)]
pub(crate) struct Script {
    pub bounds: u8,
    /// Which of the openings goes before: [`Valid::opening`].
    pub opening: u8,
    pub steps: Many<Step, OPERATIONS_MAX>,
}

#[derive(Debug)]
pub(crate) enum Step {
    /// As a peer that keeps the rules would do next, whatever was before.
    Valid(Valid),
    /// Whatever it comes to.
    Any(Operation),
}

/// Three of four keep the rules: where one is broken the link is over, and what follows says nothing.
const VALID: u8 = 192;

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Step> {
        match u8::arbitrary(bytes)? {
            tag @ ..VALID => Ok(Step::Valid(Valid::of(tag, bytes.arbitrary()?, bytes.arbitrary()?))),
            _ => Ok(Step::Any(bytes.arbitrary()?)),
        }
    }
}

/// How many operations there are to choose from.
pub(crate) const OPERATIONS: u32 = 28;

#[derive(Arbitrary, Debug)]
pub(crate) enum Operation {
    /// As it is.
    Frame {
        kind: u8,
        flags: u8,
        lie: i8,
        body: Vec<u8>,
    },
    /// Behind a proper header, the body signed by the identity.
    Signed {
        kind: u8,
        body: Vec<u8>,
    },
    Learn {
        engine: u8,
        key: u8,
        serial: i8,
        valid: (i32, i32),
        operations: u16,
        delegate: bool,
        realm: bool,
    },
    Forget {
        engine: u8,
        serial: i8,
        reason: u8,
    },
    Cert {
        key: bool,
        serial: i8,
        valid: (i32, i32),
    },
    Rotate {
        new: u8,
        serial: u8,
        signed: bool,
    },
    Revoke {
        serial: u8,
        signed: bool,
    },
    Batch(Batch),
    Staged {
        transfer: u8,
        ahead: i8,
        pieces: u8,
        batch: Batch,
    },
    Fragment {
        transfer: u8,
        total: u16,
        bytes: Vec<u8>,
    },
    Checkpoint {
        first: i8,
        last: i8,
        chain: bool,
        signed: bool,
    },
    Resume {
        session: bool,
        received: i16,
        next: i16,
    },
    Credit(Vec<(u8, u32)>),
    Ack(i16),
    Release(Vec<(u8, u8, u8)>),
    Ping(u64),
    Close(u8),
    /// Another link of the same realm, for the same session or one that is not there.
    Another {
        additional: bool,
        session: bool,
    },
    /// What follows goes over this one.
    Over(u8),
    /// It breaks.
    Lose,
    Time(u16),
    /// What our own side does meanwhile.
    Export(u8),
    Withdraw(u8),
    Say {
        what: u8,
        engine: u8,
    },
    Call {
        engine: u8,
    },
    Answer {
        which: u8,
        refuse: bool,
    },
    Ended {
        number: u8,
        reason: u8,
    },
    Abandon(u8),
}

#[derive(Arbitrary, Debug)]
pub(crate) struct Batch {
    pub mode: u8,
    pub engine: u8,
    pub signer: u8,
    pub sequence: i8,
    pub count: Option<u16>,
    /// Bits: another session, source, destination.
    pub wrong: u8,
    pub messages: Few<Message, 6>,
}

#[derive(Arbitrary, Debug)]
pub(crate) struct Message {
    pub kind: u8,
    pub flags: u8,
    pub call_id: u8,
    pub caller: u8,
    pub detail: u8,
    pub source: u8,
    pub destination: u8,
    pub payload: Payload,
    pub length: Option<u32>,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Payload {
    /// By which it is known what was sent.
    Number,
    Element(u8),
    Bytes(Vec<u8>),
    Pid {
        number: u8,
        home: bool,
    },
    Reference {
        number: u8,
        home: bool,
    },
    Engine(u8),
    /// In a tuple, behind an atom of which some mean something.
    Tagged(u8, u8),
}
