//! What was sent, and what may come of it. It sees what drivers give to the cores and what these give back, believes neither, and
//! knows nothing of frames, links or time.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::payload::Process;

/// A session's id, as both sides have it.
pub type SessionId = [u8; 32];

/// What must hold. `docs/testing.md` says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invariant {
    /// Nothing is delivered that its sender didn't send to that receiver with that content.
    Authentic,
    AtMostOnce,
    InOrder,
    /// What was sent in a session that lives is there when nothing moves any more.
    ExactlyOnce,
    /// What was lost with a session is at most what its owner was told.
    LossIsTold,
    /// Each call ends, once.
    CallsEnd,
    /// Each monitor fires once, and not while what it watches lives.
    MonitorsFireOnce,
    /// A pid names the same process wherever it goes, and its end is told of no living one.
    PidsNameOne,
    DirectoriesConverge,
    Bounded,
    /// Links of realms that keep the rules, over carriers that nobody has touched, never end for a rule.
    RulesKept,
    /// Who knows too little, or has another's bytes, gets nowhere.
    StrangersStayOut,
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cast,
    Send,
    Call,
    Reply,
    Exit,
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    Engine(String),
    Process(Process),
    /// The caller of the call of this number.
    Caller(u64),
}

/// A pid in a payload, as its sender means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mention {
    Process(Process),
    Engine { realm: u8, name: String },
}

#[derive(Clone, Debug)]
pub struct Message {
    pub kind: Kind,
    pub from: u8,
    pub to: u8,
    /// An engine, or the realm itself for the empty name.
    pub source: String,
    pub target: Target,
    pub filler: usize,
    pub mentions: Vec<Mention>,
    /// Where it was pushed.
    pub session: SessionId,
    lane: usize,
    place: u64,
    delivered: bool,
    /// It was taken back, or refused.
    void: bool,
    /// Its sender's system has died since.
    forgiven: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    Replied,
    Refused,
    /// Its caller has given up.
    TimedOut,
    CallerDied,
    /// The engine or process was forgotten or has ended.
    TargetGone,
    SessionEnded,
}

#[derive(Debug, Default)]
pub struct Ledger {
    messages: Vec<Message>,
    lanes: HashMap<(u8, String, u8, Target), usize>,
    /// Of each lane: the next place, and the last that was delivered.
    places: Vec<(u64, u64)>,
    ends: HashMap<u64, CallEnd>,
    /// Under session, exporter and number.
    exports: HashMap<(SessionId, u8, u64), Process>,
    dead: HashSet<Process>,
    fired: HashSet<u64>,
    /// Messages that were told as lost, by sender and receiver.
    gaps: BTreeMap<(u8, u8), u64>,
    pub violations: Vec<Violation>,
    pub delivered: u64,
    pub calls_ended: u64,
    pub monitors_fired: u64,
}

impl Ledger {
    pub fn violate(&mut self, invariant: Invariant, what: impl Into<String>) {
        self.violations.push(Violation { invariant, what: what.into() });
    }

    pub fn check(&mut self, holds: bool, invariant: Invariant, what: impl FnOnce() -> String) {
        if !holds {
            self.violate(invariant, what());
        }
    }

    // What is sent.

    /// The number that the next message will have.
    pub fn next(&self) -> u64 {
        self.messages.len() as u64
    }

    /// A message was taken by the core.
    #[allow(clippy::too_many_arguments)]
    pub fn sent(
        &mut self,
        kind: Kind,
        session: SessionId,
        (from, to): (u8, u8),
        source: &str,
        target: Target,
        filler: usize,
        mentions: Vec<Mention>,
    ) -> u64 {
        let key = (from, source.to_owned(), to, target.clone());
        let lanes = self.lanes.len();
        let lane = *self.lanes.entry(key).or_insert(lanes);
        if lane == self.places.len() {
            self.places.push((1, 0));
        }
        let place = self.places[lane].0;
        self.places[lane].0 += 1;
        let source = source.to_owned();
        let message = Message {
            kind,
            from,
            to,
            source,
            target,
            filler,
            mentions,
            session,
            lane,
            place,
            delivered: false,
            void: false,
            forgiven: false,
        };
        self.messages.push(message);
        self.next() - 1
    }

    /// It will not go, and its sender knows.
    pub fn taken_back(&mut self, number: u64) {
        if let Some(message) = self.messages.get_mut(number as usize) {
            message.void = true;
        }
    }

    pub fn message(&self, number: u64) -> Option<&Message> {
        self.messages.get(number as usize)
    }

    pub fn messages(&self) -> impl Iterator<Item = (u64, &Message)> {
        self.messages.iter().enumerate().map(|(number, message)| (number as u64, message))
    }

    // What comes.

    /// A message has come to realm `at` on a session with `peer`. Returns what was sent, if it was.
    #[allow(clippy::too_many_arguments)]
    pub fn came(
        &mut self,
        kind: Kind,
        number: u64,
        filler: usize,
        (peer, at): (u8, u8),
        source: &str,
        target: &Target,
        session: SessionId,
    ) -> Option<Message> {
        let Some(message) = self.messages.get_mut(number as usize) else {
            self.violate(Invariant::Authentic, format!("message {number} came to {at}, and nobody has sent it"));
            return None;
        };
        // Before the peer has heard of an engine, and after, the realm speaks for it.
        let named = source.is_empty() || source == message.source;
        let right = message.kind == kind
            && (message.from, message.to) == (peer, at)
            && message.target == *target
            && message.filler == filler
            && named
            && !message.void;
        let sent = message.clone();
        if !right {
            let came = format!("{kind:?} of {filler} bytes from {source:?} of {peer} to {target:?} of {at}");
            self.violate(Invariant::Authentic, format!("message {number}: {came}, which was sent as {sent:?}"));
            return None;
        }
        // What was taken over from a session before is of the later one; nothing is of an earlier.
        if std::mem::replace(&mut message.delivered, true) {
            self.violate(
                Invariant::AtMostOnce,
                format!("message {number} came again: {sent:?}, in {}", short(&session)),
            );
            return None;
        }
        let last = &mut self.places[sent.lane].1;
        if sent.place <= *last {
            let what =
                format!("message {number} ({} of its sender to this) came after {}: {sent:?}", sent.place, *last);
            self.violate(Invariant::InOrder, what);
            return None;
        }
        *last = sent.place;
        self.delivered += 1;
        Some(sent)
    }

    // Calls.

    /// True: it is the first end of this call.
    pub fn call_ended(&mut self, number: u64, end: CallEnd) {
        let known = self.messages.get(number as usize).is_some_and(|message| message.kind == Kind::Call);
        self.check(known, Invariant::CallsEnd, || format!("an end of {number}, which is no call: {end:?}"));
        if let Some(before) = self.ends.insert(number, end) {
            self.violate(Invariant::CallsEnd, format!("call {number} ended twice: {before:?}, then {end:?}"));
        }
        self.calls_ended += 1;
    }

    pub fn is_open(&self, number: u64) -> bool {
        !self.ends.contains_key(&number)
    }

    // Processes.

    /// A core has said that this process of `realm`'s has this number in the session.
    pub fn exported(&mut self, session: SessionId, realm: u8, number: u64, process: Process) {
        if let Some(before) = self.exports.insert((session, realm, number), process) {
            self.check(before == process, Invariant::PidsNameOne, || {
                format!("{number} of {realm} was {before:?}, and is {process:?}")
            });
        }
    }

    pub fn export(&self, session: SessionId, realm: u8, number: u64) -> Option<Process> {
        self.exports.get(&(session, realm, number)).copied()
    }

    pub fn died(&mut self, process: Process) {
        self.dead.insert(process);
    }

    /// A monitor's message has come.
    pub fn fired(&mut self, monitor: u64, why: &str) {
        self.monitors_fired += 1;
        if !self.fired.insert(monitor) {
            self.violate(Invariant::MonitorsFireOnce, format!("monitor {monitor} fired again: {why}"));
        }
    }

    /// The realm's system has died, and with it whatever it had to send and whoever waited.
    pub fn crashed(&mut self, realm: u8) {
        let open: Vec<u64> = self
            .messages()
            .filter(|(number, message)| message.from == realm && message.kind == Kind::Call && self.is_open(*number))
            .filter(|(_, message)| !message.void)
            .map(|(number, _)| number)
            .collect();
        open.into_iter().for_each(|call| self.call_ended(call, CallEnd::CallerDied));
        for message in self.messages.iter_mut().filter(|message| message.from == realm) {
            message.forgiven = true;
        }
    }

    pub fn is_dead(&self, process: Process) -> bool {
        self.dead.contains(&process)
    }

    // Loss.

    /// A session ended, and its owner was told that so many were not acknowledged, or could not be kept.
    pub fn lost(&mut self, from: u8, to: u8, messages: u64) {
        *self.gaps.entry((from, to)).or_default() += messages;
    }

    /// Nothing moves any more. `living`: the session of each two realms that have one at both ends. `dropped`: what the cores of this
    /// direction have counted as dropped on its way out.
    pub fn settle(&mut self, living: &HashMap<(u8, u8), SessionId>, dropped: &HashMap<(u8, u8), u64>) {
        let mut missing: BTreeMap<(u8, u8), (u64, u64)> = BTreeMap::new();
        let (mut late, mut early) = (Vec::new(), Vec::new());
        for (number, message) in self.messages() {
            let way = (message.from, message.to);
            let Some(session) = living.get(&way) else { continue };
            if message.delivered || message.void || message.forgiven {
                continue;
            }
            // What is for a process that has ended is for nobody.
            let gone = matches!(message.target, Target::Process(process) if self.is_dead(process));
            let counts = matches!(message.kind, Kind::Cast | Kind::Send | Kind::Exit) && !gone;
            let missing = missing.entry(way).or_default();
            match message.session == *session {
                // A reply whose call has ended otherwise is nobody's; a call that has ended may have ended before it went.
                true if counts => {
                    missing.0 += 1;
                    late.push((way, number));
                }
                // Signals and what is for single processes are not taken over, and nobody counts them.
                false if counts && message.kind != Kind::Exit && !matches!(message.target, Target::Process(_)) => {
                    missing.1 += 1;
                    early.push((way, number));
                }
                _ => {}
            }
        }
        for (way, (here, before)) in missing {
            let may = dropped.get(&way).copied().unwrap_or(0);
            if here > may {
                let first: Vec<_> =
                    late.iter().filter(|(of, _)| *of == way).take(3).map(|(_, number)| *number).collect();
                let sent: Vec<_> = first.iter().map(|number| &self.messages[*number as usize]).collect();
                let what =
                    format!("{here} messages {way:?} are missing, {may} were dropped; the first: {first:?} {sent:?}");
                self.violate(Invariant::ExactlyOnce, what);
            }
            let told = self.gaps.get(&way).copied().unwrap_or(0);
            if here + before > told + may {
                let first = early
                    .iter()
                    .find(|(of, _)| *of == way)
                    .map(|(_, number)| (*number, &self.messages[*number as usize]));
                let what = format!(
                    "{before} messages {way:?} of ended sessions are missing, {told} were told, {may} dropped; the first: {first:?}"
                );
                self.violate(Invariant::LossIsTold, what);
            }
        }
        let open: Vec<u64> = self
            .messages()
            .filter(|(number, message)| message.kind == Kind::Call && !message.void && self.is_open(*number))
            .map(|(number, _)| number)
            .collect();
        if let Some(first) = open.first() {
            let what =
                format!("{} calls have not ended; the first: {first} {:?}", open.len(), self.messages[*first as usize]);
            self.violate(Invariant::CallsEnd, what);
        }
    }
}

/// The first bytes of a session's id.
pub fn short(session: &SessionId) -> String {
    session[..3].iter().map(|byte| format!("{byte:02x}")).collect()
}
