//! Calico's objects: read under Calico's keys, written back without a loss; deletions half done.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use datastore::{ErrorKind, Store};
use model::store::Expect;
use model::{Affinity, AffinityState, Block, Handle, Stored as _};
use serde_json::{Value, json};
use std::path::Path;
use support::{Bed, commit, commit_error, delete, get, put, soon};

const BLOCKS: &str = "/calico/ipam/v2/assignment/ipv4/block/";

fn fixture(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/apiserver/objects").join(name);
    let all: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    all["object"].clone()
}

/// Written by Calico, read and written again here: what is in the object after that.
fn through(bed: &Bed, store: &dyn Store, plural: &str, object: &Value, key: &str) -> (Value, Value) {
    let made = bed.crd("POST", plural, Some(object));
    assert!(made["metadata"]["uid"].is_string(), "{made}");
    let entry = get(store, key).unwrap_or_else(|| panic!("{key} is not there"));
    assert_eq!(entry.revision.to_string(), made["metadata"]["resourceVersion"].as_str().unwrap());
    let value = String::from_utf8(entry.value.clone()).unwrap();
    commit(store, &[put(key, Expect::At(entry.revision), &value)]);
    let path = format!("{plural}/{}", object["metadata"]["name"].as_str().unwrap());
    let after = bed.crd("GET", &path, None);
    bed.crd("DELETE", &path, None);
    (serde_json::from_str(&value).unwrap(), after)
}

/// That `after` has all of `before`, at any depth.
fn assert_keeps(before: &Value, after: &Value, at: &str) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, member) in before {
                let kept = after.get(name).unwrap_or_else(|| panic!("{at}.{name} is lost"));
                assert_keeps(member, kept, &format!("{at}.{name}"));
            }
        }
        _ => assert_eq!(before, after, "{at}"),
    }
}

#[test]
fn what_every_release_of_calico_wrote_stays() {
    let bed = Bed::shared();
    let store = bed.open();
    let resource =
        |plural: &str, name: &str| format!("/calico/resources/v3/projectcalico.org/{plural}/{name}");
    let cases = [
        ("block-3.18.json", "ipamblocks", format!("{BLOCKS}192.168.0.0-30")),
        (
            "block-3.18-no-affinity.json",
            "ipamblocks",
            "/calico/ipam/v2/assignment/ipv6/block/fd80:24e2:f998:72d6::-126".into(),
        ),
        ("block-3.33.json", "ipamblocks", format!("{BLOCKS}192.168.0.4-30")),
        ("block-3.33-spellings.json", "ipamblocks", format!("{BLOCKS}192.168.0.8-30")),
        (
            "affinity-3.18.json",
            "blockaffinities",
            "/calico/ipam/v2/host/node1/ipv4/block/192.168.0.0-30".into(),
        ),
        (
            "affinity-3.31.json",
            "blockaffinities",
            "/calico/ipam/v2/host/node1/ipv4/block/192.168.0.4-30".into(),
        ),
        ("handle-3.18.json", "ipamhandles", "/calico/ipam/v2/handle/k8s-pod-network.0123ABCD".into()),
        ("config-3.18.json", "ipamconfigs", "/calico/ipam/v2/config".into()),
        ("config-3.33.json", "ipamconfigs", "/calico/ipam/v2/config".into()),
        ("pool-3.18.json", "ippools", resource("ippools", "default-ipv4-ippool")),
        ("pool-3.33.json", "ippools", resource("ippools", "lb")),
        ("ipreservation-3.21.json", "ipreservations", resource("ipreservations", "gateways")),
        ("clusterinformation-3.18.json", "clusterinformations", resource("clusterinformations", "default")),
    ];
    for (file, plural, key) in cases {
        let object = fixture(file);
        let (value, after) = through(&bed, &store, plural, &object, &key);
        assert_keeps(&object["spec"], &after["spec"], file);
        assert!(after["metadata"]["annotations"]["projectcalico.org/metadata"].is_string(), "{after}");
        assert!(value.get("strictAffinity").is_none() && value.get("handleID").is_none(), "{value}");
    }
}

#[test]
fn a_block_s_members_have_the_names_of_each_side() {
    let bed = Bed::shared();
    let store = bed.open();
    let mut object = fixture("block-3.33.json");
    object["metadata"]["name"] = json!("192-168-7-4-30");
    object["spec"]["cidr"] = json!("192.168.7.4/30");
    let key = format!("{BLOCKS}192.168.7.4-30");
    let (value, after) = through(&bed, &store, "ipamblocks", &object, &key);
    assert_eq!(value["affinity_claim_time"], object["spec"]["affinityClaimTime"]);
    assert!(value.get("affinityClaimTime").is_none());
    let mut block = Block::decode(&key, value.to_string().as_bytes()).unwrap();
    // Above 2^53: never through a float.
    assert_eq!(block.sequence_number, 1_777_629_600_123_456_791);
    assert_eq!(after["spec"]["sequenceNumber"], json!(1_777_629_600_123_456_791_u64));
    // Created by us: nothing that the schema refuses, and the number always.
    block.affinity = None;
    block.sequence_number = 0;
    commit(&store, &[put(&key, Expect::Absent, &String::from_utf8(block.encode()).unwrap())]);
    let made = bed.crd("GET", "ipamblocks/192-168-7-4-30", None);
    assert_eq!(
        (&made["spec"]["strictAffinity"], &made["spec"]["sequenceNumber"]),
        (&json!(false), &json!(0))
    );
    assert!(made["spec"].get("affinity").is_none());
    assert_eq!(
        made["metadata"]["annotations"]["projectcalico.org/metadata"],
        json!(r#"{"creationTimestamp":null}"#)
    );
}

#[test]
fn affinities_carry_the_labels_by_which_calico_finds_them() {
    let bed = Bed::shared();
    let store = bed.open();
    let key = "/calico/ipam/v2/host/node1/ipv6/block/fd00:7::-122";
    let value = String::from_utf8(Affinity::new(AffinityState::Pending).encode()).unwrap();
    commit(&store, &[put(key, Expect::Absent, &value)]);
    let made = bed.crd("GET", "blockaffinities/node1-fd00-7---122", None);
    let spec = json!({"cidr": "fd00:7::/122", "node": "node1", "state": "pending", "type": "host", "deleted": "false"});
    assert_eq!(made["spec"], spec);
    let labels = json!({
        "projectcalico.org/hostname-hash": "7DS2CCNJGGLTHBDQLLFO6SX24SY2YDDEG3W2VN556FA2W4DLLV5A",
        "projectcalico.org/affinity-type": "host",
        "projectcalico.org/ip-version": "6",
    });
    assert_eq!(made["metadata"]["labels"], labels);
    let value = String::from_utf8(Affinity::new(AffinityState::Confirmed).encode()).unwrap();
    let virtual_one = "/calico/ipam/v2/virtual/load-balancer/ipv4/block/10.7.0.0-26";
    commit(&store, &[put(virtual_one, Expect::Absent, &value)]);
    assert_eq!(store.keys("/calico/ipam/v2/virtual/", soon()).unwrap(), [virtual_one]);
    assert!(!store.keys("/calico/ipam/v2/host/", soon()).unwrap().iter().any(|key| key.contains("10.7.0.0")));
}

// REQ: A-08
#[test]
fn deleted_is_optional() {
    let bed = Bed::shared();
    let store = bed.open();
    for (file, plural, name, key) in [
        ("block-3.18.json", "ipamblocks", "10-7-2-0-30", format!("{BLOCKS}10.7.2.0-30")),
        ("handle-3.18.json", "ipamhandles", "optional", "/calico/ipam/v2/handle/optional".to_owned()),
    ] {
        let mut object = fixture(file);
        object["metadata"]["name"] = json!(name);
        object["spec"]["cidr"] = json!("10.7.2.0/30");
        object["spec"]["handleID"] = json!("");
        object["spec"].as_object_mut().unwrap().remove("deleted");
        let (value, after) = through(&bed, &store, plural, &object, &key);
        assert!(value.get("deleted").is_none(), "{value}");
        assert_ne!(after["spec"]["deleted"], json!(true));
    }
}

#[test]
fn a_host_s_affinities_are_found_with_and_without_their_label() {
    let bed = Bed::shared();
    let store = bed.open();
    let prefix = "/calico/ipam/v2/host/older/ipv4/block/";
    let mut old = fixture("affinity-3.18.json");
    old["metadata"]["name"] = json!("older-10-7-1-0-26");
    old["spec"]["node"] = json!("older");
    old["spec"]["cidr"] = json!("10.7.1.0/26");
    bed.crd("POST", "blockaffinities", Some(&old));
    let mut other = old.clone();
    other["metadata"]["name"] = json!("oldest-10-7-1-64-26");
    other["spec"]["node"] = json!("oldest");
    other["spec"]["cidr"] = json!("10.7.1.64/26");
    bed.crd("POST", "blockaffinities", Some(&other));
    let value = r#"{"state":"confirmed","deleted":false}"#;
    commit(&store, &[put(&format!("{prefix}10.7.0.64-26"), Expect::Absent, value)]);
    let both = [format!("{prefix}10.7.0.64-26"), format!("{prefix}10.7.1.0-26")];
    assert_eq!(store.keys(prefix, soon()).unwrap(), both);
    let found = store.list(prefix, soon()).unwrap();
    assert_eq!(found.iter().map(|entry| &entry.key).collect::<Vec<_>>(), both.iter().collect::<Vec<_>>());
    // Written again it gets its label.
    commit(&store, &[put(&both[1], Expect::At(found[1].revision), value)]);
    let made = bed.crd("GET", "blockaffinities/older-10-7-1-0-26", None);
    assert!(made["metadata"]["labels"]["projectcalico.org/hostname-hash"].is_string(), "{made}");
    assert_eq!(store.keys(prefix, soon()).unwrap(), both);
}

#[test]
fn what_others_keep_in_an_object_s_metadata_stays() {
    let bed = Bed::shared();
    let key = "/calico/ipam/v2/handle/net.labelled";
    commit(&bed.open(), &[put(key, Expect::Absent, r#"{"block":{"10.0.0.0/26":1},"deleted":false}"#)]);
    let mut made = bed.crd("GET", "ipamhandles/net.labelled", None);
    made["metadata"]["labels"] = json!({"team": "a"});
    made["metadata"]["annotations"]["note"] = json!("b");
    bed.crd("PUT", "ipamhandles/net.labelled", Some(&made));
    // By a store that has not seen it, and by one that has.
    let stores = [bed.open(), bed.open()];
    for (n, store) in stores.iter().enumerate() {
        let entry = get(&stores[1], key).unwrap();
        let value = format!(r#"{{"block":{{"10.0.0.0/26":{}}},"deleted":false}}"#, n + 2);
        commit(store, &[put(key, Expect::At(entry.revision), &value)]);
        let after = bed.crd("GET", "ipamhandles/net.labelled", None);
        assert_eq!(after["spec"]["block"]["10.0.0.0/26"], json!(n + 2));
        assert_eq!(
            (&after["metadata"]["labels"]["team"], &after["metadata"]["annotations"]["note"]),
            (&json!("a"), &json!("b"))
        );
    }
}

#[test]
fn handles_keep_their_letters_and_bad_names_are_refused_before_anything_is_written() {
    let bed = Bed::shared();
    let store = bed.open();
    let (upper, lower) = ("/calico/ipam/v2/handle/net.CaSe", "/calico/ipam/v2/handle/net.case");
    let value = r#"{"block":{"10.0.0.0/26":1},"deleted":false}"#;
    let revision = commit(&store, &[put(upper, Expect::Absent, value)]);
    let made = bed.crd("GET", "ipamhandles/net.case", None);
    assert_eq!(made["spec"]["handleID"], json!("net.CaSe"));
    assert_eq!(get(&store, upper).unwrap().revision, revision);
    assert_eq!(get(&store, lower), None);
    let error = commit_error(&store, &[put(lower, Expect::Absent, value)]);
    assert!(error.kind == ErrorKind::Invalid && error.detail.contains("net.case"), "{error}");
    for bad in ["/calico/ipam/v2/handle/net.0123\r\neth0", "/calico/ipam/v2/handle/a_b"] {
        assert_eq!(get(&store, bad), None);
        let first = "/calico/ipam/v2/handle/net.first";
        let error =
            commit_error(&store, &[put(first, Expect::Absent, value), put(bad, Expect::Absent, value)]);
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        assert_eq!(get(&store, first), None, "a commit that is refused writes nothing");
    }
}

#[test]
fn a_deletion_that_somebody_announced_counts_and_is_finished() {
    let bed = Bed::shared();
    let store = bed.open();
    let value = r#"{"block":{"10.0.0.0/26":1},"deleted":false}"#;
    let announced = |name: &str| {
        let key = format!("/calico/ipam/v2/handle/{name}");
        commit(&store, &[put(&key, Expect::Absent, value)]);
        let mut object = bed.crd("GET", &format!("ipamhandles/{name}"), None);
        object["spec"]["deleted"] = json!(true);
        bed.crd("PUT", &format!("ipamhandles/{name}"), Some(&object));
        key
    };
    let gone = |name: &str| bed.crd("GET", &format!("ipamhandles/{name}"), None)["code"] == json!(404);
    let key = announced("net.half-a");
    assert_eq!(get(&store, &key), None);
    assert!(gone("net.half-a"), "a read finishes it");
    announced("net.half-b");
    assert!(store.list("/calico/ipam/v2/handle/net.half", soon()).unwrap().is_empty());
    assert!(gone("net.half-b"), "a list finishes it");
    let key = announced("net.half-c");
    commit(&store, &[put(&key, Expect::Absent, value)]);
    assert!(get(&store, &key).is_some(), "a new one takes its place");
    let key = announced("net.half-d");
    commit(&store, &[delete(&key, Expect::Any)]);
    assert_eq!(get(&store, &key), None);
}

#[test]
fn an_object_made_anew_under_us_is_another_one() {
    let bed = Bed::shared();
    let store = bed.open();
    let key = "/calico/ipam/v2/handle/net.anew";
    let value = r#"{"block":{"10.0.0.0/26":1},"deleted":false}"#;
    let revision = commit(&store, &[put(key, Expect::Absent, value)]);
    let made = bed.crd("GET", "ipamhandles/net.anew", None);
    bed.crd("DELETE", "ipamhandles/net.anew", None);
    let object = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMHandle",
        "metadata": {"name": "net.anew"}, "spec": made["spec"]});
    bed.crd("POST", "ipamhandles", Some(&object));
    for write in [put(key, Expect::At(revision), value), delete(key, Expect::At(revision))] {
        let conflict = store.commit(&[write], soon());
        assert!(matches!(conflict, Err(datastore::CommitError::Conflict { .. })), "{conflict:?}");
    }
    let handle = get(&store, key).unwrap();
    assert_eq!(Handle::decode(key, &handle.value).unwrap().total(), 1);
}

#[test]
fn nodes_pods_and_records() {
    let bed = Bed::shared();
    let store = bed.open();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "kn", "labels": {"zone": "a"}, "annotations": {
        "projectcalico.org/IPv4Address": "10.0.0.1/24", "projectcalico.org/ASNumber": "64512",
        "projectcalico.org/labels": r#"{"rack":"1","zone":"b"}"#}}});
    bed.api("POST", "/api/v1/nodes", Some(&node));
    let key = "/calico/resources/v3/projectcalico.org/nodes/kn";
    let found = get(&store, key).unwrap();
    let node = model::Node::decode(key, &found.value).unwrap();
    assert_eq!((node.metadata.labels["zone"].as_str(), node.metadata.labels["rack"].as_str()), ("a", "1"));
    let spec = support::json(&found)["spec"].clone();
    assert_eq!(spec["bgp"], json!({"ipv4Address": "10.0.0.1/24", "asNumber": 64512}));
    assert_eq!(spec["orchRefs"], json!([{"nodeName": "kn", "orchestrator": "k8s"}]));
    assert_eq!(commit_error(&store, &[delete(key, Expect::Any)]).kind, ErrorKind::Invalid);

    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "kn", "containers": [{"name": "c", "image": "i"}]}});
    bed.api("POST", "/api/v1/namespaces/kube-system/pods", Some(&pod));
    let found = get(&store, "/kubernetes/pods/kube-system/p").unwrap();
    assert_eq!(support::json(&found)["spec"]["nodeName"], json!("kn"));
    assert_eq!(
        store.keys("/kubernetes/pods/kube-system/", soon()).unwrap(),
        ["/kubernetes/pods/kube-system/p"]
    );

    let records = [
        "/percale/ipam/sticky/a%2Fb",
        "/percale/networks/n/ipam/v2/handle/X_y",
        "/percale/networks/m/ipam/v2/config",
    ];
    for record in records {
        let revision = commit(&store, &[put(record, Expect::Absent, r#"{"a": 1}"#)]);
        assert_eq!(get(&store, record).unwrap().value, br#"{"a": 1}"#, "byte for byte");
        commit(&store, &[put(record, Expect::At(revision), "{}")]);
    }
    assert_eq!(store.keys("/percale/networks/n/", soon()).unwrap(), [records[1]]);
    assert_eq!(store.keys("/percale/", soon()).unwrap(), [records[0], records[2], records[1]]);
    commit(&store, &[delete(records[0], Expect::Any)]);
    assert_eq!(get(&store, records[0]), None);
}
