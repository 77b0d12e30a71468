//! Where containerd and CRI-O really look for plugins and configurations.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Configuration files of containerd, as distributions place them.
const CONTAINERD: &[&str] = &[
    "etc/containerd/config.toml",
    "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "var/snap/microk8s/current/args/containerd.toml",
    "etc/k0s/containerd.toml",
];
const CRIO: &str = "etc/crio/crio.conf";
const CRIO_MORE: &str = "etc/crio/crio.conf.d";

const BIN: &str = "/opt/cni/bin";
const CONF: &str = "/etc/cni/net.d";

/// What a runtime's configuration says, as paths of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    pub name: &'static str,
    pub file: PathBuf,
    pub bin_dirs: Vec<PathBuf>,
    pub conf_dir: PathBuf,
}

/// The runtimes that are configured below `root`. A file that cannot be read is told on stderr.
pub fn find(root: &Path) -> Vec<Runtime> {
    let containerd = CONTAINERD.iter().filter_map(|file| containerd(root, file));
    containerd.chain(crio(root)).collect()
}

/// Says where a runtime does not look into the directories that we write.
pub fn warnings(root: &Path, bin_dirs: &[PathBuf], conf_dir: &Path) -> Vec<String> {
    let on_host =
        |dir: &Path| dir.strip_prefix(root).map_or_else(|_| dir.to_owned(), |tail| Path::new("/").join(tail));
    let ours: BTreeSet<PathBuf> = bin_dirs.iter().map(|dir| on_host(dir)).collect();
    let conf = on_host(conf_dir);
    let mut told = Vec::new();
    for runtime in find(root) {
        let (name, file) = (runtime.name, runtime.file.display());
        if !runtime.bin_dirs.iter().any(|dir| ours.contains(dir)) {
            let theirs = list(&runtime.bin_dirs);
            told.push(format!(
                "{name} looks for plugins in {theirs} ({file}), not in {}; give --bin-dir",
                list(&ours)
            ));
        }
        if runtime.conf_dir != conf {
            let theirs = runtime.conf_dir.display();
            told.push(format!(
                "{name} reads configurations from {theirs} ({file}), not from {}; give --conf-dir",
                conf.display()
            ));
        }
    }
    told
}

fn list<'a>(dirs: impl IntoIterator<Item = &'a PathBuf>) -> String {
    dirs.into_iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(" or ")
}

fn read(path: &Path) -> Option<Table> {
    let text = fs::read_to_string(path).ok()?;
    match text.parse() {
        Ok(table) => Some(table),
        Err(e) => {
            eprintln!("percale-install: {}: cannot be read as TOML: {}", path.display(), e.message());
            None
        }
    }
}

fn containerd(root: &Path, file: &str) -> Option<Runtime> {
    let main = read(&root.join(file))?;
    let mut runtime = Runtime {
        name: "containerd",
        file: Path::new("/").join(file),
        bin_dirs: vec![BIN.into()],
        conf_dir: CONF.into(),
    };
    let imported = imports(root, &main);
    for table in std::iter::once(&main).chain(&imported) {
        take_containerd(table, &mut runtime);
    }
    Some(runtime)
}

/// `imports`: paths, the last of which may have a `*`; later ones win.
fn imports(root: &Path, main: &Table) -> Vec<Table> {
    let patterns =
        main.get("imports").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    patterns.flat_map(|pattern| expand(root, pattern)).filter_map(|path| read(&path)).collect()
}

fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let path = root.join(pattern.trim_start_matches('/'));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some((before, after)) = name.split_once('*') else { return vec![path] };
    let dir = path.parent().unwrap_or(root);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let fits = |name: &str| name.starts_with(before) && name.ends_with(after);
    let mut found: Vec<PathBuf> =
        entries.filter(|e| fits(&e.file_name().to_string_lossy())).map(|e| e.path()).collect();
    found.sort();
    found
}

/// The `cni` section of whichever plugin has one: its name changed with the file's version.
pub fn take_containerd(table: &Table, runtime: &mut Runtime) {
    let plugins = table.get("plugins").and_then(Value::as_table).into_iter().flat_map(Table::values);
    for cni in plugins.filter_map(|plugin| plugin.get("cni")) {
        take(cni, &["bin_dirs", "bin_dir"], "conf_dir", runtime);
    }
}

fn take(section: &Value, bin_keys: &[&str], conf_key: &str, runtime: &mut Runtime) {
    if let Some(dirs) = bin_keys.iter().map(|key| dirs(section.get(key))).find(|dirs| !dirs.is_empty()) {
        runtime.bin_dirs = dirs;
    }
    if let Some(dir) = dirs(section.get(conf_key)).pop() {
        runtime.conf_dir = dir;
    }
}

/// A path or a list of paths, without a slash at the end.
fn dirs(value: Option<&Value>) -> Vec<PathBuf> {
    let texts = match value {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    texts
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(|text| Path::new(text).components().collect())
        .collect()
}

fn crio(root: &Path) -> Option<Runtime> {
    let more = expand(root, &format!("{CRIO_MORE}/*.conf"));
    let files: Vec<PathBuf> = std::iter::once(root.join(CRIO)).chain(more).collect();
    let tables: Vec<Table> = files.iter().filter_map(|file| read(file)).collect();
    if tables.is_empty() {
        return None;
    }
    let mut runtime = Runtime {
        name: "CRI-O",
        file: Path::new("/").join(CRIO),
        bin_dirs: vec![BIN.into()],
        conf_dir: CONF.into(),
    };
    tables.iter().for_each(|table| take_crio(table, &mut runtime));
    Some(runtime)
}

/// `[crio.network]`.
pub fn take_crio(table: &Table, runtime: &mut Runtime) {
    if let Some(network) = table.get("crio").and_then(|crio| crio.get("network")) {
        take(network, &["plugin_dirs", "plugin_dir"], "network_dir", runtime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn told(files: &[(&str, &str)]) -> Vec<String> {
        let dir = root(files);
        let bin = [dir.path().join("opt/cni/bin")];
        warnings(dir.path(), &bin, &dir.path().join("etc/cni/net.d"))
    }

    #[test]
    fn nothing_to_say_where_they_agree() {
        assert_eq!(told(&[]), Vec::<String>::new());
        assert_eq!(told(&[("etc/containerd/config.toml", "version = 2\n")]), Vec::<String>::new());
        let slash = "[crio.network]\nnetwork_dir = \"/etc/cni/net.d/\"\nplugin_dirs = [\"/usr/libexec/cni\", \"/opt/cni/bin/\"]\n";
        assert_eq!(told(&[("etc/crio/crio.conf", slash)]), Vec::<String>::new());
    }

    #[test]
    fn each_version_of_the_file() {
        let sections = [
            "[plugins.cri.cni]\nbin_dir = \"/usr/lib/cni\"\n",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n",
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = [\"/usr/lib/cni\"]\n",
        ];
        for text in sections {
            let all = told(&[("etc/containerd/config.toml", text)]);
            assert!(all.len() == 1 && all[0].contains("plugins in /usr/lib/cni"), "{text}: {all:?}");
        }
    }

    #[test]
    fn imported_files_win() {
        let main = ("etc/containerd/config.toml", "imports = [\"/etc/containerd/conf.d/*.toml\"]\n");
        let more = "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = \"/srv/net.d\"\n";
        let all =
            told(&[main, ("etc/containerd/conf.d/50-x.toml", more), ("etc/containerd/conf.d/x.bak", "[")]);
        assert!(all.len() == 1 && all[0].contains("configurations from /srv/net.d"), "{all:?}");
    }

    #[test]
    fn cri_o_reads_several_files() {
        let all = told(&[(
            "etc/crio/crio.conf.d/10-x.conf",
            "[crio.network]\nplugin_dirs = [\"/usr/libexec/cni\"]\n",
        )]);
        assert!(
            all.len() == 1 && all[0].starts_with("CRI-O looks for plugins in /usr/libexec/cni"),
            "{all:?}"
        );
    }
}
