//! Pure: what is there, what is recorded and what is wished become steps.
//!
//! Order of an installation: contents that could be needed again are saved; plugins, kubeconfig,
//! certificates, and the conflist last; then what is no longer wanted goes, conflists first. Without
//! a conflist in the wish, the conflists go before everything else.

use crate::set::{Content, Displaced, Entry, Hash, Kind, Set, is_own_name};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where a content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A file of the source directory.
    File(PathBuf),
    Bytes(Vec<u8>),
    /// A content in the state directory.
    Saved,
}

/// A file that shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    pub path: PathBuf,
    pub kind: Kind,
    pub content: Content,
    pub from: From,
    /// Stays as it is where it is already there (UPDATE_CNI_BINARIES=false).
    pub keep_existing: bool,
}

/// The installation that shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub files: Vec<Want>,
    /// Files of others that shall be away.
    pub absent: Vec<(PathBuf, Kind)>,
    pub taken_over: bool,
    pub routes: bool,
    /// It is the way back: cut off, it is gone on with by the next one.
    pub back: bool,
}

/// What the disk has: every path of the wish and of the records, where there is a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub files: BTreeMap<PathBuf, Content>,
    /// Directories that exist.
    pub dirs: BTreeSet<PathBuf>,
    /// What a run that was killed left behind.
    pub leftovers: Vec<PathBuf>,
    /// Contents that the state directory has.
    pub saved: BTreeSet<Hash>,
}

/// What the state directory records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Records {
    /// The set that was completed last.
    pub current: Set,
    /// The set before it.
    #[serde(default)]
    pub previous: Option<Set>,
    /// The set that a run began to put in place and did not complete.
    #[serde(default)]
    pub pending: Option<Set>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    MakeDir { path: PathBuf, mode: u32 },
    Sweep { path: PathBuf },
    Save { path: PathBuf, sha256: Hash },
    Place { path: PathBuf, kind: Kind, content: Content, from: From, verify: bool },
    SetMode { path: PathBuf, mode: u32 },
    Keep { path: PathBuf, kind: Kind, why: &'static str },
    Remove { path: PathBuf, kind: Kind },
}

/// Steps, and the set that is in place after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub target: Set,
}

impl Plan {
    /// Whether anything on the disk changes.
    pub fn changes(&self) -> bool {
        self.steps.iter().any(|step| !matches!(step, Step::Keep { .. }))
    }
}

/// Plans the way from what is there to the wish.
pub fn plan(observed: &Observed, records: &Records, wish: &Wish, version: &str) -> Plan {
    let planner = Planner { observed, records, wish };
    let target = planner.target(version);
    let mut steps = planner.sweeps();
    steps.extend(planner.saves(&target));
    steps.extend(planner.dirs());
    let (conflists, others) = planner.removals(&target);
    let places = planner.places();
    if wish.files.iter().any(|want| want.kind == Kind::Conflist) {
        steps.extend(places);
        steps.extend(conflists);
    } else {
        steps.extend(conflists);
        steps.extend(places);
    }
    steps.extend(others);
    Plan { steps, target }
}

struct Planner<'a> {
    observed: &'a Observed,
    records: &'a Records,
    wish: &'a Wish,
}

impl Planner<'_> {
    /// The sets that may have put something where it is.
    fn known(&self) -> impl Iterator<Item = &Set> {
        self.records.pending.iter().chain(std::iter::once(&self.records.current))
    }

    /// Whether a content at a path is (or was) of ours.
    fn is_ours(&self, path: &Path, sha256: &Hash) -> bool {
        self.known().chain(&self.records.previous).filter_map(|set| set.find(path)).any(|entry| {
            entry.content.sha256 == *sha256 && entry.origin.as_ref().is_none_or(|o| o.sha256 != *sha256)
        })
    }

    /// What somebody else has, or had, at a path. The newest counts: their installer may have
    /// brought another version since.
    fn origin(&self, path: &Path) -> Option<Content> {
        if is_own_name(path) {
            return None;
        }
        let recorded = || self.known().find_map(|set| origin_in(set, path)).cloned();
        match self.observed.files.get(path) {
            Some(seen) if !self.is_ours(path, &seen.sha256) => Some(seen.clone()),
            _ => recorded(),
        }
    }

    fn target(&self, version: &str) -> Set {
        let entry = |want: &Want| Entry {
            path: want.path.clone(),
            kind: want.kind,
            content: self.kept(want).unwrap_or_else(|| want.content.clone()),
            origin: self.origin(&want.path),
        };
        let displaced = |(path, kind): &(PathBuf, Kind)| {
            let origin = self.origin(path)?;
            Some(Displaced { path: path.clone(), kind: *kind, origin })
        };
        Set {
            made_by: version.to_owned(),
            taken_over: self.wish.taken_over,
            routes: self.wish.routes,
            back: self.wish.back,
            files: self.wish.files.iter().map(entry).collect(),
            displaced: self.wish.absent.iter().filter_map(displaced).collect(),
        }
    }

    fn kept(&self, want: &Want) -> Option<Content> {
        self.observed.files.get(&want.path).filter(|_| want.keep_existing).cloned()
    }

    fn sweeps(&self) -> Vec<Step> {
        self.observed.leftovers.iter().map(|path| Step::Sweep { path: path.clone() }).collect()
    }

    /// Contents on disk that a roll-back or a return needs, and that are about to go.
    fn saves(&self, target: &Set) -> Vec<Step> {
        let goes = |path: &Path, seen: &Content| match target.find(path) {
            Some(entry) => entry.content.sha256 != seen.sha256,
            None => {
                self.wish.absent.iter().any(|(gone, _)| gone == path)
                    || self.known().any(|set| set.find(path).is_some())
            }
        };
        let needed = |path: &Path, seen: &Content| {
            let of_set = |set: &Set| {
                let entry = set.find(path);
                entry.is_some_and(|e| e.kind.makes_generation() && e.content.sha256 == seen.sha256)
            };
            self.origin(path).is_some_and(|o| o.sha256 == seen.sha256)
                || self.known().chain(&self.records.previous).any(of_set)
        };
        let saved = &self.observed.saved;
        let files = self.observed.files.iter();
        let needed = files
            .filter(|(path, seen)| goes(path, seen) && needed(path, seen) && !saved.contains(&seen.sha256));
        needed.map(|(path, seen)| Step::Save { path: path.clone(), sha256: seen.sha256.clone() }).collect()
    }

    fn dirs(&self) -> Vec<Step> {
        let parents =
            self.wish.files.iter().filter_map(|want| want.path.parent().map(|dir| (dir, want.kind)));
        let missing = parents.filter(|(dir, _)| !self.observed.dirs.contains(*dir));
        let modes: BTreeMap<&Path, u32> = missing.map(|(dir, kind)| (dir, dir_mode(kind))).collect();
        modes.into_iter().map(|(path, mode)| Step::MakeDir { path: path.to_owned(), mode }).collect()
    }

    fn places(&self) -> Vec<Step> {
        let mut wants: Vec<&Want> = self.wish.files.iter().collect();
        // Stable: within a kind the wish's order counts.
        wants.sort_by_key(|want| want.kind);
        wants.into_iter().map(|want| self.place(want)).collect()
    }

    fn place(&self, want: &Want) -> Step {
        let (path, kind) = (want.path.clone(), want.kind);
        match self.observed.files.get(&path) {
            Some(_) if want.keep_existing => {
                Step::Keep { path, kind, why: "is there, and UPDATE_CNI_BINARIES is false" }
            }
            Some(seen) if *seen == want.content => Step::Keep { path, kind, why: "is as it should be" },
            Some(seen) if seen.sha256 == want.content.sha256 => {
                Step::SetMode { path, mode: want.content.mode }
            }
            _ => Step::Place {
                path,
                kind,
                content: want.content.clone(),
                from: want.from.clone(),
                verify: kind == Kind::Plugin && want.from != From::Saved,
            },
        }
    }

    /// What goes: conflists, and the rest.
    fn removals(&self, target: &Set) -> (Vec<Step>, Vec<Step>) {
        let mut gone: BTreeMap<PathBuf, Kind> = BTreeMap::new();
        for entry in self.known().flat_map(|set| &set.files) {
            gone.insert(entry.path.clone(), entry.kind);
        }
        gone.extend(self.wish.absent.iter().cloned());
        gone.retain(|path, _| target.find(path).is_none() && self.observed.files.contains_key(path));
        let mut steps: Vec<(PathBuf, Kind)> = gone.into_iter().collect();
        steps.sort_by_key(|(_, kind)| std::cmp::Reverse(*kind));
        let steps = steps.into_iter().map(|(path, kind)| Step::Remove { path, kind });
        steps.partition(|step| matches!(step, Step::Remove { kind: Kind::Conflist | Kind::Staged, .. }))
    }
}

fn origin_in<'a>(set: &'a Set, path: &Path) -> Option<&'a Content> {
    let of_file = set.find(path).and_then(|entry| entry.origin.as_ref());
    of_file.or_else(|| set.displaced.iter().find(|gone| gone.path == path).map(|gone| &gone.origin))
}

fn dir_mode(kind: Kind) -> u32 {
    if matches!(kind, Kind::Certificate | Kind::Staged) { 0o700 } else { 0o755 }
}

/// The wish for nothing: what others had comes back, what is ours goes.
pub fn restored(records: &Records) -> Wish {
    let mut origins: BTreeMap<PathBuf, (Kind, Content)> = BTreeMap::new();
    for set in std::iter::once(&records.current).chain(&records.pending) {
        for entry in &set.files {
            if let Some(origin) = &entry.origin {
                origins.insert(entry.path.clone(), (entry.kind, origin.clone()));
            }
        }
        let displaced =
            set.displaced.iter().map(|gone| (gone.path.clone(), (gone.kind, gone.origin.clone())));
        origins.extend(displaced);
    }
    let want =
        |(path, (kind, content))| Want { path, kind, content, from: From::Saved, keep_existing: false };
    Wish { files: origins.into_iter().map(want).collect(), ..Wish::default() }
}

/// The wish for the set before. Of a run that was cut off it is the set that was complete last; of a
/// way back that was cut off, where it led. A node that is back already stays: asked twice, it does
/// not go forth again. Tokens and certificates stay as they are now.
pub fn rolled_back(records: &Records) -> Option<Wish> {
    let set = match &records.pending {
        Some(pending) if !pending.back => &records.current,
        None if records.current.back => &records.current,
        _ => records.previous.as_ref()?,
    };
    if set.is_empty() {
        return Some(Wish { back: true, ..restored(records) });
    }
    let want = |entry: &Entry| Want {
        path: entry.path.clone(),
        kind: entry.kind,
        content: entry.content.clone(),
        from: From::Saved,
        keep_existing: !entry.kind.makes_generation(),
    };
    let mut files: Vec<Want> = set.files.iter().filter(|e| e.kind.makes_generation()).map(want).collect();
    let now = &records.current.files;
    files.extend(now.iter().filter(|e| !e.kind.makes_generation()).map(want));
    let in_set = |path: &Path| set.find(path).is_some();
    files.extend(
        restored(records).files.into_iter().filter(|w| w.kind.makes_generation() && !in_set(&w.path)),
    );
    let absent = set.displaced.iter().map(|gone| (gone.path.clone(), gone.kind)).collect::<Vec<_>>();
    files.retain(|want| !absent.iter().any(|(path, _)| *path == want.path));
    let routes = set.taken_over && records.current.routes;
    Some(Wish { files, absent, taken_over: set.taken_over, routes, back: true })
}

/// The records once the plan's target is in place.
pub fn completed(records: &Records, target: Set) -> Records {
    let same = records.current.generation() == target.generation();
    let previous = if same { records.previous.clone() } else { Some(records.current.clone()) };
    Records { current: target, previous, pending: None }
}

/// Contents that must stay in the state directory.
pub fn referenced(records: &Records) -> BTreeSet<Hash> {
    let sets = std::iter::once(&records.current).chain(&records.previous).chain(&records.pending);
    let mut all = BTreeSet::new();
    for set in sets {
        all.extend(set.origins().map(|content| content.sha256.clone()));
        let files = set.files.iter().filter(|entry| entry.kind.makes_generation());
        all.extend(files.map(|entry| entry.content.sha256.clone()));
    }
    all
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
