//! One run: what is asked for, from the lock to the last step.

use crate::cluster::{self, Api};
use crate::execute;
use crate::observe;
use crate::options::{Mode, Options, Stage};
use crate::plan::{self, Plan, Records, Wish};
use crate::runtimes;
use crate::set::{Kind, is_own_name};
use crate::settings::Settings;
use crate::show;
use crate::state::State;
use crate::wish;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Does what the settings ask for. True when something was changed.
///
/// # Errors
/// Why nothing, or not everything, was done.
pub fn once(settings: &Settings, token: Option<&str>) -> Result<bool> {
    let state = State::new(settings.records_dir());
    let _lock = state.lock()?;
    let records = state.read()?;
    let plan = planned(settings, &state, &records, token)?;
    execute::execute(&plan, &records, &state)?;
    if matches!(settings.mode, Mode::Uninstall | Mode::GiveBack) {
        state.forget()?;
        for dir in [settings.tls_dir(), settings.state_dir.join("conflist")] {
            // Only where it is empty.
            let _ = fs::remove_dir(dir);
        }
    }
    Ok(plan.changes())
}

/// What `--dry-run` prints.
///
/// # Errors
/// As `once`, before the first change.
pub fn dry(settings: &Settings, options: &Options, token: Option<&str>) -> Result<String> {
    let state = State::new(settings.records_dir());
    let records = state.read()?;
    let plan = planned(settings, &state, &records, token)?;
    Ok(show::render(&plan, &warnings(settings), options.output))
}

/// Where runtimes look elsewhere.
pub fn warnings(settings: &Settings) -> Vec<String> {
    runtimes::warnings(&settings.host_root, &settings.bin_dirs, &settings.conf_dir)
}

fn planned(settings: &Settings, state: &State, records: &Records, token: Option<&str>) -> Result<Plan> {
    let wish = wished(settings, records, token)?;
    let mut swept: Vec<PathBuf> = settings.bin_dirs.clone();
    swept.extend([settings.conf_dir.clone(), settings.tls_dir(), settings.state_dir.join("conflist")]);
    swept.extend([settings.records_dir(), settings.records_dir().join("contents")]);
    let observed = observe::observe(&wish, records, &swept, state.saved())?;
    Ok(plan::plan(&observed, records, &wish, VERSION))
}

fn wished(settings: &Settings, records: &Records, token: Option<&str>) -> Result<Wish> {
    match settings.mode {
        Mode::Install => wish::install(settings, records, token),
        Mode::Rollback => match plan::rolled_back(records) {
            Some(wish) => Ok(wish),
            None => bail!("{}: no set before this one is recorded", settings.records_dir().display()),
        },
        Mode::Uninstall => uninstall(settings, records),
        Mode::GiveBack => give_back(settings, records),
        Mode::TakeOver(Stage::Plugin) => {
            if !wish::is_take_over(&Settings { mode: Mode::Install, ..settings.clone() }, records) {
                calico_config(settings)?;
            }
            wish::install(settings, records, token)
        }
        Mode::TakeOver(Stage::All) => Err(refuse_stage_two(settings)?),
    }
}

fn uninstall(settings: &Settings, records: &Records) -> Result<Wish> {
    if wish::is_take_over(settings, records) {
        bail!("this node was taken over from Calico, whose pods would lose their plugin; use --give-back");
    }
    let mut wish = plan::restored(records);
    // What the daemon has published.
    wish.absent.push((settings.conf_dir.join(&settings.conf_name), Kind::Conflist));
    Ok(wish)
}

fn give_back(settings: &Settings, records: &Records) -> Result<Wish> {
    let taken_over = wish::is_take_over(settings, records);
    // A run that was killed after its last step left a record of Calico's files alone.
    let installed = records.current.files.iter().any(|entry| is_own_name(&entry.path));
    if !taken_over && installed {
        bail!("this node was not taken over from Calico; --uninstall removes Percale");
    }
    Ok(plan::restored(records))
}

/// Calico's section of its configuration on this node.
fn calico_config(settings: &Settings) -> Result<Value> {
    let name = Some(&settings.old_conf_name).filter(|name| !name.is_empty()).unwrap_or(&settings.conf_name);
    let file = settings.conf_dir.join(name);
    let what = || format!("{}: Calico's configuration, which is to be taken over", file.display());
    let conf: Value = serde_json::from_slice(&fs::read(&file).with_context(what)?).with_context(what)?;
    let sections = conf["plugins"].as_array().cloned().unwrap_or_else(|| vec![conf.clone()]);
    let calico = sections.into_iter().find(|plugin| plugin["type"] == "calico");
    calico.with_context(|| format!("{}: has no plugin of type calico; nothing to take over", file.display()))
}

/// Why all of Calico's work cannot be taken over (decision 35).
fn refuse_stage_two(settings: &Settings) -> Result<anyhow::Error> {
    let conf = calico_config(settings)?;
    let policies = policies(settings, &conf)?;
    Ok(if policies.is_empty() {
        anyhow::anyhow!(
            "--take-over=all: no policy exists, but this build does not yet take routes and chains over from \
             calico-node; --take-over takes the plugin and the IPAM, beside a calico-node that keeps running"
        )
    } else {
        anyhow::anyhow!(
            "--take-over=all: refused, because policies exist that this build cannot enforce ({}); pods would be \
             open that are closed now. --take-over takes the plugin and the IPAM, and leaves policy to calico-node",
            policies.join(", ")
        )
    })
}

fn policies(settings: &Settings, conf: &Value) -> Result<Vec<String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let endpoints = text(&conf["etcd_endpoints"]);
    if conf["datastore_type"] == "etcdv3" || !endpoints.is_empty() {
        let file = |key: &str| {
            let path = text(&conf[key]);
            (!path.is_empty()).then(|| on_host(settings, &path))
        };
        let config = datastore_etcd::Config {
            endpoints: endpoints
                .split(',')
                .map(str::trim)
                .filter(|e| !e.is_empty())
                .map(str::to_owned)
                .collect(),
            discovery_srv: text(&conf["etcd_discovery_srv"]),
            ca_cert_file: file("etcd_ca_cert_file"),
            cert_file: file("etcd_cert_file"),
            key_file: file("etcd_key_file"),
            ..datastore_etcd::Config::default()
        };
        return cluster::policies_in_etcd(&config).context("whether policies exist cannot be told");
    }
    let kubeconfig = text(&conf["kubernetes"]["kubeconfig"]);
    if kubeconfig.is_empty() {
        bail!(
            "whether policies exist cannot be told: Calico's configuration names neither etcd nor a kubeconfig"
        );
    }
    Api::by_kubeconfig(&on_host(settings, &kubeconfig))?.policies()
}

/// A path that a file of the host names.
fn on_host(settings: &Settings, path: &str) -> PathBuf {
    match Path::new(path).strip_prefix("/") {
        Ok(tail) => settings.host_root.join(tail),
        Err(_) => path.into(),
    }
}
