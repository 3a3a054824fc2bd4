//! The channels of Legation behind one trait, knock and answer, and [`link::Link`], which puts knock, answer, channel, hello and session
//! together. Bytes in, bytes out: no sockets, no clock.
#![forbid(unsafe_code)]

pub mod answer;
pub mod channel;
pub mod error;
pub mod first_flight;
pub mod knock;
pub mod link;
pub mod local;
pub mod plain;
pub mod tls;
mod wire;
