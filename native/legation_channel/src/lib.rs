//! The channels of Legation behind one trait, the knock, and [`link::Link`], which puts knock, channel, hello and session
//! together. Bytes in, bytes out: no sockets, no clock.
#![forbid(unsafe_code)]

pub mod channel;
pub mod error;
pub mod knock;
pub mod link;
pub mod local;
pub mod plain;
pub mod tls;
