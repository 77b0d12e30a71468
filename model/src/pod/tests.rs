use super::*;
use crate::Family;
use crate::endpoint::of_pod;
use serde_json::json;

fn pod(annotations: Value) -> Pod {
    let value = json!({
        "metadata": {"namespace": "default", "name": "web-0", "uid": "u1", "labels": {"app": "web"},
                     "generateName": "web-", "annotations": annotations},
        "spec": {"nodeName": "node-1", "serviceAccountName": "runner", "containers": [
            {"ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81},
                       {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                       {"name": "odd", "containerPort": 9, "protocol": "ICMP"}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}, {"ip": "fd00::9"}]},
    });
    Pod::decode(&key("default", "web-0"), value.to_string().as_bytes()).unwrap()
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn an_endpoint_is_derived_from_the_pod() {
    let endpoint =
        of_pod(&pod(json!({"cni.projectcalico.org/floatingIPs": "[\"192.0.2.1\"]"})), "eth0").unwrap();
    let value = serde_json::to_value(&endpoint).unwrap();
    assert_eq!(
        value,
        json!({
            "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
            "metadata": {"name": "node--1-k8s-web--0-eth0", "namespace": "default", "creationTimestamp": null,
                "generateName": "web-", "labels": {"app": "web", "projectcalico.org/namespace": "default",
                    "projectcalico.org/orchestrator": "k8s", "projectcalico.org/serviceaccount": "runner"}},
            "spec": {"orchestrator": "k8s", "node": "node-1", "pod": "web-0", "endpoint": "eth0",
                "serviceAccountName": "runner", "ipNetworks": ["10.0.0.9/32", "fd00::9/128"],
                "ipNATs": [{"internalIP": "10.0.0.9", "externalIP": "192.0.2.1"}],
                "profiles": ["kns.default", "ksa.default.runner"], "interfaceName": endpoint.spec.interface_name,
                "ports": [{"name": "http", "protocol": "TCP", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}]},
        })
    );
}

#[test]
fn noted_addresses_come_before_those_of_the_kubelet_and_blanked_ones_are_none() {
    assert_eq!(pod(json!({})).addresses(), ips(&["10.0.0.9", "fd00::9"]));
    let noted = pod(
        json!({"cni.projectcalico.org/podIP": "10.0.0.1/32", "cni.projectcalico.org/podIPs": "10.0.0.1/32,fd00::1/128"}),
    );
    assert_eq!(noted.addresses(), ips(&["10.0.0.1", "fd00::1"]));
    let blanked = pod(json!({"cni.projectcalico.org/podIP": "", "cni.projectcalico.org/podIPs": ""}));
    assert_eq!((blanked.addresses(), blanked.noted_addresses()), (vec![], Some(vec![])));
}

#[test]
fn finished_and_host_network_pods_have_no_endpoint() {
    let mut done = pod(json!({}));
    done.phase = "Succeeded".to_owned();
    assert!(done.addresses().is_empty());
    let mut host = pod(json!({}));
    host.host_network = true;
    assert_eq!(of_pod(&host, "eth0"), None);
    let mut waiting = pod(json!({}));
    waiting.node.clear();
    assert_eq!(of_pod(&waiting, "eth0"), None);
}

#[test]
fn a_static_pod_is_known_by_the_uid_of_its_file() {
    let mirror = pod(json!({"kubernetes.io/config.mirror": "abc"}));
    assert!(mirror.has_uid("u1") && mirror.has_uid("abc") && !mirror.has_uid("u2"));
}

// REQ: C-15
#[test]
fn wishes_of_the_pod_come_before_those_of_its_namespace() {
    let namespace = Namespace {
        name: "default".into(),
        annotations: [("ipv4pools", r#"["a","10.1.0.0/16"]"#), ("ipv6pools", r#"["six"]"#)]
            .map(|(k, v)| (format!("cni.projectcalico.org/{k}"), v.to_owned()))
            .into(),
        ..Namespace::default()
    };
    let all = pod(json!({
        "cni.projectcalico.org/ipv4pools": r#"["b"]"#, "cni.projectcalico.org/ipAddrs": r#"["10.0.0.5", "FD00::0:5"]"#,
        "cni.projectcalico.org/floatingIPs": r#"["192.0.2.1","2001:db8::1"]"#, "cni.projectcalico.org/hwAddr": "1c:0c:0a:c0:ff:ee",
        "cni.projectcalico.org/allowedSourcePrefixes": r#"["198.51.100.0/24","8.8.8.8"]"#,
        "cni.projectcalico.org/ipFamilies": r#"["IPv6"]"#,
    }));
    let found = wishes(&all, Some(&namespace)).unwrap();
    assert_eq!((found.pools(Family::V4), found.pools(Family::V6)), (&["b".into()][..], &["six".into()][..]));
    assert_eq!(
        (found.addresses, found.floating),
        (ips(&["10.0.0.5", "fd00::5"]), ips(&["192.0.2.1", "2001:db8::1"]))
    );
    assert_eq!((found.mac.as_deref(), found.families), (Some("1c:0c:0a:c0:ff:ee"), vec![Family::V6]));
    assert_eq!(
        found.source_prefixes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["198.51.100.0/24", "8.8.8.8/32"]
    );
    assert_eq!(wishes(&pod(json!({})), Some(&namespace)).unwrap().ipv4_pools, ["a", "10.1.0.0/16"]);
    assert_eq!(wishes(&pod(json!({})), None).unwrap(), Wishes::default());
}

// REQ: C-15
#[test]
fn errors_name_the_annotation_and_whose_it_is() {
    let cases = [
        ("ipv4pools", "pool-a", "is no JSON list of strings"),
        ("ipv6pools", "[]", "is specified but empty"),
        ("ipAddrs", r#"["10.0.0.1","10.0.0.2"]"#, "has more than one IPv4 address"),
        ("ipAddrs", r#"["10.0.0.256"]"#, "has \"10.0.0.256\", which is no IP address"),
        ("ipAddrsNoIpam", r#"["fd00::1","fd00::2"]"#, "has more than one IPv6 address"),
        ("floatingIPs", r#"[7]"#, "is no JSON list of strings"),
        ("allowedSourcePrefixes", r#"["all"]"#, "has \"all\", which is no network"),
        ("ipFamilies", r#"["v4"]"#, "use IPv4 and IPv6"),
    ];
    for (name, text, why) in cases {
        let name = format!("cni.projectcalico.org/{name}");
        let error = wishes(&pod(json!({&name: text})), None).unwrap_err().to_string();
        assert!(
            error.contains(&name) && error.contains("pod default/web-0") && error.contains(why),
            "{error}"
        );
    }
    let both = json!({"cni.projectcalico.org/ipAddrs": r#"["10.0.0.1"]"#, "cni.projectcalico.org/ipAddrsNoIpam": r#"["10.0.0.1"]"#});
    assert!(wishes(&pod(both), None).unwrap_err().to_string().contains("ipAddrsNoIpam"));
    let many = serde_json::to_string(&vec!["10.0.0.1"; 1001]).unwrap();
    assert!(wishes(&pod(json!({"cni.projectcalico.org/floatingIPs": many})), None).is_err());
}

#[test]
fn pods_of_any_size_and_content_are_read_without_a_panic() {
    let ports: Vec<Value> = (1..5001).map(|n| json!({"name": format!("p{n}"), "containerPort": n})).collect();
    let labels: BTreeMap<String, String> = (0..5000).map(|n| (format!("l{n}"), "x".repeat(200))).collect();
    let value = json!({"metadata": {"labels": labels, "annotations": {
            "cni.projectcalico.org/podIPs": "10.0.0.1,".repeat(10_000), "cni.projectcalico.org/floatingIPs": "[".repeat(100_000)}},
        "spec": {"nodeName": "n", "containers": [{"ports": ports}]}});
    let big = Pod::decode(&key("d", "p"), value.to_string().as_bytes()).unwrap();
    assert_eq!((big.addresses().len(), big.ports.len()), (64, 5000));
    assert!(wishes(&big, None).is_err());
    let endpoint = of_pod(&big, "eth0").unwrap();
    assert_eq!((endpoint.spec.ports.len(), endpoint.metadata.labels.len()), (5000, 5002));
    for wrong in [
        json!(null),
        json!([]),
        json!({"metadata": 7}),
        json!({"spec": {"containers": [null]}}),
        json!({"spec": {"containers": [{"ports": [{"containerPort": 70000}]}]}}),
        json!({"status": {"podIPs": [7]}}),
    ] {
        let _ = Pod::decode(&key("d", "p"), wrong.to_string().as_bytes());
        assert_eq!(Pod::from_value(&wrong).is_some(), wrong == json!([]), "{wrong}");
    }
    let huge = vec![b' '; crate::decode::MAX_VALUE + 1];
    assert!(
        Pod::decode(&key("d", "p"), &huge).is_err()
            && Namespace::decode("/kubernetes/namespaces/d", &huge).is_err()
    );
}
