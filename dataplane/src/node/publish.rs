//! The word that this node is there: files for the plugin and the runtime, the condition for Kubernetes.

use super::CALL;
use super::settings::Settings;
use crate::context::Context;
use crate::stage::Stage;
use anyhow::{Context as _, Result};
use datastore::Deadline;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Where the installer leaves the configuration for us.
const STAGED: &str = "conflist";

/// The file that the plugin waits for (decision 31).
pub(super) fn nodename(context: &Context) -> Result<()> {
    let file = context.config.nodename_file();
    if fs::read_to_string(&file).is_ok_and(|text| text.trim() == context.node_name) {
        return Ok(());
    }
    write(&file, context.node_name.as_bytes(), 0o644)
}

/// Networking works: Kubernetes may send pods, and the runtime gets its configuration, which comes last.
pub(super) fn announce(context: &Context, settings: &Settings) -> Result<()> {
    if !settings.no_backend {
        context.store.set_network_available(&context.node_name, Deadline::after(CALL))?;
    }
    let Some(conflist) = &settings.conflist else { return Ok(()) };
    let name = conflist.file_name().unwrap_or_default();
    let staged = context.state_dir.join(STAGED).join(name);
    let bytes = match fs::read(&staged) {
        Ok(bytes) => bytes,
        // A node that was Calico's has its configuration already.
        Err(e) if e.kind() == ErrorKind::NotFound && context.stage == Stage::All => return Ok(()),
        Err(e) => {
            return Err(e).with_context(|| {
                format!(
                    "{}: the configuration that percale-install leaves here with PUBLISH_CONF=daemon",
                    staged.display()
                )
            });
        }
    };
    if fs::read(conflist).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&staged)?.permissions()) & 0o777;
    write(conflist, &bytes, mode)?;
    tracing::info!(conflist = %conflist.display(), "published");
    Ok(())
}

/// Whole or not at all, under a name that the runtime does not read.
fn write(file: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    let temporary = dir.join(format!(".percaled.{}", std::process::id()));
    let put = || {
        fs::create_dir_all(dir)?;
        let mut out =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        fs::rename(&temporary, file)?;
        fs::File::open(dir)?.sync_all()
    };
    let outcome: std::io::Result<()> = put();
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    outcome.with_context(|| format!("writing {}", file.display()))
}
