//! Restarts of the daemon and of its peers: what peers and the kernel notice of them.

#![allow(clippy::unwrap_used)]

use e2e::bgp::{Bird, Fabric, Frr, Monitor, Node, gateways, soon};
use rustix::process::Signal;
use serde_json::json;
use std::process::{Command, Stdio};

const BIRD: &str = "router id 10.99.0.101;
protocol device {}
protocol static s4 { ipv4; route 192.0.2.0/24 unreachable; }
protocol kernel { persist; ipv4 { export where source = RTS_BGP; }; }
protocol bfd { interface \"eth0\" { interval 50 ms; multiplier 3; }; }
protocol bgp p4 { local as 65010; neighbor 10.99.0.1 as 64512; graceful restart on; bfd graceful; connect delay time 1;
  connect retry time 1; error wait time 1, 2; ipv4 { import all; export all; next hop self; }; }
";

const FRR: &str = "router bgp 65011
 bgp router-id 10.99.0.103
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 neighbor 10.99.0.1 remote-as 64512
 neighbor 10.99.0.1 timers connect 1
 neighbor 10.99.0.1 bfd
 neighbor 10.99.0.1 bfd check-control-plane-failure
 address-family ipv4 unicast
  network 198.51.100.0/24
 exit-address-family
";

const FRR_BFD: &str = "bfd
 peer 10.99.0.1
  receive-interval 50
  transmit-interval 50
  detect-multiplier 3
 exit
exit
";

const BFD: &str = "interval=50ms,multiplier=3";

fn prepare(fabric: &Fabric) {
    fabric.put("bgpconfigurations", "default", json!({"nodeToNodeMeshEnabled": false}));
    fabric.put("ippools", "v4", json!({"cidr": "10.91.0.0/16"}));
    fabric.put_block(1, "10.91.1.0/26");
    let bfd = json!({"annotations": {"percale.io/bfd": BFD}});
    fabric.put_with("bgppeers", "bird", bfd.clone(), json!({"peerIP": "10.99.0.101", "asNumber": 65010}));
    fabric.put_with("bgppeers", "frr", bfd, json!({"peerIP": "10.99.0.103", "asNumber": 65011}));
}

fn all_up(node: &Node) {
    for peer in ["10.99.0.101", "10.99.0.103"] {
        node.await_up(peer);
        soon("BFD is up", || (node.peer(peer)["bfd"] == "Up", node.peer(peer).to_string()));
    }
    for (net, gateway) in [("192.0.2.0/24", "10.99.0.101"), ("198.51.100.0/24", "10.99.0.103")] {
        soon("the kernel has the route", || {
            let seen = gateways(&node.ns, net);
            (seen == [gateway], format!("{seen:?}"))
        });
    }
}

/// Killed or asked to stop, with BFD on as well: no route changes anywhere, on the node or at its peers, and no
/// packet from a peer to a pod of the node is lost. The speaker ends and begins with the daemon: no supervisor of its own.
// REQ: B-05, B-06, B-08
#[test]
fn a_restart_of_the_daemon_changes_no_route() {
    let fabric = Fabric::new("restart");
    prepare(&fabric);
    let mut node = Node::start(&fabric, 1);
    e2e::bgp::ip(&node.ns, "addr add 10.91.1.5/32 dev lo");
    let bird = Bird::start(&fabric, 101, BIRD);
    // For its restart time FRR says that it has just restarted, and then nobody needs to wait for it.
    let conf = FRR
        .replace(" bgp graceful-restart\n", " bgp graceful-restart\n bgp graceful-restart restart-time 2\n");
    let frr = Frr::start(&fabric, 103, &conf, FRR_BFD);
    let begun = std::time::Instant::now();
    all_up(&node);
    soon("FRR's start is over", || (begun.elapsed().as_secs() > 3, String::new()));
    soon("BIRD's kernel has the block", || {
        (!gateways(&bird.ns, "10.91.1.0/26").is_empty(), bird.ask("show route"))
    });
    soon("FRR's kernel has the block", || (!gateways(&frr.ns, "10.91.1.0/26").is_empty(), String::new()));
    let places = [&node.ns, &bird.ns, &frr.ns];
    let monitors: Vec<Monitor> =
        places.iter().enumerate().map(|(i, ns)| Monitor::start(&fabric, ns, &format!("mon{i}"))).collect();
    let ping = |ns: &e2e::Netns| {
        let mut command: Command = ns.command("ping");
        command.args(["-i", "0.01", "-q", "10.91.1.5"]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let pings = [ping(&bird.ns), ping(&frr.ns)];
    let rounds = if e2e::bins::full() { 8 } else { 1 };
    for signal in [Signal::TERM, Signal::KILL].repeat(rounds) {
        node.stop(signal);
        node.run();
        all_up(&node);
        soon("the restart is over", || {
            let status = node.ask(&["node", "status"]);
            (status["restarting"] == false, status.to_string())
        });
    }
    // Ends pings as a user would, so that they print their counts.
    for ping in pings {
        let pid = rustix::process::Pid::from_raw(ping.id() as i32).unwrap();
        rustix::process::kill_process(pid, Signal::INT).unwrap();
        let told = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
        assert!(told.contains(" 0% packet loss"), "{told}");
    }
    for monitor in &monitors {
        assert_eq!(monitor.changes(), Vec::<String>::new());
    }
}

/// The control experiment: a peer that is told to forget does.
// REQ: B-05
#[test]
fn a_drain_withdraws_and_a_restart_of_the_peer_does_not() {
    let fabric = Fabric::new("drain");
    prepare(&fabric);
    let node = Node::start(&fabric, 1);
    let mut bird = Bird::start(&fabric, 101, BIRD);
    let mut frr = Frr::start(&fabric, 103, FRR, FRR_BFD);
    all_up(&node);
    soon("both are told", || (bird.has("10.91.1.0/26") && frr.has("10.91.1.0/26"), bird.ask("show route")));
    assert!(node.ctl(&["node", "drain"]).status.success());
    soon("BIRD's route is withdrawn", || (!bird.has("10.91.1.0/26"), bird.ask("show route")));
    soon("FRR's route is withdrawn", || (!frr.has("10.91.1.0/26"), String::new()));
    assert!(node.is_up("10.99.0.101") && node.is_up("10.99.0.103"), "sessions stay");
    assert_eq!(gateways(&node.ns, "192.0.2.0/24"), ["10.99.0.101"], "learnt routes stay");
    assert!(node.ctl(&["node", "drain", "--undo"]).status.success());
    soon("both are told again", || (bird.has("10.91.1.0/26") && frr.has("10.91.1.0/26"), String::new()));

    let monitor = Monitor::start(&fabric, &node.ns, "mon");
    bird.stop(Signal::KILL);
    frr.stop_bgpd(Signal::KILL);
    soon("the sessions are down", || {
        (!node.is_up("10.99.0.101") && !node.is_up("10.99.0.103"), String::new())
    });
    bird.run();
    frr.run_bgpd();
    all_up(&node);
    // bgpd says End-of-RIB before its routes when it restarts: that one goes and comes.
    let changes: Vec<String> =
        monitor.changes().into_iter().filter(|l| !l.contains("198.51.100.0")).collect();
    assert_eq!(changes, Vec::<String>::new());
}
