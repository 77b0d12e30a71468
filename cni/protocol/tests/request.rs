//! Requests as runtimes send them, right and wrong.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use cni_protocol::{Attachment, CniError, Code, Defaults, Env, Request, Verb, Version};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// An ADD of eth0 in container `c1`; tests change what they are about.
struct Call {
    env: BTreeMap<String, OsString>,
    stdin: Vec<u8>,
}

fn call(verb: &str) -> Call {
    let env = [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/blue"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni"),
    ];
    let env = env.map(|(key, value)| (key.to_owned(), value.into())).into();
    Call { env, stdin: Vec::new() }.conf(json!({"cniVersion": "1.1.0", "name": "net", "type": "percale"}))
}

impl Call {
    fn set(mut self, key: &str, value: &str) -> Self {
        self.env.insert(key.to_owned(), value.into());
        self
    }

    fn unset(mut self, key: &str) -> Self {
        self.env.remove(key);
        self
    }

    fn conf(mut self, conf: Value) -> Self {
        self.stdin = conf.to_string().into_bytes();
        self
    }

    fn stdin(mut self, stdin: &[u8]) -> Self {
        self.stdin = stdin.to_vec();
        self
    }

    fn parse(&self) -> Result<Request, CniError> {
        let env = Env::from_fn(|key| self.env.get(key).cloned())?;
        Request::parse(env, &self.stdin, Defaults::percale())
    }

    #[track_caller]
    fn fails(&self, code: Code, named: &str) {
        let error = self.parse().unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.msg.contains(named), "{named:?} is not in {error}");
    }
}

#[test]
fn an_add_has_all_it_needs() {
    let request = call("ADD").parse().unwrap();
    assert_eq!(request.verb, Verb::Add);
    assert_eq!(request.attachment, Some(Attachment::new("net", "c1", "eth0")));
    assert_eq!(request.netns.as_deref(), Some(Path::new("/run/netns/blue")));
    assert_eq!(request.path, [PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")]);
    assert_eq!(request.conf.cni_version, Version::V1_1_0);
    assert_eq!(request.paths.store, Path::new("/var/lib/percale/store"));
    assert_eq!(request.raw["name"], "net");
    assert_eq!(request.warnings, []);
}

#[test]
fn a_missing_version_is_the_oldest() {
    let request = call("ADD").conf(json!({"name": "net", "type": "percale"})).parse().unwrap();
    assert_eq!(request.conf.cni_version, Version::V0_1_0);
}

#[test]
fn every_missing_variable_is_named() {
    let missing = |verb: &str, names: &str| {
        let bare = Call { env: BTreeMap::new(), stdin: Vec::new() }.set("CNI_COMMAND", verb);
        bare.fails(Code::InvalidEnvironment, &format!("[{names}]"));
    };
    missing("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH");
    missing("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH");
    missing("DEL", "CNI_CONTAINERID,CNI_IFNAME,CNI_PATH");
    missing("GC", "CNI_PATH");
    missing("STATUS", "CNI_PATH");
    missing("", "CNI_COMMAND");
    call("ADD").set("CNI_NETNS", "").fails(Code::InvalidEnvironment, "[CNI_NETNS]");
}

#[test]
fn verbs_are_spelled_exactly() {
    call("add").fails(Code::InvalidEnvironment, "CNI_COMMAND");
    call("NUKE\nTHEM").fails(Code::InvalidEnvironment, "NUKE\\nTHEM");
}

#[test]
fn del_needs_no_namespace() {
    let request = call("DEL").unset("CNI_NETNS").parse().unwrap();
    assert_eq!(request.netns, None);
    assert_eq!(request.attachment, Some(Attachment::new("net", "c1", "eth0")));
}

#[test]
fn del_and_gc_outlive_a_broken_configuration() {
    let conf = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "percale", "mtu": "big",
        "ipam": {"type": "percale-ipam", "pools": [{"cidr": "10.0.0.0/33"}]},
    });
    call("ADD").conf(conf.clone()).fails(Code::InvalidConfig, "mtu");
    for verb in ["DEL", "GC"] {
        let request = call(verb).conf(conf.clone()).parse().unwrap();
        let warned: Vec<String> = request.warnings.iter().map(ToString::to_string).collect();
        assert!(warned.iter().any(|warning| warning.starts_with("mtu:")), "{warned:?}");
        assert!(request.conf.ipam.brings_addresses, "the embedded store is still meant");
    }
    let elsewhere = json!({"name": "net", "type": "percale", "datastore_path": 5});
    call("DEL").conf(elsewhere).fails(Code::InvalidConfig, "datastore_path");
    let args = call("DEL").set("CNI_ARGS", "IP=nonsense;K8S_POD_NAME=p").parse().unwrap();
    assert_eq!(args.args.pod_name.as_deref(), Some("p"));
}

#[test]
fn gc_and_status_have_no_container() {
    for verb in ["GC", "STATUS"] {
        let bare = call(verb).unset("CNI_CONTAINERID").unset("CNI_IFNAME").unset("CNI_NETNS");
        assert_eq!(bare.parse().unwrap().attachment, None);
        let stray = call(verb).set("CNI_IFNAME", "../..").parse().unwrap();
        assert_eq!((stray.attachment, stray.netns), (None, None));
    }
}

#[test]
fn a_verb_needs_a_version_that_has_it() {
    let at = |version: &str| json!({"cniVersion": version, "name": "net", "type": "percale"});
    for version in Version::ALL {
        let parsed = |verb: &str| call(verb).conf(at(version.as_str())).parse();
        assert!(parsed("ADD").is_ok() && parsed("DEL").is_ok());
        assert_eq!(parsed("CHECK").is_ok(), version >= Version::V0_4_0, "{version}");
        assert_eq!(parsed("GC").is_ok(), version >= Version::V1_1_0, "{version}");
        assert_eq!(parsed("STATUS").is_ok(), version >= Version::V1_1_0, "{version}");
    }
    call("CHECK").conf(at("0.3.1")).fails(Code::IncompatibleVersion, "does not allow CHECK");
    call("ADD").conf(at("1.2.0")).fails(Code::IncompatibleVersion, "1.2.0");
    call("ADD").conf(at("v1.0.0")).fails(Code::IncompatibleVersion, "v1.0.0");
}

#[test]
fn version_reads_no_configuration() {
    let bare =
        |stdin: &[u8]| Call { env: BTreeMap::new(), stdin: stdin.to_vec() }.set("CNI_COMMAND", "VERSION");
    assert_eq!(bare(b"").parse().unwrap().conf.cni_version, Version::NEWEST);
    let asked = bare(br#"{"cniVersion":"0.4.0"}"#).parse().unwrap().conf.cni_version;
    assert_eq!(
        cni_protocol::version::supported_json(asked),
        json!({
            "cniVersion": "0.4.0",
            "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        })
    );
}

#[test]
fn container_ids_that_could_leave_a_directory_are_refused() {
    let long = "a".repeat(1025);
    for id in ["a/b", "../x", ".hidden", "-rf", "a b", "ü", "a\nb", long.as_str()] {
        call("ADD").set("CNI_CONTAINERID", id).fails(Code::InvalidEnvironment, "CNI_CONTAINERID");
    }
    assert!(call("ADD").set("CNI_CONTAINERID", &"f".repeat(64)).parse().is_ok());
}

#[test]
fn interface_names_that_the_kernel_refuses_are_refused() {
    for name in
        ["sixteen-bytes-xx", ".", "..", "a/b", "a:b", "a b", "a\tb", "eth%d", "a\u{7}", "ééééééé\u{301}x"]
    {
        call("ADD").set("CNI_IFNAME", name).fails(Code::InvalidEnvironment, "CNI_IFNAME");
    }
    for name in ["fifteen-bytes-x", "eth0", "a", "net1.100", "ens@1"] {
        assert!(call("ADD").set("CNI_IFNAME", name).parse().is_ok(), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn variables_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let mut add = call("ADD");
    add.env.insert("CNI_CONTAINERID".into(), OsString::from_vec(vec![b'a', 0xff]));
    add.fails(Code::InvalidEnvironment, "CNI_CONTAINERID is not valid UTF-8");
}

#[test]
fn garbage_on_stdin_is_a_decoding_failure() {
    let deep = "[".repeat(100_000);
    let large = format!("{{\"name\":\"{}\"}}", "n".repeat(1 << 20));
    let truncated = br#"{"cniVersion":"1.0.0","name":"ne"#;
    for stdin in [&b""[..], b"{", b"null", b"[]", b"\xff\xfe", truncated, deep.as_bytes(), large.as_bytes()] {
        call("ADD").stdin(stdin).fails(Code::Decode, "network configuration");
    }
}

#[test]
fn a_network_needs_a_name() {
    let named =
        |name: Value| call("ADD").conf(json!({"cniVersion": "1.0.0", "name": name, "type": "percale"}));
    for name in [json!(null), json!("")] {
        named(name).fails(Code::InvalidConfig, "missing network name");
    }
    for name in [json!("a/b"), json!("../x"), json!(" x"), json!("_x"), json!("n".repeat(254)), json!(5)] {
        named(name).fails(Code::InvalidConfig, "name");
    }
    assert!(named(json!("k8s-pod.network_1")).parse().is_ok());
}

#[test]
fn the_order_of_checks_is_the_librarys() {
    let wrong_everywhere = call("ADD")
        .set("CNI_IFNAME", "a/b")
        .set("CNI_ARGS", "x")
        .conf(json!({"cniVersion": "9.9.9", "mtu": "x"}));
    wrong_everywhere.fails(Code::InvalidConfig, "missing network name");
    let named = wrong_everywhere.conf(json!({"name": "n", "cniVersion": "9.9.9", "mtu": "x"}));
    named.fails(Code::InvalidEnvironment, "CNI_IFNAME");
    let placed = named.set("CNI_IFNAME", "eth0");
    placed.fails(Code::IncompatibleVersion, "9.9.9");
    let dated = placed.conf(json!({"name": "n", "cniVersion": "1.0.0", "mtu": "x"}));
    dated.fails(Code::InvalidConfig, "mtu");
    dated.conf(json!({"name": "n", "cniVersion": "1.0.0"})).fails(Code::InvalidEnvironment, "CNI_ARGS");
}

#[test]
fn kubernetes_and_podman_arguments_are_read() {
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;\
                K8S_POD_UID=1234-5;IP=10.0.0.7,FD00:0:0::00A7;MAC=0A-58-0a-00-00-07;Foo=bar";
    let request = call("ADD").set("CNI_ARGS", args).parse().unwrap();
    assert_eq!(request.args.pod(), Some(("ns", "web-0")));
    assert_eq!(request.args.pod_uid.as_deref(), Some("1234-5"));
    assert_eq!(request.args.pod_infra_container_id.as_deref(), Some("c1"));
    let ips: Vec<String> = request.requested_ips().iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.0.0.7", "fd00::a7"]);
    assert_eq!(request.requested_mac().unwrap().to_string(), "0a:58:0a:00:00:07");
    assert_eq!(request.warnings, [], "IgnoreUnknown=1 silences Foo");
    assert!(request.args.for_delegate().starts_with("IgnoreUnknown=1;IgnoreUnknown=1;K8S"));
}

#[test]
fn bad_arguments_name_their_key() {
    let cases = [
        ("K8S_POD_NAME", "CNI_ARGS"),
        ("a=b=c", "CNI_ARGS"),
        ("=x", "CNI_ARGS"),
        ("IP=10.0.0.256", "CNI_ARGS.IP"),
        ("IP=fe80::1%eth0", "CNI_ARGS.IP"),
        ("IP=010.0.0.1", "CNI_ARGS.IP"),
        ("MAC=01:00:5e:00:00:01", "CNI_ARGS.MAC"),
        ("MAC=0a:58", "CNI_ARGS.MAC"),
        ("IgnoreUnknown=maybe", "CNI_ARGS.IgnoreUnknown"),
        ("K8S_POD_NAMESPACE=a/b", "CNI_ARGS.K8S_POD_NAMESPACE"),
    ];
    for (args, named) in cases {
        call("ADD").set("CNI_ARGS", args).fails(Code::InvalidEnvironment, &format!("{named}:"));
    }
    let unknown = call("ADD").set("CNI_ARGS", "Foo=bar").parse().unwrap();
    assert_eq!(unknown.warnings[0].to_string(), "CNI_ARGS.Foo: unknown key, ignored");
}

#[test]
fn requested_addresses_come_in_host_locals_order() {
    let conf = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "percale",
        "args": {"cni": {"ips": ["10.0.0.2", "10.0.0.1"]}},
        "runtimeConfig": {"ips": ["10.0.0.3/24", "10.0.0.2"], "mac": "0a:58:0a:00:00:09"},
    });
    let request = call("ADD").set("CNI_ARGS", "IP=10.0.0.1").conf(conf).parse().unwrap();
    let ips: Vec<String> = request.requested_ips().iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(request.requested_mac().unwrap().to_string(), "0a:58:0a:00:00:09");
}

#[test]
fn attachments_have_file_names_of_their_own() {
    let name = |network: &str, id: &str, ifname: &str| Attachment::new(network, id, ifname).file_name();
    assert_eq!(name("net", "c1", "eth0"), "net@c1@eth0");
    let near = [
        name("a.b", "c", "eth0"),
        name("a", "b.c", "eth0"),
        name("a@b", "c", "eth0"),
        name("a", "b@c", "eth0"),
        name("a", "b", "c@eth0"),
        name("", "ab", "eth0"),
        name("a", "", "beth0"),
        name("..", "..", ".."),
        name("a", "b", "../../etc/passwd"),
        name("a", "b", "e\0"),
        name(&"n".repeat(253), &"c".repeat(1024), "eth0"),
    ];
    for (i, one) in near.iter().enumerate() {
        assert!(one.len() <= 160 && !one.contains(['/', '\0']) && !one.starts_with('.'), "{one}");
        assert!(near[i + 1..].iter().all(|other| other != one), "{one} twice");
    }
    assert_eq!(name("a@b", "c", "eth0"), "sha1-fc403b28d5bf0d75563ae3a5de9c5f52983ff451", "stable for ever");
}

#[test]
fn debug_output_holds_no_secret() {
    let conf = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "percale", "etcd_endpoints": "https://u:hunter2@e:2379",
        "policy": {"k8s_auth_token": "hunter2", "k8s_client_key": "hunter2"}, "extra": "hunter2",
    });
    let request = call("ADD").conf(conf).parse().unwrap();
    assert_eq!(request.conf.policy.k8s_auth_token.expose(), "hunter2");
    assert!(!format!("{request:?}").contains("hunter2"), "{request:?}");
    assert!(!request.warnings.iter().any(|warning| warning.to_string().contains("hunter2")));
}

/// The requests that fuzzing starts from: environment on seven lines, then stdin.
#[test]
fn requests_as_runtimes_send_them_are_taken() {
    let names = [
        "CNI_COMMAND",
        "CNI_CONTAINERID",
        "CNI_NETNS",
        "CNI_IFNAME",
        "CNI_ARGS",
        "CNI_PATH",
        "CNI_NETNS_OVERRIDE",
    ];
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/cni/requests");
    let mut verbs = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.splitn(8, '\n');
        let env =
            names.iter().zip(&mut lines).map(|(name, value)| (name.to_string(), value.into())).collect();
        let sent = Call { env, stdin: lines.next().unwrap().as_bytes().to_vec() };
        let request = sent.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(request.warnings, [], "{}", path.display());
        verbs.insert(request.verb.as_str());
    }
    assert_eq!(verbs.into_iter().collect::<Vec<_>>(), ["ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION"]);
}
