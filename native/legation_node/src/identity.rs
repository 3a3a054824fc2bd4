//! Who we are: the keyring, the link key of this process, the network, and who signs.

use std::sync::Arc;

use legation_channel::tls::TlsContext;
use legation_proto::identity::{NetworkKey, Purpose, RealmId};
use legation_proto::keyring::Keyring;

/// What everybody who signs or verifies needs. Private keys stay inside.
#[derive(Clone)]
pub struct Identity {
    pub keyring: Arc<Keyring>,
    pub tls: Arc<TlsContext>,
    pub network: NetworkKey,
    pub realm_id: RealmId,
    /// The identity's public key.
    pub key: [u8; 32],
    pub signer: Arc<Signer>,
}

/// Who signs as the identity: the keyring at once, or an agent on a Unix socket.
#[derive(Debug)]
pub struct Signer {}

/// Why there is no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    #[error("the key agent can't be reached: {0}")]
    Unreachable(String),
    #[error("the key agent refused: {0}")]
    Refused(String),
    #[error("the key agent did not answer in time")]
    TimedOut,
}

impl Signer {
    /// A signature as the identity (`protocol.md` 3.1). With a keyring that has the key this is ready at once.
    ///
    /// # Errors
    /// Only an agent fails.
    pub async fn sign(&self, _identity: &Identity, _purpose: Purpose, _body: &[u8]) -> Result<[u8; 64], SignError> {
        Err(SignError::TimedOut)
    }
}
