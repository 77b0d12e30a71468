//! `get`, `create`, `apply`, `replace`, `patch`, `delete` against a real store.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bed;

use bed::Bed;
use model::Stored;

const POOLS: &str = "\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: v4
spec:
  cidr: 10.91.0.0/16
  natOutgoing: true
---
# the other family
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v6}
spec: {cidr: 'FD00:91::/64', nodeSelector: \"rack == 'r1'\"}
";

fn with_pools() -> Bed {
    let bed = Bed::new().with_store();
    bed.run_with(&["apply", "-f", "-"], POOLS).exits(0);
    bed
}

#[test]
fn a_file_of_several_documents_is_applied_and_read_back_in_every_form() {
    let bed = Bed::new().with_store();
    let first = bed.run_with(&["apply", "-f", "-"], POOLS).exits(0);
    assert_eq!(first.out, "ippool/v4 created\nippool/v6 created\n");
    assert_eq!(
        bed.run_with(&["apply", "-f", "-"], POOLS).exits(0).out,
        "ippool/v4 unchanged\nippool/v6 unchanged\n"
    );

    let table = bed.run(&["get", "ippools"]).exits(0).out;
    assert_eq!(
        table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["NAME", "CIDR", "NAT", "DISABLED", "SELECTOR"]
    );
    assert!(table.contains("v6    fd00:91::/64  -     -         rack == 'r1'"), "{table}");
    assert!(bed.run(&["get", "pool", "v4", "-o", "wide"]).exits(0).out.contains("BLOCKSIZE"));

    let json = bed.run(&["get", "ippool", "v4", "-o", "json"]).exits(0).json();
    assert_eq!((&json["kind"], &json["spec"]["blockSize"]), (&"IPPool".into(), &26.into()));
    let yaml = bed.run(&["get", "ippools", "-o", "yaml"]).exits(0).out;
    assert!(yaml.contains("kind: IPPoolList") && yaml.contains("cidr: 10.91.0.0/16"), "{yaml}");
    // What is printed can be applied again, here and in another store.
    assert!(bed.run_with(&["apply", "-f", "-"], &yaml).exits(0).out.contains("ippool/v4 unchanged"));
    let other = Bed::new().with_store();
    assert!(other.run_with(&["apply", "-f", "-"], &yaml).exits(0).out.contains("ippool/v4 created"));
}

#[test]
fn the_allocator_uses_a_pool_that_was_applied() {
    let bed = Bed::new().with_store();
    bed.run_with(&["apply", "-f", "-"], &POOLS.replace("10.91.0.0/16", "10.91.0.0/16\n  blockSize: 28"))
        .exits(0);
    bed.lease("c1", &[]);
    let blocks = bed.run(&["ipam", "show", "--show-blocks", "-o", "json"]).exits(0).json();
    assert!(blocks["blocks"][0]["cidr"].as_str().unwrap().ends_with("/28"), "{blocks}");
}

#[test]
fn one_bad_document_stops_the_whole_file_and_names_the_field() {
    let bed = Bed::new().with_store();
    let bad =
        POOLS.replace("natOutgoing: true", "natOutgoign: true").replace("FD00:91::/64", "FD00:91::1/64");
    let ran = bed.run_with(&["apply", "-f", "-"], &bad).exits(1);
    assert!(
        ran.err.contains(
            "standard input document 1: ippool/v4: spec.natOutgoign: unknown field; did you mean natOutgoing?"
        ),
        "{}",
        ran.err
    );
    assert!(
        ran.err
            .contains("document 2: ippool/v6: spec.cidr: FD00:91::1/64 has host bits set; use fd00:91::/64"),
        "{}",
        ran.err
    );
    assert_eq!(bed.run(&["get", "ippools", "-o", "json"]).exits(0).json()["items"], serde_json::json!([]));
}

#[test]
fn create_replace_and_their_errors() {
    let bed = with_pools();
    let again = bed.run_with(&["create", "-f", "-"], POOLS).exits(1);
    assert!(again.err.contains("exists already"));
    assert!(bed.run_with(&["create", "--skip-exists", "-f", "-"], POOLS).exits(0).out.contains("v4 skipped"));
    let v4 = "{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: v4}, spec: {cidr: 10.91.0.0/16, disabled: true}}";
    assert_eq!(bed.run_with(&["replace", "-f", "-"], v4).exits(0).out, "ippool/v4 changed\n");
    assert!(
        bed.run_with(&["replace", "-f", "-"], &v4.replace("name: v4", "name: v5"))
            .exits(1)
            .err
            .contains("does not exist")
    );
    let moved = bed.run_with(&["apply", "-f", "-"], &v4.replace("10.91", "10.95")).exits(1);
    assert!(moved.err.contains("spec.cidr: cannot change from 10.91.0.0/16"), "{}", moved.err);
    let overlap = bed
        .run_with(&["create", "-f", "-"], &v4.replace("name: v4", "name: x").replace("/16", "/24"))
        .exits(1);
    assert!(overlap.err.contains("overlaps pool v4 (10.91.0.0/16)"), "{}", overlap.err);
}

#[test]
fn a_stale_copy_does_not_undo_a_change() {
    let bed = with_pools();
    let read = bed.run(&["get", "ippool", "v4", "-o", "yaml"]).exits(0).out;
    bed.run(&["patch", "ippool", "v4", "-p", r#"{"spec":{"disabled":true}}"#]).exits(0);
    let stale = bed
        .run_with(&["apply", "-f", "-"], &read.replace("natOutgoing: true", "natOutgoing: false"))
        .exits(1);
    assert!(stale.err.contains("metadata.resourceVersion: the stored object has changed"), "{}", stale.err);
    assert_eq!(bed.run(&["get", "ippool", "v4", "-o", "json"]).json()["spec"]["disabled"], true);
}

#[test]
fn patch_changes_members_and_checks_the_whole() {
    let bed = with_pools();
    bed.run(&["patch", "ippool", "v4", "-p", "spec: {natOutgoing: null, disabled: true}"]).exits(0);
    let spec = bed.run(&["get", "ippool", "v4", "-o", "json"]).exits(0).json()["spec"].clone();
    assert!(spec.get("natOutgoing").is_none() && spec["disabled"] == true, "{spec}");
    assert!(
        bed.run(&["patch", "ippool", "v4", "-p", r#"{"spec":{"blockSize":27}}"#])
            .exits(1)
            .err
            .contains("spec.blockSize")
    );
    bed.run(&["patch", "ippool", "v4", "-p", "5"]).exits(64);
    bed.run(&["patch", "ippool", "nope", "-p", "{}"]).exits(1);
}

#[test]
fn every_kind_can_be_written_and_read() {
    let bed = Bed::new().with_store();
    let text = "\
{kind: Node, apiVersion: projectcalico.org/v3, metadata: {name: n1, labels: {rack: r1}}, spec: {bgp: {asNumber: 64512, ipv4Address: 192.0.2.1/24}}}
---
{kind: IPReservation, apiVersion: projectcalico.org/v3, metadata: {name: r}, spec: {reservedCIDRs: [10.91.0.0/30, 10.91.0.9]}}
---
{kind: ClusterInformation, apiVersion: projectcalico.org/v3, metadata: {name: default}, spec: {clusterGUID: abc, datastoreReady: true}}
---
{kind: IPAMConfiguration, apiVersion: projectcalico.org/v3, metadata: {name: default}, spec: {strictAffinity: true, maxBlocksPerHost: 4}}
";
    bed.run_with(&["apply", "-f", "-"], text).exits(0);
    assert!(bed.run(&["get", "nodes", "-o", "wide"]).exits(0).out.contains("64512  192.0.2.1/24"));
    assert!(bed.run(&["get", "reservations"]).exits(0).out.contains("10.91.0.0/30,10.91.0.9"));
    assert!(bed.run(&["get", "clusterinformation", "default"]).exits(0).out.contains("abc"));
    assert!(bed.run(&["get", "ipamconfig"]).exits(0).out.contains("true            true                4"));
    assert!(bed.run_with(&["apply", "-f", "-"], text).exits(0).out.lines().all(|l| l.ends_with("unchanged")));
    assert!(bed.run(&["delete", "clusterinformation", "default"]).exits(1).err.contains("cannot be deleted"));
    let gone = bed.run(&["delete", "reservation", "r", "x", "--skip-not-exists"]).exits(0).out;
    assert_eq!(gone, "ipreservation/r deleted\nipreservation/x skipped: it does not exist\n");
}

#[test]
fn reservations_that_were_applied_are_honoured() {
    let bed = Bed::new().with_store();
    let text = "{kind: IPReservation, apiVersion: projectcalico.org/v3, metadata: {name: r}, spec: {reservedCIDRs: [10.91.0.0/16]}}";
    bed.run_with(&["apply", "-f", "-"], text).exits(0);
    let refused = bed.try_lease("c1", &[]).unwrap_err();
    assert!(refused.contains("no free IPv4 address"), "{refused}");
}

#[test]
fn deleting_a_pool_frees_its_empty_blocks_and_keeps_addresses_in_use() {
    let bed = with_pools();
    let ip = bed.lease("c1", &[]).to_string();
    let refused = bed.run(&["delete", "node", "n1"]).exits(1);
    assert!(refused.err.contains("1 addresses are in use on it"), "{}", refused.err);
    let gone = bed.run(&["delete", "ippool", "v4"]).exits(0).out;
    assert_eq!(gone, "ippool/v4 deleted (1 of its addresses stay in use until their pods go)\n");
    assert_eq!(bed.run(&["ipam", "show", "--ip", &ip, "-o", "json"]).exits(0).json()["in_use"], true);
    bed.run(&["ipam", "release", "--ip", &ip]).exits(0);
    bed.run(&["delete", "node", "n1"]).exits(0);
    assert_eq!(bed.run(&["ipam", "show", "-o", "json"]).exits(0).json()["pools"][0]["pool"], "v6");
}

#[test]
fn damaged_objects_are_reported_and_the_rest_is_printed() {
    let bed = with_pools();
    bed.put("/calico/resources/v3/projectcalico.org/ippools/bad", b"{garbage");
    let ran = bed.run(&["get", "ippools"]).exits(2);
    assert!(
        ran.out.contains("v4") && ran.err.contains("damaged object") && ran.err.contains("ippools/bad"),
        "{ran:?}"
    );
    bed.run(&["delete", "ippool", "bad"]).exits(0);
    bed.run(&["get", "ippools"]).exits(0);
}

#[test]
fn members_of_a_newer_calico_survive_an_edit() {
    let bed = Bed::new().with_store();
    let mut pool = model::IpPool::new(
        "p",
        model::resource::IpPoolSpec { cidr: "10.0.0.0/16".into(), ..Default::default() },
    );
    pool.spec.other.insert("future".into(), serde_json::json!({"a": 1}));
    bed.put(&pool.key(), &pool.encode());
    bed.run(&["patch", "ippool", "p", "-p", r#"{"spec":{"natOutgoing":true}}"#]).exits(0);
    let text =
        "{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: p}, spec: {cidr: 10.0.0.0/16}}";
    bed.run_with(&["apply", "-f", "-"], text).exits(0);
    let spec = bed.run(&["get", "ippool", "p", "-o", "json"]).exits(0).json()["spec"].clone();
    assert!(spec["future"]["a"] == 1 && spec.get("natOutgoing").is_none(), "{spec}");
}

#[test]
fn bad_files_are_errors_that_name_the_file() {
    let bed = Bed::new().with_store();
    for (text, wanted) in [
        ("", "holds no document"),
        ("a: b: c", "line 1"),
        ("kind: Pod", "kind: unknown kind \"Pod\""),
        ("spec: {}", "kind: missing"),
        ("- 5", "an object with kind"),
        (
            "{kind: IPPool, apiVersion: v9, metadata: {name: a/b}, spec: {cidr: 10.0.0.0/8}}",
            "apiVersion: write projectcalico.org/v3",
        ),
    ] {
        let ran = bed.run_with(&["apply", "-f", "-"], text);
        assert!(ran.code != 0 && ran.err.contains(wanted), "{text}: {ran:?}");
    }
    assert!(bed.run(&["apply", "-f", "/no/such/file"]).exits(1).err.contains("/no/such/file"));
    let twice = format!("{POOLS}---\n{POOLS}");
    assert!(
        bed.run_with(&["apply", "-f", "-"], &twice)
            .exits(1)
            .err
            .contains("is in standard input document 1 already")
    );
}

#[test]
fn writes_wait_for_the_hosts_lock() {
    let bed = Bed::new().with_store();
    let lock =
        datastore::lock::Lock::acquire(&bed.path("ipam.lock"), datastore::lock::Kind::Exclusive, bed::soon())
            .unwrap();
    let held = std::time::Instant::now();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| bed.run_with(&["apply", "-f", "-"], POOLS));
        // Long enough that a writer that ignored the lock would have finished.
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(lock);
        run.join().unwrap().exits(0);
    });
    assert!(held.elapsed() >= std::time::Duration::from_millis(300));
}
