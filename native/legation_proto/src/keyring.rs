//! The default keyholder: private keys in Rust memory, wiped when dropped.
//!
//! A keyring holds the realm's identity (or, when a user's own keyholder has it, only its public half), the online
//! key, and a key per engine. It signs for a stated purpose only; there is no way to have it sign bytes of one's choice.

use std::collections::HashMap;
use std::sync::RwLock;

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::identity::{check_public_key, signing_input, KeyError, NetworkId, Purpose, RealmId};

pub struct Keyring {
    identity: Option<SigningKey>,
    public: [u8; 32],
    /// Engine keys are derived from this and the engine's name, so that they are the same after a restart.
    engine_root: Zeroizing<[u8; 32]>,
    online: SigningKey,
    engines: RwLock<HashMap<String, SigningKey>>,
}

/// Why a private key can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyringError {
    #[error("not a PKCS#8 PEM with an Ed25519 private key")]
    NotPkcs8Ed25519,
    #[error("public key: {0}")]
    Public(#[from] KeyError),
    #[error("the identity's private key is held elsewhere")]
    External,
}

impl Keyring {
    /// A keyring with the identity of `seed`. `online_seed` is fresh randomness: the online key lives as long as this
    /// process.
    pub fn new(seed: &[u8; 32], online_seed: &[u8; 32]) -> Keyring {
        let identity = SigningKey::from_bytes(seed);
        Keyring {
            public: identity.verifying_key().to_bytes(),
            engine_root: Zeroizing::new(blake3::derive_key("legation/1/engine-root", seed)),
            online: SigningKey::from_bytes(online_seed),
            identity: Some(identity),
            engines: RwLock::default(),
        }
    }

    /// From a PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` makes it.
    pub fn from_pem(pem: &str, online_seed: &[u8; 32]) -> Result<Keyring, KeyringError> {
        let key = SigningKey::from_pkcs8_pem(pem).map_err(|_| KeyringError::NotPkcs8Ed25519)?;
        Ok(Keyring::new(key.as_bytes(), online_seed))
    }

    /// A keyring whose identity is held elsewhere. Engine keys are derived from `engine_root`: fresh randomness gives
    /// new ones at each start, which is harmless, since each is announced under the identity's signature.
    pub fn external(public: [u8; 32], engine_root: [u8; 32], online_seed: &[u8; 32]) -> Result<Keyring, KeyringError> {
        check_public_key(&public)?;
        Ok(Keyring {
            identity: None,
            public,
            engine_root: Zeroizing::new(engine_root),
            online: SigningKey::from_bytes(online_seed),
            engines: RwLock::default(),
        })
    }

    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    pub fn realm_id(&self) -> RealmId {
        RealmId::of(&self.public)
    }

    pub fn holds_identity(&self) -> bool {
        self.identity.is_some()
    }

    pub fn online_public(&self) -> [u8; 32] {
        self.online.verifying_key().to_bytes()
    }

    pub fn engine_public(&self, name: &str) -> [u8; 32] {
        self.with_engine_key(name, |key| key.verifying_key().to_bytes())
    }

    /// Signs as the identity. `Purpose::Batch` is none of the identity's purposes.
    ///
    /// # Errors
    /// [`KeyringError::External`] when the identity is held elsewhere.
    pub fn sign(&self, purpose: Purpose, network: &NetworkId, body: &[u8]) -> Result<[u8; 64], KeyringError> {
        match (&self.identity, purpose) {
            (_, Purpose::Batch) | (None, _) => Err(KeyringError::External),
            (Some(identity), _) => Ok(identity.sign(&signing_input(purpose, network, body)).to_bytes()),
        }
    }

    /// Signs a batch with the engine's key, or with the online key for the empty name.
    pub fn sign_batch(&self, engine: &str, network: &NetworkId, body: &[u8]) -> [u8; 64] {
        let input = signing_input(Purpose::Batch, network, body);
        if engine.is_empty() {
            return self.online.sign(&input).to_bytes();
        }
        self.with_engine_key(engine, |key| key.sign(&input).to_bytes())
    }

    /// Drops a withdrawn engine's key from memory; it is derived again when it is asked for.
    pub fn forget_engine(&self, name: &str) {
        self.engines.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(name);
    }

    fn with_engine_key<T>(&self, name: &str, work: impl FnOnce(&SigningKey) -> T) -> T {
        if let Some(key) = self.engines.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(name) {
            return work(key);
        }
        let key = self.derive_engine_key(name);
        let result = work(&key);
        self.engines.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(name.to_owned(), key);
        result
    }

    fn derive_engine_key(&self, name: &str) -> SigningKey {
        let mut material = Zeroizing::new(Vec::with_capacity(32 + name.len()));
        material.extend_from_slice(self.engine_root.as_slice());
        material.extend_from_slice(name.as_bytes());
        let mut seed = blake3::derive_key("legation/1/engine-key", &material);
        let key = SigningKey::from_bytes(&seed);
        seed.zeroize();
        key
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Keyring(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_keys_are_the_same_after_a_restart_and_differ_by_name() {
        let (first, second) = (Keyring::new(&[1; 32], &[2; 32]), Keyring::new(&[1; 32], &[3; 32]));
        assert_eq!(first.engine_public("ping"), second.engine_public("ping"));
        assert_ne!(first.engine_public("ping"), first.engine_public("pong"));
        assert_ne!(first.online_public(), second.online_public());
        first.forget_engine("ping");
        assert_eq!(first.engine_public("ping"), second.engine_public("ping"));
    }

    #[test]
    fn an_identity_that_is_elsewhere_does_not_sign_here() {
        let public = *Keyring::new(&[1; 32], &[2; 32]).public();
        let keyring = Keyring::external(public, [4; 32], &[5; 32]).unwrap();
        let network = crate::identity::NetworkKey::none().id();
        assert_eq!(keyring.sign(Purpose::Hello, &network, b""), Err(KeyringError::External));
    }

    #[test]
    fn the_identity_never_signs_a_batch() {
        let network = crate::identity::NetworkKey::none().id();
        assert!(Keyring::new(&[1; 32], &[2; 32]).sign(Purpose::Batch, &network, b"").is_err());
    }

    #[test]
    fn debug_output_shows_no_key() {
        assert_eq!(format!("{:?}", Keyring::new(&[1; 32], &[2; 32])), "Keyring(..)");
    }

    #[test]
    fn a_pem_that_openssl_made_is_read() {
        // openssl genpkey -algorithm ed25519
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        // The public half is RFC 8410's example, section 10.3.
        let keyring = Keyring::from_pem(pem, &[0; 32]).unwrap();
        assert_eq!(keyring.public()[..4], [0x19, 0xbf, 0x44, 0x09]);
    }
}
