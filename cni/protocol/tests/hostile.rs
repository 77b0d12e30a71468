//! Whatever a runtime, an administrator or a delegated plugin sends: an answer, never a panic.
//! The counts are for every run of the tests; PERCALE_FULL=1 multiplies them by a hundred
//! and takes other random values each time.
#![allow(clippy::unwrap_used, reason = "a test stops there")]

use cni_protocol::netconf::Mode;
use cni_protocol::{CniError, CniResult, Defaults, Env, NetConf, Request, Version};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use std::ffi::OsString;

const DOCUMENTS: [&str; 2] = [
    include_str!("../../../testdata/cni/every-key-pools.json"),
    include_str!("../../../testdata/cni/every-key-ranges.json"),
];

fn cases(every_run: u32) -> ProptestConfig {
    let full = std::env::var_os("PERCALE_FULL").is_some();
    let (cases, rng_seed) =
        if full { (every_run * 100, RngSeed::Random) } else { (every_run, RngSeed::Fixed(1)) };
    ProptestConfig { cases, rng_seed, ..ProptestConfig::default() }
}

/// Texts that decoders trip over.
fn any_text() -> impl Strategy<Value = String> {
    let known = [
        "",
        "/",
        "..",
        "::",
        "::/0",
        "0.0.0.0/0",
        "255.255.255.255/32",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        "fe80::1%eth0",
        "::ffff:1.2.3.4/95",
        "10.0.0.0/33",
        "1.0.0",
        "usePodCidr",
        "\u{0}",
        "é%s\n",
    ];
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        any::<String>(),
        "[0-9a-f:./%]{0,50}"
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z4]{0,8}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Puts `new` somewhere below `value`: the choices say where.
fn replace(value: &mut Value, choices: &[u16], new: Value) {
    let Some((first, rest)) = choices.split_first() else {
        *value = new;
        return;
    };
    let pick = |len: usize| usize::from(*first) % len;
    match value {
        Value::Object(map) if !map.is_empty() => {
            let len = map.len();
            let (_, child) = map.iter_mut().nth(pick(len)).unwrap();
            replace(child, rest, new);
        }
        Value::Array(list) if !list.is_empty() => {
            let len = list.len();
            replace(&mut list[pick(len)], rest, new);
        }
        _ => *value = new,
    }
}

fn is_sound(error: &CniError) {
    assert!(!error.msg.is_empty() && !error.msg.contains('\n'));
    assert!(error.to_json(Version::NEWEST)["code"].as_u64().unwrap() <= 107);
}

fn check_conf(conf: Value) {
    for mode in [Mode::Strict, Mode::Tolerant] {
        match NetConf::from_value(conf.clone(), mode) {
            Ok(parsed) => {
                let _families = parsed.conf.ipam.families();
                for set in &parsed.conf.ipam.ranges {
                    assert!(!set.is_empty());
                    assert!(
                        set.iter().all(|range| range.start <= range.end && range.subnet.contains(&range.end))
                    );
                }
                for pool in &parsed.conf.ipam.pools {
                    assert!(pool.block_size >= pool.cidr.prefix_len());
                }
            }
            Err(error) => is_sound(&error),
        }
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_configuration_with_one_strange_value(
        which in 0usize..2,
        choices in prop::collection::vec(any::<u16>(), 1..5),
        new in any_json(),
    ) {
        let mut conf: Value = serde_json::from_str(DOCUMENTS[which]).unwrap();
        replace(&mut conf, &choices, new);
        check_conf(conf);
    }

    #[test]
    fn a_configuration_of_strange_values(ipam in any_json(), other in any_json()) {
        check_conf(json!({"name": "n", "ipam": ipam, "runtimeConfig": other, "prevResult": other}));
    }

    #[test]
    fn a_configuration_with_bytes_changed(at in any::<u16>(), byte in any::<u8>(), cut in any::<u16>()) {
        let mut bytes = DOCUMENTS[0].as_bytes().to_vec();
        let place = usize::from(at) % bytes.len();
        bytes[place] = byte;
        if cut % 4 == 0 {
            bytes.truncate(usize::from(cut) % bytes.len());
        }
        if let Err(error) = NetConf::parse(&bytes) {
            is_sound(&error);
        }
    }

    #[test]
    fn an_environment_of_strange_values(values in prop::collection::vec(any_text(), 6), verb in 0usize..7) {
        let verb = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "?"][verb];
        let names = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "CNI_NETNS_OVERRIDE"];
        let get = |name: &str| -> Option<OsString> {
            if name == "CNI_COMMAND" {
                return Some(verb.into());
            }
            names.iter().position(|known| *known == name).map(|i| OsString::from(&values[i]))
        };
        let parsed = Env::from_fn(get).and_then(|env| {
            Request::parse(env, br#"{"cniVersion":"1.1.0","name":"n","type":"percale"}"#, Defaults::calico())
        });
        match parsed {
            Ok(request) => {
                if let Some(attachment) = request.attachment {
                    prop_assert!(attachment.ifname.len() < 16 && !attachment.file_name().contains('/'));
                }
            }
            Err(error) => is_sound(&error),
        }
    }

    #[test]
    fn a_result_of_strange_values(json in any_json(), choices in prop::collection::vec(any::<u16>(), 0..4)) {
        let mut result: Value = serde_json::from_str(DOCUMENTS[0]).unwrap();
        let mut result = result["prevResult"].take();
        replace(&mut result, &choices, json);
        match CniResult::from_json(&result) {
            Ok(read) => for version in Version::ALL {
                prop_assert!(CniResult::from_json(&read.to_json(version)).is_ok());
            },
            Err(error) => is_sound(&error),
        }
        let _error = CniError::from_json(&result);
    }
}
