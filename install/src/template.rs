//! Pure: the network configuration. The built-in one, or a given template with Calico's placeholders.

use anyhow::{Context as _, Result, bail};
use cni_protocol::NetConf;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Placeholder and value.
pub type Values = BTreeMap<&'static str, String>;

/// What the built-in configuration depends on.
#[derive(Clone, Debug, Default)]
pub struct BuiltIn {
    /// `embedded`, `etcdv3` or `kubernetes`.
    pub datastore_type: String,
    /// CIDRs of the embedded store's pools.
    pub pools: Vec<String>,
    /// `None`: from the MTU file.
    pub mtu: Option<String>,
}

/// Substitutes in a given template and checks the result as the plugin would.
///
/// `datastore_type` is written into our plugin's section where the template has none, so that the
/// store never changes in silence; otherwise the text stays as it is.
///
/// # Errors
/// What is no JSON object, or what the plugin would refuse.
pub fn render(template: &str, values: &Values, datastore_type: &str) -> Result<Vec<u8>> {
    let text = substitute(template, values);
    let conf: Value = serde_json::from_str(&text).context(
        "the network configuration is no JSON after substitution; is a variable of it set, but empty?",
    )?;
    if !conf.is_object() {
        bail!("the network configuration is no JSON object");
    }
    check(&conf)?;
    Ok(match with_type(&conf, datastore_type) {
        Some(completed) => pretty(&completed),
        None => text.into_bytes(),
    })
}

/// Every `__NAME__` by its value, escaped as in a JSON string.
fn substitute(template: &str, values: &Values) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        let quoted = Value::from(value.as_str()).to_string();
        text = text.replace(&format!("__{name}__"), &quoted[1..quoted.len() - 1]);
    }
    text
}

/// The configuration with the store's type written out, where ours lacks it.
fn with_type(conf: &Value, datastore_type: &str) -> Option<Value> {
    let mut conf = conf.clone();
    let mut changed = false;
    let sections = match conf.get_mut("plugins") {
        Some(Value::Array(plugins)) => plugins.iter_mut().collect(),
        _ => vec![&mut conf],
    };
    for plugin in sections {
        if plugin["type"] == "percale" && plugin.get("datastore_type").is_none() {
            plugin["datastore_type"] = json!(datastore_type);
            changed = true;
        }
    }
    changed.then_some(conf)
}

fn check(conf: &Value) -> Result<()> {
    let plugins = match conf.get("plugins") {
        None => vec![conf.clone()],
        Some(Value::Array(plugins)) => plugins.clone(),
        Some(_) => bail!("the network configuration: plugins: must be a list"),
    };
    for mut plugin in plugins {
        if !matches!(plugin["type"].as_str(), Some("percale" | "calico")) {
            continue;
        }
        for key in ["name", "cniVersion"] {
            if let Some(value) = conf.get(key) {
                plugin[key] = value.clone();
            }
        }
        let parsed = serde_json::to_vec(&plugin).map(|bytes| NetConf::parse(&bytes))?;
        parsed.map_err(|e| anyhow::anyhow!("the network configuration, as the plugin reads it: {e}"))?;
    }
    Ok(())
}

/// The name of the network in a configuration.
pub fn network_name(bytes: &[u8]) -> Option<String> {
    let conf: Value = serde_json::from_slice(bytes).ok()?;
    conf["name"].as_str().map(str::to_owned)
}

/// The configuration when none is given.
pub fn built_in(values: &Values, with: &BuiltIn) -> Result<Vec<u8>> {
    let value = |name: &str| values.get(name).cloned().unwrap_or_default();
    let number = |name: &str| -> Result<u64> {
        let text = value(name);
        text.parse().with_context(|| format!("{name}={text:?}: must be a number"))
    };
    let mtu = match &with.mtu {
        Some(text) => text.parse().with_context(|| format!("CNI_MTU={text:?}: must be a number"))?,
        None => 0u64,
    };
    let mut plugin = json!({
        "type": "percale",
        "log_level": value("LOG_LEVEL"),
        "log_file_path": value("LOG_FILE_PATH"),
        "log_file_max_size": number("LOG_FILE_MAX_SIZE")?,
        "log_file_max_age": number("LOG_FILE_MAX_AGE")?,
        "log_file_max_count": number("LOG_FILE_MAX_COUNT")?,
        "datastore_type": with.datastore_type,
        "nodename": value("KUBERNETES_NODE_NAME"),
        "mtu": mtu,
        "ipam": {"type": "percale-ipam"},
    });
    store_keys(&mut plugin, with, &value);
    let portmap = json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}});
    let conf = json!({"name": "k8s-pod-network", "cniVersion": "1.0.0", "plugins": [plugin, portmap]});
    check(&conf)?;
    Ok(pretty(&conf))
}

fn store_keys(plugin: &mut Value, with: &BuiltIn, value: &dyn Fn(&str) -> String) {
    match with.datastore_type.as_str() {
        "embedded" => {
            plugin["ipMasq"] = json!(true);
            let pools: Vec<Value> = with.pools.iter().map(|cidr| json!({"cidr": cidr})).collect();
            if !pools.is_empty() {
                plugin["ipam"]["pools"] = json!(pools);
            }
        }
        "etcdv3" => {
            let keys = [
                ("etcd_endpoints", "ETCD_ENDPOINTS"),
                ("etcd_discovery_srv", "ETCD_DISCOVERY_SRV"),
                ("etcd_key_file", "ETCD_KEY_FILE"),
                ("etcd_cert_file", "ETCD_CERT_FILE"),
                ("etcd_ca_cert_file", "ETCD_CA_CERT_FILE"),
            ];
            for (key, name) in keys.into_iter().filter(|(_, name)| !value(name).is_empty()) {
                plugin[key] = json!(value(name));
            }
        }
        _ => {}
    }
    if with.datastore_type == "kubernetes" || !value("SERVICEACCOUNT_TOKEN").is_empty() {
        plugin["policy"] = json!({"type": "k8s"});
        plugin["kubernetes"] = json!({"kubeconfig": value("KUBECONFIG_FILEPATH")});
    }
}

fn pretty(conf: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(conf).expect("a JSON value can be written");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let pairs = [
            ("LOG_LEVEL", "info"),
            ("LOG_FILE_PATH", "/var/log/percale/cni/cni.log"),
            ("LOG_FILE_MAX_SIZE", "100"),
            ("LOG_FILE_MAX_AGE", "30"),
            ("LOG_FILE_MAX_COUNT", "10"),
            ("KUBERNETES_NODE_NAME", "node1"),
            ("KUBECONFIG_FILEPATH", "/etc/cni/net.d/percale-kubeconfig"),
            ("CNI_MTU", "1500"),
        ];
        pairs.into_iter().map(|(k, v)| (k, v.to_owned())).collect()
    }

    #[test]
    fn a_template_without_our_plugin_stays_as_it_is() {
        assert_eq!(render("{}", &values(), "kubernetes").unwrap(), b"{}");
        let text = r#"{"name":"n",  "mtu": __CNI_MTU__, "log":"__LOG_LEVEL__ __LOG_LEVEL__"}"#;
        let out = String::from_utf8(render(text, &values(), "kubernetes").unwrap()).unwrap();
        assert_eq!(out, r#"{"name":"n",  "mtu": 1500, "log":"info info"}"#);
    }

    #[test]
    fn the_store_is_written_out() {
        let text = r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"percale","ipam":{"type":"percale-ipam"}},{"type":"portmap"}]}"#;
        let out: Value = serde_json::from_slice(&render(text, &values(), "etcdv3").unwrap()).unwrap();
        assert_eq!(out["plugins"][0]["datastore_type"], "etcdv3");
        assert!(out["plugins"][1].get("datastore_type").is_none());
        let given = text.replace("\"percale\",", "\"percale\",\"datastore_type\":\"kubernetes\",");
        assert_eq!(render(&given, &values(), "etcdv3").unwrap(), given.as_bytes());
    }

    #[test]
    fn what_would_fail_every_pod_is_refused() {
        for (bad, said) in [
            ("{", "no JSON"),
            ("[]", "no JSON object"),
            (r#"{"mtu": __CNI_MTUU__}"#, "no JSON"),
            (r#"{"name":"n","plugins":[{"type":"percale","mtu":"x"}]}"#, "mtu"),
            (r#"{"name":"n","plugins":5}"#, "plugins"),
        ] {
            let error = format!("{:#}", render(bad, &values(), "kubernetes").unwrap_err());
            assert!(error.contains(said), "{bad}: {error}");
        }
    }

    #[test]
    fn values_cannot_break_out_of_their_string() {
        let mut values = values();
        values.insert("ETCD_ENDPOINTS", "http://a\",\"x\":\"".to_owned());
        let out = render(r#"{"e":"__ETCD_ENDPOINTS__"}"#, &values, "etcdv3").unwrap();
        let out: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(out["e"], "http://a\",\"x\":\"");
    }

    #[test]
    fn the_built_in_one_is_what_the_plugin_reads() {
        let with = BuiltIn { datastore_type: "kubernetes".to_owned(), ..BuiltIn::default() };
        let out: Value = serde_json::from_slice(&built_in(&values(), &with).unwrap()).unwrap();
        assert_eq!(out["plugins"][0]["kubernetes"]["kubeconfig"], "/etc/cni/net.d/percale-kubeconfig");
        assert_eq!(out["plugins"][0]["mtu"], 0);
        let pools = vec!["10.244.0.0/16".to_owned()];
        let with = BuiltIn { datastore_type: "embedded".to_owned(), pools, mtu: Some(String::new()) };
        assert!(built_in(&values(), &with).unwrap_err().to_string().contains("CNI_MTU=\"\""));
    }
}
