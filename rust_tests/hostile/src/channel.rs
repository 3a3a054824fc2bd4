//! Knock, answer and channels (`protocol.md` 4, 5): carrier bytes to a stream of plaintext, and back.

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

/// What a responder says in the answer's place (4.6).
#[derive(Clone, Debug, Default)]
pub enum Answer {
    /// The answer.
    #[default]
    Right,
    Nothing,
    /// One made with this key.
    Keyed([u8; 32]),
    /// The right one of the first connection of all, which gets none itself.
    Recorded(Arc<OnceLock<Vec<u8>>>),
    /// What was said to it.
    Reflected,
    /// So many bytes that mean nothing.
    Garbage(usize),
    /// A header that promises so many, and as many as there may be.
    Long(u16),
    /// So many bytes of the right one.
    Cut(usize),
}

/// Bytes that came are given to [`Channel::receive`]; what goes to the carrier waits in `out`.
pub struct Channel {
    pub facts: Option<Facts>,
    pub out: Vec<u8>,
    pub plaintext: Vec<u8>,
    pub answer: Answer,
    /// An initiator's: whatever answers will do.
    pub trusting: bool,
    /// A responder's: bytes that came behind the opening.
    pub behind: usize,
    profile: Profile,
    role: Role,
    network: Network,
    /// A responder's: a knock comes first.
    knocked: bool,
    /// What the initiator has said before there is an answer.
    opening: Vec<u8>,
    /// The answer is through, in or out.
    answered: bool,
    /// A responder's: what goes into the answer.
    held: Vec<u8>,
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
    /// Of who dials, with a knock (4.1) for the realm of this key around the first flight, or without.
    ///
    /// # Errors
    /// What TLS doesn't like.
    pub fn dialling(
        profile: Profile,
        network: &Network,
        knock_at: Option<(&[u8; 32], u64)>,
    ) -> Result<Channel, String> {
        let mut channel = Channel::new(profile, Role::Initiator, *network)?;
        if let Some((peer, now)) = knock_at {
            let flight = std::mem::take(&mut channel.out);
            channel.out = knock(profile, network, peer, now, &flight);
        }
        channel.opening = channel.out.clone();
        Ok(channel)
    }

    /// Of who is dialled. `knocked`: with a knock, which is not looked at.
    ///
    /// # Errors
    /// What TLS doesn't like.
    pub fn dialled(profile: Profile, network: &Network, knocked: bool) -> Result<Channel, String> {
        let mut channel = Channel { knocked, ..Channel::new(profile, Role::Responder, *network)? };
        // Nothing goes before the opening is there.
        channel.held = std::mem::take(&mut channel.out);
        Ok(channel)
    }

    fn new(profile: Profile, role: Role, network: Network) -> Result<Channel, String> {
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
        let mut channel = Channel {
            facts: None,
            out,
            plaintext: Vec::new(),
            answer: Answer::Right,
            trusting: false,
            behind: 0,
            profile,
            role,
            network,
            knocked: false,
            opening: Vec::new(),
            answered: false,
            held: Vec::new(),
            input: Vec::new(),
            kind,
        };
        channel.transmit();
        Ok(channel)
    }

    /// # Errors
    /// What the other side has done wrong, as far as a channel can't go on after it.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.answered {
            self.behind += bytes.len();
            return self.through(bytes);
        }
        self.input.extend_from_slice(bytes);
        let Some((header, flight)) = self.first() else { return Ok(()) };
        let mut first = std::mem::take(&mut self.input);
        let rest = first.split_off(header + flight);
        self.answered = true;
        if self.role == Role::Initiator {
            let flight = first.split_off(header);
            if !self.trusting && first != answer(self.profile, &self.network, &self.opening, &flight)[..header] {
                return Err("the answer is not the one to us".into());
            }
            return self.through(&[flight, rest].concat());
        }
        self.behind = rest.len();
        // What the channel has said, or says to this, goes into the answer.
        let done = self.through(&first[header..]);
        let flight = [std::mem::take(&mut self.held), std::mem::take(&mut self.out)].concat();
        self.opening = first;
        self.out = self.answered_with(&flight);
        done?;
        self.through(&rest)
    }

    /// How much stands before what comes first, and how much that is, once it is all there.
    fn first(&self) -> Option<(usize, usize)> {
        let number = |at: usize| Some([*self.input.get(at)?, *self.input.get(at + 1)?]);
        let (header, flight) = match (self.role, self.knocked, self.profile) {
            (Role::Initiator, ..) => (34, usize::from(u16::from_le_bytes(number(32)?))),
            (Role::Responder, true, _) => (60, usize::from(u16::from_le_bytes(number(58)?))),
            (Role::Responder, false, Profile::Local) => (0, 32),
            (Role::Responder, false, Profile::Plain) => (0, 64),
            (Role::Responder, false, Profile::Tls) => (0, 5 + usize::from(u16::from_be_bytes(number(3)?))),
        };
        (self.input.len() >= header + flight).then_some((header, flight))
    }

    /// What this responder says to its opening.
    fn answered_with(&self, flight: &[u8]) -> Vec<u8> {
        let of = |network: &Network, opening: &[u8]| answer(self.profile, network, opening, flight);
        match &self.answer {
            Answer::Right => of(&self.network, &self.opening),
            Answer::Nothing => Vec::new(),
            Answer::Keyed(key) => of(&Network::of(*key), &self.opening),
            Answer::Recorded(first) => match first.get() {
                Some(recorded) => recorded.clone(),
                None => {
                    let _nobody_else_serves = first.set(of(&self.network, &self.opening));
                    Vec::new()
                }
            },
            Answer::Reflected => self.opening.clone(),
            Answer::Garbage(count) => std::iter::repeat_with(fresh).flatten().take(*count).collect(),
            Answer::Long(length) => [&[7; 32][..], &length.to_le_bytes(), &[7; 4_096]].concat(),
            Answer::Cut(count) => {
                let mut right = of(&self.network, &self.opening);
                right.truncate(*count);
                right
            }
        }
    }

    fn through(&mut self, bytes: &[u8]) -> Result<(), String> {
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

/// 4.6, with the flight.
fn answer(profile: Profile, network: &Network, opening: &[u8], flight: &[u8]) -> Vec<u8> {
    let length = (flight.len() as u16).to_le_bytes();
    let hash = blake3::hash(opening);
    let input = [b"legation/1/answer\0", &[profile as u8][..], hash.as_bytes(), &length, flight].concat();
    let mac = blake3::keyed_hash(&network.key, &input);
    [mac.as_bytes(), &length[..], flight].concat()
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
