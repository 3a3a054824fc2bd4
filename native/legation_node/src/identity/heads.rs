//! What peers have shown of their keys, over restarts: a file in `state_dir` for each realm that has rotated its key or is revoked.

use std::path::{Path, PathBuf};

use super::rotation::write;
use super::{Identity, IdentityError};
use crate::config::io_words;

const EXTENSION: &str = "head";

impl Identity {
    /// Reads what was written down, and goes on writing there.
    ///
    /// # Errors
    /// [`IdentityError::State`]: with less than was known, a stolen key could get in.
    pub(super) fn with_state(mut self, dir: Option<PathBuf>) -> Result<Identity, IdentityError> {
        if let Some(dir) = &dir {
            self.restore(dir)?;
        }
        self.state_dir = dir;
        Ok(self)
    }

    fn restore(&self, dir: &Path) -> Result<(), IdentityError> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| IdentityError::State(format!("{path}: {}", io_words(&error)))
        };
        std::fs::create_dir_all(dir).map_err(failed(dir))?;
        for entry in std::fs::read_dir(dir).map_err(failed(dir))? {
            let path = entry.map_err(failed(dir))?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let head = std::fs::read(&path).map_err(failed(&path))?;
            let restored = self.keyring.heads().restore(&head);
            restored.map_err(|error| IdentityError::State(format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }

    /// Writes down what was learned since the last time. Without a `state_dir` there is nothing to do.
    pub fn keep_heads(&self) {
        let Some(dir) = &self.state_dir else { return };
        for (realm, head) in self.keyring.heads().take_changed() {
            let digits: String = realm.0.iter().map(|byte| format!("{byte:02x}")).collect();
            let path = dir.join(digits).with_extension(EXTENSION);
            if let Err(error) = write(&path, &head) {
                let words = io_words(&error);
                tracing::error!(path = %path.display(), words, "what is known of a peer's key could not be kept");
            }
        }
    }
}
