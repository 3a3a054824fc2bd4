//! A session: what two realms have between them, over one link after another.
//!
//! ```text
//!  push, push_call, reply ──► Queue ──► flush ──► bytes for the channel of the active link
//!  bytes of a link's channel ──► handle_bytes ──► events
//! ```
//!
//! Four kinds of methods: **in from above** (`push`, `push_call`, `reply`, `refuse`, `announce`, `release`, `cancel`) append and
//! return whether the active link's writer must be woken; **in from below** ([`Session::handle_bytes`]) gives events to a
//! sink; **out** ([`Session::flush`]) gives bytes; **time** ([`Session::handle_timeout`]) gives the next deadline. The last three
//! are of one link ([`Attachment`]), see [`linking`].
//!
//! Methods take `&self`: each part has its own lock, so that pushes never wait for crypto. Order in which locks may be
//! taken: a link's inbound, inbound, outbound, a link's outbound, replay, calls, queue, lanes or debts. A single-threaded driver pays for uncontended
//! locks and nothing else.

mod attachment;
mod calls;
mod counters;
mod credit;
mod flow;
mod fragments;
mod inbound;
mod lanes;
mod linking;
mod named;
mod outbound;
mod peer_identity;
mod queue;
mod replay;
mod room;
mod shares;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::CloseCode;
use crate::etf;
use crate::frame::batch::{kind, Refusal};
use crate::frame::forget::ForgetReason;
use crate::frame::handle_release::Release;
use crate::frame::learn::Learn;
use crate::frame::FrameType;
use crate::hello::Agreed;
use crate::identity::{check_public_key, is_engine_name, KeyError};
use crate::keyring::Keyring;
use crate::limits::{Limits, Overflow};
use crate::rotation::Rotation;
use crate::UnixMs;

pub use attachment::Attachment;
pub use calls::Pending;
pub use counters::{Counter, Counters};
pub use inbound::Acknowledge;
pub use linking::Wake;
pub use room::Room;

use calls::{Calls, Served};
use credit::Debts;
use inbound::Inbound;
use lanes::Lanes;
use outbound::Outbound;
use peer_identity::PeerIdentity;
use queue::{Full, NewMessage, NewPayload, Queue};
use replay::Replay;

/// What comes out of [`Session::handle_bytes`], in order. Borrowed from the receive buffer.
#[derive(Debug)]
pub enum Event<'a> {
    /// A cast or a plain message for an engine of ours.
    Deliver {
        delivery: Delivery,
        destination: &'a str,
        /// The engine that signed it; empty for the realm itself.
        source: &'a str,
        payload: &'a [u8],
        receipt: Option<Vec<u8>>,
    },
    /// A call to an engine of ours. To be answered by [`Session::reply`] or [`Session::refuse`].
    Call {
        destination: &'a str,
        source: &'a str,
        label: u8,
        call_id: u64,
        caller: u64,
        payload: &'a [u8],
        receipt: Option<Vec<u8>>,
    },
    /// The answer to a call of ours; `context` is what [`Session::push_call`] was given.
    Reply {
        context: &'a [u8],
        payload: &'a [u8],
    },
    Refused {
        context: &'a [u8],
        refusal: Refusal,
    },
    Learned(&'a Learn),
    Forgotten {
        engine: &'a str,
        reason: ForgetReason,
    },
    /// The peer has another identity key from now on. The list knows it by its first one, as before.
    Rotated(&'a Rotation),
    /// The process behind a caller number of the peer's has ended.
    Released {
        caller: u64,
    },
    /// The peer's CLOSE: nothing comes after it.
    Closed {
        code: CloseCode,
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Send,
    Cast,
}

/// Why a push was refused. The caller's or our own bound's fault, never the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    #[error("the outbound queue or the table of calls is full")]
    Overload,
    /// [`crate::limits::Overflow::Disconnect`]: the driver closes the link with [`CloseCode::Overload`].
    #[error("the outbound queue is full, which is to end the link")]
    Disconnect,
    #[error("the payload is over the limit")]
    TooLarge,
    #[error("the payload holds a pid, reference, port or fun")]
    Identifiers,
    #[error("the payload is no external term within the bounds")]
    BadTerm,
    #[error("the call is not being served: answered already, or its caller is gone")]
    UnknownCall,
    #[error("no engine has such a name")]
    BadName,
    #[error("the session has ended")]
    Ended,
}

/// A call as it is pushed.
#[derive(Clone, Copy, Debug)]
pub struct NewCall<'a> {
    pub destination: &'a str,
    /// See [`crate::frame::batch::label`].
    pub label: u8,
    /// Signing engine; falls back to the realm when the peer has not been told of it.
    pub source: &'a str,
    /// The driver's key for the calling process.
    pub caller: &'a [u8],
    /// How to answer it; comes back in [`Event::Reply`].
    pub context: &'a [u8],
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushedCall {
    pub call_id: u64,
    pub wake: bool,
    /// The number of the calling process, when this is its first call: the driver watches it and says
    /// [`Session::release_caller`] when it ends.
    pub new_caller: Option<u64>,
}

/// What both halves read.
pub(crate) struct Shared {
    pub agreed: Agreed,
    pub limits: Limits,
    pub keyring: Arc<Keyring>,
    pub counters: Counters,
    /// The last sequence number that was signed, and the last of the peer's that was handed to mailboxes.
    pub sent_sequence: AtomicU64,
    pub delivered: AtomicU64,
}

pub struct Session {
    shared: Shared,
    ended: AtomicBool,
    /// Of our chain, in the hello and since.
    told_rotations: AtomicUsize,
    told_revocation: AtomicBool,
    /// Numbers of links: the last that was given, and the one that is sent on; 0: none.
    last_link: AtomicU64,
    active: AtomicU64,
    /// The last flush did not get to everything that it took.
    flush_left_over: AtomicBool,
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outbound>,
    replay: Mutex<Replay>,
    calls: Mutex<Calls>,
    queue: Mutex<Queue>,
    /// What waits for one destination.
    lanes: Mutex<Lanes>,
    /// What we have to grant the peer, when mailboxes have been looked at.
    debts: Mutex<Debts>,
    any_due: AtomicBool,
}

impl Session {
    /// # Errors
    /// When the peer's identity key is unusable; [`crate::hello::Handshake`] has checked it before.
    pub fn new(agreed: Agreed, limits: Limits, keyring: Arc<Keyring>) -> Result<Session, KeyError> {
        let identity = check_public_key(&agreed.peer_key)?;
        Ok(Session {
            ended: AtomicBool::new(false),
            told_rotations: AtomicUsize::new(agreed.own_rotations),
            told_revocation: AtomicBool::new(false),
            last_link: AtomicU64::new(0),
            active: AtomicU64::new(0),
            flush_left_over: AtomicBool::new(false),
            inbound: Mutex::new(Inbound::new(PeerIdentity::new(identity, &agreed), limits.message_bytes_max)),
            outbound: Mutex::new(Outbound::new(agreed.peer_message_bytes_max)),
            replay: Mutex::new(Replay::new(limits.resume_bytes_max)),
            calls: Mutex::new(Calls::default()),
            queue: Mutex::new(Queue::new(limits.queue_bytes_max, limits.engine_queue_bytes_max, limits.overflow)),
            lanes: Mutex::new(Lanes::new(agreed.peer_credit_bytes, limits.overflow == Overflow::Oldest)),
            debts: Mutex::new(Debts::new(limits.credit_bytes)),
            any_due: AtomicBool::new(false),
            shared: Shared {
                agreed,
                limits,
                keyring,
                counters: Counters::default(),
                sent_sequence: AtomicU64::new(0),
                delivered: AtomicU64::new(0),
            },
        })
    }

    pub fn agreed(&self) -> &Agreed {
        &self.shared.agreed
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    // In from above.

    /// A cast or a plain message. `Ok(true)`: wake the Writer.
    pub fn push(
        &self,
        delivery: Delivery,
        source: &str,
        destination: &str,
        payload: &[u8],
        aligned: bool,
    ) -> Result<bool, PushError> {
        check_destination(destination)?;
        self.check_push(source, payload)?;
        let kind = match delivery {
            Delivery::Send => kind::SEND,
            Delivery::Cast => kind::CAST,
        };
        let message = NewMessage {
            kind,
            detail: 0,
            aligned,
            call_id: 0,
            caller: 0,
            source,
            destination,
            payload: self.new_payload(payload),
        };
        self.enqueue(message, false)
    }

    fn new_payload<'a>(&self, payload: &'a [u8]) -> NewPayload<'a> {
        NewPayload::of(payload, self.shared.limits.fragment_bytes)
    }

    fn enqueue(&self, message: NewMessage<'_>, always: bool) -> Result<bool, PushError> {
        let pushed = lock(&self.queue).push(message, always, &self.lanes, &self.shared.counters);
        pushed.map_err(|full| match full {
            Full::Refused => PushError::Overload,
            Full::Disconnect => PushError::Disconnect,
        })
    }

    pub fn push_call(&self, now: UnixMs, call: &NewCall<'_>) -> Result<PushedCall, PushError> {
        check_destination(call.destination)?;
        self.check_push(call.source, call.payload)?;
        let payload = self.new_payload(call.payload);
        let pending = Pending { context: call.context.into(), destination: call.destination.into(), since: now };
        let mut calls = lock(&self.calls);
        let begun = calls.begin(call.caller, pending, &self.shared.limits);
        let begun = begun.map_err(|bound| {
            self.shared.counters.over(bound);
            self.shared.counters.overload_out.one();
            PushError::Overload
        })?;
        let message = NewMessage {
            kind: kind::GENCALL,
            detail: call.label,
            aligned: false,
            call_id: begun.call_id,
            caller: begun.caller,
            source: call.source,
            destination: call.destination,
            payload,
        };
        let wake = self.enqueue(message, false).inspect_err(|_| {
            calls.finish(begun.call_id);
            if begun.new_caller {
                calls.release_own_caller(begun.caller);
            }
        })?;
        self.shared.counters.calls_pending.set(calls.pending() as u64);
        Ok(PushedCall { call_id: begun.call_id, wake, new_caller: begun.new_caller.then_some(begun.caller) })
    }

    /// Answers a call of the peer's. `Ok(true)`: wake the Writer. A payload that can't go is counted, and the caller is
    /// sent a refusal in its place, so that it doesn't wait.
    ///
    /// # Errors
    /// [`PushError::UnknownCall`] when it was answered before or its caller is gone.
    pub fn reply(&self, call_id: u64, payload: &[u8]) -> Result<bool, PushError> {
        let refusal = match self.check_push("", payload) {
            Ok(()) => None,
            Err(PushError::Ended) => return Err(PushError::Ended),
            Err(PushError::TooLarge) => Some(Refusal::TooLarge),
            Err(PushError::Identifiers) => Some(Refusal::Identifiers),
            Err(_) => Some(Refusal::Undecodable),
        };
        if let Some(refusal) = refusal {
            return Ok(self.refuse(call_id, refusal));
        }
        let payload = self.new_payload(payload);
        let served = {
            let mut calls = lock(&self.calls);
            let served = calls.served(call_id).ok_or(PushError::UnknownCall)?;
            self.shared.counters.calls_served.set(calls.being_served() as u64);
            served
        };
        let message = NewMessage {
            kind: kind::REPLY,
            detail: 0,
            aligned: false,
            call_id,
            caller: served.caller,
            source: &served.engine,
            destination: "",
            payload,
        };
        let pushed = self.enqueue(message, true);
        Ok(pushed.unwrap_or_else(|_| self.push_refusal(call_id, &served, Refusal::Overload)))
    }

    /// Refuses a call of the peer's. True: wake the Writer.
    pub fn refuse(&self, call_id: u64, refusal: Refusal) -> bool {
        let served = {
            let mut calls = lock(&self.calls);
            let served = calls.served(call_id);
            self.shared.counters.calls_served.set(calls.being_served() as u64);
            served
        };
        match served {
            Some(served) => self.push_refusal(call_id, &served, refusal),
            None => false,
        }
    }

    /// Refuses all calls of one of the peer's processes that are being served: nothing can answer them any more.
    pub fn abandon(&self, caller: u64) -> bool {
        let abandoned = {
            let mut calls = lock(&self.calls);
            let abandoned = calls.abandon(caller);
            self.shared.counters.calls_served.set(calls.being_served() as u64);
            abandoned
        };
        abandoned
            .into_iter()
            .fold(false, |wake, (call_id, served)| self.push_refusal(call_id, &served, Refusal::Abandoned) | wake)
    }

    /// An ERROR has no payload: it goes even when the queue is full of answers.
    fn push_refusal(&self, call_id: u64, served: &Served, refusal: Refusal) -> bool {
        let message = NewMessage {
            kind: kind::ERROR,
            detail: refusal as u8,
            aligned: false,
            call_id,
            caller: served.caller,
            source: &served.engine,
            destination: "",
            payload: NewPayload::Slice(&[]),
        };
        self.enqueue(message, true).unwrap_or(false)
    }

    /// LEARN, FORGET or CERT with its signature, for the peer. What our identity key has become meanwhile goes first.
    pub fn announce(&self, kind: FrameType, signed: &[u8]) -> bool {
        if self.ended.load(Ordering::Relaxed) {
            return false;
        }
        let mut queue = lock(&self.queue);
        let wake = self.announce_identity(&mut queue);
        queue.announce(kind, signed.into()) | wake
    }

    /// Tells the peer of rotations of our identity key that it has not been told of, and of its revocation. True: wake the
    /// Writer.
    pub fn tell_identity(&self) -> bool {
        match self.ended.load(Ordering::Relaxed) {
            true => false,
            false => self.announce_identity(&mut lock(&self.queue)),
        }
    }

    /// `told` changes under the queue's lock alone, so each is told once, and in order.
    fn announce_identity(&self, queue: &mut Queue) -> bool {
        let identity = self.shared.keyring.identity();
        let mut wake = false;
        let told = self.told_rotations.swap(identity.chain().len(), Ordering::Relaxed);
        for rotation in identity.chain().iter().skip(told) {
            wake |= queue.announce(FrameType::Rotate, rotation.encode().into());
        }
        if let Some(revocation) = identity.revocation() {
            if !self.told_revocation.swap(true, Ordering::Relaxed) {
                wake |= queue.announce(FrameType::Revoke, revocation.encode().into());
            }
        }
        wake
    }

    /// A process of ours that had a caller number has ended.
    pub fn release_caller(&self, number: u64) -> bool {
        let mut calls = lock(&self.calls);
        let known = calls.release_own_caller(number);
        self.shared.counters.calls_pending.set(calls.pending() as u64);
        drop(calls);
        known && lock(&self.queue).release(Release::Caller(number))
    }

    /// Nobody waits for a call of ours any more.
    pub fn cancel(&self, call_id: u64) -> bool {
        let mut calls = lock(&self.calls);
        let known = calls.finish(call_id).is_some();
        self.shared.counters.calls_pending.set(calls.pending() as u64);
        drop(calls);
        known && lock(&self.queue).release(Release::Call(call_id))
    }

    /// How many calls of ours to one engine are in flight.
    pub fn calls_pending_at(&self, engine: &str) -> usize {
        lock(&self.calls).pending_at(engine)
    }

    /// Calls of ours that have been in flight for `age_ms` or longer, given to `each` with id, destination and context.
    pub fn sweep(&self, now: UnixMs, age_ms: u64, mut each: impl FnMut(u64, &Pending)) {
        let calls = lock(&self.calls);
        for (call_id, pending) in calls.older_than(now.saturating_sub(age_ms)) {
            each(call_id, pending);
        }
    }

    /// Receipts are made for messages to these engines of ours, too.
    pub fn make_receipts_for(&self, engines: impl Iterator<Item = Box<str>>) {
        lock(&self.inbound).make_receipts_for(engines);
    }

    /// From now on every push fails with [`PushError::Ended`].
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        lock(&self.queue).waiters.serve_all();
    }

    fn check_push(&self, source: &str, payload: &[u8]) -> Result<(), PushError> {
        let (limits, counters) = (&self.shared.limits, &self.shared.counters);
        if self.ended.load(Ordering::Relaxed) {
            return Err(PushError::Ended);
        }
        if source.len() > 255 {
            return Err(PushError::BadName);
        }
        let largest = limits.message_bytes_max.min(self.shared.agreed.peer_message_bytes_max);
        if payload.len() > largest as usize {
            counters.too_large_out.one();
            return Err(PushError::TooLarge);
        }
        match etf::scan(payload, &limits.term) {
            Ok(()) => Ok(()),
            Err(error) if error.is_identifiers() => {
                counters.identifiers_out.one();
                Err(PushError::Identifiers)
            }
            Err(_) => {
                counters.bad_term_out.one();
                Err(PushError::BadTerm)
            }
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").field("agreed", &self.shared.agreed).finish_non_exhaustive()
    }
}

/// The peer would close the link over any other name.
fn check_destination(name: &str) -> Result<(), PushError> {
    match is_engine_name(name) {
        true => Ok(()),
        false => Err(PushError::BadName),
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under a lock is caught at the NIF's border; what it left is consistent enough to end the session with.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
