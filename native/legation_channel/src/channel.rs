//! What all channels have in common: carrier bytes in, plaintext out, and a 32-byte binding.
//!
//! ```text
//!   carrier bytes ──► handle_bytes ──► plaintext          seal(plaintext) ──► carrier bytes
//!                          │                                   ▲
//!                          ▼                                   │ only once
//!                    poll_transmit ──► carrier bytes       established() is Some
//! ```
//!
//! A channel owns no socket, reads no clock and, `tls` excepted, draws no randomness: nonces and secrets are arguments.
//! Drive it so: `handle_bytes`, then `poll_transmit`, then look at `established`. Who is at the other end isn't settled
//! here but by the hello, which signs the binding (`protocol.md` 5 and 7).

pub use legation_proto::hello::Role;
pub use legation_proto::UnixMs;

use crate::error::ChannelError;

/// How a channel protects its bytes (`protocol.md` 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Profile {
    Tls = 1,
    Local = 2,
    Plain = 3,
}

/// The number is no profile's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile {0} is unknown")]
pub struct UnknownProfile(pub u8);

impl TryFrom<u8> for Profile {
    type Error = UnknownProfile;

    fn try_from(number: u8) -> Result<Profile, UnknownProfile> {
        match number {
            1 => Ok(Profile::Tls),
            2 => Ok(Profile::Local),
            3 => Ok(Profile::Plain),
            other => Err(UnknownProfile(other)),
        }
    }
}

/// What a channel knows when it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Established {
    /// The same at both ends, and at no other channel (`protocol.md` 5.4, 5.7).
    pub binding: [u8; 32],
    /// The key that the peer proved to hold; only on `tls`.
    pub peer_link_key: Option<[u8; 32]>,
    /// The key that we showed; only on `tls`.
    pub own_link_key: Option<[u8; 32]>,
}

/// One end of a channel. After an error it is of no use: the same error comes again, and only
/// [`Channel::poll_transmit`] may still have something to say (an alert).
pub trait Channel: Send {
    fn profile(&self) -> Profile;

    /// Takes carrier bytes, all of them, and appends the plaintext that they complete. What stood whole before an
    /// error has been appended.
    ///
    /// # Errors
    /// [`ChannelError::Malformed`], [`ChannelError::Misbehaved`] and [`ChannelError::Incompatible`]; close the carrier.
    fn handle_bytes(&mut self, input: &[u8], plaintext: &mut Vec<u8>) -> Result<(), ChannelError>;

    /// Appends what waits to go out: handshake bytes, alerts.
    fn poll_transmit(&mut self, out: &mut Vec<u8>);

    /// None as long as the handshake lasts.
    fn established(&self) -> Option<&Established>;

    /// Protects plaintext and appends the result, after whatever waited to go out.
    ///
    /// # Errors
    /// [`ChannelError::ApiMisuse`] before the channel is established and after [`Channel::close`].
    fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), ChannelError>;

    /// Appends a `close_notify` where the profile has one. Nothing can be sealed afterwards, and what comes is not looked at on `tls`.
    fn close(&mut self, out: &mut Vec<u8>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_numbered_as_the_specification_lists_them() {
        for profile in [Profile::Tls, Profile::Local, Profile::Plain] {
            assert_eq!(Profile::try_from(profile as u8), Ok(profile));
        }
        for number in [0, 4, 255] {
            assert_eq!(Profile::try_from(number), Err(UnknownProfile(number)));
        }
    }
}
