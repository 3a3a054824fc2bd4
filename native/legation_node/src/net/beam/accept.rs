//! Those who dial us.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use crate::dist::handshake::Handshake;

use super::connection;
use super::counters::count;
use super::dial::ConnectError;
use super::handshake;
use super::pause::Pause;
use super::Shared;

pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut pause = Pause::default();
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                pause = Pause::default();
                match shared.handshakes.clone().try_acquire_owned() {
                    Ok(permit) => shared.spawn(answer(shared.clone(), socket, permit)),
                    Err(_) => {
                        count(&shared.counters.handshakes_refused);
                        tracing::debug!("a connection was closed unheard: too many handshakes are under way");
                    }
                }
            }
            Err(error) => {
                // Too many open files, most likely: others may close theirs.
                tracing::warn!(%error, "can't accept connections of nodes; trying again");
                pause.wait().await;
            }
        }
    }
}

async fn answer(shared: Arc<Shared>, mut socket: TcpStream, permit: OwnedSemaphorePermit) {
    let mut handshake = Handshake::acceptor(shared.settings.local.clone());
    let _ = socket.set_nodelay(true);
    let running = handshake::run(&shared, &mut socket, &mut handshake, None);
    let ended = tokio::time::timeout(shared.settings.handshake, running).await;
    drop(permit);
    match ended.unwrap_or(Err(ConnectError::TimedOut)) {
        Ok((admitted, rest)) => shared.spawn_to_the_end(connection::run(admitted, socket, rest)),
        Err(error) => report(&shared, &handshake, error),
    }
}

fn report(shared: &Shared, handshake: &Handshake, error: ConnectError) {
    match &error {
        ConnectError::NodesFull => count(&shared.counters.nodes_refused),
        error if error.is_harmless() => {}
        _ => count(&shared.counters.handshakes_failed),
    }
    let Some(node) = handshake.peer() else {
        tracing::debug!(%error, "somebody who dialled us is no node");
        return;
    };
    if error.is_cookie() {
        count(&shared.counters.cookies_differed);
    }
    if error.is_harmless() {
        tracing::debug!(%node, %error, "a node's attempt to connect ended");
    } else if shared.refusals.add(node, &error) {
        tracing::warn!(%node, %error, "a node that dialled us is not connected");
    }
}
