//! What has happened lately, in words, and a hash over all of it: the same seed has the same one.

use std::collections::VecDeque;
use std::fmt::Write;

/// Lines that are kept.
const LINES: usize = 400;

#[derive(Debug)]
pub struct Trace {
    lines: VecDeque<String>,
    hash: blake3::Hasher,
    count: u64,
    /// Each line goes to standard error as it comes, too.
    pub loud: bool,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace { lines: VecDeque::new(), hash: blake3::Hasher::new(), count: 0, loud: false }
    }
}

impl Trace {
    pub fn line(&mut self, at_us: u64, what: std::fmt::Arguments<'_>) {
        let mut line = String::with_capacity(96);
        // Writing to a String doesn't fail.
        let _ = write!(line, "{:>6}.{:06} {what}", at_us / 1_000_000, at_us % 1_000_000);
        self.hash.update(line.as_bytes());
        self.count += 1;
        if self.loud {
            eprintln!("{line}");
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Something that is to be the same in each run of a seed, and tells a reader nothing.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    pub fn hash(&self) -> [u8; 32] {
        *self.hash.finalize().as_bytes()
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last lines, the oldest first.
    pub fn last(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}
