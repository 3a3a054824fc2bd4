//! Keys that are accepted no more: a peer's, by its own word or our decision; and our own.
//!
//! The core refuses whoever comes with one (`Heads`); here is what becomes of what there is.

use std::sync::Arc;

use legation_proto::error::CloseCode;
use legation_proto::identity::RealmId;

use super::{lock, AddPeerError, LinkEnd, List, PeerSession, Peers};
use crate::config::PeerConfig;
use crate::net::peer_connection::Wanted;

impl Peers {
    /// Accepts none of the peer's keys any more: its session and all its links end. False: there is no such peer.
    pub fn revoke(self: &Arc<Peers>, realm: &str) -> bool {
        let mut list = lock(&self.list);
        let Some(peer) = list.peers.get_mut(realm) else { return false };
        self.identity.keyring.heads().revoke(&peer.realm_id);
        let (realm, stopped) = (peer.realm.clone(), peer.revoke(&LinkEnd::Local(CloseCode::Revoked.name())));
        self.let_go(&mut list, &realm, stopped);
        tracing::warn!(%realm, "the key of a peer is revoked");
        true
    }

    /// A peer of the configuration whose key was revoked before: it is on the list, and says so.
    pub(crate) fn add_revoked(&self, config: PeerConfig) {
        let mut list = lock(&self.list);
        list.last_generation += 1;
        let mut peer = super::Peer::new(config, &self.identity.realm_id, list.last_generation, &self.limits);
        peer.revoke(&LinkEnd::Local(CloseCode::Revoked.name()));
        list.peers.insert(peer.realm.clone(), peer);
    }

    /// Our own key is revoked: sessions tell their peers so, and end; others hear of it by our next hello.
    pub(crate) fn own_key_revoked(&self) {
        for session in self.sessions() {
            session.core.tell_identity();
            self.close_session(&session, CloseCode::Revoked);
        }
    }

    pub(super) fn check_revoked(&self, realm: &RealmId) -> Result<(), AddPeerError> {
        match self.identity.keyring.heads().is_revoked(realm) {
            true => Err(AddPeerError::Revoked),
            false => Ok(()),
        }
    }

    /// A link of this peer has ended because the peer has revoked its key: it is over with the others, too. True: that was it.
    pub(super) fn revoked_by(
        self: &Arc<Peers>,
        list: &mut List,
        realm: &Arc<str>,
        generation: u64,
        why: &LinkEnd,
    ) -> bool {
        let LinkEnd::Fault { code: "revoked", .. } = why else { return false };
        let Some(peer) = list.living(realm, generation) else { return false };
        if self.check_revoked(&peer.realm_id).is_ok() {
            return false;
        }
        let stopped = peer.revoke(why);
        self.let_go(list, realm, stopped);
        tracing::warn!(%realm, "a peer has revoked its key");
        true
    }

    /// Says goodbye on the links of a session; one without a link ends at once.
    pub(crate) fn close_session(&self, session: &PeerSession, code: CloseCode) {
        let mut stopped = {
            let mut list = lock(&self.list);
            let peer = list.peers.get_mut(&session.realm);
            peer.map(|peer| peer.close(session.tag, code)).unwrap_or_default()
        };
        // First those that stand by: once the active one has ended they would hear of that, and nothing of this.
        stopped.links.sort_by_key(|(_, code)| !code.keeps_session());
        for (control, code) in stopped.links {
            control.want(Wanted::Close(code));
        }
        if let Some(ended) = stopped.session {
            ended.tell(self.events.as_ref());
        }
    }
}
