//! An Ed25519 private key, wiped when dropped.
//!
//! A signature is what a lone message waits for twice on each of its ways, and each end makes three in a handshake. With the feature `aws-lc` AWS-LC makes it, in half
//! the time that `ed25519-dalek` takes; without, the core is Rust alone. Either way it is the same signature, bit by bit (RFC
//! 8032), and it is dalek that verifies.

use std::sync::Arc;

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::SigningKey;

/// Clones share the key. Whoever holds one can sign anything: a [`crate::keyring::Keyring`] doesn't give its own away.
#[derive(Clone)]
pub struct PrivateKey(Arc<Inner>);

struct Inner {
    key: SigningKey,
    /// Made when something is signed first: of ten thousand engines that are announced most never send anything.
    #[cfg(feature = "aws-lc")]
    pair: std::sync::OnceLock<Option<aws_lc_rs::signature::Ed25519KeyPair>>,
}

impl PrivateKey {
    pub fn from_seed(seed: &[u8; 32]) -> PrivateKey {
        PrivateKey::of(SigningKey::from_bytes(seed))
    }

    /// From a PKCS#8 PEM. None: it is something else.
    pub(crate) fn from_pem(pem: &str) -> Option<PrivateKey> {
        SigningKey::from_pkcs8_pem(pem).ok().map(PrivateKey::of)
    }

    fn of(key: SigningKey) -> PrivateKey {
        PrivateKey(Arc::new(Inner {
            key,
            #[cfg(feature = "aws-lc")]
            pair: std::sync::OnceLock::new(),
        }))
    }

    pub(crate) fn seed(&self) -> &[u8; 32] {
        self.0.key.as_bytes()
    }

    pub fn public(&self) -> [u8; 32] {
        self.0.key.verifying_key().to_bytes()
    }

    #[cfg(feature = "aws-lc")]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let make = || {
            let public = self.0.key.verifying_key();
            // It wipes its copy when it is freed.
            aws_lc_rs::signature::Ed25519KeyPair::from_seed_and_public_key(self.seed(), public.as_bytes()).ok()
        };
        let pair = self.0.pair.get_or_init(make).as_ref();
        let signature = pair.and_then(|pair| pair.try_sign(message).ok());
        // It refuses only where it gets no memory.
        signature
            .and_then(|signature| signature.as_ref().try_into().ok())
            .unwrap_or_else(|| self.sign_by_dalek(message))
    }

    #[cfg(not(feature = "aws-lc"))]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.sign_by_dalek(message)
    }

    fn sign_by_dalek(&self, message: &[u8]) -> [u8; 64] {
        ed25519_dalek::Signer::sign(&self.0.key, message).to_bytes()
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PrivateKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_signatures_of_rfc_8032_are_made() {
        let file = include_str!("../../../test/vectors/published/rfc8032.txt");
        let records: Vec<&str> = file.split("record = ").skip(1).collect();
        assert_eq!(records.len(), 5);
        for record in records {
            let field = |name: &str| -> Vec<u8> {
                let hex = record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" =")).unwrap().trim();
                (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
            };
            let key = PrivateKey::from_seed(&field("secret_key").try_into().unwrap());
            assert_eq!(key.public().to_vec(), field("public_key"));
            assert_eq!(key.sign(&field("message")).to_vec(), field("signature"));
            assert_eq!(key.sign_by_dalek(&field("message")).to_vec(), field("signature"));
        }
    }

    proptest! {
        #[test]
        fn a_signature_is_the_same_whoever_makes_it(seed: [u8; 32], message in prop::collection::vec(any::<u8>(), 0..300)) {
            let key = PrivateKey::from_seed(&seed);
            let signature = key.sign(&message);
            prop_assert_eq!(signature, key.sign_by_dalek(&message));
            prop_assert_eq!(signature, key.clone().sign(&message));
        }
    }
}
