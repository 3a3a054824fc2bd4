//! Realms over real sockets, and a client that goes as far as a test wants it to.

#![allow(dead_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use legation_channel::channel::Profile;
use legation_node::config::{
    CarrierConfig, Export, Limits, ListenConfig, Operations, PeerConfig, PeerLimits, Reasons, Uids,
};
use legation_node::identity::Identity;
use legation_node::peers::{
    BoundAddress, LinkEnd, ListenerInfo, PeerSession, PeerState, PeerStatus, Peers, SessionEvents,
};
use legation_proto::frame::cert::Cert;
use legation_proto::frame::FrameType;
use legation_proto::identity::{NetworkKey, Purpose};
use legation_proto::keyring::Keyring;
use legation_proto::session::{Delivery, Destination, Event, Exported, NewCall, PushError};
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

pub mod client;
pub mod proxy;

/// Longer than anything here takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn network() -> NetworkKey {
    NetworkKey::new([9; 32])
}

/// The realm number `seed`: the same identity each time, and a link key of this start.
pub fn identity(seed: u8) -> Identity {
    identity_in(seed, network())
}

pub fn identity_in(seed: u8, network: NetworkKey) -> Identity {
    let mut online_seed = [0; 32];
    getrandom::fill(&mut online_seed).unwrap();
    Identity::of_keyring(Keyring::new(&[seed; 32], &online_seed), network).unwrap()
}

pub fn key_of(seed: u8) -> [u8; 32] {
    *Keyring::new(&[seed; 32], &[0; 32]).public()
}

/// Quick to come back, and patient with failures: a test that is about a bound sets it. A session ends with its link; those
/// about the opposite have [`limits_with_grace`].
pub fn limits() -> Limits {
    Limits { grace_ms: 0, ..limits_with_grace() }
}

pub fn limits_with_grace() -> Limits {
    Limits {
        failed_handshakes_per_s: 1_000_000,
        knock_boot_ms: 0,
        reconnect_min_ms: 5,
        reconnect_max_ms: 100,
        ..Limits::default()
    }
}

/// What a realm has heard of its peers.
#[derive(Debug)]
pub enum Heard {
    Up(Arc<PeerSession>),
    Deliver { from: Arc<str>, destination: String, payload: Vec<u8> },
    Call { session: Arc<PeerSession>, call_id: u64, payload: Vec<u8> },
    Reply { context: Vec<u8>, payload: Vec<u8> },
    Refused { context: Vec<u8> },
    Other(String),
    Lost { session: Arc<PeerSession>, why: LinkEnd },
    Resumed(Arc<PeerSession>),
    Room(Vec<u64>),
    Ended { session: Arc<PeerSession>, why: LinkEnd },
}

/// Announces the online key, and writes down what comes.
struct Recorder {
    certificate: Vec<u8>,
    heard: UnboundedSender<Heard>,
    /// Deliveries are counted and no more.
    counting: AtomicBool,
    delivered: AtomicUsize,
    /// Tags of sessions that are up, to see that everything comes in order.
    up: Mutex<Vec<u64>>,
}

impl SessionEvents for Recorder {
    fn session_up(&self, session: &Arc<PeerSession>) {
        self.up.lock().unwrap().push(session.tag);
        if session.core.announce(FrameType::Cert, &self.certificate) {
            session.wake();
        }
        self.tell(Heard::Up(session.clone()));
    }

    fn session_event(&self, session: &Arc<PeerSession>, event: Event<'_>) -> bool {
        assert!(self.up.lock().unwrap().contains(&session.tag), "an event outside of its session's life");
        self.tell(match event {
            Event::Deliver { destination: Destination::Engine(destination), payload, .. } => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                if self.counting.load(Ordering::Relaxed) {
                    return false;
                }
                assert_ne!(destination, "crash", "as the test wants it");
                let (destination, payload) = (destination.to_owned(), payload.to_vec());
                Heard::Deliver { from: session.realm.clone(), destination, payload }
            }
            Event::Call { call_id, payload, .. } => {
                Heard::Call { session: session.clone(), call_id, payload: payload.to_vec() }
            }
            Event::Reply { context, payload, .. } => {
                Heard::Reply { context: context.to_vec(), payload: payload.to_vec() }
            }
            Event::Refused { context, .. } => Heard::Refused { context: context.to_vec() },
            other => Heard::Other(format!("{other:?}")),
        });
        false
    }

    /// All that has come is worked off.
    fn session_delivered(&self, session: &Arc<PeerSession>) {
        let mut due = Vec::new();
        session.core.debts(|destination, _| due.push(destination.to_owned()));
        for destination in due {
            if session.core.grant(&destination, 0) {
                session.wake();
            }
        }
    }

    fn session_room(&self, _session: &Arc<PeerSession>, tokens: Vec<u64>) {
        self.tell(Heard::Room(tokens));
    }

    fn session_exported(&self, _session: &Arc<PeerSession>, _exported: &[Exported]) {}

    fn session_lost(&self, session: &Arc<PeerSession>, why: &LinkEnd) {
        assert!(self.up.lock().unwrap().contains(&session.tag), "only what is up is lost");
        self.tell(Heard::Lost { session: session.clone(), why: why.clone() });
    }

    fn session_resumed(&self, session: &Arc<PeerSession>) {
        assert!(self.up.lock().unwrap().contains(&session.tag), "only what is up is resumed");
        self.tell(Heard::Resumed(session.clone()));
    }

    fn session_ended(&self, session: &Arc<PeerSession>, why: &LinkEnd) {
        let mut up = self.up.lock().unwrap();
        let index = up.iter().position(|tag| *tag == session.tag).expect("only what is up ends, and once");
        up.remove(index);
        assert!(session.has_ended());
        self.tell(Heard::Ended { session: session.clone(), why: why.clone() });
    }
}

impl Recorder {
    fn tell(&self, heard: Heard) {
        // Nobody listens any more when a test is over.
        let _ = self.heard.send(heard);
    }
}

/// A running realm.
pub struct Realm {
    pub peers: Arc<Peers>,
    pub identity: Identity,
    recorder: Arc<Recorder>,
    heard: UnboundedReceiver<Heard>,
}

impl Realm {
    pub fn start(seed: u8) -> Realm {
        Realm::with(identity(seed), limits())
    }

    pub fn with(identity: Identity, limits: Limits) -> Realm {
        let certificate = signed_certificate(&identity);
        Realm::certified(identity, limits, certificate)
    }

    /// One whose key is with an agent.
    pub async fn with_agent(identity: Identity, limits: Limits) -> Realm {
        let mut certificate = certificate(&identity);
        certificate.extend_from_slice(&identity.signer.sign(&identity, Purpose::Cert, &certificate).await.unwrap());
        Realm::certified(identity, limits, certificate)
    }

    fn certified(identity: Identity, limits: Limits, certificate: Vec<u8>) -> Realm {
        let (sender, heard) = unbounded_channel();
        let recorder = Arc::new(Recorder {
            certificate,
            heard: sender,
            counting: AtomicBool::new(false),
            delivered: AtomicUsize::new(0),
            up: Mutex::default(),
        });
        Realm { peers: Peers::new(identity.clone(), limits, recorder.clone()), identity, recorder, heard }
    }

    /// Listens on any port of loopback.
    pub fn listen_tcp(&self, profile: Profile) -> SocketAddr {
        let info = self.peers.listen(ListenConfig { id: "tcp".into(), carrier: tcp("127.0.0.1", 0, profile) });
        tcp_address(&info.unwrap())
    }

    pub fn listen_unix(&self, uids: Uids) -> PathBuf {
        let path = socket_path();
        self.peers.listen(ListenConfig { id: "unix".into(), carrier: unix(&path, uids) }).unwrap();
        path
    }

    /// The other realm may come.
    pub fn expect(&self, realm: &str, seed: u8) {
        self.peers.add_peer(peer(realm, seed, vec![])).unwrap();
    }

    pub fn dial(&self, realm: &str, seed: u8, address: CarrierConfig) {
        self.peers.add_peer(peer(realm, seed, vec![address])).unwrap();
    }

    pub async fn heard(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("nothing was heard").expect("the recorder is there")
    }

    /// What was heard until now.
    pub fn heard_so_far(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }

    /// The next session that is up; what comes before it is forgotten.
    pub async fn up(&mut self) -> Arc<PeerSession> {
        loop {
            if let Heard::Up(session) = self.heard().await {
                return session;
            }
        }
    }

    pub async fn lost(&mut self) -> (Arc<PeerSession>, LinkEnd) {
        loop {
            match self.heard().await {
                Heard::Lost { session, why } => return (session, why),
                Heard::Ended { why, .. } => panic!("it has ended: {why:?}"),
                _ => {}
            }
        }
    }

    pub async fn resumed(&mut self) -> Arc<PeerSession> {
        loop {
            match self.heard().await {
                Heard::Resumed(session) => return session,
                Heard::Ended { why, .. } => panic!("it has ended: {why:?}"),
                _ => {}
            }
        }
    }

    pub async fn ended(&mut self) -> (Arc<PeerSession>, LinkEnd) {
        loop {
            if let Heard::Ended { session, why } = self.heard().await {
                return (session, why);
            }
        }
    }

    pub async fn delivery(&mut self) -> (String, Vec<u8>) {
        loop {
            if let Heard::Deliver { destination, payload, .. } = self.heard().await {
                return (destination, payload);
            }
        }
    }

    /// Deliveries are counted from now on, and no longer written down.
    pub fn count_deliveries(&self) {
        self.recorder.counting.store(true, Ordering::Relaxed);
    }

    pub fn delivered(&self) -> usize {
        self.recorder.delivered.load(Ordering::Relaxed)
    }

    pub fn counter(&self, name: &str) -> u64 {
        let all = self.peers.counters().all();
        all.iter().find(|(counter, _)| *counter == name).expect("there is such a counter").1
    }

    pub fn status(&self, realm: &str) -> PeerStatus {
        self.peers.status(realm).expect("the peer is on the list")
    }

    pub fn state(&self, realm: &str) -> PeerState {
        self.status(realm).state
    }

    /// How the last dial ended, once one has.
    pub async fn dial_error(&self, realm: &str) -> LinkEnd {
        let mut error = None;
        until(|| {
            error = self.status(realm).last_error;
            error.is_some()
        })
        .await;
        error.unwrap()
    }

    /// Places taken in a listener: before the knock, and behind it.
    pub fn places(&self) -> (usize, usize) {
        let listeners = self.peers.listeners();
        (listeners.iter().map(|one| one.pending).sum(), listeners.iter().map(|one| one.handshakes).sum())
    }

    pub async fn stop(self) {
        self.peers.shutdown(PATIENCE).await;
        assert_eq!(self.peers.open_connections(), 0);
    }
}

/// Of the online key, unsigned.
/// Of the key that a realm with its key at hand signs messages with.
pub fn signed_certificate(identity: &Identity) -> Vec<u8> {
    let mut certificate = certificate(identity);
    let signature = identity.keyring.sign(Purpose::Cert, &identity.network.id(), &certificate).unwrap();
    certificate.extend_from_slice(&signature);
    certificate
}

fn certificate(identity: &Identity) -> Vec<u8> {
    let now = now_ms();
    let cert = Cert {
        realm: identity.realm_id,
        key: identity.keyring.online_public(),
        not_before: now,
        not_after: now + 20 * 60 * 60 * 1000,
        serial: now,
    };
    cert.body()
}

pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap().as_millis()).unwrap()
}

/// A cast by the realm itself.
pub fn cast(session: &PeerSession, destination: &str, payload: &[u8]) -> Result<(), PushError> {
    if session.core.push(Delivery::Cast, "", destination, payload, false)?.wake {
        session.wake();
    }
    Ok(())
}

pub fn call(session: &PeerSession, destination: &str, context: &[u8]) {
    let call =
        NewCall { destination, label: 1, source: "", caller: b"caller", context, payload: &binary_term(b"question") };
    if session.core.push_call(session.status().since_ms, &call).unwrap().wake {
        session.wake();
    }
}

pub fn reply(session: &PeerSession, call_id: u64) {
    if session.core.reply(call_id, &binary_term(b"answer")).unwrap().wake {
        session.wake();
    }
}

/// External term format of a binary.
pub fn binary_term(bytes: &[u8]) -> Vec<u8> {
    let mut term = vec![131, 109];
    term.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
    term.extend_from_slice(bytes);
    term
}

/// Asks until it is so.
pub async fn until(mut question: impl FnMut() -> bool) {
    let asking = async {
        while !question() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, asking).await.expect("it never came to that");
}

/// `from` dials `to`, and the sessions that are up at both ends.
pub async fn link(from: &mut Realm, to: &mut Realm, carrier: CarrierConfig) -> (Arc<PeerSession>, Arc<PeerSession>) {
    let (from_key, to_key) = (from.identity.key, to.identity.key);
    to.peers.add_peer(PeerConfig { key: from_key, ..peer("bob", 0, vec![]) }).unwrap();
    from.peers.add_peer(PeerConfig { key: to_key, ..peer("alice", 0, vec![carrier]) }).unwrap();
    (from.up().await, to.up().await)
}

pub fn peer(realm: &str, seed: u8, connect: Vec<CarrierConfig>) -> PeerConfig {
    PeerConfig {
        realm: realm.into(),
        key: key_of(seed),
        connect,
        export: Export::All,
        allow: Operations::DEFAULT,
        filter: false,
        reasons: Reasons::Class,
        links: 1,
        signing: None,
        accept_signing: None,
        limits: PeerLimits::default(),
    }
}

pub fn tcp(host: &str, port: u16, profile: Profile) -> CarrierConfig {
    CarrierConfig::Tcp { host: host.into(), port, profile, send_timeout_ms: 15_000 }
}

pub fn at(address: SocketAddr, profile: Profile) -> CarrierConfig {
    tcp(&address.ip().to_string(), address.port(), profile)
}

pub fn unix(path: &std::path::Path, uids: Uids) -> CarrierConfig {
    CarrierConfig::Unix { path: path.into(), profile: Profile::Local, uids, send_timeout_ms: 15_000 }
}

pub fn tcp_address(info: &ListenerInfo) -> SocketAddr {
    match &info.address {
        BoundAddress::Tcp(address) => *address,
        BoundAddress::Unix(path) => panic!("not a tcp listener: {}", path.display()),
    }
}

/// Short enough for a socket, and nobody else's.
pub fn socket_path() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("legation-{}-{number}.sock", std::process::id()))
}

/// An address of loopback on which nobody listens.
pub fn nowhere() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
