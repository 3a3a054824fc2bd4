//! `[node]`: the side towards the BEAM.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use zeroize::Zeroizing;

use super::document::{Section, Value};
use super::limits::MS_MAX;
use super::names::{expand, is_atom, is_node, is_path};
use super::secret_file;
use super::{BeamAddress, NodeConfig, Secret};

const EPMD_PORT: u16 = 4369;

/// The VM gives up a handshake after 7 s (`net_setuptime`); ours ends first, so that it is us who know why.
const HANDSHAKE_MS: u64 = 5_000;
/// A third of the 15 s at which a VM begins to miss ticks at its default of `net_ticktime`, and short enough for one of 20 s.
const TICK_MS: u64 = 5_000;
/// `net_ticktime` is 60 s, give or take a quarter.
const SILENCE_MS: u64 = 75_000;

/// A file with a cookie is not longer.
const COOKIE_BYTES_MAX: u64 = 4_096;

const NODE_WORDS: &str = "a node's name like \"legation@127.0.0.1\"";
const CONNECT_WORDS: &str = "a list of nodes: \"release@127.0.0.1\", or { node = \"release@127.0.0.1\", port = 9001 }";
const GLOBAL_WORDS: &str = "true, false, \"off\" or { suffix = \"@here\" }";
const ATOMS_WORDS: &str = "a list of texts of at most 255 characters";
const COOKIE_WORDS: &str = "1 to 255 characters without control characters";

pub fn node(section: &Section<'_>, base: &Path, warnings: &mut Vec<String>) -> NodeConfig {
    let name =
        section.required("name", NODE_WORDS).and_then(|value| value.text(NODE_WORDS, is_node)).unwrap_or_default();
    let cookie = cookie(section, base, warnings);

    let listen = section.value("listen").and_then(|value| {
        value.parse("an IP address and a port, like \"127.0.0.1:0\"", |text| text.parse::<SocketAddr>().ok())
    });
    let listen = listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));

    let epmd = section.value("epmd").and_then(|value| value.boolean()).unwrap_or(true);
    let epmd_port = section.value("epmd_port").and_then(|value| value.integer(1, 65_535));
    let epmd_port = epmd_port.and_then(|port| u16::try_from(port).ok()).unwrap_or_else(epmd_port_of_the_environment);

    let connect = section.value("connect").and_then(|value| value.items(CONNECT_WORDS)).unwrap_or_default();
    let connect = connect.iter().filter_map(|value| beam_address(value, epmd, &name)).collect::<Vec<_>>();
    let twice =
        (1..connect.len()).find(|index| connect[..*index].iter().any(|other| other.node == connect[*index].node));
    if let (Some(index), Some(value)) = (twice, section.value("connect")) {
        value
            .problem(format!("expected each node in `connect` to be there once, got twice: {:?}", connect[index].node));
    }

    let (register_global, global_suffix) =
        section.value("global").map_or((true, String::new()), |value| global(&value));

    let atoms = section.value("atoms").and_then(|value| value.items(ATOMS_WORDS)).unwrap_or_default();
    let atoms = atoms.iter().filter_map(|value| value.text(ATOMS_WORDS, is_atom)).collect();

    let ms = |key: &'static str, default: u64| {
        section.value(key).and_then(|value| value.integer(1, MS_MAX)).unwrap_or(default)
    };
    NodeConfig {
        name,
        cookie,
        listen_ip: listen.ip(),
        listen_port: listen.port(),
        epmd,
        epmd_port,
        echo: section.value("echo").and_then(|value| value.boolean()).unwrap_or(false),
        connect,
        register_global,
        global_suffix,
        atoms,
        handshake_ms: ms("handshake_ms", HANDSHAKE_MS),
        tick_ms: ms("tick_ms", TICK_MS),
        silence_ms: ms("silence_ms", SILENCE_MS),
    }
}

/// Where the VM finds EPMD, too.
fn epmd_port_of_the_environment() -> u16 {
    std::env::var("ERL_EPMD_PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(EPMD_PORT)
}

fn cookie(section: &Section<'_>, base: &Path, warnings: &mut Vec<String>) -> Secret {
    let valid = |cookie: &str| !cookie.is_empty() && is_atom(cookie) && !cookie.chars().any(char::is_control);
    let nothing = Secret(Zeroizing::new(String::new()));
    match (section.value("cookie"), section.value("cookie_file")) {
        (Some(value), None) => match value.as_str() {
            Some(cookie) if valid(cookie) => Secret(Zeroizing::new(cookie.to_owned())),
            _ => {
                value.expected_secret(COOKIE_WORDS);
                nothing
            }
        },
        (None, Some(value)) => {
            let Some(path) = value.as_str().filter(|path| is_path(path)).map(|path| expand(base, path)) else {
                value.expected_secret("the path of a file");
                return nothing;
            };
            let content = match secret_file::read(&path, COOKIE_BYTES_MAX, warnings) {
                Ok(content) => content,
                Err(words) => {
                    value.problem(format!("`cookie_file`: {words}"));
                    return nothing;
                }
            };
            // As the VM reads it: up to the end of the first line.
            let cookie = std::str::from_utf8(&content).ok().and_then(|text| text.lines().next()).map(str::trim);
            match cookie {
                Some(cookie) if valid(cookie) => Secret(Zeroizing::new(cookie.to_owned())),
                _ => {
                    value.problem(format!("`cookie_file`: expected its first line to be {COOKIE_WORDS}"));
                    nothing
                }
            }
        }
        (Some(_), Some(value)) => {
            value.problem("expected either `cookie` or `cookie_file`, got both".to_owned());
            nothing
        }
        (None, None) => {
            section.problem("`cookie` is missing; expected it, or `cookie_file`".to_owned());
            nothing
        }
    }
}

fn beam_address(value: &Value<'_>, epmd: bool, own: &str) -> Option<BeamAddress> {
    let address = if value.is_table() {
        let section = value.section(CONNECT_WORDS, "[node] connect".to_owned())?;
        let node = section.required("node", NODE_WORDS).and_then(|value| value.text(NODE_WORDS, is_node));
        let port = section.value("port").and_then(|value| value.integer(1, 65_535));
        section.finish();
        BeamAddress { node: node?, port: port.and_then(|port| u16::try_from(port).ok()) }
    } else {
        BeamAddress { node: value.text(CONNECT_WORDS, is_node)?, port: None }
    };
    if address.port.is_none() && !epmd {
        value.problem(format!("expected a port for {:?}, as `epmd` is false: {{ node = …, port = … }}", address.node));
    }
    if address.node == own {
        value.problem(format!("expected other nodes in `connect`, got our own: {own:?}"));
    }
    Some(address)
}

fn global(value: &Value<'_>) -> (bool, String) {
    let off = (false, String::new());
    if value.is_table() {
        let Some(section) = value.section(GLOBAL_WORDS, "[node] global".to_owned()) else { return off };
        let suffix =
            section.required("suffix", "a text").and_then(|value| value.text("a text", |text| !text.is_empty()));
        section.finish();
        return (true, suffix.unwrap_or_default());
    }
    match (value.as_bool(), value.as_str()) {
        (Some(true), _) => (true, String::new()),
        (Some(false), _) | (_, Some("off")) => off,
        _ => {
            value.expected(GLOBAL_WORDS);
            off
        }
    }
}
