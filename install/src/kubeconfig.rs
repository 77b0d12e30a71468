//! Pure: the kubeconfig of the plugin's own engine, as Calico's installer writes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// How the API server is reached.
#[derive(Clone, Debug)]
pub struct Server {
    pub protocol: String,
    pub host: String,
    pub port: String,
    /// PEM; not used where the server's certificate is not looked at.
    pub authority: Vec<u8>,
    pub skip_tls_verify: bool,
}

impl Server {
    /// The host is always in brackets for IPv6, and only there.
    pub fn url(&self) -> String {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let host = if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() };
        format!("{}://{host}:{}", self.protocol, self.port)
    }
}

/// The file's text. JSON is YAML; values cannot break it.
pub fn render(server: &Server, token: &str) -> Vec<u8> {
    let mut cluster = json!({"server": server.url()});
    if server.skip_tls_verify {
        cluster["insecure-skip-tls-verify"] = json!(true);
    } else {
        cluster["certificate-authority-data"] = json!(STANDARD.encode(&server.authority));
    }
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": "percale", "user": {"token": token}}],
        "contexts": [{"name": "percale-context", "context": {"cluster": "local", "user": "percale"}}],
        "current-context": "percale-context",
    });
    let mut text = serde_json::to_vec_pretty(&file).expect("a JSON value can be written");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_both_families() {
        let server = |host: &str| Server {
            protocol: "https".to_owned(),
            host: host.to_owned(),
            port: "443".to_owned(),
            authority: b"PEM".to_vec(),
            skip_tls_verify: false,
        };
        assert_eq!(server("10.96.0.1").url(), "https://10.96.0.1:443");
        assert_eq!(server("fd00::1").url(), "https://[fd00::1]:443");
        assert_eq!(server("[fd00::1]").url(), "https://[fd00::1]:443");
        let file: serde_json::Value = serde_json::from_slice(&render(&server("h"), "to\"ken")).unwrap();
        assert_eq!(file["users"][0]["user"]["token"], "to\"ken");
        assert_eq!(file["clusters"][0]["cluster"]["certificate-authority-data"], "UEVN");
    }
}
