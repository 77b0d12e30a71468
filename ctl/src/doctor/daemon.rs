//! The host's daemon, where there is one.

use super::{Finding, Host};
use crate::daemon;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;

const CHECK: &str = "daemon";

/// A host without a daemon's socket has none, which is fine: the plugin then works alone.
pub fn check(host: &Host<'_>) -> Vec<Finding> {
    let socket = host.path(host.places.lock_file.with_file_name("percaled.sock"));
    match UnixStream::connect(&socket) {
        Ok(_) => running(host),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => vec![Finding::wrong(
            CHECK,
            format!("nobody listens on {}", socket.display()),
            "pods still start, but routes to other nodes, MTU and releases that are owed are not kept up",
            "start percaled, and look into its log (systemctl restart percaled; journalctl -u percaled)"
                .to_owned(),
        )],
        Err(_) => Vec::new(),
    }
}

fn running(host: &Host<'_>) -> Vec<Finding> {
    let told = match daemon::ask(host.health_addr) {
        Ok(told) => told,
        Err(error) => {
            let why = "it serves pods, but cannot be asked how it is";
            let cure = "name its address with --health-addr, or start percaled with one".to_owned();
            return vec![Finding::note(CHECK, format!("{error:#}"), why, cure)];
        }
    };
    let log = || "the line says what to do; details are in percaled's log".to_owned();
    let hung = told.hung.into_iter().map(|what| {
        let cure = "systemctl restart percaled (pods keep their network)".to_owned();
        Finding::wrong(CHECK, what, "this part of the daemon does nothing any more", cure)
    });
    let not_ready = told
        .not_ready
        .into_iter()
        .map(|what| Finding::wrong(CHECK, what, "this part of the daemon is not ready", log()));
    let warnings = told.warnings.into_iter().map(|what| {
        let cure = "correct the setting; percalectl get felixconfigurations -o yaml shows it".to_owned();
        Finding::note(CHECK, what, "it is not applied; a default holds in its place", cure)
    });
    hung.chain(not_ready).chain(warnings).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{fake, fake_places};
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_host_may_have_none_but_not_a_dead_one() {
        let root = tempfile::tempdir().unwrap();
        let places = fake_places(root.path());
        let host = fake(&places, std::path::Path::new("/"));
        assert_eq!(check(&host), []);
        std::fs::create_dir_all(root.path().join("run")).unwrap();
        let listener = UnixListener::bind(root.path().join("run/percaled.sock")).unwrap();
        // It listens, and its health address is not to be had.
        assert_eq!(check(&host).len(), 1);
        drop(listener);
        let found = check(&host);
        assert!(found[0].what.contains("nobody listens"), "{found:?}");
    }
}
