//! `doctor` on a host of its own: a network namespace and a directory for its files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bed;

use bed::{Bed, Pod};
use serde_json::Value;

fn put(bed: &Bed, path: &str, text: &str) {
    let path = bed.path("root").join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A host with the plugin, a configuration for the bed's store, and what the kernel should say.
fn fit() -> Bed {
    let bed = Bed::with_host().with_store();
    let conf = format!(
        r#"{{"cniVersion":"1.0.0","name":"net","plugins":[{{"type":"percale","state_dir":"{}","ipam_lock_file":"{}",
        "ipam":{{"type":"percale-ipam","pools":[{{"cidr":"10.91.0.0/16"}}]}}}}]}}"#,
        bed.path("").display().to_string().trim_end_matches('/'),
        bed.path("ipam.lock").display()
    );
    put(&bed, "etc/cni/net.d/10-percale.conflist", &conf);
    for name in ["percale", "portmap"] {
        put(&bed, &format!("opt/cni/bin/{name}"), "");
        let file = bed.path("root/opt/cni/bin").join(name);
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    put(&bed, "proc/sys/net/ipv4/ip_forward", "1\n");
    bed
}

fn doctor(bed: &Bed, code: i32) -> Value {
    let root = bed.path("root");
    bed.run(&["doctor", "-o", "json", "--host-root", root.to_str().unwrap()]).exits(code).json()
}

fn found(report: &Value, check: &str) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter().filter(|f| f["check"] == check);
    findings.map(|f| f["what"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_fit_host_is_0_and_each_finding_has_what_why_and_cure() {
    let bed = fit();
    let report = doctor(&bed, 0);
    assert_eq!(report["findings"], serde_json::json!([]), "{report}");
    let root = bed.path("root");
    let text = bed.run(&["doctor", "--host-root", root.to_str().unwrap()]).exits(0).out;
    assert!(text.contains("ok     sysctls") && text.ends_with("this host is fit\n"), "{text}");

    std::fs::remove_file(root.join("opt/cni/bin/percale")).unwrap();
    let finding = doctor(&bed, 2)["findings"][0].clone();
    assert!(finding["what"].as_str().unwrap().starts_with("percale is in none of"), "{finding}");
    assert!(finding["cure"].as_str().unwrap().starts_with("install -m 0755"), "{finding}");
    let text = bed.run(&["doctor", "--host-root", root.to_str().unwrap()]).exits(2).out;
    assert!(text.contains("WRONG  plugins: ") && text.contains("why:") && text.contains("cure:"), "{text}");
}

#[test]
fn forwarding_that_was_turned_off_beside_pods_is_wrong() {
    let bed = fit();
    bed.ip("link add cali000000000a type veth peer name p0");
    put(&bed, "proc/sys/net/ipv4/ip_forward", "0\n");
    assert!(found(&doctor(&bed, 2), "sysctls").contains(&"net.ipv4.ip_forward is off".to_owned()));
}

#[test]
fn a_foreign_forward_chain_with_policy_drop_is_wrong_until_it_lets_pods_pass() {
    let bed = fit();
    let nft = |rules: &str| assert_eq!(bed::finish(bed.command("nft").args(["-f", "-"]), rules).code, 0);
    nft("table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }");
    let report = doctor(&bed, 2);
    assert_eq!(
        found(&report, "firewall"),
        ["chain FORWARD of nftables table ip filter drops forwarded packets"]
    );
    let cure = report["findings"][0]["cure"].as_str().unwrap().to_owned();
    for line in cure.lines() {
        let ran = bed::finish(bed.command("sh").args(["-c", line]), "");
        assert_eq!(ran.code, 0, "{line}: {ran:?}");
    }
    assert_eq!(found(&doctor(&bed, 0), "firewall"), Vec::<String>::new());
}

#[test]
fn a_broken_configuration_is_named_by_file_and_key() {
    let bed = fit();
    let file = bed.path("root/etc/cni/net.d/10-percale.conflist");
    let text = std::fs::read_to_string(&file).unwrap().replace("10.91.0.0/16", "10.91.0.0/33");
    std::fs::write(&file, text).unwrap();
    let what = found(&doctor(&bed, 2), "configuration").remove(0);
    assert!(what.contains("10-percale.conflist") && what.contains("ipam.pools[0].cidr"), "{what}");
}

#[test]
fn leaks_leftover_links_and_a_locked_store_are_found() {
    let bed = fit();
    let pod = Pod::new();
    bed.lease("c1", &[("netns", &pod.attribute()), ("boot_id", &netlink::boot_id().unwrap())]);
    drop(pod);
    bed.ip("link add cali000000000b type veth peer name p0");
    bed.ip("link set cali000000000b alias percale:net/gone/eth0");
    let report = doctor(&bed, 2);
    assert_eq!(
        found(&report, "leases and links"),
        ["1 leaked addresses", "1 links without a lease"],
        "{report}"
    );
    assert_eq!(found(&report, "firewall"), ["the nftables table inet percale is missing"]);
    bed.run(&["ipam", "check", "--fix"]).exits(0);
    assert_eq!(doctor(&bed, 0)["findings"], serde_json::json!([]));

    let info = "{kind: ClusterInformation, apiVersion: projectcalico.org/v3, metadata: {name: default}, spec: {datastoreReady: false}}";
    bed.run_with(&["apply", "-f", "-"], info).exits(0);
    assert_eq!(found(&doctor(&bed, 2), "store"), ["the store is locked (datastoreReady is false)"]);
}

#[test]
fn a_damaged_or_missing_store_is_told() {
    let bed = fit();
    for slot in ["a", "b"] {
        std::fs::write(bed.store_dir().join(slot), [0xff; 5000]).unwrap();
    }
    assert!(!found(&doctor(&bed, 2), "store").is_empty());
    std::fs::remove_dir_all(bed.store_dir()).unwrap();
    let report = doctor(&bed, 0);
    assert!(found(&report, "store")[0].starts_with("there is no store in"), "{report}");
}
