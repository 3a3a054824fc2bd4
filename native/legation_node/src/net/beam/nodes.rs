//! The nodes that we know of: which connection is a node's, which attempts are under way, and what they make of each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{watch, Mutex as AsyncMutex, Notify};

use crate::dist::handshake::{NodeName, Verdict};

use super::dial::ConnectError;
use super::link::{ConnectionEnd, NodeLink};

/// What is known of one node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    pub node: NodeName,
    pub state: NodeState,
    /// The configuration says that we dial it.
    pub configured: bool,
    /// Dials that failed since the last connection.
    pub attempts: u32,
    /// Why the last dial failed, or the last connection ended.
    pub last_error: Option<String>,
    pub link: Option<Arc<NodeLink>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    Connected,
    Connecting,
    /// Until the next dial.
    Waiting,
}

/// What those who wait for a node are told.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    /// `node_up` is through.
    pub(super) up: Option<Arc<NodeLink>>,
    /// Dials that have ended, and what came of the last: the serial of a connection.
    pub(super) dials: u64,
    pub(super) outcome: Option<Result<u64, ConnectError>>,
    /// The greatest serial of a connection that has ended.
    pub(super) ended: u64,
}

/// A connection's place among those of its node.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// Greater than that of the connection before.
    pub(super) serial: u64,
    /// Held from before `node_up` until after `node_down`.
    pub(super) free: Arc<AsyncMutex<()>>,
}

/// What a dial is begun with.
pub(super) enum Begin {
    /// There is a connection. Its `node_up` may yet have to come.
    Connected(u64),
    /// Another dial is under way.
    Ongoing,
    Begun(DialTicket),
}

/// The right to dial a node; given back with [`Nodes::end_dial`].
#[derive(Debug)]
pub(super) struct DialTicket {
    pub(super) node: NodeName,
    number: u64,
    /// Notified when the node's own attempt is to go on instead.
    pub(super) superseded: Arc<Notify>,
}

pub(super) struct Nodes {
    own: NodeName,
    connected_max: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Box<str>, Entry>,
    /// Entries with a connection.
    connected: usize,
    dials: u64,
    serials: u64,
}

struct Entry {
    node: NodeName,
    /// The newest connection. Its `node_up` may yet have to come.
    current: Option<Arc<NodeLink>>,
    /// The newest connection's.
    seat: Seat,
    dial: Option<Dial>,
    configured: bool,
    attempts: u32,
    last_error: Option<String>,
    news: watch::Sender<News>,
}

struct Dial {
    number: u64,
    /// The node may know of our attempt.
    name_sent: bool,
    superseded: Arc<Notify>,
}

impl Nodes {
    pub(super) fn new(own: NodeName, connected_max: usize) -> Nodes {
        Nodes { own, connected_max, table: Mutex::default() }
    }

    /// The node is to be dialled, and is shown even when nothing comes of it.
    pub(super) fn configure(&self, node: &NodeName) {
        self.table().entry(node).configured = true;
    }

    pub(super) fn current(&self, node: &str) -> Option<Arc<NodeLink>> {
        self.table().entries.get(node)?.current.clone()
    }

    pub(super) fn connected(&self) -> usize {
        self.table().connected
    }

    /// As long as somebody listens the node is not forgotten; then [`tidy`](Self::tidy).
    pub(super) fn subscribe(&self, node: &NodeName) -> watch::Receiver<News> {
        self.table().entry(node).news.subscribe()
    }

    pub(super) fn tidy(&self, node: &NodeName) {
        self.table().prune(node.as_str());
    }

    pub(super) fn for_each_link(&self, mut visit: impl FnMut(&Arc<NodeLink>)) {
        self.table().entries.values().filter_map(|entry| entry.current.as_ref()).for_each(&mut visit);
    }

    pub(super) fn status(&self) -> Vec<NodeStatus> {
        let mut nodes: Vec<_> = self.table().entries.values().map(Entry::status).collect();
        nodes.sort_by(|one, other| one.node.cmp(&other.node));
        nodes
    }

    /// What a node that dials us is told. It hasn't shown yet that it is who it says.
    pub(super) fn verdict(&self, node: &NodeName) -> Verdict {
        let table = self.table();
        let full = table.connected >= self.connected_max;
        let Some(entry) = table.entries.get(node.as_str()) else {
            return if full { Verdict::NotAllowed } else { Verdict::Ok };
        };
        if let Some(link) = &entry.current {
            return if link.has_ended() { Verdict::Ok } else { Verdict::Alive };
        }
        match &entry.dial {
            _ if full => Verdict::NotAllowed,
            Some(dial) if dial.name_sent && self.own > *node => Verdict::Nok,
            // Our own attempt ends when this one is through, and not before: it may be nobody's.
            Some(dial) if dial.name_sent => Verdict::OkSimultaneous,
            // Of an attempt whose name has not gone out the node knows nothing; they meet there, if at all.
            _ => Verdict::Ok,
        }
    }

    /// Whether to go on with a dial though the node believes us to be connected: it speaks of a connection that we have lost.
    pub(super) fn go_on_though_alive(&self, node: &NodeName) -> bool {
        self.table().entries.get(node.as_str()).is_none_or(|entry| entry.alive().is_none())
    }

    /// # Errors
    /// [`ConnectError::NodesFull`].
    pub(super) fn begin_dial(&self, node: &NodeName) -> Result<Begin, ConnectError> {
        let mut table = self.table();
        let full = table.connected >= self.connected_max;
        table.dials += 1;
        let number = table.dials;
        let entry = table.entry(node);
        if entry.alive().is_some() {
            return Ok(Begin::Connected(entry.seat.serial));
        }
        if entry.dial.is_some() {
            return Ok(Begin::Ongoing);
        }
        if full {
            table.prune(node.as_str());
            return Err(ConnectError::NodesFull);
        }
        let superseded = Arc::new(Notify::new());
        entry.dial = Some(Dial { number, name_sent: false, superseded: superseded.clone() });
        Ok(Begin::Begun(DialTicket { node: node.clone(), number, superseded }))
    }

    /// Our name goes out next. False: don't; the node has connected in the meantime.
    pub(super) fn name_goes_out(&self, ticket: &DialTicket) -> bool {
        let mut table = self.table();
        let entry = table.entry(&ticket.node);
        let connected = entry.alive().is_some();
        match &mut entry.dial {
            Some(dial) if dial.number == ticket.number && !connected => {
                dial.name_sent = true;
                true
            }
            _ => false,
        }
    }

    /// `outcome`: the serial of the connection that it came to.
    pub(super) fn end_dial(&self, ticket: &DialTicket, outcome: Result<u64, ConnectError>) {
        let mut table = self.table();
        let entry = table.entry(&ticket.node);
        if entry.dial.as_ref().is_some_and(|dial| dial.number == ticket.number) {
            entry.dial = None;
        }
        match &outcome {
            Err(error) if !error.is_harmless() => {
                entry.attempts = entry.attempts.saturating_add(1);
                entry.last_error = Some(error.to_string());
            }
            _ => {}
        }
        entry.news.send_modify(|news| {
            news.dials += 1;
            news.outcome = Some(outcome);
        });
        table.prune(ticket.node.as_str());
    }

    /// The node has shown that it knows the cookie: `link` is its connection now, and the one before is over. `dial`: the dial that
    /// came to this.
    ///
    /// # Errors
    /// [`ConnectError::NodesFull`], [`ConnectError::Superseded`].
    pub(super) fn admit(
        &self,
        node: &NodeName,
        link: &Arc<NodeLink>,
        dial: Option<&DialTicket>,
    ) -> Result<Seat, ConnectError> {
        let mut table = self.table();
        let full = table.connected >= self.connected_max;
        table.serials += 1;
        let serial = table.serials;
        let entry = table.entry(node);
        let ours = |ticket: &DialTicket| entry.dial.as_ref().is_some_and(|dial| dial.number == ticket.number);
        if dial.is_some_and(|ticket| !ours(ticket)) {
            return Err(ConnectError::Superseded);
        }
        if entry.current.is_none() && full {
            table.prune(node.as_str());
            return Err(ConnectError::NodesFull);
        }
        if let Some(superseded) = entry.dial.take_if(|_| dial.is_none()) {
            superseded.superseded.notify_one();
        }
        let old = entry.current.replace(link.clone());
        entry.seat.serial = serial;
        let seat = entry.seat.clone();
        match old {
            Some(old) => old.close_for(ConnectionEnd::Replaced),
            None => table.connected += 1,
        }
        Ok(seat)
    }

    pub(super) fn up(&self, node: &NodeName, link: &Arc<NodeLink>) {
        let mut table = self.table();
        let entry = table.entry(node);
        entry.attempts = 0;
        entry.last_error = None;
        entry.news.send_modify(|news| news.up = Some(link.clone()));
    }

    /// The connection is over and `node_down`, if there was a `node_up`, through.
    pub(super) fn down(&self, node: &NodeName, link: &Arc<NodeLink>, serial: u64) {
        let mut table = self.table();
        let Some(entry) = table.entries.get_mut(node.as_str()) else { return };
        let is_it = |other: &Option<Arc<NodeLink>>| other.as_ref().is_some_and(|other| Arc::ptr_eq(other, link));
        entry.last_error = link.end().map(ToString::to_string);
        entry.news.send_modify(|news| {
            news.ended = news.ended.max(serial);
            if is_it(&news.up) {
                news.up = None;
            }
        });
        if is_it(&entry.current) {
            entry.current = None;
            table.connected -= 1;
        }
        table.prune(node.as_str());
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn entry(&mut self, node: &NodeName) -> &mut Entry {
        self.entries.entry(node.as_str().into()).or_insert_with(|| Entry::new(node.clone()))
    }

    /// Forgets a node that nobody asks for.
    fn prune(&mut self, node: &str) {
        let idle = |entry: &Entry| {
            !entry.configured && entry.current.is_none() && entry.dial.is_none() && entry.news.receiver_count() == 0
        };
        if self.entries.get(node).is_some_and(idle) {
            self.entries.remove(node);
        }
    }
}

impl Entry {
    fn new(node: NodeName) -> Entry {
        Entry {
            node,
            current: None,
            seat: Seat { serial: 0, free: Arc::default() },
            dial: None,
            configured: false,
            attempts: 0,
            last_error: None,
            news: watch::Sender::default(),
        }
    }

    /// The connection, unless it has ended and is about to be taken down.
    fn alive(&self) -> Option<&Arc<NodeLink>> {
        self.current.as_ref().filter(|link| !link.has_ended())
    }

    fn status(&self) -> NodeStatus {
        let link = self.news.borrow().up.clone();
        let state = match (&link, &self.current, &self.dial) {
            (Some(_), ..) => NodeState::Connected,
            (None, None, None) => NodeState::Waiting,
            _ => NodeState::Connecting,
        };
        NodeStatus {
            node: self.node.clone(),
            state,
            configured: self.configured,
            attempts: self.attempts,
            last_error: self.last_error.clone(),
            link,
        }
    }
}
