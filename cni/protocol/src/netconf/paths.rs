//! Where things are on a host: what the configuration says, else the default of the name that the
//! binary runs under.

use crate::fields::{At, Fields};
use std::path::{Path, PathBuf};

/// The files and directories that the configuration names; `None` is "the default".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathKeys {
    pub state_dir: Option<PathBuf>,
    pub datastore_path: Option<PathBuf>,
    pub mtu_file: Option<PathBuf>,
    pub nodename_file: Option<PathBuf>,
    pub ipam_lock_file: Option<PathBuf>,
    pub attachment_dir: Option<PathBuf>,
    /// `Some("")` means: never ask the daemon.
    pub daemon_socket: Option<PathBuf>,
    /// `Some("")` means: stderr only.
    pub log_file_path: Option<PathBuf>,
    /// Where Calico's agent reports endpoints (Calico 3.28).
    pub endpoint_status_dir: Option<PathBuf>,
}

impl PathKeys {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        Self {
            state_dir: fields.file("state_dir"),
            datastore_path: fields.file("datastore_path"),
            mtu_file: fields.file("mtu_file"),
            nodename_file: fields.file("nodename_file"),
            ipam_lock_file: fields.file("ipam_lock_file"),
            attachment_dir: fields.file("attachment_dir"),
            daemon_socket: fields.get("daemon_socket", At::file),
            log_file_path: fields.get("log_file_path", read_log_file),
            endpoint_status_dir: fields.file("endpoint_status_dir"),
        }
    }
}

/// Log keys never fail a pod.
fn read_log_file(at: &At<'_>) -> Option<PathBuf> {
    let text = at.value.as_str().filter(|text| !text.contains('\0'));
    text.map(PathBuf::from).or_else(|| at.ignore("a path"))
}

/// The paths in use where the configuration names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Percale's own state: embedded store, journal, record of the store in use. The same under
    /// every name, so that a host has one journal.
    pub state_dir: &'static str,
    /// The directory of the files `mtu` and `nodename`, which the host's agent writes.
    pub node_dir: &'static str,
    pub ipam_lock_file: &'static str,
    /// The same under every name, so that verbs of one attachment never interleave.
    pub attachment_dir: &'static str,
    pub daemon_socket: &'static str,
    pub log_file: &'static str,
    /// One of Calico's names.
    pub calico: bool,
}

impl Defaults {
    /// For the names `percale` and `percale-ipam`.
    pub const fn percale() -> Self {
        Self {
            state_dir: "/var/lib/percale",
            node_dir: "/var/lib/percale",
            ipam_lock_file: "/run/percale/ipam.lock",
            attachment_dir: "/run/percale/attachments",
            daemon_socket: "/run/percale/percaled.sock",
            log_file: "/var/log/percale/cni/cni.log",
            calico: false,
        }
    }

    /// For the names `calico` and `calico-ipam`: Calico's files, and its lock.
    pub const fn calico() -> Self {
        Self {
            node_dir: "/var/lib/calico",
            ipam_lock_file: "/var/run/calico/ipam.lock",
            log_file: "/var/log/calico/cni/cni.log",
            calico: true,
            ..Self::percale()
        }
    }

    /// The defaults for the file name of the running binary.
    pub fn for_name(name: &str) -> Self {
        let stem = name.strip_suffix(".exe").unwrap_or(name);
        if matches!(stem, "calico" | "calico-ipam") { Self::calico() } else { Self::percale() }
    }
}

/// Every file and directory in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub state_dir: PathBuf,
    /// The embedded store's directory.
    pub store: PathBuf,
    pub journal: PathBuf,
    pub mtu_file: PathBuf,
    pub nodename_file: PathBuf,
    pub ipam_lock_file: PathBuf,
    pub attachment_dir: PathBuf,
    /// `None`: never ask the daemon.
    pub daemon_socket: Option<PathBuf>,
    /// `None`: stderr only.
    pub log_file: Option<PathBuf>,
}

impl Paths {
    pub(super) fn resolve(keys: &PathKeys, defaults: &Defaults) -> Self {
        let state_dir = or(&keys.state_dir, defaults.state_dir);
        let node_dir = or(&keys.state_dir, defaults.node_dir);
        Self {
            store: keys.datastore_path.clone().unwrap_or_else(|| state_dir.join("store")),
            journal: state_dir.join("journal"),
            mtu_file: keys.mtu_file.clone().unwrap_or_else(|| node_dir.join("mtu")),
            nodename_file: keys.nodename_file.clone().unwrap_or_else(|| node_dir.join("nodename")),
            ipam_lock_file: or(&keys.ipam_lock_file, defaults.ipam_lock_file),
            attachment_dir: or(&keys.attachment_dir, defaults.attachment_dir),
            daemon_socket: some(or(&keys.daemon_socket, defaults.daemon_socket)),
            log_file: some(or(&keys.log_file_path, defaults.log_file)),
            state_dir,
        }
    }
}

fn or(key: &Option<PathBuf>, default: &str) -> PathBuf {
    key.clone().unwrap_or_else(|| Path::new(default).to_owned())
}

fn some(path: PathBuf) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then_some(path)
}
