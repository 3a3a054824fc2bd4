//! Batches that are delivered before they are signed for, and the checkpoints that prove them (`protocol.md` 9.8).
//!
//! ```text
//!  sender      batch ─ batch ─ batch ─ CHECKPOINT ─ batch ─ CHECKPOINT        one chain of hashes over all batches;
//!  receiver    └ delivered at once ─┘      │                                  a checkpoint signs where it has come to
//!                                          └ now they are proven
//! ```
//!
//! Both sides keep a [`Chain`]. As everything sequenced comes in order, or the link ends, they have added the same batches when a
//! checkpoint is there: it covers all that is open, or it is wrong. A batch that is sent again over another link is not new to
//! either side, so it is in the chain once.
//!
//! **Time.** The sender has no clock: its driver is asked to come back ([`Proving::timer`]), once for each stretch of open batches.
//! The receiver counts from the first open batch on ([`Proofs`]); it is the driver's call of
//! [`crate::session::Session::handle_timeout`] that finds that nothing has come.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::codec::Writer;
use crate::error::{LinkError, PeerMisbehaved};
use crate::frame::checkpoint::Checkpoint;
use crate::identity::RealmId;
use crate::limits::Limits;
use crate::UnixMs;

/// A sender says where its chain is at the latest after so much, though its time has not come: what a receiver keeps open is
/// bounded, and over a slow carrier a checkpoint must not be far behind what it proves.
const CHECKPOINT_AFTER_MESSAGES: u64 = 16_384;
const CHECKPOINT_AFTER_BYTES: u64 = 256 * 1024;

/// Batches that no checkpoint covers yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Numbers of the first and last message.
    pub first: u64,
    pub last: u64,
    pub messages: u64,
    pub bytes: u64,
}

/// The hash over the batches of one direction of a session, and how far it is signed for.
#[derive(Debug)]
pub(crate) struct Chain {
    value: [u8; 32],
    open: Option<Open>,
}

impl Chain {
    pub fn new(session: &[u8; 32], sender: &RealmId) -> Chain {
        let mut material = Vec::with_capacity(64);
        material.put(session);
        material.put(&sender.0);
        Chain { value: blake3::derive_key("legation/1/checkpoint", &material), open: None }
    }

    /// `body`: what a signature of the batch would be over.
    pub fn add(&mut self, first: u64, count: u64, body: &[u8]) {
        let mut link = [0; 64];
        link[..32].copy_from_slice(&self.value);
        link[32..].copy_from_slice(blake3::hash(body).as_bytes());
        self.value = *blake3::hash(&link).as_bytes();
        let last = first + count - 1;
        let bytes = body.len() as u64;
        self.open = Some(match self.open {
            Some(open) => Open { last, messages: open.messages + count, bytes: open.bytes + bytes, ..open },
            None => Open { first, last, messages: count, bytes },
        });
    }

    pub fn open(&self) -> Option<Open> {
        self.open
    }

    /// The checkpoint that covers all that is open. From here on nothing is.
    pub fn close(&mut self) -> Option<Checkpoint> {
        let open = self.open.take()?;
        Some(Checkpoint { first: open.first, last: open.last, chain: self.value })
    }
}

/// The sender's side.
#[derive(Debug)]
pub(crate) struct Proving {
    pub chain: Chain,
    /// The driver has been asked to come back.
    timed: bool,
}

impl Proving {
    pub fn new(chain: Chain) -> Proving {
        Proving { chain, timed: false }
    }

    /// Too much is open to wait for the time.
    pub fn is_full(&self) -> bool {
        let full = |open: Open| open.messages >= CHECKPOINT_AFTER_MESSAGES || open.bytes >= CHECKPOINT_AFTER_BYTES;
        self.chain.open().is_some_and(full)
    }

    /// True once: the driver has to come back in its time.
    pub fn timer(&mut self) -> bool {
        let begins = self.chain.open().is_some() && !self.timed;
        self.timed |= begins;
        begins
    }

    /// The driver has come back, or won't.
    pub fn timer_is_over(&mut self) {
        self.timed = false;
    }
}

/// What of the peer's is open, for whoever wants to know it while the session is at work, or when it has ended.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// 0: nothing is.
    messages: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
}

impl Published {
    pub fn set(&self, open: Option<Open>) {
        let (first, last, messages) = open.map_or((0, 0, 0), |open| (open.first, open.last, open.messages));
        self.first.store(first, Ordering::Relaxed);
        self.last.store(last, Ordering::Relaxed);
        self.messages.store(messages, Ordering::Release);
    }

    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Acquire)
    }

    pub fn range(&self) -> Option<(u64, u64)> {
        (self.messages() > 0).then(|| (self.first.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed)))
    }
}

/// What a receiver has of it that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// More than may be open at a time.
    TooMuch,
    /// A checkpoint of other batches than came.
    Wrong,
    /// None in time.
    Late,
}

impl From<Unproven> for LinkError {
    fn from(unproven: Unproven) -> LinkError {
        PeerMisbehaved::Unproven(match unproven {
            Unproven::TooMuch => "there is more of it than may be",
            Unproven::Wrong => "its checkpoint is wrong",
            Unproven::Late => "no checkpoint has come in time",
        })
        .into()
    }
}

/// The receiver's side.
#[derive(Debug)]
pub(crate) struct Proofs {
    chain: Chain,
    messages_max: u64,
    bytes_max: u64,
    patience_ms: u64,
    /// From when on the peer is waited for.
    since: UnixMs,
}

impl Proofs {
    pub fn new(chain: Chain, limits: &Limits) -> Proofs {
        Proofs {
            chain,
            messages_max: limits.unproven_messages_max,
            bytes_max: limits.unproven_bytes_max,
            patience_ms: limits.checkpoint_patience_ms,
            since: 0,
        }
    }

    pub fn open(&self) -> Option<Open> {
        self.chain.open()
    }

    /// A batch, before anything of it is delivered. One alone may be larger than all may be together.
    ///
    /// # Errors
    /// When there is too much already: it is not to be delivered.
    pub fn add(&mut self, now: UnixMs, first: u64, count: u64, body: &[u8]) -> Result<(), Unproven> {
        match self.chain.open() {
            Some(open) if open.bytes + body.len() as u64 > self.bytes_max => return Err(Unproven::TooMuch),
            Some(open) if open.messages + count > self.messages_max => return Err(Unproven::TooMuch),
            None if count > self.messages_max => return Err(Unproven::TooMuch),
            Some(_) => {}
            None => self.since = now,
        }
        self.chain.add(first, count, body);
        Ok(())
    }

    /// `verified`: whether the signature is good, asked only where all else is right.
    ///
    /// # Errors
    /// When it is not the one that has to come here; then what is open stays so.
    pub fn cover(&mut self, checkpoint: &Checkpoint, verified: impl FnOnce() -> bool) -> Result<(), Unproven> {
        let open = self.chain.open().ok_or(Unproven::Wrong)?;
        let expected = Checkpoint { first: open.first, last: open.last, chain: self.chain.value };
        if *checkpoint != expected || !verified() {
            return Err(Unproven::Wrong);
        }
        self.chain.close();
        Ok(())
    }

    /// The peer has been out of reach, or is still repeating what it sent before.
    pub fn wait_anew(&mut self, now: UnixMs) {
        self.since = now;
    }

    /// When to look whether a checkpoint has come. None while nothing is open.
    pub fn deadline(&self) -> Option<UnixMs> {
        self.chain.open().map(|_| self.since.saturating_add(self.patience_ms))
    }

    /// # Errors
    /// When none has come in time.
    pub fn check_time(&self, now: UnixMs) -> Result<(), Unproven> {
        match self.deadline() {
            Some(deadline) if now >= deadline => Err(Unproven::Late),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
