//! Addresses: where we listen, and what we dial.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;

use legation_channel::channel::Profile;

use super::document::{Section, Value};
use super::limits::MS_MAX;
use super::names::{expand, is_path, SOCKET_PATH_BYTES_MAX};
use super::{CarrierConfig, ListenConfig, Uids};

const LISTEN_WORDS: &str = "an IP address and a port, like \"0.0.0.0:4040\" or \"[::]:4040\"";
const DIAL_WORDS: &str = "a host and a port, like \"10.0.0.7:4040\" or \"[fe80::1]:4040\"";
const ADDRESS_WORDS: &str = "\"tcp://HOST:PORT\", \"unix:PATH\", { tcp = \"HOST:PORT\" } or { unix = \"PATH\" }";
const PATH_WORDS: &str = "a path of at most 107 bytes";
const UIDS_WORDS: &str = "\"any\" or a list of user ids";

/// Which end of a connection an address is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Listen,
    Connect,
}

pub struct Addresses<'b> {
    pub base: &'b Path,
    /// What an address has that doesn't say its own.
    pub send_timeout_ms: u64,
}

impl Addresses<'_> {
    /// `[[listen]]`.
    pub fn listen(&self, value: &Value<'_>) -> Vec<ListenConfig> {
        const WORDS: &str = "tables: [[listen]]";
        let mut listen: Vec<ListenConfig> = Vec::new();
        for value in value.items(WORDS).unwrap_or_default() {
            let Some(section) = value.section(WORDS, "[[listen]]".to_owned()) else { continue };
            let id = section.value("id").and_then(|id| id.text("a text", |text| !text.is_empty()));
            let carrier = self.carrier(&section, Direction::Listen);
            section.finish();
            let Some(carrier) = carrier else { continue };
            let id = id.unwrap_or_else(|| carrier.to_string());
            if listen.iter().any(|other| other.id == id) {
                value.problem(format!("expected each `id` in [[listen]] to be there once, got twice: {id:?}"));
            }
            listen.push(ListenConfig { id, carrier });
        }
        listen
    }

    /// A peer's `connect`.
    pub fn connect(&self, value: &Value<'_>, place: &str) -> Vec<CarrierConfig> {
        let words = format!("a list of addresses: {ADDRESS_WORDS}");
        let items = value.items(&words).unwrap_or_default();
        items.iter().filter_map(|value| self.dialled(value, &words, place)).collect()
    }

    fn dialled(&self, value: &Value<'_>, words: &str, place: &str) -> Option<CarrierConfig> {
        if value.is_table() {
            let section = value.section(words, format!("connect in {place}"))?;
            let carrier = self.carrier(&section, Direction::Connect);
            section.finish();
            return carrier;
        }
        let text = value.as_str().unwrap_or_default();
        let send_timeout_ms = self.send_timeout_ms;
        if let Some(address) = text.strip_prefix("tcp://") {
            let Some((host, port)) = host_and_port(address) else {
                value.expected(words);
                return None;
            };
            return Some(CarrierConfig::Tcp { host, port, profile: Profile::Tls, send_timeout_ms });
        }
        let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
        match path.and_then(|path| self.socket_path(path)) {
            Some(path) => Some(CarrierConfig::Unix { path, profile: Profile::Local, uids: Uids::Own, send_timeout_ms }),
            None => {
                value.expected(words);
                None
            }
        }
    }

    fn carrier(&self, section: &Section<'_>, direction: Direction) -> Option<CarrierConfig> {
        let (tcp, unix) = (section.value("tcp"), section.value("unix"));
        let (profile, uids) = (section.value("profile"), unix.as_ref().and_then(|_| section.value("uids")));
        let send_timeout_ms = section.value("send_timeout_ms").and_then(|value| value.integer(1, MS_MAX));
        let send_timeout_ms = send_timeout_ms.unwrap_or(self.send_timeout_ms);
        match (tcp, unix) {
            (Some(address), None) => {
                let profile = self::profile(profile, Profile::Tls);
                let (host, port) = match direction {
                    Direction::Listen => address.parse(LISTEN_WORDS, |text| {
                        text.parse::<SocketAddr>().ok().map(|address| (address.ip().to_string(), address.port()))
                    })?,
                    Direction::Connect => address.parse(DIAL_WORDS, host_and_port)?,
                };
                Some(CarrierConfig::Tcp { host, port, profile: profile?, send_timeout_ms })
            }
            (None, Some(path)) => {
                let profile = self::profile(profile, Profile::Local);
                let uids = uids.map_or(Some(Uids::Own), |value| self::uids(&value));
                let path = path.parse(PATH_WORDS, |text| self.socket_path(text))?;
                Some(CarrierConfig::Unix { path, profile: profile?, uids: uids?, send_timeout_ms })
            }
            (None, None) => {
                section.problem("`tcp` is missing; expected it, or `unix`".to_owned());
                None
            }
            (Some(_), Some(_)) => {
                section.problem("expected either `tcp` or `unix`, got both".to_owned());
                None
            }
        }
    }

    fn socket_path(&self, text: &str) -> Option<std::path::PathBuf> {
        let path = is_path(text).then(|| expand(self.base, text))?;
        (path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX).then_some(path)
    }
}

/// Only where the operating system vouches for the other end are bytes left as they are.
fn profile(value: Option<Value<'_>>, default: Profile) -> Option<Profile> {
    let Some(value) = value else { return Some(default) };
    match (value.as_str(), default) {
        (Some("tls"), _) => Some(Profile::Tls),
        (Some("plain"), _) => Some(Profile::Plain),
        (Some("local"), Profile::Local) => Some(Profile::Local),
        _ => {
            let local = if default == Profile::Local { "\"local\", " } else { "" };
            value.expected(&format!("{local}\"tls\" or \"plain\""));
            None
        }
    }
}

fn uids(value: &Value<'_>) -> Option<Uids> {
    if !value.is_array() {
        let uids = value.parse(UIDS_WORDS, |text| (text == "any").then_some(Uids::Any));
        return uids;
    }
    let items = value.items(UIDS_WORDS)?;
    let uids = items.iter().map(|uid| uid.integer(0, u64::from(u32::MAX)).and_then(|uid| u32::try_from(uid).ok()));
    uids.collect::<Option<Vec<u32>>>().map(Uids::These)
}

/// `10.0.0.7:4040`, `host.example:4040`, `[fe80::1]:4040`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
    if let Some(host) = host.strip_prefix('[') {
        return Some((host.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string(), port));
    }
    let valid = |c: char| !matches!(c, ':' | '[' | ']' | '/' | '@') && !c.is_control() && !c.is_whitespace();
    (!host.is_empty() && host.chars().all(valid)).then(|| (host.to_owned(), port))
}

impl std::fmt::Display for CarrierConfig {
    /// As it may stand in a configuration: `tcp://10.0.0.7:4040`, `unix:/run/bob.sock`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CarrierConfig::Tcp { host, port, .. } if host.contains(':') => write!(formatter, "tcp://[{host}]:{port}"),
            CarrierConfig::Tcp { host, port, .. } => write!(formatter, "tcp://{host}:{port}"),
            CarrierConfig::Unix { path, .. } => write!(formatter, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        assert_eq!(host_and_port("10.0.0.7:4040"), Some(("10.0.0.7".to_owned(), 4040)));
        assert_eq!(host_and_port("bob.example:1"), Some(("bob.example".to_owned(), 1)));
        assert_eq!(host_and_port("[::1]:65535"), Some(("::1".to_owned(), 65_535)));
        for bad in [
            "",
            ":",
            "host",
            "host:",
            ":1",
            "host:0",
            "host:65536",
            "::1:1",
            "[::1:1",
            "[x]:1",
            "a b:1",
            "[]:1",
            "u@h:1",
        ] {
            assert_eq!(host_and_port(bad), None, "{bad:?}");
        }
    }
}
