//! The cores without a BEAM, for `scripts/bench`: two processes on a real socket, and two ends in one thread's memory.
//!
//! ```text
//! legation_bench serve tls|local ADDRESS     READY ADDRESS, then answers whoever dials. ADDRESS: HOST:PORT or a path
//! legation_bench client tls|local ADDRESS    READY, then loads from standard input, one a line:
//!     call BYTES CALLERS MILLISECONDS
//!     cast BYTES SENDERS ENGINES MILLISECONDS
//! legation_bench handshakes MILLISECONDS     whole handshakes, both ends in one thread, of old acquaintances and of strangers
//! legation_bench stages BYTES BATCH          nanoseconds that each stage takes for one message of a batch
//! legation_bench wire BYTES BATCH            bytes that go for a batch beyond its payloads
//! ```
//!
//! Every answer is one line: RESULT, then names and values in turn. Programs end with their standard input.

mod client;
mod end;
mod memory;
mod server;
mod socket;
mod stages;

use std::error::Error;
use std::process::ExitCode;

use legation_channel::channel::Profile;

/// Whatever went wrong, this program can only say so and end.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("legation_bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Outcome<()> {
    match words {
        ["serve", profile, address] => server::run(self::profile(profile)?, address),
        ["client", profile, address] => client::run(self::profile(profile)?, address),
        ["handshakes", millis] => memory::handshakes(millis.parse()?),
        ["stages", bytes, batch] => stages::run(bytes.parse()?, batch.parse()?),
        ["wire", bytes, batch] => memory::wire(bytes.parse()?, batch.parse()?),
        _ => Err("see its source for what it can be asked".into()),
    }
}

fn profile(text: &str) -> Outcome<Profile> {
    match text {
        "tls" => Ok(Profile::Tls),
        "local" => Ok(Profile::Local),
        _ => Err(format!("{text} is neither tls nor local").into()),
    }
}

/// Says it in the form that the benchmark reads.
pub fn result(figures: &[(&str, f64)]) {
    let words: Vec<String> = figures.iter().map(|(name, value)| format!(" {name} {value:.3}")).collect();
    println!("RESULT{}", words.concat());
}
