//! Stands between two realms: counts bytes, stalls and cuts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Nothing moves, and nobody is told.
    Stall,
    /// Connections break.
    Cut,
    /// Only at the dialler's end; the listener is not told.
    CutDialler,
}

pub struct Proxy {
    pub address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    pub to_listener: Arc<AtomicUsize>,
    pub to_dialler: Arc<AtomicUsize>,
    pub connections: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy {
            address: listener.local_addr().unwrap(),
            mode: Arc::new(watch::Sender::new(Mode::Pass)),
            to_listener: Arc::default(),
            to_dialler: Arc::default(),
            connections: Arc::default(),
        };
        let (mode, to_listener, to_dialler) = (proxy.mode.clone(), proxy.to_listener.clone(), proxy.to_dialler.clone());
        let connections = proxy.connections.clone();
        tokio::spawn(async move {
            loop {
                let (dialler, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let Ok(target) = TcpStream::connect(target).await else { continue };
                let (from_dialler, into_dialler) = dialler.into_split();
                let (from_target, into_target) = target.into_split();
                tokio::spawn(pump(from_dialler, into_target, mode.subscribe(), to_listener.clone(), true));
                tokio::spawn(pump(from_target, into_dialler, mode.subscribe(), to_dialler.clone(), false));
            }
        });
        proxy
    }

    /// Of the connections that there are, and of those to come.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut into: impl AsyncWrite + Unpin,
    mut mode: watch::Receiver<Mode>,
    count: Arc<AtomicUsize>,
    from_dialler: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let now = *mode.borrow_and_update();
        if now == Mode::CutDialler {
            return keep_listener(from, into, from_dialler).await;
        }
        tokio::select! {
            biased;
            changed = mode.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            _ = async {}, if now == Mode::Cut => return,
            read = from.read(&mut buffer), if now == Mode::Pass => match read {
                Ok(read @ 1..) => {
                    count.fetch_add(read, Ordering::Relaxed);
                    if into.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

/// Lets go of the dialler's halves, and holds on to the listener's until it closes.
async fn keep_listener(mut from: impl AsyncRead + Unpin, into: impl AsyncWrite + Unpin, from_dialler: bool) {
    match from_dialler {
        true => {
            drop(from);
            std::future::pending::<()>().await;
            drop(into);
        }
        false => {
            drop(into);
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(1..) = from.read(&mut buffer).await {}
        }
    }
}
