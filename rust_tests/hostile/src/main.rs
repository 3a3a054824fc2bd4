//! A peer with real keys that does a handshake properly and then one thing that it shouldn't.
//!
//! ```text
//! hostile (--connect HOST:PORT | --unix PATH) --profile tls|plain|local --key FILE.pem --network FILE|none
//!         --peer ed25519:TEXT --attack NAME
//!         [--engine NAME] [--count N] [--seed N] [--byte N] [--node NAME] [--file PATH]
//! ```
//!
//! It announces engines `e1` and `e2` of its own, attacks, sends a PING and says what became of it, a line each:
//!
//! ```text
//! sent=3                                 messages or frames of the attack
//! replies=0 errors=forbidden:2           answers to its calls
//! bytes_back=812                         carrier bytes that came (of the last connection)
//! link=alive                             or closed:<code>, closed-silently, silent (no PONG), cut
//! ```
//!
//! Attacks that hold something say `ready`, and end when they are written a line, or nobody can write them one any more.
//! `listen-…` say `port=N` and are dialled. It exits with 0 when it could do what it was asked to; what the other side made of it is in
//! those lines. All there is: [`hostile::attacks`].

use std::process::ExitCode;

use hostile::options::Options;

fn main() -> ExitCode {
    match Options::parse().and_then(|options| hostile::attacks::run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("hostile: {message}");
            ExitCode::FAILURE
        }
    }
}
