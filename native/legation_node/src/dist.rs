//! Erlang distribution without sockets: bytes in, messages out, and back.
//!
//! Knows nothing of Legation and could be a crate of its own. Time, bytes and randomness are arguments.
//!
//! * [`term`]: walks and writes external terms that hold identifiers; bounded, no recursion.
//! * [`control`]: the control messages, both directions.
//! * [`inbound`]: frames out of a stream of bytes, fragments put together, each message once.
//! * [`outbound`]: messages into frames, large ones in fragments that small ones overtake.
//! * [`handshake`]: both sides of the handshake, by `erl_dist`, over a pipe in memory.
//! * [`flags`]: what we offer, and why.
//!
//! # Limitations and assumptions
//! No atom cache; no spawn requests (refused); the compressed and the textual float tags are not accepted.

pub mod control;
pub mod flags;
pub mod handshake;
pub mod inbound;
pub mod outbound;
pub mod term;
