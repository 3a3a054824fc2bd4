//! Sockets, timers and tasks.

pub mod admission;
pub mod beam;
pub mod carrier;
pub mod listener;
pub mod peer_connection;
pub mod tcp;
pub mod unix;
