//! Configurations: ours with every path inside the bed, and those of the peers.

use crate::bed::Bed;
use serde_json::{Map, Value, json};

/// The IPv4 pool of the tests.
pub const POOL_V4: &str = "10.91.0.0/16";
/// The IPv6 pool of the tests.
pub const POOL_V6: &str = "fd00:10:91::/64";

/// Our plugin with a pool of each family and the embedded store, in the bed.
pub fn percale(bed: &Bed) -> Value {
    let mut plugin = json!({"type": "percale", "mtu": 1500, "ipam": pools(&[POOL_V4, POOL_V6])});
    put_all(&mut plugin, paths(bed));
    plugin
}

/// Our plugin with one pool.
pub fn percale_with(bed: &Bed, pools_of: &[&str]) -> Value {
    let mut plugin = percale(bed);
    plugin["ipam"] = pools(pools_of);
    plugin
}

/// An `ipam` section of ours with these pools.
pub fn pools(cidrs: &[&str]) -> Value {
    let pools: Vec<Value> = cidrs.iter().map(|cidr| json!({"cidr": cidr})).collect();
    json!({"type": "percale-ipam", "pools": pools})
}

/// The keys that keep everything our plugin writes inside the bed. They go in the plugin's own
/// section, also where another plugin calls `percale-ipam`.
pub fn paths(bed: &Bed) -> Value {
    json!({
        "datastore_type": "embedded",
        "state_dir": bed.path("state"),
        "ipam_lock_file": bed.path("run/ipam.lock"),
        "attachment_dir": bed.path("run/attachments"),
        "daemon_socket": "",
        "log_file_path": bed.path("log/cni.log"),
    })
}

/// host-local with one range for each subnet.
pub fn host_local(bed: &Bed, subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|s| json!([{"subnet": s}])).collect();
    json!({"type": "host-local", "dataDir": bed.path("host-local"), "ranges": ranges})
}

/// Another main plugin with our IPAM.
pub fn with_our_ipam(bed: &Bed, plugin: Value, ipam: Value) -> Value {
    let mut plugin = plugin;
    put_all(&mut plugin, paths(bed));
    plugin["ipam"] = ipam;
    plugin
}

/// Copies every member of `more` into `into`.
pub fn put_all(into: &mut Value, more: Value) {
    let empty = Map::new();
    let into = into.as_object_mut().expect("a configuration is an object");
    for (key, value) in more.as_object().unwrap_or(&empty) {
        into.insert(key.clone(), value.clone());
    }
}

/// A conflist.
pub fn conflist(name: &str, version: &str, plugins: &[Value]) -> Value {
    json!({"cniVersion": version, "name": name, "plugins": plugins})
}
