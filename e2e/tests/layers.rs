//! Dependencies point one way: pure crates know no edge crate, edges do not know each other,
//! only binaries join them; and pure crates do no I/O.

#![allow(clippy::unwrap_used)]

use e2e::bins::workspace;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

const PURE: &[&str] = &["model", "ipam", "cni-protocol", "bgp", "peering", "policy"];
const EDGES: &[&str] = &["datastore", "datastore-resolve", "netlink"];
/// Back ends of `datastore`, whose trait they know.
const BACK_ENDS: &[&str] = &["datastore-etcd", "datastore-kubernetes"];
const BINARIES: &[&str] = &["cni", "ctl", "install", "percaled"];
const TESTS: &[&str] = &["e2e"];

/// Crates that have no place under a pure crate.
const IMPURE: &[&str] =
    &["tokio", "rustix", "libc", "nix", "fs2", "netlink-sys", "rand", "getrandom", "socket2"];

/// What a pure crate's source does not say.
const IMPURE_WORDS: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::env::var",
    "std::env::args",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "std::os::",
    "println!",
];

struct Crate {
    dir: String,
    deps: BTreeSet<String>,
}

fn crates() -> BTreeMap<String, Crate> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(workspace());
    let json: Value = serde_json::from_slice(&e2e::netns::must(&mut command)).unwrap();
    let packages = json["packages"].as_array().unwrap().iter();
    packages.map(|p| (p["name"].as_str().unwrap().to_owned(), read(p))).collect()
}

fn read(package: &Value) -> Crate {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    let deps = package["dependencies"].as_array().unwrap().iter();
    let normal = deps.filter(|d| d["kind"].is_null()).map(|d| d["name"].as_str().unwrap().to_owned());
    Crate { dir: manifest.parent().unwrap().display().to_string(), deps: normal.collect() }
}

#[test]
fn dependencies_point_one_way() {
    let crates = crates();
    let wrong = |of: &[&str], not: &[&[&str]]| -> Vec<String> {
        let not = not.concat();
        let hits = of.iter().filter_map(|name| Some((name, crates.get(*name)?)));
        hits.flat_map(|(name, c)| {
            let bad = c.deps.iter().filter(|d| not.contains(&d.as_str()) && d.as_str() != *name);
            bad.map(move |d| format!("{name} uses {d}"))
        })
        .collect()
    };
    let none = Vec::<String>::new();
    assert_eq!(wrong(PURE, &[EDGES, BACK_ENDS, BINARIES, TESTS, IMPURE]), none, "pure crates");
    assert_eq!(wrong(EDGES, &[EDGES, BACK_ENDS, BINARIES, TESTS]), none, "edge crates");
    assert_eq!(wrong(BACK_ENDS, &[&["netlink"], BACK_ENDS, BINARIES, TESTS]), none, "back ends");
    assert_eq!(wrong(&["cni"], &[&["ctl", "percaled"], TESTS]), none, "the plugin");
}

#[test]
fn every_crate_has_its_place() {
    let placed = [PURE, EDGES, BACK_ENDS, BINARIES, TESTS].concat();
    let crates = crates();
    let lost: Vec<&String> = crates.keys().filter(|name| !placed.contains(&name.as_str())).collect();
    assert_eq!(lost, Vec::<&String>::new(), "say in this file what these are");
}

#[test]
fn pure_crates_do_no_io() {
    for (name, found) in crates().iter().filter(|(name, _)| PURE.contains(&name.as_str())) {
        for (path, text) in sources(Path::new(&found.dir).join("src").as_path()) {
            let code: String =
                text.split("#[cfg(test)]").next().unwrap_or_default().lines().filter(is_code).collect();
            let said: Vec<_> = IMPURE_WORDS.iter().filter(|w| code.contains(**w)).collect();
            assert!(said.is_empty(), "{name}: {path} says {said:?}");
        }
    }
}

fn is_code(line: &&str) -> bool {
    !line.trim_start().starts_with("//")
}

fn sources(dir: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            all.extend(sources(&entry));
        } else if entry.extension().is_some_and(|e| e == "rs") && !is_test(&entry) {
            all.push((entry.display().to_string(), fs::read_to_string(&entry).unwrap()));
        }
    }
    all
}

/// A file that is compiled for tests alone, by its name.
fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

/// `DIR/FILE::TEST` in backquotes, each a test of `DIR/tests/FILE.rs`.
#[test]
fn the_tests_that_the_stores_readme_names_exist() {
    let text = fs::read_to_string(workspace().join("datastore/README.md")).unwrap();
    let names = text.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::"));
    let names = names.filter(|(file, _)| file.contains('/'));
    let missing: Vec<_> = names.clone().filter(|(file, test)| !is_there(file, test)).collect();
    assert_eq!(missing, []);
    assert!(names.count() > 30);
}

fn is_there(file: &str, test: &str) -> bool {
    let Some((dir, file)) = file.rsplit_once('/') else { return false };
    let source = fs::read_to_string(workspace().join(dir).join("tests").join(format!("{file}.rs")));
    source.is_ok_and(|text| text.contains(&format!("fn {test}()")))
}
