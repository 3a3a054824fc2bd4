//! How long to wait before the next attempt.

use std::time::Duration;

/// The first wait is at most twice the minimum; attempts that fail by themselves cost next to nothing.
const MIN_MS: u64 = 50;
/// What we wait for is on this machine, or near: it is noticed soon when it is back.
const MAX_MS: u64 = 5_000;

/// Random between a minimum and a ceiling that doubles from wait to wait.
#[derive(Debug)]
pub struct Pause {
    ceiling_ms: u64,
}

impl Default for Pause {
    fn default() -> Pause {
        Pause { ceiling_ms: 2 * MIN_MS }
    }
}

impl Pause {
    /// After so long a life a connection counts as a success.
    pub const PROVEN: Duration = Duration::from_millis(MAX_MS);

    pub async fn wait(&mut self) {
        // Without randomness we wait for as long as we may.
        let random = getrandom::u64().unwrap_or(u64::MAX);
        tokio::time::sleep(self.next(random)).await;
    }

    fn next(&mut self, random: u64) -> Duration {
        let ceiling_ms = self.ceiling_ms;
        self.ceiling_ms = (2 * ceiling_ms).min(MAX_MS);
        Duration::from_millis(MIN_MS + random % (ceiling_ms - MIN_MS + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let mut pause = Pause::default();
        let longest: Vec<_> = (0..8)
            .map(|_| {
                let highest = pause.ceiling_ms - MIN_MS;
                pause.next(highest).as_millis()
            })
            .collect();
        assert_eq!(longest, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    }

    #[test]
    fn a_wait_may_be_as_short_as_the_minimum() {
        let mut pause = Pause::default();
        assert!((0..8).all(|_| pause.next(0).as_millis() == 50));
    }
}
