//! Who a realm is: public keys and their checks, realm ids, the network, names, and the one form of signed bytes.
//!
//! `protocol.md` 2 and 3.

use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_dalek::{Signature, VerifyingKey};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What a signature is for. The domain string keeps a signature made for one purpose from serving another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Link,
    Hello,
    Cert,
    Learn,
    Forget,
    Rotate,
    Revoke,
    Batch,
    Checkpoint,
}

impl Purpose {
    pub fn domain(self) -> &'static str {
        match self {
            Purpose::Link => "legation/1/link",
            Purpose::Hello => "legation/1/hello",
            Purpose::Cert => "legation/1/cert",
            Purpose::Learn => "legation/1/learn",
            Purpose::Forget => "legation/1/forget",
            Purpose::Rotate => "legation/1/rotate",
            Purpose::Revoke => "legation/1/revoke",
            Purpose::Batch => "legation/1/batch",
            Purpose::Checkpoint => "legation/1/checkpoint",
        }
    }
}

/// BLAKE3 of a realm's first identity key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RealmId(pub [u8; 32]);

impl RealmId {
    pub fn of(identity_key: &[u8; 32]) -> RealmId {
        RealmId(*blake3::hash(identity_key).as_bytes())
    }
}

/// What separates one network from another in every signature. Derived from the network key, and no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkId(pub [u8; 32]);

/// The secret that members of a network share, or none. Wiped when dropped; its `Debug` says nothing.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NetworkKey(Option<[u8; 32]>);

impl NetworkKey {
    pub fn new(key: [u8; 32]) -> Self {
        NetworkKey(Some(key))
    }

    pub fn none() -> Self {
        NetworkKey(None)
    }

    pub fn id(&self) -> NetworkId {
        NetworkId(match &self.0 {
            Some(key) => blake3::derive_key("legation/1/network-id", key),
            None => [0; 32],
        })
    }

    /// The key for knocks: 32 zeros without a network key (`protocol.md` 2.3).
    pub fn expose(&self) -> [u8; 32] {
        self.0.unwrap_or([0; 32])
    }
}

impl std::fmt::Debug for NetworkKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("NetworkKey(..)")
    }
}

/// A public key that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum KeyError {
    #[error("not a point on the curve")]
    NotAPoint,
    #[error("not the canonical encoding of its point")]
    NotCanonical,
    #[error("of small order")]
    Weak,
    #[error("has a torsion component")]
    Torsion,
}

/// Takes a public key from outside. Done once per key, when it is learned (`protocol.md` 2.6).
pub fn check_public_key(bytes: &[u8; 32]) -> Result<VerifyingKey, KeyError> {
    let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
    if key.is_weak() {
        return Err(KeyError::Weak);
    }
    if !is_reduced(bytes) {
        return Err(KeyError::NotCanonical);
    }
    if !is_torsion_free(&key.to_edwards()) {
        return Err(KeyError::Torsion);
    }
    Ok(key)
}

/// A public key that has come through [`check_public_key`] before. None: it can't have.
pub fn checked_public_key(bytes: &[u8; 32]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes).ok()
}

/// Whether the y-coordinate is below 2²⁵⁵ − 19. The other encodings that are not canonical are of points with x = 0, which are weak.
fn is_reduced(bytes: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = bytes;
    *low < 0xed || *high & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

/// Whether (ℓ − 1)·P = −P. A public key is no secret, so this need not take the same time for each, as dalek's own check does.
fn is_torsion_free(point: &EdwardsPoint) -> bool {
    EdwardsPoint::vartime_double_scalar_mul_basepoint(&-Scalar::ONE, point, &Scalar::ZERO) == -point
}

/// The bytes that are signed (`protocol.md` 3.1): domain, a zero, the network, the body's hash.
pub fn signing_input(purpose: Purpose, network: &NetworkId, body: &[u8]) -> Vec<u8> {
    signing_input_of_hash(purpose, network, blake3::hash(body).as_bytes())
}

/// [`signing_input`] for a body whose hash is known.
pub fn signing_input_of_hash(purpose: Purpose, network: &NetworkId, hash: &[u8; 32]) -> Vec<u8> {
    let domain = purpose.domain().as_bytes();
    let mut input = Vec::with_capacity(domain.len() + 65);
    input.extend_from_slice(domain);
    input.push(0);
    input.extend_from_slice(&network.0);
    input.extend_from_slice(hash);
    input
}

/// Strict verification and nothing else, of these very bytes: what every signature comes to in the end, those of TLS, too. The
/// key must have come through [`check_public_key`].
pub fn verify_message(key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> bool {
    key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
}

/// [`verify_message`], of what a purpose makes of a body. The key must have come through [`check_public_key`].
pub fn verify(key: &VerifyingKey, purpose: Purpose, network: &NetworkId, body: &[u8], signature: &[u8; 64]) -> bool {
    verify_message(key, &signing_input(purpose, network, body), signature)
}

/// Whether a name may be an engine's (`protocol.md` 2.4).
pub fn is_engine_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.chars().any(|c| c == '@' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_names_have_no_at_sign_and_no_control_characters() {
        assert!(is_engine_name("ping"));
        assert!(is_engine_name("größe 1"));
        assert!(is_engine_name(&"x".repeat(255)));
        for bad in ["", "a@b", "a\nb", "a\u{85}b", &"x".repeat(256)] {
            assert!(!is_engine_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn weak_torsioned_and_non_canonical_keys_are_refused() {
        // The identity element, of order 1.
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(check_public_key(&identity), Err(KeyError::Weak));
        // y = p + 1 encodes the identity a second time.
        let mut again = [0xff; 32];
        again[0] = 0xee;
        again[31] = 0x7f;
        assert!(check_public_key(&again).is_err());
        assert_eq!(check_public_key(&[2; 32]), Err(KeyError::NotAPoint));
    }

    /// As dalek has it, in constant time and by encoding the point again.
    fn check_by_the_book(bytes: &[u8; 32]) -> Result<(), KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        let point = key.to_edwards();
        match () {
            () if key.is_weak() => Err(KeyError::Weak),
            () if point.compress().as_bytes() != bytes => Err(KeyError::NotCanonical),
            () if !point.is_torsion_free() => Err(KeyError::Torsion),
            () => Ok(()),
        }
    }

    fn checked(bytes: &[u8; 32]) -> Result<(), KeyError> {
        check_public_key(bytes).map(|key| assert_eq!(key.as_bytes(), bytes))
    }

    #[test]
    fn every_encoding_at_the_edge_of_the_field_is_judged_as_dalek_would() {
        let mut seen = std::collections::HashSet::new();
        for low in 0..=255_u8 {
            for sign in [0x7f, 0xff] {
                let mut bytes = [0xff; 32];
                (bytes[0], bytes[31]) = (low, sign);
                assert_eq!(checked(&bytes), check_by_the_book(&bytes), "{bytes:?}");
                seen.insert(check_by_the_book(&bytes).err());
                let mut bytes = [0; 32];
                (bytes[0], bytes[31]) = (low, sign & 0x80);
                assert_eq!(checked(&bytes), check_by_the_book(&bytes), "{bytes:?}");
            }
        }
        assert!(seen.contains(&Some(KeyError::NotCanonical)) && seen.contains(&Some(KeyError::Weak)));
    }

    proptest::proptest! {
        #[test]
        fn a_key_with_any_torsion_is_refused(seed: [u8; 32]) {
            use curve25519_dalek::constants::EIGHT_TORSION;
            let key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
            for (number, torsion) in EIGHT_TORSION.iter().enumerate() {
                let bytes = (key.to_edwards() + torsion).compress().to_bytes();
                let expected = if number == 0 { Ok(()) } else { Err(KeyError::Torsion) };
                proptest::prop_assert_eq!(checked(&bytes), expected);
                proptest::prop_assert_eq!(checked(&bytes), check_by_the_book(&bytes));
            }
        }

        #[test]
        fn any_bytes_are_judged_as_dalek_would(bytes: [u8; 32]) {
            proptest::prop_assert_eq!(checked(&bytes), check_by_the_book(&bytes));
        }
    }

    #[test]
    fn a_signature_serves_one_purpose_and_one_network() {
        use ed25519_dalek::{Signer, SigningKey};
        let signer = SigningKey::from_bytes(&[7; 32]);
        let key = check_public_key(signer.verifying_key().as_bytes()).unwrap();
        let network = NetworkKey::new([1; 32]).id();
        let signature = signer.sign(&signing_input(Purpose::Learn, &network, b"body")).to_bytes();
        assert!(verify(&key, Purpose::Learn, &network, b"body", &signature));
        assert!(!verify(&key, Purpose::Forget, &network, b"body", &signature));
        assert!(!verify(&key, Purpose::Learn, &NetworkKey::none().id(), b"body", &signature));
        assert!(!verify(&key, Purpose::Learn, &network, b"bodY", &signature));
    }
}
