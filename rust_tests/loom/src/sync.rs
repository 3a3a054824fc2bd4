//! What [`crate::hand_over`] is made of.

pub(crate) use std::sync::{OnceLock, PoisonError};

pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// `tokio::sync::Notify` for one that waits: it keeps one notification that nobody has waited for, and no more.
#[derive(Debug)]
pub(crate) struct Notify {
    notified: Mutex<bool>,
    changed: loom::sync::Condvar,
}

impl Notify {
    pub(crate) fn new() -> Notify {
        Notify { notified: Mutex::new(false), changed: loom::sync::Condvar::new() }
    }

    pub(crate) fn notify_one(&self) {
        *self.notified.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Whether there was a notification; without waiting for one.
    pub(crate) fn take(&self) -> bool {
        std::mem::take(&mut *self.notified.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The thread waits: there is none but this future in it.
    pub(crate) async fn notified(&self) {
        let mut notified = self.notified.lock().unwrap_or_else(PoisonError::into_inner);
        while !*notified {
            notified = self.changed.wait(notified).unwrap_or_else(PoisonError::into_inner);
        }
        *notified = false;
    }
}
