//! The README's table of RFC sections names tests that exist.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names of functions, and of modules, which are files, folders or `mod NAME`.
fn names(dir: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        into.insert(path.file_stem().unwrap().to_string_lossy().into_owned());
        if path.is_dir() {
            names(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let declared = |line: &str| {
                let line = line.trim_start().trim_start_matches("pub ");
                let name = line.strip_prefix("fn ").or_else(|| line.strip_prefix("mod "))?;
                Some(name.split(|c: char| !c.is_alphanumeric() && c != '_').next()?.to_owned())
            };
            into.extend(text.lines().filter_map(declared));
        }
    }
}

#[test]
fn the_tests_that_the_table_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = BTreeSet::new();
    for dir in ["src", "tests", "../e2e/tests"] {
        names(&root.join(dir), &mut known);
    }
    let text = fs::read_to_string(root.join("README.md")).unwrap();
    let table = text.split("## RFC sections").nth(1).unwrap().split("\n\nWhole networks").next().unwrap();
    let cells = table.lines().filter(|l| l.starts_with("| ")).filter_map(|l| l.split('|').nth(3));
    let named: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(named.len() > 50, "the table is found: {named:?}");
    for name in named {
        for part in name.split("::").filter(|part| *part != "e2e") {
            let exists = match part.strip_suffix('…') {
                Some(beginning) => known.iter().any(|k| k.starts_with(beginning)),
                None => known.contains(part),
            };
            assert!(exists, "{name}: there is no {part}");
        }
    }
}
