//! For `scripts/fuzz`: what targets there are, and their corpora.
//!
//! ```text
//!  corpus list                    name, longest input, what it is; a line each
//!  corpus unpack TARGET DIR       seeds, corpus and findings, a file each
//!  corpus pack TARGET DIR         the other way round: DIR becomes the corpus
//!  corpus replay TARGET FILE...   these inputs, without libFuzzer
//! ```

use std::path::Path;
use std::process::ExitCode;

use legation_fuzz::{corpus, target, TARGETS};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["list"] => {
            TARGETS.iter().for_each(|target| println!("{}\t{}\t{}", target.name, target.bytes_max, target.what));
            Ok(())
        }
        [word, name, ref rest @ ..] => match (word, target(name), rest) {
            (_, None, _) => Err(format!("there is no target {name}")),
            ("unpack", Some(target), [directory]) => said(corpus::unpack(target, Path::new(directory))),
            ("pack", Some(target), [directory]) => said(corpus::pack(target, Path::new(directory))),
            ("replay", Some(target), files) => files.iter().try_for_each(|file| {
                let input = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
                (target.run)(&input);
                Ok(())
            }),
            _ => Err("usage: see the source".to_owned()),
        },
        _ => Err("usage: corpus list | unpack TARGET DIR | pack TARGET DIR | replay TARGET FILE...".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corpus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn said(count: std::io::Result<usize>) -> Result<(), String> {
    println!("{}", count.map_err(|error| error.to_string())?);
    Ok(())
}
