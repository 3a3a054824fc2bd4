//! The carrier `tcp`, over IPv4 and IPv6.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::carrier::CarrierError;

/// Connections that the system takes while we are busy.
pub(super) const BACKLOG: i32 = 1_024;

/// Dials. A host's name is looked up each time; its IPv4 addresses are tried first, then those of IPv6.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, CarrierError> {
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => {
            let found = tokio::net::lookup_host((host, port)).await.map_err(|_| CarrierError::UNKNOWN_NAME)?;
            let mut addresses: Vec<SocketAddr> = found.collect();
            addresses.sort_by_key(SocketAddr::is_ipv6);
            addresses
        }
    };
    let mut first_error = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                settle(&stream);
                return Ok(stream);
            }
            Err(error) => drop(first_error.get_or_insert(CarrierError::from(error))),
        }
    }
    Err(first_error.unwrap_or(CarrierError::UNKNOWN_NAME))
}

/// Binds. `host` is an address, or nothing for all of this machine's IPv4. Needs a runtime around it.
pub fn listen(host: &str, port: u16) -> Result<TcpListener, CarrierError> {
    let ip = match host {
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        host => host.parse().map_err(|_| CarrierError::INVALID)?,
    };
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into())?)
}

/// What every connection of this carrier has. The kernel's buffers are left to its own tuning: a fixed size would bound
/// what a long link carries.
pub fn settle(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let set = socket.set_tcp_nodelay(true).and(socket.set_keepalive(true)).and(bound_unsent(&socket));
    // It has gone already: reading will say so.
    if let Err(error) = set {
        tracing::debug!(%error, "a connection's options could not be set");
    }
}

/// What the kernel takes and has not sent yet: small messages wait behind it, whatever the session would let overtake.
/// What is on its way is not counted, so a long link is as fast as before.
const UNSENT_BYTES_MAX: u32 = 256 * 1024;

#[cfg(any(target_os = "android", target_os = "linux"))]
fn bound_unsent(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
fn bound_unsent(_: &SockRef<'_>) -> io::Result<()> {
    Ok(())
}

/// How long the acceptor rests after an error of `accept` (no file descriptors, say): at first, and at most.
pub(super) const ACCEPT_REST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1_000));
