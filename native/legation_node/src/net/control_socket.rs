//! The control socket: what `legation status` and the like talk to. JSON lines, see `docs/control-socket.md`.
//!
//! ```text
//!  {"id": 1, "op": "connect", "realm": "bob"}  ──►
//!                                              ◄──  {"id": 1, "ok": null}
//!                                              ◄──  {"id": 1, "error": {"code": "unknown_realm", "message": "…"}}
//! ```
//!
//! Requests of one connection are answered in turn. What they mean is the realm's business ([`Admin`]).

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::private_socket::PrivateSocket;
use crate::config::Limits;

/// A request in one line. A realm's name is the longest thing that one holds; this is plenty.
pub const REQUEST_BYTES_MAX: usize = 65_536;

/// Until there are files again.
const ACCEPT_PAUSE_MS: u64 = 100;

const OPERATIONS: &str = "status, peers, engines, connections, counters, connect, disconnect, revoke, rotate_key, \
                          revoke_own_key, drain, reload";

/// What a realm answers with later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A realm, as its control socket sees it.
pub trait Admin: Send + Sync {
    fn status(&self) -> Value;
    fn peers(&self) -> Value;
    fn engines(&self) -> Value;
    fn connections(&self) -> Value;
    /// A map; what the control socket itself has counted is added.
    fn counters(&self) -> Value;
    /// # Errors
    /// `unknown_realm`, `already_connected`.
    fn connect(&self, realm: &str) -> Result<(), AdminError>;
    /// # Errors
    /// `unknown_realm`.
    fn disconnect(&self, realm: &str) -> Result<(), AdminError>;
    /// None of the peer's keys is accepted any more.
    ///
    /// # Errors
    /// `unknown_realm`.
    fn revoke(&self, realm: &str) -> Result<(), AdminError>;
    /// The key in the file is the realm's from now on: `{"key": "ed25519:…"}`.
    ///
    /// # Errors
    /// `key`.
    fn rotate_key(&self, path: PathBuf) -> Later<'_, Result<Value, AdminError>>;
    /// # Errors
    /// `key`.
    fn revoke_own_key(&self) -> Later<'_, Result<(), AdminError>>;
    /// Waits until no call is open, at most so long. The calls that were cut, in a list.
    fn drain(&self, within: Duration) -> Later<'_, Value>;
}

/// Why something wasn't done: a word for programs, and words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    pub code: &'static str,
    pub message: String,
}

impl AdminError {
    pub fn new(code: &'static str, message: impl Into<String>) -> AdminError {
        AdminError { code, message: message.into() }
    }

    fn bad_request(message: impl Into<String>) -> AdminError {
        AdminError::new("bad_request", message)
    }
}

/// Whoever started the realm is to read its configuration again, and to answer when that is done.
pub type Reload = oneshot::Sender<Result<(), AdminError>>;

/// A control socket that nobody serves yet: whoever connects waits. Bound before anything else is started, so that a
/// second daemon of one configuration ends there.
#[derive(Debug)]
pub struct BoundControlSocket(PrivateSocket);

/// Serves until it is stopped or dropped.
#[derive(Debug)]
pub struct ControlSocket {
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    requests_refused: AtomicU64,
    connections: AtomicU64,
    connections_refused: AtomicU64,
}

struct Control {
    admin: Arc<dyn Admin>,
    reloads: mpsc::Sender<Reload>,
    counters: Counters,
    send_timeout: Duration,
}

impl BoundControlSocket {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// When there is no listening at `path`.
    pub fn bind(path: &Path) -> std::io::Result<BoundControlSocket> {
        PrivateSocket::bind(path, &[]).map(BoundControlSocket)
    }

    pub fn serve(self, limits: &Limits, admin: Arc<dyn Admin>, reloads: mpsc::Sender<Reload>) -> ControlSocket {
        let places = limits.control_connections_max.min(Semaphore::MAX_PERMITS);
        let send_timeout = Duration::from_millis(limits.send_timeout_ms);
        let control = Arc::new(Control { admin, reloads, counters: Counters::default(), send_timeout });
        ControlSocket { serving: tokio::spawn(serve(self.0, control, places)) }
    }
}

impl ControlSocket {
    /// Listens no more, and the socket's file is gone.
    pub async fn stop(mut self) {
        self.serving.abort();
        // It says that it was aborted.
        let _ = (&mut self.serving).await;
    }
}

async fn serve(socket: PrivateSocket, control: Arc<Control>, places: usize) {
    let places = Arc::new(Semaphore::new(places));
    let mut connections = JoinSet::new();
    loop {
        let stream = match socket.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the control socket could not be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                control.counters.connections.fetch_add(1, Ordering::Relaxed);
                let control = control.clone();
                connections.spawn(async move {
                    control.connection(stream).await;
                    drop(place);
                });
            }
            Err(_) => {
                control.counters.connections_refused.fetch_add(1, Ordering::Relaxed);
                refuse_connection(&stream);
            }
        }
    }
}

/// Says why, if the words go out at once, as they do on a socket that has just been accepted.
fn refuse_connection(stream: &UnixStream) {
    let answer = answer(Value::Null, Err(AdminError::new("busy", "too many connections to the control socket")));
    let _ = stream.try_write(&line(&answer));
}

impl Control {
    async fn connection(&self, mut stream: UnixStream) {
        let mut lines = Lines::default();
        let mut piece = [0; 4_096];
        loop {
            match stream.read(&mut piece).await {
                Ok(bytes) if bytes > 0 => lines.push(&piece[..bytes]),
                _ => return,
            }
            loop {
                let request = match lines.next() {
                    Ok(Some(request)) => request,
                    Ok(None) => break,
                    Err(TooLong) => {
                        let words = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
                        self.counters.requests_refused.fetch_add(1, Ordering::Relaxed);
                        let answer = answer(Value::Null, Err(AdminError::new("too_large", words)));
                        let _ = self.send(&mut stream, &answer).await;
                        return;
                    }
                };
                let answer = self.handle(&request).await;
                if self.send(&mut stream, &answer).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn send(&self, stream: &mut UnixStream, answer: &Value) -> std::io::Result<()> {
        timeout(self.send_timeout, stream.write_all(&line(answer))).await?
    }

    async fn handle(&self, request: &[u8]) -> Value {
        let (id, result) = match serde_json::from_slice::<Value>(request) {
            Ok(Value::Object(mut request)) => {
                let id = request.remove("id").unwrap_or(Value::Null);
                (id, self.operation(request).await)
            }
            Ok(_) => (Value::Null, Err(AdminError::bad_request("expected an object"))),
            Err(error) => (Value::Null, Err(AdminError::bad_request(format!("expected JSON: {error}")))),
        };
        let counter = if result.is_ok() { &self.counters.requests } else { &self.counters.requests_refused };
        counter.fetch_add(1, Ordering::Relaxed);
        answer(id, result)
    }

    async fn operation(&self, mut request: Map<String, Value>) -> Result<Value, AdminError> {
        let operation = text(&mut request, "op")?;
        let realm = match operation.as_str() {
            "connect" | "disconnect" | "revoke" => text(&mut request, "realm")?,
            _ => String::new(),
        };
        let within = match operation.as_str() {
            "drain" => milliseconds(&mut request, "timeout_ms")?,
            _ => Duration::ZERO,
        };
        let path = match operation.as_str() {
            "rotate_key" => text(&mut request, "path")?,
            _ => String::new(),
        };
        if let Some(unknown) = request.keys().next() {
            return Err(AdminError::bad_request(format!("unknown key {unknown:?}")));
        }
        match operation.as_str() {
            "status" => Ok(self.admin.status()),
            "peers" => Ok(self.admin.peers()),
            "engines" => Ok(self.admin.engines()),
            "connections" => Ok(self.admin.connections()),
            "counters" => Ok(self.with_own_counters(self.admin.counters())),
            "connect" => self.admin.connect(&realm).map(|()| Value::Null),
            "disconnect" => self.admin.disconnect(&realm).map(|()| Value::Null),
            "revoke" => self.admin.revoke(&realm).map(|()| Value::Null),
            "rotate_key" => self.admin.rotate_key(path.into()).await,
            "revoke_own_key" => self.admin.revoke_own_key().await.map(|()| Value::Null),
            "drain" => Ok(self.admin.drain(within).await),
            "reload" => self.reload().await.map(|()| Value::Null),
            _ => Err(AdminError::bad_request(format!("unknown op {operation:?}; known are {OPERATIONS}"))),
        }
    }

    async fn reload(&self) -> Result<(), AdminError> {
        let (done, answer) = oneshot::channel();
        let gone = |_| AdminError::new("stopping", "the daemon is about to stop");
        self.reloads.send(done).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?
    }

    fn with_own_counters(&self, mut counters: Value) -> Value {
        if let Value::Object(counters) = &mut counters {
            let own = &self.counters;
            for (name, counter) in [
                ("control_socket_requests", &own.requests),
                ("control_socket_requests_refused", &own.requests_refused),
                ("control_socket_connections", &own.connections),
                ("control_socket_connections_refused", &own.connections_refused),
            ] {
                counters.insert(name.to_owned(), counter.load(Ordering::Relaxed).into());
            }
        }
        counters
    }
}

fn text(request: &mut Map<String, Value>, key: &str) -> Result<String, AdminError> {
    match request.remove(key) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(AdminError::bad_request(format!("expected {key:?} to be a text"))),
    }
}

fn milliseconds(request: &mut Map<String, Value>, key: &str) -> Result<Duration, AdminError> {
    let ms = request.remove(key).and_then(|ms| ms.as_u64()).filter(|ms| *ms <= u64::from(u32::MAX));
    let ms =
        ms.ok_or_else(|| AdminError::bad_request(format!("expected {key:?} to be an integer from 0 to {}", u32::MAX)))?;
    Ok(Duration::from_millis(ms))
}

fn answer(id: Value, result: Result<Value, AdminError>) -> Value {
    match result {
        Ok(value) => json!({"id": id, "ok": value}),
        Err(AdminError { code, message }) => json!({"id": id, "error": {"code": code, "message": message}}),
    }
}

fn line(answer: &Value) -> Vec<u8> {
    let mut line = answer.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Bytes as they come, lines as they are complete.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    /// So much of it has no newline.
    searched: usize,
}

struct TooLong;

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line without its newline. What is too long is told as soon as that is known.
    fn next(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) if self.searched + at <= REQUEST_BYTES_MAX => {
                let line = self.buffer.drain(..=self.searched + at).take(self.searched + at).collect();
                self.searched = 0;
                Ok(Some(line))
            }
            None if self.buffer.len() <= REQUEST_BYTES_MAX => {
                self.searched = self.buffer.len();
                Ok(None)
            }
            _ => Err(TooLong),
        }
    }
}

#[cfg(test)]
#[path = "control_socket_tests.rs"]
mod tests;
