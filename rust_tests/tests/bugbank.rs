//! The bank of bugs (docs/testing.md) does not rot: every patch still applies to the tree, says what it is, and names tests that there are.
//! Whether these catch it is for `make bugbank`.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What the bank has to have at least.
const BUGS_MIN: usize = 109;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

struct Patch {
    name: String,
    head: String,
    /// File, and the lines that have to stand there, one behind the other.
    hunks: Vec<(String, Vec<String>)>,
    lines_changed: usize,
}

fn patches() -> Vec<Patch> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root().join("test/bugbank")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| parse(path.file_name().unwrap().to_str().unwrap(), &fs::read_to_string(path).unwrap()))
        .collect()
}

fn parse(name: &str, text: &str) -> Patch {
    let (head, diff) = text.split_once("\ndiff --git ").unwrap_or_else(|| panic!("{name}: no diff"));
    let mut hunks: Vec<(String, Vec<String>)> = Vec::new();
    let (mut file, mut lines_changed) = (String::new(), 0);
    for line in diff.lines().skip(1) {
        if let Some(path) = line.strip_prefix("--- a/") {
            file = path.to_owned();
        } else if line.starts_with("@@ ") {
            hunks.push((file.clone(), Vec::new()));
        } else if let (Some((_, there)), Some(kept)) = (hunks.last_mut(), line.strip_prefix([' ', '-'])) {
            if !line.starts_with("--- ") {
                there.push(kept.to_owned());
                lines_changed += usize::from(line.starts_with('-'));
            }
        } else if line.starts_with('+') && !line.starts_with("+++ ") {
            lines_changed += 1;
        }
    }
    Patch { name: name.to_owned(), head: head.to_owned(), hunks, lines_changed }
}

impl Patch {
    fn field(&self, field: &str) -> Vec<&str> {
        self.head.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(": ")).collect()
    }
}

#[test]
fn every_patch_of_the_bank_applies_to_the_tree() {
    let patches = patches();
    assert!(patches.len() >= BUGS_MIN);
    for Patch { name, hunks, lines_changed, .. } in &patches {
        assert!(!hunks.is_empty() && *lines_changed > 0 && *lines_changed <= 12, "{name}: {lines_changed} lines");
        for (file, there) in hunks {
            let text = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
            let lines: Vec<&str> = text.lines().collect();
            let found = lines.windows(there.len()).any(|window| window == there.as_slice());
            assert!(
                found,
                "{name} does not apply to {file} any more; these lines are not there:\n{}",
                there.join("\n")
            );
        }
    }
}

#[test]
fn every_patch_of_the_bank_says_what_it_is_and_names_tests_that_there_are() {
    let mut numbers = HashSet::new();
    for patch in patches() {
        let name = &patch.name;
        let (number, words) = name.split_once('-').unwrap_or_else(|| panic!("{name}: no number"));
        let known = number.parse::<u16>().is_ok_and(|known| format!("{known:02}") == number);
        assert!(known && words.ends_with(".patch"), "{name}");
        assert!(numbers.insert(number.to_owned()), "{name}: its number is another's, too");
        for field in ["bug", "allows"] {
            assert_eq!(patch.field(field).len(), 1, "{name}: {field}");
        }
        let tests = patch.field("test");
        assert!(!tests.is_empty(), "{name} names no test");
        tests.iter().for_each(|command| assert!(is_there(command), "{name}: there is no such test: {command}"));
    }
}

#[test]
fn a_test_that_is_not_there_would_be_missed() {
    assert!(!is_there("cargo test -p rust_tests --test attacks -- --exact this_one"));
    assert!(!is_there("cargo test -p no_crate --lib -- --exact is_there"));
    assert!(!is_there("mix test test/legation/policy_test.exs --only \"test:test this one\""));
    assert!(!is_there("make test"));
}

fn is_there(command: &str) -> bool {
    let words: Vec<&str> = command.split(' ').collect();
    if let ["cargo", "test", "-p", package, .., "--", "--exact", path] = words.as_slice() {
        let directory = match *package {
            "rust_tests" => root().join("rust_tests"),
            package => root().join("native").join(package),
        };
        let function = format!("fn {}(", path.rsplit("::").next().unwrap_or(path));
        return contains(&directory, &function);
    }
    // `mix test FILE --only "test:test NAME"`, perhaps with variables in front; a name may have its `describe` before it.
    let Some((_, rest)) = command.split_once("mix test ") else { return false };
    let Some((file, name)) = rest.split_once(" --only \"test:test ") else { return false };
    let (Ok(text), Some(name)) = (fs::read_to_string(root().join(file)), name.strip_suffix('"')) else { return false };
    titles(&text).iter().any(|title| name.contains(title))
}

/// Of tests; what is computed in one is left out, with what follows it.
fn titles(text: &str) -> Vec<&str> {
    let titles = text.lines().filter_map(|line| line.trim_start().strip_prefix("test \""));
    titles.filter_map(|title| title.split(['"', '#']).next()).filter(|title| !title.is_empty()).collect()
}

fn contains(directory: &Path, words: &str) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => contains(&path, words),
        false => {
            path.extension().is_some_and(|kind| kind == "rs") && fs::read_to_string(&path).unwrap().contains(words)
        }
    })
}
