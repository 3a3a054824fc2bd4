//! A key agent: holds an identity, and signs for who may ask. `legation key agent` runs it.
//!
//! It never signs bytes of somebody's choice: what is signed is built here, from purpose, network and body.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use legation_proto::identity::NetworkId;
use legation_proto::keyring::Keyring;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::agent_protocol::{decode_request, encode_answer, Answer, Frames, Refusal, Request, REQUEST_BYTES_MAX};
use crate::net::private_socket::PrivateSocket;

/// Until there are files again.
const ACCEPT_PAUSE_MS: u64 = 100;

pub struct AgentServer {
    keyring: Keyring,
    /// None: it signs for whichever network it is asked.
    network: Option<NetworkId>,
    connections_max: usize,
    counters: AgentCounters,
}

#[derive(Debug, Default)]
pub struct AgentCounters {
    pub signed: AtomicU64,
    pub refused: AtomicU64,
    /// Closed at once, as there were `connections_max`.
    pub connections_refused: AtomicU64,
}

impl AgentServer {
    pub fn new(keyring: Keyring, network: Option<NetworkId>, connections_max: usize) -> AgentServer {
        AgentServer { keyring, network, connections_max, counters: AgentCounters::default() }
    }

    pub fn counters(&self) -> &AgentCounters {
        &self.counters
    }

    /// Serves until it is dropped.
    pub async fn serve(self: Arc<Self>, socket: &PrivateSocket) {
        let places = Arc::new(Semaphore::new(self.connections_max.min(Semaphore::MAX_PERMITS)));
        let mut connections = JoinSet::new();
        loop {
            let stream = match socket.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let Ok(place) = places.clone().try_acquire_owned() else {
                self.counters.connections_refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(connections_max = self.connections_max, "a connection was closed: there are too many");
                continue;
            };
            let agent = self.clone();
            connections.spawn(async move {
                agent.connection(stream).await;
                drop(place);
            });
        }
    }

    /// Until the other end closes, or talks garbage. Requests are answered in turn, so a client that doesn't read its
    /// answers holds up nobody but itself.
    async fn connection(&self, mut stream: UnixStream) {
        let (mut frames, mut piece, mut out) = (Frames::new(REQUEST_BYTES_MAX), [0; 4_096], Vec::new());
        loop {
            match stream.read(&mut piece).await {
                Ok(bytes) if bytes > 0 => frames.push(&piece[..bytes]),
                _ => return,
            }
            out.clear();
            loop {
                let Ok(frame) = frames.next_frame() else { return };
                let Some(frame) = frame else { break };
                let Ok((id, request)) = decode_request(&frame) else { return };
                encode_answer(id, &self.answer(request), &mut out);
            }
            if stream.write_all(&out).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: Result<Request<'_>, Refusal>) -> Answer {
        let (purpose, network, body) = match request {
            Ok(Request::PublicKey) => return Answer::PublicKey(*self.keyring.public()),
            Ok(Request::Sign { purpose, network, body }) => (purpose, network, body),
            Err(refusal) => return self.refuse(refusal),
        };
        if self.network.is_some_and(|own| own != network) {
            return self.refuse(Refusal::Network);
        }
        match self.keyring.sign(purpose, &network, body) {
            Ok(signature) => {
                self.counters.signed.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(purpose = purpose.domain(), bytes = body.len(), "signed");
                Answer::Signature(signature)
            }
            Err(_) => self.refuse(Refusal::Failed),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(reason = refusal.words(), "a request was refused");
        Answer::Refused(refusal, String::new())
    }
}
