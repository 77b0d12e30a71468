//! Network managers that would take the pods' links: NetworkManager and systemd-networkd.

use super::glob;
use super::{Finding, Host};
use std::collections::BTreeMap;
use std::path::PathBuf;

const CHECK: &str = "network managers";
/// A name as pods' links have it.
const SAMPLE: &str = "cali0123456789a";

pub fn check(host: &Host<'_>) -> Vec<Finding> {
    network_manager(host).into_iter().chain(networkd(host)).collect()
}

/// Configuration snippets of several directories: of equal names the first directory's counts, and
/// they apply in the order of their names.
fn snippets(host: &Host<'_>, dirs: &[&str], suffix: &str) -> Vec<(PathBuf, String)> {
    let mut files: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for dir in dirs {
        let Ok(entries) = std::fs::read_dir(host.path(dir)) else { continue };
        for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().ends_with(suffix)) {
            files.entry(entry.file_name()).or_insert(entry.path());
        }
    }
    let text = |path: PathBuf| Some((path.clone(), std::fs::read_to_string(path).ok()?));
    files.into_values().filter_map(text).collect()
}

/// Section, key and value of each setting of an INI-like file.
fn settings(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            // `unmanaged-devices+=` adds to the list.
            let key = key.trim().trim_end_matches('+');
            found.push((section.clone(), key.to_owned(), value.trim().to_owned()));
        }
    }
    found
}

fn network_manager(host: &Host<'_>) -> Option<Finding> {
    let installed = host.exists("/usr/sbin/NetworkManager") || host.exists("/usr/bin/NetworkManager");
    let running =
        host.exists("/run/NetworkManager/NetworkManager.pid") || host.exists("/run/NetworkManager/devices");
    if !installed && !running {
        return None;
    }
    let dirs = ["/etc/NetworkManager/conf.d", "/run/NetworkManager/conf.d", "/usr/lib/NetworkManager/conf.d"];
    let mut texts: Vec<String> = snippets(host, &dirs, ".conf").into_iter().map(|(_, text)| text).collect();
    texts.extend(host.read("/etc/NetworkManager/NetworkManager.conf"));
    if texts.iter().any(|text| leaves_us_alone(text)) {
        return None;
    }
    let make = if running { Finding::wrong } else { Finding::note };
    let cure = "printf '[keyfile]\\nunmanaged-devices=interface-name:cali*\\n' > /etc/NetworkManager/conf.d/percale.conf && \
                systemctl reload NetworkManager";
    Some(make(
        CHECK,
        "NetworkManager is not told to leave cali* links alone".to_owned(),
        "it may take a pod's link, change its addresses and remove its routes",
        cure.to_owned(),
    ))
}

/// `[keyfile] unmanaged-devices=` (NetworkManager.conf(5)), or a `[device...]` section that matches
/// our links and has `managed=0`.
fn leaves_us_alone(text: &str) -> bool {
    let settings = settings(text);
    let names_us = |value: &str| value.split([';', ',']).any(matches_spec);
    let unmanaged = settings.iter().any(|(_, key, value)| key == "unmanaged-devices" && names_us(value));
    let of = |section: &str, wanted: &str| {
        settings.iter().find(|(s, k, _)| s == section && k == wanted).map(|(.., v)| v.as_str())
    };
    let sections = settings.iter().map(|(s, ..)| s).filter(|s| s.starts_with("device"));
    let mut devices = sections.filter(|s| matches!(of(s, "managed"), Some("0" | "false" | "no")));
    unmanaged || devices.any(|s| of(s, "match-device").is_some_and(names_us))
}

/// A device specification: `interface-name:GLOB` or a driver.
fn matches_spec(spec: &str) -> bool {
    let spec = spec.trim();
    match spec.strip_prefix("interface-name:") {
        Some(pattern) => glob::matches(pattern.trim_start_matches('='), SAMPLE),
        None => matches!(spec, "*" | "driver:veth" | "type:veth"),
    }
}

fn networkd(host: &Host<'_>) -> Option<Finding> {
    // systemd-networkd keeps its state there while it runs.
    if !host.exists("/run/systemd/netif/links") {
        return None;
    }
    let dirs = ["/etc/systemd/network", "/run/systemd/network", "/usr/lib/systemd/network"];
    let taking = snippets(host, &dirs, ".network").into_iter().find(|(_, text)| takes_us(text));
    let (file, text) = taking?;
    if settings(&text)
        .iter()
        .any(|(section, key, value)| section == "Link" && key == "Unmanaged" && is_yes(value))
    {
        return None;
    }
    let cure = "printf '[Match]\\nName=cali*\\n[Link]\\nUnmanaged=yes\\n' > /etc/systemd/network/05-percale.network && \
                networkctl reload";
    Some(Finding::wrong(
        CHECK,
        format!("systemd-networkd manages cali* links by {}", file.display()),
        "it gives them addresses of its own and removes routes when it restarts",
        cure.to_owned(),
    ))
}

fn is_yes(value: &str) -> bool {
    matches!(value.to_lowercase().as_str(), "yes" | "true" | "1" | "on")
}

/// Whether a pod's link matches every line of `[Match]` (systemd.network(5)). Without that section
/// a file matches everything.
fn takes_us(text: &str) -> bool {
    let settings = settings(text);
    settings.iter().filter(|(section, ..)| section == "Match").all(|(_, key, value)| matches_line(key, value))
}

fn matches_line(key: &str, value: &str) -> bool {
    let is = match key {
        "Name" => |word: &str| glob::matches(word, SAMPLE),
        "Kind" | "Driver" => |word: &str| glob::matches(word, "veth"),
        // A veth is an Ethernet link for networkd.
        "Type" => |word: &str| glob::matches(word, "ether"),
        // Hardware: a MAC, a bus path, a network name. Ours has none of these.
        _ => return false,
    };
    match value.strip_prefix('!') {
        Some(words) => !words.split_whitespace().any(is),
        None => value.split_whitespace().any(is),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Severity, fake, fake_places, put};
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<Finding> {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(path, text)| put(dir.path(), path, text));
        let places = fake_places(dir.path());
        check(&fake(&places, dir.path()))
    }

    #[test]
    fn network_manager_must_be_told() {
        let pid = ("run/NetworkManager/NetworkManager.pid", "1");
        assert!(found(&[]).is_empty());
        let bare = found(&[pid]);
        assert_eq!(bare[0].severity, Severity::Wrong);
        assert!(bare[0].cure.contains("unmanaged-devices=interface-name:cali*"));
        assert_eq!(found(&[("usr/sbin/NetworkManager", "")])[0].severity, Severity::Note);
        let conf = "etc/NetworkManager/conf.d/x.conf";
        for text in [
            "[keyfile]\nunmanaged-devices=interface-name:docker0;interface-name:cali*\n",
            "[keyfile]\nunmanaged-devices+=interface-name:cali*\n",
            "[device-x]\nmatch-device=interface-name:cali*\nmanaged=0\n",
        ] {
            assert!(found(&[pid, (conf, text)]).is_empty(), "{text}");
        }
        for text in [
            "[keyfile]\nunmanaged-devices=interface-name:eth0\n",
            "#[keyfile]\n#unmanaged-devices=interface-name:cali*\n",
        ] {
            assert_eq!(found(&[pid, (conf, text)]).len(), 1, "{text}");
        }
    }

    #[test]
    fn networkd_takes_what_its_first_matching_file_says() {
        let running = ("run/systemd/netif/links/1", "");
        let with = |text| found(&[running, ("etc/systemd/network/50-x.network", text)]);
        assert!(with("[Match]\nName=en*\n[Network]\nDHCP=yes\n").is_empty());
        assert!(with("[Match]\nMACAddress=00:11:22:33:44:55\n").is_empty());
        assert!(with("[Match]\nName=!lo cali*\n").is_empty());
        for text in [
            "[Match]\nName=*\n",
            "[Match]\nType=ether\n",
            "[Match]\nName=en* ca*\nKind=veth\n",
            "[Network]\nDHCP=yes\n",
        ] {
            assert_eq!(with(text).len(), 1, "{text}");
        }
        let ours = ("etc/systemd/network/05-percale.network", "[Match]\nName=cali*\n[Link]\nUnmanaged=yes\n");
        assert!(
            found(&[running, ours, ("etc/systemd/network/50-x.network", "[Match]\nName=*\n")]).is_empty()
        );
        assert!(
            found(&[("etc/systemd/network/50-x.network", "[Match]\nName=*\n")]).is_empty(),
            "not running"
        );
    }
}
