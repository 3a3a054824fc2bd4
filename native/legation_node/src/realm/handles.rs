//! Processes of peers that BEAM processes have pids of, and processes of ours that peers have.
//!
//! ```text
//!  a pid of the peer's in a payload, a call's caller ──► stand-in: a process of our node, made on demand
//!  a pid of ours in a payload ──► exported: we watch it, and tell the peer how it has ended
//! ```
//!
//! The session's tables say which number is which process (`legation_proto::session`); here are the processes. A stand-in goes when its
//! process has ended, when nobody has used, monitored or linked it for `handle_idle_ms`, when others need its place (`handles_max`), and
//! with the session. What is told of an export ends when the peer has dropped it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use legation_proto::frame::batch::{Address, Refusal};
use legation_proto::frame::forget::ForgetReason;
use legation_proto::session::{DropOutcome, Exported, Locals, ReasonTerm, TranslateError};
use legation_proto::UnixMs;

use crate::dist::term;
use crate::peers::PeerSession;
use crate::realm::engines::put_exit_reason;
use crate::realm::exits::ExitReason;
use crate::realm::node::{Node, Watch};
use crate::realm::{lock, read, Body, Realm};

/// What stands here for a process of a peer's.
#[derive(Debug)]
pub struct StandIn {
    pub session: Arc<PeerSession>,
    /// The peer's number for it.
    pub number: u64,
    /// Where messages to it go.
    pub address: Box<str>,
    used: AtomicU64,
}

impl StandIn {
    fn new(session: Arc<PeerSession>, number: u64, now: UnixMs) -> StandIn {
        StandIn { session, number, address: Address::of_handle(number).into(), used: AtomicU64::new(now) }
    }

    pub fn is_used(&self, now: UnixMs) {
        self.used.store(now, Ordering::Relaxed);
    }
}

/// As many of those that were not used for longest give way at once: to look for them takes a look at all.
const GIVE_WAY: usize = 64;

/// So long a stand-in that is bound to no number may be one that is just being made.
const BEING_BOUND_MS: UnixMs = 1_000;

/// How often stand-ins that nobody uses are looked for.
const IDLE_LOOKS_MS: (u64, u64) = (1_000, 60_000);

impl Realm {
    // The peer's.

    /// What stands for a caller of the peer's or the sender of an exit, made when it is first needed. None: there is no room.
    pub(crate) fn stand_in(&self, session: &Arc<PeerSession>, number: u64) -> Option<u64> {
        let process = self.make_stand_in(session, number)?;
        let pid = self.own_pid(process);
        let bound = session.core.bind_import(number, &pid).is_ok()
            || (self.make_room(session) && session.core.bind_import(number, &pid).is_ok());
        if !bound {
            self.end_stand_in(session, number, &ExitReason::of(ForgetReason::Noproc));
            return None;
        }
        Some(process)
    }

    fn make_stand_in(&self, session: &Arc<PeerSession>, number: u64) -> Option<u64> {
        let mut stand_ins = lock(&self.stand_ins);
        if let Some(process) = stand_ins.get(&(session.tag, number)) {
            self.stand_in_is_used(*process);
            return Some(*process);
        }
        if session.has_ended() {
            return None;
        }
        let body = Body::StandIn(StandIn::new(session.clone(), number, self.now()));
        let process = lock(&self.space).spawn(Arc::new(body));
        stand_ins.insert((session.tag, number), process);
        Some(process)
    }

    fn stand_in_is_used(&self, process: u64) {
        if let Some(Body::StandIn(stand_in)) = self.body(process).as_deref() {
            stand_in.is_used(self.now());
        }
    }

    fn end_stand_in(&self, session: &Arc<PeerSession>, number: u64, reason: &ExitReason) {
        let process = lock(&self.stand_ins).remove(&(session.tag, number));
        if let Some(process) = process {
            self.end_process(process, reason, Some(session.tag));
        }
    }

    /// A payload with identifiers that mean something here, in the place of those of the wire.
    ///
    /// # Errors
    /// It has been discarded.
    pub(crate) fn translate(&self, session: &Arc<PeerSession>, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        loop {
            match session.core.translate_in(payload, &mut Here { realm: self, session }) {
                Ok(translated) => return Ok(translated),
                Err(TranslateError::Undecodable) => return Err(Refusal::Undecodable),
                Err(TranslateError::Full) if self.make_room(session) => {}
                Err(TranslateError::Full) => {
                    self.discard(session, payload);
                    return Err(Refusal::Overload);
                }
            }
        }
    }

    /// A payload that holds identifiers is not delivered.
    pub(crate) fn discard(&self, session: &PeerSession, payload: &[u8]) {
        if session.core.discard_in(payload) {
            session.wake();
        }
    }

    /// Stand-ins that were not used for longest go. False: all are in use.
    fn make_room(&self, session: &Arc<PeerSession>) -> bool {
        self.give_way(session, GIVE_WAY) > 0
    }

    /// A peer whose own bound is the same as ours would refuse to give us more before we run out of room.
    pub(crate) fn keep_room(&self, session: &Arc<PeerSession>) {
        let most = self.limits.session.handles_max;
        let imported = usize::try_from(session.core.counters().handles_imported.get()).unwrap_or(usize::MAX);
        if imported > most - most / 8 {
            self.give_way(session, imported - (most - most / 4));
        }
    }

    fn give_way(&self, session: &Arc<PeerSession>, most: usize) -> usize {
        let mut idle = self.idle_stand_ins(|stand_in| stand_in.session.tag == session.tag);
        idle.sort_unstable_by_key(|(used, _)| *used);
        let mut dropped = 0;
        for (used, process) in idle {
            dropped += usize::from(self.drop_stand_in(process, used));
            if dropped == most {
                break;
            }
        }
        dropped
    }

    /// When each was last used, and its process. Those that are monitored or linked are not idle.
    fn idle_stand_ins(&self, which: impl Fn(&StandIn) -> bool) -> Vec<(UnixMs, u64)> {
        let space = lock(&self.space);
        let idle = space.iter().filter_map(|(process, body)| match &**body {
            Body::StandIn(stand_in) if which(stand_in) && !space.is_watched(process) => {
                Some((stand_in.used.load(Ordering::Relaxed), process))
            }
            _ => None,
        });
        idle.collect()
    }

    /// One that was not used since it was found idle goes. True: it has gone. Who has its pid still finds nobody.
    fn drop_stand_in(&self, process: u64, seen: UnixMs) -> bool {
        let body = self.body(process);
        let Some(Body::StandIn(stand_in)) = body.as_deref() else { return false };
        let (session, key) = (&stand_in.session, (stand_in.session.tag, stand_in.number));
        // It is just being made: its number is bound next.
        if self.now() < seen.saturating_add(BEING_BOUND_MS) && session.core.import(stand_in.number).is_none() {
            return false;
        }
        // Gone there and here at once: a call of its process that comes right then gets another stand-in, and not one that ends.
        let mut gone = false;
        let outcome = session.core.drop_import_if(stand_in.number, || {
            let mut stand_ins = lock(&self.stand_ins);
            gone = stand_in.used.load(Ordering::Relaxed) == seen && stand_ins.get(&key) == Some(&process);
            if gone {
                stand_ins.remove(&key);
            }
            gone
        });
        if outcome == (DropOutcome::Dropped { wake: true }) {
            session.wake();
        }
        if gone {
            self.end_process(process, &ExitReason::of(ForgetReason::Noproc), Some(session.tag));
        }
        gone
    }

    /// Pids that nobody has used for long are forgotten. Returns when to look again.
    pub(crate) fn forget_idle(&self, now: UnixMs) -> UnixMs {
        let idle_ms = self.limits.handle_idle_ms;
        let over = |stand_in: &StandIn| stand_in.used.load(Ordering::Relaxed).saturating_add(idle_ms) <= now;
        for (used, process) in self.idle_stand_ins(over) {
            if self.drop_stand_in(process, used) {
                self.counters.stand_ins_idle.one();
            }
        }
        let (least, most) = IDLE_LOOKS_MS;
        now + (idle_ms / 4).clamp(least, most)
    }

    /// A process of the peer's that it gave to us has ended.
    pub(crate) fn handle_ended(
        &self,
        session: &Arc<PeerSession>,
        number: u64,
        reason: ForgetReason,
        term: Option<ReasonTerm<'_>>,
    ) -> bool {
        let reason = self.reason_of_peer(session, reason, term);
        self.end_stand_in(session, number, &reason);
        matches!(session.core.drop_import(number), DropOutcome::Dropped { wake: true })
    }

    /// The reason itself where the peer tells it, or else its class.
    pub(crate) fn reason_of_peer(
        &self,
        session: &Arc<PeerSession>,
        class: ForgetReason,
        term: Option<ReasonTerm<'_>>,
    ) -> ExitReason {
        let term = match term {
            Some(ReasonTerm { payload, handles: true }) => self.translate(session, payload).ok(),
            Some(ReasonTerm { payload, handles: false }) => Some(payload.to_vec()),
            None => None,
        };
        term.map_or_else(|| ExitReason::of(class), ExitReason::from_peer)
    }

    // Ours.

    /// Something waits to go out, and by it the peer is given these. They are watched first: what they do next may be to end.
    pub(crate) fn was_pushed(&self, session: &Arc<PeerSession>, wake: bool, exported: &[Exported]) {
        self.watch_exported(session, exported);
        if wake {
            session.wake();
        }
    }

    /// The peer has been given these: it is told when they end.
    pub(crate) fn watch_exported(&self, session: &Arc<PeerSession>, exported: &[Exported]) {
        for Exported { number, pid } in exported {
            self.watch_one(session, *number, pid);
        }
    }

    fn watch_one(&self, session: &Arc<PeerSession>, number: u64, raw: &[u8]) {
        let Some(pid) = term::pid(raw) else { return };
        if self.own().is_some_and(|own| own.node.name().as_bytes() == pid.node) {
            // What stands here for another realm's process is not passed on.
            return self.export_ended(session, number, ForgetReason::Noproc, None);
        }
        if let Some(node) = self.node_of(&pid) {
            return self.watch_on(session, number, raw, &node);
        }
        // It was passed on by a node that is not its own; messages to it will want to go there, too.
        let Some(realm) = self.me() else { return };
        let (session, raw) = (session.clone(), Box::<[u8]>::from(raw));
        tokio::spawn(async move {
            let node = match term::pid(&raw) {
                Some(pid) => realm.dial_node(&pid).await,
                None => None,
            };
            match node {
                Some(node) if session.core.export_pid(number).is_some() => {
                    realm.watch_on(&session, number, &raw, &node);
                }
                Some(_) => {}
                None => realm.export_ended(&session, number, ForgetReason::Noconnection, None),
            }
        });
    }

    fn watch_on(&self, session: &Arc<PeerSession>, number: u64, raw: &[u8], node: &Arc<Node>) {
        let watch = self.new_number();
        // First: its end may be told at once.
        lock(&self.exports).insert((session.tag, number), (node.clone(), watch));
        self.watch_as(watch, node, raw, Watch::Exported { session: session.clone(), number, pid: raw.into() });
        if !self.is_connected(node) {
            // It has gone meanwhile, and nobody would tell.
            lock(&node.watches).remove(&watch);
            self.exported_ended(session, number, ForgetReason::Noconnection, None);
        } else if session.has_ended() || session.core.export_pid(number).is_none() {
            // The peer has dropped it meanwhile, and when that was told there was nothing to forget.
            self.unexported(session, number);
        }
    }

    /// A process of ours that the peer was given has ended. `reason`: the term, without version byte.
    pub(crate) fn exported_ended(
        &self,
        session: &Arc<PeerSession>,
        number: u64,
        class: ForgetReason,
        reason: Option<&[u8]>,
    ) {
        lock(&self.exports).remove(&(session.tag, number));
        let policy = self.policy(&session.realm);
        if !policy.as_ref().is_some_and(|policy| policy.watches(None)) {
            return self.export_ended(session, number, ForgetReason::Withdrawn, None);
        }
        let full = reason.filter(|_| policy.is_some_and(|policy| policy.tells_reasons()));
        let term = full.map(|reason| [&[term::VERSION], reason].concat());
        self.export_ended(session, number, class, term.as_deref());
    }

    fn export_ended(&self, session: &Arc<PeerSession>, number: u64, class: ForgetReason, term: Option<&[u8]>) {
        let pushed = session.core.export_ended(number, class, term);
        self.was_pushed(session, pushed.wake, &pushed.exported);
    }

    /// The peer has dropped it.
    pub(crate) fn unexported(&self, session: &PeerSession, number: u64) {
        let watched = lock(&self.exports).remove(&(session.tag, number));
        let Some((node, watch)) = watched else { return };
        let pid = match lock(&node.watches).get(&watch) {
            Some(Watch::Exported { pid, .. }) => pid.clone(),
            _ => return,
        };
        self.unwatch(&node, &pid, watch);
    }

    /// The session is over.
    pub(crate) fn forget_exports(&self, session: &PeerSession) {
        let mut ours = Vec::new();
        lock(&self.exports).retain(|(of, number), _| {
            let keep = *of != session.tag;
            if !keep {
                ours.push(*number);
            }
            keep
        });
        for node in self.connected_nodes() {
            let watches: Vec<_> = lock(&node.watches)
                .iter()
                .filter_map(|(watch, of)| match of {
                    Watch::Exported { session: of, pid, .. } if of.tag == session.tag => Some((*watch, pid.clone())),
                    _ => None,
                })
                .collect();
            for (watch, pid) in watches {
                self.unwatch(&node, &pid, watch);
            }
        }
    }
}

/// What stands here for what a payload names.
struct Here<'a> {
    realm: &'a Realm,
    session: &'a Arc<PeerSession>,
}

impl Locals for Here<'_> {
    fn pid(&mut self, number: u64) -> Option<Vec<u8>> {
        let process = self.realm.make_stand_in(self.session, number)?;
        Some(self.realm.own_pid(process))
    }

    fn engine(&mut self, name: &str) -> Option<Vec<u8>> {
        let publication = read(&self.realm.engines).get(name).cloned()?;
        let policy = self.realm.policy(&self.session.realm)?;
        policy.exports(name, &publication.options.to).then(|| publication.pid.to_vec())
    }

    fn reference(&mut self) -> Vec<u8> {
        let mut reference = Vec::with_capacity(48);
        self.realm.put_own_reference(&mut reference, self.realm.new_number());
        reference
    }

    fn nobody(&mut self) -> Vec<u8> {
        let nobody = lock(&self.realm.space).nobody();
        self.realm.own_pid(nobody)
    }

    fn used(&mut self, stand_in: &[u8]) {
        if let Some(process) = term::pid(stand_in).and_then(|pid| self.realm.number_of(&pid)) {
            self.realm.stand_in_is_used(process);
        }
    }
}

/// The class as a term, without version byte.
pub(crate) fn class_term(class: ForgetReason) -> Vec<u8> {
    let mut term = Vec::with_capacity(32);
    put_exit_reason(&mut term, class);
    term
}
