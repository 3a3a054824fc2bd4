//! Real nodes and a real EPMD for tests, each of its own port, each gone when it is dropped; and a daemon's side that writes down
//! what it is told.
#![allow(dead_code, unused_imports)]

mod daemon;
mod epmd;
mod erl;
mod forwarder;
pub mod raw;

use std::future::Future;
use std::net::TcpListener;
use std::time::Duration;

pub use daemon::{config, limits, Event, Message, Recorder, Sent};
pub use epmd::Epmd;
pub use erl::{Erl, ErlOptions};
pub use forwarder::Forwarder;
pub use raw::Raw;

pub const COOKIE: &str = "biscuit";

/// Waits for what must come. The time is for a machine under load, and is never waited out where all is well.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come about"),
    }
}

/// Waits until there is a value.
pub async fn until<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    soon(what, async {
        loop {
            match value() {
                Some(value) => return value,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}
