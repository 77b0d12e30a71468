//! Certificates made with the `openssl` program: an authority, a server, a client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Files of one authority and what it signed.
pub struct Certs {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
    _dir: tempfile::TempDir,
}

impl Certs {
    pub fn make() -> Self {
        let dir = tempfile::Builder::new().prefix("percale-certs-").tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let (ca, ca_key) = (file("ca.pem"), file("ca-key.pem"));
        new_key(&ca_key);
        openssl(
            &["req", "-x509", "-new", "-subj", "/CN=test authority", "-days", "2"],
            &[("-key", &ca_key), ("-out", &ca)],
        );
        let certs = Self {
            cert: file("server.pem"),
            key: file("server-key.pem"),
            client_cert: file("client.pem"),
            client_key: file("client-key.pem"),
            ca,
            _dir: dir,
        };
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:etcd-of-test.example\nextendedKeyUsage=serverAuth,clientAuth\n";
        certs.sign(&ca_key, &certs.cert, &certs.key, "server", names);
        certs.sign(&ca_key, &certs.client_cert, &certs.client_key, "client", "extendedKeyUsage=clientAuth\n");
        certs
    }

    fn sign(&self, ca_key: &Path, cert: &Path, key: &Path, name: &str, extensions: &str) {
        let (request, extension_file) = (cert.with_extension("csr"), cert.with_extension("ext"));
        fs::write(&extension_file, extensions).unwrap();
        new_key(key);
        openssl(&["req", "-new", "-subj", &format!("/CN={name}")], &[("-key", key), ("-out", &request)]);
        openssl(
            &["x509", "-req", "-days", "2", "-CAcreateserial"],
            &[
                ("-in", &request),
                ("-CA", &self.ca),
                ("-CAkey", ca_key),
                ("-extfile", &extension_file),
                ("-out", cert),
            ],
        );
    }
}

fn new_key(file: &Path) {
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], &[("-out", file)]);
}

fn openssl(words: &[&str], files: &[(&str, &Path)]) {
    let mut command = Command::new("openssl");
    command.args(words);
    for (option, file) in files {
        command.arg(option).arg(file);
    }
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("openssl is installed");
    assert!(status.success(), "openssl {words:?}");
}
