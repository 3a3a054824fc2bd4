//! `tls`: TLS 1.3 with raw public keys on both sides, and nothing older or other (`protocol.md` 5.2 to 5.4).
//!
//! ```text
//!   handle_bytes ──► read_tls ─► process_new_packets ─► reader ──► plaintext      (a piece at a time)
//!   seal ──► writer ─► write_tls ──► carrier bytes                                (a piece at a time)
//! ```
//!
//! rustls' buffered connection is driven in memory. Any Ed25519 key that passes the strict check and signs the
//! handshake will do here; whose it is, the hello says.

mod link_key;
mod verifier;

use std::io::{BufRead, Write};
use std::sync::Arc;

use rustls::client::{AlwaysResolvesClientRawPublicKeys, ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{aws_lc_rs, CryptoProvider};
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName, UnixTime};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, ServerConfig, ServerConnection};
use rustls::time_provider::TimeProvider;
use rustls::{Connection, HandshakeKind};

pub use link_key::LinkKey;

use crate::channel::{Channel, Established, Profile};
use crate::error::{ApiMisuse, ChannelError, Incompatible, Malformed, Misbehaved};
use verifier::RawKeyVerifier;

/// The only application protocol.
pub const ALPN: &[u8] = b"legation/1";

/// RFC 9266.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Plaintext is handed to rustls in pieces of four full records, so that what it buffers stays in the cache and small.
const SEAL_PIECE_BYTES: usize = 4 * 16_384;

/// The configurations of both roles, made once per link key and shared by all channels.
pub struct TlsContext {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    link_key: [u8; 32],
}

impl TlsContext {
    /// Makes the configurations for a link key.
    ///
    /// # Panics
    /// When the provider doesn't have TLS 1.3, which is settled at build time.
    pub fn new(link_key: &LinkKey) -> Arc<TlsContext> {
        let provider = Arc::new(provider());
        let verifier = Arc::new(RawKeyVerifier::default());
        let certified = link_key.certified();

        let mut client = ClientConfig::builder_with_details(provider.clone(), Arc::new(NoClock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the suites are those of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified.clone())));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.enable_early_data = false;
        client.resumption = Resumption::disabled();

        let mut server = ServerConfig::builder_with_details(provider, Arc::new(NoClock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the suites are those of TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});

        Arc::new(TlsContext { client: Arc::new(client), server: Arc::new(server), link_key: link_key.public() })
    }

    /// The public link key that peers see.
    pub fn link_key(&self) -> &[u8; 32] {
        &self.link_key
    }
}

impl std::fmt::Debug for TlsContext {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TlsContext(..)")
    }
}

/// See the module's documentation.
pub struct TlsChannel {
    connection: Connection,
    own_link_key: [u8; 32],
    established: Option<Established>,
    failure: Option<ChannelError>,
    closed: bool,
}

impl TlsChannel {
    /// The ClientHello waits in [`Channel::poll_transmit`].
    ///
    /// # Errors
    /// [`ChannelError::Internal`] when rustls gets no randomness.
    pub fn initiator(context: Arc<TlsContext>) -> Result<TlsChannel, ChannelError> {
        // Never sent, as SNI is off; rustls wants one.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        let connection = ClientConnection::new(context.client.clone(), nobody)?;
        Ok(TlsChannel::new(connection.into(), &context))
    }

    /// Waits for a ClientHello.
    ///
    /// # Errors
    /// [`ChannelError::Internal`] when rustls gets no randomness.
    pub fn responder(context: Arc<TlsContext>) -> Result<TlsChannel, ChannelError> {
        let connection = ServerConnection::new(context.server.clone())?;
        Ok(TlsChannel::new(connection.into(), &context))
    }

    fn new(mut connection: Connection, context: &TlsContext) -> TlsChannel {
        // No limit inside rustls: `seal` empties its buffer after each piece.
        connection.set_buffer_limit(None);
        TlsChannel { connection, own_link_key: context.link_key, established: None, failure: None, closed: false }
    }

    fn step(&mut self, input: &[u8], plaintext: &mut Vec<u8>) -> Result<(), ChannelError> {
        let mut rest = input;
        while !rest.is_empty() {
            match self.connection.read_tls(&mut rest) {
                // After the peer's close_notify, what follows is to be ignored (RFC 8446 6.1).
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(_) => return Err(Malformed::TlsMessageTooLarge.into()),
            }
            let processed = self.connection.process_new_packets();
            if self.established.is_none() && processed.is_ok() {
                // What rustls would have answered is no longer meant.
                self.check_handshake().inspect_err(|_| self.poll_transmit(&mut Vec::new()))?;
            }
            if self.established.is_some() {
                self.drain(plaintext);
            }
            processed?;
        }
        Ok(())
    }

    /// What rustls' configuration can't demand.
    fn check_handshake(&mut self) -> Result<(), ChannelError> {
        // Resumption is off at both ends, and with one group nobody of ours needs a HelloRetryRequest.
        if self.connection.handshake_kind().is_some_and(|kind| kind != HandshakeKind::Full) {
            return Err(Misbehaved::NotAFullHandshake.into());
        }
        // rustls lets a handshake pass in which the other side doesn't speak of ALPN. A responder knows with the
        // ClientHello, an initiator a little later than the version.
        let complete = !self.connection.is_handshaking();
        let has_hello =
            matches!(self.connection, Connection::Server(_)) && self.connection.protocol_version().is_some();
        if (complete || has_hello) && self.connection.alpn_protocol() != Some(ALPN) {
            return Err(Incompatible::NoApplicationProtocol.into());
        }
        if !complete {
            return Ok(());
        }
        let peer_link_key = match self.connection.peer_certificates() {
            Some([spki]) => verifier::link_key(spki).ok_or(Misbehaved::NoLinkKey)?,
            _ => return Err(Misbehaved::NoLinkKey.into()),
        };
        let binding = self.connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]))?;
        self.established =
            Some(Established { binding, peer_link_key: Some(peer_link_key), own_link_key: Some(self.own_link_key) });
        Ok(())
    }

    fn drain(&mut self, plaintext: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        // An error here says that there is nothing now, or that the peer has closed.
        while let Ok(chunk) = reader.fill_buf() {
            let bytes = chunk.len();
            if bytes == 0 {
                break;
            }
            plaintext.extend_from_slice(chunk);
            reader.consume(bytes);
        }
    }
}

impl Channel for TlsChannel {
    fn profile(&self) -> Profile {
        Profile::Tls
    }

    fn handle_bytes(&mut self, input: &[u8], plaintext: &mut Vec<u8>) -> Result<(), ChannelError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        // rustls doesn't expect to be given anything malformed after its last word, and nobody waits for what comes.
        if self.closed {
            return Ok(());
        }
        self.step(input, plaintext).inspect_err(|error| self.failure = Some(error.clone()))
    }

    fn poll_transmit(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // A Vec takes all there is and never fails.
            if self.connection.write_tls(out).is_err() {
                break;
            }
        }
    }

    fn established(&self) -> Option<&Established> {
        self.established.as_ref()
    }

    fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), ChannelError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.established.is_none() {
            return Err(ApiMisuse::NotEstablished.into());
        }
        if self.closed {
            return Err(ApiMisuse::Closed.into());
        }
        for piece in plaintext.chunks(SEAL_PIECE_BYTES) {
            // It takes all, having no limit; less means that the connection can't send any more.
            if !matches!(self.connection.writer().write(piece), Ok(taken) if taken == piece.len()) {
                return Err(ApiMisuse::Closed.into());
            }
            self.poll_transmit(out);
        }
        Ok(())
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.poll_transmit(out);
        self.closed = true;
    }
}

/// aws-lc-rs, of which only the key exchange and the three cipher suites are used; signatures are dalek's.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

/// rustls asks for the time when it verifies certificates and tickets. We have neither, and read no clock.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::ZERO))
    }
}
