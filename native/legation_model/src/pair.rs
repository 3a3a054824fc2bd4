//! Two ends and what is between them: one action at a time, on the real cores.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use legation_channel::channel::Profile;
use legation_channel::link::{Link, LinkConfig, Resume};
use legation_proto::limits::Limits;
use rust_tests::counted;
use rust_tests::pair::{Seen, Side};
use rust_tests::realm::{fixed_random, network, START};

use crate::action::{Action, Bounds, Lost, Planted, Who};
use crate::end::{name, End, Seldom};

/// Half of a connection, at one end.
struct Half {
    side: Side,
    /// All that has come before the session: what it begins with.
    opening: u64,
    up: bool,
}

struct Wire {
    halves: [Option<Half>; 2],
    /// What is on its way from alice, and from bob; None: the end of it.
    flights: [VecDeque<Option<Vec<u8>>>; 2],
}

pub struct Pair {
    bounds: Bounds,
    planted: Option<Planted>,
    ends: [End; 2],
    wires: Vec<Wire>,
    /// How often each was done.
    spent: Spent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Spent {
    publications: u8,
    withdrawals: u8,
    breaks: u8,
    graces: u8,
    restarts: u8,
}

/// What properties are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Nothing happens any more, unless somebody chooses.
    pub at_rest: bool,
    /// What Bob has of it and Alice has announced, where they differ.
    pub directories_differ: Option<String>,
    pub open_calls: usize,
    /// What is kept, where something is.
    pub kept: Option<String>,
    pub wrong: Option<String>,
    pub seldom: Seldom,
}

impl Pair {
    pub fn new(bounds: Bounds, planted: Option<Planted>) -> Pair {
        Pair {
            bounds,
            planted,
            ends: Who::BOTH.map(|who| End::new(who, bounds.calls > 0, planted)),
            wires: Vec::new(),
            spent: Spent::default(),
        }
    }

    /// What can happen now.
    pub fn actions(&self, into: &mut Vec<Action>) {
        let [alice, bob] = &self.ends;
        if alice.wrong.is_some() || bob.wrong.is_some() {
            // It is over: the way here is shown.
            return;
        }
        let mut living = Vec::new();
        for (number, wire) in (0..).zip(&self.wires) {
            for who in Who::BOTH {
                if !wire.flights[who as usize].is_empty() {
                    into.push(Action::Arrive(number, who));
                }
                let half = wire.halves[who as usize].as_ref();
                if half.is_some_and(|half| half.up && half.side.will_flush()) {
                    into.push(Action::Flush(number, who));
                }
            }
            if wire.halves.iter().all(Option::is_some) {
                living.push(number);
            }
        }
        for end in &self.ends {
            if end.acknowledging {
                into.push(Action::Acknowledge(end.who));
            }
        }
        let dials = self.wires.iter().any(|wire| wire.halves[self.bounds.dials as usize].is_some());
        if !dials {
            into.push(Action::Dial);
        }
        self.choices(&living, into);
    }

    fn choices(&self, living: &[u8], into: &mut Vec<Action>) {
        let [alice, bob] = &self.ends;
        for engine in 0..self.bounds.engines {
            let published = alice.published.contains_key(&name(engine));
            if !published && self.spent.publications < self.bounds.publications {
                into.push(Action::Publish(engine));
            }
            if published && self.spent.withdrawals < self.bounds.withdrawals {
                into.push(Action::Withdraw(engine));
            }
            if bob.learned.contains_key(&name(engine)) && bob.called < u64::from(self.bounds.calls) {
                into.push(Action::Call(engine));
            }
        }
        if self.spent.breaks < self.bounds.breaks {
            for wire in living {
                let few = [Lost::All, Lost::Nothing];
                let rest = [Lost::To(Who::Alice), Lost::To(Who::Bob)];
                into.extend(few.map(|lost| Action::Break(*wire, lost)));
                if self.bounds.all_breaks {
                    into.extend(rest.map(|lost| Action::Break(*wire, lost)));
                }
                into.push(Action::Leave(*wire, self.bounds.dials));
            }
        }
        for end in &self.ends {
            if end.is_lost() && self.spent.graces < self.bounds.graces {
                into.push(Action::Grace(end.who));
            }
            if self.spent.restarts < self.bounds.restarts {
                into.push(Action::Restart(end.who));
            }
        }
    }

    pub fn act(&mut self, action: Action) {
        match action {
            Action::Publish(engine) => {
                self.spent.publications += 1;
                let wake = self.ends[Who::Alice as usize].publish(engine);
                self.wake(Who::Alice, wake);
            }
            Action::Withdraw(engine) => {
                self.spent.withdrawals += 1;
                let wake = self.ends[Who::Alice as usize].withdraw(engine);
                self.wake(Who::Alice, wake);
            }
            Action::Call(engine) => {
                let wake = self.ends[Who::Bob as usize].call(engine);
                self.wake(Who::Bob, wake);
            }
            Action::Flush(wire, who) => {
                self.ends[who as usize].note(("flush", wire));
                self.flush(wire, who);
            }
            Action::Arrive(wire, from) => self.arrive(wire, from),
            Action::Acknowledge(who) => {
                let wake = self.ends[who as usize].acknowledge();
                self.wake(who, wake);
            }
            Action::Dial => self.dial(),
            Action::Break(wire, lost) => {
                self.spent.breaks += 1;
                for from in Who::BOTH {
                    let to = from.other();
                    let flight = &mut self.wires[wire as usize].flights[from as usize];
                    if lost == Lost::All || lost == Lost::To(to) {
                        flight.clear();
                    }
                    flight.push_back(None);
                }
            }
            Action::Leave(wire, who) => {
                self.spent.breaks += 1;
                self.wires[wire as usize].flights[who.other() as usize].clear();
                self.leave(wire, who);
            }
            Action::Grace(who) => {
                self.spent.graces += 1;
                self.ends[who as usize].grace_is_over();
            }
            Action::Restart(who) => {
                self.spent.restarts += 1;
                for wire in 0..self.wires.len() {
                    self.wires[wire].flights[who.other() as usize].clear();
                    if self.wires[wire].halves[who as usize].take().is_some() {
                        self.wires[wire].flights[who as usize].push_back(None);
                    }
                }
                self.ends[who as usize].restart();
            }
        }
    }

    /// The writer of the session's link has something to do.
    fn wake(&mut self, who: Who, wake: bool) {
        let Some(link) = self.ends[who as usize].link else { return };
        if let Some(half) = self.wires[link as usize].halves[who as usize].as_mut() {
            half.side.woken(wake);
        }
    }

    fn flush(&mut self, wire: u8, who: Who) {
        let wire = &mut self.wires[wire as usize];
        let Some(half) = wire.halves[who as usize].as_mut() else { return };
        let bytes = half.side.flush();
        if !bytes.is_empty() {
            wire.flights[who as usize].push_back(Some(bytes));
        }
    }

    fn dial(&mut self) {
        let number = self.wires.len() as u8;
        let halves = Who::BOTH.map(|who| {
            let end = &self.ends[who as usize];
            let config = LinkConfig {
                profile: Profile::Local,
                keyring: end.realm.keyring.clone(),
                network: network(),
                tls: end.realm.tls.clone(),
                limits: Limits::default(),
                random: fixed_random(u32::from(number), who as u8),
                now: START,
            };
            let link = match who == self.bounds.dials {
                true => {
                    let resume = end.session.clone().filter(|session| session.can_resume());
                    let resume = resume.map(|session| Resume { session, additional: false });
                    Link::connect(config, &self.ends[who.other() as usize].realm.key(), false, resume)
                }
                false => Link::accept_from(config, None),
            };
            let mut side = Side::new(link.expect("local needs no randomness"), end.realm.clone(), network());
            side.stand_ins = false;
            Some(Half { side, opening: 0, up: false })
        });
        let dials = self.bounds.dials;
        self.ends[dials as usize].note(("dial", number));
        self.wires.push(Wire { halves, flights: Default::default() });
        self.flush(number, dials);
    }

    fn arrive(&mut self, number: u8, from: Who) {
        let who = from.other();
        let wire = &mut self.wires[number as usize];
        let Some(piece) = wire.flights[from as usize].pop_front() else { return };
        let Some(half) = wire.halves[who as usize].as_mut() else { return };
        let Some(bytes) = piece else { return self.leave(number, who) };

        let mut hasher = DefaultHasher::new();
        (half.opening, &bytes).hash(&mut hasher);
        let came = hasher.finish();
        let was_up = half.up;
        if !was_up {
            half.opening = came;
        }
        let end = &mut self.ends[who as usize];
        end.note(("came", number, &bytes));
        half.side.resume = end.session.clone().filter(|session| session.can_resume());
        let loses = self.planted == Some(Planted::ReaderLosesAPiece) && half.opening == u64::MAX;
        if !loses {
            half.side.handle(START, &bytes);
        }
        let events = half.side.take_events();
        let over = half.side.is_over().then(|| half.side.fault.clone());
        for event in events {
            self.event(number, who, came, event);
        }
        if let Some(fault) = over {
            // Realms that keep the rules have nothing to say to each other but that.
            self.ends[who as usize].is_wrong(format!("{who:?}'s link ends: {fault:?}"));
        }
        let Some(half) = self.wires[number as usize].halves[who as usize].as_mut() else { return };
        if half.up {
            half.opening = if was_up { 0 } else { u64::MAX };
            let wake = self.ends[who as usize].delivered();
            self.wake(who, wake);
        }
        if !was_up {
            // Answers of a handshake go out at once.
            self.flush(number, who);
        }
    }

    fn event(&mut self, number: u8, who: Who, came: u64, event: Seen) {
        let Some(half) = self.wires[number as usize].halves[who as usize].as_mut() else { return };
        let end = &mut self.ends[who as usize];
        let wake = match event {
            Seen::Up => {
                half.up = true;
                let (session, before) = (half.side.session(), end.link);
                let wake = end.begins(session, number, came);
                self.replace(before, who);
                wake
            }
            Seen::Resumed { .. } => {
                let ours = end.session.as_ref().is_some_and(|session| Arc::ptr_eq(session, &half.side.session()));
                if !ours {
                    // It has ended meanwhile.
                    return self.leave(number, who);
                }
                half.up = true;
                let before = end.link;
                let wake = end.goes_on(number);
                self.replace(before, who);
                wake
            }
            event if half.up => end.event(event),
            _ => false,
        };
        self.wake(who, wake);
    }

    /// Another link has taken this one's place.
    fn replace(&mut self, before: Option<u8>, who: Who) {
        if let Some(before) = before {
            let link = self.ends[who as usize].link;
            self.leave(before, who);
            self.ends[who as usize].link = link;
        }
    }

    /// For this end the connection is over; what it has sent may still arrive.
    fn leave(&mut self, number: u8, who: Who) {
        let wire = &mut self.wires[number as usize];
        let Some(mut half) = wire.halves[who as usize].take() else { return };
        half.side.lose();
        wire.flights[who.other() as usize].clear();
        if wire.halves[who.other() as usize].is_some() {
            wire.flights[who as usize].push_back(None);
        }
        self.ends[who as usize].link_is_gone(number);
    }

    pub fn facts(&self) -> Facts {
        let [alice, bob] = &self.ends;
        let mut actions = Vec::new();
        self.actions(&mut actions);
        let wrong = self.ends.iter().find_map(|end| end.wrong.clone()).or_else(|| self.counted(&counted::NEVER));
        let one = |end: &End| end.session.as_ref().map(|session| session.agreed().session);
        let directories_differ = if one(alice) != one(bob) {
            Some("they have not the same session".to_owned())
        } else {
            (alice.published != bob.learned)
                .then(|| format!("announced is {:?}, and known {:?}", alice.published, bob.learned))
        };
        let [seen, also] = [alice.seldom, bob.seldom];
        Facts {
            at_rest: wrong.is_none() && !actions.iter().any(|action| action.is_progress()),
            directories_differ,
            open_calls: bob.open.len(),
            kept: self.counted(&counted::KEPT),
            wrong,
            seldom: Seldom {
                answered: seen.answered | also.answered,
                engine_gone: seen.engine_gone | also.engine_gone,
                session_gone: seen.session_gone | also.session_gone,
                learned_again: seen.learned_again | also.learned_again,
                replayed: seen.replayed | also.replayed,
                replaced: seen.replaced | also.replaced,
            },
        }
    }

    /// The first of these counters that is not nothing.
    fn counted(&self, names: &[&str]) -> Option<String> {
        self.ends.iter().find_map(|end| {
            let (counter, value) = counted::first(end.session.as_ref()?, names)?;
            Some(format!("{counter} is {value} at {:?}", end.who))
        })
    }

    /// What tells this state from others: what each end has been given, what is on its way, and what may still be chosen.
    pub fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.spent.hash(&mut hasher);
        for end in &self.ends {
            (end.history, end.called).hash(&mut hasher);
        }
        self.wires.len().hash(&mut hasher);
        for (number, wire) in self.wires.iter().enumerate() {
            let open = wire.halves.each_ref().map(|half| half.as_ref().map(|half| (half.up, half.opening)));
            if open != [None, None] || wire.flights.iter().any(|flight| !flight.is_empty()) {
                (number, open, &wire.flights).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}
