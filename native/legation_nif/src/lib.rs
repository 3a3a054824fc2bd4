//! The border between Elixir terms and the core. Nothing here decides anything; `docs/internals.md` lists the functions.
//!
//! Private keys never become terms. Bytes from a peer are scanned by the core before they are decoded, and decoding is
//! safe: it creates no atom. Functions that sign, verify or touch unbounded input run on dirty schedulers; the others
//! append to a queue and are done in about a microsecond.

mod atoms;
mod channel;
mod error;
mod keyring;
mod payload;
mod session;

rustler::init!("Elixir.Legation.Native");
