//! Take-over of a node from Calico 3.18 and back: stored objects, interface, routes, sysctls and Felix's
//! chains as Calico makes them (testdata/stored, Felix's chain layout), pods running all the time.
// REQ: I-07
// REQ: C-18

#![allow(clippy::unwrap_used)]

use e2e::bed::wait_for;
use e2e::cnirun::address;
use e2e::containerd::CNI_VERSION;
use e2e::daemon::{Daemon, Start};
use e2e::installer::{Installer, put_program, same, version};
use e2e::netns::must;
use e2e::{Attachment, Bed, Netns, Network, conf, probe};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const OLD: &str = "0f5c2a7d9b1e4f60a1b2c3d4e5f60718";
/// `cali` and 11 digits of SHA-1 of `default.nginx` (reference: the CNI plugin's rule for pods).
const OLD_LINK: &str = "calic440f455693";
const OLD_ADDRESS: &str = "192.168.0.1";
const URL: &str = "http://127.0.0.1:2379";

/// A node as Calico left it.
struct Node {
    bed: Bed,
    pod: Netns,
    /// What plays Calico's plugins, and the next version of them.
    theirs: PathBuf,
    newer: PathBuf,
}

impl Node {
    fn new(tag: &str) -> Self {
        let bed = Bed::new(tag);
        let pod = bed.netns("old");
        let theirs = stand_in(&bed, "v3.18.0");
        let newer = stand_in(&bed, "v3.18.1");
        let node = Self { bed, pod, theirs, newer };
        for name in ["percale", "percale-ipam"] {
            fs::remove_file(node.bed.plugin_dir().join(name)).unwrap();
        }
        node.start_etcd();
        node.store();
        node.wire();
        node.calico_installs(&node.theirs);
        node.bed.write("net.d/10-calico.conflist", node.conflist().to_string());
        node.bed.write("nodename", "node1");
        node
    }

    fn start_etcd(&self) {
        let mut etcd = self.bed.host.command("etcd");
        etcd.arg("--data-dir").arg(self.bed.path("etcd"));
        etcd.args(["--listen-client-urls", URL, "--advertise-client-urls", URL, "--logger", "zap"]);
        etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
        let log = fs::File::create(self.bed.path("etcd.log")).unwrap();
        self.bed.spawn(etcd.stdout(Stdio::null()).stderr(log));
        wait_for("etcd answers", || self.kv("range", &json!({"key": base64("x")})).is_some());
    }

    /// etcd's JSON gateway.
    fn kv(&self, verb: &str, body: &Value) -> Option<Value> {
        let mut curl = self.bed.host.command("curl");
        curl.args(["-sSf", "-X", "POST", "--data-binary", &body.to_string()])
            .arg(format!("{URL}/v3/kv/{verb}"));
        serde_json::from_slice(&curl.output().ok()?.stdout).ok()
    }

    fn put(&self, key: &str, value: &Value) {
        let body = json!({"key": base64(key), "value": base64(&value.to_string())});
        self.kv("put", &body).unwrap_or_else(|| panic!("put {key}"));
    }

    fn get(&self, key: &str) -> Option<Value> {
        let answer = self.kv("range", &json!({"key": base64(key)})).expect("etcd answers");
        let value = answer["kvs"][0]["value"].as_str()?;
        let out = self.shell(&format!("echo {value} | base64 -d"));
        Some(serde_json::from_str(&out).unwrap())
    }

    fn store(&self) {
        let meta = |name: &str| json!({"name": name, "uid": "3dd7b0a5-6f2c-4b57-a6c9-4b8c2f5e0c14", "creationTimestamp": "2021-02-22T10:00:00Z"});
        let object = |kind: &str, name: &str, spec: Value| json!({"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": meta(name), "spec": spec});
        let resources = "/calico/resources/v3/projectcalico.org";
        let cluster = json!({"clusterGUID": "0123456789abcdef0123456789abcdef", "clusterType": "k8s,bgp", "calicoVersion": "v3.18.0", "datastoreReady": true});
        self.put(
            &format!("{resources}/clusterinformations/default"),
            &object("ClusterInformation", "default", cluster),
        );
        let node = json!({"bgp": {"ipv4Address": "198.51.100.1/24"}, "orchRefs": [{"nodeName": "node1", "orchestrator": "k8s"}]});
        self.put(&format!("{resources}/nodes/node1"), &object("Node", "node1", node));
        let pool = json!({"cidr": "192.168.0.0/16", "vxlanMode": "Never", "ipipMode": "Never", "natOutgoing": true, "blockSize": 26, "nodeSelector": "all()"});
        self.put(
            &format!("{resources}/ippools/default-ipv4-ippool"),
            &object("IPPool", "default-ipv4-ippool", pool),
        );
        let handle = format!("k8s-pod-network.{OLD}");
        let mut allocations = vec![Value::Null; 64];
        allocations[1] = json!(0);
        let free: Vec<u32> = (0..64).filter(|ordinal| *ordinal != 1).collect();
        let secondary = json!({"namespace": "default", "node": "node1", "pod": "nginx", "timestamp": "2021-02-22 10:00:00.123456789 +0000 UTC"});
        let block = json!({"cidr": "192.168.0.0/26", "affinity": "host:node1", "allocations": allocations, "unallocated": free,
            "attributes": [{"handle_id": handle, "secondary": secondary}], "deleted": false});
        self.put("/calico/ipam/v2/assignment/ipv4/block/192.168.0.0-26", &block);
        self.put(
            "/calico/ipam/v2/host/node1/ipv4/block/192.168.0.0-26",
            &json!({"state": "confirmed", "deleted": false}),
        );
        self.put(
            &format!("/calico/ipam/v2/handle/{handle}"),
            &json!({"block": {"192.168.0.0/26": 1}, "deleted": false}),
        );
        let mut endpoint = object(
            "WorkloadEndpoint",
            "node1-k8s-nginx-eth0",
            json!({
            "orchestrator": "k8s", "node": "node1", "containerID": OLD, "pod": "nginx", "endpoint": "eth0",
            "ipNetworks": [format!("{OLD_ADDRESS}/32")], "profiles": ["kns.default", "ksa.default.default"],
            "interfaceName": OLD_LINK, "mac": "02:00:00:00:00:01"}),
        );
        endpoint["metadata"]["namespace"] = json!("default");
        self.put(&endpoint_key(), &endpoint);
    }

    /// As Calico's Linux data plane does, step by step; Felix adds the rest.
    fn wire(&self) {
        let pod = self.pod.name();
        self.host(&format!(
            "ip link add {OLD_LINK} type veth peer name eth0 netns {pod} && ip link set {OLD_LINK} address ee:ee:ee:ee:ee:ee up \
             && echo 1 > /proc/sys/net/ipv4/conf/{OLD_LINK}/proxy_arp && echo 0 > /proc/sys/net/ipv4/neigh/{OLD_LINK}/proxy_delay \
             && echo 1 > /proc/sys/net/ipv4/conf/{OLD_LINK}/forwarding && echo 1 > /proc/sys/net/ipv4/ip_forward \
             && ip route add default dev lo \
             && ip route add {OLD_ADDRESS} dev {OLD_LINK} scope link proto boot && ip route add blackhole 192.168.0.0/26 proto bird"
        ));
        for line in [
            "link set eth0 up",
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0",
            &format!("addr add {OLD_ADDRESS}/32 dev eth0"),
        ] {
            must(self.pod.command("ip").args(line.split(' ')));
        }
        let mut restore = self.bed.host.command("sh");
        let file = self.bed.write("felix", felix());
        must(restore.args(["-ec", &format!("iptables-restore --noflush < {}", file.display())]));
    }

    fn host(&self, script: &str) -> String {
        String::from_utf8_lossy(&must(self.bed.host.command("sh").args(["-ec", script]))).into_owned()
    }

    fn shell(&self, script: &str) -> String {
        String::from_utf8_lossy(&must(Command::new("sh").args(["-ec", script]))).into_owned()
    }

    /// As its installer does (reference, section 5.2): removed first, then copied beside and renamed.
    fn calico_installs(&self, program: &Path) {
        for name in ["calico", "calico-ipam"] {
            let _ = fs::remove_file(self.bed.plugin_dir().join(name));
            put_program(program, &self.bed.plugin_dir().join(name));
        }
    }

    fn conflist(&self) -> Value {
        let mut plugin = json!({"type": "calico", "log_level": "info", "etcd_endpoints": URL, "nodename": "node1", "mtu": 1440,
            "ipam": {"type": "calico-ipam"}});
        let mut paths = conf::paths(&self.bed);
        paths.as_object_mut().unwrap().shift_remove("datastore_type");
        conf::put_all(&mut plugin, paths);
        plugin["nodename_file"] = json!(self.bed.path("nodename"));
        conf::conflist("k8s-pod-network", CNI_VERSION, &[plugin])
    }

    fn network(&self) -> Network<'_> {
        Network::new(&self.bed, "k8s-pod-network", self.conflist()["plugins"].as_array().unwrap().clone())
    }

    fn old(&self) -> Attachment {
        Attachment::new(OLD, &self.pod).with_args(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=nginx;K8S_POD_INFRA_CONTAINER_ID=x",
        )
    }

    /// From the host to a server in the pod, with data in both directions.
    fn reached(&self, pod: &Netns, ip: IpAddr, when: &str) {
        let server = pod.run(|| TcpListener::bind(SocketAddr::from((ip, 0))).unwrap());
        probe::tcp_to(&self.bed.host, server.local_addr().unwrap(), &server)
            .unwrap_or_else(|e| panic!("{ip} {when}: {e}"));
    }

    fn old_is_reached(&self, when: &str) {
        self.reached(&self.pod, OLD_ADDRESS.parse().unwrap(), when);
    }

    /// What belongs to Felix and BIRD.
    fn felix_state(&self) -> String {
        self.host("iptables-save | grep -E 'cali-|cali:' | sed 's/\\[[0-9:]*\\]//'; ip route show proto bird")
    }

    fn held(&self) -> Vec<String> {
        let block = self.get("/calico/ipam/v2/assignment/ipv4/block/192.168.0.0-26").unwrap();
        let attributes = block["attributes"].as_array().unwrap().iter();
        attributes.map(|a| a["handle_id"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn endpoint_key() -> String {
    "/calico/resources/v3/projectcalico.org/workloadendpoints/default/node1-k8s-nginx-eth0".to_owned()
}

fn base64(text: &str) -> String {
    let out = Command::new("sh").args(["-ec", "printf %s \"$1\" | base64 -w0", "sh", text]).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// A program that answers as Calico's does to VERSION, and to nothing else.
fn stand_in(bed: &Bed, version: &str) -> PathBuf {
    let script = format!(
        "#!/bin/sh\n# Calico CNI plugin {version}\ncat > /dev/null\nif [ \"$CNI_COMMAND\" = VERSION ]; then\n\
         echo '{{\"cniVersion\":\"0.4.0\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\"]}}'\nexit 0\nfi\n\
         echo '{{\"code\":999,\"msg\":\"not ours\"}}'\nexit 1\n"
    );
    let file = bed.write(&format!("calico-{version}"), script);
    must(Command::new("chmod").arg("755").arg(&file));
    file
}

/// The chains that Felix 3.18 makes for one local endpoint whose policy lets everything in and out.
fn felix() -> String {
    format!(
        "*filter\n:cali-FORWARD - [0:0]\n:cali-INPUT - [0:0]\n:cali-OUTPUT - [0:0]\n:cali-from-wl-dispatch - [0:0]\n\
         :cali-to-wl-dispatch - [0:0]\n:cali-fw-{OLD_LINK} - [0:0]\n:cali-tw-{OLD_LINK} - [0:0]\n:cali-wl-to-host - [0:0]\n\
         -A INPUT -m comment --comment \"cali:Cz_u1IQiXIMmKD4c\" -j cali-INPUT\n\
         -A FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD\n\
         -A OUTPUT -m comment --comment \"cali:tVnHkvAo15HuiPy0\" -j cali-OUTPUT\n\
         -A cali-INPUT -i cali+ -m comment --comment \"cali:i7okJZpS8VxaJB3n\" -g cali-wl-to-host\n\
         -A cali-FORWARD -i cali+ -m comment --comment \"cali:8ZoYfO5HKXWbB3pk\" -j cali-from-wl-dispatch\n\
         -A cali-FORWARD -o cali+ -m comment --comment \"cali:jdEuaPBe14V2hutn\" -j cali-to-wl-dispatch\n\
         -A cali-from-wl-dispatch -i {OLD_LINK} -m comment --comment \"cali:zEaYv0tKVj2ZaH1x\" -g cali-fw-{OLD_LINK}\n\
         -A cali-to-wl-dispatch -o {OLD_LINK} -m comment --comment \"cali:FEwyg9DzGsGPZ4bH\" -g cali-tw-{OLD_LINK}\n\
         -A cali-fw-{OLD_LINK} -m comment --comment \"cali:ynPsLtLmGDjHYqgF\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A cali-tw-{OLD_LINK} -m comment --comment \"cali:mR1N0Ywm5jAGwSbe\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A cali-wl-to-host -m comment --comment \"cali:Ee9Sbo10IpVujdIY\" -j cali-from-wl-dispatch\nCOMMIT\n"
    )
}

#[test]
fn a_node_is_taken_over_and_given_back() {
    let node = Node::new("takeover");
    let bin = node.bed.plugin_dir();
    let ours = version(&node.bed, "ours");
    let installer = Installer::new(&node.bed, &ours, None);
    let felix = node.felix_state();
    assert!(felix.contains(OLD_LINK) && felix.contains("blackhole"), "{felix}");
    node.old_is_reached("before");

    installer.ok(&["--take-over"]);
    assert!(
        same(&bin.join("calico"), &ours.join("percale"))
            && same(&bin.join("calico-ipam"), &ours.join("percale"))
    );
    assert_eq!(node.bed.path("net.d").read_dir().unwrap().count(), 1, "Calico's configuration, and no other");
    node.old_is_reached("after the take-over");

    let network = node.network();
    let space = node.bed.netns("new");
    let new = Attachment::new("newcontainer", &space);
    let result = network.add(&new).unwrap();
    let ip = address(&result, true);
    assert!(ip.to_string().starts_with("192.168.0.") && ip.to_string() != OLD_ADDRESS, "{ip}");
    node.reached(&space, ip, "of a new pod");
    network.del(&new).unwrap();
    assert_eq!(node.held(), [format!("k8s-pod-network.{OLD}")]);
    node.old_is_reached("after another pod came and went");

    // A plain run, such as a restart of the init container, does not give back by accident.
    installer.ok(&[]);
    assert!(same(&bin.join("calico"), &ours.join("percale")));
    let told = String::from_utf8_lossy(&installer.run(&["--uninstall"]).stderr).into_owned();
    assert!(told.contains("--give-back"), "{told}");

    // Calico's own installer comes back, with a newer version; ours watches.
    let watch = node.bed.spawn(installer.command(&[], &["--take-over", "--watch"]).stderr(Stdio::null()));
    for program in [&node.newer, &node.theirs, &node.newer] {
        std::thread::sleep(std::time::Duration::from_millis(300));
        node.calico_installs(program);
        wait_for("the repair", || {
            bin.join("calico").exists() && same(&bin.join("calico"), &ours.join("percale"))
        });
        wait_for("the repair", || {
            bin.join("calico-ipam").exists() && same(&bin.join("calico-ipam"), &ours.join("percale"))
        });
    }
    node.bed.kill(watch);

    // A pod that Calico started stops cleanly.
    network.del(&node.old()).unwrap();
    assert_eq!(node.held(), Vec::<String>::new(), "its address is free");
    assert_eq!(node.get(&format!("/calico/ipam/v2/handle/k8s-pod-network.{OLD}")), None);
    assert_eq!(node.bed.host.link_names("calic44"), Vec::<String>::new());
    assert!(!node.host("ip route").contains(OLD_ADDRESS));
    assert_eq!(node.felix_state(), felix, "Felix's chains and BIRD's routes are as they were");

    installer.ok(&["--give-back"]);
    assert!(same(&bin.join("calico"), &node.newer), "the newest version that Calico's installer brought");
    assert!(same(&bin.join("calico-ipam"), &node.newer));
    assert!(!bin.join("percale").exists() && !bin.join("percale-cluster").exists());
    let conf: Value =
        serde_json::from_slice(&fs::read(node.bed.path("net.d/10-calico.conflist")).unwrap()).unwrap();
    assert_eq!(conf, node.conflist());
}

/// With a configuration of its own, Calico's is away while the node is taken over.
#[test]
fn calicos_configuration_comes_back() {
    let node = Node::new("takeconf");
    let ours = version(&node.bed, "ours");
    let mut own = node.conflist();
    own["plugins"][0]["type"] = json!("percale");
    own["plugins"][0]["ipam"]["type"] = json!("percale-ipam");
    let mut other = own.clone();
    other["name"] = json!("another");
    let told = Installer::new(&node.bed, &ours, Some(&other)).run(&["--take-over"]);
    assert!(
        String::from_utf8_lossy(&told.stderr).contains("running pods' addresses are held under its name")
    );
    let installer = Installer::new(&node.bed, &ours, Some(&own));
    installer.ok(&["--take-over"]);
    let names =
        || fs::read_dir(node.bed.path("net.d")).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names(), ["10-percale.conflist"]);
    node.old_is_reached("under the new configuration");
    installer.ok(&["--give-back"]);
    assert_eq!(names(), ["10-calico.conflist"]);
}

#[test]
fn all_of_it_is_refused_while_policies_exist() {
    let node = Node::new("takeall");
    let ours = version(&node.bed, "ours");
    let installer = Installer::new(&node.bed, &ours, None);
    let refused = || {
        let out = installer.run(&["--take-over=all"]);
        assert_eq!(out.status.code(), Some(1));
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let put = |kind: &str, plural: &str, name: &str, spec: Value| {
        let key = format!("/calico/resources/v3/projectcalico.org/{plural}/{name}");
        node.put(&key, &json!({"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": spec}));
    };
    let allow = json!([{"action": "Allow", "source": {}, "destination": {}}]);
    put("Profile", "profiles", "kns.default", json!({"ingress": allow, "egress": allow}));
    put("GlobalNetworkPolicy", "globalnetworkpolicies", "deny-all", json!({}));
    let told = refused();
    assert!(told.contains("cannot enforce (globalnetworkpolicies/deny-all)"), "{told}");
    (0..6).for_each(|i| put("HostEndpoint", "hostendpoints", &format!("h{i}"), json!({"node": "node1"})));
    put("Profile", "profiles", "strict", json!({"ingress": [{"action": "Deny"}]}));
    let told = refused();
    assert!(
        told.contains("hostendpoints/h0")
            && told.contains("1 more hostendpoints")
            && told.contains("profiles/strict"),
        "{told}"
    );
    assert!(!told.contains("kns.default"), "{told}");
    assert!(same(&node.bed.plugin_dir().join("calico"), &node.theirs), "nothing was changed");
    assert!(!node.bed.plugin_dir().join("percale").exists());
}

/// What Felix has beside the chains of [`felix`]: for NAT, against unknown interfaces; and somebody else's rule.
const MORE_CHAINS: &str = "*filter\n\
    -A cali-from-wl-dispatch -m comment --comment \"cali:zTj6P0TIgYvgz-md\" -m comment --comment \"Unknown interface\" -j DROP\n\
    -A cali-to-wl-dispatch -m comment --comment \"cali:7KNphB1nNHw80nIO\" -m comment --comment \"Unknown interface\" -j DROP\n\
    -A FORWARD -m comment --comment \"cali:S93hcgKJrXEqnTfs\" -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
    -A FORWARD -m comment --comment mine -j ACCEPT\nCOMMIT\n\
    *nat\n:cali-POSTROUTING - [0:0]\n:cali-nat-outgoing - [0:0]\n\
    -A POSTROUTING -m comment --comment \"cali:O3lYWMrLQYEMJtB5\" -j cali-POSTROUTING\n\
    -A cali-POSTROUTING -m comment --comment \"cali:Z-c7XtVd2Bq7s_hA\" -j cali-nat-outgoing\n\
    -A cali-nat-outgoing -s 192.168.0.0/16 ! -d 192.168.0.0/16 -m comment --comment \"cali:flqWnvo8yq4ULQLa\" -j MASQUERADE\nCOMMIT\n";

impl Node {
    fn felix_writes(&self, backend: &str) {
        let file = self.bed.write("felix-all", felix() + MORE_CHAINS);
        self.host(&format!("{backend}-restore --noflush < {}", file.display()));
    }

    fn felix_is_there(&self) -> bool {
        self.host("iptables-nft-save; iptables-legacy-save").contains("cali-FORWARD")
    }

    fn has_our_rules(&self) -> bool {
        let rules = self.bed.host.ruleset();
        rules.contains("table inet percale ") && rules.contains("table inet percale-node ")
    }

    fn daemon(&self) -> Daemon<'_> {
        let mut how = Start::with_args(&["--datastore-type", "etcdv3", "--state-dir"]);
        how.args.push(self.bed.path("istate").into());
        how.env = [("ETCD_ENDPOINTS", URL), ("NODENAME", "node1"), ("DISABLE_NODE_IP_CHECK", "true")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Daemon::start_as(&self.bed, &how)
    }
}

fn whole_take_over(tag: &str, backend: &str) {
    let node = Node::new(tag);
    node.host("iptables -F; iptables -X");
    node.felix_writes(backend);
    let outside = node.bed.netns("outside");
    e2e::netns::join(&node.bed.host, &outside);
    node.host("ip route add 10.9.0.0/16 via 192.0.2.2 proto bird");
    let ours = version(&node.bed, "ours");
    let installer = Installer::new(&node.bed, &ours, None);
    node.old_is_reached("before");

    // calico-node still runs: the installer waits for its end.
    let felix = node.bed.path("calico-felix");
    e2e::bed::copy_program(Path::new("/bin/sleep"), &felix);
    let process = node.bed.spawn(node.bed.host.command(&felix).arg("600"));
    let mut child = installer.command(&[], &["--take-over=all"]).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none() && !node.bed.path("istate/take-over").exists(), "it waits");
    node.bed.kill(process);
    assert!(child.wait().unwrap().success());
    assert!(node.felix_is_there(), "Felix's chains stay while nobody does their work");
    node.old_is_reached("while neither Felix nor the daemon runs");

    // Never without both: ours first, then Felix's go.
    let daemon = node.daemon();
    let mut ours_first = false;
    wait_for("Felix's chains go", || {
        let rules = node.has_our_rules();
        let gone = !node.felix_is_there();
        ours_first |= gone && rules;
        gone
    });
    assert!(ours_first, "our rules were in place when Felix's went");
    let left = node.host("iptables-nft-save; iptables-legacy-save");
    assert!(!left.contains("cali:") && left.contains("--comment mine"), "{left}");
    wait_for("BIRD's route to our block goes", || {
        !node.host("ip route show proto bird").contains("192.168.0.0/26")
    });
    assert!(node.host("ip route show proto 80").contains("blackhole 192.168.0.0/26"));
    assert!(node.host("ip route show proto bird").contains("10.9.0.0/16"), "another BIRD's route stays");
    node.old_is_reached("after the take-over");
    wait_for("the daemon is ready", || daemon.get(9099, "/readiness").0 == 204);
    let network = node.network();
    let space = node.bed.netns("new");
    let new = Attachment::new("newcontainer", &space);
    let result = network.add(&new).unwrap();
    node.reached(&space, address(&result, true), "of a new pod");

    // Felix comes back although it should not: its chains go again, and the daemon says so.
    node.felix_writes(backend);
    wait_for("it is told", || daemon.get(9099, "/readiness").1.contains("calico-node is still at work"));
    wait_for("its chains go again", || !node.felix_is_there());
    assert!(String::from_utf8_lossy(&installer.run(&["--rollback"]).stderr).contains("--give-back"));
    assert!(String::from_utf8_lossy(&installer.run(&["--uninstall"]).stderr).contains("--give-back"));

    installer.ok(&["--give-back"]);
    assert!(same(&node.bed.plugin_dir().join("calico"), &node.theirs));
    daemon.stopped();
    let daemon = node.daemon_of_calico();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(node.has_our_rules(), "our rules stay until Felix's are back");
    node.old_is_reached("before Felix is back");
    node.host("ip route add blackhole 192.168.0.0/26 proto bird");
    node.felix_writes(backend);
    wait_for("our rules go", || !node.host("nft list tables").contains("inet percale"));
    assert_eq!(node.host("ip route show proto 80"), "");
    node.old_is_reached("under Felix again");
    assert!(node.felix_is_there());
    drop(daemon);
}

impl Node {
    /// It serves nothing, so there is no socket to wait for.
    fn daemon_of_calico(&self) -> Daemon<'_> {
        let mut how = Start::with_args(&["--datastore-type", "etcdv3", "--state-dir"]);
        how.args.push(self.bed.path("istate").into());
        how.env =
            vec![("ETCD_ENDPOINTS".to_owned(), URL.to_owned()), ("NODENAME".to_owned(), "node1".to_owned())];
        Daemon::launch(&self.bed, &how)
    }
}

#[test]
fn calico_nodes_work_is_taken_over_and_given_back() {
    whole_take_over("takewhole", "iptables-nft");
}

#[test]
fn felixs_chains_of_the_legacy_back_end_go_too() {
    whole_take_over("takelegacy", "iptables-legacy");
}
