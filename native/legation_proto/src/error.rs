//! What can go wrong on a link, by who is at fault; and what the peer is told about it.

use thiserror::Error;

use crate::heads::HeadError;
use crate::limits::ROTATIONS_MAX;
use crate::rotation::ChainError;

/// Bytes that no honest peer sends. The link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidFrame {
    #[error("{0} is cut short")]
    Missing(&'static str),
    #[error("bytes are left after {0}")]
    Trailing(&'static str),
    #[error("{0} has a value that is not allowed")]
    Value(&'static str),
    #[error("{what} is {bytes} bytes, the limit is {limit}")]
    TooLarge { what: &'static str, bytes: u64, limit: u64 },
}

/// Well-formed bytes that break a rule. The link is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    #[error("frame type {0:#04x} is unknown and critical")]
    UnknownCriticalFrame(u8),
    #[error("frame type {0:#04x} is out of place")]
    UnexpectedFrame(u8),
    #[error("the batch begins at {got}, {expected} was next")]
    SequenceGap { expected: u64, got: u64 },
    #[error("acknowledged {got}, only {sent} were sent")]
    AckBeyondSent { sent: u64, got: u64 },
    #[error("dropped more copies of the handle {number} than were sent")]
    DroppedBeyondSent { number: u64 },
    #[error("a batch names other realms than the session's")]
    ForeignBatch,
    #[error("{failures} frames that failed verification within the window")]
    TooManyFailures { failures: u32 },
    #[error("more payloads in fragments at a time than there may be")]
    TooManyTransfers,
    #[error("a RESUME names another session")]
    ForeignResume,
    #[error("what was delivered on trust is not proven: {0}")]
    Unproven(&'static str),
    #[error("silent for {silent_ms} ms")]
    Silent { silent_ms: u64 },
}

/// Why a hello was refused, by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HelloRefused {
    #[error("versions {min} to {max} are offered, ours are {own_min} to {own_max}")]
    Version { min: u16, max: u16, own_min: u16, own_max: u16 },
    #[error("the realm is not on the allow-list")]
    Unlisted,
    #[error("the hello is for, or from, another realm")]
    WrongRealm,
    #[error("the hello was made for another channel")]
    WrongChannel,
    #[error("a signature of the hello fails")]
    BadSignature,
    #[error("the identity key can't be used")]
    BadKey,
    #[error("the link key's certificate has expired")]
    Expired,
    #[error("a rotation of the identity key is not in force yet")]
    NotYet,
    #[error("the identity key was replaced by a newer one")]
    StaleKey,
    #[error("the identity key comes from another rotation than was seen before: one of the two is a thief's")]
    Forked,
    #[error("the realm's key was revoked")]
    Revoked,
    #[error("the hello did not come in time")]
    TimedOut,
    #[error("there is a link already")]
    Duplicate,
    #[error("a bound is reached")]
    Overload,
}

/// Whatever ends a link from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkError {
    #[error(transparent)]
    Invalid(#[from] InvalidFrame),
    #[error(transparent)]
    Misbehaved(#[from] PeerMisbehaved),
    #[error(transparent)]
    Refused(#[from] HelloRefused),
}

/// What a peer is told when a link is closed (`protocol.md` 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    Normal = 0,
    Protocol = 1,
    Version = 2,
    Unlisted = 3,
    WrongRealm = 4,
    BadSignature = 5,
    Expired = 6,
    Duplicate = 7,
    Timeout = 8,
    Abuse = 9,
    UnknownFrame = 10,
    TooLarge = 11,
    Shutdown = 12,
    Overload = 13,
    Replaced = 14,
    Revoked = 15,
    StaleKey = 16,
    Unproven = 17,
}

impl CloseCode {
    pub const ALL: [CloseCode; 18] = [
        CloseCode::Normal,
        CloseCode::Protocol,
        CloseCode::Version,
        CloseCode::Unlisted,
        CloseCode::WrongRealm,
        CloseCode::BadSignature,
        CloseCode::Expired,
        CloseCode::Duplicate,
        CloseCode::Timeout,
        CloseCode::Abuse,
        CloseCode::UnknownFrame,
        CloseCode::TooLarge,
        CloseCode::Shutdown,
        CloseCode::Overload,
        CloseCode::Replaced,
        CloseCode::Revoked,
        CloseCode::StaleKey,
        CloseCode::Unproven,
    ];

    /// Unknown numbers are treated as [`CloseCode::Protocol`].
    pub fn from_wire(code: u16) -> CloseCode {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(CloseCode::Protocol)
    }

    /// Whether the session outlives a link that is closed with this: only the link has ended, and another may take over.
    pub fn keeps_session(self) -> bool {
        matches!(self, CloseCode::Duplicate | CloseCode::Replaced | CloseCode::Timeout)
    }

    pub fn name(self) -> &'static str {
        match self {
            CloseCode::Normal => "normal",
            CloseCode::Protocol => "protocol",
            CloseCode::Version => "version",
            CloseCode::Unlisted => "unlisted",
            CloseCode::WrongRealm => "wrong_realm",
            CloseCode::BadSignature => "bad_signature",
            CloseCode::Expired => "expired",
            CloseCode::Duplicate => "duplicate",
            CloseCode::Timeout => "timeout",
            CloseCode::Abuse => "abuse",
            CloseCode::UnknownFrame => "unknown_frame",
            CloseCode::TooLarge => "too_large",
            CloseCode::Shutdown => "shutdown",
            CloseCode::Overload => "overload",
            CloseCode::Replaced => "replaced",
            CloseCode::Revoked => "revoked",
            CloseCode::StaleKey => "stale_key",
            CloseCode::Unproven => "unproven",
        }
    }

    pub fn from_name(name: &str) -> Option<CloseCode> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

/// The one place that decides what a peer is told.
impl From<&LinkError> for CloseCode {
    fn from(error: &LinkError) -> CloseCode {
        match error {
            LinkError::Invalid(InvalidFrame::TooLarge { .. }) => CloseCode::TooLarge,
            LinkError::Invalid(_) => CloseCode::Protocol,
            LinkError::Misbehaved(PeerMisbehaved::UnknownCriticalFrame(_)) => CloseCode::UnknownFrame,
            LinkError::Misbehaved(PeerMisbehaved::TooManyFailures { .. }) => CloseCode::Abuse,
            LinkError::Misbehaved(PeerMisbehaved::Silent { .. }) => CloseCode::Timeout,
            LinkError::Misbehaved(PeerMisbehaved::Unproven(_)) => CloseCode::Unproven,
            LinkError::Misbehaved(_) => CloseCode::Protocol,
            LinkError::Refused(refused) => match refused {
                HelloRefused::Version { .. } => CloseCode::Version,
                HelloRefused::Unlisted => CloseCode::Unlisted,
                HelloRefused::WrongRealm => CloseCode::WrongRealm,
                HelloRefused::WrongChannel => CloseCode::Protocol,
                HelloRefused::BadSignature | HelloRefused::BadKey => CloseCode::BadSignature,
                HelloRefused::Expired | HelloRefused::NotYet => CloseCode::Expired,
                HelloRefused::StaleKey | HelloRefused::Forked => CloseCode::StaleKey,
                HelloRefused::Revoked => CloseCode::Revoked,
                HelloRefused::TimedOut => CloseCode::Timeout,
                HelloRefused::Duplicate => CloseCode::Duplicate,
                HelloRefused::Overload => CloseCode::Overload,
            },
        }
    }
}

impl From<ChainError> for LinkError {
    fn from(error: ChainError) -> LinkError {
        match error {
            ChainError::OtherRealm => HelloRefused::WrongRealm.into(),
            ChainError::Broken => InvalidFrame::Value("rotations").into(),
            ChainError::TooLong => {
                let limit = ROTATIONS_MAX as u64;
                InvalidFrame::TooLarge { what: "rotations", bytes: limit + 1, limit }.into()
            }
            ChainError::NotYet => HelloRefused::NotYet.into(),
            ChainError::BadKey => HelloRefused::BadKey.into(),
            ChainError::BadSignature => HelloRefused::BadSignature.into(),
        }
    }
}

impl From<HeadError> for LinkError {
    fn from(error: HeadError) -> LinkError {
        match error {
            HeadError::Stale => HelloRefused::StaleKey.into(),
            HeadError::Forked => HelloRefused::Forked.into(),
            HeadError::Revoked => HelloRefused::Revoked.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_are_numbered_as_the_specification_lists_them() {
        for (number, code) in CloseCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
            assert_eq!(CloseCode::from_wire(number as u16), code);
            assert_eq!(CloseCode::from_name(code.name()), Some(code));
        }
        assert_eq!(CloseCode::from_wire(18), CloseCode::Protocol);
    }
}
