//! Who may sign for whom, and how long.
//!
//! * A **link certificate**: the identity vouches for the key that this process shows in TLS (`protocol.md` 7.3).
//! * An engine's certificate is its LEARN ([`crate::frame::learn`]), the online key's its CERT ([`crate::frame::cert`]).

use ed25519_dalek::VerifyingKey;

use crate::codec::Writer;
use crate::identity::{verify, NetworkId, Purpose, RealmId};
use crate::UnixMs;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkCertificate {
    pub key: [u8; 32],
    pub not_after: UnixMs,
    pub signature: [u8; 64],
}

impl LinkCertificate {
    /// The bytes that are signed: both realms, the key, its end.
    pub fn body(own: &RealmId, peer: &RealmId, key: &[u8; 32], not_after: UnixMs) -> Vec<u8> {
        let mut body = Vec::with_capacity(104);
        body.put(&own.0);
        body.put(&peer.0);
        body.put(key);
        body.put_u64(not_after);
        body
    }

    /// Whether `identity` made this, as `own`, for a link to `peer`.
    pub fn verify(&self, identity: &VerifyingKey, network: &NetworkId, own: &RealmId, peer: &RealmId) -> bool {
        let body = Self::body(own, peer, &self.key, self.not_after);
        verify(identity, Purpose::Link, network, &body, &self.signature)
    }
}
