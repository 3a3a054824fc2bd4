//! The clock and the randomness of the system, for a core that has neither.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970: what the protocol judges by.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// False: the system has none.
#[must_use]
pub fn fill_random(bytes: &mut [u8]) -> bool {
    getrandom::fill(bytes).is_ok()
}

/// For what need not be secret: how long to wait, who has to go.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness no link comes about anyway.
    let _ = fill_random(&mut bytes);
    u64::from_le_bytes(bytes)
}
