//! The links to other realms: who may link with us, dialling, which link lives, drain.

use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use legation_proto::session::{Event, Session};

/// A link that is up: the session of one peer.
#[derive(Debug)]
pub struct PeerLink {
    /// Unlike that of any other link of this process.
    pub tag: u64,
    /// What we call the peer.
    pub realm: Arc<str>,
    pub session: Arc<Session>,
    pub status: LinkStatus,
    writer: Arc<tokio::sync::Notify>,
    ended: AtomicBool,
}

/// What `connections` and `peers` show of a link.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    pub key: [u8; 32],
    /// `tls`, `local`, `plain`.
    pub profile: &'static str,
    /// `initiator`, `responder`.
    pub role: &'static str,
    pub version: u16,
    /// `tcp`, `unix`.
    pub carrier: &'static str,
    /// Of the other end, as text.
    pub address: String,
    /// Unix milliseconds.
    pub since_ms: u64,
}

impl PeerLink {
    pub fn new(
        tag: u64,
        realm: Arc<str>,
        session: Arc<Session>,
        status: LinkStatus,
        writer: Arc<tokio::sync::Notify>,
    ) -> PeerLink {
        PeerLink { tag, realm, session, status, writer, ended: AtomicBool::new(false) }
    }

    /// There is something to flush.
    pub fn wake(&self) {
        self.writer.notify_one();
    }

    /// Nothing can be pushed any more; set when the link ends.
    pub fn has_ended(&self) -> bool {
        self.ended.load(std::sync::atomic::Ordering::Acquire)
    }

    pub fn end(&self) {
        self.ended.store(true, std::sync::atomic::Ordering::Release);
        self.session.end();
    }
}

/// Why a link ended or did not come about: `kind` and `code` as in Elixir's reasons (`docs/internals.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The carrier did not come about.
    Connect(String),
    /// The carrier broke.
    Carrier(String),
    /// The peer said goodbye.
    Closed { code: &'static str, text: String },
    /// We must close: the peer broke a rule, or is silent.
    Fault { code: &'static str, detail: String },
    /// We want to close.
    Local(&'static str),
    /// Our keyholder did not sign.
    Keyholder(String),
    /// A dial that was closed without a word.
    NoAnswer,
}

/// What links tell the realm, from their tasks. Must not wait. For one link: `up`, then events, then `ended`.
pub trait LinkEvents: Send + Sync {
    fn link_up(&self, link: &Arc<PeerLink>);
    /// One event of the session. What it leaves to flush on this link is said by returning true.
    fn link_event(&self, link: &Arc<PeerLink>, event: Event<'_>) -> bool;
    /// All events of one read are through.
    fn link_read_done(&self, link: &Arc<PeerLink>);
    fn link_ended(&self, link: &Arc<PeerLink>, why: &LinkEnd);
}
