//! Connections to BEAM nodes: listening, dialling, EPMD, and what each connection is to the realm.
//!
//! ```text
//!  listener ──► accept ─┐                       ┌─ reader ──► BeamEvents
//!                       ├─► handshake ──► node ─┤
//!  connect  ──►  dial  ─┘     (decides) (nodes) └─ writer ◄── NodeLink
//! ```
//!
//! * There is one connection per node. When a node connects again, the old connection ends, and the new one is up when the old
//!   one's `node_down` is through.
//! * Reading never stops: a BEAM whose output isn't read suspends the processes that send.
//! * Our creation is settled before anybody can connect. It stays when EPMD comes back later and would give us another.
//! * What claims to be a node before it has shown that it knows the cookie changes nothing.

mod accept;
mod connection;
mod counters;
mod dial;
mod hand_over;
mod handshake;
mod linger;
mod link;
mod nodes;
mod pause;
mod refusals;

/// What [`hand_over`] is made of.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU8, Ordering};
    pub(super) use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
    pub(super) use tokio::sync::Notify;
}

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{watch, Semaphore};

use crate::config::{BeamAddress, Limits, NodeConfig};
use crate::dist::control::Control;
use crate::dist::flags;
use crate::dist::handshake::{InvalidName, LocalNode, NodeName};
use crate::dist::inbound::InboundConfig;
use crate::dist::outbound::OutboundConfig;

use super::epmd::{self, EpmdState, Registration, CREATION_MIN};

pub use crate::dist::outbound::Full;
pub use counters::BeamCounters;
pub use dial::ConnectError;
pub use link::{ConnectionEnd, NodeLink};
pub use nodes::{NodeState, NodeStatus};
pub(super) use pause::Pause;
pub use refusals::Refusal;

use counters::Counters;
use nodes::Nodes;
use refusals::Refusals;

/// What connections tell the realm. Called from their tasks; must not wait.
pub trait BeamEvents: Send + Sync {
    /// The handshake is through. Messages follow.
    fn node_up(&self, link: &Arc<NodeLink>);
    /// `payload`: see [`crate::dist::inbound::Incoming::Message`].
    fn message(&self, link: &Arc<NodeLink>, control: Control<'_>, payload: &mut [u8]);
    fn oversized(&self, link: &Arc<NodeLink>, control: Control<'_>, head: &mut [u8]);
    /// The connection is over. Nothing follows.
    fn node_down(&self, link: &Arc<NodeLink>);
}

/// A node that listens and does not accept yet.
pub struct Bound {
    listener: TcpListener,
    port: u16,
    settings: Settings,
    registration: Option<Registration>,
    epmd: watch::Sender<EpmdState>,
}

/// The node, running. Dropped, it is over at once; [`stop`](Beam::stop) lets what waits go out.
pub struct Beam {
    shared: Arc<Shared>,
    port: u16,
    epmd: watch::Receiver<EpmdState>,
}

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("{node:?}: {why}")]
    Name { node: String, why: InvalidName },
    #[error("node {peer} has a {} name, ours, {own}, hasn't", if peer.is_long() { "long" } else { "short" })]
    NameLength { own: NodeName, peer: NodeName },
    #[error("can't listen at {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// What all tasks of a node share.
struct Shared {
    settings: Settings,
    events: Arc<dyn BeamEvents>,
    nodes: Nodes,
    counters: Counters,
    refusals: Refusals,
    /// Handshakes of those that dial us.
    handshakes: Arc<Semaphore>,
    /// True: no more connections.
    stopping: watch::Sender<bool>,
    tasks: watch::Sender<usize>,
}

/// Fixed when the node starts.
struct Settings {
    local: LocalNode,
    connect: Vec<Address>,
    epmd_port: Option<u16>,
    handshake: Duration,
    tick: Duration,
    silence: Duration,
    shutdown: Duration,
    nodes_max: usize,
    handshakes_max: usize,
    outbound: OutboundBounds,
    inbound: InboundConfig,
}

#[derive(Clone, Copy)]
struct OutboundBounds {
    queue_bytes_max: usize,
}

/// A node to dial. Without a port EPMD is asked.
#[derive(Clone, Debug)]
struct Address {
    node: NodeName,
    port: Option<u16>,
}

impl Bound {
    /// Binds the listener, and settles name and creation: registers in EPMD, if there is to be one. Where it can't be reached we go
    /// on without, and register when it comes.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn new(config: &NodeConfig, limits: &Limits) -> Result<Bound, StartError> {
        let name = parse_name(&config.name)?;
        let connect = config.connect.iter().map(|address| parse_address(&name, address)).collect::<Result<_, _>>()?;
        let address = SocketAddr::new(config.listen_ip, config.listen_port);
        let listen = |error| StartError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let port = listener.local_addr().map_err(listen)?.port();
        let (registration, state) = register(config, &name, port).await;
        let creation = match &registration {
            Some(registration) if registration.creation >= CREATION_MIN => registration.creation,
            _ => random_creation()?,
        };
        let local = LocalNode { name, creation, flags: flags::OFFERED, cookie: config.cookie.0.clone() };
        let settings = Settings::new(config, limits, local, connect);
        Ok(Bound { listener, port, settings, registration, epmd: watch::Sender::new(state) })
    }

    pub fn node(&self) -> &NodeName {
        &self.settings.local.name
    }

    pub fn creation(&self) -> u32 {
        self.settings.local.creation
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Accepts and dials.
    pub fn start(self, events: Arc<dyn BeamEvents>) -> Beam {
        let Bound { listener, port, settings, registration, epmd } = self;
        let shared = Arc::new(Shared {
            nodes: Nodes::new(settings.local.name.clone(), settings.nodes_max),
            handshakes: Arc::new(Semaphore::new(settings.handshakes_max)),
            settings,
            events,
            counters: Counters::default(),
            refusals: Refusals::default(),
            stopping: watch::Sender::new(false),
            tasks: watch::Sender::new(0),
        });
        let receiver = epmd.subscribe();
        if let Some(epmd_port) = shared.settings.epmd_port {
            let name = shared.settings.local.name.clone();
            shared.spawn(async move { epmd::keep_registered(epmd_port, &name, port, registration, &epmd).await });
        }
        shared.spawn(accept::accept(shared.clone(), listener));
        for address in shared.settings.connect.clone() {
            shared.nodes.configure(&address.node);
            shared.spawn(dial::keep_connected(shared.clone(), address));
        }
        Beam { shared, port, epmd: receiver }
    }
}

impl Beam {
    /// [`Bound::new`] and [`Bound::start`].
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: &NodeConfig, limits: &Limits, events: Arc<dyn BeamEvents>) -> Result<Beam, StartError> {
        Ok(Bound::new(config, limits).await?.start(events))
    }

    pub fn node(&self) -> &NodeName {
        &self.shared.settings.local.name
    }

    pub fn creation(&self) -> u32 {
        self.shared.settings.local.creation
    }

    /// Where BEAM nodes dial us.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether EPMD knows us, now and whenever that changes.
    pub fn epmd(&self) -> watch::Receiver<EpmdState> {
        self.epmd.clone()
    }

    /// The connection to `node`: the one there is, or a new one. One attempt; nothing dials again when it ends, unless the
    /// configuration says so.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, node: &str) -> Result<Arc<NodeLink>, ConnectError> {
        dial::connect(&self.shared, NodeName::parse(node)?).await
    }

    /// Ends the connection to `node`. Where the configuration says so it is dialled again. False: there is none.
    pub fn disconnect(&self, node: &str) -> bool {
        let link = self.shared.nodes.current(node);
        link.inspect(|link| link.close()).is_some()
    }

    /// The nodes that are connected, being dialled, or to be dialled, by name.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        self.shared.nodes.status()
    }

    /// Who dialled us last and was not connected, and why.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.shared.refusals.read()
    }

    pub fn counters(&self) -> BeamCounters {
        let handshakes = self.shared.settings.handshakes_max - self.shared.handshakes.available_permits();
        self.shared.counters.read(self.shared.nodes.connected(), handshakes)
    }

    /// No more connections. What waits for nodes is written, for as long as a shutdown may take; then all is closed.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        self.shared.nodes.for_each_link(|link| link.drain());
        let mut tasks = self.shared.tasks.subscribe();
        if tokio::time::timeout(self.shared.settings.shutdown, tasks.wait_for(|count| *count == 0)).await.is_err() {
            self.shared.nodes.for_each_link(|link| link.close());
            // Each has been told; nothing that it waits for is out of our hands.
            let _ = tasks.wait_for(|count| *count == 0).await;
        }
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        self.shared.stopping.send_replace(true);
        self.shared.nodes.for_each_link(|link| link.close());
    }
}

impl Shared {
    /// A task that ends where it stands when the node stops.
    fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let mut stopping = self.stopping.subscribe();
        self.spawn_to_the_end(async move {
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => {}
                () = task => {}
            }
        });
    }

    /// A task that the end of its connection ends.
    fn spawn_to_the_end(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let running = Running::new(self.tasks.clone());
        tokio::spawn(async move {
            let _running = running;
            task.await;
        });
    }
}

/// Counts as a task until it is dropped.
struct Running(watch::Sender<usize>);

impl Running {
    fn new(tasks: watch::Sender<usize>) -> Running {
        tasks.send_modify(|count| *count += 1);
        Running(tasks)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A message of a BEAM node is the payload and what is around it: `{'$gen_call', {Pid, Tag}, Payload}`. Which payload is too
/// large is the session's to say.
pub const ENVELOPE_BYTES: usize = 64 * 1024;

impl Settings {
    fn new(config: &NodeConfig, limits: &Limits, local: LocalNode, connect: Vec<Address>) -> Settings {
        Settings {
            local,
            connect,
            epmd_port: config.epmd.then_some(config.epmd_port),
            handshake: duration(config.handshake_ms),
            tick: duration(config.tick_ms),
            silence: duration(config.silence_ms),
            shutdown: duration(limits.shutdown_ms),
            nodes_max: limits.beam_nodes_max,
            handshakes_max: limits.beam_handshakes_max.min(Semaphore::MAX_PERMITS),
            outbound: OutboundBounds { queue_bytes_max: limits.beam_queue_bytes_max },
            inbound: InboundConfig {
                header: false,
                message_bytes_max: (limits.session.message_bytes_max as usize).saturating_add(ENVELOPE_BYTES),
                fragmented_max: limits.beam_fragmented_max,
                fragmented_bytes_max: limits.beam_fragmented_bytes_max,
            },
        }
    }

    fn inbound(&self, flags: u64) -> InboundConfig {
        InboundConfig { header: flags::framed_with_header(self.local.flags, flags), ..self.inbound }
    }

    fn outbound(&self, flags: u64) -> OutboundConfig {
        OutboundConfig {
            header: flags::framed_with_header(self.local.flags, flags),
            queue_bytes_max: self.outbound.queue_bytes_max,
        }
    }
}

/// No timer runs for ever, nor for no time at all.
fn duration(ms: u64) -> Duration {
    Duration::from_millis(ms.clamp(1, 365 * 24 * 60 * 60 * 1_000))
}

fn parse_name(node: &str) -> Result<NodeName, StartError> {
    NodeName::parse(node).map_err(|why| StartError::Name { node: node.to_string(), why })
}

fn parse_address(own: &NodeName, address: &BeamAddress) -> Result<Address, StartError> {
    let node = parse_name(&address.node)?;
    if node.is_long() != own.is_long() {
        return Err(StartError::NameLength { own: own.clone(), peer: node });
    }
    Ok(Address { node, port: address.port })
}

async fn register(config: &NodeConfig, name: &NodeName, port: u16) -> (Option<Registration>, EpmdState) {
    if !config.epmd {
        return (None, EpmdState::Off);
    }
    match epmd::register(config.epmd_port, name, port).await {
        Ok(registration) => (Some(registration), EpmdState::Registered),
        Err(error) => {
            tracing::warn!(node = %name, %error, "not registered in EPMD; trying again");
            (None, EpmdState::Unregistered(error))
        }
    }
}

fn random_creation() -> Result<u32, StartError> {
    loop {
        let creation = getrandom::u32().map_err(StartError::Random)?;
        if creation >= CREATION_MIN {
            return Ok(creation);
        }
    }
}
