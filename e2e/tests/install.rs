//! The installer under a real runtime: from the image alone, and while pods start.

#![allow(clippy::unwrap_used)]

use e2e::bed::remove_matching;
use e2e::clean::{kernel_is_clean, nothing_held};
use e2e::containerd::{CNI_VERSION, Containerd, ids, ok};
use e2e::installer::{Installer, same, version};
use e2e::netns::must;
use e2e::{Attachment, Bed, Netns, Network, bins, conf};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

const REFERENCE: &str = "localhost/percale:test";
/// The goal for the image.
const LIMIT: u64 = 40 << 20;

fn build_image(bed: &Bed) -> PathBuf {
    let out = bed.path("percale.tar");
    let mut build = Command::new(bins::workspace().join("install/image/build"));
    build.arg("--bin-dir").arg(bed.bins.as_ref().unwrap().dir());
    build.arg("--output").arg(&out).args(["--ref", REFERENCE]);
    print!("{}", String::from_utf8_lossy(&must(&mut build)));
    out
}

fn conflist(bed: &Bed, network: &str) -> Value {
    conf::conflist(
        network,
        CNI_VERSION,
        &[conf::percale(bed), json!({"type": "portmap", "capabilities": {"portMappings": true}})],
    )
}

fn stop_and_remove(containerd: &mut Containerd, pods: &[String]) {
    for item in containerd.stop(pods).iter().chain(&containerd.remove(pods)) {
        ok(item);
    }
}

/// The node has a runtime and nothing of ours: neither plugin nor configuration.
// REQ: I-07
#[test]
fn a_fresh_node_works_from_the_image_alone() {
    let bed = Bed::new("image");
    let image = build_image(&bed);
    let size = fs::metadata(&image).unwrap().len();
    assert!(
        size < LIMIT || !bed.bins.as_ref().unwrap().dir().ends_with("release"),
        "the image has {size} bytes"
    );
    fs::remove_dir_all(bed.plugin_dir()).unwrap();
    fs::create_dir(bed.plugin_dir()).unwrap();
    fs::create_dir(bed.path("state")).unwrap();
    let mut containerd = Containerd::without_network(&bed);
    containerd.import(&image);
    let begun = Instant::now();
    let path = |tail: &str| bed.path(tail).display().to_string();
    let config = conflist(&bed, &containerd.network).to_string();
    let (exit, log) = containerd.run_container(&json!({
        "name": "install", "image": REFERENCE, "command": ["/opt/percale/bin/percale-install"], "logs": path(""),
        "env": {"CNI_NETWORK_CONFIG": config},
        "mounts": [[path("bin"), "/host/opt/cni/bin"], [path("net.d"), "/host/etc/cni/net.d"], [path("state"), "/var/lib/percale"]],
    }));
    assert_eq!(exit, 0, "{log}");
    containerd.wait_ready();
    let pod = containerd.run_one("first", &[(80, 8080)]);
    println!("from the start of the init container to the first pod: {} ms", begun.elapsed().as_millis());
    assert_eq!(containerd.status(&pod)["ips"].as_array().unwrap().len(), 2);
    let mut names: Vec<_> = fs::read_dir(bed.plugin_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        ["bandwidth", "loopback", "percale", "percale-cluster", "percale-ipam", "portmap", "tuning"]
    );
    stop_and_remove(&mut containerd, &[pod]);
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

/// The image's other programs start where there is nothing but the image.
#[test]
fn every_program_of_the_image_runs_in_it() {
    let bed = Bed::new("imagebins");
    let image = build_image(&bed);
    let mut containerd = Containerd::without_network(&bed);
    containerd.import(&image);
    for words in [
        &["percaled", "--version"][..],
        &["percalectl", "version"],
        &["percale", "--version"],
        &["percale-cluster", "--version"],
        &["percale-install", "--help"],
        &["/usr/sbin/nft", "--version"],
    ] {
        let spec = json!({"name": "p", "image": REFERENCE, "command": words, "logs": bed.dir()});
        let (exit, log) = containerd.run_container(&spec);
        assert!(exit == 0 && !log.is_empty(), "{words:?}: {exit}: {log}");
    }
}

#[test]
fn twenty_pods_start_while_it_installs() {
    let bed = Bed::new("inst20");
    fs::create_dir(bed.path("net.d")).unwrap();
    let versions = ["1", "2"].map(|tag| version(&bed, tag));
    let mut containerd = Containerd::without_network(&bed);
    let conflist = conflist(&bed, &containerd.network);
    Installer::new(&bed, &versions[0], Some(&conflist)).ok(&[]);
    containerd.wait_ready();
    let mut other = containerd.connect();
    let pods: Vec<Value> = (0..20).map(|i| json!({"name": format!("pod{i}")})).collect();
    other.send(&json!({"op": "run", "pods": pods}));
    let answered = AtomicBool::new(false);
    let (items, upgrades) = thread::scope(|scope| {
        let upgrading = scope.spawn(|| {
            let mut count = 0;
            while !answered.load(Ordering::Relaxed) {
                count += 1;
                Installer::new(&bed, &versions[count % 2], Some(&conflist)).ok(&[]);
            }
            count
        });
        let items = other.answer();
        answered.store(true, Ordering::Relaxed);
        (items.unwrap(), upgrading.join().unwrap())
    });
    let pods = ids(&items);
    println!("{upgrades} upgrades while 20 pods started");
    assert!(upgrades > 0);
    e2e::clean::held(&bed, 40);
    stop_and_remove(&mut containerd, &pods);
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
}

// REQ: I-02
// REQ: I-07
#[test]
fn an_upgrade_under_load_fails_no_add() {
    let rounds = if bins::full() { 200 } else { 20 };
    let bed = Bed::new("instload");
    let versions = ["1", "2"].map(|tag| version(&bed, tag));
    let network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let conflist = conf::conflist("net", CNI_VERSION, &[conf::percale(&bed)]);
    Installer::new(&bed, &versions[0], Some(&conflist)).ok(&[]);
    let spaces: Vec<Netns> = (0..4).map(|i| bed.netns(&format!("p{i}"))).collect();
    let (ended, adds) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for (i, ns) in spaces.iter().enumerate() {
            let (network, ended, adds) = (&network, &ended, &adds);
            let pod = Attachment::new(&format!("c{i}"), ns);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    network.add(&pod).unwrap_or_else(|e| panic!("ADD during an upgrade: {e}"));
                    network.check(&pod).unwrap_or_else(|e| panic!("CHECK during an upgrade: {e}"));
                    network.del(&pod).unwrap_or_else(|e| panic!("DEL during an upgrade: {e}"));
                    adds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..rounds {
            let args: &[&str] = if round % 4 == 3 { &["--rollback"] } else { &[] };
            Installer::new(&bed, &versions[round % 2], Some(&conflist)).ok(args);
        }
        ended.store(true, Ordering::Relaxed);
    });
    println!("{} pods came and went during {rounds} upgrades and ways back", adds.into_inner());
    nothing_held(&bed);
    kernel_is_clean(&bed.host);
    assert!(same(&bed.plugin_dir().join("percale"), &bed.plugin_dir().join("percale-ipam")));
    remove_matching(Path::new("/var/lib/cni/results"), &bed.unique(""));
}
