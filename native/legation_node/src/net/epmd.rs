//! EPMD: where nodes say on which port they listen, by `erl_dist`'s client.
//!
//! A node is known there as long as the connection over which it registered is open. [`keep_registered`] holds it, and
//! registers again when EPMD was restarted.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use erl_dist::epmd::{EpmdClient, EpmdError as ErlDistError, NodeEntry};
use futures::io::BufWriter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::sync::watch;

use crate::dist::handshake::NodeName;

use super::beam::Pause;

/// EPMD answers from memory and is near: past this it is as good as not there.
const ANSWER_MS: u64 = 2_000;

/// Smaller creations are those of nodes before OTP 23, which had two bits for them.
pub const CREATION_MIN: u32 = 4;

/// Whether EPMD knows us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EpmdState {
    /// We do without.
    Off,
    Registered,
    /// It is tried again and again.
    Unregistered(EpmdError),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpmdError {
    #[error("EPMD can't be reached: {0}")]
    Unreachable(String),
    #[error("EPMD doesn't answer")]
    TimedOut,
    #[error("EPMD closed the connection")]
    Closed,
    /// Another node of that name is registered.
    #[error("EPMD refuses the name (code {0}): is another node of that name running?")]
    Refused(u8),
    #[error("EPMD doesn't know the node")]
    Unknown,
    #[error("EPMD answered what can't be understood")]
    Malformed,
}

impl From<ErlDistError> for EpmdError {
    fn from(error: ErlDistError) -> EpmdError {
        match error {
            ErlDistError::RegisterNodeError { code } | ErlDistError::GetNodeEntryError { code } => {
                EpmdError::Refused(code)
            }
            ErlDistError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => EpmdError::Closed,
            ErlDistError::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
                EpmdError::Unreachable(error.to_string())
            }
            _ => EpmdError::Malformed,
        }
    }
}

/// A registration that holds as long as this does.
#[derive(Debug)]
pub struct Registration {
    pub creation: u32,
    socket: TcpStream,
}

/// The port of a node, by the EPMD of its host.
///
/// # Errors
/// [`EpmdError`]; [`EpmdError::Unknown`] when the node isn't registered.
pub async fn look_up(epmd_port: u16, node: &NodeName) -> Result<u16, EpmdError> {
    within(async {
        let client = client((node.host(), epmd_port)).await?;
        Ok(client.get_node(node.name()).await?.ok_or(EpmdError::Unknown)?.port)
    })
    .await
}

/// Registers a hidden node of this host.
///
/// # Errors
/// [`EpmdError`].
pub async fn register(epmd_port: u16, node: &NodeName, port: u16) -> Result<Registration, EpmdError> {
    within(async {
        let client = client((Ipv4Addr::LOCALHOST, epmd_port)).await?;
        let (stream, creation) = client.register(NodeEntry::new_hidden(node.name(), port)).await?;
        Ok(Registration { creation: creation.get(), socket: stream.into_inner().0 })
    })
    .await
}

/// Keeps the node registered until it is dropped. Our creation stays what it is, whatever a later EPMD would have given us: pids of
/// ours are in the hands of nodes that are still connected.
pub async fn keep_registered(
    epmd_port: u16,
    node: &NodeName,
    port: u16,
    mut registration: Option<Registration>,
    state: &watch::Sender<EpmdState>,
) {
    let mut pause = Pause::default();
    loop {
        let error = match registration.take() {
            Some(registration) => {
                state.send_replace(EpmdState::Registered);
                lost(registration).await;
                pause = Pause::default();
                tracing::warn!(%node, "EPMD has closed the connection over which we were registered");
                EpmdError::Closed
            }
            None => match register(epmd_port, node, port).await {
                Ok(again) => {
                    tracing::info!(%node, port, "registered in EPMD");
                    registration = Some(again);
                    continue;
                }
                Err(error) => error,
            },
        };
        let news = EpmdState::Unregistered(error);
        if *state.borrow() != news {
            if let EpmdState::Unregistered(error) = &news {
                tracing::warn!(%node, %error, "not registered in EPMD; trying again");
            }
            state.send_replace(news);
        }
        pause.wait().await;
    }
}

/// Waits for the end of the connection. EPMD has nothing to say over it.
async fn lost(mut registration: Registration) {
    let mut nothing = [0; 64];
    while !matches!(registration.socket.read(&mut nothing).await, Ok(0) | Err(_)) {}
}

type Client = EpmdClient<BufWriter<Compat>>;

/// `erl_dist` writes field by field and then flushes.
async fn client(address: impl ToSocketAddrs) -> Result<Client, EpmdError> {
    let socket = TcpStream::connect(address).await.map_err(|error| EpmdError::Unreachable(error.to_string()))?;
    Ok(EpmdClient::new(BufWriter::new(Compat(socket))))
}

async fn within<T>(answer: impl Future<Output = Result<T, EpmdError>>) -> Result<T, EpmdError> {
    tokio::time::timeout(Duration::from_millis(ANSWER_MS), answer).await.unwrap_or(Err(EpmdError::TimedOut))
}

/// A stream of tokio's as `erl_dist` wants them.
struct Compat(TcpStream);

impl futures::io::AsyncRead for Compat {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(into);
        ready!(Pin::new(&mut self.0).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl futures::io::AsyncWrite for Compat {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
