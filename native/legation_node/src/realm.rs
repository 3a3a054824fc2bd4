//! One realm: its processes, names and engines; what a message means.
//!
//! Driven from two sides, by tasks that own sockets: [`BeamEvents`](crate::net::beam::BeamEvents) by connections to BEAM nodes, [`SessionEvents`](crate::peers::SessionEvents) by links to peers. Neither
//! waits here. What takes a while (a signature of an agent, a question to a node) is a task of its own.
//!
//! | what | where |
//! |---|---|
//! | who is who on our node, and who watches whom | [`space`] |
//! | BEAM process → foreign engine | [`outgoing`] |
//! | peer → engine or caller of ours | [`incoming`], [`atoms`], [`gate`] |
//! | pids that cross, exit signals | [`handles`], [`exits`] |
//! | engines of ours, announcements | [`engines`], [`policy`] |
//! | credit for peers, room towards them | [`flow`], [`room`] |
//! | who has an engine of a name | [`providers`] |
//! | `:global` | [`names`] |
//! | the engine `legation` | [`control`] |
//!
//! Locks are held for look-ups, never across a signature or a wait. Order, where two are held: `events`, holds of a node, the
//! calls of a session's core, `stand_ins`, `engines`, `published_as`, `space`.

pub mod admin;
pub mod atoms;
pub mod control;
pub mod counters;
mod ends;
pub mod engines;
pub mod exits;
pub mod flow;
pub mod gate;
pub mod handles;
pub mod identity;
pub mod incoming;
pub mod names;
pub mod node;
pub mod nodes;
pub mod outgoing;
pub mod policy;
pub mod providers;
pub mod request;
pub mod room;
pub mod sessions;
pub mod space;
pub mod start;
pub mod status;
pub mod subscribers;
pub mod terms;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use legation_proto::UnixMs;

use crate::config::{Config, Limits};
use crate::dist::term::{OwnNode, Pid};
use crate::identity::Identity;
use crate::net::beam::{Beam, NodeLink};
use crate::peers::{PeerSession, Peers};
use crate::realm::counters::{Counters, Drop};
use crate::realm::engines::{Engines, Serials};
use crate::realm::flow::Mailboxes;
use crate::realm::gate::Gate;
use crate::realm::handles::StandIn;
use crate::realm::names::Names;
use crate::realm::node::Node;
use crate::realm::policy::Policy;
use crate::realm::providers::Turns;
use crate::realm::room::Waiter;
use crate::realm::space::Space;
use crate::realm::subscribers::Subscribers;

/// A process of our node.
#[derive(Debug)]
pub enum Body {
    /// Speaks for the node: asks, watches, and sends what has no other sender.
    Agent,
    /// A foreign engine.
    Proxy(Proxy),
    /// Another process of a peer's: one that calls our engines, or whose pid came in a message.
    StandIn(StandIn),
    /// The engine `legation`.
    Control,
    /// Answers `net_adm:ping`.
    NetKernel,
    /// Answers calls with their request: what the benchmark measures.
    Echo,
}

#[derive(Debug)]
pub struct Proxy {
    /// `ping@bob`.
    pub full_name: Box<str>,
    /// `ping`.
    pub engine: Box<str>,
    pub session: Arc<PeerSession>,
    pub info: Mutex<EngineInfo>,
    pub counts: Counts,
}

/// What a peer says of its engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    pub key: [u8; 32],
    pub serial: u64,
    pub version: u32,
    pub operations: u16,
}

/// What went to a foreign engine.
#[derive(Debug, Default)]
pub struct Counts {
    pub calls: AtomicU64,
    pub casts: AtomicU64,
    pub sends: AtomicU64,
    pub dropped: AtomicU64,
}

/// Where what is sent to a process of ours goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub session: &'a Arc<PeerSession>,
    /// An engine's name, or the address of a process that the peer gave to us.
    pub destination: &'a str,
    pub counts: Option<&'a Counts>,
}

impl Body {
    /// None for a process of the daemon's own.
    pub fn target(&self) -> Option<Target<'_>> {
        match self {
            Body::Proxy(Proxy { session, engine, counts, .. }) => {
                Some(Target { session, destination: engine, counts: Some(counts) })
            }
            Body::StandIn(StandIn { session, address, .. }) => {
                Some(Target { session, destination: address, counts: None })
            }
            Body::Agent | Body::Control | Body::NetKernel | Body::Echo => None,
        }
    }
}

pub struct Realm {
    me: Weak<Realm>,
    config: Mutex<Config>,
    pub(crate) limits: Limits,
    pub(crate) identity: Identity,
    own: OnceLock<Own>,
    beam: OnceLock<Beam>,
    peers: OnceLock<Arc<Peers>>,
    pub(crate) counters: Counters,
    /// Held while something changes that subscribers are told of.
    pub(crate) events: Mutex<Subscribers>,
    nodes: RwLock<Nodes>,
    /// Session tag and the peer's number to process number.
    pub(crate) stand_ins: Mutex<HashMap<(u64, u64), u64>>,
    /// What we watch for a peer, by session tag and our number.
    pub(crate) exports: Mutex<Exports>,
    pub(crate) engines: RwLock<Engines>,
    /// Under which of our names a process is published, by raw pid.
    pub(crate) published_as: RwLock<HashMap<Box<[u8]>, Box<str>>>,
    pub(crate) space: Mutex<Space<Body>>,
    policies: RwLock<HashMap<Box<str>, Arc<Policy>>>,
    sessions: RwLock<HashMap<u64, Arc<PeerSession>>>,
    pub(crate) publishing: tokio::sync::Mutex<()>,
    ends: Arc<ends::Ends>,
    pub(crate) serials: Serials,
    pub(crate) certificate: Mutex<Option<Box<[u8]>>>,
    pub(crate) names: Names,
    pub(crate) turns: Turns,
    pub(crate) gate: Mutex<Gate>,
    pub(crate) mailboxes: Mutex<Mailboxes>,
    /// Who waits for room towards a peer: calls of the control engine, by token.
    pub(crate) room: Mutex<HashMap<u64, Waiter>>,
    /// A node has answered, and nothing is held for it any more.
    pub(crate) released: tokio::sync::Notify,
    /// Replies that wait for a node to be dialled: how many, and their bytes.
    pub(crate) dialling: Mutex<(usize, usize)>,
    /// What sessions that are over have counted, by realm.
    ended: Mutex<HashMap<Box<str>, HashMap<&'static str, u64>>>,
    next_number: AtomicU64,
    /// When a drop of this kind was last logged.
    drops_logged: Mutex<HashMap<DropKind, UnixMs>>,
}

/// The node of each, and the number of our monitor there.
type Exports = HashMap<(u64, u64), (Arc<Node>, u64)>;

/// What is fixed once our node has a name and a creation.
struct Own {
    node: OwnNode,
    /// Of the agent, raw.
    agent: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Nodes {
    by_number: HashMap<u64, Arc<Node>>,
    by_name: HashMap<Box<[u8]>, Arc<Node>>,
}

/// Direction, reason, realm.
type DropKind = (&'static str, &'static str, Box<str>);

/// A drop of one kind is logged so often at most.
const DROP_LOG_MS: u64 = 5_000;

impl Realm {
    /// None once it is being dropped.
    pub(crate) fn me(&self) -> Option<Arc<Realm>> {
        self.me.upgrade()
    }

    pub(crate) fn now(&self) -> UnixMs {
        now_ms()
    }

    /// For references of ours: monitors, questions, subscriptions.
    pub(crate) fn new_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    fn own(&self) -> Option<&Own> {
        self.own.get()
    }

    pub fn node_name(&self) -> &str {
        self.own().map_or("", |own| own.node.name())
    }

    pub fn node_port(&self) -> u16 {
        self.beam.get().map_or(0, Beam::port)
    }

    pub(crate) fn agent_pid(&self) -> &[u8] {
        self.own().map_or(&[], |own| &own.agent)
    }

    pub(crate) fn put_own_pid(&self, out: &mut Vec<u8>, number: u64) {
        if let Some(own) = self.own() {
            let (id, serial) = space::pid_of(number);
            own.node.pid(out, id, serial);
        }
    }

    pub(crate) fn own_pid(&self, number: u64) -> Vec<u8> {
        let mut pid = Vec::with_capacity(48);
        self.put_own_pid(&mut pid, number);
        pid
    }

    pub(crate) fn put_own_reference(&self, out: &mut Vec<u8>, number: u64) {
        if let Some(own) = self.own() {
            own.node.reference(out, request::words_of(number));
        }
    }

    /// The process number of a pid of ours, of this incarnation.
    pub(crate) fn number_of(&self, pid: &Pid<'_>) -> Option<u64> {
        self.own().filter(|own| own.node.owns(pid)).and_then(|_| space::number_of(pid))
    }

    pub(crate) fn body(&self, number: u64) -> Option<Arc<Body>> {
        lock(&self.space).get(number).cloned()
    }

    // Nodes.

    pub(crate) fn node(&self, link: &NodeLink) -> Option<Arc<Node>> {
        read(&self.nodes).by_number.get(&link.number).cloned()
    }

    /// The connected node that a pid is of, in the incarnation that the pid is of.
    pub(crate) fn node_of(&self, pid: &Pid<'_>) -> Option<Arc<Node>> {
        read(&self.nodes).by_name.get(pid.node).filter(|node| node.link.creation == pid.creation).cloned()
    }

    pub(crate) fn connected_nodes(&self) -> Vec<Arc<Node>> {
        let mut nodes: Vec<_> = read(&self.nodes).by_number.values().cloned().collect();
        nodes.sort_by_key(|node| node.link.number);
        nodes
    }

    pub(crate) fn is_connected(&self, node: &Node) -> bool {
        read(&self.nodes).by_number.contains_key(&node.link.number)
    }

    /// A plain message from the agent. Never refused: what we tell is bounded by what was asked for.
    pub(crate) fn send_term(&self, node: &Node, to: &[u8], message: &[u8]) {
        let mut control = Vec::with_capacity(96);
        crate::dist::control::encode::send_sender(&mut control, self.agent_pid(), to);
        node.link.push_signal(incoming::key_of(to), &control, &[message]);
    }

    // Peers.

    pub(crate) fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.get()
    }

    pub(crate) fn sessions(&self) -> Vec<Arc<PeerSession>> {
        read(&self.sessions).values().cloned().collect()
    }

    pub(crate) fn policy(&self, realm: &str) -> Option<Arc<Policy>> {
        read(&self.policies).get(realm).cloned()
    }

    pub(crate) fn log_drop(&self, drop: Drop<'_>) {
        let now = self.now();
        let mut logged = lock(&self.drops_logged);
        if logged.len() > 1_024 {
            logged.retain(|_, at| *at + DROP_LOG_MS > now);
        }
        // Reasons are a few words that the program knows; only realms are many.
        let reason: &'static str = DROP_REASONS.into_iter().find(|known| *known == drop.reason).unwrap_or("other");
        let last = logged.entry((drop.direction, reason, drop.realm.into())).or_insert(0);
        if *last + DROP_LOG_MS > now {
            return;
        }
        *last = now;
        let Drop { direction, kind, realm, engine, reason } = drop;
        tracing::warn!(direction, kind, realm, engine, reason, "a message was dropped");
    }
}

const DROP_REASONS: [&str; 9] =
    ["forbidden", "filtered", "undecodable", "overload", "noproc", "too_large", "identifiers", "bad_term", "ended"];

/// Unix milliseconds.
pub(crate) fn now_ms() -> UnixMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
