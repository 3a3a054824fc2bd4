//! Our own key is replaced, or revoked, while everything goes on.
//!
//! The core tells each peer of the rotation before the first announcement that the new key signs. With the identity change the
//! engines' keys, so each is announced anew; what was queued before goes out under the keys that the peer knew then.

use std::path::PathBuf;
use std::sync::Arc;

use legation_proto::frame::learn::Learn;
use legation_proto::identity::Purpose;

use crate::identity::{RotateError, SignError};
use crate::realm::engines::Publication;
use crate::realm::{read, write, Realm};

/// Why the key is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NewKeyError {
    #[error(transparent)]
    Rotate(#[from] RotateError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("the daemon is about to stop")]
    Stopping,
}

impl Realm {
    /// The key in the file is our identity from now on; sessions and links stay.
    ///
    /// # Errors
    /// See [`NewKeyError`]; then nothing has changed.
    pub(crate) async fn rotate_key(self: &Arc<Realm>, path: PathBuf) -> Result<[u8; 32], NewKeyError> {
        // Nothing is published meanwhile.
        let _turn = self.publishing.lock().await;
        let identity = self.identity.clone();
        let rotated = tokio::task::spawn_blocking(move || identity.rotate(&path)).await;
        let key = rotated.map_err(|_| NewKeyError::Stopping)??;
        self.certify().await?;
        let engines: Vec<_> = read(&self.engines).values().cloned().collect();
        for publication in engines {
            self.announce_by_new_key(&publication).await?;
        }
        tracing::info!(
            key = legation_proto::key_text::format_public_key(&key),
            "the identity key is another one from now on"
        );
        Ok(key)
    }

    async fn announce_by_new_key(&self, publication: &Publication) -> Result<(), SignError> {
        let key = self.identity.keyring.engine_public(&publication.name);
        let learn = Learn {
            realm: self.identity.realm_id,
            engine: publication.name.to_string(),
            key,
            serial: self.serials.next(),
            not_before: 0,
            not_after: 0,
            version: publication.options.version,
            operations: publication.options.operations.0,
            delegate: publication.options.delegate,
        };
        let mut signed = learn.body();
        let signature = self.identity.signer.sign(&self.identity, Purpose::Learn, &signed).await?;
        signed.extend_from_slice(&signature);
        let publication = {
            let mut engines = write(&self.engines);
            // Withdrawn meanwhile.
            let Some(current) = engines.get_mut(&publication.name).filter(|now| now.watch == publication.watch) else {
                return Ok(());
            };
            *current = Arc::new(Publication {
                name: current.name.clone(),
                pid: current.pid.clone(),
                registered: current.registered.clone(),
                options: current.options.clone(),
                key,
                signed: signed.into(),
                watch: current.watch,
            });
            current.clone()
        };
        for session in self.sessions() {
            let policy = self.policy(&session.realm);
            if policy.is_some_and(|policy| policy.exports(&publication.name, &publication.options.to)) {
                self.announce_to(&session, &publication);
            }
        }
        Ok(())
    }

    /// This realm has ended: peers are told, and let it in no more.
    ///
    /// # Errors
    /// See [`NewKeyError`]; then nothing has changed.
    pub(crate) async fn revoke_own_key(self: &Arc<Realm>) -> Result<(), NewKeyError> {
        let _turn = self.publishing.lock().await;
        let identity = self.identity.clone();
        let revoked = tokio::task::spawn_blocking(move || identity.revoke()).await;
        revoked.map_err(|_| NewKeyError::Stopping)??;
        if let Some(peers) = self.peers() {
            peers.own_key_revoked();
        }
        tracing::warn!("this realm's key is revoked");
        Ok(())
    }
}
