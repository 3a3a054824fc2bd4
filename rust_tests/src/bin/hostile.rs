//! A peer with real keys that does a handshake properly and then one thing that it shouldn't.
//!
//! ```text
//! hostile (--connect HOST:PORT | --unix PATH) --profile tls|plain|local --key FILE.pem --network FILE|none
//!         --peer ed25519:TEXT --attack NAME [--engine NAME] [--count N] [--seed N] [--byte N] [--node NAME]
//! ```
//!
//! It announces engines `e1` and `e2` of its own, attacks, sends a PING and says what became of it, a line each:
//!
//! ```text
//! sent=3                                 messages or frames of the attack
//! replies=0 errors=forbidden:2           answers to its calls
//! bytes_back=812                         carrier bytes that came (of the last connection)
//! link=alive                             or closed:<code>, closed-silently, silent (no PONG), cut
//! ```
//!
//! It exits with 0 when it could do what it was asked to; what the other side made of it is in those lines.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use legation_channel::channel::Profile;
use legation_proto::frame::batch::{kind, Refusal};
use legation_proto::frame::learn::Learn;
use legation_proto::frame::FrameType;
use legation_proto::hello::Role;
use legation_proto::identity::{NetworkKey, Purpose, RealmId};
use legation_proto::keyring::Keyring;
use legation_proto::limits::Limits;
use legation_proto::UnixMs;
use rust_tests::raw_batch::{frame, RawBatch, RawMessage};
use rust_tests::raw_chain::{say, RawChain};
use rust_tests::raw_peer::{Carrier, RawPeer, RawPeerConfig};
use rust_tests::realm::{fresh_random, Realm};
use rust_tests::term;

const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Longer than a handshake may take at the other side.
const STALL_WAIT: Duration = Duration::from_secs(12);
/// Engines of ours.
const E1: &str = "e1";
const E2: &str = "e2";

fn main() -> ExitCode {
    match Options::parse().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("hostile: {message}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    connect: Option<String>,
    unix: Option<String>,
    profile: Profile,
    key: String,
    network: NetworkKey,
    peer: [u8; 32],
    attack: String,
    engine: String,
    count: usize,
    seed: u64,
    byte: usize,
    node: String,
}

impl Options {
    fn parse() -> Result<Options, String> {
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
        let options = Options {
            connect: take("connect"),
            unix: take("unix"),
            profile: match take("profile").as_deref() {
                Some("tls") => Profile::Tls,
                Some("plain") => Profile::Plain,
                Some("local") => Profile::Local,
                _ => return Err("--profile is tls, plain or local".into()),
            },
            key: take("key").ok_or("--key is missing")?,
            network: network(&take("network").ok_or("--network is missing")?)?,
            peer: public_key(&take("peer").ok_or("--peer is missing")?)?,
            attack: take("attack").ok_or("--attack is missing")?,
            engine: take("engine").unwrap_or("engine".into()),
            count: number("count", take("count"), 100)?,
            seed: number("seed", take("seed"), 1)? as u64,
            byte: number("byte", take("byte"), 0)?,
            node: take("node").unwrap_or("nowhere@nohost".into()),
        };
        match given.keys().next() {
            Some(unknown) => Err(format!("--{unknown} is unknown")),
            None if options.connect.is_some() == options.unix.is_some() => Err("--connect or --unix".into()),
            None => Ok(options),
        }
    }
}

/// 32 bytes, or 64 hexadecimal digits.
fn network(path: &str) -> Result<NetworkKey, String> {
    if path == "none" {
        return Ok(NetworkKey::none());
    }
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    if let Ok(key) = <[u8; 32]>::try_from(&bytes[..]) {
        return Ok(NetworkKey::new(key));
    }
    let digits = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    let key = rust_tests::vectors::from_hex(&digits).and_then(|key| key.try_into().ok());
    key.map(NetworkKey::new).ok_or(format!("{path} holds no network key"))
}

/// `protocol.md` 2.2.
fn public_key(text: &str) -> Result<[u8; 32], String> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bad = || format!("{text} is no public key");
    let digits = text.strip_prefix("ed25519:").filter(|digits| digits.len() == 43).ok_or_else(bad)?;
    let mut bits = Vec::new();
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|known| *known == digit).ok_or_else(bad)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1 == 1));
    }
    let bytes: Vec<u8> =
        bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect();
    bytes.try_into().map_err(|_| bad())
}

fn now() -> UnixMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as UnixMs)
}

/// Xorshift: the same frames for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A carrier that swallows what is written past a number of bytes.
struct Limited {
    stream: Box<dyn Stream>,
    left: usize,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = bytes.len().min(self.left);
        self.stream.write_all(&bytes[..written])?;
        self.left -= written;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

type Link = Carrier<Limited>;

fn open(options: &Options, limit: usize) -> Result<Limited, String> {
    let poll = Some(Duration::from_millis(50));
    let stream: Box<dyn Stream> = if let Some(address) = &options.connect {
        let address = address.to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = address.ok_or("--connect wants HOST:PORT")?;
        let stream =
            TcpStream::connect_timeout(&address, ANSWER_WAIT).map_err(|error| format!("{address}: {error}"))?;
        let set = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(poll));
        set.and_then(|()| stream.set_write_timeout(Some(ANSWER_WAIT))).map_err(|error| error.to_string())?;
        Box::new(stream)
    } else {
        let path = options.unix.as_deref().unwrap_or_default();
        let stream = UnixStream::connect(path).map_err(|error| format!("{path}: {error}"))?;
        let set = stream.set_read_timeout(poll).and_then(|()| stream.set_write_timeout(Some(ANSWER_WAIT)));
        set.map_err(|error| error.to_string())?;
        Box::new(stream)
    };
    Ok(Limited { stream, left: limit })
}

fn raw_peer(options: &Options, network: NetworkKey) -> Result<RawPeer, String> {
    let pem = std::fs::read_to_string(&options.key).map_err(|error| format!("{}: {error}", options.key))?;
    let fresh = fresh_random();
    let keyring = Keyring::from_pem(&pem, &fresh.nonce).map_err(|error| format!("{}: {error}", options.key))?;
    Ok(RawPeer::new(RawPeerConfig {
        realm: Realm::of(keyring, fresh.session),
        network,
        profile: options.profile,
        role: Role::Initiator,
        knock: options.connect.is_some() && options.profile != Profile::Local,
        peer: options.peer,
        limits: Limits::default(),
        random: fresh_random(),
        now: now(),
    }))
}

/// A link that is up, with our engines announced and the other side's certificate here; or what became of it.
fn link_up(options: &Options) -> Result<(Link, bool), String> {
    let peer = raw_peer(options, options.network.clone())?;
    let mut link = Carrier::new(open(options, usize::MAX)?, peer);
    if !link.run(ANSWER_WAIT, |peer| peer.agreed.is_some()) {
        return Ok((link, false));
    }
    link.peer.announce(&[E1, E2]);
    let certified = |peer: &RawPeer| peer.frames.iter().any(|frame| frame.kind == FrameType::Cert as u8);
    let up = link.run(ANSWER_WAIT, |peer| certified(peer) || peer.told().is_some());
    Ok((link, up))
}

fn report(link: &mut Link) {
    let mut errors = BTreeMap::new();
    let mut replies = 0;
    if link.peer.agreed.is_some() {
        for got in link.peer.got() {
            match got.kind {
                kind::REPLY => replies += 1,
                kind::ERROR => {
                    let name = Refusal::from_wire(got.detail).map_or("unknown", Refusal::name);
                    *errors.entry(name).or_insert(0) += 1;
                }
                _ => {}
            }
        }
    }
    let errors: Vec<String> = errors.into_iter().map(|(name, count)| format!("{name}:{count}")).collect();
    println!("replies={replies} errors={}", errors.join(","));
    println!("bytes_back={}", link.peer.bytes_in);
    println!("link={}", state(link));
}

/// Asks with a PING, if there is still somebody to ask.
fn state(link: &mut Link) -> String {
    // Another one each time, so that an earlier PONG isn't taken for this one.
    let token = 0x6c65_6761_7469_6f6e + link.peer.pongs().len() as u64;
    if link.peer.agreed.is_some() && link.peer.told().is_none() && !link.closed {
        link.peer.ping(token);
        link.run(ANSWER_WAIT, |peer| peer.pongs().contains(&token) || peer.told().is_some());
        if link.peer.told().is_none() && link.peer.pongs().contains(&token) {
            return "alive".into();
        }
    }
    match link.peer.told() {
        Some(close) => format!("closed:{}", close.code.name()),
        None if link.closed => "closed-silently".into(),
        None => "silent".into(),
    }
}

fn run(options: &Options) -> Result<(), String> {
    match options.attack.as_str() {
        "stall-at" | "cut-at" => return stall(options),
        "replay-knock" => return replay_knock(options),
        "wrong-network" => return wrong_network(options),
        _ => {}
    }
    let (mut link, up) = link_up(options)?;
    if !up {
        println!("sent=0");
        report(&mut link);
        return Ok(());
    }
    let mut attack = Attack { options, sent: 0, next_call: 1 };
    if options.attack == "other-session" {
        let old = link.peer.cast(E1, &options.engine, &term::text("from another session"));
        // Never sent: it is only signed there. Then a second link.
        link.peer.take_out();
        link.peer.write_frame(FrameType::Close, &[0, 0, 0]);
        link.run(Duration::from_millis(500), |_| false);
        drop(link);
        let (second, up) = again(options)?;
        link = second;
        if up {
            link.peer.write_frame(FrameType::Batch, &old);
            attack.sent += 1;
        }
    } else {
        attack.perform(&mut link)?;
    }
    let calls = attack.next_call as usize - 1;
    link.run(ANSWER_WAIT, |peer| {
        let answers = peer.got().iter().filter(|got| matches!(got.kind, kind::REPLY | kind::ERROR)).count();
        answers >= calls || peer.told().is_some()
    });
    println!("sent={}", attack.sent);
    report(&mut link);
    if options.attack == "none" {
        println!("ok");
    }
    Ok(())
}

/// The other side may still be busy with the link that has just been closed.
fn again(options: &Options) -> Result<(Link, bool), String> {
    let deadline = Instant::now() + ANSWER_WAIT;
    loop {
        let (link, up) = link_up(options)?;
        if up || Instant::now() > deadline {
            return Ok((link, up));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn stall(options: &Options) -> Result<(), String> {
    let peer = raw_peer(options, options.network.clone())?;
    let mut link = Carrier::new(open(options, options.byte)?, peer);
    let from = Instant::now();
    if options.attack == "cut-at" {
        // As long as something moves: what is swallowed moves nothing.
        link.run(ANSWER_WAIT, |_| from.elapsed() > Duration::from_millis(300));
        println!("sent={}\nbytes_back={}\nlink=cut", options.byte - link.io.left, link.peer.bytes_in);
        return Ok(());
    }
    link.run(STALL_WAIT, |peer| peer.told().is_some());
    println!("sent={}\nbytes_back={}", options.byte - link.io.left, link.peer.bytes_in);
    println!("waited_ms={}", from.elapsed().as_millis());
    println!("link={}", state_without_ping(&link));
    Ok(())
}

fn state_without_ping(link: &Link) -> String {
    match link.peer.told() {
        Some(close) => format!("closed:{}", close.code.name()),
        None if link.closed => "closed-silently".into(),
        None if link.peer.agreed.is_some() => "alive".into(),
        None => "silent".into(),
    }
}

fn replay_knock(options: &Options) -> Result<(), String> {
    let mut peer = raw_peer(options, options.network.clone())?;
    let first_flight = peer.take_out();
    peer.write_carrier(&first_flight);
    let mut link = Carrier::new(open(options, usize::MAX)?, peer);
    let first = link.run(ANSWER_WAIT, |peer| peer.agreed.is_some() || peer.told().is_some());
    println!("first={}", if first { "answered" } else { "unanswered" });
    drop(link);

    let mut peer = raw_peer(options, options.network.clone())?;
    peer.take_out();
    peer.write_carrier(&first_flight);
    let mut link = Carrier::new(open(options, usize::MAX)?, peer);
    link.run(STALL_WAIT, |peer| peer.bytes_in > 0);
    println!("sent=2\nbytes_back={}\nlink={}", link.peer.bytes_in, state_without_ping(&link));
    Ok(())
}

fn wrong_network(options: &Options) -> Result<(), String> {
    let peer = raw_peer(options, NetworkKey::new(fresh_random().nonce))?;
    let mut link = Carrier::new(open(options, usize::MAX)?, peer);
    link.run(STALL_WAIT, |peer| peer.told().is_some());
    println!("sent=1\nbytes_back={}\nlink={}", link.peer.bytes_in, state_without_ping(&link));
    Ok(())
}

struct Attack<'a> {
    options: &'a Options,
    sent: usize,
    next_call: u64,
}

impl Attack<'_> {
    fn perform(&mut self, link: &mut Link) -> Result<(), String> {
        let engine = &self.options.engine;
        let good = |text: &str| vec![RawMessage::cast(engine, &term::text(text))];
        match self.options.attack.as_str() {
            "none" => self.send(link, good("hello")),
            "call" => {
                let call = self.call(engine, &term::text("hello"));
                self.send(link, vec![call]);
            }
            "tampered-batch" => {
                self.send(link, good("good 1"));
                self.tampered(link, 1);
                self.send(link, good("good 2"));
            }
            "ten-tampered" => self.tampered(link, 10),
            "replayed-batch" => {
                let body = link.peer.cast(E1, engine, &term::text("once"));
                link.peer.write_frame(FrameType::Batch, &body);
                link.peer.write_frame(FrameType::Batch, &body);
                self.sent += 3;
            }
            "rewrapped" => {
                let batch = link.peer.batch(E1, good("rewrapped"));
                let signature = link.peer.sealed(&batch, E1).split_off(batch.body().len());
                let body = [RawBatch { engine: E2.into(), ..batch }.body(), signature].concat();
                self.batch(link, &body);
                // And signed anew over what it claims, by the wrong engine.
                let batch = link.peer.batch(E2, good("rewrapped"));
                let body = link.peer.sealed(&batch, E1);
                self.batch(link, &body);
            }
            "spliced" => {
                let batch = link.peer.batch(E1, [good("spliced 1"), good("spliced 2")].concat());
                let signature = link.peer.sealed(&batch, E1).split_off(batch.body().len());
                let messages = [good("spliced 2"), good("spliced 1")].concat();
                self.batch(link, &[RawBatch { messages, ..batch }.body(), signature].concat());
                let batch = link.peer.batch(E1, good("spliced 3"));
                let signature = link.peer.sealed(&batch, E1).split_off(batch.body().len());
                self.batch(link, &[RawBatch { messages: good("spliced 4"), ..batch }.body(), signature].concat());
            }
            "spoken-for" => self.spoken_for(link),
            "delegated" => {
                for _ in 0..self.options.count {
                    self.delegated(link, good("delegated"));
                }
            }
            "reserved-targets" => self.reserved_targets(link),
            "disguised-sends" => {
                let with_reference =
                    term::payload(&term::tuple(&[term::reference(&self.options.node, 1), term::small(1)]));
                let reply = ("reference".to_owned(), with_reference);
                for (_, payload) in term::disguises().into_iter().chain([reply]) {
                    self.send(link, vec![RawMessage::send(engine, &payload)]);
                }
            }
            "new-atoms" => self.new_atoms(link),
            "pids" => self.pids(link),
            "bad-terms" => self.bad_terms(link),
            "theft" => self.theft(link),
            "many-engines" => {
                for number in 0..self.options.count {
                    let learn = link.peer.learn(&format!("many {number}"));
                    link.peer.write_learn(&learn);
                    self.sent += 1;
                    if number % 500 == 499 {
                        link.run(Duration::from_millis(1), |_| true);
                    }
                }
            }
            "unknown-frames" => {
                for kind in (0x17..=0xff).chain([0x00, 0x08, 0x0e, 0x10, 0x13]) {
                    link.peer.write(&frame(kind, 0, 5, b"hello"));
                    self.sent += 1;
                }
                println!("uncritical={}", state(link));
                link.peer.write(&frame(0x40, 1, 5, b"hello"));
                self.sent += 1;
            }
            "garbage" => {
                let mut random = Random(self.options.seed | 1);
                for _ in 0..self.options.count {
                    let length = random.below(200) as usize;
                    let kind = if random.below(2) == 0 { random.below(0x18) } else { random.below(256) } as u8;
                    let body = random.bytes(length);
                    link.peer.write(&frame(kind, u8::from(random.below(4) > 0), length as u32, &body));
                    self.sent += 1;
                    link.run(Duration::from_millis(20), |_| true);
                }
            }
            // Trusted to sign later, it never does, or wrongly, or as it should; what it sends goes without a signature.
            "unproven" | "wrongly-proven" | "proven" => {
                let mut chain = RawChain::of(&link.peer);
                for text in ["on trust 1", "on trust 2"] {
                    chain.send(&mut link.peer, good(text));
                    self.sent += 1;
                }
                match self.options.attack.as_str() {
                    "proven" => chain.prove(&mut link.peer),
                    "wrongly-proven" => say(&mut link.peer, &chain.right(), &[7; 64]),
                    _ => {}
                }
                let proven = self.options.attack == "proven";
                link.run(ANSWER_WAIT, |peer| proven || peer.told().is_some());
            }
            "gap" => {
                link.peer.next_sequence += 5;
                self.send(link, good("beyond a gap"));
            }
            unknown => return Err(format!("{unknown}: no such attack")),
        }
        Ok(())
    }

    fn send(&mut self, link: &mut Link, messages: Vec<RawMessage>) {
        self.sent += messages.len();
        link.peer.send(E1, messages);
        link.run(Duration::from_millis(1), |_| true);
    }

    fn batch(&mut self, link: &mut Link, body: &[u8]) {
        self.sent += 1;
        link.peer.write_frame(FrameType::Batch, body);
    }

    /// By the realm's online key.
    fn delegated(&mut self, link: &mut Link, messages: Vec<RawMessage>) {
        let batch = RawBatch { mode: 2, ..link.peer.batch("", messages) };
        let body = link.peer.sealed(&batch, "");
        self.batch(link, &body);
    }

    /// For an engine that has said that it wants that, and for those that haven't.
    fn spoken_for(&mut self, link: &mut Link) {
        let own = Learn { delegate: false, ..link.peer.learn(E2) };
        link.peer.write_learn(&own);
        let engine = self.options.engine.clone();
        let from = |source: &str, text: &str| RawMessage {
            source: source.into(),
            ..RawMessage::cast(&engine, &term::text(text))
        };
        let call = RawMessage { source: E2.into(), ..self.call(&engine, &term::text("forged")) };
        let messages = vec![
            from(E1, "one"),
            from(E2, "forged"),
            from("unknown", "forged"),
            call,
            from("", "two"),
            from(E1, "three"),
        ];
        self.delegated(link, messages);
        link.peer.send(E2, vec![RawMessage::cast(&engine, &term::text("four"))]);
        self.sent += 1;
    }

    fn call(&mut self, engine: &str, payload: &[u8]) -> RawMessage {
        let call_id = self.next_call;
        self.next_call += 1;
        RawMessage::call(engine, call_id, 1, payload)
    }

    /// The same payload in every way there is.
    fn all_ways(&mut self, engine: &str, payload: &[u8]) -> Vec<RawMessage> {
        let call = self.call(engine, payload);
        vec![RawMessage::cast(engine, payload), RawMessage::send(engine, payload), call]
    }

    fn tampered(&mut self, link: &mut Link, count: usize) {
        for _ in 0..count {
            let messages = vec![RawMessage::cast(&self.options.engine, &term::text("tampered"))];
            let batch = link.peer.batch(E1, messages);
            let mut body = link.peer.sealed(&batch, E1);
            // The last letter of the payload.
            let at = body.len() - 65;
            body[at] ^= 1;
            self.batch(link, &body);
        }
    }

    fn reserved_targets(&mut self, link: &mut Link) {
        let targets = [
            "init",
            "rex",
            "code_server",
            "net_kernel",
            "kernel_sup",
            "application_controller",
            "erl_prim_loader",
            "error_logger",
            "logger",
            "file_server_2",
            "global_name_server",
            "inet_db",
            "user",
            "Elixir.Legation.Supervisor",
            "Elixir.Legation.Directory",
            "Elixir.Legation.Keyholder",
            "Elixir.Legation",
        ];
        let payload = term::text("reserved");
        for target in targets {
            let messages = self.all_ways(target, &payload);
            self.send(link, messages);
        }
    }

    fn new_atoms(&mut self, link: &mut Link) {
        let engine = self.options.engine.clone();
        let tag = fresh_random().knock.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for start in (0..self.options.count).step_by(100) {
            let mut messages = Vec::new();
            for number in start..self.options.count.min(start + 100) {
                let mut name = format!("new_{tag}_{number}");
                if number % 10 == 0 {
                    name += &"x".repeat(255 - name.len());
                }
                let payload = term::payload(&term::atom(&name));
                messages.push(match number % 2 {
                    0 => RawMessage::cast(&engine, &payload),
                    _ => self.call(&engine, &payload),
                });
            }
            self.send(link, messages);
        }
    }

    fn pids(&mut self, link: &mut Link) {
        let engine = self.options.engine.clone();
        for node in ["unknown_node@nowhere", &self.options.node] {
            let fun = [vec![112, 0, 0, 0, 30, 0], vec![7; 40]].concat();
            let elements = [
                term::pid(node, 99_999),
                term::reference(node, 99_999),
                term::port(node, 99_999),
                fun,
                term::export("erlang", "halt", 0),
                term::tuple(&[term::small(1), term::list(&[term::pid(node, 99_999)], &[106])]),
            ];
            for element in elements {
                let messages = self.all_ways(&engine, &term::payload(&element));
                self.send(link, messages);
            }
        }
    }

    fn bad_terms(&mut self, link: &mut Link) {
        let engine = self.options.engine.clone();
        let compressed =
            [&[131, 80][..], &u32::MAX.to_be_bytes(), &[0x78, 0x9c, 0x4b, 0x4c, 0x4a, 0x06, 0x00]].concat();
        // All together less than an engine gives credit for.
        let terms = [
            [vec![131], [104, 1].repeat(15_000), vec![106]].concat(),
            [vec![131], [108, 0, 0, 0, 1].repeat(6_000), vec![106]].concat(),
            vec![131, 108, 255, 255, 255, 255],
            vec![131, 105, 255, 255, 255, 255],
            vec![131, 116, 255, 255, 255, 255],
            // A key twice: over distribution ERTS drops the connection for it.
            vec![131, 116, 0, 0, 0, 2, 97, 1, 97, 1, 97, 1, 97, 2],
            vec![131, 116, 0, 0, 0, 2, 97, 1, 97, 1, 98, 0, 0, 0, 1, 97, 2],
            vec![131, 104, 1, 116, 0, 0, 0, 2, 107, 0, 1, 5, 97, 1, 108, 0, 0, 0, 1, 97, 5, 106, 97, 2],
            vec![131, 109, 255, 255, 255, 255],
            vec![131, 111, 255, 255, 255, 255, 0],
            compressed,
            vec![131, 108, 0, 0, 0, 0, 106],
            vec![131, 82, 0],
            vec![131, 68, 0],
            vec![131],
            vec![],
            vec![130, 106],
            vec![131, 106, 0],
        ];
        for term in terms {
            let messages = self.all_ways(&engine, &term);
            self.send(link, messages);
        }
    }

    fn theft(&mut self, link: &mut Link) {
        let network = link.peer.network.id();
        let theirs = RealmId::of(&self.options.peer);
        // Another realm's engine, the other side's own, a name of ours that somebody else signs.
        let mut learn = link.peer.learn(&self.options.engine);
        learn.realm = RealmId([7; 32]);
        link.peer.write_learn(&learn);
        learn.realm = theirs;
        link.peer.write_learn(&learn);
        let stranger = Keyring::new(&[66; 32], &[67; 32]);
        let learn = link.peer.learn(&self.options.engine);
        let mut body = learn.body();
        body.extend(stranger.sign(Purpose::Learn, &network, &learn.body()).expect("its identity is here"));
        link.peer.write_frame(FrameType::Learn, &body);
        let mut forget = link.peer.forget(&self.options.engine);
        forget.realm = theirs;
        link.peer.write_forget(&forget);
        self.sent += 4;
    }
}
