//! The receiving half: frames out of a stream of bytes, verified, each message once (`protocol.md` 8.3).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;

use crate::error::{InvalidFrame, LinkError, PeerMisbehaved};
use crate::frame::batch::{kind, Batch, Header, Row, Rows};
use crate::frame::close::Close;
use crate::frame::fragment::Fragment;
use crate::frame::handle_release::Release;
use crate::frame::resume::Resume;
use crate::frame::staged::StagedBatch;
use crate::frame::{
    self, ack, cert::Cert, checkpoint::Checkpoint, credit, forget::Forget, handle_release, learn::Learn, ping,
    FrameType, Head,
};
use crate::hello::Agreed;
use crate::identity::{verify, Purpose};
use crate::limits::{Limits, ACK_AFTER_BYTES, ACK_AFTER_MESSAGES, ONLINE_KEY_MS_MAX, RECEIPT_BYTES_MAX};
use crate::receipt::{ReceiptMaker, ReceiptParts};
use crate::session::attachment::{Attachment, LinkInbound};
use crate::session::certified::{valid, AnnouncedKey, Certified};
use crate::session::checkpoint::{Chain, Proofs};
use crate::session::delivery::{deliver, keep_reason, turn_away};
use crate::session::fragments::Staging;
use crate::session::handles::MoreThanSent;
use crate::session::linking::Wake;
use crate::session::peer_identity::PeerIdentity;
use crate::session::reasons::{Reason, Reasons, Whose};
use crate::session::slice::{Rest, Slice};
use crate::session::windows::Windows;
use crate::session::{lock, Event, Session, Shared};
use crate::signing::Mode;
use crate::UnixMs;

/// Where the peer's announcements are dropped, and why.
enum Announcement {
    Stale,
    Bad,
    OverLimit,
}

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

    fn count_announcement(
        &mut self,
        shared: &Shared,
        now: UnixMs,
        outcome: Result<(), Announcement>,
    ) -> Result<(), LinkError> {
        match outcome {
            Ok(()) => {}
            Err(Announcement::Stale) => shared.counters.stale_announcement.one(),
            Err(Announcement::OverLimit) => shared.counters.engines_over_limit.one(),
            Err(Announcement::Bad) => {
                shared.counters.bad_announcement.one();
                self.failed(shared, now)?;
            }
        }
        Ok(())
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

    fn last_serial(&self, engine: &str) -> u64 {
        let live = self.engines.get(engine).map_or(0, |certified| certified.serial);
        let forgotten = self.forgotten.get(engine).copied().unwrap_or(0);
        live.max(forgotten).max(self.floor)
    }

    fn handle_learn(
        &mut self,
        shared: &Shared,
        now: UnixMs,
        bytes: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<Result<(), Announcement>, InvalidFrame> {
        let (learn, signature) = Learn::decode(bytes)?;
        if learn.realm != shared.agreed.peer {
            return Ok(Err(Announcement::Bad));
        }
        if learn.serial <= self.last_serial(&learn.engine) || !valid(learn.not_before, learn.not_after, now) {
            return Ok(Err(Announcement::Stale));
        }
        let new = !self.engines.contains_key(&*learn.engine);
        if new && self.engines.len() >= shared.limits.engines_max as usize {
            return Ok(Err(Announcement::OverLimit));
        }
        let body = &bytes[..bytes.len() - 64];
        let Some(signer) = self.identity.signer(shared, now, Purpose::Learn, body, &signature) else {
            return Ok(Err(Announcement::Bad));
        };
        self.forgotten.remove(&*learn.engine);
        let certified = Certified {
            key: AnnouncedKey::Unchecked(learn.key),
            serial: learn.serial,
            not_before: learn.not_before,
            not_after: learn.not_after,
            delegate: learn.delegate,
            announcement: bytes.into(),
            signer,
        };
        self.engines.insert(learn.engine.as_str().into(), certified);
        sink(Event::Learned(&learn));
        Ok(Ok(()))
    }

    /// True: the Writer has to be woken.
    fn handle_forget(
        &mut self,
        session: &Session,
        now: UnixMs,
        bytes: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<Result<bool, Announcement>, InvalidFrame> {
        let shared = &session.shared;
        let (forget, signature) = Forget::decode(bytes)?;
        if forget.realm != shared.agreed.peer {
            return Ok(Err(Announcement::Bad));
        }
        if forget.serial <= self.last_serial(&forget.engine) {
            return Ok(Err(Announcement::Stale));
        }
        let body = &bytes[..bytes.len() - 64];
        if self.identity.signer(shared, now, Purpose::Forget, body, &signature).is_none() {
            return Ok(Err(Announcement::Bad));
        }
        if self.forgotten.len() >= shared.limits.engines_max as usize {
            self.floor = self.forgotten.values().copied().max().unwrap_or(0).max(self.floor);
            self.forgotten.clear();
        }
        self.forgotten.insert(forget.engine.as_str().into(), forget.serial);
        let term = self.reasons.take(&Whose::Engine(forget.engine.as_str().into()));
        if self.engines.remove(&*forget.engine).is_none() {
            shared.counters.unknown_forget.one();
            return Ok(Ok(term.is_some_and(|term| term.handles && session.discard_in(&term.payload))));
        }
        let mut calls = lock(&session.calls);
        let given_up = calls.forget_destination(&forget.engine);
        shared.counters.calls_pending.set(calls.pending() as u64);
        drop(calls);
        let term = term.as_ref().map(Reason::term);
        sink(Event::Forgotten { engine: &forget.engine, reason: forget.reason, term });
        // The peer still keeps them as calls that somebody may answer.
        let mut queue = lock(&session.queue);
        let wake = given_up.into_iter().fold(false, |wake, id| queue.release(Release::Call(id)) | wake);
        Ok(Ok(wake))
    }

    fn handle_cert(
        &mut self,
        shared: &Shared,
        now: UnixMs,
        bytes: &[u8],
    ) -> Result<Result<(), Announcement>, InvalidFrame> {
        let (cert, signature) = Cert::decode(bytes)?;
        let too_long = cert.not_after.saturating_sub(cert.not_before) > ONLINE_KEY_MS_MAX || cert.not_after == 0;
        if cert.realm != shared.agreed.peer || too_long {
            return Ok(Err(Announcement::Bad));
        }
        let last = self.online.as_ref().map_or(0, |online| online.serial);
        if cert.serial <= last || !valid(cert.not_before, cert.not_after, now) {
            return Ok(Err(Announcement::Stale));
        }
        let body = &bytes[..bytes.len() - 64];
        let Some(signer) = self.identity.signer(shared, now, Purpose::Cert, body, &signature) else {
            return Ok(Err(Announcement::Bad));
        };
        self.online = Some(Certified {
            key: AnnouncedKey::Unchecked(cert.key),
            serial: cert.serial,
            not_before: cert.not_before,
            not_after: cert.not_after,
            delegate: false,
            announcement: bytes.into(),
            signer,
        });
        Ok(Ok(()))
    }

    fn handle_batch(
        &mut self,
        session: &Session,
        received: &mut LinkInbound,
        now: UnixMs,
        body: &[u8],
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, LinkError> {
        let shared = &session.shared;
        let Some(staged) = StagedBatch::parse(body)? else {
            let batch = Batch::parse_into(body, std::mem::take(&mut self.rows))?;
            let woken = match self.is_new_batch(shared, received, now, &batch.header, batch.count)? {
                true => self.handle_new_batch(session, now, body, &batch, sink)?,
                false => false,
            };
            self.rows = batch.into_rows();
            return Ok(woken);
        };
        // Where it comes again, its fragments were passed over, too.
        if !self.is_new_batch(shared, received, now, &staged.header, 1)? {
            return Ok(false);
        }
        let whole = self.staging.close(&staged)?;
        shared.counters.staged_bytes.set(self.staging.bytes() as u64);
        self.handle_new_batch(session, now, whole.body(), &Batch::parse(whole.body())?, sink)
    }

    fn is_new_batch(
        &mut self,
        shared: &Shared,
        received: &mut LinkInbound,
        now: UnixMs,
        header: &Header<'_>,
        count: u16,
    ) -> Result<bool, LinkError> {
        let counters = &shared.counters;
        if header.source != shared.agreed.peer || header.destination != shared.agreed.own {
            return Err(PeerMisbehaved::ForeignBatch.into());
        }
        if header.session != shared.agreed.session {
            counters.stale_session.one();
            self.failed(shared, now)?;
            return Ok(false);
        }
        match self.place(received, FrameType::Batch, Some(header.first_sequence), u64::from(count))? {
            Place::New => Ok(true),
            Place::Replayed => {
                counters.replayed.one();
                Ok(false)
            }
            Place::Duplicate => {
                counters.duplicate.one();
                self.failed(shared, now)?;
                Ok(false)
            }
        }
    }

    /// One that proves nothing.
    fn drop_batch(&mut self, session: &Session, now: UnixMs, batch: &Batch<'_>) -> Result<bool, LinkError> {
        // Its sender has used up credit for it.
        let mut windows = Windows::new(session);
        for item in batch.messages() {
            windows.take(&item);
        }
        drop(windows);
        self.failed(&session.shared, now)?;
        Ok(false)
    }

    /// `body`: as the signature is over it, with the signature.
    fn handle_new_batch(
        &mut self,
        session: &Session,
        now: UnixMs,
        body: &[u8],
        batch: &Batch<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, LinkError> {
        let (shared, counters) = (&session.shared, &session.shared.counters);
        let mode = batch.header.mode;
        if !shared.accepts(mode) {
            counters.mode_refused.one();
            return self.drop_batch(session, now, batch);
        }
        if mode == Mode::Checkpoint {
            // It is in the chain whatever becomes of it.
            self.proofs.add(now, batch.header.first_sequence, batch.count.into(), batch.signed)?;
            self.tell_open(shared);
        } else {
            counters.verified.one();
        }
        // The realm itself, and the modes in which it speaks for others, have the empty name.
        let engine = batch.header.engine;
        let certified = match engine {
            "" => self.online.as_mut(),
            _ => self.engines.get_mut(engine),
        };
        let proven = certified.is_some_and(|certified| {
            certified.in_force(now) && (mode == Mode::Checkpoint || certified.verifies(&shared.agreed.network, batch))
        });
        // Again, to be read beside the others.
        let certified = match engine {
            "" => self.online.as_ref(),
            _ => self.engines.get(engine),
        };
        let Some(certified) = certified.filter(|_| proven) else {
            counters.bad_signature.one();
            return self.drop_batch(session, now, batch);
        };
        let mut sources = Sources::new(&self.engines, batch, now);
        counters.batches_in.one();
        counters.messages_in.add(u64::from(batch.count));
        counters.payload_bytes_in.add((batch.signed.len() - batch.table_end) as u64);
        self.unacknowledged_bytes += batch.signed.len() as u64;
        let mut wake = false;
        let mut maker = None;
        let mut windows = Windows::new(session);
        for (index, item) in batch.messages().enumerate() {
            if !windows.take(&item) {
                counters.credit_exceeded.one();
                wake |= turn_away(session, &item);
                continue;
            }
            let Some(learn) = sources.learn(&item.row) else {
                counters.not_delegated.one();
                continue;
            };
            let receipt = match self.receipts_for.contains(item.row.destination) {
                true if batch.signature.is_none() || self.receipt_bytes >= RECEIPT_BYTES_MAX => {
                    counters.receipts_over_limit.one();
                    None
                }
                true => {
                    // Hashed once for all receipts of the batch, and only when there is one to make.
                    let maker = maker.get_or_insert_with(|| {
                        ReceiptMaker::new(ReceiptParts {
                            network_id: &shared.agreed.network.0,
                            identity_key: match batch.header.mode {
                                Mode::Engine => &certified.signer,
                                _ => self.identity.key(),
                            },
                            rotations: self.identity.chain(),
                            announcement: &certified.announcement,
                            batch: body,
                        })
                    });
                    maker.as_ref().ok().and_then(|maker| maker.make(index as u16, learn).ok())
                }
                false => None,
            };
            self.receipt_bytes += receipt.as_ref().map_or(0, Vec::len);
            wake |= match item.row.kind {
                kind::DOWN => keep_reason(session, &mut self.reasons, &item),
                _ => deliver(session, &item, receipt, sink),
            };
        }
        Ok(wake)
    }
}

/// Which sources of a batch may have said what is in it.
struct Sources<'a> {
    engines: &'a HashMap<Box<str>, Certified>,
    mode: Mode,
    now: UnixMs,
    /// By the place of the name; none: it has not been looked up yet.
    known: Vec<Option<Option<&'a Certified>>>,
}

impl<'a> Sources<'a> {
    fn new(engines: &'a HashMap<Box<str>, Certified>, batch: &Batch<'_>, now: UnixMs) -> Sources<'a> {
        let mode = batch.header.mode;
        let names = if mode == Mode::Engine { 0 } else { batch.names() };
        Sources { engines, mode, now, known: vec![None; names] }
    }

    /// What proves that the realm may speak for a row's source, for a receipt. None: it may not.
    fn learn(&mut self, row: &Row<'_>) -> Option<&'a [u8]> {
        // Who has signed the batch is who speaks.
        if self.mode == Mode::Engine || row.source.is_empty() {
            return Some(&[]);
        }
        let Sources { engines, now, .. } = *self;
        let look_up = || engines.get(row.source).filter(|engine| engine.delegate && engine.in_force(now));
        let engine = self.known[usize::from(row.source_place)].get_or_insert_with(look_up);
        engine.map(|engine| &*engine.announcement)
    }
}
