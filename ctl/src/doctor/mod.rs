//! `doctor`: is this host fit for Percale, and if not, what cures it.
//!
//! Every check looks and changes nothing. It gets the [`Host`] that was gathered once and answers
//! with [`Finding`]s; what is fine is only counted.

mod certificate;
mod cluster;
mod config;
mod daemon;
mod firewall;
mod glob;
mod managers;
mod plugins;
mod program;
mod state;
mod sysctls;

use crate::cli::{DoctorArgs, Output};
use crate::host;
use crate::outcome::{Outcome, say, say_json};
use crate::session::Places;
use anyhow::Result;
use netlink::Link;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Pods fail or lose packets, or soon will.
    Wrong,
    /// Worth knowing; nothing fails by it alone.
    Note,
}

/// Something about this host that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check that found it.
    pub check: &'static str,
    pub severity: Severity,
    pub what: String,
    pub why: String,
    /// A command, or what to do where no command does it.
    pub cure: String,
}

impl Finding {
    fn wrong(check: &'static str, what: String, why: &str, cure: String) -> Self {
        Self { check, severity: Severity::Wrong, what, why: why.to_owned(), cure }
    }

    fn note(check: &'static str, what: String, why: &str, cure: String) -> Self {
        Self { check, severity: Severity::Note, what, why: why.to_owned(), cure }
    }
}

/// What all checks look at.
pub struct Host<'a> {
    places: &'a Places,
    /// Where the examined host's `/` is.
    root: &'a Path,
    conf_dir: PathBuf,
    /// Directories of plugins; empty means: find out.
    bin_dirs: Vec<PathBuf>,
    /// Host ends of pods.
    pod_links: Vec<Link>,
    /// The host uses IPv6.
    ipv6: bool,
    /// Where its daemon says how it is.
    health_addr: SocketAddr,
}

impl Host<'_> {
    /// A path of the examined host.
    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file, without white space around it; `None` where it cannot be read.
    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(std::fs::read_to_string(self.path(path)).ok()?.trim().to_owned())
    }

    fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }
}

type Check = (&'static str, fn(&Host<'_>) -> Vec<Finding>);

/// Every check, in the order in which findings are printed.
const CHECKS: &[Check] = &[
    ("plugins", plugins::check),
    ("configuration", config::check),
    ("sysctls", sysctls::check),
    ("firewall", firewall::check),
    ("network managers", managers::check),
    ("daemon", daemon::check),
    ("store", state::store),
    ("cluster", cluster::check),
    ("journal", state::journal),
    ("leases and links", state::audit),
];

/// Runs every check and prints what was found.
pub fn doctor(places: &Places, args: &DoctorArgs) -> Result<Outcome> {
    let host = gather(places, args)?;
    let findings: Vec<Finding> = CHECKS.iter().flat_map(|(_, check)| check(&host)).collect();
    match args.output.output {
        Output::Json => say_json(&Printed::of(&findings))?,
        Output::Table => say(&text(&findings))?,
    }
    let wrong = findings.iter().any(|f| f.severity == Severity::Wrong);
    Ok(if wrong { Outcome::Found } else { Outcome::Done })
}

fn gather<'a>(places: &'a Places, args: &'a DoctorArgs) -> Result<Host<'a>> {
    let prefixed = |link: &Link| link.name.starts_with(model::veth::PREFIX);
    let pod_links = host::links()?.into_iter().filter(|l| prefixed(l) || host::is_ours(l)).collect();
    let root = args.host_root.as_path();
    let mut host = Host {
        places,
        root,
        conf_dir: PathBuf::new(),
        bin_dirs: args.bin_dir.clone(),
        pod_links,
        ipv6: false,
        health_addr: args.health_addr,
    };
    host.conf_dir = host.path(&args.conf_dir);
    host.ipv6 = host.exists("/proc/sys/net/ipv6/conf/all/forwarding");
    Ok(host)
}

#[derive(Serialize)]
struct Printed<'a> {
    healthy: bool,
    checks: Vec<&'static str>,
    findings: &'a [Finding],
}

impl<'a> Printed<'a> {
    fn of(findings: &'a [Finding]) -> Self {
        let healthy = findings.iter().all(|f| f.severity != Severity::Wrong);
        Self { healthy, checks: CHECKS.iter().map(|(name, _)| *name).collect(), findings }
    }
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for (name, _) in CHECKS {
        let found: Vec<&Finding> = findings.iter().filter(|f| f.check == *name).collect();
        if found.is_empty() {
            text += &format!("ok     {name}\n");
        }
        text.extend(found.into_iter().map(finding_text));
    }
    let wrong = findings.iter().filter(|f| f.severity == Severity::Wrong).count();
    let verdict = match wrong {
        0 => "this host is fit".to_owned(),
        1 => "1 thing is wrong".to_owned(),
        n => format!("{n} things are wrong"),
    };
    text + &verdict
}

fn finding_text(finding: &Finding) -> String {
    let mark = match finding.severity {
        Severity::Wrong => "WRONG",
        Severity::Note => "note",
    };
    let Finding { check, what, why, cure, .. } = finding;
    let mut text = format!("{mark:<6} {check}: {what}\n       why:  {why}\n");
    text.extend(cure.lines().enumerate().map(|(at, line)| {
        let label = if at == 0 { "cure:" } else { "" };
        format!("       {label:<5} {line}\n")
    }));
    text
}

/// A host for tests: its files are under `root`, and it has no links.
#[cfg(test)]
fn fake<'a>(places: &'a Places, root: &'a Path) -> Host<'a> {
    Host {
        places,
        root,
        conf_dir: root.join("etc/cni/net.d"),
        bin_dirs: vec![],
        pod_links: vec![],
        ipv6: true,
        health_addr: SocketAddr::from(([127, 0, 0, 1], 1)),
    }
}

/// Places below a directory, for tests.
#[cfg(test)]
fn fake_places(root: &Path) -> Places {
    Places {
        backend: crate::backend::Backend::Embedded(root.join("state/store")),
        store: root.join("state/store"),
        state_dir: root.join("state"),
        lock_file: root.join("run/ipam.lock"),
        attachment_dir: root.join("run/attachments"),
    }
}

/// Writes a file below `root` and the directories above it, for tests.
#[cfg(test)]
fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A pod's link, for tests.
#[cfg(test)]
fn pod_link(name: &str) -> Link {
    Link {
        index: 9,
        name: name.into(),
        alias: Some("percale:net/c1/eth0".into()),
        mac: None,
        mtu: 1500,
        up: true,
        lower_up: true,
        kind: Some("veth".into()),
        peer_ifindex: None,
        peer_netnsid: None,
        group: 0,
    }
}
