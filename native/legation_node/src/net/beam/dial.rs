//! Those whom we dial.

use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::dist::handshake::{Handshake, HandshakeError, InvalidName, NodeName, Verdict};
use crate::net::epmd::{self, EpmdError};

use super::connection;
use super::counters::count;
use super::handshake;
use super::link::NodeLink;
use super::nodes::{Begin, DialTicket, News};
use super::pause::Pause;
use super::{Address, Shared};

/// Why there is no connection to a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    #[error("{0}")]
    Name(#[from] InvalidName),
    #[error("{0}")]
    Epmd(#[from] EpmdError),
    #[error("{0}")]
    Io(String),
    #[error("the handshake took too long")]
    TimedOut,
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("as many nodes are connected as may be")]
    NodesFull,
    #[error("as many handshakes are under way as may be")]
    HandshakesFull,
    /// The node dialled us at the same time, and its attempt goes on.
    #[error("the node connects to us instead")]
    Superseded,
    #[error("the connection ended at once")]
    Ended,
    #[error("the node is stopping")]
    Stopping,
}

impl ConnectError {
    /// Nothing is wrong: the two nodes tried at once, and another attempt than this one goes on.
    pub fn is_harmless(&self) -> bool {
        use HandshakeError::{Busy, Connected, Refused};
        matches!(
            self,
            ConnectError::Superseded | ConnectError::Handshake(Busy | Connected | Refused(Verdict::Nok))
        )
    }

    pub fn is_cookie(&self) -> bool {
        use HandshakeError::{Cookie, CookieRefused};
        matches!(self, ConnectError::Handshake(Cookie | CookieRefused))
    }
}

/// Dials a node again and again, whenever it isn't connected.
pub(super) async fn keep_connected(shared: Arc<Shared>, address: Address) {
    let mut pause = Pause::default();
    let mut news = shared.nodes.subscribe(&address.node);
    let mut reported = None;
    loop {
        // Of a node that is configured there is always news.
        if news.wait_for(|news| news.up.is_none()).await.is_err() {
            return;
        }
        match dial(&shared, &address).await {
            Ok(()) => {
                reported = None;
                let since = Instant::now();
                // It may be over already.
                let _ = tokio::time::timeout(shared.settings.handshake, news.wait_for(|news| news.up.is_some())).await;
                let _ = news.wait_for(|news| news.up.is_none()).await;
                if since.elapsed() >= Pause::PROVEN {
                    pause = Pause::default();
                }
            }
            Err(error) if error.is_harmless() => {}
            Err(error) if reported.as_ref() == Some(&error) => {
                tracing::debug!(node = %address.node, %error, "still not connected");
            }
            Err(error) => {
                tracing::warn!(node = %address.node, %error, "not connected; trying again");
                reported = Some(error);
            }
        }
        pause.wait().await;
    }
}

/// One attempt, unless there is a connection or an attempt.
pub(super) async fn connect(shared: &Arc<Shared>, node: NodeName) -> Result<Arc<NodeLink>, ConnectError> {
    if *shared.stopping.borrow() {
        return Err(ConnectError::Stopping);
    }
    let known = shared.settings.connect.iter().find(|address| address.node == node);
    let address = known.cloned().unwrap_or(Address { node: node.clone(), port: None });
    let mut news = shared.nodes.subscribe(&node);
    let dials = news.borrow().dials;
    match shared.nodes.begin_dial(&node)? {
        Begin::Up(_) | Begin::Ongoing => {}
        Begin::Begun(ticket) => {
            let ticket = Ticket { shared: shared.clone(), ticket, error: Some(ConnectError::Stopping) };
            match shared.handshakes.clone().try_acquire_owned() {
                Ok(permit) => {
                    let task = shared.clone();
                    shared.spawn(async move {
                        let _ = attempt(&task, &address, ticket).await;
                        drop(permit);
                    });
                }
                Err(_) => {
                    count(&shared.counters.handshakes_refused);
                    return Err(ticket.end(ConnectError::HandshakesFull));
                }
            }
        }
    }
    outcome(shared, &mut news, dials).await
}

/// Waits for what comes of dials after the first `dials`.
async fn outcome(
    shared: &Shared,
    news: &mut watch::Receiver<News>,
    dials: u64,
) -> Result<Arc<NodeLink>, ConnectError> {
    let failed = |news: &News| news.dials > dials && news.error.is_some();
    let error = match news.wait_for(|news| news.up.is_some() || failed(news)).await {
        Ok(news) => match (&news.up, &news.error) {
            (Some(link), _) => return Ok(link.clone()),
            (None, Some(error)) => error.clone(),
            (None, None) => ConnectError::Ended,
        },
        Err(_) => ConnectError::Ended,
    };
    if !error.is_harmless() {
        return Err(error);
    }
    // The node's own attempt goes on.
    let up = news.wait_for(|news| news.up.is_some());
    match tokio::time::timeout(shared.settings.handshake, up).await {
        Ok(Ok(news)) => news.up.clone().ok_or(ConnectError::Ended),
        _ => Err(error),
    }
}

async fn dial(shared: &Arc<Shared>, address: &Address) -> Result<(), ConnectError> {
    match shared.nodes.begin_dial(&address.node) {
        Ok(Begin::Up(_)) => Ok(()),
        Ok(Begin::Ongoing) => Err(ConnectError::Superseded),
        Ok(Begin::Begun(ticket)) => {
            let ticket = Ticket { shared: shared.clone(), ticket, error: Some(ConnectError::Stopping) };
            attempt(shared, address, ticket).await
        }
        Err(error) => {
            count(&shared.counters.nodes_refused);
            Err(error)
        }
    }
}

/// Ends the dial when it is dropped.
struct Ticket {
    shared: Arc<Shared>,
    ticket: DialTicket,
    error: Option<ConnectError>,
}

impl Ticket {
    fn end(mut self, error: ConnectError) -> ConnectError {
        self.error = Some(error.clone());
        error
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.nodes.end_dial(&self.ticket, self.error.take());
    }
}

async fn attempt(shared: &Arc<Shared>, address: &Address, mut ticket: Ticket) -> Result<(), ConnectError> {
    let superseded = ticket.ticket.superseded.clone();
    let connected = tokio::select! {
        biased;
        () = superseded.notified() => Err(ConnectError::Superseded),
        connected = tokio::time::timeout(shared.settings.handshake, open(shared, address, &ticket.ticket)) => {
            connected.unwrap_or(Err(ConnectError::TimedOut))
        }
    };
    match connected {
        Ok((admitted, socket, rest)) => {
            ticket.error = None;
            shared.spawn_to_the_end(connection::run(admitted, socket, rest));
            Ok(())
        }
        Err(error) => {
            if error.is_cookie() {
                count(&shared.counters.cookies_differed);
            }
            if error == ConnectError::NodesFull {
                count(&shared.counters.nodes_refused);
            } else if matches!(error, ConnectError::Handshake(_) | ConnectError::TimedOut) && !error.is_harmless() {
                count(&shared.counters.handshakes_failed);
            }
            Err(ticket.end(error))
        }
    }
}

async fn open(
    shared: &Arc<Shared>,
    address: &Address,
    ticket: &DialTicket,
) -> Result<(connection::Admitted, TcpStream, Vec<u8>), ConnectError> {
    let port = match (address.port, shared.settings.epmd_port) {
        (Some(port), _) => port,
        (None, Some(epmd_port)) => epmd::look_up(epmd_port, &address.node).await?,
        (None, None) => return Err(EpmdError::Unknown.into()),
    };
    let io = |error: std::io::Error| ConnectError::Io(error.to_string());
    let mut socket = TcpStream::connect((address.node.host(), port)).await.map_err(io)?;
    socket.set_nodelay(true).map_err(io)?;
    if !shared.nodes.name_goes_out(ticket) {
        return Err(ConnectError::Superseded);
    }
    let mut handshake = Handshake::initiator(shared.settings.local.clone(), address.node.clone());
    let (admitted, rest) = handshake::run(shared, &mut socket, &mut handshake, Some(ticket)).await?;
    Ok((admitted, socket, rest))
}
