//! For `scripts/fuzz`: what targets there are, and their corpora.
//!
//! ```text
//!  corpus list                    name, longest input, what it is; a line each
//!  corpus unpack TARGET DIR       seeds, corpus and findings, a file each
//!  corpus pack TARGET DIR         the other way round: DIR becomes the corpus
//!  corpus replay TARGET FILE...   these inputs, without libFuzzer
//!  corpus reach TARGET [DIR]      how far sessions come in seeds and corpus, or with what is in DIR
//! ```

use std::path::Path;
use std::process::ExitCode;

use legation_fuzz::targets::session::Reached;
use legation_fuzz::{corpus, target, Target, TARGETS};

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
            ("reach", Some(target), directories) => reach(target, directories),
            _ => Err("usage: see the source".to_owned()),
        },
        _ => {
            Err("usage: corpus list | unpack TARGET DIR | pack TARGET DIR | replay TARGET FILE... | reach TARGET [DIR]"
                .to_owned())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corpus: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Of how many inputs something is true.
fn reach(target: &Target, directories: &[&str]) -> Result<(), String> {
    let inputs: Vec<Vec<u8>> = match directories {
        [] => corpus::all(target).map_err(|error| error.to_string())?.into_iter().collect(),
        [directory, ..] => {
            let files = std::fs::read_dir(directory).map_err(|error| error.to_string())?;
            let read = |file: std::io::Result<std::fs::DirEntry>| std::fs::read(file?.path());
            files.map(read).collect::<Result<_, _>>().map_err(|error| error.to_string())?
        }
    };
    let Some(reached) = target.reached() else { return Err(format!("{} is no session", target.name)) };
    let reached: Vec<Reached> = inputs.iter().filter_map(|input| reached(input)).collect();
    println!("{} inputs", reached.len());
    for (what, is) in Reached::KINDS {
        let count = reached.iter().filter(|reached| is(reached)).count();
        println!("{:>5.1} %  {what}", 100.0 * count as f64 / reached.len().max(1) as f64);
    }
    Ok(())
}

fn said(count: std::io::Result<usize>) -> Result<(), String> {
    println!("{}", count.map_err(|error| error.to_string())?);
    Ok(())
}
