//! `legation run`: the daemon.
//!
//! ```text
//!  configurations ─► identities ─► realms, control sockets ─► ready ─► signals, owner's end, reloads ─► drain ─► 0
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{check, log, say, Failure, LogFormat};
use crate::config::{io_words, Config, ConfigError, Limits, Loaded, Source};
use crate::identity::Identity;
use crate::net::control_socket::{AdminError, BoundControlSocket, ControlSocket, Reload};
use crate::realm::Realm;
use crate::shutdown::{systemd, Lifeline, Owner, Signal, Signals};

/// For goodbyes when the owner is gone: the next daemon wants our node's name, and our ports.
const GOODBYE_MS: u64 = 1_000;
/// For a drain that does not keep to its time, and for what comes behind the goodbyes.
const DRAIN_OVER_MS: u64 = 1_000;
const STOP_OVER_MS: u64 = 2_000;

/// Reloads that wait: each is done before the next is looked at.
const RELOADS_MAX: usize = 16;

/// Runs the daemon.
///
/// One configuration is one realm, with a node name of its own; several can run in one process.
///
/// SIGTERM and SIGINT wait for open calls (`limits.shutdown_ms`) and end the daemon, a second one ends it at once.
/// SIGHUP reads the configurations again: peers and exports; the log names what else has changed and takes a restart.
#[derive(Args)]
#[command(after_help = RUN_HELP, verbatim_doc_comment)]
pub struct Run {
    /// The configuration of a realm, several times for several; `-`: standard input, up to a NUL byte or its end
    #[arg(long = "config", short, value_name = "FILE", required = true)]
    configs: Vec<PathBuf>,
    /// Print `legation ready NODE PORT` when ready, and end when standard input ends, as whoever started us has then, or
    /// when a NUL byte comes there
    #[arg(long)]
    supervised: bool,
    /// How logs look on standard error
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

const RUN_HELP: &str = "\
Environment:
  LEGATION_LOG    what is logged: error, warn, info (default), debug, trace, or more precisely
                  `info,legation_node::net=debug`
  ERL_EPMD_PORT   where EPMD is, unless the configuration says
  NOTIFY_SOCKET, WATCHDOG_USEC
                  set by systemd (Type=notify); packaging/legation.service is a unit

Exit codes: 0 after a signal or the owner's end, 1 when it could not start or was interrupted while it waited for open
calls, 2 when the command line or a configuration is wrong.";

impl Run {
    pub fn run(self) -> Result<(), Failure> {
        let style = match (self.log_format, self.supervised) {
            (Some(format), _) => log::Style::from(format),
            (None, true) => log::Style::Supervised,
            (None, false) => log::Style::Text,
        };
        log::start(style)?;
        let result = self.daemon();
        if style == log::Style::Text {
            return result;
        }
        // Whoever reads these logs wants its lines, too, in their form.
        result.map_err(|failure| {
            let text = failure.text().unwrap_or_default();
            text.lines().for_each(|line| tracing::error!("{line}"));
            Failure::Said(failure.code())
        })
    }

    fn daemon(&self) -> Result<(), Failure> {
        if self.supervised && self.configs.len() != 1 {
            return Err(Failure::Usage("--supervised takes one --config: its ready line names one node".to_owned()));
        }
        if self.configs.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
            return Err(Failure::Usage("standard input can be one --config only".to_owned()));
        }
        let loaded = check::load(&self.configs)?;
        let threads = loaded.iter().map(|loaded| loaded.config.threads).max().unwrap_or(1);
        let mut builder = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(threads).enable_all().build().map_err(system("no runtime"))?;
        let sources = self.configs.iter().map(|path| Source::from(path.as_path()));
        let result = runtime.block_on(serve(sources.zip(loaded).collect(), self.supervised));
        // Tasks that are left have nothing to say any more.
        runtime.shutdown_background();
        result
    }
}

fn system(what: &str) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| Failure::Failed(format!("{what}: {}", io_words(&error)))
}

/// Why it stops.
enum End {
    Signal,
    Owner(Owner),
}

async fn serve(realms: Vec<(Source, Loaded)>, supervised: bool) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(system("signals"))?;
    let patience_ms =
        realms.iter().map(|(_, loaded)| owners_patience_ms(Owner::Asks, &loaded.config.limits)).max().unwrap_or(0);
    let watch = || Lifeline::watch(Duration::from_millis(patience_ms));
    let mut lifeline = supervised.then(watch).transpose().map_err(system("lifeline"))?;
    let (reloads, mut reload_requests) = mpsc::channel(RELOADS_MAX);
    let mut daemon = tokio::select! {
        daemon = Daemon::start(realms, reloads) => daemon?,
        _ = stopped(&mut signals, &mut lifeline) => return Ok(()),
    };
    tokio::spawn(systemd::watchdog());
    daemon.announce(supervised);

    let end = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break End::Signal,
                // What went wrong has been logged.
                Signal::Reload => drop(daemon.reload()),
            },
            owner = owner(&mut lifeline) => break End::Owner(owner),
            Some(done) = reload_requests.recv() => {
                // Whoever asked may have gone meanwhile.
                let _ = done.send(daemon.reload());
            }
        }
    };
    let result = match end {
        End::Signal => {
            systemd::stopping(daemon.drain_within());
            tracing::info!("stopping: waiting for open calls");
            tokio::select! {
                () = daemon.drain() => Ok(()),
                again = stopped(&mut signals, &mut lifeline) => match again {
                    End::Signal => Err(Failure::Failed("interrupted while waiting for open calls".to_owned())),
                    End::Owner(_) => Ok(()),
                }
            }
        }
        End::Owner(owner) => {
            match owner {
                Owner::Asks => tracing::info!("stopping: whoever started this daemon asks for it"),
                Owner::Gone => tracing::info!("standard input has ended: whoever started this daemon is gone"),
            }
            daemon.goodbye(|limits| owners_patience_ms(owner, limits)).await;
            Ok(())
        }
    };
    daemon.close().await;
    result
}

/// One realm of this process.
struct Running {
    source: Source,
    /// What is in force.
    config: Config,
    realm: Arc<Realm>,
    control: Option<ControlSocket>,
}

struct Daemon {
    realms: Vec<Running>,
}

impl Daemon {
    async fn start(realms: Vec<(Source, Loaded)>, reloads: mpsc::Sender<Reload>) -> Result<Daemon, Failure> {
        let mut daemon = Daemon { realms: Vec::new() };
        for (source, loaded) in realms {
            for warning in &loaded.warnings {
                tracing::warn!(config = loaded.origin, "{warning}");
            }
            let config = loaded.config;
            let failed = |words: String| Failure::Failed(format!("{}: {words}", config.realm));
            let bind = |path: &PathBuf| {
                let bound = BoundControlSocket::bind(path);
                bound.map_err(|error| failed(format!("{}: {}", path.display(), io_words(&error))))
            };
            let control = config.control_socket.as_ref().map(bind).transpose()?;
            let identity = Identity::load(&config).await.map_err(|error| failed(error.to_string()))?;
            let realm = Realm::start(config.clone(), identity).await.map_err(|error| failed(error.to_string()))?;
            let control = control.map(|bound| bound.serve(&config.limits, realm.admin(), reloads.clone()));
            daemon.realms.push(Running { source, config, realm, control });
        }
        Ok(daemon)
    }

    /// Whoever started us may go on.
    fn announce(&self, supervised: bool) {
        systemd::ready(&self.status());
        for Running { config, realm, .. } in &self.realms {
            tracing::info!(realm = config.realm, node = realm.node_name(), port = realm.node_port(), "ready");
            if supervised {
                say(&format!("legation ready {} {}", realm.node_name(), realm.node_port()));
            }
        }
    }

    fn status(&self) -> String {
        let describe = |Running { config, realm, .. }: &Running| {
            let (peers, node, port) = (config.peers.len(), realm.node_name(), realm.node_port());
            format!("{}: node {node} on port {port}, peers on the list: {peers}", config.realm)
        };
        self.realms.iter().map(describe).collect::<Vec<_>>().join("; ")
    }

    /// Peers and exports anew. A configuration that is wrong changes nothing.
    fn reload(&mut self) -> Result<(), AdminError> {
        systemd::reloading();
        let loaded: Result<Vec<Loaded>, ConfigError> = self.realms.iter().map(|running| running.load()).collect();
        let problems: Vec<String> = match loaded {
            Ok(loaded) => {
                self.realms.iter_mut().zip(loaded).flat_map(|(running, loaded)| running.reload(loaded)).collect()
            }
            Err(error) => error.to_string().lines().map(str::to_owned).collect(),
        };
        problems.iter().for_each(|problem| tracing::error!("not reloaded: {problem}"));
        let result = match problems.is_empty() {
            true => Ok(()),
            false => Err(AdminError::new("config", problems.join("\n"))),
        };
        let failed = if result.is_err() { " (the last reload failed, see the log)" } else { "" };
        systemd::ready(&(self.status() + failed));
        result
    }

    /// The longest that a drain takes.
    fn drain_within(&self) -> Duration {
        let longest =
            |ms: fn(&Limits) -> u64| self.realms.iter().map(|running| ms(&running.config.limits)).max().unwrap_or(0);
        Duration::from_millis(
            longest(|limits| limits.shutdown_ms) + DRAIN_OVER_MS + longest(|limits| limits.goodbye_ms),
        )
    }

    /// Waits for open calls, then says goodbye.
    async fn drain(&self) {
        let drain = |running: &Running| {
            let within = Duration::from_millis(running.config.limits.shutdown_ms);
            let (realm, name) = (running.realm.clone(), running.config.realm.clone());
            async move {
                // It keeps to its time itself; this is for the case that it doesn't.
                let cut = timeout(within + Duration::from_millis(DRAIN_OVER_MS), realm.drain(within)).await;
                let cut = cut.map_or(0, |cut| cut.len());
                if cut > 0 {
                    tracing::warn!(realm = name, calls = cut, "open calls were cut");
                }
            }
        };
        join_all(self.realms.iter().map(drain)).await;
        self.goodbye(|limits| limits.goodbye_ms).await;
    }

    async fn goodbye(&self, within_ms: impl Fn(&Limits) -> u64) {
        let stop = |running: &Running| {
            let (realm, within) = (running.realm.clone(), Duration::from_millis(within_ms(&running.config.limits)));
            // It keeps to its time itself; this is for the case that it doesn't.
            async move { timeout(within + Duration::from_millis(STOP_OVER_MS), realm.stop(within)).await }
        };
        join_all(self.realms.iter().map(stop)).await;
    }

    /// The control sockets are last, so that a stop can be watched.
    async fn close(self) {
        for control in self.realms.into_iter().filter_map(|running| running.control) {
            control.stop().await;
        }
    }
}

impl Running {
    fn load(&self) -> Result<Loaded, ConfigError> {
        match &self.source {
            Source::Stdin => Err(ConfigError::whole("standard input", "has been read, and can't be read again")),
            file => file.load(),
        }
    }

    /// What could not be taken up, in words.
    fn reload(&mut self, loaded: Loaded) -> Vec<String> {
        let Loaded { config, warnings, origin, .. } = loaded;
        for warning in warnings {
            tracing::warn!(config = origin, "{warning}");
        }
        let needs_restart = self.config.needs_restart(&config);
        if !needs_restart.is_empty() {
            let changed = needs_restart.join(", ");
            tracing::warn!(config = origin, changed, "takes effect with the next start");
        }
        self.config.peers.clone_from(&config.peers);
        let problems = self.realm.reload(config);
        tracing::info!(realm = self.config.realm, peers = self.config.peers.len(), "reloaded");
        problems.into_iter().map(|problem| format!("{origin}: {problem}")).collect()
    }
}

/// Who asks waits for us as long as it would for its own links.
fn owners_patience_ms(owner: Owner, limits: &Limits) -> u64 {
    match owner {
        // What comes behind the goodbyes is in it, too.
        Owner::Asks => {
            limits.goodbye_ms.min(limits.shutdown_ms.saturating_sub(500).max(GOODBYE_MS.min(limits.shutdown_ms + 500)))
        }
        Owner::Gone => limits.goodbye_ms.min(GOODBYE_MS),
    }
}

/// Until it is to stop. A SIGHUP at such a time comes too early or too late.
async fn stopped(signals: &mut Signals, lifeline: &mut Option<Lifeline>) -> End {
    let stop = async { while signals.next().await != Signal::Stop {} };
    tokio::select! {
        () = stop => End::Signal,
        owner = owner(lifeline) => End::Owner(owner),
    }
}

async fn owner(lifeline: &mut Option<Lifeline>) -> Owner {
    match lifeline {
        Some(lifeline) => lifeline.end().await,
        None => std::future::pending().await,
    }
}
