//! Who we are: the keyring, the link key of this process, the network, and who signs.
//!
//! ```text
//!  key file ──► Keyring ─────────────────────────┐
//!                                                ├─► Identity { keyring, tls, network, signer }
//!  agent's socket ──► public key, signatures ────┘
//! ```

pub mod agent_client;
pub mod agent_protocol;
pub mod agent_server;
mod heads;
mod rotation;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ed25519_dalek::VerifyingKey;
use legation_channel::tls::{LinkKey, TlsContext};
use legation_proto::identity::{check_public_key, verify, KeyError, NetworkKey, Purpose, RealmId};
use legation_proto::key_file::chain_path;
use legation_proto::keyring::{Keyring, KeyringError};
use zeroize::Zeroizing;

use crate::config::{read_key, read_network_key, Config, KeySource};
use crate::realm::{lock, now_ms};
use agent_client::AgentClient;

/// What everybody who signs or verifies needs. Private keys stay inside.
#[derive(Clone)]
pub struct Identity {
    pub keyring: Arc<Keyring>,
    pub tls: Arc<TlsContext>,
    pub network: NetworkKey,
    pub realm_id: RealmId,
    /// Its first identity key, by which peers know it.
    pub key: [u8; 32],
    pub signer: Arc<Signer>,
    /// Where the key stands; none for one that an agent has. Held while it is replaced.
    file: Arc<Mutex<Option<PathBuf>>>,
    state_dir: Option<PathBuf>,
}

pub use rotation::RotateError;

/// Why there is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    #[error("key: {0}")]
    KeyFile(String),
    #[error("network key: {0}")]
    NetworkKeyFile(String),
    #[error(transparent)]
    Agent(#[from] SignError),
    #[error("the key agent's public key is {0}")]
    BadKey(#[from] KeyError),
    #[error("the operating system gives no randomness")]
    NoRandomness,
    #[error("state_dir: {0}")]
    State(String),
}

impl Identity {
    /// From key file or agent. An agent that isn't there yet is waited for a little.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn load(config: &Config) -> Result<Identity, IdentityError> {
        // Who may read the files was told with the configuration.
        let mut warnings = Vec::new();
        let network = match &config.network_key {
            Some(path) => read_network_key(path, &mut warnings).map_err(IdentityError::NetworkKeyFile)?,
            None => NetworkKey::none(),
        };
        match &config.key {
            KeySource::File(path) => {
                let loaded = read_key(path, &mut warnings).map_err(IdentityError::KeyFile)?;
                let chain = |error: KeyringError| {
                    IdentityError::KeyFile(format!("{}: {error}", chain_path(&loaded.path).display()))
                };
                loaded.keyring.check(&network.id(), now_ms()).map_err(chain)?;
                if loaded.keyring.identity().revocation().is_some() {
                    tracing::warn!("this realm's key was revoked: no peer will let it in");
                }
                let identity = Identity::of_keyring(loaded.keyring, network)?;
                *lock(&identity.file) = Some(loaded.path);
                identity.with_state(config.state_dir.clone())
            }
            KeySource::Agent(path) => {
                let client = AgentClient::start(path.clone());
                let public = client.public_key_at_start().await?;
                let verifier = check_public_key(&public)?;
                let online = random()?;
                let keyring = Keyring::external(public, *random()?, &online).map_err(|error| match error {
                    KeyringError::Public(reason) => IdentityError::BadKey(reason),
                    other => IdentityError::KeyFile(other.to_string()),
                })?;
                let identity = Identity::new(keyring, network, Signer { agent: Some((client, verifier)) })?;
                identity.with_state(config.state_dir.clone())
            }
        }
    }

    /// From a keyring that holds the private key.
    ///
    /// # Errors
    /// [`IdentityError::NoRandomness`].
    pub fn of_keyring(keyring: Keyring, network: NetworkKey) -> Result<Identity, IdentityError> {
        Identity::new(keyring, network, Signer { agent: None })
    }

    fn new(keyring: Keyring, network: NetworkKey, signer: Signer) -> Result<Identity, IdentityError> {
        Ok(Identity {
            tls: TlsContext::new(&LinkKey::generate(*random()?)),
            realm_id: keyring.realm_id(),
            key: *keyring.public(),
            keyring: Arc::new(keyring),
            network,
            signer: Arc::new(signer),
            file: Arc::default(),
            state_dir: None,
        })
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let public = legation_proto::key_text::format_public_key(&self.key);
        formatter.debug_tuple("Identity").field(&public).finish()
    }
}

fn random() -> Result<Zeroizing<[u8; 32]>, IdentityError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| IdentityError::NoRandomness)?;
    Ok(bytes)
}

/// Who signs as the identity: the keyring at once, or an agent on a Unix socket.
#[derive(Debug)]
pub struct Signer {
    agent: Option<(AgentClient, VerifyingKey)>,
}

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
    /// It has another key than it had at the start, or is broken.
    #[error("the key agent's signature is not one by our key")]
    NotOurs,
}

impl Signer {
    /// A signature as the identity (`protocol.md` 3.1). With a keyring that has the key this is ready at once.
    ///
    /// # Errors
    /// Only an agent fails.
    ///
    /// # Cancel safety
    /// Dropped, it leaves an answer behind that is thrown away when it comes.
    pub async fn sign(&self, identity: &Identity, purpose: Purpose, body: &[u8]) -> Result<[u8; 64], SignError> {
        let network = identity.network.id();
        let Some((agent, verifier)) = &self.agent else {
            return identity
                .keyring
                .sign(purpose, &network, body)
                .map_err(|error| SignError::Refused(error.to_string()));
        };
        let signature = agent.sign(purpose, &network, body).await?;
        match verify(verifier, purpose, &network, body, &signature) {
            true => Ok(signature),
            false => Err(SignError::NotOurs),
        }
    }
}
