//! Peers and addresses as the control engine is given them: property lists or maps. An error is the name of the option that can't be meant.

use std::path::PathBuf;

use erl_dist::term::Term;
use legation_channel::channel::Profile;
use legation_proto::identity::is_engine_name;
use legation_proto::key_text::parse_public_key;
use legation_proto::limits::Overflow;
use legation_proto::signing::{Mode, Modes};

use crate::config::names::is_realm;
use crate::config::signing;
use crate::config::{
    CarrierConfig, Export, ExportedEngine, Limits, ListenConfig, Operations, PeerConfig, PeerLimits, Reasons, Uids,
    LINKS_MAX, MS_MAX,
};
use crate::realm::terms::{as_atom, as_boolean, as_bytes, as_list, as_text, as_tuple, as_unsigned, Options};

type BadOption = &'static str;

/// `realm`, `key`, `connect`, `export`, `allow`, `filter`, `reasons`, `links`, `signing`, `accept_signing`, `limits`.
pub fn peer(value: &Term, limits: &Limits) -> Result<PeerConfig, BadOption> {
    let options = Options::of(value).ok_or("peer")?;
    const KNOWN: [&str; 11] = [
        "realm",
        "key",
        "connect",
        "export",
        "allow",
        "filter",
        "reasons",
        "links",
        "signing",
        "accept_signing",
        "limits",
    ];
    if options.unknown(&KNOWN).is_some() {
        return Err("unknown_option");
    }
    let realm = options.get("realm").and_then(as_text).filter(|realm| is_realm(realm)).ok_or("realm")?;
    let key = options.get("key").and_then(public_key).ok_or("key")?;
    let connect = match options.get("connect") {
        Some(addresses) => as_list(addresses)
            .ok_or("connect")?
            .iter()
            .map(|address| carrier(address, limits, true).ok_or("connect"))
            .collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    let export = match options.get("export") {
        Some(all) if as_atom(all) == Some("all") => Export::All,
        Some(engines) => {
            let engines = as_list(engines).ok_or("export")?.iter();
            Export::These(engines.map(|engine| exported(engine).ok_or("export")).collect::<Result<_, _>>()?)
        }
        None => Export::These(Vec::new()),
    };
    let allow = match options.get("allow") {
        Some(allow) => operations(allow).ok_or("allow")?,
        None => Operations::DEFAULT,
    };
    let filter = options.get("filter").map_or(Some(false), as_boolean).ok_or("filter")?;
    let reasons = match options.get("reasons").map(as_atom) {
        None | Some(Some("class")) => Reasons::Class,
        Some(Some("full")) => Reasons::Full,
        Some(_) => return Err("reasons"),
    };
    let links = match options.get("links") {
        Some(links) => as_unsigned(links).filter(|links| (1..=LINKS_MAX as u64).contains(links)).ok_or("links")? as u8,
        None => 1,
    };
    let limits = options.get("limits").map_or(Some(PeerLimits::default()), peer_limits).ok_or("limits")?;
    let signing = match options.get("signing") {
        Some(name) => Some(signing_mode(name).ok_or("signing")?),
        None => None,
    };
    let accept_signing = match options.get("accept_signing") {
        Some(modes) => Some(signing_modes(modes).ok_or("accept_signing")?),
        None => None,
    };
    Ok(PeerConfig { realm, key, connect, export, allow, filter, reasons, links, signing, accept_signing, limits })
}

fn signing_mode(value: &Term) -> Option<Mode> {
    Mode::from_name(&as_text(value)?)
}

fn signing_modes(value: &Term) -> Option<Modes> {
    let modes: Option<Vec<Mode>> = as_list(value)?.iter().map(signing_mode).collect();
    signing::accepted(&modes?)
}

/// What the peer has of its own of these.
fn peer_limits(value: &Term) -> Option<PeerLimits> {
    const KNOWN: [&str; 6] =
        ["grace_ms", "resume_bytes_max", "queue_bytes_max", "engine_queue_bytes_max", "overflow", "message_ttl_ms"];
    let options = Options::of(value)?;
    if options.unknown(&KNOWN).is_some() {
        return None;
    }
    let bytes = |value: &Term| usize::try_from(as_unsigned(value)?).ok();
    let positive = |value: &Term| bytes(value).filter(|bytes| *bytes > 0);
    // Inner none: it is no such value.
    let optional = |name: &str| options.get(name);
    Some(PeerLimits {
        grace_ms: match optional("grace_ms") {
            Some(value) => Some(as_unsigned(value).filter(|ms| *ms <= MS_MAX)?),
            None => None,
        },
        resume_bytes_max: match optional("resume_bytes_max") {
            Some(value) => Some(bytes(value)?),
            None => None,
        },
        queue_bytes_max: match optional("queue_bytes_max") {
            Some(value) => Some(positive(value)?),
            None => None,
        },
        engine_queue_bytes_max: match optional("engine_queue_bytes_max") {
            Some(value) if as_atom(value) == Some("infinity") => Some(None),
            Some(value) => Some(Some(positive(value)?)),
            None => None,
        },
        overflow: match optional("overflow").map(as_atom) {
            Some(Some("newest")) => Some(Overflow::Newest),
            Some(Some("oldest")) => Some(Overflow::Oldest),
            Some(Some("disconnect")) => Some(Overflow::Disconnect),
            Some(_) => return None,
            None => None,
        },
        message_ttl_ms: match optional("message_ttl_ms") {
            Some(value) if as_atom(value) == Some("infinity") => Some(None),
            Some(value) => Some(Some(as_unsigned(value).filter(|ms| (1..=MS_MAX).contains(ms))?)),
            None => None,
        },
    })
}

/// `{tcp | unix, Options}`, in which `id` may stand.
pub fn listener(value: &Term, limits: &Limits) -> Result<ListenConfig, BadOption> {
    let carrier = carrier(value, limits, false).ok_or("address")?;
    let id = match as_tuple(value) {
        Some([_, options]) => Options::of(options).and_then(|options| options.get("id").and_then(as_text)),
        _ => None,
    };
    // A port of the kernel's choice may be asked for again and again.
    let any_port = matches!(&carrier, CarrierConfig::Tcp { port: 0, .. });
    let id = id.unwrap_or_else(|| match any_port {
        true => format!("{carrier}#{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
        false => carrier.to_string(),
    });
    Ok(ListenConfig { id, carrier })
}

static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// A list of operations by name.
pub fn operations(value: &Term) -> Option<Operations> {
    let names = as_list(value)?.iter().map(|name| {
        let name = as_text(name)?;
        Operations::NAMES.iter().find(|(_, known)| *known == name).map(|(operation, _)| *operation)
    });
    let mut bits = 0;
    for operation in names {
        bits |= operation?;
    }
    Some(Operations(bits))
}

fn public_key(value: &Term) -> Option<[u8; 32]> {
    if let Some(Ok(key)) = as_bytes(value).map(<[u8; 32]>::try_from) {
        return Some(key);
    }
    parse_public_key(&as_text(value)?)
}

fn exported(value: &Term) -> Option<ExportedEngine> {
    let (name, options) = match as_tuple(value) {
        Some([name, options]) => (name, Some(Options::of(options)?)),
        Some(_) => return None,
        None => (value, None),
    };
    let name = as_text(name).filter(|name| is_engine_name(name))?;
    let Some(options) = options else {
        return Some(ExportedEngine { name, allow: None, filter: false });
    };
    if options.unknown(&["allow", "filter"]).is_some() {
        return None;
    }
    let allow = match options.get("allow") {
        Some(allow) => Some(operations(allow)?),
        None => None,
    };
    let filter = options.get("filter").map_or(Some(false), as_boolean)?;
    Some(ExportedEngine { name, allow, filter })
}

fn carrier(value: &Term, limits: &Limits, dial: bool) -> Option<CarrierConfig> {
    let [kind, options] = as_tuple(value)? else {
        return None;
    };
    let options = Options::of(options)?;
    let send_timeout_ms = match options.get("send_timeout_ms") {
        Some(ms) => as_unsigned(ms).filter(|ms| (1..=u64::from(u32::MAX)).contains(ms))?,
        None => limits.send_timeout_ms,
    };
    match as_atom(kind)? {
        "tcp" => {
            if options.unknown(&["host", "ip", "port", "profile", "send_timeout_ms", "id"]).is_some() {
                return None;
            }
            let host = match options.get(if dial { "host" } else { "ip" }) {
                Some(host) => address_text(host)?,
                None if dial => return None,
                None => "0.0.0.0".to_owned(),
            };
            let port = match options.get("port") {
                Some(port) => u16::try_from(as_unsigned(port)?).ok()?,
                None if dial => return None,
                None => 0,
            };
            let profile = profile(&options, Profile::Tls)?;
            (profile != Profile::Local).then_some(CarrierConfig::Tcp { host, port, profile, send_timeout_ms })
        }
        "unix" => {
            if options.unknown(&["path", "uids", "profile", "send_timeout_ms", "id"]).is_some() {
                return None;
            }
            let path = PathBuf::from(options.get("path").and_then(as_text).filter(|path| !path.is_empty())?);
            let uids = match options.get("uids") {
                Some(any) if as_atom(any) == Some("any") => Uids::Any,
                Some(Term::ByteList(uids)) => Uids::These(uids.bytes.iter().map(|uid| u32::from(*uid)).collect()),
                Some(uids) => {
                    let uids = as_list(uids)?.iter().map(|uid| u32::try_from(as_unsigned(uid)?).ok());
                    Uids::These(uids.collect::<Option<_>>()?)
                }
                None => Uids::Own,
            };
            let profile = profile(&options, Profile::Local)?;
            Some(CarrierConfig::Unix { path, profile, uids, send_timeout_ms })
        }
        _ => None,
    }
}

fn profile(options: &Options<'_>, default: Profile) -> Option<Profile> {
    match options.get("profile").map(as_text) {
        None => Some(default),
        Some(name) => match name?.as_str() {
            "tls" => Some(Profile::Tls),
            "local" => Some(Profile::Local),
            "plain" => Some(Profile::Plain),
            _ => None,
        },
    }
}

/// Text, or a tuple as `inet` has it.
fn address_text(value: &Term) -> Option<String> {
    let Some(numbers) = as_tuple(value) else {
        return as_text(value);
    };
    let numbers: Vec<u16> =
        numbers.iter().map(|number| u16::try_from(as_unsigned(number)?).ok()).collect::<Option<_>>()?;
    match numbers[..] {
        [a, b, c, d] => {
            let octet = |number: u16| u8::try_from(number).ok();
            Some(std::net::Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?).to_string())
        }
        [a, b, c, d, e, f, g, h] => Some(std::net::Ipv6Addr::new(a, b, c, d, e, f, g, h).to_string()),
        _ => None,
    }
}
