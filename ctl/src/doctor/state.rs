//! The store, the journal, and whether what they say fits this host.

use super::{Finding, Host};
use crate::cli::ScopeArgs;
use crate::host;
use crate::ipam::{Findings, examine, pending};
use crate::outcome::chain;
use crate::session::{Places, store_deadline};
use anyhow::Result;
use datastore::ErrorKind;
use datastore::embedded::{Embedded, Mode};
use model::keys;
use model::store::Entry;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Below this a checkpoint of a store with many leases may find no room, in bytes.
const LITTLE_ROOM: u64 = 16 << 20;

pub fn store(host: &Host<'_>) -> Vec<Finding> {
    const CHECK: &str = "store";
    let places = host.places;
    if places.backend.is_cluster() {
        return cluster(places);
    }
    let shown = places.store.display();
    let dump = match Embedded::dump(&places.store, store_deadline()) {
        Ok(dump) => dump,
        Err(error) if error.kind == ErrorKind::Missing => return no_store(host).into_iter().collect(),
        Err(error) => {
            let why = "no pod can get or give back an address";
            return vec![Finding::wrong(
                CHECK,
                error.to_string(),
                why,
                format!("ls -ld {shown}; run as root"),
            )];
        }
    };
    let damage = |problem: &String| {
        let why = "what cannot be read may be leases: the plugin refuses to guess";
        let cure = format!("{0} store dump > saved.json; {0} store load --force saved.json", command(places));
        Finding::wrong(CHECK, format!("damaged: {problem}"), why, cure)
    };
    let mut findings: Vec<Finding> = dump.problems.iter().map(damage).collect();
    findings.extend(locked(places, &dump.entries));
    findings.extend(open_to_others(&places.store));
    findings.extend(room(&places.store));
    findings
}

/// A cluster's store: whether it can be reached, and takes changes.
fn cluster(places: &Places) -> Vec<Finding> {
    const CHECK: &str = "store";
    let read = || -> Result<Vec<Entry>> {
        let store = places.open(Mode::ReadOnly)?.store;
        Ok(store.get(&[&keys::cluster_information()], store_deadline())?.into_iter().flatten().collect())
    };
    match read() {
        Ok(entries) if entries.is_empty() => {
            let what = "there is no ClusterInformation".to_owned();
            let why = "the plugin gives no address until the cluster is initialised";
            let cure = "percalectl get clusterinformation; install the cluster's networking".to_owned();
            vec![Finding::wrong(CHECK, what, why, cure)]
        }
        Ok(entries) => locked(places, &entries).into_iter().collect(),
        Err(error) => {
            let why = "pods get their addresses only while it can be reached; what they give back is put off";
            let cure = "check the server, the credentials and the way to it".to_owned();
            vec![Finding::wrong(CHECK, chain(&error), why, cure)]
        }
    }
}

fn no_store(host: &Host<'_>) -> Option<Finding> {
    let what = format!("there is no store in {}", host.places.store.display());
    let pods = host.pod_links.iter().filter(|l| host::is_ours(l)).count();
    if pods == 0 {
        let cure = "nothing to do: the first pod creates it".to_owned();
        return Some(Finding::note("store", what, "no network of this host has been used yet", cure));
    }
    let why =
        format!("{pods} pods are connected whose leases nobody knows: their addresses would be given again");
    let cure = format!("{} --datastore-path DIR doctor, or restart these pods", "percalectl");
    Some(Finding::wrong("store", what, &why, cure))
}

fn locked(places: &Places, entries: &[Entry]) -> Option<Finding> {
    let entry = entries.iter().find(|e| e.key == keys::cluster_information())?;
    let info: Value = serde_json::from_slice(&entry.value).ok()?;
    (info["spec"]["datastoreReady"] == false).then(|| {
        let cure = format!(
            "{} patch clusterinformation default -p '{{\"spec\":{{\"datastoreReady\":true}}}}' (if no migration runs)",
            command(places)
        );
        let why = "every ADD is put off until a migration or an upgrade has ended";
        Finding::wrong("store", "the store is locked (datastoreReady is false)".to_owned(), why, cure)
    })
}

fn open_to_others(dir: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(dir).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let what = format!("{} has mode {mode:o}", dir.display());
        Finding::note(
            "store",
            what,
            "others than root can look at leases, or change them",
            format!("chmod 0700 {}", dir.display()),
        )
    })
}

fn room(dir: &Path) -> Option<Finding> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    let (free, shown) = (stat.f_bavail.saturating_mul(stat.f_frsize), dir.display());
    let (what, why, cure) = if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        let what = format!("the file system of {shown} is read-only");
        (
            what,
            "no pod can get an address, and no release can be written down",
            format!("mount -o remount,rw $(findmnt -no TARGET -T {shown})"),
        )
    } else if free < LITTLE_ROOM {
        let what = format!("the file system of {shown} has {} MiB left", free >> 20);
        (
            what,
            "pods that start soon find no room for their lease",
            format!("du -xh --max-depth=1 $(findmnt -no TARGET -T {shown}) | sort -h"),
        )
    } else {
        return None;
    };
    Some(Finding::wrong("store", what, why, cure))
}

pub fn journal(host: &Host<'_>) -> Vec<Finding> {
    const CHECK: &str = "journal";
    let places = host.places;
    let ours = match places.backend.is_cluster() {
        true => {
            std::fs::read_to_string(places.state_dir.join("datastore")).unwrap_or_default().trim().to_owned()
        }
        false => format!("embedded:{}", places.store.display()),
    };
    let pending = match pending(places) {
        Ok(pending) => pending,
        Err(error) => {
            let why = "releases that were put off cannot be carried out";
            let cure = format!("ls -l {}", places.state_dir.join("journal").display());
            return vec![Finding::wrong(CHECK, chain(&error), why, cure)];
        }
    };
    let (mine, others): (Vec<_>, Vec<_>) =
        pending.iter().partition(|(_, entry)| entry.store.starts_with(&ours));
    let mut findings = Vec::new();
    if !mine.is_empty() {
        let why = "the addresses of pods that are gone stay in use until their release is carried out";
        let cure = format!("{} ipam check --fix", command(places));
        findings.push(Finding::wrong(CHECK, format!("{} releases wait", mine.len()), why, cure));
    }
    if let Some((_, entry)) = others.first() {
        let what = format!("{} releases wait for another store, {}", others.len(), entry.store);
        let why = "they are carried out when that store is used again";
        let cure = "percalectl --datastore-path DIR ipam check --fix".to_owned();
        findings.push(Finding::note(CHECK, what, why, cure));
    }
    findings
}

pub fn audit(host: &Host<'_>) -> Vec<Finding> {
    const CHECK: &str = "leases and links";
    let places = host.places;
    match look(places) {
        Ok(None) => Vec::new(),
        Ok(Some(found)) => {
            let cure = format!("{0} ipam check, then {0} ipam check --fix", command(places));
            let why = "leaked addresses fill the pools, and leftover links and routes lead nowhere";
            kinds(&found).into_iter().map(|what| Finding::wrong(CHECK, what, why, cure.clone())).collect()
        }
        Err(error) => {
            let why = "leaks and leftovers could not be looked for";
            vec![Finding::wrong(CHECK, chain(&error), why, format!("{} ipam check", command(places)))]
        }
    }
}

/// Nothing where there is no store: that is another check's finding.
fn look(places: &Places) -> Result<Option<Findings>> {
    if !places.backend.is_cluster() && !places.store.exists() {
        return Ok(None);
    }
    let session = places.open(Mode::ReadOnly)?;
    let found = examine(&session, &host::Host::look(places)?, &ScopeArgs { network: None })?;
    Ok((!found.clean()).then_some(found))
}

/// What was found, counted by kind. Owed releases are the journal's.
fn kinds(found: &Findings) -> Vec<String> {
    let sum =
        |count: fn(&ipam::audit::Report) -> usize| found.scopes.iter().map(|(_, r)| count(r)).sum::<usize>();
    let counts = [
        (sum(|r| r.leaked.len()), "leaked addresses"),
        (sum(|r| r.duplicated.len()), "addresses with two owners"),
        (sum(|r| r.orphan_handles.len() + r.handle_counts.len()), "handles that do not fit the blocks"),
        (sum(|r| r.orphan_affinities.len() + r.lost.len()), "blocks or claims that do not fit each other"),
        (sum(|r| r.damaged.len()), "objects that cannot be read"),
        (found.strays.len(), "links without a lease"),
    ];
    counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect()
}

/// `percalectl` with the options that make it look where this run looks.
fn command(places: &Places) -> String {
    match places.store.to_str() {
        Some("/var/lib/percale/store") => "percalectl".to_owned(),
        _ => format!("percalectl --datastore-path {}", places.store.display()),
    }
}
