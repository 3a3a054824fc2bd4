use std::path::Path;

use legation_proto::key_text::format_public_key;
use legation_proto::keyring::Keyring;
use legation_proto::signing::{Mode, Modes};

use super::*;

fn key(seed: u8) -> String {
    format_public_key(Keyring::new(&[seed; 32], &[0; 32]).public())
}

fn minimal(rest: &str) -> String {
    let (top, tables) = rest.split_once("---\n").unwrap_or((rest, ""));
    format!("realm = \"alice\"\nkey = \"alice.pem\"\n{top}[node]\nname = \"legation@127.0.0.1\"\ncookie = \"biscuit\"\n{tables}")
}

fn read(text: &str) -> Result<Config, ConfigError> {
    parse("a.toml", text, Path::new("/etc/legation")).map(|loaded| loaded.config)
}

/// All that is wrong, as a user sees it.
fn wrong(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = read(&minimal("")).unwrap();
    assert_eq!(config.realm, "alice");
    assert_eq!(config.key, KeySource::File("/etc/legation/alice.pem".into()));
    assert_eq!((config.network_key, config.control_socket, config.threads), (None, None, 1));
    assert_eq!(config.import, Import::Default);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.limits.session.message_bytes_max, 8 << 20);
    assert_eq!(config.limits.session.engine_queue_bytes_max, Some(8 << 20));
    assert!(config.listen.is_empty() && config.peers.is_empty());
    let node = config.node;
    assert_eq!(node.cookie.0.as_str(), "biscuit");
    assert_eq!((node.listen_ip.to_string().as_str(), node.listen_port), ("127.0.0.1", 0));
    assert!(node.epmd && node.register_global && node.global_suffix.is_empty() && node.connect.is_empty());
    assert_eq!((node.handshake_ms, node.tick_ms, node.silence_ms), (5_000, 5_000, 75_000));
}

#[test]
fn the_bounds_of_engines_may_be_infinite() {
    let config =
        read(&minimal("---\n[limits]\nengine_queue_bytes_max = \"infinity\"\nengine_queue_max = \"infinity\"\n"));
    let limits = config.unwrap().limits;
    assert_eq!((limits.session.engine_queue_bytes_max, limits.engine_queue_max), (None, None));
}

#[test]
fn everything_that_can_be_said_is_read() {
    let bob = key(2);
    let text = format!(
        r#"
realm = "alice"
agent = "run/agent.sock"
network_key = "/keys/net.key"
control_socket = "alice.sock"
signing = "delegated"
threads = 4
import = ["ping@bob", {{ name = "pong@bob", as = "pong_bob" }}]

[node]
name = "legation@host.example"
cookie = "biscuit"
listen = "[::1]:9100"
epmd = false
epmd_port = 4370
connect = [{{ node = "b@127.0.0.1", port = 9001 }}]
global = {{ suffix = "@here" }}
atoms = ["my_atom"]
handshake_ms = 1
tick_ms = 2
silence_ms = 3

[[listen]]
tcp = "0.0.0.0:4040"
profile = "plain"
id = "front"
send_timeout_ms = 7

[[listen]]
unix = "/run/alice.sock"
uids = [1000, 0]

[[peers]]
realm = "bob"
key = "{bob}"
connect = ["tcp://10.0.0.7:4040", "unix:/run/b.sock", {{ tcp = "[::1]:4040", profile = "plain" }}, {{ unix = "bob.sock", uids = "any" }}]
export = ["ping", {{ name = "store", allow = ["call", "sys"], filter = true }}]
allow = []
filter = true
reasons = "full"
links = 4
accept_signing = ["engine"]
limits = {{ grace_ms = 0, resume_bytes_max = 0, queue_bytes_max = 1, engine_queue_bytes_max = "infinity", overflow = "oldest", message_ttl_ms = 7 }}

[limits]
grace_ms = 5
message_bytes_max = 1
overflow = "oldest"
engine_queue_max = 1000
send_timeout_ms = 9
held_bytes_max = 5
"#
    );
    let config = read(&text).unwrap();
    assert_eq!(config.key, KeySource::Agent("/etc/legation/run/agent.sock".into()));
    assert_eq!(config.network_key, Some("/keys/net.key".into()));
    assert_eq!(config.control_socket, Some("/etc/legation/alice.sock".into()));
    let import = vec![("ping@bob".to_owned(), None), ("pong@bob".to_owned(), Some("pong_bob".to_owned()))];
    assert_eq!(config.import, Import::These(import));
    let node = &config.node;
    assert_eq!((node.listen_ip.to_string().as_str(), node.listen_port, node.epmd_port), ("::1", 9100, 4370));
    assert_eq!(node.connect, [BeamAddress { node: "b@127.0.0.1".to_owned(), port: Some(9001) }]);
    assert_eq!((node.register_global, node.global_suffix.as_str()), (true, "@here"));
    assert_eq!((node.handshake_ms, node.tick_ms, node.silence_ms), (1, 2, 3));
    let tcp = |host: &str, profile, send_timeout_ms| CarrierConfig::Tcp {
        host: host.to_owned(),
        port: 4040,
        profile,
        send_timeout_ms,
    };
    let unix =
        |path: &str, uids| CarrierConfig::Unix { path: path.into(), profile: Profile::Local, uids, send_timeout_ms: 9 };
    assert_eq!(config.listen[0], ListenConfig { id: "front".to_owned(), carrier: tcp("0.0.0.0", Profile::Plain, 7) });
    let carrier = unix("/run/alice.sock", Uids::These(vec![1000, 0]));
    assert_eq!(config.listen[1], ListenConfig { id: "unix:/run/alice.sock".to_owned(), carrier });
    let peer = &config.peers[0];
    assert_eq!(format_public_key(&peer.key), bob);
    assert_eq!(
        peer.connect,
        [
            tcp("10.0.0.7", Profile::Tls, 9),
            unix("/run/b.sock", Uids::Own),
            tcp("::1", Profile::Plain, 9),
            unix("/etc/legation/bob.sock", Uids::Any),
        ]
    );
    let store = ExportedEngine { name: "store".to_owned(), allow: Some(Operations(65)), filter: true };
    let ping = ExportedEngine { name: "ping".to_owned(), allow: None, filter: false };
    assert_eq!(peer.export, Export::These(vec![ping, store]));
    assert_eq!((peer.allow, peer.filter, peer.links, peer.reasons), (Operations(0), true, 4, Reasons::Full));
    let own = PeerLimits {
        grace_ms: Some(0),
        resume_bytes_max: Some(0),
        queue_bytes_max: Some(1),
        engine_queue_bytes_max: Some(None),
        overflow: Some(Overflow::Oldest),
        message_ttl_ms: Some(Some(7)),
    };
    assert_eq!(peer.limits, own);
    let session = peer.session_limits(&config.limits);
    assert_eq!((session.resume_bytes_max, session.queue_bytes_max, session.message_bytes_max), (0, 1, 1));
    assert_eq!((session.signing, session.accept_signing), (Mode::Delegated, Modes::of([])));
    assert_eq!(config.limits.session.accept_signing, Modes::of([Mode::Delegated]));
    assert_eq!(config.limits.grace_ms, 5);
    assert_eq!(config.limits.session.overflow, legation_proto::limits::Overflow::Oldest);
    assert_eq!((config.limits.engine_queue_max, config.limits.held_bytes_max), (Some(1_000), 5));
}

#[test]
fn a_way_to_sign_that_is_not_known_is_refused_and_engine_is_always_taken() {
    for (line, words) in [
        (
            "signing = \"faster\"",
            "expected `signing` to be \"engine\", \"delegated\" or \"checkpoint\", got: \"faster\"",
        ),
        ("accept_signing = \"engine\"", "expected `accept_signing` to be a list of \"engine\""),
        (
            "accept_signing = [\"delegated\"]",
            "expected `accept_signing` to be a list of \"engine\", which is always in it",
        ),
        ("accept_signing = [\"engine\", \"none\"]", "got: \"none\""),
    ] {
        let text = minimal("").replacen("realm =", &format!("{line}\nrealm ="), 1);
        assert!(wrong(&text).contains(words), "{line}: {}", wrong(&text));
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_by_line_and_column() {
    let text = "realm = \"a@b\"\nkey = 7\nthreads = 0\n\n[node]\nname = \"legation\"\ncookie = \"\"\nepmd = \"yes\"\ncolour = 1\n";
    assert_eq!(
        wrong(text),
        "a.toml:1:9: expected `realm` to be a name of 1 to 255 bytes without \"@\" and control characters, got: \"a@b\"\n\
         a.toml:2:7: expected `key` to be the path of a private key (`legation key new`); what it is instead is not shown here\n\
         a.toml:3:11: expected `threads` to be an integer from 1 to 1024, got: 0\n\
         a.toml:6:8: expected `name` to be a node's name like \"legation@127.0.0.1\", got: \"legation\" (in [node])\n\
         a.toml:7:10: expected `cookie` to be 1 to 255 characters without control characters; what it is instead is not shown here (in [node])\n\
         a.toml:8:8: expected `epmd` to be true or false, got: \"yes\" (in [node])\n\
         a.toml:9:1: unknown key \"colour\" in [node]; known are cookie, name, cookie_file, listen, epmd, epmd_port, connect, global, atoms, echo, handshake_ms, tick_ms, silence_ms"
    );
}

#[test]
fn what_is_missing_is_named_where_it_should_be() {
    assert_eq!(
        wrong("\n[node]\n"),
        "a.toml:1:1: `realm` is missing; expected a name of 1 to 255 bytes without \"@\" and control characters\n\
         a.toml:1:1: `key` is missing; expected the path of a private key (`legation key new`), or `agent`\n\
         a.toml:2:1: `name` is missing; expected a node's name like \"legation@127.0.0.1\" (in [node])\n\
         a.toml:2:1: `cookie` is missing; expected it, or `cookie_file` (in [node])"
    );
    assert!(wrong("realm = \"alice\"\nkey = \"k\"\n").contains("`node` is missing; expected a table: [node]"));
}

#[test]
fn errors_of_the_syntax_show_no_line_of_the_file() {
    let text = minimal("").replace("\"biscuit\"", "\"biscuit");
    let error = wrong(&text);
    assert!(error.starts_with("a.toml:5:"), "{error}");
    assert!(!error.contains("biscuit"), "{error}");
    assert!(wrong("realm = \"a\"\nrealm = \"b\"\n").starts_with("a.toml:2:1: duplicate key"));
}

#[test]
fn neither_debug_output_nor_an_error_shows_a_secret() {
    let config = read(&minimal("")).unwrap();
    assert!(!format!("{config:?}").contains("biscuit"));
    let long = minimal("").replace("biscuit", &"biscuit".repeat(40));
    assert!(!wrong(&long).contains("biscuit"));
    let pem = minimal("").replace("\"alice.pem\"", "\"\"\"-----BEGIN\nsecret\n\"\"\"");
    assert!(!wrong(&pem).contains("secret"), "{}", wrong(&pem));
}

/// A change of the minimal configuration, and what is said of it.
#[test]
fn values_that_cannot_be_meant_are_refused() {
    let (bob, carol) = (key(2), key(3));
    let bob_last_two_bits = format!("{}{}", &bob[..bob.len() - 1], if bob.ends_with('8') { '9' } else { '-' });
    let peer = |rest: &str| format!("---\n[[peers]]\nrealm = \"bob\"\nkey = \"{bob}\"\n{rest}");
    let cases = [
        ("agent = \"a.sock\"\n".to_owned(), "expected either `key` or `agent`, got both"),
        ("import = [\"ping\"]\n".to_owned(), "expected `import` to be \"default\", \"all\", \"none\""),
        ("import = [{ name = \"ping@bob\", as = \"undefined\" }]\n".to_owned(), "expected `as` to be an atom's text"),
        (
            format!("control_socket = \"{}\"\n", "x".repeat(95)),
            "expected `control_socket` to be a path of at most 107 bytes",
        ),
        ("---\ncookie_file = \"c\"\n".to_owned(), "expected either `cookie` or `cookie_file`, got both"),
        ("---\nepmd = false\nconnect = [\"b@h\"]\n".to_owned(), "expected a port for \"b@h\", as `epmd` is false"),
        ("---\nconnect = [\"b@h\", { node = \"b@h\", port = 1 }]\n".to_owned(), "got twice: \"b@h\""),
        ("---\nconnect = [\"legation@127.0.0.1\"]\n".to_owned(), "expected other nodes in `connect`, got our own"),
        (
            "---\nglobal = { suffix = \"x\", sufix = \"x\" }\n".to_owned(),
            "unknown key \"sufix\" in [node] global; known are suffix",
        ),
        ("---\n[[listen]]\ntcp = \"localhost:1\"\n".to_owned(), "expected `tcp` to be an IP address and a port"),
        (
            "---\n[[listen]]\ntcp = \"127.0.0.1:1\"\nprofile = \"local\"\n".to_owned(),
            "expected `profile` to be \"tls\" or \"plain\"",
        ),
        ("---\n[[listen]]\ntcp = \"127.0.0.1:1\"\nuids = [1]\n".to_owned(), "unknown key \"uids\" in [[listen]]"),
        ("---\n[[listen]]\nprofile = \"tls\"\n".to_owned(), "`tcp` is missing; expected it, or `unix`"),
        (
            "---\n[[listen]]\ntcp = \"127.0.0.1:1\"\nunix = \"x\"\n".to_owned(),
            "expected either `tcp` or `unix`, got both",
        ),
        ("---\n[[listen]]\nunix = \"x\"\n[[listen]]\nunix = \"x\"\n".to_owned(), "got twice: \"unix:/etc/legation/x\""),
        (peer("connect = [\"10.0.0.7:4040\"]\n"), "expected `connect` to be a list of addresses: \"tcp://HOST:PORT\""),
        (peer("connect = [{ tcp = \"h:1\", id = \"x\" }]\n"), "unknown key \"id\" in connect in peer \"bob\""),
        (peer("export = [\"ping\", { name = \"ping\" }]\n"), "expected each engine in `export` to be there once"),
        (peer("export = \"some\"\n"), "expected `export` to be \"all\" or a list of engines"),
        (
            peer("allow = [\"calls\"]\n"),
            "expected `allow` to be a list of \"call\", \"cast\", \"send\", \"monitor\", \"link\", \"exit\", \"sys\" and \"event\", got: \"calls\"",
        ),
        (peer("reasons = \"all\"\n"), "expected `reasons` to be \"class\" or \"full\""),
        (peer("links = 0\n"), "expected `links` to be an integer from 1 to 4, got: 0 (in peer \"bob\")"),
        (peer("links = 5\n"), "expected `links` to be an integer from 1 to 4, got: 5"),
        (
            peer("limits = { calls_max = 1 }\n"),
            "unknown key \"calls_max\" in limits of peer \"bob\"; known are grace_ms",
        ),
        (peer("limits = { grace_ms = -1 }\n"), "expected `grace_ms` to be an integer from 0 to 4294967295"),
        (peer("limits = 1\n"), "expected `limits` to be a table"),
        (
            peer(&format!("[[peers]]\nrealm = \"bob\"\nkey = \"{carol}\"\n")),
            "expected peers to differ in their `realm`",
        ),
        (
            peer(&format!("[[peers]]\nrealm = \"carol\"\nkey = \"{bob}\"\n")),
            "expected peers to differ in their `key`, got the same for: \"bob\", \"carol\"",
        ),
        (
            format!("---\n[[peers]]\nrealm = \"alice\"\nkey = \"{bob}\"\n"),
            "expected a peer's `realm` not to be our own",
        ),
        (
            format!("---\n[[peers]]\nrealm = \"bob\"\nkey = \"{bob_last_two_bits}\"\n"),
            "expected `key` to be \"ed25519:…\"",
        ),
        (
            format!("---\n[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n", format_public_key(&[2; 32])),
            "expected `key` to be a public key, but this is not a point on the curve",
        ),
        (
            "---\n[limits]\nreconnect_min_ms = 40000\n".to_owned(),
            "expected `reconnect_max_ms` (30000) to be at least `reconnect_min_ms` (40000)",
        ),
        (
            "---\n[limits]\noverflow = \"none\"\n".to_owned(),
            "expected `overflow` to be \"newest\", \"oldest\" or \"disconnect\", got: \"none\"",
        ),
        (
            "---\n[limits]\nengine_queue_max = 0\n".to_owned(),
            "expected `engine_queue_max` to be a positive integer or \"infinity\"",
        ),
        (
            "---\n[limits]\nnothing_max = 1\n".to_owned(),
            "unknown key \"nothing_max\" in [limits]; known are message_bytes_max, depth_max",
        ),
    ];
    for (change, expected) in cases {
        let error = wrong(&minimal(&change));
        assert!(error.contains(expected), "{change}\nexpected {expected}\ngot      {error}");
        assert!(error.starts_with("a.toml:") && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn limits_are_accepted_at_their_bounds_and_refused_one_past_them() {
    let ms = (1, 4_294_967_295);
    let positive = (1, 0xFFFF_FFFF_FFFF);
    let bounds: [(&str, (u64, u64)); 51] = [
        ("message_bytes_max", (1, 1 << 30)),
        ("depth_max", (1, 256)),
        ("engines_max", (1, 4_294_967_295)),
        ("queue_bytes_max", positive),
        ("engine_queue_bytes_max", positive),
        ("calls_max", positive),
        ("callers_max", positive),
        ("handshake_ms", ms),
        ("ping_ms", ms),
        ("grace_ms", (0, 4_294_967_295)),
        ("resume_bytes_max", (0, 1 << 40)),
        ("ack_ms", ms),
        ("handles_max", positive),
        ("references_max", positive),
        ("handle_idle_ms", ms),
        ("credit_bytes", (0, 4_294_967_295)),
        ("fragment_bytes", (1, 1 << 40)),
        ("message_ttl_ms", positive),
        ("room_waiters_max", positive),
        ("checkpoint_ms", ms),
        ("checkpoint_patience_ms", ms),
        ("unproven_messages_max", positive),
        ("unproven_bytes_max", positive),
        ("failures_max", (1, 4_294_967_295)),
        ("failures_window_ms", ms),
        ("engine_queue_max", positive),
        ("call_age_ms", ms),
        ("pending_connections_max", positive),
        ("handshakes_max", positive),
        ("failed_handshakes_per_s", positive),
        ("knock_window_ms", ms),
        ("knock_boot_ms", (0, 4_294_967_295)),
        ("knock_entries_max", positive),
        ("connect_ms", ms),
        ("handshake_reads", (1, 10_000)),
        ("send_timeout_ms", ms),
        ("goodbye_ms", (0, 4_294_967_295)),
        ("shutdown_ms", (0, 4_294_967_295)),
        ("reconnect_min_ms", (1, 30_000)),
        ("reconnect_max_ms", (50, 4_294_967_295)),
        ("beam_queue_bytes_max", positive),
        ("beam_nodes_max", positive),
        ("beam_handshakes_max", positive),
        ("beam_fragmented_max", positive),
        ("beam_fragmented_bytes_max", positive),
        ("beam_monitors_max", positive),
        ("known_atoms_max", positive),
        ("held_messages_max", positive),
        ("held_bytes_max", positive),
        ("control_connections_max", positive),
        ("threads", (1, 1_024)),
    ];
    for (name, (min, max)) in bounds {
        let text = |value: i128| match name {
            "threads" => minimal(&format!("threads = {value}\n")),
            _ => minimal(&format!("---\n[limits]\n{name} = {value}\n")),
        };
        for value in [i128::from(min), i128::from(max)] {
            assert!(read(&text(value)).is_ok(), "{name} = {value}: {}", wrong(&text(value)));
        }
        for value in [i128::from(min) - 1, i128::from(max) + 1, -1] {
            assert!(wrong(&text(value)).contains(&format!("`{name}`")), "{name} = {value}: {}", wrong(&text(value)));
        }
    }
}

/// `name: {8 * @mib, …},` as lines of TOML.
fn limits_of_the_embedded_transport() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../lib/legation/options.ex");
    let source = std::fs::read_to_string(path).unwrap();
    let (_, list) = source.split_once("@limits [\n").unwrap();
    let (list, _) = list.split_once("\n  ]").unwrap();
    let line = |line: &str| {
        let (name, rest) = line.trim().split_once(": {").unwrap();
        let (default, _) = rest.split_once(", ").unwrap();
        match (default.split_once(" * "), default.strip_prefix(':')) {
            (Some((mib, "@mib")), _) => format!("{name} = {}", mib.parse::<u64>().unwrap() << 20),
            (Some((kib, "1_024")), _) => format!("{name} = {}", kib.parse::<u64>().unwrap() << 10),
            (_, Some(atom)) => format!("{name} = \"{atom}\""),
            _ => format!("{name} = {default}"),
        }
    };
    list.lines().map(line).collect()
}

#[test]
fn limits_have_the_names_and_defaults_of_the_embedded_transport() {
    let lines = limits_of_the_embedded_transport();
    assert!(lines.len() > 20, "{lines:?}");
    let limits = read(&minimal(&format!("---\n[limits]\n{}\n", lines.join("\n")))).unwrap().limits;
    assert_eq!(limits, Limits::default());
}

#[test]
fn a_reload_says_what_it_cannot_change() {
    let old = read(&minimal("")).unwrap();
    let peer = minimal(&format!("---\n[[peers]]\nrealm = \"bob\"\nkey = \"{}\"\n", key(2)));
    assert_eq!(old.needs_restart(&read(&peer).unwrap()), Vec::<&str>::new());
    let other = minimal("threads = 2\n---\n[limits]\ncalls_max = 1\n").replace("biscuit", "wafer");
    assert_eq!(old.needs_restart(&read(&other).unwrap()), ["threads", "node", "limits"]);
}

#[test]
fn more_problems_than_anybody_reads_are_counted() {
    let keys: String = (0..30).map(|n| format!("unknown{n} = 1\n")).collect();
    let error = wrong(&minimal(&keys));
    assert_eq!(error.lines().count(), 21);
    assert!(error.ends_with("a.toml: and 10 more"), "{error}");
}
