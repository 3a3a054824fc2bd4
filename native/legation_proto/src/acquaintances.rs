//! What handshakes have proven of peers, for when they come again: that a key is fit for use, and that it has signed a link
//! certificate. Both follow from the bytes alone, so the same bytes need not be looked at twice. Whatever depends on the time, on the
//! list of peers, or on rotations and revocations is asked anew in each handshake.
//!
//! One per keyring. Only those get here that the driver has let in.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ed25519_dalek::VerifyingKey;

use crate::certificate::LinkCertificate;
use crate::identity::{check_public_key, KeyError, NetworkId, RealmId};

/// Beyond it any other makes room: it costs its next handshake two tens of microseconds. 2 MB at most.
const ACQUAINTANCES_MAX: usize = 4_096;

/// By identity key.
#[derive(Default)]
pub struct Acquaintances(Mutex<HashMap<[u8; 32], Acquaintance>>);

struct Acquaintance {
    key: VerifyingKey,
    /// The last of its link certificates.
    link: Option<SignedLink>,
}

/// A link certificate with all that its signature is over. Whose key has made it stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedLink {
    pub network: NetworkId,
    pub from: RealmId,
    pub to: RealmId,
    pub certificate: LinkCertificate,
}

impl SignedLink {
    pub(crate) fn verify(&self, identity: &VerifyingKey) -> bool {
        self.certificate.verify(identity, &self.network, &self.from, &self.to)
    }
}

impl Acquaintances {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Acquaintance>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`check_public_key`], or what it has said of the same key.
    pub(crate) fn check_public_key(&self, bytes: &[u8; 32]) -> Result<VerifyingKey, KeyError> {
        let known = self.lock().get(bytes).map(|known| known.key);
        known.map_or_else(|| check_public_key(bytes), Ok)
    }

    /// Whether `identity` has signed this.
    pub(crate) fn verify_link(&self, identity: &VerifyingKey, link: &SignedLink) -> bool {
        let same = |known: &Acquaintance| known.link.as_ref() == Some(link);
        let known = self.lock().get(identity.as_bytes()).is_some_and(same);
        known || link.verify(identity)
    }

    /// A handshake has come through, and its peer was let in: `identity` has passed the check, and has signed `link`, if there is one.
    pub(crate) fn keep(&self, identity: VerifyingKey, link: Option<SignedLink>) {
        let mut known = self.lock();
        if known.len() >= ACQUAINTANCES_MAX && !known.contains_key(identity.as_bytes()) {
            let any = known.keys().next().copied();
            any.map(|any| known.remove(&any));
        }
        let before = known.remove(identity.as_bytes()).and_then(|before| before.link);
        known.insert(identity.to_bytes(), Acquaintance { key: identity, link: link.or(before) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{NetworkKey, Purpose};
    use crate::keyring::Keyring;

    fn keyring(number: u64) -> Keyring {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        Keyring::new(&seed, &seed)
    }

    fn signed(by: &Keyring, to: RealmId, key: [u8; 32], not_after: u64) -> SignedLink {
        let (network, from) = (NetworkKey::none().id(), by.realm_id());
        let body = LinkCertificate::body(&from, &to, &key, not_after);
        let signature = by.sign(Purpose::Link, &network, &body).unwrap();
        SignedLink { network, from, to, certificate: LinkCertificate { key, not_after, signature } }
    }

    #[test]
    fn a_link_that_differs_in_anything_is_verified_although_another_was() {
        let (alice, bob) = (keyring(1), keyring(2));
        let acquaintances = Acquaintances::default();
        let key = check_public_key(alice.public()).unwrap();
        let good = signed(&alice, bob.realm_id(), [3; 32], 1_000);
        assert!(acquaintances.verify_link(&key, &good));
        acquaintances.keep(key, Some(good.clone()));
        assert!(acquaintances.verify_link(&key, &good));

        let change = |change: fn(&mut SignedLink)| {
            let mut changed = good.clone();
            change(&mut changed);
            changed
        };
        let changed = [
            change(|link| link.network = NetworkKey::new([1; 32]).id()),
            change(|link| link.from.0[0] ^= 1),
            change(|link| link.to.0[31] ^= 1),
            change(|link| link.certificate.key[7] ^= 1),
            change(|link| link.certificate.not_after += 1),
            change(|link| link.certificate.signature[63] ^= 1),
        ];
        for link in &changed {
            assert!(!acquaintances.verify_link(&key, link), "{link:?}");
        }
        // The same words by somebody else's key.
        let other = check_public_key(bob.public()).unwrap();
        assert!(!acquaintances.verify_link(&other, &good));
        acquaintances.keep(other, None);
        assert!(!acquaintances.verify_link(&other, &good));
    }

    #[test]
    fn a_key_that_is_not_fit_for_use_never_becomes_known() {
        let acquaintances = Acquaintances::default();
        let mut weak = [0; 32];
        weak[0] = 1;
        for _ in 0..2 {
            assert_eq!(acquaintances.check_public_key(&weak), Err(KeyError::Weak));
        }
    }

    #[test]
    fn at_the_limit_one_makes_room_for_the_next() {
        let acquaintances = Acquaintances::default();
        for number in 0..=ACQUAINTANCES_MAX as u64 {
            let key = VerifyingKey::from_bytes(keyring(number).public()).unwrap();
            acquaintances.keep(key, None);
            assert_eq!(acquaintances.lock().len(), ACQUAINTANCES_MAX.min(number as usize + 1));
        }
        let last = *keyring(ACQUAINTANCES_MAX as u64).public();
        assert!(acquaintances.lock().contains_key(&last));
        // One that is known takes nobody's place.
        acquaintances.keep(VerifyingKey::from_bytes(&last).unwrap(), None);
        assert_eq!(acquaintances.lock().len(), ACQUAINTANCES_MAX);
    }
}
