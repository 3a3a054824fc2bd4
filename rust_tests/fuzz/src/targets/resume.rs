//! A session whose links are lost and follow each other: the same scripts as [`super::session`], which here begin with a second link, or with the
//! loss of the first, so that RESUME is what happens.

use arbitrary::Arbitrary;

use super::session::{play, Operation, Script};
use super::{script, scripts, Few, Many};
use crate::Target;

pub const TARGET: Target = Target {
    name: "resume",
    what: "a session over several links: RESUME, going over, coming back",
    run,
    seeds,
    bytes_max: 2_048,
};

#[derive(Arbitrary, Debug)]
struct Resumed {
    bounds: u8,
    before: Few<Operation, 8>,
    lose: bool,
    additional: bool,
    received: i16,
    next: i16,
    after: Many<Operation, 32>,
}

fn run(input: &[u8]) {
    let Some(resumed) = script::<Resumed>(input) else { return };
    let Resumed { bounds, before: Few(mut before), lose, additional, received, next, after: Many(after) } = resumed;
    if lose {
        before.push(Operation::Lose);
    }
    before.push(Operation::Another { additional, session: true });
    before.push(Operation::Resume { session: true, received, next });
    before.extend(after);
    play(&Script { bounds, operations: Many(before) });
}

fn seeds() -> Vec<Vec<u8>> {
    scripts("legation fuzz resume", 32, 900)
}
