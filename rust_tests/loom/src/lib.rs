//! What threads share in the daemon, compiled against `loom`'s locks and atomics: a model runs once for every order in which its
//! threads may take them and for every value that an atomic may be seen to have.
//!
//! It is the daemon's own file. Of what it is made of only [`sync::Notify`] is written anew: tokio's is not made of `loom`'s.
#![forbid(unsafe_code)]

#[cfg(test)]
#[path = "../../../native/legation_node/src/net/beam/hand_over.rs"]
mod hand_over;
#[cfg(test)]
mod sync;

#[cfg(test)]
mod tests;
