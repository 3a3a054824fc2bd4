//! The command line: what there is, and which code a command ends with. One file per command.

mod ask;
mod check;
mod key;
mod log;
mod run;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::json;

use crate::config::ConfigError;

const AFTER_HELP: &str = "\
Examples:
  legation key new alice.pem                        a realm's identity; prints what peers write down
  legation key network net.key                      the key of a network, once for all its realms
  legation check --config alice.toml                what is wrong with it, by line and column
  legation run --config alice.toml                  the daemon
  legation peers --config alice.toml                who is linked with it, and why others are not
  legation status --socket /run/legation/alice.sock --json

Exit codes:
  0  done
  1  failed: the daemon refused, a port is taken, a file can't be written …
  2  the command line or the configuration is wrong
  3  no daemon answers at the control socket";

/// Legation: engines of Erlang systems that don't trust each other, for a BEAM release over Erlang distribution.
///
/// The daemon is a hidden node beside a release. Each engine of another realm is a process of it, with a name that
/// the release calls like any other; what is sent there is signed, carried to the other realm and verified.
#[derive(Parser)]
#[command(name = "legation", version, after_help = AFTER_HELP, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make keys, show public keys, or hold a key for a daemon
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Run the daemon
    Run(run::Run),
    /// Say what is wrong with a configuration, by line and column
    Check(check::Check),
    /// The realm, its node, and how much of everything it has
    Status(Target),
    /// The peers, linked or not, and why not
    Peers(Target),
    /// The engines: ours, and those of peers
    Engines(Target),
    /// The links that are up
    Connections(Target),
    /// What was counted (docs/counters.md)
    Counters(Target),
    /// Dial a peer again, or let it in again, after `disconnect`
    Connect(PeerTarget),
    /// Close the link to a peer, and neither dial it nor let it in until `connect`
    Disconnect(PeerTarget),
    /// Accept a peer's key no more: close its links at once, and let it in no more
    Revoke(PeerTarget),
    /// Listen no more, wait until no call is open, and close all links
    Drain(Drain),
    /// Read the configuration again: peers and exports
    Reload(Target),
}

/// Which daemon.
#[derive(Args)]
struct Target {
    /// The daemon's configuration, which says where its control socket is
    #[arg(long, short, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// The control socket itself. Without either: $LEGATION_SOCKET
    #[arg(long, short, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct PeerTarget {
    /// What we call the peer
    realm: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
struct Drain {
    /// How long to wait for open calls
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    timeout_ms: u32,
    #[command(flatten)]
    target: Target,
}

/// How logs look on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people: time, level, message, key=value
    Text,
    /// One JSON object per line
    Json,
}

/// Why a command did not do what it was to.
#[derive(Debug)]
enum Failure {
    Failed(String),
    /// The command line's or the configuration's fault.
    Usage(String),
    Config(Box<ConfigError>),
    Unreachable(String),
    /// What there is to say has been said; the code is this.
    Said(u8),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) | Failure::Config(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Said(code) => *code,
        }
    }

    fn text(&self) -> Option<String> {
        match self {
            Failure::Failed(text) | Failure::Usage(text) | Failure::Unreachable(text) => Some(text.clone()),
            // File, line and column come first, so that editors find them.
            Failure::Config(error) => Some(error.to_string()),
            Failure::Said(_) => None,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Config(Box::new(error))
    }
}

/// Runs the command of this process' arguments.
pub fn main() -> ExitCode {
    // Wrong arguments end the process here, with code 2.
    let result = match Cli::parse().command {
        Command::Key(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Status(target) => target.show("status", table::status),
        Command::Peers(target) => target.show("peers", table::peers),
        Command::Engines(target) => target.show("engines", table::engines),
        Command::Connections(target) => target.show("connections", table::connections),
        Command::Counters(target) => target.show("counters", table::counters),
        Command::Connect(PeerTarget { realm, target }) => {
            target.tell(json!({"op": "connect", "realm": realm}), &format!("{realm}: connecting"))
        }
        Command::Disconnect(PeerTarget { realm, target }) => {
            target.tell(json!({"op": "disconnect", "realm": realm}), &format!("{realm}: disconnected"))
        }
        Command::Revoke(PeerTarget { realm, target }) => {
            target.tell(json!({"op": "revoke", "realm": realm}), &format!("{realm}: revoked"))
        }
        Command::Drain(Drain { timeout_ms, target }) => target.drain(timeout_ms),
        Command::Reload(target) => target.tell(json!({"op": "reload"}), "reloaded"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match failure.text() {
                Some(text) if matches!(failure, Failure::Config(_)) => eprintln!("{text}"),
                Some(text) => eprintln!("legation: {text}"),
                None => {}
            }
            ExitCode::from(failure.code())
        }
    }
}

/// Prints a line to standard output. Whoever closed it doesn't want to hear.
fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
