//! Our IPAM alone, as another plugin calls it: no namespace is needed, so leases are cheap.

use crate::bed::Bed;
use crate::cnirun::{Attachment, Failure, Network};
use crate::conf;
use serde_json::{Value, json};

/// `percale-ipam` under a bridge network named `leases`, with one range for each subnet.
pub struct Leases<'a> {
    network: Network<'a>,
    stdin: String,
}

impl<'a> Leases<'a> {
    pub fn new(bed: &'a Bed, subnets: &[&str]) -> Self {
        let ranges: Vec<Value> = subnets.iter().map(|s| json!([{"subnet": s}])).collect();
        let ipam = json!({"type": "percale-ipam", "ranges": ranges});
        let plugin = conf::with_our_ipam(bed, json!({"type": "bridge"}), ipam);
        let network = Network::new(bed, "leases", vec![plugin]);
        let stdin = network.config(&network.plugins[0], None).to_string();
        Self { network, stdin }
    }

    /// Calls for container `leaseI`, interface `eth0`.
    pub fn call(&self, verb: &str, i: usize) -> Result<Value, Failure> {
        let pod = Attachment {
            container: format!("lease{i}"),
            ifname: "eth0".into(),
            netns: "/run/netns/none".into(),
            args: String::new(),
        };
        self.network.exec_raw(verb, "percale-ipam", self.stdin.as_bytes(), &pod).result()
    }
}
