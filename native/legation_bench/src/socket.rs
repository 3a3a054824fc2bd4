//! Drives a link over a real socket as the NIF's processes do: a reader that never sends, a writer that flushes when it is woken.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use legation_channel::channel::Profile;
use legation_channel::link::{Link, LinkEvent};
use legation_proto::session::{Acknowledge, Event, Session};

use crate::end::now;
use crate::Outcome;

const READ_BYTES: usize = 256 * 1024;
/// How long an acknowledgement waits for something to go with.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(50);

/// One end of a connection, twice.
pub struct Carrier {
    read: Box<dyn Read + Send>,
    write: Box<dyn Write + Send>,
}

pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// With the address that it is bound to.
    pub fn bind(profile: Profile, address: &str) -> Outcome<(Listener, String)> {
        if profile == Profile::Local {
            return Ok((Listener::Unix(UnixListener::bind(address)?), address.to_owned()));
        }
        let listener = TcpListener::bind(address)?;
        let bound = listener.local_addr()?.to_string();
        Ok((Listener::Tcp(listener), bound))
    }

    pub fn accept(&self) -> Outcome<Carrier> {
        match self {
            Listener::Tcp(listener) => Carrier::tcp(listener.accept()?.0),
            Listener::Unix(listener) => Carrier::unix(listener.accept()?.0),
        }
    }
}

impl Carrier {
    pub fn connect(profile: Profile, address: &str) -> Outcome<Carrier> {
        match profile {
            Profile::Local => Carrier::unix(UnixStream::connect(address)?),
            _ => Carrier::tcp(TcpStream::connect(address)?),
        }
    }

    fn tcp(stream: TcpStream) -> Outcome<Carrier> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ACKNOWLEDGE_AFTER))?;
        Ok(Carrier { read: Box::new(stream.try_clone()?), write: Box::new(stream) })
    }

    fn unix(stream: UnixStream) -> Outcome<Carrier> {
        stream.set_read_timeout(Some(ACKNOWLEDGE_AFTER))?;
        Ok(Carrier { read: Box::new(stream.try_clone()?), write: Box::new(stream) })
    }
}

/// A link and its writer's signals.
pub struct Driven {
    pub link: Link,
    woken: Mutex<bool>,
    wake: Condvar,
    /// How often something has been sent.
    flushed: Mutex<u64>,
    room: Condvar,
}

/// What is made of events. `followed` is called behind all that one read brought, when the session may be asked again.
pub trait Sink: Send {
    fn event(&mut self, event: Event<'_>);
    /// True: something waits to be sent.
    fn followed(&mut self, session: &Session) -> bool;
}

impl Driven {
    pub fn new(link: Link) -> Arc<Driven> {
        let (woken, flushed) = (Mutex::new(true), Mutex::new(0));
        Arc::new(Driven { link, woken, wake: Condvar::new(), flushed, room: Condvar::new() })
    }

    pub fn wake(&self) {
        *lock(&self.woken) = true;
        self.wake.notify_one();
    }

    /// Until the writer has sent something more, or a little later.
    pub fn wait_room(&self) {
        let flushed = lock(&self.flushed);
        let before = *flushed;
        drop(self.room.wait_timeout_while(flushed, Duration::from_millis(10), |now| *now == before));
    }

    /// Sends until the connection breaks.
    pub fn write(&self, carrier: &mut dyn Write) -> Outcome<()> {
        let mut out = Vec::new();
        loop {
            let woken = self.wake.wait_while(lock(&self.woken), |woken| !*woken);
            *woken.unwrap_or_else(PoisonError::into_inner) = false;
            loop {
                out.clear();
                let more = self.link.flush(&mut out)?;
                carrier.write_all(&out)?;
                *lock(&self.flushed) += 1;
                self.room.notify_all();
                if !more {
                    break;
                }
            }
        }
    }

    /// Reads until the connection ends. `up` is told of the session once.
    pub fn read(
        &self,
        carrier: &mut dyn Read,
        sink: &mut dyn Sink,
        mut up: impl FnMut(&Arc<Session>) -> Outcome<()>,
    ) -> Outcome<()> {
        let mut buffer = vec![0; READ_BYTES];
        let (mut told_up, mut owes) = (false, false);
        loop {
            let count = match carrier.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if let (true, Some(session)) = (std::mem::take(&mut owes), self.link.session()) {
                        if session.acknowledge_now() {
                            self.wake();
                        }
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let mut wake = self.handle(&buffer[..count], sink)?;
            if let Some(session) = self.link.session() {
                if !std::mem::replace(&mut told_up, true) {
                    up(session)?;
                    wake = true;
                }
                wake |= sink.followed(session);
                wake |= grant(session);
                match session.delivered() {
                    Acknowledge::Wake => wake = true,
                    Acknowledge::Later => owes = true,
                    Acknowledge::Nothing => {}
                }
            }
            if wake {
                self.wake();
            }
        }
    }

    fn handle(&self, bytes: &[u8], sink: &mut dyn Sink) -> Outcome<bool> {
        let (mut decide, mut fault) = (false, None);
        let mut take = |event: LinkEvent<'_>| match event {
            LinkEvent::Decide { .. } => decide = true,
            LinkEvent::Fault(error) => fault = Some(error.to_string()),
            LinkEvent::Session(event) => sink.event(event),
            LinkEvent::Up { .. } | LinkEvent::Sign(_) => {}
        };
        let mut wake = self.link.handle_bytes(now(), bytes, &mut take);
        if std::mem::take(&mut decide) {
            let mut take = |event: LinkEvent<'_>| {
                if let LinkEvent::Session(event) = event {
                    sink.event(event);
                }
            };
            wake |= self.link.accept(now(), None, None, &mut take);
        }
        match fault {
            Some(fault) => Err(fault.into()),
            None => Ok(wake.any()),
        }
    }
}

/// Mailboxes are always empty here: all credit goes back at once.
pub fn grant(session: &Session) -> bool {
    let mut due = Vec::new();
    session.debts(|destination, _messages| due.push(destination.to_owned()));
    due.iter().fold(false, |wake, destination| session.grant(destination, 0) | wake)
}

/// Starts both, and returns when the reader does.
pub fn drive(
    driven: &Arc<Driven>,
    carrier: Carrier,
    sink: &mut dyn Sink,
    up: impl FnMut(&Arc<Session>) -> Outcome<()>,
) -> Outcome<()> {
    let Carrier { mut read, mut write } = carrier;
    let writer = driven.clone();
    // It ends with the connection, which the reader sees.
    std::thread::spawn(move || writer.write(&mut *write).map_err(|error| error.to_string()));
    driven.read(&mut *read, sink, up)
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
