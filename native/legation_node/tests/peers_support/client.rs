//! A link over a socket that sends so many bytes and no more, and reads or doesn't.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use legation_channel::channel::Profile;
use legation_channel::knock::{KnockMemory, KnockSettings};
use legation_channel::link::{Link, LinkConfig, LinkEvent, LinkRandom, Resume};
use legation_node::identity::Identity;
use legation_proto::limits::Limits;
use legation_proto::session::{Event, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::now_ms;

/// How a connection went.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sent: usize,
    pub received: usize,
    pub up: bool,
    /// The code of the other side's CLOSE.
    pub closed: Option<&'static str>,
    /// The other side has closed the carrier.
    pub end_of_stream: bool,
}

pub struct Client {
    pub stream: TcpStream,
    pub link: Link,
    pub outcome: Outcome,
    /// What it goes on with, if it is asked to.
    pub resume: Option<Arc<Session>>,
}

impl Client {
    /// Dials as this identity.
    pub async fn dial(to: SocketAddr, identity: &Identity, peer: &[u8; 32], profile: Profile) -> Client {
        let stream = TcpStream::connect(to).await.unwrap();
        let link = Link::connect(config(identity, profile), peer, true, None).unwrap();
        Client { stream, link, outcome: Outcome::default(), resume: None }
    }

    /// Dials with one more link for a session.
    pub async fn join(to: SocketAddr, identity: &Identity, peer: &[u8; 32], session: Arc<Session>) -> Client {
        let stream = TcpStream::connect(to).await.unwrap();
        let resume = Some(Resume { session, additional: true });
        let link = Link::connect(config(identity, Profile::Tls), peer, true, resume).unwrap();
        Client { stream, link, outcome: Outcome::default(), resume: None }
    }

    /// Answers whoever has dialled this, once it has knocked.
    pub async fn answer(mut stream: TcpStream, identity: &Identity, profile: Profile) -> Client {
        let memory = KnockMemory::new(KnockSettings::default(), now_ms() - 60_000);
        let link = Link::accept_from(config(identity, profile), Some(Arc::new(Mutex::new(memory)))).unwrap();
        // All of it: what is closed over unread bytes is reset.
        let mut knock = vec![0; 60];
        stream.read_exact(&mut knock).await.unwrap();
        knock.resize(60 + usize::from(u16::from_le_bytes([knock[58], knock[59]])), 0);
        stream.read_exact(&mut knock[60..]).await.unwrap();
        let mut client = Client { stream, link, outcome: Outcome::default(), resume: None };
        client.take(&knock);
        client
    }

    /// Goes on until the session is up, the other side has closed, or `budget` bytes in all were sent.
    pub async fn run(&mut self, budget: usize) {
        loop {
            let mut out = Vec::new();
            self.link.flush(&mut out).unwrap();
            let allowed = out.len().min(budget - self.outcome.sent);
            if self.stream.write_all(&out[..allowed]).await.is_err() {
                self.outcome.end_of_stream = true;
                return;
            }
            self.outcome.sent += allowed;
            if self.outcome.sent == budget || self.outcome.up || self.outcome.closed.is_some() {
                return;
            }
            if !self.read().await {
                return;
            }
        }
    }

    /// One read. False: nothing more comes.
    pub async fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let Ok(read @ 1..) = self.stream.read(&mut buffer).await else {
            self.outcome.end_of_stream = true;
            return false;
        };
        self.take(&buffer[..read]);
        true
    }

    fn take(&mut self, bytes: &[u8]) {
        self.outcome.received += bytes.len();
        let (mut decide, mut up, mut closed) = (false, false, None);
        self.link.handle_bytes(now_ms(), bytes, &mut |event| match event {
            LinkEvent::Decide { .. } => decide = true,
            LinkEvent::Up { .. } => up = true,
            LinkEvent::Session(Event::Closed { code, .. }) => closed = Some(code.name()),
            LinkEvent::Fault(fault) => panic!("{fault}"),
            _ => {}
        });
        if decide {
            self.link
                .accept(now_ms(), self.resume.take(), None, &mut |event| up |= matches!(event, LinkEvent::Up { .. }));
        }
        self.outcome.up |= up;
        self.outcome.closed = self.outcome.closed.or(closed);
    }
}

fn config(identity: &Identity, profile: Profile) -> LinkConfig {
    let mut random = [0; 112];
    getrandom::fill(&mut random).unwrap();
    let part = |at: usize| random[at..at + 32].try_into().unwrap();
    LinkConfig {
        profile,
        keyring: identity.keyring.clone(),
        network: identity.network.clone(),
        tls: identity.tls.clone(),
        // Nobody works off what comes.
        limits: Limits { credit_bytes: 0, ..Limits::default() },
        random: LinkRandom {
            knock: random[..16].try_into().unwrap(),
            nonce: part(16),
            ephemeral: part(48),
            session: part(80),
        },
        now: now_ms(),
    }
}
