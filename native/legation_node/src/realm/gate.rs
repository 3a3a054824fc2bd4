//! Messages that somebody on the BEAM has to look at before they are delivered: where the policy has a filter, or mailboxes a bound.
//!
//! The gate is a process of the Elixir side. It gets the payload as a binary, decodes it without making atoms, asks the filter, delivers,
//! and says what came of it. All messages for such an engine go this way, so their order is kept.
//!
//! ```text
//!  {legation_gate, Id, Target, Kind, Label, From, Meta, Payload} ──► gate ──► engine
//!                                                  {gate, Id, ok | {refuse, Reason}} ◄──┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use legation_proto::frame::batch::{label, Refusal};
use legation_proto::session::Delivery;

use crate::config::Operations;
use crate::dist::control::encode;
use crate::dist::term;
use crate::peers::PeerSession;
use crate::realm::engines::Reach;
use crate::realm::incoming::{key_of, Kind, Parcel};
use crate::realm::node::{Node, Watch};
use crate::realm::{lock, Realm};

/// The process that looks at messages, and what it has not yet answered.
#[derive(Debug, Default)]
pub struct Gate {
    process: Option<(Arc<Node>, Box<[u8]>, u64)>,
    open: HashMap<u64, Open>,
    /// How many of them are each session's, and their bytes.
    of_session: HashMap<u64, (usize, usize)>,
}

#[derive(Debug)]
struct Open {
    session: Arc<PeerSession>,
    /// In bytes, with the payload that only the gate has.
    cost: usize,
    /// Only of a call is there anything to refuse.
    parcel: Parcel<'static>,
}

impl Gate {
    fn open(&mut self, number: u64, open: Open) {
        let (count, bytes) = self.of_session.entry(open.session.tag).or_default();
        (*count, *bytes) = (*count + 1, *bytes + open.cost);
        self.open.insert(number, open);
    }

    fn close(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
        if let Some((count, bytes)) = self.of_session.get_mut(&open.session.tag) {
            (*count, *bytes) = (count.saturating_sub(1), bytes.saturating_sub(open.cost));
            if *count == 0 {
                self.of_session.remove(&open.session.tag);
            }
        }
        Some(open)
    }

    fn close_all(&mut self) -> Vec<Open> {
        self.of_session.clear();
        self.open.drain().map(|(_, open)| open).collect()
    }
}

impl Realm {
    pub(crate) fn has_gate(&self) -> bool {
        lock(&self.gate).process.is_some()
    }

    /// The one before it is let go.
    pub(crate) fn set_gate(&self, node: &Arc<Node>, pid: &[u8]) {
        let number = self.watch(node, pid, Watch::Gate);
        // In one go: what goes to the new one is not among what the old one had.
        let (before, open) = {
            let mut gate = lock(&self.gate);
            let before = gate.process.replace((node.clone(), pid.into(), number));
            (before, gate.close_all())
        };
        if let Some((node, pid, number)) = before {
            self.unwatch(&node, &pid, number);
        }
        self.refuse_all(open);
    }

    pub(crate) fn gate_ended(&self, number: u64) {
        let open = {
            let mut gate = lock(&self.gate);
            if gate.process.as_ref().is_none_or(|(_, _, current)| *current != number) {
                return;
            }
            gate.process = None;
            gate.close_all()
        };
        self.refuse_all(open);
    }

    fn refuse_all(&self, open: Vec<Open>) {
        for Open { session, parcel, .. } in open {
            if self.turn_away(&session, &parcel, Refusal::Overload) {
                session.wake();
            }
        }
    }

    /// True: there is something to flush in this session.
    pub(crate) fn to_gate(&self, session: &Arc<PeerSession>, parcel: Parcel<'_>, reach: &Reach) -> bool {
        let Reach::Engine(engine) = reach else {
            return false;
        };
        let (kind, label, from) = match &parcel.kind {
            Kind::Deliver(Delivery::Cast) => ("cast", 0, None),
            Kind::Deliver(Delivery::Send) => ("send", 0, None),
            Kind::Call { label, call_id, stand_in, .. } => ("call", *label, Some((*stand_in, *call_id))),
            Kind::Reply { .. } => return false,
        };
        let number = self.new_number();
        let mut message = Vec::with_capacity(parcel.payload.len() + 256);
        term::put_tuple_header(&mut message, 8);
        term::put_atom(&mut message, "legation_gate");
        term::put_u64(&mut message, number);
        match &engine.registered {
            Some(name) => term::put_atom(&mut message, name),
            None => message.extend_from_slice(&engine.pid),
        }
        term::put_atom(&mut message, kind);
        term::put_u64(&mut message, u64::from(label));
        match from {
            Some((stand_in, call_id)) => {
                let pid = self.own_pid(stand_in);
                self.put_from(&mut message, &pid, call_id, &session.realm, &parcel.source);
            }
            None => term::put_atom(&mut message, "none"),
        }
        term::put_map_header(&mut message, 4);
        term::put_atom(&mut message, "realm");
        term::put_binary(&mut message, session.realm.as_bytes());
        term::put_atom(&mut message, "engine");
        term::put_binary(&mut message, parcel.engine.as_bytes());
        term::put_atom(&mut message, "source");
        term::put_binary(&mut message, parcel.source.as_bytes());
        term::put_atom(&mut message, "op");
        term::put_atom(&mut message, operation_name(engine.operation));
        term::put_binary(&mut message, &parcel.payload);

        let mut control = Vec::with_capacity(96);
        let sent = {
            let mut gate = lock(&self.gate);
            let Some((node, pid, _)) = &gate.process else {
                drop(gate);
                // Nobody could ask the filter, and it has not agreed.
                return self.turn_away(session, &parcel, Refusal::Filtered);
            };
            // Each is a message in its mailbox, too.
            let (count, bytes) = gate.of_session.get(&session.tag).copied().unwrap_or_default();
            let cost = parcel.cost() + parcel.receipt.as_ref().map_or(0, Vec::len);
            let fits = bytes == 0 || bytes + cost <= self.limits.held_bytes_max;
            if count >= self.limits.held_messages_max || !fits {
                self.counters.gate_over_limit.one();
                false
            } else {
                encode::send_sender(&mut control, self.agent_pid(), pid);
                let sent = node.link.push(key_of(pid), &control, &[&message]).is_ok();
                if sent {
                    let kept = Parcel {
                        kind: parcel.kind.clone(),
                        engine: parcel.engine.clone(),
                        process: None,
                        handles: false,
                        source: parcel.source.clone(),
                        payload: Vec::new().into(),
                        receipt: parcel.receipt.clone(),
                    };
                    gate.open(number, Open { session: session.clone(), cost, parcel: kept.owned() });
                }
                sent
            }
        };
        match sent {
            true => false,
            false => self.turn_away(session, &parcel, Refusal::Overload),
        }
    }

    /// What the gate says of a message.
    pub(crate) fn gate_answered(&self, number: u64, refused: Option<&str>) {
        let Some(Open { session, parcel, .. }) = lock(&self.gate).close(number) else {
            self.counters.beam_strays.one();
            return;
        };
        match refused {
            Some(reason) => {
                let refusal = Refusal::ALL.into_iter().find(|refusal| refusal.name() == reason);
                if self.turn_away(&session, &parcel, refusal.unwrap_or(Refusal::Filtered)) {
                    session.wake();
                }
            }
            None => {
                self.send_receipt_of(&session, &parcel);
                // The gate has put it there itself.
                if let Kind::Call { label: label::CAST | label::SEND, call_id, .. } = parcel.kind {
                    self.answer_received(&session, call_id);
                }
            }
        }
    }
}

fn operation_name(operation: u16) -> &'static str {
    match operation {
        Operations::CAST => "cast",
        Operations::SEND => "send",
        Operations::SYS => "sys",
        Operations::EVENT => "event",
        _ => "call",
    }
}
