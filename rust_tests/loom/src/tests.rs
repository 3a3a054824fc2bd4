//! A writer as `connection.rs` has it, threads that append, and threads that end it.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use loom::sync::Arc;
use loom::thread;

use crate::hand_over::{HandOver, Then, Waiting};

impl Waiting for Vec<u32> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

type Link = HandOver<Vec<u32>, &'static str>;

/// Of what waits by blocking its thread.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits for something else"),
    }
}

/// Everything that is written until it is over, and how it was.
fn write(link: &Link) -> (Vec<u32>, Then) {
    let mut written = Vec::new();
    loop {
        ready(link.work());
        let then = link.then();
        // A piece at a time.
        loop {
            let mut queue = link.queue();
            if queue.is_empty() {
                break;
            }
            written.push(queue.remove(0));
        }
        if then != Then::Wait {
            return (written, then);
        }
    }
}

fn append(link: &Link, number: u32) {
    let appended: Result<(), ()> = link.append(|queue| {
        queue.push(number);
        Ok(())
    });
    assert_eq!(appended, Ok(()));
}

/// Every order, but that threads are interrupted no more often than this where they could go on.
const INTERRUPTIONS: usize = 3;

fn every_order(model: impl Fn() + Sync + Send + 'static) {
    // Takes `LOOM_MAX_PREEMPTIONS`, which `make loom` sets.
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(INTERRUPTIONS);
    builder.check(model);
}

fn link() -> Arc<Link> {
    Arc::new(HandOver::new(Vec::new()))
}

#[test]
fn what_is_appended_before_a_drain_is_written_and_in_order() {
    every_order(|| {
        let link = link();
        let writer = thread::spawn({
            let link = link.clone();
            move || write(&link)
        });
        append(&link, 1);
        append(&link, 2);
        link.drain();
        assert_eq!(writer.join().unwrap(), (vec![1, 2], Then::Finish));
    });
}

#[test]
fn what_two_threads_append_is_written_without_anybody_asking_again() {
    every_order(|| {
        let link = link();
        let other = thread::spawn({
            let link = link.clone();
            move || append(&link, 1)
        });
        let writer = thread::spawn({
            let link = link.clone();
            move || write(&link)
        });
        append(&link, 2);
        other.join().unwrap();
        link.drain();
        let (mut written, then) = writer.join().unwrap();
        written.sort_unstable();
        assert_eq!((written, then), (vec![1, 2], Then::Finish));
    });
}

#[test]
fn a_writer_that_sleeps_is_woken_by_what_is_appended() {
    every_order(|| {
        let link = link();
        let other = thread::spawn({
            let link = link.clone();
            move || append(&link, 1)
        });
        // Nothing else wakes it: a wake-up that is lost is a deadlock, which the model finds.
        ready(link.work());
        assert_eq!(*link.queue(), [1]);
        other.join().unwrap();
    });
}

#[test]
fn a_close_wins_over_a_drain_and_the_first_says_why() {
    every_order(|| {
        let link = link();
        let drains = thread::spawn({
            let link = link.clone();
            move || link.drain()
        });
        let closes = thread::spawn({
            let link = link.clone();
            move || {
                link.close("there");
                assert!(link.has_ended());
                *link.end().unwrap()
            }
        });
        link.close("here");
        let first = *link.end().unwrap();
        assert_eq!(closes.join().unwrap(), first);
        drains.join().unwrap();
        assert_eq!((link.then(), *link.end().unwrap()), (Then::Stop, first));
        // Both of its tasks hear of it.
        ready(link.closed());
        ready(link.work());
    });
}

#[test]
fn who_sees_that_it_has_ended_sees_why() {
    every_order(|| {
        let link = link();
        let closes = thread::spawn({
            let link = link.clone();
            move || link.close("there")
        });
        if link.has_ended() {
            assert_eq!(link.end(), Some(&"there"));
        }
        closes.join().unwrap();
    });
}

// What the models are for is found when it is put in.

/// Whether some order goes wrong.
fn goes_wrong(model: impl Fn() + Sync + Send + 'static) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| every_order(model))).is_err()
}

#[test]
fn a_writer_that_looks_for_the_end_after_it_has_taken_loses_what_came_between() {
    assert!(goes_wrong(|| {
        let link = link();
        let writer = thread::spawn({
            let link = link.clone();
            move || {
                let mut written = Vec::new();
                loop {
                    ready(link.work());
                    written.append(&mut link.queue());
                    if link.then() != Then::Wait {
                        return written;
                    }
                }
            }
        });
        append(&link, 1);
        append(&link, 2);
        link.drain();
        assert_eq!(writer.join().unwrap(), [1, 2]);
    }));
}

#[test]
fn who_looks_whether_the_writer_sleeps_before_it_has_the_lock_leaves_it_asleep() {
    assert!(goes_wrong(|| {
        let link = link();
        let wake = Arc::new(crate::sync::Notify::new());
        let writer = thread::spawn({
            let (link, wake) = (link.clone(), wake.clone());
            move || {
                if wake.take() {
                    link.queue().clear();
                }
            }
        });
        for number in [1, 2] {
            let idle = link.queue().is_empty();
            link.queue().push(number);
            if idle {
                wake.notify_one();
            }
        }
        writer.join().unwrap();
        assert!(link.queue().is_empty() || wake.take(), "something waits, and nobody is told");
    }));
}
