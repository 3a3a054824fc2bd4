//! What others want of a connection, and what they know of it: shared between its tasks, its peer and its listener.

use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::net::carrier::CarrierError;
use crate::peers::{lock, LinkEnd, PeerSession, SessionEvents};
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
#[derive(Debug, Default)]
pub(crate) struct Control {
    wanted: Mutex<Option<Wanted>>,
    changed: Notify,
    /// Held while events of the link are delivered, so that after its end nothing of it comes any more.
    pub(crate) delivering: Mutex<Delivering>,
    /// Something was read or sent: whoever waits for the last open call looks again.
    pub(crate) activity: Notify,
    /// The reader's; for one that doesn't end in time.
    pub(crate) task: OnceLock<AbortHandle>,
}

#[derive(Debug, Default)]
pub(crate) struct Delivering {
    /// The realm has been told of the link's end.
    ended: bool,
}

impl Control {
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

    /// The realm hears of the end of a link that was up, once. Waits for events that are being delivered.
    pub(crate) fn end_link(&self, session: &Arc<PeerSession>, events: &dyn SessionEvents, why: &LinkEnd) {
        let mut delivering = lock(&self.delivering);
        if !std::mem::replace(&mut delivering.ended, true) {
            session.end();
            events.session_ended(session, why);
        }
        drop(delivering);
        self.activity.notify_waiters();
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
