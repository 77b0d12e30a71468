//! The text of a conflist or of one plugin's configuration. A list is taken apart as a runtime
//! does: name and version go into each plugin's part.
#![no_main]

use cni_protocol::netconf::{Mode, NetConf};
use cni_protocol::{Defaults, PoolSpec, RangeSpec};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let strict = NetConf::parse(data);
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        assert!(strict.is_err());
        return;
    };
    let tolerant = NetConf::from_value(value.clone(), Mode::Tolerant);
    assert!(strict.is_err() || tolerant.is_ok(), "cleaning up asks for no more than adding");
    for conf in plugins(&value).chain([value.clone()]) {
        if let Ok(parsed) = NetConf::from_value(conf, Mode::Strict) {
            check(&parsed.conf);
        }
    }
});

fn plugins(list: &Value) -> impl Iterator<Item = Value> {
    let parts = list.get("plugins").and_then(Value::as_array).cloned().unwrap_or_default();
    parts.into_iter().filter(Value::is_object).map(|mut part| {
        for key in ["name", "cniVersion"] {
            part[key] = list.get(key).cloned().unwrap_or_default();
        }
        part
    })
}

fn check(conf: &NetConf) {
    assert!(conf.mtu == 0 || (68..=65535).contains(&conf.mtu));
    conf.ipam.pools.iter().for_each(check_pool);
    for (i, pool) in conf.ipam.pools.iter().enumerate() {
        assert!(conf.ipam.pools[..i].iter().all(|other| !other.cidr.contains(&pool.cidr)));
    }
    for set in &conf.ipam.ranges {
        assert!(!set.is_empty());
        set.iter().for_each(check_range);
    }
    let _families = conf.ipam.families();
    let paths = conf.paths(&Defaults::calico());
    assert!(!paths.store.as_os_str().is_empty());
    let _text = format!("{conf:?}");
}

fn check_pool(pool: &PoolSpec) {
    let sizes = if pool.cidr.addr().is_ipv4() { 20..=32 } else { 116..=128 };
    assert!(sizes.contains(&pool.block_size) && pool.block_size >= pool.cidr.prefix_len());
    assert_eq!(pool.cidr, pool.cidr.trunc());
}

fn check_range(range: &RangeSpec) {
    assert!(range.start <= range.end);
    assert!(range.subnet.contains(&range.start) && range.subnet.contains(&range.end));
    assert!(!range.contains(range.gateway));
}
