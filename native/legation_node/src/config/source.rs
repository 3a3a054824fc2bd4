//! Where a configuration comes from: a file, or standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use legation_proto::key_file::{self, KeyFileError, CHAIN_BYTES_MAX};
use legation_proto::key_text::parse_network_key;
use legation_proto::keyring::Keyring;
use zeroize::Zeroizing;

use super::error::{io_words, ConfigError, Problem};
use super::parse::{parse, parse_control_socket, Places};
use super::secret_file;
use super::{Config, KeySource};

/// Ten thousand peers with a line or two for each.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// A PEM of an Ed25519 key has 119 bytes, a network key 65; comments may stand around a PEM.
const KEY_BYTES_MAX: u64 = 16_384;

/// What follows `--config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// `-`: standard input, up to the first NUL byte or its end.
    Stdin,
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Source {
        match path.as_os_str().as_encoded_bytes() {
            b"-" => Source::Stdin,
            _ => Source::File(path.to_owned()),
        }
    }
}

/// A configuration, and what is known about it besides.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// What works and should not be so.
    pub warnings: Vec<String>,
    /// How errors name the file.
    pub origin: String,
    pub places: Places,
    /// The cookie stands in it.
    pub holds_secret: bool,
}

impl Source {
    /// Reads and parses.
    ///
    /// # Errors
    /// Everything that is wrong, by line and column.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let (origin, base) = (self.origin(), self.base());
        let mut warnings = Vec::new();
        let text = self.text(&origin, &mut warnings)?;
        let mut loaded = parse(&origin, &text, &base)?;
        if loaded.holds_secret {
            loaded.warnings.append(&mut warnings);
        }
        Ok(loaded)
    }

    /// Where the daemon of this configuration is to be talked to, whatever else is wrong with it.
    ///
    /// # Errors
    /// When it says of no such place.
    pub fn control_socket(&self) -> Result<PathBuf, ConfigError> {
        let origin = self.origin();
        let text = self.text(&origin, &mut Vec::new())?;
        parse_control_socket(&origin, &text, &self.base())
    }

    fn origin(&self) -> String {
        match self {
            Source::File(path) => path.display().to_string(),
            Source::Stdin => "standard input".to_owned(),
        }
    }

    /// Relative paths are relative to the file.
    fn base(&self) -> PathBuf {
        let directory = match self {
            Source::File(path) => path.parent().unwrap_or(Path::new("")),
            Source::Stdin => Path::new(""),
        };
        // Absolute, so that a path means the same after a change of directory and counts its whole length.
        std::path::absolute(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })
            .unwrap_or_else(|_| directory.to_owned())
    }

    fn text(&self, origin: &str, warnings: &mut Vec<String>) -> Result<Zeroizing<String>, ConfigError> {
        let bytes = match self {
            Source::File(path) => secret_file::read(path, CONFIG_BYTES_MAX, warnings)
                // It is named by the path already.
                .map_err(|words| ConfigError::whole(origin, words.trim_start_matches(&format!("{origin}: "))))?,
            Source::Stdin => read_to_nul(std::io::stdin().lock(), CONFIG_BYTES_MAX)
                .map_err(|words| ConfigError::whole(origin, words))?,
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(ConfigError::whole(origin, "not UTF-8")),
        }
    }
}

impl Loaded {
    /// Whether the files that the configuration names hold what they should. An agent isn't asked.
    ///
    /// # Errors
    /// Everything that is wrong, by line and column of who named it.
    pub fn check_files(&mut self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        if let KeySource::File(path) = &self.config.key {
            match read_key(path, &mut self.warnings) {
                Ok(key_file::Loaded { keyring, .. }) => {
                    for (peer, place) in self.config.peers.iter().zip(&self.places.peers) {
                        if peer.key == *keyring.public() {
                            let text = format!("expected the key of peer {:?} not to be our own", peer.realm);
                            problems.push(Problem { position: Some(*place), text });
                        }
                    }
                }
                Err(words) => {
                    problems.push(Problem { position: Some(self.places.key), text: format!("`key`: {words}") })
                }
            }
        }
        if let Some(path) = &self.config.network_key {
            if let Err(words) = read_network_key(path, &mut self.warnings) {
                problems
                    .push(Problem { position: Some(self.places.network_key), text: format!("`network_key`: {words}") });
            }
        }
        problems.sort_by_key(|problem| problem.position);
        match problems.is_empty() {
            true => Ok(()),
            false => Err(ConfigError { origin: self.origin.clone(), problems }),
        }
    }
}

/// What configurations of one process may not have in common.
///
/// # Errors
/// Of the first that is the same as one before it.
pub fn check_together(all: &[Loaded]) -> Result<(), ConfigError> {
    for (index, loaded) in all.iter().enumerate() {
        let (config, origin) = (&loaded.config, &loaded.origin);
        for other in all.iter().take(index) {
            let common = [
                ("realm", config.realm == other.config.realm),
                ("node name", config.node.name == other.config.node.name),
                (
                    "control socket",
                    config.control_socket.is_some() && config.control_socket == other.config.control_socket,
                ),
            ];
            if let Some((what, _)) = common.into_iter().find(|(_, same)| *same) {
                return Err(ConfigError::whole(
                    origin,
                    format!("expected another {what} than that of {}", other.origin),
                ));
            }
        }
    }
    Ok(())
}

/// The identity of a key file: the key in it, or the one that has replaced it.
///
/// # Errors
/// Words that name the file.
pub fn read_key(path: &Path, warnings: &mut Vec<String>) -> Result<key_file::Loaded, String> {
    let mut words = String::new();
    let mut pem = |path: &Path| {
        read_pem(path, warnings).map_err(|why| {
            words = why;
            KeyFileError::Chain(path.to_owned())
        })
    };
    let loaded =
        key_file::load(path, &mut pem, &mut |path| match secret_file::read(path, CHAIN_BYTES_MAX, &mut Vec::new()) {
            Ok(content) => Ok(Some(content.to_vec())),
            Err(_) if !path.exists() => Ok(None),
            Err(words) => Err(std::io::Error::other(words)),
        });
    let loaded = loaded.map_err(|error| if words.is_empty() { error.to_string() } else { words })?;
    if loaded.path != path {
        warnings.push(format!("the key in {} was replaced by the one in {}", path.display(), loaded.path.display()));
    }
    Ok(loaded)
}

/// The identity in a PKCS#8 PEM, with a fresh online key.
///
/// # Errors
/// Words that name the file.
pub fn read_pem(path: &Path, warnings: &mut Vec<String>) -> Result<Keyring, String> {
    let content = secret_file::read(path, KEY_BYTES_MAX, warnings)?;
    let mut online = Zeroizing::new([0; 32]);
    getrandom::fill(online.as_mut_slice()).map_err(|_| "no randomness".to_owned())?;
    let keyring = std::str::from_utf8(&content).ok().and_then(|pem| Keyring::from_pem(pem, &online).ok());
    keyring.ok_or_else(|| format!("{}: not a PKCS#8 PEM with an Ed25519 private key", path.display()))
}

/// # Errors
/// Words that name the file.
pub fn read_network_key(
    path: &Path,
    warnings: &mut Vec<String>,
) -> Result<legation_proto::identity::NetworkKey, String> {
    let content = secret_file::read(path, KEY_BYTES_MAX, warnings)?;
    let key = parse_network_key(&content);
    key.ok_or_else(|| format!("{}: not a network key (32 bytes, or 64 hexadecimal digits)", path.display()))
}

/// All before the first NUL byte, or the end.
fn read_to_nul(mut from: impl Read, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut content = Zeroizing::new(Vec::new());
    let mut piece = Zeroizing::new([0; 4_096]);
    loop {
        let bytes = match from.read(piece.as_mut_slice()) {
            Ok(0) => return Ok(content),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io_words(&error)),
        };
        let end = piece[..bytes].iter().position(|byte| *byte == 0);
        content.extend_from_slice(&piece[..end.unwrap_or(bytes)]);
        if content.len() as u64 > bytes_max {
            return Err(format!("longer than {bytes_max} bytes"));
        }
        if end.is_some() {
            return Ok(content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_read_up_to_a_nul_and_no_further_than_its_bound() {
        assert_eq!(read_to_nul(&b"abc\0def"[..], 3).unwrap().as_slice(), b"abc");
        assert_eq!(read_to_nul(&b"abc"[..], 3).unwrap().as_slice(), b"abc");
        assert!(read_to_nul(&b"abcd"[..], 3).is_err());
        assert_eq!(read_to_nul(&b""[..], 3).unwrap().as_slice(), b"");
    }
}
