//! TLS peers that aren't ours: each is made of rustls with one thing wrong.

use std::sync::Arc;

use curve25519_dalek::constants::EIGHT_TORSION;
use ed25519_dalek::{Signer as _, SigningKey};
use legation_channel::channel::{Channel, Profile};
use legation_channel::error::{ChannelError, Incompatible, Misbehaved};
use legation_channel::tls::{TlsChannel, ALPN};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert};
use rustls::crypto::{aws_lc_rs, CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct,
    DistinguishedName, Error, PeerIncompatible, ServerConfig, ServerConnection, SignatureAlgorithm, SignatureScheme,
};

use crate::pair::{sealed, tls_initiator, tls_responder, waiting, Pair};

/// What a peer shows and says; as it is by default, ours takes it.
struct Hostile {
    alpn: Vec<Vec<u8>>,
    shown: Vec<Vec<u8>>,
    signs: bool,
    raw: bool,
    groups: Vec<&'static dyn SupportedKxGroup>,
}

const SECRET: [u8; 32] = [0x66; 32];

impl Default for Hostile {
    fn default() -> Hostile {
        Hostile {
            alpn: vec![ALPN.to_vec()],
            shown: vec![spki(SigningKey::from_bytes(&SECRET).verifying_key().as_bytes())],
            signs: true,
            raw: true,
            groups: vec![aws_lc_rs::kx_group::X25519],
        }
    }
}

impl Hostile {
    fn certified(&self) -> Arc<CertifiedKey> {
        let shown = self.shown.iter().map(|bytes| CertificateDer::from(bytes.clone())).collect();
        Arc::new(CertifiedKey::new(shown, Arc::new(Signs { well: self.signs })))
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        Arc::new(CryptoProvider { kx_groups: self.groups.clone(), ..aws_lc_rs::default_provider() })
    }

    fn client(&self) -> Connection {
        let config = ClientConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakesAnything { raw: self.raw }));
        let resolver: Arc<dyn ResolvesClientCert> = if self.raw {
            Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.certified()))
        } else {
            Arc::new(rustls::sign::SingleCertAndKey::from(self.certified()))
        };
        let mut config = match self.shown.is_empty() {
            true => config.with_no_client_auth(),
            false => config.with_client_cert_resolver(resolver),
        };
        config.alpn_protocols = self.alpn.clone();
        let name = ServerName::try_from("somebody").unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap().into()
    }

    fn server(&self, wants_client_key: bool) -> Connection {
        let config = ServerConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap();
        let config = match wants_client_key {
            true => config.with_client_cert_verifier(Arc::new(TakesAnything { raw: true })),
            false => config.with_no_client_auth(),
        };
        let mut config = config.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.certified())));
        config.alpn_protocols = self.alpn.clone();
        ServerConnection::new(Arc::new(config)).unwrap().into()
    }

    /// What our responder says to this as a client.
    fn dials(&self) -> Result<(), ChannelError> {
        shake(&mut tls_responder(), self.client())
    }

    /// What our initiator says to this as a server.
    fn answers(&self) -> Result<(), ChannelError> {
        shake(&mut tls_initiator(), self.server(true))
    }
}

#[test]
fn the_peer_of_these_tests_is_taken_when_nothing_is_wrong() {
    assert_eq!(Hostile::default().dials(), Ok(()));
    assert_eq!(Hostile::default().answers(), Ok(()));
}

#[test]
fn a_client_that_does_not_do_raw_public_keys_is_refused() {
    let error = Hostile { raw: false, ..Hostile::default() }.dials().unwrap_err();
    assert!(matches!(error, ChannelError::Incompatible(Incompatible::Tls(_))), "{error:?}");
}

#[test]
fn a_client_that_shows_no_key_is_refused() {
    let error = Hostile { shown: vec![], ..Hostile::default() }.dials().unwrap_err();
    assert!(error.is_peers_fault(), "{error:?}");
}

#[test]
fn a_server_that_asks_for_no_key_does_not_come_to_terms_with_us() {
    assert!(shake(&mut tls_initiator(), Hostile::default().server(false)).unwrap_err().is_peers_fault());
}

#[test]
fn another_application_protocol_or_none_is_refused() {
    for alpn in [vec![], vec![b"h2".to_vec()], vec![b"legation/2".to_vec(), b"legation".to_vec()]] {
        let hostile = Hostile { alpn: alpn.clone(), ..Hostile::default() };
        let none = ChannelError::Incompatible(Incompatible::NoApplicationProtocol);
        assert_eq!(hostile.dials(), Err(none.clone()), "{alpn:?}");
        let refused_by_peer = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        let error = hostile.answers().unwrap_err();
        assert!(error == none || error == ChannelError::Misbehaved(Misbehaved::Tls(refused_by_peer)), "{error:?}");
    }
}

#[test]
fn a_client_without_alpn_sees_nothing_of_the_responders_flight() {
    let mut responder = tls_responder();
    let mut client = Hostile { alpn: vec![], ..Hostile::default() }.client();
    assert!(responder.handle_bytes(&written(&mut client), &mut Vec::new()).is_err());
    assert!(waiting(&mut responder).is_empty());
}

#[test]
fn keys_that_the_strict_check_refuses_are_refused() {
    let good = SigningKey::from_bytes(&SECRET).verifying_key().to_edwards();
    let mut not_canonical = [0xff; 32];
    (not_canonical[0], not_canonical[31]) = (0xee, 0x7f);
    let keys = [
        ("weak", EIGHT_TORSION[1].compress().to_bytes()),
        ("the identity", EIGHT_TORSION[0].compress().to_bytes()),
        ("with a torsion component", (good + EIGHT_TORSION[1]).compress().to_bytes()),
        ("not canonical", not_canonical),
        ("no point", [2; 32]),
    ];
    for (what, key) in keys {
        refuses_key(Hostile { shown: vec![spki(&key)], ..Hostile::default() }, CertificateError::BadEncoding, what);
    }
}

#[test]
fn what_is_not_the_one_encoding_of_an_ed25519_key_is_refused() {
    let good = Hostile::default().shown.remove(0);
    let mut trailing = good.clone();
    trailing.push(0);
    let mut x448 = good.clone();
    x448[8] = 0x71;
    let mut unused_bits = good.clone();
    unused_bits[11] = 1;
    for shown in [trailing, x448, unused_bits, good[..43].to_vec(), good[12..].to_vec(), vec![0x30]] {
        refuses_key(Hostile { shown: vec![shown], ..Hostile::default() }, CertificateError::BadEncoding, "encoding");
    }
}

#[test]
fn a_key_that_the_peer_does_not_hold_is_refused() {
    refuses_key(Hostile { signs: false, ..Hostile::default() }, CertificateError::BadSignature, "signature");
    let others = spki(SigningKey::from_bytes(&[0x67; 32]).verifying_key().as_bytes());
    refuses_key(Hostile { shown: vec![others], ..Hostile::default() }, CertificateError::BadSignature, "another's key");
}

#[test]
fn a_second_key_behind_the_first_is_refused() {
    let key = Hostile::default().shown.remove(0);
    let hostile = Hostile { shown: vec![key.clone(), key], ..Hostile::default() };
    assert!(hostile.dials().unwrap_err().is_peers_fault());
    assert!(hostile.answers().unwrap_err().is_peers_fault());
}

#[test]
fn a_client_without_x25519_is_refused() {
    let error = Hostile { groups: vec![aws_lc_rs::kx_group::SECP256R1], ..Hostile::default() }.dials().unwrap_err();
    let expected = Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon);
    assert_eq!(error, ChannelError::Incompatible(Incompatible::Tls(expected)));
}

#[test]
fn a_client_that_needs_a_hello_retry_request_gets_none() {
    let groups = vec![aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::X25519];
    let mut client = Hostile { groups, ..Hostile::default() }.client();
    let mut responder = tls_responder();
    let error = responder.handle_bytes(&written(&mut client), &mut Vec::new()).unwrap_err();
    assert_eq!(error, ChannelError::Misbehaved(Misbehaved::NotAFullHandshake));
    assert!(waiting(&mut responder).is_empty());
}

#[test]
fn a_client_of_tls_1_2_is_refused() {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    // No session; ECDHE_ECDSA with AES-128-GCM; no compression; signature_algorithms and groups.
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 20, 0, 13, 0, 4, 0, 2, 8, 7, 0, 10, 0, 4, 0, 2, 0, 29, 0, 23, 0, 0]);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    let error = tls_responder().handle_bytes(&record, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, ChannelError::Incompatible(Incompatible::Tls(_))), "{error:?}");
}

#[test]
fn the_client_hello_offers_what_the_specification_lists_and_no_name() {
    let hello = waiting(&mut tls_initiator());
    let mut acceptor = rustls::server::Acceptor::default();
    acceptor.read_tls(&mut &hello[..]).unwrap();
    let accepted = acceptor.accept().unwrap().unwrap();
    let hello = accepted.client_hello();
    assert_eq!(hello.server_name(), None);
    assert_eq!(hello.alpn().unwrap().collect::<Vec<_>>(), [ALPN]);
    assert_eq!(hello.signature_schemes(), [SignatureScheme::ED25519]);
    assert_eq!(hello.named_groups().unwrap(), [rustls::NamedGroup::X25519]);
    let suites: Vec<u16> = hello.cipher_suites().iter().map(|suite| u16::from(*suite)).collect();
    assert_eq!(suites[..3], [0x1302, 0x1303, 0x1301]);
    assert!(suites[3..].iter().all(|suite| *suite == 0x00ff), "{suites:x?}");
}

fn refuses_key(hostile: Hostile, why: CertificateError, what: &str) {
    let expected = ChannelError::Misbehaved(Misbehaved::Tls(Error::InvalidCertificate(why)));
    assert_eq!(hostile.dials(), Err(expected.clone()), "{what}");
    assert_eq!(hostile.answers(), Err(expected), "{what}");
}

/// Shakes hands until ours is established or refuses.
fn shake(ours: &mut TlsChannel, mut theirs: Connection) -> Result<(), ChannelError> {
    for _ in 0..4 {
        let bytes = waiting(ours);
        let mut rest = &bytes[..];
        while !rest.is_empty() && theirs.read_tls(&mut rest).is_ok() {
            let _ = theirs.process_new_packets();
        }
        let mut plaintext = Vec::new();
        ours.handle_bytes(&written(&mut theirs), &mut plaintext)?;
        assert!(plaintext.is_empty());
    }
    assert!(ours.established().is_some());
    Ok(())
}

fn written(connection: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

fn spki(key: &[u8; 32]) -> Vec<u8> {
    [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], key].concat()
}

#[derive(Clone, Debug)]
struct Signs {
    well: bool,
}

impl rustls::sign::SigningKey for Signs {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl rustls::sign::Signer for Signs {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut signature = SigningKey::from_bytes(&SECRET).sign(message).to_vec();
        signature[0] ^= u8::from(!self.well);
        Ok(signature)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

#[derive(Debug)]
struct TakesAnything {
    raw: bool,
}

impl ServerCertVerifier for TakesAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!()
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

impl ClientCertVerifier for TakesAnything {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!()
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

#[test]
fn what_comes_after_our_close_notify_is_not_looked_at() {
    let mut pair = Pair::established(Profile::Tls, 0);
    pair.initiator.close(&mut Vec::new());
    let mut bytes = sealed(&mut *pair.responder, b"late");
    // A record that is none.
    bytes.extend([23, 3, 3, 0, 20]);
    bytes.extend([0; 20]);
    assert_eq!(pair.initiator.handle_bytes(&bytes, &mut pair.at_initiator), Ok(()));
    assert!(pair.at_initiator.is_empty() && waiting(&mut *pair.initiator).is_empty());
}
