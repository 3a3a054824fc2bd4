//! What can go wrong in a channel, by who is at fault.

use thiserror::Error;

use crate::channel::Profile;

/// Whatever ends a channel, or kept it from being used.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ChannelError {
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error("the peer misbehaved: {0}")]
    Misbehaved(#[from] Misbehaved),
    #[error("the peer is incompatible: {0}")]
    Incompatible(#[from] Incompatible),
    #[error("wrong use: {0}")]
    ApiMisuse(#[from] ApiMisuse),
    /// Neither the peer nor the caller: TLS failed in ourselves (no randomness from the system, say).
    #[error("internal: {0}")]
    Internal(rustls::Error),
}

/// Bytes that no honest peer sends.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Malformed {
    #[error("tls: {0}")]
    Tls(rustls::Error),
    #[error("a tls message exceeds what is buffered of one")]
    TlsMessageTooLarge,
    #[error("a record is {bytes} bytes, 1 to {limit} are allowed")]
    RecordLength { bytes: u32, limit: u32 },
    #[error("the first flight doesn't have its profile's form")]
    FirstFlight,
}

/// Well-formed bytes that break a rule, or that somebody has tampered with.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Misbehaved {
    #[error("tls: {0}")]
    Tls(rustls::Error),
    #[error("the handshake wasn't a plain full one")]
    NotAFullHandshake,
    #[error("no link key was shown")]
    NoLinkKey,
    #[error("the key exchange gives zero")]
    ZeroSharedSecret,
    #[error("the MAC of record {counter} is wrong")]
    BadMac { counter: u64 },
}

/// An honest mismatch.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Incompatible {
    #[error("tls: {0}")]
    Tls(rustls::Error),
    #[error("the application protocol wasn't agreed on")]
    NoApplicationProtocol,
}

/// The caller's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    #[error("the channel isn't established")]
    NotEstablished,
    #[error("the channel was closed")]
    Closed,
    #[error("profile {0:?} has no knock")]
    NoKnock(Profile),
    #[error("the first flight is {bytes} bytes, 1 to {limit} are allowed")]
    FirstFlightLength { bytes: usize, limit: usize },
    #[error("the first flight doesn't have its profile's form")]
    FirstFlightForm,
}

impl ChannelError {
    /// Whether the fault is the other end's, or of somebody between us.
    pub fn is_peers_fault(&self) -> bool {
        matches!(self, ChannelError::Malformed(_) | ChannelError::Misbehaved(_) | ChannelError::Incompatible(_))
    }
}

/// Folds what rustls says into who is at fault.
impl From<rustls::Error> for ChannelError {
    fn from(error: rustls::Error) -> ChannelError {
        use rustls::Error;
        match error {
            Error::InvalidMessage(_) | Error::PeerSentOversizedRecord => Malformed::Tls(error).into(),
            Error::NoApplicationProtocol => Incompatible::NoApplicationProtocol.into(),
            Error::PeerIncompatible(_) => Incompatible::Tls(error).into(),
            Error::EncryptError
            | Error::General(_)
            | Error::FailedToGetCurrentTime
            | Error::FailedToGetRandomBytes
            | Error::HandshakeNotComplete
            | Error::BadMaxFragmentSize
            | Error::InconsistentKeys(_) => ChannelError::Internal(error),
            _ => Misbehaved::Tls(error).into(),
        }
    }
}
