//! Container images without a registry: a docker-archive of one layer.

use crate::bed::{Bed, compile};
use crate::netns::must;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BUSYBOX: &str = "/bin/busybox";

/// Builds an image whose entry point is the C program `source`; with busybox and a shell if asked.
pub fn build(bed: &Bed, reference: &str, source: &str, with_busybox: bool) -> PathBuf {
    let root = bed.path("image/root");
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(dir)).expect("the bed is writable");
    }
    fs::rename(compile(bed, source, "entry"), root.join("entry")).expect("the bed is writable");
    if with_busybox {
        add_busybox(&root);
    }
    let layer = bed.path("image/layer.tar");
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--owner=0", "--group=0", "-C"]).arg(&root).arg("-cf").arg(&layer).arg(".");
    must(&mut tar);
    write_manifests(bed, reference, &digest(&layer));
    let out = bed.path("image.tar");
    let dir = bed.path("image");
    let files = ["manifest.json", "config.json", "layer.tar"];
    must(Command::new("tar").arg("-C").arg(&dir).arg("-cf").arg(&out).args(files));
    fs::remove_dir_all(dir).expect("the bed is writable");
    out
}

fn add_busybox(root: &Path) {
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox-static is installed");
    for name in ["sh", "ip", "nc", "cat", "sleep", "wget"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("the bed is writable");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("the bed is writable");
}

fn digest(layer: &Path) -> String {
    let out = must(Command::new("sha256sum").arg(layer));
    String::from_utf8_lossy(&out).split(' ').next().unwrap_or_default().to_owned()
}

fn write_manifests(bed: &Bed, reference: &str, digest: &str) {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/entry"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    bed.write("image/config.json", config.to_string());
    let manifest = json!([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]);
    bed.write("image/manifest.json", manifest.to_string());
}
