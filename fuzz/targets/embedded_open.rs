//! Files of an embedded store that somebody damaged: a sound store with changes at chosen places,
//! two files of any bytes, and any bytes for the decoders that lie behind a checksum.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use datastore::embedded::{Embedded, Mode, fuzz_open, fuzz_records};
use datastore::{Deadline, Store};
use libfuzzer_sys::fuzz_target;
use model::store::{Expect, Write};
use std::sync::LazyLock;
use std::time::Duration;

/// The two slot files of a store with a few commits.
static SOUND: LazyLock<[Vec<u8>; 2]> = LazyLock::new(make_store);

#[derive(Debug, Arbitrary)]
enum Case<'a> {
    Records(&'a [u8]),
    Files(&'a [u8], &'a [u8]),
    Damage(Vec<Damage<'a>>),
}

#[derive(Debug, Arbitrary)]
enum Damage<'a> {
    Overwrite { second: bool, at: u32, with: &'a [u8] },
    Flip { second: bool, at: u16, mask: u8 },
    Cut { second: bool, len: u32 },
    Swap,
}

fuzz_target!(|data: &[u8]| {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(data)) else { return };
    match case {
        Case::Records(bytes) => fuzz_records(bytes),
        Case::Files(a, b) => fuzz_open(a, b),
        Case::Damage(damages) => {
            let mut files = SOUND.clone();
            damages.iter().take(32).for_each(|damage| damage.apply(&mut files));
            fuzz_open(&files[0], &files[1]);
        }
    }
});

impl Damage<'_> {
    fn apply(&self, files: &mut [Vec<u8>; 2]) {
        match *self {
            Damage::Overwrite { second, at, with } => {
                let file = &mut files[usize::from(second)];
                let at = at as usize % (file.len() + 1);
                let len = with.len().min(file.len() - at);
                file[at..at + len].copy_from_slice(&with[..len]);
            }
            Damage::Flip { second, at, mask } => {
                if let Some(byte) = files[usize::from(second)].get_mut(usize::from(at)) {
                    *byte ^= mask;
                }
            }
            Damage::Cut { second, len } => {
                let file = &mut files[usize::from(second)];
                file.truncate(len as usize % (file.len() + 1));
            }
            Damage::Swap => files.swap(0, 1),
        }
    }
}

fn make_store() -> [Vec<u8>; 2] {
    let dir = std::env::temp_dir().join(format!("percale-fuzz-store-{}", std::process::id()));
    let store = Embedded::open(&dir, Mode::Create).expect("the temporary directory can be written");
    let deadline = Deadline::after(Duration::from_secs(10));
    for i in 0..8 {
        let value = Some(vec![b'v'; 300 * i]);
        let writes = [Write { key: format!("/key/{}", i % 5), expect: Expect::Any, value }];
        store.commit(&writes, deadline).expect("a new store takes a few commits");
    }
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap_or_default();
    let files = ["a", "b"].map(read);
    drop(store);
    std::fs::remove_dir_all(&dir).expect("the directory is ours");
    files
}
