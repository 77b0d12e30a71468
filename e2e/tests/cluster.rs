//! The plugin on a real etcd and a real API server, with TLS and the rights of its own account only.

#![allow(clippy::unwrap_used)]

use e2e::clean::kernel_is_clean;
use e2e::cluster::{Cluster, Counting, Killed, Kind, Node, key, resource, soon};
use e2e::cnirun::{addresses, finish};
use e2e::{Attachment, Bed, Network, probe};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calico's default network name, as in its handles.
const NETWORK: &str = "k8s-pod-network";

/// A bed whose host is a node of the cluster.
fn node(cluster: &Arc<Cluster>, kind: Kind, tag: &str) -> (Bed, Node) {
    let bed = Bed::new(tag);
    let node = Node::join(cluster, kind, &bed);
    (bed, node)
}

fn network<'a>(bed: &'a Bed, node: &Node) -> Network<'a> {
    Network::new(bed, NETWORK, vec![node.plugin(bed)])
}

fn state(bed: &Bed, file: &str) -> String {
    std::fs::read_to_string(bed.path("state").join(file)).unwrap_or_default()
}

// REQ: C-14
#[test]
fn pods_live_and_die_on_either_store() {
    for kind in Kind::BOTH {
        let (bed, node) = node(&Cluster::shared(), kind, "life");
        let network = network(&bed, &node);
        network.status().unwrap();
        let spaces = ["one", "two", "three"].map(|tail| bed.netns(tail));
        let pods = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns));
        let results = pods.each_ref().map(|pod| network.add(pod).unwrap());
        for ip in addresses(&results[1]) {
            probe::tcp(&spaces[0], &spaces[1], ip).unwrap_or_else(|e| panic!("{kind:?} {ip}: {e}"));
        }
        assert_eq!(network.add(&pods[0]).unwrap(), results[0], "a repeated ADD is answered alike");
        pods.iter().for_each(|pod| network.check(pod).unwrap());
        assert_eq!(node.given(), 6, "{kind:?}: two addresses for each");
        network.del(&pods[0]).unwrap();
        network.del(&pods[0]).unwrap();
        network.gc(&[&pods[1]]).unwrap();
        assert_eq!(node.given(), 2, "{kind:?}: what the runtime still knows");
        network.del(&pods[1].without_netns()).unwrap();
        network.del(&pods[2]).unwrap();
        assert_eq!(node.given(), 0, "{kind:?}");
        kernel_is_clean(&bed.host);
        let identity = state(&bed, "datastore");
        assert_eq!(identity, node.cluster.store(kind).identity(), "the store is recorded with its cluster");
    }
}

/// Requests of the plugin by kind, but for those that open the store.
#[derive(Debug, Default)]
struct Calls {
    gets: usize,
    lists: usize,
    writes: usize,
}

fn calls(lines: &[String]) -> Calls {
    let mut calls = Calls::default();
    for line in lines {
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        match method {
            "GET" if path.contains('?') => calls.lists += 1,
            "GET" => calls.gets += 1,
            _ => calls.writes += 1,
        }
    }
    calls
}

#[test]
fn kubernetes_is_called_within_the_budget() {
    let (bed, node) = node(&Cluster::shared(), Kind::Kubernetes, "calls");
    let proxy = Counting::before(&node, &bed);
    let mut network = network(&bed, &node);
    network.plugins[0]["ipam"]["assign_ipv6"] = json!("false");
    let done = |verb: &str, pod: &Attachment| {
        match verb {
            "ADD" => drop(network.add(pod).unwrap()),
            "CHECK" => network.check(pod).unwrap(),
            _ => network.del(pod).unwrap(),
        }
        let lines = proxy.take();
        let calls = calls(&lines);
        println!("Kubernetes, {verb}: {} reads, {} lists, {} writes", calls.gets, calls.lists, calls.writes);
        assert!(!lines.is_empty());
        (calls, lines)
    };
    let spaces = ["one", "two", "three"].map(|tail| bed.netns(tail));
    let [first, second, third] = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns));
    let (claim, lines) = done("ADD", &first);
    assert!(claim.writes <= 6, "a first ADD claims a block: {lines:#?}");
    let (steady, lines) = done("ADD", &second);
    assert!(steady.writes <= 3, "the steady state: {lines:#?}");
    assert_eq!(steady.lists, 0, "what was listed a moment ago is read by name: {lines:#?}");
    done("CHECK", &second);
    let (del, lines) = done("DEL", &second);
    assert!(del.writes <= 4 && del.lists == 0, "{lines:#?}");
    // Another pool is noticed at once where it is asked for, and what was remembered is only advice.
    let pool = format!("{}-new", node.name);
    let spec = json!({"cidr": "10.99.0.0/24", "blockSize": 28, "nodeSelector": "all()"});
    node.cluster.put(Kind::Kubernetes, &key("ippools", &pool), Some(resource("IPPool", &pool, spec)));
    let mut elsewhere = Network::new(&bed, NETWORK, vec![node.plugin(&bed)]);
    elsewhere.plugins[0]["ipam"]["assign_ipv6"] = json!("false");
    elsewhere.plugins[0]["ipam"]["ipv4_pools"] = json!([pool]);
    let given = addresses(&elsewhere.add(&third).unwrap())[0].to_string();
    assert!(given.starts_with("10.99.0."), "{given}");
    elsewhere.del(&third).unwrap();
    for damaged in ["percale 1 00000000\n{}", ""] {
        std::fs::write(bed.path("state/hints/lists"), damaged).unwrap();
        let (again, lines) = done("ADD", &second);
        assert!(again.lists > 0, "{lines:#?}");
        done("DEL", &second);
    }
}

#[test]
fn a_host_that_answers_with_errors_for_a_moment_is_asked_again() {
    let (bed, node) = node(&Cluster::shared(), Kind::Kubernetes, "busy");
    let proxy = Counting::before(&node, &bed);
    let network = network(&bed, &node);
    let ns = bed.netns("pod");
    let pod = Attachment::new(ns.name(), &ns);
    proxy.refuse(&[429, 503, 500, 502]);
    network.add(&pod).unwrap();
    proxy.take();
    proxy.refuse(&[500, 429]);
    network.del(&pod).unwrap();
    assert!(proxy.take().iter().any(|line| line.ends_with(" 429")));
    assert_eq!(node.given(), 0);
    // For longer than a DEL waits: it is owed, and paid by the next call.
    network.add(&pod).unwrap();
    proxy.refuse(&[503; 1000]);
    let mut slow = network.config(&network.plugins[0], None);
    slow["del_timeout"] = json!(4);
    let begun = Instant::now();
    network.exec("DEL", &slow, &pod).result().unwrap();
    println!("DEL with a server that only refuses: {:?}", begun.elapsed());
    proxy.refuse(&[]);
    assert_eq!(node.given(), 2, "the release is owed");
    network.del(&pod).unwrap();
    assert_eq!(node.given(), 0);
}

// REQ: I-04
#[test]
fn an_expired_token_is_told_and_a_renewed_one_is_used() {
    let (bed, node) = node(&Cluster::shared(), Kind::Kubernetes, "token");
    let network = network(&bed, &node);
    let ns = bed.netns("pod");
    let pod = Attachment::new(ns.name(), &ns);
    let good = std::fs::read_to_string(bed.path("kubeconfig")).unwrap();
    let token = good.split("token: \"").nth(1).unwrap().split('"').next().unwrap();
    let (body, bad) = (token.rsplit_once('.').unwrap().0, bed.path("kubeconfig"));
    std::fs::write(&bad, good.replace(token, &format!("{body}.c2lnbmF0dXJl"))).unwrap();
    let refused = network.add(&pod).unwrap_err();
    assert_eq!(refused.code(), Some(11), "{refused}");
    assert!(refused.to_string().contains("token"), "{refused}");
    assert!(!refused.to_string().contains(body), "no credential in a message");
    std::fs::write(&bad, &good).unwrap();
    network.add(&pod).unwrap();
    std::fs::write(&bad, good.replace(token, &format!("{body}.c2lnbmF0dXJl"))).unwrap();
    network.del(&pod).unwrap();
    kernel_is_clean(&bed.host);
    assert_eq!(node.given(), 2, "owed until the token is good again");
    std::fs::write(&bad, &good).unwrap();
    network.del(&pod).unwrap();
    assert_eq!(node.given(), 0);
    // The same where the whole file is gone.
    network.add(&pod).unwrap();
    std::fs::remove_file(&bad).unwrap();
    network.del(&pod).unwrap();
    assert_eq!(network.add(&pod).unwrap_err().code(), Some(11));
    std::fs::write(&bad, &good).unwrap();
    network.add(&pod).unwrap();
    network.del(&pod).unwrap();
    assert_eq!(node.given(), 0);
}

#[test]
fn the_token_of_a_file_is_read_again() {
    let (bed, node) = node(&Cluster::shared(), Kind::Kubernetes, "tokenfile");
    let network = network(&bed, &node);
    let good = std::fs::read_to_string(bed.path("kubeconfig")).unwrap();
    let token = good.split("token: \"").nth(1).unwrap().split('"').next().unwrap();
    let file = bed.write("token", "not.a.token");
    let by_file = good.replace(&format!("token: \"{token}\""), &format!("tokenFile: {}", file.display()));
    std::fs::write(bed.path("kubeconfig"), by_file).unwrap();
    let ns = bed.netns("pod");
    let pod = Attachment::new(ns.name(), &ns);
    assert_eq!(network.add(&pod).unwrap_err().code(), Some(11));
    std::fs::write(&file, token).unwrap();
    network.add(&pod).unwrap();
    network.del(&pod).unwrap();
    assert_eq!(node.given(), 0);
}

/// What the host's agent, the administrator and other hosts do meanwhile.
#[test]
fn what_a_cluster_must_have_is_asked_for() {
    for kind in Kind::BOTH {
        let (bed, node) = node(&Cluster::shared(), kind, "needs");
        let mut network = network(&bed, &node);
        let ns = bed.netns("pod");
        let pod = Attachment::new(ns.name(), &ns);
        let refusal = |network: &Network, wanted: &str| {
            let refused = network.add(&pod).unwrap_err();
            assert!(
                refused.code() == Some(11) && refused.to_string().contains(wanted),
                "{kind:?}: {refused}"
            );
            let unavailable = network.status().unwrap_err();
            assert_eq!(unavailable.code(), Some(50), "{kind:?}: {unavailable}");
        };
        std::fs::remove_file(bed.path("state/nodename")).unwrap();
        refusal(&network, "nodename");
        network.plugins[0]["nodename_file_optional"] = json!(true);
        network.plugins[0]["nodename"] = json!("nobody");
        refusal(&network, "node \"nobody\" is not known");
        network.plugins[0]["nodename"] = json!(node.name);
        network.add(&pod).unwrap();
        network.check(&pod).unwrap();
        std::fs::remove_file(bed.path("state/nodename")).ok();
        network.del(&pod).unwrap();
        assert_eq!(node.given(), 0, "{kind:?}");
    }
}

#[test]
fn objects_that_change_under_us_do_not_stop_a_pod() {
    for kind in Kind::BOTH {
        let (bed, node) = node(&Cluster::shared(), kind, "changed");
        let network = network(&bed, &node);
        let spaces = ["one", "two"].map(|tail| bed.netns(tail));
        let [one, two] = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns));
        network.add(&one).unwrap();
        // Somebody deletes the host's claims; another pod comes.
        let store = node.cluster.store(kind);
        let affinities = store.keys(&format!("/calico/ipam/v2/host/{}/", node.name), soon()).unwrap();
        affinities.iter().for_each(|key| node.cluster.put(kind, key, None));
        network.add(&two).unwrap();
        network.del(&one).unwrap();
        network.del(&two).unwrap();
        assert_eq!(node.given(), 0, "{kind:?}");
        // A pool is deleted while a pod has an address of it.
        network.add(&one).unwrap();
        for family in ["v4", "v6"] {
            node.cluster.put(kind, &key("ippools", &node.pool(family)), None);
        }
        let refused = network.add(&two).unwrap_err();
        assert!(refused.to_string().contains(&node.pool("v4")), "{kind:?}: {refused}");
        network.del(&one).unwrap();
        assert_eq!(node.given(), 0, "{kind:?}");
        kernel_is_clean(&bed.host);
    }
}

/// DELs while the store is locked or gone succeed; what they owe is paid later, once.
fn owes_and_pays(node: &Node, bed: &Bed, what: &str, lose: &dyn Fn(), restore: &dyn Fn()) {
    let kind = node.kind;
    let network = network(bed, node);
    let tails = ["stays", "goes", "again"].map(|tail| bed.netns(&format!("{what}-{tail}")));
    let [stays, goes, again] = tails.each_ref().map(|ns| Attachment::new(ns.name(), ns));
    network.add(&stays).unwrap();
    network.add(&goes).unwrap();
    let before = network.add(&again).unwrap();
    lose();
    let begun = Instant::now();
    network.del(&goes).unwrap();
    network.del(&again).unwrap();
    let del = begun.elapsed() / 2;
    let begun = Instant::now();
    let refused = network.add(&goes).unwrap_err();
    println!("{kind:?}, {what}: DEL {del:?}, ADD {:?}: {refused}", begun.elapsed());
    assert_eq!(refused.code(), Some(11), "{kind:?}, {what}: {refused}");
    assert!(del < Duration::from_secs(15), "{kind:?}, {what}: DEL took {del:?}");
    restore();
    assert_eq!(node.given(), 6, "{kind:?}, {what}: two releases are owed");
    // The same container is started again before its release was carried out.
    assert_eq!(addresses(&network.add(&again).unwrap()), addresses(&before), "{kind:?}, {what}");
    assert_eq!(node.given(), 4, "{kind:?}, {what}: the other release was carried out");
    network.del(&again).unwrap();
    network.del(&stays).unwrap();
    assert_eq!(node.given(), 0, "{kind:?}, {what}");
    kernel_is_clean(&bed.host);
}

#[test]
fn a_store_that_is_locked_lost_paused_or_killed() {
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let (bed, node) = node(&cluster, kind, "lost");
        let ready = |ready| cluster.set_ready(kind, ready);
        owes_and_pays(&node, &bed, "locked", &|| ready(Some(false)), &|| ready(Some(true)));
        owes_and_pays(&node, &bed, "bare", &|| ready(None), &|| ready(Some(true)));
        owes_and_pays(&node, &bed, "refused", &|| node.bridge.refuse(true), &|| node.bridge.refuse(false));
        owes_and_pays(&node, &bed, "stalled", &|| node.bridge.stall(true), &|| node.bridge.stall(false));
        let signal = |signal| cluster.signal(kind.server(), signal);
        let go_on = || {
            signal(Signal::CONT);
            cluster.wait();
        };
        owes_and_pays(&node, &bed, "paused", &|| signal(Signal::STOP), &go_on);
        let killed = std::cell::RefCell::new(None);
        let kill = || drop(killed.replace(Some(cluster.kill(kind.server()))));
        let start = || {
            cluster.start(killed.borrow().as_ref().unwrap());
            cluster.wait();
        };
        owes_and_pays(&node, &bed, "killed", &kill, &start);
    }
}

/// Stopped and resumed at a moment within the verb, over and over.
#[test]
fn pauses_within_add_and_del_leave_nothing_behind() {
    let cluster = Cluster::own();
    let rounds = if e2e::bins::full() { 40 } else { 5 };
    for kind in Kind::BOTH {
        let (bed, node) = node(&cluster, kind, "pauses");
        let network = network(&bed, &node);
        let plugin = network.config(&network.plugins[0], None);
        for round in 0..rounds {
            let ns = bed.netns(&format!("pod-{round}"));
            let pod = Attachment::new(ns.name(), &ns);
            for verb in ["ADD", "DEL"] {
                let running = network.start(verb, &plugin, &pod);
                std::thread::sleep(Duration::from_millis(4 + 5 * round as u64));
                cluster.signal(kind.server(), Signal::STOP);
                std::thread::sleep(Duration::from_millis(700));
                cluster.signal(kind.server(), Signal::CONT);
                finish(running).result().unwrap_or_else(|e| panic!("{kind:?} {verb} {round}: {e}"));
            }
            assert_eq!(node.given(), 0, "{kind:?} round {round}");
        }
        kernel_is_clean(&bed.host);
    }
}

/// Kills of the server within ADD and DEL: the address is given or not, never lost.
#[test]
fn kills_within_add_and_del_leave_nothing_behind() {
    let cluster = Cluster::own();
    let (rounds, step) = if e2e::bins::full() { (20, 9) } else { (2, 40) };
    for kind in Kind::BOTH {
        let (bed, node) = node(&cluster, kind, "kills");
        let network = network(&bed, &node);
        let plugin = network.config(&network.plugins[0], None);
        for round in 0..rounds {
            let ns = bed.netns(&format!("pod-{round}"));
            let pod = Attachment::new(ns.name(), &ns);
            let killed_within = |verb: &str| {
                let running = network.start(verb, &plugin, &pod);
                std::thread::sleep(Duration::from_millis(6 + step * round));
                let killed = cluster.kill(kind.server());
                let answer = finish(running).result();
                let told = answer.as_ref().map_or_else(ToString::to_string, |_| "served".into());
                println!("{kind:?} {verb} {round}: {told}");
                (answer, killed)
            };
            let again = |killed: &Killed| {
                cluster.start(killed);
                cluster.wait();
            };
            let (added, killed) = killed_within("ADD");
            if let Err(failure) = &added {
                assert_eq!(failure.code(), Some(11), "{kind:?} {round}: {failure}");
                network.del(&pod).unwrap();
            }
            again(&killed);
            network.add(&pod).unwrap();
            assert_eq!(node.given(), 2, "{kind:?} round {round}");
            let (deleted, killed) = killed_within("DEL");
            deleted.unwrap_or_else(|e| panic!("{kind:?} DEL {round}: {e}"));
            kernel_is_clean(&bed.host);
            again(&killed);
            network.del(&pod).unwrap();
            assert_eq!(node.given(), 0, "{kind:?} round {round}");
        }
    }
}

/// A Calico that keeps its data in `projectcalico.org/v3` resources: v1 is history.
#[test]
fn a_cluster_of_v3_resources_is_left_alone() {
    let cluster = Cluster::own();
    let (bed, node) = node(&cluster, Kind::Kubernetes, "native");
    let network = network(&bed, &node);
    let spaces = ["one", "two"].map(|tail| bed.netns(tail));
    let [one, two] = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns));
    network.add(&one).unwrap();
    let crd = |group: &str, plural: &str, kind: &str, version: &str| {
        let schema =
            json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        let names = json!({"plural": plural, "kind": kind, "listKind": format!("{kind}List"), "singular": kind.to_lowercase()});
        let versions = json!([{"name": version, "served": true, "storage": true, "schema": schema}]);
        let spec = json!({"group": group, "scope": "Cluster", "names": names, "versions": versions});
        let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")}, "spec": spec});
        cluster.api("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", Some(&crd));
        let list = format!("/apis/{group}/{version}/{plural}");
        e2e::bed::wait_for("the resource is served", || cluster.api("GET", &list, None)["items"].is_array());
        list
    };
    let migrations =
        crd("migration.projectcalico.org", "datastoremigrations", "DatastoreMigration", "v1beta1");
    let mut migration = json!({"apiVersion": "migration.projectcalico.org/v1beta1", "kind": "DatastoreMigration",
        "metadata": {"name": "m"}, "status": {"phase": "Pending"}});
    cluster.api("POST", &migrations, Some(&migration));
    network.add(&two).unwrap();
    network.del(&two).unwrap();
    migration = json!({"status": {"phase": "Migrating"}});
    cluster.api("PATCH", &format!("{migrations}/m"), Some(&migration));
    let refused = network.add(&two).unwrap_err();
    assert!(refused.code() == Some(11) && refused.to_string().contains("Migrating"), "{refused}");
    cluster.api("DELETE", &format!("{migrations}/m"), None);
    crd("projectcalico.org", "ipamblocks", "IPAMBlock", "v3");
    let refused = network.add(&two).unwrap_err();
    assert!(refused.code() == Some(11) && refused.to_string().contains("projectcalico.org/v3"), "{refused}");
    assert_eq!(network.status().unwrap_err().code(), Some(50));
    network.del(&one).unwrap();
    kernel_is_clean(&bed.host);
    assert_eq!(node.given(), 2, "nothing of v1 was written");
}

// REQ: C-14
#[test]
fn another_cluster_on_the_same_host_is_an_error_that_names_both() {
    let (bed, node) = node(&Cluster::shared(), Kind::Kubernetes, "two");
    let mut network = network(&bed, &node);
    let ns = bed.netns("pod");
    let pod = Attachment::new(ns.name(), &ns);
    network.add(&pod).unwrap();
    let etcd = Node::join(&node.cluster, Kind::Etcd, &bed);
    let first = network.plugins[0].clone();
    network.plugins[0] = etcd.plugin(&bed);
    let refused = network.add(&pod).unwrap_err();
    let both = [Kind::Etcd, Kind::Kubernetes].map(|kind| node.cluster.store(kind).identity());
    assert_eq!(refused.code(), Some(7), "{refused}");
    assert!(both.iter().all(|identity| refused.to_string().contains(identity)), "{refused}");
    network.plugins[0] = first;
    network.del(&pod).unwrap();
}

#[test]
fn the_server_is_found_by_its_name_and_the_context_by_the_environment() {
    let (bed, node) = node(&Cluster::shared(), Kind::Kubernetes, "named");
    let url = format!("https://localhost:{}", node.bridge.port());
    let text = node.kubeconfig(&url).replace("current-context: testbed", "current-context: nothing");
    let empty = bed.write("empty", "apiVersion: v1\nkind: Config\n");
    std::fs::write(bed.path("kubeconfig"), text).unwrap();
    let mut network = network(&bed, &node);
    network.plugins[0]["kubernetes"] = json!({});
    network.plugins[0]["datastore_type"] = json!("kubernetes");
    let files = format!("{}:{}", empty.display(), bed.path("kubeconfig").display());
    network.env = vec![("KUBECONFIG".into(), files)];
    let ns = bed.netns("pod");
    let pod = Attachment::new(ns.name(), &ns);
    assert!(network.add(&pod).is_err());
    network.env.push(("CALICO_K8S_CURRENT_CONTEXT".into(), "testbed".into()));
    network.add(&pod).unwrap();
    network.del(&pod).unwrap();
    assert_eq!(node.given(), 0);
}

/// A pool of the administrator's with a form of its own in each store is the same pool.
#[test]
fn a_full_pool_is_told_with_its_cure() {
    for kind in Kind::BOTH {
        let (bed, node) = node(&Cluster::shared(), kind, "full");
        let tiny = json!({"cidr": format!("192.0.2.{}/31", 2 * (kind as u8)), "blockSize": 31, "nodeSelector": "all()"});
        let name = format!("{}-tiny", node.name);
        node.cluster.put(kind, &key("ippools", &name), Some(resource("IPPool", &name, tiny)));
        let mut network = network(&bed, &node);
        network.plugins[0]["ipam"]["ipv4_pools"] = json!([name]);
        network.plugins[0]["ipam"]["assign_ipv6"] = json!("false");
        let spaces = ["one", "two", "three"].map(|tail| bed.netns(tail));
        let pods = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns));
        pods[..2].iter().for_each(|pod| drop::<Value>(network.add(pod).unwrap()));
        let refused = network.add(&pods[2]).unwrap_err();
        assert_eq!(refused.code(), Some(101), "{kind:?}: {refused}");
        network.del(&pods[0]).unwrap();
        network.add(&pods[2]).unwrap();
        pods[1..].iter().for_each(|pod| network.del(pod).unwrap());
    }
}
