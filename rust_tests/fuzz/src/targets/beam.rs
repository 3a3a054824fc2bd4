//! The whole daemon under a BEAM that turns hostile: a realm in this process, with a real listener, and a node that knows the cookie, goes through
//! the handshake and then says anything: control messages of all kinds with pids and references of its own, of the realm's and of nobody's, requests
//! to the engine `legation`, frames that are none.
//!
//! Whatever it says, no task panics, and another node is answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Once};
use std::time::Duration;

use arbitrary::Arbitrary;
use legation_node::config::parse;
use legation_node::dist::control::encode::{self, TargetTerm};
use legation_node::dist::flags;
use legation_node::dist::handshake::{Handshake, LocalNode, NodeName, Outcome};
use legation_node::dist::outbound::{Outbound, OutboundConfig};
use legation_node::dist::term::{self, OwnNode};
use legation_node::identity::Identity;
use legation_node::realm::Realm;
use legation_proto::identity::NetworkKey;
use legation_proto::keyring::Keyring;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::{elements, script, scripts, Many};
use crate::Target;

pub const TARGET: Target = Target {
    name: "beam",
    what: "the daemon under a hostile BEAM that knows the cookie",
    run,
    seeds,
    bytes_max: 1_024,
};

const COOKIE: &str = "biscuit";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Arbitrary, Debug)]
struct Script {
    headers: bool,
    noise: Vec<u8>,
    says: Many<Say, 24>,
}

#[derive(Arbitrary, Debug)]
enum Say {
    Send {
        to: Process,
        sender: bool,
        what: What,
    },
    RegSend {
        name: u8,
        what: What,
    },
    AliasSend {
        alias: Reference,
        what: What,
    },
    Link {
        to: Process,
    },
    Unlink {
        id: u8,
        to: Process,
    },
    UnlinkAck {
        id: u8,
        to: Process,
    },
    Exit {
        to: Process,
        two: bool,
        what: What,
    },
    Monitor {
        target: Target2,
        reference: Reference,
    },
    Demonitor {
        target: Target2,
        reference: Reference,
    },
    Down {
        from: Target2,
        to: Process,
        reference: Reference,
    },
    /// An operation and elements that are anything.
    Control {
        operation: u8,
        elements: Vec<Element>,
        what: Option<What>,
    },
    Frame(Vec<u8>),
    Tick,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
struct Process {
    whose: u8,
    number: u8,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
struct Reference {
    whose: u8,
    number: u8,
}

#[derive(Arbitrary, Debug)]
enum Target2 {
    Process(Process),
    Name(u8),
}

#[derive(Arbitrary, Debug)]
enum Element {
    Any(u8),
    Process(Process),
    Reference(Reference),
    Number(u8),
}

#[derive(Arbitrary, Debug)]
enum What {
    Element(u8),
    Bytes(Vec<u8>),
    /// A request to `legation`: the first element of a tuple, and what follows.
    Request {
        word: u8,
        more: Vec<Element>,
    },
    Cast {
        word: u8,
        more: Vec<Element>,
    },
    Answer {
        reference: Reference,
        what: u8,
    },
    StandIn {
        call: u8,
        what: u8,
    },
}

const NAMES: [&str; 8] =
    ["legation", "net_kernel", "legation_echo", "ping@bob", "nobody", "", "\u{e9}", "global_name_server"];

/// What the engine `legation` understands (`docs/c-node.md`), and what it doesn't. Not among them: what ends it, or opens files.
const WORDS: [&str; 24] = [
    "publish",
    "withdraw",
    "whereis",
    "engines",
    "peers",
    "info",
    "counters",
    "connections",
    "monitor_peers",
    "demonitor_peers",
    "disconnect",
    "update_peer",
    "key",
    "public_key",
    "find",
    "providers",
    "gate",
    "wait_room",
    "verify_receipt",
    "remove_listener",
    "listeners",
    "is_auth",
    "closed",
    "nonsense",
];

struct World {
    runtime: Runtime,
    realm: Arc<Realm>,
    runs: u64,
}

static PANICS: AtomicU64 = AtomicU64::new(0);

fn world() -> &'static Mutex<World> {
    static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| {
        static HOOK: Once = Once::new();
        // A task that panics ends alone; here it is to be heard of.
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if info.location().is_some_and(|place| place.file().contains("legation_node")) {
                    PANICS.fetch_add(1, Ordering::Relaxed);
                }
                before(info);
            }));
        });
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let text = format!(
            "realm = \"alice\"\nkey = \"none.pem\"\n[node]\nname = \"legation@127.0.0.1\"\ncookie = \"{COOKIE}\"\n\
             epmd = false\nlisten = \"127.0.0.1:0\"\necho = true\n"
        );
        let realm = runtime.block_on(async {
            // Without EPMD a port is to be said; the kernel's choice is put there.
            let port = free_port();
            let text = text.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
            let config = parse("fuzz.toml", &text, std::path::Path::new("/nowhere")).expect("a configuration").config;
            let identity = Identity::of_keyring(Keyring::new(&[1; 32], &[2; 32]), NetworkKey::none()).expect("a key");
            Realm::start(config, identity).await.expect("it starts")
        });
        Mutex::new(World { runtime, realm, runs: 0 })
    });
    &WORLD
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn run(input: &[u8]) {
    let Some(script) = script::<Script>(input) else { return };
    let mut world = world().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    world.runs += 1;
    let name = format!("n{}@127.0.0.1", world.runs);
    let port = world.realm.node_port();
    let ours = world.realm.node_name().to_owned();
    world.runtime.block_on(async {
        let (mut stream, header) = connected(port, &name, script.headers).await;
        let bytes = written(&script, &name, &ours, header);
        let (mut reading, mut writing) = stream.split();
        let said = async {
            // It may close at any time.
            let _ = writing.write_all(&bytes).await;
            let _ = writing.shutdown().await;
        };
        let mut sink = vec![0; 64 * 1024];
        let heard = async { while matches!(reading.read(&mut sink).await, Ok(1..)) {} };
        let ended = timeout(PATIENCE, async { tokio::join!(said, heard) }).await;
        assert!(ended.is_ok(), "the connection doesn't end");
        if world.runs.is_multiple_of(16) {
            answers(port, &format!("w{}@127.0.0.1", world.runs)).await;
        }
    });
    assert_eq!(PANICS.swap(0, Ordering::Relaxed), 0, "a task of the daemon has panicked");
}

/// Somebody else is answered: a call to the echo.
async fn answers(port: u16, name: &str) {
    let (mut stream, header) = connected(port, name, false).await;
    let node = OwnNode::new(name, 1);
    let (mut pid, mut reference, mut control) = (Vec::new(), Vec::new(), Vec::new());
    node.pid(&mut pid, 5, 0);
    node.reference(&mut reference, [1, 2, 3]);
    encode::reg_send(&mut control, &pid, "legation_echo");
    let from = tuple(&[&pid, &reference]);
    let call = tuple(&[&atom("$gen_call"), &from, &atom("alive")]);
    let mut outbound = Outbound::new(OutboundConfig { header, queue_bytes_max: 1 << 20 });
    outbound.push(0, &control, &[&call]).expect("there is room");
    let mut out = Vec::new();
    outbound.take(&mut out, 1 << 20);
    stream.write_all(&out).await.expect("it reads");
    let answer = async {
        let mut all = Vec::new();
        loop {
            let read = stream.read_buf(&mut all).await.expect("it lives");
            assert!(read > 0, "it has closed");
            if all.windows(5).any(|window| window == b"alive") {
                return;
            }
        }
    };
    timeout(PATIENCE, answer).await.expect("an answer");
}

async fn connected(port: u16, name: &str, plain: bool) -> (TcpStream, bool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let offered = if plain { flags::OFFERED & !flags::FRAGMENTS } else { flags::OFFERED };
    let local = LocalNode {
        name: NodeName::parse(name).expect("a name"),
        creation: 1,
        flags: offered,
        cookie: COOKIE.to_owned().into(),
    };
    let mut handshake = Handshake::initiator(local, NodeName::parse("legation@127.0.0.1").expect("a name"));
    let mut piece = [0; 1_024];
    loop {
        let mut out = Vec::new();
        handshake.poll_transmit(&mut out);
        stream.write_all(&out).await.expect("it reads");
        match handshake.poll_outcome() {
            Some(Outcome::Up(established)) => return (stream, flags::framed_with_header(offered, established.flags)),
            Some(Outcome::Alive) => handshake.answer_alive(true),
            Some(other) => panic!("{other:?}"),
            None => {
                let bytes = timeout(PATIENCE, stream.read(&mut piece)).await.expect("an answer").expect("it lives");
                assert!(bytes > 0, "it refuses");
                handshake.handle_bytes(&piece[..bytes]);
            }
        }
    }
}

fn atom(text: &str) -> Vec<u8> {
    let mut atom = Vec::new();
    term::put_atom(&mut atom, text);
    atom
}

fn tuple(elements: &[&[u8]]) -> Vec<u8> {
    [&[104, elements.len() as u8], &elements.concat()[..]].concat()
}

struct Nodes {
    own: OwnNode,
    realm: OwnNode,
    other: OwnNode,
}

impl Nodes {
    fn of(&self, whose: u8) -> &OwnNode {
        match whose % 4 {
            0 | 1 => &self.own,
            2 => &self.realm,
            _ => &self.other,
        }
    }

    fn pid(&self, process: Process) -> Vec<u8> {
        let mut pid = Vec::new();
        self.of(process.whose).pid(&mut pid, (process.number % 8).into(), (process.number / 128).into());
        pid
    }

    fn reference(&self, reference: Reference) -> Vec<u8> {
        let mut out = Vec::new();
        self.of(reference.whose).reference(&mut out, [(reference.number % 4).into(), 0, 0]);
        out
    }

    fn element(&self, element: &Element) -> Vec<u8> {
        match element {
            Element::Any(number) => {
                let all = elements();
                all[usize::from(*number) % all.len()].clone()
            }
            Element::Process(process) => self.pid(*process),
            Element::Reference(reference) => self.reference(*reference),
            Element::Number(number) => vec![97, *number],
        }
    }

    fn what(&self, what: &What) -> Vec<u8> {
        let request = |word: &u8, more: &[Element]| {
            let mut parts = vec![atom(WORDS[usize::from(word % 24)])];
            parts.extend(more.iter().take(4).map(|element| self.element(element)));
            match parts.len() {
                1 => parts.remove(0),
                _ => tuple(&parts.iter().map(|part| &part[..]).collect::<Vec<_>>()),
            }
        };
        let any = |number: &u8| self.element(&Element::Any(*number));
        match what {
            What::Element(number) => any(number),
            What::Bytes(bytes) => bytes.clone(),
            What::Request { word, more } => {
                let from = tuple(&[
                    &self.pid(Process { whose: 0, number: 5 }),
                    &self.reference(Reference { whose: 0, number: 1 }),
                ]);
                tuple(&[&atom("$gen_call"), &from, &request(word, more)])
            }
            What::Cast { word, more } => tuple(&[&atom("$gen_cast"), &request(word, more)]),
            What::Answer { reference, what } => tuple(&[&self.reference(*reference), &any(what)]),
            What::StandIn { call, what } => {
                let tag = tuple(&[&atom("$legation"), &[97, *call], &atom("bob"), &atom("ping")]);
                tuple(&[&tag, &any(what)])
            }
        }
    }
}

fn written(script: &Script, name: &str, ours: &str, header: bool) -> Vec<u8> {
    let nodes = Nodes {
        own: OwnNode::new(name, 1),
        // Its creation is not known to who guesses; pids of it come back in what it says.
        realm: OwnNode::new(ours, 1),
        other: OwnNode::new("c@example.org", 3),
    };
    let from = nodes.pid(Process { whose: 0, number: 5 });
    let mut outbound = Outbound::new(OutboundConfig { header, queue_bytes_max: 1 << 24 });
    let mut out = Vec::new();
    for say in &script.says.0 {
        let mut control = Vec::new();
        let mut payload = None;
        let names = |number: &u8| NAMES[usize::from(number % 8)].as_bytes();
        // Borrowed by targets.
        let target_pid = match say {
            Say::Monitor { target: Target2::Process(process), .. }
            | Say::Demonitor { target: Target2::Process(process), .. }
            | Say::Down { from: Target2::Process(process), .. } => nodes.pid(*process),
            _ => Vec::new(),
        };
        let target = |target: &Target2| match target {
            Target2::Process(_) => TargetTerm::Pid(&target_pid),
            Target2::Name(number) => TargetTerm::Name(names(number)),
        };
        match say {
            Say::Send { to, sender, what } => {
                match sender {
                    true => encode::send_sender(&mut control, &from, &nodes.pid(*to)),
                    false => encode::send(&mut control, &nodes.pid(*to)),
                }
                payload = Some(what);
            }
            Say::RegSend { name, what } => {
                encode::reg_send(&mut control, &from, names(name));
                payload = Some(what);
            }
            Say::AliasSend { alias, what } => {
                encode::alias_send(&mut control, &from, &nodes.reference(*alias));
                payload = Some(what);
            }
            Say::Link { to } => encode::link(&mut control, &from, &nodes.pid(*to)),
            Say::Unlink { id, to } => encode::unlink_id(&mut control, &[97, *id], &from, &nodes.pid(*to)),
            Say::UnlinkAck { id, to } => encode::unlink_id_ack(&mut control, &[97, *id], &from, &nodes.pid(*to)),
            Say::Exit { to, two, what } => {
                match two {
                    true => encode::payload_exit2(&mut control, &from, &nodes.pid(*to)),
                    false => encode::payload_exit(&mut control, &from, &nodes.pid(*to)),
                }
                payload = Some(what);
            }
            Say::Monitor { target: whom, reference } => {
                encode::monitor_p(&mut control, &from, target(whom), &nodes.reference(*reference));
            }
            Say::Demonitor { target: whom, reference } => {
                encode::demonitor_p(&mut control, &from, target(whom), &nodes.reference(*reference));
            }
            Say::Down { from: whom, to, reference } => {
                let (to, reference) = (nodes.pid(*to), nodes.reference(*reference));
                encode::payload_monitor_p_exit(&mut control, target(whom), &to, &reference);
                payload = Some(&What::Element(6));
            }
            Say::Control { operation, elements, what } => {
                let mut parts = vec![vec![97, *operation % 42]];
                parts.extend(elements.iter().take(8).map(|element| nodes.element(element)));
                control = tuple(&parts.iter().map(|part| &part[..]).collect::<Vec<_>>());
                payload = what.as_ref();
            }
            Say::Frame(bytes) => {
                outbound.take(&mut out, 1 << 24);
                out.extend((bytes.len() as u32).to_be_bytes());
                out.extend(bytes);
                continue;
            }
            Say::Tick => {
                outbound.tick();
                continue;
            }
        }
        let payload = payload.map(|what| nodes.what(what));
        let parts: Vec<&[u8]> = payload.iter().map(|payload| &payload[..]).collect();
        outbound.push(0, &control, &parts).expect("there is room");
    }
    outbound.take(&mut out, 1 << 24);
    out.extend(&script.noise);
    out
}

fn seeds() -> Vec<Vec<u8>> {
    scripts("legation fuzz beam", 32, 600)
}
