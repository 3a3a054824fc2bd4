//! Exit signals, both ways, and reasons.
//!
//! A process that is linked to one of ours, or sends it an exit, does the same to what it stands for, where the peer's policy says so
//! (`link`, `exit`). What is told of the reason is its class, or all of it (`reasons`). `kill` never crosses: nobody could catch it.

use std::sync::Arc;

use legation_proto::frame::forget::ForgetReason;
use legation_proto::session::{Destination, ExitKind};

use crate::config::Operations;
use crate::dist::control::encode;
use crate::dist::term::{self, Pid};
use crate::peers::PeerSession;
use crate::realm::atoms::Verdict;
use crate::realm::engines::{reason_class, Reach};
use crate::realm::handles::class_term;
use crate::realm::node::Node;
use crate::realm::{lock, Body, Realm};

/// Why a process of our node ends.
#[derive(Clone, Debug)]
pub enum ExitReason {
    /// Of atoms that every node has; without version byte.
    Class(Vec<u8>),
    /// From a peer, whose atoms a node may not have. Version byte first.
    Term(Vec<u8>),
}

impl ExitReason {
    pub fn of(class: ForgetReason) -> ExitReason {
        ExitReason::Class(class_term(class))
    }

    /// Version byte first. A peer's reason kills nobody.
    pub fn from_peer(term: Vec<u8>) -> ExitReason {
        match is_kill(term.get(1..).unwrap_or_default()) {
            true => ExitReason::of(ForgetReason::Killed),
            false => ExitReason::Term(term),
        }
    }
}

impl Realm {
    /// A process of ours that is linked to a foreign one has ended, or has sent it an exit. `reason`: version byte first.
    pub(crate) fn exit_out(&self, node: &Node, number: u64, from: &Pid<'_>, exit: ExitKind, reason: &[u8]) {
        let body = self.body(number);
        let Some(target) = body.as_deref().and_then(Body::target) else {
            return self.counters.exits_ignored.one();
        };
        lock(&node.atoms).learn(reason);
        let content = reason.get(1..).unwrap_or_default();
        if exit == ExitKind::Sent && is_kill(content) {
            return self.counters.exits_ignored.one();
        }
        let full = self.policy(&target.session.realm).is_some_and(|policy| policy.tells_reasons());
        let class = [&[term::VERSION], &class_term(reason_class(content))[..]].concat();
        let full = full && !is_kill(content);
        let source = self.published_as(from.raw).unwrap_or_default();
        let push = |reason: &[u8]| target.session.core.push_exit(&source, target.destination, from.raw, exit, reason);
        let pushed = match full {
            // What can't go, as its class.
            true => push(reason).or_else(|_| push(&class)),
            false => push(&class),
        };
        match pushed {
            Ok(pushed) => {
                self.was_pushed(target.session, pushed.wake, &pushed.exported);
            }
            Err(_) => self.counters.exits_dropped.one(),
        }
    }

    /// An exit signal from a process of the peer's. True: there is something to flush in this session.
    pub(crate) fn exit_in(
        &self,
        session: &Arc<PeerSession>,
        exit: ExitKind,
        from: u64,
        destination: &Destination<'_>,
        payload: &[u8],
        handles: bool,
    ) -> bool {
        let operation = match exit {
            ExitKind::Linked => Operations::LINK,
            ExitKind::Sent => Operations::EXIT,
        };
        let reached = match destination {
            Destination::Engine(engine) => self.reach_engine(session, engine, operation, payload),
            Destination::Process { pid, .. } => self.reach_process(session, pid, operation, payload),
        };
        let killed = exit == ExitKind::Sent && is_kill(payload.get(1..).unwrap_or_default());
        // A filter decides on messages; on this it can't be asked, and has not agreed. And what waits for a node has its bounds.
        let may = |reach: &Reach| match reach {
            Reach::Engine(engine) => !engine.filtered && self.may_hold(&engine.node, session.tag, payload.len()),
            _ => true,
        };
        let reached = reached.ok().filter(may);
        let (Some(Reach::Engine(engine)), false) = (reached, killed) else {
            self.counters.exits_refused.one();
            if handles {
                self.discard(session, payload);
            }
            return session.core.settle_handle(from);
        };
        let stand_in = self.stand_in(session, from);
        let wake = session.core.settle_handle(from);
        let reason = match handles {
            true => self.translate(session, payload),
            false => Ok(payload.to_vec()),
        };
        let (Some(stand_in), Ok(reason)) = (stand_in, reason) else {
            self.counters.exits_refused.one();
            return wake;
        };
        let own = self.own_pid(stand_in);
        let mut control = Vec::with_capacity(128);
        match exit {
            ExitKind::Sent => encode::payload_exit2(&mut control, &own, &engine.pid),
            ExitKind::Linked => {
                // Who isn't linked hears nothing of an end.
                let mut link = Vec::with_capacity(128);
                encode::link(&mut link, &own, &engine.pid);
                self.signal(&engine.node, Some(session.tag), &engine.pid, link, None);
                encode::payload_exit(&mut control, &own, &engine.pid);
            }
        }
        self.signal_reason(&engine.node, Some(session.tag), &engine.pid, control, &ExitReason::from_peer(reason));
        wake
    }

    /// A signal with a reason, in order behind what is held of the session. Whether the node has the atoms of a peer's reason it may
    /// have to be asked; nothing more comes of a process that has ended, so it need not keep a place.
    pub(crate) fn signal_reason(
        &self,
        node: &Arc<Node>,
        session: Option<u64>,
        to: &[u8],
        control: Vec<u8>,
        reason: &ExitReason,
    ) {
        let payload = match reason {
            ExitReason::Class(class) => return self.signal(node, session, to, control, Some(class)),
            ExitReason::Term(payload) => payload,
        };
        let content = payload.get(1..).unwrap_or_default();
        let verdict = lock(&node.atoms).judge(payload, self.now());
        match verdict {
            // Behind what waits there is nobody who would ask for it: it keeps its place, and its class has no such atoms.
            Verdict::Ask(_) if session.is_some_and(|session| lock(&node.holds).contains_key(&session)) => {
                self.signal(node, session, to, control, Some(&class_term(reason_class(content))));
            }
            Verdict::Known => self.signal(node, session, to, control, Some(content)),
            Verdict::Unknown => self.signal(node, session, to, control, Some(UNDECODABLE)),
            Verdict::Ask(atoms) => {
                let Some(realm) = self.me() else { return };
                let (node, to, content) = (node.clone(), to.to_vec(), content.to_vec());
                tokio::spawn(async move {
                    let known = realm.node_has(&node, atoms).await;
                    let content = if known { &content[..] } else { UNDECODABLE };
                    realm.signal(&node, session, &to, control, Some(content));
                });
            }
        }
    }
}

fn is_kill(reason: &[u8]) -> bool {
    term::atom(reason).is_some_and(|atom| atom.eq_str("kill"))
}

/// `{remote_exit, undecodable}`.
const UNDECODABLE: &[u8] = b"h\x02w\x0bremote_exitw\x0bundecodable";
