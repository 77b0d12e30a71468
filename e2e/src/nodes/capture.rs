//! What passes a link, by tcpdump.

use super::{signal_child, wait};
use crate::netns::{Netns, must};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What passes a link, from now until [`Capture::end`].
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    pub fn start(host: &Netns, link: &str, file: PathBuf) -> Self {
        // One of before would pass for its being ready.
        let _ = fs::remove_file(&file);
        let mut command = host.command("tcpdump");
        command.args(["-i", link, "-U", "--immediate-mode", "-nn", "-Z", "root", "-w"]).arg(&file);
        let tcpdump =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("tcpdump is installed");
        // The file's header is written once it listens.
        wait("tcpdump listens", Duration::from_secs(10), || fs::metadata(&file).is_ok_and(|m| m.len() >= 24));
        Self { tcpdump, file }
    }

    /// Ends it, and tells how many packets match each of these filters (of pcap-filter).
    pub fn end(mut self, filters: &[&str]) -> Vec<usize> {
        std::thread::sleep(Duration::from_millis(200));
        signal_child(&self.tcpdump, rustix::process::Signal::INT);
        let _ = self.tcpdump.wait();
        let count = |filter: &&str| {
            let out = must(Command::new("tcpdump").args(["-nn", "-r"]).arg(&self.file).arg(filter));
            String::from_utf8_lossy(&out).lines().count()
        };
        filters.iter().map(count).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}
