//! What fuzzing has collected and what it once found, through the same functions; no nightly compiler, no libFuzzer.

use std::panic::catch_unwind;

use legation_fuzz::{corpus, target, Target, TARGETS};

fn replay(target: &Target, inputs: impl IntoIterator<Item = Vec<u8>>, whence: &str) -> usize {
    let mut count = 0;
    for input in inputs {
        count += 1;
        if catch_unwind(|| (target.run)(&input)).is_err() {
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("{} of {whence}: {hex}", target.name);
        }
    }
    count
}

#[test]
fn every_seed_and_all_that_was_collected_is_as_it_should_be() {
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(|| {
                let seeds = (target.seeds)();
                assert!(!seeds.is_empty(), "{} begins with nothing", target.name);
                replay(target, seeds, "the seeds");
                replay(target, corpus::collected(target).expect("a corpus that can be read"), "the corpus");
            });
        }
    });
}

#[test]
fn what_was_found_once_is_not_found_again() {
    for target in TARGETS {
        for (name, inputs) in corpus::findings(target).expect("findings that can be read") {
            assert!(replay(target, inputs, &name) > 0, "{name} holds nothing");
        }
    }
}

#[test]
fn every_finding_belongs_to_a_target_and_says_what_it_was() {
    for (name, path) in corpus::finding_files().expect("the directory of findings") {
        let owner = name.split('.').next().and_then(target);
        assert!(owner.is_some(), "{name} is no target's");
        let text = std::fs::read_to_string(path).expect("a text");
        assert!(text.starts_with("# "), "{name} doesn't say what was wrong");
    }
}

#[test]
fn every_target_is_given_to_libfuzzer_and_nothing_else_is() {
    let mut given: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(corpus::home().join("fuzz_targets")).expect("fuzz/fuzz_targets") {
        given.push(entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned());
    }
    given.sort();
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(given, names);
    let manifest = std::fs::read_to_string(corpus::home().join("Cargo.toml")).expect("fuzz/Cargo.toml");
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
        let source =
            std::fs::read_to_string(corpus::home().join("fuzz_targets").join(format!("{name}.rs"))).expect("a source");
        assert!(source.contains(&format!("targets::{name}::TARGET")), "{name}.rs runs another target");
    }
}
