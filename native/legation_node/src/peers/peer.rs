//! One peer that is on the list: its session and the links of it, which of them we send on, which address is dialled next and
//! when. Decides, and owns no socket.
//!
//! ```text
//!  links    start ──► dialling ──► up ──► ended ──► waiting ──► dialling …
//!                        └──── failed ────────────────┘
//!  session  none ──► up ──► lost (no link) ──► up …  ──► ended: adopted by the next
//! ```

use std::sync::Arc;

use legation_proto::error::CloseCode;
use legation_proto::frame::hello::Offer;
use legation_proto::hello::Role;
use legation_proto::identity::RealmId;
use legation_proto::session::Session;
use tokio::task::AbortHandle;

use super::backoff::Backoff;
use super::links::{self, Current, Facts};
use super::session::{PeerSession, Standing};
use super::{LinkEnd, LinkStatus, PeerState, PeerStatus};
use crate::config::{CarrierConfig, Limits, PeerConfig, LINKS_MAX};
use crate::net::peer_connection::Control;

/// Between dials while a session is lost, at most.
const LOST_MAX_MS: u64 = 1_000;

pub(super) struct Peer {
    pub config: Arc<PeerConfig>,
    pub realm: Arc<str>,
    pub realm_id: RealmId,
    /// Another one each time that the peer is put on the list or taken up again. What belongs to an earlier one is ignored.
    pub generation: u64,
    /// Not so after a disconnect.
    pub connected: bool,
    /// Nor after this.
    pub revoked: bool,
    /// The wait for the next dial.
    pub timer: Option<AbortHandle>,
    /// The end of a session that has no link.
    pub grace: Option<AbortHandle>,
    backoff: Backoff,
    /// Whether our realm id is the lower of the two.
    lower: bool,
    handshake_ms: u64,
    grace_ms: u64,
    drained: bool,
    dial: Option<Dial>,
    session: Option<Arc<PeerSession>>,
    /// All of that session, the oldest first.
    links: Vec<Up>,
    /// The one of them that we send on.
    active: u64,
    /// The session is over as soon as that one is, whatever becomes of the goodbye there.
    closing: Option<CloseCode>,
    /// The last session, whose messages that were never signed go into the next.
    before: Option<Arc<Session>>,
    /// How the last link or dial ended.
    last_error: Option<LinkEnd>,
    /// Dials since the last link.
    attempts: u64,
    /// How many addresses were tried since the last back-off.
    tried: usize,
    index: usize,
}

/// The link that we are trying.
struct Dial {
    tag: u64,
    started_ms: u64,
    /// For one more link of the session that we have.
    additional: bool,
    control: Arc<Control>,
}

/// What to dial, and what for.
#[derive(Clone, Debug)]
pub(crate) struct DialPlan {
    pub address: CarrierConfig,
    /// Of the address, in the order of the list.
    pub index: usize,
    /// The session that we have; the peer may have it, too.
    pub resume: Option<Arc<PeerSession>>,
    /// Beside links that stay.
    pub additional: bool,
}

/// A link that is up.
#[derive(Clone)]
pub(super) struct Up {
    pub tag: u64,
    pub initiator: bool,
    pub up_ms: u64,
    /// Which address we have dialled. The first are the better ones; of those that the peer dialled we don't know.
    pub index: Option<usize>,
    pub status: LinkStatus,
    pub control: Arc<Control>,
}

/// What a link brings when it comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Joins {
    /// It takes up the session that we have; otherwise it begins another.
    pub resumed: bool,
    pub additional: bool,
}

/// What has to be done for a link that is up.
#[derive(Default)]
pub(super) struct Taken {
    /// Links that must go.
    pub replaced: Vec<(Arc<Control>, CloseCode)>,
    pub dial: Option<Arc<Control>>,
    /// The session that must go.
    pub ended: Option<Arc<PeerSession>>,
    /// What was queued there goes into the new one.
    pub adopted: Option<Arc<Session>>,
    /// We send on it from now on.
    pub activated: bool,
    /// The session was lost, and is not any more.
    pub found: bool,
}

/// What has to be done when a link, or what was to be one, has ended.
#[derive(Default)]
pub(super) struct Gone {
    /// In how many ms to dial again.
    pub redial: Option<u64>,
    /// How it stands has changed, and the realm must be told.
    pub session: Option<Arc<PeerSession>>,
    /// It is lost, and ends after its grace.
    pub grace: bool,
    /// It is over, and these are left of it.
    pub closed: Vec<Arc<Control>>,
    /// We send on this one from now on.
    pub activated: Option<Arc<Control>>,
}

/// What has to be closed when a peer leaves.
#[derive(Default)]
pub(super) struct Stopped {
    /// It has ended, and the realm must be told.
    pub session: Option<Arc<PeerSession>>,
    pub links: Vec<(Arc<Control>, CloseCode)>,
}

impl Peer {
    pub fn new(config: PeerConfig, own: &RealmId, generation: u64, limits: &Limits) -> Peer {
        let realm_id = RealmId::of(&config.key);
        Peer {
            realm: config.realm.as_str().into(),
            config: Arc::new(config),
            realm_id,
            generation,
            connected: true,
            revoked: false,
            timer: None,
            grace: None,
            backoff: Backoff::new(limits.reconnect_min_ms, limits.reconnect_max_ms),
            lower: *own < realm_id,
            handshake_ms: limits.session.handshake_ms,
            grace_ms: limits.grace_ms,
            drained: false,
            dial: None,
            session: None,
            links: Vec::new(),
            active: 0,
            closing: None,
            before: None,
            last_error: None,
            attempts: 0,
            tried: 0,
            index: 0,
        }
    }

    /// The address to dial now, if there is to be a dial; it is under way then.
    pub fn dial(&mut self, tag: u64, control: &Arc<Control>, now_ms: u64) -> Option<DialPlan> {
        if self.dial.is_some() {
            return None;
        }
        let index = self.next_address(self.index)?;
        let address = self.config.connect.get(index)?.clone();
        let resume = self.session.clone().filter(|session| session.can_resume());
        let additional = !self.links.is_empty();
        // Beside a link nothing but its session: a dial without it would take its place.
        if additional && resume.is_none() {
            return None;
        }
        self.index = index;
        self.dial = Some(Dial { tag, started_ms: now_ms, additional, control: control.clone() });
        self.attempts += 1;
        Some(DialPlan { address, index, resume, additional })
    }

    /// Whether an address should have a link that it hasn't.
    fn wants(&self, index: usize) -> bool {
        if self.closing.is_some() {
            return false;
        }
        let Some(session) = self.session.as_ref().filter(|_| !self.links.is_empty()) else {
            // What drains and is lost is taken up again to be finished, and nothing else is begun.
            return self.connected && (!self.drained || self.session.is_some());
        };
        // Beside others: who began the session has an order of addresses, and keeps up the first of them.
        let up = || self.links.iter().filter_map(|up| up.index);
        let better = up().filter(|better| *better < index).count();
        let may = self.connected && !self.drained && session.can_resume() && begun_by_us(session);
        may && usize::from(self.config.links) > 1
            && better < usize::from(self.config.links)
            && !up().any(|up| up == index)
    }

    /// The next address that wants a link, from `index` on.
    fn next_address(&self, index: usize) -> Option<usize> {
        let addresses = self.config.connect.len();
        (index..index + addresses).map(|index| index % addresses).find(|index| self.wants(*index))
    }

    /// The peer dialled and said hello: may it come in? And then: does it take up the session that we have?
    pub fn hello(&self, offer: Option<&Offer>, now_ms: u64) -> Result<Option<Arc<PeerSession>>, CloseCode> {
        let offered = |session: &&Arc<PeerSession>| {
            offer.is_some_and(|offer| offer.session == session.core.agreed().session && !session.has_ended())
        };
        let session = self.session.as_ref().filter(offered);
        if let Some(code) = self.closing {
            return Err(code);
        }
        if self.drained && session.is_none() {
            return Err(CloseCode::Shutdown);
        }
        match session {
            // The realm is just being told of it.
            Some(session) if !session.is_ready() => return Err(CloseCode::Duplicate),
            Some(session) if offer.is_some_and(|offer| offer.additional) && session.can_resume() => {
                return match self.links.len() < LINKS_MAX {
                    true => Ok(Some(session.clone())),
                    false => Err(CloseCode::Duplicate),
                };
            }
            // One more link of a session that can't be taken up, or that we don't have: it is not to end what there is.
            _ if offer.is_some_and(|offer| offer.additional) && !self.links.is_empty() => {
                return Err(CloseCode::Duplicate);
            }
            _ => {}
        }
        // One that nobody has answered may lead nowhere, and who came to us has found a way.
        let dial_ms = self.dial.as_ref().filter(|dial| dial.control.is_connected()).map(|dial| dial.started_ms);
        match links::hello_is_welcome(&self.facts(now_ms), dial_ms) {
            true => Ok(session.filter(|session| session.can_resume()).cloned()),
            false => Err(CloseCode::Duplicate),
        }
    }

    /// A link is up, of `session`. If it stays, others may have to go.
    pub fn up(&mut self, up: Up, session: &Arc<PeerSession>, joins: Joins) -> Result<Taken, CloseCode> {
        let ours = self.session.as_ref().is_some_and(|ours| ours.tag == session.tag && !ours.has_ended());
        // It has ended while the link was on its way: the peer comes again, and gets a new one.
        if joins.resumed && !ours {
            return Err(CloseCode::Duplicate);
        }
        // No more links for a session that is being closed; and the next one comes when it has ended.
        if let Some(code) = self.closing {
            return Err(code);
        }
        // A dial that was on its way when the drain began.
        if self.drained && !joins.resumed {
            return Err(CloseCode::Shutdown);
        }
        // It was to be one more link, and the peer has begun another session on it: it can't resume. What we have is worth more.
        let own_dial = self.dial.as_ref().filter(|dial| dial.tag == up.tag);
        if !joins.resumed && !self.links.is_empty() && own_dial.is_some_and(|dial| dial.additional) {
            return Err(CloseCode::Duplicate);
        }
        let beside = joins.resumed && joins.additional;
        if beside && self.links.len() >= LINKS_MAX {
            return Err(CloseCode::Duplicate);
        }
        if !beside && !links::takes_over(&self.facts(up.up_ms), up.initiator) {
            return Err(CloseCode::Duplicate);
        }
        self.cancel_grace();
        let mut taken = Taken { found: joins.resumed && self.links.is_empty(), ..Taken::default() };
        let own_dial = self.dial.take_if(|dial| dial.tag == up.tag);
        if !beside {
            self.cancel_timer();
            taken.dial = self.dial.take().map(|dial| dial.control);
            taken.replaced = self.links.drain(..).map(|up| (up.control, CloseCode::Replaced)).collect();
        }
        if own_dial.is_some() || !beside {
            self.last_error = None;
            self.tried = 0;
            self.attempts = 0;
        }
        if !joins.resumed {
            taken.ended = self.session.replace(session.clone());
            if let Some(ended) = &taken.ended {
                ended.stands(Standing::Ended(LinkEnd::Local(CloseCode::Replaced.name())));
                self.before = Some(ended.core.clone());
            }
            taken.adopted = self.before.take();
        }
        session.stands(Standing::Up);
        let tag = up.tag;
        self.links.push(up);
        taken.activated = self.send_on_the_best() == Some(tag);
        taken.replaced.extend(self.surplus().into_iter().map(|control| (control, CloseCode::Duplicate)));
        Ok(taken)
    }

    /// Of several links we send on the one whose address stands first, if we began the session; otherwise we stay with what
    /// we have, and then take the oldest. Returns which it is, when it is another than before.
    fn send_on_the_best(&mut self) -> Option<u64> {
        let session = self.session.as_ref()?;
        let rank = |up: &&Up| match begun_by_us(session) {
            true => (up.index.unwrap_or(usize::MAX), 0),
            false => (usize::from(up.tag != self.active), up.up_ms),
        };
        let best = self.links.iter().min_by_key(rank)?;
        if std::mem::replace(&mut self.active, best.tag) == best.tag {
            return None;
        }
        session.send_on(Some((best.control.wake.clone(), LinkStatus { active: true, ..best.status.clone() })));
        Some(self.active)
    }

    /// Takes out links that are more than the settings say: the last in the order of addresses.
    pub fn surplus(&mut self) -> Vec<Arc<Control>> {
        if !self.session.as_ref().is_some_and(begun_by_us) {
            return Vec::new();
        }
        let mut order: Vec<(usize, u64)> =
            self.links.iter().map(|up| (up.index.unwrap_or(usize::MAX), up.tag)).collect();
        order.sort_by_key(|(index, _)| *index);
        let surplus: Vec<u64> = order.iter().skip(usize::from(self.config.links)).map(|(_, tag)| *tag).collect();
        self.links.extract_if(.., |up| surplus.contains(&up.tag)).map(|up| up.control).collect()
    }

    /// A link or a dial has ended. `random` is any number.
    pub fn ended(&mut self, tag: u64, why: &LinkEnd, now_ms: u64, random: u64) -> Gone {
        let mut gone = Gone::default();
        if let Some(at) = self.links.iter().position(|up| up.tag == tag) {
            let up = self.links.remove(at);
            self.last_error = Some(why.clone());
            match self.closing.filter(|_| tag == self.active) {
                // It may have broken before the goodbye was said: the session ends all the same.
                Some(code) if why.keeps_session() => self.link_is_gone(&LinkEnd::Local(code.name()), &mut gone),
                _ => self.link_is_gone(why, &mut gone),
            }
            // At once, from the first address on; but not again and again one that goes as soon as it is up.
            let lived = now_ms.saturating_sub(up.up_ms) >= self.handshake_ms;
            gone.redial = self.dial_again(lived, random);
            return gone;
        }
        if self.dial.take_if(|dial| dial.tag == tag).is_none() {
            return gone;
        }
        match why {
            // Turned away because there is a link, or the peer's own dial is on its way: no error.
            LinkEnd::Closed { code: "duplicate", .. } | LinkEnd::Local("duplicate") => {}
            // A responder that doesn't accept us closes without a word (`protocol.md` 4.4).
            LinkEnd::Carrier(reason) if reason == "closed" => self.last_error = Some(LinkEnd::NoAnswer),
            why => self.last_error = Some(why.clone()),
        }
        gone.redial = self.redial(random);
        gone
    }

    /// What its end means for the session.
    fn link_is_gone(&mut self, why: &LinkEnd, gone: &mut Gone) {
        let Some(session) = self.session.clone() else { return };
        let resumable = why.keeps_session() && session.core.can_resume();
        if resumable && !self.links.is_empty() {
            let activated = self.send_on_the_best();
            gone.activated = self.links.iter().find(|up| Some(up.tag) == activated).map(|up| up.control.clone());
        } else if !resumable || self.grace_ms() == 0 {
            gone.session = Some(session);
            gone.closed = self.links.drain(..).map(|up| up.control).collect();
            self.end_session(why);
        } else {
            self.active = 0;
            session.send_on(None);
            session.stands(Standing::Lost(why.clone()));
            gone.session = Some(session);
            gone.grace = true;
        }
    }

    /// How long a session without a link lives.
    pub fn grace_ms(&self) -> u64 {
        self.config.limits.grace_ms.unwrap_or(self.grace_ms)
    }

    /// Nobody has taken it up in time. Returns it, for the realm to be told.
    pub fn grace_is_over(&mut self, session: u64) -> Option<Arc<PeerSession>> {
        let lost = self.session.clone().filter(|lost| lost.tag == session && self.links.is_empty())?;
        let Standing::Lost(why) = lost.standing() else { return None };
        self.end_session(&why);
        Some(lost)
    }

    /// It is over; what was queued waits for the next one.
    fn end_session(&mut self, why: &LinkEnd) {
        self.cancel_grace();
        (self.active, self.closing) = (0, None);
        if let Some(session) = self.session.take() {
            session.stands(Standing::Ended(why.clone()));
            session.send_on(None);
            self.before = Some(session.core.clone());
        }
    }

    /// It leaves the list, and everything is as at the start. Nothing can be pushed any more from now on.
    pub fn stop(&mut self) -> Stopped {
        self.stop_with(CloseCode::Normal, &LinkEnd::Local(CloseCode::Normal.name()))
    }

    /// Its key is accepted no more.
    pub fn revoke(&mut self, why: &LinkEnd) -> Stopped {
        let stopped = self.stop_with(CloseCode::Revoked, why);
        self.revoked = true;
        self.last_error = Some(why.clone());
        stopped
    }

    fn stop_with(&mut self, code: CloseCode, why: &LinkEnd) -> Stopped {
        self.connected = false;
        self.cancel_timer();
        self.backoff.reset();
        let session = self.session.clone();
        let links = self.goodbyes(code);
        self.links.clear();
        self.dial = None;
        self.end_session(why);
        (self.before, self.last_error) = (None, None);
        (self.attempts, self.tried, self.index) = (0, 0, 0);
        Stopped { session, links }
    }

    /// How all links are to be closed, and the dial. What waits goes out on the active one, with the goodbye behind it: said on another
    /// it would come before.
    fn goodbyes(&self, code: CloseCode) -> Vec<(Arc<Control>, CloseCode)> {
        let of_link = |up: &Up| match up.tag == self.active {
            true => (up.control.clone(), code),
            false => (up.control.clone(), CloseCode::Replaced),
        };
        let dial = self.dial.as_ref().map(|dial| (dial.control.clone(), code));
        self.links.iter().map(of_link).chain(dial).collect()
    }

    /// Takes it up again.
    pub fn start(&mut self, generation: u64) {
        self.generation = generation;
        self.connected = true;
        self.drained = false;
    }

    /// Nothing new from now on. Returns the session that has to be finished.
    pub fn drain(&mut self) -> Option<Arc<PeerSession>> {
        self.drained = true;
        if self.session.is_none() {
            self.cancel_timer();
        }
        self.session.clone().inspect(|session| session.drain())
    }

    /// The end of a drain, or of everything. A session without a link ends at once; that of others their ends tell.
    pub fn close(&mut self, session: u64, code: CloseCode) -> Stopped {
        let Some(current) = self.session.clone().filter(|current| current.tag == session) else {
            return Stopped::default();
        };
        self.cancel_timer();
        let links = self.goodbyes(code);
        if !self.links.is_empty() {
            self.closing.get_or_insert(code);
            return Stopped { session: None, links };
        }
        self.end_session(&LinkEnd::Local(code.name()));
        Stopped { session: Some(current), links }
    }

    /// Up or lost.
    pub fn session(&self) -> Option<&Arc<PeerSession>> {
        self.session.as_ref().filter(|session| !session.has_ended())
    }

    pub fn links(&self) -> Vec<LinkStatus> {
        let status =
            |up: &Up| LinkStatus { active: up.tag == self.active, rtt_ms: up.control.rtt_ms(), ..up.status.clone() };
        match self.session() {
            Some(_) => self.links.iter().map(status).collect(),
            None => Vec::new(),
        }
    }

    pub fn status(&self) -> PeerStatus {
        let links = self.links();
        PeerStatus {
            realm: self.realm.clone(),
            key: self.config.key,
            state: self.state(!links.is_empty()),
            attempts: self.attempts,
            last_error: self.last_error.clone(),
            links,
        }
    }

    fn state(&self, up: bool) -> PeerState {
        match () {
            () if self.revoked => PeerState::Revoked,
            () if !self.connected => PeerState::Disconnected,
            () if self.drained => PeerState::Drained,
            () if up => PeerState::Up,
            () if self.session().is_some() => PeerState::Lost,
            () if self.dial.is_some() => PeerState::Connecting,
            // Nothing to dial: the peer comes to us.
            () if self.config.connect.is_empty() => PeerState::Listening,
            () => PeerState::Waiting,
        }
    }

    /// A link has ended: from the first address on.
    fn dial_again(&mut self, at_once: bool, random: u64) -> Option<u64> {
        self.index = self.next_address(0)?;
        self.tried = 0;
        self.cancel_timer();
        if !at_once {
            return Some(self.pause(random));
        }
        self.backoff.reset();
        Some(0)
    }

    /// A dial has failed: each address is tried once, one right after the other; then we back off.
    fn redial(&mut self, random: u64) -> Option<u64> {
        let addresses = self.config.connect.len();
        self.index = self.next_address((self.index + 1) % addresses.max(1))?;
        self.cancel_timer();
        self.tried += 1;
        if self.tried < (0..addresses).filter(|index| self.wants(*index)).count() {
            return Some(0);
        }
        self.tried = 0;
        Some(self.pause(random))
    }

    /// While a session waits to be taken up its grace runs: what is mended in time has to be found in time.
    fn pause(&mut self, random: u64) -> u64 {
        let delay_ms = self.backoff.next(random);
        match self.session() {
            Some(_) if delay_ms > LOST_MAX_MS => 1 + random % LOST_MAX_MS,
            _ => delay_ms,
        }
    }

    pub fn cancel_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }

    pub fn cancel_timers(&mut self) {
        self.cancel_timer();
        self.cancel_grace();
    }

    fn cancel_grace(&mut self) {
        if let Some(grace) = self.grace.take() {
            grace.abort();
        }
    }

    fn facts(&self, now_ms: u64) -> Facts {
        let active = self.links.iter().find(|up| up.tag == self.active);
        let current = active.map(|up| Current { initiator: up.initiator, up_ms: up.up_ms });
        Facts { current, lower: self.lower, now_ms, handshake_ms: self.handshake_ms }
    }
}

/// We dialled its first link.
fn begun_by_us(session: &Arc<PeerSession>) -> bool {
    session.core.agreed().role == Role::Initiator
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
