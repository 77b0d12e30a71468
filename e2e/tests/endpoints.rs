//! Workload endpoints, and all that a pod of Kubernetes says about its network: on a real etcd and a real
//! API server, through the shipped binaries.

#![allow(clippy::unwrap_used)]

#[path = "endpoints/site.rs"]
mod site;

use e2e::clean::kernel_is_clean;
use e2e::cluster::{Cluster, Counting, Kind, key, resource};
use e2e::cnirun::{address, addresses};
use e2e::{Attachment, Network};
use serde_json::{Value, json};
use site::{Site, code, text};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PREFIX: &str = "cni.projectcalico.org/";

#[test]
fn an_endpoint_in_etcd_has_calicos_form() {
    let site = Site::new(&Cluster::shared(), Kind::Etcd, "form");
    let network = site.without_policy();
    let ns = site.bed.netns("pod");
    let pod = Attachment::new(ns.name(), &ns).with_args(&site.args("by-name", None));
    let result = network.add(&pod).unwrap();
    let key = site.endpoint_key("by-name", "eth0");
    let mut stored = site.stored(&key).unwrap();
    let metadata = stored["metadata"].as_object_mut().unwrap();
    assert_eq!(metadata.remove("uid").unwrap().as_str().unwrap().len(), 36);
    assert!(metadata.remove("creationTimestamp").unwrap().as_str().unwrap().ends_with('Z'));
    let ips: Vec<String> = addresses(&result).iter().map(ToString::to_string).collect();
    let [host_end, pod_end] = [0, 1].map(|i| result["interfaces"][i].clone());
    assert_eq!(
        stored,
        json!({
            "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": site.endpoint_name("by-name", "eth0"), "namespace": "default",
                "labels": {"projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"},
                "annotations": {"percale.io/network": "k8s-pod-network"}},
            "spec": {"orchestrator": "k8s", "node": site.node.name, "containerID": pod.container, "pod": "by-name",
                "endpoint": "eth0", "ipNetworks": [format!("{}/32", ips[0]), format!("{}/128", ips[1])],
                "profiles": ["k8s-pod-network"], "interfaceName": host_end["name"], "mac": pod_end["mac"]},
        })
    );
    let profile = site.stored("/calico/resources/v3/projectcalico.org/profiles/k8s-pod-network").unwrap();
    assert_eq!(profile["spec"]["labelsToApply"], json!({"k8s-pod-network": ""}));
    assert_eq!(profile["spec"]["ingress"][0]["action"], "Allow");
    network.check(&pod).unwrap();
    let mut spoilt = site.stored(&key).unwrap();
    spoilt["spec"]["containerID"] = json!("another");
    site.put(&key, Some(spoilt.clone()));
    let found = network.check(&pod).unwrap_err();
    assert_eq!((found.code(), text(&found).contains("container another")), (Some(103), true), "{found}");
    spoilt["spec"]["containerID"] = json!(pod.container);
    spoilt["spec"]["unknown"] = json!({"kept": true});
    site.put(&key, Some(spoilt));
    assert_eq!(network.add(&pod).unwrap(), result, "a repeated ADD is answered alike");
    assert_eq!(site.stored(&key).unwrap()["spec"]["unknown"]["kept"], true, "what others keep there stays");
    network.del(&pod).unwrap();
    assert_eq!(site.stored(&key), None);
    site.is_empty();
}

#[test]
fn a_plain_container_in_etcd_is_of_the_orchestrator_cni() {
    let site = Site::new(&Cluster::shared(), Kind::Etcd, "plain");
    let network = site.without_policy();
    let ns = site.bed.netns("pod");
    let container = Attachment::new(ns.name(), &ns);
    network.add(&container).unwrap();
    let name = format!("{}-cni-{}-eth0", double(&site.node.name), double(&container.container));
    let key = format!("/calico/resources/v3/projectcalico.org/workloadendpoints/default/{name}");
    let stored = site.stored(&key).unwrap();
    assert_eq!(stored["metadata"]["labels"]["projectcalico.org/orchestrator"], "cni");
    assert_eq!(stored["spec"]["containerID"], json!(container.container));
    assert_eq!(stored["spec"].get("pod"), None);
    network.check(&container).unwrap();
    network.del(&container).unwrap();
    assert_eq!(site.stored(&key), None);
    site.is_empty();
}

fn double(text: &str) -> String {
    text.replace('-', "--")
}

// REQ: C-09
// REQ: C-15
#[test]
fn labels_ports_and_floating_addresses_of_both_families_come_from_the_pod() {
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "floating");
        let mut network = site.network();
        network.plugins[0]["feature_control"] = json!({"floating_ips": true});
        let made = site.make_pod(
            "web",
            json!({
                format!("{PREFIX}floatingIPs"): r#"["192.0.2.7","2001:DB8::0:7"]"#,
                format!("{PREFIX}hwAddr"): "1c:0c:0a:c0:ff:ee",
                format!("{PREFIX}allowedSourcePrefixes"): r#"["198.51.100.0/24"]"#,
            }),
        );
        let ns = site.bed.netns("pod");
        let pod = Attachment::new(ns.name(), &ns).with_args(&site.args("web", Some(&made)));
        let result = network.add(&pod).unwrap();
        let [v4, v6] = [true, false].map(|family| address(&result, family).to_string());
        assert_eq!(result["interfaces"][1]["mac"], "1c:0c:0a:c0:ff:ee");
        let endpoint = site.stored(&site.endpoint_key("web", "eth0")).unwrap();
        assert_eq!(
            endpoint["metadata"]["labels"],
            json!({"app": "web", "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s",
                   "projectcalico.org/serviceaccount": "default"})
        );
        let mut wanted = json!({
            "orchestrator": "k8s", "node": site.node.name, "containerID": pod.container, "pod": site.pod_name("web"),
            "endpoint": "eth0", "serviceAccountName": "default",
            "ipNetworks": [format!("{v4}/32"), format!("{v6}/128")],
            "ipNATs": [{"internalIP": v4, "externalIP": "192.0.2.7"}, {"internalIP": v6, "externalIP": "2001:db8::7"}],
            "profiles": ["kns.default", "ksa.default.default"], "interfaceName": result["interfaces"][0]["name"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "allowSpoofedSourcePrefixes": ["198.51.100.0/24"],
        });
        if kind == Kind::Etcd {
            wanted["mac"] = json!("1c:0c:0a:c0:ff:ee");
        } else {
            let noted = &site.pod("web")["metadata"]["annotations"];
            assert_eq!(noted[format!("{PREFIX}podIP")], json!(format!("{v4}/32")));
            assert_eq!(noted[format!("{PREFIX}podIPs")], json!(format!("{v4}/32,{v6}/128")));
            assert_eq!(noted[format!("{PREFIX}containerID")], json!(pod.container));
        }
        assert_eq!(endpoint["spec"], wanted, "{kind:?}");
        network.check(&pod).unwrap();
        network.del(&pod).unwrap();
        match kind {
            Kind::Etcd => assert_eq!(site.stored(&site.endpoint_key("web", "eth0")), None),
            Kind::Kubernetes => {
                let noted = &site.pod("web")["metadata"]["annotations"];
                assert_eq!(noted[format!("{PREFIX}podIPs")], "");
                assert_eq!(noted[format!("{PREFIX}containerID")], json!(pod.container), "it stays");
            }
        }
        site.is_empty();
    }
}

// REQ: C-15
#[test]
fn annotations_choose_pools_and_addresses() {
    let cluster = Cluster::shared();
    let site = Site::new(&cluster, Kind::Kubernetes, "choose");
    let mut network = site.network();
    network.plugins[0]["feature_control"] = json!({"ip_addrs_no_ipam": true});
    let (other, third) = (site.add_pool("other", json!({})), site.add_pool("third", json!({})));
    network.plugins[0]["ipam"] = json!({"type": "percale-ipam"});
    let namespace = site.make_namespace(
        json!({"team": "red"}),
        json!({
            format!("{PREFIX}ipv4pools"): json!([other.name]).to_string(),
        }),
    );
    let lease = |network: &Network, name: &str, annotations: Value| {
        let made = site.make_pod_in(&namespace, name, annotations);
        let ns = site.bed.netns(name);
        let pod = Attachment::new(ns.name(), &ns).with_args(&site.args_in(&namespace, name, Some(&made)));
        let result = network.add(&pod).unwrap();
        network.check(&pod).unwrap();
        (addresses(&result), pod, ns)
    };
    let (ips, first, _ns) = lease(&network, "of-namespace", json!({}));
    assert!(other.has(ips[0]) && ips.len() == 1, "{ips:?}");
    let (ips, second, _ns) =
        lease(&network, "of-pod", json!({format!("{PREFIX}ipv4pools"): json!([third.cidr]).to_string()}));
    assert!(third.has(ips[0]), "{ips:?}");
    let exact = third.address(77);
    let (ips, exactly, _ns) =
        lease(&network, "exact", json!({format!("{PREFIX}ipAddrs"): json!([exact]).to_string()}));
    assert_eq!(ips, [exact]);
    let (ips, free, _ns) = lease(
        &network,
        "free",
        json!({
            format!("{PREFIX}ipAddrsNoIpam"): r#"["203.0.113.9","2001:db8:5::9"]"#,
        }),
    );
    assert_eq!(ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["203.0.113.9", "2001:db8:5::9"]);
    for pod in [&first, &second, &exactly, &free] {
        network.del(pod).unwrap();
    }
    kernel_is_clean(&site.bed.host);
    assert_eq!(site.allocations(), 0);
}

// REQ: C-15
#[test]
fn a_pool_that_selects_namespaces_serves_their_pods() {
    let site = Site::new(&Cluster::shared(), Kind::Kubernetes, "select");
    let mut network = site.network();
    // Pools are tried in the order of their names.
    let spec =
        json!({"cidr": "10.199.0.0/24", "namespaceSelector": "team == 'blue'", "nodeSelector": "all()"});
    site.put(&key("ippools", "a-team"), Some(resource("IPPool", "a-team", spec)));
    network.plugins[0]["ipam"] = json!({"type": "percale-ipam"});
    let namespace = site.make_namespace(json!({"team": "blue"}), json!({}));
    let made = site.make_pod_in(&namespace, "web", json!({}));
    let ns = site.bed.netns("pod");
    let pod = Attachment::new(ns.name(), &ns).with_args(&site.args_in(&namespace, "web", Some(&made)));
    let ips = addresses(&network.add(&pod).unwrap());
    assert!(ips[0].to_string().starts_with("10.199.0."), "{ips:?}");
    network.del(&pod).unwrap();
    assert_eq!(site.allocations(), 0);
    site.is_empty();
}

// REQ: C-15
#[test]
fn annotations_that_cannot_be_followed_are_named_and_leave_nothing() {
    let site = Site::new(&Cluster::shared(), Kind::Kubernetes, "wrong");
    let network = site.network();
    let cases = [
        ("ipv4pools", "pool", 7, "no JSON list"),
        ("ipv4pools", r#"["no-such-pool"]"#, 7, "no-such-pool"),
        ("ipv6pools", "[]", 7, "empty"),
        ("ipAddrs", r#"["10.0.0.1","10.0.0.2"]"#, 7, "more than one IPv4"),
        ("ipAddrs", r#"["192.0.2.200"]"#, 102, "192.0.2.200"),
        ("ipAddrsNoIpam", r#"["192.0.2.200"]"#, 7, "feature_control.ip_addrs_no_ipam"),
        ("floatingIPs", r#"["192.0.2.200"]"#, 7, "feature_control.floating_ips"),
        ("hwAddr", "01:00:00:00:00:01", 7, "hwAddr"),
        ("allowedSourcePrefixes", r#"["everywhere"]"#, 7, "everywhere"),
    ];
    let ns = site.bed.netns("pod");
    for (n, (name, value, wanted, why)) in cases.into_iter().enumerate() {
        let pod_name = format!("wrong-{n}");
        let made = site.make_pod(&pod_name, json!({format!("{PREFIX}{name}"): value}));
        let pod = Attachment::new(ns.name(), &ns).with_args(&site.args(&pod_name, Some(&made)));
        let failed = network.add(&pod).unwrap_err();
        assert_eq!(failed.code(), Some(wanted), "{name}={value}: {failed}");
        assert!(text(&failed).contains(why), "{name}={value}: {failed}");
        site.is_empty();
    }
}

#[test]
fn a_late_del_of_an_older_container_touches_nothing_of_the_newer() {
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "stale");
        let network = site.network();
        let made = site.make_pod("web", json!({}));
        let args = site.args("web", Some(&made));
        let spaces = ["old", "new"].map(|tail| site.bed.netns(tail));
        let [old, new] = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns).with_args(&args));
        network.add(&old).unwrap();
        let result = network.add(&new).unwrap();
        assert_eq!(site.node.given(), 4, "{kind:?}: the older keeps its addresses until its DEL");
        network.del(&old).unwrap();
        network.check(&new).unwrap();
        assert_eq!(site.node.given(), 2, "{kind:?}");
        let endpoint = site.stored(&site.endpoint_key("web", "eth0")).unwrap();
        assert_eq!(endpoint["spec"]["containerID"], json!(new.container));
        assert_eq!(endpoint["spec"]["ipNetworks"].as_array().unwrap().len(), 2);
        assert_eq!(network.add(&new).unwrap(), result);
        network.del(&new).unwrap();
        network.del(&old).unwrap();
        site.is_empty();
    }
}

#[test]
fn a_pod_made_again_under_its_name_is_told_apart_by_its_uid() {
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "again");
        let network = site.network();
        let before = site.make_pod("db-0", json!({}));
        let spaces = ["old", "new"].map(|tail| site.bed.netns(tail));
        let old = Attachment::new(spaces[0].name(), &spaces[0]).with_args(&site.args("db-0", Some(&before)));
        network.add(&old).unwrap();
        site.delete_pod("db-0");
        let after = site.make_pod("db-0", json!({}));
        let late = Attachment { container: format!("{}-late", old.container), ..old.clone() };
        let refused = network.add(&late).unwrap_err();
        assert_eq!(refused.code(), Some(11), "{kind:?}: {refused}");
        assert!(text(&refused).contains("another one by now"), "{refused}");
        let new = Attachment::new(spaces[1].name(), &spaces[1]).with_args(&site.args("db-0", Some(&after)));
        network.add(&new).unwrap();
        network.del(&old).unwrap();
        network.del(&late).unwrap();
        network.check(&new).unwrap();
        assert_eq!(site.node.given(), 2, "{kind:?}");
        site.delete_pod("db-0");
        let gone = network.add(&late).unwrap_err();
        assert_eq!(gone.code(), Some(11), "{gone}");
        network.del(&new).unwrap();
        network.del(&late).unwrap();
        site.is_empty();
    }
}

#[test]
fn an_address_that_a_pod_asks_for_passes_from_its_former_container_to_the_next() {
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "former");
        let network = site.network();
        let asked = site.node_address(9);
        let made = site.make_pod("web", json!({format!("{PREFIX}ipAddrs"): json!([asked]).to_string()}));
        let args = site.args("web", Some(&made));
        let spaces = ["old", "new"].map(|tail| site.bed.netns(tail));
        let [old, new] = spaces.each_ref().map(|ns| Attachment::new(ns.name(), ns).with_args(&args));
        assert_eq!(addresses(&network.add(&old).unwrap()), [asked]);
        assert_eq!(addresses(&network.add(&new).unwrap()), [asked], "{kind:?}");
        network.del(&old).unwrap();
        network.check(&new).unwrap();
        network.del(&new).unwrap();
        site.is_empty();
    }
}

#[test]
fn two_attachments_of_a_pod_have_each_their_own() {
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "two");
        let network = site.network();
        let made = site.make_pod("web", json!({}));
        let ns = site.bed.netns("pod");
        let first = Attachment::new(ns.name(), &ns).with_args(&site.args("web", Some(&made)));
        let second = first.clone().named("net1");
        let result = network.add(&first).unwrap();
        network.add(&second).unwrap();
        for at in [&first, &second] {
            network.check(at).unwrap();
        }
        assert_eq!(site.stored(&site.endpoint_key("web", "net1")).is_some(), kind == Kind::Etcd, "{kind:?}");
        network.del(&second).unwrap();
        network.check(&first).unwrap();
        let endpoint = site.stored(&site.endpoint_key("web", "eth0")).unwrap();
        assert_eq!(endpoint["spec"]["ipNetworks"][0], json!(format!("{}/32", address(&result, true))));
        network.del(&first).unwrap();
        site.is_empty();
    }
}

// REQ: C-02
#[test]
fn gc_collects_endpoints_that_no_lease_tells_of() {
    let site = Site::new(&Cluster::shared(), Kind::Etcd, "gc");
    let mut network = site.network();
    network.plugins[0]["feature_control"] = json!({"ip_addrs_no_ipam": true});
    let spaces = ["lost", "kept"].map(|tail| site.bed.netns(tail));
    let pods: Vec<Attachment> = spaces
        .iter()
        .enumerate()
        .map(|(n, ns)| {
            let name = format!("web-{n}");
            let ip = json!([format!("203.0.113.{}", 20 + n)]).to_string();
            let made = site.make_pod(&name, json!({format!("{PREFIX}ipAddrsNoIpam"): ip}));
            Attachment::new(ns.name(), ns).with_args(&site.args(&name, Some(&made)))
        })
        .collect();
    pods.iter().for_each(|pod| drop(network.add(pod).unwrap()));
    network.gc(&[&pods[1]]).unwrap();
    let endpoint = |n: usize| site.stored(&site.endpoint_key(&format!("web-{n}"), "eth0"));
    assert!(endpoint(0).is_none() && endpoint(1).is_some());
    network.check(&pods[1]).unwrap();
    network.name = "another".to_owned();
    network.gc(&[]).unwrap();
    assert!(endpoint(1).is_some(), "it is of another network");
    network.name = "k8s-pod-network".to_owned();
    network.del(&pods[1]).unwrap();
    assert!(endpoint(1).is_none());
    site.is_empty();
}

// REQ: C-18
#[test]
fn a_pod_that_calico_made_is_checked_added_again_and_deleted() {
    for kind in Kind::BOTH {
        let site = Site::new(&Cluster::shared(), kind, "adopt");
        let network = site.calico();
        let made = site.make_pod("web", json!({}));
        let ns = site.bed.netns("pod");
        let pod = Attachment::new(ns.name(), &ns).with_args(&site.args("web", Some(&made)));
        let previous = site.as_calico_made(&pod, "web", &ns);
        assert_eq!(site.node.given(), 2);
        let config = |prev: &Value| network.config(&network.plugins[0], Some(prev));
        network.exec("CHECK", &config(&previous), &pod).result().unwrap();
        let mut wrong = previous.clone();
        wrong["ips"][0]["address"] = json!("192.0.2.1/32");
        assert_eq!(code(&network.exec("CHECK", &config(&wrong), &pod)), Some(103));
        let result = network.add(&pod).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        assert_eq!(site.node.given(), 2, "{kind:?}: the same addresses");
        let ips = |result: &Value| addresses(result);
        assert_eq!(ips(&result), ips(&previous));
        network.check(&pod).unwrap();
        let endpoint = site.stored(&site.endpoint_key("web", "eth0")).unwrap();
        assert_eq!(endpoint["spec"]["containerID"], json!(pod.container));
        network.del(&pod).unwrap();
        site.is_empty();

        let other = site.bed.netns("untouched");
        let made = site.make_pod("as-it-was", json!({}));
        let pod = Attachment::new(other.name(), &other).with_args(&site.args("as-it-was", Some(&made)));
        site.as_calico_made(&pod, "as-it-was", &other);
        network.del(&pod).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        assert_eq!(site.node.given(), 0, "{kind:?}: its addresses are free");
        site.is_empty();
    }
}

// REQ: C-11
#[test]
fn a_pool_that_is_full_is_an_error_with_a_cure_and_leaves_nothing() {
    let site = Site::new(&Cluster::shared(), Kind::Kubernetes, "full");
    let mut network = site.network();
    let tiny = site.add_pool("tiny", json!({"size": 31}));
    network.plugins[0]["ipam"] = json!({"type": "percale-ipam", "ipv4_pools": [tiny.name]});
    let pods: Vec<(Attachment, _)> = (0..3)
        .map(|n| {
            let name = format!("web-{n}");
            let made = site.make_pod(&name, json!({}));
            let ns = site.bed.netns(&name);
            (Attachment::new(ns.name(), &ns).with_args(&site.args(&name, Some(&made))), ns)
        })
        .collect();
    network.add(&pods[0].0).unwrap();
    network.add(&pods[1].0).unwrap();
    let full = network.add(&pods[2].0).unwrap_err();
    assert_eq!(full.code(), Some(101), "{full}");
    assert!(text(&full).contains(&tiny.cidr), "{full}");
    assert_eq!(site.pod("web-2")["metadata"]["annotations"].get(format!("{PREFIX}podIP")), None);
    network.del(&pods[0].0).unwrap();
    network.add(&pods[2].0).unwrap();
    pods.iter().for_each(|(pod, _)| network.del(pod).unwrap());
    site.is_empty();
    assert_eq!(site.allocations(), 0);
}

#[test]
fn an_owed_release_takes_the_endpoint_along() {
    let site = Site::new(&Cluster::shared(), Kind::Kubernetes, "owed");
    let proxy = Counting::before(&site.node, &site.bed);
    let network = site.network();
    let made = site.make_pod("web", json!({}));
    let ns = site.bed.netns("pod");
    let pod = Attachment::new(ns.name(), &ns).with_args(&site.args("web", Some(&made)));
    network.add(&pod).unwrap();
    proxy.refuse(&[503; 1000]);
    let mut slow = network.config(&network.plugins[0], None);
    slow["del_timeout"] = json!(3);
    network.exec("DEL", &slow, &pod).result().unwrap();
    proxy.refuse(&[]);
    let ip = format!("{PREFIX}podIP");
    assert_ne!(site.pod("web")["metadata"]["annotations"][&ip], "");
    // Another container's call carries it out, without a word of this pod.
    let other = Attachment { container: format!("{}-other", pod.container), ..pod.clone() }.with_args("");
    network.del(&other).unwrap();
    assert_eq!(site.pod("web")["metadata"]["annotations"][&ip], "");
    site.is_empty();
}

#[test]
fn gates_and_policy_are_waited_for() {
    let site = Site::new(&Cluster::shared(), Kind::Kubernetes, "gates");
    let mut network = site.network();
    let made = site.make_pod("web", json!({}));
    let ns = site.bed.netns("pod");
    let pod = Attachment::new(ns.name(), &ns).with_args(&site.args("web", Some(&made)));
    // In the node's namespace: first not ready, then ready.
    let listener = site.bed.host.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("http://{}/readiness", listener.local_addr().unwrap());
    network.plugins[0]["readiness_gates"] = json!([url]);
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, is_closed) = (asked.clone(), Arc::new(AtomicBool::new(false)));
    let closed_now = is_closed.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let first = count.fetch_add(1, Ordering::SeqCst) == 0;
            let ready = !first && !closed_now.load(Ordering::SeqCst);
            let status = if ready { "204 No Content" } else { "503 Not yet" };
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.1 {status}\r\n\r\n");
        }
    });
    let status = site.bed.path("endpoint-status");
    std::fs::create_dir_all(&status).unwrap();
    network.plugins[0]["endpoint_status_dir"] = json!(status);
    network.plugins[0]["policy_setup_timeout_seconds"] = json!(20);
    network.plugins[0]["num_queues"] = json!(3);
    let file = status.join(format!("k8s default%2F{} eth0", site.pod_name("web")));
    let agent = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1500));
        std::fs::write(file, "").unwrap();
    });
    let begun = Instant::now();
    let result = network.add(&pod).unwrap();
    assert!(asked.load(Ordering::SeqCst) >= 2);
    agent.join().unwrap();
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1400) && took < Duration::from_secs(19), "{took:?}");
    let links = site.bed.host.ip(&["-d", "link", "show", result["interfaces"][0]["name"].as_str().unwrap()]);
    assert_eq!((&links[0]["num_tx_queues"], &links[0]["num_rx_queues"]), (&json!(3), &json!(3)), "{links:?}");
    network.del(&pod).unwrap();
    network.plugins[0]["add_timeout"] = json!(3);
    is_closed.store(true, Ordering::SeqCst);
    let closed = network.add(&pod).unwrap_err();
    assert_eq!((closed.code(), text(&closed).contains(&url)), (Some(11), true), "{closed}");
    network.plugins[0]["readiness_gates"] = json!(["https://localhost/"]);
    assert_eq!(network.add(&pod).unwrap_err().code(), Some(7));
    network.del(&pod).unwrap();
    site.is_empty();
}

#[test]
fn an_add_in_the_steady_state_writes_three_objects() {
    let site = Site::new(&Cluster::shared(), Kind::Kubernetes, "writes");
    let proxy = Counting::before(&site.node, &site.bed);
    let mut network = site.network();
    network.plugins[0]["ipam"]["assign_ipv6"] = json!("false");
    let spaces = ["one", "two"].map(|tail| site.bed.netns(tail));
    for (ns, name) in spaces.iter().zip(["one", "two"]) {
        let made = site.make_pod(name, json!({}));
        let pod = Attachment::new(ns.name(), ns).with_args(&site.args(name, Some(&made)));
        proxy.take();
        network.add(&pod).unwrap();
        let lines = proxy.take();
        let writes: Vec<&String> = lines.iter().filter(|line| !line.starts_with("GET ")).collect();
        println!("ADD of pod {name}: {} requests, {} writes", lines.len(), writes.len());
        if name == "two" {
            assert_eq!(writes.len(), 3, "handle, block, endpoint: {lines:#?}");
            assert!(writes[2].starts_with("PATCH ") && writes[2].contains("/status"), "{writes:?}");
        }
    }
}
