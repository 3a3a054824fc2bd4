//! Configurations: any text, and texts near to good ones. What is wrong is said with its place, and no secret is in it.

use std::path::Path;

use legation_node::config::parse;

use crate::Target;

pub const TARGET: Target = Target { name: "config", what: "the daemon's configuration", run, seeds, bytes_max: 2_048 };

const COOKIE: &str = "biscuit-that-is-secret";

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let base = Path::new("/etc/legation");
    match parse("fuzz.toml", text, base) {
        Ok(loaded) => {
            let config = &loaded.config;
            assert!(config.threads >= 1 && !config.realm.is_empty());
            // Reading has no memory, and a configuration is like itself.
            let again = parse("fuzz.toml", text, base).expect("it was good before");
            assert!(again.config.needs_restart(config).is_empty());
            assert_eq!(again.warnings, loaded.warnings);
            for peer in &config.peers {
                let _ = peer.session_limits(&config.limits);
            }
        }
        Err(error) => {
            let words = error.to_string();
            assert!(words.starts_with("fuzz.toml"), "{words}");
            assert!(!is_secret(text) || !words.contains(COOKIE), "the secret is in it: {words}");
            let lines = text.lines().count() + 1;
            for problem in &error.problems {
                if let Some(position) = &problem.position {
                    assert!(position.line >= 1 && position.line <= lines && position.column >= 1, "{words}");
                }
            }
        }
    }
}

/// The cookie stands where it belongs and nowhere else, and not in a text of several lines.
fn is_secret(text: &str) -> bool {
    let line = format!("\ncookie = \"{COOKIE}\"\n");
    text.contains(&line) && text.matches(COOKIE).count() == 1 && !text.contains("\"\"\"") && !text.contains("'''")
}

fn seeds() -> Vec<Vec<u8>> {
    let packaged = include_str!("../../../../packaging/legation.toml");
    // All of it said, as far as it goes.
    let said: String = packaged
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase()) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let key = "ed25519:".to_owned() + &"A".repeat(43);
    let minimal =
        format!("realm = \"alice\"\nkey = \"alice.pem\"\n[node]\nname = \"l@127.0.0.1\"\ncookie = \"{COOKIE}\"\n");
    let texts = [
        String::new(),
        "realm".to_owned(),
        packaged.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect(),
        minimal.clone(),
        format!("{minimal}[[peers]]\nrealm = \"bob\"\nkey = \"{key}\"\nconnect = [\"tcp:h:1\"]\nexport = \"all\"\n"),
        format!("{minimal}[[listen]]\ntcp = \"[::1]:0\"\nprofile = \"plain\"\n[[listen]]\nunix = \"a.sock\"\nuids = \"any\"\n"),
        format!("{minimal}[limits]\nmessage_bytes_max = 1\nengine_queue_max = \"infinity\"\ngrace_ms = 0\n"),
        format!("{minimal}connect = [\"a@h\", {{ node = \"b@h\", port = 1 }}]\nglobal = {{ suffix = \"@x\" }}\natoms = [\"a\"]\n"),
        format!("{minimal}cookie = \"twice\"\n"),
        minimal.replace("\"alice\"", "7").replace("[node]", "[[node]]"),
        said,
    ];
    let mut seeds: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    seeds.retain(|seed| seed.len() < 16_384);
    seeds
}
