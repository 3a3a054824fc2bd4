//! What connections ask of their peer and tell it, and how they come into being.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use legation_proto::error::CloseCode;
use legation_proto::frame::hello::Offer;
use legation_proto::identity::RealmId;
use legation_proto::key_text::format_public_key;
use legation_proto::session::Session;

use super::peer::{Gone, Joins, Peer, Stopped, Up};
use super::session::{self, LinkStatus, PeerSession};
use super::{lock, random, LinkEnd, List, Peers};
use crate::net::carrier::Stream;
use crate::net::listener::Listener;
use crate::net::peer_connection::{run, Connection, Control, Origin, Wanted};

/// How exactly messages expire.
const TICK_MIN_MS: u64 = 10;
const TICK_MAX_MS: u64 = 1_000;

/// The answer to a realm that says hello.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Welcome {
        realm: Arc<str>,
        generation: u64,
        /// The session that it takes up.
        resume: Option<Arc<PeerSession>>,
        limits: Box<legation_proto::limits::Limits>,
    },
    Refused(CloseCode),
}

/// A link that is up, as its reader tells of it.
pub(crate) struct LinkUp<'a> {
    pub tag: u64,
    pub realm: &'a Arc<str>,
    pub generation: u64,
    /// New, or the one that was to be resumed.
    pub core: Arc<Session>,
    pub resumed: bool,
    pub additional: bool,
    pub initiator: bool,
    /// Of the address that we have dialled.
    pub index: Option<usize>,
    pub status: LinkStatus,
    pub control: &'a Arc<Control>,
}

impl Peers {
    /// A realm has dialled us and proven who it is.
    pub(crate) fn hello(&self, realm_id: &RealmId, key: &[u8; 32], offer: Option<&Offer>) -> Verdict {
        let list = lock(&self.list);
        if list.stopping {
            return Verdict::Refused(CloseCode::Shutdown);
        }
        let Some(peer) = list.by_realm_id.get(realm_id).and_then(|realm| list.peers.get(realm)) else {
            drop(list);
            self.counters.hellos_unlisted.one();
            if let Some(held_back) = self.unlisted_log.line(self.now_ms()) {
                let key = format_public_key(key);
                tracing::warn!(key, held_back, "a realm that is not on the list was refused");
            }
            return Verdict::Refused(CloseCode::Unlisted);
        };
        match peer.hello(offer, self.now_ms()) {
            Ok(resume) => Verdict::Welcome {
                realm: peer.realm.clone(),
                generation: peer.generation,
                resume,
                limits: Box::new(peer.config.session_limits(&self.limits)),
            },
            Err(code) => {
                if code == CloseCode::Duplicate {
                    self.counters.hellos_duplicate.one();
                }
                Verdict::Refused(code)
            }
        }
    }

    /// A link is up: may it stay? Others that have to go for it have been told, and a session that has to go has ended, when this
    /// returns with the link's session.
    pub(crate) fn link_up(self: &Arc<Peers>, up: LinkUp<'_>) -> Result<Arc<PeerSession>, CloseCode> {
        let LinkUp { tag, realm, generation, core, resumed, additional, initiator, index, status, control } = up;
        let (session, taken, leaving, ttl_ms) = {
            let mut list = lock(&self.list);
            let stopping = list.stopping;
            let peer = list.living(realm, generation).filter(|_| !stopping).ok_or(CloseCode::Shutdown)?;
            let session = match peer.session().filter(|session| Arc::ptr_eq(&session.core, &core)) {
                Some(session) => session.clone(),
                None if resumed => return Err(CloseCode::Duplicate),
                None => {
                    let writer = control.wake.clone();
                    Arc::new(PeerSession::new(tag, realm.clone(), core, status.clone(), writer))
                }
            };
            let control = control.clone();
            let up = Up { tag, initiator, up_ms: self.now_ms(), index, status: status.clone(), control };
            let taken = peer.up(up, &session, Joins { resumed, additional })?;
            let ttl_ms = peer.config.session_limits(&self.limits).message_ttl_ms;
            (session, taken, list.leaving.remove(realm), ttl_ms)
        };
        if let Some(dial) = taken.dial {
            dial.want(Wanted::Close(CloseCode::Duplicate));
        }
        for (replaced, code) in taken.replaced {
            replaced.want(Wanted::Close(code));
        }
        for ended in leaving.iter().chain(&taken.ended) {
            ended.tell(self.events.as_ref());
        }
        session.tell(self.events.as_ref());
        if !resumed {
            self.keep_ticking(&session, ttl_ms);
        }
        if taken.found {
            self.counters.sessions_resumed.one();
        }
        if let Some(before) = taken.adopted {
            // Behind the announcements that it may need.
            let (adopted, exported) = session.core.adopt(&before);
            self.events.session_exported(&session, &exported);
            tracing::debug!(%realm, adopted, "what waited in the last session goes into this one");
        }
        // A new session sends on its first link by itself.
        if resumed && taken.activated {
            control.activate();
        }
        let (carrier, profile, role) = (status.carrier, status.profile, status.role);
        tracing::info!(%realm, carrier, profile, role, address = status.address, resumed, additional, "a link is up");
        // There may be room for one more.
        self.dial(&mut lock(&self.list), realm);
        Ok(session)
    }

    fn keep_ticking(&self, session: &Arc<PeerSession>, ttl_ms: Option<u64>) {
        if let Some(ttl_ms) = ttl_ms {
            let every = Duration::from_millis((ttl_ms / 8).clamp(TICK_MIN_MS, TICK_MAX_MS));
            self.runtime.spawn(session::tick(Arc::downgrade(session), Arc::downgrade(&self.events), every));
        }
    }

    /// A link, or what was to be one, has ended.
    pub(crate) fn link_ended(self: &Arc<Peers>, realm: &Arc<str>, generation: u64, tag: u64, why: &LinkEnd) {
        let Gone { session, activated, closed, .. } = {
            let mut list = lock(&self.list);
            if self.revoked_by(&mut list, realm, generation, why) {
                return;
            }
            let stopping = list.stopping;
            let Some(peer) = list.living(realm, generation) else { return };
            let before = peer.status();
            let gone = peer.ended(tag, why, self.now_ms(), random());
            let after = peer.status();
            // Once for each reason, and not each time that it is tried again in vain.
            if let (None, Some(why)) = (before.link(), after.last_error.as_ref().filter(|_| after.links.is_empty())) {
                if before.last_error.as_ref() != Some(why) {
                    tracing::warn!(%realm, %why, "no link with a peer");
                }
            }
            match gone.redial {
                Some(delay_ms) if !stopping => self.dial_in(peer, delay_ms),
                _ => {}
            }
            if let (true, Some(session)) = (gone.grace, &gone.session) {
                self.counters.sessions_lost.one();
                self.end_after_grace(peer, session);
            }
            gone
        };
        for control in closed {
            control.want(Wanted::Close(CloseCode::Normal));
        }
        if let Some(control) = activated {
            control.activate();
        }
        if let Some(session) = session {
            session.tell(self.events.as_ref());
        }
    }

    /// Dials the peer, if there is to be a dial.
    pub(super) fn dial(self: &Arc<Peers>, list: &mut List, realm: &str) {
        if list.stopping {
            return;
        }
        let Some(peer) = list.peers.get_mut(realm) else { return };
        // One that waits has its reason.
        if peer.timer.is_some() {
            return;
        }
        let (tag, control) = (self.next_tag(), Arc::new(Control::default()));
        let Some(plan) = peer.dial(tag, &control, self.now_ms()) else { return };
        let (realm, generation, config) = (peer.realm.clone(), peer.generation, peer.config.clone());
        self.spawn(tag, control, Origin::Dial { realm, generation, config, plan });
    }

    fn dial_in(self: &Arc<Peers>, peer: &mut Peer, delay_ms: u64) {
        let (peers, realm, generation) = (self.clone(), peer.realm.clone(), peer.generation);
        let waiting = self.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            let mut list = lock(&peers.list);
            if let Some(peer) = list.living(&realm, generation) {
                peer.timer = None;
                peers.dial(&mut list, &realm);
            }
        });
        peer.timer = Some(waiting.abort_handle());
    }

    /// A session without a link lives for its grace.
    fn end_after_grace(self: &Arc<Peers>, peer: &mut Peer, session: &PeerSession) {
        let (peers, realm, generation) = (Arc::downgrade(self), peer.realm.clone(), peer.generation);
        let (session, grace) = (session.tag, Duration::from_millis(peer.grace_ms()));
        let waiting = self.runtime.spawn(async move {
            tokio::time::sleep(grace).await;
            let Some(peers) = peers.upgrade() else { return };
            let ended = {
                let mut list = lock(&peers.list);
                list.living(&realm, generation).and_then(|peer| peer.grace_is_over(session))
            };
            if let Some(ended) = ended {
                peers.counters.sessions_not_resumed.one();
                tracing::warn!(%realm, "no link came within the grace of the session: it has ended");
                ended.tell(peers.events.as_ref());
            }
        });
        peer.grace = Some(waiting.abort_handle());
    }

    /// A peer is on the list no more, or not to be linked with. The realm is told from a task of its own: who asks for this may be a
    /// handler of an event.
    pub(super) fn leave(self: &Arc<Peers>, list: &mut List, realm: &str) -> bool {
        let Some(peer) = list.peers.get_mut(realm) else { return false };
        let (realm, stopped) = (peer.realm.clone(), peer.stop());
        self.let_go(list, &realm, stopped);
        true
    }

    pub(super) fn let_go(self: &Arc<Peers>, list: &mut List, realm: &Arc<str>, stopped: Stopped) {
        for (control, code) in stopped.links {
            control.want(Wanted::Close(code));
        }
        if let Some(session) = stopped.session {
            list.leaving.insert(realm.clone(), session.clone());
            let (peers, realm) = (self.clone(), realm.clone());
            self.runtime.spawn(async move {
                session.tell(peers.events.as_ref());
                let mut list = lock(&peers.list);
                if list.leaving.get(&realm).is_some_and(|leaving| leaving.tag == session.tag) {
                    list.leaving.remove(&realm);
                }
            });
        }
        list.by_realm_id.retain(|_, other| other != realm);
    }

    /// Somebody has dialled us.
    pub(crate) fn serve(self: &Arc<Peers>, tag: u64, listener: Arc<Listener>, stream: Stream) {
        self.spawn(tag, Arc::new(Control::default()), Origin::Accepted { listener, stream });
    }

    fn spawn(self: &Arc<Peers>, tag: u64, control: Arc<Control>, origin: Origin) {
        // Entered first: on another thread the task may be over before we are.
        lock(&self.connections).insert(tag, control.clone());
        let connection = Connection { peers: self.clone(), tag, control: control.clone(), origin };
        control.task.get_or_init(|| self.runtime.spawn(run(connection)).abort_handle());
    }

    pub(crate) fn evict(&self, tag: u64) {
        if let Some(control) = lock(&self.connections).get(&tag) {
            control.want(Wanted::Evict);
        }
    }

    pub(crate) fn connection_gone(&self, tag: u64) {
        let mut connections = lock(&self.connections);
        connections.remove(&tag);
        if connections.is_empty() {
            self.idle.notify_waiters();
        }
    }

    pub(crate) fn next_tag(&self) -> u64 {
        self.last_tag.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Of a clock that doesn't go back.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl List {
    /// A peer, unless it has been off the list since.
    pub(super) fn living(&mut self, realm: &str, generation: u64) -> Option<&mut Peer> {
        self.peers.get_mut(realm).filter(|peer| peer.connected && peer.generation == generation)
    }
}
