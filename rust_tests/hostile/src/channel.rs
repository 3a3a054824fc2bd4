//! Knock and channels (`protocol.md` 4, 5): carrier bytes to a stream of plaintext, and back.

use std::io::{BufRead, Write};
use std::sync::{Arc, OnceLock};

use curve25519_dalek::montgomery::MontgomeryPoint;
use ed25519_dalek::{Signer as _, SigningKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{aws_lc_rs, CryptoProvider};
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, ServerConfig, ServerConnection};
use rustls::sign::{CertifiedKey, Signer};
use rustls::{Connection, DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm, SignatureScheme};

use crate::keys::{realm_id, Network};
use crate::random::fresh;

/// 5.1
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Tls = 1,
    Local = 2,
    Plain = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Initiator = 1,
    Responder = 2,
}

/// What the hello is bound to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    pub binding: [u8; 32],
    /// Zeros but on `tls`.
    pub link_key: [u8; 32],
}

/// Bytes that came are given to [`Channel::receive`]; what goes to the carrier waits in `out`.
pub struct Channel {
    pub facts: Option<Facts>,
    pub out: Vec<u8>,
    pub plaintext: Vec<u8>,
    input: Vec<u8>,
    kind: Kind,
}

enum Kind {
    Tls(Box<Connection>),
    Local { role: Role, nonce: [u8; 32] },
    Plain { role: Role, nonce: [u8; 32], secret: [u8; 32], directions: Option<[Direction; 2]> },
}

/// A key of 5.9 and how many records have gone.
struct Direction {
    key: [u8; 32],
    counter: u64,
}

impl Channel {
    /// # Errors
    /// What TLS doesn't like.
    pub fn new(profile: Profile, role: Role) -> Result<Channel, String> {
        let nonce = fresh();
        let (kind, out) = match profile {
            Profile::Tls => {
                let mut connection = tls(role).map_err(|error| error.to_string())?;
                connection.set_buffer_limit(None);
                (Kind::Tls(Box::new(connection)), Vec::new())
            }
            Profile::Local => (Kind::Local { role, nonce }, nonce.to_vec()),
            Profile::Plain => {
                let secret = fresh();
                let ephemeral = MontgomeryPoint::mul_base_clamped(secret).to_bytes();
                (Kind::Plain { role, nonce, secret, directions: None }, [nonce, ephemeral].concat())
            }
        };
        let mut channel = Channel { facts: None, out, plaintext: Vec::new(), input: Vec::new(), kind };
        channel.transmit();
        Ok(channel)
    }

    /// Puts a knock (4.1) around the first flight, which waits.
    pub fn knock(&mut self, profile: Profile, network: &Network, peer: &[u8; 32], now: u64) {
        let flight = std::mem::take(&mut self.out);
        self.out = knock(profile, network, peer, now, &flight);
    }

    /// # Errors
    /// What the other side has done wrong, as far as a channel can't go on after it.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.kind {
            Kind::Tls(connection) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    if connection.read_tls(&mut rest).map_err(|error| error.to_string())? == 0 {
                        break;
                    }
                    let processed = connection.process_new_packets();
                    let mut reader = connection.reader();
                    while let Ok(chunk) = reader.fill_buf() {
                        if chunk.is_empty() {
                            break;
                        }
                        self.plaintext.extend_from_slice(chunk);
                        let taken = chunk.len();
                        reader.consume(taken);
                    }
                    processed.map_err(|error| error.to_string())?;
                }
                if self.facts.is_none() && !connection.is_handshaking() {
                    let binding = connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[]));
                    let binding = binding.map_err(|error| error.to_string())?;
                    self.facts = Some(Facts { binding, link_key: link_key().verifying_key().to_bytes() });
                }
                self.transmit();
            }
            Kind::Local { role, nonce } => {
                self.input.extend_from_slice(bytes);
                if self.facts.is_none() && self.input.len() >= 32 {
                    let theirs: [u8; 32] = self.input[..32].try_into().expect("32 bytes");
                    self.input.drain(..32);
                    let binding = binding(Profile::Local, *role, (nonce, &[0; 32]), (&theirs, &[0; 32]));
                    self.facts = Some(Facts { binding, link_key: [0; 32] });
                }
                if self.facts.is_some() {
                    self.plaintext.append(&mut self.input);
                }
            }
            Kind::Plain { role, nonce, secret, directions } => {
                self.input.extend_from_slice(bytes);
                if directions.is_none() && self.input.len() >= 64 {
                    let theirs: [u8; 32] = self.input[..32].try_into().expect("32 bytes");
                    let ephemeral: [u8; 32] = self.input[32..64].try_into().expect("32 bytes");
                    self.input.drain(..64);
                    let own = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
                    let shared = MontgomeryPoint(ephemeral).mul_clamped(*secret).to_bytes();
                    let binding = binding(Profile::Plain, *role, (nonce, &own), (&theirs, &ephemeral));
                    let key = |role| {
                        let context = match role {
                            Role::Initiator => "legation/1/plain initiator",
                            Role::Responder => "legation/1/plain responder",
                        };
                        Direction { key: blake3::derive_key(context, &[shared, binding].concat()), counter: 0 }
                    };
                    let other = if *role == Role::Initiator { Role::Responder } else { Role::Initiator };
                    *directions = Some([key(*role), key(other)]);
                    self.facts = Some(Facts { binding, link_key: [0; 32] });
                }
                while let (Some(_), Some((head, rest))) = (&directions, self.input.split_first_chunk::<4>()) {
                    let length = u32::from_le_bytes(*head) as usize;
                    let Some(content) = rest.get(..length).filter(|_| rest.len() >= length + 32) else { break };
                    self.plaintext.extend_from_slice(content);
                    self.input.drain(..length + 36);
                }
            }
        }
        Ok(())
    }

    fn transmit(&mut self) {
        if let Kind::Tls(connection) = &mut self.kind {
            while connection.wants_write() && connection.write_tls(&mut self.out).is_ok() {}
        }
    }

    /// In as few records as there may be.
    pub fn seal(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(16_384) {
            self.record(piece);
        }
    }

    /// In one record of its own, before the channel stands in none.
    pub fn record(&mut self, content: &[u8]) {
        match &mut self.kind {
            Kind::Tls(connection) => {
                // It takes all, as it has no limit.
                let _taken = connection.writer().write(content);
                self.transmit();
            }
            Kind::Plain { directions: Some([own, _]), .. } => {
                let length = (content.len() as u32).to_le_bytes();
                let mac = blake3::keyed_hash(&own.key, &[&own.counter.to_le_bytes()[..], &length, content].concat());
                own.counter += 1;
                self.out.extend_from_slice(&length);
                self.out.extend_from_slice(content);
                self.out.extend_from_slice(mac.as_bytes());
            }
            Kind::Plain { directions: None, .. } | Kind::Local { .. } => self.out.extend_from_slice(content),
        }
    }
}

/// 4.1, 4.2
pub fn knock(profile: Profile, network: &Network, peer: &[u8; 32], now: u64, flight: &[u8]) -> Vec<u8> {
    let random = &fresh()[..16];
    let length = (flight.len() as u16).to_le_bytes();
    let time = now.to_le_bytes();
    let input = [b"legation/1/knock\0", &[profile as u8][..], &time, random, &realm_id(peer), &length, flight].concat();
    let mac = blake3::keyed_hash(&network.key, &input);
    [&[1, profile as u8][..], &time, random, mac.as_bytes(), &length, flight].concat()
}

type First<'a> = (&'a [u8; 32], &'a [u8; 32]);

/// 5.7, of nonces and ephemerals.
fn binding(profile: Profile, role: Role, own: First<'_>, theirs: First<'_>) -> [u8; 32] {
    let (initiator, responder) = if role == Role::Initiator { (own, theirs) } else { (theirs, own) };
    let input = [&[profile as u8][..], initiator.0, responder.0, initiator.1, responder.1].concat();
    *blake3::hash(&input).as_bytes()
}

// TLS (5.2): whatever key the other side shows is taken.

fn link_key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::from_bytes(&fresh()))
}

fn spki(key: &[u8; 32]) -> Vec<u8> {
    [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], key].concat()
}

fn tls(role: Role) -> Result<Connection, Error> {
    static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    static SERVER: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    Ok(match role {
        Role::Initiator => {
            let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
            ClientConnection::new(CLIENT.get_or_init(client).clone(), nobody)?.into()
        }
        Role::Responder => ServerConnection::new(SERVER.get_or_init(server).clone())?.into(),
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() })
}

fn certified() -> Arc<CertifiedKey> {
    let certificate = CertificateDer::from(spki(&link_key().verifying_key().to_bytes()));
    Arc::new(CertifiedKey::new(vec![certificate], Arc::new(LinkSigner)))
}

fn client() -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified())));
    config.alpn_protocols = vec![b"legation/1".to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn server() -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_client_cert_verifier(Arc::new(Anybody))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified())));
    config.alpn_protocols = vec![b"legation/1".to_vec()];
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

#[derive(Debug)]
struct LinkSigner;

impl rustls::sign::SigningKey for LinkSigner {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(LinkSigner) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(spki(&link_key().verifying_key().to_bytes())))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for LinkSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(link_key().sign(message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
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
        Ok(HandshakeSignatureValid::assertion())
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
        true
    }
}

impl ClientCertVerifier for Anybody {
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
        Ok(HandshakeSignatureValid::assertion())
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
        true
    }
}
