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
        let since = Instant::now();
        // A node that is configured is never forgotten.
        if news.wait_for(|news| news.up.is_none()).await.is_err() {
            return;
        }
        match dial(&shared, &address).await {
            Ok(serial) => {
                reported = None;
                let _ = news.wait_for(|news| news.ended >= serial).await;
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
        if since.elapsed() >= Pause::PROVEN + shared.settings.handshake {
            pause = Pause::default();
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
    let mut dials = news.borrow().dials;
    let mut serial = None;
    match shared.nodes.begin_dial(&node).inspect_err(|_| count(&shared.counters.nodes_refused))? {
        Begin::Connected(connected) => serial = Some(connected),
        Begin::Ongoing => {}
        Begin::Begun(ticket) => {
            // Until ours ends no other does.
            dials = news.borrow().dials;
            let ticket = Ticket::new(shared, ticket);
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
                    ticket.end(Err(ConnectError::HandshakesFull));
                    return Err(ConnectError::HandshakesFull);
                }
            }
        }
    }
    outcome(shared, &mut news, dials, serial).await
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

/// Waits for the connection of this serial; without one, for what comes of a dial that ends after the first `dials`.
async fn outcome(
    shared: &Shared,
    news: &mut watch::Receiver<News>,
    dials: u64,
    serial: Option<u64>,
) -> Result<Arc<NodeLink>, ConnectError> {
    let failure = |news: &News| {
        let outcome = news.outcome.clone().filter(|_| news.dials != dials);
        match serial.map(Ok).or(outcome) {
            Some(Ok(serial)) => (news.ended >= serial).then_some(ConnectError::Ended),
            Some(Err(error)) => Some(error),
            None => None,
        }
    };
    let heard = news.wait_for(|news| up(news).is_some() || failure(news).is_some()).await.map(|news| news.clone());
    let error = match heard {
        Ok(news) => match up(&news) {
            Some(link) => return Ok(link),
            None => failure(&news).unwrap_or(ConnectError::Ended),
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

/// The serial of the connection that there is now.
async fn dial(shared: &Arc<Shared>, address: &Address) -> Result<u64, ConnectError> {
    match shared.nodes.begin_dial(&address.node) {
        Ok(Begin::Connected(serial)) => Ok(serial),
        Ok(Begin::Ongoing) => Err(ConnectError::Superseded),
        Ok(Begin::Begun(ticket)) => attempt(shared, address, Ticket::new(shared, ticket)).await,
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
    outcome: Result<u64, ConnectError>,
}

impl Ticket {
    fn new(shared: &Arc<Shared>, ticket: DialTicket) -> Ticket {
        Ticket { shared: shared.clone(), ticket, outcome: Err(ConnectError::Stopping) }
    }

    fn end(mut self, outcome: Result<u64, ConnectError>) {
        self.outcome = outcome;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.nodes.end_dial(&self.ticket, self.outcome.clone());
    }
}

async fn attempt(shared: &Arc<Shared>, address: &Address, ticket: Ticket) -> Result<u64, ConnectError> {
    let superseded = ticket.ticket.superseded.clone();
    let connected = tokio::select! {
        biased;
        () = superseded.notified() => Err(ConnectError::Superseded),
        connected = tokio::time::timeout(shared.settings.handshake, open(shared, address, &ticket.ticket)) => {
            connected.unwrap_or(Err(ConnectError::TimedOut))
        }
    };
    let outcome = connected.map(|(admitted, socket, rest)| {
        let serial = admitted.serial();
        shared.spawn_to_the_end(connection::run(admitted, socket, rest));
        serial
    });
    if let Err(error) = &outcome {
        count_failure(shared, error);
    }
    ticket.end(outcome.clone());
    outcome
}

fn count_failure(shared: &Shared, error: &ConnectError) {
    if error.is_cookie() {
        count(&shared.counters.cookies_differed);
    }
    match error {
        ConnectError::NodesFull => count(&shared.counters.nodes_refused),
        error if error.is_harmless() => {}
        ConnectError::Handshake(_) | ConnectError::TimedOut => count(&shared.counters.handshakes_failed),
        _ => {}
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
