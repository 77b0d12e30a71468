//! Damaged files: whatever is cut or flipped is noticed, or provably does not matter.

use super::sim::{Rng, Sim};
use crate::embedded::disk::File;
use crate::embedded::header::LOG_AT;
use crate::embedded::salvage::salvage;
use crate::embedded::slots::Slots;
use crate::{CommitError, Error, ErrorKind};
use model::store::{Entry, Expect, Write};

fn put(key: &str, value: &[u8]) -> Write {
    Write { key: key.into(), expect: Expect::Any, value: Some(value.to_vec()) }
}

/// A store with a superseded slot, a snapshot of several pages and two commits in the log.
fn store() -> (Sim, Vec<Entry>) {
    let sim = Sim::formatted();
    let mut slots = sim.slots();
    for i in 0..60 {
        let value = vec![i; if i % 30 == 0 { 9000 } else { 20 }];
        slots.commit(&[put(&format!("/key/{i:02}"), &value)]).unwrap();
    }
    while slots.loaded().unwrap().end() > LOG_AT {
        slots.commit(&[put("/key/30", &[7; 200])]).unwrap();
    }
    slots.commit(&[put("/key/05", b"new"), put("/more", b"1")]).unwrap();
    slots
        .commit(&[put("/last", b"2"), Write { key: "/key/06".into(), expect: Expect::Any, value: None }])
        .unwrap();
    let all = slots.list("").unwrap();
    (sim, all)
}

/// Commits until the other slot becomes the current one.
fn checkpoint(sim: &Sim) {
    let before = current_file(sim);
    while current_file(sim) == before {
        sim.slots().commit(&[put("/key/30", &[7; 200])]).unwrap();
    }
}

fn read_all(slots: &mut Slots) -> Result<Vec<Entry>, Error> {
    slots.refresh()?;
    slots.list("")
}

/// What a change to the bytes of one file led to.
fn outcome(sim: &Sim, file: File, bytes: Vec<u8>) -> Result<Vec<Entry>, Error> {
    let before = sim.bytes(file);
    sim.set_bytes(file, bytes);
    let result = read_all(&mut sim.slots());
    sim.set_bytes(file, before);
    result
}

fn stride() -> usize {
    if std::env::var_os("PERCALE_FULL").is_some() { 1 } else { 37 }
}

fn current_file(sim: &Sim) -> File {
    let mut slots = sim.slots();
    slots.refresh().unwrap();
    slots.loaded().unwrap().file
}

#[test]
fn a_file_cut_at_any_length_is_corrupt_or_whole() {
    let (sim, all) = store();
    for file in [File::A, File::B, File::Mark] {
        let bytes = sim.bytes(file);
        for len in (0..bytes.len()).step_by(stride()) {
            match outcome(&sim, file, bytes[..len].to_vec()) {
                Ok(found) => assert_eq!(found, all, "{file:?} cut to {len}"),
                Err(error) => assert_eq!(error.kind, ErrorKind::Corrupt, "{error}"),
            }
        }
        if file != File::Mark {
            outcome(&sim, file, Vec::new()).expect_err("a lost slot must be noticed");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_corrupt_or_harmless() {
    let (sim, all) = store();
    let mut noticed = 0;
    for file in [File::A, File::B, File::Mark] {
        let bytes = sim.bytes(file);
        for bit in (0..bytes.len() * 8).step_by(stride() * 3) {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match outcome(&sim, file, bad) {
                Ok(found) => assert_eq!(found, all, "{file:?} bit {bit}"),
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
                    noticed += 1;
                }
            }
        }
    }
    assert!(noticed > 50);
}

#[test]
fn without_the_mark_only_the_last_commit_can_pass_for_torn() {
    let (sim, all) = store();
    sim.set_bytes(File::Mark, Vec::new());
    let file = current_file(&sim);
    let bytes = sim.bytes(file);
    let mut slots = sim.slots();
    slots.refresh().unwrap();
    let log = LOG_AT as usize..slots.loaded().unwrap().end() as usize;
    let mut dropped = 0;
    for at in log {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        match outcome(&sim, file, bad) {
            Ok(found) if found == all => panic!("byte {at} is not covered"),
            Ok(found) => {
                assert!(found.iter().all(|e| e.key != "/last") && found.iter().any(|e| e.key == "/more"));
                dropped += 1;
            }
            Err(error) => assert_eq!(error.kind, ErrorKind::Corrupt, "{error}"),
        }
    }
    assert!(dropped > 0);
}

#[test]
fn damage_names_the_file_the_place_and_the_cure() {
    let (sim, _) = store();
    let file = current_file(&sim);
    let mut bytes = sim.bytes(file);
    bytes[LOG_AT as usize + 20] ^= 1;
    let text = outcome(&sim, file, bytes).unwrap_err().to_string();
    let name = format!("sim/{}", file.name());
    for part in [name.as_str(), "at byte 4096", "percalectl store dump", "percalectl store load"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn blank_headers_over_data_are_damage_and_not_a_new_store() {
    let (sim, _) = store();
    for file in [File::A, File::B] {
        let mut bytes = sim.bytes(file);
        bytes[..512].fill(0);
        sim.set_bytes(file, bytes);
    }
    assert_eq!(sim.slots().is_empty().unwrap_err().kind, ErrorKind::Corrupt);
    assert_eq!(read_all(&mut sim.slots()).unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn losing_the_current_header_never_brings_back_the_superseded_slot() {
    let (sim, _) = store();
    checkpoint(&sim);
    sim.set_bytes(File::Mark, Vec::new());
    let file = current_file(&sim);
    let mut bytes = sim.bytes(file);
    bytes[..512].fill(0);
    assert_eq!(outcome(&sim, file, bytes).unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn an_older_copy_of_the_slots_beside_a_newer_mark_is_noticed() {
    let (sim, _) = store();
    let before = [File::A, File::B].map(|f| sim.bytes(f));
    let mut slots = sim.slots();
    for i in 0..100 {
        slots.commit(&[put("/key/01", &[i; 100])]).unwrap();
    }
    let [a, b] = before;
    sim.set_bytes(File::A, a);
    sim.set_bytes(File::B, b);
    assert_eq!(read_all(&mut sim.slots()).unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn nothing_is_committed_to_a_damaged_store() {
    let (sim, _) = store();
    let file = current_file(&sim);
    let mut bytes = sim.bytes(file);
    bytes[LOG_AT as usize + 20] ^= 1;
    sim.set_bytes(file, bytes);
    match sim.slots().commit(&[put("/a", b"1")]) {
        Err(CommitError::Store(error)) => assert_eq!(error.kind, ErrorKind::Corrupt),
        other => panic!("{other:?}"),
    }
}

#[test]
fn salvage_finds_all_but_what_the_damage_took() {
    let (sim, all) = store();
    let file = current_file(&sim);
    let bytes = sim.bytes(file);
    let mut rng = Rng(1);
    for _ in 0..if stride() == 1 { 3000 } else { 300 } {
        let mut bad = bytes.clone();
        let at = rng.below(bad.len() as u64) as usize;
        let len = (1 + rng.below(600) as usize).min(bad.len() - at);
        bad[at..at + len].fill(rng.next() as u8);
        sim.set_bytes(file, bad);
        let dump = salvage(&sim, "damaged".into());
        let lost: Vec<_> = all.iter().filter(|e| !dump.entries.contains(e)).map(|e| e.key.as_str()).collect();
        // At most one or two commits of the log, or the commit that the checkpoint included.
        assert!(lost.len() <= 5, "{at}+{len}: {lost:?} {:?}", dump.problems);
        assert!(dump.entries.windows(2).all(|pair| pair[0].key < pair[1].key));
    }
    sim.set_bytes(file, bytes);
    assert_eq!(read_all(&mut sim.slots()).unwrap(), all);
    let dump = salvage(&sim, "the only problem".into());
    assert_eq!((dump.entries, dump.problems), (all, vec!["the only problem".to_owned()]));
}

#[test]
fn salvage_of_a_sound_log_reports_nothing_about_it() {
    let (sim, _) = store();
    checkpoint(&sim);
    for _ in 0..5 {
        assert_eq!(salvage(&sim, "one".into()).problems, ["one"]);
        sim.slots().commit(&[put("/key/30", &[8; 50])]).unwrap();
    }
}
