//! A connection that is up: a task that reads, a task that writes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::TcpStream;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, Instant};

use crate::dist::handshake::NodeName;
use crate::dist::inbound::{Inbound, InboundCounters, InboundError, Incoming};

use super::counters::count;
use super::hand_over::Then;
use super::linger::Linger;
use super::link::{ConnectionEnd, NodeLink};
use super::nodes::Seat;
use super::Shared;

/// What a large message leaves behind of the writer's buffer.
const WRITE_BUFFER_BYTES_KEPT: usize = 1024 * 1024;

/// A node's newest connection; no more when this is dropped.
pub(super) struct Admitted {
    shared: Arc<Shared>,
    node: NodeName,
    link: Arc<NodeLink>,
    seat: Seat,
}

impl Admitted {
    pub(super) fn new(shared: Arc<Shared>, node: NodeName, link: Arc<NodeLink>, seat: Seat) -> Admitted {
        Admitted { shared, node, link, seat }
    }

    /// See [`Seat`].
    pub(super) fn serial(&self) -> u64 {
        self.seat.serial
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.link.close();
        self.link.forget(self.shared.settings.outbound(self.link.flags));
        self.shared.nodes.down(&self.node, &self.link, self.seat.serial);
    }
}

/// Between `node_up` and `node_down`, which comes when this is dropped, however that comes about. Then the next connection of the
/// node may be up.
struct Up {
    admitted: Admitted,
    _seat: OwnedMutexGuard<()>,
}

impl Up {
    fn new(admitted: Admitted, seat: OwnedMutexGuard<()>) -> Up {
        let Admitted { shared, node, link, .. } = &admitted;
        count(&shared.counters.connections);
        tracing::info!(%node, creation = link.creation, number = link.number, "node connected");
        shared.refusals.forget(node);
        shared.events.node_up(link);
        shared.nodes.up(node, link);
        Up { admitted, _seat: seat }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let Admitted { shared, node, link, .. } = &self.admitted;
        link.close();
        shared.events.node_down(link);
        let end = link.end().unwrap_or(&ConnectionEnd::Local);
        match end {
            ConnectionEnd::Silent(_) => count(&shared.counters.nodes_silent),
            ConnectionEnd::Stream(_) => count(&shared.counters.streams_broken),
            ConnectionEnd::QueueFull => count(&shared.counters.queues_full),
            _ => {}
        }
        tracing::info!(%node, number = link.number, why = %end, "node disconnected");
    }
}

/// Runs the connection to its end. `rest`: what came behind the handshake.
pub(super) async fn run(admitted: Admitted, socket: TcpStream, rest: Vec<u8>) {
    // The connection before this one has its `node_down` first.
    let seat = admitted.seat.free.clone().lock_owned().await;
    let (shared, link) = (admitted.shared.clone(), admitted.link.clone());
    if *shared.stopping.borrow() || link.has_ended() {
        return;
    }
    let _up = Up::new(admitted, seat);
    let (reader, writer) = socket.into_split();
    let _writing = Abort(tokio::spawn(write(link.clone(), writer, shared.settings.tick)));
    let end = read(&shared, &link, reader, &rest).await;
    link.close_for(end);
}

/// Ends a task when it is dropped.
struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ends for what the other side does, or because the link was closed.
async fn read(shared: &Shared, link: &Arc<NodeLink>, mut socket: OwnedReadHalf, mut rest: &[u8]) -> ConnectionEnd {
    let mut stream = Stream {
        shared,
        link,
        inbound: Inbound::new(shared.settings.inbound(link.flags)),
        seen: InboundCounters::default(),
    };
    while !rest.is_empty() {
        let space = stream.inbound.space();
        let (now, later) = rest.split_at(rest.len().min(space.len()));
        space[..now.len()].copy_from_slice(now);
        rest = later;
        if let Err(error) = stream.filled(now.len()) {
            return ConnectionEnd::Stream(error);
        }
    }
    let silence = shared.settings.silence;
    let mut heard = Instant::now();
    let mut silent = pin!(sleep_until(heard + silence));
    let mut closed = pin!(link.closed());
    let mut linger = Linger::default();
    loop {
        let read = match linger.read(&socket, stream.inbound.space()).await {
            Some(read) if !link.has_ended() => read,
            _ => tokio::select! {
                biased;
                () = &mut closed => return ConnectionEnd::Local,
                read = socket.read(stream.inbound.space()) => read,
                // One timer for many reads: it is set anew when it was too early.
                () = &mut silent => {
                    if heard + silence <= Instant::now() {
                        return ConnectionEnd::Silent(u64::try_from(silence.as_millis()).unwrap_or(u64::MAX));
                    }
                    silent.as_mut().reset(heard + silence);
                    continue;
                }
            },
        };
        match read {
            Ok(0) => return ConnectionEnd::Closed,
            Ok(bytes) => {
                heard = Instant::now();
                match stream.filled(bytes) {
                    Ok(messages) => linger.came(heard, bytes, messages),
                    Err(error) => return ConnectionEnd::Stream(error),
                }
            }
            Err(error) => return ConnectionEnd::Io(error.to_string()),
        }
    }
}

/// What comes in.
struct Stream<'a> {
    shared: &'a Shared,
    link: &'a Arc<NodeLink>,
    inbound: Inbound,
    seen: InboundCounters,
}

impl Stream<'_> {
    /// Hands on all messages that are complete; how many.
    fn filled(&mut self, bytes: usize) -> Result<u64, InboundError> {
        let events = &self.shared.events;
        self.inbound.filled(bytes);
        let handed_on = loop {
            match self.inbound.next() {
                Ok(Some(Incoming::Tick)) => {}
                Ok(Some(Incoming::Message { control, payload })) => events.message(self.link, control, payload),
                Ok(Some(Incoming::Oversized { control, head })) => events.oversized(self.link, control, head),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            if self.link.has_ended() {
                break Ok(());
            }
        };
        let messages = self.inbound.counters().messages - self.seen.messages;
        self.shared.counters.add(&mut self.seen, self.inbound.counters());
        handed_on.map(|()| messages)
    }
}

/// Writes what waits, as much at once as there is; a tick when nothing has been written for a while.
async fn write(link: Arc<NodeLink>, socket: OwnedWriteHalf, tick: Duration) {
    if let Err(error) = write_all(&link, socket, tick).await {
        // The reader may have bytes yet of a node that closed, and the better reason.
        tracing::debug!(node = %link.node, %error, "can't write");
        link.close_for(ConnectionEnd::Io(error.to_string()));
    }
}

async fn write_all(link: &NodeLink, mut socket: OwnedWriteHalf, tick: Duration) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let mut written = Instant::now();
    let mut due = pin!(sleep_until(written + tick));
    loop {
        tokio::select! {
            biased;
            () = link.work() => {}
            () = &mut due => {
                if written + tick <= Instant::now() {
                    link.tick();
                    written = Instant::now();
                }
                due.as_mut().reset(written + tick);
            }
        }
        let then = link.then();
        loop {
            let more = link.take(&mut buffer);
            if !buffer.is_empty() {
                socket.write_all(&buffer).await?;
                written = Instant::now();
                buffer.clear();
                buffer.shrink_to(WRITE_BUFFER_BYTES_KEPT);
            }
            if !more {
                break;
            }
        }
        match then {
            Then::Wait => {}
            // The node reads to the end and closes. If we closed, what it sends meanwhile would throw away what it hasn't read yet.
            Then::Finish => return socket.shutdown().await,
            Then::Stop => return Ok(()),
        }
    }
}
