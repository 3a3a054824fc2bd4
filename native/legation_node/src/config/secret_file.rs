//! Files that hold secrets: read within a bound, wiped after use, and named when others can read them.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::error::io_words;

/// The content of a file of at most so many bytes, or why it can't be had.
///
/// # Errors
/// Words that name the file.
pub fn read(path: &Path, bytes_max: u64, warnings: &mut Vec<String>) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("{}: {}", path.display(), io_words(&error));
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(format!("{}: is a directory", path.display()));
    }
    // Enough room at once: what a growing buffer leaves behind isn't wiped.
    let mut content = Zeroizing::new(Vec::with_capacity(metadata.len().min(bytes_max) as usize + 1));
    file.take(bytes_max + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > bytes_max {
        return Err(format!("{}: longer than {bytes_max} bytes", path.display()));
    }
    let others = metadata.mode() & 0o077;
    if metadata.is_file() && others & 0o044 != 0 {
        let mode = metadata.mode() & 0o777;
        warnings.push(format!("{} can be read by others (mode {mode:03o}); chmod 600 it", path.display()));
    }
    Ok(content)
}
