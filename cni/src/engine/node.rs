//! Who this host is (decision 31) and the MTU of its pods (C-05).

use super::{small, stores};
use cni_protocol::{CniError, Request};
use std::{fs, io, path::Path};

/// Smallest MTU that IPv4 allows (RFC 791), largest of an Ethernet-like Linux link.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 68..=65535;
/// Pod MTU where neither the configuration nor the MTU file says one.
const DEFAULT_MTU: u32 = 1500;

/// The node's name: the configuration, then the nodename file, then the deprecated `hostname` key,
/// then the host's name in lower case, which is written to the file so that it stays the same when
/// the host is renamed. In a cluster that file is its agent's word that networking is up: where it is
/// required it is left to the agent.
pub fn name(req: &Request) -> String {
    let is_ours = || !stores::is_cluster(req) || req.conf.nodename_file_optional;
    let file = &req.paths.nodename_file;
    if !req.conf.nodename.is_empty() {
        // For whoever reads the store without this configuration. Calico's directory is its agent's.
        if file.starts_with(&req.paths.state_dir) && !file.exists() && is_ours() {
            let _ = pin(file, &req.conf.nodename);
        }
        return req.conf.nodename.clone();
    }
    if let Ok(name) = small::read(file)
        && !name.trim().is_empty()
    {
        return name.trim().to_owned();
    }
    let deprecated = Some(&req.conf.hostname).filter(|name| !name.is_empty());
    let name = deprecated.cloned().unwrap_or_else(host_name);
    if is_ours() {
        // Best effort: on a read-only host the name is found anew each time.
        let _ = pin(file, &name);
    }
    name
}

/// In a cluster: that the host's agent has written the nodename file, unless that is optional (decision 31).
///
/// # Errors
/// Code 11 until it has.
pub(crate) fn required(req: &Request) -> Result<(), CniError> {
    let file = &req.paths.nodename_file;
    if req.conf.nodename_file_optional || file.exists() {
        return Ok(());
    }
    Err(CniError::try_again(format!(
        "nodename_file: {} is not there; is the host's agent (percaled or calico-node) running, with that \
         directory of the host?",
        file.display()
    )))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase()
}

fn pin(file: &Path, name: &str) -> io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let temporary = dir.join(format!(".nodename.{}", std::process::id()));
    fs::write(&temporary, name)?;
    // A link, not a rename: of two first calls the first wins, and both read the same afterwards.
    let linked = fs::hard_link(&temporary, file);
    fs::remove_file(&temporary)?;
    linked
}

/// The pod MTU, and a warning when the MTU file could not be used: a broken file never fails a pod.
pub(crate) fn mtu(req: &Request) -> (u32, Option<String>) {
    if req.conf.mtu != 0 {
        return (req.conf.mtu, None);
    }
    let file = &req.paths.mtu_file;
    match small::read(file) {
        Ok(text) => match text.trim().parse().ok().filter(|m| MTU_RANGE.contains(m)) {
            Some(mtu) => (mtu, None),
            None => (DEFAULT_MTU, Some(format!("{}: not an MTU, using {DEFAULT_MTU}", file.display()))),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => (DEFAULT_MTU, None),
        Err(e) => (DEFAULT_MTU, Some(format!("{}: {e}, using {DEFAULT_MTU}", file.display()))),
    }
}
