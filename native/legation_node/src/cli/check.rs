//! `legation check`: a configuration, and the files that it names.

use std::path::PathBuf;

use clap::Args;
use serde_json::{json, Value};

use super::{say, Failure};
use crate::config::{check_together, ConfigError, Loaded, Problem, Source};

/// Says what is wrong with a configuration, by line and column, and whether keys and cookie can be read.
///
/// Nothing is started and nobody is asked, a key agent included.
#[derive(Args)]
#[command(after_help = "Exit code 0 if `legation run` would take it, 2 if not. Warnings don't count.")]
pub struct Check {
    /// The configuration; `-` for standard input. Several are those of one `legation run`
    #[arg(long = "config", short, value_name = "FILE", required = true)]
    configs: Vec<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Check {
    pub fn run(self) -> Result<(), Failure> {
        let loaded = load(&self.configs);
        if self.json {
            return json_report(&loaded);
        }
        for loaded in loaded? {
            for warning in &loaded.warnings {
                eprintln!("{}: warning: {warning}", loaded.origin);
            }
            let config = &loaded.config;
            let (realm, node, peers) = (&config.realm, &config.node.name, config.peers.len());
            say(&format!("{}: ok (realm {realm}, node {node}, peers {peers})", loaded.origin));
        }
        Ok(())
    }
}

/// All the configurations of one daemon.
///
/// # Errors
/// Those of the first that is wrong, or of all of them together.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Loaded>, ConfigError> {
    let mut all = Vec::new();
    for path in paths {
        let mut loaded = Source::from(path.as_path()).load()?;
        loaded.check_files()?;
        all.push(loaded);
    }
    check_together(&all)?;
    Ok(all)
}

fn json_report(loaded: &Result<Vec<Loaded>, ConfigError>) -> Result<(), Failure> {
    match loaded {
        Ok(loaded) => {
            let describe = |loaded: &Loaded| {
                json!({"file": loaded.origin, "realm": loaded.config.realm, "node": loaded.config.node.name,
                       "warnings": loaded.warnings})
            };
            let configs: Vec<Value> = loaded.iter().map(describe).collect();
            say(&json!({"ok": true, "configs": configs}).to_string());
            Ok(())
        }
        Err(error) => {
            let describe = |problem: &Problem| {
                let (line, column) = problem.position.map(|position| (position.line, position.column)).unzip();
                json!({"file": error.origin, "line": line, "column": column, "text": problem.text})
            };
            let problems: Vec<Value> = error.problems.iter().map(describe).collect();
            say(&json!({"ok": false, "problems": problems}).to_string());
            Err(Failure::Said(2))
        }
    }
}
