//! libcni, through cnitool: the verbs that no runtime of Debian calls.
// REQ: C-17

#![allow(clippy::unwrap_used)]

use e2e::clean::{held, kernel_is_clean, nothing_held};
use e2e::cnirun::addresses;
use e2e::cnitool::Cnitool;
use e2e::netns::must;
use e2e::{Bed, bins, conf, netns, probe};
use serde_json::json;
use std::net::TcpListener;

fn all_gone(bed: &Bed) {
    nothing_held(bed);
    kernel_is_clean(&bed.host);
}

// REQ: C-01
#[test]
fn add_check_status_and_del() {
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let bed = Bed::new("tool");
        let tool = Cnitool::new(&bed, version, &[conf::percale(&bed)]);
        let ns = bed.netns("pod");
        if version == "1.1.0" {
            tool.must("status", &ns, "eth0");
        }
        assert_eq!(addresses(&tool.add(&ns, "eth0")).len(), 2);
        tool.must("check", &ns, "eth0");
        must(ns.command("ip").args(["route", "del", "default"]));
        assert!(!tool.run("check", &ns, "eth0").status.success(), "CHECK misses a lost route");
        tool.must("del", &ns, "eth0");
        tool.must("del", &ns, "eth0");
        all_gone(&bed);
    }
}

/// cnitool calls GC with an empty list of valid attachments.
// REQ: C-02
#[test]
fn gc_frees_everything_that_libcni_does_not_list() {
    let bed = Bed::new("toolgc");
    let tool = Cnitool::new(&bed, "1.1.0", &[conf::percale(&bed)]);
    let (a, b) = (bed.netns("a"), bed.netns("b"));
    tool.add(&a, "eth0");
    tool.add(&b, "eth0");
    held(&bed, 4);
    tool.must("gc", &a, "eth0");
    all_gone(&bed);
}

/// Debian's portmap, and the newest: both through the mapped port, both families.
#[test]
fn a_mapped_port_leads_to_the_pod() {
    for (newest, version) in [(false, "1.0.0"), (true, "1.1.0")] {
        let bed = Bed::new("toolport");
        if newest {
            bed.use_plugins_of(&bins::go_tools().join("plugins"));
        }
        let portmap = json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}});
        let mut tool = Cnitool::new(&bed, version, &[conf::percale(&bed), portmap]);
        tool.capabilities =
            Some(json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}));
        let (pod, outside) = (bed.netns("pod"), bed.netns("outside"));
        netns::join(&bed.host, &outside);
        tool.add(&pod, "eth0");
        if newest {
            // Debian's portmap looks for the rules of IPv4 among those of IPv6.
            tool.must("check", &pod, "eth0");
        }
        let server = pod.run(|| TcpListener::bind("[::]:80")).unwrap();
        for goal in ["192.0.2.1:8080", "[2001:db8:1::1]:8080"] {
            let seen = probe::tcp_to(&outside, goal.parse().unwrap(), &server);
            seen.unwrap_or_else(|e| panic!("{goal}, newest plugins: {newest}: {e}"));
        }
        tool.must("del", &pod, "eth0");
        all_gone(&bed);
    }
}
