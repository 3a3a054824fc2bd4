//! Sockets, timers and tasks.

pub mod admission;
pub mod beam;
pub mod carrier;
pub mod control_socket;
pub mod epmd;
pub mod listener;
pub mod peer_connection;
pub mod private_socket;
pub mod tcp;
pub mod unix;
