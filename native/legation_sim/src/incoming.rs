//! What comes to a realm's processes: it is held against what was sent, and something is done with it.

use legation_proto::frame::batch::Refusal;
use legation_proto::receipt;
use legation_proto::session::{Destination, DropOutcome, Event, Locals, TranslateError};

use crate::app::ANSWER_MAX_US;
use crate::ledger::{CallEnd, Invariant, Kind, Mention, Target};
use crate::payload::{self, Process};
use crate::realm::{network, OpenCall, Realm, Watched};
use crate::world::{Happening, Of, Sabotage, World};

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Came {
    pub of: Of,
    pub kind: Kind,
    pub source: String,
    pub target: Target,
    pub payload: Vec<u8>,
}

/// What a payload needs to be a term here.
struct Here<'a> {
    realm: &'a mut Realm,
    stand_ins: Vec<(u64, Process)>,
}

impl Locals for Here<'_> {
    fn pid(&mut self, number: u64) -> Option<Vec<u8>> {
        let process = self.realm.spawn();
        self.stand_ins.push((number, process));
        Some(process.raw())
    }

    fn engine(&mut self, name: &str) -> Option<Vec<u8>> {
        self.realm.engines.get(name).map(|process| process.raw())
    }

    fn reference(&mut self) -> Vec<u8> {
        let number = self.realm.spawn().number;
        [&[90, 0, 1, 119, 1, b'a' + self.realm.id][..], &1u32.to_be_bytes(), &number.to_be_bytes()].concat()
    }

    fn nobody(&mut self) -> Vec<u8> {
        self.realm.spawn().raw()
    }
}

impl World {
    /// One event of a session. Nothing may be asked here that reads.
    pub fn event(&mut self, of: Of, event: Event<'_>) {
        if self.is_liar(of.peer) {
            return self.event_of_liar(of, event);
        }
        match event {
            Event::Deliver { delivery, destination, source, payload, handles, receipt } => {
                self.check_receipt(of, &destination, source, payload, receipt);
                let kind = match delivery {
                    legation_proto::session::Delivery::Send => Kind::Send,
                    legation_proto::session::Delivery::Cast => Kind::Cast,
                };
                let target = self.target(of, &destination);
                self.came(of, kind, source, target, payload, handles);
            }
            Event::Call { destination, source, call_id, caller, payload, handles, receipt, .. } => {
                self.check_receipt(of, &destination, source, payload, receipt);
                let target = self.target(of, &destination);
                let number = self.came(of, Kind::Call, source, target.clone(), payload, handles);
                self.serve(of, call_id, caller, number, &target);
            }
            Event::Reply { context, payload, handles } => {
                let call = number_of(context);
                self.came(of, Kind::Reply, "", Target::Caller(call), payload, handles);
                self.ends_here(of, call, CallEnd::Replied);
            }
            Event::Refused { context, .. } => self.ends_here(of, number_of(context), CallEnd::Refused),
            Event::Exit { from, destination, source, payload, handles, .. } => {
                let target = self.target(of, &destination);
                if self.came(of, Kind::Exit, source, target, payload, handles).is_some() {
                    self.stand_in(of, from);
                }
                if self.session(of).is_some_and(|session| session.core.settle_handle(from)) {
                    self.wake_session(of);
                }
            }
            Event::Learned(learn) => {
                let process = self.realms[of.realm].spawn();
                let (name, key) = (learn.engine.clone(), learn.key);
                let Some(session) = self.session(of) else { return };
                if let Some(known) = session.learned.get_mut(&name) {
                    known.1 = key;
                    return;
                }
                session.core.bind_engine(&process.raw(), &name);
                if self.sabotage != Some(Sabotage::ForgetLearned) {
                    self.session(of).map(|session| session.learned.insert(name, (process, key)));
                }
            }
            Event::Forgotten { engine, term, .. } => {
                let handles = term.filter(|term| term.handles).map(|term| term.payload);
                self.discard(of, handles);
                self.forgotten(of, engine);
            }
            Event::HandleEnded { number, term, .. } => {
                let handles = term.filter(|term| term.handles).map(|term| term.payload);
                self.discard(of, handles);
                self.handle_ended(of, number);
            }
            Event::Unexported { number } => {
                if let Some(session) = self.session(of) {
                    session.exports.remove(&number);
                }
            }
            Event::Rotated(_) | Event::TimeoutIn(_) | Event::Closed { .. } => {}
        }
    }

    /// To whoever knows no more than the sender's first key it shows what has come.
    fn check_receipt(
        &mut self,
        of: Of,
        destination: &Destination<'_>,
        source: &str,
        payload: &[u8],
        receipt: Option<Vec<u8>>,
    ) {
        let (Some(mut receipt), Destination::Engine(engine)) = (receipt, destination) else { return };
        if self.sabotage == Some(Sabotage::ChangeReceipt) {
            let middle = receipt.len() / 2;
            receipt[middle] ^= 1;
        }
        self.stats.operation("receipts checked");
        let peer = &self.realms[of.peer];
        let (from, to) = (peer.realm_id, self.realms[of.realm].realm_id);
        let wrong = match receipt::verify(&receipt, &peer.key, &network().id().0) {
            Ok(shown) => {
                let right = (shown.source, shown.destination) == (from, to)
                    && (&*shown.source_engine, &*shown.destination_engine) == (source, *engine)
                    && shown.payload == payload;
                (!right).then(|| format!("{shown:?}"))
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(wrong) = wrong {
            let what =
                format!("a receipt for what {source:?} of {} sent to {engine:?} of {}: {wrong}", of.peer, of.realm);
            self.violate(Invariant::Authentic, what);
        }
    }

    fn target(&self, of: Of, destination: &Destination<'_>) -> Target {
        match destination {
            Destination::Engine(name) => Target::Engine((*name).to_owned()),
            Destination::Process { pid, .. } => Process::parse(pid).map_or_else(
                || Target::Process(Process { realm: of.realm as u8, boot: 0, number: 0 }),
                Target::Process,
            ),
        }
    }

    fn discard(&mut self, of: Of, payload: Option<&[u8]>) {
        let Some(payload) = payload else { return };
        if self.session(of).is_some_and(|session| session.core.discard_in(payload)) {
            self.wake_session(of);
        }
    }

    /// The message's number, if it is one.
    fn came(&mut self, of: Of, kind: Kind, source: &str, target: Target, payload: &[u8], handles: bool) -> Option<u64> {
        let payload = match handles {
            false => payload.to_vec(),
            true => self.translate(of, payload)?,
        };
        let came = Came { of, kind, source: source.to_owned(), target, payload };
        match self.sabotage {
            Some(sabotage) if kind == Kind::Cast && self.ledger.delivered > 50 => self.distort(sabotage, came),
            _ => self.check(&came),
        }
    }

    /// A fault of our own between the core and the ledger.
    fn distort(&mut self, sabotage: Sabotage, mut came: Came) -> Option<u64> {
        match sabotage {
            Sabotage::DeliverTwice => {
                self.check(&came);
            }
            // With the next of the same two.
            Sabotage::Swap => match self.held_back.take() {
                None => {
                    self.held_back = Some(came);
                    return None;
                }
                Some(first) => {
                    let same = (first.of, &first.source, &first.target) == (came.of, &came.source, &came.target);
                    if !same {
                        self.check(&first);
                        self.held_back = Some(came);
                        return None;
                    }
                    self.check(&came);
                    came = first;
                }
            },
            Sabotage::Drop => {
                self.sabotage = None;
                return None;
            }
            Sabotage::Corrupt => {
                let last = came.payload.len() - 2;
                came.payload[last] ^= 1;
            }
            Sabotage::Misdeliver => came.target = Target::Engine("another".into()),
            Sabotage::Forge => came.source = "another".into(),
            _ => {}
        }
        self.check(&came)
    }

    fn check(&mut self, came: &Came) -> Option<u64> {
        let Came { of, kind, source, target, payload } = came;
        let id = self.session(*of)?.id;
        let Some(read) = payload::decode(payload) else {
            let what = format!("{kind:?} from {source:?} of {} to {target:?} of {}: {payload:?}", of.peer, of.realm);
            self.violate(Invariant::Authentic, what);
            return None;
        };
        let way = (of.peer as u8, of.realm as u8);
        let sent = self.ledger.came(*kind, read.number, read.filler, way, source, target, id)?;
        let adopted = sent.session != id;
        if sent.mentions.len() != read.pids.len() {
            self.violate(Invariant::Authentic, format!("message {} has other pids: {sent:?}", read.number));
            return None;
        }
        for (mention, raw) in sent.mentions.iter().zip(&read.pids) {
            self.check_mention(*of, mention, raw, adopted);
        }
        Some(read.number)
    }

    /// A pid that came is the process that its sender meant.
    fn check_mention(&mut self, of: Of, mention: &Mention, raw: &[u8], adopted: bool) {
        let Some(local) = Process::parse(raw) else {
            return self.violate(Invariant::PidsNameOne, format!("{raw:?} is no pid"));
        };
        let Some(session) = self.session(of) else { return };
        let (id, number) =
            (session.id, session.stand_ins.iter().find(|(_, own)| **own == local).map(|(number, _)| *number));
        let stands_for = number.map(|number| self.ledger.export(id, of.peer as u8, number));
        let (realm, engines) = (of.realm as u8, &self.realms[of.realm].engines);
        // One that nobody has is nobody's pid.
        let nobody = number.is_none() && local.realm == realm;
        let right = match (mention, stands_for) {
            (Mention::Process(process), Some(exported)) => {
                // What stood for a process in the session before means nothing in this one.
                exported == Some(*process) || adopted && exported.is_some_and(|process| self.ledger.is_dead(process))
            }
            (Mention::Process(process), None) if process.realm == realm => {
                local == *process || nobody && (self.ledger.is_dead(*process) || adopted)
            }
            (Mention::Process(_), None) => false,
            (Mention::Engine { name, .. }, None) => {
                local == engines.get(name).copied().unwrap_or(local) || nobody && adopted
            }
            (Mention::Engine { .. }, Some(exported)) => {
                adopted && exported.is_some_and(|process| self.ledger.is_dead(process))
            }
        };
        if !right || self.sabotage == Some(Sabotage::NameAnother) {
            let what = format!("{mention:?} is {local:?} at {}, which stands for {stands_for:?}", of.realm);
            self.violate(Invariant::PidsNameOne, what);
        }
    }

    fn translate(&mut self, of: Of, payload: &[u8]) -> Option<Vec<u8>> {
        loop {
            let core = self.session(of)?.core.clone();
            let mut here = Here { realm: &mut self.realms[of.realm], stand_ins: Vec::new() };
            let translated = core.translate_in(payload, &mut here);
            let made = here.stand_ins;
            match translated {
                Ok(translated) => {
                    for (number, process) in made {
                        self.session(of)?.stand_ins.insert(number, process);
                        self.check_bound(of, number);
                    }
                    return Some(translated);
                }
                Err(TranslateError::Full) if self.drop_stand_ins(of, 8) > 0 => {}
                Err(error) => {
                    if error == TranslateError::Full {
                        self.discard(of, Some(payload));
                    }
                    // Nobody can have it: it counts as lost, and its sender is not told.
                    self.unreadable(payload);
                    return None;
                }
            }
        }
    }

    fn unreadable(&mut self, payload: &[u8]) {
        if let Some(number) = payload::number(payload) {
            self.ledger.taken_back(number);
        }
    }

    /// A stand-in is of something that the peer has given.
    fn check_bound(&mut self, of: Of, number: u64) {
        let Some(id) = self.session(of).map(|session| session.id) else { return };
        if self.ledger.export(id, of.peer as u8, number).is_none() {
            self.violate(Invariant::PidsNameOne, format!("{} was never given {number} by {}", of.realm, of.peer));
        }
    }

    pub fn stand_in(&mut self, of: Of, number: u64) -> Option<Process> {
        if let Some(process) = self.session(of)?.stand_ins.get(&number) {
            return Some(*process);
        }
        let process = self.realms[of.realm].spawn();
        let session = self.session(of)?;
        session.core.bind_import(number, &process.raw()).ok()?;
        session.stand_ins.insert(number, process);
        self.check_bound(of, number);
        Some(process)
    }

    /// Those that nobody watches go, as many. Returns how many went.
    pub fn drop_stand_ins(&mut self, of: Of, most: usize) -> usize {
        let Some(session) = self.session(of) else { return 0 };
        let watched = |number: &u64| session.monitors.values().any(|watched| *watched == Watched::StandIn(*number));
        let idle: Vec<u64> = session.stand_ins.keys().copied().filter(|number| !watched(number)).collect();
        let (mut dropped, mut wake, mut dead) = (0, false, Vec::new());
        for number in idle {
            if dropped == most {
                break;
            }
            if let DropOutcome::Dropped { wake: woken } = session.core.drop_import(number) {
                wake |= woken;
                dropped += 1;
                dead.extend(session.stand_ins.remove(&number));
            }
        }
        dead.into_iter().for_each(|process| self.ledger.died(process));
        if wake {
            self.wake_session(of);
        }
        dropped
    }

    // Calls.

    fn serve(&mut self, of: Of, call_id: u64, caller: u64, number: Option<u64>, target: &Target) {
        if self.chance(40) && self.plan.limits[of.realm].identifiers {
            self.stand_in(of, caller);
        }
        let here = match target {
            Target::Engine(name) => self.realms[of.realm].engines.contains_key(name),
            Target::Process(process) => !self.ledger.is_dead(*process),
            Target::Caller(_) => false,
        };
        let refusal = match number {
            None => Some(Refusal::Undecodable),
            Some(_) if !here => Some(Refusal::Noproc),
            Some(_) if self.chance(3) => Some(Refusal::Forbidden),
            _ => None,
        };
        let wait = self.random.u64(0..ANSWER_MAX_US);
        let at_once = !self.active || self.chance(50);
        let Some(session) = self.session(of) else { return };
        if let Some(refusal) = refusal {
            if session.core.refuse(call_id, refusal) {
                self.wake_session(of);
            }
            return;
        }
        session.serving.insert(call_id, number.unwrap_or_default());
        match at_once {
            true => self.answer(of, call_id),
            false => self.after(wait, Happening::Answer { of, number: call_id }),
        }
    }

    /// An answer, or the core's own end, has come for a call of ours.
    fn ends_here(&mut self, of: Of, call: u64, end: CallEnd) {
        let Some(session) = self.session(of) else { return };
        let known = session.calls.remove(&call).is_some();
        if !known {
            let what = format!("{end:?} for call {call} of {}, which is not in flight there", of.realm);
            return self.violate(Invariant::CallsEnd, what);
        }
        if self.sabotage == Some(Sabotage::LoseAnswer) {
            return;
        }
        self.call_ends(call, end);
    }

    pub fn call_ends(&mut self, call: u64, end: CallEnd) {
        self.ledger.call_ended(call, end);
        if self.sabotage == Some(Sabotage::EndCallTwice) {
            self.ledger.call_ended(call, end);
        }
    }

    /// Calls for which this is the end.
    fn end_calls(&mut self, of: Of, which: impl Fn(&OpenCall) -> bool) {
        let Some(session) = self.session(of) else { return };
        let ended: Vec<u64> =
            session.calls.iter().filter(|(_, call)| which(call)).map(|(message, _)| *message).collect();
        for message in ended {
            if let Some(session) = self.session(of) {
                session.calls.remove(&message);
            }
            self.call_ends(message, CallEnd::TargetGone);
        }
    }

    // Ends.

    fn forgotten(&mut self, of: Of, engine: &str) {
        let Some(id) = self.session(of).map(|session| session.id) else { return };
        let sent = self.realms[of.peer].peers[of.realm]
            .as_ref()
            .and_then(|peer| peer.session.as_ref())
            .filter(|session| session.id == id)
            .map(|session| session.forgets_sent.get(engine).copied().unwrap_or(0));
        let Some(session) = self.session(of) else { return };
        let came = session.forgets_came.entry(engine.to_owned()).or_default();
        *came += 1;
        let came = *came;
        let proxy = session.learned.remove(engine);
        if let Some((process, _)) = &proxy {
            session.core.unbind(&process.raw());
        }
        // Where the other side has ended the session meanwhile it can't be asked.
        if sent.is_some_and(|sent| came > sent) || proxy.is_none() && self.sabotage != Some(Sabotage::ForgetLearned) {
            self.violate(Invariant::MonitorsFireOnce, format!("{engine} of {} was forgotten {came} times", of.peer));
        }
        if let Some((process, _)) = proxy {
            self.ledger.died(process);
        }
        let target = Target::Engine(engine.to_owned());
        self.end_calls(of, |call| call.target == target);
        self.fire(of, &Watched::Engine(engine.to_owned()), "forgotten");
    }

    fn handle_ended(&mut self, of: Of, number: u64) {
        let Some(session) = self.session(of) else { return };
        let id = session.id;
        let stand_in = session.stand_ins.remove(&number);
        match self.ledger.export(id, of.peer as u8, number) {
            // A stand-in of theirs that was given to us is nobody's from the start.
            Some(process) if self.ledger.is_dead(process) || process.realm as usize != of.peer => {}
            process => {
                self.violate(Invariant::PidsNameOne, format!("{number} of {} has ended, {process:?} lives", of.peer))
            }
        }
        if let Some(process) = stand_in {
            self.ledger.died(process);
        }
        self.end_calls(of, |call| call.number == Some(number));
        let Some(session) = self.session(of) else { return };
        if let DropOutcome::Dropped { wake: true } = session.core.drop_import(number) {
            self.wake_session(of);
        }
        self.fire(of, &Watched::StandIn(number), "ended");
    }

    fn fire(&mut self, of: Of, what: &Watched, why: &str) {
        let Some(session) = self.session(of) else { return };
        let fired: Vec<u64> =
            session.monitors.iter().filter(|(_, watched)| *watched == what).map(|(monitor, _)| *monitor).collect();
        for monitor in fired {
            if self.sabotage == Some(Sabotage::LoseDown) {
                return;
            }
            if let Some(session) = self.session(of) {
                session.monitors.remove(&monitor);
            }
            self.monitor_fires(monitor, why);
        }
    }

    pub fn monitor_fires(&mut self, monitor: u64, why: &str) {
        self.ledger.fired(monitor, why);
        if self.sabotage == Some(Sabotage::FireTwice) {
            self.ledger.fired(monitor, why);
        }
    }

    /// Who keeps no rule has sent it: it is his, whatever it says.
    fn event_of_liar(&mut self, of: Of, event: Event<'_>) {
        let Some(core) = self.session(of).map(|session| session.core.clone()) else { return };
        let (payload, handles) = match event {
            Event::Deliver { payload, handles, .. } | Event::Reply { payload, handles, .. } => (payload, handles),
            Event::Call { call_id, payload, handles, .. } => {
                core.refuse(call_id, Refusal::Noproc);
                (payload, handles)
            }
            Event::Exit { from, payload, handles, .. } => {
                core.settle_handle(from);
                (payload, handles)
            }
            Event::HandleEnded { number, .. } => {
                core.drop_import(number);
                return;
            }
            _ => return,
        };
        self.stats.operation("heard of liars");
        if handles {
            core.discard_in(payload);
        }
        self.wake_session(of);
    }
}

fn number_of(context: &[u8]) -> u64 {
    context.try_into().map_or(u64::MAX, u64::from_be_bytes)
}
