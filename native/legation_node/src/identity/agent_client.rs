//! The daemon's side of a key agent: one connection, several requests in flight, made again when it breaks.
//!
//! ```text
//!  public_key, sign ──► jobs (bounded) ──► task ──► socket
//!        ▲                                  │
//!        └────────── answer by id ◄─────────┘
//! ```

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use legation_proto::identity::{NetworkId, Purpose};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{timeout, Instant};

use super::agent_protocol::{
    decode_answer, encode_request, Answer, Frames, Request, ANSWER_BYTES_MAX, REQUEST_BYTES_MAX,
};
use super::SignError;
use crate::config::io_words;

/// A handshake has no longer either.
const ANSWER_MS: u64 = 5_000;

/// Requests that the agent has and has not answered; as many again wait here. Handshakes are bounded to about that.
const IN_FLIGHT_MAX: usize = 64;

/// Between looks whether an agent that is just starting is there.
const RETRY_MS: u64 = 50;

/// See the module's documentation. Its task ends when this is dropped.
#[derive(Debug)]
pub struct AgentClient {
    jobs: mpsc::Sender<Job>,
    answer_within: Duration,
}

/// A request whose frame is ready but for its id.
struct Job {
    frame: Vec<u8>,
    answer: oneshot::Sender<Result<Answer, SignError>>,
}

impl AgentClient {
    /// Starts the task; it connects with the first request. Needs a tokio runtime.
    pub fn start(path: PathBuf) -> AgentClient {
        AgentClient::start_with(path, Duration::from_millis(ANSWER_MS))
    }

    fn start_with(path: PathBuf, answer_within: Duration) -> AgentClient {
        let (jobs, received) = mpsc::channel(IN_FLIGHT_MAX);
        tokio::spawn(run(path, received, answer_within));
        AgentClient { jobs, answer_within }
    }

    /// # Errors
    /// All of [`SignError`] but `NotOurs`.
    pub async fn public_key(&self) -> Result<[u8; 32], SignError> {
        match self.ask(&Request::PublicKey).await? {
            Answer::PublicKey(key) => Ok(key),
            answer => Err(unexpected(answer)),
        }
    }

    /// The same, but an agent that isn't there yet is looked for again and again within the time of one answer.
    ///
    /// # Errors
    /// Those of the last attempt.
    pub async fn public_key_at_start(&self) -> Result<[u8; 32], SignError> {
        let give_up = Instant::now() + self.answer_within;
        loop {
            match self.public_key().await {
                Err(SignError::Unreachable(_)) if Instant::now() < give_up => {
                    tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
                }
                result => return result,
            }
        }
    }

    /// The agent's signature, unverified.
    ///
    /// # Errors
    /// All of [`SignError`] but `NotOurs`.
    pub async fn sign(&self, purpose: Purpose, network: &NetworkId, body: &[u8]) -> Result<[u8; 64], SignError> {
        match self.ask(&Request::Sign { purpose, network: *network, body }).await? {
            Answer::Signature(signature) => Ok(signature),
            answer => Err(unexpected(answer)),
        }
    }

    async fn ask(&self, request: &Request<'_>) -> Result<Answer, SignError> {
        let mut frame = Vec::new();
        encode_request(0, request, &mut frame);
        if frame.len() - 4 > REQUEST_BYTES_MAX {
            return Err(SignError::Refused("the body is too large".to_owned()));
        }
        let exchange = async {
            let (answer, answered) = oneshot::channel();
            let gone = || SignError::Unreachable("the connection broke".to_owned());
            self.jobs.send(Job { frame, answer }).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        };
        timeout(self.answer_within, exchange).await.unwrap_or(Err(SignError::TimedOut))
    }
}

fn unexpected(answer: Answer) -> SignError {
    match answer {
        Answer::Refused(reason, text) if text.is_empty() => SignError::Refused(reason.words().to_owned()),
        // Its text goes into logs.
        Answer::Refused(reason, text) => SignError::Refused(format!("{}: {}", reason.words(), text.escape_debug())),
        _ => SignError::Refused("it answered something else".to_owned()),
    }
}

async fn run(path: PathBuf, mut jobs: mpsc::Receiver<Job>, answer_within: Duration) {
    let mut waiting = None;
    loop {
        let job = match waiting.take() {
            Some(job) => job,
            None => match jobs.recv().await {
                Some(job) => job,
                None => return,
            },
        };
        let connected = timeout(answer_within, UnixStream::connect(&path)).await;
        match connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(stream) => waiting = Connection::new(stream, answer_within).serve(job, &mut jobs).await,
            Err(error) => {
                let words = format!("{}: {}", path.display(), io_words(&error));
                // Whoever asked may be gone.
                let _ = job.answer.send(Err(SignError::Unreachable(words)));
            }
        }
    }
}

struct Connection {
    stream: UnixStream,
    frames: Frames,
    pending: HashMap<u64, (Instant, oneshot::Sender<Result<Answer, SignError>>)>,
    last_id: u64,
    answer_within: Duration,
}

impl Connection {
    fn new(stream: UnixStream, answer_within: Duration) -> Connection {
        Connection { stream, frames: Frames::new(ANSWER_BYTES_MAX), pending: HashMap::new(), last_id: 0, answer_within }
    }

    /// Until the connection is of no use any more. What it could not even send comes back, for another one; who waits
    /// for an answer learns that the connection broke.
    async fn serve(mut self, first: Job, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        if let Err(job) = self.send(first).await {
            let words = "it closed the connection at once".to_owned();
            let _ = job.answer.send(Err(SignError::Unreachable(words)));
            return None;
        }
        let mut piece = [0; 4_096];
        loop {
            let full = self.pending.len() >= IN_FLIGHT_MAX;
            let stuck = self.oldest().unwrap_or_else(Instant::now) + self.answer_within;
            tokio::select! {
                biased;
                // Cancel-safe: nothing is read, or all of it is here.
                read = self.stream.read(&mut piece) => match read {
                    Ok(bytes) if bytes > 0 && self.handle_bytes(&piece[..bytes]) => {}
                    _ => return None,
                },
                job = jobs.recv(), if !full => {
                    let job = job?;
                    // What is older was given up by whoever asked.
                    if !self.pending.is_empty() && Instant::now() >= stuck {
                        return Some(job);
                    }
                    if let Err(job) = self.send(job).await {
                        return Some(job);
                    }
                }
                () = tokio::time::sleep_until(stuck), if full => return None,
            }
        }
    }

    async fn send(&mut self, mut job: Job) -> Result<(), Job> {
        self.last_id += 1;
        job.frame[6..14].copy_from_slice(&self.last_id.to_be_bytes());
        match timeout(self.answer_within, self.stream.write_all(&job.frame)).await {
            Ok(Ok(())) => {
                self.pending.insert(self.last_id, (Instant::now(), job.answer));
                Ok(())
            }
            _ => Err(job),
        }
    }

    /// False: close.
    fn handle_bytes(&mut self, bytes: &[u8]) -> bool {
        self.frames.push(bytes);
        loop {
            match self.frames.next_frame() {
                Ok(None) => return true,
                Ok(Some(frame)) => {
                    let Ok((id, answer)) = decode_answer(&frame) else { return false };
                    // Nobody waits for an answer that is late, and there may be none of that id.
                    if let Some((_, waiter)) = self.pending.remove(&id) {
                        let _ = waiter.send(Ok(answer));
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Since when the longest has waited.
    fn oldest(&self) -> Option<Instant> {
        self.pending.values().map(|(since, _)| *since).min()
    }
}

#[cfg(test)]
#[path = "agent_client_tests.rs"]
mod tests;
