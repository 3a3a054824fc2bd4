use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Stands between two nodes. When one closes or dies the other is not told, as when a machine is switched off.
pub struct Forwarder {
    pub port: u16,
    seen: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Forwarder {
    pub async fn start(at: &str, to: SocketAddr) -> Forwarder {
        let listener = TcpListener::bind(at).await.expect("a free address");
        let port = listener.local_addr().expect("bound").port();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let record = seen.clone();
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                let (one, _) = listener.accept().await.expect("a connection");
                let Ok(other) = TcpStream::connect(to).await else { continue };
                let ((one_out, one_in), (other_out, other_in)) = (one.into_split(), other.into_split());
                let sinks = [(one_out, other_in), (other_out, one_in)];
                held.extend(sinks.map(|(from, to)| tokio::spawn(copy(from, to, record.clone()))));
            }
        });
        Forwarder { port, seen, task }
    }

    /// Whether these bytes passed, either way.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        self.seen.lock().expect("no panic").windows(bytes.len()).any(|window| window == bytes)
    }
}

/// Returns the half that is written to: dropped it would be closed.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, seen: Arc<Mutex<Vec<u8>>>) -> OwnedWriteHalf {
    let mut buffer = [0; 4_096];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        seen.lock().expect("no panic").extend_from_slice(&buffer[..bytes]);
        if to.write_all(&buffer[..bytes]).await.is_err() {
            break;
        }
    }
    to
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}
