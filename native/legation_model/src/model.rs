//! The pair as `stateright` takes it: states, what leads from one to another, and what has to hold.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use stateright::{Model, Property};

use crate::action::{Action, Bounds, Planted, Who};
use crate::pair::{Facts, Pair};

#[derive(Clone, Debug)]
pub struct Interleavings {
    pub bounds: Bounds,
    pub planted: Option<Planted>,
}

/// Where some actions lead.
#[derive(Clone)]
pub struct State {
    path: Vec<Action>,
    key: u64,
    next: Vec<Action>,
    pub facts: Facts,
    /// The cores that have come here: for whoever goes on first. The others begin anew.
    live: Arc<Mutex<Option<Box<Pair>>>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.facts.fmt(formatter)
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.key == other.key
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key.hash(hasher);
    }
}

impl State {
    fn of(pair: Box<Pair>, path: Vec<Action>) -> State {
        let mut next = Vec::new();
        pair.actions(&mut next);
        let (key, facts) = (pair.key(), pair.facts());
        State { path, key, next, facts, live: Arc::new(Mutex::new(Some(pair))) }
    }

    fn take_live(&self) -> Option<Box<Pair>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Model for Interleavings {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::of(self.after(&[]), Vec::new())]
    }

    fn actions(&self, state: &State, into: &mut Vec<Action>) {
        into.extend_from_slice(&state.next);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut pair = state.take_live().unwrap_or_else(|| self.after(&state.path));
        pair.act(action);
        Some(State::of(pair, state.path.iter().copied().chain([action]).collect()))
    }

    fn properties(&self) -> Vec<Property<Interleavings>> {
        let mut properties = vec![
            Property::always("the directories are the same when nothing moves", |_, state: &State| {
                !state.facts.at_rest || state.facts.directories_differ.is_none()
            }),
            Property::always("no call is open when nothing moves", |_, state: &State| {
                !state.facts.at_rest || state.facts.open_calls == 0
            }),
            Property::always("nothing is kept when nothing moves", |_, state: &State| {
                !state.facts.at_rest || state.facts.kept.is_none()
            }),
            // No LEARN that is no newer, no end of a call that has ended, no rule broken.
            Property::always("nothing is wrong on the way", |_, state: &State| state.facts.wrong.is_none()),
            Property::eventually("everything comes to rest", |_, state: &State| state.facts.at_rest),
        ];
        if self.planted.is_none() {
            properties.extend(self.to_be_seen());
        }
        properties
    }
}

impl Interleavings {
    /// What has to be among it, or it would show nothing.
    fn to_be_seen(&self) -> Vec<Property<Interleavings>> {
        let Bounds { dials, calls, breaks, graces, restarts, publications, .. } = self.bounds;
        let (breaks, ends) = (breaks > 0, graces + restarts > 0);
        let mut seen: Vec<Property<Interleavings>> = Vec::new();
        if publications > 1 {
            seen.push(Property::sometimes("an engine is learned again", |_, state: &State| {
                state.facts.seldom.learned_again
            }));
        }
        // Who answers a dial says what it has with its hello, before anything is sent to it again.
        if breaks && (dials == Who::Bob || calls > 0) {
            seen.push(Property::sometimes("what has come comes again on another link", |_, state: &State| {
                state.facts.seldom.replayed
            }));
        }
        if ends {
            seen.push(Property::sometimes("a session takes another's place", |_, state: &State| {
                state.facts.seldom.replaced
            }));
        }
        if calls > 0 {
            seen.push(Property::sometimes("a call is answered", |_, state: &State| state.facts.seldom.answered));
            seen.push(Property::sometimes("a call ends with its engine", |_, state: &State| {
                state.facts.seldom.engine_gone
            }));
            if ends {
                seen.push(Property::sometimes("a call ends with its session", |_, state: &State| {
                    state.facts.seldom.session_gone
                }));
            }
        }
        seen
    }

    /// New cores that have done this.
    fn after(&self, path: &[Action]) -> Box<Pair> {
        let mut pair = Box::new(Pair::new(self.bounds, self.planted));
        path.iter().for_each(|action| pair.act(*action));
        pair
    }

    /// What holds after this, for who is told of it.
    pub fn facts(&self, path: &[Action]) -> Facts {
        self.after(path).facts()
    }
}
