//! The carrier `unix`: a Unix domain socket, for realms on one machine.
//!
//! Both ends ask the system which user is at the other end, and close unless it is one of those configured; by default
//! the one that we run as. The socket file has mode 0600 then, and 0666 with other users: who may connect is the system's
//! answer and not the file's mode.
//!
//! A file that a listener of before has left behind is removed, unless somebody listens on it. So is ours when we stop.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::carrier::CarrierError;
use super::private_socket::own_uid;
use super::tcp::BACKLOG;
use crate::config::Uids;

/// A listening socket, and which file is its own.
#[derive(Debug)]
pub struct Listening {
    pub socket: UnixListener,
    path: PathBuf,
    /// Device and inode. Somebody may have put another file there meanwhile.
    file: Option<(u64, u64)>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.file.is_some() && file(&self.path) == self.file {
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "a socket file could not be removed");
            }
        }
    }
}

/// Binds. Needs a runtime around it.
pub fn listen(path: &Path, uids: &Uids) -> Result<Listening, CarrierError> {
    let socket = match bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            fs::remove_file(path)?;
            bind(path)?
        }
        bound => bound?,
    };
    // From here on the file is ours to remove.
    let listening = Listening { socket: UnixListener::from_std(socket.into())?, path: path.into(), file: file(path) };
    fs::set_permissions(path, fs::Permissions::from_mode(mode(uids)))?;
    Ok(listening)
}

/// The user at the other end, where the system tells.
pub fn peer_uid(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok().map(|credentials| credentials.uid())
}

pub fn check_peer(stream: &UnixStream, uids: &Uids) -> Result<(), CarrierError> {
    if *uids == Uids::Any {
        return Ok(());
    }
    let uid = peer_uid(stream).ok_or(CarrierError::System("no_peer_credentials"))?;
    let allowed = match uids {
        Uids::Any => true,
        Uids::Own => is_own(uid),
        Uids::These(uids) => uids.contains(&uid),
    };
    match allowed {
        true => Ok(()),
        false => Err(CarrierError::UidNotAllowed(uid)),
    }
}

fn bind(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A socket on which nobody listens. What isn't a socket refuses connections, too, and is not ours to remove.
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && probe(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether somebody listens on a socket of this machine is known at once; one whose backlog is full must not hold us up.
fn probe(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn mode(uids: &Uids) -> u32 {
    let only_us = match uids {
        Uids::Own => true,
        Uids::Any => false,
        Uids::These(uids) => matches!(uids.as_slice(), [uid] if is_own(*uid)),
    };
    if only_us {
        0o600
    } else {
        0o666
    }
}

fn file(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn is_own(uid: u32) -> bool {
    own_uid().is_ok_and(|own| own == uid)
}
