//! Why this path: the answer of selection, policy and advertisement for one prefix.

use std::sync::Arc;

use crate::Prefix;
use crate::wire::Attributes;

use super::Rib;
use super::export::{Cache, Exporter, Withheld};
use super::import::Refusal;
use super::path::{Freshness, Path, PeerId};
use super::select::{Candidate, Step, eliminate, phases};

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The one that peers are told.
    Best,
    /// As good as the best; used with it if `used`, left over by the limit on paths or without ECMP if not.
    /// The step is the one that made the other the best.
    Equal {
        used: bool,
        step: Step,
    },
    /// Another was better by this step.
    Lost(Step),
    /// Its next hop cannot be reached.
    Unreachable,
    Refused(Refusal),
}

/// One path of the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReport {
    pub peer: PeerId,
    pub path_id: u32,
    pub fate: Fate,
    pub freshness: Freshness,
    /// As policy left them; as received where it was refused.
    pub attributes: Arc<Attributes>,
}

/// Everything about a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub prefix: Prefix,
    /// Best first.
    pub paths: Vec<PathReport>,
    /// What each peer that is up is told of the best path, or why it is not.
    pub told: Vec<(PeerId, Result<Arc<Attributes>, Withheld>)>,
}

impl Rib {
    /// Explains a prefix; `None` if no peer told of it.
    pub fn explain(&mut self, prefix: Prefix) -> Option<Explanation> {
        let node = self.table.get(&prefix)?.clone();
        let fates = self.fates(&node.paths);
        let reports = node.paths.iter().map(|path| self.report(prefix, path, &fates, node.multipath()));
        let paths = reports.collect();
        let told = node.best().map(|best| self.told_of(prefix, best)).unwrap_or_default();
        Some(Explanation { prefix, paths, told })
    }

    /// The step at which each candidate lost, and whether that was only a tie-break.
    fn fates(&self, paths: &[Path]) -> Vec<(PeerId, u32, Step, bool)> {
        let context = self.context();
        let list: Vec<Candidate<'_>> = paths.iter().filter_map(|p| context.candidate(p)).collect();
        let mut fates = Vec::new();
        let (equal, tie) = phases();
        let left = eliminate(equal, list, |step, c| fates.push((c.path.peer, c.path.path_id, step, false)));
        eliminate(tie, left, |step, c| fates.push((c.path.peer, c.path.path_id, step, true)));
        fates
    }

    fn report(
        &self,
        prefix: Prefix,
        path: &Path,
        fates: &[(PeerId, u32, Step, bool)],
        used: &[Path],
    ) -> PathReport {
        let is_used = used.iter().any(|p| (p.peer, p.path_id) == (path.peer, path.path_id));
        let lost = fates.iter().find(|f| (f.0, f.1) == (path.peer, path.path_id));
        let fate = match (&path.accepted, lost) {
            (None, _) => Fate::Refused(self.refusal(prefix, path).unwrap_or(Refusal::Policy { rule: None })),
            (Some(_), Some((_, _, step, true))) => Fate::Equal { used: is_used, step: *step },
            (Some(_), Some((_, _, step, false))) => Fate::Lost(*step),
            (Some(_), None) if is_used => Fate::Best,
            (Some(_), None) => Fate::Unreachable,
        };
        let attributes = path.accepted.as_ref().unwrap_or(&path.received).clone();
        PathReport { peer: path.peer, path_id: path.path_id, fate, freshness: path.freshness, attributes }
    }

    fn told_of(&mut self, prefix: Prefix, best: &Path) -> Vec<(PeerId, Result<Arc<Attributes>, Withheld>)> {
        let Rib { neighbors, options, outs, exports: interner, .. } = self;
        let exporter = Exporter { neighbors, options };
        let peers = outs.keys().filter_map(|id| neighbors.get(*id).map(|n| (*id, n)));
        peers
            .map(|(id, n)| (id, exporter.export((id, n), prefix, best, &mut Cache::default(), interner)))
            .collect()
    }
}
