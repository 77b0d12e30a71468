//! `usePodCidr` in host-local's keys: the node's pod network, which Kubernetes gives each node (reference 1.5).

use super::call::Stores;
use super::{failure, node, stores};
use cni_protocol::{CniError, Request, Verb};
use datastore::Deadline;
use datastore::embedded::Mode;
use ipnet::IpNet;
use model::decode::Stored;
use model::{Node, keys};
use serde_json::Value;

/// What stands in place of a subnet, compared without regard to case.
const V4: &str = "usePodCidr";
const V6: &str = "usePodCidrIPv6";

/// The request with the subnets in place. A release goes by the container: it asks nobody.
///
/// # Errors
/// Code 7 without a way to Kubernetes, 11 while the node has no pod network.
pub(crate) fn resolved(stores: &dyn Stores, req: &Request, deadline: Deadline) -> Result<Request, CniError> {
    let nets = match req.verb {
        Verb::Del | Verb::Gc => [Some("0.0.0.0/0".to_owned()), Some("::/0".to_owned())],
        _ => of_node(stores, req, deadline)?,
    };
    let mut raw = req.raw.clone();
    if let Some(ipam) = raw.get_mut("ipam") {
        put(ipam, &nets)?;
        let sets = ipam.get_mut("ranges").and_then(Value::as_array_mut).into_iter().flatten();
        for range in sets.filter_map(Value::as_array_mut).flatten() {
            put(range, &nets)?;
        }
    }
    req.with_configuration(raw)
}

fn put(range: &mut Value, nets: &[Option<String>; 2]) -> Result<(), CniError> {
    let Some(subnet) = range.get_mut("subnet") else { return Ok(()) };
    let asked = subnet.as_str().unwrap_or_default();
    let (net, family) = match asked {
        text if text.eq_ignore_ascii_case(V4) => (&nets[0], "IPv4"),
        text if text.eq_ignore_ascii_case(V6) => (&nets[1], "IPv6"),
        _ => return Ok(()),
    };
    let missing = || {
        CniError::try_again(format!(
            "ipam.subnet: {asked}: Kubernetes has given this node no {family} pod network (spec.podCIDRs); \
             does its controller manager run with --allocate-node-cidrs?"
        ))
    };
    *subnet = Value::from(net.clone().ok_or_else(missing)?);
    Ok(())
}

/// The node's first pod network of each family.
fn of_node(stores: &dyn Stores, req: &Request, deadline: Deadline) -> Result<[Option<String>; 2], CniError> {
    if !stores::is_cluster(req) {
        return Err(CniError::config(
            "ipam.subnet: usePodCidr needs Kubernetes (kubernetes.kubeconfig); write the subnet itself",
        ));
    }
    let store = match stores::is_kubernetes(req) {
        true => stores.open(req, Mode::Existing, deadline),
        false => stores.pods(req, deadline),
    };
    let store = store.map_err(|e| e.into_cni())?;
    let name = Some(&req.conf.backends.kubernetes.node_name).filter(|name| !name.is_empty());
    let key = keys::node(&name.cloned().unwrap_or_else(|| node::name(req)));
    let found = store.get(&[&key], deadline).map_err(|e| failure::store(&e))?.pop().flatten();
    let entry = found.ok_or_else(|| {
        CniError::try_again(format!(
            "ipam.subnet: usePodCidr: Kubernetes knows no node {}",
            &key[key.rfind('/').map_or(0, |at| at + 1)..]
        ))
    })?;
    let node = Node::decode(&entry.key, &entry.value).map_err(|e| super::pods::damaged(&e))?;
    let listed = node.other.get("status").and_then(|status| status.get("podCIDRs"));
    let nets: Vec<IpNet> = listed
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|net| net.as_str()?.parse().ok())
        .collect();
    let first = |v4: bool| nets.iter().find(|net| net.addr().is_ipv4() == v4).map(ToString::to_string);
    Ok([first(true), first(false)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_family_has_its_word_and_a_missing_network_is_told() {
        let nets = [Some("10.1.0.0/24".to_owned()), None];
        let mut range = json!({"subnet": "USEPODCIDR", "gateway": "10.1.0.1"});
        put(&mut range, &nets).unwrap();
        assert_eq!(range, json!({"subnet": "10.1.0.0/24", "gateway": "10.1.0.1"}));
        put(&mut range, &nets).unwrap();
        let missing = put(&mut json!({"subnet": "usePodCidrIPv6"}), &nets).unwrap_err();
        assert!(missing.msg.contains("IPv6 pod network"), "{missing}");
    }
}
