//! The engine `legation`: what `gen_server:call({legation, Node}, Request)` can ask for. `docs/c-node.md` lists it for users.
//!
//! What takes a while answers from a task of its own; the rest at once. A request that isn't understood is answered
//! `{error, bad_request}`, and nothing that is asked ends anything here.

use std::sync::Arc;
use std::time::Duration;

use erl_dist::term::Term;
use legation_proto::frame::forget::ForgetReason;
use legation_proto::key_text::{format_public_key, parse_public_key};

use crate::dist::term::{self, Pid};
use crate::peers::AddPeerError;
use crate::realm::engines::{PublishError, PublishOptions, PublishTarget};
use crate::realm::incoming::Context;
use crate::realm::node::{Node, Watch};
use crate::realm::policy::To;
use crate::realm::providers::{provider_term, Wanted};
use crate::realm::request::{classify, Request};
use crate::realm::room::Waiter;
use crate::realm::terms::{
    self, as_list, as_pid, as_text, as_tuple, as_unsigned, atom, binary, error, list, map, ok, tuple, Options,
};
use crate::realm::{lock, read, status, Body, Realm};

mod identity;
mod peer_options;

/// Where an answer goes.
struct From {
    number: u64,
    pid: Vec<u8>,
    tag: Vec<u8>,
    node: Arc<Node>,
}

impl Realm {
    pub(crate) fn control_message(&self, node: &Arc<Node>, number: u64, _from: Option<&Pid<'_>>, message: &[u8]) {
        let Some(realm) = self.me() else {
            return;
        };
        match classify(message) {
            Request::Call { label: 1, pid, tag, request } => {
                let from = From { number, pid: message[pid].to_vec(), tag: message[tag].to_vec(), node: node.clone() };
                // As large as any message, and so not for the decoder.
                if let Some((to, payload)) = pushed(&message[request.clone()]) {
                    let answer = match realm.push_told(node, &from.pid, to, &mut payload.to_vec()) {
                        Ok(()) => atom("ok"),
                        Err(reason) => error(atom(reason)),
                    };
                    return realm.answer_control(&from, &answer);
                }
                match terms::decode(&message[request]) {
                    Some(request) => realm.control_call(from, &request),
                    None => {
                        self.counters.control_bad_requests.one();
                        realm.answer_control(&from, &bad_request());
                    }
                }
            }
            Request::Cast { message: content } => match terms::decode(&message[content]) {
                Some(content) => realm.control_cast(&content),
                None => self.counters.control_bad_requests.one(),
            },
            // `sys` and the like are not for strangers to OTP.
            Request::Call { pid, tag, .. } => {
                let context = Context { called: number, pid: &message[pid], tag: &message[tag] };
                self.answer_refused(&context, "forbidden");
            }
            Request::Plain => self.counters.beam_strays.one(),
        }
    }

    fn answer_control(&self, from: &From, answer: &Term) {
        let mut reply = Vec::with_capacity(64);
        terms::put(&mut reply, answer);
        self.answer(from.number, &from.pid, &from.tag, &[&reply]);
    }

    fn control_call(self: Arc<Self>, from: From, request: &Term) {
        let simple = terms::as_atom(request);
        let answer = match (simple, as_tuple(request)) {
            (Some("engines"), _) => list(self.engine_statuses().iter().map(status::engine_term).collect()),
            (Some("peers"), _) => {
                let peers = self.peer_statuses();
                let peer = peers.iter().map(|peer| status::peer_term(peer, self.session_counters(&peer.realm)));
                list(peer.collect())
            }
            (Some("connections"), _) => self.connections_term(),
            (Some("listeners"), _) => {
                let listeners = self.peers().map(|peers| peers.listeners()).unwrap_or_default();
                list(listeners.iter().map(status::listener_term).collect())
            }
            (Some("counters"), _) => self.counters_term(),
            (Some("public_key"), _) => binary(format_public_key(&self.identity.key)),
            (Some("info"), _) => self.info_term(),
            (Some("monitor_peers"), _) => self.subscribe(&from),
            (Some("revoke_own_key"), _) => {
                tokio::spawn(async move {
                    let answer = match self.revoke_own_key().await {
                        Ok(()) => atom("ok"),
                        Err(reason) => error(identity::error_term(&reason)),
                    };
                    self.answer_control(&from, &answer);
                });
                return;
            }
            (_, Some([request, arguments @ ..])) => {
                let Some(request) = terms::as_atom(request).map(str::to_owned) else {
                    return self.answer_bad_request(&from);
                };
                match self.clone().control_request(&request, arguments, from) {
                    Ok(()) => return,
                    Err(from) => return self.answer_bad_request(&from),
                }
            }
            _ => return self.answer_bad_request(&from),
        };
        self.answer_control(&from, &answer);
    }

    fn answer_bad_request(&self, from: &From) {
        self.counters.control_bad_requests.one();
        self.answer_control(from, &bad_request());
    }

    /// Gives `from` back when the request isn't understood.
    fn control_request(self: Arc<Self>, request: &str, arguments: &[Term], from: From) -> Result<(), From> {
        let answer = match (request, arguments) {
            ("publish", [name, target]) => return self.control_publish(from, name, target, &list(Vec::new())),
            ("publish", [name, target, options]) => return self.control_publish(from, name, target, options),
            ("withdraw", [name]) => match as_text(name) {
                Some(name) if self.withdraw(&name, ForgetReason::Withdrawn, None) => atom("ok"),
                _ => error(atom("not_published")),
            },
            ("whereis", [name]) => match as_text(name) {
                Some(name) => self.whereis_term(&name),
                None => return Err(from),
            },
            ("find", [name]) => return self.control_find(from, name, &list(Vec::new())),
            ("find", [name, options]) => return self.control_find(from, name, options),
            ("providers", [name, options]) => return self.control_providers(from, name, options),
            ("key", [name]) => match as_text(name) {
                Some(name) => self.key_term(&name),
                None => return Err(from),
            },
            ("connect", [peer]) => match as_text(peer) {
                Some(realm) if as_list(peer).is_none_or(|list| !list.is_empty()) => self.connect_realm(&realm),
                _ => match peer_options::peer(peer, &self.limits) {
                    Ok(peer) => self.connect_peer(peer),
                    Err(what) => error(tuple(vec![atom("bad_option"), atom(what)])),
                },
            },
            ("update_peer", [peer]) => match peer_options::peer(peer, &self.limits) {
                Ok(peer) => self.update_peer(peer),
                Err(what) => error(tuple(vec![atom("bad_option"), atom(what)])),
            },
            ("revoke", [realm]) => match as_text(realm) {
                Some(realm) => match self.peers().is_some_and(|peers| peers.revoke(&realm)) {
                    true => atom("ok"),
                    false => error(atom("unknown_realm")),
                },
                None => return Err(from),
            },
            ("rotate_key", [path]) => match as_text(path) {
                Some(path) => {
                    tokio::spawn(async move {
                        let answer = match self.rotate_key(path.into()).await {
                            Ok(key) => ok(binary(key)),
                            Err(reason) => error(identity::error_term(&reason)),
                        };
                        self.answer_control(&from, &answer);
                    });
                    return Ok(());
                }
                None => return Err(from),
            },
            ("disconnect", [realm]) => match as_text(realm) {
                Some(realm) => self.disconnect_realm(&realm),
                None => return Err(from),
            },
            ("add_listener", [address]) => match peer_options::listener(address, &self.limits) {
                Ok(config) => match self.peers().map(|peers| peers.listen(config)) {
                    Some(Ok(info)) => ok(status::listener_term(&info)),
                    Some(Err(reason)) => error(status::listen_error_term(&reason)),
                    None => error(atom("closed")),
                },
                Err(what) => error(tuple(vec![atom("bad_option"), atom(what)])),
            },
            ("remove_listener", [id]) => match (as_text(id), self.peers()) {
                (Some(id), Some(peers)) if peers.unlisten(&id) => atom("ok"),
                _ => error(atom("not_found")),
            },
            ("drain", [timeout]) => match as_unsigned(timeout) {
                Some(timeout) => {
                    tokio::spawn(async move {
                        let cut = self.drain(Duration::from_millis(timeout)).await;
                        let cut = cut.iter().map(|(name, pid)| tuple(vec![binary(name), terms::pid(pid)]));
                        let answer = ok(list(cut.collect()));
                        self.answer_control(&from, &answer);
                    });
                    return Ok(());
                }
                None => return Err(from),
            },
            ("wait_room", [name, bytes]) => match (as_text(name), as_unsigned(bytes)) {
                (Some(name), Some(bytes)) => {
                    let waiter = Waiter { called: from.number, pid: from.pid, tag: from.tag };
                    self.wait_for_room(waiter, &name, bytes);
                    return Ok(());
                }
                _ => return Err(from),
            },
            ("demonitor_peers", [reference]) => self.unsubscribe(reference),
            ("verify_receipt", [receipt, key]) => match (terms::as_bytes(receipt), self.key_of(key)) {
                (Some(receipt), Some(key)) => self.verify_receipt(receipt, &key),
                _ => return Err(from),
            },
            ("gate", [pid]) => match as_pid(pid) {
                Some(pid) => {
                    self.set_gate(&from.node, &pid);
                    atom("ok")
                }
                None => return Err(from),
            },
            _ => return Err(from),
        };
        self.answer_control(&from, &answer);
        Ok(())
    }

    fn control_cast(&self, content: &Term) {
        match as_tuple(content) {
            Some([request, id, verdict]) if terms::as_atom(request) == Some("gate") => self.gate_verdict(id, verdict),
            Some([request, verdicts]) if terms::as_atom(request) == Some("gate") => {
                for entry in as_list(verdicts).unwrap_or_default() {
                    if let Some([id, verdict]) = as_tuple(entry) {
                        self.gate_verdict(id, verdict);
                    }
                }
            }
            _ => self.counters.control_bad_requests.one(),
        }
    }

    fn gate_verdict(&self, id: &Term, verdict: &Term) {
        let Some(id) = as_unsigned(id) else {
            return self.counters.control_bad_requests.one();
        };
        match as_tuple(verdict) {
            Some([_, reason]) => self.gate_answered(id, Some(terms::as_atom(reason).unwrap_or("filtered"))),
            _ => self.gate_answered(id, None),
        }
    }

    // Engines.

    fn control_publish(self: Arc<Self>, from: From, name: &Term, target: &Term, options: &Term) -> Result<(), From> {
        let (Some(name), Some(options)) = (as_text(name), publish_options(options)) else {
            return Err(from);
        };
        let target = match (as_pid(target), terms::as_atom(target)) {
            (Some(pid), _) => PublishTarget::Pid(pid),
            (None, Some(name)) if !matches!(name, "nil" | "undefined") => PublishTarget::Name(name.into()),
            _ => return Err(from),
        };
        tokio::spawn(async move {
            let answer = match self.publish(&from.node, &name, target, options).await {
                Ok(()) => atom("ok"),
                Err(reason) => error(publish_error_term(&reason)),
            };
            self.answer_control(&from, &answer);
        });
        Ok(())
    }

    fn control_find(self: Arc<Self>, from: From, name: &Term, options: &Term) -> Result<(), From> {
        let (Some(name), Some(wanted)) = (as_text(name), Wanted::of(options)) else {
            return Err(from);
        };
        tokio::spawn(async move {
            let answer = match self.find_provider(&name, &wanted).await {
                Some(pid) => ok(terms::pid(&pid)),
                None => error(atom("noproc")),
            };
            self.answer_control(&from, &answer);
        });
        Ok(())
    }

    fn control_providers(self: Arc<Self>, from: From, name: &Term, options: &Term) -> Result<(), From> {
        let (Some(name), Some(wanted)) = (as_text(name), Wanted::of(options)) else {
            return Err(from);
        };
        tokio::spawn(async move {
            let mut found = self.providers(&name, &wanted);
            self.ask_mailboxes(&mut found).await;
            self.answer_control(&from, &list(found.iter().map(provider_term).collect()));
        });
        Ok(())
    }

    fn whereis_term(&self, name: &str) -> Term {
        let own = read(&self.engines).get(self.own_engine(name)).cloned();
        if let (Some(publication), true) = (own, self.is_own(name)) {
            return terms::pid(&publication.pid);
        }
        let number = lock(&self.space).whereis(name.as_bytes());
        match number.filter(|number| matches!(self.body(*number).as_deref(), Some(Body::Proxy(_)))) {
            Some(number) => terms::pid(&self.own_pid(number)),
            None => atom("undefined"),
        }
    }

    fn key_term(&self, name: &str) -> Term {
        let own = read(&self.engines).get(self.own_engine(name)).cloned();
        if let (Some(publication), true) = (own, self.is_own(name)) {
            return binary(publication.key);
        }
        let number = lock(&self.space).whereis(name.as_bytes());
        match number.and_then(|number| self.body(number)).as_deref() {
            Some(Body::Proxy(proxy)) => binary(lock(&proxy.info).key),
            _ => atom("undefined"),
        }
    }

    /// `ping@alice` is `ping` at alice.
    fn own_engine<'a>(&self, name: &'a str) -> &'a str {
        name.rsplit_once('@').map_or(name, |(engine, _)| engine)
    }

    fn is_own(&self, name: &str) -> bool {
        name.rsplit_once('@').is_none_or(|(_, realm)| *realm == lock(&self.config).realm)
    }

    // Peers.

    fn connect_realm(&self, realm: &str) -> Term {
        match self.peers().map(|peers| peers.connect(realm)) {
            Some(Ok(())) => atom("ok"),
            // Taking up what goes on already is no error.
            Some(Err(AddPeerError::AlreadyConnected)) => atom("ok"),
            Some(Err(reason)) => error(add_peer_error_term(&reason, realm)),
            None => error(atom("unknown_realm")),
        }
    }

    fn connect_peer(&self, peer: crate::config::PeerConfig) -> Term {
        let Some(peers) = self.peers() else {
            return error(atom("unknown_realm"));
        };
        let before = self.set_policy(&peer);
        let realm = peer.realm.clone();
        match peers.add_peer(peer) {
            Ok(()) => atom("ok"),
            Err(reason) => {
                self.restore_policy(&realm, before);
                error(add_peer_error_term(&reason, &realm))
            }
        }
    }

    fn update_peer(self: &Arc<Self>, peer: crate::config::PeerConfig) -> Term {
        let realm = peer.realm.clone();
        match self.change_peer(peer) {
            Ok(()) => atom("ok"),
            Err(reason) => error(add_peer_error_term(&reason, &realm)),
        }
    }

    fn disconnect_realm(&self, realm: &str) -> Term {
        match self.peers().map(|peers| peers.disconnect(realm)) {
            Some(true) => atom("ok"),
            _ => error(atom("unknown_realm")),
        }
    }

    // Subscribers.

    fn subscribe(&self, from: &From) -> Term {
        let mut events = lock(&self.events);
        let number = self.watch(&from.node, &from.pid, Watch::Subscriber);
        events.add(number, from.node.clone(), from.pid.clone().into());
        let peers = self.sessions().into_iter();
        let peers = peers.map(|session| (session.realm.to_string(), status::session_term(&session)));
        let engines = self.engine_statuses().into_iter().filter(|engine| !engine.local).map(|engine| {
            let entries = [
                ("key", binary(engine.key)),
                ("version", terms::integer(engine.version.into())),
                ("ops", status::operations_term(engine.operations)),
                ("pid", terms::pid(&engine.pid)),
            ];
            (engine.full_name, map(entries))
        });
        let snapshot = map([("peers", terms::map_by_name(peers)), ("engines", terms::map_by_name(engines))]);
        let reference = self.reference_term(number);
        tuple(vec![atom("ok"), reference, snapshot])
    }

    fn unsubscribe(&self, reference: &Term) -> Term {
        if let Term::Reference(reference) = reference {
            let word = |index: usize| u64::from(reference.id.get(index).copied().unwrap_or(0));
            let number = word(1) << 32 | word(0);
            if let Some((node, pid)) = lock(&self.events).remove(number) {
                self.unwatch(&node, &pid, number);
            }
        }
        atom("ok")
    }

    fn reference_term(&self, number: u64) -> Term {
        let creation = self.own().map_or(0, |own| own.node.creation());
        terms::reference(self.node_name(), creation, crate::realm::request::words_of(number))
    }

    // Looking around.

    fn connections_term(&self) -> Term {
        list(self.links().iter().map(|(session, link)| status::link_term(session, link)).collect())
    }

    fn counters_term(&self) -> Term {
        let mut counters: Vec<_> =
            self.own_counters().into_iter().map(|(name, value)| (name, terms::integer(value))).collect();
        let sessions = self.sessions().into_iter();
        let sessions =
            sessions.map(|session| (session.realm.to_string(), status::counters_term(session.core.counters().all())));
        counters.push(("sessions", terms::map_by_name(sessions)));
        let ended = self.ended_counters().into_iter();
        let ended = ended.map(|(realm, sums)| (realm.to_string(), status::counters_term(sums)));
        counters.push(("ended", terms::map_by_name(ended)));
        map(counters)
    }

    fn info_term(&self) -> Term {
        let nodes = self.connected_nodes();
        map([
            ("realm", binary(lock(&self.config).realm.as_bytes())),
            ("node", atom(self.node_name())),
            ("version", binary(env!("CARGO_PKG_VERSION"))),
            ("creation", terms::integer(self.own().map_or(0, |own| own.node.creation()).into())),
            ("port", terms::integer(self.node_port().into())),
            ("nodes", list(nodes.iter().map(|node| atom(&node.link.node)).collect())),
            ("key", binary(self.identity.key)),
            ("realm_id", binary(self.identity.realm_id.0)),
        ])
    }

    fn key_of(&self, key: &Term) -> Option<[u8; 32]> {
        let bytes = terms::as_bytes(key)?;
        <[u8; 32]>::try_from(bytes).ok().or_else(|| parse_public_key(std::str::from_utf8(bytes).ok()?))
    }

    fn verify_receipt(&self, receipt: &[u8], key: &[u8; 32]) -> Term {
        match legation_proto::receipt::verify(receipt, key, &self.identity.network.id().0) {
            Ok(verified) => ok(map([
                ("source_realm_id", binary(verified.source.0)),
                ("source_engine", binary(&verified.source_engine)),
                ("destination_realm_id", binary(verified.destination.0)),
                ("destination_engine", binary(&verified.destination_engine)),
                ("kind", terms::integer(verified.kind.into())),
                ("detail", terms::integer(verified.detail.into())),
                ("call_id", terms::integer(verified.call_id)),
                ("session_id", binary(verified.session)),
                ("sequence", terms::integer(verified.sequence)),
                ("key_not_before", terms::integer(verified.key_not_before)),
                ("key_not_after", terms::integer(verified.key_not_after)),
                ("payload", binary(&verified.payload)),
            ])),
            Err(reason) => error(tuple(vec![atom("receipt"), binary(reason.to_string())])),
        }
    }
}

fn bad_request() -> Term {
    error(atom("bad_request"))
}

/// `to`, `version`, `ops`, `delegate`, `receipts`.
fn publish_options(options: &Term) -> Option<PublishOptions> {
    let options = Options::of(options)?;
    if options.unknown(&["to", "version", "ops", "delegate", "receipts", "instance"]).is_some() {
        return None;
    }
    let mut published = PublishOptions::default();
    match options.get("to") {
        Some(to) if terms::as_atom(to) == Some("all") => {}
        Some(to) => {
            let realms = as_list(to)?.iter().map(|realm| as_text(realm).map(String::into_boxed_str));
            published.to = To::These(realms.collect::<Option<_>>()?);
        }
        None => {}
    }
    if let Some(version) = options.get("version") {
        published.version = u32::try_from(as_unsigned(version)?).ok()?;
    }
    if let Some(operations) = options.get("ops") {
        published.operations = peer_options::operations(operations)?;
    }
    if let Some(delegate) = options.get("delegate") {
        published.delegate = terms::as_boolean(delegate)?;
    }
    if let Some(receipts) = options.get("receipts") {
        published.receipts = Some(as_pid(receipts)?);
    }
    Some(published)
}

/// `{push, Pid, Message}`, the message as a binary.
fn pushed(request: &[u8]) -> Option<(&[u8], &[u8])> {
    let [name, to, message] = term::elements::<3>(request)?;
    term::atom(name).filter(|name| name.eq_str("push"))?;
    term::pid(to)?;
    Some((to, term::binary(message)?))
}

fn publish_error_term(reason: &PublishError) -> Term {
    match reason {
        PublishError::BadName => atom("bad_name"),
        PublishError::Noproc => atom("noproc"),
        PublishError::AlreadyPublished(pid) => tuple(vec![atom("already_published"), terms::pid(pid)]),
        PublishError::Noconnection => atom("noconnection"),
        PublishError::Overload => atom("overload"),
        PublishError::Sign(reason) => tuple(vec![atom("keyholder"), binary(reason.to_string())]),
    }
}

fn add_peer_error_term(reason: &AddPeerError, realm: &str) -> Term {
    match reason {
        AddPeerError::UnknownRealm => atom("unknown_realm"),
        AddPeerError::AlreadyConnected => tuple(vec![atom("already_connected"), binary(realm)]),
        AddPeerError::SameKey(realm) => tuple(vec![atom("same_key"), binary(realm)]),
        AddPeerError::OwnKey => atom("own_key"),
        AddPeerError::Revoked => atom("revoked"),
        AddPeerError::Draining => atom("draining"),
        AddPeerError::BadKey(reason) => tuple(vec![atom("bad_key"), atom(bad_key_name(*reason))]),
    }
}

fn bad_key_name(reason: legation_proto::identity::KeyError) -> &'static str {
    use legation_proto::identity::KeyError;
    match reason {
        KeyError::NotAPoint => "not_a_point",
        KeyError::NotCanonical => "not_canonical",
        KeyError::Weak => "weak",
        KeyError::Torsion => "torsion",
    }
}
