//! Sockets, timers and tasks.

pub mod beam;
pub mod control_socket;
pub mod epmd;
pub mod private_socket;
