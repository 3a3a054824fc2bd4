//! Calls in flight, both ways, and the numbers that stand for callers.
//!
//! An own call is an entry that holds whatever the driver needs to answer its caller, opaque here. It is freed by
//! reply, refusal, cancellation, its caller's end, or the session's. What belongs to one caller is found by its number, so that
//! many releases at once don't look at all calls each.

use std::collections::{HashMap, HashSet};

use crate::limits::Limits;
use crate::UnixMs;

#[derive(Debug)]
pub struct Pending {
    /// The driver's: how to answer the caller.
    pub context: Box<[u8]>,
    pub destination: Box<str>,
    pub since: UnixMs,
}

#[derive(Debug, Default)]
pub(crate) struct Calls {
    next_call: u64,
    /// With the number of the caller.
    pending: HashMap<u64, (u64, Pending)>,
    in_flight: InFlight,
    next_caller: u64,
    /// Own callers: the driver's key for a process, and its number.
    callers: HashMap<Box<[u8]>, u64>,
    own_callers: HashMap<u64, OwnCaller>,
    /// The peer's calls that are being served: call id to caller.
    served: HashMap<u64, Served>,
    /// Their callers, and which of their calls are being served.
    remote_callers: HashMap<u64, HashSet<u64>>,
}

#[derive(Debug)]
struct OwnCaller {
    key: Box<[u8]>,
    calls: HashSet<u64>,
}

#[derive(Debug)]
pub(crate) struct Served {
    pub caller: u64,
    /// The engine that was called: its key signs the answer.
    pub engine: Box<str>,
}

pub(crate) struct Begun {
    pub call_id: u64,
    pub caller: u64,
    pub new_caller: bool,
}

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Calls,
    Callers,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotServed {
    Full(Bound),
    /// The id is in use: only a peer that breaks the rules does this.
    Duplicate,
}

/// How many calls of ours each engine of the peer's has. Engines without one stay (most are called again) until there are many,
/// and then go all at once.
#[derive(Debug)]
struct InFlight {
    by_engine: HashMap<Box<str>, usize>,
    sweep_at: usize,
}

impl InFlight {
    /// Engines that are kept without a look at which have calls.
    const KEPT: usize = 1_024;

    fn begun(&mut self, engine: &str) {
        if let Some(calls) = self.by_engine.get_mut(engine) {
            *calls += 1;
            return;
        }
        if self.by_engine.len() >= self.sweep_at {
            self.by_engine.retain(|_, calls| *calls > 0);
            // Twice as many as are in use: a sweep is paid for by the insertions before it.
            self.sweep_at = Self::KEPT.max(2 * self.by_engine.len());
        }
        self.by_engine.insert(engine.into(), 1);
    }

    fn ended(&mut self, engine: &str) {
        if let Some(calls) = self.by_engine.get_mut(engine) {
            *calls = calls.saturating_sub(1);
        }
    }

    fn at(&self, engine: &str) -> usize {
        self.by_engine.get(engine).copied().unwrap_or(0)
    }
}

impl Default for InFlight {
    fn default() -> Self {
        InFlight { by_engine: HashMap::new(), sweep_at: Self::KEPT }
    }
}

impl Calls {
    /// Enters a call of ours.
    pub fn begin(&mut self, caller_key: &[u8], pending: Pending, limits: &Limits) -> Result<Begun, Bound> {
        if self.pending.len() >= limits.calls_max {
            return Err(Bound::Calls);
        }
        let (caller, new_caller) = match self.callers.get(caller_key) {
            Some(number) => (*number, false),
            None if self.callers.len() >= limits.callers_max => return Err(Bound::Callers),
            None => {
                self.next_caller += 1;
                self.callers.insert(caller_key.into(), self.next_caller);
                let caller = OwnCaller { key: caller_key.into(), calls: HashSet::new() };
                self.own_callers.insert(self.next_caller, caller);
                (self.next_caller, true)
            }
        };
        self.next_call += 1;
        if let Some(caller) = self.own_callers.get_mut(&caller) {
            caller.calls.insert(self.next_call);
        }
        self.in_flight.begun(&pending.destination);
        self.pending.insert(self.next_call, (caller, pending));
        Ok(Begun { call_id: self.next_call, caller, new_caller })
    }

    /// Which engine a call of ours in flight was made to.
    pub fn destination(&self, call_id: u64) -> Option<&str> {
        self.pending.get(&call_id).map(|(_, pending)| &*pending.destination)
    }

    /// Whether a process of ours still has its number.
    pub fn is_own_caller(&self, number: u64) -> bool {
        self.own_callers.contains_key(&number)
    }

    pub fn finish(&mut self, call_id: u64) -> Option<Pending> {
        let (caller, pending) = self.pending.remove(&call_id)?;
        if let Some(caller) = self.own_callers.get_mut(&caller) {
            caller.calls.remove(&call_id);
        }
        self.in_flight.ended(&pending.destination);
        Some(pending)
    }

    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Of those, the ones to one engine.
    pub fn pending_at(&self, engine: &str) -> usize {
        self.in_flight.at(engine)
    }

    /// Takes out the calls to an engine that was forgotten: its proxy's exit tells their callers. Returns their ids.
    pub fn forget_destination(&mut self, engine: &str) -> Vec<u64> {
        let own_callers = &mut self.own_callers;
        let mut forgotten = Vec::new();
        self.pending.retain(|call_id, (caller, pending)| {
            let keep = *pending.destination != *engine;
            if !keep {
                forgotten.push(*call_id);
                if let Some(caller) = own_callers.get_mut(caller) {
                    caller.calls.remove(call_id);
                }
            }
            keep
        });
        self.in_flight.by_engine.remove(engine);
        forgotten
    }

    pub fn older_than(&self, since: UnixMs) -> impl Iterator<Item = (u64, &Pending)> {
        self.pending
            .iter()
            .filter(move |(_, (_, pending))| pending.since <= since)
            .map(|(id, (_, pending))| (*id, pending))
    }

    /// A process of ours has ended, and nobody waits for its calls.
    pub fn release_own_caller(&mut self, number: u64) -> bool {
        let Some(caller) = self.own_callers.remove(&number) else {
            return false;
        };
        for call_id in &caller.calls {
            if let Some((_, pending)) = self.pending.remove(call_id) {
                self.in_flight.ended(&pending.destination);
            }
        }
        self.callers.remove(&caller.key).is_some()
    }

    /// Enters a call of the peer's.
    pub fn serve(&mut self, call_id: u64, served: Served, limits: &Limits) -> Result<(), NotServed> {
        if self.served.contains_key(&call_id) {
            return Err(NotServed::Duplicate);
        }
        if self.served.len() >= limits.calls_max {
            return Err(NotServed::Full(Bound::Calls));
        }
        if !self.remote_callers.contains_key(&served.caller) && self.remote_callers.len() >= limits.callers_max {
            return Err(NotServed::Full(Bound::Callers));
        }
        self.remote_callers.entry(served.caller).or_default().insert(call_id);
        self.served.insert(call_id, served);
        Ok(())
    }

    /// A call of the peer's was answered, refused or given up.
    pub fn served(&mut self, call_id: u64) -> Option<Served> {
        let served = self.served.remove(&call_id)?;
        if let Some(calls) = self.remote_callers.get_mut(&served.caller) {
            calls.remove(&call_id);
        }
        Some(served)
    }

    /// The calls of one of the peer's processes, taken out: what was to answer them has lost its way.
    pub fn abandon(&mut self, caller: u64) -> Vec<(u64, Served)> {
        let ids = self.remote_callers.get_mut(&caller).map(std::mem::take).unwrap_or_default();
        ids.into_iter().filter_map(|id| self.served.remove(&id).map(|served| (id, served))).collect()
    }

    pub fn being_served(&self) -> usize {
        self.served.len()
    }

    /// A process of the peer's has ended. False when it had never called.
    pub fn release_remote_caller(&mut self, number: u64) -> bool {
        let Some(calls) = self.remote_callers.remove(&number) else {
            return false;
        };
        for call_id in &calls {
            self.served.remove(call_id);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> Pending {
        Pending { context: b"from".as_slice().into(), destination: "ping".into(), since: 0 }
    }

    fn served(caller: u64) -> Served {
        Served { caller, engine: "ping".into() }
    }

    #[test]
    fn a_caller_keeps_its_number_until_it_is_released() {
        let (mut calls, limits) = (Calls::default(), Limits::default());
        let first = calls.begin(b"p1", pending(), &limits).unwrap();
        let second = calls.begin(b"p1", pending(), &limits).unwrap();
        assert!(first.new_caller && !second.new_caller);
        assert_eq!(first.caller, second.caller);
        assert_ne!(first.call_id, second.call_id);
        assert!(calls.release_own_caller(first.caller));
        assert!(!calls.release_own_caller(first.caller));
        assert_ne!(calls.begin(b"p1", pending(), &limits).unwrap().caller, first.caller);
    }

    #[test]
    fn calls_and_callers_are_bounded_at_the_limit_and_one_past_it() {
        let limits = Limits { calls_max: 2, callers_max: 1, ..Limits::default() };
        let mut calls = Calls::default();
        assert!(calls.begin(b"p1", pending(), &limits).is_ok());
        assert_eq!(calls.begin(b"p2", pending(), &limits).err(), Some(Bound::Callers), "a second caller");
        assert!(calls.begin(b"p1", pending(), &limits).is_ok());
        assert_eq!(calls.begin(b"p1", pending(), &limits).err(), Some(Bound::Calls), "a third call");
        assert!(calls.serve(1, served(1), &limits).is_ok());
        assert_eq!(calls.serve(1, served(1), &limits), Err(NotServed::Duplicate));
        assert_eq!(calls.serve(2, served(2), &limits), Err(NotServed::Full(Bound::Callers)), "a second caller");
        assert!(calls.serve(2, served(1), &limits).is_ok());
        assert_eq!(calls.serve(3, served(1), &limits), Err(NotServed::Full(Bound::Calls)), "a third call");
        assert!(calls.served(1).is_some());
        assert!(calls.serve(3, served(1), &limits).is_ok());
    }

    #[test]
    fn a_caller_that_ends_takes_its_calls_with_it() {
        let (mut calls, limits) = (Calls::default(), Limits::default());
        calls.serve(1, served(7), &limits).unwrap();
        calls.serve(2, served(8), &limits).unwrap();
        assert!(calls.release_remote_caller(7));
        assert!(!calls.release_remote_caller(7));
        assert!(calls.served(1).is_none());
        assert!(calls.served(2).is_some());
    }

    #[test]
    fn an_own_caller_that_ends_leaves_no_call_behind() {
        let (mut calls, limits) = (Calls::default(), Limits::default());
        let ended = calls.begin(b"p1", pending(), &limits).unwrap();
        let other = calls.begin(b"p2", pending(), &limits).unwrap();
        assert!(calls.release_own_caller(ended.caller));
        assert!(calls.finish(ended.call_id).is_none());
        assert_eq!(calls.pending(), 1);
        assert_eq!(calls.forget_destination("pong"), []);
        assert_eq!(calls.forget_destination("ping"), [other.call_id]);
        assert_eq!(calls.pending(), 0);
        assert!(calls.release_own_caller(other.caller));
    }

    #[test]
    fn each_engine_has_as_many_calls_in_flight_as_were_begun_and_have_not_ended() {
        let (mut calls, limits) = (Calls::default(), Limits::default());
        let to = |engine: &str| Pending { destination: engine.into(), ..pending() };
        let first = calls.begin(b"p1", to("store"), &limits).unwrap();
        calls.begin(b"p1", to("store"), &limits).unwrap();
        let other = calls.begin(b"p2", to("store"), &limits).unwrap();
        calls.begin(b"p1", to("ping"), &limits).unwrap();
        assert_eq!((calls.pending_at("store"), calls.pending_at("ping"), calls.pending_at("none")), (3, 1, 0));
        calls.finish(first.call_id);
        calls.finish(first.call_id);
        assert_eq!(calls.pending_at("store"), 2, "it ends once");
        calls.release_own_caller(other.caller);
        assert_eq!(calls.pending_at("store"), 1);
        calls.forget_destination("store");
        assert_eq!((calls.pending_at("store"), calls.pending_at("ping")), (0, 1));
    }

    #[test]
    fn engines_without_a_call_are_kept_up_to_a_bound() {
        let (mut calls, limits) = (Calls::default(), Limits::default());
        calls.begin(b"p", Pending { destination: "open".into(), ..pending() }, &limits).unwrap();
        for number in 0..3 * InFlight::KEPT {
            let destination = format!("e{number}").into();
            let begun = calls.begin(b"p", Pending { destination, ..pending() }, &limits).unwrap();
            calls.finish(begun.call_id);
            assert!(calls.in_flight.by_engine.len() <= InFlight::KEPT);
        }
        assert_eq!(calls.pending_at("open"), 1);
    }

    /// A frame of releases is handled under the lock that pushes wait for: each must cost its own calls and no more.
    #[test]
    fn releasing_many_callers_does_not_look_at_all_calls_each_time() {
        let (mut calls, limits) = (Calls::default(), Limits::default());
        let numbers = 1..=limits.callers_max as u64;
        for number in numbers.clone() {
            calls.serve(number, served(number), &limits).unwrap();
        }
        let begun = std::time::Instant::now();
        assert!(numbers.clone().all(|number| calls.release_remote_caller(number)));
        assert_eq!(calls.being_served(), 0);
        // Looking at all would take minutes.
        assert!(begun.elapsed().as_secs() < 5);
    }
}
