//! What a driver has to do with flow: time, mailboxes that it looks at, and callers that wait for room.

use std::sync::atomic::Ordering;

use crate::frame::batch::Refusal;
use crate::session::message::note_expired;
use crate::session::room::Room;
use crate::session::{lock, Event, Session};
use crate::UnixMs;

impl Session {
    /// Time passes: to be called regularly, every 10 to 1,000 ms. What is pushed is taken to have been pushed at the last tick, so
    /// [`crate::limits::Limits::message_ttl_ms`] is exact to one of these, and errs on the late side. Casts and sends that
    /// waited for longer are dropped (`expired`); calls end with [`Refusal::Expired`], given to `sink`. What has begun to go
    /// out goes.
    pub fn tick(&self, now: UnixMs, sink: &mut dyn FnMut(Event<'_>)) {
        // 32 bits come round after 49 days; half of that can't be told from the future.
        let clock = now as u32;
        let Some(ttl_ms) = self.shared.limits.message_ttl_ms else {
            lock(&self.queue).clock = clock;
            return;
        };
        let since_last = clock.wrapping_sub(std::mem::replace(&mut lock(&self.queue).clock, clock));
        let ttl_ms = u32::try_from(ttl_ms).unwrap_or(u32::MAX).saturating_add(since_last).min(u32::MAX / 2);
        let over = |since: u32| clock.wrapping_sub(since) >= ttl_ms;
        let mut calls = Vec::new();
        let mut dropped = 0;
        let lost;
        {
            let mut outbound = lock(&self.outbound);
            let mut queue = lock(&self.queue);
            dropped += outbound.expire(over, &mut calls, &mut queue);
            lock(&self.lanes).expire(over, |held| {
                queue.gone(held.share, held.cost);
                queue.lose(held.copies());
                dropped += note_expired(held.call_id, &mut calls);
            });
            dropped += queue.expire(ttl_ms, &mut calls);
            queue.serve_waiters();
            lost = queue.take_lost();
            self.shared.counters.queue_bytes.set(queue.bytes() as u64);
        }
        if !lost.is_empty() {
            let mut calls = lock(&self.calls);
            lost.into_iter().for_each(|copy| calls.handles.unsend(copy));
            self.gauge(&calls);
        }
        let counters = &self.shared.counters;
        counters.expired.add(dropped + calls.len() as u64);
        for call_id in calls {
            let pending = {
                let mut calls = lock(&self.calls);
                let pending = calls.finish(call_id);
                counters.calls_pending.set(calls.pending() as u64);
                self.gauge(&calls);
                pending
            };
            if let Some(pending) = pending {
                sink(Event::Refused { context: &pending.context, refusal: Refusal::Expired });
            }
        }
    }

    /// Gives `each` the destinations of ours whose mailboxes are to be looked at, and how many messages to them have not been
    /// granted back. To be called after [`Session::handle_bytes`], when its events have been handed to mailboxes; and, for as
    /// long as it returns true, by a timer that grows from 1 ms to 1 s. For each one the driver says [`Session::grant`], or
    /// [`Session::grant_up_to`] if more may come while it looks.
    ///
    /// It costs one atomic load when nobody is due. `each` is called under a lock: the session must not be called from it.
    pub fn debts(&self, each: impl FnMut(&str, u64)) -> bool {
        if !self.any_due.load(Ordering::Acquire) {
            return false;
        }
        let mut debts = lock(&self.debts);
        let any = debts.each_due(each);
        self.any_due.store(any, Ordering::Release);
        any
    }

    /// `left` messages are in this destination's mailbox, and all that have come are, or were: of those not yet granted no more
    /// than that are taken to be waiting, and the peer may send as much as the others were. 0 where there is no such process (any
    /// more). True: wake the active link's writer.
    pub fn grant(&self, destination: &str, left: u64) -> bool {
        self.grant_up_to(destination, left, u64::MAX)
    }

    /// The same of a look that began with this mark: what has come since then is taken to be waiting.
    pub fn grant_up_to(&self, destination: &str, left: u64, mark: u64) -> bool {
        let granted = lock(&self.debts).grant(destination, left, mark);
        granted && lock(&self.queue).wake()
    }

    /// Asked before a mailbox is looked at, for [`Session::grant_up_to`]: up to which of a destination's messages it has them, or
    /// has had them.
    pub fn mark(&self, destination: &str) -> u64 {
        lock(&self.debts).mark(destination)
    }

    /// A push was refused for want of room, and its caller would rather wait. After [`Room::Later`] the token comes back by
    /// [`Session::take_room`], once.
    pub fn wait_room(&self, destination: &str, payload_bytes: usize, token: u64) -> Room {
        let limits = &self.shared.limits;
        let mut queue = lock(&self.queue);
        if self.has_ended() {
            return Room::Now;
        }
        let room = queue.wait_room(destination, payload_bytes, token, limits.room_waiters_max);
        if room == Room::Full {
            self.shared.counters.room_waiters_over_limit.one();
        }
        room
    }

    /// Tokens of [`Session::wait_room`] for which there is room by now: push again. To be called after each flush and each
    /// [`Session::tick`], and after [`Session::end`].
    pub fn take_room(&self) -> Vec<u64> {
        lock(&self.queue).waiters.take()
    }

    /// Nobody waits with this token any more.
    pub fn cancel_room(&self, token: u64) {
        lock(&self.queue).waiters.cancel(token);
    }
}
