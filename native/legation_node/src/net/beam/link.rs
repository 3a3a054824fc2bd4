//! One connection, as the realm sees it.

use crate::dist::inbound::InboundError;
use crate::dist::outbound::{Full, Outbound, OutboundConfig};

use super::hand_over::{HandOver, Then, Waiting};

/// What the writer takes at once, but for a single message that is larger.
const WRITE_TARGET_BYTES: usize = 256 * 1024;

/// One connection to a BEAM node. Whatever is sent to that node is appended here and leaves with the next write.
#[derive(Debug)]
pub struct NodeLink {
    /// Unlike that of any other connection of this process.
    pub number: u64,
    /// `name@host`.
    pub node: Box<str>,
    pub creation: u32,
    /// What both sides offered.
    pub flags: u64,
    out: HandOver<Outbound, ConnectionEnd>,
}

impl Waiting for Outbound {
    fn is_empty(&self) -> bool {
        self.bytes() == 0
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionEnd {
    #[error("the node closed it")]
    Closed,
    #[error("{0}")]
    Io(String),
    #[error("nothing was heard for {0} ms")]
    Silent(u64),
    #[error("the node sent what can't be understood: {0}")]
    Stream(InboundError),
    #[error("more waits for the node than may")]
    QueueFull,
    #[error("the node connected again")]
    Replaced,
    #[error("we closed it")]
    Local,
}

impl NodeLink {
    pub fn new(number: u64, node: impl Into<Box<str>>, creation: u32, flags: u64, out: OutboundConfig) -> NodeLink {
        NodeLink { number, node: node.into(), creation, flags, out: HandOver::new(Outbound::new(out)) }
    }

    /// Sends a message. Those of one key keep their order. On a connection that has ended it is lost, as it would be on the way.
    ///
    /// # Errors
    /// [`Full`]: more waits than may; nothing was appended.
    pub fn push(&self, key: u64, control: &[u8], payload: &[&[u8]]) -> Result<(), Full> {
        self.out.append(|out| out.push(key, control, payload))
    }

    /// Sends what must not be lost on a connection that lives: where it can't be appended, the connection ends.
    pub fn push_signal(&self, key: u64, control: &[u8], payload: &[&[u8]]) {
        if self.out.append(|out| out.push_signal(key, control, payload)).is_err() {
            self.close_for(ConnectionEnd::QueueFull);
        }
    }

    /// Ends the connection; what waits is lost.
    pub fn close(&self) {
        self.close_for(ConnectionEnd::Local);
    }

    /// Whether it has been closed, by whomever. `node_down` may yet have to come.
    pub fn has_ended(&self) -> bool {
        self.out.has_ended()
    }

    /// Why it has ended.
    pub fn end(&self) -> Option<&ConnectionEnd> {
        self.out.end()
    }

    /// Bytes that wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.out.queue().bytes()
    }

    /// Moves what waits, or a good piece of it, to the end of `into`, as it goes over the wire. True: there is more.
    pub fn take(&self, into: &mut Vec<u8>) -> bool {
        self.out.queue().take(into, WRITE_TARGET_BYTES)
    }

    pub(super) fn close_for(&self, end: ConnectionEnd) {
        self.out.close(end);
    }

    /// Ends the connection when what waits has been written.
    pub(super) fn drain(&self) {
        self.out.drain();
    }

    /// For the writer, before it takes what waits.
    pub(super) fn then(&self) -> Then {
        self.out.then()
    }

    pub(super) fn tick(&self) {
        self.out.queue().tick();
    }

    /// There is something to write, or it is over.
    pub(super) async fn work(&self) {
        self.out.work().await;
    }

    /// For the reader: it is over.
    pub(super) async fn closed(&self) {
        self.out.closed().await;
    }

    /// Gives back what waits, of a connection that has ended.
    pub(super) fn forget(&self, out: OutboundConfig) {
        *self.out.queue() = Outbound::new(out);
    }
}
