//! Calls in flight, both ways.
//!
//! An own call is an entry that holds whatever the driver needs to answer its caller, opaque here. It is freed by
//! reply, refusal, cancellation, its caller's end, or the session's. What belongs to one caller is found by its number, so that
//! many releases at once don't look at all calls each.
//!
//! A caller's number is that of its pid among the [`Handles`], and a call is a copy of it that goes over.

use std::collections::{HashMap, HashSet};

use crate::frame::batch::Address;
use crate::frame::forget::ForgetReason;
use crate::frame::handle_release::Release;
use crate::limits::Limits;
use crate::session::handles::{DropOutcome, Exported, Handles};
use crate::UnixMs;

#[derive(Debug)]
pub struct Pending {
    /// The driver's: how to answer the caller.
    pub context: Box<[u8]>,
    pub destination: Box<str>,
    pub since: UnixMs,
}

#[derive(Debug)]
pub(crate) struct Calls {
    pub handles: Handles,
    next_call: u64,
    /// With the number of the caller.
    pending: HashMap<u64, (u64, Pending)>,
    in_flight: InFlight,
    /// Own callers that have calls in flight, and which.
    own_callers: HashMap<u64, HashSet<u64>>,
    /// Processes of the peer's that calls are in flight to, and which.
    to_handles: HashMap<u64, HashSet<u64>>,
    /// The peer's calls that are being served, under numbers of our own: the peer's may come again after a release, when an
    /// answer to the first is still to come.
    served: HashMap<u64, Served>,
    last_served: u64,
    /// The peer's numbers for them, to ours.
    served_ids: HashMap<u64, u64>,
    /// Their callers, and which of their calls are being served, by our numbers. One that has a stand-in stays until that goes.
    remote_callers: HashMap<u64, HashSet<u64>>,
}

#[derive(Debug)]
pub(crate) struct Served {
    /// The peer's number for it.
    pub call_id: u64,
    pub caller: u64,
    /// The engine that was called: its key signs the answer. For another process its address: the realm signs, and its end
    /// waits for the answer.
    pub engine: Box<str>,
}

pub(crate) struct Begun {
    pub call_id: u64,
    pub caller: u64,
}

/// Which bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Calls,
    Callers,
    /// Counted by the handles themselves.
    Handles,
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
    pub fn new(limits: &Limits) -> Calls {
        Calls {
            handles: Handles::new(limits.handles_max, limits.references_max),
            next_call: 0,
            pending: HashMap::new(),
            in_flight: InFlight::default(),
            own_callers: HashMap::new(),
            to_handles: HashMap::new(),
            served: HashMap::new(),
            last_served: 0,
            served_ids: HashMap::new(),
            remote_callers: HashMap::new(),
        }
    }

    /// Enters a call of ours.
    pub fn begin(
        &mut self,
        caller_pid: &[u8],
        pending: Pending,
        limits: &Limits,
        exported: &mut Vec<Exported>,
    ) -> Result<Begun, Bound> {
        if self.pending.len() >= limits.calls_max {
            return Err(Bound::Calls);
        }
        let before = exported.len();
        let caller = self.handles.export(caller_pid, exported).map_err(|_| Bound::Handles)?;
        if !self.own_callers.contains_key(&caller) && self.own_callers.len() >= limits.callers_max {
            self.handles.unsend_pid(caller, exported, before);
            return Err(Bound::Callers);
        }
        self.next_call += 1;
        self.handles.hold(caller);
        self.own_callers.entry(caller).or_default().insert(self.next_call);
        if let Some(Address::Handle(number)) = Address::parse(&pending.destination) {
            self.to_handles.entry(number).or_default().insert(self.next_call);
        }
        self.in_flight.begun(&pending.destination);
        self.pending.insert(self.next_call, (caller, pending));
        Ok(Begun { call_id: self.next_call, caller })
    }

    /// The message of a call that has just begun can't go.
    pub fn never_begun(&mut self, begun: &Begun, exported: &mut Vec<Exported>) {
        self.handles.unsend_pid(begun.caller, exported, exported.len());
        self.finish(begun.call_id);
        self.handles.never_told(exported, 0);
    }

    /// Which engine a call of ours in flight was made to.
    pub fn destination(&self, call_id: u64) -> Option<&str> {
        self.pending.get(&call_id).map(|(_, pending)| &*pending.destination)
    }

    pub fn finish(&mut self, call_id: u64) -> Option<Pending> {
        let (caller, pending) = self.pending.remove(&call_id)?;
        remove_from(&mut self.own_callers, caller, call_id);
        if let Some(Address::Handle(number)) = Address::parse(&pending.destination) {
            remove_from(&mut self.to_handles, number, call_id);
        }
        self.in_flight.ended(&pending.destination);
        self.handles.unhold(caller);
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
        let to_it = self.pending.iter().filter(|(_, (_, pending))| *pending.destination == *engine);
        let mut forgotten: Vec<u64> = to_it.map(|(call_id, _)| *call_id).collect();
        // The table has no order, and what comes out is to depend on what went in alone.
        forgotten.sort_unstable();
        for call_id in &forgotten {
            self.finish(*call_id);
        }
        self.in_flight.by_engine.remove(engine);
        forgotten
    }

    pub fn older_than(&self, since: UnixMs) -> impl Iterator<Item = (u64, &Pending)> {
        self.pending
            .iter()
            .filter(move |(_, (_, pending))| pending.since <= since)
            .map(|(id, (_, pending))| (*id, pending))
    }

    /// A process of ours has ended, and nobody waits for its calls. False when the peer doesn't have it.
    pub fn export_ended(&mut self, number: u64, reason: ForgetReason) -> bool {
        for call_id in self.own_callers.remove(&number).unwrap_or_default() {
            self.finish(call_id);
        }
        self.handles.export_ended(number, reason)
    }

    /// Enters a call of the peer's, and gives our number for it. The copy of its caller's number is counted in any case.
    pub fn serve(&mut self, served: Served, limits: &Limits) -> Result<u64, NotServed> {
        let caller = served.caller;
        let refused = if self.served_ids.contains_key(&served.call_id) {
            Some(NotServed::Duplicate)
        } else if self.served.len() >= limits.calls_max {
            Some(NotServed::Full(Bound::Calls))
        } else if !self.remote_callers.contains_key(&caller) && self.remote_callers.len() >= limits.callers_max {
            Some(NotServed::Full(Bound::Callers))
        } else {
            None
        };
        if let Some(refused) = refused {
            self.handles.settle(caller);
            return Err(refused);
        }
        self.handles.serve(caller);
        self.last_served += 1;
        let number = self.last_served;
        self.remote_callers.entry(caller).or_default().insert(number);
        self.served_ids.insert(served.call_id, number);
        self.served.insert(number, served);
        Ok(number)
    }

    /// A call of the peer's was answered or refused, by our number.
    pub fn served(&mut self, number: u64) -> Option<Served> {
        let served = self.take_served(number)?;
        if let Some(calls) = self.remote_callers.get_mut(&served.caller) {
            calls.remove(&number);
            if calls.is_empty() {
                self.nothing_served_for(served.caller);
            }
        }
        Some(served)
    }

    /// The peer doesn't wait for one any more, by its number.
    pub fn released(&mut self, call_id: u64) {
        if let Some(number) = self.served_ids.get(&call_id).copied() {
            self.served(number);
        }
    }

    fn take_served(&mut self, number: u64) -> Option<Served> {
        let served = self.served.remove(&number)?;
        self.served_ids.remove(&served.call_id);
        Some(served)
    }

    fn nothing_served_for(&mut self, caller: u64) {
        if self.handles.import(caller).is_none() {
            self.remote_callers.remove(&caller);
            self.handles.served(caller);
        }
    }

    /// The calls of one of the peer's processes, taken out: what was to answer them has lost its way.
    pub fn abandon(&mut self, caller: u64) -> Vec<Served> {
        let Some(calls) = self.remote_callers.get_mut(&caller) else { return Vec::new() };
        let mut numbers: Vec<u64> = std::mem::take(calls).into_iter().collect();
        numbers.sort_unstable();
        self.nothing_served_for(caller);
        numbers.into_iter().filter_map(|number| self.take_served(number)).collect()
    }

    /// The peer's processes whose calls an engine of ours has not answered yet, each once.
    pub fn callers_at(&self, engine: &str) -> Vec<u64> {
        let at_it = self.served.values().filter(|served| *served.engine == *engine);
        let mut callers: Vec<u64> = at_it.map(|served| served.caller).collect();
        callers.sort_unstable();
        callers.dedup();
        callers
    }

    pub fn being_served(&self) -> usize {
        self.served.len()
    }

    /// A process of the peer's has ended: so have its calls, and ours to it, which the exit of its stand-in tells.
    pub fn import_ended(&mut self, number: u64) {
        for call in self.remote_callers.remove(&number).unwrap_or_default() {
            self.take_served(call);
        }
        let mut to_it: Vec<u64> = self.to_handles.remove(&number).unwrap_or_default().into_iter().collect();
        to_it.sort_unstable();
        for call_id in to_it {
            self.finish(call_id);
            // The peer still keeps it as a call that somebody may answer.
            self.handles.releases.push(Release::Call(call_id));
        }
        self.handles.import_ended(number);
    }

    /// See [`Handles::drop_import`]. `may` is asked when nothing here speaks against it.
    pub fn drop_import(&mut self, number: u64, may: impl FnOnce() -> bool) -> DropOutcome {
        let serves = self.remote_callers.get(&number).is_some_and(|calls| !calls.is_empty());
        let in_use = serves || self.to_handles.contains_key(&number) || self.handles.import_is_queued(number);
        let outcome = self.handles.drop_import(number, in_use || !may());
        if matches!(outcome, DropOutcome::Dropped { .. }) && !serves {
            self.remote_callers.remove(&number);
        }
        outcome
    }
}

fn remove_from(sets: &mut HashMap<u64, HashSet<u64>>, key: u64, value: u64) {
    if let Some(set) = sets.get_mut(&key) {
        set.remove(&value);
        if set.is_empty() {
            sets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> Pending {
        Pending { context: b"from".as_slice().into(), destination: "ping".into(), since: 0 }
    }

    fn served(call_id: u64, caller: u64) -> Served {
        Served { call_id, caller, engine: "ping".into() }
    }

    fn begin(calls: &mut Calls, caller: &[u8], limits: &Limits) -> Result<(Begun, bool), Bound> {
        let mut exported = Vec::new();
        let begun = calls.begin(caller, pending(), limits, &mut exported);
        assert!(begun.is_ok() || exported.is_empty());
        begun.map(|begun| (begun, !exported.is_empty()))
    }

    fn to_handle(calls: &mut Calls, number: u64) -> u64 {
        let pending = Pending { destination: Address::of_handle(number).into(), ..pending() };
        calls.begin(b"p1", pending, &Limits::default(), &mut Vec::new()).ok().unwrap().call_id
    }

    #[test]
    fn a_caller_keeps_its_number_until_it_ends() {
        let limits = Limits::default();
        let mut calls = Calls::new(&limits);
        let (first, new) = begin(&mut calls, b"p1", &limits).ok().unwrap();
        let (second, again) = begin(&mut calls, b"p1", &limits).ok().unwrap();
        assert!(new && !again);
        assert_eq!(first.caller, second.caller);
        assert_ne!(first.call_id, second.call_id);
        assert!(calls.export_ended(first.caller, ForgetReason::Normal));
        assert!(!calls.export_ended(first.caller, ForgetReason::Normal));
        assert_ne!(begin(&mut calls, b"p1", &limits).ok().unwrap().0.caller, first.caller);
    }

    #[test]
    fn calls_to_a_process_end_with_it_and_keep_its_stand_in_until_then() {
        let mut calls = Calls::new(&Limits::default());
        calls.handles.bind_import(5, b"stand-in").unwrap();
        let other = to_handle(&mut calls, 6);
        let answered = to_handle(&mut calls, 5);
        let open = to_handle(&mut calls, 5);
        assert!(calls.finish(answered).is_some());
        assert_eq!(calls.drop_import(5, || true), DropOutcome::InUse);
        calls.import_ended(5);
        assert!(calls.finish(open).is_none());
        assert_eq!(calls.handles.releases, [Release::Call(open)]);
        assert_eq!(calls.drop_import(5, || true), DropOutcome::Dropped { wake: false });
        assert_eq!(calls.drop_import(5, || true), DropOutcome::Unknown);
        assert!(calls.finish(other).is_some());
        assert!(calls.to_handles.is_empty() && calls.own_callers.is_empty());
    }

    #[test]
    fn a_caller_without_a_stand_in_is_dropped_when_its_last_call_is_answered() {
        let limits = Limits::default();
        let mut calls = Calls::new(&limits);
        calls.serve(served(1, 7), &limits).unwrap();
        calls.serve(served(2, 7), &limits).unwrap();
        assert!(calls.served(1).is_some());
        assert_eq!(calls.handles.releases, []);
        assert!(calls.served(2).is_some());
        assert_eq!(calls.handles.releases, [Release::Dropped { number: 7, count: 2 }]);
        calls.serve(served(3, 8), &limits).unwrap();
        calls.handles.bind_import(8, b"stand-in").unwrap();
        assert_eq!(calls.drop_import(8, || true), DropOutcome::InUse);
        assert!(calls.served(3).is_some());
        assert!(calls.remote_callers.contains_key(&8), "its stand-in answers the next call, too");
        assert_eq!(calls.drop_import(8, || false), DropOutcome::InUse, "who asks says so");
        assert_eq!(calls.drop_import(8, || true), DropOutcome::Dropped { wake: false });
        assert!(calls.remote_callers.is_empty());
    }

    #[test]
    fn calls_and_callers_are_bounded_at_the_limit_and_one_past_it() {
        let limits = Limits { calls_max: 2, callers_max: 1, ..Limits::default() };
        let mut calls = Calls::new(&limits);
        assert!(begin(&mut calls, b"p1", &limits).is_ok());
        assert_eq!(begin(&mut calls, b"p2", &limits).err(), Some(Bound::Callers), "a second caller");
        assert_eq!(calls.handles.sizes(), [1, 0, 0, 0], "nothing is left of it");
        assert!(begin(&mut calls, b"p1", &limits).is_ok());
        assert_eq!(begin(&mut calls, b"p1", &limits).err(), Some(Bound::Calls), "a third call");
        assert!(calls.serve(served(1, 1), &limits).is_ok());
        assert_eq!(calls.serve(served(1, 1), &limits), Err(NotServed::Duplicate));
        assert_eq!(calls.serve(served(2, 2), &limits), Err(NotServed::Full(Bound::Callers)), "a second caller");
        assert!(calls.serve(served(2, 1), &limits).is_ok());
        assert_eq!(calls.serve(served(3, 1), &limits), Err(NotServed::Full(Bound::Calls)), "a third call");
        assert!(calls.served(1).is_some());
        assert!(calls.serve(served(3, 1), &limits).is_ok());
    }

    #[test]
    fn a_call_of_a_number_that_was_released_is_another() {
        let limits = Limits::default();
        let mut calls = Calls::new(&limits);
        let first = calls.serve(served(9, 7), &limits).unwrap();
        calls.released(9);
        let second = calls.serve(served(9, 7), &limits).unwrap();
        calls.import_ended(7);
        let third = calls.serve(served(9, 8), &limits).unwrap();
        assert_eq!(calls.serve(served(9, 8), &limits), Err(NotServed::Duplicate));
        assert!(calls.served(first).is_none() && calls.served(second).is_none());
        assert_eq!(calls.served(third).map(|served| (served.call_id, served.caller)), Some((9, 8)));
        assert!(calls.served.is_empty() && calls.served_ids.is_empty());
    }

    #[test]
    fn a_caller_that_ends_takes_its_calls_with_it() {
        let limits = Limits::default();
        let mut calls = Calls::new(&limits);
        calls.serve(served(1, 7), &limits).unwrap();
        calls.serve(served(2, 8), &limits).unwrap();
        calls.import_ended(7);
        calls.import_ended(7);
        assert!(calls.served(1).is_none());
        assert!(calls.served(2).is_some());
    }

    #[test]
    fn an_own_caller_that_ends_leaves_no_call_behind() {
        let limits = Limits::default();
        let mut calls = Calls::new(&limits);
        let (ended, _) = begin(&mut calls, b"p1", &limits).ok().unwrap();
        let (other, _) = begin(&mut calls, b"p2", &limits).ok().unwrap();
        assert!(calls.export_ended(ended.caller, ForgetReason::Crashed));
        assert!(calls.finish(ended.call_id).is_none());
        assert_eq!(calls.pending(), 1);
        assert_eq!(calls.forget_destination("pong"), []);
        assert_eq!(calls.forget_destination("ping"), [other.call_id]);
        assert_eq!(calls.pending(), 0);
        assert!(calls.export_ended(other.caller, ForgetReason::Normal));
    }

    #[test]
    fn each_engine_has_as_many_calls_in_flight_as_were_begun_and_have_not_ended() {
        let limits = Limits::default();
        let mut calls = Calls::new(&limits);
        let to = |engine: &str| Pending { destination: engine.into(), ..pending() };
        let first = calls.begin(b"p1", to("store"), &limits, &mut Vec::new()).ok().unwrap();
        calls.begin(b"p1", to("store"), &limits, &mut Vec::new()).ok().unwrap();
        let other = calls.begin(b"p2", to("store"), &limits, &mut Vec::new()).ok().unwrap();
        calls.begin(b"p1", to("ping"), &limits, &mut Vec::new()).ok().unwrap();
        assert_eq!((calls.pending_at("store"), calls.pending_at("ping"), calls.pending_at("none")), (3, 1, 0));
        calls.finish(first.call_id);
        calls.finish(first.call_id);
        assert_eq!(calls.pending_at("store"), 2, "it ends once");
        calls.export_ended(other.caller, ForgetReason::Normal);
        assert_eq!(calls.pending_at("store"), 1);
        calls.forget_destination("store");
        assert_eq!((calls.pending_at("store"), calls.pending_at("ping")), (0, 1));
    }

    #[test]
    fn engines_without_a_call_are_kept_up_to_a_bound() {
        let limits = Limits::default();
        let mut calls = Calls::new(&limits);
        calls.begin(b"p", Pending { destination: "open".into(), ..pending() }, &limits, &mut Vec::new()).ok().unwrap();
        for number in 0..3 * InFlight::KEPT {
            let destination = format!("e{number}").into();
            let begun = calls.begin(b"p", Pending { destination, ..pending() }, &limits, &mut Vec::new()).ok().unwrap();
            calls.finish(begun.call_id);
            assert!(calls.in_flight.by_engine.len() <= InFlight::KEPT);
        }
        assert_eq!(calls.pending_at("open"), 1);
    }

    /// A frame of releases is handled under the lock that pushes wait for: each must cost its own calls and no more.
    #[test]
    fn who_waits_for_an_engine_is_known_until_it_is_answered() {
        let limits = Limits::default();
        let mut calls = Calls::new(&limits);
        let first = calls.serve(served(1, 7), &limits).unwrap();
        calls.serve(served(2, 7), &limits).unwrap();
        calls.serve(served(3, 5), &limits).unwrap();
        calls.serve(Served { engine: "another".into(), ..served(4, 9) }, &limits).unwrap();
        let engine = served(0, 0).engine;
        assert_eq!(calls.callers_at(&engine), [5, 7]);
        calls.served(first);
        assert_eq!(calls.callers_at(&engine), [5, 7], "it waits for another answer");
        calls.released(2);
        assert_eq!(calls.callers_at(&engine), [5]);
        calls.import_ended(5);
        assert_eq!(calls.callers_at(&engine), []);
    }

    #[test]
    fn releasing_many_callers_does_not_look_at_all_calls_each_time() {
        let limits = Limits::default();
        let mut calls = Calls::new(&limits);
        let numbers = 1..=limits.callers_max as u64;
        for number in numbers.clone() {
            calls.serve(served(number, number), &limits).unwrap();
        }
        // Looking at all each time would take minutes.
        numbers.clone().for_each(|number| calls.import_ended(number));
        assert_eq!(calls.being_served(), 0);
    }
}
