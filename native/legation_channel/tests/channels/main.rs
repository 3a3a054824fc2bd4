//! The channels and the knock, as a peer, a network and an enemy see them.

mod arbitrary_bytes;
mod handshake;
mod hostile_tls;
mod knock;
mod pair;
mod plain;
mod tampering;
mod throughput;
