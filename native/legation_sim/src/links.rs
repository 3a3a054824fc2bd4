//! The ends of connections: bytes to a link and from it, as a driver's reader and writer do it.

use legation_channel::channel::Profile;
use legation_channel::knock::KnockRefused;
use legation_channel::link::{Link, LinkEvent, LinkFault};
use legation_proto::error::{CloseCode, HelloRefused, LinkError, PeerMisbehaved};
use legation_proto::limits::FLUSH_TARGET;
use legation_proto::session::{Acknowledge, Event, Wake};
use legation_proto::UnixMs;

use crate::ledger::Invariant;
use crate::wire::{Actor, At, Chunk, Phase, Why};
use crate::world::{Happening, Of, Sabotage, World};

impl World {
    /// The realm at this end, if it is one, and still the same boot of it.
    pub fn realm_at(&self, at: At) -> Option<usize> {
        match self.conns[at.0].ends[at.1].actor {
            Actor::Realm { realm, boot } if self.realms[realm].alive && self.realms[realm].boot == boot => Some(realm),
            _ => None,
        }
    }

    pub fn arrives(&mut self, conn: usize, from: usize) {
        let flight = &mut self.conns[conn].flights[from];
        let Some((due, _)) = flight.chunks.front() else { return };
        if *due > self.now_us {
            // It was held up meanwhile.
            let wait = *due - self.now_us;
            return self.after(wait, Happening::Arrives { conn, from });
        }
        let Some((_, chunk)) = flight.chunks.pop_front() else { return };
        let to = (conn, 1 - from);
        match chunk {
            Chunk::Bytes(bytes) => {
                flight.bytes -= bytes.len();
                self.receive(to, &bytes);
                if std::mem::take(&mut self.end((conn, from)).blocked) {
                    self.wake((conn, from));
                }
            }
            Chunk::Fin => self.finish(to, Why::Carrier("closed")),
        }
    }

    fn receive(&mut self, at: At, bytes: &[u8]) {
        if let Actor::Liar { .. } | Actor::Impostor { .. } | Actor::Ghost = self.end(at).actor {
            return self.hostile_receives(at, bytes);
        }
        let mut rest = bytes;
        let cuts = if self.chance(10) { self.random.usize(1..5) } else { 0 };
        for left in (0..=cuts).rev() {
            if self.end(at).phase == Phase::Over || rest.is_empty() {
                return;
            }
            let piece = if left == 0 { rest.len() } else { self.random.usize(1..=rest.len()) };
            let (now, after) = rest.split_at(piece);
            rest = after;
            self.step(at, true, |link, ms, sink| link.handle_bytes(ms, now, sink));
            let twice = self.sabotage == Some(Sabotage::BreakRule) && self.conns[at.0].profile == Profile::Local;
            if twice && self.end(at).phase == Phase::Up {
                self.step(at, true, |link, ms, sink| link.handle_bytes(ms, now, sink));
            }
        }
    }

    /// Has a link do something, does what its events say, and wakes who has to be.
    pub fn step(
        &mut self,
        at: At,
        read: bool,
        work: impl FnOnce(&Link, UnixMs, &mut dyn FnMut(LinkEvent<'_>)) -> Wake,
    ) {
        let (Some(realm), Some(link)) = (self.realm_at(at), self.end(at).link.clone()) else { return };
        let ms = self.realms[realm].unix_ms(self.now_us);
        let mut wake = work(&link, ms, &mut |event| self.link_event(at, event));
        wake |= std::mem::take(&mut self.end(at).woken);
        if self.end(at).phase == Phase::Up {
            if let Some(of) = self.session_at(at) {
                self.check_bounds(of.realm, of.peer);
                if read {
                    wake.session |= self.delivered(of);
                }
                if wake.session {
                    self.wake_session(of);
                }
            }
        }
        if wake.link {
            self.wake(at);
        }
        if let Some(ms) = self.end(at).sooner_ms.take() {
            self.set_timer(at, ms);
        }
        if let Some((peer, offer)) = self.end(at).asked.take() {
            self.hello(at, peer, offer);
        }
        if let Some(request) = self.end(at).unsigned.take() {
            self.ask_for_link(at, request);
        }
        if let Some(why) = self.end(at).why.take() {
            self.finish(at, why);
        }
    }

    /// The session that this is a link of.
    pub fn session_at(&self, at: At) -> Option<Of> {
        let realm = self.realm_at(at)?;
        let end = &self.conns[at.0].ends[at.1];
        let of = self.of(realm, end.peer?)?;
        (of.tag == end.tag).then_some(of)
    }

    fn link_event(&mut self, at: At, event: LinkEvent<'_>) {
        match event {
            LinkEvent::Session(Event::Closed { code, .. }) => {
                self.end(at).why.get_or_insert(Why::Closed(code));
            }
            LinkEvent::Session(Event::TimeoutIn(ms)) => self.end(at).sooner_ms = Some(ms),
            LinkEvent::Session(event) => {
                // Nothing is delivered of a link that was not wanted.
                if self.end(at).phase == Phase::Up {
                    if let Some(of) = self.session_at(at) {
                        self.event(of, event);
                    }
                }
            }
            LinkEvent::Sign(request) => self.end(at).unsigned = Some(request),
            LinkEvent::Decide { peer, resume, .. } => self.end(at).asked = Some((peer, resume)),
            LinkEvent::Up { session, resumed, additional } => self.up(at, session, resumed, additional),
            LinkEvent::Fault(fault) => {
                self.judge(at, &fault);
                let code = match &fault {
                    LinkFault::Protocol(error) => Some(CloseCode::from(error)),
                    LinkFault::Channel(_) | LinkFault::Knock(_) | LinkFault::Answer(_) => None,
                };
                let text = fault.to_string();
                self.end(at).why.get_or_insert(Why::Fault { code, text });
            }
        }
    }

    /// Whether a realm that keeps the rules can have come to this.
    fn judge(&mut self, at: At, fault: &LinkFault) {
        let conn = &self.conns[at.0];
        let other = &conn.ends[1 - at.1];
        let honest = matches!(other.actor, Actor::Realm { .. });
        let allowed = match fault {
            _ if !honest => true,
            LinkFault::Channel(_) | LinkFault::Answer(_) => conn.touched,
            // Clocks differ: what was dialled right after a start may be from before it for who has started.
            LinkFault::Knock(KnockRefused::TooEarly) => true,
            // A knock counts once, whoever shows it first.
            LinkFault::Knock(KnockRefused::Replayed) => conn.touched || conn.copied,
            LinkFault::Knock(_) => conn.touched,
            LinkFault::Protocol(LinkError::Misbehaved(PeerMisbehaved::Silent { .. })) => true,
            // A carrier that is held up holds up proofs.
            LinkFault::Protocol(LinkError::Misbehaved(PeerMisbehaved::Unproven("no checkpoint has come in time"))) => {
                true
            }
            LinkFault::Protocol(LinkError::Refused(refused)) => {
                match (refused, &other.actor) {
                    (HelloRefused::TimedOut | HelloRefused::Revoked | HelloRefused::Duplicate, _) => true,
                    // It was on its way with the key before, while another link told of the next.
                    (HelloRefused::StaleKey, Actor::Realm { realm, .. }) => {
                        self.realms[*realm].rotated_us >= conn.begun_us
                    }
                    _ => conn.touched,
                }
            }
            LinkFault::Protocol(_) => conn.touched && conn.ends[at.1].phase == Phase::Handshake,
        };
        if !allowed {
            self.violate(Invariant::RulesKept, format!("{fault} at {at:?}: {fault:?}"));
        }
    }

    /// All that a read has brought has been delivered. True: the session's writer has to be woken.
    fn delivered(&mut self, of: Of) -> bool {
        let ack_us = self.plan.ack_ms * 1_000;
        let Some(session) = self.session(of) else { return false };
        let acknowledge = session.core.delivered();
        let mut wake = acknowledge == Acknowledge::Wake;
        if acknowledge == Acknowledge::Later && !std::mem::replace(&mut session.acknowledging, true) {
            self.after(ack_us, Happening::Acknowledge { of });
        }
        wake |= self.grant(of, false);
        wake
    }

    /// Mailboxes are looked at. Some are slow, until `all` are.
    fn grant(&mut self, of: Of, all: bool) -> bool {
        let slow = !all && self.chance(30);
        let Some(session) = self.session(of) else { return false };
        let mut due = Vec::new();
        let mut any = session.core.debts(|destination, messages| due.push((destination.to_owned(), messages)));
        // Tables have no order.
        due.sort_unstable();
        let mut wake = false;
        for (destination, messages) in due {
            wake |= session.core.grant(&destination, if slow { messages } else { 0 });
        }
        any |= slow;
        if any && !std::mem::replace(&mut session.looking, true) {
            self.after(1_000, Happening::Look { of, wait_ms: 2 });
        }
        wake
    }

    pub fn look(&mut self, of: Of, wait_ms: u64) {
        let Some(session) = self.session(of) else { return };
        session.looking = false;
        let core = session.core.clone();
        if self.grant(of, true) {
            self.wake_session(of);
        }
        if core.debts(|_, _| ()) {
            if let Some(session) = self.session(of) {
                session.looking = true;
                self.after(wait_ms * 1_000, Happening::Look { of, wait_ms: (wait_ms * 2).min(1_000) });
            }
        }
    }

    pub fn acknowledge(&mut self, of: Of) {
        let Some(session) = self.session(of) else { return };
        session.acknowledging = false;
        if session.core.acknowledge_now() {
            self.wake_session(of);
        }
    }

    pub fn prove(&mut self, of: Of) {
        let Some(session) = self.session(of) else { return };
        session.core.checkpoint_now();
        self.wake_session(of);
    }

    /// The writer of the link that the session is sent on has something to do.
    pub fn wake_session(&mut self, of: Of) {
        let realm = &self.realms[of.realm];
        let Some(peer) = realm.peers[of.peer].as_ref() else { return };
        let Some(conn) = peer.active else { return };
        if let Some(end) = self.own_end(conn, of.realm) {
            self.wake((conn, end));
        }
    }

    pub fn own_end(&self, conn: usize, realm: usize) -> Option<usize> {
        (0..2).find(|end| matches!(self.conns[conn].ends[*end].actor, Actor::Realm { realm: own, .. } if own == realm))
    }

    pub fn wake(&mut self, at: At) {
        if !std::mem::replace(&mut self.end(at).flushing, true) {
            // What comes in the meantime goes along.
            let wait = self.random.u64(0..200);
            self.after(wait, Happening::Flush { at });
        }
    }

    pub fn flush(&mut self, at: At) {
        self.end(at).flushing = false;
        let Some(_) = self.realm_at(at) else { return };
        let Some(link) = self.end(at).link.clone() else { return };
        if self.end(at).phase == Phase::Over {
            return;
        }
        loop {
            if self.conns[at.0].flights[at.1].bytes >= self.plan.window_bytes {
                self.end(at).blocked = true;
                return;
            }
            let mut out = Vec::new();
            let more = match link.flush_to(FLUSH_TARGET.min(self.plan.window_bytes), &mut out) {
                Ok(more) => more,
                Err(error) => return self.finish(at, Why::Fault { code: None, text: error.to_string() }),
            };
            self.transmit(at, out);
            if let Some(of) = self.session_at(at) {
                if let Some(ms) = self.session(of).and_then(|session| session.core.checkpoint_timer()) {
                    self.after(ms * 1_000, Happening::Prove { of });
                }
                self.check_bounds(of.realm, of.peer);
                self.make_room(of);
            }
            if !more {
                break;
            }
        }
    }

    pub fn transmit(&mut self, at: At, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.trace.bytes(&(bytes.len() as u64).to_le_bytes());
        if self.conns[at.0].profile != Profile::Tls {
            self.trace.bytes(&bytes);
        }
        let now = self.now_us;
        if let Some(arrival) = self.conns[at.0].send(at.1, now, Chunk::Bytes(bytes)) {
            self.after(arrival - now, Happening::Arrives { conn: at.0, from: at.1 });
        }
    }

    pub fn fin(&mut self, at: At) {
        let now = self.now_us;
        if let Some(arrival) = self.conns[at.0].send(at.1, now, Chunk::Fin) {
            self.after(arrival - now, Happening::Arrives { conn: at.0, from: at.1 });
        }
    }

    pub fn set_timer(&mut self, at: At, ms: u64) {
        let Some(realm) = self.realm_at(at) else { return };
        let end = self.end(at);
        end.timer_turn += 1;
        let turn = end.timer_turn;
        let wait = self.realms[realm].wait_us(ms.max(1));
        self.after(wait, Happening::Timer { at, turn });
    }

    pub fn timer(&mut self, at: At, turn: u32) {
        if self.end(at).timer_turn != turn || self.end(at).phase == Phase::Over {
            return;
        }
        let Some(realm) = self.realm_at(at) else { return };
        let mut next = None;
        self.step(at, false, |link, ms, sink| {
            let (wake, when) = link.handle_timeout(ms, sink);
            next = when.map(|when| when.saturating_sub(ms));
            Wake { link: wake, session: false }
        });
        if let (Some(ms), true) = (next, self.realm_at(at) == Some(realm)) {
            self.set_timer(at, ms);
        }
    }

    /// This end is over for its realm; what it still has to say is said.
    pub fn finish(&mut self, at: At, why: Why) {
        if self.end(at).phase == Phase::Over {
            return;
        }
        if self.realm_at(at).is_none() {
            self.end(at).phase = Phase::Over;
            return;
        }
        let was_up = self.end(at).phase == Phase::Up;
        let link = self.end(at).link.clone();
        if let (true, Some(link)) = (why.keeps_session(), &link) {
            link.detach();
        }
        self.note(format_args!("{at:?} ends, {}: {why:?}", if was_up { "up" } else { "opening" }));
        if let (Why::Local(code), Some(link)) = (&why, &link) {
            link.close(*code, "");
        }
        // What goes with a goodbye goes before the session ends: what its owner is told as lost is what was signed by then.
        if matches!(why, Why::Carrier(_)) {
            self.end(at).phase = Phase::Over;
            self.end(at).broke = true;
            self.link_ended(at, &why);
            return self.fin(at);
        }
        let last = self.last_words(at);
        self.end(at).phase = Phase::Over;
        self.link_ended(at, &why);
        self.transmit(at, last);
        self.fin(at);
    }

    fn last_words(&mut self, at: At) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(link) = self.end(at).link.clone() {
            while link.flush(&mut out).unwrap_or(false) {}
        }
        out
    }
}
