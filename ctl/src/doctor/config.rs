//! Network configurations: can they be read, does one name Percale, and does it mean what
//! `percalectl` looks at.

use super::{Finding, Host};
use cni_protocol::{Defaults, NetConf};
use serde_json::Value;
use std::path::PathBuf;

const CHECK: &str = "configuration";
const MAIN: [&str; 2] = ["percale", "calico"];
const IPAM: [&str; 2] = ["percale-ipam", "calico-ipam"];

/// A network configuration: its file and its plugins, in order.
pub struct Network {
    pub file: PathBuf,
    plugins: Vec<Value>,
}

impl Network {
    /// Every plugin that the runtime or another plugin executes for it.
    pub fn types(&self) -> Vec<&str> {
        self.plugins.iter().flat_map(|p| [p["type"].as_str(), ipam_type(p)]).flatten().collect()
    }

    pub fn is_ours(&self) -> bool {
        self.ours().next().is_some()
    }

    /// Its plugins that are ours, each as the plugin is told.
    pub fn ours(&self) -> impl Iterator<Item = &Value> {
        self.plugins.iter().filter(|plugin| is_ours(plugin))
    }
}

/// A library call where our plugin uses our IPAM; an executable everywhere else.
fn ipam_type(plugin: &Value) -> Option<&str> {
    let ipam = plugin["ipam"]["type"].as_str()?;
    let called = plugin["type"].as_str().is_some_and(|t| MAIN.contains(&t)) && IPAM.contains(&ipam);
    (!called).then_some(ipam)
}

fn is_ours(plugin: &Value) -> bool {
    let is = |value: &Value, names: &[&str]| value.as_str().is_some_and(|name| names.contains(&name));
    is(&plugin["type"], &MAIN) || is(&plugin["ipam"]["type"], &IPAM)
}

pub fn check(host: &Host<'_>) -> Vec<Finding> {
    let (networks, mut findings) = read(host);
    findings.extend(
        networks.iter().flat_map(|n| n.plugins.iter().filter(|p| is_ours(p)).flat_map(|p| judge(host, n, p))),
    );
    match networks.iter().position(Network::is_ours) {
        None => findings.push(none_of_ours(host)),
        Some(0) => {}
        Some(_) => findings.push(not_first(&networks[0])),
    }
    findings
}

fn none_of_ours(host: &Host<'_>) -> Finding {
    Finding::wrong(
        CHECK,
        format!("no network configuration in {} names percale", host.conf_dir.display()),
        "a runtime calls the plugins that its configuration directory names; --conf-dir looks elsewhere",
        format!("write {}/10-percale.conflist as the README shows", host.conf_dir.display()),
    )
}

fn not_first(first: &Network) -> Finding {
    Finding::note(
        CHECK,
        format!("{} comes before Percale's configuration", first.file.display()),
        "containerd and CRI-O give every pod the first network of the directory, by file name",
        format!("mv {0} {0}.off (if Percale is meant for pods)", first.file.display()),
    )
}

/// Every configuration of the directory in the order of names, and what is wrong with the files.
pub fn read(host: &Host<'_>) -> (Vec<Network>, Vec<Finding>) {
    let Ok(entries) = std::fs::read_dir(&host.conf_dir) else { return (Vec::new(), Vec::new()) };
    let is_conf = |path: &PathBuf| {
        path.extension().is_some_and(|e| ["conf", "conflist", "json"].iter().any(|s| e == *s))
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(is_conf).collect();
    files.sort();
    let (mut networks, mut findings) = (Vec::new(), Vec::new());
    for file in files {
        match load(&file) {
            Ok(plugins) => networks.push(Network { file, plugins }),
            Err(why) => findings.push(unreadable(&file.display().to_string(), &why)),
        }
    }
    (networks, findings)
}

fn unreadable(file: &str, why: &str) -> Finding {
    Finding::wrong(
        CHECK,
        format!("{file}: {why}"),
        "a runtime may refuse the whole directory for one file that it cannot read",
        format!("correct it, or mv {file} {file}.off"),
    )
}

/// The plugins of a file, each with the list's name and version, as the runtime hands it on.
fn load(file: &PathBuf) -> Result<Vec<Value>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let conf: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    if !conf.is_object() {
        return Err("not a JSON object".to_owned());
    }
    let plugins = match &conf["plugins"] {
        Value::Null => vec![conf.clone()],
        Value::Array(plugins) if !plugins.is_empty() => plugins.clone(),
        _ => return Err("plugins: a list with at least one plugin is needed".to_owned()),
    };
    plugins.into_iter().enumerate().map(|(at, plugin)| inject(&conf, at, plugin)).collect()
}

fn inject(conf: &Value, at: usize, mut plugin: Value) -> Result<Value, String> {
    if !plugin["type"].is_string() {
        return Err(format!("plugins[{at}].type: missing, or not text"));
    }
    let Some(members) = plugin.as_object_mut() else { return Err(format!("plugins[{at}]: not an object")) };
    for key in ["name", "cniVersion"] {
        if let Some(value) = conf.get(key) {
            members.insert(key.to_owned(), value.clone());
        }
    }
    Ok(plugin)
}

/// Reads the plugin's configuration as the plugin itself would.
fn judge(host: &Host<'_>, network: &Network, plugin: &Value) -> Vec<Finding> {
    let file = network.file.display();
    let parsed = match serde_json::to_vec(plugin).map(|bytes| NetConf::parse(&bytes)) {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(error)) => {
            let why = "the plugin refuses every ADD with this configuration";
            return vec![Finding::wrong(
                CHECK,
                format!("{file}: {}", error.msg),
                why,
                format!("correct {file}"),
            )];
        }
        Err(_) => return Vec::new(),
    };
    let warning = |warning: &cni_protocol::Warning| {
        Finding::note(
            CHECK,
            format!("{file}: {warning}"),
            "the plugin goes on without it",
            format!("correct {file}"),
        )
    };
    let mut findings: Vec<Finding> = parsed.warnings.iter().map(warning).collect();
    let paths = parsed.conf.paths(&Defaults::for_name(&parsed.conf.plugin));
    findings.extend(other_store(host, network, &paths));
    findings
}

/// What `percalectl` shows would not be this network's.
fn other_store(host: &Host<'_>, network: &Network, paths: &cni_protocol::Paths) -> Option<Finding> {
    let (file, theirs, ours) = (network.file.display(), &paths.store, &host.places.store);
    let lock = &paths.ipam_lock_file;
    if theirs == ours && *lock == host.places.lock_file {
        return None;
    }
    Some(Finding::note(
        CHECK,
        format!("{file} keeps its addresses in {} under the lock {}", theirs.display(), lock.display()),
        "percalectl looks at another store, or writes under another lock, than this network",
        format!("percalectl --datastore-path {} --ipam-lock-file {} ...", theirs.display(), lock.display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{Severity, fake, fake_places, put};
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<(Severity, String)> {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| put(dir.path(), &format!("etc/cni/net.d/{name}"), text));
        let mut places = fake_places(dir.path());
        places.store = "/var/lib/percale/store".into();
        places.lock_file = "/run/percale/ipam.lock".into();
        let findings = check(&fake(&places, dir.path()));
        findings
            .into_iter()
            .map(|f| (f.severity, f.what.replace(&dir.path().display().to_string(), "")))
            .collect()
    }

    const GOOD: &str = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"percale",
        "ipam":{"type":"percale-ipam","pools":[{"cidr":"10.91.0.0/16"}]}},{"type":"portmap"}]}"#;

    #[test]
    fn a_good_configuration_is_fine() {
        assert_eq!(
            found(&[("10-percale.conflist", GOOD), ("99-loopback.conf", r#"{"type":"loopback"}"#)]),
            []
        );
    }

    #[test]
    fn a_bad_key_is_named_as_the_plugin_would_name_it() {
        let bad = GOOD.replace("10.91.0.0/16", "10.91.0.0/33");
        let all = found(&[("10-percale.conflist", &bad)]);
        assert_eq!(all[0].0, Severity::Wrong);
        assert!(
            all[0].1.contains("10-percale.conflist: ") && all[0].1.contains("ipam.pools[0].cidr"),
            "{all:?}"
        );
        let odd = GOOD.replace("\"pools\"", "\"assing_ipv4\":\"true\",\"pools\"");
        let all = found(&[("10-percale.conflist", &odd)]);
        assert!(all[0].0 == Severity::Note && all[0].1.contains("ipam.assing_ipv4: unknown key"), "{all:?}");
    }

    #[test]
    fn files_that_stop_a_runtime_are_named() {
        for text in ["{", "[]", r#"{"plugins":[]}"#, r#"{"plugins":[{}]}"#, r#"{"plugins":[5]}"#] {
            let all = found(&[("10-percale.conflist", GOOD), ("20-x.conflist", text)]);
            assert!(all.len() == 1 && all[0].1.contains("20-x.conflist: "), "{text}: {all:?}");
        }
    }

    #[test]
    fn no_configuration_or_not_the_first_one() {
        assert_eq!(
            found(&[]),
            [(Severity::Wrong, "no network configuration in /etc/cni/net.d names percale".to_owned())]
        );
        let all =
            found(&[("05-bridge.conf", r#"{"name":"b","type":"bridge"}"#), ("10-percale.conflist", GOOD)]);
        assert!(
            all.len() == 1 && all[0].0 == Severity::Note && all[0].1.contains("05-bridge.conf comes before")
        );
    }

    #[test]
    fn a_network_with_another_store_is_noted() {
        let other = GOOD.replace("\"type\":\"percale\",", "\"type\":\"percale\",\"state_dir\":\"/srv/p\",");
        let all = found(&[("10-percale.conflist", &other)]);
        assert!(all.len() == 1 && all[0].1.contains("/srv/p/store"), "{all:?}");
    }
}
