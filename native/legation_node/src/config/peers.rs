//! `[[peers]]`: who may link with us, and what they may do.

use std::collections::BTreeMap;

use legation_proto::identity::check_public_key;
use legation_proto::key_text::parse_public_key;

use super::address::Addresses;
use super::document::{Section, Value};
use super::limits::peer_limits;
use super::names::{is_realm, REALM_WORDS};
use super::signing::{accept_signing, signing};
use super::{Export, ExportedEngine, Operations, PeerConfig, Reasons, LINKS_MAX};

const PEERS_WORDS: &str = "tables: [[peers]]";
const KEY_WORDS: &str = "\"ed25519:…\" (43 characters of base64), as `legation key show` prints it";
const LIMITS_WORDS: &str = "a table of limits that this peer has of its own";
const EXPORT_WORDS: &str =
    "\"all\" or a list of engines: \"ping\", or { name = \"ping\", allow = [\"call\"], filter = true }";
const OPERATIONS_WORDS: &str =
    "a list of \"call\", \"cast\", \"send\", \"monitor\", \"link\", \"exit\", \"sys\" and \"event\"";

/// The peers, and where the key of each stands in the text.
pub fn peers(value: &Value<'_>, own_realm: Option<&str>, addresses: &Addresses<'_>) -> Vec<(PeerConfig, usize)> {
    let mut peers: Vec<(PeerConfig, usize)> = Vec::new();
    let mut realms: BTreeMap<String, ()> = BTreeMap::new();
    let mut keys: BTreeMap<[u8; 32], String> = BTreeMap::new();
    for value in value.items(PEERS_WORDS).unwrap_or_default() {
        let Some(section) = value.section(PEERS_WORDS, "[[peers]]".to_owned()) else { continue };
        let Some((peer, key_at)) = peer(section, addresses) else { continue };
        if own_realm == Some(peer.realm.as_str()) {
            value.problem(format!("expected a peer's `realm` not to be our own, got: {:?}", peer.realm));
        }
        if realms.insert(peer.realm.clone(), ()).is_some() {
            value.problem(format!("expected peers to differ in their `realm`, got twice: {:?}", peer.realm));
        }
        if let Some(other) = keys.insert(peer.key, peer.realm.clone()) {
            value.problem(format!(
                "expected peers to differ in their `key`, got the same for: {other:?}, {:?}",
                peer.realm
            ));
        }
        peers.push((peer, key_at));
    }
    peers
}

fn peer(mut section: Section<'_>, addresses: &Addresses<'_>) -> Option<(PeerConfig, usize)> {
    let realm = section.required("realm", REALM_WORDS).and_then(|value| value.text(REALM_WORDS, is_realm));
    let place = realm.as_ref().map_or("[[peers]]".to_owned(), |realm| format!("peer {realm:?}"));
    section.rename(place.clone());
    let key_value = section.required("key", KEY_WORDS);
    let key = key_value.as_ref().and_then(key);
    let connect = section.value("connect").map(|value| addresses.connect(&value, &place)).unwrap_or_default();
    let export = section.value("export").and_then(|value| export(&value, &place));
    let allow = section.value("allow").and_then(|value| operations(&value)).unwrap_or(Operations::DEFAULT);
    let filter = section.value("filter").and_then(|value| value.boolean()).unwrap_or(false);
    let reasons = section.value("reasons").and_then(|value| reasons(&value)).unwrap_or_default();
    let links = section.value("links").and_then(|value| value.integer(1, LINKS_MAX as u64)).unwrap_or(1);
    let (signing, accept_signing) = (signing(&section), accept_signing(&section));
    let limits = section.value("limits").and_then(|value| value.section(LIMITS_WORDS, format!("limits of {place}")));
    let limits = limits.map(peer_limits).unwrap_or_default();
    section.finish();
    let export = export.unwrap_or(Export::These(Vec::new()));
    let links = links as u8;
    Some((
        PeerConfig {
            realm: realm?,
            key: key?,
            connect,
            export,
            allow,
            filter,
            reasons,
            links,
            signing,
            accept_signing,
            limits,
        },
        key_value?.at(),
    ))
}

fn reasons(value: &Value<'_>) -> Option<Reasons> {
    value.parse("\"class\" or \"full\"", |name| match name {
        "class" => Some(Reasons::Class),
        "full" => Some(Reasons::Full),
        _ => None,
    })
}

fn key(value: &Value<'_>) -> Option<[u8; 32]> {
    let key = value.parse(KEY_WORDS, parse_public_key)?;
    match check_public_key(&key) {
        Ok(_) => Some(key),
        Err(reason) => {
            value.problem(format!("expected `key` to be a public key, but this is {reason}"));
            None
        }
    }
}

fn export(value: &Value<'_>, place: &str) -> Option<Export> {
    if value.as_str() == Some("all") {
        return Some(Export::All);
    }
    if !value.is_array() {
        value.expected(EXPORT_WORDS);
        return None;
    }
    let mut engines: Vec<ExportedEngine> = Vec::new();
    let mut names: BTreeMap<String, ()> = BTreeMap::new();
    for value in value.items(EXPORT_WORDS)? {
        let Some(engine) = exported(&value, place) else { continue };
        if names.insert(engine.name.clone(), ()).is_some() {
            value.problem(format!("expected each engine in `export` to be there once, got twice: {:?}", engine.name));
        }
        engines.push(engine);
    }
    Some(Export::These(engines))
}

fn exported(value: &Value<'_>, place: &str) -> Option<ExportedEngine> {
    if !value.is_table() {
        return Some(ExportedEngine { name: value.text(EXPORT_WORDS, is_realm)?, allow: None, filter: false });
    }
    let section = value.section(EXPORT_WORDS, format!("export in {place}"))?;
    const WORDS: &str = "an engine's name: 1 to 255 bytes without \"@\" and control characters";
    let name = section.required("name", WORDS).and_then(|value| value.text(WORDS, is_realm));
    let allow = section.value("allow").and_then(|value| operations(&value));
    let filter = section.value("filter").and_then(|value| value.boolean()).unwrap_or(false);
    section.finish();
    Some(ExportedEngine { name: name?, allow, filter })
}

fn operations(value: &Value<'_>) -> Option<Operations> {
    let mut operations = 0;
    for value in value.items(OPERATIONS_WORDS)? {
        operations |= value.parse(OPERATIONS_WORDS, |name| {
            Operations::NAMES.iter().find(|(_, known)| *known == name).map(|(operation, _)| *operation)
        })?;
    }
    Some(Operations(operations))
}
