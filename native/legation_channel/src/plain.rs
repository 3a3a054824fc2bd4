//! `plain`: authenticated, not secret (`protocol.md` 5.6 to 5.9).
//!
//! ```text
//!   initiator ── nonce (32), ephemeral (32) ──► responder
//!   initiator ◄── nonce (32), ephemeral (32) ── responder      then records, both ways:
//!
//!     0 length of content u32 (1 to 65,536)
//!     4 content
//!       mac (32) = keyed_hash(direction key, counter u64 ‖ length ‖ content)
//! ```
//!
//! Against whom the keys are agreed isn't known before the hello, which signs the binding, and with it both ephemerals.

use curve25519_dalek::montgomery::MontgomeryPoint;
use zeroize::{Zeroize, Zeroizing};

use crate::channel::{Channel, Established, Profile, Role};
use crate::error::{ApiMisuse, ChannelError, Malformed, Misbehaved};
use crate::local::binding;

/// Content of one record. What is longer is split.
pub const RECORD_CONTENT_BYTES_MAX: usize = 65_536;

/// Nonce and ephemeral: all of the handshake that one side sends.
pub const FIRST_MESSAGE_BYTES: usize = 64;

const LENGTH_BYTES: usize = 4;
const MAC_BYTES: usize = 32;

/// See the module's documentation.
pub struct PlainChannel {
    state: State,
    /// An unfinished first message or record: at most one, so at most 65,572 bytes.
    partial: Vec<u8>,
    outgoing: Vec<u8>,
    failure: Option<ChannelError>,
    closed: bool,
}

enum State {
    Handshaking(Handshaking),
    Open(Box<Open>),
}

struct Handshaking {
    role: Role,
    nonce: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
}

struct Open {
    established: Established,
    sending: Direction,
    receiving: Direction,
}

/// One direction's key, and how many records have gone.
struct Direction {
    key: Zeroizing<[u8; 32]>,
    counter: u64,
}

impl PlainChannel {
    /// `nonce` and `ephemeral_secret` are fresh randomness, used for this channel alone.
    pub fn initiator(nonce: [u8; 32], ephemeral_secret: [u8; 32]) -> PlainChannel {
        let mut channel = PlainChannel::new(Role::Initiator, nonce, ephemeral_secret);
        if let State::Handshaking(handshaking) = &channel.state {
            channel.outgoing = handshaking.first_message().to_vec();
        }
        channel
    }

    /// `nonce` and `ephemeral_secret` are fresh randomness, used for this channel alone.
    pub fn responder(nonce: [u8; 32], ephemeral_secret: [u8; 32]) -> PlainChannel {
        PlainChannel::new(Role::Responder, nonce, ephemeral_secret)
    }

    fn new(role: Role, nonce: [u8; 32], mut ephemeral_secret: [u8; 32]) -> PlainChannel {
        let secret = Zeroizing::new(ephemeral_secret);
        ephemeral_secret.zeroize();
        PlainChannel {
            state: State::Handshaking(Handshaking { role, nonce, secret }),
            partial: Vec::new(),
            outgoing: Vec::new(),
            failure: None,
            closed: false,
        }
    }

    fn step(&mut self, input: &[u8], plaintext: &mut Vec<u8>) -> Result<(), ChannelError> {
        let mut rest = input;
        if let State::Handshaking(handshaking) = &self.state {
            let Some(message) = complete(&mut self.partial, &mut rest, FIRST_MESSAGE_BYTES) else {
                return Ok(());
            };
            let open = handshaking.finish(message)?;
            if handshaking.role == Role::Responder {
                self.outgoing.extend_from_slice(&handshaking.first_message());
            }
            self.partial.clear();
            self.state = State::Open(Box::new(open));
        }
        if let State::Open(open) = &mut self.state {
            open.receiving.open(&mut self.partial, rest, plaintext)?;
        }
        Ok(())
    }
}

impl Channel for PlainChannel {
    fn profile(&self) -> Profile {
        Profile::Plain
    }

    fn handle_bytes(&mut self, input: &[u8], plaintext: &mut Vec<u8>) -> Result<(), ChannelError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.step(input, plaintext).inspect_err(|error| self.failure = Some(error.clone()))
    }

    fn poll_transmit(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.outgoing);
    }

    fn established(&self) -> Option<&Established> {
        match &self.state {
            State::Handshaking(_) => None,
            State::Open(open) => Some(&open.established),
        }
    }

    fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), ChannelError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let State::Open(open) = &mut self.state else {
            return Err(ApiMisuse::NotEstablished.into());
        };
        if self.closed {
            return Err(ApiMisuse::Closed.into());
        }
        out.append(&mut self.outgoing);
        let records = plaintext.len().div_ceil(RECORD_CONTENT_BYTES_MAX);
        out.reserve(plaintext.len() + records * (LENGTH_BYTES + MAC_BYTES));
        for content in plaintext.chunks(RECORD_CONTENT_BYTES_MAX) {
            open.sending.seal(content, out);
        }
        Ok(())
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.poll_transmit(out);
        self.closed = true;
    }
}

impl Handshaking {
    fn ephemeral(&self) -> [u8; 32] {
        MontgomeryPoint::mul_base_clamped(*self.secret).to_bytes()
    }

    fn first_message(&self) -> [u8; FIRST_MESSAGE_BYTES] {
        let mut message = [0; FIRST_MESSAGE_BYTES];
        message[..32].copy_from_slice(&self.nonce);
        message[32..].copy_from_slice(&self.ephemeral());
        message
    }

    fn finish(&self, message: [u8; FIRST_MESSAGE_BYTES]) -> Result<Open, ChannelError> {
        let (mut peer_nonce, mut peer_ephemeral) = ([0; 32], [0; 32]);
        peer_nonce.copy_from_slice(&message[..32]);
        peer_ephemeral.copy_from_slice(&message[32..]);

        let shared = Zeroizing::new(MontgomeryPoint(peer_ephemeral).mul_clamped(*self.secret));
        // In constant time, as MontgomeryPoint compares.
        if *shared == MontgomeryPoint([0; 32]) {
            return Err(Misbehaved::ZeroSharedSecret.into());
        }
        let own = (&self.nonce, &self.ephemeral());
        let peer = (&peer_nonce, &peer_ephemeral);
        let (initiator, responder) = match self.role {
            Role::Initiator => (own, peer),
            Role::Responder => (peer, own),
        };
        let binding = binding(Profile::Plain, initiator.0, responder.0, initiator.1, responder.1);

        let mut material = Zeroizing::new([0; 64]);
        material[..32].copy_from_slice(shared.as_bytes());
        material[32..].copy_from_slice(&binding);
        let from_initiator = Direction::new("legation/1/plain initiator", &material);
        let from_responder = Direction::new("legation/1/plain responder", &material);
        let (sending, receiving) = match self.role {
            Role::Initiator => (from_initiator, from_responder),
            Role::Responder => (from_responder, from_initiator),
        };
        let established = Established { binding, peer_link_key: None, own_link_key: None };
        Ok(Open { established, sending, receiving })
    }
}

impl Direction {
    fn new(context: &str, material: &[u8; 64]) -> Direction {
        Direction { key: Zeroizing::new(blake3::derive_key(context, material)), counter: 0 }
    }

    fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        // At most RECORD_CONTENT_BYTES_MAX, so it fits.
        out.extend_from_slice(&(content.len() as u32).to_le_bytes());
        out.extend_from_slice(content);
        let mac = self.next_mac(&out[start..]);
        out.extend_from_slice(mac.as_bytes());
    }

    /// Opens every whole record of `partial ‖ input`; the rest stays in `partial`.
    fn open(&mut self, partial: &mut Vec<u8>, input: &[u8], plaintext: &mut Vec<u8>) -> Result<(), ChannelError> {
        let mut rest = input;
        // A record that began in an earlier call.
        while !partial.is_empty() && !rest.is_empty() {
            let Some(length) = record_bytes(partial)? else {
                top_up(partial, &mut rest, LENGTH_BYTES);
                // Refused by its length before more of it is taken.
                record_bytes(partial)?;
                continue;
            };
            top_up(partial, &mut rest, length);
            if partial.len() < length {
                return Ok(());
            }
            self.open_record(partial, plaintext)?;
            partial.clear();
        }
        while let Some(length) = record_bytes(rest)? {
            if rest.len() < length {
                break;
            }
            let (record, after) = rest.split_at(length);
            self.open_record(record, plaintext)?;
            rest = after;
        }
        partial.extend_from_slice(rest);
        Ok(())
    }

    fn open_record(&mut self, record: &[u8], plaintext: &mut Vec<u8>) -> Result<(), ChannelError> {
        let counter = self.counter;
        let (authenticated, mac) = record.split_at(record.len() - MAC_BYTES);
        // blake3::Hash compares in constant time.
        if self.next_mac(authenticated) != *mac {
            return Err(Misbehaved::BadMac { counter }.into());
        }
        plaintext.extend_from_slice(&authenticated[LENGTH_BYTES..]);
        Ok(())
    }

    /// Each record has its number, which is never sent. 2^64 records don't happen.
    fn next_mac(&mut self, length_and_content: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&self.counter.to_le_bytes());
        hasher.update(length_and_content);
        self.counter += 1;
        hasher.finalize()
    }
}

/// The length of the whole record that begins here, None when that can't be told yet.
fn record_bytes(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length);
    if length == 0 || length > RECORD_CONTENT_BYTES_MAX as u32 {
        return Err(Malformed::RecordLength { bytes: length, limit: RECORD_CONTENT_BYTES_MAX as u32 });
    }
    Ok(Some(LENGTH_BYTES + length as usize + MAC_BYTES))
}

/// Moves bytes from `rest` until `partial` holds `bytes`, as far as they go.
fn top_up(partial: &mut Vec<u8>, rest: &mut &[u8], bytes: usize) {
    let (taken, after) = rest.split_at(rest.len().min(bytes.saturating_sub(partial.len())));
    partial.extend_from_slice(taken);
    *rest = after;
}

/// The first `N` bytes of `partial ‖ rest`, once they are there.
fn complete<const N: usize>(partial: &mut Vec<u8>, rest: &mut &[u8], bytes: usize) -> Option<[u8; N]> {
    top_up(partial, rest, bytes);
    <[u8; N]>::try_from(partial.as_slice()).ok()
}
