//! The receiving half: frames out of a stream of bytes, verified, each message once (`protocol.md` 8.3).

mod announcements;
mod batches;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;

use crate::error::{LinkError, PeerMisbehaved};
use crate::frame::batch::Rows;
use crate::frame::close::Close;
use crate::frame::fragment::Fragment;
use crate::frame::handle_release::Release;
use crate::frame::resume::Resume;
use crate::frame::{self, ack, checkpoint::Checkpoint, credit, handle_release, ping, FrameType, Head};
use crate::hello::Agreed;
use crate::identity::{verify, Purpose};
use crate::limits::{Limits, ACK_AFTER_BYTES, ACK_AFTER_MESSAGES};
use crate::session::attachment::{Attachment, LinkInbound};
use crate::session::certified::Certified;
use crate::session::checkpoint::{Chain, Proofs};
use crate::session::fragments::Staging;
use crate::session::handles::MoreThanSent;
use crate::session::linking::Wake;
use crate::session::peer_identity::PeerIdentity;
use crate::session::reasons::{Reason, Reasons, Whose};
use crate::session::slice::{Rest, Slice};
use crate::session::{lock, Event, Session, Shared};
use crate::signing::Mode;
use crate::UnixMs;

pub(crate) struct Inbound {
    identity: PeerIdentity,
    online: Option<Certified>,
    engines: HashMap<Box<str>, Certified>,
    /// Serials of forgotten names, so that an old LEARN can't bring one back. When that many are kept, `floor` takes
    /// over: serials rise with time, so nothing new is at or below it.
    forgotten: HashMap<Box<str>, u64>,
    floor: u64,
    next_sequence: u64,
    /// What the peer has been told to have arrived, by a frame that was asked for.
    acknowledged: u64,
    unacknowledged_bytes: u64,
    /// The driver was told to see to it that an ACK goes out.
    acknowledge_later: bool,
    failures: VecDeque<UnixMs>,
    reasons: Reasons,
    proofs: Proofs,
    /// What has come of payloads that come in fragments.
    staging: Staging,
    receipts_for: HashSet<Box<str>>,
    /// Of the last batch, for the next: at most 128 KiB.
    rows: Rows,
    /// Of the receipts of this read.
    receipt_bytes: usize,
}

/// Whether the peer has to be told what has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// There is nothing to tell, or it is being seen to.
    Nothing,
    /// Now: wake the active link's writer.
    Wake,
    /// If nothing else is sent before: call [`Session::acknowledge_now`] in a while.
    Later,
}

/// What has become of a sequenced frame.
enum Place {
    New,
    /// It was delivered from another link.
    Replayed,
    /// It was delivered from this link: no honest peer sends it.
    Duplicate,
}

impl Inbound {
    pub fn new(identity: PeerIdentity, agreed: &Agreed, limits: &Limits) -> Inbound {
        Inbound {
            staging: Staging::new(limits.message_bytes_max),
            proofs: Proofs::new(Chain::new(&agreed.session, &agreed.peer), limits),
            identity,
            online: None,
            engines: HashMap::new(),
            forgotten: HashMap::new(),
            floor: 0,
            next_sequence: 1,
            acknowledged: 0,
            unacknowledged_bytes: 0,
            acknowledge_later: false,
            failures: VecDeque::new(),
            reasons: Reasons::default(),
            receipts_for: HashSet::new(),
            rows: Rows::default(),
            receipt_bytes: 0,
        }
    }

    pub fn make_receipts_for(&mut self, engines: impl Iterator<Item = Box<str>>) {
        self.receipts_for.extend(engines);
    }

    /// Handles what the link's buffer holds, as far as `slice` goes; what it has left undone stays there.
    pub fn handle(
        &mut self,
        session: &Session,
        link: &Attachment,
        received: &mut LinkInbound,
        now: UnixMs,
        slice: &mut Slice,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> (Wake, Result<Rest, LinkError>) {
        received.last_received = now;
        self.receipt_bytes = 0;
        // What earlier calls brought has been handed to mailboxes by now.
        let mut wake = Wake { link: false, session: self.note_delivered(session) };
        let buffer = std::mem::take(&mut received.buffer);
        let mut at = 0;
        let mut result = Ok(Rest::Nothing);
        while !received.closed {
            match frame::head(&buffer[at..], &session.shared.limits) {
                Ok(Head::Partial) => break,
                Ok(Head::Skip { bytes }) => {
                    session.shared.counters.skipped_frames.one();
                    at += bytes;
                }
                Ok(Head::Frame { kind, body, bytes }) => {
                    let rest = slice.take(kind, body);
                    if rest != Rest::Nothing {
                        result = Ok(rest);
                        break;
                    }
                    match self.handle_frame(session, link, received, kind, body, sink) {
                        Ok(woken) => wake |= woken,
                        Err(error) => result = Err(error),
                    }
                    at += bytes;
                }
                Err(error) => result = Err(error),
            }
            if result.is_err() {
                received.closed = true;
            }
        }
        if let (Some(deadline), false) = (self.proofs.deadline(), received.timed || received.closed) {
            received.timed = true;
            sink(Event::TimeoutIn(deadline.saturating_sub(now)));
        }
        let mut calls = lock(&session.calls);
        wake.session |= session.tell(&mut calls);
        let unexported = std::mem::take(&mut calls.handles.unexported);
        drop(calls);
        unexported.into_iter().for_each(|number| sink(Event::Unexported { number }));
        received.buffer = buffer;
        received.buffer.drain(..at);
        if received.buffer.is_empty() && received.buffer.capacity() > 1024 * 1024 {
            received.buffer = Vec::new();
        }
        (wake, result)
    }

    /// What has been handed to mailboxes goes into the next flush's ACK; that alone is a reason for one past a bound.
    pub fn acknowledge(&mut self, session: &Session) -> Acknowledge {
        if self.note_delivered(session) {
            return Acknowledge::Wake;
        }
        // Whoever noted it: as long as it has not gone out somebody has to see to it.
        if self.acknowledge_later || lock(&session.queue).ack.is_none() {
            return Acknowledge::Nothing;
        }
        self.acknowledge_later = true;
        Acknowledge::Later
    }

    /// True: a bound is passed, wake the active link's writer.
    fn note_delivered(&mut self, session: &Session) -> bool {
        let delivered = self.next_sequence - 1;
        if delivered == session.shared.delivered.swap(delivered, Ordering::AcqRel) {
            return false;
        }
        let mut queue = lock(&session.queue);
        queue.ack = Some(delivered);
        let due = delivered - self.acknowledged >= ACK_AFTER_MESSAGES || self.unacknowledged_bytes >= ACK_AFTER_BYTES;
        if due {
            self.acknowledged = delivered;
            self.unacknowledged_bytes = 0;
        }
        due && queue.wake()
    }

    /// True: wake the active link's writer.
    pub fn acknowledge_now(&mut self, session: &Session) -> bool {
        self.acknowledge_later = false;
        let mut queue = lock(&session.queue);
        // Otherwise it has gone out with something else.
        queue.ack.is_some() && queue.wake()
    }

    /// Where a sequenced frame stands. `first`: what it says itself.
    fn place(
        &mut self,
        received: &mut LinkInbound,
        kind: FrameType,
        first: Option<u64>,
        count: u64,
    ) -> Result<Place, PeerMisbehaved> {
        let expected = received.position.ok_or(PeerMisbehaved::UnexpectedFrame(kind as u8))?;
        let first = first.unwrap_or(expected);
        if first < expected {
            return Ok(Place::Duplicate);
        }
        let end = first.saturating_add(count);
        // On one link nothing is left out, and what comes again comes in the pieces in which it came before.
        if first > expected || first < self.next_sequence && end > self.next_sequence {
            return Err(PeerMisbehaved::SequenceGap { expected, got: first });
        }
        received.position = Some(end);
        if first < self.next_sequence {
            if !received.caught_up {
                self.proofs.wait_anew(received.last_received);
            }
            return Ok(Place::Replayed);
        }
        received.caught_up = true;
        self.next_sequence = end;
        Ok(Place::New)
    }

    /// An announcement or release: false when it was delivered from another link.
    fn is_new(&mut self, session: &Session, received: &mut LinkInbound, kind: FrameType) -> Result<bool, LinkError> {
        match self.place(received, kind, None, 1)? {
            Place::New => Ok(true),
            Place::Replayed | Place::Duplicate => {
                session.shared.counters.replayed.one();
                Ok(false)
            }
        }
    }

    fn acknowledged_by_peer(&self, session: &Session, sequence: u64) -> Result<Wake, LinkError> {
        let (shared, sent) = (&session.shared, session.shared.sent_sequence.load(Ordering::Acquire));
        if sequence > sent {
            return Err(PeerMisbehaved::AckBeyondSent { sent, got: sequence }.into());
        }
        shared.counters.acknowledged.set(sequence.max(shared.counters.acknowledged.get()));
        let mut replay = lock(&session.replay);
        let goes_on = replay.acknowledge(sequence);
        shared.counters.resume_bytes.set(replay.bytes() as u64);
        Ok(Wake { link: false, session: goes_on })
    }

    /// The peer goes over to this link.
    fn handle_resume(&mut self, session: &Session, received: &mut LinkInbound, body: &[u8]) -> Result<Wake, LinkError> {
        let resume = Resume::decode(body)?;
        if resume.session != session.shared.agreed.session {
            return Err(PeerMisbehaved::ForeignResume.into());
        }
        if resume.next > self.next_sequence {
            return Err(PeerMisbehaved::SequenceGap { expected: self.next_sequence, got: resume.next }.into());
        }
        match received.position.replace(resume.next) {
            None => self.proofs.wait_anew(received.last_received),
            // Who goes back on one link gets no more time for it.
            Some(before) => received.caught_up |= resume.next < before,
        }
        self.acknowledged_by_peer(session, resume.received)
    }

    fn handle_frame(
        &mut self,
        session: &Session,
        link: &Attachment,
        received: &mut LinkInbound,
        kind: FrameType,
        body: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<Wake, LinkError> {
        let (shared, now) = (&session.shared, received.last_received);
        let nothing = Wake::default();
        match kind {
            FrameType::Batch => {
                let woken = self.handle_batch(session, received, now, body, sink)?;
                return Ok(Wake { link: false, session: woken });
            }
            FrameType::Ack => return self.acknowledged_by_peer(session, ack::decode(body)?),
            FrameType::Resume => return self.handle_resume(session, received, body),
            FrameType::Ping => {
                lock(&link.outbound).pong = Some(ping::decode(body)?);
                return Ok(Wake { link: true, session: false });
            }
            FrameType::Pong => {
                let rtt_ms = now.saturating_sub(ping::decode(body)?);
                link.set_rtt(rtt_ms);
                shared.counters.rtt_ms.set(rtt_ms);
                return Ok(nothing);
            }
            FrameType::Close => {
                let close = Close::decode(body)?;
                received.closed = true;
                if !close.code.keeps_session() {
                    session.left();
                }
                sink(Event::Closed { code: close.code, text: close.text });
                return Ok(nothing);
            }
            _ => {}
        }
        if !kind.is_sequenced() {
            return Err(PeerMisbehaved::UnexpectedFrame(kind as u8).into());
        }
        if !self.is_new(session, received, kind)? {
            return Ok(nothing);
        }
        match kind {
            FrameType::Learn => {
                let outcome = self.handle_learn(shared, now, body, sink)?;
                self.count_announcement(shared, now, outcome)?;
                Ok(nothing)
            }
            FrameType::Forget => {
                let (outcome, wake) = match self.handle_forget(session, now, body, sink)? {
                    Ok(wake) => (Ok(()), wake),
                    Err(announcement) => (Err(announcement), false),
                };
                self.count_announcement(shared, now, outcome)?;
                Ok(Wake { link: false, session: wake })
            }
            FrameType::Fragment => {
                self.staging.take_in(&Fragment::decode(body)?)?;
                shared.counters.fragments_in.one();
                shared.counters.staged_bytes.set(self.staging.bytes() as u64);
                self.unacknowledged_bytes += body.len() as u64;
                Ok(nothing)
            }
            FrameType::Credit => {
                let mut lanes = lock(&session.lanes);
                let mut go_on = false;
                credit::decode(body, |destination, bytes| go_on |= lanes.granted(destination, bytes.into()))?;
                drop(lanes);
                Ok(Wake { link: false, session: go_on && lock(&session.queue).wake() })
            }
            FrameType::Cert => {
                let outcome = self.handle_cert(shared, now, body)?;
                self.count_announcement(shared, now, outcome)?;
                Ok(nothing)
            }
            FrameType::Checkpoint => {
                self.handle_checkpoint(shared, now, body)?;
                Ok(nothing)
            }
            FrameType::Rotate => {
                if let Some(rotation) = self.identity.rotate(shared, now, body)? {
                    shared.counters.rotations.one();
                    sink(Event::Rotated(&rotation));
                }
                Ok(nothing)
            }
            FrameType::Revoke => self.identity.revoke(shared, body).map(|()| nothing),
            FrameType::HandleRelease => {
                let woken = self.handle_releases(session, body, sink)?;
                Ok(Wake { link: false, session: woken })
            }
            _ => Err(PeerMisbehaved::UnexpectedFrame(kind as u8).into()),
        }
    }

    /// The peer proves all that has come without a signature.
    fn handle_checkpoint(&mut self, shared: &Shared, now: UnixMs, body: &[u8]) -> Result<(), LinkError> {
        let (checkpoint, signature) = Checkpoint::decode(body)?;
        if !shared.accepts(Mode::Checkpoint) {
            shared.counters.mode_refused.one();
            return self.failed(shared, now);
        }
        let Shared { agreed, counters, .. } = shared;
        let online = self.online.as_mut().filter(|online| online.in_force(now));
        let key = online.and_then(|online| online.key.usable());
        self.proofs.cover(&checkpoint, || {
            counters.verified.one();
            let signed = checkpoint.body(&agreed.session, &agreed.peer, &agreed.own);
            key.is_some_and(|key| verify(key, Purpose::Checkpoint, &agreed.network, &signed, &signature))
        })?;
        counters.checkpoints_in.one();
        self.tell_open(shared);
        Ok(())
    }

    /// # Errors
    /// When the peer has not proven in time what it sent. Otherwise until when it has to.
    pub fn check_proofs(&self, now: UnixMs) -> Result<Option<UnixMs>, LinkError> {
        self.proofs.check_time(now)?;
        Ok(self.proofs.deadline())
    }

    fn tell_open(&self, shared: &Shared) {
        let open = self.proofs.open();
        shared.unproven.set(open);
        shared.counters.unproven_now.set(open.map_or(0, |open| open.messages));
    }

    fn handle_releases(
        &mut self,
        session: &Session,
        body: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, LinkError> {
        let releases = handle_release::decode(body)?;
        let counters = &session.shared.counters;
        let mut calls = lock(&session.calls);
        let mut ended = Vec::new();
        for release in releases {
            match release {
                Release::Ended { number, reason } => {
                    calls.import_ended(number);
                    ended.push((number, reason));
                }
                Release::Call(id) => calls.released(id),
                Release::Dropped { number, count } => calls
                    .handles
                    .dropped(number, count)
                    .map_err(|MoreThanSent| PeerMisbehaved::DroppedBeyondSent { number })?,
                Release::DroppedReference { number, count } => calls
                    .handles
                    .dropped_reference(number, count)
                    .map_err(|MoreThanSent| PeerMisbehaved::DroppedBeyondSent { number })?,
            }
        }
        counters.calls_served.set(calls.being_served() as u64);
        counters.calls_pending.set(calls.pending() as u64);
        let wake = session.tell(&mut calls);
        drop(calls);
        for (number, reason) in ended {
            let term = self.reasons.take(&Whose::Handle(number));
            sink(Event::HandleEnded { number, reason, term: term.as_ref().map(Reason::term) });
        }
        Ok(wake)
    }

    /// Ten failed verifications within the window close the link.
    fn failed(&mut self, shared: &Shared, now: UnixMs) -> Result<(), LinkError> {
        let limits = &shared.limits;
        while self.failures.front().is_some_and(|at| at + limits.failures_window_ms <= now) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        let failures = self.failures.len() as u32;
        match failures >= limits.failures_max {
            true => Err(PeerMisbehaved::TooManyFailures { failures }.into()),
            false => Ok(()),
        }
    }
}
