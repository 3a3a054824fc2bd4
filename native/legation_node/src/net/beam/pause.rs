//! How long to wait before the next attempt.

use std::time::Duration;

use crate::peers::backoff::Backoff;

/// What we wait for is on this machine, or near: attempts cost next to nothing, and it is noticed soon when it is back.
const MIN_MS: u64 = 50;
const MAX_MS: u64 = 5_000;

/// Longer from wait to wait.
#[derive(Debug)]
pub struct Pause(Backoff);

impl Default for Pause {
    fn default() -> Pause {
        Pause(Backoff::new(MIN_MS, MAX_MS))
    }
}

impl Pause {
    /// A connection that has lived for so long was a success.
    pub const PROVEN: Duration = Duration::from_millis(MAX_MS);

    pub async fn wait(&mut self) {
        // Without randomness it is the least; the ceiling grows all the same.
        let random = getrandom::u64().unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(self.0.next(random))).await;
    }
}
