//! What peers tell us: sessions that begin and end, engines that are learned and forgotten.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use legation_proto::frame::forget::ForgetReason;
use legation_proto::frame::learn::Learn;
use legation_proto::key_text::format_public_key;
use legation_proto::session::{Destination, Event, Exported, ReasonTerm};

use crate::dist::term;
use crate::peers::{LinkEnd, PeerSession, SessionEvents};
use crate::realm::exits::ExitReason;
use crate::realm::incoming::{put_refusal, Context, Kind, Parcel};
use crate::realm::{lock, status, terms, write, Body, Counts, EngineInfo, Proxy, Realm};

impl SessionEvents for Realm {
    fn session_up(&self, session: &Arc<PeerSession>) {
        let events = lock(&self.events);
        write(&self.sessions).insert(session.tag, session.clone());
        self.announce_all(session);
        events.tell(self, || {
            let realm = terms::binary(session.realm.as_bytes());
            terms::tuple(vec![terms::atom("peer_up"), realm, status::session_term(session)])
        });
        drop(events);
        let status = session.status();
        tracing::debug!(realm = %session.realm, profile = status.profile, address = %status.address, "a peer is up");
    }

    fn session_event(&self, session: &Arc<PeerSession>, event: Event<'_>) -> bool {
        match event {
            Event::Deliver { delivery, destination, source, payload, handles, receipt } => {
                let kind = Kind::Deliver(delivery);
                self.arrive(session, Parcel { receipt, handles, ..parcel(kind, &destination, source, payload) })
            }
            Event::Call { destination, source, label, call_id, caller, payload, handles, receipt } => {
                let kind = Kind::Call { label, call_id, caller, stand_in: 0 };
                self.arrive(session, Parcel { receipt, handles, ..parcel(kind, &destination, source, payload) })
            }
            Event::Reply { context, payload, handles } => {
                let kind = Kind::Reply { context: Cow::Borrowed(context) };
                self.arrive(session, Parcel { handles, ..parcel(kind, &Destination::Engine(""), "", payload) })
            }
            Event::Refused { context, refusal } => {
                // As a reply, so that it keeps its place behind what is held.
                let mut payload = vec![term::VERSION];
                put_refusal(&mut payload, refusal.name());
                let kind = Kind::Reply { context: Cow::Borrowed(context) };
                self.arrive(session, parcel(kind, &Destination::Engine(""), "", &payload))
            }
            Event::Learned(learn) => {
                self.learned(session, learn);
                false
            }
            Event::Forgotten { engine, reason, term } => {
                self.forgotten(session, engine, reason, term);
                false
            }
            Event::HandleEnded { number, reason, term } => self.handle_ended(session, number, reason, term),
            Event::Unexported { number } => {
                self.unexported(session, number);
                false
            }
            Event::Exit { exit, from, destination, payload, handles, .. } => {
                self.exit_in(session, exit, from, &destination, payload, handles)
            }
            Event::Rotated(rotation) => {
                let (realm, key) = (&*session.realm, format_public_key(&rotation.new));
                tracing::info!(realm, serial = rotation.serial, key, "a peer has a new identity key");
                false
            }
            Event::Closed { .. } | Event::TimeoutIn(_) => false,
        }
    }

    fn session_delivered(&self, session: &Arc<PeerSession>) {
        self.look_at_mailboxes(session);
    }

    fn session_room(&self, _session: &Arc<PeerSession>, tokens: Vec<u64>) {
        self.room_is_there(tokens);
    }

    fn session_exported(&self, session: &Arc<PeerSession>, exported: &[Exported]) {
        self.watch_exported(session, exported);
    }

    fn session_lost(&self, session: &Arc<PeerSession>, why: &LinkEnd) {
        lock(&self.events).tell(self, || {
            let realm = terms::binary(session.realm.as_bytes());
            terms::tuple(vec![terms::atom("peer_lost"), realm, status::end_term(why)])
        });
        tracing::debug!(realm = %session.realm, %why, "a peer is lost: what is sent to it waits");
    }

    fn session_resumed(&self, session: &Arc<PeerSession>) {
        lock(&self.events).tell(self, || {
            let realm = terms::binary(session.realm.as_bytes());
            terms::tuple(vec![terms::atom("peer_resumed"), realm, status::session_term(session)])
        });
        tracing::debug!(realm = %session.realm, address = %session.status().address, "a peer is back");
    }

    fn session_ended(&self, session: &Arc<PeerSession>, why: &LinkEnd) {
        let events = lock(&self.events);
        // Sent, and nobody knows whether it has arrived.
        let gap = session.core.gap();
        write(&self.sessions).remove(&session.tag);
        self.keep_counters(session);
        let (mut proxies, mut stand_ins) = (Vec::new(), Vec::new());
        // No stand-in is born while they are counted.
        let being_made = lock(&self.stand_ins);
        for (number, body) in lock(&self.space).iter() {
            match &**body {
                Body::Proxy(proxy) if proxy.session.tag == session.tag => {
                    proxies.push((number, proxy.full_name.clone()))
                }
                Body::StandIn(stand_in) if stand_in.session.tag == session.tag => {
                    stand_ins.push((number, stand_in.number))
                }
                _ => {}
            }
        }
        drop(being_made);
        let noconnection = ExitReason::of(ForgetReason::Noconnection);
        for (number, full_name) in proxies {
            self.names.forgotten(&full_name);
            self.end_process(number, &noconnection, Some(session.tag));
            events.tell(self, || forgotten_event(&full_name, "noconnection"));
        }
        for (number, caller) in stand_ins {
            lock(&self.stand_ins).remove(&(session.tag, caller));
            self.end_process(number, &noconnection, Some(session.tag));
        }
        if gap > 0 {
            self.counters.messages_in_doubt.add(gap);
            events.tell(self, || {
                let realm = terms::binary(session.realm.as_bytes());
                terms::tuple(vec![terms::atom("gap"), realm, terms::integer(gap)])
            });
        }
        // Delivered, and perhaps acted upon.
        if let Some((first, last)) = session.core.unproven() {
            events.tell(self, || {
                let realm = terms::binary(session.realm.as_bytes());
                terms::tuple(vec![terms::atom("unproven"), realm, terms::integer(first), terms::integer(last)])
            });
            tracing::warn!(realm = %session.realm, first, last, "messages were delivered, and the peer has not proven that it sent them");
        }
        events.tell(self, || {
            let realm = terms::binary(session.realm.as_bytes());
            terms::tuple(vec![terms::atom("peer_down"), realm, status::end_term(why)])
        });
        drop(events);
        self.forget_exports(session);
        tracing::debug!(realm = %session.realm, why = %status::end_text(why), "a peer is down");
    }
}

impl Realm {
    fn learned(&self, session: &Arc<PeerSession>, learn: &Learn) {
        let events = lock(&self.events);
        let info =
            EngineInfo { key: learn.key, serial: learn.serial, version: learn.version, operations: learn.operations };
        let full_name: Box<str> = format!("{}@{}", learn.engine, session.realm).into();
        let known = {
            let space = lock(&self.space);
            space.whereis(full_name.as_bytes()).and_then(|number| space.get(number).cloned())
        };
        if let Some(Body::Proxy(proxy)) = known.as_deref() {
            // Announced again: the process stays, and what is said of it changes.
            if proxy.session.tag == session.tag {
                let before = std::mem::replace(&mut *lock(&proxy.info), info.clone());
                let number = lock(&self.space).whereis(full_name.as_bytes());
                if let (true, Some(number)) = (before != info, number) {
                    let pid = self.own_pid(number);
                    events.tell(self, || learned_event(&full_name, &info, &pid));
                }
                return;
            }
        }
        let proxy = Proxy {
            full_name: full_name.clone(),
            engine: learn.engine.as_str().into(),
            session: session.clone(),
            info: Mutex::new(info.clone()),
            counts: Counts::default(),
        };
        let body = Arc::new(Body::Proxy(proxy));
        let number = {
            let mut space = lock(&self.space);
            let number = space.spawn(body);
            if !space.register(&full_name, number) {
                // Only the daemon's own names are there before, and none of them has an `@`.
                space.end(number);
                return;
            }
            if let Some(alias) = self.names.alias_of(&full_name) {
                if !space.register(alias, number) {
                    self.counters.global_names_taken.one();
                    tracing::warn!(name = alias, engine = %full_name, "a local name is taken; the engine is not imported as it");
                }
            }
            number
        };
        let pid = self.own_pid(number);
        // Sent to the peer it is the engine itself.
        session.core.bind_engine(&pid, &learn.engine);
        self.names.learned(&full_name, &pid);
        events.tell(self, || learned_event(&full_name, &info, &pid));
    }

    fn forgotten(&self, session: &Arc<PeerSession>, engine: &str, reason: ForgetReason, term: Option<ReasonTerm<'_>>) {
        let exit = self.reason_of_peer(session, reason, term);
        let events = lock(&self.events);
        let full_name = format!("{engine}@{}", session.realm);
        let number = {
            let space = lock(&self.space);
            let number = space.whereis(full_name.as_bytes());
            number.filter(|number| matches!(space.get(*number).map(|body| &**body), Some(Body::Proxy(proxy)) if proxy.session.tag == session.tag))
        };
        let Some(number) = number else {
            return;
        };
        self.names.forgotten(&full_name);
        session.core.unbind(&self.own_pid(number));
        self.end_process(number, &exit, Some(session.tag));
        events.tell(self, || forgotten_event(&full_name, reason.name()));
    }

    pub(crate) fn tell_name_lost(&self, _number: u64, proxy: &Proxy, winner: &[u8]) {
        let winner = match term::pid(winner) {
            Some(pid) => terms::pid(pid.raw),
            None => terms::atom("undefined"),
        };
        lock(&self.events).tell(self, || {
            terms::tuple(vec![terms::atom("name_lost"), terms::binary(proxy.full_name.as_bytes()), winner])
        });
    }

    /// What a session has counted outlives it: an attack that ends it must not take the evidence along.
    fn keep_counters(&self, session: &PeerSession) {
        let mut ended = lock(&self.ended);
        let sums = ended.entry((*session.realm).into()).or_default();
        *sums.entry("sessions").or_insert(0) += 1;
        for (name, value) in session.core.counters().all() {
            if !status::GAUGES.contains(&name) {
                *sums.entry(name).or_insert(0) += value;
            }
        }
    }

    pub(crate) fn ended_counters(&self) -> HashMap<Box<str>, HashMap<&'static str, u64>> {
        lock(&self.ended).clone()
    }

    /// Calls in flight that nobody waits for and no monitor guards: their process is on a node that is gone.
    pub(crate) fn sweep(&self) {
        for session in self.sessions() {
            let mut orphans = Vec::new();
            session.core.sweep(self.now(), self.limits.call_age_ms, |call_id, pending| {
                let pid = Context::decode(&pending.context).and_then(|context| term::pid(context.pid));
                if pid.is_none_or(|pid| self.node_of(&pid).is_none()) {
                    orphans.push(call_id);
                }
            });
            let cancelled = orphans.into_iter().fold(false, |wake, call_id| session.core.cancel(call_id) | wake);
            if cancelled {
                session.wake();
            }
        }
    }
}

fn learned_event(full_name: &str, info: &EngineInfo, pid: &[u8]) -> erl_dist::term::Term {
    terms::tuple(vec![terms::atom("engine_learned"), terms::binary(full_name), status::info_term(info, pid)])
}

fn forgotten_event(full_name: &str, reason: &str) -> erl_dist::term::Term {
    terms::tuple(vec![terms::atom("engine_forgotten"), terms::binary(full_name), terms::atom(reason)])
}

use std::sync::Mutex;

fn parcel<'a>(kind: Kind<'a>, destination: &Destination<'a>, source: &'a str, payload: &'a [u8]) -> Parcel<'a> {
    let (engine, process) = match destination {
        Destination::Engine(engine) => (*engine, None),
        Destination::Process { pid, .. } => ("", Some(pid.clone())),
    };
    let (engine, source, payload) = (Cow::Borrowed(engine), Cow::Borrowed(source), Cow::Borrowed(payload));
    Parcel { kind, engine, process, source, payload, handles: false, receipt: None }
}
