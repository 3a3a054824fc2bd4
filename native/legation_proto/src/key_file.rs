//! The file beside a key: `alice.pem.chain` says how the realm came by the key in `alice.pem`, and where the next one is.
//!
//! ```text
//! legation chain 1
//! rotation <352 hexadecimal digits>        each of the realm's, in order
//! revocation <272 hexadecimal digits>      the realm has ended
//! next <path>                              the key was replaced by the one in this file
//! ```
//!
//! Nothing here opens a file: reading is the caller's.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::keyring::{Keyring, KeyringError};
use crate::limits::ROTATIONS_MAX;
use crate::rotation::{Revocation, Rotation};

/// Sixteen rotations of 362 bytes, and a path.
pub const CHAIN_BYTES_MAX: u64 = 16_384;

const HEAD: &str = "legation chain 1";

/// What stands in a chain file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainFile {
    pub rotations: Vec<Rotation>,
    pub revocation: Option<Revocation>,
    pub next: Option<PathBuf>,
}

/// Why a key can't be had from its files.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{path}: {error}")]
    Key { path: PathBuf, error: KeyringError },
    #[error("{0} is no chain of rotations")]
    Chain(PathBuf),
    #[error("the files of replaced keys lead to each other, or to more than {ROTATIONS_MAX} others")]
    Loop,
}

/// A key from its files.
#[derive(Debug)]
pub struct Loaded {
    pub keyring: Keyring,
    /// Where the key stands: another file than was asked for, when that one's key was replaced.
    pub path: PathBuf,
}

/// The file that belongs to a key's.
pub fn chain_path(key: &Path) -> PathBuf {
    let mut path = key.as_os_str().to_owned();
    path.push(".chain");
    path.into()
}

/// The key of `path`, or the one that has replaced it. `pem` reads a key, `chain` a chain file, which need not be there.
///
/// # Errors
/// What can't be read, or is not what it should be.
pub fn load(
    path: &Path,
    pem: &mut dyn FnMut(&Path) -> Result<Keyring, KeyFileError>,
    chain: &mut dyn FnMut(&Path) -> std::io::Result<Option<Vec<u8>>>,
) -> Result<Loaded, KeyFileError> {
    let mut path = path.to_owned();
    for _ in 0..=ROTATIONS_MAX {
        let beside = chain_path(&path);
        let content = chain(&beside).map_err(|error| KeyFileError::Io { path: beside.clone(), error })?;
        let file = match content {
            Some(content) => ChainFile::parse(&content).ok_or_else(|| KeyFileError::Chain(beside.clone()))?,
            None => ChainFile::default(),
        };
        if let Some(next) = file.next {
            path = next;
            continue;
        }
        let keyring = pem(&path)?;
        let keyring = keyring.with_chain(file.rotations, file.revocation);
        let keyring = keyring.map_err(|error| KeyFileError::Key { path: beside, error })?;
        return Ok(Loaded { keyring, path });
    }
    Err(KeyFileError::Loop)
}

impl ChainFile {
    /// What is to stand beside a key of this keyring's realm: as it is, or with another record.
    pub fn of(keyring: &Keyring) -> ChainFile {
        let identity = keyring.identity();
        ChainFile { rotations: identity.chain().to_vec(), revocation: identity.revocation().cloned(), next: None }
    }

    /// None when the path of the next key is not text in one line.
    pub fn format(&self) -> Option<String> {
        let mut text = format!("{HEAD}\n");
        for rotation in &self.rotations {
            text += &format!("rotation {}\n", hex(&rotation.encode()));
        }
        if let Some(revocation) = &self.revocation {
            text += &format!("revocation {}\n", hex(&revocation.encode()));
        }
        if let Some(next) = &self.next {
            let next = next.to_str().filter(|path| !path.is_empty() && !path.contains(['\n', '\r']))?;
            text += &format!("next {next}\n");
        }
        Some(text)
    }

    /// None for anything else than [`ChainFile::format`] gives.
    pub fn parse(content: &[u8]) -> Option<ChainFile> {
        let mut lines = std::str::from_utf8(content).ok()?.lines();
        if lines.next()? != HEAD {
            return None;
        }
        let mut file = ChainFile::default();
        for line in lines {
            match line.split_once(' ')? {
                ("rotation", digits) if file.rotations.len() < ROTATIONS_MAX && file.revocation.is_none() => {
                    file.rotations.push(Rotation::decode(&from_hex(digits)?).ok()?);
                }
                ("revocation", digits) if file.revocation.is_none() => {
                    file.revocation = Some(Revocation::decode(&from_hex(digits)?).ok()?);
                }
                ("next", path) if file.next.is_none() && !path.is_empty() => file.next = Some(path.into()),
                _ => return None,
            }
        }
        Some(file)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::identity::NetworkKey;

    fn keyring(seed: u8) -> Keyring {
        Keyring::new(&[seed; 32], &[0; 32])
    }

    /// A realm that has rotated from 1 to 2.
    fn rotated() -> (Keyring, ChainFile) {
        let realm = keyring(1);
        let rotation = realm.sign_rotation(keyring(2).public(), &NetworkKey::none().id(), 7).unwrap();
        realm.rotate(&keyring(2), rotation).unwrap();
        let file = ChainFile::of(&realm);
        (realm, file)
    }

    fn load_from(files: &HashMap<PathBuf, Vec<u8>>, path: &str) -> Result<Loaded, KeyFileError> {
        let mut pem = |path: &Path| match path.file_stem().and_then(|name| name.to_str()?.parse().ok()) {
            Some(seed) => Ok(keyring(seed)),
            None => Err(KeyFileError::Io { path: path.to_owned(), error: std::io::ErrorKind::NotFound.into() }),
        };
        load(Path::new(path), &mut pem, &mut |path| Ok(files.get(path).cloned()))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (realm, mut file) = rotated();
        file.next = Some("/keys/3 of us.pem".into());
        let revocation = realm.sign_revocation(&NetworkKey::none().id()).unwrap();
        file.revocation = Some(revocation);
        let text = file.format().unwrap();
        assert_eq!(ChainFile::parse(text.as_bytes()), Some(file));
        assert!(ChainFile { next: Some("a\nb".into()), ..ChainFile::default() }.format().is_none());
    }

    #[test]
    fn anything_else_is_no_chain_file() {
        let text = rotated().1.format().unwrap();
        for cut in 1..text.len() - 1 {
            // But for a file that ends behind its first line, which has no rotations.
            let parsed = ChainFile::parse(&text.as_bytes()[..cut]);
            assert!(parsed.is_none_or(|file| file.rotations.is_empty()), "{cut}");
        }
        for bad in ["", "x", "legation chain 2\n", "legation chain 1\nrotation 00\n", "legation chain 1\nnext \n"] {
            assert_eq!(ChainFile::parse(bad.as_bytes()), None, "{bad:?}");
        }
        let record = text.lines().nth(1).unwrap();
        let many = |count: usize| format!("{HEAD}\n{}", format!("{record}\n").repeat(count));
        assert!(ChainFile::parse(many(ROTATIONS_MAX).as_bytes()).is_some());
        assert!(ChainFile::parse(many(ROTATIONS_MAX + 1).as_bytes()).is_none());
    }

    #[test]
    fn a_key_is_loaded_with_its_chain_and_a_replaced_one_leads_to_the_next() {
        let (realm, file) = rotated();
        let text = |file: &ChainFile| file.format().unwrap().into_bytes();
        let pointer = ChainFile { next: Some("/k/2.pem".into()), ..ChainFile::default() };
        let files = HashMap::from([("/k/1.pem.chain".into(), text(&pointer)), ("/k/2.pem.chain".into(), text(&file))]);
        for path in ["/k/1.pem", "/k/2.pem"] {
            let loaded = load_from(&files, path).unwrap();
            assert_eq!(loaded.path, Path::new("/k/2.pem"));
            assert_eq!(loaded.keyring.public(), realm.public());
            assert_eq!(loaded.keyring.identity().public(), keyring(2).public());
            assert_eq!(loaded.keyring.check(&NetworkKey::none().id(), 7), Ok(()));
            assert!(loaded.keyring.check(&NetworkKey::new([1; 32]).id(), 7).is_err(), "another network");
        }
        assert_eq!(load_from(&files, "/k/3.pem").unwrap().keyring.public(), keyring(3).public());
    }

    #[test]
    fn files_that_lead_nowhere_are_refused() {
        let text = |file: ChainFile| file.format().unwrap().into_bytes();
        let to = |path: &str| text(ChainFile { next: Some(path.into()), ..ChainFile::default() });
        let files = HashMap::from([
            ("/k/1.pem.chain".into(), to("/k/2.pem")),
            ("/k/2.pem.chain".into(), to("/k/1.pem")),
            ("/k/4.pem.chain".into(), text(rotated().1)),
            ("/k/5.pem.chain".into(), b"legation".to_vec()),
        ]);
        assert!(matches!(load_from(&files, "/k/1.pem"), Err(KeyFileError::Loop)));
        assert!(matches!(load_from(&files, "/k/4.pem"), Err(KeyFileError::Key { .. })));
        assert!(matches!(load_from(&files, "/k/5.pem"), Err(KeyFileError::Chain(_))));
        assert!(matches!(load_from(&files, "/k/x.pem"), Err(KeyFileError::Io { .. })));
    }
}
