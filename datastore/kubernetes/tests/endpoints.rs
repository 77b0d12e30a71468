//! Pods as Calico's workload endpoints.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use datastore::{CommitError, Store};
use model::endpoint::{CONTAINER_ID, POD_IP, POD_IPS, key};
use model::store::Expect;
use model::{Stored as _, WorkloadEndpoint};
use serde_json::{Value, json};
use support::{Bed, commit, commit_error, delete, get, open, put, soon};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn make(bed: &Bed, name: &str) -> Value {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "none",
            "ports": [{"name": "http", "containerPort": 8080}]}]},
    });
    let made = bed.api("POST", PODS, Some(&pod));
    assert!(made["metadata"]["uid"].is_string(), "{made}");
    made
}

fn key_of(pod: &str) -> String {
    key("default", &format!("node--1-k8s-{}-eth0", pod.replace('-', "--")))
}

fn read(store: &dyn Store, key: &str) -> WorkloadEndpoint {
    let entry = get(store, key).unwrap_or_else(|| panic!("{key}"));
    WorkloadEndpoint::decode(key, &entry.value).unwrap()
}

#[test]
fn an_endpoint_is_a_view_of_its_pod_and_writing_it_notes_its_addresses_there() {
    let bed = Bed::shared();
    let pod = make(&bed, "wep-0");
    let store = open(&bed.plugin_config());
    let key = key_of("wep-0");
    let mut endpoint = read(&store, &key);
    assert_eq!((endpoint.spec.pod.as_str(), endpoint.spec.ports[0].port), ("wep-0", 8080));
    assert_eq!(endpoint.metadata.labels["projectcalico.org/namespace"], "default");
    assert!(endpoint.spec.ip_networks.is_empty());
    endpoint.spec.set_addresses(["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()));
    endpoint.spec.container_id = "c1".to_owned();
    let value = String::from_utf8(endpoint.encode()).unwrap();
    commit(&store, &[put(&key, Expect::Any, &value)]);
    let noted = bed.api("GET", &format!("{PODS}/wep-0"), None);
    let annotations = &noted["metadata"]["annotations"];
    assert_eq!(annotations[POD_IP], "10.0.0.1/32");
    assert_eq!(annotations[POD_IPS], "10.0.0.1/32,fd00::1/128");
    assert_eq!(annotations[CONTAINER_ID], "c1");
    assert_eq!(noted["spec"], pod["spec"]);
    assert_eq!(read(&store, &key).spec.ip_networks, ["10.0.0.1/32", "fd00::1/128"]);

    endpoint.metadata.uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    let value = String::from_utf8(endpoint.encode()).unwrap();
    let other = store.commit(&[put(&key, Expect::Any, &value)], soon());
    assert!(matches!(other, Err(CommitError::Conflict { .. })), "the UID is another pod's: {other:?}");

    let seen = get(&store, &key).unwrap().revision;
    let stale = store.commit(&[delete(&key, Expect::At(seen - 1))], soon());
    assert!(matches!(stale, Err(CommitError::Conflict { .. })), "{stale:?}");
    commit(&store, &[delete(&key, Expect::At(seen))]);
    let blanked = bed.api("GET", &format!("{PODS}/wep-0"), None);
    let annotations = &blanked["metadata"]["annotations"];
    assert_eq!((&annotations[POD_IP], &annotations[POD_IPS]), (&json!(""), &json!("")));
    assert_eq!(annotations[CONTAINER_ID], "c1", "it tells a late deletion of an older container apart");
    assert!(read(&store, &key).spec.ip_networks.is_empty());
}

#[test]
fn other_nodes_interfaces_and_pods_have_no_endpoint() {
    let bed = Bed::shared();
    make(&bed, "wep-1");
    let store = open(&bed.plugin_config());
    for name in ["node--2-k8s-wep--1-eth0", "node--1-k8s-wep--1-net1", "node--1-k8s-gone-eth0"] {
        assert_eq!(get(&store, &key("default", name)), None, "{name}");
    }
    let gone = key_of("gone");
    commit(&store, &[delete(&gone, Expect::Any)]);
    let refused = commit_error(&store, &[put(&key_of("wep-1"), Expect::Absent, "{}")]);
    assert!(refused.to_string().contains("made with its pod"), "{refused}");
    let plain = key("default", "node--1-cni-c1-eth0");
    assert!(store.get(&[&plain], soon()).is_err());
    let all = bed.open().list("/calico/resources/v3/projectcalico.org/workloadendpoints/", soon()).unwrap();
    assert!(all.iter().any(|entry| entry.key == key_of("wep-1")));
}
