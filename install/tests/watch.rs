//! `--watch`: tokens, certificates, repairs.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{Bed, Running, plugin, wait_for};

fn watching(bed: &Bed) -> Running {
    let running = Running(bed.command(&["--watch"]).spawn().unwrap());
    wait_for("the first installation", || bed.exists("net.d/10-percale.conflist"));
    running
}

// REQ: I-04
#[test]
fn a_projected_token_and_certificates_are_followed() {
    let bed = Bed::new().account("first");
    bed.put("secrets/etcd-key", "KEY 1", 0o600);
    let mut running = watching(&bed);
    let token = || bed.json("net.d/percale-kubeconfig")["users"][0]["user"]["token"].clone();
    assert_eq!(token(), "first");
    // As the kubelet does: another file is renamed into its place.
    bed.put("account/token", "second", 0o600);
    wait_for("the new token", || token() == "second");
    bed.put("secrets/etcd-key", "KEY 2", 0o600);
    wait_for("the new key", || bed.text("net.d/percale-tls/etcd-key") == "KEY 2");
    assert!(running.0.try_wait().unwrap().is_none());
}

#[test]
fn what_others_overwrite_is_repaired() {
    let bed = Bed::new();
    let _running = watching(&bed);
    std::fs::remove_file(bed.path("bin/percale-ipam")).unwrap();
    wait_for("a removed plugin", || bed.exists("bin/percale-ipam"));
    std::fs::write(bed.path("net.d/10-percale.conflist"), "{}").unwrap();
    wait_for("an overwritten configuration", || {
        bed.text("net.d/10-percale.conflist").contains("percale-ipam")
    });
    bed.put("bin/portmap", &plugin("another"), 0o755);
    wait_for("an overwritten plugin", || bed.text("bin/portmap") == plugin("portmap 1"));
}

#[test]
fn sleep_true_stays_and_sigterm_ends_it() {
    let bed = Bed::new().env("SLEEP", "true");
    let mut running = Running(bed.command(&[]).spawn().unwrap());
    wait_for("the first installation", || bed.exists("net.d/10-percale.conflist"));
    assert!(running.0.try_wait().unwrap().is_none());
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().code().is_none_or(|code| code == 0));
    assert!(Bed::new().env("SLEEP", "false").run(&[]).status.success());
}

/// Answers every TokenRequest with a token of four seconds: a real API server gives none under ten
/// minutes. That a real one gives any is shown in `cluster.rs`.
fn token_server(answered: std::sync::Arc<std::sync::atomic::AtomicUsize>) -> u16 {
    use base64::Engine as _;
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 8192];
            let count = stream.read(&mut buffer).unwrap();
            let request = String::from_utf8_lossy(&buffer[..count]).into_owned();
            assert!(request.starts_with("POST /api/v1/namespaces/ns/serviceaccounts/cni/token"), "{request}");
            let number = answered.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let claims = format!("{{\"iat\":{since},\"exp\":{},\"n\":{number}}}", since + 4);
            let token =
                format!("e30.{}.c2ln", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims));
            let body = format!("{{\"status\":{{\"token\":\"{token}\"}}}}");
            // The second request is refused: the first token must be kept, and another asked for soon.
            let head = if number == 1 { "500 Internal Server Error" } else { "201 Created" };
            let answer = format!(
                "HTTP/1.1 {head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    port
}

// REQ: I-04
#[test]
fn an_asked_token_is_renewed_before_it_expires() {
    let answered = std::sync::Arc::default();
    let port = token_server(std::sync::Arc::clone(&answered));
    let bed = Bed::new().account("own").env("PERCALE_CNI_SERVICE_ACCOUNT", "ns/cni");
    let bed =
        bed.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", &port.to_string());
    let bed = bed.env("KUBERNETES_SERVICE_PROTOCOL", "http").env("SKIP_TLS_VERIFY", "true");
    let _running = watching(&bed);
    let token = || {
        let config = bed.json("net.d/percale-kubeconfig");
        config["users"][0]["user"]["token"].as_str().unwrap().to_owned()
    };
    let mut seen = std::collections::BTreeSet::new();
    wait_for("three tokens", || {
        seen.insert(token());
        seen.len() >= 3
    });
    assert!(answered.load(std::sync::atomic::Ordering::SeqCst) >= 4, "one request was refused");
    assert!(!seen.contains("own"), "the installer's own token is not the plugin's");
    assert_eq!(bed.mode("net.d/percale-kubeconfig"), 0o600);
}
