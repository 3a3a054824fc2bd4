//! What belongs to one link of a session, and ends with it: bytes that are no frame yet, the place in the peer's
//! sequence, heartbeat, and what is said on this link alone (PING, PONG, RESUME, CLOSE).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;

use crate::frame::close::Close;
use crate::limits::Limits;
use crate::UnixMs;

/// One link, as its session knows it. Made by [`crate::session::Session::attach`].
#[derive(Debug)]
pub struct Attachment {
    /// Not 0, and unlike that of any other link of the session.
    pub(crate) number: u64,
    /// Its channel's profile is one on which messages may go out before they are signed for.
    pub(crate) protected: bool,
    pub(crate) inbound: Mutex<LinkInbound>,
    pub(crate) outbound: Mutex<LinkOutbound>,
    pub(crate) detached: AtomicBool,
    /// The last round trip; `u64::MAX` before the first.
    rtt_ms: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct LinkInbound {
    /// Received and not yet parsed. The channel decrypts into it.
    pub buffer: Vec<u8>,
    /// The number of the peer's next sequenced frame on this link. None until its RESUME: then nothing sequenced may come.
    pub position: Option<u64>,
    /// It has caught up with what came on other links; until then what comes again takes its time.
    pub caught_up: bool,
    /// The driver was told to come earlier than for the heartbeat.
    pub timed: bool,
    pub last_received: UnixMs,
    pub next_ping: UnixMs,
    /// Nothing is looked at any more.
    pub closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct LinkOutbound {
    pub ping: Option<u64>,
    pub pong: Option<u64>,
    /// A RESUME goes before anything that is sequenced.
    pub resume: bool,
    pub close: Option<Close>,
    pub closed: bool,
}

impl Attachment {
    pub(crate) fn new(number: u64, first: bool, protected: bool, limits: &Limits, now: UnixMs) -> Attachment {
        Attachment {
            number,
            protected,
            inbound: Mutex::new(LinkInbound {
                buffer: Vec::new(),
                position: first.then_some(1),
                caught_up: first,
                timed: false,
                last_received: now,
                next_ping: now.saturating_add(limits.ping_ms),
                closed: false,
            }),
            outbound: Mutex::default(),
            detached: AtomicBool::new(false),
            rtt_ms: AtomicU64::new(u64::MAX),
        }
    }

    /// The last round trip of a PING, ms. None before the first.
    pub fn rtt_ms(&self) -> Option<u64> {
        match self.rtt_ms.load(Ordering::Relaxed) {
            u64::MAX => None,
            rtt_ms => Some(rtt_ms),
        }
    }

    pub(crate) fn set_rtt(&self, rtt_ms: u64) {
        self.rtt_ms.store(rtt_ms, Ordering::Relaxed);
    }

    pub fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Acquire)
    }
}
