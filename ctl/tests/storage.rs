//! `store dump` and `store load`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bed;

use bed::{Bed, soon};
use datastore::Store;

fn full() -> Bed {
    let bed = Bed::new().with_store();
    bed.lease("c1", &[]);
    bed.put("/percale/odd/text", b"not json");
    bed.put("/percale/odd/bytes", b"\xff\x00");
    bed.put("/percale/odd/empty", b"");
    bed
}

fn content(bed: &Bed) -> Vec<(String, Vec<u8>)> {
    bed.store().list("/", soon()).unwrap().into_iter().map(|e| (e.key, e.value)).collect()
}

#[test]
fn a_dump_is_loaded_byte_for_byte() {
    let (bed, other) = (full(), Bed::new());
    let dump = bed.run(&["store", "dump"]).exits(0);
    assert!(dump.json()["entries"][0]["value"].is_object());
    // The load creates the store that is not there.
    let loaded = other.run_with(&["store", "load", "-"], &dump.out).exits(0);
    assert!(loaded.out.contains("loaded"), "{}", loaded.out);
    assert_eq!(content(&other), content(&bed));
    assert_eq!(
        other.run(&["ipam", "show", "-o", "json"]).exits(0).json(),
        bed.run(&["ipam", "show", "-o", "json"]).json()
    );
}

#[test]
fn a_store_with_content_is_replaced_only_by_force() {
    let (bed, other) = (full(), Bed::new().with_store());
    let file = other.path("dump.json");
    std::fs::write(&file, bed.run(&["store", "dump"]).exits(0).out).unwrap();
    let file = file.to_str().unwrap();
    other.put("/percale/old", b"{}");
    let refused = other.run(&["store", "load", file]).exits(64);
    assert!(refused.err.contains("holds 1 entries") && refused.err.contains("--force"), "{}", refused.err);
    other.run(&["store", "load", "--force", file]).exits(0);
    assert_eq!(content(&other), content(&bed));
}

#[test]
fn a_bad_dump_changes_nothing() {
    let bed = full();
    let before = content(&bed);
    for text in [
        "",
        "[]",
        "{}",
        r#"{"entries":[{"key":"x","value":1}]}"#,
        r#"{"entries":[{"key":"/a","value":1},{"key":"/a","value":2}]}"#,
    ] {
        bed.run_with(&["store", "load", "--force", "-"], text).exits(1);
    }
    bed.run(&["store", "load", "/no/such/file"]).exits(1);
    assert_eq!(content(&bed), before);
}

#[test]
fn a_damaged_store_is_dumped_as_far_as_it_can_be_read() {
    let bed = full();
    let sound = bed.run(&["store", "dump"]).exits(0).json()["entries"].as_array().unwrap().len();
    for slot in ["a", "b"] {
        let file = bed.store_dir().join(slot);
        let Ok(mut bytes) = std::fs::read(&file) else { continue };
        // Every copy of one stored text.
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(8).position(|w| w == b"not json") {
            at += found;
            bytes[at] ^= 0x20;
        }
        std::fs::write(&file, bytes).unwrap();
    }
    let ran = bed.run(&["store", "dump"]).exits(2);
    assert!(ran.err.contains("damaged: "), "{}", ran.err);
    let entries = ran.json()["entries"].as_array().unwrap().len();
    assert!(entries < sound, "{entries} of {sound}");
    // What was saved can be put back.
    let refused = bed.run_with(&["store", "load", "-"], &ran.out).exits(64);
    assert!(refused.err.contains("is damaged"), "{}", refused.err);
    bed.run_with(&["store", "load", "--force", "-"], &ran.out).exits(0);
    bed.run(&["store", "dump"]).exits(0);
}

#[test]
fn garbage_in_the_files_is_an_error_and_no_panic() {
    for garbage in [&b""[..], b"x", &[0; 4096], &[0xff; 100_000]] {
        let bed = full();
        for slot in ["a", "b"] {
            std::fs::write(bed.store_dir().join(slot), garbage).unwrap();
        }
        for args in [&["store", "dump"][..], &["ipam", "show"], &["get", "ippools"], &["ipam", "check"]] {
            let ran = bed.run(args);
            assert!([1, 2].contains(&ran.code) && !ran.err.contains("panicked"), "{args:?}: {ran:?}");
        }
    }
}
