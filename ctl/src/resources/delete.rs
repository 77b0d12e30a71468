//! `delete`.

use super::claims::{self, Whose};
use super::{Refusal, Step, refuse_if_locked, require, wishes};
use crate::cli::DeleteArgs;
use crate::kinds::{self, Kind, pool_net};
use crate::outcome::{Outcome, say, usage};
use crate::session::Places;
use anyhow::{Result, bail};
use datastore::embedded::Mode;
use ipnet::IpNet;
use model::keys;
use model::store::{Entry, Expect, Plan, Query, Stop, View, Write};
use serde_json::Value;
use std::thread::sleep;
use std::time::Duration;

struct Target {
    kind: &'static Kind,
    name: String,
}

impl Target {
    fn subject(&self) -> String {
        self.kind.subject(&self.name)
    }

    /// A name that cannot be stored has no key either.
    fn key(&self) -> Option<String> {
        self.kind.can_be(&self.name).then(|| self.kind.key(&self.name))
    }
}

/// Writes that a cluster's store takes at once (decision 26).
const BATCH: usize = 90;
/// Hosts of a cluster that read a pool before it was disabled have claimed their blocks by then; as Calico.
const SETTLING: Duration = Duration::from_millis(500);

/// Deletes objects, and what goes with them: in one commit, but in a cluster's store one after the other.
pub fn delete(places: &Places, args: &DeleteArgs) -> Result<Outcome> {
    let targets = targets(args)?;
    if let Some(target) = targets.iter().find(|target| target.kind.is_read_only) {
        bail!(usage(format!("{}: objects of this kind are written by others", target.subject())));
    }
    let session = places.open(Mode::Existing)?;
    if !places.backend.is_cluster() {
        let lines = session.commit(|view| plan(view, &targets, args.skip_not_exists))?;
        say(&lines.join("\n"))?;
        return Ok(Outcome::Done);
    }
    for target in targets.chunks(1) {
        if session.commit(|view| plan_disable(view, &target[0]))? {
            sleep(SETTLING);
        }
        let lines = session.commit(|view| plan(view, target, args.skip_not_exists).map(in_batches))?;
        say(&lines.join("\n"))?;
    }
    Ok(Outcome::Done)
}

/// The object itself is the last of its writes, so that a broken-off deletion can be begun again.
fn in_batches(plan: Plan<Vec<String>>) -> Plan<Vec<String>> {
    match plan {
        Plan::Commit(mut writes, _) if writes.len() > BATCH => {
            writes.truncate(BATCH);
            Plan::Step(writes)
        }
        plan => plan,
    }
}

/// Takes a pool out of use before its blocks are given up; whether it was in use.
fn plan_disable(view: &View, target: &Target) -> Step<Plan<bool>> {
    let (Some(key), "IPPool") = (target.key(), target.kind.name) else { return Ok(Plan::Done(false)) };
    require(view, vec![Query::Get(key.clone()), Query::Get(keys::cluster_information())])?;
    refuse_if_locked(view, [target.kind])?;
    let Some(entry) = view.get(&key)? else { return Ok(Plan::Done(false)) };
    let Ok(mut pool) = serde_json::from_slice::<Value>(&entry.value) else { return Ok(Plan::Done(false)) };
    if pool["spec"]["disabled"] == true {
        return Ok(Plan::Done(false));
    }
    pool["spec"]["disabled"] = true.into();
    let value = Some(pool.to_string().into_bytes());
    Ok(Plan::Commit(vec![Write { key, expect: Expect::At(entry.revision), value }], true))
}

fn targets(args: &DeleteArgs) -> Result<Vec<Target>> {
    if let Some(file) = &args.filename {
        let wishes = wishes(std::slice::from_ref(file))?;
        return Ok(wishes.iter().map(|w| Target { kind: w.kind, name: w.name() }).collect());
    }
    let kind = kinds::find(args.kind.as_deref().unwrap_or_default())?;
    let full = |name: &String| kind.full_name(args.namespace.as_deref(), name);
    let mut names: Vec<String> = args.names.iter().map(full).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| Target { kind, name }).collect())
}

fn plan(view: &View, targets: &[Target], skip_missing: bool) -> Step<Plan<Vec<String>>> {
    require(view, queries(targets))?;
    refuse_if_locked(view, targets.iter().map(|t| t.kind))?;
    let mut refusal = Refusal::default();
    let (mut writes, mut lines) = (Vec::new(), Vec::new());
    for target in targets {
        let key = target.key();
        let entry = key.as_deref().map(|key| view.get(key)).transpose()?.flatten();
        match (entry, refuse(view, target)?) {
            (None, _) if skip_missing => {
                lines.push(format!("{} skipped: it does not exist", target.subject()))
            }
            (None, _) => refusal.0.push(format!("{} does not exist", target.subject())),
            (_, Some(text)) => refusal.0.push(format!("{}: {text}", target.subject())),
            (Some(entry), None) => {
                writes.extend(plan_one(view, target, entry)?);
                lines.push(format!("{} deleted{}", target.subject(), remark(view, target, entry)?));
            }
        }
    }
    match refusal.0.is_empty() {
        false => Err(Stop::Fail(refusal)),
        true if writes.is_empty() => Ok(Plan::Done(lines)),
        true => Ok(Plan::Commit(once(writes), lines)),
    }
}

fn queries(targets: &[Target]) -> Vec<Query> {
    let mut wanted: Vec<Query> = targets.iter().filter_map(Target::key).map(Query::Get).collect();
    wanted.push(Query::Get(keys::cluster_information()));
    if targets.iter().any(|t| ["IPPool", "Node"].contains(&t.kind.name)) {
        wanted.extend(claims::queries());
    }
    wanted
}

/// Why this object may not be deleted.
fn refuse(view: &View, target: &Target) -> Step<Option<String>> {
    match target.kind.name {
        "ClusterInformation" => Ok(Some("the store's identity cannot be deleted".to_owned())),
        "Node" => {
            let held = held_by(view, &target.name)?;
            let text = format!(
                "{held} addresses are in use on it; stop its pods, or free what they left \
                 (`percalectl ipam check --fix`, `percalectl ipam release`)"
            );
            Ok((held > 0).then_some(text))
        }
        _ => Ok(None),
    }
}

fn held_by(view: &View, node: &str) -> Step<usize> {
    let blocks = claims::blocks(view)?;
    let held = |block: &model::Block| block.allocated().filter(|(_, a)| a.get("node") == Some(node)).count();
    Ok(blocks.iter().map(|(block, _)| held(block)).sum())
}

fn plan_one(view: &View, target: &Target, entry: &Entry) -> Step<Vec<Write>> {
    let mut writes = match (target.kind.name, net_of(entry)) {
        ("IPPool", Some(net)) => claims::release(view, &Whose::Pool(net))?,
        ("Node", _) => claims::release(view, &Whose::Node(&target.name))?,
        _ => Vec::new(),
    };
    writes.push(Write { key: entry.key.clone(), expect: Expect::At(entry.revision), value: None });
    Ok(writes)
}

fn net_of(entry: &Entry) -> Option<IpNet> {
    pool_net(&serde_json::from_slice::<Value>(&entry.value).ok()?)
}

/// Addresses that outlive their pool are said, so that nobody is surprised by them.
fn remark(view: &View, target: &Target, entry: &Entry) -> Step<String> {
    let (true, Some(net)) = (target.kind.name == "IPPool", net_of(entry)) else { return Ok(String::new()) };
    let blocks = claims::blocks(view)?;
    let used: usize = blocks
        .iter()
        .filter(|(b, _)| model::ip::overlap(&b.cidr, &net))
        .map(|(b, _)| b.allocated().count())
        .sum();
    Ok(match used {
        0 => String::new(),
        used => format!(" ({used} of its addresses stay in use until their pods go)"),
    })
}

/// A pool and a node that are deleted together may name the same block.
fn once(mut writes: Vec<Write>) -> Vec<Write> {
    let mut seen = std::collections::BTreeSet::new();
    writes.retain(|w| seen.insert(w.key.clone()));
    writes
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Block, Scope, Stored};
    use serde_json::json;
    use std::collections::BTreeMap;

    fn entry(key: &str, value: Vec<u8>) -> Entry {
        Entry { key: key.into(), value, revision: 5 }
    }

    fn block(cidr: &str, used: bool) -> Entry {
        let mut block = Block::new(cidr.parse().unwrap(), Some("host:n1".into()));
        if used {
            let attrs = BTreeMap::from([("node".to_owned(), "n1".to_owned())]);
            block.attributes.push(model::Attribute::new(Some("net.c"), attrs));
            block.allocations[0] = Some(0);
            block.unallocated.retain(|o| *o != 0);
        }
        entry(&keys::block(&Scope::Cluster, &block.cidr), block.encode())
    }

    /// A pool with a block in use and an empty one, both claimed by node n1.
    fn view() -> View {
        let affinity = |cidr: &str| {
            let key = keys::affinity(&Scope::Cluster, "n1", &cidr.parse().unwrap());
            entry(&key, br#"{"state":"confirmed","deleted":false}"#.to_vec())
        };
        let object = |spec| serde_json::to_vec(&json!({"spec": spec})).unwrap();
        let mut view = View::new();
        view.put_list(
            "/",
            vec![
                block("10.0.0.0/26", true),
                block("10.0.0.64/26", false),
                affinity("10.0.0.0/26"),
                affinity("10.0.0.64/26"),
                entry(&keys::pool("p"), object(json!({"cidr": "10.0.0.0/16"}))),
                entry(&keys::node("n1"), object(json!({}))),
            ],
        );
        view
    }

    fn run(kind: &str, name: &str, skip: bool) -> Result<(Vec<Write>, Vec<String>), String> {
        let target = Target { kind: kinds::find(kind).unwrap(), name: name.into() };
        match plan(&view(), &[target], skip) {
            Ok(Plan::Commit(writes, lines)) => Ok((writes, lines)),
            Ok(Plan::Done(lines)) => Ok((Vec::new(), lines)),
            Ok(Plan::Step(writes)) => Ok((writes, Vec::new())),
            Err(Stop::Fail(refusal)) => Err(refusal.to_string()),
            Err(Stop::Need(queries)) => panic!("{queries:?}"),
        }
    }

    #[test]
    fn a_pool_takes_its_empty_blocks_along_and_leaves_addresses_in_use() {
        let (writes, lines) = run("ippool", "p", false).unwrap();
        assert_eq!(lines, ["ippool/p deleted (1 of its addresses stay in use until their pods go)"]);
        let of = |cidr: &str| {
            let key = keys::block(&Scope::Cluster, &cidr.parse().unwrap());
            writes.iter().find(|w| w.key == key).unwrap().value.clone()
        };
        assert_eq!(of("10.0.0.64/26"), None);
        let kept = of("10.0.0.0/26").unwrap();
        let kept =
            Block::decode(&keys::block(&Scope::Cluster, &"10.0.0.0/26".parse().unwrap()), &kept).unwrap();
        assert_eq!((kept.affinity.as_deref(), kept.allocated().count()), (None, 1));
        assert_eq!(writes.len(), 5);
        assert!(writes.iter().all(|w| w.expect == Expect::At(5)));
    }

    #[test]
    fn a_node_with_addresses_in_use_stays() {
        assert!(run("node", "n1", false).unwrap_err().contains("1 addresses are in use on it"));
    }

    #[test]
    fn what_is_missing_is_an_error_unless_that_is_fine() {
        assert_eq!(run("ippool", "q", false).unwrap_err(), "ippool/q does not exist");
        assert_eq!(run("ippool", "q", true).unwrap().1, ["ippool/q skipped: it does not exist"]);
        assert_eq!(run("ippool", "a/b", false).unwrap_err(), "ippool/a/b does not exist");
    }
}
