//! Rules that join several members of a spec (reference 3.9, 4.1; modern data model 3).

use super::schema::Problem;
use ipnet::IpNet;
use model::block::{block_sizes, default_block_size};
use model::{Family, ip};
use serde_json::Value;

pub fn nothing(_spec: &Value, _problems: &mut Vec<Problem>) {}

/// The pool's network; `None` where there is none that can be read.
pub fn pool_net(object: &Value) -> Option<IpNet> {
    ip::parse_net(object["spec"]["cidr"].as_str()?).ok()
}

pub fn pool(spec: &Value, problems: &mut Vec<Problem>) {
    let Some(net) = spec["cidr"].as_str().and_then(|text| ip::parse_net(text).ok()) else {
        problems.push(Problem::new("spec.cidr", "a network such as 10.0.0.0/16 is needed"));
        return;
    };
    problems.extend(link_local(&net));
    problems.extend(block_size(spec, &net));
    problems.extend(encapsulation(spec, &net));
}

fn link_local(net: &IpNet) -> Option<Problem> {
    let reserved = ["169.254.0.0/16", "fe80::/10"].map(ip::parse_net);
    let clash = reserved.into_iter().flatten().find(|r| ip::overlap(r, net))?;
    Some(Problem::new("spec.cidr", format!("{net} overlaps {clash}, which is for link-local use")))
}

fn block_size(spec: &Value, net: &IpNet) -> Option<Problem> {
    let family = Family::of_net(net);
    let size = effective_block_size(spec, family);
    let sizes = block_sizes(family);
    let text = if !sizes.contains(&size) {
        format!("{size} is not from {} to {} for {family}", sizes.start(), sizes.end())
    } else if size < net.prefix_len() && spec["disabled"] != true {
        format!("a block of /{size} is larger than the pool {net}")
    } else {
        return None;
    };
    Some(Problem::new("spec.blockSize", text))
}

/// The schema bounds the number; zero and absent mean the family's default.
fn effective_block_size(spec: &Value, family: Family) -> u8 {
    let given = spec["blockSize"].as_u64().and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    if given == 0 { default_block_size(family) } else { given }
}

fn encapsulation(spec: &Value, net: &IpNet) -> Option<Problem> {
    let on = |name: &str| spec[name].as_str().is_some_and(|mode| mode != "Never");
    let load_balancer =
        spec["allowedUses"].as_array().is_some_and(|uses| uses.iter().any(|u| u == "LoadBalancer"));
    let (field, text) = match (on("ipipMode"), on("vxlanMode")) {
        (true, true) => ("spec.vxlanMode", "IPIP and VXLAN cannot both be on"),
        (true, false) if Family::of_net(net) == Family::V6 => ("spec.ipipMode", "IPIP cannot carry IPv6"),
        (false, false) => return None,
        _ if load_balancer => ("spec.allowedUses", "LoadBalancer goes with neither IPIP nor VXLAN"),
        _ => return None,
    };
    Some(Problem::new(field, text))
}

/// Network and block size of a pool are for good: its blocks are cut by them.
pub fn pool_change(old: &Value, new: &Value) -> Vec<Problem> {
    let (Some(was), Some(is)) = (pool_net(old), pool_net(new)) else { return Vec::new() };
    if was != is {
        return vec![Problem::new("spec.cidr", format!("cannot change from {was}: create another pool"))];
    }
    let size = |object: &Value| effective_block_size(&object["spec"], Family::of_net(&was));
    if size(old) != size(new) {
        let text = format!("cannot change from {}: create another pool", size(old));
        return vec![Problem::new("spec.blockSize", text)];
    }
    Vec::new()
}

/// Calico's library refuses both on every read and write (modern data model 2.4).
pub fn ipam_config(spec: &Value, problems: &mut Vec<Problem>) {
    if spec["strictAffinity"] == true {
        return;
    }
    if spec["autoAllocateBlocks"] == false {
        let text = "false needs strictAffinity true: else no host could ever get a block";
        problems.push(Problem::new("spec.autoAllocateBlocks", text));
    }
    if spec["maxBlocksPerHost"].as_u64().unwrap_or(0) > 0 {
        let text = "a limit needs strictAffinity true: else hosts borrow beyond it";
        problems.push(Problem::new("spec.maxBlocksPerHost", text));
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::find;
    use serde_json::{Value, json};

    fn problems(kind: &str, name: &str, spec: Value) -> Vec<String> {
        let object = json!({"apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": spec});
        find(kind).unwrap().check(&object, None).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pools_that_cannot_work_are_refused_by_field() {
        let cases = [
            (json!({}), "spec.cidr: "),
            (json!({"cidr": "169.254.0.0/24"}), "spec.cidr: 169.254.0.0/24 overlaps 169.254.0.0/16"),
            (json!({"cidr": "fe80::/64"}), "spec.cidr: fe80::/64 overlaps fe80::/10"),
            (json!({"cidr": "10.0.0.0/27"}), "spec.blockSize: a block of /26 is larger"),
            (json!({"cidr": "10.0.0.0/8", "blockSize": 19}), "spec.blockSize: 19 is not from 20 to 32"),
            (json!({"cidr": "fd00::/64", "blockSize": 115}), "spec.blockSize: 115 is not from 116 to 128"),
            (json!({"cidr": "fd00::/64", "ipipMode": "Always"}), "spec.ipipMode: IPIP cannot carry IPv6"),
            (
                json!({"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "CrossSubnet"}),
                "spec.vxlanMode: ",
            ),
            (
                json!({"cidr": "10.0.0.0/16", "vxlanMode": "Always", "allowedUses": ["LoadBalancer"]}),
                "spec.allowedUses: ",
            ),
            (json!({"cidr": "10.0.0.0/33"}), "spec.cidr: "),
            (json!({"cidr": "fe80::%eth0/64"}), "spec.cidr: "),
            (
                json!({"cidr": "10.0.0.0/16", "natOutgoign": true}),
                "spec.natOutgoign: unknown field; did you mean natOutgoing?",
            ),
        ];
        for (spec, wanted) in cases {
            let found = problems("ippool", "p", spec.clone());
            assert!(found.len() == 1 && found[0].starts_with(wanted), "{spec}: {found:?}");
        }
    }

    #[test]
    fn pools_of_every_kind_are_accepted() {
        let good = [
            json!({"cidr": "10.0.0.0/8"}),
            json!({"cidr": "10.0.0.0/27", "disabled": true}),
            json!({"cidr": "10.0.0.0/32", "blockSize": 32}),
            json!({"cidr": "FD00:0::/48", "vxlanMode": "Always", "blockSize": 0}),
            json!({"cidr": "10.0.0.0/16", "nodeSelector": "rack in {'a','b'}", "allowedUses": ["Workload"], "natOutgoing": true}),
        ];
        for spec in good {
            assert_eq!(problems("ippool", "p", spec.clone()), Vec::<String>::new(), "{spec}");
        }
    }

    #[test]
    fn ipam_settings_that_contradict_each_other_are_refused() {
        assert!(
            problems("ipamconfig", "default", json!({"autoAllocateBlocks": false}))[0]
                .contains("strictAffinity")
        );
        assert!(
            problems("ipamconfig", "default", json!({"maxBlocksPerHost": 3}))[0].contains("strictAffinity")
        );
        assert!(
            problems("ipamconfig", "default", json!({"strictAffinity": true, "maxBlocksPerHost": 3}))
                .is_empty()
        );
        assert!(problems("ipamconfig", "mine", json!({}))[0].contains("named default"));
    }
}
