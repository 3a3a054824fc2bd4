//! What the peer says of its engines and of its online key, and whether it is to be believed (`protocol.md` 11).

use crate::error::{InvalidFrame, LinkError};
use crate::frame::handle_release::Release;
use crate::frame::{cert::Cert, forget::Forget, learn::Learn};
use crate::identity::Purpose;
use crate::limits::ONLINE_KEY_MS_MAX;
use crate::session::certified::{valid, AnnouncedKey, Certified};
use crate::session::inbound::Inbound;
use crate::session::reasons::{Reason, Whose};
use crate::session::{lock, Event, Session, Shared};
use crate::UnixMs;

/// Where the peer's announcements are dropped, and why.
pub(super) enum Announcement {
    Stale,
    Bad,
    OverLimit,
}

impl Inbound {
    pub(super) fn count_announcement(
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

    fn last_serial(&self, engine: &str) -> u64 {
        let live = self.engines.get(engine).map_or(0, |certified| certified.serial);
        let forgotten = self.forgotten.get(engine).copied().unwrap_or(0);
        live.max(forgotten).max(self.floor)
    }

    pub(super) fn handle_learn(
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
    pub(super) fn handle_forget(
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

    pub(super) fn handle_cert(
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
}
