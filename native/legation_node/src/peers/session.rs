//! The session with one peer: what outlives its links.
//!
//! ```text
//!            first link            last link gone              another link
//!   ─────────────────────► up ───────────────────────► lost ─────────────────► up …
//!                           └── goodbye, fault ──┐       └── grace is over ──┐
//!                                                └─────────► ended ◄─────────┘
//! ```
//!
//! Its peer decides how it stands, under the lock of the list; it is told of that here, in order and outside of that lock, while
//! events of no link of it are being delivered. So nothing comes before `session_up`, and nothing after `session_ended`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use legation_proto::session::{Acknowledge, Event, Session};
use tokio::sync::Notify;

use super::{lock, unix_ms, LinkEnd, SessionEvents};

/// What two realms have between them, over whatever links.
#[derive(Debug)]
pub struct PeerSession {
    /// Unlike that of any other session of this process.
    pub tag: u64,
    /// What we call the peer.
    pub realm: Arc<str>,
    pub core: Arc<Session>,
    /// The link that we send on.
    active: Mutex<Active>,
    standing: Mutex<Standing>,
    /// What the realm has been told. Held while it is told, and while an event is delivered.
    told: Mutex<Told>,
    /// It has been told of it: another link may join.
    ready: AtomicBool,
    ended: AtomicBool,
    draining: AtomicBool,
    overflowed: AtomicBool,
    acknowledging: AtomicBool,
    /// Mailboxes are looked at again and again for it.
    looking: AtomicBool,
    /// Something was read or sent: whoever waits for the last open call looks again.
    pub(crate) activity: Notify,
}

#[derive(Debug)]
struct Active {
    /// None while no link is up.
    writer: Option<Arc<Notify>>,
    status: LinkStatus,
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
    /// How what we send is signed: `engine`, `delegated`, `checkpoint`.
    pub signing: &'static str,
    /// `tcp`, `unix`.
    pub carrier: &'static str,
    /// Of the other end, as text: `10.0.0.7:4040`, `uid 1000`.
    pub address: String,
    /// Unix milliseconds.
    pub since_ms: u64,
    /// We send on it; others of the session stand by.
    pub active: bool,
    /// Of the last PING, once one was answered.
    pub rtt_ms: Option<u64>,
}

impl LinkStatus {
    pub fn state(&self) -> &'static str {
        match self.active {
            true => "active",
            false => "standby",
        }
    }
}

/// How a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Up,
    /// No link, and why the last one ended. What is pushed waits.
    Lost(LinkEnd),
    Ended(LinkEnd),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Up,
    Lost,
    Ended,
}

impl PeerSession {
    pub(crate) fn new(
        tag: u64,
        realm: Arc<str>,
        core: Arc<Session>,
        status: LinkStatus,
        writer: Arc<Notify>,
    ) -> PeerSession {
        PeerSession {
            tag,
            realm,
            core,
            active: Mutex::new(Active { writer: Some(writer), status }),
            standing: Mutex::new(Standing::Up),
            told: Mutex::new(Told::Nothing),
            ready: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            overflowed: AtomicBool::new(false),
            acknowledging: AtomicBool::new(false),
            looking: AtomicBool::new(false),
            activity: Notify::new(),
        }
    }

    /// There is something to flush. Without a link it waits for the next.
    pub fn wake(&self) {
        if let Some(writer) = &lock(&self.active).writer {
            writer.notify_one();
        }
    }

    /// Of the link that we send on, or the last one that we sent on.
    pub fn status(&self) -> LinkStatus {
        lock(&self.active).status.clone()
    }

    pub fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    pub fn is_up(&self) -> bool {
        *lock(&self.standing) == Standing::Up
    }

    /// Nothing can be pushed any more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// It is about to be closed in good order, and takes no new calls.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The peer takes too little, and is to be left for it. True: nobody has said so before.
    pub(crate) fn overflows(&self) -> bool {
        !self.overflowed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The realm knows of it.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Another link may take it up.
    pub(crate) fn can_resume(&self) -> bool {
        self.is_ready() && !self.has_ended() && self.core.can_resume()
    }

    /// From now on we send on this link, or on none.
    pub(super) fn send_on(&self, link: Option<(Arc<Notify>, LinkStatus)>) {
        let mut active = lock(&self.active);
        match link {
            Some((writer, status)) => *active = Active { writer: Some(writer), status },
            None => active.writer = None,
        }
    }

    /// How it stands from now on; for the realm to be told soon. What has ended stays so, with the first reason.
    pub(super) fn stands(&self, standing: Standing) {
        let mut current = lock(&self.standing);
        if matches!(*current, Standing::Ended(_)) {
            return;
        }
        if matches!(standing, Standing::Ended(_)) {
            self.ended.store(true, Ordering::Release);
            self.core.end();
        }
        *current = standing;
    }

    /// Tells the realm how it stands, if it hasn't been told. Waits for an event that is being delivered.
    pub(crate) fn tell(self: &Arc<PeerSession>, events: &dyn SessionEvents) {
        let mut told = lock(&self.told);
        match (*told, self.standing()) {
            (Told::Ended, _) | (Told::Up, Standing::Up) | (Told::Lost, Standing::Lost(_)) => {}
            // It went as soon as it came, and nobody needs to know of it.
            (Told::Nothing, Standing::Ended(_)) => *told = Told::Ended,
            (Told::Nothing, _) => {
                *told = Told::Up;
                events.session_up(self);
            }
            (Told::Lost, Standing::Up) => {
                *told = Told::Up;
                events.session_resumed(self);
            }
            (Told::Up, Standing::Lost(why)) => {
                *told = Told::Lost;
                events.session_lost(self, &why);
            }
            (Told::Up | Told::Lost, Standing::Ended(why)) => {
                *told = Told::Ended;
                events.session_ended(self, &why);
            }
        }
        drop(told);
        self.ready.store(true, Ordering::Release);
        if self.has_ended() {
            self.make_room(events);
        }
        self.activity.notify_waiters();
    }

    /// True: there is something to flush.
    pub(crate) fn deliver(self: &Arc<PeerSession>, events: &dyn SessionEvents, event: Event<'_>) -> bool {
        // One after the other, whatever link they come on, and none behind the end.
        let told = lock(&self.told);
        *told != Told::Ended && events.session_event(self, event)
    }

    /// False: somebody is at it.
    pub(crate) fn begin_looking(&self) -> bool {
        !self.looking.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn end_looking(&self) {
        self.looking.store(false, Ordering::Release);
    }

    /// Who waits for room looks whether it is there: after each flush, each tick, and the end.
    pub(crate) fn make_room(self: &Arc<PeerSession>, events: &dyn SessionEvents) {
        let tokens = self.core.take_room();
        if !tokens.is_empty() {
            events.session_room(self, tokens);
        }
    }

    /// After each flush.
    pub(crate) fn prove_later(self: &Arc<PeerSession>) {
        if let Some(after_ms) = self.core.checkpoint_timer() {
            tokio::spawn(prove(Arc::downgrade(self), Duration::from_millis(after_ms)));
        }
    }

    /// Everything of a read has been delivered. True: wake the writer for an acknowledgement; otherwise one goes after `ack_ms` at
    /// the latest.
    pub(crate) fn delivered(self: &Arc<PeerSession>, ack_ms: u64) -> bool {
        match self.core.delivered() {
            Acknowledge::Nothing => false,
            Acknowledge::Wake => true,
            Acknowledge::Later => {
                if !self.acknowledging.swap(true, Ordering::AcqRel) {
                    tokio::spawn(acknowledge(Arc::downgrade(self), Duration::from_millis(ack_ms)));
                }
                false
            }
        }
    }
}

/// What has gone out without a signature is proven, whether more goes out or not.
async fn prove(session: Weak<PeerSession>, after: Duration) {
    tokio::time::sleep(after).await;
    let Some(session) = session.upgrade() else { return };
    session.core.checkpoint_now();
    session.wake();
}

/// Has what waits for too long dropped, for as long as the session lives.
pub(super) async fn tick(session: Weak<PeerSession>, events: Weak<dyn SessionEvents>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let (Some(session), Some(events)) = (session.upgrade(), events.upgrade()) else { return };
        if session.has_ended() {
            return;
        }
        let mut woken = false;
        session.core.tick(unix_ms(), &mut |event| woken |= session.deliver(events.as_ref(), event));
        if woken {
            session.wake();
        }
        session.make_room(events.as_ref());
    }
}

/// What nothing else has taken along goes by itself.
async fn acknowledge(session: Weak<PeerSession>, after: Duration) {
    tokio::time::sleep(after).await;
    let Some(session) = session.upgrade() else { return };
    // First: what comes from now on has a timer of its own.
    session.acknowledging.store(false, Ordering::Release);
    if session.core.acknowledge_now() {
        session.wake();
    }
}
