//! Taking over what host-local has given out (decision 25).
//!
//! host-local keeps a directory per network: one file per address, named by it, that holds the
//! container id and (since its version 0.7) the interface; `last_reserved_ip.N`; and `lock`,
//! which it holds by `flock` while it works. See [`parse`] for the forms.
//!
//! ```text
//!  glance ─ Pending ─► Directory::lock ─► survey ─► (caller commits the leases) ─► retire
//! ```
//!
//! `retire` first writes and syncs a marker that lists the leases, then deletes their files.
//! A crash before the marker repeats the whole import: the caller's commit must take a lease
//! that is already its container's for done. A crash after it leaves files that the marker
//! lists: the next survey knows them, does not offer them again, and `retire` deletes them. A
//! file that the marker does not list was written later: host-local is still in use for this
//! network, and may give out an address that is ours by now.
//!
//! Nothing is thrown away: the marker has all that the deleted files said, and files that make
//! no sense are renamed.

mod marker;
pub mod parse;

pub use parse::{Lease, Reason, Unclear};

use cni_protocol::{CniError, Code};
use datastore::lock::{Kind, Lock};
use datastore::{Deadline, ErrorKind};
use marker::Marker;
use parse::Named;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// host-local's default `dataDir`.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";
/// Entries in one directory; a /12 of leases. More is refused rather than read into memory.
const MAX_ENTRIES: usize = 1 << 20;
/// A marker for that many leases.
const MAX_MARKER: u64 = 256 << 20;

/// What a directory asks for, from its names alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// There is none: host-local never ran for this network.
    Absent,
    /// It has not been imported.
    Pending,
    /// It has been imported and is as it was left.
    Done,
    /// It has been imported and has lease files nevertheless: the last `retire` was cut short,
    /// or host-local went on. A survey tells.
    Changed,
}

/// Everything found in a directory.
#[derive(Debug, Default)]
pub struct Survey {
    /// Leases that have not been imported, by address. With `imported_before` they were made
    /// after the import, by a host-local that is still in use.
    pub leases: Vec<Lease>,
    /// What was not understood. An item with an address may stand for a running container.
    pub unclear: Vec<Unclear>,
    /// The directory has been imported once.
    pub imported_before: bool,
    past: Vec<Lease>,
    /// Files that say no more than `leases` and `past`.
    spent: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum HostLocalError {
    /// Another process kept host-local's lock, or it cannot be opened.
    #[error("cannot lock host-local's directory")]
    Lock(#[source] datastore::Error),
    #[error("cannot {op} {}", path.display())]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is damaged: remove it to import the directory's leases again", path.display())]
    Marker { path: PathBuf, source: serde_json::Error },
    #[error("{} has more than {MAX_ENTRIES} files: is it host-local's?", path.display())]
    TooMany { path: PathBuf },
}

impl From<HostLocalError> for CniError {
    fn from(error: HostLocalError) -> Self {
        let code = match &error {
            HostLocalError::Lock(cause) if cause.kind == ErrorKind::Timeout => Code::TryAgain,
            HostLocalError::Lock(_) | HostLocalError::Io { .. } => Code::Io,
            HostLocalError::Marker { .. } => Code::StoreDamaged,
            HostLocalError::TooMany { .. } => Code::InvalidConfig,
        };
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        CniError::new(code, error.to_string()).with_details(cause)
    }
}

/// Where host-local keeps the leases of `network`.
pub fn directory(data_dir: Option<&Path>, network: &str) -> PathBuf {
    data_dir.unwrap_or(Path::new(DEFAULT_DATA_DIR)).join(network)
}

/// A look without the lock, cheap enough for every ADD: one directory listing, no file opened.
pub fn glance(path: &Path) -> Result<Glance, HostLocalError> {
    let Some(names) = names(path)? else { return Ok(Glance::Absent) };
    let imported = names.iter().any(|name| name == marker::NAME);
    let leases = names.iter().any(|name| matches!(parse::name(name), Named::Address(_)));
    Ok(match (imported, leases) {
        (false, _) => Glance::Pending,
        (true, false) => Glance::Done,
        (true, true) => Glance::Changed,
    })
}

/// A directory whose lock is held; host-local waits until this is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: Lock,
}

impl Directory {
    /// Waits for host-local's lock until `deadline`; `None` where there is no directory.
    pub fn lock(path: &Path, deadline: Deadline) -> Result<Option<Self>, HostLocalError> {
        if !path.is_dir() {
            return Ok(None);
        }
        let lock = Lock::acquire(&path.join(parse::LOCK), Kind::Exclusive, deadline);
        Ok(Some(Self { path: path.to_owned(), _lock: lock.map_err(HostLocalError::Lock)? }))
    }

    /// Reads everything. Changes nothing.
    pub fn survey(&self) -> Result<Survey, HostLocalError> {
        let marker = self.read_marker()?;
        let mut found = Finder::default();
        for name in names(&self.path)?.unwrap_or_default() {
            match parse::name(&name) {
                Named::Address(ip) => found.address(ip, &name.to_string_lossy(), self.read_lease(&name)),
                Named::Stranger => found.unclear(&name.to_string_lossy(), None, Reason::NotALease),
                Named::Own => {}
            }
        }
        Ok(found.finish(marker))
    }

    /// Makes the import of `survey`, whose leases the caller has stored durably, final. Safe to
    /// repeat after a crash at any point and after an error. `survey` must be one of this very
    /// [`Directory`], with all its leases: the file of each of them goes.
    pub fn retire(&self, survey: &Survey) -> Result<(), HostLocalError> {
        if !survey.imported_before || !survey.leases.is_empty() {
            self.write_marker(&Marker::of(&survey.past, &survey.leases))?;
        }
        for name in &survey.spent {
            let path = self.path.join(name);
            gone_is_fine(fs::remove_file(&path)).map_err(io_error("remove", &path))?;
        }
        for unclear in survey.unclear.iter().filter(|unclear| unclear.ip.is_some()) {
            let path = self.path.join(&unclear.file);
            let aside = self.path.join(format!("{}{}", unclear.file, parse::ASIDE));
            gone_is_fine(fs::rename(&path, aside)).map_err(io_error("set aside", &path))?;
        }
        self.sync()
    }

    fn read_lease(&self, name: &OsString) -> Result<(String, Option<String>), Reason> {
        let bytes = read_small(&self.path.join(name))?;
        parse::content(&bytes)
    }

    fn read_marker(&self) -> Result<Option<Marker>, HostLocalError> {
        let path = self.path.join(marker::NAME);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_MARKER).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(io_error("read", &path))?,
        };
        Marker::decode(&bytes).map(Some).map_err(|source| HostLocalError::Marker { path, source })
    }

    /// Whole or not at all, and on disk when this returns.
    fn write_marker(&self, marker: &Marker) -> Result<(), HostLocalError> {
        let (draft, path) = (self.path.join(marker::DRAFT), self.path.join(marker::NAME));
        write_synced(&draft, &marker.encode()).map_err(io_error("write", &draft))?;
        fs::rename(&draft, &path).map_err(io_error("write", &path))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), HostLocalError> {
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        synced.map_err(io_error("sync", &self.path))
    }
}

/// Sorts what is found, file by file, into leases, repetitions and the rest.
#[derive(Default)]
struct Finder {
    leases: BTreeMap<IpAddr, (Lease, Vec<String>)>,
    unclear: Vec<Unclear>,
}

impl Finder {
    fn address(&mut self, ip: IpAddr, file: &str, content: Result<(String, Option<String>), Reason>) {
        let (container, ifname) = match content {
            Ok(content) => content,
            Err(why) => return self.unclear(file, Some(ip), why),
        };
        let lease = Lease { ip, container, ifname };
        let (first, files) = self.leases.entry(ip).or_insert_with(|| (lease.clone(), Vec::new()));
        if *first == lease {
            files.push(file.to_owned());
        } else {
            self.unclear(file, Some(ip), Reason::SecondOwner);
        }
    }

    fn unclear(&mut self, file: &str, ip: Option<IpAddr>, why: Reason) {
        self.unclear.push(Unclear { file: file.to_owned(), ip, why });
    }

    fn finish(self, marker: Option<Marker>) -> Survey {
        let imported_before = marker.is_some();
        let past = marker.map(|marker| marker.leases).unwrap_or_default();
        let known: std::collections::BTreeSet<&Lease> = past.iter().collect();
        let (leases, spent): (Vec<_>, Vec<_>) = self.leases.into_values().unzip();
        let leases = leases.into_iter().filter(|lease| !known.contains(lease)).collect();
        let spent = spent.into_iter().flatten().collect();
        Survey { leases, unclear: self.unclear, imported_before, past, spent }
    }
}

/// All names in `path`, sorted; `None` where it does not exist.
fn names(path: &Path) -> Result<Option<Vec<OsString>>, HostLocalError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(io_error("list", path))?,
    };
    let names: io::Result<Vec<_>> =
        entries.take(MAX_ENTRIES + 1).map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(io_error("list", path))?;
    if names.len() > MAX_ENTRIES {
        return Err(HostLocalError::TooMany { path: path.to_owned() });
    }
    names.sort_unstable();
    Ok(Some(names))
}

/// The content of a lease file. Neither follows a link nor waits for a FIFO's other end.
fn read_small(path: &Path) -> Result<Vec<u8>, Reason> {
    let unreadable = |error: io::Error| match error.raw_os_error() {
        Some(libc::ELOOP | libc::ENXIO) => Reason::NotAFile,
        _ => Reason::Unreadable(error.kind()),
    };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(Reason::NotAFile);
    }
    let mut bytes = Vec::new();
    file.take(parse::MAX_CONTENT as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn io_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HostLocalError {
    move |source| HostLocalError::Io { op, path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "hostlocal/tests.rs"]
mod tests;
