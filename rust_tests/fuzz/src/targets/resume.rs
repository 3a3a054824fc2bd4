//! A session whose links are lost and follow each other: the same scripts as [`super::session`], which here begin with a second link, or with the
//! loss of the first, so that RESUME is what happens.

use arbitrary::Arbitrary;

use super::session::{play, Operation, Reached, Script, Step, Valid};
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
    opening: u8,
    before: Few<Step, 8>,
    lost: Lost,
    /// Not as the session has it.
    wrong: Option<(bool, i16, i16)>,
    after: Many<Step, 32>,
}

#[derive(Arbitrary, Debug)]
enum Lost {
    /// With what both sides say meanwhile.
    Broken { lost: u8, ours: u8, again: u8 },
    /// Nothing: another link is beside it.
    Nothing { to: u8, again: u8 },
}

fn run(input: &[u8]) {
    reached(input);
}

/// How far the script comes that an input is.
pub fn reached(input: &[u8]) -> Option<Reached> {
    let Resumed { bounds, opening, before: Few(mut steps), lost, wrong, after: Many(after) } = script(input)?;
    steps.push(match (lost, wrong) {
        (Lost::Broken { lost, ours, again }, None) => {
            Step::Valid(Valid::Break { lost: lost % 4, ours: ours % 4, again })
        }
        (Lost::Nothing { to, again }, None) => Step::Valid(Valid::Over { to, again }),
        (Lost::Broken { .. }, Some(_)) => Step::Any(Operation::Lose),
        (Lost::Nothing { .. }, Some(_)) => Step::Any(Operation::Ping(7)),
    });
    if let Some((additional, received, next)) = wrong {
        steps.push(Step::Any(Operation::Another { additional, session: true }));
        steps.push(Step::Any(Operation::Resume { session: true, received, next }));
    }
    steps.extend(after);
    Some(play(&Script { bounds, opening, steps: Many(steps) }))
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = scripts("legation fuzz resume", 32, 500);
    for opening in 0..10 {
        // Nothing more before it; `Lost::Broken` with something lost on both sides.
        seeds.push(vec![0, opening, 0, 0, 0, 0, 0, 2, 2, 6]);
        // `Lost::Nothing`: over to another.
        seeds.push(vec![0, opening, 0, 0xff, 0xff, 0xff, 0xff, 1, 3]);
    }
    seeds
}
