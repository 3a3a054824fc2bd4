//! How long to wait before the next dial.
//!
//! Random between a minimum and a ceiling that doubles from failure to failure up to a maximum. Random all the way from
//! the bottom ("full jitter"): many that lost one peer at once don't come back at once.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    min_ms: u64,
    max_ms: u64,
    ceiling_ms: u64,
}

impl Backoff {
    /// A maximum below the minimum is the minimum.
    pub fn new(min_ms: u64, max_ms: u64) -> Backoff {
        let mut backoff = Backoff { min_ms, max_ms: max_ms.max(min_ms), ceiling_ms: min_ms };
        backoff.reset();
        backoff
    }

    /// The next delay. `random` is any number.
    pub fn next(&mut self, random: u64) -> u64 {
        let span = (self.ceiling_ms - self.min_ms).saturating_add(1);
        self.ceiling_ms = self.ceiling_ms.saturating_mul(2).min(self.max_ms);
        self.min_ms + random % span
    }

    /// After a success. The first ceiling is already twice the minimum, or the first delay would not be random.
    pub fn reset(&mut self) {
        self.ceiling_ms = self.min_ms.saturating_mul(2).min(self.max_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A random number that gives the ceiling.
    fn highest(backoff: &Backoff) -> u64 {
        backoff.ceiling_ms - backoff.min_ms
    }

    fn ceilings(backoff: &mut Backoff, count: usize) -> Vec<u64> {
        (0..count).map(|_| backoff.next(highest(backoff))).collect()
    }

    #[test]
    fn the_ceiling_doubles_from_failure_to_failure_up_to_the_maximum() {
        assert_eq!(ceilings(&mut Backoff::new(50, 1_000), 7), [100, 200, 400, 800, 1_000, 1_000, 1_000]);
    }

    #[test]
    fn a_delay_may_be_as_short_as_the_minimum_however_often_it_failed() {
        let mut backoff = Backoff::new(50, 1_000);
        assert!((0..7).all(|_| backoff.next(0) == 50));
    }

    #[test]
    fn success_starts_it_over() {
        let mut backoff = Backoff::new(50, 30_000);
        ceilings(&mut backoff, 5);
        backoff.reset();
        assert_eq!(ceilings(&mut backoff, 1), [100]);
    }

    #[test]
    fn a_minimum_that_is_the_maximum_is_the_delay() {
        for max in [10, 5] {
            let mut backoff = Backoff::new(10, max);
            assert_eq!([7, 8, 9].map(|random| backoff.next(random)), [10, 10, 10]);
        }
    }

    #[test]
    fn the_largest_settings_do_not_overflow() {
        let mut backoff = Backoff::new(0, u64::MAX);
        for _ in 0..200 {
            backoff.next(u64::MAX);
        }
        let mut backoff = Backoff::new(u64::MAX, u64::MAX);
        assert_eq!(backoff.next(7), u64::MAX);
    }
}
