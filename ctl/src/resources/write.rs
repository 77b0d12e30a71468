//! `create`, `apply`, `replace`.

use super::finish::{finish, without_version};
use super::{Refusal, Step, Wish, decode, refuse_if_locked, require, wishes};
use crate::cli::{CreateArgs, FileArgs};
use crate::kinds::{Problem, pool_net};
use crate::outcome::{Outcome, say};
use crate::session::Places;
use anyhow::Result;
use datastore::embedded::Mode;
use ipnet::IpNet;
use model::block::default_block_size;
use model::store::{Expect, Plan, Query, View, Write};
use model::{Family, Scope, ip, keys};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// What to do with objects that are there, and with those that are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Create,
    /// Existing objects stay as they are.
    CreateMissing,
    Apply,
    /// Missing objects are an error.
    Replace,
}

/// Objects that are written to a cluster's store at once (decision 26).
const BATCH: usize = 50;

/// Time and chance for new objects.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// RFC 3339.
    pub time: String,
    /// One for each object: 16 random bytes.
    pub chance: Vec<[u8; 16]>,
}

pub fn create(places: &Places, args: &CreateArgs) -> Result<Outcome> {
    let how = if args.skip_exists { How::CreateMissing } else { How::Create };
    run(places, &args.files, how)
}

pub fn apply(places: &Places, args: &FileArgs) -> Result<Outcome> {
    run(places, args, How::Apply)
}

pub fn replace(places: &Places, args: &FileArgs) -> Result<Outcome> {
    run(places, args, How::Replace)
}

fn run(places: &Places, args: &FileArgs, how: How) -> Result<Outcome> {
    write(places, &wishes(&args.filename)?, how)
}

/// Writes the objects and prints what became of each.
pub(super) fn write(places: &Places, wishes: &[Wish], how: How) -> Result<Outcome> {
    say(&commit(places, wishes, how)?.join("\n"))?;
    Ok(Outcome::Done)
}

/// Writes the objects; the answer says what became of each.
pub(super) fn commit(places: &Places, wishes: &[Wish], how: How) -> Result<Vec<String>> {
    let session = places.open(Mode::Existing)?;
    // A cluster's store takes only so much at once.
    let at_once = if places.backend.is_cluster() { BATCH } else { wishes.len() };
    let mut lines = Vec::new();
    for wishes in wishes.chunks(at_once.max(1)) {
        let stamp = Stamp::now(wishes.len())?;
        lines.extend(session.commit(|view| plan(view, wishes, how, &stamp))?);
    }
    Ok(lines)
}

impl Stamp {
    fn now(objects: usize) -> Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let time = model::time::rfc3339(u64::try_from(since.as_nanos())?);
        let mut chance = vec![[0; 16]; objects];
        for bytes in &mut chance {
            rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Self { time, chance })
    }
}

/// The writes for all wishes, or every reason against them.
fn plan(view: &View, wishes: &[Wish], how: How, stamp: &Stamp) -> Step<Plan<Vec<String>>> {
    require(view, queries(wishes))?;
    refuse_if_locked(view, wishes.iter().map(|w| w.kind))?;
    let mut refusal = Refusal::default();
    let (mut writes, mut lines) = (Vec::new(), Vec::new());
    for (wish, chance) in wishes.iter().zip(&stamp.chance) {
        let (problems, change) = plan_one(view, wish, how, &stamp.time, chance)?;
        refusal.add(&wish.from, &wish.subject(), &problems);
        writes.extend(change.write);
        lines.push(format!("{} {}", wish.subject(), change.done));
    }
    refuse_overlaps(view, wishes, how, &mut refusal)?;
    match refusal.0.is_empty() {
        false => Err(model::store::Stop::Fail(refusal)),
        true if writes.is_empty() => Ok(Plan::Done(lines)),
        true => Ok(Plan::Commit(writes, lines)),
    }
}

fn queries(wishes: &[Wish]) -> Vec<Query> {
    let mut wanted: Vec<Query> = wishes.iter().map(|w| Query::Get(w.key())).collect();
    wanted.push(Query::Get(keys::cluster_information()));
    if wishes.iter().any(is_pool) {
        wanted.push(Query::List(keys::pools()));
        wanted.extend(Family::BOTH.map(|f| Query::Keys(keys::blocks(&Scope::Cluster, f))));
    }
    wanted
}

fn is_pool(wish: &Wish) -> bool {
    wish.kind.name == "IPPool"
}

struct Change {
    write: Option<Write>,
    done: &'static str,
}

fn plan_one(
    view: &View,
    wish: &Wish,
    how: How,
    time: &str,
    chance: &[u8; 16],
) -> Step<(Vec<Problem>, Change)> {
    let none = |done| Change { write: None, done };
    let entry = view.get(&wish.key())?;
    // A damaged object may be overwritten; nothing of it can be compared.
    let stored = entry.and_then(|entry| decode(wish.kind, entry).ok());
    let mut problems = wish.kind.check(&wish.object, stored.as_ref());
    if let Some(refused) = refuse_existence(entry.is_some(), how) {
        return Ok((vec![refused], none("")));
    }
    if entry.is_some() && how == How::CreateMissing {
        return Ok((problems, none("skipped: it exists")));
    }
    let stored = stored.as_ref();
    problems.extend(check_version(wish, stored, entry.is_some()));
    if let Some(stored) = stored {
        problems.extend(wish.kind.check_change(stored, &wish.object));
    }
    if !problems.is_empty() {
        return Ok((problems, none("")));
    }
    let object = finish(wish, stored, time, chance);
    if stored.is_some_and(|stored| without_version(stored) == object) {
        return Ok((problems, none("unchanged")));
    }
    let value = match wish.kind.encode(&object) {
        Ok(value) => value,
        Err(error) => return Ok((vec![Problem::new("spec", error.to_string())], none(""))),
    };
    let expect = entry.map_or(Expect::Absent, |e| Expect::At(e.revision));
    let write = Write { key: wish.key(), expect, value: Some(value) };
    Ok((problems, Change { write: Some(write), done: if entry.is_some() { "changed" } else { "created" } }))
}

fn refuse_existence(exists: bool, how: How) -> Option<Problem> {
    match (how, exists) {
        (How::Create, true) => Some("exists already (apply changes it, --skip-exists leaves it)"),
        (How::Replace, false) => Some("does not exist (apply or create makes it)"),
        _ => None,
    }
    .map(|text| Problem::new("metadata.name", text))
}

/// An object that was read, edited and written back must not undo what happened in between.
fn check_version(wish: &Wish, stored: Option<&Value>, exists: bool) -> Option<Problem> {
    let given = wish.object["metadata"]["resourceVersion"].as_str().filter(|v| !v.is_empty())?;
    let now = stored?["metadata"]["resourceVersion"].as_str()?;
    let text = format!("the stored object has changed since it was read ({given}, now {now}): get it again");
    (exists && given != now).then(|| Problem::new("metadata.resourceVersion", text))
}

/// Pools must not overlap each other, nor blocks of another size (reference 3.9, 4.1).
fn refuse_overlaps(view: &View, wishes: &[Wish], how: How, refusal: &mut Refusal) -> Step<()> {
    let pools: Vec<&Wish> = wishes.iter().filter(|w| is_pool(w)).collect();
    if pools.is_empty() {
        return Ok(());
    }
    let stored: Vec<(String, IpNet)> = stored_pools(view)?;
    for (at, wish) in pools.iter().enumerate() {
        let Some(net) = pool_net(&wish.object) else { continue };
        let is_stored = stored.iter().any(|(name, _)| *name == wish.name());
        if is_stored && how == How::CreateMissing {
            continue;
        }
        let others = stored.iter().filter(|(name, _)| *name != wish.name()).cloned();
        let before = pools[..at].iter().filter_map(|w| Some((w.name(), pool_net(&w.object)?)));
        let clash = others.chain(before).find(|(_, other)| ip::overlap(other, &net));
        let clash = clash.map(|(name, other)| format!("{net} overlaps pool {name} ({other})"));
        let clash = match clash {
            None if !is_stored => foreign_block(view, &wish.object, &net)?,
            clash => clash,
        };
        let problem = clash.map(|text| Problem::new("spec.cidr", text));
        refusal.add(&wish.from, &wish.subject(), problem.as_slice());
    }
    Ok(())
}

fn stored_pools(view: &View) -> Step<Vec<(String, IpNet)>> {
    let pool = |entry: &model::store::Entry| {
        let object: Value = serde_json::from_slice(&entry.value).ok()?;
        let name = entry.key.rsplit('/').next()?.to_owned();
        Some((name, pool_net(&object)?))
    };
    Ok(view.list(&keys::pools())?.filter_map(pool).collect())
}

/// Blocks of a deleted pool keep their size as long as they live.
fn foreign_block(view: &View, object: &Value, net: &IpNet) -> Step<Option<String>> {
    let size = match object["spec"]["blockSize"].as_u64() {
        None | Some(0) => u64::from(default_block_size(Family::of_net(net))),
        Some(size) => size,
    };
    let prefix = keys::blocks(&Scope::Cluster, Family::of_net(net));
    let blocks = view.keys(&prefix)?;
    let block = blocks.into_iter().filter_map(|key| keys::parse_cidr(key.strip_prefix(&prefix)?));
    let other = block.into_iter().find(|b| ip::overlap(b, net) && u64::from(b.prefix_len()) != size);
    Ok(other
        .map(|b| format!("block {b} of another size is in use there (`percalectl ipam show --show-blocks`)")))
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
