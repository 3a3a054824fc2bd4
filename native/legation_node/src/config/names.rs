//! What names, paths and the like may be.

use std::path::{Path, PathBuf};

pub const REALM_WORDS: &str = "a name of 1 to 255 bytes without \"@\" and control characters";

/// sockaddr_un, without its closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A realm's name follows the rules of engine names (`protocol.md` 2.4).
pub fn is_realm(name: &str) -> bool {
    legation_proto::identity::is_engine_name(name)
}

/// `ping@bob`.
pub fn is_full_name(name: &str) -> bool {
    name.split_once('@').is_some_and(|(engine, realm)| is_realm(engine) && is_realm(realm))
}

/// `legation@127.0.0.1`: what a BEAM node would take for a node.
pub fn is_node(name: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && !part.chars().any(|c| c == '@' || c.is_whitespace() || c.is_control());
    // An atom.
    name.chars().count() <= 255 && name.split_once('@').is_some_and(|(name, host)| is_part(name) && is_part(host))
}

pub fn is_atom(text: &str) -> bool {
    text.chars().count() <= 255
}

/// What has lines is a file's content, and not its path.
pub fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// A path from a file in `base`. `~/` is the home directory.
pub fn expand(base: &Path, text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => base.join(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_a_name_and_a_host() {
        for good in ["legation@127.0.0.1", "a@b", "größe@host.example"] {
            assert!(is_node(good), "{good}");
        }
        let long = format!("{}@h", "x".repeat(254));
        for bad in ["legation", "@host", "a@", "a@b@c", "a b@c", "a@b\n", "", &long] {
            assert!(!is_node(bad), "{bad:?}");
        }
    }

    #[test]
    fn full_names_have_an_engine_and_a_realm() {
        assert!(is_full_name("ping@bob"));
        for bad in ["ping", "ping@", "@bob", "ping@bob@x", "pi\nng@bob"] {
            assert!(!is_full_name(bad), "{bad:?}");
        }
    }
}
