//! The sending half: turns what waits into frames, one signature per batch.
//!
//! **Group commit.** A flush takes all that has been queued since the last one. Messages of one signer share a batch.
//! Messages to one engine keep the order in which they were pushed, whoever they are from: a message joins its signer's
//! open batch only when no later batch holds a message to the same engine (`protocol.md` 9.6).
//!
//! **What a flush sends, in this order:** ACK; what has to go again; CREDIT; what lanes let go; what is taken from the queue,
//! each message of it being let go, moved to its lane, or begun as a transfer; fragments of transfers; releases. So small messages
//! never wait for more than one flush's fragments, and a transfer gets at least one fragment a flush.
//!
//! **A FORGET waits** for the large messages of its engine that are on their way and for its answers that wait behind such,
//! and everything behind it waits with it: callers must have their answers before they hear that the engine has ended.

mod batches;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::frame::batch::{self, kind, Header};
use crate::frame::handle_release::Release;
use crate::frame::resume::Resume;
use crate::frame::{self, ack, credit, forget, handle_release, FrameType};
use crate::hello::Agreed;
use crate::session::announced::{Announced, Signer};
use crate::session::attachment::Attachment;
use crate::session::checkpoint::{Chain, Proving};
use crate::session::fragments::{Sent, Transfers};
use crate::session::lanes::{Class, Held, Lanes};
use crate::session::message::{Entry, NewMessage, NewPayload, Taken};
use crate::session::queue::Queue;
use crate::session::replay::Replay;
use crate::session::{lock, Session, Shared};
use crate::signing::Mode;

/// An arena that a burst has blown up beyond this is given back instead of kept for the next flush.
const ARENA_KEPT_MAX: usize = 1024 * 1024;

/// Shorter pieces would be nothing but headers.
const FRAGMENT_BYTES_MIN: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Outbound {
    taken: Taken,
    /// The next entry of `taken` to go out.
    at: usize,
    /// Engines of ours that the peer has been told of; others' messages go as the realm's.
    announced: Announced,
    transfers: Transfers<Large>,
    /// Ends of processes that wait for their answers to be out.
    staying: Vec<Release>,
    /// What goes out without a signature.
    proving: Proving,
    mode: Mode,
    /// What the flush at hand is to come to.
    target: usize,
}

/// What is known of a large message on its way, but for its payload.
#[derive(Debug)]
pub(crate) struct Large {
    lane: Arc<str>,
    held: Held,
}

impl Large {
    /// As it stands in the batch.
    fn destination(&self) -> &str {
        wire_destination(&self.lane, &self.held)
    }
}

/// An answer's lane is not its destination.
fn wire_destination<'a>(lane: &'a str, held: &Held) -> &'a str {
    match held.class {
        Class::Answer => "",
        _ => lane,
    }
}

/// Where messages of no destination wait: in one lane with what else is sent to the process that they are for.
fn lane_of_answers(caller: u64) -> String {
    match caller {
        0 => String::new(),
        _ => format!("@{caller:x}"),
    }
}

/// On the wire an answer has a call and no caller.
fn wire_caller(message_kind: u8, caller: u64) -> u64 {
    match message_kind {
        kind::REPLY | kind::ERROR => 0,
        _ => caller,
    }
}

impl Outbound {
    pub fn new(agreed: &Agreed) -> Outbound {
        Outbound {
            taken: Taken::default(),
            at: 0,
            announced: Announced::default(),
            transfers: Transfers::new(agreed.peer_message_bytes_max),
            staying: Vec::new(),
            proving: Proving::new(Chain::new(&agreed.session, &agreed.own)),
            mode: Mode::Engine,
            target: 0,
        }
    }

    /// What lanes put into one flush: the rest is for what has just been pushed.
    fn lanes_target(&self) -> usize {
        self.target / 2
    }

    /// What one flush moves to lanes at most, so that it ends in time.
    fn moved_target(&self) -> usize {
        2 * self.target
    }

    /// How often the source changes in what the last flush has taken and left.
    pub fn source_changes(&self) -> usize {
        self.taken.source_changes
    }

    /// Payload bytes of the largest message that is on its way in fragments.
    pub fn largest_transfer(&self) -> usize {
        self.transfers.largest()
    }

    /// What has not been signed and may go out in another session, in its order: casts and sends.
    pub fn drain_unsigned(&mut self, lanes: &mut Lanes, mut each: impl FnMut(NewMessage<'_>)) {
        let transfers: Vec<_> =
            self.transfers.drain().map(|(piece, large)| (large.lane, large.held, Some(piece))).collect();
        let lanes = lanes.drain().into_iter().map(|(lane, held)| (lane, held, None));
        for (lane, mut held, piece) in transfers.into_iter().chain(lanes) {
            if held.class != Class::Droppable {
                continue;
            }
            let piece = piece.map(Box::new).or_else(|| held.piece.take());
            let payload = match piece {
                Some(piece) => NewPayload::Piece(piece),
                None => NewPayload::Slice(held.payload()),
            };
            each(NewMessage {
                kind: held.kind,
                detail: held.detail,
                aligned: held.aligned,
                handles: held.handles,
                call_id: 0,
                caller: held.caller,
                source: held.source(),
                destination: &lane,
                payload,
            });
        }
        let at = std::mem::replace(&mut self.at, self.taken.entries.len());
        self.taken.drain_unsigned(at, each);
    }

    /// Appends frames to `out`, until they come to about `target` bytes. True when more waits. `resume`: this side goes over to
    /// this link, where everything unacknowledged is sent again.
    pub fn flush(
        &mut self,
        session: &Session,
        link: &Attachment,
        resume: bool,
        target: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        self.target = target;
        let Session { shared, queue, replay, .. } = session;
        self.mode = match shared.signing() {
            Mode::Checkpoint if !link.protected => Mode::Engine,
            mode => mode,
        };
        if let Some(sequence) = lock(queue).ack.take() {
            ack::encode(sequence, out);
        }
        let must_wait = {
            // One lock for both: an acknowledgement in between would take away what the RESUME has announced.
            let mut replay = lock(replay);
            if replay.take_moved() | resume {
                let next = replay.rewind().unwrap_or_else(|| shared.sent_sequence.load(Ordering::Relaxed) + 1);
                let received = shared.delivered.load(Ordering::Acquire);
                Resume { session: shared.agreed.session, received, next }.encode(out);
            }
            if replay.send(out, target) {
                return true;
            }
            replay.must_wait()
        };
        // First, and whatever waits: the peer counts the time.
        if session.checkpoint_due.swap(false, Ordering::AcqRel) {
            self.proving.timer_is_over();
            self.write_checkpoint(session, out);
        }
        // The ACK that opens the window wakes.
        if must_wait {
            return false;
        }
        self.write_credit(session, out);
        if self.at == self.taken.entries.len() && self.taken.releases.is_empty() {
            self.recycle();
            lock(queue).take(&mut self.taken);
        }
        let let_go = self.take_from_lanes(session);

        let before = self.at;
        let mut barrier = None;
        let mut moved = 0;
        if !let_go.is_empty() {
            self.write_messages(session, &let_go, &mut moved, out);
        }
        while self.at < self.taken.entries.len() && out.len() < target && moved < self.moved_target() {
            match &self.taken.entries[self.at] {
                Entry::Announcement(kind, signed) => {
                    barrier = self.must_stay(session, *kind, signed);
                    if barrier.is_some() {
                        break;
                    }
                    self.announced.note(*kind, signed);
                    let start = out.len();
                    frame::encode(*kind, signed, out);
                    sent(shared, replay, 1, 0, &out[start..]);
                    self.at += 1;
                }
                Entry::Message(_) => self.write_messages(session, &[], &mut moved, out),
            }
        }
        // Not behind much else, nor without end.
        if self.proving.is_full() || !self.transfers.is_empty() {
            self.write_checkpoint(session, out);
        }
        if self.proving.timer() {
            session.checkpoint_asked.store(true, Ordering::Release);
        }
        self.write_fragments(session, barrier.as_deref(), out);
        let gone = &self.taken.entries[before..self.at];
        let cost = gone.iter().map(Entry::cost).sum();
        let drained = self.at == self.taken.entries.len();
        if drained {
            let stay = releases_that_stay(session, &self.transfers, &mut self.staying, &mut self.taken.releases);
            for entries in self.taken.releases.chunks(handle_release::ENTRIES_MAX) {
                let start = out.len();
                handle_release::encode(entries, out);
                sent(shared, replay, 1, 0, &out[start..]);
            }
            self.taken.releases.clear();
            self.staying = stay;
        }

        let mut handles = handles_left(session, &let_go, gone, &self.taken.arena);
        let mut queue = lock(queue);
        queue.sent(gone, cost);
        if !handles.is_empty() {
            queue.release_all(&mut handles, &shared.counters);
        }
        for (_, held) in &let_go {
            queue.gone(held.share, held.cost);
        }
        if !queue.waiters.is_empty() {
            queue.serve_waiters();
        }
        shared.counters.queue_bytes.set(queue.bytes() as u64);
        // Under the queue's lock: whoever gives a lane credit, or grants some, wakes after that.
        let ready = {
            let lanes = lock(&session.lanes);
            shared.counters.lanes_held.set(lanes.held() as u64);
            lanes.any_ready()
        };
        let more = !self.transfers.is_empty() || ready || lock(&session.debts).any_granted();
        !drained || more || !queue.settle()
    }

    /// One for all that has gone out without a signature since the last, if anything has.
    pub fn write_checkpoint(&mut self, session: &Session, out: &mut Vec<u8>) {
        let Some(checkpoint) = self.proving.chain.close() else { return };
        let Shared { agreed, keyring, counters, .. } = &session.shared;
        let body = checkpoint.body(&agreed.session, &agreed.own, &agreed.peer);
        let start = out.len();
        checkpoint.encode(&keyring.sign_checkpoint(&agreed.network, &body), out);
        sent(&session.shared, &session.replay, 1, 0, &out[start..]);
        counters.signed.one();
        counters.checkpoints_out.one();
    }

    fn write_credit(&self, session: &Session, out: &mut Vec<u8>) {
        let grants = {
            let mut debts = lock(&session.debts);
            if !debts.any_granted() {
                return;
            }
            debts.take_grants()
        };
        let mut body = Vec::new();
        for grants in grants.chunks(CREDITS_PER_FRAME) {
            body.clear();
            credit::encode(grants, &mut body);
            sent(&session.shared, &session.replay, 1, 0, &body);
            out.extend_from_slice(&body);
        }
    }

    fn recycle(&mut self) {
        self.at = 0;
        self.taken.entries.clear();
        self.taken.arena.clear();
        self.taken.source_changes = 0;
        if self.taken.arena.capacity() > ARENA_KEPT_MAX {
            self.taken = Taken::default();
        }
    }

    /// What may go now of what waited. Large ones begin.
    fn take_from_lanes(&mut self, session: &Session) -> Vec<(Arc<str>, Held)> {
        let mut let_go = Vec::new();
        let mut lanes = lock(&session.lanes);
        if !lanes.any_ready() {
            return let_go;
        }
        let mut budget = self.lanes_target();
        while budget > 0 && lanes.any_ready() {
            let (transfers, before) = (&self.transfers, let_go.len());
            lanes.let_go(budget, |bytes| transfers.has_room_for(bytes), &mut let_go);
            let cost: usize = let_go[before..].iter().map(|(_, held)| held.cost).sum();
            budget = budget.saturating_sub(cost);
            // A large one is the last.
            let Some(piece) = let_go.last_mut().and_then(|(_, held)| held.piece.take_if(|_| held.large)) else {
                continue;
            };
            if let Some((lane, held)) = let_go.pop() {
                self.transfers.begin(*piece, Large { lane, held });
            }
        }
        drop(lanes);
        // A call that was cancelled, or whose caller is gone, has been released: it must not come after that.
        if let_go.iter().any(|(_, held)| held.kind == kind::GENCALL) {
            let calls = lock(&session.calls);
            let cancelled: Vec<_> = let_go
                .extract_if(.., |(_, held)| held.kind == kind::GENCALL && calls.destination(held.call_id).is_none())
                .collect();
            drop(calls);
            self.give_back(session, cancelled);
        }
        let_go
    }

    /// Messages that were let go and don't go: their room, in the queue and in their window, is another's.
    fn give_back(&self, session: &Session, cancelled: Vec<(Arc<str>, Held)>) {
        if cancelled.is_empty() {
            return;
        }
        let mut calls = lock(&session.calls);
        for (_, held) in &cancelled {
            held.copies().for_each(|copy| calls.handles.unsend(copy));
        }
        drop(calls);
        let mut queue = lock(&session.queue);
        cancelled.iter().for_each(|(_, held)| queue.gone(held.share, held.cost));
        drop(queue);
        let mut lanes = lock(&session.lanes);
        cancelled.iter().for_each(|(lane, held)| lanes.refund(lane, held.payload().len()));
    }

    /// Which engine's large messages a FORGET has to wait for.
    fn must_stay(&self, session: &Session, kind: FrameType, signed: &[u8]) -> Option<Box<str>> {
        if kind != FrameType::Forget {
            return None;
        }
        let lanes = lock(&session.lanes);
        if self.transfers.is_empty() && !lanes.any_answers() {
            return None;
        }
        let (forget, _) = forget::Forget::decode(signed).ok()?;
        let engine = &*forget.engine;
        let under_way = self.transfers.iter().any(|large| large.held.source() == engine);
        (under_way || lanes.answer_waits(engine)).then(|| engine.into())
    }

    /// Fragments until the flush is full, and at least one. Those of `first` before others.
    fn write_fragments(&mut self, session: &Session, first: Option<&str>, out: &mut Vec<u8>) {
        let shared = &session.shared;
        let mut any = false;
        while !self.transfers.is_empty() && (!any || out.len() < self.target) {
            any = true;
            let start = out.len();
            let fragment_bytes = shared.limits.fragment_bytes.max(FRAGMENT_BYTES_MIN);
            let mut turn = Sent::Nothing;
            if let Some(first) = first {
                turn = self.transfers.send_next(fragment_bytes, out, |large| large.held.source() == first);
            }
            if matches!(turn, Sent::Nothing) {
                turn = self.transfers.send_next(fragment_bytes, out, |_| true);
            }
            sent(shared, &session.replay, 1, 0, &out[start..]);
            shared.counters.fragments_out.one();
            let Sent::Last(transfer) = turn else { continue };

            let (number, piece, large) = transfer.into_parts();
            let start = out.len();
            let payload_bytes = piece.payload_bytes();
            let Signer { mode, engine, as_realm } = self.announced.signer(signed(self.mode), large.held.source());
            let source = if as_realm { "" } else { large.held.source() };
            let message = wire_held(&large.held, source, large.destination(), &[]);
            let mut calls = lock(&session.calls);
            large.held.copies_with(piece.payload()).for_each(|copy| calls.handles.left(copy));
            self.taken.releases.append(&mut calls.handles.releases);
            drop(calls);
            let sign = |body: &[u8]| self.sign(shared, engine, body);
            piece.encode(&header(shared, mode, engine), &message, number, sign, out);
            shared.counters.signed.one();
            sent(shared, &session.replay, 1, 1, &out[start..]);
            count_batch(shared, 1, payload_bytes);
            self.large_done(session, &large);
        }
    }

    fn large_done(&mut self, session: &Session, large: &Large) {
        let held = &large.held;
        if held.kind == kind::GENCALL {
            // Released while it was on its way: the peer has to be told once it has it.
            let calls = lock(&session.calls);
            if calls.destination(held.call_id).is_none() {
                self.taken.releases.push(Release::Call(held.call_id));
            }
        }
        lock(&session.queue).gone(held.share, held.cost);
        lock(&session.lanes).large_done(&large.lane);
    }

    /// Casts, sends and calls that have been taken and wait for too long.
    pub fn expire(&mut self, over: impl Fn(u32) -> bool, calls: &mut Vec<u64>, queue: &mut Queue) -> u64 {
        self.taken.expire(self.at, over, calls, queue)
    }
}

/// Of what asks for a receipt, or goes in fragments: it has a signature of its own.
fn signed(mode: Mode) -> Mode {
    match mode {
        Mode::Checkpoint => Mode::Engine,
        mode => mode,
    }
}

/// With names of 255 bytes: so that a frame's bound is kept.
const CREDITS_PER_FRAME: usize = 250;

fn header<'a>(shared: &Shared, mode: Mode, engine: &'a str) -> Header<'a> {
    Header {
        session: shared.agreed.session,
        source: shared.agreed.own,
        destination: shared.agreed.peer,
        first_sequence: shared.sent_sequence.load(Ordering::Relaxed) + 1,
        mode,
        engine,
    }
}

fn wire_held<'a>(held: &Held, source: &'a str, destination: &'a str, payload: &'a [u8]) -> batch::Message<'a> {
    batch::Message {
        kind: held.kind,
        aligned: held.aligned,
        call_id: held.call_id,
        caller: wire_caller(held.kind, held.caller),
        detail: held.detail,
        source,
        destination,
        payload,
    }
}

fn count_batch(shared: &Shared, messages: u64, payload_bytes: usize) {
    shared.counters.messages_out.add(messages);
    shared.counters.payload_bytes_out.add(payload_bytes as u64);
    shared.counters.batches_out.one();
}

/// A sequenced frame goes out, before its bytes leave: the peer's ACK can't come earlier than this.
fn sent(shared: &Shared, replay: &Mutex<Replay>, count: u64, messages: u64, frame: &[u8]) {
    let first = shared.sent_sequence.fetch_add(count, Ordering::Release) + 1;
    let mut replay = lock(replay);
    replay.keep(first, count, messages, frame);
    shared.counters.resume_bytes.set(replay.bytes() as u64);
}

/// Of `releases`, and of those that stayed before: the ends of processes whose large messages are on their way, or whose answers wait
/// behind such, as with a FORGET.
fn releases_that_stay(
    session: &Session,
    transfers: &Transfers<Large>,
    staying: &mut Vec<Release>,
    releases: &mut Vec<Release>,
) -> Vec<Release> {
    releases.append(staying);
    let lanes = lock(&session.lanes);
    if releases.is_empty() || transfers.is_empty() && !lanes.any_answers() {
        return Vec::new();
    }
    let stays = |release: &mut Release| match release {
        Release::Ended { number, .. } => {
            let process = lane_of_answers(*number);
            transfers.iter().any(|large| large.held.source() == process) || lanes.answer_waits(&process)
        }
        _ => false,
    };
    releases.extract_if(.., stays).collect()
}

/// Handles that have left the queue. What there is to say about them goes behind them, in the next flush.
fn handles_left(session: &Session, let_go: &[(Arc<str>, Held)], gone: &[Entry], arena: &[u8]) -> Vec<Release> {
    // Callers are looked at only while there is one that may have ended while its call waited.
    let callers = session.shared.exports_ended.load(Ordering::Acquire) > 0;
    let mut locked = None;
    for (_, held) in let_go {
        if held.handles || callers && held.caller != 0 {
            let calls = locked.get_or_insert_with(|| lock(&session.calls));
            held.copies().for_each(|copy| calls.handles.left(copy));
        }
    }
    for entry in gone {
        if let Entry::Message(message) = entry {
            if !message.dropped && (message.handles || callers && message.caller != 0) {
                let calls = locked.get_or_insert_with(|| lock(&session.calls));
                message.copies(arena).for_each(|copy| calls.handles.left(copy));
            }
        }
    }
    locked.map_or_else(Vec::new, |mut calls| std::mem::take(&mut calls.handles.releases))
}
