//! Two links over a simulated carrier, in virtual time.
//!
//! ```text
//!  Side (Link) ─ flush ─► tamper ─► cut ─► latency ─► handle ─ Side (Link)
//! ```
//!
//! A side is driven as the NIF and the Elixir processes drive it: it is flushed when something said `wake` and at no
//! other time, a fault is flushed once more and ends it.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};
use std::sync::{Arc, Mutex};

use legation_channel::channel::Profile;
use legation_channel::knock::{KnockMemory, KnockSettings};
use legation_channel::link::{Link, LinkConfig, LinkEvent, LinkFault, LinkRandom, Resume};
use legation_proto::error::CloseCode;
use legation_proto::frame::batch::{Address, Refusal};
use legation_proto::frame::cert::Cert;
use legation_proto::frame::forget::{Forget, ForgetReason};
use legation_proto::frame::hello::Offer;
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::hello::SignRequest;
use legation_proto::identity::{NetworkKey, Purpose, RealmId};
use legation_proto::keyring::Keyring;
use legation_proto::limits::Limits;
use legation_proto::session::{
    Delivery, Destination, DropOutcome, Event, ExitKind, Exported, NewCall, PushError, Pushed, PushedCall, Session,
};
use legation_proto::UnixMs;

use crate::realm::{fixed_random, network, Realm, START};

pub const PROFILES: [Profile; 3] = [Profile::Tls, Profile::Local, Profile::Plain];

/// What came out of a link, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Sign(SignRequest),
    Decide {
        peer: RealmId,
        resume: Option<Offer>,
    },
    Up,
    /// Up with a session that there was.
    Resumed {
        additional: bool,
    },
    Deliver {
        delivery: Delivery,
        destination: String,
        source: String,
        payload: Vec<u8>,
        receipt: Option<Vec<u8>>,
    },
    Call {
        destination: String,
        source: String,
        label: u8,
        call_id: u64,
        caller: u64,
        payload: Vec<u8>,
    },
    Reply {
        context: Vec<u8>,
        payload: Vec<u8>,
    },
    Refused {
        context: Vec<u8>,
        refusal: Refusal,
    },
    Learned(Learn),
    Forgotten {
        engine: String,
        reason: ForgetReason,
    },
    HandleEnded {
        number: u64,
        reason: ForgetReason,
    },
    /// The end of an engine or a process, with its reason as a term.
    Explained {
        whose: String,
        reason: ForgetReason,
        term: Vec<u8>,
    },
    Exit {
        exit: ExitKind,
        from: u64,
        destination: String,
        source: String,
        payload: Vec<u8>,
    },
    Unexported {
        number: u64,
    },
    TimeoutIn(u64),
    Rotated {
        serial: u64,
        key: [u8; 32],
    },
    Closed {
        code: CloseCode,
        text: String,
    },
    Fault(LinkFault),
}

impl From<LinkEvent<'_>> for Seen {
    fn from(event: LinkEvent<'_>) -> Seen {
        match event {
            LinkEvent::Sign(request) => Seen::Sign(request),
            LinkEvent::Decide { peer, resume, .. } => Seen::Decide { peer, resume },
            LinkEvent::Up { resumed: false, .. } => Seen::Up,
            LinkEvent::Up { additional, .. } => Seen::Resumed { additional },
            LinkEvent::Fault(fault) => Seen::Fault(fault),
            LinkEvent::Session(event) => event.into(),
        }
    }
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Seen {
        match event {
            Event::Deliver { delivery, destination, source, payload, receipt, .. } => Seen::Deliver {
                delivery,
                destination: address(destination),
                source: source.to_owned(),
                payload: payload.to_vec(),
                receipt,
            },
            Event::Call { destination, source, label, call_id, caller, payload, .. } => Seen::Call {
                destination: address(destination),
                source: source.to_owned(),
                label,
                call_id,
                caller,
                payload: payload.to_vec(),
            },
            Event::Reply { context, payload, .. } => {
                Seen::Reply { context: context.to_vec(), payload: payload.to_vec() }
            }
            Event::Refused { context, refusal } => Seen::Refused { context: context.to_vec(), refusal },
            Event::Learned(learn) => Seen::Learned(learn.clone()),
            Event::Forgotten { engine, reason, term } => match term {
                None => Seen::Forgotten { engine: engine.to_owned(), reason },
                Some(term) => Seen::Explained { whose: engine.to_owned(), reason, term: term.payload.to_vec() },
            },
            Event::HandleEnded { number, reason, term } => match term {
                None => Seen::HandleEnded { number, reason },
                Some(term) => {
                    Seen::Explained { whose: Address::of_handle(number), reason, term: term.payload.to_vec() }
                }
            },
            Event::Exit { exit, from, destination, source, payload, .. } => Seen::Exit {
                exit,
                from,
                destination: address(destination),
                source: source.to_owned(),
                payload: payload.to_vec(),
            },
            Event::TimeoutIn(ms) => Seen::TimeoutIn(ms),
            Event::Unexported { number } => Seen::Unexported { number },
            Event::Rotated(rotation) => Seen::Rotated { serial: rotation.serial, key: rotation.new },
            Event::Closed { code, text } => Seen::Closed { code, text },
        }
    }
}

/// As it was written.
fn address(destination: Destination<'_>) -> String {
    match destination {
        Destination::Engine(name) => name.to_owned(),
        Destination::Process { number, .. } => Address::of_handle(number),
    }
}

/// What a responder's owner says to a peer that has proven who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    Accept,
    Refuse(CloseCode),
    /// Nothing: the test does it.
    Later,
}

/// One link and what its driver would know of it.
pub struct Side {
    pub link: Link,
    pub realm: Realm,
    pub network: NetworkKey,
    pub admit: Admit,
    /// The session to go on with, if the peer asks for it.
    pub resume: Option<Arc<Session>>,
    /// A link that is resumed is not sent on.
    pub standby: bool,
    /// Mailboxes are never looked at: nothing is granted back.
    pub stingy: bool,
    /// Callers get stand-ins, which stay until their process ends. The test does it where this is false.
    pub stand_ins: bool,
    /// Answers [`Seen::Sign`] when the link's own keyring doesn't hold the identity.
    pub signer: Option<Arc<Keyring>>,
    pub events: Vec<Seen>,
    pub fault: Option<LinkFault>,
    /// What was given to the peer for the first time.
    pub exported: Vec<Exported>,
    /// All that went to the carrier.
    pub sent: Vec<u8>,
    /// When [`Link::handle_timeout`] wants to be called again.
    pub timer: Option<UnixMs>,
    /// When [`Session::checkpoint_now`] does.
    pub proves: Option<UnixMs>,
    pub now: UnixMs,
    wake: bool,
    ending: bool,
    gone: bool,
    serial: u64,
}

impl Side {
    pub fn new(link: Link, realm: Realm, network: NetworkKey) -> Side {
        Side {
            link,
            realm,
            network,
            admit: Admit::Accept,
            resume: None,
            standby: false,
            stingy: false,
            stand_ins: true,
            signer: None,
            events: Vec::new(),
            fault: None,
            exported: Vec::new(),
            sent: Vec::new(),
            timer: None,
            proves: None,
            now: START,
            // The Writer flushes when it starts.
            wake: true,
            ending: false,
            gone: false,
            serial: START * 1000,
        }
    }

    pub fn handle(&mut self, now: UnixMs, bytes: &[u8]) {
        if self.ending || self.gone {
            return;
        }
        self.now = now;
        let mut seen = Vec::new();
        let wake = self.link.handle_bytes(now, bytes, &mut |event| seen.push(Seen::from(event))).any();
        self.take(now, wake, seen);
        self.grant_all();
    }

    /// Mailboxes are empty: what has come is in `events`.
    fn grant_all(&mut self) {
        let Some(session) = self.link.session().filter(|_| !self.stingy).cloned() else { return };
        let mut due = Vec::new();
        session.debts(|destination, _| due.push(destination.to_owned()));
        for destination in due {
            self.wake |= session.grant(&destination, 0);
        }
    }

    pub fn tick(&mut self, now: UnixMs) {
        if self.ending || self.gone {
            return;
        }
        self.now = now;
        let mut seen = Vec::new();
        let (wake, next) = self.link.handle_timeout(now, &mut |event| seen.push(Seen::from(event)));
        self.timer = next;
        self.take(now, wake, seen);
    }

    fn take(&mut self, now: UnixMs, wake: bool, seen: Vec<Seen>) {
        self.wake |= wake;
        for event in seen {
            if let Seen::TimeoutIn(ms) = event {
                self.timer = self.timer.into_iter().chain([now + ms]).min();
                continue;
            }
            self.events.push(event.clone());
            let mut more = Vec::new();
            let mut sink = |event: LinkEvent<'_>| more.push(Seen::from(event));
            let wake = match &event {
                Seen::Sign(request) => {
                    let signer = self.signer.clone().expect("a keyring that signs for an external one");
                    let signature = signer.sign(request.purpose, &self.network.id(), &request.body).unwrap();
                    self.link.handle_signature(now, request.id, &signature, &mut sink).any()
                }
                Seen::Decide { resume, .. } => match self.admit {
                    Admit::Accept => {
                        let asked = resume.map(|offer| offer.session);
                        let session = self.resume.clone().filter(|session| Some(session.agreed().session) == asked);
                        self.link.accept(now, session, None, &mut sink).any()
                    }
                    Admit::Refuse(code) => {
                        self.ending = true;
                        self.link.close(code, code.name())
                    }
                    Admit::Later => false,
                },
                Seen::Call { caller, .. } if self.stand_ins => {
                    let raw = [&b"stand-in"[..], &caller.to_le_bytes()].concat();
                    self.session().bind_import(*caller, &raw).expect("there is room for a stand-in");
                    false
                }
                Seen::HandleEnded { number, .. } if self.stand_ins => {
                    matches!(self.session().drop_import(*number), DropOutcome::Dropped { wake: true })
                }
                Seen::Resumed { .. } => !self.standby && self.link.activate(),
                Seen::Fault(fault) => {
                    self.ending = true;
                    self.fault = Some(fault.clone());
                    false
                }
                Seen::Closed { .. } => {
                    self.ending = true;
                    false
                }
                _ => false,
            };
            self.take(now, wake, more);
        }
    }

    /// What goes to the carrier now: nothing unless something said `wake`.
    pub fn flush(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.gone {
            return out;
        }
        if std::mem::take(&mut self.wake) {
            while self.link.flush(&mut out).expect("the channel can seal") {}
            if let Some(ms) = self.link.session().and_then(|session| session.checkpoint_timer()) {
                self.proves = Some(self.now + ms);
            }
        }
        self.gone |= self.ending;
        self.sent.extend_from_slice(&out);
        out
    }

    /// The time of [`Side::proves`] has come.
    pub fn prove(&mut self) {
        self.proves = None;
        self.session().checkpoint_now();
        self.wake = true;
    }

    /// The carrier has broken: nothing comes and nothing goes any more.
    pub fn lose(&mut self) {
        self.link.detach();
        self.gone = true;
    }

    /// To be told when a push returned `true`.
    pub fn woken(&mut self, wake: bool) {
        self.wake |= wake;
    }

    pub fn pushed(&mut self, pushed: Pushed) {
        self.woken(pushed.wake);
        self.exported.extend(pushed.exported);
    }

    pub fn will_flush(&self) -> bool {
        self.wake
    }

    /// The link has ended, from either side.
    pub fn is_over(&self) -> bool {
        self.ending || self.gone
    }

    pub fn is_up(&self) -> bool {
        self.link.session().is_some() && !self.is_over()
    }

    /// # Panics
    /// Before the hellos are through.
    pub fn session(&self) -> Arc<Session> {
        self.link.session().expect("the link is up").clone()
    }

    /// One counter, by its name.
    pub fn count(&self, name: &str) -> u64 {
        let session = self.session();
        session.counters().all().into_iter().find(|(known, _)| *known == name).expect("a counter of that name").1
    }

    /// The events since the last time.
    pub fn take_events(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.events)
    }

    /// Payloads of the deliveries among the events, which are taken.
    pub fn take_payloads(&mut self) -> Vec<Vec<u8>> {
        let payload = |event| match event {
            Seen::Deliver { payload, .. } | Seen::Call { payload, .. } => Some(payload),
            _ => None,
        };
        self.take_events().into_iter().filter_map(payload).collect()
    }

    /// The code that our own fault stands for, as the peer is told.
    pub fn fault_code(&self) -> Option<CloseCode> {
        match &self.fault {
            Some(LinkFault::Protocol(error)) => Some(error.into()),
            _ => None,
        }
    }

    /// The peer's CLOSE, if one has come.
    pub fn told(&self) -> Option<(CloseCode, String)> {
        self.events.iter().find_map(|event| match event {
            Seen::Closed { code, text } => Some((*code, text.clone())),
            _ => None,
        })
    }

    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub fn cast(&mut self, source: &str, destination: &str, payload: &[u8]) -> Result<(), PushError> {
        let pushed = self.session().push(Delivery::Cast, source, destination, payload, false)?;
        self.pushed(pushed);
        Ok(())
    }

    pub fn send(&mut self, source: &str, destination: &str, payload: &[u8]) -> Result<(), PushError> {
        let pushed = self.session().push(Delivery::Send, source, destination, payload, false)?;
        self.pushed(pushed);
        Ok(())
    }

    /// A `$gen_call` by the process `caller`, answered to `context`.
    pub fn call(
        &mut self,
        now: UnixMs,
        destination: &str,
        caller: &[u8],
        context: &[u8],
        payload: &[u8],
    ) -> Result<PushedCall, PushError> {
        let call = NewCall { destination, label: 1, source: "", caller, context, payload };
        let pushed = self.session().push_call(now, &call)?;
        self.woken(pushed.wake);
        self.exported.extend(pushed.exported.iter().cloned());
        Ok(pushed)
    }

    pub fn reply(&mut self, call_id: u64, payload: &[u8]) -> Result<(), PushError> {
        let pushed = self.session().reply(call_id, payload)?;
        self.pushed(pushed);
        Ok(())
    }

    pub fn refuse(&mut self, call_id: u64, refusal: Refusal) {
        let wake = self.session().refuse(call_id, refusal);
        self.woken(wake);
    }

    pub fn close(&mut self, code: CloseCode, text: &str) {
        let wake = self.link.close(code, text);
        self.woken(wake);
    }

    /// The realm's CERT.
    pub fn certify(&mut self, now: UnixMs) {
        let cert = Cert {
            realm: self.realm.id(),
            key: self.realm.keyring.online_public(),
            not_before: now,
            not_after: now + 3_600_000,
            serial: self.next_serial(),
        };
        self.announce(FrameType::Cert, Purpose::Cert, cert.body());
    }

    /// A LEARN of one of our engines.
    pub fn export(&mut self, engine: &str) {
        self.export_with(engine, true);
    }

    /// `delegate`: the realm's online key may sign for it.
    pub fn export_with(&mut self, engine: &str, delegate: bool) {
        let learn = Learn {
            realm: self.realm.id(),
            engine: engine.to_owned(),
            key: self.realm.keyring.engine_public(engine),
            serial: self.next_serial(),
            not_before: 0,
            not_after: 0,
            version: 0,
            operations: 7,
            delegate,
        };
        self.announce(FrameType::Learn, Purpose::Learn, learn.body());
    }

    pub fn withdraw(&mut self, engine: &str, reason: ForgetReason) {
        let serial = self.next_serial();
        let forget = Forget { realm: self.realm.id(), engine: engine.to_owned(), serial, reason };
        self.announce(FrameType::Forget, Purpose::Forget, forget.body());
    }

    fn announce(&mut self, kind: FrameType, purpose: Purpose, mut body: Vec<u8>) {
        let keyring = self.signer.as_ref().unwrap_or(&self.realm.keyring);
        let signature = keyring.sign(purpose, &self.network.id(), &body).expect("a keyring with its identity");
        body.extend_from_slice(&signature);
        let wake = self.session().announce(kind, &body);
        self.woken(wake);
    }
}

/// Who dialled, and who was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Alice = 0,
    Bob = 1,
}

impl End {
    pub const BOTH: [End; 2] = [End::Alice, End::Bob];

    pub fn other(self) -> End {
        match self {
            End::Alice => End::Bob,
            End::Bob => End::Alice,
        }
    }
}

/// What a pair is made of. Alice dials Bob. Arrays are alice's, then bob's.
#[derive(Clone)]
pub struct PairConfig {
    pub profile: Profile,
    pub knock: bool,
    pub realms: [Realm; 2],
    pub networks: [NetworkKey; 2],
    pub limits: [Limits; 2],
    /// Whose key alice expects.
    pub dialled: [u8; 32],
    pub admit: Admit,
    /// Tells the randomness of one run from another's.
    pub run: u32,
    pub latency_ms: u64,
    pub now: UnixMs,
    /// Bob's memory of knocks, from an earlier pair.
    pub memory: Option<Arc<Mutex<KnockMemory>>>,
    /// Identities are asked for with [`Seen::Sign`].
    pub external: bool,
    /// The sessions that they have with each other.
    pub resume: [Option<Arc<Session>>; 2],
    pub additional: bool,
}

impl PairConfig {
    pub fn of(profile: Profile) -> PairConfig {
        PairConfig {
            profile,
            knock: profile != Profile::Local,
            realms: [Realm::alice(), Realm::bob()],
            networks: [network(), network()],
            limits: [Limits::default(), Limits::default()],
            dialled: Realm::bob().key(),
            admit: Admit::Accept,
            run: 0,
            latency_ms: 10,
            now: START,
            memory: None,
            external: false,
            resume: [None, None],
            additional: false,
        }
    }
}

/// Changes what is on its way from this end.
pub type Tamper = Box<dyn FnMut(End, &mut Vec<u8>)>;
/// How many of this many bytes arrive at once.
pub type Cut = Box<dyn FnMut(usize) -> usize>;

/// See the module's documentation.
pub struct Pair {
    pub alice: Side,
    pub bob: Side,
    pub now: UnixMs,
    pub latency_ms: u64,
    pub tamper: Option<Tamper>,
    pub cut: Option<Cut>,
    /// On their way from alice, and from bob.
    flights: [VecDeque<(UnixMs, Vec<u8>)>; 2],
}

impl Pair {
    pub fn new(config: PairConfig) -> Pair {
        let memory = config.memory.clone().unwrap_or_else(|| fresh_memory(config.now));
        let link_config = |end: End, random: LinkRandom| {
            let realm = &config.realms[end as usize];
            let keyring = match config.external {
                true => Arc::new(Keyring::external(realm.key(), [8; 32], &[end as u8; 32]).unwrap()),
                false => realm.keyring.clone(),
            };
            LinkConfig {
                profile: config.profile,
                keyring,
                network: config.networks[end as usize].clone(),
                tls: realm.tls.clone(),
                limits: config.limits[end as usize].clone(),
                random,
                now: config.now,
            }
        };
        let alice = link_config(End::Alice, fixed_random(config.run, 0));
        let bob = link_config(End::Bob, fixed_random(config.run, 1));
        let [alice_net, bob_net] = config.networks.clone();
        let [alice_has, bob_has] = config.resume.clone();
        let resume = alice_has.map(|session| Resume { session, additional: config.additional });
        let dialler = Link::connect(alice, &config.dialled, config.knock, resume).unwrap();
        let acceptor = Link::accept_from(bob, config.knock.then_some(memory)).unwrap();
        let mut alice = Side::new(dialler, config.realms[0].clone(), alice_net);
        let mut bob = Side::new(acceptor, config.realms[1].clone(), bob_net);
        bob.admit = config.admit;
        bob.resume = bob_has;
        (alice.standby, bob.standby) = (config.additional, config.additional);
        if config.external {
            alice.signer = Some(config.realms[0].keyring.clone());
            bob.signer = Some(config.realms[1].keyring.clone());
        }
        alice.tick(config.now);
        bob.tick(config.now);
        Pair {
            alice,
            bob,
            now: config.now,
            latency_ms: config.latency_ms,
            tamper: None,
            cut: None,
            flights: Default::default(),
        }
    }

    /// A pair that is up, with both CERTs announced, and engine `a` of alice's and `b` of bob's. No events wait.
    pub fn up(config: PairConfig) -> Pair {
        let mut pair = Pair::new(config);
        pair.settle();
        assert!(pair.alice.is_up() && pair.bob.is_up(), "{:?} {:?}", pair.alice.events, pair.bob.events);
        pair.alice.certify(pair.now);
        pair.alice.export("a");
        pair.bob.certify(pair.now);
        pair.bob.export("b");
        pair.settle();
        pair.alice.events.clear();
        pair.bob.events.clear();
        pair
    }

    /// The carrier breaks, with what is on its way.
    pub fn lose(&mut self) {
        self.flights = Default::default();
        self.alice.lose();
        self.bob.lose();
    }

    /// Another link of the same sessions, after `lose` or (`additional`) beside this one. Not settled.
    pub fn another(&self, config: &PairConfig, additional: bool) -> Pair {
        let resume = [Some(self.alice.session()), Some(self.bob.session())];
        Pair::new(PairConfig { resume, additional, now: self.now, run: config.run + 1, ..config.clone() })
    }

    /// Moves bytes until there are none, with time going on as far as they need.
    pub fn settle(&mut self) {
        loop {
            self.transmit();
            let Some(at) = self.next_arrival() else { break };
            self.now = self.now.max(at);
            self.arrive();
        }
    }

    /// Lets time pass, with everything that happens in it.
    pub fn advance(&mut self, ms: u64) {
        let target = self.now + ms;
        loop {
            self.transmit();
            let up = End::BOTH.into_iter().filter(|end| !self[*end].is_over());
            let timers = up.flat_map(|end| [self[end].timer, self[end].proves]).flatten();
            let Some(next) = self.next_arrival().into_iter().chain(timers).min().filter(|at| *at <= target) else {
                break;
            };
            self.now = self.now.max(next);
            self.arrive();
            for end in End::BOTH {
                let now = self.now;
                if self[end].timer.is_some_and(|at| at <= now) {
                    self[end].tick(now);
                }
                if self[end].proves.is_some_and(|at| at <= now) {
                    self[end].prove();
                }
            }
        }
        self.now = target;
    }

    fn next_arrival(&self) -> Option<UnixMs> {
        self.flights.iter().filter_map(|flight| flight.front()).map(|(at, _)| *at).min()
    }

    fn transmit(&mut self) {
        for end in End::BOTH {
            self[end].now = self.now;
            let mut bytes = self[end].flush();
            if let Some(tamper) = &mut self.tamper {
                tamper(end, &mut bytes);
            }
            if !bytes.is_empty() {
                let at = self.now + self.latency_ms;
                self.flights[end as usize].push_back((at, bytes));
            }
        }
    }

    fn arrive(&mut self) {
        for end in End::BOTH {
            while self.flights[end as usize].front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, bytes) = self.flights[end as usize].pop_front().expect("one is there");
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let piece = self.cut.as_mut().map_or(rest.len(), |cut| cut(rest.len()).clamp(1, rest.len()));
                    let now = self.now;
                    self[end.other()].handle(now, &rest[..piece]);
                    rest = &rest[piece..];
                }
            }
        }
    }
}

impl Index<End> for Pair {
    type Output = Side;

    fn index(&self, end: End) -> &Side {
        match end {
            End::Alice => &self.alice,
            End::Bob => &self.bob,
        }
    }
}

impl IndexMut<End> for Pair {
    fn index_mut(&mut self, end: End) -> &mut Side {
        match end {
            End::Alice => &mut self.alice,
            End::Bob => &mut self.bob,
        }
    }
}

/// Of a responder that has been up for a minute.
pub fn fresh_memory(now: UnixMs) -> Arc<Mutex<KnockMemory>> {
    Arc::new(Mutex::new(KnockMemory::new(KnockSettings::default(), now - 60_000)))
}
