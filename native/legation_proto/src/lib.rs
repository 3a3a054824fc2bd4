//! The sans-IO core of Legation: identities, terms, frames, the hello, the session, receipts.
//!
//! Nothing here reads a clock, opens a socket or draws randomness. Time (Unix milliseconds), bytes and random numbers
//! come in as arguments; bytes, timers and events come out. The NIF, the daemon, the simulator and the fuzzers drive
//! the very same code.
//!
//! ```text
//!           push(src, dst, kind, term bytes)                  handle_bytes(now, bytes)
//!  proxies ────────────────► Queue ─┐            ┌─ Inbound: parse, verify, dedup ◄──────── channel
//!                                   ▼            ▼
//!                Outbound::flush(now): batch, sign        Event: deliver, reply, learn, forget, ...
//!                                   └──────────► channel
//! ```
//!
//! The wire is specified in `docs/protocol.md`; comments cite its paragraphs.
#![forbid(unsafe_code)]

pub mod acquaintances;
pub mod certificate;
pub mod codec;
pub mod error;
pub mod etf;
pub mod frame;
pub mod heads;
pub mod hello;
pub mod identity;
pub mod key_file;
pub mod key_text;
pub mod keyring;
pub mod limits;
pub mod private_key;
pub mod receipt;
mod recent;
pub mod rotation;
pub mod session;
pub mod signing;
pub mod sync;

/// Milliseconds since 1970-01-01 UTC. Always an argument, never read from a clock in this crate.
pub type UnixMs = u64;
