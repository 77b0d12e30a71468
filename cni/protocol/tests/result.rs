//! Results in the shape of each version of the specification.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use cni_protocol::{CniResult, Code, Dns, Interface, IpConfig, Route, Version};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

fn golden(version: Version) -> Value {
    let path = format!("{}/../../testdata/cni/results/{version}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A dual-stack attachment with everything a result can say.
fn full() -> CniResult {
    let ip = |address: &str, gateway: Option<&str>| IpConfig {
        interface: Some(1),
        address: address.parse().unwrap(),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
    };
    let route = |dst: &str, gw: &str| Route::new(dst.parse().unwrap(), gw.parse().ok());
    let host = Interface {
        name: "cali0a1b2c3d4e5".into(),
        mac: "ee:ee:ee:ee:ee:ee".into(),
        mtu: Some(1450),
        ..Interface::default()
    };
    let pod = Interface {
        name: "eth0".into(),
        mac: "0a:58:0a:00:00:05".into(),
        mtu: Some(1450),
        sandbox: Some("/run/netns/blue".into()),
        socket_path: Some("/run/vhost.sock".into()),
        pci_id: Some("0000:00:1f.6".into()),
    };
    let special = Route {
        mtu: Some(1400),
        advmss: Some(1360),
        priority: Some(10),
        table: Some(100),
        scope: Some(253),
        ..route("10.1.0.0/16", "")
    };
    CniResult {
        interfaces: vec![host, pod],
        ips: vec![ip("10.0.0.5/26", Some("10.0.0.1")), ip("10.0.1.5/32", None), ip("fd00::5/128", None)],
        routes: vec![route("0.0.0.0/0", "169.254.1.1"), special, route("::/0", "fe80::ecee:eeff:feee:eeee")],
        dns: Dns {
            nameservers: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
            search: vec!["svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        },
    }
}

/// What is left of a result that went through `version`.
fn as_told_by(version: Version, result: &CniResult) -> CniResult {
    let mut told = result.clone();
    if version < Version::V1_1_0 {
        for interface in &mut told.interfaces {
            *interface = Interface { mtu: None, socket_path: None, pci_id: None, ..interface.clone() };
        }
        told.routes.iter_mut().for_each(|route| *route = Route::new(route.dst, route.gw));
    }
    if version.is_legacy() {
        let of = |v4: bool| told.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4).cloned();
        let ips: Vec<IpConfig> = [of(true), of(false)].into_iter().flatten().collect();
        let routes = |v4: bool| told.routes.iter().filter(move |r| r.dst.addr().is_ipv4() == v4).cloned();
        told.routes = ips.iter().flat_map(|ip| routes(ip.address.addr().is_ipv4())).collect();
        told.ips = ips.into_iter().map(|ip| IpConfig { interface: None, ..ip }).collect();
        told.interfaces.clear();
    }
    told
}

#[test]
fn each_version_has_its_shape() {
    for version in Version::ALL {
        assert_eq!(full().to_json(version), golden(version), "{version}");
    }
}

#[test]
fn each_version_is_read_back() {
    for version in Version::ALL {
        let read = CniResult::from_json(&golden(version)).unwrap();
        assert_eq!(read, as_told_by(version, &full()), "{version}");
    }
}

#[test]
fn dns_is_always_an_object() {
    for version in Version::ALL {
        assert_eq!(CniResult::default().to_json(version), json!({"cniVersion": version.as_str(), "dns": {}}));
    }
}

#[test]
fn what_real_ipam_plugins_print_is_understood() {
    // host-local, 0.2.0 and 1.0.0; static, which writes an empty gateway; a plugin without cniVersion
    let cases = [
        json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24", "gateway": "10.1.2.1"}, "dns": {}}),
        json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1"}], "dns": {}}),
        json!({"ips": [{"version": "4", "address": "10.1.2.3/24", "gateway": "10.1.2.1"}], "routes": null}),
    ];
    for case in cases {
        let result = CniResult::from_json(&case).unwrap();
        assert_eq!(result.ips[0].address.to_string(), "10.1.2.3/24", "host bits are kept");
        assert_eq!(result.ips[0].gateway.unwrap().to_string(), "10.1.2.1");
    }
    let no_gateway = json!({"ips": [{"address": "10.1.2.3/24", "gateway": ""}]});
    assert_eq!(CniResult::from_json(&no_gateway).unwrap().ips[0].gateway, None);
}

#[test]
fn an_unusable_result_names_the_key() {
    let cases = [
        (json!([]), Code::Decode, "object"),
        (json!({"cniVersion": "2.0.0"}), Code::IncompatibleVersion, "2.0.0"),
        (json!({"ips": [{"address": "10.0.0.5"}]}), Code::Decode, "ips[0].address"),
        (json!({"ips": [{"address": "10.0.0.5/33"}]}), Code::Decode, "ips[0].address"),
        (json!({"ips": [{}]}), Code::Decode, "ips[0].address"),
        (json!({"ips": [{"address": "10.0.0.5/32", "interface": -1}]}), Code::Decode, "ips[0].interface"),
        (json!({"ips": [{"address": "fe80::1%eth0/64"}]}), Code::Decode, "zone"),
        (json!({"ip4": {"ip": 5}}), Code::Decode, "ip4.ip"),
        (json!({"routes": [{"dst": "x"}]}), Code::Decode, "routes[0].dst"),
        (json!({"interfaces": "eth0"}), Code::Decode, "interfaces"),
    ];
    for (json, code, named) in cases {
        let error = CniResult::from_json(&json).unwrap_err();
        assert_eq!(error.code, code, "{json}");
        assert!(error.msg.contains(named), "{json}: {error}");
    }
}

fn any_route() -> impl Strategy<Value = Route> {
    let number = || prop::option::of(1u32..100_000);
    let extras = (number(), number(), number(), number(), number());
    (any_net(), prop::option::of(any::<std::net::IpAddr>()), extras).prop_map(
        |(dst, gw, (mtu, advmss, priority, table, scope))| {
            let gw = gw.map(|gw| gw.to_canonical());
            Route { dst, gw, mtu, advmss, priority, table, scope }
        },
    )
}

fn any_net() -> impl Strategy<Value = ipnet::IpNet> {
    (any::<std::net::IpAddr>(), 0u8..=128).prop_map(|(ip, prefix)| {
        let ip = ip.to_canonical();
        ipnet::IpNet::new(ip, prefix.min(if ip.is_ipv4() { 32 } else { 128 })).unwrap()
    })
}

fn any_interface() -> impl Strategy<Value = Interface> {
    let text = || prop::option::of("[a-z/]{1,9}");
    (
        "[a-z0-9]{1,15}",
        "([0-9a-f]{2}:){5}[0-9a-f]{2}|",
        prop::option::of(1u32..70_000),
        text(),
        text(),
        text(),
    )
        .prop_map(|(name, mac, mtu, sandbox, socket_path, pci_id)| Interface {
            name,
            mac,
            mtu,
            sandbox,
            socket_path,
            pci_id,
        })
}

fn any_result() -> impl Strategy<Value = CniResult> {
    let ip = (prop::option::of(0usize..4), any_net(), prop::option::of(any::<std::net::IpAddr>())).prop_map(
        |(interface, address, gateway)| IpConfig {
            interface,
            address,
            gateway: gateway.map(|ip| ip.to_canonical()),
        },
    );
    let texts = || prop::collection::vec("[a-z0-9.:]{0,12}", 0..3);
    let dns = (texts(), "[a-z.]{0,9}", texts(), texts())
        .prop_map(|(nameservers, domain, search, options)| Dns { nameservers, domain, search, options });
    let lists = (
        prop::collection::vec(any_interface(), 0..4),
        prop::collection::vec(ip, 0..5),
        prop::collection::vec(any_route(), 0..5),
        dns,
    );
    lists.prop_map(|(interfaces, ips, routes, dns)| CniResult { interfaces, ips, routes, dns })
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn a_version_keeps_what_it_can_express(result in any_result(), index in 0usize..7) {
        let version = Version::ALL[index];
        let read = CniResult::from_json(&result.to_json(version)).unwrap();
        prop_assert_eq!(read, as_told_by(version, &result));
    }

    /// A second implementation of the specification reads what we write, and writes the same.
    #[test]
    fn another_implementation_agrees(mut result in any_result(), index in 2usize..7) {
        use rscni_types::types::CNIResultWithVersion;
        let version = Version::ALL[index];
        result.dns.domain = "never.empty".into();
        let ours = result.to_json(version);
        let theirs: CNIResultWithVersion = serde_json::from_value(ours.clone()).unwrap();
        let written = if version < Version::V1_0_0 {
            let version = version.as_str().parse().unwrap();
            serde_json::to_value(rscni_types::legacy::CNIResult::new(version, theirs.into_result())).unwrap()
        } else {
            serde_json::to_value(theirs).unwrap()
        };
        prop_assert_eq!(without_empty_lists(written), without_empty_lists(ours));
    }
}

/// An empty list and an absent one say the same.
fn without_empty_lists(mut json: Value) -> Value {
    if let Some(dns) = json["dns"].as_object_mut() {
        dns.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    }
    json
}
