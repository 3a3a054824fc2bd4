//! Sockets, timers and tasks.

pub mod beam;
pub mod epmd;
