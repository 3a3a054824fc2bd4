//! The default keyholder: private keys in Rust memory, wiped when dropped.
//!
//! A keyring holds the realm's identity (or, when a user's own keyholder has it, only its public half), the online
//! key, and a key per engine. It signs for a stated purpose only; there is no way to have it sign bytes of one's choice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ed25519_dalek::VerifyingKey;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::acquaintances::{Acquaintances, SignedLink};
use crate::certificate::LinkCertificate;
use crate::heads::Heads;
use crate::identity::{check_public_key, signing_input, KeyError, NetworkId, Purpose, RealmId};
use crate::limits::{LINK_CERTIFICATE_MS, ROTATIONS_MAX};
use crate::private_key::PrivateKey;
use crate::rotation::{follow_chain, ChainError, Revocation, Rotation};
use crate::UnixMs;

/// Peers whose link certificates are kept. Beyond it any other makes room, and its next is signed anew.
const LINKS_MAX: usize = 4_096;

pub struct Keyring {
    /// The realm's first identity key: what peers have on their lists. It never changes.
    public: [u8; 32],
    identity: RwLock<Arc<Identity>>,
    online: PrivateKey,
    engines: RwLock<Engines>,
    heads: Heads,
    acquaintances: Acquaintances,
}

/// The identity key in force, and how the realm came by it.
pub struct Identity {
    signing: Option<PrivateKey>,
    public: [u8; 32],
    chain: Vec<Rotation>,
    revocation: Option<Revocation>,
    /// The last link certificate for each peer.
    links: Mutex<HashMap<RealmId, SignedLink>>,
}

struct Engines {
    /// Engine keys are derived from this and the engine's name, so that they are the same after a restart.
    root: Zeroizing<[u8; 32]>,
    keys: HashMap<String, PrivateKey>,
    /// Those of before a rotation, by public key: peers are told of the new ones in turn.
    before: HashMap<[u8; 32], PrivateKey>,
}

/// Why a private key can't be used, or not for this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyringError {
    #[error("not a PKCS#8 PEM with an Ed25519 private key")]
    NotPkcs8Ed25519,
    #[error("public key: {0}")]
    Public(#[from] KeyError),
    #[error("the identity's private key is held elsewhere")]
    External,
    #[error("the rotations don't lead to this key: {0}")]
    Chain(#[from] ChainError),
    #[error("the revocation is not one of this key's")]
    Revocation,
    #[error("the identity was revoked")]
    Revoked,
    #[error("the identity was rotated {ROTATIONS_MAX} times, and there is no room for more")]
    TooManyRotations,
    #[error("the key is, or was, this realm's already")]
    UsedBefore,
    #[error("the identity was changed by somebody else at the same time")]
    Raced,
}

impl Identity {
    /// The identity key in force.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The rotations that lead from the realm's first key to this one.
    pub fn chain(&self) -> &[Rotation] {
        &self.chain
    }

    /// The realm has ended.
    pub fn revocation(&self) -> Option<&Revocation> {
        self.revocation.as_ref()
    }

    /// As [`Keyring::sign`].
    pub fn sign(&self, purpose: Purpose, network: &NetworkId, body: &[u8]) -> Result<[u8; 64], KeyringError> {
        match (&self.signing, purpose) {
            (_, Purpose::Batch | Purpose::Checkpoint) | (None, _) => Err(KeyringError::External),
            (Some(key), _) => Ok(key.sign(&signing_input(purpose, network, body))),
        }
    }

    fn of(
        signing: Option<PrivateKey>,
        public: [u8; 32],
        chain: Vec<Rotation>,
        revocation: Option<Revocation>,
    ) -> Identity {
        Identity { signing, public, chain, revocation, links: Mutex::default() }
    }

    /// A certificate for `key` on links to `peer` that was made before and is still good for half of its time.
    pub(crate) fn link(
        &self,
        network: &NetworkId,
        peer: &RealmId,
        key: &[u8; 32],
        now: UnixMs,
    ) -> Option<LinkCertificate> {
        let good = |link: &SignedLink| {
            let left = link.certificate.not_after.saturating_sub(now);
            // More than there is from the start: the clock was set back.
            let in_time = (LINK_CERTIFICATE_MS / 2..=LINK_CERTIFICATE_MS).contains(&left);
            in_time && link.network == *network && link.certificate.key == *key
        };
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(peer).filter(|link| good(link)).map(|link| link.certificate.clone())
    }

    /// A certificate that this identity has made, for the next link to the same peer. Another than the keyring may have made it: a bad
    /// one is not shown twice.
    pub(crate) fn keep_link(&self, link: SignedLink) {
        let good = || VerifyingKey::from_bytes(&self.public).is_ok_and(|key| link.verify(&key));
        if self.signing.is_none() && !good() {
            return;
        }
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() >= LINKS_MAX && !links.contains_key(&link.to) {
            let any = links.keys().next().copied();
            any.map(|any| links.remove(&any));
        }
        links.insert(link.to, link);
    }
}

impl Keyring {
    /// A keyring with the identity of `seed`. `online_seed` is fresh randomness: the online key lives as long as this
    /// process.
    pub fn new(seed: &[u8; 32], online_seed: &[u8; 32]) -> Keyring {
        let signing = PrivateKey::from_seed(seed);
        let public = signing.public();
        Keyring::of(public, Some(signing), Zeroizing::new(engine_root(seed)), online_seed)
    }

    /// From a PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` makes it.
    pub fn from_pem(pem: &str, online_seed: &[u8; 32]) -> Result<Keyring, KeyringError> {
        let key = PrivateKey::from_pem(pem).ok_or(KeyringError::NotPkcs8Ed25519)?;
        Ok(Keyring::new(key.seed(), online_seed))
    }

    /// A keyring whose identity is held elsewhere. Engine keys are derived from `engine_root`: fresh randomness gives
    /// new ones at each start, which is harmless, since each is announced under the identity's signature.
    pub fn external(public: [u8; 32], engine_root: [u8; 32], online_seed: &[u8; 32]) -> Result<Keyring, KeyringError> {
        check_public_key(&public)?;
        Ok(Keyring::of(public, None, Zeroizing::new(engine_root), online_seed))
    }

    fn of(public: [u8; 32], signing: Option<PrivateKey>, root: Zeroizing<[u8; 32]>, online_seed: &[u8; 32]) -> Keyring {
        Keyring {
            public,
            identity: RwLock::new(Arc::new(Identity::of(signing, public, Vec::new(), None))),
            online: PrivateKey::from_seed(online_seed),
            engines: RwLock::new(Engines { root, keys: HashMap::new(), before: HashMap::new() }),
            heads: Heads::default(),
            acquaintances: Acquaintances::default(),
        }
    }

    /// The same key as the head of a realm that has had others before. Signatures are checked by [`Keyring::check`].
    ///
    /// # Errors
    /// [`KeyringError::Chain`] and [`KeyringError::Revocation`] when the records don't lead to this key.
    pub fn with_chain(mut self, chain: Vec<Rotation>, revocation: Option<Revocation>) -> Result<Keyring, KeyringError> {
        let identity = self.identity.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(identity) = Arc::into_inner(identity) else { return Err(KeyringError::Raced) };
        if chain.last().is_some_and(|last| last.new != identity.public) {
            return Err(ChainError::Broken.into());
        }
        if chain.len() > ROTATIONS_MAX {
            return Err(ChainError::TooLong.into());
        }
        if revocation.as_ref().is_some_and(|revocation| revocation.key != identity.public) {
            return Err(KeyringError::Revocation);
        }
        self.public = chain.first().map_or(identity.public, |first| first.old);
        self.identity = RwLock::new(Arc::new(Identity::of(identity.signing, identity.public, chain, revocation)));
        Ok(self)
    }

    /// Whether peers in this network will accept our rotations, and our revocation, if there is one.
    ///
    /// # Errors
    /// [`KeyringError::Chain`], [`KeyringError::Revocation`].
    pub fn check(&self, network: &NetworkId, now: UnixMs) -> Result<(), KeyringError> {
        let (identity, realm) = (self.identity(), self.realm_id());
        let head = follow_chain(&realm, &identity.public, &identity.chain, &[], network, now, &check_public_key)?;
        match &identity.revocation {
            Some(revocation) if !revocation.ends(&realm, identity.chain.len(), &head, network) => {
                Err(KeyringError::Revocation)
            }
            _ => Ok(()),
        }
    }

    /// The realm's first identity key, by which peers know it: its hash is the realm id.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The identity in force. It stays as it is; after a rotation this gives another.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn realm_id(&self) -> RealmId {
        RealmId::of(&self.public)
    }

    /// What is known of the keys of other realms.
    pub fn heads(&self) -> &Heads {
        &self.heads
    }

    /// What earlier handshakes have proven.
    pub(crate) fn acquaintances(&self) -> &Acquaintances {
        &self.acquaintances
    }

    pub fn holds_identity(&self) -> bool {
        self.identity().signing.is_some()
    }

    pub fn online_public(&self) -> [u8; 32] {
        self.online.public()
    }

    pub fn engine_public(&self, name: &str) -> [u8; 32] {
        self.with_engine_key(name, |key| key.public())
    }

    /// Signs as the identity. `Purpose::Batch` and `Purpose::Checkpoint` are none of the identity's purposes.
    ///
    /// # Errors
    /// [`KeyringError::External`] when the identity is held elsewhere.
    pub fn sign(&self, purpose: Purpose, network: &NetworkId, body: &[u8]) -> Result<[u8; 64], KeyringError> {
        self.identity().sign(purpose, network, body)
    }

    /// Signs a batch with the engine's key, or with the online key for the empty name.
    pub fn sign_batch(&self, engine: &str, network: &NetworkId, body: &[u8]) -> [u8; 64] {
        let input = signing_input(Purpose::Batch, network, body);
        if engine.is_empty() {
            return self.online.sign(&input);
        }
        self.with_engine_key(engine, |key| key.sign(&input))
    }

    /// Signs a checkpoint with the online key.
    pub fn sign_checkpoint(&self, network: &NetworkId, body: &[u8]) -> [u8; 64] {
        self.online.sign(&signing_input(Purpose::Checkpoint, network, body))
    }

    /// Signs a batch with the key that the peer has been told is the engine's: perhaps that of before a rotation.
    pub fn sign_batch_as(&self, engine: &str, told: &[u8; 32], network: &NetworkId, body: &[u8]) -> [u8; 64] {
        let input = signing_input(Purpose::Batch, network, body);
        {
            let engines = self.engines();
            let key = engines.keys.get(engine).filter(|key| key.public() == *told);
            if let Some(key) = key.or_else(|| engines.before.get(told)) {
                return key.sign(&input);
            }
        }
        self.with_engine_key(engine, |key| key.sign(&input))
    }

    /// Drops a withdrawn engine's key from memory; it is derived again when it is asked for.
    pub fn forget_engine(&self, name: &str) {
        self.engines_mut().keys.remove(name);
    }

    // Another identity key.

    /// The record that would make `new` the identity key, from `now` on. Nothing has changed yet: first it has to be kept where
    /// a restart finds it.
    ///
    /// # Errors
    /// All of [`KeyringError`] but those of loading.
    pub fn sign_rotation(&self, new: &[u8; 32], network: &NetworkId, now: UnixMs) -> Result<Rotation, KeyringError> {
        let identity = self.identity();
        check_public_key(new)?;
        if identity.revocation.is_some() {
            return Err(KeyringError::Revoked);
        }
        if identity.public == *new || identity.chain.iter().any(|rotation| rotation.old == *new) {
            return Err(KeyringError::UsedBefore);
        }
        if identity.chain.len() >= ROTATIONS_MAX {
            return Err(KeyringError::TooManyRotations);
        }
        let mut rotation = Rotation {
            realm: self.realm_id(),
            old: identity.public,
            new: *new,
            serial: identity.chain.len() as u64 + 1,
            not_before: now,
            signature: [0; 64],
        };
        rotation.signature = identity.sign(Purpose::Rotate, network, &rotation.body())?;
        Ok(rotation)
    }

    /// From now on the identity is that of `next`, by the record that was made for it. Sessions go on with the engine keys
    /// that peers were told of, until they are told of others.
    ///
    /// # Errors
    /// [`KeyringError::Raced`] when it is not a record for this.
    pub fn rotate(&self, next: &Keyring, rotation: Rotation) -> Result<(), KeyringError> {
        let next = (next.identity(), next.engines());
        let signing = next.0.signing.clone().ok_or(KeyringError::External)?;
        let mut identity = self.identity.write().unwrap_or_else(PoisonError::into_inner);
        let in_place = rotation.old == identity.public && rotation.serial == identity.chain.len() as u64 + 1;
        if !in_place || rotation.new != next.0.public || identity.revocation.is_some() {
            return Err(KeyringError::Raced);
        }
        let mut chain = identity.chain.clone();
        chain.push(rotation);
        let public = next.0.public;
        *identity = Arc::new(Identity::of(Some(signing), public, chain, None));
        let mut engines = self.engines_mut();
        engines.root = next.1.root.clone();
        let before = std::mem::take(&mut engines.keys).into_values();
        engines.before.extend(before.map(|key| (key.public(), key)));
        Ok(())
    }

    /// The record that would end this realm. Nothing has changed yet.
    ///
    /// # Errors
    /// [`KeyringError::External`], [`KeyringError::Revoked`].
    pub fn sign_revocation(&self, network: &NetworkId) -> Result<Revocation, KeyringError> {
        let identity = self.identity();
        if identity.revocation.is_some() {
            return Err(KeyringError::Revoked);
        }
        let serial = identity.chain.len() as u64 + 1;
        let mut revocation = Revocation { realm: self.realm_id(), key: identity.public, serial, signature: [0; 64] };
        revocation.signature = identity.sign(Purpose::Revoke, network, &revocation.body())?;
        Ok(revocation)
    }

    /// From now on each peer that we say hello to, and each that has a session with us, is told that this realm has ended.
    ///
    /// # Errors
    /// [`KeyringError::Raced`] when it is not a record for this.
    pub fn revoke(&self, revocation: Revocation) -> Result<(), KeyringError> {
        let mut identity = self.identity.write().unwrap_or_else(PoisonError::into_inner);
        if revocation.key != identity.public {
            return Err(KeyringError::Raced);
        }
        let Identity { signing, public, chain, .. } = &**identity;
        let (signing, chain) = (signing.clone(), chain.clone());
        *identity = Arc::new(Identity::of(signing, *public, chain, Some(revocation)));
        Ok(())
    }

    fn engines(&self) -> RwLockReadGuard<'_, Engines> {
        self.engines.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn engines_mut(&self) -> RwLockWriteGuard<'_, Engines> {
        self.engines.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_engine_key<T>(&self, name: &str, work: impl FnOnce(&PrivateKey) -> T) -> T {
        if let Some(key) = self.engines().keys.get(name) {
            return work(key);
        }
        // Derived under the lock: its root must not change meanwhile.
        let mut engines = self.engines_mut();
        let key = derive_engine_key(&engines.root, name);
        work(engines.keys.entry(name.to_owned()).or_insert(key))
    }
}

fn engine_root(seed: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key("legation/1/engine-root", seed)
}

fn derive_engine_key(root: &[u8; 32], name: &str) -> PrivateKey {
    let mut material = Zeroizing::new(Vec::with_capacity(32 + name.len()));
    material.extend_from_slice(root);
    material.extend_from_slice(name.as_bytes());
    let mut seed = blake3::derive_key("legation/1/engine-key", &material);
    let key = PrivateKey::from_seed(&seed);
    seed.zeroize();
    key
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Keyring(..)")
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Identity(..)")
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
        assert!(Keyring::new(&[1; 32], &[2; 32]).sign(Purpose::Checkpoint, &network, b"").is_err());
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
