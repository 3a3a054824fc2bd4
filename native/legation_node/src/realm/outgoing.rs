//! From a message of a BEAM process to a push into a session: what is sent to a proxy is for the foreign engine.
//!
//! The payload is never decoded: its shape is looked at, the session scans it, and it goes as it came. For a call the `from` stays at
//! home, as the opaque context of the session's entry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use legation_proto::error::CloseCode;
use legation_proto::session::{Delivery, NewCall, PushError};

use crate::dist::term::{self, Pid};
use crate::realm::counters::Drop;
use crate::realm::incoming::Context;
use crate::realm::node::Node;
use crate::realm::request::{classify, monitor_words, Request};
use crate::realm::space::MonitorKey;
use crate::realm::{lock, read, Body, Counts, Realm, Target};

impl Target<'_> {
    fn count(&self, which: impl FnOnce(&Counts) -> &AtomicU64) {
        if let Some(counts) = self.counts {
            which(counts).fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Realm {
    /// `message`: version byte first. `number`: of the proxy's process.
    pub(crate) fn send_out(
        &self,
        node: &Arc<Node>,
        number: u64,
        body: &Body,
        from: Option<&Pid<'_>>,
        message: &mut [u8],
    ) {
        let Some(target) = body.target() else {
            return self.counters.beam_strays.one();
        };
        // First, while the bytes are whole: the node has what it sends.
        lock(&node.atoms).learn(message);
        match classify(message) {
            Request::Call { label, pid, tag, request } => {
                target.count(|counts| &counts.calls);
                let mut context = Vec::with_capacity(10 + pid.len() + tag.len());
                let caller: Box<[u8]> = message[pid.clone()].into();
                Context { called: number, pid: &caller, tag: &message[tag.clone()] }.encode(&mut context);
                let guard = monitor_words(&message[tag]);
                // A payload begins with its version byte; what stood before the request has been copied.
                let start = request.start - 1;
                message[start] = term::VERSION;
                let payload = &message[start..request.end];
                self.push_call(node, number, target, label, &caller, guard, &context, payload);
            }
            Request::Cast { message: content } => {
                target.count(|counts| &counts.casts);
                let start = content.start - 1;
                message[start] = term::VERSION;
                self.push(target, Delivery::Cast, from, &message[start..content.end]);
            }
            Request::Plain => {
                target.count(|counts| &counts.sends);
                self.push(target, Delivery::Send, from, message);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn push_call(
        &self,
        node: &Arc<Node>,
        number: u64,
        target: Target<'_>,
        label: u8,
        caller: &[u8],
        guard: Option<[u32; 5]>,
        context: &[u8],
        payload: &[u8],
    ) {
        if target.session.is_draining() {
            if let Some(context) = Context::decode(context) {
                self.answer_refused(&context, "draining");
            }
            return;
        }
        let source = self.published_as(caller);
        let call = NewCall {
            destination: target.destination,
            label,
            source: source.as_deref().unwrap_or(""),
            caller,
            context,
            payload,
        };
        match target.session.core.push_call(self.now(), &call) {
            Ok(pushed) => {
                if let Some(words) = guard {
                    let key = MonitorKey { node: node.link.number, words };
                    lock(&self.space).guard_call(number, &key, target.session.tag, pushed.call_id);
                }
                self.was_pushed(target.session, pushed.wake, &pushed.exported);
            }
            // The session is over, and so is the proxy in a moment: then the caller gets a real signal.
            Err(PushError::Ended) => {}
            Err(error) => {
                self.close_overloaded(target, error);
                if let Some(context) = Context::decode(context) {
                    self.answer_refused(&context, reason_of(error));
                }
            }
        }
    }

    fn push(&self, target: Target<'_>, delivery: Delivery, from: Option<&Pid<'_>>, payload: &[u8]) {
        let source = from.and_then(|from| self.published_as(from.raw));
        let source = source.as_deref().unwrap_or("");
        match target.session.core.push(delivery, source, target.destination, payload, false) {
            Ok(pushed) => {
                self.was_pushed(target.session, pushed.wake, &pushed.exported);
            }
            Err(error) => {
                self.close_overloaded(target, error);
                self.drop_out(target, delivery, reason_of(error));
            }
        }
    }

    /// Where `overflow` says so, a peer that takes too little is left.
    pub(crate) fn close_overloaded(&self, target: Target<'_>, error: PushError) {
        if let (PushError::Disconnect, Some(peers)) = (error, self.peers()) {
            if target.session.overflows() {
                self.counters.sessions_overflowed.one();
                peers.close_session(target.session, CloseCode::Overload);
            }
        }
    }

    fn drop_out(&self, target: Target<'_>, delivery: Delivery, reason: &'static str) {
        target.count(|counts| &counts.dropped);
        self.counters.dropped_reason(reason);
        self.log_drop(Drop {
            direction: "out",
            kind: if delivery == Delivery::Cast { "cast" } else { "send" },
            realm: &target.session.realm,
            engine: target.destination,
            reason,
        });
    }

    /// A message over the limit, of which only the beginning has come.
    pub(crate) fn send_out_oversized(&self, number: u64, target: Target<'_>, head: &[u8]) {
        target.session.core.counters().too_large_out.one();
        match oversized_call(head) {
            Some((pid, tag)) => {
                target.count(|counts| &counts.calls);
                self.answer_refused(&Context { called: number, pid, tag }, "too_large");
            }
            None => {
                let is_cast = term::tuple(head.get(1..).unwrap_or_default())
                    .and_then(|(_, first)| term::take_atom(first))
                    .is_some_and(|(atom, _)| atom.eq_str("$gen_cast"));
                self.drop_out(target, if is_cast { Delivery::Cast } else { Delivery::Send }, "too_large");
            }
        }
    }

    /// The engine of ours that this process is, if it was published.
    pub(crate) fn published_as(&self, pid: &[u8]) -> Option<Box<str>> {
        let published_as = read(&self.published_as);
        match published_as.is_empty() {
            true => None,
            false => published_as.get(pid).cloned(),
        }
    }
}

/// `{_, {Pid, Tag}, ...`, whatever comes behind it and however it is cut.
fn oversized_call(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let (arity, first) = term::tuple(head.get(1..)?)?;
    if arity != 3 {
        return None;
    }
    let is_call = match term::take_atom(first) {
        Some((atom, _)) => atom.eq_str("$gen_call") || atom.eq_str("system"),
        None => term::take_pid(first).is_some(),
    };
    let from = term::skip(first)?;
    let rest = term::skip(from)?;
    let [pid, tag] = term::elements::<2>(&from[..from.len() - rest.len()])?;
    (is_call && term::pid(pid).is_some()).then_some((pid, tag))
}

/// As `Legation.Error` knows it.
pub(crate) fn reason_of(error: PushError) -> &'static str {
    match error {
        PushError::Overload | PushError::Disconnect => "overload",
        PushError::TooLarge => "too_large",
        PushError::Identifiers => "identifiers",
        PushError::BadTerm => "bad_term",
        PushError::UnknownCall => "unknown_call",
        PushError::BadName | PushError::UnknownHandle => "noproc",
        _ => "ended",
    }
}
