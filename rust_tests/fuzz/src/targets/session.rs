//! A session under frames that are anything, from a listed peer: framed, numbered and signed by its keys, so that they get past what looks
//! at that first. Links come and go, and RESUMEs (`resume` begins with them). Most steps keep the rules ([`Valid`]), so that what breaks them
//! meets a session under way.
//!
//! What must hold, whatever comes:
//! * nothing panics; a link that ends says why, and one of the reasons that there are for it;
//! * what is delivered was in a batch that was signed by the key of its source, for this session, from this realm to that; to whom it was sent;
//!   in order and once, also over several links. Messages carry a number by which that is known.
//! * a call of ours ends at most once, with the answer to it;
//! * what our side sends has its numbers without a gap, over all links;
//! * what is kept stays within its settings.

mod batches;
mod ours;
mod peer;
mod reached;
mod script;
mod steps;
mod world;

use legation_proto::frame::batch::Address;

use self::world::World;
use super::{script, scripts, variant};
use crate::Target;

pub use self::reached::Reached;
use self::script::OPERATIONS;
pub(super) use self::script::{Operation, Script, Step};
pub(super) use self::steps::Valid;

pub const TARGET: Target = Target {
    name: "session",
    what: "a session under arbitrary frames, framed and signed",
    run,
    seeds,
    bytes_max: 2_048,
};

fn run(input: &[u8]) {
    reached(input);
}

/// How far the script comes that an input is.
pub fn reached(input: &[u8]) -> Option<Reached> {
    Some(play(&script::<Script>(input)?))
}

pub(super) fn play(script: &Script) -> Reached {
    let (bounds, opening) = Valid::opening(script.opening);
    let mut world = World::new(script.bounds | bounds);
    let opening = opening.into_iter().map(Step::Valid);
    for step in opening.collect::<Vec<_>>().iter().chain(&script.steps.0) {
        match step {
            Step::Valid(valid) => world.step(*valid),
            Step::Any(operation) => world.apply(operation),
        }
        world.check();
    }
    world.end()
}

fn engine(number: u8) -> &'static str {
    ["e1", "e2", "new", "b", "", "e1\u{0}", "@1", "eee"][usize::from(number % 8)]
}

/// One that may be announced, or has been.
fn mostly_known(number: u8) -> &'static str {
    if number < 240 {
        engine(number % 3)
    } else {
        engine(number)
    }
}

fn destination(number: u8) -> String {
    match number % 12 {
        5 | 7 if number < 240 => "b".to_owned(),
        0..=3 => "b".to_owned(),
        4 => "c".to_owned(),
        5 => String::new(),
        6 => "nobody".to_owned(),
        7 => "\u{7}".to_owned(),
        number => Address::of_handle(u64::from(number) - 7),
    }
}

/// Nothing, most of the time.
fn rarely(change: i8) -> i64 {
    if change % 16 == 7 {
        i64::from(change) / 16
    } else {
        0
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = scripts("legation fuzz session", 48, 600);
    // The openings alone, with wide bounds, with tight ones, and with fragments of our own side's.
    for bounds in [0, 0x1f, 0x1b] {
        seeds.extend((0..10).map(|opening| vec![bounds, opening]));
    }
    // A batch that is signed by another engine, and ones of another session, from another realm, and to another.
    for (signer, wrong) in [(15, 0), (0, 0xe2), (0, 0xe4), (0, 0xe8)] {
        let mut seed = [&[0, 1, 0xff][..], &variant(7, OPERATIONS)].concat();
        // Mode and engine; its number and how many there are as they should be; one message.
        seed.extend([0, 0, signer, 0, 0, wrong, 1]);
        // A SEND to `b` with nothing odd in it, and a number.
        seed.extend([0; 7]);
        seed.extend([0; 5]);
        seeds.push(seed);
    }
    seeds
}
