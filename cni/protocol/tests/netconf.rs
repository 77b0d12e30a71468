//! The network configuration: meanings, defaults, absurd values.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use cni_protocol::netconf::{
    AttachmentId, Dataplane, DatastoreType, Families, LogLevel, Mode, PoolRef, ValidAttachments,
};
use cni_protocol::{CniError, Code, Defaults, NetConf, Parsed};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

fn parse(conf: Value) -> Result<Parsed, CniError> {
    NetConf::parse(conf.to_string().as_bytes())
}

/// A configuration of ours with these keys besides.
fn with(extra: Value) -> Value {
    let mut conf = json!({"cniVersion": "1.1.0", "name": "net", "type": "percale"});
    conf.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    conf
}

fn with_ipam(ipam: Value) -> Value {
    let mut all = json!({"type": "percale-ipam"});
    all.as_object_mut().unwrap().extend(ipam.as_object().unwrap().clone());
    with(json!({"ipam": all}))
}

fn conf(extra: Value) -> NetConf {
    parse(with(extra)).unwrap().conf
}

fn ipam(ipam: Value) -> cni_protocol::Ipam {
    parse(with_ipam(ipam)).unwrap().conf.ipam
}

#[track_caller]
fn fails(conf: Value, named: &str) {
    let error = parse(conf).unwrap_err();
    assert_eq!(error.code, Code::InvalidConfig, "{error}");
    assert!(error.msg.contains(named), "{named:?} is not in {error}");
}

#[test]
fn defaults_are_those_of_the_interface_page() {
    let conf = conf(json!({}));
    assert_eq!((conf.mtu, conf.ip_masq), (0, false));
    assert_eq!(conf.ipam_lock_timeout, Duration::from_secs(10));
    assert_eq!(conf.add_timeout, Duration::from_secs(60));
    assert_eq!(conf.del_timeout, Duration::from_secs(30));
    assert_eq!(conf.backends.datastore_type, None);
    assert_eq!(conf.ipam.families(), Families { v4: true, v6: false });
    assert_eq!(conf.ipam.reuse_delay, Duration::ZERO);
    assert_eq!(conf.dataplane, Dataplane::Native);
    assert_eq!(conf.valid_attachments, ValidAttachments::Absent);
    assert_eq!(conf.prev_result, None);
}

#[test]
fn paths_follow_the_name_and_the_state_directory() {
    let plain = conf(json!({}));
    let own = plain.paths(&Defaults::for_name("percale"));
    assert_eq!(own.store, Path::new("/var/lib/percale/store"));
    assert_eq!(own.mtu_file, Path::new("/var/lib/percale/mtu"));
    assert_eq!(own.ipam_lock_file, Path::new("/run/percale/ipam.lock"));
    assert_eq!(own.daemon_socket.as_deref(), Some(Path::new("/run/percale/percaled.sock")));
    assert_eq!(own.log_file.as_deref(), Some(Path::new("/var/log/percale/cni/cni.log")));

    let calico = plain.paths(&Defaults::for_name("calico-ipam"));
    assert_eq!(calico.mtu_file, Path::new("/var/lib/calico/mtu"));
    assert_eq!(calico.nodename_file, Path::new("/var/lib/calico/nodename"));
    assert_eq!(calico.ipam_lock_file, Path::new("/var/run/calico/ipam.lock"));
    assert_eq!(calico.log_file.as_deref(), Some(Path::new("/var/log/calico/cni/cni.log")));
    assert_eq!(calico.journal, own.journal, "one journal per host");
    assert_eq!(calico.attachment_dir, own.attachment_dir, "one lock per attachment");

    let moved = conf(
        json!({"state_dir": "/srv/p", "mtu_file": "/etc/mtu", "daemon_socket": "", "log_file_path": ""}),
    );
    let moved = moved.paths(&Defaults::percale());
    assert_eq!(moved.store, Path::new("/srv/p/store"));
    assert_eq!(moved.nodename_file, Path::new("/srv/p/nodename"));
    assert_eq!(moved.journal, Path::new("/srv/p/journal"));
    assert_eq!(moved.mtu_file, Path::new("/etc/mtu"));
    assert_eq!((moved.daemon_socket, moved.log_file), (None, None));
}

#[test]
fn an_unknown_key_is_a_warning_with_its_path() {
    let conf = with(
        json!({"mtuu": 5, "kubernetes": {"kubeconfg": "/x"}, "ipam": {"type": "calico-ipam", "pool": 1}}),
    );
    let warnings: Vec<String> = parse(conf).unwrap().warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "kubernetes.kubeconfg: unknown key, ignored",
            "ipam.pool: unknown key, ignored",
            "mtuu: unknown key, ignored"
        ]
    );
}

#[test]
fn keys_match_whatever_their_case_and_null_is_absent() {
    let conf =
        conf(json!({"MTU": 1400, "RuntimeConfig": {"IPS": ["10.0.0.5"]}, "ipam": null, "log_level": null}));
    assert_eq!(conf.mtu, 1400);
    assert_eq!(conf.runtime.ips.len(), 1);
    let both = parse(with(json!({"MTU": 1400, "mtu": 1300}))).unwrap();
    assert_eq!(
        (both.conf.mtu, both.warnings.len()),
        (1300, 1),
        "the exact spelling wins, the other is named"
    );
}

#[test]
fn a_bad_log_key_never_fails_a_pod() {
    let bad = json!({
        "log_level": ["warning"], "log_file_path": 5, "log_file_max_size": "big", "log_file_max_age": -1,
        "log_file_max_count": 1.5,
    });
    let parsed = parse(with(bad)).unwrap();
    let log = parsed.conf.log;
    assert_eq!((log.level, log.max_size_mb, log.max_age_days, log.max_count), (LogLevel::Info, 100, 30, 10));
    assert_eq!(parsed.warnings.len(), 5);
    assert_eq!(conf(json!({"log_level": "Debug"})).log.level, LogLevel::Debug);
    assert_eq!(conf(json!({"log_level": "none"})).log.level, LogLevel::Info);
    let zero = conf(json!({"log_file_max_size": 0, "log_file_max_count": 3})).log;
    assert_eq!((zero.max_size_mb, zero.max_count), (100, 3));
}

#[test]
fn an_mtu_is_one_that_a_link_can_have() {
    for mtu in [json!(67), json!(65536), json!(-1), json!(1500.5), json!("1500"), json!(1e30)] {
        fails(with(json!({"mtu": mtu})), "mtu: expected 0");
    }
    for mtu in [0, 68, 1280, 65535] {
        assert_eq!(conf(json!({"mtu": mtu})).mtu, mtu);
    }
    let small = |ipam: Value| parse(with(json!({"mtu": 1279, "ipam": ipam}))).unwrap().warnings.len();
    assert_eq!(small(json!({"type": "percale-ipam", "assign_ipv6": "true"})), 1, "IPv6 needs 1280");
    assert_eq!(small(json!({"type": "percale-ipam"})), 0);
}

#[test]
fn durations_are_bounded() {
    for key in ["ipam_lock_timeout", "add_timeout", "del_timeout"] {
        for value in [json!(0), json!(3601), json!(-5), json!("10")] {
            fails(with(json!({key: value})), &format!("{key}: expected a whole number from 1 to 3600"));
        }
    }
}

#[test]
fn paths_must_be_absolute() {
    for key in
        ["state_dir", "datastore_path", "ipam_lock_file", "attachment_dir", "daemon_socket", "mtu_file"]
    {
        fails(with(json!({key: "relative/path"})), key);
        fails(with(json!({key: "/nul\0byte"})), key);
    }
    fails(with(json!({"state_dir": format!("/{}", "x".repeat(5000))})), "state_dir");
}

#[test]
fn stores_are_three() {
    for (text, kind) in [
        ("embedded", Some(DatastoreType::Embedded)),
        ("etcdv3", Some(DatastoreType::Etcdv3)),
        ("kubernetes", Some(DatastoreType::Kubernetes)),
        ("", None),
    ] {
        assert_eq!(conf(json!({"datastore_type": text})).backends.datastore_type, kind);
    }
    fails(
        with(json!({"datastore_type": "etcdv2"})),
        "datastore_type: expected embedded, etcdv3 or kubernetes",
    );
    fails(with(json!({"etcd_endpoints": "http://a", "etcd_discovery_srv": "b"})), "etcd_discovery_srv");
    let endpoints = conf(json!({"etcd_endpoints": " http://a:1, ,http://b:2 "})).backends.etcd.endpoints;
    assert_eq!(endpoints, ["http://a:1", "http://b:2"]);
}

#[test]
fn families_follow_what_is_listed() {
    let both = |v4, v6| Families { v4, v6 };
    let v4 = json!({"cidr": "10.0.0.0/16"});
    let v6 = json!({"cidr": "fd00::/64"});
    let cases = [
        (json!({}), both(true, false)),
        (json!({"assign_ipv6": "true"}), both(true, true)),
        (json!({"assign_ipv4": "false", "assign_ipv6": true}), both(false, true)),
        (json!({"pools": [v4]}), both(true, false)),
        (json!({"pools": [v6]}), both(false, true)),
        (json!({"pools": [v4, v6]}), both(true, true)),
        (json!({"pools": [v4, v6], "assign_ipv6": "false"}), both(true, false)),
        (json!({"subnet": "fd00::/64"}), both(false, true)),
        (json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]}), both(true, true)),
    ];
    for (keys, families) in cases {
        assert_eq!(ipam(keys.clone()).families(), families, "{keys}");
    }
    fails(with_ipam(json!({"assign_ipv4": "yes"})), "ipam.assign_ipv4");
    fails(with_ipam(json!({"assign_ipv4": "True"})), "ipam.assign_ipv4");
}

#[test]
fn a_pool_has_room_for_its_blocks() {
    let pool = |pool: Value| with_ipam(json!({"pools": [pool]}));
    let cases = [
        (json!({"cidr": "10.0.0.0/33"}), "ipam.pools[0].cidr"),
        (json!({"cidr": "fd00::/129"}), "ipam.pools[0].cidr"),
        (json!({"cidr": "10.0.0.0"}), "prefix length is missing"),
        (json!({"cidr": "10.0.0.0/-1"}), "ipam.pools[0].cidr"),
        (json!({"cidr": "10.0.0.0/+8"}), "ipam.pools[0].cidr"),
        (json!({"cidr": "010.0.0.0/8"}), "ipam.pools[0].cidr"),
        (json!({"cidr": "fe80::%eth0/64"}), "zone"),
        (json!({"cidr": ""}), "ipam.pools[0].cidr"),
        (json!({"blockSize": 26}), "ipam.pools[0].cidr"),
        (json!({"cidr": "10.0.0.0/28", "blockSize": 26}), "from 28 to 32 for 10.0.0.0/28"),
        (json!({"cidr": "10.0.0.0/28"}), "found nothing, which means 26"),
        (json!({"cidr": "10.0.0.0/8", "blockSize": 19}), "ipam.pools[0].blockSize"),
        (json!({"cidr": "10.0.0.0/8", "blockSize": 33}), "ipam.pools[0].blockSize"),
        (json!({"cidr": "10.0.0.0/8", "blockSize": 282}), "ipam.pools[0].blockSize"),
        (json!({"cidr": "fd00::/48", "blockSize": 115}), "ipam.pools[0].blockSize"),
        (json!({"cidr": "fd00::/48", "blockSize": 26}), "ipam.pools[0].blockSize"),
        (json!({"cidr": "10.0.0.0/8", "name": "UPPER"}), "ipam.pools[0].name"),
        (json!({"cidr": "10.0.0.0/8", "name": "a/b"}), "ipam.pools[0].name"),
        (json!("10.0.0.0/8"), "ipam.pools[0]: expected an object"),
    ];
    for (keys, named) in cases {
        fails(pool(keys), named);
    }
}

#[test]
fn every_block_size_is_taken() {
    for (cidr, sizes) in [("10.0.0.0/8", 20..=32u8), ("fd00::/48", 116..=128)] {
        for size in sizes {
            let pools = ipam(json!({"pools": [{"cidr": cidr, "blockSize": size}]})).pools;
            assert_eq!(pools[0].block_size, size);
        }
    }
}

#[test]
fn pools_are_named_by_their_cidr_and_kept_apart() {
    let pools = ipam(json!({"pools": [
        {"cidr": "10.91.255.1/16"}, {"cidr": "FD00:0010:0244::/64", "natOutgoing": true, "name": "six"}
    ]}));
    let shown: Vec<String> = pools
        .pools
        .iter()
        .map(|p| format!("{} {} {} {}", p.name, p.cidr, p.block_size, p.nat_outgoing))
        .collect();
    assert_eq!(shown, ["10-91-0-0-16 10.91.0.0/16 26 false", "six fd00:10:244::/64 122 true"]);
    let twice = |a: &str, b: &str| {
        with_ipam(json!({"pools": [{"cidr": a, "name": "n1"}, {"cidr": b, "name": "n2"}]}))
    };
    fails(twice("10.0.0.0/8", "10.5.0.0/16"), "ipam.pools[1]: expected a pool apart from n1 10.0.0.0/8");
    fails(twice("10.5.0.0/16", "10.0.0.0/8"), "ipam.pools[1]");
    fails(with_ipam(json!({"pools": [{"cidr": "10.0.0.0/8"}], "subnet": "10.0.0.0/24"})), "ipam.pools");
    let many: Vec<Value> =
        (0..1025).map(|i| json!({"cidr": format!("10.{}.{}.0/24", i / 256, i % 256)})).collect();
    fails(with_ipam(json!({"pools": many})), "ipam.pools: expected at most 1024 items");
}

#[test]
fn pools_to_take_from_are_networks_or_names() {
    let pools = ipam(json!({"ipv4_pools": ["10.0.1.1/16", "my-pool"]})).ipv4_pools;
    assert_eq!(pools, [PoolRef::Cidr("10.0.0.0/16".parse().unwrap()), PoolRef::Name("my-pool".into())]);
    fails(with_ipam(json!({"ipv4_pools": ["fd00::/64"]})), "ipam.ipv4_pools[0]: expected an IPv4 network");
    fails(with_ipam(json!({"ipv6_pools": ["10.0.0.0/8"]})), "ipam.ipv6_pools[0]");
    fails(with_ipam(json!({"ipv4_pools": ["10.0.0.0/40"]})), "ipam.ipv4_pools[0]");
    fails(with_ipam(json!({"ipv4_pools": [5]})), "ipam.ipv4_pools[0]");
}

#[test]
fn host_locals_keys_have_host_locals_meaning() {
    let one = |keys: Value| {
        let range = ipam(keys).ranges.remove(0).remove(0);
        format!("{} {} {} {}", range.subnet, range.start, range.end, range.gateway)
    };
    assert_eq!(one(json!({"subnet": "10.1.2.0/24"})), "10.1.2.0/24 10.1.2.1 10.1.2.254 10.1.2.1");
    assert_eq!(one(json!({"subnet": "10.1.2.0/30"})), "10.1.2.0/30 10.1.2.1 10.1.2.2 10.1.2.1");
    assert_eq!(one(json!({"subnet": "fd00::/120"})), "fd00::/120 fd00::1 fd00::ff fd00::1");
    let set = json!({"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.9", "gateway": "10.1.2.254"});
    assert_eq!(one(set), "10.1.2.0/24 10.1.2.9 10.1.2.9 10.1.2.254");
    let outside = parse(with_ipam(json!({"subnet": "10.1.2.0/24", "gateway": "10.9.9.9"}))).unwrap();
    assert_eq!(outside.warnings[0].to_string(), "ipam.gateway: the gateway is not in the subnet");
    assert!(ipam(json!({"rangeStart": "10.1.2.9"})).ranges.is_empty(), "no subnet, no range");

    let range = &outside.conf.ipam.ranges[0][0];
    let holds = |ip: &str| range.contains(ip.parse().unwrap());
    assert!(holds("10.1.2.1") && holds("10.1.2.254"));
    assert!(!holds("10.1.2.0") && !holds("10.1.2.255") && !holds("fd00::1"));
}

#[test]
fn ranges_come_in_host_locals_order() {
    let conf = parse(json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bridge",
        "runtimeConfig": {"ipRanges": [[{"subnet": "10.3.0.0/24"}]]},
        "ipam": {
            "type": "percale-ipam", "subnet": "10.1.0.0/24",
            "ranges": [[{"subnet": "10.2.0.0/24"}, {"subnet": "10.4.0.0/24"}], [{"subnet": "fd00::/64"}]],
        },
    }));
    let sets: Vec<String> = conf
        .unwrap()
        .conf
        .ipam
        .ranges
        .iter()
        .map(|set| set.iter().map(|range| range.subnet.to_string()).collect::<Vec<_>>().join("+"))
        .collect();
    assert_eq!(sets, ["10.3.0.0/24", "10.1.0.0/24", "10.2.0.0/24+10.4.0.0/24", "fd00::/64"]);
}

#[test]
fn an_impossible_range_names_its_key() {
    let range = |range: Value| with_ipam(json!({"ranges": [[range]]}));
    let net = "10.1.2.0/24";
    let cases = [
        (json!({"subnet": "10.1.2.0/33"}), "ipam.ranges[0][0].subnet"),
        (json!({"subnet": "10.1.2.0/31"}), "at least four addresses"),
        (json!({"subnet": "10.1.2.0/32"}), "at least four addresses"),
        (json!({"subnet": "fd00::/127"}), "at least four addresses"),
        (json!({"subnet": "10.1.2.5/24"}), "without host bits such as 10.1.2.0/24"),
        (json!({"rangeStart": "10.1.2.5"}), "ipam.ranges[0][0].subnet"),
        (json!({"subnet": net, "rangeStart": "10.1.3.1"}), "ipam.ranges[0][0].rangeStart"),
        (json!({"subnet": net, "rangeEnd": "fd00::1"}), "ipam.ranges[0][0].rangeEnd"),
        (
            json!({"subnet": net, "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8"}),
            "not before rangeStart 10.1.2.9",
        ),
        (json!({"subnet": net, "gateway": "fd00::1"}), "ipam.ranges[0][0].gateway"),
        (json!({"subnet": net, "gateway": "10.1.2"}), "ipam.ranges[0][0].gateway"),
    ];
    for (keys, named) in cases {
        fails(range(keys), named);
    }
    fails(with_ipam(json!({"subnet": "10.1.2.0/24", "rangeStart": "x"})), "ipam.rangeStart");
    fails(with_ipam(json!({"ranges": [[]]})), "ipam.ranges[0]: expected at least one range");
    fails(with_ipam(json!({"ranges": [{"subnet": net}]})), "ipam.ranges[0]: expected a list");
    fails(
        with(json!({"runtimeConfig": {"ipRanges": [[{"subnet": "x"}]]}})),
        "runtimeConfig.ipRanges[0][0].subnet",
    );
}

#[test]
fn ranges_do_not_overlap() {
    let part =
        |start: &str, end: &str| json!({"subnet": "10.1.2.0/24", "rangeStart": start, "rangeEnd": end});
    let apart = json!({"ranges": [[part("10.1.2.10", "10.1.2.20"), part("10.1.2.21", "10.1.2.30")]]});
    assert_eq!(ipam(apart).ranges[0].len(), 2, "two parts of one subnet");
    let meet = json!({"ranges": [[part("10.1.2.10", "10.1.2.20"), part("10.1.2.20", "10.1.2.30")]]});
    fails(with_ipam(meet), "ipam.ranges[0][1]: expected a range that overlaps no other of its set");
    let inside = json!({"ranges": [[part("10.1.2.10", "10.1.2.30")], [part("10.1.2.15", "10.1.2.20")]]});
    fails(with_ipam(inside), "ipam.ranges: expected sets of ranges that do not overlap");
    let mixed = json!({"ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "fd00::/64"}]]});
    fails(with_ipam(mixed), "same family");
    let two = json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.3.0/24"}]]});
    let mut old = with_ipam(two);
    old["cniVersion"] = json!("0.2.0");
    fails(old, "one range set for each family");
}

#[test]
fn the_nodes_pod_cidr_is_asked_for() {
    for keys in [json!({"subnet": "usePodCidr"}), json!({"ranges": [[{"subnet": "USEPODCIDR"}]]})] {
        let ipam = parse(with(
            json!({"ipam": {"type": "host-local", "ranges": keys["ranges"], "subnet": keys["subnet"]}}),
        ));
        let ipam = ipam.unwrap().conf.ipam;
        assert!(ipam.use_pod_cidr && ipam.ranges.is_empty(), "{keys}");
    }
    assert!(!ipam(json!({"subnet": "10.0.0.0/24"})).use_pod_cidr);
}

#[test]
fn another_ipams_keys_are_its_own() {
    let other = json!({"ipam": {
        "type": "whereabouts", "range": "10.0.0.0/24", "subnet": 5, "pools": "x", "routes": [{"dst": "10.0.0.0/8"}],
    }});
    let parsed = parse(with(other)).unwrap();
    assert_eq!(parsed.warnings, []);
    assert_eq!((parsed.conf.ipam.plugin.as_str(), parsed.conf.ipam.is_own()), ("whereabouts", false));
    assert_eq!(parsed.conf.ipam.routes.len(), 1);
}

#[test]
fn another_main_plugins_keys_are_its_own() {
    let bridge = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br0", "isGateway": true, "mode": 5,
        "mtu": "auto", "ipam": {"type": "percale-ipam", "pools": [{"cidr": "10.0.0.0/16"}], "extra": 1},
    });
    let parsed = parse(bridge.clone()).unwrap();
    let warnings: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
    assert!(!warnings.iter().any(|warning| warning.contains("isGateway")), "{warnings:?}");
    assert!(warnings.contains(&"ipam.extra: unknown key, ignored".to_owned()));
    assert_eq!(parsed.conf.ipam.pools.len(), 1);
    let mut broken = bridge;
    broken["ipam"]["pools"][0]["cidr"] = json!("10.0.0.0/99");
    fails(broken, "ipam.pools[0].cidr");
}

#[test]
fn routes_are_calicos_and_host_locals() {
    let routes = ipam(
        json!({"routes": [{"dst": "0.0.0.0/0"}, {"gw": "10.0.0.1"}, {"dst": "10.0.0.0/8", "gw": "10.1.0.1"}]}),
    );
    let shown: Vec<String> =
        routes.routes.iter().map(|route| format!("{} {:?}", route.dst, route.gw)).collect();
    assert_eq!(shown, ["0.0.0.0/0 None", "10.0.0.0/8 Some(10.1.0.1)"], "a route without dst is left out");
    fails(with_ipam(json!({"routes": [{"dst": "10.0.0.0/8"}, {"dst": "nowhere"}]})), "ipam.routes[1].dst");
}

// REQ: C-12
#[test]
fn addresses_in_every_spelling_are_one() {
    let spellings = [
        "2001:db8:0:0:0:0:c000:201",
        "2001:0db8:0000:0000:0000:0000:C000:0201",
        "2001:DB8::C000:201",
        "2001:db8::192.0.2.1",
        "2001:0DB8::192.0.2.1",
    ];
    for text in spellings {
        let ips = conf(json!({"runtimeConfig": {"ips": [text]}})).runtime.ips;
        assert_eq!(ips[0].to_string(), "2001:db8::c000:201", "{text}");
    }
    let mapped = conf(json!({"runtimeConfig": {"ips": ["::ffff:10.0.0.5", "::FFFF:0a00:0005"]}})).runtime.ips;
    assert!(mapped.iter().all(|ip| ip.to_string() == "10.0.0.5"), "{mapped:?}");
    let net = ipam(json!({"pools": [{"cidr": "::ffff:10.0.0.0/104"}]})).pools[0].cidr;
    assert_eq!(net.to_string(), "10.0.0.0/8");
    let refused = [
        "fe80::1%eth0",
        "fe80::1%1",
        "2001:db8::1::2",
        "2001:db8:0:0:0:0:0:0:1",
        "2001:00db8::1",
        "::ffff:256.0.0.1",
        "10.0.0.05",
        "0x0a.0.0.1",
        "10.1",
        "167772165",
        "[::1]",
        " 10.0.0.5",
        "",
    ];
    for text in refused {
        fails(with(json!({"runtimeConfig": {"ips": [text]}})), "runtimeConfig.ips[0]");
    }
}

#[test]
fn absent_and_empty_lists_of_attachments_are_told_apart() {
    let id = |container: &str| AttachmentId { container_id: container.into(), ifname: "eth0".into() };
    let entry = |container: &str| json!({"containerID": container, "ifname": "eth0"});
    let new = "cni.dev/valid-attachments";
    let old = "cni.dev/attachments";
    let cases = [
        (json!({}), ValidAttachments::Absent),
        (json!({new: null}), ValidAttachments::Null),
        (json!({old: null}), ValidAttachments::Null),
        (json!({new: []}), ValidAttachments::Listed(vec![])),
        (json!({new: [entry("a")]}), ValidAttachments::Listed(vec![id("a")])),
        (json!({old: [entry("b")]}), ValidAttachments::Listed(vec![id("b")])),
        (json!({new: null, old: [entry("b")]}), ValidAttachments::Listed(vec![id("b")])),
        (json!({new: [entry("a")], old: [entry("b")]}), ValidAttachments::Listed(vec![id("a"), id("b")])),
    ];
    for (keys, expected) in cases {
        assert_eq!(conf(keys.clone()).valid_attachments, expected, "{keys}");
    }
    for bad in
        [json!("x"), json!([5]), json!([{"containerID": "a"}]), json!([{"containerID": 5, "ifname": "eth0"}])]
    {
        let refused = NetConf::from_value(with(json!({new: bad})), Mode::Tolerant);
        assert!(refused.unwrap_err().msg.contains(new), "half a list must not free the other half");
    }
    let many: Vec<Value> = (0..5000).map(|i| entry(&format!("c{i}"))).collect();
    assert_eq!(conf(json!({new: many})).valid_attachments.listed().unwrap().len(), 5000);
}

#[test]
fn every_problem_is_told_and_the_list_is_bounded() {
    let error = parse(with(json!({"mtu": "x", "nodename": 5, "ipMasq": "yes"}))).unwrap_err();
    let all = error.to_string();
    assert!(["mtu", "nodename", "ipMasq"].iter().all(|key| all.contains(key)), "{all}");
    let many: Vec<Value> = (0..1000).map(|_| json!({"dst": "x".repeat(1000)})).collect();
    let error = parse(with_ipam(json!({"routes": many}))).unwrap_err();
    assert!(error.to_string().len() < 12_000, "{}", error.to_string().len());
}

#[test]
fn another_data_plane_needs_its_socket() {
    let grpc = conf(json!({"dataplane_options": {"type": "grpc", "socket": "unix:///s"}})).dataplane;
    assert_eq!(grpc, Dataplane::Grpc { socket: "unix:///s".into() });
    fails(with(json!({"dataplane_options": {"type": "grpc"}})), "dataplane_options.socket");
    fails(with(json!({"dataplane_options": {"type": "bpf"}})), "dataplane_options.type");
}

#[test]
fn a_previous_result_of_any_version_is_read() {
    let prev = |prev: Value| conf(json!({"prevResult": prev})).prev_result.unwrap();
    let old = prev(json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.5/24"}}));
    let new = prev(json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24"}]}));
    assert_eq!(old, new);
    fails(with(json!({"prevResult": {"ips": [{"address": "x"}]}})), "prevResult.ips[0].address");
}
