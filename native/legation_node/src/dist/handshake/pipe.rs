//! The pipe in memory over which `erl_dist` runs: it sees an asynchronous stream, we see two buffers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};

use super::Verdict;

/// Shared by the machine and the future that it polls. Nothing ever wakes that future: whoever changes something here polls it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pipe(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Whole frames of the peer that `erl_dist` has yet to read.
    inbound: VecDeque<u8>,
    /// What it wrote.
    outbound: Vec<u8>,
    question: Option<Question>,
    verdict: Option<Verdict>,
    go_on: Option<bool>,
    /// Close the gate after the next flush.
    pause: bool,
    /// Nothing can be written.
    paused: bool,
}

/// What the future waits for, other than bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether the caller is welcome.
    Verdict,
    /// Whether to go on though the peer believes us to be connected.
    Alive,
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn feed(&self, bytes: &[u8]) {
        self.state().inbound.extend(bytes);
    }

    pub(super) fn drain(&self, out: &mut Vec<u8>) {
        out.append(&mut self.state().outbound);
    }

    pub(super) fn put(&self, bytes: &[u8]) {
        self.state().outbound.extend_from_slice(bytes);
    }

    pub(super) fn question(&self) -> Option<Question> {
        self.state().question
    }

    /// After `alive` the challenge has to wait for the peer's answer, for which `erl_dist` doesn't.
    pub(super) fn answer(&self, verdict: Verdict) {
        let mut state = self.state();
        state.pause = verdict == Verdict::Alive;
        state.verdict = Some(verdict);
    }

    pub(super) fn answer_alive(&self, go_on: bool) {
        self.state().go_on = Some(go_on);
    }

    pub(super) fn resume(&self) {
        self.state().paused = false;
    }

    pub(super) async fn verdict(&self) -> Verdict {
        self.ask(Question::Verdict, |state| state.verdict).await
    }

    pub(super) async fn go_on(&self) -> bool {
        self.ask(Question::Alive, |state| state.go_on).await
    }

    async fn ask<T>(&self, question: Question, answer: impl Fn(&State) -> Option<T>) -> T {
        poll_fn(|_| {
            let mut state = self.state();
            let answer = answer(&state);
            state.question = if answer.is_none() { Some(question) } else { None };
            answer.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let count = into.len().min(state.inbound.len());
        if count == 0 && !into.is_empty() {
            return Poll::Pending;
        }
        for (slot, byte) in into.iter_mut().zip(state.inbound.drain(..count)) {
            *slot = byte;
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        if state.paused {
            return Poll::Pending;
        }
        state.outbound.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        state.paused = std::mem::take(&mut state.pause);
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
