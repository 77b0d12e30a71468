//! What goes wrong on disks, and what is said of it.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{Bed, plugin};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

/// Runs the installer in a mount namespace of its own after `setup`.
fn mounted(bed: &mut Bed, setup: &str) {
    let script = format!("{setup} && exec \"$@\"");
    bed.prefix = ["unshare", "-m", "sh", "-ec", &script, "sh"].map(str::to_owned).to_vec();
}

fn mount(bed: &Bed, dir: &str, options: &str) -> String {
    format!("mount -t tmpfs -o {options} tmpfs {}", bed.path(dir).display())
}

/// Fails a system call of the installer once it has been made so many times.
fn injected(bed: &mut Bed, what: &str) {
    let call = what.split(':').next().unwrap();
    let words = [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={what}"),
        "--",
    ];
    bed.prefix = words.map(str::to_owned).to_vec();
}

fn nothing_temporary(bed: &Bed) {
    for dir in ["bin", "net.d"] {
        let odd: Vec<String> =
            bed.names(dir).into_iter().filter(|n| n.contains("percale-new") || n.starts_with('.')).collect();
        assert_eq!(odd, Vec::<String>::new(), "in {dir}");
    }
}

#[test]
fn file_systems_that_cannot_be_used() {
    for (options, said) in [
        ("ro", "read-only"),
        ("noexec", "noexec"),
        ("size=4k", "no space is left"),
        ("uid=1000,mode=755", "uid 1000"),
    ] {
        let mut bed = Bed::new();
        let setup = mount(&bed, "bin", options);
        mounted(&mut bed, &setup);
        let told = bed.fails(&[]);
        assert!(told.contains(said) && told.contains("/bin"), "{options}: {told}");
        bed.prefix.clear();
        assert!(!bed.exists("net.d/10-percale.conflist"), "{options}: no configuration without plugins");
    }
    let mut bed = Bed::new();
    let setup = mount(&bed, "net.d", "ro");
    mounted(&mut bed, &setup);
    assert!(bed.fails(&[]).contains("net.d"));
}

#[test]
fn no_rename_no_sync() {
    for (what, said) in [
        ("rename:error=EPERM", "does not rename"),
        ("rename:error=EXDEV", "does not rename"),
        ("fsync:error=EINVAL", "does not write through"),
        ("fsync:error=EIO", "does not write through"),
        ("fsync:error=ENOSPC", "no space is left"),
        ("write:error=ENOSPC", "no space is left"),
        ("fchmod:error=EPERM", "permission denied"),
    ] {
        let mut bed = Bed::new();
        bed.ok(&[]);
        bed.version("2");
        let (call, how) = what.split_once(':').unwrap();
        // The first ones are those of the state directory.
        for from in [1, 4, 7] {
            injected(&mut bed, &format!("{call}:{how}:when={from}+"));
            let told = bed.fails(&[]);
            assert!(told.contains(said) || call == "write", "{what} from {from}: {told}");
            bed.prefix.clear();
            nothing_temporary(&bed);
            let text = bed.text("bin/percale");
            assert!(text == plugin("percale 1") || text == plugin("percale 2"), "{what}");
        }
        bed.ok(&[]);
        assert_eq!(bed.text("bin/percale"), plugin("percale 2"));
    }
}

// REQ: I-02
#[test]
fn a_plugin_that_does_not_work_is_not_installed() {
    for (text, said) in [
        ("#!/bin/sh\nexit 3\n", "exit status: 3"),
        ("#!/bin/sh\necho hello\n", "hello"),
        ("\x7fELF garbage", "does not answer VERSION"),
        ("#!/bin/sh\nsleep 60\n", "no answer within"),
    ] {
        let bed = Bed::new();
        bed.ok(&[]);
        bed.put("src/percale", text, 0o755);
        let told = bed.fails(&[]);
        assert!(told.contains(said), "{text:?}: {told}");
        assert_eq!(bed.text("bin/percale"), plugin("percale 1"));
        nothing_temporary(&bed);
    }
}

// REQ: I-02
#[test]
fn a_running_binary_is_replaced() {
    let bed = Bed::new();
    bed.ok(&[]);
    std::fs::remove_file(bed.path("bin/portmap")).unwrap();
    assert!(Command::new("cp").arg("/bin/sleep").arg(bed.path("bin/portmap")).status().unwrap().success());
    let mut busy = Command::new(bed.path("bin/portmap")).arg("60").spawn().unwrap();
    bed.ok(&[]);
    assert_eq!(bed.text("bin/portmap"), plugin("portmap 1"));
    assert!(busy.try_wait().unwrap().is_none(), "what ran runs on");
    busy.kill().unwrap();
    busy.wait().unwrap();
}

#[test]
fn equal_files_are_left_alone() {
    let bed = Bed::new();
    bed.ok(&[]);
    let inode = |tail: &str| std::fs::metadata(bed.path(tail)).unwrap().ino();
    let before = inode("bin/percale");
    bed.put("src/portmap", &plugin("portmap 2"), 0o755);
    bed.ok(&[]);
    assert_eq!(inode("bin/percale"), before);
    assert_eq!(bed.text("bin/portmap"), plugin("portmap 2"));
    std::fs::set_permissions(bed.path("bin/percale"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    bed.ok(&[]);
    assert_eq!((inode("bin/percale"), bed.mode("bin/percale")), (before, 0o755), "only its mode was wrong");
}

#[test]
fn things_in_the_way() {
    let bed = Bed::new();
    std::fs::create_dir(bed.path("bin/percale")).unwrap();
    assert!(bed.fails(&[]).contains("in the way"));
    let bed = Bed::new();
    std::fs::remove_dir(bed.path("bin")).unwrap();
    bed.put("bin", "a file", 0o644);
    assert!(bed.fails(&[]).contains("bin"));
    let bed = Bed::new();
    std::fs::remove_dir(bed.path("bin")).unwrap();
    std::fs::remove_dir(bed.path("net.d")).unwrap();
    bed.ok(&[]);
    assert!(bed.exists("bin/percale"), "missing directories are made");
    let bed = Bed::new();
    bed.put("state/install/records.json", "{", 0o600);
    assert!(bed.fails(&[]).contains("records.json: damaged"));
}

#[test]
fn two_at_once() {
    let bed = Bed::new();
    for version in 1..6 {
        bed.version(&version.to_string());
        let mut children: Vec<_> = (0..4).map(|_| bed.command(&[]).spawn().unwrap()).collect();
        for child in &mut children {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(bed.text("bin/percale"), bed.text("src/percale"));
        nothing_temporary(&bed);
    }
    bed.ok(&["--rollback"]);
    assert_eq!(bed.text("bin/percale"), plugin("percale 4"), "four installers make one set");
}

// REQ: I-07
#[test]
fn upgrade_roll_back_uninstall() {
    let bed = Bed::new();
    bed.put("bin/portmap", &plugin("debian's"), 0o755);
    bed.put("net.d/87-podman.conflist", "{}", 0o644);
    assert!(bed.fails(&["--rollback"]).contains("no set before"));
    bed.ok(&[]);
    bed.version("2");
    bed.ok(&[]);
    bed.ok(&["--rollback"]);
    assert_eq!(
        (bed.text("bin/percale"), bed.text("bin/portmap")),
        (plugin("percale 1"), plugin("portmap 1"))
    );
    bed.ok(&["--uninstall"]);
    assert_eq!(
        (bed.names("bin"), bed.names("net.d")),
        (vec!["portmap".to_owned()], vec!["87-podman.conflist".to_owned()])
    );
    assert_eq!(bed.text("bin/portmap"), plugin("debian's"));
    bed.ok(&["--uninstall"]);
    bed.ok(&[]);
    assert_eq!(bed.text("bin/percale"), plugin("percale 2"));
}
