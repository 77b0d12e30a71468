//! Every environment variable of Calico's installer, through the binary.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{Bed, plugin};
use serde_json::json;

#[test]
fn what_is_installed() {
    let bed = Bed::new();
    bed.put("src/README", "not a plugin", 0o755);
    bed.put("src/percaled", "not a plugin", 0o755);
    bed.ok(&[]);
    assert_eq!(bed.names("bin"), ["percale", "percale-cluster", "percale-ipam", "portmap"]);
    assert_eq!(bed.text("bin/percale-ipam"), bed.text("src/percale"));
    assert_eq!(bed.mode("bin/percale"), 0o755);
    assert_eq!(bed.names("net.d"), ["10-percale.conflist"]);
    assert_eq!(bed.mode("net.d/10-percale.conflist"), 0o644);
    assert_eq!(bed.section()["ipam"]["pools"], json!([{"cidr": "10.91.0.0/16"}]));
    assert!(bed.ok(&[]).contains("nothing to do"));
}

// REQ: I-01
#[test]
fn update_cni_binaries() {
    for (value, updated) in [("true", true), ("false", false), ("", true)] {
        let mut bed = Bed::new();
        bed.put("bin/portmap", &plugin("somebody's"), 0o755);
        if !value.is_empty() {
            bed.set("UPDATE_CNI_BINARIES", value);
        }
        bed.ok(&[]);
        assert_eq!(bed.text("bin/portmap") == bed.text("src/portmap"), updated, "{value:?}");
        assert!(bed.exists("bin/percale"), "what is missing is installed either way");
        bed.version("2");
        bed.ok(&[]);
        assert_eq!(bed.text("bin/percale") == bed.text("src/percale"), updated, "{value:?}");
    }
    assert!(
        Bed::new().env("UPDATE_CNI_BINARIES", "maybe").fails(&[]).contains("UPDATE_CNI_BINARIES=\"maybe\"")
    );
}

// REQ: I-01
#[test]
fn skip_cni_binaries() {
    let mut bed = Bed::new().env("SKIP_CNI_BINARIES", "portmap, percale-cluster");
    bed.ok(&[]);
    assert_eq!(bed.names("bin"), ["percale", "percale-ipam"]);
    bed.unset("SKIP_CNI_BINARIES");
    bed.ok(&[]);
    bed.set("SKIP_CNI_BINARIES", "portmap");
    bed.version("2");
    bed.ok(&[]);
    assert_eq!(bed.text("bin/portmap"), plugin("portmap 1"), "what is skipped stays as it is");
    assert_eq!(bed.text("bin/percale"), plugin("percale 2"));
}

#[test]
fn cni_conf_name_and_cni_old_conf_name() {
    let bed =
        Bed::new().env("CNI_CONF_NAME", "05-pods.conflist").env("CNI_OLD_CONF_NAME", "10-calico.conflist");
    bed.put("net.d/10-calico.conflist", "{\"name\":\"x\"}", 0o644);
    bed.ok(&[]);
    assert_eq!(bed.names("net.d"), ["05-pods.conflist"]);
    bed.ok(&["--uninstall"]);
    assert_eq!(bed.names("net.d"), ["10-calico.conflist"], "what was removed for ours comes back");
    assert_eq!(bed.names("bin"), Vec::<String>::new());
    for bad in ["../x", "a/b", ""] {
        assert!(Bed::new().env("CNI_CONF_NAME", bad).fails(&[]).contains("CNI_CONF_NAME"), "{bad:?}");
    }
    let bed = Bed::new();
    bed.put("net.d/10-calico.conflist", "{\"name\":\"x\"}", 0o644);
    bed.ok(&[]);
    assert!(bed.exists("net.d/10-calico.conflist"), "nothing is removed unless it is named");
}

#[test]
fn cni_network_config() {
    let bed = Bed::new().env("CNI_NETWORK_CONFIG", "{}");
    bed.ok(&[]);
    assert_eq!(bed.text("net.d/10-percale.conflist"), "{}");
    let all = r#"{"a":"__LOG_LEVEL__ __LOG_FILE_PATH__ __LOG_FILE_MAX_SIZE__ __LOG_FILE_MAX_AGE__ __LOG_FILE_MAX_COUNT__",
        "b":"__DATASTORE_TYPE__ __KUBERNETES_NODE_NAME__ __KUBECONFIG_FILEPATH__ __CNI_MTU__",
        "c":"__KUBERNETES_SERVICE_HOST__ __KUBERNETES_SERVICE_PORT__ __SERVICEACCOUNT_TOKEN__",
        "d":"__ETCD_CERT_FILE__ __ETCD_CA_CERT_FILE__ __ETCD_KEY_FILE__ __ETCD_ENDPOINTS__ __ETCD_DISCOVERY_SRV__"}"#;
    let bed = Bed::new().account("sesame").env("CNI_NETWORK_CONFIG", all);
    let bed = bed.env("KUBERNETES_NODE_NAME", "node1").env("CNI_NET_DIR", "/srv/net.d");
    bed.ok(&[]);
    let conf = bed.json("net.d/10-percale.conflist");
    assert_eq!(conf["a"], "info /var/log/percale/cni/cni.log 100 30 10");
    assert_eq!(conf["b"], "kubernetes node1 /srv/net.d/percale-kubeconfig 1500");
    assert_eq!(conf["c"], "10.96.0.1 443 sesame");
    assert_eq!(conf["d"], "    ");
    assert_eq!(bed.mode("net.d/10-percale.conflist"), 0o600, "it holds a token");
}

#[test]
fn cni_network_config_file_wins() {
    let bed = Bed::new().env("CNI_NETWORK_CONFIG", "{");
    let file = bed.put("conf", "{\"name\":\"of the file\"}", 0o644);
    let bed = bed.env("CNI_NETWORK_CONFIG_FILE", &file.display().to_string());
    bed.ok(&[]);
    assert_eq!(bed.json("net.d/10-percale.conflist")["name"], "of the file");
    let bed = bed.env("CNI_NETWORK_CONFIG_FILE", "/nonexistent");
    assert!(bed.fails(&[]).contains("CNI_NETWORK_CONFIG_FILE=/nonexistent"));
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let given = r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"percale","mtu":__CNI_MTU__,"ipam":{"type":"percale-ipam"}}]}"#;
    let cases = [("{", "1500"), (given, ""), (given, "big"), ("[]", "1500"), (given, "-5")];
    for (template, mtu) in cases {
        let bed = Bed::new().env("CNI_NETWORK_CONFIG", template).env("CNI_MTU", mtu);
        let told = bed.fails(&[]);
        assert!(told.contains("network configuration"), "{template}: {told}");
        assert_eq!((bed.names("bin").len(), bed.names("net.d").len()), (0, 0), "{template}");
    }
    assert!(Bed::new().env("CNI_MTU", "").fails(&[]).contains("CNI_MTU"), "set but empty is set");
}

#[test]
fn cni_mtu() {
    let bed = Bed::new();
    bed.ok(&[]);
    assert_eq!(bed.section()["mtu"], 0, "the plugin takes the daemon's");
    let bed = Bed::new().env("CNI_MTU", "1400");
    bed.ok(&[]);
    assert_eq!(bed.section()["mtu"], 1400);
}

#[test]
fn log_settings() {
    let bed =
        Bed::new().env("LOG_LEVEL", "debug").env("LOG_FILE_PATH", "/x/y.log").env("LOG_FILE_MAX_SIZE", "5");
    let bed = bed.env("LOG_FILE_MAX_AGE", "6").env("LOG_FILE_MAX_COUNT", "7");
    bed.ok(&[]);
    let section = bed.section();
    assert_eq!((&section["log_level"], &section["log_file_path"]), (&json!("debug"), &json!("/x/y.log")));
    let sizes = (&section["log_file_max_size"], &section["log_file_max_age"], &section["log_file_max_count"]);
    assert_eq!(sizes, (&json!(5), &json!(6), &json!(7)));
}

// REQ: C-14
#[test]
fn datastore_type() {
    let written = |bed: &Bed| {
        bed.ok(&[]);
        bed.section()["datastore_type"].clone()
    };
    assert_eq!(written(&Bed::new()), "embedded");
    assert_eq!(written(&Bed::new().env("ETCD_ENDPOINTS", "http://127.0.0.1:2379")), "etcdv3");
    assert_eq!(written(&Bed::new().env("ETCD_DISCOVERY_SRV", "example.org")), "etcdv3");
    assert_eq!(written(&Bed::new().account("t")), "kubernetes");
    assert_eq!(written(&Bed::new().account("t").env("DATASTORE_TYPE", "embedded")), "embedded");
    assert!(Bed::new().env("DATASTORE_TYPE", "consul").fails(&[]).contains("DATASTORE_TYPE=\"consul\""));
    let mut bare = Bed::new();
    bare.unset("CALICO_IPV4POOL_CIDR");
    assert!(bare.fails(&[]).contains("CALICO_IPV4POOL_CIDR"), "an installation without any store is no use");
    assert_eq!(bare.names("bin").len(), 0);
}

// REQ: I-03
// REQ: C-13
#[test]
fn tls_assets_dir_and_etcd() {
    let bed = Bed::new()
        .env("ETCD_ENDPOINTS", "https://a:2379,https://b:2379")
        .env("CNI_NET_DIR", "/etc/cni/net.d");
    for (name, text) in
        [("etcd-ca", "CA"), ("etcd-cert", "CERT"), ("etcd-key", "KEY"), (".hidden", "x"), ("other", "x")]
    {
        bed.put(&format!("secrets/{name}"), text, 0o644);
    }
    bed.ok(&[]);
    assert_eq!(bed.names("net.d/percale-tls"), ["etcd-ca", "etcd-cert", "etcd-key"]);
    assert_eq!(bed.mode("net.d/percale-tls/etcd-key"), 0o600);
    let section = bed.section();
    assert_eq!(section["etcd_key_file"], "/etc/cni/net.d/percale-tls/etcd-key");
    assert_eq!(section["etcd_cert_file"], "/etc/cni/net.d/percale-tls/etcd-cert");
    assert_eq!(section["etcd_ca_cert_file"], "/etc/cni/net.d/percale-tls/etcd-ca");
    assert_eq!(section["etcd_endpoints"], "https://a:2379,https://b:2379");
    bed.ok(&["--uninstall"]);
    assert_eq!(bed.names("net.d"), Vec::<String>::new());
}

// REQ: I-03
#[test]
fn the_kubeconfig_and_its_parts() {
    let bed = Bed::new().account("sesame").env("KUBERNETES_SERVICE_HOST", "fd00::1").env("CNI_NET_DIR", "/n");
    bed.ok(&[]);
    let config = bed.json("net.d/percale-kubeconfig");
    assert_eq!(bed.mode("net.d/percale-kubeconfig"), 0o600);
    assert_eq!(config["clusters"][0]["cluster"]["server"], "https://[fd00::1]:443");
    assert_eq!(config["users"][0]["user"]["token"], "sesame");
    assert_eq!(config["clusters"][0]["cluster"]["certificate-authority-data"], "UEVN");
    assert_eq!(bed.section()["kubernetes"]["kubeconfig"], "/n/percale-kubeconfig");
    let bed = Bed::new()
        .account("sesame")
        .env("SKIP_TLS_VERIFY", "true")
        .env("KUBERNETES_SERVICE_PROTOCOL", "http");
    bed.ok(&[]);
    let cluster = bed.json("net.d/percale-kubeconfig")["clusters"][0]["cluster"].clone();
    assert_eq!(cluster, json!({"server": "http://10.96.0.1:443", "insecure-skip-tls-verify": true}));
    let mut bed = Bed::new().account("sesame");
    bed.unset("KUBERNETES_SERVICE_PORT");
    assert!(bed.fails(&[]).contains("KUBERNETES_SERVICE_PORT"));
}

#[test]
fn publish_conf() {
    let bed = Bed::new().env("PUBLISH_CONF", "daemon");
    bed.ok(&[]);
    assert_eq!(bed.names("net.d"), Vec::<String>::new(), "the daemon will");
    assert_eq!(bed.json("state/conflist/10-percale.conflist")["name"], "k8s-pod-network");
    bed.put("net.d/10-percale.conflist", &bed.text("state/conflist/10-percale.conflist"), 0o644);
    assert!(bed.ok(&[]).contains("nothing to do"));
    bed.ok(&["--uninstall"]);
    assert_eq!(bed.names("net.d"), Vec::<String>::new());
    let mut bed = Bed::new();
    bed.ok(&[]);
    bed.set("PUBLISH_CONF", "daemon");
    bed.version("2");
    bed.ok(&[]);
    assert!(bed.exists("net.d/10-percale.conflist"), "what serves stays until the daemon replaces it");
    assert!(Bed::new().env("PUBLISH_CONF", "x").fails(&[]).contains("PUBLISH_CONF=\"x\""));
}

/// As the chart runs it, where the daemon publishes: Calico's configuration serves at every moment.
#[test]
fn a_take_over_leaves_calicos_configuration_or_replaces_it_at_once() {
    let calicos = r#"{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico","etcd_endpoints":"http://127.0.0.1:2"}]}"#;
    let node = || {
        let bed = Bed::new().env("PUBLISH_CONF", "daemon").env("CNI_CONF_NAME", "10-percale.conflist");
        bed.put("bin/calico", &plugin("Calico's"), 0o755);
        bed.put("net.d/10-calico.conflist", calicos, 0o644);
        bed
    };
    let bed = node();
    bed.ok(&["--take-over"]);
    assert_eq!(bed.names("net.d"), ["10-calico.conflist"]);
    assert_eq!(bed.text("bin/calico"), bed.text("src/percale"));
    bed.ok(&["--give-back"]);
    assert_eq!(
        (bed.names("net.d"), bed.text("bin/calico")),
        (vec!["10-calico.conflist".to_owned()], plugin("Calico's"))
    );
    let own = r#"{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"percale","ipam":{"type":"percale-ipam"}}]}"#;
    let bed = node().env("CNI_NETWORK_CONFIG", own);
    bed.ok(&["--take-over"]);
    assert_eq!(bed.names("net.d"), ["10-percale.conflist"], "no daemon publishes while calico-node routes");
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let bed = Bed::new();
    bed.put(
        "etc/containerd/config.toml",
        "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n",
        0o644,
    );
    let table = bed.ok(&["--dry-run"]);
    assert!(table.contains("place") && table.contains("conflist, 0644"), "{table}");
    assert!(table.contains("warning: containerd looks for plugins in /usr/lib/cni"), "{table}");
    let plan: serde_json::Value = serde_json::from_str(&bed.ok(&["--dry-run", "-o", "json"])).unwrap();
    let steps = plan["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap()["kind"], "conflist");
    assert_eq!((bed.names("bin").len(), bed.exists("state")), (0, false));
    bed.ok(&[]);
    let plan: serde_json::Value = serde_json::from_str(&bed.ok(&["--dry-run", "-o", "json"])).unwrap();
    assert_eq!(plan["changes"], false);
    assert!(bed.ok(&["--dry-run", "--uninstall"]).contains("remove"));
    assert!(bed.exists("bin/percale"));
}

#[test]
fn bad_usage() {
    for args in [&["--uninstall", "--rollback"][..], &["--watch", "--uninstall"], &["--frobnicate"]] {
        assert_eq!(Bed::new().run(args).status.code(), Some(64), "{args:?}");
    }
}

/// Where containerd or CRI-O look elsewhere, it is said; where they look here, nothing is.
#[test]
fn the_runtimes_directories_are_looked_up() {
    let cases = [
        (
            "etc/containerd/config.toml",
            "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n",
            "containerd looks for plugins in /usr/lib/cni",
        ),
        (
            "etc/crio/crio.conf",
            "[crio.network]\nnetwork_dir = \"/srv/net.d\"\n",
            "CRI-O reads configurations from /srv/net.d",
        ),
        (
            "etc/crio/crio.conf.d/10-x.conf",
            "[crio.network]\nplugin_dirs = [\"/usr/libexec/cni/\"]\n",
            "CRI-O looks for plugins in /usr/libexec/cni",
        ),
    ];
    for (file, text, said) in cases {
        let bed = Bed::new();
        bed.put(file, text, 0o644);
        let plan = bed.json_of(&["--dry-run", "-o", "json"]);
        let warnings: Vec<&str> =
            plan["warnings"].as_array().unwrap().iter().filter_map(|w| w.as_str()).collect();
        assert!(warnings.iter().any(|w| w.contains(said)), "{file}: {warnings:?}");
        assert!(bed.ok(&[]).contains(said), "{file}: said when it installs, too");
    }
    let bed = Bed::new();
    bed.put(
        "etc/crio/crio.conf",
        "[crio.network]\nnetwork_dir = \"/net.d\"\nplugin_dirs = [\"/usr/libexec/cni\", \"/bin\"]\n",
        0o644,
    );
    assert_eq!(bed.json_of(&["--dry-run", "-o", "json"])["warnings"], json!([]));
}

/// What the kubeconfig and the configuration take from the environment beside what the other tests show.
#[test]
fn names_and_protocols_of_the_cluster() {
    let bed = Bed::new()
        .account("token")
        .env("KUBERNETES_SERVICE_PROTOCOL", "http")
        .env("KUBERNETES_NODE_NAME", "node-7");
    bed.ok(&[]);
    let kubeconfig = bed.json("net.d/percale-kubeconfig");
    assert_eq!(kubeconfig["clusters"][0]["cluster"]["server"], "http://10.96.0.1:443");
    assert_eq!(bed.section()["nodename"], "node-7");
    let bed = Bed::new().env("ETCD_DISCOVERY_SRV", "example.org");
    bed.ok(&[]);
    assert_eq!(bed.section()["datastore_type"], "etcdv3");
    assert_eq!(bed.section()["etcd_discovery_srv"], "example.org");
    let bed = Bed::new().env("CALICO_IPV6POOL_CIDR", "fd00:91::/64");
    bed.ok(&[]);
    assert_eq!(bed.section()["ipam"]["pools"], json!([{"cidr": "10.91.0.0/16"}, {"cidr": "fd00:91::/64"}]));
}
