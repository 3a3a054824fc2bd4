//! Fresh randomness, and randomness that comes again for the same seed.

/// # Panics
/// When the operating system has none.
pub fn fresh() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

/// Xorshift: the same frames for the same seed.
pub struct Random(u64);

impl Random {
    pub fn of(seed: u64) -> Random {
        let mut random = Random((seed << 1) | 1);
        // The first numbers of small seeds are alike.
        for _ in 0..20 {
            random.next();
        }
        random
    }

    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    pub fn of_these<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len() as u64) as usize]
    }
}
