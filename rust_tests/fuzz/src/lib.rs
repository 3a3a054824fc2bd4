//! What is fuzzed. A target is a function of bytes that panics where something is wrong; `fuzz/` gives it to libFuzzer, and `tests/replay.rs`
//! gives it, without any of that, what fuzzing has collected ([`corpus`]).
//!
//! ```text
//!  seeds (from our own writers) ─┐
//!  fuzz/corpus/*.txt ────────────┼─► Target::run(bytes) ─► nothing, or a panic
//!  fuzz/findings/*.txt ──────────┤
//!  libFuzzer ────────────────────┘
//! ```
//!
//! A target that needs more than bytes (a session, a hello that is signed) reads a script from them with `arbitrary`, so that whatever is
//! changed in it is still framed and signed, and gets past the outer checks.

pub mod corpus;
pub mod differential;
pub mod targets;

use targets::session::Reached;

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    /// In a few words, for the summary.
    pub what: &'static str,
    /// Panics if what it looks at is not as it should be.
    pub run: fn(&[u8]),
    /// To begin with. Made anew each time, so they are never out of date.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longest input that libFuzzer tries.
    pub bytes_max: usize,
}

/// How far an input comes, if it is a script.
pub type HowFar = fn(&[u8]) -> Option<Reached>;

impl Target {
    /// Of one that plays sessions, how far they come.
    pub fn reached(&self) -> Option<HowFar> {
        match self.name {
            "session" => Some(targets::session::reached),
            "resume" => Some(targets::resume::reached),
            _ => None,
        }
    }
}

/// All of them, in the order in which they run. Each has a file of its name in `fuzz/fuzz_targets`.
pub const TARGETS: &[Target] = &[
    targets::terms::TARGET,
    targets::frames::TARGET,
    targets::knock::TARGET,
    targets::answer::TARGET,
    targets::channel::TARGET,
    targets::hello::TARGET,
    targets::session::TARGET,
    targets::resume::TARGET,
    targets::dist_handshake::TARGET,
    targets::dist_stream::TARGET,
    targets::beam::TARGET,
    targets::config::TARGET,
    targets::keys::TARGET,
    targets::control_socket::TARGET,
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
