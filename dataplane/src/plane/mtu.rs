//! The MTU file for the plugin, and the links of pods that were wired with another MTU.

use anyhow::{Context as _, Result};
use netlink::{Netns, Nl};
use policy::Graph;
use policy::wish::Workload;
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// Writes the file where its content differs, then brings pods along that have the MTU it had before.
/// How many links were changed.
pub(super) fn publish(state_dir: &Path, mtu: u32, nl: &mut Nl, graph: &Graph) -> Result<usize> {
    let file = state_dir.join("mtu");
    let before = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
    if before == Some(mtu) {
        return Ok(0);
    }
    write(&file, mtu).with_context(|| format!("writing {}", file.display()))?;
    tracing::info!(mtu, before, "MTU of pods");
    match before {
        Some(before) => follow(nl, graph, before, mtu),
        None => Ok(0),
    }
}

/// Whole or not at all, whoever reads meanwhile.
fn write(file: &Path, mtu: u32) -> std::io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let temporary = dir.join(format!(".mtu.{}", std::process::id()));
    let mut out = fs::File::create(&temporary)?;
    write!(out, "{mtu}")?;
    out.sync_all()?;
    fs::rename(&temporary, file)
}

/// Pods' links that have the former MTU: both ends. Those with another one were configured so.
fn follow(nl: &mut Nl, graph: &Graph, before: u32, mtu: u32) -> Result<usize> {
    let mut changed = 0;
    let links = netlink::links(nl, &graph.config().interface_prefix)?;
    for link in links.iter().filter(|link| link.mtu == before) {
        changed += usize::from(netlink::ensure_mtu(nl, link, mtu)?);
    }
    for workload in graph.wish().workloads.values() {
        match inside(workload, before, mtu) {
            Ok(done) => changed += usize::from(done),
            Err(error) => tracing::warn!(handle = workload.handle, "MTU inside the pod: {error}"),
        }
    }
    Ok(changed)
}

/// The pod's own end, if its namespace is still the one that the lease names.
fn inside(workload: &Workload, before: u32, mtu: u32) -> Result<bool, netlink::Error> {
    let (Some(netns), Some(ifname)) = (&workload.netns, &workload.ifname) else { return Ok(false) };
    let (path, inode) = model::netns::parse(netns);
    let Ok(netns) = Netns::open(Path::new(path)) else { return Ok(false) };
    if inode.is_some_and(|inode| netns.id().is_ok_and(|id| id.ino != inode)) {
        return Ok(false);
    }
    let mut nl = netns.socket(super::kernel::PATIENCE)?;
    match netlink::link(&mut nl, ifname)? {
        Some(link) if link.mtu == before => netlink::ensure_mtu(&mut nl, &link, mtu),
        _ => Ok(false),
    }
}
