//! Writes the vector files: `cargo run -p rust_tests --bin vectors [DIRECTORY]`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../test/vectors"));
    let directory = std::env::args().nth(1).map_or(default, PathBuf::from);
    for (name, content) in rust_tests::vectors::files() {
        let path = directory.join(name);
        if let Err(error) = std::fs::write(&path, content) {
            eprintln!("vectors: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
