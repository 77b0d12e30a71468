//! The Debian package and the tarball for hosts without Kubernetes.

#![allow(clippy::unwrap_used)]

use e2e::containerd::CNI_VERSION;
use e2e::installer::same;
use e2e::netns::must;
use e2e::{Attachment, Bed, Network, bins, conf};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Packages {
    tarball: PathBuf,
    debian: PathBuf,
}

fn build(bed: &Bed) -> Packages {
    let mut command = Command::new(bins::workspace().join("install/debian/build"));
    command.arg("--bin-dir").arg(bed.bins.as_ref().unwrap().dir()).arg("--output").arg(bed.path("packages"));
    let told = String::from_utf8(must(&mut command)).unwrap();
    let mut files = told.lines().map(PathBuf::from);
    Packages { tarball: files.next().unwrap(), debian: files.next().unwrap() }
}

fn sh(script: &str, args: &[&Path]) -> String {
    let out = must(Command::new("sh").args(["-ec", script, "sh"]).args(args));
    String::from_utf8(out).unwrap()
}

/// A root directory with a shell, libraries, and a package database: the least that dpkg installs into.
fn root(bed: &Bed) -> PathBuf {
    let root = bed.path("root");
    for dir in ["bin", "etc", "tmp", "var/lib/dpkg/info", "var/lib/dpkg/updates", "dev", "proc"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    must(Command::new("mount").args(["-t", "proc", "proc"]).arg(root.join("proc")));
    fs::write(root.join("dev/null"), "").unwrap();
    must(Command::new("mount").args(["--bind", "/dev/null"]).arg(root.join("dev/null")));
    let install = bed.bins.as_ref().unwrap().program("percale-install");
    sh(
        "for l in $(ldd \"$1\" | grep -oE '/[^ ]+'); do install -D \"$(readlink -f \"$l\")\" \"$2$l\"; done",
        &[&install, &root],
    );
    root
}

fn dpkg(root: &Path, args: &[&str]) {
    let mut command = Command::new("dpkg");
    command.arg("--root").arg(root).arg("--force-depends").arg("--force-not-root").args(args);
    must(&mut command);
}

#[test]
fn units_are_valid_and_network_managers_leave_us_alone() {
    let bed = Bed::new("units");
    let packages = build(&bed);
    let root = bed.path("root");
    sh("mkdir \"$2\" && tar -xzf \"$1\" -C \"$2\"", &[&packages.tarball, &root]);
    sh("cp -an /lib/systemd/system/. \"$1/lib/systemd/system/\"", &[&root]);
    let mut verify = Command::new("systemd-analyze");
    verify
        .arg("verify")
        .arg(format!("--root={}", root.display()))
        .args(["percaled.service", "percale-install.service"]);
    let out = verify.output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && !told.contains("percale"), "{told}");
    // Both managers run, and would take every link.
    for (file, text) in [
        ("run/NetworkManager/NetworkManager.pid", "1"),
        ("run/systemd/netif/links/1", ""),
        ("etc/systemd/network/50-all.network", "[Match]\nName=*\n[Network]\nDHCP=yes\n"),
    ] {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let findings = || {
        let mut doctor = bed.host.command(bed.bins.as_ref().unwrap().percalectl());
        let out = doctor.args(["doctor", "--host-root"]).arg(&root).output().unwrap();
        let told = String::from_utf8_lossy(&out.stdout).into_owned();
        ["NetworkManager", "networkd"].map(|name| told.contains(name))
    };
    assert_eq!(findings(), [false, false], "the doctor has nothing against the packaged settings");
    fs::remove_file(root.join("usr/lib/NetworkManager/conf.d/percale.conf")).unwrap();
    fs::remove_file(root.join("usr/lib/systemd/network/05-percale.network")).unwrap();
    assert_eq!(findings(), [true, true], "and without them it has");
}

// REQ: I-07
#[test]
fn the_debian_package_is_installed_upgraded_used_and_removed() {
    let bed = Bed::new("deb");
    let packages = build(&bed);
    let root = root(&bed);
    let package = packages.debian.display().to_string();
    dpkg(&root, &["-i", &package]);
    assert!(!root.join("opt/cni/bin/percale").exists(), "nothing happens before it is configured");
    let bare = Command::new("/usr/sbin/chroot")
        .arg(&root)
        .arg("/usr/sbin/percale-install")
        .env_clear()
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&bare.stderr).contains("CALICO_IPV4POOL_CIDR"));
    let install = || {
        let mut command = Command::new("/usr/sbin/chroot");
        command
            .arg(&root)
            .arg("/usr/sbin/percale-install")
            .env_clear()
            .env("CALICO_IPV4POOL_CIDR", conf::POOL_V4);
        must(&mut command);
    };
    install();
    fs::write(root.join("etc/percale/percale.env"), "CALICO_IPV4POOL_CIDR=10.91.0.0/16\n").unwrap();
    dpkg(&root, &["-i", &package]);
    assert!(
        fs::read_to_string(root.join("etc/percale/percale.env")).unwrap().starts_with("CALICO"),
        "settings stay"
    );
    install();
    let bin = root.join("opt/cni/bin");
    assert!(same(&bin.join("percale"), &root.join("usr/lib/percale/percale")));
    a_pod_gets_its_network(&bed, &root);
    dpkg(&root, &["-r", "percale"]);
    for gone in [
        "opt/cni/bin/percale",
        "opt/cni/bin/percale-ipam",
        "etc/cni/net.d/10-percale.conflist",
        "usr/sbin/percaled",
    ] {
        assert!(!root.join(gone).exists(), "{gone} is left");
    }
}

/// Through the plugin and the configuration that were installed, with the bed's paths.
fn a_pod_gets_its_network(bed: &Bed, root: &Path) {
    let file = root.join("etc/cni/net.d/10-percale.conflist");
    let conflist: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let mut plugin = conflist["plugins"][0].clone();
    conf::put_all(&mut plugin, conf::paths(bed));
    bed.use_plugins_of(&root.join("opt/cni/bin"));
    let mut network = Network::new(bed, conflist["name"].as_str().unwrap(), vec![plugin]);
    network.version = CNI_VERSION.to_owned();
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    let result = network.add(&pod).unwrap();
    assert!(e2e::cnirun::address(&result, true).to_string().starts_with("10.91."));
    network.check(&pod).unwrap();
    network.del(&pod).unwrap();
    e2e::clean::nothing_held(bed);
}
