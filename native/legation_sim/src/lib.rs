//! Realms of the real cores in virtual time, under faults, with a ledger of what may happen.
//!
//! ```text
//!  seed ─► plan ─► world ─┬─ realm, peers, links    drivers around legation_channel::link::Link and the session
//!                         ├─ app, incoming          processes: they cast, call, answer, watch, publish, die
//!                         ├─ keyholding             who signs for a realm that has not its own key
//!                         ├─ wire, faults, hostile  what is between realms, and who else is there
//!                         ├─ quiet                  nothing goes wrong any more: does everything come right?
//!                         └─ ledger                 what must hold, whatever happens
//! ```
//!
//! One seed is one run: keys, nonces, clocks, sizes and everything that happens come from it, but for what TLS draws itself, which
//! changes bytes and nothing that is looked at. Nothing here reads a clock or opens a socket.
#![forbid(unsafe_code)]

pub mod app;
pub mod faults;
pub mod hostile;
pub mod incoming;
pub mod keyholding;
pub mod ledger;
pub mod links;
pub mod payload;
pub mod peers;
pub mod plan;
pub mod quiet;
pub mod realm;
pub mod stats;
pub mod trace;
pub mod wire;
pub mod world;

/// Which of two links lives: what the daemon asks, too.
#[path = "../../legation_node/src/peers/links.rs"]
mod election;

use std::panic::{catch_unwind, AssertUnwindSafe};

use ledger::{Invariant, Violation};
use world::World;

/// One run of a seed to its end. A panic of the cores is a violation like any other.
pub fn run(world: &mut World) -> Option<Violation> {
    let seed = world.seed;
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        return Some(Violation {
            invariant: Invariant::RulesKept,
            what: format!("seed {seed} panics: {}", text.unwrap_or_default()),
        });
    }
    world.ledger.violations.first().cloned()
}
