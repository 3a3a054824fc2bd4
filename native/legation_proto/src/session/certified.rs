//! The peer's keys as it has announced them: its engines', and its online key.

use ed25519_dalek::VerifyingKey;

use crate::frame::batch::Batch;
use crate::identity::{check_public_key, verify, NetworkId, Purpose};
use crate::limits::CLOCK_SKEW_MS;
use crate::UnixMs;

/// A key of the peer's, in force from then till then.
pub(crate) struct Certified {
    pub key: AnnouncedKey,
    pub serial: u64,
    pub not_before: UnixMs,
    /// 0: no end.
    pub not_after: UnixMs,
    /// An engine that the realm's online key may sign for, too.
    pub delegate: bool,
    /// As it came, with its signature: goes into receipts.
    pub announcement: Box<[u8]>,
    /// The identity key that signed it.
    pub signer: [u8; 32],
}

/// The check of a key costs as much as a verification, so it waits until the key is first used: of ten thousand engines
/// that are announced at once most never send anything.
pub(crate) enum AnnouncedKey {
    Unchecked([u8; 32]),
    Usable(VerifyingKey),
    Unusable,
}

impl AnnouncedKey {
    pub fn usable(&mut self) -> Option<&VerifyingKey> {
        if let AnnouncedKey::Unchecked(bytes) = self {
            *self = check_public_key(bytes).map_or(AnnouncedKey::Unusable, AnnouncedKey::Usable);
        }
        match self {
            AnnouncedKey::Usable(key) => Some(key),
            _ => None,
        }
    }
}

impl Certified {
    pub fn in_force(&self, now: UnixMs) -> bool {
        valid(self.not_before, self.not_after, now)
    }

    pub fn verifies(&mut self, network: &NetworkId, batch: &Batch<'_>) -> bool {
        let (Some(key), Some(signature)) = (self.key.usable(), batch.signature) else { return false };
        verify(key, Purpose::Batch, network, batch.signed, signature)
    }
}

/// Clocks may differ by [`CLOCK_SKEW_MS`].
pub(crate) fn valid(not_before: UnixMs, not_after: UnixMs, now: UnixMs) -> bool {
    now.saturating_add(CLOCK_SKEW_MS) >= not_before
        && (not_after == 0 || now <= not_after.saturating_add(CLOCK_SKEW_MS))
}
