//! Carriers: byte pipes between two realms, over tcp or a Unix socket.
//!
//! ```text
//!  connect, accept ──► Stream ── check_peer ──► (ReadHalf, WriteHalf)
//! ```
//!
//! A carrier knows who is at the other end only as far as the system tells; the rest is the handshake's business.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{tcp as tokio_tcp, unix as tokio_unix, TcpStream, UnixStream};

use legation_channel::channel::Profile;

use super::{tcp, unix};
use crate::config::CarrierConfig;

/// Why a carrier did not come about, or broke. As text it begins with the word that Elixir has for it (`econnrefused`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    #[error("{0}")]
    System(&'static str),
    #[error("uid_not_allowed {0}")]
    UidNotAllowed(u32),
}

impl CarrierError {
    pub const TIMEOUT: CarrierError = CarrierError::System("timeout");
    pub const CLOSED: CarrierError = CarrierError::System("closed");
    pub const UNKNOWN_NAME: CarrierError = CarrierError::System("nxdomain");
    pub const INVALID: CarrierError = CarrierError::System("einval");

    /// Of a connection that stood: that the other end has gone shows in several ways.
    pub fn broken(error: &io::Error) -> CarrierError {
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected => CarrierError::CLOSED,
            _ => error.into(),
        }
    }
}

impl From<&io::Error> for CarrierError {
    fn from(error: &io::Error) -> CarrierError {
        use io::ErrorKind;
        CarrierError::System(match error.kind() {
            ErrorKind::ConnectionRefused => "econnrefused",
            ErrorKind::ConnectionReset => "econnreset",
            ErrorKind::ConnectionAborted => "econnaborted",
            ErrorKind::NotConnected => "enotconn",
            ErrorKind::AddrInUse => "eaddrinuse",
            ErrorKind::AddrNotAvailable => "eaddrnotavail",
            ErrorKind::HostUnreachable => "ehostunreach",
            ErrorKind::NetworkUnreachable => "enetunreach",
            ErrorKind::NetworkDown => "enetdown",
            ErrorKind::BrokenPipe => "epipe",
            ErrorKind::TimedOut => "etimedout",
            ErrorKind::NotFound => "enoent",
            ErrorKind::PermissionDenied => "eacces",
            ErrorKind::AlreadyExists => "eexist",
            ErrorKind::NotADirectory => "enotdir",
            ErrorKind::ReadOnlyFilesystem => "erofs",
            ErrorKind::StorageFull => "enospc",
            ErrorKind::OutOfMemory => "enomem",
            ErrorKind::InvalidInput => "einval",
            ErrorKind::WouldBlock => "eagain",
            _ => match error.raw_os_error() {
                Some(23) => "enfile",
                Some(24) => "emfile",
                _ => "io",
            },
        })
    }
}

impl From<io::Error> for CarrierError {
    fn from(error: io::Error) -> CarrierError {
        CarrierError::from(&error)
    }
}

/// Who is at the other end, as far as the carrier knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    Address(SocketAddr),
    Uid(u32),
    /// It has gone, or the system doesn't tell.
    Unknown,
}

impl Label {
    /// Whose places it takes: of an address the port doesn't count.
    pub fn place(&self) -> Place {
        match self {
            Label::Address(address) => Place::Ip(address.ip().to_canonical()),
            Label::Uid(uid) => Place::Uid(*uid),
            Label::Unknown => Place::Unknown,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Address(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(formatter),
            Label::Uid(uid) => write!(formatter, "uid {uid}"),
            Label::Unknown => formatter.write_str("unknown"),
        }
    }
}

/// By what places for those who have not proven who they are are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Ip(IpAddr),
    Uid(u32),
    Unknown,
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Dials.
    ///
    /// # Errors
    /// What the system says, `nxdomain`, or `timeout` after so long.
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing behind but a look-up of a name, which ends by itself.
    pub async fn connect(config: &CarrierConfig, timeout: Duration) -> Result<Stream, CarrierError> {
        let connecting = async {
            match config {
                CarrierConfig::Tcp { host, port, .. } => tcp::connect(host, *port).await.map(Stream::Tcp),
                CarrierConfig::Unix { path, .. } => Ok(UnixStream::connect(path).await.map(Stream::Unix)?),
            }
        };
        tokio::time::timeout(timeout, connecting).await.unwrap_or(Err(CarrierError::TIMEOUT))
    }

    pub fn label(&self) -> Label {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().map_or(Label::Unknown, Label::Address),
            Stream::Unix(stream) => unix::peer_uid(stream).map_or(Label::Unknown, Label::Uid),
        }
    }

    /// Asked before anything else is done with a connection, at both ends.
    ///
    /// # Errors
    /// [`CarrierError::UidNotAllowed`], `no_peer_credentials`.
    pub fn check_peer(&self, config: &CarrierConfig) -> Result<(), CarrierError> {
        match (self, config) {
            (Stream::Unix(stream), CarrierConfig::Unix { uids, .. }) => unix::check_peer(stream, uids),
            // Anybody: that is for the handshake to find out.
            _ => Ok(()),
        }
    }

    pub fn into_halves(self) -> (ReadHalf, WriteHalf) {
        match self {
            Stream::Tcp(stream) => {
                let (reading, writing) = stream.into_split();
                (ReadHalf::Tcp(reading), WriteHalf::Tcp(writing))
            }
            Stream::Unix(stream) => {
                let (reading, writing) = stream.into_split();
                (ReadHalf::Unix(reading), WriteHalf::Unix(writing))
            }
        }
    }
}

#[derive(Debug)]
pub enum ReadHalf {
    Tcp(tokio_tcp::OwnedReadHalf),
    Unix(tokio_unix::OwnedReadHalf),
}

impl ReadHalf {
    /// When this is closed what was sent and has not left is thrown away, because the other end takes nothing.
    pub fn abort(&self) {
        let lingering = match self {
            ReadHalf::Tcp(half) => SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO)),
            // Nothing lingers in a Unix socket.
            ReadHalf::Unix(_) => Ok(()),
        };
        if let Err(error) = lingering {
            tracing::debug!(%error, "a stuck connection could not be told not to linger");
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ReadHalf::Tcp(half) => Pin::new(half).poll_read(cx, buffer),
            ReadHalf::Unix(half) => Pin::new(half).poll_read(cx, buffer),
        }
    }
}

/// Dropped, it tells the other end that nothing more comes.
#[derive(Debug)]
pub enum WriteHalf {
    Tcp(tokio_tcp::OwnedWriteHalf),
    Unix(tokio_unix::OwnedWriteHalf),
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            WriteHalf::Tcp(half) => Pin::new(half).poll_write(cx, bytes),
            WriteHalf::Unix(half) => Pin::new(half).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets hold nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteHalf::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            WriteHalf::Unix(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}

impl CarrierConfig {
    /// `tcp`, `unix`.
    pub fn name(&self) -> &'static str {
        match self {
            CarrierConfig::Tcp { .. } => "tcp",
            CarrierConfig::Unix { .. } => "unix",
        }
    }

    pub fn profile(&self) -> Profile {
        match self {
            CarrierConfig::Tcp { profile, .. } | CarrierConfig::Unix { profile, .. } => *profile,
        }
    }

    /// How long a peer may take nothing of what we send.
    pub fn send_timeout(&self) -> Duration {
        match self {
            CarrierConfig::Tcp { send_timeout_ms, .. } | CarrierConfig::Unix { send_timeout_ms, .. } => {
                Duration::from_millis(*send_timeout_ms)
            }
        }
    }

    /// Whether strangers can reach it, so that the initiator must knock first (`protocol.md` 4).
    pub fn knock(&self) -> bool {
        matches!(self, CarrierConfig::Tcp { .. })
    }

    /// Only where the operating system vouches for the other end are bytes left as they are.
    pub fn check_profile(&self) -> Result<(), CarrierError> {
        match self {
            CarrierConfig::Tcp { profile: Profile::Local, .. } => Err(CarrierError::INVALID),
            _ => Ok(()),
        }
    }
}

/// `tls`, `local`, `plain`.
pub fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Tls => "tls",
        Profile::Local => "local",
        Profile::Plain => "plain",
    }
}
