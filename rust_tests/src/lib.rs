//! What the scenarios in `tests/` are made of.
//!
//! * [`pair::Pair`]: two [`legation_channel::link::Link`]s over a simulated carrier, in virtual time.
//! * [`raw_peer::RawPeer`]: a peer with real keys that does the handshake properly and then says whatever a test wants,
//!   [`raw_peer::Versus`]: one of them against a `Link`.
//! * [`another::Another`]: one more link of its session.
//! * [`entry`]: knock and answer, by hand.
//! * [`counted`]: what sessions of realms that keep the rules have to count as nothing.
//! * [`edge_signatures`]: signatures at the edges of Ed25519.
//! * [`vectors`]: what `test/vectors/*.txt` is made of.

pub mod another;
pub mod counted;
pub mod edge_signatures;
pub mod entry;
pub mod pair;
pub mod raw_batch;
pub mod raw_chain;
pub mod raw_peer;
pub mod realm;
pub mod vectors;

pub use hostile::term;
