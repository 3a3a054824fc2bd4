//! Ends of engines that a key agent has still to sign.
//!
//! Until peers hear of an end their calls, their monitors and what stands for the engine there go on. So it is asked for until it is
//! signed, or nobody is left to hear of it. And nobody is published under the name before: a FORGET that the next LEARN has
//! overtaken is nothing (`protocol.md` 11.4).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use legation_proto::frame::FrameType;
use legation_proto::identity::Purpose;
use tokio::sync::Notify;

use crate::identity::SignError;
use crate::peers::PeerSession;
use crate::realm::Realm;

/// From one try to the next: the second comes after that, and each waits twice as long as the one before, up to the last.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Ends {
    unsigned: Mutex<HashMap<Box<str>, OfName>>,
    changed: Notify,
}

#[derive(Default)]
struct OfName {
    count: usize,
    /// Why the last try came to nothing, where it has.
    error: Option<SignError>,
}

/// One of them, until it is dropped.
struct Unsigned {
    ends: Arc<Ends>,
    name: Box<str>,
}

impl Ends {
    fn begin(self: &Arc<Ends>, name: &str) -> Unsigned {
        self.with(name, |of| *of = OfName { count: of.count + 1, error: None });
        Unsigned { ends: self.clone(), name: name.into() }
    }

    /// Returns when none of this name is left.
    ///
    /// # Errors
    /// Why it was not signed when it was last asked for.
    pub(super) async fn are_signed(&self, name: &str) -> Result<(), SignError> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // What changes from here on is not missed.
            changed.as_mut().enable();
            match self.unsigned.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
                None => return Ok(()),
                Some(OfName { error: Some(error), .. }) => return Err(error.clone()),
                Some(OfName { error: None, .. }) => {}
            }
            changed.await;
        }
    }

    fn with(&self, name: &str, change: impl FnOnce(&mut OfName)) {
        let mut unsigned = self.unsigned.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = unsigned.entry(name.into()).or_default();
        change(entry);
        if entry.count == 0 {
            unsigned.remove(name);
        }
        drop(unsigned);
        self.changed.notify_waiters();
    }
}

impl Unsigned {
    fn failed(&self, error: Option<SignError>) {
        self.ends.with(&self.name, |of| of.error = error);
    }
}

impl Drop for Unsigned {
    fn drop(&mut self) {
        self.ends.with(&self.name, |of| of.count = of.count.saturating_sub(1));
    }
}

impl Realm {
    /// `body`: the FORGET of an engine that these know, without its signature.
    pub(super) fn sign_end(self: &Arc<Self>, name: &str, body: Vec<u8>, sessions: Vec<Arc<PeerSession>>) {
        let unsigned = self.ends.begin(name);
        let realm = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut again = AGAIN_FIRST;
            loop {
                let Some(realm) = realm.upgrade() else { return };
                match realm.identity.signer.sign(&realm.identity, Purpose::Forget, &body).await {
                    Ok(signature) => return tell(&sessions, &[&body[..], &signature].concat()),
                    Err(error) => {
                        tracing::error!(engine = %unsigned.name, %error, "the end of an engine could not be signed");
                        unsigned.failed(Some(error));
                    }
                }
                drop(realm);
                tokio::time::sleep(again).await;
                if sessions.iter().all(|session| session.core.has_ended()) {
                    return;
                }
                again = (again * 2).min(AGAIN_LAST);
                unsigned.failed(None);
            }
        });
    }
}

pub(super) fn tell(sessions: &[Arc<PeerSession>], signed: &[u8]) {
    for session in sessions {
        if session.core.announce(FrameType::Forget, signed) {
            session.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn who_wants_the_name_of_an_engine_waits_until_its_end_is_signed_and_hears_why_it_is_not() {
        let ends = Arc::new(Ends::default());
        assert_eq!(ends.are_signed("e").await, Ok(()));
        let (first, second) = (ends.begin("e"), ends.begin("e"));
        assert_eq!(ends.are_signed("another").await, Ok(()));
        let mut waits = Box::pin(ends.are_signed("e"));
        assert!(poll!(&mut waits).is_pending());
        drop(first);
        assert!(poll!(&mut waits).is_pending());
        second.failed(Some(SignError::TimedOut));
        assert_eq!(waits.await, Err(SignError::TimedOut));
        assert_eq!(ends.are_signed("e").await, Err(SignError::TimedOut));
        // It is asked for again.
        second.failed(None);
        let mut waits = Box::pin(ends.are_signed("e"));
        assert!(poll!(&mut waits).is_pending());
        drop(second);
        assert_eq!(waits.await, Ok(()));
        assert!(ends.unsigned.lock().unwrap().is_empty());
    }
}
