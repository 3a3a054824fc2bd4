//! From a text to a [`Config`].

use std::path::{Path, PathBuf};

use super::address::Addresses;
use super::document::{Document, Section, Value};
use super::error::{ConfigError, Position};
use super::names::{expand, is_full_name, is_path, is_realm, REALM_WORDS, SOCKET_PATH_BYTES_MAX};
use super::{limits, node, peers, signing, Config, Import, KeySource, Loaded};

/// Threads are for many peers on many cores; more than this is a slip.
const THREADS_MAX: u64 = 1_024;

const KEY_WORDS: &str = "the path of a private key (`legation key new`)";
const AGENT_WORDS: &str = "the path of a key agent's socket, of at most 107 bytes";
const SOCKET_WORDS: &str = "a path of at most 107 bytes";
const IMPORT_WORDS: &str =
    "\"default\", \"all\", \"none\" or a list of names: \"ping@bob\", or { name = \"ping@bob\", as = \"ping_bob\" }";
const AS_WORDS: &str = "an atom's text of 1 to 255 characters";

/// Reads a configuration. `origin` is how errors name it; relative paths are relative to `base`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(origin: &str, text: &str, base: &Path) -> Result<Loaded, ConfigError> {
    let document = Document::parse(origin, text)?;
    let root = document.root();
    let mut warnings = Vec::new();

    let realm = root.required("realm", REALM_WORDS).and_then(|value| value.text(REALM_WORDS, is_realm));
    let (key, key_at) = key(&root, base).unzip();
    let network_key = root.value("network_key");
    let network_key_at = network_key.as_ref().map(Value::at);
    let network_key = network_key.and_then(|value| secret_path(&value, "the path of a network key", base));
    let state_dir = root.value("state_dir").and_then(|value| secret_path(&value, "the path of a directory", base));
    let control_socket = root.value("control_socket").and_then(|value| socket_path(&value, base));
    let threads = root.value("threads").and_then(|value| value.integer(1, THREADS_MAX)).unwrap_or(1);
    let import = root.value("import").map_or(Some(Import::Default), |value| import(&value));

    let mut limits = limits::limits(root.value("limits").and_then(|value| table(&value, "[limits]")));
    let session = &mut limits.session;
    session.signing = signing::signing(&root).unwrap_or(session.signing);
    session.accept_signing = signing::accept_signing(&root).unwrap_or(session.accept_signing);
    let node = root.required("node", "a table: [node]").and_then(|value| table(&value, "[node]"));
    let holds_secret = node.as_ref().is_some_and(|section| section.value("cookie").is_some());
    let node = node.map(|section| {
        let node = node::node(&section, base, &mut warnings);
        section.finish();
        node
    });
    let addresses = Addresses { base, send_timeout_ms: limits.send_timeout_ms };
    let listen = root.value("listen").map(|value| addresses.listen(&value)).unwrap_or_default();
    let peers = root.value("peers").map(|value| peers::peers(&value, realm.as_deref(), &addresses)).unwrap_or_default();
    root.finish();
    document.check()?;

    // What is missing has been noted, so none of these is.
    let (Some(realm), Some(key), Some(node), Some(import)) = (realm, key, node, import) else {
        return Err(ConfigError::whole(origin, "can't be read"));
    };
    let places = Places {
        key: document.position(key_at.unwrap_or_default()),
        network_key: document.position(network_key_at.unwrap_or_default()),
        peers: peers.iter().map(|(_, at)| document.position(*at)).collect(),
    };
    let config = Config {
        realm,
        key,
        network_key,
        state_dir,
        node,
        listen,
        peers: peers.into_iter().map(|(peer, _)| peer).collect(),
        import,
        limits,
        control_socket,
        threads: usize::try_from(threads).unwrap_or(1),
    };
    Ok(Loaded { config, warnings, origin: origin.to_owned(), places, holds_secret })
}

/// Where things stand that can only be checked by opening files.
#[derive(Clone, Debug)]
pub struct Places {
    pub key: Position,
    pub network_key: Position,
    pub peers: Vec<Position>,
}

/// The control socket alone, for those who only want to talk to the daemon.
///
/// # Errors
/// When the text is no TOML, or says of no socket.
pub fn parse_control_socket(origin: &str, text: &str, base: &Path) -> Result<PathBuf, ConfigError> {
    let document = Document::parse(origin, text)?;
    let path = document.root().required("control_socket", SOCKET_WORDS).and_then(|value| socket_path(&value, base));
    document.check()?;
    path.ok_or_else(|| ConfigError::whole(origin, "can't be read"))
}

fn table<'d>(value: &Value<'d>, name: &str) -> Option<Section<'d>> {
    value.section(&format!("a table: {name}"), name.to_owned())
}

fn key(root: &Section<'_>, base: &Path) -> Option<(KeySource, usize)> {
    match (root.value("key"), root.value("agent")) {
        (Some(value), None) => Some((KeySource::File(secret_path(&value, KEY_WORDS, base)?), value.at())),
        (None, Some(value)) => {
            let path =
                value.parse(AGENT_WORDS, |text| is_path(text).then(|| expand(base, text)).filter(|path| fits(path)))?;
            Some((KeySource::Agent(path), value.at()))
        }
        (Some(_), Some(value)) => {
            value.problem("expected either `key` or `agent`, got both".to_owned());
            None
        }
        (None, None) => {
            root.problem(format!("`key` is missing; expected {KEY_WORDS}, or `agent`"));
            None
        }
    }
}

/// What was given is not shown: it may be the key itself.
fn secret_path(value: &Value<'_>, words: &str, base: &Path) -> Option<PathBuf> {
    let path = value.as_str().filter(|text| is_path(text)).map(|text| expand(base, text));
    if path.is_none() {
        value.expected_secret(words);
    }
    path
}

fn socket_path(value: &Value<'_>, base: &Path) -> Option<PathBuf> {
    value.parse(SOCKET_WORDS, |text| is_path(text).then(|| expand(base, text)).filter(|path| fits(path)))
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX
}

fn import(value: &Value<'_>) -> Option<Import> {
    match value.as_str() {
        Some("default") => return Some(Import::Default),
        Some("all") => return Some(Import::All),
        Some("none") => return Some(Import::None),
        _ => {}
    }
    let names = value.items(IMPORT_WORDS)?;
    Some(Import::These(names.iter().filter_map(imported).collect()))
}

fn imported(value: &Value<'_>) -> Option<(String, Option<String>)> {
    if !value.is_table() {
        return Some((value.text(IMPORT_WORDS, is_full_name)?, None));
    }
    const WORDS: &str = "a name like \"ping@bob\"";
    let section = value.section(IMPORT_WORDS, "import".to_owned())?;
    let name = section.required("name", WORDS).and_then(|value| value.text(WORDS, is_full_name));
    let local = section.required("as", AS_WORDS).and_then(|value| value.text(AS_WORDS, is_local_name));
    section.finish();
    Some((name?, Some(local?)))
}

/// What `erlang:register/2` takes.
fn is_local_name(name: &str) -> bool {
    super::names::is_atom(name) && !matches!(name, "" | "nil" | "true" | "false" | "undefined")
}
