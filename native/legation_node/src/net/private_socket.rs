//! Unix sockets for ourselves: a listener that only certain users get through.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Removes its file when dropped.
#[derive(Debug)]
pub struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: somebody else's socket of that name isn't removed.
    file: (u64, u64),
    uids: Vec<u32>,
}

impl PrivateSocket {
    /// Listens. Besides the user that we run as, and root, `uids` get in. What an earlier process left behind is
    /// replaced; a socket where somebody listens, and a file that is no socket, are not.
    ///
    /// # Errors
    /// With words for people; they don't name the path.
    pub fn bind(path: &Path, uids: &[u32]) -> Result<PrivateSocket> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        // Between these two lines the mode is the umask's. Nobody gets in by that: whoever connects is checked, too.
        let mode = if uids.is_empty() { 0o600 } else { 0o666 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        let metadata = std::fs::symlink_metadata(path)?;
        let mut uids = uids.to_vec();
        uids.extend([own_uid()?, 0]);
        Ok(PrivateSocket { listener, path: path.to_owned(), file: (metadata.dev(), metadata.ino()), uids })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection of somebody who may; others are closed at once.
    ///
    /// # Errors
    /// When the process has too many files open, say; trying again at once would spin.
    ///
    /// # Cancel safety
    /// No connection is lost.
    pub async fn accept(&self) -> Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match stream.peer_cred() {
                Ok(peer) if self.uids.contains(&peer.uid()) => return Ok(stream),
                Ok(peer) => tracing::warn!(socket = %self.path.display(), uid = peer.uid(), "a user was turned away"),
                Err(_) => {}
            }
        }
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let ours = |file: &std::fs::Metadata| (file.dev(), file.ino()) == self.file;
        if std::fs::symlink_metadata(&self.path).is_ok_and(|file| ours(&file)) {
            // It is gone already, or may not be removed: nothing to do about either.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The user that we run as, as the other end of a socket sees it.
pub fn own_uid() -> Result<u32> {
    Ok(UnixStream::pair()?.0.peer_cred()?.uid())
}

fn remove_stale(path: &Path) -> Result<()> {
    let file = match std::fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        return Err(Error::new(ErrorKind::AlreadyExists, "there is a file of that name that is no socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(Error::new(ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_gone_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = PrivateSocket::bind(&path, &[]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let (connected, accepted) = tokio::join!(UnixStream::connect(&path), socket.accept());
        assert!(connected.is_ok() && accepted.is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn who_may_not_be_there_is_closed_at_once() {
        use tokio::io::AsyncReadExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let mut socket = PrivateSocket::bind(&path, &[]).unwrap();
        assert_eq!(socket.uids, [own_uid().unwrap(), 0]);
        // As if we were somebody else.
        socket.uids = vec![own_uid().unwrap() + 1];
        let (mut connected, mut byte) = (UnixStream::connect(&path).await.unwrap(), [0]);
        tokio::select! {
            accepted = socket.accept() => panic!("let in: {accepted:?}"),
            read = connected.read(&mut byte) => assert_eq!(read.unwrap(), 0),
        }
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_replaced_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = PrivateSocket::bind(&path, &[]).unwrap();
        assert_eq!(PrivateSocket::bind(&path, &[]).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(socket);
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(PrivateSocket::bind(&path, &[]).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_socket_that_took_the_place_of_ours_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = PrivateSocket::bind(&path, &[]).unwrap();
        std::fs::remove_file(&path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(other);
    }
}
