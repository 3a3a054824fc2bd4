//! Small cases, whole; and faults that are put in, which have to be found.

use legation_model::action::{Action, Bounds, Planted};
use legation_model::model::{Interleavings, State};
use stateright::{Checker, Chooser, Expectation, HasDiscoveries, Model};

/// All states; how many.
fn holds(bounds: Bounds) -> usize {
    let model = Interleavings { bounds, planted: None };
    let checker = model.checker().spawn_dfs().join();
    assert!(checker.is_done());
    checker.assert_properties();
    checker.unique_state_count()
}

#[test]
fn an_engine_that_comes_and_goes_while_its_realms_meet() {
    let bounds = Bounds { publications: 1, withdrawals: 1, ..Bounds::NONE };
    assert!(holds(bounds) > 100);
}

#[test]
fn a_link_that_breaks_at_any_step() {
    let bounds = Bounds { publications: 1, breaks: 1, ..Bounds::NONE };
    assert!(holds(bounds) > 100);
}

/// Of what is too much to be gone through whole in a test, some ways.
#[test]
fn whatever_happens_to_calls_engines_links_and_systems() {
    let bounds =
        Bounds { publications: 2, withdrawals: 1, calls: 1, breaks: 1, graces: 1, restarts: 1, ..Bounds::NONE };
    let model = Interleavings { bounds, planted: None };
    let checker = model.clone().checker().finish_when(HasDiscoveries::AnyFailures).target_state_count(2_000);
    let checker = checker.spawn_simulation(11, Patient).join();
    for property in model.properties() {
        let found = checker.discovery(property.name).map(|path| path.into_actions());
        assert!(property.expectation == Expectation::Sometimes || found.is_none(), "{}: {found:?}", property.name);
    }
}

/// What happens by itself is likelier than what somebody chooses: or everything has been chosen before anybody is connected.
#[derive(Clone)]
struct Patient;

impl Chooser<Interleavings> for Patient {
    type State = fastrand::Rng;

    fn new_state(&self, seed: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(seed)
    }

    fn choose_initial_state(&self, _random: &mut fastrand::Rng, _states: &[State]) -> usize {
        0
    }

    fn choose_action(&self, random: &mut fastrand::Rng, _state: &State, actions: &[Action]) -> usize {
        let first = random.usize(0..actions.len());
        let progress = (0..actions.len()).filter(|at| actions[*at].is_progress()).count();
        match actions[first].is_progress() || progress == 0 || random.u8(0..4) == 0 {
            true => first,
            false => (0..actions.len()).cycle().skip(first).find(|at| actions[*at].is_progress()).unwrap_or(first),
        }
    }
}

/// What random ways, always the same ones, find.
fn found(planted: Planted, bounds: Bounds) -> Vec<&'static str> {
    let checker = Interleavings { bounds, planted: Some(planted) }.checker();
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).target_state_count(20_000);
    let checker = checker.spawn_simulation(7, Patient).join();
    checker.discoveries().into_keys().collect()
}

#[test]
fn what_the_model_is_for_is_found_when_it_is_put_in() {
    let once = Bounds { publications: 1, withdrawals: 1, ..Bounds::NONE };
    let breaks = Bounds { breaks: 1, ..once };
    for planted in Planted::ALL {
        let (bounds, by) = match planted {
            Planted::ForgetIsLost => (breaks, "the directories are the same when nothing moves"),
            Planted::ForgetIsOvertaken => {
                (Bounds { publications: 2, ..breaks }, "the directories are the same when nothing moves")
            }
            Planted::ForgetIsNotNewer => (once, "nothing is wrong on the way"),
            Planted::NewSessionIsNotTold => {
                (Bounds { withdrawals: 0, ..once }, "the directories are the same when nothing moves")
            }
            Planted::DirectoryOutlivesSession => {
                (Bounds { graces: 1, ..breaks }, "the directories are the same when nothing moves")
            }
            Planted::CallsOutliveSession => {
                (Bounds { calls: 1, graces: 1, ..breaks }, "no call is open when nothing moves")
            }
            Planted::CallsOutliveEngine => (Bounds { calls: 1, ..once }, "no call is open when nothing moves"),
            Planted::SerialsBeginAgain => (Bounds { restarts: 1, ..once }, "nothing is wrong on the way"),
            Planted::ReaderLosesAPiece => (breaks, "the directories are the same when nothing moves"),
        };
        let found = found(planted, bounds);
        assert!(found.contains(&by), "{planted:?} is found by {found:?}");
    }
}
