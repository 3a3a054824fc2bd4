//! What can be seen of a realm, once as Erlang terms for the control engine and once as JSON for the command line.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use erl_dist::term::Term;
use legation_proto::key_text::format_public_key;
use serde_json::{json, Value};

use crate::config::Operations;
use crate::net::beam::BeamCounters;
use crate::net::listener::{BoundAddress, ListenerInfo};
use crate::peers::{LinkEnd, LinkStatus, ListenError, PeerSession, PeerStatus};
use crate::realm::terms::{self, atom, binary, integer, list, map, nil_or, tuple};
use crate::realm::{lock, read, Body, EngineInfo, Realm};

/// Of a session's counters those that say how it is, not how often something was.
pub const GAUGES: [&str; 13] = [
    "unproven_now",
    "queue_bytes",
    "lanes_held",
    "resume_bytes",
    "staged_bytes",
    "calls_pending",
    "calls_served",
    "handles_exported",
    "handles_imported",
    "references_exported",
    "references_imported",
    "rtt_ms",
    "acknowledged",
];

/// One engine, ours or another realm's.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    pub full_name: String,
    pub engine: String,
    pub realm: String,
    pub local: bool,
    /// Raw.
    pub pid: Vec<u8>,
    pub key: [u8; 32],
    pub version: u32,
    pub operations: u16,
    /// Calls, casts, sends, dropped; of others' engines.
    pub counts: Option<[u64; 4]>,
}

impl Realm {
    /// All engines, by name.
    pub(crate) fn engine_statuses(&self) -> Vec<EngineStatus> {
        let realm = lock(&self.config).realm.clone();
        let mut engines: Vec<_> = read(&self.engines)
            .values()
            .map(|publication| EngineStatus {
                full_name: format!("{}@{realm}", publication.name),
                engine: publication.name.to_string(),
                realm: realm.clone(),
                local: true,
                pid: publication.pid.to_vec(),
                key: publication.key,
                version: publication.options.version,
                operations: publication.options.operations.0,
                counts: None,
            })
            .collect();
        let proxies: Vec<_> = lock(&self.space).iter().map(|(number, body)| (number, body.clone())).collect();
        for (number, body) in proxies {
            let Body::Proxy(proxy) = &*body else {
                continue;
            };
            let info = lock(&proxy.info).clone();
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let counts = &proxy.counts;
            engines.push(EngineStatus {
                full_name: proxy.full_name.to_string(),
                engine: proxy.engine.to_string(),
                realm: proxy.session.realm.to_string(),
                local: false,
                pid: self.own_pid(number),
                key: info.key,
                version: info.version,
                operations: info.operations,
                counts: Some([
                    count(&counts.calls),
                    count(&counts.casts),
                    count(&counts.sends),
                    count(&counts.dropped),
                ]),
            });
        }
        engines.sort_by(|one, other| one.full_name.cmp(&other.full_name));
        engines
    }

    pub(crate) fn peer_statuses(&self) -> Vec<PeerStatus> {
        self.peers().map(|peers| peers.statuses()).unwrap_or_default()
    }

    /// Links that are up, each with its session.
    pub(crate) fn links(&self) -> Vec<(Arc<PeerSession>, LinkStatus)> {
        self.peers().map(|peers| peers.links()).unwrap_or_default()
    }

    /// Counters of a peer's session, if there is one.
    pub(crate) fn session_counters(&self, realm: &str) -> Vec<(&'static str, u64)> {
        let session = self.sessions().into_iter().find(|session| *session.realm == *realm);
        session.map(|session| session.core.counters().all()).unwrap_or_default()
    }

    /// What the realm has counted besides its sessions.
    pub(crate) fn own_counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.counters.all();
        if let Some(peers) = self.peers() {
            counters.extend(peers.counters().all());
        }
        if let Some(beam) = self.beam.get() {
            counters.extend(beam_counters(&beam.counters()));
        }
        let over = self.connected_nodes().iter().map(|node| lock(&node.atoms).over_limit).sum();
        counters.push(("known_atoms_over_limit", over));
        counters
    }
}

/// Named so that they don't stand beside those of the peers under one name.
pub(crate) fn beam_counters(counters: &BeamCounters) -> [(&'static str, u64); 15] {
    [
        ("beam_nodes", counters.nodes),
        ("beam_connections", counters.connections),
        ("beam_handshakes_refused", counters.handshakes_refused),
        ("beam_nodes_refused", counters.nodes_refused),
        ("beam_handshakes_failed", counters.handshakes_failed),
        ("beam_cookies_differed", counters.cookies_differed),
        ("beam_nodes_silent", counters.nodes_silent),
        ("beam_streams_broken", counters.streams_broken),
        ("beam_queues_full", counters.queues_full),
        ("beam_messages", counters.messages),
        ("beam_fragmented", counters.fragmented),
        ("beam_oversized", counters.oversized),
        ("beam_fragmented_refused", counters.fragmented_refused),
        ("beam_fragments_dropped", counters.fragments_dropped),
        ("beam_undecodable", counters.undecodable),
    ]
}

// Terms.

pub fn engine_term(engine: &EngineStatus) -> Term {
    let mut entries = vec![
        ("name", binary(&engine.full_name)),
        ("engine", binary(&engine.engine)),
        ("realm", binary(&engine.realm)),
        ("local", terms::boolean(engine.local)),
        ("pid", terms::pid(&engine.pid)),
        ("key", binary(engine.key)),
        ("version", integer(engine.version.into())),
        ("ops", operations_term(engine.operations)),
        ("state", atom(if engine.local { "published" } else { "up" })),
    ];
    if let Some([calls, casts, sends, dropped]) = engine.counts {
        let counts = [
            ("calls", integer(calls)),
            ("casts", integer(casts)),
            ("sends", integer(sends)),
            ("dropped", integer(dropped)),
        ];
        entries.push(("counters", map(counts)));
    }
    map(entries)
}

/// What a subscriber is told of a learned engine.
pub fn info_term(info: &EngineInfo, pid: &[u8]) -> Term {
    map([
        ("key", binary(info.key)),
        ("serial", integer(info.serial)),
        ("version", integer(info.version.into())),
        ("ops", operations_term(info.operations)),
        ("pid", terms::pid(pid)),
    ])
}

pub fn operations_term(bits: u16) -> Term {
    list(operation_names(bits).map(atom).collect())
}

fn operation_names(bits: u16) -> impl Iterator<Item = &'static str> {
    const NAMES: [(u16, &str); 8] = [
        (Operations::CALL, "call"),
        (Operations::CAST, "cast"),
        (Operations::SEND, "send"),
        (Operations::MONITOR, "monitor"),
        (Operations::LINK, "link"),
        (Operations::EXIT, "exit"),
        (Operations::SYS, "sys"),
        (Operations::EVENT, "event"),
    ];
    NAMES.into_iter().filter(move |(bit, _)| bits & bit != 0).map(|(_, name)| name)
}

/// What subscribers are told of a session that is up: the link that we send on.
pub fn session_term(session: &PeerSession) -> Term {
    let mut entries = link_entries(&session.status(), &session.realm);
    entries.push(("session_id", binary(session.core.agreed().session)));
    if !session.is_up() {
        entries.push(("state", atom("lost")));
    }
    map(entries)
}

/// One of its links.
pub fn link_term(session: &PeerSession, link: &LinkStatus) -> Term {
    let mut entries = link_entries(link, &session.realm);
    entries.extend([
        ("session_id", binary(session.core.agreed().session)),
        ("state", atom(link.state())),
        ("rtt_ms", nil_or(link.rtt_ms.map(integer))),
        ("counters", counters_term(session.core.counters().all())),
    ]);
    map(entries)
}

fn link_entries(status: &LinkStatus, realm: &str) -> Vec<(&'static str, Term)> {
    vec![
        ("realm", binary(realm)),
        ("key", binary(format_public_key(&status.key))),
        ("profile", atom(status.profile)),
        ("role", atom(status.role)),
        ("version", integer(status.version.into())),
        ("signing", atom(status.signing)),
        ("carrier", atom(status.carrier)),
        ("address", binary(&status.address)),
        ("since", integer(status.since_ms)),
    ]
}

pub fn peer_term(status: &PeerStatus, counters: Vec<(&'static str, u64)>) -> Term {
    let mut entries = match status.link() {
        Some(link) => link_entries(link, &status.realm),
        None => vec![("realm", binary(&*status.realm)), ("key", binary(format_public_key(&status.key)))],
    };
    entries.extend([
        ("state", atom(status.state.name())),
        ("attempts", integer(status.attempts)),
        ("last_error", nil_or(status.last_error.as_ref().map(end_term))),
        ("counters", counters_term(counters)),
        ("links", list(status.links.iter().map(|link| link_of_peer_term(link, &status.realm)).collect())),
    ]);
    map(entries)
}

fn link_of_peer_term(link: &LinkStatus, realm: &str) -> Term {
    let mut entries = link_entries(link, realm);
    entries.extend([("state", atom(link.state())), ("rtt_ms", nil_or(link.rtt_ms.map(integer)))]);
    map(entries)
}

pub fn counters_term(counters: impl IntoIterator<Item = (&'static str, u64)>) -> Term {
    map(counters.into_iter().map(|(name, value)| (name, integer(value))))
}

/// As Elixir's reasons are (`Legation.Error`).
pub fn end_term(end: &LinkEnd) -> Term {
    match end {
        LinkEnd::Connect(reason) => tuple(vec![atom("connect"), reason_term(reason)]),
        LinkEnd::Carrier(reason) => tuple(vec![atom("carrier"), reason_term(reason)]),
        LinkEnd::Closed { code, text } => tuple(vec![atom("closed"), atom(code), binary(text)]),
        LinkEnd::Fault { code, detail } => tuple(vec![atom("fault"), atom(code), binary(detail)]),
        LinkEnd::Local(code) => tuple(vec![atom("local"), atom(code)]),
        LinkEnd::Keyholder(reason) => tuple(vec![atom("keyholder"), binary(reason)]),
        LinkEnd::NoAnswer => atom("no_answer"),
    }
}

/// A code is an atom there, and anything else is text.
fn reason_term(reason: &str) -> Term {
    let is_code = !reason.is_empty() && reason.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    match is_code {
        true => atom(reason),
        false => binary(reason),
    }
}

pub fn end_text(end: &LinkEnd) -> String {
    end.to_string()
}

pub fn listener_term(info: &ListenerInfo) -> Term {
    let address = match &info.address {
        BoundAddress::Tcp(address) => tuple(vec![atom("port"), integer(address.port().into())]),
        BoundAddress::Unix(path) => tuple(vec![atom("path"), binary(path.as_os_str().as_encoded_bytes())]),
    };
    map([
        ("id", binary(&info.id)),
        ("carrier", atom(info.carrier)),
        ("profile", atom(info.profile)),
        ("address", list(vec![address])),
        ("pending", integer(info.pending as u64)),
        ("handshakes", integer(info.handshakes as u64)),
    ])
}

pub fn listen_error_term(reason: &ListenError) -> Term {
    match reason {
        ListenError::AlreadyListening(_) => atom("already_listening"),
        _ => reason_term(&reason.to_string()),
    }
}

// JSON.

impl Realm {
    pub(crate) fn engines_json(&self) -> Value {
        let engine = |engine: EngineStatus| {
            json!({
                "name": engine.full_name,
                "engine": engine.engine,
                "realm": engine.realm,
                "local": engine.local,
                "key": format_public_key(&engine.key),
                "version": engine.version,
                "ops": operation_names(engine.operations).collect::<Vec<_>>(),
                "state": if engine.local { "published" } else { "up" },
                "counters": engine.counts.map(|[calls, casts, sends, dropped]| {
                    json!({ "calls": calls, "casts": casts, "sends": sends, "dropped": dropped })
                }),
            })
        };
        self.engine_statuses().into_iter().map(engine).collect()
    }

    pub(crate) fn peers_json(&self) -> Value {
        let peer = |status: PeerStatus| {
            let mut value = json!({
                "realm": *status.realm,
                "key": format_public_key(&status.key),
                "state": status.state.name(),
                "attempts": status.attempts,
                "last_error": status.last_error.as_ref().map(end_text),
                "counters": counters_json(self.session_counters(&status.realm)),
                "links": status.links.iter().map(link_json).map(Value::Object).collect::<Vec<_>>(),
            });
            if let (Some(link), Some(object)) = (status.link(), value.as_object_mut()) {
                let mut link = link_json(link);
                // Of the peer it is another.
                link.remove("state");
                object.extend(link);
            }
            value
        };
        self.peer_statuses().into_iter().map(peer).collect()
    }

    pub(crate) fn connections_json(&self) -> Value {
        let connection = |(session, link): (Arc<PeerSession>, LinkStatus)| {
            let mut object = link_json(&link);
            object.insert("realm".into(), json!(*session.realm));
            object.insert("key".into(), json!(format_public_key(&link.key)));
            object.insert("counters".into(), counters_json(session.core.counters().all()));
            Value::Object(object)
        };
        self.links().into_iter().map(connection).collect()
    }

    pub(crate) fn counters_json(&self) -> Value {
        let mut counters = counters_json(self.own_counters());
        if let Some(object) = counters.as_object_mut() {
            let sessions = self.sessions().into_iter();
            let sessions =
                sessions.map(|session| (session.realm.to_string(), counters_json(session.core.counters().all())));
            object.insert("sessions".into(), Value::Object(sessions.collect()));
            let ended = self.ended_counters().into_iter();
            let ended = ended.map(|(realm, sums)| (realm.to_string(), counters_json(sums)));
            object.insert("ended".into(), Value::Object(ended.collect()));
        }
        counters
    }

    pub(crate) fn status_json(&self) -> Value {
        let peers = self.peer_statuses();
        let up = peers.iter().filter(|peer| !peer.links.is_empty()).count();
        let engines = self.engine_statuses();
        let own = engines.iter().filter(|engine| engine.local).count();
        let nodes: Vec<_> = self.connected_nodes().iter().map(|node| node.link.node.to_string()).collect();
        json!({
            "realm": lock(&self.config).realm,
            "key": format_public_key(&self.identity.key),
            "version": env!("CARGO_PKG_VERSION"),
            "node": self.node_name(),
            "port": self.node_port(),
            "nodes": nodes,
            "peers": { "listed": peers.len(), "up": up },
            "engines": { "published": own, "learned": engines.len() - own },
            "listeners": self.peers().map(|peers| peers.listeners()).unwrap_or_default().iter().map(|listener| json!({
                "id": listener.id, "carrier": listener.carrier, "profile": listener.profile, "address": address_text(&listener.address),
            })).collect::<Vec<_>>(),
        })
    }
}

fn address_text(address: &BoundAddress) -> String {
    match address {
        BoundAddress::Tcp(address) => address.to_string(),
        BoundAddress::Unix(path) => path.display().to_string(),
    }
}

fn link_json(status: &LinkStatus) -> serde_json::Map<String, Value> {
    let entries = [
        ("profile", json!(status.profile)),
        ("role", json!(status.role)),
        ("version", json!(status.version)),
        ("signing", json!(status.signing)),
        ("carrier", json!(status.carrier)),
        ("address", json!(status.address)),
        ("since_ms", json!(status.since_ms)),
        ("state", json!(status.state())),
        ("rtt_ms", json!(status.rtt_ms)),
    ];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn counters_json(counters: impl IntoIterator<Item = (&'static str, u64)>) -> Value {
    Value::Object(counters.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect())
}
