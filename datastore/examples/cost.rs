//! What a plugin process pays for the store: open, read, commit, close.
//!
//! `cargo run --release -p datastore --example cost [DIR]` (default: a fresh temporary one).

use datastore::embedded::{Embedded, Mode};
use datastore::journal::Journal;
use datastore::{Deadline, Store};
use model::store::{Entry, Expect, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).map_or_else(
        || std::env::temp_dir().join(format!("percale-cost-{}", std::process::id())),
        PathBuf::from,
    );
    for (name, leases) in [("empty", 0), ("110 leases", 110), ("20,000 leases", 20_000)] {
        let store = dir.join(name);
        fill(&store, leases)?;
        measure(name, &store)?;
    }
    measure_journal(&dir)?;
    Ok(std::fs::remove_dir_all(dir)?)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn handle(i: usize) -> String {
    format!("/calico/ipam/v2/handle/k8s-pod-network.{i:064x}")
}

fn block(i: usize) -> String {
    format!("/calico/ipam/v2/assignment/ipv4/block/10.{}.{}.0-26", i / 256, i % 256)
}

/// Handles of 150 bytes, and for each 64 of them a block of 16 KiB.
fn fill(dir: &Path, leases: usize) -> Result<()> {
    let entry = |key, len| Entry { key, value: vec![b'x'; len], revision: 1 };
    let handles = (0..leases).map(|i| entry(handle(i), 150));
    let blocks = (0..leases.div_ceil(64)).map(|i| entry(block(i), 16 << 10));
    Embedded::load(dir, handles.chain(blocks).collect(), soon())?;
    Ok(())
}

/// One ADD as a process of its own does it: the block is read and rewritten, a handle created.
fn add(dir: &Path, i: usize) -> Result<()> {
    let store = Embedded::open(dir, Mode::Create)?;
    let (block, handle) = (block(0), format!("/calico/ipam/v2/handle/new.{i:064x}"));
    let found = store.get(&[&block, &handle], soon())?;
    let expect = found[0].as_ref().map_or(Expect::Absent, |e| Expect::At(e.revision));
    let writes = [
        Write { key: block, expect, value: Some(vec![b'y'; 16 << 10]) },
        Write { key: handle, expect: Expect::Absent, value: Some(vec![b'z'; 150]) },
    ];
    store.commit(&writes, soon())?;
    Ok(())
}

fn measure(name: &str, dir: &Path) -> Result<()> {
    report(&format!("{name}: open, get, commit, close"), 300, |i| add(dir, i))?;
    report(&format!("{name}: open, get, close"), 300, |_| {
        Embedded::open(dir, Mode::Existing)?.get(&[&block(0), &handle(77)], soon())?;
        Ok(())
    })?;
    let store = Embedded::open(dir, Mode::Existing)?;
    report(&format!("{name}: get on an open store"), 300, |_| {
        Ok(store.get(&[&block(0)], soon()).map(drop)?)
    })?;
    report(&format!("{name}: list of all handles"), 20, |_| {
        Ok(store.list("/calico/ipam/v2/handle/", soon()).map(drop)?)
    })
}

fn measure_journal(dir: &Path) -> Result<()> {
    Journal::open(dir)?;
    report("journal: open, pending, close", 300, |_| Ok(Journal::open(dir)?.pending().map(drop)?))?;
    report("sync: one fdatasync of a page", 300, {
        let file = std::fs::File::create(dir.join("page"))?;
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 65536], 0)?;
        file.sync_all()?;
        move |i| {
            std::os::unix::fs::FileExt::write_all_at(&file, &[i as u8; 16700], 0)?;
            Ok(file.sync_data()?)
        }
    })
}

fn report(what: &str, runs: usize, mut f: impl FnMut(usize) -> Result<()>) -> Result<()> {
    let mut times = Vec::with_capacity(runs);
    for i in 0..runs {
        let start = Instant::now();
        f(i)?;
        times.push(start.elapsed());
    }
    times.sort();
    let us = |t: Duration| t.as_secs_f64() * 1e6;
    println!(
        "{what:<45} median {:>8.0} us   p99 {:>8.0} us",
        us(times[runs / 2]),
        us(times[runs * 99 / 100])
    );
    Ok(())
}
