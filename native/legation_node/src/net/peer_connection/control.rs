//! What others want of a connection, and what they know of it: shared between its tasks, its peer and its listener.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use legation_channel::link::Link;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::net::carrier::CarrierError;
use crate::peers::{lock, PeerSession, SessionEvents};
use legation_proto::error::CloseCode;

/// What a reader is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Say goodbye with this code, and end.
    Close(CloseCode),
    /// The place is needed. Too late once the session is up.
    Evict,
    /// The writer could not send.
    Broken(CarrierError),
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Control {
    wanted: Mutex<Option<Wanted>>,
    changed: Notify,
    /// There is something for the writer to flush.
    pub(crate) wake: Arc<Notify>,
    connected: AtomicBool,
    link: OnceLock<Arc<Link>>,
    session: OnceLock<Arc<PeerSession>>,
    /// The reader's; for one that doesn't end in time.
    pub(crate) task: OnceLock<AbortHandle>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// The carrier is there.
    pub(crate) fn opened(&self, link: &Arc<Link>) {
        self.connected();
        self.link.get_or_init(|| link.clone());
    }

    pub(crate) fn connected(&self) {
        self.connected.store(true, Relaxed);
    }

    /// Somebody has answered the dial, if it is one.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// The link is up.
    pub(crate) fn joined(&self, session: &Arc<PeerSession>) {
        self.session.get_or_init(|| session.clone());
    }

    /// Our side of the session is sent on this link from now on.
    pub(crate) fn activate(&self) {
        if self.link.get().is_some_and(|link| link.activate()) {
            self.wake.notify_one();
        }
    }

    /// Of the last PING that was answered.
    pub(crate) fn rtt_ms(&self) -> Option<u64> {
        self.link.get().and_then(|link| link.rtt_ms())
    }

    /// Something was taken out of the queue, and perhaps all of it.
    pub(crate) fn flushed(&self, events: &dyn SessionEvents) {
        if let Some(session) = self.session.get() {
            session.prove_later();
            session.make_room(events);
            session.activity.notify_waiters();
        }
    }

    /// The first wish counts, but an eviction that may come too late stands in nobody's way.
    pub(crate) fn want(&self, wanted: Wanted) {
        let mut first = lock(&self.wanted);
        if matches!(*first, None | Some(Wanted::Evict)) {
            *first = Some(wanted);
        }
        drop(first);
        self.changed.notify_one();
    }

    /// Waits for a wish, and takes it. For one task at a time; cancel-safe.
    pub(crate) async fn wanted(&self) -> Wanted {
        loop {
            if let Some(wanted) = lock(&self.wanted).take() {
                return wanted;
            }
            self.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_wish_counts_and_an_eviction_gives_way() {
        let control = Control::default();
        control.want(Wanted::Evict);
        control.want(Wanted::Close(CloseCode::Normal));
        control.want(Wanted::Close(CloseCode::Shutdown));
        control.want(Wanted::Broken(CarrierError::CLOSED));
        assert_eq!(control.wanted().await, Wanted::Close(CloseCode::Normal));
    }
}
