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

mod announced;
mod attachment;
mod calls;
mod certified;
mod checkpoint;
mod counters;
mod credit;
mod crossing;
mod delivery;
mod flow;
mod fragments;
mod groups;
mod handles;
mod inbound;
mod lanes;
mod linking;
mod message;
mod named;
mod outbound;
mod peer_identity;
mod queue;
mod reasons;
mod replay;
mod room;
mod shares;
mod slice;
mod windows;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::CloseCode;
use crate::etf;
use crate::frame::batch::{kind, Address, Refusal};
use crate::frame::forget::ForgetReason;
use crate::frame::handle_release::Release;
use crate::frame::learn::Learn;
use crate::frame::FrameType;
use crate::hello::Agreed;
use crate::keyring::Keyring;
use crate::limits::{Limits, Overflow};
use crate::rotation::Rotation;
use crate::signing::Mode;
use crate::sync::lock_soon;
use crate::UnixMs;

pub(crate) use crate::sync::lock;

pub use attachment::Attachment;
pub use calls::Pending;
pub use counters::{Counter, Counters};
pub use crossing::{ExitKind, Locals, TranslateError, Wanted};
pub use handles::{DropOutcome, Exported, NoRoom};
pub use inbound::Acknowledge;
pub use linking::Wake;
pub use room::Room;
pub use slice::{Rest, Slice};

use calls::{Calls, Served};
use checkpoint::Published;
use credit::Debts;
use crossing::{handle, refusal_of, Crossing};
use inbound::Inbound;
use lanes::Lanes;
use message::{NewMessage, NewPayload};
use outbound::Outbound;
use peer_identity::PeerIdentity;
use queue::{Full, Queue};
use replay::Replay;

/// What comes out of [`Session::handle_bytes`], in order. Borrowed from the receive buffer.
///
/// `handles`: the payload holds pids or references in the form that they have on the wire. It is for
/// [`Session::translate_in`] or [`Session::discard_in`], one of which must be called for it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A cast or a plain message for an engine or another process of ours.
    Deliver {
        delivery: Delivery,
        destination: Destination<'a>,
        /// The engine that signed it; empty for the realm itself.
        source: &'a str,
        payload: &'a [u8],
        handles: bool,
        receipt: Option<Vec<u8>>,
    },
    /// A call to an engine or another process of ours. To be answered by [`Session::reply`] or [`Session::refuse`].
    Call {
        destination: Destination<'a>,
        source: &'a str,
        label: u8,
        /// Our number for it: the peer's may come twice.
        call_id: u64,
        /// The peer's number for the calling process, the same as in payloads. With a stand-in
        /// ([`Session::bind_import`]) it lives until that is dropped, without one until its calls are answered.
        caller: u64,
        payload: &'a [u8],
        handles: bool,
        receipt: Option<Vec<u8>>,
    },
    /// The answer to a call of ours; `context` is what [`Session::push_call`] was given.
    Reply {
        context: &'a [u8],
        payload: &'a [u8],
        handles: bool,
    },
    Refused {
        context: &'a [u8],
        refusal: Refusal,
    },
    /// An exit signal for an engine or another process of ours. [`Session::settle_handle`] must be called for `from`.
    Exit {
        exit: ExitKind,
        /// The peer's number for the process that it comes from.
        from: u64,
        destination: Destination<'a>,
        source: &'a str,
        /// The reason.
        payload: &'a [u8],
        handles: bool,
    },
    Learned(&'a Learn),
    Forgotten {
        engine: &'a str,
        reason: ForgetReason,
        term: Option<ReasonTerm<'a>>,
    },
    /// The peer has another identity key from now on. The list knows it by its first one, as before.
    Rotated(&'a Rotation),
    /// A process of the peer's that it gave to us has ended, and so have calls of it and to it. Its stand-in, if there is one,
    /// exits, and [`Session::drop_import`] must be called.
    HandleEnded {
        number: u64,
        reason: ForgetReason,
        term: Option<ReasonTerm<'a>>,
    },
    /// A process of ours that the peer doesn't have any more: it need not be watched.
    Unexported {
        number: u64,
    },
    /// [`Session::handle_timeout`] of this link has to be called so many ms from now, earlier than it said.
    TimeoutIn(u64),
    /// The peer's CLOSE: nothing comes after it.
    Closed {
        code: CloseCode,
        text: String,
    },
}

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    Engine(&'a str),
    /// A process that the peer was given.
    Process {
        /// Our number for it.
        number: u64,
        /// External term format without the leading 131.
        pid: Arc<[u8]>,
    },
}

/// Why something ended, as the peer's Erlang system has it. Of a peer that tells more than the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonTerm<'a> {
    pub payload: &'a [u8],
    /// As in [`Event`]. One that is not wanted is for [`Session::discard_in`].
    pub handles: bool,
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
    #[error("the payload holds a port or fun, or a pid or reference where they may not cross")]
    Identifiers,
    #[error("the payload is no external term within the bounds")]
    BadTerm,
    #[error("the call is not being served: answered already, or its caller is gone")]
    UnknownCall,
    #[error("no engine has such a name")]
    BadName,
    #[error("the process has ended, or its stand-in was dropped")]
    UnknownHandle,
    #[error("the session has ended")]
    Ended,
    /// Only of the methods whose names end in `_soon`: another thread has what is needed, for longer than it should. To be pushed again by
    /// one that may wait, before anything else of its process.
    #[error("another thread is at work on the session")]
    Busy,
}

/// Whether a push may wait for other threads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Waits,
    Soon,
}

impl Patience {
    fn lock<T>(self, mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>, PushError> {
        match self {
            Patience::Waits => Ok(lock(mutex)),
            Patience::Soon => lock_soon(mutex).ok_or(PushError::Busy),
        }
    }
}

/// A call as it is pushed.
#[derive(Clone, Copy, Debug)]
pub struct NewCall<'a> {
    /// An engine's name, or the text of an [`Address`].
    pub destination: &'a str,
    /// See [`crate::frame::batch::label`].
    pub label: u8,
    /// Signing engine; falls back to the realm when the peer has not been told of it.
    pub source: &'a str,
    /// The pid of the calling process, in external term format without the leading 131.
    pub caller: &'a [u8],
    /// How to answer it; comes back in [`Event::Reply`].
    pub context: &'a [u8],
    pub payload: &'a [u8],
}

/// A message that has been queued.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// The active link's writer must be woken.
    pub wake: bool,
    /// Processes of ours that the peer is given with it for the first time.
    pub exported: Vec<Exported>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedCall {
    pub call_id: u64,
    pub wake: bool,
    /// As in [`Pushed`]. The calling process is among them when this is its first call.
    pub exported: Vec<Exported>,
}

/// Whether a message may go out on a channel of this profile before it is signed for (`protocol.md` 9.9): `tls`, `local`.
fn is_protected(profile: u8) -> bool {
    matches!(profile, 1 | 2)
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
    /// Exports whose process has ended, see [`handles`].
    pub exports_ended: AtomicUsize,
    /// What the peer has sent and not proven.
    pub unproven: Published,
}

impl Shared {
    /// How what we send is signed: as configured, where the peer takes that, and by engines otherwise. The one place that says so.
    pub fn signing(&self) -> Mode {
        let Shared { agreed, limits, .. } = self;
        if agreed.peer_accepts.contains(limits.signing) && self.fits(limits.signing) {
            limits.signing
        } else {
            Mode::Engine
        }
    }

    /// Whether the peer may sign so: our configuration says it, whatever was told in the hello.
    pub fn accepts(&self, mode: Mode) -> bool {
        self.limits.accept_signing.contains(mode) && self.fits(mode)
    }

    fn fits(&self, mode: Mode) -> bool {
        mode != Mode::Checkpoint || is_protected(self.agreed.profile)
    }
}

pub struct Session {
    shared: Shared,
    ended: AtomicBool,
    /// The peer has ended it: nothing more is signed in it.
    left: AtomicBool,
    /// Of our chain, in the hello and since.
    told_rotations: AtomicUsize,
    told_revocation: AtomicBool,
    /// Numbers of links: the last that was given, and the one that is sent on; 0: none.
    last_link: AtomicU64,
    active: AtomicU64,
    /// The next flush begins with a checkpoint, if there is anything to prove; the driver is to come back for one.
    checkpoint_due: AtomicBool,
    checkpoint_asked: AtomicBool,
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
    pub fn new(agreed: Agreed, limits: Limits, keyring: Arc<Keyring>) -> Session {
        Session {
            ended: AtomicBool::new(false),
            left: AtomicBool::new(false),
            told_rotations: AtomicUsize::new(agreed.own_rotations),
            told_revocation: AtomicBool::new(false),
            last_link: AtomicU64::new(0),
            active: AtomicU64::new(0),
            checkpoint_due: AtomicBool::new(false),
            checkpoint_asked: AtomicBool::new(false),
            inbound: Mutex::new(Inbound::new(PeerIdentity::new(&agreed), &agreed, &limits)),
            outbound: Mutex::new(Outbound::new(&agreed)),
            replay: Mutex::new(Replay::new(limits.resume_bytes_max)),
            calls: Mutex::new(Calls::new(&limits)),
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
                exports_ended: AtomicUsize::new(0),
                unproven: Published::default(),
            },
        }
    }

    pub fn agreed(&self) -> &Agreed {
        &self.shared.agreed
    }

    /// How what we send is signed.
    pub fn signing(&self) -> Mode {
        self.shared.signing()
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    // In from above.

    /// A cast or a plain message. `destination`: an engine's name, or the text of an [`Address`].
    ///
    /// # Errors
    /// See [`PushError`]; nothing has been queued.
    pub fn push(
        &self,
        delivery: Delivery,
        source: &str,
        destination: &str,
        payload: &[u8],
        aligned: bool,
    ) -> Result<Pushed, PushError> {
        self.push_with(Patience::Waits, delivery, source, destination, payload, aligned)
    }

    /// [`Session::push`] by a thread that must not be held.
    ///
    /// # Errors
    /// [`PushError::Busy`], too.
    pub fn push_soon(
        &self,
        delivery: Delivery,
        source: &str,
        destination: &str,
        payload: &[u8],
    ) -> Result<Pushed, PushError> {
        self.push_with(Patience::Soon, delivery, source, destination, payload, false)
    }

    fn push_with(
        &self,
        patience: Patience,
        delivery: Delivery,
        source: &str,
        destination: &str,
        payload: &[u8],
        aligned: bool,
    ) -> Result<Pushed, PushError> {
        let to = handle(check_destination(destination)?);
        let holds = self.check_push(source, payload)?;
        let kind = match delivery {
            Delivery::Send => kind::SEND,
            Delivery::Cast => kind::CAST,
        };
        let copied = if holds { NewPayload::Slice(&[]) } else { self.new_payload(payload) };
        let message = NewMessage { kind, aligned, ..NewMessage::new(source, destination, copied) };
        match holds || to.is_some() {
            true => {
                self.look_for_locks(patience)?;
                self.push_crossing(message, &Crossing::of(payload, holds, to), false)
            }
            false => {
                let pushed = self.enqueue_with(patience, None, message, false);
                pushed.map(|wake| Pushed { wake, exported: Vec::new() })
            }
        }
    }

    /// For what takes locks more than once: they are free now, or soon.
    fn look_for_locks(&self, patience: Patience) -> Result<(), PushError> {
        if patience == Patience::Soon {
            drop(patience.lock(&self.calls)?);
            drop(patience.lock(&self.queue)?);
        }
        Ok(())
    }

    fn new_payload<'a>(&self, payload: &'a [u8]) -> NewPayload<'a> {
        NewPayload::of(payload, self.shared.limits.fragment_bytes)
    }

    /// `calls`: the lock that is held, if it is.
    fn enqueue(&self, calls: Option<&mut Calls>, message: NewMessage<'_>, always: bool) -> Result<bool, PushError> {
        self.enqueue_with(Patience::Waits, calls, message, always)
    }

    fn enqueue_with(
        &self,
        patience: Patience,
        calls: Option<&mut Calls>,
        message: NewMessage<'_>,
        always: bool,
    ) -> Result<bool, PushError> {
        let (pushed, lost) = {
            let mut queue = patience.lock(&self.queue)?;
            let pushed = queue.push(message, always, &self.lanes, &self.shared.counters);
            // Here, too: while nothing can go no flush says so.
            self.shared.counters.queue_bytes.set(queue.bytes() as u64);
            (pushed, queue.take_lost())
        };
        if !lost.is_empty() {
            let unsend = |calls: &mut Calls| {
                lost.into_iter().for_each(|copy| calls.handles.unsend(copy));
                self.gauge(calls);
            };
            match calls {
                Some(calls) => unsend(calls),
                None => unsend(&mut lock(&self.calls)),
            }
        }
        pushed.map_err(|full| match full {
            Full::Refused => PushError::Overload,
            Full::Disconnect => PushError::Disconnect,
        })
    }

    /// # Errors
    /// See [`PushError`]; nothing has been queued.
    pub fn push_call(&self, now: UnixMs, call: &NewCall<'_>) -> Result<PushedCall, PushError> {
        self.push_call_with(Patience::Waits, now, call)
    }

    /// [`Session::push_call`] by a thread that must not be held.
    ///
    /// # Errors
    /// [`PushError::Busy`], too.
    pub fn push_call_soon(&self, now: UnixMs, call: &NewCall<'_>) -> Result<PushedCall, PushError> {
        self.push_call_with(Patience::Soon, now, call)
    }

    fn push_call_with(&self, patience: Patience, now: UnixMs, call: &NewCall<'_>) -> Result<PushedCall, PushError> {
        let to = handle(check_destination(call.destination)?);
        let holds = self.check_push(call.source, call.payload)?;
        let crossing = Crossing::of(call.payload, holds, to);
        let copied = if holds { NewPayload::Slice(&[]) } else { self.new_payload(call.payload) };
        let pending = Pending { context: call.context.into(), destination: call.destination.into(), since: now };
        let mut exported = Vec::new();
        let mut calls = patience.lock(&self.calls)?;
        let begun = calls.begin(call.caller, pending, &self.shared.limits, &mut exported);
        let begun = begun.map_err(|bound| {
            self.shared.counters.over(bound);
            self.shared.counters.overload_out.one();
            self.gauge(&calls);
            PushError::Overload
        })?;
        let message = NewMessage {
            kind: kind::GENCALL,
            detail: call.label,
            handles: holds || to.is_some(),
            call_id: begun.call_id,
            caller: begun.caller,
            ..NewMessage::new(call.source, call.destination, copied)
        };
        let pushed = match calls.handles.count(to, None, &crossing.places, &mut exported) {
            Ok(counted) => {
                let pushed = self.rewritten(&crossing, &counted).and_then(|bytes| {
                    let message = match &bytes {
                        Some(bytes) => NewMessage { payload: self.new_payload(bytes), ..message },
                        None => message,
                    };
                    self.enqueue_with(patience, Some(&mut calls), message, false)
                });
                pushed.inspect_err(|_| calls.handles.uncount(&counted, to, &mut exported))
            }
            Err(error) => {
                self.not_counted(&mut calls, error);
                Err(error.into())
            }
        };
        let wake = pushed.inspect_err(|_| calls.never_begun(&begun, &mut exported))?;
        self.shared.counters.calls_pending.set(calls.pending() as u64);
        self.gauge(&calls);
        Ok(PushedCall { call_id: begun.call_id, wake, exported })
    }

    /// Answers a call of the peer's. A payload that can't go is counted, and the caller is
    /// sent a refusal in its place, so that it doesn't wait.
    ///
    /// # Errors
    /// [`PushError::UnknownCall`] when it was answered before or its caller is gone.
    pub fn reply(&self, call_id: u64, payload: &[u8]) -> Result<Pushed, PushError> {
        let refused = |wake| Pushed { wake, exported: Vec::new() };
        let holds = match self.check_push("", payload) {
            Ok(holds) => holds,
            Err(PushError::Ended) => return Err(PushError::Ended),
            Err(error) => return Ok(refused(self.refuse(call_id, refusal_of(error)))),
        };
        let copied = if holds { NewPayload::Slice(&[]) } else { self.new_payload(payload) };
        let (served, told) = self.no_longer_served(call_id).ok_or(PushError::UnknownCall)?;
        let message = NewMessage {
            kind: kind::REPLY,
            call_id: served.call_id,
            caller: served.caller,
            ..NewMessage::new(&served.engine, "", copied)
        };
        let pushed = match holds {
            true => self.push_crossing(message, &Crossing::of(payload, holds, None), true),
            false => self.enqueue(None, message, true).map(|wake| Pushed { wake, exported: Vec::new() }),
        };
        let mut pushed = pushed.unwrap_or_else(|error| refused(self.push_refusal(&served, refusal_of(error))));
        pushed.wake |= told;
        Ok(pushed)
    }

    /// [`Session::reply`] by a thread that must not be held.
    ///
    /// # Errors
    /// [`PushError::Busy`], too.
    pub fn reply_soon(&self, call_id: u64, payload: &[u8]) -> Result<Pushed, PushError> {
        self.look_for_locks(Patience::Soon)?;
        self.reply(call_id, payload)
    }

    /// Refuses a call of the peer's. True: wake the active link's writer.
    pub fn refuse(&self, call_id: u64, refusal: Refusal) -> bool {
        match self.no_longer_served(call_id) {
            Some((served, told)) => self.push_refusal(&served, refusal) | told,
            None => false,
        }
    }

    /// Takes a call of the peer's out. True: wake the active link's writer.
    fn no_longer_served(&self, call_id: u64) -> Option<(Served, bool)> {
        let mut calls = lock(&self.calls);
        let served = calls.served(call_id)?;
        self.shared.counters.calls_served.set(calls.being_served() as u64);
        let told = self.tell(&mut calls);
        Some((served, told))
    }

    /// Refuses all calls of one of the peer's processes that are being served: nothing can answer them any more.
    pub fn abandon(&self, caller: u64) -> bool {
        let (abandoned, told) = {
            let mut calls = lock(&self.calls);
            let abandoned = calls.abandon(caller);
            self.shared.counters.calls_served.set(calls.being_served() as u64);
            (abandoned, self.tell(&mut calls))
        };
        abandoned.into_iter().fold(told, |wake, served| self.push_refusal(&served, Refusal::Abandoned) | wake)
    }

    /// An ERROR has no payload: it goes even when the queue is full of answers.
    fn push_refusal(&self, served: &Served, refusal: Refusal) -> bool {
        let message = NewMessage {
            kind: kind::ERROR,
            detail: refusal as u8,
            call_id: served.call_id,
            caller: served.caller,
            ..NewMessage::new(&served.engine, "", NewPayload::Slice(&[]))
        };
        self.enqueue(None, message, true).unwrap_or(false)
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

    /// Nobody waits for a call of ours any more.
    pub fn cancel(&self, call_id: u64) -> bool {
        let mut calls = lock(&self.calls);
        let known = calls.finish(call_id).is_some();
        self.shared.counters.calls_pending.set(calls.pending() as u64);
        self.gauge(&calls);
        drop(calls);
        known && lock(&self.queue).release(Release::Call(call_id))
    }

    /// How many calls of ours to one engine are in flight.
    pub fn calls_pending_at(&self, engine: &str) -> usize {
        lock(&self.calls).pending_at(engine)
    }

    /// The peer's processes whose calls an engine of ours has not answered yet, each once, by the peer's numbers. It looks at all calls
    /// that are being served.
    pub fn callers_at(&self, engine: &str) -> Vec<u64> {
        lock(&self.calls).callers_at(engine)
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
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.shared.counters.unproven.add(self.shared.unproven.messages());
        }
        lock(&self.queue).waiters.serve_all();
    }

    /// True: the payload holds identifiers.
    fn check_push(&self, source: &str, payload: &[u8]) -> Result<bool, PushError> {
        let (limits, counters) = (&self.shared.limits, &self.shared.counters);
        if self.ended.load(Ordering::Relaxed) {
            return Err(PushError::Ended);
        }
        if source.len() > 255 {
            return Err(PushError::BadName);
        }
        if payload.len() > self.largest_out() {
            counters.too_large_out.one();
            return Err(PushError::TooLarge);
        }
        match etf::scan_local(payload, &limits.term) {
            Ok(holds) if !holds || limits.identifiers => Ok(holds),
            Err(error) if !error.is_identifiers() => {
                counters.bad_term_out.one();
                Err(PushError::BadTerm)
            }
            _ => {
                counters.identifiers_out.one();
                Err(PushError::Identifiers)
            }
        }
    }

    /// Bytes of the largest payload that goes to the peer.
    fn largest_out(&self) -> usize {
        self.shared.limits.message_bytes_max.min(self.shared.agreed.peer_message_bytes_max) as usize
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").field("agreed", &self.shared.agreed).finish_non_exhaustive()
    }
}

/// The peer would close the link over any other name.
fn check_destination(address: &str) -> Result<Address<'_>, PushError> {
    Address::parse(address).ok_or(PushError::BadName)
}
