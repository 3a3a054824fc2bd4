//! Seeds and corpora say something: between them they come to all that sessions are there for. A script whose link is over with its first
//! word says nothing of what comes behind.

use legation_fuzz::targets::session::Reached;
use legation_fuzz::{corpus, target};

fn reached(name: &str) -> Vec<Reached> {
    let target = target(name).expect("a target of this name");
    let reached = target.reached().expect("it plays sessions");
    let inputs = corpus::all(target).expect("a corpus that can be read");
    inputs.iter().filter_map(|input| reached(input)).collect()
}

/// Of what there is a share, in percent, has to come so far.
fn at_least(percent: usize, all: &[Reached], is: fn(&Reached) -> bool) -> bool {
    100 * all.iter().filter(|reached| is(reached)).count() >= percent * all.len()
}

#[test]
fn scripts_of_sessions_and_of_links_that_follow_each_other_come_to_all_that_there_is() {
    for name in ["session", "resume"] {
        let all = reached(name);
        assert!(all.len() > 50, "{name} has {} inputs", all.len());
        for (what, is) in Reached::KINDS {
            assert!(all.iter().any(is), "{name}: in no input {what}");
        }
    }
}

#[test]
fn most_scripts_deliver_something_and_most_that_are_about_it_resume() {
    let (session, resume) = (reached("session"), reached("resume"));
    assert!(at_least(50, &session, |reached| reached.delivered > 0));
    assert!(at_least(50, &resume, |reached| reached.delivered > 0));
    assert!(at_least(60, &resume, |reached| reached.resumed > 0));
    assert!(at_least(30, &resume, |reached| reached.heard_again > 0));
}

#[test]
fn one_opening_comes_to_a_session_that_is_resumed_with_what_was_lost() {
    let reached = legation_fuzz::targets::session::reached(&[0, 4]).expect("a script");
    assert_eq!((reached.delivered, reached.resumed), (4, 1));
    assert!(reached.heard_again > 0 && reached.said_again > 0, "{reached:?}");
}
