//! The same configuration for each speaker: AS 65000 at 10.0.0.1, every feed and the listener as external peers,
//! everything accepted and told to all, sessions opened by the peers, nothing into the kernel.

use super::quiet;
use crate::bins::Bins;
use crate::netns::{Netns, must};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

const LISTENER: (Ipv4Addr, u32) = (Ipv4Addr::new(10, 0, 250, 1), 64999);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Percale,
    Bird,
    Frr,
    Gobgp,
}

impl Kind {
    /// Ours first.
    pub const ALL: [Kind; 4] = [Kind::Percale, Kind::Bird, Kind::Frr, Kind::Gobgp];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Percale => "percaled",
            Kind::Bird => "Debian's BIRD",
            Kind::Frr => "Debian's FRR",
            Kind::Gobgp => "Debian's GoBGP",
        }
    }
}

/// Address and AS of each feed, as `bgp/examples/load.rs` has them.
pub fn feeds(count: usize) -> impl Iterator<Item = (Ipv4Addr, u32)> {
    let feed =
        |n: usize| (Ipv4Addr::from(0x0a00_0100 + (n / 250 * 256 + n % 250 + 1) as u32), 65001 + n as u32);
    (0..count).map(feed)
}

fn peers(count: usize) -> impl Iterator<Item = (Ipv4Addr, u32)> {
    feeds(count).chain([LISTENER])
}

/// Starts a speaker with that many feeds configured; `dir` is its own.
pub fn start(kind: Kind, ns: &Netns, dir: &Path, feeds: usize) -> Child {
    match kind {
        Kind::Percale => percaled(ns, dir, feeds),
        Kind::Bird => bird(ns, dir, feeds),
        Kind::Frr => frr(ns, dir, feeds),
        Kind::Gobgp => gobgp(ns, dir, feeds),
    }
}

fn each(count: usize, line: impl Fn(usize, Ipv4Addr, u32) -> String) -> String {
    peers(count).enumerate().fold(String::new(), |mut out, (n, (address, asn))| {
        writeln!(out, "{}", line(n, address, asn)).expect("a string takes all");
        out
    })
}

fn bird(ns: &Netns, dir: &Path, feeds: usize) -> Child {
    let conf = dir.join("bird.conf");
    let peers =
        each(feeds, |n, addr, asn| format!("protocol bgp p{n} from common {{ neighbor {addr} as {asn}; }}"));
    let common = "router id 10.0.0.1;\nprotocol device {}\ntemplate bgp common {\n  local as 65000;\n  passive;\n  \
                  hold time 240;\n  ipv4 { import all; export all; };\n}\n";
    fs::write(&conf, format!("{common}{peers}")).expect("the bed is writable");
    let mut command = ns.command("bird");
    command.arg("-f").arg("-c").arg(conf).arg("-s").arg(dir.join("bird.ctl"));
    quiet(command, &dir.join("bird.log"))
}

fn frr(ns: &Netns, dir: &Path, feeds: usize) -> Child {
    let conf = dir.join("bgpd.conf");
    let peers = each(feeds, |_, addr, asn| {
        format!(
            " neighbor {addr} remote-as {asn}\n neighbor {addr} passive\n neighbor {addr} timers 80 240\n \
             neighbor {addr} advertisement-interval 0"
        )
    });
    let common = "router bgp 65000\n bgp router-id 10.0.0.1\n no bgp ebgp-requires-policy\n \
                  no bgp network import-check\n";
    fs::write(&conf, format!("{common}{peers}")).expect("the bed is writable");
    let mut command = ns.command("/usr/lib/frr/bgpd");
    command.args(["--no_zebra", "--no_kernel", "--skip_runas", "-A", "127.0.0.1", "-P", "0"]);
    command.arg("-f").arg(conf).arg("-i").arg(dir.join("bgpd.pid")).arg("--vty_socket").arg(dir);
    quiet(command, &dir.join("bgpd.log"))
}

fn gobgp(ns: &Netns, dir: &Path, feeds: usize) -> Child {
    let conf = dir.join("gobgpd.toml");
    let peers = each(feeds, |_, addr, asn| {
        format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{addr}\"\npeer-as = {asn}\n\
             [neighbors.transport.config]\npassive-mode = true\n\
             [neighbors.timers.config]\nhold-time = 240\nkeepalive-interval = 80"
        )
    });
    let common = "[global.config]\nas = 65000\nrouter-id = \"10.0.0.1\"\n";
    fs::write(&conf, format!("{common}{peers}")).expect("the bed is writable");
    let mut command = ns.command("gobgpd");
    command.arg("-f").arg(conf).args(["-t", "toml", "--api-hosts", "127.0.0.1:50051", "--log-plain"]);
    quiet(command, &dir.join("gobgpd.log"))
}

/// From the embedded store, which the daemon makes. All prefixes are in a VXLAN pool: such routes do not enter the
/// kernel from BGP.
fn percaled(ns: &Netns, dir: &Path, feeds: usize) -> Child {
    let bins = Bins::shipped();
    let dump = dir.join("resources.yaml");
    let list: Vec<String> = resources(feeds).iter().map(Value::to_string).collect();
    fs::write(&dump, list.join("\n---\n")).expect("the bed is writable");
    let store = dir.join("state/store");
    let store = ["--datastore-type", "embedded", "--datastore-path", store.to_str().expect("plain text")];
    let mut command = ns.command(bins.program("percaled"));
    command.args(store).arg("--state-dir").arg(dir.join("state")).args(["--node-name", "speaker"]);
    command.arg("--ipam-lock-file").arg(dir.join("ipam.lock")).arg("--socket").arg(dir.join("percaled.sock"));
    command.args(["--health-addr", "127.0.0.1:9099", "--metrics-addr", "127.0.0.1:9091"]);
    let daemon = quiet(command, &dir.join("percaled.log"));
    let mut apply = ns.command(bins.percalectl());
    apply.args(["apply", "-f"]).arg(&dump).args(store);
    until_it_works(&mut apply);
    daemon
}

/// Tries until the daemon has made its store.
fn until_it_works(command: &mut Command) {
    for _ in 0..50 {
        if command.output().is_ok_and(|o| o.status.success()) {
            return;
        }
        thread::sleep(Duration::from_millis(200));
    }
    must(command);
}

fn resources(feeds: usize) -> Vec<Value> {
    let resource = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let mut all = vec![
        resource("BGPConfiguration", "default", json!({"asNumber": 65000, "nodeToNodeMeshEnabled": false})),
        resource(
            "IPPool",
            "vxlan",
            json!({"cidr": "32.0.0.0/4", "vxlanMode": "Always", "ipipMode": "Never"}),
        ),
        resource("Node", "speaker", json!({"bgp": {"ipv4Address": "10.0.0.1/16"}})),
    ];
    all.extend(peers(feeds).map(|(addr, asn)| {
        let name = format!("p{}", asn);
        resource("BGPPeer", &name, json!({"peerIP": addr.to_string(), "asNumber": asn}))
    }));
    all
}
