//! Which links and sessions two realms have: dialling, who may come in, which link stays, grace. It does what the drivers do
//! (`legation_node`'s `peers`), and asks the same functions which of two links lives.

use std::sync::Arc;

use legation_channel::channel::Profile;
use legation_channel::link::{Link, LinkConfig, LinkRandom, Resume};
use legation_proto::error::CloseCode;
use legation_proto::frame::forget::ForgetReason;
use legation_proto::frame::hello::Offer;
use legation_proto::frame::FrameType;
use legation_proto::identity::{Purpose, RealmId};
use legation_proto::limits::Limits;
use legation_proto::session::{Exported, Session};

use crate::election::{hello_is_welcome, takes_over, Current, Facts};
use crate::keyholding::signed;
use crate::ledger::{short, CallEnd, Invariant};
use crate::payload::Process;
use crate::realm::{drawn, network, Dial, Sess, Up};
use crate::wire::{Actor, At, End, Phase, Why};
use crate::world::{Happening, Of, Sabotage, World};

/// Links of one session at a time.
const LINKS_MAX: usize = 4;
/// Between dials while a session is lost, at most, and between others.
const LOST_MAX_MS: u64 = 1_000;
const BACKOFF_MAX_MS: u64 = 10_000;
const HANDSHAKE_MS: u64 = 5_000;
pub const CERT_MS: u64 = 24 * 60 * 60 * 1_000;

impl World {
    pub fn limits(&self, realm: usize) -> Limits {
        let limits = Limits { accept_signing: self.plan.accept[realm], ..self.plan.limits[realm].clone() };
        match self.sabotage {
            Some(Sabotage::WidenBounds) => Limits { calls_max: 1 << 20, callers_max: 1 << 20, ..limits },
            _ => limits,
        }
    }

    pub fn link_random(&mut self) -> LinkRandom {
        LinkRandom {
            knock: drawn(&mut self.random),
            nonce: drawn(&mut self.random),
            ephemeral: drawn(&mut self.random),
            session: drawn(&mut self.random),
        }
    }

    fn link_config(&mut self, realm: usize, profile: Profile, listens: bool) -> LinkConfig {
        let random = match self.sabotage {
            Some(Sabotage::RepeatRandomness) if listens => {
                LinkRandom { knock: [1; 16], nonce: [2; 32], ephemeral: [3; 32], session: [4; 32] }
            }
            _ => self.link_random(),
        };
        let own = &self.realms[realm];
        LinkConfig {
            profile,
            keyring: own.keyring.clone(),
            network: network(),
            tls: own.tls.clone(),
            limits: self.limits(realm),
            random,
            now: own.unix_ms(self.now_us),
        }
    }

    /// The end of a connection that somebody has made to a realm.
    pub fn accepting(&mut self, realm: usize, profile: Profile) -> End {
        let config = self.link_config(realm, profile, true);
        let knocks = self.realms[realm].knocks.clone();
        let link =
            Link::accept_from(config, (profile != Profile::Local).then_some(knocks)).expect("randomness for TLS");
        let boot = self.realms[realm].boot;
        End::new(Actor::Realm { realm, boot }, Some(Arc::new(link)), None, false)
    }

    // Dialling.

    pub fn dial_in(&mut self, realm: usize, peer: usize, wait_ms: u64) {
        let boot = self.realms[realm].boot;
        let Some(of) = self.realms[realm].peers[peer].as_mut() else { return };
        of.dial_turn += 1;
        let turn = of.dial_turn;
        let jitter = self.random.u64(0..2_000);
        self.after(wait_ms * 1_000 + jitter, Happening::Dial { realm, boot, peer, turn });
    }

    pub fn dial_is_due(&mut self, realm: usize, boot: u32, peer: usize, turn: u32) {
        let own = &self.realms[realm];
        let known = own.peers[peer].as_ref().is_some_and(|peer| peer.dial_turn == turn);
        if own.alive && own.boot == boot && known {
            self.dial(realm, peer, false);
        }
    }

    /// Dials, if there is to be a dial.
    pub fn dial(&mut self, realm: usize, to: usize, additional: bool) {
        let own = &self.realms[realm];
        let Some(peer) = own.peers[to].as_ref() else { return };
        let lost = peer.session.as_ref();
        let wanted = peer.dials && !peer.revoked && !own.revoked && peer.dial.is_none() && peer.closing.is_none();
        let resumable = lost.is_some_and(|session| session.core.can_resume());
        if !wanted || additional == peer.links.is_empty() || additional && !resumable || own.drained && lost.is_none() {
            return;
        }
        let resume = lost.filter(|_| resumable).map(|session| Resume { session: session.core.clone(), additional });
        if !self.realms[to].alive || self.are_apart(realm, to) {
            // Refused at once, or nobody answers.
            let wait = if self.chance(50) { 1 } else { 1_000 };
            return self.redial(realm, to, wait);
        }
        let profile = self.plan.profile(realm, to);
        let key = self.realms[realm].peers[to].as_ref().map(|peer| peer.key).unwrap_or_default();
        let config = self.link_config(realm, profile, false);
        let link = Link::connect(config, &key, profile != Profile::Local, resume).expect("randomness for TLS");
        let boot = self.realms[realm].boot;
        let dialled = End::new(Actor::Realm { realm, boot }, Some(Arc::new(link)), Some(to), true);
        let accepted = match self.impostor(to, profile) {
            Some(impostor) => impostor,
            None => self.accepting(to, profile),
        };
        let conn = self.connection(profile, [dialled, accepted]);
        self.note(format_args!(
            "{realm} dials {to}: connection {conn}, {profile:?}{}",
            if additional { ", one more" } else { "" }
        ));
        let started_us = self.now_us;
        if let Some(peer) = self.realms[realm].peers[to].as_mut() {
            peer.dial = Some(Dial { conn, started_us, additional });
        }
        for end in 0..2 {
            self.set_timer((conn, end), 0);
        }
    }

    fn redial(&mut self, realm: usize, to: usize, at_least_ms: u64) {
        let random = self.random.u64(..);
        let Some(peer) = self.realms[realm].peers[to].as_mut().filter(|peer| peer.dials && !peer.revoked) else {
            return;
        };
        peer.attempts += 1;
        let most = (100 << peer.attempts.min(10)).min(BACKOFF_MAX_MS);
        let mut wait = most / 2 + random % most;
        if peer.session.is_some() {
            wait = wait.min(1 + random % LOST_MAX_MS);
        }
        self.dial_in(realm, to, wait.max(at_least_ms));
    }

    // Who comes in.

    fn facts(&self, realm: usize, of: usize) -> Facts {
        let own = &self.realms[realm];
        let peer = own.peers[of].as_ref();
        let active = peer.and_then(|peer| peer.links.iter().find(|up| Some(up.conn) == peer.active));
        Facts {
            current: active.map(|up| Current { initiator: up.initiator, up_ms: up.up_us / 1_000 }),
            lower: peer.is_some_and(|peer| own.realm_id < peer.realm_id),
            now_ms: self.now_us / 1_000,
            handshake_ms: HANDSHAKE_MS,
        }
    }

    pub fn hello(&mut self, at: At, from: RealmId, offer: Option<Offer>) {
        let Some(realm) = self.realm_at(at) else { return };
        let known = |peer: &Option<crate::realm::Peer>| peer.as_ref().is_some_and(|peer| peer.realm_id == from);
        let Some(peer) = self.realms[realm].peers.iter().position(known) else {
            return self.refuse(at, CloseCode::Unlisted);
        };
        match self.may_come_in(realm, peer, offer.as_ref()) {
            Ok(resume) => {
                self.end(at).peer = Some(peer);
                let limits = self.limits(realm);
                self.step(at, false, |link, ms, sink| link.accept(ms, resume, Some(limits), sink));
            }
            Err(code) => self.refuse(at, code),
        }
    }

    fn may_come_in(&self, realm: usize, of: usize, offer: Option<&Offer>) -> Result<Option<Arc<Session>>, CloseCode> {
        let own = &self.realms[realm];
        let Some(peer) = own.peers[of].as_ref().filter(|peer| !peer.revoked) else { return Err(CloseCode::Revoked) };
        if own.revoked {
            return Err(CloseCode::Shutdown);
        }
        if let Some(code) = peer.closing {
            return Err(code);
        }
        let offered = |session: &&Sess| offer.is_some_and(|offer| offer.session == session.id);
        let session = peer.session.as_ref().filter(offered);
        if own.drained && session.is_none() {
            return Err(CloseCode::Shutdown);
        }
        let additional = offer.is_some_and(|offer| offer.additional);
        match session {
            Some(session) if additional && session.core.can_resume() => {
                return match peer.links.len() < LINKS_MAX {
                    true => Ok(Some(session.core.clone())),
                    false => Err(CloseCode::Duplicate),
                };
            }
            _ if additional && !peer.links.is_empty() => return Err(CloseCode::Duplicate),
            _ => {}
        }
        let dial_ms = peer.dial.map(|dial| dial.started_us / 1_000);
        match hello_is_welcome(&self.facts(realm, of), dial_ms) {
            true => Ok(session.map(|session| session.core.clone()).filter(|core| core.can_resume())),
            false => Err(CloseCode::Duplicate),
        }
    }

    fn refuse(&mut self, at: At, code: CloseCode) {
        if let Some(link) = self.end(at).link.clone() {
            link.close(code, "refused");
        }
        self.end(at).why = None;
        self.finish(at, Why::Closed(code));
    }

    /// A link is up. Called by the link, while it is at work: what it has brought of the session comes right after this.
    pub fn up(&mut self, at: At, core: Arc<Session>, resumed: bool, additional: bool) {
        self.end(at).woken.link = true;
        let (Some(realm), Some(peer)) = (self.realm_at(at), self.end(at).peer) else { return };
        if let Err(code) = self.may_stay(at, realm, peer, &core, resumed, additional) {
            if resumed {
                // What it brings of a session that lives is for another link to bring.
                if let Some(link) = &self.end(at).link {
                    link.detach();
                }
            } else {
                core.end();
            }
            self.end(at).why = Some(Why::Local(code));
            return;
        }
        self.note(format_args!(
            "{realm}: link {at:?} with {peer} is up, session {}{}{}",
            short(&core.agreed().session),
            if resumed { ", resumed" } else { "" },
            if additional { ", one more" } else { "" }
        ));
        self.stats.links += 1;
        self.stats.resumed += u64::from(resumed && !additional);
        self.joins(at, realm, peer, core, resumed, additional);
        self.set_timer(at, 0);
    }

    fn may_stay(
        &self,
        at: At,
        realm: usize,
        of: usize,
        core: &Arc<Session>,
        resumed: bool,
        additional: bool,
    ) -> Result<(), CloseCode> {
        let own = &self.realms[realm];
        let Some(peer) = own.peers[of].as_ref() else { return Err(CloseCode::Unlisted) };
        let ours = peer.session.as_ref().is_some_and(|session| Arc::ptr_eq(&session.core, core));
        if resumed && !ours {
            return Err(CloseCode::Duplicate);
        }
        if let Some(code) = peer.closing {
            return Err(code);
        }
        if own.drained && !resumed {
            return Err(CloseCode::Shutdown);
        }
        let own_dial = peer.dial.filter(|dial| dial.conn == at.0);
        if !resumed && !peer.links.is_empty() && own_dial.is_some_and(|dial| dial.additional) {
            return Err(CloseCode::Duplicate);
        }
        let beside = resumed && additional;
        if beside && peer.links.len() >= LINKS_MAX {
            return Err(CloseCode::Duplicate);
        }
        if !beside && !takes_over(&self.facts(realm, of), self.conns[at.0].ends[at.1].initiator) {
            return Err(CloseCode::Duplicate);
        }
        Ok(())
    }

    fn joins(&mut self, at: At, realm: usize, of: usize, core: Arc<Session>, resumed: bool, additional: bool) {
        let beside = resumed && additional;
        let (now, initiator) = (self.now_us, self.end(at).initiator);
        let Some(peer) = self.realms[realm].peers[of].as_mut() else { return };
        peer.grace_turn += 1;
        let own_dial = peer.dial.take_if(|dial| dial.conn == at.0);
        let mut leaving = Vec::new();
        if !beside {
            peer.dial_turn += 1;
            leaving.extend(peer.dial.take().map(|dial| (dial.conn, CloseCode::Duplicate)));
            leaving.extend(peer.links.drain(..).map(|up| (up.conn, CloseCode::Replaced)));
        }
        if own_dial.is_some() || !beside {
            peer.attempts = 0;
        }
        peer.links.push(Up { conn: at.0, initiator, up_us: now });
        if !beside || peer.active.is_none() {
            peer.active = Some(at.0);
        }
        let active = peer.active == Some(at.0);
        self.end(at).phase = Phase::Up;
        for (conn, code) in leaving {
            if let Some(end) = self.own_end(conn, realm) {
                // It is told when this is through.
                self.end((conn, end)).why = None;
                self.finish((conn, end), Why::Local(code));
            }
        }
        if !resumed {
            if self.of(realm, of).is_some() {
                self.session_ended(realm, of, "replaced");
            }
            self.last_tag += 1;
            let tag = self.last_tag;
            self.end(at).tag = tag;
            self.stats.sessions += 1;
            if let Some(peer) = self.realms[realm].peers[of].as_mut() {
                peer.session = Some(Sess::new(tag, core));
                // Those that were drained above were not of this.
                peer.links.retain(|up| up.conn == at.0);
                peer.active = Some(at.0);
            }
            self.session_up(Of { realm, peer: of, tag });
            return;
        }
        let Some(of) = self.of(realm, of) else { return };
        self.end(at).tag = of.tag;
        if let Some(session) = self.session(of) {
            session.lost = false;
        }
        if active {
            if let Some(link) = self.end(at).link.clone() {
                link.activate();
            }
        }
    }

    // Ends.

    pub fn link_ended(&mut self, at: At, why: &Why) {
        let (Some(realm), Some(of)) = (self.realm_at(at), self.end(at).peer) else { return };
        let now = self.now_us;
        let revoked = self.realms.get(of).is_some_and(|peer| peer.revoked);
        if matches!(why, Why::Closed(CloseCode::Revoked) | Why::Fault { code: Some(CloseCode::Revoked), .. }) {
            if let Some(peer) = self.realms[realm].peers[of].as_mut() {
                peer.revoked |= revoked;
            }
        }
        let Some(peer) = self.realms[realm].peers[of].as_mut() else { return };
        if let Some(place) = peer.links.iter().position(|up| up.conn == at.0) {
            let up = peer.links.remove(place);
            let mut keeps = why.keeps_session();
            if peer.closing.is_some() && peer.active == Some(at.0) {
                keeps = false;
            }
            self.link_is_gone(realm, of, at.0, keeps);
            let young = now.saturating_sub(up.up_us) < HANDSHAKE_MS * 1_000;
            let idle = self.realms[realm].peers[of].as_ref().is_some_and(|peer| peer.links.is_empty());
            if idle && young {
                self.redial(realm, of, 0);
            } else if idle {
                self.dial_in(realm, of, 0);
            }
        } else if peer.dial.take_if(|dial| dial.conn == at.0).is_some() {
            self.redial(realm, of, 0);
        }
    }

    fn link_is_gone(&mut self, realm: usize, of: usize, conn: usize, keeps: bool) {
        let (boot, grace_ms) = (self.realms[realm].boot, self.plan.grace_ms);
        let Some(peer) = self.realms[realm].peers[of].as_mut() else { return };
        let Some(session) = peer.session.as_mut() else { return };
        let resumable = keeps && session.core.can_resume();
        if resumable && !peer.links.is_empty() {
            if peer.active == Some(conn) {
                let next = peer.links[0].conn;
                peer.active = Some(next);
                self.activate(realm, of, next);
            }
            return;
        }
        if !resumable {
            let left: Vec<usize> = peer.links.drain(..).map(|up| up.conn).collect();
            self.session_ended(realm, of, "link ended");
            for conn in left {
                if let Some(end) = self.own_end(conn, realm) {
                    self.finish((conn, end), Why::Local(CloseCode::Normal));
                }
            }
            return;
        }
        peer.active = None;
        session.lost = true;
        peer.grace_turn += 1;
        let turn = peer.grace_turn;
        let wait = self.realms[realm].wait_us(grace_ms);
        self.after(wait, Happening::GraceOver { realm, boot, peer: of, turn });
    }

    /// From now on the realm sends on this connection.
    pub fn activate(&mut self, realm: usize, of: usize, conn: usize) {
        let Some(end) = self.own_end(conn, realm) else { return };
        if let Some(peer) = self.realms[realm].peers[of].as_mut() {
            peer.active = Some(conn);
        }
        if self.end((conn, end)).link.as_ref().is_some_and(|link| link.activate()) {
            self.wake((conn, end));
        }
    }

    pub fn grace_is_over(&mut self, realm: usize, boot: u32, of: usize, turn: u32) {
        let own = &self.realms[realm];
        let lost = |peer: &crate::realm::Peer| {
            peer.grace_turn == turn && peer.session.as_ref().is_some_and(|session| session.lost)
        };
        if own.alive && own.boot == boot && own.peers[of].as_ref().is_some_and(lost) {
            self.session_ended(realm, of, "grace is over");
        }
    }

    // Sessions.

    fn session_up(&mut self, of: Of) {
        if let (true, Some(session)) = (self.plan.receipts, self.session(of)) {
            let core = session.core.clone();
            core.make_receipts_for((0..self.plan.engines).map(|number| format!("e{number}").into_boxed_str()));
        }
        self.announce_cert(of);
        let names: Vec<String> = self.realms[of.realm].engines.keys().cloned().collect();
        for name in names {
            self.announce_engine(of, &name);
        }
        if self.plan.limits[of.realm].message_ttl_ms.is_some() {
            self.after(50_000, Happening::Tick { of });
        }
        let before = self.realms[of.realm].peers[of.peer].as_mut().and_then(|peer| peer.before.take());
        let (Some(before), Some(session)) = (before, self.session(of)) else { return };
        let core = session.core.clone();
        let refused = |core: &Session| core.counters().overload_out.get() + core.counters().handles_over_limit.get();
        let (refused_before, dropped_before) = (refused(&core), core.counters().dropped_oldest.get());
        let (adopted, exported) = core.adopt(&before);
        let no_room = refused(&core) - refused_before + core.counters().dropped_oldest.get() - dropped_before;
        self.ledger.lost(of.realm as u8, of.peer as u8, no_room);
        self.note(format_args!("{}: takes over {adopted} messages for {}, no room for {no_room}", of.realm, of.peer));
        self.exported(of, &exported);
        self.wake_session(of);
    }

    pub fn announce_cert(&mut self, of: Of) {
        let signed = match &self.realms[of.realm].agent {
            Some(agent) => agent.certificate(),
            None => {
                let body = self.certificate_body(of.realm);
                self.sign_here(of.realm, Purpose::Cert, body)
            }
        };
        self.announce(of, FrameType::Cert, &signed);
    }

    pub fn announce_engine(&mut self, of: Of, name: &str) {
        let signed = match &self.realms[of.realm].agent {
            Some(agent) => agent.learn(name),
            None => {
                let body = self.learn_body(of.realm, name);
                Some(self.sign_here(of.realm, Purpose::Learn, body))
            }
        };
        match signed {
            Some(signed) => self.announce(of, FrameType::Learn, &signed),
            None => self.violate(Invariant::RulesKept, format!("{name} of {} is there, and not signed", of.realm)),
        }
    }

    pub fn announce_forget(&mut self, of: Of, name: &str, reason: ForgetReason) {
        if let Some(session) = self.session(of) {
            *session.forgets_sent.entry(name.to_owned()).or_default() += 1;
        }
        let body = self.forget_body(of.realm, name, reason);
        let signed = self.sign_here(of.realm, Purpose::Forget, body);
        self.announce(of, FrameType::Forget, &signed);
    }

    fn sign_here(&self, realm: usize, purpose: Purpose, body: Vec<u8>) -> Vec<u8> {
        signed(&self.realms[realm].keyring, purpose, body)
    }

    pub fn announce(&mut self, of: Of, kind: FrameType, signed: &[u8]) {
        let Some(session) = self.session(of) else { return };
        if session.core.announce(kind, signed) {
            self.wake_session(of);
        }
    }

    /// The peer was given these.
    pub fn exported(&mut self, of: Of, exported: &[Exported]) {
        for Exported { number, pid } in exported {
            let Some(process) = Process::parse(pid) else {
                self.violate(Invariant::PidsNameOne, format!("{:?} is no pid of ours", pid));
                return;
            };
            let Some(session) = self.session(of) else { return };
            session.exports.insert(*number, process);
            let id = session.id;
            self.ledger.exported(id, of.realm as u8, *number, process);
            if self.ledger.is_dead(process) || process.realm as usize != of.realm {
                self.export_ended(of, *number, ForgetReason::Noproc);
            }
        }
    }

    /// It has ended for its realm: callers and monitors hear of it.
    pub fn session_ended(&mut self, realm: usize, of: usize, why: &str) {
        let Some(peer) = self.realms[realm].peers[of].as_mut() else { return };
        let Some(session) = peer.session.take() else { return };
        peer.grace_turn += 1;
        (peer.active, peer.closing) = (None, None);
        session.core.end();
        let gap = session.core.gap();
        peer.before = Some(session.core.clone());
        self.note(format_args!("{realm}: session {} with {of} has ended, {why}; gap {gap}", short(&session.id)));
        if self.sabotage != Some(Sabotage::HideGap) {
            self.ledger.lost(realm as u8, of as u8, gap);
        }
        self.count_dropped(realm, of, &session);
        for message in session.calls.keys() {
            self.call_ends(*message, CallEnd::SessionEnded);
        }
        for monitor in session.monitors.keys() {
            self.monitor_fires(*monitor, "session ended");
        }
        for process in session.stand_ins.values().chain(session.learned.values().map(|(process, _)| process)) {
            self.ledger.died(*process);
        }
    }

    pub fn count_dropped(&mut self, realm: usize, of: usize, session: &Sess) {
        let counters = session.core.counters();
        let dropped = counters.expired.get() + counters.dropped_oldest.get();
        *self.dropped.entry((realm as u8, of as u8)).or_default() += dropped;
    }
}
