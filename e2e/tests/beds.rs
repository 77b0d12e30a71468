//! The beds themselves, with the reference plugins: where these pass, a failure elsewhere is ours.

#![allow(clippy::unwrap_used)]

use e2e::clean::{kernel_is_clean, pod_links};
use e2e::cnirun::{address, addresses};
use e2e::cnitool::Cnitool;
use e2e::containerd::{Containerd, ids};
use e2e::podman::Podman;
use e2e::{Attachment, Bed, Network, bins, conf, probe};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

fn bridge(bed: &Bed) -> Value {
    json!({"type": "bridge", "bridge": "br0", "isGateway": true,
           "ipam": conf::host_local(bed, &["10.91.0.0/16", "fd00:10:91::/64"])})
}

#[test]
fn the_runtime_in_small_drives_ptp() {
    let bed = Bed::peers("ptp");
    let ptp = json!({"type": "ptp", "ipam": conf::host_local(&bed, &["10.91.0.0/16"])});
    let network = Network::new(&bed, "n", vec![ptp]).at_version("1.0.0");
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let result = network.add(&pod).unwrap();
    network.check(&pod).unwrap();
    probe::everything(&bed.host, &ns, address(&result, true), 1500, None);
    network.del(&pod).unwrap();
    kernel_is_clean(&bed.host);
}

#[test]
fn an_error_is_told_apart_from_a_death() {
    let bed = Bed::peers("errors");
    let network = Network::new(&bed, "n", vec![json!({"type": "ptp", "ipam": {"type": "absent"}})]);
    let network = network.at_version("1.0.0");
    let ns = bed.netns("pod");
    assert!(network.add(&Attachment::new("c1", &ns)).unwrap_err().code().is_some());
    let mut killed = Network::new(&bed, "n", vec![bridge(&bed)]).at_version("1.0.0");
    killed.wrap = e2e::strace::kill_at("sendto", 1);
    assert_eq!(killed.add(&Attachment::new("c1", &ns)).unwrap_err().code(), None);
}

#[test]
fn containerd_runs_pods_side_by_side() {
    let bed = Bed::peers("cri");
    let mut containerd = Containerd::start(&bed, &[bridge(&bed)]);
    let pods = ids(&containerd.run(&["a", "b", "c"]));
    let status = containerd.status(&pods[0]);
    assert_eq!(status["ips"].as_array().unwrap().len(), 2, "{status}");
    assert!(containerd.stop(&pods).iter().all(|i| i["error"].is_null()));
    assert!(containerd.remove(&pods).iter().all(|i| i["error"].is_null()));
    assert_eq!(pod_links(&bed.host), Vec::<String>::new());
}

#[test]
fn podman_runs_a_container() {
    let bed = Bed::peers("podman");
    let name = bed.unique("net");
    let podman = Podman::new(&bed, &[(&name, vec![bridge(&bed)])]);
    let out = podman.run_rm(&[], "ip -4 addr show eth0");
    let told = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(told.contains("10.91.0."), "{told}");
}

#[test]
fn cnitool_drives_the_newest_bridge() {
    let bed = Bed::peers("tool");
    bed.use_plugins_of(&bins::go_tools().join("plugins"));
    let tool = Cnitool::new(&bed, "1.1.0", &[bridge(&bed)]);
    let ns = bed.netns("pod");
    let result = tool.add(&ns, "eth0");
    tool.must("check", &ns, "eth0");
    tool.must("status", &ns, "eth0");
    assert_eq!(addresses(&result).len(), 2);
    tool.must("del", &ns, "eth0");
}

#[test]
fn a_bed_leaves_nothing_behind() {
    let (dir, host, pid) = {
        let bed = Bed::peers("gone");
        let pid = bed.spawn(bed.host.command("sleep").arg("600"));
        (bed.dir().to_owned(), bed.host.path().to_owned(), pid)
    };
    std::thread::sleep(Duration::from_millis(10));
    assert!(!dir.exists() && !host.exists());
    assert!(fs::read_to_string(format!("/proc/{pid}/comm")).is_err());
}
