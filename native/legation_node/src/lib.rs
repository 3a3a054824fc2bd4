//! The daemon `legation`: a hidden node beside a BEAM release, on which every foreign engine is a process with a name.
//!
//! ```text
//!  BEAM nodes ◄── dist (sans-IO) ◄── net::beam ──► realm ◄── peers ◄── net (tcp, unix) ──► other realms
//!                                                    │
//!                                                    └── control engine `legation`, control socket
//! ```
//!
//! | part | owns | never |
//! |---|---|---|
//! | [`dist`] | Erlang distribution: terms, control messages, framing, fragments, handshake | knows of Legation, owns a socket |
//! | [`net`] | sockets, timers, tasks | decides anything about engines |
//! | [`peers`] | who may link with us, which link lives, dialling, back-off | looks into messages |
//! | [`realm`] | processes, names, monitors, engines, policy: what a message means | waits, owns a socket |
//! | [`cli`] | the command line | |
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod dist;
pub mod identity;
pub mod net;
pub mod peers;
pub mod realm;
pub mod shutdown;
