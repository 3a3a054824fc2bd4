//! Ends of engines that a key agent has still to sign.
//!
//! Until peers hear of an end their calls, their monitors and what stands for the engine there go on. So it is asked for until it is
//! signed, or nobody is left to hear of it. And nobody is published under the name before: a FORGET that the next LEARN has
//! overtaken is nothing (`protocol.md` 11.4).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use legation_proto::frame::FrameType;
use legation_proto::identity::Purpose;
use tokio::sync::{Notify, Semaphore};

use crate::identity::SignError;
use crate::peers::PeerSession;
use crate::realm::Realm;

/// From one try to the next: the second comes after that, and each waits twice as long as the one before, up to the last. Who wants the
/// name has it asked for at once.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(30);

pub struct Ends {
    unsigned: Mutex<HashMap<Box<str>, OfName>>,
    changed: Notify,
    rung: Notify,
    /// Those that are asked for again go one by one: however many there are, an agent has time for hellos.
    turn: Semaphore,
}

#[derive(Default)]
struct OfName {
    /// That are being asked for, and that wait until they are asked for again.
    asked: usize,
    waiting: usize,
    /// Tries that came to nothing, and why the last of them did.
    failed: u64,
    error: Option<SignError>,
    /// How often somebody wanted the name while they waited.
    rings: u64,
}

/// One of them, until it is dropped.
struct Unsigned {
    ends: Arc<Ends>,
    name: Box<str>,
    waits: bool,
    /// Of the rings.
    heard: u64,
}

impl Default for Ends {
    fn default() -> Ends {
        Ends { unsigned: Mutex::default(), changed: Notify::new(), rung: Notify::new(), turn: Semaphore::new(1) }
    }
}

impl Ends {
    fn begin(self: &Arc<Ends>, name: &str) -> Unsigned {
        self.with(name, |of| of.asked += 1);
        Unsigned { ends: self.clone(), name: name.into(), waits: false, heard: 0 }
    }

    /// Returns when none of this name is left. Those that wait to be asked for again are asked for now.
    ///
    /// # Errors
    /// Why one of them was not signed.
    pub(super) async fn are_signed(&self, name: &str) -> Result<(), SignError> {
        let mut failed_before = None;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // What changes from here on is not missed.
            changed.as_mut().enable();
            match self.lock().get_mut(name) {
                None => return Ok(()),
                Some(of) => match (failed_before, &of.error) {
                    (Some(before), Some(error)) if of.failed > before => return Err(error.clone()),
                    (None, _) => {
                        failed_before = Some(of.failed);
                        of.rings += 1;
                        self.rung.notify_waiters();
                    }
                    _ => {}
                },
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, OfName>> {
        self.unsigned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &str, change: impl FnOnce(&mut OfName) -> T) -> T {
        let mut unsigned = self.lock();
        let entry = unsigned.entry(name.into()).or_default();
        let changed = change(entry);
        if entry.asked + entry.waiting == 0 {
            unsigned.remove(name);
        }
        drop(unsigned);
        self.changed.notify_waiters();
        changed
    }
}

impl Unsigned {
    fn failed(&mut self, error: SignError) {
        self.waits = true;
        self.heard = self.ends.with(&self.name, |of| {
            (of.asked, of.waiting) = (of.asked - 1, of.waiting + 1);
            (of.failed, of.error) = (of.failed + 1, Some(error));
            of.rings
        });
    }

    fn again(&mut self) {
        self.waits = false;
        self.ends.with(&self.name, |of| (of.asked, of.waiting) = (of.asked + 1, of.waiting - 1));
    }

    /// Until it is time, or somebody wants the name.
    async fn pause(&self, wait: Duration) {
        let mut over = std::pin::pin!(tokio::time::sleep(wait));
        loop {
            let mut rung = std::pin::pin!(self.ends.rung.notified());
            rung.as_mut().enable();
            if self.ends.lock().get(&self.name).is_some_and(|of| of.rings != self.heard) {
                return;
            }
            tokio::select! {
                () = &mut over => return,
                () = rung => {}
            }
        }
    }
}

impl Drop for Unsigned {
    fn drop(&mut self) {
        let waits = self.waits;
        self.ends.with(&self.name, |of| match waits {
            true => of.waiting -= 1,
            false => of.asked -= 1,
        });
    }
}

impl Realm {
    /// `body`: the FORGET of an engine that these know, without its signature.
    pub(super) fn sign_end(self: &Arc<Self>, name: &str, body: Vec<u8>, sessions: Vec<Arc<PeerSession>>) {
        let mut unsigned = self.ends.begin(name);
        let realm = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut again = None;
            loop {
                let ends = unsigned.ends.clone();
                let _turn = match again {
                    Some(_) => ends.turn.acquire().await.ok(),
                    None => None,
                };
                if sessions.iter().all(|session| session.core.has_ended()) {
                    return;
                }
                let Some(realm) = realm.upgrade() else { return };
                match realm.identity.signer.sign(&realm.identity, Purpose::Forget, &body).await {
                    Ok(signature) => return tell(&sessions, &[&body[..], &signature].concat()),
                    Err(error) if again.is_none() => {
                        tracing::error!(engine = %unsigned.name, %error, "the end of an engine could not be signed");
                        unsigned.failed(error);
                    }
                    Err(error) => unsigned.failed(error),
                }
                drop((realm, _turn));
                let wait = again.map_or(AGAIN_FIRST, |wait: Duration| (wait * 2).min(AGAIN_LAST));
                unsigned.pause(wait).await;
                again = Some(wait);
                unsigned.again();
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
        let (first, mut second) = (ends.begin("e"), ends.begin("e"));
        assert_eq!(ends.are_signed("another").await, Ok(()));
        let mut waits = Box::pin(ends.are_signed("e"));
        assert!(poll!(&mut waits).is_pending());
        drop(first);
        assert!(poll!(&mut waits).is_pending());
        second.failed(SignError::TimedOut);
        assert_eq!(waits.await, Err(SignError::TimedOut));
        // It is asked for again.
        second.again();
        let mut waits = Box::pin(ends.are_signed("e"));
        assert!(poll!(&mut waits).is_pending());
        drop(second);
        assert_eq!(waits.await, Ok(()));
        assert!(ends.lock().is_empty());
    }

    #[tokio::test]
    async fn an_end_that_waits_to_be_asked_for_again_is_asked_for_when_somebody_wants_the_name() {
        let ends = Arc::new(Ends::default());
        let mut first = ends.begin("e");
        first.failed(SignError::TimedOut);
        // Another of that name, which is signed, changes nothing.
        drop(ends.begin("e"));
        let mut pause = Box::pin(first.pause(Duration::from_secs(3_600)));
        assert!(poll!(&mut pause).is_pending());
        let mut waits = Box::pin(ends.are_signed("e"));
        assert!(poll!(&mut waits).is_pending());
        pause.await;
        first.again();
        assert!(poll!(&mut waits).is_pending());
        first.failed(SignError::TimedOut);
        assert_eq!(waits.await, Err(SignError::TimedOut));
        // Nobody has wanted it since.
        assert!(poll!(Box::pin(first.pause(Duration::from_secs(3_600)))).is_pending());
        first.again();
        drop(first);
        assert_eq!(ends.are_signed("e").await, Ok(()));
        assert!(ends.lock().is_empty());
    }
}
