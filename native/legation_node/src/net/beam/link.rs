//! One connection, as the realm sees it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::dist::inbound::InboundError;
use crate::dist::outbound::{Full, Outbound, OutboundConfig};

/// What the writer takes at once, but for a single message that is larger.
const WRITE_TARGET_BYTES: usize = 256 * 1024;

const OPEN: u8 = 0;
/// Ends when all that waits has been written.
const DRAINING: u8 = 1;
const CLOSED: u8 = 2;

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
    out: Mutex<Outbound>,
    state: AtomicU8,
    end: OnceLock<ConnectionEnd>,
    writer: Notify,
    reader: Notify,
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
        NodeLink {
            number,
            node: node.into(),
            creation,
            flags,
            out: Mutex::new(Outbound::new(out)),
            state: AtomicU8::new(OPEN),
            end: OnceLock::new(),
            writer: Notify::new(),
            reader: Notify::new(),
        }
    }

    /// Sends a message. Those of one key keep their order. On a connection that has ended it is lost, as it would be on the way.
    ///
    /// # Errors
    /// [`Full`]: more waits than may; nothing was appended.
    pub fn push(&self, key: u64, control: &[u8], payload: &[&[u8]]) -> Result<(), Full> {
        self.append(|out| out.push(key, control, payload))
    }

    /// Sends what must not be lost on a connection that lives: where it can't be appended, the connection ends.
    pub fn push_signal(&self, key: u64, control: &[u8], payload: &[&[u8]]) {
        if self.append(|out| out.push_signal(key, control, payload)).is_err() {
            self.close_for(ConnectionEnd::QueueFull);
        }
    }

    fn append(&self, append: impl FnOnce(&mut Outbound) -> Result<(), Full>) -> Result<(), Full> {
        if self.has_ended() {
            return Ok(());
        }
        let mut out = self.out();
        let idle = out.bytes() == 0;
        append(&mut out)?;
        drop(out);
        // The writer goes on until nothing is left.
        if idle {
            self.writer.notify_one();
        }
        Ok(())
    }

    /// Ends the connection; what waits is lost.
    pub fn close(&self) {
        self.close_for(ConnectionEnd::Local);
    }

    /// Whether it has been closed, by whomever. `node_down` may yet have to come.
    pub fn has_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSED
    }

    /// Why it has ended.
    pub fn end(&self) -> Option<&ConnectionEnd> {
        self.end.get()
    }

    /// Bytes that wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.out().bytes()
    }

    /// Moves what waits, or a good piece of it, to the end of `into`, as it goes over the wire. True: there is more.
    pub fn take(&self, into: &mut Vec<u8>) -> bool {
        self.out().take(into, WRITE_TARGET_BYTES)
    }

    pub(super) fn close_for(&self, end: ConnectionEnd) {
        // Whoever is first says why.
        let _ = self.end.set(end);
        self.state.store(CLOSED, Ordering::Release);
        self.reader.notify_one();
        self.writer.notify_one();
    }

    /// Ends the connection when what waits has been written.
    pub(super) fn drain(&self) {
        let _ = self.state.compare_exchange(OPEN, DRAINING, Ordering::AcqRel, Ordering::Acquire);
        self.writer.notify_one();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.state.load(Ordering::Acquire) == DRAINING
    }

    pub(super) fn tick(&self) {
        self.out().tick();
    }

    /// There is something to write, or it is over.
    pub(super) async fn work(&self) {
        self.writer.notified().await;
    }

    /// For the reader: it is over.
    pub(super) async fn closed(&self) {
        self.reader.notified().await;
    }

    /// Gives back what waits, of a connection that has ended.
    pub(super) fn forget(&self, out: OutboundConfig) {
        *self.out() = Outbound::new(out);
    }

    fn out(&self) -> MutexGuard<'_, Outbound> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
