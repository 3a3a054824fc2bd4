//! One address that peers can dial: the listening socket, who waits on it, and the places of those who have not yet
//! proven who they are (see [`super::admission`]). Limits are per listener.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::admission::Admission;
use super::carrier::{profile_name, CarrierError, Stream};
use super::{tcp, unix};
use crate::config::{CarrierConfig, Limits, ListenConfig};
use crate::peers::{lock, random, Peers};

/// What a listener is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What `listeners` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    pub id: String,
    /// `tcp`, `unix`.
    pub carrier: &'static str,
    /// `tls`, `local`, `plain`.
    pub profile: &'static str,
    /// With the port that was bound, also for port 0.
    pub address: BoundAddress,
    /// Connections before their knock, and those behind it whose session is not up.
    pub pending: usize,
    pub handshakes: usize,
}

pub(crate) struct Listener {
    id: String,
    pub(crate) config: CarrierConfig,
    address: BoundAddress,
    /// None once it is closed.
    socket: Mutex<Option<Socket>>,
    admission: Mutex<Admission>,
    acceptor: Mutex<Option<AbortHandle>>,
    started: Instant,
}

enum Socket {
    Tcp(TcpListener),
    Unix(unix::Listening),
}

impl Listener {
    /// Needs a runtime around it.
    pub(crate) fn bind(config: ListenConfig, limits: &Limits) -> Result<Listener, CarrierError> {
        config.carrier.check_profile()?;
        let (socket, address) = match &config.carrier {
            CarrierConfig::Tcp { host, port, .. } => {
                let socket = tcp::listen(host, *port)?;
                let address = socket.local_addr()?;
                (Socket::Tcp(socket), BoundAddress::Tcp(address))
            }
            CarrierConfig::Unix { path, uids, .. } => {
                (Socket::Unix(unix::listen(path, uids)?), BoundAddress::Unix(path.clone()))
            }
        };
        let admission =
            Admission::new(limits.pending_connections_max, limits.handshakes_max, limits.failed_handshakes_per_s);
        Ok(Listener {
            id: config.id,
            config: config.carrier,
            address,
            socket: Mutex::new(Some(socket)),
            admission: Mutex::new(admission),
            acceptor: Mutex::new(None),
            started: Instant::now(),
        })
    }

    pub(crate) fn info(&self) -> ListenerInfo {
        let admission = lock(&self.admission);
        ListenerInfo {
            id: self.id.clone(),
            carrier: self.config.name(),
            profile: profile_name(self.config.profile()),
            address: self.address.clone(),
            pending: admission.pending(),
            handshakes: admission.handshakes(),
        }
    }

    /// Has somebody wait for connections.
    pub(crate) fn start(self: &Arc<Listener>, peers: &Arc<Peers>) {
        let accepting = accept_all(self.clone(), peers.clone());
        *lock(&self.acceptor) = Some(peers.runtime.spawn(accepting).abort_handle());
    }

    /// Nobody is let in any more from now on. Connections that came in stay.
    pub(crate) fn close(&self) {
        if let Some(acceptor) = lock(&self.acceptor).take() {
            acceptor.abort();
        }
        drop(lock(&self.socket).take());
    }

    /// A connection's knock was accepted, or its first bytes were good. False: there is no place for it.
    pub(crate) fn knocked(&self, tag: u64) -> bool {
        lock(&self.admission).knocked(tag, self.now_s())
    }

    pub(crate) fn up(&self, tag: u64) {
        lock(&self.admission).up(tag, self.now_s());
    }

    pub(crate) fn ended(&self, tag: u64) {
        lock(&self.admission).ended(tag, self.now_s());
    }

    async fn accept(&self) -> io::Result<Stream> {
        poll_fn(|cx| match &*lock(&self.socket) {
            Some(Socket::Tcp(socket)) => socket.poll_accept(cx).map_ok(|(stream, _)| Stream::Tcp(stream)),
            Some(Socket::Unix(unix)) => unix.socket.poll_accept(cx).map_ok(|(stream, _)| Stream::Unix(stream)),
            // Closed: whoever did that has this task aborted.
            None => Poll::Pending,
        })
        .await
    }

    fn now_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

/// Each connection becomes a task of its own; what fails concerns that connection. An error of `accept` itself (no file
/// descriptors, say) is waited out.
async fn accept_all(listener: Arc<Listener>, peers: Arc<Peers>) {
    let (rest_min, rest_max) = tcp::ACCEPT_REST;
    let mut rest = rest_min;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                rest = rest_min;
                admit(&listener, &peers, stream);
            }
            // It was gone before we took it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                peers.counters.accept_errors.one();
                if let Some(held_back) = peers.accept_log.line(peers.now_ms()) {
                    tracing::error!(listener = %listener.id, %error, held_back, "a connection could not be accepted");
                }
                tokio::time::sleep(rest).await;
                rest = (2 * rest).min(rest_max);
            }
        }
    }
}

fn admit(listener: &Arc<Listener>, peers: &Arc<Peers>, stream: Stream) {
    let place = stream.label().place();
    let now_s = listener.now_s();
    let tag = peers.next_tag();
    let evicted = {
        let mut admission = lock(&listener.admission);
        if !admission.admits(&place, now_s) {
            peers.counters.connections_refused.one();
            return;
        }
        admission.opened(tag, place, random())
    };
    peers.counters.connections_accepted.one();
    if let Some(evicted) = evicted {
        peers.counters.connections_evicted.one();
        peers.evict(evicted);
    }
    if let Stream::Tcp(stream) = &stream {
        tcp::settle(stream);
    }
    peers.serve(tag, listener.clone(), stream);
}
