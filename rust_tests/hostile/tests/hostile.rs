//! The command `hostile` against a listener of this process: each attack does what it says, and the link's answer is
//! the one of the specification.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use legation_channel::channel::Profile;
use legation_channel::knock::{KnockMemory, KnockSettings};
use legation_channel::link::{Link, LinkConfig};
use legation_proto::frame::batch::Refusal;
use legation_proto::limits::Limits;
use rust_tests::pair::{Seen, Side};
use rust_tests::realm::{fresh_random, network, Realm};

/// RFC 8410's example key, as PKCS#8 PEM.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// What the listener saw, all links together.
type Log = Arc<Mutex<Vec<Seen>>>;

/// Bob, who exports `b` and serves whoever comes.
fn serve(profile: Profile) -> (u16, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let log = Log::default();
    let memory = Arc::new(Mutex::new(KnockMemory::new(KnockSettings::default(), now() - 60_000)));
    let seen = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (memory, seen) = (memory.clone(), seen.clone());
            std::thread::spawn(move || serve_one(stream.unwrap(), profile, memory, &seen));
        }
    });
    (port, log)
}

fn serve_one(mut stream: std::net::TcpStream, profile: Profile, memory: Arc<Mutex<KnockMemory>>, log: &Log) {
    let bob = Realm::bob();
    let config = LinkConfig {
        profile,
        keyring: bob.keyring.clone(),
        network: network(),
        tls: bob.tls.clone(),
        limits: Limits { handshake_ms: 500, engines_max: 100, ..Limits::default() },
        random: fresh_random(),
        now: now(),
    };
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut side = Side::new(Link::accept_from(config, Some(memory)).unwrap(), bob, network());
    let mut buffer = vec![0; 65_536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => side.handle(now(), &buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => side.tick(now()),
            Err(_) => return,
        }
        for event in side.take_events() {
            match &event {
                Seen::Up => {
                    side.certify(now());
                    side.export("b");
                }
                Seen::Call { destination, call_id, payload, .. } if destination == "b" => {
                    side.reply(*call_id, payload).unwrap();
                }
                Seen::Call { call_id, .. } => side.refuse(*call_id, Refusal::Noproc),
                _ => {}
            }
            log.lock().unwrap().push(event);
        }
        let out = side.flush();
        if stream.write_all(&out).is_err() || side.is_over() {
            return;
        }
    }
}

struct Outcome {
    lines: Vec<String>,
    log: Vec<Seen>,
}

impl Outcome {
    fn get(&self, key: &str) -> &str {
        let line = self.lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key} in {:?}", self.lines))
    }

    fn delivered(&self) -> Vec<String> {
        let text = |event: &Seen| match event {
            Seen::Deliver { payload, .. } | Seen::Call { payload, .. } => {
                Some(String::from_utf8_lossy(&payload[6..]).into_owned())
            }
            _ => None,
        };
        self.log.iter().filter_map(text).collect()
    }
}

fn hostile(profile: Profile, attack: &str, more: &[&str]) -> Outcome {
    let (port, log) = serve(profile);
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let key = directory.join(format!("hostile-{attack}-{}.pem", profile as u8));
    let network = directory.join(format!("hostile-{attack}-{}.network", profile as u8));
    std::fs::write(&key, PEM).unwrap();
    std::fs::write(&network, [9; 32]).unwrap();
    let bob = rust_tests::vectors::text_form(&Realm::bob().key());
    let output = Command::new(env!("CARGO_BIN_EXE_hostile"))
        .args(["--connect", &format!("127.0.0.1:{port}"), "--attack", attack, "--engine", "b", "--peer", &bob])
        .args(["--profile", if profile == Profile::Tls { "tls" } else { "plain" }])
        .arg("--key")
        .arg(&key)
        .arg("--network")
        .arg(&network)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let log = log.lock().unwrap().clone();
    Outcome { lines, log }
}

/// The usual: on `plain`, and what the link is after it.
fn attack(name: &str, more: &[&str], link: &str) -> Outcome {
    let outcome = hostile(Profile::Plain, name, more);
    assert_eq!(outcome.get("link"), link, "{name}: {:?}", outcome.lines);
    outcome
}

#[test]
fn none_casts_hello() {
    for profile in [Profile::Tls, Profile::Plain] {
        let outcome = hostile(profile, "none", &[]);
        assert_eq!((outcome.get("link"), outcome.delivered()), ("alive", vec!["hello".to_owned()]));
        assert!(outcome.lines.contains(&"ok".to_owned()));
    }
    assert_eq!(attack("call", &[], "alive").get("replies"), "1 errors=");
}

#[test]
fn batches_that_were_tampered_with_are_dropped_until_ten() {
    assert_eq!(attack("tampered-batch", &[], "alive").delivered(), ["good 1", "good 2"]);
    assert!(attack("ten-tampered", &[], "closed:abuse").delivered().is_empty());
    assert_eq!(attack("replayed-batch", &[], "alive").delivered(), ["once"]);
    for name in ["other-session", "rewrapped", "spliced"] {
        assert!(attack(name, &[], "alive").delivered().is_empty(), "{name}");
    }
    assert!(attack("gap", &[], "closed:protocol").delivered().is_empty());
}

#[test]
fn targets_terms_and_names_end_no_link() {
    let reserved = attack("reserved-targets", &[], "alive");
    assert_eq!(reserved.get("replies"), "0 errors=noproc:17");
    assert!(attack("disguised-sends", &[], "alive").delivered().is_empty());
    assert_eq!(attack("new-atoms", &["--count", "250"], "alive").get("replies"), "125 errors=");
    let pids = attack("pids", &["--node", "bob@localhost"], "alive");
    assert_eq!((pids.get("replies"), pids.delivered().len()), ("0 errors=identifiers:12", 0));
    let terms = attack("bad-terms", &[], "alive");
    assert_eq!((terms.get("replies"), terms.delivered().len()), ("0 errors=undecodable:18", 0));
}

#[test]
fn announcements_and_frames_are_bounded() {
    let learned = |outcome: &Outcome| outcome.log.iter().filter(|event| matches!(event, Seen::Learned(_))).count();
    assert_eq!(learned(&attack("theft", &[], "alive")), 2, "e1 and e2");
    assert_eq!(learned(&attack("many-engines", &["--count", "300"], "alive")), 100);
    assert_eq!(attack("unknown-frames", &[], "closed:unknown_frame").get("uncritical"), "alive");
    for seed in ["1", "2", "3"] {
        let outcome = hostile(Profile::Plain, "garbage", &["--seed", seed]);
        assert!(outcome.get("link").starts_with("closed:"), "{:?}", outcome.lines);
    }
}

#[test]
fn handshakes_that_stall_end_and_strangers_get_nothing() {
    for (profile, byte) in [(Profile::Plain, "30"), (Profile::Plain, "124"), (Profile::Tls, "280")] {
        let outcome = hostile(profile, "stall-at", &["--byte", byte]);
        assert_eq!(outcome.get("sent"), byte);
        assert!(outcome.get("link").starts_with("closed"), "{:?}", outcome.lines);
    }
    assert_eq!(attack("cut-at", &["--byte", "100"], "cut").get("sent"), "100");
    let replayed = attack("replay-knock", &[], "closed-silently");
    assert_eq!((replayed.get("first"), replayed.get("bytes_back")), ("answered", "0"));
    for profile in [Profile::Tls, Profile::Plain] {
        assert_eq!(hostile(profile, "wrong-network", &[]).get("bytes_back"), "0");
    }
}
