//! What others want of a connection, and what they know of it: shared between its tasks, its peer and its listener.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::net::carrier::CarrierError;
use crate::peers::{lock, LinkEnd, LinkEvents, PeerLink};
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
}

#[derive(Debug, Default)]
pub(crate) struct Delivering {
    /// The realm has been told of the link's end.
    ended: bool,
}

impl Control {
    /// The first wish counts.
    pub(crate) fn want(&self, wanted: Wanted) {
        lock(&self.wanted).get_or_insert(wanted);
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
    pub(crate) fn end_link(&self, link: &Arc<PeerLink>, events: &dyn LinkEvents, why: &LinkEnd) {
        let mut delivering = lock(&self.delivering);
        if !std::mem::replace(&mut delivering.ended, true) {
            link.end();
            events.link_ended(link, why);
        }
        drop(delivering);
        self.activity.notify_waiters();
    }
}
