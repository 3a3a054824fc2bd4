//! What a reader does between two reads.
//!
//! ```text
//!  read ─► handled ─┬─ the last was long ago ────────► sleep until there is more
//!                   ├─ they come close together ─────► look again for a moment ─► sleep until there is more
//!                   └─ many messages come together ──► rest ─► read what has collected
//! ```
//!
//! A reader that sleeps is woken by whoever sends, at the sender's cost: on one machine that is the BEAM's scheduler that writes to the
//! socket, a small write for each message. Two things spare it that, each where it pays. A quiet connection costs nothing.
//!
//! * **Looking again**, after two reads close to each other, and not for long. One process that calls again and again has its answers
//!   soonest so. But it takes a processor, and each look finds a message or two: handled, answered and written one by one.
//! * **Resting**: for a moment the thread sleeps, and nobody can wake it. What collects meanwhile is one read, its answers are one write,
//!   and the processor is the BEAM's. Who is alone would only wait longer. So from time to time it is tried; it goes on while enough
//!   messages come together, longer if there are many.

use std::io::{self, Read};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Reads this close to each other are followed by others, soon.
const CLOSE: Duration = Duration::from_micros(100);

/// How long to look when much comes: it would be there at once.
const LOOKING: Duration = Duration::from_micros(20);

/// How long to look when there was no more than this: one process that calls again and again, perhaps. It takes about half of the time
/// from an answer to its next call.
const LITTLE_BYTES: usize = 512;
const LOOKING_FOR_LITTLE: Duration = Duration::from_micros(40);

/// How long to rest: at least, when it is tried, and at most. The system lets it last up to 50 µs longer. The runtime's own timers know
/// milliseconds only.
const REST_MIN: Duration = Duration::from_micros(25);
const REST_TRIED: Duration = Duration::from_micros(50);
const REST_MAX: Duration = Duration::from_micros(200);

/// With fewer messages a rest did not pay: a call is three of them. With so many it may be longer.
const FEW_MESSAGES: u64 = 6;
const MANY_MESSAGES: u64 = 20;

/// What comes in large pieces is best read at once, before there is no room for more.
const LARGE_BYTES: usize = 64 * 1024;

/// After so many reads resting is tried: twice as many each time that it did not pay.
const TRIAL_AFTER_MIN: u32 = 32;
const TRIAL_AFTER_MAX: u32 = 1024;

#[derive(Debug)]
pub(super) struct Linger {
    /// When bytes came last, or a rest that brought none was over.
    last: Option<Instant>,
    next: Next,
    /// Reads until resting is tried, and how many there were before the last trial.
    until_trial: u32,
    trial_after: u32,
}

/// What is done before the next read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Sleep,
    Look(Duration),
    Rest(Duration),
}

impl Default for Linger {
    fn default() -> Linger {
        Linger { last: None, next: Next::Sleep, until_trial: TRIAL_AFTER_MIN, trial_after: TRIAL_AFTER_MIN }
    }
}

impl Linger {
    /// So much has come, and been handled.
    pub(super) fn came(&mut self, now: Instant, bytes: usize, messages: u64) {
        let close = self.last.is_some_and(|last| now - last < CLOSE);
        self.last = Some(now);
        let looking = if bytes <= LITTLE_BYTES { LOOKING_FOR_LITTLE } else { LOOKING };
        self.next = match self.next {
            Next::Rest(rest) => match rested(rest, bytes, messages) {
                Some(rest) => {
                    if messages >= FEW_MESSAGES {
                        self.trial_after = TRIAL_AFTER_MIN;
                        self.until_trial = TRIAL_AFTER_MIN;
                    }
                    Next::Rest(rest)
                }
                None => {
                    self.trial_after = (2 * self.trial_after).min(TRIAL_AFTER_MAX);
                    self.until_trial = self.trial_after;
                    Next::Look(looking)
                }
            },
            _ if !close => Next::Sleep,
            _ => {
                self.until_trial -= 1;
                if self.until_trial == 0 {
                    self.until_trial = self.trial_after;
                    Next::Rest(REST_TRIED)
                } else {
                    Next::Look(looking)
                }
            }
        };
    }

    /// What is read next, if it comes before it is time to sleep. Others run meanwhile: the tasks of this thread, among them the one
    /// that writes our answers, and the threads that want this processor.
    pub(super) async fn read(&mut self, socket: &OwnedReadHalf, into: &mut [u8]) -> Option<io::Result<usize>> {
        match self.next {
            Next::Sleep => None,
            Next::Look(time) => self.look(time, socket, into).await,
            Next::Rest(time) => self.rest(time, socket, into).await,
        }
    }

    async fn look(&self, time: Duration, socket: &OwnedReadHalf, into: &mut [u8]) -> Option<io::Result<usize>> {
        let until = self.last? + time;
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

    async fn rest(&mut self, time: Duration, socket: &OwnedReadHalf, into: &mut [u8]) -> Option<io::Result<usize>> {
        // The writer writes our answers.
        tokio::task::yield_now().await;
        // Since the last read: where another reader of this thread has rested meanwhile, it was for us, too.
        let left = self.last.map_or(time, |last| time.saturating_sub(last.elapsed()));
        if !left.is_zero() {
            std::thread::sleep(left);
        }
        // By itself: the runtime hasn't looked for what has come since.
        let socket: &TcpStream = socket.as_ref();
        match (&*SockRef::from(socket)).read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.last = Some(Instant::now());
                self.next = Next::Sleep;
                None
            }
            read => Some(read),
        }
    }
}

/// How long to rest next, after a rest that brought so much. None: it did not pay.
fn rested(rest: Duration, bytes: usize, messages: u64) -> Option<Duration> {
    match messages {
        _ if bytes >= LARGE_BYTES => None,
        MANY_MESSAGES.. => Some((2 * rest).min(REST_MAX)),
        FEW_MESSAGES.. => Some(rest),
        _ => Some(rest / 2).filter(|rest| *rest >= REST_MIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    /// Two reads of one message each, close to each other.
    fn close(linger: &mut Linger) {
        let now = Instant::now();
        linger.came(now, 5, 1);
        linger.came(now, 5, 1);
    }

    /// Reads of one message until it rests; how many.
    fn until_rest(linger: &mut Linger) -> u32 {
        let now = Instant::now();
        let mut reads = 0;
        while !matches!(linger.next, Next::Rest(_)) {
            linger.came(now, 5, 1);
            reads += 1;
        }
        reads
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
        linger.came(now - CLOSE, 5, 1);
        linger.came(now, 5, 1);
        assert!(linger.read(&reader, &mut [0; 8]).await.is_none());
    }

    #[tokio::test]
    async fn after_reads_close_to_each_other_what_is_there_is_read_and_otherwise_it_ends() {
        let (ours, mut theirs) = pair().await;
        let (reader, _writer) = ours.into_split();
        let mut linger = Linger::default();
        let mut into = [0; 8];
        close(&mut linger);
        assert!(linger.read(&reader, &mut into).await.is_none(), "nothing is there");
        theirs.write_all(b"there").await.unwrap();
        reader.readable().await.unwrap();
        close(&mut linger);
        assert_eq!(linger.read(&reader, &mut into).await.unwrap().unwrap(), 5);
        drop(theirs);
        reader.readable().await.unwrap();
        close(&mut linger);
        assert_eq!(linger.read(&reader, &mut into).await.unwrap().unwrap(), 0, "the other side has closed");
    }

    #[tokio::test]
    async fn after_a_rest_what_has_collected_is_read_and_otherwise_it_ends() {
        let (ours, mut theirs) = pair().await;
        let (reader, _writer) = ours.into_split();
        let mut linger = Linger::default();
        let mut into = [0; 8];
        until_rest(&mut linger);
        assert!(linger.read(&reader, &mut into).await.is_none(), "nothing is there");
        until_rest(&mut linger);
        theirs.write_all(b"the").await.unwrap();
        theirs.write_all(b"re").await.unwrap();
        reader.readable().await.unwrap();
        assert_eq!(linger.read(&reader, &mut into).await.unwrap().unwrap(), 5);
        drop(theirs);
        reader.readable().await.unwrap();
        assert_eq!(linger.read(&reader, &mut into).await.unwrap().unwrap(), 0, "the other side has closed");
    }

    #[test]
    fn resting_goes_on_while_enough_messages_come_together() {
        let mut linger = Linger::default();
        until_rest(&mut linger);
        let now = Instant::now();
        let mut rests = Vec::new();
        for messages in [FEW_MESSAGES, MANY_MESSAGES - 1, MANY_MESSAGES, MANY_MESSAGES, MANY_MESSAGES] {
            linger.came(now, 1000, messages);
            rests.push(linger.next);
        }
        assert_eq!(rests, [1, 1, 2, 4, 4].map(|times| Next::Rest(times * REST_TRIED)));
        assert_eq!(4 * REST_TRIED, REST_MAX);
        for times in [4, 2, 1] {
            linger.came(now, 1000, FEW_MESSAGES - 1);
            assert_eq!(linger.next, Next::Rest(times * REST_MIN));
        }
        linger.came(now, 1000, FEW_MESSAGES - 1);
        assert_eq!(linger.next, Next::Look(LOOKING));
        until_rest(&mut linger);
        linger.came(now, LARGE_BYTES, MANY_MESSAGES);
        assert_eq!(linger.next, Next::Look(LOOKING), "large pieces are read at once");
    }

    #[test]
    fn resting_is_tried_the_more_seldom_the_longer_it_does_not_pay() {
        let mut linger = Linger::default();
        let few = |linger: &mut Linger| {
            while matches!(linger.next, Next::Rest(_)) {
                linger.came(Instant::now(), 5, 1);
            }
        };
        // The first read knows of none before.
        assert_eq!(until_rest(&mut linger), 1 + TRIAL_AFTER_MIN);
        let mut expected = TRIAL_AFTER_MIN;
        for _ in 0..6 {
            few(&mut linger);
            expected = (2 * expected).min(TRIAL_AFTER_MAX);
            assert_eq!(until_rest(&mut linger), expected);
        }
        assert_eq!(expected, TRIAL_AFTER_MAX);
        linger.came(Instant::now(), 1000, FEW_MESSAGES);
        few(&mut linger);
        assert_eq!(until_rest(&mut linger), 2 * TRIAL_AFTER_MIN, "it has paid meanwhile");
    }
}
