//! Which requests the daemon is asked to serve, and with what.

use crate::engine::{self, Role};
use cni_protocol::daemon::Ask;
use cni_protocol::{Request, Verb};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

/// What to ask, and where; `None` where this process serves the request: it is told not to ask, the
/// daemon could not see what the request is about, or the configuration is in error.
pub(crate) fn of(req: &Request, name: &str, role: Role, stdin: &[u8]) -> Option<Ask> {
    if req.verb == Verb::Version || engine::needs_host_files(&req.conf, role) {
        return None;
    }
    let state_dir = std::fs::metadata(&req.paths.state_dir).ok();
    Some(Ask {
        program: name.to_owned(),
        left: Duration::ZERO,
        store: engine::store_label(req).ok()?,
        state_dir: state_dir.map(|meta| (meta.dev(), meta.ino())),
        env: Ask::variables(|key| std::env::var_os(key)),
        config: String::from_utf8(stdin.to_vec()).ok()?,
    })
}
