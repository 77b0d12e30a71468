//! Builds of ours against each other, and against the least that any plugin of this kind needs.

use super::calls;
use super::contender::Contender;
use super::report::{median, quantile};
use super::{Families, burst, memory};
use crate::bed::compile;
use crate::cnirun::{Attachment, Network};
use std::path::PathBuf;

/// What every plugin does: starts, reads its configuration and ends.
const EMPTY: &str = r#"
#include <unistd.h>
int main(void) { char b[4096]; while (read(0, b, sizeof b) > 0) {} return 0; }
"#;

/// That, and one record written and synced into room that was made before.
const SYNCED: &str = r#"
#include <fcntl.h>
#include <unistd.h>
int main(void) {
    char b[4096]; while (read(0, b, sizeof b) > 0) {}
    int fd = open(ROOM, O_RDWR);
    if (fd < 0 || pwrite(fd, b, 2048, 8192) != 2048) return 1;
    return fdatasync(fd) ? 2 : 0;
}
"#;

/// Prints medians and lower quartiles of each build, alternating, after those of the floor.
pub fn builds(dirs: &[PathBuf], rounds: usize) {
    floor(rounds);
    for (families, what) in [(Families::V4, "IPv4"), (Families::Dual, "dual stack")] {
        let all = contenders(dirs, families);
        let times = calls::add_and_del(&all, rounds);
        print(&format!("ADD, {what}"), dirs, &times.add);
        print(&format!("DEL, {what}"), dirs, &times.del);
    }
    print("IPAM alone, ADD", dirs, &calls::ipam(&contenders(dirs, Families::V4), rounds));
    for pods in [30, 110] {
        let times = burst::add(&contenders(dirs, Families::V4), pods, rounds.div_ceil(20));
        print(&format!("{pods} at once"), dirs, &times);
    }
    let peaks: Vec<_> = contenders(dirs, Families::V4).iter().map(memory::peaks_of_add).collect();
    print("peak memory, MiB", dirs, &peaks);
}

fn contenders(dirs: &[PathBuf], families: Families) -> Vec<Contender> {
    dirs.iter().map(|dir| Contender::build(families, dir)).collect()
}

fn print(case: &str, dirs: &[PathBuf], times: &[Vec<f64>]) {
    for (dir, times) in dirs.iter().zip(times) {
        line(case, &dir.display().to_string(), times);
    }
}

fn line(case: &str, who: &str, times: &[f64]) {
    println!("{case:<20} {:>8.3} {:>8.3}  {who}", median(times), quantile(times, 0.25));
}

fn floor(rounds: usize) {
    let ours = Contender::percale(Families::V4);
    let room = ours.bed.write("room", vec![0; 1 << 20]);
    let synced = SYNCED.replace("ROOM", &format!("{:?}", room.display().to_string()));
    let programs = [("a process", EMPTY.to_owned()), ("and a synced write", synced)];
    let mut network = ours.network();
    let pod = Attachment {
        container: "c".to_owned(),
        ifname: "eth0".to_owned(),
        netns: "/run/netns/none".into(),
        args: String::new(),
    };
    let mut times = vec![Vec::new(); programs.len()];
    let files: Vec<_> = programs
        .iter()
        .map(|(_, code)| compile(&ours.bed, code, &format!("bin/floor{}", code.len())))
        .collect();
    for _ in 0..rounds {
        for (file, times) in files.iter().zip(&mut times) {
            times.push(once(&mut network, file, &pod));
        }
    }
    for ((what, _), times) in programs.iter().zip(&times) {
        line(what, "floor", times);
    }
}

fn once(network: &mut Network, file: &std::path::Path, pod: &Attachment) -> f64 {
    let name = file.file_name().and_then(|n| n.to_str()).expect("a plain name");
    let stdin = network.config(&network.plugins[0], None).to_string();
    let answer = network.exec_raw("ADD", name, stdin.as_bytes(), pod);
    assert!(answer.status.success(), "{name}: {}", answer.status);
    calls::ms(answer.took)
}
