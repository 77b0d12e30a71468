//! One run: what is asked for, from the lock to the last step.

use crate::execute;
use crate::handover;
use crate::observe;
use crate::options::{Mode, Options, Stage};
use crate::plan::{self, Plan, Records, Wish};
use crate::runtimes;
use crate::set::{Kind, is_own_name};
use crate::settings::{CALICOS_CONF_NAME, Settings};
use crate::show;
use crate::state::State;
use crate::wish;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Does what the settings ask for. True when something was changed.
///
/// # Errors
/// Why nothing, or not everything, was done.
pub fn once(settings: &Settings, token: Option<&str>) -> Result<bool> {
    let state = State::new(settings.records_dir());
    let _lock = state.lock()?;
    finish_give_back(settings, &state)?;
    let records = state.read()?;
    let plan = planned(settings, &state, &records, token)?;
    let whole = wish::is_whole(settings, &records);
    if whole && settings.mode == Mode::TakeOver(Stage::All) && !records.current.routes {
        handover::keep_calico_off(settings, &calico_config(settings, &state, &records)?)?;
    }
    execute::execute(&plan, &records, &state)?;
    if matches!(settings.mode, Mode::Uninstall | Mode::GiveBack) {
        // Calico's plugins and configuration are back: now calico-node may come.
        finish_give_back(settings, &state)?;
        state.forget()?;
        for dir in [settings.tls_dir(), settings.state_dir.join("conflist")] {
            // Only where it is empty.
            let _ = fs::remove_dir(dir);
        }
    }
    Ok(plan.changes())
}

/// The end of a way back from stage 2, whose files are in place: calico-node may come, and the records are empty.
/// Cut off before, it is due in the next run, whatever that is asked for.
fn finish_give_back(settings: &Settings, state: &State) -> Result<()> {
    let records = state.read()?;
    if !keeps_calico_off(&records) {
        return Ok(());
    }
    let mut settings = settings.clone();
    if settings.old_conf_name.is_empty() {
        CALICOS_CONF_NAME.clone_into(&mut settings.old_conf_name);
    }
    handover::let_calico_in(&settings, &calico_config(&settings, state, &records)?)?;
    let nothing = Records::default();
    state.write(&nothing)?;
    state.clean(&nothing);
    Ok(())
}

/// The node was given back, all but the label.
fn keeps_calico_off(records: &Records) -> bool {
    records.current.routes && !records.current.taken_over
}

/// What `--dry-run` prints.
///
/// # Errors
/// As `once`, before the first change.
pub fn dry(settings: &Settings, options: &Options, token: Option<&str>) -> Result<String> {
    let state = State::new(settings.records_dir());
    let read = state.read()?;
    let records = if keeps_calico_off(&read) { Records::default() } else { read };
    let plan = planned(settings, &state, &records, token)?;
    Ok(show::render(&plan, &warnings(settings), options.output))
}

/// Where runtimes look elsewhere.
pub fn warnings(settings: &Settings) -> Vec<String> {
    runtimes::warnings(&settings.host_root, &settings.bin_dirs, &settings.conf_dir)
}

fn planned(settings: &Settings, state: &State, records: &Records, token: Option<&str>) -> Result<Plan> {
    let wish = wished(settings, state, records, token)?;
    let mut swept: Vec<PathBuf> = settings.bin_dirs.clone();
    swept.extend([settings.conf_dir.clone(), settings.tls_dir(), settings.state_dir.join("conflist")]);
    swept.extend([
        settings.state_dir.clone(),
        settings.records_dir(),
        settings.records_dir().join("contents"),
    ]);
    let observed = observe::observe(&wish, records, &swept, state.saved())?;
    Ok(plan::plan(&observed, records, &wish, VERSION))
}

fn wished(settings: &Settings, state: &State, records: &Records, token: Option<&str>) -> Result<Wish> {
    match settings.mode {
        Mode::Install => wish::install(settings, records, token),
        Mode::Rollback if leaves_stage_two(records) => {
            bail!("the set before is from before calico-node's work was taken over; --give-back leads there")
        }
        Mode::Rollback => match plan::rolled_back(records) {
            Some(wish) => Ok(wish),
            None => bail!("{}: no set before this one is recorded", settings.records_dir().display()),
        },
        Mode::Uninstall => uninstall(settings, records),
        Mode::GiveBack => give_back(settings, records),
        Mode::TakeOver(stage) => {
            let before = Settings { mode: Mode::Install, ..settings.clone() };
            if stage == Stage::All && !records.current.routes {
                handover::refuse_policies(settings, &calico_config(settings, state, records)?)?;
            } else if !wish::is_take_over(&before, records) {
                calico_config(settings, state, records)?;
            }
            wish::install(settings, records, token)
        }
    }
}

/// The set before would leave the node without anybody's routes and rules.
fn leaves_stage_two(records: &Records) -> bool {
    let whole = records.current.routes || records.pending.as_ref().is_some_and(|set| set.routes);
    whole && !plan::rolled_back(records).is_some_and(|wish| wish.taken_over)
}

fn uninstall(settings: &Settings, records: &Records) -> Result<Wish> {
    if wish::is_take_over(settings, records) {
        bail!("this node was taken over from Calico, whose pods would lose their plugin; use --give-back");
    }
    let mut wish = plan::restored(records);
    // What the daemon has published.
    wish.absent.push((settings.conf_dir.join(&settings.conf_name), Kind::Conflist));
    wish.absent.push((settings.stage(), Kind::Stage));
    Ok(wish)
}

fn give_back(settings: &Settings, records: &Records) -> Result<Wish> {
    let taken_over = wish::is_take_over(settings, records);
    // A run that was killed after its last step left a record of Calico's files alone.
    let programs = records.current.files.iter().filter(|entry| entry.kind != Kind::Stage);
    let installed = programs.map(|entry| &entry.path).any(|path| is_own_name(path));
    if !taken_over && installed {
        bail!("this node was not taken over from Calico; --uninstall removes Percale");
    }
    // Of a node whose routes were ours it says that calico-node is still kept off, until that has ended too.
    let mut wish = Wish { routes: wish::is_whole(settings, records), ..plan::restored(records) };
    // A daemon that runs on must not do Calico's work again.
    wish.files.push(wish::stage(settings, "given-back"));
    Ok(wish)
}

/// Calico's section of its configuration on this node; of the one that is kept, where an earlier stage put another
/// in its place.
fn calico_config(settings: &Settings, state: &State, records: &Records) -> Result<Value> {
    let name = Some(&settings.old_conf_name).filter(|name| !name.is_empty()).unwrap_or(&settings.conf_name);
    let file = settings.conf_dir.join(name);
    let what = || format!("{}: Calico's configuration, which is to be taken over", file.display());
    let bytes = match fs::read(&file) {
        Err(e) if e.kind() == ErrorKind::NotFound => kept(state, records, &file).with_context(what)?,
        read => read.with_context(what)?,
    };
    let conf: Value = serde_json::from_slice(&bytes).with_context(what)?;
    let sections = conf["plugins"].as_array().cloned().unwrap_or_else(|| vec![conf.clone()]);
    let calico = sections.into_iter().find(|plugin| plugin["type"] == "calico");
    calico.with_context(|| format!("{}: has no plugin of type calico; nothing to take over", file.display()))
}

/// What was at a path before this node was taken over.
fn kept(state: &State, records: &Records, file: &Path) -> Result<Vec<u8>> {
    let sets = records.pending.iter().chain(std::iter::once(&records.current));
    let displaced = sets.flat_map(|set| &set.displaced).find(|gone| gone.path == file);
    let content = &displaced.context("there is none")?.origin;
    let mut bytes = Vec::new();
    state.open(&content.sha256)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
