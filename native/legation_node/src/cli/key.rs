//! `legation key`: identities, network keys, and the agent that holds an identity for a daemon.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::Arc;

use clap::{Args, Subcommand};
use legation_proto::key_text::{format_network_key, format_public_key, identity_pem};
use serde_json::json;
use zeroize::Zeroizing;

use super::{log, say, Failure, LogFormat, Target};
use crate::config::{io_words, read_key, read_network_key};
use crate::identity::agent_client::AgentClient;
use crate::identity::agent_server::AgentServer;
use crate::net::private_socket::PrivateSocket;
use crate::shutdown::{systemd, Signal, Signals};

#[derive(Subcommand)]
pub enum KeyCommand {
    /// Make a realm's identity, and print its public key
    ///
    /// An Ed25519 private key in PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` makes it; mode 0600, and never
    /// over a file that is there. What is printed, `ed25519:` and 43 characters, is what a peer writes after `key =`.
    /// It is no secret, but it has to reach the peer unaltered.
    #[command(verbatim_doc_comment)]
    New(File),
    /// Print the public key of an identity
    Show(Show),
    /// Make the key of a network
    ///
    /// 32 random bytes in hexadecimal digits. All realms that talk over tcp hold the same one; a listener doesn't
    /// answer whoever lacks it.
    #[command(verbatim_doc_comment)]
    Network(File),
    /// Replace the key of a running daemon by that of another file; links, sessions and calls stay
    ///
    /// The old key signs that the new one takes its place, and peers are told. They change nothing in their configurations:
    /// they go on knowing the realm by its first key. Afterwards `key =` is to name the new file; `FILE.chain` belongs to it.
    #[command(verbatim_doc_comment)]
    Rotate(Rotate),
    /// End a daemon's realm: peers are told, and let it in no more, whatever its key. There is no way back
    Revoke(Revoke),
    /// Hold an identity, and sign for a daemon that has `agent = "SOCKET"` in its configuration
    ///
    /// The agent signs what the protocol has an identity sign, and nothing else: it is told a purpose and a body, and
    /// builds the signed bytes itself (docs/key-agent.md). It runs until SIGTERM.
    #[command(
        verbatim_doc_comment,
        after_help = "Example:\n  legation key agent --key alice.pem --socket /run/legation-agent/alice.sock"
    )]
    Agent(Agent),
}

#[derive(Args)]
pub struct File {
    path: PathBuf,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Show {
    /// The file of the private key
    #[arg(required_unless_present = "agent")]
    path: Option<PathBuf>,
    /// Ask a key agent instead
    #[arg(long, value_name = "SOCKET", conflicts_with = "path")]
    agent: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Rotate {
    /// The file of the new private key (`legation key new`), for the daemon to read
    #[arg(value_name = "FILE")]
    path: PathBuf,
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub struct Revoke {
    #[command(flatten)]
    target: Target,
}

#[derive(Args)]
pub struct Agent {
    /// The file of the private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The Unix socket to listen on: mode 0600, or 0666 with --uid
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Sign for the network of this key alone; otherwise for whichever is asked for
    #[arg(long, value_name = "FILE")]
    network_key: Option<PathBuf>,
    /// A user that may ask, besides the one that the agent runs as and root; can be given several times
    #[arg(long = "uid", value_name = "UID")]
    uids: Vec<u32>,
    /// Connections at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    connections_max: u32,
    /// How logs look on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl KeyCommand {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            KeyCommand::New(File { path, json }) => new(&path, json),
            KeyCommand::Show(show) => show.run(),
            KeyCommand::Network(File { path, json }) => network(&path, json),
            KeyCommand::Rotate(Rotate { path, target }) => rotate(&path, &target),
            KeyCommand::Revoke(Revoke { target }) => {
                target.tell(json!({"op": "revoke_own_key"}), "the realm's key is revoked")
            }
            KeyCommand::Agent(agent) => agent.run(),
        }
    }
}

fn new(path: &Path, json: bool) -> Result<(), Failure> {
    let (pem, public) = identity_pem(&*random()?).map_err(|error| Failure::Failed(error.to_string()))?;
    write_new(path, pem.as_bytes())?;
    public_key(path, &public, json);
    Ok(())
}

/// The daemon may be in another directory.
fn rotate(path: &Path, target: &Target) -> Result<(), Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::Failed(format!("{}: {}", path.display(), io_words(&error))))?;
    let absolute =
        absolute.to_str().ok_or_else(|| Failure::Usage("expected the path to be text in UTF-8".to_owned()))?;
    target.tell(json!({"op": "rotate_key", "path": absolute}), &format!("the key is now that of {}", path.display()))
}

fn network(path: &Path, json: bool) -> Result<(), Failure> {
    write_new(path, format_network_key(&*random()?).as_bytes())?;
    match json {
        true => say(&json!({"path": path}).to_string()),
        false => say(&format!(
            "{}: give this file to every realm of the network, over a channel that you trust",
            path.display()
        )),
    }
    Ok(())
}

impl Show {
    fn run(self) -> Result<(), Failure> {
        match (self.path, self.agent) {
            (Some(path), _) => {
                let key = read_key(&path, &mut Vec::new()).map_err(Failure::Failed)?;
                public_key(&path, key.keyring.public(), self.json);
            }
            (None, Some(socket)) => {
                let runtime = runtime()?;
                let asked = runtime.block_on(async { AgentClient::start(socket.clone()).public_key().await });
                let key = asked.map_err(|error| Failure::Unreachable(error.to_string()))?;
                public_key(&socket, &key, self.json);
            }
            (None, None) => return Err(Failure::Usage("no key was named".to_owned())),
        }
        Ok(())
    }
}

fn public_key(path: &Path, key: &[u8; 32], json: bool) {
    let text = format_public_key(key);
    match json {
        true => say(&json!({"path": path, "public_key": text}).to_string()),
        false => say(&text),
    }
}

/// Never over a file: an overwritten identity can't be had back.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let words = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "there is a file of that name, and it is not written over".to_owned(),
            _ => io_words(&error),
        };
        Failure::Failed(format!("{}: {words}", path.display()))
    };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a key is none, and would be in the way.
        let _ = std::fs::remove_file(path);
    }
    written.map_err(failed)
}

fn random() -> Result<Zeroizing<[u8; 32]>, Failure> {
    let mut bytes = Zeroizing::new([0; 32]);
    let filled = getrandom::fill(bytes.as_mut_slice());
    filled.map_err(|_| Failure::Failed("the operating system gives no randomness".to_owned()))?;
    Ok(bytes)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Failed(format!("no runtime: {}", io_words(&error))))
}

impl Agent {
    fn run(self) -> Result<(), Failure> {
        log::start(log::Style::from(self.log_format))?;
        let mut warnings = Vec::new();
        let key = read_key(&self.key, &mut warnings).map_err(Failure::Failed)?;
        if !key.keyring.identity().chain().is_empty() {
            let words = "the key has replaced another, and an agent has no way to tell a daemon of that";
            return Err(Failure::Failed(format!("{}: {words}", key.path.display())));
        }
        let keyring = key.keyring;
        let network = self.network_key.as_ref().map(|path| read_network_key(path, &mut warnings)).transpose();
        let network = network.map_err(Failure::Failed)?.map(|key| key.id());
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        let public = format_public_key(keyring.public());
        let connections_max = usize::try_from(self.connections_max).unwrap_or(usize::MAX);
        let server = Arc::new(AgentServer::new(keyring, network, connections_max));
        runtime()?.block_on(async {
            let failed =
                |error: std::io::Error| Failure::Failed(format!("{}: {}", self.socket.display(), io_words(&error)));
            let mut signals = Signals::listen().map_err(failed)?;
            let socket = PrivateSocket::bind(&self.socket, &self.uids).map_err(failed)?;
            say(&format!("legation agent ready {public}"));
            tracing::info!(socket = %self.socket.display(), key = public, "the key agent is ready");
            systemd::ready(&format!("signing as {public}"));
            tokio::select! {
                () = server.clone().serve(&socket) => {}
                () = until_stopped(&mut signals) => {}
            }
            systemd::stopping(std::time::Duration::ZERO);
            let counters = server.counters();
            tracing::info!(
                signed = counters.signed.load(Ordering::Relaxed),
                refused = counters.refused.load(Ordering::Relaxed),
                connections_refused = counters.connections_refused.load(Ordering::Relaxed),
                "the key agent has stopped"
            );
            Ok(())
        })
    }
}

async fn until_stopped(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}
