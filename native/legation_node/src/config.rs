//! The configuration of a daemon: one file, one realm.
//!
//! ```text
//!  Source (file, standard input) ─► Document (TOML, places) ─► sections ─► Config
//! ```
//!
//! Names, values and rules are those of `Legation.Options`; `packaging/legation.toml` shows all of them.

mod address;
mod document;
mod error;
mod limits;
pub(crate) mod names;
mod node;
mod parse;
mod peers;
mod secret_file;
pub(crate) mod signing;
mod source;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;

use legation_channel::channel::Profile;
use legation_proto::limits::{Limits as SessionLimits, Overflow};
use legation_proto::signing::{Mode, Modes};

pub use error::{io_words, ConfigError, Position, Problem};
pub use limits::MS_MAX;
pub use names::SOCKET_PATH_BYTES_MAX;
pub use parse::{parse, Places};
pub use source::{check_together, read_key, read_network_key, read_pem, Loaded, Source};

/// Everything a realm's daemon is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What this realm calls itself.
    pub realm: String,
    pub key: KeySource,
    pub network_key: Option<PathBuf>,
    /// Where it is written down which keys of peers have been replaced or revoked.
    pub state_dir: Option<PathBuf>,
    pub node: NodeConfig,
    pub listen: Vec<ListenConfig>,
    pub peers: Vec<PeerConfig>,
    pub import: Import,
    pub limits: Limits,
    /// Where `legation status` and the like connect to.
    pub control_socket: Option<PathBuf>,
    /// 1: everything on one thread.
    pub threads: usize,
}

impl Config {
    /// What of `new` can't be had without a restart. Peers, exports and what is allowed can.
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let differences = [
            ("realm", self.realm != new.realm),
            ("key", self.key != new.key),
            ("network_key", self.network_key != new.network_key),
            ("state_dir", self.state_dir != new.state_dir),
            ("control_socket", self.control_socket != new.control_socket),
            ("threads", self.threads != new.threads),
            ("import", self.import != new.import),
            ("node", self.node != new.node),
            ("listen", self.listen != new.listen),
            ("limits", self.limits != new.limits),
        ];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// Where the identity's private key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A PKCS#8 PEM.
    File(PathBuf),
    /// The Unix socket of a key agent.
    Agent(PathBuf),
}

/// Text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub zeroize::Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// The side towards the BEAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// `legation@127.0.0.1`.
    pub name: String,
    pub cookie: Secret,
    /// Where BEAM nodes may dial us; loopback unless said otherwise. Port 0: any.
    pub listen_ip: IpAddr,
    pub listen_port: u16,
    /// Register in EPMD, and look nodes up there.
    pub epmd: bool,
    pub epmd_port: u16,
    /// A process `legation_echo` that answers calls with their request: what the benchmark measures.
    pub echo: bool,
    /// BEAM nodes that we dial.
    pub connect: Vec<BeamAddress>,
    /// Whether the daemon itself registers names in `:global` (by calls to the node). Off where an Elixir side does it.
    pub register_global: bool,
    /// What names in `:global` end with, besides the realm.
    pub global_suffix: String,
    /// Atoms that may be sent to BEAM nodes though we have not seen them there.
    pub atoms: Vec<String>,
    pub handshake_ms: u64,
    /// We write at least this often.
    pub tick_ms: u64,
    /// A node that is silent for so long is gone.
    pub silence_ms: u64,
}

/// A BEAM node to dial. Without a port EPMD is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeamAddress {
    pub node: String,
    pub port: Option<u16>,
}

/// An address that peers dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// How `remove_listener` knows it; the address itself unless given.
    pub id: String,
    pub carrier: CarrierConfig,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CarrierConfig {
    /// `host` is the address to bind, or the host to dial.
    Tcp {
        host: String,
        port: u16,
        profile: Profile,
        send_timeout_ms: u64,
    },
    Unix {
        path: PathBuf,
        profile: Profile,
        uids: Uids,
        send_timeout_ms: u64,
    },
}

/// Which users may be at the other end of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uids {
    /// The one that we run as.
    Own,
    Any,
    These(Vec<u32>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// What we call this peer.
    pub realm: String,
    pub key: [u8; 32],
    pub connect: Vec<CarrierConfig>,
    pub export: Export,
    pub allow: Operations,
    /// Messages that are allowed so far are shown to the gate, which asks the filter.
    pub filter: bool,
    /// What it is told of why a process of ours has ended.
    pub reasons: Reasons,
    /// Links that are kept up at once, where we dial: 1 to [`LINKS_MAX`].
    pub links: u8,
    /// None: as for all.
    pub signing: Option<Mode>,
    pub accept_signing: Option<Modes>,
    pub limits: PeerLimits,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reasons {
    /// What crashed and how is nobody's business.
    #[default]
    Class,
    /// The reason itself.
    Full,
}

/// Links of one session, whoever dialled. More are no help: they go over the same few networks.
pub const LINKS_MAX: usize = 4;

impl PeerConfig {
    /// Of a session that begins.
    pub fn session_limits(&self, limits: &Limits) -> SessionLimits {
        let session = self.limits.of_session(&limits.session);
        SessionLimits {
            signing: self.signing.unwrap_or(session.signing),
            accept_signing: self.accept_signing.unwrap_or(session.accept_signing),
            ..session
        }
    }
}

/// What a peer has of its own in place of [`Limits`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerLimits {
    pub grace_ms: Option<u64>,
    pub resume_bytes_max: Option<usize>,
    pub queue_bytes_max: Option<usize>,
    pub engine_queue_bytes_max: Option<Option<usize>>,
    pub overflow: Option<Overflow>,
    /// Inner none: no bound.
    pub message_ttl_ms: Option<Option<u64>>,
}

impl PeerLimits {
    fn of_session(&self, limits: &SessionLimits) -> SessionLimits {
        SessionLimits {
            resume_bytes_max: self.resume_bytes_max.unwrap_or(limits.resume_bytes_max),
            queue_bytes_max: self.queue_bytes_max.unwrap_or(limits.queue_bytes_max),
            engine_queue_bytes_max: self.engine_queue_bytes_max.unwrap_or(limits.engine_queue_bytes_max),
            overflow: self.overflow.unwrap_or(limits.overflow),
            message_ttl_ms: self.message_ttl_ms.unwrap_or(limits.message_ttl_ms),
            identifiers: true,
            ..limits.clone()
        }
    }
}

/// Which of our engines a peer may know of and reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Export {
    All,
    These(Vec<ExportedEngine>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedEngine {
    pub name: String,
    /// Replaces the peer's.
    pub allow: Option<Operations>,
    pub filter: bool,
}

/// What may be done, as the bits of `protocol.md` 11.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations(pub u16);

impl Operations {
    pub const CALL: u16 = 1;
    pub const CAST: u16 = 2;
    pub const SEND: u16 = 4;
    /// Hear how a process has ended, and not only that it is gone.
    pub const MONITOR: u16 = 8;
    /// Have it hear of the ends of linked processes.
    pub const LINK: u16 = 16;
    /// `exit/2`.
    pub const EXIT: u16 = 32;
    pub const SYS: u16 = 64;
    pub const EVENT: u16 = 128;
    pub const DEFAULT: Operations = Operations(Self::CALL | Self::CAST | Self::SEND | Self::MONITOR);

    pub const NAMES: [(u16, &'static str); 8] = [
        (Self::CALL, "call"),
        (Self::CAST, "cast"),
        (Self::SEND, "send"),
        (Self::MONITOR, "monitor"),
        (Self::LINK, "link"),
        (Self::EXIT, "exit"),
        (Self::SYS, "sys"),
        (Self::EVENT, "event"),
    ];

    pub fn allows(self, operation: u16) -> bool {
        self.0 & operation != 0
    }
}

/// Which engines of others get a global name, and which a second, local name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Import {
    /// The first 1,000 that are learned.
    Default,
    All,
    None,
    /// `ping@bob`, and the name it is registered as besides.
    These(Vec<(String, Option<String>)>),
}

/// Every bound, named as in `Legation.Options`, and those of the BEAM's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub session: SessionLimits,
    /// Messages in an engine's mailbox above which it gets no more; asked of the gate.
    pub engine_queue_max: Option<u64>,
    /// How long a session without a link waits for another; 0: it ends with its last link.
    pub grace_ms: u64,
    /// How long an acknowledgement may wait for other frames to go with.
    pub ack_ms: u64,
    pub call_age_ms: u64,
    /// After this a pid of a peer's is forgotten that nobody has used, monitored or linked.
    pub handle_idle_ms: u64,
    pub pending_connections_max: usize,
    pub handshakes_max: usize,
    pub failed_handshakes_per_s: u32,
    pub knock_window_ms: u64,
    pub knock_boot_ms: u64,
    pub knock_entries_max: usize,
    /// For a connection, when dialling; the handshake comes after it.
    pub connect_ms: u64,
    /// Of a handshake at once; a further one in a quarter of a second.
    pub handshake_reads: u64,
    pub send_timeout_ms: u64,
    /// For what waits on a link that we leave, and the goodbye behind it.
    pub goodbye_ms: u64,
    pub shutdown_ms: u64,
    pub reconnect_min_ms: u64,
    pub reconnect_max_ms: u64,
    /// Bytes that may wait for one BEAM node.
    pub beam_queue_bytes_max: usize,
    /// BEAM nodes connected at once, and of those still in their handshake.
    pub beam_nodes_max: usize,
    pub beam_handshakes_max: usize,
    /// Fragmented messages of one node that are being put together, and their bytes.
    pub beam_fragmented_max: usize,
    pub beam_fragmented_bytes_max: usize,
    /// Monitors and links that BEAM processes may have on our processes, per node.
    pub beam_monitors_max: usize,
    /// Atoms of one node (and incarnation) that are remembered as known there.
    pub known_atoms_max: usize,
    /// Messages of one peer that wait until a node has said whether it knows their atoms, and their bytes.
    pub held_messages_max: usize,
    pub held_bytes_max: usize,
    pub control_connections_max: usize,
}
