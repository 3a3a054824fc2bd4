//! The sessions with other realms and their links: who may link with us, dialling, which links live, grace, drain.
//!
//! ```text
//!  Peers ──┬── Peer per realm on the list: addresses, back-off, its session and links    (peer, links, backoff: pure)
//!          ├── Listener per address: places for those who have not proven who they are   (net::listener)
//!          └── two tasks per connection, which ask: hello?, up?, and tell: ended          (net::peer_connection)
//! ```
//!
//! What links bring goes to [`SessionEvents`]. Locks are held briefly, and none of `Peers`' own while events are told; an event
//! handler may ask and tell `Peers` anything.

pub(crate) mod backoff;
mod counters;
mod drain;
mod links;
mod listening;
mod peer;
mod questions;
mod revoking;
pub(crate) mod session;
mod system;
mod words;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use legation_channel::knock::{KnockMemory, KnockSettings};
use legation_proto::error::CloseCode;
use legation_proto::identity::{check_public_key, KeyError, RealmId};
use legation_proto::session::{Event, Exported};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::config::{Limits, PeerConfig};
use crate::identity::Identity;
use crate::net::listener::Listener;
use crate::net::peer_connection::{Control, Wanted};
use peer::Peer;

pub use crate::net::listener::{BoundAddress, ListenerInfo};
pub use counters::PeersCounters;
pub use drain::CutCall;
pub use listening::ListenError;
pub use session::{LinkStatus, PeerSession, Standing};

pub(crate) use peer::DialPlan;
pub(crate) use questions::{LinkUp, Verdict};
pub(crate) use system::{fill_random, random, unix_ms};

use counters::LogLimit;

/// Why a link ended or did not come about: `kind` and `code` as in Elixir's reasons (`docs/internals.md`).
///
/// Text of [`LinkEnd::Connect`] and [`LinkEnd::Carrier`] begins with the word that is Elixir's atom (`econnrefused`); what
/// follows a space is detail (`uid_not_allowed 1000`, `channel …`). See [`LinkEnd::code`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The carrier did not come about.
    Connect(String),
    /// The carrier broke.
    Carrier(String),
    /// The peer said goodbye.
    Closed { code: &'static str, text: String },
    /// We must close: the peer broke a rule, or is silent.
    Fault { code: &'static str, detail: String },
    /// We want to close.
    Local(&'static str),
    /// Our keyholder did not sign.
    Keyholder(String),
    /// A dial that was closed without a word.
    NoAnswer,
}

impl LinkEnd {
    /// Only the link has ended: another may take its session up.
    pub fn keeps_session(&self) -> bool {
        match self {
            // A cipher that fails is a carrier that is broken: who stands between must not be able to end more than a link.
            LinkEnd::Connect(_)
            | LinkEnd::Carrier(_)
            | LinkEnd::NoAnswer
            | LinkEnd::Fault { code: "answer" | "channel", .. } => true,
            LinkEnd::Closed { code, .. } | LinkEnd::Fault { code, .. } | LinkEnd::Local(code) => {
                CloseCode::from_name(code).is_some_and(CloseCode::keeps_session)
            }
            LinkEnd::Keyholder(_) => false,
        }
    }
}

/// What the realm is told of sessions, by the tasks of their links. Must not wait. For one session: `up`, then events, `lost` and
/// `resumed` in turn, then `ended`; and an earlier session with the same realm has ended before the next one is up.
///
/// In event handlers nothing may be asked of the session that reads (`make_receipts_for` but in `session_up`,
/// `delivered`, `handle_bytes`): pushes, replies and announcements are fine.
pub trait SessionEvents: Send + Sync {
    fn session_up(&self, session: &Arc<PeerSession>);
    /// One event of the session. What it leaves to flush is said by returning true.
    fn session_event(&self, session: &Arc<PeerSession>, event: Event<'_>) -> bool;
    /// All that a read has brought has been delivered.
    fn session_delivered(&self, session: &Arc<PeerSession>);
    /// For who waits with these tokens (`Session::wait_room`) there is room now.
    fn session_room(&self, session: &Arc<PeerSession>, tokens: Vec<u64>);
    /// What was taken over from the session before has given these to the peer.
    fn session_exported(&self, session: &Arc<PeerSession>, exported: &[Exported]);
    /// There is no link any more. It waits for one, and so does what is pushed.
    fn session_lost(&self, session: &Arc<PeerSession>, why: &LinkEnd);
    /// And there is one again: nothing was lost, and nothing has come twice.
    fn session_resumed(&self, session: &Arc<PeerSession>);
    fn session_ended(&self, session: &Arc<PeerSession>, why: &LinkEnd);
}

/// What has become of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    Up,
    /// There is a session but no link, for its grace.
    Lost,
    Connecting,
    /// For the next dial.
    Waiting,
    /// It has no address: it dials us.
    Listening,
    Disconnected,
    Drained,
    /// None of its keys is accepted any more.
    Revoked,
}

impl PeerState {
    pub fn name(self) -> &'static str {
        match self {
            PeerState::Up => "up",
            PeerState::Lost => "lost",
            PeerState::Connecting => "connecting",
            PeerState::Waiting => "waiting",
            PeerState::Listening => "listening",
            PeerState::Disconnected => "disconnected",
            PeerState::Drained => "drained",
            PeerState::Revoked => "revoked",
        }
    }
}

/// What `peers` shows.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    pub realm: Arc<str>,
    pub key: [u8; 32],
    pub state: PeerState,
    /// Dials since the last link.
    pub attempts: u64,
    /// How the last link or dial ended, if none has come up since.
    pub last_error: Option<LinkEnd>,
    pub links: Vec<LinkStatus>,
}

impl PeerStatus {
    /// The one that we send on.
    pub fn link(&self) -> Option<&LinkStatus> {
        self.links.iter().find(|link| link.active)
    }
}

/// Why a peer can't be put on the list, or taken up again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddPeerError {
    #[error("it is on the list already")]
    AlreadyConnected,
    #[error("the peer {0:?} has the same key")]
    SameKey(String),
    #[error("the key is our own")]
    OwnKey,
    #[error("the public key can't be used: {0}")]
    BadKey(#[from] KeyError),
    #[error("there is no such peer")]
    UnknownRealm,
    #[error("its key was revoked")]
    Revoked,
    #[error("the realm is draining: nobody is dialled and nobody let in any more")]
    Draining,
}

/// See the module's documentation.
pub struct Peers {
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) events: Arc<dyn SessionEvents>,
    pub(crate) counters: PeersCounters,
    pub(crate) accept_log: LogLimit,
    pub(crate) runtime: Handle,
    /// Shared by all listeners.
    pub(crate) knocks: Arc<Mutex<KnockMemory>>,
    unlisted_log: LogLimit,
    started: Instant,
    last_tag: AtomicU64,
    list: Mutex<List>,
    listeners: Mutex<HashMap<String, Arc<Listener>>>,
    /// All connections, whatever their state.
    connections: Mutex<HashMap<u64, Arc<Control>>>,
    /// The last one has gone.
    idle: Notify,
    /// How long each may take to leave: `goodbye_ms`, or what is left when all of us stop.
    goodbye_ms: AtomicU64,
}

#[derive(Default)]
struct List {
    peers: HashMap<Arc<str>, Peer>,
    /// Whose key may connect.
    by_realm_id: HashMap<RealmId, Arc<str>>,
    /// Sessions that have ended because their peer left, until the realm has been told.
    leaving: HashMap<Arc<str>, Arc<PeerSession>>,
    last_generation: u64,
    /// Nothing new is begun.
    draining: bool,
    /// Nobody is dialled and nobody let in any more.
    stopping: bool,
}

impl Peers {
    /// # Panics
    /// Outside of a tokio runtime: its tasks run on the one that this is called in.
    pub fn new(identity: Identity, limits: Limits, events: Arc<dyn SessionEvents>) -> Arc<Peers> {
        let knocks = KnockSettings {
            window_ms: limits.knock_window_ms,
            boot_ms: limits.knock_boot_ms,
            entries_max: limits.knock_entries_max,
        };
        Arc::new(Peers {
            goodbye_ms: AtomicU64::new(limits.goodbye_ms),
            identity,
            limits,
            events,
            counters: PeersCounters::default(),
            accept_log: LogLimit::default(),
            runtime: Handle::current(),
            knocks: Arc::new(Mutex::new(KnockMemory::new(knocks, unix_ms()))),
            unlisted_log: LogLimit::default(),
            started: Instant::now(),
            last_tag: AtomicU64::new(0),
            list: Mutex::default(),
            listeners: Mutex::default(),
            connections: Mutex::default(),
            idle: Notify::new(),
        })
    }

    /// How long a link that we leave has for what waits, and the goodbye behind it.
    pub(crate) fn goodbye_time(&self) -> Duration {
        Duration::from_millis(self.goodbye_ms.load(Ordering::Relaxed))
    }

    /// Puts a peer on the list and dials it, if it has addresses. One that was disconnected is taken up with these settings.
    ///
    /// # Errors
    /// All but [`AddPeerError::UnknownRealm`].
    pub fn add_peer(self: &Arc<Peers>, config: PeerConfig) -> Result<(), AddPeerError> {
        check_public_key(&config.key)?;
        let mut list = lock(&self.list);
        list.check_draining()?;
        self.check_revoked(&RealmId::of(&config.key))?;
        if list.peers.get(config.realm.as_str()).is_some_and(|peer| peer.connected) {
            return Err(AddPeerError::AlreadyConnected);
        }
        list.last_generation += 1;
        let peer = Peer::new(config, &self.identity.realm_id, list.last_generation, &self.limits);
        let realm = peer.realm.clone();
        list.enter(&self.identity, &realm, peer.realm_id)?;
        list.peers.insert(realm.clone(), peer);
        self.dial(&mut list, &realm);
        Ok(())
    }

    /// Takes a peer up again after [`Peers::disconnect`]. Of one that is connected nothing is to be done.
    ///
    /// # Errors
    /// [`AddPeerError::UnknownRealm`]; [`AddPeerError::Draining`]; [`AddPeerError::SameKey`] when another peer has got its key
    /// meanwhile.
    pub fn connect(self: &Arc<Peers>, realm: &str) -> Result<(), AddPeerError> {
        let mut list = lock(&self.list);
        if !list.peers.contains_key(realm) {
            return Err(AddPeerError::UnknownRealm);
        }
        list.check_draining()?;
        let peer = list.peers.get_mut(realm).ok_or(AddPeerError::UnknownRealm)?;
        if peer.connected {
            // If it waits for its next dial, that is now: whoever asks has a reason.
            peer.cancel_timer();
            self.dial(&mut list, realm);
            return Ok(());
        }
        let (realm, realm_id) = (peer.realm.clone(), peer.realm_id);
        self.check_revoked(&realm_id)?;
        list.enter(&self.identity, &realm, realm_id)?;
        list.last_generation += 1;
        let generation = list.last_generation;
        if let Some(peer) = list.peers.get_mut(&realm) {
            peer.start(generation);
        }
        self.dial(&mut list, &realm);
        Ok(())
    }

    /// Ends the session with a realm, dials it no more and lets it in no more, until [`Peers::connect`]. Nothing can be pushed
    /// from now on; the realm is told of it a moment later. False: there is no such peer.
    pub fn disconnect(self: &Arc<Peers>, realm: &str) -> bool {
        let mut list = lock(&self.list);
        self.leave(&mut list, realm)
    }

    /// The same, and forgets it.
    pub fn remove_peer(self: &Arc<Peers>, realm: &str) -> bool {
        let mut list = lock(&self.list);
        self.leave(&mut list, realm);
        list.peers.remove(realm).is_some()
    }

    /// Other settings for a peer; one that isn't on the list is put there. Its session stays if key and addresses do, otherwise
    /// it is ended and there will be another. One that is disconnected stays so.
    ///
    /// # Errors
    /// As [`Peers::add_peer`]; then everything is as before.
    pub fn update_peer(self: &Arc<Peers>, config: PeerConfig) -> Result<(), AddPeerError> {
        check_public_key(&config.key)?;
        let mut list = lock(&self.list);
        let Some(peer) = list.peers.get_mut(config.realm.as_str()) else {
            drop(list);
            return self.add_peer(config);
        };
        let another_key = peer.config.key != config.key;
        if !another_key && (peer.config.connect == config.connect || !peer.connected) {
            peer.config = Arc::new(config);
            for control in peer.surplus() {
                control.want(Wanted::Close(CloseCode::Duplicate));
            }
            let realm = peer.realm.clone();
            self.dial(&mut list, &realm);
            return Ok(());
        }
        // One whose key was revoked is taken up with another.
        let connected = peer.connected || (another_key && peer.revoked);
        self.check_revoked(&RealmId::of(&config.key))?;
        list.last_generation += 1;
        let mut peer = Peer::new(config, &self.identity.realm_id, list.last_generation, &self.limits);
        let realm = peer.realm.clone();
        list.check_key(&self.identity, &realm, &peer.realm_id)?;
        self.leave(&mut list, &realm);
        if connected {
            list.by_realm_id.insert(peer.realm_id, realm.clone());
        }
        peer.connected = connected;
        list.peers.insert(realm.clone(), peer);
        self.dial(&mut list, &realm);
        Ok(())
    }

    /// The settings of a peer.
    pub fn peer_config(&self, realm: &str) -> Option<Arc<PeerConfig>> {
        lock(&self.list).peers.get(realm).map(|peer| peer.config.clone())
    }

    /// All peers, by name.
    pub fn statuses(&self) -> Vec<PeerStatus> {
        let mut statuses: Vec<PeerStatus> = lock(&self.list).peers.values().map(Peer::status).collect();
        statuses.sort_by(|one, other| one.realm.cmp(&other.realm));
        statuses
    }

    pub fn status(&self, realm: &str) -> Option<PeerStatus> {
        lock(&self.list).peers.get(realm).map(Peer::status)
    }

    /// All sessions, up or lost.
    pub fn sessions(&self) -> Vec<Arc<PeerSession>> {
        lock(&self.list).peers.values().filter_map(Peer::session).cloned().collect()
    }

    /// All links that are up, each with its session.
    pub fn links(&self) -> Vec<(Arc<PeerSession>, LinkStatus)> {
        let list = lock(&self.list);
        let links = |peer: &Peer| {
            let session = peer.session().cloned();
            peer.links().into_iter().filter_map(move |link| Some((session.clone()?, link))).collect::<Vec<_>>()
        };
        list.peers.values().flat_map(links).collect()
    }

    pub fn counters(&self) -> &PeersCounters {
        &self.counters
    }

    /// Connections of all kinds, also those that are opening or closing.
    pub fn open_connections(&self) -> usize {
        lock(&self.connections).len()
    }
}

impl List {
    /// Whether another has the key.
    fn check_key(&self, own: &Identity, realm: &Arc<str>, realm_id: &RealmId) -> Result<(), AddPeerError> {
        if *realm_id == own.realm_id {
            return Err(AddPeerError::OwnKey);
        }
        match self.by_realm_id.get(realm_id) {
            Some(other) if other != realm => Err(AddPeerError::SameKey(other.to_string())),
            _ => Ok(()),
        }
    }

    /// From now on its key may connect.
    fn enter(&mut self, own: &Identity, realm: &Arc<str>, realm_id: RealmId) -> Result<(), AddPeerError> {
        self.check_key(own, realm, &realm_id)?;
        self.by_realm_id.insert(realm_id, realm.clone());
        Ok(())
    }

    fn check_draining(&self) -> Result<(), AddPeerError> {
        match self.draining {
            true => Err(AddPeerError::Draining),
            false => Ok(()),
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        self.peers.values_mut().for_each(Peer::cancel_timers);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under a lock ends the task that it happened in; what it left is consistent enough to go on with.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
