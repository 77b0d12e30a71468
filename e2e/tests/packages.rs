//! The Debian package and the tarball for hosts without Kubernetes.

#![allow(clippy::unwrap_used)]

use e2e::bed::wait_for;
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

/// In a mount namespace with this /run; a read-only /sys tells networkd that there is no udev to wait for.
const NETWORKD: &str = "mount --make-rprivate /; mount --bind \"$1\" /run; mount -t sysfs -o ro sysfs /sys; \
    chown -R systemd-network /run/systemd/netif; exec /lib/systemd/systemd-networkd";

/// A networkd that is told to give every link an address, beside a pod: with and without the packaged settings.
#[test]
fn a_genuine_networkd_leaves_our_links_alone() {
    let bed = Bed::new("networkd");
    let outside = bed.netns("outside");
    e2e::netns::join(&bed.host, &outside);
    let network = Network::new(&bed, "net", vec![conf::percale(&bed)]);
    let ns = bed.netns("pod");
    let pod = Attachment::new("c1", &ns);
    network.add(&pod).unwrap();
    let link = bed.host.link_names("cali").remove(0);
    let has = |link: &str| {
        let out = must(bed.host.command("ip").args(["-o", "addr", "show", "dev", link]));
        String::from_utf8_lossy(&out).contains("192.0.2.77/24")
    };
    for packaged in [true, false] {
        let run = bed.path(&format!("run-{packaged}"));
        sh(
            "mkdir -p \"$1/systemd/netif/links\" \"$1/systemd/network\" \"$1/systemd/networkd.conf.d\"",
            &[&run],
        );
        fs::write(
            run.join("systemd/network/50-all.network"),
            "[Match]\nName=*\n[Network]\nAddress=192.0.2.77/24\n",
        )
        .unwrap();
        if packaged {
            for (file, to) in [("05-percale.network", "network"), ("networkd.conf", "networkd.conf.d")] {
                let from = bins::workspace().join("install/systemd").join(file);
                fs::copy(from, run.join("systemd").join(to).join(file)).unwrap();
            }
        }
        let mut networkd = bed.host.command("unshare");
        networkd.args(["-m", "sh", "-ec", NETWORKD, "sh"]).arg(&run);
        let log = fs::File::create(bed.path("networkd.log")).unwrap();
        let pid = bed.spawn(networkd.stderr(log));
        let index = index(&bed, &link);
        let state = || fs::read_to_string(run.join("systemd/netif/links").join(&index)).unwrap_or_default();
        match packaged {
            true => {
                wait_for("networkd is at work", || has("up0") && state().contains("ADMIN_STATE=unmanaged"));
                assert!(!has(&link), "the pod's link is left alone");
            }
            false => wait_for("without the settings it takes the pod's link too", || has(&link)),
        }
        bed.kill(pid);
        let _ = bed.host.command("ip").args(["addr", "del", "192.0.2.77/24", "dev", "up0"]).output();
    }
    network.del(&pod).unwrap();
}

/// The number of a link.
fn index(bed: &Bed, link: &str) -> String {
    let links = bed.host.links();
    let found = links.iter().find(|l| l["ifname"] == link).unwrap();
    found["ifindex"].to_string()
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
