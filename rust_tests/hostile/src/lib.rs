//! A peer that is written from `docs/protocol.md` alone, on bytes: what it shares with the cores are hash functions, curves and TLS.
//!
//! ```text
//!   channel ─► peer (hello, frames, signatures) ─► link (socket) ─► attacks
//! ```
//!
//! It does a handshake as it should be done, unless it is told otherwise, and then says whatever it likes. It never checks what it is told.
#![forbid(unsafe_code)]

pub mod attacks;
pub mod batch;
pub mod channel;
pub mod frame;
pub mod keys;
pub mod link;
pub mod options;
pub mod peer;
pub mod random;
pub mod term;
