//! Carries a plan out. The target is recorded before the first change and completed after the last,
//! so that whoever comes after a crash knows what may be where.

use crate::error::FileError;
use crate::place;
use crate::plan::{From, Plan, Records, Step, completed};
use crate::set::{Hash, Kind};
use crate::state::State;
use anyhow::{Context as _, Result};
use rustix::fs::Mode;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// # Errors
/// The first step that failed; those before it are done, and the next run goes on from there.
pub fn execute(plan: &Plan, records: &Records, state: &State) -> Result<Records> {
    let after = completed(records, plan.target.clone());
    if !plan.changes() {
        if after != *records {
            state.write(&after)?;
        }
        return Ok(after);
    }
    let (saves, rest): (Vec<&Step>, Vec<&Step>) =
        plan.steps.iter().partition(|step| matches!(step, Step::Save { .. }));
    check_owners(plan)?;
    for step in saves {
        carry_out(step, state)?;
    }
    state.require(&returning(plan))?;
    state.write(&Records { pending: Some(plan.target.clone()), ..records.clone() })?;
    for step in rest {
        carry_out(step, state)?;
    }
    state.write(&after)?;
    state.clean(&after);
    Ok(after)
}

fn check_owners(plan: &Plan) -> Result<(), FileError> {
    let placed = plan.steps.iter().filter_map(|step| match step {
        Step::Place { path, kind: Kind::Plugin | Kind::Conflist, .. } => path.parent(),
        _ => None,
    });
    placed.collect::<BTreeSet<_>>().into_iter().try_for_each(place::check_owner)
}

/// Contents that the plan takes out of the state directory.
fn returning(plan: &Plan) -> BTreeSet<Hash> {
    let saved = plan.steps.iter().filter_map(|step| match step {
        Step::Place { from: From::Saved, content, .. } => Some(content.sha256.clone()),
        _ => None,
    });
    saved.collect()
}

fn carry_out(step: &Step, state: &State) -> Result<()> {
    match step {
        Step::Keep { .. } => {}
        Step::MakeDir { path, mode } => place::make_dir(path, *mode)?,
        Step::Sweep { path } | Step::Remove { path, .. } => place::remove(path)?,
        Step::Save { path, sha256 } => state.save(path, sha256).context("keeping what is there now")?,
        Step::SetMode { path, mode } => set_mode(path, *mode)?,
        Step::Place { path, content, from, verify, .. } => {
            let mut source = open(from, &content.sha256, state)?;
            place::place(path, &mut *source, content, *verify)?;
            say(path, "put in place");
        }
    }
    if let Step::Remove { path, .. } = step {
        say(path, "removed");
    }
    Ok(())
}

fn say(path: &Path, what: &str) {
    eprintln!("percale-install: {}: {what}", path.display());
}

fn open(from: &From, sha256: &Hash, state: &State) -> Result<Box<dyn Read>, FileError> {
    Ok(match from {
        From::File(path) => Box::new(File::open(path).map_err(|e| FileError::os("read", path, e))?),
        From::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes.clone())),
        From::Saved => Box::new(state.open(sha256)?),
    })
}

fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(|e| FileError::errno("set the mode", path, e))
}
