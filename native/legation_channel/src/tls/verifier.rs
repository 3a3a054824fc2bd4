//! Accepts any Ed25519 raw public key that passes the strict check, and verifies strictly
//! (`protocol.md` 2.6, 5.3).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ed25519_dalek::VerifyingKey;
use legation_proto::identity::{check_public_key, checked_public_key, verify_message};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, PeerMisbehaved,
    SignatureScheme,
};

/// `SubjectPublicKeyInfo` of Ed25519 before the 32 bytes of the key (RFC 8410). There is no other way to encode it.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The raw public key "certificate" of a link key.
pub(super) fn spki(key: &[u8; 32]) -> [u8; 44] {
    let mut spki = [0; 44];
    spki[..12].copy_from_slice(&SPKI_PREFIX);
    spki[12..].copy_from_slice(key);
    spki
}

/// The link key in a raw public key, None when it is not Ed25519's.
pub(super) fn link_key(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

/// Link keys that are known at most: those of a thousand peers, in 250 KB. Beyond it any other makes room.
const LINK_KEYS_MAX: usize = 1_024;

/// One verifier for both roles. It knows the link keys that have passed the check and have signed a handshake: a peer shows the same
/// one as long as its process lives.
#[derive(Debug, Default)]
pub(super) struct RawKeyVerifier(Mutex<HashMap<[u8; 32], VerifyingKey>>);

impl RawKeyVerifier {
    fn check(&self, spki: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        // RFC 8446 4.4.2: a raw public key stands alone.
        if !others.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let key = link_key(spki).ok_or(CertificateError::BadEncoding)?;
        if !self.known().contains_key(&key) {
            check_public_key(&key).map_err(|_| CertificateError::BadEncoding)?;
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], VerifyingKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, key: VerifyingKey) {
        let mut known = self.known();
        if known.len() >= LINK_KEYS_MAX {
            let any = known.keys().next().copied();
            any.map(|any| known.remove(&any));
        }
        known.insert(key.to_bytes(), key);
    }

    /// The key has passed [`RawKeyVerifier::check`].
    fn verify(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let bytes = link_key(spki).ok_or(CertificateError::BadEncoding)?;
        let known = self.known().get(&bytes).copied();
        let key = known.or_else(|| checked_public_key(&bytes)).ok_or(CertificateError::BadEncoding)?;
        match signed.signature().try_into() {
            Ok(signature) if verify_message(&key, message, signature) => {}
            _ => return Err(CertificateError::BadSignature.into()),
        }
        if known.is_none() {
            self.keep(key);
        }
        Ok(HandshakeSignatureValid::assertion())
    }
}

impl ServerCertVerifier for RawKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKeyVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_limit_one_link_key_makes_room_for_the_next() {
        let verifier = RawKeyVerifier::default();
        for number in 0..=LINK_KEYS_MAX as u64 {
            let mut seed = [9; 32];
            seed[..8].copy_from_slice(&number.to_le_bytes());
            let key = super::super::LinkKey::generate(seed).public();
            verifier.keep(VerifyingKey::from_bytes(&key).unwrap());
            assert_eq!(verifier.known().len(), LINK_KEYS_MAX.min(number as usize + 1));
            assert!(verifier.known().contains_key(&key));
        }
    }

    #[test]
    fn a_link_key_is_known_once_it_has_signed_and_is_checked_until_then() {
        let verifier = RawKeyVerifier::default();
        let mut weak = [0; 32];
        weak[0] = 1;
        for _ in 0..2 {
            assert!(verifier.check(&CertificateDer::from(spki(&weak).to_vec()), &[]).is_err());
        }
        let key = super::super::LinkKey::generate([9; 32]).public();
        assert!(verifier.check(&CertificateDer::from(spki(&key).to_vec()), &[]).is_ok());
        assert!(verifier.known().is_empty());
    }
}
