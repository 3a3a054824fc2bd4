//! Another identity key for a realm that runs, and the end of one.
//!
//! What is decided is written down before it is true: a restart must not come back with less than peers have seen.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use legation_proto::key_file::{chain_path, ChainFile};
use legation_proto::keyring::KeyringError;

use super::Identity;
use crate::config::{io_words, read_pem};
use crate::realm::{lock, now_ms};

/// Why the key is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// `code`: `enoent`, `eacces`, `io`, `bad_path`, `not_pkcs8_ed25519`.
    #[error("{words}")]
    KeyFile { code: &'static str, words: String },
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

impl Identity {
    /// The key in the file is the identity from now on. Reads and writes files.
    ///
    /// # Errors
    /// See [`RotateError`]; nothing has changed then.
    pub fn rotate(&self, path: &Path) -> Result<[u8; 32], RotateError> {
        let mut file = lock(&self.file);
        let old_path = file.clone().ok_or(KeyringError::External)?;
        let path = std::path::absolute(path).map_err(|error| failed(path, &error))?;
        std::fs::File::open(&path).map_err(|error| failed(&path, &error))?;
        let next = read_pem(&path, &mut Vec::new());
        let next = next.map_err(|words| RotateError::KeyFile { code: "not_pkcs8_ed25519", words })?;
        let rotation = self.keyring.sign_rotation(next.public(), &self.network.id(), now_ms())?;
        let old = ChainFile { next: Some(path.clone()), ..ChainFile::of(&self.keyring) };
        let mut new = ChainFile::of(&self.keyring);
        new.rotations.push(rotation.clone());
        write_chain(&chain_path(&path), &new)?;
        write_chain(&chain_path(&old_path), &old)?;
        self.keyring.rotate(&next, rotation)?;
        *file = Some(path);
        Ok(*next.public())
    }

    /// The realm has ended. Writes a file.
    ///
    /// # Errors
    /// See [`RotateError`]; nothing has changed then.
    pub fn revoke(&self) -> Result<(), RotateError> {
        let file = lock(&self.file);
        let path = file.as_deref().ok_or(KeyringError::External)?;
        let revocation = self.keyring.sign_revocation(&self.network.id())?;
        let ended = ChainFile { revocation: Some(revocation.clone()), ..ChainFile::of(&self.keyring) };
        write_chain(&chain_path(path), &ended)?;
        Ok(self.keyring.revoke(revocation)?)
    }

    /// Where the key is.
    pub fn key_path(&self) -> Option<PathBuf> {
        lock(&self.file).clone()
    }
}

fn failed(path: &Path, error: &std::io::Error) -> RotateError {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => "enoent",
        std::io::ErrorKind::PermissionDenied => "eacces",
        _ => "io",
    };
    RotateError::KeyFile { code, words: format!("{}: {}", path.display(), io_words(error)) }
}

fn write_chain(path: &Path, chain: &ChainFile) -> Result<(), RotateError> {
    let words = || format!("{}: the path is no text", path.display());
    let text = chain.format().ok_or_else(|| RotateError::KeyFile { code: "bad_path", words: words() })?;
    write(path, text.as_bytes()).map_err(|error| failed(path, &error))
}

/// A file that is there whole, or as it was before.
pub(super) fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let written = Path::new(&name);
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(written)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(written, path)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
