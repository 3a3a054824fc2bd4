//! Going in good order.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use legation_proto::error::CloseCode;
use tokio::time::{timeout_at, Instant};

use super::peer::Peer;
use super::{lock, unix_ms, PeerSession, Peers};
use crate::net::peer_connection::Wanted;

/// A call of ours that was still open when its session was closed by [`Peers::drain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutCall {
    /// The peer that was called, and which of its engines.
    pub realm: Arc<str>,
    pub engine: Box<str>,
    /// What was given to `Session::push_call`.
    pub context: Box<[u8]>,
}

/// After their tasks were aborted connections are gone as soon as the runtime gets to it.
const ABORTED: Duration = Duration::from_millis(1_000);

/// For a link that has used all of its time, to close.
const CLOSING: Duration = Duration::from_millis(250);

impl Peers {
    /// Whether all are left.
    pub(crate) fn is_stopping(&self) -> bool {
        lock(&self.list).stopping
    }

    /// Prepares to stop: listens no more, begins nothing any more, waits until no call is open in either direction, and says
    /// goodbye to each peer. Returns the calls of ours that were still open after `within`. A session that is lost may be taken
    /// up again meanwhile.
    pub async fn drain(self: &Arc<Peers>, within: Duration) -> Vec<CutCall> {
        let deadline = Instant::now() + within;
        self.unlisten_all();
        let sessions: Vec<Arc<PeerSession>> = {
            let mut list = lock(&self.list);
            list.draining = true;
            list.peers.values_mut().filter_map(Peer::drain).collect()
        };
        let cut = join_all(sessions.into_iter().map(|session| self.drain_session(session, deadline))).await;
        cut.into_iter().flatten().collect()
    }

    /// Waits for the last open call, then closes.
    async fn drain_session(&self, session: Arc<PeerSession>, deadline: Instant) -> Vec<CutCall> {
        let mut cut = Vec::new();
        loop {
            let mut activity = pin!(session.activity.notified());
            activity.as_mut().enable();
            if session.has_ended() || !has_open_calls(&session) {
                break;
            }
            if timeout_at(deadline, activity).await.is_err() {
                session.core.sweep(unix_ms(), 0, |_, pending| {
                    let (engine, context) = (pending.destination.clone(), pending.context.clone());
                    cut.push(CutCall { realm: session.realm.clone(), engine, context });
                });
                break;
            }
        }
        self.close_session(&session, CloseCode::Shutdown);
        cut
    }

    /// Says goodbye on every connection and waits until all are gone; those that take longer are aborted. Nobody is dialled
    /// and nobody let in from now on.
    pub async fn shutdown(&self, within: Duration) {
        let sessions: Vec<_> = {
            let mut list = lock(&self.list);
            list.stopping = true;
            list.peers.values_mut().for_each(Peer::cancel_timer);
            list.peers.values().filter_map(Peer::session).cloned().collect()
        };
        self.unlisten_all();
        self.goodbye_ms.fetch_min(u64::try_from(within.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        for session in sessions {
            self.close_session(&session, CloseCode::Shutdown);
        }
        for control in lock(&self.connections).values() {
            control.want(Wanted::Close(CloseCode::Shutdown));
        }
        if self.wait_idle(Instant::now() + within + CLOSING).await {
            return;
        }
        for task in lock(&self.connections).values().filter_map(|control| control.task.get()) {
            task.abort();
        }
        self.wait_idle(Instant::now() + ABORTED).await;
    }

    /// False: there were connections still.
    async fn wait_idle(&self, deadline: Instant) -> bool {
        loop {
            let mut idle = pin!(self.idle.notified());
            idle.as_mut().enable();
            if lock(&self.connections).is_empty() {
                return true;
            }
            if timeout_at(deadline, idle).await.is_err() {
                return false;
            }
        }
    }
}

fn has_open_calls(session: &PeerSession) -> bool {
    let counters = session.core.counters();
    counters.calls_pending.get() > 0 || counters.calls_served.get() > 0
}
