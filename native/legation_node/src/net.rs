//! Sockets, timers and tasks.

pub mod beam;
