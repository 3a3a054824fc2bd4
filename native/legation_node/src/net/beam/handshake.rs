//! A handshake over a socket.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dist::handshake::{Established, Handshake, HandshakeError, Outcome, Verdict};

use super::connection::Admitted;
use super::dial::ConnectError;
use super::link::NodeLink;
use super::nodes::DialTicket;
use super::Shared;

/// No frame of a handshake is longer; what comes behind its end is little at first.
const READ_BYTES: usize = 2_048;

/// Links of all nodes of this process.
static LINKS: AtomicU64 = AtomicU64::new(1);

/// Runs `handshake` to its end and makes the node's connection of it. Also returned: what came behind the handshake.
///
/// # Errors
/// [`ConnectError`]. Whom we refuse has been told as far as the protocol lets us.
pub(super) async fn run(
    shared: &Arc<Shared>,
    socket: &mut TcpStream,
    handshake: &mut Handshake,
    dial: Option<&DialTicket>,
) -> Result<(Admitted, Vec<u8>), ConnectError> {
    let mut buffer = [0; READ_BYTES];
    loop {
        match handshake.poll_outcome() {
            Some(Outcome::Caller(node)) => handshake.answer(shared.nodes.verdict(&node)),
            Some(Outcome::Alive) => {
                let go_on = handshake.peer().is_some_and(|node| shared.nodes.go_on_though_alive(node));
                handshake.answer_alive(go_on);
            }
            Some(Outcome::Up(established)) => {
                // Before the last of the handshake goes out: once the node has it, we are connected.
                let admitted = admit(shared, established, dial)?;
                transmit(socket, handshake).await?;
                return Ok(admitted);
            }
            Some(Outcome::Failed(error)) => {
                // What is left to say is "no", and the reason is the same whether it can be said or not.
                let _ = transmit(socket, handshake).await;
                // There is one reason for which we say so.
                let full = error == HandshakeError::Refused(Verdict::NotAllowed);
                return Err(if full { ConnectError::NodesFull } else { ConnectError::Handshake(error) });
            }
            None => {
                transmit(socket, handshake).await?;
                match socket.read(&mut buffer).await {
                    // A BEAM that closes with something unread resets the connection.
                    Ok(0) | Err(_) => handshake.handle_end(),
                    Ok(bytes) => handshake.handle_bytes(&buffer[..bytes]),
                }
            }
        }
    }
}

async fn transmit(socket: &mut TcpStream, handshake: &mut Handshake) -> Result<(), ConnectError> {
    let mut out = Vec::new();
    handshake.poll_transmit(&mut out);
    if out.is_empty() {
        return Ok(());
    }
    socket.write_all(&out).await.map_err(|error| ConnectError::Io(error.to_string()))
}

fn admit(
    shared: &Arc<Shared>,
    established: Established,
    dial: Option<&DialTicket>,
) -> Result<(Admitted, Vec<u8>), ConnectError> {
    let Established { name, creation, flags, rest } = established;
    let flags = flags & shared.settings.local.flags;
    let number = LINKS.fetch_add(1, Ordering::Relaxed);
    let link = Arc::new(NodeLink::new(number, name.as_str(), creation, flags, shared.settings.outbound(flags)));
    let seat = shared.nodes.admit(&name, &link, dial)?;
    Ok((Admitted::new(shared.clone(), name, link, seat), rest))
}
