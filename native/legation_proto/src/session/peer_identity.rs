//! The peer's identity key in a session: which one is in force, and what became of it (`protocol.md` 11.7, 11.8).

use ed25519_dalek::VerifyingKey;

use crate::error::{HelloRefused, LinkError};
use crate::hello::Agreed;
use crate::identity::{check_public_key, verify, Purpose};
use crate::limits::OLD_KEY_MS;
use crate::rotation::{Revocation, Rotation};
use crate::session::Shared;
use crate::UnixMs;

pub(crate) struct PeerIdentity {
    key: VerifyingKey,
    chain: Vec<Rotation>,
    old: Option<Old>,
}

/// The key before.
struct Old {
    key: VerifyingKey,
    /// So long announcements by it are taken. None until the first comes.
    until: Option<UnixMs>,
}

impl PeerIdentity {
    /// As the hello has it.
    pub fn new(agreed: &Agreed) -> PeerIdentity {
        let chain = agreed.peer_chain.clone();
        let old = chain.last().and_then(|last| check_public_key(&last.old).ok());
        PeerIdentity { key: agreed.peer_key, chain, old: old.map(|key| Old { key, until: None }) }
    }

    /// That in force.
    pub fn key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    pub fn chain(&self) -> &[Rotation] {
        &self.chain
    }

    /// The key that an announcement's signature is by: that in force, or for a while the one before.
    pub fn signer(
        &mut self,
        shared: &Shared,
        now: UnixMs,
        purpose: Purpose,
        body: &[u8],
        signature: &[u8; 64],
    ) -> Option<[u8; 32]> {
        let end = now.saturating_add(OLD_KEY_MS);
        let old = self.old.iter_mut().filter_map(|old| (now < *old.until.get_or_insert(end)).then_some(&old.key));
        let mut keys = std::iter::once(&self.key).chain(old);
        let signer = keys.find(|key| verify(key, purpose, &shared.agreed.network, body, signature));
        signer.map(|key| *key.as_bytes())
    }

    /// ROTATE. None for one that the hello has told of.
    ///
    /// # Errors
    /// Whatever is wrong with it: what comes after it could not be verified, so the link ends.
    pub fn rotate(&mut self, shared: &Shared, now: UnixMs, bytes: &[u8]) -> Result<Option<Rotation>, LinkError> {
        let rotation = Rotation::decode(bytes)?;
        if self.chain.contains(&rotation) {
            return Ok(None);
        }
        if rotation.realm != shared.agreed.peer {
            return Err(HelloRefused::WrongRealm.into());
        }
        let new = rotation.follow(&self.chain, &self.key, &shared.agreed.network, now)?;
        let mut chain = self.chain.clone();
        chain.push(rotation.clone());
        // Another link may have told us of more than this one so far.
        match shared.keyring.heads().check(&shared.agreed.peer, &chain) {
            Err(crate::heads::HeadError::Stale) => {}
            _ => drop(shared.keyring.heads().advance(&shared.agreed.peer, &chain)?),
        }
        let old = std::mem::replace(&mut self.key, new);
        self.old = Some(Old { key: old, until: Some(now.saturating_add(OLD_KEY_MS)) });
        self.chain = chain;
        Ok(Some(rotation))
    }

    /// REVOKE: the realm is not let in any more, and this link ends.
    pub fn revoke(&self, shared: &Shared, bytes: &[u8]) -> Result<(), LinkError> {
        let (revocation, peer) = (Revocation::decode(bytes)?, &shared.agreed.peer);
        if !revocation.ends(peer, self.chain.len(), &self.key, &shared.agreed.network) {
            return Err(HelloRefused::BadSignature.into());
        }
        shared.keyring.heads().revoke(peer);
        Err(HelloRefused::Revoked.into())
    }
}
