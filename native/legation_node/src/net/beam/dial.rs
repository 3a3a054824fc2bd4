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
        matches!(self, ConnectError::Superseded | ConnectError::Handshake(Busy | Connected | Refused(Verdict::Nok)))
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
        // A node that is configured is never forgotten.
        let Ok(ended) = news.wait_for(|news| news.up.is_none()).await.map(|news| news.ended) else { return };
        match dial(&shared, &address).await {
            Ok(()) => {
                reported = None;
                let since = Instant::now();
                let _ = news.wait_for(|news| news.ended != ended).await;
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
    // Dropped after the receiver.
    let _tidy = Tidy { shared, node: &node };
    let mut news = shared.nodes.subscribe(&node);
    let before = news.borrow().clone();
    match shared.nodes.begin_dial(&node).inspect_err(|_| count(&shared.counters.nodes_refused))? {
        Begin::Connected | Begin::Ongoing => {}
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
    outcome(shared, &mut news, &before).await
}

struct Tidy<'a> {
    shared: &'a Shared,
    node: &'a NodeName,
}

impl Drop for Tidy<'_> {
    fn drop(&mut self) {
        self.shared.nodes.tidy(self.node);
    }
}

/// Waits for what comes of a dial that ends after `before`.
async fn outcome(
    shared: &Shared,
    news: &mut watch::Receiver<News>,
    before: &News,
) -> Result<Arc<NodeLink>, ConnectError> {
    let failed = |news: &News| news.dials != before.dials && news.error.is_some();
    let over = |news: &News| up(news).is_some() || failed(news) || news.ended != before.ended;
    let error = match news.wait_for(over).await {
        Ok(news) => match up(&news) {
            Some(link) => return Ok(link),
            None if failed(&news) => news.error.clone().unwrap_or(ConnectError::Ended),
            None => ConnectError::Ended,
        },
        Err(_) => ConnectError::Ended,
    };
    if !error.is_harmless() {
        return Err(error);
    }
    // The node's own attempt goes on.
    let wait = news.wait_for(|news| up(news).is_some());
    match tokio::time::timeout(shared.settings.handshake, wait).await {
        Ok(Ok(news)) => up(&news).ok_or(ConnectError::Ended),
        _ => Err(error),
    }
}

fn up(news: &News) -> Option<Arc<NodeLink>> {
    news.up.clone().filter(|link| !link.has_ended())
}

async fn dial(shared: &Arc<Shared>, address: &Address) -> Result<(), ConnectError> {
    match shared.nodes.begin_dial(&address.node) {
        Ok(Begin::Connected) => Ok(()),
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
