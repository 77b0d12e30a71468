//! The environment of Calico's node (reference 5.2, 5.3).

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use model::{Family, ip};
use policy::autodetect::Method;
use policy::config::go_duration_ms;
use std::path::PathBuf;
use std::time::Duration;

/// What `IP` or `IP6` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Find it out.
    Detect,
    /// What the node object has; IPv4 finds it out where it has none.
    Keep,
    /// What the node object has; none is fine.
    KeepOrNone,
    /// This one; a lone address gets the prefix of its interface.
    Given { net: IpNet, alone: bool },
}

pub(super) struct Settings {
    pub v4: (Wanted, Method),
    pub v6: (Wanted, Method),
    pub poll: Duration,
    /// Another node may have this node's address.
    pub skip_conflicts: bool,
    /// `CALICO_NETWORKING_BACKEND=none`: networking is somebody else's.
    pub no_backend: bool,
    /// Where the conflist goes, if the daemon publishes it.
    pub conflist: Option<PathBuf>,
}

type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

impl Settings {
    /// # Errors
    /// A variable that cannot be used, by its name.
    pub fn read(env: &Env) -> Result<Self> {
        let text = |name: &str| env(name).map(|text| text.trim().to_owned()).unwrap_or_default();
        let method = |name: &str| Method::parse(&text(name)).with_context(|| name.to_owned());
        let level = text("CALICO_STARTUP_LOGLEVEL");
        if !level.is_empty() && !crate::log::set_level(&level) {
            tracing::warn!("CALICO_STARTUP_LOGLEVEL={level:?}: no level; info holds");
        }
        let poll = text("AUTODETECT_POLL_INTERVAL");
        let poll = go_duration_ms(&poll).filter(|ms| *ms >= 100).map(Duration::from_millis);
        Ok(Self {
            v4: (wanted("IP", &text("IP"), Family::V4)?, method("IP_AUTODETECTION_METHOD")?),
            v6: (wanted("IP6", &text("IP6"), Family::V6)?, method("IP6_AUTODETECTION_METHOD")?),
            poll: poll.unwrap_or(Duration::from_secs(60)),
            skip_conflicts: text("DISABLE_NODE_IP_CHECK").eq_ignore_ascii_case("true"),
            no_backend: text("CALICO_NETWORKING_BACKEND").eq_ignore_ascii_case("none"),
            conflist: conflist(env)?,
        })
    }
}

fn wanted(name: &str, text: &str, family: Family) -> Result<Wanted> {
    match (text, family) {
        ("autodetect", _) => Ok(Wanted::Detect),
        ("", Family::V4) => Ok(Wanted::Keep),
        ("" | "none", _) => Ok(Wanted::KeepOrNone),
        (text, _) => {
            let alone = !text.contains('/');
            let net = if alone { ip::parse_ip(text).map(IpNet::from) } else { ip::parse_interface(text) };
            let net = net.with_context(|| name.to_owned())?;
            if Family::of_net(&net) != family {
                bail!("{name}={text}: is no address of {family}");
            }
            Ok(Wanted::Given { net, alone })
        }
    }
}

/// `PUBLISH_CONF=daemon`: the installer leaves the conflist to us (decision 36).
fn conflist(env: &Env) -> Result<Option<PathBuf>> {
    let set = |name: &str| env(name).filter(|text| !text.is_empty());
    match set("PUBLISH_CONF").as_deref() {
        None | Some("installer") => return Ok(None),
        Some("daemon") => {}
        Some(other) => bail!("PUBLISH_CONF={other:?}: use installer or daemon"),
    }
    let usual = ["/host/etc/cni/net.d", "/etc/cni/net.d"].map(PathBuf::from);
    let dir = set("CNI_CONF_DIR").map(PathBuf::from);
    let dir =
        dir.or_else(|| usual.iter().find(|dir| dir.is_dir()).cloned()).unwrap_or_else(|| usual[1].clone());
    Ok(Some(dir.join(set("CNI_CONF_NAME").unwrap_or_else(|| "10-percale.conflist".to_owned()))))
}

/// 32 random bytes.
pub(crate) fn random_key() -> [u8; 32] {
    let mut key = [0; 32];
    // The kernel's generator is seeded long before a daemon runs, and then always answers.
    let _ = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty());
    key
}

pub(super) fn random() -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = random_key();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Settings> {
        Settings::read(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn the_environment_has_calicos_meaning() {
        let settings = read(&[("IP", "192.0.2.7"), ("AUTODETECT_POLL_INTERVAL", "1m30s")]).unwrap();
        assert_eq!(settings.v4.0, Wanted::Given { net: "192.0.2.7/32".parse().unwrap(), alone: true });
        assert_eq!(settings.v6.0, Wanted::KeepOrNone);
        assert_eq!(settings.poll, Duration::from_secs(90));
        assert_eq!(read(&[]).unwrap().v4.0, Wanted::Keep);
        assert_eq!(read(&[("IP", "none")]).unwrap().v4.0, Wanted::KeepOrNone);
        assert_eq!(
            read(&[("IP6", "autodetect"), ("AUTODETECT_POLL_INTERVAL", "x")]).unwrap().v6.0,
            Wanted::Detect
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let cases = [
            ("IP", "192.0.2"),
            ("IP", "2001:db8::1"),
            ("IP6", "192.0.2.1"),
            ("IP_AUTODETECTION_METHOD", "guess"),
            ("PUBLISH_CONF", "somebody"),
        ];
        for (name, value) in cases {
            let error = format!("{:#}", read(&[(name, value)]).err().unwrap());
            assert!(error.contains(name), "{error}");
        }
    }
}
