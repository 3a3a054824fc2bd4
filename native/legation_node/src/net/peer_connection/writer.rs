//! The writer of a connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use legation_channel::link::Link;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at, Instant};

use super::control::{Control, Wanted};
use crate::net::carrier::{CarrierError, WriteHalf};
use crate::peers::SessionEvents;

/// What a burst has blown up beyond this is given back when the link is idle.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// The reader's handle. Dropped, it ends the writer.
pub(super) struct Writer {
    control: Arc<Control>,
    finish: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    pub(super) fn start(
        link: Arc<Link>,
        half: WriteHalf,
        control: Arc<Control>,
        events: Arc<dyn SessionEvents>,
        send_timeout: Duration,
    ) -> Writer {
        let finish = Arc::new(AtomicBool::new(false));
        let sending = Sending { link, half, finish: finish.clone(), control: control.clone(), events, send_timeout };
        Writer { control, finish, task: tokio::spawn(sending.run()) }
    }

    /// Sends what is there, and ends. False: it could not until then.
    pub(super) async fn finish(&mut self, until: Instant) -> bool {
        self.finish.store(true, Ordering::Release);
        self.control.wake.notify_one();
        timeout_at(until, &mut self.task).await.is_ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Sending {
    link: Arc<Link>,
    half: WriteHalf,
    finish: Arc<AtomicBool>,
    control: Arc<Control>,
    events: Arc<dyn SessionEvents>,
    send_timeout: Duration,
}

impl Sending {
    async fn run(mut self) {
        if let Err(error) = self.send_all().await {
            self.control.want(Wanted::Broken(error));
        }
    }

    async fn send_all(&mut self) -> Result<(), CarrierError> {
        let mut out = Vec::new();
        loop {
            // Before the flush: what was queued before the wish is in it.
            let last = self.finish.load(Ordering::Acquire);
            let more = self.link.flush(&mut out).map_err(|_| CarrierError::System("channel"))?;
            self.send(&out).await?;
            out.clear();
            self.control.flushed(self.events.as_ref());
            if more {
                continue;
            }
            if last {
                return Ok(());
            }
            if out.capacity() > KEPT_BYTES_MAX {
                out = Vec::new();
            }
            self.control.wake.notified().await;
        }
    }

    /// The time-out is for a peer that takes nothing, not for one that takes it slowly.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), CarrierError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = timeout(self.send_timeout, self.half.write(rest)).await.map_err(|_| CarrierError::TIMEOUT)?;
            match sent {
                Ok(0) => return Err(CarrierError::CLOSED),
                Ok(sent) => rest = &rest[sent..],
                Err(error) => return Err(CarrierError::broken(&error)),
            }
        }
        Ok(())
    }
}
