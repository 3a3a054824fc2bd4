//! What many threads hand over to one writer, and how that ends: the part of a connection that they share.
//!
//! ```text
//!  append ──► queue ──► taken by the writer         open ──► draining ──► closed
//!     └─ notify, where nothing waited ──┘              └───── close ──────┘
//! ```
//!
//! `rust_tests/loom` compiles this file against other locks and goes through every order in which its threads may run.

use super::sync::{AtomicU8, Mutex, MutexGuard, Notify, OnceLock, Ordering, PoisonError};

/// What is handed over.
pub(super) trait Waiting {
    fn is_empty(&self) -> bool;
}

const OPEN: u8 = 0;
const DRAINING: u8 = 1;
const CLOSED: u8 = 2;

/// What the writer has to do when it has written what it takes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Wait,
    /// That was the last.
    Finish,
    /// Nobody waits for it.
    Stop,
}

#[derive(Debug)]
pub(super) struct HandOver<Q, E> {
    queue: Mutex<Q>,
    state: AtomicU8,
    end: OnceLock<E>,
    writer: Notify,
    reader: Notify,
}

impl<Q: Waiting, E> HandOver<Q, E> {
    pub(super) fn new(queue: Q) -> HandOver<Q, E> {
        HandOver {
            queue: Mutex::new(queue),
            state: AtomicU8::new(OPEN),
            end: OnceLock::new(),
            writer: Notify::new(),
            reader: Notify::new(),
        }
    }

    /// Once it has ended what is appended is lost.
    pub(super) fn append<F>(&self, append: impl FnOnce(&mut Q) -> Result<(), F>) -> Result<(), F> {
        if self.has_ended() {
            return Ok(());
        }
        let mut queue = self.queue();
        let idle = queue.is_empty();
        append(&mut queue)?;
        drop(queue);
        // The writer goes on until nothing is left.
        if idle {
            self.writer.notify_one();
        }
        Ok(())
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Q> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits is lost. Whoever is first says why.
    pub(super) fn close(&self, end: E) {
        let _ = self.end.set(end);
        self.state.swap(CLOSED, Ordering::AcqRel);
        self.reader.notify_one();
        self.writer.notify_one();
    }

    /// It ends when all has been written that was appended before this.
    pub(super) fn drain(&self) {
        let _ = self.state.compare_exchange(OPEN, DRAINING, Ordering::AcqRel, Ordering::Acquire);
        self.writer.notify_one();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == CLOSED
    }

    pub(super) fn end(&self) -> Option<&E> {
        self.end.get()
    }

    /// For the writer, before it takes what waits: what was appended before the end was wished is among that.
    pub(super) fn then(&self) -> Then {
        match self.state.load(Ordering::Acquire) {
            OPEN => Then::Wait,
            DRAINING => Then::Finish,
            _ => Then::Stop,
        }
    }

    /// For the writer: there is something to do.
    pub(super) async fn work(&self) {
        self.writer.notified().await;
    }

    /// For the reader: it is over.
    pub(super) async fn closed(&self) {
        self.reader.notified().await;
    }
}
