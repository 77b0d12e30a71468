//! What administrators of a cluster, and years of data in its store, ask of the allocator: on a real etcd and a
//! real API server, through the plugin and `percalectl`.

#![allow(clippy::unwrap_used)]

#[path = "cluster_stores/site.rs"]
mod site;

use e2e::clean::kernel_is_clean;
use e2e::cluster::{Cluster, Kind, key, percalectl, resource};
use e2e::cnirun::address;
use e2e::netns::Netns;
use e2e::{Attachment, Network};
use ipnet::IpNet;
use serde_json::{Value, json};
use site::{NETWORK, Site, items};
use std::net::IpAddr;

/// A network that takes its addresses from this pool of /31 blocks, which is made here.
fn of_pool<'s>(site: &'s Site, name: &str, cidr: &str) -> Network<'s> {
    let spec = json!({"cidr": cidr, "blockSize": 31, "nodeSelector": "all()"});
    site.put(&key("ippools", name), Some(resource("IPPool", name, spec)));
    let mut network = site.network();
    network.plugins[0]["ipam"]["ipv4_pools"] = json!([name]);
    network
}

fn pods<const N: usize>(site: &Site) -> ([Netns; N], [Attachment; N]) {
    let spaces: [Netns; N] = std::array::from_fn(|n| site.bed.netns(&format!("pod-{n}")));
    let pods = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns));
    (spaces, pods)
}

fn told(site: &Site, args: &[&str]) -> String {
    let out = percalectl(&site.bed, &site.node, args, "");
    let [told, why] = [&out.stdout, &out.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(out.status.success(), "{:?}: {args:?}: {told}{why}", site.node.kind);
    told
}

/// Addresses in use in a network.
fn in_use(site: &Site, net: &str) -> usize {
    let net: IpNet = net.parse().unwrap();
    let of = |block: &Value| block["cidr"].as_str().unwrap().parse::<IpNet>().is_ok_and(|b| net.contains(&b));
    let blocks = site.list("/calico/ipam/v2/assignment/").into_iter().filter(|(_, block)| of(block));
    let used =
        |block: &Value| block["allocations"].as_array().unwrap().iter().filter(|a| !a.is_null()).count();
    blocks.map(|(_, block)| used(&block)).sum()
}

// REQ: A-04
#[test]
fn a_host_has_no_more_blocks_than_the_cluster_allows() {
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let site = Site::new(&cluster, kind, "limit");
        let network = of_pool(&site, "few", "10.201.0.0/24");
        told(&site, &["ipam", "configure", "--strictaffinity", "true", "--max-blocks-per-host", "1"]);
        let (_spaces, pods) = pods::<3>(&site);
        pods[..2].iter().for_each(|pod| drop(network.add(pod).unwrap()));
        let refused = network.add(&pods[2]).unwrap_err();
        assert_eq!(refused.code(), Some(101), "{kind:?}: {refused}");
        assert!(refused.to_string().contains("limit is 1"), "{kind:?}: {refused}");
        // It is each host's own.
        let other = Site::new(&cluster, kind, "limit2");
        let mut theirs = other.network();
        theirs.plugins[0]["ipam"]["ipv4_pools"] = json!(["few"]);
        let ns = other.bed.netns("pod");
        let pod = Attachment::new(ns.name(), &ns);
        theirs.add(&pod).unwrap();
        theirs.del(&pod).unwrap();
        told(&site, &["ipam", "configure", "--max-blocks-per-host", "2"]);
        network.add(&pods[2]).unwrap();
        pods.iter().for_each(|pod| network.del(pod).unwrap());
        assert_eq!(in_use(&site, "10.201.0.0/24"), 0, "{kind:?}");
        kernel_is_clean(&site.bed.host);
    }
}

// REQ: A-05
// REQ: A-06
#[test]
fn empty_blocks_of_a_node_that_is_gone_are_given_up_though_others_are_in_use_and_the_pool_is_gone() {
    const POOL: &str = "10.202.0.0/24";
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let (site, gone) = (Site::new(&cluster, kind, "stays"), Site::new(&cluster, kind, "gone"));
        let network = of_pool(&gone, "doomed", POOL);
        let (_spaces, mut pods) = pods::<4>(&gone);
        pods[0] = pods[0].clone().with_args(&gone.node.make_pod("lives"));
        let ips = pods.each_ref().map(|pod| address(&network.add(pod).unwrap(), true));
        pods[1..].iter().for_each(|pod| network.del(pod).unwrap());
        assert_eq!(gone.claims().len(), 2, "{kind:?}: an empty block is kept for the next pod");
        // Neither by us: kubectl deletes the pool, and a node goes without a word.
        gone.put(&key("ippools", "doomed"), None);
        match kind {
            Kind::Etcd => gone.put(&key("nodes", &gone.node.name), None),
            Kind::Kubernetes => {
                cluster.api("DELETE", &format!("/api/v1/nodes/{}", gone.node.name), None);
            }
        }
        let (report, status) = site.check(false);
        assert_eq!(status, Some(2), "{kind:?}: {report:#}");
        assert!(items(&report, "orphan_affinities", "node").contains(&gone.node.name.as_str()), "{report:#}");
        let (report, _) = site.check(true);
        assert_eq!(report["fixed"]["freed"], json!([]), "{kind:?}: the pod lives: {report:#}");
        let claims = gone.claims();
        let used = gone.block_of(ips[0]);
        assert!(
            claims.iter().all(|(key, _)| used.0.ends_with(key.rsplit('/').next().unwrap())),
            "{claims:?}"
        );
        assert_eq!(in_use(&gone, POOL), 1, "{kind:?}");
        network.del(&pods[0]).unwrap();
        assert_eq!(in_use(&gone, POOL), 0, "{kind:?}");
        site.check(true);
        assert_eq!((site.check(false).1, gone.claims().len()), (Some(0), 0), "{kind:?}");
        kernel_is_clean(&gone.bed.host);
    }
}

/// Three addresses as releases of long ago left them: two whose owner's name has what was read from host-local's
/// file behind it, and an object without the members that are optional.
fn put_old_data(site: &Site, names: &[String; 3]) -> IpNet {
    let pool = site.list(&key("ippools", &site.node.pool("v4"))).remove(0).1;
    let cidr = pool["spec"]["cidr"].as_str().unwrap().replace(".0/24", ".32/28");
    let (dashes, node) = (cidr.replace(['.', '/'], "-"), &site.node.name);
    let ids = names.each_ref().map(|name| format!("{NETWORK}.{name}"));
    let handles = [format!("{}\r\neth0", ids[0]), format!("{}\r\neth0", ids[1]), ids[2].clone()];
    let mut allocations = vec![Value::Null; 16];
    (0..3).for_each(|n| allocations[n] = json!(n));
    let mut block = json!({
        "cidr": cidr, "affinity": format!("host:{node}"), "allocations": allocations,
        "unallocated": (3..16).collect::<Vec<_>>(),
        "attributes": handles.each_ref().map(|handle| json!({"handle_id": handle, "secondary": {"node": node}})),
    });
    let counted = json!({&cidr: 1});
    match site.node.kind {
        Kind::Etcd => {
            let tail = cidr.replace('/', "-");
            site.put(
                &format!("/calico/ipam/v2/host/{node}/ipv4/block/{tail}"),
                Some(json!({"state": "confirmed"})),
            );
            site.put(&format!("/calico/ipam/v2/assignment/ipv4/block/{tail}"), Some(block));
            for id in &ids {
                site.put(&format!("/calico/ipam/v2/handle/{id}"), Some(json!({"block": counted})));
            }
        }
        Kind::Kubernetes => {
            block["strictAffinity"] = json!(false);
            // As 3.18 makes it: without the labels of later releases.
            let claim = json!({"state": "confirmed", "node": node, "cidr": cidr, "deleted": "false"});
            let mut objects = vec![
                ("blockaffinities", "BlockAffinity", format!("{node}-{dashes}"), claim),
                ("ipamblocks", "IPAMBlock", dashes, block),
            ];
            objects.extend(ids.map(|id| {
                let spec = json!({"handleID": id, "block": counted});
                ("ipamhandles", "IPAMHandle", id, spec)
            }));
            for (plural, of, name, spec) in objects {
                let object = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": of,
                    "metadata": {"name": name}, "spec": spec});
                let path = format!("/apis/crd.projectcalico.org/v1/{plural}");
                let made = site.cluster.api("POST", &path, Some(&object));
                assert!(made["metadata"]["uid"].is_string(), "{made}");
            }
        }
    }
    cidr.parse().unwrap()
}

// REQ: A-07
// REQ: A-08
#[test]
fn what_old_releases_left_is_found_used_and_released() {
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "old");
        let network = site.network();
        let names = ["early", "listed", "bare"].map(|name| format!("{name}-{}", site.node.name));
        let block = put_old_data(&site, &names);
        let (_spaces, [new, stands_in]) = pods::<2>(&site);
        let of = |name: &str| Attachment { container: name.to_owned(), ..stands_in.clone() }.without_netns();
        let first: IpAddr = block.network();
        assert!(told(&site, &["ipam", "show", "--ip", &first.to_string()]).contains(&names[0]), "{kind:?}");
        let given = address(&network.add(&new).unwrap(), true);
        assert!(block.contains(&given), "{kind:?}: its claim counts, as old as it is: {given}");
        assert_eq!(site.node.given(), 4);
        network.del(&of(&names[0])).unwrap();
        assert_eq!(site.node.given(), 3, "{kind:?}: its DEL says the name alone");
        let freed = told(&site, &["ipam", "release", "--handle", &format!("{NETWORK}.{}", names[1])]);
        assert!(freed.contains("freed"), "{kind:?}: {freed}");
        network.del(&of(&names[2])).unwrap();
        network.check(&new).unwrap();
        network.del(&new).unwrap();
        assert_eq!(site.node.given(), 0, "{kind:?}");
        let handles = site.list("/calico/ipam/v2/handle/");
        let left: Vec<_> =
            handles.iter().filter(|(key, _)| names.iter().any(|name| key.ends_with(name))).collect();
        assert!(left.is_empty(), "{kind:?}: {left:?}");
        kernel_is_clean(&site.bed.host);
    }
}

/// Kubernetes takes no `_` in a name, so there is no object of the handle; etcd has one.
#[test]
fn a_network_whose_name_no_kubernetes_object_can_have() {
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "under");
        let mut network = site.network();
        network.name = "my_net".to_owned();
        let (_spaces, [one, two]) = pods::<2>(&site);
        let result = network.add(&one).unwrap();
        assert_eq!(network.add(&one).unwrap(), result, "{kind:?}: a repeated ADD is answered alike");
        network.add(&two).unwrap();
        assert_eq!(site.node.given(), 2, "{kind:?}");
        [&one, &two].iter().for_each(|pod| network.check(pod).unwrap());
        network.del(&one.without_netns()).unwrap();
        assert_eq!(site.node.given(), 1, "{kind:?}");
        network.gc(&[]).unwrap();
        assert_eq!(site.node.given(), 0, "{kind:?}");
        kernel_is_clean(&site.bed.host);
    }
}

/// Written by a release of the future, or by nobody we know: read, never rewritten.
#[test]
fn a_block_with_state_that_nobody_here_knows_is_left_as_it_is() {
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "future");
        let network = site.network();
        let (_spaces, [one, two]) = pods::<2>(&site);
        let ip = address(&network.add(&one).unwrap(), true);
        let (key, sound) = site.block_of(ip);
        let mut newer = sound.clone();
        newer["leases"] = json!([{"ordinal": 0, "until": "2030-01-01T00:00:00Z"}]);
        site.put(&key, Some(newer));
        let newer = site.block_of(ip).1;
        let second = address(&network.add(&two).unwrap(), true);
        assert_ne!(site.block_of(second).0, key, "{kind:?}: from another block");
        network.check(&one).unwrap();
        let (report, status) = site.check(true);
        assert_eq!(status, Some(2), "{kind:?}: {report:#}");
        assert!(report["damaged"].to_string().contains("its member leases is not known"), "{report:#}");
        network.del(&one).unwrap();
        assert_eq!(site.block_of(ip).1, newer, "{kind:?}: the release is owed");
        kernel_is_clean_of(&site, ip);
        site.put(&key, Some(sound));
        network.del(&two).unwrap();
        assert_eq!(site.node.given(), 0, "{kind:?}: and paid once the block can be written");
        kernel_is_clean(&site.bed.host);
    }
}

/// The host routes the address no more.
fn kernel_is_clean_of(site: &Site, ip: IpAddr) {
    let routes = site.bed.host.ip(&["-4", "route", "show", &ip.to_string()]);
    assert!(routes.is_empty(), "{routes:?}");
}

fn label(site: &Site, rack: &str) {
    let labels = json!({"rack": rack});
    match site.node.kind {
        Kind::Etcd => {
            let mut node = resource("Node", &site.node.name, json!({}));
            node["metadata"]["labels"] = labels;
            site.put(&key("nodes", &site.node.name), Some(node));
        }
        Kind::Kubernetes => {
            let path = format!("/api/v1/nodes/{}", site.node.name);
            site.cluster.api("PATCH", &path, Some(&json!({"metadata": {"labels": labels}})));
        }
    }
}

// REQ: A-01
// REQ: C-15
#[test]
fn a_node_s_labels_choose_its_pools_and_a_block_of_another_rack_is_given_up() {
    let cluster = Cluster::own();
    for kind in Kind::BOTH {
        let site = Site::new(&cluster, kind, "rack");
        site.put(&key("ippools", &site.node.pool("v4")), None);
        for (name, cidr, rack) in [("a-first", "10.203.0.0/24", "r2"), ("b-second", "10.204.0.0/24", "r1")] {
            let spec = json!({"cidr": cidr, "blockSize": 28, "nodeSelector": format!("rack == '{rack}'")});
            site.put(&key("ippools", name), Some(resource("IPPool", name, spec)));
        }
        let mut network = site.network();
        network.plugins[0]["ipam"] = json!({"type": "percale-ipam"});
        let (_spaces, [one, two]) = pods::<2>(&site);
        let refused = network.add(&one).unwrap_err();
        assert_eq!(refused.code(), Some(101), "{kind:?}: no pool is for it: {refused}");
        label(&site, "r1");
        let ip = address(&network.add(&one).unwrap(), true).to_string();
        assert!(ip.starts_with("10.204.0."), "{kind:?}: {ip}");
        label(&site, "r2");
        let ip = address(&network.add(&two).unwrap(), true).to_string();
        assert!(ip.starts_with("10.203.0."), "{kind:?}: {ip}");
        network.check(&one).unwrap();
        assert_eq!(site.claims().len(), 2, "{kind:?}");
        network.del(&one).unwrap();
        let left: Vec<String> = site.claims().into_iter().map(|(key, _)| key).collect();
        assert!(left.len() == 1 && left[0].contains("10.203.0."), "{kind:?}: {left:?}");
        network.del(&two).unwrap();
        kernel_is_clean(&site.bed.host);
        for name in ["a-first", "b-second"] {
            site.put(&key("ippools", name), None);
        }
    }
}

/// A DEL that could not reach the store, and no call of a runtime after it.
#[test]
fn a_release_that_is_owed_is_finished_by_hand() {
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "owed");
        let network = site.network();
        let (_spaces, [pod]) = pods::<1>(&site);
        network.add(&pod).unwrap();
        site.node.bridge.refuse(true);
        network.del(&pod).unwrap();
        kernel_is_clean(&site.bed.host);
        site.node.bridge.refuse(false);
        assert_eq!(site.node.given(), 1, "{kind:?}");
        let (report, status) = site.check(false);
        assert_eq!(status, Some(2), "{kind:?}: {report:#}");
        assert!(
            report["owed_releases"][0].as_str().unwrap().contains(&pod.container),
            "{kind:?}: {report:#}"
        );
        site.check(true);
        assert_eq!(site.node.given(), 0, "{kind:?}");
    }
}
