//! The module could be a crate of its own.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn dist_uses_nothing_of_the_crate_around_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = vec![root.join("dist.rs")];
    collect(&root.join("dist"), &mut sources);
    assert!(sources.len() > 8, "{sources:?}");
    for path in sources {
        let text = fs::read_to_string(&path).expect("a source");
        for (number, line) in text.lines().enumerate() {
            let code = line.replace("crate::dist::", "");
            assert!(
                !code.contains("crate::") && !code.contains("legation_proto") && !code.contains("legation_channel"),
                "{}:{}: {line}",
                path.display(),
                number + 1
            );
        }
        // Nor does it climb out.
        let depth = path.strip_prefix(&root).expect("below src").components().count();
        assert!(!text.contains(&"super::".repeat(depth)), "{}", path.display());
    }
}

fn collect(directory: &Path, sources: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}
