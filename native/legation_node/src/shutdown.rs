//! When the daemon is to stop or to read its configuration again: signals, the end of its owner, and what systemd is told.

use std::io::Read;
use std::time::Duration;

use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::oneshot;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals of this process, which from now on do nothing by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// When the operating system doesn't let us.
    pub fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    ///
    /// # Cancel safety
    /// None is lost. Two of a kind that come at once may be one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

/// What is left after the owner's end before the process ends whatever is under way.
const AFTER_OWNER_MS: u64 = 2_000;

/// What the owner wants, who started us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It said so, by a NUL byte: it lives, and waits for our end.
    Asks,
    /// It is gone, and with it the other end of our standard input.
    Gone,
}

/// Whoever started us holds the other end of our standard input as long as it lives.
#[derive(Debug)]
pub struct Lifeline(oneshot::Receiver<Owner>);

impl Lifeline {
    /// Watches from a thread of its own: it ends the process even when nothing else turns any more. `patience`: of an owner that asks, beyond
    /// what one has that is gone.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn watch(patience: Duration) -> std::io::Result<Lifeline> {
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name("lifeline".to_owned()).spawn(move || {
            let mut piece = [0; 256];
            let mut input = std::io::stdin().lock();
            let owner = loop {
                match input.read(&mut piece) {
                    Ok(bytes @ 1..) if piece[..bytes].contains(&0) => break Owner::Asks,
                    // What else is said there is of no interest.
                    Ok(1..) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => break Owner::Gone,
                }
            };
            // Nobody waits for it any more when we are stopping already.
            let _ = ended.send(owner);
            let patience = if owner == Owner::Asks { patience } else { Duration::ZERO };
            std::thread::sleep(patience + Duration::from_millis(AFTER_OWNER_MS));
            std::process::exit(0);
        })?;
        Ok(Lifeline(end))
    }

    /// Until the owner wants us to end, or is gone.
    ///
    /// # Cancel safety
    /// Can be waited for again, until it has happened.
    pub async fn end(&mut self) -> Owner {
        // The thread never drops its end without a word.
        (&mut self.0).await.unwrap_or(Owner::Gone)
    }
}

/// What a service manager is told; nothing where there is none.
pub mod systemd {
    use std::time::Duration;

    use sd_notify::{notify, NotifyState};

    pub fn ready(status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// `ready` has to follow.
    pub fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }

    /// It may take so long.
    pub fn stopping(within: Duration) {
        let usec = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(usec)]);
    }

    /// Says that we live, as often as the manager wants; for ever. Ends at once if it doesn't want to hear it.
    pub async fn watchdog() {
        let mut usec = 0;
        if !sd_notify::watchdog_enabled(false, &mut usec) || usec == 0 {
            return;
        }
        // Twice as often, as sd_watchdog_enabled(3) recommends.
        let mut often = tokio::time::interval(Duration::from_micros((usec / 2).max(1)));
        loop {
            often.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    }

    fn tell(state: &[NotifyState<'_>]) {
        if let Err(error) = notify(false, state) {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}
