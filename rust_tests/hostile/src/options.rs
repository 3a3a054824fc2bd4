//! What the command is told, and links as it says.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::channel::{Profile, Role};
use crate::keys::{public_from_text, Keys, Network};
use crate::link::{Link, Stream};
use crate::peer::{Config, Peer};

/// For an answer, where one has to come.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// For a second link, on a machine that is busy with everything else.
const AGAIN_WAIT: Duration = Duration::from_secs(60);
/// Longer than a handshake may take at the other side.
pub const STALL_WAIT: Duration = Duration::from_secs(12);
/// Engines of ours.
pub const E1: &str = "e1";
pub const E2: &str = "e2";

pub struct Options {
    pub connect: Option<String>,
    pub unix: Option<String>,
    pub profile: Profile,
    pub pem: String,
    pub network: Network,
    pub peer: [u8; 32],
    pub attack: String,
    pub engine: String,
    pub count: usize,
    pub seed: u64,
    pub byte: usize,
    pub node: String,
    pub file: String,
}

impl Options {
    /// From the command line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse() -> Result<Options, String> {
        let mut given = BTreeMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let name = name.strip_prefix("--").ok_or(format!("{name}: what is that?"))?.to_owned();
            let value = arguments.next().ok_or(format!("--{name} wants a value"))?;
            given.insert(name, value);
        }
        let mut take = |name: &str| given.remove(name);
        let number = |name: &str, value: Option<String>, default: usize| match value {
            Some(value) => value.parse::<usize>().map_err(|_| format!("--{name} wants a number")),
            None => Ok(default),
        };
        let key = take("key").ok_or("--key is missing")?;
        let options = Options {
            connect: take("connect"),
            unix: take("unix"),
            profile: match take("profile").as_deref() {
                Some("tls") => Profile::Tls,
                Some("plain") => Profile::Plain,
                Some("local") => Profile::Local,
                _ => return Err("--profile is tls, plain or local".into()),
            },
            pem: std::fs::read_to_string(&key).map_err(|error| format!("{key}: {error}"))?,
            network: network(&take("network").ok_or("--network is missing")?)?,
            peer: take("peer").and_then(|text| public_from_text(&text)).ok_or("--peer wants a public key")?,
            attack: take("attack").ok_or("--attack is missing")?,
            engine: take("engine").unwrap_or("engine".into()),
            count: number("count", take("count"), 100)?,
            seed: number("seed", take("seed"), 1)? as u64,
            byte: number("byte", take("byte"), 0)?,
            node: take("node").unwrap_or("nowhere@nohost".into()),
            file: take("file").unwrap_or_default(),
        };
        match given.keys().next() {
            Some(unknown) => Err(format!("--{unknown} is unknown")),
            None if options.connect.is_some() && options.unix.is_some() => Err("--connect or --unix".into()),
            None => Ok(options),
        }
    }

    /// # Errors
    /// What is wrong with its file.
    pub fn keys(&self) -> Result<Keys, String> {
        Keys::from_pem(&self.pem)
    }

    /// # Errors
    /// When nobody listens.
    pub fn stream(&self) -> Result<Stream, String> {
        if let Some(address) = &self.connect {
            let address = address.to_socket_addrs().ok().and_then(|mut found| found.next());
            let address = address.ok_or("--connect wants HOST:PORT")?;
            let stream =
                TcpStream::connect_timeout(&address, ANSWER_WAIT).map_err(|error| format!("{address}: {error}"))?;
            let set = stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(ANSWER_WAIT)));
            set.map_err(|error| error.to_string())?;
            return Ok(Stream::Tcp(stream));
        }
        let path = self.unix.as_deref().ok_or("--connect or --unix")?;
        let stream = UnixStream::connect(path).map_err(|error| format!("{path}: {error}"))?;
        stream.set_write_timeout(Some(ANSWER_WAIT)).map_err(|error| error.to_string())?;
        Ok(Stream::Unix(stream))
    }

    /// One that dials, with these keys in this network.
    ///
    /// # Errors
    /// What TLS doesn't like.
    pub fn peer_of(&self, keys: Keys, network: Network) -> Result<Peer, String> {
        Peer::new(Config {
            keys,
            network,
            profile: self.profile,
            role: Role::Initiator,
            knock: self.connect.is_some() && self.profile != Profile::Local,
            peer: self.peer,
            now: now(),
        })
    }

    /// # Errors
    /// Of keys and channels.
    pub fn peer(&self) -> Result<Peer, String> {
        self.peer_of(self.keys()?, self.network)
    }

    /// # Errors
    /// When nobody listens.
    pub fn link(&self, peer: Peer) -> Result<Link, String> {
        Link::new(self.stream()?, peer).map_err(|error| error.to_string())
    }

    /// A link that is up, with our engines announced and the other side's certificate here; or what became of it.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn up(&self) -> Result<(Link, bool), String> {
        self.up_with(self.peer()?)
    }

    /// # Errors
    /// When nobody listens.
    pub fn up_with(&self, peer: Peer) -> Result<(Link, bool), String> {
        let mut link = self.link(peer)?;
        if !link.run(ANSWER_WAIT, |link| link.peer.session.is_some() || link.peer.told.is_some())
            || link.peer.session.is_none()
        {
            return Ok((link, false));
        }
        link.peer.announce(&[E1, E2]);
        let up = link.run(ANSWER_WAIT, |link| link.peer.certified || link.peer.told.is_some());
        Ok((link, up))
    }

    /// The same, where the other side may still be busy with a link that has just been closed.
    ///
    /// # Errors
    /// When it isn't up in time.
    pub fn up_again(&self) -> Result<Link, String> {
        let deadline = std::time::Instant::now() + AGAIN_WAIT;
        loop {
            let (link, up) = self.up()?;
            if up && link.peer.told.is_none() {
                return Ok(link);
            }
            if std::time::Instant::now() > deadline {
                return Err(format!("no second link: {}", link.state_unasked()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// 32 bytes, or 64 hexadecimal digits.
fn network(path: &str) -> Result<Network, String> {
    if path == "none" {
        return Ok(Network::default());
    }
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    if let Ok(key) = <[u8; 32]>::try_from(&bytes[..]) {
        return Ok(Network::of(key));
    }
    let digits = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    let key: Option<Vec<u8>> = (0..digits.len())
        .step_by(2)
        .map(|at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    key.and_then(|key| key.try_into().ok()).map(Network::of).ok_or(format!("{path} holds no network key"))
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
