//! Short runs, and the checker's own: what it is there for is put into a run, and found.

use legation_sim::ledger::Invariant;
use legation_sim::world::{Sabotage, World};

/// Virtual seconds in which things go wrong.
const SECONDS: u64 = 3;

/// How many messages it has delivered.
fn passes(seed: u64) -> u64 {
    let mut world = World::new(seed, Some(SECONDS));
    if let Some(violation) = legation_sim::run(&mut world) {
        world.trace.last().for_each(|line| eprintln!("{line}"));
        panic!("seed {seed}, {SECONDS} s: {:?}: {}", violation.invariant, violation.what);
    }
    world.ledger.delivered
}

#[test]
fn whatever_goes_wrong_the_invariants_hold() {
    assert!((1..=8).map(passes).sum::<u64>() > 10_000);
}

#[test]
fn they_hold_for_seeds_that_nobody_has_tried() {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    let from = u64::from(u32::from_le_bytes(bytes));
    assert!((from..from + 3).map(passes).sum::<u64>() > 0);
}

#[test]
fn a_seed_is_one_run() {
    let trace = |seed| {
        let mut world = World::new(seed, Some(SECONDS));
        legation_sim::run(&mut world);
        (world.trace.hash(), world.ledger.delivered, world.now_us)
    };
    for seed in 20..23 {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(20).0, trace(21).0);
}

/// What finds it, in one of a few seeds: not each has what it takes.
fn found(sabotage: Sabotage) -> Vec<Invariant> {
    let mut found = Vec::new();
    for seed in 30..120 {
        let mut world = World::new(seed, Some(SECONDS));
        world.sabotage = Some(sabotage);
        found.extend(legation_sim::run(&mut world).map(|violation| violation.invariant));
        if !found.is_empty() {
            break;
        }
    }
    found
}

#[test]
fn what_the_checker_is_for_is_found_when_it_is_put_in() {
    for sabotage in Sabotage::ALL {
        let expected = match sabotage {
            Sabotage::DeliverTwice => Invariant::AtMostOnce,
            Sabotage::Swap => Invariant::InOrder,
            Sabotage::Drop => Invariant::ExactlyOnce,
            Sabotage::Corrupt | Sabotage::Misdeliver | Sabotage::Forge => Invariant::Authentic,
            Sabotage::ChangeReceipt => Invariant::Authentic,
            Sabotage::EndCallTwice | Sabotage::LoseAnswer => Invariant::CallsEnd,
            Sabotage::FireTwice | Sabotage::LoseDown => Invariant::MonitorsFireOnce,
            Sabotage::ForgetLearned => Invariant::DirectoriesConverge,
            Sabotage::BreakRule => Invariant::RulesKept,
            Sabotage::NameAnother => Invariant::PidsNameOne,
            Sabotage::WidenBounds => Invariant::Bounded,
            Sabotage::HideGap => Invariant::LossIsTold,
            Sabotage::RepeatRandomness => Invariant::StrangersStayOut,
            Sabotage::TellImpostor => Invariant::StrangersStayOut,
            Sabotage::MixSignatures | Sabotage::OvertakeEnd => Invariant::RulesKept,
        };
        assert_eq!(found(sabotage), [expected], "{sabotage:?}");
    }
}
