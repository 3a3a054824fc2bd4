//! What fuzzing has collected: `fuzz/corpus/TARGET.txt`, an input in hexadecimal digits on each line, and `fuzz/findings/TARGET.WHAT.txt`, the same
//! behind comments that say what was wrong. libFuzzer wants a directory with a file for each: [`unpack`] and [`pack`].

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rust_tests::vectors::from_hex;

use crate::Target;

/// What a corpus may grow to. The shortest inputs are kept, which say the most for their length.
pub const CORPUS_BYTES_MAX: usize = 24 * 1024;

/// `fuzz/` of the source tree.
pub fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// # Errors
/// When a line is not made of hexadecimal digits.
pub fn parse(text: &str) -> io::Result<Vec<Vec<u8>>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| from_hex(line).ok_or_else(|| io::Error::other(format!("no hexadecimal digits: {line:.40}"))))
        .collect()
}

fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let text = fs::read_to_string(path)?;
    parse(&text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

/// What fuzzing runs have found to go another way than the seeds.
///
/// # Errors
/// When it can't be read. A target may have none.
pub fn collected(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    match read(&home().join("corpus").join(format!("{}.txt", target.name))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result,
    }
}

/// What once made this target panic: name of the file, and inputs.
///
/// # Errors
/// When it can't be read.
pub fn findings(target: &Target) -> io::Result<Vec<(String, Vec<Vec<u8>>)>> {
    let mut findings = Vec::new();
    for (name, path) in finding_files()? {
        if name.split('.').next() == Some(target.name) {
            findings.push((name, read(&path)?));
        }
    }
    Ok(findings)
}

/// Name and path of each.
///
/// # Errors
/// When the directory can't be read.
pub fn finding_files() -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(home().join("findings"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".txt") {
            files.push((name, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// Seeds, corpus and findings.
///
/// # Errors
/// When a file can't be read.
pub fn all(target: &Target) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut all: BTreeSet<Vec<u8>> = (target.seeds)().into_iter().collect();
    all.extend(collected(target)?);
    all.extend(findings(target)?.into_iter().flat_map(|(_, inputs)| inputs));
    Ok(all)
}

/// A file for each input.
///
/// # Errors
/// When one can't be read or written.
pub fn unpack(target: &Target, directory: &Path) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    let all = all(target)?;
    for input in &all {
        fs::write(directory.join(&blake3::hash(input).to_hex()[..16]), input)?;
    }
    Ok(all.len())
}

/// The corpus is what is in `directory`, without the seeds.
///
/// # Errors
/// When a file can't be read or written.
pub fn pack(target: &Target, directory: &Path) -> io::Result<usize> {
    let mut inputs = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        inputs.insert(fs::read(entry?.path())?);
    }
    for seed in (target.seeds)() {
        inputs.remove(&seed);
    }
    let mut inputs: Vec<Vec<u8>> = inputs.into_iter().collect();
    inputs.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
    let mut room = CORPUS_BYTES_MAX;
    inputs.retain(|input| match room.checked_sub(input.len()) {
        Some(less) => {
            room = less;
            !input.is_empty()
        }
        None => false,
    });
    let mut text = String::from("# Made by `make fuzz KEEP=1`; docs/testing.md.\n");
    for input in &inputs {
        input.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a string takes everything"));
        text.push('\n');
    }
    fs::write(home().join("corpus").join(format!("{}.txt", target.name)), text)?;
    Ok(inputs.len())
}
