//! The host's lock and the plugin's own deadlines.

#![allow(clippy::unwrap_used)]

use e2e::bed::wait_for;
use e2e::clean::{held, kernel_is_clean, nothing_held};
use e2e::{Attachment, Bed, Network, conf};
use serde_json::{Value, json};
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Starts a process that holds the IPAM lock until it is killed.
fn hold_lock(bed: &Bed) -> u32 {
    std::fs::create_dir_all(bed.path("run")).unwrap();
    let lock = bed.path("run/ipam.lock");
    let mut holder = Command::new("flock");
    holder.arg("--no-fork").arg(&lock).args(["sleep", "600"]).stdin(Stdio::null()).stdout(Stdio::null());
    let pid = bed.spawn(&mut holder);
    wait_for("the lock is held", || {
        let file = File::open(&lock);
        file.is_ok_and(|f| f.try_lock_shared().is_err())
    });
    pid
}

fn with(bed: &Bed, keys: Value) -> Network<'_> {
    let mut plugin = conf::percale(bed);
    conf::put_all(&mut plugin, keys);
    Network::new(bed, "net", vec![plugin])
}

// REQ: C-03
#[test]
fn a_held_lock_bounds_the_wait_and_a_dead_holder_frees_it() {
    let bed = Bed::new("lock");
    let network = with(&bed, json!({"ipam_lock_timeout": 1}));
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let holder = hold_lock(&bed);
    let begun = Instant::now();
    let failure = network.add(&pod).unwrap_err();
    assert_eq!(failure.code(), Some(11), "{failure}");
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(900) && waited < Duration::from_secs(8), "{waited:?}");
    assert_eq!(ns.link_names("eth0"), Vec::<String>::new());
    bed.kill(holder);
    network.add(&pod).unwrap();
    held(&bed, 2);
    network.del(&pod).unwrap();
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

/// A DEL that cannot get the lock takes the pod off the host; the next DEL frees its addresses.
// REQ: C-08
#[test]
fn del_under_a_held_lock_is_finished_by_the_next_one() {
    let bed = Bed::new("lockdel");
    let network = with(&bed, json!({"ipam_lock_timeout": 1}));
    let (a, b) = (bed.netns("a"), bed.netns("b"));
    let (gone, next) = (Attachment::new("gone", &a), Attachment::new("next", &b));
    network.add(&gone).unwrap();
    let holder = hold_lock(&bed);
    network.del(&gone).unwrap();
    kernel_is_clean(&bed.host);
    bed.kill(holder);
    network.add(&next).unwrap();
    network.del(&next).unwrap();
    nothing_held(&bed);
}

#[test]
fn an_add_answers_before_its_own_deadline() {
    let bed = Bed::new("deadline");
    let network = with(&bed, json!({"ipam_lock_timeout": 30, "add_timeout": 2}));
    let ns = bed.netns("pod");
    let _holder = hold_lock(&bed);
    let begun = Instant::now();
    let failure = network.add(&Attachment::new("c1", &ns)).unwrap_err();
    assert_eq!(failure.code(), Some(11), "{failure}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    kernel_is_clean(&bed.host);
}
