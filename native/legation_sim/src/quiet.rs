//! Nothing goes wrong any more: everything has to come right, and nothing may be left.

use std::collections::HashMap;

use legation_proto::session::DropOutcome;
use rust_tests::counted;

use crate::ledger::{short, Invariant, SessionId};
use crate::realm::Watched;
use crate::wire::{Actor, Phase};
use crate::world::{Happening, Of, World};

/// Dead ends are found after two heartbeats of 15 s, and a session's grace may be 60 s.
const SETTLE_US: u64 = 240_000_000;
const LOOK_US: u64 = 1_000_000;

impl World {
    pub fn becomes_quiet(&mut self) {
        self.active = false;
        self.note(format_args!("nothing goes wrong from now on"));
        self.apart.clear();
        for realm in 0..self.plan.realms {
            self.restart(realm);
            let boot = self.realms[realm].boot;
            self.undrain(realm, boot);
            for of in self.sessions(realm) {
                let Some(session) = self.session(of) else { continue };
                let held: Vec<u64> = session.serving.keys().copied().collect();
                held.into_iter().for_each(|number| self.answer(of, number));
            }
        }
        // Liars are tired of it.
        for conn in 0..self.conns.len() {
            let lies = |actor: &Actor| !matches!(actor, Actor::Realm { .. });
            if !self.conns[conn].is_over() && self.conns[conn].ends.iter().any(|end| lies(&end.actor)) {
                self.cut(conn);
                self.conns[conn].ends.iter_mut().for_each(|end| end.phase = Phase::Over);
            }
        }
        self.after(LOOK_US, Happening::Operation { realm: 0 });
    }

    /// True: everything is right, and it is over. Looked at once a second.
    pub fn is_settled(&mut self) -> bool {
        if self.now_us / LOOK_US == self.looked_us / LOOK_US {
            return false;
        }
        self.looked_us = self.now_us;
        self.after(LOOK_US, Happening::Operation { realm: 0 });
        for realm in 0..self.plan.realms {
            for of in self.sessions(realm) {
                self.drop_all_stand_ins(of);
            }
        }
        match self.unsettled() {
            None => {
                self.settle();
                true
            }
            Some((invariant, what)) if self.now_us > self.plan.active_us + SETTLE_US => {
                self.violate(invariant, what);
                true
            }
            Some(_) => false,
        }
    }

    fn drop_all_stand_ins(&mut self, of: Of) {
        let Some(session) = self.session(of) else { return };
        let numbers: Vec<u64> = session.stand_ins.keys().copied().collect();
        let (mut wake, mut dead) = (false, Vec::new());
        for number in numbers {
            // Monitors of living ones have shown that they don't fire.
            if let DropOutcome::Dropped { wake: woken } = session.core.drop_import(number) {
                wake |= woken;
                session.monitors.retain(|_, watched| *watched != Watched::StandIn(number));
                dead.extend(session.stand_ins.remove(&number));
            }
        }
        dead.into_iter().for_each(|process| self.ledger.died(process));
        if wake {
            self.wake_session(of);
        }
    }

    /// The pairs that have to have a session.
    fn pairs(&self) -> Vec<(usize, usize)> {
        let lives = |realm: usize| !self.realms[realm].revoked;
        (0..self.plan.realms)
            .flat_map(|one| (one + 1..self.plan.realms).map(move |other| (one, other)))
            .filter(|(one, other)| lives(*one) && lives(*other))
            .collect()
    }

    fn unsettled(&self) -> Option<(Invariant, String)> {
        for (one, other) in self.pairs() {
            let of = |realm: usize, peer: usize| self.realms[realm].peers[peer].as_ref()?.session.as_ref();
            let (Some(here), Some(there)) = (of(one, other), of(other, one)) else {
                return Some((Invariant::DirectoriesConverge, format!("{one} and {other} have no session")));
            };
            if here.id != there.id || here.lost || there.lost {
                let ids = (short(&here.id), short(&there.id));
                return Some((Invariant::DirectoriesConverge, format!("{one} and {other} have {ids:?}")));
            }
            for (realm, peer, session) in [(one, other, here), (other, one, there)] {
                let has: Vec<(&String, [u8; 32])> =
                    session.learned.iter().map(|(name, (_, key))| (name, *key)).collect();
                let published = &self.realms[peer];
                let engines = published.engines.keys();
                let is: Vec<(&String, [u8; 32])> =
                    engines.map(|name| (name, published.keyring.engine_public(name))).collect();
                if has != is {
                    let names =
                        |of: &[(&String, [u8; 32])]| of.iter().map(|(name, _)| (*name).clone()).collect::<Vec<_>>();
                    let what = format!("{realm} knows {:?} of {peer}, which has {:?}", names(&has), names(&is));
                    return Some((Invariant::DirectoriesConverge, what));
                }
                if let Some((gauge, value)) = counted::first(&session.core, &counted::KEPT) {
                    let what = format!("{gauge} is {value} at {realm}, with {peer}, when nothing moves");
                    return Some((Invariant::Bounded, what));
                }
                if !session.calls.is_empty() {
                    let what = format!(
                        "{} calls of {realm} to {peer} are open: {:?}",
                        session.calls.len(),
                        session.calls.first_key_value()
                    );
                    return Some((Invariant::CallsEnd, what));
                }
            }
        }
        None
    }

    /// The last look.
    fn settle(&mut self) {
        // Who has revoked its key is nobody's peer; whoever has not heard of it waits for the end of a session's grace.
        let pairs = self.pairs();
        for realm in 0..self.plan.realms {
            for of in self.sessions(realm) {
                if !pairs.contains(&(realm.min(of.peer), realm.max(of.peer))) {
                    self.session_ended(realm, of.peer, "it is over");
                }
            }
        }
        let (mut living, mut dropped) = (HashMap::<(u8, u8), SessionId>::new(), HashMap::<(u8, u8), u64>::new());
        for (one, other) in self.pairs() {
            for (realm, peer) in [(one, other), (other, one)] {
                let Some(session) = self.realms[realm].peers[peer].as_mut().and_then(|peer| peer.session.take()) else {
                    continue;
                };
                let way = (realm as u8, peer as u8);
                self.count_dropped(realm, peer, &session);
                living.insert(way, session.id);
                dropped.insert(way, self.dropped.get(&way).copied().unwrap_or(0));
                for (monitor, watched) in &session.monitors {
                    let lives = match watched {
                        Watched::Engine(name) => {
                            session.learned.contains_key(name) && self.realms[peer].engines.contains_key(name)
                        }
                        Watched::StandIn(number) => session.stand_ins.contains_key(number),
                    };
                    if !lives {
                        let what = format!("monitor {monitor} of {watched:?} of {peer} has not fired at {realm}");
                        self.violate(Invariant::MonitorsFireOnce, what);
                    }
                }
                if let Some(peer) = self.realms[realm].peers[peer].as_mut() {
                    peer.session = Some(session);
                }
                self.check_counters(realm, peer);
            }
        }
        self.ledger.settle(&living, &dropped);
    }

    /// Of one session: within its bounds, and nothing that realms that keep the rules don't do.
    pub fn check_counters(&mut self, realm: usize, peer: usize) {
        if self.is_liar(peer) {
            return self.check_bounds(realm, peer);
        }
        let Some(session) = self.realms[realm].peers[peer].as_ref().and_then(|peer| peer.session.as_ref()) else {
            return;
        };
        if let Some((name, value)) = counted::first(&session.core, &counted::NEVER) {
            self.violate(Invariant::RulesKept, format!("{name} is {value} at {realm}, with {peer}"));
        }
        self.check_bounds(realm, peer);
    }

    /// What a session keeps, in bytes, messages and entries. Looked at after whatever any of its links has brought or sent.
    pub fn check_bounds(&mut self, realm: usize, peer: usize) {
        let Some(session) = self.realms[realm].peers[peer].as_ref().and_then(|peer| peer.session.as_ref()) else {
            return;
        };
        let limits = &self.plan.limits[realm];
        let learned = ("engines", session.learned.len() as u64, u64::from(limits.engines_max));
        let over: Vec<String> = counted::over(&session.core, limits)
            .into_iter()
            .chain(Some(learned).filter(|(_, value, bound)| value > bound))
            .map(|(name, value, bound)| format!("{name} is {value} of {bound} at {realm}, with {peer}"))
            .collect();
        over.into_iter().for_each(|what| self.violate(Invariant::Bounded, what));
    }
}
