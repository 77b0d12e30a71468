//! What happens to a namespace's routes.

use super::{Fabric, ip, soon};
use crate::netns::Netns;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A route that only this monitor makes.
const TRIAL: &str = "203.0.113.77";

/// Every change of a namespace's routes, as `ip monitor route` prints them.
pub struct Monitor(Child, PathBuf);

impl Monitor {
    pub fn start(fabric: &Fabric, ns: &Netns, name: &str) -> Self {
        let path = fabric.path(name);
        let mut command: Command = ns.command("ip");
        command.args(["monitor", "route"]).stderr(Stdio::null());
        command.stdout(File::create(&path).expect("the bed is writable"));
        let monitor = Monitor(command.spawn().expect("ip is installed"), path);
        // It listens once a change of ours is seen.
        soon("ip monitor listens", || {
            ip(ns, &format!("route replace {TRIAL}/32 dev lo"));
            ip(ns, &format!("route del {TRIAL}/32 dev lo"));
            (!monitor.text().is_empty(), String::new())
        });
        monitor
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.1).expect("the bed is readable")
    }

    /// Changes other than the one that it was tried with.
    pub fn changes(&self) -> Vec<String> {
        self.text().lines().filter(|l| !l.contains(TRIAL)).map(str::to_owned).collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
