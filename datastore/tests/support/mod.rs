//! What the tests of this crate share.

#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(clippy::unwrap_used, reason = "a failing call fails the test that made it")]

use datastore::embedded::{Embedded, Mode};
use datastore::{CommitError, Deadline, Error, ErrorKind, Store};
use model::store::{Entry, Expect, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

pub fn put(key: &str, expect: Expect, value: impl Into<Vec<u8>>) -> Write {
    Write { key: key.into(), expect, value: Some(value.into()) }
}

pub fn delete(key: &str, expect: Expect) -> Write {
    Write { key: key.into(), expect, value: None }
}

pub fn open(dir: &Path) -> Embedded {
    Embedded::open(dir, Mode::Create).unwrap()
}

pub fn get(store: &Embedded, key: &str) -> Option<Entry> {
    store.get(&[key], soon()).unwrap().remove(0)
}

pub fn kind(result: Result<impl Sized, Error>) -> ErrorKind {
    result.err().expect("must fail").kind
}

pub fn commit_kind(result: Result<u64, CommitError>) -> ErrorKind {
    match result {
        Err(CommitError::Store(error)) => error.kind,
        other => panic!("{other:?}"),
    }
}

/// The count that `PERCALE_FULL=1` asks for, else the small one.
pub fn count(full: usize, small: usize) -> usize {
    if std::env::var_os("PERCALE_FULL").is_some() { full } else { small }
}

/// Adds one to the number under each of `keys`, in one commit, until nobody is in the way.
pub fn increment(store: &Embedded, keys: &[&str]) -> Vec<u64> {
    loop {
        let found = store.get(keys, soon()).unwrap();
        let next: Vec<u64> = found.iter().map(|e| e.as_ref().map_or(0, number) + 1).collect();
        let writes: Vec<Write> = keys
            .iter()
            .zip(found.iter().zip(&next))
            .map(|(key, (old, new))| {
                put(key, old.as_ref().map_or(Expect::Absent, |e| Expect::At(e.revision)), new.to_string())
            })
            .collect();
        match store.commit(&writes, soon()) {
            Ok(_) => return next,
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub fn number(entry: &Entry) -> u64 {
    std::str::from_utf8(&entry.value).unwrap().trim().parse().unwrap()
}

/// Runs one test of this test binary again, as another process, in `dir`.
pub fn child(prefix: &[&str], test: &str, dir: &Path, argument: &str) -> Child {
    let exe = std::env::current_exe().unwrap();
    let words: Vec<_> = prefix.iter().map(std::ffi::OsStr::new).chain([exe.as_os_str()]).collect();
    Command::new(words[0])
        .args(&words[1..])
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("PERCALE_TEST_DIR", dir)
        .env("PERCALE_TEST_ARGUMENT", argument)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What `child` was given; `None` in an ordinary run.
pub fn as_child() -> Option<(std::path::PathBuf, String)> {
    let dir = std::env::var_os("PERCALE_TEST_DIR")?;
    Some((dir.into(), std::env::var("PERCALE_TEST_ARGUMENT").unwrap()))
}
