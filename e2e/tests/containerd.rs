//! containerd, through its CRI socket.
// REQ: C-17

#![allow(clippy::unwrap_used)]

use e2e::bed::{copy_program, wait_for};
use e2e::clean::{held, kernel_is_clean, nothing_held, pod_links};
use e2e::containerd::{Containerd, ids, ok};
use e2e::{Bed, conf, netns, probe};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn ips(status: &Value) -> Vec<IpAddr> {
    let list = status["ips"].as_array().expect("a list");
    list.iter().map(|ip| ip.as_str().unwrap().parse().unwrap()).collect()
}

/// A listener in a pod.
fn listen(status: &Value, address: SocketAddr) -> TcpListener {
    let path = format!("/proc/{}/ns/net", status["pid"]);
    netns::within(Path::new(&path), || TcpListener::bind(address).unwrap())
}

fn stop_and_remove(containerd: &mut Containerd, pods: &[String]) {
    for item in containerd.stop(pods).iter().chain(&containerd.remove(pods)) {
        ok(item);
    }
}

fn all_gone(bed: &Bed) {
    nothing_held(bed);
    kernel_is_clean(&bed.host);
}

#[test]
fn a_pod_runs_and_is_reached() {
    let bed = Bed::new("cri");
    let mut containerd = Containerd::start(&bed, &[conf::percale(&bed)]);
    let pods = ids(&containerd.run(&["web", "db"]));
    let (web, db) = (containerd.status(&pods[0]), containerd.status(&pods[1]));
    assert_eq!((ips(&web).len(), ips(&db).len()), (2, 2));
    for ip in ips(&db) {
        let server = listen(&db, (ip, 0).into());
        probe::tcp_to(&bed.host, server.local_addr().unwrap(), &server).unwrap();
    }
    stop_and_remove(&mut containerd, &pods);
    all_gone(&bed);
}

#[test]
fn twenty_pods_start_side_by_side() {
    let bed = Bed::new("cri20");
    let mut containerd = Containerd::start(&bed, &[conf::percale(&bed)]);
    let names: Vec<String> = (0..20).map(|i| format!("pod{i}")).collect();
    let pods = ids(&containerd.run(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    let all: std::collections::BTreeSet<IpAddr> =
        pods.iter().flat_map(|p| ips(&containerd.status(p))).collect();
    assert_eq!(all.len(), 40);
    held(&bed, 40);
    stop_and_remove(&mut containerd, &pods);
    all_gone(&bed);
}

#[test]
fn a_namespace_deleted_behind_its_back_leaks_nothing() {
    let bed = Bed::new("crins");
    let mut containerd = Containerd::start(&bed, &[conf::percale(&bed)]);
    let pod = containerd.run_one("web", &[]);
    let status = containerd.status(&pod);
    let path = Path::new(status["netns"].as_str().unwrap());
    rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap();
    fs::remove_file(path).unwrap();
    stop_and_remove(&mut containerd, &[pod]);
    all_gone(&bed);
}

/// Puts a script in the plugin's place that, while the file `slow` exists, does the ADD and then
/// keeps its answer back; `before` stalls before the ADD as well.
fn slow_down(bed: &Bed) {
    let script = format!(
        r#"#!/bin/sh
if [ "$CNI_COMMAND" != ADD ] || [ ! -e {dir}/slow ]; then exec {dir}/real/percale; fi
if [ -e {dir}/before ]; then touch {dir}/stalled; sleep 6 >/dev/null 2>&1; fi
answer=$({dir}/real/percale)
touch {dir}/stalled
sleep 6 >/dev/null 2>&1
echo "$answer"
"#,
        dir = bed.dir().display()
    );
    let plugin = bed.plugin_dir().join("percale");
    fs::create_dir(bed.path("real")).unwrap();
    fs::rename(&plugin, bed.path("real/percale")).unwrap();
    let script = bed.write("slow.sh", script);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&script, &plugin);
}

#[test]
fn a_plugin_killed_at_the_deadline_leaks_nothing() {
    for stall_before in [false, true] {
        let bed = Bed::new("crislow");
        slow_down(&bed);
        let mut containerd = Containerd::start(&bed, &[conf::percale(&bed)]);
        bed.write("slow", "");
        if stall_before {
            bed.write("before", "");
        }
        let mut cri = containerd.connect();
        let answer = cri.ask(&json!({"op": "run", "pods": [{"name": "late", "seconds": 2}]}));
        assert!(answer[0]["error"].is_string(), "the deadline strikes: {answer:?}");
        fs::remove_file(bed.path("slow")).unwrap();
        wait_for("containerd has cleaned up", || pod_links(&bed.host).is_empty());
        let left: Vec<String> =
            containerd.list().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect();
        if !left.is_empty() {
            stop_and_remove(&mut containerd, &left);
        }
        all_gone(&bed);
    }
}

#[test]
fn containerd_killed_during_add_leaks_nothing() {
    let bed = Bed::new("cricrash");
    slow_down(&bed);
    let mut containerd = Containerd::start(&bed, &[conf::percale(&bed)]);
    bed.write("slow", "");
    let mut cri = containerd.connect();
    cri.send(&json!({"op": "run", "pods": [{"name": "orphan"}]}));
    wait_for("the ADD is done", || bed.path("stalled").exists());
    containerd.crash();
    fs::remove_file(bed.path("slow")).unwrap();
    containerd.restart();
    let left: Vec<String> = containerd.list().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(left.len(), 1);
    stop_and_remove(&mut containerd, &left);
    all_gone(&bed);
}

#[test]
fn a_restart_of_containerd_keeps_its_pods() {
    let bed = Bed::new("crirestart");
    let mut containerd = Containerd::start(&bed, &[conf::percale(&bed)]);
    let pod = containerd.run_one("web", &[]);
    containerd.crash();
    containerd.restart();
    assert_eq!(containerd.status(&pod)["ready"], true);
    held(&bed, 2);
    stop_and_remove(&mut containerd, &[pod]);
    all_gone(&bed);
}

#[test]
fn a_configuration_renamed_in_place_is_used() {
    let bed = Bed::new("crirename");
    let mut containerd = Containerd::start(&bed, &[conf::percale_with(&bed, &["10.91.0.0/24"])]);
    let old = containerd.run_one("old", &[]);
    containerd.replace_network(&[conf::percale_with(&bed, &["10.92.0.0/24"])]);
    let mut new = String::new();
    wait_for("the new configuration is used", || {
        let pod = containerd.run_one("new", &[]);
        let uses_it = containerd.status(&pod)["ips"][0].as_str().unwrap().starts_with("10.92.");
        if uses_it {
            new = pod
        } else {
            stop_and_remove(&mut containerd, &[pod])
        }
        uses_it
    });
    stop_and_remove(&mut containerd, &[old, new]);
    all_gone(&bed);
}

#[test]
fn a_host_port_leads_to_the_pod() {
    let bed = Bed::new("criport");
    let portmap = json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}});
    let mut containerd = Containerd::start(&bed, &[conf::percale(&bed), portmap]);
    let outside = bed.netns("outside");
    netns::join(&bed.host, &outside);
    let pod = containerd.run_one("web", &[(80, 8080)]);
    let server = listen(&containerd.status(&pod), "[::]:80".parse().unwrap());
    for goal in ["192.0.2.1:8080", "[2001:db8:1::1]:8080"] {
        probe::tcp_to(&outside, goal.parse().unwrap(), &server).unwrap_or_else(|e| panic!("{goal}: {e}"));
    }
    stop_and_remove(&mut containerd, &[pod]);
    all_gone(&bed);
}
