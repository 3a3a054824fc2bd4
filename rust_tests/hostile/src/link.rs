//! A peer on a socket.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::frame;
use crate::peer::Peer;

pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// # Errors
    /// As the operating system has them.
    pub fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
        })
    }

    /// # Errors
    /// As the operating system has them.
    pub fn set_read_timeout(&self, wait: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(wait),
            Stream::Unix(stream) => stream.set_read_timeout(wait),
        }
    }

    fn shutdown(&self) {
        let _gone_already = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is written past `left` bytes is swallowed.
pub struct Link {
    pub peer: Peer,
    pub left: usize,
    pub sent: usize,
    pub bytes_in: usize,
    /// The other side has closed.
    pub closed: bool,
    /// All that was written.
    pub written: Option<Vec<u8>>,
    stream: Stream,
    incoming: Receiver<Vec<u8>>,
    reading: Arc<AtomicBool>,
}

impl Link {
    /// # Errors
    /// As the operating system has them.
    pub fn new(stream: Stream, peer: Peer) -> io::Result<Link> {
        let (to, incoming) = mpsc::channel();
        let mut reader = stream.try_clone()?;
        let reading = Arc::new(AtomicBool::new(true));
        let goes_on = reading.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while goes_on.load(Ordering::Relaxed) {
                match reader.read(&mut buffer) {
                    Ok(count @ 1..) if to.send(buffer[..count].to_vec()).is_ok() => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    _ended => return,
                }
            }
            // Nothing is read any more, and the link is not closed for that.
            while Arc::strong_count(&goes_on) > 1 {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Ok(Link {
            peer,
            left: usize::MAX,
            sent: 0,
            bytes_in: 0,
            closed: false,
            written: None,
            stream,
            incoming,
            reading,
        })
    }

    /// What comes from now on, but for a last piece, stays with the operating system.
    pub fn stop_reading(&mut self) {
        self.reading.store(false, Ordering::Relaxed);
    }

    /// Writes what waits. A carrier that is closed under it is no error: what was said before may still be read.
    pub fn flush(&mut self) {
        let out = std::mem::take(&mut self.peer.channel.out);
        let bytes = &out[..out.len().min(self.left)];
        self.left -= bytes.len();
        if bytes.is_empty() || self.stream.write_all(bytes).is_err() {
            return;
        }
        self.sent += bytes.len();
        if let Some(written) = &mut self.written {
            written.extend_from_slice(bytes);
        }
    }

    /// Writes what waits, and takes what has come.
    pub fn pump(&mut self) {
        self.flush();
        while let Ok(bytes) = self.incoming.try_recv() {
            self.take(&bytes);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.bytes_in += bytes.len();
        self.peer.receive(bytes);
        self.flush();
    }

    /// Writes, reads and answers until `done`, the end of the carrier, or `wait` has passed. True: `done`.
    pub fn run(&mut self, wait: Duration, mut done: impl FnMut(&Link) -> bool) -> bool {
        let deadline = Instant::now() + wait;
        loop {
            self.flush();
            if done(self) {
                return true;
            }
            if self.closed {
                return false;
            }
            match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => self.closed = true,
            }
        }
    }

    /// What has become of it; it is asked with a PING, if there is still somebody to ask.
    pub fn state(&mut self, wait: Duration) -> String {
        // Another one each time, so that an earlier PONG isn't taken for this one.
        let token = 0x6c65_6761_7469_6f6e + self.peer.pongs.len() as u64;
        if self.peer.session.is_some() && self.peer.told.is_none() && !self.closed {
            self.peer.ping(token);
            self.run(wait, |link| link.peer.pongs.contains(&token) || link.peer.told.is_some());
            if self.peer.told.is_none() && self.peer.pongs.contains(&token) {
                return "alive".into();
            }
        }
        self.state_unasked()
    }

    pub fn state_unasked(&self) -> String {
        match &self.peer.told {
            Some((code, _)) => format!("closed:{}", frame::close_name(*code)),
            None if self.closed => "closed-silently".into(),
            None if self.peer.session.is_some() => "silent".into(),
            None => "unanswered".into(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stream.shutdown();
    }
}
