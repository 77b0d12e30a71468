//! Genuine Calico programs and ours on one store: `scripts/genuine-calico DIR` runs these tests, `scripts/test`
//! does not, since Calico's programs are no part of this project.

#![allow(clippy::unwrap_used)]

use e2e::bed::wait_for;
use e2e::cluster::{Cluster, Kind, key, resource};
use e2e::cnirun::{address, addresses};
use e2e::genuine::compare::{Moment, differences, stored_differences};
use e2e::genuine::{Calico, NETWORK, Side, Site};
use e2e::installer::{Installer, same, version};
use e2e::netns::must;
use e2e::random::Random;
use e2e::{Attachment, Netns, Network, probe};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// A container without a namespace, for calls of the IPAM alone.
fn container(name: &str) -> Attachment {
    let netns = PathBuf::from("/run/netns/none");
    Attachment { container: name.to_owned(), ifname: "eth0".to_owned(), netns, args: String::new() }
}

/// The answer of a call that must succeed.
fn done(site: &Site, side: &Side, host: &str, verb: &str, program: &str, pod: &Attachment) -> Value {
    let answer = site.run(side, host, verb, program, pod);
    let told = answer.stderr_text();
    answer.result().unwrap_or_else(|e| panic!("{} {verb} {}: {e}\n{told}", side.name(), pod.container))
}

/// The IPAM's ADD: the addresses with their block's prefix.
fn assign(site: &Site, side: &Side, host: &str, name: &str, args: &str) -> Vec<IpNet> {
    let result = done(site, side, host, "ADD", "calico-ipam", &container(name).with_args(args));
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().parse().unwrap()).collect()
}

fn release(site: &Site, side: &Side, host: &str, name: &str) {
    done(site, side, host, "DEL", "calico-ipam", &container(name));
}

/// The same calls; what is stored after each part of them.
struct Story<'a> {
    site: &'a Site,
    side: &'a Side,
    blocks: Vec<IpNet>,
    moments: Vec<Moment>,
}

impl Story<'_> {
    fn add(&mut self, host: &str, name: &str, args: &str) -> Vec<IpNet> {
        let ips = assign(self.site, self.side, host, name, args);
        for block in ips.iter().map(IpNet::trunc).filter(|net| net.prefix_len() != net.max_prefix_len()) {
            if !self.blocks.contains(&block) {
                self.blocks.push(block);
            }
        }
        ips
    }

    fn del(&self, host: &str, name: &str) {
        release(self.site, self.side, host, name);
    }

    fn is(&mut self, what: &'static str) {
        self.moments.push(Moment { what, stored: self.site.dump(), blocks: self.blocks.clone() });
    }
}

fn story(site: &Site, side: &Side) -> Vec<Moment> {
    let [one, two] = ["host-one", "host-two"];
    let mut story = Story { site, side, blocks: Vec::new(), moments: Vec::new() };
    let first = story.add(one, "aaaa", "");
    story.is("a first ADD claims a block");
    story.add(one, "bbbb", "");
    story.add(one, "cccc", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1");
    story.add(two, "dddd", "");
    story.is("pods of two hosts");
    let IpAddr::V4(base) = first[0].addr() else { panic!("{first:?}") };
    let asked = IpAddr::from(Ipv4Addr::from(u32::from(base) + 9));
    assert_eq!(story.add(one, "eeee", &format!("IP={asked}")), [IpNet::from(asked)], "it, and no other");
    story.is("an address that was asked for");
    story.del(one, "bbbb");
    story.del(one, "eeee");
    story.is("after two DELs");
    (0..16).for_each(|n| drop(story.add(one, &format!("more{n:02}"), "")));
    story.is("a second block");
    (0..16).for_each(|n| story.del(one, &format!("more{n:02}")));
    story.del(one, "aaaa");
    story.is("most released");
    story.del(one, "cccc");
    story.del(two, "dddd");
    story.is("all released");
    story.moments
}

// REQ: A-02
#[test]
#[ignore = "needs genuine Calico programs: scripts/genuine-calico DIR"]
fn the_same_calls_leave_the_same_objects() {
    let cluster = Cluster::own();
    let mut all = Vec::new();
    for kind in Kind::BOTH {
        let site = Site::new(&cluster, kind, "same");
        ["host-one", "host-two"].iter().for_each(|host| site.add_host(host));
        let ours = story(&site, &Side::Percale);
        for calico in Calico::all() {
            site.wipe();
            let theirs = story(&site, &Side::Calico(calico.clone()));
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let found = differences(ours, theirs, &calico);
                println!(
                    "{kind:?} {} {}: {} objects, {found:?}",
                    calico.version,
                    ours.what,
                    theirs.stored.len()
                );
                all.extend(found.into_iter().map(|d| format!("{kind:?} {}: {d}", ours.what)));
            }
        }
        site.wipe();
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// What the pod's end and the host's way to it look like, without what is of a run.
fn wiring(site: &Site, pod: &Netns, ip: IpAddr) -> Value {
    let routes = |ns: &Netns, args: &[&str]| {
        let of = |route: &Value| {
            json!([route["dst"], route["gateway"], route["dev"], route["scope"], route["flags"]])
        };
        ns.ip(args).iter().map(of).collect::<Vec<_>>()
    };
    let link = pod.ip(&["-d", "link", "show", "eth0"]).remove(0);
    let address = pod.ip(&["-4", "addr", "show", "eth0"]).remove(0)["addr_info"][0].clone();
    json!({
        "pod": routes(pod, &["-4", "route"]), "host": routes(&site.bed.host, &["-4", "route", "show", &ip.to_string()]),
        "mtu": link["mtu"], "address": [address["local"], address["prefixlen"], address["scope"]],
        "peer": site.bed.host.ip(&["link", "show", "type", "veth"])[0]["address"],
    })
}

/// A pod is made by one side with each of the other's eyes on it: the endpoint, the profile, the wiring, CHECK
/// and DEL.
// REQ: A-02
// REQ: C-18
#[test]
#[ignore = "needs genuine Calico programs: scripts/genuine-calico DIR"]
fn what_one_made_the_other_checks_and_deletes() {
    let cluster = Cluster::own();
    let site = Site::new(&cluster, Kind::Etcd, "cross");
    let host = site.node.name.clone();
    let ns = site.bed.netns("pod");
    let before = site.dump();
    let pool = site.stored(&key("ippools", &site.node.pool("v4")));
    let cidr: IpNet = pool["spec"]["cidr"].as_str().unwrap().parse().unwrap();
    let ip = cidr.hosts().nth(4).unwrap();
    for calico in Calico::all() {
        let theirs = Side::Calico(calico.clone());
        for args in ["IgnoreUnknown=1", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1"] {
            let pod = Attachment::new("c0ffee", &ns).with_args(&format!("{args};IP={ip}"));
            let mut made = Vec::new();
            for (maker, other) in [(&Side::Percale, &theirs), (&theirs, &Side::Percale)] {
                let result = done(&site, maker, &host, "ADD", "calico", &pod);
                assert_eq!(addresses(&result), [ip], "{}", maker.name());
                made.push((site.dump(), wiring(&site, &ns, ip)));
                check(&site, &host, &pod, &result);
                done(&site, other, &host, "DEL", "calico", &pod);
                let left: Vec<_> =
                    site.dump().into_iter().filter(|(key, _)| key.contains("workloadendpoints")).collect();
                assert!(left.is_empty(), "{} after {}: {left:?}", other.name(), maker.name());
                assert!(
                    site.given().is_empty(),
                    "{} after {}: {:?}",
                    other.name(),
                    maker.name(),
                    site.given()
                );
                assert_eq!(site.bed.host.link_names("cali"), Vec::<String>::new());
                site.wipe();
            }
            let found = stored_differences(&made[0].0, &made[1].0, &calico);
            assert!(found.is_empty(), "{args}:\n{}", found.join("\n"));
            assert_eq!(made[0].1, made[1].1, "{}: the wiring of {args}", calico.version);
        }
    }
    let profiles = |dump: &BTreeMap<String, String>| dump.keys().filter(|k| !k.contains("profiles")).count();
    assert_eq!(profiles(&site.dump()), profiles(&before));
}

/// A pod of Kubernetes, as `policy.type` k8s has it: what is written on the pod itself, and who takes it off.
// REQ: C-18
#[test]
#[ignore = "needs genuine Calico programs: scripts/genuine-calico DIR"]
fn a_pod_of_kubernetes_is_annotated_alike_and_either_takes_it_down() {
    let cluster = Cluster::own();
    let site = Site::new(&cluster, Kind::Kubernetes, "pods");
    let host = site.node.name.clone();
    let ns = site.bed.netns("pod");
    let pods = "/api/v1/namespaces/default/pods";
    let spec = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "labels": {"app": "web"}},
        "spec": {"nodeName": host, "serviceAccountName": "default", "containers": [{"name": "c", "image": "none"}]}});
    for calico in Calico::all() {
        let theirs = Side::Calico(calico.clone());
        let mut seen = Vec::new();
        for (maker, other) in [(&Side::Percale, &theirs), (&theirs, &Side::Percale)] {
            let made = site.cluster.api("POST", pods, Some(&spec));
            let args = format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1;K8S_POD_UID={}",
                made["metadata"]["uid"].as_str().unwrap()
            );
            let pod = Attachment::new("c0ffee", &ns).with_args(&args);
            let run = |side: &Side, verb: &str| {
                let mut network = site.network(side, &host);
                network.plugins[0]["policy"] = json!({"type": "k8s"});
                let answer = site.run_with(&network, side, verb, "calico", &pod);
                let told = answer.stderr_text();
                answer.result().unwrap_or_else(|e| panic!("{} {verb}: {e}\n{told}", side.name()))
            };
            let ips = addresses(&run(maker, "ADD"));
            let annotations = |ips: &[IpAddr]| {
                let pod = site.cluster.api("GET", &format!("{pods}/web-1"), None);
                let mut text = pod["metadata"]["annotations"].to_string();
                ips.iter()
                    .enumerate()
                    .for_each(|(at, ip)| text = text.replace(&format!("{ip}/"), &format!("IP{at}/")));
                text
            };
            seen.push(annotations(&ips));
            run(other, "DEL");
            seen.push(annotations(&ips));
            assert!(site.given().is_empty(), "{}: {:?}", other.name(), site.given());
            assert_eq!(site.bed.host.link_names("cali"), Vec::<String>::new());
            site.cluster.api("DELETE", &format!("{pods}/web-1"), Some(&json!({"gracePeriodSeconds": 0})));
            wait_for("the pod is gone", || {
                site.cluster.api("GET", &format!("{pods}/web-1"), None)["code"] == 404
            });
        }
        println!("{}: {seen:#?}", calico.version);
        if !calico.since(19) {
            // It came in a patch release of 3.18.
            seen.iter_mut().for_each(|text| {
                *text = text.replace(r#""cni.projectcalico.org/containerID":"c0ffee","#, "")
            });
        }
        assert_eq!(seen[0], seen[2], "{}: after ADD", calico.version);
        assert_eq!(seen[1], seen[3], "{}: after the other's DEL", calico.version);
    }
}

/// Our CHECK with a result that either side gave.
fn check(site: &Site, host: &str, pod: &Attachment, result: &Value) {
    let mut network = site.network(&Side::Percale, host).at_version("0.4.0");
    network.plugins[0]["prevResult"] = result.clone();
    network.plugins[0]["prevResult"]["cniVersion"] = json!("0.4.0");
    site.run_with(&network, &Side::Percale, "CHECK", "calico", pod).result().unwrap();
}

/// A worker of the crowd: what it does next, and what it holds.
struct Worker {
    random: Random,
    host: String,
    number: usize,
    held: Vec<(String, Vec<IpAddr>)>,
}

impl Worker {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap()
    }

    fn step(&mut self, site: &Site, sides: &[Side], at: usize, owners: &Mutex<BTreeMap<IpAddr, String>>) {
        let side = &sides[self.below(sides.len())];
        if self.held.len() > 8 || (!self.held.is_empty() && self.below(5) < 2) {
            let at = self.below(self.held.len());
            let (name, ips) = self.held.swap_remove(at);
            let mut owners = owners.lock().unwrap();
            ips.iter().for_each(|ip| drop(owners.remove(ip)));
            drop(owners);
            release(site, side, &self.host, &name);
            return;
        }
        let name = format!("w{}-{at}", self.number);
        let ips: Vec<IpAddr> = assign(site, side, &self.host, &name, "").iter().map(IpNet::addr).collect();
        let mut owners = owners.lock().unwrap();
        for ip in &ips {
            let other = owners.insert(*ip, name.clone());
            assert_eq!(other, None, "{ip} was given to {name} by {} too", side.name());
        }
        self.held.push((name, ips));
    }
}

// REQ: A-02
#[test]
#[ignore = "needs genuine Calico programs: scripts/genuine-calico DIR"]
fn all_versions_allocate_at_once_and_no_address_is_given_twice() {
    let steps = if e2e::bins::full() { 200 } else { 50 };
    let cluster = Cluster::own();
    let theirs: Vec<Side> = Side::all().split_off(1);
    // Every other call is ours.
    let sides: Vec<Side> = theirs.iter().flat_map(|side| [Side::Percale, side.clone()]).collect();
    for kind in Kind::BOTH {
        let site = Site::new(&cluster, kind, "crowd");
        let hosts = ["crowd-0", "crowd-1", "crowd-2"].map(|name| format!("{}-{name}", site.node.name));
        hosts.iter().for_each(|host| site.add_host(host));
        let owners = Mutex::new(BTreeMap::new());
        let workers: Vec<Worker> = std::thread::scope(|scope| {
            let start = |number: usize| {
                let host = hosts[number % hosts.len()].clone();
                let mut worker =
                    Worker { random: Random::new(number as u64), host, number, held: Vec::new() };
                let (site, sides, owners) = (&site, &sides, &owners);
                scope.spawn(move || {
                    (0..steps).for_each(|at| worker.step(site, sides, at, owners));
                    worker
                })
            };
            let running: Vec<_> = (0..6).map(start).collect();
            running.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        let held: BTreeMap<IpAddr, String> = owners.into_inner().unwrap();
        assert_eq!(site.given(), held, "{kind:?}: what is stored is what was answered");
        println!("{kind:?}: {} calls, {} addresses held", 6 * steps, held.len());
        let ipam_show = must(&mut site.percalectl(&["ipam", "check", "-o", "json"]));
        let report: Value = serde_json::from_slice(&ipam_show).unwrap();
        assert_eq!(report["allocations"], held.len());
        // Each is released by another side than the one before.
        let all = workers.iter().flat_map(|w| w.held.iter().map(move |(name, _)| (w, name)));
        for (at, (worker, name)) in all.enumerate() {
            release(&site, &sides[at % sides.len()], &worker.host, name);
        }
        assert!(site.given().is_empty(), "{kind:?}: {:?}", site.given());
        let handles: Vec<String> = site.dump().into_keys().filter(|key| key.contains("handle")).collect();
        assert!(handles.is_empty(), "{kind:?}: {handles:?}");
        site.wipe();
    }
}

/// What calicoctl finds wrong; the newest asks for an object that Calico's controllers make.
fn calicoctl_check(site: &Site, calico: &Calico) -> String {
    let controllers = resource("KubeControllersConfiguration", "default", json!({"controllers": {}}));
    site.cluster.put(site.kind, &key("kubecontrollersconfigurations", "default"), Some(controllers));
    String::from_utf8_lossy(&must(&mut site.calicoctl(calico, &["ipam", "check"]))).into_owned()
}

fn told(command: &mut Command) -> String {
    String::from_utf8_lossy(&must(command)).into_owned()
}

// REQ: A-12
#[test]
#[ignore = "needs genuine Calico programs: scripts/genuine-calico DIR"]
fn calicoctl_finds_nothing_wrong_and_each_command_line_frees_what_the_other_made() {
    let cluster = Cluster::own();
    let site = Site::new(&cluster, Kind::Etcd, "ctl");
    let host = site.node.name.clone();
    for calico in Calico::all() {
        let theirs = Side::Calico(calico.clone());
        let tails = ["one", "two", "three"];
        let spaces = tails.map(|tail| site.bed.netns(tail));
        // Calico names a container's link by the first eleven letters.
        let pod = |n: usize| Attachment::new(&format!("{}-{}", tails[n], spaces[n].name()), &spaces[n]);
        let pods: [Attachment; 3] = std::array::from_fn(pod);
        let sides = [&Side::Percale, &theirs, &Side::Percale];
        let results: Vec<Value> = sides
            .iter()
            .zip(&pods)
            .map(|(side, pod)| done(&site, side, &host, "ADD", "calico", pod))
            .collect();
        probe::tcp(&spaces[0], &spaces[1], addresses(&results[1])[0]).unwrap();
        let said = calicoctl_check(&site, &calico);
        assert!(said.contains("Check complete; found 0 problems."), "{}: {said}", calico.version);
        assert!(said.contains("IPAM blocks record 6 allocations."), "{}: {said}", calico.version);
        let [ours, by_theirs] = [0, 1].map(|at| addresses(&results[at])[0].to_string());
        let shown = told(&mut site.calicoctl(&calico, &["ipam", "show", &format!("--ip={ours}")]));
        assert!(shown.contains(&format!("IP {ours} is in use")), "{}: {shown}", calico.version);
        let shown = told(&mut site.percalectl(&["ipam", "show", "--ip", &by_theirs]));
        assert!(shown.contains(&pods[1].container), "{}: {shown}", calico.version);
        told(&mut site.calicoctl(&calico, &["ipam", "release", &format!("--ip={ours}")]));
        told(&mut site.percalectl(&["ipam", "release", "--ip", &by_theirs]));
        let given: BTreeSet<String> = site.given().into_keys().map(|ip| ip.to_string()).collect();
        assert!(!given.contains(&ours) && !given.contains(&by_theirs), "{}: {given:?}", calico.version);
        sides.iter().zip(&pods).for_each(|(side, pod)| drop(done(&site, side, &host, "DEL", "calico", pod)));
        assert!(site.given().is_empty(), "{}: {:?}", calico.version, site.given());
        let said = calicoctl_check(&site, &calico);
        assert!(said.contains("Check complete; found 0 problems."), "{}: {said}", calico.version);
    }
}

const RESOURCES: &str = r#"[
{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"of-both"},"spec":{"cidr":"10.77.0.0/16",
 "blockSize":27,"natOutgoing":true,"ipipMode":"CrossSubnet","nodeSelector":"zone == \"a\""}},
{"apiVersion":"projectcalico.org/v3","kind":"BGPPeer","metadata":{"name":"of-both"},"spec":{"peerIP":"192.0.2.9",
 "asNumber":64512,"nodeSelector":"has(rack)"}},
{"apiVersion":"projectcalico.org/v3","kind":"BGPConfiguration","metadata":{"name":"default"},"spec":{"asNumber":64999,
 "nodeToNodeMeshEnabled":false,"serviceClusterIPs":[{"cidr":"10.96.0.0/12"}]}},
{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkPolicy","metadata":{"name":"of-both"},"spec":{"selector":"has(a)",
 "types":["Ingress"],"ingress":[{"action":"Allow","protocol":"TCP","destination":{"ports":[80]}}]}}
]"#;

/// A rule's `source` that says nothing is written by calicoctl.
fn without_empty(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(without_empty),
        Value::Object(all) => {
            all.retain(|_, member| *member != json!({}));
            all.values_mut().for_each(without_empty);
        }
        _ => {}
    }
}

/// What a command line shows of an object, without what is of a run, and the defaults that a Calico writes out.
fn shown(get: &mut Command) -> Value {
    let mut value: Value = serde_json::from_slice(&must(get)).unwrap();
    if let Some(first) = value.as_array().and_then(|all| all.first()).or_else(|| value["items"].get(0)) {
        value = first.clone();
    }
    for own in ["uid", "resourceVersion", "creationTimestamp"] {
        value["metadata"].as_object_mut().unwrap().shift_remove(own);
    }
    for default in
        ["allowedUses", "assignmentMode", "tier", "logSeverityScreen", "serviceLoadBalancerAggregation"]
    {
        value["spec"].as_object_mut().unwrap().shift_remove(default);
    }
    without_empty(&mut value);
    value
}

/// Kinds, names, and the minor version since which Calico stores them otherwise than we do: policies lost the
/// name of their tier.
const NAMED: [(&str, &str, u32); 4] = [
    ("ippool", "of-both", u32::MAX),
    ("bgppeer", "of-both", u32::MAX),
    ("bgpconfiguration", "default", u32::MAX),
    ("globalnetworkpolicy", "of-both", 32),
];

// REQ: K-05
#[test]
#[ignore = "needs genuine Calico programs: scripts/genuine-calico DIR"]
fn resources_of_either_command_line_are_read_alike_by_both() {
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let site = Site::new(&cluster, kind, "resources");
        let file = site.bed.write("resources.json", RESOURCES).display().to_string();
        for calico in Calico::all() {
            let line = |ours: bool, args: &[&str]| match ours {
                true => site.percalectl(args),
                false => site.calicoctl(&calico, args),
            };
            let written = [true, false].map(|writer| {
                must(&mut line(writer, &["apply", "-f", &file]));
                NAMED.map(|(what, name, until)| {
                    if calico.since(until) {
                        must(&mut line(writer, &["delete", what, name]));
                        return Value::Null;
                    }
                    let read = |ours: bool| shown(&mut line(ours, &["get", what, name, "-o", "json"]));
                    let [ours, theirs] = [true, false].map(read);
                    assert_eq!(ours, theirs, "{kind:?} {}: {what}", calico.version);
                    must(&mut line(false, &["delete", what, name]));
                    ours
                })
            });
            assert_eq!(written[0], written[1], "{kind:?} {}", calico.version);
        }
    }
}

/// The lock of Calico's migration command is one for our plugin too.
#[test]
#[ignore = "needs genuine Calico programs: scripts/genuine-calico DIR"]
fn a_datastore_that_calicoctl_locks_is_locked_for_us() {
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let site = Site::new(&cluster, kind, "lock");
        let host = site.node.name.clone();
        // As Calico makes it: it does not write an object that has no time of its own.
        let mut info = resource("ClusterInformation", "default", json!({"datastoreReady": true}));
        info["metadata"]["creationTimestamp"] = json!("2026-11-01T00:00:00Z");
        info["metadata"]["uid"] = json!("3dd7b0a5-6f2c-4b57-a6c9-4b8c2f5e0c14");
        site.cluster.put(kind, &key("clusterinformations", "default"), Some(info));
        // In Kubernetes calicoctl asks for Tiers since 3.29, a kind that Percale's manifests do not have.
        for calico in Calico::all().into_iter().filter(|c| kind == Kind::Etcd || !c.since(29)) {
            let migrate = |verb: &str| must(&mut site.calicoctl(&calico, &["datastore", "migrate", verb]));
            assign(&site, &Side::Percale, &host, "before", "");
            migrate("lock");
            let refused = site.run(&Side::Percale, &host, "ADD", "calico-ipam", &container("meanwhile"));
            assert_eq!(refused.result().unwrap_err().code(), Some(11), "{kind:?} {}", calico.version);
            release(&site, &Side::Percale, &host, "before");
            assert_eq!(site.given().len(), 2, "{kind:?} {}: a locked store is not written", calico.version);
            migrate("unlock");
            assign(&site, &Side::Percale, &host, "after", "");
            release(&site, &Side::Percale, &host, "after");
            assert!(site.given().is_empty(), "{kind:?} {}: {:?}", calico.version, site.given());
        }
        site.wipe();
    }
}

/// A node of a genuine Calico: installed by its own installer, its pods made by its own plugin.
struct Taken<'a> {
    site: &'a Site,
    calico: &'a Calico,
}

impl Taken<'_> {
    fn bin(&self) -> PathBuf {
        self.site.bed.plugin_dir()
    }

    /// As in its container: the host's directories under /host, its own programs in /opt/cni/bin.
    fn calico_installs(&self) {
        let (bed, config) = (&self.site.bed, self.conflist().to_string());
        let root = bed.path(&format!("container-{}", self.calico.version));
        let made = "mkdir -p $1/opt/cni/bin $1/host/opt/cni/bin $1/host/etc/cni/net.d $1/tmp $1/proc $1/var/run $1/calico-secrets $4; \
                    cp -n $2 $1/opt/cni/bin/calico; cp -n $2 $1/opt/cni/bin/calico-ipam; cp -n $3 $1/opt/cni/bin/install";
        let programs = ["calico", "install"].map(|name| self.calico.program(name).unwrap());
        let mut shell = Command::new("sh");
        must(shell.args(["-ec", made, "sh"]).arg(&root).args(programs).arg(bed.path("net.d")));
        let enter = "mount --bind $2 $1/host/opt/cni/bin; mount --bind $3 $1/host/etc/cni/net.d; \
                     exec chroot $1 /opt/cni/bin/install";
        let mut shell = bed.host.command("unshare");
        shell.args(["--mount", "sh", "-ec", enter, "sh"]).arg(&root).arg(self.bin()).arg(bed.path("net.d"));
        shell.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        shell.envs([
            ("SLEEP", "false"),
            ("CNI_CONF_NAME", "10-calico.conflist"),
            ("CNI_NET_DIR", "/etc/cni/net.d"),
        ]);
        must(shell.env("CNI_NETWORK_CONFIG", config));
    }

    fn is_calicos(&self) -> bool {
        let theirs = self.calico.program("calico").unwrap();
        ["calico", "calico-ipam"].iter().all(|name| same(&self.bin().join(name), &theirs))
    }

    fn conflist(&self) -> Value {
        let side = Side::Calico(self.calico.clone());
        let plugin = self.site.network(&side, &self.site.node.name).plugins.remove(0);
        e2e::conf::conflist(NETWORK, "0.3.1", &[plugin])
    }

    /// What a runtime does: whatever lies under the configured name runs.
    fn network(&self) -> Network<'_> {
        let side = Side::Calico(self.calico.clone());
        let mut network = self.site.network(&side, &self.site.node.name);
        network.env.clear();
        network
    }

    fn reaches(&self, pod: &Netns, ip: IpAddr, when: &str) {
        let server = pod.run(|| TcpListener::bind(SocketAddr::from((ip, 0))).unwrap());
        probe::tcp_to(&self.site.bed.host, server.local_addr().unwrap(), &server)
            .unwrap_or_else(|e| panic!("{} {ip} {when}: {e}", self.calico.version));
    }
}

// REQ: I-07
// REQ: C-18
#[test]
#[ignore = "needs genuine Calico programs: scripts/genuine-calico DIR"]
fn a_node_is_taken_from_a_genuine_calico_and_given_back() {
    let cluster = Cluster::own();
    let calicos: Vec<Calico> = Calico::all().into_iter().filter(|c| c.program("install").is_some()).collect();
    assert!(!calicos.is_empty(), "no version has its installer");
    for calico in &calicos {
        taken_over(&cluster, calico);
    }
}

fn taken_over(cluster: &Arc<Cluster>, calico: &Calico) {
    let site = Site::new(cluster, Kind::Etcd, "taken");
    let node = Taken { site: &site, calico };
    for name in ["percale", "percale-ipam"] {
        std::fs::remove_file(node.bin().join(name)).unwrap();
    }
    node.calico_installs();
    assert!(node.is_calicos(), "{}: its installer did its work", calico.version);
    let network = node.network();
    let spaces = ["stays", "goes", "new", "later"].map(|tail| site.bed.netns(tail));
    let pods = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns));
    let [stays, goes] = [0, 1].map(|at| address(&network.add(&pods[at]).unwrap(), true));
    [(0, stays), (1, goes)].iter().for_each(|(at, ip)| node.reaches(&spaces[*at], *ip, "before"));

    let ours = version(&site.bed, "ours");
    let installer = Installer::new(&site.bed, &ours, None);
    installer.ok(&["--take-over"]);
    let is_ours = || {
        let named = ["calico", "calico-ipam"].map(|name| node.bin().join(name));
        named.iter().all(|path| path.exists() && same(path, &ours.join("percale")))
    };
    assert!(is_ours());
    [(0, stays), (1, goes)]
        .iter()
        .for_each(|(at, ip)| node.reaches(&spaces[*at], *ip, "after the take-over"));
    let new = address(&network.add(&pods[2]).unwrap(), true);
    node.reaches(&spaces[2], new, "as a new pod");
    network.del(&pods[1]).unwrap();
    assert!(!site.given().contains_key(&goes), "{}: its address is freed", calico.version);

    let watch = site.bed.spawn(installer.command(&[], &["--take-over", "--watch"]).stderr(Stdio::null()));
    node.calico_installs();
    wait_for("the repair of what Calico's installer wrote over", is_ours);
    site.bed.kill(watch);
    node.reaches(&spaces[0], stays, "after the repair");

    installer.ok(&["--give-back"]);
    assert!(node.is_calicos(), "{}: its own programs are back", calico.version);
    node.reaches(&spaces[2], new, "after it was given back");
    let later = address(&network.add(&pods[3]).unwrap(), true);
    node.reaches(&spaces[3], later, "made by Calico again");
    [0, 2, 3].iter().for_each(|at| network.del(&pods[*at]).unwrap());
    assert!(site.given().is_empty(), "{}: {:?}", calico.version, site.given());
    assert_eq!(site.bed.host.link_names("cali"), Vec::<String>::new(), "{}", calico.version);
    println!("{}: taken over and given back", calico.version);
}
