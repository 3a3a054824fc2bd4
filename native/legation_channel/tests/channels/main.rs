//! The channels, knock and answer, as a peer, a network and an enemy see them.

mod answer;
mod arbitrary_bytes;
mod handshake;
mod hostile_tls;
mod knock;
mod pair;
mod plain;
mod tampering;
mod throughput;
