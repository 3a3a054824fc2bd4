//! A session and its links: which of them it is sent on, and what goes over when one takes the place of another.
//!
//! Each side chooses for itself on which link it sends (*active*). What it moves to another link it announces there with a
//! RESUME and sends again from the first frame that was not acknowledged; the receiver passes over what it has
//! (`protocol.md` 8.6). So links may break, come and go at any time, and both sides need not agree on one.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::error::{CloseCode, LinkError, PeerMisbehaved};
use crate::frame::batch::kind;
use crate::frame::close::Close;
use crate::frame::{ack, ping};
use crate::limits::FLUSH_TARGET;
use crate::session::attachment::Attachment;
use crate::session::handles::Exported;
use crate::session::inbound::Acknowledge;
use crate::session::message::NewMessage;
use crate::session::slice::{Rest, Slice};
use crate::session::{is_protected, lock, Event, Session};
use crate::sync::lock_soon;
use crate::UnixMs;

/// Sources in a row that make a flush no short work: each may have a signature of its own.
const SMALL_CHANGES: usize = 8;
const SMALL_RELEASES: usize = 1_024;
/// A payload that is hashed in about a tenth of a millisecond.
const SMALL_TRANSFER_BYTES: usize = 1_280 * 1_024;

/// Whose writer has something to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// This link's own.
    pub link: bool,
    /// That of the link that the session is sent on.
    pub session: bool,
}

impl Wake {
    pub fn any(self) -> bool {
        self.link || self.session
    }
}

impl std::ops::BitOrAssign for Wake {
    fn bitor_assign(&mut self, other: Wake) {
        self.link |= other.link;
        self.session |= other.session;
    }
}

impl Session {
    /// One more link, over a channel of this profile (`protocol.md` 5.1). `first`: of a session that has just begun; it is active at
    /// once, and both sides count from 1 on it.
    pub fn attach(&self, first: bool, profile: u8, now: UnixMs) -> Arc<Attachment> {
        lock(&self.queue).clock = now as u32;
        let number = self.last_link.fetch_add(1, Ordering::Relaxed) + 1;
        if first {
            self.active.store(number, Ordering::Release);
        }
        Arc::new(Attachment::new(number, first, is_protected(profile), &self.shared.limits, now))
    }

    /// From now on this side sends on this link: wake its writer. What was sent and not acknowledged goes again. Nothing
    /// happens where it does so already, or the link has gone.
    pub fn activate(&self, link: &Attachment) -> bool {
        // No flush of another link is at work when this returns.
        let _outbound = lock(&self.outbound);
        if link.is_detached() || self.active.swap(link.number, Ordering::AcqRel) == link.number {
            return false;
        }
        lock(&link.outbound).resume = true;
        // Whoever was to come back for the last one's sake may be gone with it.
        self.checkpoint_due.store(true, Ordering::Release);
        true
    }

    pub fn is_active(&self, link: &Attachment) -> bool {
        self.active.load(Ordering::Acquire) == link.number
    }

    /// The link has ended: nothing that comes on it is looked at any more, and nothing is sent. True: it was the active one.
    pub fn detach(&self, link: &Attachment) -> bool {
        link.detached.store(true, Ordering::Release);
        // Waits for what is being handled.
        lock(&link.inbound).closed = true;
        self.active.compare_exchange(link.number, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether another link can take over when the last one is lost.
    pub fn can_resume(&self) -> bool {
        self.shared.limits.resume_bytes_max > 0 && !self.has_ended()
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The peer has ended the session, and takes nothing of it any more, on whatever link: what waits goes into the next one, or is told
    /// to be lost, and for that it must not be signed here.
    pub(super) fn left(&self) {
        // No flush is at work when this returns.
        let _outbound = lock(&self.outbound);
        self.left.store(true, Ordering::Release);
    }

    /// Messages that were sent and not acknowledged: if the session ends now, nobody knows whether they have arrived.
    pub fn gap(&self) -> u64 {
        lock(&self.replay).messages()
    }

    /// Takes over what `old` had not signed when it ended: casts and sends to engines, in their order. Calls ended with it, and so
    /// did what the peer's handles meant. To be called when our announcements are queued and before anything else is pushed.
    /// Returns how many, and what the driver has to watch.
    pub fn adopt(&self, old: &Session) -> (u64, Vec<Exported>) {
        let (mut adopted, mut exported) = (0, Vec::new());
        let mut outbound = lock(&old.outbound);
        let calls = lock(&old.calls);
        let mut queue = lock(&old.queue);
        let mut adopt = |message: NewMessage<'_>| {
            // A handle's address has ended with its session.
            if !matches!(message.kind, kind::SEND | kind::CAST) || message.destination.starts_with('@') {
                return;
            }
            let taken = match message.handles {
                true => self.adopt_handles(&calls, message),
                false => self.enqueue(None, message, false).ok().map(|_| Vec::new()),
            };
            if let Some(new) = taken {
                adopted += 1;
                exported.extend(new);
            }
        };
        outbound.drain_unsigned(&mut lock(&old.lanes), &mut adopt);
        queue.drain_unsigned(&mut adopt);
        self.shared.counters.adopted.add(adopted);
        (adopted, exported)
    }

    /// `decrypt` appends what the channel makes of received bytes; events go to `sink`.
    ///
    /// # Errors
    /// What ends the link; events that were complete before it have gone to the sink.
    pub fn handle_bytes<E: From<LinkError>>(
        &self,
        link: &Attachment,
        now: UnixMs,
        decrypt: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> (Wake, Result<(), E>) {
        let (wake, rest) = self.handle_slice(link, now, decrypt, &mut Slice::unbounded(), sink);
        (wake, rest.map(|_| ()))
    }

    /// The same as far as `slice` goes. Unless [`Rest::Nothing`] is left it has to be called again, when what it has brought has been
    /// delivered; it may be without bytes.
    ///
    /// # Errors
    /// As [`Session::handle_bytes`].
    pub fn handle_slice<E: From<LinkError>>(
        &self,
        link: &Attachment,
        now: UnixMs,
        decrypt: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        slice: &mut Slice,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> (Wake, Result<Rest, E>) {
        let mut received = lock(&link.inbound);
        let decrypted = decrypt(&mut received.buffer);
        let (wake, handled) = lock(&self.inbound).handle(self, link, &mut received, now, slice, sink);
        (wake, handled.map_err(E::from).and_then(|rest| decrypted.map(|()| rest)))
    }

    /// The events of the last [`Session::handle_bytes`] have been handed to mailboxes. To be said after each, whether it had events
    /// or not: announcements are acknowledged, too.
    pub fn delivered(&self) -> Acknowledge {
        // Marks are of no interest while nobody owes enough to be looked at, and the next time is soon.
        if self.any_due.load(Ordering::Acquire) {
            lock(&self.debts).delivered();
        }
        lock(&self.inbound).acknowledge(self)
    }

    /// The peer hears now of what was handed to mailboxes, and not with the next frames. True: wake the active link's writer.
    pub fn acknowledge_now(&self) -> bool {
        lock(&self.inbound).acknowledge_now(self)
    }

    /// Appends frames to `out`. True: more waits; flush again when the carrier can take it.
    pub fn flush(&self, link: &Attachment, out: &mut Vec<u8>) -> bool {
        self.flush_to(FLUSH_TARGET, link, out)
    }

    /// The same, of about `target` bytes and no more, but for a single message that is larger.
    pub fn flush_to(&self, target: usize, link: &Attachment, out: &mut Vec<u8>) -> bool {
        {
            let mut own = lock(&link.outbound);
            if own.closed {
                return false;
            }
            if let Some(token) = own.pong.take() {
                ping::encode_pong(token, out);
            }
            if let Some(token) = own.ping.take() {
                ping::encode_ping(token, out);
            }
        }
        let more = {
            let mut outbound = lock(&self.outbound);
            match self.is_active(link) {
                // That it has come is told all the same.
                true if self.left.load(Ordering::Acquire) => {
                    if let Some(sequence) = lock(&self.queue).ack.take() {
                        ack::encode(sequence, out);
                    }
                    false
                }
                true => {
                    // Looked at with the session's lock held: whoever activates the link sets it under that.
                    let resume = std::mem::take(&mut lock(&link.outbound).resume);
                    outbound.flush(self, link, resume, target, out)
                }
                false => false,
            }
        };
        if !more && lock(&link.outbound).close.is_some() {
            self.flush_close(link, out);
        }
        more
    }

    /// The last frame, after everything that waits, all of which is proven by then.
    fn flush_close(&self, link: &Attachment, out: &mut Vec<u8>) {
        let mut outbound = lock(&self.outbound);
        if self.is_active(link) {
            outbound.write_checkpoint(self, out);
        }
        let mut own = lock(&link.outbound);
        if let Some(close) = own.close.take() {
            close.encode(out);
            own.closed = true;
        }
    }

    /// To be asked after each flush. Some, once for each time that it is needed: the driver is to call
    /// [`Session::checkpoint_now`] so many ms from now, whatever else happens.
    pub fn checkpoint_timer(&self) -> Option<u64> {
        let asked =
            self.checkpoint_asked.load(Ordering::Relaxed) && self.checkpoint_asked.swap(false, Ordering::AcqRel);
        // Timers have a grain of a millisecond, and are late rather than early.
        asked.then(|| self.shared.limits.checkpoint_ms.saturating_sub(1).max(1))
    }

    /// It is time to prove what has gone out without a signature: wake the active link's writer, whatever it waits for.
    pub fn checkpoint_now(&self) {
        self.checkpoint_due.store(true, Ordering::Release);
    }

    /// Messages that the peer has sent and not proven: the numbers of the first and last. None: all are.
    pub fn unproven(&self) -> Option<(u64, u64)> {
        self.shared.unproven.range()
    }

    /// Whether the next flush is short work, where it goes no further than a short target: makes a few signatures at most, none
    /// over something large, and waits for nobody.
    pub fn next_flush_is_small(&self) -> bool {
        let Some(outbound) = lock_soon(&self.outbound) else { return false };
        let (changes, largest) = (outbound.source_changes(), outbound.largest_transfer());
        drop(outbound);
        let Some(queue) = lock_soon(&self.queue) else { return false };
        let (changes, releases) = (changes + queue.source_changes(), queue.releases());
        drop(queue);
        let Some(lanes) = lock_soon(&self.lanes) else { return false };
        let changes = changes + lanes.source_changes();
        changes <= SMALL_CHANGES && releases <= SMALL_RELEASES && largest <= SMALL_TRANSFER_BYTES
    }

    /// Heartbeat, and whether the peer proves what it sends. Returns whether to wake the link's writer, and when to come again.
    ///
    /// # Errors
    /// When the peer has been silent, or owes a checkpoint, for too long.
    pub fn handle_timeout(&self, link: &Attachment, now: UnixMs) -> Result<(bool, UnixMs), LinkError> {
        let ping_ms = self.shared.limits.ping_ms;
        let mut received = lock(&link.inbound);
        let silent_ms = now.saturating_sub(received.last_received);
        let given_up = ping_ms.saturating_mul(2);
        if silent_ms >= given_up {
            return Err(PeerMisbehaved::Silent { silent_ms }.into());
        }
        // What another link brings is waited for there.
        let proofs = match received.position {
            Some(_) => lock(&self.inbound).check_proofs(now)?,
            None => None,
        };
        received.timed = proofs.is_some();
        let due = now >= received.next_ping;
        if due {
            received.next_ping = now.saturating_add(ping_ms);
            lock(&link.outbound).ping = Some(now);
        }
        let heartbeat = received.next_ping.min(received.last_received.saturating_add(given_up));
        Ok((due, proofs.map_or(heartbeat, |proofs| proofs.min(heartbeat))))
    }

    /// Queues a CLOSE behind everything that waits on this link. True: wake its writer.
    pub fn close(&self, link: &Attachment, code: CloseCode, text: &str) -> bool {
        let mut own = lock(&link.outbound);
        if !own.closed && own.close.is_none() {
            own.close = Some(Close { code, text: text.to_owned() });
        }
        true
    }
}
