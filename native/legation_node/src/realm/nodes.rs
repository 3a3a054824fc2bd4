//! What BEAM nodes send us, message by message: exactly what a BEAM node would make of it.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use legation_proto::session::ExitKind;

use crate::dist::control::encode::TargetTerm;
use crate::dist::control::{encode, Control, Target};
use crate::dist::term::{self, Pid, Reference};
use crate::net::beam::{self, BeamEvents, NodeLink};
use crate::realm::atoms::KnownAtoms;
use crate::realm::engines::reason_class;
use crate::realm::exits::ExitReason;
use crate::realm::handles::StandIn;
use crate::realm::incoming::key_of;
use crate::realm::node::{Held, Node, Question, Watch, SIGNAL_BYTES};
use crate::realm::request::{classify, own_answer, question_of, stand_in_reply, Request};
use crate::realm::space::{Ended, Monitor, MonitorKey};
use crate::realm::terms;
use crate::realm::{lock, read, write, Body, Realm};

impl BeamEvents for Realm {
    fn node_up(&self, link: &Arc<NodeLink>) {
        let configured = lock(&self.config).node.atoms.clone();
        let configured = configured.into_iter().map(String::into_boxed_str);
        let atoms = KnownAtoms::new(self.limits.known_atoms_max, configured);
        let node = Arc::new(Node::new(link.clone(), atoms));
        let mut nodes = write(&self.nodes);
        nodes.by_number.insert(link.number, node.clone());
        nodes.by_name.insert(link.node.as_bytes().into(), node);
        drop(nodes);
        tracing::debug!(node = %link.node, "a BEAM node is connected");
        self.names.node_up();
        // Where the names in `global` are a subscriber's business it registers them again: this node may have dropped some.
        lock(&self.events).tell(self, || terms::tuple(vec![terms::atom("node_up"), terms::atom(&link.node)]));
    }

    fn node_down(&self, link: &Arc<NodeLink>) {
        let node = {
            let mut nodes = write(&self.nodes);
            let Some(node) = nodes.by_number.remove(&link.number) else {
                return;
            };
            // A new connection may have taken the name.
            if nodes.by_name.get(link.node.as_bytes()).is_some_and(|named| named.link.number == link.number) {
                nodes.by_name.remove(link.node.as_bytes());
            }
            node
        };
        tracing::debug!(node = %link.node, "a BEAM node is gone");
        self.names.node_down(link.number);
        // Not under its lock: what is asked of a session has a lock of its own, under which stand-ins are looked up.
        let guarded = lock(&self.space).forget_node(link.number);
        for (session, call_id) in guarded {
            self.cancel_call(session, call_id);
        }
        lock(&self.events).forget_node(link.number);
        let watches: Vec<_> = lock(&node.watches).drain().collect();
        for (number, watch) in watches {
            self.watched_ended(&node, number, watch, NOCONNECTION);
        }
        // Nobody answers any more; those who asked are told by it.
        lock(&node.questions).clear();
        let holds: Vec<_> = lock(&node.holds).drain().collect();
        self.released.notify_waiters();
        for (_, hold) in holds {
            let mut wake = false;
            for held in hold.queue {
                if let Held::Message(parcel) = held {
                    wake |= self.turn_away(&hold.session, &parcel, legation_proto::frame::batch::Refusal::Noproc);
                }
            }
            if wake {
                hold.session.wake();
            }
        }
    }

    fn message(&self, link: &Arc<NodeLink>, control: Control<'_>, payload: &mut [u8]) {
        let Some(node) = self.node(link) else {
            return;
        };
        match control {
            Control::Send { from, to } => match self.number_of(&to) {
                Some(number) => self.deliver(&node, number, from.as_ref(), payload),
                None => self.counters.stale_pids.one(),
            },
            Control::RegSend { from, name } => {
                let number = lock(&self.space).whereis(name);
                match number {
                    Some(number) => self.deliver(&node, number, Some(&from), payload),
                    None => self.counters.unknown_names.one(),
                }
            }
            // None of our processes has an alias.
            Control::AliasSend { .. } => self.counters.beam_strays.one(),
            Control::MonitorP { from, target, reference } => self.monitor(&node, &from, target, &reference),
            Control::DemonitorP { target, reference, .. } => self.demonitor(&node, target, &reference),
            Control::MonitorPExit { reference, .. } => {
                let number = question_of(&reference.words);
                let watch = lock(&node.watches).remove(&number);
                if let Some(watch) = watch {
                    self.watched_ended(&node, number, watch, payload.get(1..).unwrap_or_default());
                }
            }
            Control::Link { from, to } => self.link_process(&node, &from, &to),
            Control::UnlinkId { id, from, to } => {
                if let Some(number) = self.number_of(&to) {
                    self.unlink_process(&node, number, &from);
                }
                let mut control = Vec::with_capacity(128);
                encode::unlink_id_ack(&mut control, id, to.raw, from.raw);
                node.link.push_signal(key_of(from.raw), &control, &[]);
            }
            Control::Unlink { from, to } => {
                if let Some(number) = self.number_of(&to) {
                    self.unlink_process(&node, number, &from);
                }
            }
            // Somebody linked to one of ours has ended.
            Control::Exit { from, to } => {
                if let Some(number) = self.number_of(&to).filter(|number| self.unlink_process(&node, *number, &from)) {
                    self.exit_out(&node, number, &from, ExitKind::Linked, payload);
                }
            }
            Control::Exit2 { from, to } => match self.number_of(&to) {
                Some(number) => self.exit_out(&node, number, &from, ExitKind::Sent, payload),
                None => self.counters.stale_pids.one(),
            },
            Control::SpawnRequest { id, from } => {
                self.counters.beam_spawns_refused.one();
                let mut control = Vec::with_capacity(128);
                encode::spawn_reply_notsup(&mut control, id.raw, from.raw);
                node.link.push_signal(key_of(from.raw), &control, &[]);
            }
            Control::UnlinkIdAck { .. } | Control::GroupLeader { .. } | Control::SpawnReply { .. } => {}
        }
    }

    fn oversized(&self, link: &Arc<NodeLink>, control: Control<'_>, head: &mut [u8]) {
        let number = match control {
            Control::Send { to, .. } => self.number_of(&to),
            Control::RegSend { name, .. } => lock(&self.space).whereis(name),
            _ => None,
        };
        let (Some(_node), Some(number)) = (self.node(link), number) else {
            return;
        };
        match self.body(number).as_deref() {
            Some(Body::StandIn(stand_in)) if self.reply_oversized(stand_in, head) => {}
            Some(body) => match body.target() {
                Some(target) => self.send_out_oversized(number, target, head),
                None => self.counters.beam_strays.one(),
            },
            None => self.counters.beam_strays.one(),
        }
    }
}

impl Realm {
    fn deliver(&self, node: &Arc<Node>, number: u64, from: Option<&Pid<'_>>, message: &mut [u8]) {
        let Some(body) = self.body(number) else {
            // It has ended, and whoever monitors it has been told.
            self.counters.stale_pids.one();
            return;
        };
        match &*body {
            Body::Proxy(proxy) => {
                if !self.is_name_conflict(number, proxy, message) {
                    self.send_out(node, number, &body, from, message);
                }
            }
            Body::StandIn(stand_in) => {
                stand_in.is_used(self.now());
                if !self.reply_from(node, stand_in, message) {
                    self.send_out(node, number, &body, from, message);
                }
            }
            Body::Agent => self.answered(node, message),
            Body::Control => {
                lock(&node.atoms).learn(message);
                self.control_message(node, number, from, message);
            }
            Body::NetKernel => self.is_auth(node, number, message),
            Body::Echo => self.echo(node, number, message),
        }
    }

    /// An engine of ours answers a remote caller. False: it is something else.
    fn reply_from(&self, node: &Arc<Node>, stand_in: &StandIn, message: &mut [u8]) -> bool {
        let Some((call_id, reply)) = stand_in_reply(message) else {
            return false;
        };
        lock(&node.atoms).learn(message);
        // The tag before it has been read.
        let start = reply.start - 1;
        message[start] = term::VERSION;
        let session = &stand_in.session;
        match session.core.reply(call_id, &message[start..reply.end]) {
            Ok(pushed) => {
                self.was_pushed(session, pushed.wake, &pushed.exported);
            }
            // Answered already, or nobody waits any more, or the session is over: then it is lost, as it must be.
            Err(_) => self.counters.stand_in_strays.one(),
        }
        true
    }

    /// False: it is no reply.
    fn reply_oversized(&self, stand_in: &StandIn, head: &[u8]) -> bool {
        let call_id =
            term::tuple(head.get(1..).unwrap_or_default()).filter(|(arity, _)| *arity == 2).and_then(|(_, tag)| {
                let rest = term::skip(tag)?;
                let [_, call_id, _, _] = term::elements::<4>(&tag[..tag.len() - rest.len()])?;
                term::unsigned(call_id)
            });
        match call_id {
            Some(call_id) => {
                let session = &stand_in.session.core;
                session.counters().too_large_out.one();
                if session.refuse(call_id, legation_proto::frame::batch::Refusal::TooLarge) {
                    stand_in.session.wake();
                }
                true
            }
            None => false,
        }
    }

    /// An answer to a question of ours.
    fn answered(&self, node: &Arc<Node>, message: &[u8]) {
        let Some((number, answer)) = own_answer(message) else {
            self.counters.beam_strays.one();
            return;
        };
        let question = lock(&node.questions).remove(&number);
        match question {
            Some(Question::Call(sender)) => {
                // Who asked may have given up.
                let _ = sender.send(message[answer].to_vec());
            }
            Some(Question::Atoms { session }) => {
                // The list itself, or {badrpc, _}: then one of them is unknown.
                let known = term::tuple(&message[answer]).is_none();
                self.atoms_answered(node, session, number, Some(known));
            }
            None => self.counters.beam_strays.one(),
        }
    }

    /// `net_adm:ping` asks `{is_auth, Node}`.
    fn is_auth(&self, node: &Arc<Node>, number: u64, message: &[u8]) {
        let Request::Call { pid, tag, request, .. } = classify(message) else {
            self.counters.beam_strays.one();
            return;
        };
        let mut reply = Vec::with_capacity(16);
        let asked = term::elements::<2>(&message[request]).and_then(|[question, _]| term::atom(question));
        match asked.is_some_and(|question| question.eq_str("is_auth")) {
            true => term::put_atom(&mut reply, "yes"),
            // What net_kernel says to what it doesn't know.
            false => term::put_atom(&mut reply, "error"),
        }
        self.answer_on(node, number, &message[pid], &message[tag], &[&reply]);
    }

    fn echo(&self, node: &Arc<Node>, number: u64, message: &[u8]) {
        if let Request::Call { pid, tag, request, .. } = classify(message) {
            self.answer_on(node, number, &message[pid], &message[tag], &[&message[request]]);
        }
    }

    // Monitors and links of BEAM processes on ours.

    fn monitor(&self, node: &Arc<Node>, from: &Pid<'_>, target: Target<'_>, reference: &Reference<'_>) {
        let key = MonitorKey { node: node.link.number, words: reference.words };
        let name = match target {
            Target::Name(name) => Some(name),
            Target::Pid(_) => None,
        };
        let monitors = node.monitors.fetch_add(1, Ordering::Relaxed);
        let over_limit = monitors >= self.limits.beam_monitors_max;
        let entered = !over_limit && {
            let mut space = lock(&self.space);
            let number = match target {
                Target::Pid(pid) => self.number_of(&pid),
                Target::Name(name) => space.whereis(name),
            };
            number.is_some_and(|number| space.monitor(number, key, Monitor::new(from.raw, reference.raw, name)))
        };
        if entered {
            return;
        }
        let reason = self.not_watched(node, over_limit);
        let mut control = Vec::with_capacity(128);
        let target = match &target {
            Target::Pid(pid) => TargetTerm::Pid(pid.raw),
            Target::Name(name) => TargetTerm::Name(name),
        };
        encode::payload_monitor_p_exit(&mut control, target, from.raw, reference.raw);
        node.link.push_signal(key_of(from.raw), &control, &[&reason]);
    }

    fn demonitor(&self, node: &Arc<Node>, target: Target<'_>, reference: &Reference<'_>) {
        let key = MonitorKey { node: node.link.number, words: reference.words };
        let monitor = {
            let mut space = lock(&self.space);
            let number = match target {
                Target::Pid(pid) => self.number_of(&pid),
                Target::Name(name) => space.whereis(name),
            };
            number.and_then(|number| space.demonitor(number, &key))
        };
        let Some(monitor) = monitor else {
            return;
        };
        node.monitors.fetch_sub(1, Ordering::Relaxed);
        // After a call's reply there is nothing left to cancel; before it, nobody waits any more.
        if let Some((session, call_id)) = monitor.call {
            self.cancel_call(session, call_id);
        }
    }

    pub(crate) fn cancel_call(&self, session: u64, call_id: u64) {
        let session = read(&self.sessions).get(&session).cloned();
        if let Some(session) = session {
            if session.core.cancel(call_id) {
                session.wake();
            }
        }
    }

    fn link_process(&self, node: &Arc<Node>, from: &Pid<'_>, to: &Pid<'_>) {
        let monitors = node.monitors.fetch_add(1, Ordering::Relaxed);
        let over_limit = monitors >= self.limits.beam_monitors_max;
        let linked = !over_limit
            && self.number_of(to).is_some_and(|number| lock(&self.space).link(number, from.raw, node.link.number));
        if linked {
            return;
        }
        let reason = self.not_watched(node, over_limit);
        let mut control = Vec::with_capacity(128);
        encode::payload_exit(&mut control, to.raw, from.raw);
        node.link.push_signal(key_of(from.raw), &control, &[&reason]);
    }

    /// Why a monitor or link did not come about: there is no such process, or no room for one more.
    fn not_watched(&self, node: &Node, over_limit: bool) -> Vec<u8> {
        node.monitors.fetch_sub(1, Ordering::Relaxed);
        let mut reason = Vec::with_capacity(16);
        match over_limit {
            true => {
                self.counters.beam_monitors_over_limit.one();
                term::put_atom(&mut reason, "system_limit");
            }
            false => term::put_atom(&mut reason, "noproc"),
        }
        reason
    }

    fn unlink_process(&self, node: &Arc<Node>, number: u64, from: &Pid<'_>) -> bool {
        let unlinked = lock(&self.space).unlink(number, from.raw);
        if unlinked {
            node.monitors.fetch_sub(1, Ordering::Relaxed);
        }
        unlinked
    }

    /// Ends a process of ours, and tells whoever watches it. `session`: in order behind what came in it.
    pub(crate) fn end_process(&self, number: u64, reason: &ExitReason, session: Option<u64>) {
        let ended = lock(&self.space).end(number);
        let Some(Ended { monitors, links, .. }) = ended else {
            return;
        };
        let own = self.own_pid(number);
        for (key, monitor) in monitors {
            let Some(node) = read(&self.nodes).by_number.get(&key.node).cloned() else {
                continue;
            };
            node.monitors.fetch_sub(1, Ordering::Relaxed);
            let target = match &monitor.name {
                Some(name) => TargetTerm::Name(name),
                None => TargetTerm::Pid(&own),
            };
            let mut control = Vec::with_capacity(128);
            encode::payload_monitor_p_exit(&mut control, target, monitor.watcher(), monitor.reference());
            self.signal_reason(&node, session, monitor.watcher(), control, reason);
        }
        for (pid, node_number) in links {
            let Some(node) = read(&self.nodes).by_number.get(&node_number).cloned() else {
                continue;
            };
            node.monitors.fetch_sub(1, Ordering::Relaxed);
            let mut control = Vec::with_capacity(128);
            encode::payload_exit(&mut control, &own, &pid);
            self.signal_reason(&node, session, &pid, control, reason);
        }
    }

    /// Behind whatever of this session is held for the node: a `DOWN` must not overtake the reply before it.
    pub(crate) fn signal(
        &self,
        node: &Node,
        session: Option<u64>,
        to: &[u8],
        control: Vec<u8>,
        payload: Option<&[u8]>,
    ) {
        let key = key_of(to);
        let push = |control: &[u8]| match payload {
            Some(payload) => node.link.push_signal(key, control, &[payload]),
            None => node.link.push_signal(key, control, &[]),
        };
        let Some(session) = session else {
            return push(&control);
        };
        match lock(&node.holds).get_mut(&session) {
            Some(hold) => {
                let held = Held::Signal { key, control, payload: payload.map(<[u8]>::to_vec) };
                hold.bytes += held.cost();
                hold.queue.push_back(held);
            }
            None => push(&control),
        }
    }

    /// Whether an exit of a peer's has room behind what came before it in the session: a link may go before it. An end that somebody
    /// watches for always has: there are no more of them than monitors and links.
    pub(crate) fn may_hold(&self, node: &Node, session: u64, payload_bytes: usize) -> bool {
        let bytes = payload_bytes + 2 * SIGNAL_BYTES;
        lock(&node.holds).get(&session).is_none_or(|hold| {
            hold.queue.len() + 2 <= self.limits.held_messages_max && hold.bytes + bytes <= self.limits.held_bytes_max
        })
    }

    // Ours on theirs.

    /// Monitors a BEAM process. Returns the number of the monitor.
    pub(crate) fn watch(&self, node: &Arc<Node>, pid: &[u8], watch: Watch) -> u64 {
        let number = self.new_number();
        self.watch_as(number, node, pid, watch);
        number
    }

    pub(crate) fn watch_as(&self, number: u64, node: &Arc<Node>, pid: &[u8], watch: Watch) {
        lock(&node.watches).insert(number, watch);
        let mut reference = Vec::with_capacity(48);
        self.put_own_reference(&mut reference, number);
        let mut control = Vec::with_capacity(160);
        encode::monitor_p(&mut control, self.agent_pid(), TargetTerm::Pid(pid), &reference);
        node.link.push_signal(key_of(pid), &control, &[]);
    }

    pub(crate) fn unwatch(&self, node: &Node, pid: &[u8], number: u64) {
        if lock(&node.watches).remove(&number).is_none() {
            return;
        }
        let mut reference = Vec::with_capacity(48);
        self.put_own_reference(&mut reference, number);
        let mut control = Vec::with_capacity(160);
        encode::demonitor_p(&mut control, self.agent_pid(), TargetTerm::Pid(pid), &reference);
        node.link.push_signal(key_of(pid), &control, &[]);
    }

    /// Asks the node's `rex`, as `rpc:call` does. Returns the question's number.
    pub(crate) fn ask(
        &self,
        node: &Arc<Node>,
        module: &str,
        function: &str,
        arguments: &[u8],
        question: Question,
    ) -> u64 {
        self.ask_behind(u64::MAX - 1, node, module, function, arguments, question)
    }

    /// The same, behind everything that was sent to the process with this key.
    pub(crate) fn ask_behind(
        &self,
        key: u64,
        node: &Arc<Node>,
        module: &str,
        function: &str,
        arguments: &[u8],
        question: Question,
    ) -> u64 {
        let number = self.new_number();
        lock(&node.questions).insert(number, question);
        let mut control = Vec::with_capacity(96);
        encode::reg_send(&mut control, self.agent_pid(), b"rex");
        let mut message = Vec::with_capacity(arguments.len() + 160);
        term::put_tuple_header(&mut message, 3);
        term::put_atom(&mut message, "$gen_call");
        term::put_tuple_header(&mut message, 2);
        message.extend_from_slice(self.agent_pid());
        self.put_own_reference(&mut message, number);
        term::put_tuple_header(&mut message, 5);
        term::put_atom(&mut message, "call");
        term::put_atom(&mut message, module);
        term::put_atom(&mut message, function);
        message.extend_from_slice(arguments);
        term::put_atom(&mut message, "user");
        node.link.push_signal(key, &control, &[&message]);
        // Should it have gone meanwhile, nobody would clear it.
        if !self.is_connected(node) {
            lock(&node.questions).remove(&number);
        }
        number
    }

    fn watched_ended(&self, node: &Arc<Node>, number: u64, watch: Watch, reason: &[u8]) {
        match watch {
            Watch::Exported { session, number, .. } => {
                self.exported_ended(&session, number, reason_class(reason), Some(reason));
            }
            Watch::Engine { name } => {
                if let Some(realm) = self.me() {
                    realm.engine_ended(node, &name, number, reason);
                }
            }
            Watch::Subscriber => drop(lock(&self.events).remove(number)),
            Watch::Holder { name } => self.names.look_again(&name),
            Watch::Gate => self.gate_ended(number),
        }
    }

    /// `{global_name_conflict, Name, ...}`: two nodes met, and our process has lost its global name.
    pub(crate) fn is_name_conflict(&self, number: u64, proxy: &crate::realm::Proxy, message: &[u8]) -> bool {
        let Some((arity @ 2..=3, first)) = message.get(1..).and_then(term::tuple) else {
            return false;
        };
        if !term::take_atom(first).is_some_and(|(atom, _)| atom.eq_str("global_name_conflict")) {
            return false;
        }
        let Some((name, rest)) = term::skip(first).and_then(term::take) else {
            return false;
        };
        let global_name = self.names.global_name(&proxy.full_name);
        if !term::binary(name).is_some_and(|name| name.starts_with(proxy.full_name.as_bytes())) {
            return false;
        }
        let winner = if arity == 3 { rest } else { &[] };
        self.names.look_again(&global_name);
        self.tell_name_lost(number, proxy, winner);
        true
    }

    async fn connect_node(&self, node: &str) -> Option<Result<Arc<NodeLink>, beam::ConnectError>> {
        Some(self.beam.get()?.connect(node).await)
    }

    /// The node of a pid of our own realm, dialled if need be.
    pub(crate) async fn dial_node(&self, pid: &Pid<'_>) -> Option<Arc<Node>> {
        if let Some(node) = self.node_of(pid) {
            return Some(node);
        }
        let node = std::str::from_utf8(pid.node).ok()?;
        self.connect_node(node).await?.ok()?;
        self.node_of(pid)
    }
}

const NOCONNECTION: &[u8] = b"w\x0cnoconnection";
