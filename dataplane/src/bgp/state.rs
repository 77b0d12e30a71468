//! What the next daemon must know: which peers were up, or away with their routes kept. In a file of the state directory.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub(super) struct StateFile {
    path: PathBuf,
    boot: String,
    written: Option<BTreeSet<IpAddr>>,
}

impl StateFile {
    pub fn new(state_dir: &Path) -> Self {
        let boot = netlink::boot_id().unwrap_or_default();
        StateFile { path: state_dir.join("bgp.json"), boot, written: None }
    }

    /// Peers that were up when the last daemon ended; none after a reboot, which loses the kernel's routes.
    pub fn read(&self) -> BTreeSet<IpAddr> {
        let text = fs::read(&self.path).unwrap_or_default();
        let object: Value = serde_json::from_slice(&text).unwrap_or_default();
        if object["boot_id"] != self.boot.as_str() {
            return BTreeSet::new();
        }
        let list = object["established"].as_array().into_iter().flatten();
        list.filter_map(|addr| addr.as_str()?.parse().ok()).collect()
    }

    /// A failure costs a graceful restart at most, so it is only logged.
    pub fn write(&mut self, established: BTreeSet<IpAddr>) {
        if self.written.as_ref() == Some(&established) {
            return;
        }
        let list: Vec<String> = established.iter().map(IpAddr::to_string).collect();
        let text = json!({"boot_id": self.boot, "established": list}).to_string();
        match self.replace(&text) {
            Ok(()) => self.written = Some(established),
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "cannot note which BGP peers are up")
            }
        }
    }

    fn replace(&self, text: &str) -> std::io::Result<()> {
        let new = self.path.with_extension("json.new");
        fs::File::create(&new)?.write_all(text.as_bytes())?;
        fs::rename(&new, &self.path)
    }
}
