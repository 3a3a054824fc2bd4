//! From an event of a session to a message on a BEAM node, or not.
//!
//! Only what stands in the table of our engines, for this peer, can be reached: no registered name, no pid, no
//! `{Name, Node}`. An engine that the peer may not see looks exactly like one that isn't there.
//!
//! ```text
//!  event ─► engine, policy ─► [gate] ─► [held behind another] ─► atoms known? ─► frame for the node
//! ```

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use legation_proto::frame::batch::{label, Refusal};
use legation_proto::session::Delivery;

use crate::config::Operations;
use crate::dist::control::encode;
use crate::dist::term;
use crate::net::beam::NodeLink;
use crate::peers::PeerSession;
use crate::realm::atoms::Verdict;
use crate::realm::counters::Drop;
use crate::realm::engines::{Reach, ReachedEngine, CALL_TIMEOUT};
use crate::realm::node::{Held, Hold, Node, Question};
use crate::realm::policy::operation_of;
use crate::realm::{lock, read, Realm};

/// One message from a peer. Owned while it is held.
#[derive(Clone, Debug)]
pub struct Parcel<'a> {
    pub kind: Kind<'a>,
    /// The engine of ours that it is for; of a reply, or for another process, nothing.
    pub engine: Cow<'a, str>,
    /// The other process, raw.
    pub process: Option<Arc<[u8]>>,
    /// The engine that signed it; empty for the realm itself.
    pub source: Cow<'a, str>,
    /// Version byte first.
    pub payload: Cow<'a, [u8]>,
    /// There are identifiers in it that mean nothing here yet.
    pub handles: bool,
    pub receipt: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub enum Kind<'a> {
    Deliver(Delivery),
    Call {
        label: u8,
        call_id: u64,
        caller: u64,
        /// What stands for the caller; 0 until it is known that the call may be made.
        stand_in: u64,
    },
    /// To a call of ours; what [`Context`] was made of.
    Reply {
        context: Cow<'a, [u8]>,
    },
}

impl Parcel<'_> {
    pub(crate) fn owned(self) -> Parcel<'static> {
        Parcel {
            kind: match self.kind {
                Kind::Deliver(delivery) => Kind::Deliver(delivery),
                Kind::Call { label, call_id, caller, stand_in } => Kind::Call { label, call_id, caller, stand_in },
                Kind::Reply { context } => Kind::Reply { context: Cow::Owned(context.into_owned()) },
            },
            engine: Cow::Owned(self.engine.into_owned()),
            process: self.process,
            handles: self.handles,
            source: Cow::Owned(self.source.into_owned()),
            payload: Cow::Owned(self.payload.into_owned()),
            receipt: self.receipt,
        }
    }

    pub(crate) fn cost(&self) -> usize {
        let context = match &self.kind {
            Kind::Reply { context } => context.len(),
            _ => 0,
        };
        self.payload.len() + self.engine.len() + self.source.len() + context + 128
    }
}

/// How to answer a call of a BEAM process: kept by the session as opaque bytes.
///
/// ```text
///  0 number of the process that was called, u64
///  8 length of the pid, u16
/// 10 pid, raw
///  . tag, raw, to the end
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub called: u64,
    pub pid: &'a [u8],
    pub tag: &'a [u8],
}

impl<'a> Context<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.called.to_le_bytes());
        out.extend_from_slice(&(self.pid.len() as u16).to_le_bytes());
        out.extend_from_slice(self.pid);
        out.extend_from_slice(self.tag);
    }

    pub fn decode(bytes: &'a [u8]) -> Option<Context<'a>> {
        let (called, rest) = bytes.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (pid, tag) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        Some(Context { called: u64::from_le_bytes(*called), pid, tag })
    }
}

impl Realm {
    /// True: there is something to flush in this session.
    pub(crate) fn arrive(&self, session: &Arc<PeerSession>, mut parcel: Parcel<'_>) -> bool {
        let reach = match self.reach(session, &parcel) {
            Ok(reach) => reach,
            Err(refusal) => {
                return match &parcel.kind {
                    Kind::Reply { .. } => match self.at_home(session, &mut parcel) {
                        Ok(()) => self.dial_and_arrive(session, parcel),
                        Err(refusal) => self.turn_away(session, &parcel, refusal),
                    },
                    _ => self.turn_away(session, &parcel, refusal),
                }
            }
        };
        if let Err(refusal) = self.at_home(session, &mut parcel) {
            return self.turn_away(session, &parcel, refusal);
        }
        let node = reach.node().clone();
        if reach.asks_gate() {
            return self.to_gate(session, parcel, &reach);
        }
        // Kept to the end: what comes in this session for this node has one order, whoever brings it.
        let mut holds = lock(&node.holds);
        if let Some(hold) = holds.get_mut(&session.tag) {
            let (queued, bytes) = (hold.queue.len(), hold.bytes + parcel.cost());
            if queued >= self.limits.held_messages_max || bytes > self.limits.held_bytes_max {
                drop(holds);
                self.counters.held_over_limit.one();
                return self.turn_away(session, &parcel, Refusal::Overload);
            }
            hold.bytes = bytes;
            hold.queue.push_back(Held::Message(parcel.owned()));
            return false;
        }
        let verdict = lock(&node.atoms).judge(&parcel.payload, self.now());
        match verdict {
            Verdict::Known => self.post(session, &node, &parcel, &reach),
            Verdict::Unknown => self.turn_away(session, &parcel, Refusal::Undecodable),
            Verdict::Ask(atoms) => {
                let mut hold = Hold {
                    session: session.clone(),
                    bytes: parcel.cost(),
                    queue: VecDeque::new(),
                    question: 0,
                    asked: atoms,
                    since: self.now(),
                };
                self.ask_atoms(&node, &mut hold);
                if !self.is_connected(&node) {
                    // Nobody would answer, nor clear it.
                    return self.turn_away(session, &parcel, Refusal::Noproc);
                }
                hold.queue.push_back(Held::Message(parcel.owned()));
                holds.insert(session.tag, hold);
                false
            }
        }
    }

    /// What it names of the peer's has its stand-in, and its payload is as a process here will see it. In the order in which it has
    /// come, whatever waits afterwards.
    fn at_home(&self, session: &Arc<PeerSession>, parcel: &mut Parcel<'_>) -> Result<(), Refusal> {
        if let Kind::Call { caller, stand_in, .. } = &mut parcel.kind {
            *stand_in = self.stand_in(session, *caller).ok_or(Refusal::Overload)?;
        }
        if std::mem::take(&mut parcel.handles) {
            parcel.payload = Cow::Owned(self.translate(session, &parcel.payload)?);
        }
        Ok(())
    }

    /// A reply to a process on a node that isn't connected, which is where a call was passed on from: it waits until the node is.
    fn dial_and_arrive(&self, session: &Arc<PeerSession>, parcel: Parcel<'_>) -> bool {
        let caller = match &parcel.kind {
            Kind::Reply { context } => Context::decode(context).map(|context| context.pid.to_vec()),
            _ => None,
        };
        let cost = parcel.cost();
        let (Some(caller), Some(realm)) = (caller, self.me()) else {
            return self.turn_away(session, &parcel, Refusal::Noproc);
        };
        {
            let mut dialling = lock(&self.dialling);
            let (count, bytes) = (dialling.0 + 1, dialling.1 + cost);
            if count > self.limits.held_messages_max || bytes > self.limits.held_bytes_max {
                drop(dialling);
                self.counters.held_over_limit.one();
                return self.turn_away(session, &parcel, Refusal::Noproc);
            }
            *dialling = (count, bytes);
        }
        let (session, parcel) = (session.clone(), parcel.owned());
        tokio::spawn(async move {
            let dialled = match term::pid(&caller) {
                Some(pid) => realm.dial_node(&pid).await.is_some(),
                None => false,
            };
            {
                let mut dialling = lock(&realm.dialling);
                *dialling = (dialling.0 - 1, dialling.1 - cost);
            }
            let flush = match dialled {
                true => realm.arrive(&session, parcel),
                false => realm.turn_away(&session, &parcel, Refusal::Noproc),
            };
            if flush {
                session.wake();
            }
        });
        false
    }

    fn ask_atoms(&self, node: &Arc<Node>, hold: &mut Hold) {
        self.counters.atoms_asked.one();
        let arguments = safe_decoding(&hold.asked);
        let question = Question::Atoms { session: hold.session.tag };
        hold.question = self.ask(node, "erlang", "binary_to_term", &arguments, question);
        hold.since = self.now();
    }

    /// Whether a node has all of these atoms, for what need not keep its place.
    pub(crate) async fn node_has(&self, node: &Arc<Node>, atoms: Vec<Box<str>>) -> bool {
        self.counters.atoms_asked.one();
        let answer = self.call(node, "erlang", "binary_to_term", &safe_decoding(&atoms)).await;
        // The list itself, or {badrpc, _}: then one of them is unknown.
        let known = answer.is_some_and(|answer| term::tuple(&answer).is_none());
        if known {
            let mut of_node = lock(&node.atoms);
            atoms.into_iter().for_each(|text| of_node.add(text));
        }
        known
    }

    /// The node has said whether it has the atoms that this session's hold waits for. `None`: it did not say.
    pub(crate) fn atoms_answered(&self, node: &Arc<Node>, session: u64, question: u64, known: Option<bool>) {
        let mut holds = lock(&node.holds);
        let Some(hold) = holds.get_mut(&session).filter(|hold| hold.question == question) else {
            return;
        };
        hold.question = 0;
        let asked = std::mem::take(&mut hold.asked);
        let mut refused = known != Some(true);
        {
            let mut atoms = lock(&node.atoms);
            match known {
                Some(true) => asked.into_iter().for_each(|text| atoms.add(text)),
                Some(false) => atoms.refuse(asked, self.now()),
                None => {}
            }
        }
        let mut wake = false;
        // Of the rest of a hold that is worked off piece by piece, none has a verdict yet.
        let mut first = question != 0;
        refused &= first;
        for served in 0.. {
            if served == RELEASED_AT_ONCE {
                self.go_on_releasing(node, session);
                break;
            }
            let Some(held) = hold.queue.pop_front() else {
                break;
            };
            hold.bytes = hold.bytes.saturating_sub(held.cost());
            match held {
                Held::Signal { key, control, payload: Some(payload) } => {
                    node.link.push_signal(key, &control, &[&payload]);
                }
                Held::Signal { key, control, payload: None } => node.link.push_signal(key, &control, &[]),
                Held::Message(parcel) => {
                    // The first has its verdict: not to be asked again, even if there is no room to remember it.
                    let verdict = match (std::mem::take(&mut first), std::mem::take(&mut refused)) {
                        (true, true) => Verdict::Unknown,
                        (true, false) => Verdict::Known,
                        _ => lock(&node.atoms).judge(&parcel.payload, self.now()),
                    };
                    match verdict {
                        Verdict::Known => match self.reach(&hold.session, &parcel) {
                            Ok(reach) => wake |= self.post(&hold.session, node, &parcel, &reach),
                            Err(refusal) => wake |= self.turn_away(&hold.session, &parcel, refusal),
                        },
                        Verdict::Unknown => wake |= self.turn_away(&hold.session, &parcel, Refusal::Undecodable),
                        Verdict::Ask(atoms) => {
                            hold.bytes += parcel.cost();
                            hold.queue.push_front(Held::Message(parcel));
                            hold.asked = atoms;
                            self.ask_atoms(node, hold);
                            break;
                        }
                    }
                }
            }
        }
        if wake {
            hold.session.wake();
        }
        if hold.queue.is_empty() {
            holds.remove(&session);
            self.released.notify_waiters();
        }
    }

    /// The rest of a hold in a turn of its own: other sessions wait for the same lock.
    fn go_on_releasing(&self, node: &Arc<Node>, session: u64) {
        if let Some(realm) = self.me() {
            let node = node.clone();
            tokio::spawn(async move { realm.atoms_answered(&node, session, 0, None) });
        }
    }

    /// Where a message goes, if it may.
    fn reach(&self, session: &PeerSession, parcel: &Parcel<'_>) -> Result<Reach, Refusal> {
        match &parcel.kind {
            Kind::Reply { context } => {
                let context = Context::decode(context).ok_or(Refusal::Noproc)?;
                let pid = term::pid(context.pid).ok_or(Refusal::Noproc)?;
                self.node_of(&pid).map(Reach::Caller).ok_or(Refusal::Noproc)
            }
            Kind::Deliver(delivery) => {
                let operation = match delivery {
                    Delivery::Send => Operations::SEND,
                    Delivery::Cast => Operations::CAST,
                };
                self.reach_destination(session, parcel, operation)
            }
            // Goodbye is said when no call is open.
            Kind::Call { .. } if session.is_draining() => Err(Refusal::Draining),
            Kind::Call { label, .. } => self.reach_destination(session, parcel, operation_of(*label)),
        }
    }

    fn reach_destination(&self, session: &PeerSession, parcel: &Parcel<'_>, operation: u16) -> Result<Reach, Refusal> {
        match &parcel.process {
            Some(pid) => self.reach_process(session, pid, operation, &parcel.payload),
            None => self.reach_engine(session, &parcel.engine, operation, &parcel.payload),
        }
    }

    /// To the node, in the form that its processes expect. True: there is something to flush in this session.
    fn post(&self, session: &Arc<PeerSession>, node: &Arc<Node>, parcel: &Parcel<'_>, reach: &Reach) -> bool {
        let content = parcel.payload.get(1..).unwrap_or_default();
        let sent = match (&parcel.kind, reach) {
            (Kind::Reply { context }, _) => {
                if let Some(context) = Context::decode(context) {
                    // How much is the peer's doing: a node that doesn't read must not lose its connection by it.
                    let pushed = self.put_answer(node, &context, &[content], |link, key, control, pieces| {
                        link.push(key, control, pieces).is_ok()
                    });
                    if !pushed {
                        self.counters.beam_overload.one();
                        self.answer_refused(&context, Refusal::Overload.name());
                    }
                }
                return false;
            }
            (Kind::Deliver(delivery), Reach::Engine(engine)) => {
                let mut control = Vec::with_capacity(96);
                engine.put_control(&mut control, self.agent_pid());
                match delivery {
                    Delivery::Send => node.link.push(engine.key, &control, &[content]),
                    Delivery::Cast => node.link.push(engine.key, &control, &[CAST_HEAD, content]),
                }
            }
            (Kind::Call { label, call_id, .. }, Reach::Engine(engine)) if is_message(*label) => {
                let mut control = Vec::with_capacity(96);
                engine.put_control(&mut control, self.agent_pid());
                let pushed = match *label {
                    label::SEND => node.link.push(engine.key, &control, &[content]),
                    _ => node.link.push(engine.key, &control, &[CAST_HEAD, content]),
                };
                if pushed.is_ok() {
                    self.confirm(session, node, engine, *call_id);
                }
                pushed
            }
            (Kind::Call { label, call_id, stand_in, .. }, Reach::Engine(engine)) => {
                let mut pid = Vec::with_capacity(40);
                self.put_own_pid(&mut pid, *stand_in);
                let mut control = Vec::with_capacity(96);
                engine.put_control(&mut control, &pid);
                let mut head = Vec::with_capacity(160);
                term::put_tuple_header(&mut head, 3);
                match *label {
                    label::SYSTEM => term::put_atom(&mut head, "system"),
                    label::CALLER => head.extend_from_slice(&pid),
                    _ => term::put_atom(&mut head, "$gen_call"),
                }
                self.put_from(&mut head, &pid, *call_id, &session.realm, &parcel.source);
                node.link.push(engine.key, &control, &[&head, content])
            }
            (_, Reach::Caller(_)) => return false,
        };
        match (sent, reach) {
            (Ok(()), Reach::Engine(engine)) => {
                if let (Some(pid), Some(receipt)) = (&engine.receipts, &parcel.receipt) {
                    self.send_receipt(pid, session, parcel, receipt);
                }
                false
            }
            (Ok(()), Reach::Caller(_)) => false,
            (Err(_), _) => {
                self.counters.beam_overload.one();
                self.turn_away(session, parcel, Refusal::Overload)
            }
        }
    }

    /// Answers a message that was asked after once it is in the mailbox: the node is asked behind it whether the process lives.
    fn confirm(&self, session: &Arc<PeerSession>, node: &Arc<Node>, engine: &ReachedEngine, call_id: u64) {
        let Some(realm) = self.me() else {
            return;
        };
        let mut arguments = Vec::with_capacity(48);
        term::put_list_header(&mut arguments, 1);
        arguments.extend_from_slice(&engine.pid);
        term::put_nil(&mut arguments);
        let (sender, answer) = tokio::sync::oneshot::channel();
        let question = Question::Call(sender);
        self.ask_behind(engine.key, node, "erlang", "is_process_alive", &arguments, question);
        let session = session.clone();
        tokio::spawn(async move {
            let alive = match tokio::time::timeout(CALL_TIMEOUT, answer).await {
                Ok(Ok(answer)) => term::atom(&answer).is_some_and(|atom| atom.eq_str("true")),
                _ => false,
            };
            match alive {
                true => realm.answer_received(&session, call_id),
                false if session.core.refuse(call_id, Refusal::Noproc) => session.wake(),
                false => {}
            }
        });
    }

    /// To a message that was asked after: it is there.
    pub(crate) fn answer_received(&self, session: &PeerSession, call_id: u64) {
        // Nobody may wait any more, or the session be over.
        if session.core.reply(call_id, RECEIVED).is_ok_and(|pushed| pushed.wake) {
            session.wake();
        }
    }

    /// `{Pid, {'$legation', CallId, Realm, Engine}}`: what a called engine answers to.
    pub(crate) fn put_from(&self, out: &mut Vec<u8>, pid: &[u8], call_id: u64, realm: &str, source: &str) {
        term::put_tuple_header(out, 2);
        out.extend_from_slice(pid);
        term::put_tuple_header(out, 4);
        term::put_atom(out, "$legation");
        term::put_u64(out, call_id);
        term::put_binary(out, realm.as_bytes());
        term::put_binary(out, source.as_bytes());
    }

    /// The receipt of a message that the gate has delivered.
    pub(crate) fn send_receipt_of(&self, session: &PeerSession, parcel: &Parcel<'_>) {
        let publication = read(&self.engines).get(&*parcel.engine).cloned();
        let receipts = publication.and_then(|publication| publication.options.receipts.clone());
        if let (Some(pid), Some(receipt)) = (receipts, &parcel.receipt) {
            self.send_receipt(&pid, session, parcel, receipt);
        }
    }

    fn send_receipt(&self, pid: &[u8], session: &PeerSession, parcel: &Parcel<'_>, receipt: &[u8]) {
        let Some(to) = term::pid(pid) else {
            return;
        };
        let Some(node) = self.node_of(&to) else {
            return;
        };
        let mut message = Vec::with_capacity(receipt.len() + 128);
        term::put_tuple_header(&mut message, 3);
        term::put_atom(&mut message, "legation_receipt");
        term::put_binary(&mut message, parcel.engine.as_bytes());
        term::put_map_header(&mut message, 3);
        term::put_atom(&mut message, "realm");
        term::put_binary(&mut message, session.realm.as_bytes());
        term::put_atom(&mut message, "source");
        term::put_binary(&mut message, parcel.source.as_bytes());
        term::put_atom(&mut message, "receipt");
        term::put_binary(&mut message, receipt);
        self.send_term(&node, pid, &message);
    }

    /// What can't be delivered: a call is refused, a cast or send dropped and counted. A reply that can't be
    /// decoded is an error to the caller, who waits.
    pub(crate) fn turn_away(&self, session: &Arc<PeerSession>, parcel: &Parcel<'_>, refusal: Refusal) -> bool {
        if parcel.handles {
            self.discard(session, &parcel.payload);
        }
        if refusal == Refusal::Undecodable {
            session.core.counters().undecodable.one();
        }
        match &parcel.kind {
            Kind::Call { call_id, .. } => {
                self.counters.calls_refused.one();
                session.core.refuse(*call_id, refusal)
            }
            Kind::Deliver(delivery) => {
                self.counters.dropped(refusal);
                self.log_drop(Drop {
                    direction: "in",
                    kind: if *delivery == Delivery::Cast { "cast" } else { "send" },
                    realm: &session.realm,
                    engine: &parcel.engine,
                    reason: refusal.name(),
                });
                false
            }
            Kind::Reply { context } => {
                if let (Some(context), Refusal::Undecodable | Refusal::Overload) = (Context::decode(context), refusal) {
                    self.answer_refused(&context, refusal.name());
                } else {
                    self.counters.replies_unroutable.one();
                }
                false
            }
        }
    }

    /// `{error, {legation, Reason}}` to a BEAM process that has called.
    pub(crate) fn answer_refused(&self, context: &Context<'_>, reason: &str) {
        let mut reply = Vec::with_capacity(48);
        put_refusal(&mut reply, reason);
        self.answer(context.called, context.pid, context.tag, &[&reply]);
    }

    /// An answer to `{Pid, Tag}`, by way of the node that the pid is of.
    pub(crate) fn answer(&self, called: u64, pid: &[u8], tag: &[u8], reply: &[&[u8]]) {
        match term::pid(pid).and_then(|pid| self.node_of(&pid)) {
            Some(node) => self.answer_on(&node, called, pid, tag, reply),
            None => self.counters.replies_unroutable.one(),
        }
    }

    pub(crate) fn answer_on(&self, node: &Arc<Node>, called: u64, pid: &[u8], tag: &[u8], reply: &[&[u8]]) {
        self.put_answer(node, &Context { called, pid, tag }, reply, |link, key, control, pieces| {
            link.push_signal(key, control, pieces);
            true
        });
    }

    fn put_answer(
        &self,
        node: &Node,
        context: &Context<'_>,
        reply: &[&[u8]],
        push: impl FnOnce(&NodeLink, u64, &[u8], &[&[u8]]) -> bool,
    ) -> bool {
        let Context { called, pid, tag } = *context;
        let mut own = Vec::with_capacity(40);
        self.put_own_pid(&mut own, called);
        let mut control = Vec::with_capacity(128);
        // To the alias where there is one: then it reaches nobody once nobody waits.
        match crate::realm::request::alias_of(tag) {
            Some(alias) => encode::alias_send(&mut control, &own, alias),
            None => encode::send_sender(&mut control, &own, pid),
        }
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(2 + reply.len());
        pieces.extend([PAIR_HEAD, tag]);
        pieces.extend_from_slice(reply);
        push(&node.link, key_of(pid), &control, &pieces)
    }
}

/// The arguments of `binary_to_term/2`, by which a node is asked whether it has these atoms.
fn safe_decoding(atoms: &[Box<str>]) -> Vec<u8> {
    let mut list = Vec::with_capacity(64);
    list.push(term::VERSION);
    term::put_list_header(&mut list, atoms.len() as u32);
    for text in atoms {
        term::put_atom(&mut list, text);
    }
    term::put_nil(&mut list);
    let mut arguments = Vec::with_capacity(list.len() + 32);
    term::put_list_header(&mut arguments, 2);
    term::put_binary(&mut arguments, &list);
    term::put_list_header(&mut arguments, 1);
    term::put_atom(&mut arguments, "safe");
    term::put_nil(&mut arguments);
    term::put_nil(&mut arguments);
    arguments
}

/// Held messages that are released in one turn.
const RELEASED_AT_ONCE: usize = 256;

/// `{error, {legation, Reason}}`.
pub(crate) fn put_refusal(out: &mut Vec<u8>, reason: &str) {
    term::put_tuple_header(out, 2);
    term::put_atom(out, "error");
    term::put_tuple_header(out, 2);
    term::put_atom(out, "legation");
    term::put_atom(out, reason);
}

/// What is sent to one process keeps its order.
pub(crate) fn key_of(pid: &[u8]) -> u64 {
    term::pid(pid).map_or(0, |pid| u64::from(pid.id) << 32 | u64::from(pid.serial))
}

/// Not a call, but a message that is asked after.
fn is_message(call_label: u8) -> bool {
    matches!(call_label, label::CAST | label::SEND)
}

/// `ok`, as a payload.
const RECEIVED: &[u8] = b"\x83w\x02ok";

/// `{'$gen_cast', `.
const CAST_HEAD: &[u8] = b"h\x02w\x09$gen_cast";

/// `{_, _`.
const PAIR_HEAD: &[u8] = b"h\x02";
