use super::*;
use crate::documents;
use model::store::{Entry, Stop};
use serde_json::json;

fn wanted(text: &str) -> Vec<Wish> {
    documents::parse("f", text).unwrap().into_iter().map(|d| super::super::wish(d).unwrap()).collect()
}

/// A view in which everything is known: these objects, and nothing else.
fn view(objects: &[(&str, Value)]) -> View {
    let mut view = View::new();
    let entry = |(key, value): &(&str, Value)| Entry {
        key: (*key).to_owned(),
        value: serde_json::to_vec(value).unwrap(),
        revision: 7,
    };
    view.put_list("/", objects.iter().map(entry).collect());
    view
}

fn stamp() -> Stamp {
    Stamp { time: "2026-01-02T03:04:05Z".into(), chance: vec![[0xff; 16]; 10] }
}

fn run(view: &View, text: &str, how: How) -> Result<(Vec<Write>, Vec<String>), String> {
    match plan(view, &wanted(text), how, &stamp()) {
        Ok(Plan::Commit(writes, lines)) => Ok((writes, lines)),
        Ok(Plan::Done(lines)) => Ok((Vec::new(), lines)),
        Ok(Plan::Step(writes)) => Ok((writes, Vec::new())),
        Err(Stop::Fail(refusal)) => Err(refusal.to_string()),
        Err(Stop::Need(queries)) => panic!("{queries:?}"),
    }
}

fn pool(name: &str, cidr: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: '{cidr}'}}\n"
    )
}

const POOL_KEY: &str = "/calico/resources/v3/projectcalico.org/ippools/p";

#[test]
fn a_new_object_gets_an_identity_and_calicos_defaults() {
    let (writes, lines) = run(&view(&[]), &pool("p", "FD00:0::/48"), How::Apply).unwrap();
    assert_eq!(lines, ["ippool/p created"]);
    assert_eq!((writes[0].key.as_str(), writes[0].expect), (POOL_KEY, Expect::Absent));
    let stored: Value = serde_json::from_slice(writes[0].value.as_ref().unwrap()).unwrap();
    let metadata = json!({"name": "p", "uid": "ffffffff-ffff-4fff-bfff-ffffffffffff", "creationTimestamp": "2026-01-02T03:04:05Z"});
    assert_eq!(stored["metadata"], metadata);
    let spec = json!({"cidr": "fd00::/48", "blockSize": 122, "ipipMode": "Never", "vxlanMode": "Never", "nodeSelector": "all()"});
    assert_eq!(stored["spec"], spec);
}

#[test]
fn what_is_written_can_be_read_by_the_allocator() {
    use model::Stored;
    let (writes, _) = run(&view(&[]), &pool("p", "10.0.0.0/16"), How::Apply).unwrap();
    let pool = model::IpPool::decode(&writes[0].key, writes[0].value.as_ref().unwrap()).unwrap();
    assert_eq!(pool.spec.block_prefix(), Some(26));
}

#[test]
fn an_update_keeps_identity_status_and_unknown_members() {
    let stored = json!({"metadata": {"name": "p", "uid": "u"}, "status": {"conditions": []},
        "spec": {"cidr": "10.0.0.0/16", "blockSize": 26, "future": 1}});
    let text = pool("p", "10.0.0.0/16")
        .replace("}\n", ", natOutgoing: true}\n")
        .replace("{name: p, natOutgoing: true}", "{name: p}");
    let (writes, lines) = run(&view(&[(POOL_KEY, stored)]), &text, How::Apply).unwrap();
    assert_eq!(lines, ["ippool/p changed"]);
    assert_eq!(writes[0].expect, Expect::At(7));
    let new: Value = serde_json::from_slice(writes[0].value.as_ref().unwrap()).unwrap();
    assert_eq!(
        (&new["metadata"]["uid"], &new["spec"]["future"], &new["spec"]["natOutgoing"]),
        (&json!("u"), &json!(1), &json!(true))
    );
    assert_eq!(new["status"], json!({"conditions": []}));
}

#[test]
fn applying_the_same_twice_writes_once() {
    let (writes, _) = run(&view(&[]), &pool("p", "10.0.0.0/16"), How::Apply).unwrap();
    let stored = serde_json::from_slice(writes[0].value.as_ref().unwrap()).unwrap();
    let again = run(&view(&[(POOL_KEY, stored)]), &pool("p", "10.0.0.0/16"), How::Apply).unwrap();
    assert_eq!(again, (vec![], vec!["ippool/p unchanged".to_owned()]));
}

#[test]
fn a_change_that_would_undo_another_is_refused() {
    let stored = json!({"metadata": {"name": "p"}, "spec": {"cidr": "10.0.0.0/16"}});
    let text = pool("p", "10.0.0.0/16").replace("{name: p}", "{name: p, resourceVersion: '6'}");
    let error = run(&view(&[(POOL_KEY, stored)]), &text, How::Apply).unwrap_err();
    assert!(error.contains("metadata.resourceVersion: the stored object has changed"), "{error}");
}

#[test]
fn existence_decides_for_create_and_replace() {
    let stored = json!({"metadata": {"name": "p"}, "spec": {"cidr": "10.0.0.0/16"}});
    let full = view(&[(POOL_KEY, stored)]);
    let text = pool("p", "10.0.0.0/16");
    assert!(run(&full, &text, How::Create).unwrap_err().contains("exists already"));
    assert_eq!(run(&full, &text, How::CreateMissing).unwrap().1, ["ippool/p skipped: it exists"]);
    assert!(run(&view(&[]), &text, How::Replace).unwrap_err().contains("does not exist"));
}

#[test]
fn network_and_block_size_of_a_pool_are_for_good() {
    let stored = json!({"metadata": {"name": "p"}, "spec": {"cidr": "10.0.0.0/16", "blockSize": 26}});
    let full = view(&[(POOL_KEY, stored)]);
    let error = run(&full, &pool("p", "10.1.0.0/16"), How::Apply).unwrap_err();
    assert!(error.contains("spec.cidr: cannot change from 10.0.0.0/16"), "{error}");
    let text = pool("p", "10.0.0.0/16").replace("/16'", "/16', blockSize: 28");
    assert!(run(&full, &text, How::Apply).unwrap_err().contains("spec.blockSize: cannot change from 26"));
}

#[test]
fn pools_that_overlap_are_refused_wherever_the_other_one_is() {
    let stored = json!({"metadata": {"name": "q"}, "spec": {"cidr": "10.0.0.0/8"}});
    let full = view(&[("/calico/resources/v3/projectcalico.org/ippools/q", stored)]);
    let error = run(&full, &pool("p", "10.1.0.0/16"), How::Apply).unwrap_err();
    assert_eq!(error, "f document 1: ippool/p: spec.cidr: 10.1.0.0/16 overlaps pool q (10.0.0.0/8)");
    let both = pool("a", "10.0.0.0/16") + &pool("b", "10.0.1.0/24");
    assert!(
        run(&view(&[]), &both, How::Create)
            .unwrap_err()
            .contains("f document 2: ippool/b: spec.cidr: 10.0.1.0/24 overlaps pool a")
    );
}

#[test]
fn a_pool_over_blocks_of_another_size_is_refused() {
    let full = view(&[("/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-28", json!({}))]);
    assert!(
        run(&full, &pool("p", "10.0.0.0/16"), How::Create)
            .unwrap_err()
            .contains("block 10.0.0.0/28 of another size")
    );
    let text = pool("p", "10.0.0.0/16").replace("/16'", "/16', blockSize: 28");
    assert!(run(&full, &text, How::Create).is_ok());
}

#[test]
fn one_bad_document_stops_the_file_and_all_reasons_are_told() {
    let text = pool("a", "10.0.0.0/16") + &pool("b", "10.1.0.1/16") + &pool("c", "x");
    let error = run(&view(&[]), &text, How::Apply).unwrap_err();
    assert_eq!(error.lines().count(), 2, "{error}");
    assert!(
        error.contains("f document 2: ippool/b: spec.cidr: ")
            && error.contains("f document 3: ippool/c: spec.cidr: ")
    );
}

#[test]
fn a_locked_store_takes_only_the_key_to_its_lock() {
    let info = json!({"metadata": {"name": "default"}, "spec": {"datastoreReady": false}});
    let locked = view(&[("/calico/resources/v3/projectcalico.org/clusterinformations/default", info)]);
    assert!(run(&locked, &pool("p", "10.0.0.0/16"), How::Apply).unwrap_err().contains("the store is locked"));
    let unlock = "apiVersion: projectcalico.org/v3\nkind: ClusterInformation\nmetadata: {name: default}\nspec: {datastoreReady: true}";
    assert!(run(&locked, unlock, How::Apply).is_ok());
}

#[test]
fn damaged_objects_can_be_replaced() {
    let mut view = view(&[]);
    view.put(POOL_KEY, Some(Entry { key: POOL_KEY.into(), value: b"{garbage".to_vec(), revision: 9 }));
    let (writes, _) = run(&view, &pool("p", "10.0.0.0/16"), How::Apply).unwrap();
    assert_eq!(writes[0].expect, Expect::At(9));
}
