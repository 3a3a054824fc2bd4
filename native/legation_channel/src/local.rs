//! `local`: for carriers whose other end the operating system vouches for (`protocol.md` 5.5).
//!
//! ```text
//!   initiator ── nonce (32) ──► responder
//!   initiator ◄── nonce (32) ── responder      then frames as they are, both ways
//! ```
//!
//! Nothing is encrypted and nothing is authenticated here. The nonces serve to give each channel a binding of its own.

use crate::channel::{Channel, Established, Profile, Role};
use crate::error::{ApiMisuse, ChannelError};

const NONCE_BYTES: usize = 32;

/// See the module's documentation.
pub struct LocalChannel {
    role: Role,
    nonce: [u8; NONCE_BYTES],
    /// As much of the peer's nonce as has come.
    peer_nonce: Vec<u8>,
    nonce_pending: bool,
    established: Option<Established>,
    closed: bool,
}

impl LocalChannel {
    /// `nonce` is fresh randomness.
    pub fn initiator(nonce: [u8; 32]) -> LocalChannel {
        LocalChannel::new(Role::Initiator, nonce)
    }

    /// `nonce` is fresh randomness.
    pub fn responder(nonce: [u8; 32]) -> LocalChannel {
        LocalChannel::new(Role::Responder, nonce)
    }

    fn new(role: Role, nonce: [u8; 32]) -> LocalChannel {
        LocalChannel {
            role,
            nonce,
            peer_nonce: Vec::new(),
            nonce_pending: role == Role::Initiator,
            established: None,
            closed: false,
        }
    }
}

impl Channel for LocalChannel {
    fn profile(&self) -> Profile {
        Profile::Local
    }

    fn handle_bytes(&mut self, input: &[u8], plaintext: &mut Vec<u8>) -> Result<(), ChannelError> {
        let mut rest = input;
        if self.established.is_none() {
            let (nonce, after) = rest.split_at(rest.len().min(NONCE_BYTES - self.peer_nonce.len()));
            self.peer_nonce.extend_from_slice(nonce);
            rest = after;
            let Ok(peer_nonce) = <[u8; NONCE_BYTES]>::try_from(self.peer_nonce.as_slice()) else {
                return Ok(());
            };
            let (initiator, responder) = match self.role {
                Role::Initiator => (&self.nonce, &peer_nonce),
                Role::Responder => (&peer_nonce, &self.nonce),
            };
            let none = [0; 32];
            self.established = Some(Established {
                binding: binding(Profile::Local, initiator, responder, &none, &none),
                peer_link_key: None,
                own_link_key: None,
            });
            self.nonce_pending |= self.role == Role::Responder;
        }
        plaintext.extend_from_slice(rest);
        Ok(())
    }

    fn poll_transmit(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.nonce_pending) {
            out.extend_from_slice(&self.nonce);
        }
    }

    fn established(&self) -> Option<&Established> {
        self.established.as_ref()
    }

    fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), ChannelError> {
        if self.established.is_none() {
            return Err(ApiMisuse::NotEstablished.into());
        }
        if self.closed {
            return Err(ApiMisuse::Closed.into());
        }
        self.poll_transmit(out);
        out.extend_from_slice(plaintext);
        Ok(())
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.poll_transmit(out);
        self.closed = true;
    }
}

/// The binding of the profiles that have no exporter (`protocol.md` 5.7).
pub(crate) fn binding(
    profile: Profile,
    initiator_nonce: &[u8; 32],
    responder_nonce: &[u8; 32],
    initiator_ephemeral: &[u8; 32],
    responder_ephemeral: &[u8; 32],
) -> [u8; 32] {
    let mut input = [0; 129];
    input[0] = profile as u8;
    input[1..33].copy_from_slice(initiator_nonce);
    input[33..65].copy_from_slice(responder_nonce);
    input[65..97].copy_from_slice(initiator_ephemeral);
    input[97..].copy_from_slice(responder_ephemeral);
    *blake3::hash(&input).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binding_is_the_hash_of_profile_and_nonces() {
        let mut initiator = LocalChannel::initiator([1; 32]);
        initiator.handle_bytes(&[2; 32], &mut Vec::new()).unwrap();
        let mut input = vec![2];
        input.extend([1; 32]);
        input.extend([2; 32]);
        input.extend([0; 64]);
        assert_eq!(initiator.established().unwrap().binding, *blake3::hash(&input).as_bytes());
    }
}
