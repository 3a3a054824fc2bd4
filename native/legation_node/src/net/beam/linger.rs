//! Looking again before sleeping.
//!
//! ```text
//!  read ─► handled ─┬─ the last was long ago ─────────────────► sleep until there is more
//!                   └─ they come close together ─► look again for a moment ─► sleep
//! ```
//!
//! A reader that sleeps is woken by whoever sends, at the sender's cost: on one machine that is the BEAM's scheduler that writes to the
//! socket, and it pays for each small message anew. A reader that looks again by itself takes what has collected in one read. So we
//! do that, but only where it pays: after two reads close to each other, and not for long. A quiet connection costs nothing.

use std::io;
use std::time::Duration;

use tokio::net::tcp::OwnedReadHalf;
use tokio::time::Instant;

/// Reads this close to each other are followed by others, soon.
const CLOSE: Duration = Duration::from_micros(100);

/// How long to look when much comes: it would be there at once.
const LOOKING: Duration = Duration::from_micros(20);

/// How long to look when there was no more than this: one process that calls again and again, perhaps. It takes about half of the time
/// from an answer to its next call.
const LITTLE_BYTES: usize = 512;
const LOOKING_FOR_LITTLE: Duration = Duration::from_micros(40);

/// When bytes came.
#[derive(Debug, Default)]
pub(super) struct Linger {
    last: Option<Instant>,
    /// None: the last ones came by themselves.
    until: Option<Instant>,
}

impl Linger {
    /// So many have come.
    pub(super) fn came(&mut self, now: Instant, bytes: usize) {
        let looking = if bytes <= LITTLE_BYTES { LOOKING_FOR_LITTLE } else { LOOKING };
        self.until = self.last.filter(|last| now - *last < CLOSE).map(|_| now + looking);
        self.last = Some(now);
    }

    /// What is read next, if it comes before it is time to sleep. Others run meanwhile: the tasks of this thread, among them the one
    /// that writes our answers, and the threads that want this processor.
    pub(super) async fn read(&self, socket: &OwnedReadHalf, into: &mut [u8]) -> Option<io::Result<usize>> {
        let until = self.until?;
        loop {
            std::thread::yield_now();
            tokio::task::yield_now().await;
            match socket.try_read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Some(read),
            }
            if Instant::now() >= until {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn after_reads_far_from_each_other_there_is_no_second_look() {
        let (ours, mut theirs) = pair().await;
        let (reader, _writer) = ours.into_split();
        theirs.write_all(b"there").await.unwrap();
        reader.readable().await.unwrap();
        let mut linger = Linger::default();
        let now = Instant::now();
        assert!(linger.read(&reader, &mut [0; 8]).await.is_none(), "nothing has come yet");
        linger.came(now - CLOSE, 5);
        linger.came(now, 5);
        assert!(linger.read(&reader, &mut [0; 8]).await.is_none());
    }

    #[tokio::test]
    async fn after_reads_close_to_each_other_what_is_there_is_read_and_otherwise_it_ends() {
        let (ours, mut theirs) = pair().await;
        let (reader, _writer) = ours.into_split();
        let mut linger = Linger::default();
        let mut into = [0; 8];
        let now = Instant::now();
        linger.came(now, 5);
        linger.came(now, 5);
        assert!(linger.read(&reader, &mut into).await.is_none(), "nothing is there");
        theirs.write_all(b"there").await.unwrap();
        reader.readable().await.unwrap();
        let now = Instant::now();
        linger.came(now, 5);
        linger.came(now, 5);
        assert_eq!(linger.read(&reader, &mut into).await.unwrap().unwrap(), 5);
        drop(theirs);
        reader.readable().await.unwrap();
        let now = Instant::now();
        linger.came(now, 5);
        linger.came(now, 5);
        assert_eq!(linger.read(&reader, &mut into).await.unwrap().unwrap(), 0, "the other side has closed");
    }
}
