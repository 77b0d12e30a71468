//! The programs that a pod's network needs: plugins where the runtime looks for them, and `nft`.

use super::config::{self, Network};
use super::{Finding, Host, program};
use std::path::PathBuf;

const CHECK: &str = "plugins";

/// Where distributions and runtimes put plugins.
const USUAL: [&str; 4] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/usr/local/lib/cni"];

/// Configuration files of runtimes and the keys that name plugin directories in them.
const RUNTIMES: [(&str, &[&str]); 4] = [
    ("/etc/containerd/config.toml", &["bin_dir", "bin_dirs"]),
    ("/etc/crio/crio.conf", &["plugin_dirs"]),
    ("/etc/containers/containers.conf", &["cni_plugin_dirs"]),
    ("/usr/share/containers/containers.conf", &["cni_plugin_dirs"]),
];

pub fn check(host: &Host<'_>) -> Vec<Finding> {
    let dirs = dirs(host);
    let (networks, _) = config::read(host);
    let ours: Vec<&Network> = networks.iter().filter(|n| n.is_ours()).collect();
    let mut findings = missing(&dirs, &ours);
    findings.extend(port_map(&dirs, &ours));
    findings.extend(no_nft());
    findings
}

fn no_nft() -> Option<Finding> {
    program::find("nft").is_none().then(|| {
        Finding::wrong(
            CHECK,
            "the program nft is not installed".to_owned(),
            "the plugin writes its rules with it (source guard, masquerade): every first ADD fails without",
            "apt-get install nftables".to_owned(),
        )
    })
}

/// The directories in question, on the examined host.
fn dirs(host: &Host<'_>) -> Vec<PathBuf> {
    if !host.bin_dirs.is_empty() {
        return host.bin_dirs.iter().map(|dir| host.path(dir)).collect();
    }
    if let Some(path) = std::env::var_os("CNI_PATH").filter(|p| !p.is_empty()) {
        return std::env::split_paths(&path).map(|dir| host.path(dir)).collect();
    }
    let named: Vec<String> = RUNTIMES
        .iter()
        .flat_map(|(file, keys)| host.read(file).map(|text| named_dirs(&text, keys)).unwrap_or_default())
        .collect();
    let dirs = if named.is_empty() { USUAL.map(str::to_owned).to_vec() } else { named };
    dirs.iter().map(|dir| host.path(dir)).collect()
}

/// The paths in `key = "..."` and `key = [ "...", ... ]` of a TOML file, on one line or several.
fn named_dirs(text: &str, keys: &[&str]) -> Vec<String> {
    let mut dirs = Vec::new();
    let mut open = false;
    for line in text.lines().map(|l| l.split('#').next().unwrap_or_default()) {
        let value = match line.split_once('=') {
            Some((key, value)) if keys.contains(&key.trim()) => value,
            _ if open => line,
            _ => continue,
        };
        dirs.extend(value.split('"').skip(1).step_by(2).filter(|d| d.starts_with('/')).map(str::to_owned));
        open = (open || value.trim_start().starts_with('[')) && !value.contains(']');
    }
    dirs
}

fn missing(dirs: &[PathBuf], ours: &[&Network]) -> Vec<Finding> {
    let mut wanted: Vec<&str> = ours.iter().flat_map(|n| n.types()).collect();
    if ours.is_empty() {
        wanted.push("percale");
    }
    wanted.sort_unstable();
    wanted.dedup();
    wanted.into_iter().filter(|name| !is_there(dirs, name)).map(|name| not_there(dirs, name)).collect()
}

fn is_there(dirs: &[PathBuf], name: &str) -> bool {
    dirs.iter().any(|dir| program::is_executable(&dir.join(name)))
}

fn not_there(dirs: &[PathBuf], name: &str) -> Finding {
    let list: Vec<String> = dirs.iter().map(|d| d.display().to_string()).collect();
    let first = list.first().cloned().unwrap_or_default();
    let cure = match name {
        "percale" | "percale-ipam" | "calico" | "calico-ipam" => {
            format!("install -m 0755 target/release/percale {first}/{name}")
        }
        _ => format!("apt-get install containernetworking-plugins, and ln -s /usr/lib/cni/{name} {first}/"),
    };
    let why =
        "the runtime looks for plugins there and finds none of that name: pods of this network cannot start";
    Finding::wrong(CHECK, format!("{name} is in none of {}", list.join(", ")), why, cure)
}

fn port_map(dirs: &[PathBuf], ours: &[&Network]) -> Option<Finding> {
    let named = ours.iter().any(|n| n.types().contains(&"portmap"));
    (!ours.is_empty() && !named && !is_there(dirs, "portmap")).then(|| {
        Finding::note(
            CHECK,
            "portmap is not installed".to_owned(),
            "published ports (hostPort, podman -p) need it chained after percale",
            "apt-get install containernetworking-plugins".to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::{fake, fake_places, put};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn directories_come_from_the_runtimes_configuration() {
        let keys = ["bin_dir", "bin_dirs"];
        let text = "root = \"/r\"\n[cni]\n  bin_dir = \"/a/bin\" # here\n  #bin_dir = \"/no\"\n  conf_dir = \"/c\"\n";
        assert_eq!(named_dirs(text, &keys), ["/a/bin"]);
        assert_eq!(named_dirs("bin_dirs = [\"/a\", \"/b\"]\nx = \"/c\"\n", &keys), ["/a", "/b"]);
        assert_eq!(named_dirs("bin_dirs = [\n  \"/a\",\n  \"/b\",\n]\nx = \"/c\"\n", &keys), ["/a", "/b"]);
        assert_eq!(named_dirs("bin_dir = \"\"\nbin_dir", &keys), Vec::<String>::new());
    }

    #[test]
    fn a_plugin_that_the_runtime_cannot_find_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let conf = r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"percale","ipam":{"type":"percale-ipam"}},{"type":"portmap"}]}"#;
        put(dir.path(), "etc/cni/net.d/10-percale.conflist", conf);
        put(dir.path(), "etc/containerd/config.toml", "bin_dir = \"/odd/bin\"\n");
        let places = fake_places(dir.path());
        let whats = |host: &Host<'_>| {
            check(host).into_iter().filter(|f| !f.what.contains("nft")).map(|f| f.what).collect::<Vec<_>>()
        };
        let odd = dir.path().join("odd/bin");
        let wanted = ["percale", "portmap"].map(|name| format!("{name} is in none of {}", odd.display()));
        assert_eq!(whats(&fake(&places, dir.path())), wanted);
        for name in ["percale", "portmap"] {
            put(dir.path(), &format!("odd/bin/{name}"), "");
            std::fs::set_permissions(odd.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(whats(&fake(&places, dir.path())), Vec::<String>::new());
    }
}
