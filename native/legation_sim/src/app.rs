//! What a realm's processes do: cast, call, answer, watch, publish, withdraw, give pids away, die; and its operator: rotate keys,
//! revoke them, drain.

use legation_proto::error::CloseCode;
use legation_proto::frame::batch::Address;
use legation_proto::frame::forget::ForgetReason;
use legation_proto::keyring::Keyring;
use legation_proto::session::{Delivery, ExitKind, NewCall, PushError, Pushed, Room};

use crate::ledger::{CallEnd, Invariant, Kind, Mention, Target};
use crate::payload::{self, Process};
use crate::realm::{drawn, network, OpenCall, Watched};
use crate::wire::Why;
use crate::world::{Happening, Of, World};

pub const ANSWER_MAX_US: u64 = 2_000_000;
const CALL_TIMEOUT_US: (u64, u64) = (100_000, 20_000_000);
/// How long a goodbye waits for what is queued.
const GOODBYE_US: u64 = 1_000_000;
const REASONS: [ForgetReason; 5] = [
    ForgetReason::Withdrawn,
    ForgetReason::Normal,
    ForgetReason::Shutdown,
    ForgetReason::Killed,
    ForgetReason::Crashed,
];

/// A message that is to be pushed.
struct Outgoing {
    source: String,
    target: Target,
    /// As the core is told.
    destination: String,
    number: Option<u64>,
    filler: usize,
    mentions: Vec<Mention>,
    payload: Vec<u8>,
}

impl World {
    /// A realm begins, or begins again.
    pub fn begin(&mut self, realm: usize) {
        self.certify_at_start(realm);
        for number in 0..self.plan.engines {
            if number == 0 || self.chance(60) {
                self.publish(realm, &format!("e{number}"));
            }
        }
        for _ in 0..self.plan.clients {
            let client = self.realms[realm].spawn();
            self.realms[realm].clients.push(client);
        }
        for peer in 0..self.plan.realms {
            if peer != realm {
                self.dial_in(realm, peer, 0);
            }
        }
    }

    pub fn sessions(&self, realm: usize) -> Vec<Of> {
        let own = &self.realms[realm];
        (0..own.peers.len()).filter(|_| own.alive).filter_map(|peer| self.of(realm, peer)).collect()
    }

    pub fn operation(&mut self, realm: usize) {
        if !self.active {
            return;
        }
        let wait = self.random.u64(1..=2 * self.plan.operation_us);
        self.after(wait, Happening::Operation { realm });
        if !self.realms[realm].alive || self.realms[realm].revoked {
            return;
        }
        let honest: Vec<Of> = self.sessions(realm).into_iter().filter(|of| !self.is_liar(of.peer)).collect();
        let Some(of) = self.pick(&honest) else { return };
        match self.random.u32(0..1_000) {
            0..=299 => self.burst(of, Kind::Cast),
            300..=449 => self.burst(of, Kind::Send),
            450..=699 => self.calls(of),
            700..=729 => self.exit_signal(of),
            730..=769 => self.publish_some(realm),
            770..=799 => self.withdraw_some(realm),
            800..=829 => self.client_dies(realm),
            830..=899 => self.monitor(of),
            900..=919 => {
                self.stats.operation("stand-ins dropped");
                self.drop_stand_ins(of, 4);
            }
            920..=949 => self.one_more_link(of),
            950..=979 => self.go_over(of),
            980..=987 => self.rotate(realm),
            988 if self.chance(50) => self.drain(realm),
            991 => self.revoke(realm),
            992..=995 => self.certify(realm),
            _ => {}
        }
    }

    // Messages.

    fn outgoing(&mut self, of: Of, to_processes: bool) -> Option<Outgoing> {
        let session = self.session(of)?;
        let mut targets: Vec<(Target, String, Option<u64>)> =
            session.learned.keys().map(|name| (Target::Engine(name.clone()), name.clone(), None)).collect();
        if to_processes {
            let id = session.id;
            let numbers: Vec<u64> = session.stand_ins.keys().copied().collect();
            for number in numbers {
                if let Some(process) = self.ledger.export(id, of.peer as u8, number) {
                    targets.push((Target::Process(process), Address::of_handle(number), Some(number)));
                }
            }
        }
        let (target, destination, number) = self.pick(&targets)?;
        let mut sources: Vec<String> = self.realms[of.realm].engines.keys().cloned().collect();
        sources.push(String::new());
        let source = self.pick(&sources)?;
        let filler = match self.chance(3) {
            true => self.random.usize(0..self.plan.large_bytes_max),
            false => self.random.usize(0..200),
        };
        let (mentions, pids) = self.mentions(of);
        // The number that it will have, if it is taken.
        let payload = payload::encode(self.ledger.next(), filler, &pids);
        Some(Outgoing { source, target, destination, number, filler, mentions, payload })
    }

    /// Pids to be given away: our own, and those that we have from this peer.
    fn mentions(&mut self, of: Of) -> (Vec<Mention>, Vec<Vec<u8>>) {
        if !self.plan.limits[of.realm].identifiers || !self.chance(15) {
            return (Vec::new(), Vec::new());
        }
        let own = &self.realms[of.realm];
        let mut all: Vec<(Mention, Process)> =
            own.clients.iter().chain(own.engines.values()).map(|own| (Mention::Process(*own), *own)).collect();
        if let Some(session) = self.session(of) {
            let (id, peer) = (session.id, of.peer as u8);
            let proxies: Vec<(Mention, Process)> = session
                .learned
                .iter()
                .map(|(name, (proxy, _))| (Mention::Engine { realm: peer, name: name.clone() }, *proxy))
                .collect();
            let stand_ins: Vec<(u64, Process)> =
                session.stand_ins.iter().map(|(number, own)| (*number, *own)).collect();
            all.extend(proxies);
            for (number, own) in stand_ins {
                all.extend(self.ledger.export(id, peer, number).map(|process| (Mention::Process(process), own)));
            }
        }
        let count = self.random.usize(1..=3);
        let picked: Vec<(Mention, Process)> = (0..count).filter_map(|_| self.pick(&all)).collect();
        picked.into_iter().map(|(mention, process)| (mention, process.raw())).unzip()
    }

    /// The core has taken it.
    fn taken(&mut self, of: Of, kind: Kind, out: Outgoing, pushed: &Pushed) -> u64 {
        let id = self.session(of).map(|session| session.id).unwrap_or_default();
        let way = (of.realm as u8, of.peer as u8);
        let number = self.ledger.sent(kind, id, way, &out.source, out.target, out.filler, out.mentions);
        self.exported(of, &pushed.exported);
        if pushed.wake {
            self.wake_session(of);
        }
        number
    }

    fn refused(&mut self, of: Of, out: &Outgoing, error: PushError) {
        match error {
            PushError::Overload => self.wait_for_room(of, out),
            PushError::Disconnect => {
                self.stats.operation("overflows");
                self.begin_goodbye(of, CloseCode::Overload);
            }
            // What stood for it may have gone with its end.
            PushError::UnknownHandle | PushError::Ended => {}
            other => {
                let what = format!("a message to {} of {} is refused: {other}", out.destination, of.peer);
                self.violate(Invariant::RulesKept, what);
            }
        }
    }

    fn wait_for_room(&mut self, of: Of, out: &Outgoing) {
        self.last_monitor += 1;
        let token = self.last_monitor;
        let Some(session) = self.session(of) else { return };
        if session.core.wait_room(&out.destination, out.payload.len(), token) == Room::Later {
            session.waiters.insert(token, out.destination.clone());
        }
        self.stats.operation("refused for room");
    }

    /// Who waits for room is told when there is some, once.
    pub fn make_room(&mut self, of: Of) {
        let Some(session) = self.session(of) else { return };
        let tokens = session.core.take_room();
        let unknown = tokens.iter().find(|token| session.waiters.remove(token).is_none()).copied();
        if let Some(token) = unknown {
            self.violate(Invariant::Bounded, format!("room was told to {token}, who does not wait"));
        }
    }

    fn burst(&mut self, of: Of, kind: Kind) {
        self.stats.operation(if kind == Kind::Cast { "bursts of casts" } else { "bursts of sends" });
        for _ in 0..self.random.usize(1..=self.plan.burst_max) {
            let Some(out) = self.outgoing(of, true) else { return };
            let Some(session) = self.session(of) else { return };
            let delivery = if kind == Kind::Cast { Delivery::Cast } else { Delivery::Send };
            match session.core.push(delivery, &out.source, &out.destination, &out.payload, false) {
                Ok(pushed) => {
                    self.taken(of, kind, out, &pushed);
                }
                Err(error) => return self.refused(of, &out, error),
            }
        }
    }

    fn calls(&mut self, of: Of) {
        self.stats.operation("bursts of calls");
        for _ in 0..self.random.usize(1..=self.plan.burst_max.min(20)) {
            let clients = self.realms[of.realm].clients.clone();
            let (Some(caller), Some(out)) = (self.pick(&clients), self.outgoing(of, true)) else { return };
            let (label, raw) = (if self.chance(10) { 5 } else { 1 }, caller.raw());
            let context = self.ledger.next().to_be_bytes();
            let ms = self.realms[of.realm].unix_ms(self.now_us);
            let Some(session) = self.session(of).filter(|session| !session.draining) else { return };
            let call = NewCall {
                destination: &out.destination,
                label,
                source: &out.source,
                caller: &raw,
                context: &context,
                payload: &out.payload,
            };
            match session.core.push_call(ms, &call) {
                Ok(pushed) => {
                    let open =
                        OpenCall { call_id: pushed.call_id, target: out.target.clone(), number: out.number, caller };
                    let pushed = Pushed { wake: pushed.wake, exported: pushed.exported };
                    let message = self.taken(of, Kind::Call, out, &pushed);
                    if let Some(session) = self.session(of) {
                        session.calls.insert(message, open);
                    }
                    let wait = self.random.u64(CALL_TIMEOUT_US.0..CALL_TIMEOUT_US.1);
                    self.after(wait, Happening::CallTimeout { of, message });
                }
                Err(error) => return self.refused(of, &out, error),
            }
        }
    }

    pub fn call_times_out(&mut self, of: Of, message: u64) {
        let Some(session) = self.session(of) else { return };
        let Some(call) = session.calls.remove(&message) else { return };
        if session.core.cancel(call.call_id) {
            self.wake_session(of);
        }
        self.call_ends(message, CallEnd::TimedOut);
    }

    pub fn answer(&mut self, of: Of, number: u64) {
        let Some(message) = self.session(of).and_then(|session| session.serving.remove(&number)) else { return };
        let filler = self.random.usize(0..100);
        let (mentions, pids) = self.mentions(of);
        let payload = payload::encode(self.ledger.next(), filler, &pids);
        let Some(session) = self.session(of) else { return };
        match session.core.reply(number, &payload) {
            Ok(pushed) => {
                let source = self.ledger.message(message).map(|call| call.target.clone());
                let source = match source {
                    Some(Target::Engine(name)) => name,
                    _ => String::new(),
                };
                let (target, destination) = (Target::Caller(message), String::new());
                let out = Outgoing { source, target, destination, number: None, filler, mentions, payload };
                self.taken(of, Kind::Reply, out, &pushed);
            }
            // The core has heard that nobody waits any more: that is to be so.
            Err(PushError::UnknownCall) if !self.ledger.is_open(message) => {}
            Err(PushError::Ended) => {}
            Err(error) => {
                self.violate(Invariant::CallsEnd, format!("call {message} can't be answered: {error}"));
            }
        }
    }

    fn exit_signal(&mut self, of: Of) {
        if !self.plan.limits[of.realm].identifiers {
            return;
        }
        self.stats.operation("exit signals");
        let clients = self.realms[of.realm].clients.clone();
        let (Some(from), Some(out)) = (self.pick(&clients), self.outgoing(of, true)) else { return };
        let Some(session) = self.session(of) else { return };
        match session.core.push_exit(&out.source, &out.destination, &from.raw(), ExitKind::Sent, &out.payload) {
            Ok(pushed) => {
                self.taken(of, Kind::Exit, out, &pushed);
            }
            Err(error) => self.refused(of, &out, error),
        }
    }

    fn monitor(&mut self, of: Of) {
        let Some(session) = self.session(of) else { return };
        let engines = session.learned.keys().cloned().map(Watched::Engine);
        let watchable: Vec<Watched> = engines.chain(session.stand_ins.keys().copied().map(Watched::StandIn)).collect();
        let Some(watched) = self.pick(&watchable) else { return };
        self.stats.operation("monitors");
        self.last_monitor += 1;
        let monitor = self.last_monitor;
        if let Some(session) = self.session(of) {
            session.monitors.insert(monitor, watched);
        }
    }

    // Engines and clients.

    fn publish(&mut self, realm: usize, name: &str) {
        if self.realms[realm].engines.contains_key(name) {
            return;
        }
        let process = self.realms[realm].spawn();
        if self.publish_by_agent(realm, name, process) {
            return;
        }
        self.realms[realm].engines.insert(name.to_owned(), process);
        for of in self.sessions(realm) {
            self.announce_engine(of, name);
        }
    }

    fn publish_some(&mut self, realm: usize) {
        self.stats.operation("publishes");
        let name = format!("e{}", self.random.usize(0..self.plan.engines));
        self.publish(realm, &name);
    }

    /// The engine's process ends, too, or lives on.
    fn withdraw_some(&mut self, realm: usize) {
        let names: Vec<String> = self.realms[realm].engines.keys().cloned().collect();
        let Some(name) = self.pick(&names) else { return };
        self.stats.operation("withdrawals");
        let reason = self.pick(&REASONS).unwrap_or(ForgetReason::Withdrawn);
        let Some(process) = self.realms[realm].engines.remove(&name) else { return };
        let explained = self.chance(30).then(|| payload::encode(u64::MAX, 10, &[]));
        let later = self.forget_by_agent(realm, &name, reason);
        for of in self.sessions(realm) {
            let Some(session) = self.session(of) else { continue };
            if let Some(term) = &explained {
                // Otherwise the peer hears the class alone.
                if session.core.push_reason(&name, term).is_ok_and(|pushed| pushed.wake) {
                    self.wake_session(of);
                }
            }
            if !later {
                self.announce_forget(of, &name, reason);
            }
        }
        if reason != ForgetReason::Withdrawn {
            self.process_dies(process, reason);
        }
    }

    fn client_dies(&mut self, realm: usize) {
        let clients = self.realms[realm].clients.clone();
        let Some(client) = self.pick(&clients) else { return };
        self.stats.operation("clients killed");
        self.realms[realm].clients.retain(|other| *other != client);
        let another = self.realms[realm].spawn();
        self.realms[realm].clients.push(another);
        let reason = self.pick(&REASONS[1..]).unwrap_or(ForgetReason::Killed);
        self.process_dies(client, reason);
    }

    fn process_dies(&mut self, process: Process, reason: ForgetReason) {
        let realm = process.realm as usize;
        self.ledger.died(process);
        for of in self.sessions(realm) {
            let Some(session) = self.session(of) else { continue };
            let calls = &mut session.calls;
            let ended: Vec<u64> =
                calls.iter().filter(|(_, call)| call.caller == process).map(|(message, _)| *message).collect();
            ended.iter().for_each(|message| drop(calls.remove(message)));
            let numbers: Vec<u64> =
                session.exports.iter().filter(|(_, own)| **own == process).map(|(number, _)| *number).collect();
            for message in ended {
                self.call_ends(message, CallEnd::CallerDied);
            }
            for number in numbers {
                self.export_ended(of, number, reason);
            }
        }
    }

    pub fn export_ended(&mut self, of: Of, number: u64, reason: ForgetReason) {
        let term = self.chance(30).then(|| payload::encode(u64::MAX, 10, &[]));
        let Some(session) = self.session(of) else { return };
        let pushed = session.core.export_ended(number, reason, term.as_deref());
        self.exported(of, &pushed.exported);
        if pushed.wake {
            self.wake_session(of);
        }
    }

    // Links.

    fn one_more_link(&mut self, of: Of) {
        let begun = self.session(of).is_some_and(|session| {
            session.core.agreed().role == legation_proto::hello::Role::Initiator && !session.lost
        });
        let links = self.realms[of.realm].peers[of.peer].as_ref().map_or(0, |peer| peer.links.len());
        if begun && (1..3).contains(&links) {
            self.stats.operation("additional links");
            self.dial(of.realm, of.peer, true);
        }
    }

    /// Each side chooses for itself on which link it sends.
    fn go_over(&mut self, of: Of) {
        let Some(peer) = self.realms[of.realm].peers[of.peer].as_ref() else { return };
        let links: Vec<usize> = peer.links.iter().map(|up| up.conn).collect();
        if links.len() > 1 {
            self.stats.operation("changes of links");
            if let Some(conn) = self.pick(&links) {
                self.activate(of.realm, of.peer, conn);
            }
        }
    }

    // The operator.

    fn rotate(&mut self, realm: usize) {
        if !self.rotates_here(realm) {
            return;
        }
        let ms = self.realms[realm].unix_ms(self.now_us);
        let seed = drawn(&mut self.random);
        let next = Keyring::new(&seed, &drawn(&mut self.random));
        let own = &mut self.realms[realm];
        let Ok(rotation) = own.keyring.sign_rotation(next.public(), &network().id(), ms) else { return };
        // First where a restart finds it.
        own.disk.seed = seed;
        own.disk.chain.push(rotation.clone());
        if let Err(error) = own.keyring.rotate(&next, rotation) {
            return self.violate(Invariant::RulesKept, format!("{realm} can't rotate its key: {error}"));
        }
        self.realms[realm].rotated_us = self.now_us;
        self.stats.operation("rotations");
        self.note(format_args!("{realm} has another key"));
        let names: Vec<String> = self.realms[realm].engines.keys().cloned().collect();
        for of in self.sessions(realm) {
            self.announce_cert(of);
            names.iter().for_each(|name| self.announce_engine(of, name));
        }
    }

    /// Seldom, and not the last two.
    fn revoke(&mut self, realm: usize) {
        let left = self.realms.iter().filter(|realm| !realm.revoked).count();
        if left <= 2 || !self.chance(20) || !self.rotates_here(realm) {
            return;
        }
        let own = &mut self.realms[realm];
        let Ok(revocation) = own.keyring.sign_revocation(&network().id()) else { return };
        own.disk.revocation = Some(revocation.clone());
        if own.keyring.revoke(revocation).is_err() {
            return;
        }
        self.stats.operation("revocations");
        self.note(format_args!("{realm} has revoked its key"));
        self.realms[realm].revoked = true;
        for of in self.sessions(realm) {
            if self.session(of).is_some_and(|session| session.core.tell_identity()) {
                self.wake_session(of);
            }
        }
    }

    /// Nothing new; what there is is finished, and then a goodbye.
    fn drain(&mut self, realm: usize) {
        self.stats.operation("drains");
        self.note(format_args!("{realm} drains"));
        self.realms[realm].drained = true;
        for of in self.sessions(realm) {
            if let Some(session) = self.session(of) {
                session.draining = true;
            }
            self.begin_goodbye(of, CloseCode::Shutdown);
        }
        let (boot, wait) = (self.realms[realm].boot, self.random.u64(1_000_000..5_000_000));
        self.after(wait, Happening::Undrain { realm, boot });
    }

    pub fn undrain(&mut self, realm: usize, boot: u32) {
        if self.realms[realm].boot != boot || !self.realms[realm].alive {
            return;
        }
        self.realms[realm].drained = false;
        for peer in 0..self.plan.realms {
            if peer != realm {
                self.dial_in(realm, peer, 0);
            }
        }
    }

    pub fn begin_goodbye(&mut self, of: Of, code: CloseCode) {
        let until_us = self.now_us + GOODBYE_US;
        if let Some(session) = self.session(of) {
            if !std::mem::replace(&mut session.goodbye, true) {
                self.after(0, Happening::Goodbye { of, code: code as u16, until_us });
            }
        }
    }

    /// What was pushed before it goes before it, as far as the peer gives leave.
    pub fn goodbye(&mut self, of: Of, code: u16, until_us: u64) {
        let code = CloseCode::from_wire(code);
        let now = self.now_us;
        let Some(session) = self.session(of) else { return };
        let waits = session.core.counters().queue_bytes.get() > 0 && now < until_us && code == CloseCode::Shutdown;
        if waits && !session.lost {
            self.wake_session(of);
            return self.after(20_000, Happening::Goodbye { of, code: code as u16, until_us });
        }
        let peer = self.realms[of.realm].peers[of.peer].as_mut();
        let active = peer.and_then(|peer| peer.active);
        match active.and_then(|conn| Some((conn, self.own_end(conn, of.realm)?))) {
            Some(at) => self.finish(at, Why::Local(code)),
            None => self.session_ended(of.realm, of.peer, "goodbye"),
        }
    }

    pub fn tick(&mut self, of: Of) {
        let ms = self.realms[of.realm].unix_ms(self.now_us);
        let Some(core) = self.session(of).map(|session| session.core.clone()) else { return };
        core.tick(ms, &mut |event| self.event(of, event));
        self.make_room(of);
        self.after(50_000, Happening::Tick { of });
    }
}
