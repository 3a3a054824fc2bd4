//! The key that a process shows in TLS. Made at its start, never stored.

use std::sync::Arc;

use legation_proto::private_key::PrivateKey;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::sign::{CertifiedKey, Signer};
use rustls::{SignatureAlgorithm, SignatureScheme};
use zeroize::Zeroize;

use super::verifier::spki;

/// An Ed25519 key, wiped when the last channel that uses it is gone.
#[derive(Clone)]
pub struct LinkKey(PrivateKey);

impl LinkKey {
    /// `seed` is fresh randomness; one per start of the process.
    pub fn generate(mut seed: [u8; 32]) -> LinkKey {
        let key = LinkKey(PrivateKey::from_seed(&seed));
        seed.zeroize();
        key
    }

    pub fn public(&self) -> [u8; 32] {
        self.0.public()
    }

    /// For rustls: the raw public key in the place of a certificate.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        let certificate = CertificateDer::from(spki(&self.public()).to_vec());
        Arc::new(CertifiedKey::new(vec![certificate], Arc::new(TlsSigner(self.clone()))))
    }
}

impl std::fmt::Debug for LinkKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("LinkKey(..)")
    }
}

/// Signs handshakes.
#[derive(Clone, Debug)]
struct TlsSigner(LinkKey);

impl rustls::sign::SigningKey for TlsSigner {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(spki(&self.0.public()).to_vec()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TlsSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0 .0.sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
