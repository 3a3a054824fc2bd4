//! What connections ask of their peer and tell it, and how they come into being.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use legation_proto::error::CloseCode;
use legation_proto::identity::RealmId;
use legation_proto::key_text::format_public_key;

use super::peer::{Peer, Up};
use super::{lock, random, LinkEnd, List, PeerSession, Peers};
use crate::net::carrier::Stream;
use crate::net::listener::Listener;
use crate::net::peer_connection::{run, Connection, Control, Origin, Wanted};

/// The answer to a realm that says hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Welcome { realm: Arc<str>, generation: u64 },
    Refused(CloseCode),
}

impl Peers {
    /// A realm has dialled us and proven who it is.
    pub(crate) fn hello(&self, realm_id: &RealmId, key: &[u8; 32]) -> Verdict {
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
        match peer.hello(self.now_ms()) {
            Ok(()) => Verdict::Welcome { realm: peer.realm.clone(), generation: peer.generation },
            Err(code) => {
                if code == CloseCode::Duplicate {
                    self.counters.hellos_duplicate.one();
                }
                Verdict::Refused(code)
            }
        }
    }

    /// A session is up: may it stay? Others that have to go for it have ended when this returns.
    pub(crate) fn link_up(
        &self,
        session: &Arc<PeerSession>,
        generation: u64,
        initiator: bool,
        control: &Arc<Control>,
    ) -> Result<(), CloseCode> {
        let (taken, leaving) = {
            let mut list = lock(&self.list);
            let stopping = list.stopping;
            let peer = list.living(&session.realm, generation).filter(|_| !stopping).ok_or(CloseCode::Shutdown)?;
            let up = Up {
                tag: session.tag,
                initiator,
                up_ms: self.now_ms(),
                session: session.clone(),
                control: control.clone(),
            };
            (peer.up(up)?, list.leaving.remove(&session.realm))
        };
        if let Some(dial) = taken.dial {
            dial.want(Wanted::Close(CloseCode::Duplicate));
        }
        let replaced = taken.replaced.map(|old| (old, CloseCode::Replaced));
        let leaving = leaving.map(|old| (old, CloseCode::Normal));
        for (old, code) in replaced.into_iter().chain(leaving) {
            old.control.end_link(&old.session, self.events.as_ref(), &LinkEnd::Local(code.name()));
            old.control.want(Wanted::Close(code));
        }
        let status = &session.status;
        tracing::info!(
            realm = &*session.realm,
            carrier = status.carrier,
            profile = status.profile,
            role = status.role,
            address = status.address,
            "a link is up"
        );
        Ok(())
    }

    /// A link, or what was to be one, has ended.
    pub(crate) fn link_ended(self: &Arc<Peers>, realm: &Arc<str>, generation: u64, tag: u64, why: &LinkEnd) {
        let mut list = lock(&self.list);
        if list.leaving.get(realm).is_some_and(|up| up.tag == tag) {
            list.leaving.remove(realm);
        }
        let stopping = list.stopping;
        let Some(peer) = list.living(realm, generation) else { return };
        let before = peer.status();
        let delay_ms = peer.ended(tag, why, self.now_ms(), random());
        let after = peer.status();
        // Once for each reason, and not each time that it is tried again in vain.
        if let (None, Some(why)) = (&before.link, after.last_error.filter(|_| after.link.is_none())) {
            if before.last_error.as_ref() != Some(&why) {
                tracing::warn!(%realm, %why, "no link with a peer");
            }
        }
        match delay_ms {
            Some(delay_ms) if !stopping => self.dial_in(peer, delay_ms),
            _ => {}
        }
    }

    /// Dials the peer, if there is to be a dial.
    pub(super) fn dial(self: &Arc<Peers>, list: &mut List, realm: &str) {
        if list.stopping {
            return;
        }
        let Some(peer) = list.peers.get_mut(realm) else { return };
        let (tag, control) = (self.next_tag(), Arc::new(Control::default()));
        let Some(address) = peer.dial(tag, &control, self.now_ms()) else { return };
        let (realm, generation, key) = (peer.realm.clone(), peer.generation, peer.config.key);
        self.spawn(tag, control, Origin::Dial { realm, generation, key, address });
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
    fn living(&mut self, realm: &str, generation: u64) -> Option<&mut Peer> {
        self.peers.get_mut(realm).filter(|peer| peer.connected && peer.generation == generation)
    }
}
