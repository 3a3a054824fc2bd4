//! The border between Elixir terms and the core. Nothing here decides anything; `docs/internals.md` lists the functions.
//!
//! Private keys never become terms. Bytes from a peer are scanned by the core before they are decoded, and decoding is
//! safe: it creates no atom. Functions that sign, verify or touch unbounded input run on dirty schedulers; the others
//! append to a queue and are done in about a microsecond.

mod atoms;
mod channel;
mod error;
mod events;
mod handles;
mod keyring;
mod payload;
mod rotation;
mod session;

/// Which shape the functions and events have. To be raised, here and in `Legation.Native`, whenever one changes: a library
/// built for another version of the Elixir side is then refused when it is loaded.
const BORDER: u32 = 8;

fn load(_env: rustler::Env, border: rustler::Term) -> bool {
    border.decode::<u32>().is_ok_and(|border| border == BORDER)
}

rustler::init!("Elixir.Legation.Native", load = load);
