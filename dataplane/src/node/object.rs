//! The Node object: this node's addresses and keys, for the others.

use super::settings::{Settings, random};
use super::{CALL, address};
use crate::context::Context;
use anyhow::{Result, anyhow, bail};
use datastore::{Deadline, DriveError, drive};
use model::node::{NodeField, NodeNet};
use model::resource::NodeSpec;
use model::store::{Expect, Plan, Query, Stop, View, Write};
use model::{ClusterInformation, Family, Node, Stored, keys};
use std::time::{SystemTime, UNIX_EPOCH};

/// Brings addresses and keys in the node's object up to date.
pub(super) fn ensure(context: &Context, settings: &Settings) -> Result<()> {
    let stored = read(context)?;
    let before = stored.as_ref().map(NodeNet::of).unwrap_or_default();
    let mut fields = Vec::new();
    for family in Family::BOTH {
        let found = address::find(settings, family, &before)?;
        let changed = found.map(|net| net.addr()) != before.family(family).address.map(|net| net.addr());
        if let Some(net) = found.filter(|_| changed && !settings.skip_conflicts) {
            address::check_unique(&context.node_name, net, &all(context)?)?;
        }
        fields.push((NodeField::Address(family), found.map(|net| net.to_string())));
    }
    let has_none = fields.iter().all(|(_, value)| value.is_none());
    if has_none && is_cluster(context) && !settings.no_backend {
        bail!("no address of this node was found; set IP, or another IP_AUTODETECTION_METHOD");
    }
    for (family, name) in context.plane.wireguard() {
        fields.push((NodeField::WireguardKey(family), crate::plane::public_key(&name)));
    }
    set(context, &fields)
}

fn is_cluster(context: &Context) -> bool {
    !context.store.identity().starts_with("embedded:")
}

pub(super) fn read(context: &Context) -> Result<Option<Node>> {
    let key = keys::node(&context.node_name);
    let found = context.store.get(&[&key], Deadline::after(CALL))?.pop().flatten();
    Ok(found.map(|entry| Node::decode(&key, &entry.value)).transpose()?)
}

/// Every node with its network; unreadable ones are passed over.
fn all(context: &Context) -> Result<Vec<(String, NodeNet)>> {
    let entries = context.store.list(&keys::nodes(), Deadline::after(CALL))?;
    let nodes = entries.iter().filter_map(|entry| Node::decode(&entry.key, &entry.value).ok());
    Ok(nodes.map(|node| (node.name().to_owned(), NodeNet::of(&node))).collect())
}

/// Sets or removes fields of the node's object, which is made where there is none.
pub(super) fn set(context: &Context, fields: &[(NodeField, Option<String>)]) -> Result<()> {
    let mut view = View::new();
    let planned =
        drive(&*context.store, &mut view, Deadline::after(CALL), |view| plan(view, context, fields));
    match planned {
        Ok((true, _)) => {
            let set: Vec<String> = fields
                .iter()
                .map(|(field, value)| format!("{field:?}={}", value.as_deref().unwrap_or("none")))
                .collect();
            tracing::info!("this node: {}", set.join(" "));
            Ok(())
        }
        Ok((false, _)) => Ok(()),
        Err(DriveError::Plan(error)) => Err(error),
        Err(error) => Err(anyhow!("writing this node's object: {error}")),
    }
}

fn plan(
    view: &View,
    context: &Context,
    fields: &[(NodeField, Option<String>)],
) -> Result<Plan<bool>, Stop<anyhow::Error>> {
    let key = keys::node(&context.node_name);
    let ready = keys::cluster_information();
    view.require([Query::Get(key.clone()), Query::Get(ready.clone())])?;
    if let Some(entry) = view.get(&ready)? {
        let info = ClusterInformation::decode(&ready, &entry.value).map_err(|e| Stop::Fail(e.into()))?;
        if info.spec.datastore_ready == Some(false) {
            return Err(Stop::Fail(anyhow!(
                "the datastore is not ready: a migration or an upgrade is running"
            )));
        }
    }
    let entry = view.get(&key)?;
    let (mut node, expect) = match entry {
        Some(entry) => {
            let node = Node::decode(&key, &entry.value).map_err(|e| Stop::Fail(e.into()))?;
            (node, Expect::At(entry.revision))
        }
        None => (new(context), Expect::Absent),
    };
    let changed = fields.iter().filter(|(field, value)| field.set(&mut node, value.as_deref())).count();
    if changed == 0 && entry.is_some() {
        return Ok(Plan::Done(false));
    }
    Ok(Plan::Commit(vec![Write { key, expect, value: Some(node.encode()) }], true))
}

fn new(context: &Context) -> Node {
    let mut node = Node::new(&context.node_name, NodeSpec::default());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    node.metadata.creation_timestamp = Some(model::time::rfc3339(now));
    node.metadata.uid = Some(uid(now));
    node
}

/// A random UUID (RFC 9562, version 4) of 64 random bits and the moment.
fn uid(now: u64) -> String {
    let high = random();
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((now >> 48) & 0x3fff),
        now & 0xffff_ffff_ffff
    )
}
